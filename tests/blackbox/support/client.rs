//! A blocking RESP client, strict about what it is told: it is a judge, not a guest.
//!
//! Every reply must be well formed to the last CRLF; whatever is not ends in an
//! `InvalidData` error, never in a guess. RESP2 and RESP3 are read by the same decoder, and the
//! two kinds of "nothing" stay apart (`$-1`, `*-1`, `_`), since a client library tells them apart.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Deepest nesting that a reply of ours could honestly have.
const DEPTH_MAX: usize = 16;

/// One reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Value {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    /// RESP2's `$-1`.
    Nil,
    /// RESP2's `*-1`.
    NilArray,
    /// RESP3's `_`.
    Null,
    Array(Vec<Value>),
    Map(Vec<(Value, Value)>),
    Set(Vec<Value>),
    Push(Vec<Value>),
    /// As text: shortest forms are compared as they were sent.
    Double(String),
    Boolean(bool),
    BigNumber(String),
    Verbatim(Vec<u8>),
}

impl Value {
    pub(crate) fn ok() -> Value {
        Value::Simple("OK".to_owned())
    }

    pub(crate) fn bulk(bytes: impl AsRef<[u8]>) -> Value {
        Value::Bulk(bytes.as_ref().to_vec())
    }

    /// Whether this says "no such thing" in any dialect.
    pub(crate) fn is_nothing(&self) -> bool {
        matches!(self, Value::Nil | Value::NilArray | Value::Null)
    }

    /// The code of an error reply: `NOQUORUM` of `-NOQUORUM …`.
    pub(crate) fn error_code(&self) -> Option<&str> {
        match self {
            Value::Error(text) => text.split(' ').next(),
            _ => None,
        }
    }

    /// Whether this is an error that promises that nothing was done.
    pub(crate) fn is_refusal(&self) -> bool {
        let promises = ["NOQUORUM", "CLUSTERDOWN", "TRYAGAIN", "LOADING", "MISCONF", "OOM"];
        self.error_code().is_some_and(|code| promises.contains(&code))
    }

    /// All the text in it, for looking a word up in a reply whose shape is free.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        for line in self.lines() {
            let _ = writeln!(out, "{}", line.trim_start());
        }
        out
    }

    /// The last string in it.
    pub(crate) fn last_string<'a>(&'a self) -> Option<&'a [u8]> {
        match self {
            Value::Bulk(bytes) | Value::Verbatim(bytes) => Some(bytes),
            Value::Array(items) | Value::Set(items) | Value::Push(items) => {
                items.iter().rev().find_map(Value::last_string)
            }
            Value::Map(pairs) => {
                let of =
                    |(key, value): &'a (Value, Value)| value.last_string().or(key.last_string());
                pairs.iter().rev().find_map(of)
            }
            _ => None,
        }
    }

    /// The reply in the notation of transcripts, a line for every value, children indented.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.push_lines(0, &mut out);
        out
    }

    fn push_lines(&self, depth: usize, out: &mut Vec<String>) {
        let head = match self {
            Value::Simple(text) => format!("+{text}"),
            Value::Error(text) => format!("-{text}"),
            Value::Integer(number) => format!(":{number}"),
            Value::Bulk(bytes) => quoted(bytes),
            Value::Nil => "nil".to_owned(),
            Value::NilArray => "nil-array".to_owned(),
            Value::Null => "null".to_owned(),
            Value::Array(items) => format!("*{}", items.len()),
            Value::Map(pairs) => format!("%{}", pairs.len()),
            Value::Set(items) => format!("~{}", items.len()),
            Value::Push(items) => format!("push {}", items.len()),
            Value::Double(text) => format!(",{text}"),
            Value::Boolean(yes) => format!("#{}", if *yes { 't' } else { 'f' }),
            Value::BigNumber(text) => format!("({text}"),
            Value::Verbatim(bytes) => format!("={}", quoted(bytes)),
        };
        out.push(format!("{:1$}{head}", "", depth * 2));
        match self {
            Value::Array(items) | Value::Set(items) | Value::Push(items) => {
                items.iter().for_each(|item| item.push_lines(depth + 1, out));
            }
            Value::Map(pairs) => pairs.iter().for_each(|(key, value)| {
                key.push_lines(depth + 1, out);
                value.push_lines(depth + 1, out);
            }),
            _ => {}
        }
    }
}

