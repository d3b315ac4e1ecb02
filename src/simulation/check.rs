//! What must hold: after every step at the replica it happened at, at every reply, and at the end,
//! when everything has come to rest. The numbers are those of the design's invariants.

use crate::anti_entropy::tree::Tree;
use crate::base::hash::Digest;
use crate::base::id::VnodeId;
use crate::base::time::Dot;
use crate::coordinator::linearizable::{Command, Did, is_linearizable};
use crate::coordinator::route::Reach;
use crate::value::entry::Entry;

use super::facts::{Writes, each};
use super::frame::{Frame, Outcome, Reply};
use super::ledger::{Ask, Request, shown};
use super::node::{Node, SEED};
use super::plan::{KEYS, USES, Use, VNODES, Weather};
use super::world::{World, place};

impl World {
    pub(super) fn entry(&self, at: usize, key: usize) -> Entry {
        let (name, vnode) = &self.chart.keys[key];
        let node = &self.nodes[at];
        let held = node.keyspace.read(*vnode, node.wall(self.now), |keys| keys.entry(name));
        held.unwrap_or_default()
    }

    pub(super) fn state_digest(&self, at: usize, key: usize) -> Digest {
        let (name, vnode) = &self.chart.keys[key];
        let node = &self.nodes[at];
        node.keyspace.read(*vnode, node.wall(self.now), |keys| keys.state_digest(name))
    }

    pub(super) fn check_node(&mut self, at: usize) {
        for key in 0..KEYS {
            self.check_key(at, key);
        }
    }

    /// What a replica holds is what it was told, no more and no less (invariants 2, 16, 22).
    pub(super) fn check_key(&mut self, at: usize, key: usize) {
        self.told[at][key] |= self.nodes[at].facts[key].seen;
        let wrong = self.wrong_with(at, key);
        self.ledger.expect(wrong.is_none(), || {
            format!("{} and key {key}: {}", place(at), wrong.unwrap_or_default())
        });
    }

    fn wrong_with(&self, at: usize, key: usize) -> Option<String> {
        let entry = self.entry(at, key);
        let (facts, history) = (&self.nodes[at].facts[key], &self.ledger.histories[key]);
        let mut held: [Writes; 3] = [0; 3];
        for meta in entry.meta() {
            held[0] |= 1 << history.find(meta.dot)?;
        }
        for sibling in entry.fields().iter().flat_map(|field| field.register.siblings()) {
            let base = history.find(sibling.dot)?;
            held[1] |= 1 << base;
            for increment in &sibling.increments {
                let write = history.find(increment.dot())?;
                held[2] |= 1 << write;
                let (sum, due) = (increment.sum, history.sum(base, write));
                let due = crate::value::change::Amount::Int(i128::from(due));
                if sum != due {
                    return Some(format!("write {write} makes {sum:?}, and should {due:?}"));
                }
            }
        }
        let ideal = [facts.metas_alive(), facts.values_alive(), history.increments_alive(facts)];
        if held != ideal {
            let list = |sets: [Writes; 3]| sets.map(|set| each(set).collect::<Vec<_>>());
            return Some(format!(
                "holds metas, values, increments {:?}, and should {:?}",
                list(held),
                list(ideal)
            ));
        }
        let claims = |write: &usize| entry.context().contains(history.writes[*write].dot);
        let false_claim =
            (0..history.writes.len()).filter(claims).find(|&write| !history.knows(facts, write));
        false_claim.map(|write| format!("claims to know write {write}, and was not told of it"))
    }

    /// A reply means what it says: a write is on W disks (invariants 9 and 24), and what was not
    /// done was not done (18).
    pub(super) fn check_reply(&mut self, request: usize, outcome: Outcome) {
        let asked = self.ledger.requests[request];
        match (outcome, asked.write) {
            (Outcome::NotRun, Some(write)) => self.ledger.breach(|| {
                format!(
                    "#{request} is said not to have run, and it is write {write} of key {}",
                    asked.key
                )
            }),
            (Outcome::Done(_), Some(write)) if asked.losses == self.ledger.happened.losses => {
                let replicas = self.chart.replicas[self.chart.keys[asked.key].1.index()].clone();
                let holders = (0..self.plan.nodes)
                    .filter(|&at| self.disk_holds(at, asked.key, write))
                    .filter(|at| !self.plan.quorum.strict() || replicas.contains(at))
                    .count();
                let w = usize::from(self.plan.quorum.w);
                self.ledger.expect(holders >= w, || {
                    format!("#{request} is acknowledged, and {holders} disks of {w} hold it")
                });
            }
            _ => {}
        }
    }

