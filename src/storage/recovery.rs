//! Recovery: the keyspace as the log has it.
//!
//! ```text
//!  for each lane   walk the youngest segments ─▶ a torn tail: cut (see `tail`)
//!                  gaps and unreadable heads among the others ─▶ damage
//!  then threads    each walks the segments of a lane, oldest first, and applies the frames of
//!                  its own share of the lane's vnodes; it passes by the others' by their headers
//! ```
//!
//! Invariant 22: what is in memory afterwards is the state of the frames that are left, in their
//! order, and nothing else. A damaged frame is skipped and its vnode reported; when it is not known
//! whose it was, all vnodes of the lane are. A reported vnode may lack what it held or show an
//! older state, so it must not count in quorums before it has been compared with its peers.
//!
//! With a memory budget the oldest segments are replayed by their hints, where there are any: then
//! the keys come without their values, and little is read. A hint is believed whole or not at all.
//!
//! Only a torn tail is changed on disk, so a recovery that is cut short is begun anew.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::base::id::VnodeId;
use crate::base::size::thousands;
use crate::base::time::Hlc;
use crate::base::wire::WireError;

use super::keyspace::Keyspace;
use super::life::Past;
use super::log::{Layout, Log, SegmentView};
use super::rebuild::{Share, expected_keys, rebuild};
use super::scan::{Home, Opening, Piece, Scan, Suspect, was_closed};
use super::segment::{HEAD_SIZE, Head, HeadError, lane_folder, segment_name};
use super::tail::{Outline, Sight, torn};

/// How often a line tells how far the recovery is.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// How often [`Progress::keys`] is brought up to date.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Bytes of the log for which another thread is worth its while.
const THREAD_SIZE_MIN: u64 = 1 << 20;

/// Most damages that are listed one by one; the vnodes are always complete.
const LISTED_MAX: usize = 1_000;

/// How far a recovery is; read by others while it runs.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes of the log.
    pub bytes_total: AtomicU64,
    /// Bytes of it that have been walked.
    pub bytes_done: AtomicU64,
    /// Keys in memory.
    pub keys: AtomicU64,
}

/// What is wrong with bytes of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flaw {
    /// So many segments, this the first, are not there, although older and younger ones are.
    Missing(u32),
    /// The segment's head cannot be read.
    Head,
    /// The segment has lost its end.
    Short,
    /// There is no frame, or one without an end.
    NoFrame,
    /// The frame's checksum is not that of its payload.
    Checksum,
    /// The frame is whole, but what it holds is no record.
    Record(WireError),
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Flaw::Missing(count) => write!(f, "missing, {count} in a row"),
            Flaw::Short => f.write_str("the segment's end is missing"),
            Flaw::Head => f.write_str("the segment's head is damaged"),
            Flaw::NoFrame => f.write_str("no whole frame"),
            Flaw::Checksum => f.write_str("the payload is damaged"),
            Flaw::Record(why) => write!(f, "no record: {why}"),
        }
    }
}

/// A segment's file within the log's folder.
fn path_of(lane: u16, segment: u32) -> String {
    format!("{}/{}", lane_folder(lane), segment_name(segment))
}

/// Damaged bytes of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// The lane.
    pub lane: u16,
    /// The segment's number.
    pub segment: u32,
    /// Where in it; empty if the whole segment is missing.
    pub range: Range<u64>,
    /// Whose records may have been there.
    pub suspect: Suspect,
    /// What is wrong.
    pub flaw: Flaw,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Damage { lane, segment, range, suspect, flaw } = self;
        write!(f, "{}, bytes {}..{}: {flaw}; ", path_of(*lane, *segment), range.start, range.end)?;
        match suspect {
            Suspect::Nobody => f.write_str("no vnode is concerned"),
            Suspect::Vnode(vnode) => write!(f, "vnode {} is suspect", vnode.0),
            Suspect::Lane => write!(f, "all vnodes of lane {lane} are suspect"),
        }
    }
}