/// `bytes` in double quotes, with everything that is not printable ASCII escaped.
pub(crate) fn quoted(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => {
                out.push('\\');
                out.push(byte as char);
            }
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            0x20..=0x7e => out.push(byte as char),
            _ => {
                let _ = write!(out, "\\x{byte:02x}");
            }
        }
    }
    out.push('"');
    out
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    replies: BufReader<TcpStream>,
}

impl Client {
    /// Connects, with ten seconds for every answer.
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Client> {
        Client::connect_within(address, Duration::from_secs(10))
    }

    /// Connects, with `patience` for the connection and for every later read and write.
    pub(crate) fn connect_within(address: SocketAddr, patience: Duration) -> io::Result<Client> {
        let stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let replies = BufReader::with_capacity(64 << 10, stream.try_clone()?);
        Ok(Client { stream, replies })
    }

    /// Sends one command and awaits its reply.
    pub(crate) fn call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> io::Result<Value> {
        self.send(args)?;
        self.receive()
    }

    /// Sends one command, given as words.
    pub(crate) fn say(&mut self, words: &str) -> io::Result<Value> {
        self.call(&words.split_ascii_whitespace().collect::<Vec<_>>())
    }

    /// Sends one command; its reply stays owed.
    pub(crate) fn send<A: AsRef<[u8]>>(&mut self, args: &[A]) -> io::Result<()> {
        let mut bytes = Vec::new();
        encode(args, &mut bytes);
        self.send_raw(&bytes)
    }

    /// Sends many commands, a hundred at a time, and answers their replies.
    pub(crate) fn pipeline<A: AsRef<[u8]>>(
        &mut self,
        commands: impl IntoIterator<Item = Vec<A>>,
    ) -> io::Result<Vec<Value>> {
        let mut replies = Vec::new();
        let mut commands = commands.into_iter().peekable();
        while commands.peek().is_some() {
            let (mut bytes, mut owed) = (Vec::new(), 0);
            for args in commands.by_ref().take(100) {
                encode(&args, &mut bytes);
                owed += 1;
            }
            self.send_raw(&bytes)?;
            for _ in 0..owed {
                replies.push(self.receive()?);
            }
        }
        Ok(replies)
    }

    /// The value of a field of `INFO section`; empty if there is none.
    pub(crate) fn info(&mut self, section: &str, field: &str) -> io::Result<String> {
        let text = match self.call(&["INFO", section])? {
            Value::Bulk(bytes) | Value::Verbatim(bytes) => bytes,
            reply => return Err(io::Error::other(format!("INFO: {reply:?}"))),
        };
        let text = String::from_utf8_lossy(&text);
        let of = |line: &str| Some(line.strip_prefix(field)?.strip_prefix(':')?.to_owned());
        Ok(text.lines().find_map(of).unwrap_or_default())
    }

    /// Sends bytes as they are.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Awaits the next reply.
    pub(crate) fn receive(&mut self) -> io::Result<Value> {
        decode(&mut self.replies, 0)
    }

    /// Awaits the end of the connection, and answers what came before it as bytes.
    pub(crate) fn receive_until_closed(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match self.replies.read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            // A peer that closes with unread bytes of ours in its buffer resets the connection.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(bytes),
            Err(error) => Err(error),
        }
    }
}

