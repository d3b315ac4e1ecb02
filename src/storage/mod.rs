//! The engine: the keyspace in memory.
//!
//! Segments, recovery, compaction and cold values will live beside it.

mod block;
pub mod keyspace;
pub mod life;

#[cfg(test)]
mod keyspace_tests;
