//! How a stand-in hands on what it holds for others (Dynamo §4.6).
//!
//! An entry that is held for others is sent to each of its replicas, and forgotten when all of them
//! have it: not one of them, for that one may lose it before it has told the others.
//!
//! ```text
//!  found ──► sent to each replica in reach ──► acknowledged by all ──► ripe ──► forgotten
//!    ▲              │ no answer, lost              │ a replica went       │ it has changed
//!    └──────────────┴───────────────────────────── ┴──────────────────────┘
//! ```
//!
//! An acknowledgement says that a replica's log holds the entry; that it survives the machine is
//! sure only after the next sync. So an entry *ripens* ([`Options::forget_after_ms`]), and whoever
//! went meanwhile is sent it again.
//!
//! Entries are found by a walk over the vnodes held for others, a piece at a time; what was
//! acknowledged of which state is written in a ledger, about 50 bytes an entry. It lives in memory:
//! after a restart all is sent again, and being told twice is being told once.
//!
//! Invariant: what is forgotten is, in exactly the state that the shell finds when it forgets it,
//! held by every replica of its vnode.

use std::collections::BTreeMap;
use std::ops::Range;

use smallvec::SmallVec;

use crate::base::hash::Digest;
use crate::base::id::{NodeId, VnodeId};
use crate::base::limits::REPLICAS_MAX;
use crate::base::time::{Hlc, Moment};

use super::pace::{self, Pace};

/// Tags of a vnode: the first byte of a key's hash.
const TAGS: u16 = 256;

/// Entries looked at in one piece, about.
const PIECE_KEYS: usize = 512;

/// How long a vnode whose walk is over is left alone.
const REST_MS: u64 = 250;

/// Most bytes on their way to one replica: its clients' frames share the link.
const FLYING_BYTES_MAX: usize = 4 << 20;

const _: () = assert!(REPLICAS_MAX <= u16::BITS as usize);

/// What may be chosen.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// After so many milliseconds what a log holds survives its machine.
    pub forget_after_ms: u64,
    /// An entry that was not acknowledged for so many milliseconds is sent again.
    pub retry_after_ms: u64,
    /// How fast one replica is sent entries.
    pub pace: pace::Options,
}

impl Default for Options {
    fn default() -> Options {
        // A log is synced every second, and a sync may take its time.
        Options { forget_after_ms: 2_000, retry_after_ms: 5_000, pace: pace::Options::default() }
    }
}

/// An entry that is held for others, as it is now.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// The hash of its key.
    pub hash: u64,
    /// The digest of its whole state.
    pub state: Digest,
    /// Bytes of a frame that holds it, about.
    pub bytes: usize,
}

/// What the machine asks of the shell, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Look at what is held of the vnode under these tags, and tell it by [`Handoff::on_found`].
    Look {
        /// The vnode.
        vnode: VnodeId,
        /// First bytes of hashes.
        tags: Range<u16>,
    },
    /// Send the `nth` of what was found, as it is by now, and tell the answer.
    Send {
        /// Its place in what was found.
        nth: usize,
        /// The replica.
        to: NodeId,
    },
    /// Forget the `nth` of what was found, unless it is in another state by now.
    Forget {
        /// Its place in what was found.
        nth: usize,
    },
}

/// An entry of which something is known.
#[derive(Clone, Copy, Debug)]
struct Line {
    /// Half of the digest of the state that this is about: chance does not repeat it.
    state: u64,
    /// Replicas that have this state, by their places.
    acked: u16,
    /// Replicas that were sent it and have not answered.
    flying: u16,
    bytes: u32,
    /// The last time it was sent or acknowledged.
    at: Moment,
}

#[derive(Clone, Copy, Default, Debug)]
struct Sum {
    keys: usize,
    bytes: usize,
}

