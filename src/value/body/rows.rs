//! A long row of short runs: elements by place in two steps, whatever a run is made of.
//!
//! ```text
//! chunks   ┌ 9,120 elements ──────────┐┌ 8,731 ──────────┐ …      some thousands at most
//! runs     ┌ 14 ┐┌ 18 ┐┌ 11 ┐ …  ≤ 256                            some hundred bytes each
//! ```
//!
//! A place is found by adding up counts, first of chunks, then of runs; an order by two binary
//! searches. A run is put in or taken out without moving more than one chunk's. That is a B-tree of
//! fixed height, and enough of it: ten million elements are some thousand chunks.
//!
//! Invariant: there is at least one run; a run is empty only if it is the only one; counts are
//! what their runs say.

use smallvec::{SmallVec, smallvec};

/// Most runs of a chunk.
const RUNS_MAX: usize = 256;

/// So many counts are added up without a look between.
const ADDED_AT_ONCE: usize = 16;

/// Some elements.
pub(super) trait Run {
    /// How many.
    fn count(&self) -> usize;

    /// The lowest hash that belongs here, if runs are ordered by hashes.
    fn lower(&self) -> u64 {
        0
    }
}

#[derive(Clone, Debug)]
struct Chunk<R> {
    runs: SmallVec<[R; 1]>,
    /// Those of the runs, side by side: whoever looks for a place adds them up.
    counts: SmallVec<[u32; 2]>,
    count: usize,
    /// The first run's.
    lower: u64,
}

impl<R: Run> Chunk<R> {
    fn of(runs: SmallVec<[R; 1]>) -> Chunk<R> {
        let counts: SmallVec<[u32; 2]> = runs.iter().map(|run| run.count() as u32).collect();
        let count = counts.iter().map(|&count| count as usize).sum();
        Chunk { count, counts, lower: runs[0].lower(), runs }
    }
}

/// The last of `count` things, ordered by their lowest hashes between `from` and `to`, to which a
/// hash belongs. Hashes are spread evenly, so a guess is nearly right (interpolation search, Perl
/// and others, 1978): two or three looks at memory instead of one for each doubling.
fn near(count: usize, from: u64, to: u64, hash: u64, lower: impl Fn(usize) -> u64) -> usize {
    let mut at = guess(count, from, to, hash);
    while at > 0 && lower(at) > hash {
        at -= 1;
    }
    while at + 1 < count && lower(at + 1) <= hash {
        at += 1;
    }
    at
}

/// Where it is if hashes are spread evenly.
fn guess(count: usize, from: u64, to: u64, hash: u64) -> usize {
    // In 32 bits, so that the product fits; a guess needs no more.
    let shift = 32u32.saturating_sub((to - from).leading_zeros());
    let (part, whole) = (hash.saturating_sub(from) >> shift, ((to - from) >> shift).max(1));
    (part * count as u64 / whole).min(count as u64 - 1) as usize
}

/// Where a run is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Spot {
    chunk: usize,
    run: usize,
}

/// A row of runs. See the head of this file.
#[derive(Clone, Debug)]
pub(super) struct Rows<R> {
    chunks: SmallVec<[Chunk<R>; 1]>,
    /// All elements, and all runs.
    len: usize,
    runs: usize,
}

impl<R: Run> Rows<R> {
    /// A row of one run.
    pub(super) fn of(run: R) -> Rows<R> {
        Rows { len: run.count(), runs: 1, chunks: smallvec![Chunk::of(smallvec![run])] }
    }

    /// A row of several runs, one at least.
    pub(super) fn of_many(runs: impl IntoIterator<Item = R>) -> Rows<R> {
        let mut chunks = SmallVec::new();
        let mut next: SmallVec<[R; 1]> = SmallVec::new();
        let (mut len, mut count) = (0, 0);
        for run in runs {
            len += run.count();
            count += 1;
            next.push(run);
            if next.len() == RUNS_MAX / 2 {
                chunks.push(Chunk::of(std::mem::take(&mut next)));
            }
        }
        if !next.is_empty() {
            chunks.push(Chunk::of(next));
        }
        assert!(!chunks.is_empty(), "a row has a run");
        Rows { chunks, len, runs: count }
    }

    /// The only run, if there is only one.
    pub(super) fn only(&self) -> Option<&R> {
        match &self.chunks[..] {
            [chunk] if chunk.runs.len() == 1 => Some(&chunk.runs[0]),
            _ => None,
        }
    }

    /// How many elements there are.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// The first run.
    pub(super) const fn first(&self) -> Spot {
        Spot { chunk: 0, run: 0 }
    }

    /// The last run.
    pub(super) fn last(&self) -> Spot {
        let chunk = self.chunks.len() - 1;
        Spot { chunk, run: self.chunks[chunk].runs.len() - 1 }
    }

