//! Which vnodes this node must compare with which peers before it may answer for them alone.
//!
//! A replica that lost a link may have missed writes that others acknowledged: the peer that went
//! may have told only a third replica of its last ones, and a peer that comes may have
//! coordinated while it was out of sight. Until the trees have been compared, a read here asks as
//! many replicas as it takes to meet every acknowledged write (N−W+1).
//!
//! Invariant: a comparison settles only what was owed when it began. A vnode that is owed again
//! meanwhile (another link broke, whose last writes the peer got after it was compared) stays owed.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::base::id::VnodeId;

use super::batch::PeerIndex;

/// One bit a peer for every vnode.
#[derive(Debug)]
pub(super) struct Unsettled {
    owed: Box<[AtomicU64]>,
    /// How often each vnode was owed to each peer. Locked while a bit changes.
    times: Box<[Mutex<Box<[u64]>>]>,
}

impl Unsettled {
    pub(super) fn new(vnodes: u16, members: usize) -> Unsettled {
        let never = || Mutex::new(vec![0; members].into_boxed_slice());
        Unsettled {
            owed: (0..vnodes).map(|_| AtomicU64::new(0)).collect(),
            times: (0..vnodes).map(|_| never()).collect(),
        }
    }

    /// Whether `vnode` must be compared with anybody.
    pub(super) fn contains(&self, vnode: VnodeId) -> bool {
        self.owed[vnode.index()].load(Ordering::Acquire) != 0
    }

    pub(super) fn owes(&self, vnode: VnodeId, peer: PeerIndex) -> bool {
        self.owed[vnode.index()].load(Ordering::Acquire) & bit(peer) != 0
    }

    pub(super) fn owe(&self, vnode: VnodeId, peer: PeerIndex) {
        let mut times = self.times[vnode.index()].lock();
        times[usize::from(peer)] += 1;
        self.owed[vnode.index()].fetch_or(bit(peer), Ordering::AcqRel);
    }

    /// How often `vnode` was owed to `peer` so far: for whoever begins to compare it.
    pub(super) fn times_owed(&self, vnode: VnodeId, peer: PeerIndex) -> u64 {
        self.times[vnode.index()].lock()[usize::from(peer)]
    }

    /// `vnode` was compared with `peer`, from a moment on when it had been owed so often.
    pub(super) fn settle_if(&self, vnode: VnodeId, peer: PeerIndex, times_owed: u64) {
        let times = self.times[vnode.index()].lock();
        if times[usize::from(peer)] == times_owed {
            self.owed[vnode.index()].fetch_and(!bit(peer), Ordering::AcqRel);
        }
    }

    /// Nothing can be compared with `peer`.
    pub(super) fn settle(&self, vnode: VnodeId, peer: PeerIndex) {
        let _times = self.times[vnode.index()].lock();
        self.owed[vnode.index()].fetch_and(!bit(peer), Ordering::AcqRel);
    }
}

/// Members are at most 64 while the topology comes from a list.
fn bit(peer: PeerIndex) -> u64 {
    1 << (peer & 63)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_owed_again_meanwhile_stays_owed() {
        let (unsettled, vnode) = (Unsettled::new(2, 4), VnodeId(1));
        unsettled.owe(vnode, 3);
        let began = unsettled.times_owed(vnode, 3);
        unsettled.owe(vnode, 3);
        unsettled.settle_if(vnode, 3, began);
        assert!(unsettled.owes(vnode, 3) && unsettled.contains(vnode));
        unsettled.settle_if(vnode, 3, unsettled.times_owed(vnode, 3));
        assert!(!unsettled.contains(vnode));
    }
}
