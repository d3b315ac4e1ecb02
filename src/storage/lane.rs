//! A lane: one order of frames, and the segments that they are written to.
//!
//! ```text
//!            vnode's lock            writer's lock            syncer's thread
//!  append ──► buffer ── swapped out ──► runs ── write(2) ──► active ── fsync ──► sealed
//!            (a place is given)              written ▲              durable ▲
//! ```
//!
//! Invariants:
//! * A frame's place is given when it is appended and never changes; a run that could not be
//!   written is written again to the same place.
//! * Whoever holds the writer's lock takes the buffer whole, so that runs are written in order,
//!   and no append ever waits for a write(2).
//! * `written` and `durable` only rise, and `durable` never passes `written`.
//!
//! A position is a place packed into a number, the segment in the high half; positions of a lane
//! are ordered as its frames are.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::{Condvar, Mutex, RwLock};

use crate::base::id::VnodeId;
use crate::base::time::Hlc;

use super::disk::{Disk, DiskFile, reason};
use super::frame::{self, Kind};
use super::pace;
use super::place::Place;
use super::segment::{self, HEAD_SIZE, Head};
use super::tide::Tide;

/// A buffer that grew beyond this is given back after it was written.
const SPARE_SIZE_MAX: usize = 4 << 20;

/// Where nothing is written yet, and everything after.
const EVERYTHING: u64 = u64::MAX;

/// A place as a number.
pub(super) const fn position(segment: u32, offset: u32) -> u64 {
    (segment as u64) << 32 | offset as u64
}

/// The place at a position.
pub(super) const fn place(position: u64) -> Place {
    Place { segment: (position >> 32) as u32, offset: position as u32 }
}

/// What goes wrong until it goes right again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Trouble {
    /// No room could be set aside for the next segment.
    Room,
    /// A write failed.
    Write,
    /// A sync failed.
    Sync,
}

/// Counts for the operator.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) writes: AtomicU64,
    pub(super) failed_writes: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) failed_syncs: AtomicU64,
    pub(super) delayed_syncs: AtomicU64,
}

type CeilingSource = Box<dyn Fn() -> Hlc + Send + Sync>;

/// What all lanes of a log stand on.
pub(super) struct Ground {
    pub(super) disk: Arc<dyn Disk>,
    /// The head of every segment, but for what differs.
    pub(super) head: Head,
    pub(super) segment_size: u32,
    /// Between two syncs of `everysec`, and between two tries after an error.
    pub(super) beat: Duration,
    pub(super) stopping: AtomicBool,
    pub(super) counts: Counts,
    ceiling: AtomicU64,
    ceiling_source: RwLock<Option<CeilingSource>>,
    troubled: AtomicBool,
    troubles: Mutex<BTreeMap<(u16, Trouble), String>>,
    keeper_called: Mutex<bool>,
    keeper_bell: Condvar,
}

impl std::fmt::Debug for Ground {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ground").field("head", &self.head).finish_non_exhaustive()
    }
}

