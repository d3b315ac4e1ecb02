//! Numbers as Redis reads and writes them, and sums that do not drift.
//!
//! Redis counts floats in x87 long doubles (64 bits of mantissa) and prints them with
//! seventeen decimals. Here a float is a sum of two doubles (Dekker, "A floating-point technique
//! for extending the available precision", 1971; about 106 bits), so that adding many increments
//! in any grouping loses nothing that shows. Parsing rounds to 64 bits of mantissa and so does
//! printing: one INCRBYFLOAT gives the very digits that Redis gives.
//!
//! ```text
//! "10.1" ── parse_float ──> Float(hi, lo) ── add_amounts ──> Float ── amount_text ──> "10.2"
//! ```
//!
//! Narrower than Redis in one way: what lies beyond a double's range (1.8e308) is refused, where
//! a long double goes on to 1.2e4932.

use super::change::Amount;

/// Decimal places that Redis prints of a float, before it trims zeros.
const PLACES: u32 = 17;

/// Redis's `MAX_LONG_DOUBLE_CHARS`: a longer text is no float.
pub(super) const FLOAT_TEXT_SIZE_MAX: usize = 5 * 1024;

/// Most decimal digits that fit the mantissa while reading; later ones are beyond rounding.
const DIGITS_MAX: u32 = 37;

/// Less than ten to this is zero in a long double.
const LONG_DOUBLE_MIN: i64 = -4_951;

/// Reads an integer as strictly as Redis's `string2ll`: no plus, no spaces, no leading zeros.
pub fn parse_int(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let negative = digits.len() < text.len();
    let well_formed = match digits.first() {
        None => false,
        Some(b'0') => digits.len() == 1 && !negative,
        Some(_) => digits.len() <= 19 && digits.iter().all(u8::is_ascii_digit),
    };
    if !well_formed {
        return None;
    }
    let size = digits.iter().fold(0i128, |sum, digit| sum * 10 + i128::from(digit - b'0'));
    i64::try_from(if negative { -size } else { size }).ok()
}

/// Reads a float as Redis's `string2ld` does: all that C's `strtold` takes (signs, exponents, hex,
/// infinity) but no surrounding space and no NaN. Infinity is for the caller to refuse.
pub fn parse_float(text: &[u8]) -> Option<Amount> {
    if text.len() >= FLOAT_TEXT_SIZE_MAX {
        return None;
    }
    let (negative, size) = match text.first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (hi, lo) = if size.eq_ignore_ascii_case(b"inf") || size.eq_ignore_ascii_case(b"infinity") {
        (f64::INFINITY, 0.0)
    } else if size.len() > 2 && size[..2].eq_ignore_ascii_case(b"0x") {
        parse_hex(&size[2..])?
    } else {
        parse_decimal(size)?
    };
    let sign = if negative { -1.0 } else { 1.0 };
    Some(normal(hi * sign, lo * sign))
}

/// The digits of a number without sign, up to its exponent.
struct Digits {
    /// The leading digits that fit.
    mantissa: u128,
    /// What power of the base they stand for, before the written exponent.
    scale: i64,
    /// Where the exponent begins in the text.
    end: usize,
}

/// Reads digits with at most one point among them; `None` when there is no digit.
fn digits(text: &[u8], base: u32, most: u32) -> Option<Digits> {
    let (mut mantissa, mut taken, mut scale) = (0u128, 0, 0i64);
    let (mut any, mut point, mut end) = (false, false, 0);
    for byte in text {
        if let Some(digit) = char::from(*byte).to_digit(base) {
            any = true;
            if taken < most {
                mantissa = mantissa * u128::from(base) + u128::from(digit);
                taken += u32::from(mantissa > 0);
                scale -= i64::from(point);
            } else {
                scale += i64::from(!point);
            }
        } else if *byte == b'.' && !point {
            point = true;
        } else {
            break;
        }
        end += 1;
    }
    any.then_some(Digits { mantissa, scale, end })
}

