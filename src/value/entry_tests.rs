//! Laws and stories of entries, fragments, records and the plain form.

use std::borrow::Cow;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::base::hash::{Digest, HashSeed};
use crate::base::id::{Actor, Boot, NodeId};
use crate::base::limits::KEY_SIZE_MAX;
use crate::base::time::{Dot, Hlc, UnixMs};
use crate::base::wire::{Put, WireError};
use crate::version::laws::broken_law;

use super::apply::{ApplyError, Delta};
use super::change::{Amount, Change, Expire};
use super::entry::Entry;
use super::fragment::Fragment;
use super::number::parse_float;
use super::packed::{Packed, pack};
use super::plain::{PLAIN_OVERHEAD, Plain, PlainJoin, expire_after, join_plain, put_over};
use super::record::{Record, decode, decode_key, encode_delta, encode_plain, encode_whole};
use super::simulation::{Dice, Mutant, Simulation};
use super::view::Kind;

pub(super) const NOW: UnixMs = UnixMs(1_000);
const SEED: HashSeed = HashSeed(42);

pub(super) fn dot(hlc: u64, node: u16) -> Dot {
    Dot::new(Hlc(hlc), Actor::new(NodeId(node), Boot(0)))
}

pub(super) fn set(value: &str) -> Change<'_> {
    Change::Put { value: Cow::Borrowed(value.as_bytes()), expire: Expire::Clear }
}

fn set_until(value: &str, at: u64) -> Change<'_> {
    Change::Put { value: Cow::Borrowed(value.as_bytes()), expire: Expire::At(UnixMs(at)) }
}

const fn add(amount: i128) -> Change<'static> {
    Change::Increment(Amount::Int(amount))
}

pub(super) fn apply(entry: &mut Entry, change: &Change<'_>, dot: Dot) -> Delta {
    entry.apply(change, dot, NOW).expect("room").decoded()
}

/// The fragment that the change travels as.
fn fragment(entry: &mut Entry, change: &Change<'_>, dot: Dot) -> Fragment {
    match apply(entry, change, dot) {
        Delta::Fragment(fragment) => fragment,
        other => panic!("{change:?} travels as {other:?}"),
    }
}

