//! Who stands in for replicas that do not count, so that a write still reaches W nodes: the sloppy
//! quorum (Dynamo §4.6), for keyspaces of level `eventual`.
//!
//! Invariant: W counts distinct nodes, and it is never lowered. A stand-in takes the *place* of one
//! replica that does not count, so a tally of places is a tally of nodes.
//!
//! ```text
//!   replicas    a (up)   b (down)   c (recovering)       W = 3
//!   places      0        1          2
//!   fallbacks            d (up)     e (down)   f (up)
//!   the write   a        d          f                    three nodes hold it
//! ```
//!
//! As many are asked as are needed and no more: what they hold must be handed on. A replica that
//! recovers is sent the write as well, but its place is the stand-in's for this write.

use smallvec::SmallVec;

use crate::base::id::NodeId;

use super::contract::Effective;
use super::route::{NoQuorum, Reach, admit};

/// A stand-in for one write: the place that it takes, and who it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StandIn {
    /// The place in the key's list of replicas.
    pub place: u8,
    /// Who takes it.
    pub node: NodeId,
}

/// Those who stand in for one write.
pub type StandIns = SmallVec<[StandIn; 2]>;

/// Whether and with whom a write may begin, that cannot do without `needs` nodes.
///
/// `reaches` are the replicas', in order of preference; `fallbacks` those that may be asked now, in
/// order, the coordinator not among them. A coordinator that is itself a stand-in (`stands_in`)
/// takes the first place that is free; it is not in the answer.
///
/// # Errors
/// The level is `quorum`, or there are too few nodes: nothing was done.
pub fn recruit(
    reaches: &[Reach],
    fallbacks: impl IntoIterator<Item = NodeId>,
    stands_in: bool,
    needs: u8,
    strict: bool,
) -> Result<StandIns, NoQuorum> {
    let counting = reaches.iter().filter(|reach| reach.counts()).count() as u8;
    let up = counting + u8::from(stands_in);
    if strict || up >= needs {
        return admit(up, needs).map(|()| StandIns::new());
    }
    let missing = usize::from(needs - up);
    let places = (0u8..).zip(reaches).filter(|(_, reach)| !reach.counts());
    let places = places.map(|(place, _)| place).skip(usize::from(stands_in));
    let found = places.zip(fallbacks).map(|(place, node)| StandIn { place, node });
    let found: StandIns = found.take(missing).collect();
    admit(up + found.len() as u8, needs).map(|()| found)
}

