//! The operator's door: health, metrics and a status page over HTTP.
//!
//! Kept empty for now; operators use `INFO`, `CLUSTER` and `KV.EXPLAIN` at the client's door.
