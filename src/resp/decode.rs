//! Replies as a client reads them: bytes → [`Nested`].
//!
//! The values are read by the `redis-protocol` crate, but only after a scan of our own has walked
//! the whole frame without recursion and found it complete, no deeper than [`DEPTH_MAX`], with
//! lengths that are numbers within [`VALUE_SIZE_MAX`] and CRLF where it belongs. So the crate can
//! neither run out of stack (it aborts the process some thousand levels deep) nor wait for bytes
//! that will never come, nor start again with every piece that arrives. Streamed strings and
//! collections, attributes and `HELLO` lines of RESP3, which Redis does not send, are refused.

use std::fmt;

use bytes::Bytes;
use redis_protocol::resp2::decode::decode_range as decode2;
use redis_protocol::resp2::types::RangeFrame as Frame2;
use redis_protocol::resp3::decode::complete::decode_range as decode3;
use redis_protocol::resp3::types::RangeFrame as Frame3;
use smallvec::SmallVec;

use crate::base::limits::{INLINE_SIZE_MAX, VALUE_SIZE_MAX};
use crate::resp::nested::Nested;
use crate::resp::reply::Protocol;

/// Deepest nesting of collections.
pub const DEPTH_MAX: usize = 64;

/// Most items that a collection may claim. They have to arrive before anything is stored.
const ITEMS_MAX: usize = 1 << 30;

/// Why bytes are no reply. The connection has lost its place and must be closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DecodeError {
    /// A reply cannot start with this byte in this protocol.
    Tag(u8),
    /// Collections are nested deeper than [`DEPTH_MAX`].
    Depth,
    /// A length is no number, negative or too great.
    Length,
    /// A line does not end.
    Line,
    /// A string is not followed by CRLF.
    End,
    /// A collection as a map's key or a set's member.
    Key,
    /// What the line says is not what its first byte promised.
    Content,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Tag(tag) => write!(f, "no reply starts with '{}'", tag.escape_ascii()),
            DecodeError::Depth => write!(f, "a reply is nested deeper than {DEPTH_MAX} levels"),
            DecodeError::Length => f.write_str("a reply's length is not acceptable"),
            DecodeError::Line => f.write_str("a reply's line does not end"),
            DecodeError::End => f.write_str("a string in a reply is not followed by CRLF"),
            DecodeError::Key => f.write_str("a reply has a collection as a key or member"),
            DecodeError::Content => f.write_str("a reply's text does not fit its type"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Reads the reply at the front of `bytes`: the value and the bytes it took; `None` if it is not
/// complete. Maps keep the order of the wire.
pub fn decode(bytes: &[u8], protocol: Protocol) -> Result<Option<(Nested, usize)>, DecodeError> {
    Decoder::default().decode(bytes, protocol)
}

/// Reads replies that arrive in pieces, in time linear in their bytes.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The first byte of the unfinished reply that is not yet understood.
    position: usize,
    /// The collections that byte lies in, the outermost first.
    open: SmallVec<[Open; 8]>,
}

impl Decoder {
    /// As [`decode`](decode()), going on where the last call stopped: `bytes` starts at the first
    /// byte of the unfinished reply and holds all that was received since. After a reply the caller
    /// drops its bytes; after an error the decoder must not be used again.
    pub fn decode(
        &mut self,
        bytes: &[u8],
        protocol: Protocol,
    ) -> Result<Option<(Nested, usize)>, DecodeError> {
        let Some(len) = self.frame_len(bytes, protocol)? else { return Ok(None) };
        self.position = 0;
        let frame = Bytes::copy_from_slice(&bytes[..len]);
        let (nested, read) = match protocol {
            Protocol::Resp2 => match decode2(&frame) {
                Ok(Some((range, read))) => (nested2(&frame, range), read),
                _ => return Err(DecodeError::Content),
            },
            Protocol::Resp3 => match decode3(&frame) {
                Ok(Some((range, read))) => (nested3(&frame, range)?, read),
                _ => return Err(DecodeError::Content),
            },
        };
        if read == len { Ok(Some((nested, len))) } else { Err(DecodeError::Content) }
    }

    /// The length of the frame at the front of `bytes`, if it is complete and sound.
    fn frame_len(
        &mut self,
        bytes: &[u8],
        protocol: Protocol,
    ) -> Result<Option<usize>, DecodeError> {
        loop {
            let Some(line) = line(&bytes[self.position..])? else { return Ok(None) };
            let mut next = self.position + line.len() + 2;
            match head(line[0], &line[1..], protocol)? {
                Head::Line => {
                    self.take_place();
                }
                Head::Text(len) => {
                    next += len + 2;
                    match bytes.get(next - 2..next) {
                        Some(b"\r\n") => self.take_place(),
                        Some(_) => return Err(DecodeError::End),
                        None => return Ok(None),
                    };
                }
                Head::Items(items) => {
                    if self.take_place() {
                        return Err(DecodeError::Key);
                    }
                    if self.open.len() == DEPTH_MAX {
                        return Err(DecodeError::Depth);
                    }
                    self.open.push(items);
                }
            }
            self.position = next;
            while self.open.last().is_some_and(|items| items.missing == 0) {
                self.open.pop();
            }
            if self.open.is_empty() {
                return Ok(Some(next));
            }
        }
    }

