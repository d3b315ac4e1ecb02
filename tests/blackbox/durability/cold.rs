//! Ten times more data than memory, and a memory full of what cannot be cooled.

use crate::support::client::{Client, Value};
use crate::support::cluster::{Cluster, Options};
use crate::support::filler::{noise, prose};
use crate::support::poll::until;

use std::time::Duration;

const MAXMEMORY: u64 = 4 << 20;

/// Ten times as many bytes of values as memory.
const KEYS: usize = 40 << 10;

/// What a node may gain in real memory: its budget, and what an allocator and a few connections
/// need on a small scale (the full-scale figure is `scripts/bench_storage.sh tiers`).
const GROWTH_MAX: u64 = MAXMEMORY + (24 << 20);

fn key(i: usize) -> String {
    format!("k:{i}")
}

/// 1 KiB; every fourth compresses.
fn value(i: usize, version: u64) -> Vec<u8> {
    let seed = (i as u64) << 8 | version;
    if i.is_multiple_of(4) { prose(seed, 1_024) } else { noise(seed, 1_024) }
}

fn set(i: usize, version: u64) -> Vec<Vec<u8>> {
    vec![b"SET".to_vec(), key(i).into_bytes(), value(i, version)]
}

fn get(i: usize) -> Vec<String> {
    vec!["GET".to_owned(), key(i)]
}

/// Asserts that each of `keys` holds the value of the version that `version` tells.
fn check(client: &mut Client, keys: &[usize], version: impl Fn(usize) -> Option<u64>) {
    for some in keys.chunks(1_000) {
        let replies = client.pipeline(some.iter().map(|&i| get(i))).expect("answers");
        for (&i, reply) in some.iter().zip(replies) {
            let is_right = match version(i) {
                Some(version) => reply == Value::bulk(value(i, version)),
                None => reply.is_nothing(),
            };
            let shown: String = format!("{reply:?}").chars().take(60).collect();
            assert!(is_right, "{} is {shown}, not of version {:?}", key(i), version(i));
        }
    }
}

fn used_memory(client: &mut Client) -> u64 {
    let used = client.info("memory", "used_memory").expect("INFO");
    used.parse().unwrap_or_else(|_| panic!("used_memory:{used}"))
}

fn assert_bounded(cluster: &mut Cluster, before: u64, when: &str) {
    let used = used_memory(&mut cluster.client(1));
    let grown = cluster.rss_bytes(1).saturating_sub(before);
    println!("{when}: used_memory {used}, real memory grown by {grown}");
    assert!(used <= MAXMEMORY, "{when}: used_memory {used} of {MAXMEMORY}");
    assert!(grown <= GROWTH_MAX, "{when}: the node has grown by {} MiB", grown >> 20);
}

/// All keys, in an order that no cache likes.
fn shuffled() -> Vec<usize> {
    let mut keys: Vec<usize> = (0..KEYS).collect();
    let mut chance = 17u64;
    for end in (1..keys.len()).rev() {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        keys.swap(end, (chance >> 33) as usize % (end + 1));
    }
    keys
}

