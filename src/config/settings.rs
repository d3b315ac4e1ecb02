//! The settings of `kvorum server`, checked and typed.
//!
//! Invariant of every [`Settings`] there is: this node is one of the members, member ids and
//! addresses are distinct, and every number is within what its row allows.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::ArgMatches;
use tracing_subscriber::EnvFilter;

use crate::base::id::NodeId;
use crate::base::limits::{QUERY_BUFFER_MAX, REPLICAS_MAX, VALUE_SIZE_MAX, VNODES_MAX};
use crate::node::engine::{FSYNC_NAMES, fsync_name, fsync_named};
use crate::ring::contract::{Contract, ContractError};
use crate::ring::member::Member;
use crate::ring::slot::{is_vnode_count, vnode_count_for};
use crate::ring::topology::MEMBERS_MAX;
use crate::storage::log::Fsync;

use super::row::{ROWS, Row, row};
use super::secret::Secret;
use super::source::{ConfigError, Given, Origin, Sources};
use super::value::{host, member_text, members, name, number, peer_port_of, port, size, yes_no};

/// How the log is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Everything that a node is told at its start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// This node.
    pub node: NodeId,
    /// The address that both ports are bound to.
    pub bind: IpAddr,
    /// The port for clients.
    pub port: u16,
    /// The port for peers.
    pub peer_port: u16,
    /// Where others find this node.
    pub announce_host: String,
    /// The folder for this node's files. It may not exist yet.
    pub data_dir: PathBuf,
    /// Threads of the runtime.
    pub threads: usize,
    /// The cluster's name.
    pub cluster: String,
    /// Every node of the cluster, this one among them, in the order of ids.
    pub members: Vec<Member>,
    /// What peers prove to each other; without it anybody is a peer.
    pub secret: Option<Secret>,
    /// The number of vnodes, a power of two.
    pub vnodes: u16,
    /// N, R and W as asked for; the topology caps them by the number of members.
    pub contract: Contract,
    /// How long a command waits for other nodes.
    pub request_timeout: Duration,
    /// In how long each vnode's copies are compared once; zero: only after failures.
    pub exchange_interval: Duration,
    /// The most bytes a second that mending other copies may send; 0: no limit.
    pub exchange_rate: u64,
    /// The most bytes held for nodes that are away.
    pub hints_max: u64,
    /// The most bytes for keys, values and tables; 0: no limit.
    pub maxmemory: u64,
    /// When what was written is made durable.
    pub fsync: Fsync,
    /// Bytes of unconfirmed changes kept for each peer.
    pub stream_backlog_size: usize,
    /// How long they are kept for a peer that is away.
    pub stream_backlog_age: Duration,
    /// Bytes after which a segment of the log is sealed.
    pub segment_size: u32,
    /// Lanes of a log that is made; one that is there keeps its own.
    pub lanes: u16,
    /// Whether vnodes are served although they lost records for good.
    pub accept_damage: bool,
    /// The password of clients.
    pub requirepass: Option<Secret>,
    /// The most clients at a time.
    pub maxclients: usize,
    /// Idle connections are closed after so long.
    pub timeout: Option<Duration>,
    /// Silent connections are probed so often.
    pub tcp_keepalive: Option<Duration>,
    /// The largest argument, in bytes.
    pub proto_max_bulk_len: usize,
    /// The most unfinished input of a connection, in bytes.
    pub client_query_buffer_limit: usize,
    /// The most unread replies of a connection, in bytes.
    pub client_output_buffer_limit: Option<usize>,
    /// The log's filter, in the syntax of `tracing_subscriber::EnvFilter`.
    pub log: String,
    /// The log's format.
    pub log_format: LogFormat,
}

impl Settings {
    /// The settings that flags (of [`super::row::server_command`]), environment and file give.
    pub fn from_command_line(flags: &ArgMatches) -> Result<Settings, ConfigError> {
        Settings::read(&Sources::gather(flags, |variable| std::env::var_os(variable))?)
    }

