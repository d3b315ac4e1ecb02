//! The write machine: a write that waits for others, before it runs (strict) or after (W > 1).
//!
//! Invariant: one answer or one failure, ever. Before `Run` a failure means that nothing was done;
//! after it, only [`Reason::Uncertain`] is honest. An answered change is on W distinct replicas.
//!
//! ```text
//!                  R answered                    changed: W have it
//!  ┌───────────┐               ┌─────────┐ on_ran ┌─────────────┐
//!  │ preparing ├──────────────►│ running ├───────►│ replicating ├─────────► Answer
//!  └─────┬─────┘      Run      └────┬────┘        └──────┬──────┘
//!        │                          │ unchanged          └────────────────► Fail(Uncertain)
//!        │                          ▼                     too few left, deadline
//!        │                    ┌────────────┐   enough hold what it saw
//!        │                    │ confirming ├──────────────────────────────► Answer
//!        │                    └─────┬──────┘
//!        └──────────────────────────┴─────────────────────────────────────► Fail(NoQuorum)
//!                                     too few left, deadline
//! ```
//!
//! Preparing is a gathering of R answers, so that the write's dot is above every completed one.
//! It is over at once in an `eventual` keyspace. A command that ran and changed nothing (SET NX on
//! a key that is there) answered what it saw, so it is confirmed as a read is.

use crate::base::id::NodeId;

use super::contract::Effective;
use super::gather::{Effect, Gather, Progress, Reason, Revision};
use super::tally::{Tally, Verdict};

/// What became of the command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ran {
    /// It changed the key, and the change is on its way to the other replicas.
    Changed,
    /// It changed nothing.
    Unchanged {
        /// The entry it ran on is not the one that the last check told of.
        grew: bool,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Preparing,
    Replicating,
    Confirming,
    Done,
}

/// One write. Replica 0 of its tally is the coordinator, `i + 1` is `others[i]`.
#[derive(Clone, Debug)]
pub struct Write {
    gather: Gather,
    tally: Tally,
    hold: u8,
    phase: Phase,
}

impl Write {
    /// Begins a write. `others` are the other replicas that count, in the order in which to ask
    /// them; acknowledgements of nobody else count.
    pub fn start(others: &[NodeId], ask: Effective, out: &mut Vec<Effect>) -> Write {
        let candidates = ((1u32 << (others.len() + 1)) - 1) as u16;
        let mut write = Write {
            gather: Gather::new(others, ask.precheck(), 1),
            tally: Tally::new(candidates, ask.w),
            hold: ask.hold,
            phase: Phase::Preparing,
        };
        write.advance(out);
        write
    }

    /// `from` holds what the check it was sent told of.
    pub fn on_same(&mut self, from: NodeId, out: &mut Vec<Effect>) {
        self.gather.on_same(from);
        self.advance(out);
    }

    /// `from` sent its entry, which was joined. `grew`: the key's digest is now another than the
    /// operation's, and takes its place (until the command was run: from then on the operation's
    /// state is the one it ran on); `behind`: the peer's digest is another than the operation's.
    pub fn on_entry(&mut self, from: NodeId, grew: bool, behind: bool, out: &mut Vec<Effect>) {
        self.gather.on_entry(from, grew && self.phase == Phase::Preparing, behind);
        self.advance(out);
    }

    /// The command was run, as [`Effect::Run`] asked.
    pub fn on_ran(&mut self, ran: Ran, out: &mut Vec<Effect>) {
        if self.phase != Phase::Replicating {
            return;
        }
        match ran {
            Ran::Changed => {
                let verdict = self.tally.ack(0);
                self.judge(verdict, out);
            }
            Ran::Unchanged { grew } => {
                self.phase = Phase::Confirming;
                self.gather.hold(grew, self.hold);
                self.advance(out);
            }
        }
    }

    /// `from` has the change.
    pub fn on_ack(&mut self, from: NodeId, out: &mut Vec<Effect>) {
        if self.phase == Phase::Replicating
            && let Some(place) = self.gather.place(from)
        {
            let verdict = self.tally.ack(place + 1);
            self.judge(verdict, out);
        }
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
        if self.phase != Phase::Replicating {
            self.advance(out);
        } else if let Some(place) = self.gather.place(from) {
            let verdict = self.tally.lost(place + 1);
            self.judge(verdict, out);
        }
    }

    /// The answers take longer than they usually do: asks those not asked yet.
    pub fn on_slow(&mut self, out: &mut Vec<Effect>) {
        if matches!(self.phase, Phase::Preparing | Phase::Confirming) {
            self.gather.ask_all(out);
        }
    }

    /// The client has waited long enough.
    pub fn on_deadline(&mut self, out: &mut Vec<Effect>) {
        match self.phase {
            Phase::Preparing | Phase::Confirming => {
                self.finish(Effect::Fail(Reason::NoQuorum), out);
            }
            Phase::Replicating => self.finish(Effect::Fail(Reason::Uncertain), out),
            Phase::Done => {}
        }
    }

    /// Whether the answer or the failure is out. Later events change nothing.
    pub fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    fn advance(&mut self, out: &mut Vec<Effect>) {
        if !matches!(self.phase, Phase::Preparing | Phase::Confirming) {
            return;
        }
        match self.gather.advance(out) {
            Progress::Waiting => {}
            Progress::Impossible => self.finish(Effect::Fail(Reason::NoQuorum), out),
            Progress::Complete if self.phase == Phase::Preparing => self.run(out),
            Progress::Complete => self.finish(Effect::Answer, out),
        }
    }

    fn run(&mut self, out: &mut Vec<Effect>) {
        // Whoever was lost while we asked will hardly acknowledge: better to refuse now, while
        // nothing is done, than to be uncertain at the deadline.
        let mut verdict = Verdict::Waiting;
        for place in self.gather.out() {
            if verdict == Verdict::Waiting {
                verdict = self.tally.lost(place + 1);
            }
        }
        if verdict == Verdict::Failed {
            return self.finish(Effect::Fail(Reason::NoQuorum), out);
        }
        self.phase = Phase::Replicating;
        out.push(Effect::Run);
    }

    fn judge(&mut self, verdict: Verdict, out: &mut Vec<Effect>) {
        match verdict {
            Verdict::Waiting | Verdict::Settled => {}
            Verdict::Reached => self.finish(Effect::Answer, out),
            Verdict::Failed => self.finish(Effect::Fail(Reason::Uncertain), out),
        }
    }

    fn finish(&mut self, effect: Effect, out: &mut Vec<Effect>) {
        self.phase = Phase::Done;
        out.push(effect);
    }
}
