//! Exchanges between two models of a replica, over a wire of bytes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use crate::base::hash::{Digest, HashSeed};
use crate::base::time::Hlc;

use super::*;
use crate::anti_entropy::keys::Key;
use crate::anti_entropy::parts::Word;
use crate::anti_entropy::tree::{BucketSet, fold};

/// What is held of a key: a version, and whether that is a removal. The greater is the join.
type Held = (u64, bool);

/// A model of a replica: key hash → what is held.
#[derive(Clone, Default, PartialEq, Debug)]
struct Replica {
    entries: BTreeMap<u64, Held>,
}

fn digest(scope: Scope, key: u64, (version, removed): Held) -> Digest {
    if removed && !scope.compares_states() {
        return Digest::NONE;
    }
    HashSeed(1).digest(&[key.to_le_bytes(), version.to_le_bytes(), [removed as u8; 8]].concat())
}

impl Replica {
    fn join(&mut self, key: u64, held: Held) {
        let kept = self.entries.entry(key).or_insert(held);
        *kept = held.max(*kept);
    }

    fn joined(&self, other: &Replica) -> Replica {
        let mut joined = self.clone();
        other.entries.iter().for_each(|(key, held)| joined.join(*key, *held));
        joined
    }

    fn tree(&self, scope: Scope) -> Tree {
        let mut tree = Tree::new();
        self.entries.iter().for_each(|(key, held)| tree.add(*key, digest(scope, *key, *held)));
        tree
    }

    fn list(&self, scope: Scope, span: Span, limit: usize) -> KeyList {
        let key = |(key, held): (&u64, &Held)| Key {
            hash: *key,
            digest: fold(digest(scope, *key, *held)),
            hlc: Hlc(if scope == Scope::Look { held.0 } else { 0 }),
        };
        let mut found: Vec<_> = self.entries.iter().map(key).collect();
        found.retain(|key| span.contains(key.hash));
        let large = self.entries.keys().copied().filter(|key| key >> 50 & 1 == 1).collect();
        KeyList::new(span, found, limit).with_large(large)
    }

    fn digest(&self, scope: Scope, key: u64) -> Digest {
        self.entries.get(&key).map_or(Digest::NONE, |held| digest(scope, key, *held))
    }

    /// Hashes in which the two differ.
    fn differing(&self, other: &Replica, scope: Scope) -> BTreeSet<u64> {
        let all = self.entries.keys().chain(other.entries.keys());
        all.filter(|&&key| self.digest(scope, key) != other.digest(scope, key)).copied().collect()
    }
}

enum Frame {
    Say(Vec<u8>),
    Put(u64, Held),
}

/// One side: what it holds, and what it has been told to send.
struct Side<'a> {
    replica: &'a mut Replica,
    limit: usize,
    shipped: BTreeSet<u64>,
    wire: VecDeque<Frame>,
    /// Whether it heard that the exchange is over.
    is_told: bool,
}

impl Side<'_> {
    fn send(&mut self, message: &Message) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        self.wire.push_back(Frame::Say(bytes));
    }

    fn ship(&mut self, hashes: &[u64]) {
        for &hash in hashes {
            if let Some(held) = self.replica.entries.get(&hash) {
                self.shipped.insert(hash);
                self.wire.push_back(Frame::Put(hash, *held));
            }
        }
    }

    fn answer(&mut self, message: &Message) {
        if let Body::Part(hash, word) = &message.body {
            assert_eq!(*word, Word::AllWanted);
            self.ship(&[*hash]);
            let body = Body::Part(*hash, Word::Sent);
            return self.send(&Message { body, ..*message });
        }
        let mut out = Vec::new();
        match needs(message) {
            Needs::Tree(scope) => respond(message, &self.replica.tree(scope), &mut out),
            Needs::Keys(scope, span) => {
                compare(message, &self.replica.list(scope, span, self.limit), &mut out);
            }
            Needs::Over => self.is_told = true,
            Needs::Nothing => panic!("an initiator asks"),
        }
        for effect in out {
            match effect {
                Effect::Send(message) => self.send(&message),
                Effect::SendEntries(hashes) => self.ship(&hashes),
                _ => panic!("a responder does no more"),
            }
        }
    }

    fn carry(&mut self, exchange: &mut Exchange, effects: Vec<Effect>) -> Option<Outcome> {
        let mut effects = VecDeque::from(effects);
        let mut done = None;
        while let Some(effect) = effects.pop_front() {
            let mut more = Vec::new();
            match effect {
                Effect::Send(message) => self.send(&message),
                Effect::List { scope, span } => {
                    exchange.on_keys(self.replica.list(scope, span, self.limit), &mut more);
                }
                Effect::SendEntries(hashes) => {
                    self.ship(&hashes);
                    exchange.on_entries_sent(&mut more);
                }
                // As if the two were large in name only.
                Effect::Compare(hash) => {
                    self.ship(&[hash]);
                    let body = Body::Part(hash, Word::AllWanted);
                    self.send(&Message { exchange: exchange.number(), body });
                }
                Effect::Done(outcome) => done = Some(outcome),
                Effect::GivenUp => panic!("nothing was lost"),
            }
            effects.extend(more);
        }
        done
    }
}

