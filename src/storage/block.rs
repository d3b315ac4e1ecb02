//! One key in one allocation: the only place of the house that touches raw memory.
//!
//! A keyspace of millions of small strings is mostly overhead unless each entry is one block
//! behind one thin pointer (the figures are in `docs/performance.md`). The block:
//!
//! ```text
//! flags u8 | key_len u8 or u32 | body_len u8 or u32 | fields… | [place u32 · u32] | key | body
//!
//! flags: 1 WIDE_KEY   key_len takes four bytes       8 EXPIRES  expire_at u64 is present
//!        2 WIDE_BODY  body_len takes four bytes     16 LZ4      raw_len u32 is present
//!        4 WIDE_N     n takes four bytes            32 ENTRY    an entry, no plain fields
//!       64 WHOLE      an entry's newest frame in the log is a State: the one at its place
//!      128 LARGE      the body is the address of an entry as it is
//!
//!              fields                                                                     body
//! plain        hlc u64 | actor u32 | n u8 or u32 | [expire_at u64] | [raw_len u32]        value
//! entry        none                                                                       entry
//! large        none                                                          address of an entry
//! cold plain   as plain                                                                   none
//! cold entry   digest u128 | state digest u128 | hlc u64 | raw_len u32 | kind u8
//!              | [expire_at u64]                                                          none
//! ```
//!
//! A cold block's body is in the log, at its place; `body_len` is still the body's length. The
//! place is present in blocks that are LOCATED (below): cold ones, entries, and with a memory
//! budget all. Of a plain string it is where its State is, of an entry where its newest State is;
//! [`Place::default`] there means "somewhere", for it is below every other.
//!
//! A 16-byte key with a 64-byte value takes 16 bytes more: 96, exactly a size class.
//!
//! A table's slot is seven bytes: 48 of address (more user-space addresses have not on the
//! platforms Kvorum runs on; checked at every allocation) and the upper 8 bits of the key's hash,
//! which let a scan or an exchange pass over blocks without touching them. The eighth byte of a
//! pointer would cost two bytes a key in tables that are half full. Blocks are aligned to 16, as
//! the allocator does anyhow, and the four low bits of the address are flags:
//!
//! ```text
//! 1 VISITED   looked at since the hand of `cooling` last came by; set under the shared lock
//! 2 COLD      the body is in the log only
//! 4 LOCATED   a place is present
//! 8 FRESH     warmed, and the command that it was warmed for has not looked at it yet
//! ```
//!
//! # Why the `unsafe` here is sound
//!
//! * `Block` owns its allocation: it is made in [`Block::allocate`] only, freed in `Drop` only, is
//!   neither `Copy` nor `Clone`, and hands out slices bound to `&self` or `&mut self`.
//! * The length of the allocation is a function of the header ([`Header::read`]) and of the slot's
//!   COLD and LOCATED. The slot's two are set before the block is seen by anyone and never
//!   changed; the header is written then too, and rewritten only by [`Block::overwrite`], which
//!   refuses a change of any length, and by [`Block::settle`], which touches none.
//! * What is changed under the shared lock (VISITED, FRESH) is in the slot's low byte, an atomic;
//!   it is no part of the address, which is masked out of it.
//! * The address is kept as bytes, so its provenance is exposed when the block is made and taken up
//!   again when it is used.
//! * The bytes are fully initialised before `Block::allocate` returns.
//! * The address in a LARGE block is of a `Box<Entry>` that the block owns: it is written in
//!   [`Block::large`] only, lent with `&self` or `&mut self`, and made a box again in `Drop` only.
//!   LARGE is never set in a block that is COLD, and `settle` and `unsettle` touch other bits.
#![allow(unsafe_code)]

use std::alloc::{self, Layout};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};

use dashmap::SharedValue;
use hashbrown::raw::RawTable;
use smallvec::SmallVec;

use crate::base::hash::Digest;
use crate::base::id::Actor;
use crate::base::time::{Dot, Hlc, UnixMs};
use crate::value::entry::Entry;
use crate::value::packed::Packed;
use crate::value::plain::Plain;
use crate::value::view::Kind;

