//! The lattice: what a key holds, and how two histories of it join (pure).

pub mod apply;
mod body;
pub mod change;
pub mod digest;
mod edit;
pub mod element;
pub mod entry;
pub mod fields;
pub mod fragment;
pub mod number;
pub mod packed;
pub mod part;
pub mod plain;
pub mod record;
pub mod register;
mod short;
mod single;
pub mod token;
pub mod view;

#[cfg(test)]
mod entry_tests;
#[cfg(test)]
mod merge_rules_tests;
#[cfg(test)]
mod siblings_tests;
#[cfg(test)]
mod simulation;
