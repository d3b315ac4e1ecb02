//! A judge of histories: is there an order of these commands that explains every answer?
//!
//! The search of Wing and Gong with Lowe's memory of configurations ("Testing for
//! linearizability", 2017) for one register. Walking the calls and returns in the order of their
//! moments, it takes a call that could come next, and goes on; at a return whose command it has
//! not taken yet it goes back. A set of taken commands with the same resulting value is never
//! tried twice.
//!
//! ```text
//!  a  |--SET 1--|                 legal:   SET 1, GET→1, GET→2 …  only if SET 2 lies between
//!  b        |----SET 2- - - - -   pending: may have happened at any moment from its call on, or never
//!  c             |-GET→1-| |-GET→2-|
//! ```

use std::collections::{HashMap, HashSet};

/// A value that was written; a test writes no value twice.
pub(crate) type Written = u64;

/// What a command did or saw. `None` is "no such key".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Act {
    Write(Option<Written>),
    Read(Option<Written>),
}

/// One command of a history. Moments are nanoseconds on one clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) act: Act,
    /// Before the request was sent.
    pub(crate) call: u64,
    /// After the reply was read; `None` when nobody knows whether it happened.
    pub(crate) returned: Option<u64>,
}

/// Whether some order of `events` that keeps every "returned before the other was called"
/// explains every read, beginning with no key.
pub(crate) fn is_linearizable(events: &[Event]) -> bool {
    Search::new(&relevant(events)).run()
}

/// Drops what cannot matter: reads that never returned, and writes nobody is sure of whose
/// value was never read (leaving such a write out of an order explains the same answers). A value
/// that was read had been written by then, whether or not its writer was told: such a write
/// counts as returned at the latest with the first read of it, which keeps the search narrow.
fn relevant(events: &[Event]) -> Vec<Event> {
    let mut first_read: HashMap<Option<Written>, u64> = HashMap::new();
    for event in events {
        if let (Act::Read(value), Some(returned)) = (event.act, event.returned) {
            let first = first_read.entry(value).or_insert(returned);
            *first = returned.min(*first);
        }
    }
    let narrowed = |event: &Event| match event.act {
        Act::Read(_) => event.returned.map(|_| *event),
        Act::Write(value) => match (event.returned, first_read.get(&value)) {
            (None, None) => None,
            // Keys may be deleted many times: which deletion a read saw, nobody knows.
            (_, Some(_)) if value.is_none() => Some(*event),
            (returned, Some(&read)) => {
                Some(Event { returned: Some(returned.map_or(read, |at| at.min(read))), ..*event })
            }
            (Some(_), None) => Some(*event),
        },
    };
    events.iter().filter_map(narrowed).collect()
}

/// A place in the line of moments.
#[derive(Clone, Copy, Debug)]
enum Mark {
    Head,
    Call(usize),
    Return,
}

/// The line is doubly linked so that taking a command and giving it back are a few stores.
struct Search {
    acts: Vec<Act>,
    marks: Vec<Mark>,
    next: Vec<usize>,
    prev: Vec<usize>,
    /// Where in the line a command returns; `None` while pending.
    returns: Vec<Option<usize>>,
    /// Returns still in the line.
    owed: usize,
    /// The set of taken commands as the XOR of their random names: a set costs 16 bytes however
    /// long the history is, and two sets meet by chance once in 2^64 sets.
    taken: u128,
    value: Option<Written>,
}

/// The place after the last.
const END: usize = usize::MAX;

impl Search {
    fn new(events: &[Event]) -> Search {
        let mut moments: Vec<(u64, bool, usize)> = Vec::new();
        for (op, event) in events.iter().enumerate() {
            moments.push((event.call, false, op));
            moments.extend(event.returned.map(|at| (at, true, op)));
        }
        // At one moment calls come before returns: such commands count as concurrent.
        moments.sort_unstable();
        let mut marks = vec![Mark::Head];
        let mut returns = vec![None; events.len()];
        for &(_, is_return, op) in &moments {
            if is_return {
                returns[op] = Some(marks.len());
            }
            marks.push(if is_return { Mark::Return } else { Mark::Call(op) });
        }
        let last = marks.len() - 1;
        Search {
            acts: events.iter().map(|event| event.act).collect(),
            next: (0..marks.len()).map(|at| if at == last { END } else { at + 1 }).collect(),
            prev: (0..marks.len()).map(|at| at.saturating_sub(1)).collect(),
            owed: returns.iter().flatten().count(),
            taken: 0,
            value: None,
            returns,
            marks,
        }
    }

    fn run(mut self) -> bool {
        let mut tried: HashSet<(u128, Option<Written>)> = HashSet::new();
        let mut path: Vec<(usize, Option<Written>)> = Vec::new();
        let mut at = self.next[0];
        while self.owed > 0 {
            if let Some(value) = self.value_after(at) {
                let Mark::Call(op) = self.marks[at] else { unreachable!("only a call has one") };
                self.taken ^= name(op);
                if tried.insert((self.taken, value)) {
                    path.push((at, self.value));
                    self.value = value;
                    self.lift(at, op);
                    at = self.next[0];
                    continue;
                }
                self.taken ^= name(op);
            }
            if at != END && !matches!(self.marks[at], Mark::Return) {
                at = self.next[at];
                continue;
            }
            // A return is due before its command was taken: an earlier choice was wrong.
            let Some((back, value)) = path.pop() else { return false };
            let Mark::Call(op) = self.marks[back] else { unreachable!("only calls are taken") };
            self.value = value;
            self.taken ^= name(op);
            self.unlift(back, op);
            at = self.next[back];
        }
        true
    }

