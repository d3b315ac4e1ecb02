//! The rows of sorted sets.

use crate::command::docs::{Arg, Group};
use crate::command::element_scan;
use crate::command::flags::{Access, Category, Flag};
use crate::command::keyspec::KeySpec;
use crate::command::spec::{Keyed, Run, Spec};
use crate::command::{zset, zset_algebra, zset_pop, zset_range};

use super::{CONSTANT, KEY};

use Access::{Access as Shown, Delete, Ow, Ro, Rw, Update};
use Flag::{Blind, Blocking, Denyoom, Fast, Movablekeys, Noscript, Readonly, Write};

const SORTED_SETS: &[Category] = &[Category::Sortedset];

const fn row(name: &'static str, arity: i32, flags: &[Flag], run: Keyed) -> Spec {
    Spec::new(name, arity, Run::Slot(run)).flags(flags, SORTED_SETS).group(Group::SortedSet)
}

/// A command that reads a range.
const fn reading(name: &'static str, arity: i32, run: Keyed, args: &'static [Arg]) -> Spec {
    row(name, arity, &[Readonly], run).keys(READ).args(args)
}

/// A command that asks something quick.
const fn asking(name: &'static str, arity: i32, run: Keyed, args: &'static [Arg]) -> Spec {
    row(name, arity, &[Readonly, Fast], run).keys(READ).args(args)
}

/// A command that removes a range.
const fn removing(name: &'static str, run: Keyed, args: &'static [Arg]) -> Spec {
    row(name, 4, &[Write], run).keys(REMOVED).args(args)
}

/// A command that reads several sets.
const fn combining(name: &'static str, run: Keyed, args: &'static [Arg]) -> Spec {
    row(name, -3, &[Readonly, Movablekeys], run).keys(READ_ALL).args(args)
}

/// A command that makes a set of several.
const fn storing(name: &'static str, run: Keyed, args: &'static [Arg]) -> Spec {
    row(name, -4, &[Write, Denyoom, Movablekeys], run).keys(STORED_FROM).args(args)
}

const READ: &[KeySpec] = &[KeySpec::at(1, &[Ro, Shown])];
const READ_ALL: &[KeySpec] = &[KeySpec::counted(1, &[Ro, Shown])];
const REMOVED: &[KeySpec] = &[KeySpec::at(1, &[Rw, Delete])];
const STORED_FROM: &[KeySpec] = &[KeySpec::at(1, &[Ow, Update]), KeySpec::counted(2, &[Ro, Shown])];
const TAKEN: &[KeySpec] = &[KeySpec::at(1, &[Rw, Shown, Delete])];

const TAKEN_FROM_ANY: &[KeySpec] = &[KeySpec::from(1, 1, &[Rw, Shown, Delete]).but_last()];

const TIMEOUT: Arg = Arg::double("timeout");
const MEMBER: Arg = Arg::string("member");
const NUMKEYS: Arg = Arg::integer("numkeys");
const WITHSCORES: Arg = Arg::word("withscores", "WITHSCORES").optional();
const WITHSCORE: Arg = Arg::word("withscore", "WITHSCORE").since("7.2.0").optional();
const OFFSET: &[Arg] = &[Arg::integer("offset"), Arg::integer("count")];
const LIMIT: Arg = Arg::block("limit", OFFSET).token("LIMIT").optional();
const SORTBY: Arg =
    Arg::oneof("sortby", &[Arg::word("byscore", "BYSCORE"), Arg::word("bylex", "BYLEX")])
        .optional();
const REV: Arg = Arg::word("rev", "REV").optional();
const WHERE: Arg = Arg::oneof("where", &[Arg::word("min", "MIN"), Arg::word("max", "MAX")]);
const WEIGHTS: Arg = Arg::integer("weight").token("WEIGHTS").optional().multiple();
const AGGREGATE: Arg = Arg::oneof(
    "aggregate",
    &[Arg::word("sum", "SUM"), Arg::word("min", "MIN"), Arg::word("max", "MAX")],
)
.token("AGGREGATE")
.optional();

const BY_SCORE: &[Arg] = &[KEY, Arg::double("min"), Arg::double("max")];
const BY_LEX: &[Arg] = &[KEY, Arg::string("min"), Arg::string("max")];
const RANKED: &[Arg] = &[KEY, MEMBER, WITHSCORE];
const COMBINED: &[Arg] = &[NUMKEYS, KEY.multiple(), WEIGHTS, AGGREGATE, WITHSCORES];
const STORED: &[Arg] =
    &[Arg::key("destination", 0), NUMKEYS, Arg::key("key", 1).multiple(), WEIGHTS, AGGREGATE];

