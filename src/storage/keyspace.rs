//! The keyspace: one shard of a `DashMap` for each vnode, so that one lock is one vnode.
//!
//! Under that lock a key, its vnode's hash tree, clock and counts change together, and the change
//! is appended to the log; nothing awaits while it is held, which is why there is only a closure
//! interface.
//!
//! ```text
//! keyspace     every vnode: locks, sums, memory
//! vnode_read   what may be looked at under a vnode's lock      vnode_write  what may be changed
//! replay       from the log's frames to memory, and which of them still count
//! cooling      from memory to the log, when memory is short    warming      back again
//! ```
//!
//! Invariants: a vnode's tree, `live`, `expiring`, `cold` and `stored` are what a walk over its
//! blocks would give. What the log says of a key is what memory holds of it, by invariant L:
//!
//! * the newest frame of a plain string is a State with exactly that string;
//! * an entry's block has a place at or before that of its newest State, and is marked whole only
//!   if that State is its newest frame and lies at that place;
//! * a cold block's place is that of its newest frame, a State.

use std::hash::{BuildHasherDefault, DefaultHasher, Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use bytes::BytesMut;
use dashmap::DashMap;
use parking_lot::Mutex;

use crate::anti_entropy::tree::Tree;
use crate::base::hash::{Digest, HashSeed};
use crate::base::id::VnodeId;
use crate::base::time::{Hlc, UnixMs};
use crate::value::view::Missing;

use super::block::{Block, prefetch, prefetch_block, prefetch_place};
use super::cooling::Sweep;
use super::footprint::Footprint;
use super::frame::Kind;
use super::log::Log;
use super::place::Place;
use super::vnode_read::VnodeRead;
use super::vnode_write::VnodeWrite;
use super::weight::Weight;

/// No key takes less of a budget than this, about: its block and its slot.
const KEY_SIZE_LEAST: u64 = 32;

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
    pub(super) map: DashMap<Block, (), BuildHasherDefault<DefaultHasher>>,
    pub(super) vnodes: Box<[Mutex<Vnode>]>,
    /// Each vnode's `hlc` after its last change, for who may take no lock.
    seen: Box<[AtomicU64]>,
    seed: HashSeed,
    log: Option<Arc<Log>>,
    /// Whether the log is being read, and nothing can be appended yet.
    replaying: AtomicBool,
    pub(super) sweep: Sweep,
    blocks: Apart<Blocks>,
    tables: AtomicUsize,
}

/// Changed by every thread all the time: on cache lines of its own, or all that stands beside it
/// would have to be fetched again each time.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Apart<T>(T);

/// The footprints of all blocks.
#[derive(Debug, Default)]
struct Blocks {
    taken: AtomicUsize,
    least: AtomicUsize,
}

impl<T> Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// What a vnode keeps beside its keys; guarded by the shard's lock together with them.
#[derive(Debug, Default)]
pub(super) struct Vnode {
    pub(super) hlc: Hlc,
    pub(super) tree: Tree,
    pub(super) sole: bool,
    pub(super) next_expiry: Option<UnixMs>,
    /// Of a vnode held for others: up to where this node may have forgotten what it wrote here.
    pub(super) forgotten: Option<Hlc>,
    live: usize,
    expiring: usize,
    cold: usize,
    stored: usize,
    /// Bytes of the table, as they are in the keyspace's sum.
    pub(super) table: usize,
    /// The bucket that the hand of `cooling` stands at.
    pub(super) hand: usize,
    /// Buckets that the hand went past since it last found anything to do.
    pub(super) idle: usize,
}

impl Vnode {
    /// Puts `new` in `old`'s stead in the sums.
    pub(super) fn reweigh(&mut self, hash: u64, old: &Weight, new: &Weight) {
        self.tree.replace(hash, old.digest, new.digest);
        self.live = self.live + usize::from(new.live) - usize::from(old.live);
        self.expiring = self.expiring + usize::from(new.expire_at.is_some())
            - usize::from(old.expire_at.is_some());
        self.cold = self.cold + usize::from(new.cold) - usize::from(old.cold);
        self.stored = self.stored + new.stored - old.stored;
        if let Some(at) = new.expire_at {
            self.next_expiry = Some(self.next_expiry.map_or(at, |next| next.min(at)));
        }
        self.idle = 0;
    }

    /// Notes that elements of a collection changed and nothing else of its key: `old` and `new` are
    /// their digests, and the bytes of a frame that holds the whole state.
    pub(super) fn reweigh_elements(
        &mut self,
        hash: u64,
        old: (Digest, usize),
        new: (Digest, usize),
    ) {
        self.tree.replace(hash, old.0, new.0);
        self.stored = self.stored + new.1 - old.1;
        self.idle = 0;
    }

