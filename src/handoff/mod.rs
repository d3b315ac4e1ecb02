//! Hinted handoff (Dynamo §4.6): what a stand-in keeps for a node that is away (pure).
//!
//! The room is kept empty until sloppy quorums arrive: an outage today means fewer than N copies, never a stand-in.
