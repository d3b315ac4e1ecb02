//! Exchanges with each peer, after `node/exchange.rs`: what is owed is walked one vnode at a time.

use std::collections::VecDeque;

use crate::anti_entropy::exchange::{Effect, Exchange, Needs, compare, needs, respond};
use crate::anti_entropy::keys::{KeyList, Span};
use crate::anti_entropy::message::{Message, Scope};
use crate::anti_entropy::tree::{BUCKETS, BucketSet, Tree};
use crate::base::hash::Digest;
use crate::base::id::VnodeId;
use crate::coordinator::route::Reach;
use crate::value::record::{self, Record};

use super::coordinate::id_of;
use super::frame::{Frame, Told};
use super::mutants::Mutant;
use super::plan::{KEYS, VNODES};
use super::world::{Due, World, place};

/// An exchange that has not come to its end by then is given up and begun anew.
const STUCK_MS: u64 = 400;

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
    whole: bool,
}

impl World {
    fn holds(&self, vnode: usize, at: usize) -> bool {
        self.chart.replicas[vnode].contains(&at)
    }

    /// A link to `peer` is up: whatever either side missed is found by comparing all vnodes that
    /// both hold.
    pub(super) fn owe(&mut self, at: usize, peer: usize) {
        for vnode in 0..usize::from(VNODES) {
            if self.holds(vnode, at) && self.holds(vnode, peer) {
                self.nodes[at].unsettled[vnode] |= 1 << peer;
            }
        }
    }

    /// The link to `lost` broke: its last writes may have reached only another replica.
    pub(super) fn owe_after_loss(&mut self, at: usize, lost: usize) {
        if self.is(Mutant::NotUnsettled) {
            return;
        }
        for vnode in
            (0..usize::from(VNODES)).filter(|&vnode| self.chart.replicas[vnode].contains(&at))
        {
            self.nodes[at].unsettled[vnode] &= !(1 << lost);
            if self.holds(vnode, lost) {
                for &other in &self.chart.replicas[vnode] {
                    if other != at && self.nodes[at].reach[other] == Reach::Up {
                        self.nodes[at].unsettled[vnode] |= 1 << other;
                    }
                }
            }
        }
        for peer in 0..self.plan.nodes {
            self.exchange_next(at, peer);
        }
    }

    /// Begins the next exchange that is owed with `peer`, unless one is under way.
    pub(super) fn exchange_next(&mut self, at: usize, peer: usize) {
        let known = &self.nodes[at].peers[peer];
        if known.link.is_none() || known.exchange.is_some() {
            return;
        }
        let owed = |vnode: &u16| self.nodes[at].unsettled[usize::from(*vnode)] >> peer & 1 == 1;
        let Some(vnode) = (0..VNODES).find(owed).map(VnodeId) else { return };
        let recovering = self.nodes[at].recovery.is_recovering(vnode);
        let whole = recovering && !self.is(Mutant::NoWholeExchange);
        let scope = if whole { Scope::Whole } else { Scope::Differing };
        let counting = self.nodes[at].reach[peer] == Reach::Up;
        let tree = self.tree(at, vnode, scope);
        let node = &mut self.nodes[at];
        node.peers[peer].exchanges += 1;
        let number = node.peers[peer].exchanges;
        let mut effects = Vec::new();
        let exchange = Exchange::start(number, scope, &tree, &mut effects);
        node.peers[peer].exchange =
            Some(Active { vnode, number, exchange, counting, whole: recovering });
        self.note(|_| {
            format!("{} compares vnode {} with {} ({scope:?})", place(at), vnode.0, place(peer))
        });
        self.due(at, STUCK_MS, Due::Exchange { peer, number });
        self.carry_out_exchange(at, peer, vnode, true, effects);
    }

    pub(super) fn exchange_stuck(&mut self, at: usize, peer: usize, number: u32) {
        let active = &mut self.nodes[at].peers[peer].exchange;
        if active.as_ref().is_some_and(|active| active.number == number) {
            *active = None;
            self.exchange_next(at, peer);
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
                false
            }
            Needs::Keys(scope, span) => {
                compare(message, &self.list(at, vnode, scope, span), &mut effects);
                false
            }
            Needs::Over => return,
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
                Effect::GivenUp => self.nodes[at].peers[peer].exchange = None,
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
        let node = &mut self.nodes[at];
        if node.recovery.is_recovering(vnode) && !active.whole {
            // It began before this node knew that it has to ask for everything.
            return self.exchange_next(at, peer);
        }
        node.unsettled[vnode.index()] &= !(1 << peer);
        let counting = active.counting && node.reach[peer] == Reach::Up;
        let was_over = node.recovery.is_over();
        node.recovery.on_exchanged(vnode, id_of(peer), counting);
        if node.recovery.is_over() && !was_over && !node.returning {
            node.reach[at] = Reach::Up;
            self.tell_status(at);
        }
        self.watch_return(at);
        self.exchange_next(at, peer);
    }
}

fn is_tombstone(bytes: &[u8]) -> bool {
    match record::decode(bytes) {
        Ok((_, Record::Whole(entry))) => entry.is_tombstone(),
        _ => false,
    }
}
