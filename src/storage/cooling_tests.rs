//! Memory within its budget: what goes, what stays, and that everything still answers.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::BytesMut;

use crate::base::hash::HashSeed;
use crate::base::id::{Actor, Boot, NodeId, VnodeId};
use crate::base::time::{Hlc, UnixMs};
use crate::value::change::{Amount, Change, Expire};
use crate::value::plain::Plain;
use crate::value::record::{self, Record};
use crate::value::view::Views;

use super::block::{blocks, table_size};
use super::disk::RealDisk;
use super::frame::Kind;
use super::keyspace::Keyspace;
use super::log::{Fsync, Layout, Log, Options};
use super::lost::Walk;
use super::place::Place;
use super::segment::{HEAD_SIZE, lane_folder, segment_name};
use super::sim_disk::SimDisk;
use super::syncer::Lost;
use super::warming::{Patience, Tier, Warmed};

const SEED: HashSeed = HashSeed(7);
const NOW: UnixMs = UnixMs(1_000);
const VNODES: u16 = 16;
const ACTOR: Actor = Actor::new(NodeId(1), Boot(1));

fn open(folder: &Path) -> Arc<Log> {
    let layout = Layout { vnodes: VNODES, lanes: 2, cluster: 7 };
    let options = Options { segment_size: 1 << 20, fsync: Fsync::No };
    Log::open(Arc::new(RealDisk), folder.to_owned(), layout, options).unwrap()
}

fn begun(folder: &Path) -> Keyspace {
    let log = open(folder);
    log.begin(Hlc::ZERO).unwrap();
    Keyspace::with_log(VNODES, SEED, log)
}

fn name(number: usize) -> Vec<u8> {
    format!("key:{number}").into_bytes()
}

fn vnode_of(number: usize) -> VnodeId {
    VnodeId(number as u16 % VNODES)
}

/// Bytes that do not pack, other ones for each number.
fn value(number: usize, size: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(number as u64);
    (0..size).map(|_| random.u8(..)).collect()
}

fn apply(keyspace: &Keyspace, vnode: VnodeId, key: &[u8], change: &Change<'_>) {
    keyspace.write(vnode, NOW, |keys| {
        keys.apply(key, change, ACTOR, &mut BytesMut::new()).unwrap();
    });
}

fn put(keyspace: &Keyspace, vnode: VnodeId, key: &[u8], value: &[u8]) {
    let change = Change::Put { value: Cow::Borrowed(value), expire: Expire::Clear };
    apply(keyspace, vnode, key, &change);
}

fn write_out(keyspace: &Keyspace) {
    let log = keyspace.log().unwrap();
    let mut commit = super::log::Commit::default();
    (0..VNODES).for_each(|vnode| log.note(VnodeId(vnode), &mut commit));
    log.hold_blocking(&commit).unwrap();
}

/// As a session reads: without the value, the key is warmed and asked again. Says how often it
/// was cold.
fn get(keyspace: &Keyspace, vnode: VnodeId, key: &[u8]) -> (Option<Vec<u8>>, usize) {
    for cold in 0.. {
        let (found, missing) = keyspace.read(vnode, NOW, |keys| {
            let found = keys.view(key).map(|view| view.string().unwrap().into_owned());
            (found, keys.missing())
        });
        if missing.is_empty() {
            if cold > 0 {
                keyspace.make_room(NOW);
            }
            return (found, cold);
        }
        assert_eq!(missing[..], [key.to_vec()]);
        let warmed = keyspace.warm(vnode, key, NOW, Patience::Wait);
        assert!(matches!(warmed, Warmed::Done), "{warmed:?}");
    }
    unreachable!()
}

fn tier(keyspace: &Keyspace, number: usize) -> Tier {
    keyspace.read(vnode_of(number), NOW, |keys| keys.tier(&name(number)))
}

fn recount(keyspace: &Keyspace) -> usize {
    let vnodes = keyspace.map.shards().iter().map(|table| {
        let table = table.read();
        blocks(&table).map(|block| block.footprint().taken).sum::<usize>() + table_size(&table)
    });
    vnodes.sum()
}

/// Sweeps until there is nothing left to do.
fn settle(keyspace: &Keyspace) {
    (0..64).for_each(|_| keyspace.make_room(NOW));
}

fn fill(keyspace: &Keyspace, numbers: Range<usize>, size: usize) {
    for number in numbers {
        put(keyspace, vnode_of(number), &name(number), &value(number, size));
        if number % 16 == 0 {
            write_out(keyspace);
            keyspace.make_room(NOW);
        }
    }
    write_out(keyspace);
    keyspace.make_room(NOW);
}

