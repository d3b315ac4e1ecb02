//! What this node holds for replicas that are away, and how it is brought to them.
//!
//! A stand-in keeps an entry in its own keyspace, under the vnode that it does not replicate: log,
//! recovery, compaction and memory work as for its own. Such vnodes take part in no exchange and
//! no count, and nobody reads them but a quorum that asks. The machine ([`crate::handoff::machine`])
//! decides who is sent what and when it is forgotten; coordinators decide who stands in
//! ([`crate::coordinator::stand_in`]).
//!
//! ```text
//!  keyspace, vnodes not held ──► look ──► machine ──► Put, with a number ──► replica's log
//!          ▲                              ▲  │  ▲                                 │
//!          └──────────── forget ◄─────────┼──┘  └─────────── PutAck ◄─────────────┤
//!                                       room ◄────────────── pace ◄───────────────┘
//! ```
//!
//! Little is done in one turn, and the runtime is free between two: what clients want comes first.

use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::base::hash::Digest;
use crate::base::id::{NodeId, VnodeId};
use crate::base::time::{Moment, UnixMs};
use crate::coordinator::contract::Effective;
use crate::coordinator::route::NoQuorum;
use crate::coordinator::stand_in::{StandIn, StandIns, read_beside, recruit};
use crate::handoff::machine::{Effect, Found, Handoff, Options};
use crate::handoff::pace;
use crate::peer::message::Message;

use super::Node;
use super::batch::{Batch, PeerIndex};
use super::execute::Request;
use super::quorum::Asked;

/// What is said when this node may hold no more for others.
pub(super) const FULL: &str =
    "NOQUORUM the key's stand-in holds as much for others as it may, nothing was done";

/// The rest between two turns in which something was done.
const TURN: Duration = Duration::from_millis(2);

/// The rest after a turn in which nothing could be done, while something is held.
const BEAT: Duration = Duration::from_millis(5);

/// How often it is looked whether anything is held for others.
const COUNT_EVERY: Duration = Duration::from_millis(100);

/// How long an answer is waited for; the machine sends anew earlier.
const ANSWER_WITHIN_MS: u64 = 30_000;

/// Of the bound, the part below which hints are taken again.
const ROOM_AGAIN_PART: u64 = 10;

/// An entry that was sent to a replica.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) peer: PeerIndex,
    pub(super) deadline: UnixMs,
    vnode: VnodeId,
    hash: u64,
    state: Digest,
    /// What the pace was told of it.
    cost: usize,
    at: Instant,
}

/// What a node keeps for this file.
#[derive(Debug)]
pub(super) struct Hints {
    /// The zero of the machine's moments.
    began: Instant,
    machine: Mutex<Handoff>,
}

impl Default for Hints {
    fn default() -> Hints {
        Hints { began: Instant::now(), machine: Mutex::new(Handoff::new(Options::default())) }
    }
}

impl Hints {
    fn now(&self) -> Moment {
        Moment(self.began.elapsed().as_millis() as u64)
    }
}

/// What was found last, for the effects that follow.
struct Page {
    vnode: VnodeId,
    keys: Vec<Vec<u8>>,
    found: Vec<Found>,
}

impl Page {
    fn of(vnode: VnodeId) -> Page {
        Page { vnode, keys: Vec::new(), found: Vec::new() }
    }
}

impl Node {
    /// Whether a stand-in may run this request, which asks nothing of the key's past.
    pub(super) fn may_stand_in(&self, request: &Request<'_>) -> bool {
        !self.quorum.strict() && request.writes() && request.spec.is_blind(request.args)
    }

    /// Who coordinates a request for a key none of whose replicas counts.
    pub(super) fn stand_in_for(&self, request: &Request<'_>, vnode: VnodeId) -> Option<PeerIndex> {
        self.routes.stand_in(vnode).filter(|_| self.may_stand_in(request))
    }

