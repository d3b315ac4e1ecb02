//! The keyspace: one shard of a `DashMap` for each vnode, so that one lock is one vnode.
//!
//! Under that lock a key, its vnode's hash tree, clock and counts change together; nothing awaits
//! while it is held, which is why there is only a closure interface.
//!
//! Invariant: a vnode's tree, `live` and `expiring` are what a walk over its blocks would give.

use std::hash::{BuildHasherDefault, DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::BytesMut;
use dashmap::{DashMap, SharedValue};
use parking_lot::Mutex;

use crate::anti_entropy::tree::Tree;
use crate::base::hash::{Digest, HashSeed};
use crate::base::id::{Actor, VnodeId};
use crate::base::time::{Dot, Hlc, UnixMs};
use crate::value::apply::{ApplyError, Delta};
use crate::value::change::{Change, Expire};
use crate::value::entry::Entry;
use crate::value::packed::pack;
use crate::value::plain::{Plain, PlainJoin, expire_after, join_plain, put_over};
use crate::value::record::{Record, encode_delta, encode_plain, encode_whole};
use crate::value::view::{Body, View, Views};

use super::block::{Block, Form, Table, blocks, prefetch_block, prefetch_place};

impl PartialEq for Block {
    fn eq(&self, other: &Block) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Block {}

impl Hash for Block {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

/// Every key of a node.
#[derive(Debug)]
pub struct Keyspace {
    map: DashMap<Block, (), BuildHasherDefault<DefaultHasher>>,
    vnodes: Box<[Mutex<Vnode>]>,
    seed: HashSeed,
    memory: AtomicUsize,
}

/// What a vnode keeps beside its keys; guarded by the shard's lock together with them.
#[derive(Debug, Default)]
struct Vnode {
    hlc: Hlc,
    tree: Tree,
    live: usize,
    expiring: usize,
    next_expiry: Option<UnixMs>,
    sole: bool,
}

/// What a block adds to its vnode's sums.
#[derive(Clone, Copy)]
struct Weight {
    digest: Digest,
    live: bool,
    expire_at: Option<UnixMs>,
    size: usize,
}

impl Weight {
    const NONE: Weight = Weight { digest: Digest::NONE, live: false, expire_at: None, size: 0 };

    fn of_plain(seed: HashSeed, hash: u64, plain: &Plain<'_>, size: usize) -> Weight {
        Weight { digest: plain.digest(seed, hash), live: true, expire_at: plain.expire_at, size }
    }

    fn of_entry(seed: HashSeed, hash: u64, entry: &Entry, size: usize) -> Weight {
        // At the epoch nothing has expired yet: whether there is a value at all.
        let view = entry.view(UnixMs(0));
        Weight {
            digest: entry.digest(seed, hash),
            live: view.is_some(),
            expire_at: view.and_then(|view| view.expire_at),
            size,
        }
    }
}

/// Counts of one vnode.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct VnodeCounts {
    /// Keys with a value, expired ones included until they are collected.
    pub live: usize,
    /// Live keys with a time to live.
    pub expiring: usize,
    /// Keys in memory, tombstones included.
    pub held: usize,
}

impl Keyspace {
    /// An empty keyspace of `vnodes` vnodes (a power of two, at least two).
    pub fn new(vnodes: u16, seed: HashSeed) -> Keyspace {
        Keyspace {
            map: DashMap::with_capacity_and_hasher_and_shard_amount(
                0,
                BuildHasherDefault::default(),
                usize::from(vnodes),
            ),
            vnodes: (0..vnodes).map(|_| Mutex::default()).collect(),
            seed,
            memory: AtomicUsize::new(0),
        }
    }

    /// The cluster's hash seed.
    pub fn seed(&self) -> HashSeed {
        self.seed
    }

    /// Bytes of all blocks (keys, values and their histories).
    pub fn memory(&self) -> usize {
        self.memory.load(Ordering::Relaxed)
    }

    /// Bytes of the tables that find the blocks.
    pub fn table_memory(&self) -> usize {
        self.map.shards().iter().map(|shard| shard.read().allocation_info().1.size()).sum()
    }

    /// Says whether this node alone holds `vnode`. A sole replica needs no tombstones and no
    /// history: nobody can come back with what it removed (DESIGN: the floor is its own clock).
    pub fn set_sole(&self, vnode: VnodeId, sole: bool) {
        self.vnodes[vnode.index()].lock().sole = sole;
    }

    /// Looks at one vnode's keys at moment `now`.
    pub fn read<T>(
        &self,
        vnode: VnodeId,
        now: UnixMs,
        look: impl FnOnce(&VnodeRead<'_>) -> T,
    ) -> T {
        let table = self.map.shards()[vnode.index()].read();
        look(&VnodeRead { table: &table, seed: self.seed, now })
    }

    /// Looks at and changes one vnode's keys at moment `now`.
    pub fn write<T>(
        &self,
        vnode: VnodeId,
        now: UnixMs,
        act: impl FnOnce(&mut VnodeWrite<'_>) -> T,
    ) -> T {
        let mut table = self.map.shards()[vnode.index()].write();
        let mut state = self.vnodes[vnode.index()].lock();
        act(&mut VnodeWrite { table: &mut table, vnode: &mut state, keyspace: self, now })
    }

    /// Fetches into the processor's caches what the next commands will touch. The keys of a batch
    /// lie in far-apart lines; asked for one after the other, each costs a trip to memory, asked
    /// for together the trips overlap.
    pub fn approach(&self, keys: &[(VnodeId, u64)]) {
        for &(vnode, hash) in keys {
            prefetch_place(&self.map.shards()[vnode.index()].read(), hash);
        }
        for &(vnode, hash) in keys {
            prefetch_block(&self.map.shards()[vnode.index()].read(), hash);
        }
    }

    /// Counts of one vnode.
    pub fn counts(&self, vnode: VnodeId) -> VnodeCounts {
        let held = self.map.shards()[vnode.index()].read().len();
        let state = self.vnodes[vnode.index()].lock();
        VnodeCounts { live: state.live, expiring: state.expiring, held }
    }

    /// The digest of everything alive in one vnode, and that of each of its buckets.
    pub fn tree<T>(&self, vnode: VnodeId, look: impl FnOnce(&Tree) -> T) -> T {
        look(&self.vnodes[vnode.index()].lock().tree)
    }

    /// The greatest timestamp this vnode has issued or seen.
    pub fn hlc(&self, vnode: VnodeId) -> Hlc {
        self.vnodes[vnode.index()].lock().hlc
    }

    /// Whether keys of this vnode may have expired by `now`.
    pub fn expiry_due(&self, vnode: VnodeId, now: UnixMs) -> bool {
        self.vnodes[vnode.index()].lock().next_expiry.is_some_and(|next| next <= now)
    }
}

/// Reads of one vnode, whose lock is held.
pub struct VnodeRead<'a> {
    table: &'a Table,
    seed: HashSeed,
    now: UnixMs,
}

fn find<'a>(table: &'a Table, hash: u64, key: &[u8]) -> Option<Form<'a>> {
    table.get(hash, |(block, _)| block.is(hash, key)).map(|(block, _)| block.form())
}

/// Memory is only damaged by a bug or a bad chip; going on would spread it.
fn decoded(bytes: &[u8]) -> Entry {
    Entry::decode(bytes).expect("a stored entry decodes")
}

fn view_of<'a>(form: Form<'a>, now: UnixMs, memory: usize) -> Option<View<'a>> {
    match form {
        Form::Plain(plain) => plain.view(now).map(|view| View { memory, ..view }),
        Form::Entry(bytes) => {
            let entry = decoded(bytes);
            let view = entry.view(now)?;
            let body = match &view.body {
                Body::Stored(packed) => {
                    Body::Made(packed.unpack().expect("a stored block unpacks").into_owned())
                }
                Body::Made(bytes) => Body::Made(bytes.clone()),
                Body::Cold { .. } => unreachable!("an entry that was decoded is here"),
            };
            Some(View { kind: view.kind, expire_at: view.expire_at, memory, body })
        }
    }
}

