//! A row: requests of a pipeline, one behind the other, that ask the same command of the same key.
//!
//! ```text
//!  LPUSH q a │ LPUSH q b │ LPUSH q c │ SET x 1
//!  └────────── a row ─────────────┘
//! ```
//!
//! They are routed once, and run under the vnode's lock one after the other. Each is a write of its
//! own, with its dot, its record and its reply: nobody can tell a row from its requests.

use crate::base::id::VnodeId;
use crate::base::time::UnixMs;
use crate::command::flags::Flag;
use crate::command::spec::Run;
use crate::coordinator::contract::Effective;
use crate::resp::reply::Reply;

use super::Node;
use super::batch::Batch;
use super::execute::Request;

impl Node {
    /// Whether this node alone decides a write of `vnode`: it coordinates it, no other node is waited
    /// for, and no client waits for a key. Then nothing stands between the write and its reply.
    pub(super) fn decides_alone(&self, request: &Request<'_>, vnode: VnodeId, now: UnixMs) -> bool {
        if !request.writes() {
            return false;
        }
        let (standing, me) = (self.routes.standing(vnode), self.routes.me());
        let is_mine = standing.coordinator == Some(me) && self.routes.holds(vnode, me);
        let must_wait = request.spec.flags.has(Flag::Blocking)
            || self.must_queue(request)
            || self.waiting.any()
            || self.must_refuse(request, vnode, now);
        if !is_mine || must_wait {
            return false;
        }
        let asks_others = |ask: Effective| {
            ask.precheck() > 1 || ask.w > 1 || standing.counting < ask.write_needs()
        };
        !self.effective(request, vnode).map_or(true, asks_others)
    }

    /// Runs a row of writes: `request`, and those with the arguments `others` behind it, until the
    /// replies in `out` have `full` bytes. So many were run and answered; what is left is to be run as
    /// ever. That is all of it unless this node [decides alone](Self::decides_alone).
    ///
    /// The requests differ in nothing that decides how they are run, so the first speaks for all.
    pub fn submit_row<'r>(
        &self,
        batch: &mut Batch,
        request: &Request<'r>,
        others: impl Iterator<Item = &'r [&'r [u8]]>,
        full: usize,
        out: &mut Reply,
    ) -> usize {
        let (Run::Slot(run), Some(vnode)) = (request.spec.run, self.one_vnode(request)) else {
            return 0;
        };
        if !self.decides_alone(request, vnode, batch.now) {
            return 0;
        }
        let (now, random) = (batch.now, &mut batch.random);
        batch.records.clear();
        let mut writing = self.writing(vnode, run, &mut batch.records);
        let mut done = 0;
        self.keyspace.write(vnode, now, |keys| {
            for args in std::iter::once(request.args).chain(others) {
                let mark = out.bytes.len();
                let missed = writing.run(keys, args, now, random.u64(..), out);
                if !missed.is_empty() {
                    break;
                }
                if out.bytes.get(mark) == Some(&b'-') {
                    self.metrics.total_error_replies.bump();
                }
                done += 1;
                if out.bytes.len() >= full {
                    break;
                }
            }
        });
        let changed = writing.changed;
        self.note_changed(batch, changed.iter().map(Vec::as_slice));
        self.note(batch, vnode);
        self.replicate(batch, vnode, &[], None);
        self.serve_ready(batch);
        done
    }
}
