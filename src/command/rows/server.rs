//! The rows of the node: COMMAND, CONFIG, INFO, TIME, and BGSAVE with its kin.

use crate::command::docs::{Arg, Group};
use crate::command::flags::{Category, Flag};
use crate::command::spec::{Run, Spec};

use super::{BY_SUBCOMMAND, CONSTANT, PER_COMMAND};

use Flag::{Admin, Fast, Loading, NoAsyncLoading, NoMulti, Noscript, Stale};

const fn row(name: &'static str, arity: i32, flags: &[Flag]) -> Spec {
    Spec::new(name, arity, Run::Session).flags(flags, &[])
}

/// COMMAND and its subcommands count as the connection's, as in Redis.
const fn command(name: &'static str, arity: i32) -> Spec {
    Spec::new(name, arity, Run::Session).flags(&[Loading, Stale], &[Category::Connection])
}

const OPERATOR: &[Flag] = &[Admin, Noscript, Loading, Stale];
const SAVER: &[Flag] = &[Admin, Noscript, NoAsyncLoading];
const PER_SEGMENT: &str = "O(N) in the number of segments";
const ANY_ORDER: &[&str] = &["nondeterministic_output_order"];
const NAMES: &[Arg] = &[Arg::string("command-name").optional().multiple()];
const WHOLE: &[Arg] = &[Arg::string("command"), Arg::string("arg").optional().multiple()];
const PER_ARGUMENT: &str = "O(N) in the number of arguments";

const COMMAND: &[Spec] = &[
    command("command|count", 2).docs(
        Group::Server,
        "2.8.13",
        CONSTANT,
        "Counts the commands, containers once",
    ),
    command("command|docs", -2)
        .tips(ANY_ORDER)
        .docs(Group::Server, "7.0.0", PER_COMMAND, "Documents commands, or all of them")
        .args(NAMES),
    command("command|getkeys", -3)
        .docs(Group::Server, "2.8.13", PER_ARGUMENT, "Finds the keys in a whole command")
        .args(WHOLE),
    command("command|getkeysandflags", -3)
        .docs(
            Group::Server,
            "7.0.0",
            PER_ARGUMENT,
            "Finds the keys in a whole command, and what would be done to them",
        )
        .args(WHOLE),
    command("command|help", 2).docs(Group::Server, "5.0.0", CONSTANT, "Lists these subcommands"),
    command("command|info", -2)
        .tips(ANY_ORDER)
        .docs(Group::Server, "2.8.13", PER_COMMAND, "Describes commands to clients, or all of them")
        .args(NAMES),
    command("command|list", -2)
        .tips(ANY_ORDER)
        .docs(
            Group::Server,
            "7.0.0",
            PER_COMMAND,
            "Lists the names of commands, all or by module, ACL category or pattern",
        )
        .args(&[Arg::oneof(
            "filterby",
            &[
                Arg::string("module-name").token("MODULE"),
                Arg::string("category").token("ACLCAT"),
                Arg::pattern("pattern").token("PATTERN"),
            ],
        )
        .token("FILTERBY")
        .optional()]),
];

const CONFIG: &[Spec] = &[
    row("config|get", -3, OPERATOR)
        .docs(Group::Server, "2.0.0", PER_ARGUMENT, "Answers this node's settings by pattern")
        .args(&[Arg::string("parameter").multiple()]),
    row("config|help", 2, &[Loading, Stale]).docs(
        Group::Server,
        "5.0.0",
        CONSTANT,
        "Lists these subcommands",
    ),
    row("config|resetstat", 2, OPERATOR).docs(
        Group::Server,
        "2.0.0",
        CONSTANT,
        "Starts this node's statistics anew",
    ),
    row("config|rewrite", 2, OPERATOR).docs(
        Group::Server,
        "2.8.0",
        CONSTANT,
        "Writes this node's settings back into its file",
    ),
    row("config|set", -4, OPERATOR)
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .docs(Group::Server, "2.0.0", PER_ARGUMENT, "Changes settings of this node")
        .args(&[Arg::block("data", &[Arg::string("parameter"), Arg::string("value")]).multiple()]),
];

/// The rows.
pub const ROWS: &[Spec] = &[
    command("command", -1)
        .tips(ANY_ORDER)
        .docs(Group::Server, "2.8.13", PER_COMMAND, "Describes all commands to clients")
        .subcommands(COMMAND),
    Spec::new("config", -2, Run::Session)
        .docs(Group::Server, "2.0.0", BY_SUBCOMMAND, "Reads and changes this node's settings")
        .subcommands(CONFIG),
    Spec::new("info", -1, Run::Session)
        .flags(&[Loading, Stale], &[Category::Dangerous])
        .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
        .docs(Group::Server, "1.0.0", CONSTANT, "Reports this node's state by sections")
        .args(&[Arg::string("section").optional().multiple()]),
    row("bgsave", -1, SAVER)
        .docs(
            Group::Server,
            "1.0.0",
            CONSTANT,
            "Begins a snapshot of this node in the folder `snapshot` beside its log, and answers at once",
        )
        .args(&[Arg::word("schedule", "SCHEDULE").since("3.2.2").optional()]),
    row("save", 1, &[Admin, Noscript, NoAsyncLoading, NoMulti]).docs(
        Group::Server,
        "1.0.0",
        PER_SEGMENT,
        "Makes the same snapshot as BGSAVE, and answers when it is done; nobody else waits",
    ),
    Spec::new("lastsave", 1, Run::Session)
        .flags(&[Loading, Stale, Fast], &[Category::Admin, Category::Dangerous])
        .tips(&["nondeterministic_output"])
        .docs(
            Group::Server,
            "1.0.0",
            CONSTANT,
            "Answers the Unix time of this node's last snapshot, or of its start",
        ),
    row("bgrewriteaof", 1, SAVER).docs(
        Group::Server,
        "1.0.0",
        CONSTANT,
        "Begins to compact this node's log now, which it does by itself when much of it is dead",
    ),
    row("time", 1, &[Loading, Stale, Fast]).tips(&["nondeterministic_output"]).docs(
        Group::Server,
        "2.6.0",
        CONSTANT,
        "Answers this node's clock: Unix seconds and microseconds",
    ),
];
