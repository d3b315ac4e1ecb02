//! One client's connection: read, scan, dispatch, write.
//!
//! One read(2) brings a batch of requests; all of them are run before anything is awaited, and
//! everything that is known then leaves in one write(2). Replies that must wait for other nodes
//! leave later, in request order ([`crate::node::replies`]).
//!
//! Invariant: the bytes of a batch's later replies are never written before its earlier ones.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use smallvec::SmallVec;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use crate::coordinator::contract::Override;
use crate::coordinator::waiting::Ending;
use crate::node::batch::Batch;
use crate::node::replies::Replies;
use crate::resp::reply::{Protocol, Reply};
use crate::resp::scanner::{Limits, ProtocolError, Scanner};

use super::clients::{Client, Told};
use super::{Changeable, Server};

/// Bytes asked of one read(2).
const READ_SIZE: usize = 16 << 10;

/// Requests that are scanned before the first of them is run.
const LOOK_AHEAD: usize = 16;

/// Replies beyond this many bytes are written before the batch goes on: it bounds what one
/// client's pipeline may hold in memory.
pub(super) const WRITE_EARLY: usize = 256 << 10;

/// Requests of one connection that may wait for other nodes at once.
const PENDING_MAX: usize = 4096;

/// Buffers that grew beyond this are given back when they are empty.
const KEEP_SIZE_MAX: usize = 64 << 10;

/// How long a stopping node lets a connection finish its requests.
const FINISH_MAX: Duration = Duration::from_secs(2);

/// Whether the client wants replies (`CLIENT REPLY`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Talk {
    #[default]
    On,
    Off,
    /// On now, but not for the next command.
    SkipNext,
    /// Not for this command.
    Skip,
}

/// What one connection has said and asked.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) client: Arc<Client>,
    pub(super) changeable: Arc<Changeable>,
    generation: u64,
    pub(super) protocol: Protocol,
    pub(super) authenticated: bool,
    pub(super) asked: Override,
    pub(super) readonly: bool,
    pub(super) talk: Talk,
    /// Close when everything before is written (QUIT, protocol errors).
    pub(super) closing: bool,
    pub(super) replies: Arc<Replies>,
    pub(super) batch: Batch,
    /// Places taken in `replies` and not drained yet.
    pub(super) pending: usize,
    /// Slots of requests under way that ask several replicas: a later request for one of them
    /// waits, so that a client's order per key holds.
    pub(super) ordered: SmallVec<[u16; 16]>,
    /// Whether the last request may wait for a key to change: nothing else is run before it is
    /// answered.
    pub(super) blocked: Option<Blocked>,
    /// The last command's full name.
    pub(super) last: &'static str,
    /// The name that others were shown as the last.
    shown: &'static str,
}

/// A request that may wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blocked {
    /// When its time is over, unless that was told already.
    pub(super) until: Option<Instant>,
}

/// What a session waited for.
enum Event {
    /// So many bytes came.
    Read(usize),
    /// Replies may be ready.
    Ready,
    /// The last request has waited long enough.
    TimeIsUp,
}

/// Why a batch stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pause {
    /// All complete requests were run.
    Drained,
    /// Replies are to be written before more is run.
    Write,
    /// Earlier replies must come before more is run.
    Settle,
    /// The last request may wait for long.
    Blocked,
    /// The connection closes.
    Close,
}

/// The arguments of one request, in the connection's input.
pub(super) type Arguments<'b> = SmallVec<[&'b [u8]; 8]>;

/// The next requests of a batch, scanned before the first of them is run, so that the memory
/// they touch is fetched together.
struct Ahead<'b> {
    /// Arguments, and the bytes from the end of the request before.
    requests: SmallVec<[(Arguments<'b>, usize); LOOK_AHEAD]>,
    /// Bytes of blank lines behind the last request.
    blank: usize,
}

/// How the scan of the next requests ended.
enum End {
    /// Enough for now.
    More,
    /// One inline request of so many bytes, behind the blank ones.
    Inline(usize),
    /// The rest is no whole request.
    Partial,
    Error(ProtocolError),
}

impl<'b> Ahead<'b> {
    fn new() -> Ahead<'b> {
        Ahead { requests: SmallVec::new(), blank: 0 }
    }

    fn scan(
        &mut self,
        input: &'b [u8],
        scanner: &mut Scanner,
        limits: &Limits,
        most: usize,
    ) -> End {
        let mut at = 0;
        while self.requests.len() < most {
            let rest = &input[at..];
            match scanner.scan(rest, limits) {
                // A blank line or an empty array: nothing is asked, nothing answered.
                Ok(Some(length)) if scanner.arguments().is_empty() => {
                    self.blank += length;
                    at += length;
                }
                Ok(Some(length)) => {
                    // Inline arguments lie in the scanner, which must not scan on before they
                    // are used.
                    if rest.first() != Some(&b'*') {
                        if self.requests.is_empty() {
                            return End::Inline(length);
                        }
                        *scanner = Scanner::new();
                        return End::More;
                    }
                    at += length;
                    let length = length + std::mem::take(&mut self.blank);
                    self.requests.push((SmallVec::new(), length));
                    let (args, _) = self.requests.last_mut().expect("pushed above");
                    for range in scanner.arguments().ranges() {
                        args.push(&rest[range]);
                    }
                }
                Ok(None) => return End::Partial,
                Err(error) => return End::Error(error),
            }
        }
        End::More
    }

    /// The first argument of each request, where most have their key; nothing if there is none.
    fn keys(&self) -> impl Iterator<Item = &'b [u8]> {
        self.requests.iter().map(|(args, _)| args.get(1).copied().unwrap_or_default())
    }
}

