//! Changes of one vnode, whose lock is held.
//!
//! ```text
//!               in memory          in the log                          to the other replicas
//! apply  put    plain              State                               the same bytes
//!        rest   entry              State, or Join if that is shorter   whole or fragment
//! merge         plain or entry     State, or Join of what came         nothing
//! sole replica: a delete leaves nothing, in the log a Gone; plain strings go to nobody
//! forget        nothing          Gone                              nothing
//! ```
//!
//! A frame is a Join only where a State stands before it, so that what is in the log of a key can
//! be told from any State of it on. Encoded is once: what goes to replicas is copied to the log.

use bytes::BytesMut;
use dashmap::SharedValue;
use smallvec::SmallVec;

use crate::base::hash::{Digest, HashSeed};
use crate::base::id::Actor;
use crate::base::time::{Dot, Hlc, UnixMs};
use crate::value::apply::{ApplyError, Delta};
use crate::value::change::{Change, Edits, Expire};
use crate::value::entry::Entry;
use crate::value::packed::pack;
use crate::value::plain::{Plain, PlainJoin, expire_after, join_plain, put_over};
use crate::value::record::{
    Record, encode_encoded, encode_made, encode_plain, encode_whole, encoded_size,
};
use crate::value::view::{Missing, View, Views};

use super::block::{Block, Form, Table, blocks, table_size};
use super::footprint::Footprint;
use super::frame::Kind;
use super::keyspace::{Journal, Keyspace, Vnode};
use super::place::Place;
use super::vnode_read::{VnodeRead, end_of, find, is_alive, state_digest};
use super::warming::block_of;
use super::weight::{Weight, decoded};

/// Reads and changes of one vnode, whose lock is held.
pub struct VnodeWrite<'a> {
    pub(super) table: &'a mut Table,
    pub(super) vnode: &'a mut Vnode,
    pub(super) keyspace: &'a Keyspace,
    pub(super) journal: Journal<'a>,
    /// Whether there is a memory budget: looks are noted, and new blocks located.
    pub(super) visits: bool,
    pub(super) missing: &'a Missing,
    pub(super) now: UnixMs,
}

/// Who writes here.
#[derive(Clone, Copy)]
enum Author {
    Replica,
    /// One who may have forgotten what it wrote up to there.
    StandIn(Hlc),
}

/// What became of a peer's record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Merged {
    /// It is joined into what this node holds.
    Done,
    /// Nothing was done: the key must be warm for it.
    Cold,
}

impl Views for VnodeWrite<'_> {
    fn view(&self, key: &[u8]) -> Option<View<'_>> {
        let block = self.find(self.seed().key(key), key)?;
        if self.visits {
            block.visit();
        }
        self.read().view_of(block)
    }

    fn history(&self, key: &[u8]) -> Option<Entry> {
        self.read().history(key)
    }

    fn is_sole(&self) -> bool {
        self.vnode.sole
    }

    fn seed(&self) -> HashSeed {
        self.keyspace.seed()
    }
}

