//! What the door asks of the engine and tells it: numbers for reports, limits, refusals, and the
//! two jobs that an operator may begin, a snapshot and a compaction of the whole log.
//!
//! ```text
//!  CONFIG SET ──► set_maxmemory, set_fsync        INFO ◄── memory, persistence, loading
//!  a write    ──► write_refusal                   BGSAVE, BGREWRITEAOF ──► Job ──► a blocking thread
//! ```
//!
//! Invariant: of each kind of job one runs at a time, and one that ended badly, by a panic too,
//! has ended.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::base::id::VnodeId;
use crate::base::time::UnixMs;
use crate::command::flags::{Flag, Flags};
use crate::storage::log::Fsync;
use crate::storage::recovery::Progress;

use super::upkeep::Upkeep;
use super::{Node, now};

/// When what was written is made to survive the machine, by Redis's names and in Redis's order.
pub const FSYNC_NAMES: [(&str, Fsync); 3] =
    [("everysec", Fsync::Everysec), ("always", Fsync::Always), ("no", Fsync::No)];

/// The setting called `name`, in any case.
pub fn fsync_named(name: &str) -> Option<Fsync> {
    let known = FSYNC_NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    known.map(|(_, fsync)| *fsync)
}

/// Its name.
pub fn fsync_name(fsync: Fsync) -> &'static str {
    let known = FSYNC_NAMES.iter().find(|(_, known)| *known == fsync);
    known.map_or("", |(name, _)| name)
}

/// What the keys of this node take.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Memory {
    /// Bytes that `maxmemory` is held against: blocks and tables.
    pub used: u64,
    /// The most that it ever was, as far as anybody looked.
    pub peak: u64,
    /// Bytes of keys, values and their histories.
    pub blocks: u64,
    /// Bytes of the tables that find them.
    pub tables: u64,
    /// `maxmemory`; 0: no limit.
    pub budget: u64,
    /// Keys whose value is in memory.
    pub hot_keys: u64,
    /// Keys whose value is on disk only.
    pub cold_keys: u64,
}

/// How far the log has been read at the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Loading {
    /// Bytes read.
    pub done: u64,
    /// Bytes to read in all.
    pub total: u64,
    /// Since when.
    pub started: UnixMs,
}

/// How the log is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Persistence {
    /// How far it has been read, if it is not read to its end yet.
    pub loading: Option<Loading>,
    /// When what was written is made durable.
    pub fsync: Fsync,
    /// Why the last write(2) failed, if it did.
    pub last_write_error: Option<String>,
    /// Why the last fsync(2) failed, if it did.
    pub last_sync_error: Option<String>,
    /// Bytes that are appended and not written.
    pub pending_bytes: u64,
    /// Bytes that are written and not known to survive the machine.
    pub unsynced_bytes: u64,
    /// Calls of fsync(2) under way.
    pub syncs: u64,
    /// Calls of fsync(2) that were due and put off because the one before was still under way.
    pub syncs_delayed: u64,
    /// Bytes of all segments.
    pub log_bytes: u64,
    /// Those of them that the keys still need.
    pub live_bytes: u64,
    /// Segments.
    pub segments: u64,
    /// Lanes.
    pub lanes: u64,
    /// Compactions of the whole log.
    pub rewrite: Work,
    /// Snapshots.
    pub snapshot: Work,
}

/// What is known of one kind of job.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Work {
    /// Since when one is under way.
    pub since: Option<UnixMs>,
    /// How many ended well.
    pub done: u64,
    /// When the last one ended well.
    pub last_good: Option<UnixMs>,
    /// Milliseconds that the last one took, and whether it ended well.
    pub last: Option<(u64, bool)>,
}

/// Why a write is not done. Nothing was done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Memory is full, and nothing can leave it.
    Oom,
    /// The log cannot be written, and why.
    Misconf(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Oom => f.write_str("OOM command not allowed when used memory > 'maxmemory'."),
            Refusal::Misconf(why) => write!(f, "MISCONF Errors writing to the AOF file: {why}"),
        }
    }
}

/// What the node keeps for this file.
#[derive(Debug, Default)]
pub(super) struct Engine {
    peak: AtomicU64,
    snapshot: Arc<Job>,
    rewrite: Arc<Job>,
    budget: AtomicU64,
    pub(super) progress: Progress,
    pub(super) loading: AtomicBool,
    pub(super) upkeep: Upkeep,
}

