//! A leaf: some elements of a collection, one after the other in a run of bytes.
//!
//! ```text
//! head u8 │ name │ [expire_at varint] │ dot │ value
//!
//! head    0–1  0 no value · 1 as it came · 2 one LZ4 block · 3 a whole register
//!         2    it expires
//!         3    list: the name is written out · sorted set: the value is eight bytes, a score
//!         4–7  the author's place in the body's table; 15: none (of a register)
//! name    varint-prefixed; of a list the position in steps from the leaf's, zigzag varint, if the
//!         rest of the name is the element's own dot
//! dot     hlc as it is beyond the leaf's, zigzag varint (a register has its own)
//! value   [raw_len varint, if LZ4] · varint-prefixed
//! ```
//!
//! So an element of ten bytes that was written within minutes of its neighbours takes about seven
//! bytes of its own: its dot four, its head and lengths three. What has concurrent values or was
//! counted on is a register, as `register` encodes it.

use std::ops::Range;

use crate::base::id::Actor;
use crate::base::time::{Dot, Hlc, UnixMs};
use crate::base::wire::{Cursor, FEW_SIZE, Few, Put, WireError};
use crate::value::element::{PLAIN_NAME_SIZE, place_name, split_name};
use crate::value::packed::Packed;
use crate::value::register::{Register, decode_packed};
use crate::value::view::Kind;

use super::cell::rewritten;
use super::rows::Run;

const FORM: u8 = 3;
const NOTHING: u8 = 0;
const RAW: u8 = 1;
const LZ4: u8 = 2;
const REGISTER: u8 = 3;
const EXPIRES: u8 = 4;
const SPECIAL: u8 = 8;
const ACTOR_SHIFT: u8 = 4;

/// So many authors have a place in a body's table.
pub(super) const ACTORS_MAX: usize = 15;

/// Some elements. See the head of this file.
#[derive(Clone, Debug, Default)]
pub(super) struct Leaf {
    pub(super) bytes: Vec<u8>,
    /// What dots are told from.
    pub(super) hlc: u64,
    /// Of a list what positions are told from, in steps; else the lowest hash that belongs here.
    pub(super) lower: u64,
    pub(super) count: u32,
    /// An element that was looked for: its place and its offset, both zero if there is none.
    pub(super) known: Known,
}

/// Where an element of a leaf begins, so that not all before it need be walked over. It helps at the
/// right end of lists.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    place: u16,
    offset: u16,
}

impl Known {
    /// Nothing, where it does not fit.
    fn at(place: usize, offset: usize) -> Known {
        match (u16::try_from(place), u16::try_from(offset)) {
            (Ok(place), Ok(offset)) => Known { place, offset },
            _ => Known::default(),
        }
    }
}

impl Run for Leaf {
    fn count(&self) -> usize {
        self.count as usize
    }

    fn lower(&self) -> u64 {
        self.lower
    }
}

/// What one needs to know to read a leaf.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight<'a> {
    pub(super) kind: Kind,
    pub(super) actors: &'a [Actor],
}

/// An element's name, without its type.
#[derive(Clone, Copy, Debug)]
pub(in crate::value) enum Name<'a> {
    Written(&'a [u8]),
    /// A list's, from its position and its dot.
    Made([u8; PLAIN_NAME_SIZE]),
}

impl Name<'_> {
    pub(in crate::value) fn bytes(&self) -> &[u8] {
        match self {
            Name::Written(bytes) => bytes,
            Name::Made(bytes) => bytes,
        }
    }
}

/// What an element holds.
#[derive(Clone, Copy, Debug)]
pub(in crate::value) enum Cell<'a> {
    /// One value on which nobody counted.
    Single { dot: Dot, value: Packed<'a>, expire_at: Option<UnixMs> },
    /// An encoded register.
    Register(&'a [u8]),
}

/// What is to be written.
#[derive(Clone, Debug)]
pub(in crate::value) enum New<'a> {
    /// What is there stays.
    Keep,
    /// Nothing.
    Gone,
    Single {
        dot: Dot,
        value: Packed<'a>,
        expire_at: Option<UnixMs>,
    },
    Register(Register),
}

