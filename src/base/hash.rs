//! Keyed hashes: one for the place of a key, one for the digest of what it holds.
//!
//! All nodes of a cluster share the seed, so that trees and scan cursors mean the same
//! everywhere; it is derived from the cluster's secret, so that strangers cannot aim at a bucket.

use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128_with_seed};

/// The cluster's hash seed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HashSeed(pub u64);

/// A 128-bit digest. Digests of a set add up (wrapping), so a tree can be kept by difference.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Digest(pub u128);

impl Digest {
    /// The digest of nothing; adding it changes nothing.
    pub const NONE: Digest = Digest(0);

    /// The digest of both (of disjoint things).
    #[must_use]
    pub const fn plus(self, other: Digest) -> Digest {
        Digest(self.0.wrapping_add(other.0))
    }

    /// The digest without `other`, which was part of it.
    #[must_use]
    pub const fn minus(self, other: Digest) -> Digest {
        Digest(self.0.wrapping_sub(other.0))
    }
}

impl HashSeed {
    /// Where a key stands: table slot, tree bucket and scan order come from its bits.
    #[inline]
    pub fn key(self, key: &[u8]) -> u64 {
        xxh3_64_with_seed(key, self.0)
    }

    /// The digest of `bytes`.
    #[inline]
    pub fn digest(self, bytes: &[u8]) -> Digest {
        Digest(xxh3_128_with_seed(bytes, self.0))
    }
}
