//! The rows of strings and counters.

use crate::command::counter;
use crate::command::docs::{Arg, Group};
use crate::command::flags::{Access, Category, Flag};
use crate::command::keyspec::KeySpec;
use crate::command::lcs;
use crate::command::range;
use crate::command::spec::{Merge, Run, Spec};
use crate::command::string;

use super::{CONSTANT, KEY, KEYS, PER_KEY, PER_LENGTH, VALUE};

use Access::{Access as Shown, Delete, Insert, Ow, Ro, Rw, Update, VariableFlags};
use Flag::{Blind, Denyoom, Fast, Readonly, Write};

const STRINGS: &[Category] = &[Category::String];

const fn row(name: &'static str, arity: i32, flags: &[Flag], run: Run) -> Spec {
    Spec::new(name, arity, run).flags(flags, STRINGS)
}

/// When a value written by SET expires.
const SET_EXPIRATION: &[Arg] = &[
    Arg::integer("seconds").token("EX").since("2.6.12"),
    Arg::integer("milliseconds").token("PX").since("2.6.12"),
    Arg::unix_time("unix-time-seconds").token("EXAT").since("6.2.0"),
    Arg::unix_time("unix-time-milliseconds").token("PXAT").since("6.2.0"),
    Arg::word("keepttl", "KEEPTTL").since("6.0.0"),
];

/// What GETEX does to the time to live.
const GETEX_EXPIRATION: &[Arg] = &[
    Arg::integer("seconds").token("EX"),
    Arg::integer("milliseconds").token("PX"),
    Arg::unix_time("unix-time-seconds").token("EXAT"),
    Arg::unix_time("unix-time-milliseconds").token("PXAT"),
    Arg::word("persist", "PERSIST"),
];

const PAIRS: &[Arg] = &[Arg::block("data", &[KEY, VALUE]).multiple()];
const SPAN: &[Arg] = &[KEY, Arg::integer("start"), Arg::integer("end")];

const READ: &[KeySpec] = &[KeySpec::at(1, &[Ro, Shown])];
const REPLACE: &[KeySpec] = &[KeySpec::at(1, &[Ow, Update])];
const CHANGE: &[KeySpec] = &[KeySpec::at(1, &[Rw, Shown, Update])];