    /// Counts an item of the innermost collection; answers whether it must be a scalar.
    fn take_place(&mut self) -> bool {
        let Some(items) = self.open.last_mut() else { return false };
        let key = items.scalars.is_some_and(|every| items.missing % every == 0);
        items.missing -= 1;
        key
    }
}

/// A collection whose items are being walked.
#[derive(Debug)]
struct Open {
    /// Items still to come, a map's keys and values counted apart.
    missing: usize,
    /// Whether every `n`th item from the end must be a scalar: 2 in maps (the keys), 1 in sets.
    scalars: Option<usize>,
}

/// What one header line opens.
enum Head {
    /// The line is all.
    Line,
    /// So many bytes and CRLF follow.
    Text(usize),
    /// Items follow.
    Items(Open),
}

/// The header line at the front, its tag first, without its line end.
fn line(bytes: &[u8]) -> Result<Option<&[u8]>, DecodeError> {
    let Some(text) = bytes.get(1..) else { return Ok(None) };
    match memchr::memmem::find(text, b"\r\n") {
        Some(len) if len <= INLINE_SIZE_MAX => Ok(Some(&bytes[..len + 1])),
        None if text.len() <= INLINE_SIZE_MAX => Ok(None),
        _ => Err(DecodeError::Line),
    }
}

fn head(tag: u8, text: &[u8], protocol: Protocol) -> Result<Head, DecodeError> {
    let resp3 = protocol == Protocol::Resp3;
    let null = !resp3 && text == b"-1";
    let items = |each, scalars| {
        let missing = length(text, ITEMS_MAX)? * each;
        Ok(Head::Items(Open { missing, scalars }))
    };
    match tag {
        b'+' | b'-' | b':' => Ok(Head::Line),
        b'$' | b'*' if null => Ok(Head::Line),
        b'$' => length(text, VALUE_SIZE_MAX).map(Head::Text),
        b'*' => items(1, None),
        b'_' | b',' | b'#' | b'(' if resp3 => Ok(Head::Line),
        b'!' | b'=' if resp3 => length(text, VALUE_SIZE_MAX).map(Head::Text),
        b'>' if resp3 => items(1, None),
        b'~' if resp3 => items(1, Some(1)),
        b'%' if resp3 => items(2, Some(2)),
        _ => Err(DecodeError::Tag(tag)),
    }
}

/// A length: digits only.
fn length(text: &[u8], max: usize) -> Result<usize, DecodeError> {
    let digits = text.iter().all(u8::is_ascii_digit).then_some(text);
    let number = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    number.filter(|&len| len <= max).ok_or(DecodeError::Length)
}

fn nested2(frame: &Bytes, range: Frame2) -> Nested {
    match range {
        Frame2::SimpleString((start, end)) => Nested::Simple(frame.slice(start..end)),
        Frame2::Error((start, end)) => Nested::Error(frame.slice(start..end)),
        Frame2::Integer(number) => Nested::Integer(number),
        Frame2::BulkString((start, end)) => Nested::Bulk(frame.slice(start..end)),
        Frame2::Array(items) => {
            Nested::Array(items.into_iter().map(|item| nested2(frame, item)).collect())
        }
        Frame2::Null => Nested::Null,
    }
}

