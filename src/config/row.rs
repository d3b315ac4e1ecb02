//! Every setting of `kvorum server`, once: its name, its default and what it means.
//!
//! The flag, the environment variable, the key in the file, the help and the check of
//! `docs/configuration.md` all come from its row. When you add a row, also read it in
//! `settings.rs` (`Settings::read` and `Settings::text_of`) and describe it in the page.

use clap::{Arg, Command};

/// A setting.
#[derive(Debug)]
pub struct Row {
    /// Its name: `--name`, `KVORUM_NAME` and `name = …` in the file.
    pub name: &'static str,
    /// The heading it stands under in the help.
    pub group: &'static str,
    /// What stands for the value in the help.
    pub value: &'static str,
    /// What holds if nobody says anything, in words.
    pub default: &'static str,
    /// What it does.
    pub help: &'static str,
    /// Whether its value must never be shown.
    pub secret: bool,
    /// Another name for the same setting, wherever its name may stand.
    pub alias: Option<&'static str>,
}

impl Row {
    const fn new(group: &'static str, [name, value, default, help]: [&'static str; 4]) -> Row {
        Row { name, group, value, default, help, secret: false, alias: None }
    }

    const fn secret(self) -> Row {
        Row { secret: true, ..self }
    }

    const fn alias(self, alias: &'static str) -> Row {
        Row { alias: Some(alias), ..self }
    }

    /// Its environment variable.
    pub fn variable(&self) -> String {
        variable_of(self.name)
    }

    /// Its environment variables: that of its name, then that of its alias.
    pub fn variables(&self) -> impl Iterator<Item = String> {
        std::iter::once(self.name).chain(self.alias).map(variable_of)
    }
}

fn variable_of(name: &str) -> String {
    format!("KVORUM_{}", name.to_uppercase().replace('-', "_"))
}

const NODE: &str = "This node";
const CLUSTER: &str = "The cluster (the same on every node)";
const COPIES: &str = "Copies of a key (the same on every node)";
const REPAIR: &str = "Repair of copies that differ";
const STORAGE: &str = "Memory and disk";
const PEERS: &str = "Other nodes";
const CLIENTS: &str = "Clients";
const LOG: &str = "Log and file";

