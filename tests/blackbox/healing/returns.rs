//! A node that was away gets what it missed, and counts in nothing before it has it.

use std::fs;

use crate::support::client::Value;
use crate::support::cluster::{Cluster, Options};

use super::told::{assert_held, await_equal, await_up, count, fill, fill_with, write};

const KEYS: usize = 300;

/// Text of eight kilobytes that does not get shorter when it is packed.
fn noise(seed: usize) -> String {
    text(seed, 8 << 10)
}

/// Text of `size` letters that gets little shorter when it is packed.
fn text(seed: usize, size: usize) -> String {
    let mut state = seed as u64 + 1;
    let mut digits = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        format!("{:08x}", state >> 32)
    };
    (0..size / 8).map(|_| digits()).collect()
}

/// Kills the third of three nodes, and lets it miss something.
fn missed(cluster: &mut Cluster) -> Vec<(String, String)> {
    let mut pairs = fill(&mut cluster.client(1), "before", KEYS);
    cluster.kill(3);
    let mut client = cluster.client(1);
    pairs.extend(fill_with(&mut client, "missed", KEYS, noise));
    write(&mut client, &["DEL", "before:0"]);
    pairs.remove(0);
    pairs
}

fn assert_whole(cluster: &Cluster, pairs: &[(String, String)]) {
    await_up(cluster, &[1, 2], 3);
    await_equal(cluster);
    assert_held(cluster, 3, pairs);
    let mut client = cluster.client(3);
    assert_eq!(client.say("READONLY").expect("an answer"), Value::ok());
    assert!(client.say("GET before:0").expect("an answer").is_nothing(), "it was deleted");
}

#[test]
fn what_was_kept_for_it_is_sent() {
    let mut cluster = Cluster::start(3, 3, 1, 2);
    let pairs = missed(&mut cluster);
    cluster.restart(3);
    assert_whole(&cluster, &pairs);
    assert!(count(&cluster, &[1, 2], "streams_resumed") > 0);
    assert!(count(&cluster, &[1, 2], "stream_changes_resumed") >= KEYS as u64);
}

#[test]
fn without_enough_kept_it_is_compared() {
    let mut cluster = Cluster::with(Options::new(3, 3, 1, 2).args("--stream-backlog-size 1mb"));
    let pairs = missed(&mut cluster);
    assert!(count(&cluster, &[1, 2], "stream_backlogs_dropped") > 0);
    cluster.restart(3);
    assert_whole(&cluster, &pairs);
    assert!(count(&cluster, &[1, 2, 3], "exchange_entries_sent") >= KEYS as u64);
}

/// Far more of one vnode differs than a link takes at a time: what it cannot take yet is not lost.
#[test]
fn more_than_a_link_takes_is_compared() {
    let mut cluster = Cluster::with(Options::new(3, 3, 1, 2).args("--stream-backlog-size 1mb"));
    cluster.kill(3);
    let large = |i| text(i, 128 << 10);
    let pairs = fill_with(&mut cluster.client(1), "{one vnode}", KEYS / 2, large);
    cluster.restart(3);
    await_up(&cluster, &[1, 2], 3);
    await_equal(&cluster);
    assert_held(&cluster, 3, &pairs);
}

/// Nobody reads its empty disk as the truth, not even through itself.
#[test]
fn a_wiped_node_is_filled_again() {
    let mut cluster = Cluster::start(3, 3, 1, 2);
    let pairs = missed(&mut cluster);
    fs::remove_dir_all(cluster.data_dir(3)).expect("a folder of ours");
    cluster.restart(3);
    assert_no_lie(&cluster, &pairs);
    assert_whole(&cluster, &pairs);
}

/// Those that could tell a wiped node of its earlier life were all started anew meanwhile.
#[test]
fn a_wiped_node_is_known_to_peers_that_were_started_anew() {
    let mut cluster = Cluster::start(3, 3, 1, 2);
    let pairs = missed(&mut cluster);
    for node in [1, 2] {
        cluster.kill(node);
        cluster.restart(node);
        await_up(&cluster, &[3 - node], node);
    }
    fs::remove_dir_all(cluster.data_dir(3)).expect("a folder of ours");
    cluster.restart(3);
    assert_no_lie(&cluster, &pairs);
    assert_whole(&cluster, &pairs);
}

/// Whichever node is asked answers what was written, or refuses.
fn assert_no_lie(cluster: &Cluster, pairs: &[(String, String)]) {
    for node in 1..=3 {
        let mut client = cluster.client(node);
        for (key, value) in pairs {
            let reply = client.call(&["GET", key]).expect("an answer");
            assert!(
                reply == Value::bulk(value) || reply.is_refusal(),
                "by n{node}, {key} is {reply:?}"
            );
        }
    }
}
