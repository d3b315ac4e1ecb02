//! What the two sides of an exchange say.
//!
//! Layout, little-endian:
//!
//! ```text
//!   ┌──────┬─────────────┬───────────────────────────────────────────────────────────────┐
//!   │ kind │ exchange u32│ 1 Root    scope u8, root u128                                 │
//!   │  u8  │             │ 2 Same                                                        │
//!   │      │             │ 3 Buckets 256 × u64                                           │
//!   │      │             │ 4 Keys    scope u8, span, then for each key                   │
//!   │      │             │           hash u64, digest u64 [, hlc u64 if the scope is 2]  │
//!   │      │             │ 5 Differ  upto u64, then hash u64 for each that differs       │
//!   │      │             │ 6 Looked  upto u64, keys u32, hlc u64, hlc u64                │
//!   │      │             │ 7 Busy                                                        │
//!   │      │             │ 8 Over                                                        │
//!   │      │             │ 9 Left    hash u64 for each that is compared in parts         │
//!   │      │             │ 10 Part   hash u64, then what is said of it: see `parts`      │
//!   └──────┴─────────────┴───────────────────────────────────────────────────────────────┘
//!   scope  0 Differing · 1 Whole · 2 Look        span  4 × u64 buckets, from u64, upto u64
//! ```
//!
//! Invariant: a message that was read holds no more keys than [`KEYS_MAX`] (hashes: twice that),
//! and they are in order.

use crate::base::hash::Digest;
use crate::base::time::Hlc;
use crate::base::wire::{Cursor, Put, WireError};

use super::keys::{KEYS_MAX, Key, KeyList, Span};
use super::parts::Word;
use super::tree::{BUCKETS, BucketSet, Sums};

/// What is compared, and what for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Scope {
    /// What is alive, in order to send each other what differs.
    Differing,
    /// All of it, removals too, in order to send each other what differs.
    Whole,
    /// What is alive, in order to know what differs. Nothing is sent.
    Look,
}

impl Scope {
    /// Whether digests of the whole state are compared, or digests of what is alive.
    pub const fn compares_states(self) -> bool {
        matches!(self, Scope::Whole)
    }

    /// Whether keys with digest 0 travel in lists. For who looks, they tell who knows of a removal.
    const fn tells_tombstones(self) -> bool {
        matches!(self, Scope::Look)
    }
}

/// One message. See the head of this file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// The initiator's number for this exchange.
    pub exchange: u32,
    /// What is said.
    pub body: Body,
}

/// Who of the two lacks what, as far as timestamps tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lacks {
    /// Keys that differ.
    pub keys: u32,
    /// The oldest timestamp that the initiator should know and does not.
    pub initiator: Option<Hlc>,
    /// The oldest timestamp that the responder should know and does not.
    pub responder: Option<Hlc>,
}

impl Lacks {
    /// Notes one key that differs.
    pub fn note(&mut self, initiator: Hlc, responder: Hlc) {
        let older = |kept: &mut Option<Hlc>, hlc: Hlc| {
            *kept = Some(kept.map_or(hlc, |kept| kept.min(hlc)));
        };
        self.keys = self.keys.saturating_add(1);
        if responder >= initiator {
            older(&mut self.initiator, responder);
        }
        if initiator >= responder {
            older(&mut self.responder, initiator);
        }
    }

    /// Adds what was found elsewhere.
    pub fn add(&mut self, other: &Lacks) {
        let older = |a: Option<Hlc>, b: Option<Hlc>| a.into_iter().chain(b).min();
        self.keys = self.keys.saturating_add(other.keys);
        self.initiator = older(self.initiator, other.initiator);
        self.responder = older(self.responder, other.responder);
    }
}

/// The body of a [`Message`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// Initiator: this is my root.
    Root {
        /// What is compared.
        scope: Scope,
        /// The root of that.
        root: Digest,
    },
    /// Responder: mine is the same.
    Same,
    /// Responder: mine differs; these are my buckets.
    Buckets(Sums),
    /// Initiator: these are my keys.
    Keys {
        /// What is compared.
        scope: Scope,
        /// The keys.
        list: KeyList,
    },
    /// Responder: of your keys and mine up to this hash these differ, and I have sent mine.
    Differ {
        /// How far was compared.
        upto: u64,
        /// What differs.
        hashes: Vec<u64>,
    },
    /// Responder, to one who looks: so much differs up to this hash.
    Looked {
        /// How far was compared.
        upto: u64,
        /// What differs.
        lacks: Lacks,
    },
    /// Responder: I compare the same vnode with you. Mine goes first.
    Busy,
    /// Initiator: everything that differed is sent.
    Over,
    /// Responder: these differ, and I have not sent them, for they are large.
    Left(Vec<u64>),
    /// Either: this of the large entry with this hash.
    Part(u64, Word),
}

