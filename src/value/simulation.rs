//! Invariant 2: after every step a replica's store is the ideal store of what it was told.
//!
//! Three replicas and a stand-in write one key at random, a string or collections; messages are
//! lost, doubled and overtaken, whole states are exchanged, and once a replica loses its unsaved
//! tail and comes back as a new actor. Beside every replica runs a shadow that only collects facts
//! ("this was made", "this was removed") and never joins anything. Removing one rule at a time must
//! make the check fail: else the rule, or the check, would be ceremony.
//!
//! ```text
//! replica   entry  <─ join ── records          facts  <─ union ── what the records tell
//!             │                                  │
//!           alive(entry), view, digest    ==    ideal(facts), and what shows by it
//! ```

mod book;
mod edits;
mod facts;
#[cfg(test)]
mod laws;
mod strings;

use std::collections::BTreeSet;

use crate::base::hash::HashSeed;
use crate::base::id::{Actor, Boot, NodeId};
use crate::base::time::{Dot, Hlc, UnixMs};
use crate::version::context::Context;

use super::apply::{ApplyError, Author, Delta};
use super::body::cell::register_of;
use super::body::leaf::New;
use super::change::Change;
use super::entry::Entry;
use super::fragment::Fragment;
use super::record::{Record, decode, encode_delta, encode_whole};
use super::register::{Base, Increment, Register};
use super::view::Kind;
use book::{Book, Shown, differs};
use facts::{Atom, Facts, alive};

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
    /// An increment names the base that it is added to, but does not tell it.
    BareBase,
    /// An increment tells a zero base without what its first author added.
    BareZero,
    /// A fragment does not name the elements that are gone.
    Unswept,
    /// The meta of a new collection shares its first element's dot, and an EXPIRE tells no element.
    SharedDot,
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

#[derive(Clone, Default)]
struct Replica {
    boot: u16,
    entry: Entry,
    facts: Facts,
    /// Of the stand-in: all that it ever wrote, and up to where it may have forgotten it.
    wrote: Facts,
    forgotten: Option<Hlc>,
    /// Changed since it was checked.
    is_new: bool,
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
    /// What the key mostly is; of a string it never is anything else.
    family: Kind,
    /// Whether collections are large: of several leaves.
    is_large: bool,
    /// The last of the four is the stand-in.
    replicas: [Replica; 4],
    saved: [Replica; 4],
    /// Outlive a crash: a ceiling is reserved ahead.
    clocks: [Hlc; 4],
    crashed: bool,
    flying: Vec<Message>,
    now: UnixMs,
    book: Book,
    /// What clients have seen: of which history, and what was alive in it.
    tokens: Vec<(Context, Facts)>,
    /// States that were reached, for the laws.
    pub(super) reached: Vec<Entry>,
}

/// What a coordinator sees when a write comes.
struct Moment {
    at: usize,
    /// The new write; more may follow it.
    dot: Dot,
    shown: Option<Shown>,
    alive: BTreeSet<Atom>,
}

impl Simulation {
    /// A key that is a string.
    pub(super) fn new(seed: u64, mutant: Mutant) -> Simulation {
        Simulation::of(Kind::String, seed, mutant)
    }

    /// A key that mostly is of that type.
    pub(super) fn of(family: Kind, seed: u64, mutant: Mutant) -> Simulation {
        Simulation {
            dice: Dice(seed),
            mutant,
            family,
            is_large: false,
            replicas: Default::default(),
            saved: Default::default(),
            clocks: Default::default(),
            crashed: false,
            flying: Vec::new(),
            now: UnixMs(1),
            book: Book::default(),
            tokens: Vec::new(),
            reached: Vec::new(),
        }
    }

    /// The same with large collections.
    pub(super) fn large(family: Kind, seed: u64, mutant: Mutant) -> Simulation {
        Simulation { is_large: true, ..Simulation::of(family, seed, mutant) }
    }

