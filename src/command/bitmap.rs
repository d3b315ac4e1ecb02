//! Strings as rows of bits: SETBIT, GETBIT, BITCOUNT, BITPOS, BITOP.
//!
//! ```text
//! byte        0                       1
//!        ┌──┬──┬──┬──┬──┬──┬──┬──┐┌──┬──┬─
//! bit    │ 0│ 1│ 2│ 3│ 4│ 5│ 6│ 7││ 8│ 9│ …      bit 0 is the first byte's highest
//!        └──┴──┴──┴──┴──┴──┴──┴──┘└──┴──┴─
//! ```
//!
//! Beyond its end a string is zeros without end. A bitmap is a string and merges as one: of two
//! SETBITs that do not know each other, one shows.

use std::borrow::Cow;
use std::ops::Range;

use crate::base::limits::VALUE_SIZE_MAX;
use crate::value::change::{Change, Expire};
use crate::value::view::View;

use super::fault::{Fault, answer};
use super::number::{integer, is, plain_integer};
use super::range::base;
use super::spec::Call;

/// Why a command on bits was refused. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BitmapError {
    /// A place that no bit of a string has.
    Offset,
    /// SETBIT of something else than 0 or 1.
    Bit,
    /// BITPOS of something else than 0 or 1.
    Sought,
    /// BITOP NOT of several strings.
    Not,
    /// A type of BITFIELD that there is not.
    FieldType,
    /// An OVERFLOW of BITFIELD that there is not.
    Overflow,
    /// A BITFIELD_RO that would write.
    ReadOnly,
}

impl BitmapError {
    /// The error line, without the leading `-`.
    pub const fn text(self) -> &'static str {
        match self {
            BitmapError::Offset => "ERR bit offset is not an integer or out of range",
            BitmapError::Bit => "ERR bit is not an integer or out of range",
            BitmapError::Sought => "ERR The bit argument must be 1 or 0.",
            BitmapError::Not => "ERR BITOP NOT must be called with a single source key.",
            BitmapError::FieldType => {
                "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not \
                 supported but i64 is."
            }
            BitmapError::Overflow => "ERR Invalid OVERFLOW type specified",
            BitmapError::ReadOnly => "ERR BITFIELD_RO only supports the GET subcommand",
        }
    }
}

impl From<BitmapError> for Fault<'_> {
    fn from(error: BitmapError) -> Self {
        Fault::Bitmap(error)
    }
}

/// A place of a bit; it must be one that a string may have.
pub(super) fn offset<'a>(text: &[u8]) -> Result<u64, Fault<'a>> {
    plain_integer(text).and_then(allowed_offset).ok_or(BitmapError::Offset.into())
}

/// The place, if a string may have it.
pub(super) fn allowed_offset(place: i64) -> Option<u64> {
    u64::try_from(place).ok().filter(|place| place >> 3 < VALUE_SIZE_MAX as u64)
}

/// Whether the bit at `place` is set.
fn bit_at(string: &[u8], place: u64) -> bool {
    let byte = usize::try_from(place >> 3).ok().and_then(|at| string.get(at));
    byte.is_some_and(|byte| byte << (place & 7) & 0x80 != 0)
}

/// `SETBIT key offset 0 | 1`. Nothing changes where the bit is as it should be already.
pub fn setbit(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let key = call.args[1];
        let place = offset(call.args[2])?;
        let on = match call.args[3] {
            b"0" => false,
            b"1" => true,
            _ => return Err(BitmapError::Bit.into()),
        };
        let view = call.views.view(key);
        let (string, expire) = base(view.as_ref())?;
        let (at, mask) = ((place >> 3) as usize, 0x80 >> (place & 7));
        let was = bit_at(&string, place);
        if was != on || at >= string.len() {
            let mut value = Vec::with_capacity(string.len().max(at + 1));
            value.extend_from_slice(&string);
            value.resize(string.len().max(at + 1), 0);
            value[at] = if on { value[at] | mask } else { value[at] & !mask };
            call.changes.push((key, Change::Put { value: Cow::Owned(value), expire }));
        }
        call.reply.integer(i64::from(was));
        Ok(())
    });
}

/// `GETBIT key offset`.
pub fn getbit(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let place = offset(call.args[2])?;
        let view = call.views.view(call.args[1]);
        let (string, _) = base(view.as_ref())?;
        call.reply.integer(i64::from(bit_at(&string, place)));
        Ok(())
    });
}