/// What a read asks while writes need stand-ins: also as many of those as writes do, `extra`,
/// or it would pass by what was just acknowledged. A read of one replica stays one.
pub const fn read_beside(mut ask: Effective, extra: u8) -> Effective {
    if ask.r > 1 && !ask.strict {
        ask.r = if ask.r + extra < ask.n { ask.r + extra } else { ask.n };
    }
    ask
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::coordinator::contract::{Override, Quorum};
    use crate::coordinator::tally::{Tally, Verdict};

    const REACHES: [Reach; 3] = [Reach::Up, Reach::Down, Reach::Recovering];

    /// Every belief about `n` replicas.
    fn beliefs(n: u32) -> impl Iterator<Item = Vec<Reach>> {
        (0..3usize.pow(n))
            .map(move |code| (0..n).map(|place| REACHES[code / 3usize.pow(place) % 3]).collect())
    }

    fn count(reaches: &[Reach]) -> u8 {
        reaches.iter().filter(|&&reach| reach == Reach::Up).count() as u8
    }

    /// Acknowledges in every order of places: the verdict falls with the last needed node.
    fn tally_counts_nodes(candidates: &[(u8, NodeId)], needed: u8) {
        let bits = candidates.iter().fold(0, |bits, (place, _)| bits | 1 << place);
        for first in 0..candidates.len() {
            let (mut tally, mut nodes) = (Tally::new(bits, needed), HashSet::new());
            for turn in 0..candidates.len() {
                let (place, node) = candidates[(first + turn) % candidates.len()];
                nodes.insert(node);
                let verdict = tally.ack(usize::from(place));
                let reached = nodes.len() == usize::from(needed);
                assert_eq!(verdict == Verdict::Reached, reached);
                // Heard twice, it is one node.
                assert_ne!(tally.ack(usize::from(place)), Verdict::Reached);
            }
        }
    }

    /// Every belief, every number of fallbacks, every W, a replica or a stand-in coordinating.
    #[test]
    fn w_counts_distinct_nodes_and_is_never_lowered() {
        for n in 1..=5u32 {
            for (reaches, spare) in beliefs(n).flat_map(|b| (0..4u16).map(move |s| (b.clone(), s)))
            {
                for (needs, stands_in) in (1..=n as u8).flat_map(|w| [(w, true), (w, false)]) {
                    let counting = count(&reaches);
                    // A replica coordinates only if it counts, a stand-in only if none does.
                    if stands_in == (counting > 0) {
                        continue;
                    }
                    let fallbacks = (0..spare).map(|i| NodeId(100 + i));
                    let found = recruit(&reaches, fallbacks, stands_in, needs, false);
                    let there = counting + u8::from(stands_in) + spare as u8;
                    assert_eq!(found.is_ok(), there >= needs, "{reaches:?} {spare} {needs}");
                    let Ok(found) = found else { continue };
                    let up = counting + u8::from(stands_in);
                    assert_eq!(
                        found.len(),
                        usize::from(needs.saturating_sub(up)),
                        "no more than needed"
                    );
                    let replicas = (0u8..).zip(&reaches).filter(|(_, reach)| **reach == Reach::Up);
                    let mut nodes: Vec<(u8, NodeId)> =
                        replicas.map(|(place, _)| (place, NodeId(u16::from(place)))).collect();
                    if stands_in {
                        let free = reaches.iter().position(|&reach| reach != Reach::Up).unwrap();
                        nodes.push((free as u8, NodeId(99)));
                    }
                    nodes.extend(found.iter().map(|one| (one.place, one.node)));
                    let places: HashSet<u8> = nodes.iter().map(|(place, _)| *place).collect();
                    assert_eq!(places.len(), nodes.len(), "a place is one node's");
                    assert!(places.iter().all(|&place| u32::from(place) < n));
                    // The coordinator has it already.
                    let rest = &nodes[..];
                    let rest: Vec<_> = match stands_in {
                        true => rest.iter().copied().filter(|(_, node)| node.0 != 99).collect(),
                        false => rest[1..].to_vec(),
                    };
                    if needs > 1 {
                        tally_counts_nodes(&rest, needs - 1);
                    }
                }
            }
        }
    }

    #[test]
    fn quorum_keyspaces_have_no_stand_ins() {
        for reaches in beliefs(3) {
            for needs in 1..=3 {
                let found = recruit(&reaches, [NodeId(9), NodeId(8)], false, needs, true);
                assert_eq!(found, admit(count(&reaches), needs).map(|()| StandIns::new()));
            }
        }
    }

    #[test]
    fn a_refusal_says_how_many_there_are_in_all() {
        let refused = recruit(&[Reach::Up, Reach::Down, Reach::Down], [NodeId(4)], false, 3, false);
        assert_eq!(refused, Err(NoQuorum { up: 2, needs: 3 }));
    }

    #[test]
    fn reads_of_several_ask_stand_ins_too() {
        let ask = |r| Quorum::new(5, 1, 3).unwrap().effective(Override { r: Some(r), w: None }, 5);
        let beside = |r, extra| read_beside(ask(r).unwrap(), extra).r;
        assert_eq!([beside(1, 2), beside(2, 0), beside(2, 2), beside(4, 3)], [1, 2, 4, 5]);
        let strict = Quorum::new(3, 2, 2).unwrap().effective(Override::default(), 3).unwrap();
        assert_eq!(read_beside(strict, 1), strict);
    }
}
