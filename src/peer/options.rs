//! What the peer room must be told before it can start.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::base::id::{Boot, NodeId};
use crate::base::limits::PEER_FRAME_SIZE_MAX;

/// The cluster's shared secret. It prints as nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The options of all links of one node.
#[derive(Clone, Debug)]
pub struct Options {
    /// This node.
    pub node: NodeId,
    /// Its life.
    pub boot: Boot,
    /// The cluster's name; nodes of other clusters are refused.
    pub cluster: String,
    /// What all nodes of the cluster know and nobody else does.
    pub secret: Secret,
    /// Every node of the cluster and its peer address, `host:port`, resolved at every dial.
    /// This node itself may be among them.
    pub members: BTreeMap<NodeId, String>,
    /// Longest time to connect, and longest time from the first byte to two proofs.
    pub handshake_max: Duration,
    /// The first wait before dialing again; it doubles up to `redial_max`, less a random part.
    pub redial_min: Duration,
    /// The longest wait before dialing again.
    pub redial_max: Duration,
    /// A link that has sent nothing for this long sends a ping.
    pub ping_every: Duration,
    /// A link on which nothing arrives for this long is closed.
    pub silence_max: Duration,
    /// Bytes that may wait in one peer's outbox before it is full.
    pub outbox_bytes_max: usize,
    /// Longest frame to send or to take, in bytes.
    pub frame_size_max: usize,
    /// How long gossip that was sent may go unconfirmed by the network before its connection is
    /// given up and dialed anew.
    pub gossip_silence_max: Duration,
    /// Most connections at once that have not proved anything yet.
    pub strangers_max: usize,
}

impl Options {
    /// The defaults for `node` in its life `boot`, in the cluster of that name, secret and members.
    pub fn new(
        node: NodeId,
        boot: Boot,
        cluster: impl Into<String>,
        secret: impl Into<Vec<u8>>,
        members: BTreeMap<NodeId, String>,
    ) -> Options {
        Options {
            node,
            boot,
            cluster: cluster.into(),
            secret: Secret(secret.into()),
            members,
            handshake_max: Duration::from_secs(2),
            redial_min: Duration::from_millis(50),
            redial_max: Duration::from_secs(1),
            ping_every: Duration::from_millis(500),
            silence_max: Duration::from_secs(3),
            outbox_bytes_max: 64 << 20,
            frame_size_max: PEER_FRAME_SIZE_MAX,
            gossip_silence_max: Duration::from_secs(2),
            strangers_max: 64,
        }
    }
}
