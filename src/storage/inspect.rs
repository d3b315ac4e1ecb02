//! Looking at a folder's log from outside: what it holds, and whether all of it can be read.
//!
//! Nothing is written and nothing locked, so a running node's folder may be looked at too. Then
//! segments may vanish under the eyes (compaction), and the last ones are still being written.
//!
//! Live bytes are those of the frames that a replay would still need: the newest State of a key and
//! the Joins behind it. All else is dead: superseded frames, removals, the lane's own notes.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use smallvec::SmallVec;

use crate::base::hash::{Digest, HashSeed};
use crate::base::id::VnodeId;
use crate::base::limits::KEY_SIZE_MAX;
use crate::base::time::Hlc;
use crate::base::wire::WireError;
use crate::value::record::{self, Record};

use super::frame::{Header, Kind};
use super::life::{self, Past};
use super::log::Layout;
use super::recovery::{Cut, Damage, Flaw};
use super::scan::{Home, Opening, Piece, Scan, Suspect};
use super::segment::{
    HEAD_SIZE, Head, HeadError, is_end_mark, read_length_mark, read_mark, segment_name,
    segment_number,
};
use super::tail::{Outline, Sight, torn};

/// A data folder's log, as it was when it was looked at.
#[derive(Debug)]
pub struct Folder {
    /// The log's own folder.
    pub log: PathBuf,
    /// Whether a node runs on it.
    pub in_use: bool,
    /// What it was made with.
    pub layout: Layout,
    /// How its last life ended.
    past: Past,
    /// Its segments by lane and number.
    segments: Vec<Segment>,
}

#[derive(Debug)]
struct Segment {
    lane: u16,
    number: u32,
    len: u64,
    path: PathBuf,
    /// Whether it is its lane's youngest.
    last: bool,
}

/// What one segment holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Figures {
    /// Its lane.
    pub lane: u16,
    /// Its number.
    pub number: u32,
    /// Its length.
    pub bytes: u64,
    /// Whether it is its lane's youngest.
    pub last: bool,
    /// No dot before it is above this; `None`: its head cannot be read.
    pub ceiling: Option<Hlc>,
    /// Whole frames, by kind: State, Join, Gone, Mark.
    pub frames: [u64; 4],
    /// Bytes of frames that a replay would still need.
    pub live: u64,
    /// Bytes of other frames.
    pub dead: u64,
    /// Bytes that are no whole frame.
    pub damaged: u64,
}

/// What a check of every record found.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Verdict {
    /// Segments that were read.
    pub segments: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Whole frames.
    pub frames: u64,
    /// What is wrong.
    pub damages: Vec<Damage>,
    /// Tails that a crash left, or that are being written: a start will cut them, or has not
    /// seen them end.
    pub torn: Vec<Cut>,
    /// Segments that were removed before they were read.
    pub vanished: u64,
}

/// Told how many bytes of how many are done.
pub type Told<'a> = &'a mut dyn FnMut(u64, u64);

