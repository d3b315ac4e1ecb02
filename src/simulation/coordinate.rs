//! One request from its arrival to its reply: route → admit → run → replicate → reply.
//!
//! It follows the real shell (`node/execute.rs`, `node/inflight.rs`), with the lattice's changes in
//! the place of commands.

use std::borrow::Cow;
use std::rc::Rc;

use bytes::BytesMut;

use crate::base::id::{NodeId, VnodeId};
use crate::base::time::Dot;
use crate::coordinator::contract::{Effective, Override};
use crate::coordinator::route::{self, Reach, Route};
use crate::coordinator::stand_in::StandIn;
use crate::coordinator::tally::{Tally, Verdict};
use crate::value::change::{Amount, Change, Expire};
use crate::value::record::{self, Record};
use crate::value::view::Views;

use super::disk::Logged;
use super::facts::{Facts, Write};
use super::frame::{Frame, Outcome, Reply, Told};
use super::ledger::{Ask, Request, shown};
use super::mutants::Mutant;
use super::node::{Awaited, Forwarded, Origin, Waiter};
use super::world::{Due, World, place};

/// How long a request may wait for peers.
pub(super) const TIMEOUT_MS: u64 = 200;

/// The id of the node at a place.
pub(super) fn id_of(place: usize) -> NodeId {
    NodeId(place as u16 + 1)
}

/// The place of a node.
pub(super) fn place_of(node: NodeId) -> usize {
    usize::from(node.0) - 1
}

/// A number as a string's bytes, and back.
fn number_of(bytes: &[u8]) -> i64 {
    std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()).expect("a number")
}

impl World {
    // ---- routing ------------------------------------------------------------------------------

    pub(super) fn vnode_of(&self, request: usize) -> VnodeId {
        self.chart.keys[self.ledger.requests[request].key].1
    }

    fn reach(&self, at: usize, node: NodeId) -> Reach {
        self.nodes[at].reach[place_of(node)]
    }

    fn replica_ids(&self, vnode: VnodeId) -> Vec<NodeId> {
        self.chart.replicas[vnode.index()].iter().map(|&at| id_of(at)).collect()
    }

    /// The other replicas that count now.
    pub(super) fn others(&self, at: usize, vnode: VnodeId) -> Vec<NodeId> {
        let replicas = self.replica_ids(vnode);
        route::others(&replicas, id_of(at), |node| self.reach(at, node)).collect()
    }

    pub(super) fn counting(&self, at: usize, vnode: VnodeId) -> u8 {
        let replicas = &self.chart.replicas[vnode.index()];
        replicas.iter().filter(|&&peer| self.nodes[at].reach[peer].counts()).count() as u8
    }

    /// A client's request comes to its node.
    pub(super) fn submit(&mut self, at: usize, request: usize) {
        if !self.nodes[at].greeted {
            return self.answer(at, request, Origin::Client, Outcome::NotRun);
        }
        let replicas = self.replica_ids(self.vnode_of(request));
        let reach = |node| self.reach(at, node);
        match route::route(&replicas, id_of(at), route::Origin::Client, reach) {
            Route::Local => self.coordinate(at, request, Origin::Client),
            Route::Forward(peer) if !self.reach(at, peer).is_linked() => {
                self.answer(at, request, Origin::Client, Outcome::NotRun);
            }
            Route::Forward(peer) => self.forward(at, request, place_of(peer), false),
            Route::Nobody => match self.stand_in_for(at, request) {
                Some(peer) if peer == at => self.coordinate(at, request, Origin::Client),
                Some(peer) => self.forward(at, request, peer, true),
                None => self.answer(at, request, Origin::Client, Outcome::NotRun),
            },
        }
    }

    /// A peer believes that this node coordinates.
    pub(super) fn run_forwarded(
        &mut self,
        at: usize,
        request: usize,
        stands_in: bool,
        origin: Origin,
    ) {
        let stands_in = stands_in && self.may_stand_in(request);
        let may_run = self.is_replica(self.vnode_of(request), at) || stands_in;
        if may_run && self.nodes[at].reach[at].counts() {
            self.coordinate(at, request, origin);
        } else {
            self.answer(at, request, origin, Outcome::NotRun);
        }
    }