/// What part of a string BITCOUNT and BITPOS look at.
#[derive(Clone, Copy)]
struct Span {
    start: i64,
    /// Included; none is the last.
    end: Option<i64>,
    in_bits: bool,
}

impl Span {
    const WHOLE: Span = Span { start: 0, end: None, in_bits: false };

    /// Whether `word` says that places are bits.
    fn in_bits<'a>(word: &[u8]) -> Result<bool, Fault<'a>> {
        match word {
            _ if is(word, "BIT") => Ok(true),
            _ if is(word, "BYTE") => Ok(false),
            _ => Err(Fault::Syntax),
        }
    }

    /// The bits that are meant of a string of `len` bytes; places are counted from the end when
    /// negative, and cut to what is there.
    fn bits(self, len: usize) -> Range<u64> {
        let unit = if self.in_bits { 1 } else { 8 };
        let total = len as i64 * 8 / unit;
        let place = |at: i64| if at < 0 { at.saturating_add(total).max(0) } else { at };
        let (start, end) = (place(self.start), self.end.map_or(total - 1, place).min(total - 1));
        if start > end { 0..0 } else { (start * unit) as u64..((end + 1) * unit) as u64 }
    }
}

/// How many of these bits are set; they lie in the string.
fn count_ones(string: &[u8], bits: Range<u64>) -> u64 {
    if bits.is_empty() {
        return 0;
    }
    let (first, last) = ((bits.start >> 3) as usize, ((bits.end - 1) >> 3) as usize);
    let (words, rest) = string[first..=last].as_chunks::<8>();
    let in_words: u32 = words.iter().map(|word| u64::from_le_bytes(*word).count_ones()).sum();
    let in_rest: u32 = rest.iter().map(|byte| byte.count_ones()).sum();
    let before = string[first] & !(0xFF >> (bits.start & 7));
    let behind = u32::from(string[last]) & (0xFF >> (((bits.end - 1) & 7) + 1));
    u64::from(in_words + in_rest - before.count_ones() - behind.count_ones())
}

/// The first of these bits that is `wanted`; they lie in the string.
fn find_bit(string: &[u8], bits: Range<u64>, wanted: bool) -> Option<u64> {
    // What is sought is set in the flipped byte.
    let flip = if wanted { 0 } else { 0xFF };
    let mut place = bits.start;
    while place < bits.end {
        let byte = (string[(place >> 3) as usize] ^ flip) & (0xFF >> (place & 7));
        if byte != 0 {
            let found = (place & !7) + u64::from(byte.leading_zeros());
            return Some(found).filter(|found| *found < bits.end);
        }
        let at = (place >> 3) as usize + 1;
        let rest = &string[at..];
        let words = rest.as_chunks::<8>().0;
        let skipped = words.iter().position(|word| *word != [flip; 8]).unwrap_or(words.len());
        place = (at + skipped * 8) as u64 * 8;
    }
    None
}

/// `BITCOUNT key [start end [BYTE | BIT]]`.
pub fn bitcount(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let span = match call.args[2..] {
            [] => Span::WHOLE,
            [start, end, ref unit @ ..] if unit.len() <= 1 => {
                let (start, end) = (integer(start)?, Some(integer(end)?));
                let in_bits = unit.first().map_or(Ok(false), |word| Span::in_bits(word))?;
                Span { start, end, in_bits }
            }
            _ => return Err(Fault::Syntax),
        };
        let view = call.views.view(call.args[1]);
        let (string, _) = base(view.as_ref())?;
        // Before places are cut to what is there, as in Redis: it matters when both lie before it.
        let backward = span.start < 0 && span.end.is_some_and(|end| end < 0 && span.start > end);
        let bits = if backward { 0..0 } else { span.bits(string.len()) };
        call.reply.integer(count_ones(&string, bits) as i64);
        Ok(())
    });
}

