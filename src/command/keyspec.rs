//! Where a command's keys stand among its arguments.
//!
//! Nearly all commands have their keys at fixed places: from `first` in strides of `step` up to
//! `last`, counted from the end when negative. Finding them is three additions and no allocation;
//! no argument is looked at. A few say in an argument how many keys follow it (`SINTERCARD 2 a b`).

use super::flags::{Access, Accesses};
use super::number::plain_integer;

/// One rule of where keys are and what happens to them, as `COMMAND INFO` reports it.
#[derive(Clone, Copy, Debug)]
pub struct KeySpec {
    /// A remark for people; often empty.
    pub notes: &'static str,
    /// What the command does with the keys.
    pub accesses: Accesses,
    /// The first key's place, or that of their number; the command's name has place 0.
    pub first: i32,
    /// How many keys there are from there.
    pub extent: Extent,
}

/// How many keys a [`KeySpec`] finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extent {
    /// Those up to a place.
    Range {
        /// The last key's place after the first; -1 is the last argument.
        last: i32,
        /// From one key to the next.
        step: i32,
    },
    /// As many as the argument says, right behind it.
    Counted,
}

impl KeySpec {
    const fn new(first: i32, extent: Extent, accesses: &[Access]) -> KeySpec {
        KeySpec { notes: "", accesses: Accesses::of(accesses), first, extent }
    }

    /// One key at place `first`.
    pub const fn at(first: i32, accesses: &[Access]) -> KeySpec {
        KeySpec::new(first, Extent::Range { last: 0, step: 1 }, accesses)
    }

    /// Every `step`th argument from place `first` to the end.
    pub const fn from(first: i32, step: i32, accesses: &[Access]) -> KeySpec {
        KeySpec::new(first, Extent::Range { last: -1, step }, accesses)
    }

    /// As many keys as the argument at place `number` says, which follow it.
    pub const fn counted(number: i32, accesses: &[Access]) -> KeySpec {
        KeySpec::new(number, Extent::Counted, accesses)
    }

    /// The same with `count` keys, one after the other.
    #[must_use]
    pub const fn count(mut self, count: i32) -> KeySpec {
        self.extent = Extent::Range { last: count - 1, step: 1 };
        self
    }

    /// The same with a remark.
    #[must_use]
    pub const fn notes(mut self, notes: &'static str) -> KeySpec {
        self.notes = notes;
        self
    }

    /// The keys of this rule alone.
    pub const fn range(&self) -> KeyRange {
        match self.extent {
            Extent::Range { last, step } => {
                let last = if last < 0 { last } else { self.first + last };
                KeyRange { first: self.first, last, step, number: 0 }
            }
            Extent::Counted => KeyRange { number: self.first, ..KeyRange::NONE },
        }
    }
}

/// The first key, the last key and the step between them: the three numbers of old in
/// `COMMAND INFO`, which leave out keys whose number is told. All zero: no keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KeyRange {
    /// The first key's place, or 0.
    pub first: i32,
    /// The last key's place; negative counts from the end.
    pub last: i32,
    /// From one key to the next.
    pub step: i32,
    /// Where the number of further keys stands, which follow it; 0 if there are none.
    pub number: i32,
}

impl KeyRange {
    /// No keys.
    pub const NONE: KeyRange = KeyRange { first: 0, last: 0, step: 0, number: 0 };

    /// The keys of all `specs` together. Several specs are neighbouring keys; of those, keys whose
    /// number is told come last, after a single one.
    pub const fn of(specs: &[KeySpec]) -> KeyRange {
        match specs {
            [] => KeyRange::NONE,
            [only] => only.range(),
            [head, .., tail] => match tail.extent {
                Extent::Counted => KeyRange { number: tail.first, ..head.range() },
                Extent::Range { .. } => KeyRange {
                    first: head.range().first,
                    last: tail.range().last,
                    step: 1,
                    number: 0,
                },
            },
        }
    }

    /// Whether there are no keys.
    pub const fn is_empty(self) -> bool {
        self.first == 0 && self.number == 0
    }

    /// The places of the keys in a request, its name included. One too short to hold the last key
    /// has none ([`Keyless::TooShort`]); arity excludes that.
    pub fn places(self, args: &[&[u8]]) -> Result<Places, Keyless> {
        let fixed = match self.first {
            0 => Places { next: 0, end: 0, step: 1, more: (0, 0) },
            _ => self.fixed(args.len())?,
        };
        match self.number {
            0 if self.first == 0 => Err(Keyless::Always),
            0 => Ok(fixed),
            number => {
                let behind = number as usize + 1;
                let count = args.get(number as usize).ok_or(Keyless::TooShort)?;
                let count = plain_integer(count).and_then(|count| usize::try_from(count).ok());
                let count = count.filter(|&count| count > 0 && count <= args.len() - behind);
                let count = count.ok_or(Keyless::Miscounted)?;
                Ok(Places { more: (behind, behind + count), ..fixed })
            }
        }
    }

