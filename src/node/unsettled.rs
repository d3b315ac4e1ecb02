//! Which vnodes this node must hear of, or compare, before it may answer for them alone.
//!
//! A replica that lost a link may have missed writes that others acknowledged: the peer that went
//! may have told only a third replica of its last ones, and a peer that comes may have
//! coordinated while it was out of sight. While that peer's stream has not caught up the vnode
//! *waits* for it; where a stream is not enough, trees are *owed* a comparison. Until neither is
//! so, a read here asks as many replicas as it takes to meet every acknowledged write (N−W+1).

use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::id::VnodeId;

use super::batch::PeerIndex;

/// One bit a peer.
#[derive(Debug, Default)]
struct Marks {
    owed: AtomicU64,
    waiting: AtomicU64,
}

/// The marks of every vnode.
#[derive(Debug)]
pub(super) struct Unsettled(Box<[Marks]>);

impl Unsettled {
    pub(super) fn new(vnodes: u16) -> Unsettled {
        Unsettled((0..vnodes).map(|_| Marks::default()).collect())
    }

    /// Whether `vnode` waits for anybody, or must be compared.
    pub(super) fn contains(&self, vnode: VnodeId) -> bool {
        let marks = &self.0[vnode.index()];
        marks.owed.load(Ordering::Acquire) | marks.waiting.load(Ordering::Acquire) != 0
    }

    /// Whether `vnode` must be compared with `peer`.
    pub(super) fn owes(&self, vnode: VnodeId, peer: PeerIndex) -> bool {
        self.0[vnode.index()].owed.load(Ordering::Acquire) & bit(peer) != 0
    }

    pub(super) fn owe(&self, vnode: VnodeId, peer: PeerIndex) {
        self.0[vnode.index()].owed.fetch_or(bit(peer), Ordering::AcqRel);
    }

    /// It was compared.
    pub(super) fn settle(&self, vnode: VnodeId, peer: PeerIndex) {
        self.0[vnode.index()].owed.fetch_and(!bit(peer), Ordering::AcqRel);
    }

    /// The stream of `peer` may hold what is not here.
    pub(super) fn wait(&self, vnode: VnodeId, peer: PeerIndex) {
        self.0[vnode.index()].waiting.fetch_or(bit(peer), Ordering::AcqRel);
    }

    /// The stream of `peer` has caught up.
    pub(super) fn arrive(&self, vnode: VnodeId, peer: PeerIndex) {
        self.0[vnode.index()].waiting.fetch_and(!bit(peer), Ordering::AcqRel);
    }

    /// Nothing will come of `peer` for now. Answers whether a comparison was owed.
    pub(super) fn forget(&self, vnode: VnodeId, peer: PeerIndex) -> bool {
        self.arrive(vnode, peer);
        let owed = &self.0[vnode.index()].owed;
        owed.fetch_and(!bit(peer), Ordering::AcqRel) & bit(peer) != 0
    }
}

/// Members are at most 64 while the topology comes from a list.
fn bit(peer: PeerIndex) -> u64 {
    1 << (peer & 63)
}
