//! Hints that are written in the background, and a recovery by them.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use crate::base::id::VnodeId;

use super::compaction::Stepped;
use super::compaction_tests::{LAYOUT, NOW, SEED, SOLE, Store, folder, live_large};
use super::disk::Disk;
use super::hint::{Hint, Told, hint_name};
use super::hinting::scan;
use super::keyspace::Keyspace;
use super::log::{Fsync, Log, Options};
use super::place::Place;
use super::scan::Piece;
use super::segment::{HEAD_SIZE, Head, lane_folder, segment_name};
use super::sim_disk::SimDisk;
use super::warming::{Patience, Warmed};

fn hint_of(log: &Log, lane: usize, number: u32, len: u64) -> Option<Hint> {
    let mut head = [0; HEAD_SIZE];
    log.read_range(lane, number, 0, &mut head).unwrap();
    let path = folder().join(lane_folder(lane as u16)).join(hint_name(number));
    Hint::read(&**log.disk(), &path, &Head::decode(&head).unwrap(), len as u32)
}

/// The keyspace by hints where there are any that may be used, else by segments. With how many
/// stubs.
fn replayed(disk: &SimDisk, by_hints: bool) -> (Arc<Keyspace>, Arc<Log>, usize) {
    let options = Options { segment_size: 1_500, fsync: Fsync::No };
    let log = Log::open(Arc::new(disk.clone()), folder().to_owned(), LAYOUT, options).unwrap();
    let keyspace = Arc::new(Keyspace::with_log(LAYOUT.vnodes, SEED, log.clone()));
    keyspace.set_sole(SOLE, true);
    let mut stubs = 0;
    for lane in 0..log.lanes() {
        for segment in log.segments(lane) {
            match hint_of(&log, lane, segment.number, segment.len).filter(|_| by_hints) {
                Some(hint) => {
                    assert!(hint.size() as u64 <= segment.len / 4 + 100);
                    for row in hint.rows() {
                        stubs += usize::from(matches!(row.told, Told::Stub(_)));
                        row.replay(&keyspace).unwrap();
                    }
                }
                None => replay_segment(&log, &keyspace, lane, segment.number, segment.len),
            }
        }
    }
    (keyspace, log, stubs)
}

fn replay_segment(log: &Arc<Log>, keyspace: &Keyspace, lane: usize, segment: u32, len: u64) {
    let mut scan = scan(log, lane, segment, len);
    while let Piece::Frame { offset, header, payload } = scan.next(|_| true).unwrap() {
        let place = Place { segment, offset };
        let replay = |keys: &mut super::vnode_write::VnodeWrite<'_>| {
            keys.replay(header.kind, place, payload).unwrap();
        };
        keyspace.write(header.vnode, NOW, replay);
    }
}

fn write_hints(store: &mut Store) -> u64 {
    store.shared.set_hints(true);
    for _ in 0..10_000 {
        if store.compactor.step() == Stepped::Idle {
            break;
        }
    }
    store.shared.status().hints
}

fn vnodes() -> impl Iterator<Item = VnodeId> {
    (0..LAYOUT.vnodes).map(VnodeId)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_hint_and_warming_are_the_segment(seed: u64, steps in 1usize..150, small in 0usize..20) {
        let disk = SimDisk::default();
        let mut store = Store::open(Arc::new(disk.clone()), folder()).unwrap();
        live_large(&store, seed, steps);
        store.live_a_little(seed, small);
        live_large(&store, seed ^ 1, steps / 2);
        store.log.roll().unwrap();
        write_hints(&mut store);
        let state = store.state();
        drop(store);
        disk.process_kill();
        let (by_segments, ..) = replayed(&disk, false);
        let (by_hints, log, stubs) = replayed(&disk, true);
        let mut cold = 0;
        for vnode in vnodes() {
            let (one, other) = (by_segments.counts(vnode), by_hints.counts(vnode));
            prop_assert_eq!((one.live, one.expiring, one.held), (other.live, other.expiring, other.held));
            prop_assert_eq!(by_segments.stored(|v| v == vnode), by_hints.stored(|v| v == vnode));
            prop_assert_eq!(by_segments.hlc(vnode), by_hints.hlc(vnode));
            let digest = |keys: &Keyspace| keys.tree(vnode, |tree| tree.clone());
            prop_assert_eq!(digest(&by_segments), digest(&by_hints));
            cold += other.cold;
        }
        prop_assert!(cold <= stubs && (stubs == 0 || steps < 5 || cold > 0));
        for key in state.keys() {
            let vnode = super::compaction_tests::vnode_of(key);
            let warmed = by_hints.warm(vnode, key, NOW, Patience::Wait);
            prop_assert!(matches!(warmed, Warmed::Done), "{warmed:?}");
        }
        let records = |keyspace: &Keyspace| {
            let mut all = std::collections::BTreeMap::new();
            for vnode in vnodes() {
                let visit = |key: &[u8], record: &[u8]| drop(all.insert(key.to_vec(), record.to_vec()));
                let cold = keyspace.read(vnode, NOW, |keys| keys.records(|_| true, visit));
                assert!(cold.is_empty(), "all is warm");
            }
            all
        };
        prop_assert_eq!(records(&by_hints), records(&by_segments));
        prop_assert_eq!(records(&by_hints), state);
        drop(log);
    }
}

