//! The tide of a lane: up to where it is durable, and who waits for it to rise.
//!
//! Invariant: `durable` never falls, and everything of the lane below it survives the machine.
//! After a failed sync it stands still until what memory still had of the lost frames was
//! appended again and is durable itself; only then does it pass over the hole.
//!
//! Clients that wait for one sync come back with their next writes soon after it, but not at
//! once: a syncer that began the next one with the first of them would for ever serve half of
//! them at a time. So it waits a little for as many as waited at the end of the last sync
//! (DeWitt et al., "Implementation Techniques for Main Memory Database Systems", 1984, has the
//! group; PostgreSQL's `commit_delay` the wait).

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

/// Why a wait ended early.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ebb {
    /// A sync failed: what was waited for may be lost.
    SyncFailed,
    /// Nobody syncs any more.
    Closed,
}

impl Ebb {
    pub(super) const fn text(self) -> &'static str {
        match self {
            Ebb::SyncFailed => "the disk failed to make the log durable",
            Ebb::Closed => "the log is closed",
        }
    }
}

/// What is asked of a lane's syncer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Wish {
    /// Somebody waits for this position.
    upto: u64,
    /// How many waited at the end of the last sync.
    crowd: usize,
    /// A segment was rolled and is to be sealed.
    sealing: bool,
    /// The syncer is to look at its lane again.
    look: bool,
    closed: bool,
}

/// What the syncer shall do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Call {
    /// Somebody waits.
    Sync,
    /// A segment is to be sealed.
    Seal,
    /// Time has come, or something changed.
    Beat,
    /// End.
    Stop,
}

/// One of those who wait, until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Waiting<'_> {
    fn new(count: &AtomicUsize) -> Waiting<'_> {
        count.fetch_add(1, Ordering::AcqRel);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Tide {
    durable: AtomicU64,
    failures: AtomicU64,
    /// The last sync failed, and none was good since.
    is_low: AtomicBool,
    /// How many wait.
    waiting: AtomicUsize,
    wish: Mutex<Wish>,
    /// Rung for the syncer.
    bell: Condvar,
    /// Rung by the syncer, for waiting threads and for waiting tasks.
    moved: Condvar,
    moved_tasks: Notify,
}

impl Tide {
    pub(super) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// The syncer's: everything below `position` is durable.
    pub(super) fn rise(&self, position: u64) {
        self.wish.lock().crowd = self.waiting.load(Ordering::Acquire);
        self.durable.fetch_max(position, Ordering::AcqRel);
        self.wake();
    }

    /// The syncer's: a sync failed, and all who wait are told so.
    pub(super) fn fail(&self) {
        self.is_low.store(true, Ordering::Release);
        self.failures.fetch_add(1, Ordering::AcqRel);
        self.wake();
    }

    /// The syncer's: syncs work again.
    pub(super) fn recover(&self) {
        self.is_low.store(false, Ordering::Release);
    }

    /// The syncer's: something that is looked at by [`Tide::wait_until`] changed.
    pub(super) fn wake(&self) {
        drop(self.wish.lock());
        self.moved.notify_all();
        self.moved_tasks.notify_waiters();
    }

    /// Ends the syncer and every wait.
    pub(super) fn close(&self) {
        self.wish.lock().closed = true;
        self.bell.notify_all();
        self.wake();
    }

    /// A segment was rolled and is to be sealed.
    pub(super) fn ask_sealing(&self) {
        self.wish.lock().sealing = true;
        self.bell.notify_all();
    }

    /// The syncer is to look again: the fsync policy changed.
    pub(super) fn ask_look(&self) {
        self.wish.lock().look = true;
        self.bell.notify_all();
    }

    /// Everything below `position` is to be made durable as soon as may be.
    pub(super) fn ask(&self, position: u64) {
        if self.durable() >= position {
            return;
        }
        let mut wish = self.wish.lock();
        let is_first = wish.upto <= self.durable();
        wish.upto = wish.upto.max(position);
        if is_first || self.waiting.load(Ordering::Acquire) >= wish.crowd {
            self.bell.notify_all();
        }
    }

    /// Whether waiting for `position` has ended; `failures` are those before it began.
    fn has_reached(&self, position: u64, failures: u64) -> Option<Result<(), Ebb>> {
        if self.durable() >= position {
            Some(Ok(()))
        } else if self.is_low.load(Ordering::Acquire) || self.failures() != failures {
            Some(Err(Ebb::SyncFailed))
        } else {
            self.wish.lock().closed.then_some(Err(Ebb::Closed))
        }
    }

    /// The syncer's: waits until there is something to do, at most until `beat`; not before
    /// `patience` unless it is to stop. A sync is put off by up to `gather` until all have come
    /// who waited for the last one.
    pub(super) fn next_call(&self, beat: Instant, patience: Instant, gather: Duration) -> Call {
        let mut wish = self.wish.lock();
        let mut gathered = None;
        loop {
            let now = Instant::now();
            let mut until = beat;
            if wish.closed {
                return Call::Stop;
            } else if now < patience {
                until = patience;
            } else if wish.look || now >= beat {
                wish.look = false;
                return Call::Beat;
            } else if wish.upto > self.durable() {
                let end = *gathered.get_or_insert(now + gather);
                if now >= end || self.waiting.load(Ordering::Acquire) >= wish.crowd {
                    return Call::Sync;
                }
                until = until.min(end);
            } else if wish.sealing {
                wish.sealing = false;
                return Call::Seal;
            }
            self.bell.wait_until(&mut wish, until);
        }
    }

    /// Waits until everything below `position` is durable, without holding up the thread.
    ///
    /// # Errors
    /// A sync failed meanwhile, or the last one did: what is below MAY be lost.
    pub(super) async fn reach(&self, position: u64) -> Result<(), Ebb> {
        let failures = self.failures();
        if let Some(reached) = self.has_reached(position, failures) {
            return reached;
        }
        let _waiting = Waiting::new(&self.waiting);
        loop {
            let mut moved = pin!(self.moved_tasks.notified());
            moved.as_mut().enable();
            if let Some(reached) = self.has_reached(position, failures) {
                return reached;
            }
            self.ask(position);
            moved.await;
        }
    }

    /// The same, holding up the thread.
    ///
    /// # Errors
    /// As [`Tide::reach`].
    pub(super) fn reach_blocking(&self, position: u64) -> Result<(), Ebb> {
        let failures = self.failures();
        if let Some(reached) = self.has_reached(position, failures) {
            return reached;
        }
        let _waiting = Waiting::new(&self.waiting);
        self.ask(position);
        self.wait_until(failures, || self.durable() >= position)
    }

    /// How many syncs failed.
    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Acquire)
    }

    /// Holds up the thread until `is_done`, which is asked again after every step of the syncer.
    ///
    /// # Errors
    /// There were more failed syncs than `failures`.
    pub(super) fn wait_until(&self, failures: u64, is_done: impl Fn() -> bool) -> Result<(), Ebb> {
        let mut wish = self.wish.lock();
        loop {
            if is_done() {
                return Ok(());
            }
            if self.failures() != failures {
                return Err(Ebb::SyncFailed);
            }
            if wish.closed {
                return Err(Ebb::Closed);
            }
            self.moved.wait(&mut wish);
        }
    }
}
