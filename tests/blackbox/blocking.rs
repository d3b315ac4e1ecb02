//! Commands that wait: BLPOP and its kin at one node and at several, whoever pushes where.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::client::{Client, Value, quoted};
use crate::support::cluster::{Cluster, Options};
use crate::support::poll::until;

const SOON: Duration = Duration::from_secs(20);

/// A key of this name whose coordinator is `node` while all are up.
fn key_of(cluster: &Cluster, node: usize, name: &str) -> String {
    let mut client = cluster.client(node);
    let is_first = |key: &String| {
        let told = client.say(&format!("KV.EXPLAIN {key}")).expect("an answer").lines();
        let at = told.iter().position(|line| line.trim() == "\"coordinator\"");
        at.and_then(|at| told.get(at + 1))
            .is_some_and(|line| line.trim() == quoted(format!("n{node}").as_bytes()))
    };
    (0..1_000).map(|number| format!("{name}:{number}")).find(is_first).expect("one of them")
}

fn clients_info(cluster: &Cluster, node: usize, field: &str) -> usize {
    let told = cluster.client(node).info("clients", field).expect("an answer");
    told.parse().expect("a number")
}

/// How many clients of a node wait.
fn blocked(cluster: &Cluster, node: usize) -> usize {
    clients_info(cluster, node, "blocked_clients")
}

fn await_blocked(cluster: &Cluster, node: usize, count: usize) {
    until("clients wait", SOON, || match blocked(cluster, node) {
        now if now == count => Ok(()),
        now => Err(format!("{now} of {count} wait at node {node}")),
    });
}

/// A client of a node that has asked this, and waits for its answer.
fn waiting(cluster: &Cluster, node: usize, words: &str) -> Client {
    waiting_at(cluster, node, node, words)
}

/// The same, where another node coordinates: its request is in the queue there.
fn waiting_at(cluster: &Cluster, coordinator: usize, node: usize, words: &str) -> Client {
    let before = clients_info(cluster, coordinator, "coordinated_waits");
    let mut client = cluster.client(node);
    client.send(&words.split(' ').collect::<Vec<_>>()).expect("open");
    until("the request waits", SOON, || {
        match clients_info(cluster, coordinator, "coordinated_waits") {
            now if now == before + 1 => Ok(()),
            now => Err(format!("{now} wait at node {coordinator}")),
        }
    });
    client
}

fn popped(key: &str, element: &str) -> Value {
    Value::Array(vec![Value::bulk(key), Value::bulk(element)])
}

fn say(client: &mut Client, words: &str) -> Value {
    client.say(words).expect("an answer")
}

/// Until the node of this client has seen that it lost a link, and sends nobody's request over it.
fn await_lost_link(client: &mut Client) {
    until("the link is seen to be lost", SOON, || {
        let told = say(client, "KV.STATUS").text();
        if told.contains("down") || told.contains("awaited") { Ok(()) } else { Err(told) }
    });
}

/// Says it until it is not refused.
fn say_until_done(client: &mut Client, words: &str) -> Value {
    until("it is done", SOON, || match say(client, words) {
        reply if reply.is_refusal() => Err(format!("{reply:?}")),
        reply => Ok(reply),
    })
}

