//! A hint: a sealed segment's frames in order, with the values of plain strings left out.
//!
//! A node whose data is larger than its memory needs at a restart what it keeps in memory of a
//! cold key, and not the value: so it reads the hint, a fraction of the segment, instead of the
//! segment (Sheehy and Smith, "Bitcask", 2010, call the same thing a hint file).
//!
//! ```text
//! DIR/log/lane-00/0000000001.hint       beside its segment; written as `.hint.new`, then renamed
//!
//! ┌──────────┬────────┬────────────────┬─────────────┬──────────┬──────────┬────────┐
//! │ magic 8  │ format │ the segment's  │ the seg-    │ length   │ crc u32  │ rows … │
//! │"kvorumhn"│ u16    │ own head, 40   │ ment's      │ of rows  │          │        │
//! │          │        │                │ length u32  │ u32      │          │        │
//! └──────────┴────────┴────────────────┴─────────────┴──────────┴──────────┴────────┘
//!   crc: CRC-32 of all other bytes of the file
//!
//! row    tag u8 · vnode varint · gap varint · body      one a frame; Marks have none
//!   gap: bytes from the end of the row before's frame (the segment's head) to this one's
//!
//! tag  1 +f  Stub    a State whose record is plain:
//!                    key, varint-prefixed · hlc u64 · actor u32 · n varint · [expire_at varint]
//!                    · [raw_len varint] · stored length varint · payload's length varint
//!                    f: 16 it expires · 32 the value is one LZ4 block
//!      2 +k  Frame   any other frame: its payload, varint-prefixed
//!                    k: 0 State · 16 Join · 32 Gone
//! ```
//!
//! Integers are little-endian. Invariant: a hint is believed whole or not at all. It names its
//! segment by that segment's own head and length, and one checksum guards all of it; in doubt the
//! segment itself is read. Nothing is lost with a hint, so nothing ever waits for one.

use std::io;
use std::path::{Path, PathBuf};

use crate::base::id::{Actor, VnodeId};
use crate::base::limits::KEY_SIZE_MAX;
use crate::base::time::{Dot, Hlc, UnixMs};
use crate::base::wire::{Cursor, Put, WireError};
use crate::value::packed::Packed;
use crate::value::plain::Plain;
use crate::value::record::{self, Record};

use super::disk::Disk;
use super::frame::{HEADER_SIZE, Kind};
use super::keyspace::Keyspace;
use super::place::Place;
use super::segment::{HEAD_SIZE, Head};

/// The version of hints that this program writes and reads.
pub const FORMAT: u16 = 1;

const MAGIC: &[u8; 8] = b"kvorumhn";

/// Bytes before the first row.
const PREFACE_SIZE: usize = 8 + 2 + HEAD_SIZE + 4 + 4 + 4;
const CRC_AT: usize = PREFACE_SIZE - 4;

/// A hint of more than this part of its segment saves too little reading to be kept.
const PART_MAX: u32 = 4;

/// Values up to this long stay in the hint: without one the stub would hardly be smaller.
const VALUE_KEPT_MAX: usize = 32;

const STUB: u8 = 1;
const FRAME: u8 = 2;
const EXPIRES: u8 = 16;
const LZ4: u8 = 32;
const FRAME_KIND: u8 = 16;

/// A hint's file name.
pub fn hint_name(number: u32) -> String {
    format!("{number:010}.hint")
}

/// The number of a hint's segment by the hint's file name.
pub fn hint_number(name: &str) -> Option<u32> {
    name.strip_suffix(".hint").filter(|digits| digits.len() == 10)?.parse().ok()
}

/// A plain string whose value stayed in the segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stub<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// The write that set it.
    pub dot: Dot,
    /// How many writes on the key its author had then made.
    pub n: u32,
    /// When it expires.
    pub expire_at: Option<UnixMs>,
    /// Length of the string, unpacked.
    pub raw_len: u32,
    /// Whether it is stored as one LZ4 block.
    pub lz4: bool,
    /// Length of what is stored of it.
    pub stored_len: u32,
    /// Length of the frame's payload: the whole record.
    pub payload_len: u32,
}

