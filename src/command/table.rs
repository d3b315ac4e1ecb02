//! Finding a command's row by its name.
//!
//! A name of at most 16 bytes is folded to lower case inside one 128-bit word, its length on
//! top where there is room, and looked up in an open-addressed table that the compiler has built: a load, a few
//! arithmetic steps, one or two compares, no allocation and no initialisation.

use super::refusal::Refusal;
use super::rows;
use super::spec::{Run, Spec};

/// Longest name of a command: what fits into the folded word. (Subcommands are not folded.)
const NAME_SIZE_MAX: usize = 16;

const CHAPTERS: [&[Spec]; 12] = [
    rows::string::ROWS,
    rows::bitmap::ROWS,
    rows::hyperloglog::ROWS,
    rows::hash::ROWS,
    rows::list::ROWS,
    rows::set::ROWS,
    rows::zset::ROWS,
    rows::key::ROWS,
    rows::connection::ROWS,
    rows::server::ROWS,
    rows::cluster::ROWS,
    rows::kvorum::ROWS,
];

const COUNT: usize = {
    let (mut count, mut chapter) = (0, 0);
    while chapter < CHAPTERS.len() {
        count += CHAPTERS[chapter].len();
        chapter += 1;
    }
    count
};

static ROWS: [Spec; COUNT] = {
    let mut all = [rows::string::ROWS[0]; COUNT];
    let (mut next, mut chapter) = (0, 0);
    while chapter < CHAPTERS.len() {
        let mut row = 0;
        while row < CHAPTERS[chapter].len() {
            all[next] = CHAPTERS[chapter][row];
            next += 1;
            row += 1;
        }
        chapter += 1;
    }
    all
};

/// A power of two, several times the number of rows: probes stay short.
const PLACES: usize = 1024;

/// No row stands here.
const EMPTY: u8 = u8::MAX;

const _: () = assert!(COUNT < EMPTY as usize && COUNT * 2 < PLACES);

struct Index {
    /// The row that stands at each place, or `EMPTY`.
    rows: [u8; PLACES],
    /// The folded name of each row.
    names: [u128; COUNT],
}

static INDEX: Index = {
    let mut index = Index { rows: [EMPTY; PLACES], names: [0; COUNT] };
    let mut row = 0;
    while row < COUNT {
        let folded = fold(ROWS[row].name.as_bytes()).expect("a row's name is short");
        index.names[row] = folded;
        let mut place = home(folded);
        while index.rows[place] != EMPTY {
            place = (place + 1) % PLACES;
        }
        index.rows[place] = row as u8;
        row += 1;
    }
    index
};

/// Every row, containers once.
pub fn rows() -> &'static [Spec] {
    &ROWS
}

/// The row of the command called `name`, in any case.
pub fn lookup(name: &[u8]) -> Option<&'static Spec> {
    let folded = fold(name)?;
    let mut place = home(folded);
    loop {
        let row = INDEX.rows[place];
        if row == EMPTY {
            return None;
        }
        if INDEX.names[row as usize] == folded {
            return Some(&ROWS[row as usize]);
        }
        place = (place + 1) % PLACES;
    }
}

/// The row of `container`'s subcommand called `name`, in any case.
pub fn lookup_subcommand(container: &'static Spec, name: &[u8]) -> Option<&'static Spec> {
    let called = |row: &&Spec| row.short_name().as_bytes().eq_ignore_ascii_case(name);
    container.subcommands.iter().find(called)
}

/// The row called `name`, which may be `container|subcommand`, in any case.
pub fn find(name: &[u8]) -> Option<&'static Spec> {
    match memchr::memchr(b'|', name) {
        None => lookup(name),
        Some(bar) => lookup_subcommand(lookup(&name[..bar])?, &name[bar + 1..]),
    }
}

/// The row that a request names: its subcommand's, if it has one. The length is not looked at.
pub fn named_by(args: &[&[u8]]) -> Result<&'static Spec, Refusal> {
    let spec = args.first().and_then(|name| lookup(name)).ok_or(Refusal::UnknownCommand)?;
    match args.get(1) {
        Some(name) if !spec.subcommands.is_empty() => {
            lookup_subcommand(spec, name).ok_or(Refusal::UnknownSubcommand(spec))
        }
        _ => Ok(spec),
    }
}