pub(super) async fn run(server: Arc<Server>, mut stream: TcpStream, peer: SocketAddr) {
    let metrics = server.node.metrics();
    metrics.total_connections_received.bump();
    if server.clients.len() >= server.changeable().maxclients {
        metrics.rejected_connections.bump();
        let _ = stream.write_all(b"-ERR max number of clients reached\r\n").await;
        return;
    }
    let Ok(local) = stream.local_addr() else { return };
    let client = server.clients.enter(peer, local, stream.as_raw_fd(), crate::node::now());
    metrics.connected_clients.add(1);
    let mut session = Session::new(&server, client.clone());
    let outcome = unless_killed(&client, session.talk(&server, &mut stream)).await;
    if session.blocked.is_some() {
        server.node.unblock(&session.replies, Ending::Gone);
    }
    // A client that was killed while the log wrote: what it did goes to the replicas all the same.
    let _ = server.node.conclude(&mut session.batch).await;
    if let Err(error) = outcome {
        debug!(client = client.id, %error, "connection broke");
    }
    metrics.connected_clients.sub(1);
    server.clients.leave(client.id);
}

async fn sleep_until(moment: Option<Instant>) {
    if let Some(moment) = moment {
        tokio::time::sleep_until(moment).await;
    }
}

async fn idle_for(limit: Option<Duration>) {
    if let Some(limit) = limit {
        tokio::time::sleep(limit).await;
    }
}

/// Runs a connection until it ends, or until it is told to close at once. Wakes it when it is told
/// anything.
///
/// A `Notify` would be as good and would take a lock whenever the connection is looked at, which is
/// twice a request.
async fn unless_killed(
    client: &Client,
    talk: impl Future<Output = io::Result<()>>,
) -> io::Result<()> {
    let mut talk = pin!(talk);
    let mut listening: Option<Waker> = None;
    poll_fn(|context| {
        if !listening.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            listening = Some(context.waker().clone());
            client.listen(context.waker().clone());
        }
        if client.told() == Some(Told::Close) {
            return Poll::Ready(Ok(()));
        }
        talk.as_mut().poll(context)
    })
    .await
}

/// Waits until the client is told something, in a task that listens.
async fn told(client: &Client) {
    poll_fn(|_| if client.told().is_some() { Poll::Ready(()) } else { Poll::Pending }).await;
}

/// Waits until the node stops; a node that is gone has stopped.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

impl Session {
    fn new(server: &Server, client: Arc<Client>) -> Session {
        let changeable = server.changeable();
        Session {
            client: client.clone(),
            generation: server.generation.load(Ordering::Acquire),
            protocol: Protocol::Resp2,
            authenticated: changeable.requirepass.is_none(),
            changeable,
            asked: Override::default(),
            readonly: false,
            talk: Talk::On,
            closing: false,
            replies: client.replies.clone(),
            blocked: None,
            batch: server.node.batch(),
            pending: 0,
            ordered: SmallVec::new(),
            last: "NULL",
            shown: "",
        }
    }

    fn limits(&self) -> Limits {
        if self.is_admitted() {
            Limits { bulk: self.changeable.proto_max_bulk_len, ..Limits::default() }
        } else {
            Limits::unauthenticated()
        }
    }

    /// Whether the client may send any command.
    pub(super) fn is_admitted(&self) -> bool {
        self.authenticated || self.changeable.requirepass.is_none()
    }

