//! The shell of a simulated node: its lives, its links, and what peers say.
//!
//! It follows the real one (`node/mod.rs`, `node/inbox.rs`, `node/damage.rs`) step by step. A real
//! node holds everything that leaves until the log holds what it tells of; here the log is written
//! in the same instant.

use std::rc::Rc;

use crate::base::id::{Boot, NodeId, VnodeId};
use crate::base::time::Moment;
use crate::membership::lives::{Lives, Met};
use crate::membership::steering::Steering;
use crate::storage::vnode_write::Merged;
use crate::value::record;

use super::disk::{Life, Logged};
use super::frame::{Frame, Greeting, Told};
use super::mutants::Mutant;
use super::node::Origin;
use super::plan::VNODES;
use super::world::{Due, Event, World, place};

/// How long a starting node waits to hear from its peers before it serves.
const GREETING_MS: u64 = 120;

/// How long an end of a link waits without hearing anything.
pub(super) const PATIENCE_MS: u64 = 80;

/// How often the log is synced.
const SYNC_MS: u64 = 60;

impl World {
    // ---- lives --------------------------------------------------------------------------------

    /// A process begins on the node's disk.
    pub(super) fn start(&mut self, at: usize) {
        if self.nodes[at].alive {
            return;
        }
        self.nodes[at].forget();
        let mark = self.mark();
        let (same_actor, forgets) = (self.is(Mutant::SameActor), self.is(Mutant::MendingForgotten));
        let met_in_memory = self.is(Mutant::MetInMemory);
        let node = &mut self.nodes[at];
        if met_in_memory {
            node.disk.met = Lives::default();
        }
        let before = node.disk.life.take();
        let was_away = before.is_some();
        let was_clean = before.as_ref().is_none_or(|life| life.clean);
        let was_whole = before.as_ref().is_none_or(|life| life.whole || forgets);
        let mut life = before.unwrap_or_else(Life::none);
        life.boot.0 += u16::from(life.boot.0 == 0 || !was_clean && !same_actor);
        life.clean = false;
        life.starts.begin(mark);
        let torn = !was_clean && std::mem::take(&mut node.disk.machine_restarted);
        let tail = torn || !was_whole;
        life.whole = !tail;
        node.disk.life = Some(life);
        node.disk.unaware &= !tail;
        node.alive = true;
        self.replay(at);
        let unmet = !self.is(Mutant::UnmetCounts) && self.nodes[at].is_unmet();
        let node = &mut self.nodes[at];
        node.returning = was_away || unmet;
        self.note(|world| {
            let node = &world.nodes[at];
            let (frames, own) = (node.disk.frames.len(), node.life().own());
            format!("{} starts: {own:?} with {frames} frames, lost {tail}", place(at))
        });
        self.begin_recovery(at, tail);
        self.due(at, GREETING_MS, Due::Greeted);
        self.dial_all(at);
    }

    /// What a start draws. The mutant only counts.
    fn mark(&mut self) -> u64 {
        let mark = 1 + self.chance.below(u64::MAX);
        if self.is(Mutant::NumbersForMarks) { 1 } else { mark }
    }

    /// The log is read: what is in it is joined again (invariant 22).
    fn replay(&mut self, at: usize) {
        let frames = self.nodes[at].disk.frames.clone();
        for logged in &frames {
            if logged.gone {
                self.forget_again(at, logged);
                continue;
            }
            if let Some(bytes) = &logged.bytes {
                self.join(at, logged.vnode, bytes);
            }
            self.nodes[at].facts[logged.key].learn(&logged.facts);
        }
        self.nodes[at].keyspace.suspect_forgotten();
        self.check_node(at);
        self.hold_for_others(at);
    }

