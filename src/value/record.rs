//! A record: one change of one key, as it is logged and as it travels (the bytes are the same).
//!
//! ```text
//! ┌────────┬──────────────┬──────────────────────────────────────────────────────────────┐
//! │ tag u8 │ key, varint- │ body                                                         │
//! │        │ prefixed     │                                                              │
//! ├────────┼──────────────┼──────────────────────────────────────────────────────────────┤
//! │ 1 +f   │ …            │ Plain     hlc u64 · actor u32 · n varint · [expire_at varint]│
//! │        │              │           · [raw_len varint] · value, varint-prefixed        │
//! │ 2      │ …            │ Whole     an entry (see `entry`)                             │
//! │ 3      │ …            │ Delta     a fragment (see `fragment`)                        │
//! │ 4      │ …            │ Delta     in its short form (see `short`)                    │
//! │ 5      │ …            │ Part      ranges of a large collection (see `part`)          │
//! └────────┴──────────────┴──────────────────────────────────────────────────────────────┘
//!   f, on Plain only:  16 it expires · 32 the value is one LZ4 block
//! ```
//!
//! Integers are little-endian. A record fills its frame: bytes left over are refused. Length and
//! checksum are the frame's. A whole entry that has the plain form may still come as Whole.

use crate::base::limits::KEY_SIZE_MAX;
use crate::base::time::{Hlc, UnixMs};
use crate::base::wire::{Cursor, Put, WireError};
use crate::version::context::decode_n;

use super::apply::Delta;
use super::entry::Entry;
use super::fragment::Fragment;
use super::part::Part;
use super::plain::Plain;
use super::register::{decode_dot, decode_packed, encode_dot};
use super::short::Short;

const PLAIN: u8 = 1;
const WHOLE: u8 = 2;
const DELTA: u8 = 3;
const SHORT: u8 = 4;
const PART: u8 = 5;
const EXPIRES: u8 = 16;
const LZ4: u8 = 32;

/// One change of one key.
#[derive(Clone, PartialEq, Debug)]
pub enum Record<'a> {
    /// The state of the key, in its tiny form; borrowed from the bytes.
    Plain(Plain<'a>),
    /// The state of the key.
    Whole(Entry),
    /// What one write changed of the state.
    Delta(Fragment),
    /// Some ranges of a large collection.
    Part(Box<Part>),
}

impl Record<'_> {
    /// Whether every LZ4 block unpacks to what it claims: for bytes that came from outside.
    pub fn verify(&self) -> bool {
        match self {
            Record::Plain(plain) => !plain.value.lz4 || plain.value.unpack().is_some(),
            Record::Whole(entry) => entry.verify(),
            Record::Delta(fragment) => fragment.verify(),
            Record::Part(part) => part.verify(),
        }
    }

    /// The greatest timestamp it names.
    pub fn hlc_max(&self) -> Hlc {
        match self {
            Record::Plain(plain) => plain.hlc_max(),
            Record::Whole(entry) => entry.hlc_max(),
            Record::Delta(fragment) => fragment.hlc_max(),
            Record::Part(part) => part.hlc_max(),
        }
    }

    /// The same and its bytes for `entry` alone, where that is something else: see [`Part::named`].
    pub fn named(&self, key: &[u8], entry: &Entry) -> Option<(Record<'static>, Vec<u8>)> {
        let Record::Part(part) = self else { return None };
        let (part, mut bytes) = (part.named(entry), Vec::new());
        encode_part(&mut bytes, key, &part);
        Some((Record::Part(Box::new(part)), bytes))
    }

    /// Joins it into `entry`.
    pub fn join_into(&self, entry: &mut Entry) {
        match self {
            Record::Plain(plain) => entry.join(&Entry::from_plain(plain)),
            Record::Whole(whole) => {
                entry.join(whole);
                entry.prune_losers();
            }
            Record::Delta(fragment) => {
                entry.join_delta(fragment);
                entry.prune_told(fragment.part());
            }
            // What is lacking for it, the next exchange finds.
            Record::Part(part) => {
                if entry.join_part(part) {
                    entry.prune_told(part.told());
                }
            }
        }
    }
}

/// Appends the record of a plain entry.
pub fn encode_plain(out: &mut impl Put, key: &[u8], plain: &Plain<'_>) {
    let expires = if plain.expire_at.is_some() { EXPIRES } else { 0 };
    let packed = if plain.value.lz4 { LZ4 } else { 0 };
    out.put_u8(PLAIN | expires | packed);
    out.put_bytes(key);
    encode_dot(out, plain.dot);
    out.put_varint(u64::from(plain.n));
    if let Some(at) = plain.expire_at {
        out.put_varint(at.0);
    }
    if plain.value.lz4 {
        out.put_varint(u64::from(plain.value.raw_len));
    }
    out.put_bytes(plain.value.bytes);
}

/// Appends the record of a whole entry; in the tiny form if it has one.
pub fn encode_whole(out: &mut impl Put, key: &[u8], entry: &Entry) {
    if let Some(plain) = entry.as_plain() {
        return encode_plain(out, key, &plain);
    }
    out.put_u8(WHOLE);
    out.put_bytes(key);
    entry.encode(out);
}

