//! `kvorum log`: what a data folder's log holds, and whether all of it can be read.
//!
//! Both commands only look, and lock nothing: they work on a running node's folder too.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Arg, ArgAction, ArgMatches, Command};
use kvorum::base::size::thousands;
use kvorum::storage::inspect::{Figures, Folder, Verdict};
use kvorum::storage::recovery::{Cut, Damage};
use kvorum::storage::scan::Suspect;

use super::EXIT_USAGE;

/// Work that takes no longer says nothing of how far it is.
const QUIET: Duration = Duration::from_secs(1);

const AFTER_INSPECT: &str = "\
Live are the frames that a start would still need: of each key the newest state, and what is to be \
joined into it. All else is dead, and goes when its segment is compacted. Memory is needed for every \
key of a lane, about 60 bytes each.";

const AFTER_VERIFY: &str = "\
Every frame's checksum is tried, every record decoded, and every compressed value unpacked. What a \
crash left unfinished at the end of a lane is no damage: the next start cuts it off.

Exit code: 0 if nothing is damaged, 1 if something is, 2 if the log cannot be read at all.";

/// `kvorum log` as the command line knows it.
pub(crate) fn log_command() -> Command {
    let looking = |name: &'static str, about: &'static str, after: &'static str| {
        let folder = Arg::new("dir").value_name("DIR").required(true);
        let json = Arg::new("json").long("json").action(ArgAction::SetTrue);
        Command::new(name).about(about).after_help(after).args([
            folder.help("A node's data folder (its --data-dir)"),
            json.help("Answers in JSON, for other programs"),
        ])
    };
    Command::new("log")
        .about("Looks at the log in a data folder; a node may be running on it")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(looking("inspect", "Shows what each segment holds", AFTER_INSPECT))
        .subcommand(looking("verify", "Reads and checks every record", AFTER_VERIFY))
}

