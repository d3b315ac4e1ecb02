//! Collections in a real cluster: both sides of a split go on with them, and what both acknowledged
//! is there when they meet again; what was added survives a removal that had not seen it; and a
//! node that dies at once has them when it comes back.

use std::time::Duration;

use crate::support::client::{Client, Value};
use crate::support::cluster::{Cluster, Options};
use crate::support::divergence;
use crate::support::poll::until;

const SOON: Duration = Duration::from_secs(60);

/// How many writes of each kind each side does.
const EACH: usize = 10;

/// Writes, once the node's side has a coordinator for it. Answers how often it may have been done
/// besides.
fn write(client: &mut Client, words: &str) -> usize {
    let mut uncertain = 0;
    until("the write is done", SOON, || match client.say(words).expect("the node is up") {
        Value::Simple(_) | Value::Integer(_) | Value::Bulk(_) => Ok(()),
        error if error.is_refusal() => Err(format!("{words}: {error:?}")),
        other => {
            uncertain += 1;
            Err(format!("{words}: {other:?}"))
        }
    });
    uncertain
}

/// What a node answers, as soon as it can.
fn read(client: &mut Client, words: &str) -> Value {
    until("the key is read", SOON, || match client.say(words).expect("the node is up") {
        error @ Value::Error(_) => Err(format!("{words}: {error:?}")),
        value => Ok(value),
    })
}

fn number(client: &mut Client, words: &str) -> f64 {
    match read(client, words) {
        Value::Integer(number) => number as f64,
        Value::Bulk(digits) => String::from_utf8_lossy(&digits).parse().expect("a number"),
        other => panic!("{words}: {other:?}"),
    }
}

fn items(client: &mut Client, words: &str) -> Vec<String> {
    let text = |value: &Value| String::from_utf8_lossy(value.last_string().unwrap()).into_owned();
    match read(client, words) {
        Value::Array(items) => items.iter().map(text).collect(),
        other => panic!("{words}: {other:?}"),
    }
}

/// The same without an order.
fn members(client: &mut Client, words: &str) -> Vec<String> {
    let mut items = items(client, words);
    items.sort();
    items
}

/// Waits until every replica of every vnode was reached and holds the same.
fn await_equal(cluster: &Cluster) {
    divergence::await_equal(cluster, 256, SOON);
}

const BEGINNING: [&str; 5] = [
    "HSET fields first 0 count 100",
    "SADD members first",
    "ZADD scores 1 first",
    "RPUSH items first",
    "SET number 10",
];

/// A cluster whose nodes all hold the beginning, node 1 cut off from the other two.
fn split() -> Cluster {
    let cluster = Cluster::with(Options::new(3, 3, 1, 1).cuttable());
    BEGINNING.iter().for_each(|words| assert_eq!(write(&mut cluster.client(1), words), 0));
    await_equal(&cluster);
    cluster.split(&[1], &[2, 3]);
    cluster
}

#[test]
fn both_sides_work_is_there_after_a_split() {
    let cluster = split();
    let (mut counted, mut fielded, mut scored, mut pushed) = (0, 0, 0, 0);
    for side in [1, 2] {
        let mut client = cluster.client(side);
        for nth in 0..EACH {
            write(&mut client, &format!("HSET fields f{side}:{nth} {nth}"));
            write(&mut client, &format!("SADD members m{side}:{nth}"));
            write(&mut client, &format!("ZADD scores {nth} m{side}:{nth}"));
            pushed += write(&mut client, &format!("LPUSH items e{side}:{nth}"));
            scored += write(&mut client, "ZINCRBY scores 2 first");
            fielded += write(&mut client, "HINCRBY fields count 1");
            counted += write(&mut client, "INCR number");
        }
    }
    cluster.heal();
    await_equal(&cluster);
    let both = || [1, 2].into_iter().flat_map(|side| (0..EACH).map(move |nth| (side, nth)));
    let is_total = |total: f64, least: usize, uncertain: usize| {
        let most = (least + uncertain) as f64;
        assert!((least as f64..=most).contains(&total), "{total} is not {least}");
    };
    for node in 1..=3 {
        let mut client = cluster.client(node);
        assert_eq!(number(&mut client, "HLEN fields"), 22.0);
        for (side, nth) in both() {
            let value = read(&mut client, &format!("HGET fields f{side}:{nth}"));
            assert_eq!(value, Value::bulk(nth.to_string()));
            let score = number(&mut client, &format!("ZSCORE scores m{side}:{nth}"));
            assert_eq!(score, nth as f64);
        }
        let named = |prefix| both().map(move |(side, nth)| format!("{prefix}{side}:{nth}"));
        let mut all: Vec<String> = named("m").chain(["first".to_owned()]).collect();
        all.sort();
        assert_eq!(members(&mut client, "SMEMBERS members"), all);
        assert_eq!(members(&mut client, "ZRANGE scores 0 -1"), all);
        is_total(number(&mut client, "ZSCORE scores first"), 1 + 2 * 2 * EACH, 2 * scored);
        is_total(number(&mut client, "HGET fields count"), 100 + 2 * EACH, fielded);
        is_total(number(&mut client, "GET number"), 10 + 2 * EACH, counted);
        let list = items(&mut client, "LRANGE items 0 -1");
        is_total(list.len() as f64, 1 + 2 * EACH, pushed);
        assert_eq!(list.last().map(String::as_str), Some("first"));
        for side in [1, 2] {
            // Of each side in the order in which it pushed them.
            let mut own: Vec<&String> =
                list.iter().filter(|item| item.starts_with(&format!("e{side}:"))).collect();
            own.dedup();
            let expected: Vec<String> =
                (0..EACH).rev().map(|nth| format!("e{side}:{nth}")).collect();
            assert!(own.into_iter().eq(&expected), "n{node}: {list:?}");
        }
    }
}