impl Ground {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        head: Head,
        segment_size: u32,
        beat: Duration,
    ) -> Ground {
        Ground {
            disk,
            head,
            segment_size,
            beat,
            stopping: AtomicBool::new(false),
            counts: Counts::default(),
            ceiling: AtomicU64::new(0),
            ceiling_source: RwLock::default(),
            troubled: AtomicBool::new(false),
            troubles: Mutex::default(),
            keeper_called: Mutex::new(false),
            keeper_bell: Condvar::new(),
        }
    }

    pub(super) fn raise_ceiling(&self, hlc: Hlc) {
        self.ceiling.fetch_max(hlc.0, Ordering::AcqRel);
    }

    pub(super) fn ask_ceiling_of(&self, source: CeilingSource) {
        *self.ceiling_source.write() = Some(source);
    }

    /// No dot that was issued or seen so far is above it.
    fn ceiling(&self) -> Hlc {
        let asked = self.ceiling_source.read().as_ref().map(|source| source());
        if let Some(asked) = asked {
            self.raise_ceiling(asked);
        }
        Hlc(self.ceiling.load(Ordering::Acquire))
    }

    /// Notes that something went wrong in a lane, or (`None`) that it goes right again.
    pub(super) fn set_trouble(&self, lane: u16, trouble: Trouble, why: Option<&str>) {
        let mut troubles = self.troubles.lock();
        let before = match why {
            Some(why) => troubles.insert((lane, trouble), why.to_owned()),
            None => troubles.remove(&(lane, trouble)),
        };
        self.troubled.store(!troubles.is_empty(), Ordering::Release);
        drop(troubles);
        match (before, why) {
            (None, Some(why)) => tracing::error!(lane, ?trouble, "the log is in trouble: {why}"),
            (Some(_), None) => tracing::warn!(lane, ?trouble, "the log works again"),
            _ => {}
        }
    }

    /// Why nothing should be written at the moment.
    pub(super) fn trouble(&self) -> Option<String> {
        if !self.troubled.load(Ordering::Acquire) {
            return None;
        }
        self.troubles.lock().values().next().cloned()
    }

    /// Why the last thing of its kind went wrong.
    pub(super) fn trouble_of(&self, kind: impl Fn(Trouble) -> bool) -> Option<String> {
        let troubles = self.troubles.lock();
        troubles.iter().find(|((_, trouble), _)| kind(*trouble)).map(|(_, why)| why.clone())
    }

    /// Calls the keeper, who prepares segments and tries again what failed.
    pub(super) fn call_keeper(&self) {
        *self.keeper_called.lock() = true;
        self.keeper_bell.notify_all();
    }

    /// The keeper's: waits until it is called, or while there is trouble for a beat.
    pub(super) fn wait_for_call(&self) {
        let mut called = self.keeper_called.lock();
        if !*called && !self.stopping.load(Ordering::Acquire) {
            if self.troubled.load(Ordering::Acquire) {
                self.keeper_bell.wait_for(&mut called, self.beat);
            } else {
                self.keeper_bell.wait(&mut called);
            }
        }
        *called = false;
    }
}

/// Neighbouring frames on their way to a segment.
#[derive(Debug)]
struct Run {
    segment: u32,
    /// Bytes after which the segment is rolled.
    size: u32,
    offset: u32,
    bytes: BytesMut,
}

impl Run {
    fn end(&self) -> u32 {
        self.offset + self.bytes.len() as u32
    }
}

/// What was appended and not taken by the writer yet.
#[derive(Debug, Default)]
struct Buffer {
    /// Runs of segments that are full.
    rolled: Vec<Run>,
    /// The segment under way, and where in it `bytes` begin. 0: the lane has not begun.
    segment: u32,
    /// Bytes after which it is rolled.
    size: u32,
    offset: u32,
    bytes: BytesMut,
    /// Bytes of whole frames: what is beyond is left of an append that panicked.
    whole: usize,
    /// The next frame is to be preceded by the mark that this segment is durable up to here.
    mark: Option<(u32, u32)>,
    /// The first frame is to be preceded by the mark that the segment before has this length.
    before: Option<u64>,
    /// Bytes appended since the lane began.
    total: u64,
}

impl Buffer {
    fn end(&self) -> u64 {
        position(self.segment, self.offset + self.whole as u32)
    }

    /// Whether there is nothing to roll.
    fn is_fresh(&self) -> bool {
        self.segment == 0 || self.offset as usize + self.whole == HEAD_SIZE
    }

    fn append(
        &mut self,
        next_size: u32,
        kind: Kind,
        vnode: VnodeId,
        write: impl FnOnce(&mut BytesMut),
    ) -> Place {
        assert!(self.segment > 0, "the log has begun");
        self.bytes.truncate(self.whole);
        let is_first = self.is_fresh();
        self.append_marks();
        let start = self.whole;
        let size = frame::append(&mut self.bytes, kind, vnode, write);
        let offset = self.offset as usize + start;
        if offset + size > self.size as usize && !is_first {
            let moved = BytesMut::from(&self.bytes[start..]);
            self.roll(next_size);
            self.append_marks();
            self.bytes.extend_from_slice(&moved);
        }
        self.whole = self.bytes.len();
        self.total += size as u64;
        let end = self.offset as usize + self.whole;
        Place { segment: self.segment, offset: (end - size) as u32 }
    }

