//! The engine: the keyspace in memory, and the log that it is made of.

mod block;
pub mod disk;
pub mod frame;
pub mod hint;
pub mod keyspace;
pub mod life;
pub mod log;
pub mod place;
pub mod segment;

#[cfg(test)]
mod keyspace_tests;
