//! Writing collections: how edits become part of an entry, and what of them travels.
//!
//! ```text
//! Edit   sets, removes, counts or pushes elements, each new one under a dot of its own ─> Fragment
//! Make   removes all that is here, and makes a collection of given elements            ─> Whole
//! ```
//!
//! An element has a dot of its own, and so has the meta of a new collection: so a fragment, which
//! must tell all that is alive of every dot it names, stays as small as what was edited. The dots of
//! one command follow each other; the fragment is called after the last.
//!
//! A key whose last visible element is removed is gone: what is left of it is removed as well.

use crate::base::time::{Dot, Hlc, UnixMs};

use super::apply::{ApplyError, Author, Delta};
use super::body::cell::{dots_of, register_of};
use super::body::leaf::{Cell, New};
use super::change::{Amount, Edit, Edits, Made};
use super::element::{NameTooLong, between, row};
use super::entry::{Entry, Meta};
use super::fragment::Fragment;
use super::packed::{Packed, pack};
use super::register::Sibling;
use super::view::Kind;

impl From<NameTooLong> for ApplyError {
    fn from(_: NameTooLong) -> ApplyError {
        ApplyError::TooManyInsertions
    }
}

/// The dots of one command.
struct Dots {
    next: Dot,
    last: Option<Dot>,
}

impl Dots {
    fn take(&mut self) -> Dot {
        let dot = self.next;
        self.next.hlc = Hlc(dot.hlc.0 + 1);
        self.last = Some(dot);
        dot
    }
}

/// One command at work.
struct Work<'w> {
    entry: &'w mut Entry,
    kind: Kind,
    dots: Dots,
    /// Writes that were removed or built on.
    named: Vec<Dot>,
    /// Names of the elements that were touched.
    touched: Vec<Vec<u8>>,
    /// Of those of other types.
    swept: Vec<(Kind, Vec<u8>)>,
    now: UnixMs,
    author: Author,
}

impl Entry {
    /// Carries out `edits`; `dot` is the first of the new writes.
    pub(super) fn edit(
        &mut self,
        edits: &Edits<'_>,
        dot: Dot,
        now: UnixMs,
        author: Author,
    ) -> Result<Delta, ApplyError> {
        if author == Author::Replica
            && let Some(delta) = self.edit_single(edits, dot, now)
        {
            return Ok(delta);
        }
        self.edit_any(edits, dot, now, author)
    }

    /// The same of edits of every sort.
    pub(super) fn edit_any(
        &mut self,
        edits: &Edits<'_>,
        dot: Dot,
        now: UnixMs,
        author: Author,
    ) -> Result<Delta, ApplyError> {
        assert!(dot.hlc > self.context.hlc_max(), "a new dot is above every dot seen on the key");
        for edit in edits.list() {
            if let Edit::Insert { place, .. } = edit {
                self.has_room_at(*place, dot)?;
            }
        }
        let visible = self.visible(now).map(|(kind, _)| kind);
        assert!(visible.is_none_or(|kind| kind == edits.kind), "a command looked at the type");
        let n = self.context.n(dot.actor).saturating_add(1);
        let held = self.context.held(dot.actor);
        let mut work = Work {
            entry: self,
            kind: edits.kind,
            dots: Dots { next: dot, last: None },
            named: Vec::new(),
            touched: Vec::new(),
            swept: Vec::new(),
            now,
            author,
        };
        if visible.is_none() {
            work.begin();
        } else {
            work.clear_others();
        }
        for edit in edits.list() {
            work.step(edit)?;
        }
        work.end_if_empty();
        let last = match work.dots.last {
            Some(last) => last,
            None => work.dots.take(),
        };
        let Work { named, touched, swept, .. } = work;
        let told = Told { first: dot, last, n, named };
        let prev = (author == Author::Replica).then_some(held);
        self.witness_all(dot, last, n, prev);
        Ok(Delta::Fragment(self.fragment_of(edits.kind, &told, prev, touched, swept)))
    }

    /// Whether a name is left for an element before the list's one at `place`.
    fn has_room_at(&self, place: usize, dot: Dot) -> Result<(), NameTooLong> {
        let Some(body) = self.body(Kind::List) else { return Ok(()) };
        let names = body.names(place.saturating_sub(1), 2);
        match (place, &names[..]) {
            (1.., [left, right]) => between(Some(left), Some(right), dot).map(|_| ()),
            _ => Ok(()),
        }
    }

