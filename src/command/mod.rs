//! Commands: each a row and a pure function (pure).
//!
//! Routing, arity, quorum, ACL category, `COMMAND` and `COMMAND DOCS` all come from the row.

pub mod docs;
pub mod flags;
pub mod glob;
pub mod help;
pub mod introspect;
pub mod keyspec;
pub mod refusal;
pub mod rows;
pub mod scan;
pub mod spec;
pub mod table;
