//! Stories of clients that bring back what they have seen.

use std::borrow::Cow;

use crate::base::limits::SIBLINGS_MAX;
use crate::base::time::UnixMs;
use crate::version::context::Context;

use super::apply::ApplyError;
use super::change::{Amount, Change, Edit, Expire, Seen};
use super::entry::Entry;
use super::entry_tests::{NOW, apply, dot, entry, joined, reached, set};
use super::view::{Body, Kind};

/// What a client asks that has seen `context`.
fn seen(context: &Context, put: Option<(&str, Expire)>) -> Change<'static> {
    let put = put.map(|(value, expire)| (Cow::Owned(value.as_bytes().to_vec()), expire));
    Change::Seen(Box::new(Seen { context: context.clone(), put }))
}

fn values(entry: &Entry) -> Vec<String> {
    let text = |body: &Body<'_>| String::from_utf8_lossy(&body.string()).into_owned();
    entry.values(NOW).iter().map(text).collect()
}

#[test]
fn a_client_removes_what_it_has_seen_and_no_more() {
    let mut both = entry(&[(set("old"), dot(1, 1))]);
    let token = both.context().clone();
    both = joined(&both, &entry(&[(set("unseen"), dot(1, 2))]));
    apply(&mut both, &seen(&token, Some(("new", Expire::At(UnixMs(9_000))))), dot(5, 3));
    assert_eq!(values(&both), ["unseen", "new"]);
    assert_eq!(both.view(NOW).unwrap().expire_at, Some(UnixMs(9_000)));
    apply(&mut both, &seen(&token, None), dot(6, 3));
    assert_eq!(values(&both), ["unseen", "new"]);
    let all = both.context().clone();
    apply(&mut both, &seen(&all, None), dot(7, 3));
    assert!(both.is_tombstone());
}

#[test]
fn two_writes_with_one_token_are_siblings_even_at_one_node() {
    let mut cart = entry(&[(set("A"), dot(1, 1))]);
    let token = cart.context().clone();
    apply(&mut cart, &seen(&token, Some(("Aa", Expire::Clear))), dot(2, 1));
    apply(&mut cart, &seen(&token, Some(("AA", Expire::Clear))), dot(3, 1));
    assert_eq!(values(&cart), ["Aa", "AA"]);
    assert_eq!(cart.context().to_string(), "D([n1,3])");
    let all = cart.context().clone();
    apply(&mut cart, &seen(&all, Some(("Aaa", Expire::Clear))), dot(4, 2));
    assert_eq!(values(&cart), ["Aaa"]);
    assert_eq!(cart.context().to_string(), "D([n1,3],[n2,1])");
}

#[test]
fn what_a_client_saw_elsewhere_does_not_come_back() {
    let one = entry(&[(set("seen at n1"), dot(5, 1))]);
    let mut other = entry(&[(set("at n2"), dot(1, 2))]);
    apply(&mut other, &seen(one.context(), Some(("new", Expire::Clear))), dot(6, 2));
    assert_eq!(values(&joined(&other, &one)), ["at n2", "new"]);
    let mut gone = Entry::new();
    apply(&mut gone, &seen(one.context(), None), dot(6, 2));
    assert!(joined(&gone, &one).is_tombstone());
}

#[test]
fn a_counter_stays_if_somebody_added_to_it_unseen() {
    let mut counter = entry(&[(set("100"), dot(1, 1))]);
    let token = counter.context().clone();
    let reset = seen(&token, Some(("0", Expire::Clear)));
    apply(&mut counter, &Change::Increment(Amount::Int(1)), dot(2, 1));
    let all = counter.context().clone();
    apply(&mut counter, &reset, dot(3, 1));
    assert_eq!(values(&counter), ["101", "0"]);
    apply(&mut counter, &seen(&all, None), dot(4, 1));
    assert_eq!(values(&counter), ["0"]);
}

#[test]
fn counts_from_nothing_are_no_conflict() {
    let from_zero = |amount, dot| entry(&[(Change::Increment(Amount::Int(amount)), dot)]);
    let mut all = joined(&from_zero(1, dot(2, 1)), &from_zero(2, dot(3, 2)));
    assert_eq!(values(&all), ["3"]);
    all = joined(&all, &entry(&[(set("100"), dot(1, 3))]));
    assert_eq!(values(&all), ["103"]);
    all = joined(&all, &entry(&[(set("word"), dot(1, 4))]));
    assert_eq!(values(&all), ["100", "word", "3"]);
    all = joined(&all, &entry(&[(set("last"), dot(9, 5))]));
    assert_eq!(values(&all), ["100", "word", "3", "last"]);
    all = joined(&all, &entry(&[(set("7"), dot(10, 6))]));
    assert_eq!(values(&all), ["100", "word", "last", "10"]);
}

#[test]
fn the_last_value_is_the_visible_one() {
    for seed in 0..200 {
        for state in reached(seed) {
            let last = state.values(NOW).last().map(|body| body.string().into_owned());
            assert_eq!(last, state.view(NOW).map(|view| view.string().unwrap().into_owned()));
            assert_eq!(state.kinds(NOW).last().copied(), state.view(NOW).map(|view| view.kind));
        }
    }
}

#[test]
fn a_clash_of_types_shows_both() {
    let string = entry(&[(set("s"), dot(1, 1))]);
    let edit = Change::edit(Kind::Hash, [Edit::field(&b"f"[..], &b"v"[..])]);
    let hash = entry(&[(edit, dot(2, 2))]);
    let clash = joined(&string, &hash);
    assert_eq!(clash.kinds(NOW), [Kind::String, Kind::Hash]);
    assert_eq!((clash.values(NOW).len(), clash.collections(NOW).len()), (1, 1));
    assert_eq!(clash.view(NOW).unwrap().kind, Kind::Hash);
    // The next write of either type has seen both.
    let mut set_over = clash.clone();
    apply(&mut set_over, &set("s2"), dot(9, 1));
    assert_eq!(set_over.kinds(NOW), [Kind::String]);
}

#[test]
fn siblings_are_capped_and_nothing_is_dropped() {
    let blind = seen(&Context::new(), Some(("v", Expire::Clear)));
    let mut many = Entry::new();
    for hlc in 1..=SIBLINGS_MAX as u64 {
        apply(&mut many, &blind, dot(hlc, 1));
    }
    let before = many.clone();
    let refused = many.apply(&blind, dot(99, 1), NOW);
    assert_eq!(refused, Err(ApplyError::TooManySiblings));
    assert_eq!(many, before);
    let all = many.context().clone();
    apply(&mut many, &seen(&all, Some(("one", Expire::Clear))), dot(99, 1));
    assert_eq!(values(&many), ["one"]);
}
