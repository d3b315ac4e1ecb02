//! What a command asks of a key. It is the change, never the command, that is logged and replicated.

use std::borrow::Cow;

use crate::base::time::UnixMs;
use crate::version::context::Context;

use super::element::Element;
use super::view::Kind;

/// What becomes of a key's time to live.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expire {
    /// None afterwards.
    Clear,
    /// As it was.
    Keep,
    /// At this moment.
    At(UnixMs),
}

/// An increment. Floats are kept as an unevaluated sum of two doubles (about 31 decimal digits),
/// so that repeated `INCRBYFLOAT 0.1` prints as Redis's long doubles do.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Amount {
    /// INCR, DECR, INCRBY, DECRBY.
    Int(i128),
    /// INCRBYFLOAT: high and low part.
    Float(f64, f64),
}

/// A change of one key.
#[derive(Clone, PartialEq, Debug)]
pub enum Change<'a> {
    /// The key holds this string and nothing else (SET and its kin, APPEND, SETRANGE, …).
    /// It removes everything that the coordinator has seen of the key.
    Put {
        /// The whole new string.
        value: Cow<'a, [u8]>,
        /// Its time to live.
        expire: Expire,
    },
    /// The key is gone (DEL and its kin); what the coordinator has not seen survives.
    Delete,
    /// The string counts further. Bound to the base that is there; on nothing a zero base begins.
    Increment(Amount),
    /// Only the time to live changes (EXPIRE and its kin, PERSIST, GETEX).
    Expire(Option<UnixMs>),
    /// What a client asks that has seen a part of the key's history (KV.SET, KV.DEL). Boxed: it is
    /// rare, and the others must stay small.
    Seen(Box<Seen<'a>>),
    /// Elements of a collection change; it begins with them if nothing is there. The command has
    /// seen that the key holds this type or nothing.
    Edit(Box<Edits<'a>>),
    /// The key holds this collection and nothing else (COPY, RENAME, RESTORE, …STORE).
    Make(Box<Made<'a>>),
}

/// Edits of one collection, each as if those before it were done.
#[derive(Clone, PartialEq, Debug)]
pub struct Edits<'a> {
    /// Its type.
    pub kind: Kind,
    first: Edit<'a>,
    rest: Vec<Edit<'a>>,
}

impl<'a> Edits<'a> {
    /// What is done, in order; at least one.
    pub fn list(&self) -> impl Iterator<Item = &Edit<'a>> {
        std::iter::once(&self.first).chain(&self.rest)
    }

    /// What is done, if it is one thing.
    pub fn single(&self) -> Option<&Edit<'a>> {
        self.rest.is_empty().then_some(&self.first)
    }
}

/// An edit of a collection.
#[derive(Clone, PartialEq, Debug)]
pub enum Edit<'a> {
    /// The field or member holds this and nothing else: a value, nothing, or a score (see
    /// [`Edit::score`]).
    Set {
        /// Field or member.
        name: Cow<'a, [u8]>,
        /// What it holds.
        value: Cow<'a, [u8]>,
        /// When the field expires; only of hashes.
        expire_at: Option<UnixMs>,
    },
    /// The field or member is gone.
    Remove {
        /// Field or member.
        name: Cow<'a, [u8]>,
    },
    /// The field or score counts further; on nothing it begins with this.
    Add {
        /// Field or member.
        name: Cow<'a, [u8]>,
        /// What is added; finite.
        amount: Amount,
    },
    /// A new first element of a list.
    PushLeft(Cow<'a, [u8]>),
    /// A new last element of a list.
    PushRight(Cow<'a, [u8]>),
    /// A new element of a list before the one that is at `place` now.
    Insert {
        /// From 0; what lies beyond the last is after it.
        place: usize,
        /// What it holds.
        value: Cow<'a, [u8]>,
    },
    /// An element of a list holds something else.
    SetAt {
        /// From 0.
        place: usize,
        /// What it holds.
        value: Cow<'a, [u8]>,
    },
    /// Elements of a list are gone.
    RemoveRange {
        /// The first, from 0.
        place: usize,
        /// How many.
        count: usize,
    },
}

impl<'a> Edit<'a> {
    /// A member of a set.
    pub fn member(name: impl Into<Cow<'a, [u8]>>) -> Edit<'a> {
        Edit::field(name, &b""[..])
    }

    /// A field of a hash.
    pub fn field(name: impl Into<Cow<'a, [u8]>>, value: impl Into<Cow<'a, [u8]>>) -> Edit<'a> {
        Edit::Set { name: name.into(), value: value.into(), expire_at: None }
    }

    /// A member of a sorted set with its score, which is no NaN.
    pub fn score(name: impl Into<Cow<'a, [u8]>>, score: f64) -> Edit<'a> {
        Edit::field(name, score.to_le_bytes().to_vec())
    }

    /// A removal.
    pub fn remove(name: impl Into<Cow<'a, [u8]>>) -> Edit<'a> {
        Edit::Remove { name: name.into() }
    }
}

/// A collection, whole.
#[derive(Clone, PartialEq, Debug)]
pub struct Made<'a> {
    /// Its type.
    pub kind: Kind,
    /// When it expires.
    pub expire_at: Option<UnixMs>,
    /// At least one; a list's in order. Of two of one name the last one counts.
    pub elements: Vec<Element<'a>>,
}

impl<'a> Change<'a> {
    /// Edits of one collection.
    ///
    /// # Panics
    /// If there are none: whoever changes nothing asks for no change.
    pub fn edit(kind: Kind, list: impl IntoIterator<Item = Edit<'a>>) -> Change<'a> {
        let mut list = list.into_iter();
        let first = list.next().expect("an edit at least");
        Change::Edit(Box::new(Edits { kind, first, rest: list.collect() }))
    }

    /// One edit of a collection.
    pub fn edit_one(kind: Kind, edit: Edit<'a>) -> Change<'a> {
        Change::Edit(Box::new(Edits { kind, first: edit, rest: Vec::new() }))
    }

    /// A collection in the place of whatever is there; of nothing, a removal.
    pub fn make(kind: Kind, expire_at: Option<UnixMs>, elements: Vec<Element<'a>>) -> Change<'a> {
        if elements.is_empty() {
            return Change::Delete;
        }
        Change::Make(Box::new(Made { kind, expire_at, elements }))
    }
}

/// A write by a client that has seen `context` of the key and no more (Dynamo §4.4): what the
/// context knows is removed, the rest stays beside what is put.
#[derive(Clone, PartialEq, Debug)]
pub struct Seen<'a> {
    /// What the client has seen. It is learned from, so it must be true: a history that a replica
    /// once had, see [`Seal`](super::token::Seal).
    pub context: Context,
    /// The new string and its time to live; `None` removes only.
    pub put: Option<(Cow<'a, [u8]>, Expire)>,
}