const ROOT: u8 = 1;
const SAME: u8 = 2;
const BUCKET_SUMS: u8 = 3;
const KEYS: u8 = 4;
const DIFFER: u8 = 5;
const LOOKED: u8 = 6;
const BUSY: u8 = 7;
const OVER: u8 = 8;
const LEFT: u8 = 9;
const PART: u8 = 10;

impl Message {
    /// Whether it is for the responder's side.
    pub const fn is_question(&self) -> bool {
        match &self.body {
            Body::Root { .. } | Body::Keys { .. } | Body::Over => true,
            Body::Part(_, word) => word.is_question(),
            _ => false,
        }
    }

    /// Whether its bytes count as those of entries do: lists that lead to entries. Who looks, as
    /// often as he may, does not hold entries up.
    pub const fn is_charged(&self) -> bool {
        match self.body {
            Body::Keys { scope, .. } => !matches!(scope, Scope::Look),
            Body::Differ { .. } | Body::Part(..) => true,
            _ => false,
        }
    }

    /// What a list of keys covers, if it is one.
    pub fn listed(&self) -> Option<(Scope, Span)> {
        match &self.body {
            Body::Keys { scope, list } => Some((*scope, *list.span())),
            _ => None,
        }
    }

    /// Appends the message's bytes.
    pub fn encode(&self, out: &mut impl Put) {
        let kind = match &self.body {
            Body::Root { .. } => ROOT,
            Body::Same => SAME,
            Body::Buckets(_) => BUCKET_SUMS,
            Body::Keys { .. } => KEYS,
            Body::Differ { .. } => DIFFER,
            Body::Looked { .. } => LOOKED,
            Body::Busy => BUSY,
            Body::Over => OVER,
            Body::Left(_) => LEFT,
            Body::Part(..) => PART,
        };
        out.put_u8(kind);
        out.put_u32(self.exchange);
        match &self.body {
            Body::Same | Body::Busy | Body::Over => {}
            Body::Root { scope, root } => {
                out.put_u8(scope_code(*scope));
                out.put_u128(root.0);
            }
            Body::Buckets(sums) => sums.iter().for_each(|sum| out.put_u64(*sum)),
            Body::Keys { scope, list } => {
                out.put_u8(scope_code(*scope));
                encode_list(*scope, list, out);
            }
            Body::Differ { upto, hashes } => {
                out.put_u64(*upto);
                hashes.iter().for_each(|hash| out.put_u64(*hash));
            }
            Body::Left(hashes) => hashes.iter().for_each(|hash| out.put_u64(*hash)),
            Body::Part(hash, word) => {
                out.put_u64(*hash);
                word.encode(out);
            }
            Body::Looked { upto, lacks } => {
                out.put_u64(*upto);
                out.put_u32(lacks.keys);
                out.put_u64(lacks.initiator.unwrap_or(Hlc::ZERO).0);
                out.put_u64(lacks.responder.unwrap_or(Hlc::ZERO).0);
            }
        }
    }

