//! Exchanges with each peer, after `node/exchange.rs`: what is owed is walked one vnode at a time.

use std::collections::VecDeque;

use crate::anti_entropy::exchange::{Effect, Exchange, Needs, compare, needs, respond};
use crate::anti_entropy::keys::{KeyList, Span};
use crate::anti_entropy::message::{Body, Message, Scope};
use crate::anti_entropy::schedule::begins;
use crate::anti_entropy::tree::{BUCKETS, BucketSet, Tree};
use crate::base::hash::Digest;
use crate::base::id::VnodeId;
use crate::value::record::{self, Record};

use super::coordinate::id_of;
use super::frame::{Frame, Told};
use super::mutants::Mutant;
use super::plan::{KEYS, VNODES};
use super::world::{Due, World, place};

/// An exchange that has not come to its end by then is given up and begun anew.
const STUCK_MS: u64 = 400;

/// How long a vnode rests that the peer was busy with, at most.
const REST_MS: u64 = 40;

/// Keys of one list: so few that walks go in pieces.
const LIST_KEYS_MAX: usize = 3;

/// The exchange that a node has begun with a peer.
#[derive(Clone, Debug)]
pub(super) struct Active {
    vnode: VnodeId,
    number: u32,
    exchange: Exchange,
    /// Whether the peer counted when it began.
    counting: bool,
    /// How often the vnode had been owed, and recoveries begun.
    owed: u64,
    recoveries: u64,
}

/// What is known of an exchange that a peer has begun.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answering {
    number: u32,
    /// How often the vnode had been owed when its root was answered; `None`: it settles nothing.
    owed: Option<u64>,
}

impl World {
    /// Every vnode that both hold must be compared.
    pub(super) fn owe(&mut self, at: usize, peer: usize) {
        for vnode in self.shared_vnodes(at, peer) {
            self.owe_vnode(at, vnode, peer);
        }
    }

    /// Every vnode is compared once with every other replica, as it is now and then.
    pub(super) fn begin_round(&mut self) {
        self.note(|_| "a round of comparisons".to_owned());
        for at in 0..self.plan.nodes {
            for peer in (0..self.plan.nodes).filter(|&peer| peer != at) {
                for vnode in self.shared_vnodes(at, peer) {
                    if begins(id_of(at), id_of(peer), VnodeId(vnode as u16)) {
                        self.nodes[at].peers[peer].round |= 1 << vnode;
                    }
                }
                self.exchange_next(at, peer);
            }
        }
    }

    /// Begins the next exchange that is owed with `peer`, unless one is under way.
    pub(super) fn exchange_next(&mut self, at: usize, peer: usize) {
        if self.nodes[at].peers[peer].exchange.is_some() || !self.streams_are_through(at, peer) {
            return;
        }
        let Some(vnode) = self.next_vnode(at, peer) else { return };
        self.engage(at, vnode.index(), peer);
        let recovering = self.nodes[at].recovery.is_recovering(vnode);
        let whole = recovering && !self.is(Mutant::NoWholeExchange);
        let scope = if whole { Scope::Whole } else { Scope::Differing };
        let counting = self.nodes[at].reach[peer].counts();
        let tree = self.tree(at, vnode, scope);
        let node = &mut self.nodes[at];
        node.peers[peer].exchanges += 1;
        let number = node.peers[peer].exchanges;
        let mut effects = Vec::new();
        let exchange = Exchange::start(number, scope, &tree, &mut effects);
        let owed = node.unsettled.times_owed(vnode.index(), peer);
        let recoveries = node.recoveries;
        node.peers[peer].exchange =
            Some(Active { vnode, number, exchange, counting, owed, recoveries });
        self.note(|_| {
            format!("{} compares vnode {} with {} ({scope:?})", place(at), vnode.0, place(peer))
        });
        self.due(at, STUCK_MS, Due::Exchange { peer, number });
        self.carry_out_exchange(at, peer, vnode, true, effects);
    }

