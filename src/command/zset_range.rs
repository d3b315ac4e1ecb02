//! Ranges of sorted sets, by place, by score and by name: ZRANGE, its kin of old, ZRANGESTORE, and
//! what counts or removes a range.
//!
//! Every range is a run of places: its ends are found in the order of the set, and only what is
//! answered is walked.

use std::ops::Range;

use crate::value::change::{Change, Edit};
use crate::value::element::Element;
use crate::value::fields::Fields;
use crate::value::view::Kind;

use super::collection::elements;
use super::fault::{Fault, answer};
use super::number::{integer, is};
use super::spec::Call;
use super::zset::show;
use super::zset_score::{LexRange, ScoreRange};

/// What the ends of a range are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Rank,
    Score,
    Lex,
}

/// The members between two ends.
enum Span<'a> {
    /// Counted from the last if negative.
    Rank(i64, i64),
    Score(ScoreRange),
    Lex(LexRange<'a>),
}

impl<'a> Span<'a> {
    fn parse(by: By, min: &'a [u8], max: &'a [u8]) -> Result<Span<'a>, Fault<'a>> {
        Ok(match by {
            By::Rank => Span::Rank(integer(min)?, integer(max)?),
            By::Score => Span::Score(ScoreRange::parse(min, max)?),
            By::Lex => Span::Lex(LexRange::parse(min, max)?),
        })
    }

    /// Their places; `from_last` counts ranks from the other end.
    fn places(&self, fields: &Fields<'_>, from_last: bool) -> Range<usize> {
        match self {
            Span::Rank(first, last) => {
                let len = fields.len();
                let places = ranks(*first, *last, len);
                if from_last { len - places.end..len - places.start } else { places }
            }
            Span::Score(range) => range.places(fields),
            Span::Lex(range) => range.places(fields),
        }
    }
}

/// The places from rank `first` to rank `last` among `len`.
fn ranks(first: i64, last: i64, len: usize) -> Range<usize> {
    let len = len as i64;
    let rank = |rank: i64| if rank < 0 { rank.saturating_add(len) } else { rank };
    let (first, last) = (rank(first).max(0), rank(last).min(len - 1));
    if first > last { 0..0 } else { first as usize..last as usize + 1 }
}

/// What a command leaves open, and what it does.
#[derive(Clone, Copy)]
struct Form {
    /// What the ends are; told by a word if none.
    by: Option<By>,
    /// Whether it goes from the last to the first; told by a word if none.
    back: Option<bool>,
    /// Whether the result is stored.
    stores: bool,
}

const SHOWS: Form = Form { by: None, back: None, stores: false };
const STORES: Form = Form { stores: true, ..SHOWS };

impl Form {
    const fn of(by: By, back: bool) -> Form {
        Form { by: Some(by), back: Some(back), stores: false }
    }
}

/// A range that is asked for.
struct Wish<'a> {
    span: Span<'a>,
    back: bool,
    with_scores: bool,
    offset: i64,
    /// Below zero: all.
    count: i64,
}

