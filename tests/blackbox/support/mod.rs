//! What the black-box tests share: processes, a client, transcripts, a judge of histories.
//!
//! Nothing here knows the crate: Kvorum is only ever a program, its ports and its exit status.

pub(crate) mod client;
pub(crate) mod cluster;
pub(crate) mod divergence;
pub(crate) mod filler;
pub(crate) mod linearizable;
pub(crate) mod links;
pub(crate) mod load;
pub(crate) mod poll;
pub(crate) mod transcript;
pub(crate) mod volume;
