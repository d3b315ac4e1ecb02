//! The laws of a join, stated once; every replicated type is run through them.

use std::fmt::Debug;

/// How often a law is tried that is tried `few` times in an ordinary run: so many times more as
/// proptest has more cases than its usual 256 (`PROPTEST_CASES`).
pub(crate) fn tries(few: u64) -> u64 {
    few * u64::from(proptest::test_runner::Config::default().cases) / 256
}

/// Checks the three laws on `a`, `b`, `c`; says which one broke.
///
/// * idempotent: a message delivered twice is delivered once;
/// * commutative: messages may overtake each other;
/// * associative: relays are harmless.
pub(crate) fn broken_law<T: Clone + PartialEq + Debug>(
    (a, b, c): (&T, &T, &T),
    join: impl Fn(&mut T, &T),
) -> Option<&'static str> {
    let joined = |x: &T, y: &T| {
        let mut out = x.clone();
        join(&mut out, y);
        out
    };
    if joined(a, a) != *a {
        return Some("idempotent");
    }
    if joined(a, b) != joined(b, a) {
        return Some("commutative");
    }
    if joined(&joined(a, b), c) != joined(a, &joined(b, c)) {
        return Some("associative");
    }
    None
}
