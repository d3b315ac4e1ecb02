//! The log on the machine's own disk and on a simulated one.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::base::id::VnodeId;
use crate::base::time::Hlc;

use super::disk::{Disk, RealDisk};
use super::frame::{HEADER_SIZE, Header, Kind};
use super::log::{Commit, Fsync, Layout, Log, Options};
use super::place::Place;
use super::segment::{HEAD_SIZE, Head, read_mark};

const LAYOUT: Layout = Layout { vnodes: 8, lanes: 2, cluster: 77 };
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
            Kind::Mark => marks.push(read_mark(payload).unwrap()),
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
