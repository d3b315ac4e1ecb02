//! Where a command's keys stand among its arguments.
//!
//! All commands of this house have their keys at fixed places: from `first` in strides of `step`
//! up to `last`, counted from the end when negative. Finding them is three additions and no
//! allocation; no argument is looked at.

use super::flags::{Access, Accesses};

/// One rule of where keys are and what happens to them, as `COMMAND INFO` reports it.
#[derive(Clone, Copy, Debug)]
pub struct KeySpec {
    /// A remark for people; often empty.
    pub notes: &'static str,
    /// What the command does with the keys.
    pub accesses: Accesses,
    /// The first key's place; the command's name has place 0.
    pub first: i32,
    /// The last key's place after `first`; -1 is the last argument.
    pub last: i32,
    /// From one key to the next.
    pub step: i32,
}

impl KeySpec {
    /// One key at place `first`.
    pub const fn at(first: i32, accesses: &[Access]) -> KeySpec {
        KeySpec { notes: "", accesses: Accesses::of(accesses), first, last: 0, step: 1 }
    }

    /// Every `step`th argument from place `first` to the end.
    pub const fn from(first: i32, step: i32, accesses: &[Access]) -> KeySpec {
        KeySpec { notes: "", accesses: Accesses::of(accesses), first, last: -1, step }
    }

    /// The same with `count` keys, one after the other.
    #[must_use]
    pub const fn count(mut self, count: i32) -> KeySpec {
        self.last = count - 1;
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
        let last = if self.last < 0 { self.last } else { self.first + self.last };
        KeyRange { first: self.first, last, step: self.step }
    }
}

/// The first key, the last key and the step between them: the three numbers of old in
/// `COMMAND INFO`. All zero: no keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KeyRange {
    /// The first key's place, or 0.
    pub first: i32,
    /// The last key's place; negative counts from the end.
    pub last: i32,
    /// From one key to the next.
    pub step: i32,
}

impl KeyRange {
    /// The keys of all `specs` together. Several specs are neighbouring single keys.
    pub const fn of(specs: &[KeySpec]) -> KeyRange {
        match specs {
            [] => KeyRange { first: 0, last: 0, step: 0 },
            [only] => only.range(),
            [head, .., tail] => {
                KeyRange { first: head.range().first, last: tail.range().last, step: 1 }
            }
        }
    }

    /// Whether there are no keys.
    pub const fn is_empty(self) -> bool {
        self.first == 0
    }

    /// The places of the keys in a request of `count` arguments, its name included. A request
    /// too short to hold the last key has none ([`Keyless::TooShort`]); arity excludes that.
    pub fn places(self, count: usize) -> Result<Places, Keyless> {
        if self.is_empty() {
            return Err(Keyless::Always);
        }
        let (first, step) = (self.first as usize, self.step as usize);
        let end = if self.last < 0 {
            count.saturating_sub(self.last.unsigned_abs() as usize - 1)
        } else {
            self.last as usize + 1
        };
        if end > count || first >= end {
            return Err(Keyless::TooShort);
        }
        Ok(Places { next: first, end, step })
    }
}

/// Why a request has no keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keyless {
    /// The command takes none.
    Always,
    /// The command takes some, but the request ends before them.
    TooShort,
}

/// The places of a request's keys, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Places {
    next: usize,
    end: usize,
    step: usize,
}

impl Iterator for Places {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.next >= self.end {
            return None;
        }
        let place = self.next;
        self.next += self.step;
        Some(place)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.end.saturating_sub(self.next).div_ceil(self.step);
        (left, Some(left))
    }
}

impl ExactSizeIterator for Places {}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(range: KeyRange, count: usize) -> Vec<usize> {
        range.places(count).expect("keys").collect()
    }

    #[test]
    fn keys_stand_where_the_rule_says() {
        let get = KeyRange::of(&[KeySpec::at(1, &[Access::Ro])]);
        assert_eq!(places(get, 2), [1]);
        let mset = KeyRange::of(&[KeySpec::from(1, 2, &[Access::Ow])]);
        assert_eq!(mset, KeyRange { first: 1, last: -1, step: 2 });
        assert_eq!(places(mset, 5), [1, 3]);
        let rename = KeyRange::of(&[KeySpec::at(1, &[Access::Rw]), KeySpec::at(2, &[Access::Ow])]);
        assert_eq!(rename, KeyRange { first: 1, last: 2, step: 1 });
        assert_eq!(places(rename, 3), [1, 2]);
        let lcs = KeyRange::of(&[KeySpec::at(1, &[Access::Ro]).count(2)]);
        assert_eq!(places(lcs, 6), [1, 2]);
    }

    #[test]
    fn a_short_request_has_no_keys_and_does_not_panic() {
        for range in [
            KeyRange { first: 1, last: 1, step: 1 },
            KeyRange { first: 1, last: -1, step: 2 },
            KeyRange { first: 2, last: 2, step: 1 },
        ] {
            assert_eq!(range.places(0), Err(Keyless::TooShort));
            assert_eq!(range.places(1), Err(Keyless::TooShort));
        }
        assert_eq!(KeyRange::default().places(9), Err(Keyless::Always));
    }
}
