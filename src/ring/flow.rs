//! Least-cost flow: the arithmetic under the planner.
//!
//! The primal–dual method (Ford and Fulkerson, 1962): shortest paths by reduced costs
//! (Dijkstra with potentials), then as many units as fit along the tight arcs, until the sink is
//! out of reach. Invariant: no arc with room left has a negative reduced cost, hence the units
//! sent so far are sent as cheaply as that many can be.
//!
//! Same calls in the same order give the same flow: nothing here depends on chance or addresses.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A point of the graph.
pub(super) type Point = usize;

/// An arc, by the order of adding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ArcId(usize);

struct Arc {
    to: Point,
    room: u32,
    cost: i64,
}

/// A graph and the units sent through it. Arc `2k + 1` is the way back of arc `2k`.
pub(super) struct Flow {
    arcs: Vec<Arc>,
    from: Vec<Vec<usize>>,
    potential: Vec<i64>,
}

impl Flow {
    /// A graph of `points` points and no arcs.
    pub(super) fn new(points: usize) -> Flow {
        Flow { arcs: Vec::new(), from: vec![Vec::new(); points], potential: vec![0; points] }
    }

    /// Adds an arc that takes up to `room` units at `cost` ≥ 0 each.
    pub(super) fn arc(&mut self, tail: Point, to: Point, room: u32, cost: i64) -> ArcId {
        debug_assert!(cost >= 0);
        let id = self.arcs.len();
        self.from[tail].push(id);
        self.arcs.push(Arc { to, room, cost });
        self.from[to].push(id + 1);
        self.arcs.push(Arc { to: tail, room: 0, cost: -cost });
        ArcId(id)
    }

    /// Units that go through `arc`.
    pub(super) fn units(&self, arc: ArcId) -> u32 {
        self.arcs[arc.0 + 1].room
    }

    /// Sends as many units as fit from `source` to `sink`, as cheaply as that many can go.
    /// Returns how many.
    pub(super) fn run(&mut self, source: Point, sink: Point) -> u64 {
        let mut sent = 0;
        while self.raise_potentials(source, sink) {
            sent += self.send_along_tight_arcs(source, sink);
        }
        sent
    }

    fn reduced_cost(&self, arc: usize) -> i64 {
        let tail = self.arcs[arc ^ 1].to;
        self.arcs[arc].cost + self.potential[tail] - self.potential[self.arcs[arc].to]
    }

    /// Makes the arcs of shortest paths tight (reduced cost zero). False: no way is left.
    fn raise_potentials(&mut self, source: Point, sink: Point) -> bool {
        let mut distance = vec![i64::MAX; self.from.len()];
        let mut queue = BinaryHeap::new();
        distance[source] = 0;
        queue.push(Reverse((0, source)));
        while let Some(Reverse((reached, point))) = queue.pop() {
            if point == sink {
                break;
            }
            if reached > distance[point] {
                continue;
            }
            for &arc in &self.from[point] {
                let to = self.arcs[arc].to;
                let next = reached + self.reduced_cost(arc);
                if self.arcs[arc].room > 0 && next < distance[to] {
                    distance[to] = next;
                    queue.push(Reverse((next, to)));
                }
            }
        }
        let far = distance[sink];
        if far == i64::MAX {
            return false;
        }
        for (potential, distance) in self.potential.iter_mut().zip(distance) {
            *potential += distance.min(far);
        }
        true
    }

    /// Depth-first over tight arcs; a point from which no way was found is not tried again. At
    /// least one unit goes through, because the search itself is complete until the first.
    fn send_along_tight_arcs(&mut self, source: Point, sink: Point) -> u64 {
        let mut next = vec![0usize; self.from.len()];
        let mut on_path = vec![false; self.from.len()];
        let mut path: Vec<usize> = Vec::new();
        let mut sent = 0;
        loop {
            let point = path.last().map_or(source, |&arc| self.arcs[arc].to);
            if point == sink {
                sent += u64::from(self.push(&path));
                let full = path.iter().position(|&arc| self.arcs[arc].room == 0);
                for arc in path.drain(full.expect("the narrowest arc is full")..) {
                    on_path[self.arcs[arc].to] = false;
                }
                continue;
            }
            on_path[point] = true;
            if let Some(arc) = self.next_tight(point, &mut next, &on_path) {
                path.push(arc);
                continue;
            }
            let Some(arc) = path.pop() else { return sent };
            on_path[point] = false;
            next[self.arcs[arc ^ 1].to] += 1;
        }
    }

    fn next_tight(&self, point: Point, next: &mut [usize], on_path: &[bool]) -> Option<usize> {
        while let Some(&arc) = self.from[point].get(next[point]) {
            let Arc { to, room, .. } = self.arcs[arc];
            if room > 0 && !on_path[to] && self.reduced_cost(arc) == 0 {
                return Some(arc);
            }
            next[point] += 1;
        }
        None
    }

    fn push(&mut self, path: &[usize]) -> u32 {
        let units = path.iter().map(|&arc| self.arcs[arc].room).min().unwrap_or(0);
        for &arc in path {
            self.arcs[arc].room -= units;
            self.arcs[arc ^ 1].room += units;
        }
        units
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A random table of workers and jobs; 9 means the worker cannot do the job.
    fn assignment(costs: &[Vec<i64>]) -> (u64, i64) {
        let (workers, jobs) = (costs.len(), costs[0].len());
        let mut flow = Flow::new(2 + workers + jobs);
        let mut arcs = Vec::new();
        for worker in 0..workers {
            flow.arc(0, 2 + worker, 1, 0);
        }
        for (worker, row) in costs.iter().enumerate() {
            for (job, &cost) in row.iter().enumerate().filter(|(_, cost)| **cost < 9) {
                arcs.push((flow.arc(2 + worker, 2 + workers + job, 1, cost), cost));
            }
        }
        for job in 0..jobs {
            flow.arc(2 + workers + job, 1, 1, 0);
        }
        let sent = flow.run(0, 1);
        (sent, arcs.iter().map(|&(arc, cost)| i64::from(flow.units(arc)) * cost).sum())
    }

    /// The best of all ways, by trying them all: most jobs done, then least cost.
    fn by_trial(costs: &[Vec<i64>], taken: u32) -> (u64, i64) {
        let Some((row, rest)) = costs.split_first() else { return (0, 0) };
        let mut best = by_trial(rest, taken);
        for (job, &cost) in row.iter().enumerate() {
            if cost < 9 && taken & 1 << job == 0 {
                let (done, sum) = by_trial(rest, taken | 1 << job);
                let tried = (done + 1, sum + cost);
                if tried.0 > best.0 || tried.0 == best.0 && tried.1 < best.1 {
                    best = tried;
                }
            }
        }
        best
    }

    proptest! {
        #[test]
        fn as_good_as_trying_everything(
            costs in (1usize..6, 1usize..6).prop_flat_map(|(workers, jobs)| {
                proptest::collection::vec(proptest::collection::vec(0i64..10, jobs), workers)
            })
        ) {
            prop_assert_eq!(assignment(&costs), by_trial(&costs, 0));
        }
    }
}