/// Reads an exponent after its letter; an absent one is zero.
fn exponent(text: &[u8], letter: u8) -> Option<i64> {
    let Some((first, rest)) = text.split_first() else { return Some(0) };
    if first.to_ascii_lowercase() != letter {
        return None;
    }
    let digits = rest.strip_prefix(b"-").or_else(|| rest.strip_prefix(b"+")).unwrap_or(rest);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // Far beyond any float already: more digits change nothing.
    let size = digits.iter().fold(0i64, |sum, d| (sum * 10 + i64::from(d - b'0')).min(1 << 32));
    Some(if rest.first() == Some(&b'-') { -size } else { size })
}

fn parse_decimal(text: &[u8]) -> Option<(f64, f64)> {
    let Digits { mantissa, scale, end } = digits(text, 10, DIGITS_MAX)?;
    let power = exponent(&text[end..], b'e')? + scale;
    if mantissa == 0 {
        return Some((0.0, 0.0));
    }
    match power {
        // A long double holds no such number, and Redis refuses what becomes zero or infinite.
        400.. => None,
        // A long double may hold it, but seventeen decimals show none of it.
        ..-400 => {
            let first_digit = power + i64::from(mantissa.ilog10());
            (first_digit > LONG_DOUBLE_MIN).then_some((0.0, 0.0))
        }
        0..400 => in_range(times(from_int(mantissa as i128), ten_to(power as u32))),
        // In two steps, for ten to the four hundredth is beyond a double.
        -400..0 => {
            let first = power.max(-200);
            let part = over(from_int(mantissa as i128), ten_to(first.unsigned_abs() as u32));
            in_range(over(part, ten_to((power - first).unsigned_abs() as u32)))
        }
    }
}

fn parse_hex(text: &[u8]) -> Option<(f64, f64)> {
    let Digits { mantissa, scale, end } = digits(text, 16, 28)?;
    let power = exponent(&text[end..], b'p')? + scale * 4;
    let (hi, lo) = from_int(mantissa as i128);
    if mantissa == 0 {
        return Some((0.0, 0.0));
    }
    match power {
        ..-17_000 | 1_024.. => None,
        -17_000..-1_200 => Some((0.0, 0.0)),
        -1_200..1_024 => in_range((scaled(hi, power as i32), scaled(lo, power as i32))),
    }
}

/// Rounds to a long double's 64 bits; `None` for what a double cannot hold.
fn in_range((hi, lo): (f64, f64)) -> Option<(f64, f64)> {
    hi.is_finite().then(|| Rounded::of(hi, lo).to_pair())
}

/// Ten to the `power`, to some hundred bits.
fn ten_to(mut power: u32) -> (f64, f64) {
    let (mut square, mut product) = ((10.0, 0.0), (1.0, 0.0));
    while power > 0 {
        if power & 1 == 1 {
            product = times(product, square);
        }
        power >>= 1;
        if power > 0 {
            square = times(square, square);
        }
    }
    product
}

/// Adds two increments; an integer and a float make a float. Beyond a double's range the sum is
/// infinite; integers stop at the ends of 128 bits.
#[must_use]
pub fn add_amounts(a: Amount, b: Amount) -> Amount {
    let (a, b) = match (a, b) {
        (Amount::Int(a), Amount::Int(b)) => return Amount::Int(a.saturating_add(b)),
        (a, b) => (pair(a), pair(b)),
    };
    let (hi, hi_error) = two_sum(a.0, b.0);
    if !hi.is_finite() {
        return Amount::Float(hi, 0.0);
    }
    let (lo, lo_error) = two_sum(a.1, b.1);
    let (hi, lo) = quick_sum(hi, hi_error + lo);
    let (hi, lo) = quick_sum(hi, lo + lo_error);
    normal(hi, lo)
}

/// Whether the amount is a number and not infinite.
pub fn is_finite(amount: Amount) -> bool {
    match amount {
        Amount::Int(_) => true,
        Amount::Float(hi, lo) => hi.is_finite() && lo.is_finite(),
    }
}

/// A sum that stays a number: infinite ones stop at the largest double. What an actor adds up may
/// pass that end although the visible value, which the command checked, does not.
pub(super) fn bounded(amount: Amount) -> Amount {
    match amount {
        Amount::Float(hi, _) if !hi.is_finite() => Amount::Float(f64::MAX.copysign(hi), 0.0),
        amount => amount,
    }
}