    fn forward(&mut self, at: usize, request: usize, peer: usize, stands_in: bool) {
        let id = self.nodes[at].number();
        let forwarded = Forwarded { peer, origin: Origin::Client, request };
        self.nodes[at].forwards.insert(id, forwarded);
        self.ledger.happened.forwards += 1;
        self.note(|_| format!("{} forwards #{request} to {}", place(at), place(peer)));
        self.due(at, TIMEOUT_MS, Due::Forward(id));
        self.send(at, peer, Frame::Forward { id, request, stands_in });
    }

    pub(super) fn forward_answered(&mut self, at: usize, id: u64, outcome: Outcome) {
        if let Some(forwarded) = self.nodes[at].forwards.remove(&id) {
            self.answer(at, forwarded.request, forwarded.origin, outcome);
        }
    }

    pub(super) fn give_up_forward(&mut self, at: usize, id: u64) {
        if let Some(forwarded) = self.nodes[at].forwards.remove(&id) {
            let writes = self.ledger.requests[forwarded.request].ask.writes();
            let outcome = if writes { Outcome::Uncertain } else { Outcome::NotRun };
            self.answer(at, forwarded.request, forwarded.origin, outcome);
        }
    }

    // ---- coordinating -------------------------------------------------------------------------

    fn coordinate(&mut self, at: usize, request: usize, origin: Origin) {
        let vnode = self.vnode_of(request);
        let writes = self.ledger.requests[request].ask.writes();
        let mut ask = self.effective(at, vnode);
        let Ok(stand_ins) = self.stand_ins_for(at, request, &mut ask) else {
            return self.answer(at, request, origin, Outcome::NotRun);
        };
        let hold = ask.hold;
        let ask = self.bent(ask, writes);
        if if writes { ask.precheck() } else { ask.read_needs() } > 1 {
            return self.begin_operation(at, request, ask, hold, stand_ins, origin);
        }
        if !writes {
            let reply = self.look(at, request);
            return self.answer(at, request, origin, Outcome::Done(reply));
        }
        let (reply, told) = self.run_here(at, request);
        let Some(told) = told else {
            return self.answer(at, request, origin, Outcome::Done(reply));
        };
        self.ledger.happened.sloppy += u64::from(!stand_ins.is_empty());
        let w = if self.is(Mutant::CountsTwice) { ask.w.saturating_sub(1) } else { ask.w };
        if w <= 1 {
            self.replicate(at, &told, &[], None);
            return self.answer(at, request, origin, Outcome::Done(reply));
        }
        let id = self.nodes[at].number();
        let candidates = self.replicate(at, &told, &stand_ins, Some(Waiter::Write(id)));
        let tally = Tally::new(candidates, w - 1);
        self.nodes[at].awaited.insert(id, Awaited { tally, origin, request, reply });
        self.due(at, TIMEOUT_MS, Due::Awaited(id));
    }

    /// What a request asks of the replicas, raised where this node may have missed something that
    /// another coordinator acknowledged.
    fn effective(&self, at: usize, vnode: VnodeId) -> Effective {
        let quorum = self.plan.quorum;
        let replicas = self.chart.replicas[vnode.index()].len();
        let mut ask = quorum.effective(Override::default(), replicas).expect("the contract's own");
        if ask.r == 1 && self.nodes[at].unsettled.contains(vnode.index()) {
            let covering = ask.n - quorum.w.min(ask.n) + 1;
            ask.r = covering.min(self.counting(at, vnode)).max(1);
        }
        ask
    }

    /// What it asks once a mutant has had its way.
    fn bent(&self, mut ask: Effective, writes: bool) -> Effective {
        if self.is(Mutant::NoPrecheck) && writes {
            ask.strict = false;
        }
        if self.is(Mutant::NoWriteBack) {
            ask.hold = 1;
        }
        ask
    }

