//! Whole commands on entries are whole commands on a plain model of what Redis holds.
//!
//! Random sequences of commands of one family run on the toy keyspace of [`super::model`] and on
//! entries of the lattice. Replies must be equal byte for byte, and so must what every key shows
//! afterwards. Hashes and sets lie in any order; the model's are brought into that of the entries, so
//! that both list and draw alike. A second node beside the entries is only told what travels, in
//! records; it must hold the same entries.
//!
//! ```text
//! command ─┬─ Model    plain vectors                     reply, keys
//!          │                                                ==
//!          └─ Node     entries ── records ──> Node       reply, keys; entries equal
//! ```
//!
//! `PROPTEST_CASES` says how many sequences of each family are tried: `scripts/laws.sh` tries many.

use std::collections::BTreeMap;

use crate::base::id::Actor;
use crate::base::time::{Dot, Hlc, UnixMs};
use crate::resp::reply::{Protocol, Reply};
use crate::value::change::Change;
use crate::value::element::Element;
use crate::value::entry::Entry;
use crate::value::record::{decode, encode_made};
use crate::value::view::{Kind, View, Views};
use crate::version::laws::tries;

use super::chance::Chance;
use super::model::{Model, ask_by_chance};
use super::spec::{Keyed, Run};
use super::table;

/// Keys as a node holds them.
#[derive(Default)]
struct Node {
    keys: BTreeMap<Vec<u8>, Entry>,
    now: UnixMs,
    clock: Hlc,
    /// Records that have not been sent.
    outbox: Vec<Vec<u8>>,
}

impl Views for Node {
    fn view(&self, key: &[u8]) -> Option<View<'_>> {
        self.keys.get(key)?.view(self.now)
    }

    fn history(&self, key: &[u8]) -> Option<Entry> {
        self.keys.get(key).cloned()
    }
}

impl Node {
    fn receive(&mut self, bytes: &[u8]) {
        let (key, record) = decode(bytes).expect("what was encoded decodes");
        record.join_into(self.keys.entry(key.to_vec()).or_default());
    }
}

