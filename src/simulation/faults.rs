//! What befalls a world: deaths, lost disks, splits, broken links, pauses, clocks that jump.
//!
//! Every fault plans its own end. Disks are lost only as far as the contract allows: a write that W
//! replicas acknowledged survives the loss of W−1 of the disks that held it; then it must have come
//! to every replica again before the next is lost.

use super::coordinate::id_of;
use super::disk::Loss;
use super::facts::{Writes, each};
use super::node::Node;
use super::plan::{COUNTER, Focus, KEYS, Weather};
use super::shell::PATIENCE_MS;
use super::world::{Event, WARM_MS, World, place};

/// One fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// The process dies; what it wrote is there.
    Kill {
        node: usize,
    },
    /// It ends in order.
    Stop {
        node: usize,
    },
    /// The disk loses something while the node is down.
    Lose {
        node: usize,
        loss: Loss,
    },
    /// A copy of the disk is taken: a snapshot, or of the files as they are.
    Image {
        node: usize,
        snapshot: bool,
    },
    /// The nodes of `side` (one bit each) and the others do not hear each other.
    Split {
        side: u32,
    },
    /// `to` does not hear `from`.
    Deaf {
        from: usize,
        to: usize,
    },
    /// The link breaks, nothing else.
    Break {
        a: usize,
        b: usize,
    },
    /// The process sleeps.
    Pause {
        node: usize,
    },
    Jump {
        node: usize,
        by: i64,
    },
}

impl World {
    pub(super) fn plan_faults(&mut self) {
        let plan = self.plan.clone();
        let spread =
            plan.requests as u64 * (plan.think_ms / 2 + plan.delay_ms * 3) / plan.clients as u64;
        let mut when = WARM_MS;
        for _ in 0..plan.faults {
            if plan.weather == Weather::Kills {
                // One at a time: the next comes when the one before is over.
                when += 500 + self.chance.below(spread / 2 + 1);
            } else {
                when = WARM_MS + self.chance.below(spread + 200);
            }
            let fault = self.draw_fault();
            self.at(when, Event::Fault(fault));
        }
        if matches!(plan.weather, Weather::Network | Weather::Everything) {
            for node in 0..plan.nodes {
                let skew = self.chance.between(0, 400) as i64 - 200;
                self.nodes[node].skew = if self.chance.percent(50) { skew } else { 0 };
                let when = self.chance.below(WARM_MS + spread);
                let snapshot = self.chance.percent(40);
                self.at(when, Event::Fault(Fault::Image { node, snapshot }));
            }
        }
    }

    fn draw_fault(&mut self) -> Fault {
        let nodes = self.plan.nodes;
        let node = self.chance.place(nodes);
        let other = (node + 1 + self.chance.place(nodes - 1)) % nodes;
        let network = self.chance.below(6);
        let split = match network {
            0..3 => Fault::Split { side: self.draw_side() },
            3 => Fault::Deaf { from: node, to: other },
            4 => Fault::Break { a: node, b: other },
            _ => Fault::Pause { node },
        };
        match self.plan.weather {
            Weather::Calm | Weather::Kills => Fault::Kill { node },
            Weather::Network => split,
            Weather::Everything if self.plan.focus == Focus::Losses && self.chance.percent(60) => {
                let losses = [Loss::Power, Loss::Wipe, Loss::Image];
                Fault::Lose { node, loss: losses[self.chance.place(3)] }
            }
            Weather::Everything => match self.chance.below(16) {
                0..5 => split,
                5 | 6 => Fault::Kill { node },
                7 => Fault::Stop { node },
                8 | 9 => Fault::Jump { node, by: self.chance.between(0, 600) as i64 - 300 },
                10 | 11 => Fault::Lose { node, loss: Loss::Wipe },
                12 | 13 => Fault::Lose { node, loss: Loss::Image },
                _ => Fault::Lose { node, loss: Loss::Power },
            },
        }
    }

