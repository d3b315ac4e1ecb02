//! The log: what every change is written to before anyone hears of it.
//!
//! A batch of commands appends frames under its vnodes' locks, notes how far each lane must be
//! held, and before its replies leave waits in [`Log::hold`]. The first batch that gets there
//! writes for all that appended meanwhile: group commit (see `group`), by its own thread, because
//! write(2) into the page cache takes less time than a hop to another thread. Syncs take longer
//! and have threads of their own (see `syncer`).
//!
//! Invariant: a commit that [`Log::hold`] called held was written with write(2), so it survives
//! the process, and with fsync `always` it survives the machine.
//!
//! Picture and lanes: see `lane`; the files' format: see [`super::segment`].

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;

use crate::base::id::VnodeId;
use crate::base::time::Hlc;

use super::disk::{Disk, DiskFile};
use super::frame::{HEADER_SIZE, Header, Kind};
use super::group::Groups;
use super::lane::{Ground, Lane, Segment, Stage, Trouble, position};
use super::place::Place;
use super::segment::{self, HEAD_SIZE, Head, HeadError};
use super::syncer::{self, Core, Lost};

/// Between two syncs of `everysec`, and between two tries after an error.
const BEAT: Duration = Duration::from_secs(1);

/// When what was written is made to survive the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Fsync {
    /// Before it is acknowledged.
    Always,
    /// Once a second.
    #[default]
    Everysec,
    /// When the system likes.
    No,
}

impl Fsync {
    const fn of(number: u8) -> Fsync {
        match number {
            0 => Fsync::Always,
            1 => Fsync::Everysec,
            _ => Fsync::No,
        }
    }
}

/// What does not change while a data folder lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Vnodes of the cluster.
    pub vnodes: u16,
    /// Lanes; a vnode's lane is its number modulo this.
    pub lanes: u16,
    /// Names the cluster.
    pub cluster: u64,
}

/// What the log is told at its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Bytes after which a segment is sealed and the next begins.
    pub segment_size: u32,
    /// When written bytes are made durable.
    pub fsync: Fsync,
}

/// Up to where each lane must be held before a batch may be answered.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Commit(SmallVec<[u64; 4]>);

impl Commit {
    /// Whether nothing must be held.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    fn raise(&mut self, lane: usize, position: u64) {
        if position == 0 {
            return;
        }
        if self.0.len() <= lane {
            self.0.resize(lane + 1, 0);
        }
        self.0[lane] = self.0[lane].max(position);
    }

    fn lanes<'a>(&'a self, log: &'a Log) -> impl Iterator<Item = (&'a Lane, u64)> {
        log.core.lanes.iter().zip(self.0.iter().copied())
    }
}

/// Why a batch is not held by the log. What it did MAY survive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogError(pub String);

impl std::fmt::Display for LogError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LogError {}

/// A sealed segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentView {
    /// Its number within the lane.
    pub number: u32,
    /// Its bytes.
    pub len: u64,
}

