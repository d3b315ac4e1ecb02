//! A part: what an entry holds of some ranges of its elements, for a replica that holds the same of
//! all others.
//!
//! Two replicas of a large collection compare digests of ranges and send each other those that
//! differ, with what they know of the whole:
//!
//! ```text
//!           knows ┐                                 ┌ the other one's, when it compared
//! Part { told: Entry { context, meta, string, elements of the ranges }, ranges, base }
//! ```
//!
//! Invariant: **whoever joins it loses nothing.** A context claims that every write it knows and that
//! is not told is removed. That is true in the ranges, of which all is told. Elsewhere the replicas
//! held the same when they compared, so what the sender knew at that time the receiver knows, too, and
//! what lives there it has. Hence three rules:
//!
//! - The context is the sender's *before* it summed up the first range, and of what it wrote since
//!   only what is told. A later one would claim writes in ranges that were compared before them.
//! - `base` is the receiver's context before it summed up its first range. A receiver that does not
//!   know all of it has forgotten something meanwhile, and takes nothing.
//! - Ranges are of the order in which all replicas hold elements: see `body/reach`.
//!
//! So ranges can be compared one after the other while both sides go on writing. What was removed in
//! a range after it was compared stays where it is until the next comparison, as if its removal had
//! not come yet.
//!
//! On the wire ranges are told. A log may be read by a cluster of another secret and so of another order:
//! there the names stand that the receiver held in them.
//!
//! Bytes:
//! ```text
//! base: a context │ what is known: a context │ type u8 │ count varint { from u64, upto u64 } …
//!                 │ count varint { name, varint-prefixed } … │ what is alive
//! ```

use std::ops::RangeInclusive;

use smallvec::SmallVec;

use crate::base::hash::HashSeed;
use crate::base::limits::PART_RANGES_MAX;
use crate::base::time::{Dot, Hlc};
use crate::base::wire::{Cursor, Put, WireError};
use crate::version::context::Context;

use super::body::Body;
use super::body::cell::register_of;
use super::body::leaf::Cell;
use super::body::reach::Reach;
use super::digest::Terms;
use super::element::{kind_of, tag};
use super::entry::{Entry, joined};
use super::register::{Register, join_dots};
use super::view::Kind;

/// What an entry holds of some ranges of its elements. See the head of this file.
#[derive(Clone, PartialEq, Debug)]
pub struct Part {
    base: Context,
    kind: Kind,
    ranges: Vec<RangeInclusive<u64>>,
    /// Elements in which there may be less than the receiver has.
    names: Vec<Vec<u8>>,
    told: Entry,
}

impl Part {
    /// The greatest timestamp that it knows.
    pub fn hlc_max(&self) -> Hlc {
        self.told.hlc_max()
    }

    /// The byte of a type.
    pub const fn code_of(kind: Kind) -> u8 {
        tag(kind)
    }

    /// The type of a collection that a byte says.
    pub const fn kind_of(code: u8) -> Option<Kind> {
        kind_of(code)
    }

    /// As [`Entry::verify`].
    pub fn verify(&self) -> bool {
        self.told.verify()
    }

    /// The elements that it tells of.
    pub(super) const fn told(&self) -> &Entry {
        &self.told
    }

    /// Whether it tells names and no ranges.
    pub fn is_named(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The same for `entry` alone, by the names that it has in the ranges. The entry must be ordered by
    /// the cluster's seed.
    #[must_use]
    pub fn named(&self, entry: &Entry) -> Part {
        let mut names = self.names.clone();
        if let Some(body) = entry.body(self.kind) {
            names.extend(self.ranges.iter().flat_map(|range| body.names_in(range)));
            names.sort_unstable();
        }
        Part { ranges: Vec::new(), names, ..self.clone() }
    }

    /// The same with a context that claims more, or a base that asks for less, to show what goes
    /// wrong then.
    #[cfg(test)]
    fn with(mut self, known: Option<&Context>, base: Option<Context>) -> Part {
        if let Some(known) = known {
            self.told.context.join(known);
        }
        Part { base: base.unwrap_or(self.base), ..self }
    }

    /// Appends the part's bytes.
    pub fn encode(&self, out: &mut impl Put) {
        self.base.encode(out);
        self.told.context.encode(out);
        out.put_u8(tag(self.kind));
        out.put_varint(self.ranges.len() as u64);
        for range in &self.ranges {
            out.put_u64(*range.start());
            out.put_u64(*range.end());
        }
        out.put_varint(self.names.len() as u64);
        self.names.iter().for_each(|name| out.put_bytes(name));
        self.told.encode_store(out);
    }

    /// Reads a part from all of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Part, WireError> {
        let mut cursor = Cursor::new(bytes);
        let base = Context::decode(&mut cursor)?;
        let context = Context::decode(&mut cursor)?;
        let kind = kind_of(cursor.u8()?).ok_or(WireError::Malformed("type"))?;
        let count = cursor.varint()?;
        if count > PART_RANGES_MAX as u64 {
            return Err(WireError::Malformed("number of ranges"));
        }
        let mut ranges: Vec<RangeInclusive<u64>> = Vec::new();
        for _ in 0..count {
            let range = cursor.u64()?..=cursor.u64()?;
            if range.is_empty() || ranges.last().is_some_and(|last| last.end() >= range.start()) {
                return Err(WireError::Malformed("ranges"));
            }
            ranges.push(range);
        }
        let mut names = Vec::new();
        for _ in 0..cursor.varint()? {
            names.push(cursor.bytes()?.to_vec());
        }
        let told = Entry::decode_store(&mut cursor, context)?;
        cursor.end()?;
        if told.bodies.iter().any(|body| body.kind() != kind) {
            return Err(WireError::Malformed("type"));
        }
        Ok(Part { base, kind, ranges, names, told })
    }
}

