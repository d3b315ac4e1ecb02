//! The rules, and what is said when one is broken.

use crate::source::{Line, code_of, is_word, lines};

/// A room, where it stands, and whether it must be pure.
pub(crate) struct Floor {
    /// The floor's number, from below.
    pub(crate) floor: u8,
    /// The room.
    pub(crate) room: &'static str,
    /// Whether it has no socket, file, task, clock or chance of its own.
    pub(crate) pure: bool,
}

const fn room(floor: u8, room: &'static str, pure: bool) -> Floor {
    Floor { floor, room, pure }
}

const PURE: bool = true;
const WORLD: bool = false;

/// The house, from the ground up. `src/lib.rs` shows the same.
pub(crate) const FLOORS: &[Floor] = &[
    room(1, "base", PURE),
    room(1, "metrics", PURE),
    room(2, "anti_entropy", PURE),
    room(2, "membership", PURE),
    room(2, "raft", PURE),
    room(2, "resp", PURE),
    room(2, "ring", PURE),
    room(2, "version", PURE),
    room(3, "value", PURE),
    room(4, "command", PURE),
    room(4, "coordinator", PURE),
    room(4, "handoff", PURE),
    room(4, "storage", WORLD),
    room(5, "peer", WORLD),
    room(6, "node", WORLD),
    room(6, "simulation", PURE),
    room(7, "admin", WORLD),
    room(7, "server", WORLD),
    room(8, "config", WORLD),
    room(9, "main", WORLD),
];

/// What a pure room may not say. Names are whole words: `brand::` is not `rand::`.
const WORLDLY: &[&str] = &[
    "tokio",
    "std::net",
    "std::fs",
    "std::thread",
    "std::env",
    "Instant::now",
    "SystemTime::now",
    "RandomState",
    "rand::",
    "fastrand",
    "async fn",
    "async move",
    ".await",
    "print!",
    "println!",
    "eprint!",
    "eprintln!",
];

/// Files do not grow beyond this many lines.
const LINES_MAX: usize = 800;

/// The room of a file, by its path below `src`; the root has none.
pub(crate) fn room_of(path: &str) -> Option<&str> {
    match path {
        "lib.rs" => None,
        "main.rs" => Some("main"),
        path => path.split(['/', '\\']).next(),
    }
}

fn floor_of(room: &str) -> Option<&'static Floor> {
    FLOORS.iter().find(|floor| floor.room == room)
}

/// Everything that is wrong with the file at `path` below `src`.
pub(crate) fn complaints(path: &str, text: &str) -> Vec<String> {
    let mut said = Vec::new();
    if !text.starts_with("//!") {
        said.push(format!("{path}: begins without a `//!` line that says what the file is"));
    }
    let count = text.lines().count();
    if count > LINES_MAX {
        said.push(format!("{path}: {count} lines; cut it so that no part has over {LINES_MAX}"));
    }
    let code = code_of(text);
    let lines = lines(&code);
    if path == "lib.rs" || path.ends_with("mod.rs") {
        said.extend(re_exports(path, &lines));
    }
    let Some(room) = room_of(path) else { return said };
    let Some(floor) = floor_of(room) else {
        said.push(format!("{path}: the room `{room}` is on no floor of tests/house/rules.rs"));
        return said;
    };
    said.extend(used_rooms(&code).into_iter().filter_map(|used| upward(path, floor, &used)));
    if room != "main" {
        said.extend(escapes(path, &lines));
    }
    if floor.pure && !path.ends_with("tests.rs") {
        said.extend(worldly(path, room, &code, &lines));
    }
    said
}

