//! The lattice: what a key holds, and how two histories of it join (pure).

pub mod change;
pub mod packed;
pub mod view;