/// All settings, in the order of the help.
#[rustfmt::skip]
pub static ROWS: &[Row] = &[
    Row::new(NODE, ["node-id", "ID", "found by its own address in --members, else 1",
        "This node's number, from 1 to 65535. It never changes; a node whose disk was wiped gets a new one"]),
    Row::new(NODE, ["bind", "ADDRESS", "127.0.0.1",
        "The IP address to listen on; 0.0.0.0 or :: listens on all"]),
    Row::new(NODE, ["port", "PORT", "6379",
        "The port for Redis clients. If --members names this node, the port given there is the default"]),
    Row::new(NODE, ["peer-port", "PORT", "the client port + 10000",
        "The port for the other nodes"]),
    Row::new(NODE, ["announce-host", "HOST", "the host in --members, else the bind address",
        "Where clients and other nodes find this node, if that is not the address it binds"]),
    Row::new(NODE, ["data-dir", "DIR", "kvorum-data/nID",
        "The folder for this node's files; made if it is not there"]),
    Row::new(NODE, ["threads", "COUNT", "one per core but one",
        "Threads that serve connections"]),

    Row::new(CLUSTER, ["cluster", "NAME", "kvorum",
        "The cluster's name; nodes of another name are turned away"]),
    Row::new(CLUSTER, ["members", "LIST", "this node alone",
        "Every node, this one too: 1=host:6379,2=host:6379 and so on. Each may end with @PEERPORT, ';zone=NAME' and ';weight=NUMBER' (quote the semicolons for the shell)"]),
    Row::new(CLUSTER, ["secret", "TEXT", "none",
        "What nodes prove to each other before they talk. Others can read a flag: better use the environment or --secret-file"]).secret(),
    Row::new(CLUSTER, ["secret-file", "FILE", "none",
        "A file that holds the secret"]),
    Row::new(CLUSTER, ["vnodes", "COUNT", "256, or 1024 for more than 16 nodes",
        "Pieces that the keys are divided into, a power of two up to 4096. It can never be changed"]),

    Row::new(COPIES, ["n", "COUNT", "3",
        "N: how many nodes hold a copy of a key (at most as many as there are)"]),
    Row::new(COPIES, ["r", "COUNT", "1",
        "R: how many copies a read asks"]),
    Row::new(COPIES, ["w", "COUNT", "2",
        "W: how many copies a write must reach before it is acknowledged. With R + W > N no read is stale, but a minority cut off from the rest answers errors"]),
    Row::new(COPIES, ["request-timeout-ms", "MS", "2000",
        "How long a command waits for other nodes"]),

    Row::new(REPAIR, ["exchange-interval", "SECONDS", "10",
        "In how many seconds each vnode's copies are compared once, so that what differs is found and mended; 0 compares them only after failures"]),
    Row::new(REPAIR, ["exchange-rate", "SIZE", "32mb",
        "The most bytes a second that this node sends to mend other copies, from 1mb; 0 means no limit"]),
    Row::new(REPAIR, ["hints-max", "SIZE", "256mb",
        "The most that this node holds for other nodes while they are away. Beyond it, writes that need a stand-in are refused"]),

    Row::new(STORAGE, ["maxmemory", "SIZE", "0",
        "The most memory for keys, values and the tables that find them. Beyond it the values that were not used for long stay on disk only; nothing is deleted. 0 means no limit"]),
    Row::new(STORAGE, ["maxmemory-policy", "POLICY", "noeviction",
        "Only noeviction: when not even keys fit into memory, writes answer -OOM"]),
    Row::new(STORAGE, ["appendonly", "yes", "yes",
        "Only yes: the log is where the data is"]),
    Row::new(STORAGE, ["appendfsync", "WHEN", "everysec",
        "When a write survives the loss of the machine: always (before it is acknowledged), everysec, or no (when the system likes). A killed process loses nothing in any case"]).alias("fsync"),
    Row::new(STORAGE, ["segment-size", "SIZE", "64mb",
        "The size of the log's files, from 1mb to 1gb"]),
    Row::new(STORAGE, ["lanes", "COUNT", "half the threads, at least 1",
        "Logs that are written side by side. Only for a fresh --data-dir: the count stays with it"]),
    Row::new(STORAGE, ["accept-damage", "yes|no", "no",
        "Serves vnodes whose log lost records although no replica can restore them"]),

    Row::new(PEERS, ["stream-backlog-size", "SIZE", "64mb",
        "The most that is kept, for each other node, of changes it has not confirmed: a node that comes back is sent them. Beyond it they are dropped, and that node compares everything instead"]),
    Row::new(PEERS, ["stream-backlog-age", "SECONDS", "600",
        "How long such changes are kept for a node that is away"]),

    Row::new(CLIENTS, ["requirepass", "PASSWORD", "none",
        "The password that clients must give with AUTH"]).secret(),
    Row::new(CLIENTS, ["maxclients", "COUNT", "10000",
        "The most clients at a time"]),
    Row::new(CLIENTS, ["timeout", "SECONDS", "0",
        "Closes connections that were idle for so long; 0 never does"]),
    Row::new(CLIENTS, ["tcp-keepalive", "SECONDS", "300",
        "How often silent connections are probed; 0 never does"]),
    Row::new(CLIENTS, ["proto-max-bulk-len", "SIZE", "512mb",
        "The largest value or argument"]),
    Row::new(CLIENTS, ["client-query-buffer-limit", "SIZE", "1gb",
        "The most unfinished input a connection may hold before it is closed"]),
    Row::new(CLIENTS, ["client-output-buffer-limit", "SIZE", "1gb",
        "The most unread replies a connection may hold before it is closed; 0 means no limit"]),

    Row::new(LOG, ["log", "FILTER", "info",
        "What is logged to standard error: error, warn, info, debug, trace, or by part, as in info,kvorum::peer=debug"]),
    Row::new(LOG, ["log-format", "FORMAT", "text",
        "text for people, json for machines"]),
    Row::new(LOG, ["config", "FILE", "none",
        "A TOML file with settings, each under the name of its flag"]),
];

/// The row called `name`, or whose alias it is.
pub fn row(name: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.name == name || row.alias == Some(name))
}

const AFTER: &str = "\
Each setting may also be given as an environment variable (--peer-port as KVORUM_PEER_PORT) or in
the file named by --config (peer-port = 16379). A flag goes before the environment, the environment
before the file. SIZE is a number of bytes, or has a unit: 1k is 1000, 1kb is 1024; so m, mb, g, gb.

Example, the first of three nodes on one machine (to have all three at once: kvorum dev):

  M=1=127.0.0.1:6379,2=127.0.0.1:6380,3=127.0.0.1:6381
  KVORUM_SECRET=change-me kvorum server --members $M --port 6379";

/// `kvorum server` as the command line knows it. Values are texts; [`super::settings`] reads them.
pub fn server_command() -> Command {
    let arg = |row: &'static Row| {
        Arg::new(row.name)
            .long(row.name)
            .visible_aliases(row.alias)
            .value_name(row.value)
            .help(format!("{} [default: {}]", row.help, row.default))
            .help_heading(row.group)
            .allow_negative_numbers(true)
    };
    Command::new("server")
        .about("Runs one node until it is told to stop (Ctrl-C or SIGTERM)")
        .args(ROWS.iter().map(arg))
        .after_help(AFTER)
}
