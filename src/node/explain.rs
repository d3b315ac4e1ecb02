//! `KV.EXPLAIN key`: everything this node knows about where a key stands and why.

use crate::base::id::{NodeId, VnodeId};
use crate::base::time::Dot;
use crate::coordinator::route::Reach;
use crate::ring::slot::slot_of;

use super::Node;

/// What a node knows of one key.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The key's slot.
    pub slot: u16,
    /// The slot's vnode.
    pub vnode: VnodeId,
    /// Who holds it, in order of preference, and what is believed of them.
    pub replicas: Vec<(NodeId, Reach)>,
    /// Who coordinates it now.
    pub coordinator: Option<NodeId>,
    /// What this node holds of it, if it holds the vnode.
    pub held: Option<Held>,
}

/// What one replica holds of a key.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// The visible write, if the key is visible.
    pub dot: Option<Dot>,
    /// The history, as `D([node,n],…)`.
    pub context: String,
    /// How many concurrent values there are.
    pub siblings: usize,
    /// Where the value is.
    pub tier: &'static str,
}

impl Node {
    /// Explains a key from here.
    pub fn explain(&self, key: &[u8]) -> Explanation {
        let slot = slot_of(key);
        let vnode = self.topology.vnode_of(slot);
        let replicas = self.topology.replicas(vnode);
        let holds = self.routes.holds(vnode, self.routes.me());
        Explanation {
            slot: slot.0,
            vnode,
            replicas: replicas.iter().map(|&node| (node, self.reach(node))).collect(),
            coordinator: self.coordinator(vnode),
            held: holds.then(|| self.held(vnode, key)),
        }
    }

    fn held(&self, vnode: VnodeId, key: &[u8]) -> Held {
        let entry = self.keyspace.read(vnode, super::now(), |keys| keys.entry(key));
        let Some(entry) = entry else {
            return Held { context: "D()".to_owned(), tier: "none", ..Held::default() };
        };
        Held {
            dot: entry.siblings().map(|(dot, _)| dot).max(),
            context: entry.context().to_string(),
            siblings: entry.siblings().count(),
            tier: if entry.is_tombstone() { "tombstone" } else { "memory" },
        }
    }
}
