//! The streams of changes between this node and each peer, over all the links they have.
//!
//! ```text
//!   link down ──► the stream is parked; changes go on into its backlog
//!   link up   ──► greetings: what each holds of the other's stream
//!                 Resume ── backlog, paced ── CaughtUp ──► through ──► owed exchanges begin
//! ```
//!
//! A stream that resumes without a gap has told everything that its sender coordinated meanwhile,
//! so nothing need be compared with that peer. After a gap (a backlog that was dropped, a sender
//! that was restarted, a receiver that may have forgotten) everything is compared, and the
//! receiver says so when that is done.
//!
//! A peer that is given up may have told its last changes to third replicas only: those are
//! compared with each other. As long as it is only waited for, reads ask more replicas, and
//! nothing is compared.
//!
//! Invariants: the stream to a peer is parked here or with the link's outbox, never both; it moves
//! under the lock of those who wait for its acknowledgements. What this node says that it holds is
//! in its log.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::{info, warn};

use crate::base::id::{Boot, NodeId, VnodeId};
use crate::base::wire::{Cursor, Put, WireError};
use crate::coordinator::route::Reach;
use crate::membership::lives::{Lives, Met};
use crate::membership::steering::Steering;
use crate::peer::message::Message;
use crate::peer::outbox::Outbox;
use crate::peer::state::DownReason;
use crate::peer::stream::{Begun, Lag, Stream};

use super::batch::PeerIndex;
use super::{Node, Peer};

/// What two nodes say to each other where a link begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Greeting {
    /// This node's own life.
    pub(super) own: Met,
    /// The run of this node's process: whose stream it sends.
    pub(super) run: u64,
    /// The run of the other whose stream it knows, 0 for none, and up to where it holds it.
    pub(super) known_run: u64,
    pub(super) held: u64,
    /// Whether it may have lost what it once held, or does not keep what it is sent.
    pub(super) lossy: bool,
    /// What it knows of all nodes' lives, also of the other's.
    pub(super) lives: Lives,
}

impl Greeting {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128);
        bytes.put_u32(self.own.start);
        bytes.put_u16(self.own.boot.0);
        bytes.put_u64(self.own.mark);
        bytes.put_u64(self.run);
        bytes.put_u64(self.known_run);
        bytes.put_u64(self.held);
        bytes.put_u8(u8::from(self.lossy));
        self.lives.encode(&mut bytes);
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Greeting, WireError> {
        let mut at = Cursor::new(bytes);
        Ok(Greeting {
            own: Met { start: at.u32()?, boot: Boot(at.u16()?), mark: at.u64()? },
            run: at.u64()?,
            known_run: at.u64()?,
            held: at.u64()?,
            lossy: at.u8()? != 0,
            lives: Lives::decode(&mut at)?,
        })
    }
}

impl Node {
    /// What this node says to `peer` when they meet.
    pub(super) fn greeting_to(&self, peer: Option<PeerIndex>) -> Greeting {
        let at = peer.map(|peer| &self.peers[usize::from(peer)]);
        let (known_run, held) = at.map_or((0, 0), |at| at.incoming.lock().greeting());
        let own = self.life.own();
        if let Some(at) = at {
            at.told_start.store(own.start, Ordering::Release);
        }
        Greeting {
            own,
            run: self.run,
            known_run,
            held,
            lossy: self.ignores_changes() || !self.recovery.lock().is_over(),
            lives: self.life.met(),
        }
    }

    /// A link to `peer` begins: the stream to it goes on there. (A peer with an empty or an older
    /// folder learns that where it is greeted, and comes again as one that has lost something.)
    pub(super) fn begin_stream(&self, peer: PeerIndex, greeting: &Greeting, link: &Arc<Outbox>) {
        let at = &self.peers[usize::from(peer)];
        at.incoming.lock().link_up(greeting.run);
        let held = (greeting.known_run == self.run).then_some(greeting.held);
        for vnode in self.shared_vnodes(peer) {
            self.unsettled.wait(vnode, peer);
        }
        let mut stream = at.stream.lock();
        let parked = stream.parked.take().expect("a stream is parked while there is no link");
        let begun = link.adopt(parked, held, greeting.lossy, &at.paced);
        *at.outbox.write() = Some(link.clone());
        drop(stream);
        self.note_begun(peer, begun);
        self.begin_rounds(peer);
        self.look_whether_caught_up(peer);
    }

    fn note_begun(&self, peer: PeerIndex, begun: Begun) {
        let (node, changes, bytes) = (self.routes.node(peer), begun.changes, begun.bytes);
        if begun.gap {
            self.metrics.stream_gaps.bump();
            info!(peer = %node, "the stream to a peer has a gap: it will compare itself");
        } else {
            self.metrics.streams_resumed.bump();
            self.metrics.stream_changes_resumed.add(changes);
            info!(peer = %node, changes, bytes, "the stream to a peer is resumed");
        }
    }

