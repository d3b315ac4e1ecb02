//! How fast one peer is sent what its clients do not wait for: a resumed stream, hints, an exchange.
//!
//! The receiver's own latency rules (additive increase, multiplicative decrease: Chiu and Jain,
//! 1989; with delay as the signal, as in LEDBAT, RFC 6817). What it answers with while it is left
//! alone is its *quiet* value; when the mean of a round exceeds one and a half times that, the
//! rate is halved, and while it stays below, the rate rises by a part of itself.
//!
//! ```text
//!   answers ──► mean of the round ──► over 1.5 × quiet?  yes: rate ÷ 2
//!      │                              no: rate + rate ÷ 8, if it was used up
//!      └► least of the last minute or two = quiet
//!
//!   rate × time ──► tokens (a few milliseconds' worth at most) ─┐
//!   rate × (quiet + 20 ms) − what is on its way ───────────────┴─► allowance, once it is a grain
//! ```
//!
//! What is counted is not bytes alone: a small entry costs both ends nearly as much as a large one,
//! so each counts [`ENTRY_COST`] more ([`cost`]).
//!
//! **Small bursts.** Whoever sends what 50 ms allow in one go makes the receiver's clients wait for
//! all of it, and measures its own queue as the receiver's load. So a burst is [`BURST_MIN`] or what
//! two milliseconds bring, and of that no more is on its way than the road holds. Bursts may be too
//! small as well: each wakes both ends and costs system calls, log writes and an answer. So what is
//! less than a [`GRAIN`] waits for more.
//!
//! Invariant: the rate stays between its bounds, and over any stretch of time no more is allowed
//! than the greatest rate times that stretch and one burst. What is sent above the allowance is
//! owed: a single large entry is sent whole, and paid for by a longer rest after it.

use crate::base::time::Moment;

/// Time between two changes of the rate: the answers to what was sent before are in by then.
const ROUND_MS: u64 = 100;

/// A rest's tokens are kept for this long: the most that goes out at once.
const BURST_MS: u64 = 2;

/// What goes at a time, at least: some dozens of small entries.
pub const GRAIN: usize = 16 << 10;

/// The least that a burst holds. Whoever comes a little late for one grain finds the next.
pub const BURST_MIN: usize = 2 * GRAIN;

/// A grain in tokens.
const GRAIN_TOKENS: i64 = GRAIN as i64 * 1_000;

/// What an entry costs beside its bytes.
pub const ENTRY_COST: usize = 256;

/// How much longer than in quiet what was sent may be on its way, in microseconds, at the full
/// rate: a log that is synced takes its time.
const ROAD_US: u64 = 20_000;

/// After this long the quiet value is measured anew, so that a slower road is believed in time.
const QUIET_MS: u64 = 60_000;

/// Latencies this far apart, in microseconds, are alike, whatever their ratio: a timer's grain and
/// a scheduler's slice are no load.
const SLACK_US: u64 = 500;

/// One answer counts as at most this many microseconds: a log that is synced once in a while makes
/// one round slow, and not slower than that.
const SAMPLE_US_MAX: u64 = 20_000;

/// What entries of so many `bytes` together cost.
pub const fn cost(entries: usize, bytes: usize) -> usize {
    bytes.saturating_add(entries.saturating_mul(ENTRY_COST))
}

/// What a hint of so many `bytes` costs: as much as two entries, for it is looked up, written down,
/// answered and forgotten by itself.
pub const fn hint_cost(bytes: usize) -> usize {
    cost(2, bytes)
}

/// The bounds of a [`Pace`], all in [`cost`] a second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Never slower: what is due must arrive at last.
    pub rate_min: u64,
    /// Never faster.
    pub rate_max: u64,
    /// The rate before anything was measured.
    pub rate_start: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { rate_min: 4 << 20, rate_max: 32 << 20, rate_start: 4 << 20 }
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

/// The answers since the rate last changed.
#[derive(Clone, Copy, Default, Debug)]
struct Round {
    began: Moment,
    answers: u64,
    us: u64,
    /// Whether the allowance was used up.
    used: bool,
}

/// The pace of one peer. See the head of this file.
#[derive(Clone, Debug)]
pub struct Pace {
    options: Options,
    rate: u64,
    /// What may go, times a thousand: a low rate's milliseconds are no whole bytes.
    tokens: i64,
    filled: Option<Moment>,
    /// What was sent and not answered.
    flying: usize,
    quiet: Option<Quiet>,
    round: Round,
    latency_us: u64,
}

impl Pace {
    /// A pace of which nothing is known yet.
    ///
    /// # Panics
    /// If the bounds contradict each other, or nothing would ever move.
    pub fn new(options: Options) -> Pace {
        let Options { rate_min, rate_max, rate_start } = options;
        assert!(rate_min >= 1 && rate_min <= rate_max, "bounds of a pace");
        Pace {
            options,
            rate: rate_start.clamp(rate_min, rate_max),
            tokens: 0,
            filled: None,
            flying: 0,
            quiet: None,
            round: Round::default(),
            latency_us: 0,
        }
    }

