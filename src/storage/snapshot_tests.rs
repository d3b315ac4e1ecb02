//! Snapshots on a real file system: under writes, and without links.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{fs, io};

use crate::base::id::Boot;
use crate::membership::lives::{Met, Starts};

use super::compaction::Stepped;
use super::compaction_tests::{LAYOUT, Store, live_large};
use super::disk::{Disk, DiskFile, RealDisk};
use super::life::{self, Life, Lived};
use super::snapshot::{BOOT_LEAP, Snapshot, snapshot};

fn lived() -> Lived {
    let (starts, machine) = (Starts::marked(1, [10, 20, 30]), "here".to_owned());
    Lived { boot: Boot(7), starts, clean: true, whole: true, machine, layout: Some(LAYOUT) }
}

fn take(store: &Store, target: &Path) -> io::Result<Snapshot> {
    snapshot(&store.log, &store.shared, &lived(), target)
}

fn reopened(target: &Path) -> Store {
    Store::open(Arc::new(RealDisk), &target.join("log")).unwrap()
}

#[test]
fn a_node_starts_from_a_snapshot_and_the_original_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(Arc::new(RealDisk), &folder.path().join("log")).unwrap();
    live_large(&store, 1, 200);
    store.live_a_little(1, 300);
    let before = store.state();
    let target = folder.path().join("snapshots/first");
    let made = take(&store, &target).unwrap();
    let sealed = store.sealed().len() as u64;
    assert!(made.segments == sealed && made.bytes > 0 && !made.copied, "{made:?}");
    assert_eq!(take(&store, &target).unwrap_err().kind(), io::ErrorKind::AlreadyExists);

    // The original goes on, compacts all that the snapshot has, and dies.
    store.live_a_little(2, 300);
    let after = store.state();
    store.shared.ask();
    while store.compactor.step() != Stepped::Idle {}
    assert_eq!(store.state(), after);
    drop(store);

    let restored = reopened(&target);
    assert_eq!(restored.state(), before);
    restored.live_a_little(3, 300);
    drop(restored);
    let original = Store::open(Arc::new(RealDisk), &folder.path().join("log")).unwrap();
    assert_eq!(original.state(), after, "what is done to the one is not done to the other");

    let said = life::read(&target).unwrap().unwrap();
    assert_eq!((said.boot, said.clean, &said.machine[..]), (Boot(7 + BOOT_LEAP), false, ""));
    let life = Life::begin(&target, LAYOUT).unwrap();
    assert_eq!((life.boot(), life.own().start), (Boot(8 + BOOT_LEAP), 4));
    assert!(life.machine_restarted() && !life.was_clean() && !life.is_whole());
    // The original has lived on: who has met that finds the snapshot out.
    assert!(!life.remind(&Met { start: 3, boot: Boot(7), mark: 30 }).unwrap());
    assert!(life.remind(&Met { start: 4, boot: Boot(7), mark: 40 }).unwrap());
}

/// A writer changes a key of one lane and then one of the other, over and over: whatever the
/// moment, the second is at most one step behind.
#[test]
fn under_writes_a_snapshot_is_one_moment() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(Arc::new(RealDisk), &folder.path().join("log")).unwrap();
    let lane_of = |key: &String| store.log.lane(super::compaction_tests::vnode_of(key.as_bytes()));
    let keys: Vec<String> = (0..20).map(|number| format!("key {number}")).collect();
    let first = keys.iter().find(|key| lane_of(key) == 0).unwrap();
    let second = keys.iter().find(|key| lane_of(key) == 1).unwrap();
    store.put(first, "000000000");
    store.put(second, "000000000");
    let stop = AtomicBool::new(false);
    let write = || {
        for number in 1.. {
            store.put(first, &format!("{number:09}"));
            store.put(second, &format!("{number:09}"));
            if stop.load(Ordering::Relaxed) {
                break;
            }
            // Segments are tiny here, and each is an open file.
            std::thread::sleep(Duration::from_micros(200));
        }
    };
    std::thread::scope(|scope| {
        let writer = scope.spawn(write);
        for number in 0..8 {
            std::thread::sleep(Duration::from_millis(10));
            take(&store, &folder.path().join(format!("s{number}"))).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
    });
    let mut last = 0;
    for number in 0..8 {
        let state = reopened(&folder.path().join(format!("s{number}"))).state();
        let written = |key: &String| -> u64 {
            let record = &state[key.as_bytes()];
            std::str::from_utf8(&record[record.len() - 9..]).unwrap().parse().unwrap()
        };
        let (one, other) = (written(first), written(second));
        assert!(one == other || one == other + 1, "{one} and {other}");
        assert!(one >= last);
        last = one;
    }
}

#[test]
fn what_was_begun_and_not_finished_is_no_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(Arc::new(RealDisk), &folder.path().join("log")).unwrap();
    live_large(&store, 5, 20);
    let target = folder.path().join("snapshot");
    let part = folder.path().join("snapshot.part");
    fs::create_dir_all(part.join("log/lane-00")).unwrap();
    fs::write(part.join("log/lane-00/0000000001.seg"), "half").unwrap();
    take(&store, &target).unwrap();
    assert!(!part.exists());
    assert_eq!(reopened(&target).state(), store.state());

    // It fails half-way: no target, and nothing is held for ever.
    fs::write(&part, "a file in the way").unwrap();
    let other = folder.path().join("snapshot.part/below");
    assert!(take(&store, &other).is_err());
    assert!(!other.exists());
}

#[derive(Debug)]
struct Linkless;

impl Disk for Linkless {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_folder(path)
    }
    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(folder)
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        RealDisk.create(path)
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        RealDisk.open(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn link(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::CrossesDevices.into())
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        RealDisk.sync_folder(folder)
    }
}

#[test]
fn on_another_file_system_segments_are_copied() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(Arc::new(Linkless), &folder.path().join("log")).unwrap();
    live_large(&store, 6, 100);
    let target = folder.path().join("elsewhere");
    let made = take(&store, &target).unwrap();
    assert!(made.copied && made.segments > 4);
    assert_eq!(reopened(&target).state(), store.state());
}
