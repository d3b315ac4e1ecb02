//! Links over real sockets on the loopback. Everything is waited for with a bound, nothing by
//! guessing how long it takes.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::base::id::VnodeId;
use crate::base::wire::Put;
use crate::peer::frame::{self, Batch};
use crate::peer::gossip_link::Sent;
use crate::peer::hello::{ClusterId, Identity, ProofKey, Refusal};
use crate::peer::inbox::Settling;
use crate::peer::message::Message;
use crate::peer::outbox::OutboxError;

use super::*;

/// What an inbox was told.
#[derive(Clone, PartialEq, Debug)]
enum Told {
    Up(NodeId, Boot, Vec<u8>),
    Down(NodeId, DownReason),
    Unreachable(NodeId, DownReason),
    Rep(u64, Vec<u8>),
    Other(Vec<u8>),
    /// A round of gossip, and the thread that brought it.
    Gossip(NodeId, Vec<u8>, Option<String>),
    Refused(NodeId),
}

/// An inbox that writes everything down, and acknowledges changes once a read.
#[derive(Default)]
struct Diary {
    told: Mutex<Vec<Told>>,
    batches: Count,
    outboxes: Mutex<BTreeMap<NodeId, Arc<Outbox>>>,
    rejections: Mutex<VecDeque<String>>,
    /// Held by a test that wants this inbox to be slow.
    busy: Mutex<()>,
}

impl Inbox for Diary {
    fn greeting(&self, to: NodeId) -> Vec<u8> {
        format!("hello {to}").into_bytes()
    }

    fn link_up(
        &self,
        peer: NodeId,
        boot: Boot,
        greeting: &[u8],
        link: &Arc<Outbox>,
    ) -> Result<(), String> {
        if let Some(why) = self.rejections.lock().pop_front() {
            return Err(why);
        }
        self.outboxes.lock().insert(peer, Arc::clone(link));
        self.told.lock().push(Told::Up(peer, boot, greeting.to_vec()));
        Ok(())
    }

    fn link_down(&self, peer: NodeId, reason: &DownReason) {
        self.told.lock().push(Told::Down(peer, reason.clone()));
    }

    fn messages(&self, peer: NodeId, batch: &mut Batch<'_>) -> Option<Settling> {
        drop(self.busy.lock());
        self.batches.add(1);
        let before = batch.reps();
        while let Some(message) = batch.next() {
            let told = match message {
                Message::Rep { record, .. } => Told::Rep(batch.reps(), record.to_vec()),
                Message::RepAck { upto } => Told::Other(upto.to_le_bytes().to_vec()),
                Message::Status { body } => Told::Other(body.to_vec()),
                other => panic!("nobody sends {other:?}"),
            };
            self.told.lock().push(told);
        }
        if batch.reps() > before {
            let upto = batch.reps();
            let outbox = Arc::clone(&self.outboxes.lock()[&peer]);
            let _ = outbox.send(&Message::RepAck { upto });
        }
        None
    }

    fn unreachable(&self, peer: NodeId, reason: &DownReason) {
        self.told.lock().push(Told::Unreachable(peer, reason.clone()));
    }

    fn gossip(&self, peer: NodeId, body: &[u8]) {
        let thread = std::thread::current().name().map(str::to_owned);
        self.told.lock().push(Told::Gossip(peer, body.to_vec(), thread));
    }

    fn refused(&self, peer: NodeId) {
        self.told.lock().push(Told::Refused(peer));
    }
}

impl Diary {
    fn has(&self, what: impl FnMut(&Told) -> bool) -> bool {
        self.count(what) > 0
    }

    fn count(&self, mut what: impl FnMut(&Told) -> bool) -> usize {
        self.told.lock().iter().filter(|told| what(told)).count()
    }

    fn reps(&self) -> usize {
        self.count(|told| matches!(told, Told::Rep(..)))
    }

