//! One command from its arrival to its reply: route → admit → run → replicate → reply.
//!
//! This is the data path of the coordinator (Dynamo §4.5). A command whose reply is known at once
//! writes it to the caller's buffer and touches nothing that is asynchronous; otherwise it leaves
//! an [`Origin`] behind and the reply comes later.

use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use crate::base::id::{Slot, VnodeId};
use crate::base::time::UnixMs;
use crate::command::flags::Flag;
use crate::command::spec::{Call, Keyed, Merge, Run, Spec};
use crate::coordinator::contract::{Effective, Override};
use crate::coordinator::stand_in::{StandIn, StandIns};
use crate::coordinator::tally::Tally;
use crate::peer::message::{FWD_READONLY, FWD_RESP3, FwdStatus, Message};
use crate::resp::reply::{Protocol, Reply};
use crate::ring::slot::slot_of;
use crate::storage::warming::Tier;
use crate::value::view::{View, Views};

use super::Node;
use super::batch::{Awaited, Batch, Origin, PeerIndex, Wait, Waiter};
use super::cold::{Missed, keys_of};
use super::gather::{Gathering, Rule};
use super::handoff::FULL;
use super::inflight::Forwarded;
use super::looked::Counted;
use super::waiting::{Abroad, FOREVER, Place, session_of};

/// Flag of a forwarded request: one part of a command that crosses slots.
pub(super) const FWD_PART: u8 = 4;
/// Flag of a forwarded request: a whole-keyspace command for the vnodes in its last argument.
pub(super) const FWD_VNODES: u8 = 8;
/// Flag of a forwarded request: R is the client's wish, not the keyspace's default.
pub(super) const FWD_ASKED_R: u8 = 16;
/// Flag of a forwarded request: W is the client's wish, not the keyspace's default.
pub(super) const FWD_ASKED_W: u8 = 32;
/// Flag of a forwarded request: no replica counts, the receiver stands in for them.
pub(super) const FWD_STAND_IN: u8 = 64;

/// Bytes of the reply to one part of a command, about.
const PART_REPLY_SIZE: usize = 8;

/// A request whose row, arity and permission have been checked.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The command's row.
    pub spec: &'static Spec,
    /// Name and arguments.
    pub args: &'a [&'a [u8]],
    /// The slot of the first argument, if it is known.
    pub slot: Option<Slot>,
    /// What its reply is encoded in.
    pub protocol: Protocol,
    /// R and W that the client asked for.
    pub asked: Override,
    /// Whether the connection reads from the nearest replica (READONLY).
    pub readonly: bool,
}

/// A request that outlives the input it came in.
#[derive(Debug)]
pub(super) struct KeptRequest {
    pub(super) spec: &'static Spec,
    pub(super) args: SmallVec<[Vec<u8>; 4]>,
    pub(super) protocol: Protocol,
    asked: Override,
    readonly: bool,
}

impl KeptRequest {
    pub(super) fn of(request: &Request<'_>) -> KeptRequest {
        KeptRequest {
            spec: request.spec,
            args: request.args.iter().map(|arg| arg.to_vec()).collect(),
            protocol: request.protocol,
            asked: request.asked,
            readonly: request.readonly,
        }
    }

    /// Runs `act` with the request.
    pub(super) fn with<T>(&self, act: impl FnOnce(&Request<'_>) -> T) -> T {
        let args: SmallVec<[&[u8]; 8]> = self.args.iter().map(|arg| &arg[..]).collect();
        act(&Request {
            spec: self.spec,
            args: &args,
            slot: None,
            protocol: self.protocol,
            asked: self.asked,
            readonly: self.readonly,
        })
    }
}

/// What a request asks of other nodes.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) effective: Effective,
    /// Who stands in for replicas that do not count.
    pub(super) stand_ins: StandIns,
}

/// What became of a submitted request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Submitted {
    /// The reply is written.
    Replied,
    /// The reply comes to the origin later.
    Pending,
}

