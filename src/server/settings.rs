//! CONFIG: what an operator of Redis looks up and changes while the node runs.
//!
//! A row is a name of Redis's with what it is here: a setting of this node that may change, one
//! that may not, or a property that Redis would let one choose and Kvorum does not: such a row
//! can only be "set" to what it is. Nothing is ever partly done: all pairs are read before one is
//! kept.

use crate::base::limits::{QUERY_BUFFER_MAX, VALUE_SIZE_MAX};
use crate::base::size;
use crate::command::fault::Fault;
use crate::command::glob;
use crate::command::number::plain_integer;
use crate::command::spec::Spec;
use crate::node::engine::{FSYNC_NAMES, fsync_name, fsync_named};
use crate::resp::reply::Reply;

use super::saving::SNAPSHOT;
use super::session::Session;
use super::{Changeable, Options, Server};

/// Runs one of CONFIG's subcommands.
pub(super) fn run(
    server: &Server,
    session: &mut Session,
    spec: &Spec,
    args: &[&[u8]],
    out: &mut Reply,
) {
    match spec.short_name() {
        "get" => get(server, &args[2..], out),
        "set" => match set(server, &args[2..]) {
            Ok(()) => {
                session.changeable = server.changeable();
                out.ok();
            }
            Err(text) => out.error(text),
        },
        "resetstat" => {
            server.node.metrics().reset();
            out.ok();
        }
        "rewrite" => out.error("ERR The server is running without a config file"),
        name => unreachable!("CONFIG {name} has a row and no words"),
    }
}

