//! Tests of compaction: the decision in a small model, the work on a simulated disk.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::pace::{LaneBytes, SEGMENT_SIZE_DEFAULT, segment_size};

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
        let weight = LaneBytes { all, live: self.live(), active };
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
    let weight = |all, live, active| LaneBytes { all, live, active };
    assert!(!weight(16 * MIB, 0, 0).wants(false));
    assert!(weight(16 * MIB + 1, 0, 0).wants(false));
    assert!(!weight(64 * MIB, 0, 64 * MIB).wants(true), "nothing is sealed");
    assert!(!weight(200 * MIB, 100 * MIB, MIB).wants(false));
    assert!(weight(200 * MIB, 100 * MIB, MIB).wants(true), "what has begun goes on for a while");
    assert!(!weight(180 * MIB, 100 * MIB, MIB).wants(true));
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
        let rate = |all| LaneBytes { all, live, active: 0 }.rate();
        prop_assert!(rate(all) <= rate(all + more));
        prop_assert!((8 * MIB..=2 << 30).contains(&rate(all)));
    }
}
