//! The log on the machine's own disk and on a simulated one.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::base::id::VnodeId;
use crate::base::time::Hlc;

use super::disk::{Disk, RealDisk};
use super::frame::{HEADER_SIZE, Header, Kind};
use super::log::{Commit, Fsync, Layout, Log, Options};
use super::place::Place;
use super::segment::{HEAD_SIZE, Head, lane_folder, read_mark, segment_name};
use super::sim_disk::{Cut, SimDisk};
use super::syncer::Lost;

const LAYOUT: Layout = Layout { vnodes: 8, lanes: 2, cluster: 77 };
const MARK_SIZE: usize = HEADER_SIZE + 9;
const BEAT: Duration = Duration::from_millis(20);

fn open(disk: Arc<dyn Disk>, folder: &Path, options: Options) -> Arc<Log> {
    Log::open_with_beat(disk, folder.to_owned(), LAYOUT, options, BEAT).unwrap()
}

fn options(fsync: Fsync) -> Options {
    Options { segment_size: 1_000, fsync }
}

fn append(log: &Log, vnode: u16, payload: &[u8]) -> Place {
    log.append(VnodeId(vnode), Kind::State, |out| out.extend_from_slice(payload))
}

fn commit(log: &Log, vnodes: impl IntoIterator<Item = u16>) -> Commit {
    let mut commit = Commit::default();
    vnodes.into_iter().for_each(|vnode| log.note(VnodeId(vnode), &mut commit));
    commit
}

fn payload(number: u32) -> Vec<u8> {
    format!("payload {number} ").repeat(1 + number as usize % 7).into_bytes()
}

/// All frames of a sealed segment but marks, and the marks.
fn frames(log: &Log, lane: usize, number: u32) -> (Vec<(u16, Vec<u8>)>, Vec<u64>) {
    let view = log.segments(lane).into_iter().find(|view| view.number == number).unwrap();
    let mut bytes = vec![0; view.len as usize];
    assert_eq!(log.read_range(lane, number, 0, &mut bytes).unwrap(), bytes.len());
    assert_eq!(Head::decode(&bytes).unwrap().number, number);
    let (mut at, mut frames, mut marks) = (HEAD_SIZE, Vec::new(), Vec::new());
    while at < bytes.len() {
        let header = Header::read(&bytes[at..]).unwrap();
        let payload = header.payload(&bytes[at..]).unwrap();
        match header.kind {
            Kind::Mark => marks.extend(read_mark(payload)),
            _ => frames.push((header.vnode.0, payload.to_vec())),
        }
        at += header.frame_size();
    }
    (frames, marks)
}

#[test]
fn what_was_appended_is_read_back_across_segments_and_starts() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("log");
    let log = open(Arc::new(RealDisk), &folder, options(Fsync::Everysec));
    log.begin(Hlc(5)).unwrap();
    let mut places = Vec::new();
    for number in 0..200 {
        let vnode = number as u16 % 8;
        let place = append(&log, vnode, &payload(number));
        assert!(!log.is_written(VnodeId(vnode), place));
        places.push((vnode, place));
        if number % 10 == 9 {
            let commit = commit(&log, 0..8);
            assert!(!log.holds(&commit));
            log.hold_blocking(&commit).unwrap();
            assert!(log.holds(&commit));
        }
    }
    let check = |log: &Log| {
        for (number, &(vnode, place)) in (0u32..).zip(&places) {
            let vnode = VnodeId(vnode);
            assert!(log.is_written(vnode, place));
            let size = payload(number).len() + HEADER_SIZE;
            for size in [0, size - 1, size, size + 1, 100_000] {
                assert_eq!(log.read(vnode, place, size).unwrap(), payload(number));
                let now = log.read_now(vnode, place, size).unwrap();
                assert!(now.is_none_or(|now| now == payload(number)));
            }
        }
    };
    check(&log);
    log.close().unwrap();
    check(&log);
    drop(log);
    let log = open(Arc::new(RealDisk), &folder, options(Fsync::Everysec));
    check(&log);
    for lane in 0..2 {
        let read: Vec<_> =
            log.segments(lane).iter().flat_map(|view| frames(&log, lane, view.number).0).collect();
        let expected: Vec<_> = (0..200u32)
            .filter(|number| (number % 8) as usize % 2 == lane)
            .map(|number| ((number % 8) as u16, payload(number)))
            .collect();
        assert_eq!(read, expected);
    }
}