use super::footprint::{Beside, Footprint, size_class};
use super::place::Place;

const WIDE_KEY: u8 = 1;
const WIDE_BODY: u8 = 2;
const WIDE_N: u8 = 4;
const EXPIRES: u8 = 8;
const LZ4: u8 = 16;
const ENTRY: u8 = 32;
const WHOLE: u8 = 64;
const LARGE: u8 = 128;

/// Bytes of the address in a large block.
const POINTER_SIZE: usize = size_of::<usize>();

/// Of a cold entry's kind byte.
const SHOWN: u8 = 128;
const ALIVE: u8 = 64;

const VISITED: u8 = 1;
const COLD: u8 = 2;
const LOCATED: u8 = 4;
const FRESH: u8 = 8;

/// Blocks begin at multiples of this.
pub(super) const BLOCK_ALIGN: usize = 16;
const SLOT_FLAGS: u8 = BLOCK_ALIGN as u8 - 1;

const TAG_SHIFT: u32 = 56;

/// The tags that blocks have.
pub(super) const TAGS: usize = 256;
const ADDRESS_SIZE: usize = 6;
const ADDRESS_MASK: usize = (1 << (8 * ADDRESS_SIZE)) - 1;

const PLACE_SIZE: usize = 8;
pub(super) const KINDS: [Kind; 5] = [Kind::String, Kind::List, Kind::Hash, Kind::Set, Kind::Zset];

/// What a block holds beside its key.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Form<'a> {
    /// A string whose whole history is its own dot.
    Plain(Plain<'a>),
    /// An encoded [`Entry`].
    Entry(&'a [u8]),
    /// An entry that would be too large to be encoded by every change.
    Large(&'a Entry),
    /// A plain string whose value is in the log.
    ColdPlain(ColdPlain),
    /// An entry that is in the log.
    ColdEntry(ColdEntry),
}

/// A plain string without its value.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct ColdPlain {
    /// All but the value's bytes, of which there are none here.
    pub(super) plain: Plain<'static>,
    /// How many there are.
    pub(super) len: usize,
}

/// What stays in memory of an entry that is in the log.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct ColdEntry {
    pub(super) digest: Digest,
    pub(super) state_digest: Digest,
    /// The greatest timestamp it knows.
    pub(super) hlc_max: Hlc,
    /// The visible type.
    pub(super) kind: Kind,
    /// Whether there is a value to see, until it expires.
    pub(super) shown: bool,
    /// Whether anything in it is alive, seen or not.
    pub(super) alive: bool,
    /// Length of the string.
    pub(super) raw_len: u32,
    pub(super) expire_at: Option<UnixMs>,
    /// Length of the encoded entry.
    pub(super) len: usize,
}

/// The table inside one shard of the map.
pub(super) type Table = RawTable<(Block, SharedValue<()>)>;

/// Blocks that are fetched from memory together.
pub(super) const FETCHED_AT_ONCE: usize = 32;

/// Every block of a table, in no order.
pub(super) fn blocks(table: &Table) -> impl Iterator<Item = &Block> {
    // SAFETY: the iterator borrows the table, so it neither moves nor frees meanwhile.
    unsafe { table.iter().map(|bucket| &bucket.as_ref().0) }
}

/// Visits every block whose tag is `wanted`, in no order. Blocks lie anywhere in memory: fetched one
/// by one, waiting for them would be most of the work.
pub(super) fn visit_blocks(
    table: &Table,
    wanted: impl Fn(u8) -> bool,
    mut visit: impl FnMut(&Block),
) {
    let mut all = blocks(table).filter(|block| wanted(block.tag()));
    let mut some: SmallVec<[&Block; FETCHED_AT_ONCE]> = SmallVec::new();
    loop {
        some.clear();
        some.extend(all.by_ref().take(FETCHED_AT_ONCE));
        if some.is_empty() {
            return;
        }
        some.iter().for_each(|block| prefetch_start(block));
        some.iter().for_each(|block| visit(block));
    }
}

