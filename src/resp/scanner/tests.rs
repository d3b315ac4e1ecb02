//! The scanner against hand-copied answers of redis-server, an oracle, and hostile bytes.

use proptest::prelude::*;
use redis_protocol::resp2::decode::decode_range;
use redis_protocol::resp2::types::RangeFrame;

use super::*;

type Request = Vec<Vec<u8>>;

/// A connection: what a session does with a scanner, and nothing else.
struct Connection {
    scanner: Scanner,
    limits: Limits,
    buffer: Vec<u8>,
    requests: Vec<Request>,
}

impl Connection {
    fn new(limits: Limits) -> Connection {
        Connection { scanner: Scanner::new(), limits, buffer: Vec::new(), requests: Vec::new() }
    }

    fn receive(&mut self, piece: &[u8]) -> Result<(), ProtocolError> {
        self.buffer.extend_from_slice(piece);
        while let Some(consumed) = self.scanner.scan(&self.buffer, &self.limits)? {
            let arguments = self.scanner.arguments().slices(&self.buffer);
            if !arguments.is_empty() {
                self.requests.push(arguments.iter().map(|argument| argument.to_vec()).collect());
            }
            drop(arguments);
            assert!(consumed > 0 && consumed <= self.buffer.len());
            self.buffer.drain(..consumed);
        }
        Ok(())
    }
}

/// The requests in `bytes`, received at once and byte by byte, which must not differ.
fn scan_all(bytes: &[u8], limits: Limits) -> Result<Vec<Request>, ProtocolError> {
    let mut whole = Connection::new(limits);
    let answer = whole.receive(bytes);
    let mut cut = Connection::new(limits);
    let cut_answer = bytes.chunks(1).try_for_each(|piece| cut.receive(piece));
    assert_eq!(answer, cut_answer);
    assert_eq!(whole.requests, cut.requests);
    answer.map(|()| whole.requests)
}

fn requests(bytes: &[u8]) -> Vec<Request> {
    scan_all(bytes, Limits::default()).unwrap()
}

fn error(bytes: &[u8]) -> String {
    scan_all(bytes, Limits::default()).unwrap_err().to_string()
}

