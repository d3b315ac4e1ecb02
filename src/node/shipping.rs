//! What an exchange does at the pace of its peer: it lists keys, compares lists and sends entries, a
//! few at a time, and never in the way of clients or of what is said about trees.
//!
//! Invariant: what an exchange says behind entries is sent behind the last of them, and all that it
//! does is done in order. What cannot be sent, or cannot be said, breaks the link: both ends begin
//! anew, and neither waits for what will not come.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tracing::warn;

use crate::anti_entropy::exchange::{Effect, compare};
use crate::anti_entropy::keys::Span;
use crate::anti_entropy::message::{Message, Scope};
use crate::base::id::VnodeId;
use crate::base::time::UnixMs;
use crate::handoff::pace;
use crate::peer::message::{Message as Frame, PUT_EXCHANGED, PUT_UNASKED};
use crate::peer::state::DownReason;
use crate::storage::warming::ColdRecord;

use super::Node;
use super::batch::PeerIndex;
use super::exchange::Walk;
use super::quorum::Asked;

/// Nothing more is done while this much waits on the link: clients' frames share it.
const LINK_SHARE_BYTES: usize = 1 << 20;

/// How soon a full link is looked at again.
const LINK_LOOK: Duration = Duration::from_millis(2);

/// Entries gathered under one look at the vnode.
const ENTRIES_AT_ONCE: usize = 64;

/// What an entry is taken to cost before one was seen.
const ENTRY_COST_GUESSED: usize = 2 << 10;

/// What is listed and compared costs the processors more than its bytes: so many times as much.
const LIST_COST: usize = 2;

/// How long an answer to entries is waited for: the peer may be slow, but its link is watched.
const ANSWER_WITHIN_MS: u64 = 30_000;

/// What is to be done next at the pace of the peer.
#[derive(Debug)]
pub(super) enum Work {
    /// Sends entries.
    Ship(Shipment),
    /// Lists keys for this node's own exchange of that number.
    List { vnode: VnodeId, begun: Option<u32>, scope: Scope, span: Span },
    /// Compares the keys that the peer has listed.
    Compare { vnode: VnodeId, message: Message },
}

impl Work {
    /// The number of this node's own exchange; `None`: it is the peer's.
    pub(super) fn begun(&self) -> Option<u32> {
        match self {
            Work::Ship(Shipment { begun, .. }) | Work::List { begun, .. } => *begun,
            Work::Compare { .. } => None,
        }
    }
}

/// Entries that an exchange sends.
#[derive(Debug)]
pub(super) struct Shipment {
    pub(super) vnode: VnodeId,
    /// The number of this node's own exchange; `None`: the peer's.
    pub(super) begun: Option<u32>,
    pub(super) hashes: Vec<u64>,
    /// How many of them are sent.
    pub(super) sent: usize,
    /// What comes behind them.
    pub(super) then: Vec<Effect>,
}

/// Entries on their way, whose last one is answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shipped {
    pub(super) peer: PeerIndex,
    pub(super) deadline: UnixMs,
    cost: usize,
    at: Instant,
}

/// How much a walk's entries cost of late.
#[derive(Clone, Copy, Debug)]
pub(super) struct EntryCost(usize);

impl Default for EntryCost {
    fn default() -> EntryCost {
        EntryCost(ENTRY_COST_GUESSED)
    }
}

impl EntryCost {
    /// How many entries `allowance` is enough for, about.
    fn affords(self, allowance: usize) -> usize {
        (allowance / self.0).clamp(1, ENTRIES_AT_ONCE)
    }

    fn note(&mut self, entries: usize, cost: usize) {
        if let Some(each) = cost.checked_div(entries) {
            self.0 = (3 * self.0 + each) / 4;
        }
    }
}

impl Node {
    /// How long to wait before more may be done; `None`: not at all.
    pub(super) fn exchange_wait(&self, walk: &Walk) -> Option<Duration> {
        let wait = self.exchanges.budget.lock().wait_ms(self.exchanges.now());
        let paced = &self.peers[usize::from(walk.peer)].paced;
        if wait > 0 {
            Some(Duration::from_millis(wait))
        } else if walk.link.queued_bytes() > LINK_SHARE_BYTES {
            Some(LINK_LOOK)
        } else if paced.allowance() == 0 {
            Some(paced.wait())
        } else {
            None
        }
    }

    /// Does some of the first piece of work.
    pub(super) async fn do_some(self: &Arc<Node>, walk: &mut Walk) {
        match walk.works.pop_front() {
            Some(Work::Ship(shipment)) => self.ship_some(walk, shipment).await,
            Some(Work::List { vnode, begun, scope, span }) => {
                let list = self.list_keys(vnode, scope, span);
                let mut effects = Vec::new();
                if let Some(active) = walk.active(begun) {
                    active.exchange.on_keys(list, &mut effects);
                }
                self.carry_out_exchange(walk, vnode, begun, effects);
            }
            Some(Work::Compare { vnode, message }) => self.compare_keys(walk, vnode, &message),
            None => {}
        }
    }

    /// Compares what the peer has listed.
    pub(super) fn compare_keys(
        self: &Arc<Node>,
        walk: &mut Walk,
        vnode: VnodeId,
        message: &Message,
    ) {
        let Some((scope, span)) = message.listed() else { return };
        let mut effects = Vec::new();
        compare(message, &self.list_keys(vnode, scope, span), &mut effects);
        self.carry_out_exchange(walk, vnode, None, effects);
    }

