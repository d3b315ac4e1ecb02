//! Replicas that differ: it is told, it is mended, and no more is sent than what differs.
//!
//! Both nodes are killed and started again before they meet, so that neither remembers what it
//! still had to send to the other: only a comparison can find what is missing.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::client::{Client, Value};
use crate::support::cluster::{Cluster, Options};
use crate::support::divergence::{self, pairs};
use crate::support::poll::until;

const MENDED_WITHIN: Duration = Duration::from_secs(30);

fn number(pairs: &BTreeMap<String, Value>, name: &str) -> i64 {
    match pairs.get(name) {
        Some(Value::Integer(number)) => *number,
        other => panic!("{name}: {other:?}"),
    }
}

fn divergence(client: &mut Client) -> BTreeMap<String, Value> {
    pairs(&client.say("KV.DIVERGENCE").expect("an answer"))
}

fn count(cluster: &Cluster, node: usize, field: &str) -> u64 {
    cluster.client(node).info("peers", field).expect("INFO").parse().expect("a number")
}

/// Text that does not get shorter when it is packed.
fn noise(len: usize) -> String {
    let mut state = 88_172_645_463_325_252u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'a' + (state % 26) as u8)
    };
    (0..len).map(|_| next()).collect()
}

fn await_equal(cluster: &Cluster, vnodes: i64) {
    divergence::await_equal(cluster, vnodes, MENDED_WITHIN);
}

fn await_settled(cluster: &Cluster) {
    for node in 1..=2 {
        until("every vnode has been compared", MENDED_WITHIN, || {
            let left = cluster.client(node).info("quorum", "vnodes_unsettled").expect("INFO");
            if left == "0" { Ok(()) } else { Err(left) }
        });
    }
}

fn fill(cluster: &Cluster, keys: std::ops::Range<u32>, value: &str) {
    let mut client = cluster.client(1);
    let mut left: Vec<u32> = keys.collect();
    until("everything is written", MENDED_WITHIN, || {
        for key in &left {
            client.send(&["SET", &format!("key:{key}"), value]).expect("sent");
        }
        // Who coordinated some of them may have gone a moment ago.
        left.retain(|_| client.receive().expect("an answer") != Value::ok());
        if left.is_empty() { Ok(()) } else { Err(format!("{} are not", left.len())) }
    });
}

/// Two nodes that hold everything, and mend only what was missed.
fn pair(more: &str) -> Cluster {
    Cluster::with(Options::new(2, 2, 1, 1).args(&format!("--exchange-interval 0 {more}")))
}

#[test]
fn what_differs_is_told_and_mended() {
    let mut cluster = pair("--exchange-rate 1mb --vnodes 16");
    fill(&cluster, 0..500, "both hold it");
    await_equal(&cluster, 16);
    cluster.kill(2);
    let value = noise(2_000);
    fill(&cluster, 400..2_500, &value);
    let deleted = cluster.client(1).say("DEL key:1 key:2 key:3").expect("an answer");
    assert_eq!(deleted, Value::Integer(3));
    let told = divergence(&mut cluster.client(1));
    assert_eq!(told["unreachable"], Value::Array(vec![Value::bulk("n2")]));
    assert_eq!(number(&told, "vnodes-compared"), 0);
    cluster.kill(1);
    cluster.restart(1);
    cluster.launch(2);
    // Four megabytes at one a second: there is time to see that they are missing.
    let mut client = cluster.client(1);
    let told = until("a difference is told", MENDED_WITHIN, || {
        let told = divergence(&mut client);
        if number(&told, "keys-differing") > 0 { Ok(told) } else { Err(format!("{told:?}")) }
    });
    assert_eq!(told["worst-replica"], Value::bulk("n2"));
    assert!(number(&told, "stale-ms") > 0 && number(&told, "vnodes-differing") > 0);
    await_equal(&cluster, 16);
    await_settled(&cluster);
    let mut second = cluster.client(2);
    assert_eq!(second.say("READONLY").expect("an answer"), Value::ok());
    assert!(second.say("GET key:2").expect("an answer").is_nothing());
    assert_eq!(second.say("GET key:2499").expect("an answer"), Value::bulk(&value));
    // What was sent is what differed, to the node that missed it and back at most.
    // (Being asked again and again how much differs is a walk each time.)
    let walk = count(&cluster, 1, "exchange_walk_bytes_sent");
    let (sent, back) = (count(&cluster, 1, "exchange_bytes_sent") - walk, 2_100 * 2_000);
    assert!(sent > back && sent < 2 * back, "{sent} bytes");
    let lines = cluster.client(2).info("peers", "exchange_entries_sent").expect("INFO");
    assert!(lines.parse::<u64>().is_ok_and(|sent| sent <= 2 * 103), "{lines} entries came back");
}

