//! Context tokens: what a client has seen of a key, in its own hands until it writes (Dynamo §4.4).
//!
//! `KV.GET` gives one, `KV.SET` and `KV.DEL` take it back. A write [learns](super::change::Seen)
//! from its token, so only what a node of this cluster wrote may be believed: a keyed hash seals
//! it. The key of the hash comes from the cluster's seed, and that from its secret.
//!
//! ```text
//! ┌───────────┬──────────────────────┬─────────┬──────────────────────────────────────┐
//! │ format u8 │ mark of the key, u64 │ context │ seal: 8 bytes of BLAKE3 of the rest  │   base64url
//! └───────────┴──────────────────────┴─────────┴──────────────────────────────────────┘
//! ```
//!
//! Invariants: a context has one token, and a token one text; nothing is read of a token before its
//! seal was found good; a token is good for its own key only.

use crate::base::hash::HashSeed;
use crate::base::limits::TOKEN_SIZE_MAX;
use crate::base::wire::{Cursor, Put, WireError};
use crate::version::context::{Context, Relation};

const FORMAT: u8 = 1;

/// Bytes of the seal.
const SEAL_SIZE: usize = 8;

/// Base64's digits as RFC 4648 §5 has them, fit for URLs.
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Why a token was refused. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenError {
    /// Cut, altered, made up, or of another cluster.
    Unsealed,
    /// Sealed here, but of a format that this version does not know.
    Format,
    /// The token of another key.
    OtherKey,
}

impl std::fmt::Display for TokenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            TokenError::Unsealed => {
                "this is no context token of this cluster; pass on what KV.GET answered as it is"
            }
            TokenError::Format => "this version cannot read the context token",
            TokenError::OtherKey => "the context token is of another key",
        })
    }
}

impl std::error::Error for TokenError {}

/// Makes and opens the tokens of one cluster. See the head of this file.
#[derive(Clone, Copy, Debug)]
pub struct Seal([u8; 32]);

/// What stands in a token.
struct Opened {
    mark: u64,
    context: Context,
}

impl Seal {
    /// The seal of the cluster whose hash seed this is.
    pub fn of(seed: HashSeed) -> Seal {
        Seal(blake3::derive_key("kvorum 2026-11 context tokens", &seed.0.to_le_bytes()))
    }

    /// The token of a client that has seen `context` of `key`.
    pub fn token(&self, key: &[u8], context: &Context) -> String {
        let mut bytes = vec![FORMAT];
        bytes.put_u64(self.mark(key));
        context.encode(&mut bytes);
        let seal = self.hash(&bytes);
        bytes.put(&seal);
        written(&bytes)
    }

    /// The context in a token of `key`.
    pub fn open(&self, key: &[u8], token: &[u8]) -> Result<Context, TokenError> {
        let Opened { mark, context } = self.opened(token)?;
        if mark == self.mark(key) { Ok(context) } else { Err(TokenError::OtherKey) }
    }

    /// How the first of two tokens of one key stands to the second.
    pub fn compare(&self, first: &[u8], second: &[u8]) -> Result<Relation, TokenError> {
        let (first, second) = (self.opened(first)?, self.opened(second)?);
        if first.mark != second.mark {
            return Err(TokenError::OtherKey);
        }
        Ok(first.context.relation(&second.context))
    }

    fn opened(&self, token: &[u8]) -> Result<Opened, TokenError> {
        let bytes = read(token).ok_or(TokenError::Unsealed)?;
        let Some(end) = bytes.len().checked_sub(SEAL_SIZE) else {
            return Err(TokenError::Unsealed);
        };
        let (body, seal) = bytes.split_at(end);
        // As hashes, which are compared in constant time: a seal cannot be felt for byte by byte.
        if blake3::hash(&self.hash(body)) != blake3::hash(seal) {
            return Err(TokenError::Unsealed);
        }
        parse(body).map_err(|_| TokenError::Format)
    }

    fn hash(&self, bytes: &[u8]) -> [u8; SEAL_SIZE] {
        let hash = blake3::keyed_hash(&self.0, bytes);
        *hash.as_bytes().first_chunk().expect("a hash is longer")
    }

    /// What stands for a key in its tokens. What is hashed begins as no format does.
    fn mark(&self, key: &[u8]) -> u64 {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(b"key");
        hasher.update(key);
        let hash = hasher.finalize();
        u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("a hash is longer"))
    }
}

fn parse(body: &[u8]) -> Result<Opened, WireError> {
    let mut cursor = Cursor::new(body);
    if cursor.u8()? != FORMAT {
        return Err(WireError::Malformed("format of a token"));
    }
    let mark = cursor.u64()?;
    let context = Context::decode(&mut cursor)?;
    cursor.end()?;
    Ok(Opened { mark, context })
}

/// `bytes` in base64url, without padding.
fn written(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let word = (0..3).fold(0, |word, at| word << 8 | u32::from(*group.get(at).unwrap_or(&0)));
        for digit in 0..=group.len() {
            out.push(char::from(DIGITS[(word >> (18 - 6 * digit)) as usize & 63]));
        }
    }
    out
}

/// What `text` says in base64url. Text that [`written`] would not write is refused.
fn read(text: &[u8]) -> Option<Vec<u8>> {
    if text.len() > TOKEN_SIZE_MAX || text.len() % 4 == 1 {
        return None;
    }
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for group in text.chunks(4) {
        let mut word = 0;
        for at in 0..4 {
            word = word << 6 | group.get(at).map_or(Some(0), |digit| value_of(*digit))?;
        }
        let bytes = word.to_be_bytes();
        let (said, rest) = bytes[1..].split_at(group.len() * 3 / 4);
        if rest.iter().any(|byte| *byte != 0) {
            return None;
        }
        out.extend_from_slice(said);
    }
    Some(out)
}

