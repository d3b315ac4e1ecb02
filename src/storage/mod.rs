//! The engine: the keyspace in memory, and the log that it is made of.

mod block;
mod cooling;
pub mod disk;
pub mod frame;
pub mod keyspace;
mod lane;
pub mod life;
pub mod log;
pub mod place;
mod replay;
#[allow(dead_code, reason = "recovery, compaction and inspection are built on it")]
pub mod scan;
pub mod segment;
pub mod syncer;
#[allow(dead_code, reason = "recovery is built on it")]
mod tail;
mod tide;
pub mod vnode_read;
pub mod vnode_write;
pub mod warming;
mod weight;

#[cfg(test)]
mod keyspace_tests;
#[cfg(test)]
mod log_tests;