    /// Runs `steps` steps, then lets everything arrive. Says what went wrong.
    pub(super) fn run(&mut self, steps: usize) -> Result<(), String> {
        for _ in 0..steps {
            self.now.0 += self.dice.roll(2);
            let at = self.dice.roll(3) as usize;
            match self.dice.roll(100) {
                0..36 => self.write(at)?,
                36..70 => self.deliver(),
                70..80 => {
                    let to = (at + 1 + self.dice.roll(2) as usize) % 3;
                    self.exchange(at, to);
                }
                80 => self.exchange(3, at),
                81..86 => self.write(3)?,
                86..92 => self.saved[at] = self.replicas[at].clone(),
                92..94 => self.crash(at),
                94..96 => {
                    let Replica { entry, facts, .. } = &self.replicas[at];
                    self.tokens.push((entry.context().clone(), facts.clone()));
                }
                _ => {
                    let at = self.dice.roll(4) as usize;
                    self.write_seen(at);
                }
            }
            if self.dice.percent(12) {
                self.reached.push(self.replicas[at].entry.clone());
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

    // ---- what happens to replicas ---------------------------------------------------------------

    fn crash(&mut self, at: usize) {
        if std::mem::replace(&mut self.crashed, true) {
            return;
        }
        let boot = self.replicas[at].boot + u16::from(self.mutant != Mutant::SameActor);
        self.replicas[at] = Replica { boot, is_new: true, ..self.saved[at].clone() };
    }

    fn exchange(&mut self, from: usize, to: usize) {
        let Replica { entry, facts, .. } = self.replicas[from].clone();
        self.take(to, &Record::Whole(entry), &facts);
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
        self.take(message.to, &record, &message.facts);
    }

    fn take(&mut self, to: usize, record: &Record<'_>, told: &Facts) {
        let Replica { entry, facts, is_new, .. } = &mut self.replicas[to];
        *is_new = true;
        record.join_into(entry);
        settle_down(to, entry);
        facts.learn(told);
        facts.prune(&self.book);
    }

    /// A fragment as the mutant takes it.
    fn bend(&self, fragment: &Fragment) -> Fragment {
        let (dot, mut part) = (fragment.dot(), fragment.part().clone());
        let mut gone = fragment.gone().to_vec();
        let expires = matches!(self.book.made[&dot][..], [Atom::Meta(_)]);
        match self.mutant {
            Mutant::NoPrev => return fragment.clone().without_prev(),
            Mutant::BareExpire | Mutant::SharedDot if expires => part = part.without_values(),
            Mutant::BareBase => with_registers(&mut part, |register| {
                register.retain(|value| value.increments.iter().all(|inc| inc.dot() == value.dot));
            }),
            Mutant::BareZero => with_registers(&mut part, |register| {
                let mut bare = Register::default();
                for mut value in register.siblings().to_vec() {
                    let is_others = |inc: &Increment| inc.dot() != value.dot;
                    if value.base == Base::Zero && value.increments.iter().any(is_others) {
                        value.increments.retain(|inc| inc.actor == dot.actor);
                    }
                    bare.push(value);
                }
                *register = bare;
            }),
            Mutant::Unswept => gone.clear(),
            _ => {}
        }
        Fragment::new(dot, fragment.prev(), part, gone)
    }

    // ---- writing --------------------------------------------------------------------------------

    /// A write comes to replica `at`.
    fn moment(&mut self, at: usize) -> Moment {
        let Replica { entry, facts, boot, .. } = &self.replicas[at];
        let clock = self.clocks[at].max(entry.hlc_max()).next(self.now);
        self.clocks[at] = clock;
        Moment {
            at,
            dot: Dot::new(clock, Actor::new(NodeId(at as u16), Boot(*boot))),
            shown: self.book.shown(facts, self.now),
            alive: facts.ideal(),
        }
    }

    /// Whether who writes at `at` knows all that its actor added to `base`.
    fn knows_sum(&self, at: usize, base: Dot, dot: Dot) -> bool {
        match (self.replicas[at].forgotten, self.mutant) {
            (None, _) | (_, Mutant::HintVector) => true,
            (Some(since), _) => base.actor == dot.actor && base.hlc > since,
        }
    }

    /// Writes; `own` is what the write makes and removes. Whether it was not refused.
    fn apply(&mut self, at: usize, change: &Change<'_>, dot: Dot, own: &Facts) -> bool {
        let Replica { entry, facts, wrote, forgotten, is_new, .. } = &mut self.replicas[at];
        *is_new = true;
        let mut before = entry.clone();
        let applied = match forgotten.filter(|_| self.mutant != Mutant::HintVector) {
            Some(since) => entry.apply_blind(change, dot, self.now, since),
            None => entry.apply(change, dot, self.now),
        };
        let delta = match applied {
            Ok(delta) => delta,
            // One that has forgotten and counted on too often refuses.
            Err(ApplyError::TooManySingleDots) if forgotten.is_some() => {
                assert_eq!(before, *entry, "nothing was done");
                return false;
            }
            Err(error) => panic!("room for a value: {error}"),
        };
        let is_short = matches!(delta, Delta::Short(_));
        let mut delta = delta.decoded();
        if let (Change::Edit(edits), true) = (change, is_short) {
            let same = before.edit_any(edits, dot, self.now, Author::Replica);
            assert_eq!(same.as_ref(), Ok(&delta), "the short way and the long one");
            assert_eq!(before, *entry);
        }
        if self.mutant == Mutant::SharedDot {
            let book = &self.book;
            let share = |entry: &mut Entry| {
                let apart =
                    entry.meta.iter_mut().filter(|meta| !book.metas.contains_key(&meta.dot));
                apart.for_each(|meta| meta.dot.hlc.0 += 1);
            };
            share(entry);
            if let Delta::Fragment(fragment) = &mut delta {
                let mut part = fragment.part().clone();
                share(&mut part);
                let gone = fragment.gone().to_vec();
                *fragment = Fragment::new(fragment.dot(), fragment.prev(), part, gone);
            }
        }
        settle_down(at, entry);
        self.clocks[at] = self.clocks[at].max(entry.hlc_max());
        wrote.learn(own);
        facts.learn(own);
        self.book.name_elements(entry, own);
        let facts = facts.clone();
        self.send(at, delta, own, facts);
        true
    }

    /// What was written goes to the others, or is lost.
    fn send(&mut self, at: usize, delta: Delta, own: &Facts, facts: Facts) {
        let mut bytes = Vec::new();
        let told = match delta {
            Delta::Whole => {
                encode_whole(&mut bytes, b"k", &self.replicas[at].entry);
                facts
            }
            Delta::Fragment(fragment) => {
                encode_delta(&mut bytes, b"k", &fragment);
                // It tells of every dot it names: what that write made, and what of it is gone.
                let mut told = own.clone();
                for mark in fragment.part().context().cloud() {
                    let atoms = self.book.made[&mark.dot].iter();
                    told.removed.extend(atoms.clone().filter(|atom| facts.removed.contains(atom)));
                    told.made.extend(atoms);
                }
                told
            }
            Delta::Short(_) => unreachable!("decoded"),
        };
        let lost = if at == 3 { 30 } else { 15 };
        // A replica tells the stand-in, too, when another is away.
        for to in (0..4).filter(|to| *to != at) {
            if !self.dice.percent(lost) {
                self.flying.push(Message { to, bytes: bytes.clone(), facts: told.clone() });
            }
        }
    }

    // ---- what must hold -------------------------------------------------------------------------

    fn check(&mut self) -> Result<(), String> {
        for (at, replica) in self.replicas[..3].iter_mut().enumerate() {
            if !std::mem::take(&mut replica.is_new) {
                continue;
            }
            let Replica { entry, facts, .. } = replica;
            let entry = &*entry;
            let (alive, ideal) = (alive(entry), facts.ideal());
            if alive != ideal {
                return Err(format!("replica {at} holds {alive:?}, ideal is {ideal:?}"));
            }
            for (dot, atoms) in &self.book.made {
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
            // By whoever looks later, too: what expires, does so for all.
            let now = UnixMs(self.now.0 + self.dice.roll(4));
            let shown = self.book.shown(facts, now);
            if let Some(wrong) = differs(entry, shown.as_ref(), now) {
                return Err(format!("replica {at} {wrong}"));
            }
            if entry.digest(TERMS.0, TERMS.1) != self.book.digest(&ideal, TERMS.0, TERMS.1) {
                return Err(format!("the digest of replica {at} is not that of what it holds"));
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

/// By which digests are kept: seed and hash of the key.
const TERMS: (HashSeed, u64) = (HashSeed(3), 9);

/// As replicas hold entries: one keeps its digest from then on, another orders it by its seed.
fn settle_down(at: usize, entry: &mut Entry) {
    match at {
        0 => entry.keep_digest(TERMS.0, TERMS.1),
        1 => entry.order_by(HashSeed(5)),
        _ => {}
    }
}

/// Changes every register of an entry; those that are empty then are let go.
fn with_registers(entry: &mut Entry, change: impl Fn(&mut Register)) {
    change(&mut entry.string);
    for body in &mut entry.bodies {
        body.change_all(|_, cell| {
            let mut register = register_of(cell);
            change(&mut register);
            if register.is_empty() { New::Gone } else { New::Register(register) }
        });
    }
    entry.drop_empty();
}
