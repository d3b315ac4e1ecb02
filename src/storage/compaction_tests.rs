//! Tests of compaction: the decision in a small model, the work on a simulated disk.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use proptest::prelude::*;

use crate::base::hash::HashSeed;
use crate::base::id::{Actor, VnodeId};
use crate::base::time::{Dot, Hlc, UnixMs};
use crate::value::change::{Amount, Change, Expire};
use crate::value::packed::Packed;
use crate::value::plain::Plain;
use crate::value::record::{Record, encode_plain};

use super::compaction::{Compaction, Compactor, Status, Stepped, compact_always};
use super::disk::{Disk, RealDisk};
use super::keyspace::Keyspace;
use super::life::Past;
use super::log::{Fsync, Layout, Log, Options};
use super::recovery::{Progress, recover};
use super::segment::{lane_folder, segment_name};
use super::sim_disk::{Cut, SimDisk};
use super::vnode_write::Merged;

use super::pace::{LaneBytes, SEGMENT_SIZE_DEFAULT, lane_size_min, segment_size};

const MIB: u64 = 1 << 20;

// ---- the decision -----------------------------------------------------------------------------------

const FRAME: u64 = 4 << 10;

/// A lane of equal frames that are overwritten, and a compactor with exactly the asked rate.
struct Model {
    /// The segment and index of each key's newest frame.
    newest: Vec<(u64, usize)>,
    /// Keys by frame; the last segment is the active one.
    segments: VecDeque<Vec<usize>>,
    first: u64,
    walked: usize,
    running: bool,
    credit: f64,
    written: u64,
    moved: u64,
}

impl Model {
    fn new(keys: usize) -> Model {
        let segments = VecDeque::from([Vec::new()]);
        let newest = vec![(u64::MAX, 0); keys];
        let (first, walked, running, credit) = (0, 0, false, 0.0);
        let mut model =
            Model { newest, segments, first, walked, running, credit, written: 0, moved: 0 };
        (0..keys).for_each(|key| model.put(key));
        model
    }

    fn live(&self) -> u64 {
        self.newest.len() as u64 * FRAME
    }

    fn size(&self) -> u64 {
        u64::from(segment_size(self.live(), SEGMENT_SIZE_DEFAULT))
    }

    fn put(&mut self, key: usize) {
        if self.segments.back().unwrap().len() as u64 * FRAME >= self.size() {
            self.segments.push_back(Vec::new());
        }
        let number = self.first + self.segments.len() as u64 - 1;
        let active = self.segments.back_mut().unwrap();
        self.newest[key] = (number, active.len());
        active.push(key);
    }

    fn all(&self) -> u64 {
        self.segments.iter().map(|segment| segment.len() as u64 * FRAME).sum()
    }

    /// Bytes on disk: the rest of the active segment and the next one are reserved.
    fn disk(&self, all: u64) -> u64 {
        all - self.segments.back().unwrap().len() as u64 * FRAME + 2 * self.size()
    }

    /// What the compactor gets done in `seconds`.
    fn compact(&mut self, all: u64, seconds: f64) {
        let active = self.segments.back().unwrap().len() as u64 * FRAME;
        let all = all - self.walked as u64 * FRAME;
        let weight = LaneBytes { all, live: self.live(), active, least: lane_size_min(1) };
        if self.walked == 0 {
            self.running = weight.wants(self.running);
        }
        if !self.running {
            self.credit = 0.0;
            return;
        }
        self.credit += weight.rate() as f64 * seconds;
        while self.running && self.credit >= FRAME as f64 {
            self.credit -= FRAME as f64;
            self.walk();
        }
    }

    fn walk(&mut self) {
        if let Some(key) = self.segments[0].get(self.walked).copied() {
            if self.newest[key] == (self.first, self.walked) {
                self.put(key);
                self.moved += FRAME;
            }
            self.walked += 1;
            return;
        }
        self.segments.pop_front();
        self.first += 1;
        self.walked = 0;
        self.running = false;
    }
}

