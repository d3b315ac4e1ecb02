//! Where a record lies in the log.

/// A frame's place in its vnode's lane. Later frames of a lane have greater places.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Place {
    /// The segment's number; they rise from 1 within a lane.
    pub segment: u32,
    /// Bytes from the segment's start to the frame's header.
    pub offset: u32,
}
