//! Lists: LPUSH, LRANGE and their kin.