impl Folder {
    /// Looks at the log of a data folder; `folder` may also be the log's folder itself.
    ///
    /// # Errors
    /// There is no log, it cannot be read, or it is of another version of the program.
    pub fn open(folder: &Path) -> io::Result<Folder> {
        let is_log = !folder.join("log").is_dir() && folder.join("lane-00").is_dir();
        let log = if is_log { folder.to_owned() } else { folder.join("log") };
        let data = if is_log { folder.join("..") } else { folder.to_owned() };
        let in_use = life::is_in_use(&data);
        let lived = life::read(&data)?;
        let segments = list(&log)?;
        let made = lived.as_ref().and_then(|lived| lived.layout);
        let Some(layout) = made.or_else(|| layout_of_heads(&segments)) else {
            let name = log.display();
            return Err(io::Error::new(ErrorKind::NotFound, format!("{name}: there is no log")));
        };
        // Without a word of the last life: a crash, the kind that explains the most.
        let past =
            lived.as_ref().map_or(Past { clean: false, machine_restarted: true }, life::past_of);
        Ok(Folder { log, in_use, layout, past, segments })
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.len).sum()
    }

    /// What each segment holds. Needs memory for every key of a lane, about 60 bytes each.
    ///
    /// # Errors
    /// The disk fails, or a segment is of another version of the program.
    pub fn inspect(&self, told: Told<'_>) -> io::Result<Vec<Figures>> {
        let mut all = Vec::new();
        let mut done = 0;
        for lane in self.lanes() {
            let mut living = Living::default();
            let first = all.len();
            for segment in lane {
                let mut figures = Figures {
                    lane: segment.lane,
                    number: segment.number,
                    bytes: segment.len,
                    last: segment.last,
                    ..Figures::default()
                };
                let index = (all.len() - first) as u32;
                let opened = self.walk(segment, |found| match found {
                    Found::Opening(_, head) => figures.ceiling = head.map(|head| head.ceiling),
                    Found::Frame(_, header, payload) => {
                        figures.frames[header.kind as usize] += 1;
                        figures.dead += header.frame_size() as u64;
                        living.note(index, header, payload);
                    }
                    Found::Damaged(range, _) => figures.damaged += range.end - range.start,
                })?;
                if opened {
                    all.push(figures);
                }
                done += segment.len;
                told(done, self.bytes());
            }
            for (index, bytes) in living.bytes() {
                let figures: &mut Figures = &mut all[first + index as usize];
                figures.live += bytes;
                figures.dead -= bytes;
            }
        }
        Ok(all)
    }

    /// Reads every record: checksums, encoding, and that what is compressed unpacks.
    ///
    /// # Errors
    /// The disk fails, or a segment is of another version of the program.
    pub fn verify(&self, told: Told<'_>) -> io::Result<Verdict> {
        let mut verdict = Verdict::default();
        let mut done = 0;
        for lane in self.lanes() {
            let mut checked = Vec::new();
            for segment in lane {
                match self.check_segment(segment)? {
                    Some(found) => checked.push((segment, found)),
                    None => verdict.vanished += 1,
                }
                done += segment.len;
                told(done, self.bytes());
            }
            self.judge(&mut checked, &mut verdict);
        }
        Ok(verdict)
    }

    /// Reads one segment; `None`: it is there no longer.
    fn check_segment(&self, segment: &Segment) -> io::Result<Option<Checked>> {
        let (lane, number) = (segment.lane, segment.number);
        let outline = Outline { number, len: segment.len, before: None };
        let sight = Sight::new(true);
        let mut checked = Checked { outline, sight, closed: false, damages: Vec::new() };
        let opened = self.walk(segment, |found| match found {
            Found::Opening(before, Some(_)) => checked.outline.before = before,
            Found::Opening(before, None) => {
                checked.outline.before = before;
                checked.sight.note_bad(0);
                let range = 0..segment.len.min(HEAD_SIZE as u64);
                checked.damages.push(lane_damage(lane, number, range, Flaw::Head));
            }
            Found::Frame(offset, header, payload) => {
                checked.sight.note(offset, header.kind, payload);
                checked.closed = header.kind == Kind::Mark && is_end_mark(payload);
                if let Err(why) = check(header.kind, payload) {
                    let range = u64::from(offset)..u64::from(offset) + header.frame_size() as u64;
                    let (suspect, flaw) = (Suspect::Vnode(header.vnode), Flaw::Record(why));
                    let damage = Damage { lane, segment: number, range, suspect, flaw };
                    checked.damages.push(damage);
                }
            }
            Found::Damaged(range, suspect) => {
                checked.sight.note_bad(range.start);
                checked.closed = false;
                let flaw = if suspect == Suspect::Lane { Flaw::NoFrame } else { Flaw::Checksum };
                let damage = Damage { lane, segment: number, range, suspect, flaw };
                checked.damages.push(damage);
            }
        })?;
        Ok(opened.then_some(checked))
    }

    /// Tells damage from a torn tail, as a start would.
    fn judge(&self, lane: &mut Vec<(&Segment, Checked)>, verdict: &mut Verdict) {
        let past = if self.in_use { Past { clean: false, ..self.past } } else { self.past };
        let outlines: Vec<Outline> = lane.iter().map(|(_, checked)| checked.outline).collect();
        let Ok(left) =
            torn(past, &outlines, |index| Ok::<_, Infallible>(lane[index].1.sight.clone()));
        for (segment, checked) in lane.iter() {
            verdict.segments += 1;
            verdict.bytes += segment.len;
            verdict.frames += checked.sight.frames();
        }
        for (segment, checked) in lane.drain(left.keep..) {
            verdict.torn.push(segment.cut(&checked, 0));
        }
        if let (Some(at), Some((segment, checked))) = (left.cut_at, lane.last_mut()) {
            verdict.torn.push(segment.cut(checked, at));
            checked.damages.retain(|damage| damage.range.start < at);
        }
        if let Some((segment, checked)) = lane.last_mut()
            && past.clean
            && !checked.closed
        {
            let Segment { lane, number, len, .. } = **segment;
            checked.damages.push(lane_damage(lane, number, len..len, Flaw::Short));
        }
        let mut before: Option<Outline> = None;
        for (segment, checked) in lane.drain(..) {
            let Outline { number, .. } = checked.outline;
            if let Some(before) = before {
                if let Some(was) = before.was_longer(&checked.outline) {
                    let range = before.len..was;
                    let damage = lane_damage(segment.lane, before.number, range, Flaw::Short);
                    verdict.damages.push(damage);
                }
                let missing = number - before.number - 1;
                if missing > 0 {
                    let flaw = Flaw::Missing(missing);
                    verdict.damages.push(lane_damage(segment.lane, before.number + 1, 0..0, flaw));
                }
            }
            before = Some(checked.outline);
            verdict.damages.extend(checked.damages);
        }
    }

    fn lanes(&self) -> impl Iterator<Item = &[Segment]> {
        self.segments.chunk_by(|one, other| one.lane == other.lane)
    }

    /// Walks one segment; `false`: it is there no longer.
    fn walk(&self, segment: &Segment, mut see: impl FnMut(Found<'_>)) -> io::Result<bool> {
        let file = match File::open(&segment.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(at(&segment.path, &error)),
        };
        let read = |offset, buffer: &mut [u8]| {
            read_at(&file, offset, buffer).map_err(|error| at(&segment.path, &error))
        };
        let Opening { head, before } = Opening::read(read)?;
        match head {
            Ok(head) => see(Found::Opening(before, Some(head))),
            Err(HeadError::Damaged) => see(Found::Opening(before, None)),
            Err(why) => return Err(at(&segment.path, &io::Error::other(why))),
        }
        let home = Home { layout: self.layout, lane: segment.lane };
        let mut scan = Scan::new(home, segment.len, read);
        loop {
            match scan.next(|_| true)? {
                Piece::End => return Ok(true),
                Piece::Frame { offset, header, payload } => {
                    see(Found::Frame(offset, header, payload));
                }
                Piece::Damaged { range, suspect } => see(Found::Damaged(range, suspect)),
            }
        }
    }
}

