//! Connections for gossip alone, on a thread of their own.
//!
//! ```text
//!  main runtime            gossip thread (one, with a runtime of its own)
//!    accept, shake hands ───► read until closed ──► Inbox::gossip
//!                             dial each peer ─────► Inbox::refused
//!    send ──► socket          watch for the end, dial again
//! ```
//!
//! A heartbeat tells something only if it comes in time. On the data link it would wait behind
//! megabytes of changes, and on the main runtime behind whatever its threads are busy with. So
//! each node dials a connection of its own to every peer and only writes there; the acceptor only
//! reads. What comes, and the membership machine's own ticks ([`GossipLinks::runtime`]), run on
//! this thread.
//!
//! Invariants: rounds never wait for each other. One that the socket does not take at once is
//! dropped, for the next one says more; only the rest of one that was begun is kept. The socket's
//! buffers are small for the same reason. A connection that the network does not confirm is given
//! up and dialed anew, because TCP would wait longer and longer between its own attempts.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, ErrorKind};
use std::net::TcpStream as StdStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use socket2::SockRef;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::base::id::NodeId;
use crate::base::limits::GOSSIP_SIZE_MAX;

use super::counters::Count;
use super::frame::{self, Batch};
use super::handshake;
use super::hello::{Channel, HelloError};
use super::inbox::Inbox;
use super::message::Message;
use super::options::Options;
use super::own::Own;

/// What the system may hold of gossip in each direction, in bytes: some rounds, not some minutes.
const SOCKET_BUFFER_SIZE: usize = 8 << 10;

/// Longest frame: a round and its kind.
const FRAME_SIZE_MAX: usize = GOSSIP_SIZE_MAX + 1;

/// A connection that brings nothing for this long is closed; its dialer dials again when it has
/// something to say.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// What became of a round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sent {
    /// The system has taken it.
    Taken,
    /// The socket is full: it was dropped.
    Dropped,
    /// There is no connection: it was dropped.
    NoLink,
}

/// What gossip with one peer has come to so far.
#[derive(Debug, Default)]
pub struct GossipCounters {
    /// Rounds that the system has taken.
    pub sent: Count,
    /// Rounds that were dropped because an earlier one was in the way, or no connection there.
    pub dropped: Count,
    /// Rounds that came.
    pub received: Count,
    /// Attempts to dial that nobody listened to.
    pub refused: Count,
}

/// The gossip connections of one node. Dropping it ends them.
#[derive(Debug)]
pub struct GossipLinks {
    peers: BTreeMap<NodeId, Arc<Peer>>,
    accepted: mpsc::UnboundedSender<(NodeId, StdStream)>,
    runtime: Handle,
    stop: watch::Sender<bool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Peer {
    node: NodeId,
    address: String,
    counters: GossipCounters,
    sending: Mutex<Option<Sending>>,
}

/// The connection that this node has dialed.
#[derive(Debug)]
struct Sending {
    socket: Arc<TcpStream>,
    /// What the socket has not taken yet of a round that was begun.
    rest: BytesMut,
}

/// What the gossip thread needs.
struct Shared {
    options: Options,
    own: Arc<Own>,
    inbox: Arc<dyn Inbox>,
}

impl GossipLinks {
    /// Starts the thread, which dials every other member of `options`.
    ///
    /// # Errors
    /// The system gives no thread or no runtime. Nothing was started.
    pub fn start(
        options: &Options,
        own: Arc<Own>,
        inbox: Arc<dyn Inbox>,
    ) -> io::Result<GossipLinks> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let others = options.members.iter().filter(|&(&node, _)| node != options.node);
        let peers: BTreeMap<NodeId, Arc<Peer>> =
            others.map(|(&node, address)| (node, Arc::new(Peer::new(node, address)))).collect();
        let (accepted, arriving) = mpsc::unbounded_channel();
        let (stop, stopping) = watch::channel(false);
        let shared = Arc::new(Shared { options: options.clone(), own, inbox });
        let all = peers.clone();
        let thread = thread::Builder::new()
            .name("gossip".to_owned())
            .spawn(move || run(&runtime, &shared, &all, arriving, stopping))?;
        let thread = Mutex::new(Some(thread));
        Ok(GossipLinks { peers, accepted, runtime: handle, stop, thread })
    }

