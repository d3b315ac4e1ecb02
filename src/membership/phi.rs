//! How sure one may be that a member has gone silent: an accrual failure detector (pure).
//!
//! Phi is the negative decimal logarithm of the chance that a heartbeat is merely late, judged by
//! how irregular the ones before were: phi 1 is wrong once in ten times, phi 8 once in a hundred
//! million. So one threshold fits a quiet network and a loaded machine. (Hayashibara, Défago, Yared
//! and Katayama, "The φ accrual failure detector", 2004; the tail of the normal distribution is
//! Bowling et al.'s logistic one, 2009; far out it is a little early: phi 8 at 5.2 deviations for 5.6.)
//!
//! Invariant: phi never falls while nothing is heard, and is finite.
//!
//! ```text
//!   heard   heard  heard      heard ·············· now
//!     │       │      │          │◄──── silence ────►│
//!     └───────┴──────┴──────────┘
//!      window of intervals → mean, deviation        phi = −log10 P(interval > silence)
//! ```

use std::collections::VecDeque;

use crate::base::time::Moment;

/// What a detector goes by.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Options {
    /// Intervals that are remembered. More of them forget a busy hour more slowly.
    pub window: usize,
    /// The deviation is at least this share of the expected interval: a silent network for an hour
    /// does not make the first late heartbeat a suspect. With 1.0 and phi 8 about six intervals
    /// may pass.
    pub deviation_share_min: f64,
    /// An interval counts as at most this many expected ones, so that a long outage that ended
    /// does not blunt the detector, while many long intervals do widen it.
    pub interval_share_max: f64,
    /// Phi from which on a member is suspected.
    pub threshold: f64,
}

impl Default for Options {
    fn default() -> Options {
        Options { window: 64, deviation_share_min: 1.0, interval_share_max: 8.0, threshold: 8.0 }
    }
}

/// One member's heartbeats as they arrive here.
#[derive(Clone, Debug)]
pub struct Detector {
    options: Options,
    expected_ms: u64,
    intervals: VecDeque<u64>,
    sum: u64,
    sum_of_squares: u64,
    heard: Moment,
}

impl Detector {
    /// A member that should be heard every `expected_ms`, and counts as heard `now`.
    pub fn new(options: Options, expected_ms: u64, now: Moment) -> Detector {
        let expected_ms = expected_ms.max(1);
        let intervals = VecDeque::with_capacity(options.window.max(1));
        let mut detector =
            Detector { options, expected_ms, intervals, sum: 0, sum_of_squares: 0, heard: now };
        // One sample of what is expected, so that there is a mean from the start.
        detector.remember(expected_ms);
        detector
    }

    fn remember(&mut self, interval: u64) {
        let most = self.expected_ms as f64 * self.options.interval_share_max;
        let interval = interval.min(most as u64);
        if self.intervals.len() >= self.options.window.max(1)
            && let Some(oldest) = self.intervals.pop_front()
        {
            self.sum -= oldest;
            self.sum_of_squares -= oldest * oldest;
        }
        self.intervals.push_back(interval);
        self.sum += interval;
        self.sum_of_squares += interval * interval;
    }

    /// A heartbeat arrived.
    pub fn heard(&mut self, now: Moment) {
        self.remember(now.since(self.heard));
        self.heard = self.heard.max(now);
    }

    /// The last `ms` are not held against the member: it was this node that did not listen.
    pub fn excuse(&mut self, ms: u64, now: Moment) {
        self.heard = Moment(self.heard.0.saturating_add(ms)).min(now);
    }

    /// How often the member should be heard, in milliseconds.
    pub fn expected_ms(&self) -> u64 {
        self.expected_ms
    }

    /// Milliseconds since the last heartbeat, without what was excused.
    pub fn silence_ms(&self, now: Moment) -> u64 {
        now.since(self.heard)
    }

    /// The mean interval in milliseconds.
    pub fn mean_ms(&self) -> f64 {
        self.sum as f64 / self.intervals.len() as f64
    }

    /// The deviation of intervals in milliseconds, never below its minimum.
    pub fn deviation_ms(&self) -> f64 {
        let mean = self.mean_ms();
        let squares = self.sum_of_squares as f64 / self.intervals.len() as f64;
        let least = self.expected_ms as f64 * self.options.deviation_share_min;
        (squares - mean * mean).max(0.0).sqrt().max(least)
    }