/// What a row says of its frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told<'a> {
    /// A State whose value stayed in the segment.
    Stub(Stub<'a>),
    /// The frame's kind and payload, as in the segment.
    Frame(Kind, &'a [u8]),
}

/// One frame as the hint tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row<'a> {
    /// Whose it is.
    pub vnode: VnodeId,
    /// Where the frame is.
    pub place: Place,
    /// What it holds.
    pub told: Told<'a>,
}

impl Row<'_> {
    /// Does in `keyspace` what the frame says; of a stub, the key is cold then.
    ///
    /// # Errors
    /// The payload is no record. Nothing was changed.
    pub fn replay(&self, keyspace: &Keyspace) -> Result<(), WireError> {
        keyspace.write(self.vnode, UnixMs(0), |vnode| match &self.told {
            Told::Frame(kind, payload) => vnode.replay(*kind, self.place, payload),
            Told::Stub(stub) => {
                vnode.replay_stub(self.place, stub.key, &stub.plain(), stub.stored_len as usize);
                Ok(())
            }
        })
    }
}

impl Stub<'_> {
    /// The string without its bytes.
    fn plain(&self) -> Plain<'static> {
        let value = Packed { raw_len: self.raw_len, lz4: self.lz4, bytes: &[] };
        Plain { dot: self.dot, n: self.n, expire_at: self.expire_at, value }
    }
}

/// A hint being made, in memory.
#[derive(Debug)]
pub struct Draft {
    head: Head,
    segment_len: u32,
    rows: Vec<u8>,
    end: u32,
}

impl Draft {
    /// Of the sealed segment with this head and length.
    pub fn new(head: Head, segment_len: u32) -> Draft {
        Draft { head, segment_len, rows: Vec::new(), end: HEAD_SIZE as u32 }
    }

    /// Adds the segment's next frame. `false` if the hint is getting too large to be of use; it
    /// is then to be dropped.
    pub fn add(&mut self, vnode: VnodeId, offset: u32, kind: Kind, payload: &[u8]) -> bool {
        if kind == Kind::Mark {
            return true;
        }
        let gap = offset.checked_sub(self.end).expect("frames come in order");
        self.end = offset + (HEADER_SIZE + payload.len()) as u32;
        match plain_of(kind, payload) {
            Some((key, plain)) => self.add_stub(vnode, gap, key, &plain, payload.len()),
            None => {
                self.rows.put_u8(FRAME | ((kind as u8) * FRAME_KIND));
                self.begin_row(vnode, gap);
                self.rows.put_bytes(payload);
            }
        }
        self.rows.len() <= (self.segment_len / PART_MAX) as usize
    }

    fn begin_row(&mut self, vnode: VnodeId, gap: u32) {
        self.rows.put_varint(u64::from(vnode.0));
        self.rows.put_varint(u64::from(gap));
    }

    fn add_stub(&mut self, vnode: VnodeId, gap: u32, key: &[u8], plain: &Plain<'_>, len: usize) {
        let expires = if plain.expire_at.is_some() { EXPIRES } else { 0 };
        let packed = if plain.value.lz4 { LZ4 } else { 0 };
        self.rows.put_u8(STUB | expires | packed);
        self.begin_row(vnode, gap);
        self.rows.put_bytes(key);
        self.rows.put_u64(plain.dot.hlc.0);
        self.rows.put_u32(plain.dot.actor.0);
        self.rows.put_varint(u64::from(plain.n));
        if let Some(at) = plain.expire_at {
            self.rows.put_varint(at.0);
        }
        if plain.value.lz4 {
            self.rows.put_varint(u64::from(plain.value.raw_len));
        }
        self.rows.put_varint(plain.value.bytes.len() as u64);
        self.rows.put_varint(len as u64);
    }

