//! Stand-ins: writes go on while replicas are away, and what was kept for them reaches them.

use std::time::Duration;

use crate::support::client::{Client, Value};
use crate::support::cluster::{Cluster, Options};
use crate::support::poll::until;

/// Longest time until a death is known everywhere, on a machine that is busy with tests.
const NOTICED_WITHIN: Duration = Duration::from_secs(20);

/// Longest time until all that was held for nodes that are back has been handed on.
const HANDED_ON_WITHIN: Duration = Duration::from_secs(40);

/// The items of an array or the values and keys of a map.
fn items(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items.clone(),
        Value::Map(pairs) => pairs.iter().flat_map(|(k, v)| [k.clone(), v.clone()]).collect(),
        other => panic!("no items: {other:?}"),
    }
}

/// What stands after the word `name` among `items`.
fn after(items: &[Value], name: &str) -> Value {
    let place = items.iter().position(|item| *item == Value::bulk(name)).expect(name);
    items[place + 1].clone()
}

/// The number of the node that a bulk names.
fn number(name: &Value) -> usize {
    name.text().trim().trim_matches(['"', 'n']).parse().expect("the name of a node")
}

fn replicas_of(client: &mut Client, key: &str) -> Vec<usize> {
    let explained = items(&client.call(&["KV.EXPLAIN", key]).expect("an answer"));
    let replicas = items(&after(&explained, "replicas"));
    replicas.iter().map(|one| number(&after(&items(one), "node"))).collect()
}

/// The replicas that hold the same of `key` as `node` does.
fn confirmed(cluster: &Cluster, node: usize, key: &str) -> Vec<usize> {
    let explained = cluster.client(node).call(&["KV.EXPLAIN", key]).expect("an answer");
    match after(&items(&explained), "confirmed") {
        Value::Array(nodes) => nodes.iter().map(number).collect(),
        _ => Vec::new(),
    }
}

/// Asks until the answer is `wanted`; refusals that promise that nothing was done are passed by.
fn await_reply(client: &mut Client, words: &str, wanted: &Value) {
    until(words, NOTICED_WITHIN, || match client.say(words).expect("an answer") {
        reply if reply == *wanted => Ok(()),
        reply if reply.is_refusal() || reply.error_code() == Some("UNCERTAIN") => {
            Err(format!("{reply:?}"))
        }
        reply => panic!("{words}: {reply:?}, not {wanted:?}"),
    });
}

fn await_error(client: &mut Client, words: &str, code: &str) {
    until(words, NOTICED_WITHIN, || {
        let reply = client.say(words).expect("an answer");
        if reply.error_code() == Some(code) { Ok(()) } else { Err(format!("{reply:?}")) }
    });
}

fn hints(cluster: &Cluster, node: usize) -> u64 {
    let told = cluster.client(node).info("peers", "hints_keys").expect("an answer");
    told.parse().expect("a number")
}

fn await_handed_on(cluster: &Cluster, nodes: &[usize]) {
    until("nothing is held for others", HANDED_ON_WITHIN, || {
        let held: Vec<u64> = nodes.iter().map(|&node| hints(cluster, node)).collect();
        if held.iter().all(|&keys| keys == 0) { Ok(()) } else { Err(format!("{held:?}")) }
    });
}

/// Every replica of `key` holds the same of it, and everybody answers `value`.
fn assert_everywhere(cluster: &Cluster, replicas: &[usize], key: &str, value: &str) {
    until("all replicas hold the same", HANDED_ON_WITHIN, || {
        let same = confirmed(cluster, replicas[0], key);
        if same.len() == replicas.len() { Ok(()) } else { Err(format!("{key}: {same:?}")) }
    });
    for &node in replicas {
        let mut client = cluster.client(node);
        assert_eq!(client.say("READONLY").expect("an answer"), Value::ok());
        let reply = client.call(&["GET", key]).expect("an answer");
        assert_eq!(reply, Value::bulk(value), "{key} at node {node}");
    }
}

