//! What a plan promises (invariant 20), for clusters that join, leave, and change weights and zones.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Members from (id, weight, zone).
fn members(rows: &[(u16, u32, u8)]) -> Vec<Member> {
    rows.iter()
        .map(|&(id, weight, zone)| Member {
            weight,
            zone: format!("z{zone}"),
            ..Member::new(NodeId(id), "127.0.0.1", id)
        })
        .collect()
}

fn site(members: &[Member], n: usize, vnodes: u16) -> Site {
    Site::new(members, n, vnodes)
}

/// Everything that must hold of any single plan.
fn check(members: &[Member], vnodes: u16, n: usize, plan: &Assignment) {
    let site = site(members, n, vnodes);
    assert_eq!(plan.lists.len(), usize::from(vnodes));
    for list in &plan.lists {
        assert_eq!(list.len(), site.n, "N, capped by the members that claim");
        let mut distinct = list.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), list.len(), "replicas are distinct");
        check_zones(&site, list);
    }
    for (walker, share) in site.walkers.iter().zip(site.shares()) {
        let load = plan.load(walker.node) as f64;
        assert!((load - share).abs() < 1.0, "{} holds {load} of its {share}", walker.node);
    }
}

/// Zones are as even as their sizes allow: none could give one to another and be better for it.
fn check_zones(site: &Site, list: &[NodeId]) {
    let zones = site.spread.base.len();
    let (mut held, mut sizes) = (vec![0usize; zones], vec![0usize; zones]);
    for walker in &site.walkers {
        sizes[walker.zone] += 1;
        held[walker.zone] += usize::from(list.contains(&walker.node));
    }
    for (from, &many) in held.iter().enumerate() {
        for (to, &few) in held.iter().enumerate() {
            assert!(many <= few + 1 || few == sizes[to], "{held:?} of {sizes:?}: {from} to {to}");
        }
    }
}

/// The moves no plan can do without: what members hold too little of.
fn moves_least(site: &Site, previous: &Assignment) -> f64 {
    let lacks = |(walker, share): (&Walker, f64)| {
        (share.floor() - previous.load(walker.node) as f64).max(0.0)
    };
    site.walkers.iter().zip(site.shares()).map(lacks).sum()
}

/// A roster: distinct ids, weights, zones.
fn roster(sizes: std::ops::Range<usize>, zones: u8) -> impl Strategy<Value = Vec<(u16, u32, u8)>> {
    proptest::collection::btree_map(1u16..60, (1u32..5, 0..zones), sizes)
        .prop_map(|map| map.into_iter().map(|(id, (weight, zone))| (id, weight, zone)).collect())
}

fn vnode_counts() -> impl Strategy<Value = u16> {
    (0u32..8).prop_map(|bits| 1 << bits)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(160))]

    #[test]
    fn a_first_plan_keeps_its_promises(
        rows in roster(1..10, 4), n in 1usize..6, vnodes in vnode_counts(),
    ) {
        let members = members(&rows);
        let first = plan(&members, vnodes, n, None);
        check(&members, vnodes, n, &first);
        let mut shuffled = members.clone();
        shuffled.reverse();
        prop_assert_eq!(&first, &plan(&shuffled, vnodes, n, None), "the order of members is nothing");
        prop_assert_eq!(&first, &plan(&members, vnodes, n, Some(&first)), "a good plan stays");
    }

    #[test]
    fn any_change_keeps_its_promises(
        before in roster(1..8, 3), after in roster(1..8, 3),
        n in 1usize..5, then in 1usize..5, vnodes in vnode_counts(),
    ) {
        let (before, after) = (members(&before), members(&after));
        let first = plan(&before, vnodes, n, None);
        let second = plan(&after, vnodes, then, Some(&first));
        check(&after, vnodes, then, &second);
        prop_assert_eq!(&second, &plan(&after, vnodes, then, Some(&second)), "and it stays");
    }

    /// Members of one zone: a join, a leave or a new weight moves what it must and a hair more.
    #[test]
    fn moves_are_few(
        rows in roster(2..9, 1), newcomer in (60u16..70, 1u32..5, 0u8..1), n in 1usize..4, change in 0..3,
    ) {
        let vnodes = 128;
        let mut changed = rows.clone();
        match change {
            0 => changed.push(newcomer),
            1 => { changed.remove(0); }
            _ => changed[0].1 += 2,
        }
        let (before, after) = (members(&rows), members(&changed));
        let first = plan(&before, vnodes, n, None);
        let second = plan(&after, vnodes, n, Some(&first));
        let site = site(&after, n, vnodes);
        // Who is in nearly every list leaves the others little choice of partners, and what is
        // least then is more than a count of what members lack.
        prop_assume!(site.shares().iter().all(|&share| share < 0.75 * f64::from(vnodes)));
        let least = moves_least(&site, &first);
        let hair = after.len() as f64;
        let moves = second.moves_from(&first) as f64;
        prop_assert!(moves <= least + hair, "{moves} moves where {least} would do");
    }

    /// Without walls every member coordinates its share.
    #[test]
    fn coordinators_follow_weights(
        rows in roster(1..9, 1), n in 1usize..4, vnodes in vnode_counts(),
    ) {
        let members = members(&rows);
        let walls = site(&members, n, vnodes).shares().iter().any(|&share| share >= f64::from(vnodes));
        prop_assume!(!walls);
        let plan = plan(&members, vnodes, n, None);
        let weights: u32 = rows.iter().map(|row| row.1).sum();
        for (id, weight, _) in rows {
            let share = f64::from(vnodes) * f64::from(weight) / f64::from(weights);
            let load = plan.coordinated(NodeId(id)) as f64;
            prop_assert!((load - share).abs() < 1.0, "n{id} coordinates {load} of its {share}");
        }
    }
}