/// The block in the bucket `at` of a table, if there is one.
pub(super) fn block_at(table: &mut Table, at: usize) -> Option<&mut Block> {
    assert!(at < table.buckets(), "a table has so many buckets");
    // SAFETY: the bucket is one of the table's, is full, and is borrowed with all of the table.
    // The empty table, whose single bucket is none, has no full one.
    unsafe { table.is_bucket_full(at).then(|| &mut table.bucket(at).as_mut().0) }
}

/// Bytes that a table's slots take.
pub(super) fn table_size(table: &Table) -> usize {
    match table.allocation_info().1.size() {
        0 => 0,
        size => size_class(size),
    }
}

/// Asks the processor to fetch a cache line that will be needed soon. Any address is legal.
pub(super) fn prefetch<T>(at: *const T) {
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
        prefetch_start(block);
    }
}

fn prefetch_start(block: &Block) {
    let start = block.start().as_ptr();
    prefetch(start);
    prefetch(start.wrapping_add(64));
}

/// A key and what it holds: the low byte of the block's address with the slot's flags, the rest of
/// the address, and the tag.
#[derive(Debug)]
pub(super) struct Block(AtomicU8, [u8; ADDRESS_SIZE]);

/// Offsets within a block, read from its first bytes and its slot.
#[derive(Clone, Copy)]
struct Header {
    flags: u8,
    slot: u8,
    fields: usize,
    place: usize,
    key: usize,
    body: usize,
    body_len: usize,
    end: usize,
}

/// Where the place begins, by the flags and by whether the block is cold: every look at a block asks.
static PLACES: [[u8; 256]; 2] = {
    let mut places = [[0; 256]; 2];
    let mut flags = 0;
    while flags < 256 {
        let (hot, cold) = (flags_end(flags as u8, 0), flags_end(flags as u8, COLD));
        (places[0][flags], places[1][flags]) = (hot as u8, cold as u8);
        flags += 1;
    }
    places
};

/// Where the fields end.
const fn flags_end(flags: u8, slot: u8) -> usize {
    lengths_end(flags) + fields_len(flags, slot)
}

/// Where the lengths end and the fields begin.
const fn lengths_end(flags: u8) -> usize {
    1 + length_len(flags & WIDE_KEY != 0) + length_len(flags & WIDE_BODY != 0)
}

/// Length of the fields between the lengths and the place.
const fn fields_len(flags: u8, slot: u8) -> usize {
    let expires = if flags & EXPIRES != 0 { 8 } else { 0 };
    if flags & ENTRY != 0 {
        return if slot & COLD != 0 { 16 + 16 + 8 + 4 + 1 + expires } else { 0 };
    }
    12 + if flags & WIDE_N != 0 { 4 } else { 1 } + expires + if flags & LZ4 != 0 { 4 } else { 0 }
}

const fn length_len(wide: bool) -> usize {
    if wide { 4 } else { 1 }
}

impl Header {
    #[inline]
    fn new(flags: u8, slot: u8, key_len: usize, body_len: usize) -> Header {
        let fields = lengths_end(flags);
        let is_cold = usize::from(slot & COLD != 0);
        let place = usize::from(PLACES[is_cold][usize::from(flags)]);
        let key = place + if slot & LOCATED != 0 { PLACE_SIZE } else { 0 };
        let body = key + key_len;
        let end = body + if slot & COLD != 0 { 0 } else { body_len };
        Header { flags, slot, fields, place, key, body, body_len, end }
    }

