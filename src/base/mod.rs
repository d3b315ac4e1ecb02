//! Words every room shares: identities, hybrid logical time, limits, wire cursors and keyed hashes (pure).

pub mod float;
pub mod hash;
pub mod id;
pub mod limits;
pub mod size;
pub mod time;
pub mod wire;
