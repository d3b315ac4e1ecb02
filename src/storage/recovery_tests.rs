//! What is written is recovered, and what is wrong with a folder is said.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::BytesMut;

use crate::base::hash::HashSeed;
use crate::base::id::{Actor, Boot, NodeId, VnodeId};
use crate::base::time::{Hlc, UnixMs};
use crate::value::change::{Amount, Change, Expire};
use crate::value::view::Views;

use super::disk::RealDisk;
use super::frame::{self, Kind};
use super::keyspace::Keyspace;
use super::life::Past;
use super::log::{Fsync, Layout, Log, Options};
use super::recovery::{Flaw, Progress, Report, recover, recover_by};
use super::segment::{HEAD_SIZE, Head, lane_folder, segment_name};
use super::sim_disk::SimDisk;

pub(super) const LAYOUT: Layout = Layout { vnodes: 8, lanes: 2, cluster: 77 };
pub(super) const SEED: HashSeed = HashSeed(7);
pub(super) const CRASHED: Past = Past { clean: false, machine_restarted: true };
pub(super) const KILLED: Past = Past { clean: false, machine_restarted: false };
pub(super) const CLEAN: Past = Past { clean: true, machine_restarted: false };

/// All that a keyspace holds: the records of all keys, by vnode.
pub(super) type State = BTreeMap<VnodeId, BTreeMap<Vec<u8>, Vec<u8>>>;

pub(super) fn state_of(keyspace: &Keyspace) -> State {
    let mut state = State::new();
    for vnode in (0..LAYOUT.vnodes).map(VnodeId) {
        keyspace.read(vnode, UnixMs(0), |keys| {
            let cold = keys.records(
                |_| true,
                |key, record| {
                    state.entry(vnode).or_default().insert(key.to_vec(), record.to_vec());
                },
            );
            assert!(cold.is_empty());
        });
    }
    state
}

/// Vnodes from 4 on are sole.
pub(super) fn keyspace(log: Option<&Arc<Log>>) -> Keyspace {
    let keyspace = match log {
        Some(log) => Keyspace::with_log(LAYOUT.vnodes, SEED, Arc::clone(log)),
        None => Keyspace::new(LAYOUT.vnodes, SEED),
    };
    (4..LAYOUT.vnodes).for_each(|vnode| keyspace.set_sole(VnodeId(vnode), true));
    keyspace
}

/// One change of many: puts, deletes and increments by two authors in all vnodes.
pub(super) fn change(keyspace: &Keyspace, number: u32) {
    change_in(keyspace, VnodeId(number as u16 % LAYOUT.vnodes), number);
}

/// The same in a certain vnode.
pub(super) fn change_in(keyspace: &Keyspace, vnode: VnodeId, number: u32) {
    let key = format!("key:{}", number / 8 % 5).into_bytes();
    let actor = Actor::new(NodeId(1 + (number / 16 % 2) as u16), Boot(1));
    let change = match number / 3 % 7 {
        0 | 4 => Change::Delete,
        1 | 5 => Change::Increment(Amount::Int(i128::from(number))),
        2 => Change::Expire(Some(UnixMs(1 << 40))),
        _ => {
            let value = number.to_string().into_bytes();
            Change::Put { value: Cow::Owned(value), expire: Expire::Clear }
        }
    };
    let now = UnixMs(1_000 + u64::from(number));
    keyspace.write(vnode, now, |keys| {
        if number % 13 == 5 && !keys.is_sole() {
            // What was held for others has reached them.
            let state = keys.read().state_digest(&key);
            keys.forget(&key, state, actor);
            return;
        }
        // An increment of nothing or a delete of what is not there may be refused.
        let _ = keys.apply(&key, &change, actor, &mut BytesMut::new());
    });
}

pub(super) fn open(folder: &Path, segment_size: u32) -> Arc<Log> {
    let options = Options { segment_size, fsync: Fsync::No };
    Log::open(Arc::new(RealDisk), folder.to_owned(), LAYOUT, options).unwrap()
}

pub(super) fn recovered(log: &Arc<Log>, past: Past) -> (Keyspace, Report) {
    let keyspace = keyspace(Some(log));
    // Several threads share a lane, and a lane's damage is reported once.
    let report = recover_by(5, log, &keyspace, past, &Progress::default()).unwrap();
    (keyspace, report)
}

fn segment_path(folder: &Path, lane: u16, number: u32) -> PathBuf {
    folder.join(lane_folder(lane)).join(segment_name(number))
}

/// Writes some changes into a fresh log, in small segments, and a few more in a second life, whose
/// marks say that the first one's are durable; what they lead to.
fn written(folder: &Path) -> State {
    let mut state = State::new();
    for numbers in [0..400, 400..416] {
        let log = open(folder, 1_000);
        let (keyspace, report) = recovered(&log, CLEAN);
        log.begin(report.hlc_max.max(Hlc::at(UnixMs(500)))).unwrap();
        numbers.for_each(|number| change(&keyspace, number));
        log.close().unwrap();
        state = state_of(&keyspace);
    }
    state
}

