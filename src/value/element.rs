//! Elements of collections: what commands see of one, and how a list's are named.
//!
//! A field of a hash and a member of a set are called what clients call them. A list's element is
//! called after its position and its birth:
//!
//! ```text
//! position  u96 big-endian: pushes go down or up by a step, an insertion halves a gap
//! dot       hlc u64 · actor u32, big-endian
//! ```
//!
//! It keeps that name for life, and its value is a register under it. Two pushes that do not know
//! each other may choose one position: the dot makes their names different, and orders them alike
//! everywhere. Where no position is left between two neighbours, the new name is the left one's,
//! longer: `left │ digits │ dot` lies between them (as in Logoot, Weiss and others, 2009).

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::base::id::Actor;
use crate::base::limits::KEY_SIZE_MAX;
use crate::base::time::{Dot, Hlc, UnixMs};

use super::view::Kind;

/// What a name of a list's element is at least: position and dot.
const POSITION_SIZE: usize = 12;
const DOT_SIZE: usize = 12;

/// How far apart two pushes are: an insertion finds room 32 times in the same gap.
const STEP: u128 = 1 << 32;

/// The first element of a list stands in the middle, for it grows on both sides.
const MIDDLE: u128 = 1 << 95;

/// Its position, in steps.
pub(super) const FIRST_STEP: u64 = (MIDDLE / STEP) as u64;

/// A list's name is this long unless it was squeezed in between two others.
pub(super) const PLAIN_NAME_SIZE: usize = POSITION_SIZE + DOT_SIZE;

/// Longest name of a list's element: so often nothing is inserted at one place by accident.
const NAME_SIZE_MAX: usize = KEY_SIZE_MAX;

/// One visible element of a collection.
#[derive(Clone, PartialEq, Debug)]
pub struct Element<'a> {
    /// Field or member; of a list's element nothing that clients see.
    pub name: Cow<'a, [u8]>,
    /// The value of a hash's field or of a list's element; else empty.
    pub value: Cow<'a, [u8]>,
    /// The score of a sorted set's member; else zero.
    pub score: f64,
    /// When a hash's field expires.
    pub expire_at: Option<UnixMs>,
}

