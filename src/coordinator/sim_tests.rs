//! The machines in a small world: every replica coordinates, messages are lost, doubled, late and
//! overtake each other, clocks disagree, coordinators forget what they were doing. One seed rules
//! it all.
//!
//! Strict keyspaces must give linearizable histories of SET, DEL and GET, and an answer must mean
//! what it says at that very moment: W replicas hold the write, `hold` replicas hold what was read.
//! Each rule is also broken on purpose, and the breach must be found within a stated number of
//! seeds: a test that cannot fail proves nothing.

use std::collections::{BTreeMap, VecDeque};

use crate::base::id::NodeId;

use super::contract::{Effective, Override, Quorum};
use super::gather::{Effect, Reason, Revision};
use super::linearizable::{Command, Did, is_linearizable};
use super::read::Read;
use super::write::{Ran, Write};

/// Which rule is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mutant {
    None,
    /// Writes run without asking others first.
    NoPrecheck,
    /// Reads answer whether or not others hold what they answer.
    NoWriteBack,
    /// Checks compare what lives, not what was removed.
    LiveOnly,
    /// The greatest dot that lives wins, even when a delete with a greater one did not see it.
    LivingWins,
    /// How many must hold an answer is reckoned from the request's own R.
    HoldByRequest,
    /// The machine is not told that the state grew, so old acknowledgements pass for new ones.
    GrowthUntold,
}

/// A xorshift generator: the world's only chance.
struct Chance(u64);