/// What is held of one vnode for its replicas.
#[derive(Debug, Default)]
struct Vault {
    replicas: SmallVec<[NodeId; 4]>,
    held: Sum,
    changed: Hlc,
    /// By the replicas' places: what each of them has acknowledged.
    done: SmallVec<[Sum; 4]>,
    ledger: BTreeMap<u64, Line>,
    /// Where the walk is; `None`: it rests.
    walk: Option<u16>,
    rested: Moment,
    /// Whether something may have changed since the last walk began.
    fresh: bool,
}

impl Vault {
    fn all(&self) -> u16 {
        ((1u32 << self.replicas.len()) - 1) as u16
    }

    fn place(&self, node: NodeId) -> Option<usize> {
        self.replicas.iter().position(|&replica| replica == node)
    }

    /// Forgets what is written of an entry.
    fn strike(&mut self, hash: u64, peers: &mut BTreeMap<NodeId, Peer>) {
        let Some(line) = self.ledger.remove(&hash) else { return };
        for place in places(line.acked) {
            self.uncount(place, &line);
        }
        for place in places(line.flying) {
            landed(peers, self.replicas[place], &line);
        }
    }

    fn uncount(&mut self, place: usize, line: &Line) {
        let done = &mut self.done[place];
        done.keys = done.keys.saturating_sub(1);
        done.bytes = done.bytes.saturating_sub(line.bytes as usize);
    }

    /// Whether a walk may find anything to do, if `up` says who is in reach.
    fn wants(&self, up: impl Fn(NodeId) -> bool) -> bool {
        let lacks = |(place, node): (usize, &NodeId)| {
            up(*node) && (self.fresh || self.done[place].keys < self.held.keys)
        };
        self.held.keys > 0
            && (self.replicas.iter().enumerate().any(lacks)
                || self.done.iter().all(|done| done.keys > 0))
    }
}

/// The places whose bits are set.
fn places(bits: u16) -> impl Iterator<Item = usize> {
    (0..REPLICAS_MAX).filter(move |place| bits >> place & 1 == 1)
}

fn landed(peers: &mut BTreeMap<NodeId, Peer>, node: NodeId, line: &Line) {
    if let Some(peer) = peers.get_mut(&node) {
        peer.flying = peer.flying.saturating_sub(line.bytes as usize);
    }
}

#[derive(Debug)]
struct Peer {
    up: bool,
    pace: Pace,
    /// Bytes on their way.
    flying: usize,
}

/// Everything that one node holds for others. See the head of this file.
#[derive(Debug)]
pub struct Handoff {
    options: Options,
    vaults: BTreeMap<VnodeId, Vault>,
    peers: BTreeMap<NodeId, Peer>,
    /// The vnode that was looked at last.
    last: Option<VnodeId>,
}

impl Handoff {
    /// A node that holds nothing for anybody yet.
    pub fn new(options: Options) -> Handoff {
        Handoff { options, vaults: BTreeMap::new(), peers: BTreeMap::new(), last: None }
    }

    /// This node holds so many keys and bytes of a vnode for `replicas`. `changed` rises with every
    /// change of the vnode.
    pub fn on_held(
        &mut self,
        vnode: VnodeId,
        replicas: &[NodeId],
        keys: usize,
        bytes: usize,
        changed: Hlc,
    ) {
        let known = self.vaults.get(&vnode);
        // Of other replicas, places mean others.
        if keys == 0 || known.is_some_and(|vault| vault.replicas[..] != *replicas) {
            self.drop_vault(vnode);
        }
        if keys == 0 {
            return;
        }
        assert!(matches!(replicas.len(), 1..=REPLICAS_MAX), "what is held is held for somebody");
        let vault = self.vaults.entry(vnode).or_insert_with(|| Vault {
            replicas: replicas.iter().copied().collect(),
            done: replicas.iter().map(|_| Sum::default()).collect(),
            ..Vault::default()
        });
        vault.fresh |= vault.changed != changed;
        vault.held = Sum { keys, bytes };
        vault.changed = changed;
    }

    fn drop_vault(&mut self, vnode: VnodeId) {
        let Some(mut vault) = self.vaults.remove(&vnode) else { return };
        let hashes: Vec<u64> = vault.ledger.keys().copied().collect();
        hashes.into_iter().for_each(|hash| vault.strike(hash, &mut self.peers));
    }

