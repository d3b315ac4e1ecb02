//! Whether this node's wall clock is the odd one out (pure).
//!
//! Dots take their order from wall clocks, so a node whose clock is far off would win or lose every
//! concurrent write. Such a node does not coordinate; it counts all the same, and nothing is
//! discarded for skew.
//!
//! Every heartbeat carries its sender's wall clock. It arrives late and never early, so of the last
//! few differences the greatest is nearest to the truth. The judge is the median of all clocks,
//! this node's included: more than half of them are never off, and of two that disagree neither is
//! believed.
//!
//! ```text
//!   my offset from the median    > limit for a while ──► off
//!                                < limit / 2         ──► sound
//! ```

use std::collections::{BTreeMap, VecDeque};

use crate::base::id::NodeId;
use crate::base::time::{Moment, UnixMs};

/// What a clock is judged by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Milliseconds off the median from which on the clock is off. Above every delay of a healthy
    /// network, below what people notice.
    pub limit_ms: u64,
    /// Milliseconds for which it must be seen off: a late batch of heartbeats is no skew.
    pub patience_ms: u64,
    /// Differences remembered of each peer.
    pub window: usize,
    /// Differences older than this are no witness any more.
    pub fresh_ms: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { limit_ms: 500, patience_ms: 2_000, window: 8, fresh_ms: 30_000 }
    }
}

#[derive(Clone, Debug, Default)]
struct Witness {
    differences: VecDeque<i64>,
    heard: Moment,
}

/// This node's clock among the others.
#[derive(Clone, Debug)]
pub struct Clock {
    options: Options,
    witnesses: BTreeMap<NodeId, Witness>,
    off: bool,
    /// Since when it has been seen off without a break.
    seen_off: Option<Moment>,
}

impl Clock {
    /// A clock that is believed until others say otherwise.
    pub fn new(options: Options) -> Clock {
        Clock { options, witnesses: BTreeMap::new(), off: false, seen_off: None }
    }

    /// A heartbeat of `peer`, sent when its clock said `theirs`, is here when ours says `mine`.
    pub fn on_heartbeat(&mut self, peer: NodeId, theirs: UnixMs, mine: UnixMs, now: Moment) {
        let witness = self.witnesses.entry(peer).or_default();
        if witness.differences.len() >= self.options.window.max(1) {
            witness.differences.pop_front();
        }
        witness.differences.push_back(theirs.0.wrapping_sub(mine.0) as i64);
        witness.heard = now;
    }

    /// `peer` is gone, or its next life may have another clock.
    pub fn forget(&mut self, peer: NodeId) {
        self.witnesses.remove(&peer);
    }

    /// How far the clock of `peer` is ahead of this node's, in milliseconds.
    pub fn offset_ms(&self, peer: NodeId) -> Option<i64> {
        self.witnesses.get(&peer).and_then(|witness| witness.differences.iter().max().copied())
    }

    /// How far the median of all clocks is ahead of this node's; 0 with fewer than two witnesses,
    /// for nobody can say which of two clocks is wrong.
    pub fn median_ms(&self, now: Moment) -> i64 {
        let fresh = |witness: &&Witness| now.since(witness.heard) <= self.options.fresh_ms;
        let witnesses = self.witnesses.values().filter(fresh);
        let mut offsets: Vec<i64> =
            witnesses.filter_map(|witness| witness.differences.iter().max().copied()).collect();
        if offsets.len() < 2 {
            return 0;
        }
        offsets.push(0);
        offsets.sort_unstable();
        // Of an even number the one nearer to this clock: doubt is on its side.
        let (lower, upper) = (offsets[(offsets.len() - 1) / 2], offsets[offsets.len() / 2]);
        if lower.unsigned_abs() <= upper.unsigned_abs() { lower } else { upper }
    }

