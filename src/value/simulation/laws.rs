//! What must hold of every kind of key, and which rules it needs.
//!
//! `PROPTEST_CASES` says how many seeds are tried: `scripts/laws.sh` tries many.

use crate::version::laws::{broken_law, tries};

use super::super::fields::Fields;
use super::*;

const FAMILIES: [Kind; 5] = [Kind::String, Kind::Hash, Kind::Set, Kind::Zset, Kind::List];

/// The first seed below `seeds` whose run goes wrong, and how.
fn first_violation(family: Kind, mutant: Mutant, seeds: u64) -> Option<(u64, String)> {
    (0..seeds).find_map(|seed| {
        let wrong = Simulation::of(family, seed, mutant).run(150).err()?;
        Some((seed, wrong))
    })
}

fn is_ideal(family: Kind) {
    if let Some((seed, wrong)) = first_violation(family, Mutant::None, tries(60)) {
        panic!("{family:?}, seed {seed}: {wrong}");
    }
    for seed in 0..tries(60).div_ceil(20) {
        if let Err(wrong) = Simulation::large(family, seed, Mutant::None).run(100) {
            panic!("large {family:?}, seed {seed}: {wrong}");
        }
    }
}

#[test]
fn a_string_is_the_ideal_store_of_what_is_known() {
    is_ideal(Kind::String);
}

#[test]
fn a_hash_is_the_ideal_store_of_what_is_known() {
    is_ideal(Kind::Hash);
}

#[test]
fn a_set_is_the_ideal_store_of_what_is_known() {
    is_ideal(Kind::Set);
}

#[test]
fn a_sorted_set_is_the_ideal_store_of_what_is_known() {
    is_ideal(Kind::Zset);
}

#[test]
fn a_list_is_the_ideal_store_of_what_is_known() {
    is_ideal(Kind::List);
}

/// Asserts that the check fails without each of these rules.
fn needs(family: Kind, mutants: &[Mutant]) {
    for &mutant in mutants {
        let found = first_violation(family, mutant, 400);
        assert!(found.is_some(), "{family:?}: {mutant:?} went unnoticed");
    }
}

#[test]
fn every_rule_of_strings_is_needed() {
    use Mutant::{
        BareBase, BareExpire, BareZero, HintVector, LearnsAll, NoPrev, SameActor, Unlearned,
    };
    let all = [NoPrev, SameActor, HintVector, Unlearned, LearnsAll, BareExpire, BareBase, BareZero];
    needs(Kind::String, &all);
}

#[test]
fn every_rule_of_what_counts_is_needed() {
    use Mutant::{BareBase, BareZero, HintVector, NoPrev, SameActor, SharedDot, Unswept};
    for family in [Kind::Hash, Kind::Zset] {
        needs(family, &[NoPrev, SameActor, HintVector, SharedDot, Unswept, BareBase, BareZero]);
    }
}

#[test]
fn every_rule_of_sets_and_lists_is_needed() {
    use Mutant::{HintVector, NoPrev, SameActor, SharedDot, Unswept};
    for family in [Kind::Set, Kind::List] {
        needs(family, &[NoPrev, SameActor, HintVector, SharedDot, Unswept]);
    }
}

// ---- laws of what was reached -----------------------------------------------------------------------

/// States that replicas of one key reach.
fn reached(family: Kind, seed: u64) -> Vec<Entry> {
    // Some of them large.
    let (mut simulation, steps) = match seed % 5 {
        4 => (Simulation::large(family, seed, Mutant::None), 60),
        _ => (Simulation::of(family, seed, Mutant::None), 150),
    };
    simulation.run(steps).expect("no rule is missing");
    simulation.reached.push(Entry::new());
    simulation.reached
}

#[test]
fn states_of_all_sorts_are_reached() {
    let mut sorts = BTreeSet::new();
    for family in FAMILIES {
        for entry in (0..10).flat_map(|seed| reached(family, seed)) {
            let fields = entry.fields();
            let mut registers = fields.iter().map(|field| &field.register);
            let found = [
                ("a tombstone", entry.is_tombstone()),
                ("a clash of types", entry.kinds(UnixMs(1)).len() > 1),
                ("a single dot", !entry.context().cloud().is_empty()),
                ("a field that ends", registers.clone().any(|r| !r.is_visible(UnixMs(9_999)))),
                ("a count beside a value", registers.any(|r| r.siblings().len() > 1)),
                ("a list of five", fields.iter().filter(|f| f.kind == Kind::List).count() >= 5),
                ("many elements", fields.len() > 60),
            ];
            sorts.extend(found.into_iter().filter(|(_, is_so)| *is_so).map(|(sort, _)| sort));
        }
    }
    assert_eq!(sorts.len(), 7, "only {sorts:?}");
}

