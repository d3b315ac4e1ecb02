//! What the node gives to the peer room: who is told when links come, speak and go.

use std::pin::Pin;
use std::sync::Arc;

use crate::base::id::{Boot, NodeId};

use super::frame::Batch;
use super::outbox::Outbox;
use super::state::DownReason;

/// What must be waited for before a link reads on: that what it brought is safe.
pub type Settling = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The node's side of all links.
///
/// For one peer, `link_up`, `messages` and `link_down` are called one after the other, never at
/// once; `link_down` exactly once after every `link_up` that returned `Ok`. Different peers'
/// calls run side by side. All are called on tasks of the runtime and must not block.
pub trait Inbox: Send + Sync + 'static {
    /// What the node says to `to` when they meet (at most `GREETING_SIZE_MAX` bytes); the peer's
    /// `link_up` gets it. Only a peer that proved to know the secret sees an acceptor's.
    fn greeting(&self, to: NodeId) -> Vec<u8>;

    /// There is a link to `peer`, which lives its life `boot`. What is appended to `link` from
    /// now on arrives in order, until the link is down. `Err` refuses the link, and says why.
    fn link_up(
        &self,
        peer: NodeId,
        boot: Boot,
        greeting: &[u8],
        link: &Arc<Outbox>,
    ) -> Result<(), String>;

    /// The link to `peer` is down; its outbox takes nothing any more.
    fn link_down(&self, peer: NodeId, reason: &DownReason);

    /// One read's messages, on the link's reader task: answers belong into one append. What is
    /// left in `batch` is dropped. The link reads on when what is returned is done.
    fn messages(&self, peer: NodeId, batch: &mut Batch<'_>) -> Option<Settling>;

    /// An attempt to dial `peer` failed; `DownReason::ConnectionRefused` says at once that its
    /// process is gone. Only the node with the lower id dials.
    fn unreachable(&self, peer: NodeId, reason: &DownReason) {
        let _ = (peer, reason);
    }

    /// A round of gossip that `peer` itself has sent, on the gossip thread: whatever the other
    /// threads are busy with, this comes in time. It must be as short.
    fn gossip(&self, peer: NodeId, body: &[u8]) {
        let _ = (peer, body);
    }

    /// Nobody listens at `peer`'s address: its process is gone, or not there yet. On the gossip
    /// thread, once an attempt; both nodes of a pair dial for gossip.
    fn refused(&self, peer: NodeId) {
        let _ = peer;
    }
}
