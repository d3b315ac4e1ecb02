//! Exchanges with each peer: one task a peer begins what is due, and answers what is asked.
//!
//! The machine ([`crate::anti_entropy::exchange`]) decides what is sent, the schedule
//! ([`crate::anti_entropy::schedule`]) which vnode comes next. Entries travel as `Put` frames, a
//! few at a time, no faster than the link takes them and the budget allows.
//!
//! Invariant: an exchange settles a vnode only if it began after the vnode was last owed, and
//! restores one only if it was a whole one that began after the vnode's recovery did.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use crate::anti_entropy::exchange::{Effect, Exchange, Needs, Outcome, needs, respond};
use crate::anti_entropy::keys::{KEYS_MAX, KeyList, Span};
use crate::anti_entropy::message::{Body, Message, Scope};
use crate::anti_entropy::parts::Parts;
use crate::anti_entropy::schedule::{Budget, Need, Schedule, Urgent, begins};
use crate::anti_entropy::tree::{BUCKETS, Tree};
use crate::base::hash::Digest;
use crate::base::id::{NodeId, VnodeId};
use crate::base::time::{Moment, UnixMs};
use crate::peer::outbox::Outbox;

use super::Node;
use super::batch::PeerIndex;
use super::repair::{Looking, Repair};
use super::shipping::{EntryCost, Shipment, Work};

/// A peer that has said nothing for this long while exchanges wait for it: they begin anew. Longer
/// than any budget makes it wait.
const STUCK: Duration = Duration::from_secs(60);

/// A vnode that the peer is busy with is left alone for so long.
const REST_MS: u64 = 500;

/// Vnodes under way with one peer, and as many that are only looked at: most wait for an answer, and the link's way is long or short.
const EXCHANGES_AT_ONCE: usize = 16;

/// What one peer has said about trees, for its task to read, and what was last heard.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    letters: Mutex<VecDeque<(VnodeId, Message)>>,
    looks: Mutex<VecDeque<(VnodeId, Arc<Looking>)>>,
    lost: AtomicBool,
    /// Moment of the last message or entry.
    heard: AtomicU64,
    /// When an exchange was last through; 0: never.
    through: AtomicU64,
    wake: Notify,
}

impl Mailbox {
    pub(super) fn post(&self, vnode: VnodeId, message: Message) {
        self.letters.lock().push_back((vnode, message));
        self.wake.notify_one();
    }

