//! The members of a sorted set by score, then by name: which place a member has, and who is there.
//!
//! ```text
//! run   { score f64 little-endian │ name, varint-prefixed } …   in order
//! ```

use std::cmp::Ordering;

use crate::base::wire::Put;

use super::rows::{Rows, Run, Spot};

/// A run is cut in two beyond this.
const RUN_SIZE_MAX: usize = 512;

/// Runs are made this large where many are made at once.
const RUN_SIZE_MADE: usize = 384;

/// A run smaller than this is joined to its neighbour.
const RUN_SIZE_MIN: usize = 96;

#[derive(Clone, Debug, Default)]
struct Scores {
    bytes: Vec<u8>,
    count: u32,
    /// The first one's.
    first: f64,
}

impl Run for Scores {
    fn count(&self) -> usize {
        self.count as usize
    }
}

impl Scores {
    fn items(&self) -> Items<'_> {
        Items(&self.bytes)
    }

    fn push(&mut self, score: f64, name: &[u8]) {
        if self.count == 0 {
            self.first = score;
        }
        self.bytes.put(&score.to_le_bytes());
        self.bytes.put_bytes(name);
        self.count += 1;
    }

    fn first_name(&self) -> &[u8] {
        self.items().next().map_or(&[], |(_, name)| name)
    }
}

struct Items<'a>(&'a [u8]);

impl<'a> Iterator for Items<'a> {
    type Item = (f64, &'a [u8]);

    fn next(&mut self) -> Option<(f64, &'a [u8])> {
        let (score, rest) = self.0.split_first_chunk()?;
        let (mut len, mut shift, mut at) = (0, 0, 0);
        loop {
            let byte = rest[at];
            at += 1;
            len |= usize::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                break;
            }
            shift += 7;
        }
        let (name, rest) = rest[at..].split_at(len);
        self.0 = rest;
        Some((f64::from_le_bytes(*score), name))
    }
}

/// The order of a sorted set. Scores are never NaN, and the two zeros are one score.
pub(in crate::value) fn order(a: (f64, &[u8]), b: (f64, &[u8])) -> Ordering {
    a.0.partial_cmp(&b.0).unwrap_or(Ordering::Equal).then_with(|| a.1.cmp(b.1))
}

/// A sorted set's order. See the head of this file.
#[derive(Clone, Debug)]
pub(super) struct Ranks {
    rows: Rows<Scores>,
    /// Bytes that all runs hold.
    held: usize,
}