/// Why nothing was done, already written as a reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    Replied(FwdStatus),
    Pending,
}

impl From<Outcome> for Submitted {
    fn from(outcome: Outcome) -> Submitted {
        match outcome {
            Outcome::Replied(_) => Submitted::Replied,
            Outcome::Pending => Submitted::Pending,
        }
    }
}

pub(super) const DONE: Outcome = Outcome::Replied(FwdStatus::Ok);

/// Writes an error that says that nothing was done.
pub(super) fn refuse(out: &mut Reply, text: impl AsRef<[u8]>) -> Outcome {
    out.error(text);
    Outcome::Replied(FwdStatus::NotRun)
}

/// The keys of a request that names none.
struct Nowhere;

impl Views for Nowhere {
    fn view(&self, _: &[u8]) -> Option<View<'_>> {
        None
    }
}

impl Request<'_> {
    /// The place of the first key among the arguments.
    pub(super) fn first_key(&self) -> usize {
        self.key_places().first().map_or(usize::MAX, |&place| place as usize)
    }

    /// The places of the keys. Commands of one slot have few.
    pub(super) fn key_places(&self) -> SmallVec<[u32; 2]> {
        let places = self.spec.keys_of(self.args).ok();
        places.into_iter().flatten().map(|place| place as u32).collect()
    }

    pub(super) fn writes(&self) -> bool {
        self.spec.flags.has(Flag::Write)
    }
}

impl Node {
    /// Runs a request that asks for keys. `origin` is called only if the reply must wait.
    pub(super) fn execute(
        &self,
        batch: &mut Batch,
        request: &Request<'_>,
        out: &mut Reply,
        origin: impl FnOnce() -> Origin,
    ) -> Outcome {
        match request.spec.run {
            Run::Slot(run) => match self.one_vnode(request) {
                Some(vnode) => self.execute_at(batch, request, vnode, run, 0, out, origin),
                None if request.key_places().is_empty() => {
                    self.run_keyless(batch, request, run, out)
                }
                None => refuse(out, "CROSSSLOT Keys in request don't hash to the same slot"),
            },
            Run::Each { stride, merge, part } => {
                self.execute_each(batch, request, stride, merge, part, out, origin)
            }
            Run::Everywhere => self.execute_everywhere(batch, request, out, origin),
            Run::Session => unreachable!("the session runs {} itself", request.spec.name),
        }
    }

    /// The vnode of a key.
    pub fn vnode_of(&self, key: &[u8]) -> VnodeId {
        self.topology.vnode_of(slot_of(key))
    }

    /// The vnode of a request all of whose keys lie in one slot.
    pub(super) fn one_vnode(&self, request: &Request<'_>) -> Option<VnodeId> {
        // A row of the table always knows where its keys are.
        let mut keys = request.spec.keys_of(request.args).ok()?.into_iter();
        let slot = match (keys.next()?, request.slot) {
            (1, Some(slot)) => slot,
            (place, _) => slot_of(request.args[place]),
        };
        for key in keys {
            if slot_of(request.args[key]) != slot {
                return None;
            }
        }
        Some(self.topology.vnode_of(slot))
    }

    /// Runs a request that miscounts its keys, so that nobody knows where they lie: what it is
    /// answered is an error.
    pub(super) fn run_keyless(
        &self,
        batch: &mut Batch,
        request: &Request<'_>,
        run: Keyed,
        out: &mut Reply,
    ) -> Outcome {
        let (now, random) = (batch.now, batch.random.u64(..));
        let (args, views) = (request.args, &Nowhere);
        let mut changes = SmallVec::new();
        run(&mut Call { args, now, random, views, reply: out, changes: &mut changes });
        assert!(changes.is_empty(), "{} counts its keys before it looks", request.spec.name);
        Outcome::Replied(FwdStatus::NotRun)
    }

