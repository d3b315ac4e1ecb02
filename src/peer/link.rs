//! All links of a node: one TCP connection a pair, which the node with the lower id dials.
//!
//! ```text
//!  dial task (a higher peer)          accept task
//!    connect, shake hands               one task a connection: shake hands
//!    sit, read until down               sit, read until down
//!    wait a little, again
//! ```
//!
//! The task that shook hands reads the link; a second one writes it. Nothing here decides what a
//! message means: the [`Inbox`] does.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::base::id::{Boot, NodeId};

use super::counters::{Count, Counters};
use super::gossip_link::GossipLinks;
use super::handshake::{self, Proved};
use super::hello::{Channel, HelloError, Remote};
use super::inbox::Inbox;
use super::options::Options;
use super::outbox::Outbox;
use super::own::Own;
use super::reader::Reader;
use super::seat::{Seat, Sitting, Turn};
use super::state::{DownReason, LinkState};
use super::writer;

/// How long a closing link may take to send what waits.
const FAREWELL_MAX: Duration = Duration::from_millis(500);

/// How long [`Links::shutdown`] waits for all tasks.
const SHUTDOWN_MAX: Duration = Duration::from_secs(2);

/// How long to rest after the system refused to accept (too many open files, mostly).
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// All links of one node. Clones are the same links.
#[derive(Clone)]
pub struct Links {
    shared: Arc<Shared>,
}

struct Shared {
    options: Options,
    own: Arc<Own>,
    gossip: GossipLinks,
    inbox: Arc<dyn Inbox>,
    seats: BTreeMap<NodeId, Arc<Seat>>,
    strangers: Arc<Semaphore>,
    strangers_refused: Count,
    stop: watch::Sender<bool>,
    tasks: Mutex<JoinSet<()>>,
}

impl Links {
    /// Starts to accept on `listener` and to dial every member with a higher id; call it on the
    /// runtime. The links live until [`Links::shutdown`].
    ///
    /// # Errors
    /// The system gives no randomness or no thread. Nothing was started.
    pub fn start(
        options: Options,
        inbox: Arc<dyn Inbox>,
        listener: TcpListener,
    ) -> io::Result<Links> {
        let own = Arc::new(Own::new(&options)?);
        let gossip = GossipLinks::start(&options, Arc::clone(&own), Arc::clone(&inbox))?;
        let peers = options.members.iter().filter(|&(&node, _)| node != options.node);
        let seats = peers.map(|(&node, at)| (node, Arc::new(Seat::new(node, at.clone()))));
        let shared = Arc::new(Shared {
            own,
            gossip,
            inbox,
            seats: seats.collect(),
            strangers: Arc::new(Semaphore::new(options.strangers_max)),
            strangers_refused: Count::default(),
            stop: watch::Sender::new(false),
            tasks: Mutex::default(),
            options,
        });
        let mut tasks = shared.tasks.lock();
        tasks.spawn(accept_all(Arc::clone(&shared), listener));
        for (_, seat) in shared.seats.range(shared.options.node..) {
            tasks.spawn(dial_always(Arc::clone(&shared), Arc::clone(seat)));
        }
        drop(tasks);
        Ok(Links { shared })
    }

    /// The outbox of the link to `node`, while there is one.
    pub fn outbox(&self, node: NodeId) -> Option<Arc<Outbox>> {
        self.shared.seats.get(&node)?.outbox()
    }

    /// Whether there is a link to `node`.
    pub fn is_up(&self, node: NodeId) -> bool {
        self.shared.seats.get(&node).is_some_and(|seat| seat.is_up())
    }

    /// What the link to `node` is; `None` for strangers and this node itself.
    pub fn state(&self, node: NodeId) -> Option<LinkState> {
        Some(self.shared.seats.get(&node)?.state())
    }

    /// What the links to `node` have done; `None` for strangers and this node itself.
    pub fn counters(&self, node: NodeId) -> Option<&Counters> {
        Some(&self.shared.seats.get(&node)?.counters)
    }

    /// All peers, linked or not, in the order of their ids.
    pub fn peers(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.shared.seats.keys().copied()
    }

    /// The connections that are for gossip alone.
    pub fn gossip(&self) -> &GossipLinks {
        &self.shared.gossip
    }