    /// Reads a message; anything but exactly one is refused.
    pub fn decode(bytes: &[u8]) -> Result<Message, WireError> {
        let mut cursor = Cursor::new(bytes);
        let kind = cursor.u8()?;
        let exchange = cursor.u32()?;
        let body = match kind {
            ROOT => Body::Root { scope: scope(&mut cursor)?, root: Digest(cursor.u128()?) },
            SAME => Body::Same,
            BUCKET_SUMS => {
                let mut sums: Sums = Box::new([0; BUCKETS]);
                for sum in sums.iter_mut() {
                    *sum = cursor.u64()?;
                }
                Body::Buckets(sums)
            }
            KEYS => {
                let scope = scope(&mut cursor)?;
                Body::Keys { scope, list: decode_list(&mut cursor, scope)? }
            }
            DIFFER => Body::Differ { upto: cursor.u64()?, hashes: decode_hashes(&mut cursor)? },
            LOOKED => {
                let (upto, keys) = (cursor.u64()?, cursor.u32()?);
                let (initiator, responder) = (hlc(&mut cursor)?, hlc(&mut cursor)?);
                Body::Looked { upto, lacks: Lacks { keys, initiator, responder } }
            }
            BUSY => Body::Busy,
            OVER => Body::Over,
            LEFT => Body::Left(decode_hashes(&mut cursor)?),
            PART => Body::Part(cursor.u64()?, Word::decode(&mut cursor)?),
            _ => return Err(WireError::Malformed("exchange message")),
        };
        cursor.end()?;
        Ok(Message { exchange, body })
    }
}

fn hlc(cursor: &mut Cursor<'_>) -> Result<Option<Hlc>, WireError> {
    Ok(Some(Hlc(cursor.u64()?)).filter(|hlc| *hlc != Hlc::ZERO))
}

const fn scope_code(scope: Scope) -> u8 {
    match scope {
        Scope::Differing => 0,
        Scope::Whole => 1,
        Scope::Look => 2,
    }
}

fn scope(cursor: &mut Cursor<'_>) -> Result<Scope, WireError> {
    match cursor.u8()? {
        0 => Ok(Scope::Differing),
        1 => Ok(Scope::Whole),
        2 => Ok(Scope::Look),
        _ => Err(WireError::Malformed("exchange scope")),
    }
}

fn encode_list(scope: Scope, list: &KeyList, out: &mut impl Put) {
    let span = list.span();
    span.buckets.words().iter().for_each(|word| out.put_u64(*word));
    out.put_u64(span.from);
    out.put_u64(span.upto);
    let told = |key: &&Key| key.digest != 0 || scope.tells_tombstones();
    for key in list.keys().iter().filter(told) {
        out.put_u64(key.hash);
        out.put_u64(key.digest);
        if scope == Scope::Look {
            out.put_u64(key.hlc.0);
        }
    }
}

fn decode_list(cursor: &mut Cursor<'_>, scope: Scope) -> Result<KeyList, WireError> {
    let mut words = [0; 4];
    for word in &mut words {
        *word = cursor.u64()?;
    }
    let buckets = BucketSet::from_words(words);
    let span = Span { buckets, from: cursor.u64()?, upto: cursor.u64()? };
    let mut keys = Vec::new();
    while !cursor.is_empty() {
        let (hash, digest) = (cursor.u64()?, cursor.u64()?);
        let hlc = if scope == Scope::Look { Hlc(cursor.u64()?) } else { Hlc::ZERO };
        if keys.len() == KEYS_MAX {
            return Err(WireError::Malformed("number of keys"));
        }
        keys.push(Key { hash, digest, hlc });
    }
    KeyList::checked(span, keys).ok_or(WireError::Malformed("list of keys"))
}

