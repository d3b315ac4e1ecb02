//! Scores and ranges of sorted sets, as clients write them.
//!
//! ```text
//! score    what C's strtod reads: 1.5  -3e2  .5  0x1p3  +inf  -Infinity; no NaN
//! range    5  (5  -inf  +inf          by score; `(` leaves the end itself out
//!          [abc  (abc  -  +           by name, for members of one score
//! ```
//!
//! An end of a range is read with strtod's own laxness, as Redis does: spaces may come before it,
//! nothing at all is zero, and what is too large for a double is infinite.

use std::ops::Range;

use crate::value::fields::Fields;

use super::fault::Fault;

/// An argument that must be a score or a weight.
pub(super) fn double(text: &[u8]) -> Option<f64> {
    strtod(text).filter(|read| read.in_range).map(|read| read.value)
}

/// An argument that must be a score.
pub(super) fn score<'a>(text: &[u8]) -> Result<f64, Fault<'a>> {
    double(text).ok_or(Fault::NotFloat)
}

/// The score as it is kept: Redis keeps no sign of zero in a small set, and here none does.
pub(super) fn kept(score: f64) -> f64 {
    score + 0.0
}

/// What strtod makes of a text.
struct Read {
    value: f64,
    /// Whether the value is neither infinite nor zero unless the text says so.
    in_range: bool,
}

/// Every whole number of so many digits is a double.
const EXACT_DIGITS: usize = 15;

/// Reads all of `text`.
fn strtod(text: &[u8]) -> Option<Read> {
    let (negative, size) = match text.first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let mut read = match size {
        _ if size.eq_ignore_ascii_case(b"inf") || size.eq_ignore_ascii_case(b"infinity") => {
            Read { value: f64::INFINITY, in_range: true }
        }
        [b'0', b'x' | b'X', digits @ ..] => hexadecimal(digits)?,
        _ => decimal(size)?,
    };
    if negative {
        read.value = -read.value;
    }
    Some(read)
}

fn decimal(size: &[u8]) -> Option<Read> {
    // Most scores are whole numbers that a double holds exactly.
    if (1..=EXACT_DIGITS).contains(&size.len()) && size.iter().all(u8::is_ascii_digit) {
        let number = size.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
        return Some(Read { value: number as f64, in_range: true });
    }
    let mantissa_end = size.iter().position(|byte| matches!(byte, b'e' | b'E'));
    let mantissa = &size[..mantissa_end.unwrap_or(size.len())];
    // The standard library reads what C does, and words like `nan` and signs beside: not those.
    let plain = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
    if !mantissa.iter().all(plain) {
        return None;
    }
    let value: f64 = std::str::from_utf8(size).ok()?.parse().ok()?;
    let is_zero = mantissa.iter().all(|byte| matches!(byte, b'0' | b'.'));
    Some(Read { value, in_range: value.is_finite() && (value != 0.0 || is_zero) })
}

/// Reads what follows `0x`: digits with a point, and a power of two.
fn hexadecimal(digits: &[u8]) -> Option<Read> {
    let (mut mantissa, mut power, mut met, mut point) = (0u128, 0i64, false, false);
    let mut rest = digits;
    while let [byte, others @ ..] = rest {
        match (*byte as char).to_digit(16) {
            Some(digit) => {
                met = true;
                if mantissa >> 120 == 0 {
                    mantissa = mantissa << 4 | u128::from(digit);
                    power -= if point { 4 } else { 0 };
                } else {
                    // Beyond any rounding, but not nothing.
                    mantissa |= u128::from(digit != 0);
                    power += if point { 0 } else { 4 };
                }
            }
            None if *byte == b'.' && !point => point = true,
            None => break,
        }
        rest = others;
    }
    if !met {
        return None;
    }
    if let [b'p' | b'P', exponent @ ..] = rest {
        power = power.saturating_add(binary_exponent(exponent)?);
    } else if !rest.is_empty() {
        return None;
    }
    let value = scaled(mantissa, power);
    Some(Read { value, in_range: value.is_finite() && (value != 0.0 || mantissa == 0) })
}

fn binary_exponent(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").or_else(|| text.strip_prefix(b"+")).unwrap_or(text);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // Far beyond any double already.
    let size = digits.iter().fold(0, |sum, d| (sum * 10 + i64::from(d - b'0')).min(1 << 40));
    Some(if text[0] == b'-' { -size } else { size })
}

