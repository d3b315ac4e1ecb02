//! Who holds each vnode, who coordinates it now, and how many of its replicas count.
//!
//! The answer is needed for every command and changes only when a link comes or goes, so it is
//! worked out then, for all vnodes, and read as one atomic word a vnode.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, Ordering};

use smallvec::SmallVec;

use crate::base::id::{NodeId, VnodeId};
use crate::coordinator::route::{self, Reach, Route};
use crate::ring::topology::Topology;

use super::batch::PeerIndex;

/// No member at all.
const NOBODY: u8 = u8::MAX;

/// The replicas of one vnode, by their places among the members, in order of preference.
pub(super) type Replicas = SmallVec<[PeerIndex; 8]>;

/// What is known of one vnode's replicas.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Standing {
    /// Who coordinates; `None`: nobody can.
    pub(super) coordinator: Option<PeerIndex>,
    /// Replicas that count now, this node included if it is one and counts.
    pub(super) counting: u8,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Routes {
    me: PeerIndex,
    members: Box<[NodeId]>,
    replicas: Box<[Replicas]>,
    /// Who stands in for them, in order.
    fallbacks: Box<[Replicas]>,
    /// Members that take no more hints.
    full: Box<[AtomicBool]>,
    reach: Box<[AtomicU8]>,
    standings: Box<[AtomicU16]>,
}

const fn code(reach: Reach) -> u8 {
    match reach {
        Reach::Down => 0,
        Reach::Recovering => 1,
        Reach::Up => 2,
        Reach::Awaited => 3,
        Reach::Skewed => 4,
    }
}

impl Routes {
    /// Everybody but this node is down at first; this node is recovering until told otherwise.
    pub(super) fn new(topology: &Topology, me: NodeId) -> Routes {
        let mut members: Vec<NodeId> =
            topology.members().iter().map(|member| member.node).collect();
        members.sort_unstable();
        let index =
            |node: NodeId| members.binary_search(&node).expect("replicas are members") as PeerIndex;
        let vnodes = topology.vnodes();
        let replicas = (0..vnodes)
            .map(|v| topology.replicas(VnodeId(v)).iter().map(|&node| index(node)).collect())
            .collect();
        let fallbacks = (0..vnodes)
            .map(|v| topology.fallbacks(VnodeId(v)).into_iter().map(index).collect())
            .collect();
        let routes = Routes {
            me: index(me),
            replicas,
            fallbacks,
            full: members.iter().map(|_| AtomicBool::new(false)).collect(),
            reach: members.iter().map(|_| AtomicU8::new(code(Reach::Down))).collect(),
            standings: (0..vnodes).map(|_| AtomicU16::new(0)).collect(),
            members: members.into(),
        };
        routes.set_reach(routes.me, Reach::Recovering);
        routes
    }

    pub(super) fn me(&self) -> PeerIndex {
        self.me
    }

    pub(super) fn members(&self) -> usize {
        self.members.len()
    }

    pub(super) fn node(&self, peer: PeerIndex) -> NodeId {
        self.members[usize::from(peer)]
    }

    pub(super) fn index(&self, node: NodeId) -> Option<PeerIndex> {
        self.members.binary_search(&node).ok().map(|index| index as PeerIndex)
    }

    pub(super) fn vnodes(&self) -> u16 {
        self.replicas.len() as u16
    }

    pub(super) fn replicas(&self, vnode: VnodeId) -> &Replicas {
        &self.replicas[vnode.index()]
    }

    /// A member takes no more hints, or takes some again.
    pub(super) fn set_full(&self, peer: PeerIndex, full: bool) {
        self.full[usize::from(peer)].store(full, Ordering::Release);
    }

    pub(super) fn is_full(&self, peer: PeerIndex) -> bool {
        self.full[usize::from(peer)].load(Ordering::Acquire)
    }

    /// Who coordinates a blind write of a vnode none of whose replicas counts. If all of them are
    /// full, one that will say so.
    pub(super) fn stand_in(&self, vnode: VnodeId) -> Option<PeerIndex> {
        let nodes: SmallVec<[NodeId; 8]> =
            self.fallbacks[vnode.index()].iter().map(|&peer| self.node(peer)).collect();
        let state = |node: NodeId, may_be_full: bool| match self.index(node) {
            Some(peer) if may_be_full || !self.is_full(peer) => self.reach(peer),
            _ => Reach::Down,
        };
        let with_room = route::stand_in(&nodes, |node| state(node, false));
        self.index(with_room.or_else(|| route::stand_in(&nodes, |node| state(node, true)))?)
    }

    /// Others that may be given something of a vnode that is not theirs, in order.
    pub(super) fn fallbacks(&self, vnode: VnodeId) -> SmallVec<[NodeId; 8]> {
        let fits = |&&peer: &&PeerIndex| {
            peer != self.me && self.reach(peer).counts() && !self.is_full(peer)
        };
        self.fallbacks[vnode.index()].iter().filter(fits).map(|&peer| self.node(peer)).collect()
    }

    /// What is believed of each replica of a vnode, in order of preference.
    pub(super) fn reaches(&self, vnode: VnodeId) -> SmallVec<[Reach; 8]> {
        self.replicas(vnode).iter().map(|&peer| self.reach(peer)).collect()
    }

    pub(super) fn holds(&self, vnode: VnodeId, peer: PeerIndex) -> bool {
        self.replicas(vnode).contains(&peer)
    }

    pub(super) fn reach(&self, peer: PeerIndex) -> Reach {
        match self.reach[usize::from(peer)].load(Ordering::Acquire) {
            0 => Reach::Down,
            1 => Reach::Recovering,
            3 => Reach::Awaited,
            4 => Reach::Skewed,
            _ => Reach::Up,
        }
    }

    /// Believes something else of a member, and works every vnode out anew. Calls for one member
    /// come one after the other; if two members' calls cross, the later one sees both.
    pub(super) fn set_reach(&self, peer: PeerIndex, reach: Reach) {
        self.reach[usize::from(peer)].store(code(reach), Ordering::Release);
        for (replicas, standing) in self.replicas.iter().zip(&self.standings) {
            let nodes: SmallVec<[NodeId; 8]> = replicas.iter().map(|&p| self.node(p)).collect();
            let state = |node: NodeId| self.index(node).map_or(Reach::Down, |p| self.reach(p));
            let me = self.node(self.me);
            let coordinator = match route::route(&nodes, me, route::Origin::Client, state) {
                Route::Local => self.me,
                Route::Forward(node) => self.index(node).unwrap_or(NOBODY),
                Route::Nobody => NOBODY,
            };
            let counting = replicas.iter().filter(|&&p| self.reach(p).counts()).count();
            standing.store(u16::from(coordinator) << 8 | counting as u16, Ordering::Release);
        }
    }

    pub(super) fn standing(&self, vnode: VnodeId) -> Standing {
        let word = self.standings[vnode.index()].load(Ordering::Acquire);
        let coordinator = (word >> 8) as u8;
        Standing {
            coordinator: (coordinator != NOBODY).then_some(coordinator),
            counting: word as u8,
        }
    }

    /// The other replicas that count now, in order of preference, with their places in the list.
    pub(super) fn others(&self, vnode: VnodeId) -> SmallVec<[(u8, PeerIndex); 8]> {
        let places = self.replicas(vnode).iter().enumerate();
        places
            .filter(|&(_, &peer)| peer != self.me && self.reach(peer).counts())
            .map(|(place, &peer)| (place as u8, peer))
            .collect()
    }
}
