//! A stand-in and the three replicas of a few keys in a small world: replicas are out of reach for
//! a while, or lose what was not synced, one alone or all at once; answers are lost; the stand-in
//! restarts. What was acknowledged by the stand-in must be on every replica in the end, unless a
//! write that had seen it took its place, and everything must be handed on.
//!
//! Each rule is also broken on purpose, and the breach must be found within a stated number of
//! seeds. Broken on the world's side, where possible: the machine is told what is not so.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::machine::{Effect, Found, Handoff, Options};
use crate::base::hash::HashSeed;
use crate::base::id::{Actor, Boot, NodeId, VnodeId};
use crate::base::time::{Dot, Hlc, Moment, UnixMs};
use crate::value::change::{Amount, Change, Expire};
use crate::value::entry::Entry;

/// Which rule is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mutant {
    None,
    /// One replica that has it is enough.
    OneAck,
    /// An acknowledged entry is forgotten before a log is synced.
    Unripe,
    /// A replica that went keeps its acknowledgements.
    KeptAcks,
    /// An entry is forgotten although it has changed since.
    Blind,
    /// The stand-in writes as a replica although it has forgotten what it handed on.
    HintVector,
}

const SEED: HashSeed = HashSeed(5);
const VNODE: VnodeId = VnodeId(3);
const KEYS: usize = 3;
const STAND_IN: u16 = 9;

/// How often a replica's log is synced, in milliseconds.
const SYNC_MS: u64 = 1_000;

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ word >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (word ^ word >> 31) % sides
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.roll(100) < chance
    }
}

type Keys = [Entry; KEYS];

#[derive(Default)]
struct Replica {
    held: Keys,
    synced: Keys,
    synced_at: u64,
    up: bool,
    boot: u16,
    /// It lost something: it counts when it has compared itself with the others.
    is_recovering: bool,
}

/// A question on its way to a replica, or the answer to it.
#[derive(Clone)]
struct Flying {
    to: usize,
    key: usize,
    state: crate::base::hash::Digest,
    entry: Entry,
    is_answer: bool,
}

struct World {
    dice: Dice,
    mutant: Mutant,
    now: u64,
    hlc: Hlc,
    replicas: [Replica; 3],
    /// What the stand-in holds; its log loses nothing.
    hints: BTreeMap<usize, Entry>,
    machine: Handoff,
    /// What the machine was told of last.
    found: Vec<Found>,
    forgotten: Option<Hlc>,
    boot: u16,
    flying: Vec<Flying>,
    /// What the stand-in was asked to count, by key: all of it acknowledged.
    counted: [i64; KEYS],
    /// Of keys that are set: the last value that the stand-in acknowledged.
    set: [Option<u64>; KEYS],
}

fn nodes() -> [NodeId; 3] {
    [NodeId(0), NodeId(1), NodeId(2)]
}

fn options(mutant: Mutant) -> Options {
    let forget_after_ms = if mutant == Mutant::Unripe { 0 } else { 2_000 };
    Options { forget_after_ms, retry_after_ms: 500, ..Options::default() }
}

impl World {
    fn new(seed: u64, mutant: Mutant) -> World {
        World {
            dice: Dice(seed),
            mutant,
            now: 1,
            hlc: Hlc::ZERO,
            replicas: Default::default(),
            hints: BTreeMap::new(),
            machine: Handoff::new(options(mutant)),
            found: Vec::new(),
            forgotten: None,
            boot: 1,
            flying: Vec::new(),
            counted: [0; KEYS],
            set: [None; KEYS],
        }
    }

    fn run(mut self, steps: usize) -> Result<(), String> {
        for _ in 0..steps {
            let at = self.dice.roll(3) as usize;
            match self.dice.roll(1_000) {
                0..90 => self.write_blindly(),
                90..100 => self.lose(at),
                100..102 => (0..3).for_each(|at| self.lose(at)),
                102..103 => self.wipe(at),
                103..130 => self.reach(at, false),
                130..200 => self.reach(at, true),
                200..204 => self.restart(),
                204..230 => self.exchange(at),
                230..260 => self.set_at(at),
                _ => self.pass(),
            }
        }
        self.settle()
    }

