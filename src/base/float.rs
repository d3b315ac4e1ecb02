//! Wide floats: the arithmetic of `INCRBYFLOAT`, in about 31 decimal digits.
//!
//! Redis counts with 80-bit long doubles and prints 17 decimals of them. Rust has none, and plain
//! doubles show their seams (`0.1` added ten times). A [`Wide`] is an unevaluated sum of two
//! doubles, so it is at least as fine as Redis's long doubles: where those show binary noise
//! (`1000000.1`), this prints the decimal that was meant.
//!
//! Invariant: a finite `Wide` is normalised, that is `hi == hi + lo` in double arithmetic.
//! After Dekker, *A floating-point technique for extending the available precision* (1971), and
//! Hida, Li and Bailey, *Algorithms for quad-double precision* (2001).

use std::fmt;

/// Longest text that is read as a number: Redis's bound for long doubles.
const TEXT_SIZE_MAX: usize = 5 * 1024 - 1;

/// How many significant digits are kept: all that fit `u128` with room for one more.
const SIGNIFICANT_MAX: u32 = 37;

/// Decimals that are printed, as Redis's `%.17Lf`.
const DECIMALS: usize = 17;

/// Decimals that are added before rounding; far more than a `Wide` near 1 can tell apart.
const DECIMALS_ADDED: usize = 40;

/// The unevaluated sum `hi + lo`.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Wide {
    /// The nearest double.
    pub hi: f64,
    /// What is missing from it.
    pub lo: f64,
}

impl Wide {
    /// Nothing; adding it changes nothing.
    pub const ZERO: Wide = Wide { hi: 0.0, lo: 0.0 };

    /// The sum of any two doubles.
    pub fn new(hi: f64, lo: f64) -> Wide {
        two_sum(hi, lo)
    }

    /// The nearest to an integer; exact below 2^106.
    pub fn from_int(number: i128) -> Wide {
        let magnitude = Wide::from_magnitude(number.unsigned_abs());
        if number < 0 { magnitude.negated() } else { magnitude }
    }

    fn from_magnitude(number: u128) -> Wide {
        // Two halves of 64 bits, each of two exact doubles: 53 bits and the rest.
        let halves = [(number >> 64) as u64, number as u64];
        let [high, low] = halves.map(|half| {
            let top = half & !0xFFFF;
            two_sum(top as f64, (half - top) as f64)
        });
        high.scaled(2f64.powi(64)).plus(low)
    }

    /// Reads a decimal number as `strtold` does, all of `text`: sign, digits with a point,
    /// exponent, or `inf`/`infinity`. `None` for anything else: spaces, `nan`, hexadecimal, what
    /// a double's range cannot hold, and texts of 5 KiB and more.
    pub fn parse(text: &[u8]) -> Option<Wide> {
        if text.is_empty() || text.len() > TEXT_SIZE_MAX {
            return None;
        }
        let (negative, rest) = match text[0] {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let magnitude =
            if rest.eq_ignore_ascii_case(b"inf") || rest.eq_ignore_ascii_case(b"infinity") {
                Wide { hi: f64::INFINITY, lo: 0.0 }
            } else {
                parse_magnitude(rest)?
            };
        Some(if negative { magnitude.negated() } else { magnitude })
    }

    /// The sum. Not finite when it leaves a double's range.
    #[must_use]
    pub fn plus(self, other: Wide) -> Wide {
        let high = two_sum(self.hi, other.hi);
        if !high.is_finite() {
            return high;
        }
        let low = two_sum(self.lo, other.lo);
        let sum = quick_two_sum(high.hi, high.lo + low.hi);
        quick_two_sum(sum.hi, sum.lo + low.lo)
    }

    /// The same distance on the other side of zero.
    #[must_use]
    pub fn negated(self) -> Wide {
        Wide { hi: -self.hi, lo: -self.lo }
    }

    /// Whether this is a number: neither infinite nor NaN.
    pub fn is_finite(self) -> bool {
        self.hi.is_finite() && self.lo.is_finite()
    }

    /// As `INCRBYFLOAT` answers it: up to 17 decimals, no trailing zeros, no exponent, no `-0`.
    pub fn text(self) -> String {
        self.to_string()
    }

    fn scaled(self, factor: f64) -> Wide {
        let product = self.hi * factor;
        if !product.is_finite() {
            return Wide { hi: product, lo: 0.0 };
        }
        let rest = self.hi.mul_add(factor, -product);
        quick_two_sum(product, self.lo.mul_add(factor, rest))
    }

    fn divided(self, divisor: f64) -> Wide {
        let quotient = self.hi / divisor;
        let product = quotient * divisor;
        let rest = quotient.mul_add(divisor, -product);
        quick_two_sum(quotient, ((self.hi - product) - rest + self.lo) / divisor)
    }

    /// Times ten to the `exponent`, in steps of exact powers.
    fn times_power_of_ten(mut self, exponent: i64) -> Wide {
        const STEP: u64 = 22; // 10^22 is the greatest power of ten that is a double.
        let mut rest = exponent.unsigned_abs();
        while rest > 0 && self.hi != 0.0 && self.is_finite() {
            let step = rest.min(STEP);
            let power = 10f64.powi(step as i32);
            self = if exponent < 0 { self.divided(power) } else { self.scaled(power) };
            rest -= step;
        }
        self
    }
}

/// The exact sum of two doubles (Knuth). When it overflows, the infinity and nothing.
fn two_sum(a: f64, b: f64) -> Wide {
    let hi = a + b;
    if !hi.is_finite() {
        return Wide { hi, lo: 0.0 };
    }
    let b_part = hi - a;
    Wide { hi, lo: (a - (hi - b_part)) + (b - b_part) }
}

/// The exact sum of two doubles of which the first is the greater (Dekker).
fn quick_two_sum(a: f64, b: f64) -> Wide {
    let hi = a + b;
    if !hi.is_finite() {
        return Wide { hi, lo: 0.0 };
    }
    Wide { hi, lo: b - (hi - a) }
}

/// Digits, point and exponent; at least one digit.
fn parse_magnitude(text: &[u8]) -> Option<Wide> {
    let (mantissa, exponent) = match text.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => (&text[..at], parse_exponent(&text[at + 1..])?),
        None => (text, 0),
    };
    let mut significand: u128 = 0;
    let (mut kept, mut scale, mut digits, mut past_point) = (0, exponent, 0, false);
    for &byte in mantissa {
        match byte {
            b'0'..=b'9' => {
                digits += 1;
                scale -= i64::from(past_point);
                if kept < SIGNIFICANT_MAX {
                    significand = significand * 10 + u128::from(byte - b'0');
                    kept += u32::from(significand > 0);
                } else {
                    scale += 1;
                }
            }
            b'.' if !past_point => past_point = true,
            _ => return None,
        }
    }
    if digits == 0 {
        return None;
    }
    // A long double ends at about 10^-4951: what is smaller is an error to Redis, not a zero.
    let underflows = significand != 0 && scale + i64::from(kept) < -4950;
    let value = Wide::from_magnitude(significand).times_power_of_ten(scale);
    (value.is_finite() && !underflows).then_some(value)
}

