//! The shell of one node: tasks, clock and wiring. It decides nothing; the machines below do.
//!
//! ```text
//!  session ──► execute ──► keyspace (one vnode's lock)          link ──► inbox
//!                 │             │                                          │
//!                 │         records ──► outgoing ──► flush ──► outboxes    │ Rep: merge
//!                 ▼                                    │                   │ RepAck: inflight
//!              replies ◄── settle ◄── inflight ◄───────┘◄──────────────────┘ Fwd: execute
//! ```
//!
//! Invariant: no lock of a vnode, stream or table of what is under way is held over an await, and
//! nothing here awaits while it handles a batch.

pub mod batch;
pub mod damage;
pub mod engine;
pub mod everywhere;
pub mod execute;
pub mod explain;
pub mod members;
pub mod replies;

mod cold;
mod commit;
mod exchange;
mod expiry;
mod gather;
mod handoff;
mod inbox;
mod inflight;
mod looked;
mod parts;
mod quorum;
mod repair;
mod routes;
mod row;
mod shipping;
mod slab;
mod streams;
mod tending;
mod unsettled;
mod upkeep;
mod waiting;
mod writing;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;
use tokio::net::TcpListener;

use crate::anti_entropy::recovery::Recovery;
use crate::base::hash::HashSeed;
use crate::base::id::{Actor, Boot, NodeId, Slot, VnodeId};
use crate::base::time::UnixMs;
use crate::coordinator::contract::Quorum;
use crate::coordinator::route::Reach;
use crate::membership::lives::{Lives, Met};
use crate::metrics::counters::Metrics;
use crate::peer;
use crate::peer::link::Links;
use crate::peer::outbox::Outbox;
use crate::peer::paced::Paced;
use crate::peer::stream::{Bounds, Incoming};
use crate::resp::reply::Reply;
use crate::resp::scanner::Scanner;
use crate::ring::slot::slot_of;
use crate::ring::topology::Topology;
use crate::storage::keyspace::Keyspace;
use crate::storage::life::Life;
use crate::storage::log::Log;

use batch::{Batch, Origin};
use cold::ColdRequests;
use damage::{Damaged, Losses};
use engine::Engine;
use exchange::Exchanges;
use execute::{Request, Submitted};
use handoff::Hints;
use inflight::{Inflight, Stream};
use members::Members;
use replies::Replies;
use routes::Routes;
use unsettled::Unsettled;
use waiting::Waiting;

/// How long a starting node waits to hear from its peers before it serves.
const GREETING_WAIT: Duration = Duration::from_secs(1);

/// How often what has waited too long, and keys that have expired, are looked for.
const TICK: Duration = Duration::from_millis(50);

/// Ticks between two looks at the engine's counts: what it takes to gather them is not nothing.
const COUNT_EVERY: u32 = 10;

/// What a node must be told before it can start.
#[derive(Clone, Debug)]
pub struct Options {
    /// This node.
    pub node: NodeId,
    /// Who the members are and who holds what.
    pub topology: Topology,
    /// The cluster's shared secret.
    pub secret: Vec<u8>,
    /// How long a request may wait for peers, in milliseconds.
    pub request_timeout_ms: u32,
    /// Serve vnodes whose log lost records although no replica can restore them.
    pub accept_damage: bool,
    /// What is kept for a peer that does not acknowledge.
    pub stream_backlog: Bounds,
    /// The most that a segment of the log takes, in bytes.
    pub segment_size: u32,
    /// In how many milliseconds each vnode is compared once with each other replica; 0: only when
    /// something may have been missed.
    pub exchange_interval_ms: u64,
    /// The most bytes a second that exchanges send to all peers together; 0: no limit.
    pub exchange_rate: u64,
    /// The most bytes that this node holds for others that are away.
    pub hints_max: u64,
}

/// One member as this node sees it.
#[derive(Debug)]
struct Peer {
    outbox: RwLock<Option<Arc<Outbox>>>,
    stream: Stream,
    incoming: Mutex<Incoming>,
    /// Whether it was given up while others that may know of its last changes were gone, too.
    unresolved: AtomicBool,
    reader: Mutex<Option<Reader>>,
    /// Whether a link was ever up in this process.
    met: AtomicBool,
    /// The start of this node that the link at hand, or in the making, was told of.
    told_start: AtomicU32,
    exchange: exchange::Mailbox,
    /// How fast it is sent what its clients do not wait for.
    paced: Arc<Paced>,
}

