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
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::{error, info, warn};

use crate::base::id::VnodeId;

use super::Node;
use super::batch::PeerIndex;

/// What a node may have lost since it last ran.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Losses {
    /// Any of its last writes: the machine went down before they were durable.
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

    /// A node that was away counts as soon as there is nobody in reach that it must compare itself
    /// with.
    pub(super) fn watch_return(&self) {
        if self.returning.load(Ordering::Acquire)
            && self.greeted.load(Ordering::Acquire)
            && !self.rests()
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