/// How the log fares, for the operator. Counts are since the start.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Health {
    /// Why writes or the reservation of space fail, if they do at the moment.
    pub write_error: Option<String>,
    /// Why syncs fail, if they do at the moment.
    pub sync_error: Option<String>,
    /// Calls of write(2).
    pub writes: u64,
    /// Those that failed.
    pub failed_writes: u64,
    /// Calls of fdatasync(2).
    pub syncs: u64,
    /// Those that failed.
    pub failed_syncs: u64,
    /// Those that took more than two seconds.
    pub delayed_syncs: u64,
    /// Bytes appended and not written.
    pub pending_bytes: u64,
    /// Bytes written and not durable.
    pub unsynced_bytes: u64,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Log {
    folder: PathBuf,
    layout: Layout,
    fsync: AtomicU8,
    has_begun: AtomicBool,
    core: Arc<Core>,
    /// For each vnode, the end of its newest frame.
    appended: Box<[AtomicU64]>,
    groups: Groups,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Log {
    /// Opens the log in `folder`, which is made if it is not there, and lists what it holds.
    /// Nothing can be appended before [`Log::begin`], and no file is made or changed.
    ///
    /// # Errors
    /// The folder cannot be read; it holds the log of another cluster, other vnodes or other
    /// lanes, or of another version of the program (`InvalidData`). A damaged segment is no
    /// error: it is for the recovery.
    pub fn open(
        disk: Arc<dyn Disk>,
        folder: PathBuf,
        layout: Layout,
        options: Options,
    ) -> io::Result<Arc<Log>> {
        Log::open_with_beat(disk, folder, layout, options, BEAT)
    }

    /// [`Log::open`] with another beat than a second.
    pub(crate) fn open_with_beat(
        disk: Arc<dyn Disk>,
        folder: PathBuf,
        layout: Layout,
        options: Options,
        beat: Duration,
    ) -> io::Result<Arc<Log>> {
        let Layout { vnodes, lanes, cluster } = layout;
        let head = Head { lane: 0, vnodes, lanes, number: 0, ceiling: Hlc::ZERO, cluster };
        let open_lane = |number| {
            let path = folder.join(segment::lane_folder(number));
            disk.create_folder(&path)?;
            let files = list(&*disk, &path, &Head { lane: number, ..head })?;
            Ok(Lane::new(number, &folder, files))
        };
        let lanes = (0..lanes).map(open_lane).collect::<io::Result<_>>()?;
        let core = Core {
            ground: Ground::new(disk, head, options.segment_size, beat),
            lanes,
            syncs_at_beat: AtomicBool::new(false),
            lost: RwLock::default(),
        };
        let log = Log {
            folder,
            layout,
            fsync: AtomicU8::new(0),
            has_begun: AtomicBool::new(false),
            core: Arc::new(core),
            appended: (0..vnodes).map(|_| AtomicU64::new(0)).collect(),
            groups: Groups::default(),
            threads: Mutex::default(),
        };
        log.set_fsync(options.fsync);
        Ok(Arc::new(log))
    }

    /// The lanes of the log in `folder`, by the first segment that tells; `None` if none does.
    ///
    /// # Errors
    /// The folder is there and cannot be read.
    pub fn lanes_in(disk: &dyn Disk, folder: &Path) -> io::Result<Option<u16>> {
        for lane in unless_missing(disk.list(folder))? {
            let lane = folder.join(lane);
            if !lane.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"lane-")) {
                continue;
            }
            for name in disk.list(&lane)? {
                if segment::segment_number(&name).is_none() {
                    continue;
                }
                if let Ok(head) = read_head(&*disk.open(&lane.join(name))?)? {
                    return Ok(Some(head.lanes));
                }
            }
        }
        Ok(None)
    }

    /// Begins a fresh segment in every lane. `ceiling`: no dot that was issued or seen is above.
    /// Makes what the folder holds durable, since an earlier process may have died before it did.
    ///
    /// # Errors
    /// The disk fails or is full. Nothing can be appended.
    pub fn begin(&self, ceiling: Hlc) -> io::Result<()> {
        self.raise_ceiling(ceiling);
        for lane in &self.core.lanes {
            for segment in lane.files.read().values() {
                segment.file.sync()?;
            }
            lane.begin(&self.core.ground, self.first_number(lane)?)?;
        }
        self.disk().sync_folder(&self.folder)?;
        if let Some(above) = self.folder.parent() {
            self.disk().sync_folder(above)?;
        }
        syncer::start(&self.core, &mut self.threads.lock())?;
        self.has_begun.store(true, Ordering::Release);
        Ok(())
    }

    /// The number of the first segment of this start. What an earlier one prepared and did not
    /// use is removed.
    fn first_number(&self, lane: &Lane) -> io::Result<u32> {
        let newest = lane.files.read().keys().next_back().copied().unwrap_or(0);
        for name in self.disk().list(&lane.folder)? {
            if segment::segment_number(&name).is_some_and(|number| number > newest) {
                self.disk().remove(&lane.folder.join(name))?;
            }
        }
        Ok(newest + 1)
    }

    /// The lane of a vnode.
    pub fn lane(&self, vnode: VnodeId) -> usize {
        usize::from(vnode.0 % self.layout.lanes)
    }

    fn lane_of(&self, vnode: VnodeId) -> &Lane {
        &self.core.lanes[self.lane(vnode)]
    }

    /// Appends a frame to its vnode's lane; the vnode's lock is held. In memory until written.
    pub fn append(&self, vnode: VnodeId, kind: Kind, write: impl FnOnce(&mut BytesMut)) -> Place {
        let (place, end) = self.lane_of(vnode).append(kind, vnode, write);
        self.appended[vnode.index()].store(end, Ordering::Release);
        place
    }

    /// Whether the frame at `place` can be read from its file.
    pub fn is_written(&self, vnode: VnodeId, place: Place) -> bool {
        let lane = self.lane_of(vnode);
        // Before the first write of this start, only earlier segments have frames.
        let written = lane.written();
        position(place.segment, place.offset) < written || written == 0
    }

    /// Notes that what was done or seen in `vnode` so far must be held.
    pub fn note(&self, vnode: VnodeId, commit: &mut Commit) {
        commit.raise(self.lane(vnode), self.appended[vnode.index()].load(Ordering::Acquire));
    }

    /// Whether all of `commit` is held: written, and durable if fsync is `always`.
    pub fn holds(&self, commit: &Commit) -> bool {
        let is_durable = self.fsync() != Fsync::Always
            || commit.lanes(self).all(|(lane, position)| lane.tide.durable() >= position);
        is_durable && self.has_written(commit)
    }

    fn has_written(&self, commit: &Commit) -> bool {
        commit.lanes(self).all(|(lane, position)| lane.written() >= position)
    }

    /// Writes all of `commit`; it is not durable by that.
    ///
    /// # Errors
    /// A write failed; it is tried again.
    pub(super) fn write_out(&self, commit: &Commit) -> Result<(), LogError> {
        for (lane, position) in commit.lanes(self) {
            lane.write_out(&self.core.ground, position, false).map_err(LogError)?;
        }
        Ok(())
    }

    /// Waits until all of `commit` is held. Writes what is not written yet, for everyone who
    /// appended in the meantime.
    ///
    /// # Errors
    /// A write or a sync failed. What was to be held MAY survive; it is tried again.
    pub async fn hold(&self, commit: &Commit) -> Result<(), LogError> {
        if self.holds(commit) {
            return Ok(());
        }
        while let Some(lead) = self.groups.lead(|| self.has_written(commit)).await {
            let written = self.write_out(commit);
            drop(lead);
            written?;
        }
        if self.fsync() == Fsync::Always {
            self.ask_for(commit);
            for (lane, position) in commit.lanes(self) {
                let reached = lane.tide.reach(position).await;
                reached.map_err(|ebb| LogError(ebb.text().to_owned()))?;
            }
        }
        Ok(())
    }

    /// [`Log::hold`] for threads that may be held up.
    ///
    /// # Errors
    /// As [`Log::hold`].
    pub fn hold_blocking(&self, commit: &Commit) -> Result<(), LogError> {
        self.write_out(commit)?;
        if self.fsync() == Fsync::Always { self.reach_blocking(commit) } else { Ok(()) }
    }

    /// Has all lanes sync side by side.
    fn ask_for(&self, commit: &Commit) {
        for (lane, position) in commit.lanes(self) {
            lane.tide.ask(position);
        }
    }

    fn reach_blocking(&self, commit: &Commit) -> Result<(), LogError> {
        self.ask_for(commit);
        for (lane, position) in commit.lanes(self) {
            let reached = lane.tide.reach_blocking(position);
            reached.map_err(|ebb| LogError(ebb.text().to_owned()))?;
        }
        Ok(())
    }

    /// Why nothing can be written at the moment, if so: writes are to be refused.
    pub fn refusal(&self) -> Option<String> {
        self.core.ground.trouble()
    }

    /// The payload of the frame at `place`, which is written, of about `size` bytes in all. May
    /// wait for the disk.
    ///
    /// # Errors
    /// The segment is gone (`NotFound`: the key has moved), the frame is damaged (`InvalidData`),
    /// or the disk fails.
    pub fn read(&self, vnode: VnodeId, place: Place, size: usize) -> io::Result<Vec<u8>> {
        self.write_before_read(vnode, place)?;
        let file = self.lane_of(vnode).file(place.segment)?;
        let mut read = |offset, buffer: &mut [u8]| file.read_at(offset, buffer).map(Some);
        let payload = read_frame(vnode, place, size, &mut read, || file.len())?;
        Ok(payload.expect("a read that may wait has an answer"))
    }

    /// The same if it is in the system's memory; `None` if the disk would have to be waited for.
    ///
    /// # Errors
    /// As [`Log::read`].
    pub fn read_now(
        &self,
        vnode: VnodeId,
        place: Place,
        size: usize,
    ) -> io::Result<Option<Vec<u8>>> {
        self.write_before_read(vnode, place)?;
        let file = self.lane_of(vnode).file(place.segment)?;
        let mut read = |offset, buffer: &mut [u8]| file.read_now(offset, buffer);
        read_frame(vnode, place, size, &mut read, || file.len())
    }

    /// A cold key's frame is not written yet when compaction has just moved it.
    fn write_before_read(&self, vnode: VnodeId, place: Place) -> io::Result<()> {
        if self.is_written(vnode, place) {
            return Ok(());
        }
        let upto = position(place.segment, place.offset.saturating_add(1));
        let written = self.lane_of(vnode).write_out(&self.core.ground, upto, false);
        written.map_err(io::Error::other)
    }

    /// No dot that was issued or seen is above `hlc`, as far as the caller knows.
    pub fn raise_ceiling(&self, hlc: Hlc) {
        self.core.ground.raise_ceiling(hlc);
    }

    /// Asks `source` for the ceiling whenever a segment begins: no dot that was issued or seen
    /// is above what it returns. No vnode's lock may be taken by it.
    pub fn ask_ceiling_of(&self, source: impl Fn() -> Hlc + Send + Sync + 'static) {
        self.core.ground.ask_ceiling_of(Box::new(source));
    }

    /// After a failed sync, `hook` is to append again all that memory holds of the lost frames.
    /// It runs on a thread of its own, may take vnodes' locks, and must not wait for durability
    /// ([`Log::sync`], or [`Log::hold`] with fsync `always`), since that is where it is made.
    /// What is appended when it returns stands for what was lost: once that is durable, the lost
    /// part counts as durable too.
    pub fn on_lost_sync(&self, hook: impl Fn(Lost) + Send + Sync + 'static) {
        *self.core.lost.write() = Some(Box::new(hook));
    }

    /// The sealed segments of a lane, oldest first.
    pub fn segments(&self, lane: usize) -> Vec<SegmentView> {
        let files = self.core.lanes[lane].files.read();
        let sealed = files.iter().filter(|(_, segment)| segment.stage == Stage::Sealed);
        sealed.map(|(&number, segment)| SegmentView { number, len: segment.len }).collect()
    }

    /// Whether a sync of a segment has failed: what it lost was appended again after it.
    pub(super) fn has_lost(&self, lane: usize, number: u32) -> bool {
        let files = self.core.lanes[lane].files.read();
        files.get(&number).is_some_and(|segment| segment.lost)
    }

    /// Bytes of a segment that are written, be it sealed or not; `None` if there is none.
    pub(super) fn segment_len(&self, lane: usize, number: u32) -> Option<u64> {
        self.core.lanes[lane].len_of(number)
    }

    /// How many lanes there are.
    pub fn lanes(&self) -> usize {
        self.core.lanes.len()
    }

    /// Changes the size of a lane's segments, in bytes, from the next on that is not prepared yet.
    pub(super) fn set_segment_size(&self, lane: usize, bytes: u32) {
        self.core.lanes[lane].set_segment_size(bytes);
    }

    /// Bytes of all segments of a lane, the active one included.
    pub fn lane_bytes(&self, lane: usize) -> u64 {
        self.core.lanes[lane].bytes()
    }

    /// Bytes that can still be appended to a lane with room set aside for them.
    pub fn room(&self, lane: usize) -> u64 {
        self.core.lanes[lane].room()
    }

    /// Reads from a segment until `buffer` is full or the segment ends; says how much.
    ///
    /// # Errors
    /// There is no such segment (`NotFound`), or the disk fails.
    pub fn read_range(
        &self,
        lane: usize,
        number: u32,
        offset: u64,
        buffer: &mut [u8],
    ) -> io::Result<usize> {
        self.core.lanes[lane].file(number)?.read_at(offset, buffer)
    }

    /// Cuts a sealed segment, durably.
    ///
    /// # Errors
    /// It is not sealed or not there (`NotFound`), or the disk fails.
    pub fn truncate(&self, lane: usize, number: u32, len: u64) -> io::Result<()> {
        let mut files = self.core.lanes[lane].files.write();
        let segment = files.get_mut(&number).filter(|segment| segment.stage == Stage::Sealed);
        let segment = segment.ok_or(io::ErrorKind::NotFound)?;
        segment.file.set_len(len)?;
        segment.len = len;
        segment.file.sync()
    }

    /// Removes a sealed segment, durably: segments go in the order in which they are removed.
    ///
    /// # Errors
    /// It is not sealed or not there (`NotFound`), or the disk fails.
    pub fn remove(&self, lane: usize, number: u32) -> io::Result<()> {
        let lane = &self.core.lanes[lane];
        {
            let mut files = lane.files.write();
            let segment = files.get(&number).filter(|segment| segment.stage == Stage::Sealed);
            segment.ok_or(io::ErrorKind::NotFound)?;
            self.disk().remove(&lane.folder.join(segment::segment_name(number)))?;
            files.remove(&number);
        }
        self.disk().sync_folder(&lane.folder)
    }

    /// Seals the active segments of all lanes, cut at one moment, but for those that hold no
    /// frame. Returns for each lane the number of the segment that comes next. May wait for the
    /// disk.
    ///
    /// # Errors
    /// A write or a sync failed.
    pub fn roll(&self) -> io::Result<Vec<u32>> {
        let lanes = &self.core.lanes;
        let failures: Vec<u64> = lanes.iter().map(|lane| lane.tide.failures()).collect();
        let numbers = Lane::roll_all(lanes);
        for ((lane, &number), failures) in lanes.iter().zip(&numbers).zip(failures) {
            let start = position(number, HEAD_SIZE as u32);
            lane.write_out(&self.core.ground, start, false).map_err(io::Error::other)?;
            let sealed = lane.tide.wait_until(failures, || lane.is_sealed_below(number));
            sealed.map_err(|ebb| io::Error::other(ebb.text()))?;
        }
        Ok(numbers)
    }

    /// Waits until all that was appended so far is durable.
    ///
    /// # Errors
    /// A write or a sync failed.
    pub fn sync(&self) -> Result<(), LogError> {
        let commit = Commit(self.core.lanes.iter().map(Lane::appended).collect());
        self.write_out(&commit)?;
        self.reach_blocking(&commit)
    }

    /// Bytes appended to a lane since [`Log::begin`].
    pub fn appended(&self, lane: usize) -> u64 {
        self.core.lanes[lane].bytes_appended()
    }

    /// What its folder was made with.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Where it lies.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What it lies on.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.core.ground.disk
    }

    /// When written bytes are made durable.
    pub fn fsync(&self) -> Fsync {
        Fsync::of(self.fsync.load(Ordering::Acquire))
    }

    /// Changes when written bytes are made durable; for what is not held yet, at once.
    pub fn set_fsync(&self, fsync: Fsync) {
        self.fsync.store(fsync as u8, Ordering::Release);
        self.core.syncs_at_beat.store(fsync != Fsync::No, Ordering::Release);
        for lane in &self.core.lanes {
            lane.tide.ask_look();
        }
    }

    /// How it fares.
    pub fn health(&self) -> Health {
        let Ground { counts, .. } = &self.core.ground;
        let trouble_of = |kind: fn(Trouble) -> bool| self.core.ground.trouble_of(kind);
        let sum = |of: fn(&Lane) -> u64| self.core.lanes.iter().map(of).sum();
        Health {
            write_error: trouble_of(|trouble| trouble != Trouble::Sync),
            sync_error: trouble_of(|trouble| trouble == Trouble::Sync),
            writes: counts.writes.load(Ordering::Relaxed),
            failed_writes: counts.failed_writes.load(Ordering::Relaxed),
            syncs: counts.syncs.load(Ordering::Relaxed),
            failed_syncs: counts.failed_syncs.load(Ordering::Relaxed),
            delayed_syncs: counts.delayed_syncs.load(Ordering::Relaxed),
            pending_bytes: sum(Lane::bytes_pending),
            unsynced_bytes: sum(Lane::bytes_unsynced),
        }
    }

    /// Writes, syncs and trims. Nothing that is appended after will be held.
    ///
    /// # Errors
    /// A write or a sync failed: not everything is durable. The log is closed all the same.
    pub fn close(&self) -> Result<(), LogError> {
        let closed =
            if self.has_begun.swap(false, Ordering::AcqRel) { self.settle_all() } else { Ok(()) };
        self.stop();
        closed
    }

    fn settle_all(&self) -> Result<(), LogError> {
        let failures: Vec<u64> = self.core.lanes.iter().map(|lane| lane.tide.failures()).collect();
        let finish = |lane: &Lane| {
            lane.append_end();
            let written = lane.write_out(&self.core.ground, lane.appended(), true);
            lane.finish(&self.core.ground);
            written
        };
        let written: Vec<_> = self.core.lanes.iter().map(finish).collect();
        written.into_iter().collect::<Result<(), String>>().map_err(LogError)?;
        for (lane, failures) in self.core.lanes.iter().zip(failures) {
            let sealed = lane.tide.wait_until(failures, || lane.is_sealed_below(u32::MAX));
            sealed.map_err(|ebb| LogError(ebb.text().to_owned()))?;
        }
        Ok(())
    }

    fn stop(&self) {
        self.core.stop();
        for thread in self.threads.lock().drain(..) {
            // The hook of a lost sync may hold the last of this.
            if thread.thread().id() != thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

impl Drop for Log {
    /// Ends the threads. What is pending is forgotten, as if the process died; see [`Log::close`].
    fn drop(&mut self) {
        self.stop();
    }
}

fn unless_missing(names: io::Result<Vec<String>>) -> io::Result<Vec<String>> {
    match names {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        names => names,
    }
}

fn read_head(file: &dyn DiskFile) -> io::Result<Result<Head, HeadError>> {
    let mut bytes = [0; HEAD_SIZE];
    let len = file.read_at(0, &mut bytes)?;
    Ok(Head::decode(&bytes[..len]))
}

/// The segments in a lane's folder. Empty ones at the end were prepared and never begun.
fn list(disk: &dyn Disk, folder: &Path, wanted: &Head) -> io::Result<BTreeMap<u32, Segment>> {
    let mut files = BTreeMap::new();
    for name in disk.list(folder)? {
        let Some(number) = segment::segment_number(&name) else { continue };
        let path = folder.join(name);
        let file = disk.open(&path)?;
        let refuse = |why: String| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()))
        };
        match read_head(&*file)? {
            Err(HeadError::Damaged) => {}
            Err(error) => return Err(refuse(error.to_string())),
            Ok(head) => check(&head, wanted).map_err(refuse)?,
        }
        let len = file.len()?;
        files.insert(number, Segment { file, len, stage: Stage::Sealed, lost: false });
    }
    while files.last_key_value().is_some_and(|(_, segment)| segment.len == 0) {
        files.pop_last();
    }
    Ok(files)
}