    /// Every link goes up, then down, then up …
    fn assert_alternates(&self, peer: NodeId) {
        let mut up = false;
        for told in self.told.lock().iter() {
            match told {
                Told::Up(node, ..) if *node == peer => assert!(!std::mem::replace(&mut up, true)),
                Told::Down(node, _) if *node == peer => assert!(std::mem::replace(&mut up, false)),
                Told::Rep(..) | Told::Other(_) => assert!(up),
                _ => {}
            }
        }
    }
}

/// Polls until `done`, for 20 seconds at most.
async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(20), "waited in vain: {what}");
        sleep(Duration::from_millis(1)).await;
    }
}

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);

/// Two addresses that nobody else uses.
struct Pair {
    members: BTreeMap<NodeId, String>,
    listeners: BTreeMap<NodeId, TcpListener>,
}

impl Pair {
    async fn bind() -> Pair {
        let (mut members, mut listeners) = (BTreeMap::new(), BTreeMap::new());
        for node in [A, B] {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            members.insert(node, listener.local_addr().expect("bound").to_string());
            listeners.insert(node, listener);
        }
        Pair { members, listeners }
    }

    fn options(&self, node: NodeId) -> Options {
        let mut options = Options::new(node, Boot(7), "test", "secret", self.members.clone());
        options.ping_every = Duration::from_millis(50);
        options
    }

    async fn start(&mut self, options: Options) -> (Links, Arc<Diary>) {
        let node = options.node;
        let listener = match self.listeners.remove(&node) {
            Some(listener) => listener,
            None => TcpListener::bind(&self.members[&node]).await.expect("the port is free again"),
        };
        let diary = Arc::new(Diary::default());
        let links = Links::start(options, diary.clone(), listener).expect("randomness");
        (links, diary)
    }

    async fn both() -> (Pair, [(Links, Arc<Diary>); 2]) {
        let mut pair = Pair::bind().await;
        let a = pair.start(pair.options(A)).await;
        let b = pair.start(pair.options(B)).await;
        until("link up", || a.0.is_up(B) && b.0.is_up(A)).await;
        (pair, [a, b])
    }
}

