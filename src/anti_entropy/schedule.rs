//! Which vnode a node compares next with which peer, and how much it may send for that.
//!
//! ```text
//!   a vnode that does not count until it is restored      recovering   at once, whole
//!   a vnode in which something may have been missed       owed         at once
//!   a vnode that an operator named                        asked        when neither is left
//!   every vnode in turn                                   periodic     one each interval ÷ vnodes
//! ```
//!
//! Invariant: a lower need never goes before a higher one, and a vnode is compared with one peer
//! only once at a time (the shell says which are under way).
//!
//! Of the two replicas that share a vnode one begins the periodic comparison, since an exchange
//! mends both; the vnode's number says which, so that each begins half of them. What is asked for
//! goes twice over all peers: only in the second pass has this node learned from all of them what it
//! can tell each. (When nothing is left to tell, that pass costs one message a vnode.)

use std::collections::BTreeMap;

use crate::base::id::{NodeId, VnodeId};
use crate::base::time::Moment;

/// Passes of what is asked for.
const PASSES: u8 = 2;

/// How much earlier or later than its turn a periodic comparison comes, in parts of a hundred: so
/// that nodes that started together do not stay in step.
const JITTER_PERCENT: u64 = 25;

/// Why a vnode is compared.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Need {
    /// It counts again only when it is restored.
    Recovering,
    /// Something may have been missed.
    Owed,
    /// An operator wants it.
    Asked,
    /// It was its turn.
    Periodic,
}

/// What has to be done at once with a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Urgent {
    /// A vnode that is recovering and may learn from that peer.
    pub recovering: Option<VnodeId>,
    /// A vnode in which something of that peer may have been missed.
    pub owed: Option<VnodeId>,
}

#[derive(Clone, Debug)]
struct Round {
    vnodes: Vec<VnodeId>,
    at: usize,
    due: Moment,
}

/// See the head of this file.
#[derive(Clone, Debug)]
pub struct Schedule {
    interval_ms: u64,
    chance: u64,
    rounds: BTreeMap<NodeId, Round>,
    /// Passes that are left.
    asked: BTreeMap<VnodeId, BTreeMap<NodeId, u8>>,
}

/// Whether `me` begins the periodic comparison of a vnode that it shares with `peer`.
pub const fn begins(me: NodeId, peer: NodeId, vnode: VnodeId) -> bool {
    let lower = me.0 < peer.0;
    let even = (vnode.0 ^ me.0 ^ peer.0) & 1 == 0;
    lower == even
}

impl Schedule {
    /// A schedule in which every vnode comes up once in `interval_ms` with every peer; 0: never by
    /// itself. `chance` is any number.
    pub fn new(interval_ms: u64, chance: u64) -> Schedule {
        Schedule { interval_ms, chance, rounds: BTreeMap::new(), asked: BTreeMap::new() }
    }

    /// A link to `peer` is up at `now`; `vnodes` are those to begin comparing with it in turn.
    pub fn on_peer(&mut self, peer: NodeId, vnodes: Vec<VnodeId>, now: Moment) {
        let round = Round { at: 0, due: now, vnodes };
        self.rounds.insert(peer, round);
        self.put_off(peer, now);
    }

    /// The link to `peer` broke: nothing can be compared with it. Returns how many comparisons
    /// that were asked for are given up.
    pub fn on_lost(&mut self, peer: NodeId) -> usize {
        self.rounds.remove(&peer);
        let before = self.asked_left();
        for peers in self.asked.values_mut() {
            peers.remove(&peer);
        }
        self.asked.retain(|_, peers| !peers.is_empty());
        before - self.asked_left()
    }

    /// An operator wants `vnode` compared with `peer`. Returns how many comparisons that makes
    /// more.
    pub fn ask(&mut self, peer: NodeId, vnode: VnodeId) -> usize {
        let left = self.asked.entry(vnode).or_default().insert(peer, PASSES);
        usize::from(PASSES - left.unwrap_or(0))
    }

    /// What to compare next with `peer` at `now`, if anything. `is_busy`: which vnodes are being
    /// compared with it.
    pub fn next(
        &mut self,
        peer: NodeId,
        now: Moment,
        urgent: Urgent,
        is_busy: impl Fn(VnodeId) -> bool,
    ) -> Option<(VnodeId, Need)> {
        let found = |vnode: Option<VnodeId>, need| vnode.map(|vnode| (vnode, need));
        found(urgent.recovering, Need::Recovering)
            .or_else(|| found(urgent.owed, Need::Owed))
            .or_else(|| found(self.next_asked(peer, &is_busy), Need::Asked))
            .or_else(|| found(self.next_periodic(peer, now, &is_busy), Need::Periodic))
    }