fn sim(disk: &SimDisk, fsync: Fsync) -> Arc<Log> {
    open(Arc::new(disk.clone()), Path::new("/log"), options(fsync))
}

fn begun(disk: &SimDisk, fsync: Fsync) -> Arc<Log> {
    let log = sim(disk, fsync);
    log.begin(Hlc(5)).unwrap();
    log
}

fn path(lane: u16, number: u32) -> std::path::PathBuf {
    Path::new("/log").join(lane_folder(lane)).join(segment_name(number))
}

#[track_caller]
fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(10), "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Appends and holds.
fn put(log: &Log, vnode: u16, payload: &[u8]) -> Result<Place, String> {
    let place = append(log, vnode, payload);
    log.hold_blocking(&commit(log, [vnode])).map(|()| place).map_err(|error| error.0)
}

/// All payloads that the log in its present state gives, lane 0, up to the first bad frame.
fn survivors(disk: &SimDisk) -> Vec<Vec<u8>> {
    let log = sim(disk, Fsync::No);
    let mut found = Vec::new();
    for view in log.segments(0) {
        let mut bytes = vec![0; view.len as usize];
        log.read_range(0, view.number, 0, &mut bytes).unwrap();
        let mut at = HEAD_SIZE;
        while let Some(header) = bytes.get(at..).and_then(Header::read) {
            let Some(payload) = header.payload(&bytes[at..]) else { break };
            if header.kind != Kind::Mark {
                found.push(payload.to_vec());
            }
            at += header.frame_size();
        }
    }
    found
}

#[test]
fn segments_have_a_size_and_a_greater_frame_has_one_of_its_own() {
    let disk = SimDisk::default();
    let log = begun(&disk, Fsync::No);
    let sizes = [300, 300, 300, 400, 5_000, 10, 948, 949];
    let places = sizes.map(|size| put(&log, 0, &vec![1; size]).unwrap());
    let numbers = places.map(|place| place.segment);
    assert_eq!(numbers, [1, 1, 1, 2, 3, 4, 5, 6]);
    assert_eq!(places[1].offset as usize, HEAD_SIZE + 300 + HEADER_SIZE);
    assert!(numbers.windows(2).zip(places.windows(2)).all(|(number, place)| {
        // Marks come first: of the length of the segment before, and perhaps that it is durable.
        let marks = place[1].offset as usize - HEAD_SIZE;
        number[0] == number[1] || [MARK_SIZE, 2 * MARK_SIZE].contains(&marks)
    }));
    for (place, size) in places.iter().zip(sizes) {
        assert_eq!(log.read(VnodeId(0), *place, size).unwrap(), vec![1; size]);
    }
    eventually("sealed", || log.segments(0).len() == 5);
    let sealed: Vec<_> = log.segments(0).iter().map(|view| view.len as usize).collect();
    let marks = |number: u32| {
        let first = places.iter().find(|place| place.segment == number).unwrap();
        first.offset as usize - HEAD_SIZE
    };
    let unmarked: Vec<_> =
        sealed.iter().zip(1..).map(|(len, number)| len - marks(number)).collect();
    // On a slow machine a sync may end in the middle of a segment, and its mark follows.
    let is_right = |len: usize, right: usize| {
        len >= right && (len - right).is_multiple_of(MARK_SIZE) && len - right <= 6 * MARK_SIZE
    };
    let rights = [976, 452, 5_052, 62, 1_000];
    assert!(unmarked.iter().zip(rights).all(|(&len, right)| is_right(len, right)), "{unmarked:?}");
    assert_eq!(log.segments(1), []);
    let all: usize = sealed.iter().sum::<usize>() + HEAD_SIZE + marks(6) + HEADER_SIZE + 949;
    assert!(is_right(log.lane_bytes(0) as usize, all), "{} of {all}", log.lane_bytes(0));
    let frames: usize = sizes.iter().map(|size| size + HEADER_SIZE).sum();
    let appended = log.appended(0) as usize;
    assert!(is_right(appended, frames + (1..=6).map(marks).sum::<usize>()), "{appended}");
}