/// Where commands run.
trait Keyspace: Views {
    fn apply(&mut self, key: &[u8], change: &Change<'_>);
}

impl Keyspace for Model {
    fn apply(&mut self, key: &[u8], change: &Change<'_>) {
        self.make(key, change.clone());
    }
}

impl Keyspace for Node {
    fn apply(&mut self, key: &[u8], change: &Change<'_>) {
        let entry = self.keys.entry(key.to_vec()).or_default();
        let dot = Dot::new(self.clock.max(entry.hlc_max()).next(self.now), Actor(1));
        let delta = entry.apply(change, dot, self.now).expect("room");
        self.clock = entry.hlc_max();
        let mut bytes = Vec::new();
        encode_made(&mut bytes, key, &delta, entry);
        self.outbox.push(bytes);
    }
}

/// A request, and by which number it draws.
struct Request {
    args: Vec<Vec<u8>>,
    random: u64,
    protocol: Protocol,
}

/// Runs a request; the replies of all its parts.
fn run(space: &mut impl Keyspace, now: UnixMs, request: &Request) -> Vec<u8> {
    let args: Vec<&[u8]> = request.args.iter().map(Vec::as_slice).collect();
    let mut step = |keyed: Keyed, args: &[&[u8]]| {
        let Request { random, protocol, .. } = *request;
        let (reply, changes) = ask_by_chance(space, now, random, protocol, keyed, args);
        changes.iter().for_each(|(key, change)| space.apply(key, change));
        reply
    };
    match table::resolve(&args).map(|spec| spec.run) {
        Ok(Run::Slot(keyed)) => step(keyed, &args),
        Ok(Run::Each { stride, part, .. }) => args[1..]
            .chunks(stride)
            .flat_map(|one| step(part, &[&args[..1], one].concat()))
            .collect(),
        Ok(_) => panic!("{:?} is no keyed command", args[0]),
        Err(refusal) => {
            let mut reply = Reply::new(request.protocol);
            refusal.write(&args, &mut reply);
            reply.bytes.to_vec()
        }
    }
}

/// What a key shows.
#[derive(PartialEq, Debug)]
struct Shown {
    kind: Kind,
    expire_at: Option<UnixMs>,
    string: Vec<u8>,
    elements: Vec<Element<'static>>,
}

fn shown(space: &impl Views, key: &[u8]) -> Option<Shown> {
    let view = space.view(key)?;
    let (mut string, mut elements) = (Vec::new(), Vec::new());
    if view.kind == Kind::String {
        string = view.string().expect("a string").into_owned();
    } else {
        let fields = view.fields(view.kind).expect("of that type");
        elements.extend(fields.iter().map(Element::into_owned));
        if view.kind == Kind::List {
            elements.iter_mut().for_each(|element| element.name.to_mut().clear());
        }
    }
    Some(Shown { kind: view.kind, expire_at: view.expire_at, string, elements })
}

// ---- requests ---------------------------------------------------------------------------------------

const KEYS: [&str; 3] = ["k", "{k}1", "{k}2"];

/// One of the words that a placeholder stands for.
fn word(placeholder: &str, now: UnixMs, chance: &mut Chance) -> String {
    let mut one = |words: &[&str]| words[chance.place(words.len())].to_owned();
    match placeholder {
        "$key" => one(&KEYS),
        "$field" => one(&["", "a", "b", "c", "d", "long field", "m17", "m91"]),
        "$value" => one(&["", "0", "7", "-3", "word", "1.5", "a longer text than others"]),
        "$int" => one(&["0", "1", "2", "-1", "40", "9223372036854775807", "x"]),
        "$float" => one(&["0", "1.5", "-0.25", "1e6", "0.1", "-0.01", "3e-17", "inf", "x"]),
        "$score" => one(&["0", "1", "1", "2.5", "-1", "0.1", "-0.7", "1e17", "inf", "-inf", "x"]),
        "$bound" => one(&["-inf", "+inf", "0", "1", "(1", "2.5", "(0", "-1", "x"]),
        "$lex" => one(&["-", "+", "[a", "(a", "[c", "(d", "[", "x"]),
        "$place" => one(&["0", "1", "2", "-1", "-2", "-3", "100", "-100"]),
        "$count" => one(&["0", "1", "2", "3", "-2", "10"]),
        "$some" => one(&["1", "2", "3"]),
        "$side" => one(&["LEFT", "RIGHT"]),
        "$ms" => (1 + chance.place(9)).to_string(),
        "$soon" => (now.0 + chance.place(9) as u64).to_string(),
        "$bit" => chance.place(2).to_string(),
        "$offset" => chance.place(40).to_string(),
        literal => literal.to_owned(),
    }
}

/// What is asked of keys of every type; a key of another type now and then.
const OF_ALL: &[&str] = &[
    "DEL $key",
    "TYPE $key",
    "EXISTS $key",
    "PEXPIRE $key $ms",
    "PEXPIREAT $key $soon",
    "PERSIST $key",
    "PTTL $key",
    "SET $key $value",
    "GET $key",
    "COPY $key $key REPLACE",
    "RENAME $key $key",
];

/// A request of the family, by chance.
fn request(family: &[&str], now: UnixMs, chance: &mut Chance) -> Request {
    let from = if chance.place(8) == 0 { OF_ALL } else { family };
    let template = from[chance.place(from.len())];
    let args = template.split(' ').map(|text| word(text, now, chance).into_bytes()).collect();
    let protocol = if chance.place(4) == 0 { Protocol::Resp3 } else { Protocol::Resp2 };
    Request { args, random: chance.draw(), protocol }
}

// ---- the check --------------------------------------------------------------------------------------

/// Runs the sequence of `seed`; says what went wrong.
fn sequence(opening: &str, family: &[&str], seed: u64) -> Result<(), String> {
    let mut chance = Chance::new(seed);
    let (mut model, mut node, mut told) = (Model::new(), Node::default(), Node::default());
    let mut story = String::new();
    let is_large = chance.place(20) == 0;
    for nth in 0..1 + chance.place(40) {
        model.now.0 += chance.place(3) as u64;
        node.now = model.now;
        let mut request = request(family, model.now, &mut chance);
        if is_large && nth == 0 && !opening.is_empty() {
            request.args = many(opening);
        }
        let words: Vec<_> = request.args.iter().map(|arg| String::from_utf8_lossy(arg)).collect();
        story += &format!("at {} {words:?}\n", model.now.0 % 100_000);
        let expected = run(&mut model, node.now, &request);
        let reply = run(&mut node, model.now, &request);
        if reply != expected {
            let [reply, expected] =
                [reply, expected].map(|b| String::from_utf8_lossy(&b).into_owned());
            return Err(format!("{story}answers {reply:?}, not {expected:?}"));
        }
        for key in KEYS {
            model.order_like(key.as_bytes(), node.view(key.as_bytes()).as_ref());
            let (seen, expected) = (shown(&node, key.as_bytes()), shown(&model, key.as_bytes()));
            if seen != expected {
                return Err(format!("{story}{key} shows {seen:?}, not {expected:?}"));
            }
        }
        node.outbox.drain(..).for_each(|bytes| told.receive(&bytes));
        if node.keys.iter().any(|(key, entry)| entry.is_live() && told.keys.get(key) != Some(entry))
        {
            return Err(format!("{story}told {:?}, not {:?}", told.keys, node.keys));
        }
    }
    Ok(())
}

/// A request that makes a collection of some hundred elements, each told by `opening`'s words but the
/// first two.
fn many(opening: &str) -> Vec<Vec<u8>> {
    let words: Vec<&str> = opening.split(' ').collect();
    let mut args: Vec<Vec<u8>> = words[..2].iter().map(|word| word.as_bytes().to_vec()).collect();
    for nth in 0..200 {
        let numbered = |word: &&str| word.replace('#', &nth.to_string()).into_bytes();
        args.extend(words[2..].iter().map(numbered));
    }
    args
}

fn holds_of(opening: &str, family: &[&str]) {
    for template in family {
        let name = template.split(' ').next().unwrap_or_default();
        assert!(table::lookup(name.as_bytes()).is_some(), "there is no {name}");
    }
    for seed in 0..tries(150) {
        if let Err(wrong) = sequence(opening, family, seed) {
            panic!("seed {seed}:\n{wrong}");
        }
    }
}

#[test]
fn strings() {
    holds_of(
        "",
        &[
            "SET $key $value",
            "SET $key $value PX $ms",
            "SET $key $value KEEPTTL",
            "SET $key $value NX",
            "SET $key $value XX GET",
            "SETNX $key $value",
            "PSETEX $key $ms $value",
            "GETSET $key $value",
            "GETDEL $key",
            "GETEX $key PX $ms",
            "GETEX $key PERSIST",
            "APPEND $key $value",
            "STRLEN $key",
            "SETRANGE $key $offset $value",
            "GETRANGE $key $place $place",
            "INCR $key",
            "DECR $key",
            "INCRBY $key $int",
            "DECRBY $key $int",
            "INCRBYFLOAT $key $float",
            "MGET $key $key",
            "MSET $key $value $key $value",
            "MSETNX $key $value $key $value",
        ],
    );
}

#[test]
fn hashes() {
    holds_of(
        "HSET k m# value-of-some-length-#",
        &[
            "HSET $key $field $value",
            "HSET $key $field $value $field $value $field $value",
            "HMSET $key $field $value",
            "HSETNX $key $field $value",
            "HGET $key $field",
            "HMGET $key $field $field",
            "HGETALL $key",
            "HKEYS $key",
            "HVALS $key",
            "HLEN $key",
            "HSTRLEN $key $field",
            "HEXISTS $key $field",
            "HDEL $key $field",
            "HDEL $key $field $field $field",
            "HINCRBY $key $field $int",
            "HINCRBYFLOAT $key $field $float",
            "HRANDFIELD $key",
            "HRANDFIELD $key $count WITHVALUES",
            "HPEXPIRE $key $ms FIELDS 1 $field",
            "HPEXPIREAT $key $soon FIELDS 2 $field $field",
            "HPEXPIRE $key $ms GT FIELDS 1 $field",
            "HPTTL $key FIELDS 2 $field $field",
            "HPERSIST $key FIELDS 1 $field",
        ],
    );
}

#[test]
fn sets() {
    holds_of(
        "SADD k m#",
        &[
            "SADD $key $field",
            "SADD $key $field $field $field",
            "SREM $key $field",
            "SREM $key $field $field",
            "SISMEMBER $key $field",
            "SMISMEMBER $key $field $field",
            "SMEMBERS $key",
            "SCARD $key",
            "SPOP $key",
            "SPOP $key $count",
            "SRANDMEMBER $key",
            "SRANDMEMBER $key $count",
            "SMOVE $key $key $field",
            "SINTER $key $key",
            "SUNION $key $key",
            "SDIFF $key $key",
            "SINTERSTORE $key $key $key",
            "SUNIONSTORE $key $key $key",
            "SDIFFSTORE $key $key $key",
            "SINTERCARD 2 $key $key LIMIT $some",
        ],
    );
}

#[test]
fn sorted_sets() {
    holds_of(
        "ZADD k # m#",
        &[
            "ZADD $key $score $field",
            "ZADD $key $score $field $score $field $score $field",
            "ZADD $key NX $score $field",
            "ZADD $key XX CH $score $field $score $field",
            "ZADD $key GT CH $score $field",
            "ZADD $key LT $score $field",
            "ZADD $key INCR $score $field",
            "ZINCRBY $key $score $field",
            "ZREM $key $field",
            "ZREM $key $field $field",
            "ZCARD $key",
            "ZSCORE $key $field",
            "ZMSCORE $key $field $field",
            "ZRANK $key $field",
            "ZREVRANK $key $field WITHSCORE",
            "ZCOUNT $key $bound $bound",
            "ZLEXCOUNT $key $lex $lex",
            "ZRANGE $key $place $place WITHSCORES",
            "ZRANGE $key $place $place REV",
            "ZRANGE $key $bound $bound BYSCORE LIMIT $count $place WITHSCORES",
            "ZRANGE $key $bound $bound BYSCORE REV",
            "ZRANGE $key $lex $lex BYLEX",
            "ZREVRANGEBYSCORE $key $bound $bound",
            "ZRANGESTORE $key $key $place $place",
            "ZREMRANGEBYRANK $key $place $place",
            "ZREMRANGEBYSCORE $key $bound $bound",
            "ZREMRANGEBYLEX $key $lex $lex",
            "ZPOPMIN $key",
            "ZPOPMAX $key $some",
            "ZMPOP 2 $key $key MIN COUNT $some",
            "ZRANDMEMBER $key $count WITHSCORES",
            "ZUNION 2 $key $key WITHSCORES",
            "ZINTER 2 $key $key AGGREGATE MAX WITHSCORES",
            "ZDIFF 2 $key $key WITHSCORES",
            "ZUNIONSTORE $key 2 $key $key WEIGHTS 2 0.5",
            "ZINTERSTORE $key 2 $key $key",
            "ZDIFFSTORE $key 2 $key $key",
            "ZINTERCARD 2 $key $key LIMIT $some",
        ],
    );
}

#[test]
fn lists() {
    holds_of(
        "RPUSH k a-value-of-some-length-#",
        &[
            "LPUSH $key $value",
            "LPUSH $key $value $value $value",
            "RPUSH $key $value",
            "RPUSH $key $value $value",
            "LPUSHX $key $value",
            "RPUSHX $key $value $value",
            "LINSERT $key BEFORE $value $value",
            "LINSERT $key AFTER $value $value",
            "LSET $key $place $value",
            "LREM $key $place $value",
            "LREM $key 0 $value",
            "LTRIM $key $place $place",
            "LPOP $key",
            "RPOP $key",
            "LPOP $key $count",
            "RPOP $key $count",
            "LLEN $key",
            "LINDEX $key $place",
            "LRANGE $key $place $place",
            "LPOS $key $value",
            "LPOS $key $value RANK $place COUNT $count",
            "LMOVE $key $key $side $side",
            "RPOPLPUSH $key $key",
            "LMPOP 2 $key $key $side COUNT $some",
        ],
    );
}

#[test]
fn bits_and_estimates() {
    holds_of(
        "",
        &[
            "SETBIT $key $offset $bit",
            "GETBIT $key $offset",
            "BITCOUNT $key",
            "BITCOUNT $key $place $place",
            "BITCOUNT $key $place $place BIT",
            "BITPOS $key $bit",
            "BITPOS $key $bit $place $place",
            "BITOP AND $key $key $key",
            "BITOP OR $key $key $key",
            "BITOP XOR $key $key $key",
            "BITOP NOT $key $key",
            "BITFIELD $key SET u8 $offset $int INCRBY i5 $offset $some",
            "BITFIELD $key OVERFLOW SAT INCRBY u4 $offset $some GET u8 $offset",
            "BITFIELD_RO $key GET i8 $offset",
            "PFADD $key $field $value",
            "PFCOUNT $key",
            "PFCOUNT $key $key",
            "PFMERGE $key $key $key",
        ],
    );
}
