//! Invariant 2: after every step a replica's store is the ideal store of what it was told.
//!
//! Three replicas and a stand-in write one key at random; messages are lost, doubled and
//! overtaken, whole states are exchanged, and once a replica loses its unsaved tail and comes
//! back as a new actor. Beside every replica runs a shadow that only collects facts ("this was
//! made", "this was removed") and never joins anything. Removing one rule at a time must make
//! the check fail: else the rule, or the check, would be ceremony.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::base::hash::HashSeed;
use crate::base::id::{Actor, Boot, NodeId};
use crate::base::time::{Dot, Hlc, UnixMs};
use crate::version::context::Context;

use super::apply::Delta;
use super::change::{Amount, Change, Expire, Seen};
use super::entry::Entry;
use super::fragment::Fragment;
use super::record::{Record, decode, encode_delta, encode_whole};
use super::register::Base;

/// A rule that is taken away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mutant {
    /// All rules hold.
    None,
    /// The vector rises over writes that have not arrived.
    NoPrev,
    /// A replica that lost its tail goes on under its old name.
    SameActor,
    /// A stand-in writes as a replica although it has forgotten what it handed on.
    HintVector,
    /// A write with a token does not learn what the token has seen.
    Unlearned,
    /// A write with a token learns what it has seen though a part of it stays.
    LearnsAll,
    /// An EXPIRE names the write it replaces the meta of, but does not tell its value.
    BareExpire,
}

/// Chance from a seed (splitmix64).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    /// Below `sides`.
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
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

/// Something that a write made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Atom {
    Meta(Dot),
    Value(Dot),
    /// Base, and the write that added to it.
    Increment(Dot, Dot),
}

/// What a replica was told.
#[derive(Clone, Default)]
struct Facts {
    made: BTreeSet<Atom>,
    removed: BTreeSet<Atom>,
}

impl Facts {
    fn learn(&mut self, other: &Facts) {
        self.made.extend(&other.made);
        self.removed.extend(&other.removed);
    }

    /// What must be alive: all that was made and not removed; of increments each actor's last.
    fn ideal(&self) -> BTreeSet<Atom> {
        let alive = |atom: &&Atom| match **atom {
            Atom::Increment(base, dot) => {
                let last = (self.made.range(Atom::Increment(base, dot)..))
                    .skip(1)
                    .take_while(|next| matches!(next, Atom::Increment(b, _) if *b == base))
                    .all(|next| matches!(next, Atom::Increment(_, d) if d.actor != dot.actor));
                last && self.alive(Atom::Value(base))
            }
            atom => self.alive(atom),
        };
        self.made.iter().filter(alive).copied().collect()
    }

    fn alive(&self, atom: Atom) -> bool {
        self.made.contains(&atom) && !self.removed.contains(&atom)
    }

    /// Whether a claim to know `atom` is true.
    fn knows(&self, atom: Atom) -> bool {
        self.made.contains(&atom)
            || match atom {
                Atom::Increment(base, dot) => {
                    let later = |atom: &Atom| {
                        matches!(atom, Atom::Increment(b, d)
                            if *b == base && d.actor == dot.actor && d.hlc >= dot.hlc)
                    };
                    self.removed.contains(&Atom::Value(base)) || self.made.iter().any(later)
                }
                _ => false,
            }
    }
}

#[derive(Clone, Default)]
struct Replica {
    boot: u16,
    entry: Entry,
    facts: Facts,
    /// Of the stand-in: all that it ever wrote, and up to where it may have forgotten it.
    wrote: Facts,
    forgotten: Option<Hlc>,
}

#[derive(Clone)]
struct Message {
    to: usize,
    bytes: Vec<u8>,
    facts: Facts,
}

pub(super) struct Simulation {
    dice: Dice,
    mutant: Mutant,
    /// The last of the four is the stand-in.
    replicas: [Replica; 4],
    saved: [Replica; 4],
    /// Outlive a crash: a ceiling is reserved ahead.
    clocks: [Hlc; 4],
    crashed: bool,
    flying: Vec<Message>,
    now: UnixMs,
    /// What each write made.
    made: BTreeMap<Dot, Vec<Atom>>,
    /// What clients have seen: of which history, and what was alive in it.
    tokens: Vec<(Context, Facts)>,
    expiry: BTreeMap<Dot, UnixMs>,
    /// The number a base was set to; `None` for a word.
    numbers: BTreeMap<Dot, Option<i64>>,
    amounts: BTreeMap<Dot, i64>,
    /// States that were reached, for the laws.
    pub(super) reached: Vec<Entry>,
}