/// The same of an entry that is encoded already.
pub fn encode_encoded(out: &mut impl Put, key: &[u8], entry: &[u8]) {
    out.put_u8(WHOLE);
    out.put_bytes(key);
    out.put(entry);
}

/// Bytes of a plain string's record whose value is stored in `len` bytes (they need not be there)
/// and whose key has `key_len`.
pub fn plain_size(key_len: usize, plain: &Plain<'_>, len: usize) -> usize {
    let key = varint_size(key_len as u64) + key_len;
    let expiry = plain.expire_at.map_or(0, |at| varint_size(at.0));
    let packed = if plain.value.lz4 { varint_size(u64::from(plain.value.raw_len)) } else { 0 };
    let value = varint_size(len as u64) + len;
    1 + key + 12 + varint_size(u64::from(plain.n)) + expiry + packed + value
}

/// Bytes of the record of an entry that is encoded in `entry_len` bytes.
pub const fn encoded_size(key_len: usize, entry_len: usize) -> usize {
    1 + varint_size(key_len as u64) + key_len + entry_len
}

const fn varint_size(value: u64) -> usize {
    (70 - (value | 1).leading_zeros() as usize) / 7
}

/// Appends the record of a fragment.
pub fn encode_delta(out: &mut impl Put, key: &[u8], fragment: &Fragment) {
    out.put_u8(DELTA);
    out.put_bytes(key);
    fragment.encode(out);
}

/// Appends the record of a fragment of which these are the bytes in its short form.
fn encode_short(out: &mut impl Put, key: &[u8], short: &[u8]) {
    out.put_u8(SHORT);
    out.put_bytes(key);
    out.put(short);
}

/// Appends the record of a part.
pub fn encode_part(out: &mut impl Put, key: &[u8], part: &Part) {
    out.put_u8(PART);
    out.put_bytes(key);
    part.encode(out);
}

/// Appends the record of what a change made of `entry`.
pub fn encode_made(out: &mut impl Put, key: &[u8], delta: &Delta, entry: &Entry) {
    match delta {
        Delta::Whole => encode_whole(out, key, entry),
        Delta::Fragment(fragment) => encode_delta(out, key, fragment),
        Delta::Short(short) => encode_short(out, key, short),
    }
}

/// The key of a record, without reading the rest.
pub fn decode_key(bytes: &[u8]) -> Result<&[u8], WireError> {
    let mut cursor = Cursor::new(bytes);
    cursor.u8()?;
    key(&mut cursor)
}

/// Reads a record from all of `bytes`: its key and its change.
///
/// LZ4 blocks are not unpacked here: see [`Record::verify`].
pub fn decode(bytes: &[u8]) -> Result<(&[u8], Record<'_>), WireError> {
    let mut cursor = Cursor::new(bytes);
    let tag = cursor.u8()?;
    let key = key(&mut cursor)?;
    let record = match tag {
        WHOLE => Record::Whole(Entry::decode(cursor.rest())?),
        DELTA => Record::Delta(Fragment::decode(cursor.rest())?),
        PART => Record::Part(Box::new(Part::decode(cursor.rest())?)),
        SHORT => Record::Delta(Short::decode(cursor.rest())?.into_fragment()),
        _ if tag & !(EXPIRES | LZ4) == PLAIN => Record::Plain(plain(cursor, tag)?),
        _ => return Err(WireError::Malformed("record tag")),
    };
    Ok((key, record))
}

fn key<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], WireError> {
    let key = cursor.bytes()?;
    if key.len() > KEY_SIZE_MAX { Err(WireError::Malformed("length of a key")) } else { Ok(key) }
}

fn plain(mut cursor: Cursor<'_>, tag: u8) -> Result<Plain<'_>, WireError> {
    let dot = decode_dot(&mut cursor)?;
    if dot.hlc == Hlc::ZERO {
        return Err(WireError::Malformed("dot"));
    }
    let n = decode_n(&mut cursor)?;
    let expires = tag & EXPIRES != 0;
    let expire_at = if expires { Some(UnixMs(cursor.varint()?)) } else { None };
    let value = decode_packed(&mut cursor, tag & LZ4 != 0)?;
    cursor.end()?;
    Ok(Plain { dot, n, expire_at, value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::Actor;
    use crate::base::time::Dot;
    use crate::value::packed::Packed;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sizes_are_those_of_the_bytes(
            key in proptest::collection::vec(any::<u8>(), 0..300),
            value in proptest::collection::vec(any::<u8>(), 0..300),
            (n, bits) in any::<(u32, u64)>(),
            shift in 0u32..64,
            (expires, lz4) in any::<(bool, bool)>(),
        ) {
            let (number, expire_at) = (bits >> shift, Some(UnixMs(bits >> shift)));
            let plain = Plain {
                dot: Dot::new(Hlc(1), Actor(1)),
                n,
                expire_at: expire_at.filter(|_| expires),
                value: Packed { raw_len: number as u32, lz4, bytes: &value },
            };
            let mut out = Vec::new();
            encode_plain(&mut out, &key, &plain);
            prop_assert_eq!(plain_size(key.len(), &plain, value.len()), out.len());
            out.clear();
            encode_encoded(&mut out, &key, &value);
            prop_assert_eq!(encoded_size(key.len(), value.len()), out.len());
        }
    }
}
