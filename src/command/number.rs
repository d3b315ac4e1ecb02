//! Reading arguments: integers, counts of seconds, option words.
//!
//! Redis accepts an integer only in the one form it would print: no `+`, no leading zero, no
//! `-0`, no space. That is what makes "is this string an integer" the same question everywhere.

use crate::base::limits::VALUE_SIZE_MAX;

use super::fault::Fault;

/// Whether an argument is this option word, in any case.
pub fn is(argument: &[u8], word: &str) -> bool {
    argument.eq_ignore_ascii_case(word.as_bytes())
}

/// Reads a 64-bit integer in its plainest form; `None` for any other bytes.
pub fn plain_integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text.split_first()? {
        (b'-', digits) => (true, digits),
        _ => (false, text),
    };
    match digits {
        b"0" => return (!negative).then_some(0),
        [b'1'..=b'9', ..] => {}
        _ => return None,
    }
    // Counted downwards, because i64::MIN has no opposite.
    let mut number: i64 = 0;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        number = number.checked_mul(10)?.checked_sub(i64::from(digit - b'0'))?;
    }
    if negative { Some(number) } else { number.checked_neg() }
}

/// An argument or value that must be an integer.
pub fn integer<'a>(text: &[u8]) -> Result<i64, Fault<'a>> {
    plain_integer(text).ok_or(Fault::NotInteger)
}

/// An argument that must fit a C `int`.
pub fn int<'a>(text: &[u8]) -> Result<i32, Fault<'a>> {
    i32::try_from(integer(text)?).map_err(|_| Fault::NotInt)
}

/// The length of a string made of two pieces, which must be allowed.
pub fn grown_len<'a>(len: usize, more: usize) -> Result<usize, Fault<'a>> {
    len.checked_add(more).filter(|&sum| sum <= VALUE_SIZE_MAX).ok_or(Fault::TooLong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_plainest_form_is_an_integer() {
        for text in [
            "",
            "-",
            "+1",
            "01",
            "-0",
            "-01",
            " 1",
            "1 ",
            "1.0",
            "1e3",
            "9223372036854775808",
            "--1",
            "0x1",
            "1\0",
        ] {
            assert_eq!(plain_integer(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(plain_integer(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(plain_integer(b"-9223372036854775809"), None);
    }

    proptest! {
        #[test]
        fn integers_read_back(number: i64) {
            prop_assert_eq!(plain_integer(number.to_string().as_bytes()), Some(number));
        }

        #[test]
        fn what_reads_prints_the_same(text in "[-+ 0-9]{0,21}") {
            if let Some(number) = plain_integer(text.as_bytes()) {
                prop_assert_eq!(number.to_string(), text);
            }
        }
    }
}