impl<'a> Element<'a> {
    /// A field of a hash.
    pub fn field(name: impl Into<Cow<'a, [u8]>>, value: impl Into<Cow<'a, [u8]>>) -> Element<'a> {
        Element { name: name.into(), value: value.into(), score: 0.0, expire_at: None }
    }

    /// A member of a set.
    pub fn member(name: impl Into<Cow<'a, [u8]>>) -> Element<'a> {
        Element::field(name, &b""[..])
    }

    /// A member of a sorted set.
    pub fn scored(name: impl Into<Cow<'a, [u8]>>, score: f64) -> Element<'a> {
        Element { score, ..Element::member(name) }
    }

    /// An element of a list.
    pub fn item(value: impl Into<Cow<'a, [u8]>>) -> Element<'a> {
        Element::field(&b""[..], value)
    }

    /// The same, of its own.
    pub fn into_owned(self) -> Element<'static> {
        Element {
            name: Cow::Owned(self.name.into_owned()),
            value: Cow::Owned(self.value.into_owned()),
            ..self
        }
    }
}

/// The byte that says which type a collection is.
pub(super) const fn tag(kind: Kind) -> u8 {
    match kind {
        Kind::String => 0,
        Kind::List => 1,
        Kind::Hash => 2,
        Kind::Set => 3,
        Kind::Zset => 4,
    }
}

/// The type of a collection that a byte says.
pub(super) const fn kind_of(tag: u8) -> Option<Kind> {
    match tag {
        1 => Some(Kind::List),
        2 => Some(Kind::Hash),
        3 => Some(Kind::Set),
        4 => Some(Kind::Zset),
        _ => None,
    }
}

/// The name of a list's element at a position of so many steps, born as `dot`.
pub(super) fn place_name(step: u64, dot: Dot) -> [u8; PLAIN_NAME_SIZE] {
    let mut name = [0; PLAIN_NAME_SIZE];
    name[..8].copy_from_slice(&step.to_be_bytes());
    name[POSITION_SIZE..][..8].copy_from_slice(&dot.hlc.0.to_be_bytes());
    name[POSITION_SIZE + 8..].copy_from_slice(&dot.actor.0.to_be_bytes());
    name
}

/// The steps and the dot of which [`place_name`] makes that name, if it does.
pub(super) fn split_name(name: &[u8]) -> Option<(u64, Dot)> {
    let name: &[u8; PLAIN_NAME_SIZE] = name.try_into().ok()?;
    let step = first_step(name);
    let hlc = u64::from_be_bytes(name[POSITION_SIZE..][..8].try_into().expect("eight bytes"));
    let actor = u32::from_be_bytes(name[POSITION_SIZE + 8..].try_into().expect("four bytes"));
    let dot = Dot::new(Hlc(hlc), Actor(actor));
    // Between two steps stand elements that were inserted.
    name[8..POSITION_SIZE].iter().all(|&digit| digit == 0).then_some((step, dot))
}

/// The steps of a list's name's position, rounded down; nothing of another name matters.
pub(super) fn first_step(name: &[u8]) -> u64 {
    name.first_chunk().map_or(0, |step| u64::from_be_bytes(*step))
}

/// The name of a list's new element `dot` between two names, if there is room for it.
///
/// # Errors
/// The name would be too long: too much was inserted at this place.
pub(super) fn between(
    left: Option<&[u8]>,
    right: Option<&[u8]>,
    dot: Dot,
) -> Result<ListName, NameTooLong> {
    let position = match (left.map(position_of), right.map(position_of)) {
        (None, None) => Some(MIDDLE),
        (Some(left), None) => left.checked_add(STEP).filter(|at| at >> (8 * POSITION_SIZE) == 0),
        (None, Some(right)) => right.checked_sub(STEP),
        (Some(left), Some(right)) => {
            let middle = left + right.saturating_sub(left) / 2;
            (left < middle && middle < right).then_some(middle)
        }
    };
    if let Some(position) = position {
        let mut name = [0; PLAIN_NAME_SIZE];
        name[..POSITION_SIZE].copy_from_slice(&position.to_be_bytes()[16 - POSITION_SIZE..]);
        name[POSITION_SIZE..][..8].copy_from_slice(&dot.hlc.0.to_be_bytes());
        name[POSITION_SIZE + 8..].copy_from_slice(&dot.actor.0.to_be_bytes());
        return Ok(SmallVec::from_slice(&name));
    }
    // Longer than the left name is greater than it; only where the right one is longer than the
    // left one, too, digits must be chosen.
    let left = left.unwrap_or(&[]);
    let mut name = SmallVec::from_slice(left);
    let beyond = right.and_then(|right| right.strip_prefix(left));
    digits_before(beyond.unwrap_or(&[u8::MAX]), &mut name);
    name.extend_from_slice(&dot.hlc.0.to_be_bytes());
    name.extend_from_slice(&dot.actor.0.to_be_bytes());
    if name.len() > NAME_SIZE_MAX { Err(NameTooLong) } else { Ok(name) }
}

/// The name of a list's element: most are short.
pub(super) type ListName = SmallVec<[u8; 32]>;

/// Too much was inserted at one place of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NameTooLong;

/// Appends digits so that whatever follows them is less than `right`.
fn digits_before(right: &[u8], out: &mut ListName) {
    for &digit in right {
        match digit {
            0 => out.push(0),
            1 => {
                out.extend_from_slice(&[0, 0x80]);
                return;
            }
            _ => {
                out.push(digit / 2);
                return;
            }
        }
    }
    debug_assert!(false, "a name ends with a dot, which is not zero");
}

/// The position in a list's name.
fn position_of(name: &[u8]) -> u128 {
    if let Some(digits) = name.first_chunk::<POSITION_SIZE>() {
        let mut bytes = [0; 16];
        bytes[16 - POSITION_SIZE..].copy_from_slice(digits);
        return u128::from_be_bytes(bytes);
    }
    let mut bytes = [0; 16];
    let digits = &name[..name.len().min(POSITION_SIZE)];
    bytes[16 - POSITION_SIZE..][..digits.len()].copy_from_slice(digits);
    u128::from_be_bytes(bytes)
}

/// The names of `count` elements of a new list whose dots follow `dot` (each one timestamp later).
pub(super) fn row(count: usize, dot: Dot) -> impl Iterator<Item = Vec<u8>> {
    (0..count as u64).map(move |nth| {
        place_name(FIRST_STEP + nth, Dot::new(Hlc(dot.hlc.0 + nth), dot.actor)).to_vec()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The dot that an element of a list was born as.
    fn birth(name: &[u8]) -> Dot {
        let (hlc, actor) = name[name.len() - DOT_SIZE..].split_at(8);
        let hlc = u64::from_be_bytes(hlc.try_into().expect("eight bytes"));
        let actor = u32::from_be_bytes(actor.try_into().expect("four bytes"));
        Dot::new(Hlc(hlc), Actor(actor))
    }

    proptest! {
        #[test]
        fn insertions_keep_their_order(places in proptest::collection::vec(any::<u32>(), 1..200)) {
            let mut names: Vec<Vec<u8>> = Vec::new();
            for (nth, place) in places.into_iter().enumerate() {
                let at = place as usize % (names.len() + 1);
                let (left, right) = (at.checked_sub(1).map(|at| &names[at]), names.get(at));
                let dot = Dot::new(Hlc(nth as u64 + 1), Actor(place % 3));
                let name = between(left.map(Vec::as_slice), right.map(Vec::as_slice), dot);
                names.insert(at, name.expect("room").to_vec());
            }
            prop_assert!(names.is_sorted());
        }

        /// Where two pushed to one position, there is room between them, again and again.
        #[test]
        fn there_is_room_between_equals(sides in proptest::collection::vec(any::<bool>(), 1..200)) {
            let same = |hlc| between(None, None, Dot::new(Hlc(hlc), Actor(1))).expect("room");
            let (mut left, mut right) = (same(1), same(2));
            for (nth, goes_left) in sides.into_iter().enumerate() {
                let dot = Dot::new(Hlc(nth as u64 + 3), Actor(1));
                let name = between(Some(&left), Some(&right), dot).expect("room");
                prop_assert!(left < name && name < right);
                prop_assert_eq!(birth(&name), dot);
                if goes_left { right = name } else { left = name }
            }
        }
    }

    #[test]
    fn a_row_is_in_order() {
        let names: Vec<_> = row(300, Dot::new(Hlc(9), Actor(1))).collect();
        assert!(names.is_sorted() && names.len() == 300);
        assert_eq!(birth(&names[2]), Dot::new(Hlc(11), Actor(1)));
    }
}