impl Engine {
    /// Of a node that has a log to read first, or has none.
    pub(super) fn new(has_log: bool) -> Engine {
        Engine { loading: AtomicBool::new(has_log), ..Engine::default() }
    }
}
/// One kind of job.
#[derive(Debug, Default)]
struct Job(Mutex<Work>);

impl Job {
    fn work(&self) -> Work {
        *self.0.lock()
    }

    /// Begins one, unless one is under way.
    fn begin(self: &Arc<Job>, now: UnixMs) -> Option<Turn> {
        let mut work = self.0.lock();
        if work.since.is_some() {
            return None;
        }
        work.since = Some(now);
        Some(Turn { job: self.clone(), good: false })
    }
}

/// A job that is under way; it ends when this is dropped.
#[derive(Debug)]
struct Turn {
    job: Arc<Job>,
    good: bool,
}

impl Turn {
    fn end(mut self, good: bool) {
        self.good = good;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let (mut work, now) = (self.job.0.lock(), now());
        let began = work.since.take().unwrap_or(now);
        work.last = Some((now.0.saturating_sub(began.0), self.good));
        if self.good {
            work.done += 1;
            work.last_good = Some(now);
        }
    }
}

/// A snapshot that was begun and not made yet.
#[derive(Debug)]
pub struct Saving {
    node: Arc<Node>,
    turn: Turn,
}

impl Saving {
    /// Makes the snapshot in `folder` on a thread that may wait, and tells `done` how it ended.
    pub fn run(self, folder: PathBuf, done: impl FnOnce(io::Result<()>) + Send + 'static) {
        let Saving { node, turn } = self;
        tokio::task::spawn_blocking(move || {
            let outcome = node.take_snapshot(&folder);
            match &outcome {
                Ok(()) => tracing::info!(folder = %folder.display(), "snapshot made"),
                Err(error) => tracing::error!(%error, "no snapshot"),
            }
            turn.end(outcome.is_ok());
            done(outcome);
        });
    }
}

/// What the engine tells and is told.
impl Node {
    /// What the keys of this node take.
    pub fn memory(&self) -> Memory {
        let (blocks, tables) = (self.keyspace.memory() as u64, self.keyspace.table_memory() as u64);
        let used = blocks + tables;
        let counts = self.vnodes().map(|vnode| self.keyspace.counts(vnode));
        let (held, cold) = counts.fold((0, 0), |(held, cold), counts| {
            (held + counts.held as u64, cold + counts.cold as u64)
        });
        Memory {
            used,
            peak: self.note_peak(),
            blocks,
            tables,
            budget: self.engine.budget.load(Ordering::Relaxed),
            hot_keys: held - cold,
            cold_keys: cold,
        }
    }

    pub(super) fn vnodes(&self) -> impl Iterator<Item = VnodeId> + use<> {
        (0..self.routes.vnodes()).map(VnodeId)
    }

    /// Looks how much memory is used, for the peak.
    pub(super) fn note_peak(&self) -> u64 {
        let used = self.keyspace.used() as u64;
        self.engine.peak.fetch_max(used, Ordering::Relaxed).max(used)
    }

    /// How the log is.
    pub fn persistence(&self) -> Persistence {
        let (rewrite, snapshot) = (self.engine.rewrite.work(), self.engine.snapshot.work());
        let loading = self.loading();
        let Some(log) = &self.log else {
            return Persistence { loading, rewrite, snapshot, ..Persistence::default() };
        };
        let health = log.health();
        let lanes = 0..log.lanes();
        let sealed: usize = lanes.clone().map(|lane| log.segments(lane).len()).sum();
        Persistence {
            loading,
            fsync: log.fsync(),
            last_write_error: health.write_error,
            last_sync_error: health.sync_error,
            pending_bytes: health.pending_bytes,
            unsynced_bytes: health.unsynced_bytes,
            syncs: u64::from(health.unsynced_bytes > 0 && log.fsync() == Fsync::Always),
            syncs_delayed: health.delayed_syncs,
            log_bytes: lanes.map(|lane| log.lane_bytes(lane)).sum(),
            live_bytes: self.keyspace.stored(|_| true),
            segments: (sealed + log.lanes()) as u64,
            lanes: log.lanes() as u64,
            rewrite,
            snapshot,
        }
    }

