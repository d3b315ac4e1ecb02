//! What a crash explains and what it does not: a torn tail, or damage.
//!
//! Frames are written front to back. A process that dies leaves them so: the last may be cut off,
//! and nothing is behind it. A machine that dies forgets any of what was not synced, in any order;
//! so bytes that are no frame are explained, unless a later Mark says that they had been synced.
//!
//! ```text
//!  frame │ frame │ Mark: below 90 all is durable │ frame │ ▒▒▒▒▒ │ frame │ end
//!     ▒ here: damage                                         │
//!                                                            ├ the process died: damage
//!                                                            └ the machine died: torn, cut here
//! ```
//!
//! That is a lane's last segment. In the others all is durable before the next begins, and all
//! that is wrong is damage, as it is after a clean shutdown.

use super::frame::Kind;
use super::life::Past;
use super::segment::read_mark;

/// What was seen in a lane's last segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Sight {
    /// Where the last whole frame begins.
    pub(super) last_frame: u64,
    /// The most that a Mark says is durable.
    pub(super) durable: u64,
}

impl Sight {
    /// Takes note of a whole frame that begins at `at`.
    pub(super) fn note(&mut self, at: u64, kind: Kind, payload: &[u8]) {
        self.last_frame = at;
        if kind == Kind::Mark {
            // No Mark speaks of what comes after it.
            let durable = read_mark(payload).unwrap_or(0).min(at);
            self.durable = self.durable.max(durable);
        }
    }
}

/// Whether bytes from `at` on that are no frame are damage, and not what a crash leaves.
pub(super) fn is_damage(past: Past, sight: Sight, at: u64) -> bool {
    let followed = sight.last_frame > at;
    past.clean || sight.durable > at || followed && !past.machine_restarted
}

/// Where a segment's torn tail begins, of the places `bad` (rising) where no frame is.
pub(super) fn torn_at(past: Past, sight: Sight, bad: &[u64]) -> Option<u64> {
    bad.iter().copied().find(|at| !is_damage(past, sight, *at))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every segment of up to five pieces, in every past: the rule in one line each.
    #[test]
    fn the_rule_holds_in_every_small_segment() {
        const SIZE: u64 = 10;
        let pasts = [(false, false), (false, true), (true, false), (true, true)];
        let mut tried = 0;
        for (clean, machine_restarted) in pasts {
            let past = Past { clean, machine_restarted };
            // Each piece is bad, a frame, or a Mark for what lies before piece 0 to 4.
            for code in 0..7u32.pow(5) {
                let pieces: Vec<u32> = (0..5).map(|at| code / 7u32.pow(at) % 7).collect();
                let mut sight = Sight::default();
                let mut bad = Vec::new();
                for (at, piece) in (0u64..).zip(&pieces) {
                    match piece {
                        0 => bad.push(at * SIZE),
                        1 => sight.last_frame = at * SIZE,
                        mark => {
                            sight.last_frame = at * SIZE;
                            let durable = u64::from(mark - 2).min(at) * SIZE;
                            sight.durable = sight.durable.max(durable);
                        }
                    }
                }
                let expected = (0..5usize).find(|&at| {
                    let frames_follow = pieces[at + 1..].iter().any(|piece| *piece != 0);
                    let synced = (at + 1..5).any(|later| {
                        let marked = (pieces[later] as usize).saturating_sub(2).min(later);
                        pieces[later] >= 2 && marked > at
                    });
                    let explained = match (clean, machine_restarted) {
                        (true, _) => false,
                        (false, false) => !frames_follow,
                        (false, true) => !synced,
                    };
                    pieces[at] == 0 && explained
                });
                let expected = expected.map(|at| at as u64 * SIZE);
                assert_eq!(torn_at(past, sight, &bad), expected, "{past:?} {pieces:?}");
                tried += 1;
            }
        }
        assert_eq!(tried, 4 * 16_807);
    }
}