    #[expect(clippy::too_many_arguments, reason = "the whole of a request's fate in one call")]
    fn execute_at(
        &self,
        batch: &mut Batch,
        request: &Request<'_>,
        vnode: VnodeId,
        run: Keyed,
        flags: u8,
        out: &mut Reply,
        origin: impl FnOnce() -> Origin,
    ) -> Outcome {
        let standing = self.routes.standing(vnode);
        if standing.coordinator == Some(self.routes.me()) {
            return self.coordinate(batch, request, vnode, run, out, origin);
        }
        if request.readonly && self.may_read_here(request, vnode) {
            let once = |batch: &mut Batch, out: &mut Reply| {
                self.run_read(batch, request, vnode, run, out).map(|()| DONE)
            };
            return self.run_or_park(batch, request, vnode, run, out, origin, once);
        }
        match standing.coordinator {
            Some(peer) if !self.routes.reach(peer).is_linked() => {
                self.metrics.tryagain.bump();
                refuse(out, "TRYAGAIN the link to the key's coordinator is lost, nothing was done")
            }
            Some(peer) => self.forward(batch, request, peer, flags, origin),
            None => match self.stand_in_for(request, vnode) {
                Some(peer) if peer == self.routes.me() => {
                    self.coordinate(batch, request, vnode, run, out, origin)
                }
                Some(peer) => self.forward(batch, request, peer, flags | FWD_STAND_IN, origin),
                None => self.cluster_down(
                    out,
                    "CLUSTERDOWN no replica of the key is reachable, nothing was done",
                ),
            },
        }
    }

    pub(super) fn cluster_down(&self, out: &mut Reply, text: &str) -> Outcome {
        self.metrics.clusterdown.bump();
        refuse(out, text)
    }

    fn may_read_here(&self, request: &Request<'_>, vnode: VnodeId) -> bool {
        !request.writes()
            && request.asked.r.unwrap_or(self.quorum.r) <= 1
            && self.routes.holds(vnode, self.routes.me())
            && self.routes.reach(self.routes.me()).counts()
    }

    /// Coordinates a request for keys of one vnode, which this node holds, or for whose replicas it
    /// stands in.
    pub(super) fn coordinate(
        &self,
        batch: &mut Batch,
        request: &Request<'_>,
        vnode: VnodeId,
        run: Keyed,
        out: &mut Reply,
        origin: impl FnOnce() -> Origin,
    ) -> Outcome {
        if request.spec.flags.has(Flag::Blocking) {
            return self.coordinate_blocking(batch, request, vnode, run, out, origin);
        }
        self.coordinate_now(batch, request, vnode, run, out, origin)
    }

    /// The same, and never waits for a key to change.
    pub(super) fn coordinate_now(
        &self,
        batch: &mut Batch,
        request: &Request<'_>,
        vnode: VnodeId,
        run: Keyed,
        out: &mut Reply,
        origin: impl FnOnce() -> Origin,
    ) -> Outcome {
        // Shared by what runs now and what may be parked; only one of them takes it.
        let origin = std::cell::Cell::new(Some(origin));
        let take = || origin.take().expect("an origin is asked for once")();
        let once = |batch: &mut Batch, out: &mut Reply| {
            self.coordinate_once(batch, request, vnode, run, out, take)
        };
        self.run_or_park(batch, request, vnode, run, out, take, once)
    }

    /// Runs `once`; what it misses is brought into memory and it is run again, or the request is
    /// parked until that is done.
    #[expect(clippy::too_many_arguments, reason = "the whole of a request's fate in one call")]
    fn run_or_park(
        &self,
        batch: &mut Batch,
        request: &Request<'_>,
        vnode: VnodeId,
        run: Keyed,
        out: &mut Reply,
        origin: impl FnOnce() -> Origin,
        mut once: impl FnMut(&mut Batch, &mut Reply) -> Result<Outcome, Missed>,
    ) -> Outcome {
        if self.must_queue(request) {
            return self.park(request, vnode, run, Missed::new(), origin());
        }
        match self.run_warm(batch, vnode, |batch| once(batch, out)) {
            Ok(outcome) => outcome,
            Err(missed) => self.park(request, vnode, run, missed, origin()),
        }
    }