    fn append_marks(&mut self) {
        if let Some(len) = self.before.take() {
            self.append_mark(&segment::length_mark(len));
        }
        if let Some((_, durable)) = self.mark.take_if(|(segment, _)| *segment == self.segment) {
            self.append_mark(&segment::mark(u64::from(durable)));
        }
    }

    fn append_end(&mut self) {
        self.bytes.truncate(self.whole);
        self.append_marks();
        self.append_mark(&segment::end_mark());
    }

    fn append_mark(&mut self, payload: &[u8]) {
        let size = frame::append(&mut self.bytes, Kind::Mark, VnodeId(0), |out| {
            out.extend_from_slice(payload);
        });
        self.whole += size;
        self.total += size as u64;
    }

    /// The next frame goes to the next segment, which is rolled after `size` bytes.
    fn roll(&mut self, size: u32) {
        self.bytes.truncate(self.whole);
        let bytes = std::mem::take(&mut self.bytes);
        let Buffer { segment, size: full, offset, .. } = *self;
        self.before = Some(u64::from(offset) + self.whole as u64);
        self.rolled.push(Run { segment, size: full, offset, bytes });
        self.segment += 1;
        self.size = size;
        self.offset = HEAD_SIZE as u32;
        self.whole = 0;
    }

    /// Gives all runs away; `spare` takes what comes.
    fn take(&mut self, spare: BytesMut, runs: &mut VecDeque<Run>) {
        self.bytes.truncate(self.whole);
        runs.extend(self.rolled.drain(..));
        let bytes = std::mem::replace(&mut self.bytes, spare);
        let Buffer { segment, size, offset, .. } = *self;
        let run = Run { segment, size, offset, bytes };
        self.offset = run.end();
        self.whole = 0;
        runs.push_back(run);
    }
}

/// Who writes.
#[derive(Debug, Default)]
struct Writer {
    /// Taken from the buffer and not written yet, oldest first.
    runs: VecDeque<Run>,
    /// The segment that was written to last.
    active: Option<(u32, Arc<dyn DiskFile>)>,
    spare: BytesMut,
    /// Why the first of `runs` could not be written.
    failed: Option<String>,
    closed: bool,
}

/// How far a segment has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// Is written to.
    Active,
    /// Is written and not yet made durable and trimmed.
    Rolled,
    /// Does not change any more.
    Sealed,
}

/// A segment that has a file.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) file: Arc<dyn DiskFile>,
    /// Bytes; of an active one, see `written`.
    pub(super) len: u64,
    pub(super) stage: Stage,
    /// A sync of it failed: it is never synced again.
    pub(super) lost: bool,
}

/// The segment after the last one that was begun.
#[derive(Debug, Default)]
struct Next {
    number: u32,
    file: Option<Arc<dyn DiskFile>>,
    reserved: u32,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) number: u16,
    pub(super) folder: PathBuf,
    pub(super) tide: Tide,
    pub(super) files: RwLock<BTreeMap<u32, Segment>>,
    /// A name in the folder is not durable yet.
    pub(super) names_changed: AtomicBool,
    buffer: Mutex<Buffer>,
    writer: Mutex<Writer>,
    next: Mutex<Next>,
    /// Bytes that the next segments shall have.
    wanted_size: AtomicU32,
    /// Bytes set aside for the next segment; 0: it is not prepared.
    prepared: AtomicU32,
    written: AtomicU64,
    bytes_written: AtomicU64,
    pub(super) bytes_durable: AtomicU64,
    /// The active segment for which the next one was asked of the keeper.
    asked_for: AtomicU32,
}

