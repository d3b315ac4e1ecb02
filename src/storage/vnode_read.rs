//! Reads of one vnode, whose lock is held.
//!
//! Invariant: a cold key answers as if it were hot wherever its value is not needed: its digests,
//! its end, its length and whether it is there are in memory. Where the value is needed the key is
//! noted as missing, and the answer is void.

use std::ops::Range;

use bytes::BytesMut;
use smallvec::SmallVec;

use crate::base::hash::{Digest, HashSeed};
use crate::base::time::UnixMs;
use crate::value::entry::Entry;
use crate::value::record::{encode_encoded, encode_plain, encode_whole};
use crate::value::view::{Body, Missing, View, Views};

use super::block::{Block, Form, Table, blocks, visit_blocks};
use super::warming::{ColdRecord, Tier};
use super::weight::{Weight, decoded};

/// Reads of one vnode, whose lock is held.
pub struct VnodeRead<'a> {
    pub(super) table: &'a Table,
    pub(super) seed: HashSeed,
    pub(super) now: UnixMs,
    /// Whether looks are noted, for the hand of `cooling`.
    pub(super) visits: bool,
    pub(super) missing: &'a Missing,
}

impl Views for VnodeRead<'_> {
    fn view(&self, key: &[u8]) -> Option<View<'_>> {
        let block = self.find(self.seed.key(key), key)?;
        if self.visits {
            block.visit();
        }
        self.view_of(block)
    }

    fn memory(&self, key: &[u8]) -> Option<usize> {
        let view = self.view(key)?;
        let block = self.find(self.seed.key(key), key)?;
        Some(block.large_ref().map_or(view.memory, Entry::memory))
    }

    fn history(&self, key: &[u8]) -> Option<Entry> {
        if let Some(block) = self.find(self.seed.key(key), key).filter(|_| self.visits) {
            block.visit();
        }
        self.entry(key)
    }

    fn seed(&self) -> HashSeed {
        self.seed
    }
}

impl<'a> VnodeRead<'a> {
    pub(super) fn find(&self, hash: u64, key: &[u8]) -> Option<&'a Block> {
        find(self.table, hash, key)
    }

    pub(super) fn view_of(&self, block: &'a Block) -> Option<View<'a>> {
        if let Some(entry) = block.large_ref() {
            return entry.view(self.now);
        }
        let memory = block.size() + size_of::<Block>();
        let cold = |raw_len: u32| Body::Cold {
            raw_len: raw_len as usize,
            key: block.key(),
            missing: self.missing,
        };
        match block.form() {
            Form::Plain(plain) => plain.view(self.now).map(|view| View { memory, ..view }),
            Form::ColdPlain(stub) => stub.plain.view(self.now).map(|view| View {
                memory,
                body: cold(stub.plain.value.raw_len),
                ..view
            }),
            Form::Entry(bytes) => {
                decoded(bytes).into_view(self.now).map(|view| View { memory, ..view })
            }
            Form::Large(entry) => entry.view(self.now),
            Form::ColdEntry(stub) => {
                let visible = stub.shown && stub.expire_at.is_none_or(|at| at > self.now);
                visible.then(|| View {
                    kind: stub.kind,
                    expire_at: stub.expire_at,
                    memory,
                    body: cold(stub.raw_len),
                })
            }
        }
    }

    /// The keys whose values were asked for and are not in memory; begins anew.
    pub fn missing(&self) -> SmallVec<[Vec<u8>; 1]> {
        self.missing.take()
    }

    /// All that the node holds of `key`, tombstones and expired values included. A cold key is
    /// noted as missing, and nothing is answered.
    pub fn entry(&self, key: &[u8]) -> Option<Entry> {
        match self.find(self.seed.key(key), key)?.form() {
            Form::Plain(plain) => Some(Entry::from_plain(&plain)),
            Form::Entry(bytes) => Some(decoded(bytes)),
            Form::Large(entry) => Some(entry.clone()),
            Form::ColdPlain(_) | Form::ColdEntry(_) => {
                self.missing.note(key);
                None
            }
        }
    }

    /// The digest of all that the node holds of `key`, its history included.
    pub fn state_digest(&self, key: &[u8]) -> Digest {
        let hash = self.seed.key(key);
        self.find(hash, key).map_or(Digest::NONE, |block| state_digest(self.seed, hash, block))
    }

    /// Appends the record of all that the node holds of `key`; `false` if it never heard of it, or
    /// if the key is cold: then it is noted as missing.
    pub fn record(&self, key: &[u8], out: &mut BytesMut) -> bool {
        let Some(block) = self.find(self.seed.key(key), key) else { return false };
        let hot = record_of(block, out);
        if !hot {
            self.missing.note(key);
        }
        hot
    }

    /// Visible keys whose hash has its upper 16 bits in `prefixes`, in no order.
    pub fn scan(&self, prefixes: Range<u32>, mut visit: impl FnMut(&[u8], &View<'_>)) {
        let tags = prefixes.start >> 8..=prefixes.end.saturating_sub(1) >> 8;
        let whole = prefixes.start & 0xFF == 0 && prefixes.end & 0xFF == 0;
        for block in blocks(self.table) {
            if tags.contains(&u32::from(block.tag()))
                && (whole || prefixes.contains(&((self.seed.key(block.key()) >> 48) as u32)))
                && let Some(view) = self.view_of(block)
            {
                visit(block.key(), &view);
            }
        }
    }

    /// Records of everything held (tombstones too) in the buckets of the tree that `wanted` names.
    /// Those that are cold are not visited but returned: see [`Keyspace::fetch`].
    ///
    /// [`Keyspace::fetch`]: super::keyspace::Keyspace::fetch
    pub fn records(
        &self,
        wanted: impl Fn(u8) -> bool,
        mut visit: impl FnMut(&[u8], &[u8]),
    ) -> Vec<ColdRecord> {
        let mut out = BytesMut::new();
        let mut cold = Vec::new();
        for block in blocks(self.table).filter(|block| wanted(block.tag())) {
            out.clear();
            if record_of(block, &mut out) {
                visit(block.key(), &out);
            } else {
                cold.extend(ColdRecord::of(block));
            }
        }
        cold
    }

    /// Keys, state digests and bytes of a frame (about) of everything held whose hash begins with
    /// one of `tags`.
    pub fn states(&self, tags: Range<u16>, mut visit: impl FnMut(&[u8], u64, Digest, usize)) {
        let wanted = |tag| tags.contains(&u16::from(tag));
        visit_blocks(self.table, wanted, |block| {
            let hash = self.seed.key(block.key());
            let stored = Weight::of(self.seed, hash, block).stored;
            visit(block.key(), hash, state_digest(self.seed, hash, block), stored);
        });
    }

    /// Where the value of `key` is.
    pub fn tier(&self, key: &[u8]) -> Tier {
        match self.find(self.seed.key(key), key) {
            None => Tier::None,
            Some(block) if block.is_cold() => Tier::Cold,
            Some(block) => Tier::Hot { visited: block.is_visited() },
        }
    }

    /// Every key with a value, expired ones too.
    pub fn live_keys(&self) -> Vec<Vec<u8>> {
        let live = |block: &&Block| is_alive(&block.form());
        blocks(self.table).filter(live).map(|block| block.key().to_vec()).collect()
    }

    /// How many blocks the vnode holds.
    pub fn held(&self) -> usize {
        self.table.len()
    }

    /// The keys that have expired but still hold a value.
    pub fn expired(&self) -> Vec<Vec<u8>> {
        let due = |block: &&Block| end_of(&block.form()).is_some_and(|at| at <= self.now);
        blocks(self.table).filter(due).map(|block| block.key().to_vec()).collect()
    }
}

pub(super) fn find<'a>(table: &'a Table, hash: u64, key: &[u8]) -> Option<&'a Block> {
    table.get(hash, |(block, _)| block.is(hash, key)).map(|(block, _)| block)
}

