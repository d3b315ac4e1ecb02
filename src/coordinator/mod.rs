//! The quorum coordinator (Dynamo §4.5): tallies and the read and write machines (pure).

pub mod contract;
pub mod gather;
pub mod read;
pub mod route;
pub mod stand_in;
pub mod survey;
pub mod tally;
pub mod waiting;
pub mod write;

#[cfg(test)]
pub(crate) mod linearizable;
#[cfg(test)]
mod machine_tests;
#[cfg(test)]
mod sim_tests;
