//! The tiny form: a set string whose context is its own dot.
//!
//! Most keys are this: one value, written by one node, nothing concurrent, nothing counted. Then
//! dot, count, expiry and bytes say all that the full `Entry` would:
//!
//! ```text
//! Plain { dot (h, a), n, expire_at, value }
//!   = Entry { context {a: (h, n)} · meta {dot, String, expire_at} · "" → {dot, value} }
//! ```
//!
//! Invariant: whatever is answered here without building an entry equals the entry's own answer;
//! property tests hold it to that.

use crate::base::hash::{Digest, HashSeed};
use crate::base::time::{Dot, Hlc, UnixMs};
use crate::version::context::Mark;

use super::change::Expire;
use super::digest::Terms;
use super::packed::Packed;
use super::view::{Body, Kind, View};

/// Bytes that a plain key takes in memory beside key and value.
pub const PLAIN_OVERHEAD: usize = 32;

/// A plain string. See the head of this file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plain<'a> {
    /// The write that set it.
    pub dot: Dot,
    /// How many writes on the key its author had then made.
    pub n: u32,
    /// When it expires.
    pub expire_at: Option<UnixMs>,
    /// The string.
    pub value: Packed<'a>,
}

/// What comes of joining a plain entry into another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlainJoin {
    /// The existing one.
    Keep,
    /// The incoming one.
    Replace,
    /// Both: they are concurrent, and the full form must hold them.
    NeedsEntry,
}

impl<'a> Plain<'a> {
    /// What commands see at `now`.
    pub fn view(&self, now: UnixMs) -> Option<View<'a>> {
        self.is_visible(now).then(|| View {
            kind: Kind::String,
            expire_at: self.expire_at,
            memory: PLAIN_OVERHEAD + self.value.bytes.len(),
            body: Body::Stored(self.value),
        })
    }

    /// Whether it has not expired at `now`.
    pub fn is_visible(&self, now: UnixMs) -> bool {
        self.expire_at.is_none_or(|at| at > now)
    }

    /// The greatest timestamp of any known write.
    pub const fn hlc_max(&self) -> Hlc {
        self.dot.hlc
    }

    /// As [`Entry::digest`](super::entry::Entry::digest).
    pub fn digest(&self, seed: HashSeed, key_hash: u64) -> Digest {
        let terms = Terms { seed, key_hash };
        terms.meta(self.dot).plus(terms.value(self.dot))
    }

    /// As [`Entry::state_digest`](super::entry::Entry::state_digest).
    pub fn state_digest(&self, seed: HashSeed, key_hash: u64) -> Digest {
        let context = [Mark { dot: self.dot, n: self.n }];
        self.digest(seed, key_hash).plus(Terms { seed, key_hash }.context(&context, &[]))
    }
}

/// The count `n` of a new plain entry, if a replica's SET as `dot` over `existing` (`None`: the
/// key was never written, there is not even a tombstone) makes one. Otherwise the context has
/// more to remember than the dot, and [`Entry::apply`](super::entry::Entry::apply) does it.
pub fn put_over(existing: Option<&Plain<'_>>, dot: Dot) -> Option<u32> {
    match existing {
        None => Some(1),
        Some(plain) => (plain.dot.actor == dot.actor).then(|| plain.n.saturating_add(1)),
    }
}

/// The expiry of a string that is set over `existing` at `now`.
pub fn expire_after(existing: Option<&Plain<'_>>, expire: Expire, now: UnixMs) -> Option<UnixMs> {
    match expire {
        Expire::Clear => None,
        Expire::At(at) => Some(at),
        Expire::Keep => existing.filter(|plain| plain.is_visible(now))?.expire_at,
    }
}

/// What comes of joining `incoming` into `existing`.
pub fn join_plain(existing: &Plain<'_>, incoming: &Plain<'_>) -> PlainJoin {
    if existing.dot.actor != incoming.dot.actor {
        PlainJoin::NeedsEntry
    } else if existing.dot.hlc < incoming.dot.hlc {
        PlainJoin::Replace
    } else {
        PlainJoin::Keep
    }
}
