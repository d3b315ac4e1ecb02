//! A world: its nodes, its network, its clients, its time, and what happens next.
//!
//! Invariant: an event happens in no time, and events of one moment in the order in which they
//! were planned. Every fault plans its own end, so a world comes to rest by itself: when nothing is
//! planned any more, everything must be whole.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::base::id::VnodeId;
use crate::membership::steering::Steering;

use super::chance::Chance;
use super::facts::Writes;
use super::faults::Fault;
use super::frame::{Greeting, Told};
use super::ledger::{Happened, Ledger};
use super::mutants::Mutant;
use super::net::Net;
use super::node::Node;
use super::plan::{Chart, Focus, KEYS, Plan, chart};
use super::workload::Client;

/// A world that has not come to rest after this many events never will.
const EVENTS_MAX: u64 = 400_000;

/// When the clients begin: the cluster has found itself by then.
pub(super) const WARM_MS: u64 = 150;

/// Something that a process has planned for itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Due {
    Awaited(u64),
    Forward(u64),
    Slow(u64),
    Operation(u64),
    /// The peers were waited for long enough.
    Greeted,
    Sync,
    /// What is held for others is looked at.
    HandOn,
    /// Only a mutant writes later than at once.
    WriteOut,
    /// An exchange that does not move: its number and its peer.
    Exchange {
        peer: usize,
        number: u32,
    },
    /// An exchange that the peer began and that does not end.
    Answered {
        peer: usize,
        vnode: usize,
        number: u32,
    },
    /// A vnode that the peer was busy with was left alone for long enough.
    Rested {
        peer: usize,
        vnode: usize,
    },
    /// There may be more to send again.
    Pump {
        peer: usize,
    },
    /// A peer without a link was waited for long enough.
    Steer {
        peer: usize,
    },
    /// A lost peer is dialed: does anybody listen?
    Refused {
        peer: usize,
    },
}

/// What happens.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Next {
        client: usize,
    },
    /// The next frame on its way arrives.
    Deliver {
        from: usize,
        to: usize,
    },
    Up {
        node: usize,
        peer: usize,
        link: u32,
        greeting: Greeting,
    },
    Lost {
        node: usize,
        peer: usize,
        link: u32,
    },
    /// `to` has heard nothing from `from` for as long as it waits.
    Impatient {
        from: usize,
        to: usize,
        link: u32,
    },
    Dial {
        a: usize,
        b: usize,
    },
    Due {
        node: usize,
        process: u32,
        due: Due,
    },
    Fault(Fault),
    Start {
        node: usize,
    },
    Mend {
        cuts: Vec<(usize, usize)>,
    },
    Resume {
        node: usize,
    },
    /// A record that was sent once comes again.
    Stale {
        to: usize,
        told: Told,
    },
}

#[derive(Debug)]
struct Planned {
    at: u64,
    turn: u64,
    event: Event,
}

impl PartialEq for Planned {
    fn eq(&self, other: &Planned) -> bool {
        (self.at, self.turn) == (other.at, other.turn)
    }
}

impl Eq for Planned {}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Planned) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Planned {
    fn cmp(&self, other: &Planned) -> std::cmp::Ordering {
        (self.at, self.turn).cmp(&(other.at, other.turn))
    }
}

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    /// What was wrong, if anything was.
    pub(super) breach: Option<String>,
    pub(super) trace: Vec<String>,
    pub(super) events: u64,
    pub(super) requests: u64,
    pub(super) writes: u64,
    pub(super) happened: Happened,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) chart: &'static Chart,
    pub(super) chance: Chance,
    pub(super) now: u64,
    turn: u64,
    queue: BinaryHeap<Reverse<Planned>>,
    pub(super) nodes: Vec<Node>,
    pub(super) net: Net,
    pub(super) clients: Vec<Client>,
    pub(super) ledger: Ledger,
    /// The writes on each key that each node was ever told of, whatever it has lost since.
    pub(super) told: Vec<[Writes; KEYS]>,
    /// What each node's disk lost of what its peers must bring back before it counts again.
    pub(super) lost: Vec<[Writes; KEYS]>,
    /// Events of paused nodes.
    kept: Vec<(usize, Event)>,
    tracing: bool,
    trace: Vec<String>,
}

impl World {
    pub(super) fn new(seed: u64, mutant: Mutant, focus: Option<Focus>, tracing: bool) -> World {
        let mut chance = Chance::new(seed);
        let plan = Plan::draw(&mut chance, mutant, focus);
        World {
            chart: chart(plan.nodes),
            now: 0,
            turn: 0,
            queue: BinaryHeap::new(),
            nodes: (0..plan.nodes).map(|place| Node::new(place, plan.nodes, plan.tuning)).collect(),
            net: Net::new(plan.nodes),
            clients: Vec::new(),
            ledger: Ledger::default(),
            told: vec![[0; KEYS]; plan.nodes],
            lost: vec![[0; KEYS]; plan.nodes],
            kept: Vec::new(),
            tracing,
            trace: Vec::new(),
            plan,
            chance,
        }
    }

