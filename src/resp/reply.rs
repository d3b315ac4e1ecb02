//! The reply encoder: RESP2 and RESP3 straight into the connection's output buffer.
//!
//! One method per protocol rule, so a command says `null()` or `map(2)` and never asks which
//! protocol the client speaks. Error texts lose their line ends here: CR or LF inside one would
//! let a value forge the next reply.
//!
//! The frequent replies (`ok`, `integer`, `bulk`, `null`, heads) check the buffer's room once.

use bytes::BytesMut;

use crate::base::wire::Put;
use crate::resp::double;

/// Room for a tag, the longest integer and a line end.
const LINE: usize = 24;

/// The protocol a connection speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Protocol {
    /// What every connection starts with.
    #[default]
    Resp2,
    /// After `HELLO 3`.
    Resp3,
}

/// Encodes replies, back to back.
#[derive(Debug, Default)]
pub struct Reply {
    /// The encoded bytes.
    pub bytes: BytesMut,
    /// Whose rules they follow.
    pub protocol: Protocol,
}

impl Reply {
    /// An empty encoder for `protocol`.
    pub fn new(protocol: Protocol) -> Reply {
        Reply { bytes: BytesMut::new(), protocol }
    }

    fn resp3(&self) -> bool {
        self.protocol == Protocol::Resp3
    }

    /// A tag, a number and a line end.
    #[inline]
    fn header(&mut self, tag: u8, number: i64) {
        // Most lengths and counts are short: they are written whole, in one store.
        match number {
            0..=9 => self.bytes.put(&[tag, digit(number), b'\r', b'\n']),
            10..=99 => {
                self.bytes.put(&[tag, digit(number / 10), digit(number % 10), b'\r', b'\n']);
            }
            100..=999 => {
                let (hundreds, tens) = (digit(number / 100), digit(number / 10 % 10));
                self.bytes.put(&[tag, hundreds, tens, digit(number % 10), b'\r', b'\n']);
            }
            _ => self.line(tag, itoa::Buffer::new().format(number).as_bytes()),
        }
    }

    /// `+OK`.
    #[inline]
    pub fn ok(&mut self) {
        self.bytes.put(b"+OK\r\n");
    }

    /// A status line; `text` has no line ends.
    pub fn simple(&mut self, text: &str) {
        debug_assert!(!text.contains(['\r', '\n']));
        self.line(b'+', text.as_bytes());
    }

    /// An error line: code and text, without the leading `-`. Line ends at its rims are dropped,
    /// others become spaces.
    pub fn error(&mut self, text: impl AsRef<[u8]>) {
        self.bytes.put_u8(b'-');
        let start = self.bytes.len();
        self.bytes.put(trim_line_ends(text.as_ref()));
        for byte in &mut self.bytes[start..] {
            if is_line_end(*byte) {
                *byte = b' ';
            }
        }
        self.bytes.put(b"\r\n");
    }

    /// An integer.
    #[inline]
    pub fn integer(&mut self, number: i64) {
        self.header(b':', number);
    }

    /// A bulk string.
    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.bytes.reserve(bytes.len() + LINE + 2);
        self.header(b'$', bytes.len() as i64);
        self.bytes.put(bytes);
        self.bytes.put(b"\r\n");
    }

    /// An integer as a bulk string, where Redis answers a stored number as text.
    pub fn bulk_integer(&mut self, number: i64) {
        self.bulk(itoa::Buffer::new().format(number).as_bytes());
    }

    /// No value: `$-1` or `_`.
    #[inline]
    pub fn null(&mut self) {
        self.bytes.put(if self.resp3() { b"_\r\n".as_slice() } else { b"$-1\r\n" });
    }

    /// No array: `*-1` or `_`.
    pub fn null_array(&mut self) {
        self.bytes.put(if self.resp3() { b"_\r\n".as_slice() } else { b"*-1\r\n" });
    }

    /// The head of an array of `len` replies, which follow.
    #[inline]
    pub fn array(&mut self, len: usize) {
        self.header(b'*', len as i64);
    }

    /// The head of a map of `len` pairs (in RESP2 a flat array); `2 * len` replies follow.
    pub fn map(&mut self, len: usize) {
        if self.resp3() {
            self.header(b'%', len as i64);
        } else {
            self.header(b'*', 2 * len as i64);
        }
    }

    /// The head of a set (in RESP2 an array).
    pub fn set(&mut self, len: usize) {
        self.header(if self.resp3() { b'~' } else { b'*' }, len as i64);
    }

    /// The head of an out-of-band push (in RESP2 an array).
    pub fn push(&mut self, len: usize) {
        self.header(if self.resp3() { b'>' } else { b'*' }, len as i64);
    }

    /// A double (in RESP2 a bulk string), as Redis prints it: see [`double::text`].
    pub fn double(&mut self, number: f64) {
        let text = double::text(number);
        if self.resp3() {
            self.line(b',', &text);
        } else {
            self.bulk(&text);
        }
    }

    /// An integer of any length, given as its digits (in RESP2 a bulk string).
    pub fn big_number(&mut self, digits: &str) {
        debug_assert!(digits.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit()));
        if self.resp3() {
            self.line(b'(', digits.as_bytes());
        } else {
            self.bulk(digits.as_bytes());
        }
    }

    /// A boolean (in RESP2 0 or 1).
    pub fn boolean(&mut self, truth: bool) {
        if self.resp3() {
            self.bytes.put(if truth { b"#t\r\n".as_slice() } else { b"#f\r\n" });
        } else {
            self.integer(i64::from(truth));
        }
    }

    /// Text for people (in RESP2 a bulk string); `INFO` and `CLIENT LIST` answer so.
    pub fn verbatim(&mut self, text: &str) {
        if self.resp3() {
            self.header(b'=', text.len() as i64 + 4);
            self.bytes.put(b"txt:");
            self.bytes.put(text.as_bytes());
            self.bytes.put(b"\r\n");
        } else {
            self.bulk(text.as_bytes());
        }
    }

    /// A tag, a short text and a line end.
    fn line(&mut self, tag: u8, text: &[u8]) {
        let end = 1 + text.len();
        if end + 2 <= LINE {
            // A short one is put together first, and appended in one go.
            let mut line = [tag; LINE];
            line[1..end].copy_from_slice(text);
            line[end..end + 2].copy_from_slice(b"\r\n");
            return self.bytes.put(&line[..end + 2]);
        }
        self.bytes.reserve(end + 2);
        self.bytes.put_u8(tag);
        self.bytes.put(text);
        self.bytes.put(b"\r\n");
    }
}

