//! Replies as values: for the cold, nested ones (`COMMAND DOCS`, `CLUSTER SHARDS`), and for what a
//! client reads.
//!
//! A value is written once, in RESP3's terms; the encoder turns it down for RESP2: maps become flat
//! arrays, sets and pushes arrays, doubles, big numbers and verbatim texts bulk strings, booleans
//! 0 and 1. The bytes are made by the `redis-protocol` crate. Its known faults are kept away from
//! here: its size estimate may be too long (the buffer is cut at the end it returns), it lets line
//! ends through (taken out before), and it panics on, or drops, what does not fit a hash table
//! (keys and members are scalars here, and distinct: a bug of ours otherwise, asserted).

use bytes::Bytes;
use redis_protocol::resp2::encode as encode2;
use redis_protocol::resp2::types::{OwnedFrame as Frame2, Resp2Frame};
use redis_protocol::resp3::encode::complete as encode3;
use redis_protocol::resp3::types::{
    FrameMap, FrameSet, OwnedFrame as Frame3, Resp3Frame, VerbatimStringFormat,
};

use crate::resp::double;
use crate::resp::reply::{Protocol, Reply, trim_line_ends};

/// A reply as a value.
#[derive(Clone, PartialEq, Debug)]
pub enum Nested {
    /// A string of any bytes.
    Bulk(Bytes),
    /// A status line.
    Simple(Bytes),
    /// An error: code and text.
    Error(Bytes),
    /// An integer.
    Integer(i64),
    /// A double. (The crate writes it without an exponent, where [`Reply::double`] writes as Redis.)
    Double(f64),
    /// An integer of any length: its digits.
    BigNumber(Bytes),
    /// A truth.
    Boolean(bool),
    /// Nothing.
    Null,
    /// Text for people.
    Verbatim(Bytes),
    /// A list.
    Array(Vec<Nested>),
    /// Pairs; keys are scalars and distinct.
    Map(Vec<(Nested, Nested)>),
    /// Members; they are scalars and distinct.
    Set(Vec<Nested>),
    /// Something the other side did not ask for.
    Push(Vec<Nested>),
}

impl Nested {
    /// A string; takes a `&'static str`, `String`, `Vec<u8>` or [`Bytes`] without copying.
    pub fn bulk(bytes: impl Into<Bytes>) -> Nested {
        Nested::Bulk(bytes.into())
    }

    /// A status line.
    pub fn simple(text: impl Into<Bytes>) -> Nested {
        Nested::Simple(text.into())
    }

    /// An error: code and text.
    pub fn error(text: impl Into<Bytes>) -> Nested {
        Nested::Error(text.into())
    }

    /// Text for people.
    pub fn verbatim(text: impl Into<Bytes>) -> Nested {
        Nested::Verbatim(text.into())
    }

    /// A list.
    pub fn array<T: Into<Nested>>(items: impl IntoIterator<Item = T>) -> Nested {
        Nested::Array(items.into_iter().map(Into::into).collect())
    }

    /// A set.
    pub fn set<T: Into<Nested>>(members: impl IntoIterator<Item = T>) -> Nested {
        Nested::Set(members.into_iter().map(Into::into).collect())
    }

