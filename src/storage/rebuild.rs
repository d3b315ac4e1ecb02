//! One thread's part of a recovery: it walks the segments of a lane and applies the frames of its
//! share of the lane's vnodes.
//!
//! Where a key stands in memory is far from where the next one does. So frames wait in batches, the
//! lines that a batch will touch are asked for together, and the trips to memory overlap.
//!
//! Invariant: a vnode's frames are applied in their order, by one thread.

use std::cell::Cell;
use std::io;
use std::ops::Range;
use std::sync::atomic::Ordering;

use crate::base::id::VnodeId;
use crate::base::time::UnixMs;
use crate::value::record::decode_key;

use super::frame::{HEADER_SIZE, Header, Kind};
use super::hint::{Hint, hint_name};
use super::keyspace::Keyspace;
use super::place::Place;
use super::recovery::{Damage, Flaw, Lane, Planned, Progress, Report};
use super::scan::{CHUNK, Home, Piece, Scan, Suspect};
use super::segment::lane_folder;
use super::tail::Outline;

/// Frames that are approached together.
const BATCH_FRAMES: usize = 32;

/// A longer payload does not wait in a batch: its bytes would have to be copied.
const BATCHED_SIZE_MAX: usize = 4 << 10;

/// Segments of a lane that are looked into to guess how many keys there are, and how far.
const SAMPLES: usize = 8;
const SAMPLE_SIZE: u64 = 64 << 10;

/// A share of a lane's vnodes, which one thread replays.
#[derive(Clone, Copy)]
pub(super) struct Share {
    pub(super) home: Home,
    pub(super) index: u16,
    pub(super) of: u16,
}

impl Share {
    fn has(&self, vnode: VnodeId) -> bool {
        (vnode.0 / self.home.layout.lanes) % self.of == self.index
    }

    /// Whether this thread reports damage, which several see.
    fn reports(&self, suspect: Suspect) -> bool {
        match suspect {
            Suspect::Vnode(vnode) => self.has(vnode),
            Suspect::Nobody | Suspect::Lane => self.index == 0,
        }
    }
}

/// Applies the frames of a share of the vnodes of `lane`.
pub(super) fn rebuild(
    lane: Lane<'_>,
    share: Share,
    plan: &[Planned],
    keyspace: &Keyspace,
    progress: &Progress,
) -> io::Result<Report> {
    let counted = Counted { progress, of: share.of.into(), owed: 0 };
    let (batch, report) = (Batch::default(), Report::default());
    let mut rebuild = Rebuild { share, keyspace, counted, batch, report };
    let hinted = hinted(plan, keyspace.sweep.budget() / usize::from(lane.home.layout.lanes));
    for (index, segment) in plan.iter().enumerate() {
        match (index < hinted).then(|| hint_of(lane, segment)).flatten() {
            Some(hint) => rebuild.by_hint(segment.outline, &hint),
            None => rebuild.by_frames(segment.outline, lane.scan(segment.outline))?,
        }
    }
    Ok(rebuild.report)
}

/// The segment's hint, if there is one that can be believed.
fn hint_of(lane: Lane<'_>, segment: &Planned) -> Option<Hint> {
    let Outline { number, len, .. } = segment.outline;
    let folder = lane.log.folder().join(lane_folder(lane.home.lane));
    let len = u32::try_from(len).ok()?;
    Hint::read(&**lane.log.disk(), &folder.join(hint_name(number)), &segment.head?, len)
}

/// How many of a lane's oldest segments are to be replayed by their hints, where there are any,
/// when the lane may have so much memory (0: without end). What was written last is wanted first:
/// of the youngest segments the values come too, so many that half of the memory is left for the
/// keys of the others.
fn hinted(plan: &[Planned], memory: usize) -> usize {
    if memory == 0 {
        return 0;
    }
    let mut room = memory as u64 / 2;
    let fits = |segment: &&Planned| {
        let left = room.checked_sub(segment.outline.len);
        room = left.unwrap_or(room);
        left.is_some()
    };
    plan.len() - plan.iter().rev().take_while(fits).count()
}

/// About how many keys a lane holds, or more: as many as States, by samples of its segments.
pub(super) fn expected_keys(lane: Lane<'_>, plan: &[Planned]) -> io::Result<u64> {
    let (mut bytes, states) = (0, Cell::new(0));
    for segment in plan.iter().step_by(plan.len().div_ceil(SAMPLES).max(1)) {
        let len = segment.outline.len.min(SAMPLE_SIZE);
        let mut scan = lane.scan(Outline { len, ..segment.outline });
        let count = |header: &Header| {
            states.set(states.get() + u64::from(header.kind == Kind::State));
            false
        };
        while scan.next(count)? != Piece::End {}
        bytes += len;
    }
    let all: u64 = plan.iter().map(|segment| segment.outline.len).sum();
    Ok((states.get() * all).checked_div(bytes).unwrap_or(0))
}

