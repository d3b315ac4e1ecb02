//! What a replica was told of one key, as plain facts that are only collected.
//!
//! Invariant: facts never join, win or forget by themselves; a union of sets is all that happens
//! to them. The writes on a key are numbered in the order in which they happened, so a set of them
//! is a word of bits. A write makes up to three things: a meta, a value, an increment of a base;
//! and it removes metas and values that its author saw.

use crate::base::time::Dot;

/// Most writes on one key in a world.
pub(super) const WRITES_MAX: usize = 128;

/// A set of writes on one key.
pub(super) type Writes = u128;

/// The writes in `set`, first to last.
pub(super) fn each(mut set: Writes) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let first = set.trailing_zeros() as usize;
        set &= set.wrapping_sub(1);
        (first < WRITES_MAX).then_some(first)
    })
}

/// See the head of this file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Facts {
    /// Writes it was told of.
    pub(super) seen: Writes,
    /// Writes of whose metas, values, increments it was told.
    pub(super) metas: Writes,
    pub(super) values: Writes,
    pub(super) increments: Writes,
    /// Writes of whose metas and values it was told that they were removed.
    pub(super) metas_gone: Writes,
    pub(super) values_gone: Writes,
}

impl Facts {
    pub(super) fn learn(&mut self, other: &Facts) {
        self.seen |= other.seen;
        self.metas |= other.metas;
        self.values |= other.values;
        self.increments |= other.increments;
        self.metas_gone |= other.metas_gone;
        self.values_gone |= other.values_gone;
    }

    /// Whether all of `other` is known here.
    pub(super) fn covers(&self, other: &Facts) -> bool {
        let mut both = *self;
        both.learn(other);
        both == *self
    }

    pub(super) fn metas_alive(&self) -> Writes {
        self.metas & !self.metas_gone
    }

    pub(super) fn values_alive(&self) -> Writes {
        self.values & !self.values_gone
    }
}

/// One write on a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Write {
    pub(super) dot: Dot,
    /// The request that it was.
    pub(super) request: usize,
    /// What it made and removed.
    pub(super) own: Facts,
    /// The write whose value it added to.
    pub(super) base: usize,
    /// Whether its author was no replica of the key.
    pub(super) blind: bool,
    pub(super) amount: i64,
    /// Whether its coordinator has said that it is done, and whether a client was told so.
    pub(super) promised: bool,
    pub(super) acknowledged: bool,
    /// Whether W of the key's own replicas held it when that was said.
    pub(super) on_replicas: bool,
    /// Disks that held it and were lost since it was last on every replica.
    pub(super) losses: u8,
}

/// All writes on one key, in the order in which they happened.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    pub(super) writes: Vec<Write>,
}

impl History {
    pub(super) fn find(&self, dot: Dot) -> Option<usize> {
        self.writes.iter().position(|write| write.dot == dot)
    }

    /// The value that shows, of those in `values`: the greatest dot's.
    pub(super) fn winner(&self, values: Writes) -> Option<usize> {
        each(values).max_by_key(|&write| self.writes[write].dot)
    }

    /// The increments that must be alive: each actor's last to each base that is.
    pub(super) fn increments_alive(&self, facts: &Facts) -> Writes {
        let values = facts.values_alive();
        let mut alive: Writes = 0;
        for write in each(facts.increments) {
            let Write { dot, base, .. } = self.writes[write];
            let later = |&other: &usize| {
                let other = &self.writes[other];
                other.base == base && other.dot.actor == dot.actor && other.dot.hlc > dot.hlc
            };
            if values >> base & 1 == 1 && !each(facts.increments).any(|other| later(&other)) {
                alive |= 1 << write;
            }
        }
        alive
    }

    /// Whether a claim to know `write` is true of someone who was told `facts`.
    pub(super) fn knows(&self, facts: &Facts, write: usize) -> bool {
        let Write { own, dot, base, .. } = &self.writes[write];
        let untold = own.metas & !facts.metas | own.values & !facts.values;
        let made = untold >> write & 1 == 0;
        let covered = || {
            facts.values_gone >> base & 1 == 1
                || each(facts.increments).any(|other| {
                    let other = &self.writes[other];
                    other.base == *base && other.dot.actor == dot.actor && other.dot.hlc >= dot.hlc
                })
        };
        made && (own.increments == 0 || covered() || self.is_vouched_for(facts, write))
    }

    /// Whether a stand-in has overwritten the key since it added to a value there. It claims all that
    /// it wrote; what it added to others' values may be missing where it does, for increments are
    /// joined whatever the contexts say.
    fn is_vouched_for(&self, facts: &Facts, write: usize) -> bool {
        let Write { dot, blind, .. } = self.writes[write];
        let overwrites = |&other: &usize| {
            let Write { dot: later, own, .. } = self.writes[other];
            let sets = own.values >> other & 1 == 1 && own.increments == 0;
            sets && later.actor == dot.actor && later.hlc > dot.hlc
        };
        blind && each(facts.seen).any(|other| overwrites(&other))
    }

    /// What `actor`'s additions to `base` come to, up to the write `last`.
    pub(super) fn sum(&self, base: usize, last: usize) -> i64 {
        let Dot { hlc, actor } = self.writes[last].dot;
        let added = self.writes.iter().filter(|write| {
            write.own.increments != 0
                && write.base == base
                && write.dot.actor == actor
                && write.dot.hlc <= hlc
        });
        added.map(|write| write.amount).sum()
    }
}
