//! The threads of a log: a syncer for each lane makes durable what was written, one keeper
//! prepares segments and tries again what failed.
//!
//! A syncer's round, in this order, so that a lane is durable from its start up to a point:
//! names in the folder; segments that were rolled, oldest first, each of which is then sealed;
//! the active one.
//!
//! A sync that failed is never asked of the same file again: Linux drops the pages that it could
//! not write and answers the next sync with success (Rebello et al., "Can Applications Recover
//! from fsync Failures?", 2020). Instead the segment is given up for durability, a fresh one
//! begins, and the owner of the memory appends again what the lost part may have held.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::RwLock;

use super::disk::reason;
use super::lane::{Ground, Lane, Segment, Stage, Trouble, place, position};
use super::place::Place;
use super::tide::Call;

/// Syncs that keep failing are tried at most this many beats apart.
const PAUSE_BEATS_MAX: u32 = 64;

/// A sync is put off by at most so much for others to join it, and by half the time that syncs
/// take if that is less.
const GATHER_MAX: Duration = Duration::from_millis(2);

/// A part of a lane that may not survive the machine, because a sync failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lost {
    /// The lane.
    pub lane: usize,
    /// The first frame that may be lost.
    pub from: Place,
    /// The first frame after them.
    pub upto: Place,
}

type LostHook = Box<dyn Fn(Lost) + Send + Sync>;

/// What the threads of a log share with it.
pub(super) struct Core {
    pub(super) ground: Ground,
    pub(super) lanes: Box<[Lane]>,
    /// Whether what was written is made durable at every beat.
    pub(super) syncs_at_beat: AtomicBool,
    pub(super) lost: RwLock<Option<LostHook>>,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("lanes", &self.lanes).finish_non_exhaustive()
    }
}

impl Core {
    /// Ends all threads; they do not write or sync any more.
    pub(super) fn stop(&self) {
        self.ground.stopping.store(true, Ordering::Release);
        self.ground.call_keeper();
        for lane in &self.lanes {
            lane.tide.close();
        }
    }
}

/// Starts the threads.
///
/// # Errors
/// The system gives no more threads. Those that were started end by [`Core::stop`].
pub(super) fn start(core: &Arc<Core>, threads: &mut Vec<JoinHandle<()>>) -> io::Result<()> {
    let of_keeper = Arc::clone(core);
    let builder = thread::Builder::new().name("log-keeper".to_owned());
    threads.push(builder.spawn(move || keep_always(&of_keeper))?);
    for number in 0..core.lanes.len() {
        let builder = thread::Builder::new().name(format!("log-sync-{number}"));
        let core = Arc::clone(core);
        threads.push(builder.spawn(move || Syncer::new(&core, number).run())?);
    }
    Ok(())
}

fn keep_always(core: &Core) {
    let ground = &core.ground;
    let mut retry_at = Instant::now();
    loop {
        ground.wait_for_call();
        if ground.stopping.load(Ordering::Acquire) {
            return;
        }
        let now = Instant::now();
        let retry = now >= retry_at;
        if retry {
            retry_at = now + ground.beat;
        }
        for lane in &core.lanes {
            lane.keep(ground, retry);
        }
    }
}

struct Syncer<'a> {
    core: &'a Core,
    lane: &'a Lane,
    /// After a loss, what was appended again ends here, and nothing more is called durable until
    /// this is.
    owed: u64,
    failures_in_a_row: u32,
    patience: Instant,
    /// What a sync takes, as a moving average.
    sync_time: Duration,
}

