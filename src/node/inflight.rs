//! What is under way with peers: writes that wait for acknowledgements, requests that another
//! node runs, and who waits for which change of each link's stream.

use std::collections::VecDeque;

use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;

use crate::base::time::UnixMs;
use crate::coordinator::tally::Verdict;
use crate::peer::message::FwdStatus;
use crate::peer::outbox::OutboxError;
use crate::peer::stream::{Bounds, Stream as Changes};

use super::Node;
use super::batch::{Awaited, Batch, Origin, PeerIndex, Waiter};
use super::replies::ReplyBytes;
use super::slab::{Slab, Ticket};
use super::waiting::Abroad;

/// A request that another node runs.
#[derive(Debug)]
pub(super) struct Forwarded {
    pub(super) origin: Origin,
    pub(super) peer: PeerIndex,
    pub(super) writes: bool,
    pub(super) deadline: UnixMs,
    /// If it may wait there for a key to change.
    pub(super) abroad: Option<Box<Abroad>>,
}

impl Forwarded {
    /// Whether it lies at that peer, as far as is known.
    fn is_with(&self, peer: PeerIndex) -> bool {
        self.peer == peer && self.abroad.as_ref().is_none_or(|abroad| abroad.is_there())
    }
}

/// Who waits for a change in a link's stream.
#[derive(Clone, Copy, Debug)]
struct InStream {
    sequence: u64,
    place: u8,
    waiting: Waiting,
}

#[derive(Clone, Copy, Debug)]
enum Waiting {
    Write(Ticket),
    Quorum(Ticket),
}

/// Who waits for one link's acknowledgements, in the order of its stream.
#[derive(Debug)]
pub(super) struct Stream(Mutex<Standing>);

/// See [`super::streams`].
#[derive(Debug)]
pub(super) struct Standing {
    waiting: VecDeque<InStream>,
    /// The stream itself, while there is no link.
    pub(super) parked: Option<Changes>,
    /// How many dropped backlogs were counted already.
    pub(super) dropped_seen: u64,
}

