//! The rows of sets.

use crate::command::docs::{Arg, Group};
use crate::command::element_scan;
use crate::command::flags::{Access, Category, Flag};
use crate::command::keyspec::KeySpec;
use crate::command::set;
use crate::command::set_algebra;
use crate::command::spec::{Keyed, Run, Spec};

use super::{CONSTANT, KEY, KEYS, PER_ELEMENT, PER_NAMED, SCAN_COST, SCAN_OPTIONS};

use Access::{Access as Shown, Delete, Insert, Ow, Ro, Rw, Update};
use Flag::{Blind, Denyoom, Fast, Movablekeys, Readonly, Write};

const fn row(name: &'static str, arity: i32, flags: &[Flag], run: Keyed) -> Spec {
    Spec::new(name, arity, Run::Slot(run)).flags(flags, &[Category::Set])
}

/// A command that shows what is made of several sets, in any order.
const fn made(name: &'static str, run: Keyed, cost: &'static str, summary: &'static str) -> Spec {
    row(name, -2, &[Readonly], run)
        .keys(SHOW_ALL)
        .tips(&["nondeterministic_output_order"])
        .docs(Group::Set, "1.0.0", cost, summary)
        .args(&[KEYS])
}

/// A command that stores what is made of several sets.
const fn stored(
    name: &'static str,
    run: Keyed,
    keys: &'static [KeySpec],
    cost: &'static str,
    summary: &'static str,
) -> Spec {
    row(name, -3, &[Write, Denyoom], run)
        .keys(keys)
        .docs(Group::Set, "1.0.0", cost, summary)
        .args(TARGET)
}

const MEMBER: Arg = Arg::string("member");
const MEMBERS: Arg = MEMBER.multiple();

const PER_SMALLEST: &str = "O(N*M) at most, in the size of the smallest set and the number of sets";
const PER_ALL: &str = "O(N) in the number of members of all sets";

const LOOK: &[KeySpec] = &[KeySpec::at(1, &[Ro])];
const SHOW: &[KeySpec] = &[KeySpec::at(1, &[Ro, Shown])];
const SHOW_ALL: &[KeySpec] = &[KeySpec::from(1, 1, &[Ro, Shown])];
const TARGET: &[Arg] = &[Arg::key("destination", 0), Arg::key("key", 1).multiple()];
const FROM_OTHERS: KeySpec = KeySpec::from(2, 1, &[Ro, Shown]);

/// The rows.
pub const ROWS: &[Spec] = &[
    row("sadd", -3, &[Write, Denyoom, Fast, Blind], set::sadd)
        .keys(&[KeySpec::at(1, &[Rw, Insert])])
        .docs(
            Group::Set,
            "1.0.0",
            PER_NAMED,
            "Adds members to a set, and counts those that are new",
        )
        .args(&[KEY, MEMBERS]),
    row("srem", -3, &[Write, Fast], set::srem)
        .keys(&[KeySpec::at(1, &[Rw, Delete])])
        .docs(Group::Set, "1.0.0", PER_NAMED, "Removes members of a set, and the set with its last")
        .args(&[KEY, MEMBERS]),
    row("sismember", 3, &[Readonly, Fast], set::sismember)
        .keys(LOOK)
        .docs(Group::Set, "1.0.0", CONSTANT, "Tells whether a set has a member")
        .args(&[KEY, MEMBER]),
    row("smismember", -3, &[Readonly, Fast], set::smismember)
        .keys(SHOW)
        .docs(Group::Set, "6.2.0", PER_NAMED, "Tells which of several members a set has")
        .args(&[KEY, MEMBERS]),
    row("smembers", 2, &[Readonly], set::smembers)
        .keys(SHOW)
        .tips(&["nondeterministic_output_order"])
        .docs(Group::Set, "1.0.0", PER_ELEMENT, "Lists all members of a set")
        .args(&[KEY]),
    row("scard", 2, &[Readonly, Fast], set::scard)
        .keys(LOOK)
        .docs(Group::Set, "1.0.0", CONSTANT, "Counts the members of a set")
        .args(&[KEY]),
    row("spop", -2, &[Write, Fast], set::spop)
        .keys(&[KeySpec::at(1, &[Rw, Shown, Delete])])
        .tips(&["nondeterministic_output"])
        .docs(
            Group::Set,
            "1.0.0",
            "O(N) in the number of members answered",
            "Removes random members of a set and answers them",
        )
        .args(&[KEY, Arg::integer("count").since("3.2.0").optional()]),
    row("srandmember", -2, &[Readonly], set::srandmember)
        .keys(SHOW)
        .tips(&["nondeterministic_output"])
        .docs(
            Group::Set,
            "1.0.0",
            "O(N) in the number of members answered",
            "Answers random members of a set: different ones, or with a negative count any",
        )
        .args(&[KEY, Arg::integer("count").since("2.6.0").optional()]),
    row("smove", 4, &[Write, Fast], set::smove)
        .keys(&[KeySpec::at(1, &[Rw, Shown, Delete]), KeySpec::at(2, &[Rw, Insert])])
        .docs(Group::Set, "1.0.0", CONSTANT, "Moves a member to another set of the slot")
        .args(&[Arg::key("source", 0), Arg::key("destination", 1), MEMBER]),
    row("sscan", -3, &[Readonly], element_scan::sscan)
        .keys(SHOW)
        .tips(&["nondeterministic_output"])
        .docs(Group::Set, "2.8.0", SCAN_COST, "Goes through the members of a set in steps")
        .args(&[KEY, SCAN_OPTIONS[0], SCAN_OPTIONS[1], SCAN_OPTIONS[2]]),
    made(
        "sinter",
        set_algebra::sinter,
        PER_SMALLEST,
        "Lists what is in all of several sets of one slot",
    ),
    stored(
        "sinterstore",
        set_algebra::sinterstore,
        &[KeySpec::at(1, &[Rw, Update]), FROM_OTHERS],
        PER_SMALLEST,
        "Stores what is in all of several sets of one slot",
    ),
    row("sintercard", -3, &[Readonly, Movablekeys], set_algebra::sintercard)
        .keys(&[KeySpec::counted(1, &[Ro, Shown])])
        .docs(
            Group::Set,
            "7.0.0",
            PER_SMALLEST,
            "Counts what is in all of several sets of one slot, up to a limit",
        )
        .args(&[Arg::integer("numkeys"), KEYS, Arg::integer("limit").token("LIMIT").optional()]),
    made(
        "sunion",
        set_algebra::sunion,
        PER_ALL,
        "Lists what is in any of several sets of one slot",
    ),
    stored(
        "sunionstore",
        set_algebra::sunionstore,
        &[KeySpec::at(1, &[Ow, Update]), FROM_OTHERS],
        PER_ALL,
        "Stores what is in any of several sets of one slot",
    ),
    made(
        "sdiff",
        set_algebra::sdiff,
        PER_ALL,
        "Lists what is in the first of several sets of one slot and in no other",
    ),
    stored(
        "sdiffstore",
        set_algebra::sdiffstore,
        &[KeySpec::at(1, &[Ow, Update]), FROM_OTHERS],
        PER_ALL,
        "Stores what is in the first of several sets of one slot and in no other",
    ),
];