fn lane_damage(lane: u16, segment: u32, range: Range<u64>, flaw: Flaw) -> Damage {
    Damage { lane, segment, range, suspect: Suspect::Lane, flaw }
}

impl Segment {
    fn cut(&self, checked: &Checked, at: u64) -> Cut {
        let Segment { lane, number, len, .. } = *self;
        let frames = checked.sight.frames_behind(at);
        Cut { lane, segment: number, at, bytes: len - at, frames }
    }
}

/// What the check of a segment found.
struct Checked {
    outline: Outline,
    sight: Sight,
    /// Whether it ends where the log was closed.
    closed: bool,
    damages: Vec<Damage>,
}

enum Found<'a> {
    Opening(Option<u64>, Option<Head>),
    Frame(u32, Header, &'a [u8]),
    Damaged(Range<u64>, Suspect),
}

/// Whether a frame's payload is what its kind says, down to the last LZ4 block.
pub(super) fn check(kind: Kind, payload: &[u8]) -> Result<(), WireError> {
    let malformed =
        |is_well: bool, what| if is_well { Ok(()) } else { Err(WireError::Malformed(what)) };
    match kind {
        Kind::Mark => {
            let number = read_mark(payload).or_else(|| read_length_mark(payload));
            malformed(number.is_some() || is_end_mark(payload), "note")
        }
        Kind::Gone => malformed(payload.len() <= KEY_SIZE_MAX, "length of a key"),
        Kind::State | Kind::Join => {
            let (_, record) = record::decode(payload)?;
            let is_part = matches!(record, Record::Delta(_) | Record::Part(_));
            malformed(kind == Kind::Join || !is_part, "state: it is a part")?;
            malformed(record.verify(), "LZ4 block")
        }
    }
}