    async fn talk(&mut self, server: &Server, stream: &mut TcpStream) -> io::Result<()> {
        let mut input = BytesMut::with_capacity(READ_SIZE);
        let mut scanner = Scanner::new();
        let mut out = Reply::new(Protocol::Resp2);
        let replies = self.replies.clone();
        let mut more = false;
        let client = self.client.clone();
        loop {
            if !more {
                input.reserve(READ_SIZE.max(scanner.needed(input.len()).min(1 << 20)));
                let stalled = self.pending >= PENDING_MAX;
                let idle = self.idle_limit();
                let until = self.blocked.and_then(|blocked| blocked.until);
                let event = tokio::select! {
                    biased;
                    read = stream.read_buf(&mut input), if !stalled => Event::Read(read?),
                    () = replies.ready(), if self.pending > 0 => Event::Ready,
                    () = sleep_until(until), if until.is_some() => Event::TimeIsUp,
                    () = told(&client) => {
                        return self.finish(stream, &mut out).await;
                    }
                    () = idle_for(idle), if idle.is_some() => return Ok(()),
                };
                match event {
                    Event::Read(0) => return Ok(()),
                    Event::Read(count) => {
                        let metrics = server.node.metrics();
                        metrics.total_net_input_bytes.add(count as u64);
                        metrics.total_reads_processed.bump();
                        if self.blocked.is_some() {
                            if input.len() > self.changeable.client_query_buffer_limit {
                                return Ok(());
                            }
                            self.client.input.store(input.len() as u64, Ordering::Relaxed);
                            continue;
                        }
                    }
                    Event::Ready => {
                        self.drain(&mut out);
                        self.write(server, stream, &mut out).await?;
                        if input.is_empty() || self.blocked.is_some() {
                            continue;
                        }
                    }
                    Event::TimeIsUp => {
                        self.blocked = Some(Blocked { until: None });
                        server.node.unblock(&replies, Ending::Timeout);
                        continue;
                    }
                }
            }
            let pause = self.run_batch(server, &mut input, &mut scanner, &mut out);
            server.node.conclude(&mut self.batch).await.map_err(io::Error::other)?;
            self.write(server, stream, &mut out).await?;
            match pause {
                Pause::Drained | Pause::Blocked => more = false,
                Pause::Write => more = true,
                Pause::Settle => {
                    self.settle(stream, &mut out, server).await?;
                    more = true;
                }
                Pause::Close => {
                    self.settle(stream, &mut out, server).await?;
                    return stream.shutdown().await;
                }
            }
            if input.is_empty() && input.capacity() > KEEP_SIZE_MAX {
                input = BytesMut::with_capacity(READ_SIZE);
            }
        }
    }

    /// Moves the replies whose turn has come to `out`.
    fn drain(&mut self, out: &mut Reply) {
        self.pending = self.replies.drain(&mut out.bytes);
        if self.pending == 0 {
            self.ordered.clear();
            self.blocked = None;
        }
    }

    fn idle_limit(&self) -> Option<Duration> {
        let seconds = self.changeable.timeout_s;
        (seconds > 0 && self.blocked.is_none()).then(|| Duration::from_secs(seconds))
    }