fn re_exports(path: &str, lines: &[Line<'_>]) -> Vec<String> {
    let exports = lines.iter().filter(|line| {
        let code = line.code.trim_start();
        code.starts_with("pub ") && code.contains(" use ")
            || code.starts_with("pub(") && code.contains(") use ")
    });
    exports
        .map(|line| {
            format!("{path}:{}: re-exports; things are imported from where they live", line.number)
        })
        .collect()
}

/// A room that a file names, and where.
struct Used {
    room: String,
    line: usize,
}

/// The rooms named as `crate::room` or `kvorum::room`, alone or in a group.
fn used_rooms(code: &str) -> Vec<Used> {
    let mut used = Vec::new();
    for root in ["crate::", "kvorum::"] {
        for (at, _) in code.match_indices(root) {
            if code[..at].ends_with(is_word) || code[..at].ends_with("::") {
                continue;
            }
            let rest = &code[at + root.len()..];
            let line = 1 + code[..at].matches('\n').count();
            for room in heads(rest) {
                used.push(Used { room, line });
            }
        }
    }
    used
}

/// The first names of what `rest` begins with: a path, or a group of paths in braces.
fn heads(rest: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|&letter| is_word(letter)).collect::<String>();
    let Some(group) = rest.trim_start().strip_prefix('{') else { return vec![word(rest)] };
    let (mut depth, mut begins, mut heads) = (0i32, 0, Vec::new());
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' | ',' if depth == 0 => {
                heads.push(word(group[begins..at].trim_start()));
                begins = at + 1;
                if letter == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    heads.retain(|head| !head.is_empty());
    heads
}

fn upward(path: &str, floor: &Floor, used: &Used) -> Option<String> {
    let Used { room, line } = used;
    // A name that is no room (a macro, an item of the root) is the compiler's to judge.
    let other = floor_of(room).filter(|other| other.room != floor.room)?;
    let here = floor.room;
    if other.floor > floor.floor {
        return Some(format!(
            "{path}:{line}: `{here}` (floor {}) may not use `{room}` (floor {}): that runs upward",
            floor.floor, other.floor
        ));
    }
    (other.floor == floor.floor).then(|| {
        format!(
            "{path}:{line}: `{here}` may not use `{room}`: both are on floor {}, and rooms of \
             one floor do not know each other",
            floor.floor
        )
    })
}

/// Paths that climb by `super` to the root, where other rooms could be reached unseen.
fn escapes(path: &str, lines: &[Line<'_>]) -> Vec<String> {
    let folders = path.matches('/').count();
    let own = if path.ends_with("/mod.rs") { folders } else { folders + 1 };
    let climbs = |line: &&Line<'_>| {
        let longest = line.code.split("super").collect::<Vec<_>>();
        let run = longest[1..].iter().fold((0, 0), |(best, run), after| {
            let run = run + 1;
            let goes_on = after.trim() == "::";
            (best.max(run), if goes_on { run } else { 0 })
        });
        run.0 >= own + line.depth && line.code.contains("super::")
    };
    let climbing = lines.iter().filter(climbs);
    climbing
        .map(|line| {
            format!("{path}:{}: climbs out of the room by `super`; say `crate::room`", line.number)
        })
        .collect()
}

