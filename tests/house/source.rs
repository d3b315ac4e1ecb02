//! A source file without its comments and texts, and with its tests marked.

/// The code of a file: comments, strings and character literals are blanks, lines stay lines.
pub(crate) fn code_of(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let taken = skipped(rest).unwrap_or(0);
        if taken == 0 {
            // A whole word at once, so that the `r` of `for"` is never taken for a raw string's.
            let word = rest.find(|letter: char| !is_word(letter)).unwrap_or(rest.len());
            let taken = word.max(first.len_utf8());
            out.push_str(&rest[..taken]);
            rest = &rest[taken..];
        } else {
            out.extend(rest[..taken].chars().map(|letter| if letter == '\n' { '\n' } else { ' ' }));
            rest = &rest[taken..];
        }
    }
    out
}

/// Whether `letter` may stand in a name.
pub(crate) fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// How many bytes of comment, string or character literal `rest` begins with.
fn skipped(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(block_comment(rest));
    }
    if let Some(character) = character(rest) {
        return Some(character);
    }
    let prefix = rest.find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(rest.len());
    if !["", "b", "c", "r", "br", "cr"].contains(&&rest[..prefix]) {
        return None;
    }
    let hashes = rest[prefix..].bytes().take_while(|&byte| byte == b'#').count();
    let raw = rest[..prefix].ends_with('r');
    if !rest[prefix + hashes..].starts_with('"') || hashes > 0 && !raw {
        return None;
    }
    let start = prefix + hashes + 1;
    if raw {
        let end = format!("\"{}", "#".repeat(hashes));
        return Some(rest[start..].find(&end).map_or(rest.len(), |at| start + at + end.len()));
    }
    Some(start + quoted(&rest[start..], '"'))
}

/// The length of a block comment; they nest.
fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while at < rest.len() {
        match &rest.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// The length up to and with the closing quote, escapes heeded.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, letter) in rest.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            letter if letter == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The length of a character literal; a lifetime is none.
fn character(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix('\'').or_else(|| rest.strip_prefix("b'"))?;
    let opening = rest.len() - inner.len();
    let first = inner.chars().next()?;
    if first == '\\' {
        return Some(opening + quoted(inner, '\''));
    }
    inner[first.len_utf8()..].starts_with('\'').then_some(opening + first.len_utf8() + 1)
}

/// A line of code and where it stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line<'a> {
    /// From 1.
    pub(crate) number: usize,
    /// The line, without comments and texts.
    pub(crate) code: &'a str,
    /// Inline modules around it.
    pub(crate) depth: usize,
    /// Whether it is only there for tests.
    pub(crate) test: bool,
}

/// The lines of `code` (of [`code_of`]), formatted as rustfmt does.
pub(crate) fn lines(code: &str) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    let mut braces = 0usize;
    let mut modules: Vec<(usize, bool)> = Vec::new();
    let mut cfg_test = false;
    for (number, code) in (1..).zip(code.lines()) {
        let trimmed = code.trim();
        let test = cfg_test || modules.iter().any(|&(_, test)| test);
        lines.push(Line { number, code, depth: modules.len(), test });
        if is_module(trimmed) {
            modules.push((braces, test));
        }
        for letter in code.chars() {
            match letter {
                '{' => braces += 1,
                '}' => braces = braces.saturating_sub(1),
                _ => {}
            }
        }
        while modules.last().is_some_and(|&(outside, _)| braces <= outside) {
            modules.pop();
        }
        let attribute = trimmed.starts_with("#[") || trimmed.is_empty();
        cfg_test = trimmed == "#[cfg(test)]" || cfg_test && attribute;
    }
    lines
}

/// Whether a line opens an inline module.
fn is_module(trimmed: &str) -> bool {
    let name = trimmed.trim_start_matches("pub(crate) ").trim_start_matches("pub ");
    name.starts_with("mod ") && name.ends_with('{')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_texts_are_blank() {
        let code = code_of(
            "a(\"tokio \\\" x\"); // tokio\n/* tokio /* x */ */ b('\"', '\\'', b'x', r#\"to\"kio\"#);\n\
             fn f<'a>(x: &'a str) { for\"\" } br\"x\" c",
        );
        assert!(!code.contains("tokio") && !code.contains("kio"), "{code}");
        assert_eq!(code.lines().count(), 3);
        assert!(code.contains("fn f<'a>(x: &'a str) { for"), "{code}");
        assert!(code.ends_with(" c"));
    }

    #[test]
    fn tests_and_modules_are_marked() {
        let text = "fn a() {\n}\n#[cfg(test)]\n#[path = \"x\"]\nmod tests {\n    mod inner {\n        x\n    }\n}\ny\n";
        let code = code_of(text);
        let marks: Vec<(usize, bool)> =
            lines(&code).iter().map(|line| (line.depth, line.test)).collect();
        assert_eq!(marks[6], (2, true));
        assert_eq!(marks[9], (0, false));
        assert!(!marks[0].1 && !marks[1].1);
    }
}
