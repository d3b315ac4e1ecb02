//! What this node's log lost, or cannot take: which vnodes that concerns, and what follows.
//!
//! * After a restart, a vnode of which something may be lost counts in nothing until enough peers
//!   have restored it ([`crate::anti_entropy::recovery`]). Where no other replica exists and the
//!   loss is certain, the vnode is not served at all unless the operator says so: an old value
//!   in a lost one's place would be a lie.
//! * A node that comes back with all that it had missed what happened meanwhile. It counts when it
//!   has compared itself with every replica that it can reach. (It could count at once, for reads
//!   would ask others; but it would take over as coordinator while the one before it still has
//!   writes on their way.)
//! * While the log takes nothing (a full disk), peers' changes are not kept either. They are told
//!   that this node counts in nothing, and it recovers from them when the log works again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::{error, info, warn};

use crate::base::id::VnodeId;

use super::Node;
use super::batch::PeerIndex;

/// What a node may have lost since it last ran.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Losses {
    /// Any of what it acknowledged: the machine went down before its last writes were durable, or
    /// an earlier process had lost something and ended before it was whole again.
    pub tail: bool,
    /// Records of these vnodes are damaged.
    pub damaged: BTreeSet<VnodeId>,
    /// Nothing more than what happened while the node was away.
    pub away: bool,
}

impl Losses {
    pub(super) fn everything() -> Losses {
        Losses { tail: true, ..Losses::default() }
    }

    pub(super) fn is_none(&self) -> bool {
        !self.tail && self.damaged.is_empty()
    }

    pub(super) fn concerns(&self, vnode: VnodeId) -> bool {
        self.tail || self.damaged.contains(&vnode)
    }
}

/// The vnodes that are not served, because records are lost that nobody can restore.
#[derive(Debug)]
pub(super) struct Damaged {
    any: AtomicBool,
    vnodes: Box<[AtomicBool]>,
}

impl Damaged {
    pub(super) fn new(vnodes: u16) -> Damaged {
        let vnodes = (0..vnodes).map(|_| AtomicBool::new(false)).collect();
        Damaged { any: AtomicBool::new(false), vnodes }
    }

    fn add(&self, vnode: VnodeId) {
        self.vnodes[vnode.index()].store(true, Ordering::Release);
        self.any.store(true, Ordering::Release);
    }

    /// Whether `vnode` is not served.
    pub(super) fn contains(&self, vnode: VnodeId) -> bool {
        self.any.load(Ordering::Acquire) && self.vnodes[vnode.index()].load(Ordering::Acquire)
    }

    fn count(&self) -> usize {
        self.vnodes.iter().filter(|vnode| vnode.load(Ordering::Acquire)).count()
    }
}

impl Node {
    /// Takes note of damaged vnodes that no other replica can restore.
    pub(super) fn note_damage(&self, losses: &Losses) {
        for &vnode in &losses.damaged {
            let alone = self.routes.replicas(vnode).len() == 1;
            if !alone {
                warn!(vnode = vnode.0, "records are lost: restoring the vnode from its replicas");
            } else if self.options.accept_damage {
                warn!(vnode = vnode.0, "records are lost for good, served all the same as asked");
            } else {
                error!(
                    vnode = vnode.0,
                    "records are lost and no replica can restore them: the vnode is not served; \
                     --accept-damage serves what is left"
                );
                self.damaged.add(vnode);
            }
        }
    }

    /// How many vnodes are not served because their log lost records.
    pub fn vnodes_damaged(&self) -> usize {
        self.damaged.count()
    }

    /// Whether this node has others, and has met none of them since its folder was made. For all it
    /// knows that was wiped: it must not count, nor write under a name that it may have used.
    pub(super) fn is_unmet(&self) -> bool {
        self.peers.len() > 1 && !self.life.has_met_anybody()
    }

    /// A node that was away counts as soon as there is nobody in reach that it must compare itself
    /// with.
    pub(super) fn watch_return(&self) {
        if self.returning.load(Ordering::Acquire)
            && self.greeted.load(Ordering::Acquire)
            && !self.rests()
            && !self.is_unmet()
            && self.vnodes_unsettled() == 0
        {
            self.returning.store(false, Ordering::Release);
            if self.recovery.lock().is_over() {
                info!("caught up with the peers in reach: this node counts again");
                self.steer_own();
                self.tell_status();
            }
        }
    }

    /// Notes in the folder that all that was lost is here again, once it is durable. Until then
    /// another process would have to bring it from the peers once more.
    pub(super) fn watch_recovery(self: &Arc<Node>) {
        // While it is being noted, whoever asked for the life would have to wait for the disk.
        let is_noted = || self.mending.load(Ordering::Acquire) || self.life.is_whole();
        let Some(log) = self.log.clone().filter(|_| !is_noted()) else { return };
        let is_over = |node: &Node| node.recovery.lock().is_over();
        if !is_over(self) || self.mending.swap(true, Ordering::AcqRel) {
            return;
        }
        let node = self.clone();
        tokio::task::spawn_blocking(move || {
            let durable = log.sync().map_err(std::io::Error::other);
            // Nobody reminds this node of another life meanwhile.
            let links = node.coming_up.lock();
            let noted = durable.and_then(|()| node.life.mend(|| is_over(&node)));
            drop(links);
            if let Err(error) = noted {
                warn!(%error, "not noted that this node is whole again");
            }
            node.mending.store(false, Ordering::Release);
        });
    }

    /// Whether peers' changes are not kept at the moment.
    pub(super) fn ignores_changes(&self) -> bool {
        self.ignoring.load(Ordering::Acquire)
    }

    /// Looks whether the log takes writes, and tells the peers when that has changed.
    pub(super) fn watch_log(&self) {
        let Some(log) = &self.log else { return };
        match (log.refusal(), self.ignores_changes()) {
            (Some(why), false) => {
                error!(why, "the log takes nothing: writes are refused, reads go on");
                self.ignoring.store(true, Ordering::Release);
                // A link on which a change was dropped must acknowledge nothing any more; the
                // next one begins with saying that this node counts in nothing.
                for peer in 0..self.peers.len() as PeerIndex {
                    self.missed(peer);
                }
            }
            (None, true) => {
                info!("the log takes writes again");
                self.ignoring.store(false, Ordering::Release);
                self.begin_recovery(&Losses::everything());
                self.tell_status();
                for peer in (0..self.peers.len() as PeerIndex).filter(|&p| p != self.routes.me()) {
                    self.owe(peer);
                }
            }
            _ => {}
        }
    }
}
