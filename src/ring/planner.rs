//! The planner: which members hold which vnode, in which order.
//!
//! Dynamo §6.2, strategy 3: vnodes are equal, fixed pieces, and members claim whole ones. A plan
//! is an explicit list for every vnode; the first of the list coordinates. In three steps:
//!
//! ```text
//!  wish    the previous plan, or a walk over the consistent-hash ring (walk.rs)
//!  who     least-cost flow: source ─▶ vnode ─▶ zone of the vnode ─▶ member ─▶ sink
//!                                  N      even part      once     its share, rounded
//!          a replica where it was costs 0, a moved one 1
//!  first   least-cost flow: vnode ─▶ one of its replicas ─▶ its share of first places
//! ```
//!
//! Invariants: replicas of a vnode are distinct; zones hold even parts of each; a member is in
//! as many lists as its share (share.rs) rounded down or up; no plan with these loads moves
//! less; equal arguments give equal plans, everywhere.

use crate::base::id::{NodeId, VnodeId};

use super::flow::{ArcId, Flow, Point};
use super::member::Member;
use super::share::{Claimant, Spread, around, shares};
use super::walk::{Walker, affinity, walk};

/// An ordered replica list for every vnode.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Assignment {
    /// By vnode. The first of a list is its coordinator.
    pub lists: Vec<Vec<NodeId>>,
}

impl Assignment {
    /// In how many lists `node` is.
    pub fn load(&self, node: NodeId) -> usize {
        self.lists.iter().filter(|list| list.contains(&node)).count()
    }

    /// How many vnodes `node` coordinates.
    pub fn coordinated(&self, node: NodeId) -> usize {
        self.lists.iter().filter(|list| list.first() == Some(&node)).count()
    }

    /// How many replicas must be filled to come here from `previous`.
    pub fn moves_from(&self, previous: &Assignment) -> usize {
        let moved = |(vnode, list): (usize, &Vec<NodeId>)| {
            let old = previous.lists.get(vnode).map_or(&[][..], Vec::as_slice);
            list.iter().filter(|node| !old.contains(node)).count()
        };
        self.lists.iter().enumerate().map(moved).sum()
    }
}

/// What a replica costs that was not there before.
const MOVE: i64 = 1;

/// What a unit above the rounded-down share costs: more than any chain of moves that avoids it.
const ABOVE_SHARE: i64 = 1 << 24;

/// Plans `n` replicas of each of `vnodes` vnodes (a power of two) on `members`, moving as little
/// as possible from `previous`. Members of weight 0 get nothing; N is capped by the number of
/// the others. A `previous` of another number of vnodes is not heeded.
pub fn plan(
    members: &[Member],
    vnodes: u16,
    n: usize,
    previous: Option<&Assignment>,
) -> Assignment {
    let site = Site::new(members, n, vnodes);
    let wish = previous
        .filter(|previous| previous.lists.len() == usize::from(vnodes))
        .map_or_else(|| site.walked(), |previous| site.known(previous));
    let sets = site.choose(&wish);
    let firsts = site.choose_firsts(&sets, &wish);
    Assignment {
        lists: (0..vnodes)
            .map(|vnode| site.list(VnodeId(vnode), &sets[vnode as usize], firsts[vnode as usize]))
            .collect(),
    }
}

/// Lists by index into [`Site::walkers`].
type Lists = Vec<Vec<usize>>;

/// The members that claim, with zones as numbers.
struct Site {
    walkers: Vec<Walker>,
    spread: Spread,
    n: usize,
    vnodes: u16,
}

impl Site {
    fn new(members: &[Member], n: usize, vnodes: u16) -> Site {
        let mut claiming: Vec<&Member> = members.iter().filter(|one| one.weight > 0).collect();
        claiming.sort_by_key(|member| member.node);
        let mut zones: Vec<&str> = claiming.iter().map(|member| member.zone.as_str()).collect();
        zones.sort_unstable();
        zones.dedup();
        let walkers: Vec<Walker> = claiming
            .iter()
            .map(|member| Walker {
                node: member.node,
                weight: member.weight,
                zone: zones.partition_point(|zone| *zone < member.zone.as_str()),
            })
            .collect();
        let mut sizes = vec![0; zones.len()];
        walkers.iter().for_each(|walker| sizes[walker.zone] += 1);
        let n = n.min(walkers.len());
        Site { spread: Spread::new(&sizes, n), walkers, n, vnodes }
    }

    fn walked(&self) -> Lists {
        walk(&self.walkers, &self.spread, self.n, self.vnodes)
    }

    /// What of a previous plan is still there.
    fn known(&self, previous: &Assignment) -> Lists {
        let index =
            |node: &NodeId| self.walkers.binary_search_by_key(node, |walker| walker.node).ok();
        previous.lists.iter().map(|list| list.iter().filter_map(index).collect()).collect()
    }

    /// Vnodes in an order that keeps neighbours apart, so that what the flow decides by order is
    /// not decided alike for a whole stretch of the ring.
    fn scattered(&self) -> impl Iterator<Item = usize> {
        let bits = self.vnodes.trailing_zeros();
        (0..u32::from(self.vnodes)).map(move |place| {
            place.reverse_bits().checked_shr(u32::BITS - bits).unwrap_or(0) as usize
        })
    }