/// Runs `kvorum log inspect` or `kvorum log verify`.
pub(crate) fn run_log(flags: &ArgMatches) -> ExitCode {
    let (name, flags) = flags.subcommand().expect("clap demands one");
    let folder: &String = flags.get_one("dir").expect("clap demands it");
    let (folder, json) = (Path::new(folder), flags.get_flag("json"));
    let said = match name {
        "inspect" => inspect(folder, json),
        _ => verify(folder, json),
    };
    match said {
        Ok(Said { text, damaged }) => {
            // A reader that has seen enough is no error.
            let _ = io::stdout().write_all(text.as_bytes());
            if damaged { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
        Err(why) => {
            eprintln!("kvorum: {why}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// What goes to standard output, and whether it is bad news.
struct Said {
    text: String,
    damaged: bool,
}

fn inspect(folder: &Path, json: bool) -> io::Result<Said> {
    let folder = Folder::open(folder)?;
    let mut ticker = Ticker::new();
    let all = folder.inspect(&mut |done, total| ticker.tell(done, total))?;
    ticker.end();
    let text = if json { inspect_json(&folder, &all) } else { inspect_text(&folder, &all) };
    Ok(Said { text, damaged: false })
}

fn verify(folder: &Path, json: bool) -> io::Result<Said> {
    let folder = Folder::open(folder)?;
    let mut ticker = Ticker::new();
    let verdict = folder.verify(&mut |done, total| ticker.tell(done, total))?;
    ticker.end();
    let text = if json { verify_json(&folder, &verdict) } else { verify_text(&folder, &verdict) };
    Ok(Said { text, damaged: !verdict.damages.is_empty() })
}

/// Tells on standard error how far long work is.
struct Ticker {
    begun: Instant,
    said: Option<Instant>,
    is_terminal: bool,
}

impl Ticker {
    fn new() -> Ticker {
        Ticker { begun: Instant::now(), said: None, is_terminal: io::stderr().is_terminal() }
    }

    fn tell(&mut self, done: u64, total: u64) {
        let pause = Duration::from_millis(if self.is_terminal { 200 } else { 5_000 });
        let said_lately = self.said.is_some_and(|said| said.elapsed() < pause);
        if self.begun.elapsed() < QUIET || said_lately {
            return;
        }
        self.said = Some(Instant::now());
        let percent = (done * 100).checked_div(total).unwrap_or(100);
        let (start, end) = if self.is_terminal { ("\r", "") } else { ("", "\n") };
        let [done, total] = [done, total].map(thousands);
        eprint!("{start}read {done} of {total} bytes, {percent} %{end}");
    }

    fn end(&self) {
        if self.is_terminal && self.said.is_some() {
            eprintln!();
        }
    }
}

// ---- for people --------------------------------------------------------------------------------

/// The folder in one line.
fn heading(folder: &Folder, segments: u64, bytes: u64) -> String {
    let (vnodes, lanes) = (folder.layout.vnodes, folder.layout.lanes);
    let running = if folder.in_use { "; a node is running on it" } else { "" };
    format!(
        "{}: {} bytes in {}, {vnodes} vnodes in {}{running}\n",
        folder.log.display(),
        thousands(bytes),
        counted(segments, "segment"),
        counted(lanes.into(), "lane"),
    )
}

fn counted(count: u64, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {what}{plural}", thousands(count))
}

fn inspect_text(folder: &Folder, all: &[Figures]) -> String {
    let bytes = all.iter().map(|segment| segment.bytes).sum();
    let mut text = heading(folder, all.len() as u64, bytes);
    text.push('\n');
    let names = [
        "lane", "segment", "bytes", "states", "joins", "gone", "marks", "live", "dead", "damaged",
        "begun", "",
    ];
    let mut rows = vec![names.map(str::to_owned)];
    rows.extend(all.iter().map(row));
    rows.push(total(all));
    let widths: Vec<usize> = (0..names.len())
        .map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0))
        .collect();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:>width$}  ");
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

fn row(segment: &Figures) -> [String; 12] {
    let [states, joins, gone, marks] = segment.frames.map(thousands);
    [
        segment.lane.to_string(),
        segment.number.to_string(),
        thousands(segment.bytes),
        states,
        joins,
        gone,
        marks,
        thousands(segment.live),
        thousands(segment.dead),
        thousands(segment.damaged),
        segment.ceiling.map_or("head damaged".to_owned(), |ceiling| date(ceiling.ms().0)),
        if segment.last { "last" } else { "sealed" }.to_owned(),
    ]
}

fn total(all: &[Figures]) -> [String; 12] {
    let sum = |of: &dyn Fn(&Figures) -> u64| thousands(all.iter().map(of).sum());
    let kinds = [0, 1, 2, 3].map(|kind| sum(&|segment| segment.frames[kind]));
    let [states, joins, gone, marks] = kinds;
    [
        "all".to_owned(),
        String::new(),
        sum(&|segment| segment.bytes),
        states,
        joins,
        gone,
        marks,
        sum(&|segment| segment.live),
        sum(&|segment| segment.dead),
        sum(&|segment| segment.damaged),
        String::new(),
        String::new(),
    ]
}

/// A moment in UTC, to the second; a dash for the beginning of time. The calendar's arithmetic is
/// that of Hinnant's "chrono-Compatible Low-Level Date Algorithms".
fn date(unix_ms: u64) -> String {
    if unix_ms == 0 {
        return "-".to_owned();
    }
    let (days, second) = (unix_ms / 86_400_000, unix_ms / 1_000 % 86_400);
    let day = days + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * month + 2) / 5 + 1, (month + 2) % 12 + 1);
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

fn verify_text(folder: &Folder, verdict: &Verdict) -> String {
    let mut text = heading(folder, verdict.segments, verdict.bytes);
    for damage in &verdict.damages {
        let _ = writeln!(text, "damaged: {damage}");
    }
    for cut in &verdict.torn {
        let why = if folder.in_use { "still being written" } else { "the next start cuts it off" };
        let _ = writeln!(text, "unfinished: {}; {why}", torn(cut));
    }
    if verdict.vanished > 0 {
        let count = counted(verdict.vanished, "segment");
        let _ = writeln!(text, "compacted meanwhile, not read: {count}");
    }
    let frames = counted(verdict.frames, "whole frame");
    let damages = counted(verdict.damages.len() as u64, "damage");
    let verdict = if verdict.damages.is_empty() { "nothing is damaged" } else { &damages };
    let _ = writeln!(text, "{frames}; {verdict}");
    text
}

/// A tail that is not finished, as people read it.
fn torn(cut: &Cut) -> String {
    let Cut { lane, segment, at, bytes, frames } = cut;
    let frames = if *frames > 0 { format!(" ({frames} whole frames)") } else { String::new() };
    format!("lane {lane}, segment {segment}: {bytes} bytes from {at} on{frames}")
}

// ---- for programs ------------------------------------------------------------------------------

fn json_text(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            _ if letter < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(letter));
            }
            _ => out.push(letter),
        }
    }
    out.push('"');
    out
}

