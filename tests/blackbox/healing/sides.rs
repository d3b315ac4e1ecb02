//! Both sides of a split go on at the level `eventual`, and merge without a word from anybody.

use crate::support::client::Value;
use crate::support::cluster::{Cluster, Options};
use crate::support::poll::until;

use super::told::{HEALED_WITHIN, assert_held, await_equal, count, fill};

/// Increments of one counter by a client of `node` until so many were acknowledged. Answers how
/// many may have been done besides.
fn increment(cluster: &Cluster, node: usize, times: usize) -> usize {
    let mut client = cluster.client(node);
    let (mut done, mut uncertain) = (0, 0);
    until("the increments are done", HEALED_WITHIN, || {
        while done < times {
            match client.say("INCR shared").expect("the node is up") {
                Value::Integer(_) => done += 1,
                error if error.is_refusal() => return Err(format!("{error:?}")),
                Value::Error(_) => uncertain += 1,
                other => panic!("INCR answered {other:?}"),
            }
        }
        Ok(())
    });
    uncertain
}

fn total(cluster: &Cluster, node: usize) -> usize {
    let mut client = cluster.client(node);
    until("the counter is read", HEALED_WITHIN, || match client.say("GET shared").expect("up") {
        Value::Bulk(digits) => {
            Ok(String::from_utf8_lossy(&digits).parse().expect("a counter is a number"))
        }
        other => Err(format!("{other:?}")),
    })
}

/// Splits, writes on both sides, heals; then every node must hold everything.
fn story(cluster: &Cluster, one: &[usize], other: &[usize]) {
    let nodes: Vec<usize> = one.iter().chain(other).copied().collect();
    let mut uncertain = increment(cluster, one[0], 10);
    cluster.split(one, other);
    let mut pairs = Vec::new();
    for node in [one[0], other[0]] {
        pairs.extend(fill(&mut cluster.client(node), &format!("side{node}"), 60));
        uncertain += increment(cluster, node, 30);
    }
    cluster.heal();
    await_equal(cluster);
    for &node in &nodes {
        let mut client = cluster.client(node);
        for (key, value) in &pairs {
            until("the key is read", HEALED_WITHIN, || {
                match client.call(&["GET", key]).expect("an answer") {
                    reply if reply == Value::bulk(value) => Ok(()),
                    reply => Err(format!("n{node}: {key} is {reply:?}")),
                }
            });
        }
        let total = total(cluster, node);
        assert!((70..=70 + uncertain).contains(&total), "{total}, {uncertain} uncertain");
    }
    if nodes.len() == 3 {
        nodes.iter().for_each(|&node| assert_held(cluster, node, &pairs));
    }
}

#[test]
fn one_and_two_nodes_go_on_alone() {
    let cluster = Cluster::with(Options::new(3, 3, 1, 1).cuttable());
    story(&cluster, &[1], &[2, 3]);
}

/// Some keys have no two replicas on a side: others there stand in for them.
#[test]
fn two_and_three_of_five_go_on_with_two_copies() {
    let cluster = Cluster::with(Options::new(5, 3, 1, 2).cuttable());
    story(&cluster, &[1, 2], &[3, 4, 5]);
    until("nothing is held for others any more", HEALED_WITHIN, || {
        match count(&cluster, &[1, 2, 3, 4, 5], "hints_keys") {
            0 => Ok(()),
            left => Err(format!("{left} keys")),
        }
    });
}
