//! R + W > N is linearizable while nodes freeze and die; R + W ≤ N is not, and the judge sees it.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::client::{Client, Value};
use crate::support::cluster::{Cluster, Options};
use crate::support::linearizable::{Act, Event, is_linearizable};

type Histories = BTreeMap<String, Vec<Event>>;

/// What the clients of one test share.
struct Stage {
    start: Instant,
    is_over: AtomicBool,
    /// The next value nobody has written.
    value: AtomicU64,
    /// Commands answered without an error.
    answered: AtomicUsize,
    keys: Vec<String>,
}

impl Stage {
    fn new(keys: usize) -> Arc<Stage> {
        Arc::new(Stage {
            start: Instant::now(),
            is_over: AtomicBool::new(false),
            value: AtomicU64::new(1),
            answered: AtomicUsize::new(0),
            keys: (0..keys).map(|i| format!("register:{i}")).collect(),
        })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).expect("tests are short")
    }

    /// One client's life: commands drawn by `seed` on one node, until the stage is over.
    fn play(&self, node: SocketAddr, seed: u64) -> Histories {
        let mut chance = seed;
        let mut draw = |below: u64| {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (chance >> 33) % below
        };
        let mut histories = Histories::new();
        let mut client = None;
        while !self.is_over.load(Ordering::SeqCst) {
            let key = &self.keys[draw(self.keys.len() as u64) as usize];
            let act = match draw(20) {
                0..9 => Act::Read(None),
                9..18 => Act::Write(Some(self.value.fetch_add(1, Ordering::SeqCst))),
                _ => Act::Write(None),
            };
            let event = self.act(&mut client, node, key, act);
            histories.entry(key.clone()).or_default().extend(event);
        }
        histories
    }

    /// Runs one command; `None` when it certainly had no effect and answered nothing.
    fn act(
        &self,
        client: &mut Option<Client>,
        node: SocketAddr,
        key: &str,
        act: Act,
    ) -> Option<Event> {
        if client.is_none() {
            *client = Client::connect_within(node, Duration::from_secs(2)).ok();
        }
        let Some(open) = client else {
            thread::sleep(Duration::from_millis(20));
            return None;
        };
        let call = self.now();
        let reply = command(open, key, act);
        let returned = Some(self.now());
        if reply.is_err() {
            *client = None;
        }
        match reply {
            Ok(reply) if reply.is_refusal() => {
                thread::sleep(Duration::from_millis(1));
                None
            }
            Ok(reply) if reply.error_code().is_none() => {
                self.answered.fetch_add(1, Ordering::SeqCst);
                Some(Event { act: seen(act, &reply), call, returned })
            }
            // Nobody knows whether it happened.
            Ok(_) | Err(_) => Some(Event { act, call, returned: None }),
        }
    }

    /// Lets time pass, and answers how many commands were answered in it.
    fn pass(&self, time: Duration) -> usize {
        let before = self.answered.load(Ordering::SeqCst);
        thread::sleep(time);
        self.answered.load(Ordering::SeqCst) - before
    }
}

fn command(client: &mut Client, key: &str, act: Act) -> io::Result<Value> {
    match act {
        Act::Read(_) => client.call(&["GET", key]),
        Act::Write(None) => client.call(&["DEL", key]),
        Act::Write(Some(value)) => client.call(&["SET", key, &value.to_string()]),
    }
}

/// The act with what a read answered.
fn seen(act: Act, reply: &Value) -> Act {
    match (act, reply) {
        (Act::Read(_), Value::Bulk(bytes)) => {
            let text = String::from_utf8_lossy(bytes);
            Act::Read(Some(text.parse().unwrap_or_else(|_| panic!("nobody wrote {text:?}"))))
        }
        (Act::Read(_), nothing) if nothing.is_nothing() => Act::Read(None),
        (Act::Write(Some(_)), reply) if *reply == Value::ok() => act,
        (Act::Write(None), Value::Integer(0 | 1)) => act,
        _ => panic!("{act:?} answered {reply:?}"),
    }
}

