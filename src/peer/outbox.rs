//! What waits to be sent to one peer over one link.
//!
//! Many tasks append whole runs of encoded frames, each run under one lock; one writer swaps the
//! whole buffer out and sends it with one write. So the longer a write takes, the more the next
//! one carries, and a frame costs a copy, but no allocation and no wake-up: the writer is woken
//! only by the append that finds it asleep.
//!
//! ```text
//!  appends --> [ waiting ] <-- swap --> [ sending ] --> write(2)
//! ```
//!
//! Invariants: the waiting bytes are whole frames; the stream sequence number of a change is its
//! place among all changes ever appended here, which is its place at the receiver.

use std::fmt;
use std::mem;

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::base::id::NodeId;

use super::frame;
use super::message::Message;
use super::state::DownReason;

/// Buffers that grew beyond this many bytes are given back once they are empty.
const KEEP_SIZE_MAX: usize = 4 << 20;

/// Why frames were not taken. Nothing was appended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OutboxError {
    /// The link is down.
    Closed,
    /// As many bytes as may wait, or more, wait already.
    Full,
    /// A frame is over the limit that the peer takes.
    TooLarge,
}

impl fmt::Display for OutboxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OutboxError::Closed => "the link is down",
            OutboxError::Full => "the outbox is full",
            OutboxError::TooLarge => "a frame is over the limit",
        })
    }
}

impl std::error::Error for OutboxError {}

#[derive(Debug)]
struct Queue {
    waiting: BytesMut,
    /// Bytes that the writer has swapped out and not yet sent.
    sending: usize,
    /// Changes appended so far.
    reps: u64,
    /// Whether the writer sleeps until it is woken.
    asleep: bool,
    /// Why the link is down; the first reason stays.
    closed: Option<DownReason>,
}

/// The outgoing queue of one link. A new link has a new outbox.
#[derive(Debug)]
pub struct Outbox {
    peer: NodeId,
    bytes_max: usize,
    frame_size_max: usize,
    queue: Mutex<Queue>,
    wake_writer: Notify,
    wake_reader: Notify,
}

/// What the writer finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Taken {
    /// Frames to send.
    Frames,
    /// Nothing; sleep until woken.
    Nothing,
    /// Nothing, and nothing will come.
    Closed,
}

impl Outbox {
    /// An empty outbox to `peer` that is full when `bytes_max` bytes wait, and takes no frame
    /// longer than `frame_size_max`.
    pub fn new(peer: NodeId, bytes_max: usize, frame_size_max: usize) -> Outbox {
        let queue =
            Queue { waiting: BytesMut::new(), sending: 0, reps: 0, asleep: false, closed: None };
        Outbox {
            peer,
            bytes_max,
            frame_size_max,
            queue: Mutex::new(queue),
            wake_writer: Notify::new(),
            wake_reader: Notify::new(),
        }
    }

    /// Whom this goes to.
    pub const fn peer(&self) -> NodeId {
        self.peer
    }

    /// Appends encoded `frames`, `reps` of which are [`Message::Rep`]s. The answer is the stream
    /// sequence number of the last change appended so far: of the last among `frames`, if any.
    ///
    /// A run of any length is taken as long as the outbox is not full before it.
    pub fn append(&self, frames: &[u8], reps: u64) -> Result<u64, OutboxError> {
        self.append_with(|out| {
            out.extend_from_slice(frames);
            reps
        })
    }

    /// Lets `fill` append encoded frames in place and say how many of them are
    /// [`Message::Rep`]s; otherwise as [`Outbox::append`]. `fill` runs under the outbox's lock:
    /// it must be short, must not touch what is in the buffer already, and must not use this
    /// outbox.
    pub fn append_with(&self, fill: impl FnOnce(&mut BytesMut) -> u64) -> Result<u64, OutboxError> {
        let mut queue = self.queue.lock();
        if queue.closed.is_some() {
            return Err(OutboxError::Closed);
        }
        if queue.waiting.len() + queue.sending >= self.bytes_max {
            return Err(OutboxError::Full);
        }
        let before = queue.waiting.len();
        let reps = fill(&mut queue.waiting);
        if !self.fits(&queue.waiting[before..]) {
            queue.waiting.truncate(before);
            return Err(OutboxError::TooLarge);
        }
        queue.reps += reps;
        let upto = queue.reps;
        let wake = queue.asleep && queue.waiting.len() > before;
        if wake {
            queue.asleep = false;
        }
        drop(queue);
        if wake {
            self.wake_writer.notify_one();
        }
        Ok(upto)
    }

    /// Appends one message; as [`Outbox::append`].
    pub fn send(&self, message: &Message<'_>) -> Result<u64, OutboxError> {
        self.append_with(|out| {
            message.encode(out);
            u64::from(matches!(message, Message::Rep { .. }))
        })
    }

    /// A run shorter than the limit holds no frame over it: the usual case costs one comparison.
    fn fits(&self, frames: &[u8]) -> bool {
        if frames.len() <= self.frame_size_max {
            return true;
        }
        frame::largest(frames).expect("whole frames are appended") <= self.frame_size_max
    }

    /// Bytes that wait or are being sent.
    pub fn queued_bytes(&self) -> usize {
        let queue = self.queue.lock();
        queue.waiting.len() + queue.sending
    }

    /// Changes appended so far: the stream sequence number of the last one.
    pub fn reps(&self) -> u64 {
        self.queue.lock().reps
    }

    /// Whether the link is down: nothing is taken any more.
    pub fn is_closed(&self) -> bool {
        self.queue.lock().closed.is_some()
    }

