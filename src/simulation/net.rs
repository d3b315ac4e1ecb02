//! The network: one link a pair, as TCP has it. Frames of one direction come in order, each after
//! a delay, or not at all because the link broke; a direction that is cut holds them back until it
//! is mended or an end has lost patience.
//!
//! ```text
//!   a ──■──■──■──► b        cut a→b: frames wait, b hears nothing and gives up after a while
//!   a ◄────■────── b        the end that gives up tells the other, if that direction is open
//! ```

use std::collections::VecDeque;

use super::frame::Frame;

/// One direction of a pair.
#[derive(Clone, Debug, Default)]
pub(super) struct Way {
    pub(super) cut: bool,
    /// When the last frame that is under way arrives.
    pub(super) busy_until: u64,
    /// Frames under way, each with its link, in the order in which they were sent.
    pub(super) frames: VecDeque<(u32, Frame)>,
    /// How many of them should have arrived during the cut.
    pub(super) held: u64,
}

/// One pair of nodes.
#[derive(Clone, Debug, Default)]
pub(super) struct Pair {
    /// The number of the newest link.
    pub(super) link: u32,
    /// Whether each end (the lower place first) still has it.
    pub(super) open: [bool; 2],
    /// From the lower to the higher place, and back.
    pub(super) ways: [Way; 2],
    /// Whether somebody is about to dial.
    pub(super) dialing: bool,
}

/// All pairs.
#[derive(Clone, Debug)]
pub(super) struct Net {
    nodes: usize,
    pairs: Vec<Pair>,
}

impl Net {
    pub(super) fn new(nodes: usize) -> Net {
        Net { nodes, pairs: vec![Pair::default(); nodes * nodes] }
    }

    pub(super) fn pair(&mut self, a: usize, b: usize) -> &mut Pair {
        &mut self.pairs[a.min(b) * self.nodes + a.max(b)]
    }

    pub(super) fn way(&mut self, from: usize, to: usize) -> &mut Way {
        &mut self.pair(from, to).ways[usize::from(from > to)]
    }

    /// Whether `at`'s end of the link with `peer` is open.
    pub(super) fn open(&mut self, at: usize, peer: usize) -> &mut bool {
        &mut self.pair(at, peer).open[usize::from(at > peer)]
    }

    pub(super) fn is_cut(&mut self, a: usize, b: usize) -> bool {
        self.way(a, b).cut || self.way(b, a).cut
    }
}
