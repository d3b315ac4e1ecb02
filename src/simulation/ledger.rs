//! What really happened: every request of every client, every write that came of one, and the
//! first thing that was wrong.

use crate::base::time::Dot;

use super::facts::{History, WRITES_MAX, Write};
use super::frame::Outcome;
use super::plan::KEYS;

/// What a client asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ask {
    Get,
    /// SET to a number that no other request sets.
    Set(i64),
    /// SET NX, answering what is there if anything is.
    SetIfAbsent(i64),
    Delete,
    Increment(i64),
}

impl Ask {
    pub(super) fn writes(self) -> bool {
        self != Ask::Get
    }
}

/// One request of a client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) key: usize,
    pub(super) ask: Ask,
    pub(super) client: usize,
    pub(super) began: u64,
    /// When its client was told, and what.
    pub(super) ended: Option<(u64, Outcome)>,
    /// The write that it was.
    pub(super) write: Option<usize>,
    /// How many disk losses there had been when it began.
    pub(super) losses: u64,
}

/// How often some of what a world is for happened in it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Happened {
    /// Disks that lost something.
    pub(super) losses: u64,
    /// Requests forwarded, and writes on which a stand-in took part.
    pub(super) forwards: u64,
    pub(super) sloppy: u64,
    /// Writes that a stand-in coordinated; entries it forgot when all had them.
    pub(super) blind: u64,
    pub(super) forgotten: u64,
    /// Streams that went on after a link was lost, changes they brought, and streams with a gap.
    pub(super) resumed: u64,
    pub(super) resent: u64,
    pub(super) gaps: u64,
    /// Peers that were given up.
    pub(super) passed_by: u64,
    /// Vnodes restored after a node lost something.
    pub(super) restored: u64,
    /// Requests of which nobody knows whether they ran.
    pub(super) uncertain: u64,
    /// Worlds whose replicas were equal only after a second round of comparisons.
    pub(super) second_rounds: u64,
}

impl Happened {
    pub(super) fn add(&mut self, other: &Happened) {
        self.losses += other.losses;
        self.forwards += other.forwards;
        self.sloppy += other.sloppy;
        self.blind += other.blind;
        self.forgotten += other.forgotten;
        self.resumed += other.resumed;
        self.resent += other.resent;
        self.gaps += other.gaps;
        self.passed_by += other.passed_by;
        self.restored += other.restored;
        self.uncertain += other.uncertain;
        self.second_rounds += other.second_rounds;
    }
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) requests: Vec<Request>,
    pub(super) histories: [History; KEYS],
    pub(super) breach: Option<String>,
    pub(super) happened: Happened,
}

impl Ledger {
    /// Something is wrong. The first thing counts.
    pub(super) fn breach(&mut self, what: impl FnOnce() -> String) {
        if self.breach.is_none() {
            self.breach = Some(what());
        }
    }

    /// Something must hold.
    pub(super) fn expect(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.breach(what);
        }
    }

    /// Whether `key` has room for another write.
    pub(super) fn has_room(&self, key: usize) -> bool {
        self.histories[key].writes.len() < WRITES_MAX
    }

    /// A request made a write. No dot is given twice, no request runs twice, and none runs that
    /// its client was told has done nothing (invariants 3 and 18).
    pub(super) fn record(&mut self, key: usize, write: Write) -> usize {
        let number = self.histories[key].writes.len();
        let Write { dot, request, own, .. } = write;
        let twice = self.histories[key].find(dot).is_some();
        self.expect(!twice, || format!("dot {} was given twice on key {key}", shown(dot)));
        let asked = self.requests[request];
        self.expect(asked.write.is_none(), || format!("request {request} ran twice"));
        let denied = matches!(asked.ended, Some((_, Outcome::NotRun)));
        self.expect(!denied, || {
            format!("request {request} ran, after it was said that it did not")
        });
        let seen = own.seen & !(1 << number);
        let below = super::facts::each(seen).all(|w| self.histories[key].writes[w].dot < dot);
        self.expect(below, || format!("dot {} is not above all that was seen", shown(dot)));
        self.requests[request].write = Some(number);
        self.histories[key].writes.push(write);
        number
    }
}

/// A dot as people read it.
pub(super) fn shown(dot: Dot) -> String {
    let count = dot.hlc.0 & 0xFFFF;
    format!("{:?}@{}.{count}", dot.actor, dot.hlc.ms().0 as i64 - super::node::EPOCH as i64)
}
