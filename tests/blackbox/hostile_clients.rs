//! Bytes that no honest client sends: others go on getting right answers, memory stays bounded.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::support::client::{Client, Value, encode};
use crate::support::cluster::Cluster;

/// More than this over its size before, and a node has let claims decide about its memory.
const RSS_GROWTH_MAX: u64 = 256 << 20;

/// An honest client that checks every answer until it is told to stop.
struct Honest {
    is_over: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Honest {
    fn start(node: SocketAddr) -> Honest {
        let is_over = Arc::new(AtomicBool::new(false));
        let answers = Arc::new(AtomicU64::new(0));
        let (over, count) = (Arc::clone(&is_over), Arc::clone(&answers));
        let thread = thread::spawn(move || {
            let mut client = Client::connect(node).expect("a connection");
            for i in 0.. {
                if over.load(Ordering::SeqCst) {
                    break;
                }
                let (key, value) = (format!("honest:{}", i % 10), i.to_string());
                let set = client.call(&["SET", &key, &value]).expect("an answer");
                assert_eq!(set, Value::ok());
                let get = client.call(&["GET", &key]).expect("an answer");
                assert_eq!(get, Value::bulk(&value));
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        Honest { is_over, answers, thread }
    }

    fn finish(self) {
        // It must have been served in the presence of the others, to the end.
        let before = self.answers.load(Ordering::SeqCst);
        let start = Instant::now();
        while self.answers.load(Ordering::SeqCst) < before + 10 && !self.thread.is_finished() {
            assert!(start.elapsed() < Duration::from_secs(10), "an honest client starves");
            thread::sleep(Duration::from_millis(5));
        }
        self.is_over.store(true, Ordering::SeqCst);
        self.thread.join().expect("the honest client got right answers");
    }
}

/// Starts a node, lets `attack` loose on it beside an honest client, and takes its pulse.
fn besieged(attack: impl FnOnce(SocketAddr)) {
    besieged_growing(RSS_GROWTH_MAX, attack);
}

/// As [`besieged`], with another bound to how much the node may grow, in bytes.
fn besieged_growing(growth_max: u64, attack: impl FnOnce(SocketAddr)) {
    let mut cluster = Cluster::start(1, 1, 1, 1);
    let honest = Honest::start(cluster.address(1));
    let before = cluster.rss_bytes(1);
    attack(cluster.address(1));
    let grown = cluster.rss_bytes(1).saturating_sub(before);
    honest.finish();
    assert!(cluster.is_alive(1));
    assert!(grown < growth_max, "the node grew by {} MiB", grown >> 20);
}

fn client(node: SocketAddr) -> Client {
    Client::connect_within(node, Duration::from_secs(30)).expect("a connection")
}

#[test]
fn lengths_that_lie() {
    besieged(|node| {
        for (bytes, answer) in [
            ("*1\r\n$9223372036854775807\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
            ("*1\r\n$-9223372036854775808\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
            ("*1\r\n$-5\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
            ("*1\r\n$\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
            ("*1\r\n$+1\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
            ("*1\r\n$1 \r\n", "-ERR Protocol error: invalid bulk length\r\n"),
            ("*9223372036854775807\r\n", "-ERR Protocol error: invalid multibulk length\r\n"),
            ("*2147483648\r\n", "-ERR Protocol error: invalid multibulk length\r\n"),
            ("*1\r\n*1\r\n", "-ERR Protocol error: expected '$', got '*'\r\n"),
            ("*1\r\nx\r\n", "-ERR Protocol error: expected '$', got 'x'\r\n"),
        ] {
            let mut hostile = client(node);
            hostile.send_raw(bytes.as_bytes()).expect("it is read");
            let got = hostile.receive_until_closed().expect("the connection is ended");
            assert_eq!(String::from_utf8_lossy(&got), answer, "to {bytes:?}");
        }
        // Claims of much, held open: nothing is set aside for them.
        let claims: Vec<_> = (0..100)
            .map(|i| {
                let mut hostile = client(node);
                let claim: &[u8] = if i % 2 == 0 {
                    b"*2\r\n$4\r\nECHO\r\n$536870912\r\nx"
                } else {
                    b"*1048576\r\n$4\r\nECHO\r\n"
                };
                hostile.send_raw(claim).expect("it is read");
                hostile
            })
            .collect();
        thread::sleep(Duration::from_millis(500));
        drop(claims);
    });
}

#[test]
fn arrays_in_arrays() {
    besieged(|node| {
        let mut hostile = client(node);
        // The node may end the connection before it has read all of it.
        let _ = hostile.send_raw("*1\r\n".repeat(100_000).as_bytes());
        let got = hostile.receive_until_closed().expect("the connection is ended");
        let error = b"-ERR Protocol error: expected '$', got '*'\r\n";
        assert!(got.is_empty() || got == error, "{}", String::from_utf8_lossy(&got));
    });
}

#[test]
fn line_ends_that_are_missing() {
    besieged(|node| {
        // A bulk that does not end where it said: an error or silence, but never a wrong answer.
        let mut hostile = client(node);
        hostile.send_raw(b"*2\r\n$4\r\nECHO\r\n$2\r\nabXXPING\r\n").expect("it is read");
        let mut honest = client(node);
        assert_eq!(honest.say("PING").expect("an answer"), Value::Simple("PONG".to_owned()));
        // Lines that never end: bounded by the longest inline request.
        for start in ["", "*", "*1\r\n$", "GET "] {
            let mut hostile = client(node);
            let mut bytes = start.as_bytes().to_vec();
            bytes.resize(bytes.len() + (256 << 10), b'1');
            let _ = hostile.send_raw(&bytes);
            let got = hostile.receive_until_closed().expect("the connection is ended");
            let got = String::from_utf8_lossy(&got).into_owned();
            let is_known = got.is_empty() || got.starts_with("-ERR Protocol error: ");
            assert!(is_known, "to {start:?}: {got:?}");
        }
    });
}

#[test]
fn a_million_arguments_in_pieces() {
    besieged(|node| {
        let mut bytes = b"*1000001\r\n$4\r\nECHO\r\n".to_vec();
        for i in 0..1_000_000 {
            let arg = format!("{i:07}");
            bytes.extend_from_slice(format!("${}\r\n{arg}\r\n", arg.len()).as_bytes());
        }
        let mut hostile = client(node);
        let start = Instant::now();
        for piece in bytes.chunks(16 << 10) {
            hostile.send_raw(piece).expect("it is read");
        }
        let reply = hostile.receive().expect("an answer");
        assert_eq!(reply.lines()[0], "-ERR wrong number of arguments for 'echo' command");
        let took = start.elapsed();
        println!("a million arguments took {took:?}");
        assert!(took < Duration::from_secs(30), "took {took:?}");
    });
}

#[test]
fn half_requests_held_open() {
    besieged(|node| {
        let mut whole = Vec::new();
        encode(&["SET", "half", "value"], &mut whole);
        let mut open: Vec<_> = (0..whole.len() - 1)
            .flat_map(|end| [end; 4])
            .map(|end| {
                let mut hostile = client(node);
                hostile.send_raw(&whole[..end]).expect("it is read");
                (hostile, end)
            })
            .collect();
        thread::sleep(Duration::from_millis(300));
        assert!(client(node).say("GET half").expect("an answer").is_nothing());
        // They were only slow: the rest makes each a whole request.
        for (hostile, end) in &mut open {
            for byte in &whole[*end..] {
                hostile.send_raw(&[*byte]).expect("it is read");
            }
            assert_eq!(hostile.receive().expect("an answer"), Value::ok());
        }
    });
}

#[test]
fn random_bytes() {
    // Made of what the scanner looks at, so that most of it gets further than the first byte.
    const PIECES: [&[u8]; 16] = [
        b"*", b"$", b"\r\n", b"\r", b"\n", b"1", b"2", b"3", b"-1", b"GET", b"\"", b"'", b"\\",
        b" ", b"\x00", b"\xff",
    ];
    besieged(|node| {
        for seed in 1..=300u64 {
            let mut chance = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut draw = |below: u64| {
                chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (chance >> 33) % below
            };
            let mut bytes = Vec::new();
            for _ in 0..draw(400) {
                match draw(4) {
                    0 => bytes.push(draw(256) as u8),
                    1 => encode(&["GET", "honest:0"], &mut bytes),
                    _ => bytes.extend_from_slice(PIECES[draw(16) as usize]),
                }
            }
            let mut hostile = client(node);
            // The node may have ended it already.
            let _ = hostile.send_raw(&bytes);
        }
    });
}

#[test]
fn a_reader_who_does_not_read() {
    // What one batch of requests asks for may lie in memory, all that was ever asked for may not.
    besieged_growing(1 << 30, |node| {
        let mut writer = client(node);
        let value = "x".repeat(64 << 10);
        assert_eq!(writer.call(&["SET", "big", &value]).expect("an answer"), Value::ok());
        // 6 GB of answers, wanted and never fetched: the node must stop reading, not start hoarding.
        let mut pipeline = Vec::new();
        (0..1_000).for_each(|_| encode(&["GET", "big"], &mut pipeline));
        let lazy: Vec<_> = (0..4)
            .map(|_| {
                let patience = Duration::from_secs(1);
                let mut lazy = Client::connect_within(node, patience).expect("a connection");
                (0..25).all(|_| lazy.send_raw(&pipeline).is_ok());
                lazy
            })
            .collect();
        thread::sleep(Duration::from_secs(1));
        assert_eq!(client(node).say("STRLEN big").expect("an answer"), Value::Integer(64 << 10));
        // Still open while the node's memory is measured.
        std::mem::forget(lazy);
    });
}