    /// A node that counts has again what it had acknowledged and lost (invariant 9; see
    /// [`crate::anti_entropy::recovery`]). What only stand-ins held beside it comes with their hints.
    /// One that has met others and is alone now counts for itself only, and may not know yet what it
    /// has lost.
    pub(super) fn check_regained(&mut self, at: usize) {
        let node = &self.nodes[at];
        let is_alone = node.peers.iter().all(|peer| peer.link.is_none());
        if !node.reach[at].counts() || is_alone && !node.is_unmet() {
            return;
        }
        for (key, lost) in std::mem::take(&mut self.lost[at]).into_iter().enumerate() {
            let lacks = each(lost & !self.nodes[at].facts[key].seen).next();
            self.ledger.expect(lacks.is_none(), || {
                let lacks = lacks.unwrap_or_default();
                format!("{} counts without write {lacks} of key {key}, which it lost", place(at))
            });
        }
    }

    /// Whoever acknowledges a stream up to a change holds all changes up to there (9).
    pub(super) fn check_acknowledged(&mut self, at: usize, peer: usize, upto: u64) {
        let known = &self.nodes[at].peers[peer];
        let sent = &self.nodes[peer].peers[at];
        let from = known.checked.max(sent.compared);
        let begun = sent.changes.partition_point(|&(number, _)| number <= from);
        let acked = sent.changes[begun..].iter().take_while(|&&(number, _)| number <= upto);
        let lacks = acked.map(|&(number, said)| (number, &sent.said[said])).find(|(_, frame)| {
            let Frame::Rep(told) = frame else { return false };
            let facts = &self.nodes[at].facts[told.key];
            self.is_replica(told.vnode, at) && !facts.covers(&told.facts)
        });
        let lacks = lacks.map(|(number, _)| number);
        self.nodes[at].peers[peer].checked = known.checked.max(upto);
        self.ledger.expect(lacks.is_none(), || {
            let lacks = lacks.unwrap_or_default();
            format!("{} acknowledges change {lacks} of {}, and lacks it", place(at), place(peer))
        });
    }

    /// What a stand-in forgets, every replica has been told of.
    pub(super) fn check_forgotten(&mut self, at: usize, key: usize) {
        let held = self.nodes[at].facts[key].seen;
        let lacks = |&&replica: &&usize| held & !self.told[replica][key] != 0;
        let lacks = self.replicas(key).iter().find(lacks).copied();
        self.ledger.expect(lacks.is_none(), || {
            let lacks = place(lacks.unwrap_or_default());
            format!("{} forgets key {key}, and {lacks} was never told of all of it", place(at))
        });
    }

    /// At level `quorum` a write is above all that was acknowledged before it began (13).
    pub(super) fn check_above(&mut self, request: usize, dot: Dot) {
        let Request { key, began, .. } = self.ledger.requests[request];
        let above = self.ledger.histories[key].writes.iter().find(|write| {
            let ended = self.ledger.requests[write.request].ended;
            let before = matches!(ended, Some((when, Outcome::Done(_))) if when < began);
            before && write.dot > dot
        });
        let above = above.map(|write| shown(write.dot));
        self.ledger.expect(above.is_none(), || {
            let above = above.unwrap_or_default();
            format!("#{request} writes {} below {above}, which was acknowledged", shown(dot))
        });
    }

    // ---- at the end ---------------------------------------------------------------------------