#[test]
fn memory_stays_within_its_budget_and_every_key_answers() {
    let folder = tempfile::tempdir().unwrap();
    let keyspace = begun(folder.path());
    let budget = 512 << 10;
    keyspace.set_budget(budget);
    for number in 0..4_000 {
        put(&keyspace, vnode_of(number), &name(number), &value(number, 200 + number % 800));
        if number % 32 == 0 {
            write_out(&keyspace);
            keyspace.make_room(NOW);
            let room = budget as usize + 32 * 1_280;
            assert!(keyspace.used() <= room, "{} after {number}", keyspace.used());
        }
    }
    write_out(&keyspace);
    for number in 0..4_000 {
        let (found, _) = get(&keyspace, vnode_of(number), &name(number));
        assert!(found == Some(value(number, 200 + number % 800)), "key {number}");
    }
    assert!(keyspace.used() <= budget as usize && !keyspace.is_full());
    assert_eq!(keyspace.used(), recount(&keyspace));
}

#[test]
fn one_vnode_that_holds_everything_keeps_up_too() {
    let folder = tempfile::tempdir().unwrap();
    let keyspace = begun(folder.path());
    keyspace.set_budget(256 << 10);
    for number in 0..2_000 {
        put(&keyspace, VnodeId(3), &name(number), &value(number, 400));
        if number % 32 == 0 {
            write_out(&keyspace);
            keyspace.make_room(NOW);
            assert!(keyspace.used() <= (256 << 10) + 32 * 512, "{number}");
        }
    }
}

#[test]
fn without_anything_to_cool_memory_is_full_until_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let keyspace = begun(folder.path());
    keyspace.set_budget(100 << 10);
    fill(&keyspace, 0..3_000, 100);
    assert!(keyspace.used() > 100 << 10, "stubs alone take more");
    assert!(keyspace.is_full());
    // Reads go on, and leave nothing behind.
    settle(&keyspace);
    let before = keyspace.used();
    assert_eq!(get(&keyspace, vnode_of(5), &name(5)).0, Some(value(5, 100)));
    settle(&keyspace);
    assert!(keyspace.is_full() && keyspace.used() == before);
    keyspace.set_budget(1 << 20);
    assert!(!keyspace.is_full());
    keyspace.set_budget(100 << 10);
    assert!(keyspace.is_full());
    for vnode in (0..VNODES).map(VnodeId) {
        keyspace.set_sole(vnode, true);
        keyspace.write(vnode, NOW, |keys| keys.clear_sole());
    }
    assert!(!keyspace.is_full());
    assert_eq!((keyspace.used(), recount(&keyspace)), (0, 0));
}

#[test]
fn a_budget_without_a_log_is_full_at_once() {
    let keyspace = Keyspace::new(VNODES, SEED);
    keyspace.set_budget(1);
    put(&keyspace, VnodeId(0), b"k", b"v");
    keyspace.make_room(NOW);
    assert!(keyspace.is_full());
    assert_eq!(get(&keyspace, VnodeId(0), b"k").0.as_deref(), Some(&b"v"[..]));
}

/// Sixty-four keys are read all the time while many others pass by, written or read once.
#[test]
fn what_is_wanted_often_stays() {
    let folder = tempfile::tempdir().unwrap();
    let keyspace = begun(folder.path());
    keyspace.set_budget(160 << 10);
    fill(&keyspace, 0..1_000, 400);
    let (mut reads, mut cold) = (0, 0);
    for round in 0..3_000 {
        let often = round % 64;
        reads += 1;
        cold += get(&keyspace, vnode_of(often), &name(often)).1;
        let once = 64 + (round * 7) % 936;
        get(&keyspace, vnode_of(once), &name(once));
        if round % 4 == 0 {
            fill(&keyspace, once..once + 1, 400);
        }
    }
    assert!(cold * 20 < reads, "{cold} of {reads} reads had to warm");
}

