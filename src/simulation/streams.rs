//! The streams of changes between nodes over all their links, and what each believes of the
//! others, after `node/streams.rs` and `node/members.rs`.
//!
//! All that a node says to a peer goes through the real stream, as frames that only carry the
//! place of what is said: so what is kept, sent again, skipped and dropped is the machine's doing.

use bytes::BytesMut;

use crate::base::id::VnodeId;
use crate::base::time::Moment;
use crate::coordinator::route::Reach;
use crate::membership::steering::{Standing, Steering};
use crate::peer::frame::Batch;
use crate::peer::message::Message;
use crate::peer::stream::Taken;

use super::frame::{Frame, Greeting};
use super::mutants::Mutant;
use super::world::{Due, Event, World, place};

/// Bytes that are sent again at a time.
const ALLOWANCE: usize = 120;

/// How often more is sent again.
const PUMP_MS: u64 = 3;

impl World {
    // ---- what is said -------------------------------------------------------------------------

    /// Says something to `peer`. A change is kept for it if there is no link; its number in the
    /// stream is the answer if there is one.
    pub(super) fn send(&mut self, at: usize, peer: usize, frame: Frame) -> Option<u64> {
        let known = &mut self.nodes[at].peers[peer];
        let linked = known.link.is_some();
        let is_change = matches!(frame, Frame::Rep(_));
        if !linked && !is_change {
            return None;
        }
        let mut bytes = BytesMut::new();
        let place = (known.said.len() as u64).to_le_bytes();
        match &frame {
            Frame::Rep(told) => {
                let record = [&place[..], &told.bytes[..]].concat();
                Message::Rep { vnode: told.vnode, record: &record }.encode(&mut bytes);
            }
            _ => Message::Put { id: 0, vnode: VnodeId(0), record: &place }.encode(&mut bytes),
        }
        known.said.push(frame);
        let upto = if known.stream.is_flowing() {
            known.stream.place(bytes.len()).extend_from_slice(&bytes);
            known.stream.appended_in_place(u64::from(is_change))
        } else {
            known.stream.sort_in(&bytes, linked)
        };
        if is_change {
            known.changes.push((upto, known.said.len() - 1));
        }
        if linked {
            self.pump(at, peer);
        }
        linked.then_some(upto)
    }

    /// The link's writer: sends what the stream gives.
    pub(super) fn pump(&mut self, at: usize, peer: usize) {
        loop {
            let known = &mut self.nodes[at].peers[peer];
            if known.link.is_none() {
                return;
            }
            let mut taken = Taken::new();
            let flowing = known.stream.is_flowing();
            known.stream.take(ALLOWANCE, &mut taken);
            for chunk in &taken {
                for message in Batch::of_frames(chunk, 0) {
                    let frame = self.said(at, peer, &message);
                    self.transmit(at, peer, frame);
                }
            }
            if taken.is_empty() || !flowing {
                break;
            }
        }
        let known = &mut self.nodes[at].peers[peer];
        if !known.stream.is_flowing() && !std::mem::replace(&mut known.pumping, true) {
            self.due(at, PUMP_MS, Due::Pump { peer });
        }
    }

    /// What a frame of the stream stands for.
    fn said(&self, at: usize, peer: usize, message: &Message<'_>) -> Frame {
        match *message {
            Message::Rep { record, .. } | Message::Put { record, .. } => {
                let place = record[..8].try_into().expect("a place");
                self.nodes[at].peers[peer].said[u64::from_le_bytes(place) as usize].clone()
            }
            Message::Resume { after, gap } => Frame::Resume { after, gap },
            Message::CaughtUp { .. } => Frame::CaughtUp,
            ref other => panic!("nobody said {other:?}"),
        }
    }

    // ---- streams begin and end ----------------------------------------------------------------

    pub(super) fn greeting(&mut self, from: usize, to: usize) -> Greeting {
        let node = &mut self.nodes[from];
        let own = node.life().own();
        node.peers[to].told_start = own.start;
        let (known_run, held) = node.peers[to].incoming.greeting();
        Greeting {
            own,
            lives: node.disk.met.clone(),
            run: node.run(),
            known_run,
            held,
            lossy: !node.recovery.is_over(),
        }
    }

