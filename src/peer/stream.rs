//! The stream of changes to one peer, and what is known of the peer's stream: pure arithmetic.
//!
//! Every change that this node coordinates for a peer is a `Rep` of one stream, numbered from 1
//! for as long as the process lives, over all links. What the peer has not acknowledged is kept,
//! so that a link that broke is resumed and not mended by comparing everything (the hint of
//! Dynamo §4.6 in its ordinary form: held by the coordinator, in order).
//!
//! ```text
//!            resume: nothing to send again
//!          ┌──────────────────────────────────────────┐
//!          │    resume        backlog is through      ▼
//!  Parked ─┴──────────► Resuming ─────────────────► Flowing
//!    ▲ changes are kept,    changes behind the backlog,   everything in one run,
//!    │ the rest is dropped  the rest at once              as it was appended
//!    └───────────── unlink ──┴────────────────────────────┘
//!
//!  kept:   | acked │ sent, not acked ──────────── │ resent up to here │ to be resent | open
//! ```
//!
//! **No price while a link is up.** Frames are appended in place to an open chunk; the writer is
//! given a counted reference to what it sends, and the same reference is kept until the
//! acknowledgement passes it. No byte is copied again and nothing is allocated but one chunk per
//! [`CHUNK_SIZE`] bytes. What is neither change nor acknowledged travels along in those chunks and
//! is skipped when they are sent again: a request must never run twice.
//!
//! Invariant: a change is acknowledged by the peer, or kept, or the stream has a *gap*. A gap
//! stays, over links and the peer's restarts, until the peer says that it has compared itself
//! with this node since it heard of it. So nothing that a backlog lost is forgotten.

use std::collections::VecDeque;
use std::mem;

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use crate::base::time::Moment;
use crate::handoff::pace;

use super::frame::Frames;
use super::message::{Message, is_rep};

/// Bytes of one chunk: large enough that its allocation does not count, small enough that the one
/// in use stays in a processor's cache.
pub const CHUNK_SIZE: usize = 64 << 10;

/// Bytes that are sent again at most without an acknowledgement, whatever the pace.
pub const RESUME_WINDOW_BYTES: usize = 512 << 10;

/// What the writer is given at a time.
pub type Taken = SmallVec<[Bytes; 4]>;

/// How much a stream keeps for a peer that does not acknowledge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Bytes of changes kept that were sent, or cannot be. How much may wait to be sent for the
    /// first time is the outbox's to say.
    pub bytes_max: usize,
    /// Milliseconds that the oldest change may wait without a link.
    pub age_ms_max: u64,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { bytes_max: 64 << 20, age_ms_max: 600_000 }
    }
}

/// Whole frames that lie together, some of them changes.
#[derive(Debug)]
struct Piece {
    bytes: Bytes,
    /// The number of the last change before them.
    before: u64,
    /// The number of the last change among them.
    last: u64,
}

/// The next frame to look at for sending again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    /// The piece, counted since the stream began.
    piece: u64,
    /// Where in it.
    offset: usize,
    /// The number of the last change before that frame.
    before: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Parked,
    Resuming {
        next: Place,
        /// Changes up to this number are not sent again: the peer holds them.
        held: u64,
    },
    Flowing,
}

/// How a stream begins on a new link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Begun {
    /// The number of the last change before what is sent now.
    pub after: u64,
    /// Whether the peer may lack some of what was before.
    pub gap: bool,
    /// Changes to send again.
    pub changes: u64,
    /// About as many bytes.
    pub bytes: usize,
}

/// How far a peer is behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lag {
    /// Changes that the peer has not acknowledged.
    pub changes: u64,
    /// Bytes kept for it.
    pub bytes: usize,
    /// Milliseconds that the oldest of those changes has waited.
    pub ms: u64,
}

