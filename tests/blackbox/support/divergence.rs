//! Whether the replicas of a cluster hold the same, as it says itself.

use std::collections::BTreeMap;
use std::time::Duration;

use super::client::Value;
use super::cluster::Cluster;
use super::poll::until;

/// A reply of names and values.
pub(crate) fn pairs(reply: &Value) -> BTreeMap<String, Value> {
    let Value::Array(items) = reply else { panic!("not pairs: {reply:?}") };
    items.chunks_exact(2).map(|pair| (text(&pair[0]), pair[1].clone())).collect()
}

/// A string of a reply.
pub(crate) fn text(value: &Value) -> String {
    String::from_utf8_lossy(value.last_string().unwrap_or_default()).into_owned()
}

/// Waits until every replica of all `vnodes` was reached and holds the same.
pub(crate) fn await_equal(cluster: &Cluster, vnodes: i64, within: Duration) {
    until("all replicas are the same", within, || {
        let reply = cluster.client(1).say("KV.DIVERGENCE").map_err(|error| error.to_string())?;
        if reply.error_code().is_some() {
            return Err(format!("{reply:?}"));
        }
        let told = pairs(&reply);
        let is_equal = told["vnodes-compared"] == Value::Integer(vnodes)
            && told["keys-differing"] == Value::Integer(0)
            && told["unreachable"] == Value::Array(vec![]);
        if is_equal { Ok(()) } else { Err(format!("{told:?}")) }
    });
}
