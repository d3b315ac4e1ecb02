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

use std::borrow::Cow;

use crate::base::time::{Dot, Hlc, UnixMs};

use super::apply::{ApplyError, Author, Delta};
use super::change::{Amount, Edit, Edits, Made};
use super::element::{NameTooLong, between, kind_of, named, row};
use super::entry::{Entry, Meta};
use super::fragment::Fragment;
use super::register::{Base, Sibling, Stored};
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
    dots: Dots,
    /// Writes that were removed or built on.
    named: Vec<Dot>,
    /// Names of the elements that were touched.
    touched: Vec<Vec<u8>>,
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
        assert!(dot.hlc > self.context().hlc_max(), "a new dot is above every dot seen on the key");
        let actor = dot.actor;
        let visible = self.visible(now).map(|(kind, _)| kind);
        assert!(visible.is_none_or(|kind| kind == edits.kind), "a command looked at the type");
        let n = self.context().n(actor).saturating_add(1);
        let held = self.context().held(actor);
        let dots = Dots { next: dot, last: None };
        let mut work =
            Work { entry: self, dots, named: Vec::new(), touched: Vec::new(), now, author };
        if visible.is_none() {
            work.begin(edits.kind);
        } else {
            work.clear_others(edits.kind);
        }
        for edit in edits.list() {
            work.step(edits.kind, edit)?;
        }
        work.end_if_empty(edits.kind);
        let last = match work.dots.last {
            Some(last) => last,
            None => work.dots.take(),
        };
        let Work { named, touched, .. } = work;
        let prev = (author == Author::Replica).then_some(held);
        self.witness_all(dot, last, n, prev);
        Ok(Delta::Fragment(self.fragment_of(dot, last, n, prev, named, &touched)))
    }

    /// Makes the key hold this collection and nothing else.
    pub(super) fn make(&mut self, made: &Made<'_>, dot: Dot, author: Author) -> Delta {
        let mut dots = Dots { next: dot, last: None };
        let n = self.context().n(dot.actor).saturating_add(1);
        assert!(dot.hlc > self.context().hlc_max(), "a new dot is above every dot seen on the key");
        let prev = (author == Author::Replica).then(|| self.context().held(dot.actor));
        self.clear();
        let meta = dots.take();
        self.set_meta(Meta { dot: meta, kind: made.kind, expire_at: made.expire_at });
        let mut positions = row(made.elements.len(), dots.next);
        for element in &made.elements {
            let dot = dots.take();
            let name = match made.kind {
                Kind::List => positions.next().expect("as many as elements"),
                kind => named(kind, &element.name),
            };
            let value = match made.kind {
                Kind::Zset => Cow::Owned(element.score.to_le_bytes().to_vec()),
                _ => Cow::Borrowed(&element.value[..]),
            };
            let base = Base::Stored(Stored::pack(&value));
            let sibling = Sibling { expire_at: element.expire_at, ..Sibling::new(dot, base) };
            // Of two of one name the later one stays.
            self.take_field(&name);
            self.push(&name, sibling);
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

    /// Counts further on the winning base of an element; on nothing visible, on a new zero base.
    /// Answers which writes were removed or built on.
    fn count_at(
        &mut self,
        name: &[u8],
        amount: Amount,
        dot: Dot,
        now: UnixMs,
        author: Author,
    ) -> Vec<Dot> {
        let found = self.fields.binary_search_by(|field| field.name[..].cmp(name));
        let register = found.ok().map(|at| &mut self.fields[at].register);
        let winner = register
            .filter(|register| register.is_visible(now))
            .and_then(|register| register.winner_mut());
        match winner {
            Some(winner) if author.knows_sum(winner.dot, dot) => {
                winner.add(dot, amount);
                vec![winner.dot]
            }
            // Somebody else's base of which this stand-in knows no sum: beside it.
            Some(_) => {
                self.push(name, Sibling::counted(dot, amount));
                vec![]
            }
            None => {
                let removed = self.take_field(name);
                self.push(name, Sibling::counted(dot, amount));
                removed
            }
        }
    }

    /// The part of this entry that the writes `first` to `last` made of the elements `touched`, and
    /// all that is alive of the writes `named`, which they built on or removed. See [`Fragment`].
    fn fragment_of(
        &self,
        first: Dot,
        last: Dot,
        n: u32,
        prev: Option<Hlc>,
        named: Vec<Dot>,
        touched: &[Vec<u8>],
    ) -> Fragment {
        let is_own = |dot: Dot| dot.actor == last.actor && dot >= first && dot <= last;
        let is_told = |dot: Dot| is_own(dot) || named.contains(&dot);
        let mut part = Entry::new();
        part.meta.extend(self.meta.iter().filter(|meta| is_told(meta.dot)).copied());
        for name in touched {
            let siblings = self.register(name).map_or(&[][..], |register| register.siblings());
            if part.register(name).is_some() {
                continue;
            }
            for sibling in siblings.iter().filter(|sibling| is_told(sibling.dot)) {
                let mut sibling = sibling.clone();
                // Of what was added: by these writes, and by the one that began a zero base.
                let (base, zero) = (sibling.dot, sibling.base == Base::Zero);
                sibling
                    .increments
                    .retain(|inc| is_own(inc.dot()) || (zero && inc.actor == base.actor));
                for inc in &sibling.increments {
                    part.context.insert(inc.dot(), self.n_at(inc.dot()));
                }
                part.push(name, sibling);
            }
        }
        for dot in named {
            part.context.insert(dot, self.n_at(dot));
        }
        for hlc in first.hlc.0..=last.hlc.0 {
            part.context.insert(Dot::new(Hlc(hlc), last.actor), n);
        }
        Fragment::new(last, prev, part)
    }

    /// Removes an element; answers which writes made it.
    fn take_field(&mut self, name: &[u8]) -> Vec<Dot> {
        match self.fields.binary_search_by(|field| field.name[..].cmp(name)) {
            Ok(at) => {
                let field = self.fields.remove(at);
                field.register.siblings().iter().map(|sibling| sibling.dot).collect()
            }
            Err(_) => Vec::new(),
        }
    }

    /// The names of the list's elements, in order.
    fn list_names(&self) -> impl Iterator<Item = &[u8]> {
        self.fields_of(Kind::List).iter().map(|field| &field.name[..])
    }
}

impl Work<'_> {
    /// Begins a new collection on nothing visible.
    fn begin(&mut self, kind: Kind) {
        self.named = self.entry.live_dots();
        self.entry.clear();
        let dot = self.dots.take();
        self.entry.set_meta(Meta { dot, kind, expire_at: None });
    }

    /// Removes what concurrent writers of other types have left, which nobody sees.
    fn clear_others(&mut self, kind: Kind) {
        let is_other = |name: &[u8]| kind_of(name) != Some(kind);
        if self.entry.fields.iter().all(|field| !is_other(&field.name)) {
            return;
        }
        for field in self.entry.fields.iter().filter(|field| is_other(&field.name)) {
            self.named.extend(field.register.siblings().iter().map(|sibling| sibling.dot));
        }
        self.entry.fields.retain(|field| !is_other(&field.name));
        let (kept, gone): (Vec<Meta>, Vec<Meta>) =
            self.entry.meta.iter().partition(|meta| meta.kind == kind);
        self.named.extend(gone.iter().map(|meta| meta.dot));
        self.entry.meta = kept.into();
    }

    fn step(&mut self, kind: Kind, edit: &Edit<'_>) -> Result<(), ApplyError> {
        match edit {
            Edit::Set { name, value, expire_at } => {
                self.set(named(kind, name), value, *expire_at);
            }
            Edit::Remove { name } => self.remove(named(kind, name)),
            Edit::Add { name, amount } => {
                let name = named(kind, name);
                let dot = self.dots.take();
                self.named.extend(self.entry.count_at(&name, *amount, dot, self.now, self.author));
                self.touched.push(name);
            }
            Edit::PushLeft(value) => self.insert(0, value)?,
            Edit::PushRight(value) => self.insert(usize::MAX, value)?,
            Edit::Insert { place, value } => self.insert(*place, value)?,
            Edit::SetAt { place, value } => {
                let name = self.entry.list_names().nth(*place).map(<[u8]>::to_vec);
                if let Some(name) = name {
                    self.set(name, value, None);
                }
            }
            Edit::RemoveRange { place, count } => {
                let names = self.entry.list_names().skip(*place).take(*count);
                let names: Vec<Vec<u8>> = names.map(<[u8]>::to_vec).collect();
                for name in names {
                    self.remove(name);
                }
            }
        }
        Ok(())
    }

    fn set(&mut self, name: Vec<u8>, value: &[u8], expire_at: Option<UnixMs>) {
        self.named.extend(self.entry.take_field(&name));
        let dot = self.dots.take();
        let base = Base::Stored(Stored::pack(value));
        self.entry.push(&name, Sibling { expire_at, ..Sibling::new(dot, base) });
        self.touched.push(name);
    }

    fn remove(&mut self, name: Vec<u8>) {
        self.named.extend(self.entry.take_field(&name));
        self.touched.push(name);
    }

    fn insert(&mut self, place: usize, value: &[u8]) -> Result<(), ApplyError> {
        let names: Vec<&[u8]> = self.entry.list_names().collect();
        let place = place.min(names.len());
        let left = place.checked_sub(1).map(|left| names[left]);
        let dot = self.dots.take();
        let name = between(left, names.get(place).copied(), dot)?;
        let base = Base::Stored(Stored::pack(value));
        self.entry.push(&name, Sibling::new(dot, base));
        self.touched.push(name);
        Ok(())
    }

    /// Without a visible element the key is gone, with all that is left of it.
    fn end_if_empty(&mut self, kind: Kind) {
        if self.entry.elements(kind, self.now).next().is_some() {
            return;
        }
        self.named.extend(self.entry.live_dots());
        self.touched.extend(self.entry.fields().iter().map(|field| field.name.to_vec()));
        self.entry.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hash::HashSeed;
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
        let delta = entry.apply(change, dot, NOW).expect("room");
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
        assert_eq!(a.view_in(NOW, HashSeed(1)).expect("there").expire_at, None);
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
