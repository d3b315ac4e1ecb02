//! Entries on their way to a peer in the course of an exchange: a few at a time, no faster than the
//! link takes them and the budget allows, and never in the way of what is said about trees.
//!
//! Invariant: what an exchange says behind entries is sent behind the last of them.

use std::time::Duration;

use bytes::BytesMut;
use tracing::warn;

use crate::anti_entropy::exchange::Effect;
use crate::base::id::VnodeId;
use crate::peer::message::Message as Frame;
use crate::peer::outbox::Outbox;
use crate::storage::warming::ColdRecord;

use super::Node;
use super::exchange::Walk;

/// Entries wait while this much waits on the link: clients' frames share it.
const LINK_SHARE_BYTES: usize = 4 << 20;

/// How soon a full link is looked at again.
const LINK_LOOK: Duration = Duration::from_millis(2);

/// Entries gathered under one look at the vnode.
const ENTRIES_AT_ONCE: usize = 64;

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

impl Node {
    /// How long to wait before more entries may be sent; `None`: not at all.
    pub(super) fn exchange_wait(&self, link: &Outbox) -> Option<Duration> {
        let wait = self.exchanges.budget.lock().wait_ms(self.exchanges.now());
        match wait {
            0 if link.queued_bytes() <= LINK_SHARE_BYTES => None,
            0 => Some(LINK_LOOK),
            wait => Some(Duration::from_millis(wait)),
        }
    }

    /// Sends some entries of the first shipment. When it is through: what is to be done next, of
    /// which vnode and exchange.
    pub(super) async fn ship_some(
        &self,
        walk: &mut Walk,
    ) -> Option<(VnodeId, Option<u32>, Vec<Effect>)> {
        let shipment = walk.shipments.front_mut()?;
        let upto = shipment.hashes.len().min(shipment.sent + ENTRIES_AT_ONCE);
        let some = &shipment.hashes[shipment.sent..upto];
        if !self.send_entries(&walk.link, shipment.vnode, some).await {
            // Without them the exchange would not be what it claims; it begins anew some time.
            let shipment = walk.shipments.pop_front()?;
            walk.abandon(shipment.begun);
            return None;
        }
        shipment.sent = upto;
        walk.sent = self.exchanges.now();
        if upto < shipment.hashes.len() {
            return None;
        }
        let Shipment { vnode, begun, mut then, .. } = walk.shipments.pop_front()?;
        // A responder keeps no state, so nobody is told there.
        if let Some(active) = walk.active(begun) {
            active.exchange.on_entries_sent(&mut then);
        }
        Some((vnode, begun, then))
    }

    /// Sends what is held of these keys; whether that is on its way.
    pub(super) async fn send_entries(&self, link: &Outbox, vnode: VnodeId, hashes: &[u64]) -> bool {
        let (mut frames, mut entries) = (BytesMut::new(), 0);
        let mut batch = self.batch();
        let cold = self.keyspace.read(vnode, super::now(), |keys| {
            keys.records_of(hashes, |record| {
                Frame::Put { id: 0, vnode, record }.encode(&mut frames);
                entries += 1;
            })
        });
        self.note(&mut batch, vnode);
        if self.conclude(&mut batch).await.is_err() {
            return false;
        }
        if !cold.is_empty() {
            for record in self.fetch(vnode, cold).await {
                Frame::Put { id: 0, vnode, record: &record }.encode(&mut frames);
                entries += 1;
            }
        }
        self.metrics.exchange_entries_sent.add(entries);
        self.metrics.exchange_bytes_sent.add(frames.len() as u64);
        self.exchanges.budget.lock().spend(frames.len());
        frames.is_empty() || link.append(&frames, 0).is_ok()
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
}
