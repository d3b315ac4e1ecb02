//! The runs: seeds that must be clean, mutants that must be found, and one seed replayed.

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
    let all = [Focus::Usual, Focus::Strict, Focus::Losses, Focus::StandIns];
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

/// Every rule is needed: without it something goes wrong within so many seeds.
const NEEDED: &[(Mutant, Focus, u64)] = &[
    (Mutant::NoPrev, Focus::Losses, 400),
    (Mutant::CountsTwice, Focus::Usual, 20),
    (Mutant::NoTombstones, Focus::Losses, 400),
    (Mutant::NoNewBoot, Focus::Losses, 400),
    (Mutant::NotUnsettled, Focus::Usual, 400),
    (Mutant::AckBeforeLog, Focus::Usual, 20),
    (Mutant::ForwardRetried, Focus::Usual, 100),
    (Mutant::NoExchange, Focus::Losses, 400),
    (Mutant::UncertainDenied, Focus::Usual, 20),
];

/// Rules whose absence shows so rarely in whole clusters that only a long run looks for it. What
/// they protect has tests of its own, in which their absence shows at once: `value/simulation.rs`,
/// `coordinator/sim_tests.rs`, `anti_entropy/recovery.rs`, and those of `handoff` and of
/// `peer/stream.rs`.
const RARELY_SEEN: &[(Mutant, Focus, u64)] = &[
    (Mutant::NoWriteBack, Focus::Strict, 20_000),
    (Mutant::RecoveringCounts, Focus::Losses, 20_000),
    (Mutant::NoWholeExchange, Focus::Losses, 20_000),
    (Mutant::SameActor, Focus::Losses, 20_000),
    (Mutant::NoPrecheck, Focus::Strict, 20_000),
    (Mutant::LiveOnly, Focus::Strict, 20_000),
    (Mutant::StreamSkips, Focus::Usual, 20_000),
    (Mutant::HintOneAck, Focus::StandIns, 20_000),
    (Mutant::HintVector, Focus::StandIns, 20_000),
];

#[test]
fn every_rule_is_needed() {
    let all = number("SIM_MUTANT_SEEDS");
    let mut unnoticed = Vec::new();
    // A long run says how many seeds each rule gets, and takes the others, too.
    let rare = if all.is_some() { RARELY_SEEN } else { &[] };
    for &(mutant, focus, seeds) in NEEDED.iter().chain(rare) {
        match first_breach(mutant, focus, all.unwrap_or(seeds)) {
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
        let (once, again) =
            (run(seed, Mutant::None, None, true), run(seed, Mutant::None, None, true));
        assert_eq!(once.trace, again.trace, "seed {seed}");
    }
}
