//! Who coordinates a key, and whether to begin at all.
//!
//! Invariant: a node that is recovering never coordinates, and a request crosses at most one link:
//! what a peer forwarded is run here or refused, never passed on.
//!
//! ```text
//!   replicas in order:   a (down)   b (recovering)   c (up)   d (up)
//!   asked at x or d  ──────────────────────────────► c
//!   forwarded to d by a node that still thinks c is down: d runs it
//! ```
//!
//! Two nodes may believe different things about a third, so two replicas may coordinate one key
//! at a time. That costs siblings in an `eventual` keyspace and nothing in a `quorum` one, whose
//! machines do not rely on a single coordinator. (Dynamo §4.5, §4.6.)

use std::fmt;

use crate::base::id::NodeId;

/// What is believed of a replica. The believing, with its hysteresis, is done elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// Reachable, and it counts in every R and W.
    Up,
    /// Not reachable.
    Down,
    /// Reachable, but it may have forgotten acknowledged writes: takes writes, counts in nothing.
    Recovering,
    /// Its link is lost, and it is still waited for: nobody takes its place as coordinator, and it
    /// can be asked nothing.
    Awaited,
    /// Reachable, and it counts, but its clock is off: it coordinates only what nobody else can.
    Skewed,
}

impl Reach {
    /// Whether it counts in R and W now.
    pub const fn counts(self) -> bool {
        matches!(self, Reach::Up | Reach::Skewed)
    }

    /// Whether there is a link to it.
    pub const fn is_linked(self) -> bool {
        !matches!(self, Reach::Down | Reach::Awaited)
    }
}

/// Where a request came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A client of this node.
    Client,
    /// A peer that believes this node coordinates.
    Peer,
}

/// Where a request goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// This node coordinates.
    Local,
    /// That node does.
    Forward(NodeId),
    /// Nobody can. Nothing was done.
    Nobody,
}

/// Who coordinates a key whose replicas, in order of preference, are `replicas`. `state_of` is
/// asked about `me` too: only a node itself knows that it is recovering.
pub fn route(
    replicas: &[NodeId],
    me: NodeId,
    origin: Origin,
    state_of: impl Fn(NodeId) -> Reach,
) -> Route {
    let first = |fits: fn(Reach) -> bool| replicas.iter().find(|&&node| fits(state_of(node)));
    match origin {
        Origin::Client => {
            let sound = first(|reach| matches!(reach, Reach::Up | Reach::Awaited));
            match sound.or_else(|| first(Reach::counts)).copied() {
                Some(node) if node == me => Route::Local,
                Some(node) => Route::Forward(node),
                None => Route::Nobody,
            }
        }
        Origin::Peer if replicas.contains(&me) && state_of(me).counts() => Route::Local,
        Origin::Peer => Route::Nobody,
    }
}

/// Who coordinates a write of a key none of whose replicas counts: the first stand-in in reach. Only
/// what asks nothing of the key's past may be run there. `fallbacks` are in order.
pub fn stand_in(fallbacks: &[NodeId], state_of: impl Fn(NodeId) -> Reach) -> Option<NodeId> {
    fallbacks.iter().copied().find(|&node| state_of(node).counts())
}

/// The other replicas that count now, in order of preference: whom a coordinator may ask.
pub fn others<'a>(
    replicas: &'a [NodeId],
    me: NodeId,
    state_of: impl Fn(NodeId) -> Reach + 'a,
) -> impl Iterator<Item = NodeId> + 'a {
    replicas.iter().copied().filter(move |&node| node != me && state_of(node).counts())
}

/// Fewer replicas count than the request needs. Nothing was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoQuorum {
    /// Replicas that count now, the coordinator included.
    pub up: u8,
    /// Replicas that the request needs.
    pub needs: u8,
}

impl fmt::Display for NoQuorum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NoQuorum { up, needs } = self;
        write!(f, "NOQUORUM {up} of the {needs} replicas needed are available, nothing was done")
    }
}

