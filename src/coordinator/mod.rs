//! The quorum coordinator (Dynamo §4.5): tallies and the read and write machines (pure).