    /// Runs a request that was parked, if this node still may.
    pub(super) fn run_again(
        &self,
        batch: &mut Batch,
        request: &Request<'_>,
        vnode: VnodeId,
        run: Keyed,
        out: &mut Reply,
        origin: impl FnOnce() -> Origin,
    ) -> Result<Outcome, Missed> {
        let me = self.routes.me();
        let coordinates = self.routes.standing(vnode).coordinator == Some(me);
        if !coordinates && request.readonly && self.may_read_here(request, vnode) {
            return self.run_read(batch, request, vnode, run, out).map(|()| DONE);
        }
        let may_run = self.routes.holds(vnode, me) || self.may_stand_in(request);
        if !may_run || !self.routes.reach(me).counts() {
            let text = "TRYAGAIN the key's coordinator is changing, nothing was done";
            return Ok(refuse(out, text));
        }
        self.coordinate_once(batch, request, vnode, run, out, origin)
    }

    /// `Err`: values that are on disk are needed first; nothing was done or written.
    fn coordinate_once(
        &self,
        batch: &mut Batch,
        request: &Request<'_>,
        vnode: VnodeId,
        run: Keyed,
        out: &mut Reply,
        origin: impl FnOnce() -> Origin,
    ) -> Result<Outcome, Missed> {
        if let Some(refused) = self.cannot_serve(request, vnode, batch.now, out) {
            return Ok(refused);
        }
        let mut effective = match self.effective(request, vnode) {
            Ok(effective) => effective,
            Err(refusal) => return Ok(refuse(out, refusal.to_string())),
        };
        let stand_ins = match self.stand_ins_for(request, vnode, &mut effective) {
            Ok(stand_ins) => stand_ins,
            Err(refusal) => {
                self.metrics.noquorum.bump();
                return Ok(refuse(out, refusal.to_string()));
            }
        };
        let writes = request.writes();
        let needs = if writes { effective.precheck() } else { effective.read_needs() };
        if needs > 1 {
            self.all_warm(request, vnode, batch.now)?;
            let ask = Ask { effective, stand_ins };
            return Ok(self.begin_quorum(batch, request, vnode, run, &ask, origin()));
        }
        if writes {
            let ask = Ask { effective, stand_ins };
            return self.run_write(batch, request, vnode, run, &ask, out, origin);
        }
        self.run_read(batch, request, vnode, run, out).map(|()| DONE)
    }

    /// Whether this node's engine cannot carry out a write now; tells nobody.
    pub(super) fn must_refuse(&self, request: &Request<'_>, vnode: VnodeId, now: UnixMs) -> bool {
        self.damaged.contains(vnode) || self.refusal(request.spec.flags, now).is_some()
    }

    /// Why this node's engine cannot carry out a request now, if so.
    fn cannot_serve(
        &self,
        request: &Request<'_>,
        vnode: VnodeId,
        now: UnixMs,
        out: &mut Reply,
    ) -> Option<Outcome> {
        if self.damaged.contains(vnode) {
            let text = format!(
                "CLUSTERDOWN vnode {} lost records in this node's log and no replica can restore \
                 them: see `kvorum log verify` and --accept-damage, nothing was done",
                vnode.0
            );
            return Some(self.cluster_down(out, &text));
        }
        if !request.writes() {
            return None;
        }
        if self.routes.is_full(self.routes.me()) && !self.routes.holds(vnode, self.routes.me()) {
            self.metrics.noquorum.bump();
            return Some(refuse(out, FULL));
        }
        let refusal = self.write_refusal(request.spec.flags, now)?;
        Some(refuse(out, refusal.to_string()))
    }

