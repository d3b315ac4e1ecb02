//! Collecting what has expired.
//!
//! An expired key is invisible at once, everywhere; its bytes go by an ordinary delete that the
//! vnode's coordinator alone writes, so that replicas never remove anything by their own clocks.

use std::time::Duration;

use crate::base::id::VnodeId;
use crate::value::change::Change;

use super::Node;
use super::batch::Batch;
use super::cold::Missed;

/// How often a few vnodes are swept.
const SWEEP: Duration = Duration::from_millis(100);

/// Blocks looked at in one sweep: about a millisecond or two of a core.
const BLOCKS_MAX: usize = 20_000;

/// Keys collected under one lock.
const KEYS_MAX: usize = 64;

impl Node {
    pub(super) async fn expire_always(&self) {
        let mut batch = self.batch();
        let mut sweeps = tokio::time::interval(SWEEP);
        let mut next = 0;
        loop {
            sweeps.tick().await;
            self.begin(&mut batch);
            next = self.sweep(&mut batch, next).await;
        }
    }

    /// Sweeps vnodes from `first` on until enough blocks were looked at; says where to go on.
    async fn sweep(&self, batch: &mut Batch, first: u16) -> u16 {
        let vnodes = self.routes.vnodes();
        let mut looked = 0;
        for step in 0..vnodes {
            let vnode = VnodeId((first + step) % vnodes);
            if looked >= BLOCKS_MAX {
                return vnode.0;
            }
            let coordinates = self.routes.standing(vnode).coordinator == Some(self.routes.me());
            if coordinates && self.keyspace.expiry_due(vnode, batch.now) {
                looked += self.keyspace.counts(vnode).held;
                self.collect_expired(batch, vnode).await;
            }
        }
        first
    }

    async fn collect_expired(&self, batch: &mut Batch, vnode: VnodeId) {
        let now = batch.now;
        let keys = self.keyspace.read(vnode, now, |keys| keys.expired());
        for keys in keys.chunks(KEYS_MAX) {
            if self.log.as_ref().is_some_and(|log| log.refusal().is_some()) {
                return;
            }
            self.warm_for_delete(batch, vnode, keys);
            let records = &mut batch.records;
            records.clear();
            let actor = self.actor();
            let collected = self.keyspace.write(vnode, now, |vnode| {
                keys.iter()
                    .filter(|key| {
                        let gone = vnode.collect(key, actor, &mut records.bytes);
                        if gone {
                            records.mark();
                        }
                        gone
                    })
                    .count()
            });
            self.metrics.expired_keys.add(collected as u64);
            self.note(batch, vnode);
            self.replicate(batch, vnode, &[], None);
            // What is not held is deleted again after a restart.
            let _ = self.conclude(batch).await;
        }
        self.keyspace.write(vnode, now, |vnode| vnode.settle_expiry());
    }

    /// Brings what deletes of `keys` must know of and is on disk.
    pub(super) fn warm_for_delete(&self, batch: &mut Batch, vnode: VnodeId, keys: &[Vec<u8>]) {
        // A value that cannot be read stays, and its delete is left out.
        let _ = self.run_waiting(batch, vnode, |batch| {
            let lacking: Missed = self.keyspace.write(vnode, batch.now, |held| {
                let lacks = |key: &&Vec<u8>| held.lacks(key, &Change::Delete);
                keys.iter().filter(lacks).cloned().collect()
            });
            if lacking.is_empty() { Ok(()) } else { Err(lacking) }
        });
    }
}