/// A torn tail that was cut off: what a crash left of what it interrupted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    /// The lane.
    pub lane: u16,
    /// The segment's number.
    pub segment: u32,
    /// Where it ends now; 0: it was removed.
    pub at: u64,
    /// How many bytes were cut off.
    pub bytes: u64,
    /// Whole frames among them. They were written after bytes that the machine forgot.
    pub frames: u64,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cut { lane, segment, at, bytes, frames } = self;
        write!(f, "{}: {bytes} bytes cut off at {at}", path_of(*lane, *segment))?;
        if *frames > 0 {
            write!(f, ", {frames} whole frames among them")?;
        }
        Ok(())
    }
}

/// What a recovery found.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Report {
    /// Frames that were applied.
    pub frames: u64,
    /// Bytes of the log.
    pub bytes: u64,
    /// Torn tails.
    pub cut: Vec<Cut>,
    /// Vnodes that may lack what they held, or hold an older state.
    pub damaged: BTreeSet<VnodeId>,
    /// The damages one by one; the first thousand.
    pub damages: Vec<Damage>,
    /// No dot that this node issued or saw is above it, as far as the log tells.
    pub hlc_max: Hlc,
    /// How long it took.
    pub seconds: f64,
}

impl Report {
    pub(super) fn note(&mut self, layout: Layout, damage: Damage) {
        tracing::error!("damaged log: {damage}");
        match damage.suspect {
            Suspect::Nobody => {}
            Suspect::Vnode(vnode) => drop(self.damaged.insert(vnode)),
            Suspect::Lane => {
                let lane = (damage.lane..layout.vnodes).step_by(layout.lanes.into());
                self.damaged.extend(lane.map(VnodeId));
            }
        }
        if self.damages.len() < LISTED_MAX {
            self.damages.push(damage);
        }
    }

    fn add(&mut self, other: Report) {
        self.frames += other.frames;
        self.bytes += other.bytes;
        self.cut.extend(other.cut);
        self.damaged.extend(other.damaged);
        let room = LISTED_MAX - self.damages.len();
        self.damages.extend(other.damages.into_iter().take(room));
        self.hlc_max = self.hlc_max.max(other.hlc_max);
    }
}

/// A segment to replay.
#[derive(Clone, Copy, Debug)]
pub(super) struct Planned {
    pub(super) outline: Outline,
    pub(super) head: Option<Head>,
}

/// Brings back into `keyspace`, which is empty, what `log` holds. Nothing has been appended to the
/// log yet. Uses all processors.
///
/// # Errors
/// The disk fails, or a segment is of another cluster, folder or version of the program. The
/// keyspace holds a part and must not be used; the log is as good as it was.
pub fn recover(
    log: &Log,
    keyspace: &Keyspace,
    past: Past,
    progress: &Progress,
) -> io::Result<Report> {
    let bytes: u64 = (0..log.lanes()).map(|lane| log.lane_bytes(lane)).sum();
    let useful = usize::try_from(bytes / THREAD_SIZE_MIN).unwrap_or(usize::MAX);
    let threads = thread::available_parallelism().map_or(1, usize::from).min(useful);
    recover_by(threads.max(1), log, keyspace, past, progress)
}