fn view_in<'a>(table: &'a Table, seed: HashSeed, key: &[u8], now: UnixMs) -> Option<View<'a>> {
    let hash = seed.key(key);
    let (block, _) = table.get(hash, |(block, _)| block.is(hash, key))?;
    view_of(block.form(), now, block.size() + size_of::<Block>())
}

impl Views for VnodeRead<'_> {
    fn view(&self, key: &[u8]) -> Option<View<'_>> {
        view_in(self.table, self.seed, key, self.now)
    }
}

impl VnodeRead<'_> {
    /// All that the node holds of `key`, tombstones and expired values included.
    pub fn entry(&self, key: &[u8]) -> Option<Entry> {
        entry_in(self.table, self.seed, key)
    }

    /// The digest of all that the node holds of `key`, its history included.
    pub fn state_digest(&self, key: &[u8]) -> Digest {
        state_digest_in(self.table, self.seed, key)
    }

    /// Appends the record of all that the node holds of `key`; `false` if it never heard of it.
    pub fn record(&self, key: &[u8], out: &mut BytesMut) -> bool {
        let form = find(self.table, self.seed.key(key), key);
        if let Some(form) = &form {
            record_form(key, form, out);
        }
        form.is_some()
    }

    /// Visible keys whose hash has its upper 16 bits in `prefixes`, in no order.
    pub fn scan(&self, prefixes: Range<u32>, mut visit: impl FnMut(&[u8], &View<'_>)) {
        let tags = prefixes.start >> 8..=prefixes.end.saturating_sub(1) >> 8;
        let whole = prefixes.start & 0xFF == 0 && prefixes.end & 0xFF == 0;
        for block in blocks(self.table) {
            if tags.contains(&u32::from(block.tag()))
                && (whole || prefixes.contains(&((self.seed.key(block.key()) >> 48) as u32)))
                && let Some(view) = view_of(block.form(), self.now, block.size())
            {
                visit(block.key(), &view);
            }
        }
    }

    /// Records of everything held (tombstones too) in the buckets of the tree that `wanted` names.
    pub fn records(&self, wanted: impl Fn(u8) -> bool, mut visit: impl FnMut(&[u8], &[u8])) {
        let mut out = BytesMut::new();
        for block in blocks(self.table).filter(|block| wanted(block.tag())) {
            out.clear();
            record_form(block.key(), &block.form(), &mut out);
            visit(block.key(), &out);
        }
    }

    /// Every key with a value, expired ones too.
    pub fn live_keys(&self) -> Vec<Vec<u8>> {
        let live = |block: &&Block| match block.form() {
            Form::Plain(_) => true,
            Form::Entry(bytes) => decoded(bytes).is_live(),
        };
        blocks(self.table).filter(live).map(|block| block.key().to_vec()).collect()
    }

    /// How many blocks the vnode holds.
    pub fn held(&self) -> usize {
        self.table.len()
    }

    /// The keys that have expired but still hold a value.
    pub fn expired(&self) -> Vec<Vec<u8>> {
        let expires = |block: &&Block| {
            let end = match block.form() {
                Form::Plain(plain) => plain.expire_at,
                Form::Entry(bytes) => {
                    decoded(bytes).view(UnixMs(0)).and_then(|view| view.expire_at)
                }
            };
            end.is_some_and(|at| at <= self.now)
        };
        blocks(self.table).filter(expires).map(|block| block.key().to_vec()).collect()
    }
}

