//! One large collection that two replicas hold: they compare ranges of its elements and send each
//! other those that differ.
//!
//! ```text
//!   initiator                                        responder (keeps no state)
//!      │ Sums { ranges, each with its sum } ───────────► │
//!      │ ◄──────────────── Differ { context, which }     │   or AllSent: it is not large here
//!      │ Sums { finer ranges of those } ───────────────► │
//!      │ ◄──────────────── Differ { context, which }     │
//!      │ (Put) its part of these ranges ───────────────► │
//!      │ Wanted { ranges } ────────────────────────────► │
//!      │ ◄──────────────────────── (Put) its part        │
//!      │ ◄──────────────────────────────────── Sent      │
//! ```
//!
//! A part claims that what its sender knew *before the first range was compared* is removed, where it
//! is not told (see `value/part`). So the initiator keeps both contexts: its own of the beginning,
//! and that of the responder's first answer, which it gives back with `Wanted`. Here they are bytes.
//!
//! Ranges are cut by the initiator, into as many elements each as it holds itself; they are bounded
//! in number however large the collection is. Where more than half differs, all is sent.
//!
//! Bytes: what u8, then
//! ```text
//! 0 Sums      type u8 │ { before varint, to u64, sum u64 } …      before: elements of the order left out
//! 1 Differ    context, varint-prefixed │ count varint │ bits
//! 2 Wanted    type u8 │ known, base: varint-prefixed │ { before varint, to u64 } …
//! 3 AllWanted     4 Sent     5 AllSent
//! ```

use std::ops::RangeInclusive;

use crate::base::limits::PART_RANGES_MAX;
use crate::base::wire::{Cursor, Put, WireError};

/// Ranges into which a whole collection is cut at first, if it is not too large for so few.
const FIRST_CUT: usize = 256;

/// The same of what differed.
const NEXT_CUT: usize = 2048;

/// Elements of one range at most, so that no sum takes long.
const RANGE_LEN_MAX: usize = 4096;

/// Elements of a range that is not cut further.
const RANGE_LEN_MIN: usize = 16;

/// A range of elements, compared.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Where in the order of elements.
    pub range: RangeInclusive<u64>,
    /// Half of the digest of its elements.
    pub sum: u64,
    /// How many its sender has; does not travel.
    pub count: usize,
}

/// What is said of one large entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Word {
    /// Initiator: these are my sums.
    Sums {
        /// The type's byte.
        kind: u8,
        /// Ranges that rise.
        pieces: Vec<Piece>,
    },
    /// Responder: of these, mine differ.
    Differ {
        /// What it knew before it summed up any of them.
        context: Vec<u8>,
        /// Of each piece, whether.
        pieces: Vec<bool>,
    },
    /// Initiator: send what you have of these ranges.
    Wanted {
        /// The type's byte.
        kind: u8,
        /// What the responder knew before the first was compared.
        known: Vec<u8>,
        /// What the initiator knew then.
        base: Vec<u8>,
        /// Ranges that rise.
        ranges: Vec<RangeInclusive<u64>>,
    },
    /// Initiator: send all that you have.
    AllWanted,
    /// Responder: what was wanted is sent.
    Sent,
    /// Responder: it cannot be compared in parts here; all is sent.
    AllSent,
}

impl Word {
    /// Whether it is for the responder.
    pub const fn is_question(&self) -> bool {
        matches!(self, Word::Sums { .. } | Word::Wanted { .. } | Word::AllWanted)
    }

    pub(super) fn encode(&self, out: &mut impl Put) {
        match self {
            Word::Sums { kind, pieces } => {
                out.put_u8(0);
                out.put_u8(*kind);
                let mut from = 0;
                for piece in pieces {
                    encode_range(&mut from, &piece.range, out);
                    out.put_u64(piece.sum);
                }
            }
            Word::Differ { context, pieces } => {
                out.put_u8(1);
                out.put_bytes(context);
                out.put_varint(pieces.len() as u64);
                for eight in pieces.chunks(8) {
                    let bit = |byte, (at, set): (usize, &bool)| byte | u8::from(*set) << at;
                    out.put_u8(eight.iter().enumerate().fold(0, bit));
                }
            }
            Word::Wanted { kind, known, base, ranges } => {
                out.put_u8(2);
                out.put_u8(*kind);
                out.put_bytes(known);
                out.put_bytes(base);
                let mut from = 0;
                ranges.iter().for_each(|range| encode_range(&mut from, range, out));
            }
            Word::AllWanted => out.put_u8(3),
            Word::Sent => out.put_u8(4),
            Word::AllSent => out.put_u8(5),
        }
    }

