//! A toy keyspace for tests: one map, one clock, whole commands.
//!
//! It applies changes in the plainest way there is, so that what a command asks for can be
//! judged by what clients see afterwards.

use std::collections::HashMap;

use smallvec::SmallVec;

use crate::base::float::Wide;
use crate::base::time::UnixMs;
use crate::resp::reply::{Protocol, Reply};
use crate::value::change::{Amount, Change, Expire};
use crate::value::packed::Packed;
use crate::value::view::{Body, Kind, View, Views};

use super::spec::{Call, Keyed};
use super::{counter, expiry, key, lcs, object, range, string};

/// How the model runs a command.
enum Run {
    /// All of it at once.
    Whole(Keyed),
    /// A part per so many arguments; replies are summed, gathered, or the last one stands.
    Parts(usize, Gather, Keyed),
}

#[derive(Clone, Copy)]
enum Gather {
    Sum,
    Array,
    Last,
}

fn run_of(name: &str) -> Run {
    use Gather::{Array, Last, Sum};
    Run::Whole(match name {
        "MGET" => return Run::Parts(1, Array, string::mget_part),
        "MSET" => return Run::Parts(2, Last, string::mset_part),
        "DEL" | "UNLINK" => return Run::Parts(1, Sum, key::del_part),
        "EXISTS" | "TOUCH" => return Run::Parts(1, Sum, key::exists_part),
        "GET" => string::get,
        "SET" => string::set,
        "SETNX" => string::setnx,
        "SETEX" => string::setex,
        "PSETEX" => string::psetex,
        "GETSET" => string::getset,
        "GETDEL" => string::getdel,
        "GETEX" => string::getex,
        "MSETNX" => string::msetnx,
        "APPEND" => range::append,
        "STRLEN" => range::strlen,
        "GETRANGE" | "SUBSTR" => range::getrange,
        "SETRANGE" => range::setrange,
        "INCR" => counter::incr,
        "DECR" => counter::decr,
        "INCRBY" => counter::incrby,
        "DECRBY" => counter::decrby,
        "INCRBYFLOAT" => counter::incrbyfloat,
        "LCS" => lcs::lcs,
        "TYPE" => key::type_of,
        "RENAME" => key::rename,
        "RENAMENX" => key::renamenx,
        "COPY" => key::copy,
        "EXPIRE" => expiry::expire,
        "PEXPIRE" => expiry::pexpire,
        "EXPIREAT" => expiry::expireat,
        "PEXPIREAT" => expiry::pexpireat,
        "TTL" => expiry::ttl,
        "PTTL" => expiry::pttl,
        "EXPIRETIME" => expiry::expiretime,
        "PEXPIRETIME" => expiry::pexpiretime,
        "PERSIST" => expiry::persist,
        "OBJECT" => object::object,
        "MEMORY" => object::memory_usage,
        _ => panic!("the model has no {name}"),
    })
}

/// The reply and the changes of one keyed function, which are not applied. Asserts what holds of
/// every command: exactly one reply, and no changes beside an error.
pub(super) fn ask<'a>(
    views: &dyn Views,
    now: UnixMs,
    protocol: Protocol,
    keyed: Keyed,
    args: &'a [&'a [u8]],
) -> (Vec<u8>, Vec<(&'a [u8], Change<'a>)>) {
    let mut reply = Reply::new(protocol);
    let mut changes = SmallVec::new();
    keyed(&mut Call { args, now, random: 4, views, reply: &mut reply, changes: &mut changes });
    assert_eq!(replies_in(&reply.bytes), 1, "{:?}", reply.bytes);
    assert!(reply.bytes[0] != b'-' || changes.is_empty(), "an error came with changes");
    (reply.bytes.to_vec(), changes.into_vec())
}

/// What the model keeps under a key.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Kept {
    kind: Kind,
    value: Vec<u8>,
    expire_at: Option<UnixMs>,
}

/// The keyspace.
pub(super) struct Model {
    keys: HashMap<Vec<u8>, Kept>,
    /// The moment of the next command.
    pub(super) now: UnixMs,
    /// The protocol of the replies.
    pub(super) protocol: Protocol,
}

impl Views for Model {
    fn view(&self, key: &[u8]) -> Option<View<'_>> {
        let kept = self.keys.get(key)?;
        if kept.expire_at.is_some_and(|at| at <= self.now) {
            return None;
        }
        let body = Body::Stored(Packed::raw(&kept.value));
        Some(View {
            kind: kept.kind,
            expire_at: kept.expire_at,
            memory: 48 + key.len() + kept.value.len(),
            body,
        })
    }
}

impl Model {
    /// An empty keyspace in the year 2026.
    pub(super) fn new() -> Model {
        Model { keys: HashMap::new(), now: UnixMs(1_790_000_000_000), protocol: Protocol::Resp2 }
    }

