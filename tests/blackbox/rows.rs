//! Rows: writes of one key, one behind the other in a pipeline, are run in one go. Nobody can tell
//! them from the same requests asked one by one.

use fastrand::Rng;

use crate::support::client::{Client, Value};
use crate::support::cluster::Cluster;

const ROUNDS: usize = 300;

/// Requests of one key: those of a row fail and succeed, change its type and end it.
const WORDS: [&str; 22] = [
    "LPUSH @ a",
    "LPUSH @ b c",
    "RPUSH @ d",
    "LPUSH @",
    "LPOP @",
    "RPOP @",
    "HSET @ f 1",
    "HSET @ g x f",
    "HINCRBY @ f 9223372036854775807",
    "HINCRBY @ g 1",
    "HDEL @ f",
    "SADD @ a",
    "SADD @ b a",
    "SREM @ a",
    "ZADD @ 1 a",
    "ZADD @ x a",
    "ZADD @ XX GT 5 a",
    "ZPOPMIN @",
    "INCR @",
    "SET @ 9223372036854775806",
    "APPEND @ x",
    "EXPIRE @ 1000",
];

/// Requests: of each some in a row, now and then one that writes nothing or writes elsewhere.
fn requests(chance: &mut Rng) -> Vec<&'static str> {
    let mut requests = Vec::new();
    for _ in 0..chance.usize(1..6) {
        let words = WORDS[chance.usize(..WORDS.len())];
        requests.extend(std::iter::repeat_n(words, chance.usize(1..20)));
        match chance.u8(..8) {
            0 => requests.push("DEL @"),
            1 => requests.push("TYPE @"),
            2 => requests.push("SET other@ 1"),
            _ => {}
        }
    }
    requests
}

fn of_key(words: &str, key: &str) -> Vec<String> {
    words.split(' ').map(|word| word.replace('@', key)).collect()
}

fn held(client: &mut Client, key: &str) -> Vec<Value> {
    ["TYPE @", "GET @", "LRANGE @ 0 -1", "HGETALL @", "SORT @ ALPHA", "ZRANGE @ 0 -1 WITHSCORES"]
        .map(|words| client.call(&of_key(words, key)).expect("an answer"))
        .to_vec()
}

#[test]
fn a_row_is_answered_as_its_requests_are() {
    let cluster = Cluster::start(1, 1, 1, 1);
    let (mut one, mut two) = (cluster.client(1), cluster.client(1));
    for round in 0..ROUNDS {
        let mut chance = Rng::with_seed(round as u64);
        let requests = requests(&mut chance);
        let in_rows = requests.iter().map(|words| of_key(words, "rows"));
        let in_rows = one.pipeline(in_rows).expect("answers");
        let singly = |words: &&str| two.call(&of_key(words, "ones")).expect("an answer");
        let singly: Vec<Value> = requests.iter().map(singly).collect();
        assert_eq!(in_rows, singly, "round {round}: {requests:?}");
        let (rows, ones) = (held(&mut one, "rows"), held(&mut two, "ones"));
        assert_eq!(rows, ones, "round {round}: {requests:?}");
        if chance.bool() {
            one.call(&["DEL", "rows", "ones"]).expect("an answer");
        }
    }
    // Errors in rows are counted, too.
    let errors = |client: &mut Client| {
        let told = client.info("stats", "total_error_replies").expect("INFO");
        told.parse::<u64>().expect("a number")
    };
    one.call(&["SET", "text", "x"]).expect("an answer");
    let before = errors(&mut one);
    let replies = one.pipeline((0..16).map(|_| vec!["INCR", "text"])).expect("answers");
    assert!(replies.iter().all(|reply| matches!(reply, Value::Error(_))), "{replies:?}");
    assert_eq!(errors(&mut one), before + 16);
}
