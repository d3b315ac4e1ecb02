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
mod cut;
pub(super) mod leaf;
pub(super) mod ranks;
pub(super) mod reach;
mod rows;

use std::collections::HashMap;

use smallvec::SmallVec;

use crate::base::hash::{Digest, HashSeed};
use crate::base::id::Actor;
use crate::base::time::{Dot, UnixMs};
use crate::base::wire::{Cursor, Put, WireError};

use super::digest::Terms;
use super::element::{Element, ListName, first_step};
use super::register::Sibling;
use super::view::Kind;

use cell::{
    digest_of, digest_of_register, dots_of, expiry_of, is_alive, register_of, score_in, score_of,
    shown,
};
use cut::{begun_by, cut, cut_all_by_hash, cut_by_hash};
use leaf::{ACTORS_MAX, Cell, Item, Leaf, Name, New, Sight};
use ranks::{Ranks, order};
use rows::{Rows, Spot};

/// A body of one leaf is cut into several beyond this.
const FEW_SIZE_MAX: usize = 4_096;

/// One of several leaves is cut in two beyond this.
const LEAF_SIZE_MAX: usize = 448;

/// Leaves are made this large where many are made at once.
const LEAF_SIZE_MADE: usize = 336;

/// A leaf smaller than this is joined to its neighbour.
const LEAF_SIZE_MIN: usize = 96;

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
                leaf = Some((run, run.offset(sight.kind, skip)));
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
            let mut at = leaf.offset(sight.kind, skip);
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

    // ---- changing -----------------------------------------------------------------------------

    /// Changes what the element of that name holds: `act` is given what is there.
    pub(super) fn update<'n>(
        &mut self,
        name: &[u8],
        act: impl FnOnce(Option<&Cell<'_>>) -> New<'n>,
    ) {
        let (spot, found) = self.find(name);
        let sight = Sight { kind: self.kind, actors: &self.actors };
        let leaf = self.rows.run(spot);
        let item = found.ok().map(|at| leaf.item(sight, at));
        let new = match act(item.as_ref().map(|item| &item.cell)) {
            New::Keep => return,
            New::Gone if item.is_none() => return,
            New::Register(register) if register.is_empty() && item.is_none() => return,
            New::Register(register) if register.is_empty() => New::Gone,
            // What can be written shorter is.
            New::Register(register) => match register.as_single() {
                Some((dot, value, expire_at)) if self.knows(dot.actor) => {
                    let value = value.clone();
                    return self.put(
                        name,
                        spot,
                        found,
                        &New::Single { dot, value: value.as_packed(), expire_at },
                    );
                }
                _ => New::Register(register),
            },
            new => new,
        };
        self.put(name, spot, found, &new);
    }

    /// The name of a list's first element, or of its last one. There must be one.
    pub(super) fn end_name(&self, first: bool) -> Name<'_> {
        let sight = self.sight();
        if first {
            return self.rows.run(self.rows.first()).item(sight, 0).name;
        }
        let leaf = self.rows.run(self.rows.last());
        leaf.item(sight, leaf.last(self.kind)).name
    }

    /// Puts a new element before a list's first one, or after its last one.
    pub(super) fn push(&mut self, first: bool, name: &[u8], new: &New<'_>) {
        let mut spot = if first { self.rows.first() } else { self.rows.last() };
        let held = self.rows.run(spot).bytes.len();
        // A full leaf stays as it is: who pushes, pushes again.
        if self.is_large() && held + new.size() > LEAF_SIZE_MAX {
            let hlc = new.hlc().unwrap_or_default();
            let leaf = Leaf::roomy(hlc, first_step(name), LEAF_SIZE_MAX);
            self.room += leaf.bytes.capacity();
            spot = self.rows.extend(first, leaf);
        }
        let at = if first { 0 } else { self.rows.run(spot).bytes.len() };
        self.put(name, spot, Err(at), new);
    }

    /// Takes a list's first element away, or its last one, and answers its name. There must be
    /// another.
    pub(super) fn pop(&mut self, first: bool, visit: impl FnMut(Dot)) -> ListName {
        let spot = if first { self.rows.first() } else { self.rows.last() };
        let kind = self.kind;
        if !first {
            self.rows.change(spot, |leaf| leaf.know_end(kind));
        }
        let leaf = self.rows.run(spot);
        let at = if first { 0 } else { leaf.last(kind) };
        let item = leaf.item(self.sight(), at);
        let name = ListName::from_slice(item.name.bytes());
        dots_of(&item.cell, visit);
        self.put(&name, spot, Ok(at), &New::Gone);
        name
    }

    /// Whether an author has, or may be given, a place in the table.
    fn knows(&self, actor: Actor) -> bool {
        self.actors.contains(&actor) || self.actors.len() < ACTORS_MAX
    }

    fn put(&mut self, name: &[u8], spot: Spot, found: Result<usize, usize>, new: &New<'_>) {
        if let New::Single { dot, .. } = new
            && !self.actors.contains(&dot.actor)
            && self.actors.len() < ACTORS_MAX
        {
            self.actors.push(dot.actor);
        }
        let keeps_rank = self.keeps_rank(spot, found, new);
        let (start, end) = match found {
            Ok(at) => (at, self.let_go(name, spot, at, keeps_rank)),
            Err(at) => (at, at),
        };
        self.take_in(name, new, keeps_rank);
        let sight = Sight { kind: self.kind, actors: &self.actors };
        let (held, room) = (&mut self.held, &mut self.room);
        let was_empty = self.rows.len() == 0;
        let is_list = self.kind == Kind::List;
        self.rows.change(spot, |leaf| {
            if was_empty {
                // Told from the first dot and position, the others are short.
                leaf.hlc = new.hlc().map_or(leaf.hlc, |hlc| hlc.0);
                if is_list {
                    leaf.lower = first_step(name);
                }
            }
            let (before, had) = (leaf.bytes.len(), leaf.bytes.capacity());
            leaf.write(sight, start, end, name, new);
            *held = *held + leaf.bytes.len() - before;
            *room = *room + leaf.bytes.capacity() - had;
        });
        self.mend(spot, start);
    }

    /// Whether a member of a sorted set is written anew with the score that it has.
    fn keeps_rank(&self, spot: Spot, found: Result<usize, usize>, new: &New<'_>) -> bool {
        let (true, Ok(at)) = (self.ranks.is_some(), found) else { return false };
        let score = match new {
            New::Keep | New::Gone => return false,
            New::Single { value, .. } => score_in(value),
            New::Register(register) => register.score(),
        };
        let held = score_of(&self.rows.run(spot).item(self.sight(), at).cell);
        held.to_bits() == score.to_bits()
    }

    /// Takes an element that will be written over out of the sums. Answers where it ends.
    fn let_go(&mut self, name: &[u8], spot: Spot, at: usize, keeps_rank: bool) -> usize {
        let sight = Sight { kind: self.kind, actors: &self.actors };
        let item = self.rows.run(spot).item(sight, at);
        if let Some(tally) = &mut self.tally {
            tally.sum = tally.sum.minus(digest_of(tally.terms, self.kind, name, &item.cell));
        }
        if let Some(ranks) = self.ranks.as_mut().filter(|_| !keeps_rank) {
            ranks.remove(score_of(&item.cell), name);
        }
        if expiry_of(&item.cell).is_some() {
            self.expiring -= 1;
        }
        item.end
    }

    /// Takes an element that will be written into the sums.
    fn take_in(&mut self, name: &[u8], new: &New<'_>, keeps_rank: bool) {
        let (digest, score, expire_at) = match new {
            New::Keep | New::Gone => return,
            New::Single { dot, value, expire_at } => {
                let digest = self.tally.as_ref().map(|t| t.terms.element(self.kind, name, *dot));
                (digest, self.ranks.as_ref().map(|_| score_in(value)), *expire_at)
            }
            New::Register(register) => {
                let siblings = register.siblings();
                let digest = |t: &Tally| digest_of_register(t.terms, self.kind, name, siblings);
                let score = self.ranks.as_ref().map(|_| register.score());
                (self.tally.as_deref().map(digest), score, register.expire_at())
            }
        };
        if let (Some(tally), Some(digest)) = (&mut self.tally, digest) {
            tally.sum = tally.sum.plus(digest);
        }
        if let (Some(ranks), Some(score), false) = (&mut self.ranks, score, keeps_rank) {
            ranks.insert(score, name);
        }
        if let Some(at) = expire_at {
            self.expiring += 1;
            self.next_expiry = self.next_expiry.min(at);
        }
    }

    /// Cuts a leaf that has become large, or joins one that has become small to the next.
    fn mend(&mut self, spot: Spot, changed_at: usize) {
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
            let sight = self.sight();
            let mut both = leaf.clone();
            for (_, item) in self.rows.run(next).items(sight) {
                both.take_over(sight, &item);
            }
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

    fn split(&mut self, spot: Spot, grew_at_end: bool) {
        let was_few = self.only().is_some();
        let leaf = self.rows.run(spot);
        let size = leaf.bytes.len();
        let parts = match (self.kind, was_few) {
            // A list that grows at its end fills its leaves.
            (Kind::List, false) if grew_at_end => cut(leaf, self.sight(), LEAF_SIZE_MAX - 1),
            (Kind::List, true) => cut(leaf, self.sight(), LEAF_SIZE_MADE),
            (Kind::List, false) => cut(leaf, self.sight(), size / 2),
            (_, true) => cut_by_hash(leaf, self.sight(), self.seed, LEAF_SIZE_MADE),
            (_, false) => cut_by_hash(leaf, self.sight(), self.seed, size / 2),
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
    pub(super) fn order_by(&mut self, seed: HashSeed) {
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

    /// Finds the next expiry anew, after what was due has been removed.
    pub(super) fn settle_expiry(&mut self) {
        let ends = self.items().filter_map(|item| expiry_of(&item.cell)).min();
        self.next_expiry = ends.unwrap_or(UnixMs(u64::MAX));
    }

    /// The names of what has expired by `now`.
    pub(super) fn expired(&self, now: UnixMs) -> Vec<Vec<u8>> {
        let due = self.items().filter(|item| !is_alive(&item.cell, now));
        due.map(|item| item.name.bytes().to_vec()).collect()
    }

    /// Keeps elements as `change` says, which is given each one's register.
    pub(super) fn change_all(&mut self, mut change: impl FnMut(&[u8], &Cell<'_>) -> New<'static>) {
        let mut changes = Vec::new();
        for item in self.items() {
            match change(item.name.bytes(), &item.cell) {
                New::Keep => {}
                new => changes.push((item.name.bytes().to_vec(), new)),
            }
        }
        for (name, new) in changes {
            self.update(&name, |_| new);
        }
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
        self.room + self.rows.memory() + ranks
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