impl VnodeWrite<'_> {
    /// This vnode for reading.
    pub fn read(&self) -> VnodeRead<'_> {
        VnodeRead {
            table: self.table,
            seed: self.seed(),
            now: self.now,
            visits: self.visits,
            missing: self.missing,
        }
    }

    /// The keys whose values were asked for and are not in memory; begins anew.
    pub fn missing(&self) -> SmallVec<[Vec<u8>; 1]> {
        self.missing.take()
    }

    pub(super) fn seed(&self) -> HashSeed {
        self.keyspace.seed()
    }

    pub(super) fn find(&self, hash: u64, key: &[u8]) -> Option<&Block> {
        find(self.table, hash, key)
    }

    /// Whether `change` of `key` needs a value that is not in memory: the key must be warmed before
    /// it is applied. What overwrites or removes a plain string does not.
    pub fn lacks(&self, key: &[u8], change: &Change<'_>) -> bool {
        if !self.vnode.has_cold() {
            return false;
        }
        let Some(block) = self.find(self.seed().key(key), key) else { return false };
        match block.form() {
            Form::Plain(_) | Form::Entry(_) | Form::Large(_) => false,
            Form::ColdPlain(stub) => needs_value(&stub.plain, change, self.now),
            Form::ColdEntry(_) => !(self.vnode.sole && matches!(change, Change::Delete)),
        }
    }

    /// Carries out `change` of `key` as a write of `actor` (its first one is answered), and appends its record to `out` (a sole
    /// replica's plain writes have nobody to go to, and append nothing). On an error nothing was
    /// changed.
    ///
    /// # Panics
    /// If the change [lacks](Self::lacks) a value.
    pub fn apply(
        &mut self,
        key: &[u8],
        change: &Change<'_>,
        actor: Actor,
        out: &mut BytesMut,
    ) -> Result<Dot, ApplyError> {
        self.apply_as(Author::Replica, key, change, actor, out)
    }

    /// The same by a stand-in, which holds the key for others ([`Entry::apply_blind`]). As long as
    /// it has not forgotten anything that it wrote here, it writes as a replica does.
    ///
    /// # Panics
    /// As [`VnodeWrite::apply`].
    pub fn apply_blind(
        &mut self,
        key: &[u8],
        change: &Change<'_>,
        actor: Actor,
        out: &mut BytesMut,
    ) -> Result<Dot, ApplyError> {
        let author = self.vnode.forgotten.map_or(Author::Replica, Author::StandIn);
        self.apply_as(author, key, change, actor, out)
    }

    fn apply_as(
        &mut self,
        author: Author,
        key: &[u8],
        change: &Change<'_>,
        actor: Actor,
        out: &mut BytesMut,
    ) -> Result<Dot, ApplyError> {
        let after = match change {
            // The client may have seen writes of which this node has not heard.
            Change::Seen(seen) => self.vnode.hlc.max(seen.context.hlc_max()),
            _ => self.vnode.hlc,
        };
        let dot = Dot::new(after.next(self.now), actor);
        let (hash, now) = (self.seed().key(key), self.now);
        let applied = match change {
            Change::Put { value, expire } => self.put(hash, key, value, *expire, dot, out),
            Change::Delete if self.vnode.sole => {
                self.forget_sole(hash, key, || tombstone(dot, now));
                true
            }
            Change::Edit(edits) if matches!(author, Author::Replica) => {
                self.edit_large(hash, key, edits, dot, out)
            }
            _ => false,
        };
        let last = match applied {
            true => dot.hlc,
            false => self.apply_to_entry(author, hash, key, change, dot, out)?,
        };
        self.vnode.hlc = last;
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
        let (sole, seed, now, journal) = (self.vnode.sole, self.seed(), self.now, self.journal);
        let mut scratch = Vec::new();
        let value = pack(value, &mut scratch);
        let found = self.table.get_mut(hash, |(block, _)| block.is(hash, key));
        let Some((block, _)) = found else {
            let expire_at = expire_after(None, expire, now);
            let plain = Plain { dot, n: 1, expire_at, value };
            let place = log_plain(journal, sole, key, &plain, out);
            self.insert_plain(hash, key, &plain, place);
            return true;
        };
        let (existing, len) = match block.form() {
            Form::Plain(plain) => (plain, plain.value.bytes.len()),
            Form::ColdPlain(stub) => (stub.plain, stub.len),
            Form::Entry(_) | Form::Large(_) | Form::ColdEntry(_) => return false,
        };
        let n = match put_over(Some(&existing), dot) {
            Some(n) => n,
            None if sole => existing.n.saturating_add(1),
            None => return false,
        };
        let expire_at = expire_after(Some(&existing), expire, now);
        let plain = Plain { dot, n, expire_at, value };
        if (!self.visits || block.is_located()) && block.fits(&plain) {
            let old = Weight::of_value(seed, hash, key, &existing, len);
            let place = log_plain(journal, sole, key, &plain, out);
            block.overwrite(&plain, place);
            if self.visits {
                block.visit();
            }
            self.vnode.reweigh(hash, &old, &Weight::of_value(seed, hash, key, &plain, len));
            return true;
        }
        let old = Weight::of_plain(seed, hash, key, &existing, len, block);
        let place = log_plain(journal, sole, key, &plain, out);
        let new = replace(block, seed, hash, key, &plain, place, self.visits);
        self.reweigh(hash, &old, &new);
        true
    }

    /// The common write of a large collection: one edit of what is there, in place. `false` if it is
    /// anything else.
    fn edit_large(
        &mut self,
        hash: u64,
        key: &[u8],
        edits: &Edits<'_>,
        dot: Dot,
        out: &mut BytesMut,
    ) -> bool {
        let (sole, seed, now, journal) = (self.vnode.sole, self.seed(), self.now, self.journal);
        let found = self.table.get_mut(hash, |(block, _)| block.is(hash, key));
        let Some((block, _)) = found else { return false };
        let Some(entry) = block.large_mut() else { return false };
        let (old, before) = entry.measure(seed, hash);
        let Some(delta) = entry.edit_single(edits, dot, now) else { return false };
        let size = match &delta {
            Delta::Short(short) => short.len(),
            _ => 0,
        };
        let write = |out: &mut BytesMut| encode_made(out, key, &delta, entry);
        let start = out.len();
        if !sole {
            write(out);
        }
        let is_large = entry.is_large();
        let (new, after) = entry.measure(seed, hash);
        if size < new.1 {
            if sole {
                journal.append(Kind::Join, write);
            } else {
                journal.copy(Kind::Join, &out[start..]);
            }
            if block.is_whole() {
                block.unsettle(block.place().unwrap_or_default());
            }
        } else {
            let place = journal.append(Kind::State, |out| encode_whole(out, key, entry));
            block.settle(place);
        }
        let shrunk = (!is_large).then(|| (block.place().unwrap_or_default(), block.is_whole()));
        if before != after {
            let beside = block.beside();
            self.keyspace.resize_blocks(beside.with(before), beside.with(after));
        }
        self.vnode.reweigh_elements(hash, old, new);
        if let Some((base, whole)) = shrunk {
            let entry = self.take_entry(hash, key);
            let mut encoded = Vec::new();
            entry.encode(&mut encoded);
            self.let_go(hash, key);
            self.store_entry(hash, key, &entry, &encoded, base, whole);
        }
        true
    }

    fn apply_to_entry(
        &mut self,
        author: Author,
        hash: u64,
        key: &[u8],
        change: &Change<'_>,
        dot: Dot,
        out: &mut BytesMut,
    ) -> Result<Hlc, ApplyError> {
        let found = self.find(hash, key);
        let base = found.map(|block| block.place().unwrap_or_default());
        if let Some(Form::ColdPlain(stub)) = found.map(Block::form) {
            let needs = needs_value(&stub.plain, change, self.now);
            assert!(!needs, "a key is warmed before a change that needs its value");
        }
        let mut entry = self.take_entry(hash, key);
        entry.order_by(self.seed());
        let applied = match author {
            Author::Replica => entry.apply(change, dot, self.now),
            Author::StandIn(forgotten) => entry.apply_blind(change, dot, self.now, forgotten),
        };
        let delta = match applied {
            Ok(delta) => delta,
            Err(error) => {
                self.put_back(hash, key, entry);
                return Err(error);
            }
        };
        // A command on a collection makes several writes, one after the other.
        let last = dot.hlc.max(entry.hlc_max());
        let start = out.len();
        if let Some(plain) = entry.as_plain() {
            encode_plain(out, key, &plain);
            let place = self.journal.copy(Kind::State, &out[start..]);
            self.let_go(hash, key);
            self.store_plain(hash, key, &plain, place);
            return Ok(last);
        }
        let mut encoded = Vec::new();
        let is_large = entry.is_large();
        if !is_large {
            entry.encode(&mut encoded);
        }
        match &delta {
            Delta::Whole if !is_large => encode_encoded(out, key, &encoded),
            delta => encode_made(out, key, delta, &entry),
        }
        if self.vnode.sole && entry.is_tombstone() {
            self.forget_sole(hash, key, || entry);
        } else {
            self.log_entry(hash, key, entry, &encoded, base, &out[start..]);
        }
        Ok(last)
    }

    /// Joins a peer's record of `key`, which came as `bytes`, into what this node holds.
    pub fn merge(&mut self, key: &[u8], record: &Record<'_>, bytes: &[u8]) -> Merged {
        let seed = self.seed();
        let hash = seed.key(key);
        let found = self.find(hash, key);
        if let Record::Plain(incoming) = record {
            let verdict = match found.map(Block::form) {
                None => PlainJoin::Replace,
                Some(Form::Plain(existing)) => join_plain(&existing, incoming),
                Some(Form::ColdPlain(stub)) => join_plain(&stub.plain, incoming),
                Some(Form::Entry(_) | Form::Large(_) | Form::ColdEntry(_)) => PlainJoin::NeedsEntry,
            };
            if verdict != PlainJoin::NeedsEntry {
                if verdict == PlainJoin::Replace {
                    let place = self.journal.copy(Kind::State, bytes);
                    self.store_plain(hash, key, incoming, place);
                }
                self.vnode.hlc = self.vnode.hlc.max(incoming.dot.hlc);
                return Merged::Done;
            }
        }
        if let Some(block) = found.filter(|block| block.is_cold()) {
            let same = digest_of(seed, hash, record) == Some(state_digest(seed, hash, block));
            return if same { Merged::Done } else { Merged::Cold };
        }
        let base = found.map(|block| block.place().unwrap_or_default());
        let mut entry = self.take_entry(hash, key);
        entry.order_by(seed);
        let before = entry.state_digest(seed, hash);
        // The log may be read by a cluster of another secret, whose ranges are others.
        let named = record.named(key, &entry);
        let (record, bytes) = named.as_ref().map_or((record, bytes), |(named, at)| (named, at));
        record.join_into(&mut entry);
        self.vnode.hlc = self.vnode.hlc.max(entry.hlc_max());
        if entry.state_digest(seed, hash) != before {
            self.log_merged(hash, key, entry, base, bytes);
        } else {
            self.put_back(hash, key, entry);
        }
        Merged::Done
    }

    fn log_merged(
        &mut self,
        hash: u64,
        key: &[u8],
        entry: Entry,
        base: Option<Place>,
        bytes: &[u8],
    ) {
        if self.vnode.sole && entry.is_tombstone() {
            return self.forget_sole(hash, key, || entry);
        }
        if let Some(plain) = entry.as_plain() {
            let place = self.journal.append(Kind::State, |out| encode_plain(out, key, &plain));
            self.let_go(hash, key);
            return self.store_plain(hash, key, &plain, place);
        }
        let mut encoded = Vec::new();
        if !entry.is_large() {
            entry.encode(&mut encoded);
        }
        self.log_entry(hash, key, entry, &encoded, base, bytes);
    }

    /// Logs and stores an entry that the change `record` led to, from a state that was in the log
    /// from `base` on. A Join makes the log longer to read, so it must at least be shorter to write.
    /// `encoded` is nothing of a large entry.
    fn log_entry(
        &mut self,
        hash: u64,
        key: &[u8],
        entry: Entry,
        encoded: &[u8],
        base: Option<Place>,
        record: &[u8],
    ) {
        let is_large = encoded.is_empty();
        let size = if is_large { entry.size() } else { encoded.len() };
        let joins = record.len() < encoded_size(key.len(), size);
        let (base, whole) = match base.filter(|_| joins) {
            Some(base) => {
                self.journal.copy(Kind::Join, record);
                (base, false)
            }
            None if is_large => {
                let write = |out: &mut BytesMut| encode_whole(out, key, &entry);
                (self.journal.append(Kind::State, write), true)
            }
            None => {
                let write = |out: &mut BytesMut| encode_encoded(out, key, encoded);
                (self.journal.append(Kind::State, write), true)
            }
        };
        if is_large {
            self.store_large(hash, key, entry, base, whole);
        } else {
            self.let_go(hash, key);
            self.store_entry(hash, key, &entry, encoded, base, whole);
        }
    }

    /// The entry of a key that is not cold (a cold plain string comes without its value), to be
    /// changed and stored again; a new one of a key that was never written. What a large block held
    /// is taken out of it and out of the sums: until it is [put back](Self::put_back), stored again
    /// or [let go](Self::let_go), the block holds nothing.
    pub(super) fn take_entry(&mut self, hash: u64, key: &[u8]) -> Entry {
        let seed = self.seed();
        let found = self.table.get_mut(hash, |(block, _)| block.is(hash, key));
        let Some((block, _)) = found else { return Entry::new() };
        match block.form() {
            Form::Plain(plain) => return Entry::from_plain(&plain),
            Form::ColdPlain(stub) => return Entry::from_plain(&stub.plain),
            Form::Entry(bytes) => return decoded(bytes),
            Form::ColdEntry(_) => panic!("a key is warmed before a change of its entry"),
            Form::Large(_) => {}
        }
        let old = Weight::of(seed, hash, block);
        let entry = std::mem::take(block.large_mut().expect("a large block"));
        let new = Weight::of(seed, hash, block);
        self.reweigh(hash, &old, &new);
        entry
    }

    /// Puts an entry that was taken back as it was, where that is needed.
    fn put_back(&mut self, hash: u64, key: &[u8], entry: Entry) {
        let found = self.find(hash, key).filter(|block| matches!(block.form(), Form::Large(_)));
        if let Some(block) = found {
            let (base, whole) = (block.place().unwrap_or_default(), block.is_whole());
            self.store_large(hash, key, entry, base, whole);
        }
    }

    /// Takes a large block that holds nothing any more away: another will stand there.
    pub(super) fn let_go(&mut self, hash: u64, key: &[u8]) {
        let is_large = |block: &&Block| matches!(block.form(), Form::Large(_));
        if self.find(hash, key).filter(is_large).is_some() {
            self.remove(hash, key);
        }
    }

    /// Puts a large entry into memory, in place where there is a large block. `base` and `whole`:
    /// see [`Block::entry`].
    pub(super) fn store_large(
        &mut self,
        hash: u64,
        key: &[u8],
        mut entry: Entry,
        base: Place,
        whole: bool,
    ) {
        let seed = self.seed();
        let found = self.table.get_mut(hash, |(block, _)| block.is(hash, key));
        if let Some((block, _)) = found
            && matches!(block.form(), Form::Large(_))
        {
            let old = Weight::of(seed, hash, block);
            if !entry.keeps_digest() {
                entry.keep_digest(seed, hash);
            }
            *block.large_mut().expect("a large block") = entry;
            if whole {
                block.settle(base);
            } else {
                block.unsettle(base);
            }
            let new = Weight::of(seed, hash, block);
            return self.reweigh(hash, &old, &new);
        }
        let fresh = block_of(seed, hash, key, entry, base, whole);
        let new = Weight::of(seed, hash, &fresh);
        self.store(hash, key, fresh, &new);
    }

    /// Puts a plain string into memory, whose State is at `place`.
    pub(super) fn store_plain(&mut self, hash: u64, key: &[u8], plain: &Plain<'_>, place: Place) {
        let (seed, visits) = (self.seed(), self.visits);
        match self.table.get_mut(hash, |(block, _)| block.is(hash, key)) {
            Some((block, _)) => {
                let old = Weight::of(seed, hash, block);
                let new = replace(block, seed, hash, key, plain, place, visits);
                self.reweigh(hash, &old, &new);
            }
            None => self.insert_plain(hash, key, plain, place),
        }
    }

    fn insert_plain(&mut self, hash: u64, key: &[u8], plain: &Plain<'_>, place: Place) {
        let block = Block::plain(hash, key, plain, self.visits.then_some(place));
        let len = plain.value.bytes.len();
        let new = Weight::of_plain(self.seed(), hash, key, plain, len, &block);
        self.insert(hash, block);
        self.reweigh(hash, &Weight::NONE, &new);
    }

    /// Puts an entry into memory. `base` and `whole`: see [`Block::entry`].
    pub(super) fn store_entry(
        &mut self,
        hash: u64,
        key: &[u8],
        entry: &Entry,
        encoded: &[u8],
        base: Place,
        whole: bool,
    ) {
        let fresh = Block::entry(hash, key, encoded, base, whole);
        let new = Weight::of_entry(self.seed(), hash, key, entry, encoded.len(), &fresh);
        self.store(hash, key, fresh, &new);
    }

    /// Puts a block of this weight in the place of the key's block.
    pub(super) fn store(&mut self, hash: u64, key: &[u8], fresh: Block, new: &Weight) {
        let (seed, visits) = (self.seed(), self.visits);
        let old = match self.table.get_mut(hash, |(block, _)| block.is(hash, key)) {
            Some((block, _)) => {
                let old = Weight::of(seed, hash, block);
                let again = visits && !block.is_cold();
                *block = fresh;
                if again {
                    block.visit();
                }
                old
            }
            None => {
                self.insert(hash, fresh);
                Weight::NONE
            }
        };
        self.reweigh(hash, &old, new);
    }

    fn insert(&mut self, hash: u64, block: Block) {
        let seed = self.seed();
        let before = self.table.buckets();
        self.table.insert(hash, (block, SharedValue::new(())), |(block, _)| seed.key(block.key()));
        if self.table.buckets() != before || self.vnode.table == 0 {
            self.weigh_table();
        }
    }

    /// Forgets what is held of `key` for others, if that is still the state with this digest: all
    /// replicas have it. `actor` is this node's.
    pub fn forget(&mut self, key: &[u8], state: Digest, actor: Actor) -> bool {
        let seed = self.seed();
        let hash = seed.key(key);
        let Some(block) = self.find(hash, key) else { return false };
        if state_digest(seed, hash, block) != state {
            return false;
        }
        let wrote = match block.form() {
            Form::Plain(plain) => plain.dot.actor == actor,
            Form::ColdPlain(stub) => stub.plain.dot.actor == actor,
            Form::Entry(bytes) => knows_of(&decoded(bytes), actor),
            Form::Large(entry) => knows_of(entry, actor),
            // Its history is on disk.
            Form::ColdEntry(_) => true,
        };
        if wrote {
            self.vnode.forgotten = Some(self.vnode.hlc);
        }
        self.remove(hash, key);
        if key.is_empty() {
            // As of a sole replica; of a state that knows nothing no block is made either.
            self.journal.append(Kind::State, |out| encode_whole(out, key, &Entry::new()));
        } else {
            self.journal.copy(Kind::Gone, key);
        }
        true
    }

    /// This node may have written keys here in an earlier process and forgotten them since.
    pub(super) fn suspect_forgotten(&mut self) {
        self.vnode.forgotten = Some(self.vnode.hlc);
    }

    /// Forgets what is held of a key, of which `tombstone` would be left: only for a sole replica.
    fn forget_sole(&mut self, hash: u64, key: &[u8], tombstone: impl FnOnce() -> Entry) {
        if !self.remove(hash, key) {
            return;
        }
        if key.is_empty() {
            // A Gone without a key says that all keys are gone. A State of the tombstone says it
            // of the empty one, and is not kept in memory either.
            self.journal.append(Kind::State, |out| encode_whole(out, key, &tombstone()));
        } else {
            self.journal.copy(Kind::Gone, key);
        }
    }

    /// Takes a key out of memory; says whether it was there.
    pub(super) fn remove(&mut self, hash: u64, key: &[u8]) -> bool {
        let removed = self.table.remove_entry(hash, |(block, _)| block.is(hash, key));
        if let Some((block, _)) = &removed {
            let old = Weight::of(self.seed(), hash, block);
            self.reweigh(hash, &old, &Weight::NONE);
        }
        removed.is_some()
    }

    pub(super) fn reweigh(&mut self, hash: u64, old: &Weight, new: &Weight) {
        self.vnode.reweigh(hash, old, new);
        self.keyspace.resize_blocks(old.size, new.size);
    }

    /// Makes the table large enough for `keys` keys, so that it need not grow step by step: each step
    /// looks at every key.
    pub(super) fn reserve(&mut self, keys: usize) {
        let seed = self.seed();
        let more = keys.saturating_sub(self.table.len());
        self.table.reserve(more, |(block, _)| seed.key(block.key()));
        self.weigh_table();
    }

    /// Gives back what the table has too much.
    pub(super) fn fit_table(&mut self) {
        let seed = self.seed();
        self.table.shrink_to(0, |(block, _)| seed.key(block.key()));
        self.weigh_table();
    }

    fn weigh_table(&mut self) {
        let size = table_size(self.table);
        self.keyspace.resize_tables(self.vnode.table, size);
        self.vnode.table = size;
    }

    /// Deletes `key` if it has expired and still holds a value; appends the delete's record. A cold
    /// key whose delete needs the value is noted as missing and stays for now.
    pub fn collect(&mut self, key: &[u8], actor: Actor, out: &mut BytesMut) -> bool {
        let reading = self.read();
        let Some(block) = reading.find(self.seed().key(key), key) else { return false };
        if !is_alive(&block.form()) || reading.view_of(block).is_some() {
            return false;
        }
        if self.lacks(key, &Change::Delete) {
            self.missing.note(key);
            return false;
        }
        self.apply(key, &Change::Delete, actor, out).is_ok()
    }

    /// Finds the next expiry anew, after a sweep has removed what was due.
    pub fn settle_expiry(&mut self) {
        let ends = blocks(self.table).filter_map(|block| end_of(&block.form()));
        self.vnode.next_expiry = ends.min();
    }

    /// Forgets every key at once: only for a sole replica, where no other copy needs a tombstone.
    pub fn clear_sole(&mut self) {
        assert!(self.vnode.sole, "another replica would bring the keys back");
        self.journal.copy(Kind::Gone, b"");
        self.vnode.hlc = self.vnode.hlc.next(self.now);
        self.clear();
    }

    /// Takes all keys out of memory.
    pub(super) fn clear(&mut self) {
        let sizes = blocks(self.table).map(Block::footprint);
        let size = sizes.fold(Footprint::default(), Footprint::plus);
        self.keyspace.resize_blocks(size, Footprint::default());
        *self.table = Table::new();
        self.weigh_table();
        self.vnode.clear();
    }
}

