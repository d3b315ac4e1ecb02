//! The body against a plain map and a plain list.

use std::collections::{BTreeMap, VecDeque};

use proptest::collection::vec;
use proptest::prelude::*;

use super::cell::score_of;
use super::leaf::New;
use super::ranks::order;
use super::*;
use crate::base::time::{Dot, Hlc};
use crate::value::change::Amount;
use crate::value::element::between;
use crate::value::packed::Packed;
use crate::value::register::Register;

const TERMS: Terms = Terms { seed: HashSeed(3), key_hash: 9 };

fn dot(hlc: u64) -> Dot {
    Dot::new(Hlc(hlc), Actor(hlc as u32 % 20))
}

/// What is done to an element.
#[derive(Clone, Debug)]
enum Step {
    Set(Vec<u8>),
    Expire(u64),
    Count,
    Remove,
}

fn steps(names: u16, len: usize) -> impl Strategy<Value = Vec<(u16, Step)>> {
    let step = prop_oneof![
        6 => vec(any::<u8>(), 0..20).prop_map(Step::Set),
        1 => (0u64..100).prop_map(Step::Expire),
        1 => Just(Step::Count),
        3 => Just(Step::Remove),
    ];
    vec((0..names, step), 0..len)
}

fn register(kind: Kind, nth: u64, step: &Step) -> Register {
    let dot = dot(1_000_000 - nth * 7 % 1_000_000);
    let score = (nth as f64).to_le_bytes();
    match step {
        Step::Set(value) => {
            let value = if kind == Kind::Zset { &score[..] } else { value };
            Register::single(dot, &Packed::raw(value), None)
        }
        Step::Expire(at) => Register::single(dot, &Packed::raw(b"12345678"), Some(UnixMs(*at))),
        Step::Count => Register::of(Sibling::counted(dot, Amount::Int(nth.into()))),
        Step::Remove => Register::default(),
    }
}

/// That the sums, the order and the bytes are what the elements say.
fn assert_sound(body: &Body) -> Result<(), TestCaseError> {
    let afresh = body.items().fold(Digest::NONE, |sum, item| {
        sum.plus(digest_of(TERMS, body.kind, item.name.bytes(), &item.cell))
    });
    prop_assert_eq!(body.digest(TERMS), afresh);
    prop_assert_eq!(body.held, body.rows.iter().map(|leaf| leaf.bytes.len()).sum::<usize>());
    prop_assert_eq!(body.room, body.rows.iter().map(|leaf| leaf.bytes.capacity()).sum::<usize>());
    prop_assert_eq!(body.len(), body.items().count());
    let last = body.rows.run(body.rows.last());
    let begins: Vec<u32> = last.items(body.sight()).map(|(at, _)| at as u32).collect();
    prop_assert!(begins.ends_with(&body.tail), "{:?} ends {begins:?}", body.tail);
    if body.is_large() {
        if body.kind != Kind::List {
            prop_assert!(body.items().all(|i| body.find(i.name.bytes()).1.is_ok()));
        }
        prop_assert!(body.rows.iter().all(|leaf| leaf.count > 0));
        prop_assert_eq!(body.ranks.is_some(), body.kind == Kind::Zset);
    }
    if let Some(ranks) = body.ranks() {
        let mut members: Vec<(f64, Vec<u8>)> =
            body.items().map(|i| (score_of(&i.cell), i.name.bytes().to_vec())).collect();
        members.sort_by(|a, b| order((a.0, &a.1), (b.0, &b.1)));
        let ranked: Vec<_> = ranks.from(0).map(|(s, n)| (s, n.to_vec())).collect();
        prop_assert_eq!(ranked, members);
    }
    let ends: Vec<UnixMs> = body.items().filter_map(|item| expiry_of(&item.cell)).collect();
    prop_assert!(ends.iter().all(|at| *at >= body.next_expiry));
    prop_assert_eq!(ends.len(), body.expiring as usize);
    let mut bytes = Vec::new();
    body.encode(&mut bytes);
    if !body.is_empty() {
        let mut cursor = Cursor::new(&bytes);
        let back = Body::decode(&mut cursor, HashSeed(77));
        prop_assert!(cursor.is_empty());
        prop_assert!(back.as_ref() == Ok(body) && back.expect("above").verify());
    }
    Ok(())
}

