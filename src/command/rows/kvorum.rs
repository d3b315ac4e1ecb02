//! The rows of Kvorum's own commands.

use crate::command::docs::{Arg, Group};
use crate::command::flags::{Access, Category, Flag};
use crate::command::keyspec::KeySpec;
use crate::command::spec::{Run, Spec};

use super::{CONSTANT, KEY, PER_NODE};

use Flag::{Fast, Loading, Noscript, Readonly, Stale};

/// The rows.
pub const ROWS: &[Spec] = &[
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