impl Simulation {
    pub(super) fn new(seed: u64, mutant: Mutant) -> Simulation {
        Simulation {
            dice: Dice(seed),
            mutant,
            replicas: Default::default(),
            saved: Default::default(),
            clocks: Default::default(),
            crashed: false,
            flying: Vec::new(),
            now: UnixMs(1),
            made: BTreeMap::new(),
            tokens: Vec::new(),
            expiry: BTreeMap::new(),
            numbers: BTreeMap::new(),
            amounts: BTreeMap::new(),
            reached: Vec::new(),
        }
    }

    /// Runs `steps` steps, then lets everything arrive. Says what went wrong.
    pub(super) fn run(&mut self, steps: usize) -> Result<(), String> {
        for _ in 0..steps {
            self.now.0 += self.dice.roll(2);
            let at = self.dice.roll(3) as usize;
            match self.dice.roll(100) {
                0..36 => self.write(at),
                36..70 => self.deliver(),
                70..80 => {
                    let to = (at + 1 + self.dice.roll(2) as usize) % 3;
                    self.exchange(at, to);
                }
                80 => self.exchange(3, at),
                81..86 => self.write(3),
                86..92 => self.saved[at] = self.replicas[at].clone(),
                92..94 => self.crash(at),
                94..96 => {
                    let Replica { entry, facts, .. } = &self.replicas[at];
                    self.tokens.push((entry.context().clone(), facts.clone()));
                }
                96..99 => {
                    let at = self.dice.roll(4) as usize;
                    self.write_seen(at);
                }
                _ => self.reached.push(self.replicas[at].entry.clone()),
            }
            self.check()?;
        }
        self.settle()?;
        for message in std::mem::take(&mut self.flying) {
            self.receive(&message);
        }
        self.settle()
    }

    /// Everybody exchanges with everybody: all must be equal afterwards.
    fn settle(&mut self) -> Result<(), String> {
        for _ in 0..2 {
            for (from, to) in [(0, 1), (1, 2), (2, 0), (0, 1), (1, 2)] {
                self.exchange(from, to);
            }
        }
        self.check()?;
        let digests = (0..3).map(|at| self.replicas[at].entry.state_digest(HashSeed(1), 7));
        let different = digests.collect::<BTreeSet<_>>().len() > 1;
        let [a, b, c, _] = &self.replicas;
        if different || a.entry != b.entry || b.entry != c.entry {
            return Err(format!("not converged: {:#?}", [&a.entry, &b.entry, &c.entry]));
        }
        Ok(())
    }

    fn crash(&mut self, at: usize) {
        if std::mem::replace(&mut self.crashed, true) {
            return;
        }
        let boot = self.replicas[at].boot + u16::from(self.mutant != Mutant::SameActor);
        self.replicas[at] = Replica { boot, ..self.saved[at].clone() };
    }

    fn exchange(&mut self, from: usize, to: usize) {
        let Replica { entry, facts, .. } = self.replicas[from].clone();
        self.replicas[to].entry.join(&entry);
        self.replicas[to].facts.learn(&facts);
    }

    /// The stand-in hands on and forgets.
    fn forget(&mut self) {
        let Replica { wrote, .. } = std::mem::take(&mut self.replicas[3]);
        self.replicas[3] = Replica { wrote, forgotten: Some(self.clocks[3]), ..Replica::default() };
    }

    fn deliver(&mut self) {
        if self.flying.is_empty() {
            return;
        }
        let at = self.dice.roll(self.flying.len() as u64) as usize;
        let message = self.flying[at].clone();
        if self.dice.percent(85) {
            self.flying.swap_remove(at);
        }
        if self.dice.percent(85) {
            self.receive(&message);
        }
    }

    fn receive(&mut self, message: &Message) {
        let (key, record) = decode(&message.bytes).expect("what was encoded decodes");
        assert!(key == b"k" && record.verify());
        let record = match record {
            Record::Delta(fragment) => Record::Delta(self.bend(&fragment)),
            record => record,
        };
        let replica = &mut self.replicas[message.to];
        record.join_into(&mut replica.entry);
        replica.facts.learn(&message.facts);
    }

