//! What a command may see of a key: the visible value, whatever form it is stored in.

use std::borrow::Cow;
use std::cell::RefCell;

use smallvec::SmallVec;

use crate::base::hash::HashSeed;
use crate::base::time::UnixMs;

use super::entry::Entry;
use super::fields::Fields;
use super::packed::Packed;

/// Redis's types.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// A string or counter.
    String,
    /// A list.
    List,
    /// A hash.
    Hash,
    /// A set.
    Set,
    /// A sorted set.
    Zset,
}

impl Kind {
    /// Redis's name, as `TYPE` answers it.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::String => "string",
            Kind::List => "list",
            Kind::Hash => "hash",
            Kind::Set => "set",
            Kind::Zset => "zset",
        }
    }
}

/// The key holds another type than the command wants: `-WRONGTYPE`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WrongType;

/// A visible key. Absent, deleted and expired keys have no view at all.
#[derive(Clone, PartialEq, Debug)]
pub struct View<'a> {
    /// The visible type.
    pub kind: Kind,
    /// When it expires.
    pub expire_at: Option<UnixMs>,
    /// Bytes that the key, its value and its history take in memory; of a large collection nothing,
    /// see [`Views::memory`].
    pub memory: usize,
    /// What it holds.
    pub body: Body<'a>,
}

/// What is remembered of the use of a visible key. There is no clock for each key: a bit says
/// whether it was used since the hand that cools values last came by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Usage {
    /// Nothing: without a limit of memory nobody asks.
    Untracked,
    /// The value is in memory.
    Hot {
        /// Used since the hand last came by.
        visited: bool,
        /// When it was last written.
        written: UnixMs,
    },
    /// The value is on disk only.
    Cold {
        /// When it was last written.
        written: UnixMs,
    },
}

/// What a keyed command may look at: the keys of one vnode, whose lock is held.
pub trait Views {
    /// The visible state of `key` at the call's moment.
    fn view(&self, key: &[u8]) -> Option<View<'_>>;

    /// Bytes that `key`, its value and its history take in memory; none if it is not visible. (To add
    /// them up for a large collection is work that no other look at it needs.)
    fn memory(&self, key: &[u8]) -> Option<usize> {
        self.view(key).map(|view| view.memory)
    }

    /// What is remembered of the use of `key`; none if it is not visible. To ask is no use of it.
    fn usage(&self, key: &[u8]) -> Option<Usage> {
        self.view(key).map(|_| Usage::Untracked)
    }

    /// All that is held of `key`, seen or not: concurrent values, history, tombstone. None of a key
    /// that was never heard of.
    fn history(&self, _key: &[u8]) -> Option<Entry> {
        None
    }

    /// Whether no other node holds the keys: what is there already, nobody can remove at the same
    /// time, and it need not be written again.
    fn is_sole(&self) -> bool {
        false
    }

    /// The cluster's hash seed, by which context tokens are sealed.
    fn seed(&self) -> HashSeed {
        HashSeed(0)
    }
}

/// What a visible key holds.
#[derive(Clone, PartialEq, Debug)]
pub enum Body<'a> {
    /// A string as it is stored.
    Stored(Packed<'a>),
    /// A string that had to be made: a counter's sum.
    Made(Vec<u8>),
    /// A collection.
    Fields(Fields<'a>),
    /// A value that is not in memory.
    Cold {
        /// The length of a string in bytes.
        raw_len: usize,
        /// Its key.
        key: &'a [u8],
        /// Where it is noted that the string was asked for.
        missing: &'a Missing,
    },
}

/// The keys whose values a command asked for and that are not in memory. A command that missed
/// anything was answered with empty strings: its reply and changes are void, and it is run again
/// when the values are there.
#[derive(Debug, Default)]
pub struct Missing(RefCell<SmallVec<[Vec<u8>; 1]>>);

impl Missing {
    /// Whether nothing was missed.
    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Notes that the value of `key` was asked for.
    pub fn note(&self, key: &[u8]) {
        let mut keys = self.0.borrow_mut();
        if !keys.iter().any(|noted| noted == key) {
            keys.push(key.to_vec());
        }
    }

    /// The keys, each once; begins anew.
    pub fn take(&self) -> SmallVec<[Vec<u8>; 1]> {
        self.0.take()
    }
}

/// Not a property of what is seen: two views are equal however they came about.
impl PartialEq for Missing {
    fn eq(&self, _: &Missing) -> bool {
        true
    }
}

impl Body<'_> {
    /// The string. One that is not in memory is noted as missing, and reads as empty.
    pub fn string(&self) -> Cow<'_, [u8]> {
        match self {
            // Blocks are checked when they come in, so a bad one here is damaged memory.
            Body::Stored(packed) => packed.unpack().expect("a stored block unpacks"),
            Body::Made(bytes) => Cow::Borrowed(bytes),
            Body::Cold { key, missing, .. } => {
                missing.note(key);
                Cow::Borrowed(&[])
            }
            Body::Fields(_) => unreachable!("who asks for a string has looked at the type"),
        }
    }
}

impl<'a> View<'a> {
    /// The string.
    pub fn string(&self) -> Result<Cow<'_, [u8]>, WrongType> {
        if self.kind != Kind::String {
            return Err(WrongType);
        }
        Ok(self.body.string())
    }

    /// The string's length, without unpacking it.
    pub fn string_len(&self) -> Result<usize, WrongType> {
        if self.kind != Kind::String {
            return Err(WrongType);
        }
        Ok(match &self.body {
            Body::Stored(packed) => packed.len(),
            Body::Made(bytes) => bytes.len(),
            Body::Cold { raw_len, .. } => *raw_len,
            Body::Fields(_) => unreachable!("a string is no collection"),
        })
    }

    /// The elements of a collection of that type. One that is not in memory is noted as missing, and
    /// reads as empty.
    pub fn fields(&self, kind: Kind) -> Result<Cow<'_, Fields<'a>>, WrongType> {
        if self.kind != kind {
            return Err(WrongType);
        }
        Ok(match &self.body {
            Body::Fields(fields) => Cow::Borrowed(fields),
            Body::Cold { key, missing, .. } => {
                missing.note(key);
                Cow::Owned(Fields::none(kind))
            }
            Body::Stored(_) | Body::Made(_) => unreachable!("a collection is no string"),
        })
    }
}