impl New<'_> {
    /// When it was written; of a register, its first value.
    pub(super) fn hlc(&self) -> Option<Hlc> {
        match self {
            New::Keep | New::Gone => None,
            New::Single { dot, .. } => Some(dot.hlc),
            New::Register(register) => register.siblings().first().map(|value| value.dot.hlc),
        }
    }

    /// Bytes that it takes, about.
    pub(super) fn size(&self) -> usize {
        match self {
            New::Keep | New::Gone => 0,
            New::Single { value, .. } => value.bytes.len() + PUSHED,
            New::Register(_) => AROUND,
        }
    }

    /// Whether it is written in not many bytes more than its name and its value have.
    fn is_short(&self) -> bool {
        matches!(self, New::Gone | New::Single { .. })
    }
}

/// An element in a leaf.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item<'a> {
    pub(super) name: Name<'a>,
    pub(super) cell: Cell<'a>,
    /// Where the next one begins.
    pub(super) end: usize,
}

/// Most bytes that an element takes beside name and value.
const AROUND: usize = 48;

/// Bytes that a list's element takes beside its value, about: its head, its position, its dot.
const PUSHED: usize = 10;

/// How far a value is from another, so that what is near is small.
pub(in crate::value) fn zigzag(value: u64, from: u64) -> u64 {
    let by = value.wrapping_sub(from) as i64;
    (by << 1 ^ by >> 63) as u64
}

/// The value that is so far from another.
pub(in crate::value) fn unzigzag(by: u64, from: u64) -> u64 {
    from.wrapping_add(by >> 1 ^ (by & 1).wrapping_neg())
}

/// Reads a varint. Bytes are checked when they come in, so a bad one here is damaged memory.
#[inline]
fn varint(bytes: &[u8], at: &mut usize) -> u64 {
    let first = bytes[*at];
    *at += 1;
    if first < 0x80 {
        return u64::from(first);
    }
    let mut value = u64::from(first & 0x7F);
    let mut shift = 7;
    loop {
        let byte = bytes[*at];
        *at += 1;
        value |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return value;
        }
        shift += 7;
    }
}

/// Passes over a varint: of many bytes, as moments are, all are looked at together.
#[inline]
fn skip_varint(bytes: &[u8], at: &mut usize) {
    if let Some(eight) = bytes[*at..].first_chunk::<8>() {
        let ends = !u64::from_le_bytes(*eight) & 0x8080_8080_8080_8080;
        if ends != 0 {
            *at += (ends.trailing_zeros() as usize >> 3) + 1;
            return;
        }
    }
    varint(bytes, at);
}

impl Leaf {
    /// Of a leaf that will hold elements written about then.
    pub(super) fn about(hlc: Hlc, lower: u64) -> Leaf {
        Leaf { hlc: hlc.0, lower, ..Leaf::default() }
    }

    /// The same with room for so many bytes, of a leaf that will soon be full.
    pub(super) fn roomy(hlc: Hlc, lower: u64, size: usize) -> Leaf {
        Leaf { bytes: Vec::with_capacity(size), ..Leaf::about(hlc, lower) }
    }

    /// The element at an offset.
    pub(super) fn item<'a>(&'a self, sight: Sight<'_>, at: usize) -> Item<'a> {
        let bytes = &self.bytes[..];
        let head = bytes[at];
        let mut at = at + 1;
        let is_place = sight.kind == Kind::List && head & SPECIAL == 0;
        let written = varint(bytes, &mut at);
        let mut name = Name::Written(&[]);
        if !is_place {
            name = Name::Written(&bytes[at..at + written as usize]);
            at += written as usize;
        }
        if head & FORM == REGISTER {
            let len = varint(bytes, &mut at) as usize;
            let cell = Cell::Register(&bytes[at..at + len]);
            return Item { name, cell, end: at + len };
        }
        let expire_at = match head & EXPIRES {
            0 => None,
            _ => Some(UnixMs(varint(bytes, &mut at))),
        };
        let hlc = Hlc(unzigzag(varint(bytes, &mut at), self.hlc));
        let dot = Dot::new(hlc, sight.actors[usize::from(head >> ACTOR_SHIFT)]);
        if is_place {
            name = Name::Made(place_name(unzigzag(written, self.lower), dot));
        }
        let (lz4, raw_len) = match head & FORM == LZ4 {
            true => (true, Some(varint(bytes, &mut at) as u32)),
            false => (false, None),
        };
        let len = match head & FORM {
            NOTHING => 0,
            _ if sight.kind == Kind::Zset && head & SPECIAL != 0 => 8,
            _ => varint(bytes, &mut at) as usize,
        };
        let value =
            Packed { raw_len: raw_len.unwrap_or(len as u32), lz4, bytes: &bytes[at..at + len] };
        Item { name, cell: Cell::Single { dot, value, expire_at }, end: at + len }
    }

