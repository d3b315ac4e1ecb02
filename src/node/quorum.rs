//! The shell around the read and write machines: operations that ask other replicas.
//!
//! The machines decide ([`crate::coordinator::read`], [`crate::coordinator::write`]); here their
//! questions become frames, and what peers answer becomes joins, runs and events.

use std::sync::Arc;

use bytes::BytesMut;
use parking_lot::Mutex;
use smallvec::{SmallVec, smallvec};
use tracing::error;

use crate::base::hash::Digest;
use crate::base::id::{NodeId, VnodeId};
use crate::base::time::UnixMs;
use crate::command::spec::Keyed;
use crate::coordinator::gather::{Effect, Reason, Revision};
use crate::coordinator::read::Read;
use crate::coordinator::survey::Survey;
use crate::coordinator::write::{Ran, Write};
use crate::peer::message::{FwdStatus, Message, PUT_EXCHANGED, Verdict};
use crate::resp::reply::{Protocol, Reply};
use crate::value::record;

use super::Node;
use super::batch::{Batch, Origin, PeerIndex, Waiter};
use super::cold::Missed;
use super::execute::{Ask, KeptRequest, Request};
use super::handoff::Sent;
use super::looked::Counted;
use super::replies::ReplyBytes;
use super::shipping::Shipped;
use super::slab::{Slab, Ticket};

/// Everything that asks other replicas at the moment.
#[derive(Debug, Default)]
pub(super) struct Operations {
    operations: Mutex<Slab<Arc<Mutex<Operation>>>>,
    pub(super) asked: Mutex<Slab<Asked>>,
}

/// What a peer was asked and has not answered.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asked {
    /// For an operation.
    Question(Question),
    /// Whether it holds an entry that was kept for it.
    Hint(Sent),
    /// Whether it has come as far as this entry of an exchange.
    Shipped(Shipped),
}

impl Asked {
    pub(super) fn peer(&self) -> PeerIndex {
        match self {
            Asked::Question(question) => question.peer,
            Asked::Hint(sent) => sent.peer,
            Asked::Shipped(shipped) => shipped.peer,
        }
    }
}

/// One question of an operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    operation: Ticket,
    key: u32,
    peer: PeerIndex,
    /// Of a write-back: what its acknowledgement is for.
    revision: Option<Revision>,
}

#[derive(Debug)]
enum Machine {
    Read(Read),
    Write(Write),
    Survey(Survey),
}

/// What one peer has said of an operation's keys so far; the machine hears it once for all keys.
#[derive(Clone, Copy, Debug, Default)]
struct Answers {
    missing: u32,
    entry: bool,
    grew: bool,
    behind: bool,
}

#[derive(Debug)]
struct Operation {
    machine: Machine,
    request: KeptRequest,
    keys: SmallVec<[u32; 2]>,
    run: Keyed,
    vnode: VnodeId,
    /// The digest of each key as the operation last saw it.
    digests: SmallVec<[Digest; 2]>,
    reply: ReplyBytes,
    origin: Option<Origin>,
    deadline: UnixMs,
    answers: SmallVec<[(PeerIndex, Answers); 4]>,
}

/// What happened to an operation.
#[derive(Clone, Copy, Debug)]
enum Event {
    Same(NodeId),
    Entry { from: NodeId, grew: bool, behind: bool },
    Stored(NodeId, Revision),
    Refused(NodeId),
    Lost(NodeId),
    Acknowledged(NodeId),
    Deadline,
}

/// A value that this node holds on disk and cannot read.
fn unreadable(out: &mut Reply, why: &std::io::Error) {
    out.bytes.clear();
    out.error(format!("ERR the value is on disk and cannot be read: {why}"));
}

