//! A disk that forgets, tears, flips, fills up and fails, for crash tests.
//!
//! It keeps two states: what the running system sees, and what has reached the platter. A sync
//! of a file copies its bytes over, a sync of a folder its names; nothing else ever does, so a
//! program that forgets one of the two loses its file here.
//!
//! ```text
//! let disk = SimDisk::default();
//! disk.cut_at(Cut::BeforeSync(7));       // the power fails at the seventh sync
//! … run the program over Arc::new(disk.clone()) until disk.is_off(), then drop it …
//! disk.power_cut(seed);                  // decide what survived; the machine is on again
//! … open again over Arc::new(disk.clone()), and look …
//! ```
//!
//! While the power is off every call fails, and handles from before a cut or a kill fail for
//! ever. `fork` copies the whole machine, so that many fates can be tried from one point.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::disk::{Disk, DiskFile};

/// What is written whole or not at all.
const SECTOR: usize = 512;

const NO_SPACE: i32 = 28;
const INPUT_OUTPUT: i32 = 5;

/// When the power fails. Writes (`write_at`, `set_len`) and syncs (of files and of folders) are
/// counted from 1, from the making of the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cut {
    BeforeWrite(u64),
    AfterWrite(u64),
    BeforeSync(u64),
    AfterSync(u64),
}

/// A file or a folder, by whatever name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Node {
    Folder,
    File(usize),
}

/// A change of a file's bytes that is not durable.
#[derive(Clone, Debug)]
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    SetLen(u64),
}

#[derive(Clone, Default)]
struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// With the tick at which each was made.
    changes: Vec<(u64, Change)>,
    reserved: u64,
}

impl Inode {
    fn allocated(&self) -> u64 {
        self.reserved.max(self.live.len() as u64)
    }
}

/// Names that change together; `None`: removed.
type Renaming = Vec<(PathBuf, Option<Node>)>;

#[derive(Clone, Default)]
struct Machine {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, Node>,
    durable_names: BTreeMap<PathBuf, Node>,
    renamings: Vec<(u64, Renaming)>,
    tick: u64,
    /// Rises when all handles die.
    epoch: u64,
    is_off: bool,
    writes: u64,
    syncs: u64,
    cut: Option<Cut>,
    /// Bytes that may be allocated in all.
    space: Option<u64>,
    write_fails: bool,
    read_fails: bool,
    syncs_to_fail: u32,
    not_in_memory: bool,
}

/// See the head of this file. Clones are the same disk.
#[derive(Clone, Default)]
pub(crate) struct SimDisk(Arc<Mutex<Machine>>);

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimDisk")
    }
}

/// What is seen, and what is done to it.
impl SimDisk {
    /// Writes so far.
    pub(crate) fn writes(&self) -> u64 {
        self.0.lock().writes
    }

    /// Syncs so far, of files and of folders.
    pub(crate) fn syncs(&self) -> u64 {
        self.0.lock().syncs
    }

    /// Whether the power has failed.
    pub(crate) fn is_off(&self) -> bool {
        self.0.lock().is_off
    }

    /// Has the power fail.
    pub(crate) fn cut_at(&self, cut: Cut) {
        self.0.lock().cut = Some(cut);
    }

    /// From now on so many more bytes can be allocated; `None`: without end.
    pub(crate) fn set_space(&self, free: Option<u64>) {
        let mut machine = self.0.lock();
        machine.space = free.map(|free| machine.allocated() + free);
    }

    /// Whether writes fail with an input/output error, half done.
    pub(crate) fn fail_writes(&self, fail: bool) {
        self.0.lock().write_fails = fail;
    }

    /// Whether reads fail with an input/output error.
    pub(crate) fn fail_reads(&self, fail: bool) {
        self.0.lock().read_fails = fail;
    }

    /// Has the next `count` syncs of files fail. What they were to make durable is forgotten, and
    /// read as it was before: the worst that a system may do.
    pub(crate) fn fail_syncs(&self, count: u32) {
        self.0.lock().syncs_to_fail = count;
    }

