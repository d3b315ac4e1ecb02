//! The engine: the keyspace in memory, and the log that it is made of.

mod block;
mod cooling;
pub mod disk;
pub mod frame;
pub mod keyspace;
mod lane;
pub mod life;
pub mod log;
mod lost;
pub mod place;
mod replay;
pub mod segment;
pub mod syncer;
mod tide;
pub mod vnode_read;
pub mod vnode_write;
pub mod warming;
mod weight;

#[cfg(test)]
mod block_tests;
#[cfg(test)]
mod cooling_tests;
#[cfg(test)]
mod disk_tests;
#[cfg(test)]
mod keyspace_tests;
#[cfg(test)]
mod log_tests;
#[cfg(test)]
pub(crate) mod sim_disk;
#[cfg(test)]
mod tiers_tests;
