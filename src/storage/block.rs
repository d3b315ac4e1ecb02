//! One key in one allocation: the only place of the house that touches raw memory.
//!
//! A keyspace of millions of small strings is mostly overhead unless each entry is one block
//! behind one thin pointer (the figures are in `docs/performance.md`). The block:
//!
//! ```text
//! flags u8 | key_len u8 or u32 | body_len u8 or u32 | body… | key | value or entry
//!
//! flags: 1 WIDE_KEY   key_len takes four bytes       8 EXPIRES  expire_at u64 is present
//!        2 WIDE_BODY  body_len takes four bytes     16 LZ4      raw_len u32 is present
//!        4 WIDE_N     n takes four bytes            32 ENTRY    an encoded entry, no plain fields
//!
//! plain fields, in this order: hlc u64 | actor u32 | n u8 or u32 | [expire_at u64] | [raw_len u32]
//! ```
//!
//! A 16-byte key with a 64-byte value takes 16 bytes more: 96, exactly a size class.
//!
//! A table's slot is seven bytes: 48 of address (more user-space addresses have not on the
//! platforms Kvorum runs on; checked at every allocation) and the upper 8 bits of the key's hash,
//! which let a scan or an exchange pass over blocks without touching them. The eighth byte of a
//! pointer would cost two bytes a key in tables that are half full.
//!
//! # Why the `unsafe` here is sound
//!
//! * `Block` owns its allocation: it is made in [`Block::allocate`] only, freed in `Drop` only, is
//!   neither `Copy` nor `Clone`, and hands out slices bound to `&self` or `&mut self`.
//! * The length of the allocation is a function of the header ([`Header::read`]), which is written
//!   before the block is seen by anyone and rewritten only by [`Block::overwrite`], which refuses a
//!   change of any length.
//! * The address is kept as bytes, so its provenance is exposed when the block is made and taken up
//!   again when it is used.
//! * The bytes are fully initialised before `Block::allocate` returns.
#![allow(unsafe_code)]

use std::alloc::{self, Layout};
use std::ptr::NonNull;

use dashmap::SharedValue;
use hashbrown::raw::RawTable;

use crate::base::id::Actor;
use crate::base::time::{Dot, Hlc, UnixMs};
use crate::value::packed::Packed;
use crate::value::plain::Plain;

const WIDE_KEY: u8 = 1;
const WIDE_BODY: u8 = 2;
const WIDE_N: u8 = 4;
const EXPIRES: u8 = 8;
const LZ4: u8 = 16;
const ENTRY: u8 = 32;

const TAG_SHIFT: u32 = 56;
const ADDRESS_SIZE: usize = 6;
const ADDRESS_MASK: usize = (1 << (8 * ADDRESS_SIZE)) - 1;

