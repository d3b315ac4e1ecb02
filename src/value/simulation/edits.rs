//! What is written to collections: the edits of one command, and what they make and remove.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::base::time::{Dot, Hlc, UnixMs};

use super::super::change::{Amount, Change, Edit};
use super::super::element::Element;
use super::super::entry::Entry;
use super::super::view::Kind;
use super::book::{Book, Held, Part, Value, kind_of, slot_of, text};
use super::facts::{Atom, Facts};
use super::{Moment, Mutant, Simulation};

/// The fields and members there are.
const NAMES: [&[u8]; 4] = [b"", b"f", b"g", b"long name"];

/// A command at work, in the book.
struct Work {
    at: usize,
    kind: Kind,
    next: Dot,
    alive: BTreeSet<Atom>,
    own: Facts,
    /// What is visible, by slot.
    parts: Vec<Part>,
}

impl Work {
    fn take(&mut self) -> Dot {
        let dot = self.next;
        self.next.hlc = Hlc(dot.hlc.0 + 1);
        dot
    }

    fn make(&mut self, atom: Atom) {
        if let Atom::Increment(base, dot) = atom {
            let is_before = |old: &Atom| matches!(old, Atom::Increment(b, d) if *b == base && d.actor == dot.actor);
            self.alive.retain(|old| !is_before(old));
        }
        self.own.made.insert(atom);
        self.alive.insert(atom);
    }

    fn remove(&mut self, gone: impl Fn(&Atom) -> bool) {
        let (gone, alive) = std::mem::take(&mut self.alive).into_iter().partition(gone);
        self.alive = alive;
        self.own.removed.extend::<BTreeSet<Atom>>(gone);
    }

    /// Removes what `book` knows under slots of which `gone` holds.
    fn remove_slots(&mut self, book: &Book, gone: impl Fn(&[u8]) -> bool) {
        self.remove(|atom| match atom {
            Atom::Meta(_) => false,
            Atom::Value(base) | Atom::Increment(base, _) => gone(&book.values[base].slot),
        });
    }

    fn part(&self, slot: &[u8]) -> Result<usize, usize> {
        self.parts.binary_search_by(|part| part.slot[..].cmp(slot))
    }
}

impl Simulation {
    /// A command edits or makes a collection.
    pub(super) fn write_elements(&mut self, moment: &Moment) -> Result<(), String> {
        let other = [Kind::Hash, Kind::List, Kind::Set, Kind::Zset][self.dice.roll(4) as usize];
        let kind = if self.dice.percent(85) { self.family } else { other };
        let begins = self.is_large && moment.shown.is_none();
        let makes = self.dice.percent(if begins { 60 } else { 10 });
        let kind = match &moment.shown {
            Some(shown) if !makes && shown.kind == Kind::String => return Ok(()),
            Some(shown) if !makes => shown.kind,
            _ => kind,
        };
        let mut work = Work {
            at: moment.at,
            kind,
            next: moment.dot,
            alive: moment.alive.clone(),
            own: Facts::default(),
            parts: moment.shown.as_ref().map_or_else(Vec::new, |shown| shown.parts.clone()),
        };
        // A command without new elements is a write, too.
        self.book.made.insert(moment.dot, vec![]);
        let change = if makes { self.make(&mut work) } else { self.edit(moment, &mut work) };
        self.share_dot(moment.dot, &mut work);
        let Work { own, parts, .. } = work;
        if !self.apply(moment.at, &change, moment.dot, &own) {
            return Ok(());
        }
        // As each edit is meant: by what was seen before.
        let seen = self.book.shown(&self.replicas[moment.at].facts, self.now);
        let bare = |part: &Part| (part.held.clone(), part.expire_at);
        let seen = seen.map_or_else(Vec::new, |shown| shown.parts);
        let same = seen.iter().map(bare).eq(parts.iter().map(bare));
        if same { Ok(()) } else { Err(format!("{change:?} made {seen:?}, not {parts:?}")) }
    }

