//! COMMAND: what clients may know of the table.
//!
//! Replies have the shape of Redis 7.2, RESP2 and RESP3: cluster clients find keys by them,
//! redis-cli draws its hints from them.

use crate::resp::reply::Reply;

use super::docs::{Arg, Docs};
use super::flags::{Access, Accesses, Categories, Category, Flags};
use super::glob;
use super::help;
use super::keyspec::{Extent, KeySpec, Keyless};
use super::number::is;
use super::spec::Spec;
use super::table;

/// Answers COMMAND or one of its subcommands; `spec` is the row that the request resolved to.
pub fn run(spec: &Spec, args: &[&[u8]], reply: &mut Reply) {
    match spec.name {
        "command|count" => reply.integer(table::rows().len() as i64),
        "command|docs" => docs(&args[2..], reply),
        "command|getkeys" => keys(&args[2..], reply, |key, _, reply| reply.bulk(key)),
        "command|getkeysandflags" => keys(&args[2..], reply, key_and_accesses),
        "command|help" => help::write(table::lookup(b"command").expect("a row"), reply),
        "command|info" if args.len() > 2 => info(&args[2..], reply),
        "command|list" => list(&args[2..], reply),
        _ => rows(table::rows(), reply),
    }
}

// COMMAND INFO

fn rows(rows: &[Spec], reply: &mut Reply) {
    reply.array(rows.len());
    for spec in rows {
        row(spec, reply);
    }
}

fn info(names: &[&[u8]], reply: &mut Reply) {
    reply.array(names.len());
    for name in names {
        match table::find(name) {
            Some(spec) => row(spec, reply),
            None => reply.null(),
        }
    }
}

fn row(spec: &Spec, reply: &mut Reply) {
    reply.array(10);
    reply.bulk(spec.name.as_bytes());
    reply.integer(i64::from(spec.arity));
    flags(spec.flags, reply);
    for number in [spec.keys.first, spec.keys.last, spec.keys.step] {
        reply.integer(i64::from(number));
    }
    categories(spec.categories, reply);
    reply.set(spec.tips.len());
    for tip in spec.tips {
        reply.bulk(tip.as_bytes());
    }
    reply.set(spec.key_specs.len());
    for key_spec in spec.key_specs {
        key_spec_row(key_spec, reply);
    }
    reply.set(spec.subcommands.len());
    for subcommand in spec.subcommands {
        row(subcommand, reply);
    }
}

fn flags(flags: Flags, reply: &mut Reply) {
    reply.set(flags.names().count());
    flags.names().for_each(|name| reply.simple(name));
}

fn categories(categories: Categories, reply: &mut Reply) {
    reply.set(categories.names().count());
    categories.names().for_each(|name| reply.simple(&format!("@{name}")));
}

fn accesses(accesses: Accesses, reply: &mut Reply) {
    reply.set(accesses.names().count());
    accesses.names().for_each(|name| reply.simple(name));
}

fn key_spec_row(spec: &KeySpec, reply: &mut Reply) {
    reply.map(3 + usize::from(!spec.notes.is_empty()));
    if !spec.notes.is_empty() {
        field("notes", spec.notes, reply);
    }
    reply.bulk(b"flags");
    accesses(spec.accesses, reply);
    reply.bulk(b"begin_search");
    rule("index", &[("index", spec.first)], reply);
    reply.bulk(b"find_keys");
    match spec.extent {
        Extent::Range { last, step } => {
            rule("range", &[("lastkey", last), ("keystep", step), ("limit", 0)], reply);
        }
        Extent::Counted => {
            rule("keynum", &[("keynumidx", 0), ("firstkey", 1), ("keystep", 1)], reply);
        }
    }
}

fn rule(kind: &str, numbers: &[(&str, i32)], reply: &mut Reply) {
    reply.map(2);
    field("type", kind, reply);
    reply.bulk(b"spec");
    reply.map(numbers.len());
    for (name, number) in numbers {
        reply.bulk(name.as_bytes());
        reply.integer(i64::from(*number));
    }
}

fn field(name: &str, text: &str, reply: &mut Reply) {
    reply.bulk(name.as_bytes());
    reply.bulk(text.as_bytes());
}

// COMMAND LIST

/// Which names are listed.
enum Filter<'a> {
    All,
    Category(Option<Category>),
    Pattern(&'a [u8]),
    /// There are no modules, so a filter by module lists nothing.
    Module,
}

