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
//! Entries are found by a walk over the vnodes held for others, a *page* at a time. Each replica
//! goes through the page at its own pace: the shell says what room it has ([`Handoff::on_room`]), and
//! nothing is looked at while nobody has any. What was acknowledged of which state is written in a
//! ledger, about 50 bytes an entry. It lives in memory: after a restart all is sent again, and being
//! told twice is being told once.
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

use super::pace;

/// Tags of a vnode: the first byte of a key's hash.
const TAGS: u16 = 256;

/// Entries that are sent at a time.
const TURN_MAX: usize = 64;

/// Entries that are forgotten at a time. Nobody waits for that, and each is a line in the log.
const FORGOTTEN_MAX: usize = 16;

/// A page is left when nobody has had room for what is left of it for so long: others wait for
/// the next one.
const PATIENCE_MS: u64 = 250;

/// How long a vnode whose walk is over is left alone.
const REST_MS: u64 = 250;

const _: () = assert!(REPLICAS_MAX <= u16::BITS as usize);

/// What may be chosen.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// After so many milliseconds what a log holds survives its machine.
    pub forget_after_ms: u64,
    /// An entry that was not acknowledged for so many milliseconds is sent again.
    pub retry_after_ms: u64,
    /// Entries of one page, about. Clients wait while one is looked up.
    pub page_keys: usize,
}

impl Default for Options {
    fn default() -> Options {
        // A log is synced every second, and a sync may take its time.
        Options { forget_after_ms: 2_000, retry_after_ms: 5_000, page_keys: 64 }
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

impl Found {
    fn cost(&self) -> usize {
        pace::hint_cost(self.bytes)
    }
}

/// What the machine asks of the shell, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Look at what is held of the vnode under these tags, and tell it by [`Handoff::on_found`]. The
    /// page before it is done with.
    Look {
        /// The vnode.
        vnode: VnodeId,
        /// First bytes of hashes.
        tags: Range<u16>,
    },
    /// Send the `nth` of what was found, as it is by now, and tell the answer.
    Send {
        /// Its place in what was found last.
        nth: usize,
        /// The replica.
        to: NodeId,
    },
    /// Forget the `nth` of what was found, unless it is in another state by now.
    Forget {
        /// Its place in what was found last.
        nth: usize,
    },
}

/// An entry of which something is known.
#[derive(Clone, Copy, Debug)]
struct Line {
    /// [`half`] of the digest of the state that this is about.
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
    /// When the first of the entries that all have may be forgotten.
    ripe: Option<Moment>,
}

impl Vault {
    fn all(&self) -> u16 {
        ((1u32 << self.replicas.len()) - 1) as u16
    }

    fn place(&self, node: NodeId) -> Option<usize> {
        self.replicas.iter().position(|&replica| replica == node)
    }

    /// Forgets what is written of an entry.
    fn strike(&mut self, hash: u64) {
        let Some(line) = self.ledger.remove(&hash) else { return };
        for place in places(line.acked) {
            self.uncount(place, &line);
        }
    }

    fn ripens(&mut self, at: Moment) {
        self.ripe = Some(self.ripe.map_or(at, |ripe| ripe.min(at)));
    }

    fn uncount(&mut self, place: usize, line: &Line) {
        let done = &mut self.done[place];
        done.keys = done.keys.saturating_sub(1);
        done.bytes = done.bytes.saturating_sub(line.bytes as usize);
    }

    /// Whether to look at it now: `up` says who is in reach, `open` who of them has room.
    fn is_due(
        &self,
        up: impl Fn(NodeId) -> bool,
        open: impl Fn(NodeId) -> bool,
        now: Moment,
    ) -> bool {
        if self.walk.is_some() {
            // What is looked at when nobody can be sent it is looked at in vain.
            return self.replicas.iter().any(|&node| open(node))
                || !self.replicas.iter().any(|&node| up(node));
        }
        let lacks = |(place, node): (usize, &NodeId)| {
            open(*node) && (self.fresh || self.done[place].keys < self.held.keys)
        };
        now.since(self.rested) >= REST_MS
            && self.held.keys > 0
            && (self.replicas.iter().enumerate().any(lacks)
                || self.ripe.is_some_and(|ripe| ripe <= now))
    }