    /// A comparison that was asked for is through. Returns whether it was still wanted.
    pub fn on_done(&mut self, peer: NodeId, vnode: VnodeId) -> bool {
        let Some(peers) = self.asked.get_mut(&vnode) else { return false };
        let Some(left) = peers.get_mut(&peer) else { return false };
        *left -= 1;
        if *left == 0 {
            peers.remove(&peer);
        }
        if peers.is_empty() {
            self.asked.remove(&vnode);
        }
        true
    }

    /// How many comparisons are left of what was asked for.
    pub fn asked_left(&self) -> usize {
        self.asked.values().flat_map(BTreeMap::values).map(|&left| usize::from(left)).sum()
    }

    /// When something falls due with `peer` by itself.
    pub fn due(&self, peer: NodeId) -> Option<Moment> {
        self.rounds.get(&peer).filter(|round| self.is_periodic(round)).map(|round| round.due)
    }

    fn is_periodic(&self, round: &Round) -> bool {
        self.interval_ms > 0 && !round.vnodes.is_empty()
    }

    fn next_asked(&self, peer: NodeId, is_busy: &impl Fn(VnodeId) -> bool) -> Option<VnodeId> {
        let is_next = |peers: &BTreeMap<NodeId, u8>| {
            peers.contains_key(&peer) && peers.get(&peer) == peers.values().max()
        };
        let mut all = self.asked.iter().filter(|(vnode, _)| !is_busy(**vnode));
        all.find(|(_, peers)| is_next(peers)).map(|(vnode, _)| *vnode)
    }

    fn next_periodic(
        &mut self,
        peer: NodeId,
        now: Moment,
        is_busy: &impl Fn(VnodeId) -> bool,
    ) -> Option<VnodeId> {
        let due = self.due(peer).is_some_and(|due| due <= now);
        let round = self.rounds.get_mut(&peer).filter(|_| due)?;
        let vnode = round.vnodes[round.at % round.vnodes.len()];
        round.at = (round.at + 1) % round.vnodes.len();
        self.put_off(peer, now);
        (!is_busy(vnode)).then_some(vnode)
    }

    /// The next turn with `peer`, counted from now: what could not be done in time is not made up.
    fn put_off(&mut self, peer: NodeId, now: Moment) {
        let Some(round) = self.rounds.get_mut(&peer) else { return };
        let step = self.interval_ms / round.vnodes.len().max(1) as u64;
        // A xorshift generator (Marsaglia, 2003) is chance enough.
        self.chance |= 1;
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        let spread = 100 - JITTER_PERCENT + self.chance % (2 * JITTER_PERCENT + 1);
        round.due = Moment(now.0 + (step * spread / 100).max(1));
    }
}

/// How many bytes may be sent: a bucket of tokens that fills at a rate.
///
/// Whoever finds it in debt waits; whoever does not may send as much as it has at hand. So a large
/// entry passes, and what comes behind it waits longer.
#[derive(Clone, Debug)]
pub struct Budget {
    rate: u64,
    tokens: i64,
    at: Moment,
}

/// A quiet bucket fills up for so long.
const BURST_MS: u64 = 100;

/// A huge entry is not charged for more than so long: silence must not look like death.
const DEBT_MS_MAX: u64 = 10_000;

impl Budget {
    /// `rate` bytes a second; 0: no limit.
    pub const fn new(rate: u64) -> Budget {
        Budget { rate, tokens: 0, at: Moment(0) }
    }

    /// Milliseconds to wait before anything may be sent; 0: send.
    pub fn wait_ms(&mut self, now: Moment) -> u64 {
        if self.rate == 0 {
            return 0;
        }
        let full = (self.rate * BURST_MS / 1_000) as i64;
        let came = (u128::from(self.rate) * u128::from(now.since(self.at)) / 1_000) as i64;
        if came > 0 {
            self.tokens = self.tokens.saturating_add(came).min(full);
            self.at = self.at.max(now);
        }
        if self.tokens >= 0 { 0 } else { (self.tokens.unsigned_abs() * 1_000).div_ceil(self.rate) }
    }