impl Filter<'_> {
    fn parse<'a>(args: &[&'a [u8]]) -> Option<Filter<'a>> {
        match args {
            [] => Some(Filter::All),
            [filterby, kind, value] if is(filterby, "filterby") => {
                match kind.to_ascii_lowercase().as_slice() {
                    b"module" => Some(Filter::Module),
                    b"aclcat" => Some(Filter::Category(Category::named(value))),
                    b"pattern" => Some(Filter::Pattern(value)),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn admits(&self, spec: &Spec) -> bool {
        match self {
            Filter::All => true,
            Filter::Category(category) => category.is_some_and(|c| spec.categories.has(c)),
            Filter::Pattern(pattern) => glob::matches_nocase(pattern, spec.name.as_bytes()),
            Filter::Module => false,
        }
    }
}

fn list(args: &[&[u8]], reply: &mut Reply) {
    let Some(filter) = Filter::parse(args) else {
        return reply.error("ERR syntax error");
    };
    let with_subcommands = |row: &'static Spec| std::iter::once(row).chain(row.subcommands);
    let listed: Vec<_> =
        table::rows().iter().flat_map(with_subcommands).filter(|row| filter.admits(row)).collect();
    reply.array(listed.len());
    for row in listed {
        reply.bulk(row.name.as_bytes());
    }
}

// COMMAND DOCS

fn docs(names: &[&[u8]], reply: &mut Reply) {
    if names.is_empty() {
        return documented(table::rows().iter(), table::rows().len(), reply);
    }
    let known = names.iter().filter_map(|name| table::find(name));
    documented(known.clone(), known.count(), reply);
}

fn documented<'a>(rows: impl Iterator<Item = &'a Spec>, count: usize, reply: &mut Reply) {
    reply.map(count);
    for spec in rows {
        reply.bulk(spec.name.as_bytes());
        documentation(spec, reply);
    }
}

fn documentation(spec: &Spec, reply: &mut Reply) {
    let Docs { summary, since, group, complexity, deprecated, args } = spec.docs;
    let optional = [deprecated.is_some(), !args.is_empty(), !spec.subcommands.is_empty()];
    let [deprecation, arguments, subcommands] = optional.map(usize::from);
    reply.map(4 + 3 * deprecation + arguments + subcommands);
    field("summary", summary, reply);
    field("since", since, reply);
    field("group", group.name(), reply);
    field("complexity", complexity, reply);
    if let Some((since, instead)) = deprecated {
        reply.bulk(b"doc_flags");
        reply.set(1);
        reply.simple("deprecated");
        field("deprecated_since", since, reply);
        field("replaced_by", instead, reply);
    }
    if !args.is_empty() {
        reply.bulk(b"arguments");
        arguments_tree(args, reply);
    }
    if !spec.subcommands.is_empty() {
        reply.bulk(b"subcommands");
        documented(spec.subcommands.iter(), spec.subcommands.len(), reply);
    }
}

/// The depth is that of the rows, which are constants.
fn arguments_tree(args: &[Arg], reply: &mut Reply) {
    reply.array(args.len());
    for arg in args {
        argument(arg, reply);
    }
}

fn argument(arg: &Arg, reply: &mut Reply) {
    let flags: Vec<_> = [(arg.optional, "optional"), (arg.multiple, "multiple")]
        .into_iter()
        .filter_map(|(set, name)| set.then_some(name))
        .collect();
    let present = [
        arg.is_displayed(),
        arg.key_spec.is_some(),
        !arg.token.is_empty(),
        !arg.since.is_empty(),
        !flags.is_empty(),
        !arg.args.is_empty(),
    ];
    reply.map(2 + present.into_iter().filter(|is| *is).count());
    field("name", arg.name, reply);
    field("type", arg.kind.name(), reply);
    if arg.is_displayed() {
        field("display_text", arg.name, reply);
    }
    if let Some(index) = arg.key_spec {
        reply.bulk(b"key_spec_index");
        reply.integer(i64::from(index));
    }
    if !arg.token.is_empty() {
        field("token", arg.token, reply);
    }
    if !arg.since.is_empty() {
        field("since", arg.since, reply);
    }
    if !flags.is_empty() {
        reply.bulk(b"flags");
        reply.set(flags.len());
        flags.into_iter().for_each(|name| reply.simple(name));
    }
    if !arg.args.is_empty() {
        reply.bulk(b"arguments");
        arguments_tree(arg.args, reply);
    }
}

// COMMAND GETKEYS, COMMAND GETKEYSANDFLAGS

/// Answers `each` of the keys of the whole command `args`.
fn keys(args: &[&[u8]], reply: &mut Reply, each: impl Fn(&[u8], Accesses, &mut Reply)) {
    let Ok(spec) = table::named_by(args) else {
        return reply.error("ERR Invalid command specified");
    };
    if spec.keys.is_empty() {
        return reply.error("ERR The command has no key arguments");
    }
    if !spec.accepts(args.len()) {
        return reply.error("ERR Invalid number of arguments specified for command");
    }
    match accessed(spec, args) {
        Ok(keys) => {
            reply.array(keys.len());
            for (key, accesses) in keys {
                each(key, accesses, reply);
            }
        }
        Err(_) => reply.error("ERR Invalid arguments specified for command"),
    }
}

fn accessed<'a>(spec: &Spec, args: &[&'a [u8]]) -> Result<Vec<(&'a [u8], Accesses)>, Keyless> {
    let mut keys = Vec::new();
    for key_spec in spec.key_specs {
        let accesses = accesses_of(key_spec, args);
        keys.extend(key_spec.range().places(args)?.map(|place| (args[place], accesses)));
    }
    Ok(keys)
}