/// Overwrites all keys some times over; the most disk per live byte, and bytes moved per written.
fn overwritten(
    keys: usize,
    bytes_per_s: f64,
    key: impl Fn(&mut fastrand::Rng) -> usize,
) -> (f64, f64) {
    let mut model = Model::new(keys);
    let mut chance = fastrand::Rng::with_seed(7);
    let mut most = 0;
    for _ in 0..keys * 8 {
        let key = key(&mut chance);
        model.put(key);
        model.written += FRAME;
        // Sums are taken once for both: they are the model's whole cost.
        let all = model.all();
        most = most.max(model.disk(all));
        model.compact(all, FRAME as f64 / bytes_per_s);
    }
    (most as f64 / model.live() as f64, model.moved as f64 / model.written as f64)
}

#[test]
fn disk_stays_within_two_and_a_half_times_the_live_bytes() {
    let keys = (64 * MIB / FRAME) as usize;
    for bytes_per_s in [2e6, 50e6, 400e6] {
        let (disk, moved) = overwritten(keys, bytes_per_s, |chance| chance.usize(..keys));
        assert!(disk < 2.5, "{disk} times, uniform, at {bytes_per_s}/s");
        assert!(moved < 0.5, "{moved} bytes moved for each one written");
        let hot = |chance: &mut fastrand::Rng| match chance.u8(..10) {
            0 => chance.usize(..keys),
            _ => chance.usize(..keys / 10),
        };
        let (disk, moved) = overwritten(keys, bytes_per_s, hot);
        assert!(disk < 2.5, "{disk} times, nine of ten writes hot, at {bytes_per_s}/s");
        assert!(moved < 1.1, "{moved} bytes moved for each one written");
    }
}

#[test]
fn small_lanes_are_left_alone_and_an_active_segment_is_never_enough() {
    let least = lane_size_min(8);
    let weight = |all, live, active| LaneBytes { all, live, active, least };
    assert!(!weight(16 * MIB, 0, 0).wants(false));
    assert!(weight(16 * MIB + 1, 0, 0).wants(false));
    assert!(!weight(64 * MIB, 0, 64 * MIB).wants(true), "nothing is sealed");
    assert!(!weight(200 * MIB, 100 * MIB, MIB).wants(false));
    assert!(weight(200 * MIB, 100 * MIB, MIB).wants(true), "what has begun goes on for a while");
    assert!(!weight(180 * MIB, 100 * MIB, MIB).wants(true));
}

#[test]
fn lanes_share_what_a_small_log_may_have() {
    let least = [1, 2, 4, 5, 100].map(lane_size_min);
    assert_eq!(least, [64 * MIB, 32 * MIB, 16 * MIB, 16 * MIB, 16 * MIB]);
    let alone = LaneBytes { all: 64 * MIB, live: 10 * MIB, active: MIB, least: lane_size_min(1) };
    assert!(!alone.wants(false) && !alone.wants(true));
    assert!(LaneBytes { all: 64 * MIB + 1, ..alone }.wants(false));
}

#[test]
fn segments_are_a_sixteenth_of_the_lane() {
    let sizes = [0, 100 * MIB, 300 * MIB, 100 << 30].map(|live| segment_size(live, 64 << 20));
    assert_eq!(sizes, [4 << 20, 4 << 20, 16 << 20, 64 << 20]);
    assert_eq!(segment_size(0, 1 << 20), 1 << 20, "what is configured is the most");
    assert_eq!(segment_size(u64::MAX, u32::MAX), 1 << 31);
}

proptest! {
    #[test]
    fn the_rate_rises_with_the_excess(live in 0u64..1 << 40, all in 0u64..1 << 40, more in 0u64..1 << 40) {
        let rate = |all| LaneBytes { all, live, active: 0, least: 16 * MIB }.rate();
        prop_assert!(rate(all) <= rate(all + more));
        prop_assert!((8 * MIB..=2 << 30).contains(&rate(all)));
    }
}

// ---- the work ---------------------------------------------------------------------------------------

pub(super) const LAYOUT: Layout = Layout { vnodes: 8, lanes: 2, cluster: 5 };
pub(super) const SEED: HashSeed = HashSeed(7);
pub(super) const NOW: UnixMs = UnixMs(1_700_000_000_000);
const ACTOR: Actor = Actor(1 << 16);
const OTHER: Actor = Actor(2 << 16);
pub(super) const SOLE: VnodeId = VnodeId(6);