#[test]
fn each_sealed_segment_gets_one_hint_which_goes_with_it() {
    let disk = SimDisk::default();
    let mut store = Store::open(Arc::new(disk.clone()), folder()).unwrap();
    live_large(&store, 2, 100);
    store.log.roll().unwrap();
    let sealed = store.sealed().len();
    let written = write_hints(&mut store);
    assert!(written as usize > sealed / 2, "{written} of {sealed}");
    let hints = |disk: &SimDisk| {
        let is_hint = |path: &Path| path.extension().is_some_and(|end| end == "hint");
        disk.paths().iter().filter(|path| is_hint(path)).count() as u64
    };
    assert_eq!(hints(&disk), written);
    assert_eq!(write_hints(&mut store), written, "none is written twice");
    store.shared.set_hints(false);
    store.shared.ask();
    while store.compactor.step() != Stepped::Idle {}
    assert_eq!(hints(&disk), 0, "hints go with their segments");
    live_large(&store, 3, 100);
    store.log.roll().unwrap();
    assert!(store.compactor.step() == Stepped::Idle && hints(&disk) == 0, "nobody wants any");
    assert!(write_hints(&mut store) > written);
}

#[test]
fn a_hint_that_cannot_be_written_is_tried_again() {
    let disk = SimDisk::default();
    let mut store = Store::open(Arc::new(disk.clone()), folder()).unwrap();
    live_large(&store, 4, 60);
    store.log.roll().unwrap();
    store.log.sync().unwrap();
    store.shared.set_hints(true);
    disk.fail_writes(true);
    while store.compactor.step() != Stepped::Waiting {}
    assert!(store.shared.status().last_error.unwrap().starts_with("hints wait"));
    disk.fail_writes(false);
    assert!(write_hints(&mut store) > 0);
    assert!(
        disk.list(&folder().join("lane-00")).unwrap().iter().all(|name| !name.ends_with("new"))
    );
}

/// A store of many times its memory starts by hints, and without them.
#[test]
fn a_restart_stays_within_its_memory() {
    const BUDGET: u64 = 100_000;
    let disk = SimDisk::default();
    let mut store = Store::open(Arc::new(disk.clone()), folder()).unwrap();
    for number in 0..500 {
        let value: String = (0..300).map(|_| fastrand::alphanumeric()).collect();
        store.put(&format!("key:{number}"), &value);
    }
    store.log.roll().unwrap();
    let sealed = store.sealed();
    // What comes next notes that all before is durable: damage there is no torn tail.
    for _ in 0..2 {
        (0..20).for_each(|number| store.put(&format!("key:{number}"), "again"));
        store.log.sync().unwrap();
    }
    let state = store.state();
    let without = disk.fork();
    assert!(write_hints(&mut store) as usize >= sealed.len());
    drop(store);
    disk.process_kill();
    // Nobody reads this value now, so nobody sees that it is damaged.
    let damaged = disk.fork();
    let (lane, number) = sealed[0];
    let path = folder().join(lane_folder(lane as u16)).join(segment_name(number));
    damaged.flip(&path, 8 * (HEAD_SIZE as u64 + 150));
    for (disk, intact) in [(without, true), (disk, true), (damaged, false)] {
        let store = Store::open_within(Arc::new(disk), folder(), BUDGET).unwrap();
        let used = store.keyspace.used() as u64;
        assert!(used <= BUDGET && store.cold() > 250, "{used} bytes, {} cold", store.cold());
        if intact {
            assert_eq!(store.state(), state);
        }
    }
}
