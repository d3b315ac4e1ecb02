//! The rows of hashes.

use crate::command::docs::{Arg, Group};
use crate::command::element_scan;
use crate::command::flags::{Access, Category, Flag};
use crate::command::hash;
use crate::command::hash_expiry;
use crate::command::keyspec::KeySpec;
use crate::command::spec::{Keyed, Run, Spec};

use super::{CONSTANT, KEY, PER_ELEMENT, PER_NAMED, SCAN_COST, SCAN_OPTIONS, VALUE};

use Access::{Access as Shown, Delete, Insert, Ro, Rw, Update};
use Flag::{Blind, Denyoom, Fast, Readonly, Write};

const fn row(name: &'static str, arity: i32, flags: &[Flag], run: Keyed) -> Spec {
    Spec::new(name, arity, Run::Slot(run)).flags(flags, &[Category::Hash])
}

/// The row, documented: first version, cost, one sentence.
const fn told(spec: Spec, since: &'static str, cost: &'static str, summary: &'static str) -> Spec {
    spec.docs(Group::Hash, since, cost, summary)
}

/// A command that shows a whole hash, in any order.
const fn showing(name: &'static str, run: Keyed, summary: &'static str) -> Spec {
    let spec = row(name, 2, &[Readonly], run);
    let spec = spec.keys(SHOW).tips(&["nondeterministic_output_order"]).args(&[KEY]);
    told(spec, "2.0.0", PER_ELEMENT, summary)
}

/// A command of the HEXPIRE family.
const fn expiring(
    name: &'static str,
    run: Keyed,
    args: &'static [Arg],
    summary: &'static str,
) -> Spec {
    let spec = row(name, -6, &[Write, Fast], run).keys(CHANGE);
    told(spec.args(args), "7.4.0", PER_NAMED, summary)
}

/// A command of the HTTL family.
const fn timing(name: &'static str, run: Keyed, summary: &'static str) -> Spec {
    let spec = row(name, -5, &[Readonly, Fast], run).keys(SHOW).args(&[KEY, NAMED]);
    told(spec, "7.4.0", PER_NAMED, summary)
}

const FIELD: Arg = Arg::string("field");
const FIELDS: Arg = FIELD.multiple();
const PAIRS: &[Arg] = &[KEY, Arg::block("data", &[FIELD, VALUE]).multiple()];

const NAMED: Arg = Arg::block("fields", &[Arg::integer("numfields"), FIELDS]).token("FIELDS");
const CONDITION: Arg = Arg::oneof(
    "condition",
    &[Arg::word("nx", "NX"), Arg::word("xx", "XX"), Arg::word("gt", "GT"), Arg::word("lt", "LT")],
)
.optional();

const LOOK: &[KeySpec] = &[KeySpec::at(1, &[Ro])];
const SHOW: &[KeySpec] = &[KeySpec::at(1, &[Ro, Shown])];
const CHANGE: &[KeySpec] = &[KeySpec::at(1, &[Rw, Update])];
const COUNT: &[KeySpec] = &[KeySpec::at(1, &[Rw, Shown, Update])];

