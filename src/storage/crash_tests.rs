//! The power fails at every write and at every sync, before it and after it; a small segment is cut
//! at every byte, and each of its bits is flipped.
//!
//! A lane is one order of changes, so all that may be left of it is a prefix of them: nothing that
//! was held is missing, and nothing in the middle. What memory holds afterwards is worked out a
//! second time, from the frames that are left, by a model that knows only what frames mean.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;

use crate::base::hash::Digest;
use crate::base::id::VnodeId;
use crate::base::time::{Hlc, UnixMs};
use crate::value::entry::Entry;
use crate::value::record::{self, encode_whole};

use super::disk::Disk;
use super::frame::Kind;
use super::keyspace::Keyspace;
use super::life::Past;
use super::log::{Commit, Fsync, Layout, Log, Options};
use super::recovery::{Progress, Report, recover};
use super::recovery_tests::{CLEAN, CRASHED, KILLED, LAYOUT, State, change, keyspace, state_of};
use super::scan::{Home, Piece, Scan};
use super::segment::{lane_folder, segment_name, segment_number};
use super::sim_disk::{Cut, SimDisk};

/// So that segments are rolled.
const SEGMENT_SIZE: u32 = 500;

/// Often enough for syncs by the clock to come in between.
const BEAT: Duration = Duration::from_millis(2);

/// Changes of the workload, and after how many of them all is synced.
const CHANGES: u32 = 48;
const SYNC_EVERY: u32 = 16;

fn folder() -> PathBuf {
    PathBuf::from("/data/log")
}

fn open(disk: &SimDisk, fsync: Fsync) -> io::Result<Arc<Log>> {
    let options = Options { segment_size: SEGMENT_SIZE, fsync };
    Log::open_with_beat(Arc::new(disk.clone()), folder(), LAYOUT, options, BEAT)
}

/// All that the vnodes of a lane hold, in short.
type Moment = Vec<Digest>;

fn digest_of(keyspace: &Keyspace, vnode: VnodeId) -> Digest {
    keyspace.read(vnode, UnixMs(0), |keys| {
        let mut held = Vec::new();
        keys.records(|_| true, |key, _| held.push(key.to_vec()));
        held.iter().fold(Digest::NONE, |sum, key| sum.plus(keys.state_digest(key)))
    })
}

fn moment_of(keyspace: &Keyspace, lane: u16) -> Moment {
    let vnodes = (lane..LAYOUT.vnodes).step_by(LAYOUT.lanes.into());
    vnodes.map(|vnode| digest_of(keyspace, VnodeId(vnode))).collect()
}

/// What a workload came to before the power failed.
#[derive(Default)]
struct History {
    /// The moments of each lane, one after the other.
    lanes: Vec<Vec<Moment>>,
    /// The last moment of each lane that must survive the process, and the machine.
    written: Vec<usize>,
    durable: Vec<usize>,
}

impl History {
    fn begin(keyspace: &Keyspace) -> History {
        let lanes = (0..LAYOUT.lanes).map(|lane| vec![moment_of(keyspace, lane)]).collect();
        let none = vec![0; LAYOUT.lanes.into()];
        History { lanes, written: none.clone(), durable: none }
    }

    /// Takes note of a change in `vnode`.
    fn note(&mut self, keyspace: &Keyspace, vnode: VnodeId) {
        let moments = &mut self.lanes[usize::from(vnode.0 % LAYOUT.lanes)];
        let mut now = moments[moments.len() - 1].clone();
        now[usize::from(vnode.0 / LAYOUT.lanes)] = digest_of(keyspace, vnode);
        moments.push(now);
    }

    fn newest(&self) -> Vec<usize> {
        self.lanes.iter().map(|moments| moments.len() - 1).collect()
    }
}