/// The stream to one peer. See the head of this file.
#[derive(Debug)]
pub struct Stream {
    bounds: Bounds,
    /// The number of the last change appended.
    appended: u64,
    /// The number up to which the peer holds everything.
    acked: u64,
    /// Everything after this number is kept.
    kept_from: u64,
    /// The number at which a gap was last noticed.
    gap: Option<u64>,
    /// Sent on this link or before it, not acknowledged.
    kept: VecDeque<Piece>,
    kept_bytes: usize,
    /// Pieces that were acknowledged or dropped since the stream began.
    passed: u64,
    /// Closed and not sent; only while flowing.
    ready: VecDeque<Piece>,
    ready_bytes: usize,
    /// What is being appended to, and the number of the last change before it.
    open: BytesMut,
    open_before: u64,
    /// Frames of this link that do not wait for the backlog.
    aside: BytesMut,
    /// Bytes the writer has taken and not come back for.
    sending: usize,
    phase: Phase,
    /// The number that must be acknowledged for the backlog to be through.
    marker: u64,
    backlogs_dropped: u64,
    /// What was sent again and not acknowledged: (last change in it, bytes).
    on_way: VecDeque<(u64, usize)>,
    on_way_bytes: usize,
    /// What all that was ever sent again cost.
    resent: u64,
    /// (the last change by then, when): a few hundred at most.
    marks: VecDeque<(u64, Moment)>,
}

impl Stream {
    /// The stream of a process that has just started: what an earlier one had not sent is unknown,
    /// so it begins with a gap, and without a link.
    pub fn new(bounds: Bounds) -> Stream {
        Stream {
            bounds,
            appended: 0,
            acked: 0,
            kept_from: 0,
            gap: Some(0),
            kept: VecDeque::new(),
            kept_bytes: 0,
            passed: 0,
            ready: VecDeque::new(),
            ready_bytes: 0,
            open: BytesMut::new(),
            open_before: 0,
            aside: BytesMut::new(),
            sending: 0,
            phase: Phase::Parked,
            marker: 0,
            backlogs_dropped: 0,
            on_way: VecDeque::new(),
            on_way_bytes: 0,
            resent: 0,
            marks: VecDeque::new(),
        }
    }

    /// A stream that flows at once and says nothing of its beginning, for a link that is driven
    /// without a node.
    pub fn flowing(bounds: Bounds) -> Stream {
        Stream { phase: Phase::Flowing, gap: None, ..Stream::new(bounds) }
    }

    /// The number of the last change appended.
    pub const fn appended(&self) -> u64 {
        self.appended
    }

    /// The number up to which the peer holds everything.
    pub const fn acked(&self) -> u64 {
        self.acked
    }

    /// Whether the peer has to compare itself with this node.
    pub const fn has_gap(&self) -> bool {
        self.gap.is_some()
    }

    /// How often a backlog was dropped because it was over a bound.
    pub const fn backlogs_dropped(&self) -> u64 {
        self.backlogs_dropped
    }

    /// Whether all that was to be sent again on this link is held by the peer.
    pub fn is_through(&self) -> bool {
        self.phase == Phase::Flowing && self.acked >= self.marker
    }

    /// Bytes on their way into the socket, without what is to be sent again.
    pub fn queued_bytes(&self) -> usize {
        let open = if self.phase == Phase::Flowing { self.open.len() } else { 0 };
        self.ready_bytes + open + self.aside.len() + self.sending
    }

    /// Where frames are appended in place while [`Stream::is_flowing`], with room for `size` bytes
    /// of them. Say how many changes they were by [`Stream::appended_in_place`].
    pub fn place(&mut self, size: usize) -> &mut BytesMut {
        self.make_room(size);
        &mut self.open
    }

    /// Whether everything is appended in one run.
    pub fn is_flowing(&self) -> bool {
        self.phase == Phase::Flowing
    }

    /// `reps` of the frames that were appended to [`Stream::place`] are changes.
    pub fn appended_in_place(&mut self, reps: u64) -> u64 {
        self.appended += reps;
        self.bound();
        self.appended
    }

    /// Appends whole `frames` when not flowing, or when there is no link any more although nobody
    /// has said so yet: changes are kept, and the others go out at once if `linked`.
    pub fn sort_in(&mut self, mut frames: &[u8], linked: bool) -> u64 {
        for frame in Frames::of(&mut frames) {
            if is_rep(frame) {
                if self.is_dropping() {
                    self.appended += 1;
                    self.kept_from = self.appended;
                    self.open_before = self.appended;
                } else {
                    // Counted when it lies there: a piece that room closes ends before it.
                    self.make_room(frame.len());
                    self.open.extend_from_slice(frame);
                    self.appended += 1;
                }
            } else if linked {
                let out = if self.is_flowing() { &mut self.open } else { &mut self.aside };
                out.extend_from_slice(frame);
            }
        }
        self.bound();
        self.appended
    }