    /// One side of a split. Where stand-ins are looked at it is often the one without a replica of the
    /// counter.
    fn draw_side(&mut self) -> u32 {
        let nodes = self.plan.nodes;
        if self.plan.focus == Focus::StandIns && self.chance.percent(60) {
            let vnode = self.chart.keys[COUNTER].1;
            return self.chart.fallbacks[vnode.index()]
                .iter()
                .fold(0, |side, node| side | 1 << node);
        }
        self.chance.between(1, (1 << nodes) - 2) as u32
    }

    pub(super) fn befall(&mut self, fault: Fault) {
        self.note(|_| format!("fault: {fault:?}"));
        match fault {
            Fault::Kill { node } => {
                self.end_process(node, true);
                self.plan_start(node);
            }
            Fault::Stop { node } => {
                if self.end_process(node, true) {
                    self.nodes[node].disk.end_cleanly();
                }
                self.plan_start(node);
            }
            Fault::Lose { node, loss } => self.lose_disk(node, loss),
            Fault::Image { node, snapshot } => self.nodes[node].disk.take_image(snapshot),
            Fault::Split { side } => {
                let nodes = self.plan.nodes;
                let mut cuts = Vec::new();
                for from in 0..nodes {
                    for to in 0..nodes {
                        if side >> from & 1 != side >> to & 1 {
                            cuts.push((from, to));
                        }
                    }
                }
                self.cut(cuts);
            }
            Fault::Deaf { from, to } => self.cut(vec![(from, to)]),
            Fault::Break { a, b } => {
                let link = self.net.pair(a, b).link;
                self.after(0, Event::Lost { node: a, peer: b, link });
            }
            Fault::Pause { node } => self.pause(node),
            Fault::Jump { node, by } => self.nodes[node].skew += by,
        }
    }

    /// Ends a process; whether there was one.
    fn end_process(&mut self, node: usize, machine_lives: bool) -> bool {
        if !self.nodes[node].alive {
            return false;
        }
        self.nodes[node].disk.kill();
        self.die(node);
        if machine_lives {
            self.close_links(node);
        }
        true
    }

    fn plan_start(&mut self, node: usize) {
        let after = self.chance.between(5, 300);
        self.after(after, Event::Start { node });
    }

    fn lose_disk(&mut self, node: usize, loss: Loss) {
        let torn = self.chance.place(self.nodes[node].disk.unsynced() + 1);
        // Who must remind another node does not lose its memory first. (A known limit: decision 29.)
        let reminds =
            (0..self.plan.nodes).any(|other| other != node && self.nodes[other].disk.unaware);
        if loss == Loss::Image && !self.nodes[node].disk.has_image()
            || loss != Loss::Power && (reminds || !self.is_known(node, 0))
            || !self.may_lose(node, loss, torn)
        {
            return;
        }
        self.note_lost(node, loss, torn);
        self.end_process(node, loss == Loss::Wipe);
        self.ledger.happened.losses += 1;
        // A copy of a life that somebody has met no later one of is only found out if the machine
        // was down. (A known limit: decision 29.)
        let image = self.nodes[node].disk.image_of();
        let unseen = image.is_some_and(|life| !self.is_known(node, life.start + 1));
        let disk = &mut self.nodes[node].disk;
        match loss {
            Loss::Power => disk.cut(torn),
            Loss::Wipe => disk.wipe(),
            Loss::Image => {
                disk.restore_image();
                disk.machine_restarted |= unseen;
            }
        }
        disk.unaware |= loss != Loss::Power;
        self.plan_start(node);
    }

