//! What nodes tell of each other and of their replicas: KV.STATUS, KV.DIVERGENCE, INFO.

use std::time::Duration;

use crate::support::client::{Client, Value};
use crate::support::cluster::Cluster;
use crate::support::divergence::{self, pairs, text};
use crate::support::poll::until;

/// Longest time from the end of a failure until replicas are the same again, or a node counts.
pub(super) const HEALED_WITHIN: Duration = Duration::from_secs(30);

/// Vnodes of every cluster here.
const VNODES: i64 = 256;

/// How node `asked` sees node `of`: `state` (is it sent commands) and `gossip` (is it alive).
pub(super) fn seen(cluster: &Cluster, asked: usize, of: usize) -> Result<(String, String), String> {
    let reply = cluster.client(asked).say("KV.STATUS").map_err(|error| error.to_string())?;
    let Value::Array(rows) = &reply else { return Err(format!("KV.STATUS: {reply:?}")) };
    let row = rows.iter().map(pairs).find(|row| text(&row["node"]) == format!("n{of}"));
    let row = row.ok_or_else(|| format!("no row of n{of}: {reply:?}"))?;
    Ok((text(&row["state"]), text(&row["gossip"])))
}

/// Waits until all of `asked` send commands to `of` again.
pub(super) fn await_up(cluster: &Cluster, asked: &[usize], of: usize) {
    for &node in asked {
        until("the node counts again", HEALED_WITHIN, || match seen(cluster, node, of)? {
            (state, gossip) if state == "up" && gossip == "alive" => Ok(()),
            other => Err(format!("n{node} sees n{of} as {other:?}")),
        });
    }
}

/// Waits until every replica of every vnode was reached and holds the same.
pub(super) fn await_equal(cluster: &Cluster) {
    divergence::await_equal(cluster, VNODES, HEALED_WITHIN);
}

/// A counter of `INFO`, summed over nodes.
pub(super) fn count(cluster: &Cluster, nodes: &[usize], field: &str) -> u64 {
    let of = |node: &usize| {
        let value = cluster.client(*node).info("everything", field).expect("INFO");
        value.parse::<u64>().expect("a number")
    };
    nodes.iter().map(of).sum()
}

/// Writes `name:0` to `name:COUNT`, each until it is acknowledged.
pub(super) fn fill(client: &mut Client, name: &str, count: usize) -> Vec<(String, String)> {
    fill_with(client, name, count, |i| format!("value {i} of {name}"))
}

/// The same with values of one's own.
pub(super) fn fill_with(
    client: &mut Client,
    name: &str,
    count: usize,
    value: impl Fn(usize) -> String,
) -> Vec<(String, String)> {
    let pair = |i: usize| (format!("{name}:{i}"), value(i));
    let pairs: Vec<_> = (0..count).map(pair).collect();
    for (key, value) in &pairs {
        write(client, &["SET", key, value]);
    }
    pairs
}

/// One write, until it is done. It must do no harm to be done twice.
pub(super) fn write(client: &mut Client, args: &[&str]) {
    until("the write is done", HEALED_WITHIN, || {
        match client.call(args).expect("the node is up") {
            Value::Error(error) => Err(format!("{args:?}: {error}")),
            _ => Ok(()),
        }
    });
}

/// Asserts that the own replica of `node` holds all of `pairs`, within a while.
pub(super) fn assert_held(cluster: &Cluster, node: usize, pairs: &[(String, String)]) {
    let mut client = cluster.client(node);
    assert_eq!(client.say("READONLY").expect("an answer"), Value::ok());
    for (key, value) in pairs {
        until("the replica holds the key", HEALED_WITHIN, || {
            match client.call(&["GET", key]).expect("an answer") {
                reply if reply == Value::bulk(value) => Ok(()),
                reply => Err(format!("n{node}: {key} is {reply:?}")),
            }
        });
    }
}