    /// The file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(PREFACE_SIZE + self.rows.len());
        out.put(MAGIC);
        out.put_u16(FORMAT);
        out.put(&self.head.encode());
        out.put_u32(self.segment_len);
        out.put_u32(self.rows.len() as u32);
        out.put_u32(0);
        out.put(&self.rows);
        let crc = crc_of(&out);
        out[CRC_AT..PREFACE_SIZE].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Writes the hint into `folder`, its segment's: whole and durable, or not at all.
    ///
    /// # Errors
    /// The disk's. No hint is there then, perhaps a `.hint.new` that the next attempt replaces.
    pub fn write(&self, disk: &dyn Disk, folder: &Path) -> io::Result<()> {
        let path = folder.join(hint_name(self.head.number));
        let fresh = PathBuf::from(format!("{}.new", path.display()));
        remove_if_there(disk, &fresh)?;
        let file = disk.create(&fresh)?;
        file.write_at(0, &self.encode())?;
        file.sync()?;
        disk.rename(&fresh, &path)?;
        disk.sync_folder(folder)
    }
}

/// Removes a file; fine if it is not there.
pub(super) fn remove_if_there(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The plain record of a frame whose value may be left out.
fn plain_of(kind: Kind, payload: &[u8]) -> Option<(&[u8], Plain<'_>)> {
    if kind != Kind::State {
        return None;
    }
    match record::decode(payload) {
        Ok((key, Record::Plain(plain))) if plain.value.bytes.len() > VALUE_KEPT_MAX => {
            Some((key, plain))
        }
        _ => None,
    }
}

fn crc_of(file: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&file[..CRC_AT]);
    crc.update(&file[PREFACE_SIZE..]);
    crc.finalize()
}

/// A hint that has been read and checked as a whole.
#[derive(Debug)]
pub struct Hint {
    bytes: Vec<u8>,
    head: Head,
    segment_len: u32,
}

impl Hint {
    /// Reads the hint at `path`, the one of the segment with this head and length. `None` if there
    /// is none to be believed: the segment itself must be read then.
    pub fn read(disk: &dyn Disk, path: &Path, head: &Head, segment_len: u32) -> Option<Hint> {
        let file = disk.open(path).ok()?;
        let len = usize::try_from(file.len().ok()?).ok()?;
        // A length is believed only within what a hint of this segment can have.
        if len > PREFACE_SIZE + (segment_len / PART_MAX) as usize {
            return None;
        }
        let mut bytes = vec![0; len];
        let read = file.read_at(0, &mut bytes).ok()?;
        let hint = Hint::decode(bytes)?;
        let own = hint.head == *head && hint.segment_len == segment_len;
        (own && read == len).then_some(hint)
    }

    /// Checks all of a hint's bytes.
    fn decode(bytes: Vec<u8>) -> Option<Hint> {
        let (preface, rows) = bytes.split_at_checked(PREFACE_SIZE)?;
        let mut cursor = Cursor::new(preface);
        let magic = cursor.take(MAGIC.len()).ok()?;
        if magic != MAGIC || cursor.u16().ok()? != FORMAT {
            return None;
        }
        let head = Head::decode(cursor.take(HEAD_SIZE).ok()?).ok()?;
        let segment_len = cursor.u32().ok()?;
        let whole = cursor.u32().ok()? as usize == rows.len();
        if !whole || cursor.u32().ok()? != crc_of(&bytes) {
            return None;
        }
        let hint = Hint { bytes, head, segment_len };
        let mut rows = hint.walk();
        while rows.step().ok()?.is_some() {}
        Some(hint)
    }

