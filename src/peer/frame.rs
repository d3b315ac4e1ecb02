//! How messages lie on an open link: envelopes of whole frames.
//!
//! ```text
//! | size u32 | crc32 of the frames u32 | crc32 of these eight bytes u32 | frames … |
//! ```
//!
//! One flush is one envelope, cut where it grows past [`ENVELOPE_SIZE`] (a larger single frame
//! travels alone in a larger envelope). The head has a checksum of its own, so that a damaged size
//! is found at once, and not after waiting for bytes that nobody sends.
//!
//! Invariant: no byte of an envelope is looked at before its checksum was found right, and
//! nothing is ever reserved because of a claimed size alone.

use std::fmt;

use crate::base::wire::{Cursor, WireError};

use super::message::{Message, SIZE_PREFIX};

/// Bytes of an envelope's head.
pub const HEAD_SIZE: usize = 12;

/// Where a flush is cut into several envelopes, in bytes: the reader holds one back until it is
/// whole, so a long one costs latency.
pub const ENVELOPE_SIZE: usize = 256 << 10;

/// Why arriving bytes end the link. What was delivered before stays delivered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameError {
    /// A checksum does not match.
    BadChecksum,
    /// An envelope or frame is larger than agreed.
    TooLarge {
        /// The size it claims, in bytes.
        size: usize,
    },
    /// A frame that cannot be read, or of an unknown kind.
    Wire(WireError),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::BadChecksum => f.write_str("a checksum does not match"),
            FrameError::TooLarge { size } => write!(f, "a frame of {size} bytes is over the limit"),
            FrameError::Wire(error) => write!(f, "a frame cannot be read: {error}"),
        }
    }
}

impl std::error::Error for FrameError {}

/// The head of the envelope that carries `frames`.
pub fn head(frames: &[u8]) -> [u8; HEAD_SIZE] {
    let size = u32::try_from(frames.len()).expect("an envelope is smaller than 4 GiB");
    let mut head = [0; HEAD_SIZE];
    head[..4].copy_from_slice(&size.to_le_bytes());
    head[4..8].copy_from_slice(&crc32fast::hash(frames).to_le_bytes());
    let check = crc32fast::hash(&head[..8]);
    head[8..].copy_from_slice(&check.to_le_bytes());
    head
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at + 4)?;
    Some(u32::from_le_bytes(word.try_into().expect("four bytes were cut")))
}

/// The frame that `frames` begins with, its size prefix included. `None`: no whole frame.
fn first_frame(frames: &[u8]) -> Option<&[u8]> {
    let size = word(frames, 0)? as usize;
    frames.get(..SIZE_PREFIX.checked_add(size)?)
}

/// The largest frame of a run, without its size prefix, or `None` when they are not whole frames.
pub fn largest(mut frames: &[u8]) -> Option<usize> {
    let mut largest = 0;
    while !frames.is_empty() {
        let frame = first_frame(frames)?;
        largest = largest.max(frame.len() - SIZE_PREFIX);
        frames = &frames[frame.len()..];
    }
    Some(largest)
}

/// Whole frames, one by one; what was not asked for stays in the slice they are cut from.
#[derive(Debug)]
pub struct Frames<'a, 'b>(&'b mut &'a [u8]);

impl<'a, 'b> Frames<'a, 'b> {
    /// The frames of `frames`: our own, so anything but whole ones is a bug.
    pub const fn of(frames: &'b mut &'a [u8]) -> Frames<'a, 'b> {
        Frames(frames)
    }
}

impl<'a> Iterator for Frames<'a, '_> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return None;
        }
        let frame = first_frame(self.0).expect("a stream holds whole frames");
        *self.0 = &self.0[frame.len()..];
        Some(frame)
    }
}

/// Cuts whole frames into the runs that each go into one envelope.
#[derive(Debug)]
pub struct Runs<'a> {
    rest: &'a [u8],
    /// Frames handed out so far.
    pub frames: u64,
}

