//! A register: the concurrent values of one field, and what was counted on top of each.
//!
//! Increments are bound to the *base* (the value, named by its dot) that they were added to, kept
//! per actor as a sum; overwriting the base takes its increments with it. A base that nobody set
//! (INCR on nothing) is a *zero base*.
//!
//! ```text
//! sibling  dot (hlc 7, n1)   base "100"   increments  n1: +3   n2: +5      "108"
//! sibling  dot (hlc 9, n3)   zero base    increments  n3: +2                 "2"
//!                                                              visible:    "110"
//! ```
//!
//! **Which value is visible.** Without a zero base, the one of the greatest dot (last writer
//! wins). A zero base says "add to whatever is there", so all of them are added to the greatest
//! set base, if that is a number: `SET 100` beside a concurrent `INCR` shows 101, as the serial
//! order SET, INCR would. Beside a base that is no number the greatest dot wins.
//!
//! The usual embedded counter keeps one dot per actor and gives back increments that a concurrent
//! reset had seen (Almeida and others on `riak_dt_emcntr`); bound ones cannot come back.
//!
//! Invariant: siblings are sorted by dot, increments by actor; a register that is stored holds at
//! least one sibling. A base is never changed under its dot.
//!
//! Bytes of a register:
//! ```text
//! sibling count varint │ { dot │ form u8 │ [ raw_len varint if LZ4 ] [ bytes if stored ]
//!                        increment count varint │ { actor u32 · hlc u64 · amount } … } …
//! form    0 zero base · 1 as it came · 2 one LZ4 block; +4: expire_at varint follows
//! amount  0 · zigzag varint   1 · i128 (beyond 64 bits)   2 · f64 · f64
//! ```

use bytes::Bytes;
use smallvec::SmallVec;

use crate::base::id::Actor;
use crate::base::limits::VALUE_SIZE_MAX;
use crate::base::time::{Dot, Hlc, UnixMs};
use crate::base::wire::{Cursor, Put, WireError};
use crate::version::context::Context;

use super::change::Amount;
use super::number::{
    FLOAT_TEXT_SIZE_MAX, add_amounts, amount_text, bounded, is_finite, is_normal, parse_float,
    parse_int,
};
use super::packed::{Packed, pack};
use super::view::Body;

/// Of a form: it expires.
const EXPIRES: u8 = 4;

/// A string's stored bytes, owned (shared, when cloned).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stored {
    raw_len: u32,
    lz4: bool,
    bytes: Bytes,
}

impl Stored {
    /// Packs the string `raw` if that pays.
    pub fn pack(raw: &[u8]) -> Stored {
        let mut scratch = Vec::new();
        Stored::copy(&pack(raw, &mut scratch))
    }

    /// An owned copy.
    pub fn copy(packed: &Packed<'_>) -> Stored {
        let bytes = Bytes::copy_from_slice(packed.bytes);
        Stored { raw_len: packed.raw_len, lz4: packed.lz4, bytes }
    }

    /// The same, borrowed.
    pub fn as_packed(&self) -> Packed<'_> {
        Packed { raw_len: self.raw_len, lz4: self.lz4, bytes: &self.bytes }
    }
}

/// What increments are added to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Base {
    /// Nobody set it: counting began on nothing.
    Zero,
    /// A string that was set.
    Stored(Stored),
}

/// What one actor added to a base, all in all.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Increment {
    /// Who added.
    pub actor: Actor,
    /// Its last addition.
    pub hlc: Hlc,
    /// The sum of all its additions to this base up to there.
    pub sum: Amount,
}

impl Increment {
    /// The write that added last.
    pub const fn dot(&self) -> Dot {
        Dot::new(self.hlc, self.actor)
    }
}

/// One of the concurrent values.
#[derive(Clone, PartialEq, Debug)]
pub struct Sibling {
    /// The write that made the base.
    pub dot: Dot,
    /// What was set.
    pub base: Base,
    /// What was added to it, sorted by actor.
    pub increments: Vec<Increment>,
    /// When it expires; only of a hash's fields, of all else the key's meta tells.
    pub expire_at: Option<UnixMs>,
}

