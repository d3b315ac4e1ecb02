//! One batch: what a task does with everything that one read(2) brought.
//!
//! A session or a link hands over many requests at a time. What they send to peers, and what waits
//! for those peers, is gathered here and leaves under one lock a peer at the end of the batch
//! ([`super::Node::flush`]). The buffers live as long as their task.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::BytesMut;
use smallvec::SmallVec;

use crate::base::id::VnodeId;
use crate::base::time::UnixMs;
use crate::coordinator::tally::Tally;
use crate::coordinator::waiting::WaitId;
use crate::peer::message::{FwdStatus, Message};
use crate::storage::log::Commit;

use super::gather::Gathering;
use super::looked::Looked;
use super::replies::{Leaving, Replies, ReplyBytes};
use super::slab::Ticket;
use super::waiting::Waiting;

/// A peer by its place among the members, in the order of their ids.
pub(super) type PeerIndex = u8;

/// Who asked, and so where the reply goes.
#[derive(Debug)]
pub(super) enum Origin {
    /// A client of this node: a place among its connection's replies.
    Session { replies: Arc<Replies>, place: u64 },
    /// A peer that forwarded the request, and its number there.
    Peer { peer: PeerIndex, id: u64 },
    /// A request of several parts: which of them this is.
    Part { gathering: Arc<Gathering>, index: usize },
    /// A request that waits again if it finds nothing.
    Waiting { waiting: Arc<Waiting>, id: WaitId },
}

/// A write that was run here and waits for its acknowledgements.
#[derive(Debug)]
pub(super) struct Awaited {
    pub(super) tally: Tally,
    pub(super) origin: Origin,
    pub(super) reply: ReplyBytes,
    pub(super) deadline: UnixMs,
}

/// Which operation waits for a peer's acknowledgement, once the batch has left.
#[derive(Clone, Copy, Debug)]
pub(super) enum Waiter {
    /// The `n`-th of the batch's [`Awaited`] writes.
    Fresh(usize),
    /// An operation of the quorum machines.
    Quorum(Ticket),
}

/// Who waits for the `nth` change (from 1) that the batch sends to a peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    pub(super) nth: u64,
    pub(super) waiter: Waiter,
    /// The peer's place in the key's replica list.
    pub(super) place: u8,
}

/// What leaves for one peer.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    pub(super) frames: BytesMut,
    pub(super) reps: u64,
    pub(super) waits: Vec<Wait>,
}

impl Outgoing {
    pub(super) fn send(&mut self, message: &Message<'_>) {
        message.encode(&mut self.frames);
    }

    pub(super) fn replicate(&mut self, vnode: VnodeId, record: &[u8]) {
        self.send(&Message::Rep { vnode, record });
        self.reps += 1;
    }
}

/// The records that one command appended.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) bytes: BytesMut,
    pub(super) ends: SmallVec<[usize; 4]>,
}

impl Records {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Everything appended since the last mark is one record.
    pub(super) fn mark(&mut self) {
        self.ends.push(self.bytes.len());
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.ends.iter().scan(0, |start, &end| {
            let record = &self.bytes[*start..end];
            *start = end;
            Some(record)
        })
    }
}

/// See the head of this file.
#[derive(Debug)]
pub struct Batch {
    pub(super) now: UnixMs,
    pub(super) random: fastrand::Rng,
    pub(super) outgoing: Vec<Outgoing>,
    pub(super) awaited: Vec<Awaited>,
    pub(super) records: Records,
    pub(super) leaving: Leaving,
    /// What the log must hold before anything of this leaves.
    pub(super) commit: Commit,
    pub(super) looked: Looked,
    /// Keys that have changed here and that somebody waits for.
    pub(super) ready: VecDeque<Vec<u8>>,
}

impl Batch {
    pub(super) fn new(members: usize) -> Batch {
        Batch {
            now: UnixMs(0),
            random: fastrand::Rng::new(),
            outgoing: (0..members).map(|_| Outgoing::default()).collect(),
            awaited: Vec::new(),
            records: Records::default(),
            leaving: Leaving::default(),
            commit: Commit::default(),
            looked: Looked::default(),
            ready: VecDeque::new(),
        }
    }

    /// The moment of this batch.
    pub fn now(&self) -> UnixMs {
        self.now
    }

    pub(super) fn to(&mut self, peer: PeerIndex) -> &mut Outgoing {
        &mut self.outgoing[usize::from(peer)]
    }

    /// Brings `reply` to whoever asked.
    pub(super) fn settle(&mut self, origin: Origin, status: FwdStatus, reply: ReplyBytes) {
        match origin {
            Origin::Session { replies, place } => self.leaving.fill(replies, place, reply),
            Origin::Peer { peer, id } => {
                self.to(peer).send(&Message::FwdReply { id, status, reply: &reply });
            }
            Origin::Part { gathering, index } => {
                if let Some((origin, reply)) = gathering.part(index, status, reply) {
                    self.settle(origin, FwdStatus::Ok, reply);
                }
            }
            Origin::Waiting { waiting, id } => {
                if let Some((origin, reply)) = waiting.settled(id, status, reply) {
                    self.settle(origin, status, reply);
                }
            }
        }
    }
}
