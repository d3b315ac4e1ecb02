//! The engine: the keyspace in memory, and the log that it is made of.

mod block;
pub mod compaction;
pub mod comparing;
mod cooling;
pub mod disk;
mod footprint;
pub mod frame;
mod group;
pub mod hint;
mod hinting;
pub mod inspect;
pub mod keyspace;
mod lane;
pub mod life;
pub mod log;
mod lost;
pub mod met;
pub mod pace;
pub mod place;
mod rebuild;
pub mod recovery;
mod replay;
pub mod scan;
pub mod segment;
pub mod snapshot;
pub mod syncer;
mod tail;
mod tide;
pub mod vnode_read;
pub mod vnode_write;
pub mod warming;
mod weight;

#[cfg(test)]
mod block_tests;
#[cfg(test)]
mod compaction_tests;
#[cfg(test)]
mod cooling_tests;
#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod disk_tests;
#[cfg(test)]
mod hint_tests;
#[cfg(test)]
mod keyspace_tests;
#[cfg(test)]
mod log_tests;
#[cfg(test)]
mod recovery_tests;
#[cfg(test)]
pub(crate) mod sim_disk;
#[cfg(test)]
mod snapshot_tests;
#[cfg(test)]
mod tiers_tests;