impl Sibling {
    /// A value without increments.
    pub const fn new(dot: Dot, base: Base) -> Sibling {
        Sibling { dot, base, increments: Vec::new(), expire_at: None }
    }

    /// A zero base to which its own write has added.
    pub fn counted(dot: Dot, amount: Amount) -> Sibling {
        let mut zero = Sibling::new(dot, Base::Zero);
        zero.add(dot, amount);
        zero
    }

    /// Counts further: `dot`'s actor adds `amount`.
    pub fn add(&mut self, dot: Dot, amount: Amount) {
        match self.increments.binary_search_by_key(&dot.actor, |inc| inc.actor) {
            Ok(at) => {
                let inc = &mut self.increments[at];
                inc.sum = bounded(add_amounts(inc.sum, amount));
                inc.hlc = dot.hlc;
            }
            Err(at) => {
                let sum = bounded(add_amounts(Amount::Int(0), amount));
                self.increments.insert(at, Increment { actor: dot.actor, hlc: dot.hlc, sum });
            }
        }
    }

    /// Whether `context` knows all of it: the base, and everything that was added.
    pub(super) fn is_seen(&self, context: &Context) -> bool {
        let added = || self.increments.iter().all(|inc| context.contains(inc.dot()));
        context.contains(self.dot) && added()
    }

    /// The sum of what was added; nothing when nothing was.
    fn added(&self) -> Option<Amount> {
        self.increments.iter().map(|inc| inc.sum).reduce(add_amounts)
    }

    /// The base as a number.
    fn number(&self) -> Option<Amount> {
        match &self.base {
            Base::Zero => Some(Amount::Int(0)),
            Base::Stored(stored) if stored.as_packed().len() >= FLOAT_TEXT_SIZE_MAX => None,
            Base::Stored(stored) => {
                let text = stored.as_packed().unpack()?;
                let int = parse_int(&text).map(|int| Amount::Int(i128::from(int)));
                // Infinity parses, but nothing can be added to it.
                int.or_else(|| parse_float(&text).filter(|float| is_finite(*float)))
            }
        }
    }

    /// What this sibling alone would show.
    pub fn body(&self) -> Body<'_> {
        self.body_with(None)
    }

    /// What this sibling shows with `more` added. Nothing can be added to a base that is no
    /// number: commands refuse to, but a merge may bring it about, and then the base shows.
    fn body_with(&self, more: Option<Amount>) -> Body<'_> {
        let added = [self.added(), more].into_iter().flatten().reduce(add_amounts);
        match (&self.base, added) {
            (Base::Stored(stored), None) => Body::Stored(stored.as_packed()),
            (Base::Stored(stored), Some(added)) => match self.number() {
                Some(base) => Body::Made(amount_text(bounded(add_amounts(base, added)))),
                None => Body::Stored(stored.as_packed()),
            },
            (Base::Zero, added) => {
                Body::Made(amount_text(bounded(added.unwrap_or(Amount::Int(0)))))
            }
        }
    }

    /// Takes over increments that are further than ours.
    fn join(&mut self, other: &Sibling) {
        for inc in &other.increments {
            match self.increments.binary_search_by_key(&inc.actor, |ours| ours.actor) {
                Ok(at) if self.increments[at].hlc < inc.hlc => self.increments[at] = *inc,
                Ok(_) => {}
                Err(at) => self.increments.insert(at, *inc),
            }
        }
    }

    /// Bytes of what was set, as it is stored.
    pub(super) fn stored_len(&self) -> usize {
        match &self.base {
            Base::Zero => 0,
            Base::Stored(stored) => stored.bytes.len(),
        }
    }

    /// Heap bytes.
    fn memory(&self) -> usize {
        self.stored_len() + size_of_val(&self.increments[..])
    }
}

/// The concurrent values of one field. See the head of this file.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Register {
    siblings: SmallVec<[Sibling; 1]>,
}

impl Register {
    /// A register that holds one value.
    pub fn of(sibling: Sibling) -> Register {
        Register { siblings: SmallVec::from_buf([sibling]) }
    }