    /// The settings that `sources` give. Reads the secret's file if one is named.
    pub fn read(sources: &Sources) -> Result<Settings, ConfigError> {
        let read = Reading { sources };
        let place = Place::read(&read)?;
        let contract = read.contract()?;
        let threads = read.number("threads", threads(), 1..=1_024)?;
        read.only("maxmemory-policy", "noeviction", "Kvorum deletes no keys to save memory")?;
        read.only("appendonly", "yes", "the log is where the data is")?;
        let megabyte = 1 << 20;
        let seconds = |name, default| {
            let seconds = read.number(name, default, 0..=i32::MAX as u64)?;
            Ok((seconds > 0).then_some(Duration::from_secs(seconds)))
        };
        Ok(Settings {
            threads: threads as usize,
            cluster: read.one("cluster", "kvorum".to_owned(), name)?,
            secret: read.secret()?,
            vnodes: read.one("vnodes", vnode_count_for(place.members.len()), vnode_count)?,
            contract,
            request_timeout: Duration::from_millis(read.number(
                "request-timeout-ms",
                2_000,
                1..=600_000,
            )?),
            exchange_interval: seconds("exchange-interval", 10)?.unwrap_or_default(),
            exchange_rate: match read.size("exchange-rate", 32 << 20, 0..=1 << 40)? as u64 {
                0 => 0,
                rate => rate.max(megabyte),
            },
            hints_max: read.size("hints-max", 256 << 20, 0..=1 << 40)? as u64,
            maxmemory: read.size("maxmemory", 0, 0..=MEMORY_MAX)? as u64,
            fsync: read.one("appendfsync", Fsync::Everysec, fsync)?,
            stream_backlog_size: read.size("stream-backlog-size", 64 << 20, megabyte..=1 << 40)?,
            stream_backlog_age: Duration::from_secs(read.number(
                "stream-backlog-age",
                600,
                1..=7 * 86_400,
            )?),
            segment_size: read.size("segment-size", 64 << 20, 1 << 20..=1 << 30)? as u32,
            lanes: read.number("lanes", (threads / 2).clamp(1, LANES_MAX), 1..=LANES_MAX)? as u16,
            accept_damage: read.one("accept-damage", false, yes_no)?,
            requirepass: read.text("requirepass").filter(|text| !text.is_empty()).map(Secret::new),
            maxclients: read.number("maxclients", 10_000, 1..=1_000_000)? as usize,
            timeout: seconds("timeout", 0)?,
            tcp_keepalive: seconds("tcp-keepalive", 300)?,
            proto_max_bulk_len: read.size(
                "proto-max-bulk-len",
                VALUE_SIZE_MAX,
                megabyte..=VALUE_SIZE_MAX as u64,
            )?,
            client_query_buffer_limit: read.size(
                "client-query-buffer-limit",
                QUERY_BUFFER_MAX,
                megabyte..=QUERY_BUFFER_MAX as u64,
            )?,
            client_output_buffer_limit: Some(read.size(
                "client-output-buffer-limit",
                1 << 30,
                0..=1 << 40,
            )?)
            .filter(|&limit| limit > 0),
            log: read.one("log", "info".to_owned(), |text| match EnvFilter::try_new(text) {
                Ok(_) => Ok(text.to_owned()),
                Err(why) => Err(format!("must be a log filter such as info or debug: {why}")),
            })?,
            log_format: read.one("log-format", LogFormat::Text, |text| match text {
                "text" => Ok(LogFormat::Text),
                "json" => Ok(LogFormat::Json),
                _ => Err("must be text or json".to_owned()),
            })?,
            data_dir: match read.text("data-dir") {
                Some(folder) => PathBuf::from(folder),
                None => PathBuf::from("kvorum-data").join(place.node.to_string()),
            },
            node: place.node,
            bind: place.bind,
            port: place.port,
            peer_port: place.peer_port,
            announce_host: place.announce_host,
            members: place.members,
        })
    }