    /// A fragment as the mutant takes it.
    fn bend(&self, fragment: &Fragment) -> Fragment {
        let (dot, part) = (fragment.dot(), fragment.part());
        let expires = matches!(self.made[&dot][..], [Atom::Meta(_)]);
        match self.mutant {
            Mutant::NoPrev => fragment.clone().without_prev(),
            Mutant::BareExpire if expires => {
                Fragment::new(dot, fragment.prev(), part.without_values(), Vec::new())
            }
            _ => fragment.clone(),
        }
    }

    /// The visible number (`None` inside: a word), as the facts have it.
    fn shown(&self, facts: &Facts) -> Option<Option<i64>> {
        let ideal = facts.ideal();
        let meta = ideal.iter().rev().find_map(|atom| match atom {
            Atom::Meta(dot) => Some(*dot),
            _ => None,
        });
        if meta.is_some_and(|dot| self.expiry.get(&dot).is_some_and(|at| *at <= self.now)) {
            return None;
        }
        let values = |atom: &Atom| if let Atom::Value(dot) = atom { Some(*dot) } else { None };
        let bases: Vec<Dot> = ideal.iter().filter_map(values).collect();
        let added = |base: &Dot| {
            let mut sum = 0;
            for (dot, amount) in &self.amounts {
                let later = |atom: &Atom| {
                    matches!(atom, Atom::Increment(b, last)
                        if b == base && last.actor == dot.actor && last.hlc >= dot.hlc)
                };
                let bound = self.made[dot].contains(&Atom::Increment(*base, *dot));
                sum += if bound && ideal.iter().any(later) { *amount } else { 0 };
            }
            sum
        };
        let is_zero = |base: &&Dot| !self.numbers.contains_key(base);
        let zeros: i64 = bases.iter().filter(is_zero).map(added).sum();
        let any_zero = bases.iter().any(|base| is_zero(&base));
        let winner = bases.last()?;
        let set = bases.iter().rfind(|base| !is_zero(base));
        Some(match set.map(|set| (set, self.numbers[set])) {
            Some((set, Some(number))) => Some(number + added(set) + zeros),
            Some((set, None)) if set == winner || !any_zero => None,
            _ => Some(zeros),
        })
    }

    fn write(&mut self, at: usize) {
        if at == 3 && self.dice.percent(40) {
            self.forget();
        }
        let replica = &self.replicas[at];
        let clock = self.clocks[at].max(replica.entry.hlc_max()).next(self.now);
        self.clocks[at] = clock;
        let dot = Dot::new(clock, Actor::new(NodeId(at as u16), Boot(replica.boot)));
        let shown = self.shown(&replica.facts);
        let alive = replica.facts.ideal();
        let metas = alive.iter().filter(|atom| matches!(atom, Atom::Meta(_)));
        let (change, removed, made) = match (self.dice.roll(100), shown) {
            (0..20, _) => {
                let value = Cow::Owned(self.text(dot));
                let change = Change::Put { value, expire: self.expire(dot) };
                // Its own writes it has seen, remembered or not.
                let Replica { wrote, facts, .. } = &mut self.replicas[at];
                let own = |atom: &&Atom| match atom {
                    Atom::Meta(made) | Atom::Value(made) => made.actor == dot.actor,
                    Atom::Increment(..) => false,
                };
                facts.made.extend(wrote.made.iter().filter(own));
                facts.removed.extend(wrote.made.iter().filter(own));
                (change, alive, vec![Atom::Meta(dot), Atom::Value(dot)])
            }
            (20..30, _) if !alive.is_empty() => (Change::Delete, alive, vec![]),
            (30..50, Some(_)) => {
                let removed = metas.copied().collect();
                let expire_at = match self.expire(dot) {
                    Expire::At(at) => Some(at),
                    _ => None,
                };
                (Change::Expire(expire_at), removed, vec![Atom::Meta(dot)])
            }
            (50.., Some(Some(_))) => {
                let bases = alive.iter().filter_map(|atom| match atom {
                    Atom::Value(dot) => Some(*dot),
                    _ => None,
                });
                let base = bases.max().expect("what shows has a base");
                let knows_sum = match (replica.forgotten, self.mutant) {
                    (None, _) | (_, Mutant::HintVector) => true,
                    (Some(since), _) => base.actor == dot.actor && base.hlc > since,
                };
                let made = if knows_sum {
                    vec![Atom::Increment(base, dot)]
                } else {
                    vec![Atom::Value(dot), Atom::Increment(dot, dot)]
                };
                (self.increment(dot), BTreeSet::new(), made)
            }
            (50.., None) => {
                let made = vec![Atom::Meta(dot), Atom::Value(dot), Atom::Increment(dot, dot)];
                (self.increment(dot), alive, made)
            }
            _ => return,
        };
        self.made.insert(dot, made.clone());
        self.apply(at, &change, dot, Facts { made: made.into_iter().collect(), removed });
    }

