//! `kvorum status`: who is in the cluster and how they are, as one node sees it.
//!
//! ```text
//!  KV.STATUS ──▶ one row a member ──▶ a table, or JSON        0 all members up
//!      └───────▶ no answer, or not all of them are up         1
//! ```

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};
use kvorum::resp::nested::Nested;

use super::asked::Asked;

const AFTER: &str = "\
Exit code 0 if every member is up, 1 if not or if nobody answers. The password of clients is taken \
from KVORUM_REQUIREPASS.";

/// `kvorum status` as the command line knows it.
pub(crate) fn status_command() -> Command {
    let host = Arg::new("host").long("host").value_name("HOST").default_value("127.0.0.1");
    let port = Arg::new("port").long("port").value_name("PORT").env("KVORUM_PORT");
    let json = Arg::new("json").long("json").action(ArgAction::SetTrue);
    let watch = Arg::new("watch").long("watch").value_name("SECONDS");
    Command::new("status")
        .about("Shows the cluster's members as one node sees them")
        .after_help(AFTER)
        .args([
            host.help("Where the node listens"),
            port.help("The node's port for clients")
                .value_parser(value_parser!(u16).range(1..))
                .default_value("6379"),
            json.help("Prints JSON: an array of objects, one line"),
            watch
                .help("Shows it again every so many seconds, 1 if none are named")
                .num_args(0..=1)
                .default_missing_value("1")
                .value_parser(value_parser!(u64).range(1..=3_600)),
        ])
}

/// Shows the status once, or again and again.
pub(crate) fn run_status(flags: &ArgMatches) -> ExitCode {
    let host: &String = flags.get_one("host").expect("it has a default");
    let port: u16 = *flags.get_one("port").expect("it has a default");
    let every = flags.get_one("watch").map(|seconds| Duration::from_secs(*seconds));
    let show = if flags.get_flag("json") { json } else { table };
    loop {
        let shown = members(host, port).map(|members| (show(&members), all_up(&members)));
        let code = match &shown {
            Ok((text, all_up)) => {
                let clear = every.is_some() && io::stdout().is_terminal();
                let clear = if clear { "\x1b[2J\x1b[H" } else { "" };
                if writeln!(io::stdout(), "{clear}{text}").is_err() {
                    return ExitCode::FAILURE;
                }
                if *all_up { ExitCode::SUCCESS } else { ExitCode::FAILURE }
            }
            Err(why) => {
                eprintln!("kvorum: {host}:{port}: {why}");
                ExitCode::FAILURE
            }
        };
        match every {
            None => return code,
            Some(pause) => thread::sleep(pause),
        }
    }
}

/// One member: its fields in the order in which they were told.
type Fields = Vec<(String, Nested)>;

fn members(host: &str, port: u16) -> io::Result<Vec<Fields>> {
    read(&Asked::connect(host, port)?.ask(&["KV.STATUS"])?)
}

fn read(reply: &Nested) -> io::Result<Vec<Fields>> {
    let strange = || io::Error::new(io::ErrorKind::InvalidData, "KV.STATUS is answered strangely");
    let fields = |member: &Nested| {
        let items = member.as_items().ok_or_else(strange)?;
        let named = |pair: &[Nested]| {
            let name = pair[0].as_bytes().ok_or_else(strange)?;
            Ok((String::from_utf8_lossy(name).into_owned(), pair[1].clone()))
        };
        items.chunks_exact(2).map(named).collect()
    };
    reply.as_items().ok_or_else(strange)?.iter().map(fields).collect()
}

fn field<'a>(member: &'a Fields, name: &str) -> &'a Nested {
    member.iter().find(|(field, _)| field == name).map_or(&Nested::Null, |(_, value)| value)
}

fn all_up(members: &[Fields]) -> bool {
    members.iter().all(|member| field(member, "state").as_bytes() == Some(b"up"))
}

/// A value for people; what is not known is a dash.
fn text(value: &Nested) -> String {
    match value {
        Nested::Integer(number) => number.to_string(),
        value => match value.as_bytes() {
            Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            None => "–".to_owned(),
        },
    }
}

/// Milliseconds for people.
fn duration(value: &Nested) -> String {
    match value {
        Nested::Integer(ms @ 0..10_000) => format!("{ms} ms"),
        Nested::Integer(ms @ 10_000..600_000) => format!("{} s", ms / 1_000),
        Nested::Integer(ms) => format!("{} min", ms / 60_000),
        other => text(other),
    }
}

