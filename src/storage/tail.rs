//! What a crash explains and what it does not: a torn tail, or damage.
//!
//! Frames are written front to back, segment after segment. A process that dies leaves them so: the
//! last frame may be cut off, and nothing is behind it. A machine that dies forgets any of what was
//! not synced, in any order; so bytes that are no frame are explained, unless a later Mark says that
//! they had been synced.
//!
//! ```text
//!  frame │ frame │ Mark: below 90 all is durable │ frame │ ▒▒▒▒▒ │ frame │ end
//!     ▒ here: damage                                         │
//!                                                            ├ the process died: damage
//!                                                            └ the machine died: torn, cut here
//! ```
//!
//! Segments are made durable in their order, so a Mark speaks for all segments before its own too:
//! a tail is torn in one of the youngest only, mostly the last. What comes after it goes with it.
//! After a clean shutdown nothing is explained.

use super::frame::Kind;
use super::life::Past;
use super::segment::read_mark;

/// What was seen in one segment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Sight {
    /// Where no frame is, rising; 0 if the head cannot be read.
    bad: Vec<u64>,
    /// Where the last whole frame begins; 0 if there is none.
    last_frame: u64,
    /// The most that a Mark says is durable; `None` if there is none. 0: what was before it.
    durable: Option<u64>,
    frames: u64,
    /// Where whole frames begin behind the first bad place.
    doubtful: Vec<u32>,
}

impl Sight {
    /// Nothing but the head, or not even that; or a segment that is not there at all.
    pub(super) fn new(has_head: bool) -> Sight {
        let bad = if has_head { Vec::new() } else { vec![0] };
        Sight { bad, ..Sight::default() }
    }

    /// Takes note that no frame begins at `at`, behind all that was seen so far.
    pub(super) fn note_bad(&mut self, at: u64) {
        self.bad.push(at);
    }

    /// Takes note of a whole frame that begins at `at`, behind all that was seen so far.
    pub(super) fn note(&mut self, at: u32, kind: Kind, payload: &[u8]) {
        self.frames += 1;
        if !self.bad.is_empty() {
            self.doubtful.push(at);
        }
        let at = u64::from(at);
        self.last_frame = at;
        if kind == Kind::Mark {
            // No Mark speaks of what comes after it.
            let durable = read_mark(payload).map(|durable| durable.min(at));
            self.durable = self.durable.max(durable);
        }
    }

    /// Whole frames.
    pub(super) fn frames(&self) -> u64 {
        self.frames
    }

    /// Whole frames that would go if the segment were cut at `at`, a bad place.
    pub(super) fn frames_behind(&self, at: u64) -> u64 {
        match at {
            0 => self.frames,
            _ => self.doubtful.iter().filter(|offset| u64::from(**offset) > at).count() as u64,
        }
    }

    fn has_head(&self) -> bool {
        self.bad.first() != Some(&0)
    }
}

/// What is known of a segment before it is walked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Outline {
    pub(super) number: u32,
    /// Its length.
    pub(super) len: u64,
    /// What length it says the segment before it has.
    pub(super) before: Option<u64>,
}

impl Outline {
    /// How long the segment was when `next` was begun, if that is longer than it is now.
    pub(super) fn was_longer(&self, next: &Outline) -> Option<u64> {
        let is_next = self.number + 1 == next.number;
        next.before.filter(|before| is_next && *before > self.len)
    }
}

/// What a crash left of a lane's segments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Left {
    /// So many of the oldest stay.
    pub(super) keep: usize,
    /// Where the last of these is to be cut.
    pub(super) cut_at: Option<u64>,
}

/// Finds the torn tail of a lane of these segments, oldest first. `look` is asked what is in one of
/// them, from the youngest back, while that matters.
pub(super) fn torn<E>(
    past: Past,
    segments: &[Outline],
    mut look: impl FnMut(usize) -> Result<Sight, E>,
) -> Result<Left, E> {
    let mut judge = Judge::new(past);
    let mut left = Left { keep: segments.len(), cut_at: None };
    for (index, segment) in segments.iter().enumerate().rev() {
        if judge.is_done() {
            break;
        }
        let mut sight = look(index)?;
        if segments.get(index + 1).is_some_and(|next| segment.was_longer(next).is_some()) {
            sight.note_bad(segment.len);
        }
        match judge.torn_at(&sight) {
            Some(0) => left = Left { keep: index, cut_at: None },
            Some(at) => {
                left = Left { keep: index + 1, cut_at: Some(at).filter(|at| *at < segment.len) };
            }
            None => {}
        }
        let is_gap = index > 0 && segments[index - 1].number + 1 < segment.number;
        if is_gap && judge.torn_at(&Sight::new(false)).is_some() {
            left = Left { keep: index, cut_at: None };
        }
    }
    Ok(left)
}

