//! The tally of a write: who has it, and whether enough can still have it.
//!
//! Invariant: W counts distinct nodes, however often an acknowledgement is delivered, and the
//! verdict is told once.
//!
//! ```text
//!              ack: needed reached          ┌─────────┐
//!            ┌─────────────────────────────►│ Reached │──┐
//!  ┌─────────┴┐                             └─────────┘  │ any event
//!  │ Waiting  │                                          ├───────────► Settled
//!  └─────────┬┘  lost: needed out of reach  ┌─────────┐  │
//!            └─────────────────────────────►│ Failed  │──┘
//!                                           └─────────┘
//! ```
//!
//! Dynamo §4.5: "if at least W−1 nodes respond then the write is considered successful"; the
//! coordinator is the first of the W.

/// What a tally says after an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Not enough yet, and still possible.
    Waiting,
    /// Just now the last needed node acknowledged.
    Reached,
    /// Just now too few are left.
    Failed,
    /// The verdict was told at an earlier event.
    Settled,
}

/// Counts acknowledgements of one write by replica index (0 to 15).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tally {
    candidates: u16,
    acked: u16,
    /// Candidates that neither acknowledged nor were lost.
    open: u16,
    needed: u8,
    settled: bool,
}

impl Tally {
    /// Waits for `needed` of the replicas whose bits are set in `candidates`. If they are fewer
    /// than that, the first event answers [`Verdict::Failed`].
    pub const fn new(candidates: u16, needed: u8) -> Tally {
        assert!(needed > 0, "a write that nobody needs to have");
        Tally { candidates, acked: 0, open: candidates, needed, settled: false }
    }

    /// Replica `index` has the write. A node that was given up and acknowledges after all counts:
    /// it has it. One that is no candidate does not.
    pub fn ack(&mut self, index: usize) -> Verdict {
        let bit = self.bit(index);
        self.acked |= bit;
        self.open &= !bit;
        self.judge()
    }

    /// No acknowledgement is to be expected from replica `index`. One it already gave stands.
    pub fn lost(&mut self, index: usize) -> Verdict {
        self.open &= !self.bit(index);
        self.judge()
    }

    fn bit(&self, index: usize) -> u16 {
        1u16.checked_shl(index as u32).unwrap_or(0) & self.candidates
    }

    fn judge(&mut self) -> Verdict {
        if self.settled {
            return Verdict::Settled;
        }
        let (acked, needed) = (self.acked.count_ones(), u32::from(self.needed));
        self.settled = true;
        if acked >= needed {
            Verdict::Reached
        } else if acked + self.open.count_ones() < needed {
            Verdict::Failed
        } else {
            self.settled = false;
            Verdict::Waiting
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// What really happened, counted the slow way.
    #[derive(Clone, Default, PartialEq, Eq, Hash)]
    struct Told {
        acked: Vec<usize>,
        lost: Vec<usize>,
        over: bool,
    }

    impl Told {
        fn expect(&mut self, ack: bool, index: usize, n: usize, needed: usize) -> Verdict {
            let list = if ack { &mut self.acked } else { &mut self.lost };
            if index < n && !list.contains(&index) {
                list.push(index);
                list.sort_unstable();
            }
            let hopeful =
                (0..n).filter(|i| self.acked.contains(i) || !self.lost.contains(i)).count();
            let verdict = match () {
                () if self.over => Verdict::Settled,
                () if self.acked.len() >= needed => Verdict::Reached,
                () if hopeful < needed => Verdict::Failed,
                () => Verdict::Waiting,
            };
            self.over |= verdict != Verdict::Waiting;
            verdict
        }
    }

    fn walk(
        tally: Tally,
        told: Told,
        n: usize,
        needed: usize,
        seen: &mut HashSet<(Vec<usize>, Vec<usize>, bool)>,
    ) {
        if !seen.insert((told.acked.clone(), told.lost.clone(), told.over)) {
            return;
        }
        // Index `n` is a stranger; indices already told are duplicates.
        for index in 0..=n {
            for ack in [true, false] {
                let (mut tally, mut told) = (tally, told.clone());
                let got = if ack { tally.ack(index) } else { tally.lost(index) };
                assert_eq!(got, told.expect(ack, index, n, needed), "n={n} needed={needed}");
                walk(tally, told, n, needed, seen);
            }
        }
    }

    /// Every state that any order of acknowledgements, losses and duplicates can lead to, and
    /// every event in it.
    #[test]
    fn every_order_of_every_event_is_judged_right() {
        for n in 1..=5 {
            for needed in 1..=n + 1 {
                let tally = Tally::new((1 << n) - 1, needed as u8);
                walk(tally, Told::default(), n, needed, &mut HashSet::new());
            }
        }
    }

    #[test]
    fn candidates_need_not_be_the_first() {
        let mut tally = Tally::new(0b1000_0000_0000_0101, 2);
        assert_eq!(tally.ack(1), Verdict::Waiting);
        assert_eq!(tally.ack(15), Verdict::Waiting);
        assert_eq!(tally.ack(99), Verdict::Waiting);
        assert_eq!(tally.ack(0), Verdict::Reached);
    }

    #[test]
    fn a_tally_is_a_word() {
        assert!(size_of::<Tally>() <= 8);
    }
}
