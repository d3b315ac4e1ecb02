//! Requests that wait for a key: BLPOP and its kin.
//!
//! ```text
//!  session's node                                   coordinator
//!  ──────────────                                   ───────────
//!  the session waits, and keeps the time            finds nothing ──► queue of each of its keys
//!     │ time is over, CLIENT UNBLOCK, gone                                 │ a key changes here
//!     └──────────── FwdEnd ────────────────────────► leaves the queue      ▼
//!     ◄──────────── FwdReply ─────────────────────── its reply      runs again, in order
//!     ◄──────────── FwdReply: unserved ───────────── this node coordinates no more, or stops
//!  asks who coordinates now
//! ```
//!
//! Invariants: a request that waits has had no effect, so it may be taken elsewhere. Whoever waits is
//! in the queues before the keys are looked at for the last time, so no change passes unseen
//! ([`crate::coordinator::waiting`]). A wait ends by its reply, its session's end or its link's,
//! and in no other way: the coordinator keeps no time.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::base::id::VnodeId;
use crate::command::blocking::{awaited, is_nothing, wanted};
use crate::command::flags::Flag;
use crate::command::spec::Keyed;
use crate::coordinator::waiting::{Ending, Left, Returned, WaitId, Waits};
use crate::peer::message::{FwdStatus, Message};
use crate::resp::reply::Reply;
use crate::value::view::Views;

use super::Node;
use super::batch::{Batch, Origin, PeerIndex};
use super::execute::{KeptRequest, Outcome, Request};
use super::replies::{Replies, ReplyBytes};
use super::slab::Ticket;

/// How long a node that stops waits for the others to know who has to look elsewhere.
const RELEASE_WAIT: Duration = Duration::from_millis(500);

/// Where a connection's request waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// In this node's queues.
    Here(WaitId),
    /// At another node, to which it was forwarded.
    There(Ticket),
}

/// A request that waits here.
#[derive(Debug)]
struct Kept {
    request: Arc<KeptRequest>,
    run: Keyed,
    vnode: VnodeId,
    origin: Origin,
    /// Who coordinated when it came, as this node believed.
    coordinator: Option<PeerIndex>,
}

/// A forwarded request that may wait at the node that runs it.
#[derive(Debug)]
pub(super) struct Abroad {
    request: KeptRequest,
    /// Its end was called, and the other node is told so until it answers.
    ending: Option<Ending>,
    unserved: Option<Turn>,
}

/// The other node coordinates no more: when who does is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Turn {
    /// With the tick after the next: a node that stops says goodbye first.
    Soon,
    Now,
}

impl Abroad {
    /// Of a request that may wait.
    pub(super) fn of(request: &Request<'_>) -> Option<Box<Abroad>> {
        let kept = || KeptRequest::of(request);
        let abroad = || Box::new(Abroad { request: kept(), ending: None, unserved: None });
        request.spec.flags.has(Flag::Blocking).then(abroad)
    }

    /// Whether it lies at the other node, as far as is known.
    pub(super) const fn is_there(&self) -> bool {
        self.unserved.is_none()
    }
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    count: AtomicUsize,
    table: Mutex<Table>,
    /// Whether there are keys to be looked at that no batch has taken.
    is_due: AtomicBool,
}

#[derive(Debug, Default)]
struct Table {
    waits: Waits<Kept>,
    /// Those that peers forwarded, by the peers' numbers.
    forwarded: HashMap<(PeerIndex, u64), WaitId>,
    due: Vec<Vec<u8>>,
    /// Those that were sent away when this node stopped, and whose nodes have not said that they
    /// know.
    released: HashSet<(PeerIndex, u64)>,
}

impl Waiting {
    /// Whether anybody waits. Whoever changes a key asks while it holds the vnode's lock, or later.
    pub(super) fn any(&self) -> bool {
        // Whoever waits has taken that lock after it was counted.
        self.count.load(Ordering::Relaxed) > 0
    }

    /// A key has changed; whether somebody waits there.
    fn changed(&self, key: &[u8]) -> bool {
        self.table.lock().waits.changed(key)
    }