pub(super) fn entry(changes: &[(Change<'_>, Dot)]) -> Entry {
    let mut entry = Entry::new();
    for (change, dot) in changes {
        apply(&mut entry, change, *dot);
    }
    entry
}

pub(super) fn joined(a: &Entry, b: &Entry) -> Entry {
    let mut out = a.clone();
    out.join(b);
    out
}

fn shown(entry: &Entry) -> Option<String> {
    let view = entry.view(NOW)?;
    assert_eq!(view.string_len().unwrap(), view.string().unwrap().len());
    Some(String::from_utf8(view.string().unwrap().into_owned()).unwrap())
}

// ---- laws -------------------------------------------------------------------------------------

/// States that three replicas reach from `seed`.
pub(super) fn reached(seed: u64) -> Vec<Entry> {
    let mut simulation = Simulation::new(seed, Mutant::None);
    simulation.run(120).expect("no rule is missing");
    simulation.reached.push(Entry::new());
    simulation.reached
}

/// States of a collection of two fields, reached by whole states only.
fn reached_fields(dice: &mut Dice) -> Vec<Entry> {
    let mut replicas = [const { None }; 3].map(|_: Option<()>| Entry::new());
    let mut seen = vec![Entry::new()];
    for hlc in 1..12 {
        let at = dice.roll(3) as usize;
        let name = if dice.roll(2) == 0 { &b"f"[..] } else { b"g" };
        match dice.roll(100) {
            0..45 => replicas[at].put_field(name, b"value", dot(hlc, at as u16)),
            45..65 => replicas[at].remove_field(name, dot(hlc, at as u16)),
            _ => {
                let from = replicas[dice.roll(3) as usize].clone();
                replicas[at].join(&from);
            }
        }
        seen.push(replicas[at].clone());
    }
    seen
}

fn three<'a>(dice: &mut Dice, states: &'a [Entry]) -> (&'a Entry, &'a Entry, &'a Entry) {
    let mut one = || &states[dice.roll(states.len() as u64) as usize];
    (one(), one(), one())
}

#[test]
fn join_is_lawful() {
    for seed in 0..12 {
        let states = reached(seed);
        let mut dice = Dice(seed);
        for _ in 0..60 {
            assert_eq!(broken_law(three(&mut dice, &states), Entry::join), None, "seed {seed}");
        }
    }
}

#[test]
fn pruning_belongs_outside_the_join() {
    let pruned = |a: &mut Entry, b: &Entry| {
        a.join(b);
        a.prune_losers();
    };
    let mut dice = Dice(7);
    let mut broken = 0;
    for _ in 0..20_000 {
        let states = reached_fields(&mut dice);
        let three = three(&mut dice, &states);
        assert_eq!(broken_law(three, Entry::join), None);
        broken += usize::from(broken_law(three, pruned) == Some("associative"));
    }
    assert!(broken > 0, "a prune inside the join went unnoticed");
}

#[test]
fn a_prune_inside_the_join_brings_back_a_loser() {
    let (mut a, mut b) = (Entry::new(), Entry::new());
    a.put_field(b"f", b"loser", dot(1, 1));
    b.put_field(b"f", b"winner", dot(2, 2));
    let mut c = b.clone();
    c.remove_field(b"f", dot(3, 3));
    let mut one_way = joined(&a, &b);
    one_way.prune_losers();
    assert!(!joined(&one_way, &c).is_live());
    assert!(joined(&a, &joined(&b, &c)).is_live());
}

#[test]
fn pruning_only_removes_losers() {
    let (mut a, mut b) = (Entry::new(), Entry::new());
    a.put_field(b"f", b"1", dot(1, 1));
    b.put_field(b"f", b"2", dot(2, 2));
    let mut both = joined(&a, &b);
    both.prune_losers();
    assert_eq!(both.fields(), b.fields());
    // Strings are for their readers to resolve.
    let mut strings = joined(&entry(&[(set("a"), dot(1, 1))]), &entry(&[(set("b"), dot(1, 2))]));
    strings.prune_losers();
    assert_eq!(strings.siblings().count(), 2);
}

/// Fragments of three writers with all that they had seen: in whatever order they arrive.
#[test]
fn deltas_may_come_in_any_order_and_twice() {
    for seed in 0..60 {
        let mut dice = Dice(seed);
        let mut writer = entry(&[(set_until("10", 2_000), dot(1, 0))]);
        let mut deltas = vec![Record::Whole(writer.clone())];
        for hlc in 2..12 {
            let dot = dot(hlc, dice.roll(3) as u16);
            let change = match dice.roll(10) {
                0 => set("20"),
                1 => Change::Delete,
                2..5 => Change::Expire(Some(UnixMs(2_000 + hlc))),
                _ => add(1 << hlc),
            };
            deltas.push(match apply(&mut writer, &change, dot) {
                Delta::Whole => Record::Whole(writer.clone()),
                Delta::Fragment(fragment) => Record::Delta(fragment),
                Delta::Short(_) => unreachable!("decoded"),
            });
        }
        for _ in 0..20 {
            let mut order: Vec<usize> = (0..deltas.len()).chain(0..deltas.len()).collect();
            for at in (1..order.len()).rev() {
                order.swap(at, dice.roll(at as u64 + 1) as usize);
            }
            let mut replica = Entry::new();
            for at in order {
                deltas[at].join_into(&mut replica);
            }
            assert_eq!(replica.meta(), writer.meta(), "seed {seed}");
            assert_eq!(replica.fields(), writer.fields(), "seed {seed}");
            assert!((1..12).all(|hlc| (0..3).all(|node| {
                let dot = dot(hlc, node);
                writer.context().contains(dot) == replica.context().contains(dot)
                    || !deltas
                        .iter()
                        .any(|delta| matches!(delta, Record::Delta(f) if f.dot() == dot))
            })));
            replica.join(&writer);
            assert_eq!(replica, writer);
        }
    }
}

// ---- stories of strings -------------------------------------------------------------------------

#[test]
fn a_write_that_saw_the_siblings_resolves_them() {
    let start = entry(&[(set("x"), dot(1, 1))]);
    let mut left = start.clone();
    apply(&mut left, &set("left"), dot(2, 1));
    let mut right = start.clone();
    apply(&mut right, &set("right"), dot(3, 2));
    let mut both = joined(&left, &right);
    assert_eq!(both.context().to_string(), "D([n1,2],[n2,1])");
    assert_eq!(shown(&both).as_deref(), Some("right"));
    let siblings: Vec<_> = both.siblings().map(|(dot, _)| dot).collect();
    assert_eq!(siblings, [dot(2, 1), dot(3, 2)]);
    apply(&mut both, &set("resolved"), dot(4, 3));
    assert_eq!(both.siblings().count(), 1);
    assert_eq!(both.context().to_string(), "D([n1,2],[n2,1],[n3,1])");
    assert_eq!(joined(&both, &left), both);
}

#[test]
fn a_delete_is_observed_remove() {
    let start = entry(&[(set("x"), dot(1, 1))]);
    let mut deleted = start.clone();
    assert_eq!(apply(&mut deleted, &Change::Delete, dot(2, 1)), Delta::Whole);
    assert!(deleted.is_tombstone() && deleted.view(NOW).is_none());
    assert_eq!(joined(&deleted, &start), deleted);
    let mut concurrent = start.clone();
    apply(&mut concurrent, &set("y"), dot(2, 2));
    assert_eq!(shown(&joined(&deleted, &concurrent)).as_deref(), Some("y"));
    assert!(!Entry::new().is_tombstone());
}

#[test]
fn what_expired_is_invisible_and_cleared_by_the_next_write() {
    let expired = entry(&[(set_until("5", 500), dot(1, 1))]);
    assert!(expired.is_live() && expired.view(NOW).is_none());
    assert!(expired.view(UnixMs(499)).is_some() && expired.view(UnixMs(500)).is_none());

    let mut counted = expired.clone();
    let delta = fragment(&mut counted, &add(3), dot(2, 2));
    assert_eq!(shown(&counted).as_deref(), Some("3"));
    let mut replica = expired.clone();
    replica.join_delta(&delta);
    assert_eq!((replica.meta(), replica.fields()), (counted.meta(), counted.fields()));

    let mut touched = expired.clone();
    let at = Some(UnixMs(9_999));
    assert_eq!(apply(&mut touched, &Change::Expire(at), dot(2, 1)), Delta::Whole);
    assert!(touched.is_tombstone());

    let keep = Change::Put { value: Cow::Borrowed(b"v"), expire: Expire::Keep };
    let mut kept = expired;
    apply(&mut kept, &keep, dot(2, 1));
    assert_eq!(kept.view(NOW).unwrap().expire_at, None);
}

#[test]
fn expiry_is_kept_set_and_cleared() {
    let mut key = entry(&[(set_until("v", 2_000), dot(1, 1))]);
    let keep = Change::Put { value: Cow::Borrowed(b"w"), expire: Expire::Keep };
    apply(&mut key, &keep, dot(2, 1));
    assert_eq!(key.view(NOW).unwrap().expire_at, Some(UnixMs(2_000)));
    apply(&mut key, &Change::Expire(None), dot(3, 1));
    assert_eq!(key.view(NOW).unwrap().expire_at, None);
    assert_eq!(key.view(NOW).unwrap().kind, Kind::String);
    assert_eq!(shown(&key).as_deref(), Some("w"));
}

#[test]
fn an_expire_may_arrive_before_its_set() {
    let mut writer = Entry::new();
    apply(&mut writer, &set("v"), dot(1, 1));
    let whole = writer.clone();
    let first = fragment(&mut writer, &Change::Expire(Some(UnixMs(5_000))), dot(2, 1));
    let second = fragment(&mut writer, &Change::Expire(Some(UnixMs(6_000))), dot(3, 1));
    // Only the first has to tell the value.
    assert_eq!(first.part().fields().len(), 1);
    assert_eq!(second.part().fields().len(), 0);
    let mut replica = Entry::new();
    replica.join_delta(&second);
    assert!(replica.is_live() && replica.view(NOW).is_none());
    replica.join(&whole);
    replica.join_delta(&first);
    assert_eq!(replica.view(NOW).unwrap().expire_at, Some(UnixMs(6_000)));
    assert_eq!(replica.meta(), writer.meta());
}

#[test]
#[should_panic(expected = "above every dot")]
fn a_dot_that_does_not_rise_is_a_bug() {
    let mut key = entry(&[(set("v"), dot(5, 1))]);
    apply(&mut key, &set("w"), dot(5, 2));
}

/// A stand-in counts as one that has forgotten what it wrote up to timestamp 3.
fn count_blindly(hint: &mut Entry, amount: i128, at: Dot) -> Fragment {
    match hint.apply_blind(&add(amount), at, NOW, Hlc(3)) {
        Ok(Delta::Fragment(counted)) => counted,
        other => panic!("increments travel as fragments: {other:?}"),
    }
}

#[test]
fn a_stand_in_claims_single_dots_only() {
    let mut hint = Entry::new();
    hint.apply_blind(&set("7"), dot(4, 9), NOW, Hlc(3)).unwrap();
    let counted = count_blindly(&mut hint, 1, dot(5, 9));
    assert_eq!(counted.prev(), None);
    assert_eq!(hint.context().to_string(), "D([n9,1])+[n9,2]");
    // What it set since it forgot, it knows: one base.
    assert_eq!((shown(&hint).as_deref(), hint.siblings().count()), (Some("8"), 1));
}

#[test]
fn a_stand_in_adds_to_no_sum_that_it_may_have_forgotten_a_part_of() {
    let base = entry(&[(set("100"), dot(1, 1))]);
    let mut first = base.clone();
    count_blindly(&mut first, 5, dot(2, 9));
    let replica = joined(&base, &first);
    assert_eq!(shown(&replica).as_deref(), Some("105"));
    // It handed that on, forgot it, and is told of the base by another.
    let mut second = base;
    count_blindly(&mut second, 20, dot(6, 9));
    count_blindly(&mut second, 1, dot(7, 9));
    assert_eq!(second.siblings().count(), 2, "its own counting goes on in one place");
    assert_eq!(shown(&joined(&replica, &second)).as_deref(), Some("126"));
}

#[test]
fn a_stand_in_overwrites_what_it_wrote_before() {
    let mut replica = Entry::new();
    replica.apply_blind(&set("old"), dot(2, 9), NOW, Hlc::ZERO).unwrap();
    let mut hint = Entry::new();
    hint.apply_blind(&set("new"), dot(6, 9), NOW, Hlc(3)).unwrap();
    replica.join(&hint);
    assert_eq!((shown(&replica).as_deref(), replica.siblings().count()), (Some("new"), 1));
}

#[test]
fn single_dots_of_a_stand_in_are_bounded() {
    let mut hint = Entry::new();
    let mut counts = (4..).map(|hlc| hint.apply_blind(&add(1), dot(hlc, 9), NOW, Hlc(3)));
    assert_eq!(counts.position(|done| done == Err(ApplyError::TooManySingleDots)), Some(256));
    hint.apply_blind(&set("0"), dot(999, 9), NOW, Hlc(3)).unwrap();
    assert_eq!(hint.context().to_string(), "D([n9,257])");
}

// ---- stories of counters ------------------------------------------------------------------------

#[test]
fn counters_add_up_across_a_split() {
    let start = entry(&[(set("10"), dot(1, 1))]);
    let (mut left, mut right) = (start.clone(), start);
    for hlc in 2..5 {
        apply(&mut left, &add(1), dot(hlc, 1));
        apply(&mut right, &add(100), dot(hlc, 2));
    }
    assert_eq!(shown(&joined(&left, &right)).as_deref(), Some("313"));
}

#[test]
fn concurrent_counts_on_nothing_add_up() {
    let left = entry(&[(add(2), dot(1, 1)), (add(2), dot(2, 1))]);
    let right = entry(&[(add(-7), dot(1, 2))]);
    let both = joined(&left, &right);
    assert_eq!(shown(&both).as_deref(), Some("-3"));
    let mut further = both;
    apply(&mut further, &add(10), dot(3, 3));
    assert_eq!(shown(&further).as_deref(), Some("7"));
}

#[test]
fn a_count_on_nothing_adds_to_a_concurrent_set() {
    // SET, INCR is a serial order; 1 would be none.
    let counted = entry(&[(add(1), dot(9, 1))]);
    let number = entry(&[(set("100"), dot(1, 2)), (add(5), dot(2, 2))]);
    assert_eq!(shown(&joined(&counted, &number)).as_deref(), Some("106"));
    // To a word nothing can be added: the last writer wins.
    let early = entry(&[(set("word"), dot(1, 2))]);
    assert_eq!(shown(&joined(&counted, &early)).as_deref(), Some("1"));
    let late = entry(&[(set("word"), dot(10, 2))]);
    assert_eq!(shown(&joined(&counted, &late)).as_deref(), Some("word"));
}

#[test]
fn a_reset_takes_the_increments_it_covers() {
    let mut a = Entry::new();
    for hlc in 1..6 {
        apply(&mut a, &add(1), dot(hlc, 1));
    }
    let mut reset = a.clone();
    apply(&mut reset, &set("100"), dot(6, 3));
    apply(&mut a, &add(1), dot(7, 1));
    assert_eq!(shown(&joined(&reset, &a)).as_deref(), Some("100"));
}

/// The usual counter (one dot an actor, in a store shared with SET) as a mutant of the story above.
#[test]
fn the_embedded_counter_gives_back_what_a_reset_covered() {
    // Values under dots (actor, count), and contexts (actor → count), as in riak_dt_emcntr.
    type State = (Vec<((char, u32), i64)>, Vec<(char, u32)>);
    let reset: State = (vec![(('C', 1), 100)], vec![('A', 5), ('C', 1)]);
    let sixth: State = (vec![(('A', 6), 6)], vec![('A', 6)]);
    let covers = |state: &State, (actor, count): (char, u32)| {
        state.1.iter().any(|(held, upto)| *held == actor && *upto >= count)
    };
    let of = |ours: &State, theirs: &State| -> i64 {
        ours.0.iter().filter(|(dot, _)| !covers(theirs, *dot)).map(|(_, value)| value).sum()
    };
    assert_eq!(of(&reset, &sixth) + of(&sixth, &reset), 106);
}

#[test]
fn an_increment_may_arrive_before_its_base() {
    let mut writer = entry(&[(set_until("5", 9_000), dot(1, 1))]);
    let whole = writer.clone();
    let one = fragment(&mut writer, &add(1), dot(2, 2));
    let mut replica = Entry::new();
    replica.join_delta(&one);
    assert_eq!(shown(&replica).as_deref(), Some("6"));
    assert_eq!(replica.view(NOW).unwrap().expire_at, Some(UnixMs(9_000)));
    replica.join(&whole);
    assert_eq!(replica, writer);
}

#[test]
fn floats_count_as_redis_prints_them() {
    let float = |text: &str| Change::Increment(parse_float(text.as_bytes()).unwrap());
    let mut key = entry(&[(set("10.50"), dot(1, 1)), (float("0.1"), dot(2, 1))]);
    assert_eq!(shown(&key).as_deref(), Some("10.6"));
    apply(&mut key, &float("-5.6"), dot(3, 2));
    assert_eq!(shown(&key).as_deref(), Some("5"));
    apply(&mut key, &add(2), dot(4, 2));
    assert_eq!(shown(&key).as_deref(), Some("7"));
    assert_eq!(shown(&entry(&[(float("3.0e3"), dot(1, 1))])).as_deref(), Some("3000"));
}

#[test]
fn a_base_without_increments_shows_as_it_was_set() {
    assert_eq!(shown(&entry(&[(set("007"), dot(1, 1))])).as_deref(), Some("007"));
}

// ---- the plain form -----------------------------------------------------------------------------

/// A plain value and the room it is packed in.
fn plains() -> impl Strategy<Value = (u64, u16, u32, Option<u64>, Vec<u8>)> {
    let value = prop_oneof![vec(any::<u8>(), 0..20), vec(0u8..3, 200..600)];
    (1u64..8, 0u16..2, 1u32..4, prop::option::of(500u64..1_500), value)
}

fn plain<'a>(
    (hlc, node, n, expire_at, raw): &'a (u64, u16, u32, Option<u64>, Vec<u8>),
    scratch: &'a mut Vec<u8>,
) -> Plain<'a> {
    let value = pack(raw, scratch);
    Plain { dot: dot(*hlc, *node), n: *n, expire_at: expire_at.map(UnixMs), value }
}