    /// `Err`: the keys whose values are on disk.
    fn all_warm(&self, request: &Request<'_>, vnode: VnodeId, now: UnixMs) -> Result<(), Missed> {
        let cold = self.keyspace.read(vnode, now, |keys| {
            let all = keys_of(request);
            all.filter(|key| keys.tier(key) == Tier::Cold).map(<[u8]>::to_vec).collect::<Missed>()
        });
        if cold.is_empty() { Ok(()) } else { Err(cold) }
    }

    /// What the request asks of the replicas, raised where this node may have missed something
    /// that another coordinator acknowledged.
    pub(super) fn effective(
        &self,
        request: &Request<'_>,
        vnode: VnodeId,
    ) -> Result<Effective, crate::coordinator::contract::Refusal> {
        let replicas = self.routes.replicas(vnode).len();
        let mut effective = match request.asked == Override::default() {
            true => self.quorum.usual(replicas),
            false => self.quorum.effective(request.asked, replicas)?,
        };
        if effective.r == 1 && self.unsettled.contains(vnode) {
            let counting = self.routes.standing(vnode).counting;
            let covering = effective.n - self.quorum.w.min(effective.n) + 1;
            effective.r = covering.min(counting).max(1);
        }
        Ok(effective)
    }

    /// `Err`: what it needs and is on disk; nothing was written.
    pub(super) fn run_read(
        &self,
        batch: &mut Batch,
        request: &Request<'_>,
        vnode: VnodeId,
        run: Keyed,
        out: &mut Reply,
    ) -> Result<(), Missed> {
        let (now, random) = (batch.now, batch.random.u64(..));
        let mark = out.bytes.len();
        let missed = self.keyspace.read(vnode, now, |keys| {
            let mut changes = SmallVec::new();
            let args = request.args;
            let counted = Counted::new(keys, batch.looked);
            let views = &counted;
            run(&mut Call { args, now, random, views, reply: out, changes: &mut changes });
            let looked = counted.looked();
            debug_assert!(changes.is_empty(), "{} reads", request.spec.name);
            let missed = keys.missing();
            if missed.is_empty() {
                batch.looked = looked;
            }
            missed
        });
        if !missed.is_empty() {
            out.bytes.truncate(mark);
            return Err(missed);
        }
        self.note(batch, vnode);
        Ok(())
    }