    fn any_at(&self, keys: &[&[u8]]) -> bool {
        self.any() && {
            let table = self.table.lock();
            keys.iter().any(|key| table.waits.has(key))
        }
    }

    fn enter(&self, keys: &[&[u8]], runs: bool, kept: Kept) -> WaitId {
        let kind = wanted(kept.request.spec);
        let mut table = self.table.lock();
        let from = match &kept.origin {
            Origin::Peer { peer, id } => Some((*peer, *id)),
            _ => None,
        };
        let at_session = session_of(&kept.origin);
        let id = table.waits.enter(kind, keys, runs, kept);
        if let Some(from) = from {
            table.forwarded.insert(from, id);
        }
        if let Some(replies) = at_session {
            replies.wait_at(Place::Here(id));
        }
        self.count.store(table.waits.len(), Ordering::Relaxed);
        id
    }

    /// Whose turn it is at `key`.
    fn begin(
        &self,
        key: &[u8],
        kind: crate::value::view::Kind,
    ) -> Option<(WaitId, Arc<KeptRequest>, Keyed)> {
        let mut table = self.table.lock();
        let (id, kept) = table.waits.begin(key, kind)?;
        Some((id, kept.request.clone(), kept.run))
    }

    /// One has left.
    fn gone(&self, table: &mut Table, left: &Left<Kept>) {
        if let Origin::Peer { peer, id } = left.wait.origin
            && table.forwarded.get(&(peer, id)) == Some(&left.id)
        {
            table.forwarded.remove(&(peer, id));
        }
        self.count.store(table.waits.len(), Ordering::Relaxed);
    }

    fn put_off(&self, table: &mut Table, keys: Vec<Vec<u8>>) {
        if !keys.is_empty() {
            table.due.extend(keys);
            self.is_due.store(true, Ordering::Release);
        }
    }

    fn end_with(
        &self,
        table: &mut Table,
        left: Left<Kept>,
        ending: Ending,
    ) -> (Origin, ReplyBytes) {
        self.gone(table, &left);
        self.put_off(table, left.keys);
        let reply = ending.reply(left.wait.request.protocol);
        (left.wait.origin, ReplyBytes::from_slice(&reply.bytes))
    }

    /// A run has ended with this reply; who is answered, if anybody is.
    pub(super) fn settled(
        &self,
        id: WaitId,
        status: FwdStatus,
        reply: ReplyBytes,
    ) -> Option<(Origin, ReplyBytes)> {
        let mut table = self.table.lock();
        if status == FwdStatus::Ok && is_nothing(&reply) {
            match table.waits.returned(id) {
                Returned::Waits | Returned::Unknown => None,
                Returned::Look(keys) => {
                    self.put_off(&mut table, keys);
                    None
                }
                Returned::Ended(left, ending) => Some(self.end_with(&mut table, left, ending)),
            }
        } else {
            let left = table.waits.leave(id)?;
            self.gone(&mut table, &left);
            self.put_off(&mut table, left.keys);
            Some((left.wait.origin, reply))
        }
    }

    /// The end of a wait is called; who is answered at once, if anybody is.
    fn end(&self, id: WaitId, ending: Ending) -> Option<(Origin, ReplyBytes)> {
        let mut table = self.table.lock();
        let left = table.waits.end(id, ending)?;
        Some(self.end_with(&mut table, left, ending))
    }

    /// Takes those that wait and do not run, and that `wanted` says yes to.
    fn take(&self, wanted: impl FnMut(&Kept) -> bool) -> Vec<Kept> {
        let mut table = self.table.lock();
        let taken = table.waits.take(wanted);
        taken.iter().for_each(|left| self.gone(&mut table, left));
        taken.into_iter().map(|left| left.wait).collect()
    }
}

/// The connection of this node whose request it is.
pub(super) fn session_of(origin: &Origin) -> Option<Arc<Replies>> {
    match origin {
        Origin::Session { replies, .. } => Some(replies.clone()),
        _ => None,
    }
}

