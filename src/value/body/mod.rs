//! A body: the elements of a collection, few or many.
//!
//! ```text
//! few     one leaf, looked through from end to end; hash and set in the order of writing
//! many    hash, set, sorted set   leaves by the keyed hash of the name, in a row (see `rows`)
//!         list                    leaves by position
//!         sorted set              and beside them all members by score (see `ranks`)
//! ```
//!
//! A change costs what it touches: a leaf of some hundred bytes, and two binary searches. The seed of the
//! hash is the cluster's, so that a cursor of HSCAN means the same everywhere and nobody can aim
//! names at one leaf.
//!
//! Invariants: names are unique; the leaf of a name is that of its hash or position; `ranks` holds
//! every member with its score; the digest is what a walk over the elements would give.
//!
//! Bytes:
//! ```text
//! kind u8 │ actors count u8 { u32 } … │ hlc u64 │ lower u64, of a list │ count varint
//!         │ elements, varint-prefixed (see `leaf`)
//! ```

pub(super) mod cell;
mod changing;
mod cut;
mod layout;
pub(super) mod leaf;
pub(super) mod ranks;
pub(super) mod reach;
mod rows;

use std::collections::HashMap;

use smallvec::SmallVec;

use crate::base::hash::{Digest, HashSeed};
use crate::base::id::Actor;
use crate::base::time::UnixMs;
use crate::base::wire::{Cursor, Put, WireError};

use super::digest::Terms;
use super::element::Element;
use super::register::Sibling;
use super::view::Kind;

use cell::{digest_of, expiry_of, is_alive, register_of, shown};
use cut::begun_by;
use layout::FEW_SIZE_MAX;
use leaf::{ACTORS_MAX, Cell, Item, Leaf, Sight};
use ranks::Ranks;
use rows::{Rows, Spot};

/// Two bodies with this many elements are compared by a table of names.
const MANY: usize = 32;

/// The digest of all elements, kept by difference.
#[derive(Clone, Copy, Debug)]
struct Tally {
    terms: Terms,
    sum: Digest,
}

/// The elements of a collection. See the head of this file.
#[derive(Clone, Debug)]
pub(super) struct Body {
    kind: Kind,
    seed: HashSeed,
    actors: SmallVec<[Actor; 4]>,
    rows: Rows<Leaf>,
    ranks: Option<Box<Ranks>>,
    /// Elements that expire, and before when none of them does.
    expiring: u32,
    next_expiry: UnixMs,
    /// Bytes of all leaves, and what they have room for.
    held: usize,
    room: usize,
    tally: Option<Box<Tally>>,
    /// Where some elements of a list's last leaf begin, up to the last one; none if not known.
    tail: Vec<u32>,
}

/// Equal if they hold the same elements: how they lie in leaves is nobody's business.
impl PartialEq for Body {
    fn eq(&self, other: &Body) -> bool {
        if self.kind != other.kind || self.len() != other.len() {
            return false;
        }
        let theirs = other.table();
        self.items().all(|item| {
            let found = theirs.get(item.name.bytes());
            found.is_some_and(|cell| register_of(cell) == register_of(&item.cell))
        })
    }
}

impl Body {
    /// No elements, of that type.
    pub(super) fn new(kind: Kind, seed: HashSeed) -> Body {
        Body {
            kind,
            seed,
            actors: SmallVec::new(),
            rows: Rows::of(Leaf::default()),
            ranks: None,
            expiring: 0,
            next_expiry: UnixMs(u64::MAX),
            held: 0,
            room: 0,
            tally: None,
            tail: Vec::new(),
        }
    }

    /// The type.
    pub(super) const fn kind(&self) -> Kind {
        self.kind
    }

