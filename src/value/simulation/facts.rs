//! What a replica was told, and what must be alive then. Facts are only collected: nothing is joined.

use std::collections::BTreeSet;

use crate::base::time::Dot;
use crate::version::context::Context;

use super::super::entry::Entry;
use super::super::register::Base;
use super::book::{Book, Held};

/// Something that a write made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Atom {
    Meta(Dot),
    Value(Dot),
    /// Base, and the write that added to it.
    Increment(Dot, Dot),
}

/// What a replica was told.
#[derive(Clone, Default)]
pub(super) struct Facts {
    pub(super) made: BTreeSet<Atom>,
    /// Of metas and values; what was added to a value goes with it.
    pub(super) removed: BTreeSet<Atom>,
}

impl Facts {
    pub(super) fn learn(&mut self, other: &Facts) {
        self.made.extend(&other.made);
        self.removed.extend(&other.removed);
    }

    /// What must be alive: all that was made and not removed; of increments each actor's last.
    pub(super) fn ideal(&self) -> BTreeSet<Atom> {
        // From the last one to the first.
        let mut counted = BTreeSet::new();
        let alive = |atom: &&Atom| match **atom {
            Atom::Increment(base, dot) => {
                counted.insert((base, dot.actor)) && self.is_alive(Atom::Value(base))
            }
            atom => self.is_alive(atom),
        };
        self.made.iter().rev().filter(alive).copied().collect()
    }

    fn is_alive(&self, atom: Atom) -> bool {
        self.made.contains(&atom) && !self.removed.contains(&atom)
    }

    /// Whether a claim to know `atom` is true.
    pub(super) fn knows(&self, atom: Atom) -> bool {
        self.made.contains(&atom)
            || match atom {
                Atom::Increment(base, dot) => {
                    let later = |atom: &Atom| {
                        matches!(atom, Atom::Increment(b, d)
                            if *b == base && d.actor == dot.actor && d.hlc >= dot.hlc)
                    };
                    self.removed.contains(&Atom::Value(base)) || self.made.iter().any(later)
                }
                _ => false,
            }
    }

    /// Drops the elements' values that lost against later ones, as a replica does after a join.
    pub(super) fn prune(&mut self, book: &Book) {
        let mut won = BTreeSet::new();
        for atom in self.ideal().iter().rev() {
            let Atom::Value(dot) = atom else { continue };
            let value = &book.values[dot];
            let is_element = !value.slot.is_empty() && value.held != Held::Zero;
            if is_element && !won.insert(&value.slot) {
                self.removed.insert(*atom);
            }
        }
    }
}

/// What a write with a token tells of what was there, to a replica that holds `facts`; and whether
/// something that the token has seen stays, because somebody added to it since.
pub(super) fn unseen(facts: &Facts, context: &Context, seen: &Facts) -> (Facts, bool) {
    let here = facts.ideal();
    let mut own = Facts::default();
    let mut stays = false;
    for atom in &here {
        match *atom {
            Atom::Meta(dot) if context.contains(dot) => {
                own.removed.insert(*atom);
            }
            Atom::Value(base) if context.contains(base) => {
                let mut added = here.iter().filter_map(|atom| match atom {
                    Atom::Increment(to, dot) if *to == base => Some(*dot),
                    _ => None,
                });
                if added.all(|dot| context.contains(dot)) {
                    own.removed.insert(*atom);
                } else {
                    stays = true;
                }
            }
            _ => {}
        }
    }
    if !stays {
        own.learn(seen);
        own.removed.extend(seen.ideal());
    }
    (own, stays)
}

/// Of a context, what lives in `entry`.
pub(super) fn only_known(entry: &Entry, context: &Context) -> Context {
    let mut known = Context::new();
    for atom in alive(entry) {
        let (Atom::Meta(dot) | Atom::Value(dot) | Atom::Increment(_, dot)) = atom;
        if context.contains(dot) {
            known.insert(dot, 0);
        }
    }
    known
}

/// What lives in `entry`.
pub(super) fn alive(entry: &Entry) -> BTreeSet<Atom> {
    let mut atoms: BTreeSet<_> = entry.meta().iter().map(|meta| Atom::Meta(meta.dot)).collect();
    for sibling in entry.fields().iter().flat_map(|field| field.register.siblings()) {
        assert!(sibling.base != Base::Zero || !sibling.increments.is_empty());
        atoms.insert(Atom::Value(sibling.dot));
        atoms.extend(sibling.increments.iter().map(|inc| Atom::Increment(sibling.dot, inc.dot())));
    }
    atoms
}