impl Ranks {
    /// Of these members, which are in order.
    pub(super) fn of<'a>(members: impl Iterator<Item = (f64, &'a [u8])>) -> Ranks {
        let (mut runs, mut run, mut held) = (Vec::new(), Scores::default(), 0);
        for (score, name) in members {
            if run.bytes.len() >= RUN_SIZE_MADE {
                held += run.bytes.len();
                runs.push(std::mem::take(&mut run));
            }
            run.push(score, name);
        }
        held += run.bytes.len();
        runs.push(run);
        Ranks { rows: Rows::of_many(runs), held }
    }

    /// The run in which a member is, or would be.
    fn spot(&self, score: f64, name: &[u8]) -> Spot {
        self.rows.find(|run| match run.first.partial_cmp(&score) {
            Some(Ordering::Less) => true,
            Some(Ordering::Equal) => run.first_name() <= name,
            _ => false,
        })
    }

    /// How many members come before that score and name.
    pub(super) fn rank(&self, score: f64, name: &[u8]) -> usize {
        let spot = self.spot(score, name);
        let less = |item: &(f64, &[u8])| order(*item, (score, name)) == Ordering::Less;
        self.rows.before(spot) + self.rows.run(spot).items().take_while(less).count()
    }

    /// How many members come before the first for which `is_below` is false.
    pub(super) fn count_below(&self, is_below: impl Fn(f64, &[u8]) -> bool) -> usize {
        let spot = self.rows.find(|run| run.count > 0 && is_below(run.first, run.first_name()));
        let below = |(score, name): &(f64, &[u8])| is_below(*score, name);
        self.rows.before(spot) + self.rows.run(spot).items().take_while(below).count()
    }

    /// Takes in a member that is not there.
    pub(super) fn insert(&mut self, score: f64, name: &[u8]) {
        let spot = self.spot(score, name);
        let run = self.rows.run(spot);
        let mut item = Vec::with_capacity(10 + name.len());
        item.put(&score.to_le_bytes());
        item.put_bytes(name);
        self.held += item.len();
        let mut at = 0;
        let mut items = run.items();
        while let Some(next) = items.next() {
            if order(next, (score, name)) == Ordering::Greater {
                break;
            }
            at = run.bytes.len() - items.0.len();
        }
        self.rows.change(spot, |run| {
            run.bytes.splice(at..at, item);
            run.count += 1;
            if at == 0 {
                run.first = score;
            }
        });
        if self.rows.run(spot).bytes.len() > RUN_SIZE_MAX && self.rows.run(spot).count > 1 {
            self.split(spot, at);
        }
    }

    /// Cuts a run in two; where it grew at its end, so that a growing set fills its runs.
    fn split(&mut self, spot: Spot, grew_at: usize) {
        let run = self.rows.run(spot);
        let half = if grew_at * 8 > run.bytes.len() * 7 {
            run.bytes.len() * 7 / 8
        } else {
            run.bytes.len() / 2
        };
        let (mut left, mut right) = (Scores::default(), Scores::default());
        for (score, name) in run.items() {
            let full = left.bytes.len() >= half && left.count > 0;
            let into = if full { &mut right } else { &mut left };
            into.push(score, name);
        }
        let both = [left, right];
        self.rows.replace(spot, both.into_iter().filter(|run| run.count > 0));
    }

    /// Takes out a member that is there with that score.
    pub(super) fn remove(&mut self, score: f64, name: &[u8]) {
        let spot = self.spot(score, name);
        let run = self.rows.run(spot);
        let (mut at, mut end) = (0, None);
        let mut items = run.items();
        while let Some(item) = items.next() {
            let after = run.bytes.len() - items.0.len();
            if order(item, (score, name)) == Ordering::Equal {
                end = Some(after);
                break;
            }
            at = after;
        }
        let end = end.expect("whoever is taken out is in");
        self.held -= end - at;
        self.rows.change(spot, |run| {
            run.bytes.drain(at..end);
            run.count -= 1;
            run.first = run.items().next().map_or(0.0, |(score, _)| score);
            if run.bytes.capacity() > 2 * run.bytes.len() + 64 {
                run.bytes.shrink_to_fit();
            }
        });
        self.mend(spot);
    }

    /// Lets a run go that holds next to nothing.
    fn mend(&mut self, spot: Spot) {
        let run = self.rows.run(spot);
        if run.bytes.len() >= RUN_SIZE_MIN || self.rows.only().is_some() {
            return;
        }
        if run.count == 0 {
            return self.rows.replace(spot, []);
        }
        let Some(next) = self.rows.next(spot) else { return };
        if run.bytes.len() + self.rows.run(next).bytes.len() < RUN_SIZE_MADE {
            let mut both = run.clone();
            let next_run = self.rows.run(next);
            both.bytes.extend_from_slice(&next_run.bytes);
            both.count += next_run.count;
            self.rows.replace(next, []);
            self.rows.replace(spot, [both]);
        }
    }

    /// The members from a place on, in order.
    pub(super) fn from(&self, place: usize) -> impl Iterator<Item = (f64, &[u8])> {
        let mut next = self.rows.at(place);
        let mut items = Items(&[]);
        std::iter::from_fn(move || {
            loop {
                if let Some(item) = items.next() {
                    return Some(item);
                }
                let (spot, skip) = next?;
                items = self.rows.run(spot).items();
                for _ in 0..skip {
                    items.next();
                }
                next = self.rows.next(spot).map(|spot| (spot, 0));
            }
        })
    }

    /// The members before a place, from the last to the first.
    pub(super) fn back_from(&self, place: usize) -> impl Iterator<Item = (f64, &[u8])> {
        let mut next = place.checked_sub(1).and_then(|last| self.rows.at(last));
        let mut items: Vec<(f64, &[u8])> = Vec::new();
        std::iter::from_fn(move || {
            loop {
                if let Some(item) = items.pop() {
                    return Some(item);
                }
                let (spot, last) = next?;
                items.extend(self.rows.run(spot).items().take(last.saturating_add(1)));
                next = self.rows.previous(spot).map(|spot| (spot, usize::MAX - 1));
            }
        })
    }

    /// Heap bytes, about: runs are never less than half full of what they have room for.
    pub(super) fn memory(&self) -> usize {
        self.held + self.held / 4 + self.rows.memory()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn is_a_sorted_list(
            steps in proptest::collection::vec((0u16..600, 0i8..5, any::<bool>()), 0..2_500),
        ) {
            let mut ranks = Ranks::of(std::iter::empty());
            let mut list: Vec<(f64, Vec<u8>)> = Vec::new();
            for (number, score, puts) in steps {
                let (score, name) = (f64::from(score), format!("member {number}").into_bytes());
                let place = list.iter().position(|(_, held)| *held == name);
                if let Some(place) = place {
                    let (old, _) = list.remove(place);
                    ranks.remove(old, &name);
                }
                if puts {
                    let at = list.partition_point(|(s, n)| order((*s, n), (score, &name)).is_lt());
                    prop_assert_eq!(ranks.rank(score, &name), at);
                    list.insert(at, (score, name.clone()));
                    ranks.insert(score, &name);
                }
            }
            let all: Vec<_> = ranks.from(0).map(|(s, n)| (s, n.to_vec())).collect();
            prop_assert_eq!(&all, &list);
            let half = list.len() / 2;
            let back: Vec<_> = ranks.back_from(half).map(|(s, n)| (s, n.to_vec())).collect();
            prop_assert_eq!(back, list[..half].iter().rev().cloned().collect::<Vec<_>>());
            let from: Vec<_> = ranks.from(half).map(|(s, n)| (s, n.to_vec())).collect();
            prop_assert_eq!(from, list[half..].to_vec());
            for bound in -1..6 {
                let below = list.partition_point(|(score, _)| *score < f64::from(bound));
                prop_assert_eq!(ranks.count_below(|score, _| score < f64::from(bound)), below);
            }
            prop_assert_eq!(ranks.held, ranks.rows.iter().map(|run| run.bytes.len()).sum::<usize>());
        }
    }
}