#[test]
fn what_overwrites_or_removes_a_cold_string_reads_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let keyspace = begun(folder.path());
    let others = Actor::new(NodeId(2), Boot(1));
    keyspace.set_budget(1);
    fill(&keyspace, 0..64, 400);
    settle(&keyspace);
    let put =
        |value: &'static [u8]| Change::Put { value: Cow::Borrowed(value), expire: Expire::Clear };
    let changes =
        [put(b"new"), Change::Delete, Change::Increment(Amount::Int(1)), Change::Expire(None)];
    for number in 0..64 {
        assert_eq!(tier(&keyspace, number), Tier::Cold);
        let (change, actor) = (&changes[number / 2 % 4], [ACTOR, others][number % 2]);
        keyspace.write(vnode_of(number), NOW, |keys| {
            let (key, mut out) = (name(number), BytesMut::new());
            let blind = number / 2 % 4 < 2;
            assert_eq!(keys.lacks(&key, change), !blind);
            if blind {
                keys.apply(&key, change, actor, &mut out).unwrap();
                assert!(!keys.lacks(&key, change) && !out.is_empty());
            }
            assert!(keys.missing().is_empty());
        });
    }
    assert_eq!(get(&keyspace, vnode_of(1), &name(1)).0.as_deref(), Some(&b"new"[..]));
    assert_eq!(get(&keyspace, vnode_of(2), &name(2)).0, None);
}

#[test]
fn what_was_moved_and_is_not_written_yet_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let keyspace = begun(folder.path());
    keyspace.set_budget(1);
    fill(&keyspace, 0..1, 400);
    settle(&keyspace);
    let (vnode, key) = (vnode_of(0), name(0));
    let cold = keyspace.read(vnode, NOW, |keys| keys.records(|_| true, |_, _| {}));
    let payload = keyspace.fetch(vnode, &cold[0]).unwrap();
    keyspace.write(vnode, NOW, |keys| keys.move_forward(cold[0].place, &payload));
    assert!(matches!(keyspace.warm(vnode, &key, NOW, Patience::Now), Warmed::WouldWait));
    assert_eq!(tier(&keyspace, 0), Tier::Cold);
    assert!(matches!(keyspace.warm(vnode, &key, NOW, Patience::Wait), Warmed::Done));
    assert_eq!(tier(&keyspace, 0), Tier::Hot { visited: false });
    assert_eq!(get(&keyspace, vnode, &key), (Some(value(0, 400)), 0));
}

fn segment(folder: &Path, lane: u16, number: u32) -> std::fs::File {
    let path = folder.join(lane_folder(lane)).join(segment_name(number));
    std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap()
}

#[test]
fn a_damaged_value_is_an_error_and_never_another_value() {
    use std::os::unix::fs::FileExt;
    let folder = tempfile::tempdir().unwrap();
    let keyspace = begun(folder.path());
    keyspace.set_budget(1);
    fill(&keyspace, 0..2, 400);
    settle(&keyspace);
    let (vnode, key) = (vnode_of(0), name(0));
    let cold = keyspace.read(vnode, NOW, |keys| keys.records(|_| true, |_, _| {}));
    let place = cold[0].place;
    let file = segment(folder.path(), 0, place.segment);
    file.write_all_at(b"?", u64::from(place.offset) + 100).unwrap();
    for patience in [Patience::Now, Patience::Wait] {
        let Warmed::Lost(error) = keyspace.warm(vnode, &key, NOW, patience) else { panic!() };
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    }
    assert!(keyspace.fetch(vnode, &cold[0]).is_err());
    assert_eq!(tier(&keyspace, 0), Tier::Cold);
    // What needs no value mends it.
    put(&keyspace, vnode, &key, b"new");
    assert_eq!(get(&keyspace, vnode, &key).0.as_deref(), Some(&b"new"[..]));
    assert_eq!(get(&keyspace, vnode_of(1), &name(1)).0, Some(value(1, 400)));
}

/// Every frame of an earlier start.
fn each_frame(log: &Log, mut visit: impl FnMut(VnodeId, Kind, Place, &[u8])) {
    for lane in 0..log.lanes() {
        for view in log.segments(lane) {
            let mut walk = Walk::new(log, lane, view.number, HEAD_SIZE);
            while let Some((header, place, payload)) = walk.step(u32::MAX) {
                visit(header.vnode, header.kind, place, payload);
            }
        }
    }
}

/// Some plain, some counted, some with an end: what a log of some length holds.
fn work(keyspace: &Keyspace) {
    for round in 0..3 {
        for number in 0..300 {
            let (vnode, key) = (vnode_of(number), name(number));
            let change = match (number + round) % 5 {
                0 => Change::Increment(Amount::Int(number as i128)),
                1 => Change::Expire(Some(UnixMs(5_000 + number as u64))),
                2 if number % 7 == 0 => Change::Delete,
                _ => Change::Put {
                    value: Cow::Owned(number.to_string().repeat(30 * (number % 3)).into_bytes()),
                    expire: Expire::Clear,
                },
            };
            if keyspace.write(vnode, NOW, |keys| keys.lacks(&key, &change)) {
                let warmed = keyspace.warm(vnode, &key, NOW, Patience::Wait);
                assert!(matches!(warmed, Warmed::Done));
            }
            apply(keyspace, vnode, &key, &change);
        }
        write_out(keyspace);
        keyspace.make_room(NOW);
    }
}