proptest! {
    #[test]
    fn plain_and_full_form_are_one(parts in plains(), now in 400u64..1_600) {
        let mut scratch = Vec::new();
        let plain = plain(&parts, &mut scratch);
        let full = Entry::from_plain(&plain);
        prop_assert_eq!(full.as_plain(), Some(plain));
        prop_assert_eq!(full.hlc_max(), plain.hlc_max());
        prop_assert_eq!(full.digest(SEED, 9), plain.digest(SEED, 9));
        prop_assert_eq!(full.state_digest(SEED, 9), plain.state_digest(SEED, 9));
        let (one, other) = (full.view(UnixMs(now)), plain.view(UnixMs(now)));
        prop_assert_eq!(one.is_some(), other.is_some());
        if let (Some(one), Some(other)) = (one, other) {
            prop_assert_eq!(&one.body, &other.body);
            prop_assert_eq!(one.expire_at, other.expire_at);
            prop_assert_eq!(&*one.string().unwrap(), &parts.4[..]);
        }
    }

    #[test]
    fn plain_joins_as_entries_do(a in plains(), mut b in plains()) {
        if (a.0, a.1) == (b.0, b.1) {
            b = a.clone();
        }
        let (mut room_a, mut room_b) = (Vec::new(), Vec::new());
        let (a, b) = (plain(&a, &mut room_a), plain(&b, &mut room_b));
        let both = joined(&Entry::from_plain(&a), &Entry::from_plain(&b));
        let expected = match join_plain(&a, &b) {
            PlainJoin::Keep => Some(a),
            PlainJoin::Replace => Some(b),
            PlainJoin::NeedsEntry => None,
        };
        prop_assert_eq!(both.as_plain(), expected);
    }

    #[test]
    fn plain_is_set_as_entries_are(
        old in prop::option::of(plains()),
        node in 0u16..2,
        choice in 0u8..3,
        value in plains(),
    ) {
        let mut room = Vec::new();
        let old = old.as_ref().map(|parts| plain(parts, &mut room));
        let expire = [Expire::Clear, Expire::Keep, Expire::At(UnixMs(7_777))][choice as usize];
        let raw = &value.4;
        let mut full = old.as_ref().map_or_else(Entry::new, Entry::from_plain);
        let change = Change::Put { value: Cow::Borrowed(raw), expire };
        prop_assert_eq!(apply(&mut full, &change, dot(20, node)), Delta::Whole);
        let mut packed = Vec::new();
        let fast = put_over(old.as_ref(), dot(20, node)).map(|n| Plain {
            dot: dot(20, node),
            n,
            expire_at: expire_after(old.as_ref(), expire, NOW),
            value: pack(raw, &mut packed),
        });
        prop_assert_eq!(full.as_plain(), fast);
    }
}

