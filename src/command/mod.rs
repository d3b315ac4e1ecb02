//! Commands: each a row and a pure function (pure).
//!
//! Routing, arity, quorum, ACL category, `COMMAND` and `COMMAND DOCS` all come from the row.

pub mod spec;
