//! Writes hints in the background, one segment at a time.
//!
//! Invariant: a hint appears, whole and durable, after its segment is durable. Whatever goes wrong,
//! the segment has no hint, and loses nothing by that.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use super::frame::Kind;
use super::hint::{Draft, hint_number};
use super::log::Log;
use super::scan::{CHUNK, Home, Piece, Scan};
use super::segment::{HEAD_SIZE, Head, lane_folder};

/// Reads a segment's bytes from an offset.
pub(super) type Reader = Box<dyn FnMut(u64, &mut [u8]) -> io::Result<usize> + Send + Sync>;

/// A walk over a sealed segment.
pub(super) fn scan(log: &Arc<Log>, lane: usize, number: u32, len: u64) -> Scan<Reader> {
    let home = Home { layout: log.layout(), lane: lane as u16 };
    let log = Arc::clone(log);
    let read = move |offset, buffer: &mut [u8]| log.read_range(lane, number, offset, buffer);
    Scan::new(home, len, Box::new(read))
}

/// Gives each sealed segment its hint, one after the other.
pub(super) struct Hinting {
    log: Arc<Log>,
    /// By lane: the segments that have a hint, or that shall have none. `None`: not known yet.
    settled: Vec<Option<BTreeSet<u32>>>,
    drafting: Option<Drafting>,
    written: u64,
}

struct Drafting {
    lane: usize,
    number: u32,
    len: u64,
    scan: Scan<Reader>,
    draft: Draft,
}

impl Hinting {
    pub(super) fn new(log: Arc<Log>) -> Hinting {
        let settled = (0..log.lanes()).map(|_| None).collect();
        Hinting { log, settled, drafting: None, written: 0 }
    }

    /// Hints written so far.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Does a bounded piece of work: bytes of a segment that were walked; `None` if each segment
    /// has what it shall have.
    ///
    /// # Errors
    /// The disk's. The segment at hand has no hint, and may be given one later.
    pub(super) fn step(&mut self) -> io::Result<Option<u64>> {
        let drafting = match self.drafting.take() {
            Some(drafting) => Some(drafting),
            None => self.choose()?,
        };
        let Some(mut drafting) = drafting else { return Ok(None) };
        let before = drafting.scan.position();
        let drafted = match drafting.go_on() {
            // Compaction was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Drafted::Useless,
            drafted => drafted?,
        };
        let bytes = drafting.scan.position() - before;
        let (lane, number) = (drafting.lane, drafting.number);
        match drafted {
            Drafted::Part => {
                self.drafting = Some(drafting);
                return Ok(Some(bytes));
            }
            Drafted::Whole => self.write(&drafting)?,
            Drafted::Useless => {}
        }
        self.settled[lane].get_or_insert_default().insert(number);
        Ok(Some(bytes))
    }

    fn write(&mut self, drafting: &Drafting) -> io::Result<()> {
        // A hint that survives the machine must not tell of frames that do not.
        self.log.sync().map_err(io::Error::other)?;
        let folder = self.log.folder().join(lane_folder(drafting.lane as u16));
        drafting.draft.write(&**self.log.disk(), &folder)?;
        self.written += 1;
        Ok(())
    }

    fn choose(&mut self) -> io::Result<Option<Drafting>> {
        for lane in 0..self.settled.len() {
            let segments = self.log.segments(lane);
            let settled = match &mut self.settled[lane] {
                Some(settled) => settled,
                unknown => {
                    let folder = self.log.folder().join(lane_folder(lane as u16));
                    let names = self.log.disk().list(&folder)?;
                    unknown.insert(names.iter().filter_map(|name| hint_number(name)).collect())
                }
            };
            let oldest = segments.first().map_or(u32::MAX, |segment| segment.number);
            *settled = settled.split_off(&oldest);
            let without = segments.iter().find(|segment| !settled.contains(&segment.number));
            let Some(segment) = without else { continue };
            let (number, len) = (segment.number, segment.len);
            if let Some(drafting) = self.draft(lane, number, len)? {
                return Ok(Some(drafting));
            }
            self.settled[lane].get_or_insert_default().insert(number);
        }
        Ok(None)
    }

    fn draft(&self, lane: usize, number: u32, len: u64) -> io::Result<Option<Drafting>> {
        let mut head = [0; HEAD_SIZE];
        let read = self.log.read_range(lane, number, 0, &mut head)?;
        let (Ok(head), Ok(segment_len)) = (Head::decode(&head[..read]), u32::try_from(len)) else {
            return Ok(None);
        };
        let draft = Draft::new(head, segment_len);
        Ok(Some(Drafting { lane, number, len, scan: scan(&self.log, lane, number, len), draft }))
    }
}

enum Drafted {
    Part,
    Whole,
    /// It is too large, or the segment is damaged: compaction will report that.
    Useless,
}

impl Drafting {
    /// Adds about a chunk of the segment.
    fn go_on(&mut self) -> io::Result<Drafted> {
        let enough = self.scan.position() + CHUNK as u64;
        while self.scan.position() < enough {
            match self.scan.next(|header| header.kind != Kind::Mark)? {
                Piece::Frame { offset, header, payload } => {
                    if !self.draft.add(header.vnode, offset, header.kind, payload) {
                        return Ok(Drafted::Useless);
                    }
                }
                Piece::Damaged { .. } => return Ok(Drafted::Useless),
                Piece::End => break,
            }
        }
        Ok(match self.scan.position() {
            position if position == self.len => Drafted::Whole,
            position if position >= enough => Drafted::Part,
            // The file has become shorter than it was.
            _ => Drafted::Useless,
        })
    }
}
