//! Commands: each a row and a pure function (pure).
//!
//! Routing, arity, quorum, ACL category, `COMMAND` and `COMMAND DOCS` all come from the row.

pub mod counter;
pub mod expiry;
pub mod fault;
pub mod key;
pub mod lcs;
pub mod number;
pub mod object;
pub mod range;
pub mod spec;
pub mod string;

#[cfg(test)]
mod keyed_tests;
#[cfg(test)]
mod model;
#[cfg(test)]
mod transcripts;