    /// Runs a command under the vnode's lock and leaves its records in `batch.records`. `Err`:
    /// what it needs and is on disk; nothing was done or written.
    pub(super) fn run_here(
        &self,
        batch: &mut Batch,
        request: &Request<'_>,
        vnode: VnodeId,
        run: Keyed,
        out: &mut Reply,
    ) -> Result<(), Missed> {
        let (now, random) = (batch.now, batch.random.u64(..));
        let records = &mut batch.records;
        records.clear();
        let mut writing = self.writing(vnode, run, records);
        let missed = self
            .keyspace
            .write(vnode, now, |keys| writing.run(keys, request.args, now, random, out));
        let changed = writing.changed;
        if !missed.is_empty() {
            return Err(missed);
        }
        self.note_changed(batch, changed.iter().map(Vec::as_slice));
        self.note(batch, vnode);
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "the whole of a request's fate in one call")]
    fn run_write(
        &self,
        batch: &mut Batch,
        request: &Request<'_>,
        vnode: VnodeId,
        run: Keyed,
        ask: &Ask,
        out: &mut Reply,
        origin: impl FnOnce() -> Origin,
    ) -> Result<Outcome, Missed> {
        let mark = out.bytes.len();
        self.run_here(batch, request, vnode, run, out)?;
        if batch.records.ends.is_empty() {
            return Ok(DONE);
        }
        self.count_stand_ins(vnode, &ask.stand_ins);
        if ask.effective.w <= 1 {
            self.replicate(batch, vnode, &[], None);
            return Ok(DONE);
        }
        let reply = SmallVec::from_slice(&out.bytes[mark..]);
        out.bytes.truncate(mark);
        self.await_nodes(batch, vnode, ask, origin(), reply);
        Ok(Outcome::Pending)
    }

    /// Sends the records of the last run to the other replicas and to stand-ins; the reply waits
    /// until W nodes have them, this one among them.
    pub(super) fn await_nodes(
        &self,
        batch: &mut Batch,
        vnode: VnodeId,
        ask: &Ask,
        origin: Origin,
        reply: super::replies::ReplyBytes,
    ) {
        let nth = batch.awaited.len();
        let candidates = self.replicate(batch, vnode, &ask.stand_ins, Some(Waiter::Fresh(nth)));
        let deadline = self.deadline(batch.now);
        let tally = Tally::new(candidates, ask.effective.w - 1);
        batch.awaited.push(Awaited { tally, origin, reply, deadline });
    }

    /// Sends the records of the last run to every other replica, or into its backlog while there
    /// is no link, and to the stand-ins. Those that count, by their places, are the answer; each is
    /// told to `waiter`.
    pub(super) fn replicate(
        &self,
        batch: &mut Batch,
        vnode: VnodeId,
        stand_ins: &[StandIn],
        waiter: Option<Waiter>,
    ) -> u16 {
        let mut candidates = 0;
        let is_replica = self.routes.holds(vnode, self.routes.me());
        for (place, &peer) in self.routes.replicas(vnode).iter().enumerate() {
            let reach = self.routes.reach(peer);
            // What a stand-in writes, it holds until all have it: no need for a backlog, too.
            if peer == self.routes.me() || !is_replica && !reach.is_linked() {
                continue;
            }
            let outgoing = &mut batch.outgoing[usize::from(peer)];
            for record in batch.records.iter() {
                outgoing.replicate(vnode, record);
            }
            if reach.counts() {
                candidates |= 1 << place;
                if let Some(waiter) = waiter {
                    let nth = outgoing.reps;
                    outgoing.waits.push(Wait { nth, waiter, place: place as u8 });
                }
            }
        }
        for &StandIn { place, node } in stand_ins {
            let Some(peer) = self.routes.index(node) else { continue };
            let outgoing = &mut batch.outgoing[usize::from(peer)];
            for record in batch.records.iter() {
                outgoing.replicate(vnode, record);
            }
            candidates |= 1 << place;
            if let Some(waiter) = waiter {
                outgoing.waits.push(Wait { nth: outgoing.reps, waiter, place });
            }
        }
        candidates
    }

    /// Hands a request to the node that coordinates it. Once its bytes have left, it is never
    /// tried again elsewhere.
    pub(super) fn forward(
        &self,
        batch: &mut Batch,
        request: &Request<'_>,
        peer: PeerIndex,
        flags: u8,
        origin: impl FnOnce() -> Origin,
    ) -> Outcome {
        let writes = request.writes();
        let (origin, abroad) = (origin(), Abroad::of(request));
        // Who waits for a key is given no deadline: its end is told when it comes.
        let patience_ms = if abroad.is_some() { 0 } else { self.patience_ms(request) };
        let deadline = match abroad {
            Some(_) => FOREVER,
            None => UnixMs(batch.now.0 + u64::from(patience_ms)),
        };
        let id = {
            let mut forwards = self.inflight.forwards.lock();
            let waiter = abroad.is_some().then(|| session_of(&origin)).flatten();
            let id = forwards.insert(Forwarded { origin, peer, writes, deadline, abroad });
            if let Some(replies) = waiter {
                replies.wait_at(Place::There(id));
            }
            id
        };
        let mut flags = flags;
        if request.protocol == Protocol::Resp3 {
            flags |= FWD_RESP3;
        }
        if request.readonly {
            flags |= FWD_READONLY;
        }
        if request.asked.r.is_some() {
            flags |= FWD_ASKED_R;
        }
        if request.asked.w.is_some() {
            flags |= FWD_ASKED_W;
        }
        encode_request(request.args, &mut batch.records.bytes);
        let message = Message::Fwd {
            id: id.number(),
            flags,
            r: request.asked.r.unwrap_or(0),
            w: request.asked.w.unwrap_or(0),
            deadline_ms: patience_ms,
            request: &batch.records.bytes,
        };
        message.encode(&mut batch.outgoing[usize::from(peer)].frames);
        self.metrics.forwarded.bump();
        Outcome::Pending
    }

    #[expect(clippy::too_many_arguments, reason = "the whole of a request's fate in one call")]
    fn execute_each(
        &self,
        batch: &mut Batch,
        request: &Request<'_>,
        stride: usize,
        merge: Merge,
        part: Keyed,
        out: &mut Reply,
        origin: impl FnOnce() -> Origin,
    ) -> Outcome {
        let name = request.args[0];
        let parts = request.args[1..].chunks_exact(stride);
        if !parts.remainder().is_empty() {
            return refuse(
                out,
                format!("ERR wrong number of arguments for '{}' command", request.spec.name),
            );
        }
        let count = parts.len();
        let mut gathering: Option<Arc<Gathering>> = None;
        let mut origin = Some(origin);
        let mut scratch = Reply::new(request.protocol);
        scratch.bytes.reserve(PART_REPLY_SIZE * count);
        // The keys lie in far-apart lines of memory.
        let slots = self.approach(parts.clone().map(|keyed| keyed[0]));
        let mut ends: SmallVec<[(usize, FwdStatus); 16]> = SmallVec::new();
        let rule = Rule::Merge(merge);
        for ((index, keyed), &slot) in parts.enumerate().zip(&slots) {
            let mut args: SmallVec<[&[u8]; 3]> = smallvec![name];
            args.extend_from_slice(keyed);
            let request = Request { args: &args, slot: Some(slot), ..*request };
            let vnode = self.topology.vnode_of(slot);
            let mark = scratch.bytes.len();
            // What misses a value on disk has done nothing, and takes the long way.
            if self.decides_alone(&request, vnode, batch.now)
                && self.run_here(batch, &request, vnode, part, &mut scratch).is_ok()
            {
                self.replicate(batch, vnode, &[], None);
                ends.push((scratch.bytes.len(), FwdStatus::Ok));
                continue;
            }
            let gathering = &mut gathering;
            let later = || {
                let whole = gathering.get_or_insert_with(|| {
                    let origin = origin.take().expect("a gathering begins once")();
                    let writes = request.writes();
                    Arc::new(Gathering::new(rule, request.protocol, writes, count, origin))
                });
                Origin::Part { gathering: whole.clone(), index }
            };
            let outcome =
                self.execute_at(batch, &request, vnode, part, FWD_PART, &mut scratch, later);
            match outcome {
                Outcome::Replied(status) => ends.push((scratch.bytes.len(), status)),
                Outcome::Pending => {
                    scratch.bytes.truncate(mark);
                    ends.push((mark, FwdStatus::Uncertain));
                }
            }
        }
        let parts = ends.iter().scan(0, |start, &(end, status)| {
            let bytes = &scratch.bytes[*start..end];
            *start = end;
            Some((status, bytes))
        });
        match gathering {
            Some(whole) => {
                for (index, (status, bytes)) in parts.enumerate() {
                    if !bytes.is_empty() {
                        let origin = Origin::Part { gathering: whole.clone(), index };
                        batch.settle(origin, status, SmallVec::from_slice(bytes));
                    }
                }
                Outcome::Pending
            }
            None => {
                let whole = Gathering::settled(rule, request.protocol, request.writes(), parts);
                out.bytes.extend_from_slice(&whole.1);
                Outcome::Replied(whole.0)
            }
        }
    }
}

/// Writes a request as RESP.
pub(super) fn encode_request(args: &[&[u8]], out: &mut bytes::BytesMut) {
    out.clear();
    let mut request = Reply { bytes: std::mem::take(out), protocol: Protocol::Resp2 };
    request.array(args.len());
    args.iter().for_each(|arg| request.bulk(arg));
    *out = request.bytes;
}