/// A store on a disk, opened after whatever happened to it.
pub(super) struct Store {
    pub(super) log: Arc<Log>,
    pub(super) keyspace: Arc<Keyspace>,
    pub(super) shared: Arc<Compaction>,
    pub(super) compactor: Compactor,
}

impl Store {
    pub(super) fn open(disk: Arc<dyn Disk>, folder: &Path) -> io::Result<Store> {
        Store::open_within(disk, folder, 0)
    }

    /// With so many bytes of memory.
    pub(super) fn open_within(
        disk: Arc<dyn Disk>,
        folder: &Path,
        budget: u64,
    ) -> io::Result<Store> {
        let options = Options { segment_size: 1_500, fsync: Fsync::No };
        let beat = Duration::from_millis(20);
        let log = Log::open_with_beat(disk, folder.to_owned(), LAYOUT, options, beat)?;
        let keyspace = Arc::new(Keyspace::with_log(LAYOUT.vnodes, SEED, log.clone()));
        keyspace.set_sole(SOLE, true);
        keyspace.set_budget(budget);
        let past = Past { clean: false, machine_restarted: true };
        let report = recover(&log, &keyspace, past, &Progress::default())?;
        assert_eq!(report.damages, []);
        log.begin(report.hlc_max)?;
        let shared = Compaction::new();
        let compactor = Compactor::new(log.clone(), keyspace.clone(), shared.clone(), 1_500);
        Ok(Store { log, keyspace, shared, compactor })
    }

    fn apply(&self, key: &[u8], change: &Change<'_>) {
        let vnode = vnode_of(key);
        self.keyspace.write(vnode, NOW, |keys| {
            if keys.lacks(key, change) {
                return;
            }
            // Too many siblings or no number: the key stays as it is.
            let _ = keys.apply(key, change, ACTOR, &mut BytesMut::new());
        });
    }

    pub(super) fn put(&self, key: &str, value: &str) {
        let value = Cow::Borrowed(value.as_bytes());
        self.apply(key.as_bytes(), &Change::Put { value, expire: Expire::Clear });
    }

    /// All records that are held, the cold ones too.
    pub(super) fn state(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut state = BTreeMap::new();
        for vnode in (0..LAYOUT.vnodes).map(VnodeId) {
            let visit =
                |key: &[u8], record: &[u8]| drop(state.insert(key.to_vec(), record.to_vec()));
            let cold = self.keyspace.read(vnode, NOW, |keys| keys.records(|_| true, visit));
            for record in cold {
                let bytes = self.keyspace.fetch(vnode, &record).unwrap();
                state.insert(record.key, bytes);
            }
        }
        state
    }

    /// Some of everything that a log may hold.
    pub(super) fn live_a_little(&self, seed: u64, steps: usize) {
        let mut chance = fastrand::Rng::with_seed(seed);
        for step in 0..steps {
            let key = format!("key:{}", chance.u8(..40)).into_bytes();
            let value = vec![b'0' + (step % 10) as u8; chance.usize(1..120)];
            match chance.u8(..10) {
                0..5 => {
                    let expire = if chance.bool() {
                        Expire::Clear
                    } else {
                        Expire::At(UnixMs(u64::MAX >> 1))
                    };
                    self.apply(&key, &Change::Put { value: Cow::Owned(value), expire });
                }
                5 => self.apply(&key, &Change::Delete),
                6 => self.apply(&key, &Change::Increment(Amount::Int(3))),
                7 => self.apply(&key, &Change::Expire(None)),
                _ => self.merge(&key, chance.u64(1..1 << 40), &value),
            }
        }
    }

    /// A peer's record, concurrent with what is there.
    fn merge(&self, key: &[u8], hlc: u64, value: &[u8]) {
        let plain = Plain {
            dot: Dot::new(Hlc(hlc), OTHER),
            n: 1,
            expire_at: None,
            value: Packed::raw(value),
        };
        let mut bytes = Vec::new();
        encode_plain(&mut bytes, key, &plain);
        let merged = self
            .keyspace
            .write(vnode_of(key), NOW, |keys| keys.merge(key, &Record::Plain(plain), &bytes));
        assert_eq!(merged, Merged::Done);
    }

