//! Which vnodes a node must hear of, or compare, before it may answer for them alone: what
//! `node/unsettled.rs` keeps, without its atoms.

use super::plan::VNODES;

/// For each vnode the peers (one bit each) whose streams are waited for, and those with which it
/// must be compared.
#[derive(Clone, Debug)]
pub(super) struct Unsettled {
    owed: Vec<u32>,
    waiting: Vec<u32>,
    /// How often each vnode was owed to each peer.
    times: Vec<Vec<u64>>,
}

impl Unsettled {
    pub(super) fn new(nodes: usize) -> Unsettled {
        let vnodes = usize::from(VNODES);
        Unsettled {
            owed: vec![0; vnodes],
            waiting: vec![0; vnodes],
            times: vec![vec![0; nodes]; vnodes],
        }
    }

    pub(super) fn contains(&self, vnode: usize) -> bool {
        self.owed[vnode] | self.waiting[vnode] != 0
    }

    pub(super) fn is_empty(&self) -> bool {
        (0..self.owed.len()).all(|vnode| !self.contains(vnode))
    }

    pub(super) fn owes(&self, vnode: usize, peer: usize) -> bool {
        self.owed[vnode] >> peer & 1 == 1
    }

    pub(super) fn owe(&mut self, vnode: usize, peer: usize) {
        self.times[vnode][peer] += 1;
        self.owed[vnode] |= 1 << peer;
    }

    pub(super) fn times_owed(&self, vnode: usize, peer: usize) -> u64 {
        self.times[vnode][peer]
    }

    pub(super) fn settle_if(&mut self, vnode: usize, peer: usize, times_owed: u64) {
        if self.times[vnode][peer] == times_owed {
            self.owed[vnode] &= !(1 << peer);
        }
    }

    pub(super) fn wait(&mut self, vnode: usize, peer: usize) {
        self.waiting[vnode] |= 1 << peer;
    }

    pub(super) fn arrive(&mut self, vnode: usize, peer: usize) {
        self.waiting[vnode] &= !(1 << peer);
    }

    /// Nothing will come of `peer` for now. Answers whether a comparison was owed.
    pub(super) fn forget(&mut self, vnode: usize, peer: usize) -> bool {
        self.arrive(vnode, peer);
        let owed = self.owes(vnode, peer);
        self.owed[vnode] &= !(1 << peer);
        owed
    }
}
