//! Walking a segment: frame after frame, and over what is damaged to the next that can be believed.
//!
//! ```text
//!  head │ frame │ frame │ ▒▒▒▒▒ │ frame ▒ payload │ frame │ fra
//!                          │            │                   └ the file was cut: the lane is suspect
//!                          │            └ the header passes its check, the payload does not: the
//!                          │              header's vnode is suspect, the walk goes on behind it
//!                          └ no header: look at every byte for a frame that verifies; whose the
//!                            lost ones were nobody knows, so the whole lane is suspect
//! ```
//!
//! Invariants: every byte from the head to the end lies in exactly one frame or damaged range. The
//! walk is the same whoever is wanted, so threads that want different vnodes see one segment.
//! Memory is one chunk, or one frame if that is longer. Time is linear, whatever the bytes are:
//! only so many bytes are checksummed in vain, then the rest of the segment is given up.

use std::io;
use std::ops::Range;

use crate::base::id::VnodeId;

use super::frame::{HEADER_SIZE, Header, Kind};
use super::log::Layout;
use super::segment::{HEAD_SIZE, Head, HeadError, MARK_SIZE, is_end_mark, read_length_mark};

/// Bytes that are read at once.
pub(super) const CHUNK: usize = 1 << 20;

/// How many times a segment's length may be checksummed in search of a frame that verifies.
/// Values are the clients' own: they may be full of headers that pass their check.
const VAIN_MAX: u64 = 16;

/// Whose records a damaged range may have held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Suspect {
    /// Nobody's: it was a note of the lane.
    Nobody,
    /// This vnode's.
    Vnode(VnodeId),
    /// Those of any vnode of the lane.
    Lane,
}

/// What comes next in a segment.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Piece<'a> {
    /// A frame that was wanted and is whole.
    Frame { offset: u32, header: Header, payload: &'a [u8] },
    /// Bytes that are no frame, or one whose payload is damaged.
    Damaged { range: Range<u64>, suspect: Suspect },
    /// The segment ends.
    End,
}

/// [`Piece`] without what is borrowed.
enum Step {
    Frame(u64, Header),
    Damaged(Range<u64>, Suspect),
    End,
}

/// Which vnodes' frames a segment may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Home {
    pub(super) layout: Layout,
    pub(super) lane: u16,
}

impl Home {
    fn may_hold(&self, header: &Header) -> bool {
        let VnodeId(vnode) = header.vnode;
        match header.kind {
            Kind::Mark => vnode == 0,
            _ => vnode < self.layout.vnodes && vnode % self.layout.lanes == self.lane,
        }
    }
}

/// What the first bytes of a segment say.
pub(super) struct Opening {
    pub(super) head: Result<Head, HeadError>,
    /// The length of the segment before.
    pub(super) before: Option<u64>,
}

impl Opening {
    /// Reads it from a segment whose bytes `read` reads.
    pub(super) fn read(
        mut read: impl FnMut(u64, &mut [u8]) -> io::Result<usize>,
    ) -> io::Result<Opening> {
        let mut bytes = [0; HEAD_SIZE + HEADER_SIZE + MARK_SIZE];
        let len = read(0, &mut bytes)?;
        let first = bytes[..len].get(HEAD_SIZE..).unwrap_or_default();
        let mark = Header::read(first).filter(|header| header.kind == Kind::Mark);
        let before = mark.and_then(|header| header.payload(first)).and_then(read_length_mark);
        Ok(Opening { head: Head::decode(&bytes[..len]), before })
    }
}

/// Whether a segment of `len` bytes, which `read` reads, ends where the log was closed.
pub(super) fn was_closed(
    len: u64,
    mut read: impl FnMut(u64, &mut [u8]) -> io::Result<usize>,
) -> io::Result<bool> {
    let mut bytes = [0; HEADER_SIZE + MARK_SIZE];
    let Some(start) = len.checked_sub(bytes.len() as u64) else { return Ok(false) };
    let whole = read(start, &mut bytes)? == bytes.len();
    let mark = Header::read(&bytes).filter(|header| whole && header.kind == Kind::Mark);
    Ok(mark.and_then(|header| header.payload(&bytes)).is_some_and(is_end_mark))
}