/// [`recover`] on so many threads.
pub(super) fn recover_by(
    threads: usize,
    log: &Log,
    keyspace: &Keyspace,
    past: Past,
    progress: &Progress,
) -> io::Result<Report> {
    let begun = Instant::now();
    let layout = log.layout();
    let settle = |lane: u16| Lane { log, home: Home { layout, lane } }.settle(past);
    let lanes: Vec<u16> = (0..layout.lanes).collect();
    let mut report = Report::default();
    let mut plans = Vec::new();
    for (plan, part) in in_threads(threads, &lanes, |lane| settle(*lane))? {
        report.add(part);
        plans.push(plan);
    }
    progress.bytes_total.store(report.bytes, Ordering::Relaxed);
    let of = threads.div_ceil(layout.lanes.into()) as u16;
    let shares: Vec<Share> = (0..of)
        .flat_map(|index| lanes.iter().map(move |lane| (index, *lane)))
        .map(|(index, lane)| Share { home: Home { layout, lane }, index, of })
        .collect();
    let replay = |share: &Share| {
        let lane = Lane { log, home: share.home };
        rebuild(lane, *share, &plans[usize::from(share.home.lane)], keyspace, progress)
    };
    let of_lane = |lane: &u16| {
        let plan = &plans[usize::from(*lane)];
        expected_keys(Lane { log, home: Home { layout, lane: *lane } }, plan)
    };
    let keys: u64 = in_threads(threads, &lanes, of_lane)?.iter().sum();
    keyspace.expect_keys(keys);
    let parts = thread::scope(|scope| {
        let (done, told) = channel();
        if report.bytes >= THREAD_SIZE_MIN {
            scope.spawn(move || watch(keyspace, layout, progress, &told));
        }
        let parts = in_threads(threads, &shares, replay);
        drop::<Sender<()>>(done);
        parts
    })?;
    parts.into_iter().for_each(|part| report.add(part));
    keyspace.fit_tables();
    count_keys(keyspace, layout, progress);
    let seen = (0..layout.vnodes).map(|vnode| keyspace.hlc(VnodeId(vnode)));
    report.hlc_max = seen.fold(report.hlc_max, Hlc::max);
    report.damages.sort_by_key(|damage| (damage.lane, damage.segment, damage.range.start));
    report.seconds = begun.elapsed().as_secs_f64();
    Ok(report)
}

/// Does `work` for every item, on so many threads. Results are in the items' order.
fn in_threads<I: Sync, T: Send>(
    threads: usize,
    items: &[I],
    work: impl Fn(&I) -> io::Result<T> + Sync,
) -> io::Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    let one = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return };
            let result = work(item);
            if result.is_err() {
                // What is not begun yet is for nothing.
                next.store(items.len(), Ordering::Relaxed);
            }
            results.lock().push((index, result));
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads.min(items.len()) {
            scope.spawn(one);
        }
        one();
    });
    let mut results = results.into_inner();
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// One lane of the log.
#[derive(Clone, Copy)]
pub(super) struct Lane<'a> {
    pub(super) log: &'a Log,
    pub(super) home: Home,
}

impl<'a> Lane<'a> {
    fn index(&self) -> usize {
        self.home.lane.into()
    }