impl<'a> Wish<'a> {
    /// Reads two ends and the options behind them.
    fn parse(words: &[&'a [u8]], form: Form) -> Result<Wish<'a>, Fault<'a>> {
        let [min, max, options @ ..] = words else { return Err(Fault::Syntax) };
        let (mut by, mut back, mut with_scores) = (form.by, form.back, false);
        let (mut offset, mut count) = (0, -1);
        let mut options = options.iter();
        while let Some(word) = options.next() {
            match word {
                _ if !form.stores && is(word, "WITHSCORES") => with_scores = true,
                _ if is(word, "LIMIT") && options.len() >= 2 => {
                    let mut number = || integer(options.next().copied().unwrap_or_default());
                    (offset, count) = (number()?, number()?);
                }
                _ if back.is_none() && is(word, "REV") => back = Some(true),
                _ if by.is_none() && is(word, "BYLEX") => by = Some(By::Lex),
                _ if by.is_none() && is(word, "BYSCORE") => by = Some(By::Score),
                _ => return Err(Fault::Syntax),
            }
        }
        let (by, back) = (by.unwrap_or(By::Rank), back.unwrap_or(false));
        if count != -1 && by == By::Rank {
            return Err(Fault::LimitOfRanks);
        }
        if with_scores && by == By::Lex {
            return Err(Fault::ScoresByLex);
        }
        if by == By::Rank {
            // LIMIT with a count of -1 is let pass, and means nothing.
            offset = 0;
        }
        // From the last to the first, the greater end comes first.
        let (min, max) = if back && by != By::Rank { (max, min) } else { (min, max) };
        Ok(Wish { span: Span::parse(by, min, max)?, back, with_scores, offset, count })
    }

    /// The places of what is asked for.
    fn places(&self, fields: &Fields<'_>) -> Range<usize> {
        let Range { start, end } = self.span.places(fields, self.back);
        let len = end - start;
        // An offset below zero passes everything over.
        let offset = usize::try_from(self.offset).unwrap_or(usize::MAX).min(len);
        let count = usize::try_from(self.count).unwrap_or(usize::MAX).min(len - offset);
        if self.back {
            end - offset - count..end - offset
        } else {
            start + offset..start + offset + count
        }
    }
}

fn range(call: &mut Call<'_, '_>, form: Form) {
    answer(call, |call| {
        let wish = Wish::parse(&call.args[2..], form)?;
        let view = call.views.view(call.args[1]);
        let fields = elements(view.as_ref(), Kind::Zset)?;
        let places = wish.places(&fields);
        let len = places.len();
        let members = if wish.back { fields.range_back(places) } else { fields.range(places) };
        show(call.reply, len, members, wish.with_scores);
        Ok(())
    });
}

/// `ZRANGE key start stop [BYSCORE | BYLEX] [REV] [LIMIT offset count] [WITHSCORES]`.
pub fn zrange(call: &mut Call<'_, '_>) {
    range(call, SHOWS);
}

/// `ZREVRANGE key start stop [WITHSCORES]`.
pub fn zrevrange(call: &mut Call<'_, '_>) {
    range(call, Form::of(By::Rank, true));
}

/// `ZRANGEBYSCORE key min max [WITHSCORES] [LIMIT offset count]`.
pub fn zrangebyscore(call: &mut Call<'_, '_>) {
    range(call, Form::of(By::Score, false));
}

/// `ZREVRANGEBYSCORE key max min [WITHSCORES] [LIMIT offset count]`.
pub fn zrevrangebyscore(call: &mut Call<'_, '_>) {
    range(call, Form::of(By::Score, true));
}

/// `ZRANGEBYLEX key min max [LIMIT offset count]`.
pub fn zrangebylex(call: &mut Call<'_, '_>) {
    range(call, Form::of(By::Lex, false));
}

/// `ZREVRANGEBYLEX key max min [LIMIT offset count]`.
pub fn zrevrangebylex(call: &mut Call<'_, '_>) {
    range(call, Form::of(By::Lex, true));
}

/// `ZRANGESTORE dst src min max [BYSCORE | BYLEX] [REV] [LIMIT offset count]`: what dst held is
/// gone, with its time to live; of an empty range nothing comes in its place.
pub fn zrangestore(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let (target, source) = (call.args[1], call.args[2]);
        let wish = Wish::parse(&call.args[3..], STORES)?;
        let view = call.views.view(source);
        let fields = elements(view.as_ref(), Kind::Zset)?;
        let members = fields.range(wish.places(&fields)).map(Element::into_owned).collect();
        store(call, target, members);
        Ok(())
    });
}

/// Puts members in the place of what `target` holds, and answers how many they are.
pub(super) fn store<'a>(call: &mut Call<'a, '_>, target: &'a [u8], members: Vec<Element<'a>>) {
    call.reply.integer(members.len() as i64);
    if !members.is_empty() || call.views.view(target).is_some() {
        call.changes.push((target, Change::make(Kind::Zset, None, members)));
    }
}

fn count(call: &mut Call<'_, '_>, by: By) {
    answer(call, |call| {
        let span = Span::parse(by, call.args[2], call.args[3])?;
        let view = call.views.view(call.args[1]);
        let fields = elements(view.as_ref(), Kind::Zset)?;
        call.reply.integer(span.places(&fields, false).len() as i64);
        Ok(())
    });
}

/// `ZCOUNT key min max`.
pub fn zcount(call: &mut Call<'_, '_>) {
    count(call, By::Score);
}

/// `ZLEXCOUNT key min max`.
pub fn zlexcount(call: &mut Call<'_, '_>) {
    count(call, By::Lex);
}

/// The change that removes the members at these places; `None` if there are none.
pub(super) fn removal<'a>(fields: &Fields<'_>, places: Range<usize>) -> Option<Change<'a>> {
    if places.is_empty() {
        return None;
    }
    if places.len() == fields.len() {
        return Some(Change::Delete);
    }
    let names = fields.range(places).map(|member| Edit::remove(member.name.into_owned()));
    Some(Change::edit(Kind::Zset, names))
}

fn remove(call: &mut Call<'_, '_>, by: By) {
    answer(call, |call| {
        let key = call.args[1];
        let span = Span::parse(by, call.args[2], call.args[3])?;
        let view = call.views.view(key);
        let fields = elements(view.as_ref(), Kind::Zset)?;
        let places = span.places(&fields, false);
        call.reply.integer(places.len() as i64);
        call.changes.extend(removal(&fields, places).map(|change| (key, change)));
        Ok(())
    });
}

/// `ZREMRANGEBYRANK key start stop`.
pub fn zremrangebyrank(call: &mut Call<'_, '_>) {
    remove(call, By::Rank);
}

/// `ZREMRANGEBYSCORE key min max`.
pub fn zremrangebyscore(call: &mut Call<'_, '_>) {
    remove(call, By::Score);
}

/// `ZREMRANGEBYLEX key min max`.
pub fn zremrangebylex(call: &mut Call<'_, '_>) {
    remove(call, By::Lex);
}