#[test]
fn what_was_added_survives_a_removal_that_had_not_seen_it() {
    let cluster = split();
    for key in ["fields", "members", "scores", "items"] {
        write(&mut cluster.client(1), &format!("DEL {key}"));
        assert_eq!(number(&mut cluster.client(1), &format!("EXISTS {key}")), 0.0);
    }
    let adds = [
        "HSET fields new 1",
        "HSET fields first again",
        "SADD members new first",
        "ZADD scores 5 new",
        "LPUSH items new",
    ];
    adds.iter().for_each(|words| assert_eq!(write(&mut cluster.client(2), words), 0));
    cluster.heal();
    await_equal(&cluster);
    for node in 1..=3 {
        let mut client = cluster.client(node);
        // What nobody touched is gone, what was written is there.
        assert_eq!(members(&mut client, "HGETALL fields"), ["1", "again", "first", "new"]);
        // SADD of a member that is there changes nothing on one node: it stays a write.
        assert_eq!(members(&mut client, "SMEMBERS members"), ["first", "new"]);
        assert_eq!(items(&mut client, "ZRANGE scores 0 -1 WITHSCORES"), ["new", "5"]);
        assert_eq!(items(&mut client, "LRANGE items 0 -1"), ["new"]);
    }
}

/// What every collection holds, by a client of that node.
fn everything(client: &mut Client) -> Vec<Vec<String>> {
    let mut all: Vec<_> =
        ["HGETALL fields", "SMEMBERS members"].iter().map(|words| members(client, words)).collect();
    for words in ["ZRANGE scores 0 -1 WITHSCORES", "LRANGE items 0 -1"] {
        all.push(items(client, words));
    }
    all
}

#[test]
fn a_node_that_is_killed_keeps_its_collections() {
    let mut cluster = Cluster::start(1, 1, 1, 1);
    let mut client = cluster.client(1);
    BEGINNING.iter().for_each(|words| assert_eq!(write(&mut client, words), 0));
    for nth in 0..300 {
        write(&mut client, &format!("HSET fields f{nth} {nth} g{nth} x"));
        write(&mut client, &format!("SADD members m{nth}"));
        write(&mut client, &format!("ZADD scores {nth} m{nth}"));
        write(&mut client, &format!("RPUSH items e{nth}"));
        write(&mut client, "HINCRBY fields count 2");
        write(&mut client, "ZINCRBY scores 0.5 first");
    }
    for words in ["HDEL fields f7", "SREM members m7", "ZREM scores m7", "LPOP items"] {
        write(&mut client, words);
    }
    let before = everything(&mut client);
    for _ in 0..2 {
        cluster.kill(1);
        cluster.restart(1);
        let mut client = cluster.client(1);
        assert!(everything(&mut client) == before, "a kill changed what was there");
        assert_eq!(number(&mut client, "HGET fields count"), 700.0);
        assert_eq!(number(&mut client, "ZSCORE scores first"), 151.0);
        assert_eq!(number(&mut client, "LLEN items"), 300.0);
    }
}

#[test]
fn a_replica_that_was_killed_gets_what_it_missed() {
    let mut cluster = Cluster::start(3, 3, 1, 1);
    BEGINNING.iter().for_each(|words| assert_eq!(write(&mut cluster.client(1), words), 0));
    await_equal(&cluster);
    cluster.kill(2);
    for words in
        ["HSET fields late 1", "SADD members late", "ZADD scores 9 late", "LPUSH items late"]
    {
        write(&mut cluster.client(1), words);
    }
    write(&mut cluster.client(3), "SREM members first");
    cluster.restart(2);
    await_equal(&cluster);
    let expected = everything(&mut cluster.client(1));
    assert_eq!(expected[1], ["late"]);
    assert_eq!(expected[3], ["late", "first"]);
    for node in [2, 3] {
        assert_eq!(everything(&mut cluster.client(node)), expected, "n{node}");
    }
}
