//! The rows of keys, whatever they hold: deletion, expiry, renaming, iteration.

use crate::command::docs::{Arg, Group};
use crate::command::dump;
use crate::command::expiry;
use crate::command::flags::{Access, Category, Flag};
use crate::command::key;
use crate::command::keyspec::KeySpec;
use crate::command::object;
use crate::command::spec::{Keyed, Merge, Run, Spec};

use super::{BY_SUBCOMMAND, CONSTANT, KEY, KEYS, PER_KEY};

use Access::{Access as Shown, Delete, Insert, Ow, Rm, Ro, Rw, Update};
use Flag::{Denyoom, Fast, Loading, Readonly, Stale, Write};

const KEYSPACE: &[Category] = &[Category::Keyspace];

const fn row(name: &'static str, arity: i32, flags: &[Flag], run: Run) -> Spec {
    Spec::new(name, arity, run).flags(flags, KEYSPACE)
}

/// A command that takes keys one by one and answers how many it met.
const fn counted(
    name: &'static str,
    flags: &[Flag],
    part: Keyed,
    specs: &'static [KeySpec],
) -> Spec {
    row(name, -2, flags, Run::Each { stride: 1, merge: Merge::Sum, part })
        .keys(specs)
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
}

/// A command of the EXPIRE family.
const fn expiring(name: &'static str, run: Keyed, args: &'static [Arg]) -> Spec {
    row(name, -3, &[Write, Fast], Run::Slot(run)).keys(CHANGED).args(args)
}

/// A command that reads one key's state.
const fn asking(name: &'static str, run: Keyed, specs: &'static [KeySpec]) -> Spec {
    row(name, 2, &[Readonly, Fast], Run::Slot(run)).keys(specs).args(ONLY_KEY)
}

/// A subcommand of OBJECT that reads one key's state.
const fn inspecting(
    name: &'static str,
    since: &'static str,
    run: Keyed,
    summary: &'static str,
) -> Spec {
    row(name, 3, &[Readonly], Run::Slot(run))
        .keys(SECOND)
        .tips(&["nondeterministic_output"])
        .docs(Group::Generic, since, CONSTANT, summary)
        .args(ONLY_KEY)
}

const CONDITION: Arg = Arg::oneof(
    "condition",
    &[Arg::word("nx", "NX"), Arg::word("xx", "XX"), Arg::word("gt", "GT"), Arg::word("lt", "LT")],
)
.since("7.0.0")
.optional();

const ONLY_KEY: &[Arg] = &[KEY];

const FLUSH: &[Arg] = &[Arg::oneof(
    "flush-type",
    &[Arg::word("async", "ASYNC").since("4.0.0"), Arg::word("sync", "SYNC").since("6.2.0")],
)
.optional()];

const ONE: &[KeySpec] = &[KeySpec::at(1, &[Ro])];
const SHOWN: &[KeySpec] = &[KeySpec::at(1, &[Ro, Shown])];
const CHANGED: &[KeySpec] = &[KeySpec::at(1, &[Rw, Update])];
const SECOND: &[KeySpec] = &[KeySpec::at(2, &[Ro])];
const REMOVED: &[KeySpec] = &[KeySpec::from(1, 1, &[Rm, Delete])];
const NAMED: &[KeySpec] = &[KeySpec::from(1, 1, &[Ro])];

const PER_KEYSPACE: &str = "O(N) in the number of keys of the cluster";
const PER_SIZE: &str = "O(N) in the size of the value";
const DANGEROUS: &[Category] = &[Category::Keyspace, Category::Dangerous];

