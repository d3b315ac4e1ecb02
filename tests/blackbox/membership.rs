//! Who is believed to be there: members are seen to go silent, to leave and to come back, and the
//! commands that tell of it.

use std::time::{Duration, Instant};

use crate::support::client::{Client, Value};
use crate::support::cluster::{Cluster, tool_at};

/// A silent member must be given up within this, on a machine that has other things to do.
const GIVEN_UP_WITHIN: Duration = Duration::from_secs(6);

/// A member that is back must be up again within this.
const BACK_WITHIN: Duration = Duration::from_secs(15);

/// The fields of `member` that are text, as KV.STATUS tells them to `client`.
fn told(client: &mut Client, member: usize) -> Vec<(String, String)> {
    let Ok(Value::Array(rows)) = client.say("KV.STATUS") else { panic!("KV.STATUS is an array") };
    let Value::Array(fields) = &rows[member - 1] else { panic!("a member is a map") };
    let text = |value: &Value| {
        String::from_utf8_lossy(value.last_string().unwrap_or_default()).into_owned()
    };
    fields.chunks_exact(2).map(|pair| (text(&pair[0]), text(&pair[1]))).collect()
}

fn field(client: &mut Client, member: usize, name: &str) -> String {
    let fields = told(client, member);
    let found = fields.into_iter().find(|(field, _)| field == name);
    found.unwrap_or_else(|| panic!("KV.STATUS tells no {name}")).1
}

/// Waits until `name` of `member` is `expected` at node `at`; how long that took.
fn await_field(
    cluster: &Cluster,
    at: usize,
    member: usize,
    name: &str,
    expected: &str,
    within: Duration,
) -> Duration {
    let (mut client, start) = (cluster.client(at), Instant::now());
    loop {
        let said = field(&mut client, member, name);
        if said == expected {
            return start.elapsed();
        }
        assert!(start.elapsed() < within, "{name} of {member} is {said}, not {expected}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn await_all_up(cluster: &Cluster, nodes: usize) {
    for at in 1..=nodes {
        for member in 1..=nodes {
            await_field(cluster, at, member, "state", "up", BACK_WITHIN);
            await_field(cluster, at, member, "gossip", "alive", BACK_WITHIN);
        }
    }
}

#[test]
fn a_frozen_member_is_given_up_and_comes_back_by_itself() {
    let cluster = &mut Cluster::start(3, 3, 1, 2);
    await_all_up(cluster, 3);
    cluster.stop(3);
    for at in [1, 2] {
        await_field(cluster, at, 3, "state", "down", GIVEN_UP_WITHIN);
        assert_eq!(field(&mut cluster.client(at), 3, "gossip"), "confirmed");
        assert_eq!(field(&mut cluster.client(at), 3 - at, "state"), "up");
    }
    let mut client = cluster.client(1);
    for key in 0..50 {
        let reply = client.call(&["SET", &format!("key:{key}"), "value"]).expect("an answer");
        assert_eq!(reply, Value::ok(), "two of three are enough");
    }
    cluster.resume(3);
    await_all_up(cluster, 3);
    assert!(cluster.log_text(3).contains("this node slept"));
    for (at, member) in [(1, 2), (2, 1), (3, 1), (3, 2)] {
        let says = format!("a peer's standing changed peer=n{member} standing=Down");
        assert!(!cluster.log_text(at).contains(&says), "node {at} gave up {member}");
    }
}

#[test]
fn a_killed_member_is_given_up_at_once_and_a_leaving_one_says_so() {
    let cluster = &mut Cluster::start(3, 3, 1, 2);
    await_all_up(cluster, 3);
    cluster.kill(3);
    for at in [1, 2] {
        let took = await_field(cluster, at, 3, "state", "down", GIVEN_UP_WITHIN);
        assert!(took < Duration::from_secs(2), "refused connections say it: {took:?}");
    }
    cluster.restart(3);
    await_all_up(cluster, 3);
    assert!(cluster.terminate(2).success());
    for at in [1, 3] {
        await_field(cluster, at, 2, "state", "down", GIVEN_UP_WITHIN);
        await_field(cluster, at, 2, "gossip", "left", GIVEN_UP_WITHIN);
    }
    cluster.restart(2);
    await_all_up(cluster, 3);
}

#[test]
fn status_is_told_to_people_programs_and_info() {
    let cluster = &mut Cluster::start(3, 3, 1, 2);
    await_all_up(cluster, 3);
    let port = cluster.address(1).port().to_string();
    let (exit, table) = tool_at(&["status", "--port", &port]);
    assert!(exit.success(), "{table}");
    for shown in ["node", "state", "phi", "lag", "hints", "last exchange", "n1 *", "n2", "n3"] {
        assert!(table.contains(shown), "{shown} is not in\n{table}");
    }
    let (exit, json) = tool_at(&["status", "--port", &port, "--json"]);
    assert!(exit.success(), "{json}");
    assert!(json.starts_with("[{\"node\":\"n1\",\"host\":\"127.0.0.1\",\"port\":"), "{json}");
    assert_eq!(json.matches("\"state\":\"up\"").count(), 3, "{json}");

    let mut client = cluster.client(1);
    let line = client.info("replication", "member_n2").expect("INFO");
    assert!(line.starts_with("state=up,gossip=alive,phi=0."), "{line}");
    assert_eq!(client.info("replication", "connected_members").expect("INFO"), "2");

    cluster.kill(3);
    await_field(cluster, 1, 3, "state", "down", GIVEN_UP_WITHIN);
    let (exit, table) = tool_at(&["status", "--port", &port]);
    assert!(!exit.success() && table.contains("down"), "{table}");
    cluster.kill(1);
    let (exit, said) = tool_at(&["status", "--port", &port]);
    assert!(!exit.success() && said.contains("refused"), "{said}");
}
