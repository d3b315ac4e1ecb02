//! The table of docs/merge-rules.md, row by row: two sides know the same, each writes once, and what
//! both show afterwards is what the row says. The laws of the join itself are tested elsewhere.

use crate::base::id::Actor;
use crate::base::time::{Dot, UnixMs};

use super::change::{Amount, Change, Edit, Expire};
use super::entry::Entry;
use super::view::Kind;

const NOW: UnixMs = UnixMs(1_000_000);
const LATER: UnixMs = UnixMs(2_000_000);

type Write = Change<'static>;

fn set(value: &'static str) -> Write {
    Change::Put { value: value.as_bytes().into(), expire: Expire::Clear }
}

fn incr(by: i128) -> Write {
    Change::Increment(Amount::Int(by))
}

fn hset(name: &'static str, value: &'static str) -> Write {
    Change::edit(Kind::Hash, [Edit::field(name.as_bytes(), value.as_bytes())])
}

/// As HEXPIRE does it: with the value that it has seen.
fn hexpire(name: &'static str, value: &'static str) -> Write {
    let (name, value) = (name.as_bytes().into(), value.as_bytes().into());
    Change::edit(Kind::Hash, [Edit::Set { name, value, expire_at: Some(LATER) }])
}

fn hincrby(name: &'static str, by: i128) -> Write {
    let amount = Amount::Int(by);
    Change::edit(Kind::Hash, [Edit::Add { name: name.as_bytes().into(), amount }])
}

fn remove(kind: Kind, name: &'static str) -> Write {
    Change::edit(kind, [Edit::remove(name.as_bytes())])
}

fn sadd(name: &'static str) -> Write {
    Change::edit(Kind::Set, [Edit::member(name.as_bytes())])
}

fn zadd(name: &'static str, score: f64) -> Write {
    Change::edit(Kind::Zset, [Edit::score(name.as_bytes(), score)])
}

fn zincrby(name: &'static str, by: f64) -> Write {
    let amount = Amount::Float(by, 0.0);
    Change::edit(Kind::Zset, [Edit::Add { name: name.as_bytes().into(), amount }])
}

fn push(values: &[&'static str]) -> Write {
    let edits: Vec<_> =
        values.iter().map(|value| Edit::PushRight(value.as_bytes().into())).collect();
    Change::edit(Kind::List, edits)
}

fn lpush(value: &'static str) -> Write {
    Change::edit(Kind::List, [Edit::PushLeft(value.as_bytes().into())])
}

fn lpop() -> Write {
    Change::edit(Kind::List, [Edit::RemoveRange { place: 0, count: 1 }])
}

fn lset(place: usize, value: &'static str) -> Write {
    Change::edit(Kind::List, [Edit::SetAt { place, value: value.as_bytes().into() }])
}

fn write(entry: &mut Entry, node: u32, change: &Write) {
    let dot = Dot::new(entry.hlc_max().next(NOW), Actor(node));
    entry.apply(change, dot, NOW).expect("few siblings");
}

/// What both sides hold after `known`, then `left` on the one and `right` on the other, which is the
/// later one. They must hold the same, whoever hears first of the other.
fn merged(known: &[Write], left: &[Write], right: &[Write]) -> Entry {
    let mut a = Entry::new();
    known.iter().for_each(|change| write(&mut a, 1, change));
    let mut b = a.clone();
    left.iter().for_each(|change| write(&mut a, 2, change));
    right.iter().for_each(|change| write(&mut b, 3, change));
    let (mut ab, mut ba) = (a.clone(), b.clone());
    ab.join(&b);
    ba.join(&a);
    assert_eq!(ab, ba);
    ab
}

fn shown_at(entry: &Entry, now: UnixMs) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let Some(view) = entry.view(now) else { return "nothing".to_owned() };
    let body = match view.kind {
        Kind::String => text(&view.string().expect("a string")),
        kind => {
            let fields = view.fields(kind).expect("that kind");
            let mut elements: Vec<String> = fields
                .iter()
                .map(|element| match kind {
                    Kind::Hash => format!("{}={}", text(&element.name), text(&element.value)),
                    Kind::Zset => format!("{}={}", text(&element.name), element.score),
                    Kind::List => text(&element.value),
                    _ => text(&element.name),
                })
                .collect();
            if kind == Kind::Hash || kind == Kind::Set {
                elements.sort();
            }
            elements.join(" ")
        }
    };
    match view.expire_at {
        Some(_) => format!("{}: {body}, ends", view.kind.name()),
        None => format!("{}: {body}", view.kind.name()),
    }
}

