//! Parts of two replicas of a large collection, against the join of the two whole.

use std::borrow::Cow;

use proptest::prelude::*;

use crate::base::hash::Digest;
use crate::base::id::Actor;
use crate::base::time::UnixMs;
use crate::value::change::{Amount, Change, Edit};
use crate::value::record::{Record, decode, encode_part};
use crate::value::simulation::Dice;

use super::*;

const SEED: HashSeed = HashSeed(3);
const KEY: u64 = 9;
const NOW: UnixMs = UnixMs(1_000);

/// What is done wrong.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Mutant {
    None,
    /// The part claims what its sender knows when it is made.
    LaterContext,
    /// The part claims nothing but what it tells.
    NoContext,
    /// The receiver does not look whether it has forgotten something.
    NoBase,
    /// What is missing of the ranges is left as it is.
    NoRanges,
}

/// Two replicas, and what they have not told each other yet.
struct Pair {
    dice: Dice,
    kind: Kind,
    clock: u64,
    replicas: [Entry; 2],
    /// To whom, and what.
    late: Vec<(usize, Vec<u8>)>,
}

impl Pair {
    /// Both begin with the same elements, enough for many leaves.
    fn new(seed: u64, kind: Kind) -> Pair {
        let (dice, replicas) = (Dice(seed), [Entry::new(), Entry::new()]);
        let mut pair = Pair { dice, kind, clock: 0, replicas, late: Vec::new() };
        let edits: Vec<_> = (0..400).map(|n| pair.set(n)).collect();
        let mut first = Entry::new();
        first.order_by(SEED);
        first.apply(&Change::edit(kind, edits), pair.dot(0), NOW).expect("applies");
        pair.replicas = [first.clone(), first];
        pair
    }

    fn dot(&mut self, at: usize) -> Dot {
        self.clock += 1_000;
        Dot::new(Hlc(self.clock), Actor(at as u32 + 1))
    }

    fn set(&self, n: u64) -> Edit<'static> {
        let name = format!("field number {n}").into_bytes();
        match self.kind {
            Kind::List => Edit::PushRight(Cow::Owned(name)),
            Kind::Zset => Edit::score(name, n as f64),
            Kind::Set => Edit::member(name),
            _ => Edit::field(name, n.to_string().into_bytes()),
        }
    }

    fn edit(&mut self, len: usize) -> Edit<'static> {
        let n = self.dice.roll(600);
        let name = Cow::Owned(format!("field number {n}").into_bytes());
        let place = n as usize % len.max(1);
        match (self.kind, self.dice.roll(4)) {
            (Kind::List, 0) if len > 0 => Edit::RemoveRange { place, count: 1 },
            (Kind::List, 1) => Edit::Insert { place, value: name },
            (Kind::List, 2) if len > 0 => Edit::SetAt { place, value: name },
            (Kind::Zset | Kind::Hash, 0) => Edit::Add { name, amount: Amount::Int(7) },
            (Kind::Hash | Kind::Set | Kind::Zset, 1 | 2) => Edit::Remove { name },
            _ => self.set(n),
        }
    }

    /// One of the two writes; the other one hears of it, at once, later or never.
    fn write(&mut self) {
        let at = self.dice.roll(2) as usize;
        let len = self.replicas[at].body(self.kind).map_or(0, Body::len);
        let change = match self.dice.roll(40) {
            0 => Change::Expire(Some(UnixMs(5_000 + self.clock))),
            1 if self.dice.roll(8) == 0 => Change::Delete,
            _ => Change::edit(self.kind, [self.edit(len)]),
        };
        let dot = self.dot(at);
        let Ok(delta) = self.replicas[at].apply(&change, dot, NOW) else { return };
        let mut bytes = Vec::new();
        match delta.decoded() {
            crate::value::apply::Delta::Fragment(fragment) => {
                crate::value::record::encode_delta(&mut bytes, b"k", &fragment);
            }
            _ => crate::value::record::encode_whole(&mut bytes, b"k", &self.replicas[at]),
        }
        match self.dice.roll(3) {
            0 => self.tell(1 - at, &bytes),
            1 => self.late.push((1 - at, bytes)),
            _ => {}
        }
        if self.dice.roll(4) == 0 && !self.late.is_empty() {
            let nth = self.dice.roll(self.late.len() as u64) as usize;
            let (to, bytes) = self.late.swap_remove(nth);
            self.tell(to, &bytes);
        }
    }

    fn tell(&mut self, to: usize, bytes: &[u8]) {
        let (_, record) = decode(bytes).expect("a record");
        self.replicas[to].order_by(SEED);
        record.join_into(&mut self.replicas[to]);
        self.replicas[to].order_by(SEED);
    }

    fn reach(&self, at: usize, range: &RangeInclusive<u64>, limit: usize) -> Reach {
        self.replicas[at].reach((SEED, KEY), self.kind, range, limit)
    }

    fn sum(&self, at: usize, range: &RangeInclusive<u64>) -> Digest {
        self.reach(at, range, usize::MAX).sum
    }

    /// The ranges in which the two differ, first cut coarsely and then finely; both write meanwhile,
    /// if they do.
    fn differing(&mut self, writes: u64) -> Vec<RangeInclusive<u64>> {
        let mut ranges = vec![0..=u64::MAX];
        for limit in [100, 1] {
            let mut finer = Vec::new();
            for range in ranges {
                let mut from = Some(*range.start());
                while let Some(start) = from {
                    let rest = start..=*range.end();
                    let reach = self.reach(0, &rest, limit);
                    from = reach.next;
                    let piece = start..=from.map_or(*rest.end(), |next| next - 1);
                    (0..self.dice.roll(writes + 1)).for_each(|_| self.write());
                    if self.sum(1, &piece) != reach.sum {
                        finer.push(piece);
                    }
                }
            }
            ranges = finer;
        }
        ranges
    }

    fn joined(&self) -> Entry {
        let mut joined = self.replicas[0].clone();
        joined.join(&self.replicas[1]);
        joined
    }

    /// What goes wrong in one exchange, if anything does.
    fn exchange(&mut self, writes: u64, forgets: bool, mutant: Mutant) -> Result<(), String> {
        let known = self.replicas.each_ref().map(|entry| entry.context().clone());
        let ranges = self.differing(writes);
        let parts: Vec<Part> = (0..2)
            .map(|at| {
                let other = known[1 - at].clone();
                let part = self.replicas[at].part(self.kind, ranges.clone(), &known[at], other);
                match mutant {
                    Mutant::None => part,
                    Mutant::LaterContext => part.with(Some(self.replicas[at].context()), None),
                    Mutant::NoBase => part.with(None, Some(Context::new())),
                    Mutant::NoRanges => Part { ranges: Vec::new(), ..part },
                    Mutant::NoContext => {
                        let nothing = Context::new();
                        self.replicas[at].part(
                            self.kind,
                            ranges.clone(),
                            &nothing,
                            known[1 - at].clone(),
                        )
                    }
                }
            })
            .collect();
        (0..self.dice.roll(4 * writes + 1)).for_each(|_| self.write());
        let all = self.joined();
        if forgets {
            self.replicas[1] = Entry::new();
        }
        for (at, part) in parts.iter().rev().enumerate() {
            let mut bytes = Vec::new();
            encode_part(&mut bytes, b"k", part);
            let (_, record) = decode(&bytes).map_err(|error| format!("{error:?}"))?;
            if record != Record::Part(Box::new(part.clone())) || !record.verify() {
                return Err("a part does not come back".to_owned());
            }
            let Record::Part(read) = record else { unreachable!("compared") };
            let named = read.named(&self.replicas[at]);
            let before = self.replicas[at].clone();
            if self.replicas[at].join_part(&named) == forgets && at == 1 {
                return Err("a part was taken, or not".to_owned());
            }
            let mut again = before;
            again.join_part(&read);
            again.join_part(&read);
            if again != self.replicas[at] {
                return Err("ranges and names, once and twice, are not the same".to_owned());
            }
        }
        let after = self.joined();
        if after.live_dots() != all.live_dots() || after.context() != all.context() {
            return Err("something came or went".to_owned());
        }
        if writes > 0 || forgets {
            return Ok(());
        }
        let digests = self.replicas.each_ref().map(|entry| entry.state_digest(SEED, KEY));
        if self.replicas[0] != all || self.replicas[1] != all || digests[0] != digests[1] {
            return Err("the two are not the same".to_owned());
        }
        Ok(())
    }
}