impl Machine {
    fn on(&mut self, event: Event, out: &mut Vec<Effect>) {
        match (self, event) {
            (Machine::Read(read), Event::Same(from)) => read.on_same(from, out),
            (Machine::Write(write), Event::Same(from)) => write.on_same(from, out),
            (Machine::Read(read), Event::Entry { from, grew, behind }) => {
                read.on_entry(from, grew, behind, out);
            }
            (Machine::Write(write), Event::Entry { from, grew, behind }) => {
                write.on_entry(from, grew, behind, out);
            }
            (Machine::Read(read), Event::Stored(from, r)) => read.on_stored(from, r, out),
            (Machine::Write(write), Event::Stored(from, r)) => write.on_stored(from, r, out),
            (Machine::Read(read), Event::Refused(from)) => read.on_refused(from, out),
            (Machine::Write(write), Event::Refused(from)) => write.on_refused(from, out),
            (Machine::Read(read), Event::Lost(from)) => read.on_lost(from, out),
            (Machine::Write(write), Event::Lost(from)) => write.on_lost(from, out),
            (Machine::Read(_), Event::Acknowledged(_)) => {}
            (Machine::Write(write), Event::Acknowledged(from)) => write.on_ack(from, out),
            (Machine::Read(read), Event::Deadline) => read.on_deadline(out),
            (Machine::Write(write), Event::Deadline) => write.on_deadline(out),
            (Machine::Survey(survey), Event::Same(from)) => survey.on_same(from, out),
            (Machine::Survey(survey), Event::Deadline) => survey.on_deadline(out),
            (
                Machine::Survey(survey),
                Event::Entry { from, .. }
                | Event::Stored(from, _)
                | Event::Refused(from)
                | Event::Lost(from)
                | Event::Acknowledged(from),
            ) => survey.on_other(from, out),
        }
    }

    fn is_done(&self) -> bool {
        match self {
            Machine::Read(read) => read.is_done(),
            Machine::Write(write) => write.is_done(),
            Machine::Survey(survey) => survey.is_done(),
        }
    }
}

impl Operation {
    fn key(&self, index: u32) -> &[u8] {
        &self.request.args[self.keys[index as usize] as usize]
    }

    fn each_key(&self) -> impl Iterator<Item = u32> + use<> {
        0..self.keys.len() as u32
    }

    fn answers(&mut self, peer: PeerIndex) -> &mut Answers {
        let place = self.answers.iter().position(|(from, _)| *from == peer).unwrap_or_else(|| {
            self.answers.push((peer, Answers::default()));
            self.answers.len() - 1
        });
        &mut self.answers[place].1
    }
}

impl Node {
    /// Begins an operation that must ask other replicas before it can be answered.
    pub(super) fn begin_quorum(
        &self,
        batch: &mut Batch,
        request: &Request<'_>,
        vnode: VnodeId,
        run: Keyed,
        ask: &Ask,
        origin: Origin,
    ) -> super::execute::Outcome {
        let mut others: SmallVec<[NodeId; 8]> =
            self.routes.others(vnode).iter().map(|&(_, peer)| self.routes.node(peer)).collect();
        others.extend(ask.stand_ins.iter().map(|stand_in| stand_in.node));
        let ask = ask.effective;
        let mut effects = Vec::new();
        let machine = if request.writes() {
            self.metrics.quorum_prechecks.bump();
            Machine::Write(Write::start(&others, ask, &mut effects))
        } else {
            self.metrics.quorum_reads.bump();
            Machine::Read(Read::start(&others, ask, &mut effects))
        };
        let keys: SmallVec<[u32; 2]> = request.key_places();
        let mut operation = Operation {
            machine,
            request: KeptRequest::of(request),
            digests: SmallVec::from_elem(Digest::NONE, keys.len()),
            keys,
            run,
            vnode,
            reply: ReplyBytes::new(),
            origin: Some(origin),
            deadline: self.deadline(batch.now),
            answers: SmallVec::new(),
        };
        self.look_again(batch, &mut operation);
        let operation = Arc::new(Mutex::new(operation));
        let ticket = self.operations.operations.lock().insert(operation.clone());
        self.carry_out(batch, ticket, &mut operation.lock(), effects);
        super::execute::Outcome::Pending
    }

