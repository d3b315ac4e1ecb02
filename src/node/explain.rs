//! `KV.EXPLAIN key`: everything this node knows about where a key stands and why.

use std::sync::Arc;

use crate::base::hash::Digest;
use crate::base::id::{NodeId, VnodeId};
use crate::base::time::Dot;
use crate::coordinator::route::Reach;
use crate::ring::slot::slot_of;
use crate::storage::warming::Tier;

use super::Node;
use super::batch::{Batch, Origin};
use super::execute::{Request, Submitted};
use super::replies::{Replies, ReplyBytes};

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
    /// The digest of all of it, its history included.
    pub digest: Digest,
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

    /// Asks the other replicas of a key that this node holds whether they hold the same as `held`.
    /// The reply, which begins with `head`, ends with the array of the names of those who do, this
    /// node among them; it comes to the next place of `replies`.
    pub fn confirm(
        &self,
        batch: &mut Batch,
        request: &Request<'_>,
        held: &Held,
        head: &[u8],
        replies: &Arc<Replies>,
    ) -> Submitted {
        let origin = Origin::Session { replies: replies.clone(), place: replies.reserve() };
        self.begin_survey(batch, request, held.digest, ReplyBytes::from_slice(head), origin);
        Submitted::Pending
    }

    fn held(&self, vnode: VnodeId, key: &[u8]) -> Held {
        let mut batch = self.batch();
        self.begin(&mut batch);
        let tier = self.keyspace.read(vnode, batch.now, |keys| keys.tier(key));
        let looked = self.run_waiting(&mut batch, vnode, |batch| {
            self.keyspace.read(vnode, batch.now, |keys| {
                let held = (keys.entry(key), keys.state_digest(key));
                let missed = keys.missing();
                if missed.is_empty() { Ok(held) } else { Err(missed) }
            })
        });
        let (entry, digest) = looked.unwrap_or_default();
        let Some(entry) = entry else {
            let tier = if tier == Tier::Cold { "disk, unreadable" } else { "none" };
            return Held { context: "D()".to_owned(), tier, digest, ..Held::default() };
        };
        Held {
            dot: entry.siblings().map(|(dot, _)| dot).max(),
            context: entry.context().to_string(),
            siblings: entry.siblings().count(),
            tier: match tier {
                _ if entry.is_tombstone() => "tombstone",
                Tier::Cold => "disk",
                _ => "memory",
            },
            digest,
        }
    }
}