/// What a block holds beside its key.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Form<'a> {
    /// A string whose whole history is its own dot.
    Plain(Plain<'a>),
    /// An encoded [`crate::value::entry::Entry`].
    Entry(&'a [u8]),
}

/// The table inside one shard of the map.
pub(super) type Table = RawTable<(Block, SharedValue<()>)>;

/// Every block of a table, in no order.
pub(super) fn blocks(table: &Table) -> impl Iterator<Item = &Block> {
    // SAFETY: the iterator borrows the table, so it neither moves nor frees meanwhile.
    unsafe { table.iter().map(|bucket| &bucket.as_ref().0) }
}

/// Asks the processor to fetch a cache line that will be needed soon. Any address is legal.
fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing and faults never.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Fetches where a table will look first for a key of this hash.
pub(super) fn prefetch_place(table: &Table, hash: u64) {
    let place = hash as usize & (table.buckets() - 1);
    let slots = table.data_end().as_ptr();
    // A group of sixteen control bytes is looked at; their slots lie below `data_end`, downwards.
    prefetch(slots.cast::<u8>().wrapping_add(place));
    prefetch(slots.wrapping_sub(place + 1));
    prefetch(slots.wrapping_sub(place + 9));
}

/// Fetches the block that a table holds for a key of this hash, without looking into it.
pub(super) fn prefetch_block(table: &Table, hash: u64) {
    let tag = tag_of(hash);
    if let Some((block, _)) = table.get(hash, |(block, _)| block.tag() == tag) {
        let start = block.start().as_ptr();
        prefetch(start);
        prefetch(start.wrapping_add(64));
    }
}

/// A key and what it holds.
#[derive(Debug)]
pub(super) struct Block([u8; ADDRESS_SIZE + 1]);

/// Offsets within a block, read from its first bytes.
#[derive(Clone, Copy)]
struct Header {
    flags: u8,
    fields: usize,
    key: usize,
    body: usize,
    end: usize,
}

/// Length of the fields between the lengths and the key.
const fn fields_len(flags: u8) -> usize {
    if flags & ENTRY != 0 {
        return 0;
    }
    12 + if flags & WIDE_N != 0 { 4 } else { 1 }
        + if flags & EXPIRES != 0 { 8 } else { 0 }
        + if flags & LZ4 != 0 { 4 } else { 0 }
}

const fn length_len(wide: bool) -> usize {
    if wide { 4 } else { 1 }
}

impl Header {
    fn new(flags: u8, key_len: usize, body_len: usize) -> Header {
        let fields = 1 + length_len(flags & WIDE_KEY != 0) + length_len(flags & WIDE_BODY != 0);
        let key = fields + fields_len(flags);
        let body = key + key_len;
        Header { flags, fields, key, body, end: body + body_len }
    }

    /// # Safety
    ///
    /// `at` is the start of a block that [`Block::allocate`] made.
    unsafe fn read(at: NonNull<u8>) -> Header {
        // SAFETY: every block has a flags byte and, by the flags, its two lengths.
        unsafe {
            let flags = at.read();
            let (key_len, next) = if flags & WIDE_KEY != 0 {
                (at.add(1).cast::<u32>().read_unaligned() as usize, 5)
            } else {
                (at.add(1).read() as usize, 2)
            };
            let body_len = if flags & WIDE_BODY != 0 {
                at.add(next).cast::<u32>().read_unaligned() as usize
            } else {
                at.add(next).read() as usize
            };
            Header::new(flags, key_len, body_len)
        }
    }
}

fn put_length(out: &mut [u8], at: &mut usize, wide: bool, len: usize) {
    if wide {
        put(out, at, &(len as u32).to_ne_bytes());
    } else {
        put(out, at, &[len as u8]);
    }
}

fn put(out: &mut [u8], at: &mut usize, bytes: &[u8]) {
    out[*at..*at + bytes.len()].copy_from_slice(bytes);
    *at += bytes.len();
}

fn take<const N: usize>(bytes: &[u8], at: &mut usize) -> [u8; N] {
    let taken = bytes[*at..*at + N].try_into().expect("N bytes");
    *at += N;
    taken
}

fn plain_flags(key: &[u8], plain: &Plain<'_>) -> u8 {
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    flag(key.len() > 0xFF, WIDE_KEY)
        | flag(plain.value.bytes.len() > 0xFF, WIDE_BODY)
        | flag(plain.n > 0xFF, WIDE_N)
        | flag(plain.expire_at.is_some(), EXPIRES)
        | flag(plain.value.lz4, LZ4)
}

fn write_plain(out: &mut [u8], header: Header, key: &[u8], plain: &Plain<'_>) {
    let flags = header.flags;
    let at = &mut 0;
    put(out, at, &[flags]);
    put_length(out, at, flags & WIDE_KEY != 0, key.len());
    put_length(out, at, flags & WIDE_BODY != 0, plain.value.bytes.len());
    put(out, at, &plain.dot.hlc.0.to_ne_bytes());
    put(out, at, &plain.dot.actor.0.to_ne_bytes());
    put_length(out, at, flags & WIDE_N != 0, plain.n as usize);
    if let Some(expire_at) = plain.expire_at {
        put(out, at, &expire_at.0.to_ne_bytes());
    }
    if plain.value.lz4 {
        put(out, at, &plain.value.raw_len.to_ne_bytes());
    }
    put(out, at, key);
    put(out, at, plain.value.bytes);
}

const fn tag_of(hash: u64) -> u8 {
    (hash >> TAG_SHIFT) as u8
}

impl Block {
    /// A plain string. `hash` is the key's hash.
    pub(super) fn plain(hash: u64, key: &[u8], plain: &Plain<'_>) -> Block {
        let header = Header::new(plain_flags(key, plain), key.len(), plain.value.bytes.len());
        Block::allocate(hash, header.end, |out| write_plain(out, header, key, plain))
    }

    /// An encoded entry. `hash` is the key's hash.
    pub(super) fn entry(hash: u64, key: &[u8], entry: &[u8]) -> Block {
        let wide = |len: usize, bit: u8| if len > 0xFF { bit } else { 0 };
        let flags = ENTRY | wide(key.len(), WIDE_KEY) | wide(entry.len(), WIDE_BODY);
        let header = Header::new(flags, key.len(), entry.len());
        Block::allocate(hash, header.end, |out| {
            let at = &mut 0;
            put(out, at, &[flags]);
            put_length(out, at, flags & WIDE_KEY != 0, key.len());
            put_length(out, at, flags & WIDE_BODY != 0, entry.len());
            put(out, at, key);
            put(out, at, entry);
        })
    }

    fn allocate(hash: u64, size: usize, write: impl FnOnce(&mut [u8])) -> Block {
        let layout = Layout::from_size_align(size, 1).expect("a value's size is limited");
        // SAFETY: every block has a flags byte, so `size` is not zero.
        let start = unsafe { alloc::alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { alloc::handle_alloc_error(layout) };
        let address = start.as_ptr().expose_provenance();
        assert!(address <= ADDRESS_MASK, "user-space addresses have 48 bits");
        // SAFETY: `size` fresh bytes, ours alone.
        write(unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), size) });
        let [a, b, c, d, e, f, ..] = address.to_le_bytes();
        Block([a, b, c, d, e, f, tag_of(hash)])
    }

    fn start(&self) -> NonNull<u8> {
        let [a, b, c, d, e, f, _] = self.0;
        let address = usize::from_le_bytes([a, b, c, d, e, f, 0, 0]);
        NonNull::new(std::ptr::with_exposed_provenance_mut(address)).expect("blocks have addresses")
    }

    fn header(&self) -> Header {
        // SAFETY: the pointer is this block's.
        unsafe { Header::read(self.start()) }
    }

    fn bytes(&self, header: Header) -> &[u8] {
        // SAFETY: `header.end` is the length that was allocated and written.
        unsafe { std::slice::from_raw_parts(self.start().as_ptr(), header.end) }
    }

    /// The upper 8 bits of the key's hash.
    pub(super) const fn tag(&self) -> u8 {
        self.0[ADDRESS_SIZE]
    }

    /// Whether this is the block of `key`, whose hash is `hash`.
    pub(super) fn is(&self, hash: u64, key: &[u8]) -> bool {
        self.tag() == tag_of(hash) && self.key() == key
    }

    /// The key.
    pub(super) fn key(&self) -> &[u8] {
        let header = self.header();
        &self.bytes(header)[header.key..header.body]
    }

    /// What it holds.
    pub(super) fn form(&self) -> Form<'_> {
        let header = self.header();
        let bytes = self.bytes(header);
        let body = &bytes[header.body..];
        if header.flags & ENTRY != 0 {
            return Form::Entry(body);
        }
        let at = &mut header.fields.clone();
        let hlc = Hlc(u64::from_ne_bytes(take(bytes, at)));
        let actor = Actor(u32::from_ne_bytes(take(bytes, at)));
        let n = if header.flags & WIDE_N != 0 {
            u32::from_ne_bytes(take(bytes, at))
        } else {
            u32::from(take::<1>(bytes, at)[0])
        };
        let expire_at =
            (header.flags & EXPIRES != 0).then(|| UnixMs(u64::from_ne_bytes(take(bytes, at))));
        let lz4 = header.flags & LZ4 != 0;
        let raw_len = if lz4 { u32::from_ne_bytes(take(bytes, at)) } else { body.len() as u32 };
        Form::Plain(Plain {
            dot: Dot::new(hlc, actor),
            n,
            expire_at,
            value: Packed { raw_len, lz4, bytes: body },
        })
    }

    /// Writes another plain string of the same key in place; `false` when it needs another block.
    pub(super) fn overwrite(&mut self, plain: &Plain<'_>) -> bool {
        let header = self.header();
        let key_flags = header.flags & WIDE_KEY;
        let flags = plain_flags(&[], plain) | key_flags;
        if flags != header.flags || header.end - header.body != plain.value.bytes.len() {
            return false;
        }
        let start = self.start();
        // SAFETY: the whole block, borrowed mutably with `self`.
        let bytes = unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), header.end) };
        let at = &mut header.fields.clone();
        put(bytes, at, &plain.dot.hlc.0.to_ne_bytes());
        put(bytes, at, &plain.dot.actor.0.to_ne_bytes());
        put_length(bytes, at, flags & WIDE_N != 0, plain.n as usize);
        if let Some(expire_at) = plain.expire_at {
            put(bytes, at, &expire_at.0.to_ne_bytes());
        }
        if plain.value.lz4 {
            put(bytes, at, &plain.value.raw_len.to_ne_bytes());
        }
        bytes[header.body..].copy_from_slice(plain.value.bytes);
        true
    }

    /// Bytes of the allocation.
    pub(super) fn size(&self) -> usize {
        self.header().end
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let size = self.header().end;
        let layout = Layout::from_size_align(size, 1).expect("it was allocated so");
        // SAFETY: allocated with this layout, and nobody else has it.
        unsafe { alloc::dealloc(self.start().as_ptr(), layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plain_of<'a>(
        hlc: u64,
        actor: u32,
        n: u32,
        expire: Option<u64>,
        raw_len: Option<u32>,
        bytes: &'a [u8],
    ) -> Plain<'a> {
        Plain {
            dot: Dot::new(Hlc(hlc), Actor(actor)),
            n,
            expire_at: expire.map(UnixMs),
            value: Packed {
                raw_len: raw_len.unwrap_or(bytes.len() as u32),
                lz4: raw_len.is_some(),
                bytes,
            },
        }
    }

    #[test]
    fn a_small_string_costs_sixteen_bytes_more_than_key_and_value() {
        let plain = plain_of(1, 1, 1, None, None, &[7; 64]);
        assert_eq!(Block::plain(0, &[1; 16], &plain).size(), 16 + 64 + 16);
    }

    proptest! {
        #[test]
        fn a_block_gives_back_what_it_was_given(
            hash: u64,
            key in proptest::collection::vec(any::<u8>(), 0..400),
            value in proptest::collection::vec(any::<u8>(), 0..600),
            other in proptest::collection::vec(any::<u8>(), 0..600),
            (hlc, actor, n) in any::<(u64, u32, u32)>(),
            small_n in 0u32..512,
            expire: Option<u64>,
            raw_len: Option<u32>,
        ) {
            let plain = plain_of(hlc, actor, n, expire, raw_len, &value);
            let mut block = Block::plain(hash, &key, &plain);
            prop_assert!(block.is(hash, &key));
            prop_assert_eq!(block.tag(), (hash >> 56) as u8);
            prop_assert_eq!(block.form(), Form::Plain(plain));
            // In place when every length stays, untouched otherwise.
            for (bytes, n) in [(&value, small_n), (&other, n)] {
                let next = plain_of(hlc ^ 5, actor ^ 3, n, expire.map(|e| e ^ 1), raw_len, bytes);
                let before = format!("{:?}", block.form());
                if block.overwrite(&next) {
                    prop_assert_eq!(block.form(), Form::Plain(next));
                } else {
                    prop_assert_eq!(format!("{:?}", block.form()), before);
                }
                prop_assert_eq!(block.key(), &key[..]);
            }
            let entry = Block::entry(hash, &key, &other);
            prop_assert_eq!(entry.form(), Form::Entry(&other));
            prop_assert_eq!(entry.key(), &key[..]);
        }
    }
}
