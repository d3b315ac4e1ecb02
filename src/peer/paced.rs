//! The pace of one peer, shared by all that is sent to it while its clients do not wait for it: a
//! resumed stream, hints, entries of an exchange. What each would send alone adds up at the peer.
//!
//! It outlives links: how fast the peer was a moment ago is worth knowing. Its lock is held for some
//! arithmetic only, and no other is taken meanwhile.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::base::time::Moment;
use crate::handoff::pace::{Options, Pace};

/// See the head of this file.
#[derive(Debug)]
pub struct Paced {
    /// The zero of the pace's moments.
    began: Instant,
    pace: Mutex<Pace>,
}

impl Default for Paced {
    fn default() -> Paced {
        Paced { began: Instant::now(), pace: Mutex::new(Pace::new(Options::default())) }
    }
}

impl Paced {
    fn now(&self) -> Moment {
        Moment(self.began.elapsed().as_millis() as u64)
    }

    /// What may be sent now, in [`crate::handoff::pace::cost`].
    pub fn allowance(&self) -> usize {
        self.pace.lock().allowance(self.now())
    }

    /// How long to wait until something may be sent; it may have to be answered for first.
    pub fn wait(&self) -> Duration {
        Duration::from_millis(self.pace.lock().wait_ms(self.now()).max(1))
    }

    /// What costs so much was done for it, and is not answered.
    pub fn on_spent(&self, cost: usize) {
        self.on_sent(cost);
        self.on_landed(cost);
    }

    /// What costs so much was sent.
    pub fn on_sent(&self, cost: usize) {
        self.pace.lock().on_sent(cost, self.now());
    }

    /// What cost so much has been answered.
    pub fn on_answer(&self, cost: usize, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.pace.lock().on_answer(cost, us, self.now());
    }

    /// What cost so much will not be answered.
    pub fn on_landed(&self, cost: usize) {
        self.pace.lock().on_landed(cost);
    }

    /// The link is gone.
    pub fn on_lost(&self) {
        self.pace.lock().on_lost();
    }

    /// What is allowed in a second now, and the latencies in microseconds: of late, and in quiet.
    pub fn measured(&self) -> (u64, u64, u64) {
        let pace = self.pace.lock();
        (pace.rate(), pace.latency_us(), pace.quiet_us())
    }
}
