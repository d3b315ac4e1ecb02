//! Who is there: gossip's beliefs and the links' events become what routing believes.
//!
//! ```text
//!  gossip thread:  ticks, heartbeats, refusals ─► Gossip ─► Changed ─┐
//!  links:          up, down, refused, status ────────────────────────┼─► Steering ─► Reach ─► routes
//!  exchanges:      caught up ────────────────────────────────────────┘   (one a peer)
//! ```
//!
//! The machines decide ([`crate::membership`]); this file gives them time and carries out what they
//! want. Heartbeats and ticks run on the gossip thread, so that a busy runtime delays neither.
//!
//! Invariants: what routing believes of one member changes under that member's lock, in the order
//! of events; the gossip machine's lock is taken before any of those, never after.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::MissedTickBehavior;
use tracing::{debug, info, warn};

use crate::base::id::NodeId;
use crate::base::time::{Moment, UnixMs};
use crate::coordinator::route::Reach;
use crate::membership::gossip::{Effect, Gossip, MemberState, Options, View};
use crate::membership::heartbeat::{Message, Own};
use crate::membership::steering::{PATIENCE_MS, Standing, Steering, Suspicion};
use crate::peer::state::DownReason;
use crate::peer::stream::Lag;

use super::Node;
use super::batch::PeerIndex;

/// After a long sleep this node counts in nothing for at least so long: the links that broke
/// meanwhile must be seen first.
const REST_AFTER_SLEEP_MS: u64 = 1_000;

/// How often the load is measured.
const LOAD_EVERY_MS: u64 = 1_000;

/// One peer between gossip, links and routes.
#[derive(Debug)]
struct Seat {
    steering: Steering,
    clock_off: bool,
}

/// What was measured last, and from what.
#[derive(Debug, Default)]
struct Load {
    at: Moment,
    processor_ns: u64,
    commands: u64,
    percent: u16,
    commands_per_s: u32,
}

/// What the node keeps for this file.
#[derive(Debug)]
pub(super) struct Members {
    /// The zero of this node's moments.
    origin: Instant,
    gossip: Mutex<Gossip>,
    /// By places among the members; this node's own tells only of its clock.
    seats: Box<[Mutex<Seat>]>,
    load: Mutex<Load>,
    /// Until when this node rests after a sleep.
    rests_until: AtomicU64,
}

/// One member as this node sees it, for reports.
#[derive(Clone, PartialEq, Debug)]
pub struct MemberStatus {
    /// Which.
    pub node: NodeId,
    /// Whether it is this node.
    pub is_me: bool,
    /// What routing believes.
    pub reach: Reach,
    /// What gossip believes; of this node only that it is alive.
    pub state: MemberState,
    /// How sure it is that it is silent; 0 of this node.
    pub phi: f64,
    /// Milliseconds since it was heard.
    pub silence_ms: u64,
    /// What it says of itself; `None`: it was never heard.
    pub own: Option<Own>,
    /// How far its clock is ahead of this node's; of this node: how far the median of all is.
    pub clock_ms: Option<i64>,
    /// Whether it says that its clock is off.
    pub clock_off: bool,
    /// Milliseconds since others heard of it what this node has not.
    pub elsewhere_ms: Option<u64>,
    /// Members that suspect it, too.
    pub suspected_by: Vec<NodeId>,
    /// Changes it has not acknowledged.
    pub lag_changes: u64,
    /// Milliseconds that the oldest of them has waited.
    pub lag_ms: u64,
    /// Keys that this node holds for it until it is back.
    pub hints: u64,
    /// When an exchange with it was last through.
    pub last_exchange: Option<UnixMs>,
}

/// A word for what gossip believes.
pub const fn state_name(state: MemberState) -> &'static str {
    match state {
        MemberState::Alive => "alive",
        MemberState::Suspect => "suspect",
        MemberState::Confirmed => "confirmed",
        MemberState::Left => "left",
    }
}

const fn suspicion_of(state: MemberState) -> Suspicion {
    match state {
        MemberState::Alive => Suspicion::None,
        MemberState::Suspect => Suspicion::Mine,
        MemberState::Confirmed => Suspicion::Confirmed,
        MemberState::Left => Suspicion::Left,
    }
}

impl Seat {
    fn reach(&self) -> Reach {
        match (self.steering.standing(), self.steering.is_linked()) {
            (Standing::Down, _) => Reach::Down,
            (Standing::Returning, _) => Reach::Recovering,
            (Standing::Up, false) => Reach::Awaited,
            (Standing::Up, true) if self.clock_off => Reach::Skewed,
            (Standing::Up, true) => Reach::Up,
        }
    }
}

/// Nanoseconds of processor time that this process has taken.
fn processor_ns() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

