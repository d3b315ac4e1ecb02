//! Exchanges with each peer: one task a peer walks what is owed, and answers what is asked.
//!
//! The machine ([`crate::anti_entropy::exchange`]) decides what is sent; entries travel as `Put`
//! frames, a few buckets at a time, and no faster than the link takes them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use crate::anti_entropy::exchange::{Effect, Exchange, Message, Scope, respond, responds_to};
use crate::anti_entropy::tree::BucketSet;
use crate::base::id::VnodeId;
use crate::peer::message::Message as Frame;
use crate::peer::outbox::Outbox;
use crate::storage::warming::ColdRecord;

use super::Node;
use super::batch::PeerIndex;

/// An exchange that has not moved for this long is given up and begun anew.
const STUCK: Duration = Duration::from_secs(5);

/// Entries wait while this much waits on the link: clients' frames share it.
const LINK_SHARE_BYTES: usize = 4 << 20;

/// Records read from disk in one go.
const COLD_AT_ONCE: usize = 256;

/// Buckets gathered under one look at the vnode.
const BUCKETS_AT_ONCE: usize = 16;

/// What one peer has said about trees, for its task to read.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    letters: Mutex<VecDeque<(VnodeId, Message)>>,
    lost: AtomicBool,
    wake: Notify,
}

impl Mailbox {
    pub(super) fn post(&self, vnode: VnodeId, message: Message) {
        self.letters.lock().push_back((vnode, message));
        self.wake.notify_one();
    }

    /// The link broke: what was said belongs to it.
    pub(super) fn lost(&self) {
        self.letters.lock().clear();
        self.lost.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }
}

/// Whose effects are carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    Initiator,
    Responder,
}

/// The exchange that this node has begun with a peer.
struct Active {
    vnode: VnodeId,
    exchange: Exchange,
    /// Whether the peer counted when it began.
    counting: bool,
    moved: Instant,
}

impl Node {
    /// Every vnode that this node and `peer` hold must be compared.
    pub(super) fn owe(&self, peer: PeerIndex) {
        for vnode in self.shared_vnodes(peer) {
            self.unsettled.owe(vnode, peer);
        }
        self.peers[usize::from(peer)].exchange.wake();
    }

    pub(super) fn spawn_exchanges(self: &Arc<Node>) {
        for peer in 0..self.peers.len() as PeerIndex {
            if peer != self.routes.me() {
                let node = self.clone();
                tokio::spawn(async move { node.exchange_always(peer).await });
            }
        }
    }

    async fn exchange_always(&self, peer: PeerIndex) {
        let mailbox = &self.peers[usize::from(peer)].exchange;
        let mut active: Option<Active> = None;
        let mut number = 0;
        loop {
            if mailbox.lost.swap(false, Ordering::AcqRel) {
                active = None;
            }
            let Some(link) = self.peers[usize::from(peer)].outbox() else {
                active = None;
                mailbox.wake.notified().await;
                continue;
            };
            let letter = mailbox.letters.lock().pop_front();
            if let Some((vnode, message)) = letter {
                let side = if responds_to(&message) { Side::Responder } else { Side::Initiator };
                let effects = self.answer(vnode, &message, active.as_mut());
                self.carry_out_exchange(peer, &link, side, vnode, &mut active, effects).await;
                continue;
            }
            if active.as_ref().is_some_and(|active| active.moved.elapsed() >= STUCK) {
                debug!(peer, "an exchange does not move, beginning anew");
                active = None;
            }
            if active.is_none()
                && let Some(vnode) = self.next_owed(peer)
            {
                number += 1;
                let (begun, effects) = self.begin_exchange(peer, vnode, number);
                active = Some(begun);
                let side = Side::Initiator;
                self.carry_out_exchange(peer, &link, side, vnode, &mut active, effects).await;
                continue;
            }
            let patience = if active.is_some() { STUCK } else { Duration::from_secs(3600) };
            let _ = timeout(patience, mailbox.wake.notified()).await;
        }
    }

    /// Nothing is compared before both streams are through: they bring most of what differs, and
    /// bring it once.
    fn next_owed(&self, peer: PeerIndex) -> Option<VnodeId> {
        if !self.streams_are_through(peer) {
            return None;
        }
        self.held_vnodes().find(|&vnode| self.unsettled.owes(vnode, peer))
    }

