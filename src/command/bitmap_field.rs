//! Integers of any width anywhere in a string: BITFIELD and BITFIELD_RO.
//!
//! ```text
//! BITFIELD k SET i5 3 -7      bit  0     3         8
//!                                  │ . . . 1 1 0 0 1 │      the highest bit first
//! ```
//!
//! A field of `n` bits at `#k` lies at bit `n * k`. What a number is cut to that does not fit is
//! said by the last OVERFLOW before it.

use std::borrow::Cow;

use crate::base::limits::VALUE_SIZE_MAX;
use crate::value::change::Change;

use super::bitmap::{BitmapError, allowed_offset, offset};
use super::fault::{Fault, answer};
use super::number::{integer, is, plain_integer};
use super::range::base;
use super::spec::Call;

/// The type of a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Width {
    signed: bool,
    /// 1 to 63; signed up to 64.
    bits: u32,
}

impl Width {
    fn parse<'a>(text: &[u8]) -> Result<Width, Fault<'a>> {
        let parsed = text.split_first().and_then(|(sign, digits)| {
            let signed = match sign {
                b'i' => true,
                b'u' => false,
                _ => return None,
            };
            let bits = u32::try_from(plain_integer(digits)?).ok()?;
            let fits = bits >= 1 && bits <= 63 + u32::from(signed);
            fits.then_some(Width { signed, bits })
        });
        parsed.ok_or(BitmapError::FieldType.into())
    }

    /// The place of a field: a bit, or `#` and the number of fields before it.
    fn place<'a>(self, text: &[u8]) -> Result<u64, Fault<'a>> {
        let Some(text) = text.strip_prefix(b"#") else { return offset(text) };
        let place = plain_integer(text).and_then(|nth| nth.checked_mul(i64::from(self.bits)));
        place.and_then(allowed_offset).ok_or(BitmapError::Offset.into())
    }

    /// The least and the greatest number.
    const fn bounds(self) -> (i128, i128) {
        match self.signed {
            true => (-(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1),
            false => (0, (1 << self.bits) - 1),
        }
    }

    /// The number that the lowest bits of `raw` are.
    const fn number(self, raw: i128) -> i128 {
        let unused = i128::BITS - self.bits;
        if self.signed {
            raw << unused >> unused
        } else {
            ((raw as u128) << unused >> unused) as i128
        }
    }

    /// The bytes that a field at `place` touches, and how far it is from the end of the last.
    const fn bytes(self, place: u64) -> (usize, usize, u32) {
        let end = place + self.bits as u64;
        let (first, last) = ((place >> 3) as usize, ((end - 1) >> 3) as usize);
        (first, last, (last as u64 * 8 + 8 - end) as u32)
    }

    /// The number at `place`; beyond the string are zeros.
    fn read(self, string: &[u8], place: u64) -> i128 {
        let (first, last, shift) = self.bytes(place);
        let byte = |at: usize| i128::from(string.get(at).copied().unwrap_or(0));
        let raw = (first..=last).fold(0, |raw, at| raw << 8 | byte(at));
        self.number(raw >> shift)
    }

    /// Writes the number at `place`, which lies in the string.
    fn write(self, string: &mut [u8], place: u64, number: i128) {
        let (first, last, shift) = self.bytes(place);
        let mask = ((1u128 << self.bits) - 1) << shift;
        let raw = ((number as u128) << shift) & mask;
        for (nth, byte) in string[first..=last].iter_mut().rev().enumerate() {
            let at = nth * 8;
            *byte = *byte & !((mask >> at) as u8) | (raw >> at) as u8;
        }
    }
}

/// What becomes of a number that its field cannot hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Overflow {
    /// Its lowest bits stay.
    Wrap,
    /// The nearest number that fits.
    Saturate,
    /// Nothing is written.
    Fail,
}

impl Overflow {
    fn parse<'a>(word: &[u8]) -> Result<Overflow, Fault<'a>> {
        match word {
            _ if is(word, "WRAP") => Ok(Overflow::Wrap),
            _ if is(word, "SAT") => Ok(Overflow::Saturate),
            _ if is(word, "FAIL") => Ok(Overflow::Fail),
            _ => Err(BitmapError::Overflow.into()),
        }
    }

    /// What is written for `number`. (Redis saturates some numbers far below the least to the
    /// greatest, by an overflow of its own; that is not followed.)
    fn fit(self, width: Width, number: i128) -> Option<i128> {
        let (least, greatest) = width.bounds();
        match self {
            _ if (least..=greatest).contains(&number) => Some(number),
            Overflow::Wrap => Some(width.number(number)),
            Overflow::Saturate => Some(number.clamp(least, greatest)),
            Overflow::Fail => None,
        }
    }
}