fn reps(records: impl IntoIterator<Item = Vec<u8>>) -> (BytesMut, u64) {
    let (mut frames, mut count) = (BytesMut::new(), 0);
    for record in records {
        Message::Rep { vnode: VnodeId(3), record: &record }.encode(&mut frames);
        count += 1;
    }
    (frames, count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_meet_talk_and_part() {
    let (_pair, [(a, told_a), (b, told_b)]) = Pair::both().await;
    assert_eq!(told_a.told.lock()[0], Told::Up(B, Boot(7), b"hello n1".to_vec()));
    assert_eq!(told_b.told.lock()[0], Told::Up(A, Boot(7), b"hello n2".to_vec()));
    assert!(matches!(a.state(B), Some(LinkState::Up { boot: Boot(7), .. })));
    assert_eq!(a.state(A), None);
    let outbox = a.outbox(B).expect("up");
    assert_eq!(outbox.peer(), B);
    let (frames, count) = reps([b"x".to_vec(), b"y".to_vec()]);
    assert_eq!(outbox.append(&frames, count), Ok(2));
    until("the changes", || told_b.reps() == 2).await;
    assert!(told_b.has(|told| *told == Told::Rep(2, b"y".to_vec())));
    let ack = Told::Other(2u64.to_le_bytes().to_vec());
    until("the acknowledgement", || told_a.has(|told| *told == ack)).await;
    a.shutdown().await;
    until("down there", || !b.is_up(A)).await;
    until("told here", || told_a.has(|told| *told == Told::Down(B, DownReason::Asked))).await;
    assert!(a.outbox(B).is_none() && outbox.is_closed());
    b.shutdown().await;
    told_a.assert_alternates(B);
    told_b.assert_alternates(A);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_frames_arrive_in_few_reads() {
    let (_pair, [(a, _told_a), (b, told_b)]) = Pair::both().await;
    let outbox = a.outbox(B).expect("up");
    let (frames, count) = reps((0..1000u32).map(|n| n.to_le_bytes().to_vec()));
    let before = a.counters(B).expect("a peer").flushes.read();
    assert_eq!(outbox.append(&frames, count), Ok(1000));
    until("the changes", || told_b.reps() == 1000).await;
    assert!(a.counters(B).expect("a peer").flushes.read() - before < 10);
    assert!(told_b.batches.read() < 10);
    let order: Vec<Told> = told_b.told.lock().iter().skip(1).cloned().collect();
    for (n, told) in (0..1000u32).zip(order) {
        assert_eq!(told, Told::Rep(u64::from(n) + 1, n.to_le_bytes().to_vec()));
    }
    assert!(b.counters(A).expect("a peer").frames_in.read() >= 1000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_append_and_each_keeps_its_order() {
    let (_pair, [(a, _), (_b, told_b)]) = Pair::both().await;
    let outbox = a.outbox(B).expect("up");
    let mut tasks = JoinSet::new();
    for task in 0..4u8 {
        let outbox = Arc::clone(&outbox);
        tasks.spawn(async move {
            let mut last = 0;
            for n in 0..500u32 {
                let mut record = vec![task];
                record.put_u32(n);
                let (frames, count) = reps([record]);
                let upto = outbox.append(&frames, count).expect("room");
                assert!(upto > last);
                last = upto;
                tokio::task::yield_now().await;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("no panic");
    }
    until("all changes", || told_b.reps() == 2000).await;
    assert_eq!(outbox.reps(), 2000);
    let mut next = [0u32; 4];
    for told in told_b.told.lock().iter() {
        if let Told::Rep(_, record) = told {
            let n = u32::from_le_bytes(record[1..].try_into().expect("four bytes"));
            assert_eq!(std::mem::replace(&mut next[record[0] as usize], n + 1), n);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_of_20_mb_passes_among_small_ones() {
    let (_pair, [(a, _), (_b, told_b)]) = Pair::both().await;
    let outbox = a.outbox(B).expect("up");
    let huge: Vec<u8> = (0..20 << 20).map(|n: u32| ((n * 31) >> 8) as u8).collect();
    let (frames, count) = reps([b"before".to_vec(), huge.clone(), b"after".to_vec()]);
    outbox.append(&frames, count).expect("room");
    until("all three", || told_b.reps() == 3).await;
    let told = told_b.told.lock();
    let found: Vec<&Told> = told.iter().filter(|told| matches!(told, Told::Rep(..))).collect();
    assert!(*found[0] == Told::Rep(1, b"before".to_vec()));
    assert!(*found[1] == Told::Rep(2, huge));
    assert!(*found[2] == Told::Rep(3, b"after".to_vec()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_does_not_read_fills_the_outbox_and_nothing_is_lost() {
    let mut pair = Pair::bind().await;
    let mut options = pair.options(A);
    options.outbox_bytes_max = 1 << 20;
    let (a, _told_a) = pair.start(options).await;
    let (_b, told_b) = pair.start(pair.options(B)).await;
    until("link up", || a.is_up(B)).await;
    let outbox = a.outbox(B).expect("up");
    let mut sent = 0;
    let busy = told_b.busy.lock();
    let full = loop {
        let (frames, count) = reps([vec![9; 64 << 10]]);
        match outbox.append(&frames, count) {
            Ok(upto) => sent = upto,
            Err(error) => break error,
        }
        assert!(sent < 10_000, "it never fills");
        // The writer may go on: the kernel's buffers are part of the way.
        std::thread::yield_now();
    };
    drop(busy);
    assert_eq!(full, OutboxError::Full);
    assert!(outbox.queued_bytes() < (1 << 20) + (65 << 10));
    until("what was taken", || told_b.reps() as u64 == sent).await;
    until("an empty outbox", || outbox.queued_bytes() == 0).await;
    assert!(a.is_up(B));
    assert_eq!(outbox.append(&reps([vec![1]]).0, 1), Ok(sent + 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_restarts_is_found_again() {
    let (mut pair, [(a, told_a), (b, told_b)]) = Pair::both().await;
    let old = a.outbox(B).expect("up");
    old.append(&reps([vec![1]]).0, 1).expect("room");
    until("a change", || told_b.reps() == 1).await;
    b.shutdown().await;
    until("down", || !a.is_up(B)).await;
    let refused = Told::Unreachable(B, DownReason::ConnectionRefused);
    until("refusal", || told_a.has(|told| *told == refused)).await;
    assert_eq!(old.append(&reps([vec![1]]).0, 1), Err(OutboxError::Closed));
    let mut options = pair.options(B);
    options.boot = Boot(8);
    let (b, told_b) = pair.start(options).await;
    until("up again", || a.is_up(B) && b.is_up(A)).await;
    assert!(told_a.has(|told| matches!(told, Told::Up(B, Boot(8), _))));
    let new = a.outbox(B).expect("up");
    assert_eq!(new.append(&reps([vec![1]]).0, 1), Ok(1), "a new link counts from one");
    until("a change", || told_b.reps() == 1).await;
    told_a.assert_alternates(B);
    assert_eq!(a.counters(B).expect("a peer").links_up.read(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dialer_that_restarts_is_let_in_again() {
    let (mut pair, [(a, _), (b, told_b)]) = Pair::both().await;
    a.shutdown().await;
    until("down", || !b.is_up(A)).await;
    let (a, _) = pair.start(pair.options(A)).await;
    until("up again", || a.is_up(B) && b.is_up(A)).await;
    told_b.assert_alternates(A);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_links_live_by_pings() {
    let mut pair = Pair::bind().await;
    let mut links = Vec::new();
    for node in [A, B] {
        let mut options = pair.options(node);
        options.ping_every = Duration::from_millis(20);
        options.silence_max = Duration::from_millis(400);
        links.push(pair.start(options).await);
    }
    let counters = links[0].0.counters(B).expect("a peer");
    until("many pongs", || counters.frames_in.read() > 100).await;
    assert!(counters.round_trip_us.read() > 0);
    assert_eq!(counters.links_down.read(), 0);
    assert!(!links[1].1.has(|told| matches!(told, Told::Other(_))), "pings are not shown");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_the_inbox_rejects_is_tried_again() {
    for rejecting in [A, B] {
        let mut pair = Pair::bind().await;
        let (a, told_a) = pair.start(pair.options(A)).await;
        // Nobody accepts yet, so the diaries are still in time.
        let listener = pair.listeners.remove(&B).expect("bound");
        let told_b = Arc::new(Diary::default());
        let rejects = if rejecting == A { &told_a } else { &told_b };
        rejects.rejections.lock().push_back("not now".to_owned());
        let b = Links::start(pair.options(B), told_b.clone(), listener).expect("randomness");
        until("up in the end", || a.is_up(B) && b.is_up(A)).await;
        let error = if rejecting == A {
            HelloError::Rejected("not now".to_owned())
        } else {
            HelloError::Refused(Refusal::Rejected)
        };
        let failed = Told::Unreachable(B, DownReason::Handshake(error));
        assert!(told_a.has(|told| *told == failed));
        told_a.assert_alternates(B);
        told_b.assert_alternates(A);
    }
}

/// A node that is made by hand: connects to B as A and shakes hands.
async fn by_hand(pair: &Pair, run: u64, boot: Boot) -> Result<TcpStream, HelloError> {
    let mut socket = TcpStream::connect(&pair.members[&B]).await.expect("B listens");
    let me = Identity {
        cluster: ClusterId::of("test"),
        node: A,
        boot,
        run,
        key: ProofKey::of(b"secret"),
    };
    handshake::dial(&mut socket, &me, B, Channel::Data, [run as u8; 32], b"by hand").await?;
    Ok(socket)
}

/// Waits until the other end closes, whatever it says before.
async fn hears_the_end(socket: &mut TcpStream) {
    let mut heard = Vec::new();
    let end = timeout(Duration::from_secs(20), socket.read_to_end(&mut heard)).await;
    let _ = end.expect("the other end closes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_link_replaces_the_old_one_and_a_double_is_refused() {
    let mut pair = Pair::bind().await;
    let (b, told_b) = pair.start(pair.options(B)).await;
    let mut first = by_hand(&pair, 1, Boot(1)).await.expect("a link");
    let duplicate = by_hand(&pair, 2, Boot(1)).await.expect_err("another process, the same life");
    assert_eq!(duplicate, HelloError::Refused(Refusal::DuplicateNode));
    assert!(b.is_up(A), "the first stays");
    let mut second = by_hand(&pair, 1, Boot(1)).await.expect("the same process has lost its link");
    hears_the_end(&mut first).await;
    let _third = by_hand(&pair, 3, Boot(2)).await.expect("a newer life");
    hears_the_end(&mut second).await;
    until("up", || matches!(b.state(A), Some(LinkState::Up { boot: Boot(2), .. }))).await;
    assert_eq!(told_b.count(|told| *told == Told::Down(A, DownReason::Replaced)), 2);
    told_b.assert_alternates(A);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_peer_is_given_up() {
    let mut pair = Pair::bind().await;
    let mut options = pair.options(B);
    options.ping_every = Duration::from_millis(10);
    options.silence_max = Duration::from_millis(100);
    let (_b, told_b) = pair.start(options).await;
    let _socket = by_hand(&pair, 1, Boot(1)).await.expect("a link");
    let silent = Told::Down(A, DownReason::Silent);
    until("given up", || told_b.has(|told| *told == silent)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_on_an_open_link_closes_it() {
    let mut unknown = BytesMut::new();
    unknown.put_u32(1);
    unknown.put_u8(200);
    let mut claim = 0x7FFF_FFFFu32.to_le_bytes().to_vec();
    claim.put_u32(0);
    let check = crc32fast::hash(&claim);
    claim.put_u32(check);
    let mut damaged = frame::head(&unknown).to_vec();
    damaged.put(b"other");
    let known = [&frame::head(&unknown), &unknown[..]].concat();
    for nonsense in [known, claim, damaged] {
        let mut pair = Pair::bind().await;
        let (b, told_b) = pair.start(pair.options(B)).await;
        let mut socket = by_hand(&pair, 1, Boot(1)).await.expect("a link");
        socket.write_all(&nonsense).await.expect("sent");
        hears_the_end(&mut socket).await;
        until("down", || {
            told_b.has(|told| matches!(told, Told::Down(A, DownReason::Malformed(_))))
        })
        .await;
        assert!(!b.is_up(A));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_do_not_disturb_a_link() {
    let mut pair = Pair::bind().await;
    let mut options = pair.options(B);
    options.handshake_max = Duration::from_millis(300);
    options.strangers_max = 8;
    let (b, told_b) = pair.start(options).await;
    let (a, _) = pair.start(pair.options(A)).await;
    until("link up", || a.is_up(B) && b.is_up(A)).await;
    let at = &pair.members[&B];
    // Garbage, a claim over the limit, an HTTP client.
    for says in [&b"\x00\x01\x02\x03\x04\x05\x06\x07"[..], b"KVPR\x01\xFF\xFF", b"GET / HTTP/1.1"] {
        let mut socket = TcpStream::connect(at).await.expect("B listens");
        socket.write_all(says).await.expect("sent");
        hears_the_end(&mut socket).await;
    }
    // Slow ones: a byte, then nothing. More of them than are let in at once.
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut socket = TcpStream::connect(at).await.expect("B listens");
        let _ = socket.write_all(b"K").await;
        slow.push(socket);
    }
    for socket in &mut slow {
        hears_the_end(socket).await;
    }
    assert!(b.strangers_refused() >= 23);
    a.outbox(B).expect("still up").append(&reps([vec![1]]).0, 1).expect("room");
    until("a change", || told_b.reps() == 1).await;
    assert_eq!(told_b.count(|told| matches!(told, Told::Up(..))), 1);
    told_b.assert_alternates(A);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_secrets_and_clusters_are_told_so_to_the_dialer() {
    type Change = fn(&mut Options);
    let cases: [(Change, Refusal); 3] = [
        (|options| options.secret.0.push(b'!'), Refusal::WrongSecret),
        (|options| options.cluster.push('!'), Refusal::WrongCluster),
        (|options| _ = options.members.remove(&A), Refusal::UnknownNode),
    ];
    for (change, refusal) in cases {
        let mut pair = Pair::bind().await;
        let mut options = pair.options(B);
        change(&mut options);
        let (_b, told_b) = pair.start(options).await;
        let (a, told_a) = pair.start(pair.options(A)).await;
        let reason = DownReason::Handshake(HelloError::Refused(refusal));
        let failed = Told::Unreachable(B, reason.clone());
        until("the refusal", || told_a.count(|told| *told == failed) >= 2).await;
        assert!(matches!(a.state(B), Some(LinkState::Down { reason: why, .. }) if why == reason));
        assert!(!told_b.has(|told| matches!(told, Told::Up(..) | Told::Gossip(..))));
        assert!(!a.gossip().is_up(B), "gossip asks for the same proof");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_is_sent_before_a_shutdown() {
    let (_pair, [(a, _), (_b, told_b)]) = Pair::both().await;
    let (frames, count) = reps((0..5000u32).map(|n| n.to_le_bytes().to_vec()));
    a.outbox(B).expect("up").append(&frames, count).expect("room");
    a.shutdown().await;
    until("all changes", || told_b.reps() == 5000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_leaves_says_goodbye() {
    let (_pair, [(a, told_a), (_b, told_b)]) = Pair::both().await;
    a.shutdown().await;
    until("down", || told_b.has(|told| matches!(told, Told::Down(A, _)))).await;
    assert!(told_b.has(|told| *told == Told::Down(A, DownReason::Goodbye)));
    assert!(told_a.has(|told| *told == Told::Down(B, DownReason::Asked)));
}

fn gossip_from(node: NodeId, body: &[u8]) -> Told {
    Told::Gossip(node, body.to_vec(), Some("gossip".to_owned()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gossip_goes_both_ways_on_a_thread_of_its_own() {
    let (_pair, [(a, told_a), (b, told_b)]) = Pair::both().await;
    until("gossip links", || a.gossip().is_up(B) && b.gossip().is_up(A)).await;
    assert_eq!(a.gossip().send(B, b"from a"), Sent::Taken);
    assert_eq!(b.gossip().send(A, b"from b"), Sent::Taken);
    assert_eq!(a.gossip().send(NodeId(9), b"nobody"), Sent::NoLink);
    until("both", || {
        told_b.has(|told| *told == gossip_from(A, b"from a"))
            && told_a.has(|told| *told == gossip_from(B, b"from b"))
    })
    .await;
    let thread = a.gossip().runtime().spawn(async { std::thread::current().name().map(str::len) });
    assert_eq!(thread.await.expect("no panic"), Some("gossip".len()));
    told_b.assert_alternates(A);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gossip_finds_a_restarted_peer_and_a_refusing_one() {
    let (mut pair, [(a, _), (b, told_b)]) = Pair::both().await;
    until("gossip links", || a.gossip().is_up(B) && b.gossip().is_up(A)).await;
    a.shutdown().await;
    drop(a);
    // The node with the higher id, which dials no data link, learns it as well.
    until("refused", || told_b.has(|told| *told == Told::Refused(A))).await;
    assert_eq!(b.gossip().send(A, b"nobody hears"), Sent::NoLink);
    let (_a, told_a) = pair.start(pair.options(A)).await;
    until("gossip again", || {
        b.gossip().send(A, b"again");
        told_a.has(|told| *told == gossip_from(B, b"again"))
    })
    .await;
    assert!(b.gossip().counters(A).expect("a peer").refused.read() > 0);
}

#[tokio::test]
async fn gossip_comes_in_time_while_the_main_runtime_is_busy() {
    let (_pair, [(a, _), (_b, told_b)]) = Pair::both().await;
    until("gossip link", || a.gossip().is_up(B)).await;
    // The only thread of this runtime does not yield: everything else on it stands still.
    let begun = Instant::now();
    assert_eq!(a.gossip().send(B, b"in time"), Sent::Taken);
    while !told_b.has(|told| *told == gossip_from(A, b"in time")) {
        assert!(begun.elapsed() < Duration::from_secs(5), "gossip waits for the main runtime");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Accepts one gossip connection at B's address by hand, and leaves it alone.
async fn accept_gossip(listener: &TcpListener) -> TcpStream {
    loop {
        let (mut socket, _) = listener.accept().await.expect("a connection");
        let me = Identity {
            cluster: ClusterId::of("test"),
            node: B,
            boot: Boot(1),
            run: 1,
            key: ProofKey::of(b"secret"),
        };
        let Ok(proved) = handshake::hear(&mut socket, &me, |_| true, [3; 32]).await else {
            continue;
        };
        if proved.remote.channel == Channel::Gossip {
            proved.accept(&mut socket, &[]).await.expect("proved");
            return socket;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gossip_to_a_peer_that_does_not_read_is_dropped_and_goes_on_whole() {
    let mut pair = Pair::bind().await;
    let listener = pair.listeners.remove(&B).expect("bound");
    let (a, _) = pair.start(pair.options(A)).await;
    let mut socket = accept_gossip(&listener).await;
    until("gossip link", || a.gossip().is_up(B)).await;
    let mut taken = 0;
    while a.gossip().send(B, &[7; 3000]) == Sent::Taken {
        taken += 1;
        assert!(taken < 10_000, "it never fills");
        tokio::task::yield_now().await;
    }
    assert!(a.gossip().counters(B).expect("a peer").dropped.read() > 0);
    // What was taken arrives whole, once the peer reads; and then there is room again.
    let mut wire = Vec::new();
    let (mut heard, full) = (0, taken);
    let begun = Instant::now();
    while heard < full + 10 {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "heard {heard}, {full} were taken at first"
        );
        // Each call moves on what was begun.
        let sent = a.gossip().send(B, &[7; 3000]);
        taken += usize::from(sent == Sent::Taken);
        assert!(heard <= taken);
        let mut some = [0; 4096];
        let read = timeout(Duration::from_millis(5), socket.read(&mut some)).await;
        if let Ok(Ok(count)) = read {
            wire.extend_from_slice(&some[..count]);
        }
        let whole = frame::scan(&wire, 1 << 16).expect("undamaged").whole;
        heard += Batch::of_envelopes(&wire[..whole], 0, 1 << 16).count();
        wire.drain(..whole);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_on_a_gossip_connection_closes_it() {
    let mut pair = Pair::bind().await;
    let (b, told_b) = pair.start(pair.options(B)).await;
    let mut status = BytesMut::new();
    Message::Status { body: b"not gossip" }.encode(&mut status);
    let mut claim = (200u32 << 10).to_le_bytes().to_vec();
    claim.put_u32(0);
    let check = crc32fast::hash(&claim);
    claim.put_u32(check);
    for nonsense in [[&frame::head(&status)[..], &status].concat(), claim, vec![1; 64]] {
        let mut socket = TcpStream::connect(&pair.members[&B]).await.expect("B listens");
        let me = Identity {
            cluster: ClusterId::of("test"),
            node: A,
            boot: Boot(1),
            run: 1,
            key: ProofKey::of(b"secret"),
        };
        let met = handshake::dial(&mut socket, &me, B, Channel::Gossip, [4; 32], &[]).await;
        met.expect("a gossip connection");
        socket.write_all(&nonsense).await.expect("sent");
        hears_the_end(&mut socket).await;
    }
    assert!(!told_b.has(|told| matches!(told, Told::Gossip(..) | Told::Up(..))));
    assert!(!b.is_up(A));
}
