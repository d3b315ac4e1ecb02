//! The engine's long work: reading the log at the start, compacting it, linking snapshots, the end.
//!
//! ```text
//!  load ──► log begins ──► compaction's thread ─────────────► close: stop it, write, sync
//!                              ▲ BGREWRITEAOF asks               ▲ BGSAVE: links, no copies
//! ```

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use tracing::{error, info, warn};

use crate::storage::compaction::{Compaction, Compactor, compact_always};
use crate::storage::log::{Fsync, LogError};
use crate::storage::recovery::recover;
use crate::storage::snapshot::snapshot;

use super::Node;
use super::damage::Losses;

/// How often a compaction that was asked for is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What the node keeps for this file.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    compaction: Arc<Compaction>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// What of compaction's work is in the node's counters already.
    counted: Counted,
}

#[derive(Debug, Default)]
struct Counted {
    segments: AtomicU64,
    moved: AtomicU64,
    cooled: AtomicU64,
    warmed: AtomicU64,
}

/// What `total` grew by since it was last counted.
fn growth(counted: &AtomicU64, total: u64) -> u64 {
    total.saturating_sub(counted.swap(total, Ordering::Relaxed))
}

/// Bytes of memory that the process takes; 0 if nobody says.
fn resident() -> u64 {
    let text = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: Option<u64> = text.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}

impl Upkeep {
    pub(super) fn compaction(&self) -> &Compaction {
        &self.compaction
    }
}

impl Node {
    /// Reads the log into memory and begins to write it. Takes as long as it takes. Says what may
    /// be lost of what an earlier process wrote.
    ///
    /// # Errors
    /// The disk fails, or the log is another cluster's or version's. The node must not serve.
    pub fn load(self: &Arc<Node>) -> io::Result<Losses> {
        let Some(log) = &self.log else { return Ok(Losses::default()) };
        let past = self.life.past();
        let report = recover(log, &self.keyspace, past, &self.engine.progress)?;
        for cut in &report.cut {
            warn!("a torn tail of the log: {cut}");
        }
        let keys: usize = self.vnodes().map(|vnode| self.keyspace.counts(vnode).live).sum();
        if report.bytes > 0 {
            let (megabytes, seconds) = (report.bytes / 1_000_000, report.seconds);
            info!("recovered {keys} keys from {megabytes} MB of log in {seconds:.1} s");
        }
        let keyspace = self.keyspace.clone();
        log.ask_ceiling_of(move || keyspace.ceiling());
        let keyspace = self.keyspace.clone();
        log.on_lost_sync(move |lost| {
            if !keyspace.reappend(lost) {
                error!(lane = lost.lane, "not all that a failed fsync lost was in memory");
            }
        });
        log.begin(report.hlc_max)?;
        if past.clean {
            // The same actor goes on, and what it forgot is not in the log.
            self.keyspace.suspect_forgotten();
        }
        self.keyspace.replayed();
        self.keyspace.make_room(super::now());
        self.begin_compaction()?;
        let torn = !past.clean && past.machine_restarted && log.fsync() != Fsync::Always;
        // An earlier process may have ended before its peers had brought it what it had lost.
        let tail = torn || !self.life.is_whole();
        // What was never here has missed nothing.
        let away = self.life.is_resumed();
        let losses = Losses { tail, damaged: report.damaged, away };
        self.life.settle(losses.is_none())?;
        Ok(losses)
    }

    /// Ends the engine: everything is written and durable. `false` if it never began.
    ///
    /// # Errors
    /// Not everything is durable.
    pub fn close(&self) -> Result<bool, LogError> {
        let Some(log) = &self.log else { return Ok(false) };
        self.engine.upkeep.compaction.stop();
        // It is the last that begins.
        let Some(thread) = self.engine.upkeep.thread.lock().take() else { return Ok(false) };
        // A panic there was told by the thread.
        let _ = thread.join();
        log.close()?;
        Ok(true)
    }

    fn begin_compaction(&self) -> io::Result<()> {
        let Some(log) = &self.log else { return Ok(()) };
        let (shared, size) = (self.engine.upkeep.compaction.clone(), self.options.segment_size);
        let compactor = Compactor::new(log.clone(), self.keyspace.clone(), shared, size);
        let thread = thread::Builder::new().name("compaction".to_owned());
        let thread = thread.spawn(move || compact_always(compactor))?;
        *self.engine.upkeep.thread.lock() = Some(thread);
        Ok(())
    }

    /// Tells the keyspace how much memory there is beside it.
    pub(super) fn watch_memory(&self) {
        self.note_peak();
        if self.memory_is_bounded() {
            self.keyspace.note_growth(super::now());
            self.keyspace.note_resident(resident());
        }
    }

    /// Brings the node's counters up to date with the engine's.
    pub(super) fn count_upkeep(&self) {
        let Upkeep { compaction, counted, .. } = &self.engine.upkeep;
        let status = compaction.status();
        self.metrics.log_segments_compacted.add(growth(&counted.segments, status.segments));
        self.metrics.log_bytes_moved.add(growth(&counted.moved, status.moved));
        self.metrics.cooled.add(growth(&counted.cooled, self.keyspace.cooled()));
        self.metrics.warmed.add(growth(&counted.warmed, self.keyspace.warmed()));
        self.metrics.damaged_vnodes.set(self.vnodes_damaged() as u64);
    }

    /// Links what is in the log now into `folder`, from which a node starts. An earlier snapshot
    /// there gives way when the new one is whole. Waits for the disk.
    pub(super) fn take_snapshot(&self, folder: &Path) -> io::Result<()> {
        let Some(log) = &self.log else {
            return Err(io::Error::other("this node keeps no log"));
        };
        let sibling = |ending: &str| {
            let mut name = folder.as_os_str().to_owned();
            name.push(ending);
            std::path::PathBuf::from(name)
        };
        let (fresh, old) = (sibling(".new"), sibling(".old"));
        for left in [&fresh, &old] {
            if left.exists() {
                fs::remove_dir_all(left)?;
            }
        }
        let compaction = self.engine.upkeep.compaction();
        let made = snapshot(log, compaction, &self.life.lived(), &fresh)?;
        if folder.exists() {
            fs::rename(folder, &old)?;
        }
        fs::rename(&fresh, folder)?;
        if let Some(parent) = folder.parent() {
            log.disk().sync_folder(parent)?;
        }
        if old.exists() {
            fs::remove_dir_all(&old)?;
        }
        let (segments, megabytes) = (made.segments, made.bytes / 1_000_000);
        info!(segments, megabytes, copied = made.copied, "snapshot linked");
        Ok(())
    }

    /// Compacts every segment that is sealed now. Waits for it.
    pub(super) fn rewrite_log(&self) -> io::Result<()> {
        let Some(log) = &self.log else { return Ok(()) };
        log.roll()?;
        let compaction = self.engine.upkeep.compaction();
        compaction.ask();
        while compaction.status().asked {
            if self.engine.upkeep.thread.lock().as_ref().is_none_or(JoinHandle::is_finished) {
                return Err(io::Error::other("the node stops"));
            }
            thread::sleep(LOOK_EVERY);
        }
        let status = compaction.status();
        if status.last_failed {
            let why = status.last_error.unwrap_or_else(|| "compaction is stuck".to_owned());
            return Err(io::Error::other(why));
        }
        Ok(())
    }
}