/// The digest of all that a block holds, its history included; `hash` is the key's.
pub(super) fn state_digest(seed: HashSeed, hash: u64, block: &Block) -> Digest {
    match block.form() {
        Form::Plain(plain) => plain.state_digest(seed, hash),
        Form::ColdPlain(stub) => stub.plain.state_digest(seed, hash),
        Form::Entry(bytes) => decoded(bytes).state_digest(seed, hash),
        Form::Large(entry) => entry.state_digest(seed, hash),
        Form::ColdEntry(stub) => stub.state_digest,
    }
}

/// Whether anything in it is alive, seen or not.
pub(super) fn is_alive(form: &Form<'_>) -> bool {
    match form {
        Form::Plain(_) | Form::ColdPlain(_) => true,
        Form::Entry(bytes) => decoded(bytes).is_live(),
        Form::Large(entry) => entry.is_live(),
        Form::ColdEntry(stub) => stub.alive,
    }
}

/// When what it holds expires.
pub(super) fn end_of(form: &Form<'_>) -> Option<UnixMs> {
    match form {
        Form::Plain(plain) => plain.expire_at,
        Form::ColdPlain(stub) => stub.plain.expire_at,
        Form::Entry(bytes) => decoded(bytes).visible(UnixMs(0)).and_then(|(_, at)| at),
        Form::Large(entry) => entry.visible(UnixMs(0)).and_then(|(_, at)| at),
        Form::ColdEntry(stub) => stub.expire_at,
    }
}

/// Appends the record of all that a block holds; `false` if it is cold.
pub(super) fn record_of(block: &Block, out: &mut BytesMut) -> bool {
    match block.form() {
        Form::Plain(plain) => encode_plain(out, block.key(), &plain),
        Form::Entry(bytes) => encode_encoded(out, block.key(), bytes),
        Form::Large(entry) => encode_whole(out, block.key(), entry),
        Form::ColdPlain(_) | Form::ColdEntry(_) => return false,
    }
    true
}