fn all_records(keyspace: &Keyspace) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    for vnode in (0..VNODES).map(VnodeId) {
        let cold = keyspace.read(vnode, NOW, |keys| {
            keys.records(|_| true, |key, record| all.push((key.to_vec(), record.to_vec())))
        });
        for cold in cold {
            let record = keyspace.fetch(vnode, &cold).unwrap();
            all.push((cold.key, record));
        }
    }
    all.sort();
    all
}

/// With little memory, what is replayed is cooled on the way; Joins find their cold States.
#[test]
fn a_log_is_replayed_within_the_budget() {
    let folder = tempfile::tempdir().unwrap();
    let wanted = {
        let keyspace = begun(folder.path());
        work(&keyspace);
        keyspace.log().unwrap().close().unwrap();
        all_records(&keyspace)
    };
    for stubs in [false, true] {
        let log = open(folder.path());
        let keyspace = Keyspace::with_log(VNODES, SEED, log.clone());
        keyspace.set_budget(1);
        each_frame(&log, |vnode, kind, place, payload| {
            keyspace.write(vnode, NOW, |keys| match record::decode(payload) {
                Ok((key, Record::Plain(plain))) if stubs && kind == Kind::State => {
                    let len = plain.value.bytes.len();
                    let value = crate::value::packed::Packed { bytes: &[], ..plain.value };
                    keys.replay_stub(place, key, &Plain { value, ..plain }, len);
                }
                _ => keys.replay(kind, place, payload).unwrap(),
            });
            keyspace.make_room(NOW);
        });
        let cold: usize = (0..VNODES).map(|vnode| keyspace.counts(VnodeId(vnode)).cold).sum();
        assert!(cold > 100, "{cold} cold");
        assert_eq!(keyspace.used(), recount(&keyspace));
        // What is not whole could not be cooled before the log was begun.
        log.begin(Hlc::ZERO).unwrap();
        keyspace.replayed();
        settle(&keyspace);
        assert!(all_records(&keyspace) == wanted);
    }
}

/// The frames of a lane's first segment, written to or not any more.
fn first_frames(log: &Log, lane: usize) -> Vec<(VnodeId, Kind, Place, Vec<u8>)> {
    let mut walk = Walk::new(log, lane, 1, HEAD_SIZE);
    let mut frames = Vec::new();
    while let Some((header, place, payload)) = walk.step(u32::MAX) {
        frames.push((header.vnode, header.kind, place, payload.to_vec()));
    }
    frames
}

/// Where the lost part cannot be read, memory alone says it again.
#[test]
fn what_cannot_be_read_back_is_said_again_from_memory() {
    for budget in [0, u64::MAX] {
        let folder = tempfile::tempdir().unwrap();
        let keyspace = begun(folder.path());
        keyspace.set_budget(budget);
        work(&keyspace);
        let wanted = all_records(&keyspace);
        let again = Keyspace::new(VNODES, SEED);
        for lane in 0..2 {
            let log = keyspace.log().unwrap();
            let before = first_frames(log, lane).len();
            // No frame begins there.
            let from = Place { segment: 1, offset: HEAD_SIZE as u32 + 1 };
            let upto = Place { segment: 1, offset: u32::MAX };
            assert!(keyspace.reappend(Lost { lane, from, upto }));
            write_out(&keyspace);
            let mut frames = first_frames(log, lane);
            frames.drain(1..before);
            for (vnode, kind, place, payload) in frames {
                again.write(vnode, NOW, |keys| keys.replay(kind, place, &payload).unwrap());
            }
        }
        assert!(all_records(&again) == wanted);
    }
}