    /// A link to `peer` begins: the stream to it goes on there.
    pub(super) fn begin_stream(&mut self, at: usize, peer: usize, greeting: &Greeting) {
        let skips = self.is(Mutant::StreamSkips);
        for vnode in self.shared_vnodes(at, peer) {
            self.wait(at, vnode, peer);
        }
        let node = &mut self.nodes[at];
        let run = node.run();
        let known = &mut node.peers[peer];
        let known_run = known.incoming.greeting().0;
        let met_before = known_run != 0;
        if known_run != greeting.run {
            known.checked = 0;
        }
        known.incoming.link_up(greeting.run);
        let held = (greeting.known_run == run).then_some(greeting.held);
        let held = held.map(|held| (held + u64::from(skips)).min(known.stream.appended()));
        let begun = known.stream.resume(held, greeting.lossy);
        let happened = &mut self.ledger.happened;
        happened.resumed += u64::from(!begun.gap && met_before);
        happened.resent += begun.changes;
        happened.gaps += u64::from(begun.gap && met_before);
        self.note(|_| format!("{} {begun:?} to {}", place(at), place(peer)));
        self.pump(at, peer);
        self.look_whether_caught_up(at, peer);
    }

    /// The link to `peer` is gone: its stream is parked.
    pub(super) fn end_stream(&mut self, at: usize, peer: usize) {
        let known = &mut self.nodes[at].peers[peer];
        known.link = None;
        known.stream.unlink();
        known.incoming.link_down();
        for vnode in self.shared_vnodes(at, peer) {
            self.wait(at, vnode, peer);
        }
    }

    fn wait(&mut self, at: usize, vnode: usize, peer: usize) {
        if !self.is(Mutant::NotUnsettled) {
            self.nodes[at].unsettled.wait(vnode, peer);
        }
    }

    pub(super) fn owe_vnode(&mut self, at: usize, vnode: usize, peer: usize) {
        if !self.is(Mutant::NotUnsettled) {
            self.nodes[at].unsettled.owe(vnode, peer);
        }
    }

    /// Nobody waits for `peer` any more: its last changes may have reached third replicas only.
    pub(super) fn pass_by(&mut self, at: usize, peer: usize) {
        self.ledger.happened.passed_by += 1;
        self.note(|_| format!("{} passes {} by", place(at), place(peer)));
        for vnode in self.shared_vnodes(at, peer) {
            if self.nodes[at].unsettled.forget(vnode, peer) {
                self.nodes[at].peers[peer].incoming.owe();
            }
            for &other in &self.chart.replicas[vnode] {
                if other == peer || other == at {
                    continue;
                }
                if self.nodes[at].peers[other].link.is_some() {
                    self.owe_vnode(at, vnode, other);
                } else {
                    self.nodes[at].peers[peer].unresolved = true;
                }
            }
        }
        for peer in 0..self.plan.nodes {
            self.exchange_next(at, peer);
        }
        self.watch_return(at);
    }

    /// Where the node begins: peers that did not come are given up.
    pub(super) fn pass_by_absent(&mut self, at: usize) {
        for peer in (0..self.plan.nodes).filter(|&peer| peer != at) {
            if self.nodes[at].peers[peer].link.is_none() {
                self.pass_by(at, peer);
            }
        }
    }

    /// Vnodes that both hold.
    pub(super) fn shared_vnodes(&self, at: usize, peer: usize) -> Vec<usize> {
        let replicas = self.chart.replicas.iter().enumerate();
        let shared = replicas.filter(|(_, all)| all.contains(&at) && all.contains(&peer));
        shared.map(|(vnode, _)| vnode).collect()
    }

    /// `peer` has nothing to send again: what it coordinated meanwhile is here, or there is a gap.
    pub(super) fn stream_caught_up(&mut self, at: usize, peer: usize) {
        let gap = self.nodes[at].peers[peer].incoming.on_caught_up();
        if gap && !self.is(Mutant::NoExchange) {
            self.owe(at, peer);
        }
        for vnode in self.shared_vnodes(at, peer) {
            self.nodes[at].unsettled.arrive(vnode, peer);
        }
        self.nodes[at].peers[peer].unresolved = false;
        self.owe_for_absent(at, peer);
        self.look_whether_compared(at, peer);
        self.exchange_next(at, peer);
        self.watch_return(at);
    }