    /// What recovers first, then what is owed, then the round; nothing that is busy.
    fn next_vnode(&self, at: usize, peer: usize) -> Option<VnodeId> {
        let node = &self.nodes[at];
        let known = &node.peers[peer];
        let is_free = |vnode: usize| {
            let busy = known.answering.contains_key(&vnode) || known.resting >> vnode & 1 == 1;
            !busy && self.is_free(at, vnode, peer)
        };
        let wanted = |vnode: &VnodeId| {
            let wanted = node.recovery.wanted(*vnode).any(|other| other == id_of(peer));
            wanted && is_free(vnode.index())
        };
        let recovering = || node.recovery.vnodes().find(wanted);
        let recovering = node.reach[peer].counts().then(recovering).flatten();
        let vnodes = || (0..usize::from(VNODES)).filter(|&vnode| is_free(vnode));
        let owed = || vnodes().find(|&vnode| node.unsettled.owes(vnode, peer));
        let round = || vnodes().find(|vnode| known.round >> vnode & 1 == 1);
        recovering.or_else(|| owed().or_else(round).map(|vnode| VnodeId(vnode as u16)))
    }

    // ---- with one peer at a time --------------------------------------------------------------

    fn is_free(&self, at: usize, vnode: usize, peer: usize) -> bool {
        let engaged = self.nodes[at].engaged.get(&vnode);
        engaged.is_none_or(|&(other, since)| other == peer || self.now - since >= STUCK_MS)
    }

    /// `vnode` is compared with `peer` now and with nobody else, unless it is with another.
    fn engage(&mut self, at: usize, vnode: usize, peer: usize) -> bool {
        let is_free = self.is_free(at, vnode, peer);
        if is_free {
            self.nodes[at].engaged.insert(vnode, (peer, self.now));
        }
        is_free
    }

    /// The comparison of `vnode` with `peer` is over: others may begin.
    fn release(&mut self, at: usize, vnode: usize, peer: usize) {
        let engaged = &mut self.nodes[at].engaged;
        if engaged.get(&vnode).is_some_and(|engaged| engaged.0 == peer) {
            engaged.remove(&vnode);
            for peer in (0..self.plan.nodes).filter(|&peer| peer != at) {
                self.exchange_next(at, peer);
            }
        }
    }

    /// The peer begins to compare `vnode`, too: whether its exchange is to go on.
    fn gives_way(
        &mut self,
        at: usize,
        peer: usize,
        vnode: VnodeId,
        scope: Scope,
        number: u32,
    ) -> bool {
        if !self.engage(at, vnode.index(), peer) {
            return false;
        }
        let active = self.nodes[at].peers[peer].exchange.as_ref();
        if active.is_some_and(|active| active.vnode == vnode) {
            if begins(id_of(at), id_of(peer), vnode) {
                return false;
            }
            self.nodes[at].peers[peer].exchange = None;
        }
        let owed = self.nodes[at].unsettled.times_owed(vnode.index(), peer);
        let owed = (!scope.compares_states()).then_some(owed);
        let answering = Answering { number, owed };
        self.nodes[at].peers[peer].answering.insert(vnode.index(), answering);
        self.due(at, STUCK_MS, Due::Answered { peer, vnode: vnode.index(), number });
        true
    }

    /// The exchange `number` that the peer began is over; what was owed when it began is settled by
    /// it if `through`.
    fn answered(&mut self, at: usize, peer: usize, vnode: usize, number: u32, through: bool) {
        let answering = &mut self.nodes[at].peers[peer].answering;
        let Some(&Answering { number: begun, owed }) = answering.get(&vnode) else { return };
        if begun != number {
            return;
        }
        answering.remove(&vnode);
        if let Some(owed) = owed.filter(|_| through) {
            self.nodes[at].unsettled.settle_if(vnode, peer, owed);
            self.look_whether_compared(at, peer);
            self.watch_return(at);
        }
        self.release(at, vnode, peer);
        self.exchange_next(at, peer);
    }

