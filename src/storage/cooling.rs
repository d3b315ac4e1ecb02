//! From memory to the log: values that are not wanted now, when memory is short.
//!
//! A hand goes round the buckets of every vnode's table, as in CLOCK (Corbató, 1968). What was
//! looked at since it last came by is spared once; what is new begins as not looked at, so what is
//! wanted once only goes at the first visit (Zhang and others, "SIEVE", 2024).
//!
//! ```text
//! block      plain, located     ─ its frame is written ─>  stub
//!            entry, whole       ─ its frame is written ─>  stub
//!            any other          ─ appended as a State ──>  plain located, entry whole
//!            hardly larger than its stub: stays
//! ```
//!
//! Invariant: nobody waits long for the hand. Under one vnode's lock it looks at
//! [`BUCKETS_AT_ONCE`] buckets and appends [`APPENDED_AT_ONCE`] bytes, and then goes to the next
//! vnode.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::base::hash::HashSeed;
use crate::base::id::VnodeId;
use crate::base::time::UnixMs;
use crate::value::entry::Entry;
use crate::value::view::Kind as Type;

use super::block::{Block, ColdEntry, Form, Table, block_at, table_size};
use super::footprint::Footprint;
use super::frame::Kind;
use super::keyspace::{Journal, Keyspace};
use super::place::Place;
use super::vnode_read::record_of;
use super::vnode_write::VnodeWrite;
use super::weight::{Weight, decoded};

/// Buckets that are looked at under one lock: some ten microseconds of a core.
const BUCKETS_AT_ONCE: usize = 64;

/// Bytes after which nothing more is appended under one lock.
const APPENDED_AT_ONCE: usize = 64 << 10;

/// Bytes after which one call appends nothing more: they wait in memory for the next write(2).
const APPENDED_MAX: usize = 1 << 20;

/// Buckets that one call looks at for sure, and at most.
const BUCKETS_MIN: usize = 128;
const BUCKETS_MAX: usize = 8_192;

/// One more bucket is looked at for so many bytes too many: most free more.
const BYTES_PER_BUCKET: usize = 16;

/// Memory is brought below the budget by this part of it, so that not every batch sweeps.
const SLACK_PART: usize = 256;
const SLACK_MAX: usize = 1 << 20;

/// The part of the budget that everything beside blocks and tables is granted.
const BESIDE_PART: usize = 16;

/// The most that is left free for what goes beyond.
const RESERVE_PART: usize = 4;

/// The most that is left free for that and for the growth of tables.
const FREE_PART: usize = 2;

/// What is left free before anybody knows better.
const FIRST_RESERVE_PART: usize = 8;

/// The part of what is too much, or was not used, by which it changes at a time.
const RISE_PART: usize = 4;
const FALL_PART: usize = 64;

/// The memory budget, and where the sweep for it stands.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    budget: AtomicUsize,
    /// How much of the budget is left free, because the process takes more than what is counted.
    reserve: AtomicUsize,
    /// How much of it is kept free for the tables' next growth.
    growth: AtomicUsize,
    /// The vnode that comes next.
    next: AtomicUsize,
    cooled: AtomicU64,
    pub(super) warmed: AtomicU64,
}

impl Sweep {
    /// What blocks and tables are held to at the moment; 0: nothing.
    fn limit(&self) -> usize {
        let budget = self.budget();
        let free = self.reserve.load(Ordering::Relaxed) + self.growth.load(Ordering::Relaxed);
        budget - free.min(budget / FREE_PART)
    }

    pub(super) fn has_budget(&self) -> bool {
        self.budget() > 0
    }

    /// In bytes; 0: none.
    pub(super) fn budget(&self) -> usize {
        self.budget.load(Ordering::Relaxed)
    }
}

impl Keyspace {
    /// Sets how many bytes blocks and tables may take; 0: as many as there are.
    pub fn set_budget(&self, bytes: u64) {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.sweep.budget.store(bytes, Ordering::Relaxed);
        self.sweep.reserve.store(bytes / FIRST_RESERVE_PART, Ordering::Relaxed);
    }

    /// What blocks and tables are held to at the moment, in bytes; 0: nothing.
    #[cfg(test)]
    pub(super) fn room_limit(&self) -> usize {
        self.sweep.limit()
    }