/// What is done with a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Deed {
    Get,
    Set(i64, Overflow),
    Add(i64, Overflow),
}

/// One field and what is done with it.
#[derive(Clone, Copy, Debug)]
struct Step {
    width: Width,
    place: u64,
    deed: Deed,
}

impl Step {
    const fn is_write(&self) -> bool {
        !matches!(self.deed, Deed::Get)
    }

    /// How long a string must be to hold the field.
    const fn len(&self) -> usize {
        self.width.bytes(self.place).1 + 1
    }

    /// Does it, and notes in `changed` whether that changed anything; answers what the client is told.
    fn run(&self, string: &mut Cow<'_, [u8]>, changed: &mut bool) -> Option<i128> {
        let old = self.width.read(string, self.place);
        let (wanted, overflow) = match self.deed {
            Deed::Get => return Some(old),
            // Of an unsigned field's number the bits count: -1 is the greatest.
            Deed::Set(number, overflow) if !self.width.signed => {
                (i128::from(number as u64), overflow)
            }
            Deed::Set(number, overflow) => (i128::from(number), overflow),
            Deed::Add(by, overflow) => (old + i128::from(by), overflow),
        };
        let new = overflow.fit(self.width, wanted)?;
        if new != old {
            self.width.write(string.to_mut(), self.place, new);
            *changed = true;
        }
        Some(if matches!(self.deed, Deed::Set(..)) { old } else { new })
    }
}

/// Reads the steps of a request.
fn steps<'a>(mut words: &[&'a [u8]]) -> Result<Vec<Step>, Fault<'a>> {
    let mut steps = Vec::new();
    let mut overflow = Overflow::Wrap;
    loop {
        words = match *words {
            [] => return Ok(steps),
            [word, kind, ref rest @ ..] if is(word, "OVERFLOW") => {
                overflow = Overflow::parse(kind)?;
                rest
            }
            [word, width, place, ref rest @ ..] if is(word, "GET") => {
                let width = Width::parse(width)?;
                steps.push(Step { width, place: width.place(place)?, deed: Deed::Get });
                rest
            }
            [word, width, place, number, ref rest @ ..] if is(word, "SET") => {
                let width = Width::parse(width)?;
                let place = width.place(place)?;
                let deed = Deed::Set(integer(number)?, overflow);
                steps.push(Step { width, place, deed });
                rest
            }
            [word, width, place, number, ref rest @ ..] if is(word, "INCRBY") => {
                let width = Width::parse(width)?;
                let place = width.place(place)?;
                let deed = Deed::Add(integer(number)?, overflow);
                steps.push(Step { width, place, deed });
                rest
            }
            _ => return Err(Fault::Syntax),
        };
    }
}

/// `BITFIELD key [GET type offset | [OVERFLOW WRAP | SAT | FAIL] SET type offset value |
/// INCRBY type offset increment] …`. The string grows to hold every field that is to be written,
/// even if none is.
pub fn bitfield(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let key = call.args[1];
        let steps = steps(&call.args[2..])?;
        let len = steps.iter().filter(|step| step.is_write()).map(Step::len).max().unwrap_or(0);
        let view = call.views.view(key);
        let (mut string, expire) = base(view.as_ref())?;
        if len > VALUE_SIZE_MAX {
            return Err(Fault::TooLong);
        }
        let mut changed = len > string.len();
        if changed {
            string.to_mut().resize(len, 0);
        }
        call.reply.array(steps.len());
        for step in &steps {
            match step.run(&mut string, &mut changed) {
                // Every field's number fits 64 bits.
                Some(number) => call.reply.integer(number as i64),
                None => call.reply.null(),
            }
        }
        if changed {
            let value = Cow::Owned(string.into_owned());
            call.changes.push((key, Change::Put { value, expire }));
        }
        Ok(())
    });
}

/// `BITFIELD_RO key [GET type offset …]`.
pub fn bitfield_ro(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let steps = steps(&call.args[2..])?;
        if steps.iter().any(Step::is_write) {
            return Err(BitmapError::ReadOnly.into());
        }
        let view = call.views.view(call.args[1]);
        let (string, _) = base(view.as_ref())?;
        call.reply.array(steps.len());
        for step in &steps {
            call.reply.integer(step.width.read(&string, step.place) as i64);
        }
        Ok(())
    });
}