fn lane_vnodes(lane: u16) -> BTreeSet<VnodeId> {
    (lane..LAYOUT.vnodes).step_by(LAYOUT.lanes.into()).map(VnodeId).collect()
}

#[test]
fn what_was_written_is_recovered_start_after_start() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("log");
    let mut expected = State::new();
    for start in 0..4 {
        let log = open(&folder, 1_000);
        let keyspace = keyspace(Some(&log));
        let progress = Progress::default();
        let report = recover_by(1 + start as usize, &log, &keyspace, CLEAN, &progress).unwrap();
        assert_eq!(state_of(&keyspace), expected, "start {start}");
        assert!(report.damaged.is_empty() && report.cut.is_empty(), "{report:?}");
        let held: u64 = expected.values().map(|keys| keys.len() as u64).sum();
        assert_eq!(progress.keys.load(Ordering::Relaxed), held);
        let done = progress.bytes_done.load(Ordering::Relaxed);
        assert!(report.bytes - done <= 2 * 8, "{done} of {}", report.bytes);
        for vnode in (0..LAYOUT.vnodes).map(VnodeId) {
            assert!(report.hlc_max >= keyspace.hlc(vnode));
        }
        keyspace.replayed();
        log.begin(report.hlc_max).unwrap();
        (start * 150..(start + 1) * 150).for_each(|number| change(&keyspace, number));
        expected = state_of(&keyspace);
        log.close().unwrap();
        assert!(log.segments(0).len() as u32 > 2 * start, "segments were rolled");
    }
}

#[test]
fn a_segment_that_is_missing_is_damage_to_its_lane() {
    let folder = tempfile::tempdir().unwrap();
    let before = written(folder.path());
    fs::remove_file(segment_path(folder.path(), 1, 3)).unwrap();
    for past in [CLEAN, KILLED, CRASHED] {
        let (keyspace, report) = recovered(&open(folder.path(), 1_000), past);
        assert_eq!(report.damaged, lane_vnodes(1));
        let [damage] = &report.damages[..] else { panic!("{report:?}") };
        assert_eq!((damage.lane, damage.segment, damage.flaw), (1, 3, Flaw::Missing(1)));
        assert!(report.cut.is_empty());
        let after = state_of(&keyspace);
        assert!(lane_vnodes(0).iter().all(|vnode| after.get(vnode) == before.get(vnode)));
    }
}

#[test]
fn a_head_that_cannot_be_read_is_damage_and_its_frames_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let before = written(folder.path());
    let path = segment_path(folder.path(), 0, 2);
    let mut bytes = fs::read(&path).unwrap();
    bytes[20] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (keyspace, report) = recovered(&open(folder.path(), 1_000), CRASHED);
    assert_eq!(report.damaged, lane_vnodes(0));
    assert_eq!((report.damages[0].segment, report.damages[0].flaw), (2, Flaw::Head));
    assert_eq!(state_of(&keyspace), before);
}

#[test]
fn a_whole_frame_without_a_record_is_damage_to_its_vnode() {
    let folder = tempfile::tempdir().unwrap();
    let before = written(folder.path());
    let path = segment_path(folder.path(), 1, 4);
    let mut bytes = BytesMut::from(&fs::read(&path).unwrap()[..]);
    frame::append(&mut bytes, Kind::State, VnodeId(5), |out| out.extend_from_slice(b"\xFFno"));
    fs::write(&path, bytes).unwrap();
    let (keyspace, report) = recovered(&open(folder.path(), 1_000), CLEAN);
    assert_eq!(report.damaged, BTreeSet::from([VnodeId(5)]));
    assert!(matches!(report.damages[0].flaw, Flaw::Record(_)), "{report:?}");
    assert_eq!(state_of(&keyspace), before);
}

#[test]
fn a_moved_segment_and_one_of_another_version_are_refused() {
    let refused = |change: &dyn Fn(&mut Vec<u8>)| {
        let folder = tempfile::tempdir().unwrap();
        written(folder.path());
        let path = segment_path(folder.path(), 0, 2);
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(&path, bytes).unwrap();
        let options = Options { segment_size: 1_000, fsync: Fsync::No };
        let log = Log::open(Arc::new(RealDisk), folder.path().to_owned(), LAYOUT, options);
        let recovered =
            log.and_then(|log| recover(&log, &keyspace(None), CRASHED, &Progress::default()));
        recovered.unwrap_err().to_string()
    };
    let with_head = |change: &dyn Fn(&mut Head)| {
        refused(&|bytes: &mut Vec<u8>| {
            let mut head = Head::decode(bytes).unwrap();
            change(&mut head);
            bytes[..HEAD_SIZE].copy_from_slice(&head.encode());
        })
    };
    let moved = with_head(&|head| head.number = 9);
    assert!(moved.contains("2.seg") && moved.contains("segment 9: it was moved"), "{moved}");
    let cluster = with_head(&|head| head.cluster = 78);
    assert!(cluster.contains("cluster"), "{cluster}");
    let format = refused(&|bytes: &mut Vec<u8>| {
        bytes[8] = 9;
        let crc = crc32fast::hash(&bytes[..HEAD_SIZE - 4]);
        bytes[HEAD_SIZE - 4..HEAD_SIZE].copy_from_slice(&crc.to_le_bytes());
    });
    assert!(format.contains("format 9") && format.contains("reads format 1"), "{format}");
}

