//! Cutting leaves: by size, and by the hash of the name.

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