/// The row that runs a request, whose length is right. Nothing was done if it is refused.
pub fn resolve(args: &[&[u8]]) -> Result<&'static Spec, Refusal> {
    let spec = named_by(args)?;
    let even = match spec.run {
        Run::Each { stride, .. } => (args.len() - 1).is_multiple_of(stride),
        _ => true,
    };
    if even && spec.accepts(args.len()) { Ok(spec) } else { Err(Refusal::Arity(spec)) }
}

/// The name in lower case with its length on top, if it is no longer than 15: a 16th byte that is
/// a letter is more than that. `None` if no command is called so.
const fn fold(name: &[u8]) -> Option<u128> {
    let length = match name {
        [] => return None,
        [.., last] if name.len() == NAME_SIZE_MAX && *last >= b'A' => 0,
        _ if name.len() < NAME_SIZE_MAX => name.len() as u128,
        _ => return None,
    };
    Some(lower(load(name)) | length << 120)
}

/// Up to 16 bytes as a little-endian word, without a copy of variable length: two loads that
/// overlap, the second shifted to where its first new byte belongs.
const fn load(bytes: &[u8]) -> u128 {
    let end = bytes.len() * 8;
    if let (Some(head), Some(tail)) = (bytes.first_chunk(), bytes.last_chunk()) {
        let (head, tail) = (u64::from_le_bytes(*head), u64::from_le_bytes(*tail));
        head as u128 | (tail as u128) << (end - 64)
    } else if let (Some(head), Some(tail)) = (bytes.first_chunk(), bytes.last_chunk()) {
        let (head, tail) = (u32::from_le_bytes(*head), u32::from_le_bytes(*tail));
        (head as u64 | (tail as u64) << (end - 32)) as u128
    } else if let [first, .., last] = bytes {
        let middle = bytes[bytes.len() / 2] as u32;
        let middle = middle << (bytes.len() / 2 * 8);
        (*first as u32 | middle | (*last as u32) << (end - 8)) as u128
    } else if let [only] = bytes {
        *only as u128
    } else {
        0
    }
}

/// All sixteen bytes of `word` in ASCII lower case at once. Bit 7 of each byte of `upper` says
/// whether that byte is a capital: at least `A`, not above `Z`, and ASCII.
const fn lower(word: u128) -> u128 {
    const ONES: u128 = u128::MAX / 0xFF;
    let low = word & (ONES * 0x7F);
    let from_a = low + ONES * (0x80 - b'A' as u128);
    let above_z = low + ONES * (0x7F - b'Z' as u128);
    let upper = from_a & !above_z & !word & (ONES * 0x80);
    word | upper >> 2
}