/// A signed exponent. One beyond every range saturates.
fn parse_exponent(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text.first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if digits.is_empty() {
        return None;
    }
    let mut exponent: i64 = 0;
    for &byte in digits {
        if !byte.is_ascii_digit() {
            return None;
        }
        exponent = (exponent * 10 + i64::from(byte - b'0')).min(1 << 20);
    }
    Some(if negative { -exponent } else { exponent })
}

/// The digits of `number` (not negative) with [`DECIMALS_ADDED`] decimals, without the point.
fn fixed_point(number: f64) -> Vec<u8> {
    let mut digits = format!("{number:.DECIMALS_ADDED$}").into_bytes();
    digits.retain(u8::is_ascii_digit);
    digits.iter_mut().for_each(|digit| *digit -= b'0');
    digits
}

/// Adds or subtracts `other`, aligned at the right, in place. `digits` is the greater.
fn combine(digits: &mut [u8], other: &[u8], subtract: bool) {
    let mut carry = 0;
    let padded = other.iter().rev().copied().chain(std::iter::repeat(0));
    for (digit, theirs) in digits.iter_mut().rev().zip(padded) {
        if subtract {
            let less = theirs + carry;
            carry = u8::from(*digit < less);
            *digit = *digit + 10 * carry - less;
        } else {
            let sum = *digit + theirs + carry;
            (*digit, carry) = (sum % 10, sum / 10);
        }
    }
}

/// Cuts `digits` to 17 decimals, rounding to nearest, a tie to the even digit.
fn round(digits: &mut Vec<u8>) {
    let cut = digits.split_off(digits.len() - (DECIMALS_ADDED - DECIMALS));
    let exact_tie = cut[0] == 5 && cut[1..].iter().all(|&digit| digit == 0);
    let odd = digits.last().is_some_and(|digit| digit % 2 == 1);
    if cut[0] > 5 || (cut[0] == 5 && (!exact_tie || odd)) {
        combine(digits, &[1], false);
    }
}

