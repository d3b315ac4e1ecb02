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

/// A number with commas: 1,234,567.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_stand_at_every_third_digit() {
        let numbers = [0, 7, 999, 1_000, 12_345, 1_234_567].map(thousands);
        assert_eq!(numbers, ["0", "7", "999", "1,000", "12,345", "1,234,567"]);
    }

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
