//! Repair of lasting differences (Dynamo §4.7): hash trees and the exchange that walks two of them (pure).

pub mod exchange;
pub mod keys;
pub mod message;
pub mod parts;
pub mod recovery;
pub mod schedule;
pub mod tree;
