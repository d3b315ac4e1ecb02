//! What a command asks of a key. It is the change, never the command, that is logged and replicated.

use std::borrow::Cow;

use crate::base::time::UnixMs;
use crate::version::context::Context;

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