    /// The segment's head.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Bytes of the file.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    fn walk(&self) -> Rows<'_> {
        Rows {
            cursor: Cursor::new(&self.bytes[PREFACE_SIZE..]),
            segment: self.head.number,
            vnodes: self.head.vnodes,
            end: HEAD_SIZE as u32,
            limit: self.segment_len,
        }
    }

    /// The rows, in the frames' order.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        let mut rows = self.walk();
        std::iter::from_fn(move || rows.step().expect("they were checked when they were read"))
    }
}

struct Rows<'a> {
    cursor: Cursor<'a>,
    segment: u32,
    vnodes: u16,
    end: u32,
    limit: u32,
}

impl<'a> Rows<'a> {
    fn step(&mut self) -> Result<Option<Row<'a>>, WireError> {
        if self.cursor.is_empty() {
            return Ok(None);
        }
        let tag = self.cursor.u8()?;
        let vnode = self.cursor.varint()?;
        if vnode >= u64::from(self.vnodes) {
            return Err(WireError::Malformed("vnode"));
        }
        let vnode = VnodeId(vnode as u16);
        let gap = self.cursor.varint()?;
        let (told, payload_len) = match tag {
            _ if tag & !(EXPIRES | LZ4) == STUB => {
                let stub = stub(&mut self.cursor, tag)?;
                (Told::Stub(stub), stub.payload_len as usize)
            }
            _ if tag & !(3 * FRAME_KIND) == FRAME => {
                let kind = match tag / FRAME_KIND {
                    0 => Kind::State,
                    1 => Kind::Join,
                    2 => Kind::Gone,
                    _ => return Err(WireError::Malformed("kind of a frame")),
                };
                let payload = self.cursor.bytes()?;
                (Told::Frame(kind, payload), payload.len())
            }
            _ => return Err(WireError::Malformed("tag of a row")),
        };
        let place = self.pass(gap, payload_len)?;
        Ok(Some(Row { vnode, place, told }))
    }

    /// Where a frame is that comes `gap` bytes after the one before; it must end in the segment.
    fn pass(&mut self, gap: u64, payload_len: usize) -> Result<Place, WireError> {
        let offset = u64::from(self.end).saturating_add(gap);
        let end = offset.saturating_add((HEADER_SIZE + payload_len) as u64);
        if end > u64::from(self.limit) {
            return Err(WireError::Malformed("place of a frame"));
        }
        self.end = end as u32;
        Ok(Place { segment: self.segment, offset: offset as u32 })
    }
}

fn stub<'a>(cursor: &mut Cursor<'a>, tag: u8) -> Result<Stub<'a>, WireError> {
    let key = cursor.bytes()?;
    let dot = Dot::new(Hlc(cursor.u64()?), Actor(cursor.u32()?));
    if key.len() > KEY_SIZE_MAX || dot.hlc == Hlc::ZERO {
        return Err(WireError::Malformed("stub"));
    }
    let n = word(cursor)?;
    let expire_at = if tag & EXPIRES != 0 { Some(UnixMs(cursor.varint()?)) } else { None };
    let lz4 = tag & LZ4 != 0;
    let packed = if lz4 { Some(word(cursor)?) } else { None };
    let stored_len = word(cursor)?;
    let payload_len = word(cursor)?;
    let raw_len = packed.unwrap_or(stored_len);
    Ok(Stub { key, dot, n, expire_at, raw_len, lz4, stored_len, payload_len })
}

