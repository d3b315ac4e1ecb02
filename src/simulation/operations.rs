//! Operations that ask other replicas: the shell around the read and write machines, after
//! `node/quorum.rs`.

use crate::base::hash::Digest;
use crate::base::id::NodeId;
use crate::coordinator::contract::Effective;
use crate::coordinator::gather::{Effect, Reason, Revision};
use crate::coordinator::read::Read;
use crate::coordinator::stand_in::StandIns;
use crate::coordinator::write::{Ran, Write};
use crate::value::record::{self, Record};

use super::coordinate::{TIMEOUT_MS, id_of, place_of};
use super::frame::{Frame, Outcome, Told, Verdict};
use super::mutants::Mutant;
use super::node::{Asked, Machine, Operation, Origin, SEED, Waiter};
use super::world::{Due, World, place};

/// When replicas that were not asked yet are asked too.
const SLOW_MS: u64 = 60;

impl Machine {
    fn is_done(&self) -> bool {
        match self {
            Machine::Read(read) => read.is_done(),
            Machine::Write(write) => write.is_done(),
        }
    }
}

/// What happened to an operation.
#[derive(Clone, Copy, Debug)]
enum Heard {
    Same(usize),
    Entry { from: usize, grew: bool, behind: bool },
    Stored(usize, Revision),
    Refused(usize),
    Lost(usize),
    Acknowledged(usize),
    Slow,
    Deadline,
}

impl Machine {
    fn on(&mut self, heard: Heard, out: &mut Vec<Effect>) {
        match (self, heard) {
            (Machine::Read(m), Heard::Same(from)) => m.on_same(id_of(from), out),
            (Machine::Write(m), Heard::Same(from)) => m.on_same(id_of(from), out),
            (Machine::Read(m), Heard::Entry { from, grew, behind }) => {
                m.on_entry(id_of(from), grew, behind, out);
            }
            (Machine::Write(m), Heard::Entry { from, grew, behind }) => {
                m.on_entry(id_of(from), grew, behind, out);
            }
            (Machine::Read(m), Heard::Stored(from, r)) => m.on_stored(id_of(from), r, out),
            (Machine::Write(m), Heard::Stored(from, r)) => m.on_stored(id_of(from), r, out),
            (Machine::Read(m), Heard::Refused(from)) => m.on_refused(id_of(from), out),
            (Machine::Write(m), Heard::Refused(from)) => m.on_refused(id_of(from), out),
            (Machine::Read(m), Heard::Lost(from)) => m.on_lost(id_of(from), out),
            (Machine::Write(m), Heard::Lost(from)) => m.on_lost(id_of(from), out),
            (Machine::Read(_), Heard::Acknowledged(_)) => {}
            (Machine::Write(m), Heard::Acknowledged(from)) => m.on_ack(id_of(from), out),
            (Machine::Read(m), Heard::Slow) => m.on_slow(out),
            (Machine::Write(m), Heard::Slow) => m.on_slow(out),
            (Machine::Read(m), Heard::Deadline) => m.on_deadline(out),
            (Machine::Write(m), Heard::Deadline) => m.on_deadline(out),
        }
    }
}

impl World {
    pub(super) fn begin_operation(
        &mut self,
        at: usize,
        request: usize,
        ask: Effective,
        hold: u8,
        stand_ins: StandIns,
        origin: Origin,
    ) {
        let key = self.ledger.requests[request].key;
        let mut others = self.others(at, self.chart.keys[key].1);
        others.extend(stand_ins.iter().map(|stand_in| stand_in.node));
        let mut effects = Vec::new();
        let machine = if self.ledger.requests[request].ask.writes() {
            Machine::Write(Write::start(&others, ask, &mut effects))
        } else {
            Machine::Read(Read::start(&others, ask, &mut effects))
        };
        let operation = Operation {
            machine,
            request,
            key,
            origin,
            digest: self.check_digest(at, key),
            reply: self.look(at, request),
            ran: false,
            hold,
            stand_ins,
        };
        let id = self.nodes[at].number();
        self.nodes[at].operations.insert(id, operation);
        self.due(at, SLOW_MS, Due::Slow(id));
        self.due(at, TIMEOUT_MS, Due::Operation(id));
        self.carry_out(at, id, effects);
    }

