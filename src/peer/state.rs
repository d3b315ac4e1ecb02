//! What a link is at the moment, and why one is down.

use std::fmt;
use std::io::ErrorKind;
use std::time::Instant;

use crate::base::id::Boot;

use super::frame::FrameError;
use super::hello::HelloError;

/// Why there is no link to a peer. What was sent and not acknowledged may or may not have
/// arrived.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DownReason {
    /// Not tried, or not dialed by the peer, yet.
    Untried,
    /// Nobody listens at the peer's address: its process is gone.
    ConnectionRefused,
    /// The peer's address could not be resolved or connected.
    Unreachable(ErrorKind),
    /// The peer was reached, but the handshake failed.
    Handshake(HelloError),
    /// The peer closed the link.
    Closed,
    /// The peer said that it leaves: its process ends in order.
    Goodbye,
    /// The connection broke.
    Broken(ErrorKind),
    /// Nothing arrived for too long.
    Silent,
    /// The peer sent what cannot be read.
    Malformed(FrameError),
    /// The peer has made a newer link.
    Replaced,
    /// The task of this link ended abnormally.
    Aborted,
    /// This node is shutting down, or the node room closed the link.
    Asked,
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DownReason::Untried => f.write_str("not tried yet"),
            DownReason::ConnectionRefused => f.write_str("nobody listens at the peer's address"),
            DownReason::Unreachable(kind) => write!(f, "the peer cannot be reached: {kind}"),
            DownReason::Handshake(error) => write!(f, "the handshake failed: {error}"),
            DownReason::Goodbye => f.write_str("the peer said goodbye"),
            DownReason::Closed => f.write_str("the peer closed the link"),
            DownReason::Broken(kind) => write!(f, "the connection broke: {kind}"),
            DownReason::Silent => f.write_str("the peer went silent"),
            DownReason::Malformed(error) => write!(f, "the peer talks nonsense: {error}"),
            DownReason::Replaced => f.write_str("replaced by a newer link"),
            DownReason::Aborted => f.write_str("the link's task ended abnormally"),
            DownReason::Asked => f.write_str("closed by this node"),
        }
    }
}

/// Whether there is a link to a peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LinkState {
    /// There is.
    Up {
        /// The peer's life.
        boot: Boot,
        /// Since when.
        since: Instant,
    },
    /// There is none.
    Down {
        /// Why, or why the last attempt failed.
        reason: DownReason,
        /// Since when.
        since: Instant,
    },
}
