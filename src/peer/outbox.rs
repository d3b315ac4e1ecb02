//! What waits to be sent to one peer over one link.
//!
//! Many tasks append whole runs of encoded frames, each run under one lock; one writer takes what
//! has gathered and sends it with one write. So the longer a write takes, the more the next one
//! carries, and a frame costs a copy, but no allocation and no wake-up: the writer is woken only
//! by the append that finds it asleep.
//!
//! ```text
//!  appends --> [ stream: open chunk ] -- take --> write(2)
//!                      └ kept until acknowledged ┘
//!  link down: the stream goes back to the node, which gives it to the next link
//! ```
//!
//! Invariants: the waiting bytes are whole frames; the stream ([`super::stream`]) is at one place
//! at a time, here or with the node. A closed outbox that has it still keeps changes in it.

use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::base::id::NodeId;
use crate::base::time::Moment;
use crate::handoff::pace;

use super::frame;
use super::message::Message;
use super::paced::Paced;
use super::state::DownReason;
use super::stream::{Begun, Bounds, Lag, Stream, Taken};

/// Why frames were not taken. Nothing will be sent on this link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OutboxError {
    /// The link is down. Changes are kept for the next one if the outbox still has the stream.
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
    /// None once the node has taken it back.
    stream: Option<Stream>,
    /// Whether the writer sleeps until it is woken.
    asleep: bool,
    /// Why the link is down; the first reason stays.
    closed: Option<DownReason>,
    /// How fast a backlog is sent again.
    paced: Arc<Paced>,
    /// What was sent again: up to which change, what it cost, and when.
    on_way: VecDeque<(u64, usize, Instant)>,
    /// What may be sent again beside the pace: twice what was appended behind the backlog. Or
    /// clients that write faster than their peer is paced would make it longer and longer.
    inflow: usize,
}

