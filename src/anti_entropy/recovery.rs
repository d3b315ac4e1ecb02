//! Recovery from amnesia: when may a node that has forgotten something count again?
//!
//! Invariant: a vnode counts again only when every write that W replicas had acknowledged before
//! was seen on some other replica, whatever this node lost. A write on W of N replicas, this one
//! perhaps among them, is on at least W−1 of the N−1 others; so N−W+1 of the others cannot all
//! miss it.
//!
//! ```text
//!                      N−W+1 others that count, or all N−1 others
//!   ┌────────────┐    exchanged with (whole scope)      ┌─────────┐
//!   │ recovering ├─────────────────────────────────────►│ counts  │
//!   └────────────┘                                      └─────────┘
//!     takes writes, counts in no R and no W, never coordinates
//! ```
//!
//! A peer that is recovering itself does not count among the N−W+1: it may have forgotten the same
//! write. But once all others were exchanged with there is nobody left to learn from, so a cluster
//! in which all lost power at once comes back too.
//!
//! W is the smallest W of the keyspaces that live in the vnode: it asks for the most peers. The
//! exchanges must be of [`Scope::Whole`](super::message::Scope::Whole).

use std::collections::BTreeMap;

use smallvec::SmallVec;

use crate::base::id::{NodeId, VnodeId};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Exchanged {
    No,
    /// While it was recovering itself.
    Recovering,
    /// While it counted.
    Counting,
}

#[derive(Clone, Debug)]
struct Missing {
    others: SmallVec<[(NodeId, Exchanged); 4]>,
    w: u8,
}

impl Missing {
    fn is_recovered(&self) -> bool {
        let done = |least| self.others.iter().filter(|(_, state)| *state >= least).count();
        let n = self.others.len() + 1;
        let needed = n - usize::from(self.w).clamp(1, n) + 1;
        done(Exchanged::Counting) >= needed || done(Exchanged::Recovering) == self.others.len()
    }
}

/// The vnodes of one node that do not count yet, and whom they were exchanged with.
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    vnodes: BTreeMap<VnodeId, Missing>,
}

impl Recovery {
    /// Nothing to recover: a clean start.
    pub fn new() -> Recovery {
        Recovery::default()
    }

    /// `vnode` may have forgotten something; `others` are its other replicas and `w` is the
    /// smallest W in it. With no others it counts at once. Also told when the topology changes:
    /// exchanges with peers that are still replicas stand.
    pub fn begin(&mut self, vnode: VnodeId, others: &[NodeId], w: u8) {
        let before = self.vnodes.remove(&vnode);
        let state_of = |node: NodeId| {
            let known = before.iter().flat_map(|missing| &missing.others);
            known.filter(|(peer, _)| *peer == node).map(|(_, state)| *state).next()
        };
        let others = others.iter().map(|&node| (node, state_of(node).unwrap_or(Exchanged::No)));
        let missing = Missing { others: others.collect(), w };
        if !missing.is_recovered() {
            self.vnodes.insert(vnode, missing);
        }
    }

    /// A whole exchange of `vnode` with `peer` is done; `counting`: the peer counted from the
    /// exchange's start to its end. Whether this made the vnode count again.
    pub fn on_exchanged(&mut self, vnode: VnodeId, peer: NodeId, counting: bool) -> bool {
        let Some(missing) = self.vnodes.get_mut(&vnode) else { return false };
        let now = if counting { Exchanged::Counting } else { Exchanged::Recovering };
        for (node, state) in &mut missing.others {
            if *node == peer {
                *state = now.max(*state);
            }
        }
        let recovered = missing.is_recovered();
        if recovered {
            self.vnodes.remove(&vnode);
        }
        recovered
    }

    /// Whether `vnode` does not count.
    pub fn is_recovering(&self, vnode: VnodeId) -> bool {
        self.vnodes.contains_key(&vnode)
    }

    /// Whether every vnode counts.
    pub fn is_over(&self) -> bool {
        self.vnodes.is_empty()
    }

    /// The vnodes that do not count yet.
    pub fn vnodes(&self) -> impl Iterator<Item = VnodeId> + '_ {
        self.vnodes.keys().copied()
    }

    /// Whom to exchange `vnode` with: peers not exchanged with while they counted.
    pub fn wanted(&self, vnode: VnodeId) -> impl Iterator<Item = NodeId> + '_ {
        let others = self.vnodes.get(&vnode).into_iter().flat_map(|missing| &missing.others);
        others.filter(|(_, state)| *state != Exchanged::Counting).map(|(node, _)| *node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V: VnodeId = VnodeId(3);

    fn others(n: u16) -> Vec<NodeId> {
        (1..n).map(NodeId).collect()
    }

    /// For every n and w and every set of peers exchanged with: an acknowledged write (any W of
    /// the N) can be missed only where that is unavoidable.
    #[test]
    fn it_counts_exactly_when_no_acknowledged_write_can_have_been_missed() {
        for n in 1u16..=5 {
            for w in 1..=n {
                for counting in 0u16..1 << (n - 1) {
                    for silent in 0u16..1 << (n - 1) {
                        let mut recovery = Recovery::new();
                        recovery.begin(V, &others(n), w as u8);
                        for peer in 0..n - 1 {
                            if counting >> peer & 1 == 1 {
                                recovery.on_exchanged(V, NodeId(peer + 1), true);
                            } else if silent >> peer & 1 == 1 {
                                recovery.on_exchanged(V, NodeId(peer + 1), false);
                            }
                        }
                        let all = counting | silent == (1 << (n - 1)) - 1;
                        // A write is a set of w nodes; node 0, this one, is bit n−1.
                        let missed = (0u16..1 << n)
                            .filter(|nodes| nodes.count_ones() == u32::from(w))
                            .any(|nodes| nodes & counting == 0);
                        assert_eq!(recovery.is_recovering(V), missed && !all, "n={n} w={w}");
                    }
                }
            }
        }
    }

    #[test]
    fn alone_it_counts_at_once() {
        let mut recovery = Recovery::new();
        recovery.begin(V, &[], 1);
        assert!(recovery.is_over());
        assert!(!recovery.on_exchanged(V, NodeId(1), true));
    }

    #[test]
    fn who_is_wanted_and_when_it_ends() {
        let mut recovery = Recovery::new();
        recovery.begin(V, &others(4), 2);
        assert!(!recovery.on_exchanged(V, NodeId(1), true));
        assert!(!recovery.on_exchanged(V, NodeId(1), false));
        assert!(!recovery.on_exchanged(V, NodeId(9), true));
        assert!(!recovery.on_exchanged(V, NodeId(2), false));
        assert_eq!(recovery.wanted(V).collect::<Vec<_>>(), [NodeId(2), NodeId(3)]);
        assert_eq!(recovery.vnodes().collect::<Vec<_>>(), [V]);
        assert!(recovery.on_exchanged(V, NodeId(3), true), "all three others");
        assert!(!recovery.on_exchanged(V, NodeId(3), true), "told once");
    }

    #[test]
    fn a_new_replica_list_keeps_what_still_holds() {
        let mut recovery = Recovery::new();
        recovery.begin(V, &others(4), 3);
        recovery.on_exchanged(V, NodeId(1), true);
        recovery.begin(V, &[NodeId(1), NodeId(7), NodeId(8)], 3);
        assert_eq!(recovery.wanted(V).collect::<Vec<_>>(), [NodeId(7), NodeId(8)]);
        recovery.begin(V, &[NodeId(1)], 3);
        assert!(recovery.is_over());
    }
}
