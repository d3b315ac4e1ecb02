//! The hash tree of one vnode: 256 buckets of added-up digests, and their sum as the root.
//!
//! Invariant: the tree is the one that would be computed afresh from the entries; so two replicas
//! have equal roots exactly when they have equal live contents (digests being 128 keyed bits).
//!
//! ```text
//!   key hash:  bbbbbbbb ........ (48 more bits)
//!              └──┬───┘
//!               bucket (top 8 bits)        root = Σ bucket   bucket = Σ digest of its entries
//! ```
//!
//! The scan order is the top 16 bits of the same hash, so a bucket is one run of 256 scan places,
//! and its entries are found without walking the whole vnode.
//!
//! Two levels, not Dynamo's many: a vnode is small, and a sum can be kept by difference under the
//! lock that the change takes anyway, where hashes of hashes would have to be rebuilt. A digest
//! must cover its key, or two keys of a bucket could swap contents unseen; it is keyed, so nobody
//! can make entries that cancel out. Tombstones have no digest: [`Digest::NONE`] adds nothing.

use crate::base::hash::Digest;

/// Buckets of a tree.
pub const BUCKETS: usize = 256;

/// The sums of a tree's buckets, folded.
pub type Sums = Box<[u64; BUCKETS]>;

/// The half of a digest that travels.
pub const fn fold(digest: Digest) -> u64 {
    digest.0 as u64
}

/// The hash tree of one vnode: 4 KiB and a root.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tree {
    root: Digest,
    buckets: Box<[Digest; BUCKETS]>,
}

impl Default for Tree {
    fn default() -> Tree {
        Tree { root: Digest::NONE, buckets: Box::new([Digest::NONE; BUCKETS]) }
    }
}

/// The bucket of a key, by its [`HashSeed::key`](crate::base::hash::HashSeed::key).
pub const fn bucket_of(key_hash: u64) -> u8 {
    (key_hash >> 56) as u8
}

impl Tree {
    /// The tree of an empty vnode.
    pub fn new() -> Tree {
        Tree::default()
    }

    /// The tree with these sums of buckets.
    pub fn of(buckets: Box<[Digest; BUCKETS]>) -> Tree {
        let root = buckets.iter().fold(Digest::NONE, |sum, bucket| sum.plus(*bucket));
        Tree { root, buckets }
    }

    /// An entry with this digest came.
    pub fn add(&mut self, key_hash: u64, digest: Digest) {
        self.replace(key_hash, Digest::NONE, digest);
    }

    /// An entry with this digest went.
    pub fn remove(&mut self, key_hash: u64, digest: Digest) {
        self.replace(key_hash, digest, Digest::NONE);
    }

    /// An entry's digest changed from `old` to `new`.
    pub fn replace(&mut self, key_hash: u64, old: Digest, new: Digest) {
        let bucket = &mut self.buckets[usize::from(bucket_of(key_hash))];
        *bucket = bucket.minus(old).plus(new);
        self.root = self.root.minus(old).plus(new);
    }

    /// Puts `sums` in the stead of the sums of `wanted`; how many of them were others.
    pub fn mend(&mut self, wanted: BucketSet, sums: &[Digest; BUCKETS]) -> usize {
        let mut wrong = 0;
        for at in wanted.iter().map(usize::from) {
            wrong += usize::from(self.buckets[at] != sums[at]);
            self.root = self.root.minus(self.buckets[at]).plus(sums[at]);
            self.buckets[at] = sums[at];
        }
        wrong
    }

    /// The sum of everything.
    pub const fn root(&self) -> Digest {
        self.root
    }

    /// The sums of the buckets.
    pub const fn buckets(&self) -> &[Digest; BUCKETS] {
        &self.buckets
    }

    /// The sums of the buckets as they travel: 64 bits of each. Two that differ look equal once in
    /// 2⁶⁴, and then the roots still tell that something differs.
    pub fn sums(&self) -> Sums {
        let mut sums: Sums = Box::new([0; BUCKETS]);
        for (sum, bucket) in sums.iter_mut().zip(self.buckets.iter()) {
            *sum = fold(*bucket);
        }
        sums
    }

    /// The buckets in which the other tree, whose sums are `theirs`, differs.
    pub fn differing(&self, theirs: &Sums) -> BucketSet {
        let mut set = BucketSet::NONE;
        for bucket in 0..=u8::MAX {
            let at = usize::from(bucket);
            if fold(self.buckets[at]) != theirs[at] {
                set.insert(bucket);
            }
        }
        set
    }
}

/// A set of buckets: one bit each, bucket 0 the lowest of the first word.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BucketSet([u64; 4]);

impl BucketSet {
    /// No bucket.
    pub const NONE: BucketSet = BucketSet([0; 4]);

    /// Every bucket.
    pub const ALL: BucketSet = BucketSet([u64::MAX; 4]);

    /// The set with these bits.
    pub const fn from_words(words: [u64; 4]) -> BucketSet {
        BucketSet(words)
    }

