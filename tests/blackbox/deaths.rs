//! Processes die, in order and out of it: what was acknowledged stays, what was refused never was.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::support::client::{Client, Value};
use crate::support::cluster::Cluster;

/// Commands in one pipeline of the load.
const BATCH: u64 = 16;

/// Longest time after a death until writes go through again without an error.
const HEALED_WITHIN: Duration = Duration::from_secs(15);

/// A client that writes keys nobody wrote before, for as long as it is let.
struct Writer {
    is_over: Arc<AtomicBool>,
    /// Batches without an error since the last one with any.
    clean: Arc<AtomicU64>,
    thread: JoinHandle<BTreeMap<String, String>>,
}

impl Writer {
    fn start(name: &'static str, node: SocketAddr) -> Writer {
        let is_over = Arc::new(AtomicBool::new(false));
        let clean = Arc::new(AtomicU64::new(0));
        let (over, count) = (Arc::clone(&is_over), Arc::clone(&clean));
        let thread = thread::spawn(move || {
            let mut acknowledged = BTreeMap::new();
            let mut client = None;
            for batch in 0.. {
                if over.load(Ordering::SeqCst) {
                    break;
                }
                let before = acknowledged.len();
                let pairs: Vec<_> = (0..BATCH)
                    .map(|i| (format!("{name}:{batch}:{i}"), format!("value {batch}.{i}")))
                    .collect();
                if write(&mut client, node, &pairs, &mut acknowledged).is_none() {
                    client = None;
                    thread::sleep(Duration::from_millis(20));
                }
                if acknowledged.len() == before + pairs.len() {
                    count.fetch_add(1, Ordering::SeqCst);
                } else {
                    count.store(0, Ordering::SeqCst);
                }
            }
            acknowledged
        });
        Writer { is_over, clean, thread }
    }