/// Whether a float from outside is one that this file could have made.
pub(super) fn is_normal(hi: f64, lo: f64) -> bool {
    let exact = |a: f64, b: f64| a.to_bits() == b.to_bits();
    hi.is_finite() && exact(hi + lo, hi) && exact(hi + 0.0, hi) && exact(lo + 0.0, lo)
}

/// The amount as text: an integer's digits, or what INCRBYFLOAT prints.
pub fn amount_text(amount: Amount) -> Vec<u8> {
    match amount {
        Amount::Int(sum) => sum.to_string().into_bytes(),
        Amount::Float(hi, lo) => float_text(hi, lo),
    }
}

/// Seventeen decimals, trailing zeros trimmed, never an exponent.
fn float_text(hi: f64, lo: f64) -> Vec<u8> {
    let Rounded { negative, mantissa, exponent } = Rounded::of(hi, lo);
    let (whole, fraction) = match exponent {
        0.. => (doubled(mantissa, exponent as u32), 0),
        -122..0 => {
            let scaled = u128::from(mantissa) * 10u128.pow(PLACES);
            let places = shift_to_even(scaled, exponent.unsigned_abs());
            let unit = 10u128.pow(PLACES);
            ((places / unit).to_string(), (places % unit) as u64)
        }
        // Less than half of the last place, whatever the mantissa.
        _ => ("0".to_owned(), 0),
    };
    let mut text = whole;
    if fraction > 0 {
        let places = format!("{fraction:017}");
        text.push('.');
        text.push_str(places.trim_end_matches('0'));
    }
    if negative && text != "0" {
        text.insert(0, '-');
    }
    text.into_bytes()
}

/// The digits of `mantissa << bits`.
fn doubled(mantissa: u64, mut bits: u32) -> String {
    const LIMB: u128 = 1_000_000_000_000_000_000;
    let mut limbs = vec![u128::from(mantissa) % LIMB, u128::from(mantissa) / LIMB];
    while bits > 0 {
        let step = bits.min(60);
        let mut carry = 0;
        for limb in &mut limbs {
            let wide = (*limb << step) + carry;
            (*limb, carry) = (wide % LIMB, wide / LIMB);
        }
        if carry > 0 {
            limbs.push(carry);
        }
        bits -= step;
    }
    let all: String = limbs.iter().rev().map(|limb| format!("{limb:018}")).collect();
    let digits = all.trim_start_matches('0');
    if digits.is_empty() { "0".to_owned() } else { digits.to_owned() }
}

/// A long double: `mantissa · 2^exponent`.
struct Rounded {
    negative: bool,
    mantissa: u64,
    exponent: i32,
}

impl Rounded {
    /// Rounds `hi + lo` (finite, `hi` being the double nearest to the sum) to 64 bits, ties to even.
    fn of(hi: f64, lo: f64) -> Rounded {
        // Room below the 53 bits of `hi`: its own 64 bits, and some to tell a tie from a near one.
        const ROOM: i32 = 72;
        let (hi_bits, hi_exponent) = whole(hi);
        let (lo_bits, lo_exponent) = whole(lo);
        let exponent = hi_exponent - ROOM;
        let up = lo_exponent - exponent;
        let lo_bits = if up >= 0 {
            // `lo` is at most half of the last place of `hi`, so this fits; a stranger's may not.
            lo_bits.wrapping_shl(up as u32)
        } else {
            let down = up.unsigned_abs().min(126);
            let kept = lo_bits >> down;
            if kept << down == lo_bits { kept } else { kept | 1 }
        };
        let sum = (hi_bits << ROOM).wrapping_add(lo_bits);
        let size = sum.unsigned_abs();
        let excess = 64 - size.leading_zeros() as i32;
        if excess <= 0 {
            return Rounded { negative: sum < 0, mantissa: size as u64, exponent };
        }
        let rounded = shift_to_even(size, excess as u32);
        let (mantissa, carry) = match u64::try_from(rounded) {
            Ok(mantissa) => (mantissa, 0),
            Err(_) => (1 << 63, 1),
        };
        Rounded { negative: sum < 0, mantissa, exponent: exponent + excess + carry }
    }