    fn make(&mut self, work: &mut Work) -> Change<'static> {
        let expire_at = self.expiry();
        work.remove(|_| true);
        work.parts.clear();
        let meta = work.take();
        self.made_meta(meta, work.kind, expire_at);
        work.make(Atom::Meta(meta));
        let mut elements = Vec::new();
        let count = if self.is_large { 70 } else { 1 + self.dice.roll(3) };
        for _ in 0..count {
            let (name, held, expire_at) = self.element(work.kind);
            let new = Element { expire_at, ..Element::member(name.clone()) };
            elements.push(match (&held, work.kind) {
                (Held::Number(score), Kind::Zset) => Element { score: *score as f64, ..new },
                (held, _) => Element { value: text(held).into(), ..new },
            });
            if work.kind == Kind::List {
                self.insert(work, usize::MAX, held);
            } else {
                self.set(work, slot_of(work.kind, &name), held, expire_at);
            }
        }
        Change::make(work.kind, expire_at, elements)
    }

    fn edit(&mut self, moment: &Moment, work: &mut Work) -> Change<'static> {
        let kind = work.kind;
        if moment.shown.is_none() {
            work.remove(|_| true);
            let meta = work.take();
            self.made_meta(meta, kind, None);
            work.make(Atom::Meta(meta));
        } else {
            self.remove_hidden(work);
        }
        let count = 1 + self.dice.roll(3);
        let edits: Vec<Edit<'_>> = (0..count).map(|_| self.step(work)).collect();
        if work.parts.is_empty() {
            work.remove(|_| true);
        }
        Change::edit(kind, edits)
    }

    /// Whoever edits removes what has expired, and what is hidden of other types.
    fn remove_hidden(&self, work: &mut Work) {
        let kind = work.kind;
        let shown: BTreeSet<Vec<u8>> = work.parts.iter().map(|part| part.slot.clone()).collect();
        let is_other = |slot: &[u8]| kind_of(slot).is_some_and(|other| other != kind);
        let mut values = work.alive.iter().filter_map(|atom| match atom {
            Atom::Value(dot) => Some(&self.book.values[dot].slot),
            _ => None,
        });
        let any_other = values.any(|slot| is_other(slot));
        work.remove_slots(&self.book, |slot| is_other(slot) || !shown.contains(slot));
        if any_other {
            work.remove(|atom| matches!(atom, Atom::Meta(dot) if self.book.metas[dot].0 != kind));
        }
    }

    /// One edit.
    fn step(&mut self, work: &mut Work) -> Edit<'static> {
        let kind = work.kind;
        if kind == Kind::List {
            return self.step_list(work);
        }
        let (name, held, expire_at) = self.element(kind);
        let slot = slot_of(kind, &name);
        let name = Cow::Owned(name);
        let chance = self.dice.roll(100);
        let number = work.part(&slot).ok().map(|at| work.parts[at].held.clone());
        match (chance, kind, number) {
            (0..30, ..) => {
                work.remove_slots(&self.book, |other| other == slot);
                work.parts.retain(|part| part.slot != slot);
                Edit::Remove { name }
            }
            (60.., Kind::Hash | Kind::Zset, None | Some(Held::Number(_))) => {
                let amount = self.dice.roll(5) as i64 - 1;
                self.add(work, slot, amount);
                let amount = match kind {
                    Kind::Zset => Amount::Float(amount as f64, 0.0),
                    _ => Amount::Int(i128::from(amount)),
                };
                Edit::Add { name, amount }
            }
            _ => {
                let value = match &held {
                    Held::Number(score) if kind == Kind::Zset => {
                        (*score as f64).to_le_bytes().to_vec()
                    }
                    held => text(held),
                };
                self.set(work, slot, held, expire_at);
                Edit::Set { name, value: Cow::Owned(value), expire_at }
            }
        }
    }

    fn step_list(&mut self, work: &mut Work) -> Edit<'static> {
        let len = work.parts.len();
        let place = self.dice.roll(len as u64 + 1) as usize;
        let (_, held, _) = self.element(Kind::List);
        let value = Cow::Owned(text(&held));
        match self.dice.roll(100) {
            0..15 => {
                self.insert(work, 0, held);
                Edit::PushLeft(value)
            }
            15..25 if place < len => {
                let slot = work.parts[place].slot.clone();
                work.remove_slots(&self.book, |other| other == slot);
                self.set(work, slot, held, None);
                Edit::SetAt { place, value }
            }
            25..65 if place < len => {
                let count = (1 + self.dice.roll(3) as usize).min(len - place);
                for part in work.parts.drain(place..place + count).collect::<Vec<_>>() {
                    work.remove_slots(&self.book, |other| other == part.slot);
                }
                Edit::RemoveRange { place, count }
            }
            65..80 => {
                self.insert(work, place, held);
                Edit::Insert { place, value }
            }
            _ => {
                self.insert(work, usize::MAX, held);
                Edit::PushRight(value)
            }
        }
    }

    /// Name, value and expiry of some element.
    fn element(&mut self, kind: Kind) -> (Vec<u8>, Held, Option<UnixMs>) {
        let name = if self.is_large {
            format!("{:060}", self.dice.roll(100)).into_bytes()
        } else {
            NAMES[self.dice.roll(NAMES.len() as u64) as usize].to_vec()
        };
        let held = match kind {
            Kind::Set => Held::Word(Vec::new()),
            Kind::Zset => Held::Number(self.dice.roll(4) as i64 * 1_000),
            Kind::List if self.is_large => Held::Word(name.clone()),
            _ => self.number_or_word(),
        };
        let expires = kind == Kind::Hash && self.dice.percent(40);
        (name, held, self.expiry().filter(|_| expires))
    }

    /// The element in `slot` is this and nothing else.
    fn set(&mut self, work: &mut Work, slot: Vec<u8>, held: Held, expire_at: Option<UnixMs>) {
        work.remove_slots(&self.book, |other| other == slot);
        let dot = work.take();
        let part = Part { slot: slot.clone(), held: held.clone(), expire_at };
        // Not by search: a list's slots are not in order before they have their names.
        match work.parts.iter_mut().find(|part| part.slot == slot) {
            Some(old) => *old = part,
            None => {
                let at = work.parts.partition_point(|part| part.slot < slot);
                work.parts.insert(at, part);
            }
        }
        self.book.values.insert(dot, Value { slot, held, expire_at });
        self.made(dot, Atom::Value(dot));
        work.make(Atom::Value(dot));
    }

    /// The element in `slot` counts further.
    fn add(&mut self, work: &mut Work, slot: Vec<u8>, amount: i64) {
        let dot = work.take();
        if let Ok(at) = work.part(&slot) {
            let Held::Number(number) = &mut work.parts[at].held else { panic!("no number") };
            *number += amount;
            let values = work.alive.iter().filter_map(|atom| match atom {
                Atom::Value(dot) if self.book.values[dot].slot == slot => Some(*dot),
                _ => None,
            });
            let winner = values.max().expect("what shows has a value");
            if self.knows_sum(work.at, winner, dot) {
                let added = self.added(winner, dot, amount);
                return work.make(added);
            }
        } else {
            work.remove_slots(&self.book, |other| other == slot);
            let at = work.part(&slot).expect_err("nothing shows");
            let held = Held::Number(amount);
            work.parts.insert(at, Part { slot: slot.clone(), held, expire_at: None });
        }
        self.counted(slot, dot, amount).into_iter().for_each(|atom| work.make(atom));
    }

    /// A new element of a list. It has its name when the edits are done: see
    /// [`Book::name_elements`].
    fn insert(&mut self, work: &mut Work, place: usize, held: Held) {
        let dot = work.take();
        let slot = unnamed(dot);
        let part = Part { slot: slot.clone(), held: held.clone(), expire_at: None };
        work.parts.insert(place.min(work.parts.len()), part);
        self.book.values.insert(dot, Value { slot, held, expire_at: None });
        self.made(dot, Atom::Value(dot));
        work.make(Atom::Value(dot));
    }

    /// The mutant that has no dot for a meta.
    fn share_dot(&mut self, meta: Dot, work: &mut Work) {
        let first = Dot { hlc: Hlc(meta.hlc.0 + 1), ..meta };
        let is_both =
            work.alive.contains(&Atom::Meta(meta)) && work.alive.contains(&Atom::Value(first));
        if self.mutant != Mutant::SharedDot || !is_both {
            return;
        }
        self.book.made.insert(meta, vec![]);
        let (kind, expire_at) = self.book.metas.remove(&meta).expect("just made");
        self.made_meta(first, kind, expire_at);
        work.own.made.remove(&Atom::Meta(meta));
        work.own.made.insert(Atom::Meta(first));
    }
}

/// What stands for the slot of a list's element that was just born: no name is like that.
fn unnamed(dot: Dot) -> Vec<u8> {
    let mut slot = vec![1];
    slot.extend(dot.hlc.0.to_be_bytes());
    slot.extend(dot.actor.0.to_be_bytes());
    slot
}

impl Book {
    /// Looks up the names that new elements of a list got in `entry`.
    pub(super) fn name_elements(&mut self, entry: &Entry, own: &Facts) {
        for field in entry.fields().iter().filter(|field| field.kind == Kind::List) {
            for sibling in field.register.siblings() {
                if own.made.contains(&Atom::Value(sibling.dot)) {
                    let value = self.values.get_mut(&sibling.dot).expect("made");
                    if kind_of(&value.slot).is_none() {
                        value.slot = slot_of(Kind::List, &field.name);
                    }
                }
            }
        }
    }
}
