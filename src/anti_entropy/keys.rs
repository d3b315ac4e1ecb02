//! Lists of keys, by which two replicas find out which keys of a bucket differ.
//!
//! Invariant: the keys of a list are sorted by hash, each hash stands once, and all lie in the
//! list's span. A side's own list has everything that it holds there; what travels may leave out
//! keys of digest 0 (tombstones), which is also the digest of what is not held at all.
//!
//! ```text
//!  span   buckets {3, 9}, from hash a to hash b        what lies outside is neither said nor asked
//!  ours     ●   ●       ●   ●                          differing = hashes whose digests differ,
//!  theirs   ●       ●   ●   ◐                                      none held being 0
//! ```
//!
//! A list holds a bounded number of keys; a vnode of millions is walked in pieces. A digest is 64 of
//! the 128 bits: two that differ look equal once in 2⁶⁴, and the next exchange finds that pair
//! again. Two keys of one hash are one item, whose digest is the sum.

use crate::base::time::Hlc;

use super::tree::{BucketSet, bucket_of};

/// The most keys of one list.
pub const KEYS_MAX: usize = 4096;

/// A run of keys: those in `buckets` with hashes from `from` to `upto`, both included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// The buckets.
    pub buckets: BucketSet,
    /// The first hash.
    pub from: u64,
    /// The last hash.
    pub upto: u64,
}

impl Span {
    /// Everything in `buckets`.
    pub const fn of(buckets: BucketSet) -> Span {
        Span { buckets, from: 0, upto: u64::MAX }
    }

    /// Whether a key of this hash lies in it.
    pub const fn contains(&self, hash: u64) -> bool {
        self.from <= hash && hash <= self.upto && self.buckets.contains(bucket_of(hash))
    }

    /// The buckets that a key of it may lie in.
    pub fn touched(&self) -> impl Iterator<Item = u8> {
        let (first, last) = (bucket_of(self.from), bucket_of(self.upto));
        self.buckets.iter().filter(move |bucket| (first..=last).contains(bucket))
    }

    /// What is left of it behind `hash`; `None` if that is nothing.
    pub fn behind(&self, hash: u64) -> Option<Span> {
        let from = hash.checked_add(1).filter(|&from| from <= self.upto)?;
        let rest = Span { from, ..*self };
        let first = rest.touched().next()?;
        Some(Span { from: from.max(u64::from(first) << 56), ..rest })
    }

    /// The front of it in which about `wanted` keys lie, if each bucket holds about
    /// `per_bucket`. Hashes are spread evenly, so the guess is a good one.
    #[must_use]
    pub fn front(&self, wanted: usize, per_bucket: usize) -> Span {
        const WIDTH: u128 = 1 << 56;
        let mut left = (wanted as u128 * WIDTH) / per_bucket.max(1) as u128;
        for bucket in self.touched() {
            let start = (u64::from(bucket) << 56).max(self.from);
            let end = ((u64::from(bucket) << 56) | (u64::MAX >> 8)).min(self.upto);
            let width = u128::from(end - start) + 1;
            if width >= left.max(1) {
                return Span { upto: start + (left.max(1) - 1) as u64, ..*self };
            }
            left -= width;
        }
        *self
    }
}

/// What is said of one key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Key {
    /// Its [`HashSeed::key`](crate::base::hash::HashSeed::key).
    pub hash: u64,
    /// What is compared, [folded](super::tree::fold); 0: nothing.
    pub digest: u64,
    /// The greatest timestamp it knows. Travels only when somebody looks (see
    /// [`Scope::Look`](super::message::Scope::Look)).
    pub hlc: Hlc,
}

/// The keys of a span. See the head of this file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyList {
    span: Span,
    keys: Vec<Key>,
    /// Hashes of keys that are compared in parts. Does not travel.
    large: Vec<u64>,
}