    /// Judges anew. `Some` if the judgement changed: whether the clock is off now.
    pub fn on_tick(&mut self, now: Moment) -> Option<bool> {
        let off_ms = self.median_ms(now).unsigned_abs();
        let was = self.off;
        if off_ms > self.options.limit_ms {
            let since = *self.seen_off.get_or_insert(now);
            self.off |= now.since(since) >= self.options.patience_ms;
        } else {
            self.seen_off = None;
            self.off &= off_ms > self.options.limit_ms / 2;
        }
        (self.off != was).then_some(self.off)
    }

    /// Whether the clock is off.
    pub fn is_off(&self) -> bool {
        self.off
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BASE: u64 = 1_700_000_000_000;

    fn told(offsets: &[i64]) -> Clock {
        let mut clock = Clock::new(Options::default());
        for (peer, offset) in offsets.iter().enumerate() {
            let theirs = UnixMs(BASE.wrapping_add_signed(*offset));
            clock.on_heartbeat(NodeId(peer as u16), theirs, UnixMs(BASE), Moment(0));
        }
        clock
    }

    #[test]
    fn the_odd_one_out_notices_and_the_others_do_not() {
        assert_eq!(told(&[600, 700]).median_ms(Moment(0)), 600);
        assert_eq!(told(&[0, 600]).median_ms(Moment(0)), 0);
        assert_eq!(told(&[0, 0, -9_000]).median_ms(Moment(0)), 0);
        assert_eq!(told(&[9_000]).median_ms(Moment(0)), 0, "one word against another");
        assert_eq!(told(&[]).median_ms(Moment(0)), 0);
    }

    #[test]
    fn it_is_off_after_a_while_and_sound_well_below_the_limit() {
        let mut clock = told(&[600, 600]);
        assert_eq!(clock.on_tick(Moment(0)), None);
        assert_eq!(clock.on_tick(Moment(1_999)), None);
        assert_eq!(clock.on_tick(Moment(2_000)), Some(true));
        for peer in [0, 1] {
            clock.forget(NodeId(peer));
            clock.on_heartbeat(NodeId(peer), UnixMs(BASE + 400), UnixMs(BASE), Moment(2_000));
        }
        assert_eq!(clock.on_tick(Moment(2_000)), None, "not yet sound");
        for peer in [0, 1] {
            clock.forget(NodeId(peer));
            clock.on_heartbeat(NodeId(peer), UnixMs(BASE + 200), UnixMs(BASE), Moment(2_000));
        }
        assert_eq!(clock.on_tick(Moment(2_050)), Some(false));
    }

    #[test]
    fn late_heartbeats_are_no_skew() {
        let mut clock = told(&[0, 0]);
        for late in [0, 900, 4_000, 30] {
            for peer in [0, 1] {
                let mine = UnixMs(BASE + 200 + late);
                clock.on_heartbeat(NodeId(peer), UnixMs(BASE + 200), mine, Moment(200));
            }
        }
        assert_eq!(clock.median_ms(Moment(200)), 0);
        assert_eq!(clock.offset_ms(NodeId(0)), Some(0));
        assert_eq!(clock.median_ms(Moment(40_000)), 0, "old witnesses say nothing");
    }

    proptest! {
        /// However clocks stand, more than half of them are never called off, or nobody is.
        #[test]
        fn somebody_is_always_sound(clocks in proptest::collection::vec(-5_000i64..5_000, 1..10)) {
            let off = |me: usize| {
                let others = clocks.iter().enumerate().filter(|&(at, _)| at != me);
                let offsets: Vec<i64> = others.map(|(_, clock)| clock - clocks[me]).collect();
                told(&offsets).median_ms(Moment(0)).unsigned_abs() > 500
            };
            prop_assert!((0..clocks.len()).any(|me| !off(me)));
        }

        #[test]
        fn hostile_clocks_do_not_panic(words in proptest::collection::vec(any::<u64>(), 2..8)) {
            let mut clock = Clock::new(Options::default());
            for (peer, &word) in words.iter().enumerate() {
                clock.on_heartbeat(NodeId(peer as u16), UnixMs(word), UnixMs(!word), Moment(0));
            }
            clock.median_ms(Moment(0));
            clock.on_tick(Moment(9_000));
        }
    }
}