    /// Notes that a key became cold, or hot again: nothing else of it changed.
    pub(super) fn turn(&mut self, cold: bool) {
        self.cold = if cold { self.cold + 1 } else { self.cold - 1 };
        self.idle = 0;
    }

    /// Notes that the frame of a key's state is of another size than was said.
    pub(super) fn resize_stored(&mut self, old: usize, new: usize) {
        self.stored = self.stored + new - old;
    }

    /// Forgets all that is said of keys.
    pub(super) fn clear(&mut self) {
        let Vnode { hlc, sole, table, forgotten, .. } = *self;
        *self = Vnode { hlc, sole, table, forgotten, ..Vnode::default() };
    }

    /// Whether any key is cold.
    pub(super) fn has_cold(&self) -> bool {
        self.cold > 0
    }
}

/// Counts of one vnode.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct VnodeCounts {
    /// Keys with a value, expired ones included until they are collected.
    pub live: usize,
    /// Live keys with a time to live.
    pub expiring: usize,
    /// Keys held, tombstones included.
    pub held: usize,
    /// Held keys whose values are in the log only.
    pub cold: usize,
    /// Bytes of the frames that would hold everything once.
    pub stored: usize,
}

impl Keyspace {
    /// An empty keyspace of `vnodes` vnodes (a power of two, at least two), without a log.
    pub fn new(vnodes: u16, seed: HashSeed) -> Keyspace {
        Keyspace::of(vnodes, seed, None)
    }

    /// The same, whose changes are appended to `log`.
    pub fn with_log(vnodes: u16, seed: HashSeed, log: Arc<Log>) -> Keyspace {
        Keyspace::of(vnodes, seed, Some(log))
    }

    fn of(vnodes: u16, seed: HashSeed, log: Option<Arc<Log>>) -> Keyspace {
        Keyspace {
            map: DashMap::with_capacity_and_hasher_and_shard_amount(
                0,
                BuildHasherDefault::default(),
                usize::from(vnodes),
            ),
            vnodes: (0..vnodes).map(|_| Mutex::default()).collect(),
            seen: (0..vnodes).map(|_| AtomicU64::new(0)).collect(),
            seed,
            log,
            replaying: AtomicBool::new(false),
            sweep: Sweep::default(),
            blocks: Apart::default(),
            tables: AtomicUsize::new(0),
        }
    }

    /// The cluster's hash seed.
    pub fn seed(&self) -> HashSeed {
        self.seed
    }

    /// The log that it is kept in.
    pub fn log(&self) -> Option<&Arc<Log>> {
        self.log.as_ref()
    }

    /// Bytes of all blocks (keys, values and their histories), as the allocator counts them.
    pub fn memory(&self) -> usize {
        self.blocks.taken.load(Ordering::Relaxed)
    }

    /// Bytes of the tables that find the blocks.
    pub fn table_memory(&self) -> usize {
        self.tables.load(Ordering::Relaxed)
    }

    /// Bytes of blocks and tables.
    pub fn used(&self) -> usize {
        self.memory() + self.table_memory()
    }

    /// Bytes of the frames that would hold everything once, of the vnodes that `wanted` names:
    /// what of the log is not dead.
    pub fn stored(&self, wanted: impl Fn(VnodeId) -> bool) -> u64 {
        let vnodes = (0u16..).map(VnodeId).zip(&self.vnodes);
        vnodes
            .filter(|&(vnode, _)| wanted(vnode))
            .map(|(_, state)| state.lock().stored as u64)
            .sum()
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
        let missing = Missing::default();
        let table = self.map.shards()[vnode.index()].read();
        let visits = self.sweep.has_budget();
        look(&VnodeRead { table: &table, seed: self.seed, now, visits, missing: &missing })
    }

