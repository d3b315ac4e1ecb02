//! A fragment: the part of an entry that one write changed.
//!
//! It is a small entry in its own right, whose context is a handful of single dots: the write
//! itself, what it removed, and what it built on. **It tells all that is alive of every dot it
//! names**; then its join is the entries' own, so fragments may come in any order, twice, and
//! before the writes they build on.
//!
//! ```text
//! SET k 5      dot 1   whole                        (not arrived yet)
//! INCR k       dot 2   fragment { names 1, 2 │ meta 1 │ value 1 "5" with +1 }
//! EXPIRE k 9   dot 3   fragment { names 1, 3 │ meta 3 │ value 1 "5" }         meta 1 is gone
//! EXPIRE k 9   dot 4   fragment { names 3, 4 │ meta 4 }                       meta 3 is gone
//! ```
//!
//! An EXPIRE carries the value only while meta and value were made by one write; if it did not,
//! its receiver could not tell "dot 1's meta is removed" from "dot 1 is known", and would take the
//! SET that follows for removed.
//!
//! Of a collection it tells element by element, and names those that are gone, so that a receiver
//! need not look at all the others.
//!
//! `prev` is the author's previous write on the key: the receiver's version vector rises only if
//! it holds that one, and else keeps the dot single. A stand-in's `prev` is not known.
//!
//! Bytes:
//! ```text
//! dot │ n varint │ prev: 0 unknown · 1 then hlc u64 │ cloud of the other named dots │ what is alive
//!     │ gone count varint │ { type u8 │ name, varint-prefixed } …
//! ```

use crate::base::time::{Dot, Hlc};
use crate::base::wire::{Cursor, Put, WireError};
use crate::version::context::{Context, Mark, decode_cloud, decode_n, encode_cloud};

use super::element::{kind_of, tag};
use super::entry::Entry;
use super::register::{decode_dot, encode_dot};
use super::view::Kind;

/// The part of an entry that one write changed. See the head of this file.
#[derive(Clone, PartialEq, Debug)]
pub struct Fragment {
    dot: Dot,
    prev: Option<Hlc>,
    /// Its context is a cloud only, and holds `dot`.
    part: Entry,
    /// Elements of which it tells, and of which nothing it names is alive.
    gone: Vec<(Kind, Vec<u8>)>,
}

impl Fragment {
    pub(super) fn new(
        dot: Dot,
        prev: Option<Hlc>,
        part: Entry,
        mut gone: Vec<(Kind, Vec<u8>)>,
    ) -> Fragment {
        // In one order, however they lay in memory.
        gone.sort_unstable();
        debug_assert!(part.context().vector().is_empty() && part.context().contains(dot));
        Fragment { dot, prev, part, gone }
    }

    /// The write.
    pub const fn dot(&self) -> Dot {
        self.dot
    }

    /// The author's count of its writes on the key.
    pub fn n(&self) -> u32 {
        self.part.context().n(self.dot.actor)
    }

    /// The author's write on the key before this one; zero for none, `None` if nobody knows.
    pub const fn prev(&self) -> Option<Hlc> {
        self.prev
    }

    /// The greatest timestamp that it names.
    pub fn hlc_max(&self) -> Hlc {
        self.part.hlc_max()
    }

    /// Every write that it names: itself, what it removed, what it built on.
    pub fn names(&self) -> impl Iterator<Item = Dot> + '_ {
        self.part.context().cloud().iter().map(|mark| mark.dot)
    }

    /// The same as if it were its author's first, to show what goes wrong then.
    #[cfg(test)]
    pub(crate) fn without_prev(self) -> Fragment {
        Fragment { prev: Some(Hlc::ZERO), ..self }
    }

    /// The small entry to join.
    pub(super) const fn part(&self) -> &Entry {
        &self.part
    }

    /// Elements of which nothing is alive that this names.
    pub(super) fn gone(&self) -> &[(Kind, Vec<u8>)] {
        &self.gone
    }

    /// Whether every LZ4 block unpacks to what it claims: for bytes that came from outside.
    pub fn verify(&self) -> bool {
        self.part.verify()
    }

    /// Appends the fragment's bytes.
    pub fn encode(&self, out: &mut impl Put) {
        encode_dot(out, self.dot);
        let named = self.part.context().cloud();
        let own = named.iter().find(|mark| mark.dot == self.dot);
        out.put_varint(u64::from(own.map_or(0, |mark| mark.n)));
        match self.prev {
            None => out.put_u8(0),
            Some(prev) => {
                out.put_u8(1);
                out.put_u64(prev.0);
            }
        }
        let others = named.iter().filter(|mark| mark.dot != self.dot);
        encode_cloud(out, others, named.len() - 1);
        self.part.encode_store(out);
        out.put_varint(self.gone.len() as u64);
        for (kind, name) in &self.gone {
            out.put_u8(tag(*kind));
            out.put_bytes(name);
        }
    }

    /// Reads a fragment from all of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Fragment, WireError> {
        let mut cursor = Cursor::new(bytes);
        let dot = decode_dot(&mut cursor)?;
        let own = Mark { dot, n: decode_n(&mut cursor)? };
        let prev = match cursor.u8()? {
            0 => None,
            1 => Some(Hlc(cursor.u64()?)),
            _ => return Err(WireError::Malformed("previous write")),
        };
        let others = decode_cloud(&mut cursor)?;
        let repeated = others.iter().any(|mark| mark.dot == dot);
        if repeated || dot.hlc == Hlc::ZERO || prev.is_some_and(|prev| prev >= dot.hlc) {
            return Err(WireError::Malformed("dot of a fragment"));
        }
        let mut context = Context::new();
        for mark in others.iter().chain([&own]) {
            context.insert(mark.dot, mark.n);
        }
        let part = Entry::decode_store(&mut cursor, context)?;
        let mut gone = Vec::new();
        for _ in 0..cursor.varint()? {
            let kind = kind_of(cursor.u8()?).ok_or(WireError::Malformed("type"))?;
            gone.push((kind, cursor.bytes()?.to_vec()));
        }
        cursor.end()?;
        Ok(Fragment { dot, prev, part, gone })
    }
}