impl fmt::Display for Wide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_finite() {
            return write!(f, "{}", self.hi);
        }
        let mut digits = fixed_point(self.hi.abs());
        digits.insert(0, 0); // Room for a carry.
        let opposed = self.lo != 0.0 && (self.hi < 0.0) != (self.lo < 0.0);
        combine(&mut digits, &fixed_point(self.lo.abs()), opposed);
        round(&mut digits);
        let point = digits.len() - DECIMALS;
        let zeros = digits[..point - 1].iter().take_while(|&&digit| digit == 0).count();
        let end =
            digits.iter().rposition(|&digit| digit != 0).map_or(point, |last| point.max(last + 1));
        let ascii =
            |range: &[u8]| range.iter().map(|digit| char::from(b'0' + digit)).collect::<String>();
        if self.hi < 0.0 && digits.iter().any(|&digit| digit != 0) {
            f.write_str("-")?;
        }
        f.write_str(&ascii(&digits[zeros..point]))?;
        if end > point {
            write!(f, ".{}", ascii(&digits[point..end]))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sum(terms: &[&str]) -> String {
        terms
            .iter()
            .fold(Wide::ZERO, |sum, term| sum.plus(Wide::parse(term.as_bytes()).unwrap()))
            .text()
    }

    #[test]
    fn decimals_add_up_as_people_expect() {
        assert_eq!(sum(&["10.5", "0.1"]), "10.6");
        assert_eq!(sum(&["0.1"; 10]), "1");
        assert_eq!(sum(&["5.0e3", "2.0e2"]), "5200");
        assert_eq!(sum(&["3.0e3", "-200"]), "2800");
        assert_eq!(sum(&["1", "-1.1"]), "-0.1");
        assert_eq!(sum(&["17179869184", "1.5"]), "17179869185.5");
        assert_eq!(sum(&["0.5", "-0.50"]), "0");
        assert_eq!(sum(&["-1e-30"]), "0");
        assert_eq!(sum(&["1000000", "0.1"]), "1000000.1");
        assert_eq!(sum(&["0.02439024390243902", "-0.02439024390243902"]), "0");
        assert_eq!(sum(&["99999999999999999999", "1"]), "100000000000000000000");
        assert_eq!(sum(&["0.99999999999999999", "0.00000000000000001"]), "1");
    }

    #[test]
    fn a_tie_goes_to_the_even_digit() {
        // 2^-18 has exactly 18 decimals.
        assert_eq!(sum(&["0.000003814697265625"]), "0.00000381469726562");
    }

    #[test]
    fn texts_that_are_numbers() {
        for (text, number) in [
            ("+5", "5"),
            (".5", "0.5"),
            ("5.", "5"),
            ("-.25e1", "-2.5"),
            ("0e999999999999", "0"),
            ("00012.500", "12.5"),
        ] {
            assert_eq!(sum(&[text]), number, "{text}");
        }
        assert!(!Wide::parse(b"inf").unwrap().is_finite());
        assert!(!Wide::parse(b"-Infinity").unwrap().is_finite());
        assert_eq!(sum(&["1e-400"]), "0");
    }

    #[test]
    fn texts_that_are_not() {
        for text in [
            "", "-", ".", "e5", "1e", "1e+", " 1", "1 ", "1.2.3", "nan", "0x10", "1e400",
            "1e-5000", "1\0", "--1",
        ] {
            assert_eq!(Wide::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Wide::parse(&[b'1'; 5 * 1024]), None);
    }

    #[test]
    fn leaving_the_range_is_not_finite() {
        let most = Wide::parse(b"1.7e308").unwrap();
        assert!(!most.plus(most).is_finite());
        assert!(!Wide::parse(b"inf").unwrap().plus(Wide::parse(b"-inf").unwrap()).is_finite());
        assert_eq!(most.text().len(), 309);
    }

    #[test]
    fn integers_are_exact() {
        for number in
            [0, 1, -1, i128::from(i64::MIN), i128::from(u64::MAX), (1 << 105) + 1, -(1 << 105) - 1]
        {
            assert_eq!(Wide::from_int(number).text(), number.to_string());
        }
    }

    /// `units` of 10^-17, as text.
    fn decimal(units: i128) -> String {
        let (whole, part) =
            (units.unsigned_abs() / 10u128.pow(17), units.unsigned_abs() % 10u128.pow(17));
        let text = format!("{}{whole}.{part:017}", if units < 0 { "-" } else { "" });
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }

    proptest! {
        #[test]
        fn sums_of_decimals_are_exact(terms in prop::collection::vec(-10i128.pow(28)..10i128.pow(28), 1..20)) {
            let total: i128 = terms.iter().sum();
            let texts: Vec<String> = terms.iter().map(|&units| decimal(units)).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            prop_assert_eq!(sum(&texts), decimal(total));
        }

        #[test]
        fn the_order_of_terms_does_not_show(a: i64, b: i64, scale in 0u32..12) {
            let [a, b] = [a, b].map(|n| Wide::from_int(n.into()).divided(10f64.powi(scale as i32)));
            prop_assert_eq!(a.plus(b), b.plus(a));
        }

        #[test]
        fn any_bytes_are_read_without_panic(text: Vec<u8>) {
            let _ = Wide::parse(&text).map(Wide::text);
        }

        #[test]
        fn numbers_read_back(number in prop::num::f64::NORMAL) {
            let read = Wide::parse(format!("{number:e}").as_bytes()).unwrap();
            let error = read.plus(Wide::new(-number, 0.0));
            prop_assert!(error.hi.abs() <= number.abs() * 2f64.powi(-50));
        }
    }
}
