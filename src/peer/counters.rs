//! What one peer's links have done so far: plain counters, never reset.

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter that only statistics read: it orders nothing.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Counts `more`.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Replaces the reading (of a gauge).
    pub fn set(&self, reading: u64) {
        self.0.store(reading, Ordering::Relaxed);
    }

    /// The reading.
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of one peer, over all of its links.
#[derive(Debug, Default)]
pub struct Counters {
    /// Bytes received after the handshake.
    pub bytes_in: Count,
    /// Bytes sent after the handshake.
    pub bytes_out: Count,
    /// Messages received, pings included.
    pub frames_in: Count,
    /// Messages sent, pings included.
    pub frames_out: Count,
    /// Reads from the socket that returned bytes.
    pub reads: Count,
    /// Writes to the socket.
    pub flushes: Count,
    /// Links that came up.
    pub links_up: Count,
    /// Links that went down.
    pub links_down: Count,
    /// Attempts to dial or to shake hands that failed.
    pub attempts_failed: Count,
    /// The last round trip of a ping, in microseconds; 0 before the first.
    pub round_trip_us: Count,
}
