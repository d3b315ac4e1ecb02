//! Who is connected: what `CLIENT LIST`, `CLIENT INFO` and `CLIENT KILL` know.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::Waker;

use parking_lot::Mutex;

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
    /// The system's number of its socket.
    pub fd: i32,
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
    told: AtomicU8,
    listener: Mutex<Option<Waker>>,
}

/// What a connection can be told from outside. The later is the stronger.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Told {
    /// To finish what it has begun, and to close.
    Finish = 1,
    /// To close at once.
    Close = 2,
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
    /// The last command's full name.
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

impl Words {
    /// One letter for each thing that is special, or `N`.
    fn flags(&self) -> String {
        let letters = [(self.readonly, 'r'), (self.no_evict, 'e'), (self.no_touch, 'T')];
        let flags: String =
            letters.into_iter().filter_map(|(set, letter)| set.then_some(letter)).collect();
        if flags.is_empty() { "N".to_owned() } else { flags }
    }
}

impl Client {
    /// The line by which Redis describes a client, without its end. What this node has no word
    /// for (subscriptions, transactions, buffers kept apart) is told as 0.
    pub fn line(&self, now: UnixMs) -> String {
        let words = self.words.lock();
        let since = |then: u64| now.0.saturating_sub(then) / 1_000;
        let (age, idle) = (since(self.since.0), since(self.active.load(Ordering::Relaxed)));
        let input = self.input.load(Ordering::Relaxed);
        let Client { id, address, local, fd, .. } = self;
        let Words { name, command, protocol, library, library_version, .. } = &*words;
        let (flags, memory) = (words.flags(), input + size_of::<Client>() as u64);
        format!(
            "id={id} addr={address} laddr={local} fd={fd} name={name} age={age} idle={idle} \
             flags={flags} db=0 sub=0 psub=0 ssub=0 multi=-1 qbuf={input} qbuf-free=0 argv-mem=0 \
             multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=0 tot-mem={memory} events=r cmd={command} \
             user=default redir=-1 resp={protocol} lib-name={library} lib-ver={library_version}"
        )
    }

    /// Tells the connection something. It looks the next time that its task runs, which is soon.
    pub fn tell(&self, told: Told) {
        self.told.fetch_max(told as u8, Ordering::AcqRel);
        if let Some(listener) = &*self.listener.lock() {
            listener.wake_by_ref();
        }
    }

    /// What it was told. Who waits to be told must [listen](Self::listen) before this is asked.
    pub fn told(&self) -> Option<Told> {
        match self.told.load(Ordering::Acquire) {
            0 => None,
            1 => Some(Told::Finish),
            _ => Some(Told::Close),
        }
    }

    /// From now on `listener` is woken when the connection is told something.
    pub fn listen(&self, listener: Waker) {
        *self.listener.lock() = Some(listener);
    }
}

/// Every connection.
#[derive(Debug, Default)]
pub struct Clients {
    next: AtomicU64,
    /// Whether new ones are told to finish, too.
    finishing: AtomicBool,
    all: Mutex<BTreeMap<u64, Arc<Client>>>,
}

impl Clients {
    /// A new connection.
    pub fn enter(
        &self,
        address: SocketAddr,
        local: SocketAddr,
        fd: i32,
        now: UnixMs,
    ) -> Arc<Client> {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let client = Arc::new(Client {
            id,
            address,
            local,
            fd,
            since: now,
            active: AtomicU64::new(now.0),
            requests: AtomicU64::new(0),
            input: AtomicU64::new(0),
            words: Mutex::new(Words { protocol: 2, command: "NULL", ..Words::default() }),
            told: AtomicU8::new(0),
            listener: Mutex::default(),
        });
        let mut all = self.all.lock();
        all.insert(id, client.clone());
        if self.finishing.load(Ordering::Acquire) {
            client.tell(Told::Finish);
        }
        drop(all);
        client
    }

    /// Tells all connections, and all that are to come, to finish what they have begun.
    pub fn finish(&self) {
        let all = self.all.lock();
        self.finishing.store(true, Ordering::Release);
        all.values().for_each(|client| client.tell(Told::Finish));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn a_client_is_described_as_redis_does() {
        let clients = Clients::default();
        clients.enter(address(1), address(6379), 7, UnixMs(0));
        let client = clients.enter(address(5000), address(6379), 8, UnixMs(10_000));
        *client.words.lock() = Words {
            name: "worker".to_owned(),
            library: "redis-py".to_owned(),
            library_version: "5.0".to_owned(),
            command: "client|list",
            protocol: 3,
            readonly: true,
            no_touch: true,
            ..Words::default()
        };
        client.active.store(14_999, Ordering::Relaxed);
        let line = client.line(UnixMs(15_000));
        assert!(
            line.starts_with(
                "id=2 addr=127.0.0.1:5000 laddr=127.0.0.1:6379 fd=8 name=worker age=5 idle=0 \
                 flags=rT db=0 sub=0 "
            ),
            "{line}"
        );
        let end = "cmd=client|list user=default redir=-1 resp=3 lib-name=redis-py lib-ver=5.0";
        assert!(line.ends_with(end), "{line}");
        assert!(line.split(' ').all(|field| field.contains('=')), "{line}");
    }

    #[test]
    fn who_listens_is_woken_and_the_stronger_word_stays() {
        struct Bell(AtomicU64);
        impl std::task::Wake for Bell {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let clients = Clients::default();
        let client = clients.enter(address(1), address(2), 3, UnixMs(0));
        let bell = Arc::new(Bell(AtomicU64::new(0)));
        client.listen(Waker::from(bell.clone()));
        assert_eq!(client.told(), None);
        client.tell(Told::Close);
        clients.finish();
        assert_eq!(client.told(), Some(Told::Close));
        assert_eq!(bell.0.load(Ordering::Relaxed), 2);
        let late = clients.enter(address(1), address(2), 3, UnixMs(0));
        assert_eq!(late.told(), Some(Told::Finish), "no more is begun");
    }

    #[test]
    fn numbers_are_never_used_again() {
        let clients = Clients::default();
        let first = clients.enter(address(1), address(2), 3, UnixMs(0)).id;
        clients.leave(first);
        let second = clients.enter(address(1), address(2), 3, UnixMs(0)).id;
        assert_eq!((first, second, clients.len()), (1, 2, 1));
    }
}
