//! Tests of sorted sets: the changes that commands name, what Redis 7.2 answers and 7.0 does not,
//! and increments that meet.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::base::id::Actor;
use crate::base::time::{Dot, Hlc, UnixMs};
use crate::resp::double;
use crate::resp::reply::Protocol;
use crate::value::change::{Amount, Change, Edit};
use crate::value::element::Element;
use crate::value::entry::Entry;
use crate::value::view::{Kind, View, Views};

use super::model::{Model, ask, ask_by_chance, words};
use super::spec::{Keyed, Run};
use super::table;

fn run(model: &mut Model, line: &str) -> String {
    let request = words(line);
    let request: Vec<&[u8]> = request.iter().map(Vec::as_slice).collect();
    String::from_utf8(model.run(&request)).expect("text")
}

/// The same with line ends as blanks.
fn said(model: &mut Model, line: &str) -> String {
    run(model, line).replace("\r\n", " ").trim_end().to_owned()
}

fn keyed(line: &str) -> Keyed {
    let name = line.split(' ').next().expect("a name");
    match table::lookup(name.as_bytes()).expect("a command").run {
        Run::Slot(keyed) => keyed,
        _ => panic!("{name} is not of one slot"),
    }
}

/// `z` = {a: 1, b: 2, c: 3}, `o` = {only: 7}, `set` = {a, x}, and the string `s`.
fn furnished() -> Model {
    let mut model = Model::new();
    for line in ["ZADD z 1 a 2 b 3 c", "ZADD o 7 only", "SADD set a x", "SET s text"] {
        run(&mut model, line);
    }
    model
}