/// Where a folded name is looked for first.
const fn home(folded: u128) -> usize {
    let mixed = (folded as u64 ^ ((folded >> 64) as u64).rotate_left(23))
        .wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 48) as usize % PLACES
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::command::docs::{Arg, ArgKind, syntax};
    use crate::command::flags::{Access, Flag};
    use crate::command::keyspec::Keyless;

    fn all() -> impl Iterator<Item = &'static Spec> {
        rows().iter().flat_map(|row| std::iter::once(row).chain(row.subcommands))
    }

    fn request<'a>(words: &'a [&'a str]) -> Vec<&'a [u8]> {
        words.iter().map(|word| word.as_bytes()).collect()
    }

    #[test]
    fn every_row_is_found_by_its_name_in_any_case() {
        for row in rows() {
            for name in [row.name.to_owned(), row.name.to_uppercase()] {
                assert_eq!(lookup(name.as_bytes()).map(|found| found.name), Some(row.name));
            }
            for sub in row.subcommands {
                let name = sub.name.to_uppercase();
                assert_eq!(find(name.as_bytes()).map(|found| found.name), Some(sub.name));
            }
        }
    }

    #[test]
    fn what_is_no_command_is_not_found() {
        for name in [
            "",
            "ge",
            "gett",
            "get\0",
            "\0get",
            "g\u{e9}t",
            "config|get",
            "averyveryverylong",
            "averyveryverylo\u{f}",
        ] {
            assert!(lookup(name.as_bytes()).is_none(), "{name:?}");
        }
        for name in ["config|", "|get", "config|get|get", "get|get", "config|gett"] {
            assert!(find(name.as_bytes()).is_none(), "{name:?}");
        }
    }

    #[test]
    fn probes_are_short() {
        for row in rows() {
            let home = home(fold(row.name.as_bytes()).expect("short"));
            let at = |place: &usize| INDEX.rows[*place] != EMPTY;
            let run = (home..home + PLACES).map(|place| place % PLACES).take_while(at).count();
            assert!(run <= 8, "{} stands in a run of {run}", row.name);
        }
    }

    #[test]
    fn names_are_unique_lower_case_and_short() {
        let names: Vec<_> = all().map(|row| row.name).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        for name in names {
            assert_eq!(name, name.to_ascii_lowercase());
        }
        for row in rows() {
            assert!(row.subcommands.is_empty() || row.arity == -2 || row.name == "command");
            for sub in row.subcommands {
                assert_eq!(sub.name.split_once('|'), Some((row.name, sub.short_name())));
                assert!(sub.subcommands.is_empty());
            }
        }
    }

    #[test]
    fn a_request_of_the_least_length_holds_its_keys() {
        for row in all() {
            assert_ne!(row.arity, 0, "{}", row.name);
            let least = row.arity.unsigned_abs() as usize;
            assert!(row.accepts(least) && !row.accepts(least - 1), "{}", row.name);
            assert_eq!(row.accepts(least + 1), row.arity < 0, "{}", row.name);
            assert_eq!(row.keys.is_empty(), row.key_specs.is_empty(), "{}", row.name);
            match row.keys.places(&vec![&b"1"[..]; least]) {
                Ok(places) => assert!(places.len() > 0, "{}", row.name),
                Err(why) => assert_eq!(why, Keyless::Always, "{}", row.name),
            }
        }
    }

    #[test]
    fn who_runs_a_command_fits_its_keys_and_flags() {
        for row in all() {
            let (writes, reads) = (row.flags.has(Flag::Write), row.flags.has(Flag::Readonly));
            assert!(!(writes && reads), "{}", row.name);
            assert!(!row.flags.has(Flag::Blind) || writes, "{}", row.name);
            match row.run {
                Run::Session => assert!(!writes, "{}", row.name),
                Run::Everywhere => {
                    assert!(row.keys.is_empty() && (writes || reads), "{}", row.name)
                }
                Run::Slot(_) => assert!(!row.keys.is_empty() && (writes || reads), "{}", row.name),
                Run::Each { stride, .. } => {
                    assert_eq!(row.keys.first, 1, "{}", row.name);
                    assert_eq!(row.keys.last, -1, "{}", row.name);
                    assert_eq!(row.keys.step as usize, stride, "{}", row.name);
                }
            }
            for spec in row.key_specs {
                let changes = [Access::Rw, Access::Ow, Access::Rm];
                let changed = changes.iter().any(|access| spec.accesses.has(*access));
                assert_ne!(changed, spec.accesses.has(Access::Ro), "{}", row.name);
                assert!(!changed || writes, "{}", row.name);
            }
        }
    }

    fn check_args(row: &Spec, args: &[Arg]) {
        for arg in args {
            assert!(!arg.name.is_empty(), "{}", row.name);
            assert_eq!(arg.kind == ArgKind::Key, arg.key_spec.is_some(), "{}", row.name);
            assert!(arg.key_spec.is_none_or(|at| (at as usize) < row.key_specs.len()));
            assert!(arg.kind != ArgKind::PureToken || !arg.token.is_empty(), "{}", row.name);
            assert_eq!(arg.args.is_empty(), arg.is_displayed(), "{}", row.name);
            check_args(row, arg.args);
        }
    }

    #[test]
    fn every_row_is_documented() {
        for row in all() {
            let docs = &row.docs;
            assert!(!docs.summary.is_empty() && !docs.summary.ends_with('.'), "{}", row.name);
            assert!(!docs.complexity.is_empty(), "{}", row.name);
            assert_eq!(docs.since.split('.').count(), 3, "{}", row.name);
            check_args(row, docs.args);
            let short =
                !row.subcommands.is_empty() || docs.args.len() < row.arity.unsigned_abs() as usize;
            assert!(short || row.arity < 0, "{}", row.name);
        }
    }

    /// The line of docs/commands.md that tells of `row`.
    fn page_line(row: &Spec) -> String {
        let name = row.name.replace('|', " ").to_uppercase();
        let usage = format!("{name} {}", syntax(row.docs.args)).trim_end().replace('|', "\\|");
        let place = match row.run {
            Run::Session => "the session",
            Run::Everywhere => "the whole cluster",
            Run::Slot(_) => "the coordinator",
            Run::Each { .. } => "each key's coordinator",
        };
        format!("| `{usage}` | {} | {place} |", row.docs.summary)
    }

    #[test]
    fn the_page_of_commands_tells_of_every_row() {
        let page = include_str!("../../docs/commands.md");
        let told: BTreeSet<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
        let runnable = |row: &&Spec| row.subcommands.is_empty() || row.accepts(1);
        let rows: BTreeSet<String> = all().filter(runnable).map(page_line).collect();
        let missing: Vec<_> = rows.iter().filter(|line| !told.contains(line.as_str())).collect();
        let stale: Vec<_> = told.iter().filter(|line| !rows.contains(**line)).collect();
        assert!(
            missing.is_empty() && stale.is_empty(),
            "docs/commands.md lacks {missing:#?} and should not have {stale:#?}"
        );
    }

    #[test]
    fn requests_are_resolved_or_refused() {
        let name = |words: &[&str]| resolve(&request(words)).map(|spec| spec.name);
        assert_eq!(name(&["GeT", "a"]).ok(), Some("get"));
        assert_eq!(name(&["CONFIG", "Get", "x"]).ok(), Some("config|get"));
        assert_eq!(name(&["command"]).ok(), Some("command"));
        assert_eq!(name(&["command", "COUNT"]).ok(), Some("command|count"));
        assert!(matches!(name(&[]), Err(Refusal::UnknownCommand)));
        assert!(matches!(name(&["nope"]), Err(Refusal::UnknownCommand)));
        assert!(matches!(name(&["config", "nope"]), Err(Refusal::UnknownSubcommand(_))));
        for words in [&["get"][..], &["get", "a", "b"], &["config"], &["mset", "a", "1", "b"]] {
            assert!(matches!(name(words), Err(Refusal::Arity(_))), "{words:?}");
        }
    }

    #[test]
    fn conditions_make_a_set_look_back() {
        let blind = |words: &[&str]| {
            let args = request(words);
            resolve(&args).expect("a command").is_blind(&args)
        };
        assert!(blind(&["set", "k", "v"]) && blind(&["set", "k", "v", "EX", "10"]));
        assert!(
            blind(&["set", "nx", "get"]) && blind(&["incr", "k"]) && blind(&["mset", "k", "nx"])
        );
        assert!(!blind(&["set", "k", "v", "Nx"]) && !blind(&["set", "k", "v", "ex", "1", "get"]));
        assert!(blind(&["zadd", "k", "CH", "1", "m"]) && blind(&["zadd", "k", "incr", "1", "nx"]));
        assert!(!blind(&["zadd", "k", "ch", "Gt", "1", "m"]) && blind(&["zincrby", "k", "1", "m"]));
        assert!(!blind(&["zpopmin", "k"]) && !blind(&["zrem", "k", "m"]));
        assert!(!blind(&["append", "k", "v"]) && !blind(&["get", "k"]) && !blind(&["del", "k"]));
    }

    proptest! {
        #[test]
        fn folding_is_ascii_lower_case(name in proptest::collection::vec(any::<u8>(), 0..20)) {
            let folded = fold(&name);
            prop_assert_eq!(folded, fold(&name.to_ascii_lowercase()));
            let is_name = match name.len() {
                NAME_SIZE_MAX => name[NAME_SIZE_MAX - 1] >= b'A',
                len => (1..NAME_SIZE_MAX).contains(&len),
            };
            prop_assert_eq!(folded.is_some(), is_name);
            if let Some(folded) = folded {
                prop_assert_eq!(&folded.to_le_bytes()[..name.len()], &name.to_ascii_lowercase()[..]);
            }
        }

        #[test]
        fn lookup_is_what_a_search_finds(name in "[a-zA-Z.|]{0,17}") {
            let searched = rows().iter().find(|row| row.name.eq_ignore_ascii_case(&name));
            prop_assert_eq!(lookup(name.as_bytes()).map(|row| row.name), searched.map(|row| row.name));
        }
    }
}