    /// Whether there is nobody to keep changes for: the peer will compare itself anyway.
    fn is_dropping(&self) -> bool {
        self.phase == Phase::Parked && self.gap.is_some()
    }

    fn make_room(&mut self, size: usize) {
        if self.open.capacity() - self.open.len() >= size {
            return;
        }
        self.close_open();
        self.open = BytesMut::with_capacity(size.max(CHUNK_SIZE));
    }

    /// What was appended becomes a piece.
    fn close_open(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let bytes = self.open.split().freeze();
        let piece = Piece { bytes, before: self.open_before, last: self.appended };
        self.open_before = self.appended;
        if self.phase == Phase::Flowing {
            self.ready_bytes += piece.bytes.len();
            self.ready.push_back(piece);
        } else {
            self.keep(piece);
        }
    }

    fn keep(&mut self, piece: Piece) {
        if piece.last > piece.before && piece.last > self.acked {
            self.kept_bytes += piece.bytes.len();
            self.kept.push_back(piece);
        }
    }

    fn forget_first(&mut self) {
        if let Some(piece) = self.kept.pop_front() {
            self.kept_bytes -= piece.bytes.len();
            self.passed += 1;
        }
    }

    /// Holds the stream to its bound of bytes.
    fn bound(&mut self) {
        if self.kept_bytes + self.ready_bytes + self.open.len() < self.bounds.bytes_max {
            return;
        }
        if self.phase != Phase::Flowing {
            self.drop_backlog();
            return;
        }
        // What is sent is on its way all the same. Only if this link breaks before it is
        // acknowledged there is a gap.
        while let Some(first) = self.kept.front()
            && self.kept_bytes + self.ready_bytes + self.open.len() >= self.bounds.bytes_max
        {
            self.kept_from = first.last;
            self.forget_first();
        }
    }

    fn drop_backlog(&mut self) {
        self.backlogs_dropped += 1;
        self.note_gap();
        if matches!(self.phase, Phase::Resuming { .. }) {
            self.say_begin();
            self.say_through();
        }
    }

    /// The peer lacks something of what was appended so far, so the rest is not worth keeping.
    fn note_gap(&mut self) {
        while !self.kept.is_empty() {
            self.forget_first();
        }
        if self.phase != Phase::Flowing {
            self.open.clear();
            self.open_before = self.appended;
        }
        self.kept_from = self.appended;
        self.gap = Some(self.appended);
    }

    /// Something that belongs into the stream was never appended: the peer will have to compare
    /// itself. The link should be closed, so that it learns of it.
    pub fn break_off(&mut self) {
        if self.phase == Phase::Parked {
            self.note_gap();
        }
        self.gap = Some(self.appended);
    }

    /// There is a link. `held`: up to where the peer says that it holds this very stream, if it
    /// knows it. `lossy`: it may have lost what it held.
    ///
    /// # Panics
    /// If there is one already.
    pub fn resume(&mut self, held: Option<u64>, lossy: bool) -> Begun {
        assert_eq!(self.phase, Phase::Parked, "one link at a time");
        // A peer cannot hold what does not exist; whoever says so knows another stream.
        let nonsense = held.is_some_and(|held| held > self.appended);
        if !nonsense {
            self.acknowledge(held.unwrap_or(0));
        }
        if lossy || nonsense || self.gap.is_some() || self.acked < self.kept_from {
            self.note_gap();
        }
        self.close_open();
        let gap = self.gap.is_some();
        let after = if gap { self.appended } else { self.acked };
        // What is new on this link counts from there.
        self.acknowledge(after);
        let begun = Begun { after, gap, changes: self.appended - after, bytes: self.kept_bytes };
        self.say_begin();
        match self.kept.front() {
            Some(first) => {
                let next = Place { piece: self.passed, offset: 0, before: first.before };
                self.phase = Phase::Resuming { next, held: after };
                self.marker = u64::MAX;
            }
            None => self.say_through(),
        }
        begun
    }