    /// Vnodes of which something may be lost count in nothing until peers have restored them.
    pub(super) fn begin_recovery(&mut self, at: usize, tail: bool) {
        let w = self.plan.quorum.w;
        let node = &mut self.nodes[at];
        node.recoveries += 1;
        if tail {
            node.peers.iter_mut().for_each(|peer| peer.incoming.owe());
            for peer in (0..self.plan.nodes).filter(|&peer| peer != at) {
                let sent = &mut self.nodes[peer].peers[at];
                sent.compared = sent.compared.max(sent.stream.appended());
            }
        }
        let node = &mut self.nodes[at];
        if tail && !self.plan.mutant.is(Mutant::RecoveringCounts) {
            for vnode in (0..VNODES).map(VnodeId) {
                let replicas = &self.chart.replicas[vnode.index()];
                if replicas.contains(&at) {
                    let others = replicas.iter().filter(|&&peer| peer != at);
                    let others: Vec<_> = others.map(|&peer| NodeId(peer as u16 + 1)).collect();
                    node.recovery.begin(vnode, &others, w);
                }
            }
        }
        self.steer_own(at);
    }

    /// The process is gone; what it was doing is gone with it, and its clients are told nothing.
    pub(super) fn die(&mut self, at: usize) {
        self.nodes[at].alive = false;
        self.nodes[at].paused = false;
        self.disconnect_clients(at);
        for peer in (0..self.plan.nodes).filter(|&peer| peer != at) {
            let link = self.net.pair(at, peer).link;
            *self.net.open(at, peer) = false;
            self.after(PATIENCE_MS, Event::Impatient { from: at, to: peer, link });
        }
    }

    /// The kernel of a machine that lives on closes a dead process's links.
    pub(super) fn close_links(&mut self, at: usize) {
        for peer in (0..self.plan.nodes).filter(|&peer| peer != at) {
            self.tell_closed(at, peer);
        }
    }

    /// Whether `at` counts, by its own word.
    fn counts(&self, at: usize) -> bool {
        self.nodes[at].reach[at].counts()
    }

    pub(super) fn tell_status(&mut self, at: usize) {
        let counts = self.counts(at);
        self.note(|_| format!("{} says that it counts: {counts}", place(at)));
        for peer in (0..self.plan.nodes).filter(|&peer| peer != at) {
            self.send(at, peer, Frame::Status { counts });
        }
    }

    /// A node that was away counts as soon as there is nobody in reach that it must compare itself
    /// with.
    pub(super) fn watch_return(&mut self, at: usize) {
        let unmet = !self.is(Mutant::UnmetCounts) && self.nodes[at].is_unmet();
        let node = &mut self.nodes[at];
        if node.returning && node.greeted && node.unsettled.is_empty() && !unmet {
            node.returning = false;
            if node.recovery.is_over() {
                self.steer_own(at);
                self.tell_status(at);
            }
        }
    }

    /// The peers were heard from, or waited for in vain.
    pub(super) fn become_greeted(&mut self, at: usize) {
        if !std::mem::replace(&mut self.nodes[at].greeted, true) {
            self.pass_by_absent(at);
            self.watch_return(at);
        }
    }

    /// A lost peer was dialed: if its machine is there and nobody listens, that is heard at once.
    pub(super) fn find_refused(&mut self, at: usize, peer: usize) {
        let gone = !self.nodes[peer].alive && !self.nodes[peer].disk.machine_restarted;
        if gone && !self.net.is_cut(at, peer) {
            self.note(|_| format!("{} finds nobody at {}'s address", place(at), place(peer)));
            self.nodes[at].peers[peer].met = true;
            self.steer(at, peer, Steering::on_refused);
            self.greet_if_all_met(at);
        }
    }

    fn greet_if_all_met(&mut self, at: usize) {
        let node = &self.nodes[at];
        if (0..node.peers.len()).all(|peer| peer == at || node.peers[peer].met) {
            self.become_greeted(at);
        }
    }

    // ---- links --------------------------------------------------------------------------------

    pub(super) fn dial_all(&mut self, at: usize) {
        for peer in (0..self.plan.nodes).filter(|&peer| peer != at) {
            self.plan_dial(at, peer);
        }
    }

    pub(super) fn plan_dial(&mut self, a: usize, b: usize) {
        if !std::mem::replace(&mut self.net.pair(a, b).dialing, true) {
            let after = self.chance.between(1, 15);
            self.after(after, Event::Dial { a, b });
        }
    }