fn scanned(body: &Body, count: usize) -> Vec<Vec<u8>> {
    let (mut names, mut from) = (Vec::new(), 0);
    loop {
        let (part, next) = body.scan(from, count);
        names.extend(part.into_iter().map(|element| element.name.into_owned()));
        match next {
            Some(next) => from = next,
            None => break,
        }
    }
    names.sort();
    names
}

fn is_a_map(kind: Kind, steps: Vec<(u16, Step)>, reseed: bool) -> Result<(), TestCaseError> {
    let mut body = Body::new(kind, HashSeed(5));
    body.keep_digest(TERMS);
    let mut map = BTreeMap::new();
    for (nth, (name, step)) in steps.iter().enumerate() {
        let name = format!("name {name}").into_bytes();
        let new = register(kind, nth as u64, step);
        let held = body.cell(&name).map(|cell| register_of(&cell));
        prop_assert_eq!(held.as_ref(), map.get(&name));
        if new.is_empty() {
            map.remove(&name);
        } else {
            map.insert(name.clone(), new.clone());
        }
        body.update(&name, |_| New::Register(new));
        if nth % 256 == 0 {
            assert_sound(&body)?;
        }
        if reseed && nth == steps.len() / 2 {
            body.order_by(HashSeed(6));
        }
    }
    assert_sound(&body)?;
    prop_assert_eq!(body.len(), map.len());
    let names: Vec<Vec<u8>> = map.keys().cloned().collect();
    prop_assert_eq!(scanned(&body, 7), names);
    let places: Vec<_> = body.from(0).map(|element| element.name.into_owned()).collect();
    let third = places.len() / 3;
    let from: Vec<_> = body.from(third).map(|element| element.name.into_owned()).collect();
    prop_assert_eq!(&from[..], &places[third..]);
    let back: Vec<_> = body.back_from(third).map(|element| element.name.into_owned()).collect();
    prop_assert!(back.iter().eq(places[..third].iter().rev()));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_hash_is_a_map(steps in steps(900, 2_500), reseed in any::<bool>()) {
        is_a_map(Kind::Hash, steps, reseed)?;
    }

    #[test]
    fn a_small_hash_is_a_map(steps in steps(20, 300), reseed in any::<bool>()) {
        is_a_map(Kind::Hash, steps, reseed)?;
    }

    #[test]
    fn a_sorted_set_is_a_map(steps in steps(700, 2_000), reseed in any::<bool>()) {
        is_a_map(Kind::Zset, steps, reseed)?;
    }

    #[test]
    fn a_list_is_a_list(steps in vec((any::<u32>(), 0u8..10), 0..2_500)) {
        let mut body = Body::new(Kind::List, HashSeed(5));
        body.keep_digest(TERMS);
        let mut list: Vec<Vec<u8>> = Vec::new();
        for (nth, (number, what)) in steps.into_iter().enumerate() {
            let dot = dot(5_000_000 - nth as u64 % 3 + nth as u64);
            let value = number.to_string().into_bytes();
            let place = match what {
                0..3 => 0,
                3..6 => list.len(),
                _ => number as usize % (list.len() + 1),
            };
            if what < 8 {
                let names = body.names(place.saturating_sub(1), 2);
                let (left, right) = match place {
                    0 => (None, names.first()),
                    _ => (names.first(), names.get(1)),
                };
                let (left, right) = (left.map(Vec::as_slice), right.map(Vec::as_slice));
                let name = between(left, right, dot).expect("room").to_vec();
                let new = New::Single { dot, value: Packed::raw(&value), expire_at: None };
                body.update(&name, |held| {
                    assert!(held.is_none(), "a name is given once");
                    new
                });
                list.insert(place, value);
            } else if place < list.len() {
                let name = body.names(place, 1).pop().expect("there");
                body.update(&name, |_| New::Gone);
                list.remove(place);
            }
            if nth % 256 == 0 {
                assert_sound(&body)?;
            }
        }
        assert_sound(&body)?;
        let values: Vec<_> = body.from(0).map(|element| element.value.into_owned()).collect();
        prop_assert_eq!(&values, &list);
        let half = list.len() / 2;
        let back: Vec<_> = body.back_from(half).map(|element| element.value.into_owned()).collect();
        prop_assert!(back.iter().eq(list[..half].iter().rev()));
    }

    #[test]
    fn a_list_is_a_queue_at_both_ends(
        steps in vec((0u8..12, 1usize..80, any::<u32>()), 0..60),
    ) {
        let mut body = Body::new(Kind::List, HashSeed(5));
        body.keep_digest(TERMS);
        let mut queue: VecDeque<Vec<u8>> = VecDeque::new();
        let mut hlc = 5_000_000;
        for (what, run, number) in steps {
            for nth in 0..run {
                hlc += 1;
                let value = vec![b'x'; (number as usize + nth) % 40];
                let dot = Dot::new(Hlc(hlc), Actor(1));
                let first = what % 2 == 0;
                match what {
                    0..5 => {
                        let place = if first { 0 } else { queue.len().saturating_sub(1) };
                        let end = body.names(place, 1).pop();
                        let (left, right) = if first { (None, end) } else { (end, None) };
                        let name = between(left.as_deref(), right.as_deref(), dot).expect("room");
                        if !queue.is_empty() {
                            let beyond = body.name_beyond(first, dot);
                            prop_assert_eq!(beyond.as_ref(), Ok(&name));
                        }
                        let new = New::Single { dot, value: Packed::raw(&value), expire_at: None };
                        body.push(first, &name, &new);
                        if first { queue.push_front(value) } else { queue.push_back(value) }
                    }
                    5..10 if queue.len() > 1 => {
                        body.pop(first, |_| {});
                        let _ = if first { queue.pop_front() } else { queue.pop_back() };
                    }
                    10 if queue.len() > 1 => {
                        let place = number as usize % queue.len();
                        let name = body.names(place, 1).pop().expect("there");
                        body.update(&name, |_| New::Gone);
                        queue.remove(place);
                    }
                    _ => {}
                }
                let mut last = None;
                body.each_value(queue.len().saturating_sub(1), 1, |value| last = Some(value.to_vec()));
                prop_assert_eq!(last.as_ref(), queue.back());
            }
            assert_sound(&body)?;
        }
        let values: Vec<_> = body.from(0).map(|element| element.value.into_owned()).collect();
        prop_assert_eq!(VecDeque::from(values), queue);
    }

    /// Nothing that comes from outside makes reading panic.
    #[test]
    fn any_bytes_may_come(
        steps in steps(30, 60),
        flips in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        kind in prop_oneof![Just(Kind::Hash), Just(Kind::Zset), Just(Kind::Set)],
    ) {
        let mut body = Body::new(kind, HashSeed(5));
        for (nth, (name, step)) in steps.iter().enumerate() {
            let new = register(kind, nth as u64, step);
            body.update(&name.to_le_bytes(), |_| New::Register(new));
        }
        let mut bytes = Vec::new();
        body.encode(&mut bytes);
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        for end in (0..bytes.len()).step_by(3).chain([bytes.len()]) {
            if let Ok(body) = Body::decode(&mut Cursor::new(&bytes[..end]), HashSeed(1))
                && body.verify()
            {
                prop_assert_eq!(body.from(0).count(), body.len());
            }
        }
    }
}

#[test]
fn an_element_takes_little() {
    let mut body = Body::new(Kind::Hash, HashSeed(5));
    for nth in 0..100_000u64 {
        let name = format!("f:{nth:08}").into_bytes();
        let dot = Dot::new(Hlc((1_790_000_000_000 + nth / 100) << 16), Actor(1));
        let value = Packed::raw(b"0123456789");
        body.update(&name, |_| New::Single { dot, value, expire_at: None });
    }
    let each = body.memory() / body.len();
    assert!(each < 50, "{each} bytes for 20 of name and value");
}
