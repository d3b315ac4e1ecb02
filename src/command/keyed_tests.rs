//! Tests of the keyed commands: the changes they name, and histories against a second model.

use std::collections::HashMap;

use proptest::prelude::*;

use crate::base::limits::VALUE_SIZE_MAX;
use crate::base::time::UnixMs;
use crate::resp::reply::Protocol;
use crate::value::change::{Amount, Change, Expire};
use crate::value::packed::Packed;
use crate::value::view::{Body, Kind, View, Views};

use super::model::{Model, ask, words};
use super::spec::Keyed;
use super::{
    bitmap, bitmap_field, counter, dump, expiry, hyperloglog, key, lcs, object, range, string,
};

fn put(value: &str, expire: Expire) -> Change<'static> {
    Change::Put { value: value.as_bytes().to_vec().into(), expire }
}

const PLUS_ONE: Change<'static> = Change::Increment(Amount::Int(1));

/// A keyspace with `s` = "text" and `n` = "7" (both without expiry), and `t` = "x" that expires.
fn furnished() -> Model {
    let mut model = Model::new();
    for line in ["SET s text", "SET n 7", "SET t x PXAT 4102444800000"] {
        run(&mut model, line);
    }
    model
}

fn run(model: &mut Model, line: &str) -> String {
    let request = words(line);
    let request: Vec<&[u8]> = request.iter().map(Vec::as_slice).collect();
    String::from_utf8(model.run(&request)).unwrap()
}

/// A function, its request, the exact reply, and the changes it names.
type Row = (Keyed, &'static str, &'static str, Vec<(&'static str, Change<'static>)>);

