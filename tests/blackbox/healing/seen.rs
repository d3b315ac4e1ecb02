//! Who is silent is suspected, by others, too, and left out; who speaks again is trusted again.

use std::time::Duration;

use crate::support::cluster::Cluster;
use crate::support::poll::until;

use super::told::{await_up, seen, write};

/// A frozen node's sockets are open and silent: only missing heartbeats tell. Half of it is the
/// machine's, which runs other tests.
const SEEN_WITHIN: Duration = Duration::from_secs(15);

#[test]
fn a_frozen_node_is_left_out_and_returns() {
    let mut cluster = Cluster::start(3, 3, 1, 2);
    for of in 1..=3 {
        let others: Vec<usize> = (1..=3).filter(|&node| node != of).collect();
        await_up(&cluster, &others, of);
    }
    cluster.stop(3);
    for node in [1, 2] {
        until("the frozen node is left out", SEEN_WITHIN, || match seen(&cluster, node, 3)? {
            (state, gossip) if state != "up" && gossip != "alive" => Ok(()),
            other => Err(format!("n{node} sees n3 as {other:?}")),
        });
    }
    // Nobody else is wronged, and what it coordinated goes on.
    assert_eq!(seen(&cluster, 1, 2).expect("an answer").0, "up");
    assert_eq!(seen(&cluster, 2, 1).expect("an answer").0, "up");
    let mut client = cluster.client(1);
    for i in 0..50 {
        write(&mut client, &["SET", &format!("while frozen:{i}"), "x"]);
    }
    cluster.resume(3);
    await_up(&cluster, &[1, 2], 3);
}
