//! Identities: nodes, boots, actors, slots and vnodes.
//!
//! An [`Actor`] is one life of one node. It, not the node, names a writer in every causal
//! history: a node that came back without a clean-shutdown mark may have forgotten dots that it
//! issued, so it must never write under the old name again (Riak's "doomstone" lesson).

use std::fmt;

/// A node of the cluster, for ever: a wiped node gets a new id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct NodeId(pub u16);

/// How many lives a node has begun; it rises at every start without a clean-shutdown mark.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Boot(pub u16);

/// One life of one node: the writer's name in dots and version vectors.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Actor(pub u32);

impl Actor {
    /// The actor that `node` is in its life `boot`.
    pub const fn new(node: NodeId, boot: Boot) -> Self {
        Actor((node.0 as u32) << 16 | boot.0 as u32)
    }

    /// The node this actor is a life of.
    pub const fn node(self) -> NodeId {
        NodeId((self.0 >> 16) as u16)
    }

    /// Which life of the node.
    pub const fn boot(self) -> Boot {
        Boot(self.0 as u16)
    }
}

impl fmt::Debug for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}.{}", self.node().0, self.boot().0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

/// One of Redis Cluster's 16,384 hash slots.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Slot(pub u16);

/// One fixed piece of the ring: a contiguous run of slots that members claim as a whole.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct VnodeId(pub u16);

impl VnodeId {
    /// This vnode's place in arrays that hold one thing a vnode.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}
