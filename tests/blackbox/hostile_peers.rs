//! Bytes and strangers at the peer port: the cluster goes on, and nobody gets in.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use crate::support::client::{Client, Value};
use crate::support::cluster::{Cluster, SECRET, free_ports};

/// Most that a node may grow by because of bytes that prove nothing.
const RSS_GROWTH_MAX: u64 = 64 << 20;

fn assert_works(cluster: &Cluster, round: &str) {
    for node in 1..=3 {
        let mut client = cluster.client(node);
        for i in 0..20 {
            let (key, value) = (format!("{round}:{node}:{i}"), format!("{round} {i}"));
            assert_eq!(client.call(&["SET", &key, &value]).expect("an answer"), Value::ok());
            let other = node % 3 + 1;
            let got = cluster.client(other).call(&["GET", &key]).expect("an answer");
            assert_eq!(got, Value::bulk(&value), "{key} from node {other}");
        }
    }
}

fn dial(peer: SocketAddr) -> Client {
    Client::connect_within(peer, Duration::from_secs(5)).expect("the peer port takes connections")
}

#[test]
fn garbage() {
    let mut cluster = Cluster::start(3, 3, 1, 2);
    let before: Vec<u64> = (1..=3).map(|node| cluster.rss_bytes(node)).collect();
    let mut held = Vec::new();
    for node in 1..=3 {
        let peer = cluster.peer_address(node);
        for seed in 0..40u64 {
            let mut chance = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let bytes: Vec<u8> = (0..seed * 37)
                .map(|_| {
                    chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (chance >> 56) as u8
                })
                .collect();
            let mut hostile = dial(peer);
            let _ = hostile.send_raw(&bytes);
            if seed % 4 == 0 {
                held.push(hostile);
            }
        }
        // The right first bytes, then a length of everything, in either byte order.
        for head in [
            &b"KVPR\x01\xff\xff"[..],
            b"KVPR\x02\xff\xff",
            b"\xff\xff\xff\x7f",
            b"\x7f\xff\xff\xff",
        ] {
            let mut hostile = dial(peer);
            let _ = hostile.send_raw(head);
            let _ = hostile.send_raw(&vec![0xa5; 1 << 20]);
            held.push(hostile);
        }
        // A client at the wrong door.
        let mut lost = dial(peer);
        let _ = lost.send(&["SET", "through the back door", "1"]);
        let _ = lost.send_raw(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        held.push(lost);
    }
    assert_works(&cluster, "garbage");
    thread::sleep(Duration::from_secs(1));
    for (node, before) in (1..=3).zip(before) {
        let grown = cluster.rss_bytes(node).saturating_sub(before);
        assert!(grown < RSS_GROWTH_MAX, "node {node} grew by {} MiB", grown >> 20);
    }
    assert!(cluster.client(1).call(&["GET", "through the back door"]).unwrap().is_nothing());
    drop(held);
    assert_works(&cluster, "after");
}

/// Runs a second node 1 (the one that dials the others) that knows `secret`, and asserts that
/// nothing it is told gets in.
fn stranger_stays_out(secret: &str) {
    let cluster = Cluster::start(3, 3, 1, 2);
    let ports = free_ports(2);
    let roster = cluster.roster();
    let members: Vec<String> = (1..)
        .zip(&roster)
        .map(|(id, (client, peer))| match id {
            1 => format!("1=127.0.0.1:{}@{}", ports[0], ports[1]),
            _ => format!("{id}={client}@{}", peer.port()),
        })
        .collect();
    let args = [
        ("--node-id", "1".to_owned()),
        ("--port", ports[0].to_string()),
        ("--peer-port", ports[1].to_string()),
        ("--members", members.join(",")),
        ("--secret", secret.to_owned()),
        ("--n", "3".to_owned()),
        ("--r", "1".to_owned()),
        ("--w", "1".to_owned()),
    ];
    let args: Vec<String> = args.into_iter().flat_map(|(flag, it)| [flag.to_owned(), it]).collect();
    let _stranger = cluster.stranger(&args);
    for _ in 0..20 {
        assert_works(&cluster, "strange");
        if let Ok(mut client) = Client::connect_within(
            (std::net::Ipv4Addr::LOCALHOST, ports[0]).into(),
            Duration::from_secs(1),
        ) {
            // Whatever it answers, its word must not reach the others.
            let _ = client.say("SET strange:1:0 forged");
            let _ = client.say("SET forged 1");
        }
        thread::sleep(Duration::from_millis(100));
    }
    assert_works(&cluster, "strange");
    for node in 1..=3 {
        assert!(cluster.client(node).say("GET forged").expect("an answer").is_nothing());
    }
}

#[test]
fn a_stranger_without_the_secret() {
    stranger_stays_out("another secret");
}

/// The secret alone is not enough: a second process under the id of a node that is up is refused.
#[test]
fn a_double_of_a_member() {
    stranger_stays_out(SECRET);
}