#[test]
fn what_is_not_plain_says_so() {
    assert!(Entry::new().as_plain().is_none());
    assert!(entry(&[(add(1), dot(1, 1))]).as_plain().is_none());
    let set_once = (set("1"), dot(1, 1));
    assert!(entry(std::slice::from_ref(&set_once)).as_plain().is_some());
    assert!(entry(&[set_once.clone(), (add(1), dot(2, 1))]).as_plain().is_none());
    assert!(entry(&[set_once.clone(), (Change::Delete, dot(2, 1))]).as_plain().is_none());
    assert!(entry(&[set_once.clone(), (set("2"), dot(2, 2))]).as_plain().is_none());
    assert!(entry(&[set_once.clone(), (Change::Expire(None), dot(2, 1))]).as_plain().is_none());
    let again = entry(&[set_once, (Change::Delete, dot(2, 1)), (set("3"), dot(3, 1))]);
    assert_eq!(again.as_plain().map(|plain| plain.n), Some(3));
}

// ---- digests ------------------------------------------------------------------------------------

#[test]
fn equal_lives_are_equal_digests() {
    for seed in 0..6 {
        let states = reached(seed);
        for a in &states {
            assert!(a.is_live() || a.digest(SEED, 1) == Digest::NONE);
            for b in &states {
                let same = a.meta() == b.meta() && a.fields() == b.fields();
                assert_eq!(same, a.digest(SEED, 1) == b.digest(SEED, 1), "seed {seed}");
                let known = |x: &Entry| {
                    let marks = x.context().vector().iter().chain(x.context().cloud());
                    marks.map(|mark| mark.dot).collect::<Vec<_>>()
                };
                let equal = same && known(a) == known(b);
                let digests = a.state_digest(SEED, 1) == b.state_digest(SEED, 1);
                assert_eq!(equal, digests, "seed {seed}");
            }
        }
    }
}

