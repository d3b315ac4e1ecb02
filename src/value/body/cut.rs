//! Cutting leaves: by size, and by the hash of the name.

use std::ops::Range;

use smallvec::{SmallVec, smallvec};

use crate::base::hash::HashSeed;
use crate::base::time::Hlc;
use crate::value::element::first_step;

use super::cell::dots_of;
use super::leaf::{Item, Leaf, Sight};

/// The leaf's elements in leaves of about `size` bytes, in order.
pub(super) fn cut(leaf: &Leaf, sight: Sight<'_>, size: usize) -> Vec<Leaf> {
    let mut parts = Vec::new();
    let mut part = Leaf::default();
    for (_, item) in leaf.items(sight) {
        if part.count == 0 || part.bytes.len() >= size {
            let fresh = begun_by(&item);
            let full = std::mem::replace(&mut part, fresh);
            parts.extend((full.count > 0).then_some(full));
        }
        part.take_over(sight, &item);
    }
    parts.push(part);
    parts
}

/// An empty leaf whose first element this will be.
pub(super) fn begun_by(item: &Item<'_>) -> Leaf {
    let mut hlc = Hlc(0);
    dots_of(&item.cell, |dot| hlc = dot.hlc);
    Leaf::about(hlc, first_step(item.name.bytes()))
}

/// The leaf's elements in leaves of about `size` bytes, by hash; the first one keeps its lower end.
pub(super) fn cut_by_hash(leaf: &Leaf, sight: Sight<'_>, seed: HashSeed, size: usize) -> Vec<Leaf> {
    let mut parts = cut_all_by_hash(std::slice::from_ref(leaf), sight, seed, size);
    parts[0].lower = leaf.lower;
    parts
}

/// The leaf's elements in two leaves of about the same size, by hash. Their bytes are copied as they
/// lie, so both tell dots from what the leaf did. Only the one if all have the same hash.
pub(super) fn halved_by_hash(leaf: &Leaf, sight: Sight<'_>, seed: HashSeed) -> SmallVec<[Leaf; 2]> {
    let mut runs: SmallVec<[(u64, Range<usize>); 32]> = SmallVec::new();
    leaf.names(sight.kind, |name, run| runs.push((seed.key(name), run)));
    let middle = middle_hash(&runs, leaf.bytes.len() / 2);
    let Some(middle) = middle else { return smallvec![leaf.clone()] };
    let half = |is_upper: bool| {
        let is_here = |(hash, _): &&(u64, Range<usize>)| (*hash >= middle) == is_upper;
        let here = || runs.iter().filter(is_here).map(|(_, run)| &leaf.bytes[run.clone()]);
        let lower = if is_upper { middle } else { leaf.lower };
        let mut half = Leaf::roomy(Hlc(leaf.hlc), lower, here().map(<[u8]>::len).sum());
        here().for_each(|bytes| half.append(bytes));
        half
    };
    smallvec![half(false), half(true)]
}

/// The hash that splits runs of bytes so that about `size` bytes are below it, and some above.
fn middle_hash(runs: &[(u64, Range<usize>)], size: usize) -> Option<u64> {
    let mut sizes: SmallVec<[(u64, usize); 32]> =
        runs.iter().map(|(hash, run)| (*hash, run.len())).collect();
    sizes.sort_unstable();
    let (mut below, mut middle) = (0, None);
    for pair in sizes.windows(2) {
        below += pair[0].1;
        if pair[0].0 != pair[1].0 {
            middle = Some(pair[1].0);
            if below >= size {
                break;
            }
        }
    }
    middle
}

pub(super) fn cut_all_by_hash(
    leaves: &[Leaf],
    sight: Sight<'_>,
    seed: HashSeed,
    size: usize,
) -> Vec<Leaf> {
    let items = leaves.iter().flat_map(|leaf| leaf.items(sight).map(|(_, item)| item));
    let mut items: Vec<(u64, Item<'_>)> =
        items.map(|item| (seed.key(item.name.bytes()), item)).collect();
    items.sort_by_key(|(hash, _)| *hash);
    let mut parts: Vec<Leaf> = Vec::new();
    let mut last = None;
    for (hash, item) in &items {
        let full = parts.last().is_none_or(|part| part.bytes.len() >= size);
        // Those of one hash stay together.
        if full && last != Some(*hash) {
            let lower = if parts.is_empty() { 0 } else { *hash };
            parts.push(Leaf { lower, ..begun_by(item) });
        }
        parts.last_mut().expect("begun above").take_over(sight, item);
        last = Some(*hash);
    }
    parts
}
