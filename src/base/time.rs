//! Time: wall-clock milliseconds, hybrid logical clocks, and dots.
//!
//! A hybrid logical clock (Kulkarni et al., 2014) is 48 bits of wall-clock milliseconds and 16
//! bits of count. It never runs backwards and is raised above everything it sees, so comparing
//! two of them agrees with causality, and follows the wall clock otherwise.

use super::id::Actor;

/// Milliseconds since the Unix epoch. Comes in as an argument; pure rooms never ask for it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct UnixMs(pub u64);

/// Milliseconds on a clock of one node that never goes back. Its zero means nothing; two nodes'
/// moments cannot be compared.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Moment(pub u64);

impl Moment {
    /// Milliseconds since `earlier`; 0 if that is later.
    pub const fn since(self, earlier: Moment) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A hybrid logical timestamp: `milliseconds << 16 | count`. Zero is before every write.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Hlc(pub u64);

impl Hlc {
    /// Before every write.
    pub const ZERO: Hlc = Hlc(0);

    /// The first timestamp of wall-clock millisecond `ms`.
    pub const fn at(ms: UnixMs) -> Hlc {
        Hlc(ms.0 << 16)
    }

    /// The wall-clock part.
    pub const fn ms(self) -> UnixMs {
        UnixMs(self.0 >> 16)
    }

    /// The next timestamp of a clock that last read `self`, at wall-clock `now`: above `self`,
    /// and at `now` if that is later. A full count carries into the milliseconds.
    #[must_use]
    pub const fn next(self, now: UnixMs) -> Hlc {
        let wall = Hlc::at(now).0;
        if wall > self.0 { Hlc(wall) } else { Hlc(self.0 + 1) }
    }
}

/// One write: when, and by whom. The order of dots is the order of last-writer-wins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Dot {
    /// Time first, so that the derived order is last-writer-wins.
    pub hlc: Hlc,
    /// The writer; breaks ties.
    pub actor: Actor,
}

impl Dot {
    /// The write of `actor` at `hlc`.
    pub const fn new(hlc: Hlc, actor: Actor) -> Dot {
        Dot { hlc, actor }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_rises_whatever_the_wall_does() {
        let first = Hlc::ZERO.next(UnixMs(1_000));
        assert_eq!(first.ms(), UnixMs(1_000));
        let back = first.next(UnixMs(10));
        assert!(back > first);
        assert_eq!(back.next(UnixMs(2_000)), Hlc::at(UnixMs(2_000)));
    }

    #[test]
    fn a_full_count_carries_into_the_milliseconds() {
        let full = Hlc(Hlc::at(UnixMs(5)).0 | 0xFFFF);
        assert_eq!(full.next(UnixMs(5)), Hlc::at(UnixMs(6)));
    }
}
