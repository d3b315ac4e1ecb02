//! The request scanner: bytes a client sent → argument ranges, without copying or allocating.
//!
//! It is told the whole unfinished request each time and goes on where it stopped, so the work is
//! linear in the bytes however they are cut. It keeps nothing but offsets (and the unescaped words
//! of an inline request), and reserves nothing for what a header merely claims.
//!
//! ```text
//!            '*'                    N > 0                    N bulks read
//!  request ───────▶ count line ───────────────▶ bulks ─────────────────────▶ complete
//!     │                 │ N ≤ 0                  ▲  │ '$' len, bytes, CRLF     ▲
//!     │ any other byte  └──────────────┐         └──┘                         │
//!     └───────────────▶ inline line ───┴──────────────────────────────────────┘
//! ```
//!
//! It follows Redis 7.2 byte for byte, with four stricter choices, all of them against frames that
//! no client sends: a bulk must be followed by CRLF (Redis skips two bytes unseen, and so takes a
//! wrong length for the next request); CR in a header line must be followed by LF; a line over the
//! limit is refused even when its end came in the same read; one request holds at most
//! [`REQUEST_ARGUMENTS_MAX`] arguments (Redis's bound until 7.0).

use std::fmt;
use std::ops::Range;

use smallvec::SmallVec;

use crate::base::limits::{
    INLINE_SIZE_MAX, QUERY_BUFFER_MAX, REQUEST_ARGUMENTS_MAX, VALUE_SIZE_MAX,
};
use crate::resp::inline::{self, Ranges};
use crate::resp::reply::Reply;

/// Most arguments of a request before the client has authenticated.
const UNAUTHENTICATED_ARGUMENTS_MAX: usize = 10;
/// Longest bulk before the client has authenticated, in bytes.
const UNAUTHENTICATED_BULK_MAX: usize = 16 << 10;
/// Ranges (and bytes of inline words) kept from one request to the next; a longer request gives its
/// memory back.
const KEPT_MAX: usize = 4 << 10;
/// The least that [`Scanner::needed`] may ask for at once, in bytes.
const NEEDED_STEP: usize = 64 << 10;
/// Digits that the quick path reads: no overflow, and every length Redis allows.
const QUICK_DIGITS: usize = 9;

// Ranges are 32-bit: half the memory of a long request.
const _: () = assert!(QUERY_BUFFER_MAX <= u32::MAX as usize);
const _: () = assert!(REQUEST_ARGUMENTS_MAX <= u32::MAX as usize);

/// What one request may hold. A field may change between two calls of [`Scanner::scan`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Most arguments.
    pub arguments: usize,
    /// Longest argument in bytes: `proto-max-bulk-len`.
    pub bulk: usize,
    /// Longest inline request, and longest header line, in bytes without the line end.
    pub inline: usize,
    /// Longest request in bytes, headers included; capped at [`QUERY_BUFFER_MAX`].
    pub request: usize,
    /// Whether the client may use all of this; if not, 10 arguments of 16 KiB are the most, so that
    /// strangers cannot fill the memory.
    pub authenticated: bool,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            arguments: REQUEST_ARGUMENTS_MAX,
            bulk: VALUE_SIZE_MAX,
            inline: INLINE_SIZE_MAX,
            request: QUERY_BUFFER_MAX,
            authenticated: true,
        }
    }
}

impl Limits {
    /// For a client that still has to authenticate.
    pub fn unauthenticated() -> Limits {
        Limits { authenticated: false, ..Limits::default() }
    }

    /// Why an argument of `len` bytes at `position` may not come, if so.
    #[inline]
    fn refusal(&self, position: usize, len: usize) -> Option<ProtocolError> {
        let stranger = if self.authenticated { usize::MAX } else { UNAUTHENTICATED_BULK_MAX };
        if len > self.bulk {
            Some(ProtocolError::BulkLength)
        } else if len > stranger {
            Some(ProtocolError::BulkUnauthenticated)
        } else if (position + 2).saturating_add(len) > self.request.min(QUERY_BUFFER_MAX) {
            Some(ProtocolError::Request)
        } else {
            None
        }
    }
}

/// Why a connection's bytes are no request. The connection answers it and closes: what follows in
/// the buffer has no meaning any more. Nothing of the request was run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProtocolError {
    /// The count of arguments is no number or too great.
    Count,
    /// More arguments than a stranger may send.
    CountUnauthenticated,
    /// The count line does not end.
    CountLine,
    /// An argument starts with this byte instead of `$`.
    Bulk(u8),
    /// The length of an argument is no number or too great.
    BulkLength,
    /// A longer argument than a stranger may send.
    BulkUnauthenticated,
    /// The length line does not end.
    BulkLine,
    /// An argument is not followed by CRLF: its length was wrong. (Redis does not look.)
    BulkEnd,
    /// The inline request does not end.
    InlineLine,
    /// The inline request has unbalanced quotes.
    Quotes,
    /// The request is longer than the query buffer may grow. (Redis closes without a word.)
    Request,
}