    /// How far the log has been read at the start; nothing once it has been read.
    pub fn loading(&self) -> Option<Loading> {
        self.is_loading().then(|| Loading {
            done: self.engine.progress.bytes_done.load(Ordering::Relaxed),
            total: self.engine.progress.bytes_total.load(Ordering::Relaxed),
            started: self.started,
        })
    }

    /// Whether the log is still being read, so that only a few commands may run. Asked before
    /// every command.
    pub fn is_loading(&self) -> bool {
        self.engine.loading.load(Ordering::Relaxed)
    }

    /// Bounds the memory of keys, values and tables together; 0: no limit.
    pub fn set_maxmemory(&self, bytes: u64) {
        self.engine.budget.store(bytes, Ordering::Relaxed);
        self.keyspace.set_budget(bytes);
        self.engine.upkeep.compaction().set_hints(bytes > 0);
        if !self.is_loading() {
            self.keyspace.make_room(now());
        }
    }

    /// Whether there is a `maxmemory`.
    pub(super) fn memory_is_bounded(&self) -> bool {
        self.engine.budget.load(Ordering::Relaxed) > 0
    }

    /// Says when what was written is made durable.
    pub fn set_fsync(&self, fsync: Fsync) {
        if let Some(log) = &self.log {
            log.set_fsync(fsync);
        }
    }

    /// Why a command with these flags may not run now. Asked before every write.
    pub fn write_refusal(&self, flags: Flags, now: UnixMs) -> Option<Refusal> {
        let refusal = self.refusal(flags, now)?;
        match &refusal {
            Refusal::Oom => self.metrics.oom.bump(),
            Refusal::Misconf(_) => self.metrics.misconf.bump(),
        }
        Some(refusal)
    }

    /// The same, and is not counted.
    pub(super) fn refusal(&self, flags: Flags, now: UnixMs) -> Option<Refusal> {
        if flags.has(Flag::Denyoom) && !self.keyspace.has_room(now) {
            return Some(Refusal::Oom);
        }
        let why = self.log.as_ref()?.refusal().filter(|_| flags.has(Flag::Write))?;
        Some(Refusal::Misconf(why))
    }

    /// Begins a snapshot; none if one is under way.
    pub fn begin_save(self: &Arc<Node>) -> Option<Saving> {
        let turn = self.engine.snapshot.begin(now())?;
        Some(Saving { node: self.clone(), turn })
    }

    /// When the last snapshot was made, or else this node.
    pub fn last_save(&self) -> UnixMs {
        self.engine.snapshot.work().last_good.unwrap_or(self.started)
    }

    /// Begins to compact the whole log on a thread that may wait; `false` if that is under way.
    pub fn begin_rewrite(self: &Arc<Node>) -> bool {
        let Some(turn) = self.engine.rewrite.begin(now()) else { return false };
        let node = self.clone();
        tokio::task::spawn_blocking(move || {
            let outcome = node.rewrite_log();
            if let Err(error) = &outcome {
                tracing::error!(%error, "the log was not compacted");
            }
            turn.end(outcome.is_ok());
        });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fsync_has_the_names_of_redis() {
        for (name, fsync) in FSYNC_NAMES {
            assert_eq!(fsync_named(&name.to_uppercase()), Some(fsync));
            assert_eq!(fsync_name(fsync), name);
        }
        assert_eq!(fsync_named("often"), None);
    }

    #[test]
    fn refusals_are_the_words_of_redis() {
        assert_eq!(
            Refusal::Oom.to_string(),
            "OOM command not allowed when used memory > 'maxmemory'."
        );
        assert_eq!(
            Refusal::Misconf("No space left on device".to_owned()).to_string(),
            "MISCONF Errors writing to the AOF file: No space left on device"
        );
    }

    #[test]
    fn one_job_at_a_time_and_all_of_them_end() {
        let job = Arc::new(Job::default());
        let first = job.begin(UnixMs(5)).expect("nothing is under way");
        assert_eq!(job.work().since, Some(UnixMs(5)));
        assert!(job.begin(UnixMs(6)).is_none());
        first.end(true);
        let work = job.work();
        assert_eq!((work.since, work.done), (None, 1));
        assert!(work.last.is_some_and(|(_, good)| good) && work.last_good.is_some());
        // A panic drops it too.
        drop(job.begin(now()).expect("the first has ended"));
        let later = job.work();
        assert_eq!((later.done, later.last_good), (1, work.last_good));
        assert!(later.last.is_some_and(|(_, good)| !good));
        assert!(job.begin(now()).is_some());
    }
}
