//! What a node holds for replicas that are away, and how it is brought to them, after
//! `node/handoff.rs`; and who stands in for whom.

use std::ops::Range;

use crate::base::hash::Digest;
use crate::base::id::{NodeId, VnodeId};
use crate::base::time::Moment;
use crate::coordinator::contract::Effective;
use crate::coordinator::route::{self, NoQuorum, Reach};
use crate::coordinator::stand_in::{StandIns, read_beside, recruit};
use crate::handoff::machine::{Effect, Found};

use super::coordinate::{id_of, place_of};
use super::disk::Logged;
use super::facts::Facts;
use super::frame::Frame;
use super::ledger::Ask;
use super::mutants::Mutant;
use super::plan::{KEYS, VNODES};
use super::world::{Due, World, place};

/// How often the machine looks at what is held.
const BEAT_MS: u64 = 15;

/// An entry that was sent to a replica.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    vnode: VnodeId,
    hash: u64,
    state: Digest,
    peer: usize,
}

impl World {
    pub(super) fn is_replica(&self, vnode: VnodeId, at: usize) -> bool {
        self.chart.replicas[vnode.index()].contains(&at)
    }

    // ---- who stands in ------------------------------------------------------------------------

    /// Whether a stand-in may run a request, which asks nothing of the key's past.
    pub(super) fn may_stand_in(&self, request: usize) -> bool {
        let blind = matches!(self.ledger.requests[request].ask, Ask::Set(_) | Ask::Increment(_));
        blind && !self.plan.quorum.strict()
    }

    /// Who coordinates a request for a key none of whose replicas counts.
    pub(super) fn stand_in_for(&self, at: usize, request: usize) -> Option<usize> {
        let fallbacks = &self.chart.fallbacks[self.vnode_of(request).index()];
        let nodes: Vec<NodeId> = fallbacks.iter().map(|&node| id_of(node)).collect();
        let found = route::stand_in(&nodes, |node| self.nodes[at].reach[place_of(node)]);
        found.filter(|_| self.may_stand_in(request)).map(place_of)
    }

    /// Who takes part in a request that `at` coordinates, beside the replicas that count.
    pub(super) fn stand_ins_for(
        &self,
        at: usize,
        request: usize,
        ask: &mut Effective,
    ) -> Result<StandIns, NoQuorum> {
        let vnode = self.vnode_of(request);
        let counting = self.counting(at, vnode);
        let stands_in = !self.is_replica(vnode, at);
        let writes = self.ledger.requests[request].ask.writes();
        let needs = if writes { ask.write_needs() } else { ask.read_needs() };
        if !stands_in && counting >= needs.max(ask.w) {
            return Ok(StandIns::new());
        }
        let reach = |peer: &usize| self.nodes[at].reach[*peer];
        let reaches: Vec<Reach> = self.chart.replicas[vnode.index()].iter().map(reach).collect();
        let fallbacks = self.chart.fallbacks[vnode.index()].iter();
        let fallbacks = fallbacks.filter(|&&peer| peer != at && reach(&peer).counts());
        let fallbacks: Vec<NodeId> = fallbacks.map(|&peer| id_of(peer)).collect();
        let with =
            |needs| recruit(&reaches, fallbacks.iter().copied(), stands_in, needs, ask.strict);
        if writes {
            return with(needs);
        }
        let beside = read_beside(*ask, ask.w.saturating_sub(counting));
        match with(beside.read_needs()) {
            Ok(found) => {
                *ask = beside;
                Ok(found)
            }
            Err(_) => with(needs),
        }
    }

    // ---- handing on ---------------------------------------------------------------------------

    /// Something of a vnode that is not its own has come to `at`.
    pub(super) fn hold_for_others(&mut self, at: usize) {
        if !std::mem::replace(&mut self.nodes[at].handing, true) {
            self.due(at, BEAT_MS, Due::HandOn);
        }
    }

    pub(super) fn hand_on(&mut self, at: usize) {
        self.nodes[at].handing = false;
        if !self.count_hints(at) {
            return;
        }
        for _ in 0..usize::from(VNODES) {
            if !self.hand_on_some(at) {
                break;
            }
        }
        self.hold_for_others(at);
    }