    /// The digest that checks compare.
    fn check_digest(&self, at: usize, key: usize) -> Digest {
        if self.is(Mutant::LiveOnly) {
            self.entry(at, key).digest(SEED, SEED.key(&self.chart.keys[key].0))
        } else {
            self.state_digest(at, key)
        }
    }

    fn carry_out(&mut self, at: usize, id: u64, effects: Vec<Effect>) {
        let mut effects = std::collections::VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            let Operation { key, digest, request, origin, reply, .. } =
                self.nodes[at].operations[&id];
            let is_replica =
                |node: &NodeId| self.is_replica(self.vnode_of(request), place_of(*node));
            match effect {
                Effect::Check { to } => {
                    let asked = self.ask(at, id, place_of(to), None);
                    self.send(at, place_of(to), Frame::Check { id: asked, key, digest });
                }
                // A stand-in would only have to hand it on.
                Effect::WriteBack { to, .. } if !is_replica(&to) => {}
                Effect::WriteBack { to, revision } => {
                    let asked = self.ask(at, id, place_of(to), Some(revision));
                    let told = self.told(at, key);
                    let frame = if told.bytes.is_empty() {
                        Frame::Check { id: asked, key, digest: Digest::NONE }
                    } else {
                        Frame::Put { id: asked, told }
                    };
                    self.send(at, place_of(to), frame);
                }
                Effect::Run => {
                    let ran = self.run_operation(at, id);
                    let mut more = Vec::new();
                    if let Some(Operation { machine: Machine::Write(write), .. }) =
                        self.nodes[at].operations.get_mut(&id)
                    {
                        write.on_ran(ran, &mut more);
                    }
                    effects.extend(more);
                }
                Effect::Answer => {
                    self.check_held(at, id);
                    self.answer(at, request, origin, Outcome::Done(reply));
                }
                Effect::Fail(reason) => {
                    let uncertain = reason == Reason::Uncertain;
                    let outcome = if uncertain { Outcome::Uncertain } else { Outcome::NotRun };
                    self.answer(at, request, origin, outcome);
                }
            }
        }
        if self.nodes[at].operations[&id].machine.is_done() {
            self.nodes[at].operations.remove(&id);
        }
    }

    /// Remembers a question; its number.
    fn ask(&mut self, at: usize, operation: u64, peer: usize, revision: Option<Revision>) -> u64 {
        let number = self.nodes[at].number();
        self.nodes[at].asked.insert(number, Asked { operation, peer, revision });
        number
    }

    fn run_operation(&mut self, at: usize, id: u64) -> Ran {
        let Operation { request, key, digest, .. } = self.nodes[at].operations[&id];
        let (reply, told) = self.run_here(at, request);
        let now = self.check_digest(at, key);
        if let Some(operation) = self.nodes[at].operations.get_mut(&id) {
            operation.ran = true;
            operation.reply = reply;
            operation.digest = now;
        }
        match told {
            Some(told) => {
                let stand_ins = self.nodes[at].operations[&id].stand_ins.clone();
                self.replicate(at, &told, &stand_ins, Some(Waiter::Operation(id)));
                Ran::Changed
            }
            None => Ran::Unchanged { grew: now != digest },
        }
    }

    // ---- what peers answer --------------------------------------------------------------------

    pub(super) fn answer_check(
        &mut self,
        at: usize,
        peer: usize,
        id: u64,
        key: usize,
        digest: Digest,
    ) {
        let verdict = if !self.nodes[at].reach[at].counts() {
            Verdict::NotCounting
        } else if self.check_digest(at, key) == digest {
            Verdict::Same
        } else {
            Verdict::Differs(self.told(at, key))
        };
        self.send(at, peer, Frame::CheckReply { id, verdict });
    }

    pub(super) fn check_answered(&mut self, at: usize, peer: usize, id: u64, verdict: Verdict) {
        let Some(asked) = self.take_asked(at, peer, id) else { return };
        let heard = match verdict {
            Verdict::NotCounting => Heard::Refused(peer),
            Verdict::Same => asked.revision.map_or(Heard::Same(peer), |r| Heard::Stored(peer, r)),
            Verdict::Differs(told) => {
                let heard = self.join_answer(at, peer, asked.operation, &told);
                asked.revision.map_or(heard, |revision| Heard::Stored(peer, revision))
            }
        };
        self.tell(at, asked.operation, heard);
    }

    pub(super) fn put_answered(&mut self, at: usize, peer: usize, id: u64, ok: bool) {
        let Some(asked) = self.take_asked(at, peer, id) else { return };
        let heard = match asked.revision {
            Some(revision) if ok => Heard::Stored(peer, revision),
            _ => Heard::Refused(peer),
        };
        self.tell(at, asked.operation, heard);
    }

    /// Only the one that was asked may answer, and only while somebody waits.
    fn take_asked(&mut self, at: usize, peer: usize, id: u64) -> Option<Asked> {
        let node = &mut self.nodes[at];
        node.asked.get(&id).filter(|asked| asked.peer == peer)?;
        let asked = node.asked.remove(&id)?;
        node.operations.contains_key(&asked.operation).then_some(asked)
    }

    /// Joins the entry that a peer sent instead of "same".
    fn join_answer(&mut self, at: usize, peer: usize, id: u64, told: &Told) -> Heard {
        self.merge(at, told);
        let key = told.key;
        let hash = SEED.key(&self.chart.keys[key].0);
        let live = self.is(Mutant::LiveOnly);
        let theirs = match record::decode(&told.bytes) {
            Ok((_, Record::Plain(plain))) if live => plain.digest(SEED, hash),
            Ok((_, Record::Plain(plain))) => plain.state_digest(SEED, hash),
            Ok((_, Record::Whole(entry))) if live => entry.digest(SEED, hash),
            Ok((_, Record::Whole(entry))) => entry.state_digest(SEED, hash),
            _ => Digest::NONE,
        };
        let now = self.check_digest(at, key);
        let Operation { digest, request, ref machine, .. } = self.nodes[at].operations[&id];
        let grew = now != digest;
        let reads = matches!(machine, Machine::Read(_));
        let reply = (grew && reads).then(|| self.look(at, request));
        if let Some(operation) = self.nodes[at].operations.get_mut(&id).filter(|_| grew) {
            operation.digest = now;
            operation.reply = reply.unwrap_or(operation.reply);
        }
        Heard::Entry { from: peer, grew, behind: theirs != now }
    }

    fn tell(&mut self, at: usize, id: u64, heard: Heard) {
        let Some(operation) = self.nodes[at].operations.get_mut(&id) else { return };
        let mut effects = Vec::new();
        operation.machine.on(heard, &mut effects);
        self.carry_out(at, id, effects);
    }

    pub(super) fn operation_acknowledged(&mut self, at: usize, id: u64, peer: usize) {
        self.tell(at, id, Heard::Acknowledged(peer));
    }

    pub(super) fn operation_lost(&mut self, at: usize, id: u64, peer: usize) {
        self.tell(at, id, Heard::Lost(peer));
    }

    /// The link to `peer` broke: nobody who asked it will be answered.
    pub(super) fn operations_lost(&mut self, at: usize, peer: usize) {
        let asked = &mut self.nodes[at].asked;
        let gone: Vec<u64> =
            asked.iter().filter(|(_, asked)| asked.peer == peer).map(|(&id, _)| id).collect();
        for id in gone {
            if let Some(asked) = self.nodes[at].asked.remove(&id) {
                self.tell(at, asked.operation, Heard::Lost(peer));
            }
        }
    }

    pub(super) fn operation_slow(&mut self, at: usize, id: u64) {
        self.tell(at, id, Heard::Slow);
    }

    pub(super) fn operation_late(&mut self, at: usize, id: u64) {
        if self.nodes[at].operations.contains_key(&id) {
            self.note(|_| format!("{} gives an operation up", place(at)));
            self.tell(at, id, Heard::Deadline);
        }
    }

    /// An answer is held by as many replicas as it says.
    fn check_held(&mut self, at: usize, id: u64) {
        let Operation { request, key, reply, hold, .. } = self.nodes[at].operations[&id];
        let asked = self.ledger.requests[request];
        if reply.changed || asked.losses != self.ledger.happened.losses {
            return;
        }
        let replicas = &self.chart.replicas[self.chart.keys[key].1.index()];
        let holds = |&&peer: &&usize| reply.seen.seen & !self.nodes[peer].facts[key].seen == 0;
        let holders = replicas.iter().filter(holds).count();
        self.ledger.expect(holders >= usize::from(hold), || {
            format!("#{request} is answered by {}, but {holders} of {hold} hold it", place(at))
        });
    }
}
