//! A checker for histories of one key: is there an order of the commands that respects real time
//! and in which every read sees the last write before it?
//!
//! Wing and Gong's search (1993) with Lowe's memory of states already tried (2017): a state is the
//! set of commands already placed and the value they leave. A write without an answer may have
//! happened at any time after it began, or not at all; a read without one says nothing.

use std::collections::HashSet;

/// Most commands of a history.
pub(crate) const HISTORY_MAX: usize = 128;

/// What a client did and, for a read, saw.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Did {
    Set(u32),
    Delete,
    Get(Option<u32>),
}

/// One command of a history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Command {
    pub(crate) did: Did,
    /// When the client sent it.
    pub(crate) began: u64,
    /// When the answer came, if one came.
    pub(crate) ended: Option<u64>,
}

impl Command {
    fn end(&self) -> u64 {
        self.ended.unwrap_or(u64::MAX)
    }
}

/// Whether `history` (at most [`HISTORY_MAX`] commands, on a key that begins absent) is linearizable.
pub(crate) fn is_linearizable(history: &[Command]) -> bool {
    assert!(history.len() <= HISTORY_MAX, "a history is a word of bits");
    let says = |c: &&Command| c.ended.is_some() || !matches!(c.did, Did::Get(_));
    let history: Vec<Command> = history.iter().filter(says).copied().collect();
    let answered = (0..history.len()).filter(|&i| history[i].ended.is_some());
    let must = answered.fold(0, |bits, i| bits | 1u128 << i);
    Search { history: &history, must, tried: HashSet::new() }.place(0, None)
}

struct Search<'a> {
    history: &'a [Command],
    /// The commands that were answered: all of them must find a place.
    must: u128,
    tried: HashSet<(u128, Option<u32>)>,
}

impl Search<'_> {
    /// Whether the commands not in `placed` can follow on a key that holds `value`.
    fn place(&mut self, placed: u128, value: Option<u32>) -> bool {
        if placed & self.must == self.must {
            return true;
        }
        if !self.tried.insert((placed, value)) {
            return false;
        }
        let open = |i: &usize| placed >> i & 1 == 0;
        let open: Vec<usize> = (0..self.history.len()).filter(open).collect();
        // Whoever began after another had ended comes after it.
        let first_end = open.iter().map(|&i| self.history[i].end()).min().unwrap_or(u64::MAX);
        open.into_iter().filter(|&i| self.history[i].began <= first_end).any(|i| {
            let after = match self.history[i].did {
                Did::Set(new) => Some(new),
                Did::Delete => None,
                Did::Get(seen) if seen == value => value,
                Did::Get(_) => return false,
            };
            self.place(placed | 1 << i, after)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn command(did: Did, began: u64, ended: u64) -> Command {
        Command { did, began, ended: (ended > 0).then_some(ended) }
    }

    /// By definition: some choice of the unanswered writes, in some order, fits.
    fn by_trying_everything(history: &[Command], placed: &mut Vec<usize>) -> bool {
        let fits = |order: &[usize]| {
            let mut value = None;
            let reads_fit = order.iter().all(|&i| match history[i].did {
                Did::Set(new) => {
                    value = Some(new);
                    true
                }
                Did::Delete => {
                    value = None;
                    true
                }
                Did::Get(seen) => seen == value,
            });
            let in_time = order.iter().enumerate().all(|(at, &i)| {
                order[at + 1..].iter().all(|&j| history[j].end() >= history[i].began)
            });
            reads_fit && in_time
        };
        let all = (0..history.len()).all(|i| placed.contains(&i) || history[i].ended.is_none());
        if all && fits(placed) {
            return true;
        }
        (0..history.len()).any(|i| {
            if placed.contains(&i) {
                return false;
            }
            placed.push(i);
            let found = by_trying_everything(history, placed);
            placed.pop();
            found
        })
    }

    fn histories() -> impl Strategy<Value = Vec<Command>> {
        let did = prop_oneof![
            (1u32..4).prop_map(Did::Set),
            Just(Did::Delete),
            prop::option::of(1u32..4).prop_map(Did::Get),
        ];
        let one = (did, 0u64..12, prop::option::weighted(0.85, 0u64..6));
        let one = one.prop_map(|(did, began, lasts)| {
            let ended = lasts.map(|ms| began + ms);
            // An unanswered read says nothing; the checker drops it.
            let ended = if matches!(did, Did::Get(_)) { ended.or(Some(began)) } else { ended };
            Command { did, began, ended }
        });
        prop::collection::vec(one, 0..6)
    }

    proptest! {
        #[test]
        fn it_agrees_with_the_definition(history in histories()) {
            let expected = by_trying_everything(&history, &mut Vec::new());
            prop_assert_eq!(is_linearizable(&history), expected);
        }
    }

    #[test]
    fn a_read_inversion_is_found_and_an_unanswered_write_is_forgiven() {
        let set = command(Did::Set(1), 1, 0);
        let saw = command(Did::Get(Some(1)), 2, 3);
        let missed = command(Did::Get(None), 4, 5);
        assert!(is_linearizable(&[set, missed]));
        assert!(is_linearizable(&[set, saw]));
        assert!(!is_linearizable(&[set, saw, missed]));
        let mute = Command { ended: None, ..missed };
        assert!(is_linearizable(&[set, saw, mute]));
    }
}