    fn begin_exchange(
        &self,
        peer: PeerIndex,
        vnode: VnodeId,
        number: u32,
    ) -> (Active, Vec<Effect>) {
        let recovering = self.recovery.lock().is_recovering(vnode);
        let scope = if recovering { Scope::Whole } else { Scope::Differing };
        let mut effects = Vec::new();
        let exchange =
            self.keyspace.tree(vnode, |tree| Exchange::start(number, scope, tree, &mut effects));
        let counting = self.routes.reach(peer).counts();
        (Active { vnode, exchange, counting, moved: Instant::now() }, effects)
    }

    fn answer(
        &self,
        vnode: VnodeId,
        message: &Message,
        active: Option<&mut Active>,
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.keyspace.tree(vnode, |tree| {
            if responds_to(message) {
                respond(message, tree, &mut effects);
            } else if let Some(active) = active.filter(|active| active.vnode == vnode) {
                active.moved = Instant::now();
                active.exchange.on_message(message, tree, &mut effects);
            }
        });
        effects
    }

    async fn carry_out_exchange(
        &self,
        peer: PeerIndex,
        link: &Outbox,
        side: Side,
        vnode: VnodeId,
        active: &mut Option<Active>,
        effects: Vec<Effect>,
    ) {
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::Send(message) => {
                    let mut body = Vec::new();
                    message.encode(&mut body);
                    let _ = link.send(&Frame::Tree { vnode, kind: 0, body: &body });
                }
                Effect::SendEntriesOf(buckets) => {
                    self.send_entries(link, vnode, buckets).await;
                    // A responder keeps no state, so nobody is told there.
                    if let (Side::Initiator, Some(active)) = (side, active.as_mut()) {
                        let mut more = Vec::new();
                        active.moved = Instant::now();
                        active.exchange.on_entries_sent(&mut more);
                        effects.extend(more);
                    }
                }
                Effect::Done { buckets } => {
                    if let Some(active) = active.take() {
                        self.exchanged(peer, &active, buckets);
                    }
                }
                Effect::GivenUp => *active = None,
            }
        }
    }

    async fn send_entries(&self, link: &Outbox, vnode: VnodeId, buckets: BucketSet) {
        let all: Vec<u8> = buckets.iter().collect();
        for some in all.chunks(BUCKETS_AT_ONCE) {
            while link.queued_bytes() > LINK_SHARE_BYTES && !link.is_closed() {
                sleep(Duration::from_millis(2)).await;
            }
            let (mut frames, mut entries) = (BytesMut::new(), 0);
            let wanted = |bucket: u8| some.contains(&bucket);
            let mut batch = self.batch();
            let cold = self.keyspace.read(vnode, super::now(), |keys| {
                keys.records(wanted, |_, record| {
                    Frame::Put { id: 0, vnode, record }.encode(&mut frames);
                    entries += 1;
                })
            });
            self.note(&mut batch, vnode);
            if self.conclude(&mut batch).await.is_err() {
                return;
            }
            for some in cold.chunks(COLD_AT_ONCE) {
                for record in self.fetch(vnode, some.to_vec()).await {
                    Frame::Put { id: 0, vnode, record: &record }.encode(&mut frames);
                    entries += 1;
                }
            }
            self.metrics.exchange_entries_sent.add(entries);
            if !frames.is_empty() && link.append(&frames, 0).is_err() {
                return;
            }
        }
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

    fn exchanged(&self, peer: PeerIndex, active: &Active, buckets: u16) {
        let vnode = active.vnode;
        self.unsettled.settle(vnode, peer);
        self.metrics.exchanges.bump();
        if buckets > 0 {
            self.metrics.exchanges_differing.bump();
            debug!(vnode = vnode.0, peer, buckets, "exchanged");
        }
        let counting = active.counting && self.routes.reach(peer).counts();
        let mut recovery = self.recovery.lock();
        let was_over = recovery.is_over();
        recovery.on_exchanged(vnode, self.routes.node(peer), counting);
        let is_over = recovery.is_over();
        self.metrics.recovering_vnodes.set(recovery.vnodes().count() as u64);
        drop(recovery);
        if is_over && !was_over && !self.returning.load(Ordering::Acquire) {
            info!("recovered from peers: this node counts again");
            self.steer_own();
            self.tell_status();
        }
        self.look_whether_compared(peer);
    }
}