    /// What `at` shows of a request's key.
    pub(super) fn look(&mut self, at: usize, request: usize) -> Reply {
        let key = self.ledger.requests[request].key;
        let (name, vnode) = &self.chart.keys[key];
        let node = &self.nodes[at];
        let number = node.keyspace.read(*vnode, node.wall(self.now), |keys| {
            keys.view(name).map(|view| number_of(&view.string().expect("a string")))
        });
        Reply { number, changed: false, seen: node.facts[key] }
    }

    /// Runs a write under the vnode's lock. What travels, if anything was changed.
    pub(super) fn run_here(&mut self, at: usize, request: usize) -> (Reply, Option<Told>) {
        let asked = self.ledger.requests[request];
        let seen = self.look(at, request);
        let alive = seen.number.is_some();
        let change = match asked.ask {
            Ask::Get => return (seen, None),
            Ask::SetIfAbsent(_) if alive => return (seen, None),
            Ask::Delete if !alive => return (seen, None),
            _ if !self.ledger.has_room(asked.key) => return (seen, None),
            Ask::Set(number) | Ask::SetIfAbsent(number) => {
                let value = Cow::Owned(number.to_string().into_bytes());
                Change::Put { value, expire: Expire::Clear }
            }
            Ask::Delete => Change::Delete,
            Ask::Increment(amount) => Change::Increment(Amount::Int(i128::from(amount))),
        };
        let (name, vnode) = &self.chart.keys[asked.key];
        let node = &self.nodes[at];
        let mut out = BytesMut::new();
        let blind = !self.is_replica(*vnode, at) && !self.is(Mutant::HintVector);
        let dot = node
            .keyspace
            .write(*vnode, node.wall(self.now), |keys| match blind {
                true => keys.apply_blind(name, &change, node.actor(), &mut out),
                false => keys.apply(name, &change, node.actor(), &mut out),
            })
            .expect("room for a value");
        let vnode = *vnode;
        if self.plan.quorum.strict() {
            self.check_above(request, dot);
        }
        let write = self.write_of(at, request, dot);
        let number = self.ledger.record(asked.key, write);
        let facts = &mut self.nodes[at].facts[asked.key];
        facts.learn(&write.own);
        let facts = self.told_by(at, asked.key, number, &out);
        let told = Told { vnode, key: asked.key, bytes: Rc::from(&out[..]), facts };
        let logged =
            Logged { vnode, key: asked.key, bytes: Some(told.bytes.clone()), facts, gone: false };
        self.log(at, logged);
        if !self.is_replica(vnode, at) {
            self.ledger.happened.blind += 1;
            self.hold_for_others(at);
        }
        self.note(|_| {
            format!(
                "{} runs #{request} as {} ({number} on key {})",
                place(at),
                shown(dot),
                asked.key
            )
        });
        self.check_key(at, asked.key);
        let now = self.look(at, request);
        (Reply { changed: true, ..now }, Some(told))
    }

    /// A new write, as the facts have it.
    fn write_of(&self, at: usize, request: usize, dot: Dot) -> Write {
        let asked = &self.ledger.requests[request];
        let (known, history) =
            (&self.nodes[at].facts[asked.key], &self.ledger.histories[asked.key]);
        let own = 1 << history.writes.len();
        let base = history.winner(known.values_alive());
        let all_gone = Facts {
            metas_gone: known.metas_alive(),
            values_gone: known.values_alive(),
            ..Facts::default()
        };
        let (base, amount, mut own) = match (asked.ask, base) {
            (Ask::Set(_) | Ask::SetIfAbsent(_), _) => {
                let made = Facts { metas: own, values: own, seen: own, ..all_gone };
                (0, 0, self.with_forgotten(at, asked.key, made))
            }
            // A stand-in that may have forgotten what it added counts beside what is there.
            (Ask::Increment(amount), Some(_)) if self.begins_beside(at, asked.key, dot) => {
                let made = Facts { values: own, increments: own, seen: own, ..Facts::default() };
                (history.writes.len(), amount, made)
            }
            (Ask::Increment(amount), Some(base)) => {
                (base, amount, Facts { increments: own, seen: own, ..Facts::default() })
            }
            (Ask::Increment(amount), None) => {
                let made =
                    Facts { metas: own, values: own, increments: own, seen: own, ..all_gone };
                (history.writes.len(), amount, made)
            }
            _ => (0, 0, Facts { seen: own, ..all_gone }),
        };
        own.seen |= known.seen;
        let blind = !self.is_replica(self.chart.keys[asked.key].1, at);
        Write {
            dot,
            request,
            own,
            base,
            blind,
            amount,
            promised: false,
            acknowledged: false,
            on_replicas: false,
            losses: 0,
        }
    }

