//! The engine: the keyspace in memory, and the log that it is made of.

mod block;
pub mod disk;
pub mod frame;
pub mod hint;
pub mod keyspace;
mod lane;
pub mod life;
pub mod log;
pub mod place;
#[allow(dead_code, reason = "recovery, compaction and inspection are built on it")]
pub mod scan;
pub mod segment;
pub mod syncer;
mod tide;
#[allow(dead_code, reason = "recovery is built on it")]
mod tail;

#[cfg(test)]
mod keyspace_tests;
#[cfg(test)]
mod log_tests;
