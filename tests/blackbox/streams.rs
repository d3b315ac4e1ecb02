//! A node that was away is sent what it missed; only what was dropped is found by comparing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::support::client::{Client, Value};
use crate::support::cluster::{Cluster, Options};
use crate::support::filler::noise;
use crate::support::poll::until;

/// Longest time until nodes that see each other again are through with it.
const CALM_WITHIN: Duration = Duration::from_secs(30);

/// SETs in one pipeline.
const BATCH: usize = 50;

/// Sets `pairs` and answers those that were acknowledged.
fn set(client: &mut Client, pairs: Vec<(String, String)>) -> BTreeMap<String, String> {
    let mut acknowledged = BTreeMap::new();
    for chunk in pairs.chunks(BATCH) {
        for (key, value) in chunk {
            client.send(&["SET", key, value]).expect("the node takes commands");
        }
        for (key, value) in chunk {
            match client.receive().expect("an answer") {
                reply if reply == Value::ok() => {
                    _ = acknowledged.insert(key.clone(), value.clone())
                }
                Value::Error(_) => {}
                reply => panic!("SET {key} answered {reply:?}"),
            }
        }
    }
    acknowledged
}

/// Keys with values of `size` letters that nothing makes shorter.
fn pairs(name: &str, count: usize, size: usize) -> Vec<(String, String)> {
    let letters =
        |i| noise(i as u64, size).iter().map(|byte| char::from(b'A' + byte % 58)).collect();
    (0..count).map(|i| (format!("{name}:{i}"), letters(i))).collect()
}

fn number(cluster: &Cluster, node: usize, field: &str) -> u64 {
    let section = if field == "vnodes_unsettled" { "quorum" } else { "peers" };
    let text = cluster.client(node).info(section, field).expect("INFO");
    text.parse().unwrap_or_else(|_| panic!("{field} of node {node} is {text:?}"))
}

fn total(cluster: &Cluster, nodes: &[usize], field: &str) -> u64 {
    nodes.iter().map(|&node| number(cluster, node, field)).sum()
}

/// Waits until nothing is kept for anybody, and nothing is left to compare.
fn await_calm(cluster: &Cluster, nodes: &[usize], peers: u64) {
    until("the nodes are through with each other", CALM_WITHIN, || {
        for &node in nodes {
            let field = |name| number(cluster, node, name);
            let left = (field("vnodes_unsettled"), field("stream_backlog_bytes"));
            let connected = field("connected_peers");
            if left != (0, 0) || connected != peers {
                return Err(format!("node {node}: {left:?}, {connected} peers"));
            }
        }
        Ok(())
    });
}

/// Asserts that `node` itself holds all of `pairs`.
fn assert_held(cluster: &Cluster, node: usize, pairs: &BTreeMap<String, String>) {
    let mut client = cluster.client(node);
    assert_eq!(client.say("READONLY").expect("an answer"), Value::ok());
    let before = client.info("quorum", "forwarded").expect("INFO");
    let all: Vec<_> = pairs.iter().collect();
    for chunk in all.chunks(BATCH) {
        for (key, _) in chunk {
            client.send(&["GET", key]).expect("the node takes commands");
        }
        for (key, value) in chunk {
            assert_eq!(client.receive().expect("an answer"), Value::bulk(value), "{key}");
        }
    }
    assert_eq!(client.info("quorum", "forwarded").expect("INFO"), before, "asked somebody else");
}

/// Writes until it is told to stop.
struct Load {
    over: Arc<AtomicBool>,
    thread: JoinHandle<BTreeMap<String, String>>,
}

impl Load {
    fn start(name: &'static str, mut client: Client) -> Load {
        let over = Arc::new(AtomicBool::new(false));
        let until_then = Arc::clone(&over);
        let thread = thread::spawn(move || {
            let mut acknowledged = BTreeMap::new();
            for batch in 0.. {
                if until_then.load(Ordering::SeqCst) {
                    break;
                }
                let some = pairs(&format!("{name}:{batch}"), BATCH, 100);
                acknowledged.extend(set(&mut client, some));
                thread::sleep(Duration::from_millis(2));
            }
            acknowledged
        });
        Load { over, thread }
    }

    fn finish(self) -> BTreeMap<String, String> {
        self.over.store(true, Ordering::SeqCst);
        self.thread.join().expect("a writer does not panic")
    }
}

