//! Tests of HyperLogLogs: their forms, their estimate, and that no concurrent one is lost.

use std::collections::{BTreeSet, HashMap};

use proptest::prelude::*;

use crate::base::hash::HashSeed;
use crate::base::id::{Actor, Boot, NodeId};
use crate::base::time::{Dot, UnixMs};
use crate::resp::reply::Protocol;
use crate::value::change::{Change, Expire};
use crate::value::entry::Entry;
use crate::value::view::{View, Views};

use super::hyperloglog::{pfadd, pfcount, pfmerge};
use super::hyperloglog_sketch::{Form, Mark, Registers, Sketch, SketchError};
use super::model::ask;
use super::spec::Keyed;
use super::{dump, key, string};

/// The sketch of these numbers, from the beginning.
fn sketch_of(elements: impl IntoIterator<Item = u32>) -> Registers {
    let mut registers = Registers::new();
    for element in elements {
        registers.mark(Mark::of(element.to_string().as_bytes()));
    }
    registers
}

fn read(string: &[u8]) -> Registers {
    let mut registers = Registers::new();
    registers.merge(&Sketch::parse(string).expect("a sketch"));
    registers
}

proptest! {
    #[test]
    fn registers_read_back_in_both_forms(count in 0..2_000u32, first: u16) {
        let first = u32::from(first);
        let registers = sketch_of(first..first + count);
        for wish in [Form::Sparse, Form::Dense] {
            let string = registers.encode(wish);
            prop_assert_eq!(&read(&string), &registers);
            prop_assert!(Sketch::parse(&string).unwrap().noted().is_none());
            prop_assert!(string.len() <= 3_016 || string.len() == 12_304);
        }
    }

    /// Whichever form a sketch has, an element raises the same registers.
    #[test]
    fn forms_are_marked_alike(count in 0..1_500u32, more in prop::collection::vec(0..3_000u32, 1..5)) {
        let before = sketch_of(0..count);
        let mut after = before.clone();
        let marks: Vec<Mark> = more.iter().map(|n| Mark::of(n.to_string().as_bytes())).collect();
        marks.iter().for_each(|mark| { after.mark(*mark); });
        for wish in [Form::Sparse, Form::Dense] {
            let string = before.encode(wish);
            let marked = Sketch::parse(&string).unwrap().marked(marks.iter().copied());
            prop_assert_eq!(marked.is_some(), before != after);
            prop_assert_eq!(&read(&marked.unwrap_or(string)), &after);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(mut bytes: Vec<u8>, sparse: bool) {
        if sparse {
            bytes.splice(0..0, *b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\0");
        }
        if let Ok(sketch) = Sketch::parse(&bytes) {
            let mut registers = Registers::new();
            registers.merge(&sketch);
            registers.estimate();
        }
    }
}

#[test]
fn the_form_is_frozen() {
    let sparse = sketch_of([1]).encode(Form::Sparse);
    // Redis's own bytes: 7,527 zeros, a one, 8,856 zeros.
    assert_eq!(sparse, b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\x80\x5d\x66\x80\x62\x97");
    let dense = sketch_of([1]).encode(Form::Dense);
    let set: Vec<(usize, u8)> =
        dense.iter().copied().enumerate().filter(|(_, byte)| *byte != 0).collect();
    assert_eq!(&dense[..16], b"HYLL\0\0\0\0\0\0\0\0\0\0\0\x80");
    // 7,527 * 6 bits are 5,645 bytes and two bits.
    assert_eq!(set[5..], [(16 + 5_645, 1 << 2)]);
}

#[test]
fn estimates_are_near() {
    for count in [0, 1, 2, 10, 100, 1_000, 10_000, 100_000] {
        let estimate = sketch_of(0..count).estimate() as f64;
        let error = (estimate - f64::from(count)).abs();
        assert!(error <= (0.025 * f64::from(count)).ceil(), "{count}: {estimate}");
    }
}

#[test]
fn damage_is_told_from_other_strings() {
    let mut string = sketch_of(0..100).encode(Form::Sparse);
    string.pop();
    assert_eq!(Sketch::parse(&string).unwrap_err(), SketchError::Corrupted);
    assert_eq!(
        Sketch::parse(b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\0\x40").unwrap_err(),
        SketchError::Corrupted
    );
    assert_eq!(Sketch::parse(b"text").unwrap_err(), SketchError::Other);
}

/// One replica's keys.
#[derive(Clone)]
struct Replica {
    node: u16,
    now: UnixMs,
    keys: HashMap<Vec<u8>, Entry>,
}

impl Views for Replica {
    fn view(&self, key: &[u8]) -> Option<View<'_>> {
        self.keys.get(key)?.view(self.now)
    }

    fn history(&self, key: &[u8]) -> Option<Entry> {
        self.keys.get(key).cloned()
    }

    fn seed(&self) -> HashSeed {
        HashSeed(11)
    }
}

impl Replica {
    fn new(node: u16) -> Replica {
        Replica { node, now: UnixMs(1_000_000), keys: HashMap::new() }
    }

    /// Runs and applies a command, given as words.
    fn say(&mut self, words: &str) -> String {
        let args: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
        let keyed: Keyed = match words.split(' ').next().expect("a name") {
            "PFADD" => pfadd,
            "PFCOUNT" => pfcount,
            "PFMERGE" => pfmerge,
            "SET" => string::set,
            "COPY" => key::copy,
            "RENAME" => key::rename,
            name => panic!("no {name}"),
        };
        let (reply, changes) = ask(self, self.now, Protocol::Resp2, keyed, &args);
        for (key, change) in changes {
            let entry = self.keys.entry(key.to_vec()).or_default();
            let dot =
                Dot::new(entry.hlc_max().next(self.now), Actor::new(NodeId(self.node), Boot(1)));
            entry.apply(&change, dot, self.now).expect("few siblings");
        }
        String::from_utf8(reply).expect("text").trim_end().to_owned()
    }

    fn learn(&mut self, other: &Replica) {
        for (key, entry) in &other.keys {
            self.keys.entry(key.clone()).or_default().join(entry);
        }
    }

    fn siblings(&self, key: &str) -> usize {
        self.keys.get(key.as_bytes()).map_or(0, |entry| entry.values(self.now).len())
    }
}

/// Two replicas that each added what the other does not know, and one that has heard of both.
fn split() -> Replica {
    let (mut left, mut right) = (Replica::new(1), Replica::new(2));
    left.say("PFADD k a b");
    right.say("PFADD k b c");
    left.learn(&right);
    assert_eq!(left.siblings("k"), 2);
    left
}

#[test]
fn concurrent_sketches_count_together_and_become_one() {
    let mut node = split();
    assert_eq!(node.say("PFCOUNT k"), ":3");
    assert_eq!(node.siblings("k"), 2, "to count is no write");
    assert_eq!(node.say("PFADD k a"), ":0", "nothing new");
    assert_eq!((node.siblings("k"), node.say("PFCOUNT k")), (1, ":3".to_owned()));
    let mut node = split();
    assert_eq!(node.say("PFADD k d"), ":1");
    assert_eq!((node.siblings("k"), node.say("PFCOUNT k")), (1, ":4".to_owned()));
    let mut node = split();
    assert_eq!(node.say("PFMERGE k"), "+OK");
    assert_eq!((node.siblings("k"), node.say("PFCOUNT k")), (1, ":3".to_owned()));
    let mut node = split();
    assert_eq!(node.say("PFMERGE other k"), "+OK");
    assert_eq!(
        (node.say("PFCOUNT other"), node.say("PFCOUNT other k")),
        (":3".into(), ":3".into())
    );
}

#[test]
fn copies_take_all_of_concurrent_sketches_along() {
    let mut node = split();
    node.say("COPY k copied");
    node.say("RENAME k moved");
    assert_eq!((node.say("PFCOUNT copied"), node.say("PFCOUNT moved")), (":3".into(), ":3".into()));
    assert_eq!(node.say("PFCOUNT k"), ":0");
    let node = split();
    let request: [&[u8]; 2] = [b"DUMP", b"k"];
    let (payload, _) = ask(&node, node.now, Protocol::Resp2, dump::dump_key, &request);
    let start = payload.iter().position(|&byte| byte == b'\n').expect("a length") + 1;
    let restore: [&[u8]; 4] = [b"RESTORE", b"r", b"0", &payload[start..payload.len() - 2]];
    let (_, changes) = ask(&node, node.now, Protocol::Resp2, dump::restore, &restore);
    let [(_, Change::Put { value, .. })] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!(read(value).estimate(), 3);
}

#[test]
fn what_is_no_sketch_is_passed_over_unless_it_shows() {
    let (mut left, mut right) = (Replica::new(1), Replica::new(2));
    left.say("SET k text");
    right.now.0 += 1;
    right.say("PFADD k a");
    left.learn(&right);
    right.now.0 += 1;
    assert_eq!((left.siblings("k"), left.say("PFCOUNT k")), (2, ":1".to_owned()));
    let mut shown = Replica::new(3);
    shown.now.0 += 9;
    shown.say("SET k text");
    left.learn(&shown);
    let refused = "-WRONGTYPE Key is not a valid HyperLogLog string value.";
    assert_eq!((left.say("PFCOUNT k"), left.say("PFADD k a")), (refused.into(), refused.into()));
}

#[test]
fn nothing_is_written_where_nothing_changes() {
    let mut node = Replica::new(1);
    node.say("PFADD k a b");
    node.say("PFADD part a");
    for line in ["PFADD k a", "PFADD k", "PFCOUNT k", "PFMERGE k part", "PFMERGE k none"] {
        let before = node.keys.clone();
        node.say(line);
        assert_eq!(node.keys, before, "{line}");
    }
    let request: [&[u8]; 3] = [b"PFADD", b"k", b"c"];
    let (_, changes) = ask(&node, node.now, Protocol::Resp2, pfadd, &request);
    assert!(matches!(changes[..], [(b"k", Change::Put { expire: Expire::Keep, .. })]));
}

/// What happens to the replicas of the law.
#[derive(Clone, Debug)]
enum Step {
    Add { node: usize, key: usize, first: u16, count: u8 },
    Merge { node: usize, from: usize, to: usize },
    Learn { node: usize, from: usize },
}

fn any_step() -> impl Strategy<Value = Step> {
    let node = || 0..3usize;
    let key = || 0..2usize;
    prop_oneof![
        4 => (node(), key(), 0..2_000u16, 1..40u8)
            .prop_map(|(node, key, first, count)| Step::Add { node, key, first, count }),
        1 => (node(), key(), key()).prop_map(|(node, from, to)| Step::Merge { node, from, to }),
        2 => (node(), node()).prop_map(|(node, from)| Step::Learn { node, from }),
    ]
}

proptest! {
    /// The law: whatever was added anywhere is counted everywhere when all have heard of each other,
    /// and nothing else is.
    #[test]
    fn no_element_is_ever_lost(steps in prop::collection::vec(any_step(), 1..40)) {
        let mut nodes = [1, 2, 3].map(Replica::new);
        // What each node knows to be in each key.
        let mut known = vec![vec![BTreeSet::<u32>::new(); 2]; 3];
        for step in steps {
            match step {
                Step::Add { node, key, first, count } => {
                    let elements = u32::from(first)..u32::from(first) + u32::from(count);
                    let words: Vec<String> = elements.clone().map(|n| n.to_string()).collect();
                    nodes[node].say(&format!("PFADD k{key} {}", words.join(" ")));
                    known[node][key].extend(elements);
                }
                Step::Merge { node, from, to } => {
                    nodes[node].say(&format!("PFMERGE k{to} k{from}"));
                    let more = known[node][from].clone();
                    known[node][to].extend(more);
                }
                Step::Learn { node, from } => {
                    let other = nodes[from].clone();
                    nodes[node].learn(&other);
                    let more = known[from].clone();
                    known[node].iter_mut().zip(more).for_each(|(keys, more)| keys.extend(more));
                }
            }
            for (node, known) in nodes.iter_mut().zip(&known) {
                for (key, elements) in known.iter().enumerate() {
                    let estimate = sketch_of(elements.iter().copied()).estimate();
                    prop_assert_eq!(node.say(&format!("PFCOUNT k{key}")), format!(":{estimate}"));
                }
            }
        }
    }
}
