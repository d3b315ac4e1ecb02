//! Redis's glob patterns: `*`, `?`, `[a-z]`, `[^a-z]` and `\`.
//!
//! Every token but `*` takes exactly one byte, so when the text stops fitting it is enough to
//! let the *last* `*` take one byte more: an earlier one could only reach places that the last
//! one reaches too. That bounds the work by pattern times text, where trying every `*` anew is
//! exponential. Redis's corners are kept: an unclosed class ends with the pattern, `[]` matches
//! nothing, `[z-a]` is `[a-z]`, a lone `\` at the end is itself.

/// Whether `text` fits `pattern`.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    fits(pattern, text, |byte| byte)
}

/// Whether `text` fits `pattern`, both folded to ASCII lower case.
pub fn matches_nocase(pattern: &[u8], text: &[u8]) -> bool {
    fits(pattern, text, |byte| byte.to_ascii_lowercase())
}

fn fits(pattern: &[u8], text: &[u8], fold: impl Fn(u8) -> u8 + Copy) -> bool {
    let (mut pattern, mut text) = (pattern, text);
    // What follows the last star, and the text from where it was last tried.
    let mut last_star: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', rest @ ..] = pattern {
            pattern = rest;
            if pattern.is_empty() {
                return true;
            }
            last_star = Some((pattern, text));
            continue;
        }
        let fitted = match text {
            [] if pattern.is_empty() => return true,
            [] => return false,
            [byte, rest @ ..] => take(pattern, *byte, fold).map(|after| (after, rest)),
        };
        match (fitted, last_star) {
            (Some((after, rest)), _) => (pattern, text) = (after, rest),
            (None, Some((after_star, [_, rest @ ..]))) => {
                last_star = Some((after_star, rest));
                (pattern, text) = (after_star, rest);
            }
            (None, _) => return false,
        }
    }
}

/// The pattern after its first token, which is no star, if `byte` fits that token.
fn take(pattern: &[u8], byte: u8, fold: impl Fn(u8) -> u8) -> Option<&[u8]> {
    match pattern {
        [] => None,
        [b'?', rest @ ..] => Some(rest),
        [b'[', rest @ ..] => {
            let (member, rest) = class(rest, byte, fold);
            member.then_some(rest)
        }
        [b'\\', literal, rest @ ..] | [literal, rest @ ..] => {
            (fold(*literal) == fold(byte)).then_some(rest)
        }
    }
}

/// Whether `byte` is in the class that `pattern` begins with, after its `[`; and what follows it.
fn class(pattern: &[u8], byte: u8, fold: impl Fn(u8) -> u8) -> (bool, &[u8]) {
    let (negated, mut pattern) = match pattern {
        [b'^', rest @ ..] => (true, rest),
        _ => (false, pattern),
    };
    let folded = fold(byte);
    let mut member = false;
    loop {
        pattern = match pattern {
            [] => return (member != negated, pattern),
            // An escape stands for itself, even before `]`, and in either case only as it is.
            [b'\\', literal, rest @ ..] => {
                member |= *literal == byte;
                rest
            }
            [b']', rest @ ..] => return (member != negated, rest),
            [low, b'-', high, rest @ ..] => {
                let (low, high) = (fold(*low.min(high)), fold(*low.max(high)));
                member |= (low..=high).contains(&folded);
                rest
            }
            [literal, rest @ ..] => {
                member |= fold(*literal) == folded;
                rest
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same language by trying every way a star may go: exponential, but plainly right.
    fn naive(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], _) => text.is_empty(),
            ([b'*', rest @ ..], _) => (0..=text.len()).any(|skip| naive(rest, &text[skip..])),
            (_, []) => false,
            (_, [byte, after @ ..]) => {
                take(pattern, *byte, |b| b).is_some_and(|rest| naive(rest, after))
            }
        }
    }

    #[test]
    fn the_usual_patterns() {
        for (pattern, text, expected) in [
            ("*", "anything", true),
            ("*", "", true),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h*llo", "heeeello", true),
            ("h[ae]llo", "hallo", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-b]llo", "hbllo", true),
            ("[z-a]", "m", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("a*b*c", "aXbXbXc", true),
            ("a*b*c", "aXbXbX", false),
            ("user:[0-9]*", "user:1000", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn the_corners_are_those_of_redis() {
        for (pattern, text, expected) in [
            ("[", "a", false),
            ("[]", "a", false),
            ("[]a]", "]a]", false),
            ("[^]", "a", true),
            ("[^", "a", true),
            ("[abc", "b", true),
            ("[a-", "-", true),
            ("[a-", "a", true),
            ("[a\\]", "a", true),
            ("[a\\]", "]", true),
            ("[\\", "\\", true),
            ("[a-\\]", "]", true),
            ("[]-a]", "b", false),
            ("a\\", "a\\", true),
            ("\\", "\\", true),
            ("\\a", "a", true),
            ("a***", "a", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn case_can_be_ignored() {
        assert!(matches_nocase(b"CONFIG|[F-H]*", b"config|get"));
        assert!(!matches(b"CONFIG*", b"config"));
    }

    #[test]
    fn hostile_patterns_end_soon() {
        let pattern = "a*".repeat(2_000) + "b";
        assert!(!matches(pattern.as_bytes(), &[b'a'; 10_000]));
        let classes = "*".to_owned() + &"[a-z]".repeat(500) + "!";
        assert!(!matches(classes.as_bytes(), &[b'a'; 2_000]));
    }

    proptest! {
        #[test]
        fn greed_loses_nothing(pattern in r"[ab*?\[\]^\\-]{0,10}", text in r"[ab\]^\\-]{0,8}") {
            let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
            prop_assert_eq!(matches(pattern, text), naive(pattern, text));
        }

        #[test]
        fn a_text_escaped_matches_itself_alone(text: Vec<u8>, other: Vec<u8>) {
            let pattern: Vec<u8> = text.iter().flat_map(|byte| [b'\\', *byte]).collect();
            prop_assert!(matches(&pattern, &text));
            prop_assert_eq!(matches(&pattern, &other), other == text);
        }
    }
}
