//! Looks after the hash trees: works each one out anew now and then, and mends what is wrong.
//!
//! A tree is kept by difference under the lock that every change takes. A wrong one would be a bug
//! or a broken memory; it would make exchanges compare for ever, or worse, find nothing. So it is
//! not believed blindly: one vnode after the other is summed up again, a few thousand keys at a
//! time, in what is a thousandth of the node's time.

use std::time::Duration;

use tracing::error;

use crate::base::id::VnodeId;

use super::Node;

/// How often a group of buckets is looked at.
const CHECK_EVERY: Duration = Duration::from_millis(500);

impl Node {
    pub(super) async fn tend_trees_always(&self) {
        loop {
            let held: Vec<VnodeId> = self.held_vnodes().collect();
            for vnode in held {
                self.tend_tree(vnode).await;
            }
            // A node that holds nothing waits, too.
            tokio::time::sleep(CHECK_EVERY).await;
        }
    }

    async fn tend_tree(&self, vnode: VnodeId) {
        for group in self.keyspace.bucket_groups(vnode) {
            let mended = self.keyspace.mend_tree(vnode, group);
            self.metrics.tree_buckets_checked.add(u64::from(group.len()));
            if mended > 0 {
                self.metrics.tree_buckets_mended.add(mended as u64);
                error!(vnode = vnode.0, mended, "a hash tree was wrong and has been mended");
            }
            tokio::time::sleep(CHECK_EVERY).await;
        }
    }
}
