//! The engine: the keyspace in memory, and the log that it is made of.

mod block;
pub mod disk;
pub mod frame;
pub mod keyspace;
mod lane;
pub mod life;
pub mod log;
pub mod place;
pub mod segment;
pub mod syncer;
mod tide;

#[cfg(test)]
mod keyspace_tests;
#[cfg(test)]
mod log_tests;