#[test]
fn ten_times_more_data_than_memory() {
    let options = Options::new(1, 1, 1, 1);
    let mut cluster = Cluster::with(options.args("--maxmemory 4mb --segment-size 4mb"));
    let before = cluster.rss_bytes(1);
    let mut client = cluster.client(1);
    for first in (0..KEYS).step_by(1_000) {
        let sets = (first..(first + 1_000).min(KEYS)).map(|i| set(i, 0));
        let replies = client.pipeline(sets).expect("answers");
        let wrong = replies.iter().find(|reply| **reply != Value::ok());
        assert_eq!(wrong, None, "key {first} and after");
    }
    assert_bounded(&mut cluster, before, "after the writes");
    let keys = shuffled();
    check(&mut client, &keys, |_| Some(0));
    assert_bounded(&mut cluster, before, "after reading everything");

    // Cold keys are written, deleted, counted on, appended to, and asked about.
    let some = &keys[..3_000];
    for chunk in some.chunks(500) {
        client.pipeline(chunk.iter().map(|&i| set(i, 1))).expect("answers");
    }
    let (gone, grown) = (&keys[3_000..4_000], &keys[4_000..4_200]);
    for reply in client.pipeline(gone.iter().map(|&i| vec!["DEL".into(), key(i)])).expect("answers")
    {
        assert_eq!(reply, Value::Integer(1));
    }
    let appends = grown.iter().map(|&i| vec!["APPEND".to_owned(), key(i), "+".to_owned()]);
    for reply in client.pipeline(appends).expect("answers") {
        assert_eq!(reply, Value::Integer(1_025));
    }
    let lens = keys[5_000..5_500].iter().map(|&i| vec!["STRLEN".to_owned(), key(i)]);
    for reply in client.pipeline(lens).expect("answers") {
        assert_eq!(reply, Value::Integer(1_024));
    }
    let mget = [vec!["MGET".to_owned()], keys[6_000..6_100].iter().map(|&i| key(i)).collect()];
    let Ok(Value::Array(values)) = client.call(&mget.concat()) else { panic!("MGET") };
    for (&i, got) in keys[6_000..6_100].iter().zip(values) {
        assert!(got == Value::bulk(value(i, 0)), "{}", key(i));
    }
    let mut ranks = vec![0; KEYS];
    keys.iter().enumerate().for_each(|(rank, &i)| ranks[i] = rank);
    let version = |i: usize| match ranks[i] {
        0..3_000 => Some(1),
        3_000..4_000 => None,
        _ => Some(0),
    };
    let shrink = grown.iter().map(|&i| vec!["SET".as_bytes().to_vec(), key(i).into(), value(i, 0)]);
    client.pipeline(shrink).expect("answers");

    let sample = &keys[..6_000];
    check(&mut client, sample, version);
    assert_bounded(&mut cluster, before, "after writing cold keys");
    cluster.kill(1);
    cluster.restart(1);
    let before = before.min(cluster.rss_bytes(1));
    let mut client = cluster.client(1);
    let count = Value::Integer((KEYS - gone.len()) as i64);
    assert_eq!(client.say("DBSIZE").expect("an answer"), count);
    check(&mut client, sample, version);
    assert_bounded(&mut cluster, before, "after a restart");
}

#[test]
fn a_memory_full_of_what_cannot_be_cooled_refuses_writes() {
    const OOM: &str = "OOM command not allowed when used memory > 'maxmemory'.";
    let options = Options::new(1, 1, 1, 1);
    let cluster = Cluster::with(options.args("--maxmemory 4mb"));
    let mut client = cluster.client(1);
    let tiny = |i: usize| vec!["SET".to_owned(), key(i), "x".to_owned()];
    let mut there = 0;
    let mut refused = 0;
    while refused == 0 {
        assert!(there < 500_000, "{there} keys in 4 MiB, and nothing was refused");
        let replies = client.pipeline((there..there + 1_000).map(tiny)).expect("answers");
        for reply in replies {
            match reply {
                reply if reply == Value::ok() && refused == 0 => there += 1,
                reply if reply == Value::ok() => panic!("a write after a refused one"),
                reply => {
                    assert_eq!(reply, Value::Error(OOM.to_owned()));
                    refused += 1;
                }
            }
        }
    }
    println!("{there} tiny keys in 4 MiB");
    assert!(there > 10_000);
    assert!(used_memory(&mut client) <= (4 << 20) + (64 << 10));
    let replies = client.pipeline((0..there).step_by(7).map(get)).expect("answers");
    assert!(replies.iter().all(|reply| *reply == Value::bulk("x")));
    // What makes memory free is let through, as in Redis.
    let deletes = (0..there / 2).map(|i| vec!["DEL".to_owned(), key(i)]);
    let replies = client.pipeline(deletes).expect("answers");
    assert!(replies.iter().all(|reply| *reply == Value::Integer(1)));
    until("there is room again", Duration::from_secs(15), || {
        match client.say("SET fresh x").expect("an answer") {
            reply if reply == Value::ok() => Ok(()),
            reply => Err(format!("{reply:?}")),
        }
    });
}