    /// The link to `peer` is gone: its stream is parked.
    pub(super) fn end_stream(&self, peer: PeerIndex) {
        let at = &self.peers[usize::from(peer)];
        let mut stream = at.stream.lock();
        if let Some(link) = at.outbox.write().take() {
            stream.parked = link.release();
        }
        drop(stream);
        at.incoming.lock().link_down();
        for vnode in self.shared_vnodes(peer) {
            self.unsettled.wait(vnode, peer);
        }
    }

    /// Nobody waits for `peer` any more: its last changes may have reached third replicas only.
    pub(super) fn pass_by(&self, peer: PeerIndex) {
        let at = &self.peers[usize::from(peer)];
        for vnode in self.shared_vnodes(peer) {
            if self.unsettled.forget(vnode, peer) {
                at.incoming.lock().owe();
            }
            for &other in self.routes.replicas(vnode) {
                if other == peer || other == self.routes.me() {
                    continue;
                }
                if self.peers[usize::from(other)].outbox().is_some() {
                    self.unsettled.owe(vnode, other);
                } else {
                    at.unresolved.store(true, Ordering::Release);
                }
            }
        }
        for peer in &self.peers {
            peer.exchange.wake();
        }
    }

    /// Where the node begins: peers that did not come are given up.
    pub(super) fn pass_by_absent(&self) {
        for peer in 0..self.peers.len() as PeerIndex {
            if peer != self.routes.me() && self.peers[usize::from(peer)].outbox().is_none() {
                self.pass_by(peer);
            }
        }
    }

