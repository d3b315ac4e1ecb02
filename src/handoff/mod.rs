//! Hinted handoff (Dynamo §4.6): what a stand-in keeps for replicas that are away, and how it is
//! brought to them without their clients feeling it (pure).

pub mod machine;
pub mod pace;

#[cfg(test)]
mod sim_tests;