/// `args` as a request, at the end of `out`.
pub(crate) fn encode<A: AsRef<[u8]>>(args: &[A], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        let arg = arg.as_ref();
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

fn malformed(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

fn line(from: &mut impl BufRead) -> io::Result<String> {
    let mut bytes = Vec::new();
    from.read_until(b'\n', &mut bytes)?;
    if bytes.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let Some(text) = bytes.strip_suffix(b"\r\n") else {
        return Err(malformed(format!("a line without CRLF: {}", quoted(&bytes))));
    };
    if text.contains(&b'\r') {
        return Err(malformed(format!("a stray CR: {}", quoted(&bytes))));
    }
    String::from_utf8(text.to_vec()).map_err(|_| malformed(format!("no UTF-8: {}", quoted(text))))
}

fn number<T: std::str::FromStr>(text: &str) -> io::Result<T> {
    text.parse().map_err(|_| malformed(format!("no number: {text:?}")))
}

fn blob(from: &mut impl BufRead, len: &str) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; number::<usize>(len)? + 2];
    from.read_exact(&mut bytes)?;
    match bytes.split_off(bytes.len() - 2).as_slice() {
        b"\r\n" => Ok(bytes),
        other => Err(malformed(format!("a bulk of {len} bytes ends in {}", quoted(other)))),
    }
}

fn many(from: &mut impl BufRead, len: &str, depth: usize) -> io::Result<Vec<Value>> {
    if depth == DEPTH_MAX {
        return Err(malformed("a reply nested too deep"));
    }
    (0..number::<usize>(len)?).map(|_| decode(from, depth + 1)).collect()
}

fn decode(from: &mut impl BufRead, depth: usize) -> io::Result<Value> {
    let line = line(from)?;
    let Some(tag) = line.chars().next().filter(char::is_ascii) else {
        return Err(malformed(format!("a reply without a type: {line:?}")));
    };
    let rest = &line[1..];
    Ok(match tag {
        '+' => Value::Simple(rest.to_owned()),
        '-' => Value::Error(rest.to_owned()),
        ':' => Value::Integer(number(rest)?),
        '$' if rest == "-1" => Value::Nil,
        '$' => Value::Bulk(blob(from, rest)?),
        '*' if rest == "-1" => Value::NilArray,
        '*' => Value::Array(many(from, rest, depth)?),
        '~' => Value::Set(many(from, rest, depth)?),
        '>' => Value::Push(many(from, rest, depth)?),
        '%' => {
            let twice = (2 * number::<usize>(rest)?).to_string();
            let mut flat = many(from, &twice, depth)?.into_iter();
            let mut pairs = Vec::new();
            while let (Some(key), Some(value)) = (flat.next(), flat.next()) {
                pairs.push((key, value));
            }
            Value::Map(pairs)
        }
        '_' if rest.is_empty() => Value::Null,
        ',' => Value::Double(rest.to_owned()),
        '#' if rest == "t" || rest == "f" => Value::Boolean(rest == "t"),
        '(' => Value::BigNumber(rest.to_owned()),
        '=' => Value::Verbatim(blob(from, rest)?),
        _ => return Err(malformed(format!("no reply begins so: {line:?}"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> io::Result<Value> {
        decode(&mut &bytes[..], 0)
    }

    #[test]
    fn reads_every_kind_of_reply() {
        for (bytes, lines) in [
            ("+OK\r\n", "+OK"),
            ("-ERR no\r\n", "-ERR no"),
            (":-7\r\n", ":-7"),
            ("$3\r\na\"\n\r\n", "\"a\\\"\\n\""),
            ("$-1\r\n", "nil"),
            ("*-1\r\n", "nil-array"),
            ("_\r\n", "null"),
            ("*2\r\n:1\r\n*1\r\n+x\r\n", "*2|  :1|  *1|    +x"),
            ("%2\r\n+a\r\n:1\r\n+b\r\n#t\r\n", "%2|  +a|  :1|  +b|  #t"),
            ("~1\r\n,1.5\r\n", "~1|  ,1.5"),
            ("=5\r\ntxt:a\r\n", "=\"txt:a\""),
        ] {
            assert_eq!(read(bytes.as_bytes()).unwrap().lines().join("|"), lines);
        }
    }

    #[test]
    fn refuses_what_is_not_resp() {
        for bytes in ["+OK\n", "$3\r\nabcd\r\n", "?\r\n", ":x\r\n", "*1\r\n", "\r\n", "#y\r\n"] {
            assert!(read(bytes.as_bytes()).is_err(), "{bytes:?}");
        }
        assert!(read("*1\r\n".repeat(100_000).as_bytes()).is_err());
    }
}
