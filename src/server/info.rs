//! INFO and TIME: this node's state in sections, under Redis's names where Redis has them.
//!
//! A field that would be meaningless here (forks, scripts, replication backlogs) is left out
//! rather than told as 0, except where clients wait for it (`loading`, `role`, `maxmemory`).

use std::fmt::{Display, Write};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::base::id::VnodeId;
use crate::base::time::UnixMs;
use crate::command::spec::Spec;
use crate::coordinator::route::Reach;
use crate::metrics::counters::Section as Counted;
use crate::node::engine::{Loading, Work, fsync_name};
use crate::peer::state::LinkState;
use crate::resp::reply::Reply;
use crate::storage::keyspace::VnodeCounts;

use super::Server;
use super::greeting::REDIS_VERSION;
use super::process;
use super::status;

/// Runs one of this file's commands.
pub(super) fn run(server: &Server, spec: &Spec, args: &[&[u8]], out: &mut Reply) {
    match spec.name {
        "time" => time(out),
        _ => out.verbatim(&report(server, &args[1..])),
    }
}

fn time(out: &mut Reply) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    out.array(2);
    out.bulk(since.as_secs().to_string().as_bytes());
    out.bulk(since.subsec_micros().to_string().as_bytes());
}

/// One section: its name, and what fills it.
type Section = (&'static str, fn(&Server, &mut Text));

/// All sections, in the order in which they are shown.
const SECTIONS: &[Section] = &[
    ("Server", about_server),
    ("Clients", about_clients),
    ("Memory", about_memory),
    ("Persistence", about_persistence),
    ("Stats", |server, text| text.counters(server, Counted::Stats)),
    ("Replication", about_replication),
    ("CPU", about_cpu),
    ("Modules", |_, _| {}),
    ("Quorum", about_quorum),
    ("Peers", about_peers),
    ("Cluster", |_, text| text.row("cluster_enabled", 1)),
    ("Keyspace", about_keyspace),
];

/// Words that ask for every section.
const ALL: [&[u8]; 3] = [b"all", b"everything", b"default"];

fn report(server: &Server, asked: &[&[u8]]) -> String {
    let mut text = Text::default();
    for (name, fill) in SECTIONS.iter().filter(|(name, _)| is_asked(name, asked)) {
        if !text.0.is_empty() {
            text.0.push_str("\r\n");
        }
        text.0.push_str("# ");
        text.0.push_str(name);
        text.0.push_str("\r\n");
        fill(server, &mut text);
    }
    text.0
}

fn is_asked(name: &str, asked: &[&[u8]]) -> bool {
    let names = |word: &&[u8]| {
        word.eq_ignore_ascii_case(name.as_bytes())
            || ALL.iter().any(|all| word.eq_ignore_ascii_case(all))
    };
    asked.is_empty() || asked.iter().any(names)
}

/// Lines `name:value`.
#[derive(Default)]
struct Text(String);

impl Text {
    fn row(&mut self, name: &str, value: impl Display) {
        // Writing to a string cannot fail.
        let _ = write!(self.0, "{name}:{value}\r\n");
    }

    /// A number of bytes, and again for people.
    fn size(&mut self, name: &str, bytes: u64) {
        self.row(name, bytes);
        self.row(&format!("{name}_human"), human(bytes));
    }

    /// How far the log has been read, in Redis's words.
    fn progress(&mut self, loading: &Loading, now: UnixMs) {
        let Loading { done, total, started } = *loading;
        let elapsed_s = now.0.saturating_sub(started.0) as f64 / 1_000.0;
        // As Redis: what is left takes as long as what is done took; 1 while nothing is known.
        let eta_s = match done {
            0 => 1.0,
            done => elapsed_s * total.saturating_sub(done) as f64 / done as f64,
        };
        self.row("loading_start_time", started.0 / 1_000);
        self.row("loading_total_bytes", total);
        self.row("loading_loaded_bytes", done);
        let share = done as f64 * 100.0 / total.max(1) as f64;
        self.row("loading_loaded_perc", format_args!("{share:.2}"));
        self.row("loading_eta_seconds", eta_s as u64);
    }

    fn counters(&mut self, server: &Server, section: Counted) {
        for row in server.node.metrics().rows().iter().filter(|row| row.section == section) {
            self.row(row.name, row.value);
        }
    }
}

/// A number of bytes as Redis writes it for people.
fn human(bytes: u64) -> String {
    const UNITS: [char; 5] = ['K', 'M', 'G', 'T', 'P'];
    if bytes < 1_024 {
        return format!("{bytes}B");
    }
    let (mut size, mut unit) = (bytes as f64 / 1_024.0, 0);
    while size >= 1_024.0 && unit + 1 < UNITS.len() {
        size /= 1_024.0;
        unit += 1;
    }
    format!("{size:.2}{}", UNITS[unit])
}

/// Forty hexadecimal digits that name this process among all others.
fn run_id(server: &Server) -> String {
    let node = &server.node;
    let process = format!(
        "{} {} {} {}",
        node.topology().redis_id(node.id()),
        node.boot().0,
        node.started().0,
        std::process::id()
    );
    blake3::hash(process.as_bytes()).to_hex()[..40].to_owned()
}

fn about_server(server: &Server, text: &mut Text) {
    let now = crate::node::now();
    let uptime_s = now.0.saturating_sub(server.node.started().0) / 1_000;
    text.row("redis_version", REDIS_VERSION);
    text.row("kvorum_version", env!("CARGO_PKG_VERSION"));
    text.row("redis_mode", "cluster");
    text.row("os", process::system());
    text.row("arch_bits", usize::BITS);
    text.row("multiplexing_api", "epoll");
    text.row("process_id", std::process::id());
    text.row("run_id", run_id(server));
    text.row("tcp_port", server.options.port);
    text.row("server_time_usec", now.0 * 1_000);
    text.row("uptime_in_seconds", uptime_s);
    text.row("uptime_in_days", uptime_s / 86_400);
    let executable = std::env::current_exe().unwrap_or_default();
    text.row("executable", executable.display());
    text.row("config_file", "");
}

fn about_clients(server: &Server, text: &mut Text) {
    text.counters(server, Counted::Clients);
    let (waits, keys) = server.node.waits();
    text.row("blocked_clients", server.clients.blocked());
    text.row("total_blocking_keys", keys);
    text.row("coordinated_waits", waits);
    text.row("cluster_connections", peers_up(server));
    text.row("maxclients", server.changeable().maxclients);
}

fn about_memory(server: &Server, text: &mut Text) {
    let memory = server.node.memory();
    let resident = process::resident();
    text.size("used_memory", memory.used);
    text.size("used_memory_rss", resident);
    text.size("used_memory_rss_peak", process::resident_peak());
    text.size("used_memory_peak", memory.peak);
    text.row("used_memory_peak_perc", percent(memory.used, memory.peak));
    text.row("used_memory_overhead", memory.tables);
    text.row("used_memory_dataset", memory.blocks);
    text.row("used_memory_dataset_perc", percent(memory.blocks, memory.used));
    text.size("total_system_memory", process::machine_memory());
    text.size("maxmemory", memory.budget);
    text.row("maxmemory_policy", "noeviction");
    text.row("mem_fragmentation_ratio", ratio(resident, memory.used));
    text.row("mem_fragmentation_bytes", resident as i64 - memory.used as i64);
    text.row("mem_aof_buffer", server.node.persistence().pending_bytes);
    text.row("mem_allocator", "jemalloc");
    text.row("hot_keys", memory.hot_keys);
    text.row("cold_keys", memory.cold_keys);
    text.counters(server, Counted::Memory);
}

/// Without data nothing is in fragments.
fn ratio(resident: u64, used: u64) -> String {
    match used {
        0 => "0.00".to_owned(),
        used => format!("{:.2}", resident as f64 / used as f64),
    }
}

fn percent(part: u64, whole: u64) -> String {
    format!("{:.2}%", part as f64 * 100.0 / whole.max(1) as f64)
}

/// What dashboards and clients ask before they trust a node. Redis's `aof_` fields tell of the
/// log, its `rdb_` fields of snapshots.
fn about_persistence(server: &Server, text: &mut Text) {
    let node = &server.node;
    let (now, log) = (crate::node::now(), node.persistence());
    text.row("loading", u8::from(log.loading.is_some()));
    text.row("async_loading", 0);
    text.row("rdb_bgsave_in_progress", u8::from(log.snapshot.since.is_some()));
    text.row("rdb_last_save_time", node.last_save().0 / 1_000);
    text.row("rdb_last_bgsave_status", verdict(log.snapshot.last.is_none_or(|(_, good)| good)));
    text.row("rdb_last_bgsave_time_sec", last_seconds(&log.snapshot));
    text.row("rdb_current_bgsave_time_sec", seconds_under_way(&log.snapshot, now));
    text.row("rdb_saves", log.snapshot.done);
    text.row("aof_enabled", 1);
    text.row("aof_rewrite_in_progress", u8::from(log.rewrite.since.is_some()));
    text.row("aof_rewrite_scheduled", 0);
    text.row("aof_last_rewrite_time_sec", last_seconds(&log.rewrite));
    text.row("aof_current_rewrite_time_sec", seconds_under_way(&log.rewrite, now));
    text.row("aof_last_bgrewrite_status", verdict(log.rewrite.last.is_none_or(|(_, good)| good)));
    text.row("aof_rewrites", log.rewrite.done);
    let error = log.last_write_error.as_ref().or(log.last_sync_error.as_ref());
    text.row("aof_last_write_status", verdict(error.is_none()));
    text.row("aof_current_size", log.log_bytes);
    text.row("aof_buffer_length", log.pending_bytes);
    text.row("aof_pending_bio_fsync", log.syncs);
    text.row("aof_delayed_fsync", log.syncs_delayed);
    text.row("log_fsync", fsync_name(log.fsync));
    text.row("log_lanes", log.lanes);
    text.row("log_segments", log.segments);
    text.row("log_live_bytes", log.live_bytes);
    text.row("log_unsynced_bytes", log.unsynced_bytes);
    for (name, why) in [
        ("log_last_write_error", &log.last_write_error),
        ("log_last_fsync_error", &log.last_sync_error),
    ] {
        // A line end would begin a field of its own.
        text.row(name, why.as_deref().unwrap_or_default().replace(['\r', '\n'], " "));
    }
    text.counters(server, Counted::Persistence);
    if let Some(loading) = &log.loading {
        text.progress(loading, now);
    }
}

fn verdict(good: bool) -> &'static str {
    if good { "ok" } else { "err" }
}

