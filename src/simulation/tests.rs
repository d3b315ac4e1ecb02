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
