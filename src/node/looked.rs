//! Which keys reads looked up and found, as `INFO` tells it.
//!
//! Counted while a command looks, and added to the node's counters once a batch: two threads that
//! read do not meet at a counter for every key.

use std::cell::Cell;

use crate::base::hash::HashSeed;
use crate::metrics::counters::Metrics;
use crate::value::entry::Entry;
use crate::value::view::{Usage, View, Views};

/// Lookups that are not in the node's counters yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Looked {
    hits: u64,
    misses: u64,
}

impl Looked {
    /// Adds the lookups to the counters and begins anew.
    pub(super) fn settle(&mut self, metrics: &Metrics) {
        let Looked { hits, misses } = std::mem::take(self);
        if hits > 0 {
            metrics.keyspace_hits.add(hits);
        }
        if misses > 0 {
            metrics.keyspace_misses.add(misses);
        }
    }
}

/// Views whose lookups are counted.
pub(super) struct Counted<'a, V> {
    views: &'a V,
    looked: Cell<Looked>,
}

impl<'a, V: Views> Counted<'a, V> {
    /// Goes on counting after `looked`.
    pub(super) fn new(views: &'a V, looked: Looked) -> Counted<'a, V> {
        Counted { views, looked: Cell::new(looked) }
    }

    /// The lookups so far.
    pub(super) fn looked(&self) -> Looked {
        self.looked.get()
    }
}

impl<V: Views> Views for Counted<'_, V> {
    fn view(&self, key: &[u8]) -> Option<View<'_>> {
        let found = self.views.view(key);
        let mut looked = self.looked.get();
        looked.hits += u64::from(found.is_some());
        looked.misses += u64::from(found.is_none());
        self.looked.set(looked);
        found
    }

    fn memory(&self, key: &[u8]) -> Option<usize> {
        self.view(key)?;
        self.views.memory(key)
    }

    fn history(&self, key: &[u8]) -> Option<Entry> {
        let found = self.views.history(key);
        let mut looked = self.looked.get();
        let is_hit = found.as_ref().is_some_and(Entry::is_live);
        looked.hits += u64::from(is_hit);
        looked.misses += u64::from(!is_hit);
        self.looked.set(looked);
        found
    }

    fn seed(&self) -> HashSeed {
        self.views.seed()
    }

    fn usage(&self, key: &[u8]) -> Option<Usage> {
        self.views.usage(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::view::{Body, Kind};

    struct OnlyA;

    impl Views for OnlyA {
        fn view(&self, key: &[u8]) -> Option<View<'_>> {
            let view =
                View { kind: Kind::String, expire_at: None, memory: 0, body: Body::Made(vec![]) };
            (key == b"a").then_some(view)
        }
    }

    #[test]
    fn lookups_are_counted_and_settled_once() {
        let metrics = Metrics::default();
        let counted = Counted::new(&OnlyA, Looked::default());
        assert!(counted.view(b"a").is_some() && counted.view(b"b").is_none());
        let again = Counted::new(&OnlyA, counted.looked());
        assert!(again.view(b"a").is_some());
        let mut looked = again.looked();
        looked.settle(&metrics);
        looked.settle(&metrics);
        let counts = (metrics.keyspace_hits.value(), metrics.keyspace_misses.value());
        assert_eq!(counts, (2, 1));
    }
}