/// Known, left, right, and what shows then.
type Row = (Vec<Write>, Write, Write, &'static str);

fn check(rows: Vec<Row>) {
    for (known, left, right, expected) in rows {
        let said = format!("{known:?}, then {left:?} beside {right:?}");
        let shown = shown_at(&merged(&known, &[left], &[right]), NOW);
        assert_eq!(shown, expected, "{said}");
    }
}

#[test]
fn strings() {
    check(vec![
        (vec![set("a")], set("b"), set("c"), "string: c"),
        (vec![set("a")], set("b"), Change::Delete, "string: b"),
        (vec![], set("b"), set("c"), "string: c"),
    ]);
    let both = merged(&[set("a")], &[set("b")], &[set("c")]);
    let values: Vec<_> = both.values(NOW).iter().map(|value| value.string().into_owned()).collect();
    assert_eq!(values, [b"b", b"c"], "the loser is kept until somebody has seen it");
}

#[test]
fn counters() {
    check(vec![
        (vec![set("10")], incr(1), incr(2), "string: 13"),
        (vec![], incr(1), incr(2), "string: 3"),
        (vec![set("10")], incr(1), set("100"), "string: 100"),
        (vec![set("10")], set("100"), incr(1), "string: 100"),
        (vec![set("10")], incr(1), Change::Delete, "nothing"),
        (vec![], incr(1), set("100"), "string: 101"),
        (vec![], set("100"), incr(1), "string: 101"),
        (vec![], set("text"), incr(1), "string: 1"),
    ]);
}

#[test]
fn hash_fields() {
    check(vec![
        (vec![hset("f", "1")], hset("g", "2"), hset("h", "3"), "hash: f=1 g=2 h=3"),
        (vec![hset("f", "1")], hset("f", "2"), hset("f", "3"), "hash: f=3"),
        (vec![hset("f", "1")], hset("f", "2"), remove(Kind::Hash, "f"), "hash: f=2"),
        (vec![hset("f", "1"), hset("g", "1")], hset("f", "2"), Change::Delete, "hash: f=2"),
        (vec![hset("f", "1")], hset("f", "2"), hexpire("f", "1"), "hash: f=1"),
        (vec![hset("f", "1")], hincrby("f", 1), hincrby("f", 2), "hash: f=4"),
        (vec![], hincrby("f", 1), hincrby("f", 2), "hash: f=3"),
        (vec![hset("f", "1")], hincrby("f", 1), hset("f", "9"), "hash: f=9"),
        (
            vec![hset("f", "1"), hset("g", "1")],
            hincrby("f", 1),
            remove(Kind::Hash, "f"),
            "hash: g=1",
        ),
        (vec![], hset("f", "1"), hset("g", "2"), "hash: f=1 g=2"),
    ]);
}

#[test]
fn sets_and_sorted_sets() {
    check(vec![
        (vec![sadd("a")], sadd("b"), sadd("c"), "set: a b c"),
        (vec![sadd("a")], sadd("a"), remove(Kind::Set, "a"), "set: a"),
        (vec![sadd("a")], sadd("b"), remove(Kind::Set, "a"), "set: b"),
        (vec![sadd("a")], sadd("b"), Change::Delete, "set: b"),
        (vec![zadd("m", 1.0)], zadd("m", 2.0), zadd("m", 3.0), "zset: m=3"),
        (vec![zadd("m", 1.0)], zincrby("m", 2.0), zincrby("m", 3.0), "zset: m=6"),
        (vec![], zincrby("m", 2.0), zincrby("m", 3.0), "zset: m=5"),
        (vec![zadd("m", 1.0)], zincrby("m", 2.0), zadd("m", 10.0), "zset: m=10"),
        (vec![zadd("m", 1.0)], zadd("m", 2.0), remove(Kind::Zset, "m"), "zset: m=2"),
        (vec![zadd("m", 1.0)], zincrby("m", 2.0), remove(Kind::Zset, "m"), "nothing"),
    ]);
}

#[test]
fn lists() {
    check(vec![
        (vec![push(&["x"])], lpush("a"), lpush("b"), "list: a b x"),
        (vec![push(&["x"])], push(&["a", "b"]), push(&["c", "d"]), "list: x a c b d"),
        (vec![push(&["x", "y"])], lpop(), lpop(), "list: y"),
        (vec![push(&["x", "y"])], lpop(), lpush("a"), "list: a y"),
        (vec![push(&["x", "y"])], lset(0, "z"), lpop(), "list: z y"),
        (vec![push(&["x"])], lset(0, "a"), lset(0, "b"), "list: b"),
        (vec![push(&["x"])], push(&["a"]), Change::Delete, "list: a"),
    ]);
}

#[test]
fn times_to_live() {
    let expire = |at| Change::Expire(Some(at));
    check(vec![
        (vec![set("a")], expire(LATER), set("b"), "string: b"),
        (vec![set("a")], set("b"), expire(LATER), "string: b, ends"),
        (vec![set("a"), expire(LATER)], Change::Expire(None), expire(LATER), "string: a, ends"),
        (vec![set("a"), expire(LATER)], expire(LATER), Change::Expire(None), "string: a"),
        (vec![hset("f", "1"), expire(LATER)], hset("g", "2"), Change::Delete, "hash: g=2"),
        (vec![hset("f", "1")], hset("g", "2"), expire(LATER), "hash: f=1 g=2, ends"),
    ]);
    // The one side has seen the end and has removed the key when it hears of the other's PERSIST.
    let mut kept = Entry::new();
    write(&mut kept, 1, &set("a"));
    write(&mut kept, 1, &expire(LATER));
    let mut ended = kept.clone();
    write(&mut kept, 2, &Change::Expire(None));
    assert_eq!(shown_at(&ended, LATER), "nothing");
    write(&mut ended, 3, &Change::Delete);
    kept.join(&ended);
    assert_eq!(shown_at(&kept, LATER), "nothing");
}

#[test]
fn clashes_of_types() {
    check(vec![
        (vec![], set("a"), push(&["b"]), "list: b"),
        (vec![], push(&["b"]), set("a"), "string: a"),
        (vec![], sadd("m"), hset("f", "1"), "hash: f=1"),
    ]);
    let mut both = merged(&[], &[set("a")], &[push(&["b"])]);
    assert_eq!(both.kinds(NOW), [Kind::String, Kind::List], "what does not show is kept");
    write(&mut both, 1, &push(&["c"]));
    assert_eq!((both.kinds(NOW), &shown_at(&both, NOW)[..]), (vec![Kind::List], "list: b c"));
}