fn word(cursor: &mut Cursor<'_>) -> Result<u32, WireError> {
    u32::try_from(cursor.varint()?).map_err(|_| WireError::Malformed("length"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::disk::RealDisk;
    use crate::value::record::encode_plain;
    use proptest::prelude::*;

    const HEAD: Head =
        Head { lane: 1, vnodes: 4_096, lanes: 2, number: 7, ceiling: Hlc(9), cluster: 0x1122 };

    fn plain(key: &[u8], hlc: u64, expire: Option<u64>, lz4: bool, value: &[u8]) -> Vec<u8> {
        let raw_len = if lz4 { value.len() as u32 * 3 } else { value.len() as u32 };
        let mut out = Vec::new();
        let plain = Plain {
            dot: Dot::new(Hlc(hlc), Actor(5)),
            n: 3,
            expire_at: expire.map(UnixMs),
            value: Packed { raw_len, lz4, bytes: value },
        };
        encode_plain(&mut out, key, &plain);
        out
    }

    /// A draft of frames laid one after the other, and where each of them is.
    fn drafted(frames: &[(u16, Kind, Vec<u8>)]) -> (Draft, Vec<u32>) {
        let sizes: usize = frames.iter().map(|frame| HEADER_SIZE + frame.2.len()).sum();
        let mut draft = Draft::new(HEAD, 4 * (HEAD_SIZE + sizes + 32 * frames.len()) as u32);
        let (mut offset, mut offsets) = (HEAD_SIZE as u32, Vec::new());
        for (vnode, kind, payload) in frames {
            assert!(draft.add(VnodeId(*vnode), offset, *kind, payload));
            offsets.push(offset);
            offset += (HEADER_SIZE + payload.len()) as u32;
        }
        (draft, offsets)
    }

    fn story() -> Vec<(u16, Kind, Vec<u8>)> {
        vec![
            (3, Kind::State, plain(b"key", 7, Some(99), true, &[1; 40])),
            (0, Kind::Mark, vec![1; 9]),
            (257, Kind::Gone, b"\x03gon".to_vec()),
            (5, Kind::Join, plain(b"join", 8, None, false, &[2; 40])),
            (6, Kind::State, plain(b"k", 8, None, false, b"small")),
        ]
    }

    /// Pinned: a change of these bytes is a new format.
    #[test]
    fn the_format_is_frozen() {
        let frames = [
            (3, Kind::State, plain(b"key", 7, Some(99), true, &[1; 40])),
            (0, Kind::Mark, vec![1; 9]),
            (257, Kind::Gone, b"\x03gon".to_vec()),
        ];
        let bytes = drafted(&frames).0.encode();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "6b766f72756d686e01006b766f72756d736701000100001002000700000009000000000000002211\
             000000000000c21eddf4d8030000210000001796cff6310300036b65790700000000000000050000\
             00036378283d228102150403676f6e"
        );
    }

    #[test]
    fn rows_tell_places_and_leave_plain_values_out() {
        let (draft, offsets) = drafted(&story());
        let hint = Hint::decode(draft.encode()).unwrap();
        let rows: Vec<_> = hint.rows().collect();
        let places: Vec<_> = rows.iter().map(|row| row.place.offset).collect();
        assert_eq!(places, [offsets[0], offsets[2], offsets[3], offsets[4]]);
        let stub = Stub {
            key: b"key",
            dot: Dot::new(Hlc(7), Actor(5)),
            n: 3,
            expire_at: Some(UnixMs(99)),
            raw_len: 120,
            lz4: true,
            stored_len: 40,
            payload_len: story()[0].2.len() as u32,
        };
        assert_eq!(rows[0].told, Told::Stub(stub));
        assert_eq!(rows[1].told, Told::Frame(Kind::Gone, b"\x03gon"));
        assert_eq!((rows[1].vnode, rows[1].place.segment), (VnodeId(257), 7));
        assert!(matches!(rows[2].told, Told::Frame(Kind::Join, _)), "joined, not superseding");
        assert_eq!(rows[3].told, Told::Frame(Kind::State, &story()[4].2), "no gain in a stub");
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_seen() {
        let bytes = drafted(&story()).0.encode();
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Hint::decode(bad).is_none(), "bit {bit}");
        }
        for end in 0..bytes.len() {
            assert!(Hint::decode(bytes[..end].to_vec()).is_none(), "cut at {end}");
        }
    }

    #[test]
    fn a_hint_is_its_own_segments_or_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(hint_name(7));
        let (draft, _) = drafted(&story());
        assert!(Hint::read(&RealDisk, &path, &HEAD, draft.segment_len).is_none(), "not there");
        std::fs::write(folder.path().join("0000000007.hint.new"), b"left over").unwrap();
        draft.write(&RealDisk, folder.path()).unwrap();
        assert!(Hint::read(&RealDisk, &path, &HEAD, draft.segment_len).is_some());
        assert!(Hint::read(&RealDisk, &path, &HEAD, draft.segment_len + 1).is_none());
        let other = Head { cluster: 0x1123, ..HEAD };
        assert!(Hint::read(&RealDisk, &path, &other, draft.segment_len).is_none());
        draft.write(&RealDisk, folder.path()).unwrap();
        assert_eq!(RealDisk.list(folder.path()).unwrap(), [hint_name(7)]);
        assert_eq!(hint_number(&hint_name(7)), Some(7));
        assert_eq!(hint_number("0000000007.hint.new"), None);
    }

    #[test]
    fn a_hint_that_saves_nothing_is_refused() {
        let payload = plain(b"k", 8, None, false, &[0; 20]);
        let size = (HEADER_SIZE + payload.len()) as u32;
        let mut draft = Draft::new(HEAD, HEAD_SIZE as u32 + 100 * size);
        let added = |at| draft.add(VnodeId(0), HEAD_SIZE as u32 + at * size, Kind::State, &payload);
        assert!(!(0..100).all(added));
    }

    proptest! {
        #[test]
        fn every_row_is_read_back(
            frames in proptest::collection::vec(
                (0u16..4_096, 0u8..4, any::<Option<u64>>(), any::<bool>(), 0usize..200), 0..20),
        ) {
            let frames: Vec<_> = frames
                .into_iter()
                .enumerate()
                .map(|(hlc, (vnode, kind, expire, lz4, len))| {
                    let kind = [Kind::State, Kind::Join, Kind::Gone, Kind::Mark][usize::from(kind)];
                    let value = vec![7; len];
                    (vnode, kind, plain(b"a key", hlc as u64 + 1, expire, lz4, &value))
                })
                .collect();
            let (draft, offsets) = drafted(&frames);
            let hint = Hint::decode(draft.encode()).unwrap();
            let mut rows = hint.rows();
            for ((vnode, kind, payload), offset) in frames.iter().zip(offsets) {
                if *kind == Kind::Mark {
                    continue;
                }
                let row = rows.next().unwrap();
                prop_assert_eq!(row.vnode, VnodeId(*vnode));
                prop_assert_eq!(row.place, Place { segment: 7, offset });
                match row.told {
                    Told::Frame(same, bytes) => {
                        prop_assert_eq!((same, bytes), (*kind, &payload[..]));
                    }
                    Told::Stub(stub) => {
                        let (key, Record::Plain(plain)) = record::decode(payload).unwrap() else {
                            panic!("only a plain record has a stub");
                        };
                        prop_assert_eq!(*kind, Kind::State);
                        prop_assert_eq!((stub.key, stub.dot, stub.n), (key, plain.dot, plain.n));
                        prop_assert_eq!(stub.expire_at, plain.expire_at);
                        prop_assert_eq!((stub.raw_len, stub.lz4), (plain.value.raw_len, plain.value.lz4));
                        prop_assert_eq!(stub.stored_len as usize, plain.value.bytes.len());
                        prop_assert_eq!(stub.payload_len as usize, payload.len());
                    }
                }
            }
            prop_assert_eq!(rows.next(), None);
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let mut file = drafted(&story()).0.encode();
            file.truncate(PREFACE_SIZE);
            file.extend_from_slice(&bytes);
            file[CRC_AT - 4..CRC_AT].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
            let crc = crc_of(&file);
            file[CRC_AT..PREFACE_SIZE].copy_from_slice(&crc.to_le_bytes());
            if let Some(hint) = Hint::decode(file) {
                hint.rows().for_each(drop);
            }
        }
    }
}
