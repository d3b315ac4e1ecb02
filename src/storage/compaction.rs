//! Compaction: gives back the disk's space that dead frames hold.
//!
//! ```text
//!  lane   ┌────────┬────────┬────────┬┄┄┄┄┄┄┄┬────────┐
//!         │ oldest │        │        │       │ active │ ◄── writes
//!         └───┬────┴────────┴────────┴┄┄┄┄┄┄┄┴────────┘
//!             │ live: State, from memory           ▲
//!             ├───────────────────────────────────►┘
//!             └ dead: nothing     then: sync, remove the file and its hint
//! ```
//!
//! Only a lane's oldest segment is ever compacted (a queue, as in Rosenblum and Ousterhout's log,
//! 1992, at its simplest). That keeps the order of frames the order of states: whatever a Gone or a
//! State supersedes lies before it, so in the oldest segment a Gone supersedes nothing any more.
//! At twice the live bytes, uniform overwriting leaves a fifth of the oldest segment alive, and the
//! worst case, data that is never touched again, costs one byte moved for each byte written.
//!
//! When and how fast: see `pace`.
//!
//! Invariants: a segment is removed only when each of its live frames has been written again and
//! synced, and no sync has failed since the first of them was. Removals are made durable in the
//! segments' order. A vnode's lock is held for 64 frames, 256 KiB or half a millisecond, whichever
//! comes first (one frame at least), and never while the disk is waited for.
//!
//! The thread has the same priority as all others, on purpose: one that is put aside while it holds
//! a vnode's lock would make every client of that vnode wait.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex};
use smallvec::SmallVec;

use crate::base::id::VnodeId;
use crate::base::time::UnixMs;
use crate::value::record;

use super::frame::{HEADER_SIZE, Kind};
use super::hint::{hint_name, remove_if_there};
use super::hinting::{Hinting, Reader, scan};
use super::keyspace::Keyspace;
use super::log::{Commit, Log, SegmentView};
use super::pace::{LaneBytes, RATE_MIN, lane_size_min, segment_size};
use super::place::Place;
use super::scan::{CHUNK, Piece, Scan};
use super::segment::{lane_folder, segment_name};
use super::vnode_write::VnodeWrite;

/// Bytes a second that are walked at least when somebody asked for it.
const RATE_ASKED: u64 = 128 << 20;

/// Frames that are looked at while a vnode's lock is held.
const LOCKED_FRAMES_MAX: usize = 64;

/// Their bytes.
const LOCKED_BYTES_MAX: usize = 256 << 10;

/// How long a vnode's lock is held, one frame excepted.
const LOCKED_TIME_MAX: Duration = Duration::from_micros(500);

/// Frames between two looks at the clock.
const LOOKS_BEFORE_TIME: usize = 4;

/// Moved bytes that may wait in memory to be written.
const UNWRITTEN_MAX: usize = 256 << 10;

/// How long to wait when the disk refuses something.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long to wait when there is nothing to do.
const REST: Duration = Duration::from_millis(50);

// ---- what others may see and ask --------------------------------------------------------------------

/// A lane that cannot be compacted any further.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stuck {
    /// The lane.
    pub lane: usize,
    /// The segment that is in the way.
    pub number: u32,
    /// Where in it, in bytes.
    pub offset: u64,
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stuck { lane, number, offset } = self;
        let (folder, name) = (lane_folder(*lane as u16), segment_name(*number));
        write!(f, "{folder}/{name} is damaged at {offset}: this lane is not compacted any more")
    }
}