    /// `node` is in reach and counts, or is not.
    pub fn on_reach(&mut self, node: NodeId, up: bool, now: Moment) {
        let options = self.options;
        let fresh = || Peer { up: false, pace: Pace::new(options.pace), flying: 0 };
        let peer = self.peers.entry(node).or_insert_with(fresh);
        match (std::mem::replace(&mut peer.up, up), up) {
            (false, true) => self.vaults.values_mut().for_each(|vault| vault.fresh = true),
            (true, false) => self.on_lost(node, now),
            _ => {}
        }
    }

    /// The link to `node` broke: it may have lost what its log held and was not synced.
    pub fn on_lost(&mut self, node: NodeId, now: Moment) {
        if let Some(peer) = self.peers.get_mut(&node) {
            (peer.up, peer.flying) = (false, 0);
        }
        let sure_after = self.options.forget_after_ms;
        for vault in self.vaults.values_mut() {
            let Some(place) = vault.place(node) else { continue };
            let bit = 1 << place;
            let mut lost = Sum::default();
            for line in vault.ledger.values_mut() {
                line.flying &= !bit;
                if line.acked & bit != 0 && now.since(line.at) < sure_after {
                    line.acked &= !bit;
                    lost = Sum { keys: lost.keys + 1, bytes: lost.bytes + line.bytes as usize };
                }
            }
            let done = &mut vault.done[place];
            done.keys = done.keys.saturating_sub(lost.keys);
            done.bytes = done.bytes.saturating_sub(lost.bytes);
        }
    }

    /// Time passes: asks for the next piece to look at, if there is anything to do.
    pub fn on_tick(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let after = self.last.map_or(0, |vnode| vnode.0.saturating_add(1));
        let next = self.vaults.range(VnodeId(after)..).chain(self.vaults.range(..VnodeId(after)));
        let up = |node: NodeId| self.peers.get(&node).is_some_and(|peer| peer.up);
        let due = next.into_iter().find(|(_, vault)| {
            vault.walk.is_some() || now.since(vault.rested) >= REST_MS && vault.wants(up)
        });
        let Some((&vnode, _)) = due else { return };
        self.last = Some(vnode);
        let Some(vault) = self.vaults.get_mut(&vnode) else { return };
        let first = vault.walk.unwrap_or(0);
        if vault.walk.is_none() {
            vault.fresh = false;
        }
        vault.walk = Some(first);
        let step = (usize::from(TAGS) * PIECE_KEYS).div_ceil(vault.held.keys.max(1));
        let end = first + step.clamp(1, usize::from(TAGS - first)) as u16;
        out.push(Effect::Look { vnode, tags: first..end });
    }

    /// What was held under these tags of `vnode`, as [`Effect::Look`] asked.
    pub fn on_found(
        &mut self,
        vnode: VnodeId,
        tags: Range<u16>,
        found: &[Found],
        now: Moment,
        out: &mut Vec<Effect>,
    ) {
        let (mut sent, mut is_blocked) = (false, false);
        for (nth, entry) in found.iter().enumerate() {
            let (did, lacked) = self.judge(vnode, nth, entry, now, out);
            sent |= did;
            is_blocked |= lacked;
        }
        let Some(vault) = self.vaults.get_mut(&vnode) else { return };
        // Whoever could be sent something must not wait for those that cannot.
        if is_blocked && !sent {
            return;
        }
        vault.fresh |= is_blocked;
        vault.walk = (tags.end < TAGS).then_some(tags.end);
        if vault.walk.is_none() {
            vault.rested = now;
        }
    }