    /// # Safety
    ///
    /// `at` is the start of a block that [`Block::allocate`] made with these slot flags.
    #[inline]
    unsafe fn read(at: NonNull<u8>, slot: u8) -> Header {
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
            Header::new(flags, slot, key_len, body_len)
        }
    }

    fn beside(&self) -> Beside {
        Beside { taken: size_class(self.end), cold: size_class(self.cold_end()) }
    }

    /// Bytes of the block if it were cold. Whether an entry expires is not known here: it may be
    /// fewer.
    fn cold_end(&self) -> usize {
        let more = if self.flags & ENTRY != 0 { EXPIRES } else { 0 };
        self.fields + fields_len(self.flags | more, COLD) + PLACE_SIZE + (self.body - self.key)
    }

    fn write(&self, out: &mut [u8], key: &[u8]) {
        let at = &mut 0;
        put(out, at, &[self.flags]);
        put_length(out, at, self.flags & WIDE_KEY != 0, key.len());
        put_length(out, at, self.flags & WIDE_BODY != 0, self.body_len);
        out[self.key..self.body].copy_from_slice(key);
    }

    fn write_place(&self, out: &mut [u8], place: Place) {
        if self.slot & LOCATED != 0 {
            let at = &mut self.place.clone();
            put(out, at, &place.segment.to_ne_bytes());
            put(out, at, &place.offset.to_ne_bytes());
        }
    }

    fn write_plain(&self, out: &mut [u8], plain: &Plain<'_>) {
        let at = &mut self.fields.clone();
        put(out, at, &plain.dot.hlc.0.to_ne_bytes());
        put(out, at, &plain.dot.actor.0.to_ne_bytes());
        put_length(out, at, self.flags & WIDE_N != 0, plain.n as usize);
        if let Some(expire_at) = plain.expire_at {
            put(out, at, &expire_at.0.to_ne_bytes());
        }
        if plain.value.lz4 {
            put(out, at, &plain.value.raw_len.to_ne_bytes());
        }
    }

    fn read_plain(&self, bytes: &[u8]) -> Plain<'static> {
        let at = &mut self.fields.clone();
        let hlc = Hlc(u64::from_ne_bytes(take(bytes, at)));
        let actor = Actor(u32::from_ne_bytes(take(bytes, at)));
        let n = if self.flags & WIDE_N != 0 {
            u32::from_ne_bytes(take(bytes, at))
        } else {
            u32::from(take::<1>(bytes, at)[0])
        };
        let expires = self.flags & EXPIRES != 0;
        let expire_at = expires.then(|| UnixMs(u64::from_ne_bytes(take(bytes, at))));
        let lz4 = self.flags & LZ4 != 0;
        let raw_len = if lz4 { u32::from_ne_bytes(take(bytes, at)) } else { self.body_len as u32 };
        Plain {
            dot: Dot::new(hlc, actor),
            n,
            expire_at,
            value: Packed { raw_len, lz4, bytes: &[] },
        }
    }

    fn write_cold_entry(&self, out: &mut [u8], entry: &ColdEntry) {
        let at = &mut self.fields.clone();
        put(out, at, &entry.digest.0.to_ne_bytes());
        put(out, at, &entry.state_digest.0.to_ne_bytes());
        put(out, at, &entry.hlc_max.0.to_ne_bytes());
        put(out, at, &entry.raw_len.to_ne_bytes());
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        put(out, at, &[entry.kind as u8 | flag(entry.shown, SHOWN) | flag(entry.alive, ALIVE)]);
        if let Some(expire_at) = entry.expire_at {
            put(out, at, &expire_at.0.to_ne_bytes());
        }
    }

    fn read_cold_entry(&self, bytes: &[u8]) -> ColdEntry {
        let at = &mut self.fields.clone();
        let digest = Digest(u128::from_ne_bytes(take(bytes, at)));
        let state_digest = Digest(u128::from_ne_bytes(take(bytes, at)));
        let hlc_max = Hlc(u64::from_ne_bytes(take(bytes, at)));
        let raw_len = u32::from_ne_bytes(take(bytes, at));
        let [kind] = take(bytes, at);
        let expires = self.flags & EXPIRES != 0;
        ColdEntry {
            digest,
            state_digest,
            hlc_max,
            kind: KINDS[usize::from(kind & !(SHOWN | ALIVE))],
            shown: kind & SHOWN != 0,
            alive: kind & ALIVE != 0,
            raw_len,
            expire_at: expires.then(|| UnixMs(u64::from_ne_bytes(take(bytes, at)))),
            len: self.body_len,
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

fn flags_of(key_len: usize, body_len: usize, more: u8) -> u8 {
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    flag(key_len > 0xFF, WIDE_KEY) | flag(body_len > 0xFF, WIDE_BODY) | more
}

fn plain_flags(key_len: usize, plain: &Plain<'_>, body_len: usize) -> u8 {
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    let more = flag(plain.n > 0xFF, WIDE_N)
        | flag(plain.expire_at.is_some(), EXPIRES)
        | flag(plain.value.lz4, LZ4);
    flags_of(key_len, body_len, more)
}

pub(super) const fn tag_of(hash: u64) -> u8 {
    (hash >> TAG_SHIFT) as u8
}

const fn layout_of(size: usize) -> Layout {
    let size = if size < BLOCK_ALIGN { BLOCK_ALIGN } else { size };
    match Layout::from_size_align(size, BLOCK_ALIGN) {
        Ok(layout) => layout,
        Err(_) => panic!("a value's size is limited"),
    }
}

impl Block {
    /// A plain string. `hash` is the key's hash; `place` where its State is, to be kept with it.
    pub(super) fn plain(hash: u64, key: &[u8], plain: &Plain<'_>, place: Option<Place>) -> Block {
        let len = plain.value.bytes.len();
        let slot = if place.is_some() { LOCATED } else { 0 };
        let header = Header::new(plain_flags(key.len(), plain, len), slot, key.len(), len);
        Block::allocate(hash, header, |out| {
            header.write(out, key);
            header.write_plain(out, plain);
            header.write_place(out, place.unwrap_or_default());
            out[header.body..].copy_from_slice(plain.value.bytes);
        })
    }

    /// An encoded entry. `hash` is the key's hash, `base` where its newest State is, `whole`
    /// whether that is all of it.
    pub(super) fn entry(hash: u64, key: &[u8], entry: &[u8], base: Place, whole: bool) -> Block {
        let flags = flags_of(key.len(), entry.len(), if whole { ENTRY | WHOLE } else { ENTRY });
        let header = Header::new(flags, LOCATED, key.len(), entry.len());
        Block::allocate(hash, header, |out| {
            header.write(out, key);
            header.write_place(out, base);
            out[header.body..].copy_from_slice(entry);
        })
    }

    /// An entry as it is; the rest as of [`Block::entry`].
    pub(super) fn large(
        hash: u64,
        key: &[u8],
        entry: Box<Entry>,
        base: Place,
        whole: bool,
    ) -> Block {
        let more = if whole { ENTRY | LARGE | WHOLE } else { ENTRY | LARGE };
        let flags = flags_of(key.len(), POINTER_SIZE, more);
        let header = Header::new(flags, LOCATED, key.len(), POINTER_SIZE);
        let address = Box::into_raw(entry).expose_provenance();
        Block::allocate(hash, header, |out| {
            header.write(out, key);
            header.write_place(out, base);
            out[header.body..].copy_from_slice(&address.to_ne_bytes());
        })
    }

    /// The address of the entry in a large block.
    fn large_at(&self, header: Header) -> Option<*mut Entry> {
        (header.flags & LARGE != 0).then(|| {
            let address = take(self.bytes(header), &mut header.body.clone());
            std::ptr::with_exposed_provenance_mut(usize::from_ne_bytes(address))
        })
    }

    fn large_entry(&self, header: Header) -> Option<&Entry> {
        // SAFETY: the block's own box, borrowed with `self`.
        self.large_at(header).map(|entry| unsafe { &*entry })
    }

    /// The entry of a large block.
    pub(super) fn large_ref(&self) -> Option<&Entry> {
        self.large_entry(self.header())
    }

    /// The entry of a large block.
    pub(super) fn large_mut(&mut self) -> Option<&mut Entry> {
        // SAFETY: the block's own box, borrowed mutably with `self`.
        self.large_at(self.header()).map(|entry| unsafe { &mut *entry })
    }

    /// What a large block takes beside its entry.
    pub(super) fn beside(&self) -> Beside {
        self.header().beside()
    }

    /// A plain string whose value, of `len` bytes, is in the log only.
    pub(super) fn cold_plain(
        hash: u64,
        key: &[u8],
        plain: &Plain<'_>,
        len: usize,
        place: Place,
    ) -> Block {
        let flags = plain_flags(key.len(), plain, len);
        let header = Header::new(flags, COLD | LOCATED, key.len(), len);
        Block::allocate(hash, header, |out| {
            header.write(out, key);
            header.write_plain(out, plain);
            header.write_place(out, place);
        })
    }

    /// An entry that is in the log only.
    pub(super) fn cold_entry(hash: u64, key: &[u8], entry: &ColdEntry, place: Place) -> Block {
        let expires = if entry.expire_at.is_some() { EXPIRES } else { 0 };
        let flags = flags_of(key.len(), entry.len, ENTRY | WHOLE | expires);
        let header = Header::new(flags, COLD | LOCATED, key.len(), entry.len);
        Block::allocate(hash, header, |out| {
            header.write(out, key);
            header.write_cold_entry(out, entry);
            header.write_place(out, place);
        })
    }

    fn allocate(hash: u64, header: Header, write: impl FnOnce(&mut [u8])) -> Block {
        let layout = layout_of(header.end);
        // SAFETY: a layout's size is not zero.
        let start = unsafe { alloc::alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { alloc::handle_alloc_error(layout) };
        let address = start.as_ptr().expose_provenance();
        assert!(address <= ADDRESS_MASK, "user-space addresses have 48 bits");
        // SAFETY: as many fresh bytes, ours alone.
        write(unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), header.end) });
        let [a, b, c, d, e, f, ..] = address.to_le_bytes();
        Block(AtomicU8::new(a | header.slot), [b, c, d, e, f, tag_of(hash)])
    }

    #[inline]
    fn slot(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }

    #[inline]
    fn start(&self) -> NonNull<u8> {
        let [b, c, d, e, f, _] = self.1;
        let address = usize::from_le_bytes([self.slot() & !SLOT_FLAGS, b, c, d, e, f, 0, 0]);
        NonNull::new(std::ptr::with_exposed_provenance_mut(address)).expect("blocks have addresses")
    }

    fn flags(&self) -> u8 {
        // SAFETY: every block begins with its flags.
        unsafe { self.start().read() }
    }

    #[inline]
    fn header(&self) -> Header {
        // SAFETY: pointer and flags are this block's.
        unsafe { Header::read(self.start(), self.slot()) }
    }

    #[inline]
    fn bytes(&self, header: Header) -> &[u8] {
        // SAFETY: `header.end` is the length that was allocated and written.
        unsafe { std::slice::from_raw_parts(self.start().as_ptr(), header.end) }
    }

    fn bytes_mut(&mut self, header: Header) -> &mut [u8] {
        // SAFETY: the whole block, borrowed mutably with `self`.
        unsafe { std::slice::from_raw_parts_mut(self.start().as_ptr(), header.end) }
    }

    /// The upper 8 bits of the key's hash.
    pub(super) const fn tag(&self) -> u8 {
        self.1[ADDRESS_SIZE - 1]
    }

    /// A hash that makes a block of the same tag.
    pub(super) const fn hash_of_tag(&self) -> u64 {
        (self.tag() as u64) << TAG_SHIFT
    }

    /// Whether this is the block of `key`, whose hash is `hash`.
    #[inline]
    pub(super) fn is(&self, hash: u64, key: &[u8]) -> bool {
        self.tag() == tag_of(hash) && self.key() == key
    }

    /// The key.
    #[inline]
    pub(super) fn key(&self) -> &[u8] {
        let header = self.header();
        &self.bytes(header)[header.key..header.body]
    }

    /// What it holds.
    pub(super) fn form(&self) -> Form<'_> {
        let header = self.header();
        let bytes = self.bytes(header);
        match (header.flags & ENTRY != 0, header.slot & COLD != 0) {
            (false, false) => {
                let plain = header.read_plain(bytes);
                let value = Packed { bytes: &bytes[header.body..], ..plain.value };
                Form::Plain(Plain { value, ..plain })
            }
            (false, true) => {
                Form::ColdPlain(ColdPlain { plain: header.read_plain(bytes), len: header.body_len })
            }
            (true, false) => match self.large_entry(header) {
                Some(entry) => Form::Large(entry),
                None => Form::Entry(&bytes[header.body..]),
            },
            (true, true) => Form::ColdEntry(header.read_cold_entry(bytes)),
        }
    }

    /// Where the newest State of the key is: of a plain string and a cold entry all of it.
    /// `None` if that was not kept.
    pub(super) fn place(&self) -> Option<Place> {
        let header = self.header();
        (header.slot & LOCATED != 0).then(|| {
            let at = &mut header.place.clone();
            let bytes = self.bytes(header);
            let segment = u32::from_ne_bytes(take(bytes, at));
            Place { segment, offset: u32::from_ne_bytes(take(bytes, at)) }
        })
    }

    /// Whether the key's newest frame in the log is a State.
    pub(super) fn is_whole(&self) -> bool {
        let flags = self.flags();
        flags & ENTRY == 0 || flags & WHOLE != 0
    }

    /// Notes that the key's newest frame is the State at `place`.
    pub(super) fn settle(&mut self, place: Place) {
        let header = self.header();
        let bytes = self.bytes_mut(header);
        header.write_place(bytes, place);
        if header.flags & ENTRY != 0 {
            bytes[0] |= WHOLE;
        }
    }

    /// Notes that the key's newest frame is no State any more, but the newest State is at `base`.
    pub(super) fn unsettle(&mut self, base: Place) {
        let header = self.header();
        let bytes = self.bytes_mut(header);
        header.write_place(bytes, base);
        bytes[0] &= !WHOLE;
    }

    /// Whether another plain string of the same key can be written in this one's place.
    pub(super) fn fits(&self, plain: &Plain<'_>) -> bool {
        let header = self.header();
        let len = plain.value.bytes.len();
        let flags = plain_flags(0, plain, len) | header.flags & WIDE_KEY;
        flags == header.flags && header.slot & COLD == 0 && header.body_len == len
    }

    /// Writes another plain string of the same key in place; `false` when it needs another block.
    /// `place` is where its State is: kept if this block keeps places.
    pub(super) fn overwrite(&mut self, plain: &Plain<'_>, place: Place) -> bool {
        if !self.fits(plain) {
            return false;
        }
        let header = self.header();
        let bytes = self.bytes_mut(header);
        header.write_plain(bytes, plain);
        header.write_place(bytes, place);
        bytes[header.body..].copy_from_slice(plain.value.bytes);
        true
    }

    /// Bytes of the block.
    pub(super) fn size(&self) -> usize {
        self.header().end
    }

    /// What it takes of memory.
    pub(super) fn footprint(&self) -> Footprint {
        let header = self.header();
        let entry = match header.flags & LARGE {
            0 => 0,
            _ => self.large_entry(header).map_or(0, Entry::memory),
        };
        header.beside().with(entry)
    }

    /// Whether the body is in the log only.
    pub(super) fn is_cold(&self) -> bool {
        self.slot() & COLD != 0
    }

    /// Whether the block keeps a place.
    pub(super) fn is_located(&self) -> bool {
        self.slot() & LOCATED != 0
    }

    /// Whether it was looked at since the hand last came by.
    pub(super) fn is_visited(&self) -> bool {
        self.slot() & VISITED != 0
    }

    /// Notes that it was looked at. The look for which a block was warmed does not count, or what
    /// is read once in a long while would displace what is read often.
    pub(super) fn visit(&self) {
        let slot = self.slot();
        if slot & FRESH != 0 {
            self.0.fetch_and(!FRESH, Ordering::Relaxed);
        } else if slot & VISITED == 0 {
            self.0.fetch_or(VISITED, Ordering::Relaxed);
        }
    }

    /// Whether it was looked at since this was last asked, or is still to be looked at.
    pub(super) fn take_visited(&mut self) -> bool {
        let slot = self.0.get_mut();
        let visited = *slot & (VISITED | FRESH) != 0;
        *slot &= !(VISITED | FRESH);
        visited
    }

    /// This block, warmed a moment ago for a command that is still to look at it.
    pub(super) fn freshly_warmed(mut self) -> Block {
        *self.0.get_mut() |= FRESH;
        self
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let header = self.header();
        if let Some(entry) = self.large_at(header) {
            // SAFETY: made of a box, and nobody else has it.
            drop(unsafe { Box::from_raw(entry) });
        }
        let layout = layout_of(header.end);
        // SAFETY: allocated with this layout, and nobody else has it.
        unsafe { alloc::dealloc(self.start().as_ptr(), layout) }
    }
}