    pub(super) fn answer_stuck(&mut self, at: usize, peer: usize, vnode: usize, number: u32) {
        self.answered(at, peer, vnode, number, false);
    }

    pub(super) fn exchange_stuck(&mut self, at: usize, peer: usize, number: u32) {
        let active = &mut self.nodes[at].peers[peer].exchange;
        if let Some(active) = active.take_if(|active| active.number == number) {
            self.release(at, active.vnode.index(), peer);
            self.exchange_next(at, peer);
        }
    }

    /// The link to `peer` is gone, and all that was under way on it.
    pub(super) fn end_exchanges(&mut self, at: usize, peer: usize) {
        let known = &mut self.nodes[at].peers[peer];
        let active = known.exchange.take().map(|active| active.vnode.index());
        let answering = std::mem::take(&mut known.answering).into_keys();
        for vnode in active.into_iter().chain(answering) {
            self.release(at, vnode, peer);
        }
    }

    pub(super) fn tree_message(
        &mut self,
        at: usize,
        peer: usize,
        vnode: VnodeId,
        message: &Message,
    ) {
        let mut effects = Vec::new();
        let begun = match needs(message) {
            Needs::Tree(scope) => {
                respond(message, &self.tree(at, vnode, scope), &mut effects);
                // Where nothing differs nobody need give way to anybody.
                let same = is_same(&effects);
                if !same && !self.gives_way(at, peer, vnode, scope, message.exchange) {
                    let busy = Message { exchange: message.exchange, body: Body::Busy };
                    self.send(at, peer, Frame::Tree { vnode, message: busy });
                    return;
                }
                let known = &mut self.nodes[at].peers[peer];
                let ships = known.exchange.as_ref().is_some_and(|active| active.vnode == vnode);
                if same && known.answering.remove(&vnode.index()).is_some() && !ships {
                    self.release(at, vnode.index(), peer);
                }
                false
            }
            Needs::Keys(scope, span) => {
                compare(message, &self.list(at, vnode, scope, span), &mut effects);
                false
            }
            Needs::Over => {
                return self.answered(at, peer, vnode.index(), message.exchange, true);
            }
            Needs::Nothing => {
                let active = self.nodes[at].peers[peer].exchange.as_ref();
                let Some(active) = active.filter(|active| active.vnode == vnode) else { return };
                let tree = self.tree(at, vnode, active.exchange.scope());
                if let Some(active) = &mut self.nodes[at].peers[peer].exchange {
                    active.exchange.on_message(message, &tree, &mut effects);
                }
                true
            }
        };
        self.carry_out_exchange(at, peer, vnode, begun, effects);
    }

    /// The tree of what `scope` compares.
    fn tree(&self, at: usize, vnode: VnodeId, scope: Scope) -> Tree {
        let node = &self.nodes[at];
        if !scope.compares_states() {
            return node.keyspace.tree(vnode, Clone::clone);
        }
        let mut sums = Box::new([Digest::NONE; BUCKETS]);
        node.keyspace.read(vnode, node.wall(self.now), |keys| {
            keys.add_sums(scope, BucketSet::ALL, &mut sums);
        });
        Tree::of(sums)
    }

    fn list(&self, at: usize, vnode: VnodeId, scope: Scope, span: Span) -> KeyList {
        let node = &self.nodes[at];
        node.keyspace.read(vnode, node.wall(self.now), |keys| keys.list(scope, span, LIST_KEYS_MAX))
    }