impl Node {
    /// Coordinates a blocking request: does what can be done at once, or lets it wait.
    pub(super) fn coordinate_blocking(
        &self,
        batch: &mut Batch,
        request: &Request<'_>,
        vnode: VnodeId,
        run: Keyed,
        out: &mut Reply,
        origin: impl FnOnce() -> Origin,
    ) -> Outcome {
        let keys = awaited(request.spec, request.args);
        let origin = Cell::new(Some(origin));
        let enter = |runs: bool| {
            let kept = Kept {
                request: Arc::new(KeptRequest::of(request)),
                run,
                vnode,
                origin: origin.take().expect("an origin is asked for once")(),
                coordinator: self.routes.standing(vnode).coordinator,
            };
            self.waiting.enter(&keys, runs, kept)
        };
        let mark = out.bytes.len();
        if self.waiting.any_at(&keys) {
            // Behind those who came before; but first what is wrong with it, if anything is.
            self.run_keyless(batch, request, run, out);
            if !is_nothing(&out.bytes[mark..]) {
                return Outcome::Replied(FwdStatus::NotRun);
            }
        } else {
            let runs = || Origin::Waiting { waiting: self.waiting.clone(), id: enter(true) };
            match self.coordinate_now(batch, request, vnode, run, out, runs) {
                Outcome::Pending => {
                    self.release_served(batch);
                    return Outcome::Pending;
                }
                Outcome::Replied(FwdStatus::Ok) if is_nothing(&out.bytes[mark..]) => {}
                replied => return replied,
            }
        }
        out.bytes.truncate(mark);
        enter(false);
        // Something may have come between the look and the queue.
        batch.ready.extend(keys.iter().map(|key| key.to_vec()));
        Outcome::Pending
    }

    /// A request that waits for acknowledgements only has been served: it leaves the queues, so
    /// that the next one may run. Whether the last one was like that.
    fn release_served(&self, batch: &mut Batch) -> bool {
        let Some(written) = batch.awaited.last_mut() else { return false };
        let Origin::Waiting { id, .. } = written.origin else { return false };
        let mut table = self.waiting.table.lock();
        let Some(left) = table.waits.leave(id) else { return false };
        self.waiting.gone(&mut table, &left);
        if let Some(replies) = session_of(&left.wait.origin) {
            replies.wait_over();
        }
        written.origin = left.wait.origin;
        batch.ready.extend(left.keys);
        true
    }