impl Lane {
    pub(super) fn new(number: u16, log: &Path, files: BTreeMap<u32, Segment>) -> Lane {
        Lane {
            number,
            folder: log.join(segment::lane_folder(number)),
            tide: Tide::default(),
            files: RwLock::new(files),
            names_changed: AtomicBool::new(false),
            buffer: Mutex::default(),
            writer: Mutex::default(),
            next: Mutex::default(),
            wanted_size: AtomicU32::new(0),
            prepared: AtomicU32::new(0),
            written: AtomicU64::new(0),
            bytes_written: AtomicU64::new(0),
            bytes_durable: AtomicU64::new(0),
            asked_for: AtomicU32::new(0),
        }
    }

    /// Begins segment `number`, durably.
    pub(super) fn begin(&self, ground: &Ground, number: u32) -> io::Result<()> {
        if self.wanted_size.load(Ordering::Acquire) == 0 {
            // Until it is known how much is alive: see `pace`.
            self.set_segment_size(pace::segment_size(0, ground.segment_size));
        }
        {
            let mut next = self.next.lock();
            *next = Next { number, ..Next::default() };
            self.reserve_next(ground, &mut next, self.next_size())?;
        }
        {
            let mut buffer = self.buffer.lock();
            (buffer.segment, buffer.offset) = (number, HEAD_SIZE as u32);
            buffer.size = self.next_size();
            let files = self.files.read();
            let before = number.checked_sub(1).and_then(|before| files.get(&before));
            buffer.before = before.map(|segment| segment.len);
            buffer.mark = before.map(|_| (number, 0));
        }
        self.write_out(ground, EVERYTHING, true).map_err(io::Error::other)?;
        self.file(number)?.sync()?;
        self.names_changed.store(false, Ordering::Release);
        ground.disk.sync_folder(&self.folder)?;
        self.tide.rise(self.written());
        Ok(())
    }

    /// Changes the size of segments, from the next on that is not prepared yet.
    pub(super) fn set_segment_size(&self, bytes: u32) {
        self.wanted_size.store(bytes, Ordering::Release);
    }

    /// Bytes that the next segment may have: no more than were set aside for it.
    fn next_size(&self) -> u32 {
        match self.prepared.load(Ordering::Acquire) {
            0 => self.wanted_size.load(Ordering::Acquire),
            prepared => prepared,
        }
    }

    /// Appends a frame. Returns its place and its end's position.
    pub(super) fn append(
        &self,
        kind: Kind,
        vnode: VnodeId,
        write: impl FnOnce(&mut BytesMut),
    ) -> (Place, u64) {
        let next_size = self.next_size();
        let mut buffer = self.buffer.lock();
        let place = buffer.append(next_size, kind, vnode, write);
        (place, buffer.end())
    }

    /// Notes in the log that nothing follows: whoever cuts a closed log short is found out.
    pub(super) fn append_end(&self) {
        self.buffer.lock().append_end();
    }

    /// The position of the next frame.
    pub(super) fn appended(&self) -> u64 {
        self.buffer.lock().end()
    }

    /// Bytes appended since the lane began.
    pub(super) fn bytes_appended(&self) -> u64 {
        self.buffer.lock().total
    }

    /// Everything below is in its file.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// Bytes appended and not written.
    pub(super) fn bytes_pending(&self) -> u64 {
        let written = self.bytes_written();
        self.bytes_appended() - written
    }

    /// Bytes written and not durable.
    pub(super) fn bytes_unsynced(&self) -> u64 {
        let durable = self.bytes_durable.load(Ordering::Acquire);
        self.bytes_written() - durable
    }

    /// Bytes written since the lane began.
    pub(super) fn bytes_written(&self) -> u64 {
        self.bytes_written.load(Ordering::Acquire)
    }

    /// Bytes of all segments, and of what is to be written to them.
    pub(super) fn bytes(&self) -> u64 {
        let files = self.files.read();
        let in_files: u64 = files.values().map(|segment| self.len(segment)).sum();
        drop(files);
        in_files + self.bytes_pending()
    }

    fn len(&self, segment: &Segment) -> u64 {
        match segment.stage {
            Stage::Active => u64::from(place(self.written()).offset),
            Stage::Rolled | Stage::Sealed => segment.len,
        }
    }