    /// What is allowed in a second now.
    pub const fn rate(&self) -> u64 {
        self.rate
    }

    /// The receiver's latency in the last round, in microseconds; 0 before the first.
    pub const fn latency_us(&self) -> u64 {
        self.latency_us
    }

    /// The latency of the receiver left alone, in microseconds; 0 before the first answer.
    pub fn quiet_us(&self) -> u64 {
        self.quiet.map_or(0, |quiet| quiet.us())
    }

    /// What was sent and not answered.
    pub const fn flying(&self) -> usize {
        self.flying
    }

    /// What may be sent now: at least a [`GRAIN`], or 0: nothing.
    pub fn allowance(&mut self, now: Moment) -> usize {
        self.fill(now);
        let tokens = usize::try_from(self.tokens / 1_000).unwrap_or(0);
        let allowed = tokens.min(self.window().saturating_sub(self.flying));
        if allowed >= GRAIN { allowed } else { 0 }
    }

    /// What may be on its way: what the rate brings while an answer is waited for.
    fn window(&self) -> usize {
        let road_us = u128::from(self.quiet_us().min(1_000_000) + ROAD_US);
        let window = u128::from(self.rate) * road_us / 1_000_000;
        usize::try_from(window).unwrap_or(usize::MAX).max(BURST_MIN)
    }

    /// Milliseconds until something may be sent, if no answer comes earlier.
    pub fn wait_ms(&mut self, now: Moment) -> u64 {
        self.fill(now);
        if self.tokens >= GRAIN_TOKENS {
            return if self.is_full() { ROAD_US / 1_000 } else { 0 };
        }
        GRAIN_TOKENS.saturating_sub(self.tokens).unsigned_abs().div_ceil(self.rate)
    }

    /// Whether what is on its way leaves no room for a grain.
    fn is_full(&self) -> bool {
        self.window().saturating_sub(self.flying) < GRAIN
    }

    /// What costs so much was sent, be it more than was allowed.
    pub fn on_sent(&mut self, cost: usize, now: Moment) {
        self.fill(now);
        self.flying = self.flying.saturating_add(cost);
        let cost = i64::try_from(cost).unwrap_or(i64::MAX);
        self.tokens = self.tokens.saturating_sub(cost.saturating_mul(1_000));
        self.round.used |= self.tokens < GRAIN_TOKENS || self.is_full();
    }

    /// What cost so much has been answered after `us` microseconds.
    pub fn on_answer(&mut self, cost: usize, us: u64, now: Moment) {
        self.on_landed(cost);
        let fresh = Quiet { since: now, before_us: u64::MAX, now_us: us };
        let quiet = self.quiet.get_or_insert(fresh);
        quiet.on_latency(us, now);
        let quiet_us = quiet.us();
        self.round.answers += 1;
        let counted = us.min(SAMPLE_US_MAX.max(quiet_us.saturating_mul(8)));
        self.round.us = self.round.us.saturating_add(counted);
        if now.since(self.round.began) < ROUND_MS {
            return;
        }
        // The tokens of the time before were earned at the rate of that time.
        self.fill(now);
        self.latency_us = self.round.us / self.round.answers;
        if self.latency_us > (quiet_us / 2).max(SLACK_US).saturating_add(quiet_us) {
            self.turn(self.rate / 2);
        } else if self.round.used {
            self.turn(self.rate.saturating_add((self.rate / 8).max(1)));
        }
        self.round = Round { began: now, ..Round::default() };
    }

    /// What cost so much is on its way no more, and nobody knows how long it took.
    pub fn on_landed(&mut self, cost: usize) {
        self.flying = self.flying.saturating_sub(cost);
    }

    /// The link is gone, with all that was on its way.
    pub fn on_lost(&mut self) {
        self.flying = 0;
    }

    fn turn(&mut self, rate: u64) {
        self.rate = rate.clamp(self.options.rate_min, self.options.rate_max);
    }

    fn fill(&mut self, now: Moment) {
        let burst = i64::try_from(self.rate.saturating_mul(BURST_MS)).unwrap_or(i64::MAX);
        let burst = burst.max(BURST_MIN as i64 * 1_000);
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
        Options { rate_min: 100_000, rate_max: 50_000_000, rate_start: 1_000_000 };

    /// A receiver that serves its clients and, of what is sent to it, `room` a second without
    /// anybody feeling it; beyond that its queue, and so its latency, grows. Says how much
    /// arrived and the share of time over which its latency was above twice the quiet one.
    fn receive(pace: &mut Pace, from_ms: u64, seconds: u64, room: u64) -> (u64, f64) {
        let (mut arrived, mut queue, mut slow) = (0u64, 0u64, 0u64);
        pace.on_lost();
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
            if served > 0 {
                pace.on_answer(served as usize, latency_us, now);
            }
        }
        (arrived, slow as f64 / (seconds * 1_000) as f64)
    }

