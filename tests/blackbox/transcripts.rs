//! Every transcript, told to one node alone and to three nodes from every side.

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::client::Value;
use crate::support::cluster::{Cluster, Options};
use crate::support::poll::until;
use crate::support::transcript::{self, Transcript, Way};

const SOON: Duration = Duration::from_secs(30);

/// One cluster of `nodes` nodes hears every transcript that fits it, each in every way.
fn replay(nodes: usize, fits: impl Fn(&Transcript) -> bool, ways: &[Way]) {
    let cluster = Cluster::start(nodes, nodes.min(3), 1, nodes.min(2));
    let mut differences = Vec::new();
    for transcript in transcript::all() {
        if transcript.password.is_none() && transcript.nodes.is_none_or(|n| n == nodes) {
            differences.extend(told(&cluster, nodes, &transcript, ways, &fits));
        }
    }
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
}

fn told(
    cluster: &Cluster,
    nodes: usize,
    transcript: &Transcript,
    ways: &[Way],
    fits: impl Fn(&Transcript) -> bool,
) -> Vec<String> {
    let addresses: Vec<SocketAddr> = (1..=nodes).map(|node| cluster.address(node)).collect();
    let mut differences = Vec::new();
    for &way in ways {
        if !fits(transcript) {
            continue;
        }
        assert_eq!(cluster.client(1).say("FLUSHALL").expect("an answer"), Value::ok());
        if let Err(difference) = transcript.replay(&addresses, way) {
            differences.push(format!("{way:?} of {nodes}\n{difference}"));
        }
    }
    differences
}

#[test]
fn one_node_alone() {
    replay(1, |_| true, &[Way::Stay(0)]);
}

#[test]
fn three_nodes_each_asked_alone() {
    replay(3, |_| true, &[Way::Stay(0), Way::Stay(1), Way::Stay(2)]);
}

#[test]
fn three_nodes_in_turn() {
    replay(3, |transcript| !transcript.keeps_session, &[Way::Roam]);
}

#[test]
fn behind_a_password() {
    for transcript in transcript::all() {
        if let Some(password) = &transcript.password {
            let nodes = transcript.nodes.unwrap_or(1);
            let options = Options::new(nodes, nodes, 1, 1).password(password);
            let cluster = Cluster::with(options);
            let differences = told(&cluster, nodes, &transcript, &[Way::Stay(0)], |_| true);
            assert!(differences.is_empty(), "{}", differences.join("\n"));
        }
    }
}

/// Tombstones are not counted as keys, or a scan of an empty keyspace would have no end; but a
/// client is not kept waiting while very many of them are passed.
#[test]
fn a_scan_passes_what_was_deleted_in_a_few_steps() {
    const DELETED: usize = 40_000;
    let cluster = Cluster::start(2, 2, 1, 2);
    let mut client = cluster.client(1);
    let sets = (0..DELETED).map(|i| vec!["SET".to_owned(), format!("k{i}"), String::new()]);
    let replies = client.pipeline(sets).expect("answers");
    assert!(replies.iter().all(|reply| *reply == Value::ok()));
    for words in ["FLUSHALL", "SET left 1"] {
        // A busy machine may take longer for so many than a client is kept waiting.
        until("it is done", SOON, || match client.say(words).expect("an answer") {
            reply if reply == Value::ok() => Ok(()),
            reply => Err(format!("{words}: {reply:?}")),
        });
    }
    let (mut cursor, mut found, mut steps) = ("0".to_owned(), Vec::new(), 0);
    loop {
        steps += 1;
        let Ok(Value::Array(reply)) = client.call(&["SCAN", &cursor]) else { panic!("a page") };
        cursor = String::from_utf8_lossy(reply[0].last_string().expect("a cursor")).into_owned();
        found.extend(reply[1].lines());
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(found.iter().filter(|line| line.contains("left")).count(), 1, "{found:?}");
    assert!((2..=8).contains(&steps), "{steps} steps");
}
