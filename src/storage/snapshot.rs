//! A snapshot: the log as it is at one moment, in another folder, from which a node can start.
//!
//! ```text
//! DIR/log/lane-00/0000000007.seg ──┐  roll all lanes at one moment, then
//!                                  ├─ a second name for the same file (a hard link)
//! TARGET/log/lane-00/0000000007.seg┘
//! TARGET/life                         no clean end, not whole, a boot far ahead
//! ```
//!
//! Sealed segments never change, so a name is as good as a copy: no fork, no copying, and as much
//! extra disk as nothing at first. But what has two names takes space until both are gone: while a
//! snapshot is kept, what compaction removes comes back only with it, at most the bytes that the
//! log had when the snapshot was made. On another file system segments are copied instead; no
//! segment is removed meanwhile.
//!
//! Invariant: the target's name appears when everything below it is durable, by one rename. What
//! was begun and not finished is called `TARGET.part`, and the next snapshot of that name replaces
//! it.
//!
//! A node that starts from a snapshot has forgotten what was acknowledged since. So its life says
//! that it did not end cleanly and is not whole, and its boot is [`BOOT_LEAP`] ahead: in the
//! meantime the original may have lived further lives, and no two may share a number.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::base::id::Boot;

use super::compaction::Compaction;
use super::hint::hint_name;
use super::life;
use super::log::Log;
use super::segment::{lane_folder, segment_name};

/// Boots left out for lives that the original begins after the snapshot.
pub const BOOT_LEAP: u16 = 256;

/// Bytes that are copied at once.
const CHUNK: usize = 1 << 20;

/// What a snapshot came to.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Snapshot {
    /// Segments of all lanes.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Whether they had to be copied.
    pub copied: bool,
    /// How long it took.
    pub seconds: f64,
}

/// Makes a snapshot in `target`, which must not be there yet; its parent is made. `life` is the
/// life at hand. Blocks for the disk.
///
/// # Errors
/// `AlreadyExists`, or the log or the disk fails. The target is not there then.
pub fn snapshot(
    log: &Log,
    compaction: &Compaction,
    life: &life::Lived,
    target: &Path,
) -> io::Result<Snapshot> {
    let began = Instant::now();
    let parent = parent_of(target);
    fs::create_dir_all(parent)?;
    if target.exists() {
        let why = format!("{} is there already", target.display());
        return Err(io::Error::new(ErrorKind::AlreadyExists, why));
    }
    let mut part = target.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    if part.exists() {
        fs::remove_dir_all(&part)?;
    }
    let mut made = fill(log, compaction, &part)?;
    life::write(&part, &restored(life))?;
    fs::rename(&part, target)?;
    log.disk().sync_folder(parent)?;
    made.seconds = began.elapsed().as_secs_f64();
    Ok(made)
}

fn parent_of(target: &Path) -> &Path {
    match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// The life that a node finds in the snapshot of `life`.
fn restored(life: &life::Lived) -> life::Lived {
    let boot = Boot(life.boot.0.saturating_add(BOOT_LEAP).min(u16::MAX - 1));
    life::Lived {
        boot,
        starts: life.starts.clone(),
        clean: false,
        whole: false,
        machine: String::new(),
        layout: life.layout,
    }
}

/// Puts all segments of the moment into `part`.
fn fill(log: &Log, compaction: &Compaction, part: &Path) -> io::Result<Snapshot> {
    let disk = &**log.disk();
    let into = part.join("log");
    let _stay = compaction.hold_removals();
    let next = log.roll()?;
    let mut made = Snapshot { segments: 0, bytes: 0, copied: false, seconds: 0.0 };
    for (lane, next) in next.into_iter().enumerate() {
        let folder = into.join(lane_folder(lane as u16));
        disk.create_folder(&folder)?;
        let segments = log.segments(lane);
        for segment in segments.iter().filter(|segment| segment.number < next) {
            let (number, len) = (segment.number, segment.len);
            made.copied |= take(log, lane, number, &folder)?;
            made.segments += 1;
            made.bytes += len;
        }
        disk.sync_folder(&folder)?;
    }
    disk.sync_folder(&into)?;
    disk.sync_folder(part)?;
    Ok(made)
}

/// Links or copies a segment into `folder`, and links its hint if it has one. Whether it was copied.
fn take(log: &Log, lane: usize, number: u32, folder: &Path) -> io::Result<bool> {
    let from = log.folder().join(lane_folder(lane as u16));
    let name = segment_name(number);
    let disk = log.disk();
    match disk.link(&from.join(&name), &folder.join(&name)) {
        Ok(()) => {
            let hint = hint_name(number);
            // Without it the segment itself is read.
            let _ = disk.link(&from.join(&hint), &folder.join(&hint));
            Ok(false)
        }
        Err(error) if cannot_link(error.kind()) => {
            copy(log, lane, number, &folder.join(&name)).map(|()| true)
        }
        Err(error) => Err(error),
    }
}

fn cannot_link(kind: ErrorKind) -> bool {
    use ErrorKind::{CrossesDevices, PermissionDenied, TooManyLinks, Unsupported};
    matches!(kind, CrossesDevices | Unsupported | PermissionDenied | TooManyLinks)
}

fn copy(log: &Log, lane: usize, number: u32, to: &Path) -> io::Result<()> {
    let file = log.disk().create(to)?;
    let mut chunk = vec![0; CHUNK];
    let mut offset = 0;
    loop {
        let read = log.read_range(lane, number, offset, &mut chunk)?;
        if read == 0 {
            return file.sync();
        }
        file.write_at(offset, &chunk[..read])?;
        offset += read as u64;
    }
}