    pub(super) fn check_end(&mut self) {
        self.check_rest();
        for (key, what) in USES.into_iter().enumerate() {
            self.check_converged(key);
            self.check_kept(key);
            match what {
                Use::Counter => self.check_count(key),
                Use::Register => self.check_history(key),
                Use::Cart if self.plan.weather == Weather::Calm => self.check_history(key),
                Use::Cart | Use::Mixed => {}
            }
        }
        self.check_trees();
    }

    /// Whether everybody has met everybody, and believes them to be there.
    pub(super) fn is_formed(&self) -> bool {
        let found = |node: &Node| node.reach.iter().all(|reach| *reach == Reach::Up);
        self.nodes.iter().all(|node| node.greeted && node.unsettled.is_empty() && found(node))
    }

    /// Everybody lives, counts, and owes nothing.
    pub(super) fn check_rest(&mut self) {
        for at in 0..self.plan.nodes {
            let node = &self.nodes[at];
            let whole = node.alive
                && node.recovery.is_over()
                && node.unsettled.is_empty()
                && node.reach.iter().all(|reach| *reach == Reach::Up)
                && node.operations.is_empty()
                && node.awaited.is_empty()
                && node.forwards.is_empty()
                && (0..VNODES).map(VnodeId).all(|vnode| {
                    self.is_replica(vnode, at) || node.keyspace.counts(vnode).held == 0
                });
            if whole {
                continue;
            }
            let peer = |peer: usize| {
                let known = &node.peers[peer];
                let (sent, came) = (known.stream.is_through(), known.incoming.is_through());
                format!("{}: through {sent} {came} {:?}", place(peer), known.exchange)
            };
            let peers = (0..self.plan.nodes).filter(|&other| other != at).map(peer);
            let state = format!(
                "{} does not come to rest: alive {} reach {:?} {:?} {:?} {}",
                place(at),
                node.alive,
                node.reach,
                node.unsettled,
                node.recovery,
                peers.collect::<Vec<_>>().join(", "),
            );
            self.ledger.breach(|| state);
        }
    }