impl Members {
    pub(super) fn new(me: NodeId, members: &[NodeId], started: UnixMs) -> Members {
        let seed = started.0 ^ u64::from(me.0) << 48;
        let gossip =
            Gossip::new(Options::default(), me, started.0, members, Moment::default(), seed);
        let seat = |_: &NodeId| {
            Mutex::new(Seat { steering: Steering::new(PATIENCE_MS), clock_off: false })
        };
        Members {
            origin: Instant::now(),
            gossip: Mutex::new(gossip),
            seats: members.iter().map(seat).collect(),
            load: Mutex::default(),
            rests_until: AtomicU64::new(0),
        }
    }

    pub(super) fn now(&self) -> Moment {
        Moment(self.origin.elapsed().as_millis() as u64)
    }
}

impl Load {
    /// Measures anew if it is time; `commands`: all that ever ran.
    fn measure(&mut self, now: Moment, commands: u64) {
        let elapsed_ms = now.since(self.at);
        if elapsed_ms < LOAD_EVERY_MS {
            return;
        }
        let processor_ns = processor_ns();
        let taken_ms = processor_ns.saturating_sub(self.processor_ns) / 1_000_000;
        let ran = commands.saturating_sub(self.commands);
        self.percent = u16::try_from(taken_ms * 100 / elapsed_ms).unwrap_or(u16::MAX);
        self.commands_per_s = u32::try_from(ran * 1_000 / elapsed_ms).unwrap_or(u32::MAX);
        (self.at, self.processor_ns, self.commands) = (now, processor_ns, commands);
    }
}