    /// A register that holds one value on which nobody counted.
    pub(super) fn single(dot: Dot, value: &Packed<'_>, expire_at: Option<UnixMs>) -> Register {
        let base = Base::Stored(Stored::copy(value));
        Register::of(Sibling { expire_at, ..Sibling::new(dot, base) })
    }

    /// The only value, if there is one on which nobody counted.
    pub(super) fn as_single(&self) -> Option<(Dot, &Stored, Option<UnixMs>)> {
        match &self.siblings[..] {
            [Sibling { dot, base: Base::Stored(stored), increments, expire_at }]
                if increments.is_empty() =>
            {
                Some((*dot, stored, *expire_at))
            }
            _ => None,
        }
    }

    /// The concurrent values, sorted by dot.
    pub fn siblings(&self) -> &[Sibling] {
        &self.siblings
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.siblings.is_empty()
    }

    /// The value of the greatest dot: what an increment is bound to.
    pub(super) fn winner_mut(&mut self) -> Option<&mut Sibling> {
        self.siblings.last_mut()
    }

    /// What is visible; `None` when nothing is held.
    pub fn body(&self) -> Option<Body<'_>> {
        let winner = self.siblings.last()?;
        let zeros = || self.siblings.iter().filter(|sibling| sibling.base == Base::Zero);
        if self.siblings.len() == 1 || zeros().next().is_none() {
            return Some(winner.body());
        }
        let counted = zeros().filter_map(Sibling::added).reduce(add_amounts);
        let set = self.siblings.iter().rfind(|sibling| sibling.base != Base::Zero);
        Some(match set {
            Some(set) if set.number().is_some() => set.body_with(counted),
            Some(_) if winner.base != Base::Zero => winner.body(),
            _ => Body::Made(amount_text(bounded(counted.unwrap_or(Amount::Int(0))))),
        })
    }

    /// Whether anything shows at `now`: a field ends with its greatest set value.
    pub(super) fn is_visible(&self, now: UnixMs) -> bool {
        let set = self.siblings.iter().rfind(|sibling| sibling.base != Base::Zero);
        !self.is_empty() && set.and_then(|set| set.expire_at).is_none_or(|at| at > now)
    }

    /// When the visible value expires.
    pub(super) fn expire_at(&self) -> Option<UnixMs> {
        let set = self.siblings.iter().rfind(|sibling| sibling.base != Base::Zero);
        set.and_then(|set| set.expire_at)
    }

    /// The score of a sorted set's member: the greatest set one and all that was added to it, and to
    /// zero bases. A value that is no score, which only damage can bring about, counts as zero.
    pub(super) fn score(&self) -> f64 {
        let set = self.siblings.iter().rfind(|sibling| sibling.base != Base::Zero);
        let added = self
            .siblings
            .iter()
            .filter(|sibling| sibling.base == Base::Zero || Some(sibling.dot) == set.map(|s| s.dot))
            .filter_map(Sibling::added)
            .reduce(add_amounts);
        let base = match set.map(|set| &set.base) {
            Some(Base::Stored(stored)) => {
                stored.bytes[..].try_into().map_or(0.0, f64::from_le_bytes)
            }
            _ => 0.0,
        };
        match added {
            None => base,
            Some(_) if !base.is_finite() => base,
            Some(added) => match add_amounts(Amount::Float(base, 0.0), added) {
                Amount::Int(sum) => sum as f64,
                Amount::Float(hi, lo) => hi + lo,
            },
        }
    }

    /// The values that wait for somebody to choose, oldest first; the last one is the visible one.
    /// Zero bases count as one value, or as none if they are added to the greatest set base: to
    /// add is no conflict.
    pub fn values(&self) -> Vec<Body<'_>> {
        let Some(visible) = self.body() else { return Vec::new() };
        let set = || self.siblings.iter().filter(|sibling| sibling.base != Base::Zero);
        let zeros = self.siblings.iter().filter(|sibling| sibling.base == Base::Zero);
        let counted = zeros.filter_map(Sibling::added).reduce(add_amounts);
        let last = set().next_back();
        let takes_zeros = last.is_some_and(|last| last.number().is_some());
        let is_last = self.siblings.last().map(|sibling| sibling.dot);
        let shows_set = takes_zeros || (last.is_some() && last.map(|last| last.dot) == is_last);
        let mut values: Vec<_> = set().map(Sibling::body).collect();
        if shows_set {
            values.pop();
            if let Some(counted) = counted.filter(|_| !takes_zeros) {
                values.push(Body::Made(amount_text(bounded(counted))));
            }
        }
        values.push(visible);
        values
    }

    /// Joins `theirs`, of which a replica that knew `their` context held this; ours is `our`.
    pub(super) fn join(&mut self, our: &Context, theirs: &Register, their: &Context) {
        join_dots(&mut self.siblings, our, &theirs.siblings, their, Sibling::join);
    }

    /// Adds a value beside the others.
    pub(super) fn push(&mut self, sibling: Sibling) {
        let at = self.siblings.partition_point(|other| other.dot < sibling.dot);
        self.siblings.insert(at, sibling);
    }

    /// Keeps the siblings that `keep` says.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Sibling) -> bool) {
        self.siblings.retain(|sibling| keep(sibling));
    }

    /// Drops the set values that are not visible. A local mutator, never part of the join:
    /// inside, the join would not be associative.
    pub fn prune_losers(&mut self) {
        let last = self.siblings.iter().rfind(|sibling| sibling.base != Base::Zero);
        let last = last.map(|sibling| sibling.dot);
        self.siblings.retain(|sibling| sibling.base == Base::Zero || Some(sibling.dot) == last);
    }

    /// Heap bytes.
    pub(super) fn memory(&self) -> usize {
        let spilled = if self.siblings.spilled() { size_of_val(&self.siblings[..]) } else { 0 };
        spilled + self.siblings.iter().map(Sibling::memory).sum::<usize>()
    }

    /// Appends the register's bytes.
    pub(super) fn encode(&self, out: &mut impl Put) {
        out.put_varint(self.siblings.len() as u64);
        for sibling in &self.siblings {
            encode_dot(out, sibling.dot);
            let expires = if sibling.expire_at.is_some() { EXPIRES } else { 0 };
            let form = match &sibling.base {
                Base::Zero => 0,
                Base::Stored(stored) => 1 + u8::from(stored.lz4),
            };
            out.put_u8(form | expires);
            if let Some(at) = sibling.expire_at {
                out.put_varint(at.0);
            }
            match &sibling.base {
                Base::Zero => {}
                Base::Stored(stored) => {
                    if stored.lz4 {
                        out.put_varint(u64::from(stored.raw_len));
                    }
                    out.put_bytes(&stored.bytes);
                }
            }
            out.put_varint(sibling.increments.len() as u64);
            for inc in &sibling.increments {
                out.put_u32(inc.actor.0);
                out.put_u64(inc.hlc.0);
                encode_amount(out, inc.sum);
            }
        }
    }

    /// Reads a register. One that is not in canonical form is refused.
    pub(super) fn decode(cursor: &mut Cursor<'_>) -> Result<Register, WireError> {
        let mut register = Register::default();
        for _ in 0..cursor.varint()? {
            let dot = decode_dot(cursor)?;
            let form = cursor.u8()?;
            let expires = form & EXPIRES != 0;
            let expire_at = if expires { Some(UnixMs(cursor.varint()?)) } else { None };
            let base = match form & !EXPIRES {
                0 => Base::Zero,
                form @ (1 | 2) => Base::Stored(Stored::copy(&decode_packed(cursor, form == 2)?)),
                _ => return Err(WireError::Malformed("form of a value")),
            };
            let mut sibling = Sibling { expire_at, ..Sibling::new(dot, base) };
            for _ in 0..cursor.varint()? {
                let actor = Actor(cursor.u32()?);
                let hlc = Hlc(cursor.u64()?);
                if sibling.increments.last().is_some_and(|last| last.actor >= actor) {
                    return Err(WireError::Malformed("order of increments"));
                }
                let sum = decode_amount(cursor)?;
                sibling.increments.push(Increment { actor, hlc, sum });
            }
            if register.siblings.last().is_some_and(|last| last.dot >= dot) {
                return Err(WireError::Malformed("order of siblings"));
            }
            register.siblings.push(sibling);
        }
        if register.is_empty() {
            return Err(WireError::Malformed("empty register"));
        }
        Ok(register)
    }
}