/// How compaction goes, for INFO.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Status {
    /// Whether a segment is being compacted.
    pub running: bool,
    /// Whether somebody asked for all segments, and not all are done.
    pub asked: bool,
    /// Bytes of the segments that were asked for.
    pub asked_bytes: u64,
    /// How many of them are done.
    pub asked_bytes_done: u64,
    /// How long the last request took; `None`: there was none yet.
    pub last_duration: Option<Duration>,
    /// Whether the last request went through.
    pub last_failed: bool,
    /// Segments that were removed since the start.
    pub segments: u64,
    /// Bytes that were walked since the start.
    pub walked: u64,
    /// Bytes of them that were moved.
    pub moved: u64,
    /// Bytes of the segments that were removed.
    pub removed: u64,
    /// Hints that were written.
    pub hints: u64,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// The lanes that cannot be compacted any further.
    pub stuck: Vec<Stuck>,
}

/// What the compacting thread shares with everybody else.
#[derive(Debug, Default)]
pub struct Compaction {
    status: Mutex<Status>,
    bell: Mutex<Bell>,
    rung: Condvar,
    hints: AtomicBool,
    /// How many need every segment to stay.
    holds: Mutex<usize>,
}

/// While it lives, no segment is removed.
#[derive(Debug)]
pub struct Hold<'a>(&'a Compaction);

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        *self.0.holds.lock() -= 1;
    }
}

#[derive(Debug, Default)]
struct Bell {
    stop: bool,
    asked: bool,
}

impl Compaction {
    /// Nothing was done or asked yet.
    pub fn new() -> Arc<Compaction> {
        Arc::default()
    }

    /// Asks for all segments that are sealed now to be compacted, needed or not. `false` if that
    /// was asked before and is not done yet.
    pub fn ask(&self) -> bool {
        let fresh = !std::mem::replace(&mut self.status.lock().asked, true);
        if fresh {
            self.bell.lock().asked = true;
            self.rung.notify_all();
        }
        fresh
    }

    /// Whether hints shall be written: they serve a store with a memory budget only.
    pub fn set_hints(&self, wanted: bool) {
        self.hints.store(wanted, Ordering::Relaxed);
    }

    /// How it goes.
    pub fn status(&self) -> Status {
        self.status.lock().clone()
    }

    /// Ends the thread at its next step.
    pub fn stop(&self) {
        self.bell.lock().stop = true;
        self.rung.notify_all();
    }

    /// While this is held, no segment is removed.
    pub fn hold_removals(&self) -> Hold<'_> {
        *self.holds.lock() += 1;
        Hold(self)
    }

    fn rest(&self, time: Duration) {
        let mut bell = self.bell.lock();
        if !bell.stop && !bell.asked {
            self.rung.wait_for(&mut bell, time);
        }
    }

    fn stopped(&self) -> bool {
        self.bell.lock().stop
    }
}

// ---- the work ---------------------------------------------------------------------------------------

/// What a step came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stepped {
    /// There is nothing to do.
    Idle,
    /// So many bytes were walked.
    Walked {
        /// Bytes of the segment, dead ones included.
        bytes: u64,
    },
    /// The disk refuses something: it is tried again after a while.
    Waiting,
}

#[derive(Clone, Copy)]
struct Found {
    kind: Kind,
    vnode: VnodeId,
    offset: u32,
    start: usize,
    len: usize,
}

/// Frames that have been read but not looked at, sorted by vnode and then by place.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    frames: Vec<Found>,
    next: usize,
}

impl Batch {
    fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(2 * CHUNK);
        self.frames.clear();
        self.next = 0;
    }

    fn is_done(&self) -> bool {
        self.next == self.frames.len()
    }

    /// The next frames of one vnode, as many as may be looked at under its lock.
    fn run(&self) -> &[Found] {
        let rest = &self.frames[self.next..];
        let mut bytes = 0;
        let fits = rest.iter().take(LOCKED_FRAMES_MAX).take_while(|found| {
            bytes += found.len;
            found.vnode == rest[0].vnode && bytes <= LOCKED_BYTES_MAX
        });
        &rest[..fits.count().max(1)]
    }

    fn payload(&self, found: &Found) -> &[u8] {
        &self.bytes[found.start..][..found.len]
    }
}

