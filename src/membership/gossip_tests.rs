//! Whole clusters of gossip machines in one thread, from one seed: loss, delay, pauses, splits.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::base::id::NodeId;
use crate::base::time::{Moment, UnixMs};

use super::gossip::{Effect, Gossip, MemberState, Options};
use super::heartbeat::{Message, Own};

use MemberState::{Alive, Confirmed, Left, Suspect};

/// Chance of the world, apart from that of the machines.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides.max(1)
    }
}

struct Letter {
    from: usize,
    to: usize,
    due: u64,
    message: Message,
}

struct Seat {
    gossip: Gossip,
    running: bool,
    paused_until: u64,
    next_tick: u64,
    /// Letters that came while it slept.
    waiting: Vec<(usize, Message)>,
    /// Milliseconds that its wall clock is ahead.
    skew: i64,
    changes: Vec<(u64, NodeId, MemberState)>,
    away: u64,
    clock_off: bool,
    sent_in_tick_max: usize,
}

struct World {
    now: u64,
    dice: Dice,
    seats: Vec<Seat>,
    letters: Vec<Letter>,
    /// Lost, in a thousand.
    loss: u64,
    /// A letter takes up to so many milliseconds.
    delay: u64,
    /// A tick is late by up to so many milliseconds.
    jitter: u64,
    /// Who hears whom not: (from, to).
    cut: Vec<(usize, usize)>,
    sent: u64,
    size_max: usize,
}

const WALL: i64 = 1_700_000_000_000;

fn node(at: usize) -> NodeId {
    NodeId(at as u16 + 1)
}

impl World {
    fn new(count: usize, seed: u64) -> World {
        let mut world = World {
            now: 1_000_000,
            dice: Dice(seed.wrapping_mul(0x9E37_79B9) | 1),
            seats: Vec::new(),
            letters: Vec::new(),
            loss: 0,
            delay: 5,
            jitter: 0,
            cut: Vec::new(),
            sent: 0,
            size_max: 0,
        };
        for at in 0..count {
            let seat = world.seat(at, count, 7);
            world.seats.push(seat);
        }
        world
    }

    fn seat(&mut self, at: usize, count: usize, generation: u64) -> Seat {
        let members: Vec<NodeId> = (0..count).map(node).collect();
        let (now, seed) = (Moment(self.now), self.dice.roll(u64::MAX));
        let gossip = Gossip::new(Options::default(), node(at), generation, &members, now, seed);
        Seat {
            gossip,
            running: true,
            paused_until: 0,
            next_tick: self.now + self.dice.roll(50),
            waiting: Vec::new(),
            skew: 0,
            changes: Vec::new(),
            away: 0,
            clock_off: false,
            sent_in_tick_max: 0,
        }
    }

    fn restart(&mut self, at: usize, generation: u64) {
        let skew = self.seats[at].skew;
        let count = self.seats.len();
        self.seats[at] = Seat { skew, ..self.seat(at, count, generation) };
    }

    fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            self.now += 1;
            self.deliver();
            for at in 0..self.seats.len() {
                self.wake(at);
            }
        }
    }

    fn deliver(&mut self) {
        let due: Vec<Letter> = {
            let now = self.now;
            let (due, later) = self.letters.drain(..).partition(|letter| letter.due <= now);
            self.letters = later;
            due
        };
        for letter in due {
            if self.cut.contains(&(letter.from, letter.to)) || !self.seats[letter.to].running {
                continue;
            }
            if self.seats[letter.to].paused_until > self.now {
                // What a kernel keeps for a process that sleeps is bounded.
                if self.seats[letter.to].waiting.len() < 100 {
                    self.seats[letter.to].waiting.push((letter.from, letter.message));
                }
                continue;
            }
            self.hand_over(letter.to, letter.from, &letter.message);
        }
    }

    fn wall(&self, at: usize) -> UnixMs {
        UnixMs((WALL + self.now as i64 + self.seats[at].skew) as u64)
    }

    fn hand_over(&mut self, to: usize, from: usize, message: &Message) {
        let (wall, mut out) = (self.wall(to), Vec::new());
        let now = Moment(self.now);
        self.seats[to].gossip.on_message(node(from), message, now, wall, &mut out);
        self.carry_out(to, out);
    }

    fn wake(&mut self, at: usize) {
        let seat = &mut self.seats[at];
        if !seat.running || seat.paused_until > self.now || seat.next_tick > self.now {
            return;
        }
        for (from, message) in std::mem::take(&mut seat.waiting) {
            self.hand_over(at, from, &message);
        }
        let (wall, late) = (self.wall(at), self.dice.roll(self.jitter + 1));
        let seat = &mut self.seats[at];
        seat.next_tick = self.now + 50 + late;
        let own = Own { counting: true, ..Own::default() };
        let mut out = Vec::new();
        seat.gossip.on_tick(Moment(self.now), wall, &own, &mut out);
        self.carry_out(at, out);
    }

    fn carry_out(&mut self, at: usize, out: Vec<Effect>) {
        let sends = out.iter().filter(|effect| matches!(effect, Effect::Send { .. })).count();
        self.seats[at].sent_in_tick_max = self.seats[at].sent_in_tick_max.max(sends);
        for effect in out {
            match effect {
                Effect::Send { to, message } => {
                    self.sent += 1;
                    let mut bytes = Vec::new();
                    message.encode(&mut bytes);
                    self.size_max = self.size_max.max(bytes.len());
                    if self.dice.roll(1_000) >= self.loss {
                        let message = Message::decode(&bytes).expect("own bytes");
                        let due = self.now + 1 + self.dice.roll(self.delay);
                        let to = usize::from(to.0) - 1;
                        self.letters.push(Letter { from: at, to, due, message });
                    }
                }
                Effect::Changed { node, state } => {
                    let now = self.now;
                    self.seats[at].changes.push((now, node, state));
                }
                Effect::Clock { node: of, off } if of == node(at) => self.seats[at].clock_off = off,
                Effect::Clock { .. } => {}
                Effect::Away { ms } => self.seats[at].away += ms,
            }
        }
    }

    fn state(&self, at: usize, of: usize) -> MemberState {
        self.seats[at].gossip.state(node(of)).expect("a member")
    }

    /// When each of `by` first believed `state` of `of`, in milliseconds since `since`.
    fn seen(&self, by: &[usize], of: usize, state: MemberState, since: u64) -> Vec<Option<u64>> {
        let first = |&at: &usize| {
            let mut changes = self.seats[at].changes.iter();
            let change = changes
                .find(|change| change.0 >= since && change.1 == node(of) && change.2 == state);
            change.map(|change| change.0 - since)
        };
        by.iter().map(first).collect()
    }

    fn suspicions(&self) -> usize {
        self.seats.iter().map(|seat| seat.changes.len()).sum()
    }

    fn cut_both(&mut self, here: &[usize], there: &[usize]) {
        for &a in here {
            for &b in there {
                self.cut.extend([(a, b), (b, a)]);
            }
        }
    }
}

#[test]
fn a_quiet_cluster_suspects_nobody_and_costs_the_same_every_round() {
    for count in [1, 2, 3, 5, 6, 12, 20] {
        let mut world = World::new(count, count as u64);
        world.run(20_000);
        assert_eq!(world.suspicions(), 0, "{count} nodes");
        let most = if count <= 6 { count.saturating_sub(1) } else { 4 };
        assert!(world.seats.iter().all(|seat| seat.sent_in_tick_max <= most));
        let a_round = world.sent as f64 / (count as f64 * 100.0);
        let expected = if count <= 6 { count as f64 - 1.0 } else { 3.0 };
        assert!((a_round - expected).abs() <= expected * 0.03, "{count} nodes: {a_round}");
        assert!(world.size_max < 1_400);
    }
}

#[test]
fn a_dead_member_is_confirmed_within_two_seconds() {
    let mut all = Vec::new();
    for seed in 0..60 {
        let count = [2, 3, 5][seed as usize % 3];
        let mut world = World::new(count, seed);
        (world.loss, world.delay, world.jitter) = (10, 60, 60);
        world.run(10_000 + seed * 37);
        world.seats[0].running = false;
        let dead = world.now;
        world.run(4_000);
        let by: Vec<usize> = (1..count).collect();
        for seen in world.seen(&by, 0, Confirmed, dead) {
            all.push(seen.expect("confirmed by everybody"));
        }
        for &at in &by {
            for other in by.iter().filter(|&&other| other != at) {
                assert_eq!(world.state(at, *other), Alive);
            }
        }
    }
    all.sort_unstable();
    let (median, last) = (all[all.len() / 2], all[all.len() - 1]);
    assert!(median < 1_600 && last < 2_600, "median {median} ms, at most {last} ms");
}

#[test]
fn in_a_large_cluster_hearsay_makes_it_fast() {
    let mut all = Vec::new();
    for seed in 0..6 {
        let mut world = World::new(20, seed);
        (world.loss, world.delay) = (10, 30);
        world.run(10_000);
        assert_eq!(world.suspicions(), 0, "seed {seed}");
        world.seats[3].running = false;
        let dead = world.now;
        world.run(8_000);
        let by: Vec<usize> = (0..20).filter(|&at| at != 3).collect();
        all.extend(world.seen(&by, 3, Confirmed, dead).iter().map(|seen| seen.expect("all do")));
    }
    all.sort_unstable();
    assert!(all[all.len() / 2] < 3_000, "median {} ms", all[all.len() / 2]);
}