    /// Runs every complete request of `input`; nothing is awaited.
    fn run_batch(
        &mut self,
        server: &Server,
        input: &mut BytesMut,
        scanner: &mut Scanner,
        out: &mut Reply,
    ) -> Pause {
        let generation = server.generation.load(Ordering::Acquire);
        if generation != self.generation {
            self.generation = generation;
            self.changeable = server.changeable();
        }
        server.node.begin(&mut self.batch);
        let (mut consumed, mut requests) = (0, 0);
        let pause = loop {
            let mut ahead = Ahead::new();
            let end = ahead.scan(&input[consumed..], scanner, &self.limits(), self.look_ahead());
            let slots = server.node.approach(ahead.keys());
            let mut stopped = None;
            let mut left = &ahead.requests[..];
            while let [(args, _), ..] = left {
                stopped = self.must_pause(args, out);
                if stopped.is_some() {
                    break;
                }
                let at = ahead.requests.len() - left.len();
                let run = match self.dispatch_row(server, left, &slots[at..], out) {
                    0 => {
                        self.dispatch(server, args, Some(slots[at]), out);
                        1
                    }
                    run => run,
                };
                requests += run as u64;
                consumed += left[..run].iter().map(|(_, length)| length).sum::<usize>();
                left = &left[run..];
            }
            let blank = ahead.blank;
            drop(ahead);
            if stopped.is_none() && self.closing {
                stopped = Some(Pause::Close);
            }
            if stopped.is_none() && self.blocked.is_some() {
                stopped = Some(Pause::Blocked);
            }
            if stopped.is_none() {
                consumed += blank;
            }
            match end {
                _ if stopped.is_some() => {}
                End::More => {}
                End::Inline(length) => {
                    let rest = &input[consumed..];
                    let mut args: SmallVec<[&[u8]; 8]> = SmallVec::new();
                    scanner.arguments().fill(rest, &mut args);
                    stopped = self.must_pause(&args, out);
                    if stopped.is_none() {
                        self.dispatch(server, &args, None, out);
                        requests += 1;
                        consumed += length;
                        continue;
                    }
                }
                End::Partial => break Pause::Drained,
                End::Error(error) => {
                    let mark = out.bytes.len();
                    error.reply(out);
                    self.place(out, mark);
                    break Pause::Close;
                }
            }
            if let Some(pause) = stopped {
                // What was scanned and not run is scanned again.
                *scanner = Scanner::new();
                break pause;
            }
        };
        input.advance(consumed);
        debug_assert!(
            self.pending > 0 || self.ordered.is_empty(),
            "what is done is not waited for"
        );
        if requests > 0 {
            self.client.active.store(self.batch.now().0, Ordering::Relaxed);
            self.client.requests.fetch_add(requests, Ordering::Relaxed);
            self.show(self.last);
            server.node.metrics().total_commands_processed.add(requests);
        }
        self.client.input.store(input.len() as u64, Ordering::Relaxed);
        if pause == Pause::Drained && input.len() > self.changeable.client_query_buffer_limit {
            return Pause::Close;
        }
        pause
    }

    /// Shows others the name of the last command. Most of the time it is that of the one before.
    pub(super) fn show(&mut self, command: &'static str) {
        if !std::ptr::eq(self.shown, command) {
            self.shown = command;
            self.client.words.lock().command = command;
        }
    }

    /// How many requests to scan before the first is run. The limits change with AUTH.
    fn look_ahead(&self) -> usize {
        if self.is_admitted() { LOOK_AHEAD } else { 1 }
    }

    /// Why the next request may not be run yet.
    fn must_pause(&self, args: &[&[u8]], out: &Reply) -> Option<Pause> {
        if self.closing {
            return Some(Pause::Close);
        }
        if self.blocked.is_some() {
            return Some(Pause::Blocked);
        }
        if out.bytes.len() >= WRITE_EARLY {
            return Some(Pause::Write);
        }
        if self.pending >= PENDING_MAX || self.conflicts(args) {
            return Some(Pause::Settle);
        }
        None
    }

    /// Puts what was written to `out` since `mark` where its turn is.
    pub(super) fn place(&mut self, out: &mut Reply, mark: usize) {
        if self.pending > 0 && out.bytes.len() > mark {
            self.replies.push(&out.bytes[mark..]);
            self.pending += 1;
            out.bytes.truncate(mark);
        }
    }

    async fn write(
        &mut self,
        server: &Server,
        stream: &mut TcpStream,
        out: &mut Reply,
    ) -> io::Result<()> {
        if out.bytes.is_empty() {
            return Ok(());
        }
        let limit = self.changeable.client_output_buffer_limit;
        if limit > 0 && out.bytes.len() > limit {
            warn!(
                client = self.client.id,
                bytes = out.bytes.len(),
                limit,
                "replies over the limit"
            );
            return Err(io::Error::other("client-output-buffer-limit"));
        }
        let metrics = server.node.metrics();
        metrics.total_net_output_bytes.add(out.bytes.len() as u64);
        metrics.total_writes_processed.bump();
        stream.write_all(&out.bytes).await?;
        out.bytes.clear();
        if out.bytes.capacity() > 4 * WRITE_EARLY {
            out.bytes = BytesMut::new();
        }
        Ok(())
    }

    /// Waits until every reply has come and is written.
    async fn settle(
        &mut self,
        stream: &mut TcpStream,
        out: &mut Reply,
        server: &Server,
    ) -> io::Result<()> {
        loop {
            self.drain(out);
            self.write(server, stream, out).await?;
            if self.pending == 0 {
                return Ok(());
            }
            self.replies.ready().await;
        }
    }

    async fn finish(&mut self, stream: &mut TcpStream, out: &mut Reply) -> io::Result<()> {
        let _ = timeout(FINISH_MAX, async {
            // What waits for a key is not waited for.
            while self.pending > usize::from(self.blocked.is_some()) {
                self.replies.ready().await;
                self.drain(out);
            }
        })
        .await;
        stream.write_all(&out.bytes).await?;
        stream.shutdown().await
    }
}