/// Calls `judge` with three states of one key, again and again.
fn with_three(family: Kind, mut judge: impl FnMut(&Entry, &Entry, &Entry)) {
    for seed in 0..tries(10) {
        let states = reached(family, seed);
        let mut dice = Dice(seed);
        for _ in 0..60 {
            let mut one = || &states[dice.roll(states.len() as u64) as usize];
            judge(one(), one(), one());
        }
    }
}

#[test]
fn the_join_of_every_type_is_lawful() {
    let pruned = |a: &mut Entry, b: &Entry| {
        a.join(b);
        a.prune_losers();
    };
    let mut broken = BTreeSet::new();
    for family in FAMILIES {
        with_three(family, |a, b, c| {
            assert_eq!(broken_law((a, b, c), Entry::join), None, "{family:?}: {a:?}\n{b:?}\n{c:?}");
            broken.extend(broken_law((a, b, c), pruned));
        });
    }
    assert_eq!(broken.into_iter().collect::<Vec<_>>(), ["associative"], "pruning in the join");
}

#[test]
fn equal_digests_are_equal_live_dots() {
    let (seed, key) = (HashSeed(3), 9);
    for family in FAMILIES {
        with_three(family, |a, b, c| {
            let mut joined = a.clone();
            joined.join(c);
            for (one, other) in [(a, b), (b, &joined), (c, &joined)] {
                let same_live = alive(one) == alive(other);
                assert_eq!(one.digest(seed, key) == other.digest(seed, key), same_live);
                let known = |entry: &Entry| {
                    let (vector, cloud) = (entry.context().vector(), entry.context().cloud());
                    vector.iter().chain(cloud).map(|mark| mark.dot).collect::<Vec<_>>()
                };
                let same_state = one.state_digest(seed, key) == other.state_digest(seed, key);
                assert_eq!(same_state, same_live && known(one) == known(other));
            }
        });
    }
}

/// What a collection answers of its elements is what a plain list of them does.
#[test]
fn elements_are_found_as_in_a_plain_list() {
    let now = UnixMs(40);
    for family in FAMILIES {
        with_three(family, |a, b, _| {
            let mut entry = a.clone();
            entry.join(b);
            entry.prune_losers();
            let Some(view) = entry.view(now).filter(|view| view.kind != Kind::String) else {
                return;
            };
            let fields = view.fields(view.kind).expect("of that type");
            let plain = Fields::listed(view.kind, fields.iter().collect());
            let len = plain.len();
            assert!(fields.iter().eq(plain.iter()) && fields.len() == len);
            for place in 0..=len {
                assert_eq!(fields.at(place), plain.at(place));
                let places = || place..place + 2;
                assert!(fields.range(places()).eq(plain.range(places())));
                assert!(fields.range_back(places()).eq(plain.range_back(places())));
            }
            if view.kind == Kind::List {
                return;
            }
            for (place, element) in plain.iter().enumerate() {
                assert_eq!(fields.get(&element.name), Some(element.clone()));
                assert!(view.kind != Kind::Zset || fields.rank(&element.name) == Some(place));
            }
            for score in (-2..6).map(|at| f64::from(at) * 500.0) {
                for inclusive in [false, true] {
                    let below = plain.count_below(score, inclusive);
                    assert!(
                        view.kind != Kind::Zset || fields.count_below(score, inclusive) == below
                    );
                }
            }
            assert_eq!(walked(&fields).len(), len);
            assert_eq!(walked(&fields), walked(&plain));
        });
    }
}

/// The names that a walk by cursor meets, two at a time.
fn walked(fields: &Fields<'_>) -> BTreeSet<Vec<u8>> {
    let (mut names, mut cursor) = (BTreeSet::new(), 0);
    loop {
        let (met, next) = fields.scan(cursor, 2);
        names.extend(met.into_iter().map(|element| element.name.into_owned()));
        if next == 0 {
            return names;
        }
        assert!(next > cursor, "a cursor rises");
        cursor = next;
    }
}