impl std::error::Error for NoQuorum {}

/// Whether to begin, with `up` replicas that count (the coordinator included) and a request that
/// cannot do without `needs` of them
/// (see [`Effective::read_needs`](crate::coordinator::contract::Effective::read_needs)).
pub const fn admit(up: u8, needs: u8) -> Result<(), NoQuorum> {
    if up < needs { Err(NoQuorum { up, needs }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: [NodeId; 4] = [NodeId(1), NodeId(2), NodeId(3), NodeId(4)];

    fn state(down: u16, recovering: u16) -> impl Fn(NodeId) -> Reach {
        move |node| match 1 << (node.0 - 1) {
            bit if down & bit != 0 => Reach::Down,
            bit if recovering & bit != 0 => Reach::Recovering,
            _ => Reach::Up,
        }
    }

    /// Every belief about three replicas, asked at each of them and at a stranger.
    #[test]
    fn the_first_that_counts_coordinates_and_nothing_is_forwarded_twice() {
        let replicas = &NODES[..3];
        for down in 0..8 {
            for recovering in 0..8 {
                let of = state(down, recovering);
                let first = replicas.iter().copied().find(|&n| of(n) == Reach::Up);
                for me in NODES {
                    let expected = match first {
                        Some(node) if node == me => Route::Local,
                        Some(node) => Route::Forward(node),
                        None => Route::Nobody,
                    };
                    assert_eq!(route(replicas, me, Origin::Client, &of), expected);
                    let runs = replicas.contains(&me) && of(me) == Reach::Up;
                    let expected = if runs { Route::Local } else { Route::Nobody };
                    assert_eq!(route(replicas, me, Origin::Peer, &of), expected);
                    let asked: Vec<_> = others(replicas, me, &of).collect();
                    assert!(asked.iter().all(|&n| n != me && of(n) == Reach::Up));
                    assert!(asked.is_sorted());
                }
            }
        }
    }

    #[test]
    fn the_first_stand_in_in_reach_coordinates_in_the_replicas_stead() {
        assert_eq!(stand_in(&NODES, state(0b0001, 0b0010)), Some(NodeId(3)));
        assert_eq!(stand_in(&NODES, state(0b1101, 0b0010)), None);
        assert_eq!(stand_in(&[], state(0, 0)), None);
    }

    #[test]
    fn one_that_is_awaited_keeps_its_place_and_a_skewed_one_is_the_last_resort() {
        use Reach::{Awaited, Down, Skewed, Up};
        let replicas = &NODES[..3];
        for (states, coordinates, asked) in [
            ([Awaited, Up, Up], Some(0), vec![1, 2]),
            ([Skewed, Up, Up], Some(1), vec![0, 1, 2]),
            ([Skewed, Awaited, Down], Some(1), vec![0]),
            ([Down, Skewed, Down], Some(1), vec![1]),
            ([Down, Skewed, Skewed], Some(1), vec![1, 2]),
        ] {
            let of = |node: NodeId| states[usize::from(node.0) - 1];
            let stranger = NODES[3];
            let expected = coordinates.map_or(Route::Nobody, |at: usize| Route::Forward(NODES[at]));
            assert_eq!(route(replicas, stranger, Origin::Client, of), expected);
            let expected: Vec<NodeId> = asked.iter().map(|&at: &usize| NODES[at]).collect();
            assert_eq!(others(replicas, stranger, of).collect::<Vec<_>>(), expected);
            for (at, &node) in replicas.iter().enumerate() {
                let runs = route(replicas, node, Origin::Peer, of) == Route::Local;
                assert_eq!(runs, states[at].counts());
            }
        }
    }

    #[test]
    fn too_few_are_refused_before_anything_is_done() {
        assert_eq!(admit(2, 2), Ok(()));
        let refusal = admit(1, 2).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "NOQUORUM 1 of the 2 replicas needed are available, nothing was done"
        );
    }
}
