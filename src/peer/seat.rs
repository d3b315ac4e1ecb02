//! The place of one peer: at most one link sits in it.
//!
//! ```text
//!            admit                link_up ok
//!   Down ------------> waiting ----------------> Up ----------> Down
//!                      (turn)   link_down once <-- its Sitting is dropped
//! ```
//!
//! Invariants: whoever holds the `turn` is the only one who calls the inbox for this peer, so
//! those calls are serial; `link_down` follows every successful `link_up` exactly once, because
//! dropping the [`Sitting`] is the only way out, even for a task that panics or is aborted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

use crate::base::id::{Boot, NodeId};

use super::counters::Counters;
use super::hello::{HelloError, Remote};
use super::inbox::Inbox;
use super::message::Message;
use super::outbox::Outbox;
use super::state::{DownReason, LinkState};

/// The right to speak for one peer.
pub type Turn = OwnedMutexGuard<()>;

#[derive(Debug)]
struct Standing {
    state: LinkState,
    /// Whose link sits here, or is about to.
    sitter: Option<(Boot, u64)>,
    outbox: Option<Arc<Outbox>>,
    /// Whether this node is shutting down: nobody sits down any more.
    stopped: bool,
}

/// One peer, linked or not.
#[derive(Debug)]
pub struct Seat {
    /// The peer.
    pub node: NodeId,
    /// Its address, `host:port`.
    pub address: String,
    /// What its links have done.
    pub counters: Counters,
    turn: Arc<tokio::sync::Mutex<()>>,
    up: AtomicBool,
    standing: Mutex<Standing>,
}

impl Seat {
    /// The empty place of `node`.
    pub fn new(node: NodeId, address: String) -> Seat {
        let state = LinkState::Down { reason: DownReason::Untried, since: Instant::now() };
        let standing = Standing { state, sitter: None, outbox: None, stopped: false };
        Seat {
            node,
            address,
            counters: Counters::default(),
            turn: Arc::default(),
            up: AtomicBool::new(false),
            standing: Mutex::new(standing),
        }
    }

    /// Whether there is a link.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    /// What the link is, and since when.
    pub fn state(&self) -> LinkState {
        self.standing.lock().state.clone()
    }

    /// The link's outbox, while there is one.
    pub fn outbox(&self) -> Option<Arc<Outbox>> {
        if !self.is_up() {
            return None;
        }
        self.standing.lock().outbox.clone()
    }

    /// Whether anything happened to the reason; attempts that fail alike are one story.
    pub fn attempt_failed(&self, reason: &DownReason) -> bool {
        self.counters.attempts_failed.add(1);
        let mut standing = self.standing.lock();
        match &mut standing.state {
            LinkState::Down { reason: known, .. } if known != reason => {
                *known = reason.clone();
                true
            }
            _ => false,
        }
    }

    /// Says goodbye on the link that sits here, if any, and closes it; lets nobody sit down after.
    pub fn stop(&self) {
        let outbox = {
            let mut standing = self.standing.lock();
            standing.stopped = true;
            standing.outbox.clone()
        };
        if let Some(outbox) = outbox {
            // A peer that does not hear it finds the link closed.
            let _ = outbox.send(&Message::Goodbye);
            outbox.close(DownReason::Asked);
        }
    }

    /// Waits until `remote`, which has proved itself, may sit down. An older link of it is
    /// closed: a process dials again only when it has lost its link, and a newer life ends the
    /// older one. Another process that is up under the same id is left alone.
    pub async fn admit(&self, remote: &Remote) -> Result<Turn, HelloError> {
        let old = {
            let standing = self.standing.lock();
            if let Some((boot, run)) = standing.sitter
                && run != remote.run
                && boot >= remote.boot
            {
                return Err(HelloError::DuplicateNode(self.node));
            }
            standing.outbox.clone()
        };
        if let Some(old) = old {
            old.close(DownReason::Replaced);
        }
        Ok(Arc::clone(&self.turn).lock_owned().await)
    }

    /// Sits down, if the inbox agrees.
    pub fn sit(
        self: &Arc<Self>,
        turn: Turn,
        remote: &Remote,
        greeting: &[u8],
        outbox: Arc<Outbox>,
        inbox: Arc<dyn Inbox>,
    ) -> Result<Sitting, HelloError> {
        if self.standing.lock().stopped {
            return Err(HelloError::Stopping);
        }
        inbox.link_up(self.node, remote.boot, greeting, &outbox).map_err(HelloError::Rejected)?;
        self.counters.links_up.add(1);
        let sitting = Sitting { seat: Arc::clone(self), outbox, inbox, _turn: turn };
        let mut standing = self.standing.lock();
        standing.state = LinkState::Up { boot: remote.boot, since: Instant::now() };
        standing.sitter = Some((remote.boot, remote.run));
        standing.outbox = Some(Arc::clone(&sitting.outbox));
        self.up.store(true, Ordering::Release);
        let stopped = standing.stopped;
        drop(standing);
        if stopped {
            sitting.outbox.close(DownReason::Asked);
        }
        Ok(sitting)
    }

    fn empty(&self, reason: &DownReason) {
        let mut standing = self.standing.lock();
        self.up.store(false, Ordering::Release);
        standing.state = LinkState::Down { reason: reason.clone(), since: Instant::now() };
        standing.sitter = None;
        standing.outbox = None;
        self.counters.links_down.add(1);
    }
}

/// A link that is up. Dropping it takes it down and tells the inbox.
pub struct Sitting {
    seat: Arc<Seat>,
    /// The link's outbox.
    pub outbox: Arc<Outbox>,
    inbox: Arc<dyn Inbox>,
    /// Held until the inbox was told that the link is down.
    _turn: Turn,
}

impl Sitting {
    /// Whose link this is.
    pub fn seat(&self) -> &Arc<Seat> {
        &self.seat
    }

    /// Who is told of its messages.
    pub fn inbox(&self) -> &dyn Inbox {
        &*self.inbox
    }
}

impl Drop for Sitting {
    fn drop(&mut self) {
        self.outbox.close(DownReason::Aborted);
        let reason = self.outbox.closed().unwrap_or(DownReason::Aborted);
        self.seat.empty(&reason);
        self.inbox.link_down(self.seat.node, &reason);
    }
}