fn entry_in(table: &Table, seed: HashSeed, key: &[u8]) -> Option<Entry> {
    Some(match find(table, seed.key(key), key)? {
        Form::Plain(plain) => Entry::from_plain(&plain),
        Form::Entry(bytes) => decoded(bytes),
    })
}

fn state_digest_in(table: &Table, seed: HashSeed, key: &[u8]) -> Digest {
    let hash = seed.key(key);
    match find(table, hash, key) {
        None => Digest::NONE,
        Some(Form::Plain(plain)) => plain.state_digest(seed, hash),
        Some(Form::Entry(bytes)) => decoded(bytes).state_digest(seed, hash),
    }
}

fn record_form(key: &[u8], form: &Form<'_>, out: &mut BytesMut) {
    match form {
        Form::Plain(plain) => encode_plain(out, key, plain),
        Form::Entry(bytes) => encode_whole(out, key, &decoded(bytes)),
    }
}

/// Reads and changes of one vnode, whose lock is held.
pub struct VnodeWrite<'a> {
    table: &'a mut Table,
    vnode: &'a mut Vnode,
    keyspace: &'a Keyspace,
    now: UnixMs,
}

impl Views for VnodeWrite<'_> {
    fn view(&self, key: &[u8]) -> Option<View<'_>> {
        view_in(self.table, self.keyspace.seed, key, self.now)
    }
}

