//! Which vnodes this node must hear of, or compare, before it may answer for them alone.
//!
//! A replica that lost a link may have missed writes that others acknowledged: the peer that went
//! may have told only a third replica of its last ones, and a peer that comes may have
//! coordinated while it was out of sight. While that peer's stream has not caught up the vnode
//! *waits* for it; where a stream is not enough, trees are *owed* a comparison. Until neither is
//! so, a read here asks as many replicas as it takes to meet every acknowledged write (N−W+1).
//!
//! Invariant: a comparison settles only what was owed when it began. A vnode that is owed again
//! meanwhile (another link broke, whose last writes the peer got after it was compared) stays owed.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::base::id::VnodeId;

use super::batch::PeerIndex;

/// One bit a peer for every vnode, in each of the two.
#[derive(Debug)]
pub(super) struct Unsettled {
    owed: Box<[AtomicU64]>,
    waiting: Box<[AtomicU64]>,
    /// How often each vnode was owed to each peer. Locked while a bit changes.
    times: Box<[Mutex<Box<[u64]>>]>,
}

impl Unsettled {
    pub(super) fn new(vnodes: u16, members: usize) -> Unsettled {
        let never = || Mutex::new(vec![0; members].into_boxed_slice());
        Unsettled {
            owed: (0..vnodes).map(|_| AtomicU64::new(0)).collect(),
            waiting: (0..vnodes).map(|_| AtomicU64::new(0)).collect(),
            times: (0..vnodes).map(|_| never()).collect(),
        }
    }

    /// Whether `vnode` waits for anybody, or must be compared.
    pub(super) fn contains(&self, vnode: VnodeId) -> bool {
        let at = vnode.index();
        self.owed[at].load(Ordering::Acquire) | self.waiting[at].load(Ordering::Acquire) != 0
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

    /// The stream of `peer` may hold what is not here.
    pub(super) fn wait(&self, vnode: VnodeId, peer: PeerIndex) {
        self.waiting[vnode.index()].fetch_or(bit(peer), Ordering::AcqRel);
    }

    /// The stream of `peer` has caught up.
    pub(super) fn arrive(&self, vnode: VnodeId, peer: PeerIndex) {
        self.waiting[vnode.index()].fetch_and(!bit(peer), Ordering::AcqRel);
    }

    /// Nothing will come of `peer` for now. Answers whether a comparison was owed.
    pub(super) fn forget(&self, vnode: VnodeId, peer: PeerIndex) -> bool {
        self.arrive(vnode, peer);
        let _times = self.times[vnode.index()].lock();
        self.owed[vnode.index()].fetch_and(!bit(peer), Ordering::AcqRel) & bit(peer) != 0
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
    #[test]
    fn a_vnode_waits_for_a_stream_until_it_has_caught_up_or_is_forgotten() {
        let (unsettled, vnode) = (Unsettled::new(2, 4), VnodeId(1));
        unsettled.wait(vnode, 2);
        unsettled.owe(vnode, 3);
        unsettled.arrive(vnode, 2);
        assert!(unsettled.contains(vnode) && !unsettled.owes(vnode, 2));
        assert!(unsettled.forget(vnode, 3));
        assert!(!unsettled.contains(vnode));
        unsettled.wait(vnode, 2);
        assert!(unsettled.contains(vnode) && !unsettled.forget(vnode, 2));
        assert!(!unsettled.contains(vnode));
    }
}
