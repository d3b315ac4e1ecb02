//! What a failed sync may have lost, appended again.
//!
//! After a failed fsync(2) nobody knows which of the written bytes will survive the machine, and
//! asking again answers nothing (Rebello and others, "Can applications recover from fsync
//! failures?", 2020). The bytes can still be read, though, and memory still holds what they said:
//!
//! ```text
//! frames that may be lost ── State, Join, still live ──► a State of what memory holds now
//!                         ── Gone, still gone ─────────► a Gone
//!                         ── Gone of all keys ─────────► the same, and a State of every key
//!          cannot be read ── every hot key ────────────► a State, if it may be lost or we don't know
//! ```
//!
//! Invariant: once all that was appended here is durable, nothing depends on what may be lost.

use bytes::BytesMut;

use crate::base::id::VnodeId;
use crate::base::time::UnixMs;

use crate::value::record::{self, Record};

use super::block::{Block, TAGS, block_at};
use super::frame::{HEADER_SIZE, Header, Kind};
use super::keyspace::Keyspace;
use super::log::Log;
use super::place::Place;
use super::segment::HEAD_SIZE;
use super::syncer::Lost;
use super::vnode_read::record_of;
use super::vnode_write::VnodeWrite;
use super::warming::Patience;

/// Bytes that are read at once.
const READ_SIZE: usize = 1 << 20;

/// How many keys, more or less, are appended again under one lock.
const KEYS_AT_ONCE: usize = 64;

/// Tries to have no cold key in a vnode all of whose keys are appended again.
const TRIES: usize = 8;

impl Keyspace {
    /// Appends again what a lane may have lost. Waits for the disk, but not for durability. Says
    /// whether that is all of it: `false` if some cold key's value may be lost.
    pub fn reappend(&self, lost: Lost) -> bool {
        let Some(log) = self.log() else { return true };
        let sealed = log.segments(lost.lane);
        // What could not even be written cannot be read.
        let last = Place { offset: lost.upto.offset.saturating_sub(1), ..lost.upto };
        let written = log.is_written(VnodeId(lost.lane as u16), last);
        let mut whole = written || self.reappend_unread(log, lost);
        for number in lost.from.segment..=lost.upto.segment {
            if sealed.iter().any(|segment| segment.number == number) {
                continue;
            }
            let start = if number == lost.from.segment { lost.from.offset as usize } else { 0 };
            let Some(len) = log.segment_len(lost.lane, number) else { continue };
            let end = if number == lost.upto.segment { lost.upto.offset } else { len as u32 };
            let mut walk = Walk::new(log, lost.lane, number, start.max(HEAD_SIZE));
            while let Some((header, place, payload)) = walk.step(end) {
                whole &= self.reappend_frame(header, place, payload);
            }
            whole &= walk.at() >= end as usize || self.reappend_unread(log, lost);
        }
        whole
    }

    fn reappend_frame(&self, header: Header, place: Place, payload: &[u8]) -> bool {
        if header.vnode.index() >= self.vnodes.len() {
            return true;
        }
        if header.kind == Kind::Gone && payload.is_empty() {
            return self.reappend_cleared(header.vnode);
        }
        self.write(header.vnode, UnixMs(0), |keys| match header.kind {
            Kind::Gone => keys.reappend_gone(payload),
            kind if keys.is_live(kind, place, payload) => keys.move_forward(place, payload),
            Kind::State => keys.reappend_tombstone(payload),
            _ => {}
        });
        true
    }

    /// All keys were cleared; those that came since then must come after the clear again.
    fn reappend_cleared(&self, vnode: VnodeId) -> bool {
        for _ in 0..TRIES {
            let cold = self.read(vnode, UnixMs(0), |keys| keys.records(|_| true, |_, _| {}));
            for cold in cold {
                // What cannot be read is seen below.
                let _ = self.warm(vnode, &cold.key, UnixMs(0), Patience::Wait);
            }
            if self.write(vnode, UnixMs(0), |keys| keys.reappend_all()) {
                return true;
            }
        }
        false
    }