    /// Sends an entry to those that lack it, or forgets it; whether any was sent it, and whether
    /// any other must wait for it.
    fn judge(
        &mut self,
        vnode: VnodeId,
        nth: usize,
        found: &Found,
        now: Moment,
        out: &mut Vec<Effect>,
    ) -> (bool, bool) {
        let Handoff { options, vaults, peers, .. } = self;
        let Some(vault) = vaults.get_mut(&vnode) else { return (false, false) };
        let (state, bytes) = (found.state.0 as u64, found.bytes.min(u32::MAX as usize) as u32);
        let known = vault.ledger.get(&found.hash).copied();
        let is_void = known.is_some_and(|line| line.state != state);
        let is_late = known
            .is_some_and(|line| line.flying != 0 && now.since(line.at) >= options.retry_after_ms);
        let mut line = match known {
            Some(line) if !is_void => line,
            _ => Line { state, acked: 0, flying: 0, bytes, at: now },
        };
        if is_void {
            vault.strike(found.hash, peers);
        } else if is_late {
            places(line.flying).for_each(|place| landed(peers, vault.replicas[place], &line));
            line.flying = 0;
        }
        let all = vault.all();
        if line.acked == all {
            if now.since(line.at) >= options.forget_after_ms {
                vault.strike(found.hash, peers);
                out.push(Effect::Forget { nth });
            }
            return (false, false);
        }
        let (mut sent, mut is_blocked) = (false, false);
        for place in places(all & !line.acked & !line.flying) {
            let node = vault.replicas[place];
            let Some(peer) = peers.get_mut(&node).filter(|peer| peer.up) else { continue };
            if peer.flying >= FLYING_BYTES_MAX || peer.pace.allowance(now) == 0 {
                is_blocked = true;
                continue;
            }
            peer.pace.on_sent(found.bytes, now);
            peer.flying += line.bytes as usize;
            line.flying |= 1 << place;
            line.at = now;
            out.push(Effect::Send { nth, to: node });
            sent = true;
        }
        if line.acked | line.flying != 0 {
            vault.ledger.insert(found.hash, line);
        } else {
            vault.ledger.remove(&found.hash);
        }
        (sent, is_blocked)
    }

    /// `from` has answered for an entry that was sent when it was in `state`, after `us`
    /// microseconds: its log holds it, or (`held` is false) it does not.
    pub fn on_answer(
        &mut self,
        vnode: VnodeId,
        (hash, state): (u64, Digest),
        from: NodeId,
        held: bool,
        us: u64,
        now: Moment,
    ) {
        let Handoff { vaults, peers, .. } = self;
        if let Some(peer) = peers.get_mut(&from).filter(|_| held) {
            peer.pace.on_latency(us, now);
        }
        let Some(vault) = vaults.get_mut(&vnode) else { return };
        let Some(place) = vault.place(from) else { return };
        let bit = 1 << place;
        let Some(line) = vault.ledger.get_mut(&hash) else { return };
        // What was asked of another state, or given up, or is told twice, means nothing.
        if line.state != state.0 as u64 || line.flying & bit == 0 {
            return;
        }
        line.flying &= !bit;
        landed(peers, from, line);
        if held {
            line.acked |= bit;
            line.at = now;
            let done = &mut vault.done[place];
            *done = Sum { keys: done.keys + 1, bytes: done.bytes + line.bytes as usize };
        } else {
            // Asked again not at once, but with the next walk.
            vault.fresh = true;
        }
    }

    /// How many keys and bytes are held for `node` that it has not acknowledged.
    pub fn hints_for(&self, node: NodeId) -> (usize, usize) {
        let mut sum = Sum::default();
        for vault in self.vaults.values() {
            let Some(place) = vault.place(node) else { continue };
            sum.keys += vault.held.keys.saturating_sub(vault.done[place].keys);
            sum.bytes += vault.held.bytes.saturating_sub(vault.done[place].bytes);
        }
        (sum.keys, sum.bytes)
    }

    /// How many keys and bytes are held for others.
    pub fn held(&self) -> (usize, usize) {
        let sums = self.vaults.values().map(|vault| vault.held);
        sums.fold((0, 0), |(keys, bytes), sum| (keys + sum.keys, bytes + sum.bytes))
    }
}