    /// Begins to ask the other replicas of a key whether they hold what `digest` says this one
    /// holds. `reply` is what the reply begins with; the names of those who do end it.
    pub(super) fn begin_survey(
        &self,
        batch: &mut Batch,
        request: &Request<'_>,
        digest: Digest,
        reply: ReplyBytes,
        origin: Origin,
    ) {
        let vnode = self.vnode_of(request.args[request.first_key()]);
        let others: SmallVec<[NodeId; 8]> =
            self.routes.others(vnode).iter().map(|&(_, peer)| self.routes.node(peer)).collect();
        let mut effects = Vec::new();
        let operation = Operation {
            machine: Machine::Survey(Survey::start(&others, &mut effects)),
            request: KeptRequest::of(request),
            digests: smallvec![digest],
            keys: request.key_places(),
            run: |_| {},
            vnode,
            reply,
            origin: Some(origin),
            deadline: self.deadline(batch.now),
            answers: SmallVec::new(),
        };
        let operation = Arc::new(Mutex::new(operation));
        let ticket = self.operations.operations.lock().insert(operation.clone());
        self.carry_out(batch, ticket, &mut operation.lock(), effects);
    }

    /// Ends a survey's reply with this node and those that hold the same, by name.
    fn name_confirmed(&self, same: &[NodeId], protocol: Protocol, reply: &mut ReplyBytes) {
        let mut nodes: SmallVec<[NodeId; 8]> = SmallVec::from_slice(same);
        nodes.push(self.id());
        nodes.sort_unstable();
        let mut out = Reply::new(protocol);
        out.array(nodes.len());
        nodes.iter().for_each(|node| out.bulk(node.to_string().as_bytes()));
        reply.extend_from_slice(&out.bytes);
    }

    /// Takes the operation's keys as they are now: their digests, and for a read its reply.
    fn look_again(&self, batch: &mut Batch, operation: &mut Operation) {
        let vnode = operation.vnode;
        if matches!(operation.machine, Machine::Read(_)) {
            let mut out = Reply::new(operation.request.protocol);
            let looked = operation.request.with(|request| {
                let mut look = |batch: &mut Batch| self.look(batch, request, operation, &mut out);
                self.run_waiting(batch, vnode, &mut look)
            });
            match looked {
                Ok(digests) => operation.digests = digests,
                Err(why) => unreadable(&mut out, &why),
            }
            operation.reply = ReplyBytes::from_slice(&out.bytes);
        } else {
            operation.digests = self.digests(batch.now, operation);
        }
    }

    /// Reads and takes the digests under one lock, or a write between them would go unconfirmed.
    fn look(
        &self,
        batch: &mut Batch,
        request: &Request<'_>,
        operation: &Operation,
        out: &mut Reply,
    ) -> Result<SmallVec<[Digest; 2]>, Missed> {
        let (now, random) = (batch.now, batch.random.u64(..));
        out.bytes.clear();
        let digests = self.keyspace.read(operation.vnode, now, |keys| {
            let mut changes = SmallVec::new();
            let args = request.args;
            let counted = Counted::new(keys, batch.looked);
            (operation.run)(&mut crate::command::spec::Call {
                args,
                now,
                random,
                views: &counted,
                reply: out,
                changes: &mut changes,
            });
            let looked = counted.looked();
            let missed = keys.missing();
            if !missed.is_empty() {
                return Err(missed);
            }
            batch.looked = looked;
            Ok(operation.each_key().map(|key| keys.state_digest(operation.key(key))).collect())
        })?;
        self.note(batch, operation.vnode);
        Ok(digests)
    }

    fn digests(&self, now: UnixMs, operation: &Operation) -> SmallVec<[Digest; 2]> {
        self.keyspace.read(operation.vnode, now, |keys| {
            operation.each_key().map(|key| keys.state_digest(operation.key(key))).collect()
        })
    }