#[test]
fn commands_name_their_changes() {
    let at = UnixMs(4_102_444_800_000);
    let soon = UnixMs(furnished().now.0 + 5_000);
    let rows: Vec<Row> = vec![
        (string::get, "GET s", "$4\r\ntext\r\n", vec![]),
        (string::set, "SET s v", "+OK\r\n", vec![("s", put("v", Expire::Clear))]),
        (string::set, "SET s v KEEPTTL", "+OK\r\n", vec![("s", put("v", Expire::Keep))]),
        (string::set, "SET s v EX 5", "+OK\r\n", vec![("s", put("v", Expire::At(soon)))]),
        (string::set, "SET s v NX", "$-1\r\n", vec![]),
        (string::set, "SET s v NX GET", "$4\r\ntext\r\n", vec![]),
        (string::set, "SET s v XX GET", "$4\r\ntext\r\n", vec![("s", put("v", Expire::Clear))]),
        (string::getset, "GETSET t v", "$1\r\nx\r\n", vec![("t", put("v", Expire::Clear))]),
        (string::getdel, "GETDEL s", "$4\r\ntext\r\n", vec![("s", Change::Delete)]),
        (string::getex, "GETEX t", "$1\r\nx\r\n", vec![]),
        (string::getex, "GETEX t PERSIST", "$1\r\nx\r\n", vec![("t", Change::Expire(None))]),
        (string::getex, "GETEX s PERSIST", "$4\r\ntext\r\n", vec![]),
        (string::getex, "GETEX s EX 5", "$4\r\ntext\r\n", vec![("s", Change::Expire(Some(soon)))]),
        (string::getex, "GETEX s EXAT 5", "$4\r\ntext\r\n", vec![("s", Change::Delete)]),
        (string::mset_part, "MSET s v", "+OK\r\n", vec![("s", put("v", Expire::Clear))]),
        (
            string::msetnx,
            "MSETNX x 1 x 2",
            ":1\r\n",
            vec![("x", put("1", Expire::Clear)), ("x", put("2", Expire::Clear))],
        ),
        (range::append, "APPEND t y", ":2\r\n", vec![("t", put("xy", Expire::Keep))]),
        (range::append, "APPEND x y", ":1\r\n", vec![("x", put("y", Expire::Clear))]),
        (range::setrange, "SETRANGE x 1 y", ":2\r\n", vec![("x", put("\0y", Expire::Clear))]),
        (range::setrange, "SETRANGE s 1 E", ":4\r\n", vec![("s", put("tExt", Expire::Keep))]),
        (range::setrange, "SETRANGE s 1 ''", ":4\r\n", vec![]),
        (counter::incr, "INCR n", ":8\r\n", vec![("n", PLUS_ONE)]),
        (counter::incr, "INCR x", ":1\r\n", vec![("x", PLUS_ONE)]),
        (counter::decrby, "DECRBY n 9", ":-2\r\n", vec![("n", Change::Increment(Amount::Int(-9)))]),
        (counter::incr, "INCR s", "-ERR value is not an integer or out of range\r\n", vec![]),
        (
            counter::incrbyfloat,
            "INCRBYFLOAT n 0.5",
            "$3\r\n7.5\r\n",
            vec![("n", Change::Increment(Amount::Float(0.5, 0.0)))],
        ),
        (expiry::expire, "EXPIRE s 5", ":1\r\n", vec![("s", Change::Expire(Some(soon)))]),
        (expiry::expire, "EXPIRE s -5", ":1\r\n", vec![("s", Change::Delete)]),
        (expiry::expire, "EXPIRE x -5", ":0\r\n", vec![]),
        (expiry::expire, "EXPIRE t 5 NX", ":0\r\n", vec![]),
        (expiry::persist, "PERSIST t", ":1\r\n", vec![("t", Change::Expire(None))]),
        (expiry::persist, "PERSIST s", ":0\r\n", vec![]),
        (key::del_part, "DEL s", ":1\r\n", vec![("s", Change::Delete)]),
        (key::del_part, "DEL x", ":0\r\n", vec![]),
        (
            key::rename,
            "RENAME t s",
            "+OK\r\n",
            vec![("s", put("x", Expire::At(at))), ("t", Change::Delete)],
        ),
        (key::rename, "RENAME t t", "+OK\r\n", vec![]),
        (key::renamenx, "RENAMENX t s", ":0\r\n", vec![]),
        (key::copy, "COPY t x", ":1\r\n", vec![("x", put("x", Expire::At(at)))]),
        (key::copy, "COPY t s", ":0\r\n", vec![]),
        (bitmap::setbit, "SETBIT s 7 1", ":0\r\n", vec![("s", put("uext", Expire::Keep))]),
        (bitmap::setbit, "SETBIT s 7 0", ":0\r\n", vec![]),
        (bitmap::setbit, "SETBIT x 9 0", ":0\r\n", vec![("x", put("\0\0", Expire::Clear))]),
        (bitmap::bitop, "BITOP OR t s n", ":4\r\n", vec![("t", put("wext", Expire::Clear))]),
        (bitmap::bitop, "BITOP AND s x", ":0\r\n", vec![("s", Change::Delete)]),
        (bitmap::bitop, "BITOP AND y x", ":0\r\n", vec![]),
        (
            bitmap_field::bitfield,
            "BITFIELD t SET u8 0 65 GET u8 0",
            "*2\r\n:120\r\n:65\r\n",
            vec![("t", put("A", Expire::Keep))],
        ),
        (bitmap_field::bitfield, "BITFIELD t SET u8 0 120", "*1\r\n:120\r\n", vec![]),
        (bitmap_field::bitfield, "BITFIELD t GET u8 9", "*1\r\n:0\r\n", vec![]),
        (
            bitmap_field::bitfield,
            "BITFIELD x OVERFLOW FAIL SET u4 4 16",
            "*1\r\n$-1\r\n",
            vec![("x", put("\0", Expire::Clear))],
        ),
        (object::memory_usage, "MEMORY USAGE s SAMPLES 0", ":53\r\n", vec![]),
        (object::object_refcount, "OBJECT REFCOUNT s", ":1\r\n", vec![]),
    ];
    let model = furnished();
    let requests: Vec<Vec<Vec<u8>>> = rows.iter().map(|(_, line, ..)| words(line)).collect();
    for ((keyed, line, reply, changes), request) in rows.into_iter().zip(&requests) {
        let request: Vec<&[u8]> = request.iter().map(Vec::as_slice).collect();
        let (replied, changed) = ask(&model, model.now, model.protocol, keyed, &request);
        assert_eq!(String::from_utf8_lossy(&replied), reply, "{line}");
        let expected: Vec<(&[u8], Change<'_>)> =
            changes.into_iter().map(|(key, change)| (key.as_bytes(), change)).collect();
        assert_eq!(changed, expected, "{line}");
    }
}

#[test]
fn another_type_is_refused_or_overlooked_as_in_redis() {
    let mut model = furnished();
    model.plant(b"l", Kind::List);
    let refused = [
        "GET l",
        "SET l v GET",
        "SET l v NX GET",
        "GETSET l v",
        "GETDEL l",
        "GETEX l",
        "GETEX l EX 0",
        "APPEND l v",
        "STRLEN l",
        "GETRANGE l 0 1",
        "SETRANGE l 0 v",
        "SETRANGE l 0 ''",
        "INCR l",
        "DECRBY l 2",
        "INCRBYFLOAT l x",
        "SETBIT l 0 1",
        "GETBIT l 0",
        "BITCOUNT l",
        "BITCOUNT l 0 1",
        "BITPOS l 1",
        "BITPOS l 1 0",
        "BITOP OR x s l",
        "BITOP NOT x l",
        "BITFIELD l",
        "BITFIELD l SET u8 0 1",
        "BITFIELD_RO l GET u8 0",
        "PFADD l x",
        "PFCOUNT l",
        "PFCOUNT x l",
        "PFMERGE l",
        "PFMERGE x l",
    ];
    for line in refused {
        let reply = run(&mut model, line);
        assert_eq!(
            reply, "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
            "{line}"
        );
    }
    let answered = [
        ("TYPE l", "+list\r\n"),
        ("MGET l s", "*2\r\n$-1\r\n$4\r\ntext\r\n"),
        ("EXISTS l", ":1\r\n"),
        ("SETNX l v", ":0\r\n"),
        ("SET l v NX", "$-1\r\n"),
        ("SETBIT l x 1", "-ERR bit offset is not an integer or out of range\r\n"),
        (
            "BITFIELD l GET u64 0",
            concat!(
                "-ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported ",
                "but i64 is.\r\n"
            ),
        ),
        // As Redis 7.2: the one of the transcripts still looks at the key first.
        ("BITCOUNT l 0", "-ERR syntax error\r\n"),
        ("BITCOUNT none x 0", "-ERR value is not an integer or out of range\r\n"),
        ("BITCOUNT none 0 0 x", "-ERR syntax error\r\n"),
        ("BITPOS l 1 x", "-ERR value is not an integer or out of range\r\n"),
        ("BITPOS none 0 0 0 x", "-ERR syntax error\r\n"),
        ("LCS l s FOO", "-ERR The specified keys must contain string values\r\n"),
        ("EXPIRE l 100", ":1\r\n"),
        ("TTL l", ":100\r\n"),
        ("SET l v XX", "+OK\r\n"),
        ("TYPE l", "+string\r\n"),
        ("TTL l", ":-1\r\n"),
    ];
    for (line, expected) in answered {
        assert_eq!(run(&mut model, line), expected, "{line}");
    }
}

#[test]
fn time_takes_keys_at_their_very_millisecond() {
    let mut model = Model::new();
    for line in ["SET k v PX 1500", "INCR c", "PEXPIRE c 1500"] {
        run(&mut model, line);
    }
    assert_eq!(run(&mut model, "TTL k"), ":2\r\n");
    model.now.0 += 1;
    assert_eq!(run(&mut model, "TTL k"), ":1\r\n");
    assert_eq!(run(&mut model, "PTTL k"), ":1499\r\n");
    model.now.0 += 1498;
    assert_eq!(run(&mut model, "TTL k"), ":0\r\n");
    model.now.0 += 1;
    assert_eq!(run(&mut model, "GET k"), "$-1\r\n");
    assert_eq!(run(&mut model, "TTL k"), ":-2\r\n");
    assert_eq!(run(&mut model, "INCR c"), ":1\r\n");
    assert_eq!(run(&mut model, "TTL c"), ":-1\r\n");
}

/// A keyspace in which every key is a string of the greatest size, of which not a byte is there.
struct Giants;

impl Views for Giants {
    fn view(&self, key: &[u8]) -> Option<View<'_>> {
        let body = Body::Stored(Packed { raw_len: VALUE_SIZE_MAX as u32, lz4: true, bytes: &[] });
        let view = View { kind: Kind::String, expire_at: None, memory: VALUE_SIZE_MAX, body };
        (key != b"none").then_some(view)
    }
}