/// `mantissa · 2^power` as the nearest double, ties to even.
fn scaled(mantissa: u128, power: i64) -> f64 {
    if mantissa == 0 {
        return 0.0;
    }
    let bits = 128 - i64::from(mantissa.leading_zeros());
    // The power of the last bit that a double has room for.
    let last = (bits + power - 53).max(-1_074);
    if last > 1_023 {
        return f64::INFINITY;
    }
    let rounded = match last - power {
        shift @ ..=0 => mantissa << shift.unsigned_abs(),
        shift @ 1..=128 => {
            let (kept, half) = (mantissa.checked_shr(shift as u32), 1u128 << (shift - 1));
            let kept = kept.unwrap_or(0);
            let rest = mantissa & (half | (half - 1));
            kept + u128::from(rest > half || (rest == half && kept & 1 == 1))
        }
        _ => 0,
    };
    // Both steps are exact, for the result is a double.
    let first = last / 2;
    rounded as f64 * two_to(first) * two_to(last - first)
}

/// Two to the `power`, which is that of a normal double.
fn two_to(power: i64) -> f64 {
    f64::from_bits(((power + 1_023) as u64) << 52)
}

/// From a score to a score.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct ScoreRange {
    min: ScoreEnd,
    max: ScoreEnd,
}

#[derive(Clone, Copy, PartialEq, Debug)]
struct ScoreEnd {
    score: f64,
    is_out: bool,
}

impl ScoreEnd {
    fn parse(text: &[u8]) -> Option<ScoreEnd> {
        // Redis reads it as a string of C, which ends before a zero byte.
        let text = &text[..memchr::memchr(0, text).unwrap_or(text.len())];
        let is_out = text.first() == Some(&b'(');
        let number = if is_out { &text[1..] } else { text };
        if number.is_empty() {
            return Some(ScoreEnd { score: 0.0, is_out });
        }
        let is_space = |byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r');
        let start = number.iter().position(|byte| !is_space(byte))?;
        Some(ScoreEnd { score: strtod(&number[start..])?.value, is_out })
    }
}

impl ScoreRange {
    /// The range between two arguments.
    pub(super) fn parse<'a>(min: &[u8], max: &[u8]) -> Result<ScoreRange, Fault<'a>> {
        let ends = ScoreEnd::parse(min).zip(ScoreEnd::parse(max));
        ends.map(|(min, max)| ScoreRange { min, max }).ok_or(Fault::ScoreRange)
    }

    /// The places of the members in it.
    pub(super) fn places(&self, fields: &Fields<'_>) -> Range<usize> {
        let start = fields.count_below(self.min.score, self.min.is_out);
        let end = fields.count_below(self.max.score, !self.max.is_out);
        start..end.max(start)
    }
}