/// The character of a digit from 0 to 9.
fn digit(number: i64) -> u8 {
    b'0' + number as u8
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

/// `text` without the line ends at its rims.
pub(in crate::resp) fn trim_line_ends(mut text: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = text
        && is_line_end(*first)
    {
        text = rest;
    }
    while let [rest @ .., last] = text
        && is_line_end(*last)
    {
        text = rest;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `write` makes in RESP2 and in RESP3.
    fn both(write: impl Fn(&mut Reply)) -> [String; 2] {
        [Protocol::Resp2, Protocol::Resp3].map(|protocol| {
            let mut reply = Reply::new(protocol);
            write(&mut reply);
            String::from_utf8(reply.bytes.to_vec()).unwrap()
        })
    }

    fn same(write: impl Fn(&mut Reply), expected: &str) {
        assert_eq!(both(write), [expected, expected]);
    }

    #[test]
    fn what_both_protocols_share() {
        same(Reply::ok, "+OK\r\n");
        same(|reply| reply.simple("PONG"), "+PONG\r\n");
        same(|reply| reply.error("ERR no"), "-ERR no\r\n");
        same(|reply| reply.bulk(b""), "$0\r\n\r\n");
        same(|reply| reply.bulk(b"a\r\nb"), "$4\r\na\r\nb\r\n");
        same(|reply| reply.bulk(&[b'x'; 10]), "$10\r\nxxxxxxxxxx\r\n");
        same(|reply| reply.bulk_integer(-12), "$3\r\n-12\r\n");
        same(|reply| reply.array(0), "*0\r\n");
        same(|reply| reply.array(1_048_576), "*1048576\r\n");
    }

    #[test]
    fn integers_of_every_length() {
        let powers = (0..19).map(|power| 10i64.pow(power));
        let around = powers.flat_map(|ten| [ten - 1, ten, ten + 1, -ten]);
        for number in around.chain([i64::MIN, i64::MAX, -1, -9, -10, 255, 256]) {
            same(|reply| reply.integer(number), &format!(":{number}\r\n"));
        }
    }

    #[test]
    fn what_the_protocols_say_differently() {
        for (made, expected) in [
            (both(Reply::null), ["$-1\r\n", "_\r\n"]),
            (both(Reply::null_array), ["*-1\r\n", "_\r\n"]),
            (both(|reply| reply.map(7)), ["*14\r\n", "%7\r\n"]),
            (both(|reply| reply.set(7)), ["*7\r\n", "~7\r\n"]),
            (both(|reply| reply.push(3)), ["*3\r\n", ">3\r\n"]),
            (both(|reply| reply.boolean(true)), [":1\r\n", "#t\r\n"]),
            (both(|reply| reply.boolean(false)), [":0\r\n", "#f\r\n"]),
            (both(|reply| reply.double(3.1)), ["$3\r\n3.1\r\n", ",3.1\r\n"]),
            (both(|reply| reply.double(f64::INFINITY)), ["$3\r\ninf\r\n", ",inf\r\n"]),
            (both(|reply| reply.double(-1e20)), ["$6\r\n-1e+20\r\n", ",-1e+20\r\n"]),
            (both(|reply| reply.big_number("-123")), ["$4\r\n-123\r\n", "(-123\r\n"]),
            (both(|reply| reply.verbatim("hi")), ["$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n"]),
        ] {
            assert_eq!(made, expected);
        }
    }

    #[test]
    fn an_error_cannot_forge_a_reply() {
        same(|reply| reply.error("ERR a\r\n+OK\r\n"), "-ERR a  +OK\r\n");
        same(|reply| reply.error("\r\n\r\n"), "-\r\n");
    }

    #[test]
    fn replies_stand_back_to_back() {
        same(
            |reply| {
                reply.error("E\n");
                reply.array(2);
                reply.integer(10);
                reply.bulk(b"x");
                reply.error("A\nB");
            },
            "-E\r\n*2\r\n:10\r\n$1\r\nx\r\n-A B\r\n",
        );
    }
}