    /// Time passes: logs are synced, messages arrive, the machine acts.
    fn pass(&mut self) {
        self.now += 20 + self.dice.roll(60);
        for replica in &mut self.replicas {
            if self.now - replica.synced_at >= SYNC_MS {
                (replica.synced, replica.synced_at) = (replica.held.clone(), self.now);
            }
        }
        for _ in 0..self.dice.roll(6) {
            self.deliver();
        }
        self.hand_on();
    }

    fn dot(&mut self, node: u16, boot: u16) -> Dot {
        self.hlc = self.hlc.next(UnixMs(self.now));
        Dot::new(self.hlc, Actor::new(NodeId(node), Boot(boot)))
    }

    /// The first key is set, the others are counted on.
    fn write_blindly(&mut self) {
        let (dot, now) = (self.dot(STAND_IN, self.boot), UnixMs(self.now));
        let key = self.dice.roll(KEYS as u64) as usize;
        let change = if key == 0 {
            self.set[0] = Some(dot.hlc.0);
            let value = Cow::Owned(dot.hlc.0.to_string().into_bytes());
            Change::Put { value, expire: Expire::Clear }
        } else {
            self.counted[key] += 1;
            Change::Increment(Amount::Int(1))
        };
        let hint = self.hints.entry(key).or_default();
        let applied = match self.forgotten.filter(|_| self.mutant != Mutant::HintVector) {
            Some(since) => hint.apply_blind(&change, dot, now, since),
            None => hint.apply(&change, dot, now),
        };
        applied.expect("few single dots");
    }

    /// A replica that has seen what it has seen sets the first key over it.
    fn set_at(&mut self, at: usize) {
        if !self.replicas[at].up {
            return;
        }
        let dot = self.dot(at as u16, self.replicas[at].boot);
        // It takes the place of all that is there, not only of what is shown.
        let seen =
            |value: &u64| self.replicas[at].held[0].siblings().any(|(dot, _)| dot.hlc.0 == *value);
        if self.set[0].is_some_and(|value| seen(&value)) {
            self.set[0] = None;
        }
        let value = Cow::Borrowed(&b"0"[..]);
        let change = Change::Put { value, expire: Expire::Clear };
        self.replicas[at].held[0].apply(&change, dot, UnixMs(self.now)).expect("room");
    }

    /// The machine of a replica loses its power.
    fn lose(&mut self, at: usize) {
        let replica = &mut self.replicas[at];
        replica.held = replica.synced.clone();
        replica.boot += 1;
        replica.is_recovering = true;
        self.reach(at, false);
    }

    /// A replica loses its disk. One at a time: no number of copies survives the loss of all.
    fn wipe(&mut self, at: usize) {
        if !self.replicas.iter().any(|replica| replica.is_recovering) {
            self.replicas[at].synced = Keys::default();
            self.lose(at);
        }
    }

    fn recover(&mut self, at: usize) {
        for other in [(at + 1) % 3, (at + 2) % 3] {
            let held = self.replicas[other].held.clone();
            self.replicas[at]
                .held
                .iter_mut()
                .zip(&held)
                .for_each(|(ours, theirs)| ours.join(theirs));
        }
        let replica = &mut self.replicas[at];
        replica.synced = replica.held.clone();
        replica.is_recovering = false;
    }

    fn reach(&mut self, at: usize, up: bool) {
        if up && self.replicas[at].is_recovering {
            self.recover(at);
        }
        self.replicas[at].up = up;
        if !up {
            self.flying.retain(|message| message.to != at);
            if self.mutant == Mutant::KeptAcks {
                return;
            }
        }
        self.machine.on_reach(nodes()[at], up, Moment(self.now));
    }

    /// Killed, and started again as another actor with all that its log has.
    fn restart(&mut self) {
        self.flying.clear();
        self.boot += 1;
        self.forgotten = None;
        self.machine = Handoff::new(options(self.mutant));
        for at in 0..3 {
            self.machine.on_reach(nodes()[at], self.replicas[at].up, Moment(self.now));
        }
    }