#[test]
fn a_loaded_machine_suspects_nobody() {
    for seed in 0..10 {
        let mut world = World::new(5, seed);
        // Every tick late by up to 0.3 s, letters by up to 0.2 s, a tenth lost.
        (world.loss, world.delay, world.jitter) = (100, 200, 300);
        world.run(60_000);
        let confirmed = world.seats.iter().flat_map(|seat| &seat.changes);
        let confirmed = confirmed.filter(|change| change.2 == Confirmed).count();
        assert_eq!(confirmed, 0, "seed {seed}");
        assert!(world.suspicions() <= 2, "seed {seed}: {}", world.suspicions());
    }
}

#[test]
fn who_sleeps_does_not_take_the_others_for_dead() {
    for seed in 0..20 {
        let mut world = World::new(5, seed);
        world.run(5_000);
        let sleeps = 300 + seed * 500;
        world.seats[2].paused_until = world.now + sleeps;
        world.run(sleeps + 5_000);
        assert_eq!(world.seats[2].changes, [], "seed {seed}");
        // It knows that it was given up just if it was.
        let suspected =
            |at: &usize| world.seats[*at].changes.iter().any(|change| change.1 == node(2));
        let given_up = [0, 1, 3, 4].iter().any(suspected);
        assert_eq!(world.seats[2].away > 0, given_up, "{sleeps}: {}", world.seats[2].away);
        assert!(given_up || sleeps < 1_500);
        assert!(!world.seats[2].clock_off);
        for at in [0, 1, 3, 4] {
            assert_eq!(world.state(at, 2), Alive);
            let of_others = world.seats[at].changes.iter().filter(|change| change.1 != node(2));
            assert_eq!(of_others.count(), 0);
        }
    }
}

#[test]
fn both_sides_of_a_split_give_each_other_up_and_find_back() {
    for (here, there) in [(vec![0], vec![1, 2]), (vec![0, 1], vec![2, 3, 4]), (vec![0], vec![1])] {
        let mut world = World::new(here.len() + there.len(), 5);
        world.run(5_000);
        world.cut_both(&here, &there);
        world.run(4_000);
        for &a in &here {
            for &b in &there {
                assert_eq!((world.state(a, b), world.state(b, a)), (Confirmed, Confirmed));
            }
            assert!(here.iter().filter(|&&b| b != a).all(|&b| world.state(a, b) == Alive));
        }
        world.run(30_000);
        world.cut.clear();
        world.run(1_500);
        for a in 0..world.seats.len() {
            for b in (0..world.seats.len()).filter(|&b| b != a) {
                assert_eq!(world.state(a, b), Alive);
            }
        }
    }
}

#[test]
fn one_broken_path_is_suspicion_and_never_confirmed() {
    let mut world = World::new(5, 8);
    world.run(5_000);
    world.cut.push((0, 1));
    world.run(10_000);
    assert_eq!(world.state(1, 0), Suspect);
    let view = world.seats[1].gossip.view(node(0), Moment(world.now)).expect("a member");
    assert!(view.elsewhere_ms.is_some_and(|ms| ms < 1_000), "others hear it");
    assert!(view.phi > 8.0);
    for at in [0, 2, 3, 4] {
        assert_eq!(world.seats[at].changes, []);
    }
    world.cut.clear();
    world.run(1_000);
    assert_eq!(world.state(1, 0), Alive);
}

#[test]
fn a_new_process_is_alive_at_once_even_if_its_clock_went_back() {
    for generation in [8, 3] {
        let mut world = World::new(3, 4);
        world.run(5_000);
        world.seats[0].running = false;
        world.run(3_000);
        assert_eq!(world.state(1, 0), Confirmed);
        world.restart(0, generation);
        world.run(1_000);
        assert_eq!((world.state(1, 0), world.state(2, 0)), (Alive, Alive));
        assert!(world.seats[0].gossip.pulse().generation >= 8);
        assert_eq!(world.seats[0].changes, []);
    }
}

#[test]
fn a_goodbye_is_believed_by_those_too_whom_it_did_not_reach() {
    let mut world = World::new(3, 4);
    world.run(5_000);
    world.cut.push((0, 2));
    let (wall, mut out) = (world.wall(0), Vec::new());
    world.seats[0].gossip.leave(wall, &mut out);
    world.carry_out(0, out);
    world.seats[0].running = false;
    world.run(1_000);
    assert_eq!((world.state(1, 0), world.state(2, 0)), (Left, Left));
    world.run(20_000);
    assert_eq!((world.state(1, 0), world.state(2, 0)), (Left, Left));
    world.cut.clear();
    world.restart(0, 8);
    world.run(1_000);
    assert_eq!((world.state(1, 0), world.state(2, 0)), (Alive, Alive));
}

