//! A world's plan, drawn from its seed: the cluster, its contract, how bad the network is, and
//! which kinds of faults come.

use std::sync::OnceLock;

use crate::base::id::{NodeId, VnodeId};
use crate::coordinator::contract::Quorum;
use crate::ring::contract::Contract;
use crate::ring::member::Member;
use crate::ring::slot::slot_of;
use crate::ring::topology::Topology;

use super::chance::Chance;
use super::mutants::Mutant;

/// Vnodes of every world.
pub(super) const VNODES: u16 = 4;

/// Keys of every world.
pub(super) const KEYS: usize = 4;

/// What happens on a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Use {
    /// SET, GET, SET NX: a history that can be judged.
    Register,
    /// INCR and GET.
    Counter,
    /// SET, DEL, GET: a history that can be judged in calm times.
    Cart,
    /// Everything.
    Mixed,
}

/// What each key is for.
pub(super) const USES: [Use; KEYS] = [Use::Register, Use::Counter, Use::Cart, Use::Mixed];

/// The counter's place among them.
pub(super) const COUNTER: usize = 1;

/// Where keys and vnodes are, for a number of nodes.
#[derive(Debug)]
pub(super) struct Chart {
    /// Each key's name and vnode.
    pub(super) keys: Vec<(Vec<u8>, VnodeId)>,
    /// Each vnode's replicas, by their places.
    pub(super) replicas: Vec<Vec<usize>>,
    /// Each vnode's stand-ins, in order.
    pub(super) fallbacks: Vec<Vec<usize>>,
}

/// The chart of a cluster of `nodes`; node `i` has the id `i + 1`.
pub(super) fn chart(nodes: usize) -> &'static Chart {
    static CHARTS: [OnceLock<Chart>; 8] = [const { OnceLock::new() }; 8];
    CHARTS[nodes].get_or_init(|| {
        let members = (1..=nodes as u16).map(|id| Member::new(NodeId(id), "h", 1_000 + id));
        let contract = Contract::new(3, 1, 2).expect("a contract");
        let topology = Topology::from_members("sim", members.collect(), VNODES, contract);
        let topology = topology.expect("a topology");
        let key = |nth: usize| {
            let name = format!("k{nth}").into_bytes();
            let vnode = topology.vnode_of(slot_of(&name));
            (name, vnode)
        };
        let replicas = (0..VNODES).map(|vnode| {
            topology.replicas(VnodeId(vnode)).iter().map(|node| usize::from(node.0) - 1).collect()
        });
        let fallbacks = (0..VNODES).map(|vnode| {
            let fallbacks = topology.fallbacks(VnodeId(vnode));
            fallbacks.iter().map(|node| usize::from(node.0) - 1).collect()
        });
        Chart {
            keys: (0..KEYS).map(key).collect(),
            replicas: replicas.collect(),
            fallbacks: fallbacks.collect(),
        }
    })
}

/// Which kinds of faults come to a world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Weather {
    /// None.
    Calm,
    /// Processes are killed, one at a time, and come back.
    Kills,
    /// Links break and the network splits.
    Network,
    /// All of it, and disks lose what was written, and clocks jump.
    Everything,
}

/// What a world is mostly about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Focus {
    /// A bit of everything.
    Usual,
    /// Many requests for one key of a strict keyspace, and clocks that disagree.
    Strict,
    /// Disks that lose what was written.
    Losses,
    /// Splits that leave keys without their replicas.
    StandIns,
    /// Keys of a strict keyspace that come and go while links break and streams have gaps.
    Removals,
}

/// What operators choose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Tuning {
    /// How long a peer without a link is waited for.
    pub(super) patience_ms: u64,
    /// What is kept of the stream to a peer.
    pub(super) backlog_bytes: usize,
}

/// See the head of this file.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) focus: Focus,
    pub(super) nodes: usize,
    pub(super) quorum: Quorum,
    pub(super) weather: Weather,
    pub(super) mutant: Mutant,
    pub(super) clients: usize,
    /// Requests in all.
    pub(super) requests: usize,
    /// Most milliseconds that a client thinks between two requests.
    pub(super) think_ms: u64,
    /// Most milliseconds that a frame takes; one in sixteen takes ten times as long.
    pub(super) delay_ms: u64,
    /// How often in a hundred a copy of a frame's record comes again much later.
    pub(super) stale: u64,
    pub(super) faults: usize,
    pub(super) tuning: Tuning,
}

impl Plan {
    pub(super) fn draw(chance: &mut Chance, mutant: Mutant, focus: Option<Focus>) -> Plan {
        let drawn = [Focus::Usual, Focus::Usual, Focus::Strict, Focus::Losses, Focus::StandIns];
        let drawn = drawn[chance.place(drawn.len())];
        let focus = focus.unwrap_or(drawn);
        let contracts: &[(u8, u8)] = match focus {
            Focus::Usual => &[(1, 2), (1, 2), (1, 1), (2, 1), (2, 2), (2, 2), (1, 3), (3, 1)],
            Focus::Strict => &[(2, 2), (2, 2), (2, 2), (1, 3), (3, 1), (3, 3)],
            Focus::Losses => &[(1, 2), (2, 2), (1, 3), (3, 2)],
            Focus::StandIns => &[(1, 2), (1, 2), (2, 1), (1, 1)],
            Focus::Removals => &[(2, 2), (2, 2), (1, 3), (2, 3)],
        };
        let (r, w) = contracts[chance.place(contracts.len())];
        let weather = match (focus, chance.below(100)) {
            (Focus::Usual, 0..15) => Weather::Calm,
            (Focus::Usual, 15..50) => Weather::Kills,
            (Focus::Usual, 50..70) | (Focus::Strict | Focus::StandIns, 0..50) => Weather::Network,
            (Focus::Removals, _) => Weather::Network,
            _ => Weather::Everything,
        };
        Plan {
            focus,
            nodes: if focus == Focus::StandIns { 5 } else { [3, 3, 4, 5][chance.place(4)] },
            quorum: Quorum::new(3, r, w).expect("a contract"),
            weather,
            mutant,
            clients: chance.between(2, 4) as usize,
            requests: chance.between(20, 90) as usize,
            think_ms: [5, 20, 60][chance.place(3)],
            delay_ms: [2, 6, 20][chance.place(3)],
            stale: [0, 0, 3, 10][chance.place(4)],
            tuning: Tuning {
                patience_ms: [40, 150, 500][chance.place(3)],
                backlog_bytes: if focus == Focus::Removals {
                    1
                } else {
                    [300, 2_000, 64 << 20][chance.place(3)]
                },
            },
            faults: match weather {
                Weather::Calm => 0,
                _ if focus == Focus::Usual => chance.between(1, 8) as usize,
                _ => chance.between(3, 14) as usize,
            },
        }
    }
}
