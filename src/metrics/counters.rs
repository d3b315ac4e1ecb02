//! What a node counts: one list, from which `INFO`, the operator's door and the tests read.
//!
//! Names follow Redis's `INFO` where the meaning is the same, so that dashboards made for Redis
//! find them. Every counter has a cache line of its own: two threads that bump two counters do not
//! disturb each other. Hot paths add once a batch, not once a command.
//!
//! All operations are relaxed: a counter orders nothing and tells no other thread anything but
//! itself.

use std::sync::atomic::{AtomicU64, Ordering};

/// Only grows.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn bump(&self) {
        self.add(1);
    }

    /// `count` more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// How many so far.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// How many there are now.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// `count` came.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// `count` of those that came went.
    pub fn sub(&self, count: u64) {
        self.0.fetch_sub(count, Ordering::Relaxed);
    }

    /// There are `count`.
    pub fn set(&self, count: u64) {
        self.0.store(count, Ordering::Relaxed);
    }

    /// How many there are.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// `CONFIG RESETSTAT` leaves what is there now.
    fn reset(&self) {}
}

/// What a row of the list is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Only grows, until `CONFIG RESETSTAT`.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// Where `INFO` shows a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Section {
    /// `# Clients`.
    Clients,
    /// `# Memory`, after Redis's fields.
    Memory,
    /// `# Persistence`, after Redis's fields.
    Persistence,
    /// `# Stats`, as Redis has it.
    Stats,
    /// What Redis has no word for: quorums, forwarding, repair.
    Quorum,
    /// Links to peers.
    Peers,
}

/// One row of the list, as it is now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// Its name in `INFO`.
    pub name: &'static str,
    /// What it counts, in a sentence.
    pub meaning: &'static str,
    /// Where it is shown.
    pub section: Section,
    /// Counter or gauge.
    pub kind: Kind,
    /// How many.
    pub value: u64,
}

