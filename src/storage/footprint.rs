//! What blocks take of memory.

use super::block::BLOCK_ALIGN;

/// What a block takes of memory, as the allocator counts it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Footprint {
    /// Bytes it takes.
    pub(super) taken: usize,
    /// Bytes it would take if it were cold, where that saves any.
    pub(super) least: usize,
}

impl Footprint {
    /// Of both.
    pub(super) const fn plus(self, other: Footprint) -> Footprint {
        Footprint { taken: self.taken + other.taken, least: self.least + other.least }
    }
}

/// What a block takes beside a large entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beside {
    pub(super) taken: usize,
    pub(super) cold: usize,
}

impl Beside {
    /// What both take, if the entry takes so much.
    pub(super) fn with(self, entry: usize) -> Footprint {
        let taken = self.taken + entry;
        Footprint { taken, least: taken.min(self.cold) }
    }
}

/// What the allocator takes for `size` bytes: jemalloc's classes, four for each doubling.
pub(super) const fn size_class(size: usize) -> usize {
    if size <= 128 {
        return if size <= BLOCK_ALIGN { BLOCK_ALIGN } else { size.next_multiple_of(BLOCK_ALIGN) };
    }
    let step = 1 << ((size - 1).ilog2() - 2);
    size.next_multiple_of(step)
}