/// The buffers of one link's reader task.
#[derive(Debug)]
struct Reader {
    batch: Batch,
    scanner: Scanner,
    reply: Reply,
    /// Whether the peer was told at this link's start that this node counts in nothing because it
    /// cannot keep changes.
    told_ignoring: bool,
    /// Whether the batch must be acknowledged although no change is in it.
    must_ack: bool,
    /// The peer's life, and what it knows of others', until it speaks.
    greeted: Option<(Met, Lives)>,
}

impl Peer {
    fn new(bounds: Bounds) -> Peer {
        Peer {
            outbox: RwLock::default(),
            stream: Stream::new(bounds),
            incoming: Mutex::default(),
            unresolved: AtomicBool::new(false),
            reader: Mutex::default(),
            met: AtomicBool::new(false),
            told_start: AtomicU32::new(0),
            exchange: exchange::Mailbox::default(),
            paced: Arc::default(),
        }
    }

    fn outbox(&self) -> Option<Arc<Outbox>> {
        self.outbox.read().clone()
    }
}

/// One running node.
pub struct Node {
    options: Options,
    /// This run of the process, at random: whose streams it sends.
    run: u64,
    actor: AtomicU32,
    life: Arc<Life>,
    /// Held while a link comes up, so that all links know of the same life.
    coming_up: Mutex<()>,
    topology: Topology,
    routes: Routes,
    quorum: Quorum,
    keyspace: Arc<Keyspace>,
    log: Option<Arc<Log>>,
    cold: ColdRequests,
    damaged: Damaged,
    /// Whether the log takes nothing, so that peers' changes are not kept.
    ignoring: AtomicBool,
    /// Whether the folder is about to hear that nothing is lost any more.
    mending: AtomicBool,
    /// Whether it was away, and is not back among those that count.
    returning: AtomicBool,
    /// Whether the peers were heard from, or waited for in vain.
    greeted: AtomicBool,
    own: Weak<Node>,
    inflight: Inflight,
    operations: quorum::Operations,
    unsettled: Unsettled,
    waiting: Arc<Waiting>,
    recovery: Mutex<Recovery>,
    members: Members,
    exchanges: Exchanges,
    hints: Hints,
    peers: Box<[Peer]>,
    links: OnceLock<Links>,
    metrics: Metrics,
    engine: Engine,
    started: UnixMs,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Node({})", self.options.node)
    }
}

/// The seed of the cluster's key hashes.
pub fn hash_seed(secret: &[u8]) -> HashSeed {
    let seed = blake3::derive_key("kvorum 2026-11 hash seed", secret);
    HashSeed(u64::from_le_bytes(seed[..8].try_into().expect("eight bytes")))
}

/// The wall clock.
pub fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(since.as_millis() as u64)
}

impl Node {
    /// A node that knows nothing yet and talks to nobody. Without a log it keeps values in memory
    /// only.
    pub fn new(options: Options, log: Option<Arc<Log>>, life: Arc<Life>) -> Arc<Node> {
        let topology = options.topology.clone();
        let routes = Routes::new(&topology, options.node);
        let contract = topology.contract();
        let quorum = Quorum::new(contract.n() as u8, contract.r() as u8, contract.w() as u8)
            .expect("a topology's contract is checked");
        let seed = hash_seed(&options.secret);
        let has_log = log.is_some();
        let keyspace = match &log {
            Some(log) => Keyspace::with_log(topology.vnodes(), seed, log.clone()),
            None => Keyspace::new(topology.vnodes(), seed),
        };
        let keyspace = Arc::new(keyspace);
        let me = routes.me();
        let nodes: Vec<NodeId> = (0..routes.members()).map(|at| routes.node(at as u8)).collect();
        let started = now();
        for v in 0..topology.vnodes() {
            let vnode = VnodeId(v);
            let replicas = routes.replicas(vnode);
            keyspace.set_sole(vnode, replicas.len() == 1 && replicas.contains(&me));
        }
        Arc::new_cyclic(|own| Node {
            run: fastrand::u64(1..),
            actor: AtomicU32::new(Actor::new(options.node, life.boot()).0),
            life,
            coming_up: Mutex::default(),
            quorum,
            keyspace,
            log,
            cold: ColdRequests::default(),
            damaged: Damaged::new(topology.vnodes()),
            ignoring: AtomicBool::new(false),
            mending: AtomicBool::new(false),
            returning: AtomicBool::new(false),
            greeted: AtomicBool::new(false),
            own: own.clone(),
            inflight: Inflight::default(),
            operations: quorum::Operations::default(),
            unsettled: Unsettled::new(topology.vnodes(), routes.members()),
            waiting: Arc::default(),
            recovery: Mutex::default(),
            members: Members::new(options.node, &nodes, started),
            peers: (0..routes.members()).map(|_| Peer::new(options.stream_backlog)).collect(),
            exchanges: Exchanges::new(options.exchange_interval_ms, options.exchange_rate),
            hints: Hints::default(),
            links: OnceLock::new(),
            metrics: Metrics::default(),
            engine: Engine::new(has_log),
            started,
            routes,
            topology,
            options,
        })
    }