    #[test]
    fn it_finds_the_room_there_is_and_leaves_clients_alone() {
        let mut pace = Pace::new(OPTIONS);
        let (arrived, slow) = receive(&mut pace, 0, 60, 40_000_000);
        assert!(arrived > 60 * 12_000_000, "used too little: {arrived}");
        assert!(slow < 0.4, "slow for {slow} of the time");
        let (arrived, slow) = receive(&mut pace, 60_000, 30, 10_000_000);
        assert!(arrived > 30 * 3_000_000, "gave way too far: {arrived}");
        assert!(slow < 0.4, "slow for {slow} of the time");
        assert!(pace.rate() < 20_000_000, "did not give way: {}", pace.rate());
    }

    #[test]
    fn who_takes_long_for_a_grain_is_sent_no_more_than_must_be() {
        let mut pace = Pace::new(OPTIONS);
        receive(&mut pace, 0, 10, 2_000_000);
        let (arrived, _) = receive(&mut pace, 10_000, 60, 2_000_000);
        let floor = 60 * OPTIONS.rate_min;
        assert!((floor * 9 / 10..floor * 3 / 2).contains(&arrived), "{arrived}");
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
            pace.on_sent(1, Moment(ms));
            pace.on_answer(1, 500, Moment(ms));
        }
        assert_eq!(pace.rate(), OPTIONS.rate_start);
    }

    #[test]
    fn one_slow_answer_among_many_is_not_load() {
        let mut pace = Pace::new(OPTIONS);
        for ms in 0..10_000 {
            pace.allowance(Moment(ms));
            pace.on_sent(40_000, Moment(ms));
            pace.on_answer(40_000, if ms % 100 == 7 { 60_000 } else { 500 }, Moment(ms));
        }
        assert!(pace.rate() > OPTIONS.rate_start, "{}", pace.rate());
    }

    #[test]
    fn a_slower_road_becomes_the_quiet_one() {
        let mut pace = Pace::new(OPTIONS);
        (0..1_000).for_each(|ms| pace.on_answer(0, 500, Moment(ms)));
        (1_000..10_000).for_each(|ms| pace.on_answer(0, 9_000, Moment(ms)));
        assert_eq!(pace.rate(), OPTIONS.rate_min);
        (10_000..200_000).for_each(|ms| pace.on_answer(0, 9_000, Moment(ms)));
        assert_eq!(pace.quiet_us(), 9_000);
        receive(&mut pace, 200_000, 1, 1 << 40);
        assert!(pace.rate() > OPTIONS.rate_min);
    }

    #[test]
    fn what_is_sent_above_the_allowance_is_owed() {
        let mut pace = Pace::new(OPTIONS);
        let allowed = pace.allowance(Moment(7));
        assert_eq!(allowed, BURST_MIN);
        pace.on_sent(allowed + 1_000_000, Moment(7));
        pace.on_landed(allowed + 1_000_000);
        assert_eq!(pace.wait_ms(Moment(7)), 1_017, "a million, and a grain on top");
        assert_eq!(pace.allowance(Moment(1_023)), 0);
        assert_eq!(pace.wait_ms(Moment(1_023)), 1);
        assert_eq!(pace.allowance(Moment(1_024)), 17_000);
        assert_eq!(pace.wait_ms(Moment(1_024)), 0);
    }

    #[test]
    fn no_more_is_on_its_way_than_the_road_holds() {
        let mut pace = Pace::new(OPTIONS);
        let mut sent = 0;
        for ms in 0..10_000 {
            let allowed = pace.allowance(Moment(ms));
            pace.on_sent(allowed, Moment(ms));
            sent += allowed;
        }
        assert_eq!(sent, BURST_MIN);
        assert_eq!(pace.allowance(Moment(10_000)), 0);
        pace.on_lost();
        assert!(pace.allowance(Moment(10_000)) > 0);
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
                let allowed = pace.allowance(Moment(now));
                if sends {
                    pace.on_sent(allowed, Moment(now));
                    sent += allowed as u64;
                }
                pace.on_answer(allowed, us, Moment(now));
                prop_assert!((OPTIONS.rate_min..=OPTIONS.rate_max).contains(&pace.rate()));
            }
            let burst = (OPTIONS.rate_max * BURST_MS / 1_000).max(BURST_MIN as u64);
            prop_assert!(sent <= OPTIONS.rate_max * now / 1_000 + burst);
        }

        #[test]
        fn hostile_numbers_do_no_harm(
            steps in prop::collection::vec((any::<u64>(), any::<usize>(), any::<u64>()), 1..40),
            rate_max in 1u64..,
        ) {
            let options = Options { rate_min: 1, rate_max, rate_start: rate_max / 8 };
            let mut pace = Pace::new(options);
            for (now, bytes, us) in steps {
                pace.on_sent(bytes, Moment(now));
                pace.on_answer(bytes / 2, us, Moment(now));
                pace.allowance(Moment(now));
                pace.wait_ms(Moment(now));
            }
        }
    }
}