fn json_list<T>(items: &[T], of: impl Fn(&T) -> String) -> String {
    let items: Vec<String> = items.iter().map(of).collect();
    format!("[{}]", items.join(","))
}

/// What both answers begin with.
fn json_heading(folder: &Folder) -> String {
    format!(
        "\"log\":{},\"in_use\":{},\"vnodes\":{},\"lanes\":{}",
        json_text(&folder.log.display().to_string()),
        folder.in_use,
        folder.layout.vnodes,
        folder.layout.lanes,
    )
}

fn inspect_json(folder: &Folder, all: &[Figures]) -> String {
    let segments = json_list(all, |segment| {
        let Figures { lane, number, bytes, last, ceiling, frames, live, dead, damaged } = segment;
        let [states, joins, gone, marks] = frames;
        let ceiling = ceiling.map_or("null".to_owned(), |ceiling| ceiling.ms().0.to_string());
        format!(
            "{{\"lane\":{lane},\"segment\":{number},\"bytes\":{bytes},\"last\":{last},\
             \"ceiling_ms\":{ceiling},\"states\":{states},\"joins\":{joins},\"gone\":{gone},\
             \"marks\":{marks},\"live\":{live},\"dead\":{dead},\"damaged\":{damaged}}}"
        )
    });
    format!("{{{},\"segments\":{segments}}}\n", json_heading(folder))
}