    /// The last run of which `begins` is true, or the first one. It must be true of some runs and
    /// false of all after them.
    pub(super) fn find(&self, mut begins: impl FnMut(&R) -> bool) -> Spot {
        let chunk = self.chunks.partition_point(|chunk| begins(&chunk.runs[0])).saturating_sub(1);
        let runs = &self.chunks[chunk].runs;
        Spot { chunk, run: runs.partition_point(begins).saturating_sub(1) }
    }

    /// The run that a hash belongs to, where runs are ordered by hashes.
    pub(super) fn find_hash(&self, hash: u64) -> Spot {
        let chunks = &self.chunks;
        let chunk = near(chunks.len(), 0, u64::MAX, hash, |at| chunks[at].lower);
        let (from, runs) = (chunks[chunk].lower, &chunks[chunk].runs);
        let to = chunks.get(chunk + 1).map_or(u64::MAX, |next| next.lower);
        Spot { chunk, run: near(runs.len(), from, to, hash, |at| runs[at].lower()) }
    }

    /// The run that holds the element at `place`, and its place there; past the end nothing.
    pub(super) fn at(&self, mut place: usize) -> Option<(Spot, usize)> {
        if place >= self.len {
            return None;
        }
        // Many ask for the last one.
        let last = self.last();
        let before_last = self.len - self.run(last).count();
        if place >= before_last {
            return Some((last, place - before_last));
        }
        for (number, chunk) in self.chunks.iter().enumerate() {
            if place < chunk.count {
                let mut before = 0;
                for some in chunk.counts.chunks(ADDED_AT_ONCE) {
                    let held = some.iter().sum::<u32>() as usize;
                    if place < held {
                        break;
                    }
                    place -= held;
                    before += some.len();
                }
                for (run, &held) in chunk.counts.iter().enumerate().skip(before) {
                    if place < held as usize {
                        return Some((Spot { chunk: number, run }, place));
                    }
                    place -= held as usize;
                }
            }
            place -= chunk.count;
        }
        None
    }

    /// How many elements stand before a run.
    pub(super) fn before(&self, spot: Spot) -> usize {
        let chunks = self.chunks[..spot.chunk].iter().map(|chunk| chunk.count);
        let runs = self.chunks[spot.chunk].counts[..spot.run].iter().map(|&count| count as usize);
        chunks.sum::<usize>() + runs.sum::<usize>()
    }

    pub(super) fn run(&self, spot: Spot) -> &R {
        &self.chunks[spot.chunk].runs[spot.run]
    }

    /// The run after that one.
    pub(super) fn next(&self, spot: Spot) -> Option<Spot> {
        let Spot { chunk, run } = spot;
        if run + 1 < self.chunks[chunk].runs.len() {
            return Some(Spot { chunk, run: run + 1 });
        }
        (chunk + 1 < self.chunks.len()).then_some(Spot { chunk: chunk + 1, run: 0 })
    }

    /// The run before that one.
    pub(super) fn previous(&self, spot: Spot) -> Option<Spot> {
        let Spot { chunk, run } = spot;
        if run > 0 {
            return Some(Spot { chunk, run: run - 1 });
        }
        let chunk = chunk.checked_sub(1)?;
        Some(Spot { chunk, run: self.chunks[chunk].runs.len() - 1 })
    }

