//! The consistent-hash ring: where every member would like to be.
//!
//! Karger et al. (1997) and Dynamo §4.2: each member puts tokens on a circle of 2⁶⁴ places, more
//! of them the stronger it is; a vnode stands at its own place and is held by the members of the
//! next tokens, clockwise. The walk alone is balanced only roughly and is remembered nowhere: it
//! is the wish of a first plan, and the planner evens it out.
//!
//! ```text
//!         vnode 0
//!     n3 ·  │  · n1        the list of vnode 0: n1, n2, n3 (each member once,
//!          ╲▼╱             and no zone twice while others are free)
//!     n1 · ─ ○ ─ · n1
//!          ╱ ╲
//!     n2 ·     · n2
//! ```

use crate::base::hash::HashSeed;
use crate::base::id::{NodeId, VnodeId};

use super::share::Spread;

/// Tokens of the strongest member. More make the first wish more even; the planner does the rest.
const TOKENS_MAX: u32 = 128;

/// The same circle everywhere, whatever the cluster's secret.
const CIRCLE: HashSeed = HashSeed(0x6b76_6f72_756d);

/// A member on the circle.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walker {
    /// Who.
    pub(super) node: NodeId,
    /// Relative capacity, above 0.
    pub(super) weight: u32,
    /// Its zone's index.
    pub(super) zone: usize,
}

/// A pseudo-random number of the pair, the same on every node: ties between members are broken
/// by it, each vnode in its own way, so that the load of a lost member falls on many others.
pub(super) fn affinity(vnode: VnodeId, node: NodeId) -> u64 {
    CIRCLE.key(&[vnode.0.to_le_bytes(), node.0.to_le_bytes()].concat())
}

/// For each of `vnodes` vnodes, the first `n` indexes of `walkers` that a clockwise walk meets,
/// no zone oftener than `spread` allows.
pub(super) fn walk(walkers: &[Walker], spread: &Spread, n: usize, vnodes: u16) -> Vec<Vec<usize>> {
    let tokens = tokens(walkers);
    (0..vnodes)
        .map(|vnode| {
            let place = ((u64::from(vnode) << 32) / u64::from(vnodes)) << 32;
            let start = tokens.partition_point(|token| token.0 < place);
            let (before, after) = tokens.split_at(start);
            let mut list = Vec::with_capacity(n);
            let mut in_zone = vec![0; spread.base.len()];
            for &(_, walker) in after.iter().chain(before) {
                let zone = walkers[walker].zone;
                if list.len() < n && !list.contains(&walker) && in_zone[zone] < spread.most(zone) {
                    in_zone[zone] += 1;
                    list.push(walker);
                }
            }
            list
        })
        .collect()
}

/// All tokens in clockwise order: place and index of the walker.
fn tokens(walkers: &[Walker]) -> Vec<(u64, usize)> {
    let strongest = walkers.iter().map(|walker| walker.weight).max().unwrap_or(1);
    let mut tokens = Vec::new();
    for (index, walker) in walkers.iter().enumerate() {
        let count = u64::from(TOKENS_MAX) * u64::from(walker.weight) / u64::from(strongest);
        for token in 0..count.max(1) {
            let name = [&walker.node.0.to_le_bytes()[..], &token.to_le_bytes()[..]].concat();
            tokens.push((CIRCLE.key(&name), index));
        }
    }
    tokens.sort_unstable();
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newcomer_changes_only_what_it_takes() {
        let walkers: Vec<Walker> =
            (1..=5).map(|id| Walker { node: NodeId(id), weight: 1, zone: 0 }).collect();
        let before = walk(&walkers[..4], &Spread::new(&[4], 3), 3, 64);
        let after = walk(&walkers, &Spread::new(&[5], 3), 3, 64);
        for (old, new) in before.iter().zip(after) {
            let kept: Vec<usize> = new.into_iter().filter(|&walker| walker != 4).collect();
            assert_eq!(kept, old[..kept.len()]);
        }
    }

    #[test]
    fn zones_are_passed_by_when_full() {
        let walkers: Vec<Walker> = (0..6)
            .map(|id| Walker { node: NodeId(id), weight: 1, zone: id as usize / 2 })
            .collect();
        for list in walk(&walkers, &Spread::new(&[2, 2, 2], 3), 3, 64) {
            let mut zones: Vec<usize> = list.iter().map(|&walker| walkers[walker].zone).collect();
            zones.sort_unstable();
            assert_eq!(zones, [0, 1, 2]);
        }
    }
}