struct Ran {
    outcome: Outcome,
    shipped: [BTreeSet<u64>; 2],
    messages: usize,
}

/// Runs an exchange to its end.
fn run(ours: &mut Replica, theirs: &mut Replica, scope: Scope, limits: (usize, usize)) -> Ran {
    let side = |replica, limit| Side {
        replica,
        limit,
        shipped: BTreeSet::new(),
        wire: VecDeque::new(),
        is_told: false,
    };
    let (mut us, mut them) = (side(ours, limits.0), side(theirs, limits.1));
    let mut out = Vec::new();
    let mut exchange = Exchange::start(9, scope, &us.replica.tree(scope), &mut out);
    let mut done = us.carry(&mut exchange, out);
    let mut messages = 0;
    loop {
        while let Some(frame) = us.wire.pop_front() {
            match frame {
                Frame::Say(bytes) => {
                    let message = Message::decode(&bytes).unwrap();
                    assert!(message.is_question());
                    messages += 1;
                    them.answer(&message);
                }
                Frame::Put(key, held) => them.replica.join(key, held),
            }
        }
        if let Some(outcome) = done {
            assert!(exchange.is_over() && them.wire.is_empty());
            assert_eq!(them.is_told, outcome.buckets > 0 && scope != Scope::Look);
            return Ran { outcome, shipped: [us.shipped, them.shipped], messages };
        }
        while let Some(frame) = them.wire.pop_front() {
            match frame {
                Frame::Say(bytes) => {
                    let message = Message::decode(&bytes).unwrap();
                    assert!(!message.is_question());
                    let mut out = Vec::new();
                    if matches!(message.body, Body::Part(_, Word::Sent)) {
                        exchange.on_entries_sent(&mut out);
                    }
                    exchange.on_message(&message, &us.replica.tree(scope), &mut out);
                    done = us.carry(&mut exchange, out).or(done);
                }
                Frame::Put(key, held) => us.replica.join(key, held),
            }
        }
    }
}

/// Each side has sent what differs as far as it held it before, and nothing else.
fn check_shipped(ran: &Ran, sides: [&Replica; 2], differing: &BTreeSet<u64>) {
    for (shipped, side) in ran.shipped.iter().zip(sides) {
        let held = |key: &&u64| side.entries.contains_key(*key);
        assert_eq!(*shipped, differing.iter().filter(held).copied().collect());
    }
}

fn replica() -> impl Strategy<Value = Replica> {
    let key = (0u64..5, 0u64..5).prop_map(|(bucket, key)| bucket << 56 | key << 50);
    let held = (1u64..5, prop::bool::weighted(0.3));
    prop::collection::vec((key, held), 0..16).prop_map(|all| {
        let mut replica = Replica::default();
        all.into_iter().for_each(|(key, held)| replica.join(key, held));
        replica
    })
}

fn limits() -> impl Strategy<Value = (usize, usize)> {
    (1usize..6, 1usize..6)
}