#[test]
fn a_push_serves_those_who_wait_in_their_order() {
    let cluster = Cluster::start(1, 1, 1, 1);
    let mut pusher = cluster.client(1);
    let mut first = waiting(&cluster, 1, "BLPOP {t}q 0");
    let mut second = waiting(&cluster, 1, "BRPOP {t}none {t}q 0");
    let mut third = waiting(&cluster, 1, "BLMPOP 0 2 {t}q {t}none LEFT COUNT 9");
    let mut fourth = waiting(&cluster, 1, "BLMOVE {t}q {t}to LEFT RIGHT 0");
    // Nobody sees what is taken by those who wait, not even in the same pipeline.
    let asked =
        ["RPUSH {t}q a b c d", "LLEN {t}q"].map(|words| words.split(' ').collect::<Vec<_>>());
    let replies = pusher.pipeline(asked).expect("answers");
    assert_eq!(replies, [Value::Integer(4), Value::Integer(0)]);
    assert_eq!(first.receive().unwrap(), popped("{t}q", "a"));
    assert_eq!(second.receive().unwrap(), popped("{t}q", "d"));
    let both = Value::Array(vec![Value::bulk("b"), Value::bulk("c")]);
    assert_eq!(third.receive().unwrap(), Value::Array(vec![Value::bulk("{t}q"), both]));
    await_blocked(&cluster, 1, 1);
    // What is moved serves those who wait for the other list.
    let mut fifth = waiting(&cluster, 1, "BRPOPLPUSH {t}to {t}on 0");
    assert_eq!(say(&mut pusher, "LPUSH {t}q e"), Value::Integer(1));
    assert_eq!(fourth.receive().unwrap(), Value::bulk("e"));
    assert_eq!(fifth.receive().unwrap(), Value::bulk("e"));
    assert_eq!(say(&mut pusher, "EXISTS {t}q {t}to"), Value::Integer(0));
    assert_eq!(say(&mut pusher, "LRANGE {t}on 0 -1"), Value::Array(vec![Value::bulk("e")]));
    await_blocked(&cluster, 1, 0);
}

#[test]
fn time_goes_by_and_clients_are_unblocked() {
    let cluster = Cluster::start(1, 1, 1, 1);
    let mut other = cluster.client(1);
    let mut client = cluster.client(1);
    for words in ["BLPOP {t}q 0.05", "BLMOVE {t}q {t}to LEFT LEFT 0.05", "BLMPOP 0.05 1 {t}q LEFT"]
    {
        let start = Instant::now();
        assert_eq!(say(&mut client, words), Value::NilArray, "{words}");
        assert!(start.elapsed() >= Duration::from_millis(50), "{words}");
    }
    let Value::Integer(id) = say(&mut client, "CLIENT ID") else { panic!("no number") };
    assert_eq!(say(&mut other, &format!("CLIENT UNBLOCK {id}")), Value::Integer(0));
    for (how, expected) in [
        ("", Value::NilArray),
        (" TIMEOUT", Value::NilArray),
        (" error", Value::Error("UNBLOCKED client unblocked via CLIENT UNBLOCK".to_owned())),
    ] {
        client.send(&["BLPOP", "{t}q", "{t}r", "0"]).expect("open");
        await_blocked(&cluster, 1, 1);
        let flags = say(&mut other, "CLIENT LIST").text();
        assert!(flags.contains("flags=b "), "{flags}");
        assert_eq!(say(&mut other, &format!("CLIENT UNBLOCK {id}{how}")), Value::Integer(1));
        assert_eq!(client.receive().unwrap(), expected);
        await_blocked(&cluster, 1, 0);
    }
    // Who is not waiting any more takes nothing.
    assert_eq!(say(&mut other, "RPUSH {t}q a"), Value::Integer(1));
    assert_eq!(say(&mut other, "LLEN {t}q"), Value::Integer(1));
    let mut resp3 = cluster.client(1);
    say(&mut resp3, "HELLO 3");
    assert_eq!(say(&mut resp3, "BLPOP {t}r 0.01"), Value::Null);
    assert_eq!(say(&mut resp3, "BLPOP {t}r {t}q 0"), popped("{t}q", "a"));
}

#[test]
fn a_waiting_connection_keeps_its_order_and_holds_up_nobody() {
    let cluster = Cluster::start(1, 1, 1, 1);
    let mut client = cluster.client(1);
    let pipeline = b"SET a 1\r\nBLPOP q 0\r\nGET a\r\nBLPOP q 0\r\nINCR a\r\n";
    client.send_raw(pipeline).expect("open");
    await_blocked(&cluster, 1, 1);
    assert_eq!(client.receive().unwrap(), Value::ok());
    // What comes while it waits is kept.
    client.send_raw(b"INCR a\r\n").expect("open");
    let mut other = cluster.client(1);
    assert_eq!(say(&mut other, "SET a 7"), Value::ok());
    assert_eq!(say(&mut other, "RPUSH q x"), Value::Integer(1));
    assert_eq!(client.receive().unwrap(), popped("q", "x"));
    assert_eq!(client.receive().unwrap(), Value::bulk("7"));
    await_blocked(&cluster, 1, 1);
    assert_eq!(say(&mut other, "GET a"), Value::bulk("7"), "it waits for the second time");
    assert_eq!(say(&mut other, "RPUSH q y"), Value::Integer(1));
    assert_eq!(client.receive().unwrap(), popped("q", "y"));
    assert_eq!(client.receive().unwrap(), Value::Integer(8));
    assert_eq!(client.receive().unwrap(), Value::Integer(9));
}