    /// A stand-in's SET removes what its author wrote before, remembered or not.
    fn with_forgotten(&self, at: usize, key: usize, mut set: Facts) -> Facts {
        if self.is_replica(self.chart.keys[key].1, at) {
            return set;
        }
        let actor = self.nodes[at].actor();
        for (number, write) in self.ledger.histories[key].writes.iter().enumerate() {
            if write.dot.actor == actor {
                let bit = 1 << number;
                let (metas, values) = (write.own.metas & bit, write.own.values & bit);
                let (metas_gone, values_gone) = (metas, values);
                set.learn(&Facts { metas, values, metas_gone, values_gone, ..Facts::default() });
            }
        }
        set
    }

    /// Whether a write began a value of its own, although it is no replica's.
    fn begins_beside(&self, at: usize, key: usize, dot: Dot) -> bool {
        let entry = self.entry(at, key);
        let fields = entry.fields();
        let siblings = fields.iter().flat_map(|field| field.register.siblings());
        let began = siblings.map(|sibling| sibling.dot).any(|base| base == dot);
        !self.is_replica(self.chart.keys[key].1, at) && began
    }

    /// What the record of a new write tells.
    fn told_by(&self, at: usize, key: usize, write: usize, bytes: &[u8]) -> Facts {
        let known = self.nodes[at].facts[key];
        let (_, Record::Delta(fragment)) = record::decode(bytes).expect("what was encoded") else {
            return known;
        };
        let history = &self.ledger.histories[key];
        // It tells of every dot it names: what that write made, and what of it is gone.
        let mut told = Facts { seen: 1 << write, ..history.writes[write].own };
        for dot in fragment.names() {
            let named = history.find(dot).expect("a dot that was given");
            let made = history.writes[named].own;
            told.seen |= 1 << named;
            told.metas |= made.metas & 1 << named;
            told.values |= made.values & 1 << named;
            told.increments |= made.increments & 1 << named;
            told.metas_gone |= known.metas_gone & 1 << named;
            told.values_gone |= known.values_gone & 1 << named;
        }
        told
    }

    // ---- replicating --------------------------------------------------------------------------

    /// Sends a change to every other replica, or into its backlog while there is no link, and to the
    /// stand-ins. Those that count, by their places, are the answer; each is told to `waiter`.
    pub(super) fn replicate(
        &mut self,
        at: usize,
        told: &Told,
        stand_ins: &[StandIn],
        waiter: Option<Waiter>,
    ) -> u16 {
        let is_replica = self.is_replica(told.vnode, at);
        let mut to: Vec<(usize, usize, bool)> = Vec::new();
        for (nth, &peer) in self.chart.replicas[told.vnode.index()].iter().enumerate() {
            let reach = self.nodes[at].reach[peer];
            // What a stand-in writes, it holds until all have it: no need for a backlog, too.
            if peer != at && (is_replica || reach.is_linked()) {
                to.push((nth, peer, reach.counts()));
            }
        }
        to.extend(stand_ins.iter().map(|one| (usize::from(one.place), place_of(one.node), true)));
        let mut candidates = 0;
        for (nth, peer, counts) in to {
            let sent = self.send(at, peer, Frame::Rep(told.clone()));
            if let Some(sequence) = sent.filter(|_| counts) {
                candidates |= 1 << nth;
                if let Some(waiter) = waiter {
                    self.nodes[at].peers[peer].waiters.push_back((sequence, nth, waiter));
                }
            }
        }
        candidates
    }

