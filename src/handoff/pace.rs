//! How fast one peer is sent what its clients do not wait for: hints, a resumed stream, an exchange.
//!
//! The receiver's own latency rules (additive increase, multiplicative decrease: Chiu and Jain,
//! 1989; with delay as the signal, as in LEDBAT, RFC 6817). What it answers with while it is left
//! alone is its *quiet* value; when the smoothed latency exceeds one and a half times that, the
//! rate is halved, and while it stays below, the rate rises by one step a round.
//!
//! ```text
//!   latency ──► smoothed ──► over 1.5 × quiet?  yes: rate ÷ 2     at most once a round,
//!                   │                           no:  rate + step   and only if it was used
//!                   └► least of the last minute or two = quiet
//!
//!   rate × time ──► tokens (at most BURST_MS of them) ──► allowance
//! ```
//!
//! Invariant: the rate stays between its bounds, and over any stretch of time no more is allowed
//! than the greatest rate times that stretch and one burst. What is sent above the allowance is
//! owed: a single large entry is sent whole, and paid for by a longer rest after it.

use crate::base::time::Moment;

/// Time between two changes of the rate: the answers to what was sent before are in by then.
const ROUND_MS: u64 = 100;

/// A rest's tokens are kept for this long: the most that goes out at once.
const BURST_MS: u64 = 50;

/// After this long the quiet value is measured anew, so that a slower road is believed in time.
const QUIET_MS: u64 = 60_000;

/// Latencies this far apart, in microseconds, are alike, whatever their ratio: a timer's grain and
/// a scheduler's slice are no load.
const SLACK_US: u64 = 1_000;

/// Weight of one measurement in the smoothed latency: one in so many.
const SMOOTHING: u64 = 4;

/// The least a burst holds, in bytes: one chunk must fit, or nothing would move at a low rate.
pub const BURST_BYTES_MIN: usize = 64 << 10;

/// The bounds of a [`Pace`], all in bytes a second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Never slower: what is due must arrive at last.
    pub rate_min: u64,
    /// Never faster.
    pub rate_max: u64,
    /// The rate before anything was measured.
    pub rate_start: u64,
    /// What a quiet round adds.
    pub step: u64,
}

impl Options {
    /// Up to `rate_max` bytes a second, begun at an eighth of it.
    pub fn up_to(rate_max: u64) -> Options {
        let rate_max = rate_max.max(1);
        Options {
            rate_min: (256 << 10).min(rate_max),
            rate_max,
            rate_start: (rate_max / 8).max((1 << 20).min(rate_max)),
            step: (rate_max / 64).max(1),
        }
    }
}

impl Default for Options {
    fn default() -> Options {
        Options::up_to(64 << 20)
    }
}

/// The least latency of the last one or two [`QUIET_MS`].
#[derive(Clone, Copy, Debug)]
struct Quiet {
    since: Moment,
    before_us: u64,
    now_us: u64,
}

impl Quiet {
    fn on_latency(&mut self, us: u64, now: Moment) {
        if now.since(self.since) >= QUIET_MS {
            (self.since, self.before_us, self.now_us) = (now, self.now_us, us);
        }
        self.now_us = self.now_us.min(us);
    }

    fn us(&self) -> u64 {
        self.before_us.min(self.now_us)
    }
}

/// The pace of one peer. See the head of this file.
#[derive(Clone, Debug)]
pub struct Pace {
    options: Options,
    rate: u64,
    /// Bytes that may go, times a thousand: a low rate's milliseconds are no whole bytes.
    tokens: i64,
    filled: Option<Moment>,
    quiet: Option<Quiet>,
    smoothed_us: u64,
    turned: Moment,
    /// Whether the allowance was used up since the rate last changed.
    used: bool,
}

impl Pace {
    /// A pace of which nothing is known yet.
    ///
    /// # Panics
    /// If the bounds contradict each other, or nothing would ever move.
    pub fn new(options: Options) -> Pace {
        let Options { rate_min, rate_max, rate_start, .. } = options;
        assert!(rate_min >= 1 && rate_min <= rate_max, "bounds of a pace");
        Pace {
            options,
            rate: rate_start.clamp(rate_min, rate_max),
            tokens: 0,
            filled: None,
            quiet: None,
            smoothed_us: 0,
            turned: Moment::default(),
            used: false,
        }
    }