#[test]
fn a_segment_that_was_hardly_begun_is_removed_and_its_number_used_again() {
    for len in [1, HEAD_SIZE - 1] {
        let folder = tempfile::tempdir().unwrap();
        let before = written(folder.path());
        let log = open(folder.path(), 1_000);
        let next = log.segments(0).last().unwrap().number + 1;
        drop(log);
        let path = segment_path(folder.path(), 0, next);
        fs::write(&path, vec![0; len]).unwrap();
        let log = open(folder.path(), 1_000);
        let (keyspace, report) = recovered(&log, KILLED);
        assert_eq!(state_of(&keyspace), before);
        assert!(report.damaged.is_empty() && !path.exists(), "{report:?}");
        assert_eq!((report.cut[0].segment, report.cut[0].bytes), (next, len as u64));
        log.begin(report.hlc_max).unwrap();
        assert!(path.exists());
    }
}

#[test]
fn what_cannot_be_read_stops_the_recovery_and_nothing_is_changed() {
    let disk = SimDisk::default();
    let options = Options { segment_size: 1_000, fsync: Fsync::No };
    let open = || Log::open(Arc::new(disk.clone()), "/log".into(), LAYOUT, options).unwrap();
    let log = open();
    log.begin(Hlc(1)).unwrap();
    let written = keyspace(Some(&log));
    (0..100).for_each(|number| change(&written, number));
    log.close().unwrap();
    let log = open();
    disk.fail_reads(true);
    let refused = recover(&log, &keyspace(None), CRASHED, &Progress::default()).unwrap_err();
    assert!(refused.to_string().starts_with("/log/lane-0"), "{refused}");
    disk.fail_reads(false);
    assert_eq!(state_of(&recovered(&log, CLEAN).0), state_of(&written));
}

/// What does not fit into memory is not brought there: old segments by their hints, if there are
/// any, and the rest cools as it comes.
#[test]
fn with_little_memory_old_values_stay_on_disk() {
    use super::compaction::{Compaction, Compactor, Stepped};
    use super::compaction_tests::{self as small, Store, live_large};

    let disk = SimDisk::default();
    let mut store = Store::open(Arc::new(disk.clone()), small::folder()).unwrap();
    live_large(&store, 1, 400);
    store.live_a_little(2, 100);
    store.log.roll().unwrap();
    store.shared.set_hints(true);
    while store.compactor.step() != Stepped::Idle {}
    let (before, all) = (store.state(), store.keyspace.used());
    drop(store);
    disk.process_kill();
    let is_hint = |path: &PathBuf| path.extension().is_some_and(|end| end == "hint");
    let hints: Vec<PathBuf> = disk.paths().into_iter().filter(is_hint).collect();
    assert!(hints.len() > 10, "{}", hints.len());
    let spoilt = disk.fork();
    hints.iter().for_each(|hint| spoilt.set_bytes(hint, b"no hint"));
    for (disk, threads) in [(disk, 3), (spoilt, 1)] {
        let options = Options { segment_size: 1_500, fsync: Fsync::No };
        let log = Log::open(Arc::new(disk), small::folder().to_owned(), small::LAYOUT, options);
        let log = log.unwrap();
        let keyspace = Keyspace::with_log(small::LAYOUT.vnodes, small::SEED, Arc::clone(&log));
        keyspace.set_sole(small::SOLE, true);
        let budget = all * 2 / 3;
        keyspace.set_budget(budget as u64);
        let report = recover_by(threads, &log, &keyspace, KILLED, &Progress::default()).unwrap();
        assert!(report.damages.is_empty() && report.cut.is_empty(), "{report:?}");
        assert!(keyspace.used() <= budget + 4_096, "{} of {budget}", keyspace.used());
        let vnodes = (0..small::LAYOUT.vnodes).map(VnodeId);
        let cold: usize = vnodes.map(|vnode| keyspace.counts(vnode).cold).sum();
        assert!(cold > 10, "{cold}");
        let (keyspace, shared) = (Arc::new(keyspace), Compaction::new());
        let compactor = Compactor::new(log.clone(), keyspace.clone(), shared.clone(), 1_500);
        assert_eq!(Store { log, keyspace, shared, compactor }.state(), before);
    }
}