impl KeyList {
    /// A list of all keys that were `found` in a span, in any order. If they are more than
    /// `limit`, it ends earlier.
    pub fn new(span: Span, mut found: Vec<Key>, limit: usize) -> KeyList {
        found.sort_unstable_by_key(|key| key.hash);
        found.dedup_by(|next, kept| {
            let same = next.hash == kept.hash;
            if same {
                kept.digest = kept.digest.wrapping_add(next.digest);
                kept.hlc = kept.hlc.max(next.hlc);
            }
            same
        });
        let mut list = KeyList { span, keys: found, large: Vec::new() };
        if let Some(last) = list.keys.get(limit.max(1) - 1).copied()
            && list.keys.len() > limit.max(1)
        {
            list.cut(last.hash);
        }
        list
    }

    /// A list that came from elsewhere; `None` if it is none.
    pub fn checked(span: Span, keys: Vec<Key>) -> Option<KeyList> {
        let rises = keys.windows(2).all(|pair| pair[0].hash < pair[1].hash);
        let inside = keys.iter().all(|key| span.contains(key.hash));
        (rises && inside && span.from <= span.upto).then_some(KeyList {
            span,
            keys,
            large: Vec::new(),
        })
    }

    /// The same, in which the keys of these hashes are large.
    #[must_use]
    pub fn with_large(self, large: Vec<u64>) -> KeyList {
        KeyList { large, ..self }
    }

    /// Whether what this side holds of that hash is large: it is compared in parts.
    pub fn is_large(&self, hash: u64) -> bool {
        self.large.contains(&hash)
    }

    /// Where its keys lie.
    pub const fn span(&self) -> &Span {
        &self.span
    }

    /// Its keys, by hash.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Those of these hashes, which are in order, that it lists.
    pub fn among(&self, hashes: &[u64]) -> Vec<u64> {
        let is_listed = |hash: &&u64| self.keys.binary_search_by_key(*hash, |k| k.hash).is_ok();
        hashes.iter().filter(is_listed).copied().collect()
    }

    /// Ends it at `upto`.
    fn cut(&mut self, upto: u64) {
        self.span.upto = upto;
        self.keys.truncate(self.keys.partition_point(|key| key.hash <= upto));
    }

    /// Compares it with another list that begins at the same hash, as far as both go, and tells of
    /// each hash whose digests differ: `visit(hash, our key, their key)`, as far as they are listed.
    /// Returns the last hash that was compared.
    pub fn differing(
        &self,
        theirs: &KeyList,
        mut visit: impl FnMut(u64, Option<&Key>, Option<&Key>),
    ) -> u64 {
        let upto = self.span.upto.min(theirs.span.upto);
        let within = |list: &KeyList| list.keys.partition_point(|key| key.hash <= upto);
        let (mut ours, mut others) = (&self.keys[..within(self)], &theirs.keys[..within(theirs)]);
        while let Some(hash) = first_hash(ours, others) {
            let (own, other) = (take(&mut ours, hash), take(&mut others, hash));
            let digest = |key: Option<&Key>| key.map_or(0, |key| key.digest);
            if digest(own) != digest(other) {
                visit(hash, own, other);
            }
        }
        upto
    }
}

fn first_hash(ours: &[Key], theirs: &[Key]) -> Option<u64> {
    ours.first().into_iter().chain(theirs.first()).map(|key| key.hash).min()
}