/// What a request does with the keys of `key_spec`. Only SET's depends on its arguments: it
/// shows the old value with GET, and just replaces it without.
fn accesses_of(key_spec: &KeySpec, args: &[&[u8]]) -> Accesses {
    if !key_spec.accesses.has(Access::VariableFlags) {
        return key_spec.accesses;
    }
    if args.iter().skip(3).any(|arg| is(arg, "get")) {
        Accesses::of(&[Access::Rw, Access::Access, Access::Update])
    } else {
        Accesses::of(&[Access::Ow, Access::Update])
    }
}

fn key_and_accesses(key: &[u8], found: Accesses, reply: &mut Reply) {
    reply.array(2);
    reply.bulk(key);
    accesses(found, reply);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::reply::Protocol;

    fn answer(protocol: Protocol, words: &[&str]) -> String {
        let args: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let mut reply = Reply::new(protocol);
        let spec = table::resolve(&args).expect("a row");
        run(spec, &args, &mut reply);
        String::from_utf8(reply.bytes.to_vec()).expect("text")
    }

    /// The RESP2 reply, line ends as blanks.
    fn resp2(request: &str) -> String {
        let words: Vec<_> = request.split(' ').collect();
        answer(Protocol::Resp2, &words).replace("\r\n", " ").trim_end().to_owned()
    }

    /// How many replies stand at the front of `lines`, read to their ends; the rest of them.
    fn skip_reply<'a>(lines: &'a [&'a str]) -> &'a [&'a str] {
        let (head, mut rest) = lines.split_first().expect("a reply");
        let (tag, number) = head.split_at(1);
        let count = match tag {
            "*" | "~" => number.parse().expect("a count"),
            "%" => 2 * number.parse::<usize>().expect("a count"),
            "$" if number != "-1" => {
                assert_eq!(rest[0].len().to_string(), number);
                return &rest[1..];
            }
            _ => 0,
        };
        for _ in 0..count {
            rest = skip_reply(rest);
        }
        rest
    }

    #[test]
    fn every_reply_is_one_well_formed_reply() {
        for protocol in [Protocol::Resp2, Protocol::Resp3] {
            for request in [
                "command",
                "command info",
                "command docs",
                "command list",
                "command help",
                "command count",
                "command info get nope config|get",
                "command docs get nope set",
            ] {
                let words: Vec<_> = request.split(' ').collect();
                let text = answer(protocol, &words);
                let lines: Vec<_> = text.trim_end_matches("\r\n").split("\r\n").collect();
                assert!(skip_reply(&lines).is_empty(), "{request}");
            }
        }
    }

    #[test]
    fn info_is_as_redis_gives_it() {
        let range = "$12 begin_search *4 $4 type $5 index $4 spec *2 $5 index :1 \
                     $9 find_keys *4 $4 type $5 range $4 spec *6 $7 lastkey :-1 $7 keystep :1 $5 limit :0";
        let mget = format!(
            "*10 $4 mget :-2 *2 +readonly +fast :1 :-1 :1 *3 +@read +@string +@fast \
             *1 $26 request_policy:multi_shard *1 *6 $5 flags *2 +RO +access {range} *0"
        );
        assert_eq!(resp2("command info MGET nope"), format!("*2 {mget} $-1"));
        assert_eq!(
            answer(Protocol::Resp3, &["command", "info", "ECHO", "nope"]),
            "*2\r\n*10\r\n$4\r\necho\r\n:2\r\n~3\r\n+loading\r\n+stale\r\n+fast\r\n\
             :0\r\n:0\r\n:0\r\n~2\r\n+@fast\r\n+@connection\r\n~0\r\n~0\r\n~0\r\n_\r\n"
        );
    }

    #[test]
    fn docs_are_a_map_of_maps() {
        assert_eq!(
            answer(Protocol::Resp3, &["command", "docs", "GET", "nope"]),
            "%1\r\n$3\r\nget\r\n%5\r\n$7\r\nsummary\r\n$14\r\nReads a string\r\n\
             $5\r\nsince\r\n$5\r\n1.0.0\r\n$5\r\ngroup\r\n$6\r\nstring\r\n\
             $10\r\ncomplexity\r\n$4\r\nO(1)\r\n$9\r\narguments\r\n*1\r\n\
             %4\r\n$4\r\nname\r\n$3\r\nkey\r\n$4\r\ntype\r\n$3\r\nkey\r\n\
             $12\r\ndisplay_text\r\n$3\r\nkey\r\n$14\r\nkey_spec_index\r\n:0\r\n"
        );
        let config = resp2("command docs config");
        assert!(config.starts_with("*2 $6 config *10 $7 summary "));
        assert!(config.contains(" $11 subcommands *10 $10 config|get *10 $7 summary "));
        assert!(resp2("command docs substr").contains(
            " $9 doc_flags *1 +deprecated $16 deprecated_since $5 2.0.0 $11 replaced_by $10 `GETRANGE` "
        ));
    }

    #[test]
    fn lists_are_filtered() {
        let all = resp2("command list");
        let names: Vec<_> = all.split(' ').filter(|word| !word.starts_with(['*', '$'])).collect();
        assert!(names.contains(&"config|get") && names.len() > table::rows().len());
        assert_eq!(resp2("command count"), format!(":{}", table::rows().len()));
        assert_eq!(
            resp2("command list FILTERBY pattern CONFIG|R*"),
            "*2 $16 config|resetstat $14 config|rewrite"
        );
        assert_eq!(resp2("command list filterby module x"), "*0");
        assert_eq!(resp2("command list filterby aclcat nope"), "*0");
        assert!(resp2("command list filterby aclcat DANGEROUS").contains("config|set"));
        for wrong in ["foo", "filterby foo bar", "filterby aclcat", "filterby aclcat read x"] {
            assert_eq!(resp2(&format!("command list {wrong}")), "-ERR syntax error");
        }
    }

    #[test]
    fn keys_are_found_in_whole_commands() {
        for (request, expected) in [
            ("get a", "*1 $1 a"),
            ("MSET a 1 b 2", "*2 $1 a $1 b"),
            ("mset a 1 b", "*2 $1 a $1 b"),
            ("rename a b", "*2 $1 a $1 b"),
            ("lcs a b LEN", "*2 $1 a $1 b"),
            ("Object Encoding a", "*1 $1 a"),
            ("memory usage a samples 5", "*1 $1 a"),
            ("kv.explain a", "*1 $1 a"),
            ("get a b", "-ERR Invalid number of arguments specified for command"),
            ("mget", "-ERR Invalid number of arguments specified for command"),
            ("nope a", "-ERR Invalid command specified"),
            ("object nope a", "-ERR Invalid command specified"),
            ("ping a", "-ERR The command has no key arguments"),
            ("config get a", "-ERR The command has no key arguments"),
        ] {
            assert_eq!(resp2(&format!("command getkeys {request}")), expected, "{request}");
        }
    }

    #[test]
    fn what_is_done_to_keys_is_told_with_them() {
        for (request, expected) in [
            ("rename a b", "*2 *2 $1 a *3 +RW +access +delete *2 $1 b *2 +OW +update"),
            ("copy a b", "*2 *2 $1 a *2 +RO +access *2 $1 b *2 +OW +update"),
            ("set a b", "*1 *2 $1 a *2 +OW +update"),
            ("set a b ex 10 GeT", "*1 *2 $1 a *3 +RW +access +update"),
            ("mget a b", "*2 *2 $1 a *2 +RO +access *2 $1 b *2 +RO +access"),
        ] {
            assert_eq!(resp2(&format!("command getkeysandflags {request}")), expected, "{request}");
        }
    }
}