impl Chance {
    fn new(seed: u64) -> Chance {
        let mut chance = Chance((seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        for _ in 0..4 {
            chance.next();
        }
        chance
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// What a replica holds of the one key; dots are numbered, one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Entry {
    live: u64,
    seen: u64,
}

impl Entry {
    /// Observed-remove: what one side has seen and has no more is gone.
    fn join(self, other: Entry) -> Entry {
        let gone = (self.seen & !self.live) | (other.seen & !other.live);
        Entry { live: (self.live | other.live) & !gone, seen: self.seen | other.seen }
    }

    fn holds(self, other: Entry) -> bool {
        self.join(other) == self
    }
}

#[derive(Clone, Copy, Debug)]
enum Said {
    Check(Entry),
    Same,
    Refused,
    Whole(Entry),
    WriteBack(Entry, Revision),
    Stored(Revision),
    Put(Entry),
    Ack,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Begin,
    Deliver { from: usize, to: usize, command: usize, said: Said },
    Lost { command: usize, peer: usize },
    Slow(usize),
    Deadline(usize),
    Forgotten(usize),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Does {
    Set,
    Delete,
    Get,
    /// A write that turns out to change nothing, and answers what it saw.
    IdleWrite,
}

enum Machine {
    Read(Read),
    Write(Write),
}

struct Running {
    does: Does,
    at: usize,
    ask: Effective,
    machine: Option<Machine>,
    /// The operation's state, as the machines' pages define it.
    state: Entry,
    ran: bool,
    reply: Option<u32>,
    dot: Option<usize>,
    began: u64,
    ended: Option<u64>,
    failed: Option<Reason>,
}

#[derive(Default)]
struct Node {
    entry: Entry,
    hlc: u64,
    ahead: u64,
}

struct World {
    chance: Chance,
    mutant: Mutant,
    quorum: Quorum,
    now: u64,
    sequence: u64,
    events: BTreeMap<(u64, u64), Event>,
    nodes: Vec<Node>,
    /// (hlc, node), value.
    dots: Vec<((u64, usize), u32)>,
    commands: Vec<Running>,
    put_loss: u64,
    loss: u64,
    delay: u64,
    crowd: bool,
}

const USUAL: [Does; 10] = [
    Does::Set,
    Does::Set,
    Does::Set,
    Does::Delete,
    Does::Delete,
    Does::Get,
    Does::Get,
    Does::Get,
    Does::Get,
    Does::IdleWrite,
];

const STRICT: [(u8, u8, u8); 8] =
    [(3, 2, 2), (3, 2, 2), (3, 2, 2), (3, 1, 3), (3, 3, 1), (2, 1, 2), (4, 2, 3), (5, 3, 3)];
const EVENTUAL: [(u8, u8, u8); 4] = [(3, 1, 2), (3, 1, 1), (3, 2, 1), (5, 2, 3)];

impl World {
    fn new(seed: u64, mutant: Mutant, contracts: &[(u8, u8, u8)]) -> World {
        let mut chance = Chance::new(seed);
        let (n, r, w) = chance.pick(contracts);
        let nodes = (0..n).map(|_| Node { ahead: chance.below(60), ..Node::default() }).collect();
        let put_loss = chance.pick(&[0, 30, 70, 95]);
        let loss = chance.pick(&[0, 5, 20]);
        let delay = chance.pick(&[2, 10, 25]);
        let mut world = World {
            chance,
            mutant,
            quorum: Quorum::new(n, r, w).unwrap(),
            now: 0,
            sequence: 0,
            events: BTreeMap::new(),
            nodes,
            dots: Vec::new(),
            commands: Vec::new(),
            put_loss,
            loss,
            delay,
            crowd: false,
        };
        for _ in 0..4 + world.chance.below(6) {
            let at = 1 + world.chance.below(260);
            world.plan(at, Event::Begin);
        }
        world
    }

    /// Two writes that hardly reach anyone, then many reads and a few deletes: what a delete did
    /// not see comes up here, where the usual mixture shows it once in a million seeds.
    fn crowded(seed: u64, mutant: Mutant) -> World {
        let mut world = World::new(seed, mutant, &[(3, 2, 2)]);
        world.events.clear();
        (world.crowd, world.put_loss, world.loss) = (true, 95, 0);
        world.delay = world.chance.pick(&[15, 15, 30]);
        for command in 0..14 {
            let (first, within) = if command < 2 { (1, 10) } else { (10, 80) };
            let at = first + world.chance.below(within);
            world.plan(at, Event::Begin);
        }
        world
    }

    fn plan(&mut self, after: u64, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now + after, self.sequence), event);
    }

    /// Runs to the end; the history its clients saw.
    fn run(mut self) -> Vec<Command> {
        while let Some(((now, _), event)) = self.events.pop_first() {
            self.now = now;
            self.step(event);
        }
        let done_nothing = [Some(Reason::NoQuorum), Some(Reason::TryAgain)];
        let told = self.commands.iter().filter(|c| !done_nothing.contains(&c.failed));
        told.map(|c| Command {
            did: match c.does {
                Does::Set => Did::Set(self.dots_value(c)),
                Does::Delete => Did::Delete,
                Does::Get | Does::IdleWrite => Did::Get(c.reply),
            },
            began: c.began,
            ended: c.ended,
        })
        .collect()
    }

    /// A SET that never ran was never seen, whatever its value is called.
    fn dots_value(&self, command: &Running) -> u32 {
        command.dot.map_or(u32::MAX, |dot| self.dots[dot].1)
    }

    fn step(&mut self, event: Event) {
        let mut out = Vec::new();
        match event {
            Event::Begin => self.begin(),
            Event::Deliver { from, to, command, said } => self.deliver(from, to, command, said),
            Event::Lost { command, peer } => {
                let peer = NodeId(peer as u16);
                match &mut self.commands[command].machine {
                    Some(Machine::Read(read)) => read.on_lost(peer, &mut out),
                    Some(Machine::Write(write)) => write.on_lost(peer, &mut out),
                    None => {}
                }
                self.carry(command, out);
            }
            Event::Slow(command) => {
                match &mut self.commands[command].machine {
                    Some(Machine::Read(read)) => read.on_slow(&mut out),
                    Some(Machine::Write(write)) => write.on_slow(&mut out),
                    None => {}
                }
                self.carry(command, out);
            }
            Event::Deadline(command) => {
                match &mut self.commands[command].machine {
                    Some(Machine::Read(read)) => read.on_deadline(&mut out),
                    Some(Machine::Write(write)) => write.on_deadline(&mut out),
                    None => {}
                }
                self.carry(command, out);
                assert!(self.commands[command].machine.is_none(), "a deadline is the end");
            }
            Event::Forgotten(command) => self.commands[command].machine = None,
        }
    }

    fn ask(&mut self) -> Effective {
        let n = usize::from(self.quorum.n);
        let any =
            |chance: &mut Chance| chance.percent(25).then(|| 1 + chance.below(n as u64) as u8);
        let asked = Override { r: any(&mut self.chance), w: any(&mut self.chance) };
        let granted = self.quorum.effective(asked, n);
        granted.or_else(|_| self.quorum.effective(Override::default(), n)).unwrap()
    }

    fn begin(&mut self) {
        let at = self.chance.below(self.nodes.len() as u64) as usize;
        let does = match self.commands.len() {
            0 | 1 if self.crowd => Does::Set,
            _ if self.crowd && self.chance.percent(80) => Does::Get,
            _ if self.crowd => Does::Delete,
            _ => self.chance.pick(&USUAL),
        };
        let mut ask = self.ask();
        match self.mutant {
            Mutant::NoPrecheck if does != Does::Get => ask.strict = false,
            Mutant::NoWriteBack => ask.hold = 1,
            Mutant::HoldByRequest => ask.hold = ask.n - ask.r + 1,
            _ => {}
        }
        let mut others: Vec<NodeId> =
            (0..self.nodes.len()).filter(|&i| i != at).map(|i| NodeId(i as u16)).collect();
        let turn = self.chance.below(others.len() as u64) as usize;
        others.rotate_left(turn);
        if self.chance.percent(30) {
            others.reverse();
        }
        let command = self.commands.len();
        self.commands.push(Running {
            does,
            at,
            ask,
            machine: None,
            state: Entry::default(),
            ran: false,
            reply: None,
            dot: None,
            began: self.now,
            ended: None,
            failed: None,
        });
        self.plan(30, Event::Slow(command));
        self.plan(110, Event::Deadline(command));
        if self.chance.percent(10) {
            let after = self.chance.below(60);
            self.plan(after, Event::Forgotten(command));
        }
        self.look(command);
        let mut out = Vec::new();
        let machine = match does {
            Does::Get => Machine::Read(Read::start(&others, ask, &mut out)),
            _ => Machine::Write(Write::start(&others, ask, &mut out)),
        };
        self.commands[command].machine = Some(machine);
        self.carry(command, out);
    }

    fn same(&self, a: Entry, b: Entry) -> bool {
        if self.mutant == Mutant::LiveOnly { a.live == b.live } else { a == b }
    }

    /// The operation's state becomes what its coordinator holds.
    fn look(&mut self, command: usize) {
        let entry = self.nodes[self.commands[command].at].entry;
        self.commands[command].state = entry;
        self.commands[command].reply = self.winner(entry).map(|dot| self.dots[dot].1);
    }

    /// What a read sees. In a strict keyspace a delete takes part in last-writer-wins: if the
    /// greatest dot that was seen lives no more, a delete has won, also over what it did not see.
    fn winner(&self, entry: Entry) -> Option<usize> {
        let eventual = !self.quorum.strict() || self.mutant == Mutant::LivingWins;
        let candidates = if eventual { entry.live } else { entry.seen };
        let candidates = (0..self.dots.len()).filter(|i| candidates >> i & 1 == 1);
        let greatest = candidates.max_by_key(|&i| self.dots[i].0);
        greatest.filter(|i| entry.live >> i & 1 == 1)
    }

    fn learn(&mut self, node: usize, entry: Entry) {
        let high = (0..self.dots.len()).filter(|i| entry.seen >> i & 1 == 1);
        let high = high.map(|i| self.dots[i].0.0).max().unwrap_or(0);
        let node = &mut self.nodes[node];
        node.entry = node.entry.join(entry);
        node.hlc = node.hlc.max(high);
    }

    fn say(&mut self, from: usize, to: usize, command: usize, said: Said) {
        let loss = if matches!(said, Said::Put(_)) { self.put_loss } else { self.loss };
        if self.chance.percent(loss) {
            let home = self.commands[command].at;
            if self.chance.percent(50) {
                let peer = if from == home { to } else { from };
                let after = 1 + self.chance.below(20);
                self.plan(after, Event::Lost { command, peer });
            }
            return;
        }
        for _ in 0..if self.chance.percent(5) { 2 } else { 1 } {
            let after = 1 + self.chance.below(self.delay);
            self.plan(after, Event::Deliver { from, to, command, said });
        }
    }

    fn deliver(&mut self, from: usize, to: usize, command: usize, said: Said) {
        match said {
            Said::Check(_) if self.chance.percent(3) => self.say(to, from, command, Said::Refused),
            Said::Check(digest) => {
                let entry = self.nodes[to].entry;
                let same = self.same(entry, digest);
                let said = if same { Said::Same } else { Said::Whole(entry) };
                self.say(to, from, command, said);
            }
            Said::WriteBack(entry, revision) => {
                self.learn(to, entry);
                self.say(to, from, command, Said::Stored(revision));
            }
            Said::Put(entry) => {
                self.learn(to, entry);
                self.say(to, from, command, Said::Ack);
            }
            Said::Whole(entry) => self.answered_whole(from, to, command, entry),
            Said::Same | Said::Refused | Said::Stored(_) | Said::Ack => {
                self.answered(from, command, said);
            }
        }
    }

    fn answered(&mut self, from: usize, command: usize, said: Said) {
        let peer = NodeId(from as u16);
        let mut out = Vec::new();
        match (&mut self.commands[command].machine, said) {
            (Some(Machine::Read(read)), Said::Same) => read.on_same(peer, &mut out),
            (Some(Machine::Read(read)), Said::Refused) => read.on_refused(peer, &mut out),
            (Some(Machine::Read(read)), Said::Stored(r)) => read.on_stored(peer, r, &mut out),
            (Some(Machine::Write(write)), Said::Same) => write.on_same(peer, &mut out),
            (Some(Machine::Write(write)), Said::Refused) => write.on_refused(peer, &mut out),
            (Some(Machine::Write(write)), Said::Stored(r)) => write.on_stored(peer, r, &mut out),
            (Some(Machine::Write(write)), Said::Ack) => write.on_ack(peer, &mut out),
            _ => {}
        }
        self.carry(command, out);
    }

    fn answered_whole(&mut self, from: usize, to: usize, command: usize, entry: Entry) {
        self.learn(to, entry);
        let running = &self.commands[command];
        if running.machine.is_none() {
            return;
        }
        let grew = !running.ran && !self.same(self.nodes[to].entry, running.state);
        if grew {
            self.look(command);
        }
        let behind = !self.same(entry, self.commands[command].state);
        let grew = grew && self.mutant != Mutant::GrowthUntold;
        let (peer, mut out) = (NodeId(from as u16), Vec::new());
        match &mut self.commands[command].machine {
            Some(Machine::Read(read)) => read.on_entry(peer, grew, behind, &mut out),
            Some(Machine::Write(write)) => write.on_entry(peer, grew, behind, &mut out),
            None => {}
        }
        self.carry(command, out);
    }

    fn carry(&mut self, command: usize, effects: Vec<Effect>) {
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            let (at, state) = (self.commands[command].at, self.commands[command].state);
            let whole = self.nodes[at].entry;
            match effect {
                Effect::Check { to } => self.say(at, to.0.into(), command, Said::Check(state)),
                Effect::WriteBack { to, revision } => {
                    assert!(whole.holds(state));
                    self.say(at, to.0.into(), command, Said::WriteBack(whole, revision));
                }
                Effect::Run => {
                    let ran = self.execute(command);
                    let mut out = Vec::new();
                    match &mut self.commands[command].machine {
                        Some(Machine::Write(write)) => write.on_ran(ran, &mut out),
                        _ => panic!("only writes run"),
                    }
                    effects.extend(out);
                }
                Effect::Answer => self.answer(command),
                Effect::Fail(reason) => self.fail(command, reason),
            }
        }
    }

    /// The command runs at its coordinator, in one step, and its change sets out.
    fn execute(&mut self, command: usize) -> Ran {
        let (at, does) = (self.commands[command].at, self.commands[command].does);
        let before = self.commands[command].state;
        let entry = self.nodes[at].entry;
        self.commands[command].ran = true;
        if does == Does::IdleWrite || (does == Does::Delete && self.winner(entry).is_none()) {
            self.look(command);
            return Ran::Unchanged { grew: !self.same(before, entry) };
        }
        let (dot, wall) = (self.dots.len(), self.now + self.nodes[at].ahead);
        let node = &mut self.nodes[at];
        node.hlc = (node.hlc + 1).max(wall);
        let live = if does == Does::Set { 1 << dot } else { 0 };
        node.entry = Entry { live, seen: entry.seen | 1 << dot };
        self.dots.push(((node.hlc, at), dot as u32));
        self.commands[command].dot = Some(dot);
        let entry = node.entry;
        for to in (0..self.nodes.len()).filter(|&to| to != at) {
            self.say(at, to, command, Said::Put(entry));
        }
        Ran::Changed
    }

    fn answer(&mut self, command: usize) {
        self.end(command);
        let running = &self.commands[command];
        if self.mutant != Mutant::None {
            return;
        }
        let have = |holds: &dyn Fn(Entry) -> bool| {
            self.nodes.iter().filter(|node| holds(node.entry)).count()
        };
        let (ask, state) = (running.ask, running.state);
        match running.dot {
            Some(dot) => assert!(have(&|e| e.seen >> dot & 1 == 1) >= usize::from(ask.w)),
            None => assert!(have(&|e| e.holds(state)) >= usize::from(ask.hold)),
        }
    }

    fn fail(&mut self, command: usize, reason: Reason) {
        self.end(command);
        self.commands[command].ended = None;
        self.commands[command].failed = Some(reason);
        let changed = self.commands[command].dot.is_some();
        assert_eq!(changed, reason == Reason::Uncertain, "nothing was done, or it is said");
    }

    fn end(&mut self, command: usize) {
        let running = &mut self.commands[command];
        let machine = running.machine.take().expect("one answer or one failure");
        let done = match machine {
            Machine::Read(read) => read.is_done(),
            Machine::Write(write) => write.is_done(),
        };
        assert!(done && running.failed.is_none() && running.ended.is_none());
        running.ended = Some(self.now);
    }
}

/// The first of `seeds` whose history is not linearizable.
fn first_breach(seeds: u64, world: impl Fn(u64) -> World) -> Option<u64> {
    (0..seeds).find(|&seed| !is_linearizable(&world(seed).run()))
}

#[test]
fn strict_keyspaces_are_linearizable() {
    assert_eq!(first_breach(20_000, |seed| World::new(seed, Mutant::None, &STRICT)), None);
    assert_eq!(first_breach(5_000, |seed| World::crowded(seed, Mutant::None)), None);
}

#[test]
fn eventual_keyspaces_answer_what_they_say() {
    for seed in 0..3_000 {
        World::new(seed, Mutant::None, &EVENTUAL).run();
    }
}

#[test]
fn every_broken_rule_is_found() {
    let rules = [
        (Mutant::NoPrecheck, 500),
        (Mutant::NoWriteBack, 500),
        (Mutant::LiveOnly, 20_000),
        (Mutant::HoldByRequest, 20_000),
        (Mutant::GrowthUntold, 20_000),
    ];
    for (mutant, seeds) in rules {
        let found = first_breach(seeds, |seed| World::new(seed, mutant, &STRICT));
        assert!(found.is_some(), "{mutant:?} was not found in {seeds} seeds");
    }
    let found = first_breach(20_000, |seed| World::crowded(seed, Mutant::LivingWins));
    assert!(found.is_some(), "a delete that does not compete was not found");
}

#[test]
fn a_world_is_its_seed() {
    for seed in 0..50 {
        let run = || World::new(seed, Mutant::None, &STRICT).run();
        assert_eq!(run(), run());
    }
}
