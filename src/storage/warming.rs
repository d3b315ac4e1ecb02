//! From the log back to memory: cold keys that are wanted again.
//!
//! Reading waits for the disk, so it is done without any lock. Meanwhile the key may change, or
//! its frame move to another segment; so what was read is believed only if, under the lock, the
//! key is still cold and the record is the one that its stub tells of.

use std::io;
use std::sync::atomic::Ordering;

use crate::base::hash::HashSeed;
use crate::base::id::VnodeId;
use crate::base::time::UnixMs;
use crate::value::entry::Entry;
use crate::value::record::{self, Record, encoded_size, plain_size};

use super::block::{Block, Form};
use super::frame::HEADER_SIZE;
use super::keyspace::Keyspace;
use super::log::{Commit, Log};
use super::place::Place;
use super::vnode_read::{VnodeRead, record_of};
use super::vnode_write::VnodeWrite;
use super::weight::Weight;

/// How long a caller is ready to wait for a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Patience {
    /// Not at all: only if the system has it in memory.
    Now,
    /// As long as the disk takes. For threads that may stand still.
    Wait,
}

/// What became of warming a key.
#[derive(Debug)]
#[must_use]
pub enum Warmed {
    /// The key is not cold (any more).
    Done,
    /// The disk would have to be waited for. Nothing was changed.
    WouldWait,
    /// The value cannot be read. The key is still cold.
    Lost(io::Error),
}

/// Where a key's value is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tier {
    /// Nothing is held of the key.
    None,
    /// In memory.
    Hot {
        /// Whether it was looked at since the last sweep for memory.
        visited: bool,
    },
    /// In the log only.
    Cold,
}

/// The record of a key that is in the log only.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ColdRecord {
    /// The key.
    pub key: Vec<u8>,
    /// Where the State is that is the record.
    pub(super) place: Place,
    /// Bytes of its frame.
    pub(super) size: usize,
}

impl ColdRecord {
    /// Of a block, if it is cold.
    pub(super) fn of(block: &Block) -> Option<ColdRecord> {
        let key = block.key();
        let size = match block.form() {
            Form::Plain(_) | Form::Entry(_) | Form::Large(_) => return None,
            Form::ColdPlain(stub) => plain_size(key.len(), &stub.plain, stub.len),
            Form::ColdEntry(stub) => encoded_size(key.len(), stub.len),
        };
        let place = block.place().expect("a cold key has a place");
        Some(ColdRecord { key: key.to_vec(), place, size: HEADER_SIZE + size })
    }
}

/// Whether a record that was read is the one that a cold block stands for.
enum Match {
    /// It is, or none is needed any more.
    Done,
    /// The key has changed or moved: look again.
    Moved,
    /// The log holds something else at that place.
    Wrong,
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the log holds another record at that place")
}

/// Reads a cold record, which compaction may have moved forward a moment ago.
fn read(
    log: &Log,
    vnode: VnodeId,
    cold: &ColdRecord,
    patience: Patience,
) -> io::Result<Option<Vec<u8>>> {
    if !log.is_written(vnode, cold.place) {
        if patience == Patience::Now {
            return Ok(None);
        }
        let mut commit = Commit::default();
        log.note(vnode, &mut commit);
        // Not held: where syncs fail it is the syncer that warms.
        log.write_out(&commit).map_err(io::Error::other)?;
    }
    match patience {
        Patience::Now => log.read_now(vnode, cold.place, cold.size),
        Patience::Wait => log.read(vnode, cold.place, cold.size).map(Some),
    }
}

impl Keyspace {
    /// Makes a cold key hot.
    pub fn warm(&self, vnode: VnodeId, key: &[u8], now: UnixMs, patience: Patience) -> Warmed {
        let mut missed = None;
        loop {
            let cold = self.read(vnode, now, |keys| keys.cold_record(key));
            let (Some(cold), Some(log)) = (cold, self.log()) else { return Warmed::Done };
            match read(log, vnode, &cold, patience) {
                Ok(None) => return Warmed::WouldWait,
                Ok(Some(payload)) => {
                    match self.write(vnode, now, |keys| keys.warm_with(&cold, &payload)) {
                        Match::Done => return Warmed::Done,
                        Match::Moved => {}
                        Match::Wrong => return Warmed::Lost(damaged()),
                    }
                }
                // Its segment went while we looked: the key has moved, or something is wrong.
                Err(error)
                    if error.kind() == io::ErrorKind::NotFound && missed != Some(cold.place) =>
                {
                    missed = Some(cold.place);
                }
                Err(error) => return Warmed::Lost(error),
            }
        }
    }