    /// Notes that keys were changed here, for those who wait for them.
    pub(super) fn note_changed<'k>(
        &self,
        batch: &mut Batch,
        keys: impl IntoIterator<Item = &'k [u8]>,
    ) {
        for key in keys {
            if self.waiting.changed(key) {
                batch.ready.push_back(key.to_vec());
            }
        }
    }

    /// Runs those who wait for keys that have changed. After every command, so that its client's
    /// next one sees what they left.
    pub(super) fn serve_ready(&self, batch: &mut Batch) {
        if self.waiting.is_due.load(Ordering::Relaxed)
            && self.waiting.is_due.swap(false, Ordering::AcqRel)
        {
            let due = std::mem::take(&mut self.waiting.table.lock().due);
            batch.ready.extend(due);
        }
        while let Some(key) = batch.ready.pop_front() {
            self.serve(batch, &key);
        }
    }

    /// Runs those who wait at a key, until one finds nothing or must ask other nodes first.
    fn serve(&self, batch: &mut Batch, key: &[u8]) {
        let vnode = self.vnode_of(key);
        loop {
            let look = |keys: &dyn Views| keys.view(key).map(|view| view.kind);
            let kind = self.keyspace.read(vnode, batch.now, |keys| look(keys));
            let Some((id, request, run)) = kind.and_then(|kind| self.waiting.begin(key, kind))
            else {
                return;
            };
            let mut out = Reply::new(request.protocol);
            let origin = || Origin::Waiting { waiting: self.waiting.clone(), id };
            let outcome = request
                .with(|request| self.coordinate_now(batch, request, vnode, run, &mut out, origin));
            match outcome {
                Outcome::Pending if self.release_served(batch) => {}
                Outcome::Pending => return,
                Outcome::Replied(status) => {
                    let reply = ReplyBytes::from_slice(&out.bytes);
                    match self.waiting.settled(id, status, reply) {
                        Some((origin, reply)) => batch.settle(origin, status, reply),
                        None => return,
                    }
                }
            }
        }
    }

    /// How many requests wait here, of any node's clients, and at how many keys.
    pub fn waits(&self) -> (usize, usize) {
        let table = self.waiting.table.lock();
        (table.waits.len(), table.waits.keys())
    }

    /// Calls the end of what a connection waits for; `false` if it waits for nothing. The reply
    /// comes as every other.
    pub fn unblock(&self, replies: &Replies, ending: Ending) -> bool {
        let Some(place) = replies.waits_at() else { return false };
        let mut batch = self.batch();
        self.begin(&mut batch);
        match place {
            Place::Here(id) => {
                if let Some((origin, reply)) = self.waiting.end(id, ending) {
                    batch.settle(origin, FwdStatus::Ok, reply);
                }
            }
            Place::There(ticket) => self.unblock_abroad(&mut batch, ticket, ending),
        }
        self.flush(&mut batch);
        true
    }

    fn unblock_abroad(&self, batch: &mut Batch, ticket: Ticket, ending: Ending) {
        let deadline = self.deadline(batch.now);
        let mut forwards = self.inflight.forwards.lock();
        let Some(forward) = forwards.find(ticket) else { return };
        let peer = forward.peer;
        let Some(abroad) = &mut forward.abroad else { return };
        if abroad.is_there() {
            if abroad.ending.is_none() {
                abroad.ending = Some(ending);
                // Who is gone waits for no answer; but the other node must have heard of it.
                forward.deadline = deadline;
            }
            drop(forwards);
            let message = Message::FwdEnd { id: ticket.number(), ending: ending.code() };
            batch.to(peer).send(&message);
        } else if let Some(forward) = forwards.remove(ticket) {
            drop(forwards);
            end_abroad(batch, forward.origin, forward.abroad.as_deref(), ending);
        }
    }

    /// The node that a request was forwarded to has not served it and will not.
    pub(super) fn forward_unserved(&self, batch: &mut Batch, ticket: Ticket) {
        let mut forwards = self.inflight.forwards.lock();
        let Some(forward) = forwards.find(ticket) else { return };
        let known = Message::FwdEnd { id: ticket.number(), ending: Ending::Gone.code() };
        batch.to(forward.peer).send(&known);
        let Some(abroad) = &mut forward.abroad else { return };
        match abroad.ending {
            None => {
                abroad.unserved = Some(Turn::Soon);
                forward.deadline = FOREVER;
            }
            Some(ending) => {
                if let Some(forward) = forwards.remove(ticket) {
                    drop(forwards);
                    end_abroad(batch, forward.origin, forward.abroad.as_deref(), ending);
                }
            }
        }
    }

    /// A peer calls the end of a request that it forwarded.
    pub(super) fn forward_ended(&self, batch: &mut Batch, peer: PeerIndex, id: u64, ending: u8) {
        let wait = {
            let mut table = self.waiting.table.lock();
            table.released.remove(&(peer, id));
            table.forwarded.get(&(peer, id)).copied()
        };
        // If it was served meanwhile the reply is on its way; if it is yet to come, so is this again.
        if let (Some(wait), Some(ending)) = (wait, Ending::of(ending))
            && let Some((origin, reply)) = self.waiting.end(wait, ending)
        {
            batch.settle(origin, FwdStatus::Ok, reply);
        }
    }

    /// The link to `peer` broke: whoever waits here for its clients is gone.
    pub(super) fn waits_lost(&self, peer: PeerIndex) {
        let from_peer =
            |kept: &Kept| matches!(kept.origin, Origin::Peer { peer: p, .. } if p == peer);
        let lost = self.waiting.table.lock().waits.numbers(from_peer);
        for id in lost {
            // What runs is served, or leaves when it finds nothing.
            self.waiting.end(id, Ending::Gone);
        }
    }

    /// What is due with every tick: ends that peers may not have heard of, and requests that wait
    /// where nobody will serve them.
    pub(super) fn tend_waits(&self, batch: &mut Batch) {
        self.tell_ends(batch);
        self.ask_again(batch);
        if self.waiting.any() {
            self.move_waits(batch);
        }
    }

    /// An end that overtook its request found nobody, so it is told until there is an answer.
    fn tell_ends(&self, batch: &mut Batch) {
        let mut forwards = self.inflight.forwards.lock();
        let ended = forwards.tickets(|forward| {
            let ended = |abroad: &Abroad| abroad.ending.is_some() && abroad.is_there();
            forward.abroad.as_deref().is_some_and(ended)
        });
        for ticket in ended {
            let Some(forward) = forwards.find(ticket) else { continue };
            let ending = forward.abroad.as_ref().and_then(|abroad| abroad.ending);
            let Some(ending) = ending else { continue };
            let message = Message::FwdEnd { id: ticket.number(), ending: ending.code() };
            batch.to(forward.peer).send(&message);
        }
    }

    /// Runs requests anew that another node has not served.
    fn ask_again(&self, batch: &mut Batch) {
        let turn: Vec<_> = {
            let mut forwards = self.inflight.forwards.lock();
            let unserved = |forward: &super::inflight::Forwarded| {
                forward.abroad.as_ref().is_some_and(|abroad| !abroad.is_there())
            };
            let mut turn = Vec::new();
            for ticket in forwards.tickets(unserved) {
                let Some(abroad) = forwards.find(ticket).and_then(|f| f.abroad.as_mut()) else {
                    continue;
                };
                match abroad.unserved {
                    Some(Turn::Soon) => abroad.unserved = Some(Turn::Now),
                    _ => turn.extend(forwards.remove(ticket)),
                }
            }
            turn
        };
        for forward in turn {
            if let Some(abroad) = forward.abroad {
                self.execute_anew(batch, &abroad.request, forward.origin);
            }
        }
    }

    /// Requests whose vnode another node coordinates by now go there.
    fn move_waits(&self, batch: &mut Batch) {
        let moved = |kept: &Kept| kept.coordinator != self.routes.standing(kept.vnode).coordinator;
        for kept in self.waiting.take(moved) {
            match kept.origin {
                Origin::Peer { .. } => {
                    batch.settle(kept.origin, FwdStatus::Unserved, ReplyBytes::new());
                }
                origin => self.execute_anew(batch, &kept.request, origin),
            }
        }
    }

    fn execute_anew(&self, batch: &mut Batch, request: &KeptRequest, origin: Origin) {
        let mut origin = Some(origin);
        let mut out = Reply::new(request.protocol);
        let take = || origin.take().expect("an origin is asked for once");
        let outcome = request.with(|request| self.execute(batch, request, &mut out, take));
        if let (Outcome::Replied(status), Some(origin)) = (outcome, origin) {
            batch.settle(origin, status, ReplyBytes::from_slice(&out.bytes));
        }
    }

    /// This node stops: whoever waits here for other nodes' clients must look elsewhere. Waits a
    /// moment until their nodes know: the goodbye, which comes on another connection, ends the links.
    pub(super) async fn release_waits(&self) {
        let mut batch = self.batch();
        self.begin(&mut batch);
        let from_peers = |kept: &Kept| matches!(kept.origin, Origin::Peer { .. });
        for kept in self.waiting.take(from_peers) {
            if let Origin::Peer { peer, id } = kept.origin {
                self.waiting.table.lock().released.insert((peer, id));
            }
            batch.settle(kept.origin, FwdStatus::Unserved, ReplyBytes::new());
        }
        self.flush(&mut batch);
        let deadline = Instant::now() + RELEASE_WAIT;
        while !self.waiting.table.lock().released.is_empty() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// No deadline.
pub(super) const FOREVER: crate::base::time::UnixMs = crate::base::time::UnixMs(u64::MAX);

fn end_abroad(batch: &mut Batch, origin: Origin, abroad: Option<&Abroad>, ending: Ending) {
    let Some(abroad) = abroad else { return };
    let reply = ending.reply(abroad.request.protocol);
    batch.settle(origin, FwdStatus::Ok, SmallVec::from_slice(&reply.bytes));
}
