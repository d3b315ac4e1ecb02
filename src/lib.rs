//! Kvorum: a leaderless key-value store in the manner of Dynamo that speaks the Redis protocol.
//!
//! This page is the map of the house. Rooms stand in floors; a room uses only rooms on floors
//! below its own, and rooms of one floor do not know each other. `tests/house` reads the
//! sources and fails when an import runs upward or sideways. Rooms marked *pure* hold no socket,
//! file, task, clock or chance of their own: time and randomness come in as arguments.
//!
//! | floor | rooms |
//! |---|---|
//! | 9 | `main`: the command line |
//! | 8 | [`config`]: flags, environment and file, cut into each room's options |
//! | 7 | [`server`]: the client's door · [`admin`]: the operator's door |
//! | 6 | [`node`]: the shell that holds tasks, clock and wiring; it decides nothing · `simulation`\*: a thin one for tests |
//! | 5 | [`peer`]: node-to-node frames and links |
//! | 4 | [`coordinator`]\*, [`handoff`]\*, [`command`]\*: what to do · [`storage`]: the engine |
//! | 3 | [`value`]\*: the lattice — entry, register, join, digest, change |
//! | 2 | [`membership`]\*, [`anti_entropy`]\*, [`ring`]\*, [`raft`]\*, [`version`]\*, [`resp`]\* |
//! | 1 | [`base`]\*, [`metrics`]\*: ids, moments, limits, wire cursors · counters |

pub mod base;
pub mod metrics;

pub mod anti_entropy;
pub mod membership;
pub mod raft;
pub mod resp;
pub mod ring;
pub mod version;

pub mod value;

pub mod command;
pub mod coordinator;
pub mod handoff;
pub mod storage;

pub mod peer;

pub mod node;
#[cfg(test)]
mod simulation;

pub mod admin;
pub mod server;

pub mod config;
