//! Who is connected: what `CLIENT LIST`, `CLIENT INFO` and `CLIENT KILL` know.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::base::time::UnixMs;

/// What others may see of one connection. The connection's task keeps it up to date.
#[derive(Debug)]
pub struct Client {
    /// Its number, never used again.
    pub id: u64,
    /// The client's address.
    pub address: SocketAddr,
    /// The address it connected to.
    pub local: SocketAddr,
    /// When it connected.
    pub since: UnixMs,
    /// When it last sent a request, in milliseconds since the epoch.
    pub active: AtomicU64,
    /// Requests so far.
    pub requests: AtomicU64,
    /// Unscanned bytes of input.
    pub input: AtomicU64,
    /// What changes rarely.
    pub words: Mutex<Words>,
    kill: Notify,
    killed: AtomicBool,
}

/// What a client said about itself.
#[derive(Clone, Debug, Default)]
pub struct Words {
    /// `CLIENT SETNAME`.
    pub name: String,
    /// `CLIENT SETINFO LIB-NAME`.
    pub library: String,
    /// `CLIENT SETINFO LIB-VER`.
    pub library_version: String,
    /// The last command's name.
    pub command: &'static str,
    /// 2 or 3.
    pub protocol: u8,
    /// `CLIENT NO-EVICT`.
    pub no_evict: bool,
    /// `CLIENT NO-TOUCH`.
    pub no_touch: bool,
    /// READONLY.
    pub readonly: bool,
}

impl Client {
    /// Tells the connection to close.
    pub fn kill(&self) {
        self.killed.store(true, Ordering::Release);
        self.kill.notify_one();
    }

    /// Whether it was told to close.
    pub fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Acquire)
    }

    /// Waits until it is told to close.
    pub async fn killed(&self) {
        self.kill.notified().await;
    }
}

/// Every connection.
#[derive(Debug, Default)]
pub struct Clients {
    next: AtomicU64,
    all: Mutex<BTreeMap<u64, Arc<Client>>>,
}

impl Clients {
    /// A new connection.
    pub fn enter(&self, address: SocketAddr, local: SocketAddr, now: UnixMs) -> Arc<Client> {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let client = Arc::new(Client {
            id,
            address,
            local,
            since: now,
            active: AtomicU64::new(now.0),
            requests: AtomicU64::new(0),
            input: AtomicU64::new(0),
            words: Mutex::new(Words { protocol: 2, ..Words::default() }),
            kill: Notify::new(),
            killed: AtomicBool::new(false),
        });
        self.all.lock().insert(id, client.clone());
        client
    }

    /// A connection has ended.
    pub fn leave(&self, id: u64) {
        self.all.lock().remove(&id);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.lock().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them, oldest first.
    pub fn all(&self) -> Vec<Arc<Client>> {
        self.all.lock().values().cloned().collect()
    }
}