    /// `peer` may know what others that are gone told nobody else here.
    fn owe_for_absent(&mut self, at: usize, peer: usize) {
        for absent in (0..self.plan.nodes).filter(|&absent| absent != peer && absent != at) {
            let node = &self.nodes[at];
            if !node.peers[absent].unresolved || node.reach[absent] != Reach::Down {
                continue;
            }
            for vnode in self.shared_vnodes(at, absent) {
                if self.chart.replicas[vnode].contains(&peer) {
                    self.owe_vnode(at, vnode, peer);
                }
            }
        }
    }

    pub(super) fn streams_are_through(&self, at: usize, peer: usize) -> bool {
        let known = &self.nodes[at].peers[peer];
        known.link.is_some() && known.incoming.is_through() && known.stream.is_through()
    }

    /// A peer that holds all that was sent again, and has compared itself after a gap, has what it
    /// missed.
    pub(super) fn look_whether_caught_up(&mut self, at: usize, peer: usize) {
        let known = &self.nodes[at].peers[peer];
        if known.link.is_some() && known.stream.is_through() && !known.stream.has_gap() {
            self.steer(at, peer, Steering::on_caught_up);
        }
    }

    /// After a gap, and when nothing is left to compare with `peer`, it is told.
    pub(super) fn look_whether_compared(&mut self, at: usize, peer: usize) {
        let shared = self.shared_vnodes(at, peer);
        let node = &mut self.nodes[at];
        let left = shared.iter().any(|&vnode| node.unsettled.owes(vnode, peer));
        if left || !node.peers[peer].incoming.is_through() {
            return;
        }
        if let Some(after) = node.peers[peer].incoming.settle() {
            self.send(at, peer, Frame::Settled { after });
        }
    }

    pub(super) fn stream_settled(&mut self, at: usize, peer: usize, after: u64) {
        self.nodes[at].peers[peer].stream.settled(after);
        self.look_whether_caught_up(at, peer);
    }

    /// `peer` holds every change up to `upto`.
    pub(super) fn stream_acknowledged(&mut self, at: usize, peer: usize, upto: u64) {
        let stream = &mut self.nodes[at].peers[peer].stream;
        let was_through = stream.is_through();
        stream.acknowledge(upto);
        if stream.is_through() && !was_through {
            self.look_whether_caught_up(at, peer);
            self.exchange_next(at, peer);
        }
        if !self.nodes[at].peers[peer].stream.is_flowing() {
            self.pump(at, peer);
        }
    }

    // ---- what is believed ---------------------------------------------------------------------

    /// Tells a peer's machine of something, and believes what follows.
    pub(super) fn steer(
        &mut self,
        at: usize,
        peer: usize,
        tell: impl FnOnce(&mut Steering, Moment),
    ) {
        let now = Moment(self.now);
        let node = &mut self.nodes[at];
        let steering = &mut node.peers[peer].steering;
        let before = steering.standing();
        tell(steering, now);
        let (standing, linked) = (steering.standing(), steering.is_linked());
        node.reach[peer] = match (standing, linked) {
            (Standing::Down, _) => Reach::Down,
            (Standing::Returning, _) => Reach::Recovering,
            (Standing::Up, false) => Reach::Awaited,
            (Standing::Up, true) => Reach::Up,
        };
        if standing == before {
            return;
        }
        self.note(|_| format!("{} believes {} {standing:?}", place(at), place(peer)));
        match (standing, linked) {
            (Standing::Down, true) => {
                let link = self.net.pair(at, peer).link;
                self.after(0, Event::Lost { node: at, peer, link });
            }
            (Standing::Down, false) => self.pass_by(at, peer),
            _ => self.exchange_next(at, peer),
        }
    }

    /// Makes a node believe of itself what is true.
    pub(super) fn steer_own(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let counts = node.recovery.is_over() && !node.returning;
        node.reach[at] = if counts { Reach::Up } else { Reach::Recovering };
        self.check_regained(at);
    }
}