fn assert_linearizable(histories: &Histories) {
    for (key, events) in histories {
        println!("{key}: {} commands", events.len());
        if !is_linearizable(events) {
            let mut events = events.clone();
            events.sort_by_key(|event| event.call);
            // The shortest bad beginning is what a person can read.
            let is_bad = |len: usize| !is_linearizable(&completed_before(&events, len));
            let bad = (1..=events.len()).collect::<Vec<_>>().partition_point(|&len| !is_bad(len));
            let from = bad.saturating_sub(30);
            let shown: Vec<_> =
                events[from..=bad.min(events.len() - 1)].iter().map(|e| format!("{e:?}")).collect();
            panic!("{key} has no order; up to the first contradiction:\n{}", shown.join("\n"));
        }
    }
}

/// The first `len` events as they looked before the next was called.
fn completed_before(events: &[Event], len: usize) -> Vec<Event> {
    let end = events.get(len).map_or(u64::MAX, |event| event.call);
    let cut = |event: &Event| Event { returned: event.returned.filter(|&at| at < end), ..*event };
    events[..len].iter().map(cut).collect()
}

#[test]
fn quorum_is_linearizable() {
    let mut cluster = Cluster::start(3, 3, 2, 2);
    let stage = Stage::new(5);
    let clients: Vec<_> = (0..6)
        .map(|i| {
            let (stage, node) = (Arc::clone(&stage), cluster.address(i % 3 + 1));
            thread::spawn(move || stage.play(node, 1_000 + i as u64))
        })
        .collect();
    let mut story = vec![("healthy", stage.pass(Duration::from_millis(1_500)))];
    cluster.stop(3);
    story.push(("node 3 frozen", stage.pass(Duration::from_secs(5))));
    cluster.resume(3);
    story.push(("node 3 back", stage.pass(Duration::from_secs(2))));
    cluster.kill(2);
    story.push(("node 2 dead", stage.pass(Duration::from_secs(5))));
    cluster.restart(2);
    cluster.await_all();
    story.push(("node 2 back", stage.pass(Duration::from_secs(2))));
    stage.is_over.store(true, Ordering::SeqCst);
    let mut histories = Histories::new();
    for client in clients {
        for (key, events) in client.join().expect("a client does not panic") {
            histories.entry(key).or_default().extend(events);
        }
    }
    println!("{story:?}");
    assert_linearizable(&histories);
    for (when, answered) in story {
        assert!(answered >= 50, "{when}: only {answered} answers");
    }
}

/// Which node coordinates `key`, as the cluster itself explains it.
fn coordinator(client: &mut Client, key: &str) -> usize {
    let text = client.call(&["KV.EXPLAIN", key]).expect("an answer").text();
    let found = text.to_ascii_lowercase().split_once("coordinator").and_then(|(_, rest)| {
        let digits = rest.trim_start_matches(|c: char| !c.is_ascii_digit());
        digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    });
    found.unwrap_or_else(|| panic!("KV.EXPLAIN names no coordinator: {text}"))
}

#[test]
fn r1w1_is_not() {
    let mut cluster = Cluster::with(Options::new(3, 3, 1, 1).cuttable());
    let stage = Stage::new(1);
    let key = &stage.keys[0];
    let first = coordinator(&mut cluster.client(1), key);
    let others: Vec<usize> = (1..=3).filter(|&node| node != first).collect();

    // Alone, the coordinator acknowledges a write that then dies with it.
    cluster.split(&[first], &others);
    let mut to_first = Some(cluster.client(first));
    let write = stage.act(&mut to_first, cluster.address(first), key, Act::Write(Some(1)));
    let write = write.expect("with W=1 the coordinator alone is enough");
    assert!(write.returned.is_some(), "with W=1 the write is acknowledged");
    cluster.kill(first);
    cluster.heal();

    // The others answer from what they have, which with R=1 is enough for them.
    let mut to_other = None;
    let patience = Instant::now();
    let read = loop {
        let node = cluster.address(others[0]);
        let read = stage.act(&mut to_other, node, key, Act::Read(None));
        if let Some(read) = read.filter(|read| read.returned.is_some()) {
            break read;
        }
        assert!(patience.elapsed() < Duration::from_secs(20), "with R=1 a survivor is enough");
        thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(read.act, Act::Read(None), "the write died with its only holder");
    assert!(is_linearizable(&[write]) && is_linearizable(&[read]));
    assert!(!is_linearizable(&[write, read]), "a stale read is no linearizable history");
}