    /// Bytes of a segment that are written.
    pub(super) fn len_of(&self, number: u32) -> Option<u64> {
        self.files.read().get(&number).map(|segment| self.len(segment))
    }

    /// Before the next frame, a mark shall say that everything below `position` is durable.
    pub(super) fn mark(&self, position: u64) {
        let durable = place(position);
        self.buffer.lock().mark = Some((durable.segment, durable.offset));
    }

    /// Rolls all lanes at one moment, but for those whose segment holds no frame.
    /// Returns the segments that come next.
    pub(super) fn roll_all(lanes: &[Lane]) -> Vec<u32> {
        let mut buffers: Vec<_> = lanes.iter().map(|lane| lane.buffer.lock()).collect();
        for (buffer, lane) in buffers.iter_mut().zip(lanes) {
            if !buffer.is_fresh() {
                buffer.roll(lane.next_size());
            }
        }
        buffers.iter().map(|buffer| buffer.segment).collect()
    }

    /// Rolls if segment `number` is still under way.
    pub(super) fn roll_from(&self, number: u32) {
        let mut buffer = self.buffer.lock();
        if buffer.segment == number {
            buffer.roll(self.next_size());
        }
    }

    /// Writes everything that was appended, unless all below `upto` is written: somebody else
    /// did it in the meantime.
    ///
    /// # Errors
    /// Why it could not be written; it will be tried again. After an error nobody but a caller
    /// with `retry` tries.
    pub(super) fn write_out(&self, ground: &Ground, upto: u64, retry: bool) -> Result<(), String> {
        let mut writer = self.writer.lock();
        if self.written() >= upto {
            return Ok(());
        }
        if writer.closed {
            return Err("the log is closed".to_owned());
        }
        if let Some(why) = writer.failed.as_ref().filter(|_| !retry) {
            return Err(why.clone());
        }
        let Writer { runs, spare, .. } = &mut *writer;
        self.buffer.lock().take(std::mem::take(spare), runs);
        while let Some(mut run) = writer.runs.pop_front() {
            if let Err(error) = self.write_run(ground, &mut writer, &run) {
                writer.runs.push_front(run);
                return Err(self.fail_write(ground, &mut writer, &error));
            }
            if (1..=SPARE_SIZE_MAX).contains(&run.bytes.capacity()) {
                run.bytes.clear();
                writer.spare = run.bytes;
            }
        }
        if writer.failed.take().is_some() {
            ground.set_trouble(self.number, Trouble::Write, None);
        }
        Ok(())
    }

    fn fail_write(&self, ground: &Ground, writer: &mut Writer, error: &io::Error) -> String {
        ground.counts.failed_writes.fetch_add(1, Ordering::Relaxed);
        let why = reason(error);
        writer.failed = Some(why.clone());
        ground.set_trouble(self.number, Trouble::Write, Some(&why));
        ground.call_keeper();
        why
    }

    fn write_run(&self, ground: &Ground, writer: &mut Writer, run: &Run) -> io::Result<()> {
        let file = match &writer.active {
            Some((number, file)) if *number == run.segment => file,
            _ => {
                let file = self.begin_next(ground, run)?;
                &writer.active.insert((run.segment, file)).1
            }
        };
        if !run.bytes.is_empty() {
            ground.counts.writes.fetch_add(1, Ordering::Relaxed);
            file.write_at(u64::from(run.offset), &run.bytes)?;
            self.bytes_written.fetch_add(run.bytes.len() as u64, Ordering::AcqRel);
        }
        self.written.store(position(run.segment, run.end()), Ordering::Release);
        let is_half_full = run.end() > run.size / 2;
        if is_half_full && self.asked_for.swap(run.segment, Ordering::AcqRel) != run.segment {
            ground.call_keeper();
        }
        Ok(())
    }

