//! A string's bytes as they are stored and sent: as they came, or as one LZ4 block.
//!
//! Packed once by the coordinator, replicated and stored packed, unpacked only for a reader.

use std::borrow::Cow;

/// Values shorter than this are never packed: the block's own overhead eats the gain.
pub const PACK_SIZE_MIN: usize = 256;

/// A string's stored bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packed<'a> {
    /// Length of the string itself, in bytes.
    pub raw_len: u32,
    /// Whether `bytes` is an LZ4 block of the string rather than the string.
    pub lz4: bool,
    /// What is stored.
    pub bytes: &'a [u8],
}

impl<'a> Packed<'a> {
    /// The string as it came.
    pub const fn raw(bytes: &'a [u8]) -> Packed<'a> {
        Packed { raw_len: bytes.len() as u32, lz4: false, bytes }
    }

    /// The string's length in bytes, without unpacking.
    pub const fn len(&self) -> usize {
        self.raw_len as usize
    }

    /// Whether the string is empty.
    pub const fn is_empty(&self) -> bool {
        self.raw_len == 0
    }

    /// The string. A block that does not unpack to `raw_len` bytes reads as `None`: bytes from
    /// outside are checked with this before they are stored.
    pub fn unpack(&self) -> Option<Cow<'a, [u8]>> {
        if !self.lz4 {
            return Some(Cow::Borrowed(self.bytes));
        }
        let mut out = vec![0; self.len()];
        let written = lz4_flex::block::decompress_into(self.bytes, &mut out).ok()?;
        (written == out.len()).then_some(Cow::Owned(out))
    }
}

/// Packs `raw` into `scratch` when that saves at least an eighth; otherwise the string as it came.
pub fn pack<'a>(raw: &'a [u8], scratch: &'a mut Vec<u8>) -> Packed<'a> {
    if raw.len() < PACK_SIZE_MIN {
        return Packed::raw(raw);
    }
    scratch.resize(lz4_flex::block::get_maximum_output_size(raw.len()), 0);
    match lz4_flex::block::compress_into(raw, scratch) {
        Ok(size) if size <= raw.len() - raw.len() / 8 => {
            Packed { raw_len: raw.len() as u32, lz4: true, bytes: &scratch[..size] }
        }
        _ => Packed::raw(raw),
    }
}