fn nested3(frame: &Bytes, range: Frame3) -> Result<Nested, DecodeError> {
    let text = |(start, end)| frame.slice(start..end);
    let list = |items: Vec<Frame3>| -> Result<Vec<Nested>, DecodeError> {
        items.into_iter().map(|item| nested3(frame, item)).collect()
    };
    Ok(match range {
        Frame3::BlobString { data, .. } => Nested::Bulk(text(data)),
        Frame3::BlobError { data, .. } | Frame3::SimpleError { data, .. } => {
            Nested::Error(text(data))
        }
        Frame3::SimpleString { data, .. } => Nested::Simple(text(data)),
        Frame3::Boolean { data, .. } => Nested::Boolean(data),
        Frame3::Null => Nested::Null,
        Frame3::Number { data, .. } => Nested::Integer(data),
        Frame3::Double { data, .. } => Nested::Double(data),
        Frame3::BigNumber { data, .. } => Nested::BigNumber(text(data)),
        Frame3::VerbatimString { data, .. } => Nested::Verbatim(text(data)),
        Frame3::Array { data, .. } => Nested::Array(list(data)?),
        Frame3::Push { data, .. } => Nested::Push(list(data)?),
        Frame3::Set { data, .. } => Nested::Set(list(data.into_iter().collect())?),
        Frame3::Map { data, .. } => {
            // The crate builds its map from the last pair to the first.
            let pairs = data.into_iter().rev();
            let pair = |(key, value)| Ok((nested3(frame, key)?, nested3(frame, value)?));
            Nested::Map(pairs.map(pair).collect::<Result<_, DecodeError>>()?)
        }
        Frame3::Hello { .. } | Frame3::ChunkedString(_) => return Err(DecodeError::Content),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::nested::encode;
    use crate::resp::reply::Reply;
    use proptest::prelude::*;

    const BOTH: [Protocol; 2] = [Protocol::Resp2, Protocol::Resp3];

    fn read3(text: &str) -> Result<Option<Nested>, DecodeError> {
        decode(text.as_bytes(), Protocol::Resp3).map(|read| read.map(|(nested, _)| nested))
    }

    fn read2(text: &str) -> Result<Option<Nested>, DecodeError> {
        decode(text.as_bytes(), Protocol::Resp2).map(|read| read.map(|(nested, _)| nested))
    }

    #[test]
    fn every_type_is_read() {
        for (text, expected) in [
            ("+OK\r\n", Nested::simple("OK")),
            ("-ERR x\r\n", Nested::error("ERR x")),
            ("!5\r\nERR x\r\n", Nested::error("ERR x")),
            (":-5\r\n", Nested::Integer(-5)),
            ("$0\r\n\r\n", Nested::bulk("")),
            ("$4\r\na\r\nb\r\n", Nested::bulk("a\r\nb")),
            ("_\r\n", Nested::Null),
            ("#t\r\n", Nested::Boolean(true)),
            (",1.5e+300\r\n", Nested::Double(1.5e300)),
            (",-inf\r\n", Nested::Double(f64::NEG_INFINITY)),
            ("(123456789012345678901\r\n", Nested::BigNumber("123456789012345678901".into())),
            ("=6\r\ntxt:hi\r\n", Nested::verbatim("hi")),
            ("*0\r\n", Nested::Array(vec![])),
            ("*2\r\n:1\r\n*0\r\n", Nested::Array(vec![Nested::Integer(1), Nested::Array(vec![])])),
            ("~2\r\n:1\r\n:2\r\n", Nested::set([1i64, 2])),
            (">1\r\n+x\r\n", Nested::Push(vec![Nested::simple("x")])),
        ] {
            assert_eq!(read3(text), Ok(Some(expected)), "{text:?}");
        }
        assert_eq!(
            read2("*2\r\n$-1\r\n*-1\r\n"),
            Ok(Some(Nested::array([Nested::Null, Nested::Null])))
        );
    }

    #[test]
    fn maps_keep_their_order() {
        let map = read3("%2\r\n+z\r\n*1\r\n:1\r\n+a\r\n%1\r\n:1\r\n:2\r\n");
        let (z, a) = (Nested::simple("z"), Nested::simple("a"));
        let expected = Nested::map([(z, Nested::array([1])), (a, Nested::map([(1, 2)]))]);
        assert_eq!(map, Ok(Some(expected)));
    }

    #[test]
    fn hostile_replies_are_refused() {
        let deep = |tag: &str, levels| tag.repeat(levels) + ":1\r\n";
        for tag in ["*1\r\n", "%1\r\n+k\r\n", ">1\r\n"] {
            assert!(matches!(read3(&deep(tag, DEPTH_MAX)), Ok(Some(_))));
            assert_eq!(read3(&deep(tag, DEPTH_MAX + 1)), Err(DecodeError::Depth));
            assert_eq!(read3(&deep(tag, 1_000_000)), Err(DecodeError::Depth));
        }
        assert_eq!(read2(&deep("*1\r\n", 1_000_000)), Err(DecodeError::Depth));
        for (text, expected) in [
            ("$-2\r\n", DecodeError::Length),
            ("$-1\r\n", DecodeError::Length),
            ("$+1\r\n", DecodeError::Length),
            ("$?\r\n", DecodeError::Length),
            ("*?\r\n", DecodeError::Length),
            ("$\r\n", DecodeError::Length),
            ("$536870913\r\n", DecodeError::Length),
            ("*9223372036854775807\r\n", DecodeError::Length),
            ("%99999999999999999999\r\n", DecodeError::Length),
            ("$1\r\nabc", DecodeError::End),
            ("|1\r\n+a\r\n+b\r\n:1\r\n", DecodeError::Tag(b'|')),
            ("HELLO 3\r\n", DecodeError::Tag(b'H')),
            (";0\r\n", DecodeError::Tag(b';')),
            (".\r\n", DecodeError::Tag(b'.')),
            ("%1\r\n*0\r\n:1\r\n", DecodeError::Key),
            ("~1\r\n*0\r\n", DecodeError::Key),
            (":x\r\n", DecodeError::Content),
            ("#x\r\n", DecodeError::Content),
            (",x\r\n", DecodeError::Content),
            ("=3\r\ntxt\r\n", DecodeError::Content),
        ] {
            assert_eq!(read3(text), Err(expected), "{text:?}");
        }
        assert_eq!(read2("_\r\n"), Err(DecodeError::Tag(b'_')));
        assert_eq!(read2(&format!("+{}", "x".repeat(70_000))), Err(DecodeError::Line));
        // A claim that may yet come true is waited for, and nothing is reserved for it.
        assert_eq!(read3("*1000000000\r\n:1\r\n"), Ok(None));
        assert_eq!(read3("$500000000\r\nabc"), Ok(None));
    }

    #[test]
    fn a_long_reply_in_pieces_is_scanned_once() {
        let bytes = format!("*{}\r\n{}", 200_000, "$3\r\nabc\r\n".repeat(200_000)).into_bytes();
        let mut decoder = Decoder::default();
        for received in (0..bytes.len()).step_by(16 << 10) {
            assert_eq!(decoder.decode(&bytes[..received], Protocol::Resp2), Ok(None));
            assert!(received - decoder.position < 10, "scans again from far behind");
        }
        let (reply, read) = decoder.decode(&bytes, Protocol::Resp2).unwrap().unwrap();
        assert_eq!((reply.as_items().unwrap().len(), read), (200_000, bytes.len()));
        assert_eq!(decoder.decode(b"+OK\r\n", Protocol::Resp2).unwrap().unwrap().1, 5);
    }

    /// Replies a node may make. Members and keys are numbered, so they are distinct.
    fn any_nested() -> impl Strategy<Value = Nested> {
        let text = prop::collection::vec(any::<u8>(), 0..20);
        let scalar = prop_oneof![
            text.prop_map(Nested::bulk),
            "[ -~]{0,20}".prop_map(|text| Nested::simple(text.trim().to_owned())),
            "[A-Z]{2,5} [a-z ]{0,9}".prop_map(Nested::error),
            any::<i64>().prop_map(Nested::Integer),
            prop::num::f64::NORMAL.prop_map(Nested::Double),
            any::<bool>().prop_map(Nested::Boolean),
            "-?[1-9][0-9]{0,40}".prop_map(|digits| Nested::BigNumber(digits.into())),
            "[ -~]{0,20}".prop_map(Nested::verbatim),
            Just(Nested::Null),
        ];
        scalar.prop_recursive(5, 40, 6, |inner| {
            let items = prop::collection::vec(inner, 0..6);
            let numbered = |items: Vec<Nested>| {
                Nested::map(
                    items.into_iter().enumerate().map(|(key, value)| (key.to_string(), value)),
                )
            };
            prop_oneof![
                items.clone().prop_map(Nested::Array),
                items.clone().prop_map(Nested::Push),
                items.prop_map(numbered),
                (0..9i64).prop_map(|len| Nested::set(0..len)),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_read(nested in any_nested(), more: Vec<u8>) {
            let mut reply = Reply::new(Protocol::Resp3);
            encode(&nested, &mut reply);
            let len = reply.bytes.len();
            let mut decoder = Decoder::default();
            for cut in 0..len {
                prop_assert_eq!(decoder.decode(&reply.bytes[..cut], Protocol::Resp3), Ok(None));
            }
            prop_assert_eq!(
                decoder.decode(&reply.bytes, Protocol::Resp3),
                Ok(Some((nested.clone(), len)))
            );
            reply.bytes.extend_from_slice(&more);
            prop_assert_eq!(decode(&reply.bytes, Protocol::Resp3), Ok(Some((nested.clone(), len))));

            let mut reply = Reply::new(Protocol::Resp2);
            encode(&nested, &mut reply);
            let len = reply.bytes.len();
            let read = decode(&reply.bytes, Protocol::Resp2);
            prop_assert!(matches!(read, Ok(Some((_, read))) if read == len), "{:?}", read);
        }

        #[test]
        fn spoiled_replies_never_panic(
            nested in any_nested(),
            spoils in prop::collection::vec((any::<usize>(), any::<u8>()), 1..4),
        ) {
            for protocol in BOTH {
                let mut reply = Reply::new(protocol);
                encode(&nested, &mut reply);
                for &(at, byte) in &spoils {
                    let at = at % reply.bytes.len();
                    reply.bytes[at] = byte;
                }
                if let Ok(Some((_, read))) = decode(&reply.bytes, protocol) {
                    prop_assert!(read <= reply.bytes.len());
                }
            }
        }
    }
}