    pub(super) fn dial(&mut self, a: usize, b: usize) {
        self.net.pair(a, b).dialing = false;
        let ready = |node: usize| self.nodes[node].alive && !self.nodes[node].paused;
        if !ready(a) || !ready(b) || self.net.is_cut(a, b) {
            return;
        }
        let pair = self.net.pair(a, b);
        if pair.open != [false, false] {
            return;
        }
        pair.link += 1;
        pair.open = [true, true];
        let link = pair.link;
        for (from, to) in [(a, b), (b, a)] {
            let delay = self.delay();
            let up = self.now + delay;
            self.net.way(from, to).busy_until = up;
            let greeting = self.greeting(from, to);
            self.at(up, Event::Up { node: to, peer: from, link, greeting });
        }
    }

    /// A frame's time on the way.
    pub(super) fn delay(&mut self) -> u64 {
        let usual = self.chance.between(1, self.plan.delay_ms);
        if self.chance.below(16) == 0 { usual * 10 } else { usual }
    }

    /// The link is there, as `at` sees it.
    pub(super) fn come_up(&mut self, at: usize, peer: usize, link: u32, greeting: Greeting) {
        if self.net.pair(at, peer).link != link || !*self.net.open(at, peer) {
            return;
        }
        if let Some(met) = greeting.lives.of(self.nodes[at].id) {
            self.remember(at, *met);
        }
        if self.nodes[at].peers[peer].told_start != self.nodes[at].life().starts.last() {
            // The link was greeted in a life that is not lived any more.
            *self.net.open(at, peer) = false;
            return self.tell_closed(at, peer);
        }
        let known = &mut self.nodes[at].peers[peer];
        known.greeted = Some((greeting.own, greeting.lives.clone()));
        known.link = Some(link);
        self.note(|_| format!("{} has a link to {}", place(at), place(peer)));
        let life = u64::from(greeting.own.start) << 16 | u64::from(greeting.own.boot.0);
        self.steer(at, peer, |peer, now| peer.on_link_up(life, now));
        self.begin_stream(at, peer, &greeting);
        self.check_regained(at);
        let counts = self.counts(at);
        self.send(at, peer, Frame::Status { counts });
    }

    /// A peer has met this node in the life `met`. If its disk knows nothing of it, another life
    /// begins, and all links with it.
    fn remember(&mut self, at: usize, met: Met) {
        let life = self.nodes[at].life();
        if self.is(Mutant::NoNewBoot) || life.starts.know(life.boot, &met) {
            return;
        }
        let mut life = life.clone();
        life.boot = Boot(life.boot.0.max(met.boot.0) + 1);
        life.whole = false;
        let mark = self.mark();
        life.starts.begin_behind(&met, mark);
        self.nodes[at].disk.life = Some(life);
        self.nodes[at].disk.unaware = false;
        self.note(|world| {
            let own = world.nodes[at].life().own();
            format!("{} is told of a life it has forgotten: {own:?}", place(at))
        });
        self.begin_recovery(at, true);
        for peer in (0..self.plan.nodes).filter(|&peer| peer != at) {
            if let Some(link) = self.nodes[at].peers[peer].link {
                self.lose_link(at, peer, link);
            }
        }
    }

    /// The peer speaks, so it has seen what this node knew of its life: it is met.
    fn meet(&mut self, at: usize, peer: usize) {
        let node = &mut self.nodes[at];
        if let Some((life, heard)) = node.peers[peer].greeted.take() {
            node.disk.met.meet(NodeId(peer as u16 + 1), life);
            node.disk.met.hear(node.id, &heard);
            self.watch_return(at);
        }
    }

    pub(super) fn lose_patience(&mut self, from: usize, to: usize, link: u32) {
        let silent =
            self.net.way(from, to).cut || !*self.net.open(from, to) || self.nodes[from].paused;
        if silent {
            self.after(0, Event::Lost { node: to, peer: from, link });
        }
    }

    /// `at`'s end of the link is closed.
    pub(super) fn lose_link(&mut self, at: usize, peer: usize, link: u32) {
        if self.net.pair(at, peer).link != link || !*self.net.open(at, peer) {
            return;
        }
        *self.net.open(at, peer) = false;
        self.tell_closed(at, peer);
        if self.nodes[at].alive {
            self.note(|_| format!("{} lost its link to {}", place(at), place(peer)));
            self.link_down(at, peer);
        }
    }