    /// Whether `read_now` has an answer.
    pub(crate) fn set_in_memory(&self, in_memory: bool) {
        self.0.lock().not_in_memory = !in_memory;
    }

    /// Flips a bit of a file, on the platter too.
    pub(crate) fn flip(&self, path: &Path, bit: u64) {
        let mut machine = self.0.lock();
        let number = machine.file(path).expect("a file with this name");
        let inode = &mut machine.inodes[number];
        for bytes in [&mut inode.live, &mut inode.durable] {
            if let Some(byte) = bytes.get_mut(bit as usize / 8) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    /// The names of all files.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        let machine = self.0.lock();
        let files = machine.names.iter().filter(|(_, node)| matches!(node, Node::File(_)));
        files.map(|(path, _)| path.clone()).collect()
    }

    /// A file's bytes.
    pub(crate) fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let machine = self.0.lock();
        machine.file(path).ok().map(|number| machine.inodes[number].live.clone())
    }

    /// Replaces a file's bytes, on the platter too.
    pub(crate) fn set_bytes(&self, path: &Path, bytes: &[u8]) {
        let mut machine = self.0.lock();
        let number = machine.file(path).expect("a file with this name");
        machine.inodes[number] =
            Inode { live: bytes.to_vec(), durable: bytes.to_vec(), ..Inode::default() };
    }

    /// Another machine in the same state; handles stay with this one.
    pub(crate) fn fork(&self) -> SimDisk {
        let mut machine = self.0.lock().clone();
        machine.epoch += 1;
        SimDisk(Arc::new(Mutex::new(machine)))
    }

    /// How many changes, of bytes and names, are not durable.
    pub(crate) fn unsynced(&self) -> usize {
        let machine = self.0.lock();
        let changes: usize = machine.inodes.iter().map(|inode| inode.changes.len()).sum();
        changes + machine.renamings.len()
    }

    /// The process dies: what was written stays.
    pub(crate) fn process_kill(&self) {
        self.0.lock().restart();
    }

    /// The power failed, and comes back. Each write that was not synced is there, is not, or is
    /// torn at sectors; of the names, which a file system changes in order, the first so many
    /// changes are there.
    pub(crate) fn power_cut(&self, seed: u64) {
        let mut machine = self.0.lock();
        let mut chance = fastrand::Rng::with_seed(seed);
        for inode in &mut machine.inodes {
            for (_, change) in std::mem::take(&mut inode.changes) {
                match chance.u8(0..3) {
                    0 => {}
                    1 => apply(&mut inode.durable, &change),
                    _ => apply_torn(&mut inode.durable, &change, &mut chance),
                }
            }
        }
        let kept = chance.usize(0..=machine.renamings.len());
        machine.keep_names(kept);
        machine.fall_back();
    }

    /// The power failed, and comes back. Of the changes that were not synced the first `kept`,
    /// in the order in which they were made, are there.
    pub(crate) fn power_cut_prefix(&self, kept: usize) {
        let mut machine = self.0.lock();
        let of_bytes = machine.inodes.iter().flat_map(|inode| inode.changes.iter());
        let mut ticks: Vec<u64> = of_bytes.map(|(tick, _)| *tick).collect();
        ticks.extend(machine.renamings.iter().map(|(tick, _)| *tick));
        ticks.sort_unstable();
        let end = ticks.get(kept).copied().unwrap_or(u64::MAX);
        for inode in &mut machine.inodes {
            for (_, change) in inode.changes.iter().filter(|(tick, _)| *tick < end) {
                apply(&mut inode.durable, change);
            }
        }
        let names = machine.renamings.iter().filter(|(tick, _)| *tick < end).count();
        machine.keep_names(names);
        machine.fall_back();
    }

    fn file_at(&self, machine: &Machine, number: usize) -> Arc<dyn DiskFile> {
        Arc::new(SimFile { disk: self.clone(), number, epoch: machine.epoch })
    }

    fn on(&self) -> io::Result<MutexGuard<'_, Machine>> {
        let machine = self.0.lock();
        if machine.is_off { Err(power_is_off()) } else { Ok(machine) }
    }
}