/// Whole seconds that the last job of its kind took; -1: there was none.
fn last_seconds(work: &Work) -> i64 {
    work.last.map_or(-1, |(ms, _)| (ms / 1_000) as i64)
}

/// Whole seconds since a job began; -1: none is under way.
fn seconds_under_way(work: &Work, now: UnixMs) -> i64 {
    work.since.map_or(-1, |since| (now.0.saturating_sub(since.0) / 1_000) as i64)
}

fn about_replication(server: &Server, text: &mut Text) {
    text.row("role", "master");
    text.row("connected_slaves", 0);
    text.row("master_failover_state", "no-failover");
    text.row("master_replid", run_id(server));
    text.row("master_repl_offset", 0);
    text.row("connected_members", peers_up(server));
    for status in server.node.member_statuses() {
        let (name, fields) = status::line(&status);
        text.row(&name, fields);
    }
}

fn about_cpu(_: &Server, text: &mut Text) {
    let (system, user) = process::processor_time();
    text.row("used_cpu_sys", format_args!("{system:.6}"));
    text.row("used_cpu_user", format_args!("{user:.6}"));
}

fn about_quorum(server: &Server, text: &mut Text) {
    let node = &server.node;
    let (topology, contract) = (node.topology(), node.topology().contract());
    text.row("node", node.id());
    text.row("boot", node.boot().0);
    text.row("cluster", topology.cluster());
    text.row("epoch", topology.epoch().0);
    text.row("n", contract.n());
    text.row("r", contract.r());
    text.row("w", contract.w());
    text.row("level", contract.level());
    let coordinated = all_vnodes(server).filter(|&v| node.coordinator(v) == Some(node.id()));
    text.row("vnodes", topology.vnodes());
    text.row("vnodes_held", topology.vnodes_of(node.id()).count());
    text.row("vnodes_coordinated", coordinated.count());
    text.row("vnodes_unsettled", node.vnodes_unsettled());
    text.counters(server, Counted::Quorum);
}