    /// The other end hears that `at`'s is closed, perhaps before it has read all that was sent.
    fn tell_closed(&mut self, at: usize, peer: usize) {
        let link = self.net.pair(at, peer).link;
        if *self.net.open(peer, at) {
            if !self.net.way(at, peer).cut {
                let delay = self.delay();
                let orderly = self.chance.percent(50);
                let busy = self.net.way(at, peer).busy_until;
                let when = if orderly { busy.max(self.now + delay) } else { self.now + delay };
                self.at(when, Event::Lost { node: peer, peer: at, link });
            }
        } else {
            self.plan_dial(at, peer);
        }
    }

    fn link_down(&mut self, at: usize, peer: usize) {
        self.end_stream(at, peer);
        self.end_exchanges(at, peer);
        self.steer(at, peer, Steering::on_link_lost);
        let patience = self.plan.tuning.patience_ms;
        self.due(at, patience, Due::Steer { peer });
        let dialed = self.chance.between(5, 60);
        self.due(at, dialed, Due::Refused { peer });
        self.stream_lost(at, peer);
        self.operations_lost(at, peer);
        self.nodes[at].handoff.on_lost(NodeId(peer as u16 + 1), Moment(self.now));
        self.watch_return(at);
    }

    /// A frame sets out over the link to `peer`.
    pub(super) fn transmit(&mut self, at: usize, peer: usize, frame: Frame) {
        let Some(link) = self.nodes[at].peers[peer].link else { return };
        let delay = self.delay();
        if let Frame::Rep(told) | Frame::Put { told, .. } = &frame
            && self.chance.percent(self.plan.stale)
        {
            let after = self.chance.between(20, 900);
            let told = told.clone();
            self.after(after, Event::Stale { to: peer, told });
        }
        let now = self.now;
        let way = self.net.way(at, peer);
        way.frames.push_back((link, frame));
        if way.cut {
            way.held += 1;
        } else {
            way.busy_until = way.busy_until.max(now + delay);
            let when = way.busy_until;
            self.at(when, Event::Deliver { from: at, to: peer });
        }
    }

    /// The next frame of a way arrives, if its link is still there.
    pub(super) fn arrive(&mut self, from: usize, to: usize) {
        let way = self.net.way(from, to);
        if way.cut {
            way.held += 1;
            return;
        }
        let (link, frame) = way.frames.pop_front().expect("a frame is under way");
        if self.net.pair(from, to).link == link && *self.net.open(to, from) {
            self.hear(to, from, link, frame);
        }
    }

    // ---- what peers say -----------------------------------------------------------------------

    fn hear(&mut self, at: usize, peer: usize, link: u32, frame: Frame) {
        self.meet(at, peer);
        if matches!(frame, Frame::Resume { .. } | Frame::CaughtUp | Frame::Settled { .. }) {
            self.note(|_| format!("{} hears {frame:?} of {}", place(at), place(peer)));
        }
        match frame {
            Frame::Rep(told) => {
                self.merge(at, &told);
                self.nodes[at].peers[peer].received += 1;
                self.acknowledge(at, peer);
            }
            Frame::Resume { after, gap } => {
                let known = &mut self.nodes[at].peers[peer];
                known.received = after;
                known.incoming.on_resume(after, gap);
                let run = known.incoming.greeting().0;
                if gap && run == self.nodes[peer].run() {
                    let sent = &mut self.nodes[peer].peers[at];
                    sent.compared = sent.compared.max(after);
                }
            }
            Frame::CaughtUp => {
                self.acknowledge(at, peer);
                self.stream_caught_up(at, peer);
            }
            Frame::Settled { after } => self.stream_settled(at, peer, after),
            Frame::RepAck { upto } => self.acknowledged(at, peer, upto),
            Frame::Forward { id, request, stands_in } => {
                self.run_forwarded(at, request, stands_in, Origin::Peer { peer, link, id });
            }
            Frame::ForwardReply { id, outcome } => self.forward_answered(at, id, outcome),
            Frame::Check { id, key, digest } => self.answer_check(at, peer, id, key, digest),
            Frame::CheckReply { id, verdict } => self.check_answered(at, peer, id, verdict),
            Frame::Put { id, told } => {
                self.merge(at, &told);
                if id != 0 {
                    let ok = self.counts(at);
                    self.send(at, peer, Frame::PutAck { id, ok });
                }
            }
            Frame::PutAck { id, ok } => {
                if !self.hint_answered(at, id, ok) {
                    self.put_answered(at, peer, id, ok);
                }
            }
            Frame::Tree { vnode, message } => self.tree_message(at, peer, vnode, &message),
            Frame::Status { counts } => {
                self.steer(at, peer, |peer, now| peer.on_status(counts, now));
                self.nodes[at].peers[peer].met = true;
                self.greet_if_all_met(at);
                self.exchange_next(at, peer);
            }
        }
    }