    /// Compacts all that is sealed now; what it came to.
    fn compact(&mut self) -> Status {
        assert!(self.shared.ask());
        for _ in 0..100_000 {
            match self.compactor.step() {
                Stepped::Idle => break,
                Stepped::Walked { .. } => {}
                Stepped::Waiting => panic!("{:?}", self.shared.status().last_error),
            }
        }
        self.shared.status()
    }

    /// How many keys are cold.
    pub(super) fn cold(&self) -> usize {
        (0..LAYOUT.vnodes).map(|vnode| self.keyspace.counts(VnodeId(vnode)).cold).sum()
    }

    pub(super) fn sealed(&self) -> Vec<(usize, u32)> {
        let lanes = 0..self.log.lanes();
        let of =
            |lane| self.log.segments(lane).into_iter().map(move |segment| (lane, segment.number));
        lanes.flat_map(of).collect()
    }
}

pub(super) fn vnode_of(key: &[u8]) -> VnodeId {
    VnodeId((SEED.key(key) % u64::from(LAYOUT.vnodes)) as u16)
}

pub(super) fn folder() -> &'static Path {
    Path::new("/node/log")
}

fn path_of((lane, number): (usize, u32)) -> PathBuf {
    folder().join(lane_folder(lane as u16)).join(segment_name(number))
}

fn lived(disk: &SimDisk, seed: u64) -> Store {
    let store = Store::open(Arc::new(disk.clone()), folder()).unwrap();
    store.live_a_little(seed, 250);
    store.log.roll().unwrap();
    store
}

/// Values that are long enough to be cooled and cannot be packed.
pub(super) fn live_large(store: &Store, seed: u64, steps: usize) {
    let mut chance = fastrand::Rng::with_seed(seed);
    for _ in 0..steps {
        let value: Vec<u8> = (0..chance.usize(100..600)).map(|_| chance.u8(..)).collect();
        let key = format!("large:{}", chance.u8(..30)).into_bytes();
        let value = Cow::Owned(value);
        store.apply(&key, &Change::Put { value, expire: Expire::Clear });
    }
}

#[test]
fn cold_keys_are_moved_and_read_while_they_move() {
    let disk = SimDisk::default();
    let mut store = Store::open(Arc::new(disk.clone()), folder()).unwrap();
    store.keyspace.set_budget(1);
    live_large(&store, 9, 200);
    store.live_a_little(9, 100);
    store.log.roll().unwrap();
    let before = store.state();
    (0..1_000).for_each(|_| store.keyspace.make_room(NOW));
    assert!(store.cold() > 25, "{}", store.cold());
    store.shared.ask();
    while store.compactor.step() != Stepped::Idle {
        // Fetches what is cold, wherever it is by now.
        assert_eq!(store.state(), before);
    }
    assert!(store.shared.status().removed > 0 && store.cold() > 25);
    drop(store);
    disk.process_kill();
    assert_eq!(Store::open(Arc::new(disk), folder()).unwrap().state(), before);
}

#[test]
fn compaction_changes_nothing_but_the_disk() {
    for seed in 0..12 {
        let disk = SimDisk::default();
        let mut store = lived(&disk, seed);
        let (before, sealed) = (store.state(), store.sealed());
        let all: u64 = (0..2).map(|lane| store.log.lane_bytes(lane)).sum();
        let status = store.compact();
        assert!(!status.asked && !status.running && !status.last_failed, "{status:?}");
        assert_eq!(status.asked_bytes, status.asked_bytes_done);
        assert!(status.last_duration.is_some() && status.moved < status.walked);
        assert_eq!(store.state(), before);
        assert!(sealed.iter().all(|segment| !store.sealed().contains(segment)), "they are gone");
        assert!(sealed.iter().all(|segment| disk.bytes(&path_of(*segment)).is_none()));
        let left: u64 = (0..2).map(|lane| store.log.lane_bytes(lane)).sum();
        let live = store.keyspace.stored(|_| true);
        assert!(left < all && left < live + 16 * 1_500, "{left} of {all}, {live} live");
        // Again: it ends, and what it moved it finds again.
        store.log.roll().unwrap();
        assert!(!store.compact().last_failed);
        assert_eq!(store.state(), before);
        drop(store);
        disk.process_kill();
        let again = Store::open(Arc::new(disk), folder()).unwrap();
        assert_eq!(again.state(), before, "seed {seed}");
    }
}

