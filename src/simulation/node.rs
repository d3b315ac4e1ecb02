//! One simulated node: what the real shell keeps, without its tasks and locks.

use std::collections::{BTreeMap, VecDeque};

use crate::anti_entropy::recovery::Recovery;
use crate::base::hash::{Digest, HashSeed};
use crate::base::id::{Actor, NodeId, VnodeId};
use crate::base::time::UnixMs;
use crate::coordinator::gather::Revision;
use crate::coordinator::read::Read;
use crate::coordinator::route::Reach;
use crate::coordinator::stand_in::StandIns;
use crate::coordinator::tally::Tally;
use crate::coordinator::write::Write;
use crate::handoff::machine::{self, Found, Handoff};
use crate::membership::lives::{Lives, Met};
use crate::membership::steering::Steering;
use crate::peer::stream::{Bounds, Incoming, Stream};
use crate::storage::keyspace::Keyspace;

use super::disk::{Disk, Life};
use super::exchanges::{Active, Answering};
use super::facts::Facts;
use super::frame::{Frame, Reply};
use super::handing::Sent;
use super::plan::{KEYS, Tuning, VNODES};
use super::unsettled::Unsettled;

/// The wall clock at the world's beginning.
pub(super) const EPOCH: u64 = 1_000_000;

/// The cluster's hash seed.
pub(super) const SEED: HashSeed = HashSeed(7);

/// Who asked, and so where the reply goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    Client,
    /// A peer over this link, and its number there.
    Peer {
        peer: usize,
        link: u32,
        id: u64,
    },
}

/// Who waits for a change in a link's stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Waiter {
    Write(u64),
    Operation(u64),
}

/// A write that ran and waits for acknowledgements.
#[derive(Clone, Debug)]
pub(super) struct Awaited {
    pub(super) tally: Tally,
    pub(super) origin: Origin,
    pub(super) request: usize,
    pub(super) reply: Reply,
}

/// A request that another node runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Forwarded {
    pub(super) peer: usize,
    pub(super) origin: Origin,
    pub(super) request: usize,
}

#[derive(Clone, Debug)]
pub(super) enum Machine {
    Read(Read),
    Write(Write),
}

/// An operation that asks other replicas.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) machine: Machine,
    pub(super) request: usize,
    pub(super) key: usize,
    pub(super) origin: Origin,
    /// The key's digest as the operation last saw it.
    pub(super) digest: Digest,
    pub(super) reply: Reply,
    pub(super) ran: bool,
    /// How many replicas must hold what is answered, whatever a mutant asks for.
    pub(super) hold: u8,
    pub(super) stand_ins: StandIns,
}

/// A question that a peer has not answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) operation: u64,
    pub(super) peer: usize,
    /// Of a write-back: what its acknowledgement is for.
    pub(super) revision: Option<Revision>,
}

/// What a node keeps of one peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) link: Option<u32>,
    pub(super) stream: Stream,
    pub(super) incoming: Incoming,
    pub(super) steering: Steering,
    /// All that was ever said to it: the stream's frames carry places in here.
    pub(super) said: Vec<Frame>,
    /// The changes among that, each with its number in the stream.
    pub(super) changes: Vec<(u64, usize)>,
    /// Up to which of them the peer has to compare itself: the stream had a gap, or it lost its disk.
    pub(super) compared: u64,
    /// Up to which change of its stream it was seen that this node holds what it acknowledges.
    pub(super) checked: u64,
    /// Whether the writer will look again.
    pub(super) pumping: bool,
    /// The number of the last change that came.
    pub(super) received: u64,
    /// Whether it was given up while others that may know of its last changes were gone, too.
    pub(super) unresolved: bool,
    pub(super) waiters: VecDeque<(u64, usize, Waiter)>,
    pub(super) met: bool,
    /// The start of this node that the link at hand, or in the making, was told of.
    pub(super) told_start: u32,
    /// The peer's life and what it knows of others', until it speaks.
    pub(super) greeted: Option<(Met, Lives)>,
    pub(super) exchange: Option<Active>,
    /// Vnodes that the peer compares with this node.
    pub(super) answering: BTreeMap<usize, Answering>,
    /// Vnodes (one bit each) that the peer was busy with and that are left alone for a while.
    pub(super) resting: u32,
    pub(super) exchanges: u32,
    /// Vnodes (one bit each) that the present round compares with it.
    pub(super) round: u32,
}

/// A log is synced more often than in earnest, and so what it holds is sure earlier.
fn handoff_options() -> machine::Options {
    machine::Options { forget_after_ms: 150, retry_after_ms: 300, ..machine::Options::default() }
}