    /// Tells the machine what is held for others and who is in reach; whether anything is held.
    fn count_hints(&mut self, at: usize) -> bool {
        let (now, one_is_enough) = (Moment(self.now), self.is(Mutant::HintOneAck));
        let mut any = false;
        for vnode in (0..VNODES).map(VnodeId) {
            if self.is_replica(vnode, at) {
                continue;
            }
            let node = &mut self.nodes[at];
            let counts = node.keyspace.counts(vnode);
            let replicas = self.chart.replicas[vnode.index()].iter();
            let mut replicas: Vec<NodeId> = replicas.map(|&peer| id_of(peer)).collect();
            if one_is_enough {
                replicas.truncate(1);
            }
            let changed = node.keyspace.hlc(vnode);
            node.handoff.on_held(vnode, &replicas, counts.held, counts.stored, changed);
            any |= counts.held > 0;
        }
        let node = &mut self.nodes[at];
        for peer in (0..node.peers.len()).filter(|&peer| peer != at) {
            node.handoff.on_reach(id_of(peer), node.reach[peer].counts(), now);
            node.handoff.on_room(id_of(peer), usize::MAX);
        }
        any
    }

    fn hand_on_some(&mut self, at: usize) -> bool {
        let now = Moment(self.now);
        let mut effects = Vec::new();
        self.nodes[at].handoff.on_tick(now, &mut effects);
        if let [Effect::Look { vnode, tags }] = &effects[..] {
            let (vnode, tags) = (*vnode, tags.clone());
            effects.clear();
            self.look_at_hints(at, vnode, tags, &mut effects);
        }
        let any = !effects.is_empty();
        for effect in effects {
            let (Effect::Send { nth, .. } | Effect::Forget { nth }) = effect else {
                unreachable!("one page at a time")
            };
            let (vnode, page) = &self.nodes[at].page;
            let (vnode, entry) = (*vnode, page[nth].clone());
            match effect {
                Effect::Send { to, .. } => self.send_hint(at, vnode, &entry, place_of(to)),
                _ => self.forget_hint(at, vnode, &entry),
            }
        }
        any
    }

    fn look_at_hints(
        &mut self,
        at: usize,
        vnode: VnodeId,
        tags: Range<u16>,
        effects: &mut Vec<Effect>,
    ) {
        let node = &mut self.nodes[at];
        let mut page: Vec<(Vec<u8>, Found)> = Vec::new();
        node.keyspace.read(vnode, node.wall(self.now), |keys| {
            keys.states(tags.clone(), |key, hash, state, bytes| {
                page.push((key.to_vec(), Found { hash, state, bytes }));
            });
        });
        page.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let found: Vec<Found> = page.iter().map(|(_, found)| *found).collect();
        node.page = (vnode, page);
        node.handoff.on_found(vnode, tags, &found, Moment(self.now), effects);
    }

    fn key_named(&self, name: &[u8]) -> usize {
        (0..KEYS).find(|&key| self.chart.keys[key].0 == name).expect("a known key")
    }

    fn send_hint(
        &mut self,
        at: usize,
        vnode: VnodeId,
        (name, found): &(Vec<u8>, Found),
        to: usize,
    ) {
        let Found { hash, state, .. } = *found;
        let told = self.told(at, self.key_named(name));
        let id = self.nodes[at].number();
        let sent = Sent { vnode, hash, state, peer: to };
        self.nodes[at].hints.insert(id, sent);
        if self.send(at, to, Frame::Put { id, told }).is_none() {
            self.hint_answered(at, id, false);
        }
    }

    /// A replica has answered for an entry; whether it was one that was handed on.
    pub(super) fn hint_answered(&mut self, at: usize, id: u64, held: bool) -> bool {
        let now = Moment(self.now);
        let node = &mut self.nodes[at];
        let Some(Sent { vnode, hash, state, peer }) = node.hints.remove(&id) else {
            return false;
        };
        node.handoff.on_answer(vnode, (hash, state), id_of(peer), held, now);
        true
    }

    fn forget_hint(&mut self, at: usize, vnode: VnodeId, (name, found): &(Vec<u8>, Found)) {
        let key = self.key_named(name);
        let node = &self.nodes[at];
        let (wall, actor) = (node.wall(self.now), node.actor());
        let gone = node.keyspace.write(vnode, wall, |keys| keys.forget(name, found.state, actor));
        if gone {
            self.check_forgotten(at, key);
            self.nodes[at].facts[key] = Facts::default();
            self.ledger.happened.forgotten += 1;
            self.log(at, Logged { vnode, key, bytes: None, facts: Facts::default(), gone: true });
            self.note(|_| format!("{} forgets key {key}, which all replicas have", place(at)));
        }
    }

    /// What was forgotten is forgotten again, as the log is read.
    pub(super) fn forget_again(&mut self, at: usize, logged: &Logged) {
        let node = &mut self.nodes[at];
        let (name, wall, actor) =
            (&self.chart.keys[logged.key].0, node.wall(self.now), node.actor());
        node.keyspace.write(logged.vnode, wall, |keys| {
            let state = keys.read().state_digest(name);
            keys.forget(name, state, actor)
        });
        node.facts[logged.key] = Facts::default();
    }
}