#[test]
fn digests_are_keyed() {
    let key = entry(&[(set("v"), dot(1, 1))]);
    assert_ne!(key.digest(SEED, 1), key.digest(SEED, 2));
    assert_ne!(key.digest(SEED, 1), key.digest(HashSeed(43), 1));
    assert_eq!(Entry::new().state_digest(SEED, 1), Digest::NONE);
    let gone = entry(&[(set("v"), dot(1, 1)), (Change::Delete, dot(2, 1))]);
    assert_eq!(gone.digest(SEED, 1), Digest::NONE);
    assert_ne!(gone.state_digest(SEED, 1), Digest::NONE);
}

// ---- bytes --------------------------------------------------------------------------------------

/// One record of each kind, as bytes.
fn samples() -> Vec<Vec<u8>> {
    let mut samples = Vec::new();
    let mut push = |encode: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        encode(&mut out);
        samples.push(out);
    };
    let value = Packed::raw(b"abc");
    let plain = Plain { dot: dot(0x1122, 1), n: 3, expire_at: Some(UnixMs(300)), value };
    push(&|out| encode_plain(out, b"key", &plain));
    let block = [0x1f, 7, 1, 0, 0xff, 0x77, 0x60, 7, 7, 7, 7, 7, 7];
    let packed = Plain { value: Packed { raw_len: 400, lz4: true, bytes: &block }, ..plain };
    assert_eq!(packed.value.unpack().as_deref(), Some(&[7; 400][..]));
    push(&|out| encode_plain(out, b"key", &packed));
    let mut whole = joined(
        &entry(&[(set_until("5", 3_000), dot(1, 1)), (add(2), dot(2, 1))]),
        &entry(&[(Change::Increment(Amount::Float(0.5, 0.0)), dot(1, 2))]),
    );
    // Told by somebody who does not know the author's write before it.
    let counted = fragment(&mut whole.clone(), &add(1 << 70), dot(9, 3));
    whole.join_delta(&Fragment::new(counted.dot(), None, counted.part().clone(), Vec::new()));
    push(&|out| encode_whole(out, b"key", &whole));
    let mut counted = entry(&[(set("5"), dot(1, 1))]);
    let delta = fragment(&mut counted, &add(-1), dot(2, 1));
    push(&|out| encode_delta(out, b"key", &delta));
    samples
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_formats_are_frozen() {
    let frozen = [
        // Plain: tag (it expires), key, dot, n, expiry, value.
        "11 03 6b6579 2211000000000000 00000100 03 ac02 03 616263",
        // Plain with a block: the raw length stands before it.
        "31 03 6b6579 2211000000000000 00000100 03 ac02 9003 0d 1f070100ff7760070707070707",
        // Whole: vector, cloud, metas, then no body but a string: a base "5" with +2, and a zero
        // base with +0.5 and with 2^70.
        "02 03 6b6579 02 00000100 0200000000000000 02 00000200 0100000000000000 01
         01 0900000000000000 00000300 01
         02 0100000000000000 00000100 80 b817 0100000000000000 00000200 00
         80 02 0100000000000000 00000100 01 01 35
         01 00000100 0200000000000000 00 04
         0100000000000000 00000200 00
         02 00000200 0100000000000000 02 000000000000e03f 0000000000000000
         00000300 0900000000000000 01 00000000000000004000000000000000",
        // Delta: dot, n, previous dot, the other named dot, metas, the base with its increment, no
        // element that is gone.
        "03 03 6b6579 0200000000000000 00000100 02 01 0100000000000000
         01 0100000000000000 00000100 00
         01 0100000000000000 00000100 00
         80 01 0100000000000000 00000100 01 01 35
         01 00000100 0200000000000000 00 01 00",
    ];
    for (sample, frozen) in samples().iter().zip(frozen) {
        let frozen: String = frozen.split_whitespace().collect();
        assert_eq!(hex(sample), frozen);
    }
}