/// A sync fails, and what it was to make durable is forgotten; then the power fails.
#[test]
fn what_a_failed_sync_lost_survives_the_machine_all_the_same() {
    for budget in [0, u64::MAX] {
        let disk = SimDisk::default();
        let layout = Layout { vnodes: VNODES, lanes: 2, cluster: 7 };
        let options = Options { segment_size: 1 << 14, fsync: Fsync::Everysec };
        let beat = std::time::Duration::from_millis(5);
        let open = |disk: &SimDisk| {
            Log::open_with_beat(Arc::new(disk.clone()), "/log".into(), layout, options, beat)
        };
        let log = open(&disk).unwrap();
        log.begin(Hlc::ZERO).unwrap();
        let keyspace = Arc::new(Keyspace::with_log(VNODES, SEED, log.clone()));
        keyspace.set_budget(budget);
        let weak = Arc::downgrade(&keyspace);
        log.on_lost_sync(move |lost| {
            assert!(weak.upgrade().is_none_or(|keyspace| keyspace.reappend(lost)));
        });
        work(&keyspace);
        log.sync().unwrap();
        // Nothing but the lost frames says these.
        for (number, failures) in (0..60).zip([0, 1, 0, 2].into_iter().cycle()) {
            disk.fail_syncs(failures);
            let (vnode, key) = (vnode_of(number), name(number));
            match number % 3 {
                0 => put(&keyspace, vnode, &key, &value(number, 90)),
                1 => apply(&keyspace, vnode, &key, &Change::Delete),
                _ => apply(&keyspace, vnode, &key, &Change::Increment(Amount::Int(1))),
            }
            write_out(&keyspace);
            while log.sync().is_err() {}
        }
        assert!(log.health().failed_syncs > 20);
        let wanted = all_records(&keyspace);
        let fate = disk.fork();
        fate.power_cut_prefix(0);
        let again = Keyspace::new(VNODES, SEED);
        each_frame(&open(&fate).unwrap(), |vnode, kind, place, payload| {
            again.write(vnode, NOW, |keys| keys.replay(kind, place, payload).unwrap());
        });
        assert!(all_records(&again) == wanted);
    }
}

/// Counters that four threads raise while the hand takes away whatever it can.
#[test]
fn nothing_is_lost_between_threads() {
    let folder = tempfile::tempdir().unwrap();
    let keyspace = begun(folder.path());
    keyspace.set_budget(1);
    let one = Change::Increment(Amount::Int(1));
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (keyspace, one) = (&keyspace, &one);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(thread);
                for _ in 0..1_500 {
                    let number = random.usize(..48);
                    let (vnode, key) = (vnode_of(number), name(number));
                    if number >= 32 {
                        put(keyspace, vnode, &key, &value(number, 300));
                    } else {
                        while !keyspace.write(vnode, NOW, |keys| {
                            let lacks = keys.lacks(&key, one);
                            if !lacks {
                                keys.apply(&key, one, ACTOR, &mut BytesMut::new()).unwrap();
                            }
                            !lacks
                        }) {
                            let warmed = keyspace.warm(vnode, &key, NOW, Patience::Wait);
                            assert!(matches!(warmed, Warmed::Done), "{warmed:?}");
                        }
                    }
                    if random.u8(..8) == 0 {
                        write_out(keyspace);
                        keyspace.make_room(NOW);
                    }
                    let read = 32 + random.usize(..16);
                    let found = get(keyspace, vnode_of(read), &name(read)).0;
                    assert!(found.is_none_or(|found| found == value(read, 300)));
                }
            });
        }
    });
    write_out(&keyspace);
    let mut raised: [usize; 32] = [0; 32];
    for thread in 0..4 {
        let mut random = fastrand::Rng::with_seed(thread);
        for _ in 0..1_500 {
            if let Some(count) = raised.get_mut(random.usize(..48)) {
                *count += 1;
            }
            random.u8(..8);
            random.usize(..16);
        }
    }
    for (number, count) in raised.into_iter().enumerate() {
        let found = get(&keyspace, vnode_of(number), &name(number)).0;
        assert_eq!(found, Some(count.to_string().into_bytes()), "key {number}");
    }
    assert_eq!(keyspace.used(), recount(&keyspace));
}

/// Tables double all at about the same time, so the room for it is made key by key.
#[test]
fn room_for_the_next_growth_of_tables_is_made_ahead() {
    let folder = tempfile::tempdir().unwrap();
    let keyspace = begun(folder.path());
    let mut greatest: f64 = 0.0;
    for number in 0..20_000 {
        put(&keyspace, vnode_of(number), &name(number), b"v");
        if number % 64 > 0 || number < 2_000 {
            continue;
        }
        // Together with what is kept free, tables take what so many keys take after a doubling.
        keyspace.set_budget(1 << 30);
        keyspace.note_growth(NOW);
        let free = (1 << 30) - keyspace.room_limit() - (1 << 30) / 8;
        let ahead = (keyspace.table_memory() + free) as f64 / number as f64;
        greatest = greatest.max(ahead);
        assert!(ahead < 30.0 && ahead > 12.0, "{ahead} bytes a key at {number} keys");
    }
    assert!(greatest > 15.0, "{greatest}");
}