impl Node {
    /// Ticks on the gossip thread for as long as the links live.
    pub(super) fn spawn_gossip(self: &Arc<Node>) {
        let Some(links) = self.links.get() else { return };
        let node = Arc::downgrade(self);
        links.gossip().runtime().spawn(async move {
            let mut ticks =
                tokio::time::interval(Duration::from_millis(Options::default().tick_ms));
            // After a pause there is nothing to catch up with.
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let Some(node) = node.upgrade() else { return };
                node.gossip_tick();
            }
        });
    }

    fn gossip_tick(&self) {
        let own = self.own_word();
        let now = self.members.now();
        self.gossip_event(|gossip, out| gossip.on_tick(now, super::now(), &own, out));
        for peer in self.others() {
            self.steer(peer, Steering::on_tick);
        }
    }

    /// What this node says of itself.
    fn own_word(&self) -> Own {
        let mut load = self.members.load.lock();
        load.measure(self.members.now(), self.metrics.total_commands_processed.value());
        let (processor_percent, commands_per_s) = (load.percent, load.commands_per_s);
        drop(load);
        Own {
            counting: self.counts(),
            recovering: self.metrics.recovering_vnodes.value() as u16,
            processor_percent,
            commands_per_s,
            epoch: self.topology.epoch().0,
        }
    }

    /// Whether this node counts, by its own word.
    pub(super) fn counts(&self) -> bool {
        self.routes.reach(self.routes.me()).counts() && !self.ignores_changes()
    }

    /// A heartbeat came on the gossip connection of `peer`.
    pub(super) fn gossip_heard(&self, peer: NodeId, body: &[u8]) {
        match Message::decode(body) {
            Ok(message) => {
                let now = self.members.now();
                self.gossip_event(|gossip, out| {
                    gossip.on_message(peer, &message, now, super::now(), out);
                });
            }
            Err(reason) => debug!(%peer, %reason, "an unreadable heartbeat"),
        }
    }

    /// Nobody listens at the address of `peer`.
    pub(super) fn peer_refused(&self, peer: NodeId) {
        let now = self.members.now();
        self.gossip_event(|gossip, out| gossip.on_refused(peer, now, out));
        if let Some(index) = self.routes.index(peer) {
            self.steer(index, Steering::on_refused);
        }
    }

    /// There is a link to `peer`, which lives its life `life`.
    pub(super) fn peer_linked(&self, peer: NodeId, index: PeerIndex, life: u64) {
        self.gossip_event(|gossip, _| gossip.on_reached(peer));
        self.steer(index, |peer, now| peer.on_link_up(life, now));
    }

    /// Tells everybody that this node stops.
    pub(super) fn say_goodbye(&self) {
        self.gossip_event(|gossip, out| gossip.leave(super::now(), out));
    }

    /// Tells the machine of something, and does what it wants before the next event is told.
    fn gossip_event(&self, tell: impl FnOnce(&mut Gossip, &mut Vec<Effect>)) {
        let mut effects = Vec::new();
        let mut gossip = self.members.gossip.lock();
        tell(&mut gossip, &mut effects);
        for effect in effects {
            self.carry_out_gossip(effect);
        }
    }

    fn carry_out_gossip(&self, effect: Effect) {
        match effect {
            Effect::Send { to, message } => {
                let mut bytes = Vec::new();
                message.encode(&mut bytes);
                if let Some(links) = self.links.get() {
                    // What does not go out at once is worth nothing later.
                    let _ = links.gossip().send(to, &bytes);
                }
            }
            Effect::Changed { node, state } => {
                info!(peer = %node, state = state_name(state), "a member's state changed");
                if matches!(state, MemberState::Suspect) {
                    self.metrics.suspicions.bump();
                }
                if let Some(index) = self.routes.index(node) {
                    let suspicion = suspicion_of(state);
                    self.steer(index, |peer, now| peer.on_suspicion(suspicion, now));
                }
            }
            Effect::Clock { node, off } => self.clock_judged(node, off),
            Effect::Away { ms } => self.slept(ms),
        }
    }

    fn clock_judged(&self, node: NodeId, off: bool) {
        let Some(index) = self.routes.index(node) else { return };
        self.members.seats[usize::from(index)].lock().clock_off = off;
        if index == self.routes.me() {
            match off {
                true => warn!("this node's clock is off the others': it coordinates nothing"),
                false => info!("this node's clock agrees with the others' again"),
            }
            self.steer_own();
        } else {
            self.steer(index, |_, _| {});
        }
    }

    /// This node slept so long that others may have taken over what it coordinates. It comes back
    /// as one that was away.
    fn slept(&self, ms: u64) {
        // Alone, nobody can have taken anything over.
        if self.peers.len() < 2 {
            return;
        }
        self.metrics.sleeps.bump();
        warn!(ms, "this node slept: it counts again when it has caught up");
        let until = self.members.now().0 + REST_AFTER_SLEEP_MS;
        self.members.rests_until.store(until, Ordering::Release);
        self.returning.store(true, Ordering::Release);
        self.steer_own();
        self.tell_status();
    }

    /// Whether this node still rests after a sleep.
    pub(super) fn rests(&self) -> bool {
        self.members.now().0 < self.members.rests_until.load(Ordering::Acquire)
    }

    /// Tells one peer's machine of something, and makes routing believe what follows.
    pub(super) fn steer(&self, peer: PeerIndex, tell: impl FnOnce(&mut Steering, Moment)) {
        let mut seat = self.members.seats[usize::from(peer)].lock();
        let before = seat.steering.standing();
        tell(&mut seat.steering, self.members.now());
        let (standing, reach) = (seat.steering.standing(), seat.reach());
        if self.routes.reach(peer) != reach {
            self.routes.set_reach(peer, reach);
        }
        let linked = seat.steering.is_linked();
        drop(seat);
        if standing == before {
            return;
        }
        let node = self.routes.node(peer);
        info!(peer = %node, ?standing, "a peer's standing changed");
        if standing == Standing::Down
            && linked
            && let Some(outbox) = self.peers[usize::from(peer)].outbox()
        {
            // Whoever waits for the peer is told by the end of the link. It will be dialed again.
            outbox.close(DownReason::Silent);
        }
        if standing == Standing::Down && !linked {
            self.pass_by(peer);
        }
        if standing == Standing::Up {
            self.peers[usize::from(peer)].exchange.wake();
        }
    }

    /// Makes routing believe of this node itself what is true.
    pub(super) fn steer_own(&self) {
        let me = self.routes.me();
        let seat = self.members.seats[usize::from(me)].lock();
        let over = self.recovery.lock().is_over();
        let reach = match over && !self.returning.load(Ordering::Acquire) {
            false => Reach::Recovering,
            true if seat.clock_off => Reach::Skewed,
            true => Reach::Up,
        };
        self.routes.set_reach(me, reach);
    }

    fn others(&self) -> impl Iterator<Item = PeerIndex> + use<> {
        let me = self.routes.me();
        (0..self.peers.len() as PeerIndex).filter(move |&peer| peer != me)
    }

    /// All members as this node sees them, in the order of their ids.
    pub fn member_statuses(&self) -> Vec<MemberStatus> {
        let places = 0..self.peers.len() as PeerIndex;
        places.map(|peer| self.member_status(self.routes.node(peer))).collect()
    }

    fn member_status(&self, node: NodeId) -> MemberStatus {
        let now = self.members.now();
        let view = self.members.gossip.lock().view(node, now);
        let is_me = node == self.id();
        let lag = if is_me { Lag::default() } else { self.lag_of(node) };
        let View {
            state,
            phi,
            silence_ms,
            elsewhere_ms,
            own,
            clock_off,
            clock_ms,
            suspected_by,
            ..
        } = view.unwrap_or_else(|| self.own_view(now));
        MemberStatus {
            node,
            is_me,
            reach: self.reach(node),
            state,
            phi,
            silence_ms,
            own,
            clock_ms,
            clock_off,
            elsewhere_ms,
            suspected_by,
            lag_changes: lag.changes,
            lag_ms: lag.ms,
            hints: self.hints_for(node).0 as u64,
            last_exchange: self.last_exchange(node),
        }
    }

    fn own_view(&self, now: Moment) -> View {
        let own = self.own_word();
        let gossip = self.members.gossip.lock();
        View {
            state: MemberState::Alive,
            phi: 0.0,
            silence_ms: 0,
            elsewhere_ms: None,
            pulse: gossip.pulse(),
            own: Some(own),
            clock_off: gossip.clock().is_off(),
            clock_ms: Some(gossip.clock().median_ms(now)),
            suspected_by: Vec::new(),
        }
    }
}