#[test]
fn copies_that_are_the_same_cost_next_to_nothing() {
    let mut cluster = pair("");
    fill(&cluster, 0..5_000, "a value that both hold");
    await_equal(&cluster, 256);
    for node in [2, 1] {
        cluster.kill(node);
        cluster.restart(node);
    }
    await_settled(&cluster);
    for node in 1..=2 {
        assert_eq!(count(&cluster, node, "exchange_entries_sent"), 0);
        let sent = count(&cluster, node, "exchange_bytes_sent");
        assert!(sent < 100_000, "{sent} bytes");
        assert_eq!(count(&cluster, node, "tree_buckets_mended"), 0);
    }
}

#[test]
fn an_operator_has_everything_compared() {
    let cluster = Cluster::start(3, 3, 1, 2);
    fill(&cluster, 0..300, "v");
    let mut client = cluster.client(2);
    let begun = client.say("KV.REPAIR").expect("an answer");
    assert_eq!(begun, Value::Integer(256 * 2 * 2), "two others, two passes");
    until("the repair is through", MENDED_WITHIN, || {
        let told = pairs(&client.say("KV.REPAIR STATUS").expect("an answer"));
        let over = number(&told, "pending") == 0 && number(&told, "done") == 256 * 2 * 2;
        if over { Ok(()) } else { Err(format!("{told:?}")) }
    });
    assert_eq!(client.say("KV.REPAIR 7").expect("an answer"), Value::Integer(4));
    for wrong in ["KV.REPAIR 256", "KV.REPAIR x", "KV.DIVERGENCE status", "KV.REPAIR 1 2"] {
        assert_eq!(client.say(wrong).expect("an answer").error_code(), Some("ERR"), "{wrong}");
    }
    let (status, said) = cluster.tool(3, &["repair"]);
    assert!(status.success() && said.contains("comparisons done"), "{said}");
    let (status, said) = cluster.tool(3, &["repair", "--vnode", "999"]);
    assert!(!status.success() && said.contains("no such vnode"), "{said}");
    let told = divergence(&mut client);
    assert_eq!((number(&told, "vnodes-compared"), number(&told, "keys-differing")), (256, 0));
}

/// Writes until it is answered with a number: who coordinated may have gone a moment ago.
fn change(client: &mut Client, args: &[&str]) -> i64 {
    until("a change is done", MENDED_WITHIN, || match client.call(args).expect("an answer") {
        Value::Integer(number) => Ok(number),
        other => Err(format!("{other:?}")),
    })
}

#[test]
fn of_a_large_collection_travels_what_differs() {
    const FIELDS: usize = 100_000;
    let mut cluster = pair("--vnodes 16");
    let mut client = cluster.client(1);
    for first in (0..FIELDS).step_by(1_000) {
        let mut args = vec!["HSET".to_owned(), "large".to_owned()];
        for field in first..first + 1_000 {
            args.extend([format!("field:{field}"), format!("the value of field {field}")]);
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        change(&mut client, &args);
    }
    await_equal(&cluster, 16);
    cluster.kill(2);
    change(&mut client, &["HSET", "large", "field:77", "changed", "new", "field"]);
    change(&mut client, &["HDEL", "large", "field:500"]);
    drop(client);
    cluster.kill(1);
    cluster.restart(1);
    cluster.launch(2);
    await_equal(&cluster, 16);
    await_settled(&cluster);
    let mut second = cluster.client(2);
    assert_eq!(second.say("READONLY").expect("an answer"), Value::ok());
    let fields = second.say("HMGET large field:77 new field:500 field:501").expect("an answer");
    let [changed, new] = ["changed", "field"].map(Value::bulk);
    let kept = Value::bulk("the value of field 501");
    let Value::Array(fields) = fields else { panic!("{fields:?}") };
    assert_eq!([&fields[0], &fields[1], &fields[3]], [&changed, &new, &kept]);
    assert!(fields[2].is_nothing(), "it was removed");
    assert_eq!(second.say("HLEN large").expect("an answer"), Value::Integer(FIELDS as i64));
    // Sums of some hundred ranges, twice, and a leaf for each of the three fields: not the millions of
    // bytes that it has.
    for node in 1..=2 {
        let sent = count(&cluster, node, "exchange_bytes_sent");
        assert_eq!(count(&cluster, node, "exchange_entries_sent"), 1, "one part");
        assert!(sent < 60_000, "{sent} bytes");
    }
    // What was joined is read back from the log.
    cluster.kill(2);
    cluster.restart(2);
    await_settled(&cluster);
    await_equal(&cluster, 16);
}