/// The power fails at every write and every sync of a compaction, under writes.
#[test]
fn a_power_cut_during_compaction_loses_nothing() {
    let disk = SimDisk::default();
    let store = lived(&disk, 3);
    store.log.close().unwrap();
    drop(store);
    let (mut cuts, mut finished) = (0, 0);
    for number in 1.. {
        let mut over = 0;
        let at = |writes: u64, syncs: u64| {
            [
                Cut::BeforeWrite(writes),
                Cut::AfterWrite(writes),
                Cut::BeforeSync(syncs),
                Cut::AfterSync(syncs),
            ]
        };
        for kind in 0..4 {
            let disk = disk.fork();
            let mut store = Store::open(Arc::new(disk.clone()), folder()).unwrap();
            let mut acknowledged = store.state();
            let cut = at(disk.writes() + number, disk.syncs() + number)[kind];
            disk.cut_at(cut);
            let held = compact_under_writes(&mut store, &disk, &mut acknowledged);
            drop(store);
            if disk.is_off() {
                cuts += 1
            } else {
                over += 1
            }
            disk.power_cut(number * 4 + kind as u64);
            let again = Store::open(Arc::new(disk), folder()).unwrap();
            for (key, record) in again.state() {
                let was = acknowledged.remove(&key);
                // The last write may have survived without having been acknowledged.
                assert!(was.as_ref() == Some(&record) || held.as_ref() == Some(&key), "{cut:?}");
            }
            acknowledged.retain(|key, _| held.as_ref() != Some(key));
            assert_eq!(acknowledged, BTreeMap::new(), "lost after {cut:?}");
        }
        finished = if over == 4 { finished + 1 } else { 0 };
        if finished == 3 {
            break;
        }
    }
    assert!(cuts > 40, "{cuts}");
}

/// Compacts everything and writes meanwhile; the key whose write was not acknowledged, if any.
fn compact_under_writes(
    store: &mut Store,
    disk: &SimDisk,
    acknowledged: &mut BTreeMap<Vec<u8>, Vec<u8>>,
) -> Option<Vec<u8>> {
    store.shared.ask();
    for step in 0.. {
        if matches!(store.compactor.step(), Stepped::Idle) || disk.is_off() {
            return None;
        }
        if step % 8 == 0 {
            let key = format!("key:{}", step % 40).into_bytes();
            store.put(&format!("key:{}", step % 40), &format!("value {step}"));
            if store.log.sync().is_err() {
                return Some(key);
            }
            let state = store.state();
            acknowledged.insert(key.clone(), state[&key].clone());
        }
    }
    None
}

#[test]
fn damage_stops_one_lane_and_is_said() {
    let disk = SimDisk::default();
    let mut store = lived(&disk, 4);
    let before = store.state();
    let sealed = store.sealed();
    let (lane, number) = sealed[1];
    assert_eq!(lane, 0);
    // The last frame's payload: all before it is moved and must not be lost either.
    let len = disk.bytes(&path_of(sealed[1])).unwrap().len() as u64;
    disk.flip(&path_of(sealed[1]), len * 8 - 1);
    let status = store.compact();
    assert!(status.last_failed && !status.asked);
    assert_eq!(status.stuck.len(), 1);
    assert_eq!((status.stuck[0].lane, status.stuck[0].number), (lane, number));
    assert_eq!(status.last_error, Some(status.stuck[0].to_string()));
    let left = store.sealed();
    assert!(left.contains(&sealed[1]), "it stays");
    assert!(!left.contains(&sealed[0]), "what is older could go");
    let others = sealed.iter().filter(|segment| segment.0 == 1);
    assert!(others.into_iter().all(|segment| !left.contains(segment)), "the other lane goes on");
    assert_eq!(store.state(), before);
    assert!(store.compact().last_failed, "and is not tried again");
    assert_eq!(store.shared.status().stuck.len(), 1);
}