    /// Asks for a look at `vnode`; the link may be gone before it ends.
    pub(super) fn look(&self, vnode: VnodeId, looking: Arc<Looking>) {
        self.looks.lock().push_back((vnode, looking));
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

/// What a node keeps for all its exchanges.
#[derive(Debug)]
pub(super) struct Exchanges {
    began: Instant,
    pub(super) schedule: Mutex<Schedule>,
    pub(super) budget: Mutex<Budget>,
    pub(super) repair: Mutex<Repair>,
    /// How often a recovery was begun.
    recoveries: AtomicU64,
    engaged: Mutex<HashMap<VnodeId, Engaged>>,
}

/// With whom a vnode is compared. With one peer at a time: two that both have what this node lacks
/// would both send it.
#[derive(Clone, Copy, Debug)]
struct Engaged {
    peer: PeerIndex,
    /// When it last moved.
    since: Moment,
}

impl Exchanges {
    pub(super) fn new(interval_ms: u64, rate: u64) -> Exchanges {
        Exchanges {
            began: Instant::now(),
            schedule: Mutex::new(Schedule::new(interval_ms, fastrand::u64(..))),
            budget: Mutex::new(Budget::new(rate)),
            repair: Mutex::default(),
            recoveries: AtomicU64::new(0),
            engaged: Mutex::default(),
        }
    }

    /// Whether `vnode` may be compared with `peer` now; if so, it is with nobody else until it is
    /// released or does not move any more.
    fn engage(&self, vnode: VnodeId, peer: PeerIndex) -> bool {
        let is_free = self.is_free(vnode, peer);
        if is_free {
            self.engaged.lock().insert(vnode, Engaged { peer, since: self.now() });
        }
        is_free
    }

    fn is_free(&self, vnode: VnodeId, peer: PeerIndex) -> bool {
        let engaged = self.engaged.lock().get(&vnode).copied();
        let stuck = STUCK.as_millis() as u64;
        engaged.is_none_or(|other| other.peer == peer || self.now().since(other.since) >= stuck)
    }

    /// A recovery begins: what is under way does not restore anything.
    pub(super) fn on_recovery(&self) {
        self.recoveries.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn now(&self) -> Moment {
        Moment(self.began.elapsed().as_millis() as u64)
    }
}

/// Why an exchange was begun.
#[derive(Debug)]
enum Why {
    Need(Need),
    Look(Arc<Looking>),
}

/// An exchange that this node has begun with a peer.
pub(super) struct Active {
    pub(super) vnode: VnodeId,
    pub(super) exchange: Exchange,
    /// The large entry that is compared in parts.
    pub(super) parts: Option<Parts>,
    why: Why,
    /// The tree of states, where the scope compares them; else the vnode's own is asked.
    states: Option<Tree>,
    /// Whether the peer counted when it began.
    counting: bool,
    /// How often the vnode had been owed, and recoveries begun.
    owed: u64,
    recoveries: u64,
}

/// A peer's task: its link and what is under way on it.
pub(super) struct Walk {
    pub(super) peer: PeerIndex,
    pub(super) link: Arc<Outbox>,
    actives: Vec<Active>,
    /// What is done as fast as the peer and the budget allow.
    pub(super) works: VecDeque<Work>,
    pub(super) entry_cost: EntryCost,
    /// Large entries that this side's exchanges compare in parts next.
    pub(super) compares: VecDeque<(VnodeId, Option<u32>, u64)>,
    /// Vnodes that the peer compares with this node.
    answering: HashMap<VnodeId, Answering>,
    /// Vnodes that the peer was busy with, and until when they are left alone.
    resting: HashMap<VnodeId, Moment>,
    number: u32,
    pub(super) sent: Moment,
}

/// What is known of an exchange that the peer began.
struct Answering {
    number: u32,
    /// How often the vnode had been owed when its root was answered; `None`: it settles nothing.
    owed: Option<u64>,
    since: Moment,
}

impl Walk {
    fn new(peer: PeerIndex, link: Arc<Outbox>) -> Walk {
        Walk {
            peer,
            link,
            actives: Vec::new(),
            works: VecDeque::new(),
            entry_cost: EntryCost::default(),
            compares: VecDeque::new(),
            answering: HashMap::new(),
            resting: HashMap::new(),
            number: fastrand::u32(..),
            sent: Moment(0),
        }
    }

    /// This side's exchange of that number.
    pub(super) fn active(&mut self, number: Option<u32>) -> Option<&mut Active> {
        self.actives.iter_mut().find(|active| Some(active.exchange.number()) == number)
    }

    /// Whether one more may be begun. Somebody waits for looks: they do not wait for the others.
    fn has_room(&self, look: bool) -> bool {
        let alike = self.actives.iter().filter(|active| active.is_look() == look);
        alike.count() < EXCHANGES_AT_ONCE
    }

    /// Forgets this side's exchange of that number, if there is one.
    pub(super) fn abandon(&mut self, number: Option<u32>) -> Option<Active> {
        let is_it = |active: &Active| Some(active.exchange.number()) == number;
        let at = self.actives.iter().position(is_it)?;
        Some(self.actives.swap_remove(at))
    }

    /// Where this side's exchange that ships entries of `vnode` stands among the actives.
    fn shipping(&self, vnode: VnodeId) -> Option<usize> {
        let ships = |active: &Active| active.vnode == vnode && !active.is_look();
        self.actives.iter().position(ships)
    }
}

/// Whether a root was answered with: nothing differs.
fn is_same(effects: &[Effect]) -> bool {
    matches!(effects, [Effect::Send(Message { body: Body::Same, .. })])
}

impl Active {
    fn is_look(&self) -> bool {
        matches!(self.why, Why::Look(_))
    }
}

impl Node {
    /// Every vnode that this node and `peer` hold must be compared.
    pub(super) fn owe(&self, peer: PeerIndex) {
        for vnode in self.shared_vnodes(peer) {
            self.unsettled.owe(vnode, peer);
        }
        self.peers[usize::from(peer)].exchange.wake();
    }

    /// There is a link to `peer`: from now on its vnodes are compared in turn.
    pub(super) fn begin_rounds(&self, peer: PeerIndex) {
        let (me, other) = (self.id(), self.routes.node(peer));
        let ours = self.shared_vnodes(peer).filter(|&vnode| begins(me, other, vnode)).collect();
        self.exchanges.schedule.lock().on_peer(other, ours, self.exchanges.now());
        self.peers[usize::from(peer)].exchange.wake();
    }

    /// The link to `peer` is gone: nothing can be compared with it.
    pub(super) fn end_rounds(&self, peer: PeerIndex) {
        let given_up = self.exchanges.schedule.lock().on_lost(self.routes.node(peer));
        self.exchanges.repair.lock().given_up += given_up as u64;
        self.peers[usize::from(peer)].exchange.lost();
    }

    fn note_exchange(&self, peer: PeerIndex) {
        self.peers[usize::from(peer)].exchange.through.store(super::now().0, Ordering::Relaxed);
    }

    /// When an exchange with `peer` was last through, whoever began it.
    pub fn last_exchange(&self, peer: NodeId) -> Option<UnixMs> {
        let peer = &self.peers[usize::from(self.routes.index(peer)?)];
        let through = peer.exchange.through.load(Ordering::Relaxed);
        (through > 0).then_some(UnixMs(through))
    }

    pub(super) fn spawn_exchanges(self: &Arc<Node>) {
        for peer in 0..self.peers.len() as PeerIndex {
            if peer != self.routes.me() {
                let node = self.clone();
                tokio::spawn(async move { node.exchange_always(peer).await });
            }
        }
    }

    /// An entry came from `peer` in answer to an exchange, or in its course.
    pub(super) fn entry_came(&self, peer: PeerIndex, bytes: usize) {
        self.metrics.exchange_entries_received.bump();
        self.metrics.exchange_bytes_received.add(bytes as u64);
        self.heard_from(peer);
    }

    /// A message about trees came from `peer`.
    pub(super) fn tree_message(&self, peer: PeerIndex, vnode: VnodeId, body: &[u8]) {
        self.metrics.exchange_bytes_received.add(body.len() as u64);
        self.heard_from(peer);
        let shared = vnode.0 < self.routes.vnodes()
            && self.routes.holds(vnode, self.routes.me())
            && self.routes.holds(vnode, peer);
        match Message::decode(body) {
            Ok(message) if shared => self.peers[usize::from(peer)].exchange.post(vnode, message),
            Ok(_) => warn!(vnode = vnode.0, "a peer exchanges a vnode that is not shared with it"),
            Err(reason) => warn!(%reason, "a peer sent an unreadable exchange message"),
        }
    }

    fn heard_from(&self, peer: PeerIndex) {
        let now = self.exchanges.now().0;
        self.peers[usize::from(peer)].exchange.heard.store(now, Ordering::Relaxed);
    }

    async fn exchange_always(self: &Arc<Node>, peer: PeerIndex) {
        let mailbox = &self.peers[usize::from(peer)].exchange;
        let mut walk: Option<Walk> = None;
        loop {
            let link = self.peers[usize::from(peer)].outbox();
            let moved = match (&walk, &link) {
                (Some(walk), Some(link)) => !Arc::ptr_eq(&walk.link, link),
                (walk, link) => walk.is_some() != link.is_some(),
            };
            if mailbox.lost.swap(false, Ordering::AcqRel) || moved {
                self.give_up(peer, walk.take());
                walk = link.map(|link| Walk::new(peer, link));
            }
            let Some(walk) = &mut walk else {
                self.no_link_to_look_over(peer);
                mailbox.wake.notified().await;
                continue;
            };
            if self.step(walk).await {
                // Clients may wait for this thread.
                yield_now().await;
            } else {
                let patience = self.exchange_patience(walk);
                let _ = timeout(patience, mailbox.wake.notified()).await;
            }
        }
    }

    /// Does one thing that is due on a link; whether there was any.
    async fn step(self: &Arc<Node>, walk: &mut Walk) -> bool {
        let mailbox = &self.peers[usize::from(walk.peer)].exchange;
        let letter = mailbox.letters.lock().pop_front();
        if let Some((vnode, message)) = letter {
            let link = self.peers[usize::from(walk.peer)].outbox();
            if !link.is_some_and(|link| Arc::ptr_eq(&link, &walk.link)) {
                // It belongs to a link that this task has not seen yet, or is gone with its own.
                mailbox.letters.lock().push_front((vnode, message));
                return true;
            }
            self.read_letter(walk, vnode, &message).await;
            return true;
        }
        let heard = Moment(mailbox.heard.load(Ordering::Relaxed)).max(walk.sent);
        let silent = Duration::from_millis(self.exchanges.now().since(heard));
        if silent >= STUCK && !walk.actives.is_empty() {
            debug!(peer = walk.peer, "exchanges do not move, beginning anew");
            self.abandon_exchanges(walk.peer, &mut walk.actives);
            walk.works.clear();
            walk.compares.clear();
        }
        if let Some((vnode, begun, hash)) = walk.compares.pop_front() {
            self.compare_parts(walk, vnode, begun, hash).await;
            return true;
        }
        if let Some((vnode, why)) = self.next_exchange(walk) {
            self.begin_exchange(walk, vnode, why).await;
            return true;
        }
        if !walk.works.is_empty() && self.exchange_wait(walk).is_none() {
            self.do_some(walk).await;
            return true;
        }
        false
    }

    /// Until when nothing has to be done unless something comes.
    fn exchange_patience(&self, walk: &Walk) -> Duration {
        let now = self.exchanges.now();
        let mut patience = Duration::from_secs(3600);
        let due = self.exchanges.schedule.lock().due(self.routes.node(walk.peer));
        let open =
            walk.has_room(false) && walk.works.is_empty() && self.streams_are_through(walk.peer);
        if let Some(due) = due.filter(|_| open) {
            // Never nothing: what is due may be busy.
            patience = patience.min(Duration::from_millis(due.since(now).max(1)));
        }
        if !walk.resting.is_empty() {
            patience = patience.min(Duration::from_millis(REST_MS));
        }
        if !walk.actives.is_empty() {
            patience = patience.min(STUCK);
        }
        if !walk.works.is_empty() {
            patience = patience.min(self.exchange_wait(walk).unwrap_or_default());
        }
        patience
    }

    fn next_exchange(&self, walk: &mut Walk) -> Option<(VnodeId, Why)> {
        let peer = walk.peer;
        let mailbox = &self.peers[usize::from(peer)].exchange;
        if walk.has_room(true)
            && let Some((vnode, looking)) = mailbox.looks.lock().pop_front()
        {
            return Some((vnode, Why::Look(looking)));
        }
        // The streams bring most of what differs, and bring it once.
        if !self.streams_are_through(peer) {
            return None;
        }
        // What is begun meanwhile would wait, and keep others from comparing the vnode.
        if !walk.has_room(false) || !walk.works.is_empty() {
            return None;
        }
        let now = self.exchanges.now();
        walk.resting.retain(|_, until| *until > now);
        walk.answering.retain(|_, answering| now.since(answering.since) < STUCK.as_millis() as u64);
        let walk = &*walk;
        let busy = |vnode| {
            walk.shipping(vnode).is_some()
                || walk.answering.contains_key(&vnode)
                || walk.resting.contains_key(&vnode)
                || !self.exchanges.is_free(vnode, peer)
        };
        let urgent = Urgent {
            recovering: self.next_recovering(peer, busy),
            owed: self.held_vnodes().find(|&v| self.unsettled.owes(v, peer) && !busy(v)),
        };
        let node = self.routes.node(peer);
        let next = self.exchanges.schedule.lock().next(node, now, urgent, busy);
        next.map(|(vnode, need)| (vnode, Why::Need(need)))
    }

    /// A vnode that does not count and could learn from `peer`, which does.
    fn next_recovering(&self, peer: PeerIndex, busy: impl Fn(VnodeId) -> bool) -> Option<VnodeId> {
        if !self.routes.reach(peer).counts() {
            // It may have forgotten the same. What is owed asks it all the same.
            return None;
        }
        let node = self.routes.node(peer);
        let recovery = self.recovery.lock();
        let wanted = |vnode: &VnodeId| recovery.wanted(*vnode).any(|other| other == node);
        recovery.vnodes().find(|vnode| !busy(*vnode) && wanted(vnode))
    }

    async fn begin_exchange(self: &Arc<Node>, walk: &mut Walk, vnode: VnodeId, why: Why) {
        let owed = self.unsettled.times_owed(vnode, walk.peer);
        let recoveries = self.exchanges.recoveries.load(Ordering::Acquire);
        let recovering = self.recovery.lock().is_recovering(vnode);
        let scope = match why {
            Why::Look(_) => Scope::Look,
            Why::Need(Need::Recovering | Need::Asked) => Scope::Whole,
            Why::Need(_) if recovering => Scope::Whole,
            Why::Need(_) => Scope::Differing,
        };
        if scope != Scope::Look && !self.exchanges.engage(vnode, walk.peer) {
            return;
        }
        let counting = self.routes.reach(walk.peer).counts();
        let states =
            if scope.compares_states() { Some(self.tree_of_states(vnode).await) } else { None };
        walk.number = walk.number.wrapping_add(1);
        let (number, mut effects) = (walk.number, Vec::new());
        let exchange = match &states {
            Some(tree) => Exchange::start(number, scope, tree, &mut effects),
            None => {
                self.keyspace.tree(vnode, |tree| Exchange::start(number, scope, tree, &mut effects))
            }
        };
        walk.actives.push(Active {
            vnode,
            exchange,
            parts: None,
            why,
            states,
            counting,
            owed,
            recoveries,
        });
        self.carry_out_exchange(walk, vnode, Some(number), effects);
    }

    async fn read_letter(self: &Arc<Node>, walk: &mut Walk, vnode: VnodeId, message: &Message) {
        if let Body::Part(hash, word) = &message.body {
            return self.read_part(walk, vnode, message.exchange, *hash, word).await;
        }
        let mut effects = Vec::new();
        match needs(message) {
            Needs::Tree(scope) => {
                if !scope.compares_states() {
                    self.keyspace.tree(vnode, |tree| respond(message, tree, &mut effects));
                }
                // Where nothing differs nobody need give way to anybody.
                if !is_same(&effects) {
                    if !self.gives_way(walk, vnode, scope, message.exchange) {
                        let body = Body::Busy;
                        let busy = Message { exchange: message.exchange, body };
                        return self.say(walk, vnode, &busy);
                    }
                    if scope.compares_states() {
                        respond(message, &self.tree_of_states(vnode).await, &mut effects);
                    }
                }
                if is_same(&effects) && scope != Scope::Look {
                    self.note_exchange(walk.peer);
                    let was_answering = walk.answering.remove(&vnode).is_some();
                    if was_answering && walk.shipping(vnode).is_none() {
                        self.release(vnode, walk.peer);
                    }
                }
            }
            Needs::Keys(Scope::Look, _) => return self.compare_keys(walk, vnode, message),
            Needs::Keys(..) => {
                self.keep_engaged(walk, vnode);
                let message = message.clone();
                return walk.works.push_back(Work::Compare { vnode, message });
            }
            Needs::Over => return self.peer_is_through(walk, vnode, message.exchange),
            Needs::Nothing => return self.hear_answer(walk, vnode, message),
        }
        self.carry_out_exchange(walk, vnode, None, effects);
    }

    /// The peer begins to compare `vnode`, too: whether its exchange is to go on.
    fn gives_way(&self, walk: &mut Walk, vnode: VnodeId, scope: Scope, number: u32) -> bool {
        if scope == Scope::Look {
            return true;
        }
        if !self.exchanges.engage(vnode, walk.peer) {
            return false;
        }
        if let Some(at) = walk.shipping(vnode) {
            if begins(self.id(), self.routes.node(walk.peer), vnode) {
                return false;
            }
            let active = walk.actives.swap_remove(at);
            let number = active.exchange.number();
            walk.works.retain(|work| work.begun() != Some(number));
        }
        // Trees of states are worked out before they are compared: what was owed in between may not
        // be in them.
        let settles = !scope.compares_states();
        let owed = settles.then(|| self.unsettled.times_owed(vnode, walk.peer));
        let since = self.exchanges.now();
        walk.answering.insert(vnode, Answering { number, owed, since });
        true
    }

    /// The peer has sent everything in which the two differed since its root was answered. (Its
    /// comparison came after that answer, so also after what was owed by then.)
    fn peer_is_through(&self, walk: &mut Walk, vnode: VnodeId, number: u32) {
        self.note_exchange(walk.peer);
        let answered = |answering: &Answering| answering.number == number;
        if !walk.answering.get(&vnode).is_some_and(answered) {
            return;
        }
        let answering = walk.answering.remove(&vnode);
        self.release(vnode, walk.peer);
        if let Some(Answering { owed: Some(owed), .. }) = answering {
            self.unsettled.settle_if(vnode, walk.peer, owed);
            self.look_whether_compared(walk.peer);
        }
    }

    /// The peer answers an exchange of this node.
    fn hear_answer(self: &Arc<Node>, walk: &mut Walk, vnode: VnodeId, message: &Message) {
        let (number, peer) = (Some(message.exchange), walk.peer);
        let mut effects = Vec::new();
        let Some(active) = walk.active(number).filter(|active| active.vnode == vnode) else {
            return;
        };
        if !active.is_look() {
            self.exchanges.engage(vnode, peer);
        }
        let Active { exchange, states, .. } = active;
        match states {
            Some(tree) => exchange.on_message(message, tree, &mut effects),
            None => {
                self.keyspace.tree(vnode, |tree| exchange.on_message(message, tree, &mut effects))
            }
        }
        self.carry_out_exchange(walk, vnode, number, effects);
    }

    /// Carries out what a machine asks for; `begun`: the number of this node's own exchange. What
    /// follows entries waits until they are sent.
    pub(super) fn carry_out_exchange(
        self: &Arc<Node>,
        walk: &mut Walk,
        vnode: VnodeId,
        begun: Option<u32>,
        effects: Vec<Effect>,
    ) {
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::Send(message) => self.say(walk, vnode, &message),
                Effect::List { scope: Scope::Look, span } => {
                    let list = self.list_keys(vnode, Scope::Look, span);
                    let mut more = Vec::new();
                    if let Some(active) = walk.active(begun) {
                        active.exchange.on_keys(list, &mut more);
                    }
                    effects.extend(more);
                }
                Effect::List { scope, span } => {
                    walk.works.push_back(Work::List { vnode, begun, scope, span });
                }
                Effect::SendEntries(hashes) => {
                    let then = effects.drain(..).collect();
                    let shipment = Shipment { vnode, begun, hashes, sent: 0, then };
                    walk.works.push_back(Work::Ship(shipment));
                }
                Effect::Compare(hash) => walk.compares.push_back((vnode, begun, hash)),
                Effect::Done(outcome) => {
                    if let Some(active) = walk.abandon(begun) {
                        self.release_of(walk.peer, &active);
                        self.exchanged(walk.peer, active, &outcome);
                    }
                }
                Effect::GivenUp => {
                    // The peer is busy with it: it is tried again in a while. Three that wait for
                    // each other must not all try again at once.
                    let rest = REST_MS / 2 + fastrand::u64(..REST_MS);
                    let until = Moment(self.exchanges.now().0 + rest);
                    walk.resting.insert(vnode, until);
                    if let Some(active) = walk.abandon(begun) {
                        self.release_of(walk.peer, &active);
                    }
                }
            }
        }
        walk.sent = self.exchanges.now();
    }

    /// The comparison of `vnode` with `peer` is over: others may begin.
    fn release(&self, vnode: VnodeId, peer: PeerIndex) {
        {
            let mut engaged = self.exchanges.engaged.lock();
            if engaged.get(&vnode).is_none_or(|engaged| engaged.peer != peer) {
                return;
            }
            engaged.remove(&vnode);
        }
        self.peers.iter().for_each(|peer| peer.exchange.wake());
    }

    fn release_of(&self, peer: PeerIndex, active: &Active) {
        if !active.is_look() {
            self.release(active.vnode, peer);
        }
    }

    /// What goes on with `vnode` keeps others from it.
    pub(super) fn keep_engaged(&self, walk: &mut Walk, vnode: VnodeId) {
        let (now, answering) = (self.exchanges.now(), walk.answering.get_mut(&vnode));
        let answers = answering.map(|answering| answering.since = now).is_some();
        if answers || walk.shipping(vnode).is_some() {
            self.exchanges.engage(vnode, walk.peer);
        }
    }

    pub(super) fn list_keys(&self, vnode: VnodeId, scope: Scope, span: Span) -> KeyList {
        self.keyspace.read(vnode, super::now(), |keys| keys.list(scope, span, KEYS_MAX))
    }

    /// The tree of everything held of a vnode, with its history. It is worked out a piece at a
    /// time: what changes meanwhile looks different, and is found to be the same a step later.
    async fn tree_of_states(&self, vnode: VnodeId) -> Tree {
        let mut sums = Box::new([Digest::NONE; BUCKETS]);
        for group in self.keyspace.bucket_groups(vnode) {
            self.keyspace.read(vnode, super::now(), |keys| {
                keys.add_sums(Scope::Whole, group, &mut sums);
            });
            yield_now().await;
        }
        Tree::of(sums)
    }

    /// The link is gone, and all that was under way on it.
    fn give_up(self: &Arc<Node>, peer: PeerIndex, walk: Option<Walk>) {
        if let Some(mut walk) = walk {
            self.abandon_exchanges(peer, &mut walk.actives);
            walk.answering.into_keys().for_each(|vnode| self.release(vnode, peer));
        }
    }

    fn abandon_exchanges(self: &Arc<Node>, peer: PeerIndex, actives: &mut Vec<Active>) {
        for active in actives.drain(..) {
            self.release_of(peer, &active);
            if let Why::Look(looking) = active.why {
                self.looked(&looking, peer, active.vnode, None);
            }
        }
    }

    fn no_link_to_look_over(self: &Arc<Node>, peer: PeerIndex) {
        let looks = std::mem::take(&mut *self.peers[usize::from(peer)].exchange.looks.lock());
        for (vnode, looking) in looks {
            self.looked(&looking, peer, vnode, None);
        }
    }

    fn exchanged(self: &Arc<Node>, peer: PeerIndex, active: Active, outcome: &Outcome) {
        let vnode = active.vnode;
        if let Why::Look(looking) = &active.why {
            return self.looked(looking, peer, vnode, Some(outcome));
        }
        if let Why::Need(Need::Asked) = active.why
            && self.exchanges.schedule.lock().on_done(self.routes.node(peer), vnode)
        {
            self.exchanges.repair.lock().done += 1;
            // The vnode's second pass may have waited for this.
            self.peers.iter().for_each(|peer| peer.exchange.wake());
        }
        self.unsettled.settle_if(vnode, peer, active.owed);
        self.look_whether_compared(peer);
        self.metrics.exchanges.bump();
        self.note_exchange(peer);
        if outcome.buckets > 0 {
            self.metrics.exchanges_differing.bump();
            self.metrics.exchange_keys_differing.add(u64::from(outcome.lacks.keys));
            debug!(vnode = vnode.0, peer, keys = outcome.lacks.keys, "exchanged");
        }
        if active.exchange.scope().compares_states()
            && active.recoveries == self.exchanges.recoveries.load(Ordering::Acquire)
        {
            self.restored(peer, vnode, active.counting);
        }
    }

    /// A whole exchange of `vnode` with `peer` is through: it may count again.
    fn restored(&self, peer: PeerIndex, vnode: VnodeId, counted: bool) {
        let counting = counted && self.routes.reach(peer).counts();
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
    }
}
