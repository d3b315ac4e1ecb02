//! Commands that write, run under the lock of their vnode.

use smallvec::SmallVec;

use crate::base::id::{Actor, VnodeId};
use crate::base::time::UnixMs;
use crate::command::spec::{Call, Keyed};
use crate::resp::reply::Reply;
use crate::storage::vnode_write::VnodeWrite;
use crate::value::view::Views;

use super::Node;
use super::batch::Records;
use super::cold::Missed;

/// Runs commands that write, under the lock of their vnode.
pub(super) struct Writing<'b> {
    node: &'b Node,
    run: Keyed,
    actor: Actor,
    is_replica: bool,
    records: &'b mut Records,
    /// The keys that changed and that somebody waits for.
    pub(super) changed: SmallVec<[Vec<u8>; 1]>,
}

impl Writing<'_> {
    /// Runs one command; its records are appended to those before. What is answered is missed: values
    /// that are on disk. Then nothing was done or written.
    pub(super) fn run(
        &mut self,
        keys: &mut VnodeWrite<'_>,
        args: &[&[u8]],
        now: UnixMs,
        random: u64,
        out: &mut Reply,
    ) -> Missed {
        let mark = out.bytes.len();
        let mut changes = SmallVec::new();
        let views: &dyn Views = keys;
        (self.run)(&mut Call { args, now, random, views, reply: out, changes: &mut changes });
        let mut missed = keys.missing();
        for (key, change) in &changes {
            if keys.lacks(key, change) {
                missed.push(key.to_vec());
            }
        }
        if !missed.is_empty() {
            out.bytes.truncate(mark);
            return missed;
        }
        for (key, change) in &changes {
            let applied = match self.is_replica {
                true => keys.apply(key, change, self.actor, &mut self.records.bytes),
                false => keys.apply_blind(key, change, self.actor, &mut self.records.bytes),
            };
            match applied {
                Ok(_) => {
                    self.records.mark();
                    if self.node.waiting.any() {
                        self.changed.push(key.to_vec());
                    }
                }
                Err(error) => {
                    out.bytes.truncate(mark);
                    out.error(error.to_string());
                    break;
                }
            }
        }
        missed
    }
}

impl Node {
    /// What runs commands that write, under the lock of `vnode`.
    pub(super) fn writing<'b>(
        &'b self,
        vnode: VnodeId,
        run: Keyed,
        records: &'b mut Records,
    ) -> Writing<'b> {
        Writing {
            node: self,
            run,
            actor: self.actor(),
            is_replica: self.routes.holds(vnode, self.routes.me()),
            records,
            changed: SmallVec::new(),
        }
    }
}
