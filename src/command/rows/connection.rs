//! The rows of the connection: greeting, authentication, CLIENT.

use crate::command::docs::{Arg, Group};
use crate::command::flags::{Category, Flag};
use crate::command::spec::{Run, Spec};

use super::{BY_SUBCOMMAND, CONSTANT, PER_CLIENT};

use Flag::{Admin, AllowBusy, Blocking, Fast, Loading, NoAuth, Noscript, Stale};

const CONNECTION: &[Category] = &[Category::Connection];

const fn row(name: &'static str, arity: i32, flags: &[Flag], summary: &'static str) -> Spec {
    Spec::new(name, arity, Run::Session).flags(flags, CONNECTION).docs(
        Group::Connection,
        "",
        CONSTANT,
        summary,
    )
}

/// Commands that a client may send before it has authenticated.
const GREETING: &[Flag] = &[Noscript, Loading, Stale, Fast, NoAuth, AllowBusy];
const OWN: &[Flag] = &[Noscript, Loading, Stale];
const OTHERS: &[Flag] = &[Admin, Noscript, Loading, Stale];

const ON_OFF: &[Arg] = &[Arg::oneof("enabled", &[Arg::word("on", "ON"), Arg::word("off", "OFF")])];

const CLIENT_TYPES: &[Arg] = &[
    Arg::word("normal", "NORMAL"),
    Arg::word("master", "MASTER"),
    Arg::word("replica", "REPLICA"),
    Arg::word("pubsub", "PUBSUB"),
];

const KILLED_TYPES: &[Arg] = &[
    Arg::word("normal", "NORMAL"),
    Arg::word("master", "MASTER").since("3.2.0"),
    Arg::word("slave", "SLAVE"),
    Arg::word("replica", "REPLICA").since("5.0.0"),
    Arg::word("pubsub", "PUBSUB"),
];

const KILL_FILTERS: &[Arg] = &[
    Arg::integer("client-id").token("ID").since("2.8.12"),
    Arg::oneof("client-type", KILLED_TYPES).token("TYPE").since("2.8.12"),
    Arg::string("username").token("USER"),
    Arg::string("ip:port").token("ADDR"),
    Arg::string("ip:port").token("LADDR").since("6.2.0"),
    Arg::oneof("skipme", &[Arg::word("yes", "YES"), Arg::word("no", "NO")]).token("SKIPME"),
];

const CLIENT: &[Spec] = &[
    row("client|getname", 2, OWN, "Answers this connection's name").since("2.6.9"),
    row("client|help", 2, &[Loading, Stale], "Lists these subcommands").since("5.0.0"),
    row("client|id", 2, OWN, "Answers this connection's number").since("5.0.0"),
    row("client|info", 2, OWN, "Describes this connection")
        .since("6.2.0")
        .tips(&["nondeterministic_output"]),
    row("client|kill", -3, OTHERS, "Closes connections of this node").since("2.4.0").args(&[
        Arg::oneof(
            "filter",
            &[Arg::string("ip:port"), Arg::oneof("new-format", KILL_FILTERS).multiple()],
        ),
    ]),
    row("client|list", -2, OTHERS, "Describes the connections of this node")
        .docs(Group::Connection, "2.4.0", PER_CLIENT, "Describes the connections of this node")
        .tips(&["nondeterministic_output"])
        .args(&[
            Arg::oneof("client-type", CLIENT_TYPES).token("TYPE").since("5.0.0").optional(),
            Arg::integer("client-id").token("ID").since("6.2.0").optional().multiple(),
        ]),
    row("client|no-evict", 3, OTHERS, "Keeps this connection when memory runs out")
        .since("7.0.0")
        .args(ON_OFF),
    row("client|no-touch", 3, OWN, "Lets this connection's commands not count as use of a key")
        .since("7.2.0")
        .args(ON_OFF),
    row("client|reply", 3, OWN, "Turns replies to this connection on or off").since("3.2.0").args(
        &[Arg::oneof(
            "action",
            &[Arg::word("on", "ON"), Arg::word("off", "OFF"), Arg::word("skip", "SKIP")],
        )],
    ),
    row("client|setinfo", 4, OWN, "Notes which library speaks on this connection")
        .since("7.2.0")
        .args(&[Arg::oneof(
            "attr",
            &[Arg::string("libname").token("LIB-NAME"), Arg::string("libver").token("LIB-VER")],
        )]),
    row("client|setname", 3, OWN, "Names this connection")
        .since("2.6.9")
        .args(&[Arg::string("connection-name")]),
    row("client|unblock", -3, OTHERS, "Ends what another connection of this node waits for")
        .since("5.0.0")
        .args(&[
            Arg::integer("client-id"),
            Arg::oneof(
                "unblock-type",
                &[Arg::word("timeout", "TIMEOUT"), Arg::word("error", "ERROR")],
            )
            .optional(),
        ]),
];

/// The rows.
pub const ROWS: &[Spec] = &[
    row("auth", -2, GREETING, "Proves to the node who is speaking")
        .since("1.0.0")
        .args(&[Arg::string("username").since("6.0.0").optional(), Arg::string("password")]),
    Spec::new("client", -2, Run::Session)
        .docs(Group::Connection, "2.4.0", BY_SUBCOMMAND, "Looks after connections")
        .subcommands(CLIENT),
    row("echo", 2, &[Loading, Stale, Fast], "Answers what it is given")
        .since("1.0.0")
        .args(&[Arg::string("message")]),
    row("hello", -1, GREETING, "Agrees on a protocol version, and can authenticate and name")
        .since("6.0.0")
        .args(&[Arg::block(
            "arguments",
            &[
                Arg::integer("protover"),
                Arg::block("auth", &[Arg::string("username"), Arg::string("password")])
                    .token("AUTH")
                    .optional(),
                Arg::string("clientname").token("SETNAME").optional(),
            ],
        )
        .optional()]),
    row("ping", -1, &[Fast], "Answers PONG, or what it is given")
        .since("1.0.0")
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .args(&[Arg::string("message").optional()]),
    row("quit", -1, GREETING, "Closes the connection")
        .since("1.0.0")
        .deprecated("7.2.0", "just closing the connection"),
    row("reset", 1, GREETING, "Makes the connection as it was when new").since("6.2.0"),
    row("select", 2, &[Loading, Stale, Fast], "Chooses the database; there is only 0")
        .since("1.0.0")
        .args(&[Arg::integer("index")]),
    row("wait", 3, &[Blocking], "Waits until this connection's writes have more copies")
        .tips(&["request_policy:all_shards", "response_policy:agg_min"])
        .docs(
            Group::Generic,
            "3.0.0",
            CONSTANT,
            "Waits until this connection's writes have more copies",
        )
        .args(&[Arg::integer("numreplicas"), Arg::integer("timeout")]),
    row("readonly", 1, &[Loading, Stale, Fast], "Reads from this node's own replica")
        .since("3.0.0")
        .group(Group::Cluster),
    row("readwrite", 1, &[Loading, Stale, Fast], "Reads from the coordinator again")
        .since("3.0.0")
        .group(Group::Cluster),
];