#[test]
fn writes_go_on_with_stand_ins_and_reach_every_replica() {
    let mut cluster = Cluster::start(5, 3, 1, 2);
    let replicas = replicas_of(&mut cluster.client(1), "{tag}a");
    let others: Vec<usize> = (1..=5).filter(|node| !replicas.contains(node)).collect();
    let mut client = cluster.client(others[0]);
    assert_eq!(client.say("SET {tag}a before").expect("an answer"), Value::ok());
    assert_eq!(client.say("SET {tag}n 100").expect("an answer"), Value::ok());

    // One replica is left: with a stand-in it is two nodes that hold a write.
    cluster.kill(replicas[1]);
    cluster.kill(replicas[2]);
    await_reply(&mut client, "SET {tag}a two-away", &Value::ok());
    await_reply(&mut client, "GET {tag}a", &Value::bulk("two-away"));
    await_reply(&mut client, "INCR {tag}n", &Value::Integer(101));
    until("a stand-in holds the writes", NOTICED_WITHIN, || {
        let held: Vec<u64> = others.iter().map(|&node| hints(&cluster, node)).collect();
        if held.iter().any(|&keys| keys > 0) { Ok(()) } else { Err(format!("{held:?}")) }
    });

    // None is left: two stand-ins take what asks nothing of the key's past, and nothing else.
    cluster.kill(replicas[0]);
    await_reply(&mut client, "SET {tag}a all-away", &Value::ok());
    await_reply(&mut client, "SET {tag}b fresh", &Value::ok());
    for command in ["GET {tag}a", "APPEND {tag}a x", "SET {tag}a x NX", "DEL {tag}a"] {
        await_error(&mut client, command, "CLUSTERDOWN");
    }
    let mut second = cluster.client(others[1]);
    for _ in 0..5 {
        until("INCR", NOTICED_WITHIN, || match second.say("INCR {tag}n").expect("an answer") {
            Value::Integer(_) => Ok(()),
            reply if reply.is_refusal() => Err(format!("{reply:?}")),
            reply => panic!("INCR: {reply:?}"),
        });
    }
    let blind: u64 = others
        .iter()
        .map(|&node| cluster.client(node).info("quorum", "blind_writes").expect("an answer"))
        .map(|told| told.parse::<u64>().expect("a number"))
        .sum();
    assert!(blind >= 7, "{blind} writes by stand-ins");

    // What a stand-in acknowledged is in its log.
    cluster.kill(others[1]);
    cluster.launch(others[1]);
    replicas.iter().for_each(|&node| cluster.launch(node));
    cluster.await_all();
    await_handed_on(&cluster, &[1, 2, 3, 4, 5]);
    for (key, value) in [("{tag}a", "all-away"), ("{tag}b", "fresh"), ("{tag}n", "106")] {
        assert_everywhere(&cluster, &replicas, key, value);
    }
}

#[test]
fn too_few_nodes_are_too_few_and_hints_are_bounded() {
    let mut cluster = Cluster::with(Options::new(5, 3, 1, 2).args("--hints-max 200kb"));
    let replicas = replicas_of(&mut cluster.client(1), "{tag}");
    let others: Vec<usize> = (1..=5).filter(|node| !replicas.contains(node)).collect();
    replicas.iter().for_each(|&node| cluster.kill(node));
    let mut client = cluster.client(others[0]);
    await_reply(&mut client, "SET {tag}0 small", &Value::ok());
    // Long keys: a value like this one is packed.
    let long = "x".repeat(2_000);
    let mut round = 0;
    let taken = until("the stand-ins are full", NOTICED_WITHIN, || {
        round += 1;
        let key = |at: usize| format!("{{tag}}{round}:{at}:{long}");
        let set = |at: usize| vec!["SET".to_owned(), key(at), "value".to_owned()];
        let replies = client.pipeline((0..50).map(set)).expect("answers");
        let refused = |reply: &&Value| reply.error_code() == Some("NOQUORUM");
        let count = replies.iter().filter(refused).count();
        if count == 50 { Ok(hints(&cluster, others[0])) } else { Err(format!("{count} refused")) }
    });
    assert!(taken > 0, "nothing was taken before");

    // W=2 is never lowered: a single node takes nothing.
    cluster.kill(others[1]);
    await_error(&mut client, "SET {tag}0 alone", "NOQUORUM");
    cluster.launch(others[1]);
    replicas.iter().for_each(|&node| cluster.launch(node));
    cluster.await_all();
    await_handed_on(&cluster, &[1, 2, 3, 4, 5]);
    assert_everywhere(&cluster, &replicas, "{tag}0", "small");
}

#[test]
fn a_quorum_keyspace_has_no_stand_ins() {
    let mut cluster = Cluster::start(5, 3, 2, 2);
    let replicas = replicas_of(&mut cluster.client(1), "key");
    let others: Vec<usize> = (1..=5).filter(|node| !replicas.contains(node)).collect();
    let mut client = cluster.client(others[0]);
    assert_eq!(client.say("SET key value").expect("an answer"), Value::ok());
    cluster.kill(replicas[0]);
    cluster.kill(replicas[1]);
    await_error(&mut client, "SET key other", "NOQUORUM");
    cluster.kill(replicas[2]);
    await_error(&mut client, "SET key other", "CLUSTERDOWN");
    assert!(others.iter().all(|&node| hints(&cluster, node) == 0));
}