    /// How sure it is that the member has gone silent.
    pub fn phi(&self, now: Moment) -> f64 {
        let away = (self.silence_ms(now) as f64 - self.mean_ms()) / self.deviation_ms();
        let logit = away * (1.597_6 + 0.070_566 * away * away);
        // log10(1 + e^x), which is x / ln 10 long before e^x overflows.
        if logit > 500.0 {
            logit * std::f64::consts::LOG10_E
        } else {
            logit.exp().ln_1p() * std::f64::consts::LOG10_E
        }
    }

    /// Whether phi has reached the threshold.
    pub fn is_silent(&self, now: Moment) -> bool {
        self.phi(now) >= self.options.threshold
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn beating(intervals: &[u64]) -> (Detector, Moment) {
        let mut now = Moment(5_000);
        let mut detector = Detector::new(Options::default(), 200, now);
        for interval in intervals {
            now = Moment(now.0 + interval);
            detector.heard(now);
        }
        (detector, now)
    }

    fn silent_after(detector: &Detector, now: Moment) -> u64 {
        (0..1_000_000).find(|ms| detector.is_silent(Moment(now.0 + ms))).expect("some day")
    }

    #[test]
    fn a_regular_member_is_suspected_after_some_six_intervals() {
        let (detector, now) = beating(&[200; 100]);
        let after = silent_after(&detector, now);
        assert!((1_150..1_350).contains(&after), "{after}");
        assert!(detector.phi(Moment(now.0 + 200)) < 0.5);
    }

    #[test]
    fn an_irregular_one_is_given_more_time() {
        let irregular: Vec<u64> = (0..100).map(|n| if n % 4 == 0 { 1_100 } else { 100 }).collect();
        let (detector, now) = beating(&irregular);
        let after = silent_after(&detector, now);
        assert!((2_000..3_500).contains(&after), "{after}");
    }

    #[test]
    fn one_long_outage_does_not_blunt_it() {
        let mut intervals = vec![200; 64];
        intervals.push(3_600_000);
        let (detector, now) = beating(&intervals);
        assert!(silent_after(&detector, now) < 1_600);
    }

    #[test]
    fn what_is_excused_is_not_held_against_a_member() {
        let (mut detector, now) = beating(&[200; 10]);
        let later = Moment(now.0 + 10_000);
        assert!(detector.is_silent(later));
        detector.excuse(9_900, later);
        assert_eq!(detector.silence_ms(later), 100);
        detector.excuse(u64::MAX, later);
        assert_eq!(detector.silence_ms(later), 0);
    }

    #[test]
    fn the_tail_is_that_of_a_normal_distribution() {
        // −log10 of the upper tail at 1 … 5 deviations.
        let known = [(1, 0.7995), (2, 1.6430), (3, 2.8697), (4, 4.4993), (5, 6.5426)];
        let (detector, now) = beating(&[200; 64]);
        for (away, phi) in known {
            let said = detector.phi(Moment(now.0 + 200 + 200 * away));
            assert!((said - phi).abs() / phi < 0.12, "{away}: {said} for {phi}");
        }
    }

    proptest! {
        #[test]
        fn phi_is_finite_and_rises_with_silence(
            intervals in proptest::collection::vec(0u64..100_000, 0..200),
            silences in proptest::collection::vec(any::<u32>(), 2..20),
        ) {
            let (detector, now) = beating(&intervals);
            let mut silences = silences;
            silences.sort_unstable();
            let mut before = 0.0;
            for silence in silences {
                let phi = detector.phi(Moment(now.0 + u64::from(silence)));
                prop_assert!(phi.is_finite() && phi >= before);
                before = phi;
            }
        }

        #[test]
        fn sums_are_those_of_the_window(
            intervals in proptest::collection::vec(0u64..5_000, 0..200),
        ) {
            let (detector, _) = beating(&intervals);
            prop_assert!(detector.intervals.len() <= 64);
            prop_assert_eq!(detector.sum, detector.intervals.iter().sum::<u64>());
            let squares: u64 = detector.intervals.iter().map(|ms| ms * ms).sum();
            prop_assert_eq!(detector.sum_of_squares, squares);
        }
    }
}
