//! From the log's frames to memory, and which of them still count.
//!
//! Frames of a lane are replayed in the order in which they were written: a State supersedes, a
//! Join joins, a Gone removes. That gives what was in memory, for each of them was appended under
//! the lock under which memory changed.
//!
//! Compaction asks of the frames of the oldest segment whether they are live, and moves those
//! forward: a State of what memory holds now is appended, and all that stood before it is dead.

use crate::base::wire::WireError;
use crate::value::entry::Entry;
use crate::value::plain::Plain;
use crate::value::record::{self, Record, encode_encoded, encode_plain, encode_whole};

use super::block::{Block, Form};
use super::frame::Kind;
use super::place::Place;
use super::vnode_write::VnodeWrite;
use super::warming::ColdRecord;
use super::weight::Weight;

impl VnodeWrite<'_> {
    /// Does what the frame at `place` says. Nothing is appended; whether the vnode is sole must
    /// have been said before.
    ///
    /// # Errors
    /// The payload is no record, or is to be joined into a cold one that cannot be read. Nothing
    /// was changed.
    pub fn replay(&mut self, kind: Kind, place: Place, payload: &[u8]) -> Result<(), WireError> {
        self.keyspace.set_replaying(true);
        match kind {
            Kind::State => self.replay_state(place, payload),
            Kind::Join => self.replay_join(payload),
            Kind::Gone if payload.is_empty() => {
                self.clear();
                Ok(())
            }
            Kind::Gone => {
                self.remove(self.seed().key(payload), payload);
                Ok(())
            }
            Kind::Mark => Ok(()),
        }
    }

    fn replay_state(&mut self, place: Place, payload: &[u8]) -> Result<(), WireError> {
        let (key, record) = record::decode(payload)?;
        let hash = self.seed().key(key);
        match &record {
            Record::Plain(plain) => self.store_plain(hash, key, plain, place),
            Record::Whole(_) => {}
            Record::Delta(_) | Record::Part(_) => return Err(WireError::Malformed("state")),
        }
        self.vnode.hlc = self.vnode.hlc.max(record.hlc_max());
        if let Record::Whole(entry) = record {
            self.let_go(hash, key);
            self.replay_entry(hash, key, entry, place, true);
        }
        Ok(())
    }

    fn replay_join(&mut self, payload: &[u8]) -> Result<(), WireError> {
        let (key, record) = record::decode(payload)?;
        if matches!(&record, Record::Part(part) if !part.is_named()) {
            return Err(WireError::Malformed("part"));
        }
        let hash = self.seed().key(key);
        let found = self.find(hash, key);
        let base = found.and_then(Block::place).unwrap_or_default();
        let mut entry = match found.and_then(ColdRecord::of) {
            None => self.take_entry(hash, key),
            Some(cold) => self.read_cold(&cold)?,
        };
        record.join_into(&mut entry);
        self.vnode.hlc = self.vnode.hlc.max(entry.hlc_max());
        // Even one that has the plain form stays an entry here: its newest frame is no State of it.
        self.replay_entry(hash, key, entry, base, false);
        Ok(())
    }

    fn replay_entry(&mut self, hash: u64, key: &[u8], entry: Entry, base: Place, whole: bool) {
        let is_nothing = !entry.is_live() && entry.context().is_empty();
        if is_nothing || self.vnode.sole && entry.is_tombstone() {
            self.remove(hash, key);
            return;
        }
        if entry.is_large() {
            return self.store_large(hash, key, entry, base, whole);
        }
        let mut encoded = Vec::new();
        entry.encode(&mut encoded);
        self.store_entry(hash, key, &entry, &encoded, base, whole);
    }

    /// The entry of a cold key, read under the lock: only while nobody else is there.
    fn read_cold(&self, cold: &ColdRecord) -> Result<Entry, WireError> {
        const LOST: WireError = WireError::Malformed("place of a cold record");
        let log = self.journal.log().ok_or(LOST)?;
        let payload = log.read(self.journal.vnode, cold.place, cold.size).map_err(|_| LOST)?;
        let (key, record) = record::decode(&payload)?;
        if key != cold.key {
            return Err(LOST);
        }
        let mut entry = Entry::new();
        record.join_into(&mut entry);
        Ok(entry)
    }

    /// Does what the State at `place` says, whose record is `plain` with a value of `stored_len`
    /// bytes that were not read: the key is cold then. Nothing is appended.
    pub fn replay_stub(&mut self, place: Place, key: &[u8], plain: &Plain<'_>, stored_len: usize) {
        self.keyspace.set_replaying(true);
        let hash = self.seed().key(key);
        let block = Block::cold_plain(hash, key, plain, stored_len, place);
        let new = Weight::of_plain(self.seed(), hash, key, plain, stored_len, &block);
        self.store(hash, key, block, &new);
        self.vnode.hlc = self.vnode.hlc.max(plain.dot.hlc);
    }

    /// Whether the frame at `place` says anything that is not said later: then it is to be
    /// [moved forward](Self::move_forward) before its segment goes.
    ///
    /// All segments before this one must be gone. `false` is sure; `true` may be said of a frame
    /// that is dead, for a plain string whose place is not kept is known by its dot alone.
    pub fn is_live(&self, kind: Kind, place: Place, payload: &[u8]) -> bool {
        if !matches!(kind, Kind::State | Kind::Join) {
            return false;
        }
        let Ok(key) = record::decode_key(payload) else { return false };
        let Some(block) = self.find(self.seed().key(key), key) else { return false };
        match (block.form(), block.place()) {
            (Form::Entry(_) | Form::Large(_), base) => place >= base.unwrap_or_default(),
            (_, Some(at)) => kind == Kind::State && place == at,
            (Form::Plain(plain), None) => match record::decode(payload) {
                Ok((_, Record::Plain(stored))) => stored.dot == plain.dot,
                _ => false,
            },
            (Form::ColdPlain(_) | Form::ColdEntry(_), None) => {
                unreachable!("a cold key has a place")
            }
        }
    }

    /// Appends a State of what is held of the key of a live frame, whose payload this is, so that
    /// the frame and all before it are dead.
    pub fn move_forward(&mut self, place: Place, payload: &[u8]) {
        debug_assert!(
            self.is_live(Kind::State, place, payload) || self.is_live(Kind::Join, place, payload),
            "only what is live is moved"
        );
        let Ok(key) = record::decode_key(payload) else { return };
        let (hash, journal) = (self.seed().key(key), self.journal);
        let found = self.table.get_mut(hash, |(block, _)| block.is(hash, key));
        let Some((block, _)) = found else { return };
        let moved = journal.append(Kind::State, |out| match block.form() {
            Form::Plain(plain) => encode_plain(out, key, &plain),
            Form::Entry(bytes) => encode_encoded(out, key, bytes),
            Form::Large(entry) => encode_whole(out, key, entry),
            Form::ColdPlain(_) | Form::ColdEntry(_) => out.extend_from_slice(payload),
        });
        block.settle(moved);
    }
}
