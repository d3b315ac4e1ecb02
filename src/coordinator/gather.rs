//! Gathering: what the read and the write machine have in common. Ask other replicas whether they
//! hold what we hold, join what they hold more, and write back what they lack, until enough have
//! answered and enough are seen to hold the result.
//!
//! Invariant: a peer is a *holder* only while it was seen to hold the operation's newest revision
//! or something above it. When the operation's state grows, every holder of the older revision is
//! one no more.
//!
//! The machine never sees an entry. The operation's **state** is what the key held at the
//! coordinator when the shell last ran the command for it: at the start (revision 0), and again
//! after each joined entry that left the key other than that. The reply of that run is the one
//! that is sent; the digest of that state is the one that checks carry. So writes of others that
//! land on the key in the meantime neither slip into an unconfirmed answer nor restart anything.
//!
//! Two things a strict keyspace asks of the shell, without which the rest proves nothing:
//! - Digests in checks cover the context too: an incomplete delete that one replica knows must
//!   not pass for the same as never having had the key.
//! - A delete takes part in last-writer-wins. The visible value is the one whose dot is the
//!   greatest *seen* on the key; when that one lives no more, a delete has won, and the key is
//!   absent, even if values that the delete did not see live beside it. (Observed-remove alone
//!   brings an older concurrent value back after a newer one was read and deleted; dropping losers
//!   after each join instead lets a value vanish that was read after the delete.)
//!
//! One peer's states (`revision` is the operation's, at the moment of the event):
//!
//! ```text
//!            Check           Same                       the state grew
//!   ┌──────┐ ───► ┌───────┐ ─────► ┌────────┐ ◄──────┐ ───────────────► counts as an answer,
//!   │ Idle │      │ Asked │        │ Holds r│        │ Stored r          as a holder no more
//!   └──────┘      └──┬──┬─┘        └────────┘ ┌──────┴─────┐
//!                    │  │ Entry, and it lacks │ Writing r  │
//!        refused,    │  └──────► ┌────────┐ ─►└────────────┘
//!        link lost   ▼           │ Behind │  WriteBack
//!   ┌──────┐ ◄───────┘           └────────┘
//!   │ Out  │  another Idle one is asked instead; a late answer still counts
//!   └──────┘
//! ```
//!
//! Dynamo §4.5 and §5.2 (read repair); Attiya, Bar-Noy and Dolev 1995 for the write-back before
//! an answer.

use std::fmt;

use smallvec::SmallVec;

use crate::base::id::NodeId;

/// Which state of the operation: how often it grew.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Revision(pub u32);

/// What a machine asks of the shell, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Send the digest of the operation's state (strict: of its context too) to this replica. It
    /// answers that it holds the same, or its whole entry, or that it does not count.
    Check {
        /// The replica.
        to: NodeId,
    },
    /// Send the key's whole entry to this replica. Its acknowledgement names the revision.
    WriteBack {
        /// The replica.
        to: NodeId,
        /// What the acknowledgement is for.
        revision: Revision,
    },
    /// Run the command under the vnode's lock and, if it changes anything, replicate it; then tell
    /// the machine ([`Write::on_ran`](super::write::Write::on_ran)).
    Run,
    /// Send the reply of the last run. The machine is through.
    Answer,
    /// Send this error. The machine is through.
    Fail(Reason),
}

/// Why an operation failed, and what it left behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// A write did not find enough replicas to begin. Nothing was done.
    NoQuorum,
    /// A read did not get enough answers. Nothing was done.
    TryAgain,
    /// A write was run and too few replicas are known to have it. It may survive, it may not.
    Uncertain,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::NoQuorum => {
                "NOQUORUM too few replicas of the key answered in time, nothing was done"
            }
            Reason::TryAgain => {
                "TRYAGAIN too few replicas of the key answered in time, nothing was done"
            }
            Reason::Uncertain => {
                "UNCERTAIN too few replicas confirmed the write in time, it may have been done"
            }
        })
    }
}

impl std::error::Error for Reason {}

/// How a gathering stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Progress {
    Waiting,
    /// Enough answered, enough hold it.
    Complete,
    /// Too few replicas are left.
    Impossible,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Idle,
    /// The check carried this revision.
    Asked(Revision),
    /// Lost, or it does not count; with what it was asked, if the answer is still owed.
    Out(Option<Revision>),
    Behind,
    Writing(Revision),
    Holds(Revision),
}

#[derive(Clone, Copy, Debug)]
struct Peer {
    node: NodeId,
    /// What it holds, or held when asked, is in the operation's state.
    answered: bool,
    state: State,
}

/// The shared core. The coordinator itself counts as one answer and one holder throughout.
#[derive(Clone, Debug)]
pub(super) struct Gather {
    peers: SmallVec<[Peer; 4]>,
    revision: Revision,
    answers_needed: u8,
    holders_needed: u8,
}

impl Gather {
    pub(super) fn new(others: &[NodeId], answers_needed: u8, holders_needed: u8) -> Gather {
        let idle = |&node| Peer { node, answered: false, state: State::Idle };
        let peers = others.iter().map(idle).collect();
        Gather { peers, revision: Revision(0), answers_needed, holders_needed }
    }

