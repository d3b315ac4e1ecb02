//! The replies one connection still waits for, in request order.
//!
//! A connection writes replies in the order of its requests, but they become known in any order:
//! some at once, some when W replicas have acknowledged, some when another node has answered. So
//! each unsettled request has a place in a ring; whoever learns its reply fills the place, and the
//! connection's task drains the ring's ready front.
//!
//! Invariant: the connection is woken when the front becomes ready, and only then: everything
//! behind a pending front would have to wait for it anyhow.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::BytesMut;
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::Notify;

use crate::base::wire::Put;

use super::waiting;

/// An encoded reply; most are shorter than the inline room.
pub type ReplyBytes = SmallVec<[u8; 24]>;

#[derive(Debug)]
enum Place {
    Pending,
    /// The client does not want the reply, only its turn is kept.
    Hushed,
    Ready(ReplyBytes),
}

#[derive(Debug, Default)]
struct Ring {
    /// Number of the front place; places are numbered from the connection's start.
    front: u64,
    places: VecDeque<Place>,
    /// Where the request of the last place waits for a key.
    waits_at: Option<waiting::Place>,
}

/// The unsettled replies of one connection.
#[derive(Debug, Default)]
pub struct Replies {
    ring: Mutex<Ring>,
    wake: Notify,
}

impl Replies {
    /// Takes the next place, to be filled by [`Replies::fill`].
    pub fn reserve(&self) -> u64 {
        let mut ring = self.ring.lock();
        ring.places.push_back(Place::Pending);
        ring.front + ring.places.len() as u64 - 1
    }

    /// Takes the next place for a reply that is known already.
    pub fn push(&self, reply: &[u8]) {
        self.ring.lock().places.push_back(Place::Ready(SmallVec::from_slice(reply)));
    }

    /// The client does not want the reply of the place taken last, whether it has come or not.
    pub fn hush_last(&self) {
        if let Some(place) = self.ring.lock().places.back_mut() {
            *place = match place {
                Place::Pending | Place::Hushed => Place::Hushed,
                Place::Ready(_) => Place::Ready(ReplyBytes::new()),
            };
        }
    }

    /// The last request waits there for a key to change. No other is run before it is answered.
    pub(super) fn wait_at(&self, place: waiting::Place) {
        self.ring.lock().waits_at = Some(place);
    }

    /// The last request was served; only its reply is due.
    pub(super) fn wait_over(&self) {
        self.ring.lock().waits_at = None;
    }

    /// Where the last request waits.
    pub(super) fn waits_at(&self) -> Option<waiting::Place> {
        self.ring.lock().waits_at
    }

    /// Whether the connection waits for a key to change.
    pub fn is_blocked(&self) -> bool {
        self.waits_at().is_some()
    }

    /// Fills a place. `true`: the connection should be woken (see [`Replies::wake`]), which the
    /// caller does once for all the places that it fills.
    pub fn fill(&self, place: u64, reply: ReplyBytes) -> bool {
        let mut ring = self.ring.lock();
        let index = (place - ring.front) as usize;
        if index + 1 == ring.places.len() {
            ring.waits_at = None;
        }
        let place = &mut ring.places[index];
        let hushed = matches!(place, Place::Hushed);
        *place = Place::Ready(if hushed { ReplyBytes::new() } else { reply });
        index == 0
    }

    /// Wakes the connection's task.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Waits until the front may be ready.
    pub async fn ready(&self) {
        self.wake.notified().await;
    }

    /// Moves the ready front to `out`; says how many places are left.
    pub fn drain(&self, out: &mut BytesMut) -> usize {
        let mut ring = self.ring.lock();
        while let Some(Place::Ready(reply)) = ring.places.front() {
            out.put(reply);
            ring.places.pop_front();
            ring.front += 1;
        }
        ring.places.len()
    }
}

/// Replies that leave at the end of a batch: not before the log holds what they tell of.
#[derive(Debug, Default)]
pub(super) struct Leaving(Vec<(Arc<Replies>, u64, ReplyBytes)>);

impl Leaving {
    pub(super) fn fill(&mut self, replies: Arc<Replies>, place: u64, reply: ReplyBytes) {
        self.0.push((replies, place, reply));
    }

    /// Fills the places, and wakes each connection whose turn it is.
    pub(super) fn leave(&mut self) {
        let mut wakes: SmallVec<[Arc<Replies>; 16]> = SmallVec::new();
        for (replies, place, reply) in self.0.drain(..) {
            if replies.fill(place, reply) {
                wakes.push(replies);
            }
        }
        for replies in wakes {
            replies.wake();
        }
    }

    /// Nobody will hear any of it.
    pub(super) fn abandon(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_leave_in_request_order() {
        let replies = Replies::default();
        let (first, second) = (replies.reserve(), replies.reserve());
        replies.push(b"+3\r\n");
        let mut out = BytesMut::new();
        assert!(!replies.fill(second, SmallVec::from_slice(b"+2\r\n")), "the front still waits");
        assert_eq!(replies.drain(&mut out), 3);
        assert!(replies.fill(first, SmallVec::from_slice(b"+1\r\n")));
        assert_eq!(replies.drain(&mut out), 0);
        assert_eq!(&out[..], b"+1\r\n+2\r\n+3\r\n");
        assert_eq!(replies.reserve(), 3, "places go on counting");
    }

    #[test]
    fn a_hushed_reply_keeps_its_turn_and_says_nothing() {
        let replies = Replies::default();
        let first = replies.reserve();
        replies.hush_last();
        let second = replies.reserve();
        assert!(!replies.fill(second, SmallVec::from_slice(b"+2\r\n")));
        replies.hush_last();
        replies.push(b"+3\r\n");
        assert!(replies.fill(first, SmallVec::from_slice(b"+1\r\n")));
        let mut out = BytesMut::new();
        assert_eq!(replies.drain(&mut out), 0);
        assert_eq!(&out[..], b"+3\r\n");
    }
}
