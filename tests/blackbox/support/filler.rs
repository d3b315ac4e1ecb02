//! Values: how many bytes a test wants, reproducible from a number, dull or not.

/// Bytes that no compression makes smaller.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut chance = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut draw = || {
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        chance
    };
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&draw().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Bytes that compress to a fraction, and still say which number they came from.
pub(crate) fn prose(seed: u64, len: usize) -> Vec<u8> {
    let line = format!("{seed}: much of what is stored says the same again and again; ");
    line.bytes().cycle().take(len).collect()
}
