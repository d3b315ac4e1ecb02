//! What is written to a key as a whole: strings, counters, times to live, removals.

use std::borrow::Cow;

use crate::base::id::{Actor, Boot, NodeId};
use crate::base::time::{Dot, UnixMs};

use super::super::change::{Amount, Change, Expire, Seen};
use super::super::view::Kind;
use super::book::{Held, Value, text};
use super::facts::{Atom, Facts, only_known, unseen};
use super::{Moment, Mutant, Replica, Simulation};

impl Simulation {
    pub(super) fn write(&mut self, at: usize) -> Result<(), String> {
        if at == 3 && self.dice.percent(40) {
            self.forget();
        }
        let moment = self.moment(at);
        if self.family != Kind::String && self.dice.percent(72) {
            return self.write_elements(&moment);
        }
        let string = moment.shown.as_ref().map(|shown| shown.string());
        match (self.dice.roll(100), string) {
            (0..20, _) => self.put(&moment),
            (20..30, _) if !moment.alive.is_empty() => {
                let own = Facts { removed: moment.alive, ..Facts::default() };
                self.book.made.insert(moment.dot, vec![]);
                self.apply(at, &Change::Delete, moment.dot, &own);
            }
            (30..50, Some(_)) => self.expire(&moment),
            (50.., None | Some(Some(Held::Number(_)))) => self.count(&moment),
            _ => {}
        }
        Ok(())
    }

    fn put(&mut self, moment: &Moment) {
        let dot = moment.dot;
        let (value, expire) = (Cow::Owned(self.text(dot)), self.expiry());
        self.made(dot, Atom::Value(dot));
        self.made_meta(dot, Kind::String, expire);
        // Its own writes it has seen, remembered or not.
        let Replica { wrote, facts, .. } = &mut self.replicas[moment.at];
        let own = |atom: &&Atom| match atom {
            Atom::Meta(made) | Atom::Value(made) => made.actor == dot.actor,
            Atom::Increment(..) => false,
        };
        facts.made.extend(wrote.made.iter().filter(own));
        facts.removed.extend(wrote.made.iter().filter(own));
        let own = self.facts_of(dot, moment);
        let expire = expire.map_or(Expire::Clear, Expire::At);
        self.apply(moment.at, &Change::Put { value, expire }, dot, &own);
    }

    fn expire(&mut self, moment: &Moment) {
        let (dot, expire) = (moment.dot, self.expiry());
        let kind = moment.shown.as_ref().expect("visible").kind;
        self.made_meta(dot, kind, expire);
        let metas = moment.alive.iter().filter(|atom| matches!(atom, Atom::Meta(_)));
        let own = Facts { made: [Atom::Meta(dot)].into(), removed: metas.copied().collect() };
        self.apply(moment.at, &Change::Expire(expire), dot, &own);
    }

    fn count(&mut self, moment: &Moment) {
        let (at, dot) = (moment.at, moment.dot);
        let amount = self.dice.roll(5) as i64 - 1;
        let change = Change::Increment(Amount::Int(i128::from(amount)));
        let bases = moment.alive.iter().filter_map(|atom| match atom {
            Atom::Value(dot) if self.book.values[dot].slot.is_empty() => Some(*dot),
            _ => None,
        });
        let base = bases.max().filter(|_| moment.shown.is_some());
        let mut own = Facts::default();
        if let Some(base) = base.filter(|base| self.knows_sum(at, *base, dot)) {
            own.made.insert(self.added(base, dot, amount));
        } else {
            own.made.extend(self.counted(Vec::new(), dot, amount));
            if moment.shown.is_none() {
                self.made_meta(dot, Kind::String, None);
                own.made.insert(Atom::Meta(dot));
                own.removed.extend(&moment.alive);
            }
        }
        self.apply(at, &change, dot, &own);
    }

    /// A client writes with a token, perhaps an old one, and perhaps at a stand-in.
    pub(super) fn write_seen(&mut self, at: usize) {
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
        self.book.made.insert(dot, vec![]);
        let put = self.dice.percent(70).then(|| {
            let (value, expire) = (Cow::Owned(self.text(dot)), self.expiry());
            self.made(dot, Atom::Value(dot));
            self.made_meta(dot, Kind::String, expire);
            (value, expire.map_or(Expire::Clear, Expire::At))
        });
        own.made.extend(&self.book.made[&dot]);
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
        self.apply(at, &change, dot, &own);
    }

    // ---- what is noted of a write -----------------------------------------------------------------

    /// What a write made, in the place of all that its coordinator saw.
    fn facts_of(&self, dot: Dot, moment: &Moment) -> Facts {
        let made = self.book.made[&dot].iter().copied().collect();
        Facts { made, removed: moment.alive.clone() }
    }

    pub(super) fn made(&mut self, dot: Dot, atom: Atom) {
        self.book.made.entry(dot).or_default().push(atom);
    }

    pub(super) fn made_meta(&mut self, dot: Dot, kind: Kind, expire_at: Option<UnixMs>) {
        self.book.metas.insert(dot, (kind, expire_at));
        self.made(dot, Atom::Meta(dot));
    }

    /// Notes that `dot` added to `base`.
    pub(super) fn added(&mut self, base: Dot, dot: Dot, amount: i64) -> Atom {
        self.book.added.insert(dot, (base, amount));
        let atom = Atom::Increment(base, dot);
        self.made(dot, atom);
        atom
    }

    /// Notes that `dot` began to count.
    pub(super) fn counted(&mut self, slot: Vec<u8>, dot: Dot, amount: i64) -> [Atom; 2] {
        self.book.values.insert(dot, Value { slot, held: Held::Zero, expire_at: None });
        self.made(dot, Atom::Value(dot));
        [Atom::Value(dot), self.added(dot, dot, amount)]
    }

    /// What a write sets: a number or a word.
    fn text(&mut self, dot: Dot) -> Vec<u8> {
        let held = self.number_or_word();
        let text = text(&held);
        self.book.values.insert(dot, Value { slot: Vec::new(), held, expire_at: None });
        text
    }

    pub(super) fn number_or_word(&mut self) -> Held {
        if self.dice.percent(80) {
            Held::Number(self.dice.roll(50) as i64 * 1_000)
        } else {
            Held::Word(b"word".to_vec())
        }
    }

    pub(super) fn expiry(&mut self) -> Option<UnixMs> {
        (!self.dice.percent(60)).then(|| UnixMs(self.now.0 + 1 + self.dice.roll(30)))
    }
}