/// The rows.
pub const ROWS: &[Spec] = &[
    row("get", 2, &[Readonly, Fast], Run::Slot(string::get))
        .keys(READ)
        .docs(Group::String, "1.0.0", CONSTANT, "Reads a string")
        .args(&[KEY]),
    row("set", -3, &[Write, Denyoom, Blind], Run::Slot(string::set))
        .keys(&[KeySpec::at(1, &[Rw, Shown, Update, VariableFlags])
            .notes("RW and ACCESS due to the optional `GET` argument")])
        .docs(
            Group::String,
            "1.0.0",
            CONSTANT,
            "Writes a string, whatever the key held; can set a time to live and conditions",
        )
        .args(&[
            KEY,
            VALUE,
            Arg::oneof("condition", &[Arg::word("nx", "NX"), Arg::word("xx", "XX")])
                .since("2.6.12")
                .optional(),
            Arg::word("get", "GET").since("6.2.0").optional(),
            Arg::oneof("expiration", SET_EXPIRATION).optional(),
        ]),
    row("setnx", 3, &[Write, Denyoom, Fast], Run::Slot(string::setnx))
        .keys(&[KeySpec::at(1, &[Ow, Insert])])
        .docs(Group::String, "1.0.0", CONSTANT, "Writes a string unless the key exists")
        .deprecated("2.6.12", "`SET` with the `NX` argument")
        .args(&[KEY, VALUE]),
    row("setex", 4, &[Write, Denyoom, Blind], Run::Slot(string::setex))
        .keys(REPLACE)
        .docs(Group::String, "2.0.0", CONSTANT, "Writes a string that lives for some seconds")
        .deprecated("2.6.12", "`SET` with the `EX` argument")
        .args(&[KEY, Arg::integer("seconds"), VALUE]),
    row("psetex", 4, &[Write, Denyoom, Blind], Run::Slot(string::psetex))
        .keys(REPLACE)
        .docs(Group::String, "2.6.0", CONSTANT, "Writes a string that lives for some milliseconds")
        .deprecated("2.6.12", "`SET` with the `PX` argument")
        .args(&[KEY, Arg::integer("milliseconds"), VALUE]),
    row("getset", 3, &[Write, Denyoom, Fast], Run::Slot(string::getset))
        .keys(CHANGE)
        .docs(Group::String, "1.0.0", CONSTANT, "Writes a string and answers the one before")
        .deprecated("6.2.0", "`SET` with the `!GET` argument")
        .args(&[KEY, VALUE]),
    row("getdel", 2, &[Write, Fast], Run::Slot(string::getdel))
        .keys(&[KeySpec::at(1, &[Rw, Shown, Delete])])
        .docs(Group::String, "6.2.0", CONSTANT, "Reads a string and deletes its key")
        .args(&[KEY]),
    row("getex", -2, &[Write, Fast], Run::Slot(string::getex))
        .keys(&[
            KeySpec::at(1, &[Rw, Shown, Update]).notes("RW and UPDATE because it changes the TTL")
        ])
        .docs(Group::String, "6.2.0", CONSTANT, "Reads a string and changes its time to live")
        .args(&[KEY, Arg::oneof("expiration", GETEX_EXPIRATION).optional()]),
    row(
        "mget",
        -2,
        &[Readonly, Fast],
        Run::Each { stride: 1, merge: Merge::Array, part: string::mget_part },
    )
    .keys(&[KeySpec::from(1, 1, &[Ro, Shown])])
    .tips(&["request_policy:multi_shard"])
    .docs(Group::String, "1.0.0", PER_KEY, "Reads several strings, each for itself")
    .args(&[KEYS]),
    row(
        "mset",
        -3,
        &[Write, Denyoom, Blind],
        Run::Each { stride: 2, merge: Merge::Ok, part: string::mset_part },
    )
    .keys(&[KeySpec::from(1, 2, &[Ow, Update])])
    .tips(&["request_policy:multi_shard", "response_policy:all_succeeded"])
    .docs(Group::String, "1.0.1", PER_KEY, "Writes several strings, each for itself")
    .args(PAIRS),
    row("msetnx", -3, &[Write, Denyoom], Run::Slot(string::msetnx))
        .keys(&[KeySpec::from(1, 2, &[Ow, Insert])])
        .docs(
            Group::String,
            "1.0.1",
            PER_KEY,
            "Writes several strings of one slot at once, unless any of the keys exists",
        )
        .args(PAIRS),
    row("append", 3, &[Write, Denyoom, Fast], Run::Slot(range::append))
        .keys(&[KeySpec::at(1, &[Rw, Insert])])
        .docs(Group::String, "2.0.0", PER_LENGTH, "Adds to the end of a string")
        .args(&[KEY, VALUE]),
    row("strlen", 2, &[Readonly, Fast], Run::Slot(range::strlen))
        .keys(&[KeySpec::at(1, &[Ro])])
        .docs(Group::String, "2.2.0", CONSTANT, "Answers a string's length in bytes")
        .args(&[KEY]),
    row("getrange", 4, &[Readonly], Run::Slot(range::getrange))
        .keys(READ)
        .docs(Group::String, "2.4.0", PER_LENGTH, "Reads a part of a string")
        .args(SPAN),
    row("substr", 4, &[Readonly], Run::Slot(range::getrange))
        .keys(READ)
        .docs(Group::String, "1.0.0", PER_LENGTH, "Reads a part of a string")
        .deprecated("2.0.0", "`GETRANGE`")
        .args(SPAN),
    row("setrange", 4, &[Write, Denyoom], Run::Slot(range::setrange))
        .keys(&[KeySpec::at(1, &[Rw, Update])])
        .docs(Group::String, "2.2.0", PER_LENGTH, "Overwrites a part of a string")
        .args(&[KEY, Arg::integer("offset"), VALUE]),
    row("incr", 2, &[Write, Denyoom, Fast, Blind], Run::Slot(counter::incr))
        .keys(CHANGE)
        .docs(Group::String, "1.0.0", CONSTANT, "Adds one to a counter")
        .args(&[KEY]),
    row("incrby", 3, &[Write, Denyoom, Fast, Blind], Run::Slot(counter::incrby))
        .keys(CHANGE)
        .docs(Group::String, "1.0.0", CONSTANT, "Adds a whole number to a counter")
        .args(&[KEY, Arg::integer("increment")]),
    row("decr", 2, &[Write, Denyoom, Fast, Blind], Run::Slot(counter::decr))
        .keys(CHANGE)
        .docs(Group::String, "1.0.0", CONSTANT, "Takes one from a counter")
        .args(&[KEY]),
    row("decrby", 3, &[Write, Denyoom, Fast, Blind], Run::Slot(counter::decrby))
        .keys(CHANGE)
        .docs(Group::String, "1.0.0", CONSTANT, "Takes a whole number from a counter")
        .args(&[KEY, Arg::integer("decrement")]),
    row("incrbyfloat", 3, &[Write, Denyoom, Fast, Blind], Run::Slot(counter::incrbyfloat))
        .keys(CHANGE)
        .docs(Group::String, "2.6.0", CONSTANT, "Adds a number with a fraction to a counter")
        .args(&[KEY, Arg::double("increment")]),
    row("lcs", -3, &[Readonly], Run::Slot(lcs::lcs))
        .keys(&[KeySpec::at(1, &[Ro, Shown]).count(2)])
        .docs(
            Group::String,
            "7.0.0",
            "O(N*M) in the lengths of the two strings",
            "Finds the longest common subsequence of two strings of one slot",
        )
        .args(&[
            Arg::key("key1", 0),
            Arg::key("key2", 0),
            Arg::word("len", "LEN").optional(),
            Arg::word("idx", "IDX").optional(),
            Arg::integer("min-match-len").token("MINMATCHLEN").optional(),
            Arg::word("withmatchlen", "WITHMATCHLEN").optional(),
        ]),
];
