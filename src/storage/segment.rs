//! A segment: one file of a lane, written front to back once and never changed.
//!
//! ```text
//! DIR/log/lane-00/0000000001.seg        number within the lane, from 1
//!                 0000000001.hint       its frames without plain values (see `hint`)
//!
//! ┌──────────┬─────────┬─────────┬────────────┬───────────┬──────────┬──────────┬──────────┐
//! │ magic 8  │ format  │ lane    │ vnodes u16 │ lanes u16 │ number   │ ceiling  │ cluster  │
//! │"kvorumsg"│ u16     │ u16     │            │           │ u32      │ u64      │ u64      │
//! ├──────────┼─────────┴─────────┴────────────┴───────────┴──────────┴──────────┴──────────┤
//! │ crc u32  │ frames (see `frame`) …                                                       │
//! └──────────┴─────────────────────────────────────────────────────────────────────────────┘
//!   crc: CRC-32 of the bytes before it
//!   ceiling: no dot that this node issued or saw before this segment began is above it; what
//!            compaction drops may take the records of the highest dots away, this stays
//!   cluster: the cluster's hash seed, hashed: a folder of another cluster is refused
//!
//! Mark payload: u8 1 · u64 n   all segments before this one are durable, and its bytes below n
//!               u8 2 · u64 n   the segment before this one has n bytes; the first frame
//!               u8 3 · u64 0   the log was closed here; the last frame
//! ```
//!
//! Integers are little-endian.

use crate::base::time::Hlc;
use crate::base::wire::{Cursor, Put};

/// Bytes before the first frame.
pub const HEAD_SIZE: usize = 40;

/// The version of segments that this program writes and reads.
pub const FORMAT: u16 = 1;

const MAGIC: &[u8; 8] = b"kvorumsg";

/// What a segment says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// Its lane.
    pub lane: u16,
    /// Vnodes of the cluster.
    pub vnodes: u16,
    /// Lanes of the log; a vnode's lane is its number modulo this.
    pub lanes: u16,
    /// Its number within the lane.
    pub number: u32,
    /// No dot before it is above this.
    pub ceiling: Hlc,
    /// Names the cluster.
    pub cluster: u64,
}

/// Why a file is no segment of this log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeadError {
    /// Too short, damaged, or something else altogether.
    Damaged,
    /// Written by another version of the program.
    Format(u16),
}

impl std::fmt::Display for HeadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HeadError::Damaged => f.write_str("its head is damaged"),
            HeadError::Format(format) => {
                write!(f, "it has format {format}, and this version reads format {FORMAT}")
            }
        }
    }
}

impl std::error::Error for HeadError {}

impl Head {
    /// The head's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.put_u16(FORMAT);
        out.put_u16(self.lane);
        out.put_u16(self.vnodes);
        out.put_u16(self.lanes);
        out.put_u32(self.number);
        out.put_u64(self.ceiling.0);
        out.put_u64(self.cluster);
        out.put_u32(crc32fast::hash(&out));
        debug_assert_eq!(out.len(), HEAD_SIZE);
        out
    }

    /// Reads a head from the start of `bytes`.
    ///
    /// # Errors
    /// They are no head that this version knows.
    pub fn decode(bytes: &[u8]) -> Result<Head, HeadError> {
        let head: &[u8; HEAD_SIZE] = bytes.first_chunk().ok_or(HeadError::Damaged)?;
        let (checked, crc) = head.split_at(HEAD_SIZE - 4);
        if &head[..8] != MAGIC || crc32fast::hash(checked).to_le_bytes() != *crc {
            return Err(HeadError::Damaged);
        }
        let mut cursor = Cursor::new(&checked[8..]);
        let mut read = || {
            let format = cursor.u16()?;
            let head = Head {
                lane: cursor.u16()?,
                vnodes: cursor.u16()?,
                lanes: cursor.u16()?,
                number: cursor.u32()?,
                ceiling: Hlc(cursor.u64()?),
                cluster: cursor.u64()?,
            };
            Ok((format, head))
        };
        let (format, head) =
            read().map_err(|_: crate::base::wire::WireError| HeadError::Damaged)?;
        if format == FORMAT { Ok(head) } else { Err(HeadError::Format(format)) }
    }
}