impl ProtocolError {
    /// Writes the error reply.
    pub fn reply(&self, reply: &mut Reply) {
        reply.error(self.text());
    }

    /// The error reply's code and text, as Redis words it; the offending byte stands in it raw.
    pub fn text(&self) -> Vec<u8> {
        let mut text = b"ERR Protocol error: ".to_vec();
        text.extend_from_slice(match self {
            ProtocolError::Count => b"invalid multibulk length",
            ProtocolError::CountUnauthenticated => b"unauthenticated multibulk length",
            ProtocolError::CountLine => b"too big mbulk count string",
            ProtocolError::Bulk(_) => b"expected '$', got '",
            ProtocolError::BulkLength => b"invalid bulk length",
            ProtocolError::BulkUnauthenticated => b"unauthenticated bulk length",
            ProtocolError::BulkLine => b"too big bulk count string",
            ProtocolError::BulkEnd => b"expected CRLF after bulk",
            ProtocolError::InlineLine => b"too big inline request",
            ProtocolError::Quotes => b"unbalanced quotes in request",
            ProtocolError::Request => b"too big request",
        });
        if let ProtocolError::Bulk(byte) = self {
            text.extend_from_slice(&[*byte, b'\'']);
        }
        text
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.text()))
    }
}

impl std::error::Error for ProtocolError {}

/// Where the arguments of the last complete request lie: in the buffer that was scanned, or, if the
/// request was inline, unescaped in here. Valid until the next [`Scanner::scan`].
#[derive(Debug, Default)]
pub struct Arguments {
    ranges: Ranges,
    /// The words of an inline request.
    text: Vec<u8>,
    /// Whether `ranges` point into `text`.
    inline: bool,
}

impl Arguments {
    /// How many arguments there are.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether the request was blank.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// What [`ranges`](Arguments::ranges) point into: the scanned `buffer`, or the inline words.
    pub fn source<'b>(&'b self, buffer: &'b [u8]) -> &'b [u8] {
        if self.inline { &self.text } else { buffer }
    }

    /// The arguments' places in their [`source`](Arguments::source).
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = Range<usize>> + '_ {
        self.ranges.iter().map(|&(start, end)| start as usize..end as usize)
    }

    /// The arguments; `buffer` is the one that was scanned.
    #[inline]
    pub fn slices<'b>(&'b self, buffer: &'b [u8]) -> SmallVec<[&'b [u8]; 8]> {
        let mut slices = SmallVec::new();
        self.fill(buffer, &mut slices);
        slices
    }

    /// Appends the arguments to `slices`; `buffer` is the one that was scanned. (Cheaper than
    /// [`slices`](Arguments::slices) on the hot path: the list is not moved.)
    #[inline]
    pub fn fill<'b>(&'b self, buffer: &'b [u8], slices: &mut SmallVec<[&'b [u8]; 8]>) {
        let source = self.source(buffer);
        slices.reserve(self.ranges.len());
        for &(start, end) in &self.ranges {
            slices.push(&source[start as usize..end as usize]);
        }
    }

    fn clear(&mut self) {
        if self.ranges.spilled() && self.ranges.capacity() > KEPT_MAX {
            self.ranges = Ranges::new();
        }
        if self.text.capacity() > KEPT_MAX {
            self.text = Vec::new();
        }
        self.ranges.clear();
        self.text.clear();
        self.inline = false;
    }
}

/// One connection's scanner. See the head of the file.
#[derive(Debug, Default)]
pub struct Scanner {
    /// The first byte of the unfinished request that is not yet understood.
    position: usize,
    /// No line end lies before this byte; only ever ahead of `position` within one line.
    searched: usize,
    /// Arguments still to come; 0 between requests and in the first line of one.
    missing: usize,
    /// The length of the argument at `position`, once its header is read.
    bulk: Option<usize>,
    arguments: Arguments,
}

impl Scanner {
    /// A scanner at the start of a request.
    pub fn new() -> Scanner {
        Scanner::default()
    }

