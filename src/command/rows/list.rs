//! The rows of lists.

use crate::command::docs::{Arg, Group};
use crate::command::flags::{Access, Category, Flag};
use crate::command::keyspec::KeySpec;
use crate::command::list;
use crate::command::list_wait;
use crate::command::sort;
use crate::command::spec::{Run, Spec};

use super::{CONSTANT, KEY, KEYS, PER_NAMED};

use Access::{Access as Shown, Delete, Insert, Ow, Ro, Rw, Update};
use Flag::{Blind, Blocking, Denyoom, Fast, Movablekeys, Noscript, Readonly, Write};

const LISTS: &[Category] = &[Category::List];

/// What SORT takes.
const SORTED: &[Category] =
    &[Category::List, Category::Set, Category::Sortedset, Category::Dangerous];

const fn row(name: &'static str, arity: i32, flags: &[Flag], run: Run) -> Spec {
    Spec::new(name, arity, run).flags(flags, LISTS).group(Group::List)
}

const PER_ANSWERED: &str = "O(N) in the number of elements answered, O(log M) to find the first";
const PER_TAKEN: &str = "O(N) in the number of elements taken";
const PER_KEY_AND_TAKEN: &str = "O(N+M) in the numbers of keys and of elements taken";
const PER_LOOKED_AT: &str = "O(N) in the number of elements looked at";
const SORTING: &str =
    "O(N+M*log(M)) in the number of elements and of those answered; O(N) if nothing is sorted";

const ELEMENT: Arg = Arg::string("element");
const ELEMENTS: Arg = ELEMENT.multiple();
const TIMEOUT: Arg = Arg::double("timeout");
const LEFT: Arg = Arg::word("left", "LEFT");
const RIGHT: Arg = Arg::word("right", "RIGHT");
const ENDS: &[Arg] = &[LEFT, RIGHT];
const COUNT: Arg = Arg::integer("count").token("COUNT").optional();
const SOURCE: Arg = Arg::key("source", 0);
const DESTINATION: Arg = Arg::key("destination", 1);
const FROM: Arg = Arg::oneof("wherefrom", ENDS);
const TO: Arg = Arg::oneof("whereto", ENDS);
const WHERE: Arg = Arg::oneof("where", ENDS);
const NUMKEYS: Arg = Arg::integer("numkeys");

const READ: &[KeySpec] = &[KeySpec::at(1, &[Ro, Shown])];
const PUSH: &[KeySpec] = &[KeySpec::at(1, &[Rw, Insert])];
const POP: &[KeySpec] = &[KeySpec::at(1, &[Rw, Shown, Delete])];
const REMOVE: &[KeySpec] = &[KeySpec::at(1, &[Rw, Delete])];
const MOVE: &[KeySpec] = &[KeySpec::at(1, &[Rw, Shown, Delete]), KeySpec::at(2, &[Rw, Insert])];
const POP_ANY: &[KeySpec] = &[KeySpec::from(1, 1, &[Rw, Shown, Delete]).but_last()];

const KEY_AND_ELEMENTS: &[Arg] = &[KEY, ELEMENTS];
const KEY_AND_COUNT: &[Arg] = &[KEY, Arg::integer("count").since("6.2.0").optional()];
const SPAN: &[Arg] = &[KEY, Arg::integer("start"), Arg::integer("stop")];

const SORT_NOTES: &str = "For the optional BY/GET keyword. It is marked 'unknown' because the key \
                          names derive from the content of the key we sort";
const STORE_NOTES: &str = "For the optional STORE keyword. It is marked 'unknown' because the \
                           keyword can appear anywhere in the argument array";
const SORT_READS: KeySpec = KeySpec::at(1, &[Ro, Shown]);
const SORT_DERIVES: KeySpec = KeySpec::untold(&[Ro, Shown]).notes(SORT_NOTES);

const BY: Arg = Arg::pattern("by-pattern").token("BY").optional();
const LIMIT: Arg =
    Arg::block("limit", &[Arg::integer("offset"), Arg::integer("count")]).token("LIMIT").optional();
const GET: Arg = Arg::pattern("get-pattern").token("GET").optional().multiple();
const ORDER: Arg =
    Arg::oneof("order", &[Arg::word("asc", "ASC"), Arg::word("desc", "DESC")]).optional();