/// What a setting is, and how it reads and changes.
#[derive(Clone, Copy)]
enum Kind {
    /// Read from the node, never changed.
    Own(fn(&Options) -> String),
    /// Always this, and Redis too would not change it while it runs.
    Always(&'static str),
    /// Always this, though Redis would change it.
    Only(&'static str),
    /// The same, with a word of its own on why another value is refused.
    Fixed(&'static str, fn(&str) -> String),
    /// May change.
    May(fn(&Changeable) -> String, fn(&mut Changeable, &str) -> Result<(), String>),
}

struct Row {
    name: &'static str,
    kind: Kind,
}

const fn row(name: &'static str, kind: Kind) -> Row {
    Row { name, kind }
}

/// What Redis lets one choose among.
const POLICIES: [&str; 8] = [
    "volatile-lru",
    "volatile-lfu",
    "volatile-random",
    "volatile-ttl",
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
    "noeviction",
];

/// `appendfsync`, and Kvorum's own name for it.
const FSYNC: Kind = Kind::May(
    |now| fsync_name(now.fsync).to_owned(),
    |next, text| {
        let names = || FSYNC_NAMES.map(|(name, _)| name).join(", ");
        let fsync = fsync_named(text);
        next.fsync = fsync
            .ok_or_else(|| format!("argument(s) must be one of the following: {}", names()))?;
        Ok(())
    },
);

/// All settings, in the order in which they are shown.
const ROWS: &[Row] = &[
    row("bind", Kind::Own(|options| options.bind.clone())),
    row("port", Kind::Own(|options| options.port.to_string())),
    row("dir", Kind::Own(|options| options.data_dir.clone())),
    row("databases", Kind::Always("1")),
    row("cluster-enabled", Kind::Always("yes")),
    row("daemonize", Kind::Always("no")),
    row("supervised", Kind::Always("no")),
    row("cluster-require-full-coverage", Kind::Only("no")),
    row("cluster-allow-reads-when-down", Kind::Only("yes")),
    row("save", Kind::Only("")),
    row("dbfilename", Kind::Always(SNAPSHOT)),
    row("appenddirname", Kind::Always("log")),
    row(
        "appendonly",
        Kind::Fixed("yes", |text| match text {
            "no" => "the log is where the data is, it can't be turned off in Kvorum".to_owned(),
            _ => "argument must be 'yes' or 'no'".to_owned(),
        }),
    ),
    row("appendfsync", FSYNC),
    row("fsync", FSYNC),
    row(
        "maxmemory",
        Kind::May(
            |now| now.maxmemory.to_string(),
            |next, text| memory(text).map(|size| next.maxmemory = size),
        ),
    ),
    row(
        "maxmemory-policy",
        Kind::Fixed("noeviction", |text| {
            if POLICIES.contains(&text) {
                return "Kvorum evicts nothing: what was not used for long stays on disk"
                    .to_owned();
            }
            format!("argument(s) must be one of the following: {}", POLICIES.join(", "))
        }),
    ),
    // What OBJECT ENCODING goes by, and PFADD; under the names of old, too.
    row("hash-max-listpack-entries", Kind::Only("128")),
    row("hash-max-ziplist-entries", Kind::Only("128")),
    row("hash-max-listpack-value", Kind::Only("64")),
    row("hash-max-ziplist-value", Kind::Only("64")),
    row("list-max-listpack-size", Kind::Only("-2")),
    row("list-max-ziplist-size", Kind::Only("-2")),
    row("set-max-intset-entries", Kind::Only("512")),
    row("set-max-listpack-entries", Kind::Only("128")),
    row("set-max-listpack-value", Kind::Only("64")),
    row("zset-max-listpack-entries", Kind::Only("128")),
    row("zset-max-ziplist-entries", Kind::Only("128")),
    row("zset-max-listpack-value", Kind::Only("64")),
    row("zset-max-ziplist-value", Kind::Only("64")),
    row("hll-sparse-max-bytes", Kind::Only("3000")),
    row("notify-keyspace-events", Kind::Only("")),
    row("slowlog-log-slower-than", Kind::Only("-1")),
    row("slowlog-max-len", Kind::Only("0")),
    row("protected-mode", Kind::Only("no")),
    row(
        "requirepass",
        Kind::May(
            |now| now.requirepass.clone().unwrap_or_default(),
            |next, text| {
                next.requirepass = (!text.is_empty()).then(|| text.to_owned());
                Ok(())
            },
        ),
    ),
    row(
        "maxclients",
        Kind::May(
            |now| now.maxclients.to_string(),
            |next, text| {
                number(text, 1, i64::from(u32::MAX)).map(|count| next.maxclients = count as usize)
            },
        ),
    ),
    row(
        "timeout",
        Kind::May(
            |now| now.timeout_s.to_string(),
            |next, text| {
                number(text, 0, i64::from(i32::MAX)).map(|count| next.timeout_s = count as u64)
            },
        ),
    ),
    row(
        "tcp-keepalive",
        Kind::May(
            |now| now.tcp_keepalive_s.to_string(),
            |next, text| {
                number(text, 0, i64::from(i32::MAX))
                    .map(|count| next.tcp_keepalive_s = count as u64)
            },
        ),
    ),
    row(
        "proto-max-bulk-len",
        Kind::May(
            |now| now.proto_max_bulk_len.to_string(),
            |next, text| {
                size_within(text, 1 << 20, VALUE_SIZE_MAX)
                    .map(|size| next.proto_max_bulk_len = size)
            },
        ),
    ),
    row(
        "client-query-buffer-limit",
        Kind::May(
            |now| now.client_query_buffer_limit.to_string(),
            |next, text| {
                size_within(text, 1 << 20, QUERY_BUFFER_MAX)
                    .map(|size| next.client_query_buffer_limit = size)
            },
        ),
    ),
    row(
        "client-output-buffer-limit",
        Kind::May(
            |now| format!("normal {} 0 0", now.client_output_buffer_limit),
            |next, text| output_limit(text).map(|size| next.client_output_buffer_limit = size),
        ),
    ),
];

fn find(name: &[u8]) -> Option<&'static Row> {
    ROWS.iter().find(|row| name.eq_ignore_ascii_case(row.name.as_bytes()))
}

impl Row {
    fn value(&self, options: &Options, now: &Changeable) -> String {
        match self.kind {
            Kind::Own(read) => read(options),
            Kind::Always(value) | Kind::Only(value) | Kind::Fixed(value, _) => value.to_owned(),
            Kind::May(read, _) => read(now),
        }
    }

    /// Whether it is settled at the start, whatever is asked.
    fn is_immutable(&self) -> bool {
        matches!(self.kind, Kind::Own(_) | Kind::Always(_))
    }

    fn change(&self, next: &mut Changeable, text: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(text).map_err(|_| "argument must be UTF-8".to_owned())?;
        match self.kind {
            Kind::May(_, change) => change(next, text),
            Kind::Only(value) if value.eq_ignore_ascii_case(text) => Ok(()),
            Kind::Fixed(value, _) if value.eq_ignore_ascii_case(text) => Ok(()),
            Kind::Fixed(_, why) => Err(why(&text.to_ascii_lowercase())),
            Kind::Only(value) => Err(format!("argument must be '{value}' in Kvorum")),
            Kind::Own(_) | Kind::Always(_) => Err(IMMUTABLE.to_owned()),
        }
    }
}

const IMMUTABLE: &str = "can't set immutable config";

/// A whole number from `least` to `most`.
fn number(text: &str, least: i64, most: i64) -> Result<i64, String> {
    match plain_integer(text.as_bytes()) {
        None => Err("argument couldn't be parsed into an integer".to_owned()),
        Some(number) if (least..=most).contains(&number) => Ok(number),
        Some(_) => Err(between(least, most)),
    }
}

fn between(least: i64, most: i64) -> String {
    format!("argument must be between {least} and {most} inclusive")
}

fn bytes(text: &str) -> Option<usize> {
    usize::try_from(size::bytes(text)?).ok()
}

/// A number of bytes, however many.
fn memory(text: &str) -> Result<u64, String> {
    size::bytes(text).ok_or_else(|| "argument must be a memory value".to_owned())
}

/// A number of bytes from `least` to `most`.
fn size_within(text: &str, least: usize, most: usize) -> Result<usize, String> {
    match bytes(text) {
        None => Err("argument must be a memory value".to_owned()),
        Some(size) if (least..=most).contains(&size) => Ok(size),
        Some(_) => Err(between(least as i64, most as i64)),
    }
}

/// The hard limit of class `normal` in Redis's `class hard soft seconds …`, or a size alone.
/// Clients of the other classes there are none, so their limits are kept whatever they are.
fn output_limit(text: &str) -> Result<usize, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    if let [only] = words[..]
        && let Some(limit) = bytes(only)
    {
        return Ok(limit);
    }
    if words.is_empty() || !words.len().is_multiple_of(4) {
        return Err("Wrong number of arguments in buffer limit configuration.".to_owned());
    }
    let mut limit = None;
    for class in words.chunks(4) {
        let [name, hard, soft, seconds] = class else { continue };
        let numbers = (bytes(hard), bytes(soft), seconds.parse::<u32>());
        let (Some(hard), Some(_), Ok(_)) = numbers else {
            let why = "Error in hard, soft or soft_seconds setting in buffer limit configuration.";
            return Err(why.to_owned());
        };
        match name.to_ascii_lowercase().as_str() {
            "normal" => limit = Some(hard),
            "slave" | "replica" | "pubsub" => {}
            _ => {
                let why = "Invalid client class specified in buffer limit configuration.";
                return Err(why.to_owned());
            }
        }
    }
    limit.ok_or_else(|| "argument must name class 'normal' in Kvorum".to_owned())
}

fn get(server: &Server, patterns: &[&[u8]], out: &mut Reply) {
    let asked = |row: &&Row| {
        patterns.iter().any(|pattern| glob::matches_nocase(pattern, row.name.as_bytes()))
    };
    let rows: Vec<&Row> = ROWS.iter().filter(asked).collect();
    let now = server.changeable();
    out.map(rows.len());
    for row in rows {
        out.bulk(row.name.as_bytes());
        out.bulk(row.value(&server.options, &now).as_bytes());
    }
}

/// Changes all that `pairs` say, or nothing.
fn set(server: &Server, pairs: &[&[u8]]) -> Result<(), Vec<u8>> {
    let changes = parse(pairs)?;
    let mut tried = (*server.changeable()).clone();
    apply(&changes, &mut tried)?;
    // Tried on a copy, so it cannot fail now; another CONFIG SET in between keeps its own.
    server.change(|next| {
        let _ = apply(&changes, next);
    });
    Ok(())
}

/// One pair of CONFIG SET: the row, its name as it was written, the value.
type Pair<'a> = (&'static Row, &'a [u8], &'a [u8]);