impl VnodeWrite<'_> {
    /// This vnode for reading.
    pub fn read(&self) -> VnodeRead<'_> {
        VnodeRead { table: self.table, seed: self.keyspace.seed, now: self.now }
    }

    /// Carries out `change` of `key` as a write of `actor`, and appends its record to `out` (a sole
    /// replica's plain writes have nobody to go to, and append nothing). On an error nothing was
    /// changed.
    pub fn apply(
        &mut self,
        key: &[u8],
        change: &Change<'_>,
        actor: Actor,
        out: &mut BytesMut,
    ) -> Result<Dot, ApplyError> {
        let dot = Dot::new(self.vnode.hlc.next(self.now), actor);
        let hash = self.keyspace.seed.key(key);
        let applied = match change {
            Change::Put { value, expire } => self.put(hash, key, value, *expire, dot, out),
            Change::Delete if self.vnode.sole => {
                self.remove(hash, key);
                true
            }
            _ => false,
        };
        if !applied {
            self.apply_to_entry(hash, key, change, dot, out)?;
        }
        self.vnode.hlc = dot.hlc;
        Ok(dot)
    }

    /// The common write: a string whose history is its own dot. `false` if the history needs more.
    fn put(
        &mut self,
        hash: u64,
        key: &[u8],
        value: &[u8],
        expire: Expire,
        dot: Dot,
        out: &mut BytesMut,
    ) -> bool {
        let (sole, seed, now) = (self.vnode.sole, self.keyspace.seed, self.now);
        let mut scratch = Vec::new();
        let value = pack(value, &mut scratch);
        let found = self.table.get_mut(hash, |(block, _)| block.is(hash, key));
        let Some((block, _)) = found else {
            let expire_at = expire_after(None, expire, now);
            let plain = Plain { dot, n: 1, expire_at, value };
            if !sole {
                encode_plain(out, key, &plain);
            }
            self.insert_plain(hash, key, &plain);
            return true;
        };
        let Form::Plain(existing) = block.form() else { return false };
        let n = match put_over(Some(&existing), dot) {
            Some(n) => n,
            None if sole => existing.n.saturating_add(1),
            None => return false,
        };
        let expire_at = expire_after(Some(&existing), expire, now);
        let plain = Plain { dot, n, expire_at, value };
        if !sole {
            encode_plain(out, key, &plain);
        }
        let old = Weight::of_plain(seed, hash, &existing, block.size());
        let size = replace(block, hash, key, &plain);
        self.reweigh(hash, old, Weight::of_plain(seed, hash, &plain, size));
        true
    }

    fn apply_to_entry(
        &mut self,
        hash: u64,
        key: &[u8],
        change: &Change<'_>,
        dot: Dot,
        out: &mut BytesMut,
    ) -> Result<(), ApplyError> {
        let mut entry = entry_in(self.table, self.keyspace.seed, key).unwrap_or_default();
        let delta = entry.apply(change, dot, self.now)?;
        match &delta {
            Delta::Whole => match entry.as_plain() {
                Some(plain) => encode_plain(out, key, &plain),
                None => encode_whole(out, key, &entry),
            },
            Delta::Fragment(fragment) => encode_delta(out, key, fragment),
        }
        self.store_entry(hash, key, &entry);
        Ok(())
    }

    /// Joins a peer's record of `key` into what this node holds.
    pub fn merge(&mut self, key: &[u8], record: &Record<'_>) {
        let seed = self.keyspace.seed;
        let hash = seed.key(key);
        if let Record::Plain(incoming) = record {
            self.vnode.hlc = self.vnode.hlc.max(incoming.dot.hlc);
            let found = self.table.get(hash, |(block, _)| block.is(hash, key));
            let verdict = match found.map(|(block, _)| block.form()) {
                None => return self.insert_plain(hash, key, incoming),
                Some(Form::Plain(existing)) => join_plain(&existing, incoming),
                Some(Form::Entry(_)) => PlainJoin::NeedsEntry,
            };
            match verdict {
                PlainJoin::Keep => return,
                PlainJoin::Replace => return self.store_plain(hash, key, incoming),
                PlainJoin::NeedsEntry => {}
            }
        }
        let mut entry = entry_in(self.table, seed, key).unwrap_or_default();
        let before = entry.state_digest(seed, hash);
        record.join_into(&mut entry);
        self.vnode.hlc = self.vnode.hlc.max(entry.hlc_max());
        if entry.state_digest(seed, hash) != before {
            self.store_entry(hash, key, &entry);
        }
    }

    fn store_plain(&mut self, hash: u64, key: &[u8], plain: &Plain<'_>) {
        let seed = self.keyspace.seed;
        match self.table.get_mut(hash, |(block, _)| block.is(hash, key)) {
            Some((block, _)) => {
                let old = weight_of(seed, hash, block);
                let size = replace(block, hash, key, plain);
                self.reweigh(hash, old, Weight::of_plain(seed, hash, plain, size));
            }
            None => self.insert_plain(hash, key, plain),
        }
    }

    fn insert_plain(&mut self, hash: u64, key: &[u8], plain: &Plain<'_>) {
        let block = Block::plain(hash, key, plain);
        let new = Weight::of_plain(self.keyspace.seed, hash, plain, block.size());
        self.insert(hash, block);
        self.reweigh(hash, Weight::NONE, new);
    }

    fn store_entry(&mut self, hash: u64, key: &[u8], entry: &Entry) {
        if self.vnode.sole && entry.is_tombstone() {
            return self.remove(hash, key);
        }
        if let Some(plain) = entry.as_plain() {
            return self.store_plain(hash, key, &plain);
        }
        let seed = self.keyspace.seed;
        let mut encoded = Vec::new();
        entry.encode(&mut encoded);
        let fresh = Block::entry(hash, key, &encoded);
        let new = Weight::of_entry(seed, hash, entry, fresh.size());
        let old = match self.table.get_mut(hash, |(block, _)| block.is(hash, key)) {
            Some((block, _)) => {
                let old = weight_of(seed, hash, block);
                *block = fresh;
                old
            }
            None => {
                self.insert(hash, fresh);
                Weight::NONE
            }
        };
        self.reweigh(hash, old, new);
    }

    fn insert(&mut self, hash: u64, block: Block) {
        let seed = self.keyspace.seed;
        self.table.insert(hash, (block, SharedValue::new(())), |(block, _)| seed.key(block.key()));
    }

    fn remove(&mut self, hash: u64, key: &[u8]) {
        if let Some((block, _)) = self.table.remove_entry(hash, |(block, _)| block.is(hash, key)) {
            let old = weight_of(self.keyspace.seed, hash, &block);
            self.reweigh(hash, old, Weight::NONE);
        }
    }

    fn reweigh(&mut self, hash: u64, old: Weight, new: Weight) {
        let vnode = &mut *self.vnode;
        vnode.tree.replace(hash, old.digest, new.digest);
        vnode.live = vnode.live + usize::from(new.live) - usize::from(old.live);
        vnode.expiring = vnode.expiring + usize::from(new.expire_at.is_some())
            - usize::from(old.expire_at.is_some());
        if let Some(at) = new.expire_at {
            vnode.next_expiry = Some(vnode.next_expiry.map_or(at, |next| next.min(at)));
        }
        let memory = &self.keyspace.memory;
        if new.size >= old.size {
            memory.fetch_add(new.size - old.size, Ordering::Relaxed);
        } else {
            memory.fetch_sub(old.size - new.size, Ordering::Relaxed);
        }
    }

    /// Deletes `key` if it has expired and still holds a value; appends the delete's record.
    pub fn collect(&mut self, key: &[u8], actor: Actor, out: &mut BytesMut) -> bool {
        let holds = self.read().entry(key).is_some_and(|entry| entry.is_live());
        holds && self.view(key).is_none() && self.apply(key, &Change::Delete, actor, out).is_ok()
    }

    /// Finds the next expiry anew, after a sweep has removed what was due.
    pub fn settle_expiry(&mut self) {
        let next = blocks(self.table)
            .filter_map(|block| weight_of(self.keyspace.seed, 0, block).expire_at)
            .min();
        self.vnode.next_expiry = next;
    }

    /// Forgets every key at once: only for a sole replica, where no other copy needs a tombstone.
    pub fn clear_sole(&mut self) {
        assert!(self.vnode.sole, "another replica would bring the keys back");
        let size: usize = blocks(self.table).map(Block::size).sum();
        *self.table = Table::new();
        let hlc = self.vnode.hlc.next(self.now);
        *self.vnode = Vnode { hlc, sole: true, ..Vnode::default() };
        self.keyspace.memory.fetch_sub(size, Ordering::Relaxed);
    }

    /// Whether this node alone holds the vnode.
    pub fn is_sole(&self) -> bool {
        self.vnode.sole
    }
}

/// Puts another plain string of the same key into a block, in place if it fits; says its size.
fn replace(block: &mut Block, hash: u64, key: &[u8], plain: &Plain<'_>) -> usize {
    if !block.overwrite(plain) {
        *block = Block::plain(hash, key, plain);
    }
    block.size()
}

fn weight_of(seed: HashSeed, hash: u64, block: &Block) -> Weight {
    match block.form() {
        Form::Plain(plain) => Weight::of_plain(seed, hash, &plain, block.size()),
        Form::Entry(bytes) => Weight::of_entry(seed, hash, &decoded(bytes), block.size()),
    }
}