/// Something that a dot names and a context may have removed.
pub(super) trait Dotted: Clone {
    /// The write that made it.
    fn dot(&self) -> Dot;
}

impl Dotted for Sibling {
    fn dot(&self) -> Dot {
        self.dot
    }
}

/// The join of two observed-remove stores, both sorted by dot: what both hold stays, and so does
/// what one holds and the other has never known. What the other knew and no longer holds it has
/// removed. `merge` joins what both hold.
pub(super) fn join_dots<T: Dotted>(
    ours: &mut SmallVec<[T; 1]>,
    our: &Context,
    theirs: &[T],
    their: &Context,
    merge: impl Fn(&mut T, &T),
) where
    [T; 1]: smallvec::Array<Item = T>,
{
    let find = |items: &[T], dot: Dot| items.binary_search_by_key(&dot, T::dot);
    let brought: SmallVec<[&T; 4]> = theirs
        .iter()
        .filter(|item| find(ours, item.dot()).is_err() && !our.contains(item.dot()))
        .collect();
    ours.retain(|item| match find(theirs, item.dot()) {
        Ok(at) => {
            merge(item, &theirs[at]);
            true
        }
        Err(_) => !their.contains(item.dot()),
    });
    for item in brought {
        let at = ours.partition_point(|other| other.dot() < item.dot());
        ours.insert(at, item.clone());
    }
}