    /// This node as the roster knows it.
    pub fn own_member(&self) -> &Member {
        let own = self.members.iter().find(|member| member.node == self.node);
        own.expect("this node is one of the members")
    }

    /// The flags with which `kvorum` becomes this node. Secrets are not among them: they go by
    /// [`Settings::server_environment`].
    pub fn server_arguments(&self) -> Vec<OsString> {
        let mut arguments = vec![OsString::from("server")];
        for row in ROWS {
            if let Some(text) = self.text_of(row) {
                arguments.push(format!("--{}", row.name).into());
                arguments.push(text);
            }
        }
        arguments
    }

    /// The environment variables that go with [`Settings::server_arguments`].
    pub fn server_environment(&self) -> Vec<(String, String)> {
        let secrets = [("secret", &self.secret), ("requirepass", &self.requirepass)];
        let pair = |(name, secret): (&str, &Option<Secret>)| {
            Some((row(name)?.variable(), secret.as_ref()?.reveal().to_owned()))
        };
        secrets.into_iter().filter_map(pair).collect()
    }

    /// What a careful reader of these settings would remark: one line each, for the log.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        let holders = self.members.iter().filter(|member| member.weight > 0).count();
        let kept = self.contract.capped(holders);
        if kept != self.contract && self.members.len() > 1 {
            remarks.push(format!("{} is kept as {kept} with {holders} nodes", self.contract));
        }
        let own = self.own_member();
        if (own.client_port, own.peer_port) != (self.port, self.peer_port) {
            remarks.push(format!(
                "this node listens on {} and {}, but members name {} and {}",
                self.port, self.peer_port, own.client_port, own.peer_port
            ));
        }
        if self.secret.is_none() && (self.members.len() > 1 || !self.bind.is_loopback()) {
            remarks.push("there is no secret: whoever reaches the peer port is a peer".to_owned());
        }
        if self.accept_damage {
            remarks
                .push("accept-damage: vnodes that lost records are served as they are".to_owned());
        }
        if self.requirepass.is_none() && !self.bind.is_loopback() {
            remarks.push(format!("whoever reaches {}:{} may use it", self.bind, self.port));
        }
        remarks
    }

    /// The text of a setting as a flag; none for secrets and files that were read.
    fn text_of(&self, row: &Row) -> Option<OsString> {
        let seconds = |period: Option<Duration>| period.map_or(0, |period| period.as_secs());
        let text = match row.name {
            "data-dir" => return Some(self.data_dir.clone().into()),
            "node-id" => self.node.0.to_string(),
            "bind" => self.bind.to_string(),
            "port" => self.port.to_string(),
            "peer-port" => self.peer_port.to_string(),
            "announce-host" => self.announce_host.clone(),
            "threads" => self.threads.to_string(),
            "cluster" => self.cluster.clone(),
            "members" => self.members.iter().map(member_text).collect::<Vec<_>>().join(","),
            "vnodes" => self.vnodes.to_string(),
            "n" => self.contract.n().to_string(),
            "r" => self.contract.r().to_string(),
            "w" => self.contract.w().to_string(),
            "request-timeout-ms" => self.request_timeout.as_millis().to_string(),
            "exchange-interval" => self.exchange_interval.as_secs().to_string(),
            "exchange-rate" => self.exchange_rate.to_string(),
            "hints-max" => self.hints_max.to_string(),
            "maxmemory" => self.maxmemory.to_string(),
            "maxmemory-policy" => "noeviction".to_owned(),
            "appendonly" => "yes".to_owned(),
            "appendfsync" => fsync_name(self.fsync).to_owned(),
            "stream-backlog-size" => self.stream_backlog_size.to_string(),
            "stream-backlog-age" => self.stream_backlog_age.as_secs().to_string(),
            "segment-size" => self.segment_size.to_string(),
            "lanes" => self.lanes.to_string(),
            "accept-damage" => if self.accept_damage { "yes" } else { "no" }.to_owned(),
            "maxclients" => self.maxclients.to_string(),
            "timeout" => seconds(self.timeout).to_string(),
            "tcp-keepalive" => seconds(self.tcp_keepalive).to_string(),
            "proto-max-bulk-len" => self.proto_max_bulk_len.to_string(),
            "client-query-buffer-limit" => self.client_query_buffer_limit.to_string(),
            "client-output-buffer-limit" => {
                self.client_output_buffer_limit.unwrap_or(0).to_string()
            }
            "log" => self.log.clone(),
            "log-format" => match self.log_format {
                LogFormat::Text => "text".to_owned(),
                LogFormat::Json => "json".to_owned(),
            },
            _ => return None,
        };
        Some(text.into())
    }
}