    /// Walkers in the order of their affinity to `vnode`.
    fn by_affinity(&self, vnode: VnodeId) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.walkers.len()).collect();
        order.sort_by_cached_key(|&walker| affinity(vnode, self.walkers[walker].node));
        order
    }

    /// Who holds which vnode.
    fn choose(&self, wish: &Lists) -> Lists {
        let (zones, vnodes) = (self.spread.base.len(), usize::from(self.vnodes));
        let (source, sink, members) = (0, 1, 2);
        let vnode_points = members + self.walkers.len();
        let stride = 2 + zones;
        let mut flow = Flow::new(vnode_points + vnodes * stride);
        let mut replicas: Vec<Vec<(usize, ArcId)>> = vec![Vec::new(); vnodes];
        for vnode in self.scattered() {
            let point = vnode_points + vnode * stride;
            flow.arc(source, point, self.n as u32, 0);
            let zone_points = self.spread_over_zones(&mut flow, point);
            for walker in self.by_affinity(VnodeId(vnode as u16)) {
                let zone = zone_points + self.walkers[walker].zone;
                let cost = if wish[vnode].contains(&walker) { 0 } else { MOVE };
                replicas[vnode].push((walker, flow.arc(zone, members + walker, 1, cost)));
            }
        }
        for (walker, share) in self.shares().into_iter().enumerate() {
            let (least, most) = around(share);
            flow.arc(members + walker, sink, least, 0);
            flow.arc(members + walker, sink, most - least, ABOVE_SHARE);
        }
        let sent = flow.run(source, sink);
        // Shares themselves are a way to send everything, and where real numbers fit, whole
        // numbers around them fit (all walls are whole).
        assert_eq!(sent, (vnodes * self.n) as u64, "the shares leave room for every replica");
        chosen(&flow, &replicas)
    }

    /// Lays the zones' even parts of one vnode: `base` each, one more for `extras` of them.
    /// Returns the point of the first zone.
    fn spread_over_zones(&self, flow: &mut Flow, vnode: Point) -> Point {
        let (more, zone_points) = (vnode + 1, vnode + 2);
        flow.arc(vnode, more, self.spread.extras as u32, 0);
        for (zone, &base) in self.spread.base.iter().enumerate() {
            flow.arc(vnode, zone_points + zone, base as u32, 0);
            if self.spread.may_more[zone] {
                flow.arc(more, zone_points + zone, 1, 0);
            }
        }
        zone_points
    }

    fn shares(&self) -> Vec<f64> {
        let claimants: Vec<Claimant> = self
            .walkers
            .iter()
            .map(|walker| Claimant { weight: walker.weight, zone: walker.zone })
            .collect();
        shares(&claimants, &self.spread, usize::from(self.vnodes))
    }

    /// Who of each set comes first. Where sets make a share impossible (a small zone, a strong
    /// member), the surplus costs more with each unit and so spreads over many.
    fn choose_firsts(&self, sets: &Lists, wish: &Lists) -> Vec<Option<usize>> {
        let (source, sink, members) = (0, 1, 2);
        let vnode_points = members + self.walkers.len();
        let mut flow = Flow::new(vnode_points + sets.len());
        let mut places: Vec<Vec<(usize, ArcId)>> = vec![Vec::new(); sets.len()];
        for vnode in self.scattered() {
            flow.arc(source, vnode_points + vnode, 1, 0);
            for &walker in &sets[vnode] {
                let cost = if wish[vnode].first() == Some(&walker) { 0 } else { MOVE };
                let arc = flow.arc(vnode_points + vnode, members + walker, 1, cost);
                places[vnode].push((walker, arc));
            }
        }
        let weights: f64 = self.walkers.iter().map(|walker| f64::from(walker.weight)).sum();
        for (walker, Walker { weight, .. }) in self.walkers.iter().enumerate() {
            let (least, most) = around(f64::from(self.vnodes) * f64::from(*weight) / weights);
            let held = sets.iter().filter(|set| set.contains(&walker)).count() as u32;
            flow.arc(members + walker, sink, least, 0);
            for above in least..held.max(least) {
                let steps = i64::from(above.saturating_sub(most.saturating_sub(1)));
                flow.arc(members + walker, sink, 1, ABOVE_SHARE * (1 + steps));
            }
        }
        flow.run(source, sink);
        chosen(&flow, &places).into_iter().map(|one| one.first().copied()).collect()
    }

    /// The first, then the others by affinity: a later plan with the same set has the same list,
    /// and the stand-ins of one member's vnodes are many.
    fn list(&self, vnode: VnodeId, set: &[usize], first: Option<usize>) -> Vec<NodeId> {
        let mut list: Vec<NodeId> = set.iter().map(|&walker| self.walkers[walker].node).collect();
        let first = first.map(|walker| self.walkers[walker].node);
        list.sort_by_key(|&node| (Some(node) != first, affinity(vnode, node)));
        list
    }
}

/// The walkers whose arcs carry a unit.
fn chosen(flow: &Flow, arcs: &[Vec<(usize, ArcId)>]) -> Lists {
    let carrying = |&(walker, arc): &(usize, ArcId)| (flow.units(arc) > 0).then_some(walker);
    arcs.iter().map(|arcs| arcs.iter().filter_map(carrying).collect()).collect()
}

#[cfg(test)]
mod tests;