    /// The bytes of a record that was cold when it was looked for; the key stays as it is. Waits
    /// for the disk.
    ///
    /// # Errors
    /// The disk's; `NotFound` if nothing is held of the key any more; `InvalidData` for damage.
    pub fn fetch(&self, vnode: VnodeId, cold: &ColdRecord) -> io::Result<Vec<u8>> {
        let log = self.log().ok_or(io::ErrorKind::NotFound)?;
        let mut cold = cold.clone();
        loop {
            match read(log, vnode, &cold, Patience::Wait) {
                Ok(Some(payload)) if record::decode_key(&payload) == Ok(&cold.key) => {
                    return Ok(payload);
                }
                Ok(_) => return Err(damaged()),
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Err(_) => {}
            }
            let mut hot = bytes::BytesMut::new();
            let again = self.read(vnode, UnixMs(0), |keys| {
                let block = keys.find(self.seed().key(&cold.key), &cold.key)?;
                record_of(block, &mut hot);
                ColdRecord::of(block)
            });
            match again {
                None if !hot.is_empty() => return Ok(hot.to_vec()),
                Some(moved) if moved.place != cold.place => cold = moved,
                _ => return Err(io::ErrorKind::NotFound.into()),
            }
        }
    }
}

impl VnodeRead<'_> {
    fn cold_record(&self, key: &[u8]) -> Option<ColdRecord> {
        ColdRecord::of(self.find(self.seed.key(key), key)?)
    }
}

/// The block of an entry, in the form that its size asks for. `base` and `whole`: see
/// [`Block::entry`].
pub(super) fn block_of(
    seed: HashSeed,
    hash: u64,
    key: &[u8],
    mut entry: Entry,
    base: Place,
    whole: bool,
) -> Block {
    if entry.is_large() {
        entry.order_by(seed);
        entry.keep_digest(seed, hash);
        return Block::large(hash, key, Box::new(entry), base, whole);
    }
    let mut encoded = Vec::new();
    entry.encode(&mut encoded);
    Block::entry(hash, key, &encoded, base, whole)
}

impl VnodeWrite<'_> {
    fn warm_with(&mut self, cold: &ColdRecord, payload: &[u8]) -> Match {
        let (key, seed) = (&cold.key[..], self.seed());
        let hash = seed.key(key);
        let found = self.table.get_mut(hash, |(block, _)| block.is(hash, key));
        let Some((block, _)) = found.filter(|(block, _)| block.is_cold()) else {
            return Match::Done;
        };
        let place = block.place().expect("a cold key has a place");
        let warm = match (block.form(), record::decode(payload)) {
            (Form::ColdPlain(stub), Ok((named, Record::Plain(plain))))
                if named == key
                    && plain.dot == stub.plain.dot
                    && plain.value.bytes.len() == stub.len =>
            {
                Block::plain(hash, key, &plain, Some(place))
            }
            (Form::ColdEntry(stub), Ok((named, Record::Whole(entry))))
                if named == key && entry.state_digest(seed, hash) == stub.state_digest =>
            {
                block_of(seed, hash, key, entry, place, true)
            }
            _ if place != cold.place => return Match::Moved,
            _ => return Match::Wrong,
        };
        self.keyspace.resize_blocks(block.footprint(), warm.footprint());
        if let Form::Large(_) = warm.form() {
            let old = Weight::of(seed, hash, block).stored;
            self.vnode.resize_stored(old, Weight::of(seed, hash, &warm).stored);
        }
        *block = warm.freshly_warmed();
        self.vnode.turn(false);
        self.keyspace.sweep.warmed.fetch_add(1, Ordering::Relaxed);
        Match::Done
    }
}
