//! Tests of hashes: the changes that commands name, fields that expire, and histories against a
//! second model. (What Redis 7.0 can be asked stands in the transcripts.)

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::base::limits::DRAWS_MAX;
use crate::base::time::UnixMs;
use crate::resp::reply::Protocol;
use crate::value::change::{Amount, Change, Edit};
use crate::value::view::Kind;

use super::model::{Model, ask, ask_by_chance, words};
use super::spec::{Keyed, Run};
use super::table;

/// Far off: 2100.
const AT: u64 = 4_102_444_800_000;

fn run(model: &mut Model, line: &str) -> String {
    let request = words(line);
    let request: Vec<&[u8]> = request.iter().map(Vec::as_slice).collect();
    String::from_utf8_lossy(&model.run(&request)).into_owned()
}

fn keyed(line: &str) -> Keyed {
    let name = line.split(' ').next().expect("a name");
    match table::lookup(name.as_bytes()).expect("a command").run {
        Run::Slot(keyed) => keyed,
        _ => panic!("{name} is not of one slot"),
    }
}

/// The texts in a RESP2 reply, without heads and lengths.
fn texts(reply: &str) -> Vec<String> {
    let lines = reply.split_terminator("\r\n").filter(|line| !line.starts_with(['*', '$']));
    lines.map(str::to_owned).collect()
}

/// `h` = {a: 1, b: 2}, `e` = {x: 5} whose field expires, and the string `s`.
fn furnished() -> Model {
    let mut model = Model::new();
    let expiring = format!("HPEXPIREAT e {AT} FIELDS 1 x");
    for line in ["HSET h a 1 b 2", "HSET e x 5", &expiring, "SET s text"] {
        run(&mut model, line);
    }
    model
}

fn field(name: &'static str, value: &'static str) -> Edit<'static> {
    Edit::field(name.as_bytes(), value.as_bytes())
}