    /// Waits until a run of batches has gone through without an error from now on.
    fn await_clean(&self, within: Duration) {
        self.clean.store(0, Ordering::SeqCst);
        let start = Instant::now();
        while self.clean.load(Ordering::SeqCst) < 20 {
            assert!(start.elapsed() < within, "writes fail for more than {within:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Every pair that was acknowledged.
    fn finish(self) -> BTreeMap<String, String> {
        self.is_over.store(true, Ordering::SeqCst);
        self.thread.join().expect("a writer does not panic")
    }
}

/// Sends one pipeline of SETs; `None` when the connection is of no more use.
fn write(
    client: &mut Option<Client>,
    node: SocketAddr,
    pairs: &[(String, String)],
    acknowledged: &mut BTreeMap<String, String>,
) -> Option<()> {
    if client.is_none() {
        *client = Some(Client::connect_within(node, Duration::from_secs(3)).ok()?);
    }
    let client = client.as_mut()?;
    for (key, value) in pairs {
        client.send(&["SET", key, value]).ok()?;
    }
    for (key, value) in pairs {
        match client.receive().ok()? {
            reply if reply == Value::ok() => {
                acknowledged.insert(key.clone(), value.clone());
            }
            Value::Error(_) => {}
            reply => panic!("SET answered {reply:?}"),
        }
    }
    Some(())
}

/// Asserts that `node` answers every one of `pairs`. It may refuse for a while, as nodes find each
/// other again; a wrong answer is wrong at once.
fn assert_readable(cluster: &Cluster, node: usize, pairs: &BTreeMap<String, String>) {
    let mut client = cluster.client(node);
    let mut left: Vec<_> = pairs.iter().collect();
    let start = Instant::now();
    while !left.is_empty() {
        let mut lost = Vec::new();
        left = read(&mut client, &left, &mut lost);
        let shown = lost.iter().take(10).cloned().collect::<Vec<_>>().join("\n");
        assert!(lost.is_empty(), "node {node} lost {} of {}:\n{shown}", lost.len(), pairs.len());
        let refused = left.len();
        assert!(start.elapsed() < HEALED_WITHIN, "node {node} refuses {refused} of its keys");
    }
}

/// Reads `pairs`: answers those that were refused, and puts what was answered wrongly into `lost`.
fn read<'a>(
    client: &mut Client,
    pairs: &[(&'a String, &'a String)],
    lost: &mut Vec<String>,
) -> Vec<(&'a String, &'a String)> {
    let mut refused = Vec::new();
    for chunk in pairs.chunks(200) {
        for (key, _) in chunk {
            client.send(&["GET", key]).expect("the node takes commands");
        }
        for &(key, value) in chunk {
            match client.receive().expect("an answer") {
                reply if reply == Value::bulk(value) => {}
                reply if reply.is_refusal() => refused.push((key, value)),
                reply => lost.push(format!("{key}: {reply:?} for {value:?}")),
            }
        }
    }
    refused
}

#[test]
fn kill_one_node() {
    let mut cluster = Cluster::start(3, 3, 1, 2);
    let writers = [
        Writer::start("a", cluster.address(1)),
        Writer::start("b", cluster.address(2)),
        Writer::start("c", cluster.address(3)),
    ];
    writers.iter().for_each(|writer| writer.await_clean(HEALED_WITHIN));
    thread::sleep(Duration::from_secs(1));
    cluster.kill(3);
    writers[..2].iter().for_each(|writer| writer.await_clean(HEALED_WITHIN));
    thread::sleep(Duration::from_secs(1));
    let mut acknowledged = BTreeMap::new();
    for (name, writer) in ["a", "b", "c"].iter().zip(writers) {
        let written = writer.finish();
        println!("writer {name}: {} acknowledged", written.len());
        assert!(!written.is_empty());
        acknowledged.extend(written);
    }
    assert_readable(&cluster, 1, &acknowledged);
    assert_readable(&cluster, 2, &acknowledged);
    cluster.restart(3);
    cluster.await_all();
    for node in 1..=3 {
        assert_readable(&cluster, node, &acknowledged);
    }
}

/// Sets each key until none of the answers is anything but `-NOQUORUM`, for some keys to spare.
fn await_no_quorum(client: &mut Client) {
    let start = Instant::now();
    loop {
        let replies: Vec<_> = (0..100)
            .map(|i| client.call(&["SET", &format!("probe:{i}"), "x"]).expect("an answer"))
            .collect();
        if replies.iter().all(|reply| reply.error_code() == Some("NOQUORUM")) {
            return;
        }
        assert!(start.elapsed() < HEALED_WITHIN, "not refused: {:?}", replies.last());
    }
}

#[test]
fn too_few_for_w_refuse_and_change_nothing() {
    let mut cluster = Cluster::start(3, 3, 1, 3);
    let old: BTreeMap<String, String> =
        (0..300).map(|i| (format!("key:{i}"), format!("old {i}"))).collect();
    let mut client = cluster.client(1);
    for (key, value) in &old {
        assert_eq!(client.call(&["SET", key, value]).expect("an answer"), Value::ok(), "{key}");
    }
    cluster.kill(3);
    for node in [1, 2] {
        let mut client = cluster.client(node);
        await_no_quorum(&mut client);
        for key in old.keys() {
            for args in [vec!["SET", key, "new"], vec!["DEL", key], vec!["APPEND", key, "new"]] {
                let reply = client.call(&args).expect("an answer");
                assert_eq!(reply.error_code(), Some("NOQUORUM"), "{args:?}: {reply:?}");
            }
        }
        for (key, value) in &old {
            // A read may be refused as well: with N=3 and W=3 two replicas prove nothing.
            let reply = client.call(&["GET", key]).expect("an answer");
            assert!(
                reply == Value::bulk(value) || reply.is_refusal(),
                "{key}: {reply:?} for {value:?}"
            );
        }
    }
    cluster.restart(3);
    cluster.await_all();
    for node in 1..=3 {
        assert_readable(&cluster, node, &old);
    }
    let start = Instant::now();
    while cluster.client(2).say("SET key:0 new").expect("an answer") != Value::ok() {
        assert!(start.elapsed() < HEALED_WITHIN, "all nodes are back, but writes are refused");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_node_alone_ends_in_order_and_starts_again() {
    let mut cluster = Cluster::start(1, 1, 1, 1);
    let writer = Writer::start("a", cluster.address(1));
    writer.await_clean(HEALED_WITHIN);
    let status = cluster.terminate(1);
    assert!(status.success(), "SIGTERM ended it with {status}");
    cluster.restart(1);
    writer.await_clean(HEALED_WITHIN);
    cluster.kill(1);
    cluster.restart(1);
    writer.await_clean(HEALED_WITHIN);
    writer.finish();
}

#[test]
fn every_node_may_be_restarted_in_turn() {
    let mut cluster = Cluster::start(3, 3, 1, 2);
    let writers = [Writer::start("a", cluster.address(1)), Writer::start("b", cluster.address(2))];
    for node in [3, 2, 1] {
        writers.iter().for_each(|writer| writer.await_clean(HEALED_WITHIN));
        let status = cluster.terminate(node);
        assert!(status.success(), "SIGTERM ended node {node} with {status}");
        cluster.restart(node);
        cluster.await_all();
    }
    writers.iter().for_each(|writer| writer.await_clean(HEALED_WITHIN));
    let mut acknowledged = BTreeMap::new();
    writers.into_iter().for_each(|writer| acknowledged.extend(writer.finish()));
    for node in 1..=3 {
        assert_readable(&cluster, node, &acknowledged);
    }
}
