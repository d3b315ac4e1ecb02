//! A member: a node as the roster knows it.

use crate::base::id::NodeId;

/// A node of the cluster: who it is, where it is found and how much it can take.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its identity, for ever.
    pub node: NodeId,
    /// What people call it (`n1`).
    pub name: String,
    /// Where clients and peers find it: a name or an address.
    pub host: String,
    /// The port that speaks RESP.
    pub client_port: u16,
    /// The port that speaks to peers.
    pub peer_port: u16,
    /// What fails together: a rack, a room, a data centre. Replicas spread over zones.
    pub zone: String,
    /// Its capacity relative to the others; 0 claims nothing (a node about to leave).
    pub weight: u32,
}

impl Member {
    /// A member of weight 1 in zone `default`, named after its number, its peer port left at 0.
    pub fn new(node: NodeId, host: impl Into<String>, client_port: u16) -> Member {
        Member {
            node,
            name: node.to_string(),
            host: host.into(),
            client_port,
            peer_port: 0,
            zone: "default".to_owned(),
            weight: 1,
        }
    }
}
