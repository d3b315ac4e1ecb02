//! The rows of Kvorum's own commands.

use crate::command::docs::{Arg, Group};
use crate::command::flags::{Access, Category, Flag};
use crate::command::keyspec::KeySpec;
use crate::command::siblings;
use crate::command::spec::{Run, Spec};

use super::{CONSTANT, KEY, PER_NODE};

use Flag::{Admin, Blind, Denyoom, Fast, Loading, Noscript, Readonly, Stale, Write};

const VNODE: Arg = Arg::integer("vnode");
const ALL: Arg = Arg::word("all", "ALL");
const PER_HELD_KEY: &str = "O(N) in the number of keys that differ, and of vnodes";
const PER_WRITER: &str = "O(N) in the number of nodes that wrote the key";
const PER_SIBLING: &str = "O(N) in the size of the key's concurrent values";

const READ: &[KeySpec] = &[KeySpec::at(1, &[Access::Ro, Access::Access])];

/// When a value written by KV.SET expires.
const SET_EXPIRATION: &[Arg] = &[
    Arg::integer("seconds").token("EX"),
    Arg::integer("milliseconds").token("PX"),
    Arg::unix_time("unix-time-seconds").token("EXAT"),
    Arg::unix_time("unix-time-milliseconds").token("PXAT"),
    Arg::word("keepttl", "KEEPTTL"),
];

/// The rows.
pub const ROWS: &[Spec] = &[
    Spec::new("kv.clock", 2, Run::Slot(siblings::clock))
        .flags(&[Readonly], &[Category::String])
        .keys(READ)
        .docs(
            Group::Kvorum,
            "0.1.0",
            PER_WRITER,
            "Answers a key's version vector: D([n1,3],[n2,1]) are three writes by node 1 and one by node 2",
        )
        .args(&[KEY]),
    Spec::new("kv.compare", 3, Run::Session)
        .flags(&[Loading, Stale, Fast], &[Category::String])
        .docs(
            Group::Kvorum,
            "0.1.0",
            PER_WRITER,
            "Tells how the first of two context tokens of one key stands to the second: descends, precedes, equal or concurrent",
        )
        .args(&[Arg::string("token1"), Arg::string("token2")]),
    Spec::new("kv.del", 4, Run::Slot(siblings::del))
        .flags(&[Write], &[Category::String])
        .keys(&[KeySpec::at(1, &[Access::Rm, Access::Delete])])
        .docs(
            Group::Kvorum,
            "0.1.0",
            PER_SIBLING,
            "Deletes what a context token has seen of a key, and nothing else",
        )
        .args(&[KEY, Arg::string("token").token("CONTEXT")]),
    Spec::new("kv.get", 2, Run::Slot(siblings::get))
        .flags(&[Readonly], &[Category::String])
        .keys(READ)
        .docs(
            Group::Kvorum,
            "0.1.0",
            PER_SIBLING,
            "Reads every concurrent value of a key, its version vector and a context token",
        )
        .args(&[KEY]),
    Spec::new("kv.set", -3, Run::Slot(siblings::set))
        .flags(&[Write, Denyoom, Blind], &[Category::String])
        .keys(&[KeySpec::at(1, &[Access::Rw, Access::Access, Access::Update])])
        .docs(
            Group::Kvorum,
            "0.1.0",
            PER_SIBLING,
            "Writes a string over what a context token has seen; other values stay beside it, without a token all of them",
        )
        .args(&[
            KEY,
            Arg::string("value"),
            Arg::string("token").token("CONTEXT").optional(),
            Arg::oneof("condition", &[Arg::word("nx", "NX"), Arg::word("xx", "XX")]).optional(),
            Arg::oneof("expiration", SET_EXPIRATION).optional(),
        ]),
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
    Spec::new("kv.status", 1, Run::Session)
        .flags(&[Loading, Stale], &[Category::Connection])
        .tips(&["nondeterministic_output"])
        .docs(
            Group::Kvorum,
            "0.1.0",
            PER_NODE,
            "Tells of every member how this node sees it: state, phi, load, lag, hints, clock",
        ),
];
