//! What an exchange asks of a vnode: sums and lists of its keys, and the records of some.
//!
//! Invariant: no value is read from disk in order to compare. What a cold key's digests are is in
//! memory; only records that are to be sent are fetched, and by the caller.
//!
//! A table stands in no order, so each look walks its slots: eight bytes a key, most of which are
//! passed over by the tag in the slot (the key's bucket), without touching the block. Each look
//! takes a bounded number of keys, since it holds the vnode's lock.

use bytes::BytesMut;

use crate::anti_entropy::keys::{Key, KeyList, Span};
use crate::anti_entropy::message::Scope;
use crate::anti_entropy::tree::{BUCKETS, BucketSet, fold};
use crate::base::hash::{Digest, HashSeed};
use crate::base::id::VnodeId;
use crate::base::time::{Hlc, UnixMs};
use crate::value::entry::Entry;

use super::block::{
    Block, FETCHED_AT_ONCE, Form, prefetch_block, prefetch_place, tag_of, visit_blocks,
};
use super::keyspace::Keyspace;
use super::vnode_read::{VnodeRead, record_of, state_digest};
use super::warming::ColdRecord;
use super::weight::decoded;

/// Keys whose digests are worked out under one lock.
pub const DIGESTS_AT_ONCE: usize = 8192;

/// Collections of fewer elements are sent whole where they differ.
const PARTS_LEN_MIN: usize = 1_000;

impl VnodeRead<'_> {
    /// Adds to `sums` what `scope` compares of each key in `buckets`.
    pub fn add_sums(&self, scope: Scope, buckets: BucketSet, sums: &mut [Digest; BUCKETS]) {
        self.for_each(buckets, |hash, block| {
            let sum = &mut sums[usize::from(block.tag())];
            *sum = sum.plus(self.digest_of(scope, hash, block));
        });
    }

    /// The first keys of a span, by hash: about `limit`, never more.
    pub fn list(&self, scope: Scope, span: Span, limit: usize) -> KeyList {
        // A guess may be a little too low, but too much is collected for nothing.
        let front = span.front(limit - limit / 16, self.table.len().div_ceil(BUCKETS));
        let mut touched = BucketSet::NONE;
        front.touched().for_each(|bucket| touched.insert(bucket));
        let (mut found, mut large) = (Vec::new(), Vec::new());
        self.for_each(touched, |hash, block| {
            if !front.contains(hash) {
                return;
            }
            let digest = fold(self.digest_of(scope, hash, block));
            let hlc = if scope == Scope::Look { hlc_of(block) } else { Hlc::ZERO };
            found.push(Key { hash, digest, hlc });
            if matches!(block.form(), Form::Large(entry) if goes_in_parts(entry)) {
                large.push(hash);
            }
        });
        KeyList::new(front, found, limit).with_large(large)
    }

    /// The only key of this hash and what it holds, if that is compared in parts.
    pub fn in_parts(&self, hash: u64) -> Option<(&[u8], &Entry)> {
        let is_it =
            |block: &Block| block.tag() == tag_of(hash) && self.seed.key(block.key()) == hash;
        let mut found = 0;
        self.table.get(hash, |(block, _)| {
            found += usize::from(is_it(block));
            false
        });
        let (block, _) = self.table.get(hash, |(block, _)| found == 1 && is_it(block))?;
        match block.form() {
            Form::Large(entry) if goes_in_parts(entry) => Some((block.key(), entry)),
            _ => None,
        }
    }

    /// Visits the records of all keys with these hashes, tombstones too. Those that are cold are
    /// not visited but returned: see [`Keyspace::fetch`].
    pub fn records_of(&self, hashes: &[u64], mut visit: impl FnMut(&[u8])) -> Vec<ColdRecord> {
        let mut out = BytesMut::new();
        let mut cold = Vec::new();
        for hashes in hashes.chunks(FETCHED_AT_ONCE) {
            hashes.iter().for_each(|&hash| prefetch_place(self.table, hash));
            hashes.iter().for_each(|&hash| prefetch_block(self.table, hash));
            for &hash in hashes {
                self.table.get(hash, |(block, _)| {
                    if block.tag() == tag_of(hash) && self.seed.key(block.key()) == hash {
                        out.clear();
                        if record_of(block, &mut out) {
                            visit(&out);
                        } else {
                            cold.extend(ColdRecord::of(block));
                        }
                    }
                    // There may be another of the same hash.
                    false
                });
            }
        }
        cold
    }

    fn for_each(&self, buckets: BucketSet, mut visit: impl FnMut(u64, &Block)) {
        let wanted = |tag| buckets.contains(tag);
        visit_blocks(self.table, wanted, |block| visit(self.seed.key(block.key()), block));
    }

    fn digest_of(&self, scope: Scope, hash: u64, block: &Block) -> Digest {
        if scope.compares_states() {
            state_digest(self.seed, hash, block)
        } else {
            live_digest(self.seed, hash, block)
        }
    }
}

