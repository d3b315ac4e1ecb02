//! Counters and gauges of one node: plain atomics that any room above may bump (pure).

pub mod counters;