    /// Whether the replica at `place` lacks an entry and is not being sent it.
    fn lacks(&self, place: usize, entry: &Found) -> bool {
        let line = self.ledger.get(&entry.hash).filter(|line| line.state == half(entry.state));
        line.is_none_or(|line| (line.acked | line.flying) >> place & 1 == 0)
    }

    /// The replica at `place` is sent an entry.
    fn send(&mut self, place: usize, entry: &Found, now: Moment) {
        let (state, bytes) = (half(entry.state), entry.bytes.min(u32::MAX as usize) as u32);
        let fresh = Line { state, acked: 0, flying: 0, bytes, at: now };
        let line = self.ledger.entry(entry.hash).or_insert(fresh);
        line.flying |= 1 << place;
        line.at = now;
    }

    /// Whether all have an entry, and for long enough: then it is to be forgotten.
    fn forgets(&mut self, entry: &Found, options: &Options, now: Moment) -> bool {
        let line = self.ledger.get(&entry.hash).filter(|line| line.state == half(entry.state));
        let Some(line) = line.filter(|line| line.acked == self.all()) else { return false };
        let ripe = Moment(line.at.0 + options.forget_after_ms);
        if now < ripe {
            self.ripens(ripe);
            return false;
        }
        self.strike(entry.hash);
        true
    }
}

/// Half of a digest: chance does not repeat it.
fn half(state: Digest) -> u64 {
    state.0 as u64
}

/// The places whose bits are set.
fn places(bits: u16) -> impl Iterator<Item = usize> {
    (0..REPLICAS_MAX).filter(move |place| bits >> place & 1 == 1)
}

#[derive(Clone, Copy, Default, Debug)]
struct Peer {
    up: bool,
    /// What it may be sent now.
    room: usize,
}

/// What was found last, and how far each replica has come in it.
#[derive(Debug)]
struct Page {
    vnode: VnodeId,
    tags: Range<u16>,
    /// What is forgotten has left its place.
    found: Vec<Option<Found>>,
    /// By the replicas' places, and one more: the next entry to forget, if it may be.
    next: SmallVec<[usize; 5]>,
    /// When it last brought anything.
    moved: Moment,
}

/// Everything that one node holds for others. See the head of this file.
#[derive(Debug)]
pub struct Handoff {
    options: Options,
    vaults: BTreeMap<VnodeId, Vault>,
    peers: BTreeMap<NodeId, Peer>,
    /// The vnode that was looked at last.
    last: Option<VnodeId>,
    page: Option<Page>,
}

impl Handoff {
    /// A node that holds nothing for anybody yet.
    pub fn new(options: Options) -> Handoff {
        let (vaults, peers) = (BTreeMap::new(), BTreeMap::new());
        Handoff { options, vaults, peers, last: None, page: None }
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
        self.vaults.remove(&vnode);
        self.page.take_if(|page| page.vnode == vnode);
    }

    /// `node` is in reach and counts, or is not.
    pub fn on_reach(&mut self, node: NodeId, up: bool, now: Moment) {
        let peer = self.peers.entry(node).or_default();
        match (std::mem::replace(&mut peer.up, up), up) {
            (false, true) => self.vaults.values_mut().for_each(|vault| vault.fresh = true),
            (true, false) => self.on_lost(node, now),
            _ => {}
        }
    }

    /// What `node` may be sent from now on, in [`pace::hint_cost`]: until it is told otherwise.
    pub fn on_room(&mut self, node: NodeId, room: usize) {
        self.peers.entry(node).or_default().room = room;
    }

    /// The link to `node` broke: it may have lost what its log held and was not synced.
    pub fn on_lost(&mut self, node: NodeId, now: Moment) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.up = false;
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