#[tokio::test]
async fn batches_that_come_together_are_written_together() {
    let disk = SimDisk::default();
    let log = begun(&disk, Fsync::Always);
    let (writes, syncs) = (disk.writes(), disk.syncs());
    let tasks: Vec<_> = (0..50)
        .map(|number| {
            let log = Arc::clone(&log);
            tokio::spawn(async move {
                append(&log, 0, b"x");
                let commit = commit(&log, [0]);
                assert!(!log.holds(&commit), "{number}");
                log.hold(&commit).await.unwrap();
                assert!(log.holds(&commit));
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert!(disk.writes() - writes <= 3, "{} writes", disk.writes() - writes);
    assert!(disk.syncs() - syncs <= 5, "{} syncs", disk.syncs() - syncs);
    assert_eq!(log.health().pending_bytes, 0);
}

#[test]
fn always_is_durable_when_it_returns_and_the_others_later() {
    for fsync in [Fsync::Always, Fsync::Everysec, Fsync::No] {
        let disk = SimDisk::default();
        let log = begun(&disk, fsync);
        let is_durable = || {
            let fate = disk.fork();
            fate.power_cut_prefix(0);
            survivors(&fate) == [b"one"]
        };
        let syncs = disk.syncs();
        put(&log, 0, b"one").unwrap();
        assert!(disk.bytes(&path(0, 1)).unwrap().ends_with(b"one"), "written");
        match fsync {
            Fsync::Always => assert!(is_durable()),
            Fsync::Everysec => eventually("synced", is_durable),
            Fsync::No => {
                std::thread::sleep(3 * BEAT);
                assert_eq!(disk.syncs(), syncs);
                assert!(!is_durable() && log.health().unsynced_bytes > 0);
                log.sync().unwrap();
                assert!(is_durable());
            }
        }
        assert_eq!(log.health().unsynced_bytes, 0);
    }
}

#[test]
fn the_policy_changes_while_it_runs() {
    let disk = SimDisk::default();
    let log = begun(&disk, Fsync::No);
    put(&log, 0, b"one").unwrap();
    let before = commit(&log, [0]);
    assert!(log.holds(&before));
    log.set_fsync(Fsync::Always);
    log.hold_blocking(&before).unwrap();
    assert!(log.holds(&before));
    log.set_fsync(Fsync::No);
    put(&log, 0, b"two").unwrap();
    log.set_fsync(Fsync::Everysec);
    assert_eq!(log.fsync(), Fsync::Everysec);
    eventually("synced", || log.health().unsynced_bytes == 0);
}

#[test]
fn what_nobody_waits_for_is_written_in_a_while() {
    let disk = SimDisk::default();
    let log = begun(&disk, Fsync::Everysec);
    let place = append(&log, 0, b"one");
    eventually("written", || log.is_written(VnodeId(0), place));
    eventually("durable", || log.health().unsynced_bytes == 0);
}

#[test]
fn after_a_sync_the_next_frame_is_preceded_by_a_mark() {
    let (disk, folder) = (Arc::new(SimDisk::default()), "/log".into());
    let hour = Duration::from_secs(3_600);
    let log = Log::open_with_beat(disk, folder, LAYOUT, options(Fsync::Always), hour).unwrap();
    log.begin(Hlc(5)).unwrap();
    let places = [b"one", b"two"].map(|payload| put(&log, 0, payload).unwrap());
    let three = append(&log, 0, b"three");
    append(&log, 0, b"four");
    log.roll().unwrap();
    let (read, marks) = frames(&log, 0, 1);
    assert_eq!(read.len(), 4);
    let end = |place: Place, size: u64| u64::from(place.offset) + 12 + size;
    assert_eq!(marks, [end(places[0], 3), end(places[1], 3)]);
    assert_eq!(u64::from(three.offset), end(places[1], 3) + 21);
}

#[test]
fn a_failed_write_is_written_again_and_refuses_meanwhile() {
    let disk = SimDisk::default();
    let log = begun(&disk, Fsync::Always);
    put(&log, 0, b"before").unwrap();
    disk.fail_writes(true);
    assert_eq!(put(&log, 0, b"stuck").unwrap_err(), "Input/output error");
    let place = append(&log, 0, b"stuck too");
    assert_eq!(log.refusal().unwrap(), "Input/output error");
    assert_eq!(log.health().write_error.unwrap(), "Input/output error");
    assert!(log.health().pending_bytes > 0 && log.health().failed_writes > 0);
    assert!(!log.is_written(VnodeId(0), place));
    let stuck = commit(&log, [0]);
    assert!(!log.holds(&stuck) && log.hold_blocking(&stuck).is_err());
    put(&log, 2, b"the same lane").unwrap_err();
    disk.fail_writes(false);
    eventually("written again", || log.refusal().is_none());
    log.hold_blocking(&stuck).unwrap();
    assert_eq!(log.read(VnodeId(0), place, 0).unwrap(), b"stuck too");
    log.close().unwrap();
    drop(log);
    assert_eq!(survivors(&disk), [&b"before"[..], b"stuck", b"stuck too", b"the same lane"]);
}

#[test]
fn a_full_disk_is_found_before_a_write_fails() {
    let disk = SimDisk::default();
    let log = begun(&disk, Fsync::Everysec);
    assert_eq!(log.room(0), 1_000 - HEAD_SIZE as u64);
    disk.set_space(Some(100));
    // The next segment is prepared when this one is half full, by a thread that may be late.
    while log.room(0) >= 1_000 / 2 {
        put(&log, 0, b"0123456789").expect("there is room for it");
    }
    eventually("refused", || log.refusal().is_some());
    assert_eq!(log.refusal().unwrap(), "No space left on device");
    assert_eq!(log.health().write_error.unwrap(), "No space left on device");
    assert_eq!(log.health().failed_writes, 0);
    assert!(log.room(0) > 100, "what is under way still fits");
    put(&log, 0, b"under way").unwrap();
    disk.set_space(None);
    eventually("room again", || log.refusal().is_none());
    for _ in 0..100 {
        put(&log, 0, b"0123456789").unwrap();
    }
}

#[test]
fn room_that_the_writer_finds_first_ends_the_refusal() {
    let disk = SimDisk::default();
    let log = begun(&disk, Fsync::No);
    disk.set_space(Some(100));
    put(&log, 0, &[1; 600]).unwrap();
    eventually("refused", || log.refusal().is_some());
    disk.set_space(None);
    put(&log, 0, &[1; 600]).unwrap();
    eventually("room again", || log.refusal().is_none());
}

#[test]
fn a_failed_sync_gives_the_segment_up_and_what_was_lost_is_appended_again() {
    for fsync in [Fsync::Always, Fsync::Everysec] {
        let disk = SimDisk::default();
        let log = begun(&disk, fsync);
        put(&log, 0, b"good").unwrap();
        log.sync().unwrap();
        let losses: Arc<Mutex<Vec<Lost>>> = Arc::default();
        let (noted, weak) = (Arc::clone(&losses), Arc::downgrade(&log));
        log.on_lost_sync(move |lost| {
            noted.lock().push(lost);
            append(&weak.upgrade().unwrap(), 0, b"lost");
        });
        disk.fail_syncs(2);
        match put(&log, 0, b"lost") {
            Err(why) => assert_eq!(why, "the disk failed to make the log durable"),
            Ok(_) => assert_eq!(fsync, Fsync::Everysec),
        }
        eventually("two losses", || losses.lock().len() == 2);
        eventually("good again", || log.refusal().is_none());
        log.sync().unwrap();
        assert_eq!(log.health().failed_syncs, 2);
        assert_eq!(log.health().sync_error, None);
        let losses = losses.lock();
        assert_eq!((losses[0].lane, losses[0].from.segment, losses[0].upto.segment), (0, 1, 2));
        assert_eq!(losses[1].from, losses[0].from);
        assert_eq!(losses[1].upto.segment, 3);
        let fate = disk.fork();
        fate.power_cut_prefix(0);
        let found = survivors(&fate);
        assert_eq!((&found[0][..], &found[found.len() - 1][..]), (&b"good"[..], &b"lost"[..]));
        put(&log, 0, b"later").unwrap();
    }
}

#[test]
fn one_moment_cuts_all_lanes() {
    let disk = SimDisk::default();
    let log = begun(&disk, Fsync::No);
    assert_eq!(log.roll().unwrap(), [1, 1], "nothing to seal");
    put(&log, 0, b"a").unwrap();
    append(&log, 1, b"b");
    assert_eq!(log.roll().unwrap(), [2, 2]);
    put(&log, 1, b"c").unwrap();
    assert_eq!(log.roll().unwrap(), [2, 3]);
    assert_eq!(frames(&log, 1, 1).0, [(1, b"b".to_vec())]);
    assert_eq!(log.segments(1).iter().map(|view| view.number).collect::<Vec<_>>(), [1, 2]);
    let head = Head::decode(&disk.bytes(&path(1, 3)).unwrap()).unwrap();
    assert_eq!((head.number, head.lane, head.ceiling), (3, 1, Hlc(5)));
    let fate = disk.fork();
    fate.power_cut_prefix(0);
    assert_eq!(survivors(&fate), [b"a"]);
}

#[test]
fn a_segment_begins_with_the_greatest_hlc_known() {
    let disk = SimDisk::default();
    let log = begun(&disk, Fsync::No);
    let ceiling = |number| Head::decode(&disk.bytes(&path(0, number)).unwrap()).unwrap().ceiling;
    assert_eq!(ceiling(1), Hlc(5));
    log.raise_ceiling(Hlc(8));
    log.raise_ceiling(Hlc(7));
    put(&log, 0, b"a").unwrap();
    log.roll().unwrap();
    assert_eq!(ceiling(2), Hlc(8));
    let source = Arc::new(AtomicU32::new(9));
    let asked = Arc::clone(&source);
    log.ask_ceiling_of(move || Hlc(asked.load(Ordering::Relaxed).into()));
    put(&log, 0, b"b").unwrap();
    log.roll().unwrap();
    assert_eq!(ceiling(3), Hlc(9));
}

#[test]
fn sealed_segments_are_cut_and_removed() {
    let disk = SimDisk::default();
    let log = begun(&disk, Fsync::No);
    let places = [1, 2, 3].map(|_| {
        let place = put(&log, 0, b"some").unwrap();
        log.roll().unwrap();
        place
    });
    let kind = |result: std::io::Result<()>| result.unwrap_err().kind();
    assert_eq!(kind(log.remove(0, 4)), std::io::ErrorKind::NotFound, "active");
    assert_eq!(kind(log.truncate(0, 9, 1)), std::io::ErrorKind::NotFound, "not there");
    log.remove(0, 1).unwrap();
    log.truncate(0, 2, HEAD_SIZE as u64).unwrap();
    let reads = places.map(|place| log.read(VnodeId(0), place, 0).map_err(|error| error.kind()));
    let [gone, cut, there] = reads;
    assert_eq!(gone, Err(std::io::ErrorKind::NotFound));
    assert_eq!(cut, Err(std::io::ErrorKind::InvalidData));
    assert_eq!(there.unwrap(), b"some");
    disk.power_cut_prefix(0);
    assert_eq!(survivors(&disk).len(), 1);
    assert_eq!(disk.bytes(&path(0, 1)), None);
}

#[test]
fn every_flipped_bit_of_a_frame_is_seen() {
    let disk = SimDisk::default();
    let log = begun(&disk, Fsync::No);
    let place = put(&log, 0, b"some payload").unwrap();
    append(&log, 0, &[7; 900]);
    log.roll().unwrap();
    for bit in 0..(HEADER_SIZE as u64 + 12) * 8 {
        let bit = u64::from(place.offset) * 8 + bit;
        disk.flip(&path(0, 1), bit);
        for size in [0, 24, 500] {
            let read = log.read(VnodeId(0), place, size).map_err(|error| error.kind());
            assert_eq!(read, Err(std::io::ErrorKind::InvalidData));
        }
        disk.flip(&path(0, 1), bit);
    }
    let other = log.read(VnodeId(2), place, 24).map_err(|error| error.kind());
    assert_eq!(other, Err(std::io::ErrorKind::InvalidData), "another vnode's");
    disk.set_in_memory(false);
    assert_eq!(log.read_now(VnodeId(0), place, 24).unwrap(), None);
    assert_eq!(log.read(VnodeId(0), place, 24).unwrap(), b"some payload");
    disk.fail_reads(true);
    assert!(log.read(VnodeId(0), place, 24).is_err());
}

#[test]
fn a_closed_log_is_whole_trimmed_and_takes_nothing() {
    let disk = SimDisk::default();
    let log = begun(&disk, Fsync::No);
    append(&log, 0, b"last");
    log.close().unwrap();
    log.close().unwrap();
    put(&log, 0, b"late").unwrap_err();
    assert!(log.sync().is_err() && log.roll().is_err());
    drop(log);
    disk.power_cut_prefix(0);
    assert_eq!(disk.paths(), [path(0, 1), path(1, 1)]);
    assert_eq!(survivors(&disk), [b"last"]);
    let log = begun(&disk, Fsync::No);
    assert_eq!(put(&log, 0, b"more").unwrap().segment, 2);
}

#[test]
fn what_was_prepared_and_not_used_goes_with_the_next_start() {
    let disk = SimDisk::default();
    let log = begun(&disk, Fsync::No);
    put(&log, 0, &[1; 800]).unwrap();
    eventually("prepared", || disk.bytes(&path(0, 2)).is_some());
    drop(log);
    disk.process_kill();
    let log = sim(&disk, Fsync::No);
    assert_eq!(log.segments(0).len(), 1);
    assert!(disk.bytes(&path(0, 2)).is_some(), "opening changes nothing");
    log.begin(Hlc(5)).unwrap();
    assert_eq!(put(&log, 0, b"more").unwrap().segment, 2);
}

#[test]
fn what_another_process_wrote_is_durable_before_it_is_built_on() {
    let disk = SimDisk::default();
    let log = begun(&disk, Fsync::No);
    put(&log, 0, b"written").unwrap();
    drop(log);
    disk.process_kill();
    let log = begun(&disk, Fsync::No);
    drop(log);
    disk.power_cut_prefix(0);
    assert_eq!(survivors(&disk), [b"written"]);
}

#[test]
fn other_logs_are_refused() {
    let disk = SimDisk::default();
    assert_eq!(Log::lanes_in(&disk, Path::new("/log")).unwrap(), None);
    drop(begun(&disk, Fsync::No));
    assert_eq!(Log::lanes_in(&disk, Path::new("/log")).unwrap(), Some(2));
    let refusal = |layout| {
        let disk = Arc::new(disk.clone());
        let log = Log::open(disk, "/log".into(), layout, options(Fsync::No));
        log.unwrap_err().to_string()
    };
    assert!(refusal(Layout { cluster: 78, ..LAYOUT }).contains("belongs to another cluster"));
    assert!(refusal(Layout { vnodes: 16, ..LAYOUT }).contains("has 8 vnodes, not 16"));
    assert!(refusal(Layout { lanes: 4, ..LAYOUT }).contains("lane 0 of 2, not 0 of 4"));
}

#[test]
fn an_append_that_panics_leaves_nothing() {
    let disk = SimDisk::default();
    let log = begun(&disk, Fsync::No);
    append(&log, 0, b"one");
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        log.append(VnodeId(0), Kind::State, |out| {
            out.extend_from_slice(b"half");
            panic!("a bug, as a test");
        })
    }));
    assert!(panicked.is_err());
    append(&log, 0, b"two");
    log.close().unwrap();
    assert_eq!(survivors(&disk), [b"one", b"two"]);
}

#[test]
fn its_threads_end_with_it() {
    let disk = Arc::new(SimDisk::default());
    for close in [false, true] {
        let log = open(Arc::clone(&disk) as Arc<dyn Disk>, Path::new("/log"), options(Fsync::No));
        log.begin(Hlc(5)).unwrap();
        append(&log, 0, b"one");
        if close {
            log.close().unwrap();
        }
        drop(log);
        assert_eq!(Arc::strong_count(&disk), 1, "threads hold the disk");
    }
}

#[test]
fn many_threads_are_held_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(Arc::new(RealDisk), folder.path(), options(Fsync::Everysec));
    log.begin(Hlc(5)).unwrap();
    std::thread::scope(|scope| {
        for vnode in 0..8u16 {
            let log = &log;
            scope.spawn(move || {
                for number in 0..200u32 {
                    let place = append(log, vnode, &payload(number));
                    if number % 3 == 0 {
                        log.hold_blocking(&commit(log, [vnode])).unwrap();
                        assert_eq!(log.read(VnodeId(vnode), place, 50).unwrap(), payload(number));
                    }
                }
            });
        }
    });
    log.close().unwrap();
    for vnode in 0..8 {
        let lane = log.lane(VnodeId(vnode));
        let all = log.segments(lane).into_iter().flat_map(|view| frames(&log, lane, view.number).0);
        let of_vnode: Vec<_> = all.filter(|(whose, _)| *whose == vnode).map(|(_, it)| it).collect();
        assert_eq!(of_vnode, (0..200).map(payload).collect::<Vec<_>>());
    }
}