fn edit(list: impl IntoIterator<Item = Edit<'static>>) -> Change<'static> {
    Change::edit(Kind::Zset, list)
}

fn score(name: &'static str, score: f64) -> Edit<'static> {
    Edit::score(name.as_bytes(), score)
}

fn add(name: &'static str, hi: f64, lo: f64) -> Edit<'static> {
    Edit::Add { name: name.as_bytes().into(), amount: Amount::Float(hi, lo) }
}

fn remove(name: &'static str) -> Edit<'static> {
    Edit::remove(name.as_bytes())
}

fn made(members: &[(&'static str, f64)]) -> Change<'static> {
    let scored = |(name, score): &(&'static str, f64)| Element::scored(name.as_bytes(), *score);
    Change::make(Kind::Zset, None, members.iter().map(scored).collect())
}

/// A request, its exact reply, and the changes it names.
type Row = (&'static str, &'static str, Vec<(&'static str, Change<'static>)>);

fn check(rows: Vec<Row>) {
    let model = furnished();
    for (line, reply, changes) in rows {
        let request = words(line);
        let request: Vec<&[u8]> = request.iter().map(Vec::as_slice).collect();
        let (said, changed) = ask(&model, model.now, model.protocol, keyed(line), &request);
        assert_eq!(String::from_utf8_lossy(&said), reply, "{line}");
        let expected: Vec<(&[u8], Change<'_>)> =
            changes.into_iter().map(|(key, change)| (key.as_bytes(), change)).collect();
        assert_eq!(changed, expected, "{line}");
    }
}

#[test]
fn writes_name_their_changes() {
    let inf = f64::INFINITY;
    check(vec![
        ("ZADD z 5 d", ":1\r\n", vec![("z", edit([score("d", 5.0)]))]),
        // It keeps the member alive, whatever others do meanwhile.
        ("ZADD z 1 a", ":0\r\n", vec![("z", edit([score("a", 1.0)]))]),
        ("ZADD z CH 4 a 4 a", ":1\r\n", vec![("z", edit([score("a", 4.0), score("a", 4.0)]))]),
        ("ZADD z -0 d", ":1\r\n", vec![("z", edit([score("d", 0.0)]))]),
        ("ZADD z NX 9 a", ":0\r\n", vec![]),
        ("ZADD z NX 9 a 9 d", ":1\r\n", vec![("z", edit([score("d", 9.0)]))]),
        ("ZADD z XX 9 d", ":0\r\n", vec![]),
        ("ZADD z GT 1 a", ":0\r\n", vec![]),
        (
            "ZADD z GT CH 2 a 3 a 2 a",
            ":2\r\n",
            vec![("z", edit([score("a", 2.0), score("a", 3.0)]))],
        ),
        ("ZADD none XX 9 d", ":0\r\n", vec![]),
        ("ZADD z INCR XX 9 d", "$-1\r\n", vec![]),
        ("ZADD z INCR 1.5 a", "$3\r\n2.5\r\n", vec![("z", edit([add("a", 1.5, 0.0)]))]),
        ("ZADD z INCR LT 1 a", "$-1\r\n", vec![]),
        ("ZINCRBY z -2 c", "$1\r\n1\r\n", vec![("z", edit([add("c", -2.0, 0.0)]))]),
        ("ZINCRBY z 0 c", "$1\r\n3\r\n", vec![("z", edit([add("c", 0.0, 0.0)]))]),
        ("ZINCRBY none 4 m", "$1\r\n4\r\n", vec![("none", edit([add("m", 4.0, 0.0)]))]),
        ("ZINCRBY none -0 m", "$2\r\n-0\r\n", vec![("none", edit([add("m", 0.0, 0.0)]))]),
        ("ZINCRBY z inf a", "$3\r\ninf\r\n", vec![("z", edit([score("a", inf)]))]),
        ("ZINCRBY z 1.5e308 a", "$8\r\n1.5e+308\r\n", vec![("z", edit([score("a", 1.5e308)]))]),
        // What is counted is what the rounded sum differs by.
        ("ZINCRBY z 1e-17 a", "$1\r\n1\r\n", vec![("z", edit([add("a", 0.0, 0.0)]))]),
        ("ZINCRBY z 0.1 c", "$3\r\n3.1\r\n", vec![("z", edit([add("c", 3.1 - 3.0, 0.0)]))]),
        ("ZREM z a none c a", ":2\r\n", vec![("z", edit([remove("a"), remove("c")]))]),
        ("ZREM z none", ":0\r\n", vec![]),
        ("ZREMRANGEBYRANK z 0 1", ":2\r\n", vec![("z", edit([remove("a"), remove("b")]))]),
        ("ZREMRANGEBYRANK z 0 -1", ":3\r\n", vec![("z", Change::Delete)]),
        ("ZREMRANGEBYSCORE z (1 2", ":1\r\n", vec![("z", edit([remove("b")]))]),
        ("ZREMRANGEBYSCORE z 7 8", ":0\r\n", vec![]),
        ("ZREMRANGEBYLEX o [only +", ":1\r\n", vec![("o", Change::Delete)]),
    ]);
}

#[test]
fn takers_and_stores_name_their_changes() {
    let nothing = "*-1\r\n";
    check(vec![
        ("ZPOPMIN z", "*2\r\n$1\r\na\r\n$1\r\n1\r\n", vec![("z", edit([remove("a")]))]),
        ("ZPOPMAX o 9", "*2\r\n$4\r\nonly\r\n$1\r\n7\r\n", vec![("o", Change::Delete)]),
        ("ZPOPMIN z 0", "*0\r\n", vec![]),
        ("ZPOPMIN none", "*0\r\n", vec![]),
        (
            "ZMPOP 2 none z MAX COUNT 1",
            "*2\r\n$1\r\nz\r\n*1\r\n*2\r\n$1\r\nc\r\n$1\r\n3\r\n",
            vec![("z", edit([remove("c")]))],
        ),
        ("ZMPOP 1 none MIN", nothing, vec![]),
        (
            "BZPOPMIN none z 0",
            "*3\r\n$1\r\nz\r\n$1\r\na\r\n$1\r\n1\r\n",
            vec![("z", edit([remove("a")]))],
        ),
        (
            "BZPOPMAX o z 1.5",
            "*3\r\n$1\r\no\r\n$4\r\nonly\r\n$1\r\n7\r\n",
            vec![("o", Change::Delete)],
        ),
        ("BZPOPMIN none other 0", nothing, vec![]),
        (
            "BZMPOP 0.01 2 none z MIN COUNT 2",
            "*2\r\n$1\r\nz\r\n*2\r\n*2\r\n$1\r\na\r\n$1\r\n1\r\n*2\r\n$1\r\nb\r\n$1\r\n2\r\n",
            vec![("z", edit([remove("a"), remove("b")]))],
        ),
        ("BZMPOP 0 1 none MAX", nothing, vec![]),
        ("ZRANGESTORE none z 0 0", ":1\r\n", vec![("none", made(&[("a", 1.0)]))]),
        ("ZRANGESTORE s z 9 10", ":0\r\n", vec![("s", Change::Delete)]),
        ("ZRANGESTORE none z 9 10", ":0\r\n", vec![]),
        (
            "ZUNIONSTORE none 2 o set",
            ":3\r\n",
            vec![("none", made(&[("a", 1.0), ("x", 1.0), ("only", 7.0)]))],
        ),
        ("ZINTERSTORE z 2 z set", ":1\r\n", vec![("z", made(&[("a", 2.0)]))]),
        ("ZINTERSTORE s 2 z o", ":0\r\n", vec![("s", Change::Delete)]),
        ("ZINTERSTORE none 2 z o", ":0\r\n", vec![]),
        ("ZDIFFSTORE set 2 set z", ":1\r\n", vec![("set", made(&[("x", 1.0)]))]),
        ("ZUNIONSTORE none 1 o WEIGHTS -0", ":1\r\n", vec![("none", made(&[("only", 0.0)]))]),
    ]);
}

#[test]
fn waiting_commands_refuse_what_redis_refuses() {
    let not_float = "-ERR timeout is not a float or out of range\r\n";
    let wrong_type = "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n";
    check(vec![
        ("BZPOPMIN z x", not_float, vec![]),
        ("BZPOPMIN z ''", not_float, vec![]),
        ("BZPOPMAX z -1", "-ERR timeout is negative\r\n", vec![]),
        ("BZPOPMAX z 1e300", "-ERR timeout is out of range\r\n", vec![]),
        ("BZPOPMIN none s z 0", wrong_type, vec![]),
        ("BZPOPMIN s x", not_float, vec![]),
        ("BZMPOP x 0 z MIN", "-ERR numkeys should be greater than 0\r\n", vec![]),
        ("BZMPOP x 1 z MID", "-ERR syntax error\r\n", vec![]),
        ("BZMPOP x 1 z MIN", not_float, vec![]),
        ("BZMPOP 0 1 z MIN COUNT 0", "-ERR count should be greater than 0\r\n", vec![]),
        ("BZMPOP 0 2 none s MIN", wrong_type, vec![]),
    ]);
}

#[test]
fn scores_are_printed_as_redis_7_2_prints_them() {
    let mut model = Model::new();
    run(&mut model, "ZADD z 3.1 a 1e17 b -1e-7 c 0x1.8p1 d");
    assert_eq!(said(&mut model, "ZSCORE z a"), "$3 3.1");
    assert_eq!(said(&mut model, "ZSCORE z b"), "$18 100000000000000000");
    assert_eq!(said(&mut model, "ZINCRBY z 0.1 none"), "$3 0.1");
    assert_eq!(said(&mut model, "ZINCRBY z 0.2 none"), "$19 0.30000000000000004");
    assert_eq!(said(&mut model, "ZINCRBY z 0.3 none"), "$18 0.6000000000000001");
    assert_eq!(said(&mut model, "ZSCORE z none"), "$18 0.6000000000000001");
    model.protocol = Protocol::Resp3;
    assert_eq!(said(&mut model, "ZMSCORE z c d"), "*2 ,-1e-7 ,3");
    assert_eq!(said(&mut model, "ZPOPMIN z 1"), "*1 *2 $1 c ,-1e-7");
    assert_eq!(said(&mut model, "ZSCAN z 0 MATCH a"), "*2 $1 0 *2 $1 a $3 3.1");
}

#[test]
fn a_rank_comes_with_its_score() {
    let mut model = furnished();
    for (line, resp2, resp3) in [
        ("ZRANK z b WITHSCORE", "*2 :1 $1 2", "*2 :1 ,2"),
        ("ZREVRANK z a withscore", "*2 :2 $1 1", "*2 :2 ,1"),
        ("ZRANK z none WITHSCORE", "*-1", "_"),
        ("ZREVRANK none a WITHSCORE", "*-1", "_"),
        ("ZRANK z b WITHSCORES", "-ERR syntax error", "-ERR syntax error"),
        (
            "ZRANK s b WITHSCORE x",
            "-ERR wrong number of arguments for 'zrank' command",
            "-ERR wrong number of arguments for 'zrank' command",
        ),
    ] {
        model.protocol = Protocol::Resp2;
        assert_eq!(said(&mut model, line), resp2, "{line}");
        model.protocol = Protocol::Resp3;
        assert_eq!(said(&mut model, line), resp3, "{line}");
    }
}

#[test]
fn members_are_drawn_by_chance() {
    let model = furnished();
    let draw = |line: &str, random| {
        let request = words(line);
        let request: Vec<&[u8]> = request.iter().map(Vec::as_slice).collect();
        let (reply, changes) =
            ask_by_chance(&model, model.now, random, Protocol::Resp2, keyed(line), &request);
        assert!(changes.is_empty());
        String::from_utf8(reply).expect("text")
    };
    let (mut single, mut pairs) = (BTreeSet::new(), BTreeSet::new());
    for random in 0..200 {
        single.insert(draw("ZRANDMEMBER z", random));
        pairs.insert(draw("ZRANDMEMBER z 2 WITHSCORES", random));
        assert_eq!(draw("ZRANDMEMBER z -50", random).matches('$').count(), 50);
        assert_eq!(draw("ZRANDMEMBER z 50", random).matches('$').count(), 3);
    }
    assert_eq!((single.len(), pairs.len()), (3, 3), "{single:?} {pairs:?}");
    assert_eq!(draw("ZRANDMEMBER z -99999999", 4), "-ERR value is out of range\r\n");
}

#[test]
fn a_walk_meets_every_member_with_its_score() {
    let mut model = Model::new();
    for nth in 0..500 {
        run(&mut model, &format!("ZADD z {nth} m{nth}"));
    }
    let (mut cursor, mut met, mut calls) = ("0".to_owned(), BTreeSet::new(), 0);
    loop {
        let reply = said(&mut model, &format!("ZSCAN z {cursor} COUNT 7 MATCH m*"));
        let texts: Vec<&str> =
            reply.split(' ').filter(|word| !word.starts_with(['*', '$'])).collect();
        for pair in texts[1..].chunks(2) {
            assert_eq!(pair[0], format!("m{}", pair[1]));
            met.insert(pair[0].to_owned());
        }
        cursor = texts[0].to_owned();
        calls += 1;
        if cursor == "0" {
            break;
        }
    }
    assert!(met.len() == 500 && calls > 50, "{} in {calls}", met.len());
}

/// The node runs such a request on nothing, and takes the error for granted.
#[test]
fn a_bad_number_of_keys_is_an_error_before_keys_are_looked_at() {
    let rows = table::rows().iter().filter(|row| row.keys.number != 0);
    let mut tried = 0;
    for row in rows {
        let Run::Slot(keyed) = row.run else { panic!("{}", row.name) };
        for number in ["0", "-1", "x", "", "9", "9223372036854775807", "1x"] {
            let mut request: Vec<&[u8]> = vec![b"1"; row.arity.unsigned_abs() as usize + 1];
            request[row.keys.number as usize] = number.as_bytes();
            assert!(row.keys_of(&request).is_err(), "{} {number}", row.name);
            let (reply, _) = ask(&furnished(), UnixMs(1), Protocol::Resp2, keyed, &request);
            assert_eq!(reply[0], b'-', "{} {number}", row.name);
            tried += 1;
        }
    }
    assert!(tried >= 8 * 7);
}

/// One replica's only key.
#[derive(Clone)]
struct Replica {
    actor: u32,
    hlc: u64,
    entry: Entry,
}

const NOW: UnixMs = UnixMs(1_000);

impl Views for Replica {
    fn view(&self, _: &[u8]) -> Option<View<'_>> {
        self.entry.view(NOW)
    }
}

impl Replica {
    fn new(actor: u32) -> Replica {
        Replica { actor, hlc: 1, entry: Entry::new() }
    }

    fn say(&mut self, line: &str) -> String {
        let request = words(line);
        let request: Vec<&[u8]> = request.iter().map(Vec::as_slice).collect();
        let (reply, changes) = ask(self, NOW, Protocol::Resp3, keyed(line), &request);
        let changes: Vec<Change<'_>> = changes.into_iter().map(|(_, change)| change).collect();
        for change in changes {
            self.hlc += 100;
            let dot = Dot::new(Hlc(self.hlc), Actor(self.actor));
            self.entry.apply(&change, dot, NOW).expect("room");
        }
        String::from_utf8(reply).expect("text")
    }

    fn join(&mut self, other: &Replica) {
        self.entry.join(&other.entry);
        self.hlc = self.hlc.max(other.hlc);
    }
}

fn printed(score: f64) -> String {
    format!(",{}\r\n", String::from_utf8_lossy(&double::text(score)))
}

proptest! {
    /// On one side increments are Redis's, digit for digit, and no reply contradicts the next; when
    /// two sides meet, what both have replied is added up.
    #[test]
    fn increments_round_as_redis_does_and_add_up(
        start in proptest::option::of(-100_000i32..100_000),
        steps in vec((any::<bool>(), -100_000i32..100_000, -3i32..4), 1..40),
    ) {
        let (mut a, mut b) = (Replica::new(1), Replica::new(2));
        let base = start.map_or(0.0, |start| f64::from(start) / 7.0);
        if start.is_some() {
            a.say(&format!("ZADD z {base} m"));
            b.join(&a);
        }
        let mut sums = [base, base];
        for (is_b, mantissa, scale) in steps {
            let amount = f64::from(mantissa) * 10f64.powi(scale);
            let (side, sum) = if is_b { (&mut b, &mut sums[1]) } else { (&mut a, &mut sums[0]) };
            *sum += amount;
            prop_assert_eq!(side.say(&format!("ZINCRBY z {amount} m")), printed(*sum));
            prop_assert_eq!(side.say("ZSCORE z m"), printed(*sum));
        }
        let before = a.clone();
        a.join(&b);
        b.join(&before);
        prop_assert_eq!(&a.entry, &b.entry);
        let met: f64 = a.say("ZSCORE z m")[1..].trim_end().parse().expect("a score");
        let expected = sums[0] + (sums[1] - base);
        prop_assert!((met - expected).abs() <= 1e-14 * (sums[0].abs() + sums[1].abs() + base.abs()));
    }
}

#[test]
fn sides_that_meet() {
    let (mut a, mut b) = (Replica::new(1), Replica::new(2));
    a.say("ZADD z 1 m 5 n 9 gone");
    b.join(&a);
    a.say("ZINCRBY z 10 m");
    b.say("ZINCRBY z 100 m");
    a.say("ZREM z n gone");
    b.say("ZADD z 5 n");
    b.say("ZADD z 7 new");
    let before = a.clone();
    a.join(&b);
    b.join(&before);
    assert_eq!(a.entry, b.entry);
    let all = "*3\r\n*2\r\n$1\r\nn\r\n,5\r\n*2\r\n$3\r\nnew\r\n,7\r\n*2\r\n$1\r\nm\r\n,111\r\n";
    assert_eq!(a.say("ZRANGE z 0 -1 WITHSCORES"), all);
    // A score that is set takes along what is added to the one before, whoever adds it.
    a.say("ZADD z 1000 m");
    b.say("ZINCRBY z 4 m");
    a.join(&b);
    assert_eq!(a.say("ZSCORE z m"), ",1000\r\n");
}
