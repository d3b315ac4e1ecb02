//! What one block adds to its vnode's sums.

use crate::base::hash::{Digest, HashSeed};
use crate::base::time::UnixMs;
use crate::value::entry::Entry;
use crate::value::plain::Plain;
use crate::value::record::{encoded_size, plain_size};

use super::block::{Block, ColdEntry, Form};
use super::footprint::Footprint;
use super::frame::HEADER_SIZE;

/// What a block adds to its vnode's sums.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Weight {
    /// What stands in the tree for it.
    pub(super) digest: Digest,
    /// Whether it holds a value, expired or not.
    pub(super) live: bool,
    /// When its value expires.
    pub(super) expire_at: Option<UnixMs>,
    /// What it takes of memory.
    pub(super) size: Footprint,
    /// Bytes of a frame that holds its whole state.
    pub(super) stored: usize,
    /// Whether its value is in the log only.
    pub(super) cold: bool,
}

impl Weight {
    /// Of no block.
    pub(super) const NONE: Weight = Weight {
        digest: Digest::NONE,
        live: false,
        expire_at: None,
        size: Footprint { taken: 0, least: 0 },
        stored: 0,
        cold: false,
    };

    /// Of a plain string in `block`, whose value is stored in `len` bytes.
    pub(super) fn of_plain(
        seed: HashSeed,
        hash: u64,
        key: &[u8],
        plain: &Plain<'_>,
        len: usize,
        block: &Block,
    ) -> Weight {
        let value = Weight::of_value(seed, hash, key, plain, len);
        Weight { size: block.footprint(), cold: block.is_cold(), ..value }
    }

    /// The same without what the block takes: for a value that is put over another in its place.
    pub(super) fn of_value(
        seed: HashSeed,
        hash: u64,
        key: &[u8],
        plain: &Plain<'_>,
        len: usize,
    ) -> Weight {
        Weight {
            digest: plain.digest(seed, hash),
            live: true,
            expire_at: plain.expire_at,
            size: Footprint::default(),
            stored: HEADER_SIZE + plain_size(key.len(), plain, len),
            cold: false,
        }
    }

    /// Of an entry in `block`, which is encoded in `len` bytes.
    pub(super) fn of_entry(
        seed: HashSeed,
        hash: u64,
        key: &[u8],
        entry: &Entry,
        len: usize,
        block: &Block,
    ) -> Weight {
        // At the epoch nothing has expired yet: whether there is a value at all.
        let visible = entry.visible(UnixMs(0));
        Weight {
            digest: entry.digest(seed, hash),
            live: visible.is_some(),
            expire_at: visible.and_then(|(_, expire_at)| expire_at),
            size: block.footprint(),
            stored: HEADER_SIZE + encoded_size(key.len(), len),
            cold: false,
        }
    }

    /// Of an entry in a large `block`.
    pub(super) fn of_large(
        seed: HashSeed,
        hash: u64,
        key: &[u8],
        entry: &Entry,
        block: &Block,
    ) -> Weight {
        Weight::of_entry(seed, hash, key, entry, entry.size(), block)
    }

    fn of_cold_entry(key: &[u8], entry: &ColdEntry, block: &Block) -> Weight {
        Weight {
            digest: entry.digest,
            live: entry.shown,
            expire_at: entry.expire_at,
            size: block.footprint(),
            stored: HEADER_SIZE + encoded_size(key.len(), entry.len),
            cold: true,
        }
    }

    /// Of `block`, whose key has this hash.
    pub(super) fn of(seed: HashSeed, hash: u64, block: &Block) -> Weight {
        let key = block.key();
        match block.form() {
            Form::Plain(plain) => {
                Weight::of_plain(seed, hash, key, &plain, plain.value.bytes.len(), block)
            }
            Form::ColdPlain(cold) => {
                Weight::of_plain(seed, hash, key, &cold.plain, cold.len, block)
            }
            Form::Entry(bytes) => {
                Weight::of_entry(seed, hash, key, &decoded(bytes), bytes.len(), block)
            }
            Form::Large(entry) => Weight::of_large(seed, hash, key, entry, block),
            Form::ColdEntry(entry) => Weight::of_cold_entry(key, &entry, block),
        }
    }
}

/// Memory is only damaged by a bug or a bad chip; going on would spread it.
pub(super) fn decoded(bytes: &[u8]) -> Entry {
    Entry::decode(bytes).expect("a stored entry decodes")
}