/// Appends until the power fails; what was held.
fn until_the_power_fails(disk: &SimDisk) -> Vec<Vec<u8>> {
    let mut held = Vec::new();
    let log = sim(disk, Fsync::Always);
    if log.begin(Hlc(5)).is_err() {
        return held;
    }
    for number in 0..60 {
        if put(&log, 0, &payload(number)).is_err() {
            break;
        }
        held.push(payload(number));
    }
    let _ = log.close();
    held
}

#[test]
fn whatever_the_moment_of_a_power_cut_what_was_held_is_there() {
    let whole = SimDisk::default();
    assert_eq!(until_the_power_fails(&whole).len(), 60);
    let writes = (1..=whole.writes()).flat_map(|n| [Cut::BeforeWrite(n), Cut::AfterWrite(n)]);
    let syncs = (1..=whole.syncs()).flat_map(|n| [Cut::BeforeSync(n), Cut::AfterSync(n)]);
    for (seed, cut) in (0..).zip(writes.chain(syncs)) {
        let disk = SimDisk::default();
        disk.cut_at(cut);
        let held = until_the_power_fails(&disk);
        disk.power_cut(seed);
        if disk.paths().is_empty() {
            assert_eq!(held.len(), 0, "{cut:?}");
            continue;
        }
        let found = survivors(&disk);
        assert_eq!(found.get(..held.len()), Some(&held[..]), "{cut:?}");
    }
}