const KINDS: [Kind; 4] = [Kind::Hash, Kind::List, Kind::Set, Kind::Zset];

fn run(seed: u64, writes: u64, forgets: bool, mutant: Mutant) -> Result<(), String> {
    let mut pair = Pair::new(seed, KINDS[seed as usize % 4]);
    let apart = pair.dice.roll(60);
    (0..apart).for_each(|_| pair.write());
    pair.exchange(writes, forgets, mutant)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn parts_of_what_differs_are_the_whole_join(seed: u64) {
        prop_assert_eq!(run(seed, 0, false, Mutant::None), Ok(()));
    }

    #[test]
    fn nothing_is_lost_while_both_write(seed: u64, writes in 1u64..4) {
        prop_assert_eq!(run(seed, writes, false, Mutant::None), Ok(()));
    }

    #[test]
    fn who_has_forgotten_takes_nothing(seed: u64) {
        prop_assert_eq!(run(seed, 0, true, Mutant::None), Ok(()));
    }

    #[test]
    fn garbage_is_no_part(bytes: Vec<u8>) {
        if let Ok(part) = Part::decode(&bytes) {
            let mut again = Vec::new();
            part.encode(&mut again);
            prop_assert_eq!(Part::decode(&again), Ok(part));
        }
    }
}

#[test]
fn every_rule_is_needed() {
    let found =
        |writes, forgets, mutant| (0..60).any(|seed| run(seed, writes, forgets, mutant).is_err());
    assert!(!found(2, false, Mutant::None));
    assert!(found(2, false, Mutant::LaterContext), "what was not told is taken for removed");
    assert!(found(0, false, Mutant::NoContext), "what was removed stays");
    assert!(found(0, true, Mutant::NoBase), "what was forgotten is taken for removed");
    assert!(found(0, false, Mutant::NoRanges), "what is gone is not noticed");
}

#[test]
fn one_field_of_many_travels_alone() {
    let mut pair = Pair::new(1, Kind::Hash);
    let dot = pair.dot(0);
    let change = Change::edit(Kind::Hash, [Edit::field(&b"field number 7"[..], &b"new"[..])]);
    pair.replicas[0].apply(&change, dot, NOW).expect("applies");
    let known = pair.replicas.each_ref().map(|entry| entry.context().clone());
    let ranges = pair.differing(0);
    let part = pair.replicas[0].part(Kind::Hash, ranges, &known[0], known[1].clone());
    let (mut bytes, mut whole) = (Vec::new(), Vec::new());
    part.encode(&mut bytes);
    pair.replicas[0].encode(&mut whole);
    assert!(bytes.len() < 1_000 && whole.len() > 9_000, "{} of {}", bytes.len(), whole.len());
}