#[test]
fn zones_that_suffice_hold_one_replica_each() {
    let members =
        members(&[(1, 1, 0), (2, 1, 0), (3, 1, 1), (4, 1, 1), (5, 1, 2), (6, 1, 2), (7, 1, 3)]);
    for list in plan(&members, 256, 3, None).lists {
        let zones: BTreeMap<&str, usize> = list.iter().fold(BTreeMap::new(), |mut zones, node| {
            let member = members.iter().find(|member| member.node == *node).unwrap();
            *zones.entry(member.zone.as_str()).or_default() += 1;
            zones
        });
        assert_eq!(zones.len(), 3);
    }
}

#[test]
fn a_zone_that_must_hold_everything_does_and_coordinators_stay_even() {
    let members = members(&[(1, 1, 0), (2, 1, 0), (3, 1, 0), (4, 1, 1), (5, 1, 2)]);
    let plan = plan(&members, 240_u16.next_power_of_two(), 3, None);
    assert_eq!((plan.load(NodeId(4)), plan.load(NodeId(5))), (256, 256));
    for node in 1..=5 {
        assert!(plan.coordinated(NodeId(node)).abs_diff(51) <= 1);
    }
}

#[test]
fn a_member_of_weight_nothing_holds_nothing() {
    let mut rows = members(&[(1, 1, 0), (2, 1, 0), (3, 1, 0), (4, 1, 0)]);
    let first = plan(&rows, 64, 3, None);
    rows[3].weight = 0;
    let second = plan(&rows, 64, 3, Some(&first));
    assert_eq!(second.load(NodeId(4)), 0);
    assert_eq!(second.moves_from(&first), first.load(NodeId(4)), "only what it held moves");
    rows.iter_mut().for_each(|row| row.weight = 0);
    assert!(plan(&rows, 64, 3, None).lists.iter().all(Vec::is_empty));
}

/// When one of many members is lost, what it coordinated falls to many.
#[test]
fn a_loss_is_shared() {
    let members = members(&[(1, 1, 0), (2, 1, 0), (3, 1, 0), (4, 1, 0), (5, 1, 0), (6, 1, 0)]);
    let plan = plan(&members, 256, 3, None);
    let mut heirs: BTreeMap<NodeId, usize> = BTreeMap::new();
    for list in plan.lists.iter().filter(|list| list[0] == NodeId(1)) {
        *heirs.entry(list[1]).or_default() += 1;
    }
    assert_eq!(heirs.len(), 5);
    assert!(heirs.values().all(|&inherited| inherited <= 16), "{heirs:?}");
}

/// Frozen: a plan computed by another version of the program must be this one, or nodes of a
/// cluster that is being upgraded would disagree about who holds what.
#[test]
fn the_plan_of_three_equal_members_is_frozen() {
    let plan = plan(&members(&[(1, 1, 0), (2, 1, 0), (3, 1, 0)]), 8, 2, None);
    let shown: Vec<String> = plan
        .lists
        .iter()
        .map(|list| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(shown.join(", "), "n2 n3, n1 n3, n1 n3, n3 n2, n3 n1, n2 n1, n1 n2, n2 n1");
}