    pub(super) fn scan(
        self,
        segment: Outline,
    ) -> Scan<impl FnMut(u64, &mut [u8]) -> io::Result<usize> + use<'a>> {
        let read = move |offset, buffer: &mut [u8]| self.read(segment.number, offset, buffer);
        Scan::new(self.home, segment.len, read)
    }

    /// Reads bytes of a segment. What the disk cannot read is no damage that could be skipped: it
    /// may be whole and come back, and a torn tail would be cut off for nothing.
    fn read(self, number: u32, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.log.read_range(self.index(), number, offset, buffer).map_err(|error| {
            let path = path_of(self.home.lane, number);
            let folder = self.log.folder().display();
            io::Error::new(error.kind(), format!("{folder}/{path}, from {offset} on: {error}"))
        })
    }

    // ---- before the replay --------------------------------------------------------------------

    /// Cuts the torn tail, looks at the heads, and says what is to be replayed.
    fn settle(&self, past: Past) -> io::Result<(Vec<Planned>, Report)> {
        let mut report = Report::default();
        let mut plan = Vec::new();
        for view in self.log.segments(self.index()) {
            plan.push(self.open(view)?);
        }
        self.cut_tail(past, &mut plan, &mut report)?;
        let mut before: Option<Outline> = None;
        for Planned { outline, head } in &plan {
            let Outline { number, len, .. } = *outline;
            if let Some(before) = before {
                if let Some(was) = before.was_longer(outline) {
                    self.harmed(&mut report, before.number, before.len..was, Flaw::Short);
                }
                let missing = number - before.number - 1;
                if missing > 0 {
                    self.harmed(&mut report, before.number + 1, 0..0, Flaw::Missing(missing));
                }
            }
            match head {
                Some(head) => report.hlc_max = report.hlc_max.max(head.ceiling),
                None => self.harmed(&mut report, number, 0..HEAD_SIZE as u64, Flaw::Head),
            }
            report.bytes += len;
            before = Some(*outline);
        }
        if let Some(Outline { number, len, .. }) = before.filter(|_| past.clean)
            && !was_closed(len, |offset, buffer| self.read(number, offset, buffer))?
        {
            self.harmed(&mut report, number, len..len, Flaw::Short);
        }
        Ok((plan, report))
    }

    fn harmed(&self, report: &mut Report, segment: u32, range: Range<u64>, flaw: Flaw) {
        let (lane, suspect) = (self.home.lane, Suspect::Lane);
        report.note(self.home.layout, Damage { lane, segment, range, suspect, flaw });
    }

    fn open(&self, SegmentView { number, len, .. }: SegmentView) -> io::Result<Planned> {
        let opening = Opening::read(|offset, buffer| self.read(number, offset, buffer))?;
        let head = match opening.head {
            Ok(head) => match stranger(&head, self.home, number) {
                None => Some(head),
                Some(why) => return Err(self.refuse(number, &why)),
            },
            Err(HeadError::Damaged) => None,
            Err(why @ HeadError::Format(_)) => return Err(self.refuse(number, &why.to_string())),
        };
        Ok(Planned { outline: Outline { number, len, before: opening.before }, head })
    }

    fn refuse(&self, number: u32, why: &str) -> io::Error {
        let (folder, path) = (self.log.folder().display(), path_of(self.home.lane, number));
        io::Error::other(format!("{folder}/{path}: {why}"))
    }

    /// Cuts off what a crash left unfinished: a part of one of the youngest segments, and all that
    /// is younger.
    fn cut_tail(&self, past: Past, plan: &mut Vec<Planned>, report: &mut Report) -> io::Result<()> {
        let outlines: Vec<Outline> = plan.iter().map(|segment| segment.outline).collect();
        // What was seen, the youngest first.
        let mut seen: Vec<Sight> = Vec::new();
        let left = torn(past, &outlines, |index| {
            seen.push(self.look(plan[index])?);
            Ok::<_, io::Error>(seen[seen.len() - 1].clone())
        })?;
        let mut seen = seen.iter();
        // The youngest goes first: what is left is always what was there up to some moment.
        for (segment, sight) in plan.drain(left.keep..).rev().zip(&mut seen) {
            self.note_cut(report, segment.outline, sight, 0);
            self.log.remove(self.index(), segment.outline.number)?;
        }
        if let (Some(at), Some(segment), Some(sight)) = (left.cut_at, plan.last_mut(), seen.next())
        {
            self.note_cut(report, segment.outline, sight, at);
            self.log.truncate(self.index(), segment.outline.number, at)?;
            segment.outline.len = at;
        }
        Ok(())
    }

    fn look(&self, segment: Planned) -> io::Result<Sight> {
        let mut scan = self.scan(segment.outline);
        let mut sight = Sight::new(segment.head.is_some());
        loop {
            match scan.next(|_| true)? {
                Piece::End => return Ok(sight),
                Piece::Damaged { range, .. } => sight.note_bad(range.start),
                Piece::Frame { offset, header, payload } => {
                    sight.note(offset, header.kind, payload);
                }
            }
        }
    }

    fn note_cut(&self, report: &mut Report, segment: Outline, sight: &Sight, at: u64) {
        let Outline { number, len, .. } = segment;
        let frames = sight.frames_behind(at);
        let cut = Cut { lane: self.home.lane, segment: number, at, bytes: len - at, frames };
        tracing::warn!("the log has a torn tail: {cut}");
        report.cut.push(cut);
    }
}