impl Stream {
    pub(super) fn new(bounds: Bounds) -> Stream {
        let parked = Some(Changes::new(bounds));
        Stream(Mutex::new(Standing { waiting: VecDeque::new(), parked, dropped_seen: 0 }))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Standing> {
        self.0.lock()
    }
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Inflight {
    pub(super) awaited: Mutex<Slab<Awaited>>,
    pub(super) forwards: Mutex<Slab<Forwarded>>,
}

type Settled = SmallVec<[(Awaited, Verdict); 32]>;

fn bytes(text: &str) -> ReplyBytes {
    let mut bytes = ReplyBytes::new();
    bytes.push(b'-');
    bytes.extend_from_slice(text.as_bytes());
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// The reply of a write that ran, and is not known to be held by W replicas.
pub(super) fn uncertain() -> ReplyBytes {
    bytes("UNCERTAIN too few replicas confirmed the write in time, it may have been done")
}

impl Node {
    /// Sends what the batch gathered: at most one append a peer, one wake-up a connection.
    pub fn flush(&self, batch: &mut Batch) {
        batch.looked.settle(&self.metrics);
        let tickets: SmallVec<[Ticket; 32]> = if batch.awaited.is_empty() {
            SmallVec::new()
        } else {
            let mut awaited = self.inflight.awaited.lock();
            batch.awaited.drain(..).map(|write| awaited.insert(write)).collect()
        };
        let mut again = false;
        for peer in 0..batch.outgoing.len() {
            if !batch.outgoing[peer].frames.is_empty() {
                again |= !self.send(batch, peer as PeerIndex, &tickets);
            }
        }
        if again {
            // What was lost may have settled requests whose replies go to other peers.
            self.flush(batch);
        }
        batch.leaving.leave();
    }

    /// Drops what the batch gathered, because the log does not hold what was done: nobody is told
    /// anything, and what peers miss comes with the next exchange.
    pub(super) fn abandon(&self, batch: &mut Batch) {
        batch.looked.settle(&self.metrics);
        batch.leaving.abandon();
        batch.awaited.clear();
        for peer in 0..batch.outgoing.len() as PeerIndex {
            let outgoing = std::mem::take(batch.to(peer));
            if outgoing.reps > 0 {
                self.missed(peer);
            }
        }
    }

    /// Appends what leaves for one peer to its link; `false` if that failed.
    fn send(&self, batch: &mut Batch, peer: PeerIndex, tickets: &[Ticket]) -> bool {
        let mut outgoing = std::mem::take(batch.to(peer));
        let resolve = |waiter: Waiter| match waiter {
            Waiter::Fresh(nth) => Waiting::Write(tickets[nth]),
            Waiter::Quorum(ticket) => Waiting::Quorum(ticket),
        };
        let at = &self.peers[usize::from(peer)];
        // Held over the append: an acknowledgement cannot overtake its waiter.
        let mut stream = at.stream.lock();
        let appended = match &mut stream.parked {
            Some(parked) => {
                parked.sort_in(&outgoing.frames, false);
                Err(OutboxError::Closed)
            }
            None => at.outbox().map_or(Err(OutboxError::Closed), |link| {
                link.append(&outgoing.frames, outgoing.reps)
            }),
        };
        if let Ok(last) = appended {
            self.metrics.deltas_sent.add(outgoing.reps);
            let before = last - outgoing.reps;
            stream.waiting.extend(outgoing.waits.iter().map(|wait| InStream {
                sequence: before + wait.nth,
                place: wait.place,
                waiting: resolve(wait.waiter),
            }));
        }
        drop(stream);
        let sent = appended.is_ok();
        if !sent {
            // Without a link the changes are in the backlog; of others the peer must be told.
            if outgoing.reps > 0 && appended != Err(OutboxError::Closed) {
                self.missed(peer);
            }
            let lost: SmallVec<[(Waiting, u8); 32]> =
                outgoing.waits.iter().map(|wait| (resolve(wait.waiter), wait.place)).collect();
            self.lose(batch, peer, &lost);
            self.fail_forwards(batch, |_, forward| forward.is_with(peer));
        }
        outgoing.frames.clear();
        outgoing.reps = 0;
        outgoing.waits.clear();
        // Losses may have put more into this peer's buffer: replies that cannot reach it.
        *batch.to(peer) = outgoing;
        sent
    }

    /// `peer` holds every change of the stream up to `upto`.
    pub(super) fn acknowledged(&self, batch: &mut Batch, peer: PeerIndex, upto: u64) {
        let at = &self.peers[usize::from(peer)];
        let mut held: SmallVec<[InStream; 64]> = SmallVec::new();
        let mut caught_up = false;
        {
            let mut stream = at.stream.lock();
            if let Some(link) = at.outbox() {
                caught_up = link.acknowledge(upto);
            }
            let waiting = &mut stream.waiting;
            while let Some(front) = waiting.front().filter(|front| front.sequence <= upto) {
                held.push(*front);
                waiting.pop_front();
            }
        }
        if caught_up {
            self.look_whether_caught_up(peer);
            at.exchange.wake();
        }
        let mut settled = Settled::new();
        {
            let mut awaited = self.inflight.awaited.lock();
            for entry in &held {
                if let Waiting::Write(ticket) = entry.waiting {
                    let verdict = |write: &mut Awaited| write.tally.ack(usize::from(entry.place));
                    judge(&mut awaited, ticket, verdict, &mut settled);
                }
            }
        }
        self.settle_writes(batch, settled);
        for entry in held {
            if let Waiting::Quorum(ticket) = entry.waiting {
                self.quorum_acknowledged(batch, ticket, peer);
            }
        }
    }

    /// Nothing will come from `peer` any more for anyone who waits in its stream.
    pub(super) fn stream_lost(&self, batch: &mut Batch, peer: PeerIndex) {
        let lost: SmallVec<[(Waiting, u8); 32]> = {
            let mut stream = self.peers[usize::from(peer)].stream.lock();
            stream.waiting.drain(..).map(|entry| (entry.waiting, entry.place)).collect()
        };
        self.lose(batch, peer, &lost);
        self.fail_forwards(batch, |_, forward| forward.is_with(peer));
    }

    fn lose(&self, batch: &mut Batch, peer: PeerIndex, lost: &[(Waiting, u8)]) {
        let mut settled = Settled::new();
        {
            let mut awaited = self.inflight.awaited.lock();
            for &(waiting, place) in lost {
                if let Waiting::Write(ticket) = waiting {
                    let verdict = |write: &mut Awaited| write.tally.lost(usize::from(place));
                    judge(&mut awaited, ticket, verdict, &mut settled);
                }
            }
        }
        self.settle_writes(batch, settled);
        for &(waiting, _) in lost {
            if let Waiting::Quorum(ticket) = waiting {
                self.quorum_lost(batch, ticket, peer);
            }
        }
    }

    fn settle_writes(&self, batch: &mut Batch, settled: Settled) {
        for (write, verdict) in settled {
            match verdict {
                Verdict::Reached => batch.settle(write.origin, FwdStatus::Ok, write.reply),
                _ => {
                    self.metrics.uncertain.bump();
                    batch.settle(write.origin, FwdStatus::Uncertain, uncertain());
                }
            }
        }
    }

    /// Answers forwarded requests that will get no reply.
    fn fail_forwards(&self, batch: &mut Batch, which: impl Fn(UnixMs, &Forwarded) -> bool) {
        let now = batch.now;
        let failed: Vec<Forwarded> = {
            let mut forwards = self.inflight.forwards.lock();
            let tickets = forwards.tickets(|forward| which(now, forward));
            tickets.into_iter().filter_map(|ticket| forwards.remove(ticket)).collect()
        };
        for forward in failed {
            if forward.writes {
                self.metrics.uncertain.bump();
                let text = "UNCERTAIN the coordinator did not answer, the write may have been done";
                batch.settle(forward.origin, FwdStatus::Uncertain, bytes(text));
            } else {
                self.metrics.tryagain.bump();
                let text = "TRYAGAIN the coordinator did not answer, nothing was done";
                batch.settle(forward.origin, FwdStatus::NotRun, bytes(text));
            }
        }
    }

    /// A forwarded request's reply has come.
    pub(super) fn forward_answered(
        &self,
        batch: &mut Batch,
        id: u64,
        status: FwdStatus,
        reply: &[u8],
    ) {
        if status == FwdStatus::Unserved {
            return self.forward_unserved(batch, Ticket::of(id));
        }
        let forward = self.inflight.forwards.lock().remove(Ticket::of(id));
        if let Some(forward) = forward {
            batch.settle(forward.origin, status, ReplyBytes::from_slice(reply));
        }
    }

    /// Gives up what has waited too long.
    pub(super) fn expire_inflight(&self, batch: &mut Batch) {
        let now = batch.now;
        let mut settled = Settled::new();
        {
            let mut awaited = self.inflight.awaited.lock();
            for ticket in awaited.tickets(|write| write.deadline <= now) {
                settled.extend(awaited.remove(ticket).map(|write| (write, Verdict::Failed)));
            }
        }
        self.settle_writes(batch, settled);
        self.fail_forwards(batch, |now, forward| forward.deadline <= now);
    }
}

fn judge(
    awaited: &mut Slab<Awaited>,
    ticket: Ticket,
    verdict: impl FnOnce(&mut Awaited) -> Verdict,
    settled: &mut Settled,
) {
    // A write that is settled already has left its place.
    let Some(verdict) = awaited.find(ticket).map(verdict) else { return };
    if matches!(verdict, Verdict::Reached | Verdict::Failed) {
        settled.extend(awaited.remove(ticket).map(|write| (write, verdict)));
    }
}
