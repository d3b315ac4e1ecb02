//! Sizes as people write them, in Redis's units.

/// A number of bytes: `k`, `m`, `g` are powers of a thousand, `kb`, `mb`, `gb` of 1,024.
pub fn bytes(text: &str) -> Option<u64> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let unit: u64 = match text[digits..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" => 1_000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_those_of_redis() {
        for (text, size) in [("7", 7), ("7b", 7), ("2k", 2_000), ("2KB", 2_048), ("1gb", 1 << 30)] {
            assert_eq!(bytes(text), Some(size), "{text}");
        }
        for text in ["", "kb", "1tb", "-1", "1.5mb", "99999999999gb"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }
}
