//! How elements lie in leaves: leaves are cut and joined, and ordered by hash or score.

use smallvec::SmallVec;

use crate::base::hash::HashSeed;
use crate::value::view::Kind;

use super::Body;
use super::cell::score_of;
use super::cut::{cut, cut_all_by_hash, cut_by_hash, halved_by_hash};
use super::leaf::{Leaf, Name, Sight};
use super::ranks::{Ranks, order};
use super::rows::{Rows, Spot};

/// A body of one leaf is cut into several beyond this.
pub(super) const FEW_SIZE_MAX: usize = 4_096;

/// One of several leaves is cut in two beyond this.
pub(super) const LEAF_SIZE_MAX: usize = 448;

/// Leaves are made this large where many are made at once.
const LEAF_SIZE_MADE: usize = 336;

/// A leaf smaller than this is joined to its neighbour.
const LEAF_SIZE_MIN: usize = 96;

impl Body {
    /// Cuts a leaf that has become large, or joins one that has become small to the next.
    pub(super) fn mend(&mut self, spot: Spot, changed_at: usize) {
        let leaf = self.rows.run(spot);
        let is_only = self.only().is_some();
        let size_max = if is_only { FEW_SIZE_MAX } else { LEAF_SIZE_MAX };
        if leaf.bytes.len() > size_max && leaf.count > 1 {
            let grew_at_end = changed_at * 8 > leaf.bytes.len() * 7;
            return self.split(spot, grew_at_end);
        }
        if is_only || leaf.bytes.len() >= LEAF_SIZE_MIN {
            return;
        }
        if leaf.count == 0 {
            self.weigh(spot, false);
            self.rows.replace(spot, []);
            self.open_lower_end();
            return self.become_few();
        }
        let Some(next) = self.rows.next(spot) else { return };
        if leaf.bytes.len() + self.rows.run(next).bytes.len() < LEAF_SIZE_MADE {
            let both = leaf.joined(self.rows.run(next), self.sight());
            self.weigh(spot, false);
            self.weigh(next, false);
            self.rows.replace(next, []);
            self.rows.replace(spot, [both]);
            self.weigh(spot, true);
            self.become_few();
        }
    }

    /// The first leaf takes every hash that is lower than all others'.
    fn open_lower_end(&mut self) {
        if self.kind != Kind::List {
            self.rows.change(self.rows.first(), |leaf| leaf.lower = 0);
        }
    }

    /// A sorted set that has become small is ordered when it is looked at.
    fn become_few(&mut self) {
        if self.only().is_some() {
            self.ranks = None;
        }
    }

    /// Takes a leaf into the sums of bytes, or out of them.
    fn weigh(&mut self, spot: Spot, is_in: bool) {
        let leaf = self.rows.run(spot);
        let (held, room) = (leaf.bytes.len(), leaf.bytes.capacity());
        if is_in {
            self.held += held;
            self.room += room;
        } else {
            self.held -= held;
            self.room -= room;
        }
    }

    pub(super) fn split(&mut self, spot: Spot, grew_at_end: bool) {
        let was_few = self.only().is_some();
        let leaf = self.rows.run(spot);
        let size = leaf.bytes.len();
        let parts: SmallVec<[Leaf; 2]> = match (self.kind, was_few) {
            // A list that grows at its end fills its leaves.
            (Kind::List, false) if grew_at_end => cut(leaf, self.sight(), LEAF_SIZE_MAX - 1).into(),
            (Kind::List, true) => cut(leaf, self.sight(), LEAF_SIZE_MADE).into(),
            (Kind::List, false) => cut(leaf, self.sight(), size / 2).into(),
            (_, true) => cut_by_hash(leaf, self.sight(), self.seed, LEAF_SIZE_MADE).into(),
            (_, false) => halved_by_hash(leaf, self.sight(), self.seed),
        };
        self.weigh(spot, false);
        for part in &parts {
            self.held += part.bytes.len();
            self.room += part.bytes.capacity();
        }
        self.rows.replace(spot, parts);
        if was_few && self.kind == Kind::Zset && self.is_large() {
            self.rank_all();
        }
    }

    fn rank_all(&mut self) {
        let mut members: Vec<(f64, Name<'_>)> =
            self.items().map(|item| (score_of(&item.cell), item.name)).collect();
        members.sort_by(|a, b| order((a.0, a.1.bytes()), (b.0, b.1.bytes())));
        let ranks = Ranks::of(members.iter().map(|(score, name)| (*score, name.bytes())));
        self.ranks = Some(Box::new(ranks));
    }

    /// Orders the elements by another seed.
    pub(in crate::value) fn order_by(&mut self, seed: HashSeed) {
        if self.seed == seed {
            return;
        }
        self.seed = seed;
        if self.kind == Kind::List || self.only().is_some() && self.held <= FEW_SIZE_MAX {
            return;
        }
        let leaves: Vec<Leaf> = self.rows.iter().cloned().collect();
        let sight = Sight { kind: self.kind, actors: &self.actors };
        let parts = cut_all_by_hash(&leaves, sight, seed, LEAF_SIZE_MADE);
        self.held = parts.iter().map(|part| part.bytes.len()).sum();
        self.room = parts.iter().map(|part| part.bytes.capacity()).sum();
        self.rows = Rows::of_many(parts);
        if self.kind == Kind::Zset && self.is_large() {
            self.rank_all();
        }
    }
}