    /// Connections that were refused before they proved anything.
    pub fn strangers_refused(&self) -> u64 {
        self.shared.strangers_refused.read()
    }

    /// This node begins a new life: links that come up from now on say so.
    pub fn set_boot(&self, boot: Boot) {
        self.shared.own.set_boot(boot);
    }

    /// Sends what waits, closes all links, and waits until their tasks are gone; no longer than
    /// two seconds. A second call does nothing.
    pub async fn shutdown(&self) {
        self.shared.stop.send_replace(true);
        self.shared.seats.values().for_each(|seat| seat.stop());
        let mut tasks = std::mem::take(&mut *self.shared.tasks.lock());
        let _ = timeout(SHUTDOWN_MAX, async { while tasks.join_next().await.is_some() {} }).await;
        tasks.shutdown().await;
        self.shared.gossip.shutdown().await;
    }
}

impl Shared {
    async fn stopped(&self) {
        // The sender lives as long as `self`.
        let _ = self.stop.subscribe().wait_for(|stop| *stop).await;
    }

    fn outbox_to(&self, node: NodeId) -> Arc<Outbox> {
        let Options { outbox_bytes_max, frame_size_max, .. } = self.options;
        Arc::new(Outbox::new(node, outbox_bytes_max, frame_size_max))
    }

    fn sit(
        &self,
        seat: &Arc<Seat>,
        turn: Turn,
        remote: &Remote,
        greeting: &[u8],
    ) -> Result<Sitting, HelloError> {
        let (outbox, inbox) = (self.outbox_to(seat.node), Arc::clone(&self.inbox));
        seat.sit(turn, remote, greeting, outbox, inbox)
    }

    /// Reads and writes a link until it is down; says whether anything ever arrived.
    async fn run(&self, sitting: Sitting, socket: TcpStream) -> bool {
        let seat = sitting.seat();
        tracing::info!(peer = %seat.node, "link up");
        let bytes_before = seat.counters.bytes_in.read();
        let (mut reading, writing) = socket.into_split();
        // A set, because it ends its task when this one ends, however that may be.
        let mut writer = JoinSet::new();
        writer.spawn(write(writing, Arc::clone(seat), Arc::clone(&sitting.outbox)));
        let reader = Reader {
            peer: seat.node,
            inbox: sitting.inbox(),
            outbox: &sitting.outbox,
            counters: &seat.counters,
            frame_size_max: self.options.frame_size_max,
            ping_every: self.options.ping_every,
            silence_max: self.options.silence_max,
        };
        let reason = reader.read_all(&mut reading).await;
        if reason == DownReason::Asked {
            let _ = timeout(FAREWELL_MAX, writer.join_next()).await;
        }
        tracing::info!(peer = %seat.node, %reason, "link down");
        sitting.outbox.close(reason);
        seat.counters.bytes_in.read() > bytes_before
    }
}

async fn write(mut socket: OwnedWriteHalf, seat: Arc<Seat>, outbox: Arc<Outbox>) {
    let written = writer::write_all(&mut socket, &outbox, &seat.counters).await;
    if let Err(error) = written {
        outbox.close(DownReason::Broken(error.kind()));
    }
}

async fn dial_always(shared: Arc<Shared>, seat: Arc<Seat>) {
    let Options { redial_min, redial_max, .. } = shared.options;
    let mut wait = redial_min;
    loop {
        let attempt = tokio::select! {
            biased;
            () = shared.stopped() => return,
            attempt = dial(&shared, &seat) => attempt,
        };
        match attempt {
            Ok((sitting, socket)) => {
                if shared.run(sitting, socket).await {
                    wait = redial_min;
                }
            }
            Err(reason) => {
                if seat.attempt_failed(&reason) {
                    tracing::warn!(peer = %seat.node, at = seat.address, %reason, "no link");
                }
                shared.inbox.unreachable(seat.node, &reason);
            }
        }
        tokio::select! {
            () = shared.stopped() => return,
            () = sleep(wait.mul_f64(0.5 + fastrand::f64() / 2.0)) => (),
        }
        wait = (wait * 2).min(redial_max);
    }
}