    fn exchange(&mut self, at: usize) {
        let to = (at + 1) % 3;
        if self.replicas[at].up && self.replicas[to].up {
            let held = self.replicas[at].held.clone();
            self.replicas[to]
                .held
                .iter_mut()
                .zip(&held)
                .for_each(|(ours, theirs)| ours.join(theirs));
        }
    }

    fn deliver(&mut self) {
        if self.flying.is_empty() {
            return;
        }
        let at = self.dice.roll(self.flying.len() as u64) as usize;
        let message = self.flying.swap_remove(at);
        if self.dice.percent(10) {
            return;
        }
        if !message.is_answer {
            self.replicas[message.to].held[message.key].join(&message.entry);
            self.flying.push(Flying { is_answer: true, ..message });
            return;
        }
        let about = (message.key as u64, message.state);
        let from = nodes()[message.to];
        self.machine.on_answer(VNODE, about, from, true, Moment(self.now));
    }

    fn hand_on(&mut self) {
        let bytes = self.hints.len() * 100;
        let all = nodes();
        let replicas = if self.mutant == Mutant::OneAck { &all[..1] } else { &all };
        self.machine.on_held(VNODE, replicas, self.hints.len(), bytes, self.hlc);
        for node in nodes() {
            self.machine.on_room(node, [0, 0, 700][self.dice.roll(3) as usize]);
        }
        let (now, mut effects) = (Moment(self.now), Vec::new());
        self.machine.on_tick(now, &mut effects);
        if let [Effect::Look { vnode, tags }] = &effects[..] {
            let (vnode, tags) = (*vnode, tags.clone());
            effects.clear();
            let state = |(key, hint): (&usize, &Entry)| Found {
                hash: *key as u64,
                state: hint.state_digest(SEED, *key as u64),
                bytes: 100,
            };
            // The keys' hashes begin with zeros.
            self.found = match tags.start {
                0 => self.hints.iter().map(state).collect(),
                _ => Vec::new(),
            };
            self.machine.on_found(vnode, tags, &self.found, now, &mut effects);
        }
        // Others may write between the look and what follows.
        if !effects.is_empty() && self.dice.percent(20) {
            self.write_blindly();
        }
        for effect in effects {
            match effect {
                Effect::Send { nth, to } => {
                    let Found { hash, state, .. } = self.found[nth];
                    let (to, key) = (usize::from(to.0), hash as usize);
                    let entry = self.hints[&key].clone();
                    self.flying.push(Flying { to, key, state, entry, is_answer: false });
                }
                Effect::Forget { nth } => self.forget(self.found[nth]),
                Effect::Look { .. } => panic!("one look at a time"),
            }
        }
    }

    fn forget(&mut self, found: Found) {
        let key = found.hash as usize;
        let state = self.hints[&key].state_digest(SEED, found.hash);
        if state == found.state || self.mutant == Mutant::Blind {
            self.hints.remove(&key);
            self.forgotten = Some(self.hlc);
        }
    }

    /// Everybody is there again, and nothing is lost any more.
    fn settle(&mut self) -> Result<(), String> {
        (0..3).for_each(|at| self.reach(at, true));
        for _ in 0..2_000 {
            self.pass();
            self.pass();
        }
        if !self.hints.is_empty() && self.mutant != Mutant::KeptAcks {
            let (left, known) =
                (self.hints.len(), nodes().map(|node| self.machine.hints_for(node)));
            return Err(format!("{left} hints are stuck; keys and bytes for each node: {known:?}"));
        }
        for at in [0, 1, 2, 0, 1, 2] {
            self.exchange(at);
        }
        let [a, b, c] = &self.replicas;
        if a.held != b.held || b.held != c.held {
            return Err("not converged".to_owned());
        }
        let shown = |key: usize| {
            let view = a.held[key].view(UnixMs(self.now));
            view.map(|view| {
                String::from_utf8(view.string().expect("a string").into()).expect("digits")
            })
        };
        for key in 1..KEYS {
            let expected =
                Some(self.counted[key]).filter(|&sum| sum > 0).map(|sum| sum.to_string());
            if shown(key) != expected {
                return Err(format!("key {key} shows {:?}, counted {expected:?}", shown(key)));
            }
        }
        // Nobody saw the last value that the stand-in acknowledged: so it must live.
        let values = a.held[0].siblings().map(|(dot, _)| dot.hlc.0).collect::<Vec<_>>();
        match self.set[0] {
            Some(value) if !values.contains(&value) => Err(format!("{value} is lost: {values:?}")),
            _ => Ok(()),
        }
    }
}