/// The judge of a lane, who goes from its youngest segment back to older ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Judge {
    past: Past,
    /// A younger segment had been begun.
    followed: bool,
    /// A younger segment says that all before it is durable.
    durable: bool,
}

impl Judge {
    fn new(past: Past) -> Judge {
        Judge { past, followed: false, durable: false }
    }

    /// Whether all that is wrong in older segments is damage: they need not be looked at.
    fn is_done(&self) -> bool {
        self.past.clean || self.durable || self.followed && !self.past.machine_restarted
    }

    /// Judges the next older segment: where it is torn, if it is. Then all that is younger is to be
    /// dropped with what comes after.
    fn torn_at(&mut self, sight: &Sight) -> Option<u64> {
        let is_damage = |at: u64| {
            let followed = self.followed || sight.last_frame > at;
            let durable = self.durable || sight.durable > Some(at);
            self.past.clean || durable || followed && !self.past.machine_restarted
        };
        let torn = sight.bad.iter().copied().find(|at| !is_damage(*at));
        self.followed |= sight.has_head();
        self.durable |= sight.durable.is_some();
        torn
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::segment::mark;

    const SIZE: u64 = 10;
    const PASTS: [Past; 4] = [
        Past { clean: false, machine_restarted: false },
        Past { clean: false, machine_restarted: true },
        Past { clean: true, machine_restarted: false },
        Past { clean: true, machine_restarted: true },
    ];

    /// One piece of a segment: its head is piece 0.
    #[derive(Clone, Copy, PartialEq, Debug)]
    enum Part {
        Bad,
        Good,
        /// All before this piece of the segment is durable.
        Mark(u64),
    }

    fn sight(parts: &[Part]) -> Sight {
        let mut sight = Sight::default();
        for (at, part) in (0..).step_by(SIZE as usize).zip(parts) {
            match part {
                Part::Bad => sight.note_bad(at.into()),
                Part::Good if at == 0 => {}
                Part::Good => sight.note(at, Kind::State, b""),
                Part::Mark(before) => sight.note(at, Kind::Mark, &mark(before * SIZE)),
            }
        }
        sight
    }

    /// Every segment of `len` parts.
    fn segments(len: usize) -> Vec<Vec<Part>> {
        let mut all = vec![vec![Part::Bad], vec![Part::Good]];
        for at in 1..len as u64 {
            all = all
                .into_iter()
                .flat_map(|parts| {
                    let marks = (0..=at).map(Part::Mark);
                    let next = [Part::Bad, Part::Good].into_iter().chain(marks);
                    next.map(move |part| [&parts[..], &[part]].concat())
                })
                .collect();
        }
        all
    }

    /// The rule, in the words of the head of this file, over all that is written of a lane.
    fn explained(past: Past, lane: &[&[Part]], segment: usize, at: usize) -> bool {
        let behind = lane[segment][at + 1..].iter().map(|part| (segment, part));
        let younger = (segment + 1..lane.len())
            .flat_map(|younger| lane[younger].iter().map(move |part| (younger, part)));
        let behind: Vec<_> = behind.chain(younger).collect();
        let begun = lane[segment + 1..].iter().any(|parts| parts[0] != Part::Bad);
        let follows = behind.iter().any(|(of, part)| *of == segment && **part != Part::Bad);
        let synced = behind.iter().any(|(of, part)| match part {
            Part::Mark(before) => *of > segment || *before > at as u64,
            _ => false,
        });
        match past {
            Past { clean: true, .. } => false,
            Past { machine_restarted: true, .. } => !synced,
            _ => !synced && !follows && !begun,
        }
    }

    fn expected(past: Past, lane: &[&[Part]], segment: usize) -> Option<u64> {
        let mut bad = (0..lane[segment].len()).filter(|at| lane[segment][*at] == Part::Bad);
        bad.find(|at| explained(past, lane, segment, *at)).map(|at| at as u64 * SIZE)
    }

    #[test]
    fn the_rule_holds_in_every_small_last_segment() {
        let mut tried = 0;
        for past in PASTS {
            for parts in (1..=6).flat_map(segments) {
                let torn = Judge::new(past).torn_at(&sight(&parts));
                assert_eq!(torn, expected(past, &[&parts], 0), "{past:?} {parts:?}");
                tried += 1;
            }
        }
        assert_eq!(tried, 4 * (2 + 8 + 40 + 240 + 1_680 + 13_440));
    }

    #[test]
    fn the_rule_holds_in_every_pair_of_small_segments() {
        let small: Vec<_> = (1..=4).flat_map(segments).collect();
        for past in PASTS {
            for younger in &small {
                let mut judge = Judge::new(past);
                judge.torn_at(&sight(younger));
                for older in &small {
                    let wanted = expected(past, &[older, younger], 0);
                    assert_eq!(
                        judge.clone().torn_at(&sight(older)),
                        wanted,
                        "{past:?} {older:?} {younger:?}"
                    );
                    assert!(!judge.is_done() || wanted.is_none(), "{past:?} {older:?} {younger:?}");
                }
            }
        }
    }

    #[test]
    fn a_lane_is_cut_at_its_oldest_torn_place_and_gaps_are_torn_places() {
        use Part::{Bad, Good, Mark};
        let crashed = Past { clean: false, machine_restarted: true };
        let left = |past, lane: &[(u32, &[Part])]| {
            let outline = |(number, parts): &(u32, &[Part])| Outline {
                number: *number,
                len: parts.len() as u64 * SIZE,
                before: None,
            };
            let segments: Vec<Outline> = lane.iter().map(outline).collect();
            let left = torn(past, &segments, |index| Ok::<_, ()>(sight(lane[index].1)));
            left.map(|Left { keep, cut_at }| (keep, cut_at.map(|at| at / SIZE))).unwrap()
        };
        assert_eq!(left(crashed, &[]), (0, None));
        assert_eq!(left(crashed, &[(1, &[Good, Bad])]), (1, Some(1)));
        assert_eq!(left(crashed, &[(1, &[Bad, Good])]), (0, None));
        let both: [(u32, &[Part]); 2] = [(1, &[Good, Good, Bad, Good]), (2, &[Good, Bad])];
        assert_eq!(left(crashed, &both), (1, Some(2)));
        assert_eq!(left(Past { clean: true, ..crashed }, &both), (2, None));
        assert_eq!(left(Past { machine_restarted: false, ..crashed }, &both), (2, Some(1)));
        let marked: [(u32, &[Part]); 2] = [(1, &[Good, Bad]), (2, &[Good, Mark(1), Bad])];
        assert_eq!(left(crashed, &marked), (2, Some(2)));
        assert_eq!(left(crashed, &[(1, &[Good]), (3, &[Good])]), (1, None));
        assert_eq!(left(crashed, &[(1, &[Good]), (3, &[Good, Mark(1)])]), (2, None));
    }

    #[test]
    fn a_segment_that_lost_its_end_at_a_frame_is_torn_there() {
        use Part::{Good, Mark};
        let left = |past, len: u64, younger: &[Part]| {
            let older = Outline { number: 1, len, before: None };
            let next = Outline { number: 2, len: 20, before: Some(30) };
            let look = |index| Ok::<_, ()>(sight([&[Good, Good], younger][index]));
            torn(past, &[older, next], look).map(|left| (left.keep, left.cut_at)).unwrap()
        };
        let crashed = Past { clean: false, machine_restarted: true };
        assert_eq!(left(crashed, 20, &[Good, Good]), (1, None));
        assert_eq!(left(crashed, 30, &[Good, Good]), (2, None));
        assert_eq!(left(crashed, 20, &[Good, Mark(1)]), (2, None));
        for past in PASTS {
            let kept = if past == crashed { 1 } else { 2 };
            assert_eq!(left(past, 20, &[Good, Good]), (kept, None), "{past:?}");
        }
    }

    #[test]
    fn frames_behind_a_cut_are_counted() {
        use Part::{Bad, Good};
        let sight = sight(&[Good, Good, Bad, Good, Bad, Good]);
        let behind = [0, 2, 4].map(|at| sight.frames_behind(at * SIZE));
        assert_eq!((sight.frames(), behind), (3, [3, 2, 1]));
    }

    /// A Mark that speaks of itself or of what follows is not believed that far.
    #[test]
    fn a_mark_cannot_speak_of_the_future() {
        let past = Past { clean: false, machine_restarted: true };
        let parts = [Part::Good, Part::Mark(9), Part::Bad, Part::Good];
        assert_eq!(Judge::new(past).torn_at(&sight(&parts)), Some(2 * SIZE));
    }
}