const ALPHA: Arg = Arg::word("sorting", "ALPHA").optional();

/// The rows.
pub const ROWS: &[Spec] = &[
    row("lpush", -3, &[Write, Denyoom, Fast, Blind], Run::Slot(list::lpush))
        .keys(PUSH)
        .docs(Group::List, "1.0.0", PER_NAMED, "Puts elements before a list, the last one first")
        .args(KEY_AND_ELEMENTS),
    row("rpush", -3, &[Write, Denyoom, Fast, Blind], Run::Slot(list::rpush))
        .keys(PUSH)
        .docs(Group::List, "1.0.0", PER_NAMED, "Puts elements behind a list")
        .args(KEY_AND_ELEMENTS),
    row("lpushx", -3, &[Write, Denyoom, Fast], Run::Slot(list::lpushx))
        .keys(PUSH)
        .docs(Group::List, "2.2.0", PER_NAMED, "Puts elements before a list if there is one")
        .args(KEY_AND_ELEMENTS),
    row("rpushx", -3, &[Write, Denyoom, Fast], Run::Slot(list::rpushx))
        .keys(PUSH)
        .docs(Group::List, "2.2.0", PER_NAMED, "Puts elements behind a list if there is one")
        .args(KEY_AND_ELEMENTS),
    row("lpop", -2, &[Write, Fast], Run::Slot(list::lpop))
        .keys(POP)
        .docs(Group::List, "1.0.0", PER_TAKEN, "Takes the first element, or some, from a list")
        .args(KEY_AND_COUNT),
    row("rpop", -2, &[Write, Fast], Run::Slot(list::rpop))
        .keys(POP)
        .docs(Group::List, "1.0.0", PER_TAKEN, "Takes the last element, or some, from a list")
        .args(KEY_AND_COUNT),
    row("llen", 2, &[Readonly, Fast], Run::Slot(list::llen))
        .keys(&[KeySpec::at(1, &[Ro])])
        .docs(Group::List, "1.0.0", CONSTANT, "Answers how many elements a list has")
        .args(&[KEY]),
    row("lrange", 4, &[Readonly], Run::Slot(list::lrange))
        .keys(READ)
        .docs(Group::List, "1.0.0", PER_ANSWERED, "Reads a part of a list")
        .args(SPAN),
    row("lindex", 3, &[Readonly], Run::Slot(list::lindex))
        .keys(READ)
        .docs(Group::List, "1.0.0", "O(log N) in the list's length", "Reads one element of a list")
        .args(&[KEY, Arg::integer("index")]),
    row("lset", 4, &[Write, Denyoom], Run::Slot(list::lset))
        .keys(&[KeySpec::at(1, &[Rw, Update])])
        .docs(
            Group::List,
            "1.0.0",
            "O(log N) in the list's length",
            "Overwrites one element of a list",
        )
        .args(&[KEY, Arg::integer("index"), ELEMENT]),
    row("linsert", 5, &[Write, Denyoom], Run::Slot(list::linsert))
        .keys(PUSH)
        .docs(
            Group::List,
            "2.2.0",
            PER_LOOKED_AT,
            "Puts an element before or behind the first one that holds a value",
        )
        .args(&[
            KEY,
            Arg::oneof("where", &[Arg::word("before", "BEFORE"), Arg::word("after", "AFTER")]),
            Arg::string("pivot"),
            ELEMENT,
        ]),
    row("lrem", 4, &[Write], Run::Slot(list::lrem))
        .keys(REMOVE)
        .docs(
            Group::List,
            "1.0.0",
            PER_LOOKED_AT,
            "Removes elements that hold a value: so many from the first, from the last, or all",
        )
        .args(&[KEY, Arg::integer("count"), ELEMENT]),
    row("ltrim", 4, &[Write], Run::Slot(list::ltrim))
        .keys(REMOVE)
        .docs(
            Group::List,
            "1.0.0",
            "O(N) in the number of elements removed",
            "Removes all but a part of a list",
        )
        .args(SPAN),
    row("lpos", -3, &[Readonly], Run::Slot(list::lpos))
        .keys(READ)
        .docs(Group::List, "6.0.6", PER_LOOKED_AT, "Finds the elements that hold a value")
        .args(&[
            KEY,
            ELEMENT,
            Arg::integer("rank").token("RANK").optional(),
            Arg::integer("num-matches").token("COUNT").optional(),
            Arg::integer("len").token("MAXLEN").optional(),
        ]),
    row("lmove", 5, &[Write, Denyoom], Run::Slot(list::lmove))
        .keys(MOVE)
        .docs(Group::List, "6.2.0", CONSTANT, "Moves an element from one list to another")
        .args(&[SOURCE, DESTINATION, FROM, TO]),
    row("rpoplpush", 3, &[Write, Denyoom], Run::Slot(list::rpoplpush))
        .keys(MOVE)
        .docs(Group::List, "1.2.0", CONSTANT, "Moves the last element of a list before another")
        .deprecated("6.2.0", "`LMOVE` with the `RIGHT` and `LEFT` arguments")
        .args(&[SOURCE, DESTINATION]),
    row("lmpop", -4, &[Write, Movablekeys], Run::Slot(list::lmpop))
        .keys(&[KeySpec::counted(1, &[Rw, Shown, Delete])])
        .docs(
            Group::List,
            "7.0.0",
            PER_KEY_AND_TAKEN,
            "Takes elements from the first of several lists that is there",
        )
        .args(&[NUMKEYS, KEYS, WHERE, COUNT]),
    row("blpop", -3, &[Write, Noscript, Blocking], Run::Slot(list_wait::blpop))
        .keys(POP_ANY)
        .docs(
            Group::List,
            "2.0.0",
            "O(N) in the number of keys",
            "Takes the first element of the first list that is there, or waits for one",
        )
        .args(&[KEYS, TIMEOUT]),
    row("brpop", -3, &[Write, Noscript, Blocking], Run::Slot(list_wait::brpop))
        .keys(POP_ANY)
        .docs(
            Group::List,
            "2.0.0",
            "O(N) in the number of keys",
            "Takes the last element of the first list that is there, or waits for one",
        )
        .args(&[KEYS, TIMEOUT]),
    row("blmove", 6, &[Write, Denyoom, Noscript, Blocking], Run::Slot(list_wait::blmove))
        .keys(MOVE)
        .docs(
            Group::List,
            "6.2.0",
            CONSTANT,
            "Moves an element from one list to another, or waits for one",
        )
        .args(&[SOURCE, DESTINATION, FROM, TO, TIMEOUT]),
    row("brpoplpush", 4, &[Write, Denyoom, Noscript, Blocking], Run::Slot(list_wait::brpoplpush))
        .keys(MOVE)
        .docs(
            Group::List,
            "2.2.0",
            CONSTANT,
            "Moves the last element of a list before another, or waits for one",
        )
        .deprecated("6.2.0", "`BLMOVE` with the `RIGHT` and `LEFT` arguments")
        .args(&[SOURCE, DESTINATION, TIMEOUT]),
    row("blmpop", -5, &[Write, Blocking, Movablekeys], Run::Slot(list_wait::blmpop))
        .keys(&[KeySpec::counted(2, &[Rw, Shown, Delete])])
        .docs(
            Group::List,
            "7.0.0",
            PER_KEY_AND_TAKEN,
            "Takes elements from the first of several lists that is there, or waits for one",
        )
        .args(&[TIMEOUT, NUMKEYS, KEYS, WHERE, COUNT]),
    Spec::new("sort", -2, Run::Slot(sort::sort))
        .flags(&[Write, Denyoom, Movablekeys], SORTED)
        .keys(&[
            SORT_READS,
            SORT_DERIVES,
            KeySpec::behind("store", &[Ow, Update]).notes(STORE_NOTES),
        ])
        .docs(
            Group::Generic,
            "1.0.0",
            SORTING,
            "Sorts the elements of a list, set or sorted set, and answers or stores them",
        )
        .args(&[
            KEY,
            BY,
            LIMIT,
            GET,
            ORDER,
            ALPHA,
            Arg::key("destination", 2).token("STORE").optional(),
        ]),
    Spec::new("sort_ro", -2, Run::Slot(sort::sort_ro))
        .flags(&[Readonly, Movablekeys], SORTED)
        .keys(&[SORT_READS, SORT_DERIVES])
        .docs(
            Group::Generic,
            "7.0.0",
            SORTING,
            "Sorts the elements of a list, set or sorted set, and answers them",
        )
        .args(&[KEY, BY, LIMIT, GET, ORDER, ALPHA]),
];