fn first_breach(mutant: Mutant, seeds: u64) -> Option<(u64, String)> {
    (0..seeds).find_map(|seed| Some((seed, World::new(seed, mutant).run(900).err()?)))
}

#[test]
fn what_a_stand_in_acknowledged_reaches_every_replica() {
    if let Some((seed, wrong)) = first_breach(Mutant::None, 60) {
        panic!("seed {seed}: {wrong}");
    }
}

#[test]
fn every_rule_is_needed() {
    let mutants =
        [Mutant::OneAck, Mutant::Unripe, Mutant::KeptAcks, Mutant::Blind, Mutant::HintVector];
    let found = mutants.map(|mutant| (mutant, first_breach(mutant, 300)));
    assert!(found.iter().all(|(_, breach)| breach.is_some()), "{found:#?}");
}

// ---- the machine alone -----------------------------------------------------------------------------

fn digest(of: u64) -> crate::base::hash::Digest {
    SEED.digest(&of.to_le_bytes())
}

fn found(count: u64) -> Vec<Found> {
    (0..count).map(|hash| Found { hash, state: digest(hash), bytes: 1_000 }).collect()
}

/// A machine that holds so many keys for three replicas, of which those are up and have room.
fn holding(count: usize, up: &[u16]) -> Handoff {
    let mut machine = Handoff::new(Options { page_keys: 512, ..Options::default() });
    for node in nodes() {
        machine.on_reach(node, up.contains(&node.0), Moment(0));
        machine.on_room(node, usize::MAX);
    }
    machine.on_held(VNODE, &nodes(), count, 1_000 * count, Hlc(1));
    machine
}

/// What the machine asks for now; `found` lies on one page.
fn tick(machine: &mut Handoff, found: &[Found], now: u64) -> Vec<Effect> {
    let mut out = Vec::new();
    machine.on_tick(Moment(now), &mut out);
    if let [Effect::Look { vnode, tags }] = &out[..] {
        let (vnode, tags) = (*vnode, tags.clone());
        assert_eq!((vnode, tags.clone()), (VNODE, 0..256));
        out.clear();
        machine.on_found(vnode, tags, found, Moment(now), &mut out);
    }
    out
}

/// One walk over all that is held; what it asked for.
fn walk(machine: &mut Handoff, found: &[Found], now: u64) -> Vec<Effect> {
    let mut all = Vec::new();
    loop {
        let some = tick(machine, found, now);
        if some.is_empty() {
            return all;
        }
        all.extend(some);
    }
}

fn answer(machine: &mut Handoff, hash: u64, from: u16, now: u64) {
    machine.on_answer(VNODE, (hash, digest(hash)), NodeId(from), true, Moment(now));
}

#[test]
fn an_entry_is_forgotten_when_all_have_it_and_not_before() {
    let (mut machine, found) = (holding(2, &[0, 1]), found(2));
    let sent = walk(&mut machine, &found, 1_000);
    assert_eq!(sent.len(), 4, "two entries for two in reach: {sent:?}");
    for hash in 0..2 {
        answer(&mut machine, hash, 0, 1_010);
        answer(&mut machine, hash, 1, 1_010);
        answer(&mut machine, hash, 1, 1_011);
    }
    assert_eq!([0, 1, 2].map(|node| machine.hints_for(NodeId(node)).0), [0, 0, 2]);
    assert!(walk(&mut machine, &found, 9_000).is_empty(), "nobody in reach lacks anything");
    machine.on_reach(NodeId(2), true, Moment(9_500));
    assert_eq!(walk(&mut machine, &found, 10_000).len(), 2);
    answer(&mut machine, 0, 2, 10_010);
    answer(&mut machine, 1, 2, 10_010);
    assert!(walk(&mut machine, &found, 11_000).is_empty(), "not ripe");
    let ripe = [Effect::Forget { nth: 0 }, Effect::Forget { nth: 1 }];
    assert_eq!(walk(&mut machine, &found, 12_100), ripe);
    machine.on_held(VNODE, &nodes(), 0, 0, Hlc(1));
    assert_eq!((machine.held(), machine.hints_for(NodeId(2))), ((0, 0), (0, 0)));
}

