//! The rows of bitmaps.

use crate::command::bitmap;
use crate::command::bitmap_field;
use crate::command::docs::{Arg, Group};
use crate::command::flags::{Access, Category, Flag};
use crate::command::keyspec::KeySpec;
use crate::command::spec::{Run, Spec};

use super::{KEY, KEYS, PER_LENGTH, VALUE};

use Access::{Access as Shown, Ow, Ro, Rw, Update, VariableFlags};
use Flag::{Denyoom, Fast, Readonly, Write};

const fn row(name: &'static str, arity: i32, flags: &[Flag], run: Run) -> Spec {
    Spec::new(name, arity, run).flags(flags, &[Category::Bitmap])
}

const READ: &[KeySpec] = &[KeySpec::at(1, &[Ro, Shown])];

const OFFSET: Arg = Arg::integer("offset");
const BIT: Arg = Arg::integer("bit");
const START: Arg = Arg::integer("start");
const END: Arg = Arg::integer("end");

const UNIT: Arg = Arg::oneof("unit", &[Arg::word("byte", "BYTE"), Arg::word("bit", "BIT")])
    .since("7.0.0")
    .optional();

const ENCODING: Arg = Arg::string("encoding");

const OPERATION: Arg = Arg::oneof(
    "operation",
    &[
        Arg::word("and", "AND"),
        Arg::word("or", "OR"),
        Arg::word("xor", "XOR"),
        Arg::word("not", "NOT"),
    ],
);

const OVERFLOW: Arg = Arg::oneof(
    "overflow-block",
    &[Arg::word("wrap", "WRAP"), Arg::word("sat", "SAT"), Arg::word("fail", "FAIL")],
)
.token("OVERFLOW")
.optional();

const WRITE: Arg = Arg::block(
    "write",
    &[
        OVERFLOW,
        Arg::oneof(
            "write-operation",
            &[
                Arg::block("set-block", &[ENCODING, OFFSET, VALUE]).token("SET"),
                Arg::block("incrby-block", &[ENCODING, OFFSET, Arg::integer("increment")])
                    .token("INCRBY"),
            ],
        ),
    ],
);

const PER_FIELD: &str =
    "O(N) in the number of fields, and in the length of the string if it writes";

/// The rows.
pub const ROWS: &[Spec] = &[
    row("setbit", 4, &[Write, Denyoom], Run::Slot(bitmap::setbit))
        .keys(&[KeySpec::at(1, &[Rw, Shown, Update])])
        .docs(
            Group::Bitmap,
            "2.2.0",
            PER_LENGTH,
            "Writes a bit of a string, which grows as far; answers the bit before",
        )
        .args(&[KEY, OFFSET, VALUE]),
    row("getbit", 3, &[Readonly, Fast], Run::Slot(bitmap::getbit))
        .keys(READ)
        .docs(Group::Bitmap, "2.2.0", PER_LENGTH, "Reads a bit of a string")
        .args(&[KEY, OFFSET]),
    row("bitcount", -2, &[Readonly], Run::Slot(bitmap::bitcount))
        .keys(READ)
        .docs(Group::Bitmap, "2.6.0", PER_LENGTH, "Counts the ones of a string or of a part of it")
        .args(&[KEY, Arg::block("range", &[START, END, UNIT]).optional()]),
    row("bitpos", -3, &[Readonly], Run::Slot(bitmap::bitpos))
        .keys(READ)
        .docs(
            Group::Bitmap,
            "2.8.7",
            PER_LENGTH,
            "Finds the first one or zero of a string or of a part of it",
        )
        .args(&[
            KEY,
            BIT,
            Arg::block("range", &[START, Arg::block("end-unit-block", &[END, UNIT]).optional()])
                .optional(),
        ]),
    row("bitop", -4, &[Write, Denyoom], Run::Slot(bitmap::bitop))
        .keys(&[KeySpec::at(2, &[Ow, Update]), KeySpec::from(3, 1, &[Ro, Shown])])
        .docs(
            Group::Bitmap,
            "2.6.0",
            "O(N) in the length of the strings",
            "Puts strings of one slot together bit by bit, into another key",
        )
        .args(&[OPERATION, Arg::key("destkey", 0), Arg { key_spec: Some(1), ..KEYS }]),
    row("bitfield", -2, &[Write, Denyoom], Run::Slot(bitmap_field::bitfield))
        .keys(&[KeySpec::at(1, &[Rw, Shown, Update, VariableFlags])
            .notes("This command allows both access and modification of the key")])
        .docs(
            Group::Bitmap,
            "3.2.0",
            PER_FIELD,
            "Reads, writes and counts integers of any width anywhere in a string",
        )
        .args(&[
            KEY,
            Arg::oneof(
                "operation",
                &[Arg::block("get-block", &[ENCODING, OFFSET]).token("GET"), WRITE],
            )
            .optional()
            .multiple(),
        ]),
    row("bitfield_ro", -2, &[Readonly, Fast], Run::Slot(bitmap_field::bitfield_ro))
        .keys(READ)
        .docs(Group::Bitmap, "6.0.0", PER_FIELD, "Reads integers of any width anywhere in a string")
        .args(&[
            KEY,
            Arg::block("get-block", &[Arg::word("get", "GET"), ENCODING, OFFSET])
                .optional()
                .multiple(),
        ]),
];