impl Peer {
    fn new(tuning: Tuning) -> Peer {
        let bounds = Bounds { bytes_max: tuning.backlog_bytes, ..Bounds::default() };
        Peer {
            link: None,
            stream: Stream::new(bounds),
            incoming: Incoming::default(),
            steering: Steering::new(tuning.patience_ms),
            said: Vec::new(),
            changes: Vec::new(),
            compared: 0,
            checked: 0,
            pumping: false,
            received: 0,
            unresolved: false,
            waiters: VecDeque::new(),
            met: false,
            told_start: 0,
            greeted: None,
            exchange: None,
            answering: BTreeMap::new(),
            resting: 0,
            exchanges: 0,
            round: 0,
        }
    }
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) alive: bool,
    pub(super) paused: bool,
    /// Which process this is: events of an earlier one mean nothing to it.
    pub(super) process: u32,
    /// How far its clock is off, in milliseconds.
    pub(super) skew: i64,
    pub(super) disk: Disk,
    pub(super) keyspace: Keyspace,
    pub(super) facts: [Facts; KEYS],
    pub(super) reach: Vec<Reach>,
    pub(super) unsettled: Unsettled,
    /// What is held for others, and what of it was sent.
    pub(super) handoff: Handoff,
    pub(super) hints: BTreeMap<u64, Sent>,
    /// Whether it will be looked at again.
    pub(super) handing: bool,
    /// With which peer each vnode is compared, and since when.
    pub(super) engaged: BTreeMap<usize, (usize, u64)>,
    /// What it found last of what it holds for others.
    pub(super) page: (VnodeId, Vec<(Vec<u8>, Found)>),
    pub(super) recovery: Recovery,
    /// How often a recovery was begun.
    pub(super) recoveries: u64,
    pub(super) returning: bool,
    pub(super) greeted: bool,
    /// Whether a sync of the log is planned.
    pub(super) syncing: bool,
    pub(super) peers: Vec<Peer>,
    pub(super) awaited: BTreeMap<u64, Awaited>,
    pub(super) forwards: BTreeMap<u64, Forwarded>,
    pub(super) operations: BTreeMap<u64, Operation>,
    pub(super) asked: BTreeMap<u64, Asked>,
    tuning: Tuning,
    next: u64,
}

impl Node {
    pub(super) fn new(place: usize, nodes: usize, tuning: Tuning) -> Node {
        Node {
            id: NodeId(place as u16 + 1),
            alive: false,
            paused: false,
            process: 0,
            skew: 0,
            disk: Disk::default(),
            keyspace: Keyspace::new(VNODES, SEED),
            facts: Default::default(),
            reach: vec![Reach::Down; nodes],
            unsettled: Unsettled::new(nodes),
            handoff: Handoff::new(handoff_options()),
            hints: BTreeMap::new(),
            handing: false,
            engaged: BTreeMap::new(),
            page: (VnodeId(0), Vec::new()),
            recovery: Recovery::new(),
            recoveries: 0,
            returning: false,
            greeted: false,
            syncing: false,
            peers: (0..nodes).map(|_| Peer::new(tuning)).collect(),
            tuning,
            awaited: BTreeMap::new(),
            forwards: BTreeMap::new(),
            operations: BTreeMap::new(),
            asked: BTreeMap::new(),
            next: 0,
        }
    }

    /// A number that this process has not used.
    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Names this process, as no other is named.
    pub(super) fn run(&self) -> u64 {
        u64::from(self.id.0) << 32 | u64::from(self.process + 1)
    }

    pub(super) fn actor(&self) -> Actor {
        Actor::new(self.id, self.life().boot)
    }

    /// The life it lives.
    pub(super) fn life(&self) -> &Life {
        self.disk.life.as_ref().expect("a process has a life")
    }

    /// Whether it has met nobody since its folder was made: for all it knows that was wiped.
    pub(super) fn is_unmet(&self) -> bool {
        self.disk.met.is_empty()
    }

    /// What its clock shows.
    pub(super) fn wall(&self, now: u64) -> UnixMs {
        UnixMs((EPOCH + now).saturating_add_signed(self.skew))
    }

    /// All that a process knows is gone; the next one begins.
    pub(super) fn forget(&mut self) {
        let fresh = Node::new(usize::from(self.id.0) - 1, self.peers.len(), self.tuning);
        let disk = std::mem::take(&mut self.disk);
        *self = Node { disk, process: self.process + 1, skew: self.skew, ..fresh };
    }
}