    /// Its bits.
    pub const fn words(self) -> [u64; 4] {
        self.0
    }

    /// Takes `bucket` in.
    pub fn insert(&mut self, bucket: u8) {
        self.0[usize::from(bucket >> 6)] |= 1 << (bucket & 63);
    }

    /// Whether `bucket` is in it.
    pub const fn contains(self, bucket: u8) -> bool {
        self.0[(bucket >> 6) as usize] >> (bucket & 63) & 1 == 1
    }

    /// How many buckets are in it.
    pub fn len(self) -> u16 {
        self.0.iter().map(|word| word.count_ones() as u16).sum()
    }

    /// Whether no bucket is in it.
    pub fn is_empty(self) -> bool {
        self == BucketSet::NONE
    }

    /// Its buckets, in order: the scan order of their keys.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        (0..=u8::MAX).filter(move |&bucket| self.contains(bucket))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// What a vnode holds: key hash → digest; a tombstone has none.
    type Vnode = BTreeMap<u64, Digest>;

    fn afresh(vnode: &Vnode) -> Tree {
        let mut tree = Tree::new();
        for (&key_hash, &digest) in vnode {
            tree.add(key_hash, digest);
        }
        tree
    }

    /// Few keys, so that they are often written again; digest 0 stands for a delete.
    fn writes() -> impl Strategy<Value = Vec<(u64, u128)>> {
        let key = (0u64..6, 0u64..4).prop_map(|(bucket, key)| bucket << 56 | key);
        let digest = prop_oneof![1 => Just(0u128), 3 => 0u128..4, 2 => any::<u128>()];
        prop::collection::vec((key, digest), 0..40)
    }

    fn write(vnode: &mut Vnode, tree: &mut Tree, (key, digest): (u64, u128)) {
        let new = Digest(digest);
        let old = vnode.insert(key, new).unwrap_or(Digest::NONE);
        tree.replace(key, old, new);
    }

    fn live(vnode: &Vnode) -> Vec<(u64, Digest)> {
        vnode.iter().filter(|(_, d)| **d != Digest::NONE).map(|(k, d)| (*k, *d)).collect()
    }

    proptest! {
        #[test]
        fn kept_by_difference_it_is_the_tree_computed_afresh(all in writes()) {
            let (mut vnode, mut tree) = (Vnode::new(), Tree::new());
            for one in all {
                write(&mut vnode, &mut tree, one);
                prop_assert_eq!(&tree, &afresh(&vnode));
                let sum = tree.buckets().iter().fold(Digest::NONE, |sum, d| sum.plus(*d));
                prop_assert_eq!(sum, tree.root());
            }
            for (key, digest) in vnode {
                tree.remove(key, digest);
            }
            prop_assert_eq!(tree, Tree::new());
        }

        /// Digests here are the real ones: keyed hashes over key and content.
        #[test]
        fn equal_live_contents_are_equal_roots_and_only_they(ours in writes(), theirs in writes()) {
            let seed = crate::base::hash::HashSeed(7);
            let of = |writes: Vec<(u64, u128)>| {
                let (mut vnode, mut tree) = (Vnode::new(), Tree::new());
                for (key, content) in writes {
                    let bytes = [key.to_le_bytes().as_slice(), &content.to_le_bytes()].concat();
                    let digest = if content == 0 { 0 } else { seed.digest(&bytes).0 };
                    write(&mut vnode, &mut tree, (key, digest));
                }
                (vnode, tree)
            };
            let ((ours, our_tree), (theirs, their_tree)) = (of(ours), of(theirs));
            let same = live(&ours) == live(&theirs);
            prop_assert_eq!(same, our_tree.root() == their_tree.root());
            let differing = our_tree.differing(&their_tree.sums());
            prop_assert_eq!(same, differing.is_empty());
            for bucket in 0..=u8::MAX {
                let part = |vnode: &Vnode| {
                    let mut part = live(vnode);
                    part.retain(|(key, _)| bucket_of(*key) == bucket);
                    part
                };
                prop_assert_eq!(part(&ours) != part(&theirs), differing.contains(bucket));
            }
        }

        #[test]
        fn a_bucket_set_is_a_set(buckets in prop::collection::btree_set(any::<u8>(), 0..20)) {
            let mut set = BucketSet::NONE;
            for &bucket in &buckets {
                set.insert(bucket);
            }
            prop_assert_eq!(usize::from(set.len()), buckets.len());
            prop_assert_eq!(set.is_empty(), buckets.is_empty());
            prop_assert!(set.iter().eq(buckets.iter().copied()));
            prop_assert_eq!(BucketSet::from_words(set.words()), set);
        }
    }

    #[test]
    fn the_top_eight_bits_are_the_bucket() {
        assert_eq!(bucket_of(0xAB00_0000_0000_0000), 0xAB);
        assert_eq!(bucket_of(0x00FF_FFFF_FFFF_FFFF), 0);
        assert_eq!(BucketSet::ALL.len(), 256);
    }
}
