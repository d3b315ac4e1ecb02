//! What commands see of a collection: its visible elements, by name, by place and in order.
//!
//! ```text
//! hash, set     in any order, that of writing while they are small
//! sorted set    ordered by score, then name
//! list          ordered by position
//! ```
//!
//! Places count from 0 over what is visible: an expired field of a hash has none. Nothing here is
//! copied or ordered before it is asked for.

use std::cell::OnceCell;
use std::cmp::Ordering;
use std::ops::Range;

use crate::base::hash::HashSeed;
use crate::base::time::UnixMs;

use super::body::Body;
use super::body::ranks::order;
use super::element::Element;
use super::view::Kind;

/// The visible elements of a collection.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    kind: Kind,
    source: Source<'a>,
    /// The members of a small sorted set by score.
    sorted: OnceCell<Vec<Element<'static>>>,
}

#[derive(Clone, Debug)]
enum Source<'a> {
    /// In the order of the type.
    Listed(Vec<Element<'a>>),
    Held(&'a Body),
    Owned(Box<Body>),
}

impl PartialEq for Fields<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind && self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl<'a> Fields<'a> {
    const fn of(kind: Kind, source: Source<'a>) -> Fields<'a> {
        Fields { kind, source, sorted: OnceCell::new() }
    }

    /// Nothing, of that type.
    pub const fn none(kind: Kind) -> Fields<'a> {
        Fields::of(kind, Source::Listed(Vec::new()))
    }

    /// These elements; a sorted set's in any order.
    pub fn listed(kind: Kind, mut elements: Vec<Element<'a>>) -> Fields<'a> {
        if kind == Kind::Zset {
            elements.sort_by(by_score);
        }
        Fields::of(kind, Source::Listed(elements))
    }

    /// What is visible of `body` at `now`.
    pub(super) fn held(body: &'a Body, now: UnixMs) -> Fields<'a> {
        if body.may_have_expired(now) {
            return Fields::listed(body.kind(), body.listed(now));
        }
        Fields::of(body.kind(), Source::Held(body))
    }

    /// The same of a body that nobody else holds.
    pub(super) fn owned(body: Body, now: UnixMs) -> Fields<'static> {
        if body.may_have_expired(now) {
            let elements = body.listed(now).into_iter().map(Element::into_owned).collect();
            return Fields::listed(body.kind(), elements);
        }
        Fields::of(body.kind(), Source::Owned(Box::new(body)))
    }

    fn body(&self) -> Result<&Body, &[Element<'a>]> {
        match &self.source {
            Source::Listed(elements) => Err(elements),
            Source::Held(body) => Ok(body),
            Source::Owned(body) => Ok(body),
        }
    }

    /// The elements in the order of the type, if they lie there like that, or were ordered.
    fn ordered(&self) -> Option<&[Element<'_>]> {
        match self.body() {
            Err(listed) => Some(listed),
            Ok(body) if self.kind == Kind::Zset && body.ranks().is_none() => {
                Some(self.sorted.get_or_init(|| {
                    let mut all: Vec<Element<'static>> =
                        body.from(0).map(Element::into_owned).collect();
                    all.sort_by(by_score);
                    all
                }))
            }
            Ok(_) => None,
        }
    }

    /// The body, where it tells the order by itself.
    fn large(&self) -> &Body {
        self.body().expect("what does not lie in order is held in a body")
    }

    /// The type.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.body().map_or_else(<[_]>::len, Body::len)
    }

    /// Whether there are none: of a key that is there, never.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The field or member of that name; not for lists.
    pub fn get(&self, name: &[u8]) -> Option<Element<'_>> {
        match self.body() {
            Ok(body) => body.element(name),
            Err(listed) => listed.iter().find(|element| *element.name == *name).cloned(),
        }
    }

    /// Whether there is a field or member of that name.
    pub fn contains(&self, name: &[u8]) -> bool {
        match self.body() {
            Ok(body) => body.cell(name).is_some(),
            Err(listed) => listed.iter().any(|element| *element.name == *name),
        }
    }

    /// The score of a member of a sorted set.
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        self.get(member).map(|element| element.score)
    }

    /// The place of a member of a sorted set, from the lowest score.
    pub fn rank(&self, member: &[u8]) -> Option<usize> {
        let score = self.score(member)?;
        let wanted = (score, member);
        Some(match self.ordered() {
            Some(all) => all.partition_point(|e| order((e.score, &e.name), wanted).is_lt()),
            None => self.large().ranks()?.rank(score, member),
        })
    }

    /// The element at that place.
    pub fn at(&self, place: usize) -> Option<Element<'_>> {
        match self.ordered() {
            Some(all) => all.get(place).cloned(),
            None => match self.large().ranks() {
                Some(ranks) => {
                    ranks.from(place).next().map(|(score, name)| Element::scored(name, score))
                }
                None => self.large().from(place).next(),
            },
        }
    }

    /// The elements of those places, in order. Places that are not there are passed over.
    pub fn range(&self, places: Range<usize>) -> Elements<'_> {
        let end = places.end.min(self.len());
        let start = places.start.min(end);
        if let Some(all) = self.ordered() {
            return Elements(Box::new(all[start..end].iter().cloned()));
        }
        let body = self.large();
        match body.ranks() {
            Some(ranks) => {
                let members = ranks.from(start).take(end - start);
                Elements(Box::new(members.map(|(score, name)| Element::scored(name, score))))
            }
            None => Elements(Box::new(body.from(start).take(end - start))),
        }
    }

    /// Visits the values of a list's elements of those places, in order. Places that are not there
    /// are passed over.
    pub fn each_value(&self, places: Range<usize>, mut visit: impl FnMut(&[u8])) {
        let end = places.end.min(self.len());
        let start = places.start.min(end);
        match self.ordered() {
            Some(all) => all[start..end].iter().for_each(|element| visit(&element.value)),
            None => self.large().each_value(start, end - start, visit),
        }
    }

    /// The same from the last to the first.
    pub fn range_back(&self, places: Range<usize>) -> Elements<'_> {
        let end = places.end.min(self.len());
        let start = places.start.min(end);
        if let Some(all) = self.ordered() {
            return Elements(Box::new(all[start..end].iter().rev().cloned()));
        }
        let body = self.large();
        match body.ranks() {
            Some(ranks) => {
                let members = ranks.back_from(end).take(end - start);
                Elements(Box::new(members.map(|(score, name)| Element::scored(name, score))))
            }
            None => Elements(Box::new(body.back_from(end).take(end - start))),
        }
    }

    /// All elements, in order.
    pub fn iter(&self) -> Elements<'_> {
        self.range(0..usize::MAX)
    }

    fn count(&self, is_below: impl Fn(f64, &[u8]) -> bool) -> usize {
        match self.ordered() {
            Some(all) => all.partition_point(|element| is_below(element.score, &element.name)),
            None => self.large().ranks().map_or(0, |ranks| ranks.count_below(is_below)),
        }
    }

    /// How many members of a sorted set have a score below `score`, or up to it if `inclusive`:
    /// the place of the first that lies beyond.
    pub fn count_below(&self, score: f64, inclusive: bool) -> usize {
        self.count(|held, _| held < score || (inclusive && held == score))
    }

    /// How many members of a sorted set, all of one score, come before `name`, or up to it if
    /// `inclusive`.
    pub fn count_before(&self, name: &[u8], inclusive: bool) -> usize {
        self.count(|_, held| {
            let order = held.cmp(name);
            order == Ordering::Less || (inclusive && order == Ordering::Equal)
        })
    }

    /// A part of the elements, for SCAN and its kin: about `count` from where `cursor` is (0 at the
    /// beginning), and the next cursor (0 at the end). Whoever walks from 0 to 0 meets every element
    /// that is there all the while. A small collection comes at once.
    pub fn scan(&self, cursor: u64, count: usize) -> (Vec<Element<'_>>, u64) {
        match self.body() {
            // A cursor is the first hash that was not looked at, halved.
            Ok(body) if body.is_large() && self.kind != Kind::List => {
                let (found, next) = body.scan(cursor << 1, count.max(1));
                (found, next.map_or(0, |hash| (hash >> 1).max(1)))
            }
            Ok(body) => (body.from(0).collect(), 0),
            Err(listed) => scan_listed(listed, cursor, count.max(1)),
        }
    }
}

/// The same of elements that lie in no order of hashes: they are brought into one.
fn scan_listed<'a>(listed: &[Element<'a>], cursor: u64, count: usize) -> (Vec<Element<'a>>, u64) {
    let place = |element: &Element<'_>| HashSeed(0).key(&element.name) >> 1;
    let mut all: Vec<&Element<'a>> = listed.iter().collect();
    all.sort_by_cached_key(|element| place(element));
    let start = all.partition_point(|element| place(element) < cursor);
    let mut end = start.saturating_add(count).min(all.len());
    // Those of one place go together.
    while end < all.len() && place(all[end]) == place(all[end - 1]) {
        end += 1;
    }
    let next = all.get(end).map_or(0, |element| place(element).max(1));
    (all[start..end].iter().map(|&element| element.clone()).collect(), next)
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
    order((a.score, &a.name), (b.score, &b.name))
}