    /// Takes the link down for `reason`, unless it is down already. What waits is sent only if
    /// the link still works and `reason` is [`DownReason::Asked`].
    pub fn close(&self, reason: DownReason) {
        let mut queue = self.queue.lock();
        if queue.closed.is_some() {
            return;
        }
        if reason != DownReason::Asked {
            queue.waiting = BytesMut::new();
        }
        queue.closed = Some(reason);
        queue.asleep = false;
        drop(queue);
        self.wake_writer.notify_one();
        self.wake_reader.notify_one();
    }

    /// Why the link is down, once it is.
    pub fn closed(&self) -> Option<DownReason> {
        self.queue.lock().closed.clone()
    }

    /// For the writer: what was swapped out before is sent; swaps `sent` (emptied) for what waits.
    pub(super) fn take(&self, sent: &mut BytesMut) -> Taken {
        sent.clear();
        if sent.capacity() > KEEP_SIZE_MAX {
            *sent = BytesMut::new();
        }
        let mut queue = self.queue.lock();
        mem::swap(&mut queue.waiting, sent);
        queue.sending = sent.len();
        if queue.sending > 0 {
            return Taken::Frames;
        }
        if queue.closed.is_some() {
            return Taken::Closed;
        }
        queue.asleep = true;
        Taken::Nothing
    }

    /// For the writer: waits until there is something to [`Outbox::take`].
    pub(super) async fn filled(&self) {
        self.wake_writer.notified().await;
    }

    /// For the reader: waits until the link is closed.
    pub(super) async fn gone(&self) {
        self.wake_reader.notified().await;
    }

    /// For the reader: appends a ping if nothing else is on its way.
    pub(super) fn ping(&self, moment: u64) {
        if self.queue.lock().asleep {
            // A link that went down meanwhile needs no ping.
            let _ = self.send(&Message::Ping { moment });
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::base::id::VnodeId;

    use super::*;

    fn outbox() -> Outbox {
        Outbox::new(NodeId(2), 100, 50)
    }

    fn rep(record: &[u8]) -> BytesMut {
        let mut frame = BytesMut::new();
        Message::Rep { vnode: VnodeId(1), record }.encode(&mut frame);
        frame
    }

    #[test]
    fn changes_are_numbered_from_one_and_other_frames_are_not() {
        let outbox = outbox();
        assert_eq!(outbox.append(&rep(b"a"), 1), Ok(1));
        assert_eq!(outbox.send(&Message::RepAck { upto: 9 }), Ok(1));
        assert_eq!(outbox.send(&Message::Rep { vnode: VnodeId(1), record: b"b" }), Ok(2));
        let two = [rep(b"c"), rep(b"d")].concat();
        assert_eq!(outbox.append(&two, 2), Ok(4));
        assert_eq!(outbox.reps(), 4);
    }

    #[test]
    fn a_full_outbox_takes_nothing_until_its_bytes_are_sent() {
        let outbox = outbox();
        while outbox.queued_bytes() < 100 {
            outbox.append(&rep(&[0; 20]), 1).expect("not full yet");
        }
        let reps = outbox.reps();
        assert_eq!(outbox.append(&rep(b"x"), 1), Err(OutboxError::Full));
        let mut sending = BytesMut::new();
        assert_eq!(outbox.take(&mut sending), Taken::Frames);
        assert_eq!(outbox.append(&rep(b"x"), 1), Err(OutboxError::Full), "still being sent");
        assert_eq!(outbox.take(&mut sending), Taken::Nothing);
        assert_eq!(outbox.append(&rep(b"x"), 1), Ok(reps + 1));
    }

    #[test]
    fn a_frame_over_the_limit_leaves_no_trace() {
        let outbox = outbox();
        assert_eq!(outbox.append(&rep(&[0; 60]), 1), Err(OutboxError::TooLarge));
        assert_eq!((outbox.queued_bytes(), outbox.reps()), (0, 0));
        let many: Vec<u8> = (0..20).flat_map(|_| rep(b"abc")).collect();
        assert_eq!(outbox.append(&many, 20), Ok(20), "a long run of short frames is fine");
    }

    #[test]
    fn the_writer_is_woken_once() {
        let outbox = outbox();
        let mut sent = BytesMut::new();
        assert_eq!(outbox.take(&mut sent), Taken::Nothing);
        assert!(outbox.queue.lock().asleep);
        outbox.append(&rep(b"a"), 1).expect("open");
        assert!(!outbox.queue.lock().asleep);
        outbox.append(&rep(b"b"), 1).expect("open");
        assert_eq!(outbox.take(&mut sent), Taken::Frames);
        assert_eq!(sent, [rep(b"a"), rep(b"b")].concat());
    }

    #[test]
    fn the_first_reason_stays_and_what_waits_goes_only_when_asked() {
        let (asked, broken) = (outbox(), outbox());
        let mut sent = BytesMut::new();
        for (outbox, reason) in [(&asked, DownReason::Asked), (&broken, DownReason::Silent)] {
            outbox.append(&rep(b"a"), 1).expect("open");
            outbox.close(reason.clone());
            outbox.close(DownReason::Closed);
            assert_eq!(outbox.closed(), Some(reason));
            assert_eq!(outbox.append(&rep(b"b"), 1), Err(OutboxError::Closed));
        }
        assert_eq!(asked.take(&mut sent), Taken::Frames);
        assert_eq!(asked.take(&mut sent), Taken::Closed);
        assert_eq!(broken.take(&mut sent), Taken::Closed);
    }
}