/// The value of one digit.
const fn value_of(digit: u8) -> Option<u32> {
    Some(match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'-' => 62,
        b'_' => 63,
        _ => return None,
    } as u32)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::base::id::Actor;
    use crate::base::time::{Dot, Hlc};

    const SEAL: fn() -> Seal = || Seal::of(HashSeed(7));

    fn contexts() -> impl Strategy<Value = Context> {
        vec((1u64..1 << 50, 0u32..4, any::<u32>(), any::<bool>()), 0..12).prop_map(|marks| {
            let mut context = Context::new();
            for (hlc, actor, n, is_rising) in marks {
                let prev = is_rising.then_some(Hlc::ZERO);
                context.advance(Dot::new(Hlc(hlc), Actor(actor)), n, prev);
            }
            context
        })
    }

    proptest! {
        #[test]
        fn tokens_come_back(context in contexts(), key in vec(any::<u8>(), 0..40)) {
            let token = SEAL().token(&key, &context);
            prop_assert!(token.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_'));
            prop_assert_eq!(SEAL().open(&key, token.as_bytes()), Ok(context));
        }

        #[test]
        fn a_token_is_good_for_its_key_and_cluster_only(
            context in contexts(), key in vec(any::<u8>(), 0..9), other in vec(any::<u8>(), 0..9),
        ) {
            let token = SEAL().token(&key, &context);
            if key != other {
                prop_assert_eq!(SEAL().open(&other, token.as_bytes()), Err(TokenError::OtherKey));
            }
            let elsewhere = Seal::of(HashSeed(8)).open(&key, token.as_bytes());
            prop_assert_eq!(elsewhere, Err(TokenError::Unsealed));
        }

        #[test]
        fn bytes_from_outside_do_no_harm(bytes in vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(SEAL().open(b"k", &bytes), Err(TokenError::Unsealed));
            let text = written(&bytes);
            prop_assert_eq!(SEAL().open(b"k", text.as_bytes()), Err(TokenError::Unsealed));
        }

        #[test]
        fn whatever_is_sealed_is_read_or_refused(bytes in vec(0u8..5, 0..80)) {
            let mut sealed = bytes;
            let seal = SEAL().hash(&sealed);
            sealed.extend(seal);
            if let Err(error) = SEAL().open(b"k", written(&sealed).as_bytes()) {
                prop_assert_ne!(error, TokenError::Unsealed);
            }
        }

        #[test]
        fn every_text_is_the_one_text_of_its_bytes(text in "[A-Za-z0-9_-]{0,30}") {
            if let Some(bytes) = read(text.as_bytes()) {
                prop_assert_eq!(written(&bytes), text);
            }
        }

        #[test]
        fn tokens_stand_as_their_contexts(a in contexts(), b in contexts()) {
            let (first, second) = (SEAL().token(b"k", &a), SEAL().token(b"k", &b));
            let compared = SEAL().compare(first.as_bytes(), second.as_bytes());
            prop_assert_eq!(compared, Ok(a.relation(&b)));
            let strange = SEAL().token(b"j", &b);
            let compared = SEAL().compare(first.as_bytes(), strange.as_bytes());
            prop_assert_eq!(compared, Err(TokenError::OtherKey));
        }
    }

    fn sample() -> String {
        let mut context = Context::up_to(Dot::new(Hlc(0x1234), Actor(0x10001)), 3);
        context.insert(Dot::new(Hlc(0x99), Actor(0x20001)), 1);
        SEAL().token(b"cart", &context)
    }

    #[test]
    fn the_format_is_frozen() {
        let bytes = read(sample().as_bytes()).expect("base64");
        assert_eq!(bytes[0], FORMAT);
        assert_eq!(bytes[1..9], SEAL().mark(b"cart").to_le_bytes());
        let context = "01010001003412000000000000030199000000000000000100020001";
        let hex: String =
            bytes[9..bytes.len() - SEAL_SIZE].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, context);
        let text = "AcA8h1ZArfEHAQEAAQA0EgAAAAAAAAMBmQAAAAAAAAABAAIAAQqeSAJqlE3p";
        assert_eq!(sample(), text);
    }

    #[test]
    fn every_cut_and_every_altered_digit_is_noticed() {
        let token = sample();
        for end in 0..token.len() {
            assert_eq!(SEAL().open(b"cart", &token.as_bytes()[..end]), Err(TokenError::Unsealed));
        }
        for at in 0..token.len() {
            for other in [b'A', b'B', b'z', b'_', b'=', b'\n', 0xFF] {
                let mut altered = token.clone().into_bytes();
                if std::mem::replace(&mut altered[at], other) != other {
                    assert_eq!(SEAL().open(b"cart", &altered), Err(TokenError::Unsealed));
                }
            }
        }
        let long = vec![b'A'; TOKEN_SIZE_MAX + 1];
        assert_eq!(SEAL().open(b"cart", &long), Err(TokenError::Unsealed));
    }

    #[test]
    fn base64_is_that_of_everybody() {
        for (bytes, text) in
            [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foob", "Zm9vYg")]
        {
            assert_eq!(written(bytes.as_bytes()), text);
            assert_eq!(read(text.as_bytes()).as_deref(), Some(bytes.as_bytes()));
        }
        assert_eq!(written(&[0xFB, 0xFF]), "-_8");
        assert_eq!(read(b"Zh"), None, "stray bits");
    }
}