#[test]
fn a_cut_link_is_resumed_and_nothing_is_exchanged() {
    // A comparison by turns may meet a write on its way, and send it once more.
    let options = Options::new(3, 3, 1, 2).args("--exchange-interval 0").cuttable();
    let cluster = Cluster::with(options);
    await_calm(&cluster, &[1, 2, 3], 2);
    let gaps = total(&cluster, &[1, 2, 3], "stream_gaps");
    for round in 0..3 {
        let resumed = total(&cluster, &[1, 3], "streams_resumed");
        let changes = total(&cluster, &[1, 3], "stream_changes_resumed");
        cluster.split(&[1], &[3]);
        until("both see it", CALM_WITHIN, || {
            let peers =
                (number(&cluster, 1, "connected_peers"), number(&cluster, 3, "connected_peers"));
            if peers == (1, 1) { Ok(()) } else { Err(format!("{peers:?} peers")) }
        });
        let mut held = set(&mut cluster.client(1), pairs(&format!("a{round}"), 500, 50));
        held.extend(set(&mut cluster.client(3), pairs(&format!("c{round}"), 500, 50)));
        assert!(held.len() > 500, "{} were acknowledged", held.len());
        // What the loss itself made them compare is over.
        until("nothing is left to compare", CALM_WITHIN, || {
            let left = total(&cluster, &[1, 2, 3], "vnodes_unsettled");
            if left == 0 { Ok(()) } else { Err(format!("{left} vnodes")) }
        });
        let shipped = total(&cluster, &[1, 2, 3], "exchange_entries_sent");
        cluster.heal();
        await_calm(&cluster, &[1, 2, 3], 2);
        for node in 1..=3 {
            assert_held(&cluster, node, &held);
        }
        assert_eq!(total(&cluster, &[1, 2, 3], "exchange_entries_sent"), shipped);
        assert_eq!(total(&cluster, &[1, 3], "streams_resumed"), resumed + 2);
        assert!(total(&cluster, &[1, 3], "stream_changes_resumed") > changes);
    }
    assert_eq!(total(&cluster, &[1, 2, 3], "stream_gaps"), gaps);
}

#[test]
fn a_receiver_killed_under_load_is_sent_what_it_missed() {
    let mut cluster = Cluster::start(3, 3, 1, 2);
    await_calm(&cluster, &[1, 2, 3], 2);
    let gaps = total(&cluster, &[1, 2], "stream_gaps");
    let loads = [Load::start("a", cluster.client(1)), Load::start("b", cluster.client(2))];
    thread::sleep(Duration::from_millis(500));
    cluster.kill(3);
    thread::sleep(Duration::from_millis(1_500));
    let kept = total(&cluster, &[1, 2], "stream_backlog_bytes");
    cluster.restart(3);
    thread::sleep(Duration::from_millis(500));
    let mut held = BTreeMap::new();
    loads.into_iter().for_each(|load| held.extend(load.finish()));
    await_calm(&cluster, &[1, 2, 3], 2);
    assert_held(&cluster, 3, &held);
    assert!(kept > 100_000, "{kept} bytes were kept");
    assert!(total(&cluster, &[1, 2], "stream_changes_resumed") > 1_000);
    assert_eq!(total(&cluster, &[1, 2], "stream_gaps"), gaps, "node 3 was told of a gap");
}

#[test]
fn a_backlog_over_its_bound_is_compared_instead() {
    let mut cluster = Cluster::with(Options::new(3, 3, 1, 2).args("--stream-backlog-size 1mb"));
    await_calm(&cluster, &[1, 2, 3], 2);
    let gaps = total(&cluster, &[1, 2], "stream_gaps");
    cluster.kill(3);
    let mut held = BTreeMap::new();
    let (mut one, mut two) = (cluster.client(1), cluster.client(2));
    for round in 0..8 {
        held.extend(set(&mut one, pairs(&format!("a{round}"), 500, 1_000)));
        held.extend(set(&mut two, pairs(&format!("b{round}"), 500, 1_000)));
        for node in [1, 2] {
            assert!(number(&cluster, node, "stream_backlog_bytes") <= 1 << 20);
        }
    }
    assert!(total(&cluster, &[1, 2], "stream_backlogs_dropped") >= 2);
    cluster.restart(3);
    await_calm(&cluster, &[1, 2, 3], 2);
    assert_held(&cluster, 3, &held);
    assert!(total(&cluster, &[1, 2], "stream_gaps") >= gaps + 2);
    // The comparison has closed the gap: a restart is a matter of streams again.
    let gaps = total(&cluster, &[1, 2], "stream_gaps");
    cluster.kill(3);
    cluster.restart(3);
    await_calm(&cluster, &[1, 2, 3], 2);
    assert_eq!(total(&cluster, &[1, 2], "stream_gaps"), gaps);
}
