//! What a command asks of a key. It is the change, never the command, that is logged and replicated.

use std::borrow::Cow;

use crate::base::time::UnixMs;

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
}
