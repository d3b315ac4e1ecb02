//! Doubles as Redis 7.2 prints them, in `,` replies and in the bulk strings of scores.
//!
//! The digits are the fewest that read back as the same double. Whole numbers up to 2^62 are written
//! out; beyond that, and for fractions, the layout is that of Redis's number printer: plain while
//! few zeros are needed, else scientific with a signed exponent of at least one digit. (Redis 7.0
//! still printed 17 digits: 3.1 came as 3.1000000000000001.)
//!
//! Redis finds the digits by Grisu2, which for about one double in a thousand is a digit longer or
//! ends in another digit than the shortest; both texts read back as the same double.

use std::fmt::Write;

use smallvec::SmallVec;

/// The text of a double; never longer than this in fact.
pub type Text = SmallVec<[u8; 32]>;

/// Above this magnitude Redis no longer prints a whole number as an integer.
const WHOLE_MAX: f64 = (i64::MAX / 2) as f64;

/// The text of `number`.
pub fn text(number: f64) -> Text {
    if number.is_nan() {
        return Text::from_slice(b"nan");
    }
    if number.is_infinite() {
        return Text::from_slice(if number > 0.0 { b"inf" } else { b"-inf" });
    }
    if number == 0.0 {
        return Text::from_slice(if number.is_sign_negative() { b"-0" } else { b"0" });
    }
    if number.abs() <= WHOLE_MAX && number.fract() == 0.0 {
        return Text::from_slice(itoa::Buffer::new().format(number as i64).as_bytes());
    }
    fraction(number)
}

/// The text of a number that is not a plain integer.
fn fraction(number: f64) -> Text {
    let Scientific { digits, exponent } = Scientific::of(number.abs());
    let count = digits.len() as i32;
    // The number is `digits` × 10^shift.
    let shift = exponent - (count - 1);
    let mut text = Text::new();
    if number < 0.0 {
        text.push(b'-');
    }
    if shift >= 0 && exponent < count + 7 {
        text.extend_from_slice(&digits);
        text.resize(text.len() + shift as usize, b'0');
    } else if shift < 0 && (shift > -7 || exponent.abs() < 4) {
        plain(&mut text, &digits, count + shift);
    } else {
        scientific(&mut text, &digits, exponent);
    }
    text
}

/// Writes `digits` with the point after the first `whole` of them, or before them and `-whole` zeros.
fn plain(text: &mut Text, digits: &[u8], whole: i32) {
    if whole > 0 {
        let (front, back) = digits.split_at(whole as usize);
        text.extend_from_slice(front);
        text.push(b'.');
        text.extend_from_slice(back);
    } else {
        text.extend_from_slice(b"0.");
        text.resize(text.len() + -whole as usize, b'0');
        text.extend_from_slice(digits);
    }
}

fn scientific(text: &mut Text, digits: &[u8], exponent: i32) {
    text.push(digits[0]);
    if digits.len() > 1 {
        text.push(b'.');
        text.extend_from_slice(&digits[1..]);
    }
    text.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
    text.extend_from_slice(itoa::Buffer::new().format(exponent.abs()).as_bytes());
}

/// The shortest digits of a positive double, d.ddd × 10^exponent.
struct Scientific {
    digits: SmallVec<[u8; 24]>,
    exponent: i32,
}

impl Scientific {
    fn of(number: f64) -> Scientific {
        let mut written = Written(SmallVec::new());
        // The standard library's form is "d.ddde-7".
        write!(written, "{number:e}").expect("writing to memory");
        let mut digits = written.0;
        let mark = digits.iter().position(|&byte| byte == b'e').expect("an exponent");
        let exponent = std::str::from_utf8(&digits[mark + 1..]).expect("ASCII");
        let exponent = exponent.parse().expect("a small number");
        digits.truncate(mark);
        digits.retain(|byte| *byte != b'.');
        Scientific { digits, exponent }
    }
}

struct Written(SmallVec<[u8; 24]>);

impl Write for Written {
    fn write_str(&mut self, part: &str) -> std::fmt::Result {
        self.0.extend_from_slice(part.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(number: f64) -> String {
        String::from_utf8(text(number).to_vec()).unwrap()
    }

    #[test]
    fn as_redis_prints_them() {
        for (number, expected) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (3.0, "3"),
            (-3.0, "-3"),
            (3.1, "3.1"),
            (-0.5, "-0.5"),
            (std::f64::consts::PI, "3.141592653589793"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1e15, "1000000000000000"),
            (4e18, "4000000000000000000"),
            (4_611_686_018_427_387_904.0, "4611686018427387904"),
            (5e18, "5e+18"),
            (1e20, "1e+20"),
            (12_345_678_901_234_567_000.0, "12345678901234567000"),
            (1.5e300, "1.5e+300"),
            (f64::MAX, "1.7976931348623157e+308"),
            (5e-324, "5e-324"),
            (0.001, "0.001"),
            (0.000001, "0.000001"),
            (1e-7, "1e-7"),
            (1.5e-7, "1.5e-7"),
            (1.2345e-5, "1.2345e-5"),
            (0.0012345678, "0.0012345678"),
            (123.456, "123.456"),
            (f64::NAN, "nan"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(shown(number), expected);
        }
    }

    proptest! {
        #[test]
        fn every_double_reads_back(bits: u64, whole in -1_000_000i64..1_000_000, scale in -20..20i32) {
            for number in [f64::from_bits(bits), whole as f64 * 10f64.powi(scale)] {
                let shown = shown(number);
                prop_assert!(shown.len() <= 26, "{}", shown);
                let back: f64 = shown.parse().unwrap();
                prop_assert!(back == number || number.is_nan());
            }
        }
    }
}