const LOG: &str = "O(log(N)) in the number of members";
const LOG_EACH: &str = "O(M*log(N)), M members named and N there";
const LOG_SHOWN: &str = "O(log(N)+M), M members answered and N there";
const LOG_REMOVED: &str = "O(M*log(N)), M members removed and N there";
const PER_NAMED: &str = "O(N) in the number of members named";
const PER_SHOWN: &str = "O(N*log(M)), N members answered and M there";
const UNION: &str = "O(N)+O(M*log(M)), N members of all inputs together and M in the result";
const INTER: &str = "O(N*K)+O(M*log(M)), N members of the smallest of K inputs and M in the result";
const DIFF: &str = "O(N*K)+O(M*log(M)), N members of the first of K inputs and M in the result";

/// The rows.
pub const ROWS: &[Spec] = &[
    row("zadd", -4, &[Write, Denyoom, Fast, Blind], zset::zadd)
        .keys(&[KeySpec::at(1, &[Rw, Update])])
        .docs(
            Group::SortedSet,
            "1.2.0",
            LOG_EACH,
            "Gives members of a sorted set their scores; can set conditions, or add to one score",
        )
        .args(&[
            KEY,
            Arg::oneof("condition", &[Arg::word("nx", "NX"), Arg::word("xx", "XX")])
                .since("3.0.2")
                .optional(),
            Arg::oneof("comparison", &[Arg::word("gt", "GT"), Arg::word("lt", "LT")])
                .since("6.2.0")
                .optional(),
            Arg::word("change", "CH").since("3.0.2").optional(),
            Arg::word("increment", "INCR").since("3.0.2").optional(),
            Arg::block("data", &[Arg::double("score"), MEMBER]).multiple(),
        ]),
    row("zincrby", 4, &[Write, Denyoom, Fast, Blind], zset::zincrby)
        .keys(&[KeySpec::at(1, &[Rw, Shown, Update])])
        .docs(Group::SortedSet, "1.2.0", LOG, "Adds to the score of a member")
        .args(&[KEY, Arg::integer("increment"), MEMBER]),
    row("zrem", -3, &[Write, Fast], zset::zrem)
        .keys(REMOVED)
        .docs(Group::SortedSet, "1.2.0", LOG_EACH, "Removes members")
        .args(&[KEY, MEMBER.multiple()]),
    row("zcard", 2, &[Readonly, Fast], zset::zcard)
        .keys(&[KeySpec::at(1, &[Ro])])
        .docs(Group::SortedSet, "1.2.0", CONSTANT, "Counts the members of a sorted set")
        .args(&[KEY]),
    asking("zcount", 4, zset_range::zcount, BY_SCORE).docs(
        Group::SortedSet,
        "2.0.0",
        LOG,
        "Counts the members with scores in a range",
    ),
    asking("zlexcount", 4, zset_range::zlexcount, BY_LEX).docs(
        Group::SortedSet,
        "2.8.9",
        LOG,
        "Counts the members with names in a range, if all have one score",
    ),
    asking("zscore", 3, zset::zscore, &[KEY, MEMBER]).docs(
        Group::SortedSet,
        "1.2.0",
        CONSTANT,
        "Answers the score of a member",
    ),
    asking("zmscore", -3, zset::zmscore, &[KEY, MEMBER.multiple()]).docs(
        Group::SortedSet,
        "6.2.0",
        PER_NAMED,
        "Answers the scores of several members",
    ),
    asking("zrank", -3, zset::zrank, RANKED).docs(
        Group::SortedSet,
        "2.0.0",
        LOG,
        "Answers the place of a member, counted from the lowest score",
    ),
    asking("zrevrank", -3, zset::zrevrank, RANKED).docs(
        Group::SortedSet,
        "2.0.0",
        LOG,
        "Answers the place of a member, counted from the highest score",
    ),
    reading(
        "zrange",
        -4,
        zset_range::zrange,
        &[
            KEY,
            Arg::string("start"),
            Arg::string("stop"),
            SORTBY.since("6.2.0"),
            REV.since("6.2.0"),
            LIMIT.since("6.2.0"),
            WITHSCORES,
        ],
    )
    .docs(Group::SortedSet, "1.2.0", LOG_SHOWN, "Reads a range of places, scores or names"),
    row("zrangestore", -5, &[Write, Denyoom], zset_range::zrangestore)
        .keys(&[KeySpec::at(1, &[Ow, Update]), KeySpec::at(2, &[Ro, Shown])])
        .docs(
            Group::SortedSet,
            "6.2.0",
            LOG_SHOWN,
            "Stores a range of a sorted set at another key of its slot",
        )
        .args(&[
            Arg::key("dst", 0),
            Arg::key("src", 1),
            Arg::string("min"),
            Arg::string("max"),
            SORTBY,
            REV,
            LIMIT,
        ]),
    reading(
        "zrevrange",
        -4,
        zset_range::zrevrange,
        &[KEY, Arg::integer("start"), Arg::integer("stop"), WITHSCORES],
    )
    .docs(Group::SortedSet, "1.2.0", LOG_SHOWN, "Reads a range of places, the highest score first")
    .deprecated("6.2.0", "`ZRANGE` with the `REV` argument"),
    reading(
        "zrangebyscore",
        -4,
        zset_range::zrangebyscore,
        &[KEY, Arg::double("min"), Arg::double("max"), WITHSCORES.since("2.0.0"), LIMIT],
    )
    .docs(Group::SortedSet, "1.0.5", LOG_SHOWN, "Reads a range of scores")
    .deprecated("6.2.0", "`ZRANGE` with the `BYSCORE` argument"),
    reading(
        "zrevrangebyscore",
        -4,
        zset_range::zrevrangebyscore,
        &[KEY, Arg::double("max"), Arg::double("min"), WITHSCORES, LIMIT],
    )
    .docs(Group::SortedSet, "2.2.0", LOG_SHOWN, "Reads a range of scores, the highest first")
    .deprecated("6.2.0", "`ZRANGE` with the `REV` and `BYSCORE` arguments"),
    reading(
        "zrangebylex",
        -4,
        zset_range::zrangebylex,
        &[KEY, Arg::string("min"), Arg::string("max"), LIMIT],
    )
    .docs(Group::SortedSet, "2.8.9", LOG_SHOWN, "Reads a range of names, if all have one score")
    .deprecated("6.2.0", "`ZRANGE` with the `BYLEX` argument"),
    reading(
        "zrevrangebylex",
        -4,
        zset_range::zrevrangebylex,
        &[KEY, Arg::string("max"), Arg::string("min"), LIMIT],
    )
    .docs(
        Group::SortedSet,
        "2.8.9",
        LOG_SHOWN,
        "Reads a range of names, the last first, if all have one score",
    )
    .deprecated("6.2.0", "`ZRANGE` with the `REV` and `BYLEX` arguments"),
    removing(
        "zremrangebyrank",
        zset_range::zremrangebyrank,
        &[KEY, Arg::integer("start"), Arg::integer("stop")],
    )
    .docs(Group::SortedSet, "2.0.0", LOG_REMOVED, "Removes a range of places"),
    removing("zremrangebyscore", zset_range::zremrangebyscore, BY_SCORE).docs(
        Group::SortedSet,
        "1.2.0",
        LOG_REMOVED,
        "Removes a range of scores",
    ),
    removing("zremrangebylex", zset_range::zremrangebylex, BY_LEX).docs(
        Group::SortedSet,
        "2.8.9",
        LOG_REMOVED,
        "Removes a range of names, if all members have one score",
    ),
    row("zpopmin", -2, &[Write, Fast], zset_pop::zpopmin)
        .keys(TAKEN)
        .docs(Group::SortedSet, "5.0.0", LOG_REMOVED, "Takes the members of the lowest scores")
        .args(&[KEY, Arg::integer("count").optional()]),
    row("zpopmax", -2, &[Write, Fast], zset_pop::zpopmax)
        .keys(TAKEN)
        .docs(Group::SortedSet, "5.0.0", LOG_REMOVED, "Takes the members of the highest scores")
        .args(&[KEY, Arg::integer("count").optional()]),
    row("zmpop", -4, &[Write, Movablekeys], zset_pop::zmpop)
        .keys(&[KeySpec::counted(1, &[Rw, Shown, Delete])])
        .docs(
            Group::SortedSet,
            "7.0.0",
            "O(K)+O(M*log(N)), K keys named, M members removed and N there",
            "Takes the lowest or highest members of the first of several sorted sets that exists",
        )
        .args(&[NUMKEYS, KEY.multiple(), WHERE, Arg::integer("count").token("COUNT").optional()]),
    row("bzmpop", -5, &[Write, Blocking, Movablekeys], zset_pop::bzmpop)
        .keys(&[KeySpec::counted(2, &[Rw, Shown, Delete])])
        .docs(
            Group::SortedSet,
            "7.0.0",
            "O(K)+O(M*log(N)), K keys named, M members removed and N there",
            "Takes members of the first of several sorted sets that exists, or waits for one",
        )
        .args(&[
            TIMEOUT,
            NUMKEYS,
            KEY.multiple(),
            WHERE,
            Arg::integer("count").token("COUNT").optional(),
        ]),
    row("bzpopmin", -3, &[Write, Noscript, Blocking, Fast], zset_pop::bzpopmin)
        .keys(TAKEN_FROM_ANY)
        .docs(
            Group::SortedSet,
            "5.0.0",
            LOG,
            "Takes the lowest member of the first sorted set that exists, or waits for one",
        )
        .args(&[KEY.multiple(), TIMEOUT]),
    row("bzpopmax", -3, &[Write, Noscript, Blocking, Fast], zset_pop::bzpopmax)
        .keys(TAKEN_FROM_ANY)
        .docs(
            Group::SortedSet,
            "5.0.0",
            LOG,
            "Takes the highest member of the first sorted set that exists, or waits for one",
        )
        .args(&[KEY.multiple(), TIMEOUT]),
    row("zrandmember", -2, &[Readonly], zset::zrandmember)
        .keys(READ)
        .tips(&["nondeterministic_output"])
        .docs(
            Group::SortedSet,
            "6.2.0",
            PER_SHOWN,
            "Answers members by chance; a negative count may answer one of them several times",
        )
        .args(&[KEY, Arg::block("options", &[Arg::integer("count"), WITHSCORES]).optional()]),
    row("zscan", -3, &[Readonly], element_scan::zscan)
        .keys(READ)
        .tips(&["nondeterministic_output"])
        .docs(
            Group::SortedSet,
            "2.8.0",
            "O(1) a call, O(N) in the number of members for a whole walk",
            "Walks over members and scores, a part at a time",
        )
        .args(&[
            KEY,
            Arg::integer("cursor"),
            Arg::pattern("pattern").token("MATCH").optional(),
            Arg::integer("count").token("COUNT").optional(),
        ]),
    combining("zunion", zset_algebra::zunion, COMBINED).docs(
        Group::SortedSet,
        "6.2.0",
        UNION,
        "Answers the members of any of several sets of one slot, their scores combined",
    ),
    combining("zinter", zset_algebra::zinter, COMBINED).docs(
        Group::SortedSet,
        "6.2.0",
        INTER,
        "Answers the members that several sets of one slot share, their scores combined",
    ),
    combining(
        "zintercard",
        zset_algebra::zintercard,
        &[NUMKEYS, KEY.multiple(), Arg::integer("limit").token("LIMIT").optional()],
    )
    .docs(
        Group::SortedSet,
        "7.0.0",
        INTER,
        "Counts the members that several sets of one slot share",
    ),
    combining("zdiff", zset_algebra::zdiff, &[NUMKEYS, KEY.multiple(), WITHSCORES]).docs(
        Group::SortedSet,
        "6.2.0",
        DIFF,
        "Answers the members of the first of several sets of one slot that no other has",
    ),
    storing("zunionstore", zset_algebra::zunionstore, STORED).docs(
        Group::SortedSet,
        "2.0.0",
        UNION,
        "Stores what ZUNION answers at a key of the same slot",
    ),
    storing("zinterstore", zset_algebra::zinterstore, STORED).docs(
        Group::SortedSet,
        "2.0.0",
        INTER,
        "Stores what ZINTER answers at a key of the same slot",
    ),
    storing(
        "zdiffstore",
        zset_algebra::zdiffstore,
        &[Arg::key("destination", 0), NUMKEYS, Arg::key("key", 1).multiple()],
    )
    .docs(
        Group::SortedSet,
        "6.2.0",
        DIFF,
        "Stores what ZDIFF answers at a key of the same slot",
    ),
];
