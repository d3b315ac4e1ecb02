//! Causality (Dynamo §4.4): dots, version vectors and contexts (pure).

pub mod context;

#[cfg(test)]
pub(crate) mod laws;