/// Why a head is not that of this segment; `None` if it is.
fn stranger(head: &Head, home: Home, number: u32) -> Option<String> {
    let Home { layout, lane } = home;
    if head.cluster != layout.cluster {
        let (theirs, ours) = (head.cluster, layout.cluster);
        Some(format!("it belongs to cluster {theirs:016x}, and this node to cluster {ours:016x}"))
    } else if (head.vnodes, head.lanes) != (layout.vnodes, layout.lanes) {
        Some(format!(
            "it was written for {} vnodes in {} lanes, and this folder has {} in {}",
            head.vnodes, head.lanes, layout.vnodes, layout.lanes
        ))
    } else if (head.lane, head.number) != (lane, number) {
        Some(format!("the file is lane {}, segment {}: it was moved", head.lane, head.number))
    } else {
        None
    }
}

// ---- what people see ---------------------------------------------------------------------------

/// Counts keys and writes lines until the replay is done.
fn watch(keyspace: &Keyspace, layout: Layout, progress: &Progress, done: &Receiver<()>) {
    let begun = Instant::now();
    let mut said = begun;
    loop {
        if done.recv_timeout(LOOK_EVERY) != Err(RecvTimeoutError::Timeout) {
            return;
        }
        count_keys(keyspace, layout, progress);
        if said.elapsed() >= LINE_EVERY {
            said = Instant::now();
            tracing::info!("recovering: {}", line(progress, begun.elapsed()));
        }
    }
}

fn count_keys(keyspace: &Keyspace, layout: Layout, progress: &Progress) {
    let held = (0..layout.vnodes).map(|vnode| keyspace.counts(VnodeId(vnode)).held as u64);
    progress.keys.store(held.sum(), Ordering::Relaxed);
}

/// How far a recovery is that has run so long, as people read it.
fn line(progress: &Progress, elapsed: Duration) -> String {
    let total = progress.bytes_total.load(Ordering::Relaxed);
    let done = progress.bytes_done.load(Ordering::Relaxed).min(total);
    let share = if total == 0 { 1.0 } else { done as f64 / total as f64 };
    let left = if share > 0.0 {
        let seconds = elapsed.as_secs_f64() * (1.0 - share) / share;
        format!(", about {} s to go", seconds.ceil())
    } else {
        String::new()
    };
    let keys = thousands(progress.keys.load(Ordering::Relaxed));
    let percent = (share * 100.0).floor();
    format!("{}, {keys} keys, {percent} %{left}", of_total(done, total))
}

/// "1.2 of 3.4 GB".
fn of_total(done: u64, total: u64) -> String {
    let units = [(1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    match units.iter().find(|(unit, _)| total as f64 >= *unit) {
        Some((unit, name)) => {
            let [done, total] = [done, total].map(|bytes| bytes as f64 / unit);
            format!("{done:.1} of {total:.1} {name}")
        }
        None => format!("{done} of {total} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_for_people() {
        let progress = Progress::default();
        progress.bytes_total.store(3_400_000_000, Ordering::Relaxed);
        assert_eq!(line(&progress, Duration::ZERO), "0.0 of 3.4 GB, 0 keys, 0 %");
        progress.bytes_done.store(1_190_000_000, Ordering::Relaxed);
        progress.keys.store(2_345_678, Ordering::Relaxed);
        assert_eq!(
            line(&progress, Duration::from_secs(2)),
            "1.2 of 3.4 GB, 2,345,678 keys, 35 %, about 4 s to go"
        );
        assert_eq!(of_total(12, 900), "12 of 900 bytes");
    }
}
