//! The Redis wire (RESP2 and RESP3): request scanner and reply encoder (pure).

pub mod reply;