fn worldly(path: &str, room: &str, code: &str, lines: &[Line<'_>]) -> Vec<String> {
    let mut said = Vec::new();
    for line in lines.iter().filter(|line| !line.test) {
        for name in WORLDLY.iter().filter(|name| says(line.code, name)) {
            said.push(format!(
                "{path}:{}: `{room}` is pure and may not say `{name}`: take it as an argument",
                line.number
            ));
        }
    }
    for (at, _) in code.match_indices("std::{") {
        let line = code[..at].matches('\n').count();
        let heads = heads(&code[at + "std::".len()..]);
        for head in heads.iter().filter(|head| WORLDLY.contains(&&*format!("std::{head}"))) {
            if !lines[line].test {
                said.push(format!(
                    "{path}:{}: `{room}` is pure and may not say `std::{head}`",
                    line + 1
                ));
            }
        }
    }
    said
}

/// Whether `code` says `name` as a whole word.
fn says(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let begins = !name.starts_with(is_word) || !code[..at].ends_with(is_word);
        let ends = !name.ends_with(is_word) || !code[at + name.len()..].starts_with(is_word);
        begins && ends
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said about `body` in a file at `path`.
    fn about(path: &str, body: &str) -> Vec<String> {
        complaints(path, &format!("//! A file.\n{body}\n"))
    }

    #[track_caller]
    fn refused(path: &str, body: &str, why: &str) {
        let said = about(path, body);
        assert!(said.len() == 1 && said[0].contains(why), "{body}: {said:?}");
    }

    #[test]
    fn good_files_pass() {
        for (path, body) in [
            ("ring/a.rs", "use crate::base::{id::NodeId, wire::{Cursor, Put}};"),
            ("ring/a.rs", "use super::slot::x;\nmod b {\n    use super::super::slot::y;\n}"),
            ("ring/a.rs", "// use tokio\nconst A: &str = \"crate::node\";"),
            (
                "ring/a.rs",
                "#[cfg(test)]\nmod tests {\n    use std::fs;\n    use super::super::b;\n}",
            ),
            ("ring/a/tests.rs", "use std::fs;\nuse super::super::b;"),
            ("ring/a.rs", "let x = brand::new(rand);"),
            ("node/a.rs", "use tokio::net;\nuse crate::peer::link;"),
            ("main/dev.rs", "use super::serve;\nuse kvorum::config::row;"),
            ("lib.rs", "pub mod base;"),
        ] {
            assert_eq!(about(path, body), Vec::<String>::new(), "{body}");
        }
    }

    #[test]
    fn imports_upward_and_sideways_are_refused() {
        let sideways = "`ring` may not use `raft`: both are on floor 2";
        refused("ring/a.rs", "use crate::raft::log;", sideways);
        refused("ring/a.rs", "fn f() -> crate::raft::log::Entry { x }", sideways);
        refused("ring/a.rs", "use crate::{base::id, raft::{log, vote}};", sideways);
        refused("ring/a.rs", "use crate::{\n    base::id,\n    raft,\n};", sideways);
        let upward = "`base` (floor 1) may not use `node` (floor 6): that runs upward";
        refused("base/a.rs", "use crate::node::x;", upward);
        refused("base/a.rs", "#[cfg(test)]\nmod tests {\n    use crate::node::x;\n}", upward);
        refused("server/a.rs", "use kvorum::config::x;", "(floor 8)");
        refused("attic/a.rs", "", "is on no floor");
    }

    #[test]
    fn climbing_out_is_refused() {
        for (path, body) in [
            ("ring/a.rs", "use super::super::raft::x;"),
            ("ring/mod.rs", "use super::raft::x;"),
            ("ring/a/tests.rs", "use super::super::super::raft::x;"),
            ("ring/a.rs", "mod b {\n    use super::super::super::raft::x;\n}"),
        ] {
            refused(path, body, "climbs out of the room");
        }
    }

    #[test]
    fn the_world_is_refused_in_pure_rooms() {
        for (body, name) in [
            ("use tokio::net::TcpStream;", "`tokio`"),
            ("let now = std::time::Instant::now();", "`Instant::now`"),
            ("use std::{fmt, fs};", "`std::fs`"),
            ("let x = std::env::var(y);", "`std::env`"),
            ("async fn f() {}", "`async fn`"),
            ("println!();", "`println!`"),
            ("let x = rand::rng();", "`rand::`"),
            ("let x = fastrand::u64(..);", "`fastrand`"),
        ] {
            refused("ring/a.rs", body, name);
        }
        assert!(about("ring/a.rs", "fn f() {\n    g().await\n}")[0].contains("ring/a.rs:3: "));
    }

    #[test]
    fn shapes_of_files_are_refused() {
        assert!(complaints("ring/a.rs", "use std::fmt;\n")[0].contains("begins without a `//!`"));
        refused("ring/a.rs", &"x\n".repeat(800), "802 lines");
        refused("ring/mod.rs", "pub use slot::Slot;", "re-exports");
        refused("lib.rs", "pub(crate) use base::id;", "re-exports");
    }
}