    fn replicas(&self, key: usize) -> &'static [usize] {
        &self.chart.replicas[self.chart.keys[key].1.index()]
    }

    /// Whether the replicas of every key hold the same.
    pub(super) fn is_converged(&self) -> bool {
        (0..KEYS).all(|key| self.are_equal(key))
    }

    fn are_equal(&self, key: usize) -> bool {
        let hash = SEED.key(&self.chart.keys[key].0);
        let digests: Vec<Digest> =
            self.replicas(key).iter().map(|&at| self.entry(at, key).digest(SEED, hash)).collect();
        digests.windows(2).all(|pair| pair[0] == pair[1])
    }

    /// A quiet cluster's replicas hold the same (invariant 11).
    fn check_converged(&mut self, key: usize) {
        if !self.are_equal(key) {
            let held = |&at: &usize| {
                let facts = &self.nodes[at].facts[key];
                let alive = [facts.seen, facts.values_alive(), facts.metas_alive()];
                let sets = alive.map(|set| each(set).collect::<Vec<_>>());
                format!("{} was told of, and has alive {sets:?}", place(at))
            };
            let held: Vec<String> = self.replicas(key).iter().map(held).collect();
            let held = held.join("; ");
            self.ledger.breach(|| format!("the replicas of key {key} do not converge: {held}"));
        }
    }

    /// Every acknowledged write is known, and what it removed is gone (invariants 9 and 10).
    fn check_kept(&mut self, key: usize) {
        let replicas = self.replicas(key);
        let seen = replicas.iter().fold(0, |all, &at| all | self.nodes[at].facts[key].seen);
        let mut wrong = None;
        for (number, write) in self.ledger.histories[key].writes.iter().enumerate() {
            if !write.acknowledged {
                continue;
            }
            let dot = shown(write.dot);
            if seen >> number & 1 == 0 {
                wrong = Some(format!("acknowledged write {number} ({dot}) of key {key} is lost"));
            }
            for &at in replicas {
                let facts = &self.nodes[at].facts[key];
                let back = write.own.values_gone & facts.values_alive();
                if back != 0 {
                    wrong = Some(format!(
                        "what acknowledged write {number} ({dot}) of key {key} removed is at {}",
                        place(at)
                    ));
                }
            }
        }
        self.ledger.expect(wrong.is_none(), || wrong.unwrap_or_default());
    }

    /// A counter is at least what was acknowledged and at most that and what is uncertain (16).
    fn check_count(&mut self, key: usize) {
        let (mut least, mut most) = (0, 0);
        for asked in self.ledger.requests.iter().filter(|asked| asked.key == key) {
            let Ask::Increment(amount) = asked.ask else { continue };
            match asked.ended {
                Some((_, Outcome::Done(Reply { changed: true, .. }))) => {
                    least += amount;
                    most += amount;
                }
                Some((_, Outcome::Uncertain)) | None => most += amount,
                _ => {}
            }
        }
        let at = self.replicas(key)[0];
        let (name, vnode) = &self.chart.keys[key];
        let node = &self.nodes[at];
        let count = node.keyspace.read(*vnode, node.wall(self.now), |keys| {
            use crate::value::view::Views;
            let view = keys.view(name)?;
            std::str::from_utf8(&view.string().ok()?).ok()?.parse::<i64>().ok()
        });
        let count = count.unwrap_or(0);
        self.ledger.expect((least..=most).contains(&count), || {
            format!("the counter is {count}, and should be from {least} to {most}")
        });
    }

    /// In a strict keyspace, and in calm times in any, a key's history is linearizable (13).
    fn check_history(&mut self, key: usize) {
        if !self.plan.quorum.strict() && self.plan.weather != Weather::Calm {
            return;
        }
        let history: Vec<Command> = self
            .ledger
            .requests
            .iter()
            .filter(|asked| asked.key == key)
            .filter_map(|asked| {
                let (ended, outcome) = asked.ended?;
                let set = |number: i64| Did::Set((number / 1_000) as u32);
                let did = match (asked.ask, outcome) {
                    (_, Outcome::NotRun) => return None,
                    (Ask::Increment(_), _) => return None,
                    (Ask::Set(number), Outcome::Done(_)) => set(number),
                    (Ask::Set(number) | Ask::SetIfAbsent(number), Outcome::Uncertain) => {
                        asked.write?;
                        set(number)
                    }
                    (Ask::SetIfAbsent(number), Outcome::Done(reply)) if reply.changed => {
                        set(number)
                    }
                    (Ask::Delete, Outcome::Done(reply)) if !reply.changed => Did::Get(None),
                    (Ask::Delete, _) => {
                        asked.write?;
                        Did::Delete
                    }
                    (Ask::Get, Outcome::Uncertain) => return None,
                    (Ask::Get | Ask::SetIfAbsent(_), Outcome::Done(reply)) => {
                        Did::Get(reply.number.map(|number| (number / 1_000) as u32))
                    }
                };
                let ended = matches!(outcome, Outcome::Done(_)).then_some(ended);
                Some(Command { did, began: asked.began, ended })
            })
            .collect();
        let fine = is_linearizable(&history);
        self.ledger
            .expect(fine, || format!("the history of key {key} is not linearizable: {history:?}"));
    }

    /// The trees are those that would be computed afresh, and equal where the replicas are (8).
    fn check_trees(&mut self) {
        for vnode in (0..VNODES).map(VnodeId) {
            let mut roots = Vec::new();
            for &at in &self.chart.replicas[vnode.index()] {
                let mut afresh = Tree::new();
                for key in (0..KEYS).filter(|&key| self.chart.keys[key].1 == vnode) {
                    let hash = SEED.key(&self.chart.keys[key].0);
                    afresh.add(hash, self.entry(at, key).digest(SEED, hash));
                }
                let same = self.nodes[at].keyspace.tree(vnode, |tree| *tree == afresh);
                self.ledger.expect(same, || format!("{}'s tree of {vnode:?} is wrong", place(at)));
                roots.push(afresh.root());
            }
            let same = roots.windows(2).all(|pair| pair[0] == pair[1]);
            self.ledger.expect(same, || format!("the roots of {vnode:?} differ"));
        }
    }
}
