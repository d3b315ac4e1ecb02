//! What every write was about, and what shows by it: the judge's book, of which no replica knows.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::hash::{Digest, HashSeed};
use crate::base::time::{Dot, UnixMs};

use super::super::digest::Terms;
use super::super::element::{self, Element, tag};
use super::super::entry::Entry;
use super::super::fields::Fields;
use super::super::view::Kind;
use super::facts::{Atom, Facts};

/// What stands for the element of that name: of a string, nothing.
pub(super) fn slot_of(kind: Kind, name: &[u8]) -> Vec<u8> {
    if kind == Kind::String { Vec::new() } else { [&[tag(kind)], name].concat() }
}

/// The type of what stands in a slot; none of a list's element that has no name yet.
pub(super) fn kind_of(slot: &[u8]) -> Option<Kind> {
    let kind = slot.first().map_or(Some(Kind::String), |tag| element::kind_of(*tag));
    kind.filter(|kind| *kind != Kind::List || slot.len() > LIST_NAME_SIZE)
}

/// Position and birth: so long is the name of a list's element at least.
const LIST_NAME_SIZE: usize = 24;

/// What a value is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Held {
    /// Counting began on nothing.
    Zero,
    /// A number, or a score.
    Number(i64),
    /// A text that is no number.
    Word(Vec<u8>),
}

/// A value that a write made.
#[derive(Clone, Debug)]
pub(super) struct Value {
    /// The name inside the entry; empty for a string.
    pub(super) slot: Vec<u8>,
    pub(super) held: Held,
    pub(super) expire_at: Option<UnixMs>,
}

/// A visible element, or the string.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Part {
    pub(super) slot: Vec<u8>,
    /// Never [`Held::Zero`].
    pub(super) held: Held,
    pub(super) expire_at: Option<UnixMs>,
}

/// A visible key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Shown {
    pub(super) kind: Kind,
    pub(super) expire_at: Option<UnixMs>,
    /// By slot.
    pub(super) parts: Vec<Part>,
}

impl Shown {
    /// Of a string, what it is.
    pub(super) fn string(&self) -> Option<&Held> {
        (self.kind == Kind::String).then(|| &self.parts[0].held)
    }
}

/// See the head of this file.
#[derive(Default)]
pub(super) struct Book {
    /// What each write made; of some, nothing.
    pub(super) made: BTreeMap<Dot, Vec<Atom>>,
    pub(super) metas: BTreeMap<Dot, (Kind, Option<UnixMs>)>,
    pub(super) values: BTreeMap<Dot, Value>,
    /// To which base how much was added.
    pub(super) added: BTreeMap<Dot, (Dot, i64)>,
}

impl Book {
    /// The slots where something is, with their values in order.
    fn slots(&self, ideal: &BTreeSet<Atom>) -> BTreeMap<&[u8], Vec<Dot>> {
        let mut slots = BTreeMap::<&[u8], Vec<Dot>>::new();
        for atom in ideal {
            if let Atom::Value(dot) = atom {
                slots.entry(&self.values[dot].slot).or_default().push(*dot);
            }
        }
        slots
    }

    /// What must be visible to whoever knows `facts`.
    pub(super) fn shown(&self, facts: &Facts, now: UnixMs) -> Option<Shown> {
        let ideal = facts.ideal();
        let slots = self.slots(&ideal);
        let is_there = |kind: Kind| slots.keys().any(|slot| kind_of(slot) == Some(kind));
        let told = ideal.iter().rev().find_map(|atom| match atom {
            Atom::Meta(dot) => Some(self.metas[dot]).filter(|(kind, _)| is_there(*kind)),
            _ => None,
        });
        let untold = || {
            let (slot, _) = slots.iter().max_by_key(|(_, dots)| dots.last())?;
            Some((kind_of(slot).expect("a name"), None))
        };
        let (kind, expire_at) = told.or_else(untold)?;
        if expire_at.is_some_and(|at| at <= now) {
            return None;
        }
        let ours = slots.iter().filter(|(slot, _)| kind_of(slot) == Some(kind));
        let parts: Vec<Part> =
            ours.filter_map(|(slot, dots)| self.part(&ideal, slot, dots, now)).collect();
        (!parts.is_empty()).then_some(Shown { kind, expire_at, parts })
    }