    /// The position of a list's element, if its name is not written out.
    pub(super) fn step(&self, at: usize) -> Option<u64> {
        let is_place = self.bytes[at] & SPECIAL == 0;
        is_place.then(|| unzigzag(varint(&self.bytes, &mut (at + 1)), self.lower))
    }

    /// Every element, with its offset.
    pub(super) fn items<'a>(
        &'a self,
        sight: Sight<'a>,
    ) -> impl Iterator<Item = (usize, Item<'a>)> + 'a {
        let mut at = 0;
        std::iter::from_fn(move || {
            (at < self.bytes.len()).then(|| {
                let item = self.item(sight, at);
                (std::mem::replace(&mut at, item.end), item)
            })
        })
    }

    /// Where an element of a hash or a set begins and ends.
    pub(super) fn find(&self, kind: Kind, name: &[u8]) -> Option<usize> {
        debug_assert!(kind != Kind::List, "a list's names are in order");
        let bytes = &self.bytes[..];
        let mut at = 0;
        while at < bytes.len() {
            let start = at;
            let head = bytes[at];
            at += 1;
            let len = varint(bytes, &mut at) as usize;
            if len == name.len() && same(&bytes[at..at + len], name) {
                return Some(start);
            }
            at = self.after_name(kind, head, at + len);
        }
        None
    }

    /// Visits the names of a hash's or a set's elements, and where each lies.
    pub(super) fn names(&self, kind: Kind, mut visit: impl FnMut(&[u8], Range<usize>)) {
        debug_assert!(kind != Kind::List, "a list's names are made");
        let bytes = &self.bytes[..];
        let mut at = 0;
        while at < bytes.len() {
            let start = at;
            at += 1;
            let len = varint(bytes, &mut at) as usize;
            let name = at..at + len;
            at = self.after_name(kind, bytes[start], name.end);
            visit(&bytes[name], start..at);
        }
    }

    /// Appends an element's bytes, told from the same moment as this leaf's.
    pub(super) fn append(&mut self, element: &[u8]) {
        self.bytes.extend_from_slice(element);
        self.count += 1;
    }

    /// Where the element after the one at an offset begins.
    fn after(&self, kind: Kind, mut at: usize) -> usize {
        let bytes = &self.bytes[..];
        let head = bytes[at];
        at += 1;
        let written = varint(bytes, &mut at) as usize;
        if kind != Kind::List || head & SPECIAL != 0 {
            at += written;
        }
        self.after_name(kind, head, at)
    }

    /// Where an element ends whose name ends at an offset.
    #[inline]
    fn after_name(&self, kind: Kind, head: u8, mut at: usize) -> usize {
        let bytes = &self.bytes[..];
        if head & FORM != REGISTER {
            if head & EXPIRES != 0 {
                skip_varint(bytes, &mut at);
            }
            skip_varint(bytes, &mut at);
            if head & FORM == LZ4 {
                skip_varint(bytes, &mut at);
            }
        }
        let len = match head & FORM {
            NOTHING => 0,
            RAW if kind == Kind::Zset && head & SPECIAL != 0 => 8,
            _ => varint(bytes, &mut at) as usize,
        };
        at + len
    }

    /// The value at an offset as it is stored, and where the next element begins; nothing of a
    /// register. What else there is of the element is passed over.
    #[inline]
    pub(super) fn value(&self, kind: Kind, at: usize) -> Option<(Packed<'_>, usize)> {
        let bytes = &self.bytes[..];
        let head = bytes[at];
        if head & FORM == REGISTER || kind == Kind::Zset {
            return None;
        }
        let mut at = at + 1;
        if kind == Kind::List && head & SPECIAL == 0 {
            skip_varint(bytes, &mut at);
        } else {
            at += varint(bytes, &mut at) as usize;
        }
        if head & EXPIRES != 0 {
            skip_varint(bytes, &mut at);
        }
        skip_varint(bytes, &mut at);
        let raw_len = if head & FORM == LZ4 { Some(varint(bytes, &mut at) as u32) } else { None };
        let len = if head & FORM == NOTHING { 0 } else { varint(bytes, &mut at) as usize };
        let end = at + len;
        let (lz4, raw_len) = (raw_len.is_some(), raw_len.unwrap_or(len as u32));
        Some((Packed { raw_len, lz4, bytes: &bytes[at..end] }, end))
    }

    /// Appends where elements begin, from one that is known on or from the first: who takes elements
    /// from the right goes back through them.
    pub(super) fn ends(&self, kind: Kind, out: &mut Vec<u32>) {
        let Known { place, offset } = self.known;
        let is_there = u32::from(place) < self.count;
        let (mut at, places) = if is_there {
            (usize::from(offset), u32::from(place)..self.count)
        } else {
            (0, 0..self.count)
        };
        for _ in places {
            out.push(at as u32);
            at = self.after(kind, at);
        }
    }

    /// Where an element of a list begins, or where it would.
    pub(super) fn find_in_order(&self, sight: Sight<'_>, name: &[u8]) -> Result<usize, usize> {
        for (at, item) in self.items(sight) {
            match item.name.bytes().cmp(name) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => return Ok(at),
                std::cmp::Ordering::Greater => return Err(at),
            }
        }
        Err(self.bytes.len())
    }

    /// Where the element at a place begins.
    pub(super) fn offset(&self, kind: Kind, place: usize) -> usize {
        if place >= self.count as usize {
            return self.bytes.len();
        }
        let known = usize::from(self.known.place);
        let (from, at) = if known <= place { (known, self.known.offset) } else { (0, 0) };
        (from..place).fold(usize::from(at), |at, _| self.after(kind, at))
    }

    /// Puts an element in the place of the bytes from `start` to `end`.
    pub(super) fn write(
        &mut self,
        sight: Sight<'_>,
        start: usize,
        end: usize,
        name: &[u8],
        new: &New<'_>,
    ) {
        let (mut few, mut many) = (Few::new(), Vec::new());
        let out = if 2 * AROUND + name.len() + new.size() <= FEW_SIZE && new.is_short() {
            self.encode(sight, name, new, &mut few);
            few.bytes()
        } else {
            self.encode(sight, name, new, &mut many);
            &many
        };
        if start == self.bytes.len() {
            self.known = Known::at(self.count as usize, start);
        } else if start < usize::from(self.known.offset) {
            self.known = Known::default();
        }
        self.splice(start, end, out);
        self.count = self.count + u32::from(!out.is_empty()) - u32::from(end > start);
    }

    /// Appends an element that another leaf of the same body holds.
    pub(super) fn take_over(&mut self, sight: Sight<'_>, item: &Item<'_>) {
        let end = self.bytes.len();
        self.write(sight, end, end, item.name.bytes(), &rewritten(&item.cell));
    }

    /// The elements of this leaf and of the one after it.
    pub(super) fn joined(&self, next: &Leaf, sight: Sight<'_>) -> Leaf {
        let size = self.bytes.len() + next.bytes.len();
        let mut both = Leaf::roomy(Hlc(self.hlc), self.lower, rounded(size));
        both.bytes.extend_from_slice(&self.bytes);
        both.count = self.count;
        // Told from the same moment, and not from a position: their bytes say the same here.
        if sight.kind != Kind::List && next.hlc == self.hlc {
            both.bytes.extend_from_slice(&next.bytes);
            both.count += next.count;
        } else {
            next.items(sight).for_each(|(_, item)| both.take_over(sight, &item));
        }
        both
    }

    fn splice(&mut self, start: usize, end: usize, with: &[u8]) {
        let (len, gone) = (self.bytes.len(), end - start);
        if with.len() > gone {
            let more = with.len() - gone;
            if self.bytes.capacity() - len < more {
                // As the allocator rounds it, so that no room is lost twice.
                let wanted = rounded(len + more);
                self.bytes.reserve_exact(wanted - len);
            }
            if start == len {
                self.bytes.extend_from_slice(with);
                return;
            }
            self.bytes.resize(len + more, 0);
            self.bytes.copy_within(end..len, end + more);
        } else {
            self.bytes.copy_within(end..len, start + with.len());
            self.bytes.truncate(len - gone + with.len());
            if self.bytes.capacity() > 2 * self.bytes.len() + 64 {
                self.bytes.shrink_to(rounded(self.bytes.len()));
            }
        }
        self.bytes[start..start + with.len()].copy_from_slice(with);
    }

    fn encode(&self, sight: Sight<'_>, name: &[u8], new: &New<'_>, out: &mut impl Put) {
        match new {
            New::Keep | New::Gone => {}
            New::Single { dot, value, expire_at } => {
                let author = sight.actors.iter().position(|actor| *actor == dot.actor);
                match author {
                    Some(author) => {
                        self.encode_single(sight, name, *dot, author as u8, value, *expire_at, out);
                    }
                    None => {
                        let register = Register::single(*dot, value, *expire_at);
                        encode_register(sight.kind, name, &register, out);
                    }
                }
            }
            New::Register(register) => encode_register(sight.kind, name, register, out),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "all that an element is")]
    fn encode_single(
        &self,
        sight: Sight<'_>,
        name: &[u8],
        dot: Dot,
        author: u8,
        value: &Packed<'_>,
        expire_at: Option<UnixMs>,
        out: &mut impl Put,
    ) {
        let is_list = sight.kind == Kind::List;
        let place = if is_list { split_name(name).filter(|(_, born)| *born == dot) } else { None };
        let is_score = sight.kind == Kind::Zset && !value.lz4 && value.bytes.len() == 8;
        let special = if is_list { place.is_none() } else { is_score };
        let form = match (value.lz4, value.bytes.is_empty()) {
            (true, _) => LZ4,
            (false, true) => NOTHING,
            (false, false) => RAW,
        };
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let flags = flag(expire_at.is_some(), EXPIRES) | flag(special, SPECIAL);
        out.put_u8(form | flags | author << ACTOR_SHIFT);
        match place {
            Some((step, _)) => out.put_varint(zigzag(step, self.lower)),
            None => out.put_bytes(name),
        }
        if let Some(at) = expire_at {
            out.put_varint(at.0);
        }
        out.put_varint(zigzag(dot.hlc.0, self.hlc));
        if form == LZ4 {
            out.put_varint(u64::from(value.raw_len));
        }
        match form {
            NOTHING => {}
            _ if is_score => out.put(value.bytes),
            _ => out.put_bytes(value.bytes),
        }
    }

    /// Whether the bytes are elements, as many as the leaf says: for bytes from outside.
    pub(super) fn check(&self, sight: Sight<'_>) -> Result<(), WireError> {
        let mut cursor = Cursor::new(&self.bytes);
        for _ in 0..self.count {
            check_item(&mut cursor, sight)?;
        }
        cursor.end()
    }
}