    /// So many bytes were sent.
    pub fn spend(&mut self, bytes: usize) {
        let most = (self.rate * (DEBT_MS_MAX / 1_000)) as i64;
        self.tokens = self.tokens.saturating_sub(bytes as i64).max(-most);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const P: NodeId = NodeId(2);
    const Q: NodeId = NodeId(3);

    fn vnodes(count: u16) -> Vec<VnodeId> {
        (0..count).map(VnodeId).collect()
    }

    fn idle(_: VnodeId) -> bool {
        false
    }

    #[test]
    fn the_higher_need_goes_first() {
        let mut schedule = Schedule::new(100, 7);
        schedule.on_peer(P, vnodes(1), Moment(0));
        schedule.ask(P, VnodeId(4));
        let urgent = Urgent { recovering: Some(VnodeId(9)), owed: Some(VnodeId(8)) };
        let late = Moment(1_000);
        let mut next = |urgent| schedule.next(P, late, urgent, idle);
        assert_eq!(next(urgent), Some((VnodeId(9), Need::Recovering)));
        let urgent = Urgent { recovering: None, ..urgent };
        assert_eq!(next(urgent), Some((VnodeId(8), Need::Owed)));
        assert_eq!(next(Urgent::default()), Some((VnodeId(4), Need::Asked)));
        assert!(schedule.on_done(P, VnodeId(4)) && schedule.on_done(P, VnodeId(4)));
        assert!(!schedule.on_done(P, VnodeId(4)));
        let next = schedule.next(P, late, Urgent::default(), idle);
        assert_eq!(next, Some((VnodeId(0), Need::Periodic)));
        assert_eq!(schedule.next(P, late, Urgent::default(), idle), None, "one at a time");
    }

    #[test]
    fn in_an_interval_every_vnode_has_its_turn() {
        let mut schedule = Schedule::new(10_000, 1);
        schedule.on_peer(P, vnodes(256), Moment(0));
        let (mut seen, mut turns) = (BTreeSet::new(), 0);
        for now in 0..12_500 {
            if let Some((vnode, need)) = schedule.next(P, Moment(now), Urgent::default(), idle) {
                assert_eq!(need, Need::Periodic);
                seen.insert(vnode);
                turns += 1;
            }
        }
        assert_eq!(seen.len(), 256);
        assert!((256..=420).contains(&turns), "{turns}");
        // After a pause nothing is made up.
        let mut after = |ms: u64| schedule.next(P, Moment(60_000 + ms), Urgent::default(), idle);
        assert!(after(0).is_some() && after(0).is_none() && after(1).is_none());
    }

    #[test]
    fn without_an_interval_nothing_comes_by_itself() {
        let mut schedule = Schedule::new(0, 1);
        schedule.on_peer(P, vnodes(4), Moment(0));
        assert_eq!(schedule.next(P, Moment(1 << 40), Urgent::default(), idle), None);
        assert_eq!(schedule.due(P), None);
    }

    #[test]
    fn one_of_two_begins() {
        for (a, b) in [(1, 2), (2, 9), (7, 3)] {
            let counts = (0..256).filter(|&v| begins(NodeId(a), NodeId(b), VnodeId(v))).count();
            assert_eq!(counts, 128);
            for vnode in (0..256).map(VnodeId) {
                let ours = begins(NodeId(a), NodeId(b), vnode);
                assert_ne!(ours, begins(NodeId(b), NodeId(a), vnode));
            }
        }
    }

    #[test]
    fn the_second_pass_waits_for_the_first_with_all_peers() {
        let mut schedule = Schedule::new(0, 1);
        let v = VnodeId(5);
        assert_eq!((schedule.ask(P, v), schedule.ask(Q, v), schedule.ask(P, v)), (2, 2, 0));
        let next =
            |schedule: &mut Schedule, peer| schedule.next(peer, Moment(0), Urgent::default(), idle);
        assert!(next(&mut schedule, P).is_some());
        assert_eq!(schedule.next(P, Moment(0), Urgent::default(), |_| true), None, "under way");
        schedule.on_done(P, v);
        assert_eq!(next(&mut schedule, P), None);
        schedule.on_done(Q, v);
        assert!(next(&mut schedule, P).is_some() && next(&mut schedule, Q).is_some());
        assert_eq!(schedule.asked_left(), 2);
        assert_eq!(schedule.on_lost(Q), 1);
        schedule.on_done(P, v);
        assert_eq!(schedule.asked_left(), 0);
    }

    #[test]
    fn a_budget_is_kept_over_time_whatever_the_sizes() {
        let mut budget = Budget::new(1_000_000);
        let (mut now, mut sent) = (0, 0u64);
        for size in [10, 200_000, 5_000, 1, 90_000].into_iter().cycle().take(500) {
            now += budget.wait_ms(Moment(now));
            assert_eq!(budget.wait_ms(Moment(now)), 0);
            budget.spend(size);
            sent += size as u64;
        }
        let rate = sent * 1_000 / now;
        assert!((990_000..1_030_000).contains(&rate), "{rate}");
        budget.spend(1 << 40);
        assert!(budget.wait_ms(Moment(now)) <= DEBT_MS_MAX);
        let mut unlimited = Budget::new(0);
        unlimited.spend(usize::MAX);
        assert_eq!(unlimited.wait_ms(Moment(0)), 0);
    }
}