    /// Every run, in order.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &R> {
        self.chunks.iter().flat_map(|chunk| &chunk.runs)
    }

    /// Changes a run.
    pub(super) fn change<T>(&mut self, spot: Spot, act: impl FnOnce(&mut R) -> T) -> T {
        let chunk = &mut self.chunks[spot.chunk];
        let run = &mut chunk.runs[spot.run];
        let before = run.count();
        let done = act(run);
        let after = run.count();
        chunk.counts[spot.run] = after as u32;
        chunk.count = chunk.count + after - before;
        chunk.lower = chunk.runs[0].lower();
        self.len = self.len + after - before;
        done
    }

    /// Puts `with` in the place of a run. If that is nothing, and there is no other run, the run
    /// stays, and must be empty.
    pub(super) fn replace(&mut self, spot: Spot, with: impl IntoIterator<Item = R>) {
        let with: SmallVec<[R; 4]> = with.into_iter().collect();
        if with.is_empty() && self.only().is_some() {
            debug_assert_eq!(self.len(), 0, "what is held is not thrown away");
            return;
        }
        let chunk = &mut self.chunks[spot.chunk];
        let (gone, come) = (chunk.runs[spot.run].count(), with.iter().map(R::count).sum::<usize>());
        chunk.count = chunk.count + come - gone;
        self.len = self.len + come - gone;
        self.runs = self.runs + with.len() - 1;
        chunk.runs.remove(spot.run);
        chunk.counts.remove(spot.run);
        chunk.counts.insert_many(spot.run, with.iter().map(|run| run.count() as u32));
        chunk.runs.insert_many(spot.run, with);
        if chunk.runs.is_empty() {
            self.chunks.remove(spot.chunk);
            return;
        }
        chunk.lower = chunk.runs[0].lower();
        if chunk.runs.len() > RUNS_MAX {
            let back = chunk.runs.drain(RUNS_MAX / 2..).collect();
            chunk.counts.truncate(RUNS_MAX / 2);
            let back = Chunk::of(back);
            chunk.count -= back.count;
            self.chunks.insert(spot.chunk + 1, back);
        }
    }

    /// Puts a run before all others, or after them. It must not stay empty.
    pub(super) fn extend(&mut self, first: bool, run: R) -> Spot {
        let at = if first { 0 } else { self.chunks.len() - 1 };
        self.runs += 1;
        self.len += run.count();
        let chunk = &mut self.chunks[at];
        if chunk.runs.len() >= RUNS_MAX {
            // Whoever grows at an end leaves full chunks behind.
            let at = if first { 0 } else { at + 1 };
            self.chunks.insert(at, Chunk::of(smallvec![run]));
        } else {
            chunk.count += run.count();
            let count = run.count() as u32;
            let place = if first { 0 } else { chunk.runs.len() };
            chunk.runs.insert(place, run);
            chunk.counts.insert(place, count);
            chunk.lower = chunk.runs[0].lower();
        }
        if first { self.first() } else { self.last() }
    }

    /// Heap bytes of the row itself, about, without what its runs hold.
    pub(super) fn memory(&self) -> usize {
        if self.runs == 1 {
            return 0;
        }
        // Vectors that grow by doubling are three quarters full.
        let runs = self.runs * (size_of::<R>() + size_of::<u32>());
        let chunks = self.chunks.len() * size_of::<Chunk<R>>();
        (runs + chunks) * 4 / 3
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Run for Vec<u32> {
        fn count(&self) -> usize {
            self.len()
        }
    }

    proptest! {
        /// Against one long list; runs hold four at most, so that chunks split and go.
        #[test]
        fn is_a_list(steps in proptest::collection::vec((any::<u32>(), 0u8..10), 0..3_000)) {
            let mut rows = Rows::of(Vec::new());
            let mut list = Vec::new();
            for (number, what) in steps {
                let (least, most) = (list.first(), list.last());
                let end = match what {
                    0 if least.is_some_and(|&least| number < least) => Some(true),
                    0 if most.is_some_and(|&most| number > most) => Some(false),
                    _ => None,
                };
                if let Some(first) = end {
                    list.insert(if first { 0 } else { list.len() }, number);
                    let spot = rows.extend(first, vec![number]);
                    prop_assert_eq!(rows.run(spot), &[number]);
                } else if what < 7 || list.is_empty() {
                    let at = list.partition_point(|&other| other < number);
                    list.insert(at, number);
                    let spot = rows.find(|run: &Vec<u32>| run.first().is_some_and(|&f| f <= number));
                    rows.change(spot, |run| {
                        let at = run.partition_point(|&other| other < number);
                        run.insert(at, number);
                    });
                    if rows.run(spot).len() > 4 {
                        let (left, right) = rows.run(spot).split_at(2);
                        let halves = [left.to_vec(), right.to_vec()];
                        rows.replace(spot, halves);
                    }
                } else {
                    let place = number as usize % list.len();
                    let (spot, within) = rows.at(place).expect("within");
                    prop_assert_eq!(rows.before(spot) + within, place);
                    prop_assert_eq!(rows.run(spot)[within], list.remove(place));
                    rows.change(spot, |run| run.remove(within));
                    if rows.run(spot).is_empty() {
                        rows.replace(spot, []);
                    }
                }
                prop_assert_eq!(rows.len(), list.len());
                prop_assert_eq!(rows.runs, rows.iter().count());
                for chunk in &rows.chunks {
                    let counts: Vec<u32> = chunk.runs.iter().map(|run| run.len() as u32).collect();
                    prop_assert_eq!(&counts[..], &chunk.counts[..]);
                }
            }
            prop_assert!(rows.at(list.len()).is_none());
            prop_assert_eq!(rows.iter().flatten().copied().collect::<Vec<_>>(), list);
            let (mut spot, mut runs) = (Some(rows.first()), 0);
            while let Some(at) = spot {
                runs += 1;
                spot = rows.next(at);
                prop_assert!(spot.is_none_or(|next| rows.previous(next) == Some(at)));
                prop_assert!(spot.is_some() || at == rows.last());
            }
            prop_assert_eq!(runs, rows.iter().count());
        }
    }
}
