//! Who is in the cluster and who is reachable: gossip, generations and phi-accrual suspicion (pure).
//!
//! Routing today leaves a node when its link is refused or broken; the gossip machine moves in here.
