//! The runs: seeds that must be clean, mutants that must be found, and one seed replayed.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::mutants::Mutant;
use super::world::{Report, World};

/// Seeds of the ordinary run.
const SEEDS: u64 = 400;

/// A run; a machine's own assertion is a breach as well.
fn run(seed: u64, mutant: Mutant, tracing: bool) -> Report {
    let world = World::new(seed, mutant, tracing);
    catch_unwind(AssertUnwindSafe(|| world.run())).unwrap_or_else(|_| Report {
        breach: Some("a machine's assertion failed".to_owned()),
        ..Report::default()
    })
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs the seeds from `SIM_FROM` up to `SIM_TO` (a few, if nothing is said), or `SEED` alone.
#[test]
fn seeds() {
    if let Some(seed) = number("SEED") {
        let report = run(seed, Mutant::None, true);
        report.trace.iter().for_each(|line| println!("{line}"));
        println!("{} events, {} writes", report.events, report.writes);
        assert_eq!(report.breach, None, "seed {seed}");
        return;
    }
    let (from, to) = (number("SIM_FROM").unwrap_or(0), number("SIM_TO").unwrap_or(SEEDS));
    let every = number("SIM_EVERY").unwrap_or(u64::MAX);
    let began = std::time::Instant::now();
    let (mut wrong, mut events, mut requests, mut losses) = (0, 0, 0, 0);
    for seed in from..to {
        let report = run(seed, Mutant::None, false);
        events += report.events;
        requests += report.requests;
        losses += report.losses;
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
         {requests} requests, {losses} disks lost"
    );
    assert_eq!(wrong, 0, "of the seeds from {from} to {to}");
}

/// The first seed below `seeds` at which a missing rule shows, and how.
fn first_breach(mutant: Mutant, seeds: u64) -> Option<(u64, String)> {
    (0..seeds).find_map(|seed| Some((seed, run(seed, mutant, false).breach?)))
}

/// Every rule is needed: without it something goes wrong within so many seeds.
const NEEDED: &[(Mutant, u64)] = &[
    (Mutant::SameActor, 1_000),
    (Mutant::NoPrev, 1_000),
    (Mutant::CountsTwice, 1_000),
    (Mutant::NoPrecheck, 1_000),
    (Mutant::NoWriteBack, 1_000),
    (Mutant::LiveOnly, 1_000),
    (Mutant::RecoveringCounts, 1_000),
    (Mutant::NoWholeExchange, 1_000),
    (Mutant::NoTombstones, 1_000),
    (Mutant::NoNewBoot, 1_000),
    (Mutant::NotUnsettled, 1_000),
    (Mutant::AckBeforeLog, 1_000),
    (Mutant::ForwardRetried, 1_000),
    (Mutant::NoExchange, 1_000),
    (Mutant::UncertainDenied, 1_000),
];

#[test]
fn every_rule_is_needed() {
    let all = number("SIM_MUTANT_SEEDS");
    let mut unnoticed = Vec::new();
    for &(mutant, seeds) in NEEDED {
        match first_breach(mutant, all.unwrap_or(seeds)) {
            Some((seed, how)) => println!("{mutant:?}: seed {seed}: {how}"),
            None => unnoticed.push(mutant),
        }
    }
    assert!(unnoticed.is_empty(), "nobody noticed that these were missing: {unnoticed:?}");
}

/// Nothing but the seed decides: not the order of a table, not the machine.
#[test]
fn a_world_is_its_seed() {
    for seed in 0..10 {
        let (once, again) = (run(seed, Mutant::None, true), run(seed, Mutant::None, true));
        assert_eq!(once.trace, again.trace, "seed {seed}");
    }
}