    fn fixed(self, count: usize) -> Result<Places, Keyless> {
        let (first, step) = (self.first as usize, self.step as usize);
        let end = if self.last < 0 {
            count.saturating_sub(self.last.unsigned_abs() as usize - 1)
        } else {
            self.last as usize + 1
        };
        if end > count || first >= end {
            return Err(Keyless::TooShort);
        }
        Ok(Places { next: first, end, step, more: (0, 0) })
    }
}

/// Why a request has no keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keyless {
    /// The command takes none.
    Always,
    /// The command takes some, but the request ends before them.
    TooShort,
    /// The command takes as many as an argument says, which is no number or too great a one.
    Miscounted,
}

/// The places of a request's keys, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Places {
    next: usize,
    end: usize,
    step: usize,
    /// The run of keys that come then.
    more: (usize, usize),
}

impl Iterator for Places {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.next >= self.end {
            if self.more.0 >= self.more.1 {
                return None;
            }
            (self.next, self.end) = self.more;
            (self.step, self.more) = (1, (0, 0));
        }
        let place = self.next;
        self.next += self.step;
        Some(place)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.end.saturating_sub(self.next).div_ceil(self.step);
        let left = left + (self.more.1 - self.more.0);
        (left, Some(left))
    }
}

impl ExactSizeIterator for Places {}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(range: KeyRange, count: usize) -> Vec<usize> {
        range.places(&vec![&b"x"[..]; count]).expect("keys").collect()
    }

    #[test]
    fn keys_stand_where_the_rule_says() {
        let get = KeyRange::of(&[KeySpec::at(1, &[Access::Ro])]);
        assert_eq!(places(get, 2), [1]);
        let mset = KeyRange::of(&[KeySpec::from(1, 2, &[Access::Ow])]);
        assert_eq!(mset, KeyRange { first: 1, last: -1, step: 2, number: 0 });
        assert_eq!(places(mset, 5), [1, 3]);
        let rename = KeyRange::of(&[KeySpec::at(1, &[Access::Rw]), KeySpec::at(2, &[Access::Ow])]);
        assert_eq!(rename, KeyRange { first: 1, last: 2, step: 1, number: 0 });
        assert_eq!(places(rename, 3), [1, 2]);
        let lcs = KeyRange::of(&[KeySpec::at(1, &[Access::Ro]).count(2)]);
        assert_eq!(places(lcs, 6), [1, 2]);
    }

    #[test]
    fn a_short_request_has_no_keys_and_does_not_panic() {
        for range in [
            KeyRange { first: 1, last: 1, step: 1, number: 0 },
            KeyRange { first: 1, last: -1, step: 2, number: 0 },
            KeyRange { first: 2, last: 2, step: 1, number: 0 },
            KeyRange { first: 0, last: 0, step: 0, number: 1 },
            KeyRange { first: 1, last: 1, step: 1, number: 2 },
        ] {
            assert_eq!(range.places(&[]), Err(Keyless::TooShort));
            assert_eq!(range.places(&[b"x"]), Err(Keyless::TooShort));
        }
        assert_eq!(KeyRange::NONE.places(&[b"x", b"1", b"y"]), Err(Keyless::Always));
    }

    #[test]
    fn an_argument_may_say_how_many_keys_follow() {
        let found = |range: KeyRange, words: &str| {
            let words: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
            let places = range.places(&words)?;
            let count = places.len();
            let places: Vec<usize> = places.collect();
            assert_eq!(places.len(), count);
            Ok(places)
        };
        let card = KeyRange::of(&[KeySpec::counted(1, &[Access::Ro])]);
        assert!(!card.is_empty() && (card.first, card.last, card.step) == (0, 0, 0));
        assert_eq!(found(card, "sintercard 2 a b limit 1"), Ok(vec![2, 3]));
        assert_eq!(found(card, "sintercard 1 a"), Ok(vec![2]));
        for words in ["x 0 a", "x -1 a", "x 2 a", "x a b", "x 9223372036854775807 a"] {
            assert_eq!(found(card, words), Err(Keyless::Miscounted), "{words}");
        }
        let store =
            KeyRange::of(&[KeySpec::at(1, &[Access::Ow]), KeySpec::counted(2, &[Access::Ro])]);
        assert_eq!((store.first, store.last, store.step), (1, 1, 1));
        assert_eq!(found(store, "zunionstore d 2 a b weights 1 2"), Ok(vec![1, 3, 4]));
        assert_eq!(found(store, "zunionstore d 3 a b"), Err(Keyless::Miscounted));
    }
}
