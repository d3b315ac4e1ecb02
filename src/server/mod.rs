//! The client's door: sessions that speak RESP.
//!
//! ```text
//!  accept ──► session: read ──► scan ──► dispatch ──► node (keys)      ──► replies ──► write
//!                                           └───────► connection, cluster, info, settings, saving, kv
//! ```

pub mod clients;

mod chart;
mod client;
mod cluster;
mod connection;
mod dispatch;
mod greeting;
mod info;
mod kv;
mod process;
mod saving;
mod session;
mod settings;
mod status;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tracing::{debug, warn};

use crate::node::Node;
use crate::storage::log::Fsync;

use clients::Clients;

/// What the door must be told. Those that `CONFIG SET` changes live in [`Changeable`].
#[derive(Clone, Debug)]
pub struct Options {
    /// The port that clients connect to, as `INFO` tells it.
    pub port: u16,
    /// The address it is bound to.
    pub bind: String,
    /// The folder of this node's files.
    pub data_dir: String,
    /// What may change while the node runs.
    pub changeable: Changeable,
}

/// Settings that `CONFIG SET` changes.
#[derive(Clone, Debug)]
pub struct Changeable {
    /// The password, if clients need one.
    pub requirepass: Option<String>,
    /// Most clients at once.
    pub maxclients: usize,
    /// Idle connections are closed after this many seconds; 0: never.
    pub timeout_s: u64,
    /// Seconds between TCP keepalive probes; 0: none.
    pub tcp_keepalive_s: u64,
    /// Longest argument of a request, in bytes.
    pub proto_max_bulk_len: usize,
    /// Most bytes that an unfinished request may hold.
    pub client_query_buffer_limit: usize,
    /// Most bytes of replies that may wait for one client; 0: no limit.
    pub client_output_buffer_limit: usize,
    /// Most bytes for keys, values and tables; 0: no limit.
    pub maxmemory: u64,
    /// When what was written is made durable.
    pub fsync: Fsync,
}

/// Tells the engine what it has to know of the settings.
fn tell(node: &Node, settings: &Changeable) {
    node.set_maxmemory(settings.maxmemory);
    node.set_fsync(settings.fsync);
}

/// The client's door of one node.
#[derive(Debug)]
pub struct Server {
    pub(super) node: Arc<Node>,
    pub(super) options: Options,
    pub(super) changeable: RwLock<Arc<Changeable>>,
    /// Rises with every `CONFIG SET`, so that a session knows when to look again.
    pub(super) generation: AtomicU64,
    pub(super) clients: Clients,
}

impl Server {
    /// A door to `node`.
    pub fn new(node: Arc<Node>, options: Options) -> Arc<Server> {
        tell(&node, &options.changeable);
        let changeable = RwLock::new(Arc::new(options.changeable.clone()));
        let clients = Clients::default();
        Arc::new(Server { node, options, changeable, generation: AtomicU64::new(0), clients })
    }

    pub(super) fn changeable(&self) -> Arc<Changeable> {
        self.changeable.read().clone()
    }

    /// Changes settings; sessions see it with their next batch, the engine at once.
    pub(super) fn change(&self, change: impl FnOnce(&mut Changeable)) {
        let mut current = self.changeable.write();
        let mut next = (**current).clone();
        change(&mut next);
        tell(&self.node, &next);
        *current = Arc::new(next);
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Accepts clients until `stop` says so, then lets them finish what they have begun.
    pub async fn serve(self: Arc<Server>, listener: TcpListener, mut stop: watch::Receiver<bool>) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = session::stopped(&mut stop) => break,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let server = self.clone();
                    if let Err(error) = self.prepare(&stream) {
                        debug!(%peer, %error, "a connection broke at once");
                        continue;
                    }
                    tokio::spawn(session::run(server, stream, peer));
                }
                // Out of file descriptors, most likely: others' closing will help.
                Err(error) => {
                    warn!(%error, "cannot accept a client");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        self.clients.finish();
    }

    fn prepare(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let every = self.changeable().tcp_keepalive_s;
        if every > 0 {
            let every = Duration::from_secs(every);
            let keepalive = socket2::TcpKeepalive::new().with_time(every).with_interval(every / 3);
            socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive)?;
        }
        Ok(())
    }
}