    /// Makes the key hold this collection and nothing else.
    pub(super) fn make(&mut self, made: &Made<'_>, dot: Dot, author: Author) -> Delta {
        let mut dots = Dots { next: dot, last: None };
        let n = self.context.n(dot.actor).saturating_add(1);
        assert!(dot.hlc > self.context.hlc_max(), "a new dot is above every dot seen on the key");
        let prev = (author == Author::Replica).then(|| self.context.held(dot.actor));
        self.clear();
        let meta = dots.take();
        self.set_meta(Meta { dot: meta, kind: made.kind, expire_at: made.expire_at });
        let mut positions = row(made.elements.len(), dots.next);
        let body = self.body_mut(made.kind);
        let mut scratch = Vec::new();
        for element in &made.elements {
            let (dot, position) = (dots.take(), positions.next().expect("as many as elements"));
            let name = if made.kind == Kind::List { &position[..] } else { &element.name };
            let score = element.score.to_le_bytes();
            let value = match made.kind {
                Kind::Zset => Packed::raw(&score),
                _ => pack(&element.value, &mut scratch),
            };
            // Of two of one name the later one stays.
            body.update(name, |_| New::Single { dot, value, expire_at: element.expire_at });
        }
        let last = dots.last.expect("a meta at least");
        self.witness_all(dot, last, n, prev);
        Delta::Whole
    }

    /// Learns of its own new writes, from `first` to `last`. A replica's vector rises over all of
    /// them; what a stand-in makes stays single.
    fn witness_all(&mut self, first: Dot, last: Dot, n: u32, prev: Option<Hlc>) {
        if prev.is_none() {
            (first.hlc.0..last.hlc.0)
                .for_each(|hlc| self.context.insert(Dot::new(Hlc(hlc), last.actor), n));
        }
        self.context.advance(last, n, prev);
    }

    /// The part of this entry that a command made of the elements `touched`, and all that is alive
    /// of the writes that it built on or removed. See [`Fragment`].
    pub(super) fn fragment_of(
        &self,
        kind: Kind,
        told: &Told,
        prev: Option<Hlc>,
        touched: Vec<Vec<u8>>,
        mut gone: Vec<(Kind, Vec<u8>)>,
    ) -> Fragment {
        let mut part = Entry::new();
        let metas = self.meta.iter().filter(|meta| told.contains(meta.dot));
        part.meta.extend(metas.copied());
        for name in touched {
            let new = match self.body(kind).and_then(|body| body.cell(&name)) {
                Some(Cell::Single { dot, value, expire_at }) if told.contains(dot) => {
                    New::Single { dot, value, expire_at }
                }
                Some(cell @ Cell::Register(_)) => {
                    let is_told = |dot| told.contains(dot);
                    let is_own = |dot| told.is_own(dot);
                    let register = register_of(&cell);
                    New::Register(self.told(&register, is_told, is_own, &mut part.context))
                }
                _ => New::Gone,
            };
            match new {
                New::Single { .. } => part.body_mut(kind).update(&name, |_| new),
                New::Register(register) if !register.is_empty() => {
                    part.body_mut(kind).update(&name, |_| New::Register(register));
                }
                _ => gone.push((kind, name)),
            }
        }
        // What was swept and then made anew is not gone.
        gone.retain(|(kind, name)| part.body(*kind).is_none_or(|body| body.cell(name).is_none()));
        for &dot in &told.named {
            part.context.insert(dot, self.n_at(dot));
        }
        for hlc in told.first.hlc.0..=told.last.hlc.0 {
            part.context.insert(Dot::new(Hlc(hlc), told.last.actor), told.n);
        }
        Fragment::new(told.last, prev, part, gone)
    }
}

/// Of which writes a fragment tells.
pub(super) struct Told {
    /// Its own, from the first to the last.
    pub(super) first: Dot,
    pub(super) last: Dot,
    /// The author's count of them all as one.
    pub(super) n: u32,
    /// Others'.
    pub(super) named: Vec<Dot>,
}

impl Told {
    fn is_own(&self, dot: Dot) -> bool {
        dot.actor == self.last.actor && self.first <= dot && dot <= self.last
    }