    /// Scans on in `buffer`, which starts at the first byte of the unfinished request and holds all
    /// that was received since.
    ///
    /// - `Ok(Some(consumed))`: one request is complete and lies in [`arguments`](Self::arguments).
    ///   The caller runs it, then drops `consumed` bytes from the front; the next call starts a new
    ///   request. **A blank request** (an empty line, `*0`, `*-1`) **is complete with no
    ///   arguments**: it gets no reply.
    /// - `Ok(None)`: more bytes are needed; the buffer must keep what it holds.
    /// - `Err`: the connection answers the error and closes; the scanner must not be used again.
    pub fn scan(&mut self, buffer: &[u8], limits: &Limits) -> Result<Option<usize>, ProtocolError> {
        debug_assert!(buffer.len() >= self.position, "the buffer lost bytes of the request");
        if self.missing == 0 {
            self.arguments.clear();
            match buffer.first() {
                None => return Ok(None),
                Some(b'*') => {}
                Some(_) => return self.scan_inline(buffer, limits),
            }
            match self.scan_count(buffer, limits)? {
                None => return Ok(None),
                Some(0) => return Ok(Some(self.finish(self.position))),
                Some(count) => self.missing = count,
            }
        }
        self.scan_bulks(buffer, limits)
    }

    /// The last complete request's arguments. Before a request is complete it means nothing.
    pub fn arguments(&self) -> &Arguments {
        &self.arguments
    }

    /// How many bytes more than `buffered` to make room for: what the current argument lacks, or 0
    /// if that is not known. A claimed length is not believed at once: the answer at most doubles
    /// what has already come (64 KiB at least), so reserving it is linear and bounded.
    pub fn needed(&self, buffered: usize) -> usize {
        let Some(len) = self.bulk else { return 0 };
        let missing = (self.position + len + 2).saturating_sub(buffered);
        missing.min(buffered.max(NEEDED_STEP))
    }

    /// Makes ready for the next request.
    fn finish(&mut self, consumed: usize) -> usize {
        self.position = 0;
        self.searched = 0;
        consumed
    }

    /// Reads the count line; `Some(0)` if the request is blank.
    #[inline]
    fn scan_count(
        &mut self,
        buffer: &[u8],
        limits: &Limits,
    ) -> Result<Option<usize>, ProtocolError> {
        let count = match quick_number(buffer, 0, b'*') {
            Some((count, next)) => {
                self.position = next;
                count
            }
            None => match self.line(buffer, limits, ProtocolError::CountLine)? {
                None => return Ok(None),
                Some(line) => match number(&line[1..]).ok_or(ProtocolError::Count)? {
                    ..0 => 0,
                    count => usize::try_from(count).map_err(|_| ProtocolError::Count)?,
                },
            },
        };
        if count > limits.arguments {
            return Err(ProtocolError::Count);
        }
        if count > UNAUTHENTICATED_ARGUMENTS_MAX && !limits.authenticated {
            return Err(ProtocolError::CountUnauthenticated);
        }
        Ok(Some(count))
    }

    /// Reads arguments until none is missing. The quick turn of the loop keeps its place in
    /// registers; a length or argument that is cut is left to the fields.
    fn scan_bulks(
        &mut self,
        buffer: &[u8],
        limits: &Limits,
    ) -> Result<Option<usize>, ProtocolError> {
        let mut position = self.position;
        let mut known = self.bulk.take();
        loop {
            let len = match known.take() {
                Some(len) => len,
                None => {
                    let (len, next) = match quick_number(buffer, position, b'$') {
                        Some(header) => header,
                        None => match self.scan_length(position, buffer, limits)? {
                            Some(len) => (len, self.position),
                            None => return Ok(None),
                        },
                    };
                    if let Some(error) = limits.refusal(next, len) {
                        return Err(error);
                    }
                    position = next;
                    len
                }
            };
            let end = position + len;
            match buffer.get(end..end + 2) {
                Some(b"\r\n") => {}
                Some(_) => return Err(ProtocolError::BulkEnd),
                None => {
                    self.position = position;
                    self.bulk = Some(len);
                    return Ok(None);
                }
            }
            self.arguments.ranges.push((position as u32, end as u32));
            position = end + 2;
            self.missing -= 1;
            if self.missing == 0 {
                return Ok(Some(self.finish(position)));
            }
        }
    }

    /// Reads the header of the argument at `position` the slow way: its length; `self.position` is
    /// then its first byte.
    #[cold]
    fn scan_length(
        &mut self,
        position: usize,
        buffer: &[u8],
        limits: &Limits,
    ) -> Result<Option<usize>, ProtocolError> {
        self.position = position;
        match self.line(buffer, limits, ProtocolError::BulkLine)? {
            None => Ok(None),
            Some([b'$', digits @ ..]) => {
                let len = number(digits).and_then(|len| usize::try_from(len).ok());
                len.map(Some).ok_or(ProtocolError::BulkLength)
            }
            // An empty line: what stands in the length's place is the line end.
            Some(line) => Err(ProtocolError::Bulk(*line.first().unwrap_or(&b'\r'))),
        }
    }

