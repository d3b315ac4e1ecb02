//! The consensus core that will carry the topology document and CP keyspaces (pure).
//!
//! The room is kept empty until then: nothing below or above may grow its own consensus.