    fn carry_out_exchange(
        &mut self,
        at: usize,
        peer: usize,
        vnode: VnodeId,
        initiates: bool,
        effects: Vec<Effect>,
    ) {
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::Send(message) => {
                    self.send(at, peer, Frame::Tree { vnode, message });
                }
                Effect::List { scope, span } => {
                    let list = self.list(at, vnode, scope, span);
                    let mut more = Vec::new();
                    if let Some(active) = self.nodes[at].peers[peer].exchange.as_mut() {
                        active.exchange.on_keys(list, &mut more);
                    }
                    effects.extend(more);
                }
                // Nothing is so large here.
                Effect::Compare(_) => unreachable!("no collections"),
                Effect::SendEntries(hashes) => {
                    self.send_entries(at, peer, vnode, &hashes);
                    if let Some(active) = self.nodes[at].peers[peer].exchange.as_mut()
                        && initiates
                    {
                        let mut more = Vec::new();
                        active.exchange.on_entries_sent(&mut more);
                        effects.extend(more);
                    }
                }
                Effect::Done { .. } => {
                    if let Some(active) = self.nodes[at].peers[peer].exchange.take() {
                        self.exchanged(at, peer, &active);
                    }
                }
                Effect::GivenUp => {
                    // The peer is busy with it: it is tried again in a while.
                    let rest = REST_MS / 2 + self.chance.below(REST_MS / 2);
                    let known = &mut self.nodes[at].peers[peer];
                    known.exchange = None;
                    known.resting |= 1 << vnode.0;
                    self.due(at, rest, Due::Rested { peer, vnode: vnode.index() });
                    self.release(at, vnode.index(), peer);
                    self.exchange_next(at, peer);
                }
            }
        }
    }

    fn send_entries(&mut self, at: usize, peer: usize, vnode: VnodeId, hashes: &[u64]) {
        let mut records = Vec::new();
        let node = &self.nodes[at];
        node.keyspace.read(vnode, node.wall(self.now), |keys| {
            let cold = keys.records_of(hashes, |record| {
                let name = record::decode_key(record).expect("a record names its key");
                records.push((name.to_vec(), record.to_vec()));
            });
            assert!(cold.is_empty(), "there is no log to be cold in");
        });
        // A table's order is its own affair; a world's must be its seed's.
        records.sort_unstable();
        for (name, record) in records {
            if self.is(Mutant::NoTombstones) && is_tombstone(&record) {
                continue;
            }
            let key = (0..KEYS).find(|&key| self.chart.keys[key].0 == name).expect("a known key");
            let facts = self.nodes[at].facts[key];
            let told = Told { vnode, key, bytes: record.into(), facts };
            self.send(at, peer, Frame::Put { id: 0, told });
        }
    }

    fn exchanged(&mut self, at: usize, peer: usize, active: &Active) {
        let vnode = active.vnode;
        self.nodes[at].peers[peer].round &= !(1 << vnode.0);
        self.nodes[at].unsettled.settle_if(vnode.index(), peer, active.owed);
        self.look_whether_compared(at, peer);
        let whole = active.exchange.scope().compares_states() || self.is(Mutant::NoWholeExchange);
        let node = &mut self.nodes[at];
        if whole && active.recoveries == node.recoveries {
            let counting = active.counting && node.reach[peer].counts();
            let was_over = node.recovery.is_over();
            let restored = node.recovery.on_exchanged(vnode, id_of(peer), counting);
            self.ledger.happened.restored += u64::from(restored);
            let (over, returning) = (node.recovery.is_over() && !was_over, node.returning);
            if over {
                self.sync_soon(at);
            }
            if over && !returning {
                self.steer_own(at);
                self.tell_status(at);
            }
        }
        self.watch_return(at);
        self.release(at, vnode.index(), peer);
        self.exchange_next(at, peer);
    }
}

/// Whether a root was answered with: nothing differs.
fn is_same(effects: &[Effect]) -> bool {
    matches!(effects, [Effect::Send(Message { body: Body::Same, .. })])
}

fn is_tombstone(bytes: &[u8]) -> bool {
    match record::decode(bytes) {
        Ok((_, Record::Whole(entry))) => entry.is_tombstone(),
        _ => false,
    }
}