    fn say_begin(&mut self) {
        let (after, gap) = match self.gap {
            Some(_) => (self.appended, true),
            None => (self.acked, false),
        };
        Message::Resume { after, gap }.encode(&mut self.aside);
    }

    /// Everything is on its way: from now on all frames go in one run.
    fn say_through(&mut self) {
        self.marker = self.appended;
        Message::CaughtUp { upto: self.appended }.encode(&mut self.aside);
        self.phase = Phase::Flowing;
        // The link's other frames come first, as they were said.
        let said = mem::take(&mut self.aside);
        self.make_room(said.len());
        self.open.extend_from_slice(&said);
    }

    /// The link is gone.
    pub fn unlink(&mut self) {
        if self.phase == Phase::Parked {
            return;
        }
        self.close_open();
        self.phase = Phase::Parked;
        self.ready_bytes = 0;
        for piece in mem::take(&mut self.ready) {
            self.keep(piece);
        }
        self.aside = BytesMut::new();
        self.sending = 0;
        self.on_way.clear();
        self.on_way_bytes = 0;
        if self.gap.is_some() {
            self.note_gap();
        }
    }

    /// The peer holds every change up to `upto`.
    pub fn acknowledge(&mut self, upto: u64) {
        self.acked = self.acked.max(upto.min(self.appended));
        while self.kept.front().is_some_and(|first| first.last <= self.acked) {
            self.forget_first();
        }
        while self.marks.front().is_some_and(|&(upto, _)| upto <= self.acked) {
            self.marks.pop_front();
        }
        while let Some(&(last, bytes)) = self.on_way.front()
            && last <= self.acked
        {
            self.on_way.pop_front();
            self.on_way_bytes -= bytes;
        }
        if let Phase::Resuming { next, .. } = &mut self.phase
            && next.piece < self.passed
        {
            let before = self.kept.front().map_or(self.acked, |first| first.before);
            *next = Place { piece: self.passed, offset: 0, before };
        }
    }

    /// The peer has compared itself with this node since it was told that the stream goes on
    /// `after`. Answers whether that closes the gap.
    pub fn settled(&mut self, after: u64) -> bool {
        let closes = self.gap.is_some_and(|at| after >= at);
        if closes {
            self.gap = None;
        }
        closes
    }

    /// Forgets a backlog whose oldest change has waited too long, and notes the time.
    pub fn tick(&mut self, now: Moment) {
        let oldest = self.marks.front().map_or(now, |&(_, at)| at);
        if self.phase == Phase::Parked
            && self.gap.is_none()
            && now.since(oldest) > self.bounds.age_ms_max
        {
            self.drop_backlog();
        }
        if self.appended > self.acked
            && self.marks.back().is_none_or(|&(upto, at)| {
                // The longer the peer is behind, the less the milliseconds matter.
                upto < self.appended && now.since(at) > now.since(oldest) / 32
            })
        {
            self.marks.push_back((self.appended, now));
        }
    }

    /// How far the peer is behind.
    pub fn lag(&self, now: Moment) -> Lag {
        let oldest = self.marks.front().map_or(now, |&(_, at)| at);
        Lag {
            changes: self.appended - self.acked,
            bytes: self.kept_bytes + self.ready_bytes + self.open.len(),
            ms: now.since(oldest),
        }
    }

    /// What to send now; what is sent again of it costs at most `allowance`, but one change always
    /// fits. What was taken before is sent.
    pub fn take(&mut self, allowance: usize, out: &mut Taken) {
        out.clear();
        self.resend(allowance, out);
        if self.phase == Phase::Flowing {
            self.close_open();
            self.ready_bytes = 0;
            for piece in mem::take(&mut self.ready) {
                out.push(piece.bytes.clone());
                self.keep(piece);
            }
        }
        self.sending = out.iter().map(Bytes::len).sum();
    }

    /// The last change that was sent again on this link and not acknowledged (0: none), and what
    /// everything that was ever sent again cost.
    pub fn resent(&self) -> (u64, u64) {
        (self.on_way.back().map_or(0, |&(last, _)| last), self.resent)
    }

