//! What routing may believe of one peer: up, returning or down, with hysteresis (pure).
//!
//! Moving a key's coordinator back and forth makes siblings for nothing, so a peer is left on good
//! evidence only, and comes back only when it has what it missed. (Dynamo §4.6, §4.8.3.)
//!
//! ```text
//!            refused · goodbye · suspicion confirmed · no link for `patience`
//!      ┌────────────────────────────────────────────────────────────────┐
//!      │                                                                ▼
//!  ┌───┴──┐  heard, caught up, counts by its own word ┌───────────┐  ┌──────┐
//!  │  Up  │◄──────────────────────────────────────────┤ Returning │◄─┤ Down │
//!  └───┬──┘                                           └─────▲─────┘  └──────┘
//!      └────────────── says it counts no more ──────────────┘   a new link
//! ```
//!
//! Who says that a peer has caught up? A process that was started anew knows that it was away, and
//! does not call itself counting before it has compared itself with everybody in reach: its own
//! word is enough. One that was merely cut off does not know what it missed, so there this node
//! must have brought it up to date.
//!
//! A link that is lost and comes back within the patience, in the same life of the peer, changes
//! nothing: what was under way fails as it must, and nobody takes over.
//!
//! Invariant: a peer is `Up` only after its own word that it counts, given on the present link or
//! on the one whose loss is still being waited out.

use crate::base::time::Moment;

/// How long a peer without a link is waited for, in milliseconds.
pub const PATIENCE_MS: u64 = 3_000;

/// What routing may believe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It counts, and coordinates where it is first.
    Up,
    /// It takes writes, counts in nothing and coordinates nothing.
    Returning,
    /// It is left out.
    Down,
}

/// What gossip says of the peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Suspicion {
    /// Nothing against it.
    #[default]
    None,
    /// This node has not heard it for too long; nobody else says so.
    Mine,
    /// Others say so too.
    Confirmed,
    /// It said goodbye.
    Left,
}

/// One peer's standing. Every `on_…` may change it; [`Steering::standing`] tells.
#[derive(Clone, Debug)]
pub struct Steering {
    patience_ms: u64,
    standing: Standing,
    linked: bool,
    /// When the link was lost whose loss is being waited out.
    lost: Option<Moment>,
    /// Nobody listens at its address, since the link was up last.
    refused: bool,
    /// On the present link it was given up, or said goodbye. Only another link, or being heard
    /// again, makes up for that.
    given_up: bool,
    suspicion: Suspicion,
    /// Its life as it was last met.
    life: Option<u64>,
    /// By its own word.
    counts: bool,
    /// Whether it said on this link that it does not count.
    owned_up: bool,
    caught_up: bool,
}

impl Steering {
    /// A peer that was never met.
    pub fn new(patience_ms: u64) -> Steering {
        Steering {
            patience_ms,
            standing: Standing::Down,
            linked: false,
            lost: None,
            refused: false,
            given_up: false,
            suspicion: Suspicion::None,
            life: None,
            counts: false,
            owned_up: false,
            caught_up: false,
        }
    }

    /// What routing may believe now.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Whether there is a link. A peer that is `Up` without one is being waited for: it goes on
    /// coordinating, and can be asked nothing.
    pub fn is_linked(&self) -> bool {
        self.linked
    }

    /// Whether what the peer missed has reached it since it was last down.
    pub fn is_caught_up(&self) -> bool {
        self.caught_up
    }

    /// A link is up to the peer, which lives its life `life` (any number that differs from one
    /// process to the next).
    pub fn on_link_up(&mut self, life: u64, now: Moment) {
        let met_before = self.life.replace(life);
        let waited_for = self.standing == Standing::Up && met_before == Some(life);
        self.linked = true;
        self.owned_up = false;
        self.refused = false;
        self.given_up = false;
        self.lost = None;
        if !waited_for {
            self.counts = false;
            self.caught_up = met_before != Some(life);
            self.standing = Standing::Down;
        }
        self.settle(now);
    }

    /// The link is lost, not by goodbye.
    pub fn on_link_lost(&mut self, now: Moment) {
        // Who hears of it twice has not waited less.
        let was_linked = std::mem::replace(&mut self.linked, false);
        if was_linked && self.standing == Standing::Up {
            self.lost = Some(now);
        }
        self.settle(now);
    }

    /// The link is lost, for the peer said on it that it leaves.
    pub fn on_goodbye(&mut self, now: Moment) {
        (self.linked, self.given_up) = (false, true);
        self.settle(now);
    }

    /// Nobody listens at the peer's address. With a link this is put aside: the link's end will
    /// show that the process is gone.
    pub fn on_refused(&mut self, now: Moment) {
        self.refused = true;
        self.settle(now);
    }

