//! COMMAND: what clients may know of the table.
//!
//! Replies have the shape of Redis 7.2, RESP2 and RESP3: cluster clients find keys by them,
//! redis-cli draws its hints from them.

use crate::resp::reply::Reply;

use super::docs::{Arg, Docs};
use super::flags::{Access, Accesses, Categories, Category, Flags};
use super::glob;
use super::help;
use super::keyspec::{KeySpec, Keyless};
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
    let range = [("lastkey", spec.last), ("keystep", spec.step), ("limit", 0)];
    rule("range", &range, reply);
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
            [filterby, kind, value] if filterby.eq_ignore_ascii_case(b"filterby") => {
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
        keys.extend(key_spec.range().places(args.len())?.map(|place| (args[place], accesses)));
    }
    Ok(keys)
}

/// What a request does with the keys of `key_spec`. Only SET's depends on its arguments: it
/// shows the old value with GET, and just replaces it without.
fn accesses_of(key_spec: &KeySpec, args: &[&[u8]]) -> Accesses {
    if !key_spec.accesses.has(Access::VariableFlags) {
        return key_spec.accesses;
    }
    if args.iter().skip(3).any(|arg| arg.eq_ignore_ascii_case(b"get")) {
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