    fn carry_out(
        &self,
        batch: &mut Batch,
        ticket: Ticket,
        operation: &mut Operation,
        mut effects: Vec<Effect>,
    ) {
        let mut at = 0;
        while let Some(&effect) = effects.get(at) {
            at += 1;
            match effect {
                Effect::Check { to } => self.check(batch, ticket, operation, to),
                Effect::WriteBack { to, revision } => {
                    self.write_back(batch, ticket, operation, to, revision);
                }
                Effect::Run => {
                    let ran = self.run_operation(batch, ticket, operation);
                    if let Machine::Write(write) = &mut operation.machine {
                        write.on_ran(ran, &mut effects);
                    }
                }
                Effect::Answer => {
                    let mut reply = std::mem::take(&mut operation.reply);
                    if let Machine::Survey(survey) = &operation.machine {
                        self.name_confirmed(survey.same(), operation.request.protocol, &mut reply);
                    }
                    if let Some(origin) = operation.origin.take() {
                        batch.settle(origin, FwdStatus::Ok, reply);
                    }
                }
                Effect::Fail(reason) => self.fail_operation(batch, operation, reason),
            }
        }
        if operation.machine.is_done() {
            self.operations.operations.lock().remove(ticket);
        }
    }

    fn fail_operation(&self, batch: &mut Batch, operation: &mut Operation, reason: Reason) {
        let (status, count) = match reason {
            Reason::Uncertain => (FwdStatus::Uncertain, &self.metrics.uncertain),
            Reason::TryAgain => (FwdStatus::NotRun, &self.metrics.tryagain),
            Reason::NoQuorum => (FwdStatus::NotRun, &self.metrics.noquorum),
        };
        count.bump();
        let mut reply = Reply::new(operation.request.protocol);
        reply.error(reason.to_string());
        if let Some(origin) = operation.origin.take() {
            batch.settle(origin, status, ReplyBytes::from_slice(&reply.bytes));
        }
    }

    fn ask(&self, question: Question) -> u64 {
        self.operations.asked.lock().insert(Asked::Question(question)).number()
    }

    fn check(&self, batch: &mut Batch, ticket: Ticket, operation: &mut Operation, to: NodeId) {
        let Some(peer) = self.routes.index(to) else { return };
        *operation.answers(peer) =
            Answers { missing: operation.keys.len() as u32, ..Answers::default() };
        for key in operation.each_key() {
            let id = self.ask(Question { operation: ticket, key, peer, revision: None });
            let digest = operation.digests[key as usize];
            let (vnode, key) = (operation.vnode, operation.key(key));
            batch.to(peer).send(&Message::Check { id, vnode, flags: 0, digest, key });
        }
    }

    fn write_back(
        &self,
        batch: &mut Batch,
        ticket: Ticket,
        operation: &mut Operation,
        to: NodeId,
        revision: Revision,
    ) {
        let Some(peer) = self.routes.index(to) else { return };
        if !self.routes.holds(operation.vnode, peer) {
            // A stand-in would only have to hand it on. It repairs nothing, and nobody waits: in
            // keyspaces that have stand-ins an answer does not depend on who holds it.
            return;
        }
        self.metrics.read_repairs.bump();
        operation.answers(peer).missing = operation.keys.len() as u32;
        for key in operation.each_key() {
            let mut record = BytesMut::new();
            let held = self.record_of(batch, operation.vnode, operation.key(key), &mut record);
            // What cannot be read here cannot be brought there.
            let held = held.unwrap_or(false);
            let revision = Some(revision);
            let id = self.ask(Question { operation: ticket, key, peer, revision });
            if held {
                let (vnode, record) = (operation.vnode, &record[..]);
                batch.to(peer).send(&Message::Put { id, vnode, record });
            } else {
                // Nobody holds anything of this key: there is nothing to bring, so ask again.
                let (vnode, key) = (operation.vnode, operation.key(key));
                let digest = Digest::NONE;
                batch.to(peer).send(&Message::Check { id, vnode, flags: 0, digest, key });
            }
        }
    }