    /// What gossip says has changed.
    pub fn on_suspicion(&mut self, suspicion: Suspicion, now: Moment) {
        self.suspicion = suspicion;
        self.given_up = self.is_suspicion_enough();
        self.settle(now);
    }

    /// The peer's word, on the present link, whether it counts.
    pub fn on_status(&mut self, counts: bool, now: Moment) {
        // A late word of a lost link is none.
        if self.linked {
            // Whoever counts again has compared itself with everybody in reach, this node too.
            self.caught_up |= self.owned_up && counts;
            self.owned_up |= !counts;
            self.counts = counts;
            self.settle(now);
        }
    }

    /// All that the peer missed while it was down is with it.
    pub fn on_caught_up(&mut self, now: Moment) {
        if self.linked {
            self.caught_up = true;
            self.settle(now);
        }
    }

    /// Time passes.
    pub fn on_tick(&mut self, now: Moment) {
        self.settle(now);
    }

    fn leave(&mut self) {
        self.standing = Standing::Down;
        self.lost = None;
        self.caught_up = false;
    }

    fn is_suspicion_enough(&self) -> bool {
        matches!(self.suspicion, Suspicion::Confirmed | Suspicion::Left)
    }

    /// Whether the peer cannot be waited for.
    fn is_gone(&self, now: Moment) -> bool {
        let waited_out = self.lost.is_none_or(|lost| now.since(lost) >= self.patience_ms);
        self.given_up || !self.linked && (self.refused || waited_out)
    }