    /// What one slot shows.
    fn part(&self, ideal: &BTreeSet<Atom>, slot: &[u8], dots: &[Dot], now: UnixMs) -> Option<Part> {
        let is_zero = |dot: &&Dot| self.values[dot].held == Held::Zero;
        let zeros: i64 = dots.iter().filter(is_zero).map(|dot| self.sum(ideal, *dot)).sum();
        let set = dots.iter().rfind(|dot| !is_zero(dot));
        let expire_at = set.and_then(|set| self.values[set].expire_at);
        if expire_at.is_some_and(|at| at <= now) {
            return None;
        }
        let held = match set.map(|set| (set, &self.values[set].held)) {
            Some((set, Held::Number(number))) => {
                Held::Number(number + self.sum(ideal, *set) + zeros)
            }
            Some((set, word)) if Some(set) == dots.last() || !dots.iter().any(|d| is_zero(&d)) => {
                word.clone()
            }
            _ => Held::Number(zeros),
        };
        Some(Part { slot: slot.to_vec(), held, expire_at })
    }

    /// What was added to `base`: by each actor, all up to its last that is known.
    fn sum(&self, ideal: &BTreeSet<Atom>, base: Dot) -> i64 {
        let first = Atom::Increment(base, Dot::default());
        let last: Vec<Dot> = (ideal.range(first..))
            .map_while(|atom| match atom {
                Atom::Increment(to, dot) if *to == base => Some(*dot),
                _ => None,
            })
            .collect();
        let counts = |(dot, (to, _)): &(&Dot, &(Dot, i64))| {
            let up_to = |last: &Dot| last.actor == dot.actor && last.hlc >= dot.hlc;
            *to == base && last.iter().any(up_to)
        };
        self.added.iter().filter(counts).map(|(_, (_, amount))| *amount).sum()
    }

    /// The digest of what must be alive, term by term.
    pub(super) fn digest(&self, ideal: &BTreeSet<Atom>, seed: HashSeed, key_hash: u64) -> Digest {
        let terms = Terms { seed, key_hash };
        let term = |atom: &Atom| match *atom {
            Atom::Meta(dot) => terms.meta(dot),
            Atom::Value(dot) => match &self.values[&dot].slot[..] {
                [] => terms.value(dot),
                slot @ [_, name @ ..] => terms.element(kind_of(slot).expect("a name"), name, dot),
            },
            Atom::Increment(base, dot) => match &self.values[&base].slot[..] {
                [] => terms.increment(base, dot),
                slot @ [_, name @ ..] => {
                    terms.element_increment(kind_of(slot).expect("a name"), name, base, dot)
                }
            },
        };
        ideal.iter().map(term).fold(Digest::NONE, Digest::plus)
    }
}

/// Says how what `entry` shows differs from what must be visible.
pub(super) fn differs(entry: &Entry, shown: Option<&Shown>, now: UnixMs) -> Option<String> {
    let view = entry.view(now);
    let wrong = || Some(format!("shows {view:?}, not {shown:?}"));
    let (Some(view), Some(shown)) = (&view, shown) else {
        return if view.is_none() && shown.is_none() { None } else { wrong() };
    };
    if (view.kind, view.expire_at) != (shown.kind, shown.expire_at) {
        return wrong();
    }
    if let Some(string) = shown.string() {
        let seen = view.string().expect("a string");
        return if *seen == *text(string) { None } else { wrong() };
    }
    let elements = shown.parts.iter().map(|part| element(shown.kind, part)).collect();
    let expected = Fields::listed(shown.kind, elements);
    let seen = view.fields(shown.kind).expect("of that type");
    let [seen, expected] = [&*seen, &expected].map(|fields| {
        let mut elements: Vec<Element<'_>> = fields.iter().collect();
        match shown.kind {
            Kind::List => elements.iter_mut().for_each(|element| element.name.to_mut().clear()),
            Kind::Zset => {}
            // Theirs is any order.
            _ => elements.sort_by(|a, b| a.name.cmp(&b.name)),
        }
        (fields.len(), elements)
    });
    if seen == expected { None } else { wrong() }
}

fn element(kind: Kind, part: &Part) -> Element<'static> {
    let new = Element { expire_at: part.expire_at, ..Element::member(part.slot[1..].to_vec()) };
    match (&part.held, kind) {
        (Held::Number(score), Kind::Zset) => Element { score: *score as f64, ..new },
        (held, _) => Element { value: text(held).into(), ..new },
    }
}

/// As clients see it.
pub(super) fn text(held: &Held) -> Vec<u8> {
    match held {
        Held::Zero => b"0".to_vec(),
        Held::Number(number) => number.to_string().into_bytes(),
        Held::Word(word) => word.clone(),
    }
}