    fn to_pair(&self) -> (f64, f64) {
        let (hi, lo) = from_int(i128::from(self.mantissa));
        let sign = if self.negative { -1.0 } else { 1.0 };
        (scaled(hi * sign, self.exponent), scaled(lo * sign, self.exponent))
    }
}

/// `value >> bits`, rounded to nearest, ties to even. `bits` is 1 to 127.
fn shift_to_even(value: u128, bits: u32) -> u128 {
    let (kept, rest, half) = (value >> bits, value & ((1 << bits) - 1), 1 << (bits - 1));
    kept + u128::from(rest > half || (rest == half && kept & 1 == 1))
}

/// A finite double as a whole number times a power of two.
fn whole(value: f64) -> (i128, i32) {
    let bits = value.to_bits();
    let fraction = i128::from(bits & ((1 << 52) - 1));
    let (size, exponent) = match (bits >> 52 & 0x7FF) as i32 {
        0 => (fraction, -1_074),
        biased => (fraction | 1 << 52, biased - 1_075),
    };
    (if value.is_sign_negative() { -size } else { size }, exponent)
}

/// `value · 2^power`.
fn scaled(value: f64, power: i32) -> f64 {
    let first = power.clamp(-1_000, 1_000);
    value * 2f64.powi(first) * 2f64.powi((power - first).clamp(-1_000, 1_000))
}

/// A whole number as two doubles; exact up to some hundred bits.
fn from_int(value: i128) -> (f64, f64) {
    let hi = value as f64;
    (hi, value.saturating_sub(hi as i128) as f64)
}

fn pair(amount: Amount) -> (f64, f64) {
    match amount {
        Amount::Int(sum) => from_int(sum),
        Amount::Float(hi, lo) => (hi, lo),
    }
}

/// One form for equal floats: no negative zero.
fn normal(hi: f64, lo: f64) -> Amount {
    Amount::Float(hi + 0.0, lo + 0.0)
}

/// The sum and its rounding error (Knuth).
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let from_b = sum - a;
    (sum, (a - (sum - from_b)) + (b - from_b))
}

/// The same when `a` is the greater (Dekker).
fn quick_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    (sum, b - (sum - a))
}

fn times(a: (f64, f64), b: (f64, f64)) -> (f64, f64) {
    let product = a.0 * b.0;
    if !product.is_finite() {
        return (product, 0.0);
    }
    let error = a.0.mul_add(b.0, -product);
    quick_sum(product, error + (a.0 * b.1 + a.1 * b.0))
}