async fn dial(shared: &Shared, seat: &Arc<Seat>) -> Result<(Sitting, TcpStream), DownReason> {
    let limit = shared.options.handshake_max;
    let connected = timeout(limit, TcpStream::connect(&seat.address)).await;
    let mut socket = match connected.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into())) {
        Ok(socket) => socket,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            return Err(DownReason::ConnectionRefused);
        }
        Err(error) => return Err(DownReason::Unreachable(error.kind())),
    };
    let met = timeout(limit, call(shared, seat, &mut socket)).await;
    match met.unwrap_or(Err(HelloError::Timeout)) {
        Ok(sitting) => Ok((sitting, socket)),
        Err(error) => {
            let _ = timeout(FAREWELL_MAX, handshake::refuse(&mut socket, &error)).await;
            Err(DownReason::Handshake(error))
        }
    }
}

/// The dialer's handshake.
async fn call(
    shared: &Shared,
    seat: &Arc<Seat>,
    socket: &mut TcpStream,
) -> Result<Sitting, HelloError> {
    socket.set_nodelay(true).map_err(|error| HelloError::Io(error.kind()))?;
    let (me, nonce) = (shared.own.identity(), shared.own.nonce());
    let ours = shared.inbox.greeting(seat.node);
    let (remote, theirs) =
        handshake::dial(socket, &me, seat.node, Channel::Data, nonce, &ours).await?;
    let turn = seat.admit(&remote).await?;
    shared.sit(seat, turn, &remote, &theirs)
}

async fn accept_all(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.stopped() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((socket, from)) = accepted else {
            sleep(ACCEPT_REST).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&shared.strangers).try_acquire_owned() else {
            shared.strangers_refused.add(1);
            tracing::debug!(%from, "too many strangers");
            continue;
        };
        let mut tasks = shared.tasks.lock();
        while tasks.try_join_next().is_some() {}
        // Asked under the lock under which a shutdown takes the tasks: none is left behind.
        if *shared.stop.borrow() {
            return;
        }
        tasks.spawn(accept(Arc::clone(&shared), socket, permit));
    }
}

async fn accept(shared: Arc<Shared>, mut socket: TcpStream, permit: OwnedSemaphorePermit) {
    let met = tokio::select! {
        biased;
        () = shared.stopped() => return,
        met = timeout(shared.options.handshake_max, answer(&shared, &mut socket)) => met,
    };
    match met.unwrap_or(Err(HelloError::Timeout)) {
        Ok(Met::Data(sitting)) => {
            drop(permit);
            shared.run(sitting, socket).await;
        }
        Ok(Met::Gossip(from)) => shared.gossip.accept(from, socket),
        Err(error) => {
            shared.strangers_refused.add(1);
            tracing::debug!(%error, "a connection was refused");
            let _ = timeout(FAREWELL_MAX, handshake::refuse(&mut socket, &error)).await;
        }
    }
}

/// What a connection that was accepted turned out to be for.
enum Met {
    Data(Sitting),
    Gossip(NodeId),
}

/// The acceptor's handshake.
async fn answer(shared: &Shared, socket: &mut TcpStream) -> Result<Met, HelloError> {
    socket.set_nodelay(true).map_err(|error| HelloError::Io(error.kind()))?;
    let (me, nonce) = (shared.own.identity(), shared.own.nonce());
    let is_member = |node| shared.seats.contains_key(&node);
    let proved = handshake::hear(socket, &me, is_member, nonce).await?;
    let remote = proved.remote;
    let seat = shared.seats.get(&remote.node).ok_or(HelloError::UnknownNode(remote.node))?;
    if remote.channel == Channel::Gossip {
        proved.accept(socket, &[]).await?;
        return Ok(Met::Gossip(remote.node));
    }
    let welcomed = welcome(shared, seat, &proved, socket).await;
    if let Err(error) = &welcomed {
        seat.attempt_failed(&DownReason::Handshake(error.clone()));
    }
    welcomed.map(Met::Data)
}

/// Seats a dialer that has proved itself, then proves this node.
async fn welcome(
    shared: &Shared,
    seat: &Arc<Seat>,
    proved: &Proved,
    socket: &mut TcpStream,
) -> Result<Sitting, HelloError> {
    let turn = seat.admit(&proved.remote).await?;
    let greeting = shared.inbox.greeting(seat.node);
    let sitting = shared.sit(seat, turn, &proved.remote, &proved.greeting)?;
    proved.accept(socket, &greeting).await?;
    Ok(sitting)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