fn parse<'a>(pairs: &[&'a [u8]]) -> Result<Vec<Pair<'a>>, Vec<u8>> {
    let mut changes: Vec<Pair<'a>> = Vec::new();
    for pair in pairs.chunks(2) {
        let [name, value] = *pair else { return Err(Fault::Syntax.line()) };
        let Some(row) = find(name) else {
            let text = b"ERR Unknown option or number of arguments for CONFIG SET - '";
            return Err([&text[..], name, b"'"].concat());
        };
        if row.is_immutable() {
            return Err(failed(name, IMMUTABLE));
        }
        if changes.iter().any(|(other, _, _)| other.name == row.name) {
            return Err(failed(name, "duplicate parameter"));
        }
        changes.push((row, name, value));
    }
    Ok(changes)
}

fn apply(changes: &[Pair<'_>], next: &mut Changeable) -> Result<(), Vec<u8>> {
    for (row, name, value) in changes {
        row.change(next, value).map_err(|why| failed(name, &why))?;
    }
    Ok(())
}

fn failed(name: &[u8], why: &str) -> Vec<u8> {
    let text = b"ERR CONFIG SET failed (possibly related to argument '";
    [&text[..], name, b"') - ", why.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::log::Fsync;

    fn fresh() -> Changeable {
        Changeable {
            requirepass: None,
            maxclients: 10_000,
            timeout_s: 0,
            tcp_keepalive_s: 300,
            proto_max_bulk_len: VALUE_SIZE_MAX,
            client_query_buffer_limit: QUERY_BUFFER_MAX,
            client_output_buffer_limit: 1 << 30,
            maxmemory: 0,
            fsync: Fsync::Everysec,
        }
    }

    fn set(words: &[&str]) -> Result<Changeable, String> {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let mut next = fresh();
        let done = parse(&words).and_then(|changes| apply(&changes, &mut next));
        done.map(|()| next).map_err(|text| String::from_utf8(text).expect("UTF-8"))
    }

    #[test]
    fn what_may_change_changes() {
        let next = set(&["TIMEOUT", "7", "maxclients", "5", "requirepass", "s", "save", ""]);
        let next = next.expect("all may change");
        assert_eq!((next.timeout_s, next.maxclients), (7, 5));
        assert_eq!(next.requirepass.as_deref(), Some("s"));
        assert_eq!(set(&["requirepass", ""]).expect("none").requirepass, None);
        let sizes = set(&["proto-max-bulk-len", "2mb", "client-query-buffer-limit", "3m"]);
        let sizes = sizes.expect("sizes");
        assert_eq!(sizes.proto_max_bulk_len, 2 << 20);
        assert_eq!(sizes.client_query_buffer_limit, 3_000_000);
        let next = set(&["maxmemory", "100mb", "appendfsync", "ALWAYS", "appendonly", "Yes"]);
        let next = next.expect("all may be set");
        assert_eq!((next.maxmemory, next.fsync), (100 << 20, Fsync::Always));
        assert_eq!(set(&["fsync", "no"]).expect("an alias").fsync, Fsync::No);
        for text in ["5mb", "normal 5mb 0 0", "replica 1 1 1 normal 5mb 4mb 60 pubsub 0 0 0"] {
            let next = set(&["client-output-buffer-limit", text]).expect(text);
            assert_eq!(next.client_output_buffer_limit, 5 << 20);
        }
    }

    #[test]
    fn refusals_are_those_of_redis() {
        let unknown = "ERR Unknown option or number of arguments for CONFIG SET - ";
        assert_eq!(set(&["maxclients", "5", "foo", "6"]).unwrap_err(), format!("{unknown}'foo'"));
        assert_eq!(set(&["maxclients", "5", "timeout"]).unwrap_err(), "ERR syntax error");
        let integer = "argument couldn't be parsed into an integer";
        for (words, name, why) in [
            (&["timeout", "x", "Databases", "3"][..], "Databases", IMMUTABLE),
            (&["cluster-enabled", "yes"], "cluster-enabled", IMMUTABLE),
            (&["timeout", "1", "Timeout", "2"], "Timeout", "duplicate parameter"),
            (&["maxclients", "x"], "maxclients", integer),
            (&["timeout", "1x"], "timeout", integer),
            (&["timeout", ""], "timeout", integer),
            (
                &["maxclients", "0"],
                "maxclients",
                "argument must be between 1 and 4294967295 inclusive",
            ),
            (&["timeout", "-1"], "timeout", "argument must be between 0 and 2147483647 inclusive"),
            (&["proto-max-bulk-len", "x"], "proto-max-bulk-len", "argument must be a memory value"),
            (
                &["client-output-buffer-limit", "normal 1 2"],
                "client-output-buffer-limit",
                "Wrong number of arguments in buffer limit configuration.",
            ),
            (
                &["client-output-buffer-limit", "normal x 2 3"],
                "client-output-buffer-limit",
                "Error in hard, soft or soft_seconds setting in buffer limit configuration.",
            ),
            (
                &["client-output-buffer-limit", "foo 1 2 3"],
                "client-output-buffer-limit",
                "Invalid client class specified in buffer limit configuration.",
            ),
            (&["save", "60 1"], "save", "argument must be '' in Kvorum"),
            (&["appendonly", "maybe"], "appendonly", "argument must be 'yes' or 'no'"),
            (
                &["appendonly", "NO"],
                "appendonly",
                "the log is where the data is, it can't be turned off in Kvorum",
            ),
            (
                &["fsync", "often"],
                "fsync",
                "argument(s) must be one of the following: everysec, always, no",
            ),
            (&["maxmemory", "-1"], "maxmemory", "argument must be a memory value"),
            (
                &["maxmemory-policy", "allkeys-LRU"],
                "maxmemory-policy",
                "Kvorum evicts nothing: what was not used for long stays on disk",
            ),
            (
                &["maxmemory-policy", "x"],
                "maxmemory-policy",
                "argument(s) must be one of the following: volatile-lru, volatile-lfu, \
                 volatile-random, volatile-ttl, allkeys-lru, allkeys-lfu, allkeys-random, \
                 noeviction",
            ),
            (&["dbfilename", "x"], "dbfilename", IMMUTABLE),
        ] {
            let expected =
                format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {why}");
            assert_eq!(set(words).unwrap_err(), expected, "{words:?}");
        }
    }

    #[test]
    fn every_value_that_is_shown_can_be_set() {
        let options = Options {
            port: 6379,
            bind: "127.0.0.1".to_owned(),
            data_dir: "d".to_owned(),
            changeable: fresh(),
        };
        for row in ROWS.iter().filter(|row| !row.is_immutable()) {
            let value = row.value(&options, &options.changeable);
            let next = set(&[row.name, &value]).expect(row.name);
            assert_eq!(row.value(&options, &next), value, "{}", row.name);
        }
    }
}