impl<'a> Runs<'a> {
    /// The runs of `frames`, which are whole frames: our own, so anything else is a bug.
    pub const fn of(frames: &'a [u8]) -> Runs<'a> {
        Runs { rest: frames, frames: 0 }
    }
}

impl<'a> Iterator for Runs<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let mut end = 0;
        while end < self.rest.len() {
            let frame = first_frame(&self.rest[end..]).expect("an outbox holds whole frames");
            if end > 0 && end + frame.len() > ENVELOPE_SIZE {
                break;
            }
            end += frame.len();
            self.frames += 1;
        }
        let (run, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!run.is_empty()).then_some(run)
    }
}

/// What the front of a read buffer holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scan {
    /// Bytes of whole and undamaged envelopes.
    pub whole: usize,
    /// Bytes that the envelope behind them claims to need still. Only a claim.
    pub missing: usize,
}

/// Looks for whole envelopes at the front of `buffer` and checks them.
/// Frames may be `frame_size_max` bytes (without their size prefix).
pub fn scan(buffer: &[u8], frame_size_max: usize) -> Result<Scan, FrameError> {
    let size_max = ENVELOPE_SIZE.max(frame_size_max.saturating_add(SIZE_PREFIX));
    let mut whole = 0;
    loop {
        let rest = &buffer[whole..];
        let Some(envelope) = rest.split_first_chunk::<HEAD_SIZE>() else {
            return Ok(Scan { whole, missing: HEAD_SIZE - rest.len() });
        };
        let (head, frames) = envelope;
        let [size, crc, check] = [0, 4, 8].map(|at| word(head, at).expect("twelve bytes"));
        if crc32fast::hash(&head[..8]) != check {
            return Err(FrameError::BadChecksum);
        }
        let size = size as usize;
        if size > size_max {
            return Err(FrameError::TooLarge { size });
        }
        let Some(frames) = frames.get(..size) else {
            return Ok(Scan { whole, missing: size - frames.len() });
        };
        if crc32fast::hash(frames) != crc {
            return Err(FrameError::BadChecksum);
        }
        whole += HEAD_SIZE + size;
    }
}

/// The messages of one read, in the order they were sent.
///
/// Pings, pongs and goodbyes are the link's own affair and do not show up. A frame that cannot be read
/// ends the batch; the link is closed afterwards.
#[derive(Debug)]
pub struct Batch<'a> {
    /// Envelopes not begun yet; [`scan`] found them whole.
    envelopes: &'a [u8],
    /// What is left of the one begun.
    frames: Cursor<'a>,
    frame_size_max: usize,
    reps: u64,
    /// Changes read so far.
    heard: u64,
    /// Frames read so far, pings included.
    pub(crate) count: u64,
    pub(crate) ping: Option<u64>,
    pub(crate) pong: Option<u64>,
    /// Whether the sender said that it leaves.
    pub(crate) goodbye: bool,
    pub(crate) fault: Option<FrameError>,
}

impl<'a> Batch<'a> {
    /// The messages of `envelopes`, which [`scan`] found whole. `reps` were received before.
    pub(crate) const fn of_envelopes(
        envelopes: &'a [u8],
        reps: u64,
        frame_size_max: usize,
    ) -> Batch<'a> {
        Batch {
            envelopes,
            frames: Cursor::new(&[]),
            frame_size_max,
            reps,
            heard: 0,
            count: 0,
            ping: None,
            pong: None,
            goodbye: false,
            fault: None,
        }
    }

    /// The messages of bare `frames` as [`Message::encode`] makes them, after `reps` replicated
    /// changes: for driving an inbox without a link.
    pub const fn of_frames(frames: &'a [u8], reps: u64) -> Batch<'a> {
        let mut batch = Batch::of_envelopes(&[], reps, usize::MAX);
        batch.frames = Cursor::new(frames);
        batch
    }

    /// The stream sequence number of the last [`Message::Rep`] that this batch (or one before
    /// it) gave out; 0 before the first. [`Message::Resume`] sets where it goes on.
    pub const fn reps(&self) -> u64 {
        self.reps
    }

    /// How many changes this batch gave out so far.
    pub const fn heard(&self) -> u64 {
        self.heard
    }

    fn open_envelope(&mut self) -> Option<()> {
        let size = word(self.envelopes, 0)? as usize;
        let (envelope, rest) = self.envelopes.split_at(HEAD_SIZE + size);
        self.envelopes = rest;
        self.frames = Cursor::new(&envelope[HEAD_SIZE..]);
        Some(())
    }

    fn read(&mut self) -> Result<Message<'a>, FrameError> {
        let size = self.frames.u32().map_err(FrameError::Wire)? as usize;
        if size > self.frame_size_max {
            return Err(FrameError::TooLarge { size });
        }
        let frame = self.frames.take(size).map_err(FrameError::Wire)?;
        Message::decode(frame).map_err(FrameError::Wire)
    }
}