    fn contains(&self, dot: Dot) -> bool {
        self.is_own(dot) || self.named.contains(&dot)
    }
}

impl Work<'_> {
    /// Begins a new collection on nothing visible.
    fn begin(&mut self) {
        self.named = self.entry.live_dots();
        self.swept = self.entry.names();
        self.entry.clear();
        let dot = self.dots.take();
        self.entry.set_meta(Meta { dot, kind: self.kind, expire_at: None });
    }

    /// Removes what concurrent writers of other types have left, which nobody sees, and what has
    /// expired.
    fn clear_others(&mut self) {
        let (kind, now) = (self.kind, self.now);
        if self.entry.body(kind).is_some_and(|body| body.may_have_expired(now)) {
            let body = self.entry.body_mut(kind);
            for name in body.expired(now) {
                self.remove(name);
            }
            self.entry.body_mut(kind).settle_expiry();
        }
        let others = self.entry.bodies.iter().any(|body| body.kind() != kind);
        if !others && self.entry.string.is_empty() {
            return;
        }
        let named = &mut self.named;
        named.extend(self.entry.string.siblings().iter().map(|value| value.dot));
        self.entry.string = Default::default();
        for body in self.entry.bodies.iter().filter(|body| body.kind() != kind) {
            body.cells(|name, cell| {
                dots_of(cell, |dot| named.push(dot));
                self.swept.push((body.kind(), name.to_vec()));
            });
        }
        self.entry.bodies.retain(|body| body.kind() == kind);
        named.extend(self.entry.meta.iter().filter(|m| m.kind != kind).map(|meta| meta.dot));
        self.entry.meta.retain(|meta| meta.kind == kind);
    }

    fn step(&mut self, edit: &Edit<'_>) -> Result<(), ApplyError> {
        match edit {
            Edit::Set { name, value, expire_at } => self.set(name.to_vec(), value, *expire_at),
            Edit::Remove { name } => self.remove(name.to_vec()),
            Edit::Add { name, amount } => self.add(name.to_vec(), *amount),
            Edit::PushLeft(value) => self.insert(0, value)?,
            Edit::PushRight(value) => self.insert(usize::MAX, value)?,
            Edit::Insert { place, value } => self.insert(*place, value)?,
            Edit::SetAt { place, value } => {
                if let Some(name) = self.list_names(*place, 1).pop() {
                    self.set(name, value, None);
                }
            }
            Edit::RemoveRange { place, count } => {
                for name in self.list_names(*place, *count) {
                    self.remove(name);
                }
            }
        }
        Ok(())
    }

    /// The names of the list's elements from a place on.
    fn list_names(&self, place: usize, count: usize) -> Vec<Vec<u8>> {
        self.entry.body(self.kind).map_or_else(Vec::new, |body| body.names(place, count))
    }

    fn set(&mut self, name: Vec<u8>, value: &[u8], expire_at: Option<UnixMs>) {
        let dot = self.dots.take();
        let mut scratch = Vec::new();
        let value = pack(value, &mut scratch);
        let named = &mut self.named;
        self.entry.body_mut(self.kind).update(&name, |held| {
            if let Some(held) = held {
                dots_of(held, |dot| named.push(dot));
            }
            New::Single { dot, value, expire_at }
        });
        self.touched.push(name);
    }

    fn remove(&mut self, name: Vec<u8>) {
        let named = &mut self.named;
        self.entry.body_mut(self.kind).update(&name, |held| {
            if let Some(held) = held {
                dots_of(held, |dot| named.push(dot));
            }
            New::Gone
        });
        self.touched.push(name);
    }

    /// Counts further on the winning base of an element; on nothing visible, on a new zero base.
    fn add(&mut self, name: Vec<u8>, amount: Amount) {
        let (dot, now, author) = (self.dots.take(), self.now, self.author);
        let named = &mut self.named;
        self.entry.body_mut(self.kind).update(&name, |held| {
            let mut register = held.map(register_of).unwrap_or_default();
            if !register.is_visible(now) {
                named.extend(register.siblings().iter().map(|value| value.dot));
                register = Default::default();
            }
            match register.winner_mut() {
                Some(winner) if author.knows_sum(winner.dot, dot) => {
                    winner.add(dot, amount);
                    named.push(winner.dot);
                }
                // Somebody else's base of which this stand-in knows no sum: beside it.
                _ => register.push(Sibling::counted(dot, amount)),
            }
            New::Register(register)
        });
        self.touched.push(name);
    }

    fn insert(&mut self, place: usize, value: &[u8]) -> Result<(), ApplyError> {
        let len = self.entry.body(self.kind).map_or(0, |body| body.len());
        let place = place.min(len);
        let names = match place {
            0 => self.list_names(0, 1),
            place => self.list_names(place - 1, 2),
        };
        let (left, right) = match place {
            0 => (None, names.first()),
            _ => (names.first(), names.get(1)),
        };
        let dot = self.dots.take();
        let name = between(left.map(Vec::as_slice), right.map(Vec::as_slice), dot)?;
        let mut scratch = Vec::new();
        let value = pack(value, &mut scratch);
        let new = New::Single { dot, value, expire_at: None };
        self.entry.body_mut(self.kind).update(&name, |_| new);
        self.touched.push(name.into_vec());
        Ok(())
    }

    /// Without a visible element the key is gone, with all that is left of it.
    fn end_if_empty(&mut self) {
        let (kind, now) = (self.kind, self.now);
        if self.entry.body(kind).is_some_and(|body| body.is_visible(now)) {
            return self.entry.drop_empty();
        }
        self.named.extend(self.entry.live_dots());
        self.swept.extend(self.entry.names());
        self.entry.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::base::id::Actor;
    use crate::value::change::Change;
    use crate::value::record::{Record, decode, encode_delta};
    use crate::value::view::View;

    const NOW: UnixMs = UnixMs(1_000);

    fn dot(hlc: u64, actor: u32) -> Dot {
        Dot::new(Hlc(hlc), Actor(actor))
    }

    /// Applies a change, and answers the record of its fragment.
    fn apply(entry: &mut Entry, change: &Change<'_>, dot: Dot) -> Vec<u8> {
        let delta = entry.apply(change, dot, NOW).expect("room").decoded();
        let Delta::Fragment(fragment) = delta else { panic!("whole") };
        let mut bytes = Vec::new();
        encode_delta(&mut bytes, b"k", &fragment);
        bytes
    }

    fn receive(entry: &mut Entry, bytes: &[u8]) {
        let (_, record) = decode(bytes).expect("a record");
        assert!(matches!(record, Record::Delta(_)));
        record.join_into(entry);
    }

    fn shown(entry: &Entry) -> Vec<(String, String, f64)> {
        let Some(View { kind, body, .. }) = entry.view(NOW) else { return Vec::new() };
        let crate::value::view::Body::Fields(fields) = body else { panic!("{kind:?}") };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let name = |e: &Element<'_>| if kind == Kind::List { String::new() } else { text(&e.name) };
        fields.iter().map(|e| (name(&e), text(&e.value), e.score)).collect()
    }

    use crate::value::element::Element;

    fn field(name: &'static str, value: &'static str) -> Edit<'static> {
        Edit::field(name.as_bytes(), value.as_bytes())
    }

    fn push(value: &'static str) -> Change<'static> {
        Change::edit(Kind::List, [Edit::PushRight(Cow::Borrowed(value.as_bytes()))])
    }

    #[test]
    fn both_sides_fields_stay() {
        let (mut a, mut b) = (Entry::new(), Entry::new());
        let begun = apply(&mut a, &Change::edit(Kind::Hash, [field("f", "1")]), dot(1, 1));
        receive(&mut b, &begun);
        let left = apply(&mut a, &Change::edit(Kind::Hash, [field("g", "2")]), dot(10, 1));
        let right = apply(&mut b, &Change::edit(Kind::Hash, [field("h", "3")]), dot(11, 2));
        receive(&mut a, &right);
        receive(&mut b, &left);
        assert_eq!(a, b);
        assert_eq!(shown(&a).len(), 3);
    }

    #[test]
    fn an_edit_is_small_however_large_the_collection() {
        let mut big = Entry::new();
        let fields: Vec<Element<'_>> =
            (0..5_000).map(|nth| Element::field(format!("f{nth}").into_bytes(), vec![7])).collect();
        big.apply(&Change::make(Kind::Hash, None, fields), dot(1, 1), NOW).expect("room");
        let bytes = apply(&mut big, &Change::edit(Kind::Hash, [field("f17", "x")]), dot(9_000, 1));
        assert!(bytes.len() < 100, "{} bytes", bytes.len());
    }

    #[test]
    fn an_add_wins_over_a_delete_that_has_not_seen_it() {
        let (mut a, mut b) = (Entry::new(), Entry::new());
        receive(&mut b, &apply(&mut a, &push("x"), dot(1, 1)));
        assert_eq!(a.apply(&Change::Delete, dot(10, 1), NOW), Ok(Delta::Whole));
        let pushed = apply(&mut b, &push("y"), dot(11, 2));
        receive(&mut a, &pushed);
        b.join(&a);
        assert_eq!(a, b);
        assert_eq!(shown(&a), [(String::new(), "y".to_owned(), 0.0)]);
        assert_eq!(a.view(NOW).expect("there").kind, Kind::List);
    }

    #[test]
    fn scores_and_counters_add() {
        let add = |amount| Edit::Add { name: Cow::Borrowed(&b"m"[..]), amount };
        let (mut a, mut b) = (Entry::new(), Entry::new());
        let score = Change::edit(Kind::Zset, [Edit::score(&b"m"[..], 1.5)]);
        receive(&mut b, &apply(&mut a, &score, dot(1, 1)));
        let left =
            apply(&mut a, &Change::edit(Kind::Zset, [add(Amount::Float(2.0, 0.0))]), dot(9, 1));
        let right =
            apply(&mut b, &Change::edit(Kind::Zset, [add(Amount::Float(4.0, 0.0))]), dot(9, 2));
        receive(&mut a, &right);
        receive(&mut b, &left);
        assert_eq!(a, b);
        assert_eq!(shown(&a), [("m".to_owned(), String::new(), 7.5)]);
    }

    #[test]
    fn an_empty_collection_is_no_key() {
        let mut a = Entry::new();
        apply(&mut a, &Change::edit(Kind::Set, [Edit::member(&b"m"[..])]), dot(1, 1));
        apply(&mut a, &Change::Expire(Some(UnixMs(5_000))), dot(5, 1));
        apply(&mut a, &Change::edit(Kind::Set, [Edit::remove(&b"m"[..])]), dot(9, 1));
        assert!(a.is_tombstone());
        apply(&mut a, &Change::edit(Kind::Set, [Edit::member(&b"n"[..])]), dot(12, 1));
        assert_eq!(a.view(NOW).expect("there").expire_at, None);
    }

    #[test]
    fn what_is_made_anew_where_something_has_expired_is_told() {
        let (mut a, mut b) = (Entry::new(), Entry::new());
        let add = Change::edit(Kind::Set, [Edit::member(&b"m"[..])]);
        receive(&mut b, &apply(&mut a, &add, dot(1, 1)));
        receive(&mut b, &apply(&mut a, &Change::Expire(Some(UnixMs(900))), dot(5, 1)));
        assert!(b.is_live() && b.view(NOW).is_none());
        receive(&mut b, &apply(&mut a, &add, dot(9, 1)));
        assert_eq!(a, b);
        assert_eq!(shown(&b).len(), 1);
    }

    #[test]
    fn expired_fields_are_not_there() {
        let mut a = Entry::new();
        let soon = Edit::Set {
            name: Cow::Borrowed(&b"f"[..]),
            value: Cow::Borrowed(&b"1"[..]),
            expire_at: Some(UnixMs(1_001)),
        };
        apply(&mut a, &Change::edit(Kind::Hash, [soon]), dot(1, 1));
        assert!(a.view(NOW).is_some() && a.view(UnixMs(1_001)).is_none());
    }

    #[test]
    fn a_list_keeps_its_order_by_every_edit() {
        let mut a = Entry::new();
        let item = |value: &'static str| Cow::Borrowed(value.as_bytes());
        let edits = [
            Edit::PushRight(item("c")),
            Edit::PushLeft(item("a")),
            Edit::Insert { place: 1, value: item("b") },
            Edit::PushRight(item("d")),
            Edit::SetAt { place: 3, value: item("e") },
            Edit::RemoveRange { place: 0, count: 1 },
        ];
        apply(&mut a, &Change::edit(Kind::List, edits), dot(1, 1));
        let values: Vec<String> = shown(&a).into_iter().map(|(_, value, _)| value).collect();
        assert_eq!(values, ["b", "c", "e"]);
        assert!(a.context().cloud().is_empty());
    }
}
