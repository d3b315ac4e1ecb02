//! Hashes: HSET, HGET and their kin.
