//! What commands see of a collection: its visible elements, by name, by place and in order.
//!
//! ```text
//! hash, set     ordered by the keyed hash of the name: a cursor of HSCAN is a place in that order
//! sorted set    ordered by score, then name
//! list          ordered by position
//! ```
//!
//! Places count from 0 over what is visible: an expired field of a hash has none.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::ops::Range;

use crate::base::hash::HashSeed;

use super::element::Element;
use super::view::Kind;

/// The visible elements of a collection.
#[derive(Clone, PartialEq, Debug)]
pub struct Fields<'a> {
    kind: Kind,
    seed: HashSeed,
    source: Source<'a>,
}

#[derive(Clone, PartialEq, Debug)]
enum Source<'a> {
    /// In the order of the type.
    Listed(Vec<Element<'a>>),
}

impl<'a> Fields<'a> {
    /// Nothing, of that type.
    pub const fn none(kind: Kind) -> Fields<'a> {
        Fields { kind, seed: HashSeed(0), source: Source::Listed(Vec::new()) }
    }

    /// These elements, in any order but a list's, which is kept.
    pub fn listed(kind: Kind, seed: HashSeed, mut elements: Vec<Element<'a>>) -> Fields<'a> {
        match kind {
            Kind::Zset => elements.sort_by(by_score),
            Kind::Hash | Kind::Set => {
                elements.sort_by_cached_key(|element| seed.key(&element.name));
            }
            Kind::List | Kind::String => {}
        }
        Fields { kind, seed, source: Source::Listed(elements) }
    }

    /// The same, of its own.
    pub fn into_owned(self) -> Fields<'static> {
        let Source::Listed(elements) = self.source;
        let elements = elements.into_iter().map(Element::into_owned).collect();
        Fields { kind: self.kind, seed: self.seed, source: Source::Listed(elements) }
    }

    fn all(&self) -> &[Element<'a>] {
        let Source::Listed(elements) = &self.source;
        elements
    }

    /// The type.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all().len()
    }

    /// Whether there are none: of a key that is there, never.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The field or member of that name; not for lists.
    pub fn get(&self, name: &[u8]) -> Option<Element<'_>> {
        self.all().iter().find(|element| *element.name == *name).cloned()
    }

    /// Whether there is a field or member of that name.
    pub fn contains(&self, name: &[u8]) -> bool {
        self.get(name).is_some()
    }

    /// The score of a member of a sorted set.
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        self.get(member).map(|element| element.score)
    }

    /// The place of a member of a sorted set, from the lowest score.
    pub fn rank(&self, member: &[u8]) -> Option<usize> {
        self.all().iter().position(|element| *element.name == *member)
    }

    /// The element at that place.
    pub fn at(&self, place: usize) -> Option<Element<'_>> {
        self.all().get(place).cloned()
    }

    /// The elements of those places, in order. Places that are not there are passed over.
    pub fn range(&self, places: Range<usize>) -> Elements<'_> {
        let end = places.end.min(self.len());
        Elements(Box::new(self.all()[places.start.min(end)..end].iter().cloned()))
    }

    /// The same from the last to the first.
    pub fn range_back(&self, places: Range<usize>) -> Elements<'_> {
        let end = places.end.min(self.len());
        Elements(Box::new(self.all()[places.start.min(end)..end].iter().rev().cloned()))
    }

    /// All elements, in order.
    pub fn iter(&self) -> Elements<'_> {
        self.range(0..usize::MAX)
    }

    /// How many members of a sorted set have a score below `score`, or up to it if `inclusive`:
    /// the place of the first that lies beyond.
    pub fn count_below(&self, score: f64, inclusive: bool) -> usize {
        self.all().partition_point(|element| {
            element.score < score || (inclusive && element.score == score)
        })
    }

    /// How many members of a sorted set, all of one score, come before `name`, or up to it if
    /// `inclusive`.
    pub fn count_before(&self, name: &[u8], inclusive: bool) -> usize {
        self.all().partition_point(|element| {
            let order = (*element.name).cmp(name);
            order == Ordering::Less || (inclusive && order == Ordering::Equal)
        })
    }

    /// A part of the elements, for SCAN and its kin: about `count` from the place that `cursor` is
    /// (0 at the beginning), and the next cursor (0 at the end). Whoever walks from 0 to 0 meets
    /// every element that is there all the while.
    pub fn scan(&self, cursor: u64, count: usize) -> (Vec<Element<'_>>, u64) {
        // Cursors are places in a space of 63 bits, each the first hash that was not looked at.
        let place = |element: &Element<'_>| self.seed.key(&element.name) >> 1;
        let mut by_hash: Vec<&Element<'a>> = self.all().iter().collect();
        if self.kind == Kind::Zset {
            by_hash.sort_by_key(|element| place(element));
        }
        let start = by_hash.partition_point(|element| place(element) < cursor);
        let mut end = start.saturating_add(count.max(1)).min(by_hash.len());
        // Those of one place go together.
        while end < by_hash.len() && place(by_hash[end]) == place(by_hash[end - 1]) {
            end += 1;
        }
        let next = by_hash.get(end).map_or(0, |element| place(element).max(1));
        (by_hash[start..end].iter().map(|&element| element.clone()).collect(), next)
    }
}

/// Elements in order.
pub struct Elements<'a>(Box<dyn Iterator<Item = Element<'a>> + 'a>);

impl<'a> Iterator for Elements<'a> {
    type Item = Element<'a>;

    fn next(&mut self) -> Option<Element<'a>> {
        self.0.next()
    }
}

/// The order of a sorted set.
pub fn by_score(a: &Element<'_>, b: &Element<'_>) -> Ordering {
    // Scores are never NaN, and the two zeros are one score.
    let scores = a.score.partial_cmp(&b.score).unwrap_or(Ordering::Equal);
    scores.then_with(|| Cow::cmp(&a.name, &b.name))
}