impl<'a> Iterator for Batch<'a> {
    type Item = Message<'a>;

    #[inline]
    fn next(&mut self) -> Option<Message<'a>> {
        loop {
            if self.fault.is_some() {
                return None;
            }
            if self.frames.is_empty() {
                self.open_envelope()?;
                continue;
            }
            let message = match self.read() {
                Ok(message) => message,
                Err(fault) => {
                    self.fault = Some(fault);
                    return None;
                }
            };
            self.count += 1;
            match message {
                Message::Ping { moment } => self.ping = Some(moment),
                Message::Pong { moment } => self.pong = Some(moment),
                Message::Goodbye => self.goodbye = true,
                Message::Rep { .. } => {
                    // The number comes from the peer.
                    self.reps = self.reps.wrapping_add(1);
                    self.heard += 1;
                    return Some(message);
                }
                Message::Resume { after, .. } => {
                    self.reps = after;
                    return Some(message);
                }
                _ => return Some(message),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use crate::base::id::VnodeId;
    use crate::base::wire::Put;
    use crate::peer::message::tests::{Said, said};

    use super::*;

    const MAX: usize = 1 << 20;

    fn frames_of(said: &[Said]) -> BytesMut {
        let mut frames = BytesMut::new();
        said.iter().for_each(|said| said.message().encode(&mut frames));
        frames
    }

    fn sealed(frames: &[u8]) -> Vec<u8> {
        let mut wire = Vec::new();
        for run in Runs::of(frames) {
            wire.put(&head(run));
            wire.put(run);
        }
        wire
    }

    fn visible<'a>(said: &'a [Said]) -> Vec<Message<'a>> {
        let all = said.iter().map(Said::message);
        let hidden = |m: &Message<'_>| {
            matches!(m, Message::Ping { .. } | Message::Pong { .. } | Message::Goodbye)
        };
        all.filter(|m| !hidden(m)).collect()
    }

    proptest! {
        #[test]
        fn a_batch_is_what_was_sent(
            first in proptest::collection::vec(said(), 0..20),
            second in proptest::collection::vec(said(), 0..20),
            tail in 0usize..HEAD_SIZE,
        ) {
            let mut wire = sealed(&frames_of(&first));
            wire.extend(sealed(&frames_of(&second)));
            let end = wire.len();
            wire.extend(&head(b"more")[..tail]);
            let found = scan(&wire, MAX).expect("undamaged");
            prop_assert_eq!(found, Scan { whole: end, missing: HEAD_SIZE - tail });
            let mut batch = Batch::of_envelopes(&wire[..end], 5, MAX);
            let heard: Vec<_> = batch.by_ref().collect();
            let mut sent = visible(&first);
            sent.extend(visible(&second));
            let (mut reps, mut changes) = (5u64, 0);
            for message in &sent {
                match message {
                    Message::Rep { .. } => (reps, changes) = (reps.wrapping_add(1), changes + 1),
                    Message::Resume { after, .. } => reps = *after,
                    _ => {}
                }
            }
            prop_assert_eq!(heard, sent);
            prop_assert_eq!((batch.reps(), batch.heard()), (reps, changes));
            prop_assert_eq!(batch.fault, None);
            prop_assert_eq!(batch.count, (first.len() + second.len()) as u64);
        }

        #[test]
        fn a_cut_envelope_waits_for_exactly_its_rest(
            said in proptest::collection::vec(said(), 1..10),
            at in any::<proptest::sample::Index>(),
        ) {
            let wire = sealed(&frames_of(&said));
            let cut = at.index(wire.len());
            let found = scan(&wire[..cut], MAX).expect("undamaged");
            prop_assert_eq!(found.whole, 0);
            let missing = if cut < HEAD_SIZE { HEAD_SIZE } else { wire.len() } - cut;
            prop_assert_eq!(found.missing, missing);
        }

        #[test]
        fn every_flipped_bit_is_found(
            said in proptest::collection::vec(said(), 1..4),
            at in any::<proptest::sample::Index>(),
            bit in 0u32..8,
        ) {
            let mut wire = sealed(&frames_of(&said));
            let at = at.index(wire.len());
            wire[at] ^= 1 << bit;
            prop_assert_eq!(scan(&wire, MAX), Err(FrameError::BadChecksum));
        }

        #[test]
        fn garbage_with_a_right_checksum_is_no_panic(garbage: Vec<u8>) {
            let mut wire = head(&garbage).to_vec();
            wire.put(&garbage);
            let found = scan(&wire, MAX).expect("the checksum is right");
            prop_assert_eq!(found.whole, wire.len());
            let mut batch = Batch::of_envelopes(&wire, 0, MAX);
            while batch.next().is_some() {}
            prop_assert_eq!(batch.next(), None);
        }

        #[test]
        fn garbage_is_no_panic(garbage: Vec<u8>) {
            let _ = scan(&garbage, MAX);
            let _ = largest(&garbage);
        }
    }

    #[test]
    fn long_flushes_are_cut_between_frames() {
        let record = vec![7; 1000];
        let mut frames = BytesMut::new();
        for _ in 0..1000 {
            Message::Rep { vnode: VnodeId(1), record: &record }.encode(&mut frames);
        }
        let huge = vec![8; ENVELOPE_SIZE + 1];
        Message::Status { body: &huge }.encode(&mut frames);
        let mut runs = Runs::of(&frames);
        let sizes: Vec<usize> = runs.by_ref().map(<[u8]>::len).collect();
        assert_eq!(runs.frames, 1001);
        assert_eq!(sizes.iter().sum::<usize>(), frames.len());
        assert!(sizes[..sizes.len() - 1].iter().all(|&size| size <= ENVELOPE_SIZE));
        assert_eq!(sizes.last(), Some(&(SIZE_PREFIX + 1 + huge.len())));
        assert_eq!(largest(&frames), Some(1 + huge.len()));
        assert_eq!(largest(&frames[1..]), None);
    }

    #[test]
    fn claims_over_the_limit_are_refused_from_the_head_alone() {
        let huge = vec![0; ENVELOPE_SIZE + 1];
        assert_eq!(scan(&head(&huge), 10), Err(FrameError::TooLarge { size: ENVELOPE_SIZE + 1 }));
        let mut frames = BytesMut::new();
        Message::Status { body: &[0; 20] }.encode(&mut frames);
        let wire = sealed(&frames);
        let mut batch = Batch::of_envelopes(&wire, 0, 10);
        assert_eq!(batch.next(), None);
        assert_eq!(batch.fault, Some(FrameError::TooLarge { size: 21 }));
    }

    #[test]
    fn the_head_is_frozen() {
        let bytes = head(b"kvorum");
        assert_eq!(bytes[..4], [6, 0, 0, 0]);
        assert_eq!(bytes[4..8], crc32fast::hash(b"kvorum").to_le_bytes());
        assert_eq!(bytes[8..], crc32fast::hash(&bytes[..8]).to_le_bytes());
    }
}
