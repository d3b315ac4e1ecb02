//! The runs: seeds that must be clean, mutants that must be found, and one seed replayed.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::ledger::Happened;
use super::mutants::Mutant;
use super::plan::Focus;
use super::world::{Report, World};

/// Seeds of the ordinary run.
const SEEDS: u64 = 400;

/// A run; a machine's own assertion is a breach as well.
fn run(seed: u64, mutant: Mutant, focus: Option<Focus>, tracing: bool) -> Report {
    let world = World::new(seed, mutant, focus, tracing);
    catch_unwind(AssertUnwindSafe(|| world.run())).unwrap_or_else(|_| Report {
        breach: Some("a machine's assertion failed".to_owned()),
        ..Report::default()
    })
}

/// The kind of world that `SIM_FOCUS` names, if it names one; else the seed draws it.
fn focus() -> Option<Focus> {
    let all = [Focus::Usual, Focus::Strict, Focus::Losses, Focus::StandIns, Focus::Removals];
    let named = std::env::var("SIM_FOCUS").ok()?;
    all.into_iter().find(|focus| format!("{focus:?}") == named)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs the seeds from `SIM_FROM` up to `SIM_TO` (a few, if nothing is said), or `SEED` alone.
#[test]
fn seeds() {
    if let Some(seed) = number("SEED") {
        let report = run(seed, Mutant::None, focus(), true);
        report.trace.iter().for_each(|line| println!("{line}"));
        println!("{} events, {} writes", report.events, report.writes);
        assert_eq!(report.breach, None, "seed {seed}");
        return;
    }
    let (from, to) = (number("SIM_FROM").unwrap_or(0), number("SIM_TO").unwrap_or(SEEDS));
    let every = number("SIM_EVERY").unwrap_or(u64::MAX);
    let began = std::time::Instant::now();
    let (mut wrong, mut events, mut requests) = (0, 0, 0);
    let mut happened = Happened::default();
    for seed in from..to {
        let report = run(seed, Mutant::None, focus(), false);
        events += report.events;
        requests += report.requests;
        happened.add(&report.happened);
        if let Some(breach) = report.breach {
            wrong += 1;
            println!("seed {seed}: {breach}");
            println!(
                "  replay: SEED={seed} cargo test --lib simulation::tests::seeds -- --nocapture"
            );
        }
        if (seed + 1 - from).is_multiple_of(every) {
            println!("sim: {} seeds from {from}, {wrong} wrong", seed + 1 - from);
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let rate = (to - from) as f64 / seconds;
    println!(
        "sim: seeds {from} to {to}: {wrong} wrong, {rate:.0} seeds/s, {events} events, \
         {requests} requests; {happened:?}"
    );
    assert_eq!(wrong, 0, "of the seeds from {from} to {to}");
}

/// The first seed below `seeds` at which a missing rule shows, and how.
fn first_breach(mutant: Mutant, focus: Focus, seeds: u64) -> Option<(u64, String)> {
    (0..seeds).find_map(|seed| Some((seed, run(seed, mutant, Some(focus), false).breach?)))
}

/// Every rule is needed: without it something goes wrong within so many seeds of such worlds.
const NEEDED: &[(Mutant, Focus, u64)] = &[
    (Mutant::SameActor, Focus::Losses, 4_000),
    (Mutant::NoPrev, Focus::Losses, 400),
    (Mutant::CountsTwice, Focus::Usual, 20),
    (Mutant::NoPrecheck, Focus::Strict, 4_000),
    (Mutant::NoWriteBack, Focus::Strict, 400),
    (Mutant::LiveOnly, Focus::Removals, 1_000),
    (Mutant::RecoveringCounts, Focus::Losses, 20),
    (Mutant::NoWholeExchange, Focus::Losses, 50),
    (Mutant::NoTombstones, Focus::Losses, 400),
    (Mutant::NoNewBoot, Focus::Losses, 400),
    (Mutant::MetInMemory, Focus::Losses, 400),
    (Mutant::NumbersForMarks, Focus::Losses, 20),
    (Mutant::UnmetCounts, Focus::Losses, 20),
    (Mutant::MendingForgotten, Focus::Losses, 50),
    (Mutant::NotUnsettled, Focus::Usual, 400),
    (Mutant::AckBeforeLog, Focus::Usual, 20),
    (Mutant::ForwardRetried, Focus::Usual, 100),
    (Mutant::NoExchange, Focus::Losses, 400),
    (Mutant::StreamSkips, Focus::Usual, 20),
    (Mutant::HintOneAck, Focus::StandIns, 100),
    (Mutant::HintVector, Focus::StandIns, 4_000),
    (Mutant::TimedCollection, Focus::Usual, 50),
    (Mutant::UncertainDenied, Focus::Usual, 20),
];

/// Prints the table of what each rule's absence did, and when it was noticed.
#[test]
fn every_rule_is_needed() {
    let rules: BTreeSet<usize> = NEEDED.iter().map(|&(mutant, ..)| mutant as usize).collect();
    assert_eq!(rules, (1..=Mutant::LAST as usize).collect(), "each rule has its line");
    let most = number("SIM_MUTANT_SEEDS");
    let mut unnoticed = Vec::new();
    println!("{:17} {:9} {:>6} {:>6}  how", "without", "worlds", "within", "seed");
    for &(mutant, focus, within) in NEEDED {
        let breach = first_breach(mutant, focus, most.unwrap_or(within));
        let (seed, how) = breach.map_or(("-".to_owned(), String::new()), |(seed, how)| {
            (seed.to_string(), how.chars().take(90).collect())
        });
        let (name, worlds) = (format!("{mutant:?}"), format!("{focus:?}"));
        println!("{name:17} {worlds:9} {within:>6} {seed:>6}  {how}");
        unnoticed.extend((seed == "-").then_some(mutant));
    }
    assert!(unnoticed.is_empty(), "nobody noticed that these were missing: {unnoticed:?}");
}

/// Nothing but the seed decides: not the order of a table, not the machine.
#[test]
fn a_world_is_its_seed() {
    for seed in 0..10 {
        let (once, again) =
            (run(seed, Mutant::None, None, true), run(seed, Mutant::None, None, true));
        assert_eq!(once.trace, again.trace, "seed {seed}");
    }
}
