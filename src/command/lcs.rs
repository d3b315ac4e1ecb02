//! LCS: the longest common subsequence of two strings.
//!
//! Dynamic programming over prefixes (Wagner and Fischer, 1974). Only two rows of lengths are
//! kept; what the way back needs of the rest is one bit per cell, which neighbour was longer, so
//! the table takes a thirty-second of Redis's:
//!
//! ```text
//!        ""  y  a                 way back, from the lower right corner:
//!    ""   0  0  0                 equal bytes   step up and left, a match
//!    a    0  0  1                 bit set       step up   (the upper cell is longer)
//!    y    0  1  1                 bit clear     step left
//! ```
//!
//! Invariant: matches come out from the end of the strings to their start, in maximal runs that
//! are contiguous in both; ties step left. So Redis answers, and clients see it.

use crate::base::limits::VALUE_SIZE_MAX;
use crate::value::view::View;

use super::fault::{Fault, answer};
use super::number::{integer, is};
use super::spec::Call;

/// What the client wants to know.
#[derive(Clone, Copy, Default)]
struct Options {
    len: bool,
    idx: bool,
    with_match_len: bool,
    match_len_min: u64,
}

impl Options {
    fn parse<'a>(words: &[&'a [u8]]) -> Result<Options, Fault<'a>> {
        let mut options = Options::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if is(word, "LEN") {
                options.len = true;
            } else if is(word, "IDX") {
                options.idx = true;
            } else if is(word, "WITHMATCHLEN") {
                options.with_match_len = true;
            } else if is(word, "MINMATCHLEN") {
                let least = integer(words.next().ok_or(Fault::Syntax)?)?;
                options.match_len_min = u64::try_from(least).unwrap_or(0);
            } else {
                return Err(Fault::Syntax);
            }
        }
        if options.len && options.idx { Err(Fault::LcsOptions) } else { Ok(options) }
    }
}

/// A run of bytes that both strings share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Match {
    a: usize,
    b: usize,
    len: usize,
}

/// The length of the subsequence and, row by row, where the upper cell is longer than the left.
struct Table {
    len: usize,
    up: Vec<u64>,
    columns: usize,
}

impl Table {
    /// Fills the table for two strings whose lengths were checked by [`check_size`].
    fn fill(a: &[u8], b: &[u8], way_back: bool) -> Table {
        let columns = b.len();
        let mut up = vec![0u64; if way_back { (a.len() * columns).div_ceil(64) } else { 0 }];
        let mut row = vec![0u32; columns + 1];
        for (y, &byte) in a.iter().enumerate() {
            let mut corner = 0; // The upper left neighbour.
            for x in 0..columns {
                let above = row[x + 1];
                let left = row[x];
                let longer = above > left;
                row[x + 1] = if byte == b[x] { corner + 1 } else { above.max(left) };
                if longer && way_back {
                    let bit = y * columns + x;
                    up[bit / 64] |= 1 << (bit % 64);
                }
                corner = above;
            }
        }
        Table { len: row[columns] as usize, up, columns }
    }

    /// The shared runs, from the end of the strings to their start.
    fn matches(&self, a: &[u8], b: &[u8]) -> Vec<Match> {
        let mut runs: Vec<Match> = Vec::new();
        let (mut y, mut x) = (a.len(), b.len());
        while y > 0 && x > 0 {
            let bit = (y - 1) * self.columns + x - 1;
            if a[y - 1] == b[x - 1] {
                match runs.last_mut() {
                    Some(run) if run.a == y && run.b == x => {
                        *run = Match { a: y - 1, b: x - 1, len: run.len + 1 };
                    }
                    _ => runs.push(Match { a: y - 1, b: x - 1, len: 1 }),
                }
                (y, x) = (y - 1, x - 1);
            } else if self.up[bit / 64] >> (bit % 64) & 1 == 1 {
                y -= 1;
            } else {
                x -= 1;
            }
        }
        runs
    }
}

/// Redis's bound, though the table here is smaller: it also bounds the time under the lock.
fn check_size<'a>(a: usize, b: usize) -> Result<(), Fault<'a>> {
    let cells = (a as u128 + 1) * (b as u128 + 1);
    if cells * 4 > VALUE_SIZE_MAX as u128 { Err(Fault::LcsSize) } else { Ok(()) }
}

/// `LCS key1 key2 [LEN] [IDX] [MINMATCHLEN len] [WITHMATCHLEN]`.
pub fn lcs(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let views = [call.args[1], call.args[2]].map(|key| call.views.view(key));
        let [a, b] =
            views.each_ref().map(|view| view.as_ref().map_or(Ok(Vec::new().into()), View::string));
        let (Ok(a), Ok(b)) = (a, b) else { return Err(Fault::LcsType) };
        let options = Options::parse(&call.args[3..])?;
        check_size(a.len(), b.len())?;
        let table = Table::fill(&a, &b, !options.len);
        if options.len {
            call.reply.integer(table.len as i64);
            return Ok(());
        }
        let matches = table.matches(&a, &b);
        if options.idx {
            reply_matches(call, &options, &matches, table.len);
        } else {
            let pieces: Vec<&[u8]> =
                matches.iter().rev().map(|run| &a[run.a..run.a + run.len]).collect();
            call.reply.bulk(&pieces.concat());
        }
        Ok(())
    });
}

fn reply_matches(call: &mut Call<'_, '_>, options: &Options, matches: &[Match], len: usize) {
    let long_enough = |run: &&Match| run.len as u64 >= options.match_len_min;
    let reply = &mut *call.reply;
    reply.map(2);
    reply.bulk(b"matches");
    reply.array(matches.iter().filter(long_enough).count());
    for run in matches.iter().filter(long_enough) {
        reply.array(if options.with_match_len { 3 } else { 2 });
        for start in [run.a, run.b] {
            reply.array(2);
            reply.integer(start as i64);
            reply.integer((start + run.len - 1) as i64);
        }
        if options.with_match_len {
            reply.integer(run.len as i64);
        }
    }
    reply.bulk(b"len");
    reply.integer(len as i64);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The textbook's recursion on whole prefixes, memo-free: only for short strings.
    fn plain_len(a: &[u8], b: &[u8]) -> usize {
        match (a.split_last(), b.split_last()) {
            (Some((x, a)), Some((y, b))) if x == y => plain_len(a, b) + 1,
            (Some((_, short_a)), Some((_, short_b))) => {
                plain_len(short_a, b).max(plain_len(a, short_b))
            }
            _ => 0,
        }
    }

    proptest! {
        #[test]
        fn matches_are_common_maximal_and_as_long_as_can_be(a in "[ab]{0,9}", b in "[abc]{0,9}") {
            let (a, b) = (a.as_bytes(), b.as_bytes());
            let table = Table::fill(a, b, true);
            prop_assert_eq!(table.len, plain_len(a, b));
            prop_assert_eq!(Table::fill(a, b, false).len, table.len);
            let runs = table.matches(a, b);
            prop_assert_eq!(runs.iter().map(|run| run.len).sum::<usize>(), table.len);
            for run in &runs {
                prop_assert_eq!(&a[run.a..run.a + run.len], &b[run.b..run.b + run.len]);
            }
            for pair in runs.windows(2) {
                let (later, earlier) = (pair[0], pair[1]);
                prop_assert!(earlier.a + earlier.len <= later.a && earlier.b + earlier.len <= later.b);
                prop_assert!(earlier.a + earlier.len < later.a || earlier.b + earlier.len < later.b);
            }
        }
    }
}
