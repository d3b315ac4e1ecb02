//! SCAN's words: the cursor, and the options of a request.
//!
//! A cursor is a place in the ring that every node understands: a vnode, and a position inside
//! it in the order of the keys' hashes. It holds no state on any node, so a scan survives the
//! node that served it, and a key present all the while is met at least once whatever moves.
//!
//! ```text
//!   63       48 47        32 31                  0
//!  ┌───────────┬────────────┬─────────────────────┐
//!  │     0     │   vnode    │      position       │    0 is both the start and the end
//!  └───────────┴────────────┴─────────────────────┘
//! ```

use std::fmt;

use crate::base::id::VnodeId;
use crate::value::view::Kind;

use super::number::{is, plain_integer};

/// How many keys a call looks at unless it says otherwise: Redis's default.
pub const SCAN_COUNT_DEFAULT: usize = 10;

/// How far a scan has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Cursor {
    /// The vnode to go on in.
    pub vnode: VnodeId,
    /// The first position in it that was not looked at; 0 is its start.
    pub position: u32,
}

impl Cursor {
    /// Where a scan starts, and what tells that it has ended.
    pub const START: Cursor = Cursor { vnode: VnodeId(0), position: 0 };

    /// The cursor as one number, 48 bits wide.
    pub const fn pack(self) -> u64 {
        (self.vnode.0 as u64) << 32 | self.position as u64
    }

    /// The cursor that was packed into `number`; `None` for numbers that no cursor has.
    pub const fn unpack(number: u64) -> Option<Cursor> {
        if number >> 48 != 0 {
            return None;
        }
        Some(Cursor { vnode: VnodeId((number >> 32) as u16), position: number as u32 })
    }

    /// Reads a cursor as a client sends it back.
    pub fn parse(arg: &[u8]) -> Result<Cursor, ScanError> {
        let digits = !arg.is_empty() && arg.iter().all(u8::is_ascii_digit);
        let number = if digits { std::str::from_utf8(arg).ok() } else { None };
        number
            .and_then(|text| text.parse().ok())
            .and_then(Cursor::unpack)
            .ok_or(ScanError::InvalidCursor)
    }
}

/// Which types of keys a scan answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TypeFilter {
    /// Every type.
    Any,
    /// This one.
    Only(Kind),
    /// None: the request names a type that does not exist, which Redis 7.2 allows.
    Nothing,
}

impl TypeFilter {
    fn named(name: &[u8]) -> TypeFilter {
        let kinds = [Kind::String, Kind::List, Kind::Hash, Kind::Set, Kind::Zset];
        let called = |kind: &Kind| kind.name().as_bytes().eq_ignore_ascii_case(name);
        kinds.into_iter().find(called).map_or(TypeFilter::Nothing, TypeFilter::Only)
    }

    /// Whether a key of type `kind` is answered.
    pub fn admits(self, kind: Kind) -> bool {
        match self {
            TypeFilter::Any => true,
            TypeFilter::Only(only) => only == kind,
            TypeFilter::Nothing => false,
        }
    }
}

/// A SCAN request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scan<'a> {
    /// Where to go on.
    pub cursor: Cursor,
    /// Keys must fit this glob pattern; `None` when every key does.
    pub pattern: Option<&'a [u8]>,
    /// About how many keys to look at; at least 1.
    pub count: usize,
    /// Keys must be of this type.
    pub kind: TypeFilter,
}

