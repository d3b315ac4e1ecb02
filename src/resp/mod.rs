//! The Redis wire (RESP2 and RESP3): request scanner, reply encoder, nested replies, reply decoder (pure).

pub mod decode;
pub mod double;
pub mod inline;
pub mod nested;
pub mod reply;
pub mod scanner;