/// What routing believes, and gossip's doubt where it has one.
fn state(member: &Fields) -> String {
    let (state, gossip) = (text(field(member, "state")), text(field(member, "gossip")));
    match gossip.as_str() {
        "alive" => state,
        _ => format!("{state} ({gossip})"),
    }
}

fn table(members: &[Fields]) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY);
    table.set_header([
        "node",
        "address",
        "state",
        "phi",
        "cpu %",
        "commands/s",
        "lag",
        "behind",
        "hints",
        "recovering",
        "last exchange",
        "clock",
    ]);
    for column in 3..12 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for member in members {
        let is_me = *field(member, "me") == Nested::Integer(1);
        let plain = |name| text(field(member, name));
        let last = match field(member, "last-exchange-ms") {
            Nested::Null => "–".to_owned(),
            ms => format!("{} ago", duration(ms)),
        };
        table.add_row([
            format!("{}{}", plain("node"), if is_me { " *" } else { "" }),
            format!("{}:{}", plain("host"), plain("port")),
            state(member),
            plain("phi"),
            plain("processor-percent"),
            plain("commands-per-second"),
            plain("lag-changes"),
            duration(field(member, "lag-ms")),
            plain("hints"),
            plain("recovering-vnodes"),
            last,
            duration(field(member, "clock-ms")),
        ]);
    }
    table.to_string()
}

fn json(members: &[Fields]) -> String {
    let rows: Vec<String> = members.iter().map(object).collect();
    format!("[{}]", rows.join(","))
}

fn object(member: &Fields) -> String {
    let field = |(name, value): &(String, Nested)| {
        let value = match value {
            // A number with a point comes as text, for RESP2 has none.
            value if name == "phi" => text(value),
            value => json_value(value),
        };
        format!("{}:{value}", quoted(name.as_bytes()))
    };
    let fields: Vec<String> = member.iter().map(field).collect();
    format!("{{{}}}", fields.join(","))
}

fn json_value(value: &Nested) -> String {
    if let Some(items) = value.as_items() {
        let items: Vec<String> = items.iter().map(json_value).collect();
        return format!("[{}]", items.join(","));
    }
    match value {
        Nested::Integer(number) => number.to_string(),
        value => value.as_bytes().map_or("null".to_owned(), quoted),
    }
}

fn quoted(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for letter in String::from_utf8_lossy(bytes).chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            control if control < ' ' => {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            letter => out.push(letter),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(node: &'static str, state: &'static str) -> Nested {
        Nested::array([
            Nested::bulk("node"),
            Nested::bulk(node),
            Nested::bulk("state"),
            Nested::bulk(state),
            Nested::bulk("gossip"),
            Nested::bulk(if state == "up" { "alive" } else { "confirmed" }),
            Nested::bulk("phi"),
            Nested::bulk("0.25"),
            Nested::bulk("lag-ms"),
            Nested::Integer(12_345),
            Nested::bulk("last-exchange-ms"),
            Nested::Null,
            Nested::bulk("suspected-by"),
            Nested::array([Nested::bulk("a \"b\"\n")]),
        ])
    }

    #[test]
    fn members_are_read_and_shown() {
        let reply = Nested::array([member("n1", "up"), member("n2", "down")]);
        let members = read(&reply).expect("as told");
        assert!(!all_up(&members) && all_up(&members[..1]));
        let shown = table(&members);
        assert!(shown.contains("n1") && shown.contains("down (confirmed)"), "{shown}");
        assert!(shown.contains("12 s") && shown.contains("0.25"), "{shown}");
        assert_eq!(
            json(&members[..1]),
            "[{\"node\":\"n1\",\"state\":\"up\",\"gossip\":\"alive\",\"phi\":0.25,\"lag-ms\":12345,\
             \"last-exchange-ms\":null,\"suspected-by\":[\"a \\\"b\\\"\\u000a\"]}]"
        );
    }

    #[test]
    fn what_is_no_status_is_refused() {
        assert!(read(&Nested::bulk("PONG")).is_err());
        assert!(read(&Nested::array([Nested::bulk("n1")])).is_err());
    }

    #[test]
    fn the_command_line_is_sound() {
        status_command().debug_assert();
    }
}