    /// Who takes part in a request that this node coordinates, beside the replicas that count. What
    /// it asks rises with them, if it reads.
    ///
    /// # Errors
    /// There are too few nodes: nothing was done.
    pub(super) fn stand_ins_for(
        &self,
        request: &Request<'_>,
        vnode: VnodeId,
        ask: &mut Effective,
    ) -> Result<StandIns, NoQuorum> {
        let counting = self.routes.standing(vnode).counting;
        let stands_in = !self.routes.holds(vnode, self.routes.me());
        let writes = request.writes();
        let needs = if writes { ask.write_needs() } else { ask.read_needs() };
        if !stands_in && counting >= needs.max(ask.w) {
            return Ok(StandIns::new());
        }
        let (reaches, fallbacks) = (self.routes.reaches(vnode), self.routes.fallbacks(vnode));
        let with =
            |needs| recruit(&reaches, fallbacks.iter().copied(), stands_in, needs, ask.strict);
        if writes {
            return with(needs);
        }
        let extra = ask.w.saturating_sub(counting);
        let beside = read_beside(*ask, extra);
        match with(beside.read_needs()) {
            Ok(found) => {
                *ask = beside;
                Ok(found)
            }
            Err(_) => with(needs),
        }
    }

    /// Counts a write that was run with these stand-ins.
    pub(super) fn count_stand_ins(&self, vnode: VnodeId, stand_ins: &[StandIn]) {
        if !stand_ins.is_empty() {
            self.metrics.sloppy_writes.bump();
        }
        if !self.routes.holds(vnode, self.routes.me()) {
            self.metrics.blind_writes.bump();
        }
    }

    /// How many keys and bytes this node holds for `node` that it has not acknowledged.
    pub fn hints_for(&self, node: NodeId) -> (usize, usize) {
        self.hints.machine.lock().hints_for(node)
    }

    /// The link to `peer` broke.
    pub(super) fn hints_lost(&self, peer: PeerIndex) {
        let (node, now) = (self.routes.node(peer), self.hints.now());
        self.hints.machine.lock().on_lost(node, now);
        self.peers[usize::from(peer)].paced.on_lost();
    }

    /// A replica has answered for an entry.
    pub(super) fn hint_answered(&self, sent: &Sent, held: bool) {
        let paced = &self.peers[usize::from(sent.peer)].paced;
        paced.on_answer(sent.cost, sent.at.elapsed());
        if held {
            self.metrics.hints_acknowledged.bump();
        }
        self.tell_of_hint(sent, held);
    }

    fn tell_of_hint(&self, sent: &Sent, held: bool) {
        let (about, from) = ((sent.hash, sent.state), self.routes.node(sent.peer));
        self.hints.machine.lock().on_answer(sent.vnode, about, from, held, self.hints.now());
    }

    /// A replica has not answered for an entry for very long.
    pub(super) fn hint_unanswered(&self, sent: &Sent) {
        self.peers[usize::from(sent.peer)].paced.on_landed(sent.cost);
    }

    pub(super) async fn hand_on_always(&self) {
        let (mut batch, mut page) = (self.batch(), Page::of(VnodeId(0)));
        let mut counted: Option<Instant> = None;
        loop {
            if counted.is_none_or(|at| at.elapsed() >= COUNT_EVERY) {
                counted = Some(Instant::now());
                self.count_hints();
            }
            if self.metrics.hints_keys.value() == 0 {
                sleep(COUNT_EVERY).await;
                continue;
            }
            self.begin(&mut batch);
            let any = self.hand_on_some(&mut batch, &mut page);
            // What is not held here is not forgotten there: it is found and sent again.
            let _ = self.conclude(&mut batch).await;
            sleep(if any { TURN } else { BEAT }).await;
        }
    }

    /// Tells the machine what is held for others and who is in reach.
    fn count_hints(&self) {
        let (me, now) = (self.routes.me(), self.hints.now());
        let mut machine = self.hints.machine.lock();
        for vnode in self.vnodes().filter(|&vnode| !self.routes.holds(vnode, me)) {
            let counts = self.keyspace.counts(vnode);
            let replicas: SmallVec<[NodeId; 8]> =
                self.routes.replicas(vnode).iter().map(|&peer| self.routes.node(peer)).collect();
            let changed = self.keyspace.hlc(vnode);
            machine.on_held(vnode, &replicas, counts.held, counts.stored, changed);
        }
        for peer in (0..self.peers.len() as PeerIndex).filter(|&peer| peer != me) {
            let counts = self.routes.reach(peer).counts();
            machine.on_reach(self.routes.node(peer), counts, now);
        }
        let (keys, bytes) = machine.held();
        drop(machine);
        let before = self.metrics.hints_keys.value();
        if before > 0 && keys == 0 {
            info!("all that was held for others has been handed on");
        }
        self.metrics.hints_keys.set(keys as u64);
        self.metrics.hints_bytes.set(bytes as u64);
        self.bound_hints(bytes as u64);
    }