/// The compaction of one segment.
struct Walk {
    lane: usize,
    segment: SegmentView,
    /// Damage in it is known, and harmless.
    is_lossy: bool,
    scan: Scan<Reader>,
    batch: Batch,
    /// What was moved and may not be written yet.
    moved: Commit,
    /// Its bytes.
    unwritten: usize,
    /// Bytes that were moved.
    alive: u64,
    /// How many syncs had failed before the first frame was moved.
    failed_syncs: u64,
}

/// Why a walk does not go on.
enum Trouble {
    Disk(io::Error),
    Damaged(u64),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::Disk(error)
    }
}

impl Walk {
    fn new(log: &Arc<Log>, lane: usize, segment: SegmentView) -> Walk {
        let SegmentView { number, len } = segment;
        Walk {
            lane,
            segment,
            is_lossy: log.has_lost(lane, number),
            scan: scan(log, lane, number, len),
            batch: Batch::default(),
            moved: Commit::default(),
            unwritten: 0,
            alive: 0,
            failed_syncs: log.health().failed_syncs,
        }
    }

    /// Reads the next frames. `false`: there are none.
    fn fill(&mut self) -> Result<bool, Trouble> {
        self.batch.clear();
        while self.batch.bytes.len() < CHUNK {
            let wanted = |kind| matches!(kind, Kind::State | Kind::Join);
            match self.scan.next(|header| wanted(header.kind))? {
                Piece::Frame { offset, header, payload } => {
                    let (kind, vnode) = (header.kind, header.vnode);
                    let (start, len) = (self.batch.bytes.len(), payload.len());
                    self.batch.frames.push(Found { kind, vnode, offset, start, len });
                    self.batch.bytes.extend_from_slice(payload);
                }
                Piece::Damaged { .. } if self.is_lossy => {}
                Piece::Damaged { range, .. } => return Err(Trouble::Damaged(range.start)),
                Piece::End => break,
            }
        }
        // The file may have become shorter than it was.
        let ended = self.batch.bytes.len() < CHUNK;
        if ended && self.scan.position() < self.segment.len && !self.is_lossy {
            return Err(Trouble::Damaged(self.scan.position()));
        }
        self.batch.frames.sort_by_key(|found| found.vnode);
        Ok(!self.batch.is_done())
    }

    /// Looks at some frames of one vnode under its lock: moved bytes.
    fn step(&mut self, keyspace: &Keyspace, log: &Log) -> usize {
        let run = self.batch.run();
        let batch = &self.batch;
        let (mut looked, mut moved) = (0, 0);
        let seed = keyspace.seed();
        let key_of = |found| record::decode_key(batch.payload(found)).ok();
        let hashes: SmallVec<[u64; LOCKED_FRAMES_MAX]> =
            run.iter().filter_map(key_of).map(|key| seed.key(key)).collect();
        // Most of it is dead, and what tells so lies far apart in memory.
        keyspace.approach_in(run[0].vnode, &hashes);
        let look = |vnode: &mut VnodeWrite<'_>| {
            let began = Instant::now();
            for found in run {
                let place = Place { segment: self.segment.number, offset: found.offset };
                let payload = batch.payload(found);
                if vnode.is_live(found.kind, place, payload) {
                    vnode.move_forward(place, payload);
                    moved += HEADER_SIZE + found.len;
                }
                looked += 1;
                if looked % LOOKS_BEFORE_TIME == 0 && began.elapsed() > LOCKED_TIME_MAX {
                    break;
                }
            }
        };
        let vnode = run[0].vnode;
        keyspace.write(vnode, now(), look);
        if moved > 0 {
            log.note(vnode, &mut self.moved);
        }
        self.batch.next += looked;
        self.unwritten += moved;
        self.alive += moved as u64;
        moved
    }

    /// Whether what was moved is to be written before more is.
    fn must_write(&self) -> bool {
        self.unwritten > UNWRITTEN_MAX || (self.batch.is_done() && self.unwritten > 0)
    }
}

fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(since.as_millis() as u64)
}

/// A turn: from one moment until every segment of that moment is gone. No live frame is moved
/// twice in it.
#[derive(Default)]
struct Turn {
    /// The last segment of the moment.
    last: u32,
    /// The lane's live bytes at the moment.
    live: u64,
    /// Bytes moved since.
    moved: u64,
}

#[derive(Default)]
struct Lane {
    running: bool,
    stuck: bool,
    /// The last segment that somebody asked for.
    asked: Option<u32>,
    live: u64,
    turn: Turn,
    /// How often, on average, a live frame is there: a crash leaves those twice that were moved
    /// and whose old segment was not removed yet, and only an overwrite makes both dead.
    copies: f64,
}

impl Lane {
    fn weigh(&mut self, stored: u64) {
        self.live = (stored as f64 * self.copies.max(1.0)) as u64;
    }

    /// Segment `number`, of which `moved` bytes were alive, is gone; `last` is the last sealed one.
    fn count(&mut self, number: u32, moved: u64, last: u32, stored: u64) {
        self.turn.moved += moved;
        if number >= self.turn.last {
            if self.turn.live > 0 {
                self.copies = self.turn.moved as f64 / self.turn.live as f64;
            }
            self.turn = Turn { last, live: stored, moved: 0 };
        }
    }
}

/// Compacts, a small step at a time.
pub struct Compactor {
    log: Arc<Log>,
    keyspace: Arc<Keyspace>,
    shared: Arc<Compaction>,
    lanes: Vec<Lane>,
    walk: Option<Walk>,
    hinting: Hinting,
    asked_at: Option<Instant>,
    /// The most that a segment may have.
    segment_size: u32,
}

impl Compactor {
    /// Of this log. Its segments get as large as `segment_size` bytes, or a sixteenth of what is
    /// alive in their lane.
    pub fn new(
        log: Arc<Log>,
        keyspace: Arc<Keyspace>,
        shared: Arc<Compaction>,
        segment_size: u32,
    ) -> Compactor {
        let lanes = (0..log.lanes()).map(|_| Lane::default()).collect();
        let hinting = Hinting::new(log.clone());
        Compactor {
            log,
            keyspace,
            shared,
            lanes,
            walk: None,
            hinting,
            asked_at: None,
            segment_size,
        }
    }

    /// Does a bounded piece of work.
    pub fn step(&mut self) -> Stepped {
        self.take_request();
        if self.walk.is_none() {
            self.walk = self.choose();
        }
        let Some(walk) = self.walk.take() else { return self.step_hint() };
        self.shared.status.lock().running = true;
        self.go_on(walk)
    }

    /// Bytes a second that are to be walked now.
    pub fn rate(&self) -> u64 {
        let Some(walk) = &self.walk else { return RATE_MIN * 8 };
        let least = if self.lanes[walk.lane].asked.is_some() { RATE_ASKED } else { RATE_MIN };
        let mut bytes = self.bytes(walk.lane);
        bytes.all = bytes.all.saturating_sub(walk.scan.position());
        bytes.rate().max(least)
    }

    fn bytes(&self, lane: usize) -> LaneBytes {
        let all = self.log.lane_bytes(lane);
        let sealed: u64 = self.log.segments(lane).iter().map(|segment| segment.len).sum();
        let (live, active) = (self.lanes[lane].live, all.saturating_sub(sealed));
        LaneBytes { all, live, active, least: lane_size_min(self.lanes.len()) }
    }

