//! Whole clusters in one thread from one seed (tests only).
//!
//! The machines are the real ones: the lattice and its keyspace, the coordinator's, the exchange's
//! and recovery's. The shell around them is thin, and the network, the disks, the clocks, the
//! clients and the faults are made of one generator's numbers. So every run is its seed: what went
//! wrong once goes wrong again, step by step, and says why.
//!
//! ```text
//!   seed ─► chance ─► workload ─► shell (coordinate, operations, exchanges) ─► check
//!                └──► faults ──► net · disk · clock ──────────┘                  │
//!                                                             breach + trace ◄───┘
//! ```
//!
//! Beside every replica runs a shadow that only collects facts and never joins anything
//! ([`facts`]); what a replica holds must be what its shadow says. What must hold is in [`check`];
//! which rules are taken away, to see that the check finds it, in [`mutants`].
//!
//! `SEED=17 cargo test simulation::tests::seeds` replays one seed and prints its trace;
//! `scripts/sim.sh FROM TO` runs many.

mod chance;
mod check;
mod coordinate;
mod disk;
mod exchanges;
mod facts;
mod faults;
mod frame;
mod handing;
mod ledger;
mod mutants;
mod net;
mod node;
mod operations;
mod plan;
mod shell;
mod streams;
mod unsettled;
mod workload;
mod world;

#[cfg(test)]
mod tests;