fn words(text: &str) -> Request {
    text.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

fn encode(request: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", request.len()).into_bytes();
    for argument in request {
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

#[test]
fn requests_of_both_kinds_in_one_read() {
    let stream = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\nGET k\r\n  \r\n\n*0\r\n*-1\r\n*-5\r\nPING\n*1\r\n$4\r\nPI\r\n\r\n";
    assert_eq!(
        requests(stream),
        vec![
            vec![b"SET".to_vec(), b"k".to_vec(), vec![]],
            words("GET k"),
            words("PING"),
            vec![b"PI\r\n".to_vec()],
        ]
    );
}

#[test]
fn a_blank_request_is_complete_and_empty() {
    for blank in ["\r\n", "\n", " \t\r\n", "*0\r\n", "*-1\r\n", "*-9223372036854775808\r\n"] {
        let mut scanner = Scanner::new();
        let answer = scanner.scan(blank.as_bytes(), &Limits::default());
        assert_eq!(answer, Ok(Some(blank.len())), "{blank:?}");
        assert!(scanner.arguments().is_empty());
    }
}

#[test]
fn ranges_point_into_the_source() {
    let mut scanner = Scanner::new();
    let buffer = b"*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\nrest";
    assert_eq!(scanner.scan(buffer, &Limits::default()), Ok(Some(22)));
    assert_eq!(scanner.arguments().ranges().collect::<Vec<_>>(), vec![8..12, 18..20]);
    let buffer = b"ECHO \"hi\"\r\n";
    assert_eq!(scanner.scan(buffer, &Limits::default()), Ok(Some(11)));
    assert_eq!(scanner.arguments().ranges().collect::<Vec<_>>(), vec![0..4, 4..6]);
    assert_eq!(scanner.arguments().source(buffer), b"ECHOhi");
}

/// Each answer was copied from a redis-server that was sent the bytes on its left.
#[test]
fn errors_are_worded_as_by_redis() {
    let count = "ERR Protocol error: invalid multibulk length";
    let length = "ERR Protocol error: invalid bulk length";
    let quotes = "ERR Protocol error: unbalanced quotes in request";
    for (bytes, answer) in [
        ("*1\r\nPING\r\n", "ERR Protocol error: expected '$', got 'P'"),
        ("*1\r\n*1\r\n$1\r\nx\r\n", "ERR Protocol error: expected '$', got '*'"),
        ("*01\r\n", count),
        ("*+1\r\n", count),
        ("*\r\n", count),
        ("*-\r\n", count),
        ("*-0\r\n", count),
        ("* 1\r\n", count),
        ("*1 \r\n", count),
        ("*2147483648\r\n", count),
        ("*9223372036854775808\r\n", count),
        ("*-9223372036854775809\r\n", count),
        ("*1\r\n$-1\r\n", length),
        ("*1\r\n$01\r\n", length),
        ("*1\r\n$\r\n", length),
        ("*1\r\n$+4\r\nPING\r\n", length),
        ("*1\r\n$4x\r\n", length),
        ("*1\r\n$536870913\r\n", length),
        ("*1\r\n$99999999999999999999\r\n", length),
        ("\"PING\r\n", quotes),
        ("'PING'x\r\n", quotes),
        ("P\"IN\"G\r\n", quotes),
    ] {
        assert_eq!(error(bytes.as_bytes()), answer, "{bytes:?}");
    }
    let long = "1".repeat(70_000);
    for (head, answer) in [
        ("", "ERR Protocol error: too big inline request"),
        ("*", "ERR Protocol error: too big mbulk count string"),
        ("*1\r\n$", "ERR Protocol error: too big bulk count string"),
        ("*1\r\n", "ERR Protocol error: too big bulk count string"),
    ] {
        assert_eq!(error(format!("{head}{long}").as_bytes()), answer);
    }
}

#[test]
fn the_offending_byte_is_answered_raw_but_for_line_ends() {
    for (byte, shown) in [(b'\xFF', b'\xFF'), (b'\n', b' '), (b'\r', b' '), (0, 0)] {
        let bytes = [b"*1\r\n".as_slice(), &[byte], b"\r\n"].concat();
        let mut reply = Reply::default();
        scan_all(&bytes, Limits::default()).unwrap_err().reply(&mut reply);
        let answer = [b"-ERR Protocol error: expected '$', got '".as_slice(), &[shown], b"'\r\n"];
        assert_eq!(reply.bytes, answer.concat());
    }
}

#[test]
fn stricter_than_redis() {
    let end = "ERR Protocol error: expected CRLF after bulk";
    assert_eq!(error(b"*1\r\n$4\r\nPINGxx"), end);
    assert_eq!(error(b"*1\r\n$4\r\nPING\rx"), end);
    assert_eq!(error(b"*1\r\n$3\r\nPING\r\n"), end);
    assert_eq!(error(b"*1\rx"), "ERR Protocol error: invalid multibulk length");
    assert_eq!(error(b"*1\r\n$4\rxPING\r\n"), "ERR Protocol error: invalid bulk length");
    assert_eq!(error(b"*1048577\r\n"), "ERR Protocol error: invalid multibulk length");
}

#[test]
fn strangers_get_little() {
    let stranger = Limits::unauthenticated();
    let ten: Request = vec![vec![b'x'; 16 << 10]; 10];
    assert_eq!(scan_all(&encode(&ten), stranger), Ok(vec![ten]));
    for (bytes, answer) in [
        ("*11\r\n", "ERR Protocol error: unauthenticated multibulk length"),
        ("*2147483648\r\n", "ERR Protocol error: invalid multibulk length"),
        ("*1\r\n$16385\r\n", "ERR Protocol error: unauthenticated bulk length"),
        ("*1\r\n$536870913\r\n", "ERR Protocol error: invalid bulk length"),
    ] {
        assert_eq!(scan_all(bytes.as_bytes(), stranger).unwrap_err().to_string(), answer);
    }
}

#[test]
fn limits_are_exact_however_bytes_are_cut() {
    let limits = Limits { arguments: 3, bulk: 5, inline: 8, request: 36, ..Limits::default() };
    let refused = |bytes: &str| scan_all(bytes.as_bytes(), limits).unwrap_err();
    assert!(scan_all(b"12345678\r\n12345678\n", limits).is_ok());
    assert_eq!(refused("123456789\r\n"), ProtocolError::InlineLine);
    assert_eq!(refused("12345678\r9\n"), ProtocolError::InlineLine);
    assert!(scan_all(b"*3\r\n$5\r\nabcde\r\n$5\r\nabcde\r\n$3\r\nabc\r\n", limits).is_ok());
    assert_eq!(refused("*4\r\n"), ProtocolError::Count);
    assert_eq!(refused("*1\r\n$6\r\n"), ProtocolError::BulkLength);
    assert_eq!(refused("*3\r\n$5\r\nabcde\r\n$5\r\nabcde\r\n$5\r\n"), ProtocolError::Request);
    let none = Limits { request: 0, ..limits };
    assert_eq!(scan_all(b"*1\r\n$0\r\n", none), Err(ProtocolError::Request));
}

#[test]
fn a_lowered_bulk_limit_spares_the_argument_under_way() {
    let mut connection = Connection::new(Limits::default());
    connection.receive(b"*2\r\n$4\r\nEC").unwrap();
    connection.limits.bulk = 3;
    connection.receive(b"HO\r\n$3\r\nabc\r\n").unwrap();
    assert_eq!(connection.requests, vec![words("ECHO abc")]);
}

#[test]
fn needed_is_a_hint_that_does_not_believe_claims() {
    let mut scanner = Scanner::new();
    let head = b"*2\r\n$3\r\nGET\r\n$100\r\n";
    assert_eq!(scanner.needed(0), 0);
    assert_eq!(scanner.scan(head, &Limits::default()), Ok(None));
    assert_eq!(scanner.needed(head.len()), 102);
    assert_eq!(scanner.needed(head.len() + 102), 0);

    let mut scanner = Scanner::new();
    let head = b"*1\r\n$500000000\r\n";
    assert_eq!(scanner.scan(head, &Limits::default()), Ok(None));
    assert_eq!(scanner.needed(head.len()), 64 << 10);
    assert_eq!(scanner.needed(10_000_000), 10_000_000);
    assert_eq!(scanner.needed(499_999_999), 19);
}

/// Linear: after every piece only the one argument that is cut lies behind, so no byte is looked at
/// more than a few times.
#[test]
fn a_million_arguments_in_pieces() {
    const COUNT: usize = 1_000_000;
    let mut bytes = format!("*{COUNT}\r\n").into_bytes();
    for index in 0..COUNT {
        let digits = index.to_string();
        bytes.extend_from_slice(format!("${}\r\n{digits}\r\n", digits.len()).as_bytes());
    }
    let (mut scanner, limits) = (Scanner::new(), Limits::default());
    let mut received = 0;
    let consumed = loop {
        received = (received + (16 << 10)).min(bytes.len());
        match scanner.scan(&bytes[..received], &limits).unwrap() {
            Some(consumed) => break consumed,
            None => assert!(received - scanner.position < 16, "scans again from far behind"),
        }
    };
    assert_eq!(consumed, bytes.len());
    let arguments = scanner.arguments().slices(&bytes);
    assert_eq!(arguments.len(), COUNT);
    assert_eq!(arguments[COUNT - 1], b"999999");
    drop(arguments);
    scanner.scan(b"", &limits).unwrap();
    assert!(scanner.arguments.ranges.capacity() <= KEPT_MAX, "a long request keeps its memory");
}

#[test]
fn no_line_is_searched_twice() {
    for head in ["", "*", "*1\r\n$"] {
        let (mut scanner, limits) = (Scanner::new(), Limits::default());
        let mut buffer = head.as_bytes().to_vec();
        for _ in 0..60_000 {
            buffer.push(b'7');
            assert_eq!(scanner.scan(&buffer, &limits), Ok(None));
            assert!(buffer.len() < head.len() + 10 || scanner.searched == buffer.len());
        }
    }
}

/// A client that never finishes: the scanner ends it before buffer or ranges outgrow the limits.
#[test]
fn half_frames_for_ever_stay_bounded() {
    let limits = Limits { request: 1 << 20, ..Limits::default() };
    for (head, body) in [
        ("", "x"),
        ("", "\"x\" "),
        ("*", "1"),
        ("*-", "0"),
        ("*1\r\n", "x"),
        ("*1\r\n$", "4"),
        ("*1048576\r\n", "$0\r\n\r\n"),
        ("*1048576\r\n", "$5\r\nabcde\r\n"),
        ("*1048576\r\n$500000\r\n", "x"),
        ("", "\r\n"),
        ("", "*0\r\n"),
        ("", "\r"),
    ] {
        let mut connection = Connection::new(limits);
        connection.receive(head.as_bytes()).unwrap();
        let piece = body.repeat((16 << 10) / body.len());
        let ended = (0..100).any(|_| {
            let ended = connection.receive(piece.as_bytes()).is_err();
            assert!(connection.buffer.len() <= limits.request + limits.inline + piece.len());
            assert!(connection.scanner.arguments.ranges.capacity() <= 1 << 18);
            ended
        });
        assert!(ended || connection.buffer.len() < 4, "{head:?} {body:?} goes on for ever");
    }
}

fn any_request() -> impl Strategy<Value = Request> {
    let argument = prop_oneof![
        6 => prop::collection::vec(any::<u8>(), 0..12),
        2 => prop::collection::vec(prop::sample::select(b"\r\n*$-0123456789".to_vec()), 0..12),
        1 => prop::collection::vec(any::<u8>(), 95..1030),
    ];
    prop::collection::vec(argument, 1..6)
}

/// A request in one of its spellings, blank ones before it.
fn any_spelling() -> impl Strategy<Value = (Vec<u8>, Request)> {
    let blank = prop::sample::select(vec!["", "\r\n", "\n", " \r\n", "*0\r\n", "*-1\r\n"]);
    (blank, any_request(), 0..3u8).prop_map(|(blank, request, spelling)| {
        let mut bytes = blank.as_bytes().to_vec();
        if spelling == 0 {
            for argument in &request {
                bytes.extend_from_slice(b" \"");
                argument.iter().for_each(|byte| bytes.extend(format!("\\x{byte:02X}").bytes()));
                bytes.push(b'"');
            }
            bytes.extend_from_slice(if request.len() % 2 == 0 {
                b"\r\n".as_slice()
            } else {
                b"\n"
            });
        } else {
            bytes.extend(encode(&request));
        }
        (bytes, request)
    })
}

/// What the oracle makes of the frame at the front of `bytes`, if it is whole and a flat array of
/// bulk strings (or blank).
fn oracle(bytes: &[u8]) -> Option<(Request, usize)> {
    let (frame, consumed) = decode_range(bytes).ok()??;
    let arguments = match frame {
        RangeFrame::Null => return Some((vec![], consumed)),
        RangeFrame::Array(items) => items,
        _ => return None,
    };
    let arguments = arguments.into_iter().map(|item| match item {
        RangeFrame::BulkString((start, end)) => Some(bytes[start..end].to_vec()),
        _ => None,
    });
    Some((arguments.collect::<Option<_>>()?, consumed))
}

/// Scanner and oracle must read `bytes` alike. The scanner may only be stricter, and not on a frame
/// that is spelled canonically.
fn compare_with_oracle(bytes: &[u8]) {
    if bytes.first() != Some(&b'*') {
        return;
    }
    let mut scanner = Scanner::new();
    let answer = scanner.scan(bytes, &Limits::default());
    let expected = oracle(bytes);
    if let Ok(Some(consumed)) = answer {
        let request = scanner.arguments().slices(bytes).iter().map(|part| part.to_vec()).collect();
        let negative = bytes.starts_with(b"*-");
        assert!(negative || expected == Some((request, consumed)), "{}", bytes.escape_ascii());
    } else if let Some((request, consumed)) = expected {
        assert_ne!(bytes[..consumed], encode(&request), "refused: {answer:?}");
    }
}

fn mutate(bytes: &mut Vec<u8>, kind: u8, at: usize, byte: u8) {
    let at = at % (bytes.len() + 1);
    match kind % 4 {
        0 => bytes.insert(at, byte),
        1 => bytes.truncate(at),
        _ if at == bytes.len() => bytes.push(byte),
        2 => bytes[at] = byte,
        _ => drop(bytes.remove(at)),
    }
}

proptest! {
    #[test]
    fn cuts_do_not_matter(
        stream in prop::collection::vec(any_spelling(), 0..8),
        cuts in prop::collection::vec(1..40usize, 1..20),
    ) {
        let bytes: Vec<u8> = stream.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
        let expected: Vec<Request> = stream.into_iter().map(|(_, request)| request).collect();
        let mut connection = Connection::new(Limits::default());
        let (mut rest, mut sizes) = (&bytes[..], cuts.iter().cycle());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
            connection.receive(piece).unwrap();
            rest = after;
        }
        prop_assert!(connection.buffer.is_empty());
        prop_assert_eq!(connection.requests, expected);
    }

    #[test]
    fn valid_requests_are_read_as_by_the_oracle(request in any_request(), more: Vec<u8>) {
        let mut bytes = encode(&request);
        let len = bytes.len();
        bytes.extend(more);
        prop_assert_eq!(oracle(&bytes), Some((request, len)));
        compare_with_oracle(&bytes);
    }

    #[test]
    fn mutated_requests_are_never_read_differently(
        request in any_request(),
        mutations in prop::collection::vec((any::<u8>(), any::<usize>(), any_byte()), 1..4),
    ) {
        let mut bytes = encode(&request);
        mutations.into_iter().for_each(|(kind, at, byte)| mutate(&mut bytes, kind, at, byte));
        compare_with_oracle(&bytes);
    }
}

fn any_byte() -> impl Strategy<Value = u8> {
    prop_oneof![prop::sample::select(b"\r\n*$-0123456789".to_vec()), any::<u8>()]
}

/// A seeded storm of spoiled streams in random pieces: no panic, bounded memory, and what a cut
/// stream answers is what the whole one answers.
#[test]
fn fuzz_seeded() {
    let mut random = fastrand::Rng::with_seed(17);
    let limits = Limits { arguments: 50, bulk: 300, inline: 64, request: 600, ..Limits::default() };
    let alphabet = b"\r\n\r\n*$-0123456789 \"'\\xab\0\xFF";
    for _ in 0..20_000 {
        let mut bytes = Vec::new();
        for _ in 0..random.usize(1..4) {
            let request: Request = (0..random.usize(1..5))
                .map(|_| {
                    (0..random.usize(0..20)).map(|_| *random.choice(alphabet).unwrap()).collect()
                })
                .collect();
            bytes.extend(encode(&request));
        }
        for _ in 0..random.usize(0..6) {
            let byte = *random.choice(alphabet).unwrap();
            mutate(&mut bytes, random.u8(..), random.usize(..), byte);
        }
        compare_with_oracle(&bytes);
        let mut whole = Connection::new(limits);
        let answer = whole.receive(&bytes);
        let mut cut = Connection::new(limits);
        let mut rest = &bytes[..];
        let mut cut_answer = Ok(());
        while !rest.is_empty() && cut_answer.is_ok() {
            let (piece, after) = rest.split_at(random.usize(1..=rest.len()));
            cut_answer = cut.receive(piece);
            assert!(cut.scanner.arguments.ranges.capacity() <= 64);
            assert!(cut.scanner.arguments.text.capacity() <= 128);
            rest = after;
        }
        assert_eq!(
            (answer, whole.requests),
            (cut_answer, cut.requests),
            "{}",
            bytes.escape_ascii()
        );
    }
}