    /// Whether a larger allowance would bring more to send at once.
    pub fn waits_for_allowance(&self) -> bool {
        matches!(self.phase, Phase::Resuming { .. }) && self.on_way_bytes < RESUME_WINDOW_BYTES
    }

    fn resend(&mut self, allowance: usize, out: &mut Taken) {
        if !self.aside.is_empty() {
            out.push(self.aside.split().freeze());
        }
        let Phase::Resuming { mut next, held } = self.phase else { return };
        let room = RESUME_WINDOW_BYTES.saturating_sub(self.on_way_bytes);
        let limit = CHUNK_SIZE.min(room);
        let (mut again, mut spent) = (BytesMut::new(), 0);
        while again.len() < limit && spent < allowance && self.find_piece(next.piece) {
            let piece = &self.kept[(next.piece - self.passed) as usize];
            let mut rest = &piece.bytes[next.offset..];
            for frame in Frames::of(&mut rest).filter(|frame| is_rep(frame)) {
                next.before += 1;
                if next.before > held {
                    again.extend_from_slice(frame);
                    spent += pace::cost(1, frame.len());
                }
                if again.len() >= limit || spent >= allowance {
                    break;
                }
            }
            next.offset = piece.bytes.len() - rest.len();
            if rest.is_empty() {
                next = Place { piece: next.piece + 1, offset: 0, before: piece.last };
            }
        }
        self.phase = Phase::Resuming { next, held };
        if !again.is_empty() {
            self.on_way_bytes += again.len();
            self.on_way.push_back((next.before, again.len()));
            self.resent += spent as u64;
            out.push(again.freeze());
        }
        let at_end = (next.piece - self.passed) as usize == self.kept.len();
        if at_end && self.open.is_empty() {
            self.say_through();
        }
    }

    /// Whether there is a piece of that number; what is being appended becomes one if need be.
    fn find_piece(&mut self, piece: u64) -> bool {
        let index = (piece - self.passed) as usize;
        if index == self.kept.len() {
            self.close_open();
        }
        index < self.kept.len()
    }
}

/// What this node knows of a peer's stream to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Incoming {
    /// The run of the peer's process whose stream it is; 0: none yet.
    run: u64,
    /// The number up to which this node's log holds it.
    held: u64,
    /// After which number the peer said that there is a gap before.
    gap: Option<u64>,
    through: bool,
}

impl Incoming {
    /// What to greet the peer with: the run known, and up to where its stream is held.
    pub const fn greeting(&self) -> (u64, u64) {
        (self.run, self.held)
    }

    /// There is a link to the peer, in this `run` of its process.
    pub fn link_up(&mut self, run: u64) {
        if run != self.run {
            // What is owed stays owed, whoever it is that comes.
            let gap = self.gap.map(|_| 0);
            *self = Incoming { run, gap, ..Incoming::default() };
        }
        self.through = false;
    }

    /// The link is gone.
    pub fn link_down(&mut self) {
        self.through = false;
    }

    /// The peer goes on after the change of that number, with or without a gap before it.
    pub fn on_resume(&mut self, after: u64, gap: bool) {
        // What this process holds is what it has said, so a hole is never right, but never lost.
        let hole = self.held > 0 && after > self.held;
        if gap || hole {
            self.gap = Some(after);
        }
        self.held = self.held.max(after);
        self.through = false;
    }

    /// The log holds every change up to `upto`.
    pub fn on_held(&mut self, upto: u64) {
        self.held = self.held.max(upto);
    }

    /// The peer has nothing more to send again. Answers whether there is a gap.
    pub fn on_caught_up(&mut self) -> bool {
        self.through = true;
        self.gap.is_some()
    }

    /// Whether the peer has nothing to send again on this link.
    pub const fn is_through(&self) -> bool {
        self.through
    }

    /// This node has compared everything with the peer. Answers what to say of it, if there was a
    /// gap.
    pub fn settle(&mut self) -> Option<u64> {
        self.gap.take()
    }

    /// The stream is not enough: what was exchanged with the peer was broken off.
    pub fn owe(&mut self) {
        self.gap = self.gap.or(Some(0));
    }
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
