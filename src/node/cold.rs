//! Requests that wait for values on disk.
//!
//! A command that touches a cold value is void (see [`crate::value::view::Missing`]): the node
//! brings the value into memory and runs it again. What the system has in its page cache is
//! brought at once; otherwise the request is parked, a thread that may wait reads, and runs it.
//!
//! ```text
//!  run ─► missed ─► page cache? ─ yes ─► warm ─► run again
//!                       │ no
//!                       ▼
//!                  parked in the queue of each of its keys
//!                       │ first in all of them
//!                       ▼
//!              reading thread: warm ─► run ─► conclude ─► the next of those queues
//! ```
//!
//! Invariant: requests for one key run in the order in which they came here, parked or not; so
//! concurrent readers of a cold key cost one read, and other keys' requests pass by.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use smallvec::SmallVec;
use tracing::error;

use crate::base::id::VnodeId;
use crate::command::spec::Keyed;
use crate::peer::message::FwdStatus;
use crate::resp::reply::Reply;
use crate::storage::warming::{Patience, Warmed};

use super::Node;
use super::batch::{Batch, Origin};
use super::execute::{KeptRequest, Outcome, Request};
use super::replies::ReplyBytes;

/// Keys whose values a command asked for and that are on disk.
pub(super) type Missed = SmallVec<[Vec<u8>; 1]>;

/// How often a command is run again at once before it is parked: a value may cool again while
/// another of the same command is brought.
const RUNS_MAX: usize = 4;

/// A request that waits for values.
#[derive(Debug)]
struct Parked {
    request: KeptRequest,
    run: Keyed,
    vnode: VnodeId,
    keys: SmallVec<[Vec<u8>; 1]>,
    missed: Mutex<Missed>,
    origin: Mutex<Option<Origin>>,
}

type Queue = VecDeque<Arc<Parked>>;

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct ColdRequests {
    parked: AtomicUsize,
    queues: Mutex<HashMap<Vec<u8>, Queue>>,
}

impl ColdRequests {
    /// Whether an earlier request for one of the keys of `request` is parked.
    fn conflicts(&self, request: &Request<'_>) -> bool {
        // Other threads' requests have no order with this one: a stale zero is as good as now.
        self.parked.load(Ordering::Relaxed) > 0 && {
            let queues = self.queues.lock();
            keys_of(request).any(|key| queues.contains_key(key))
        }
    }

    /// Queues a request; whether it is the first for all of its keys.
    fn enter(&self, parked: &Arc<Parked>) -> bool {
        self.parked.fetch_add(1, Ordering::Relaxed);
        let mut queues = self.queues.lock();
        let mut first = true;
        for key in &parked.keys {
            let queue = queues.entry(key.clone()).or_default();
            first &= queue.is_empty();
            queue.push_back(parked.clone());
        }
        first
    }

    /// A request has run; those whose turn it is now.
    fn leave(&self, done: &Parked) -> Vec<Arc<Parked>> {
        let mut queues = self.queues.lock();
        let mut heads: Vec<Arc<Parked>> = Vec::new();
        for key in &done.keys {
            let Some(queue) = queues.get_mut(key) else { continue };
            queue.pop_front();
            match queue.front() {
                Some(next) if heads.iter().any(|head| Arc::ptr_eq(head, next)) => {}
                Some(next) => heads.push(next.clone()),
                None => {
                    queues.remove(key);
                }
            }
        }
        self.parked.fetch_sub(1, Ordering::Relaxed);
        let is_first = |parked: &Arc<Parked>| {
            let first = |key| queues.get(key).and_then(VecDeque::front);
            parked.keys.iter().all(|key| first(key).is_some_and(|head| Arc::ptr_eq(head, parked)))
        };
        heads.retain(is_first);
        heads
    }
}

pub(super) fn keys_of<'a>(request: &Request<'a>) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    let args = request.args;
    request.key_places().into_iter().map(move |place| args[place as usize])
}

impl Node {
    /// Runs `act` until nothing is missed, bringing values that the system has in memory. `Err`:
    /// the disk must be waited for.
    pub(super) fn run_warm<T>(
        &self,
        batch: &mut Batch,
        vnode: VnodeId,
        mut act: impl FnMut(&mut Batch) -> Result<T, Missed>,
    ) -> Result<T, Missed> {
        for _ in 0..RUNS_MAX {
            let missed = match act(batch) {
                Ok(done) => return Ok(done),
                Err(missed) => missed,
            };
            self.metrics.cold_reads.add(missed.len() as u64);
            let warm = |key: &Vec<u8>| {
                let warmed = self.keyspace.warm(vnode, key, batch.now, Patience::Now);
                matches!(warmed, Warmed::Done)
            };
            if !missed.iter().all(warm) {
                return Err(missed);
            }
        }
        act(batch)
    }