    fn run_operation(&self, batch: &mut Batch, ticket: Ticket, operation: &mut Operation) -> Ran {
        let (vnode, run) = (operation.vnode, operation.run);
        let mut out = Reply::new(operation.request.protocol);
        let now = batch.now;
        let before = self.digests(now, operation);
        let ran = operation.request.with(|request| {
            let mut once = |batch: &mut Batch| self.run_here(batch, request, vnode, run, &mut out);
            self.run_waiting(batch, vnode, &mut once)
        });
        if let Err(why) = ran {
            batch.records.clear();
            unreadable(&mut out, &why);
        }
        operation.reply = ReplyBytes::from_slice(&out.bytes);
        if !batch.records.ends.is_empty() {
            self.replicate(batch, vnode, &[], Some(Waiter::Quorum(ticket)));
            return Ran::Changed;
        }
        // A write of another client between the two locks makes it look grown: confirmed anew.
        let after = self.digests(now, operation);
        let grew = before != operation.digests || after != operation.digests;
        operation.digests = after;
        Ran::Unchanged { grew }
    }

    /// A peer has answered a check.
    pub(super) fn check_answered(
        &self,
        batch: &mut Batch,
        peer: PeerIndex,
        id: u64,
        verdict: Verdict<'_>,
    ) {
        self.answered(batch, peer, id, |node, batch, operation, asked| match verdict {
            Verdict::Same => Some(()),
            Verdict::NotCounting => None,
            // A look repairs nothing.
            Verdict::Differs(_) if matches!(operation.machine, Machine::Survey(_)) => None,
            Verdict::Differs(record) => {
                node.join_answer(batch, peer, operation, asked.key, record);
                Some(())
            }
        });
    }

    /// A peer has stored a write-back or an entry that was kept for it, or (`ok` is false) has not.
    pub(super) fn put_answered(&self, batch: &mut Batch, peer: PeerIndex, id: u64, ok: bool) {
        let unasked = {
            let mut all = self.operations.asked.lock();
            let ticket = Ticket::of(id & !PUT_EXCHANGED);
            match all.find(ticket) {
                Some(Asked::Question(_)) | None => None,
                Some(other) if other.peer() == peer => all.remove(ticket),
                Some(_) => None,
            }
        };
        match unasked {
            Some(Asked::Hint(sent)) => return self.hint_answered(&sent, ok),
            Some(Asked::Shipped(shipped)) => return self.shipped_answered(&shipped),
            _ => {}
        }
        self.answered(batch, peer, id, |_, _, _, _| ok.then_some(()));
    }

    /// One answer of `peer`; `act` says whether it counts.
    fn answered(
        &self,
        batch: &mut Batch,
        peer: PeerIndex,
        id: u64,
        act: impl FnOnce(&Node, &mut Batch, &mut Operation, Question) -> Option<()>,
    ) {
        let asked = {
            let mut all = self.operations.asked.lock();
            let ticket = Ticket::of(id);
            // Only the one that was asked may answer.
            all.find(ticket).filter(|asked| asked.peer() == peer).copied().inspect(|_| {
                all.remove(ticket);
            })
        };
        let Some(Asked::Question(asked)) = asked else { return };
        let Some(operation) = self.operation(asked.operation) else { return };
        let mut operation = operation.lock();
        let from = self.routes.node(peer);
        let event = if act(self, batch, &mut operation, asked).is_none() {
            Event::Refused(from)
        } else {
            let answers = operation.answers(peer);
            answers.missing = answers.missing.saturating_sub(1);
            if answers.missing > 0 {
                return;
            }
            let Answers { entry, grew, behind, .. } = std::mem::take(answers);
            match asked.revision {
                Some(revision) => Event::Stored(from, revision),
                None if entry => Event::Entry { from, grew, behind },
                None => Event::Same(from),
            }
        };
        self.tell(batch, asked.operation, &mut operation, event);
    }

    /// Joins the entry that a peer sent instead of "same"; no bytes mean that it holds nothing.
    fn join_answer(
        &self,
        batch: &mut Batch,
        peer: PeerIndex,
        operation: &mut Operation,
        key: u32,
        bytes: &[u8],
    ) {
        if !bytes.is_empty() {
            match record::decode(bytes) {
                Ok((_, record)) if record.verify() => {
                    self.merge(batch, operation.vnode, operation.key(key), &record, bytes);
                }
                _ => error!("a peer answered a check with an unreadable record"),
            }
        }
        let theirs = match record::decode(bytes) {
            Ok((_, record)) => self.record_digest(operation.key(key), &record),
            Err(_) => Digest::NONE,
        };
        let before = operation.digests.clone();
        let now = self.digests(batch.now, operation);
        let grew = now != before;
        if grew {
            self.look_again(batch, operation);
        }
        let behind = theirs != operation.digests[key as usize];
        let answers = operation.answers(peer);
        answers.entry = true;
        answers.grew |= grew;
        answers.behind |= behind;
    }