    /// How many elements there are, expired ones too.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn sight(&self) -> Sight<'_> {
        Sight { kind: self.kind, actors: &self.actors }
    }

    /// The only leaf of a small body.
    fn only(&self) -> Option<&Leaf> {
        self.rows.only()
    }

    /// Whether some element may have expired by `now`.
    pub(super) const fn may_have_expired(&self, now: UnixMs) -> bool {
        self.expiring > 0 && self.next_expiry.0 <= now.0
    }

    /// Whether there is an element to see at `now`.
    pub(super) fn is_visible(&self, now: UnixMs) -> bool {
        if !self.may_have_expired(now) {
            return !self.is_empty();
        }
        self.items().any(|item| is_alive(&item.cell, now))
    }

    // ---- finding ------------------------------------------------------------------------------

    /// The leaf in which an element is, or would be.
    fn spot(&self, name: &[u8]) -> Spot {
        if self.only().is_some() {
            return self.rows.first();
        }
        if self.kind != Kind::List {
            let hash = self.seed.key(name);
            return self.rows.find_hash(hash);
        }
        let sight = self.sight();
        // Most of what comes is a push.
        let last = self.rows.last();
        let begins = |leaf: &Leaf| leaf.count > 0 && leaf.item(sight, 0).name.bytes() <= name;
        if begins(self.rows.run(last)) { last } else { self.rows.find(begins) }
    }

    /// Where an element is; of a list, else where it would be.
    fn find(&self, name: &[u8]) -> (Spot, Result<usize, usize>) {
        let spot = self.spot(name);
        let leaf = self.rows.run(spot);
        let found = match self.kind {
            Kind::List => leaf.find_in_order(self.sight(), name),
            kind => leaf.find(kind, name).ok_or(leaf.bytes.len()),
        };
        (spot, found)
    }

    /// Where the element at a place of a leaf begins.
    fn offset(&self, spot: Spot, place: usize) -> usize {
        let leaf = self.rows.run(spot);
        let known = (place + self.tail.len()).checked_sub(leaf.count as usize);
        match known.and_then(|nth| self.tail.get(nth)) {
            Some(&at) if spot == self.rows.last() => at as usize,
            _ => leaf.offset(self.kind, place),
        }
    }

    /// What the element of that name holds.
    pub(super) fn cell(&self, name: &[u8]) -> Option<Cell<'_>> {
        let (spot, found) = self.find(name);
        found.ok().map(|at| self.rows.run(spot).item(self.sight(), at).cell)
    }

    /// The element of that name, as commands see it.
    pub(super) fn element(&self, name: &[u8]) -> Option<Element<'_>> {
        let (spot, found) = self.find(name);
        let at = found.ok()?;
        Some(shown(self.kind, &self.rows.run(spot).item(self.sight(), at)))
    }

    fn items(&self) -> impl Iterator<Item = Item<'_>> {
        let sight = self.sight();
        self.rows.iter().flat_map(move |leaf| leaf.items(sight).map(|(_, item)| item))
    }

    /// Every element's name and what it holds, in the order in which they lie.
    pub(super) fn cells(&self, mut visit: impl FnMut(&[u8], &Cell<'_>)) {
        self.items().for_each(|item| visit(item.name.bytes(), &item.cell));
    }

    /// The elements from a place on, as they lie: a list's in order.
    pub(super) fn from(&self, place: usize) -> impl Iterator<Item = Element<'_>> {
        let sight = self.sight();
        let mut next = self.rows.at(place);
        let mut leaf: Option<(&Leaf, usize)> = None;
        std::iter::from_fn(move || {
            loop {
                if let Some((run, at)) = leaf
                    && at < run.bytes.len()
                {
                    let item = run.item(sight, at);
                    leaf = Some((run, item.end));
                    return Some(shown(sight.kind, &item));
                }
                let (spot, skip) = next?;
                let run = self.rows.run(spot);
                leaf = Some((run, self.offset(spot, skip)));
                next = self.rows.next(spot).map(|spot| (spot, 0));
            }
        })
    }

    /// Visits the values of a list's or a hash's elements at `place` and after it, at most `count`.
    pub(super) fn each_value(&self, place: usize, count: usize, mut visit: impl FnMut(&[u8])) {
        let (sight, mut left) = (self.sight(), count);
        let mut next = self.rows.at(place);
        while let Some((spot, skip)) = next.filter(|_| left > 0) {
            let leaf = self.rows.run(spot);
            let mut at = self.offset(spot, skip);
            while at < leaf.bytes.len() && left > 0 {
                at = match leaf.value(sight.kind, at) {
                    Some((value, end)) if !value.lz4 => {
                        visit(value.bytes);
                        end
                    }
                    _ => {
                        let item = leaf.item(sight, at);
                        visit(&shown(sight.kind, &item).value);
                        item.end
                    }
                };
                left -= 1;
            }
            next = self.rows.next(spot).map(|spot| (spot, 0));
        }
    }

    /// The elements before a place, from the last to the first, as they lie.
    pub(super) fn back_from(&self, place: usize) -> impl Iterator<Item = Element<'_>> {
        let sight = self.sight();
        let mut next = place.checked_sub(1).and_then(|last| self.rows.at(last));
        let mut items: Vec<Item<'_>> = Vec::new();
        std::iter::from_fn(move || {
            loop {
                if let Some(item) = items.pop() {
                    return Some(shown(sight.kind, &item));
                }
                let (spot, last) = next?;
                let leaf = self.rows.run(spot);
                items.extend(leaf.items(sight).map(|(_, item)| item).take(last.saturating_add(1)));
                next = self.rows.previous(spot).map(|spot| (spot, usize::MAX - 1));
            }
        })
    }

    /// The names of a list's elements at `place` and after it, at most `count`.
    pub(super) fn names(&self, place: usize, count: usize) -> Vec<Vec<u8>> {
        let Some((spot, within)) = self.rows.at(place) else { return Vec::new() };
        let sight = self.sight();
        let mut spots = std::iter::successors(Some(spot), |&spot| self.rows.next(spot));
        let first = spots.next().into_iter();
        let items = first.chain(spots).flat_map(|spot| self.rows.run(spot).items(sight));
        items.skip(within).take(count).map(|(_, item)| item.name.bytes().to_vec()).collect()
    }

    /// The places among a sorted set's members by score.
    pub(super) fn ranks(&self) -> Option<Order<'_>> {
        self.ranks.as_deref().map(Order)
    }

    /// A part of a large hash or set from a hash on: leaves until `count` elements are reached, and
    /// the hash at which the next one begins.
    pub(super) fn scan(&self, from: u64, count: usize) -> (Vec<Element<'_>>, Option<u64>) {
        let mut spot = Some(self.rows.find_hash(from));
        let mut found = Vec::new();
        let is_first = |leaf: &Leaf| leaf.lower < from;
        while let Some(at) = spot {
            let leaf = self.rows.run(at);
            if found.len() >= count && !is_first(leaf) {
                return (found, Some(leaf.lower));
            }
            let items = leaf.items(self.sight()).map(|(_, item)| item);
            let wanted = items.filter(|item| self.seed.key(item.name.bytes()) >= from);
            found.extend(wanted.map(|item| shown(self.kind, &item)));
            spot = self.rows.next(at);
        }
        (found, None)
    }

    /// Whether the elements lie in several leaves.
    pub(super) fn is_large(&self) -> bool {
        self.only().is_none()
    }

    /// Every cell by its name.
    fn table(&self) -> HashMap<Vec<u8>, Cell<'_>> {
        self.items().map(|item| (item.name.bytes().to_vec(), item.cell)).collect()
    }

    /// Every element that is alive at `now`, as commands see it.
    pub(super) fn listed(&self, now: UnixMs) -> Vec<Element<'_>> {
        let alive = self.items().filter(|item| is_alive(&item.cell, now));
        alive.map(|item| shown(self.kind, &item)).collect()
    }

    // ---- sums ---------------------------------------------------------------------------------

    /// The digest of all elements.
    pub(super) fn digest(&self, terms: Terms) -> Digest {
        match &self.tally {
            Some(tally) if tally.terms == terms => tally.sum,
            _ => self.items().fold(Digest::NONE, |sum, item| {
                sum.plus(digest_of(terms, self.kind, item.name.bytes(), &item.cell))
            }),
        }
    }

    /// Whether the digest is kept.
    pub(super) const fn keeps_digest(&self) -> bool {
        self.tally.is_some()
    }

    /// Keeps the digest from now on.
    pub(super) fn keep_digest(&mut self, terms: Terms) {
        let sum = self.digest(terms);
        self.tally = Some(Box::new(Tally { terms, sum }));
    }

    /// Bytes in memory, about.
    pub(super) fn memory(&self) -> usize {
        let ranks = self.ranks.as_ref().map_or(0, |ranks| ranks.memory());
        self.room + self.rows.memory() + ranks + self.tail.capacity() * size_of::<u32>()
    }

    /// Bytes of all elements.
    pub(super) const fn size(&self) -> usize {
        self.held
    }

    // ---- bytes --------------------------------------------------------------------------------

    /// Appends the body's bytes.
    pub(super) fn encode(&self, out: &mut impl Put) {
        out.put_u8(super::element::tag(self.kind));
        out.put_u8(self.actors.len() as u8);
        self.actors.iter().for_each(|actor| out.put_u32(actor.0));
        let joined;
        let leaf = match self.only() {
            Some(leaf) => leaf,
            None => {
                joined = self.joined();
                &joined
            }
        };
        out.put_u64(leaf.hlc);
        if self.kind == Kind::List {
            out.put_u64(leaf.lower);
        }
        out.put_varint(u64::from(leaf.count));
        out.put_bytes(&leaf.bytes);
    }

    /// All elements in one leaf.
    fn joined(&self) -> Leaf {
        let sight = self.sight();
        // Written about its first element's time: what is read back is then written the same.
        let mut all = self.items().next().map_or_else(Leaf::default, |first| begun_by(&first));
        all.bytes.reserve(self.held + self.held / 16);
        self.items().for_each(|item| all.take_over(sight, &item));
        all
    }

    /// Reads a body. Blocks are not unpacked: see [`Body::verify`].
    pub(super) fn decode(cursor: &mut Cursor<'_>, seed: HashSeed) -> Result<Body, WireError> {
        let kind = super::element::kind_of(cursor.u8()?).ok_or(WireError::Malformed("type"))?;
        let mut body = Body::new(kind, seed);
        let actors = usize::from(cursor.u8()?);
        if actors > ACTORS_MAX {
            return Err(WireError::Malformed("authors"));
        }
        for _ in 0..actors {
            body.actors.push(Actor(cursor.u32()?));
        }
        let hlc = cursor.u64()?;
        let lower = if kind == Kind::List { cursor.u64()? } else { 0 };
        let count = u32::try_from(cursor.varint()?).map_err(|_| WireError::Malformed("count"))?;
        let bytes = cursor.bytes()?.to_vec();
        if count == 0 {
            return Err(WireError::Malformed("empty collection"));
        }
        let leaf = Leaf { bytes, hlc, lower, count, ..Leaf::default() };
        leaf.check(body.sight())?;
        (body.held, body.room) = (leaf.bytes.len(), leaf.bytes.capacity());
        body.rows = Rows::of(leaf);
        let (mut expiring, mut next) = (0, UnixMs(u64::MAX));
        for item in body.items() {
            if let Some(at) = expiry_of(&item.cell) {
                expiring += 1;
                next = next.min(at);
            }
        }
        (body.expiring, body.next_expiry) = (expiring, next);
        if body.held > FEW_SIZE_MAX && count > 1 {
            body.split(body.rows.first(), false);
        }
        Ok(body)
    }

    /// Whether names are unique, a list's in order, and every block unpacks to what it claims: for
    /// bytes that came from outside.
    pub(super) fn verify(&self) -> bool {
        let packed = |sibling: &Sibling| match &sibling.base {
            super::register::Base::Stored(stored) => stored.as_packed().unpack().is_some(),
            super::register::Base::Zero => true,
        };
        let mut last: Option<Vec<u8>> = None;
        let sound = self.items().all(|item| {
            let rises = last.as_ref().is_none_or(|last| **last < *item.name.bytes());
            if self.kind == Kind::List {
                last = Some(item.name.bytes().to_vec());
            }
            rises
                && match &item.cell {
                    Cell::Single { value, .. } => !value.lz4 || value.unpack().is_some(),
                    cell => register_of(cell).siblings().iter().all(packed),
                }
        });
        sound && self.table().len() == self.len()
    }

    /// Whether two bodies are so large that a table of names pays.
    pub(super) fn names_table(&self) -> Option<HashMap<Vec<u8>, Cell<'_>>> {
        (self.len() > MANY && !self.is_large()).then(|| self.table())
    }
}

/// A sorted set's members by score.
#[derive(Clone, Copy)]
pub(super) struct Order<'a>(&'a Ranks);

impl<'a> Order<'a> {
    pub(super) fn rank(self, score: f64, name: &[u8]) -> usize {
        self.0.rank(score, name)
    }

    pub(super) fn count_below(self, is_below: impl Fn(f64, &[u8]) -> bool) -> usize {
        self.0.count_below(is_below)
    }

    pub(super) fn from(self, place: usize) -> impl Iterator<Item = (f64, &'a [u8])> {
        self.0.from(place)
    }

    pub(super) fn back_from(self, place: usize) -> impl Iterator<Item = (f64, &'a [u8])> {
        self.0.back_from(place)
    }
}

#[cfg(test)]
#[path = "../body_tests.rs"]
mod tests;