    /// Gives `run`, the first of its segment, a file with a head. The segment before is rolled.
    fn begin_next(&self, ground: &Ground, run: &Run) -> io::Result<Arc<dyn DiskFile>> {
        let mut next = self.next.lock();
        assert_eq!(next.number, run.segment, "segments follow each other");
        let file = self.reserve_next(ground, &mut next, run.end().max(run.size))?;
        let number = run.segment;
        let head = Head { lane: self.number, number, ceiling: ground.ceiling(), ..ground.head };
        file.write_at(0, &head.encode())?;
        *next = Next { number: number + 1, ..Next::default() };
        self.prepared.store(0, Ordering::Release);
        ground.set_trouble(self.number, Trouble::Room, None);
        drop(next);
        self.roll_active();
        let segment = Segment {
            file: Arc::clone(&file),
            len: HEAD_SIZE as u64,
            stage: Stage::Active,
            lost: false,
        };
        self.files.write().insert(number, segment);
        Ok(file)
    }

    fn roll_active(&self) {
        let mut files = self.files.write();
        for segment in files.values_mut().filter(|segment| segment.stage == Stage::Active) {
            segment.stage = Stage::Rolled;
            segment.len = u64::from(place(self.written()).offset);
        }
        drop(files);
        self.tide.ask_sealing();
    }

    /// Makes the next segment's file and sets its room aside, if that was not done yet.
    fn reserve_next(
        &self,
        ground: &Ground,
        next: &mut Next,
        len: u32,
    ) -> io::Result<Arc<dyn DiskFile>> {
        let file = match &next.file {
            Some(file) => file,
            None => {
                let path = self.folder.join(segment::segment_name(next.number));
                let file = ground.disk.create(&path)?;
                self.names_changed.store(true, Ordering::Release);
                next.file.insert(file)
            }
        };
        if next.reserved < len {
            file.reserve(u64::from(len))?;
            next.reserved = len;
            self.prepared.store(len, Ordering::Release);
        }
        Ok(Arc::clone(file))
    }

    /// The keeper's: prepares the next segment if it is wanted, and if `retry` tries again what
    /// failed.
    pub(super) fn keep(&self, ground: &Ground, retry: bool) {
        let active = place(self.written()).segment;
        if self.asked_for.load(Ordering::Acquire) == active && active > 0 {
            self.prepare(ground);
        }
        if retry && self.writer.lock().failed.is_some() {
            // An error is noted where it happens.
            let _ = self.write_out(ground, EVERYTHING, true);
        }
    }

    fn prepare(&self, ground: &Ground) {
        let mut next = self.next.lock();
        // None comes after a lane's end.
        if next.number > 0 {
            let reserved = self.reserve_next(ground, &mut next, self.next_size());
            let why = reserved.err().map(|error| reason(&error));
            // Under the lock, so that whoever reserves after us has the last word.
            ground.set_trouble(self.number, Trouble::Room, why.as_deref());
        }
    }

    /// Bytes that can be written for which room was set aside.
    pub(super) fn room(&self) -> u64 {
        let next = u64::from(self.next.lock().reserved);
        let buffer = self.buffer.lock();
        let left = buffer.size.saturating_sub(place(buffer.end()).offset);
        next + u64::from(left)
    }

    /// Ends writing: nothing is taken from the buffer any more, and the segment under way is
    /// rolled.
    pub(super) fn finish(&self, ground: &Ground) {
        let mut writer = self.writer.lock();
        if std::mem::replace(&mut writer.closed, true) {
            return;
        }
        writer.active = None;
        drop(writer);
        self.roll_active();
        let unused = std::mem::take(&mut *self.next.lock());
        if unused.file.is_some() {
            // If it stays, the next start removes it.
            let _ = ground.disk.remove(&self.folder.join(segment::segment_name(unused.number)));
        }
    }

    /// The file of a segment.
    pub(super) fn file(&self, number: u32) -> io::Result<Arc<dyn DiskFile>> {
        let files = self.files.read();
        let segment = files.get(&number).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::clone(&segment.file))
    }

    /// Whether all segments below `number` are sealed.
    pub(super) fn is_sealed_below(&self, number: u32) -> bool {
        self.files.read().range(..number).all(|(_, segment)| segment.stage == Stage::Sealed)
    }
}