#[test]
fn strings_do_not_outgrow_their_limit() {
    for (keyed, line, expected) in [
        (
            range::append as Keyed,
            "APPEND k x",
            "-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n",
        ),
        (range::strlen, "STRLEN k", ":536870912\r\n"),
        (range::setrange, "SETRANGE k 9 ''", ":536870912\r\n"),
        (
            bitmap_field::bitfield,
            "BITFIELD none SET u8 4294967295 1",
            "-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n",
        ),
    ] {
        let request = words(line);
        let request: Vec<&[u8]> = request.iter().map(Vec::as_slice).collect();
        let (reply, changes) = ask(&Giants, UnixMs(1), Protocol::Resp2, keyed, &request);
        assert_eq!(String::from_utf8_lossy(&reply), expected, "{line}");
        assert!(changes.is_empty());
    }
}

/// A request of the histories, on small keys, with small texts.
#[derive(Clone, Debug)]
enum Ask {
    Get(u8),
    Set(u8, String, SetWhen, Option<u16>),
    GetDel(u8),
    Append(u8, String),
    SetRange(u8, u8, String),
    IncrBy(u8, i64),
    Expire(u8, i16, &'static str),
    Ttl(u8),
    Persist(u8),
    Del(u8),
    Rename(u8, u8),
    Copy(u8, u8, bool),
    Wait(u16),
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum SetWhen {
    Always,
    Absent,
    Present,
}

impl Ask {
    fn line(&self) -> String {
        let shown = |text: &String| if text.is_empty() { "''".to_owned() } else { text.clone() };
        match self {
            Ask::Get(k) => format!("GET {k}"),
            Ask::Set(k, text, when, ms) => {
                let when = match when {
                    SetWhen::Always => "",
                    SetWhen::Absent => " NX",
                    SetWhen::Present => " xx",
                };
                let ms = ms.map_or(String::new(), |ms| format!(" PX {}", u32::from(ms) + 1));
                format!("SET {k} {}{when}{ms}", shown(text))
            }
            Ask::GetDel(k) => format!("GETDEL {k}"),
            Ask::Append(k, text) => format!("APPEND {k} {}", shown(text)),
            Ask::SetRange(k, at, text) => format!("SETRANGE {k} {at} {}", shown(text)),
            Ask::IncrBy(k, by) => format!("INCRBY {k} {by}"),
            Ask::Expire(k, ms, "") => format!("PEXPIRE {k} {ms}"),
            Ask::Expire(k, ms, when) => format!("PEXPIRE {k} {ms} {when}"),
            Ask::Ttl(k) => format!("PTTL {k}"),
            Ask::Persist(k) => format!("PERSIST {k}"),
            Ask::Del(k) => format!("DEL {k}"),
            Ask::Rename(from, to) => format!("RENAMENX {from} {to}"),
            Ask::Copy(from, to, replace) => {
                format!("COPY {from} {to}{}", if *replace { " REPLACE" } else { "" })
            }
            Ask::Wait(_) => "GET 0".to_owned(),
        }
    }
}

fn any_ask() -> impl Strategy<Value = Ask> {
    let k = || 0u8..3;
    let text = || "[0-9]{0,3}|[ab]{0,3}|-?[1-9]{19}";
    let when = prop_oneof![Just(SetWhen::Always), Just(SetWhen::Absent), Just(SetWhen::Present)];
    prop_oneof![
        k().prop_map(Ask::Get),
        (k(), text(), when, prop::option::of(0..3000u16))
            .prop_map(|(k, t, w, ms)| Ask::Set(k, t, w, ms)),
        k().prop_map(Ask::GetDel),
        (k(), text()).prop_map(|(k, t)| Ask::Append(k, t)),
        (k(), 0..6u8, text()).prop_map(|(k, at, t)| Ask::SetRange(k, at, t)),
        (k(), prop_oneof![-20..20i64, any::<i64>()]).prop_map(|(k, by)| Ask::IncrBy(k, by)),
        (k(), -100..3000i16, prop::sample::select(vec!["", "NX", "XX", "GT", "LT"]))
            .prop_map(|(k, ms, when)| Ask::Expire(k, ms, when)),
        k().prop_map(Ask::Ttl),
        k().prop_map(Ask::Persist),
        k().prop_map(Ask::Del),
        (k(), k()).prop_map(|(from, to)| Ask::Rename(from, to)),
        (k(), k(), any::<bool>()).prop_map(|(from, to, replace)| Ask::Copy(from, to, replace)),
        (0..1500u16).prop_map(Ask::Wait),
    ]
}

/// The second model: state is changed in place, endless time is infinity, replies are said plainly.
#[derive(Default)]
struct Plain {
    keys: HashMap<u8, (String, f64)>,
    now: f64,
}

fn number(number: i64) -> String {
    format!(":{number}\r\n")
}

fn bulk(text: Option<&String>) -> String {
    text.map_or("$-1\r\n".to_owned(), |text| format!("${}\r\n{text}\r\n", text.len()))
}

impl Plain {
    fn run(&mut self, ask: &Ask) -> String {
        let now = self.now;
        self.keys.retain(|_, (_, end)| *end > now);
        match ask {
            Ask::Get(k) => bulk(self.keys.get(k).map(|(text, _)| text)),
            Ask::Wait(ms) => {
                let said = bulk(self.keys.get(&0).map(|(text, _)| text));
                self.now += f64::from(*ms);
                said
            }
            Ask::Set(k, text, when, ms) => {
                if *when != SetWhen::Always
                    && (*when == SetWhen::Present) != self.keys.contains_key(k)
                {
                    return "$-1\r\n".to_owned();
                }
                let end = ms.map_or(f64::INFINITY, |ms| now + f64::from(ms) + 1.0);
                self.keys.insert(*k, (text.clone(), end));
                "+OK\r\n".to_owned()
            }
            Ask::GetDel(k) => bulk(self.keys.remove(k).map(|(text, _)| text).as_ref()),
            Ask::Append(k, text) => {
                let kept = self.keys.entry(*k).or_insert((String::new(), f64::INFINITY));
                kept.0 += text;
                number(kept.0.len() as i64)
            }
            Ask::SetRange(k, at, text) => self.set_range(*k, usize::from(*at), text),
            Ask::IncrBy(k, by) => self.count(*k, *by),
            Ask::Expire(k, ms, when) => number(self.expire(*k, now + f64::from(*ms), when).into()),
            Ask::Ttl(k) => number(match self.keys.get(k) {
                None => -2,
                Some((_, end)) if end.is_infinite() => -1,
                Some((_, end)) => (end - now) as i64,
            }),
            Ask::Persist(k) => {
                let end =
                    self.keys.get_mut(k).map(|kept| std::mem::replace(&mut kept.1, f64::INFINITY));
                number(end.is_some_and(f64::is_finite).into())
            }
            Ask::Del(k) => number(self.keys.remove(k).is_some().into()),
            Ask::Rename(from, _) if !self.keys.contains_key(from) => {
                "-ERR no such key\r\n".to_owned()
            }
            Ask::Rename(_, to) if self.keys.contains_key(to) => number(0),
            Ask::Rename(from, to) => {
                let kept = self.keys.remove(from).expect("was asked above");
                self.keys.insert(*to, kept);
                number(1)
            }
            Ask::Copy(from, to, _) if from == to => {
                "-ERR source and destination objects are the same\r\n".to_owned()
            }
            Ask::Copy(from, to, replace) => match self.keys.get(from).cloned() {
                Some(kept) if *replace || !self.keys.contains_key(to) => {
                    self.keys.insert(*to, kept);
                    number(1)
                }
                _ => number(0),
            },
        }
    }

    fn set_range(&mut self, k: u8, at: usize, text: &str) -> String {
        let (old, end) = self.keys.get(&k).cloned().unwrap_or((String::new(), f64::INFINITY));
        if text.is_empty() {
            return number(old.len() as i64);
        }
        let head = format!("{old:\0<at$}")[..at].to_owned();
        let tail = old.get(at + text.len()..).unwrap_or("");
        let new = format!("{head}{text}{tail}");
        let len = new.len();
        self.keys.insert(k, (new, end));
        number(len as i64)
    }

    fn count(&mut self, k: u8, by: i64) -> String {
        let (old, end) = self.keys.get(&k).cloned().unwrap_or(("0".to_owned(), f64::INFINITY));
        let Some(value) = old.parse::<i64>().ok().filter(|value| value.to_string() == old) else {
            return "-ERR value is not an integer or out of range\r\n".to_owned();
        };
        match i64::try_from(i128::from(value) + i128::from(by)) {
            Ok(sum) => {
                self.keys.insert(k, (sum.to_string(), end));
                number(sum)
            }
            Err(_) => "-ERR increment or decrement would overflow\r\n".to_owned(),
        }
    }

    fn expire(&mut self, k: u8, moment: f64, when: &str) -> bool {
        let Some(kept) = self.keys.get_mut(&k) else { return false };
        let fits = match when {
            "NX" => kept.1.is_infinite(),
            "XX" => kept.1.is_finite(),
            "GT" => moment > kept.1,
            "LT" => moment < kept.1,
            _ => true,
        };
        if fits {
            kept.1 = moment;
        }
        fits
    }
}

/// Every keyed function, with how many arguments its row promises it.
const ALL: [(Keyed, usize); 50] = [
    (string::get, 2),
    (string::mget_part, 2),
    (string::set, 3),
    (string::setnx, 3),
    (string::setex, 4),
    (string::psetex, 4),
    (string::getset, 3),
    (string::getdel, 2),
    (string::getex, 2),
    (string::mset_part, 3),
    (string::msetnx, 3),
    (range::append, 3),
    (range::strlen, 2),
    (range::getrange, 4),
    (range::setrange, 4),
    (counter::incr, 2),
    (counter::decr, 2),
    (counter::incrby, 3),
    (counter::decrby, 3),
    (counter::incrbyfloat, 3),
    (lcs::lcs, 3),
    (key::del_part, 2),
    (key::exists_part, 2),
    (key::type_of, 2),
    (key::rename, 3),
    (key::renamenx, 3),
    (key::copy, 3),
    (expiry::expire, 3),
    (expiry::pexpire, 3),
    (expiry::expireat, 3),
    (expiry::pexpireat, 3),
    (expiry::ttl, 2),
    (expiry::pttl, 2),
    (expiry::expiretime, 2),
    (expiry::pexpiretime, 2),
    (expiry::persist, 2),
    (object::object, 2),
    (object::memory_usage, 2),
    (bitmap::setbit, 4),
    (bitmap::getbit, 3),
    (bitmap::bitcount, 2),
    (bitmap::bitpos, 3),
    (bitmap::bitop, 4),
    (bitmap_field::bitfield, 2),
    (bitmap_field::bitfield_ro, 2),
    (hyperloglog::pfadd, 2),
    (hyperloglog::pfcount, 2),
    (hyperloglog::pfmerge, 2),
    (dump::dump_key, 2),
    (dump::restore, 4),
];

fn any_word() -> impl Strategy<Value = Vec<u8>> {
    const WORDS: [&str; 36] = [
        "s",
        "n",
        "t",
        "l",
        "x",
        "EX",
        "PX",
        "EXAT",
        "PXAT",
        "NX",
        "XX",
        "GET",
        "KEEPTTL",
        "PERSIST",
        "GT",
        "LT",
        "DB",
        "REPLACE",
        "LEN",
        "IDX",
        "MINMATCHLEN",
        "WITHMATCHLEN",
        "HELP",
        "ENCODING",
        "FREQ",
        "SAMPLES",
        "BIT",
        "OR",
        "NOT",
        "INCRBY",
        "OVERFLOW",
        "SAT",
        "u8",
        "i64",
        "ABSTTL",
        "IDLETIME",
    ];
    prop_oneof![
        4 => prop::sample::select(WORDS.to_vec()).prop_map(|word| word.as_bytes().to_vec()),
        2 => prop_oneof![any::<i64>(), -3..300i64, Just(i64::MIN), Just(i64::MAX)].prop_map(|n| n.to_string().into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..6),
    ]
    // A piece far off would only make a big string of zeros.
    .prop_filter("offsets stay small", |word| !(8..=9).contains(&word.len()) || !word[0].is_ascii_digit())
}

proptest! {
    #[test]
    fn histories_agree_with_a_second_model(asks in prop::collection::vec(any_ask(), 1..60)) {
        let (mut model, mut plain) = (Model::new(), Plain::default());
        for ask in &asks {
            prop_assert_eq!(run(&mut model, &ask.line()), plain.run(ask), "{:?}", ask);
            if let Ask::Wait(ms) = ask {
                model.now.0 += u64::from(*ms);
            }
        }
    }

    /// `model::ask` itself asserts: no panic, exactly one reply, no change beside an error.
    #[test]
    fn any_words_get_one_reply(at in 0..ALL.len(), words in prop::collection::vec(any_word(), 3..8), cut in 0..6usize) {
        let mut model = furnished();
        model.plant(b"l", Kind::List);
        let (keyed, least) = ALL[at];
        let mut request: Vec<&[u8]> = vec![b"NAME"];
        request.extend(words.iter().map(Vec::as_slice));
        request.truncate((least + cut).min(request.len()).max(least));
        ask(&model, model.now, model.protocol, keyed, &request);
    }
}