impl Syncer<'_> {
    fn new(core: &Core, number: usize) -> Syncer<'_> {
        let patience = Instant::now();
        let lane = &core.lanes[number];
        let sync_time = Duration::ZERO;
        Syncer { core, lane, owed: 0, failures_in_a_row: 0, patience, sync_time }
    }

    fn run(mut self) {
        let beat = self.core.ground.beat;
        let mut next_beat = Instant::now() + beat;
        loop {
            let gather = (self.sync_time / 2).min(GATHER_MAX);
            match self.lane.tide.next_call(next_beat, self.patience, gather) {
                Call::Stop => return,
                Call::Sync => self.round(true),
                Call::Seal => self.round(self.owed > 0),
                Call::Beat => {
                    next_beat = Instant::now() + beat;
                    self.write_leftovers();
                    let syncs = self.core.syncs_at_beat.load(Ordering::Acquire);
                    self.round(syncs || self.failures_in_a_row > 0);
                }
            }
        }
    }

    /// Writes what was appended by somebody who does not wait for it.
    fn write_leftovers(&self) {
        // An error is noted where it happens, and it is tried again there.
        let _ = self.lane.write_out(&self.core.ground, self.lane.appended(), false);
    }

    fn round(&mut self, with_active: bool) {
        let written = self.lane.written();
        let bytes = self.lane.bytes_written();
        if let Err(error) = self.sync_names() {
            return self.fail(&error);
        }
        for (number, segment) in self.unsealed() {
            let is_active = segment.stage == Stage::Active;
            if is_active && (!with_active || written <= self.lane.tide.durable()) {
                continue;
            }
            if let Err(error) = self.settle(number, &segment) {
                self.fail(&error);
                return self.give_up(number, &segment);
            }
            if is_active {
                self.lane.bytes_durable.fetch_max(bytes, Ordering::AcqRel);
            }
            let end = if is_active { written } else { end_of(number, &segment) };
            self.publish(end, is_active);
        }
        self.recover();
    }

    fn unsealed(&self) -> Vec<(u32, Segment)> {
        let files = self.lane.files.read();
        let unsealed = files.iter().filter(|(_, segment)| segment.stage != Stage::Sealed);
        unsealed.map(|(&number, segment)| (number, segment.clone())).collect()
    }

    fn sync_names(&self) -> io::Result<()> {
        if !self.lane.names_changed.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let synced = self.core.ground.disk.sync_folder(&self.lane.folder);
        if synced.is_err() {
            self.lane.names_changed.store(true, Ordering::Release);
        }
        synced
    }

    /// Makes a segment durable, and seals it if it is not written to any more.
    fn settle(&mut self, number: u32, segment: &Segment) -> io::Result<()> {
        let is_rolled = segment.stage == Stage::Rolled;
        if is_rolled && let Err(error) = segment.file.set_len(segment.len) {
            tracing::warn!(lane = self.lane.number, number, "cannot trim a segment: {error}");
        }
        if !segment.lost {
            self.sync(segment)?;
        }
        if is_rolled && let Some(segment) = self.lane.files.write().get_mut(&number) {
            segment.stage = Stage::Sealed;
        }
        Ok(())
    }

    fn sync(&mut self, segment: &Segment) -> io::Result<()> {
        let counts = &self.core.ground.counts;
        let begun = Instant::now();
        counts.syncs.fetch_add(1, Ordering::Relaxed);
        let synced = segment.file.sync();
        let took = begun.elapsed();
        self.sync_time = (self.sync_time * 7 + took) / 8;
        if took > 2 * self.core.ground.beat {
            counts.delayed_syncs.fetch_add(1, Ordering::Relaxed);
        }
        synced
    }

    /// Everything below `end` is durable, but for what is owed.
    fn publish(&mut self, end: u64, is_active: bool) {
        if end < self.owed {
            return self.lane.tide.wake();
        }
        self.owed = 0;
        // This segment tells that it is durable up to here, or the next one that all of it is.
        let next = position(place(end).segment + 1, 0);
        self.lane.mark(if is_active { end } else { next });
        self.lane.tide.rise(end);
    }

    /// A round went well.
    fn recover(&mut self) {
        if self.owed > 0 {
            self.patience = Instant::now() + self.core.ground.beat;
        } else if self.failures_in_a_row > 0 {
            self.failures_in_a_row = 0;
            self.core.ground.set_trouble(self.lane.number, Trouble::Sync, None);
            self.lane.tide.recover();
        }
    }

    fn fail(&mut self, error: &io::Error) {
        let ground = &self.core.ground;
        ground.counts.failed_syncs.fetch_add(1, Ordering::Relaxed);
        ground.set_trouble(self.lane.number, Trouble::Sync, Some(&reason(error)));
        let pause = (1 << self.failures_in_a_row.min(PAUSE_BEATS_MAX.ilog2())) - 1;
        self.patience = Instant::now() + pause * ground.beat;
        self.failures_in_a_row += 1;
        self.lane.tide.fail();
    }

    /// The segment is never synced again, and what comes next goes to another one. Everything
    /// that may be lost is appended again; nothing is durable until that is.
    fn give_up(&mut self, number: u32, segment: &Segment) {
        let lane = self.lane;
        if let Some(segment) = lane.files.write().get_mut(&number) {
            segment.lost = true;
        }
        lane.roll_from(number);
        self.write_leftovers();
        let end = match segment.stage {
            Stage::Active => lane.appended(),
            Stage::Rolled | Stage::Sealed => end_of(number, segment),
        };
        let from = place(lane.tide.durable());
        let lost = Lost { lane: usize::from(lane.number), from, upto: place(end) };
        tracing::error!(?lost, "a part of the log may not survive the machine");
        if let Some(hook) = &*self.core.lost.read() {
            hook(lost);
        }
        self.owed = lane.appended();
        self.write_leftovers();
    }
}

fn end_of(number: u32, segment: &Segment) -> u64 {
    position(number, segment.len as u32)
}