proptest! {
    #[test]
    fn afterwards_both_hold_the_join(a in replica(), b in replica(), limits in limits()) {
        let joined = a.joined(&b);
        let differing = a.differing(&b, Scope::Differing);
        let (mut x, mut y) = (a.clone(), b.clone());
        let ran = run(&mut x, &mut y, Scope::Differing, limits);
        prop_assert_eq!(x.tree(Scope::Differing), joined.tree(Scope::Differing));
        prop_assert_eq!(y.tree(Scope::Differing), joined.tree(Scope::Differing));
        prop_assert_eq!(ran.outcome.lacks.keys as usize, differing.len());
        for key in &differing {
            // Removals came along where the key was alive on the other side.
            prop_assert_eq!(x.entries.get(key), joined.entries.get(key));
            prop_assert_eq!(y.entries.get(key), joined.entries.get(key));
        }
        check_shipped(&ran, [&a, &b], &differing);
    }

    #[test]
    fn a_whole_exchange_brings_every_removal_and_only_what_differs(
        a in replica(), b in replica(), limits in limits(),
    ) {
        let joined = a.joined(&b);
        let differing = a.differing(&b, Scope::Whole);
        let (mut x, mut y) = (a.clone(), b.clone());
        let ran = run(&mut x, &mut y, Scope::Whole, limits);
        prop_assert_eq!((&x, &y), (&joined, &joined));
        prop_assert_eq!(ran.outcome.lacks.keys as usize, differing.len());
        check_shipped(&ran, [&a, &b], &differing);
    }

    #[test]
    fn a_look_counts_and_changes_nothing(a in replica(), b in replica(), limits in limits()) {
        let differing = a.differing(&b, Scope::Differing);
        let (mut x, mut y) = (a.clone(), b.clone());
        let ran = run(&mut x, &mut y, Scope::Look, limits);
        prop_assert_eq!((&x, &y), (&a, &b));
        prop_assert!(ran.shipped.iter().all(BTreeSet::is_empty));
        let lacks = ran.outcome.lacks;
        prop_assert_eq!(lacks.keys as usize, differing.len());
        let version = |replica: &Replica, key| replica.entries.get(key).map_or(0, |held| held.0);
        let oldest = |one: &Replica, other: &Replica| {
            let lacked = differing.iter().filter(|key| version(one, key) <= version(other, key));
            lacked.map(|key| Hlc(version(other, key))).min()
        };
        prop_assert_eq!(lacks.initiator, oldest(&a, &b));
        prop_assert_eq!(lacks.responder, oldest(&b, &a));
    }

    /// What a peer says is no more than a guess about what it holds.
    #[test]
    fn a_lying_responder_neither_stops_the_house_nor_runs_it_dry(
        a in replica(), said in prop::collection::vec((0u8..5, any::<u64>()), 0..30),
    ) {
        let tree = a.tree(Scope::Differing);
        let mut out = Vec::new();
        let mut exchange = Exchange::start(9, Scope::Differing, &tree, &mut out);
        for (kind, word) in said {
            let body = match kind {
                0 => Body::Same,
                1 => Body::Buckets(Box::new([word; 256])),
                2 => Body::Differ { upto: word, hashes: vec![word] },
                3 => Body::Busy,
                _ => Body::Looked { upto: word, lacks: Lacks::default() },
            };
            out.clear();
            exchange.on_message(&Message { exchange: 9, body }, &tree, &mut out);
            for effect in std::mem::take(&mut out) {
                match effect {
                    Effect::List { scope, span } => exchange.on_keys(a.list(scope, span, 2), &mut out),
                    Effect::SendEntries(_) | Effect::Compare(_) => {
                        exchange.on_entries_sent(&mut out);
                    }
                    _ => {}
                }
            }
        }
    }
}

#[test]
fn the_same_costs_one_question() {
    let mut a = Replica::default();
    (0..100u64).for_each(|key| a.join(key << 55, (1, false)));
    for scope in [Scope::Differing, Scope::Whole, Scope::Look] {
        let ran = run(&mut a.clone(), &mut a.clone(), scope, (9, 9));
        assert_eq!((ran.messages, ran.outcome), (1, Outcome::default()));
    }
}

#[test]
fn an_empty_replica_is_filled_in_pieces() {
    let mut a = Replica::default();
    (0..1000u64).for_each(|key| a.join(key << 54, (1, key % 3 == 0)));
    for scope in [Scope::Differing, Scope::Whole] {
        let (mut empty, mut full) = (Replica::default(), a.clone());
        let ran = run(&mut empty, &mut full, scope, (50, 50));
        assert_eq!(empty.tree(scope), a.tree(scope));
        assert!((10..30).contains(&ran.messages), "{}", ran.messages);
        let (mut empty, mut full) = (Replica::default(), a.clone());
        let ran = run(&mut full, &mut empty, scope, (50, 50));
        assert_eq!(empty.tree(scope), a.tree(scope));
        assert!((10..30).contains(&ran.messages), "{}", ran.messages);
    }
}