    /// Runs `act` until nothing is missed, waiting for the disk if need be. For what is rare and
    /// cannot be parked: peers' questions, merges of concurrent writes.
    pub(super) fn run_waiting<T>(
        &self,
        batch: &mut Batch,
        vnode: VnodeId,
        mut act: impl FnMut(&mut Batch) -> Result<T, Missed>,
    ) -> std::io::Result<T> {
        loop {
            let missed = match self.run_warm(batch, vnode, &mut act) {
                Ok(done) => return Ok(done),
                Err(missed) => missed,
            };
            // The runtime's other tasks go on on another thread meanwhile.
            tokio::task::block_in_place(|| self.warm_waiting(batch, vnode, &missed))?;
        }
    }

    fn warm_waiting(&self, batch: &Batch, vnode: VnodeId, missed: &Missed) -> std::io::Result<()> {
        for key in missed {
            self.metrics.cold_reads_waited.bump();
            if let Warmed::Lost(why) = self.keyspace.warm(vnode, key, batch.now, Patience::Wait) {
                self.metrics.cold_read_errors.bump();
                error!(vnode = vnode.0, %why, "a value on disk cannot be read");
                return Err(why);
            }
        }
        Ok(())
    }

    /// Whether an earlier request for one of the keys is parked: this one must queue behind it.
    pub(super) fn must_queue(&self, request: &Request<'_>) -> bool {
        self.cold.conflicts(request)
    }

    /// Parks a request of one vnode until `missed` are in memory and those before it have run.
    pub(super) fn park(
        &self,
        request: &Request<'_>,
        vnode: VnodeId,
        run: Keyed,
        missed: Missed,
        origin: Origin,
    ) -> Outcome {
        let mut keys: SmallVec<[Vec<u8>; 1]> = keys_of(request).map(<[u8]>::to_vec).collect();
        keys.sort_unstable();
        keys.dedup();
        let parked = Arc::new(Parked {
            request: KeptRequest::of(request),
            run,
            vnode,
            keys,
            missed: Mutex::new(missed),
            origin: Mutex::new(Some(origin)),
        });
        if self.cold.enter(&parked) {
            self.read_for(parked);
        }
        Outcome::Pending
    }

    /// Lets a thread that may wait read what a request misses, and run it and those behind it.
    fn read_for(&self, first: Arc<Parked>) {
        let Some(node) = self.own.upgrade() else { return };
        tokio::task::spawn_blocking(move || {
            let mut ready = VecDeque::from([first]);
            let mut batch = node.batch();
            while let Some(parked) = ready.pop_front() {
                node.begin(&mut batch);
                node.run_parked(&mut batch, &parked);
                // The next of its keys runs even if this one is not held.
                let _ = node.conclude_blocking(&mut batch);
                ready.extend(node.cold.leave(&parked));
            }
        });
    }

    fn run_parked(&self, batch: &mut Batch, parked: &Parked) {
        let vnode = parked.vnode;
        let mut reply = Reply::new(parked.request.protocol);
        let mut origin = parked.origin.lock().take();
        loop {
            let missed = std::mem::take(&mut *parked.missed.lock());
            if let Err(why) = self.warm_waiting(batch, vnode, &missed) {
                reply.error(format!("ERR the value is on disk and cannot be read: {why}"));
                break;
            }
            let ran = parked.request.with(|request| {
                let take = || origin.take().expect("an origin is asked for once");
                self.run_again(batch, request, vnode, parked.run, &mut reply, take)
            });
            match ran {
                Ok(Outcome::Pending) => return,
                Ok(Outcome::Replied(status)) => {
                    return self.settle_parked(batch, origin, status, &reply);
                }
                // Cooled again meanwhile, or more was needed than was seen at first.
                Err(missed) => *parked.missed.lock() = missed,
            }
        }
        self.settle_parked(batch, origin, FwdStatus::NotRun, &reply);
    }

    fn settle_parked(
        &self,
        batch: &mut Batch,
        origin: Option<Origin>,
        status: FwdStatus,
        reply: &Reply,
    ) {
        if let Some(origin) = origin {
            batch.settle(origin, status, ReplyBytes::from_slice(&reply.bytes));
        }
    }
}
