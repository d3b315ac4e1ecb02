//! Commands: each a row and a pure function (pure).
//!
//! Routing, arity, quorum, ACL category, `COMMAND` and `COMMAND DOCS` all come from the row.

pub mod bitmap;
pub mod bitmap_field;
pub mod blocking;
pub mod chance;
pub mod collection;
pub mod counter;
pub mod docs;
pub mod dump;
pub mod element_scan;
pub mod expiry;
pub mod fault;
pub mod flags;
pub mod glob;
pub mod hash;
pub mod hash_expiry;
pub mod help;
pub mod hyperloglog;
pub mod hyperloglog_sketch;
pub mod introspect;
pub mod key;
pub mod keyspec;
pub mod lcs;
pub mod list;
pub mod list_wait;
pub mod number;
pub mod object;
pub mod range;
pub mod refusal;
pub mod rows;
pub mod scan;
pub mod set;
pub mod set_algebra;
pub mod siblings;
pub mod sort;
pub mod spec;
pub mod string;
pub mod table;
pub mod zset;
pub mod zset_algebra;
pub mod zset_pop;
pub mod zset_range;
pub mod zset_score;

#[cfg(test)]
mod dump_tests;
#[cfg(test)]
mod hash_tests;
#[cfg(test)]
mod hyperloglog_tests;
#[cfg(test)]
mod keyed_tests;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod list_tests;
#[cfg(test)]
mod model;
#[cfg(test)]
mod set_tests;
#[cfg(test)]
mod transcripts;
#[cfg(test)]
mod zset_tests;