#[test]
fn only_lists_wake_those_who_wait_for_lists() {
    let cluster = Cluster::start(1, 1, 1, 1);
    let mut client = cluster.client(1);
    let mut waiter = waiting(&cluster, 1, "BLPOP {q}q {q}other 0");
    for words in ["SET {q}q string", "DEL {q}q"] {
        say(&mut client, words);
        assert_eq!(blocked(&cluster, 1), 1, "{words}");
    }
    // SORT makes a list, too.
    assert_eq!(say(&mut client, "RPUSH {q}from b a"), Value::Integer(2));
    assert_eq!(say(&mut client, "SORT {q}from ALPHA STORE {q}q"), Value::Integer(2));
    assert_eq!(waiter.receive().unwrap(), popped("{q}q", "a"));
    let mut waiter = waiting(&cluster, 1, "BLMOVE {q}none {q}q LEFT LEFT 0");
    say(&mut client, "SET {q}q string");
    assert_eq!(say(&mut client, "RPUSH {q}none a"), Value::Integer(1));
    assert_eq!(waiter.receive().unwrap().error_code(), Some("WRONGTYPE"));
    assert_eq!(say(&mut client, "LLEN {q}none"), Value::Integer(1), "nothing was taken");
}

#[test]
fn who_is_gone_takes_nothing() {
    let cluster = Cluster::start(1, 1, 1, 1);
    let gone = waiting(&cluster, 1, "BLPOP q 0");
    let mut killed = waiting(&cluster, 1, "BLPOP q 0");
    let mut last = waiting(&cluster, 1, "BLPOP q 0");
    drop(gone);
    await_blocked(&cluster, 1, 2);
    let mut client = cluster.client(1);
    let list = say(&mut client, "CLIENT LIST");
    let list = String::from_utf8_lossy(list.last_string().expect("a text")).into_owned();
    let waits = list.lines().find(|line| line.contains("flags=b ")).expect("one that waits");
    let id = waits.split(' ').next().and_then(|field| field.strip_prefix("id=")).expect("a number");
    assert_eq!(say(&mut client, &format!("CLIENT KILL ID {id}")), Value::Integer(1));
    await_blocked(&cluster, 1, 1);
    assert_eq!(killed.receive_until_closed().unwrap(), b"");
    assert_eq!(say(&mut client, "RPUSH q a"), Value::Integer(1));
    assert_eq!(last.receive().unwrap(), popped("q", "a"));
}

#[test]
fn nodes_serve_each_others_clients_in_order() {
    for (r, w) in [(1, 2), (2, 2)] {
        let cluster = Cluster::start(3, 3, r, w);
        for node in 1..=3 {
            let key = key_of(&cluster, node, "queue");
            let mut clients: Vec<Client> = [1, 2, 3, 1, 2, 3]
                .map(|at| waiting_at(&cluster, node, at, &format!("BLPOP {key} 0")))
                .into_iter()
                .collect();
            for (nth, client) in clients.iter_mut().enumerate() {
                let mut pusher = cluster.client(nth % 3 + 1);
                let pushed = say_until_done(&mut pusher, &format!("RPUSH {key} {nth}"));
                assert_eq!(pushed, Value::Integer(1));
                assert_eq!(client.receive().unwrap(), popped(&key, &nth.to_string()));
            }
            for at in 1..=3 {
                await_blocked(&cluster, at, 0);
            }
            assert_eq!(say(&mut cluster.client(1), &format!("EXISTS {key}")), Value::Integer(0));
        }
    }
}

