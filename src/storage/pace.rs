//! When a lane is compacted and how fast, and how large its segments shall be.
//!
//! A lane is compacted from 2.0 times its live bytes on, until 1.8 times; the further above 2.0,
//! the faster, and from 2.2 on as fast as it goes. With segments of a sixteenth of the live bytes,
//! two of them reserved ahead and one moved but not yet removed, that stays within 2.5 times for
//! lanes of 64 MiB of live bytes and more. Logs up to 64 MiB are left alone: where few keys are
//! overwritten all the time, the later a segment's turn comes, the less is alive in it.
//!
//! Invariant: the rate only rises with the excess, so whatever the rate of writes, the excess
//! settles where both are equal.

/// Largest segment that is worth having: the default of the setting, in bytes.
pub const SEGMENT_SIZE_DEFAULT: u32 = 64 << 20;

/// Smallest segment that a small store gets, in bytes.
const SEGMENT_SIZE_MIN: u32 = 4 << 20;

/// A lane's live bytes fill this many segments, if those are not as large as is configured.
const SEGMENTS_LIVE: u64 = 16;

/// Logs up to this many bytes are left alone: as Redis's file is, before it is rewritten.
const LOG_SIZE_MIN: u64 = 64 << 20;

/// Lanes up to this many bytes are left alone, even if they are many.
const LANE_SIZE_MIN: u64 = 16 << 20;

/// Bytes a second that are walked when there is hardly any need.
pub(super) const RATE_MIN: u64 = 8 << 20;

/// How often [`RATE_MIN`] doubles until there is no hurrying it further: 2 GiB a second.
const RATE_DOUBLINGS: f64 = 8.0;

/// What a lane weighs, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LaneBytes {
    /// All its segments, the active one included, less what of the oldest has been walked.
    pub all: u64,
    /// What would be left if no frame were dead.
    pub live: u64,
    /// The active segment.
    pub active: u64,
    /// Up to so many it is left alone: see [`lane_size_min`].
    pub least: u64,
}

impl LaneBytes {
    fn start(&self) -> u64 {
        (self.live * 2).max(self.least)
    }

    /// Whether the oldest segment shall be compacted. Once `running`, it goes on for a while, so
    /// that it does not begin anew with every write.
    pub fn wants(&self, running: bool) -> bool {
        let enough = if running { (self.live * 9 / 5).max(self.least) } else { self.start() };
        self.all > enough && self.all > self.active
    }

    /// Bytes a second to walk: it rises with the excess, until nobody can write faster.
    pub fn rate(&self) -> u64 {
        let excess = self.all.saturating_sub(self.start()) as f64;
        let bearable = (self.live / 5).max(LANE_SIZE_MIN / 4) as f64;
        let doublings = (excess / bearable).min(1.0) * RATE_DOUBLINGS;
        (RATE_MIN as f64 * doublings.exp2()) as u64
    }
}

/// Up to how many bytes each of so many lanes is left alone.
pub fn lane_size_min(lanes: usize) -> u64 {
    (LOG_SIZE_MIN / lanes.max(1) as u64).max(LANE_SIZE_MIN)
}

/// How large a lane's segments shall be, in bytes, when its frames have `live` of them and
/// `configured` is the most. Of few large segments, the reserved and the half-dead ones would be
/// too great a part.
pub fn segment_size(live: u64, configured: u32) -> u32 {
    let share = (live / SEGMENTS_LIVE).min(u64::from(u32::MAX)) as u32;
    // A power of two, so that it seldom changes.
    let rounded = share.checked_ilog2().map_or(0, |log| 1 << log);
    rounded.max(SEGMENT_SIZE_MIN).min(configured)
}
