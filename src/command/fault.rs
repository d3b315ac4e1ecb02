//! A client's errors, as commands answer them.
//!
//! Invariant: whoever answers a [`Fault`] has changed nothing. [`answer`] is the one place where
//! a fault becomes a reply, and it asserts that a failed command wrote and asked for nothing.
//! The texts are Redis's own: clients match on them.

use crate::base::wire::Put;
use crate::value::token::TokenError;
use crate::value::view::WrongType;

use super::bitmap::BitmapError;
use super::dump::RestoreError;
use super::hyperloglog_sketch::SketchError;
use super::spec::Call;

/// Why a keyed command was refused. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault<'a> {
    /// The key holds another type.
    WrongType,
    /// Options that do not read, or do not go together.
    Syntax,
    /// An argument or value that is no 64-bit integer in its plainest form.
    NotInteger,
    /// An integer that is not a C `int`.
    NotInt,
    /// An argument or value that is no number.
    NotFloat,
    /// A field that counts as integers do, and holds none.
    FieldNotInteger,
    /// A field that counts as numbers do, and holds none.
    FieldNotFloat,
    /// An increment without an end.
    Endless,
    /// Something else than a number from zero.
    NotPositive,
    /// A number of random elements that Redis does not take.
    OutOfRange,
    /// The one integer that has no opposite.
    NoOpposite,
    /// A number of keys that is no number above zero.
    KeyCount,
    /// More keys are announced than arguments follow.
    TooFewKeys,
    /// LIMIT with something else than a number from zero.
    Limit,
    /// A time to live of a field that lies below zero.
    NegativeTime,
    /// A command on a time to live of fields that does not say FIELDS where it must.
    NoFields,
    /// HEXPIRE and its kin for a number of fields that is no number above zero.
    FieldCount,
    /// HTTL and its kin, and HPERSIST, for such a number of fields.
    NumberOfFields,
    /// More or fewer fields than announced.
    FieldsDiffer,
    /// NOVALUES of what has none.
    NoValues,
    /// A cursor that was never answered.
    Cursor,
    /// A sum beyond 64 bits.
    Overflow,
    /// DECRBY by the one number that has no opposite.
    DecrementOverflow,
    /// A sum that is no number any more.
    NotFinite,
    /// A moment that does not exist, or (SET and its kin) lies in no future; with the command's name.
    ExpireTime(&'static str),
    /// The string would grow beyond `VALUE_SIZE_MAX`.
    TooLong,
    /// A negative offset of SETRANGE.
    Offset,
    /// An index of LSET that no element has.
    Index,
    /// LPOS RANK 0.
    RankZero,
    /// An option that may not be negative.
    Negative(&'static str),
    /// SORT by something that is no number.
    SortScore,
    /// SORT with BY or GET of keys that may lie in other slots.
    SortElsewhere(&'static str),
    /// A time to wait below zero.
    NegativeTimeout,
    /// RENAME of nothing.
    NoSuchKey,
    /// COPY onto itself.
    SameKey,
    /// COPY to a database other than the only one.
    Database,
    /// A database of Redis that a cluster does not have.
    OtherDatabase,
    /// Too few or too many arguments; with the command's full name.
    Arity(&'static str),
    /// A condition of EXPIRE that Redis does not know.
    ExpireOption(&'a [u8]),
    /// EXPIRE NX with another condition.
    ExpireNx,
    /// EXPIRE GT with LT.
    ExpireGtLt,
    /// LCS of something else than strings.
    LcsType,
    /// LCS with both LEN and IDX.
    LcsOptions,
    /// LCS of strings whose table would exceed Redis's bound.
    LcsSize,
    /// ZADD with NX and XX.
    NxXx,
    /// ZADD with two of GT, LT and NX.
    GtLtNx,
    /// ZADD INCR of several members.
    IncrOnePair,
    /// Infinity added to its opposite.
    NotANumber,
    /// An end of a range by score that is no number.
    ScoreRange,
    /// An end of a range by name that does not begin as it must.
    LexRange,
    /// LIMIT of a range by rank.
    LimitOfRanks,
    /// WITHSCORES of a range by name.
    ScoresByLex,
    /// A weight that is no number.
    Weight,
    /// A number of inputs below one; with the command's name.
    NoInput(&'static str),
    /// A number of members to be taken that is no number above zero.
    TakenCount,
    /// A timeout that is no number.
    Timeout,
    /// A timeout beyond all clocks.
    LongTimeout,
    /// OBJECT FREQ, which only an LFU policy could answer.
    NoFrequency,
    /// What a command on bits cannot do.
    Bitmap(BitmapError),
    /// A string that is no HyperLogLog, or a damaged one.
    Sketch(SketchError),
    /// What RESTORE cannot restore.
    Restore(RestoreError),
    /// A context token that was not made here, or not for this key.
    Token(TokenError),
    /// A subcommand that the container command (first, in capitals) lacks.
    Subcommand(&'static str, &'a [u8]),
}

impl From<TokenError> for Fault<'_> {
    fn from(error: TokenError) -> Self {
        Fault::Token(error)
    }
}

impl From<WrongType> for Fault<'_> {
    fn from(_: WrongType) -> Self {
        Fault::WrongType
    }
}

impl Fault<'_> {
    /// The error line: code and text, without the leading `-`.
    pub fn line(&self) -> Vec<u8> {
        let text = match *self {
            Fault::WrongType => "WRONGTYPE Operation against a key holding the wrong kind of value",
            Fault::Syntax => "ERR syntax error",
            Fault::NotInteger => "ERR value is not an integer or out of range",
            Fault::NotInt => {
                "ERR value is out of range, value must between -2147483648 and 2147483647"
            }
            Fault::NotFloat => "ERR value is not a valid float",
            Fault::FieldNotInteger => "ERR hash value is not an integer",
            Fault::FieldNotFloat => "ERR hash value is not a float",
            Fault::Endless => "ERR value is NaN or Infinity",
            Fault::NotPositive => "ERR value is out of range, must be positive",
            Fault::OutOfRange => "ERR value is out of range",
            Fault::NoOpposite => {
                "ERR value is out of range, value must between -9223372036854775807 and \
                 9223372036854775807"
            }
            Fault::KeyCount => "ERR numkeys should be greater than 0",
            Fault::TooFewKeys => "ERR Number of keys can't be greater than number of args",
            Fault::Limit => "ERR LIMIT can't be negative",
            Fault::NegativeTime => "ERR invalid expire time, must be >= 0",
            Fault::NoFields => {
                "ERR Mandatory argument FIELDS is missing or not at the right position"
            }
            Fault::FieldCount => "ERR Parameter `numFields` should be greater than 0",
            Fault::NumberOfFields => "ERR Number of fields must be a positive integer",
            Fault::FieldsDiffer => {
                "ERR The `numfields` parameter must match the number of arguments"
            }
            Fault::NoValues => "ERR NOVALUES option can only be used in HSCAN",
            Fault::Cursor => "ERR invalid cursor",
            Fault::Overflow => "ERR increment or decrement would overflow",
            Fault::DecrementOverflow => "ERR decrement would overflow",
            Fault::NotFinite => "ERR increment would produce NaN or Infinity",
            Fault::TooLong => "ERR string exceeds maximum allowed size (proto-max-bulk-len)",
            Fault::Offset => "ERR offset is out of range",
            Fault::Index => "ERR index out of range",
            Fault::RankZero => {
                "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... \
                 or use negative to start from the end of the list"
            }
            Fault::Negative(option) => return joined(&[b"ERR ", option.as_bytes(), NEGATIVE]),
            Fault::SortScore => "ERR One or more scores can't be converted into double",
            Fault::SortElsewhere(option) => {
                return joined(&[
                    b"ERR ",
                    option.as_bytes(),
                    b" option of SORT denied in Cluster mode.",
                ]);
            }
            Fault::NegativeTimeout => "ERR timeout is negative",
            Fault::NoSuchKey => "ERR no such key",
            Fault::SameKey => "ERR source and destination objects are the same",
            Fault::Database => "ERR DB index is out of range",
            Fault::OtherDatabase => {
                "ERR Copying to another database is not allowed in cluster mode"
            }
            Fault::ExpireNx => {
                "ERR NX and XX, GT or LT options at the same time are not compatible"
            }
            Fault::ExpireGtLt => "ERR GT and LT options at the same time are not compatible",
            Fault::LcsType => "ERR The specified keys must contain string values",
            Fault::LcsOptions => {
                "ERR If you want both the length and indexes, please just use IDX."
            }
            Fault::LcsSize => {
                "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len"
            }
            Fault::NxXx => "ERR XX and NX options at the same time are not compatible",
            Fault::GtLtNx => "ERR GT, LT, and/or NX options at the same time are not compatible",
            Fault::IncrOnePair => "ERR INCR option supports a single increment-element pair",
            Fault::NotANumber => "ERR resulting score is not a number (NaN)",
            Fault::ScoreRange => "ERR min or max is not a float",
            Fault::LexRange => "ERR min or max not valid string range item",
            Fault::LimitOfRanks => {
                "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or \
                 BYLEX"
            }
            Fault::ScoresByLex => {
                "ERR syntax error, WITHSCORES not supported in combination with BYLEX"
            }
            Fault::Weight => "ERR weight value is not a float",
            Fault::TakenCount => "ERR count should be greater than 0",
            Fault::Timeout => "ERR timeout is not a float or out of range",
            Fault::LongTimeout => "ERR timeout is out of range",
            Fault::NoFrequency => {
                "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when \
                 switching between policies at runtime LRU and LFU data will take some time to adjust."
            }
            Fault::Bitmap(error) => error.text(),
            Fault::Sketch(error) => error.text(),
            Fault::Restore(error) => error.text(),
            Fault::ExpireTime(command) => {
                return joined(&[b"ERR invalid expire time in '", command.as_bytes(), END]);
            }
            Fault::Arity(command) => {
                return joined(&[b"ERR wrong number of arguments for '", command.as_bytes(), END]);
            }
            Fault::NoInput(command) => {
                return joined(&[
                    b"ERR at least 1 input key is needed for '",
                    command.as_bytes(),
                    END,
                ]);
            }
            Fault::Token(error) => return format!("ERR {error}").into_bytes(),
            Fault::ExpireOption(option) => return joined(&[b"ERR Unsupported option ", option]),
            Fault::Subcommand(container, word) => {
                let word = &word[..word.len().min(SUBCOMMAND_SHOWN_MAX)];
                let (lead, middle) = (b"ERR unknown subcommand '", b"'. Try ");
                return joined(&[lead, word, middle, container.as_bytes(), b" HELP."]);
            }
        };
        text.as_bytes().to_vec()
    }
}

/// How errors that name a command end.
const END: &[u8] = b"' command";

/// How errors of options that may not be negative end.
const NEGATIVE: &[u8] = b" can't be negative";

/// How much of an unknown subcommand Redis shows.
const SUBCOMMAND_SHOWN_MAX: usize = 128;

fn joined(pieces: &[&[u8]]) -> Vec<u8> {
    let mut line = Vec::new();
    pieces.iter().for_each(|piece| line.put(piece));
    line
}

/// Runs the body of a command and answers its fault, if there is one.
pub fn answer<'a, 'r>(
    call: &mut Call<'a, 'r>,
    body: impl FnOnce(&mut Call<'a, 'r>) -> Result<(), Fault<'a>>,
) {
    let before = (call.reply.bytes.len(), call.changes.len());
    if let Err(fault) = body(call) {
        assert_eq!(
            before,
            (call.reply.bytes.len(), call.changes.len()),
            "a refused command left something"
        );
        call.reply.error(fault.line());
    }
}