/// Whether two names of one length are the same. Names differ at their ends more often than at their
/// beginnings.
#[inline]
fn same(a: &[u8], b: &[u8]) -> bool {
    match (a.last_chunk::<8>(), b.last_chunk::<8>()) {
        (Some(x), Some(y)) => u64::from_ne_bytes(*x) == u64::from_ne_bytes(*y) && a == b,
        _ => a == b,
    }
}

/// What the allocator makes of a size, about: so that what is left over can be used.
fn rounded(size: usize) -> usize {
    if size <= 128 {
        return size.next_multiple_of(16);
    }
    let step = 1 << ((size - 1).ilog2() - 2);
    size.next_multiple_of(step)
}

fn encode_register(kind: Kind, name: &[u8], register: &Register, out: &mut impl Put) {
    let special = if kind == Kind::List { SPECIAL } else { 0 };
    out.put_u8(REGISTER | special | (ACTORS_MAX as u8) << ACTOR_SHIFT);
    out.put_bytes(name);
    let mut bytes = Vec::with_capacity(AROUND);
    register.encode(&mut bytes);
    out.put_bytes(&bytes);
}

fn check_item(cursor: &mut Cursor<'_>, sight: Sight<'_>) -> Result<(), WireError> {
    const MALFORMED: WireError = WireError::Malformed("element");
    let head = cursor.u8()?;
    let is_list = sight.kind == Kind::List;
    if is_list && head & SPECIAL == 0 {
        cursor.varint()?;
    } else {
        let name = cursor.bytes()?;
        if is_list && name.len() < PLAIN_NAME_SIZE {
            return Err(MALFORMED);
        }
    }
    if head & FORM == REGISTER {
        let mut register = Cursor::new(cursor.bytes()?);
        Register::decode(&mut register)?;
        register.end()?;
        return if is_list && head & SPECIAL == 0 { Err(MALFORMED) } else { Ok(()) };
    }
    if usize::from(head >> ACTOR_SHIFT) >= sight.actors.len() {
        return Err(MALFORMED);
    }
    if head & EXPIRES != 0 {
        cursor.varint()?;
    }
    cursor.varint()?;
    match head & FORM {
        NOTHING => {}
        _ if sight.kind == Kind::Zset && head & SPECIAL != 0 => {
            if head & FORM != RAW {
                return Err(MALFORMED);
            }
            cursor.take(8)?;
        }
        form => {
            decode_packed(cursor, form == LZ4)?;
        }
    }
    Ok(())
}