    /// The header line at `position`, without its CRLF, once it has ended; `position` goes past it.
    /// Only lines that are cut, wrong or very long come here.
    #[cold]
    fn line<'b>(
        &mut self,
        buffer: &'b [u8],
        limits: &Limits,
        too_long: ProtocolError,
    ) -> Result<Option<&'b [u8]>, ProtocolError> {
        let start = self.position;
        let end = self.search(b'\r', buffer);
        if end - start > limits.inline {
            return Err(too_long);
        }
        match buffer.get(end + 1) {
            None => Ok(None),
            Some(b'\n') => {
                self.position = end + 2;
                Ok(Some(&buffer[start..end]))
            }
            // CR and no LF: the line is given with its CR, which no number may hold.
            Some(_) => {
                self.position = end + 2;
                Ok(Some(&buffer[start..end + 1]))
            }
        }
    }

    /// Where `end` is in the line at `position`, or the buffer's end; searches no byte twice.
    fn search(&mut self, end: u8, buffer: &[u8]) -> usize {
        let from = self.position.max(self.searched);
        let rest = &buffer[from..];
        self.searched = from + memchr::memchr(end, rest).unwrap_or(rest.len());
        self.searched
    }

    fn scan_inline(
        &mut self,
        buffer: &[u8],
        limits: &Limits,
    ) -> Result<Option<usize>, ProtocolError> {
        let end = self.search(b'\n', buffer);
        let complete = end < buffer.len();
        // A CR at the end is the line end's own, also while its LF is on the way: what is too long
        // must not depend on how the bytes are cut.
        let line = buffer[..end].strip_suffix(b"\r").unwrap_or(&buffer[..end]);
        if line.len() > limits.inline.min(QUERY_BUFFER_MAX) {
            return Err(ProtocolError::InlineLine);
        }
        if !complete {
            return Ok(None);
        }
        let Arguments { ranges, text, inline } = &mut self.arguments;
        *inline = true;
        inline::split(line, text, ranges).map_err(|_| ProtocolError::Quotes)?;
        Ok(Some(self.finish(end + 1)))
    }
}

/// The number line at `from`, if it is whole, plain and short: tag, digits, CRLF. Answers the number
/// and where the line ends. All else (cut, wrong, negative, padded with zeros) is left to
/// [`Scanner::line`] and [`number`].
#[inline(always)]
fn quick_number(buffer: &[u8], from: usize, tag: u8) -> Option<(usize, usize)> {
    let line = buffer.get(from..)?;
    // Nearly every number has one or two digits: those are looked at as whole words.
    if let Some(&[first, tens, ones, cr, lf]) = line.first_chunk() {
        let word = u32::from_le_bytes([first, tens, ones, cr]);
        let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
        if word & 0xFFFF_00FF == u32::from_le_bytes([tag, 0, b'\r', b'\n']) && tens <= 9 {
            return Some((usize::from(tens), from + 4));
        }
        if word & 0xFF00_00FF == u32::from_le_bytes([tag, 0, 0, b'\r'])
            && lf == b'\n'
            && tens.wrapping_sub(1) <= 8
            && ones <= 9
        {
            return Some((usize::from(tens) * 10 + usize::from(ones), from + 5));
        }
    }
    quick_digits(line, tag).map(|(value, len)| (value, from + len))
}

/// [`quick_number`] of any length up to [`QUICK_DIGITS`]; answers the number and the line's length.
#[inline(never)]
fn quick_digits(line: &[u8], tag: u8) -> Option<(usize, usize)> {
    let [first, digits @ ..] = line else { return None };
    if *first != tag {
        return None;
    }
    let mut value = 0;
    for (count, &byte) in digits.iter().enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit <= 9 {
            if count == QUICK_DIGITS || (count == 1 && value == 0) {
                return None;
            }
            value = value * 10 + usize::from(digit);
        } else if count > 0 && byte == b'\r' && digits.get(count + 1) == Some(&b'\n') {
            return Some((value, count + 3));
        } else {
            return None;
        }
    }
    None
}

/// A number as Redis reads it: an optional minus, digits without leading zeros, within 64 bits.
fn number(digits: &[u8]) -> Option<i64> {
    let magnitude = digits.strip_prefix(b"-").unwrap_or(digits);
    match magnitude {
        b"0" => return (magnitude.len() == digits.len()).then_some(0),
        [b'1'..=b'9', ..] => {}
        _ => return None,
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests;
