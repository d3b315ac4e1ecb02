//! The rows of CLUSTER: the ring as Redis Cluster's clients want to see it.
//!
//! Only what looks at the cluster: its topology is changed at the operator's door.

use crate::command::docs::{Arg, Group};
use crate::command::flags::Flag;
use crate::command::spec::{Run, Spec};

use super::{BY_SUBCOMMAND, CONSTANT, PER_NODE};

use Flag::{Admin, Loading, Stale};

const fn row(
    name: &'static str,
    arity: i32,
    flags: &[Flag],
    since: &'static str,
    complexity: &'static str,
    summary: &'static str,
) -> Spec {
    Spec::new(name, arity, Run::Session).flags(flags, &[]).docs(
        Group::Cluster,
        since,
        complexity,
        summary,
    )
}

const CHANGING: &[&str] = &["nondeterministic_output"];
const NODE: &[Arg] = &[Arg::string("node-id")];

const CLUSTER: &[Spec] = &[
    row(
        "cluster|countkeysinslot",
        3,
        &[Stale],
        "3.0.0",
        "O(N) in the keys of the slot",
        "Counts the keys of a slot that this node holds",
    )
    .args(&[Arg::integer("slot")]),
    row(
        "cluster|getkeysinslot",
        4,
        &[Stale],
        "3.0.0",
        "O(N) in the number of keys asked for",
        "Lists keys of a slot that this node holds",
    )
    .tips(CHANGING)
    .args(&[Arg::integer("slot"), Arg::integer("count")]),
    row("cluster|help", 2, &[Loading, Stale], "5.0.0", CONSTANT, "Lists these subcommands"),
    row("cluster|info", 2, &[Stale], "3.0.0", CONSTANT, "Reports how the cluster is")
        .tips(CHANGING),
    row(
        "cluster|keyslot",
        3,
        &[Stale],
        "3.0.0",
        "O(N) in the length of the key",
        "Answers the slot of a key",
    )
    .args(&[Arg::string("key")]),
    row("cluster|links", 2, &[Stale], "7.0.0", PER_NODE, "Describes the links to peers")
        .tips(CHANGING),
    row("cluster|myid", 2, &[Stale], "3.0.0", CONSTANT, "Answers this node's id"),
    row(
        "cluster|myshardid",
        2,
        &[Stale],
        "7.2.0",
        CONSTANT,
        "Answers the id of the shard that this node shows itself in",
    )
    .tips(CHANGING),
    row("cluster|nodes", 2, &[Stale], "3.0.0", PER_NODE, "Lists the members and their slots")
        .tips(CHANGING),
    row(
        "cluster|replicas",
        3,
        &[Admin, Stale],
        "5.0.0",
        PER_NODE,
        "Lists the members that are shown as a node's replicas",
    )
    .tips(CHANGING)
    .args(NODE),
    row(
        "cluster|shards",
        2,
        &[Stale],
        "7.0.0",
        PER_NODE,
        "Lists runs of slots, and the nodes that serve each",
    )
    .tips(CHANGING),
    row(
        "cluster|slaves",
        3,
        &[Admin, Stale],
        "3.0.0",
        PER_NODE,
        "Lists the members that are shown as a node's replicas",
    )
    .deprecated("5.0.0", "`CLUSTER REPLICAS`")
    .tips(CHANGING)
    .args(NODE),
    row(
        "cluster|slots",
        2,
        &[Stale],
        "3.0.0",
        PER_NODE,
        "Lists runs of slots, and the nodes that serve each",
    )
    .deprecated("7.0.0", "`CLUSTER SHARDS`")
    .tips(CHANGING),
];

/// The rows.
pub const ROWS: &[Spec] = &[Spec::new("cluster", -2, Run::Session)
    .docs(Group::Cluster, "3.0.0", BY_SUBCOMMAND, "Shows the ring to cluster clients")
    .subcommands(CLUSTER)];