#[test]
fn a_wait_at_another_node_ends_like_one_at_home() {
    let cluster = Cluster::start(3, 3, 1, 2);
    let key = key_of(&cluster, 1, "queue");
    let mut client = cluster.client(2);
    assert_eq!(say(&mut client, &format!("BLPOP {key} 0.05")), Value::NilArray);
    let Value::Integer(id) = say(&mut client, "CLIENT ID") else { panic!("no number") };
    let unblocked = Value::Error("UNBLOCKED client unblocked via CLIENT UNBLOCK".to_owned());
    for (how, expected) in [("TIMEOUT", Value::NilArray), ("ERROR", unblocked)] {
        client.send(&["BLPOP", &key, "0"]).expect("open");
        await_blocked(&cluster, 2, 1);
        let unblock = format!("CLIENT UNBLOCK {id} {how}");
        assert_eq!(say(&mut cluster.client(2), &unblock), Value::Integer(1));
        assert_eq!(client.receive().unwrap(), expected);
    }
    let gone = waiting_at(&cluster, 1, 3, &format!("BLPOP {key} 0"));
    drop(gone);
    await_blocked(&cluster, 3, 0);
    // Its node has told the coordinator, on the way that this takes, too.
    let mut pusher = cluster.client(3);
    assert_eq!(say(&mut pusher, &format!("RPUSH {key} a")), Value::Integer(1));
    assert_eq!(
        say(&mut pusher, &format!("LRANGE {key} 0 -1")),
        Value::Array(vec![Value::bulk("a")])
    );
}

#[test]
fn a_coordinator_that_stops_sends_those_who_wait_elsewhere() {
    let mut cluster = Cluster::start(3, 3, 1, 2);
    let key = key_of(&cluster, 1, "queue");
    let mut waiter = waiting_at(&cluster, 1, 2, &format!("BLPOP {key} 0"));
    assert!(cluster.terminate(1).success());
    let mut pusher = cluster.client(3);
    assert_eq!(say_until_done(&mut pusher, &format!("RPUSH {key} a")), Value::Integer(1));
    assert_eq!(waiter.receive().unwrap(), popped(&key, "a"));
    // And back to it when it is there again.
    waiter.send(&["BLPOP", &key, "0"]).expect("open");
    await_blocked(&cluster, 2, 1);
    cluster.restart(1);
    let explain = format!("KV.EXPLAIN {key}");
    until("it coordinates again", SOON, || {
        let lines = say(&mut cluster.client(2), &explain).lines();
        let at = lines.iter().position(|line| line.trim() == "\"coordinator\"");
        let name = at.and_then(|at| lines.get(at + 1)).map(|line| line.trim().to_owned());
        if name.as_deref() == Some("\"n1\"") { Ok(()) } else { Err(format!("{name:?}")) }
    });
    assert_eq!(
        say_until_done(&mut cluster.client(1), &format!("RPUSH {key} b")),
        Value::Integer(1)
    );
    assert_eq!(waiter.receive().unwrap(), popped(&key, "b"));
}

#[test]
fn a_coordinator_that_dies_leaves_those_who_wait_uncertain() {
    let mut cluster = Cluster::start(3, 3, 1, 2);
    let key = key_of(&cluster, 1, "queue");
    let mut waiter = waiting_at(&cluster, 1, 2, &format!("BLPOP {key} 0"));
    cluster.kill(1);
    let told = waiter.receive().unwrap();
    assert_eq!(told.error_code(), Some("UNCERTAIN"), "{told:?}");
    // Who pushed before its node knows would be uncertain, too.
    let mut pusher = cluster.client(3);
    await_lost_link(&mut pusher);
    assert_eq!(say_until_done(&mut pusher, &format!("RPUSH {key} a")), Value::Integer(1));
    assert_eq!(say_until_done(&mut waiter, &format!("BLPOP {key} 0")), popped(&key, "a"));
}