/// Logs a plain string and appends its record for the other replicas, if there are any.
fn log_plain(
    journal: Journal<'_>,
    sole: bool,
    key: &[u8],
    plain: &Plain<'_>,
    out: &mut BytesMut,
) -> Place {
    if sole {
        return journal.append(Kind::State, |lane| encode_plain(lane, key, plain));
    }
    let start = out.len();
    encode_plain(out, key, plain);
    journal.copy(Kind::State, &out[start..])
}

/// Puts another plain string of the same key into a block, in place if it fits; says its weight.
fn replace(
    block: &mut Block,
    seed: HashSeed,
    hash: u64,
    key: &[u8],
    plain: &Plain<'_>,
    place: Place,
    visits: bool,
) -> Weight {
    let again = visits && !block.is_cold();
    if (visits && !block.is_located()) || !block.overwrite(plain, place) {
        *block = Block::plain(hash, key, plain, visits.then_some(place));
    }
    if again {
        block.visit();
    }
    Weight::of_plain(seed, hash, key, plain, plain.value.bytes.len(), block)
}

/// Whether an actor has written in an entry.
fn knows_of(entry: &Entry, actor: Actor) -> bool {
    let mut marks = entry.context().vector().iter().chain(entry.context().cloud());
    marks.any(|mark| mark.dot.actor == actor)
}