    pub(super) fn on_same(&mut self, from: NodeId) {
        if let Some(peer) = self.peer(from)
            && let State::Asked(revision) | State::Out(Some(revision)) = peer.state
        {
            peer.answered = true;
            peer.state = State::Holds(revision);
        }
    }

    pub(super) fn on_entry(&mut self, from: NodeId, grew: bool, behind: bool) {
        if grew {
            self.revision.0 += 1;
        }
        let revision = self.revision;
        if let Some(peer) = self.peer(from) {
            // A stray of another operation, or a late copy of what the peer held before it
            // stored ours, changes nothing.
            if matches!(peer.state, State::Idle | State::Out(None))
                || peer.state == State::Holds(revision)
            {
                return;
            }
            peer.answered = true;
            peer.state = if behind { State::Behind } else { State::Holds(revision) };
        }
    }

    pub(super) fn on_stored(&mut self, from: NodeId, revision: Revision) {
        let newest = self.revision;
        if let Some(peer) = self.peer(from)
            && peer.answered
            && revision == newest
        {
            peer.state = State::Holds(revision);
        }
    }

    pub(super) fn on_out(&mut self, from: NodeId) {
        if let Some(peer) = self.peer(from) {
            peer.state = match peer.state {
                State::Asked(revision) => State::Out(Some(revision)),
                State::Idle | State::Behind | State::Writing(_) => State::Out(None),
                // It did hold the state, and states only grow.
                State::Holds(_) | State::Out(_) => peer.state,
            };
        }
    }

    /// The command ran on another state than the one last confirmed, and from now on its answer
    /// must be held by `holders_needed`.
    pub(super) fn hold(&mut self, grew: bool, holders_needed: u8) {
        self.revision.0 += u32::from(grew);
        self.holders_needed = holders_needed;
    }

    /// Asks and writes back as far as needed; called after every event.
    pub(super) fn advance(&mut self, out: &mut Vec<Effect>) -> Progress {
        let count = |what: fn(&Peer, Revision) -> bool| {
            1 + self.peers.iter().filter(|peer| what(peer, self.revision)).count() as u8
        };
        let answers = count(|peer, _| peer.answered);
        let answers_hoped = count(|peer, _| peer.answered || peer.is_asked());
        let holders = count(|peer, revision| peer.state == State::Holds(revision));
        let holders_hoped = count(|peer, _| peer.answers_now() || peer.is_asked());
        if answers >= self.answers_needed && holders >= self.holders_needed {
            return Progress::Complete;
        }
        let answers_wanted = self.answers_needed.saturating_sub(answers_hoped);
        let holders_wanted = self.holders_needed.saturating_sub(holders_hoped);
        if !self.ask(usize::from(answers_wanted.max(holders_wanted)), out) {
            return Progress::Impossible;
        }
        // Not before: a write-back ahead of the last answer would have to be done again.
        if answers >= self.answers_needed {
            self.write_back(out);
        }
        Progress::Waiting
    }

    /// Asks everyone who was not asked yet: those that were are slow.
    pub(super) fn ask_all(&mut self, out: &mut Vec<Effect>) {
        self.ask(self.peers.len(), out);
    }

    /// Writes to everyone who answered and is not known to hold, or be sent, the newest state.
    pub(super) fn write_back(&mut self, out: &mut Vec<Effect>) {
        let revision = self.revision;
        for peer in &mut self.peers {
            let current =
                matches!(peer.state, State::Holds(r) | State::Writing(r) if r == revision);
            if peer.answers_now() && !current {
                peer.state = State::Writing(revision);
                out.push(Effect::WriteBack { to: peer.node, revision });
            }
        }
    }

    /// The peers that were lost or do not count, by their place among the others.
    pub(super) fn out(&self) -> impl Iterator<Item = usize> + '_ {
        let is_out = |peer: &Peer| matches!(peer.state, State::Out(_));
        self.peers.iter().enumerate().filter(move |(_, peer)| is_out(peer)).map(|(i, _)| i)
    }

    /// The place of `node` among the others.
    pub(super) fn place(&self, node: NodeId) -> Option<usize> {
        self.peers.iter().position(|peer| peer.node == node)
    }

    fn peer(&mut self, node: NodeId) -> Option<&mut Peer> {
        self.peers.iter_mut().find(|peer| peer.node == node)
    }

    /// Asks `count` idle peers; whether there were that many.
    fn ask(&mut self, count: usize, out: &mut Vec<Effect>) -> bool {
        let revision = self.revision;
        let idle = self.peers.iter_mut().filter(|peer| peer.state == State::Idle);
        let mut asked = 0;
        for peer in idle.take(count) {
            peer.state = State::Asked(revision);
            out.push(Effect::Check { to: peer.node });
            asked += 1;
        }
        asked == count
    }
}

impl Peer {
    fn is_asked(&self) -> bool {
        matches!(self.state, State::Asked(_))
    }

    /// It answered and is still there.
    fn answers_now(&self) -> bool {
        matches!(self.state, State::Behind | State::Writing(_) | State::Holds(_))
    }
}