/// Starts on what `disk` holds, and changes this and that until it is done or the power fails.
fn live(disk: &SimDisk, fsync: Fsync, first: u32, history: &mut History) -> io::Result<()> {
    let log = open(disk, fsync)?;
    let keyspace = keyspace(Some(&log));
    let report = recover(&log, &keyspace, CLEAN, &Progress::default())?;
    keyspace.replayed();
    *history = History::begin(&keyspace);
    log.begin(report.hlc_max.max(Hlc(1 << 24)))?;
    let mut commit = Commit::default();
    for number in first..first + CHANGES {
        let vnode = VnodeId(number as u16 % LAYOUT.vnodes);
        change(&keyspace, number);
        history.note(&keyspace, vnode);
        log.note(vnode, &mut commit);
        // Batches of one, two and three.
        if number % 6 == 0 || number % 6 == 3 || number % 6 == 5 {
            let asked = history.newest();
            log.hold_blocking(&commit).map_err(io::Error::other)?;
            commit.clear();
            history.written.clone_from(&asked);
            if fsync == Fsync::Always {
                history.durable = asked;
            }
        }
        if number % SYNC_EVERY == SYNC_EVERY - 1 {
            let asked = history.newest();
            log.sync().map_err(io::Error::other)?;
            (history.written, history.durable) = (asked.clone(), asked);
        }
    }
    Ok(())
}

/// What the frames in the files say, by a model of its own.
fn surviving(disk: &SimDisk) -> State {
    let mut model: BTreeMap<VnodeId, BTreeMap<Vec<u8>, Entry>> = BTreeMap::new();
    for lane in 0..LAYOUT.lanes {
        let folder = folder().join(lane_folder(lane));
        let mut numbers: Vec<u32> =
            disk.list(&folder).unwrap().iter().filter_map(|name| segment_number(name)).collect();
        numbers.sort_unstable();
        for number in numbers {
            let bytes = disk.bytes(&folder.join(segment_name(number))).unwrap();
            let home = Home { layout: LAYOUT, lane };
            let mut scan = Scan::new(home, bytes.len() as u64, |offset, buffer: &mut [u8]| {
                let rest = &bytes[offset as usize..];
                let count = rest.len().min(buffer.len());
                buffer[..count].copy_from_slice(&rest[..count]);
                Ok(count)
            });
            loop {
                match scan.next(|_| true).unwrap() {
                    Piece::End => break,
                    Piece::Damaged { range, .. } => panic!("{range:?} is left in {number}"),
                    Piece::Frame { header, payload, .. } => {
                        apply(model.entry(header.vnode).or_default(), header.kind, payload);
                    }
                }
            }
        }
    }
    let held = |keys: BTreeMap<Vec<u8>, Entry>| -> BTreeMap<Vec<u8>, Vec<u8>> {
        let encode = |(key, entry): (Vec<u8>, Entry)| {
            let mut out = BytesMut::new();
            encode_whole(&mut out, &key, &entry);
            (key, out.to_vec())
        };
        keys.into_iter().map(encode).collect()
    };
    let all = model.into_iter().map(|(vnode, keys)| (vnode, held(keys)));
    all.filter(|(_, keys)| !keys.is_empty()).collect()
}

fn apply(keys: &mut BTreeMap<Vec<u8>, Entry>, kind: Kind, payload: &[u8]) {
    match kind {
        Kind::Mark => {}
        Kind::Gone if payload.is_empty() => keys.clear(),
        Kind::Gone => drop(keys.remove(payload)),
        Kind::State | Kind::Join => {
            let (key, record) = record::decode(payload).unwrap();
            let entry = keys.entry(key.to_vec()).or_default();
            if kind == Kind::State {
                *entry = Entry::new();
            }
            record.join_into(entry);
        }
    }
}

/// The same, whether written as an entry or in the plain form.
fn canonical(state: State) -> State {
    let plain = |(key, bytes): (Vec<u8>, Vec<u8>)| {
        let (_, record) = record::decode(&bytes).unwrap();
        let mut entry = Entry::new();
        record.join_into(&mut entry);
        let mut out = BytesMut::new();
        encode_whole(&mut out, &key, &entry);
        (key, out.to_vec())
    };
    state.into_iter().map(|(vnode, keys)| (vnode, keys.into_iter().map(plain).collect())).collect()
}