    /// Sends some entries, and when those were the last, does what comes behind them.
    async fn ship_some(self: &Arc<Node>, walk: &mut Walk, mut shipment: Shipment) {
        let allowance = self.peers[usize::from(walk.peer)].paced.allowance();
        let count = walk.entry_cost.affords(allowance);
        let upto = shipment.hashes.len().min(shipment.sent + count);
        let some = &shipment.hashes[shipment.sent..upto];
        if !self.send_entries(walk, shipment.vnode, some).await {
            // Without them the exchange would not be what it claims.
            return walk.link.close(DownReason::Aborted);
        }
        shipment.sent = upto;
        walk.sent = self.exchanges.now();
        self.keep_engaged(walk, shipment.vnode);
        if upto < shipment.hashes.len() {
            return walk.works.push_front(Work::Ship(shipment));
        }
        let Shipment { vnode, begun, mut then, .. } = shipment;
        // A responder keeps no state, so nobody is told there.
        if let Some(active) = walk.active(begun) {
            active.exchange.on_entries_sent(&mut then);
        }
        self.carry_out_exchange(walk, vnode, begun, then);
    }

    /// Sends what is held of these keys; whether that is on its way.
    pub(super) async fn send_entries(
        &self,
        walk: &mut Walk,
        vnode: VnodeId,
        hashes: &[u64],
    ) -> bool {
        let mut records = Records::default();
        let mut batch = self.batch();
        let cold = self.keyspace.read(vnode, super::now(), |keys| {
            keys.records_of(hashes, |record| records.push(record))
        });
        self.note(&mut batch, vnode);
        if self.conclude(&mut batch).await.is_err() {
            return false;
        }
        if !cold.is_empty() {
            self.fetch(vnode, cold).await.iter().for_each(|record| records.push(record));
        }
        let count = records.ends.len();
        if count == 0 {
            return true;
        }
        let cost = pace::cost(count, records.bytes.len());
        let deadline = UnixMs(super::now().0 + ANSWER_WITHIN_MS);
        let shipped = Shipped { peer: walk.peer, deadline, cost, at: Instant::now() };
        let ticket = self.operations.asked.lock().insert(Asked::Shipped(shipped));
        let frames = records.frames(vnode, PUT_EXCHANGED | ticket.number());
        self.metrics.exchange_entries_sent.add(count as u64);
        self.metrics.exchange_bytes_sent.add(frames.len() as u64);
        self.exchanges.budget.lock().spend(frames.len());
        self.peers[usize::from(walk.peer)].paced.on_sent(cost);
        walk.entry_cost.note(count, cost);
        walk.link.append(&frames, 0).is_ok()
    }

    /// The peer's log has what was shipped.
    pub(super) fn shipped_answered(&self, shipped: &Shipped) {
        let at = &self.peers[usize::from(shipped.peer)];
        at.paced.on_answer(shipped.cost, shipped.at.elapsed());
        at.exchange.wake();
    }

    /// Nobody has said for very long that what was shipped has come.
    pub(super) fn shipped_unanswered(&self, shipped: &Shipped) {
        self.peers[usize::from(shipped.peer)].paced.on_landed(shipped.cost);
    }

    /// Records that are on disk, read by a thread that may wait, without warming them.
    async fn fetch(&self, vnode: VnodeId, cold: Vec<ColdRecord>) -> Vec<Vec<u8>> {
        let keyspace = self.keyspace.clone();
        let read = tokio::task::spawn_blocking(move || {
            let fetch = |record: &ColdRecord| match keyspace.fetch(vnode, record) {
                Ok(bytes) => Some(bytes),
                Err(why) => {
                    warn!(vnode = vnode.0, %why, "a record on disk was left out of an exchange");
                    None
                }
            };
            cold.iter().filter_map(fetch).collect()
        });
        read.await.unwrap_or_default()
    }

    /// Says something of an exchange. What cannot be said would be waited for: then the link ends.
    pub(super) fn say(&self, walk: &Walk, vnode: VnodeId, message: &Message) {
        let mut body = Vec::new();
        message.encode(&mut body);
        self.metrics.exchange_bytes_sent.add(body.len() as u64);
        self.metrics.exchange_walk_bytes_sent.add(body.len() as u64);
        if message.is_charged() {
            self.exchanges.budget.lock().spend(body.len());
            self.peers[usize::from(walk.peer)].paced.on_spent(LIST_COST * body.len());
        }
        if walk.link.send(&Frame::Tree { vnode, kind: 0, body: &body }).is_err() {
            walk.link.close(DownReason::Aborted);
        }
    }
}

/// Records that lie together.
#[derive(Default)]
struct Records {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Records {
    fn push(&mut self, record: &[u8]) {
        self.bytes.extend_from_slice(record);
        self.ends.push(self.bytes.len());
    }

    /// As frames of an exchange; the last is answered under `number`.
    fn frames(&self, vnode: VnodeId, number: u64) -> BytesMut {
        let mut frames = BytesMut::with_capacity(self.bytes.len() + 32 * self.ends.len());
        let mut from = 0;
        for (nth, &end) in self.ends.iter().enumerate() {
            let id = if nth + 1 == self.ends.len() { number } else { PUT_UNASKED };
            Frame::Put { id, vnode, record: &self.bytes[from..end] }.encode(&mut frames);
            from = end;
        }
        frames
    }
}