    fn take_request(&mut self) {
        if !std::mem::take(&mut self.shared.bell.lock().asked) {
            return;
        }
        let (mut bytes, mut stuck) = (0, false);
        for (number, lane) in self.lanes.iter_mut().enumerate() {
            let segments = self.log.segments(number);
            stuck |= lane.stuck;
            if !lane.stuck {
                lane.asked = segments.last().map(|last| last.number);
                bytes += segments.iter().map(|segment| segment.len).sum::<u64>();
            }
        }
        self.asked_at = Some(Instant::now());
        let mut status = self.shared.status.lock();
        (status.asked_bytes, status.asked_bytes_done) = (bytes, 0);
        (status.asked, status.last_failed) = (true, stuck);
    }

    /// The segment that needs it most.
    fn choose(&mut self) -> Option<Walk> {
        for number in 0..self.lanes.len() {
            let lane_of = |vnode| self.log.lane(vnode) == number;
            self.lanes[number].weigh(self.keyspace.stored(lane_of));
            let size = segment_size(self.lanes[number].live, self.segment_size);
            self.log.set_segment_size(number, size);
        }
        let mut most = None;
        for number in 0..self.lanes.len() {
            let bytes = self.bytes(number);
            let oldest = self.log.segments(number).first().copied();
            let lane = &mut self.lanes[number];
            lane.asked =
                lane.asked.filter(|last| oldest.is_some_and(|oldest| oldest.number <= *last));
            lane.running = bytes.wants(lane.running);
            let Some(oldest) = oldest.filter(|_| !lane.stuck) else { continue };
            let rate = bytes.rate();
            let more = most.is_none_or(|(_, _, before)| rate > before);
            if (lane.running || lane.asked.is_some()) && more {
                most = Some((number, oldest, rate));
            }
        }
        self.end_request();
        let (lane, oldest, _) = most?;
        Some(Walk::new(&self.log, lane, oldest))
    }

    fn end_request(&mut self) {
        if self.lanes.iter().any(|lane| lane.asked.is_some() && !lane.stuck) {
            return;
        }
        let mut status = self.shared.status.lock();
        status.running = false;
        if let Some(began) = self.asked_at.take() {
            status.last_duration = Some(began.elapsed());
            status.asked = false;
        }
    }

    fn go_on(&mut self, mut walk: Walk) -> Stepped {
        let before = walk.scan.position();
        match self.advance(&mut walk) {
            Ok(done) => {
                let bytes = walk.scan.position().saturating_sub(before);
                self.shared.status.lock().walked += bytes;
                self.walk = (!done).then_some(walk);
                Stepped::Walked { bytes }
            }
            Err(Trouble::Disk(error)) => {
                self.note(format!("compaction waits for the disk: {error}"));
                self.walk = Some(walk);
                Stepped::Waiting
            }
            Err(Trouble::Damaged(offset)) => {
                self.stick(Stuck { lane: walk.lane, number: walk.segment.number, offset });
                Stepped::Walked { bytes: 0 }
            }
        }
    }

    /// Takes the walk further. `true`: it is over.
    fn advance(&mut self, walk: &mut Walk) -> Result<bool, Trouble> {
        if walk.must_write() {
            self.log.write_out(&walk.moved).map_err(io::Error::other)?;
            walk.moved.clear();
            walk.unwritten = 0;
        }
        if walk.batch.is_done() && !walk.fill()? {
            return Ok(self.finish(walk)?);
        }
        let moved = walk.step(&self.keyspace, &self.log);
        self.shared.status.lock().moved += moved as u64;
        Ok(false)
    }

    /// Removes the segment, unless a sync has failed: then what was moved may be lost, and it is
    /// moved again.
    fn finish(&mut self, walk: &mut Walk) -> io::Result<bool> {
        self.log.sync().map_err(io::Error::other)?;
        if self.log.health().failed_syncs != walk.failed_syncs {
            *walk = Walk::new(&self.log, walk.lane, walk.segment);
            return Ok(false);
        }
        self.remove(walk.lane, walk.segment.number)?;
        let last =
            self.log.segments(walk.lane).last().map_or(walk.segment.number, |last| last.number);
        let stored = self.keyspace.stored(|vnode| self.log.lane(vnode) == walk.lane);
        self.lanes[walk.lane].count(walk.segment.number, walk.alive, last, stored);
        let mut status = self.shared.status.lock();
        status.segments += 1;
        status.removed += walk.segment.len;
        if self.lanes[walk.lane].asked.is_some_and(|last| walk.segment.number <= last) {
            status.asked_bytes_done += walk.segment.len;
        }
        Ok(true)
    }