/// Every dot that a register's values and increments were made by.
fn all_dots(register: &Register, mut visit: impl FnMut(Dot)) {
    for value in register.siblings() {
        visit(value.dot);
        value.increments.iter().for_each(|inc| visit(inc.dot()));
    }
}

impl Entry {
    /// Type and number of elements of a large collection that can be compared in ranges: the key's
    /// only one.
    pub fn only_large(&self) -> Option<(Kind, usize)> {
        match &self.bodies[..] {
            [body] if body.is_large() => Some((body.kind(), body.len())),
            _ => None,
        }
    }

    /// The digest of the elements of a type in a range, or in its front: about `limit` elements.
    /// The entry must be ordered by `seed`.
    pub fn reach(
        &self,
        (seed, key_hash): (HashSeed, u64),
        kind: Kind,
        range: &RangeInclusive<u64>,
        limit: usize,
    ) -> Reach {
        let none = Reach { sum: crate::base::hash::Digest::NONE, count: 0, next: None };
        self.body(kind).map_or(none, |body| body.reach(Terms { seed, key_hash }, range, limit))
    }

    /// What is held of some ranges, which rise. `known` is this entry's context before its first
    /// range was compared, `base` the receiver's.
    pub fn part(
        &self,
        kind: Kind,
        ranges: Vec<RangeInclusive<u64>>,
        known: &Context,
        base: Context,
    ) -> Part {
        let body = self.body(kind).map(|body| body.only_in(&ranges));
        let bodies: SmallVec<[Body; 1]> =
            body.filter(|body| !body.is_empty()).into_iter().collect();
        let mut context = known.clone();
        let mut learn = |dot: Dot| context.insert(dot, 0);
        self.meta.iter().for_each(|meta| learn(meta.dot));
        all_dots(&self.string, &mut learn);
        for body in &bodies {
            body.cells(|_, cell| match cell {
                Cell::Single { dot, .. } => learn(*dot),
                cell => all_dots(&register_of(cell), &mut learn),
            });
        }
        let mut told = Entry::new();
        (told.context, told.meta) = (context, self.meta.clone());
        (told.string, told.bodies) = (self.string.clone(), bodies);
        Part { base, kind, ranges, names: Vec::new(), told }
    }

    /// Joins a part; whether it could be. If it tells ranges, the entry must be ordered by the
    /// cluster's seed.
    pub fn join_part(&mut self, part: &Part) -> bool {
        if !part.is_named() {
            return self.join_part(&part.named(self));
        }
        if !self.context.descends(&part.base) {
            return false;
        }
        let (our, their) = (self.context.clone(), &part.told.context);
        join_dots(&mut self.meta, &our, &part.told.meta, their, |_, _| {});
        self.string.join(&our, &part.told.string, their);
        let theirs = part.told.body(part.kind);
        if self.body(part.kind).is_some() || theirs.is_some() {
            let ours = self.body_mut(part.kind);
            for name in &part.names {
                if theirs.is_none_or(|body| body.cell(name).is_none()) {
                    ours.update(name, |held| joined(held, &our, None, their));
                }
            }
            if let Some(theirs) = theirs {
                theirs.cells(|name, cell| {
                    ours.update(name, |held| joined(held, &our, Some(cell), their));
                });
            }
        }
        self.drop_empty();
        self.context.join(their);
        true
    }
}

#[cfg(test)]
#[path = "part_tests.rs"]
mod tests;