    /// Runs until nothing is planned any more, or something is wrong.
    pub(super) fn run(mut self) -> Report {
        self.note(|world| format!("{:?}", world.plan));
        self.note(|world| {
            let replicas = |(_, vnode): &(_, VnodeId)| &world.chart.replicas[vnode.index()];
            let of: Vec<_> = world.chart.keys.iter().map(replicas).collect();
            format!("the keys' replicas, counted from 0: {of:?}")
        });
        for node in 0..self.plan.nodes {
            self.after(node as u64, Event::Start { node });
        }
        self.plan_clients();
        self.plan_faults();
        let mut events = 0;
        let mut rounds = 0;
        while self.ledger.breach.is_none() {
            let Some(Reverse(Planned { at, event, .. })) = self.queue.pop() else {
                // All is quiet. What only a round of comparisons would find, it finds now. One that
                // brings a late value to the second replica while the third removes it from the
                // first needs another.
                if rounds == 1 && self.is_converged() || rounds == 2 {
                    break;
                }
                rounds += 1;
                self.ledger.happened.second_rounds += u64::from(rounds == 2);
                self.check_rest();
                self.begin_round();
                continue;
            };
            events += 1;
            self.now = at;
            self.step(event);
            self.ledger.expect(events < EVENTS_MAX, || "it never comes to rest".to_owned());
        }
        if self.ledger.breach.is_none() {
            self.check_end();
        }
        let written = self.ledger.histories.iter().map(|history| history.writes.len() as u64);
        Report {
            events,
            requests: self.ledger.requests.len() as u64,
            writes: written.sum(),
            happened: self.ledger.happened,
            breach: self.ledger.breach,
            trace: self.trace,
        }
    }

    pub(super) fn after(&mut self, delay: u64, event: Event) {
        self.at(self.now + delay, event);
    }

    pub(super) fn at(&mut self, at: u64, event: Event) {
        self.turn += 1;
        self.queue.push(Reverse(Planned { at, turn: self.turn, event }));
    }

    /// Plans something for the process that `node` is now.
    pub(super) fn due(&mut self, node: usize, delay: u64, due: Due) {
        let process = self.nodes[node].process;
        self.after(delay, Event::Due { node, process, due });
    }

    /// Writes a line of the trace, if anybody wants it.
    pub(super) fn note(&mut self, line: impl FnOnce(&World) -> String) {
        if self.tracing {
            let line = format!("{:>6}  {}", self.now, line(self));
            self.trace.push(line);
        }
    }

    pub(super) fn is(&self, rule: Mutant) -> bool {
        self.plan.mutant.is(rule)
    }

    /// The node that an event happens at, if it is one that sleeps with it.
    fn sleeper(&self, event: &Event) -> Option<usize> {
        match *event {
            Event::Deliver { to, .. } | Event::Stale { to, .. } => Some(to),
            Event::Up { node, .. } | Event::Lost { node, .. } | Event::Due { node, .. } => {
                Some(node)
            }
            Event::Next { client } => Some(self.clients[client].home),
            _ => None,
        }
    }

    fn step(&mut self, event: Event) {
        if let Some(node) = self.sleeper(&event).filter(|&node| self.nodes[node].paused) {
            self.kept.push((node, event));
            return;
        }
        match event {
            Event::Next { client } => self.next_request(client),
            Event::Deliver { from, to } => self.arrive(from, to),
            Event::Up { node, peer, link, greeting } => self.come_up(node, peer, link, greeting),
            Event::Lost { node, peer, link } => self.lose_link(node, peer, link),
            Event::Impatient { from, to, link } => self.lose_patience(from, to, link),
            Event::Dial { a, b } => self.dial(a, b),
            Event::Due { node, process, due } => {
                if self.nodes[node].alive && self.nodes[node].process == process {
                    self.act(node, due);
                }
            }
            Event::Fault(fault) => self.befall(fault),
            Event::Start { node } => self.start(node),
            Event::Mend { cuts } => self.mend(&cuts),
            Event::Resume { node } => {
                self.note(|_| format!("{} goes on", place(node)));
                self.nodes[node].paused = false;
                let (woken, kept): (Vec<_>, _) =
                    std::mem::take(&mut self.kept).into_iter().partition(|(at, _)| *at == node);
                self.kept = kept;
                // What waited comes before what arrives now: a link's frames stay in order.
                woken.into_iter().for_each(|(_, event)| self.step(event));
                self.dial_all(node);
            }
            Event::Stale { to, told } => {
                if self.nodes[to].alive {
                    self.note(|_| format!("{} hears again of key {}", place(to), told.key));
                    self.merge(to, &told);
                }
            }
        }
    }

    fn act(&mut self, node: usize, due: Due) {
        match due {
            Due::Awaited(id) => self.give_up_awaited(node, id),
            Due::Forward(id) => self.give_up_forward(node, id),
            Due::Slow(id) => self.operation_slow(node, id),
            Due::Operation(id) => self.operation_late(node, id),
            Due::Greeted => {
                self.become_greeted(node);
            }
            Due::Sync => self.sync(node),
            Due::HandOn => self.hand_on(node),
            Due::WriteOut => self.nodes[node].disk.write_out(),
            Due::Exchange { peer, number } => self.exchange_stuck(node, peer, number),
            Due::Answered { peer, vnode, number } => self.answer_stuck(node, peer, vnode, number),
            Due::Rested { peer, vnode } => {
                self.nodes[node].peers[peer].resting &= !(1 << vnode);
                self.exchange_next(node, peer);
            }
            Due::Pump { peer } => {
                self.nodes[node].peers[peer].pumping = false;
                self.pump(node, peer);
            }
            Due::Steer { peer } => self.steer(node, peer, Steering::on_tick),
            Due::Refused { peer } => self.find_refused(node, peer),
        }
    }
}

/// A node's name in a trace.
pub(super) fn place(node: usize) -> String {
    format!("n{}", node + 1)
}