    /// Begins to talk to the peers, and returns when they were heard from or do not answer.
    /// `losses`: what this node may have lost since it last ran.
    ///
    /// # Errors
    /// The system gives no randomness. Nothing was started.
    pub async fn start(
        self: &Arc<Node>,
        peer_listener: TcpListener,
        losses: &Losses,
    ) -> std::io::Result<()> {
        self.note_damage(losses);
        self.returning.store(losses.away || self.is_unmet(), Ordering::Release);
        self.begin_recovery(losses);
        let members = self.topology.members().iter();
        let addresses = members.map(|m| (m.node, format!("{}:{}", m.host, m.peer_port))).collect();
        let options = peer::options::Options::new(
            self.options.node,
            self.boot(),
            self.topology.cluster(),
            self.options.secret.clone(),
            addresses,
        );
        let inbox = Arc::new(inbox::NodeInbox(self.clone()));
        let links = Links::start(options, inbox, peer_listener)?;
        assert!(self.links.set(links).is_ok(), "a node starts once");
        self.spawn_gossip();
        self.spawn_exchanges();
        let handing_on = self.clone();
        tokio::spawn(async move { handing_on.hand_on_always().await });
        let tending = self.clone();
        tokio::spawn(async move { tending.tend_trees_always().await });
        let ticking = self.clone();
        tokio::spawn(async move { ticking.tick_always().await });
        let expiring = self.clone();
        tokio::spawn(async move { expiring.expire_always().await });
        self.hear_from_peers().await;
        self.pass_by_absent();
        self.greeted.store(true, Ordering::Release);
        self.watch_return();
        self.engine.loading.store(false, Ordering::Release);
        Ok(())
    }

    async fn hear_from_peers(&self) {
        let deadline = tokio::time::Instant::now() + GREETING_WAIT;
        let all_met = || {
            let me = usize::from(self.routes.me());
            let met = |peer: &Peer| peer.met.load(Ordering::Acquire);
            self.peers.iter().enumerate().all(|(index, peer)| index == me || met(peer))
        };
        while !all_met() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Closes all links after sending what waits.
    pub async fn shutdown(&self) {
        self.release_waits().await;
        self.say_goodbye();
        if let Some(links) = self.links.get() {
            links.shutdown().await;
        }
    }

    async fn tick_always(self: &Arc<Node>) {
        let mut batch = self.batch();
        let mut ticks = tokio::time::interval(TICK);
        for beat in 0u32.. {
            ticks.tick().await;
            self.begin(&mut batch);
            self.expire_inflight(&mut batch);
            self.expire_operations(&mut batch);
            self.tend_waits(&mut batch);
            self.watch_log();
            self.tick_streams();
            self.watch_return();
            self.watch_recovery();
            self.watch_memory();
            if beat.is_multiple_of(COUNT_EVERY) {
                self.count_upkeep();
            }
            // Whoever waits is told by the next deadline.
            let _ = self.conclude(&mut batch).await;
        }
    }

    /// A batch for one task.
    pub fn batch(&self) -> Batch {
        Batch::new(self.routes.members())
    }

    /// Begins a batch: takes the time.
    pub fn begin(&self, batch: &mut Batch) {
        batch.now = now();
    }

    /// Runs a client's request. Either the reply is in `out` now, or it will come to the next
    /// place of `replies`.
    pub fn submit(
        &self,
        batch: &mut Batch,
        request: &Request<'_>,
        out: &mut Reply,
        replies: &Arc<Replies>,
    ) -> Submitted {
        let place = || Origin::Session { replies: replies.clone(), place: replies.reserve() };
        let outcome = self.execute(batch, request, out, place);
        self.serve_ready(batch);
        outcome.into()
    }

    /// Fetches what requests for these keys will touch, before the first of them is run. The keys'
    /// slots are the answer, for the requests.
    pub fn approach<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) -> SmallVec<[Slot; 32]> {
        let seed = self.keyspace.seed();
        let mut slots = SmallVec::<[Slot; 32]>::new();
        let mut places: SmallVec<[(VnodeId, u64); 32]> = SmallVec::new();
        let mut last: &[u8] = &[];
        for key in keys {
            if key == last
                && let Some(&slot) = slots.last()
            {
                slots.push(slot);
                continue;
            }
            let slot = slot_of(key);
            slots.push(slot);
            if !key.is_empty() {
                places.push((self.topology.vnode_of(slot), seed.key(key)));
            }
            last = key;
        }
        match places[..] {
            [] => {}
            // Its place is fetched while it is routed; to look for its block now would be to wait.
            [(vnode, hash)] => self.keyspace.approach_place(vnode, hash),
            _ => self.keyspace.approach(&places),
        }
        slots
    }