#[test]
fn a_refusal_needs_no_second_opinion_but_silence() {
    let mut world = World::new(3, 4);
    world.run(5_000);
    let mut out = Vec::new();
    let now = Moment(world.now);
    world.seats[1].gossip.on_refused(node(0), now, &mut out);
    world.carry_out(1, out);
    world.run(2_000);
    assert_eq!(world.seats[1].changes, [], "it is heard: a wrong address");
    world.seats[0].running = false;
    let dead = world.now;
    world.run(100);
    world.seats[2].gossip.on_refused(node(0), Moment(world.now), &mut Vec::new());
    world.seats[2].gossip.on_reached(node(0));
    let mut out = Vec::new();
    let now = Moment(world.now);
    world.seats[1].gossip.on_refused(node(0), now, &mut out);
    world.carry_out(1, out);
    world.run(400);
    let seen = world.seen(&[1], 0, Confirmed, dead)[0].expect("it is silent, too");
    assert!(seen <= 500, "{seen}");
    assert_eq!(world.state(2, 0), Alive, "the other one found somebody there since");
}

#[test]
fn the_node_whose_clock_is_off_knows_it() {
    let mut world = World::new(3, 4);
    world.seats[0].skew = -900;
    (world.delay, world.jitter) = (100, 100);
    world.run(6_000);
    let off: Vec<bool> = world.seats.iter().map(|seat| seat.clock_off).collect();
    assert_eq!(off, [true, false, false]);
    let view = world.seats[1].gossip.view(node(0), Moment(world.now)).expect("a member");
    assert!(view.clock_off && view.clock_ms.is_some_and(|ms| (-1_100..=-800).contains(&ms)));
    world.seats[0].skew = 0;
    world.run(6_000);
    assert!(!world.seats[0].clock_off);
}

#[test]
fn members_come_and_go() {
    let mut world = World::new(3, 4);
    world.run(2_000);
    let now = Moment(world.now);
    world.seats[0].gossip.set_members(&[node(0), node(1), node(5)], now);
    assert_eq!(world.seats[0].gossip.state(node(2)), None);
    assert_eq!(world.seats[0].gossip.state(node(5)), Some(Alive), "waited for");
    let view = world.seats[0].gossip.view(node(1), now).expect("stays");
    assert!(view.pulse.counter > 0);
}

#[derive(Clone, Debug)]
enum Fault {
    Run(u64),
    Pause(usize, u64),
    Kill(usize),
    Start(usize),
    Cut(usize, usize),
    Heal,
    Refuse(usize, usize),
    Lossy(u64),
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        4 => (100u64..2_000).prop_map(Fault::Run),
        1 => (0usize..5, 100u64..3_000).prop_map(|(at, ms)| Fault::Pause(at, ms)),
        1 => (0usize..5).prop_map(Fault::Kill),
        1 => (0usize..5).prop_map(Fault::Start),
        2 => (0usize..5, 0usize..5).prop_map(|(from, to)| Fault::Cut(from, to)),
        1 => Just(Fault::Heal),
        1 => (0usize..5, 0usize..5).prop_map(|(at, of)| Fault::Refuse(at, of)),
        1 => (0u64..600).prop_map(Fault::Lossy),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Whatever happened: when it is over, everybody hears everybody who runs, and nobody else.
    #[test]
    fn beliefs_converge(
        seed in 1u64..1_000_000,
        faults in proptest::collection::vec(fault(), 0..25),
    ) {
        let mut world = World::new(5, seed);
        let mut generations: BTreeMap<usize, u64> = BTreeMap::new();
        for fault in faults {
            match fault {
                Fault::Run(ms) => world.run(ms),
                Fault::Pause(at, ms) => world.seats[at].paused_until = world.now + ms,
                Fault::Kill(at) => world.seats[at].running = false,
                Fault::Start(at) => {
                    if !world.seats[at].running {
                        let generation = generations.entry(at).or_insert(7);
                        *generation += 1;
                        let generation = *generation;
                        world.restart(at, generation);
                    }
                }
                Fault::Cut(from, to) => world.cut.push((from, to)),
                Fault::Heal => world.cut.clear(),
                Fault::Refuse(at, of) => {
                    if world.seats[at].running && at != of {
                        let (now, mut out) = (Moment(world.now), Vec::new());
                        world.seats[at].gossip.on_refused(node(of), now, &mut out);
                        world.carry_out(at, out);
                    }
                }
                Fault::Lossy(share) => world.loss = share,
            }
        }
        world.cut.clear();
        world.loss = 0;
        world.run(20_000);
        for a in (0..5).filter(|&a| world.seats[a].running) {
            for b in (0..5).filter(|&b| b != a) {
                let expected = if world.seats[b].running { Alive } else { Confirmed };
                prop_assert_eq!(world.state(a, b), expected, "{} of {}", a, b);
            }
        }
    }
}
