//! Sorted sets: ZADD, ZRANGE and their kin.
