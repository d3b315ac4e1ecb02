//! Tests of sets: the changes that commands name, and histories against a second model.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::resp::reply::Protocol;
use crate::value::change::{Change, Edit};
use crate::value::element::Element;
use crate::value::view::Kind;

use super::model::{Model, ask, ask_by_chance, words};
use super::spec::{Keyed, Run};
use super::table;

fn run(model: &mut Model, line: &str) -> String {
    let request = words(line);
    let request: Vec<&[u8]> = request.iter().map(Vec::as_slice).collect();
    String::from_utf8(model.run(&request)).expect("text")
}

fn keyed(line: &str) -> Keyed {
    let name = line.split(' ').next().expect("a name");
    match table::lookup(name.as_bytes()).expect("a command").run {
        Run::Slot(keyed) => keyed,
        _ => panic!("{name} is not of one slot"),
    }
}

/// `p` = {a, b}, `q` = {b, c}, `o` = {z}, and the string `s`.
fn furnished() -> Model {
    let mut model = Model::new();
    for line in ["SADD p a b", "SADD q b c", "SADD o z", "SET s text"] {
        run(&mut model, line);
    }
    model
}

fn edit(list: impl IntoIterator<Item = Edit<'static>>) -> Change<'static> {
    Change::edit(Kind::Set, list)
}

fn member(name: &'static str) -> Edit<'static> {
    Edit::member(name.as_bytes())
}

fn remove(name: &'static str) -> Edit<'static> {
    Edit::remove(name.as_bytes())
}

fn made(name: &'static str) -> Change<'static> {
    Change::make(Kind::Set, None, vec![Element::member(name.as_bytes())])
}

/// A request, the exact reply, and the changes it names.
type Row = (&'static str, &'static str, Vec<(&'static str, Change<'static>)>);

#[test]
fn commands_name_their_changes() {
    let model = furnished();
    let rows: Vec<Row> = vec![
        ("SADD p a z z", ":1\r\n", vec![("p", edit([member("a"), member("z")]))]),
        ("SADD p a", ":0\r\n", vec![("p", edit([member("a")]))]),
        ("SREM p a none a", ":1\r\n", vec![("p", edit([remove("a")]))]),
        ("SREM p b a", ":2\r\n", vec![("p", edit([remove("b"), remove("a")]))]),
        ("SREM p none", ":0\r\n", vec![]),
        ("SREM none a", ":0\r\n", vec![]),
        ("SMOVE p q a", ":1\r\n", vec![("p", edit([remove("a")])), ("q", edit([member("a")]))]),
        ("SMOVE p q b", ":1\r\n", vec![("p", edit([remove("b")])), ("q", edit([member("b")]))]),
        ("SMOVE p q c", ":0\r\n", vec![]),
        ("SMOVE p p a", ":1\r\n", vec![]),
        ("SPOP o", "$1\r\nz\r\n", vec![("o", edit([remove("z")]))]),
        ("SPOP o 1", "*1\r\n$1\r\nz\r\n", vec![("o", Change::Delete)]),
        ("SPOP o 0", "*0\r\n", vec![]),
        ("SPOP none 3", "*0\r\n", vec![]),
        ("SRANDMEMBER o", "$1\r\nz\r\n", vec![]),
        ("SINTERSTORE none p q", ":1\r\n", vec![("none", made("b"))]),
        ("SINTERSTORE s p q", ":1\r\n", vec![("s", made("b"))]),
        ("SINTERSTORE s p none", ":0\r\n", vec![("s", Change::Delete)]),
        ("SINTERSTORE none p other", ":0\r\n", vec![]),
        ("SDIFFSTORE p p q", ":1\r\n", vec![("p", made("a"))]),
        ("SDIFFSTORE p p p", ":0\r\n", vec![("p", Change::Delete)]),
        ("SUNIONSTORE none o o", ":1\r\n", vec![("none", made("z"))]),
        ("SINTERCARD 2 p q", ":1\r\n", vec![]),
    ];
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

/// What a request answers and changes by this chance.
fn draw(model: &Model, line: &str, random: u64) -> (Vec<String>, usize) {
    let request = words(line);
    let request: Vec<&[u8]> = request.iter().map(Vec::as_slice).collect();
    let (reply, changes) =
        ask_by_chance(model, model.now, random, Protocol::Resp2, keyed(line), &request);
    let removed = changes.iter().map(|(_, change)| match change {
        Change::Edit(edits) => edits.list().count(),
        change => panic!("{change:?}"),
    });
    (texts(&String::from_utf8(reply).expect("text")), removed.sum())
}

#[test]
fn every_member_is_drawn_as_often() {
    let mut model = Model::new();
    run(&mut model, "SADD p a b c d");
    let mut met: BTreeMap<String, u32> = BTreeMap::new();
    for random in 0..1_000 {
        let (one, removed) = draw(&model, "SPOP p", random);
        assert_eq!((one.len(), removed), (1, 1));
        let (several, removed) = draw(&model, "SPOP p 3", random);
        assert_eq!((several.iter().collect::<BTreeSet<_>>().len(), removed), (3, 3));
        let (shown, removed) = draw(&model, "SRANDMEMBER p -2", random);
        assert_eq!((shown.len(), removed), (2, 0));
        let (distinct, _) = draw(&model, "SRANDMEMBER p 2", random);
        assert_ne!(distinct[0], distinct[1]);
        for name in one.into_iter().chain(several).chain(shown).chain(distinct) {
            *met.entry(name).or_default() += 1;
        }
    }
    // 8,000 draws of four: five standard deviations are less than 200.
    assert!(met.len() == 4 && met.values().all(|met| met.abs_diff(2_000) < 200), "{met:?}");
}

/// The texts in a RESP2 reply, without heads and lengths.
fn texts(reply: &str) -> Vec<String> {
    let lines = reply.split_terminator("\r\n").filter(|line| !line.starts_with(['*', '$']));
    lines.map(str::to_owned).collect()
}

/// A request of the histories, on three keys with members of one letter.
#[derive(Clone, Debug)]
enum Ask {
    Add(u8, Vec<char>),
    Rem(u8, Vec<char>),
    Move(u8, u8, char),
    Pop(u8),
    PopSeveral(u8, u8),
    Members(u8),
    Card(u8),
    Has(u8, Vec<char>),
    Show(&'static str, Vec<u8>),
    Store(&'static str, u8, Vec<u8>),
    Common(Vec<u8>, u8),
}

fn joined<T: ToString>(words: &[T]) -> String {
    words.iter().map(T::to_string).collect::<Vec<_>>().join(" ")
}

impl Ask {
    fn line(&self) -> String {
        match self {
            Ask::Add(k, members) => format!("SADD {k} {}", joined(members)),
            Ask::Rem(k, members) => format!("SREM {k} {}", joined(members)),
            Ask::Move(from, to, member) => format!("SMOVE {from} {to} {member}"),
            Ask::Pop(k) => format!("SPOP {k}"),
            Ask::PopSeveral(k, count) => format!("SPOP {k} {count}"),
            Ask::Members(k) => format!("SMEMBERS {k}"),
            Ask::Card(k) => format!("SCARD {k}"),
            Ask::Has(k, members) => format!("SMISMEMBER {k} {}", joined(members)),
            Ask::Show(name, keys) => format!("S{name} {}", joined(keys)),
            Ask::Store(name, to, keys) => format!("S{name}STORE {to} {}", joined(keys)),
            Ask::Common(keys, limit) => {
                format!("SINTERCARD {} {} LIMIT {limit}", keys.len(), joined(keys))
            }
        }
    }
}

fn any_ask() -> impl Strategy<Value = Ask> {
    let k = || 0u8..3;
    let keys = || prop::collection::vec(0u8..3, 1..4);
    let member = || prop::char::range('a', 'e');
    let members = || prop::collection::vec(prop::char::range('a', 'e'), 1..5);
    let name = || prop::sample::select(vec!["INTER", "UNION", "DIFF"]);
    prop_oneof![
        3 => (k(), members()).prop_map(|(k, members)| Ask::Add(k, members)),
        1 => (k(), members()).prop_map(|(k, members)| Ask::Rem(k, members)),
        1 => (k(), k(), member()).prop_map(|(from, to, member)| Ask::Move(from, to, member)),
        1 => k().prop_map(Ask::Pop),
        1 => (k(), 0..4u8).prop_map(|(k, count)| Ask::PopSeveral(k, count)),
        1 => k().prop_map(Ask::Members),
        1 => k().prop_map(Ask::Card),
        1 => (k(), members()).prop_map(|(k, members)| Ask::Has(k, members)),
        2 => (name(), keys()).prop_map(|(name, keys)| Ask::Show(name, keys)),
        2 => (name(), k(), keys()).prop_map(|(name, to, keys)| Ask::Store(name, to, keys)),
        1 => (keys(), 0..4u8).prop_map(|(keys, limit)| Ask::Common(keys, limit)),
    ]
}

#[derive(Default)]
struct Plain {
    keys: BTreeMap<u8, BTreeSet<String>>,
}

/// What the second model expects: these texts, in any order.
fn number(number: usize) -> Vec<String> {
    vec![format!(":{number}")]
}

impl Plain {
    fn of(&self, key: u8) -> BTreeSet<String> {
        self.keys.get(&key).cloned().unwrap_or_default()
    }

    fn made(&self, name: &str, keys: &[u8]) -> BTreeSet<String> {
        let mut sets = keys.iter().map(|key| self.of(*key));
        let first = sets.next().expect("a key");
        sets.fold(first, |made, set| match name {
            "INTER" => &made & &set,
            "UNION" => &made | &set,
            _ => &made - &set,
        })
    }

    /// `said` is the reply, which tells what was drawn.
    fn run(&mut self, ask: &Ask, said: &[String]) -> Vec<String> {
        match ask {
            Ask::Add(k, members) => {
                let set = self.keys.entry(*k).or_default();
                number(members.iter().filter(|member| set.insert(member.to_string())).count())
            }
            Ask::Rem(k, members) => {
                let set = self.keys.entry(*k).or_default();
                number(members.iter().filter(|member| set.remove(&member.to_string())).count())
            }
            Ask::Move(from, to, member) => {
                let moved = self.keys.entry(*from).or_default().remove(&member.to_string());
                if moved {
                    self.keys.entry(*to).or_default().insert(member.to_string());
                }
                number(usize::from(moved))
            }
            Ask::Pop(k) => self.popped(*k, 1, said),
            Ask::PopSeveral(k, count) => self.popped(*k, usize::from(*count), said),
            Ask::Members(k) => self.of(*k).into_iter().collect(),
            Ask::Card(k) => number(self.of(*k).len()),
            Ask::Has(k, members) => {
                let set = self.of(*k);
                let has =
                    |member: &char| format!(":{}", u8::from(set.contains(&member.to_string())));
                members.iter().map(has).collect()
            }
            Ask::Show(name, keys) => self.made(name, keys).into_iter().collect(),
            Ask::Store(name, to, keys) => {
                let made = self.made(name, keys);
                let count = made.len();
                self.keys.insert(*to, made);
                number(count)
            }
            Ask::Common(keys, limit) => {
                let count = self.made("INTER", keys).len();
                number(if *limit == 0 { count } else { count.min(usize::from(*limit)) })
            }
        }
    }

    /// Any members will do, if they are as many as they should be.
    fn popped(&mut self, key: u8, count: usize, said: &[String]) -> Vec<String> {
        let set = self.keys.entry(key).or_default();
        let wanted = count.min(set.len());
        let popped: Vec<String> = said.iter().filter(|name| set.remove(*name)).cloned().collect();
        if popped.len() == wanted { popped } else { vec![format!("{wanted} of {set:?}")] }
    }
}

proptest! {
    #[test]
    fn histories_agree_with_a_second_model(asks in prop::collection::vec(any_ask(), 1..80)) {
        let (mut model, mut plain) = (Model::new(), Plain::default());
        for ask in &asks {
            let mut said = texts(&run(&mut model, &ask.line()));
            let mut expected = plain.run(ask, &said);
            if !matches!(ask, Ask::Has(..)) {
                said.sort_unstable();
                expected.sort_unstable();
            }
            prop_assert_eq!(said, expected, "{:?}", ask);
        }
        for key in 0..3u8 {
            let is_there = run(&mut model, &format!("EXISTS {key}")) == ":1\r\n";
            prop_assert_eq!(is_there, !plain.of(key).is_empty());
        }
    }
}
