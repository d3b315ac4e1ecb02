//! Words of a line that a person typed: the quoting rules of Redis's inline requests.
//!
//! Words are parted by white space. Inside `"…"` a backslash escapes (`\n \r \t \b \a`, `\xHH`, any
//! other byte itself); inside `'…'` only `\'` does. A closing quote must end the word. Anything
//! else would be a guess, so it is refused whole: no word of a refused line is used.
//!
//! Redis reads the line as a C string and stops at a zero byte; here a zero byte is a byte.

use smallvec::SmallVec;

/// Ranges of words in a text; most requests have few.
pub type Ranges = SmallVec<[(u32, u32); 8]>;

/// A quote was not closed, or its closing quote does not end the word. Nothing of the line is valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unbalanced;

/// Splits `line` (without its line end): appends the words, unescaped, to `text`, and where they
/// lie in it to `ranges`.
///
/// The words together are never longer than the line, so a line under 4 GiB fits the ranges.
pub fn split(line: &[u8], text: &mut Vec<u8>, ranges: &mut Ranges) -> Result<(), Unbalanced> {
    let mut rest = trim_start(line);
    while !rest.is_empty() {
        let start = text.len() as u32;
        rest = trim_start(word(rest, text)?);
        ranges.push((start, text.len() as u32));
    }
    Ok(())
}

/// Appends the word that starts `rest`; answers what follows it.
fn word<'a>(mut rest: &'a [u8], text: &mut Vec<u8>) -> Result<&'a [u8], Unbalanced> {
    while let [byte, after @ ..] = rest {
        match byte {
            b' ' | b'\n' | b'\r' | b'\t' => break,
            b'"' => return closed(double_quoted(after, text)?),
            b'\'' => return closed(single_quoted(after, text)?),
            &plain => text.push(plain),
        }
        rest = after;
    }
    Ok(rest)
}

/// What follows a closing quote must be white space or nothing.
fn closed(rest: &[u8]) -> Result<&[u8], Unbalanced> {
    if rest.first().is_none_or(|&byte| is_space(byte)) { Ok(rest) } else { Err(Unbalanced) }
}

fn double_quoted<'a>(mut rest: &'a [u8], text: &mut Vec<u8>) -> Result<&'a [u8], Unbalanced> {
    loop {
        let (byte, after) = match rest {
            [b'"', after @ ..] => return Ok(after),
            [b'\\', b'x', high, low, after @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                (nibble(*high) << 4 | nibble(*low), after)
            }
            [b'\\', escaped, after @ ..] => (unescape(*escaped), after),
            [byte, after @ ..] => (*byte, after),
            [] => return Err(Unbalanced),
        };
        text.push(byte);
        rest = after;
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], text: &mut Vec<u8>) -> Result<&'a [u8], Unbalanced> {
    loop {
        let (byte, after) = match rest {
            [b'\'', after @ ..] => return Ok(after),
            [b'\\', b'\'', after @ ..] => (b'\'', after),
            [byte, after @ ..] => (*byte, after),
            [] => return Err(Unbalanced),
        };
        text.push(byte);
        rest = after;
    }
}

fn unescape(escaped: u8) -> u8 {
    match escaped {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

fn nibble(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

/// C's `isspace`: unlike Rust's ASCII white space it holds the vertical tab. Such a byte is skipped
/// between words and may follow a closing quote, but it does not end a bare word: Redis is so.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | 0x09..=0x0D)
}

fn trim_start(line: &[u8]) -> &[u8] {
    let blank = line.iter().take_while(|&&byte| is_space(byte)).count();
    &line[blank..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(line: &[u8]) -> Result<Vec<Vec<u8>>, Unbalanced> {
        let (mut text, mut ranges) = (Vec::new(), Ranges::new());
        split(line, &mut text, &mut ranges)?;
        Ok(ranges.iter().map(|&(start, end)| text[start as usize..end as usize].to_vec()).collect())
    }

    #[test]
    fn words_are_parted_by_white_space() {
        assert_eq!(words(b""), Ok(vec![]));
        assert_eq!(words(b" \t\x0b "), Ok(vec![]));
        assert_eq!(words(b"\x0bPING\x0c"), Ok(vec![b"PING\x0c".to_vec()]));
        assert_eq!(words(b"SET  a\tb"), Ok(vec![b"SET".to_vec(), b"a".to_vec(), b"b".to_vec()]));
        assert_eq!(words(b"a\rb"), Ok(vec![b"a".to_vec(), b"b".to_vec()]));
        assert_eq!(words(b"a\0b"), Ok(vec![b"a\0b".to_vec()]));
    }

    #[test]
    fn quotes_unescape_as_in_redis() {
        let all = br#"ECHO "\x41\n\r\t\b\a\\\"\q\xzz""#;
        assert_eq!(words(all).unwrap()[1], b"A\n\r\t\x08\x07\\\"qxzz");
        assert_eq!(words(br"ECHO 'a\'b\n'").unwrap()[1], br"a'b\n");
        assert_eq!(words(br#""" '' """#), Ok(vec![vec![], vec![], vec![]]));
        assert_eq!(words(b"\"a\"\x0b\"b\""), Ok(vec![b"a".to_vec(), b"b".to_vec()]));
        assert_eq!(words(br#"a"b c""#), Ok(vec![b"ab c".to_vec()]));
        assert_eq!(words(br#""\xfF""#), Ok(vec![vec![0xFF]]));
    }

    #[test]
    fn unbalanced_quotes_are_refused() {
        for line in
            [r#""PING"#, "'PING", r#""PING"x"#, "'PING'x", r#"P"IN"G"#, r#"a"b"#, r#""a\"#, "'a\\'"]
        {
            assert_eq!(words(line.as_bytes()), Err(Unbalanced), "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_survive_quoting(bytes: Vec<u8>) {
            let hex: String = bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect();
            prop_assert_eq!(words(format!("\"{hex}\"").as_bytes()), Ok(vec![bytes]));
        }

        #[test]
        fn words_are_no_longer_than_the_line(line in "[a-c \"'\\\\x0-9\\t]{0,40}") {
            let (mut text, mut ranges) = (Vec::new(), Ranges::new());
            let _ = split(line.as_bytes(), &mut text, &mut ranges);
            prop_assert!(text.len() <= line.len());
        }
    }
}