    /// Bytes a second that are allowed now.
    pub const fn rate(&self) -> u64 {
        self.rate
    }

    /// The receiver's smoothed latency in microseconds; 0 before the first measurement.
    pub const fn latency_us(&self) -> u64 {
        self.smoothed_us
    }

    /// The latency of the receiver left alone, in microseconds; 0 before the first measurement.
    pub fn quiet_us(&self) -> u64 {
        self.quiet.map_or(0, |quiet| quiet.us())
    }

    /// How many bytes may go now; 0: none.
    pub fn allowance(&mut self, now: Moment) -> usize {
        self.fill(now);
        usize::try_from(self.tokens / 1_000).unwrap_or(0)
    }

    /// Milliseconds from `now` until something may go; 0: at once.
    pub fn wait_ms(&mut self, now: Moment) -> u64 {
        self.fill(now);
        if self.tokens >= 1_000 {
            return 0;
        }
        let lacking = 1_000i64.saturating_sub(self.tokens).unsigned_abs();
        lacking.div_ceil(self.rate).max(1)
    }

    /// `bytes` were sent, be it more than was allowed.
    pub fn on_sent(&mut self, bytes: usize, now: Moment) {
        self.fill(now);
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.tokens = self.tokens.saturating_sub(bytes.saturating_mul(1_000));
        self.used |= self.tokens < 1_000;
    }

    /// The receiver took `us` microseconds for an answer.
    pub fn on_latency(&mut self, us: u64, now: Moment) {
        let fresh = Quiet { since: now, before_us: u64::MAX, now_us: us };
        let quiet = self.quiet.get_or_insert(fresh);
        quiet.on_latency(us, now);
        let quiet_us = quiet.us();
        self.smoothed_us = match self.smoothed_us {
            0 => us,
            smoothed => smoothed - smoothed / SMOOTHING + us / SMOOTHING,
        };
        if now.since(self.turned) < ROUND_MS {
            return;
        }
        // The tokens of the time before were earned at the rate of that time.
        self.fill(now);
        if self.smoothed_us > (quiet_us / 2).max(SLACK_US).saturating_add(quiet_us) {
            self.turn(self.rate / 2, now);
        } else if self.used {
            self.turn(self.rate.saturating_add(self.options.step), now);
        }
    }

    fn turn(&mut self, rate: u64, now: Moment) {
        self.rate = rate.clamp(self.options.rate_min, self.options.rate_max);
        self.turned = now;
        self.used = false;
    }

