//! Which vnodes this node must compare with which peers before it may answer for them alone.
//!
//! A replica that lost a link may have missed writes that others acknowledged: the peer that went
//! may have told only a third replica of its last ones, and a peer that comes may have
//! coordinated while it was out of sight. Until the trees have been compared, a read here asks as
//! many replicas as it takes to meet every acknowledged write (N−W+1).

use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::id::VnodeId;

use super::batch::PeerIndex;

/// One bit a peer for every vnode.
#[derive(Debug)]
pub(super) struct Unsettled(Box<[AtomicU64]>);

impl Unsettled {
    pub(super) fn new(vnodes: u16) -> Unsettled {
        Unsettled((0..vnodes).map(|_| AtomicU64::new(0)).collect())
    }

    /// Whether `vnode` must be compared with anybody.
    pub(super) fn contains(&self, vnode: VnodeId) -> bool {
        self.0[vnode.index()].load(Ordering::Acquire) != 0
    }

    pub(super) fn owes(&self, vnode: VnodeId, peer: PeerIndex) -> bool {
        self.0[vnode.index()].load(Ordering::Acquire) & bit(peer) != 0
    }

    pub(super) fn owe(&self, vnode: VnodeId, peer: PeerIndex) {
        self.0[vnode.index()].fetch_or(bit(peer), Ordering::AcqRel);
    }

    pub(super) fn settle(&self, vnode: VnodeId, peer: PeerIndex) {
        self.0[vnode.index()].fetch_and(!bit(peer), Ordering::AcqRel);
    }
}

/// Members are at most 64 while the topology comes from a list.
fn bit(peer: PeerIndex) -> u64 {
    1 << (peer & 63)
}