    /// The register after the command called at `at`, if it is a call that may come next.
    fn value_after(&self, at: usize) -> Option<Option<Written>> {
        match (at != END).then(|| self.marks[at])? {
            Mark::Call(op) => match self.acts[op] {
                Act::Write(value) => Some(value),
                Act::Read(value) => (value == self.value).then_some(value),
            },
            Mark::Head | Mark::Return => None,
        }
    }

    fn lift(&mut self, call: usize, op: usize) {
        self.unlink(call);
        if let Some(place) = self.returns[op] {
            self.unlink(place);
            self.owed -= 1;
        }
    }

    fn unlift(&mut self, call: usize, op: usize) {
        if let Some(place) = self.returns[op] {
            self.relink(place);
            self.owed += 1;
        }
        self.relink(call);
    }

    fn unlink(&mut self, place: usize) {
        let (prev, next) = (self.prev[place], self.next[place]);
        self.next[prev] = next;
        if next != END {
            self.prev[next] = prev;
        }
    }

    fn relink(&mut self, place: usize) {
        let (prev, next) = (self.prev[place], self.next[place]);
        self.next[prev] = place;
        if next != END {
            self.prev[next] = place;
        }
    }
}

/// A number that no other command has: two rounds of SplitMix64 over its index.
fn name(op: usize) -> u128 {
    let half = |seed: u64| {
        let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let op = op as u64;
    (u128::from(half(2 * op + 1)) << 64) | u128::from(half(2 * op + 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(value: impl Into<Option<Written>>, call: u64, returned: u64) -> Event {
        Event { act: Act::Write(value.into()), call, returned: Some(returned) }
    }

    fn read(value: impl Into<Option<Written>>, call: u64, returned: u64) -> Event {
        Event { act: Act::Read(value.into()), call, returned: Some(returned) }
    }

    fn maybe(value: impl Into<Option<Written>>, call: u64) -> Event {
        Event { act: Act::Write(value.into()), call, returned: None }
    }

    #[test]
    fn accepts_what_one_order_explains() {
        for history in [
            vec![],
            vec![read(None, 0, 1)],
            vec![write(1, 0, 1), read(1, 2, 3), write(None, 4, 5), read(None, 6, 7)],
            // Concurrent with the write: before or after, and once seen it stays seen.
            vec![write(1, 0, 10), read(None, 1, 2), read(1, 3, 4), read(1, 5, 6)],
            // Two writes at once, read in an order that is not the order of their calls.
            vec![write(1, 0, 10), write(2, 1, 10), read(2, 2, 3), read(1, 4, 5)],
            // A write without an answer: happened late, or never.
            vec![write(1, 0, 1), maybe(2, 2), read(1, 3, 4), read(2, 50, 51)],
            vec![write(1, 0, 1), maybe(2, 2), read(1, 3, 4), read(1, 50, 51)],
            vec![write(1, 0, 1), maybe(None, 2), read(1, 3, 4), read(None, 5, 6)],
            // Touching moments are concurrent.
            vec![write(1, 0, 5), read(None, 5, 6)],
        ] {
            assert!(is_linearizable(&history), "{history:?}");
        }
    }

    #[test]
    fn rejects_what_no_order_explains() {
        for history in [
            vec![read(1, 0, 1)],
            vec![write(1, 0, 1), read(None, 2, 3)],
            vec![write(1, 0, 1), write(2, 2, 3), read(1, 4, 5)],
            // New, then old: the classic inversion of reads during one write.
            vec![write(1, 0, 10), read(1, 1, 2), read(None, 3, 4)],
            vec![write(1, 0, 10), write(2, 0, 10), read(1, 11, 12), read(2, 13, 14)],
            vec![read(1, 0, 1), write(1, 2, 3)],
            // A pending write cannot happen before it was called, nor happen twice.
            vec![read(2, 0, 1), maybe(2, 2)],
            vec![write(1, 0, 1), maybe(2, 2), read(2, 3, 4), read(1, 5, 6)],
            vec![maybe(2, 0), read(2, 1, 2), write(1, 3, 4), read(1, 5, 6), read(2, 7, 8)],
            // Deleted and back.
            vec![write(1, 0, 1), write(None, 2, 3), read(None, 4, 5), read(1, 6, 7)],
        ] {
            assert!(!is_linearizable(&history), "{history:?}");
        }
    }

    /// A random run of a true register, its commands spread around the moment they took effect.
    fn honest(seed: u64, len: u64) -> Vec<Event> {
        let mut chance = seed;
        let mut draw = |below: u64| {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (chance >> 33) % below
        };
        let mut value = None;
        (0..len)
            .map(|i| {
                let (at, before, after) = (100 * i + 1_000, draw(250), draw(250));
                let act = match draw(5) {
                    0..2 => Act::Write(Some(i)),
                    2 => Act::Write(None),
                    _ => Act::Read(value),
                };
                if let Act::Write(new) = act {
                    value = new;
                }
                let is_known = matches!(act, Act::Read(_)) || draw(20) > 0;
                Event { act, call: at - before, returned: is_known.then_some(at + after) }
            })
            .collect()
    }

    #[test]
    fn a_true_register_passes_and_a_forged_answer_does_not() {
        let mut forged = 0;
        for seed in 1..40 {
            let mut history = honest(seed, 250);
            assert!(is_linearizable(&history), "seed {seed}");
            // Let the last read see the first value ever written and long since overwritten.
            let first = history.iter().find_map(|event| match event.act {
                Act::Write(Some(value)) if event.returned.is_some() => Some(value),
                _ => None,
            });
            let last = history.iter_mut().rev().find(|e| matches!(e.act, Act::Read(_))).unwrap();
            last.act = Act::Read(first);
            assert!(!is_linearizable(&history), "seed {seed}");
            forged += 1;
        }
        assert_eq!(forged, 39);
    }
}