/// What a delete leaves of a key that was never written.
fn tombstone(dot: Dot, now: UnixMs) -> Entry {
    let mut entry = Entry::new();
    // A delete of nothing gathers no siblings.
    let deleted = entry.apply(&Change::Delete, dot, now);
    debug_assert_eq!(deleted, Ok(Delta::Whole));
    entry
}

/// Whether `change` of a plain string looks at its value: overwriting and removing does not, on an
/// expired one everything begins anew, and what a client has not seen must be kept.
fn needs_value(plain: &Plain<'_>, change: &Change<'_>, now: UnixMs) -> bool {
    match change {
        Change::Put { .. } | Change::Delete => false,
        Change::Increment(_) | Change::Expire(_) => plain.is_visible(now),
        Change::Seen(seen) => !seen.context.contains(plain.dot),
        // Whoever edits a collection found none here: what there is goes.
        Change::Edit(_) | Change::Make(_) => false,
    }
}

/// The digest of the state that a record is, if it is one.
fn digest_of(seed: HashSeed, hash: u64, record: &Record<'_>) -> Option<Digest> {
    match record {
        Record::Plain(plain) => Some(plain.state_digest(seed, hash)),
        Record::Whole(entry) => Some(entry.state_digest(seed, hash)),
        Record::Delta(_) | Record::Part(_) => None,
    }
}