    pub(super) fn decode(cursor: &mut Cursor<'_>) -> Result<Word, WireError> {
        let mut from = Some(0);
        Ok(match cursor.u8()? {
            0 => {
                let (kind, mut pieces) = (cursor.u8()?, Vec::new());
                while !cursor.is_empty() {
                    let range = decode_range(&mut from, pieces.len(), cursor)?;
                    pieces.push(Piece { range, sum: cursor.u64()?, count: 0 });
                }
                Word::Sums { kind, pieces }
            }
            1 => {
                let context = cursor.bytes()?.to_vec();
                let count = cursor.varint()?;
                if count > PART_RANGES_MAX as u64 {
                    return Err(WireError::Malformed("number of ranges"));
                }
                let mut pieces = Vec::new();
                while pieces.len() < count as usize {
                    let byte = cursor.u8()?;
                    let left = (count as usize - pieces.len()).min(8);
                    if left < 8 && byte >> left != 0 {
                        return Err(WireError::Malformed("bits of ranges"));
                    }
                    pieces.extend((0..left).map(|at| byte >> at & 1 == 1));
                }
                Word::Differ { context, pieces }
            }
            2 => {
                let kind = cursor.u8()?;
                let (known, base) = (cursor.bytes()?.to_vec(), cursor.bytes()?.to_vec());
                let mut ranges = Vec::new();
                while !cursor.is_empty() {
                    ranges.push(decode_range(&mut from, ranges.len(), cursor)?);
                }
                Word::Wanted { kind, known, base, ranges }
            }
            3 => Word::AllWanted,
            4 => Word::Sent,
            5 => Word::AllSent,
            _ => return Err(WireError::Malformed("word of a part")),
        })
    }
}

fn encode_range(from: &mut u64, range: &RangeInclusive<u64>, out: &mut impl Put) {
    out.put_varint(range.start() - *from);
    out.put_u64(*range.end());
    *from = range.end().wrapping_add(1);
}

fn decode_range(
    from: &mut Option<u64>,
    held: usize,
    cursor: &mut Cursor<'_>,
) -> Result<RangeInclusive<u64>, WireError> {
    const WRONG: WireError = WireError::Malformed("ranges");
    let start = from.and_then(|from| from.checked_add(cursor.varint().ok()?)).ok_or(WRONG)?;
    let end = cursor.u64()?;
    if end < start || held >= PART_RANGES_MAX {
        return Err(WRONG);
    }
    *from = end.checked_add(1);
    Ok(start..=end)
}

/// What the initiator does next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next {
    /// Cut these ranges into pieces of about so many elements, and sum them up. Then
    /// [`Parts::on_cut`].
    Cut(Vec<RangeInclusive<u64>>, usize),
    /// Send what this side has of these ranges, then ask for the other side's.
    Exchange(Vec<RangeInclusive<u64>>),
    /// Send all, and ask for all.
    All,
    /// Nothing: it is for nobody.
    Nothing,
}

/// The initiator's comparison of one large entry.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Of the key.
    pub hash: u64,
    /// The type's byte.
    pub kind: u8,
    /// What this side knew before the first range was compared.
    pub known: Vec<u8>,
    /// What the other side knew then.
    pub theirs: Option<Vec<u8>>,
    len: usize,
    per: usize,
    pieces: Vec<Piece>,
}

impl Parts {
    /// Begins with an entry of `len` elements.
    pub fn start(hash: u64, kind: u8, known: Vec<u8>, len: usize) -> (Parts, Next) {
        let per = len.div_ceil(FIRST_CUT).clamp(RANGE_LEN_MIN, RANGE_LEN_MAX);
        let parts = Parts { hash, kind, known, theirs: None, len, per, pieces: Vec::new() };
        (parts, Next::Cut(vec![0..=u64::MAX], per))
    }

