//! Elements by ranges of an order that is the same on all replicas, a run of them at a time.
//!
//! The order is the keyed hash of the name; of a list, the front of the position. A body of one leaf
//! is looked through from end to end.

use std::ops::RangeInclusive;

use crate::base::hash::Digest;
use crate::value::digest::Terms;
use crate::value::element::first_step;
use crate::value::view::Kind;

use super::cell::{digest_of, rewritten};
use super::leaf::{Item, Leaf};
use super::rows::Spot;
use super::{Body, Sight};

/// What lies in a range, as far as it was looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reach {
    /// The digest of the elements.
    pub sum: Digest,
    /// How many they are.
    pub count: usize,
    /// Where the rest begins, if not all were looked at.
    pub next: Option<u64>,
}

impl Body {
    /// Where an element stands in the order.
    fn order_of(&self, name: &[u8]) -> u64 {
        match self.kind {
            Kind::List => first_step(name),
            _ => self.seed.key(name),
        }
    }

    /// The first of the order that a leaf may hold.
    fn begin_of(&self, leaf: &Leaf) -> u64 {
        match self.kind {
            Kind::List if leaf.count > 0 => first_step(leaf.item(self.sight(), 0).name.bytes()),
            Kind::List => 0,
            _ => leaf.lower,
        }
    }

    /// The leaf with the first element of the order that is not before `from`.
    fn first_of(&self, from: u64) -> Spot {
        match self.kind {
            _ if self.only().is_some() => self.rows.first(),
            // Several leaves may begin alike.
            Kind::List => self.rows.find(|leaf| self.begin_of(leaf) < from),
            _ => self.rows.find_hash(from),
        }
    }

    /// Visits the elements of a range, in leaves. Ends behind a leaf once there were `limit`; says
    /// where to go on.
    fn visit_range<'a>(
        &'a self,
        range: &RangeInclusive<u64>,
        limit: usize,
        mut visit: impl FnMut(Item<'a>),
    ) -> Option<u64> {
        let sight = Sight { kind: self.kind, actors: &self.actors };
        let few = self.only().is_some();
        let (mut next, mut count, mut last) = (Some(self.first_of(*range.start())), 0, None);
        while let Some(spot) = next {
            let leaf = self.rows.run(spot);
            let begin = self.begin_of(leaf);
            if !few && begin > *range.end() {
                return None;
            }
            // What stands at one place of the order is not cut apart.
            if !few && count >= limit && last.is_some_and(|last| begin > last) {
                return Some(begin);
            }
            for (_, item) in leaf.items(sight) {
                let order = self.order_of(item.name.bytes());
                if range.contains(&order) {
                    count += 1;
                    last = last.max(Some(order));
                    visit(item);
                }
            }
            next = self.rows.next(spot);
        }
        None
    }

    /// The digest of a range, or of its front: about `limit` elements.
    pub(in crate::value) fn reach(
        &self,
        terms: Terms,
        range: &RangeInclusive<u64>,
        limit: usize,
    ) -> Reach {
        let (mut sum, mut count) = (Digest::NONE, 0);
        let next = self.visit_range(range, limit, |item| {
            sum = sum.plus(digest_of(terms, self.kind, item.name.bytes(), &item.cell));
            count += 1;
        });
        Reach { sum, count, next }
    }

    /// The names of a range.
    pub(in crate::value) fn names_in(&self, range: &RangeInclusive<u64>) -> Vec<Vec<u8>> {
        let mut names = Vec::new();
        self.visit_range(range, usize::MAX, |item| names.push(item.name.bytes().to_vec()));
        names
    }

    /// The elements of some ranges.
    pub(in crate::value) fn only_in(&self, ranges: &[RangeInclusive<u64>]) -> Body {
        let mut part = Body::new(self.kind, self.seed);
        for range in ranges {
            self.visit_range(range, usize::MAX, |item| {
                part.update(item.name.bytes(), |_| rewritten(&item.cell));
            });
        }
        part
    }
}