#[test]
fn what_changed_is_sent_anew() {
    let (mut machine, mut found) = (holding(1, &[0, 1, 2]), found(1));
    assert_eq!(walk(&mut machine, &found, 1_000).len(), 3);
    answer(&mut machine, 0, 0, 1_010);
    found[0].state = digest(77);
    machine.on_held(VNODE, &nodes(), 1, 1_000, Hlc(2));
    assert_eq!(walk(&mut machine, &found, 2_000).len(), 3);
    // An answer that is about the old state says nothing of the new one.
    answer(&mut machine, 0, 1, 2_010);
    assert_eq!(machine.hints_for(NodeId(1)), (1, 1_000));
}

#[test]
fn a_slow_replica_holds_up_nobody_else() {
    let (mut machine, found) = (holding(400, &[0, 1]), found(400));
    let mut sent = [0, 0];
    for step in 0..200 {
        // One of them answers everything at once, the other has room for one entry in three seconds.
        machine.on_room(NodeId(0), usize::MAX);
        machine.on_room(NodeId(1), usize::from(step % 10 == 0));
        let now = 1_000 + 300 * step;
        for effect in tick(&mut machine, &found, now) {
            let Effect::Send { nth, to } = effect else { continue };
            sent[usize::from(to.0)] += 1;
            answer(&mut machine, found[nth].hash, to.0, now);
        }
    }
    assert_eq!((sent[0], machine.hints_for(NodeId(0)).0), (400, 0));
    assert_eq!(machine.hints_for(NodeId(1)).0, 400 - sent[1]);
    assert!((10..=20).contains(&sent[1]), "{}", sent[1]);
}

#[test]
fn nothing_is_looked_at_while_nobody_has_room() {
    let (mut machine, found) = (holding(400, &[0, 1]), found(400));
    for node in nodes() {
        machine.on_room(node, 0);
    }
    let mut out = Vec::new();
    machine.on_tick(Moment(1_000), &mut out);
    assert!(out.is_empty(), "{out:?}");
    // Room for three; the rest of the page waits, and is not looked at again.
    machine.on_room(NodeId(1), 3 * super::pace::hint_cost(1_000));
    assert_eq!(tick(&mut machine, &found, 1_010).len(), 3);
    machine.on_tick(Moment(1_020), &mut out);
    assert!(out.is_empty(), "{out:?}");
    machine.on_room(NodeId(0), super::pace::hint_cost(1_000));
    machine.on_tick(Moment(1_030), &mut out);
    assert_eq!(out, [Effect::Send { nth: 0, to: NodeId(0) }]);
}

#[test]
fn no_turn_is_long() {
    let (mut machine, found) = (holding(400, &[0, 1, 2]), found(400));
    let (mut sent, mut turns) = (0, 0);
    while sent < 1_200 {
        let some = tick(&mut machine, &found, 1_000);
        assert!((1..=64).contains(&some.len()), "{}", some.len());
        (sent, turns) = (sent + some.len(), turns + 1);
    }
    assert_eq!((sent, turns), (1_200, 19));
    for (hash, node) in (0..400).flat_map(|hash| [0, 1, 2].map(|node| (hash, node))) {
        answer(&mut machine, hash, node, 1_000);
    }
    let mut forgotten = 0;
    while forgotten < 400 {
        let some = tick(&mut machine, &found, 4_000);
        assert!((1..=16).contains(&some.len()), "{}", some.len());
        forgotten += some.len();
    }
}