    /// The pieces that were asked for; what to say, or `None` if they are too many.
    pub fn on_cut(&mut self, pieces: Vec<Piece>) -> Option<Word> {
        if pieces.len() > PART_RANGES_MAX {
            return None;
        }
        self.pieces.clone_from(&pieces);
        Some(Word::Sums { kind: self.kind, pieces })
    }

    /// The responder says which differ.
    pub fn on_differ(&mut self, context: &[u8], differ: &[bool]) -> Next {
        if differ.len() != self.pieces.len() {
            return Next::Nothing;
        }
        self.theirs.get_or_insert_with(|| context.to_vec());
        let pieces = std::mem::take(&mut self.pieces).into_iter().zip(differ);
        let (mut ranges, mut count) = (Vec::<RangeInclusive<u64>>::new(), 0);
        for (piece, _) in pieces.filter(|(_, differs)| **differs) {
            count += piece.count;
            match ranges.last_mut() {
                Some(last) if last.end().checked_add(1) == Some(*piece.range.start()) => {
                    *last = *last.start()..=*piece.range.end();
                }
                _ => ranges.push(piece.range),
            }
        }
        let finer = count.div_ceil(NEXT_CUT).clamp(RANGE_LEN_MIN, RANGE_LEN_MAX);
        if count > 0 && finer * 2 <= self.per {
            self.per = finer;
            return Next::Cut(ranges, finer);
        }
        if count > self.len / 2 { Next::All } else { Next::Exchange(ranges) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(ranges: &[RangeInclusive<u64>], per: usize, len: u64) -> Vec<Piece> {
        // Elements stand at 0, 1, 2, …
        let mut pieces = Vec::new();
        for range in ranges {
            let mut from = *range.start();
            while from < len && from <= *range.end() {
                let end = (from + per as u64 - 1).min(*range.end());
                let count = (end.min(len - 1) - from + 1) as usize;
                let end = if end >= len - 1 { *range.end() } else { end };
                pieces.push(Piece { range: from..=end, sum: 0, count });
                from = end.saturating_add(1);
            }
        }
        pieces
    }

    fn walk(len: u64, differs: impl Fn(u64) -> bool) -> (Next, usize) {
        let (mut parts, mut next) = Parts::start(1, 2, vec![7], len as usize);
        let mut bytes = Vec::new();
        while let Next::Cut(ranges, per) = next {
            let pieces = cut(&ranges, per, len);
            let word = parts.on_cut(pieces.clone()).expect("not too many");
            word.encode(&mut bytes);
            let is_hit =
                |piece: &Piece| piece.range.clone().take_while(|at| *at < len).any(&differs);
            let differ: Vec<bool> = pieces.iter().map(is_hit).collect();
            next = parts.on_differ(&[9], &differ);
        }
        assert_eq!(parts.theirs, Some(vec![9]));
        (next, bytes.len())
    }

    #[test]
    fn one_element_of_a_million_is_found_by_some_kilobytes() {
        let (next, bytes) = walk(1_000_000, |at| at == 77_777);
        let Next::Exchange(ranges) = next else { panic!("{next:?}") };
        assert!(
            matches!(&ranges[..], [range] if range.contains(&77_777) && range.clone().count() <= 16)
        );
        assert!(bytes < 10_000, "{bytes}");
    }

    #[test]
    fn what_differs_in_many_places_is_sent_whole() {
        assert_eq!(walk(100_000, |at| at % 5 == 0).0, Next::All);
        let (next, _) = walk(100_000, |at| at % 2_000 == 0);
        assert!(matches!(next, Next::Exchange(ranges) if ranges.len() == 50), "one range each");
    }

    #[test]
    fn where_nothing_differs_what_is_known_travels() {
        assert_eq!(walk(5_000, |_| false).0, Next::Exchange(Vec::new()));
    }

    #[test]
    fn answers_that_do_not_fit_are_ignored() {
        let (mut parts, _) = Parts::start(1, 2, Vec::new(), 2_000);
        assert_eq!(parts.on_differ(&[], &[true]), Next::Nothing);
        let piece = Piece { range: 0..=1, sum: 0, count: 1 };
        assert!(parts.on_cut(vec![piece; PART_RANGES_MAX + 1]).is_none());
    }
}