/// Whether an entry is so large that an exchange compares it in parts.
fn goes_in_parts(entry: &Entry) -> bool {
    entry.only_large().is_some_and(|(_, len)| len >= PARTS_LEN_MIN)
}

/// The digest of what is alive in a block.
fn live_digest(seed: HashSeed, hash: u64, block: &Block) -> Digest {
    match block.form() {
        Form::Plain(plain) => plain.digest(seed, hash),
        Form::ColdPlain(stub) => stub.plain.digest(seed, hash),
        Form::Entry(bytes) => decoded(bytes).digest(seed, hash),
        Form::Large(entry) => entry.digest(seed, hash),
        Form::ColdEntry(stub) => stub.digest,
    }
}

/// The greatest timestamp that a block knows.
fn hlc_of(block: &Block) -> Hlc {
    match block.form() {
        Form::Plain(plain) => plain.hlc_max(),
        Form::ColdPlain(stub) => stub.plain.hlc_max(),
        Form::Entry(bytes) => decoded(bytes).hlc_max(),
        Form::Large(entry) => entry.hlc_max(),
        Form::ColdEntry(stub) => stub.hlc_max,
    }
}

impl Keyspace {
    /// All buckets, in groups of about [`DIGESTS_AT_ONCE`] keys of this vnode.
    pub fn bucket_groups(&self, vnode: VnodeId) -> Vec<BucketSet> {
        let per_bucket = self.counts(vnode).held / BUCKETS;
        let at_once = (DIGESTS_AT_ONCE / per_bucket.max(1)).clamp(1, BUCKETS);
        let all: Vec<u8> = BucketSet::ALL.iter().collect();
        let group = |some: &[u8]| {
            let mut group = BucketSet::NONE;
            some.iter().for_each(|&bucket| group.insert(bucket));
            group
        };
        all.chunks(at_once).map(group).collect()
    }

