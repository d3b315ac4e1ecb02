//! Strings as rows of bits: SETBIT, GETBIT, BITCOUNT and their kin.