#[test]
fn late_double_and_foreign_messages_change_nothing() {
    let tree = Tree::new();
    let mut out = Vec::new();
    let mut exchange = Exchange::start(2, Scope::Differing, &tree, &mut out);
    out.clear();
    let say = |number, body| Message { exchange: number, body };
    let differ = || Body::Differ { upto: 0, hashes: vec![0] };
    exchange.on_message(&say(1, Body::Same), &tree, &mut out);
    exchange.on_message(&say(2, differ()), &tree, &mut out);
    exchange.on_keys(KeyList::new(Span::of(BucketSet::ALL), Vec::new(), 1), &mut out);
    exchange.on_entries_sent(&mut out);
    assert!(out.is_empty() && !exchange.is_over());
    exchange.on_message(&say(2, Body::Same), &tree, &mut out);
    exchange.on_message(&say(2, Body::Same), &tree, &mut out);
    exchange.on_lost(&mut out);
    assert_eq!(out, [Effect::Done(Outcome::default())]);
    respond(&say(2, differ()), &tree, &mut out);
    assert_eq!(needs(&say(2, differ())), Needs::Nothing);
    assert_eq!(out.len(), 1);
}

#[test]
fn word_of_another_piece_is_ignored() {
    let mut out = Vec::new();
    let mut tree = Tree::new();
    tree.add(5 << 56, Digest(1));
    let mut exchange = Exchange::start(2, Scope::Differing, &tree, &mut out);
    let say = |body| Message { exchange: 2, body };
    exchange.on_message(&say(Body::Buckets(Tree::new().sums())), &tree, &mut out);
    let Some(&Effect::List { span, .. }) = out.last() else { panic!("{out:?}") };
    let piece = Span { upto: 5 << 56, ..span };
    exchange.on_keys(KeyList::new(piece, Vec::new(), 9), &mut out);
    out.clear();
    exchange.on_message(
        &say(Body::Differ { upto: (5 << 56) + 1, hashes: vec![] }),
        &tree,
        &mut out,
    );
    exchange.on_message(
        &say(Body::Looked { upto: 5 << 56, lacks: Lacks::default() }),
        &tree,
        &mut out,
    );
    assert!(out.is_empty());
    exchange.on_message(&say(Body::Differ { upto: 5 << 56, hashes: vec![] }), &tree, &mut out);
    let rest = Span { from: (5 << 56) + 1, ..span };
    assert_eq!(out, [Effect::List { scope: Scope::Differing, span: rest }]);
}

#[test]
fn who_sent_buckets_is_told_of_the_end_even_if_nothing_differs_any_more() {
    let (mut out, tree) = (Vec::new(), Tree::new());
    let mut exchange = Exchange::start(2, Scope::Differing, &tree, &mut out);
    out.clear();
    let body = Body::Buckets(tree.sums());
    exchange.on_message(&Message { exchange: 2, body }, &tree, &mut out);
    let over = Message { exchange: 2, body: Body::Over };
    assert_eq!(out, [Effect::Send(over), Effect::Done(Outcome::default())]);
}

#[test]
fn a_busy_peer_gives_it_up() {
    let mut out = Vec::new();
    let mut exchange = Exchange::start(2, Scope::Differing, &Tree::new(), &mut out);
    out.clear();
    let busy = Message { exchange: 2, body: Body::Busy };
    exchange.on_message(&busy, &Tree::new(), &mut out);
    exchange.on_message(&busy, &Tree::new(), &mut out);
    assert_eq!(out, [Effect::GivenUp]);
}

#[test]
fn a_broken_link_gives_it_up_once() {
    let mut out = Vec::new();
    let mut exchange = Exchange::start(2, Scope::Whole, &Tree::new(), &mut out);
    exchange.on_lost(&mut out);
    exchange.on_deadline(&mut out);
    assert_eq!(out.len(), 2);
    assert_eq!(out[1], Effect::GivenUp);
}