/// A frame that waits, and where its payload is in the batch.
struct Waiting {
    kind: Kind,
    vnode: VnodeId,
    place: Place,
    payload: Range<usize>,
}

/// Neighbouring frames that wait.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    frames: Vec<Waiting>,
    keys: Vec<(VnodeId, u64)>,
}

impl Batch {
    fn push(&mut self, keyspace: &Keyspace, place: Place, header: &Header, payload: &[u8]) {
        let (kind, vnode) = (header.kind, header.vnode);
        if let Ok(key) = decode_key(payload) {
            self.keys.push((vnode, keyspace.seed().key(key)));
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(payload);
        let payload = start..self.bytes.len();
        self.frames.push(Waiting { kind, vnode, place, payload });
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.frames.clear();
        self.keys.clear();
    }
}

/// The work of one thread on one lane.
struct Rebuild<'a> {
    share: Share,
    keyspace: &'a Keyspace,
    counted: Counted<'a>,
    batch: Batch,
    report: Report,
}

impl Rebuild<'_> {
    fn by_hint(&mut self, segment: Outline, hint: &Hint) {
        let share = self.share;
        for row in hint.rows().filter(|row| share.has(row.vnode)) {
            self.report.frames += 1;
            if let Err(why) = row.replay(self.keyspace) {
                let at = u64::from(row.place.offset);
                self.note(segment.number, at..at, Suspect::Vnode(row.vnode), Flaw::Record(why));
            }
            if self.report.frames.is_multiple_of(BATCH_FRAMES as u64) {
                self.keyspace.make_room(UnixMs(0));
            }
        }
        self.counted.add(segment.len);
    }

    fn by_frames(
        &mut self,
        segment: Outline,
        mut scan: Scan<impl FnMut(u64, &mut [u8]) -> io::Result<usize>>,
    ) -> io::Result<()> {
        let share = self.share;
        let mut before = 0;
        loop {
            match scan.next(|header| header.kind != Kind::Mark && share.has(header.vnode))? {
                Piece::End => break,
                Piece::Frame { offset, header, payload } => {
                    let place = Place { segment: segment.number, offset };
                    self.frame(place, &header, payload);
                }
                Piece::Damaged { range, suspect } => {
                    let lane = suspect == Suspect::Lane;
                    let flaw = if lane { Flaw::NoFrame } else { Flaw::Checksum };
                    self.note(segment.number, range, suspect, flaw);
                }
            }
            if scan.position() - before >= CHUNK as u64 {
                self.counted.add(scan.position() - before);
                before = scan.position();
            }
        }
        self.flush();
        self.counted.add(segment.len - before);
        Ok(())
    }

    fn frame(&mut self, place: Place, header: &Header, payload: &[u8]) {
        if payload.len() > BATCHED_SIZE_MAX {
            self.flush();
            self.apply(header.kind, header.vnode, place, payload);
            return self.keyspace.make_room(UnixMs(0));
        }
        self.batch.push(self.keyspace, place, header, payload);
        if self.batch.frames.len() == BATCH_FRAMES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let mut batch = std::mem::take(&mut self.batch);
        self.keyspace.approach(&batch.keys);
        for Waiting { kind, vnode, place, payload } in &batch.frames {
            self.apply(*kind, *vnode, *place, &batch.bytes[payload.clone()]);
        }
        batch.clear();
        self.batch = batch;
        self.keyspace.make_room(UnixMs(0));
    }

    fn apply(&mut self, kind: Kind, vnode: VnodeId, place: Place, payload: &[u8]) {
        self.report.frames += 1;
        let replayed =
            self.keyspace.write(vnode, UnixMs(0), |vnode| vnode.replay(kind, place, payload));
        if let Err(why) = replayed {
            let start = u64::from(place.offset);
            let range = start..start + (HEADER_SIZE + payload.len()) as u64;
            self.note(place.segment, range, Suspect::Vnode(vnode), Flaw::Record(why));
        }
    }

    /// Notes damage, which several threads see, if it is this one's to report.
    fn note(&mut self, segment: u32, range: Range<u64>, suspect: Suspect, flaw: Flaw) {
        if self.share.reports(suspect) {
            let Home { layout, lane } = self.share.home;
            self.report.note(layout, Damage { lane, segment, range, suspect, flaw });
        }
    }
}

/// Counts a thread's bytes into the progress: several threads walk the same ones.
struct Counted<'a> {
    progress: &'a Progress,
    of: u64,
    owed: u64,
}

impl Counted<'_> {
    fn add(&mut self, bytes: u64) {
        let owed = self.owed + bytes;
        self.owed = owed % self.of;
        self.progress.bytes_done.fetch_add(owed / self.of, Ordering::Relaxed);
    }
}
