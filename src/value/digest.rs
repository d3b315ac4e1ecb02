//! Digests of what a key holds, by which replicas compare.
//!
//! A digest is a wrapping sum with one term per live thing: the meta, each value, each increment.
//! A term hashes the names (dots) and not the bytes: a dot is given once, so equal dots are equal
//! values, and a write need not hash what it stores. Sums can be kept by difference, and parts of
//! a collection can be summed alone. What was removed stands in no term: a tombstone's digest is
//! [`Digest::NONE`]. The *state digest* adds one term for the context, for reads that must also
//! know that a removal is complete.
//!
//! ```text
//! term   key hash u64 │ kind u8 │ hlc u64 · actor u32 │ [base hlc u64 · actor u32]
//!        │ of an element of a collection: type u8 · name
//! ```

use smallvec::SmallVec;

use crate::base::hash::{Digest, HashSeed};
use crate::base::time::Dot;
use crate::base::wire::Put;
use crate::version::context::Mark;

use super::element::tag;
use super::view::Kind;

/// What all terms of one key share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Terms {
    pub(super) seed: HashSeed,
    pub(super) key_hash: u64,
}

/// Small enough for the stack; a long field name spills.
type Bytes = SmallVec<[u8; 128]>;

impl Terms {
    fn begin(self, kind: u8) -> Bytes {
        let mut out = Bytes::default();
        out.put_u64(self.key_hash);
        out.put_u8(kind);
        out
    }

    fn dot(out: &mut Bytes, dot: Dot) {
        out.put_u64(dot.hlc.0);
        out.put_u32(dot.actor.0);
    }

    /// A term that is only a kind and a dot: the two of every plain string, so they are written
    /// straight into place.
    fn short(self, kind: u8, dot: Dot) -> Digest {
        let mut out = [0; 21];
        out[..8].copy_from_slice(&self.key_hash.to_le_bytes());
        out[8] = kind;
        out[9..17].copy_from_slice(&dot.hlc.0.to_le_bytes());
        out[17..].copy_from_slice(&dot.actor.0.to_le_bytes());
        self.seed.digest(&out)
    }

    /// The term of a live meta.
    pub(super) fn meta(self, dot: Dot) -> Digest {
        self.short(1, dot)
    }

    /// The term of a live string.
    pub(super) fn value(self, dot: Dot) -> Digest {
        self.short(2, dot)
    }

    /// The term of a live value of a collection's element.
    pub(super) fn element(self, kind: Kind, name: &[u8], dot: Dot) -> Digest {
        // The term of every element: written straight into place, if it fits.
        let mut short = [0; 96];
        let len = 22 + name.len();
        let Some(room) = short.get_mut(..len) else {
            let mut out = self.begin(2);
            Self::dot(&mut out, dot);
            out.put_u8(tag(kind));
            out.put(name);
            return self.seed.digest(&out);
        };
        room[..8].copy_from_slice(&self.key_hash.to_le_bytes());
        room[8] = 2;
        room[9..17].copy_from_slice(&dot.hlc.0.to_le_bytes());
        room[17..21].copy_from_slice(&dot.actor.0.to_le_bytes());
        room[21] = tag(kind);
        room[22..].copy_from_slice(name);
        self.seed.digest(room)
    }

    /// The term of what `inc`'s actor added to `base`, a value of a collection's element.
    pub(super) fn element_increment(self, kind: Kind, name: &[u8], base: Dot, inc: Dot) -> Digest {
        let mut out = self.begin(3);
        Self::dot(&mut out, inc);
        Self::dot(&mut out, base);
        out.put_u8(tag(kind));
        out.put(name);
        self.seed.digest(&out)
    }

    /// The term of what `inc`'s actor added to `base`, a string.
    pub(super) fn increment(self, base: Dot, inc: Dot) -> Digest {
        let mut out = self.begin(3);
        Self::dot(&mut out, inc);
        Self::dot(&mut out, base);
        self.seed.digest(&out)
    }

    /// The term of a context; the counts for people are left out.
    pub(super) fn context(self, vector: &[Mark], cloud: &[Mark]) -> Digest {
        if vector.is_empty() && cloud.is_empty() {
            return Digest::NONE;
        }
        let mut out = self.begin(4);
        out.put_u32(vector.len() as u32);
        for mark in vector.iter().chain(cloud) {
            Self::dot(&mut out, mark.dot);
        }
        self.seed.digest(&out)
    }
}