// ---- what lives --------------------------------------------------------------------------------

/// Bytes of a key's frames that a replay would need, by segment.
type Needed = SmallVec<[(u32, u32); 2]>;

/// What a lane's keys still need, of its segments.
#[derive(Default)]
struct Living {
    vnodes: HashMap<VnodeId, HashMap<Digest, Needed>>,
}

impl Living {
    fn note(&mut self, segment: u32, header: Header, payload: &[u8]) {
        let keys = self.vnodes.entry(header.vnode).or_default();
        // Keys are told apart by 128 bits of hash: two that share them do not happen.
        let digest = |key: &[u8]| HashSeed(0).digest(key);
        let size = header.frame_size() as u32;
        match header.kind {
            Kind::Mark => {}
            Kind::Gone if payload.is_empty() => keys.clear(),
            Kind::Gone => drop(keys.remove(&digest(payload))),
            Kind::State | Kind::Join => {
                let Ok(key) = record::decode_key(payload) else { return };
                let needed = keys.entry(digest(key)).or_default();
                if header.kind == Kind::State {
                    needed.clear();
                }
                match needed.last_mut() {
                    Some((last, bytes)) if *last == segment => *bytes += size,
                    _ => needed.push((segment, size)),
                }
            }
        }
    }

    fn bytes(&self) -> BTreeMap<u32, u64> {
        let mut sums = BTreeMap::new();
        let all = self.vnodes.values().flat_map(HashMap::values).flatten();
        for (segment, bytes) in all {
            *sums.entry(*segment).or_default() += u64::from(*bytes);
        }
        sums
    }
}

// ---- files -------------------------------------------------------------------------------------

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(folder).map_err(|error| at(folder, &error))?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

fn list(log: &Path) -> io::Result<Vec<Segment>> {
    let mut segments: Vec<Segment> = Vec::new();
    for name in names(log)? {
        let Some(Ok(lane)) = name.strip_prefix("lane-").map(str::parse) else { continue };
        let folder = log.join(&name);
        let mut numbers: Vec<u32> =
            names(&folder)?.iter().filter_map(|name| segment_number(name)).collect();
        numbers.sort_unstable();
        let youngest = numbers.last().copied();
        for number in numbers {
            let path = folder.join(segment_name(number));
            // It may have been removed a moment ago.
            let Ok(len) = fs::metadata(&path).map(|file| file.len()) else { continue };
            let last = Some(number) == youngest;
            segments.push(Segment { lane, number, len, path, last });
        }
    }
    segments.sort_by_key(|segment| (segment.lane, segment.number));
    Ok(segments)
}

fn layout_of_heads(segments: &[Segment]) -> Option<Layout> {
    segments.iter().find_map(|segment| {
        let mut head = [0; HEAD_SIZE];
        let read = read_at(&File::open(&segment.path).ok()?, 0, &mut head).ok()?;
        let Head { vnodes, lanes, cluster, .. } = Head::decode(&head[..read]).ok()?;
        (lanes > 0).then_some(Layout { vnodes, lanes, cluster })
    })
}

fn read_at(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(&mut buffer[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(count) => read += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}