    /// Removes a segment and its hint, durably.
    fn remove(&self, lane: usize, number: u32) -> io::Result<()> {
        let folder = self.log.folder().join(lane_folder(lane as u16));
        let disk = self.log.disk();
        // Kept until the segment is gone: nobody begins to hold in between.
        let holds = self.shared.holds.lock();
        if *holds > 0 {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "a snapshot is being made"));
        }
        remove_if_there(&**disk, &folder.join(hint_name(number)))?;
        match self.log.remove(lane, number) {
            // It went the last time, but its name was not durably gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => disk.sync_folder(&folder),
            removed => removed,
        }
    }

    fn step_hint(&mut self) -> Stepped {
        if !self.shared.hints.load(Ordering::Relaxed) {
            return Stepped::Idle;
        }
        match self.hinting.step() {
            Ok(None) => Stepped::Idle,
            Ok(Some(bytes)) => {
                self.shared.status.lock().hints = self.hinting.written();
                Stepped::Walked { bytes }
            }
            Err(error) => {
                self.note(format!("hints wait for the disk: {error}"));
                Stepped::Waiting
            }
        }
    }

    fn stick(&mut self, stuck: Stuck) {
        let lane = &mut self.lanes[stuck.lane];
        (lane.stuck, lane.asked) = (true, None);
        let why = stuck.to_string();
        let mut status = self.shared.status.lock();
        status.last_failed = true;
        status.stuck.push(stuck);
        drop(status);
        self.note(why);
    }

    /// Says an error once, however often it comes.
    fn note(&self, error: String) {
        let mut status = self.shared.status.lock();
        if status.last_error.as_ref() != Some(&error) {
            tracing::error!("{error}");
            status.last_error = Some(error);
        }
    }
}

/// Compacts and writes hints until it is told to stop: the life of a thread.
pub fn compact_always(mut compactor: Compactor) {
    let shared = compactor.shared.clone();
    let mut due = Instant::now();
    while !shared.stopped() {
        match compactor.step() {
            Stepped::Idle => shared.rest(REST),
            Stepped::Waiting => shared.rest(PATIENCE),
            // What was read before is looked at; it was paid for when it was read.
            Stepped::Walked { bytes: 0 } => {}
            Stepped::Walked { bytes } => {
                // What was not used for a while is not made up for in a burst.
                due = due.max(Instant::now() - REST);
                due += Duration::from_secs_f64(bytes as f64 / compactor.rate() as f64);
                let ahead = due.saturating_duration_since(Instant::now());
                if ahead > Duration::from_millis(1) {
                    shared.rest(ahead);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is there twice must not be taken for dead: nothing would ever come of moving it.
    #[test]
    fn a_turn_tells_how_often_live_frames_are_there() {
        let mut lane = Lane::default();
        lane.count(1, 70, 3, 100);
        lane.weigh(100);
        assert_eq!(lane.live, 100, "nothing is known before the first whole turn");
        lane.count(2, 80, 4, 100);
        lane.weigh(100);
        assert_eq!(lane.live, 100);
        lane.count(3, 70, 5, 100);
        lane.weigh(100);
        assert_eq!(lane.live, 150, "a hundred bytes were moved as a hundred and fifty");
        lane.weigh(0);
        assert_eq!(lane.live, 0, "what was deleted is dead, however often it is there");
        lane.count(4, 40, 6, 100);
        lane.count(5, 40, 7, 100);
        lane.weigh(100);
        assert_eq!(lane.live, 100, "overwriting makes all copies dead");
    }
}