    /// Remembers what was acknowledged by replicas and is about to be lost.
    fn note_lost(&mut self, node: usize, loss: Loss, torn: usize) {
        for key in 0..KEYS {
            if !self.is_replica(self.chart.keys[key].1, node) {
                continue;
            }
            let writes = &self.ledger.histories[key].writes;
            let lost = each(self.nodes[node].disk.would_lose(key, loss, torn));
            let lost = lost.filter(|&write| writes[write].promised && writes[write].on_replicas);
            self.lost[node][key] |= lost.fold(0, |set: Writes, write| set | 1 << write);
        }
    }

    /// Whether every other node remembers a start of `node`, that one or a later. One that has never
    /// met a node cannot find out that its disk was wiped; nor can one that has lost its own, until
    /// it has met others. (A known limit: decision 29.)
    fn is_known(&self, node: usize, start: u32) -> bool {
        let others = self.nodes.iter().enumerate().filter(|&(other, _)| other != node);
        let met = |other: &Node| other.disk.met.of(id_of(node)).map(|met| met.start);
        others.map(|(_, other)| other).all(|other| met(other).is_some_and(|met| met >= start))
    }

    /// Whether the contract allows the loss; counts it if so.
    fn may_lose(&mut self, node: usize, loss: Loss, torn: usize) -> bool {
        let w = self.plan.quorum.w;
        let mut counted = Vec::new();
        for key in 0..KEYS {
            let lost = self.nodes[node].disk.would_lose(key, loss, torn);
            let replicas = &self.chart.replicas[self.chart.keys[key].1.index()];
            for write in each(lost) {
                let everywhere = replicas.iter().all(|&at| self.disk_holds(at, key, write));
                let known = &mut self.ledger.histories[key].writes[write];
                if everywhere {
                    known.losses = 0;
                }
                if known.promised && known.losses + 1 >= w {
                    return false;
                }
                // Also of those whose coordinators still count.
                counted.push((key, write));
            }
        }
        for (key, write) in counted {
            self.ledger.histories[key].writes[write].losses += 1;
        }
        self.note(|_| format!("{} loses its disk: {loss:?}", place(node)));
        true
    }

    // ---- the network --------------------------------------------------------------------------

    fn cut(&mut self, cuts: Vec<(usize, usize)>) {
        for &(from, to) in &cuts {
            self.net.way(from, to).cut = true;
            let link = self.net.pair(from, to).link;
            let patience = PATIENCE_MS + self.chance.below(PATIENCE_MS);
            self.after(patience, Event::Impatient { from, to, link });
        }
        let after = self.chance.between(10, 500);
        self.after(after, Event::Mend { cuts });
    }

    /// The ways carry again. (Cuts may overlap; the first to end mends.)
    pub(super) fn mend(&mut self, cuts: &[(usize, usize)]) {
        self.note(|_| "the network is mended".to_owned());
        for &(from, to) in cuts {
            let delay = self.delay();
            let now = self.now;
            let way = self.net.way(from, to);
            way.cut = false;
            let held = std::mem::take(&mut way.held);
            way.busy_until = way.busy_until.max(now + delay);
            let when = way.busy_until;
            for _ in 0..held {
                self.at(when, Event::Deliver { from, to });
            }
        }
        for &(from, to) in cuts {
            // An end that is closed could not say so.
            for (at, peer) in [(from, to), (to, from)] {
                let link = self.net.pair(at, peer).link;
                if !*self.net.open(peer, at) {
                    self.after(0, Event::Impatient { from: peer, to: at, link });
                }
            }
            self.plan_dial(from, to);
        }
    }

    fn pause(&mut self, node: usize) {
        if !self.nodes[node].alive || self.nodes[node].paused {
            return;
        }
        self.nodes[node].paused = true;
        for peer in (0..self.plan.nodes).filter(|&peer| peer != node) {
            let link = self.net.pair(node, peer).link;
            let patience = PATIENCE_MS + self.chance.below(PATIENCE_MS);
            self.after(patience, Event::Impatient { from: node, to: peer, link });
        }
        let after = self.chance.between(5, 300);
        self.after(after, Event::Resume { node });
    }
}