    fn fill(&mut self, now: Moment) {
        let burst = i64::try_from(self.rate.saturating_mul(BURST_MS)).unwrap_or(i64::MAX);
        let burst = burst.max(BURST_BYTES_MIN as i64 * 1_000);
        let Some(filled) = self.filled else {
            (self.filled, self.tokens) = (Some(now), burst);
            return;
        };
        let earned = now.since(filled).saturating_mul(self.rate);
        let earned = i64::try_from(earned).unwrap_or(i64::MAX);
        self.tokens = self.tokens.saturating_add(earned).min(burst);
        self.filled = Some(filled.max(now));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OPTIONS: Options =
        Options { rate_min: 100_000, rate_max: 50_000_000, rate_start: 1_000_000, step: 500_000 };

    /// A receiver that serves its clients and, of what is sent to it, `room` bytes a second without
    /// anybody feeling it; beyond that its queue, and so its latency, grows. Says the bytes that
    /// arrived and the share of time over which its latency was above twice the quiet one.
    fn receive(pace: &mut Pace, from_ms: u64, seconds: u64, room: u64) -> (u64, f64) {
        let (mut arrived, mut queue, mut slow) = (0u64, 0u64, 0u64);
        for ms in from_ms..from_ms + seconds * 1_000 {
            let now = Moment(ms);
            let allowed = pace.allowance(now);
            if allowed > 0 {
                pace.on_sent(allowed, now);
                queue += allowed as u64;
            }
            let served = queue.min(room / 1_000);
            queue -= served;
            arrived += served;
            let latency_us = 500 + queue * 1_000_000 / room;
            slow += u64::from(latency_us > 2_000);
            if ms % 5 == 0 {
                pace.on_latency(latency_us, now);
            }
        }
        (arrived, slow as f64 / (seconds * 1_000) as f64)
    }

    #[test]
    fn it_finds_the_room_there_is_and_leaves_clients_alone() {
        let mut pace = Pace::new(OPTIONS);
        let (arrived, slow) = receive(&mut pace, 0, 60, 10_000_000);
        assert!(arrived > 60 * 3_000_000, "used too little: {arrived}");
        assert!(slow < 0.4, "slow for {slow} of the time");
        let (arrived, _) = receive(&mut pace, 60_000, 30, 1_000_000);
        assert!(arrived > 30 * 300_000, "gave way too far: {arrived}");
        assert!(pace.rate() < 4_000_000, "did not give way: {}", pace.rate());
    }

    #[test]
    fn it_rises_to_the_most_when_nobody_minds() {
        let mut pace = Pace::new(OPTIONS);
        receive(&mut pace, 0, 20, 1 << 40);
        assert_eq!(pace.rate(), OPTIONS.rate_max);
    }

    #[test]
    fn a_rate_that_is_not_used_does_not_rise() {
        let mut pace = Pace::new(OPTIONS);
        for ms in 0..10_000 {
            pace.on_latency(500, Moment(ms));
        }
        assert_eq!(pace.rate(), OPTIONS.rate_start);
    }

    #[test]
    fn a_slower_road_becomes_the_quiet_one() {
        let mut pace = Pace::new(OPTIONS);
        (0..1_000).for_each(|ms| pace.on_latency(500, Moment(ms)));
        (1_000..10_000).for_each(|ms| pace.on_latency(9_000, Moment(ms)));
        assert_eq!(pace.rate(), OPTIONS.rate_min);
        (10_000..200_000).for_each(|ms| pace.on_latency(9_000, Moment(ms)));
        assert_eq!(pace.quiet_us(), 9_000);
        receive(&mut pace, 200_000, 1, 1 << 40);
        assert!(pace.rate() > OPTIONS.rate_min);
    }

    #[test]
    fn what_is_sent_above_the_allowance_is_owed() {
        let mut pace = Pace::new(OPTIONS);
        let allowed = pace.allowance(Moment(7));
        assert!(allowed >= BURST_BYTES_MIN);
        pace.on_sent(allowed + 1_000_000, Moment(7));
        assert_eq!(pace.allowance(Moment(900)), 0);
        assert_eq!(pace.wait_ms(Moment(7)), 108);
        let mut pace = Pace::new(OPTIONS);
        pace.on_sent(BURST_BYTES_MIN + 1_000_000, Moment(7));
        assert_eq!(pace.wait_ms(Moment(7)), 1_001);
        assert_eq!(pace.allowance(Moment(1_008)), 1_000);
        assert_eq!(pace.wait_ms(Moment(1_008)), 0);
    }

    proptest! {
        #[test]
        fn no_more_is_allowed_than_time_brings(
            steps in prop::collection::vec((0u64..300, 0u64..40_000, any::<bool>()), 1..300),
        ) {
            let mut pace = Pace::new(OPTIONS);
            let (mut now, mut sent) = (0u64, 0u64);
            for (pause, us, sends) in steps {
                now += pause;
                if sends {
                    let allowed = pace.allowance(Moment(now));
                    pace.on_sent(allowed, Moment(now));
                    sent += allowed as u64;
                }
                pace.on_latency(us, Moment(now));
                prop_assert!((OPTIONS.rate_min..=OPTIONS.rate_max).contains(&pace.rate()));
            }
            let burst = OPTIONS.rate_max * BURST_MS / 1_000;
            prop_assert!(sent <= OPTIONS.rate_max * now / 1_000 + burst);
        }

        #[test]
        fn hostile_numbers_do_no_harm(
            steps in prop::collection::vec((any::<u64>(), any::<usize>(), any::<u64>()), 1..40),
            rate_max in 1u64..,
        ) {
            let mut pace = Pace::new(Options::up_to(rate_max));
            for (now, bytes, us) in steps {
                pace.on_sent(bytes, Moment(now));
                pace.on_latency(us, Moment(now));
                pace.allowance(Moment(now));
                pace.wait_ms(Moment(now));
            }
        }
    }
}
