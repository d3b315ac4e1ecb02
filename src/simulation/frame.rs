//! What nodes say to each other: the real frames' content, with the shadows' facts beside it.

use std::rc::Rc;

use crate::anti_entropy::message;
use crate::base::hash::Digest;
use crate::base::id::VnodeId;
use crate::membership::lives::{Lives, Met};

use super::facts::Facts;

/// A record of one key, and the facts that it tells.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) vnode: VnodeId,
    pub(super) key: usize,
    /// No bytes: nothing is held of the key.
    pub(super) bytes: Rc<[u8]>,
    pub(super) facts: Facts,
}

/// What a request came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// It was done.
    Done(Reply),
    /// Nothing was done.
    NotRun,
    /// It may have been done.
    Uncertain,
}

/// The reply of a request that was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Reply {
    /// What was seen, or what it came to.
    pub(super) number: Option<i64>,
    /// Whether anything was changed.
    pub(super) changed: bool,
    /// What was known of the key where and when it ran.
    pub(super) seen: Facts,
}

/// What a peer says of its own entry.
#[derive(Clone, Debug)]
pub(super) enum Verdict {
    Same,
    NotCounting,
    Differs(Told),
}

/// One frame.
#[derive(Clone, Debug)]
pub(super) enum Frame {
    /// A change, in the link's stream.
    Rep(Told),
    /// Every change of the stream up to there is held.
    RepAck {
        upto: u64,
    },
    /// A request for its coordinator.
    Forward {
        id: u64,
        request: usize,
        /// No replica counts: the receiver stands in for them.
        stands_in: bool,
    },
    ForwardReply {
        id: u64,
        outcome: Outcome,
    },
    Check {
        id: u64,
        key: usize,
        digest: Digest,
    },
    CheckReply {
        id: u64,
        verdict: Verdict,
    },
    /// An entry; `id` 0 wants no answer.
    Put {
        id: u64,
        told: Told,
    },
    PutAck {
        id: u64,
        ok: bool,
    },
    Tree {
        vnode: VnodeId,
        message: message::Message,
    },
    Status {
        counts: bool,
    },
    /// The stream goes on after that change, with or without a gap before it.
    Resume {
        after: u64,
        gap: bool,
    },
    /// There is nothing to send again.
    CaughtUp,
    /// Everything was compared since the stream went on `after`.
    Settled {
        after: u64,
    },
}

/// What each end of a new link tells the other.
#[derive(Clone, Debug)]
pub(super) struct Greeting {
    /// This node's own life, and those of all nodes that it knows of.
    pub(super) own: Met,
    pub(super) lives: Lives,
    /// Which process it is; which of the other's it knows, and up to where it holds its stream.
    pub(super) run: u64,
    pub(super) known_run: u64,
    pub(super) held: u64,
    /// Whether it may have lost what it once held.
    pub(super) lossy: bool,
}