/// From a name to a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LexRange<'a> {
    min: LexEnd<'a>,
    max: LexEnd<'a>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum LexEnd<'a> {
    First,
    Last,
    At { name: &'a [u8], is_out: bool },
}

impl<'a> LexEnd<'a> {
    fn parse(text: &'a [u8]) -> Option<LexEnd<'a>> {
        let (kind, name) = text.split_first()?;
        // A string of C would end here.
        let ends = name.first().is_none_or(|byte| *byte == 0);
        match kind {
            b'-' if ends => Some(LexEnd::First),
            b'+' if ends => Some(LexEnd::Last),
            b'[' => Some(LexEnd::At { name, is_out: false }),
            b'(' => Some(LexEnd::At { name, is_out: true }),
            _ => None,
        }
    }

    /// How many members come before this end; of those of its name, if `with_equal`.
    fn count(self, fields: &Fields<'_>, with_equal: impl Fn(bool) -> bool) -> usize {
        match self {
            LexEnd::First => 0,
            LexEnd::Last => fields.len(),
            LexEnd::At { name, is_out } => fields.count_before(name, with_equal(is_out)),
        }
    }
}

impl<'a> LexRange<'a> {
    /// The range between two arguments.
    pub(super) fn parse(min: &'a [u8], max: &'a [u8]) -> Result<LexRange<'a>, Fault<'a>> {
        let ends = LexEnd::parse(min).zip(LexEnd::parse(max));
        ends.map(|(min, max)| LexRange { min, max }).ok_or(Fault::LexRange)
    }

    /// The places of the members in it.
    pub(super) fn places(&self, fields: &Fields<'_>) -> Range<usize> {
        let start = self.min.count(fields, |is_out| is_out);
        let end = self.max.count(fields, |is_out| !is_out);
        start..end.max(start)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn scores_are_read_as_c_reads_them() {
        let good = [
            ("1", 1.0),
            ("+5", 5.0),
            ("-2.5e-1", -0.25),
            ("1.", 1.0),
            (".5", 0.5),
            ("007", 7.0),
            ("0e9999", 0.0),
            ("inf", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
            ("0x10", 16.0),
            ("0X.8", 0.5),
            ("-0x1p3", -8.0),
            ("0x1.fffffffffffff8p0", 2.0),
            ("0x1.fffffffffffff4p0", 2.0 - f64::EPSILON),
            ("0x1p-1074", 5e-324),
            ("0x3p-1075", 1e-323),
            ("0x1.fffffffffffffp1023", f64::MAX),
            ("0x00000000000000000000000000000000000000001", 1.0),
            ("0x80000000000000000000000000000000000000000p-163", 1.0),
            ("0x0p99999999999999999999", 0.0),
            ("4.9e-324", 5e-324),
        ];
        for (text, value) in good {
            assert_eq!(double(text.as_bytes()), Some(value), "{text}");
        }
        let bad = "|nan|-nan|nan(1)| 1|1 |.|-|+|1e|1e+|e5|0x|0x.|0x1p|0x1px|1_0|0b1|infx|--1|+-1|1.2.3\
                   |1e400|-1e400|1e-400|2e-324|0x1p1024|0x1.fffffffffffff8p1023|0x1p-1075|0x1p-99999";
        for text in bad.split('|') {
            assert_eq!(double(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(double(b"1\0"), None);
    }

    #[test]
    fn ends_of_ranges_are_read_laxly() {
        let end = |text: &str| ScoreEnd::parse(text.as_bytes()).map(|end| (end.score, end.is_out));
        assert_eq!(end("(1"), Some((1.0, true)));
        assert_eq!(end(""), Some((0.0, false)));
        assert_eq!(end("("), Some((0.0, true)));
        assert_eq!(end("\t 1.5"), Some((1.5, false)));
        assert_eq!(end("1\0x"), Some((1.0, false)));
        assert_eq!(end("1e400"), Some((f64::INFINITY, false)));
        assert_eq!(end("(-inf"), Some((f64::NEG_INFINITY, true)));
        for bad in [" ", "( ", "1 ", "((1", "[1", "nan", "x"] {
            assert_eq!(end(bad), None, "{bad:?}");
        }
        for (text, expected) in [
            ("-", Some(LexEnd::First)),
            ("+", Some(LexEnd::Last)),
            ("+\0x", Some(LexEnd::Last)),
            ("[", Some(LexEnd::At { name: b"", is_out: false })),
            ("(a", Some(LexEnd::At { name: b"a", is_out: true })),
            ("", None),
            ("a", None),
            ("-a", None),
        ] {
            assert_eq!(LexEnd::parse(text.as_bytes()), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_double_reads_back(bits: u64) {
            let number = f64::from_bits(bits);
            let (sign, size) = (if number < 0.0 { "-" } else { "" }, bits & (u64::MAX >> 1));
            let (power, fraction) = ((size >> 52) as i64, size & ((1 << 52) - 1));
            let mantissa = if power == 0 { fraction } else { fraction | 1 << 52 };
            let hex = format!("{sign}0x{mantissa:x}p{}", power.max(1) - 1_075);
            let expected = number.is_finite().then_some(number);
            prop_assert_eq!(double(number.to_string().as_bytes()).filter(|read| read.is_finite()), expected);
            if number.is_finite() {
                prop_assert_eq!(double(hex.as_bytes()), expected);
            }
        }

        #[test]
        fn hexadecimals_round_as_the_hardware_does(mantissa in 1u64.., zeros in 0..40usize) {
            let text = format!("0x{mantissa:x}{}p-{}", "0".repeat(zeros), 4 * zeros);
            prop_assert_eq!(double(text.as_bytes()), Some(mantissa as f64));
        }

        #[test]
        fn garbage_is_refused_without_panic(text: Vec<u8>) {
            let _ = (double(&text), ScoreEnd::parse(&text), LexEnd::parse(&text));
        }
    }
}