/// A walk over one segment, whose bytes `read` reads.
pub(super) struct Scan<R> {
    read: R,
    home: Home,
    /// Where the next frame must begin.
    at: u64,
    /// The segment's length.
    end: u64,
    /// `buffer[..filled]` are the segment's bytes from `start`.
    buffer: Vec<u8>,
    start: u64,
    filled: usize,
    /// How many bytes may still be checksummed in vain.
    vain: u64,
}

impl<R: FnMut(u64, &mut [u8]) -> io::Result<usize>> Scan<R> {
    /// Walks the frames of a segment of `len` bytes. `read` fills a buffer from an offset and says
    /// how much there was.
    pub(super) fn new(home: Home, len: u64, read: R) -> Scan<R> {
        let vain = len.saturating_mul(VAIN_MAX);
        let at = len.min(HEAD_SIZE as u64);
        Scan { read, home, at, end: len, buffer: Vec::new(), start: 0, filled: 0, vain }
    }

    /// Everything before has been walked.
    pub(super) fn position(&self) -> u64 {
        self.at
    }

    /// The next frame that is `wanted`, or damage. A frame that is not wanted is passed by, its
    /// payload neither read nor checked.
    pub(super) fn next(&mut self, wanted: impl Fn(&Header) -> bool) -> io::Result<Piece<'_>> {
        Ok(match self.step(wanted)? {
            Step::Frame(at, header) => {
                let frame = self.bytes(at, header.frame_size());
                Piece::Frame { offset: at as u32, header, payload: &frame[HEADER_SIZE..] }
            }
            Step::Damaged(range, suspect) => Piece::Damaged { range, suspect },
            Step::End => Piece::End,
        })
    }

    fn step(&mut self, wanted: impl Fn(&Header) -> bool) -> io::Result<Step> {
        loop {
            let at = self.at;
            if at >= self.end {
                return Ok(Step::End);
            }
            let Some(header) = self.header(at)? else {
                self.at = self.next_frame(at + 1)?;
                return Ok(Step::Damaged(at..self.at, Suspect::Lane));
            };
            if header.frame_size() as u64 > self.end - at {
                self.at = self.end;
                return Ok(Step::Damaged(at..self.end, Suspect::Lane));
            }
            self.at = at + header.frame_size() as u64;
            if wanted(&header) {
                return self.check(at, header);
            }
        }
    }

    /// The believable header at `at`; `None` if there is none.
    fn header(&mut self, at: u64) -> io::Result<Option<Header>> {
        // No frame has a place beyond what a place can say.
        if at > u64::from(u32::MAX) || !self.load(at, HEADER_SIZE)? {
            return Ok(None);
        }
        let header = Header::read(self.bytes(at, HEADER_SIZE));
        Ok(header.filter(|header| self.home.may_hold(header)))
    }

    fn check(&mut self, at: u64, header: Header) -> io::Result<Step> {
        if self.verifies(at, &header)? {
            return Ok(Step::Frame(at, header));
        }
        let suspect = match header.kind {
            Kind::Mark => Suspect::Nobody,
            _ => Suspect::Vnode(header.vnode),
        };
        Ok(Step::Damaged(at..self.at, suspect))
    }

    fn verifies(&mut self, at: u64, header: &Header) -> io::Result<bool> {
        let size = header.frame_size();
        Ok(self.load(at, size)? && header.payload(self.bytes(at, size)).is_some())
    }

    /// Where, from `from` on, the next frame begins that verifies; the end if there is none.
    fn next_frame(&mut self, from: u64) -> io::Result<u64> {
        let mut at = from;
        while self.end.saturating_sub(at) >= HEADER_SIZE as u64 {
            if !self.load(at, HEADER_SIZE)? {
                break;
            }
            let loaded = &self.buffer[(at - self.start) as usize..self.filled];
            let Some(ahead) = candidate(loaded, self.end - at) else {
                at += (loaded.len() - HEADER_SIZE + 1) as u64;
                continue;
            };
            at += ahead as u64;
            if let Some(header) = self.header(at)? {
                let size = header.frame_size() as u64;
                if size > self.vain {
                    break;
                }
                self.vain -= size;
                if self.verifies(at, &header)? {
                    return Ok(at);
                }
            }
            at += 1;
        }
        Ok(self.end)
    }

    /// The `len` loaded bytes from `at`.
    fn bytes(&self, at: u64, len: usize) -> &[u8] {
        &self.buffer[(at - self.start) as usize..][..len]
    }

    /// Loads `len` bytes from `at`, and what a chunk holds behind them. `false`: the segment does
    /// not have them.
    fn load(&mut self, at: u64, len: usize) -> io::Result<bool> {
        if len as u64 > self.end.saturating_sub(at) {
            return Ok(false);
        }
        let loaded = self.start..self.start + self.filled as u64;
        if loaded.start <= at && at + len as u64 <= loaded.end {
            return Ok(true);
        }
        let keep = if loaded.contains(&at) { (loaded.end - at) as usize } else { 0 };
        self.buffer.copy_within(self.filled - keep..self.filled, 0);
        (self.start, self.filled) = (at, keep);
        let wanted = (self.end - at).min(len.max(CHUNK) as u64) as usize;
        if self.buffer.len() < wanted || self.buffer.len() > 2 * wanted.max(CHUNK) {
            self.buffer.resize(wanted, 0);
            self.buffer.shrink_to_fit();
        }
        self.filled = wanted;
        let read = (self.read)(at + keep as u64, &mut self.buffer[keep..self.filled])?;
        if keep + read < self.filled {
            // The file has become shorter than it was said to be.
            self.filled = keep + read;
            self.end = at + self.filled as u64;
        }
        Ok(self.filled >= len)
    }
}

