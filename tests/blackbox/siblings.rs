//! Concurrent values in a real cluster: two sides of a split write one key, both values are shown
//! when they meet again, and a client that saw both resolves them.

use std::time::Duration;

use crate::support::client::{Client, Value, quoted};
use crate::support::cluster::{Cluster, Options};
use crate::support::poll::until;

const SOON: Duration = Duration::from_secs(20);

/// The values, the clock and the token of a key, when the node can tell.
fn seen(client: &mut Client, key: &str) -> (Vec<String>, String, String) {
    let text =
        |value: &Value| String::from_utf8_lossy(value.last_string().unwrap_or(b"?")).into_owned();
    until("the key is read", SOON, || match client.say(&format!("KV.GET {key}")).expect("open") {
        Value::Array(flat) => match &flat[..] {
            [_, Value::Array(values), _, _, _, clock, _, token] => {
                Ok((values.iter().map(text).collect(), text(clock), text(token)))
            }
            _ => panic!("KV.GET answered {flat:?}"),
        },
        other => Err(format!("{other:?}")),
    })
}

/// Writes, once the node's side has a coordinator and enough replicas for it.
fn write(client: &mut Client, words: &str) {
    until("the write is done", SOON, || match client.say(words).expect("open") {
        Value::Simple(_) => Ok(()),
        other => Err(format!("{words}: {other:?}")),
    });
}

/// A key whose coordinator is `node` while all are up.
fn key_of(cluster: &Cluster, node: usize) -> String {
    let mut client = cluster.client(node);
    let is_first = |key: &String| {
        let told = client.say(&format!("KV.EXPLAIN {key}")).expect("an answer").lines();
        let at = told.iter().position(|line| line.trim() == "\"coordinator\"");
        at.and_then(|at| told.get(at + 1))
            .is_some_and(|line| line.trim() == quoted(format!("n{node}").as_bytes()))
    };
    (0..1_000).map(|number| format!("letters:{number}")).find(is_first).expect("one of them")
}

#[test]
fn both_sides_of_a_split_are_seen_and_resolved() {
    let cluster = Cluster::with(Options::new(3, 3, 1, 1).cuttable());
    let key = key_of(&cluster, 1);
    let mut clients = [1, 2, 3].map(|node| cluster.client(node));
    write(&mut clients[0], &format!("KV.SET {key} A"));
    let (values, clock, before) = seen(&mut clients[1], &key);
    assert_eq!((values, &clock[..]), (vec!["A".to_owned()], "D([n1,1])"));
    write(&mut clients[0], &format!("KV.QUORUM W 3 KV.SET {key} A CONTEXT {before}"));
    let (_, _, before) = seen(&mut clients[0], &key);

    cluster.split(&[1], &[2, 3]);
    write(&mut clients[0], &format!("KV.SET {key} Aa CONTEXT {before}"));
    write(&mut clients[1], &format!("KV.SET {key} AA CONTEXT {before}"));
    let (left, _, t1) = seen(&mut clients[0], &key);
    let (right, _, t2) = seen(&mut clients[1], &key);
    assert_eq!((left, right), (vec!["Aa".to_owned()], vec!["AA".to_owned()]));
    let compared = clients[2].say(&format!("KV.COMPARE {t1} {t2}")).expect("an answer");
    assert_eq!(compared, Value::Simple("concurrent".to_owned()));
    cluster.heal();

    for client in &mut clients {
        until("both sides' values are there", SOON, || {
            let (mut values, clock, _) = seen(client, &key);
            values.sort();
            let both = values == ["AA", "Aa"] && clock == "D([n1,3],[n2,1])";
            if both { Ok(()) } else { Err(format!("{values:?} {clock}")) }
        });
    }
    let (_, _, both) = seen(&mut clients[2], &key);
    let compared = clients[2].say(&format!("KV.COMPARE {both} {t1}")).expect("an answer");
    assert_eq!(compared, Value::Simple("descends".to_owned()));
    write(&mut clients[2], &format!("KV.QUORUM W 3 KV.SET {key} Aaa CONTEXT {both}"));
    for client in &mut clients {
        let (values, clock, after) = seen(client, &key);
        assert_eq!(values, ["Aaa"], "{clock}");
        let compared = client.say(&format!("KV.COMPARE {both} {after}")).expect("an answer");
        assert_eq!(compared, Value::Simple("precedes".to_owned()));
        assert_eq!(client.say(&format!("GET {key}")).unwrap(), Value::Bulk(b"Aaa".to_vec()));
    }
}

#[test]
fn a_value_that_was_resolved_on_one_side_does_not_come_back() {
    let cluster = Cluster::with(Options::new(3, 3, 1, 1).cuttable());
    let key = key_of(&cluster, 1);
    let mut clients = [1, 2, 3].map(|node| cluster.client(node));
    cluster.split(&[1], &[2, 3]);
    write(&mut clients[0], &format!("KV.SET {key} stale"));
    let (_, _, token) = seen(&mut clients[0], &key);
    // The client goes to the other side, which has never heard of what it saw.
    write(&mut clients[1], &format!("KV.SET {key} fresh CONTEXT {token}"));
    cluster.heal();
    for client in &mut clients {
        until("the sides are one again", SOON, || {
            let (values, clock, _) = seen(client, &key);
            let healed = values == ["fresh"] && clock == "D([n1,1],[n2,1])";
            if healed { Ok(()) } else { Err(format!("{values:?} {clock}")) }
        });
    }
}

#[test]
fn siblings_are_the_same_at_level_quorum_and_after_a_restart() {
    let mut cluster = Cluster::start(3, 3, 2, 2);
    let mut client = cluster.client(2);
    write(&mut client, "KV.SET cart A");
    let (_, _, token) = seen(&mut client, "cart");
    write(&mut client, &format!("KV.SET cart Aa CONTEXT {token}"));
    write(&mut cluster.client(3), &format!("KV.SET cart AA CONTEXT {token}"));
    for node in 1..=3 {
        cluster.kill(node);
    }
    for node in 1..=3 {
        cluster.launch(node);
    }
    cluster.await_all();
    let mut client = cluster.client(1);
    let (values, _, both) = seen(&mut client, "cart");
    assert_eq!(values, ["Aa", "AA"]);
    for _ in 0..30 {
        write(&mut client, "KV.SET cart more");
    }
    let refused = client.say("KV.SET cart more").expect("an answer");
    assert!(matches!(&refused, Value::Error(text) if text.starts_with("TOOMANYSIBLINGS ")));
    assert_eq!(client.say(&format!("KV.DEL cart CONTEXT {both}")).unwrap(), Value::Integer(1));
    let (values, _, _) = seen(&mut client, "cart");
    assert_eq!(values.len(), 30);
}