/// Recovers, and holds what is there against what must be.
fn check(disk: &SimDisk, history: &History, past: Past, what: &str) -> Report {
    let log = open(disk, Fsync::No).unwrap();
    let keyspace = keyspace(Some(&log));
    let report = recover(&log, &keyspace, past, &Progress::default()).unwrap();
    assert_eq!(report.damages, [], "{what}");
    let state = canonical(state_of(&keyspace));
    assert_eq!(state, surviving(disk), "{what}: not what the frames say");
    let held = if past == KILLED { &history.written } else { &history.durable };
    for (lane, moments) in (0..LAYOUT.lanes).zip(&history.lanes) {
        let found = moment_of(&keyspace, lane);
        let at = moments.iter().rposition(|moment| *moment == found);
        let least = held[usize::from(lane)];
        assert!(at.is_some(), "{what}: lane {lane} is at no moment of its history");
        assert!(at >= Some(least), "{what}: lane {lane} is at {at:?} and held {least}");
    }
    report
}

/// Cuts the power during the recovery too, at each of its writes and syncs.
fn check_recovery(disk: &SimDisk, history: &History, seed: u64, what: &str) -> u64 {
    let mut cuts = 0;
    for step in 1.. {
        let mut reached = false;
        let (writes, syncs) = (disk.writes() + step, disk.syncs() + step);
        for cut in [
            Cut::BeforeWrite(writes),
            Cut::AfterWrite(writes),
            Cut::BeforeSync(syncs),
            Cut::AfterSync(syncs),
        ] {
            let again = disk.fork();
            again.cut_at(cut);
            let begun = open(&again, Fsync::No).and_then(|log| {
                let keyspace = keyspace(Some(&log));
                let report = recover(&log, &keyspace, CRASHED, &Progress::default())?;
                log.begin(report.hlc_max)
            });
            reached |= again.is_off();
            cuts += u64::from(again.is_off());
            assert!(begun.is_ok() || again.is_off(), "{what}: {begun:?}");
            again.power_cut(seed + step);
            check(&again, history, CRASHED, &format!("{what}, again at {cut:?}"));
        }
        if !reached {
            break;
        }
    }
    cuts
}

/// What was tried.
#[derive(Debug, Default)]
struct Tried {
    writes: u64,
    syncs: u64,
    fates: u64,
    torn: u64,
    during_recovery: u64,
}

fn crash_everywhere(fsync: Fsync) -> Tried {
    // An earlier life, ended by a kill, is there already.
    let begun = SimDisk::default();
    live(&begun, fsync, 0, &mut History::default()).unwrap();
    begun.process_kill();
    let mut tried = Tried::default();
    for step in 1.. {
        let mut reached = false;
        let (writes, syncs) = (begun.writes() + step, begun.syncs() + step);
        for cut in [
            Cut::BeforeWrite(writes),
            Cut::AfterWrite(writes),
            Cut::BeforeSync(syncs),
            Cut::AfterSync(syncs),
        ] {
            let disk = begun.fork();
            disk.cut_at(cut);
            let mut history = History::default();
            let ended = live(&disk, fsync, CHANGES, &mut history);
            assert!(ended.is_ok() || disk.is_off(), "{cut:?}: {ended:?}");
            if !disk.is_off() {
                continue;
            }
            reached = true;
            match cut {
                Cut::BeforeWrite(_) | Cut::AfterWrite(_) => tried.writes += 1,
                Cut::BeforeSync(_) | Cut::AfterSync(_) => tried.syncs += 1,
            }
            try_fates(&disk, &history, step, &format!("{fsync:?}, {cut:?}"), &mut tried);
        }
        if !reached {
            break;
        }
    }
    tried
}