/// How far ahead in `bytes`, behind which the segment goes on until `left` bytes are over, the
/// next header may begin. A quick sieve: it lets through a fraction of what is no header.
fn candidate(bytes: &[u8], left: u64) -> Option<usize> {
    bytes.windows(HEADER_SIZE).enumerate().position(|(ahead, head)| {
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let fits = u64::from(len) + (HEADER_SIZE + ahead) as u64 <= left;
        fits && head[..8] != [0; 8]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::frame;
    use bytes::BytesMut;
    use proptest::prelude::*;

    pub(super) const HOME: Home =
        Home { layout: Layout { vnodes: 16, lanes: 2, cluster: 0 }, lane: 1 };

    fn segment(frames: &[(Kind, u16, Vec<u8>)]) -> (Vec<u8>, Vec<usize>) {
        let mut out = BytesMut::from(&[0xAB; HEAD_SIZE][..]);
        let mut ends = vec![HEAD_SIZE];
        for (kind, vnode, payload) in frames {
            frame::append(&mut out, *kind, VnodeId(*vnode), |out| out.extend_from_slice(payload));
            ends.push(out.len());
        }
        (out.to_vec(), ends)
    }

    fn reading(bytes: &[u8]) -> impl FnMut(u64, &mut [u8]) -> io::Result<usize> {
        move |offset, buffer| {
            let rest = bytes.get(offset as usize..).unwrap_or_default();
            let count = rest.len().min(buffer.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            Ok(count)
        }
    }

    #[derive(Clone, PartialEq, Eq, Debug)]
    enum Seen {
        Frame(usize, u16, Vec<u8>),
        Damaged(Range<u64>, Suspect),
    }

    fn walk(bytes: &[u8], wanted: impl Fn(&Header) -> bool) -> Vec<Seen> {
        let mut scan = Scan::new(HOME, bytes.len() as u64, reading(bytes));
        let mut seen = Vec::new();
        loop {
            seen.push(match scan.next(&wanted).unwrap() {
                Piece::Frame { offset, header, payload } => {
                    Seen::Frame(offset as usize, header.vnode.0, payload.to_vec())
                }
                Piece::Damaged { range, suspect } => Seen::Damaged(range, suspect),
                Piece::End => return seen,
            });
        }
    }

    fn whole(frames: &[(Kind, u16, Vec<u8>)], starts: &[usize]) -> Vec<Seen> {
        let frames = frames.iter().zip(starts);
        frames.map(|((_, vnode, payload), at)| Seen::Frame(*at, *vnode, payload.clone())).collect()
    }

    fn some_frames() -> Vec<(Kind, u16, Vec<u8>)> {
        vec![
            (Kind::State, 1, b"first".to_vec()),
            (Kind::Mark, 0, vec![1; 9]),
            (Kind::Gone, 3, Vec::new()),
            (Kind::Join, 15, vec![7; 40]),
            (Kind::State, 5, b"last".to_vec()),
        ]
    }

    #[test]
    fn what_was_written_is_walked_and_what_is_not_wanted_is_passed_by() {
        let frames = some_frames();
        let (bytes, starts) = segment(&frames);
        assert_eq!(walk(&bytes, |_| true), whole(&frames, &starts));
        let only = walk(&bytes, |header| header.vnode == VnodeId(15));
        assert_eq!(only, [Seen::Frame(starts[3], 15, vec![7; 40])]);
        assert_eq!(walk(&bytes[..HEAD_SIZE], |_| true), []);
        assert_eq!(walk(&bytes[..10], |_| true), [], "the head is not the walk's business");
    }

    /// The bit's frame is lost and no other; a header's bit makes the whole lane suspect.
    #[test]
    fn every_flipped_bit_costs_one_frame() {
        let frames = some_frames();
        let (bytes, starts) = segment(&frames);
        for bit in HEAD_SIZE * 8..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let hit = starts.iter().rposition(|start| *start <= bit / 8).unwrap();
            let (kind, vnode, _) = &frames[hit];
            let suspect = match (bit / 8 - starts[hit], kind) {
                (0..8, _) => Suspect::Lane,
                (_, Kind::Mark) => Suspect::Nobody,
                _ => Suspect::Vnode(VnodeId(*vnode)),
            };
            let mut expected = whole(&frames, &starts);
            let range = starts[hit] as u64..starts[hit + 1] as u64;
            expected[hit] = Seen::Damaged(range, suspect);
            assert_eq!(walk(&bad, |_| true), expected, "bit {bit}");
        }
    }

    #[test]
    fn every_cut_costs_what_was_cut_off() {
        let frames = some_frames();
        let (bytes, starts) = segment(&frames);
        for end in HEAD_SIZE..bytes.len() {
            let kept = starts.iter().rposition(|start| *start <= end).unwrap();
            let mut expected = whole(&frames[..kept], &starts);
            if starts[kept] < end {
                expected.push(Seen::Damaged(starts[kept] as u64..end as u64, Suspect::Lane));
            }
            assert_eq!(walk(&bytes[..end], |_| true), expected, "cut at {end}");
        }
    }

    #[test]
    fn frames_longer_than_a_chunk_are_read_and_passed_by() {
        let frames = vec![
            (Kind::State, 1, vec![1; 2 * CHUNK + 7]),
            (Kind::State, 3, vec![2; CHUNK - HEADER_SIZE - 3]),
            (Kind::State, 5, vec![3; 3 * CHUNK]),
            (Kind::State, 7, vec![4; 10]),
        ];
        let (mut bytes, starts) = segment(&frames);
        let expected = whole(&frames, &starts);
        assert!(walk(&bytes, |_| true) == expected);
        assert!(walk(&bytes, |header| header.vnode.0 == 7) == expected[3..]);
        bytes[starts[2]] ^= 1;
        let found = walk(&bytes, |_| true);
        assert!(found.len() == 4 && found[3] == expected[3], "found again behind a long gap");
    }

    #[test]
    fn a_frame_of_another_lane_is_not_believed() {
        for (kind, vnode) in [(Kind::State, 2), (Kind::State, 17), (Kind::Mark, 1)] {
            let (bytes, starts) =
                segment(&[(kind, vnode, b"stray".to_vec()), (Kind::State, 1, b"own".to_vec())]);
            let range = starts[0] as u64..starts[1] as u64;
            let own = Seen::Frame(starts[1], 1, b"own".to_vec());
            assert_eq!(walk(&bytes, |_| true), [Seen::Damaged(range, Suspect::Lane), own]);
        }
    }

    #[test]
    fn a_file_that_became_shorter_ends_there() {
        let frames = some_frames();
        let (bytes, starts) = segment(&frames);
        let mut scan = Scan::new(HOME, bytes.len() as u64 + 100, reading(&bytes[..starts[2]]));
        for _ in 0..2 {
            assert!(matches!(scan.next(|_| true).unwrap(), Piece::Frame { .. }));
        }
        assert_eq!(scan.next(|_| true).unwrap(), Piece::End);
    }

    /// A value may be made of headers that pass their check and claim all that follows.
    #[test]
    fn a_value_full_of_headers_takes_linear_time() {
        let mut bytes = vec![0; HEAD_SIZE];
        let size = 1 << 20;
        let mut lens = std::collections::BTreeSet::new();
        while bytes.len() < size {
            let len = size - bytes.len() - HEADER_SIZE.min(size - bytes.len());
            lens.insert(len);
            let mut header = BytesMut::new();
            frame::append(&mut header, Kind::State, VnodeId(1), |out| out.resize(len, 9));
            header[11] ^= 1;
            bytes.extend_from_slice(&header[..HEADER_SIZE]);
            // Every 4 KiB is enough: making them is quadratic too.
            bytes.resize(bytes.len() + 4096 - HEADER_SIZE, 0xFF);
        }
        bytes[HEAD_SIZE] ^= 1;
        assert!(lens.len() > 200);
        let mut scan = Scan::new(HOME, bytes.len() as u64, reading(&bytes));
        let Piece::Damaged { range, .. } = scan.next(|_| true).unwrap() else { panic!() };
        assert_eq!(range, HEAD_SIZE as u64..bytes.len() as u64);
        assert!(scan.vain < size as u64, "it gave up for want of patience");
    }

    proptest! {
        /// Whatever the bytes: no panic, and pieces that touch from the head to the end.
        #[test]
        fn garbage_between_frames_is_walked_over(
            parts in proptest::collection::vec(
                (any::<bool>(), proptest::collection::vec(any::<u8>(), 1..60)), 0..12),
        ) {
            let mut bytes = BytesMut::from(&[0; HEAD_SIZE][..]);
            let mut frames = Vec::new();
            for (framed, part) in &parts {
                if *framed {
                    frames.push(Seen::Frame(bytes.len(), 1, part.clone()));
                    frame::append(&mut bytes, Kind::State, VnodeId(1), |out| out.extend_from_slice(part));
                } else {
                    bytes.extend_from_slice(part);
                }
            }
            let seen = walk(&bytes, |_| true);
            let found: Vec<_> = seen.iter().filter(|seen| matches!(seen, Seen::Frame(..))).cloned().collect();
            prop_assert_eq!(found, frames);
            let mut at = HEAD_SIZE;
            for piece in seen {
                let range = match piece {
                    Seen::Frame(start, _, payload) => start..start + HEADER_SIZE + payload.len(),
                    Seen::Damaged(range, _) => range.start as usize..range.end as usize,
                };
                prop_assert_eq!(range.start, at);
                at = range.end;
            }
            prop_assert_eq!(at, bytes.len());
        }
    }
}
