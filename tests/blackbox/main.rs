//! Kvorum as its users meet it: real processes, real sockets, real deaths.
//!
//! One binary, so that all of it is linked once and shares one judgement of how many nodes this
//! machine can run at a time.

mod blocking;
mod collections;
mod deaths;
mod durability;
mod handoff;
mod healing;
mod hostile_clients;
mod hostile_peers;
mod linearizability;
mod membership;
mod repair;
mod rows;
mod siblings;
mod streams;
mod support;
mod transcripts;