    /// A client writes with a token, perhaps an old one, and perhaps at a stand-in.
    fn write_seen(&mut self, at: usize) {
        if self.tokens.is_empty() {
            return;
        }
        if at == 3 {
            self.forget();
        }
        let token = self.dice.roll(self.tokens.len() as u64) as usize;
        let (context, seen) = self.tokens[token].clone();
        let Replica { entry, facts, boot, .. } = &self.replicas[at];
        let known = self.clocks[at].max(entry.hlc_max()).max(context.hlc_max());
        let clock = known.next(self.now);
        let dot = Dot::new(clock, Actor::new(NodeId(at as u16), Boot(*boot)));
        let (mut own, stays) = unseen(facts, &context, &seen);
        let usable = match self.mutant {
            Mutant::Unlearned => only_known(entry, &context),
            _ => context.clone(),
        };
        self.clocks[at] = clock;
        let put = self.dice.percent(70).then(|| {
            let value = Cow::Owned(self.text(dot));
            (value, self.expire(dot))
        });
        let made = if put.is_some() { vec![Atom::Meta(dot), Atom::Value(dot)] } else { vec![] };
        own.made.extend(&made);
        self.made.insert(dot, made);
        if put.is_none() {
            let mut after = self.replicas[at].facts.clone();
            after.learn(&own);
            let left = after.ideal();
            if !left.iter().any(|atom| matches!(atom, Atom::Value(_))) {
                own.removed.extend(left);
            }
        }
        let change = Change::Seen(Box::new(Seen { context: usable, put }));
        if self.mutant == Mutant::LearnsAll && stays {
            self.replicas[at].entry.context.join(&context);
        }
        self.apply(at, &change, dot, own);
    }

    /// What a write sets: a number or a word.
    fn text(&mut self, dot: Dot) -> Vec<u8> {
        let number = self.dice.percent(80).then(|| self.dice.roll(50) as i64 * 1_000);
        self.numbers.insert(dot, number);
        number.map_or("word".to_owned(), |number| number.to_string()).into_bytes()
    }

    fn increment(&mut self, dot: Dot) -> Change<'static> {
        let amount = self.dice.roll(5) as i64 - 1;
        self.amounts.insert(dot, amount);
        Change::Increment(Amount::Int(i128::from(amount)))
    }

    fn expire(&mut self, dot: Dot) -> Expire {
        if self.dice.percent(60) {
            return Expire::Clear;
        }
        let at = UnixMs(self.now.0 + 1 + self.dice.roll(30));
        self.expiry.insert(dot, at);
        Expire::At(at)
    }

    fn apply(&mut self, at: usize, change: &Change<'_>, dot: Dot, own: Facts) {
        let Replica { entry, facts, wrote, forgotten, .. } = &mut self.replicas[at];
        let applied = match forgotten.filter(|_| self.mutant != Mutant::HintVector) {
            Some(since) => entry.apply_blind(change, dot, self.now, since),
            None => entry.apply(change, dot, self.now),
        };
        let delta = applied.expect("room for a value");
        wrote.learn(&own);
        facts.learn(&own);
        let mut bytes = Vec::new();
        let told = match delta {
            Delta::Whole => {
                encode_whole(&mut bytes, b"k", entry);
                facts.clone()
            }
            Delta::Fragment(fragment) => {
                encode_delta(&mut bytes, b"k", &fragment);
                // It tells of every dot it names: what that write made, and what of it is gone.
                let mut told = own;
                for mark in fragment.part().context().cloud() {
                    let atoms = self.made[&mark.dot].iter();
                    told.removed.extend(atoms.clone().filter(|atom| facts.removed.contains(atom)));
                    told.made.extend(atoms);
                }
                told
            }
        };
        let lost = if at == 3 { 30 } else { 15 };
        // A replica tells the stand-in, too, when another is away.
        for to in (0..4).filter(|to| *to != at) {
            if !self.dice.percent(lost) {
                self.flying.push(Message { to, bytes: bytes.clone(), facts: told.clone() });
            }
        }
    }

    fn check(&self) -> Result<(), String> {
        for (at, Replica { entry, facts, .. }) in self.replicas[..3].iter().enumerate() {
            let (alive, ideal) = (alive(entry), facts.ideal());
            if alive != ideal {
                return Err(format!("replica {at} holds {alive:?}, ideal is {ideal:?}"));
            }
            for (dot, atoms) in &self.made {
                let claimed = entry.context().contains(*dot);
                // A stand-in that overwrites claims all it wrote. What it added to others' bases
                // may be missing then: increments are joined whatever the contexts say.
                let knows = |atom: &Atom| {
                    let added =
                        matches!(atom, Atom::Increment(base, dot) if base.actor != dot.actor);
                    added && dot.actor.node() == NodeId(3) || facts.knows(*atom)
                };
                if claimed && !atoms.iter().all(knows) {
                    return Err(format!("replica {at} claims to know {dot:?}"));
                }
            }
            let view = entry.view(self.now);
            let seen = view.map(|view| view.string().expect("a string").into_owned());
            let shown = self.shown(facts).map(|shown| match shown {
                Some(number) => number.to_string().into_bytes(),
                None => b"word".to_vec(),
            });
            if seen != shown {
                return Err(format!("replica {at} shows {seen:?}, not {shown:?}"));
            }
            let mut bytes = Vec::new();
            entry.encode(&mut bytes);
            if Entry::decode(&bytes).as_ref() != Ok(entry) {
                return Err(format!("replica {at} does not come back from its bytes"));
            }
        }
        Ok(())
    }
}