    /// Looks at and changes one vnode's keys at moment `now`.
    pub fn write<T>(
        &self,
        vnode: VnodeId,
        now: UnixMs,
        act: impl FnOnce(&mut VnodeWrite<'_>) -> T,
    ) -> T {
        let missing = Missing::default();
        let mut table = self.map.shards()[vnode.index()].write();
        let mut state = self.vnodes[vnode.index()].lock();
        let done = act(&mut VnodeWrite {
            table: &mut table,
            vnode: &mut state,
            keyspace: self,
            journal: Journal { keyspace: self, vnode },
            visits: self.sweep.has_budget(),
            missing: &missing,
            now,
        });
        self.seen[vnode.index()].store(state.hlc.0, Ordering::Relaxed);
        done
    }

    /// The greatest timestamp that any change that is over has issued or seen. Takes no lock.
    pub fn ceiling(&self) -> Hlc {
        let all = self.seen.iter().map(|hlc| Hlc(hlc.load(Ordering::Relaxed)));
        all.max().unwrap_or_default()
    }

    /// Fetches into the processor's caches what the next commands will touch. The keys of a batch
    /// lie in far-apart lines; asked for one after the other, each costs a trip to memory, asked
    /// for together the trips overlap.
    pub fn approach(&self, keys: &[(VnodeId, u64)]) {
        for &(vnode, hash) in keys {
            let state = &raw const self.vnodes[vnode.index()];
            prefetch(state.cast::<u8>());
            prefetch(state.cast::<u8>().wrapping_add(64));
            prefetch_place(&self.map.shards()[vnode.index()].read(), hash);
        }
        for &(vnode, hash) in keys {
            prefetch_block(&self.map.shards()[vnode.index()].read(), hash);
        }
    }

    /// Fetches the place of one key, without waiting for it.
    pub fn approach_place(&self, vnode: VnodeId, hash: u64) {
        prefetch_place(&self.map.shards()[vnode.index()].read(), hash);
    }

    /// Makes the tables large enough for about so many keys.
    pub(super) fn expect_keys(&self, keys: u64) {
        // Beyond the budget, tables may grow as they have to.
        let fitting = match self.sweep.budget() {
            0 => u64::MAX,
            budget => budget as u64 / KEY_SIZE_LEAST,
        };
        let of_vnode = keys.min(fitting) / self.vnodes.len() as u64;
        self.for_all(|vnode| vnode.reserve(of_vnode as usize));
    }

    /// Says that this node's actor wrote in an earlier process, too, and may have handed on and
    /// forgotten some of it.
    pub fn suspect_forgotten(&self) {
        self.for_all(|vnode| vnode.suspect_forgotten());
    }

    /// Makes the tables as small as their keys allow.
    pub(super) fn fit_tables(&self) {
        self.for_all(|vnode| vnode.fit_table());
    }

    fn for_all(&self, act: impl Fn(&mut VnodeWrite<'_>)) {
        for vnode in (0u16..).map(VnodeId).take(self.vnodes.len()) {
            self.write(vnode, UnixMs(0), &act);
        }
    }

    /// The same for keys of one vnode, by their hashes.
    pub(super) fn approach_in(&self, vnode: VnodeId, hashes: &[u64]) {
        let table = self.map.shards()[vnode.index()].read();
        hashes.iter().for_each(|&hash| prefetch_place(&table, hash));
        hashes.iter().for_each(|&hash| prefetch_block(&table, hash));
    }

    /// Counts of one vnode.
    pub fn counts(&self, vnode: VnodeId) -> VnodeCounts {
        let held = self.map.shards()[vnode.index()].read().len();
        let state = self.vnodes[vnode.index()].lock();
        let Vnode { live, expiring, cold, stored, .. } = *state;
        VnodeCounts { live, expiring, held, cold, stored }
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

    /// Says that the log has been read and begun. Until then nothing is appended for the sake of
    /// cooling. (The first change says the same.)
    pub fn replayed(&self) {
        self.set_replaying(false);
    }

    pub(super) fn set_replaying(&self, replaying: bool) {
        if self.is_replaying() != replaying {
            self.replaying.store(replaying, Ordering::Relaxed);
        }
    }

    pub(super) fn is_replaying(&self) -> bool {
        self.replaying.load(Ordering::Relaxed)
    }

    /// Bytes that blocks and tables would take if everything were cold.
    pub(super) fn least(&self) -> usize {
        self.blocks.least.load(Ordering::Relaxed) + self.table_memory()
    }

    pub(super) fn resize_blocks(&self, old: Footprint, new: Footprint) {
        resize(&self.blocks.taken, old.taken, new.taken);
        resize(&self.blocks.least, old.least, new.least);
    }

    pub(super) fn resize_tables(&self, old: usize, new: usize) {
        resize(&self.tables, old, new);
    }
}

fn resize(sum: &AtomicUsize, old: usize, new: usize) {
    if new > old {
        sum.fetch_add(new - old, Ordering::Relaxed);
    } else if old > new {
        sum.fetch_sub(old - new, Ordering::Relaxed);
    }
}

/// A vnode's place in the log. Its lock is held, so that the frames' order is the changes'.
#[derive(Clone, Copy)]
pub(super) struct Journal<'a> {
    pub(super) keyspace: &'a Keyspace,
    pub(super) vnode: VnodeId,
}

impl<'a> Journal<'a> {
    pub(super) fn log(self) -> Option<&'a Log> {
        self.keyspace.log.as_deref()
    }

    /// Appends a frame whose payload `write` appends; says where it is. Without a log, nowhere.
    pub(super) fn append(self, kind: Kind, write: impl FnOnce(&mut BytesMut)) -> Place {
        self.keyspace.set_replaying(false);
        self.log().map_or(Place::default(), |log| log.append(self.vnode, kind, write))
    }

    /// Appends a frame with this payload.
    pub(super) fn copy(self, kind: Kind, payload: &[u8]) -> Place {
        self.append(kind, |out| out.extend_from_slice(payload))
    }
}