#[test]
fn a_full_disk_is_waited_for() {
    let disk = SimDisk::default();
    let mut store = lived(&disk, 5);
    let before = store.state();
    store.shared.ask();
    disk.fail_writes(true);
    let mut waited = 0;
    for step in 0..100_000 {
        match store.compactor.step() {
            Stepped::Idle => break,
            Stepped::Waiting => {
                waited += 1;
                if waited == 3 {
                    disk.fail_writes(false);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            Stepped::Walked { .. } => assert!(step < 99_999),
        }
    }
    assert!(waited >= 3);
    let status = store.shared.status();
    assert!(!status.asked && status.last_error.is_some());
    assert_eq!(store.state(), before);
}

#[test]
fn after_a_failed_sync_everything_is_moved_again() {
    let disk = SimDisk::default();
    let plain = |disk: &SimDisk| {
        let store = Store::open(Arc::new(disk.clone()), folder()).unwrap();
        (0..250)
            .for_each(|step| store.put(&format!("key:{}", step * step % 97), &"v".repeat(step)));
        store.log.roll().unwrap();
        store
    };
    let moved = plain(&SimDisk::default()).compact().moved;
    let mut store = plain(&disk);
    store.log.sync().unwrap();
    let before = store.state();
    store.shared.ask();
    let mut failed = false;
    for _ in 0..100_000 {
        // Something was moved and is not durable.
        if !failed && store.shared.status().moved > 0 {
            failed = true;
            disk.fail_syncs(1);
        }
        match store.compactor.step() {
            Stepped::Idle => break,
            Stepped::Waiting => std::thread::sleep(Duration::from_millis(5)),
            Stepped::Walked { .. } => {}
        }
    }
    let status = store.shared.status();
    assert!(failed && !status.asked, "{status:?}");
    assert!(status.moved > moved, "{} again, {moved} without", status.moved);
    assert_eq!(store.state(), before);
    store.log.sync().unwrap();
    drop(store);
    disk.power_cut(6);
    assert_eq!(reopened_after_loss(disk).state(), before);
}

/// Opens where a failed sync has left a hole that was given up.
fn reopened_after_loss(disk: SimDisk) -> Store {
    let log = Log::open(
        Arc::new(disk),
        folder().to_owned(),
        LAYOUT,
        Options { segment_size: 1_500, fsync: Fsync::No },
    )
    .unwrap();
    let keyspace = Arc::new(Keyspace::with_log(LAYOUT.vnodes, SEED, log.clone()));
    keyspace.set_sole(SOLE, true);
    let past = Past { clean: false, machine_restarted: true };
    recover(&log, &keyspace, past, &Progress::default()).unwrap();
    let shared = Compaction::new();
    let compactor = Compactor::new(log.clone(), keyspace.clone(), shared.clone(), 1_500);
    Store { log, keyspace, shared, compactor }
}

#[test]
fn nothing_is_removed_while_somebody_holds() {
    let disk = SimDisk::default();
    let mut store = lived(&disk, 7);
    let sealed = store.sealed();
    let shared = store.shared.clone();
    let hold = shared.hold_removals();
    shared.ask();
    while store.compactor.step() != Stepped::Waiting {}
    assert!(sealed.iter().all(|segment| store.sealed().contains(segment)));
    drop(hold);
    while store.compactor.step() != Stepped::Idle {}
    assert!(sealed.iter().all(|segment| !store.sealed().contains(segment)));
}

#[test]
fn the_thread_does_what_is_asked_and_stops() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let store = Store::open(Arc::new(RealDisk), &path).unwrap();
    store.live_a_little(8, 2_000);
    store.log.roll().unwrap();
    let before = store.state();
    let Store { shared, compactor, log, keyspace } = store;
    let thread = std::thread::spawn(move || compact_always(compactor));
    assert!(shared.ask());
    let began = Instant::now();
    while shared.status().asked {
        assert!(began.elapsed() < Duration::from_secs(5));
        std::thread::sleep(Duration::from_millis(2));
    }
    shared.stop();
    thread.join().unwrap();
    let compactor = Compactor::new(log.clone(), keyspace.clone(), shared.clone(), 1_500);
    assert_eq!(Store { log, keyspace, shared, compactor }.state(), before);
}
