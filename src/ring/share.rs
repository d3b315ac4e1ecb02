//! What is each member's fair share of the replicas, given weights and zones.
//!
//! Shares follow weights, like water finding one level, between two kinds of wall: a member
//! holds a vnode at most once, and a zone holds of every vnode an even part. A wall that binds
//! (one strong member, one small zone) spills its surplus over the others by their weights.

/// How the `n` replicas of one vnode spread over zones: every zone has `base` of them, and
/// `extras` of the zones marked `may_more` have one more.
#[derive(Debug)]
pub(super) struct Spread {
    /// Replicas of every vnode that a zone surely has.
    pub(super) base: Vec<usize>,
    /// Whether a zone may have one more.
    pub(super) may_more: Vec<bool>,
    /// How many zones have one more.
    pub(super) extras: usize,
}

impl Spread {
    /// The most even spread of `n` replicas over zones of these sizes; `n` ≤ their sum.
    pub(super) fn new(sizes: &[usize], n: usize) -> Spread {
        let held = |level: usize| sizes.iter().map(|&size| size.min(level)).sum::<usize>();
        let level = (0..=n).take_while(|&level| held(level) <= n).last().unwrap_or(0);
        Spread {
            base: sizes.iter().map(|&size| size.min(level)).collect(),
            may_more: sizes.iter().map(|&size| size > level && n > held(level)).collect(),
            extras: n - held(level),
        }
    }

    /// The most replicas of one vnode in `zone`.
    pub(super) fn most(&self, zone: usize) -> usize {
        self.base[zone] + usize::from(self.may_more[zone])
    }
}

/// A member as the shares see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claimant {
    /// Relative capacity, above 0.
    pub(super) weight: u32,
    /// Its zone's index.
    pub(super) zone: usize,
}

/// Each claimant's share of all replicas: vnodes that it should be in, as a real number.
pub(super) fn shares(claimants: &[Claimant], spread: &Spread, vnodes: usize) -> Vec<f64> {
    let full = vnodes as f64;
    let zones = spread.base.len();
    let weights_of = |zone: usize| {
        claimants.iter().filter(move |one| one.zone == zone).map(|one| f64::from(one.weight))
    };
    let filled = |zone: usize, level: f64| {
        weights_of(zone).map(|weight| (weight * level).min(full)).sum::<f64>()
    };
    let zone_share = |zone: usize, level: f64| {
        let (least, most) = (spread.base[zone] as f64 * full, spread.most(zone) as f64 * full);
        filled(zone, level).clamp(least, most)
    };
    let total = full * (spread.base.iter().sum::<usize>() + spread.extras) as f64;
    let level = level_at(full, total, |level| (0..zones).map(|zone| zone_share(zone, level)).sum());
    let levels: Vec<f64> = (0..zones)
        .map(|zone| level_at(full, zone_share(zone, level), |level| filled(zone, level)))
        .collect();
    claimants.iter().map(|one| (f64::from(one.weight) * levels[one.zone]).min(full)).collect()
}

/// The level in `0..=top` at which `volume`, which rises with it, is `wanted`. (Weights are at
/// least 1, so at level `top` every claimant is full.)
fn level_at(top: f64, wanted: f64, volume: impl Fn(f64) -> f64) -> f64 {
    let (mut low, mut high) = (0.0, top);
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        if volume(middle) < wanted { low = middle } else { high = middle }
    }
    high
}

/// Shares come out of a bisection: this far from a whole number is that number.
const HAIR: f64 = 1e-6;

/// The two whole numbers around a share; one number twice if the share is whole.
pub(super) fn around(share: f64) -> (u32, u32) {
    ((share + HAIR).floor() as u32, (share - HAIR).ceil().max(0.0) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_is_as_even_as_sizes_allow() {
        let spread = |sizes: &[usize], n| {
            let spread = Spread::new(sizes, n);
            (spread.base, spread.extras)
        };
        assert_eq!(spread(&[5], 3), (vec![3], 0));
        assert_eq!(spread(&[2, 2, 2], 3), (vec![1, 1, 1], 0));
        assert_eq!(spread(&[2, 2, 2, 2], 3), (vec![0, 0, 0, 0], 3));
        assert_eq!(spread(&[4, 4], 3), (vec![1, 1], 1));
        assert_eq!(spread(&[1, 5], 4), (vec![1, 3], 0));
        assert_eq!(spread(&[1, 3, 3], 4), (vec![1, 1, 1], 1));
        assert!(!Spread::new(&[1, 3, 3], 4).may_more[0]);
        assert!(!Spread::new(&[2, 2, 2], 3).may_more[0], "nothing is left to be had");
    }

    fn shares_of(members: &[(u32, usize)], n: usize) -> Vec<f64> {
        let claimants: Vec<Claimant> =
            members.iter().map(|&(weight, zone)| Claimant { weight, zone }).collect();
        let zones = members.iter().map(|one| one.1 + 1).max().unwrap();
        let sizes: Vec<usize> =
            (0..zones).map(|zone| members.iter().filter(|one| one.1 == zone).count()).collect();
        let exact = shares(&claimants, &Spread::new(&sizes, n), 120);
        exact.iter().map(|share| (share * 1e3).round() / 1e3).collect()
    }

    #[test]
    fn shares_follow_weights_between_walls() {
        assert_eq!(shares_of(&[(1, 0), (1, 0), (2, 0)], 1), [30.0, 30.0, 60.0]);
        // The strong member is full at 120; the rest is shared by the others.
        assert_eq!(shares_of(&[(9, 0), (1, 0), (1, 0)], 2), [120.0, 60.0, 60.0]);
        // Three zones, three replicas: each zone has all vnodes, however small it is.
        assert_eq!(shares_of(&[(1, 0), (1, 0), (1, 1), (1, 2)], 3), [60.0, 60.0, 120.0, 120.0]);
        // Two zones, three replicas: each zone has one or two of every vnode, and by weight.
        let two = [(1, 0), (1, 0), (1, 1), (1, 1), (1, 1), (1, 1)];
        assert_eq!(shares_of(&two, 3), [60.0; 6]);
        // A zone of one member cannot have two of a vnode.
        assert_eq!(shares_of(&[(1, 0), (1, 1), (1, 1), (1, 1)], 3), [120.0, 80.0, 80.0, 80.0]);
    }

    #[test]
    fn hairs_do_not_count() {
        assert_eq!(around(76.999_999_99), (77, 77));
        assert_eq!(around(77.000_000_01), (77, 77));
        assert_eq!(around(76.5), (76, 77));
        assert_eq!(around(0.0), (0, 0));
    }
}