/// The folder of a lane within the log's folder.
pub fn lane_folder(lane: u16) -> String {
    format!("lane-{lane:02}")
}

/// A segment's file name.
pub fn segment_name(number: u32) -> String {
    format!("{number:010}.seg")
}

/// The number of a segment by its file name.
pub fn segment_number(name: &str) -> Option<u32> {
    name.strip_suffix(".seg").filter(|digits| digits.len() == 10)?.parse().ok()
}

/// Bytes of a Mark's payload.
pub const MARK_SIZE: usize = 9;

const DURABLE: u8 = 1;
const LENGTH: u8 = 2;
const END: u8 = 3;

/// The payload of a Mark: all segments before are durable, and the bytes of this one below
/// `durable`.
pub fn mark(durable: u64) -> [u8; MARK_SIZE] {
    note(DURABLE, durable)
}

/// The payload of a Mark: the segment before this one has `len` bytes.
pub fn length_mark(len: u64) -> [u8; MARK_SIZE] {
    note(LENGTH, len)
}

/// The payload of a Mark: the log was closed, and nothing comes behind it.
pub fn end_mark() -> [u8; MARK_SIZE] {
    note(END, 0)
}

fn note(tag: u8, number: u64) -> [u8; MARK_SIZE] {
    let mut out = [0; MARK_SIZE];
    out[0] = tag;
    out[1..].copy_from_slice(&number.to_le_bytes());
    out
}

/// Reads up to where a Mark says that all is durable; `None` if it says something else.
pub fn read_mark(payload: &[u8]) -> Option<u64> {
    read_note(DURABLE, payload)
}

/// Reads what length a Mark says the segment before has; `None` if it says something else.
pub fn read_length_mark(payload: &[u8]) -> Option<u64> {
    read_note(LENGTH, payload)
}

/// Whether a Mark says that the log was closed.
pub fn is_end_mark(payload: &[u8]) -> bool {
    read_note(END, payload).is_some()
}

fn read_note(wanted: u8, payload: &[u8]) -> Option<u64> {
    let (&tag, rest) = payload.split_first()?;
    (tag == wanted).then(|| rest.try_into().map(u64::from_le_bytes).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Head = Head {
        lane: 1,
        vnodes: 256,
        lanes: 2,
        number: 7,
        ceiling: Hlc(0x0102_0304_0506_0708),
        cluster: 0x1122_3344_5566_7788,
    };

    /// Pinned: a change of these bytes is a new format.
    #[test]
    fn the_head_is_frozen() {
        let hex: String = HEAD.encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "6b766f72756d7367010001000001020007000000080706050403020188776655443322116251de35"
        );
    }

    #[test]
    fn a_head_is_read_back_and_damage_is_seen() {
        let bytes = HEAD.encode();
        assert_eq!(Head::decode(&bytes), Ok(HEAD));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Head::decode(&bad), Err(HeadError::Damaged), "bit {bit}");
        }
        assert_eq!(Head::decode(&bytes[..HEAD_SIZE - 1]), Err(HeadError::Damaged));
    }

    #[test]
    fn names_and_marks_are_read_back() {
        assert_eq!(segment_number(&segment_name(42)), Some(42));
        assert_eq!(segment_number("0000000042.hint"), None);
        assert_eq!(segment_number("42.seg"), None);
        assert_eq!(read_mark(&mark(77)), Some(77));
        assert_eq!(read_length_mark(&length_mark(77)), Some(77));
        assert_eq!((read_mark(&length_mark(7)), read_length_mark(&mark(7))), (None, None));
        assert!(is_end_mark(&end_mark()) && !is_end_mark(&mark(0)) && !is_end_mark(b""));
        assert_eq!(read_mark(&[2; 9]), None);
        assert_eq!(read_mark(&[1; 8]), None);
    }
}
