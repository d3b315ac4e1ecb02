//! Consistent hashing (Dynamo §4.2–4.3): slots, vnodes, the planner and the topology document (pure).
//!
//! ```text
//!  key ──CRC16──▶ slot ──run of slots──▶ vnode ──explicit list──▶ replicas
//!   slot.rs                                        │
//!                     planner.rs makes the lists ──┘ topology.rs keeps them
//! ```

pub mod contract;
mod flow;
pub mod member;
pub mod planner;
mod share;
pub mod slot;
pub mod topology;
mod walk;