/// What a record says, encoded again.
fn again(bytes: &[u8]) -> Result<Vec<u8>, WireError> {
    let (key, record) = decode(bytes)?;
    let mut out = Vec::new();
    match &record {
        Record::Plain(plain) => encode_plain(&mut out, key, plain),
        Record::Whole(entry) => encode_whole(&mut out, key, entry),
        Record::Delta(fragment) => encode_delta(&mut out, key, fragment),
        Record::Part(part) => super::record::encode_part(&mut out, key, part),
    }
    // What can be read can be checked, seen and joined.
    let sound = record.verify();
    let mut target = entry(&[(set("1"), dot(1, 1)), (add(1), dot(2, 2))]);
    record.join_into(&mut target);
    let is_part = matches!(record, Record::Part(_));
    assert!(is_part || target.hlc_max() >= record.hlc_max());
    if sound {
        let _ = target.view(NOW);
    }
    Ok(out)
}

#[test]
fn records_come_back_and_damage_is_no_panic() {
    for sample in samples() {
        assert_eq!(again(&sample).as_ref(), Ok(&sample));
        assert_eq!(decode_key(&sample), Ok(&b"key"[..]));
        for end in 0..sample.len() {
            assert!(again(&sample[..end]).is_err(), "a truncated record was read");
        }
        let mut longer = sample.clone();
        longer.push(0);
        assert!(again(&longer).is_err());
        for bit in 0..sample.len() * 8 {
            let mut flipped = sample.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // Another valid record, or refused; whatever is read has one form of bytes.
            if let Ok(bytes) = again(&flipped) {
                assert_eq!(bytes, flipped, "two forms of one record");
            }
        }
    }
}