    /// Puts a key of another type there.
    pub(super) fn plant(&mut self, key: &[u8], kind: Kind) {
        self.keys.insert(key.to_vec(), Kept { kind, value: Vec::new(), expire_at: None });
    }

    /// Runs and applies a whole command; its reply.
    pub(super) fn run(&mut self, args: &[&[u8]]) -> Vec<u8> {
        let name = String::from_utf8_lossy(args[0]).to_uppercase();
        match run_of(&name) {
            Run::Whole(keyed) => self.step(keyed, args),
            Run::Parts(stride, gather, keyed) => {
                let parts = args[1..].chunks(stride);
                let replies: Vec<Vec<u8>> =
                    parts.map(|part| self.step(keyed, &[&args[..1], part].concat())).collect();
                gathered(gather, &replies)
            }
        }
    }

    fn step(&mut self, keyed: Keyed, args: &[&[u8]]) -> Vec<u8> {
        let (reply, changes) = ask(self, self.now, self.protocol, keyed, args);
        for (key, change) in changes {
            self.apply(key, &change);
        }
        reply
    }

    fn apply(&mut self, key: &[u8], change: &Change<'_>) {
        self.keys.retain(|_, kept| kept.expire_at.is_none_or(|at| at > self.now));
        match change {
            Change::Put { value, expire } => {
                let expire_at = match *expire {
                    Expire::Clear => None,
                    Expire::Keep => self.keys.get(key).and_then(|kept| kept.expire_at),
                    Expire::At(at) => Some(at),
                };
                self.keys.insert(
                    key.to_vec(),
                    Kept { kind: Kind::String, value: value.to_vec(), expire_at },
                );
            }
            Change::Delete => {
                self.keys.remove(key);
            }
            Change::Increment(amount) => {
                let zero = || Kept { kind: Kind::String, value: b"0".to_vec(), expire_at: None };
                let kept = self.keys.entry(key.to_vec()).or_insert_with(zero);
                kept.value = counted(&kept.value, *amount);
            }
            Change::Seen(_) => unreachable!("the model keeps no history"),
            Change::Expire(expire_at) => {
                self.keys.get_mut(key).expect("only a visible key's expiry changes").expire_at =
                    *expire_at;
            }
        }
    }
}

fn counted(value: &[u8], amount: Amount) -> Vec<u8> {
    match amount {
        Amount::Int(by) => {
            let number: i128 = String::from_utf8_lossy(value).parse().expect("counted an integer");
            (number + by).to_string().into_bytes()
        }
        Amount::Float(hi, lo) => {
            Wide::parse(value).expect("counted a number").plus(Wide { hi, lo }).text().into_bytes()
        }
    }
}

fn gathered(gather: Gather, replies: &[Vec<u8>]) -> Vec<u8> {
    match gather {
        Gather::Last => replies.last().expect("a part").clone(),
        Gather::Array => {
            [format!("*{}\r\n", replies.len()).into_bytes(), replies.concat()].concat()
        }
        Gather::Sum => {
            let ones = replies.iter().filter(|reply| reply[..] == b":1\r\n"[..]).count();
            format!(":{ones}\r\n").into_bytes()
        }
    }
}

/// How many complete replies the bytes hold; panics when they end inside one.
fn replies_in(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while !bytes.is_empty() {
        bytes = after_reply(bytes);
        count += 1;
    }
    count
}

fn after_reply(bytes: &[u8]) -> &[u8] {
    let line = bytes.windows(2).position(|pair| pair == b"\r\n").expect("a line");
    let size = || String::from_utf8_lossy(&bytes[1..line]).parse::<i64>().expect("a size");
    let rest = &bytes[line + 2..];
    match bytes[0] {
        b'$' | b'=' if size() >= 0 => &rest[size() as usize + 2..],
        b'*' | b'~' => (0..size()).fold(rest, |rest, _| after_reply(rest)),
        b'%' => (0..2 * size()).fold(rest, |rest, _| after_reply(rest)),
        _ => rest,
    }
}

/// The words of a transcript's line: split at spaces, `\\` `\r` `\n` `\xNN` unescaped, `''` is empty.
pub(super) fn words(line: &str) -> Vec<Vec<u8>> {
    line.split(' ').map(|word| if word == "''" { Vec::new() } else { unescape(word) }).collect()
}

/// The bytes that an escaped text stands for.
pub(super) fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let (plain, used) = match (byte, after.first()) {
            (b'\\', Some(b'r')) => (b'\r', 2),
            (b'\\', Some(b'n')) => (b'\n', 2),
            (b'\\', Some(b'x')) => {
                (u8::from_str_radix(&text[text.len() - rest.len() + 2..][..2], 16).unwrap(), 4)
            }
            (b'\\', Some(_)) => (b'\\', 2),
            _ => (byte, 1),
        };
        out.push(plain);
        rest = &rest[used..];
    }
    out
}
