//! The Redis wire (RESP2 and RESP3): request scanner, reply encoder, nested replies, reply decoder (pure).

pub mod double;
pub mod inline;
pub mod reply;
pub mod scanner;