/// `BITPOS key 0 | 1 [start [end [BYTE | BIT]]]`. Only where no end is given do the zeros beyond
/// the string's end count.
pub fn bitpos(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let wanted = match integer(call.args[2])? {
            0 => false,
            1 => true,
            _ => return Err(BitmapError::Sought.into()),
        };
        let span = match call.args[3..] {
            [] => Span::WHOLE,
            [start] => Span { start: integer(start)?, ..Span::WHOLE },
            [start, end, ref unit @ ..] if unit.len() <= 1 => {
                let start = integer(start)?;
                let in_bits = unit.first().map_or(Ok(false), |word| Span::in_bits(word))?;
                Span { start, end: Some(integer(end)?), in_bits }
            }
            _ => return Err(Fault::Syntax),
        };
        let view = call.views.view(call.args[1]);
        let (string, _) = base(view.as_ref())?;
        let bits = span.bits(string.len());
        let found = match find_bit(&string, bits.clone(), wanted) {
            Some(place) => place as i64,
            // Nothing at all is zeros from its start; an empty part of something holds none.
            None if !wanted && view.is_none() => 0,
            None if !wanted && span.end.is_none() && !bits.is_empty() => bits.end as i64,
            None => -1,
        };
        call.reply.integer(found);
        Ok(())
    });
}

/// What BITOP does with two bytes.
type Operation = fn(u8, u8) -> u8;

/// `BITOP AND | OR | XOR | NOT destkey key [key …]`: shorter strings go on with zeros. An empty
/// result removes the destination.
pub fn bitop(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let operation: Option<Operation> = match call.args[1] {
            word if is(word, "AND") => Some(|a, b| a & b),
            word if is(word, "OR") => Some(|a, b| a | b),
            word if is(word, "XOR") => Some(|a, b| a ^ b),
            word if is(word, "NOT") => None,
            _ => return Err(Fault::Syntax),
        };
        let (target, sources) = (call.args[2], &call.args[3..]);
        if operation.is_none() && sources.len() != 1 {
            return Err(BitmapError::Not.into());
        }
        let views: Vec<Option<View<'_>>> =
            sources.iter().map(|source| call.views.view(source)).collect();
        let mut strings = Vec::with_capacity(views.len());
        for view in &views {
            strings.push(base(view.as_ref())?.0);
        }
        let len = strings.iter().map(|string| string.len()).max().unwrap_or(0);
        let mut result = strings[0].to_vec();
        result.resize(len, 0);
        match operation {
            Some(operation) => strings[1..].iter().for_each(|string| {
                let (beginning, rest) = result.split_at_mut(string.len());
                beginning.iter_mut().zip(&string[..]).for_each(|(a, &b)| *a = operation(*a, b));
                rest.iter_mut().for_each(|a| *a = operation(*a, 0));
            }),
            None => result.iter_mut().for_each(|byte| *byte = !*byte),
        }
        if len > 0 {
            let value = Cow::Owned(result);
            call.changes.push((target, Change::Put { value, expire: Expire::Clear }));
        } else if call.views.view(target).is_some() {
            call.changes.push((target, Change::Delete));
        }
        call.reply.integer(len as i64);
        Ok(())
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The bits of a string, one by one.
    fn row(string: &[u8]) -> Vec<bool> {
        (0..string.len() as u64 * 8).map(|place| bit_at(string, place)).collect()
    }

    proptest! {
        #[test]
        fn bits_are_counted_and_found_as_one_by_one(
            // Long runs of equal bytes, so that whole words are passed over.
            runs in prop::collection::vec((prop_oneof![Just(0), Just(0xFF), any::<u8>()], 1..20usize), 0..6),
            a in 0..700u64,
            b in 0..700u64,
        ) {
            let string: Vec<u8> =
                runs.iter().flat_map(|&(byte, count)| std::iter::repeat_n(byte, count)).collect();
            let row = row(&string);
            let end = b.min(row.len() as u64);
            let bits = a.min(end)..end;
            let part = &row[bits.start as usize..bits.end as usize];
            let ones = part.iter().filter(|bit| **bit).count();
            prop_assert_eq!(count_ones(&string, bits.clone()), ones as u64);
            for wanted in [false, true] {
                let found = part.iter().position(|bit| *bit == wanted);
                let found = found.map(|place| place as u64 + bits.start);
                prop_assert_eq!(find_bit(&string, bits.clone(), wanted), found);
            }
        }
    }

    #[test]
    fn places_end_where_the_largest_string_does() {
        assert_eq!(offset(b"4294967295"), Ok(u64::from(u32::MAX)));
        for text in ["4294967296", "-1", "01", "9223372036854775808", "#1", ""] {
            assert_eq!(offset(text.as_bytes()), Err(BitmapError::Offset.into()), "{text}");
        }
    }
}
