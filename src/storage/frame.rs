//! A frame: one record in a segment, so written that damage is seen and stays small.
//!
//! ```text
//!  0        4               6          8         12
//! ┌────────┬───────────────┬──────────┬─────────┬──────────────┐
//! │ len u32│ kind:4 vnode:12│ check u16│ crc u32 │ payload (len)│
//! └────────┴───────────────┴──────────┴─────────┴──────────────┘
//!   check: low half of the CRC-32 of bytes 0..6, inverted: the length and the vnode can be
//!          believed although the payload is damaged
//!   crc:   CRC-32 of bytes 0..6 and the payload
//!
//!   kind  0 State  the key's whole state on this node at this point: whatever stood before in
//!                  this lane for the key is dead
//!         1 Join   to be joined into what stood before
//!         2 Gone   payload: the key alone. Nothing is held of it any more, not even a tombstone
//!         3 Mark   a note of the lane about itself (see `segment`); its vnode is 0
//! ```
//!
//! State and Join payloads are records ([`crate::value::record`]). Integers are little-endian.
//! Because State supersedes, frames of one vnode must be read in the order they were written.

use crate::base::id::VnodeId;
use crate::base::limits::{PEER_FRAME_SIZE_MAX, VNODES_MAX};

/// Bytes before the payload.
pub const HEADER_SIZE: usize = 12;

/// Longest payload: what fits a peer's frame fits the log.
pub const PAYLOAD_SIZE_MAX: usize = PEER_FRAME_SIZE_MAX;

const KIND_SHIFT: u32 = 12;
const CHECKED: usize = 6;

const _: () = assert!(VNODES_MAX <= 1 << KIND_SHIFT);

/// What a frame says of its key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// The key's whole state: supersedes all before.
    State = 0,
    /// To be joined into what stood before.
    Join = 1,
    /// Nothing is held of the key any more.
    Gone = 2,
    /// A note of the lane about itself.
    Mark = 3,
}

impl Kind {
    const fn of(number: u16) -> Option<Kind> {
        match number {
            0 => Some(Kind::State),
            1 => Some(Kind::Join),
            2 => Some(Kind::Gone),
            3 => Some(Kind::Mark),
            _ => None,
        }
    }
}

/// A frame's header that has passed its own check.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Bytes of the payload.
    pub len: usize,
    /// What it says.
    pub kind: Kind,
    /// Whose it is.
    pub vnode: VnodeId,
    crc: u32,
}

impl Header {
    /// Bytes of the whole frame.
    pub const fn frame_size(&self) -> usize {
        HEADER_SIZE + self.len
    }

    /// Reads the header at the start of `bytes`; `None` if there is no whole, believable one.
    pub fn read(bytes: &[u8]) -> Option<Header> {
        let head: &[u8; HEADER_SIZE] = bytes.first_chunk()?;
        let half = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let word =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        if check_of(crc32fast::hash(&head[..CHECKED])) != half(6) {
            return None;
        }
        let len = word(0) as usize;
        let kind = Kind::of(half(4) >> KIND_SHIFT)?;
        let vnode = VnodeId(half(4) & ((1 << KIND_SHIFT) - 1));
        (len <= PAYLOAD_SIZE_MAX).then_some(Header { len, kind, vnode, crc: word(8) })
    }

    /// Whether `frame`, which begins with this header, is whole and undamaged: its payload.
    pub fn payload<'a>(&self, frame: &'a [u8]) -> Option<&'a [u8]> {
        let payload = frame.get(HEADER_SIZE..self.frame_size())?;
        let mut crc = crc32fast::Hasher::new();
        crc.update(&frame[..CHECKED]);
        crc.update(payload);
        (crc.finalize() == self.crc).then_some(payload)
    }
}

const fn check_of(crc: u32) -> u16 {
    !(crc as u16)
}

/// Appends a frame whose payload `write` appends. Returns its size.
pub fn append(
    out: &mut bytes::BytesMut,
    kind: Kind,
    vnode: VnodeId,
    write: impl FnOnce(&mut bytes::BytesMut),
) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_SIZE]);
    write(out);
    let frame = &mut out[start..];
    let len = frame.len() - HEADER_SIZE;
    assert!(len <= PAYLOAD_SIZE_MAX, "a record has a limited size");
    frame[..4].copy_from_slice(&(len as u32).to_le_bytes());
    let whose = (kind as u16) << KIND_SHIFT | vnode.0;
    frame[4..6].copy_from_slice(&whose.to_le_bytes());
    let mut crc = crc32fast::Hasher::new();
    crc.update(&frame[..CHECKED]);
    let check = check_of(crc.clone().finalize());
    crc.update(&frame[HEADER_SIZE..]);
    frame[6..8].copy_from_slice(&check.to_le_bytes());
    frame[8..12].copy_from_slice(&crc.finalize().to_le_bytes());
    HEADER_SIZE + len
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use proptest::prelude::*;

    fn framed(kind: Kind, vnode: u16, payload: &[u8]) -> BytesMut {
        let mut out = BytesMut::new();
        append(&mut out, kind, VnodeId(vnode), |out| out.extend_from_slice(payload));
        out
    }

    /// Pinned: a change of these bytes is a new format.
    #[test]
    fn the_format_is_frozen() {
        let frame = framed(Kind::Join, 0x123, b"record");
        let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "060000002311d2ea72af4e087265636f7264");
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_seen() {
        let frame = framed(Kind::State, 4_095, b"some payload");
        for bit in 0..frame.len() * 8 {
            let mut bad = frame.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let seen = Header::read(&bad).and_then(|header| header.payload(&bad).map(drop));
            assert_eq!(seen, None, "bit {bit}");
        }
        for end in 0..frame.len() {
            let cut = &frame[..end];
            let seen = Header::read(cut).and_then(|header| header.payload(cut).map(drop));
            assert_eq!(seen, None, "cut at {end}");
        }
    }

    #[test]
    fn zeros_are_no_frame() {
        assert_eq!(Header::read(&[0; 64]), None);
    }

    proptest! {
        #[test]
        fn a_frame_gives_back_what_it_was_given(
            payload in proptest::collection::vec(any::<u8>(), 0..300),
            vnode in 0..VNODES_MAX,
            kind in 0u16..4,
        ) {
            let kind = Kind::of(kind).unwrap();
            let mut bytes = framed(kind, vnode, &payload);
            bytes.extend_from_slice(b"what follows");
            let header = Header::read(&bytes).unwrap();
            prop_assert_eq!((header.kind, header.vnode), (kind, VnodeId(vnode)));
            prop_assert_eq!(header.payload(&bytes), Some(&payload[..]));
        }
    }
}