    fn record_digest(&self, key: &[u8], record: &record::Record<'_>) -> Digest {
        let seed = self.keyspace.seed();
        let hash = seed.key(key);
        match record {
            record::Record::Plain(plain) => plain.state_digest(seed, hash),
            record::Record::Whole(entry) => entry.state_digest(seed, hash),
            record::Record::Delta(_) | record::Record::Part(_) => Digest::NONE,
        }
    }

    fn operation(&self, ticket: Ticket) -> Option<Arc<Mutex<Operation>>> {
        self.operations.operations.lock().find(ticket).cloned()
    }

    fn tell(&self, batch: &mut Batch, ticket: Ticket, operation: &mut Operation, event: Event) {
        let mut effects = Vec::new();
        operation.machine.on(event, &mut effects);
        self.carry_out(batch, ticket, operation, effects);
    }

    fn tell_by_ticket(&self, batch: &mut Batch, ticket: Ticket, event: Event) {
        if let Some(operation) = self.operation(ticket) {
            self.tell(batch, ticket, &mut operation.lock(), event);
        }
    }

    /// `peer` holds the change of an operation.
    pub(super) fn quorum_acknowledged(&self, batch: &mut Batch, ticket: Ticket, peer: PeerIndex) {
        self.tell_by_ticket(batch, ticket, Event::Acknowledged(self.routes.node(peer)));
    }

    /// `peer` will not acknowledge the change of an operation.
    pub(super) fn quorum_lost(&self, batch: &mut Batch, ticket: Ticket, peer: PeerIndex) {
        self.tell_by_ticket(batch, ticket, Event::Lost(self.routes.node(peer)));
    }

    /// The link to `peer` broke: nobody who asked it will be answered.
    pub(super) fn operations_lost(&self, batch: &mut Batch, peer: PeerIndex) {
        let gone: Vec<Ticket> = {
            let mut asked = self.operations.asked.lock();
            let tickets = asked.tickets(|asked| asked.peer() == peer);
            let of = |asked| match asked {
                Asked::Question(question) => Some(question.operation),
                // The hand-off learns of the loss by itself, and so do exchanges.
                Asked::Hint(_) | Asked::Shipped(_) => None,
            };
            tickets.into_iter().filter_map(|t| asked.remove(t)).filter_map(of).collect()
        };
        for ticket in gone {
            self.tell_by_ticket(batch, ticket, Event::Lost(self.routes.node(peer)));
        }
    }

    /// Gives up operations that have waited too long, and forgets questions nobody waits for.
    pub(super) fn expire_operations(&self, batch: &mut Batch) {
        let now = batch.now;
        let late: Vec<Ticket> = self
            .operations
            .operations
            .lock()
            .tickets(|op| op.try_lock().is_some_and(|operation| operation.deadline <= now));
        for ticket in late {
            self.tell_by_ticket(batch, ticket, Event::Deadline);
        }
        let mut operations = self.operations.operations.lock();
        let mut asked = self.operations.asked.lock();
        let forgotten = asked.tickets(|asked| match asked {
            Asked::Question(question) => operations.find(question.operation).is_none(),
            Asked::Hint(sent) => sent.deadline <= now,
            Asked::Shipped(shipped) => shipped.deadline <= now,
        });
        for ticket in forgotten {
            match asked.remove(ticket) {
                Some(Asked::Hint(sent)) => self.hint_unanswered(&sent),
                Some(Asked::Shipped(shipped)) => self.shipped_unanswered(&shipped),
                Some(Asked::Question(_)) | None => {}
            }
        }
    }
}