    /// A map, in the order given.
    pub fn map<K: Into<Nested>, V: Into<Nested>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Nested {
        Nested::Map(pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }

    /// The bytes of a string, status, error, big number or verbatim text.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Nested::Bulk(bytes)
            | Nested::Simple(bytes)
            | Nested::Error(bytes)
            | Nested::BigNumber(bytes)
            | Nested::Verbatim(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The items of an array, set or push.
    pub fn as_items(&self) -> Option<&[Nested]> {
        match self {
            Nested::Array(items) | Nested::Set(items) | Nested::Push(items) => Some(items),
            _ => None,
        }
    }

    /// Whether this is one value, not a collection of them.
    pub fn is_scalar(&self) -> bool {
        !matches!(self, Nested::Array(_) | Nested::Map(_) | Nested::Set(_) | Nested::Push(_))
    }
}

impl From<&str> for Nested {
    fn from(text: &str) -> Nested {
        Nested::Bulk(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<&[u8]> for Nested {
    fn from(bytes: &[u8]) -> Nested {
        Nested::Bulk(Bytes::copy_from_slice(bytes))
    }
}

impl From<String> for Nested {
    fn from(text: String) -> Nested {
        Nested::Bulk(text.into())
    }
}

impl From<Vec<u8>> for Nested {
    fn from(bytes: Vec<u8>) -> Nested {
        Nested::Bulk(bytes.into())
    }
}

impl From<Bytes> for Nested {
    fn from(bytes: Bytes) -> Nested {
        Nested::Bulk(bytes)
    }
}

macro_rules! integers {
    ($($number:ty)*) => {
        $(impl From<$number> for Nested {
            fn from(number: $number) -> Nested {
                Nested::Integer(number.into())
            }
        })*
    };
}

integers!(i64 i32 u32 u16);

impl From<usize> for Nested {
    /// A count; counts over `i64::MAX` do not occur.
    fn from(number: usize) -> Nested {
        Nested::Integer(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<f64> for Nested {
    fn from(number: f64) -> Nested {
        Nested::Double(number)
    }
}

impl From<bool> for Nested {
    fn from(truth: bool) -> Nested {
        Nested::Boolean(truth)
    }
}

impl From<Vec<Nested>> for Nested {
    fn from(items: Vec<Nested>) -> Nested {
        Nested::Array(items)
    }
}

impl<T: Into<Nested>> From<Option<T>> for Nested {
    fn from(value: Option<T>) -> Nested {
        value.map_or(Nested::Null, Into::into)
    }
}

/// Writes `nested` in the protocol of `reply`, behind what is already there.
///
/// # Panics
///
/// When a map's key or a set's member is a collection or comes twice (RESP3), a bug of the caller.
pub fn encode(nested: &Nested, reply: &mut Reply) {
    let start = reply.bytes.len();
    // The room asked for is the crate's own estimate, so it cannot refuse; the estimate may be a
    // byte too long for some integers, hence the cut.
    let end = match reply.protocol {
        Protocol::Resp2 => {
            let frame = frame2(nested);
            reply.bytes.resize(start + frame.encode_len(false), 0);
            encode2::encode(&mut reply.bytes[start..], &frame, false)
        }
        Protocol::Resp3 => {
            let frame = frame3(nested);
            reply.bytes.resize(start + frame.encode_len(false), 0);
            encode3::encode(&mut reply.bytes[start..], &frame, false)
        }
    };
    reply.bytes.truncate(start + end.expect("the frame fits the room it asked for"));
}

/// A line's text without line ends.
fn line(text: &[u8]) -> Vec<u8> {
    let is_end = |byte| matches!(byte, b'\r' | b'\n');
    trim_line_ends(text).iter().map(|&byte| if is_end(byte) { b' ' } else { byte }).collect()
}

fn error_line(text: &[u8]) -> String {
    String::from_utf8_lossy(&line(text)).into_owned()
}

fn frame2(nested: &Nested) -> Frame2 {
    match nested {
        Nested::Bulk(bytes) | Nested::BigNumber(bytes) | Nested::Verbatim(bytes) => {
            Frame2::BulkString(bytes.to_vec())
        }
        Nested::Simple(text) => Frame2::SimpleString(line(text)),
        Nested::Error(text) => Frame2::Error(error_line(text)),
        Nested::Integer(number) => Frame2::Integer(*number),
        Nested::Double(number) => Frame2::BulkString(double::text(*number).to_vec()),
        Nested::Boolean(truth) => Frame2::Integer((*truth).into()),
        Nested::Null => Frame2::Null,
        Nested::Array(items) | Nested::Set(items) | Nested::Push(items) => {
            Frame2::Array(items.iter().map(frame2).collect())
        }
        Nested::Map(pairs) => Frame2::Array(
            pairs.iter().flat_map(|(key, value)| [frame2(key), frame2(value)]).collect(),
        ),
    }
}

fn frame3(nested: &Nested) -> Frame3 {
    let attributes = None;
    match nested {
        Nested::Bulk(bytes) => Frame3::BlobString { data: bytes.to_vec(), attributes },
        Nested::Simple(text) => Frame3::SimpleString { data: line(text), attributes },
        Nested::Error(text) => Frame3::SimpleError { data: error_line(text), attributes },
        Nested::Integer(number) => Frame3::Number { data: *number, attributes },
        Nested::Double(number) => Frame3::Double { data: *number, attributes },
        Nested::BigNumber(digits) => Frame3::BigNumber { data: line(digits), attributes },
        Nested::Boolean(truth) => Frame3::Boolean { data: *truth, attributes },
        Nested::Null => Frame3::Null,
        Nested::Verbatim(text) => Frame3::VerbatimString {
            data: text.to_vec(),
            format: VerbatimStringFormat::Text,
            attributes,
        },
        Nested::Array(items) => {
            Frame3::Array { data: items.iter().map(frame3).collect(), attributes }
        }
        Nested::Push(items) => {
            Frame3::Push { data: items.iter().map(frame3).collect(), attributes }
        }
        Nested::Map(pairs) => {
            let entries = pairs.iter().map(|(key, value)| (scalar(key), frame3(value)));
            let data: FrameMap<Frame3, Frame3> = entries.collect();
            assert_eq!(data.len(), pairs.len(), "a key comes twice");
            Frame3::Map { data, attributes }
        }
        Nested::Set(members) => {
            let data: FrameSet<Frame3> = members.iter().map(scalar).collect();
            assert_eq!(data.len(), members.len(), "a member comes twice");
            Frame3::Set { data, attributes }
        }
    }
}

fn scalar(nested: &Nested) -> Frame3 {
    assert!(nested.is_scalar(), "a collection cannot be a map's key or a set's member");
    frame3(nested)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(nested: &Nested, protocol: Protocol) -> String {
        let mut reply = Reply::new(protocol);
        reply.ok();
        encode(nested, &mut reply);
        reply.ok();
        let text = String::from_utf8(reply.bytes.to_vec()).unwrap();
        text.strip_prefix("+OK\r\n").unwrap().strip_suffix("+OK\r\n").unwrap().to_owned()
    }

    fn both(nested: impl Into<Nested>) -> [String; 2] {
        let nested = nested.into();
        [Protocol::Resp2, Protocol::Resp3].map(|protocol| encoded(&nested, protocol))
    }

    #[test]
    fn scalars() {
        for (made, expected) in [
            (both("ab"), ["$2\r\nab\r\n"; 2]),
            (both(Nested::simple("PONG")), ["+PONG\r\n"; 2]),
            (both(Nested::error("ERR x")), ["-ERR x\r\n"; 2]),
            (both(-7), [":-7\r\n"; 2]),
            (both(Nested::Null), ["$-1\r\n", "_\r\n"]),
            (both(None::<i64>), ["$-1\r\n", "_\r\n"]),
            (both(true), [":1\r\n", "#t\r\n"]),
            (both(2.5), ["$3\r\n2.5\r\n", ",2.5\r\n"]),
            (both(3.0), ["$1\r\n3\r\n", ",3\r\n"]),
            (both(f64::NEG_INFINITY), ["$4\r\n-inf\r\n", ",-inf\r\n"]),
            (both(Nested::BigNumber("12".into())), ["$2\r\n12\r\n", "(12\r\n"]),
            (both(Nested::verbatim("hi")), ["$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n"]),
        ] {
            assert_eq!(made, expected);
        }
    }

    #[test]
    fn collections_keep_their_order_and_are_turned_down() {
        let keys = ["z", "a", "m", "b"];
        let map = Nested::map(keys.map(|key| (key, Nested::set([1i64, 2]))));
        let [resp2, resp3] = both(map);
        let pair = |key, set| format!("$1\r\n{key}\r\n{set}2\r\n:1\r\n:2\r\n");
        assert_eq!(resp2, format!("*8\r\n{}", keys.map(|key| pair(key, "*")).concat()));
        assert_eq!(resp3, format!("%4\r\n{}", keys.map(|key| pair(key, "~")).concat()));
        let push = Nested::Push(vec!["a".into(), Nested::array([true])]);
        assert_eq!(both(push), ["*2\r\n$1\r\na\r\n*1\r\n:1\r\n", ">2\r\n$1\r\na\r\n*1\r\n#t\r\n"]);
    }

    /// The crate's estimate of an integer's length is one too many just under powers of ten.
    #[test]
    fn no_stray_bytes_after_any_integer() {
        let powers = (0..19).map(|power| 10i64.pow(power));
        let around = powers.flat_map(|ten| (-3..4).flat_map(move |by| [ten + by, -ten + by]));
        for number in around.chain([i64::MIN, i64::MIN + 1, i64::MAX]) {
            assert_eq!(both(number), [format!(":{number}\r\n"), format!(":{number}\r\n")]);
        }
    }

    #[test]
    fn line_ends_cannot_forge_a_reply() {
        assert_eq!(both(Nested::error("ERR a\r\n+OK\r\n")), ["-ERR a  +OK\r\n"; 2]);
        assert_eq!(both(Nested::simple("a\nb")), ["+a b\r\n"; 2]);
    }

    #[test]
    #[should_panic(expected = "a key comes twice")]
    fn a_key_twice_is_a_bug() {
        encoded(&Nested::map([("a", 1i64), ("a", 2)]), Protocol::Resp3);
    }
}
