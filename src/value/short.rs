//! The short form of a fragment: what the common write of a collection travels and is logged as.
//!
//! One element is set or removed, over writes that the author has seen. A [fragment](Fragment)
//! says the same in about twice the bytes, and bytes are what a small write costs: they are
//! written, read again by compaction and sent.
//!
//! ```text
//! head u8 │ dot │ n varint │ previous write varint, as it is before the dot
//!         │ count of replaced writes varint
//!         │   { as it is before the dot varint │ [ actor u32, if not all are the dot's ] │ n varint } …
//!         │ name, varint-prefixed; or of a list the position in steps from the middle, zigzag varint,
//!         │   if the rest of the name is the dot, or of a removal the first dot that it replaces
//!         │ [ expire_at varint ] │ [ raw_len varint, if LZ4 ] │ [ value, varint-prefixed ]
//!
//! head    0–1  0 it is gone · 1 a value as it came · 2 one LZ4 block · 3 an empty value
//!         2    it expires
//!         3    the name is told as a position
//!         4–6  type: 1 list · 2 hash · 3 set · 4 sorted set
//!         7    all that is replaced was written by the dot's actor
//! ```
//!
//! Each has one form of bytes: what could be told shorter and is not is refused.

use smallvec::SmallVec;

use crate::base::id::Actor;
use crate::base::time::{Dot, Hlc, UnixMs};
use crate::base::wire::{Cursor, FEW_SIZE, Few, Put, WireError};
use crate::version::context::{Mark, decode_n};

use super::body::leaf::{New, unzigzag, zigzag};
use super::element::{FIRST_STEP, PLAIN_NAME_SIZE, kind_of, place_name, split_name, tag};
use super::entry::Entry;
use super::fragment::Fragment;
use super::packed::Packed;
use super::register::{decode_dot, decode_packed, encode_dot};
use super::view::Kind;

const FORM: u8 = 3;
const GONE: u8 = 0;
const RAW: u8 = 1;
const LZ4: u8 = 2;
const NOTHING: u8 = 3;
const EXPIRES: u8 = 4;
const PLACE: u8 = 8;
const KIND_SHIFT: u8 = 4;
const OWN: u8 = 128;

/// Most bytes of all but what it replaces, its name and its value: head, dot, n, previous write, five
/// lengths, position, expiry.
const AROUND: usize = 1 + 12 + 5 + 10 + 5 * 5 + 10 + 10;

/// Most bytes of a write that it replaces.
const MARK_SIZE_MAX: usize = 10 + 4 + 5;

const MALFORMED: WireError = WireError::Malformed("element's write");

/// A fragment of one element, borrowed from its bytes. See the head of this file.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Short<'a> {
    /// The write, and its author's count of writes on the key.
    pub(super) dot: Dot,
    pub(super) n: u32,
    /// The author's write on the key before it; zero for none.
    pub(super) prev: Hlc,
    /// The writes that it replaces, sorted by dot; all are older.
    pub(super) named: SmallVec<[Mark; 2]>,
    pub(super) kind: Kind,
    pub(super) name: SmallVec<[u8; 32]>,
    /// What the element holds now and when it expires; `None`: it is gone.
    pub(super) value: Option<(Packed<'a>, Option<UnixMs>)>,
}

impl<'a> Short<'a> {
    /// The dot that a list's name may end with and need not say.
    fn told_dot(&self) -> Option<Dot> {
        match self.value {
            Some(_) => Some(self.dot),
            None => self.named.first().map(|mark| mark.dot),
        }
    }

    /// The position that stands for the whole name.
    fn step(&self) -> Option<u64> {
        if self.kind != Kind::List {
            return None;
        }
        split_name(&self.name)
            .filter(|(_, born)| Some(*born) == self.told_dot())
            .map(|(step, _)| step)
    }

    fn is_own(&self) -> bool {
        !self.named.is_empty() && self.named.iter().all(|mark| mark.dot.actor == self.dot.actor)
    }

    /// The bytes.
    pub(super) fn encoded(&self) -> SmallVec<[u8; 128]> {
        let value = self.value.map_or(0, |(value, _)| value.bytes.len());
        if AROUND + MARK_SIZE_MAX * self.named.len() + self.name.len() + value <= FEW_SIZE {
            let mut few = Few::new();
            self.encode(&mut few);
            return SmallVec::from_slice(few.bytes());
        }
        let mut out = SmallVec::new();
        self.encode(&mut out);
        out
    }