    /// Vnodes that both this node and `peer` hold.
    pub(super) fn shared_vnodes(&self, peer: PeerIndex) -> impl Iterator<Item = VnodeId> + '_ {
        self.held_vnodes().filter(move |&vnode| self.routes.holds(vnode, peer))
    }

    /// The stream of `peer` goes on after that change.
    pub(super) fn stream_resumes(&self, peer: PeerIndex, after: u64, gap: bool) {
        self.peers[usize::from(peer)].incoming.lock().on_resume(after, gap);
    }

    /// `peer` has nothing to send again: what it coordinated meanwhile is here, or there is a gap.
    pub(super) fn stream_caught_up(&self, peer: PeerIndex) {
        let at = &self.peers[usize::from(peer)];
        let gap = at.incoming.lock().on_caught_up();
        if gap {
            self.owe(peer);
        }
        for vnode in self.shared_vnodes(peer) {
            self.unsettled.arrive(vnode, peer);
        }
        at.unresolved.store(false, Ordering::Release);
        self.owe_for_absent(peer);
        self.look_whether_compared(peer);
        at.exchange.wake();
    }

    /// `peer` may know what others that are gone told nobody else here.
    fn owe_for_absent(&self, peer: PeerIndex) {
        for absent in 0..self.peers.len() as PeerIndex {
            let at = &self.peers[usize::from(absent)];
            if absent == peer
                || !at.unresolved.load(Ordering::Acquire)
                || self.routes.reach(absent) != Reach::Down
            {
                continue;
            }
            for vnode in self.shared_vnodes(absent).filter(|&v| self.routes.holds(v, peer)) {
                self.unsettled.owe(vnode, peer);
            }
        }
    }

    /// What `peer` sent up to `upto` is in this node's log.
    pub(super) fn stream_held(&self, peer: PeerIndex, upto: u64) {
        self.peers[usize::from(peer)].incoming.lock().on_held(upto);
    }

    /// What `peer` sent is not in this node's log: the link is closed, and it will be sent again.
    pub(super) fn stream_not_held(&self, peer: PeerIndex) {
        if let Some(link) = self.peers[usize::from(peer)].outbox() {
            link.close(DownReason::Aborted);
        }
    }

    /// `peer` has compared itself with this node since its stream went on `after`.
    pub(super) fn stream_settled(&self, peer: PeerIndex, after: u64) {
        if let Some(link) = self.peers[usize::from(peer)].outbox() {
            link.stream(|stream| stream.settled(after));
        }
        self.look_whether_caught_up(peer);
    }

    /// Whether neither end has anything to send again, so that what differs is worth a look.
    pub(super) fn streams_are_through(&self, peer: PeerIndex) -> bool {
        let at = &self.peers[usize::from(peer)];
        at.incoming.lock().is_through() && at.outbox().is_some_and(|link| link.is_through())
    }

    /// A peer that holds all that was sent again, and has compared itself after a gap, has what it
    /// missed.
    pub(super) fn look_whether_caught_up(&self, peer: PeerIndex) {
        let link = self.peers[usize::from(peer)].outbox();
        let has_all = |stream: &mut Stream| stream.is_through() && !stream.has_gap();
        if link.and_then(|link| link.stream(has_all)) == Some(true) {
            self.steer(peer, Steering::on_caught_up);
        }
    }

    /// After a gap, and when nothing is left to compare with `peer`, it is told: what it need not
    /// remember any more is in this node's log by then.
    pub(super) fn look_whether_compared(&self, peer: PeerIndex) {
        let at = &self.peers[usize::from(peer)];
        let left = self.shared_vnodes(peer).any(|vnode| self.unsettled.owes(vnode, peer));
        if left || self.ignores_changes() || !at.incoming.lock().is_through() {
            return;
        }
        let Some(after) = at.incoming.lock().settle() else { return };
        let mut batch = self.batch();
        self.begin(&mut batch);
        for vnode in self.shared_vnodes(peer) {
            self.note(&mut batch, vnode);
        }
        batch.to(peer).send(&Message::Settled { after });
        if let Some(node) = self.own.upgrade() {
            node.conclude_later(batch);
        }
    }

    /// Something that belongs into the stream to `peer` will never be in it. The link is closed;
    /// where the next one begins, the peer is told to compare itself.
    pub(super) fn missed(&self, peer: PeerIndex) {
        let at = &self.peers[usize::from(peer)];
        let mut stream = at.stream.lock();
        match (&mut stream.parked, at.outbox()) {
            (Some(parked), _) => parked.break_off(),
            (None, Some(link)) => link.break_off(),
            (None, None) => {}
        }
    }

    /// Forgets backlogs that are too old, and counts them.
    pub(super) fn tick_streams(&self) {
        let now = self.members.now();
        let mut bytes = 0;
        for (index, at) in self.peers.iter().enumerate() {
            if index == usize::from(self.routes.me()) {
                continue;
            }
            let look = |stream: &mut Stream| {
                stream.tick(now);
                (stream.lag(now).bytes, stream.backlogs_dropped())
            };
            let mut stream = at.stream.lock();
            let looked = match &mut stream.parked {
                Some(parked) => Some(look(parked)),
                None => at.outbox().and_then(|link| link.stream(look)),
            };
            let Some((kept, dropped)) = looked else { continue };
            bytes += kept as u64;
            let known = std::mem::replace(&mut stream.dropped_seen, dropped);
            if dropped > known {
                self.metrics.stream_backlogs_dropped.add(dropped - known);
                let node = self.routes.node(index as PeerIndex);
                warn!(peer = %node, "the backlog of a peer was over its bounds and is dropped");
            }
        }
        self.metrics.stream_backlog_bytes.set(bytes);
    }

    /// How fast `peer` is sent what its clients do not wait for: what is allowed in a second, and
    /// its latencies in microseconds, of late and in quiet.
    pub fn pace_of(&self, peer: NodeId) -> (u64, u64, u64) {
        let at = self.routes.index(peer).map(|index| &self.peers[usize::from(index)]);
        at.map_or((0, 0, 0), |at| at.paced.measured())
    }

    /// How many peers must compare themselves with this node: nothing is kept for them meanwhile.
    pub fn streams_with_gap(&self) -> usize {
        let me = usize::from(self.routes.me());
        let others = self.peers.iter().enumerate().filter(|(index, _)| *index != me);
        let has_gap = |(_, at): &(usize, &Peer)| {
            let stream = at.stream.lock();
            match &stream.parked {
                Some(parked) => parked.has_gap(),
                None => at.outbox().and_then(|link| link.stream(|s| s.has_gap())) == Some(true),
            }
        };
        others.filter(has_gap).count()
    }

    /// How far `peer` is behind with what this node coordinated for it.
    pub fn lag_of(&self, peer: NodeId) -> Lag {
        let Some(index) = self.routes.index(peer) else { return Lag::default() };
        let at = &self.peers[usize::from(index)];
        let now = self.members.now();
        let stream = at.stream.lock();
        match &stream.parked {
            Some(parked) => parked.lag(now),
            None => at.outbox().map_or_else(Lag::default, |link| link.lag(now)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_is_read_as_it_was_written_and_no_other() {
        let greeting = Greeting {
            own: Met { start: 1, boot: Boot(2), mark: 3 },
            run: 4,
            known_run: 5,
            held: 6,
            lossy: true,
            lives: Lives::from_iter([(NodeId(7), Met { start: 8, boot: Boot(9), mark: 10 })]),
        };
        let bytes = greeting.encode();
        assert_eq!(Greeting::decode(&bytes), Ok(greeting));
        for cut in 0..bytes.len() {
            assert!(Greeting::decode(&bytes[..cut]).is_err());
        }
    }
}