fn verify_json(folder: &Folder, verdict: &Verdict) -> String {
    let damages = json_list(&verdict.damages, |damage| {
        let Damage { lane, segment, range, suspect, flaw } = damage;
        let suspect = match suspect {
            Suspect::Nobody => "\"suspect\":\"nobody\"".to_owned(),
            Suspect::Vnode(vnode) => format!("\"suspect\":\"vnode\",\"vnode\":{}", vnode.0),
            Suspect::Lane => "\"suspect\":\"lane\"".to_owned(),
        };
        format!(
            "{{\"lane\":{lane},\"segment\":{segment},\"from\":{},\"to\":{},{suspect},\"flaw\":{}}}",
            range.start,
            range.end,
            json_text(&flaw.to_string())
        )
    });
    let torn = json_list(&verdict.torn, |cut| {
        let Cut { lane, segment, at, bytes, frames } = cut;
        format!(
            "{{\"lane\":{lane},\"segment\":{segment},\"from\":{at},\"bytes\":{bytes},\
             \"frames\":{frames}}}"
        )
    });
    let Verdict { segments, bytes, frames, vanished, .. } = verdict;
    format!(
        "{{{},\"segments\":{segments},\"bytes\":{bytes},\"frames\":{frames},\
         \"vanished\":{vanished},\"damages\":{damages},\"unfinished\":{torn}}}\n",
        json_heading(folder)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    use kvorum::base::id::VnodeId;
    use kvorum::base::time::Hlc;
    use kvorum::storage::disk::RealDisk;
    use kvorum::storage::frame::Kind;
    use kvorum::storage::log::{Fsync, Layout, Log, Options};
    use std::fs;
    use std::sync::Arc;

    const LAYOUT: Layout = Layout { vnodes: 4, lanes: 2, cluster: 1 };

    /// A folder with two frames of vnode 1, the first of which the second supersedes.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let options = Options { segment_size: 1 << 20, fsync: Fsync::No };
        let log = Log::open(Arc::new(RealDisk), folder.path().join("log"), LAYOUT, options);
        let log = log.unwrap();
        log.begin(Hlc::ZERO).unwrap();
        let record = b"\x01\x01k\x01\0\0\0\0\0\0\0\x01\0\0\0\x01\x05value";
        for _ in 0..2 {
            log.append(VnodeId(1), Kind::State, |out| out.extend_from_slice(record));
        }
        log.close().unwrap();
        folder
    }

    #[test]
    fn the_command_line_is_sound() {
        log_command().debug_assert();
    }

    #[test]
    fn segments_are_shown_to_people_and_programs() {
        let folder = folder();
        let said = inspect(folder.path(), false).unwrap().text;
        let lines: Vec<&str> = said.lines().collect();
        assert!(lines[0].ends_with("log: 148 bytes in 2 segments, 4 vnodes in 2 lanes"), "{said}");
        let row: Vec<&str> = lines[4].split_whitespace().collect();
        let expected = ["1", "1", "108", "2", "0", "0", "0", "34", "34", "0", "-", "last"];
        assert_eq!(row, expected, "{said}");
        assert_eq!(lines[5].split_whitespace().take(2).collect::<Vec<_>>(), ["all", "148"]);
        let said = inspect(folder.path(), true).unwrap().text;
        assert!(said.contains("\"in_use\":false,\"vnodes\":4,\"lanes\":2"), "{said}");
        assert!(
            said.contains("\"states\":2,\"joins\":0") && said.contains("\"live\":34"),
            "{said}"
        );
    }

    #[test]
    fn damage_is_told_with_its_place() {
        let folder = folder();
        let sound = verify(folder.path(), false).unwrap();
        assert!(!sound.damaged && sound.text.ends_with("2 whole frames; nothing is damaged\n"));
        let path = folder.path().join("log/lane-01/0000000001.seg");
        let mut bytes = fs::read(&path).unwrap();
        bytes[60] ^= 1;
        fs::write(&path, bytes).unwrap();
        let bad = verify(folder.path(), false).unwrap();
        // Without a life file a crash is taken for granted, and explains it.
        assert!(!bad.damaged && bad.text.contains("lane 1, segment 1: 68 bytes from 40 on"));
        let life = "kvorum-life 2\nboot 1\nstart 1\nclean yes\nmachine m\nvnodes 4\nlanes 2\ncluster 1\n";
        fs::write(folder.path().join("life"), life).unwrap();
        let bad = verify(folder.path(), false).unwrap();
        let line = "lane-01/0000000001.seg, bytes 40..74: the payload is damaged; vnode 1 is suspect\n";
        assert!(bad.damaged && bad.text.contains(line), "{}", bad.text);
        assert!(bad.text.ends_with("1 whole frame; 1 damage\n"), "{}", bad.text);
        let bad = verify(folder.path(), true).unwrap();
        let damage = "{\"lane\":1,\"segment\":1,\"from\":40,\"to\":74,\"suspect\":\"vnode\",\
                      \"vnode\":1,\"flaw\":\"the payload is damaged\"}";
        assert!(bad.damaged && bad.text.contains(damage), "{}", bad.text);
    }

    #[test]
    fn a_folder_without_a_log_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(inspect(folder.path(), false).is_err());
        assert!(verify(folder.path(), false).is_err());
    }

    #[test]
    fn texts_and_dates_are_written_as_others_read_them() {
        assert_eq!(json_text("a\"b\\\n"), "\"a\\\"b\\\\\\u000a\"");
        assert_eq!(date(0), "-");
        assert_eq!(date(951_827_696_000), "2000-02-29 12:34:56");
        assert_eq!(date(1_767_225_599_999), "2025-12-31 23:59:59");
    }
}