fn over(a: (f64, f64), b: (f64, f64)) -> (f64, f64) {
    let first = a.0 / b.0;
    let product = times((first, 0.0), b);
    let (rest, error) = two_sum(a.0, -product.0);
    let second = (rest + (error + (a.1 - product.1))) / b.0;
    quick_sum(first, second)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn float(text: &str) -> Amount {
        parse_float(text.as_bytes()).unwrap_or_else(|| panic!("{text} is a float"))
    }

    fn sum(a: &str, b: &str) -> String {
        String::from_utf8(amount_text(add_amounts(float(a), float(b)))).unwrap()
    }

    #[test]
    fn integers_are_read_strictly() {
        let good: [(&str, i64); 6] = [
            ("0", 0),
            ("7", 7),
            ("-7", -7),
            ("10", 10),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
        ];
        for (text, value) in good {
            assert_eq!(parse_int(text.as_bytes()), Some(value), "{text}");
        }
        let bad = "|-|+1|01|-0|-01| 1|1 |1.0|1e3|0x1|9223372036854775808|-9223372036854775809|a\
                   |10000000000000000000|--1|1-";
        for text in bad.split('|') {
            assert_eq!(parse_int(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn floats_are_read_as_c_reads_them() {
        for text in "1|+1|-1|.5|5.|1e3|1E+3|1e-3|0x1p3|0X.8|inf|-INFINITY|007|-0|0e9999".split('|')
        {
            assert!(parse_float(text.as_bytes()).is_some(), "{text:?}");
        }
        let bad = "| 1|1 |nan|-nan|.|e5|1e|1e+|0x|0xp1|1..2|1.2.3|--1|+-1|1_0|1e5000|1e-9999|in\
                   |1\0|,5";
        for text in bad.split('|') {
            assert_eq!(parse_float(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(parse_float(&[b'1'; FLOAT_TEXT_SIZE_MAX]), None);
    }

    // The right-hand sides are what a Redis 7.0 server answered.
    #[test]
    fn sums_print_as_redis_prints_them() {
        let told = include_str!("number_oracle.txt");
        let mut count = 0;
        for line in told.lines() {
            let mut words = line.split(' ');
            let (a, b, c) = (words.next(), words.next(), words.next());
            assert_eq!(sum(a.unwrap(), b.unwrap()), c.unwrap(), "{line}");
            count += 1;
        }
        assert!(count > 50);
    }

    #[test]
    fn a_tenth_added_often_does_not_drift() {
        let tenth = float("0.1");
        let mut total = Amount::Int(0);
        for _ in 0..100_000 {
            total = add_amounts(total, tenth);
        }
        assert_eq!(amount_text(total), b"10000");
    }

    #[test]
    fn mixing_promotes_to_float() {
        let mixed = add_amounts(Amount::Int(3), float("0.25"));
        assert_eq!(amount_text(mixed), b"3.25");
        assert_eq!(amount_text(add_amounts(mixed, Amount::Int(-4))), b"-0.75");
        assert_eq!(add_amounts(Amount::Int(i128::MAX), Amount::Int(1)), Amount::Int(i128::MAX));
    }

    #[test]
    fn sums_beyond_a_double_are_infinite_and_can_be_bounded() {
        let sum = add_amounts(float("-1.7e308"), float("-1.7e308"));
        assert!(!is_finite(sum));
        assert_eq!(bounded(sum), Amount::Float(f64::MIN, 0.0));
    }

    proptest! {
        #[test]
        fn integers_come_back(value: i64) {
            prop_assert_eq!(parse_int(value.to_string().as_bytes()), Some(value));
        }

        #[test]
        fn whole_floats_print_as_integers(value: i64) {
            let text = value.to_string();
            prop_assert_eq!(amount_text(float(&text)), text.into_bytes());
        }

        #[test]
        fn doubles_print_as_their_exact_decimals(value in -1e15f64..1e15) {
            // Rust prints a double exactly, and rounds ties to even as well.
            let exact = format!("{value:.17}");
            let trimmed = exact.trim_end_matches('0').trim_end_matches('.');
            prop_assert_eq!(amount_text(Amount::Float(value, 0.0)), trimmed.as_bytes());
        }

        #[test]
        fn big_doubles_print_exactly(value in 1e16f64..1e300) {
            let text = amount_text(Amount::Float(value, 0.0));
            prop_assert_eq!(text, format!("{value:.0}").into_bytes());
        }

        #[test]
        fn what_is_read_is_normal(value: f64, exponent in -330i32..310) {
            for text in [format!("{value}"), format!("{value:e}"), format!("-3.7e{exponent}")] {
                if let Some(Amount::Float(hi, lo)) = parse_float(text.as_bytes()) {
                    prop_assert!(!hi.is_finite() || is_normal(hi, lo), "{}", text);
                }
            }
        }

        #[test]
        fn sums_are_normal(values in prop::collection::vec(-1e20f64..1e20, 0..20)) {
            let total = values.iter().fold(Amount::Int(1), |sum, value| {
                add_amounts(sum, add_amounts(Amount::Float(*value, 0.0), float("0.1")))
            });
            if let Amount::Float(hi, lo) = total {
                prop_assert!(is_normal(hi, lo));
            }
        }

        #[test]
        fn any_text_is_read_without_panic(text in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = (parse_int(&text), parse_float(&text));
        }

        #[test]
        fn any_numeric_text_is_read_without_panic(text in "[-+]?[0-9.xXeEpPinf]{0,30}") {
            let _ = parse_float(text.as_bytes()).map(amount_text);
        }
    }
}