    /// Appends a State of every hot key of a lane whose newest frames may be lost.
    fn reappend_unread(&self, log: &Log, lost: Lost) -> bool {
        let mut whole = true;
        for vnode in (0..self.vnodes.len() as u16).map(VnodeId) {
            if log.lane(vnode) != lost.lane {
                continue;
            }
            // By tags, which stay what they are when the table is rebuilt between two locks.
            let held = self.read(vnode, UnixMs(0), |keys| keys.held());
            let step = (TAGS * KEYS_AT_ONCE).div_ceil(held.max(1)).clamp(1, TAGS);
            for first in (0..TAGS).step_by(step) {
                let tags = first..first + step;
                whole &= self.write(vnode, UnixMs(0), |keys| {
                    keys.reappend_if(|block| {
                        tags.contains(&usize::from(block.tag())) && may_be_lost(block, lost)
                    })
                });
            }
        }
        whole
    }
}

fn may_be_lost(block: &Block, lost: Lost) -> bool {
    let known = block.place().filter(|_| block.is_whole());
    known.is_none_or(|place| (lost.from..lost.upto).contains(&place))
}

impl VnodeWrite<'_> {
    fn reappend_gone(&mut self, key: &[u8]) {
        if self.find(self.seed().key(key), key).is_none() {
            self.journal.copy(Kind::Gone, key);
        }
    }

    /// A sole replica has no Gone for the empty key: see [`VnodeWrite::apply`].
    fn reappend_tombstone(&mut self, payload: &[u8]) {
        if let Ok((key, Record::Whole(entry))) = record::decode(payload)
            && entry.is_tombstone()
            && self.find(self.seed().key(key), key).is_none()
        {
            self.journal.copy(Kind::State, payload);
        }
    }

    /// Says again that all keys were cleared, and what there is now; `false` if a key is cold, and
    /// then nothing was appended.
    fn reappend_all(&mut self) -> bool {
        if self.vnode.has_cold() {
            return false;
        }
        self.journal.copy(Kind::Gone, b"");
        self.reappend_if(|_| true)
    }

    /// Appends a State of every hot key that is `wanted`; `false` if some of them is cold.
    fn reappend_if(&mut self, mut wanted: impl FnMut(&Block) -> bool) -> bool {
        let journal = self.journal;
        let mut whole = true;
        for at in 0..self.table.buckets() {
            let Some(block) = block_at(self.table, at).filter(|block| wanted(block)) else {
                continue;
            };
            if block.is_cold() {
                whole = false;
                continue;
            }
            let place = journal.append(Kind::State, |out| {
                record_of(block, out);
            });
            block.settle(place);
        }
        whole
    }
}

/// The frames of a segment, read piece by piece.
pub(super) struct Walk<'a> {
    log: &'a Log,
    lane: usize,
    number: u32,
    /// What was read and not passed yet, of which the first `passed` bytes are passed.
    bytes: BytesMut,
    /// Where in the segment `bytes` begin.
    offset: usize,
    passed: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn new(log: &'a Log, lane: usize, number: u32, offset: usize) -> Walk<'a> {
        Walk { log, lane, number, bytes: BytesMut::new(), offset, passed: 0 }
    }

    /// Where the next frame begins.
    fn at(&self) -> usize {
        self.offset + self.passed
    }

    /// The next frame that begins before `end`; `None` after the last one, or at the first that
    /// cannot be read.
    pub(super) fn step(&mut self, end: u32) -> Option<(Header, Place, &[u8])> {
        if self.at() >= end as usize {
            return None;
        }
        self.fill(HEADER_SIZE);
        let header = Header::read(&self.bytes[self.passed..])?;
        self.fill(header.frame_size());
        let place = Place { segment: self.number, offset: self.at() as u32 };
        let start = self.passed;
        header.payload(&self.bytes[start..])?;
        self.passed += header.frame_size();
        let payload = start + HEADER_SIZE..self.passed;
        Some((header, place, &self.bytes[payload]))
    }

    /// Reads on until `wanted` bytes are there, if the segment has them.
    fn fill(&mut self, wanted: usize) {
        if self.bytes.len() - self.passed >= wanted {
            return;
        }
        let _ = self.bytes.split_to(self.passed);
        self.offset += self.passed;
        self.passed = 0;
        let had = self.bytes.len();
        self.bytes.resize(wanted.max(READ_SIZE), 0);
        let from = (self.offset + had) as u64;
        let read = self.log.read_range(self.lane, self.number, from, &mut self.bytes[had..]);
        self.bytes.truncate(had + read.unwrap_or(0));
    }
}