    /// What came is in the log.
    fn acknowledge(&mut self, at: usize, peer: usize) {
        let known = &mut self.nodes[at].peers[peer];
        let upto = known.received;
        known.incoming.on_held(upto);
        self.check_acknowledged(at, peer, upto);
        self.send(at, peer, Frame::RepAck { upto });
    }

    /// The log is synced; what was brought back of what was lost is safe with it.
    pub(super) fn sync(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.disk.sync();
        node.syncing = false;
        if let Some(life) = &mut node.disk.life {
            life.whole |= node.recovery.is_over();
        }
        if self.is(Mutant::TimedCollection) {
            self.collect(at);
        }
    }

    /// Only a mutant does so: what was removed is forgotten, whoever may not know of it.
    fn collect(&mut self, at: usize) {
        for (name, vnode) in &self.chart.keys {
            let node = &mut self.nodes[at];
            let (wall, actor) = (node.wall(self.now), node.actor());
            node.keyspace.write(*vnode, wall, |keys| {
                if keys.read().entry(name).is_some_and(|entry| entry.is_tombstone()) {
                    let state = keys.read().state_digest(name);
                    keys.forget(name, state, actor);
                }
            });
        }
    }

    pub(super) fn sync_soon(&mut self, at: usize) {
        if !std::mem::replace(&mut self.nodes[at].syncing, true) {
            self.due(at, SYNC_MS, Due::Sync);
        }
    }

    // ---- what is held -------------------------------------------------------------------------

    /// Joins a record, and keeps it.
    pub(super) fn merge(&mut self, at: usize, told: &Told) {
        let Told { vnode, key, ref bytes, ref facts } = *told;
        if bytes.is_empty() {
            return;
        }
        let before = self.state_digest(at, key);
        self.join(at, vnode, bytes);
        let changed = self.state_digest(at, key) != before;
        let known = &mut self.nodes[at].facts[key];
        let taught = !known.covers(facts);
        known.learn(facts);
        if changed || taught {
            let bytes = changed.then(|| bytes.clone());
            self.log(at, Logged { vnode, key, bytes, facts: *facts, gone: false });
            if !self.is_replica(vnode, at) {
                self.hold_for_others(at);
            }
            self.check_key(at, key);
        }
    }

    fn join(&mut self, at: usize, vnode: VnodeId, bytes: &[u8]) {
        let (key, record) = record::decode(bytes).expect("what was encoded decodes");
        let record = self.bend(record);
        let node = &self.nodes[at];
        let wall = node.wall(self.now);
        let merged = node.keyspace.write(vnode, wall, |keys| keys.merge(key, &record, bytes));
        assert_eq!(merged, Merged::Done);
    }

    /// Appends to the log; it is written before anything leaves.
    pub(super) fn log(&mut self, at: usize, logged: Logged) {
        self.nodes[at].disk.append(logged);
        if self.is(Mutant::AckBeforeLog) {
            let after = self.chance.between(5, 40);
            self.due(at, after, Due::WriteOut);
        } else {
            self.nodes[at].disk.write_out();
        }
        self.sync_soon(at);
    }

    /// All that `at` holds of `key`, as it travels.
    pub(super) fn told(&self, at: usize, key: usize) -> Told {
        let (name, vnode) = &self.chart.keys[key];
        let node = &self.nodes[at];
        let mut out = bytes::BytesMut::new();
        node.keyspace.read(*vnode, node.wall(self.now), |keys| keys.record(name, &mut out));
        let bytes: Rc<[u8]> = Rc::from(&out[..]);
        Told { vnode: *vnode, key, bytes, facts: node.facts[key] }
    }
}
