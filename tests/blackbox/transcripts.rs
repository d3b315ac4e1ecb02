//! Every transcript, told to one node alone and to three nodes from every side.

use std::net::SocketAddr;

use crate::support::client::Value;
use crate::support::cluster::{Cluster, Options};
use crate::support::transcript::{self, Transcript, Way};

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