    /// Appends the bytes.
    pub(super) fn encode(&self, out: &mut impl Put) {
        let (step, is_own) = (self.step(), self.is_own());
        let form = match &self.value {
            None => GONE,
            Some((value, _)) if value.lz4 => LZ4,
            Some((value, _)) if value.bytes.is_empty() => NOTHING,
            Some(_) => RAW,
        };
        let expire_at = self.value.and_then(|(_, expire_at)| expire_at);
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let flags = flag(expire_at.is_some(), EXPIRES) | flag(step.is_some(), PLACE);
        out.put_u8(form | flags | tag(self.kind) << KIND_SHIFT | flag(is_own, OWN));
        encode_dot(out, self.dot);
        out.put_varint(u64::from(self.n));
        out.put_varint(self.dot.hlc.0 - self.prev.0);
        out.put_varint(self.named.len() as u64);
        for mark in &self.named {
            out.put_varint(self.dot.hlc.0 - mark.dot.hlc.0);
            if !is_own {
                out.put_u32(mark.dot.actor.0);
            }
            out.put_varint(u64::from(mark.n));
        }
        match step {
            Some(step) => out.put_varint(zigzag(step, FIRST_STEP)),
            None => out.put_bytes(&self.name),
        }
        if let Some(at) = expire_at {
            out.put_varint(at.0);
        }
        if let Some((value, _)) = &self.value {
            match form {
                LZ4 => {
                    out.put_varint(u64::from(value.raw_len));
                    out.put_bytes(value.bytes);
                }
                RAW => out.put_bytes(value.bytes),
                _ => {}
            }
        }
    }

