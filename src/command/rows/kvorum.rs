//! The rows of Kvorum's own commands.

use crate::command::docs::{Arg, Group};
use crate::command::flags::{Access, Category, Flag};
use crate::command::keyspec::KeySpec;
use crate::command::spec::{Run, Spec};

use super::{CONSTANT, KEY, PER_NODE};

use Flag::{Admin, Fast, Loading, Noscript, Readonly, Stale};

const VNODE: Arg = Arg::integer("vnode");
const ALL: Arg = Arg::word("all", "ALL");
const PER_HELD_KEY: &str = "O(N) in the number of keys that differ, and of vnodes";

/// The rows.
pub const ROWS: &[Spec] = &[
    Spec::new("kv.divergence", -1, Run::Everywhere)
        .flags(&[Readonly, Noscript], &[Category::Admin, Category::Keyspace])
        .tips(&["nondeterministic_output"])
        .docs(
            Group::Kvorum,
            "0.1.0",
            PER_HELD_KEY,
            "Compares the replicas of one vnode or of all, and tells how many keys differ and who is behind; changes nothing",
        )
        .args(&[Arg::oneof("which", &[VNODE, ALL]).optional()]),
    Spec::new("kv.explain", 2, Run::Session)
        .flags(&[Readonly], &[Category::Keyspace])
        .keys(&[KeySpec::at(1, &[Access::Ro, Access::Access])])
        .tips(&["nondeterministic_output"])
        .docs(
            Group::Kvorum,
            "0.1.0",
            PER_NODE,
            "Tells where a key lives, who coordinates it, what this node holds of it and who holds the same",
        )
        .args(&[KEY]),
    Spec::new("kv.quorum", -1, Run::Session)
        .flags(&[Noscript, Loading, Stale, Fast], &[Category::Connection])
        .docs(
            Group::Kvorum,
            "0.1.0",
            CONSTANT,
            "Shows or sets how many replicas reads and writes wait for, on this connection or for one command (`KV.QUORUM R 2 GET key`); DEFAULT resets",
        )
        .args(&[
            Arg::integer("replies").token("R").optional(),
            Arg::integer("copies").token("W").optional(),
        ]),
    Spec::new("kv.repair", -1, Run::Everywhere)
        .flags(&[Readonly, Admin, Noscript], &[Category::Keyspace])
        .tips(&["nondeterministic_output"])
        .docs(
            Group::Kvorum,
            "0.1.0",
            "O(N) in the number of keys",
            "Begins to compare and mend the replicas of one vnode or of all, deletes too; STATUS tells how far that is",
        )
        .args(&[Arg::oneof("which", &[VNODE, ALL, Arg::word("status", "STATUS")]).optional()]),
];