fn remove(name: &'static str) -> Edit<'static> {
    Edit::remove(name.as_bytes())
}

fn add(name: &'static str, amount: Amount) -> Edit<'static> {
    Edit::Add { name: name.as_bytes().into(), amount }
}

fn expiring(name: &'static str, value: &'static str, at: Option<u64>) -> Edit<'static> {
    let (name, value) = (name.as_bytes().into(), value.as_bytes().into());
    Edit::Set { name, value, expire_at: at.map(UnixMs) }
}

#[test]
fn commands_name_their_changes() {
    let model = furnished();
    let soon = Some(model.now.0 + 5_000);
    let rows: Vec<(&str, &str, Vec<Edit<'_>>)> = vec![
        ("HSET h a 9 c 3", ":1\r\n", vec![field("a", "9"), field("c", "3")]),
        ("HSET h c 1 c 2", ":1\r\n", vec![field("c", "1"), field("c", "2")]),
        ("HSET h a 1", ":0\r\n", vec![field("a", "1")]),
        ("HSET e x 6", ":0\r\n", vec![field("x", "6")]),
        ("HMSET h a 9", "+OK\r\n", vec![field("a", "9")]),
        ("HSETNX h a 9", ":0\r\n", vec![]),
        ("HSETNX h c 9", ":1\r\n", vec![field("c", "9")]),
        ("HDEL h a none a b", ":2\r\n", vec![remove("a"), remove("b")]),
        ("HDEL h none", ":0\r\n", vec![]),
        ("HINCRBY h a 4", ":5\r\n", vec![add("a", Amount::Int(4))]),
        ("HINCRBY h c -4", ":-4\r\n", vec![add("c", Amount::Int(-4))]),
        ("HINCRBY h a 0", ":1\r\n", vec![add("a", Amount::Int(0))]),
        ("HINCRBYFLOAT h a 0.5", "$3\r\n1.5\r\n", vec![add("a", Amount::Float(0.5, 0.0))]),
        ("HEXPIRE h 5 FIELDS 2 a c", "*2\r\n:1\r\n:-2\r\n", vec![expiring("a", "1", soon)]),
        ("HPEXPIRE h 5000 fields 1 a", "*1\r\n:1\r\n", vec![expiring("a", "1", soon)]),
        ("HEXPIREAT h 4102444800 FIELDS 1 b", "*1\r\n:1\r\n", vec![expiring("b", "2", Some(AT))]),
        ("HPEXPIREAT h 1 FIELDS 1 a", "*1\r\n:2\r\n", vec![remove("a")]),
        ("HPEXPIRE h 0 FIELDS 2 a a", "*2\r\n:2\r\n:-2\r\n", vec![remove("a")]),
        (
            "HEXPIRE h 5 NX FIELDS 3 a a b",
            "*3\r\n:1\r\n:0\r\n:1\r\n",
            vec![expiring("a", "1", soon), expiring("b", "2", soon)],
        ),
        ("HEXPIRE h 5 XX FIELDS 1 a", "*1\r\n:0\r\n", vec![]),
        ("HEXPIRE h 5 GT FIELDS 1 a", "*1\r\n:0\r\n", vec![]),
        ("HEXPIRE h 5 LT FIELDS 1 a", "*1\r\n:1\r\n", vec![expiring("a", "1", soon)]),
        ("HEXPIRE e 5 NX FIELDS 1 x", "*1\r\n:0\r\n", vec![]),
        ("HEXPIRE e 5 gt FIELDS 1 x", "*1\r\n:0\r\n", vec![]),
        ("HEXPIRE e 5 lt FIELDS 1 x", "*1\r\n:1\r\n", vec![expiring("x", "5", soon)]),
        ("HEXPIRE e 5 xx FIELDS 1 x", "*1\r\n:1\r\n", vec![expiring("x", "5", soon)]),
        ("HPEXPIREAT e 4102444800000 GT FIELDS 1 x", "*1\r\n:0\r\n", vec![]),
        ("HPEXPIREAT e 4102444800000 LT FIELDS 1 x", "*1\r\n:0\r\n", vec![]),
        (
            "HPEXPIREAT e 4102444800001 GT FIELDS 1 x",
            "*1\r\n:1\r\n",
            vec![expiring("x", "5", Some(AT + 1))],
        ),
        ("HPEXPIREAT e 1 GT FIELDS 1 x", "*1\r\n:0\r\n", vec![]),
        ("HPEXPIREAT e 1 LT FIELDS 1 x", "*1\r\n:2\r\n", vec![remove("x")]),
        ("HEXPIRE none 5 FIELDS 2 a b", "*2\r\n:-2\r\n:-2\r\n", vec![]),
        ("HPERSIST e FIELDS 3 x x y", "*3\r\n:1\r\n:-1\r\n:-2\r\n", vec![expiring("x", "5", None)]),
        ("HPERSIST h FIELDS 1 a", "*1\r\n:-1\r\n", vec![]),
        ("HPERSIST none FIELDS 1 a", "*1\r\n:-2\r\n", vec![]),
        ("HTTL e FIELDS 2 x y", "", vec![]),
        ("HPEXPIRETIME e FIELDS 2 x y", "*2\r\n:4102444800000\r\n:-2\r\n", vec![]),
        ("HEXPIRETIME e FIELDS 2 y x", "*2\r\n:-2\r\n:4102444800\r\n", vec![]),
        ("HPTTL h FIELDS 2 a none", "*2\r\n:-1\r\n:-2\r\n", vec![]),
        ("HTTL none FIELDS 1 a", "*1\r\n:-2\r\n", vec![]),
        ("HRANDFIELD h -3", "", vec![]),
        ("HSCAN h 0", "", vec![]),
    ];
    for (line, reply, edits) in rows {
        let request = words(line);
        let request: Vec<&[u8]> = request.iter().map(Vec::as_slice).collect();
        let (said, changes) = ask(&model, model.now, model.protocol, keyed(line), &request);
        if !reply.is_empty() {
            assert_eq!(String::from_utf8_lossy(&said), reply, "{line}");
        }
        let expected = match edits.is_empty() {
            true => vec![],
            false => vec![(request[1], Change::edit(Kind::Hash, edits))],
        };
        assert_eq!(changes, expected, "{line}");
    }
}

#[test]
fn what_is_no_time_to_live_is_refused_as_in_redis() {
    let mut model = furnished();
    const WRONGTYPE: &str = "WRONGTYPE Operation against a key holding the wrong kind of value";
    const FIELDS: &str = "ERR Mandatory argument FIELDS is missing or not at the right position";
    const DIFFER: &str = "ERR The `numfields` parameter must match the number of arguments";
    for (line, error) in [
        ("HEXPIRE s x FIELDS 1 a", WRONGTYPE),
        ("HPERSIST s FOO 1 a", WRONGTYPE),
        ("HTTL s FIELDS 0 a", WRONGTYPE),
        ("HEXPIRE h x FOO 1 a", "ERR value is not an integer or out of range"),
        ("HEXPIRE h -1 FIELDS 1 a", "ERR invalid expire time, must be >= 0"),
        ("HPEXPIREAT none -1 FIELDS 1 a", "ERR invalid expire time, must be >= 0"),
        (
            "HEXPIRE h 9223372036854775807 FIELDS 1 a",
            "ERR invalid expire time in 'hexpire' command",
        ),
        ("HEXPIRE h 70368744177 FIELDS 1 a", "ERR invalid expire time in 'hexpire' command"),
        ("HPEXPIRE h 70368744177663 FIELDS 1 a", "ERR invalid expire time in 'hpexpire' command"),
        ("HEXPIREAT h 70368744178 FIELDS 1 a", "ERR invalid expire time in 'hexpireat' command"),
        (
            "HPEXPIREAT h 70368744177664 FIELDS 1 a",
            "ERR invalid expire time in 'hpexpireat' command",
        ),
        ("HEXPIRE h 5 NX XX FIELDS 1 a", FIELDS),
        ("HEXPIRE h 5 QQ FIELDS 1 a", FIELDS),
        ("HEXPIRE h 5 1 a b", FIELDS),
        ("HTTL h FOO 1 a", FIELDS),
        ("HPERSIST h 1 a b", FIELDS),
        ("HEXPIRE h 5 FIELDS 0 a", "ERR Parameter `numFields` should be greater than 0"),
        ("HEXPIRE h 5 FIELDS x a", "ERR Parameter `numFields` should be greater than 0"),
        ("HTTL h FIELDS 0 a", "ERR Number of fields must be a positive integer"),
        ("HPERSIST h FIELDS x a", "ERR Number of fields must be a positive integer"),
        ("HEXPIRE h 5 FIELDS 2 a", DIFFER),
        ("HEXPIRE none 5 FIELDS 1 a b", DIFFER),
        ("HEXPIRETIME h FIELDS 1 a b", DIFFER),
        ("HPERSIST h FIELDS 2 a", DIFFER),
        ("HEXPIRE h 5 FIELDS 1", "ERR wrong number of arguments for 'hexpire' command"),
        ("HTTL h FIELDS 1", "ERR wrong number of arguments for 'httl' command"),
        ("HPERSIST h FIELDS 1", "ERR wrong number of arguments for 'hpersist' command"),
        ("SSCAN none 0 NOVALUES", ""),
        ("SSCAN set 0 NOVALUES", "ERR NOVALUES option can only be used in HSCAN"),
    ] {
        run(&mut model, "SADD set m");
        let reply = run(&mut model, line);
        if error.is_empty() {
            assert_eq!(reply, "*2\r\n$1\r\n0\r\n*0\r\n", "{line}");
        } else {
            assert_eq!(reply, format!("-{error}\r\n"), "{line}");
        }
    }
    assert_eq!(run(&mut model, "HPEXPIREAT h 70368744177663 FIELDS 1 a"), "*1\r\n:1\r\n");
}

#[test]
fn fields_end_at_their_very_millisecond_and_the_hash_with_the_last() {
    let mut model = Model::new();
    run(&mut model, "HSET h a 1 b 2");
    assert_eq!(run(&mut model, "HPEXPIRE h 1500 FIELDS 1 a"), "*1\r\n:1\r\n");
    assert_eq!(run(&mut model, "HTTL h FIELDS 2 a b"), "*2\r\n:2\r\n:-1\r\n");
    model.now.0 += 1_499;
    assert_eq!(run(&mut model, "HTTL h FIELDS 1 a"), "*1\r\n:1\r\n");
    assert_eq!(run(&mut model, "HPTTL h FIELDS 1 a"), "*1\r\n:1\r\n");
    assert_eq!(run(&mut model, "HGET h a"), "$1\r\n1\r\n");
    model.now.0 += 1;
    assert_eq!(run(&mut model, "HGET h a"), "$-1\r\n");
    assert_eq!(run(&mut model, "HLEN h"), ":1\r\n");
    assert_eq!(run(&mut model, "HTTL h FIELDS 1 a"), "*1\r\n:-2\r\n");
    assert_eq!(run(&mut model, "HGETALL h"), "*2\r\n$1\r\nb\r\n$1\r\n2\r\n");
    assert_eq!(run(&mut model, "HSET h a 3"), ":1\r\n");
    assert_eq!(run(&mut model, "HTTL h FIELDS 1 a"), "*1\r\n:-1\r\n");
    run(&mut model, "HPEXPIRE h 10 FIELDS 2 a b");
    model.now.0 += 10;
    assert_eq!(run(&mut model, "EXISTS h"), ":0\r\n");
    assert_eq!(run(&mut model, "HSETNX h a 4"), ":1\r\n");
    assert_eq!(run(&mut model, "HGETALL h"), "*2\r\n$1\r\na\r\n$1\r\n4\r\n");
}

#[test]
fn writing_a_field_ends_its_time_to_live_and_counting_does_not() {
    let mut model = furnished();
    let end = |model: &mut Model| run(model, "HPEXPIRETIME e FIELDS 1 x");
    run(&mut model, "HINCRBY e x 2");
    run(&mut model, "HINCRBYFLOAT e x 0.5");
    assert_eq!(end(&mut model), format!("*1\r\n:{AT}\r\n"));
    run(&mut model, "HSET e x 7");
    assert_eq!(end(&mut model), "*1\r\n:-1\r\n");
}

/// Every cursor from 0 to 0, with what came.
fn walk(model: &mut Model, line: &str) -> Vec<String> {
    let (mut cursor, mut met) = ("0".to_owned(), Vec::new());
    loop {
        let reply = run(model, &line.replace("CURSOR", &cursor));
        let mut texts = texts(&reply).into_iter();
        cursor = texts.next().expect("a cursor");
        met.extend(texts);
        if cursor == "0" {
            return met;
        }
    }
}

#[test]
fn a_scan_meets_every_field_once() {
    let mut model = Model::new();
    let fields: BTreeSet<String> = (0..100).map(|nth| format!("f{nth}")).collect();
    for field in &fields {
        run(&mut model, &format!("HSET h {field} v{field}"));
        run(&mut model, &format!("SADD s {field}"));
    }
    for line in ["HSCAN h CURSOR NOVALUES", "SSCAN s CURSOR", "HSCAN h CURSOR NOVALUES COUNT 7"] {
        let met = walk(&mut model, line);
        assert_eq!(met.len(), 100, "{line}");
        assert_eq!(met.into_iter().collect::<BTreeSet<_>>(), fields, "{line}");
    }
    let met = walk(&mut model, "HSCAN h CURSOR COUNT 3 MATCH f1*");
    assert_eq!(met.len(), 22);
    assert!(met.chunks(2).all(|pair| pair[1] == format!("v{}", pair[0])), "{met:?}");
    assert_eq!(run(&mut model, "HSCAN h 18446744073709551615"), "*2\r\n$1\r\n0\r\n*0\r\n");
}

#[test]
fn random_fields_are_as_many_as_asked() {
    let mut model = Model::new();
    run(&mut model, "HSET h a 1 b 2 c 3 d 4");
    let draw = |line: &str, random: u64| {
        let request = words(line);
        let request: Vec<&[u8]> = request.iter().map(Vec::as_slice).collect();
        let (reply, _) =
            ask_by_chance(&model, model.now, random, Protocol::Resp2, keyed(line), &request);
        texts(&String::from_utf8_lossy(&reply))
    };
    let (mut single, mut pairs) = (BTreeMap::new(), BTreeSet::new());
    for random in 0..400 {
        *single.entry(draw("HRANDFIELD h", random)).or_insert(0) += 1;
        let three = draw("HRANDFIELD h 3", random);
        assert_eq!(three.iter().collect::<BTreeSet<_>>().len(), 3);
        let many = draw("HRANDFIELD h -9", random);
        assert_eq!(many.len(), 9);
        assert!(many.iter().all(|field| "abcd".contains(field.as_str())));
        let pair = draw("HRANDFIELD h 1 WITHVALUES", random);
        assert_eq!(pair.len(), 2);
        pairs.insert(pair.concat());
    }
    assert!(single.len() == 4 && single.values().all(|&met| met > 50), "{single:?}");
    assert_eq!(Vec::from_iter(pairs), ["a1", "b2", "c3", "d4"]);
}

/// A small request must not make a reply of any size.
#[test]
fn repeated_draws_are_bounded() {
    let mut model = Model::new();
    run(&mut model, "HSET h a 1");
    let refused = "-ERR value is out of range\r\n";
    assert_eq!(run(&mut model, &format!("HRANDFIELD h -{}", DRAWS_MAX + 1)), refused);
    assert_eq!(run(&mut model, "HRANDFIELD h -9223372036854775807"), refused);
    assert_eq!(run(&mut model, "HRANDFIELD none -9223372036854775807"), "*0\r\n");
    let value = "v".repeat(1 << 20);
    run(&mut model, &format!("HSET h a {value}"));
    assert_eq!(run(&mut model, "HRANDFIELD h -513 WITHVALUES"), refused);
    assert!(run(&mut model, "HRANDFIELD h -513").starts_with("*513\r\n"));
}

/// A request of the histories.
#[derive(Clone, Debug)]
enum Ask {
    Set(Vec<(u8, i8)>),
    SetNx(u8, i8),
    Del(Vec<u8>),
    Get(u8),
    All,
    Incr(u8, i8),
    Expire(u16, &'static str, Vec<u8>),
    Ttl(Vec<u8>),
    Persist(Vec<u8>),
    Wait(u16),
}

fn list(fields: &[u8]) -> String {
    let names: Vec<String> = fields.iter().map(u8::to_string).collect();
    format!("FIELDS {} {}", fields.len(), names.join(" "))
}

impl Ask {
    fn line(&self) -> String {
        match self {
            Ask::Set(pairs) => {
                let pairs: Vec<String> = pairs.iter().map(|(f, v)| format!("{f} {v}")).collect();
                format!("HSET h {}", pairs.join(" "))
            }
            Ask::SetNx(f, v) => format!("HSETNX h {f} {v}"),
            Ask::Del(fields) => {
                let names: Vec<String> = fields.iter().map(u8::to_string).collect();
                format!("HDEL h {}", names.join(" "))
            }
            Ask::Get(f) => format!("HGET h {f}"),
            Ask::All | Ask::Wait(_) => "HGETALL h".to_owned(),
            Ask::Incr(f, by) => format!("HINCRBY h {f} {by}"),
            Ask::Expire(ms, "", fields) => format!("HPEXPIRE h {ms} {}", list(fields)),
            Ask::Expire(ms, when, fields) => format!("HPEXPIRE h {ms} {when} {}", list(fields)),
            Ask::Ttl(fields) => format!("HPTTL h {}", list(fields)),
            Ask::Persist(fields) => format!("HPERSIST h {}", list(fields)),
        }
    }
}

fn any_ask() -> impl Strategy<Value = Ask> {
    let f = || 0u8..4;
    let fs = || prop::collection::vec(0u8..4, 1..4);
    let when = prop::sample::select(vec!["", "NX", "XX", "GT", "LT"]);
    prop_oneof![
        prop::collection::vec((f(), any::<i8>()), 1..4).prop_map(Ask::Set),
        (f(), any::<i8>()).prop_map(|(f, v)| Ask::SetNx(f, v)),
        fs().prop_map(Ask::Del),
        f().prop_map(Ask::Get),
        Just(Ask::All),
        (f(), any::<i8>()).prop_map(|(f, by)| Ask::Incr(f, by)),
        (0..3000u16, when, fs()).prop_map(|(ms, when, fs)| Ask::Expire(ms, when, fs)),
        fs().prop_map(Ask::Ttl),
        fs().prop_map(Ask::Persist),
        (0..1500u16).prop_map(Ask::Wait),
    ]
}

/// The second model: fields with their ends, an endless one at infinity.
#[derive(Default)]
struct Plain {
    fields: BTreeMap<u8, (i64, f64)>,
    now: f64,
}

impl Plain {
    /// The numbers of the reply, sorted if they have no order.
    fn run(&mut self, ask: &Ask) -> Vec<i64> {
        let now = self.now;
        self.fields.retain(|_, (_, end)| *end > now);
        match ask {
            Ask::Set(pairs) => {
                let before = self.fields.len();
                let new = pairs.iter().map(|&(f, v)| (f, (i64::from(v), f64::INFINITY)));
                self.fields.extend(new);
                vec![(self.fields.len() - before) as i64]
            }
            Ask::SetNx(f, _) if self.fields.contains_key(f) => vec![0],
            Ask::SetNx(f, v) => {
                self.fields.insert(*f, (i64::from(*v), f64::INFINITY));
                vec![1]
            }
            Ask::Del(fields) => {
                vec![fields.iter().filter(|f| self.fields.remove(f).is_some()).count() as i64]
            }
            Ask::Get(f) => self.fields.get(f).map(|(value, _)| *value).into_iter().collect(),
            Ask::All => self.shown(),
            Ask::Wait(ms) => {
                let shown = self.shown();
                self.now += f64::from(*ms);
                shown
            }
            Ask::Incr(f, by) => {
                let kept = self.fields.entry(*f).or_insert((0, f64::INFINITY));
                kept.0 += i64::from(*by);
                vec![kept.0]
            }
            Ask::Expire(ms, when, fields) => {
                let end = now + f64::from(*ms);
                fields.iter().map(|f| self.expire(*f, end, when)).collect()
            }
            Ask::Ttl(fields) => {
                let left = |f| match self.fields.get(f) {
                    None => -2,
                    Some((_, end)) if end.is_infinite() => -1,
                    Some((_, end)) => (end - now) as i64,
                };
                fields.iter().map(left).collect()
            }
            Ask::Persist(fields) => fields.iter().map(|f| self.persist(*f)).collect(),
        }
    }

    fn shown(&self) -> Vec<i64> {
        let mut shown: Vec<i64> =
            self.fields.iter().flat_map(|(f, (value, _))| [i64::from(*f), *value]).collect();
        shown.sort_unstable();
        shown
    }

    fn expire(&mut self, f: u8, end: f64, when: &str) -> i64 {
        let Some(kept) = self.fields.get_mut(&f) else { return -2 };
        let fits = match when {
            "NX" => kept.1.is_infinite(),
            "XX" => kept.1.is_finite(),
            "GT" => end > kept.1,
            "LT" => end < kept.1,
            _ => true,
        };
        kept.1 = if fits { end } else { kept.1 };
        match (fits, end > self.now) {
            (false, _) => 0,
            (true, true) => 1,
            (true, false) => {
                self.fields.remove(&f);
                2
            }
        }
    }

    fn persist(&mut self, f: u8) -> i64 {
        match self.fields.get_mut(&f) {
            None => -2,
            Some((_, end)) if end.is_infinite() => -1,
            Some((_, end)) => {
                *end = f64::INFINITY;
                1
            }
        }
    }
}

proptest! {
    #[test]
    fn histories_agree_with_a_second_model(asks in prop::collection::vec(any_ask(), 1..60)) {
        let (mut model, mut plain) = (Model::new(), Plain::default());
        for ask in &asks {
            let reply = run(&mut model, &ask.line());
            let said = texts(&reply).into_iter();
            let mut said: Vec<i64> =
                said.map(|text| text.trim_start_matches(':').parse().expect("a number")).collect();
            if matches!(ask, Ask::All | Ask::Wait(_)) {
                said.sort_unstable();
            }
            prop_assert_eq!(said, plain.run(ask), "{:?}", ask);
            if let Ask::Wait(ms) = ask {
                model.now.0 += u64::from(*ms);
            }
        }
    }

    /// `model::ask` itself asserts: no panic, exactly one reply, no change beside an error.
    #[test]
    fn any_words_get_one_reply(
        row in 0..super::rows::hash::ROWS.len() + super::rows::set::ROWS.len(),
        arguments in prop::collection::vec(any_word(), 0..8),
    ) {
        let mut model = furnished();
        run(&mut model, "SADD set m n");
        let rows = super::rows::hash::ROWS.iter().chain(super::rows::set::ROWS);
        let row = rows.into_iter().nth(row).expect("a row");
        let mut request: Vec<&[u8]> = vec![row.name.as_bytes()];
        request.extend(arguments.iter().map(Vec::as_slice));
        model.run(&request);
    }
}

fn any_word() -> impl Strategy<Value = Vec<u8>> {
    const WORDS: [&str; 22] = [
        "h",
        "h",
        "e",
        "s",
        "set",
        "none",
        "a",
        "b",
        "x",
        "m",
        "FIELDS",
        "NX",
        "GT",
        "WITHVALUES",
        "COUNT",
        "MATCH",
        "NOVALUES",
        "LIMIT",
        "0",
        "1",
        "2",
        "-2",
    ];
    prop_oneof![
        5 => prop::sample::select(WORDS.to_vec()).prop_map(|word| word.as_bytes().to_vec()),
        1 => any::<i64>().prop_map(|number| number.to_string().into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..6),
    ]
}