    /// Notes how much memory the process really takes, in bytes: to be told every now and then.
    ///
    /// Blocks and tables are counted as the allocator rounds them, but it also keeps pages that are
    /// partly free, and buffers and code take some too. A sixteenth of the budget is granted to all
    /// that; what it takes beyond is left free here, at most a quarter of the budget. It rises fast
    /// and falls slowly, for freed pages go back to the system with a delay.
    pub fn note_resident(&self, resident: u64) {
        let budget = self.sweep.budget();
        let resident = usize::try_from(resident).unwrap_or(usize::MAX);
        let (high, low) = (budget + budget / BESIDE_PART, budget + budget / BESIDE_PART / 2);
        let reserve = self.sweep.reserve.load(Ordering::Relaxed);
        let next = if resident > high {
            reserve + (resident - high) / RISE_PART
        } else if self.used() + budget / BESIDE_PART < self.sweep.limit() {
            // There is room anyway: what it would be when there is none cannot be told yet.
            reserve
        } else {
            reserve.saturating_sub(low.saturating_sub(resident) / FALL_PART)
        };
        self.sweep.reserve.store(next.min(budget / RESERVE_PART), Ordering::Relaxed);
    }

    /// Looks how soon tables will grow, and frees the room for it ahead: to be told every now and
    /// then.
    ///
    /// A table doubles at once, and since keys are spread evenly all tables do at about the same
    /// time. Values that give way only then leave pages that are partly free, which the system
    /// does not get back. So a table counts as if it grew key by key.
    pub fn note_growth(&self, now: UnixMs) {
        let vnodes = (0..self.vnodes.len() as u16).map(VnodeId);
        let growth = vnodes.map(|vnode| self.read(vnode, now, |keys| growth_of(keys.table))).sum();
        self.sweep.growth.store(growth, Ordering::Relaxed);
    }

    /// Whether memory would be over its budget even if everything were cool.
    pub fn is_full(&self) -> bool {
        let budget = self.sweep.budget.load(Ordering::Relaxed);
        let least = if self.log().is_some() { self.least() } else { self.used() };
        budget > 0 && least > budget
    }

    /// Whether memory may grow: it is within its budget, or something leaves it for what comes.
    pub fn has_room(&self, now: UnixMs) -> bool {
        let limit = self.sweep.limit();
        if limit == 0 || self.used() <= limit {
            return true;
        }
        self.make_room(now);
        !self.is_full()
    }

    /// Cools a little if memory is over its budget, the more the further it is: to be called after
    /// whatever made memory grow.
    pub fn make_room(&self, now: UnixMs) {
        let budget = self.sweep.limit();
        if budget == 0 || self.used() <= budget {
            return;
        }
        let refused = self.log().is_none_or(|log| log.refusal().is_some());
        let appends = !refused && !self.is_replaying();
        let target = budget - (budget / SLACK_PART).min(SLACK_MAX);
        let excess = self.used().saturating_sub(target);
        let mut looks = (BUCKETS_MIN + excess / BYTES_PER_BUCKET).min(BUCKETS_MAX);
        let (vnodes, mut idle) = (self.vnodes.len(), 0);
        let mut appended = 0;
        while self.used() > target && idle < vnodes && looks > 0 && appended < APPENDED_MAX {
            let next = self.sweep.next.fetch_add(1, Ordering::Relaxed) % vnodes;
            let swept = self.write(VnodeId(next as u16), now, |keys| {
                keys.sweep(looks.min(BUCKETS_AT_ONCE), appends)
            });
            looks = looks.saturating_sub(swept.looked);
            appended += swept.appended;
            idle = if swept.idle { idle + 1 } else { 0 };
        }
    }

    /// Values that left memory so far.
    pub fn cooled(&self) -> u64 {
        self.sweep.cooled.load(Ordering::Relaxed)
    }

    /// Values that came back so far.
    pub fn warmed(&self) -> u64 {
        self.sweep.warmed.load(Ordering::Relaxed)
    }
}

/// The part of a table's next doubling that is due: none just after the last one, all of it just
/// before the next.
fn growth_of(table: &Table) -> usize {
    let half = table.capacity() / 2;
    let beyond = table.len().saturating_sub(half);
    if half == 0 { 0 } else { (table_size(table) as u128 * beyond as u128 / half as u128) as usize }
}

/// What came of one step of the hand.
struct Swept {
    /// Buckets looked at.
    looked: usize,
    /// Bytes of the blocks that were appended.
    appended: usize,
    /// Whether there is nothing to be done in the whole vnode.
    idle: bool,
}

/// What the hand does with a block.
enum Verdict {
    /// There is nothing to gain.
    Stays,
    /// It was wanted, or cannot be read back yet: next time.
    Spared,
    /// Its newest frame is not a State that we know the place of.
    Append,
    /// Its value is in the log at this place.
    Cool(Place),
}