/// The power has failed: what may have become of the disk, and of the process alone.
fn try_fates(disk: &SimDisk, history: &History, step: u64, what: &str, tried: &mut Tried) {
    if history.lanes.is_empty() {
        // The power failed before anything was read.
        return;
    }
    let killed = disk.fork();
    killed.process_kill();
    let report = check(&killed, history, KILLED, &format!("{what}, killed"));
    assert!(report.cut.iter().all(|cut| cut.at == 0), "{what}: {report:?}");
    let forgetful = disk.fork();
    forgetful.power_cut_prefix(0);
    check(&forgetful, history, CRASHED, &format!("{what}, all forgotten"));
    for seed in [step, step + 1_000] {
        let torn = disk.fork();
        torn.power_cut(seed);
        let before = torn.fork();
        let report = check(&torn, history, CRASHED, &format!("{what}, torn by {seed}"));
        if !report.cut.is_empty() {
            tried.torn += 1;
            if tried.torn % 16 == 1 {
                tried.during_recovery += check_recovery(&before, history, seed, what);
            }
        }
    }
    tried.fates += 4;
}

#[test]
fn with_always_all_that_was_acknowledged_survives_every_power_cut() {
    let tried = crash_everywhere(Fsync::Always);
    println!("always: {tried:?}");
    assert!(tried.writes > 80 && tried.syncs > 80 && tried.torn > 20, "{tried:?}");
    assert!(tried.during_recovery > 20, "{tried:?}");
}

#[test]
fn with_everysec_all_up_to_the_last_sync_survives_every_power_cut() {
    let tried = crash_everywhere(Fsync::Everysec);
    println!("everysec: {tried:?}");
    assert!(tried.writes > 80 && tried.syncs > 20 && tried.torn > 20, "{tried:?}");
    assert!(tried.during_recovery > 20, "{tried:?}");
}

// ---- cut at every byte, every bit flipped ----------------------------------------------------------

/// One lane, so that all damage is in sight of all vnodes.
const SMALL: Layout = Layout { vnodes: 2, lanes: 1, cluster: 77 };

fn small(disk: &SimDisk) -> (Arc<Log>, Keyspace) {
    let options = Options { segment_size: 220, fsync: Fsync::Always };
    let log = Log::open_with_beat(Arc::new(disk.clone()), folder(), SMALL, options, BEAT).unwrap();
    let keyspace = Keyspace::with_log(SMALL.vnodes, super::recovery_tests::SEED, log.clone());
    keyspace.set_sole(VnodeId(1), true);
    (log, keyspace)
}

/// The records of a vnode's keys.
type Held = BTreeMap<Vec<u8>, Vec<u8>>;

/// All that each of two vnodes ever held, oldest first.
type Moments = [Vec<Held>; 2];

/// What each of two vnodes holds.
fn small_state(keyspace: &Keyspace) -> [Held; 2] {
    [0, 1].map(|vnode| {
        let mut keys = BTreeMap::new();
        keyspace.read(VnodeId(vnode), UnixMs(0), |vnode| {
            let visit =
                |key: &[u8], record: &[u8]| drop(keys.insert(key.to_vec(), record.to_vec()));
            assert!(vnode.records(|_| true, visit).is_empty());
        });
        keys
    })
}

/// A log of a few segments, and all states of its vnodes, oldest first.
fn small_log() -> (SimDisk, Moments) {
    let disk = SimDisk::default();
    let (log, keyspace) = small(&disk);
    log.begin(Hlc(1 << 24)).unwrap();
    let mut states = small_state(&keyspace).map(|state| vec![state]);
    for number in [24, 25, 3, 8, 9, 40, 41, 27, 28, 33, 34, 56, 57, 12, 13] {
        super::recovery_tests::change_in(&keyspace, VnodeId(number as u16 % 2), number);
        let mut commit = Commit::default();
        log.note(VnodeId(0), &mut commit);
        log.note(VnodeId(1), &mut commit);
        log.hold_blocking(&commit).unwrap();
        for (states, now) in states.iter_mut().zip(small_state(&keyspace)) {
            states.push(now);
        }
    }
    log.close().unwrap();
    drop(log);
    (disk, states)
}