/// The rows.
pub const ROWS: &[Spec] = &[
    counted("del", &[Write], key::del_part, REMOVED)
        .docs(Group::Generic, "1.0.0", PER_KEY, "Deletes keys")
        .args(&[KEYS]),
    counted("unlink", &[Write, Fast], key::del_part, REMOVED)
        .docs(Group::Generic, "4.0.0", PER_KEY, "Deletes keys; the same as DEL here")
        .args(&[KEYS]),
    counted("exists", &[Readonly, Fast], key::exists_part, NAMED)
        .docs(Group::Generic, "1.0.0", PER_KEY, "Counts which of the keys exist")
        .args(&[KEYS]),
    counted("touch", &[Readonly, Fast], key::exists_part, NAMED)
        .docs(Group::Generic, "3.2.1", PER_KEY, "Marks keys as used and counts those that exist")
        .args(&[KEYS]),
    asking("type", key::type_of, ONE).docs(
        Group::Generic,
        "1.0.0",
        CONSTANT,
        "Answers which type of value a key holds",
    ),
    expiring("expire", expiry::expire, &[KEY, Arg::integer("seconds"), CONDITION]).docs(
        Group::Generic,
        "1.0.0",
        CONSTANT,
        "Lets a key live for some seconds",
    ),
    expiring("pexpire", expiry::pexpire, &[KEY, Arg::integer("milliseconds"), CONDITION]).docs(
        Group::Generic,
        "2.6.0",
        CONSTANT,
        "Lets a key live for some milliseconds",
    ),
    expiring("expireat", expiry::expireat, &[KEY, Arg::unix_time("unix-time-seconds"), CONDITION])
        .docs(Group::Generic, "1.2.0", CONSTANT, "Lets a key live until a Unix time in seconds"),
    expiring(
        "pexpireat",
        expiry::pexpireat,
        &[KEY, Arg::unix_time("unix-time-milliseconds"), CONDITION],
    )
    .docs(
        Group::Generic,
        "2.6.0",
        CONSTANT,
        "Lets a key live until a Unix time in milliseconds",
    ),
    asking("ttl", expiry::ttl, SHOWN).tips(&["nondeterministic_output"]).docs(
        Group::Generic,
        "1.0.0",
        CONSTANT,
        "Answers how many seconds a key still lives",
    ),
    asking("pttl", expiry::pttl, SHOWN).tips(&["nondeterministic_output"]).docs(
        Group::Generic,
        "2.6.0",
        CONSTANT,
        "Answers how many milliseconds a key still lives",
    ),
    asking("expiretime", expiry::expiretime, SHOWN).docs(
        Group::Generic,
        "7.0.0",
        CONSTANT,
        "Answers the Unix time in seconds at which a key expires",
    ),
    asking("pexpiretime", expiry::pexpiretime, SHOWN).docs(
        Group::Generic,
        "7.0.0",
        CONSTANT,
        "Answers the Unix time in milliseconds at which a key expires",
    ),
    row("persist", 2, &[Write, Fast], Run::Slot(expiry::persist))
        .keys(CHANGED)
        .docs(Group::Generic, "2.2.0", CONSTANT, "Takes a key's time to live away")
        .args(&[KEY]),
    row("rename", 3, &[Write], Run::Slot(key::rename))
        .keys(&[KeySpec::at(1, &[Rw, Shown, Delete]), KeySpec::at(2, &[Ow, Update])])
        .docs(Group::Generic, "1.0.0", CONSTANT, "Moves a key to another name in its slot")
        .args(&[KEY, Arg::key("newkey", 1)]),
    row("renamenx", 3, &[Write, Fast], Run::Slot(key::renamenx))
        .keys(&[KeySpec::at(1, &[Rw, Shown, Delete]), KeySpec::at(2, &[Ow, Insert])])
        .docs(
            Group::Generic,
            "1.0.0",
            CONSTANT,
            "Moves a key to another name in its slot unless that name is taken",
        )
        .args(&[KEY, Arg::key("newkey", 1)]),
    row("copy", -3, &[Write, Denyoom], Run::Slot(key::copy))
        .keys(&[KeySpec::at(1, &[Ro, Shown]), KeySpec::at(2, &[Ow, Update])])
        .docs(
            Group::Generic,
            "6.2.0",
            PER_SIZE,
            "Copies what a key holds to another key of its slot",
        )
        .args(&[
            Arg::key("source", 0),
            Arg::key("destination", 1),
            Arg::integer("destination-db").token("DB").optional(),
            Arg::word("replace", "REPLACE").optional(),
        ]),
    row("dump", 2, &[Readonly], Run::Slot(dump::dump_key))
        .keys(SHOWN)
        .tips(&["nondeterministic_output"])
        .docs(
            Group::Generic,
            "2.6.0",
            PER_SIZE,
            "Answers what a key holds as bytes that RESTORE understands; they are Kvorum's, not Redis's",
        )
        .args(ONLY_KEY),
    Spec::new("restore", -4, Run::Slot(dump::restore))
        .flags(&[Write, Denyoom], DANGEROUS)
        .keys(&[KeySpec::at(1, &[Ow, Update])])
        .docs(Group::Generic, "2.6.0", PER_SIZE, "Makes a key hold what DUMP answered")
        .args(&[
            KEY,
            Arg::integer("ttl"),
            Arg::string("serialized-value"),
            Arg::word("replace", "REPLACE").since("3.0.0").optional(),
            Arg::word("absttl", "ABSTTL").since("5.0.0").optional(),
            Arg::integer("seconds").token("IDLETIME").since("5.0.0").optional(),
            Arg::integer("frequency").token("FREQ").since("5.0.0").optional(),
        ]),
    // Redis advises cluster clients to ask every shard for the following six and to add up. Here
    // any node answers for the whole cluster, so the rows carry no such tip.
    row("randomkey", 1, &[Readonly], Run::Everywhere).tips(&["nondeterministic_output"]).docs(
        Group::Generic,
        "1.0.0",
        CONSTANT,
        "Answers any one key of the cluster",
    ),
    Spec::new("keys", 2, Run::Everywhere)
        .flags(&[Readonly], DANGEROUS)
        .tips(&["nondeterministic_output_order"])
        .docs(
            Group::Generic,
            "1.0.0",
            PER_KEYSPACE,
            "Lists all keys of the cluster that match a pattern; SCAN does it gently",
        )
        .args(&[Arg::pattern("pattern")]),
    row("scan", -2, &[Readonly], Run::Everywhere)
        .tips(&["nondeterministic_output"])
        .docs(
            Group::Generic,
            "2.8.0",
            "O(COUNT) a call, O(N) for all keys of the cluster",
            "Goes through the keys of the cluster in steps, by a cursor that any node understands",
        )
        .args(&[
            Arg::integer("cursor"),
            Arg::pattern("pattern").token("MATCH").optional(),
            Arg::integer("count").token("COUNT").optional(),
            Arg::string("type").token("TYPE").since("6.0.0").optional(),
        ]),
    row("dbsize", 1, &[Readonly, Fast], Run::Everywhere).docs(
        Group::Server,
        "1.0.0",
        "O(N) in the number of vnodes",
        "Counts the keys of the cluster",
    ),
    Spec::new("flushall", -1, Run::Everywhere)
        .flags(&[Write], DANGEROUS)
        .docs(Group::Server, "1.0.0", PER_KEYSPACE, "Deletes every key of the cluster")
        .args(FLUSH),
    Spec::new("flushdb", -1, Run::Everywhere)
        .flags(&[Write], DANGEROUS)
        .docs(
            Group::Server,
            "1.0.0",
            PER_KEYSPACE,
            "Deletes every key of the cluster; there is one database, so it is FLUSHALL",
        )
        .args(FLUSH),
    Spec::new("object", -2, Run::Session)
        .docs(Group::Generic, "2.2.3", BY_SUBCOMMAND, "Looks at how a key is kept")
        .subcommands(&[
            inspecting(
                "object|encoding",
                "2.2.3",
                object::object_encoding,
                "Names the form in which Redis would keep the value",
            ),
            inspecting(
                "object|freq",
                "4.0.0",
                object::object_freq,
                "With maxmemory answers 2 for a value in memory that was used lately, 1 for any other in memory, 0 for one on disk; else an error",
            ),
            row("object|help", 2, &[Loading, Stale], Run::Session).docs(
                Group::Generic,
                "6.2.0",
                CONSTANT,
                "Lists these subcommands",
            ),
            inspecting(
                "object|idletime",
                "2.2.3",
                object::object_idletime,
                "Answers 0 if a key was used lately, else the seconds since it was last written",
            ),
            inspecting(
                "object|refcount",
                "2.2.3",
                object::object_refcount,
                "Answers 1 if the key exists: values are not shared",
            ),
        ]),
    Spec::new("memory", -2, Run::Session)
        .docs(Group::Server, "4.0.0", BY_SUBCOMMAND, "Looks at memory")
        .subcommands(&[
            Spec::new("memory|help", 2, Run::Session).flags(&[Loading, Stale], &[]).docs(
                Group::Server,
                "4.0.0",
                CONSTANT,
                "Lists these subcommands",
            ),
            Spec::new("memory|usage", -3, Run::Slot(object::memory_usage))
                .flags(&[Readonly], &[])
                .keys(SECOND)
                .docs(
                    Group::Server,
                    "4.0.0",
                    CONSTANT,
                    "Answers how many bytes a key, its value and its history take in memory; a value on disk takes none",
                )
                .args(&[KEY, Arg::integer("count").token("SAMPLES").optional()]),
        ]),
];