    /// Sends one round, at most [`GOSSIP_SIZE_MAX`] bytes, or drops it. Never waits; may be called
    /// on any thread.
    pub fn send(&self, to: NodeId, body: &[u8]) -> Sent {
        assert!(body.len() <= GOSSIP_SIZE_MAX, "a round of gossip is short");
        self.peers.get(&to).map_or(Sent::NoLink, |peer| peer.send(body))
    }

    /// Where to run what must not wait for anything else: the gossip thread's runtime.
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// What was sent to and heard from `node`; `None` for strangers and this node itself.
    pub fn counters(&self, node: NodeId) -> Option<&GossipCounters> {
        Some(&self.peers.get(&node)?.counters)
    }

    /// Whether this node's own connection to `node` is there.
    pub fn is_up(&self, node: NodeId) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.sending.lock().is_some())
    }

    /// Takes over a connection that `from` has dialed for gossip, and has proved itself on.
    pub(super) fn accept(&self, from: NodeId, socket: TcpStream) {
        // A socket that cannot change its runtime is dropped, and dialed again.
        if let Ok(socket) = socket.into_std() {
            let _ = self.accepted.send((from, socket));
        }
    }

    /// Closes all connections and ends the thread. A second call does nothing.
    pub(super) async fn shutdown(&self) {
        self.stop.send_replace(true);
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            // A panic there was told by the thread.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

impl Peer {
    fn new(node: NodeId, address: &str) -> Peer {
        let address = address.to_owned();
        Peer { node, address, counters: GossipCounters::default(), sending: Mutex::new(None) }
    }

    fn send(&self, body: &[u8]) -> Sent {
        let mut sending = self.sending.lock();
        let sent = match sending.as_mut().map(|sending| sending.send(body)) {
            None => Sent::NoLink,
            Some(Ok(sent)) => sent,
            Some(Err(_)) => {
                // The task that dialed sees the same and dials again.
                *sending = None;
                Sent::NoLink
            }
        };
        drop(sending);
        let count = if sent == Sent::Taken { &self.counters.sent } else { &self.counters.dropped };
        count.add(1);
        sent
    }
}

impl Sending {
    fn send(&mut self, body: &[u8]) -> io::Result<Sent> {
        self.write()?;
        if !self.rest.is_empty() {
            return Ok(Sent::Dropped);
        }
        let mut round = BytesMut::new();
        Message::Gossip { body }.encode(&mut round);
        self.rest.extend_from_slice(&frame::head(&round));
        self.rest.extend_from_slice(&round);
        let whole = self.rest.len();
        self.write()?;
        if self.rest.len() < whole {
            return Ok(Sent::Taken);
        }
        self.rest.clear();
        Ok(Sent::Dropped)
    }

    fn write(&mut self) -> io::Result<()> {
        while !self.rest.is_empty() {
            match self.socket.try_write(&self.rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.rest.advance(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The gossip thread.
fn run(
    runtime: &Runtime,
    shared: &Arc<Shared>,
    peers: &BTreeMap<NodeId, Arc<Peer>>,
    mut arriving: mpsc::UnboundedReceiver<(NodeId, StdStream)>,
    mut stopping: watch::Receiver<bool>,
) {
    runtime.block_on(async {
        for peer in peers.values() {
            tokio::spawn(dial_always(Arc::clone(shared), Arc::clone(peer)));
        }
        let mut readers: HashMap<NodeId, AbortHandle> = HashMap::new();
        loop {
            let (from, socket) = tokio::select! {
                biased;
                // An error says that nobody holds these links any more.
                _ = stopping.wait_for(|stop| *stop) => return,
                Some(arrived) = arriving.recv() => arrived,
            };
            let Some(peer) = peers.get(&from) else { continue };
            let reading = tokio::spawn(read_all(Arc::clone(shared), Arc::clone(peer), socket));
            // A node has one connection: it dials again only when the last one was lost.
            if let Some(old) = readers.insert(from, reading.abort_handle()) {
                old.abort();
            }
        }
    });
}

async fn dial_always(shared: Arc<Shared>, peer: Arc<Peer>) {
    let (redial_min, redial_max) = (shared.options.redial_min, shared.options.redial_max);
    let mut wait = redial_min;
    loop {
        match dial(&shared, &peer).await {
            Ok(socket) => {
                let socket = Arc::new(socket);
                let sending = Sending { socket: Arc::clone(&socket), rest: BytesMut::new() };
                *peer.sending.lock() = Some(sending);
                watch_end(&socket).await;
                *peer.sending.lock() = None;
                // Whether its process is gone shows at once: by a refusal, or by none.
                wait = redial_min;
                continue;
            }
            Err(HelloError::Io(ErrorKind::ConnectionRefused)) => {
                peer.counters.refused.add(1);
                shared.inbox.refused(peer.node);
            }
            Err(reason) => tracing::debug!(peer = %peer.node, %reason, "no gossip link"),
        }
        sleep(wait.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        wait = (wait * 2).min(redial_max);
    }
}

async fn dial(shared: &Shared, peer: &Peer) -> Result<TcpStream, HelloError> {
    let broken = |error: io::Error| HelloError::Io(error.kind());
    let meet = async {
        let mut socket = TcpStream::connect(&peer.address).await.map_err(broken)?;
        set_up(&socket, shared.options.gossip_silence_max).map_err(broken)?;
        let (me, nonce) = (shared.own.identity(), shared.own.nonce());
        handshake::dial(&mut socket, &me, peer.node, Channel::Gossip, nonce, &[]).await?;
        Ok(socket)
    };
    timeout(shared.options.handshake_max, meet).await.unwrap_or(Err(HelloError::Timeout))
}

/// Small buffers, no waiting for more to send, and an end to what the network does not confirm.
fn set_up(socket: &TcpStream, unconfirmed_max: Duration) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    socket.set_send_buffer_size(SOCKET_BUFFER_SIZE)?;
    socket.set_recv_buffer_size(SOCKET_BUFFER_SIZE)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(unconfirmed_max))?;
    #[cfg(not(target_os = "linux"))]
    let _ = unconfirmed_max;
    Ok(())
}

/// Waits until a connection that only this node writes to is gone.
async fn watch_end(socket: &TcpStream) {
    let mut nothing = [0; 16];
    while socket.readable().await.is_ok() {
        match socket.try_read(&mut nothing) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // Closed, broken, or a peer that says what it should not.
            _ => return,
        }
    }
}

async fn read_all(shared: Arc<Shared>, peer: Arc<Peer>, socket: StdStream) {
    let Ok(mut socket) = TcpStream::from_std(socket) else { return };
    if set_up(&socket, shared.options.gossip_silence_max).is_err() {
        return;
    }
    let mut buffer = BytesMut::with_capacity(SOCKET_BUFFER_SIZE);
    while let Ok(Ok(count)) = timeout(IDLE_MAX, socket.read_buf(&mut buffer)).await {
        if count == 0 || deliver(&shared, &peer, &mut buffer).is_none() {
            break;
        }
    }
}

/// Hands over the rounds that are whole; `None`: the peer talks nonsense.
fn deliver(shared: &Shared, peer: &Peer, buffer: &mut BytesMut) -> Option<()> {
    let found = frame::scan(buffer, FRAME_SIZE_MAX).ok()?;
    if buffer.len() - found.whole + found.missing > 2 * FRAME_SIZE_MAX {
        return None;
    }
    let mut batch = Batch::of_envelopes(&buffer[..found.whole], 0, FRAME_SIZE_MAX);
    for message in batch.by_ref() {
        let Message::Gossip { body } = message else { return None };
        peer.counters.received.add(1);
        shared.inbox.gossip(peer.node, body);
    }
    if batch.fault.is_some() {
        return None;
    }
    buffer.advance(found.whole);
    Some(())
}