fn all_vnodes(server: &Server) -> impl Iterator<Item = VnodeId> + use<> {
    (0..server.node.topology().vnodes()).map(VnodeId)
}

fn peers_up(server: &Server) -> usize {
    let links = server.node.links();
    links.map_or(0, |links| links.peers().filter(|&peer| links.is_up(peer)).count())
}

fn about_peers(server: &Server, text: &mut Text) {
    let node = &server.node;
    let metrics = node.metrics();
    metrics.connected_peers.set(peers_up(server) as u64);
    metrics.recovering_vnodes.set(node.vnodes_recovering() as u64);
    metrics.streams_with_gap.set(node.streams_with_gap() as u64);
    text.counters(server, Counted::Peers);
    let Some(links) = node.links() else { return };
    for peer in links.peers() {
        let (Some(member), Some(counters), Some(state)) =
            (node.topology().member(peer), links.counters(peer), links.state(peer))
        else {
            continue;
        };
        let link = match state {
            LinkState::Up { boot, since } => {
                let queued = links.outbox(peer).map_or(0, |outbox| outbox.queued_bytes());
                let rtt_us = counters.round_trip_us.read();
                let (boot, age_s) = (boot.0, seconds(since));
                format!("link=up,age_s={age_s},boot={boot},rtt_us={rtt_us},queued_bytes={queued}")
            }
            LinkState::Down { reason, since } => {
                // A comma would end the field.
                let why = reason.to_string().replace([',', '\r', '\n'], ";");
                format!("link=down,age_s={},why={why}", seconds(since))
            }
        };
        let (rate, us, quiet_us) = node.pace_of(peer);
        text.row(
            &format!("pace_{peer}"),
            format_args!("rate={rate},latency_us={us},quiet_us={quiet_us}"),
        );
        let (keys, bytes) = node.hints_for(peer);
        text.row(&format!("hints_for_{peer}"), format_args!("keys={keys},bytes={bytes}"));
        let state = reach_name(node.reach(peer));
        let (received, sent) = (counters.bytes_in.read(), counters.bytes_out.read());
        text.row(
            &format!("peer_{peer}"),
            format_args!(
                "host={},port={},state={state},{link},bytes_in={received},bytes_out={sent}",
                member.host, member.peer_port
            ),
        );
    }
}

