//! A cell: what an element holds, looked at in every way.

use std::borrow::Cow;

use crate::base::hash::Digest;
use crate::base::time::{Dot, UnixMs};
use crate::base::wire::Cursor;
use crate::value::digest::Terms;
use crate::value::element::Element;
use crate::value::packed::Packed;
use crate::value::register::{Register, Sibling};
use crate::value::view::{Body as Shown, Kind};

use super::leaf::{Cell, Item, Name, New};

/// The register that a cell is.
pub(in crate::value) fn register_of(cell: &Cell<'_>) -> Register {
    match cell {
        Cell::Single { dot, value, expire_at } => Register::single(*dot, value, *expire_at),
        Cell::Register(bytes) => {
            Register::decode(&mut Cursor::new(bytes)).expect("a stored register decodes")
        }
    }
}

/// What writes a cell as it is.
pub(super) fn rewritten<'a>(cell: &Cell<'a>) -> New<'a> {
    match *cell {
        Cell::Single { dot, value, expire_at } => New::Single { dot, value, expire_at },
        Cell::Register(_) => New::Register(register_of(cell)),
    }
}

/// Every dot that a cell's values were made by.
pub(in crate::value) fn dots_of(cell: &Cell<'_>, mut visit: impl FnMut(Dot)) {
    match cell {
        Cell::Single { dot, .. } => visit(*dot),
        Cell::Register(_) => {
            register_of(cell).siblings().iter().for_each(|sibling| visit(sibling.dot));
        }
    }
}

/// When what a cell shows expires.
pub(super) fn expiry_of(cell: &Cell<'_>) -> Option<UnixMs> {
    match cell {
        Cell::Single { expire_at, .. } => *expire_at,
        Cell::Register(_) => register_of(cell).expire_at(),
    }
}

/// The score that a cell of a sorted set shows.
pub(super) fn score_of(cell: &Cell<'_>) -> f64 {
    match cell {
        Cell::Single { value, .. } => score_in(value),
        Cell::Register(_) => register_of(cell).score(),
    }
}

/// The score that a value says.
pub(super) fn score_in(value: &Packed<'_>) -> f64 {
    value.bytes.try_into().map_or(0.0, f64::from_le_bytes)
}

/// The digest of an element.
pub(super) fn digest_of(terms: Terms, kind: Kind, name: &[u8], cell: &Cell<'_>) -> Digest {
    match cell {
        Cell::Single { dot, .. } => terms.element(kind, name, *dot),
        Cell::Register(_) => digest_of_register(terms, kind, name, register_of(cell).siblings()),
    }
}

pub(super) fn digest_of_register(
    terms: Terms,
    kind: Kind,
    name: &[u8],
    siblings: &[Sibling],
) -> Digest {
    let mut sum = Digest::NONE;
    for sibling in siblings {
        sum = sum.plus(terms.element(kind, name, sibling.dot));
        for inc in &sibling.increments {
            sum = sum.plus(terms.element_increment(kind, name, sibling.dot, inc.dot()));
        }
    }
    sum
}

/// An element as commands see it.
pub(super) fn shown<'a>(kind: Kind, item: &Item<'a>) -> Element<'a> {
    let name = match item.name {
        Name::Written(bytes) => Cow::Borrowed(bytes),
        // What a list's element is called is nothing to clients.
        Name::Made(_) => Cow::Borrowed(&[][..]),
    };
    let name = if kind == Kind::List { Cow::Borrowed(&[][..]) } else { name };
    let (value, score) = match kind {
        Kind::Zset => (Cow::Borrowed(&[][..]), score_of(&item.cell)),
        _ => (text_of(&item.cell), 0.0),
    };
    Element { name, value, score, expire_at: expiry_of(&item.cell) }
}

/// The text that a cell shows.
fn text_of<'a>(cell: &Cell<'a>) -> Cow<'a, [u8]> {
    match cell {
        Cell::Single { value, .. } => value.unpack().expect("a stored block unpacks"),
        Cell::Register(_) => match register_of(cell).body() {
            Some(Shown::Stored(packed)) => {
                Cow::Owned(packed.unpack().expect("a stored block unpacks").into_owned())
            }
            Some(Shown::Made(text)) => Cow::Owned(text),
            _ => Cow::Borrowed(&[]),
        },
    }
}

/// Whether what a cell holds shows at `now`.
pub(super) fn is_alive(cell: &Cell<'_>, now: UnixMs) -> bool {
    match cell {
        Cell::Single { expire_at, .. } => expire_at.is_none_or(|at| at > now),
        Cell::Register(_) => register_of(cell).is_visible(now),
    }
}