    fn settle(&mut self, now: Moment) {
        if self.is_gone(now) {
            if self.standing != Standing::Down {
                self.leave();
            }
        } else if self.linked {
            // On a link that came while the peer is not heard yet, it takes writes already: what
            // it is not sent now it would lack.
            let up = self.counts && self.caught_up && !self.is_suspicion_enough();
            self.standing = if up { Standing::Up } else { Standing::Returning };
        } else if self.standing == Standing::Returning {
            self.leave();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use Standing::{Down, Returning, Up};

    const T: Moment = Moment(10_000);

    fn later(ms: u64) -> Moment {
        Moment(T.0 + ms)
    }

    fn up() -> Steering {
        let mut peer = Steering::new(PATIENCE_MS);
        peer.on_link_up(1, T);
        peer.on_status(true, T);
        assert_eq!(peer.standing(), Up);
        peer
    }

    fn down() -> Steering {
        let mut peer = up();
        peer.on_refused(T);
        peer.on_link_lost(T);
        assert_eq!(peer.standing(), Down);
        peer
    }

    #[test]
    fn a_new_peer_is_believed_by_its_word() {
        let mut peer = Steering::new(PATIENCE_MS);
        assert_eq!(peer.standing(), Down);
        peer.on_link_up(1, T);
        assert_eq!(peer.standing(), Returning);
        peer.on_status(false, T);
        assert_eq!(peer.standing(), Returning);
        peer.on_status(true, T);
        assert_eq!(peer.standing(), Up);
        peer.on_status(false, T);
        assert_eq!(peer.standing(), Returning, "a full disk, for one");
        peer.on_status(true, T);
        assert_eq!(peer.standing(), Up, "it got all writes meanwhile");
    }

    #[test]
    fn a_blip_changes_nothing() {
        let mut peer = up();
        peer.on_link_lost(T);
        assert_eq!((peer.standing(), peer.is_linked()), (Up, false));
        peer.on_tick(later(PATIENCE_MS - 1));
        peer.on_suspicion(Suspicion::Mine, later(PATIENCE_MS - 1));
        assert_eq!(peer.standing(), Up);
        peer.on_link_up(1, later(PATIENCE_MS - 1));
        assert_eq!((peer.standing(), peer.is_linked()), (Up, true));
        peer.on_tick(later(PATIENCE_MS * 9));
        assert_eq!(peer.standing(), Up);
    }

    #[test]
    fn another_life_is_no_blip() {
        let mut peer = up();
        peer.on_link_lost(T);
        peer.on_link_up(2, later(100));
        assert_eq!(peer.standing(), Returning);
        peer.on_status(false, later(100));
        assert_eq!(peer.standing(), Returning);
        peer.on_status(true, later(200));
        assert_eq!(peer.standing(), Up, "it knows when it has caught up");
    }

    #[test]
    fn good_evidence_is_enough_at_once() {
        let mut refused = up();
        refused.on_refused(T);
        assert_eq!(refused.standing(), Up, "its link still stands");
        refused.on_link_lost(T);
        assert_eq!(refused.standing(), Down);

        let mut refused_later = up();
        refused_later.on_link_lost(T);
        refused_later.on_refused(T);
        assert_eq!(refused_later.standing(), Down);

        let mut goodbye = up();
        goodbye.on_goodbye(T);
        goodbye.on_tick(later(50));
        assert_eq!(goodbye.standing(), Down);

        for suspicion in [Suspicion::Confirmed, Suspicion::Left] {
            let mut silent = up();
            silent.on_suspicion(Suspicion::Mine, T);
            assert_eq!(silent.standing(), Up);
            silent.on_suspicion(suspicion, T);
            assert_eq!(silent.standing(), Down, "whatever the link says");
        }
    }

    #[test]
    fn patience_ends() {
        let mut peer = up();
        peer.on_link_lost(T);
        peer.on_tick(later(PATIENCE_MS));
        assert_eq!(peer.standing(), Down);
    }

    #[test]
    fn coming_back_takes_a_link_being_heard_the_stream_and_its_word() {
        let mut peer = down();
        peer.on_suspicion(Suspicion::Confirmed, T);
        assert_eq!(peer.standing(), Down);
        peer.on_link_up(1, T);
        assert_eq!(peer.standing(), Returning, "it takes writes");
        peer.on_status(true, T);
        assert_eq!(peer.standing(), Returning);
        peer.on_caught_up(T);
        assert_eq!(peer.standing(), Returning, "not heard yet");
        peer.on_suspicion(Suspicion::None, T);
        assert_eq!(peer.standing(), Up);
    }

    #[test]
    fn one_that_owned_up_is_believed_when_it_counts_again() {
        let mut peer = down();
        peer.on_link_up(1, T);
        peer.on_status(false, T);
        assert_eq!(peer.standing(), Returning);
        peer.on_status(true, T);
        assert_eq!(peer.standing(), Up, "it slept, knew it, and has compared itself");
    }

    #[test]
    fn a_silent_link_that_speaks_again_must_catch_up() {
        let mut peer = up();
        peer.on_suspicion(Suspicion::Confirmed, T);
        peer.on_suspicion(Suspicion::None, later(500));
        assert_eq!(peer.standing(), Returning);
        peer.on_caught_up(later(600));
        assert_eq!(peer.standing(), Up);
    }

    #[test]
    fn a_returning_peer_that_is_lost_is_not_waited_for() {
        let mut peer = down();
        peer.on_link_up(1, T);
        assert_eq!(peer.standing(), Returning);
        peer.on_link_lost(T);
        assert_eq!(peer.standing(), Down);
    }

    #[derive(Clone, Copy, Debug)]
    enum Event {
        LinkUp(u64),
        LinkLost,
        Goodbye,
        Refused,
        Suspicion(Suspicion),
        Status(bool),
        CaughtUp,
        Wait(u64),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (0u64..3).prop_map(Event::LinkUp),
            Just(Event::LinkLost),
            Just(Event::Goodbye),
            Just(Event::Refused),
            prop_oneof![
                Just(Suspicion::None),
                Just(Suspicion::Mine),
                Just(Suspicion::Confirmed),
                Just(Suspicion::Left)
            ]
            .prop_map(Event::Suspicion),
            any::<bool>().prop_map(Event::Status),
            Just(Event::CaughtUp),
            (0u64..4_000).prop_map(Event::Wait),
        ]
    }

    proptest! {
        #[test]
        fn up_only_on_its_word_and_never_straight_from_down_without_catching_up(
            events in proptest::collection::vec(event(), 0..60),
        ) {
            let (mut peer, mut now) = (Steering::new(PATIENCE_MS), T);
            let mut gone_for = 0;
            for event in events {
                let before = peer.standing();
                match event {
                    Event::LinkUp(life) => peer.on_link_up(life, now),
                    Event::LinkLost => peer.on_link_lost(now),
                    Event::Goodbye => peer.on_goodbye(now),
                    Event::Refused => peer.on_refused(now),
                    Event::Suspicion(suspicion) => peer.on_suspicion(suspicion, now),
                    Event::Status(counts) => peer.on_status(counts, now),
                    Event::CaughtUp => peer.on_caught_up(now),
                    Event::Wait(ms) => {
                        now = Moment(now.0 + ms);
                        peer.on_tick(now);
                        gone_for = if peer.is_linked() { 0 } else { gone_for + ms };
                    }
                }
                if peer.is_linked() {
                    gone_for = 0;
                }
                if peer.standing() == Up {
                    prop_assert!(peer.counts && peer.caught_up);
                    prop_assert!(gone_for < PATIENCE_MS);
                }
                if peer.standing() == Returning {
                    prop_assert!(peer.is_linked());
                }
                if before == Down && peer.standing() == Up {
                    prop_assert!(peer.caught_up);
                }
            }
        }
    }
}