impl Queue {
    /// Takes some of what is sent again; how long to wait for more that could go.
    fn take_again(&mut self, out: &mut Taken) -> Option<Duration> {
        let Queue { stream: Some(stream), paced, on_way, inflow, .. } = self else { return None };
        let (_, before) = stream.resent();
        stream.take(paced.allowance().saturating_add(*inflow), out);
        let (last, after) = stream.resent();
        let cost = (after - before) as usize;
        if cost > 0 {
            // All of it is on its way, but what made room for itself is not owed.
            let free = cost.min(*inflow);
            *inflow -= free;
            paced.on_sent(cost - free);
            on_way.push_back((last, cost - free, Instant::now()));
        }
        stream.waits_for_allowance().then(|| paced.wait())
    }
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
pub(super) enum Found {
    /// Frames to send.
    Frames,
    /// Nothing; sleep until woken.
    Nothing,
    /// Nothing yet; sleep until woken, and not longer than that.
    Paced(Duration),
    /// Nothing, and nothing will come.
    Closed,
}

impl Outbox {
    /// An empty outbox to `peer` that is full when `bytes_max` bytes wait, and takes no frame
    /// longer than `frame_size_max`. Its stream begins and ends with it, until another is adopted.
    pub fn new(peer: NodeId, bytes_max: usize, frame_size_max: usize) -> Outbox {
        let stream = Some(Stream::flowing(Bounds::default()));
        let queue = Queue {
            stream,
            asleep: false,
            closed: None,
            paced: Arc::default(),
            on_way: VecDeque::new(),
            inflow: 0,
        };
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

    /// Goes on with `stream` on this link, before anything is appended to it; see
    /// [`Stream::resume`]. What must be sent again is `paced`.
    pub fn adopt(
        &self,
        mut stream: Stream,
        held: Option<u64>,
        lossy: bool,
        paced: &Arc<Paced>,
    ) -> Begun {
        let begun = stream.resume(held, lossy);
        // What was on its way on another link is not any more.
        paced.on_lost();
        let mut queue = self.queue.lock();
        queue.paced = paced.clone();
        if queue.closed.is_some() {
            stream.unlink();
        }
        queue.stream = Some(stream);
        self.wake(queue);
        begun
    }

    /// Gives the stream back when the link is down.
    pub fn release(&self) -> Option<Stream> {
        let mut stream = self.queue.lock().stream.take()?;
        stream.unlink();
        Some(stream)
    }

    /// Looks at the stream, if it is here; `look` runs under the outbox's lock and must be short.
    pub fn stream<T>(&self, look: impl FnOnce(&mut Stream) -> T) -> Option<T> {
        self.queue.lock().stream.as_mut().map(look)
    }

    /// Appends encoded `frames`, `reps` of which are [`Message::Rep`]s. The answer is the stream
    /// sequence number of the last change appended so far: of the last among `frames`, if any.
    ///
    /// A run of any length is taken as long as the outbox is not full before it.
    pub fn append(&self, frames: &[u8], reps: u64) -> Result<u64, OutboxError> {
        if !self.fits(frames) {
            return Err(OutboxError::TooLarge);
        }
        let mut queue = self.queue.lock();
        let Queue { stream: Some(stream), closed, inflow, .. } = &mut *queue else {
            return Err(OutboxError::Closed);
        };
        if closed.is_some() {
            if reps > 0 {
                stream.sort_in(frames, false);
            }
            return Err(OutboxError::Closed);
        }
        if stream.queued_bytes() >= self.bytes_max {
            return Err(OutboxError::Full);
        }
        let upto = if stream.is_flowing() {
            stream.place(frames.len()).extend_from_slice(frames);
            stream.appended_in_place(reps)
        } else {
            *inflow += 2 * pace::cost(reps as usize, frames.len());
            stream.sort_in(frames, true)
        };
        if !frames.is_empty() {
            self.wake(queue);
        }
        Ok(upto)
    }

    /// Appends one message; as [`Outbox::append`].
    pub fn send(&self, message: &Message<'_>) -> Result<u64, OutboxError> {
        // A few words, for most messages: the one allocation is the price of saying them alone.
        let mut frame = BytesMut::new();
        message.encode(&mut frame);
        self.append(&frame, u64::from(matches!(message, Message::Rep { .. })))
    }

    fn wake(&self, mut queue: MutexGuard<'_, Queue>) {
        let asleep = mem::replace(&mut queue.asleep, false);
        drop(queue);
        if asleep {
            self.wake_writer.notify_one();
        }
    }

    /// A run shorter than the limit holds no frame over it: the usual case costs one comparison.
    fn fits(&self, frames: &[u8]) -> bool {
        if frames.len() <= self.frame_size_max {
            return true;
        }
        frame::largest(frames).expect("whole frames are appended") <= self.frame_size_max
    }

    /// The peer holds every change up to `upto`. Answers whether that was the last of what had to
    /// be sent again.
    pub fn acknowledge(&self, upto: u64) -> bool {
        let mut queue = self.queue.lock();
        let Queue { stream: Some(stream), paced, on_way, .. } = &mut *queue else { return false };
        let was_through = stream.is_through();
        stream.acknowledge(upto);
        let (through, flowing) = (stream.is_through(), stream.is_flowing());
        while let Some(&(last, cost, at)) = on_way.front()
            && last <= upto
        {
            on_way.pop_front();
            paced.on_answer(cost, at.elapsed());
        }
        if !flowing {
            // What comes next was waiting for this.
            self.wake(queue);
        }
        through && !was_through
    }

    /// Whether the peer holds all that had to be sent again on this link.
    pub fn is_through(&self) -> bool {
        self.stream(|stream| stream.is_through()).unwrap_or(false)
    }

    /// Closes the link, because something that belongs into the stream was not appended: the next
    /// link begins with a gap.
    pub fn break_off(&self) {
        self.stream(Stream::break_off);
        self.close(DownReason::Asked);
    }

    /// How far the peer is behind.
    pub fn lag(&self, now: Moment) -> Lag {
        self.stream(|stream| stream.lag(now)).unwrap_or_default()
    }

    /// Bytes that wait or are being sent, without what is sent again.
    pub fn queued_bytes(&self) -> usize {
        self.stream(|stream| stream.queued_bytes()).unwrap_or(0)
    }

    /// Changes appended so far: the stream sequence number of the last one.
    pub fn reps(&self) -> u64 {
        self.stream(|stream| stream.appended()).unwrap_or(0)
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
        if reason != DownReason::Asked
            && let Some(stream) = &mut queue.stream
        {
            stream.unlink();
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

    /// For the writer: what was taken before is sent; puts what waits into `out`. What is sent
    /// again comes as fast as the peer's own answers allow.
    pub(super) fn take(&self, out: &mut Taken) -> Found {
        out.clear();
        let mut queue = self.queue.lock();
        let mut wait = None;
        if queue.stream.as_ref().is_some_and(Stream::is_flowing) {
            queue.stream.iter_mut().for_each(|stream| stream.take(0, out));
        } else {
            wait = queue.take_again(out);
        }
        if !out.is_empty() {
            return Found::Frames;
        }
        if queue.closed.is_some() {
            return Found::Closed;
        }
        queue.asleep = true;
        wait.map_or(Found::Nothing, Found::Paced)
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
        let asleep = self.queue.lock().asleep;
        if asleep {
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
        let mut sending = Taken::new();
        assert_eq!(outbox.take(&mut sending), Found::Frames);
        assert_eq!(outbox.append(&rep(b"x"), 1), Err(OutboxError::Full), "still being sent");
        assert_eq!(outbox.take(&mut sending), Found::Nothing);
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
        let mut sent = Taken::new();
        assert_eq!(outbox.take(&mut sent), Found::Nothing);
        assert!(outbox.queue.lock().asleep);
        outbox.append(&rep(b"a"), 1).expect("open");
        assert!(!outbox.queue.lock().asleep);
        outbox.append(&rep(b"b"), 1).expect("open");
        assert_eq!(outbox.take(&mut sent), Found::Frames);
        assert_eq!(sent.concat(), [rep(b"a"), rep(b"b")].concat());
    }

    #[test]
    fn the_first_reason_stays_and_what_waits_goes_only_when_asked() {
        let (asked, broken) = (outbox(), outbox());
        let mut sent = Taken::new();
        for (outbox, reason) in [(&asked, DownReason::Asked), (&broken, DownReason::Silent)] {
            outbox.append(&rep(b"a"), 1).expect("open");
            outbox.close(reason.clone());
            outbox.close(DownReason::Closed);
            assert_eq!(outbox.closed(), Some(reason));
            assert_eq!(outbox.append(&rep(b"b"), 1), Err(OutboxError::Closed));
        }
        assert_eq!(asked.take(&mut sent), Found::Frames);
        assert_eq!(asked.take(&mut sent), Found::Closed);
        assert_eq!(broken.take(&mut sent), Found::Closed);
        for outbox in [asked, broken] {
            let mut stream = outbox.release().expect("it was here");
            assert_eq!(stream.appended(), 2, "changes are kept for the next link");
            assert_eq!(outbox.append(&rep(b"c"), 1), Err(OutboxError::Closed));
            let next = self::outbox();
            stream.tick(Moment(1));
            let begun = next.adopt(stream, None, false, &Arc::default());
            assert_eq!((begun.after, begun.changes, begun.gap), (0, 2, false));
            assert_eq!(next.reps(), 2);
        }
    }
}