#[test]
fn nothing_is_taken_for_clients_beyond_a_lost_link() {
    let cluster = Cluster::with(Options::new(3, 3, 1, 1).cuttable());
    let key = key_of(&cluster, 1, "queue");
    let mut waiter = waiting_at(&cluster, 1, 2, &format!("BLPOP {key} 0"));
    cluster.split(&[1, 3], &[2]);
    assert_eq!(waiter.receive().unwrap().error_code(), Some("UNCERTAIN"));
    let mut pusher = cluster.client(1);
    await_lost_link(&mut pusher);
    assert_eq!(say_until_done(&mut pusher, &format!("RPUSH {key} a")), Value::Integer(1));
    assert_eq!(say(&mut pusher, &format!("LLEN {key}")), Value::Integer(1));
    cluster.heal();
    assert_eq!(say_until_done(&mut waiter, &format!("BLPOP {key} 5")), popped(&key, "a"));
}

#[test]
fn sorted_sets_are_waited_for_beside_lists() {
    let cluster = Cluster::start(3, 3, 1, 2);
    let key = key_of(&cluster, 2, "scores");
    let mut low = waiting_at(&cluster, 2, 1, &format!("BZPOPMIN {key} 0"));
    let mut list = waiting_at(&cluster, 2, 3, &format!("BLPOP {key} 0"));
    let mut high = waiting_at(&cluster, 2, 3, &format!("BZMPOP 0 1 {key} MAX COUNT 5"));
    let mut client = cluster.client(1);
    let added = say_until_done(&mut client, &format!("ZADD {key} 1 a 2 b 3 c"));
    assert_eq!(added, Value::Integer(3));
    let lowest = Value::Array(vec![Value::bulk(&key), Value::bulk("a"), Value::bulk("1")]);
    assert_eq!(low.receive().unwrap(), lowest);
    let pair = |member, score| Value::Array(vec![Value::bulk(member), Value::bulk(score)]);
    let both = Value::Array(vec![pair("c", "3"), pair("b", "2")]);
    assert_eq!(high.receive().unwrap(), Value::Array(vec![Value::bulk(&key), both]));
    assert_eq!(say(&mut client, &format!("RPUSH {key} x")), Value::Integer(1));
    assert_eq!(list.receive().unwrap(), popped(&key, "x"));
    assert_eq!(say(&mut client, &format!("BZPOPMAX {key} 0.01")), Value::NilArray);
}

/// Many who wait and many who push, everywhere at once: each element comes to one of them.
#[test]
fn each_element_comes_to_one_of_those_who_wait() {
    const EACH: usize = 100;
    let cluster = Cluster::start(3, 3, 1, 2);
    let keys: Vec<String> = (1..=3).map(|node| key_of(&cluster, node, "queue")).collect();
    let connect = |nth: usize| {
        // Whoever waits may do so for as long as everybody else's work takes.
        let patience = Duration::from_secs(120);
        Client::connect_within(cluster.address(nth % 3 + 1), patience).expect("a connection")
    };
    let takers: Vec<_> = (0..9)
        .map(|nth| {
            let (mut client, key) = (connect(nth), keys[nth / 3].clone());
            thread::spawn(move || {
                let mut taken = Vec::new();
                loop {
                    match client.say(&format!("BLPOP {key} 0")).expect("open") {
                        Value::Array(both) if both[1] == Value::bulk("end") => return taken,
                        Value::Array(both) => taken.push(both[1].text()),
                        reply => panic!("{reply:?}"),
                    }
                }
            })
        })
        .collect();
    let pushers: Vec<_> = (0..6)
        .map(|nth| {
            let (mut client, keys) = (connect(nth), keys.clone());
            thread::spawn(move || {
                for number in 0..EACH {
                    let key = &keys[number % 3];
                    let reply = client.say(&format!("LPUSH {key} {nth}.{number}")).expect("open");
                    assert!(matches!(reply, Value::Integer(_)), "{reply:?}");
                }
            })
        })
        .collect();
    pushers.into_iter().for_each(|pusher| pusher.join().expect("no panic"));
    let mut client = cluster.client(1);
    for key in keys.iter().flat_map(|key| [key; 3]) {
        assert!(matches!(say(&mut client, &format!("RPUSH {key} end")), Value::Integer(_)));
    }
    let taken: Vec<String> =
        takers.into_iter().flat_map(|taker| taker.join().expect("no panic")).collect();
    let distinct: BTreeSet<&String> = taken.iter().collect();
    assert_eq!((taken.len(), distinct.len()), (6 * EACH, 6 * EACH));
}