    /// `peer` holds every change of the stream up to `upto`.
    pub(super) fn acknowledged(&mut self, at: usize, peer: usize, upto: u64) {
        self.stream_acknowledged(at, peer, upto);
        while let Some(&(sequence, nth, waiter)) = self.nodes[at].peers[peer].waiters.front() {
            if sequence > upto {
                break;
            }
            self.nodes[at].peers[peer].waiters.pop_front();
            match waiter {
                Waiter::Write(id) => self.judge(at, id, |tally| tally.ack(nth)),
                Waiter::Operation(id) => self.operation_acknowledged(at, id, peer),
            }
        }
    }

    /// Nothing will come from `peer` any more for anyone who waits for it.
    pub(super) fn stream_lost(&mut self, at: usize, peer: usize) {
        let waiters = std::mem::take(&mut self.nodes[at].peers[peer].waiters);
        for (_, nth, waiter) in waiters {
            match waiter {
                Waiter::Write(id) => self.judge(at, id, |tally| tally.lost(nth)),
                Waiter::Operation(id) => self.operation_lost(at, id, peer),
            }
        }
        let gone = self.nodes[at].forwards.iter().filter(|(_, forward)| forward.peer == peer);
        for id in gone.map(|(&id, _)| id).collect::<Vec<_>>() {
            if self.is(Mutant::ForwardRetried) {
                if let Some(forwarded) = self.nodes[at].forwards.remove(&id) {
                    self.submit(at, forwarded.request);
                }
            } else {
                self.give_up_forward(at, id);
            }
        }
    }

    fn judge(&mut self, at: usize, id: u64, tell: impl FnOnce(&mut Tally) -> Verdict) {
        let Some(awaited) = self.nodes[at].awaited.get_mut(&id) else { return };
        let verdict = tell(&mut awaited.tally);
        let Awaited { origin, request, reply, .. } = *awaited;
        let outcome = match verdict {
            Verdict::Waiting | Verdict::Settled => return,
            Verdict::Reached => Outcome::Done(reply),
            Verdict::Failed => Outcome::Uncertain,
        };
        self.nodes[at].awaited.remove(&id);
        self.answer(at, request, origin, outcome);
    }

    pub(super) fn give_up_awaited(&mut self, at: usize, id: u64) {
        if let Some(Awaited { origin, request, .. }) = self.nodes[at].awaited.remove(&id) {
            self.answer(at, request, origin, Outcome::Uncertain);
        }
    }

    // ---- replying -----------------------------------------------------------------------------

    /// A request's reply leaves.
    pub(super) fn answer(&mut self, at: usize, request: usize, origin: Origin, outcome: Outcome) {
        let outcome = match outcome {
            Outcome::Uncertain if self.is(Mutant::UncertainDenied) => Outcome::NotRun,
            outcome => outcome,
        };
        let Request { key, write, .. } = self.ledger.requests[request];
        if let (Outcome::Done(_), Some(write)) = (outcome, write) {
            self.promise(key, write);
        }
        match origin {
            Origin::Client => self.reply(at, request, outcome),
            Origin::Peer { peer, link, id } => {
                // A link's replies go over that link or nowhere.
                if self.nodes[at].peers[peer].link == Some(link) {
                    self.send(at, peer, Frame::ForwardReply { id, outcome });
                }
            }
        }
    }

    /// A write's coordinator says that it is done.
    fn promise(&mut self, key: usize, write: usize) {
        let replicas = self.chart.replicas[self.chart.keys[key].1.index()].iter();
        let holders = replicas.filter(|&&at| self.disk_holds(at, key, write)).count();
        let written = &mut self.ledger.histories[key].writes[write];
        written.promised = true;
        written.on_replicas = holders >= usize::from(self.plan.quorum.w);
    }

    /// What a mutant makes of a record that came.
    pub(super) fn bend<'a>(&self, record: Record<'a>) -> Record<'a> {
        match record {
            Record::Delta(fragment) if self.is(Mutant::NoPrev) => {
                Record::Delta(fragment.without_prev())
            }
            record => record,
        }
    }

    /// Whether `node`'s log holds a write.
    pub(super) fn disk_holds(&self, node: usize, key: usize, write: usize) -> bool {
        self.nodes[node].disk.seen(key) >> write & 1 == 1
    }
}