    fn deadline(&self, now: UnixMs) -> UnixMs {
        UnixMs(now.0 + u64::from(self.options.request_timeout_ms))
    }

    fn actor(&self) -> Actor {
        Actor(self.actor.load(Ordering::Acquire))
    }

    /// Vnodes of which something may be lost count in nothing until peers have restored them.
    fn begin_recovery(&self, losses: &Losses) {
        let me = self.routes.me();
        if !losses.is_none() {
            // What the peers' streams brought may be lost with it.
            self.peers.iter().for_each(|peer| peer.incoming.lock().owe());
        }
        self.exchanges.on_recovery();
        let mut recovery = self.recovery.lock();
        for vnode in self.held_vnodes().filter(|&vnode| losses.concerns(vnode)) {
            let others = self.routes.replicas(vnode).iter().filter(|&&peer| peer != me);
            let others: Vec<NodeId> = others.map(|&peer| self.routes.node(peer)).collect();
            recovery.begin(vnode, &others, self.quorum.w);
        }
        self.metrics.recovering_vnodes.set(recovery.vnodes().count() as u64);
        drop(recovery);
        self.steer_own();
    }

    fn held_vnodes(&self) -> impl Iterator<Item = VnodeId> + '_ {
        let me = self.routes.me();
        (0..self.routes.vnodes()).map(VnodeId).filter(move |&v| self.routes.holds(v, me))
    }

    /// This node.
    pub fn id(&self) -> NodeId {
        self.options.node
    }

    /// This node's life.
    pub fn boot(&self) -> Boot {
        self.actor().boot()
    }

    /// Members, vnodes and who holds them.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The keys of this node.
    pub fn keyspace(&self) -> &Arc<Keyspace> {
        &self.keyspace
    }

    /// Counters of this node.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The links to the peers, once the node has started.
    pub fn links(&self) -> Option<&Links> {
        self.links.get()
    }

    /// The contract of the default keyspace, capped by the number of nodes.
    pub fn quorum(&self) -> Quorum {
        self.quorum
    }

    /// When this node was made.
    pub fn started(&self) -> UnixMs {
        self.started
    }

    /// What is believed of a member.
    pub fn reach(&self, node: NodeId) -> Reach {
        self.routes.index(node).map_or(Reach::Down, |peer| self.routes.reach(peer))
    }

    /// Who coordinates a vnode now; `None`: nobody can.
    pub fn coordinator(&self, vnode: VnodeId) -> Option<NodeId> {
        self.routes.standing(vnode).coordinator.map(|peer| self.routes.node(peer))
    }

    /// How many vnodes this node has to compare with a peer before it may answer for them alone.
    pub fn vnodes_unsettled(&self) -> usize {
        self.held_vnodes().filter(|&vnode| self.unsettled.contains(vnode)).count()
    }

    /// How many vnodes of this node do not count yet.
    pub fn vnodes_recovering(&self) -> usize {
        self.recovery.lock().vnodes().count()
    }
}
