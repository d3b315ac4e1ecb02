//! The reply encoder: RESP2 and RESP3 straight into the connection's output buffer.
//!
//! One type per protocol rule, so a command says `null()` or `map(2)` and never asks which
//! protocol the client speaks. Error texts lose their line ends here: CR or LF inside one would
//! let a value forge the next reply.

use bytes::BytesMut;

use crate::base::wire::Put;

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

    fn header(&mut self, tag: u8, number: i64) {
        let mut digits = itoa::Buffer::new();
        self.bytes.put_u8(tag);
        self.bytes.put(digits.format(number).as_bytes());
        self.bytes.put(b"\r\n");
    }

    /// `+OK`.
    pub fn ok(&mut self) {
        self.bytes.put(b"+OK\r\n");
    }

    /// A status line; `text` has no line ends.
    pub fn simple(&mut self, text: &str) {
        debug_assert!(!text.contains(['\r', '\n']));
        self.bytes.put_u8(b'+');
        self.bytes.put(text.as_bytes());
        self.bytes.put(b"\r\n");
    }

    /// An error line: code and text, without the leading `-`.
    pub fn error(&mut self, text: impl AsRef<[u8]>) {
        self.bytes.put_u8(b'-');
        for &byte in text.as_ref() {
            self.bytes.put_u8(if matches!(byte, b'\r' | b'\n') { b' ' } else { byte });
        }
        self.bytes.put(b"\r\n");
    }

    /// An integer.
    pub fn integer(&mut self, number: i64) {
        self.header(b':', number);
    }

    /// A bulk string.
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.bytes.reserve(bytes.len() + 16);
        self.header(b'$', bytes.len() as i64);
        self.bytes.put(bytes);
        self.bytes.put(b"\r\n");
    }

    /// No value: `$-1` or `_`.
    pub fn null(&mut self) {
        self.bytes.put(if self.resp3() { b"_\r\n".as_slice() } else { b"$-1\r\n" });
    }

    /// No array: `*-1` or `_`.
    pub fn null_array(&mut self) {
        self.bytes.put(if self.resp3() { b"_\r\n".as_slice() } else { b"*-1\r\n" });
    }

    /// The head of an array of `len` replies, which follow.
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

    /// A double (in RESP2 a bulk string), in the shortest form that reads back, as Redis prints it.
    pub fn double(&mut self, number: f64) {
        let text = if number.is_nan() {
            "nan".to_owned()
        } else if number.is_infinite() {
            if number > 0.0 { "inf".to_owned() } else { "-inf".to_owned() }
        } else {
            format!("{number}")
        };
        if self.resp3() {
            self.bytes.put_u8(b',');
            self.bytes.put(text.as_bytes());
            self.bytes.put(b"\r\n");
        } else {
            self.bulk(text.as_bytes());
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
}
