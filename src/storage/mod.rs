//! The engine: the keyspace in memory.