/// The most memory that may be named: beyond any machine's.
const MEMORY_MAX: u64 = 1 << 50;

/// The most lanes: more than any disk has use for.
const LANES_MAX: u64 = 64;

fn fsync(text: &str) -> Result<Fsync, String> {
    let names = FSYNC_NAMES.map(|(name, _)| name).join(", ");
    fsync_named(text).ok_or_else(|| format!("must be one of {names}"))
}

/// Threads when nobody says how many.
/// One core is left to the kernel's share of the network work and to everyone else: measured, a
/// node with a thread on every core spends the last one on waking threads.
fn threads() -> u64 {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64 - 1).max(1)
}

fn vnode_count(text: &str) -> Result<u16, String> {
    let count = text.parse().ok().filter(|&count| is_vnode_count(count));
    count.ok_or_else(|| format!("must be a power of two from 1 to {VNODES_MAX}"))
}

/// Reads settings one by one.
struct Reading<'a> {
    sources: &'a Sources,
}

impl Reading<'_> {
    fn text(&self, name: &str) -> Option<String> {
        self.sources.get(name).map(|given| given.text)
    }

    /// The value of `name`, if it was given.
    fn given<T>(
        &self,
        name: &str,
        value: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(given) = self.sources.get(name) else { return Ok(None) };
        value(&given.text).map(Some).map_err(|allowed| given.refuse(allowed))
    }

    fn one<T>(
        &self,
        name: &str,
        default: T,
        value: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        Ok(self.given(name, value)?.unwrap_or(default))
    }

    /// Refuses everything but `value`, the only one that there is.
    fn only(&self, name: &str, value: &str, why: &str) -> Result<(), ConfigError> {
        let check = |text: &str| match text.eq_ignore_ascii_case(value) {
            true => Ok(()),
            false => Err(format!("must be {value}: {why}")),
        };
        self.one(name, (), check)
    }

    fn number(
        &self,
        name: &str,
        default: u64,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<u64, ConfigError> {
        self.one(name, default, |text| number(text, range.clone()))
    }

    fn size(
        &self,
        name: &str,
        default: usize,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<usize, ConfigError> {
        self.one(name, default, |text| size(text, range.clone()))
    }

    /// N, R and W. Who says only N gets a W that fits.
    fn contract(&self) -> Result<Contract, ConfigError> {
        let count = |name, default| self.number(name, default, 1..=REPLICAS_MAX as u64);
        let n = count("n", 3)? as usize;
        let (r, w) = (count("r", 1)? as usize, count("w", n.min(2) as u64)? as usize);
        Contract::new(n, r, w).map_err(|why| {
            let (name, value) = match why {
                ContractError::N(n) => ("n", n),
                ContractError::R { r, .. } => ("r", r),
                ContractError::W { w, .. } => ("w", w),
            };
            let row = row(name).expect("a setting");
            let absent = Given { row, text: value.to_string(), origin: Origin::Default };
            self.sources.get(name).unwrap_or(absent).refuse(why.to_string())
        })
    }

    fn secret(&self) -> Result<Option<Secret>, ConfigError> {
        let Some(file) = self.sources.get("secret-file") else {
            return self.given("secret", secret);
        };
        if let Some(both) = self.sources.get("secret") {
            return Err(both.refuse("cannot be given together with secret-file"));
        }
        let text = std::fs::read_to_string(&file.text)
            .map_err(|why| file.refuse(format!("must be a readable file: {why}")))?;
        secret(text.trim_end_matches(['\r', '\n']))
            .map(Some)
            .map_err(|allowed| file.refuse(allowed))
    }
}

fn secret(text: &str) -> Result<Secret, String> {
    match text {
        "" => Err("must not be empty".to_owned()),
        text => Ok(Secret::new(text)),
    }
}

/// Who this node is and where it is found: settings that depend on each other.
struct Place {
    node: NodeId,
    bind: IpAddr,
    port: u16,
    peer_port: u16,
    announce_host: String,
    members: Vec<Member>,
}

/// The port of a node that is told none.
const PORT: u16 = 6_379;

impl Place {
    fn read(read: &Reading<'_>) -> Result<Place, ConfigError> {
        let bind: IpAddr = read.one("bind", IpAddr::from([127, 0, 0, 1]), |text| {
            text.parse().map_err(|_| "must be an IP address to listen on".to_owned())
        })?;
        let announced = read.given("announce-host", host)?;
        let node = read.given("node-id", |text| number(text, 1..=65_535))?;
        let node = node.map(|id| NodeId(id as u16));
        let own_port = read.given("port", port)?;
        let own_host = announced.clone().unwrap_or_else(|| reachable(bind).to_string());
        let listed = read.given("members", |text| match members(text)? {
            list if list.len() > MEMBERS_MAX => Err(format!("must be at most {MEMBERS_MAX}")),
            list => Ok(list),
        })?;
        let own = match &listed {
            None => Member::new(node.unwrap_or(NodeId(1)), &own_host, own_port.unwrap_or(PORT)),
            Some(list) => find_own(read, list, node, &own_host, own_port.unwrap_or(PORT))?,
        };
        let port = own_port.unwrap_or(own.client_port);
        let peer_port = match read.given("peer-port", super::value::port)? {
            Some(port) => port,
            None if listed.is_some() && port == own.client_port => own.peer_port,
            None => peer_port_of(port).map_err(|allowed| refuse_port(read, port, allowed))?,
        };
        if peer_port == port {
            let allowed = "the port for clients and the port for peers must differ".to_owned();
            return Err(refuse_port(read, port, allowed));
        }
        Ok(Place {
            node: own.node,
            bind,
            port,
            peer_port,
            announce_host: announced.unwrap_or_else(|| own.host.clone()),
            members: listed.unwrap_or_else(|| vec![Member { peer_port, ..own }]),
        })
    }
}

/// The address by which this machine reaches what listens on `bind`.
fn reachable(bind: IpAddr) -> IpAddr {
    match bind {
        IpAddr::V4(address) if address.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(address) if address.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        address => address,
    }
}

fn refuse_port(read: &Reading<'_>, port: u16, allowed: String) -> ConfigError {
    let row = row("port").expect("a setting");
    let absent = Given { row, text: port.to_string(), origin: Origin::Default };
    read.sources.get("port").unwrap_or(absent).refuse(allowed)
}

/// Which of the members this node is: by its id, or else by its address.
fn find_own(
    read: &Reading<'_>,
    list: &[Member],
    node: Option<NodeId>,
    host: &str,
    port: u16,
) -> Result<Member, ConfigError> {
    let is_own = |member: &&Member| match node {
        Some(node) => member.node == node,
        None => member.host == host && member.client_port == port,
    };
    if let Some(own) = list.iter().find(is_own) {
        return Ok(own.clone());
    }
    match (read.sources.get("node-id"), list) {
        (Some(given), _) => Err(given.refuse("must be the id of one of the members")),
        (None, [only]) => Ok(only.clone()),
        (None, _) => Err(ConfigError::NodeUnknown { address: format!("{host}:{port}") }),
    }
}

#[cfg(test)]
mod tests;