    /// Time passes: sends and forgets some of what was found, or asks to look for more, if there is
    /// anything to do.
    pub fn on_tick(&mut self, now: Moment, out: &mut Vec<Effect>) {
        if let Some(page) = self.page.take() {
            self.turn(page, now, out);
            if !out.is_empty() || self.page.is_some() {
                return;
            }
        }
        let after = self.last.map_or(0, |vnode| vnode.0.saturating_add(1));
        let next = self.vaults.range(VnodeId(after)..).chain(self.vaults.range(..VnodeId(after)));
        let up = |node| self.peers.get(&node).is_some_and(|peer| peer.up);
        let open = |node| self.peers.get(&node).is_some_and(|peer| peer.up && peer.room > 0);
        let due = next.into_iter().find(|(_, vault)| vault.is_due(up, open, now));
        let Some((&vnode, _)) = due else { return };
        self.last = Some(vnode);
        let Some(vault) = self.vaults.get_mut(&vnode) else { return };
        let first = vault.walk.unwrap_or(0);
        if vault.walk.is_none() {
            (vault.fresh, vault.ripe) = (false, None);
        }
        vault.walk = Some(first);
        let step = (usize::from(TAGS) * self.options.page_keys).div_ceil(vault.held.keys.max(1));
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
        let Some(vault) = self.vaults.get_mut(&vnode) else { return };
        for entry in found {
            let state = half(entry.state);
            let known = vault.ledger.get_mut(&entry.hash);
            match known {
                Some(line) if line.state != state => vault.strike(entry.hash),
                // Not answered: it is sent again.
                Some(line) if now.since(line.at) >= self.options.retry_after_ms => line.flying = 0,
                _ => {}
            }
        }
        let next = SmallVec::from_elem(0, vault.replicas.len() + 1);
        let found = found.iter().copied().map(Some).collect();
        self.turn(Page { vnode, tags, found, next, moved: now }, now, out);
    }

    /// Goes on with a page, and keeps it unless it is through.
    fn turn(&mut self, mut page: Page, now: Moment, out: &mut Vec<Effect>) {
        let Handoff { options, vaults, peers, .. } = self;
        let Some(vault) = vaults.get_mut(&page.vnode) else { return };
        let mut is_blocked = false;
        for place in 0..vault.replicas.len() {
            let peer = peers.entry(vault.replicas[place]).or_default();
            let next = &mut page.next[place];
            while *next < page.found.len() && out.len() < TURN_MAX && peer.up {
                let lacked = page.found[*next].filter(|entry| vault.lacks(place, entry));
                if let Some(entry) = lacked {
                    if peer.room == 0 {
                        is_blocked = true;
                        break;
                    }
                    peer.room = peer.room.saturating_sub(entry.cost());
                    vault.send(place, &entry, now);
                    out.push(Effect::Send { nth: *next, to: vault.replicas[place] });
                }
                *next += 1;
            }
        }
        let (next, sent) = (&mut page.next[vault.replicas.len()], out.len());
        let most = TURN_MAX.min(sent + FORGOTTEN_MAX);
        while *next < page.found.len() && out.len() < most {
            let forgotten = page.found[*next].take_if(|entry| vault.forgets(entry, options, now));
            if forgotten.is_some() {
                out.push(Effect::Forget { nth: *next });
            }
            *next += 1;
        }
        if !out.is_empty() {
            page.moved = now;
        }
        // A full turn may have left anybody behind.
        let is_through = out.len() < most && !is_blocked;
        if !is_through && now.since(page.moved) < PATIENCE_MS {
            self.page = Some(page);
            return;
        }
        vault.fresh |= !is_through;
        vault.walk = (page.tags.end < TAGS).then_some(page.tags.end);
        if vault.walk.is_none() {
            vault.rested = now;
        }
    }

    /// `from` has answered for an entry that was sent when it was in `state`: its log holds it, or
    /// (`held` is false) it does not.
    pub fn on_answer(
        &mut self,
        vnode: VnodeId,
        (hash, state): (u64, Digest),
        from: NodeId,
        held: bool,
        now: Moment,
    ) {
        let Some(vault) = self.vaults.get_mut(&vnode) else { return };
        let Some(place) = vault.place(from) else { return };
        let (bit, all) = (1 << place, vault.all());
        let Some(line) = vault.ledger.get_mut(&hash) else { return };
        // What was asked of another state, or given up, or is told twice, means nothing.
        if line.state != half(state) || line.flying & bit == 0 {
            return;
        }
        line.flying &= !bit;
        if !held {
            // Asked again not at once, but with the next walk.
            vault.fresh = true;
            return;
        }
        line.acked |= bit;
        line.at = now;
        let (bytes, whole) = (line.bytes as usize, line.acked == all);
        let done = &mut vault.done[place];
        *done = Sum { keys: done.keys + 1, bytes: done.bytes + bytes };
        if whole {
            vault.ripens(Moment(now.0 + self.options.forget_after_ms));
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
