//! How a batch ends: first the log holds what it did and saw, then replies and frames leave.
//!
//! ```text
//!  run … run ──► make room ──► hold ──┬─ held ──► flush: frames to peers, replies to clients
//!                                     └─ failed ─► abandon: nobody is told anything
//! ```
//!
//! Reads are held back too: what they saw may be in no file yet, and a value that a client has
//! been told of must not be gone after a crash.

use std::sync::Arc;

use tracing::error;

use crate::base::id::VnodeId;
use crate::storage::log::LogError;

use super::Node;
use super::batch::Batch;

impl Node {
    /// Notes that what was done or seen in `vnode` so far must be held before the batch leaves.
    pub(super) fn note(&self, batch: &mut Batch, vnode: VnodeId) {
        if let Some(log) = &self.log {
            log.note(vnode, &mut batch.commit);
        }
    }

    /// Whether the batch may leave at once.
    pub(super) fn is_held(&self, batch: &Batch) -> bool {
        self.log.as_ref().is_none_or(|log| log.holds(&batch.commit))
    }

    /// Ends a batch: see the head of this file.
    ///
    /// # Errors
    /// The log does not hold what was done. It MAY survive; nobody was told of it, and the
    /// connections that wait for it should be closed.
    pub async fn conclude(&self, batch: &mut Batch) -> Result<(), LogError> {
        self.serve_ready(batch);
        if let Some(log) = &self.log {
            self.keyspace.make_room(batch.now);
            if !log.holds(&batch.commit)
                && let Err(why) = log.hold(&batch.commit).await
            {
                return Err(self.not_held(batch, why));
            }
            batch.commit.clear();
        }
        self.flush(batch);
        Ok(())
    }

    /// The same on a thread that may wait.
    pub(super) fn conclude_blocking(&self, batch: &mut Batch) -> Result<(), LogError> {
        self.serve_ready(batch);
        if let Some(log) = &self.log {
            self.keyspace.make_room(batch.now);
            if let Err(why) = log.hold_blocking(&batch.commit) {
                return Err(self.not_held(batch, why));
            }
            batch.commit.clear();
        }
        self.flush(batch);
        Ok(())
    }

    fn not_held(&self, batch: &mut Batch, why: LogError) -> LogError {
        error!(%why, "what a batch did is not in the log: its clients are told nothing");
        batch.commit.clear();
        self.abandon(batch);
        why
    }

    /// Ends a batch in a task of its own, for callers that cannot wait.
    pub(super) fn conclude_later(self: &Arc<Node>, mut batch: Batch) {
        let node = self.clone();
        tokio::spawn(async move {
            // Whoever waits is told by the links and deadlines.
            let _ = node.conclude(&mut batch).await;
        });
    }
}