/// What a write with a token tells of what was there, to a replica that holds `facts`; and whether
/// something that the token has seen stays, because somebody added to it since.
fn unseen(facts: &Facts, context: &Context, seen: &Facts) -> (Facts, bool) {
    let here = facts.ideal();
    let mut own = Facts::default();
    let mut stays = false;
    for atom in &here {
        match *atom {
            Atom::Meta(dot) if context.contains(dot) => {
                own.removed.insert(*atom);
            }
            Atom::Value(base) if context.contains(base) => {
                let mut added = here.iter().filter_map(|atom| match atom {
                    Atom::Increment(to, dot) if *to == base => Some(*dot),
                    _ => None,
                });
                if added.all(|dot| context.contains(dot)) {
                    own.removed.insert(*atom);
                } else {
                    stays = true;
                }
            }
            _ => {}
        }
    }
    if !stays {
        own.learn(seen);
        own.removed.extend(seen.ideal());
    }
    (own, stays)
}

/// Of a context, what lives in `entry`.
fn only_known(entry: &Entry, context: &Context) -> Context {
    let mut known = Context::new();
    for atom in alive(entry) {
        let (Atom::Meta(dot) | Atom::Value(dot) | Atom::Increment(_, dot)) = atom;
        if context.contains(dot) {
            known.insert(dot, 0);
        }
    }
    known
}

/// What lives in `entry`.
fn alive(entry: &Entry) -> BTreeSet<Atom> {
    let mut atoms: BTreeSet<_> = entry.meta().iter().map(|meta| Atom::Meta(meta.dot)).collect();
    for sibling in entry.fields().iter().flat_map(|field| field.register.siblings()) {
        assert!(sibling.base != Base::Zero || !sibling.increments.is_empty());
        atoms.insert(Atom::Value(sibling.dot));
        atoms.extend(sibling.increments.iter().map(|inc| Atom::Increment(sibling.dot, inc.dot())));
    }
    atoms
}

/// The first seed below `seeds` whose run goes wrong, and how.
fn first_violation(mutant: Mutant, seeds: u64) -> Option<(u64, String)> {
    (0..seeds).find_map(|seed| {
        let wrong = Simulation::new(seed, mutant).run(150).err()?;
        Some((seed, wrong))
    })
}

#[test]
fn the_store_is_the_ideal_store_of_what_is_known() {
    if let Some((seed, wrong)) = first_violation(Mutant::None, 60) {
        panic!("seed {seed}: {wrong}");
    }
}

#[test]
fn every_rule_is_needed() {
    let mutants = [
        Mutant::NoPrev,
        Mutant::SameActor,
        Mutant::HintVector,
        Mutant::Unlearned,
        Mutant::LearnsAll,
        Mutant::BareExpire,
    ];
    for mutant in mutants {
        let found = first_violation(mutant, 400);
        assert!(found.is_some(), "{mutant:?} went unnoticed");
    }
}