/// The rows.
pub const ROWS: &[Spec] = &[
    row("hset", -4, &[Write, Denyoom, Fast, Blind], hash::hset)
        .keys(CHANGE)
        .docs(
            Group::Hash,
            "2.0.0",
            PER_NAMED,
            "Writes fields of a hash, whatever they held, and counts those that are new",
        )
        .args(PAIRS),
    row("hmset", -4, &[Write, Denyoom, Fast, Blind], hash::hmset)
        .keys(CHANGE)
        .docs(Group::Hash, "2.0.0", PER_NAMED, "Writes fields of a hash, whatever they held")
        .deprecated("4.0.0", "`HSET` with multiple field-value pairs")
        .args(PAIRS),
    row("hsetnx", 4, &[Write, Denyoom, Fast], hash::hsetnx)
        .keys(&[KeySpec::at(1, &[Rw, Insert])])
        .docs(Group::Hash, "2.0.0", CONSTANT, "Writes a field of a hash unless it exists")
        .args(&[KEY, FIELD, VALUE]),
    row("hget", 3, &[Readonly, Fast], hash::hget)
        .keys(SHOW)
        .docs(Group::Hash, "2.0.0", CONSTANT, "Reads a field of a hash")
        .args(&[KEY, FIELD]),
    row("hmget", -3, &[Readonly, Fast], hash::hmget)
        .keys(SHOW)
        .docs(Group::Hash, "2.0.0", PER_NAMED, "Reads several fields of a hash")
        .args(&[KEY, FIELDS]),
    showing("hgetall", hash::hgetall, "Reads all fields of a hash and their values"),
    row("hdel", -3, &[Write, Fast], hash::hdel)
        .keys(&[KeySpec::at(1, &[Rw, Delete])])
        .docs(
            Group::Hash,
            "2.0.0",
            PER_NAMED,
            "Deletes fields of a hash, and the hash with its last",
        )
        .args(&[KEY, FIELDS]),
    row("hexists", 3, &[Readonly, Fast], hash::hexists)
        .keys(LOOK)
        .docs(Group::Hash, "2.0.0", CONSTANT, "Tells whether a hash has a field")
        .args(&[KEY, FIELD]),
    showing("hkeys", hash::hkeys, "Lists all fields of a hash"),
    showing("hvals", hash::hvals, "Lists all values of a hash"),
    row("hlen", 2, &[Readonly, Fast], hash::hlen)
        .keys(LOOK)
        .docs(Group::Hash, "2.0.0", CONSTANT, "Counts the fields of a hash")
        .args(&[KEY]),
    row("hstrlen", 3, &[Readonly, Fast], hash::hstrlen)
        .keys(LOOK)
        .docs(Group::Hash, "3.2.0", CONSTANT, "Answers the length in bytes of a field's value")
        .args(&[KEY, FIELD]),
    row("hincrby", 4, &[Write, Denyoom, Fast, Blind], hash::hincrby)
        .keys(COUNT)
        .docs(Group::Hash, "2.0.0", CONSTANT, "Adds a whole number to a field of a hash")
        .args(&[KEY, FIELD, Arg::integer("increment")]),
    row("hincrbyfloat", 4, &[Write, Denyoom, Fast, Blind], hash::hincrbyfloat)
        .keys(COUNT)
        .docs(Group::Hash, "2.6.0", CONSTANT, "Adds a number with a fraction to a field of a hash")
        .args(&[KEY, FIELD, Arg::double("increment")]),
    row("hrandfield", -2, &[Readonly], hash::hrandfield)
        .keys(SHOW)
        .tips(&["nondeterministic_output"])
        .docs(
            Group::Hash,
            "6.2.0",
            "O(N) in the number of fields answered",
            "Answers random fields of a hash: different ones, or with a negative count any",
        )
        .args(&[
            KEY,
            Arg::block(
                "options",
                &[Arg::integer("count"), Arg::word("withvalues", "WITHVALUES").optional()],
            )
            .optional(),
        ]),
    row("hscan", -3, &[Readonly], element_scan::hscan)
        .keys(SHOW)
        .tips(&["nondeterministic_output"])
        .docs(Group::Hash, "2.8.0", SCAN_COST, "Goes through the fields of a hash in steps")
        .args(&[
            KEY,
            SCAN_OPTIONS[0],
            SCAN_OPTIONS[1],
            SCAN_OPTIONS[2],
            Arg::word("novalues", "NOVALUES").since("7.4.0").optional(),
        ]),
    expiring(
        "hexpire",
        hash_expiry::hexpire,
        &[KEY, Arg::integer("seconds"), CONDITION, NAMED],
        "Lets fields of a hash live for some seconds",
    ),
    expiring(
        "hpexpire",
        hash_expiry::hpexpire,
        &[KEY, Arg::integer("milliseconds"), CONDITION, NAMED],
        "Lets fields of a hash live for some milliseconds",
    ),
    expiring(
        "hexpireat",
        hash_expiry::hexpireat,
        &[KEY, Arg::unix_time("unix-time-seconds"), CONDITION, NAMED],
        "Lets fields of a hash live until a Unix time in seconds",
    ),
    expiring(
        "hpexpireat",
        hash_expiry::hpexpireat,
        &[KEY, Arg::unix_time("unix-time-milliseconds"), CONDITION, NAMED],
        "Lets fields of a hash live until a Unix time in milliseconds",
    ),
    row("hpersist", -5, &[Write, Fast], hash_expiry::hpersist)
        .keys(CHANGE)
        .docs(Group::Hash, "7.4.0", PER_NAMED, "Takes the time to live of fields of a hash away")
        .args(&[KEY, NAMED]),
    timing("httl", hash_expiry::httl, "Answers how many seconds fields of a hash still live"),
    timing(
        "hpttl",
        hash_expiry::hpttl,
        "Answers how many milliseconds fields of a hash still live",
    ),
    timing(
        "hexpiretime",
        hash_expiry::hexpiretime,
        "Answers the Unix time in seconds at which fields of a hash expire",
    ),
    timing(
        "hpexpiretime",
        hash_expiry::hpexpiretime,
        "Answers the Unix time in milliseconds at which fields of a hash expire",
    ),
];
