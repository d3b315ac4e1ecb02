//! Who is in the cluster and who is reachable: gossip, generations and phi-accrual suspicion (pure).
//!
//! [`gossip`] says who is heard, [`steering`] makes of that and of the links what routing may
//! believe, [`clock`] judges this node's own clock. Suspicion steers routing, never ownership.
//! [`lives`] finds out nodes that have lost their folders.

pub mod clock;
pub mod gossip;
pub mod heartbeat;
pub mod lives;
pub mod phi;
pub mod steering;

#[cfg(test)]
mod gossip_tests;