macro_rules! metrics {
    ($($section:ident { $($kind:ident $name:ident: $meaning:literal,)* })*) => {
        /// Everything a node counts.
        #[derive(Debug, Default)]
        pub struct Metrics {
            $($(#[doc = $meaning] pub $name: $kind,)*)*
        }

        impl Metrics {
            /// Every row, section by section, as it is now.
            pub fn rows(&self) -> Vec<Row> {
                vec![$($(Row {
                    name: stringify!($name),
                    meaning: $meaning,
                    section: Section::$section,
                    kind: Kind::$kind,
                    value: self.$name.value(),
                },)*)*]
            }

            /// Sets every counter to zero (`CONFIG RESETSTAT`); gauges stay.
            pub fn reset(&self) {
                $($(self.$name.reset();)*)*
            }
        }
    };
}

metrics! {
    Clients {
        Gauge connected_clients: "Clients connected now.",
    }
    Memory {
        Counter cold_reads: "Values fetched from disk because a command asked for them.",
        Counter cold_reads_waited: "Those of them that the system's cache did not hold.",
        Counter cold_read_errors: "Those of them that failed.",
        Counter cooled: "Values that left memory and are on disk only.",
        Counter warmed: "Values that came back into memory.",
        Counter oom: "-OOM replies: memory is full and nothing can leave it, nothing done.",
    }
    Persistence {
        Gauge damaged_vnodes: "Vnodes whose log lost records that no replica has restored yet.",
        Counter log_segments_compacted: "Segments compacted and removed.",
        Counter log_bytes_moved: "Bytes that compaction wrote again because they were live.",
        Counter misconf: "-MISCONF replies: the log cannot be written, nothing done.",
    }
    Stats {
        Counter total_connections_received: "Connections accepted.",
        Counter rejected_connections: "Connections refused at the limit of clients.",
        Counter total_commands_processed: "Commands run, whoever coordinated them.",
        Counter total_net_input_bytes: "Bytes read from clients.",
        Counter total_net_output_bytes: "Bytes written to clients.",
        Counter total_reads_processed: "read(2) calls on client sockets that brought bytes.",
        Counter total_writes_processed: "write(2) calls on client sockets.",
        Counter total_error_replies: "Error replies sent.",
        Counter expired_keys: "Keys deleted because their time had come.",
        Counter evicted_keys: "Keys deleted to stay below maxmemory.",
        Counter keyspace_hits: "Keys looked up by a read and found.",
        Counter keyspace_misses: "Keys looked up by a read and not found.",
    }
    Quorum {
        Counter forwarded: "Commands sent on to another coordinator.",
        Counter forwarded_here: "Commands run here for another node's client.",
        Counter quorum_reads: "Reads that asked other replicas.",
        Counter quorum_prechecks: "Writes that asked other replicas before they ran.",
        Counter read_repairs: "Entries written back to replicas that a read saw behind.",
        Counter sloppy_writes: "Writes that stand-ins took part in, because replicas were away.",
        Counter blind_writes: "Writes coordinated here for replicas none of which counted.",
        Counter noquorum: "-NOQUORUM replies: too few replicas, nothing done.",
        Counter tryagain: "-TRYAGAIN replies: too few answers in time, nothing done.",
        Counter clusterdown: "-CLUSTERDOWN replies: nobody could coordinate, nothing done.",
        Counter uncertain: "-UNCERTAIN replies: a write that may or may not survive.",
    }
    Peers {
        Counter suspicions: "Times that a member was not heard for longer than its rhythm explains.",
        Counter sleeps: "Times that this node slept so long that others may have given it up.",
        Gauge connected_peers: "Peers with a link now.",
        Gauge recovering_vnodes: "Vnodes that do not count yet after an unclean start.",
        Gauge hints_keys: "Keys held for replicas that were away.",
        Gauge hints_bytes: "Bytes held for replicas that were away.",
        Counter hints_sent: "Entries sent to the replicas that they were held for.",
        Counter hints_acknowledged: "Those of them that the replica holds.",
        Counter hints_forgotten: "Entries handed on to all replicas, and forgotten.",
        Counter peer_links_lost: "Links to peers that broke.",
        Counter deltas_received: "Changes received from coordinators.",
        Counter deltas_sent: "Changes sent to other replicas.",
        Gauge stream_backlog_bytes: "Bytes of changes kept for peers that have not acknowledged them.",
        Gauge streams_with_gap: "Peers that must compare themselves before a stream is kept for them again.",
        Counter streams_resumed: "Links on which the stream of changes went on without a gap.",
        Counter stream_changes_resumed: "Changes sent again or late on such links.",
        Counter stream_gaps: "Links on which a peer was told to compare itself.",
        Counter stream_backlogs_dropped: "Backlogs dropped because they were over a bound.",
        Counter exchanges: "Tree exchanges finished.",
        Counter exchanges_differing: "Tree exchanges that found a difference.",
        Counter exchange_keys_differing: "Keys that differed in exchanges that this node began.",
        Counter exchange_entries_sent: "Entries sent in exchanges.",
        Counter exchange_entries_received: "Entries received in exchanges.",
        Counter exchange_bytes_sent: "Bytes of entries and trees sent in exchanges.",
        Counter exchange_walk_bytes_sent: "Those of them that were trees and lists of keys, not entries.",
        Counter exchange_bytes_received: "Bytes of entries and trees received in exchanges.",
        Counter tree_buckets_checked: "Buckets of hash trees worked out anew, to see whether they are right.",
        Counter tree_buckets_mended: "Those of them that were wrong.",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn counters_count_and_gauges_swing() {
        let metrics = Metrics::default();
        metrics.total_commands_processed.add(16);
        metrics.total_commands_processed.bump();
        metrics.connected_clients.add(3);
        metrics.connected_clients.sub(1);
        metrics.recovering_vnodes.set(4);
        let value = |name| metrics.rows().iter().find(|row| row.name == name).unwrap().value;
        assert_eq!(value("total_commands_processed"), 17);
        assert_eq!(value("connected_clients"), 2);
        metrics.reset();
        assert_eq!(value("total_commands_processed"), 0);
        assert_eq!((value("connected_clients"), value("recovering_vnodes")), (2, 4));
    }

    #[test]
    fn every_row_has_its_own_name_and_its_meaning() {
        let rows = Metrics::default().rows();
        let names: BTreeSet<_> = rows.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), rows.len());
        assert!(rows.iter().all(|row| row.meaning.ends_with('.')));
    }

    #[test]
    fn a_counter_has_a_cache_line() {
        assert_eq!((size_of::<Counter>(), align_of::<Gauge>()), (64, 64));
    }
}