fn seconds(since: Instant) -> u64 {
    Instant::now().saturating_duration_since(since).as_secs()
}

/// What is believed of a member, in a word.
pub(super) fn reach_name(reach: Reach) -> &'static str {
    match reach {
        Reach::Up => "up",
        Reach::Down => "down",
        Reach::Recovering => "recovering",
        Reach::Awaited => "awaited",
        Reach::Skewed => "skewed",
    }
}

/// The keys that this node holds as a replica, whoever coordinates them.
fn about_keyspace(server: &Server, text: &mut Text) {
    let counts = |vnode| server.node.keyspace().counts(vnode);
    let held = server.node.topology().vnodes_of(server.node.id());
    let all = held.map(counts).fold(VnodeCounts::default(), |sum, one| VnodeCounts {
        live: sum.live + one.live,
        expiring: sum.expiring + one.expiring,
        held: sum.held + one.held,
        cold: sum.cold + one.cold,
        stored: sum.stored + one.stored,
    });
    if all.live > 0 {
        text.row("db0", format_args!("keys={},expires={},avg_ttl=0", all.live, all.expiring));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_asked_for_by_name_in_any_case() {
        assert!(is_asked("CPU", &[]) && is_asked("CPU", &[b"cpu"]));
        assert!(is_asked("CPU", &[b"foo", b"ALL"]) && is_asked("CPU", &[b"Everything"]));
        assert!(!is_asked("CPU", &[b"server", b"foo"]));
    }

    #[test]
    fn progress_is_told_in_the_words_of_redis() {
        let loading = Loading { done: 250, total: 1_000, started: UnixMs(7_000) };
        let mut text = Text::default();
        text.progress(&loading, UnixMs(9_500));
        assert_eq!(
            text.0,
            "loading_start_time:7\r\nloading_total_bytes:1000\r\nloading_loaded_bytes:250\r\n\
             loading_loaded_perc:25.00\r\nloading_eta_seconds:7\r\n"
        );
        let mut text = Text::default();
        text.progress(&Loading { done: 0, total: 0, started: UnixMs(0) }, UnixMs(0));
        assert!(text.0.ends_with("loading_loaded_perc:0.00\r\nloading_eta_seconds:1\r\n"));
    }

    #[test]
    fn jobs_are_told_in_whole_seconds() {
        let none = Work::default();
        assert_eq!((last_seconds(&none), seconds_under_way(&none, UnixMs(9))), (-1, -1));
        let some = Work { since: Some(UnixMs(1_000)), last: Some((2_900, true)), ..none };
        assert_eq!((last_seconds(&some), seconds_under_way(&some, UnixMs(4_999))), (2, 3));
    }

    #[test]
    fn sizes_are_written_as_redis_writes_them() {
        for (bytes, expected) in [
            (0, "0B"),
            (1_023, "1023B"),
            (1_024, "1.00K"),
            (1_665_424, "1.59M"),
            (25_276_510_208, "23.54G"),
            (u64::MAX, "16384.00P"),
        ] {
            assert_eq!(human(bytes), expected);
        }
    }
}