/// Recovers a log that somebody has spoilt. What is not reported must be as it was; after a cut
/// tail, as it once was.
fn check_spoilt(disk: &SimDisk, states: &Moments, past: Past, what: &str) -> Report {
    let (log, keyspace) = small(disk);
    let report = recover(&log, &keyspace, past, &Progress::default()).unwrap();
    for (vnode, (found, states)) in small_state(&keyspace).iter().zip(states).enumerate() {
        if report.damaged.contains(&VnodeId(vnode as u16)) {
            assert!(!report.damages.is_empty(), "{what}");
            continue;
        }
        let at = states.iter().rposition(|state| state == found);
        assert!(at.is_some(), "{what}: vnode {vnode} was never like this: {report:?}");
        let is_newest = states.last() == Some(found);
        let is_told = !report.cut.is_empty() && past != CLEAN;
        assert!(is_newest || is_told, "{what}: vnode {vnode} is old, and nobody says so");
    }
    report
}

fn small_segments(disk: &SimDisk) -> Vec<PathBuf> {
    let mut paths = disk.paths();
    paths.retain(|path| path.extension().is_some_and(|end| end == "seg"));
    paths.sort();
    assert!(paths.len() > 3, "{paths:?}");
    paths
}

fn len(disk: &SimDisk, path: &Path) -> u64 {
    disk.bytes(path).unwrap().len() as u64
}

#[test]
fn every_flipped_bit_is_found_and_said() {
    let (disk, states) = small_log();
    let paths = small_segments(&disk);
    let mut tried = 0;
    let mut seen = BTreeSet::new();
    // The first, one in the middle, and the last.
    for path in [&paths[0], &paths[paths.len() - 2], &paths[paths.len() - 1]] {
        for bit in 0..len(&disk, path) * 8 {
            // The pasts take turns: each bit of each byte would be dear in all three.
            let past = [CLEAN, KILLED, CRASHED][(bit / 8 + bit % 8) as usize % 3];
            let what = format!("{}, bit {bit}, {past:?}", path.display());
            let spoilt = disk.fork();
            spoilt.flip(path, bit);
            let report = check_spoilt(&spoilt, &states, past, &what);
            // A lane's own notes may be lost without a vnode's loss.
            let is_said = !report.damaged.is_empty() || !report.cut.is_empty();
            seen.insert((is_said, report.cut.is_empty()));
            tried += 1;
        }
    }
    println!("flipped bits: {tried}");
    assert!(tried > 2_000, "{tried}");
    assert!(seen.contains(&(true, true)) && seen.contains(&(true, false)), "{seen:?}");
}

#[test]
fn every_cut_is_found_and_said() {
    let (disk, states) = small_log();
    let paths = small_segments(&disk);
    let mut tried = 0;
    for path in &paths {
        let bytes = disk.bytes(path).unwrap();
        for end in 0..bytes.len() {
            for past in [CLEAN, KILLED, CRASHED] {
                let what = format!("{}, cut at {end}, {past:?}", path.display());
                let spoilt = disk.fork();
                spoilt.set_bytes(path, &bytes[..end]);
                let is_last = path == &paths[paths.len() - 1];
                if is_last && past != CLEAN {
                    check_shortened(&spoilt, &states, past, &what);
                } else {
                    let report = check_spoilt(&spoilt, &states, past, &what);
                    assert!(!report.damaged.is_empty() || !report.cut.is_empty(), "{what}");
                }
                tried += 1;
            }
        }
    }
    println!("cuts: {tried}");
    assert!(tried > 2_000, "{tried}");
}

/// A last segment that is shorter after a crash is what a crash leaves: the state is an older one.
fn check_shortened(disk: &SimDisk, states: &Moments, past: Past, what: &str) {
    let (log, keyspace) = small(disk);
    let report = recover(&log, &keyspace, past, &Progress::default()).unwrap();
    assert!(report.damages.is_empty(), "{what}: {report:?}");
    for (found, states) in small_state(&keyspace).iter().zip(states) {
        assert!(states.contains(found), "{what}: never like this");
    }
}