    /// Reads one from all of `bytes`.
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Short<'a>, WireError> {
        let mut cursor = Cursor::new(bytes);
        let head = cursor.u8()?;
        let kind = kind_of(head >> KIND_SHIFT & 7).ok_or(MALFORMED)?;
        let dot = decode_dot(&mut cursor)?;
        let n = decode_n(&mut cursor)?;
        let before =
            |by: u64| dot.hlc.0.checked_sub(by).filter(|_| by > 0).map(Hlc).ok_or(MALFORMED);
        let prev = before(cursor.varint()?)?;
        let mut named = SmallVec::<[Mark; 2]>::new();
        for _ in 0..cursor.varint()? {
            let hlc = before(cursor.varint()?)?;
            let actor = if head & OWN != 0 { dot.actor } else { Actor(cursor.u32()?) };
            let mark = Mark { dot: Dot::new(hlc, actor), n: decode_n(&mut cursor)? };
            if hlc == Hlc::ZERO || named.last().is_some_and(|last| last.dot >= mark.dot) {
                return Err(MALFORMED);
            }
            named.push(mark);
        }
        let mut short = Short { dot, n, prev, named, kind, name: SmallVec::new(), value: None };
        let form = head & FORM;
        if form != GONE {
            // For `told_dot`; what it really is comes below.
            short.value = Some((Packed::raw(&[]), None));
        }
        if head & PLACE == 0 {
            short.name = SmallVec::from_slice(cursor.bytes()?);
        } else {
            let step = unzigzag(cursor.varint()?, FIRST_STEP);
            let born = short.told_dot().ok_or(MALFORMED)?;
            short.name = SmallVec::from_slice(&place_name(step, born));
        }
        let expire_at = if head & EXPIRES != 0 { Some(UnixMs(cursor.varint()?)) } else { None };
        short.value = match form {
            GONE => None,
            NOTHING => Some((Packed::raw(&[]), expire_at)),
            form => Some((decode_packed(&mut cursor, form == LZ4)?, expire_at)),
        };
        cursor.end()?;
        let says = |flag: u8| head & flag != 0;
        let is_empty = short.value.is_some_and(|(value, _)| value.bytes.is_empty());
        let has_one_form = says(OWN) == short.is_own()
            && says(PLACE) == short.step().is_some()
            && (form == NOTHING) == is_empty
            && !(form == GONE && says(EXPIRES));
        let is_named = kind != Kind::List || short.name.len() >= PLAIN_NAME_SIZE;
        if has_one_form && is_named { Ok(short) } else { Err(MALFORMED) }
    }

    /// The same as a fragment, whose join it is.
    pub(super) fn into_fragment(self) -> Fragment {
        let mut part = Entry::new();
        for mark in &self.named {
            part.context.insert(mark.dot, mark.n);
        }
        part.context.insert(self.dot, self.n);
        let mut gone = Vec::new();
        match self.value {
            Some((value, expire_at)) => {
                let new = New::Single { dot: self.dot, value, expire_at };
                part.body_mut(self.kind).update(&self.name, |_| new);
            }
            None => gone.push((self.kind, self.name.to_vec())),
        }
        Fragment::new(self.dot, Some(self.prev), part, gone)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    type Parts = (u64, Vec<(u64, u32)>, u8, Vec<u8>, Option<u64>, Option<(Vec<u8>, Option<u64>)>);

    fn parts() -> impl Strategy<Value = Parts> {
        let value =
            proptest::option::of((vec(any::<u8>(), 0..20), proptest::option::of(any::<u64>())));
        let named = vec((1u64..1_000, 1u32..4), 0..4);
        let place = proptest::option::of(any::<u64>());
        (0u64..1_000, named, 1u8..5, vec(any::<u8>(), 24..30), place, value)
    }

    fn short<'a>(parts: &'a Parts) -> Short<'a> {
        let (prev, named, kind, name, place, value) = parts;
        let dot = Dot::new(Hlc(1_000), Actor(2));
        let mut named: SmallVec<[Mark; 2]> = named
            .iter()
            .map(|&(hlc, actor)| Mark { dot: Dot::new(Hlc(hlc), Actor(actor)), n: actor })
            .collect();
        named.sort_unstable_by_key(|mark| mark.dot);
        named.dedup_by_key(|mark| mark.dot);
        let value =
            value.as_ref().map(|(value, expire_at)| (Packed::raw(value), expire_at.map(UnixMs)));
        let mut short = Short {
            dot,
            n: 7,
            prev: Hlc(*prev),
            named,
            kind: kind_of(*kind).expect("a type"),
            name: SmallVec::from_slice(name),
            value,
        };
        if let (Some(step), Some(born)) = (place, short.told_dot()) {
            short.name = SmallVec::from_slice(&place_name(*step, born));
        }
        short
    }

    proptest! {
        #[test]
        fn comes_back(parts in parts()) {
            let short = short(&parts);
            let mut bytes = Vec::new();
            short.encode(&mut bytes);
            prop_assert_eq!(Short::decode(&bytes), Ok(short.clone()));
            for end in 0..bytes.len() {
                prop_assert!(Short::decode(&bytes[..end]).is_err());
            }
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                // Another one or refused; each has one form of bytes, and is a fragment.
                if let Ok(read) = Short::decode(&flipped) {
                    let mut again = Vec::new();
                    read.encode(&mut again);
                    prop_assert_eq!(&again, &flipped);
                    let fragment = read.into_fragment();
                    let mut long = Vec::new();
                    fragment.encode(&mut long);
                    prop_assert_eq!(Fragment::decode(&long), Ok(fragment));
                }
            }
        }

        #[test]
        fn garbage_is_no_panic(bytes in vec(prop_oneof![0u8..4, any::<u8>()], 0..60)) {
            let _ = Short::decode(&bytes).map(Short::into_fragment);
        }
    }

    #[test]
    fn the_bytes_are_frozen() {
        let dot = Dot::new(Hlc(0x1_0010), Actor(1));
        let older = Mark { dot: Dot::new(Hlc(0x1_0000), Actor(1)), n: 0 };
        let mut short = Short {
            dot,
            n: 5,
            prev: Hlc(0x1_000F),
            named: SmallVec::from_slice(&[older]),
            kind: Kind::Hash,
            name: SmallVec::from_slice(b"field"),
            value: Some((Packed::raw(b"abc"), Some(UnixMs(300)))),
        };
        let hex = |short: &Short<'_>| {
            let mut bytes = Vec::new();
            short.encode(&mut bytes);
            bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        let frozen = |text: &str| text.split_whitespace().collect::<String>();
        // Head, dot, n, previous write, what it replaces, name, expiry, value.
        let told = "a5 1000010000000000 01000000 05 01 01 1000 05 6669656c64 ac02 03 616263";
        assert_eq!(hex(&short), frozen(told));
        // A push: nothing is replaced, and the name is a position.
        short.kind = Kind::List;
        short.named.clear();
        short.name = SmallVec::from_slice(&place_name(FIRST_STEP - 1, dot));
        short.value = Some((Packed::raw(b"abc"), None));
        assert_eq!(hex(&short), frozen("19 1000010000000000 01000000 05 01 00 01 03 616263"));
    }
}
