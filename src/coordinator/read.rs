//! The read machine: a read that asks other replicas, because R > 1 or the keyspace is strict.
//!
//! Invariant: one answer or one failure, ever. An answer joins R replicas, and N−R+1 replicas (in
//! a strict keyspace) were seen to hold what it was computed from.
//!
//! ```text
//!            start                        R answered, enough hold it
//!   run ──► Check × (R or hold) − 1 ──► ┌───────────┐ ──────────────────► Answer, and repair
//!                                       │ gathering │                     those behind
//!     Same, Entry, Stored, lost,        └─┬──────▲──┘
//!     refused, slow                       └──────┘  ──────────────────► Fail(TryAgain)
//!                                                     deadline, or too few are left
//! ```
//!
//! What the shell does: it runs the command at the start and keeps reply and digest; on an entry
//! it joins it into the key and, if the key's digest then differs from the operation's, runs the
//! command again (`grew`), keeping the new reply and digest; `behind` is whether the peer's entry
//! differs from the operation's state as it is then. What it asks of "digest" and of "visible" in
//! strict keyspaces stands on the page of [`gather`](super::gather).

use crate::base::id::NodeId;

use super::contract::Effective;
use super::gather::{Effect, Gather, Progress, Reason, Revision};

/// One read.
#[derive(Clone, Debug)]
pub struct Read {
    gather: Gather,
    done: bool,
}

impl Read {
    /// Begins a read whose command has just been run on the coordinator's own entry. `others` are
    /// the other replicas that count, in the order in which to ask them.
    pub fn start(others: &[NodeId], ask: Effective, out: &mut Vec<Effect>) -> Read {
        let mut read = Read { gather: Gather::new(others, ask.r, ask.hold), done: false };
        read.advance(out);
        read
    }

    /// `from` holds what the check it was sent told of.
    pub fn on_same(&mut self, from: NodeId, out: &mut Vec<Effect>) {
        self.gather.on_same(from);
        self.advance(out);
    }

    /// `from` sent its entry, which was joined. `grew`: the command was run again on the result;
    /// `behind`: the peer does not hold all of the operation's state.
    pub fn on_entry(&mut self, from: NodeId, grew: bool, behind: bool, out: &mut Vec<Effect>) {
        self.gather.on_entry(from, grew, behind);
        self.advance(out);
    }

    /// `from` has stored the write-back of `revision`.
    pub fn on_stored(&mut self, from: NodeId, revision: Revision, out: &mut Vec<Effect>) {
        self.gather.on_stored(from, revision);
        self.advance(out);
    }

    /// `from` is recovering: it does not count.
    pub fn on_refused(&mut self, from: NodeId, out: &mut Vec<Effect>) {
        self.on_lost(from, out);
    }

    /// The link to `from` broke, or it is believed down.
    pub fn on_lost(&mut self, from: NodeId, out: &mut Vec<Effect>) {
        self.gather.on_out(from);
        self.advance(out);
    }

    /// The answers take longer than they usually do: asks those not asked yet.
    pub fn on_slow(&mut self, out: &mut Vec<Effect>) {
        if !self.done {
            self.gather.ask_all(out);
        }
    }

    /// The client has waited long enough.
    pub fn on_deadline(&mut self, out: &mut Vec<Effect>) {
        if !self.done {
            self.finish(Effect::Fail(Reason::TryAgain), out);
        }
    }

    /// Whether the answer or the failure is out. Later events change nothing.
    pub const fn is_done(&self) -> bool {
        self.done
    }

    fn advance(&mut self, out: &mut Vec<Effect>) {
        if self.done {
            return;
        }
        match self.gather.advance(out) {
            Progress::Waiting => {}
            Progress::Complete => {
                self.finish(Effect::Answer, out);
                // Read repair: the client does not wait for it.
                self.gather.write_back(out);
            }
            Progress::Impossible => self.finish(Effect::Fail(Reason::TryAgain), out),
        }
    }

    fn finish(&mut self, effect: Effect, out: &mut Vec<Effect>) {
        self.done = true;
        out.push(effect);
    }
}