fn decode_hashes(cursor: &mut Cursor<'_>) -> Result<Vec<u64>, WireError> {
    let mut hashes = Vec::new();
    while !cursor.is_empty() {
        let hash = cursor.u64()?;
        if hashes.len() == 2 * KEYS_MAX || hashes.last().is_some_and(|last| *last >= hash) {
            return Err(WireError::Malformed("list of hashes"));
        }
        hashes.push(hash);
    }
    Ok(hashes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::anti_entropy::parts::Piece;

    fn every_body() -> Vec<Body> {
        let piece = |range| Piece { range, sum: 5, count: 0 };
        let mut sums: Sums = Box::new([0; BUCKETS]);
        sums[255] = 7;
        let mut buckets = BucketSet::NONE;
        buckets.insert(64);
        let span = Span { buckets, from: 64 << 56, upto: (64 << 56) + 9 };
        let keys = |hlc| {
            let key = |hash, hlc| Key { hash: (64u64 << 56) + hash, digest: 5, hlc: Hlc(hlc) };
            KeyList::checked(span, vec![key(1, hlc), key(9, 0)]).unwrap()
        };
        let lacks = Lacks { keys: 3, initiator: None, responder: Some(Hlc(8)) };
        vec![
            Body::Root { scope: Scope::Whole, root: Digest(0x0102) },
            Body::Root { scope: Scope::Differing, root: Digest(u128::MAX) },
            Body::Same,
            Body::Buckets(sums),
            Body::Keys { scope: Scope::Whole, list: keys(0) },
            Body::Keys { scope: Scope::Look, list: keys(4) },
            Body::Differ { upto: 9, hashes: vec![1, 2] },
            Body::Looked { upto: 9, lacks },
            Body::Busy,
            Body::Over,
            Body::Left(vec![4, 6]),
            Body::Part(7, Word::Sums { kind: 2, pieces: vec![piece(0..=4), piece(9..=u64::MAX)] }),
            Body::Part(7, Word::Differ { context: vec![1, 2], pieces: vec![true, false, true] }),
            Body::Part(
                7,
                Word::Wanted { kind: 2, known: vec![3], base: vec![], ranges: vec![1..=2] },
            ),
            Body::Part(7, Word::AllWanted),
            Body::Part(7, Word::Sent),
            Body::Part(7, Word::AllSent),
        ]
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        for body in every_body() {
            let message = Message { exchange: 0xDEAD_BEEF, body };
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            assert_eq!(Message::decode(&bytes).as_ref(), Ok(&message));
            for cut in 0..bytes.len() {
                // A list may end anywhere between two of its items.
                assert_ne!(Message::decode(&bytes[..cut]).as_ref(), Ok(&message));
            }
            bytes.push(0);
            assert!(Message::decode(&bytes).is_err());
        }
    }

    #[test]
    fn the_bytes_are_frozen() {
        let mut bytes = Vec::new();
        let root = Body::Root { scope: Scope::Whole, root: Digest(0x0102) };
        Message { exchange: 3, body: root }.encode(&mut bytes);
        let mut frozen = vec![1, 3, 0, 0, 0, 1, 2, 1];
        frozen.resize(22, 0);
        assert_eq!(bytes, frozen);
        assert!(Message::decode(&[1, 3, 0, 0, 0, 3]).is_err());
        assert_eq!(
            Message::decode(&[11, 0, 0, 0, 0]),
            Err(WireError::Malformed("exchange message"))
        );
    }

    #[test]
    fn no_list_is_longer_than_allowed() {
        let encoded = |body| {
            let mut bytes = Vec::new();
            Message { exchange: 1, body }.encode(&mut bytes);
            bytes
        };
        let keys = |count| {
            let key = |hash| Key { hash, digest: 1, hlc: Hlc::ZERO };
            let span = Span::of(BucketSet::ALL);
            KeyList::checked(span, (0..count).map(key).collect()).unwrap()
        };
        let of = |count| encoded(Body::Keys { scope: Scope::Differing, list: keys(count) });
        assert!(Message::decode(&of(KEYS_MAX as u64)).is_ok());
        assert!(Message::decode(&of(KEYS_MAX as u64 + 1)).is_err());
        let of = |count| encoded(Body::Differ { upto: 0, hashes: (0..count).collect() });
        assert!(Message::decode(&of(2 * KEYS_MAX as u64)).is_ok());
        assert!(Message::decode(&of(2 * KEYS_MAX as u64 + 1)).is_err());
    }

    #[test]
    fn who_lacks_what_is_told_by_timestamps() {
        let mut lacks = Lacks::default();
        lacks.note(Hlc(5), Hlc(0));
        lacks.note(Hlc(9), Hlc(7));
        assert_eq!(lacks, Lacks { keys: 2, initiator: None, responder: Some(Hlc(5)) });
        lacks.note(Hlc(3), Hlc(3));
        lacks.add(&Lacks { keys: 1, initiator: Some(Hlc(1)), responder: None });
        assert_eq!(lacks, Lacks { keys: 4, initiator: Some(Hlc(1)), responder: Some(Hlc(3)) });
    }

    proptest! {
        #[test]
        fn garbage_is_refused(kind in 0u8..12, scope in 0u8..4, bytes: Vec<u8>) {
            for bytes in [bytes.clone(), [&[kind, 0, 0, 0, 0, scope], &bytes[..]].concat()] {
                if let Ok(message) = Message::decode(&bytes) {
                    let mut again = Vec::new();
                    message.encode(&mut again);
                    prop_assert_eq!(again, bytes);
                }
            }
        }
    }
}
