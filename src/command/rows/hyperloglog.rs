//! The rows of HyperLogLogs.

use crate::command::docs::{Arg, Group};
use crate::command::flags::{Access, Category, Flag};
use crate::command::hyperloglog;
use crate::command::keyspec::KeySpec;
use crate::command::spec::{Run, Spec};

use super::{KEY, KEYS};

use Access::{Access as Shown, Insert, Ro, Rw};
use Flag::{Denyoom, Fast, Readonly, Write};

const fn row(name: &'static str, arity: i32, flags: &[Flag], run: Run) -> Spec {
    Spec::new(name, arity, run).flags(flags, &[Category::Hyperloglog])
}

/// The rows.
pub const ROWS: &[Spec] = &[
    row("pfadd", -2, &[Write, Denyoom, Fast], Run::Slot(hyperloglog::pfadd))
        .keys(&[KeySpec::at(1, &[Rw, Insert])])
        .docs(
            Group::Hyperloglog,
            "2.8.9",
            "O(N) in the number of elements",
            "Adds elements to a HyperLogLog; those that concurrent writers left become one",
        )
        .args(&[KEY, Arg::string("element").optional().multiple()]),
    // Redis says RW, because its PFCOUNT notes the estimate in the string. Ours writes nothing.
    row("pfcount", -2, &[Readonly], Run::Slot(hyperloglog::pfcount))
        .keys(&[KeySpec::from(1, 1, &[Ro, Shown])])
        .docs(
            Group::Hyperloglog,
            "2.8.9",
            "O(N) in the number of keys, with a large constant",
            "Estimates how many different elements the HyperLogLogs of a slot have seen together",
        )
        .args(&[KEYS]),
    row("pfmerge", -2, &[Write, Denyoom], Run::Slot(hyperloglog::pfmerge))
        .keys(&[KeySpec::at(1, &[Rw, Shown, Insert]), KeySpec::from(2, 1, &[Ro, Shown])])
        .docs(
            Group::Hyperloglog,
            "2.8.9",
            "O(N) in the number of keys, with a large constant",
            "Adds HyperLogLogs of one slot to another",
        )
        .args(&[Arg::key("destkey", 0), Arg::key("sourcekey", 1).optional().multiple()]),
];