fn power_is_off() -> io::Error {
    io::Error::other("the power is off")
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::SetLen(len) => bytes.resize(*len as usize, 0),
        Change::Write { offset, bytes: written } => put(bytes, *offset as usize, written),
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, written: &[u8]) {
    let end = offset + written.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(written);
}

/// Each sector of the file that a write touches is written or is not.
fn apply_torn(bytes: &mut Vec<u8>, change: &Change, chance: &mut fastrand::Rng) {
    let Change::Write { offset, bytes: written } = change else {
        return apply(bytes, change);
    };
    let (mut at, end) = (*offset as usize, *offset as usize + written.len());
    while at < end {
        let border = ((at / SECTOR + 1) * SECTOR).min(end);
        if chance.bool() {
            let start = at - *offset as usize;
            put(bytes, at, &written[start..start + border - at]);
        }
        at = border;
    }
}

impl Machine {
    fn file(&self, path: &Path) -> io::Result<usize> {
        match self.names.get(path) {
            Some(Node::File(number)) => Ok(*number),
            Some(Node::Folder) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn check_folder(&self, path: &Path) -> io::Result<()> {
        match self.names.get(path) {
            _ if path == Path::new("/") => Ok(()),
            Some(Node::Folder) => Ok(()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn check_new(&self, path: &Path) -> io::Result<()> {
        self.check_folder(path.parent().expect("a path below the root"))?;
        if self.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        Ok(())
    }

    fn allocated(&self) -> u64 {
        let named = self.names.values().filter_map(|node| match node {
            Node::File(number) => Some(*number),
            Node::Folder => None,
        });
        let named: std::collections::BTreeSet<usize> = named.collect();
        named.into_iter().map(|number| self.inodes[number].allocated()).sum()
    }

    fn free(&self) -> u64 {
        self.space.map_or(u64::MAX, |space| space.saturating_sub(self.allocated()))
    }

    fn next_tick(&mut self) -> u64 {
        self.tick += 1;
        self.tick
    }

    fn rename(&mut self, renaming: Renaming) {
        for (path, node) in &renaming {
            set_name(&mut self.names, path, *node);
        }
        let tick = self.next_tick();
        self.renamings.push((tick, renaming));
    }

    fn keep_names(&mut self, count: usize) {
        for (_, renaming) in self.renamings.drain(..).take(count) {
            for (path, node) in renaming {
                set_name(&mut self.durable_names, &path, node);
            }
        }
    }

    /// The system sees what is on the platter.
    fn fall_back(&mut self) {
        for inode in &mut self.inodes {
            inode.live.clone_from(&inode.durable);
            inode.changes.clear();
            inode.reserved = 0;
        }
        self.names.clone_from(&self.durable_names);
        // What lies in a folder that is not there is not there either.
        let is_rooted = |names: &BTreeMap<PathBuf, Node>, path: &Path| {
            let mut above = path.ancestors().skip(1);
            above.all(|above| above == Path::new("/") || names.contains_key(above))
        };
        let names = self.names.clone();
        self.names.retain(|path, _| is_rooted(&names, path));
        self.durable_names.clone_from(&self.names);
        self.restart();
    }

    fn restart(&mut self) {
        self.epoch += 1;
        self.is_off = false;
        self.cut = None;
        self.space = None;
        (self.write_fails, self.read_fails, self.syncs_to_fail) = (false, false, 0);
    }

    /// Does `step`, with the power failing before or after it if it is its time.
    fn powered<T>(
        &mut self,
        before: Cut,
        after: Cut,
        step: impl FnOnce(&mut Machine) -> io::Result<T>,
    ) -> io::Result<T> {
        if self.cut == Some(before) {
            self.is_off = true;
            return Err(power_is_off());
        }
        let done = step(self);
        self.is_off = self.cut == Some(after);
        done
    }

    fn write<T>(&mut self, step: impl FnOnce(&mut Machine) -> io::Result<T>) -> io::Result<T> {
        self.writes += 1;
        self.powered(Cut::BeforeWrite(self.writes), Cut::AfterWrite(self.writes), step)
    }

    fn sync<T>(&mut self, step: impl FnOnce(&mut Machine) -> io::Result<T>) -> io::Result<T> {
        self.syncs += 1;
        self.powered(Cut::BeforeSync(self.syncs), Cut::AfterSync(self.syncs), step)
    }

    fn change(&mut self, number: usize, change: Change) {
        let tick = self.next_tick();
        let inode = &mut self.inodes[number];
        apply(&mut inode.live, &change);
        inode.changes.push((tick, change));
    }

    fn write_at(&mut self, number: usize, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let room = (self.inodes[number].allocated().saturating_add(self.free())).max(offset);
        let fits = bytes.len().min((room - offset).try_into().unwrap_or(usize::MAX));
        let (written, error) = if self.write_fails {
            (bytes.len().min(fits) / 2, Some(INPUT_OUTPUT))
        } else {
            (fits, (fits < bytes.len()).then_some(NO_SPACE))
        };
        if written > 0 {
            self.change(number, Change::Write { offset, bytes: bytes[..written].to_vec() });
        }
        error.map_or(Ok(()), |error| Err(io::Error::from_raw_os_error(error)))
    }

    fn sync_file(&mut self, number: usize) -> io::Result<()> {
        let fails = self.syncs_to_fail > 0;
        let inode = &mut self.inodes[number];
        inode.changes.clear();
        if fails {
            self.syncs_to_fail -= 1;
            let len = inode.live.len();
            inode.live.clone_from(&inode.durable);
            inode.live.resize(len, 0);
            return Err(io::Error::from_raw_os_error(INPUT_OUTPUT));
        }
        inode.durable.clone_from(&inode.live);
        Ok(())
    }

    fn sync_folder(&mut self, folder: &Path) {
        let renamings = std::mem::take(&mut self.renamings);
        for (tick, renaming) in renamings {
            if renaming.iter().any(|(path, _)| path.parent() == Some(folder)) {
                for (path, node) in renaming {
                    set_name(&mut self.durable_names, &path, node);
                }
            } else {
                self.renamings.push((tick, renaming));
            }
        }
    }
}

fn set_name(names: &mut BTreeMap<PathBuf, Node>, path: &Path, node: Option<Node>) {
    match node {
        Some(node) => names.insert(path.to_owned(), node),
        None => names.remove(path),
    };
}

impl Disk for SimDisk {
    /// Folders above the last one are durable at once: somebody else made them.
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        let mut machine = self.on()?;
        let missing: Vec<_> = path.ancestors().filter(|path| *path != Path::new("/")).collect();
        for path in missing.into_iter().rev() {
            match machine.names.get(path) {
                Some(Node::Folder) => {}
                Some(Node::File(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
                None => machine.rename(vec![(path.to_owned(), Some(Node::Folder))]),
            }
        }
        for above in path.ancestors().skip(2) {
            machine.sync_folder(above);
        }
        Ok(())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let machine = self.on()?;
        machine.check_folder(folder)?;
        let inside = machine.names.keys().filter(|path| path.parent() == Some(folder));
        let name =
            |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
        Ok(inside.filter_map(name).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut machine = self.on()?;
        machine.check_new(path)?;
        if machine.free() == 0 {
            return Err(io::Error::from_raw_os_error(NO_SPACE));
        }
        let number = machine.inodes.len();
        machine.inodes.push(Inode::default());
        machine.rename(vec![(path.to_owned(), Some(Node::File(number)))]);
        Ok(self.file_at(&machine, number))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let machine = self.on()?;
        let number = machine.file(path)?;
        Ok(self.file_at(&machine, number))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut machine = self.on()?;
        let number = machine.file(from)?;
        machine.check_folder(to.parent().expect("a path below the root"))?;
        let gone = (from.to_owned(), None);
        machine.rename(vec![gone, (to.to_owned(), Some(Node::File(number)))]);
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut machine = self.on()?;
        let number = machine.file(from)?;
        machine.check_new(to)?;
        machine.rename(vec![(to.to_owned(), Some(Node::File(number)))]);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut machine = self.on()?;
        machine.file(path)?;
        machine.rename(vec![(path.to_owned(), None)]);
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.on()?.sync(|machine| {
            machine.check_folder(folder)?;
            machine.sync_folder(folder);
            Ok(())
        })
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    number: usize,
    epoch: u64,
}

impl SimFile {
    fn on(&self) -> io::Result<MutexGuard<'_, Machine>> {
        let machine = self.disk.on()?;
        if machine.epoch == self.epoch { Ok(machine) } else { Err(power_is_off()) }
    }
}

impl DiskFile for SimFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.on()?.write(|machine| machine.write_at(self.number, offset, bytes))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let machine = self.on()?;
        if machine.read_fails {
            return Err(io::Error::from_raw_os_error(INPUT_OUTPUT));
        }
        let bytes = &machine.inodes[self.number].live;
        let rest = bytes.get(offset as usize..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn read_now(&self, offset: u64, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        if self.on()?.not_in_memory {
            return Ok(None);
        }
        let wanted = buffer.len();
        Ok(Some(self.read_at(offset, buffer)?).filter(|count| *count == wanted))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.on()?.inodes[self.number].live.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.on()?.write(|machine| {
            machine.change(self.number, Change::SetLen(len));
            machine.inodes[self.number].reserved = 0;
            Ok(())
        })
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        let mut machine = self.on()?;
        let more = len.saturating_sub(machine.inodes[self.number].allocated());
        if more > machine.free() {
            return Err(io::Error::from_raw_os_error(NO_SPACE));
        }
        let inode = &mut machine.inodes[self.number];
        inode.reserved = inode.reserved.max(len);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.on()?.sync(|machine| machine.sync_file(self.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOLDER: &str = "/data/log";

    fn file(disk: &SimDisk, name: &str) -> Arc<dyn DiskFile> {
        disk.create_folder(Path::new(FOLDER)).unwrap();
        disk.create(&Path::new(FOLDER).join(name)).unwrap()
    }

    fn sync_folders(disk: &SimDisk) {
        disk.sync_folder(Path::new("/data")).unwrap();
        disk.sync_folder(Path::new(FOLDER)).unwrap();
    }

    fn bytes(disk: &SimDisk, name: &str) -> Option<Vec<u8>> {
        disk.bytes(&Path::new(FOLDER).join(name))
    }

    #[test]
    fn what_was_not_synced_is_lost_and_what_was_is_not() {
        let disk = SimDisk::default();
        let file = file(&disk, "a");
        file.write_at(0, b"durable").unwrap();
        file.sync().unwrap();
        file.write_at(0, b"DUR").unwrap();
        let nameless = disk.fork();
        nameless.power_cut_prefix(0);
        assert_eq!(nameless.paths(), Vec::<PathBuf>::new());
        sync_folders(&disk);
        let lost = disk.fork();
        assert_eq!(lost.unsynced(), 1);
        lost.power_cut_prefix(0);
        assert_eq!(bytes(&lost, "a").unwrap(), b"durable");
        let kept = disk.fork();
        kept.power_cut_prefix(1);
        assert_eq!(bytes(&kept, "a").unwrap(), b"DURable");
        disk.process_kill();
        assert_eq!(bytes(&disk, "a").unwrap(), b"DURable");
        assert!(file.len().is_err(), "a handle of the dead process");
    }

    #[test]
    fn a_cut_keeps_drops_and_tears_by_sector() {
        let disk = SimDisk::default();
        let file = file(&disk, "a");
        sync_folders(&disk);
        file.write_at(100, &[1; 2_000]).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..1_000 {
            let fate = disk.fork();
            fate.power_cut(seed);
            let found = bytes(&fate, "a").unwrap();
            let sectors: Vec<bool> = found.chunks(SECTOR).map(|part| part.contains(&1)).collect();
            for (sector, part) in found.chunks(SECTOR).enumerate() {
                let part = if sector == 0 { &part[100.min(part.len())..] } else { part };
                assert!(part.iter().all(|byte| *byte == part[0]), "sectors are whole");
            }
            seen.insert(sectors);
        }
        assert!(seen.contains(&vec![]), "dropped");
        assert!(seen.contains(&vec![true; 5]), "kept");
        assert!(seen.contains(&vec![true, false, true]), "torn");
    }

    #[test]
    fn the_power_fails_when_it_was_told_to() {
        let run = |cut| {
            let disk = SimDisk::default();
            disk.cut_at(cut);
            let file = file(&disk, "a");
            let sync = || disk.sync_folder(Path::new("/data"));
            let rest = || disk.sync_folder(Path::new(FOLDER));
            let steps = sync().and_then(|()| rest()).and_then(|()| file.write_at(0, b"1"));
            let steps = steps.and_then(|()| file.sync()).and_then(|()| file.write_at(1, b"2"));
            assert!(disk.is_off());
            let _ = steps;
            disk.power_cut_prefix(usize::MAX);
            bytes(&disk, "a")
        };
        assert_eq!(run(Cut::BeforeSync(1)), Some(vec![]), "names survive by luck");
        assert_eq!(run(Cut::BeforeWrite(1)), Some(vec![]));
        assert_eq!(run(Cut::AfterWrite(1)), Some(b"1".to_vec()));
        assert_eq!(run(Cut::BeforeSync(3)), Some(b"1".to_vec()));
        assert_eq!(run(Cut::AfterSync(3)), Some(b"1".to_vec()));
        assert_eq!(run(Cut::BeforeWrite(2)), Some(b"1".to_vec()));
        assert_eq!(run(Cut::AfterWrite(2)), Some(b"12".to_vec()));
    }

    #[test]
    fn space_ends_and_comes_back() {
        let disk = SimDisk::default();
        let (a, b) = (file(&disk, "a"), file(&disk, "b"));
        disk.set_space(Some(10));
        a.reserve(8).unwrap();
        assert_eq!(b.reserve(3).unwrap_err().raw_os_error(), Some(NO_SPACE));
        a.write_at(0, &[1; 8]).unwrap();
        let full = b.write_at(0, &[1; 3]).unwrap_err();
        assert_eq!(full.raw_os_error(), Some(NO_SPACE));
        assert_eq!(b.len().unwrap(), 2, "what fits is written");
        disk.remove(&Path::new(FOLDER).join("a")).unwrap();
        b.write_at(0, &[1; 10]).unwrap();
    }

    #[test]
    fn a_failed_sync_drops_what_it_was_asked_for() {
        let disk = SimDisk::default();
        let file = file(&disk, "a");
        sync_folders(&disk);
        file.write_at(0, b"good").unwrap();
        file.sync().unwrap();
        file.write_at(0, b"newer").unwrap();
        disk.fail_syncs(1);
        file.sync().unwrap_err();
        file.sync().unwrap();
        disk.power_cut_prefix(usize::MAX);
        assert_eq!(bytes(&disk, "a").unwrap(), b"good\0");
    }

    #[test]
    fn bits_flip_and_reads_fail() {
        let disk = SimDisk::default();
        let file = file(&disk, "a");
        file.write_at(0, &[0; 2]).unwrap();
        disk.flip(&Path::new(FOLDER).join("a"), 9);
        assert_eq!(bytes(&disk, "a").unwrap(), [0, 2]);
        disk.set_in_memory(false);
        assert_eq!(file.read_now(0, &mut [0]).unwrap(), None);
        disk.fail_reads(true);
        file.read_at(0, &mut [0]).unwrap_err();
        disk.fail_reads(false);
        disk.fail_writes(true);
        file.write_at(0, b"half").unwrap_err();
        assert_eq!(bytes(&disk, "a").unwrap(), b"ha");
        disk.set_bytes(&Path::new(FOLDER).join("a"), b"other");
        assert_eq!(bytes(&disk, "a").unwrap(), b"other");
    }
}