fn check(head: &Head, wanted: &Head) -> Result<(), String> {
    if head.cluster != wanted.cluster {
        return Err("it belongs to another cluster".to_owned());
    }
    if head.vnodes != wanted.vnodes {
        return Err(format!("it has {} vnodes, not {}", head.vnodes, wanted.vnodes));
    }
    if (head.lanes, head.lane) != (wanted.lanes, wanted.lane) {
        let Head { lane, lanes, .. } = head;
        return Err(format!(
            "it is of lane {lane} of {lanes}, not {} of {}",
            wanted.lane, wanted.lanes
        ));
    }
    Ok(())
}

fn damaged(place: Place) -> io::Error {
    let Place { segment, offset } = place;
    let text = format!("the frame at {offset} of segment {segment} is damaged");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Reads a frame in one step if it has at most `size` bytes, else in two.
fn read_frame(
    vnode: VnodeId,
    place: Place,
    size: usize,
    read: &mut impl FnMut(u64, &mut [u8]) -> io::Result<Option<usize>>,
    file_len: impl FnOnce() -> io::Result<u64>,
) -> io::Result<Option<Vec<u8>>> {
    let offset = u64::from(place.offset);
    let mut frame = vec![0; size.max(HEADER_SIZE)];
    let Some(len) = read(offset, &mut frame)? else { return Ok(None) };
    let header = Header::read(&frame[..len]).ok_or_else(|| damaged(place))?;
    let frame_size = header.frame_size();
    if frame_size > len {
        // A length that lies must not make us ask for memory.
        if len < frame.len() || offset + frame_size as u64 > file_len()? {
            return Err(damaged(place));
        }
        frame.resize(frame_size, 0);
        let Some(more) = read(offset + len as u64, &mut frame[len..])? else { return Ok(None) };
        frame.truncate(len + more);
    }
    if header.vnode != vnode || header.payload(&frame).is_none() {
        return Err(damaged(place));
    }
    frame.truncate(frame_size);
    frame.drain(..HEADER_SIZE);
    Ok(Some(frame))
}