    fn bound_hints(&self, bytes: u64) {
        let (me, max) = (self.routes.me(), self.options.hints_max);
        let full = match self.routes.is_full(me) {
            true => bytes > max - max / ROOM_AGAIN_PART,
            false => bytes >= max && bytes > 0,
        };
        if full != self.routes.is_full(me) {
            match full {
                true => warn!(bytes, "this node holds as much for others as it may (hints-max)"),
                false => info!(bytes, "this node takes hints again"),
            }
            self.routes.set_full(me, full);
            self.tell_status();
        }
    }

    /// Sends and forgets some of what is held for others; whether there was any.
    fn hand_on_some(&self, batch: &mut Batch, page: &mut Page) -> bool {
        let (me, now) = (self.routes.me(), self.hints.now());
        let mut effects = Vec::new();
        {
            let mut machine = self.hints.machine.lock();
            for peer in (0..self.peers.len() as PeerIndex).filter(|&peer| peer != me) {
                let room = self.peers[usize::from(peer)].paced.allowance();
                machine.on_room(self.routes.node(peer), room);
            }
            machine.on_tick(now, &mut effects);
        }
        if let [Effect::Look { vnode, tags }] = &effects[..] {
            let (vnode, tags) = (*vnode, tags.clone());
            effects.clear();
            *page = self.page_of(batch, vnode, tags.clone());
            let mut machine = self.hints.machine.lock();
            machine.on_found(vnode, tags, &page.found, now, &mut effects);
        }
        for effect in &effects {
            match effect {
                Effect::Send { nth, to } => self.send_hint(batch, page, *nth, *to),
                Effect::Forget { nth } => self.forget_hint(batch, page, *nth),
                Effect::Look { .. } => unreachable!("one page at a time"),
            }
        }
        !effects.is_empty()
    }

    fn page_of(&self, batch: &Batch, vnode: VnodeId, tags: Range<u16>) -> Page {
        let mut page = Page::of(vnode);
        self.keyspace.read(vnode, batch.now, |keys| {
            keys.states(tags, |key, hash, state, bytes| {
                page.keys.push(key.to_vec());
                page.found.push(Found { hash, state, bytes });
            });
        });
        page
    }

    fn send_hint(&self, batch: &mut Batch, page: &Page, nth: usize, to: NodeId) {
        let Some(peer) = self.routes.index(to) else { return };
        let (vnode, Found { hash, state, .. }) = (page.vnode, page.found[nth]);
        let deadline = UnixMs(batch.now.0 + ANSWER_WITHIN_MS);
        let mut sent = Sent { peer, deadline, vnode, hash, state, cost: 0, at: Instant::now() };
        let mut record = BytesMut::new();
        // What is on disk and cannot be read stays, and is tried again.
        match self.record_of(batch, vnode, &page.keys[nth], &mut record) {
            Ok(true) => {
                self.metrics.hints_sent.bump();
                sent.cost = pace::hint_cost(record.len());
                self.peers[usize::from(peer)].paced.on_sent(sent.cost);
                let id = self.operations.asked.lock().insert(Asked::Hint(sent)).number();
                batch.to(peer).send(&Message::Put { id, vnode, record: &record });
            }
            _ => self.tell_of_hint(&sent, false),
        }
    }

    fn forget_hint(&self, batch: &mut Batch, page: &Page, nth: usize) {
        let (vnode, state, actor) = (page.vnode, page.found[nth].state, self.actor());
        let key = &page.keys[nth];
        let forgotten =
            self.keyspace.write(vnode, batch.now, |keys| keys.forget(key, state, actor));
        if forgotten {
            self.metrics.hints_forgotten.bump();
            self.note(batch, vnode);
        }
    }
}