proptest! {
    #[test]
    fn garbage_is_no_panic(tag in 0u8..64, bytes in vec(prop_oneof![0u8..4, any::<u8>()], 0..80)) {
        let mut record = vec![tag, 1, b'k'];
        record.extend(bytes);
        let _ = again(&record);
    }

    #[test]
    fn plain_records_come_back(parts in plains(), key in vec(any::<u8>(), 0..40)) {
        let mut scratch = Vec::new();
        let plain = plain(&parts, &mut scratch);
        let mut out = Vec::new();
        encode_plain(&mut out, &key, &plain);
        let (read, record) = decode(&out).unwrap();
        prop_assert!(record.verify());
        prop_assert_eq!(read, &key[..]);
        prop_assert_eq!(record, Record::Plain(plain));
    }
}

#[test]
fn plain_records_are_small() {
    let size = |key: &[u8], plain: &Plain<'_>| {
        let mut out = Vec::new();
        encode_plain(&mut out, key, plain);
        out.len()
    };
    let value = Packed::raw(&[b'v'; 32]);
    let plain = Plain { dot: dot(u64::MAX, 9), n: 100, expire_at: None, value };
    // Tag, two lengths, twelve bytes of dot and one of count.
    assert_eq!(size(&[b'k'; 16], &plain), 16 + 32 + 16);
    let expires = Plain { expire_at: Some(UnixMs(1_800_000_000_000)), ..plain };
    assert_eq!(size(&[b'k'; 16], &expires), 16 + 32 + 16 + 6);
    assert!(size(&[b'k'; 16], &expires) <= 16 + 32 + PLAIN_OVERHEAD);
}

#[test]
fn hostile_lengths_are_refused() {
    let value = Packed::raw(b"v");
    let plain = Plain { dot: dot(1, 1), n: 1, expire_at: None, value };
    let mut out = Vec::new();
    encode_plain(&mut out, &vec![0; KEY_SIZE_MAX + 1], &plain);
    assert_eq!(decode(&out), Err(WireError::Malformed("length of a key")));
    // Ten bytes that claim to be half a gigabyte.
    let bomb = Packed { raw_len: 512 << 20, lz4: true, bytes: &[0; 10] };
    let mut out = Vec::new();
    encode_plain(&mut out, b"k", &Plain { value: bomb, ..plain });
    assert_eq!(decode(&out), Err(WireError::Malformed("length of a value")));
    // A block that does not unpack is read, but does not verify.
    let broken = Packed { raw_len: 300, lz4: true, bytes: &[255; 10] };
    let mut out = Vec::new();
    encode_plain(&mut out, b"k", &Plain { value: broken, ..plain });
    assert!(!decode(&out).unwrap().1.verify());
    // Counts that nothing stands behind.
    let mut out = vec![2, 1, b'k'];
    out.put_varint(u64::MAX);
    assert_eq!(decode(&out), Err(WireError::Truncated));
}