    /// Works the sums of `buckets` out anew and puts them into the vnode's tree. Returns how many
    /// were wrong, which no bucket ever should be.
    pub fn mend_tree(&self, vnode: VnodeId, buckets: BucketSet) -> usize {
        let mut sums = Box::new([Digest::NONE; BUCKETS]);
        self.read(vnode, UnixMs(0), |keys| {
            keys.add_sums(Scope::Differing, buckets, &mut sums);
            // Who changes keys holds the table's lock, too: they are the same moment's.
            self.vnodes[vnode.index()].lock().tree.mend(buckets, &sums)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::collections::BTreeMap;

    use crate::anti_entropy::tree::bucket_of;
    use crate::base::id::{Actor, Boot, NodeId};
    use crate::value::change::{Change, Expire};
    use crate::value::record;

    use super::*;

    const VNODE: VnodeId = VnodeId(1);
    const NOW: UnixMs = UnixMs(1_000);

    fn keyspace(keys: u32) -> Keyspace {
        let keyspace = Keyspace::new(2, HashSeed(5));
        let mut out = BytesMut::new();
        let mut apply = |key: &str, change: &Change<'_>, node: u16| {
            let actor = Actor::new(NodeId(node), Boot(1));
            keyspace.write(VNODE, NOW, |vnode| {
                vnode.apply(key.as_bytes(), change, actor, &mut out).expect("applies");
            });
        };
        for key in 0..keys {
            let name = format!("key:{key}");
            let value = Cow::Owned(name.clone().into_bytes());
            apply(&name, &Change::Put { value, expire: Expire::Clear }, 1);
            if key % 5 == 0 {
                apply(&name, &Change::Delete, 2);
            }
        }
        keyspace
    }

    fn whole_list(keyspace: &Keyspace, scope: Scope, limit: usize) -> Vec<Key> {
        let whole = Span::of(BucketSet::ALL);
        let (mut all, mut rest) = (Vec::new(), Some(whole));
        while let Some(span) = rest {
            let list = keyspace.read(VNODE, NOW, |keys| keys.list(scope, span, limit));
            assert!(list.keys().len() <= limit && list.span().from == span.from);
            all.extend_from_slice(list.keys());
            rest = whole.behind(list.span().upto);
        }
        all
    }

    #[test]
    fn lists_in_pieces_are_the_whole_and_add_up_to_the_tree() {
        let keyspace = keyspace(3_000);
        for limit in [7, 100, 4_096] {
            let live = whole_list(&keyspace, Scope::Differing, limit);
            assert_eq!(live.len(), 3_000);
            assert_eq!(live.iter().filter(|key| key.digest == 0).count(), 600);
            let mut sums = [0u64; BUCKETS];
            for key in &live {
                let sum = &mut sums[usize::from(bucket_of(key.hash))];
                *sum = sum.wrapping_add(key.digest);
            }
            assert_eq!(keyspace.tree(VNODE, |tree| *tree.sums()), sums);
            assert_eq!(whole_list(&keyspace, Scope::Whole, limit).len(), 3_000);
            let look = whole_list(&keyspace, Scope::Look, limit);
            assert_eq!(look.len(), 3_000);
            assert!(look.iter().all(|key| key.hlc != Hlc::ZERO));
            assert_eq!(look.iter().filter(|key| key.digest == 0).count(), 600);
        }
    }

    #[test]
    fn records_are_found_by_hash() {
        let keyspace = keyspace(100);
        let mut hashes: Vec<u64> =
            whole_list(&keyspace, Scope::Whole, 50).iter().map(|key| key.hash).collect();
        hashes.truncate(40);
        let mut found = BTreeMap::new();
        keyspace.read(VNODE, NOW, |keys| {
            let cold = keys.records_of(&hashes, |bytes| {
                let key = record::decode_key(bytes).expect("a record");
                found.insert(keyspace.seed().key(key), ());
            });
            assert!(cold.is_empty());
            assert!(keys.records_of(&[1, 2, 3], |_| panic!("nobody is called so")).is_empty());
        });
        assert_eq!(found.into_keys().collect::<Vec<_>>(), hashes);
    }

    #[test]
    fn a_tree_that_is_right_is_left_alone_and_one_that_is_wrong_is_mended() {
        let keyspace = keyspace(500);
        let right = keyspace.tree(VNODE, Clone::clone);
        for group in keyspace.bucket_groups(VNODE) {
            assert_eq!(keyspace.mend_tree(VNODE, group), 0);
        }
        keyspace.vnodes[VNODE.index()].lock().tree.add(9 << 56, Digest(77));
        let wrong: usize =
            keyspace.bucket_groups(VNODE).iter().map(|&set| keyspace.mend_tree(VNODE, set)).sum();
        assert_eq!(wrong, 1);
        assert_eq!(keyspace.tree(VNODE, Clone::clone), right);
    }

    #[test]
    fn large_vnodes_are_looked_at_in_groups() {
        let keyspace = keyspace(3);
        assert_eq!(keyspace.bucket_groups(VNODE), [BucketSet::ALL]);
    }
}