/// Takes the key of this hash off the front, if it stands there.
fn take<'a>(keys: &mut &'a [Key], hash: u64) -> Option<&'a Key> {
    let (first, rest) = keys.split_first().filter(|(first, _)| first.hash == hash)?;
    *keys = rest;
    Some(first)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn set(buckets: &[u8]) -> BucketSet {
        let mut set = BucketSet::NONE;
        buckets.iter().for_each(|&bucket| set.insert(bucket));
        set
    }

    fn hash() -> impl Strategy<Value = u64> {
        (0u64..4, 0u64..6).prop_map(|(bucket, low)| bucket << 56 | low << 53)
    }

    fn found() -> impl Strategy<Value = Vec<Key>> {
        let key = (hash(), 0u64..3, 0u64..9).prop_map(|(hash, digest, hlc)| Key {
            hash,
            digest,
            hlc: Hlc(hlc),
        });
        prop::collection::vec(key, 0..20)
    }

    fn sums(found: &[Key]) -> BTreeMap<u64, u64> {
        let mut sums = BTreeMap::new();
        for key in found {
            *sums.entry(key.hash).or_insert(0) += key.digest;
        }
        sums
    }

    proptest! {
        #[test]
        fn a_list_differs_from_another_exactly_where_their_keys_do(
            ours in found(), theirs in found(), limits in (1usize..9, 1usize..9),
        ) {
            let span = Span::of(BucketSet::ALL);
            let (mine, other) = (sums(&ours), sums(&theirs));
            let ours = KeyList::new(span, ours, limits.0);
            let theirs = KeyList::new(span, theirs, limits.1);
            prop_assert!(ours.keys().len() <= limits.0 && theirs.keys().len() <= limits.1);
            let mut seen = Vec::new();
            let upto = ours.differing(&theirs, |hash, _, _| seen.push(hash));
            let digest = |sums: &BTreeMap<u64, u64>, hash| sums.get(&hash).copied().unwrap_or(0);
            let mut all: Vec<u64> = mine.keys().chain(other.keys()).copied().collect();
            all.sort_unstable();
            all.dedup();
            all.retain(|&hash| hash <= upto && digest(&mine, hash) != digest(&other, hash));
            prop_assert_eq!(seen, all);
            prop_assert!(KeyList::checked(*ours.span(), ours.keys().to_vec()).is_some());
        }

        #[test]
        fn pieces_are_the_whole(
            buckets in any::<[u64; 4]>(), wanted in 0usize..5000, per_bucket in 0usize..5000,
        ) {
            let whole = Span::of(BucketSet::from_words(buckets));
            let mut rest = (!whole.buckets.is_empty()).then_some(whole);
            let mut steps = 0;
            while let Some(span) = rest.filter(|_| steps < 400) {
                let piece = span.front(wanted.max(per_bucket), per_bucket);
                prop_assert!(piece.from == span.from && (span.from..=span.upto).contains(&piece.upto));
                rest = whole.behind(piece.upto);
                // Nothing of it was left out.
                let next = rest.map_or(u64::MAX, |rest| rest.from);
                let between = Span { from: piece.upto.saturating_add(1), upto: next - 1, ..whole };
                prop_assert!(piece.upto >= next || !whole.contains(between.upto) || between.upto < between.from);
                steps += 1;
            }
            prop_assert!(rest.is_none(), "{} steps", steps);
        }
    }

    #[test]
    fn what_is_behind_a_hash_begins_in_the_next_bucket() {
        let span = Span::of(set(&[2, 7]));
        assert_eq!(span.behind(0).map(|rest| rest.from), Some(2 << 56));
        assert_eq!(span.behind(2 << 56).map(|rest| rest.from), Some((2 << 56) + 1));
        assert_eq!(span.behind((3 << 56) - 1).map(|rest| rest.from), Some(7 << 56));
        assert_eq!(span.behind((8 << 56) - 1), None);
        assert_eq!(span.behind(u64::MAX), None);
        assert_eq!(Span::of(BucketSet::NONE).behind(0), None);
    }

    #[test]
    fn a_front_holds_about_what_is_wanted() {
        let span = Span::of(set(&[0, 1, 5]));
        assert_eq!(span.front(300, 100), Span { upto: (6 << 56) - 1, ..span });
        assert_eq!(span.front(301, 100), span);
        assert_eq!(span.front(150, 100).upto, (1 << 56) + (1 << 55) - 1);
        assert_eq!(span.front(0, 100).upto, 0, "always something");
        assert_eq!(span.front(1, 0).upto, (1 << 56) - 1);
    }

    #[test]
    fn foreign_lists_are_checked() {
        let key = |hash| Key { hash, digest: 1, hlc: Hlc(0) };
        let span = Span { buckets: set(&[0]), from: 2, upto: 9 };
        assert!(KeyList::checked(span, vec![key(2), key(9)]).is_some());
        for wrong in [vec![key(1)], vec![key(10)], vec![key(3), key(3)], vec![key(4), key(3)]] {
            assert!(KeyList::checked(span, wrong).is_none());
        }
        assert!(KeyList::checked(Span { from: 3, upto: 2, ..span }, vec![]).is_none());
    }
}