fn verdict(block: &mut Block, journal: Journal<'_>) -> Verdict {
    // Told by the slot, without a look at the block.
    if block.is_cold() {
        return Verdict::Stays;
    }
    if block.take_visited() {
        return Verdict::Spared;
    }
    let Footprint { taken, least } = block.footprint();
    if least >= taken {
        return Verdict::Stays;
    }
    let Some(log) = journal.log() else { return Verdict::Stays };
    match block.place() {
        Some(place) if block.is_whole() && log.is_written(journal.vnode, place) => {
            Verdict::Cool(place)
        }
        Some(_) if block.is_whole() => Verdict::Spared,
        _ => Verdict::Append,
    }
}

impl VnodeWrite<'_> {
    /// Moves the hand on by `looks` buckets, or fewer if there is nothing to be done.
    fn sweep(&mut self, looks: usize, appends: bool) -> Swept {
        let (seed, journal, keyspace) = (self.seed(), self.journal, self.keyspace);
        let buckets = self.table.buckets();
        let (mut looked, mut appended) = (0, 0);
        while looked < looks && appended < APPENDED_AT_ONCE && self.vnode.idle < buckets {
            looked += 1;
            self.vnode.idle += 1;
            let at = self.vnode.hand % buckets;
            self.vnode.hand = at + 1;
            let Some(block) = block_at(self.table, at) else { continue };
            let before = block.footprint();
            match verdict(block, journal) {
                Verdict::Stays => continue,
                Verdict::Append if !appends => continue,
                Verdict::Spared => {}
                Verdict::Append => {
                    append(block, journal);
                    appended += before.taken;
                }
                Verdict::Cool(place) => {
                    let stub = cooled(seed, block, place);
                    if let Form::Large(entry) = block.form() {
                        let hash = seed.key(block.key());
                        let old = Weight::of_large(seed, hash, block.key(), entry, block).stored;
                        self.vnode.resize_stored(old, Weight::of(seed, hash, &stub).stored);
                    }
                    *block = stub;
                    self.vnode.turn(true);
                    keyspace.sweep.cooled.fetch_add(1, Ordering::Relaxed);
                }
            }
            keyspace.resize_blocks(before, block.footprint());
            self.vnode.idle = 0;
        }
        Swept { looked, appended, idle: self.vnode.idle >= buckets }
    }
}

/// Appends a State of a hot block, and keeps its place with it.
fn append(block: &mut Block, journal: Journal<'_>) {
    let place = journal.append(Kind::State, |out| {
        record_of(block, out);
    });
    match block.form() {
        Form::Plain(plain) if !block.is_located() => {
            *block = Block::plain(block.hash_of_tag(), block.key(), &plain, Some(place));
        }
        _ => block.settle(place),
    }
}

/// The stub of a hot block whose State is at `place`.
fn cooled(seed: HashSeed, block: &Block, place: Place) -> Block {
    let (key, tag) = (block.key(), block.hash_of_tag());
    match block.form() {
        Form::Plain(plain) => Block::cold_plain(tag, key, &plain, plain.value.bytes.len(), place),
        Form::Entry(bytes) => {
            let stub = cold_entry(seed, seed.key(key), &decoded(bytes), bytes.len());
            Block::cold_entry(tag, key, &stub, place)
        }
        Form::Large(entry) => {
            let mut encoded = Vec::new();
            entry.encode(&mut encoded);
            let stub = cold_entry(seed, seed.key(key), entry, encoded.len());
            Block::cold_entry(tag, key, &stub, place)
        }
        Form::ColdPlain(_) | Form::ColdEntry(_) => unreachable!("a cold block stays"),
    }
}

/// What stays in memory of an entry that is encoded in `len` bytes.
fn cold_entry(seed: HashSeed, hash: u64, entry: &Entry, len: usize) -> ColdEntry {
    // At the epoch nothing has expired yet.
    let visible = entry.visible(UnixMs(0));
    let string = visible.filter(|(kind, _)| *kind == Type::String).and(entry.view(UnixMs(0)));
    let raw_len = string.and_then(|view| view.string_len().ok()).unwrap_or(0);
    ColdEntry {
        digest: entry.digest(seed, hash),
        state_digest: entry.state_digest(seed, hash),
        hlc_max: entry.hlc_max(),
        kind: visible.map_or(Type::String, |(kind, _)| kind),
        shown: visible.is_some(),
        alive: entry.is_live(),
        raw_len: raw_len as u32,
        expire_at: visible.and_then(|(_, expire_at)| expire_at),
        len,
    }
}
