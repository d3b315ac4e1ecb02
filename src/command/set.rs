//! Sets: SADD, SINTER and their kin.