impl<'a> Scan<'a> {
    /// Reads a request; `args[0]` is the command's name, and the arity has been checked.
    pub fn parse(args: &[&'a [u8]]) -> Result<Scan<'a>, ScanError> {
        let (cursor, mut rest) = match args {
            [_, cursor, rest @ ..] => (Cursor::parse(cursor)?, rest),
            _ => return Err(ScanError::Syntax),
        };
        let mut scan =
            Scan { cursor, pattern: None, count: SCAN_COUNT_DEFAULT, kind: TypeFilter::Any };
        while let [option, value, others @ ..] = rest {
            if is(option, "count") {
                scan.count = count(value)?;
            } else if is(option, "match") {
                scan.pattern = (*value != b"*").then_some(value);
            } else if is(option, "type") {
                scan.kind = TypeFilter::named(value);
            } else {
                return Err(ScanError::Syntax);
            }
            rest = others;
        }
        if rest.is_empty() { Ok(scan) } else { Err(ScanError::Syntax) }
    }
}

fn count(arg: &[u8]) -> Result<usize, ScanError> {
    let number = plain_integer(arg).ok_or(ScanError::NotAnInteger)?;
    usize::try_from(number).ok().filter(|count| *count > 0).ok_or(ScanError::Syntax)
}

/// Why a request is no scan. Nothing was done. Displayed as the error reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScanError {
    /// The cursor is none that a node has ever answered.
    InvalidCursor,
    /// COUNT is not a number.
    NotAnInteger,
    /// COUNT is below 1, or there is an option that SCAN does not have, or half of one.
    Syntax,
}

impl fmt::Display for ScanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ScanError::InvalidCursor => "ERR invalid cursor",
            ScanError::NotAnInteger => "ERR value is not an integer or out of range",
            ScanError::Syntax => "ERR syntax error",
        })
    }
}

impl std::error::Error for ScanError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse<'a>(words: &[&'a str]) -> Result<Scan<'a>, ScanError> {
        let args: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        Scan::parse(&args)
    }

    #[test]
    fn options_come_in_any_order_and_the_last_one_counts() {
        let scan =
            parse(&["scan", "0", "TYPE", "String", "count", "5", "Match", "a*", "COUNT", "7"]);
        let kind = TypeFilter::Only(Kind::String);
        let expected = Scan { cursor: Cursor::START, pattern: Some(b"a*"), count: 7, kind };
        assert_eq!(scan, Ok(expected));
        let scan = parse(&["scan", "0", "match", "*", "type", "nope"]).expect("a scan");
        assert_eq!((scan.pattern, scan.count), (None, SCAN_COUNT_DEFAULT));
        assert!(!scan.kind.admits(Kind::String) && TypeFilter::Any.admits(Kind::Zset));
    }

    #[test]
    fn errors_are_those_of_redis() {
        for (words, error) in [
            (&["scan", "x", "foo"][..], "ERR invalid cursor"),
            (&["scan", "-1"], "ERR invalid cursor"),
            (&["scan", ""], "ERR invalid cursor"),
            (&["scan", "1 "], "ERR invalid cursor"),
            (&["scan", "18446744073709551616"], "ERR invalid cursor"),
            (&["scan", "281474976710656"], "ERR invalid cursor"),
            (&["scan", "0", "match"], "ERR syntax error"),
            (&["scan", "0", "bogus", "1"], "ERR syntax error"),
            (&["scan", "0", "count", "0"], "ERR syntax error"),
            (&["scan", "0", "count", "-1"], "ERR syntax error"),
            (&["scan", "0", "count", "x"], "ERR value is not an integer or out of range"),
            (&["scan", "0", "count", "+1"], "ERR value is not an integer or out of range"),
            (
                &["scan", "0", "count", "99999999999999999999"],
                "ERR value is not an integer or out of range",
            ),
        ] {
            let refused = parse(words).expect_err("no scan");
            assert_eq!(refused.to_string(), error, "{words:?}");
        }
    }

    proptest! {
        #[test]
        fn a_cursor_comes_back_as_it_went(vnode: u16, position: u32) {
            let cursor = Cursor { vnode: VnodeId(vnode), position };
            let text = cursor.pack().to_string();
            prop_assert_eq!(Cursor::parse(text.as_bytes()), Ok(cursor));
        }

        #[test]
        fn order_is_the_order_of_numbers(a in (any::<u16>(), any::<u32>()), b in (any::<u16>(), any::<u32>())) {
            let [a, b] = [a, b].map(|(vnode, position)| Cursor { vnode: VnodeId(vnode), position });
            prop_assert_eq!(a.cmp(&b), a.pack().cmp(&b.pack()));
        }

        #[test]
        fn garbage_is_refused_without_panic(args: Vec<Vec<u8>>) {
            let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
            let _ = Scan::parse(&args);
        }
    }
}