/// Appends a dot: hlc u64, actor u32.
pub(super) fn encode_dot(out: &mut impl Put, dot: Dot) {
    out.put_u64(dot.hlc.0);
    out.put_u32(dot.actor.0);
}

/// Reads a dot.
pub(super) fn decode_dot(cursor: &mut Cursor<'_>) -> Result<Dot, WireError> {
    Ok(Dot::new(Hlc(cursor.u64()?), Actor(cursor.u32()?)))
}

/// Reads a stored string: its raw length if it is an LZ4 block, then its bytes.
///
/// An LZ4 block grows at most 255-fold, so one that claims more is refused here, before anybody
/// makes room for it.
pub(super) fn decode_packed<'a>(
    cursor: &mut Cursor<'a>,
    lz4: bool,
) -> Result<Packed<'a>, WireError> {
    let claimed = if lz4 { Some(cursor.varint()?) } else { None };
    let bytes = cursor.bytes()?;
    let raw_len = claimed.unwrap_or(bytes.len() as u64);
    if raw_len > VALUE_SIZE_MAX as u64 || (lz4 && raw_len > bytes.len() as u64 * 255) {
        return Err(WireError::Malformed("length of a value"));
    }
    Ok(Packed { raw_len: raw_len as u32, lz4, bytes })
}

fn encode_amount(out: &mut impl Put, amount: Amount) {
    match amount {
        Amount::Int(sum) => match i64::try_from(sum) {
            Ok(small) => {
                out.put_u8(0);
                out.put_varint((small << 1 ^ small >> 63) as u64);
            }
            Err(_) => {
                out.put_u8(1);
                out.put_u128(sum as u128);
            }
        },
        Amount::Float(hi, lo) => {
            out.put_u8(2);
            out.put_u64(hi.to_bits());
            out.put_u64(lo.to_bits());
        }
    }
}

fn decode_amount(cursor: &mut Cursor<'_>) -> Result<Amount, WireError> {
    const MALFORMED: WireError = WireError::Malformed("amount");
    match cursor.u8()? {
        0 => {
            let zigzag = cursor.varint()?;
            Ok(Amount::Int(i128::from((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))))
        }
        1 => {
            let sum = cursor.u128()? as i128;
            if i64::try_from(sum).is_ok() { Err(MALFORMED) } else { Ok(Amount::Int(sum)) }
        }
        2 => {
            let (hi, lo) = (f64::from_bits(cursor.u64()?), f64::from_bits(cursor.u64()?));
            if is_normal(hi, lo) { Ok(Amount::Float(hi, lo)) } else { Err(MALFORMED) }
        }
        _ => Err(MALFORMED),
    }
}
