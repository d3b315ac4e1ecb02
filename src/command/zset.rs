//! Sorted sets: their members and scores, one by one.
//!
//! A score that is set and a score that is counted merge differently: of two concurrent ZADDs the
//! later one counts, ZINCRBYs of two sides add up. What ZINCRBY asks for is the difference that its
//! rounded reply makes, exactly (see [`Pair::counted`]): so the next reply never contradicts it.
//!
//! ZADD of a score that a member has already is a change too: it keeps the member alive beside a
//! concurrent ZREM.

use std::collections::HashMap;

use smallvec::SmallVec;

use crate::base::float::Wide;
use crate::resp::reply::{Protocol, Reply};
use crate::value::change::{Amount, Change, Edit};
use crate::value::element::Element;
use crate::value::view::Kind;

use super::collection::{self, drawn, elements, wanted};
use super::fault::{Fault, answer};
use super::number::is;
use super::spec::Call;
use super::zset_score::{kept, score};

/// Amounts beyond this are set, not counted: what a side adds up must stay a double.
const COUNTED_MAX: f64 = 1e300;

/// Writes `len` members in the order they come, with their scores if they are asked for: in RESP3
/// each as a pair.
pub(super) fn show<'e>(
    reply: &mut Reply,
    len: usize,
    members: impl IntoIterator<Item = Element<'e>>,
    with_scores: bool,
) {
    let nested = with_scores && reply.protocol == Protocol::Resp3;
    let flat = with_scores && !nested;
    reply.array(len * (1 + usize::from(flat)));
    for member in members {
        if nested {
            reply.array(2);
        }
        reply.bulk(&member.name);
        if with_scores {
            reply.double(member.score);
        }
    }
}

/// The options of ZADD.
#[derive(Clone, Copy, Default)]
struct Options {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
    changed: bool,
    incr: bool,
}

impl Options {
    /// Reads options up to the first other word; the rest.
    fn parse<'c, 'a>(mut words: &'c [&'a [u8]], incr: bool) -> (Options, &'c [&'a [u8]]) {
        let mut options = Options { incr, ..Options::default() };
        while let [word, rest @ ..] = words {
            let flag = match word {
                _ if is(word, "NX") => &mut options.nx,
                _ if is(word, "XX") => &mut options.xx,
                _ if is(word, "GT") => &mut options.gt,
                _ if is(word, "LT") => &mut options.lt,
                _ if is(word, "CH") => &mut options.changed,
                _ if is(word, "INCR") => &mut options.incr,
                _ => break,
            };
            *flag = true;
            words = rest;
        }
        (options, words)
    }

    fn check<'a>(&self, pairs: usize) -> Result<(), Fault<'a>> {
        if self.nx && self.xx {
            return Err(Fault::NxXx);
        }
        if (self.nx && (self.gt || self.lt)) || (self.gt && self.lt) {
            return Err(Fault::GtLtNx);
        }
        if self.incr && pairs > 1 { Err(Fault::IncrOnePair) } else { Ok(()) }
    }

    /// What a pair makes of a member whose score is `old`; nothing if a condition forbids it.
    fn result<'a>(&self, old: Option<f64>, asked: f64) -> Result<Option<f64>, Fault<'a>> {
        let Some(old) = old else { return Ok((!self.xx).then_some(asked)) };
        if self.nx {
            return Ok(None);
        }
        let new = if self.incr { old + asked } else { asked };
        if new.is_nan() {
            return Err(Fault::NotANumber);
        }
        let refused = (self.gt && new <= old) || (self.lt && new >= old);
        Ok((!refused).then_some(new))
    }
}

/// One member to be written.
struct Pair<'a> {
    name: &'a [u8],
    old: Option<f64>,
    new: f64,
}

impl<'a> Pair<'a> {
    fn set(&self) -> Edit<'a> {
        // An equal score is the old one: zeros may differ in their signs.
        let score = self.old.filter(|old| *old == self.new).unwrap_or(self.new);
        Edit::score(self.name, kept(score))
    }

    /// The increment from the old score to the new one: the two differ by exactly this, although
    /// the new one is rounded. So the sum that is kept shows what was replied, and a chain of
    /// increments shows Redis's own digits. What is infinite cannot be counted, and is set.
    fn counted(&self) -> Edit<'a> {
        let (old, new) = (self.old.unwrap_or(0.0), self.new);
        let Wide { hi, lo } = Wide::new(new, -old);
        if !new.is_finite() || !old.is_finite() || hi.abs() > COUNTED_MAX {
            return self.set();
        }
        let amount = Amount::Float(kept(hi), kept(lo));
        Edit::Add { name: self.name.into(), amount }
    }
}

/// `ZADD key [NX | XX] [GT | LT] [CH] [INCR] score member [score member …]`.
pub fn zadd(call: &mut Call<'_, '_>) {
    answer(call, |call| add(call, false));
}

/// `ZINCRBY key increment member`.
pub fn zincrby(call: &mut Call<'_, '_>) {
    answer(call, |call| add(call, true));
}

fn add<'a>(call: &mut Call<'a, '_>, incr: bool) -> Result<(), Fault<'a>> {
    let key = call.args[1];
    let (options, pairs) = Options::parse(&call.args[2..], incr);
    if pairs.is_empty() || !pairs.len().is_multiple_of(2) {
        return Err(Fault::Syntax);
    }
    options.check(pairs.len() / 2)?;
    let scores: Result<SmallVec<[f64; 4]>, _> =
        pairs.chunks_exact(2).map(|pair| score(pair[0])).collect();
    let scores = scores?;
    let view = call.views.view(key);
    let fields = elements(view.as_ref(), Kind::Zset)?;
    // What the pairs before have made of members; of one pair there is none.
    let mut made: HashMap<&[u8], f64> = HashMap::new();
    let mut edits: SmallVec<[Edit<'a>; 1]> = SmallVec::new();
    let (mut added, mut updated, mut result) = (0, 0, None);
    for (pair, asked) in pairs.chunks_exact(2).zip(&scores) {
        let name = pair[1];
        let old = made.get(name).copied().or_else(|| fields.score(name));
        let Some(new) = options.result(old, *asked)? else { continue };
        let pair = Pair { name, old, new };
        // Elsewhere a member that is there may be removed at the same time: to add wins.
        if old != Some(new) || !call.views.is_sole() {
            edits.push(if options.incr { pair.counted() } else { pair.set() });
        }
        added += i64::from(old.is_none());
        updated += i64::from(old.is_some_and(|old| old != new));
        if scores.len() > 1 {
            made.insert(name, new);
        }
        result = Some(new);
    }
    match result {
        Some(score) if options.incr => call.reply.double(score),
        None if options.incr => call.reply.null(),
        _ => call.reply.integer(if options.changed { added + updated } else { added }),
    }
    if !edits.is_empty() {
        call.changes.push((key, Change::edit(Kind::Zset, edits)));
    }
    Ok(())
}

/// `ZREM key member [member …]`.
pub fn zrem(call: &mut Call<'_, '_>) {
    answer(call, |call| collection::remove_named(call, Kind::Zset));
}

/// `ZCARD key`.
pub fn zcard(call: &mut Call<'_, '_>) {
    answer(call, |call| collection::count(call, Kind::Zset));
}

fn show_score(reply: &mut Reply, score: Option<f64>) {
    match score {
        Some(score) => reply.double(score),
        None => reply.null(),
    }
}

/// `ZSCORE key member`.
pub fn zscore(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let view = call.views.view(call.args[1]);
        let fields = elements(view.as_ref(), Kind::Zset)?;
        show_score(call.reply, fields.score(call.args[2]));
        Ok(())
    });
}

/// `ZMSCORE key member [member …]`.
pub fn zmscore(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let view = call.views.view(call.args[1]);
        let fields = elements(view.as_ref(), Kind::Zset)?;
        let members = &call.args[2..];
        call.reply.array(members.len());
        members.iter().for_each(|member| show_score(call.reply, fields.score(member)));
        Ok(())
    });
}

/// `ZRANK key member [WITHSCORE]`.
pub fn zrank(call: &mut Call<'_, '_>) {
    answer(call, |call| rank(call, "zrank", false));
}

/// `ZREVRANK key member [WITHSCORE]`.
pub fn zrevrank(call: &mut Call<'_, '_>) {
    answer(call, |call| rank(call, "zrevrank", true));
}

fn rank<'a>(
    call: &mut Call<'a, '_>,
    command: &'static str,
    from_last: bool,
) -> Result<(), Fault<'a>> {
    let with_score = match &call.args[3..] {
        [] => false,
        [word] if is(word, "WITHSCORE") => true,
        [_] => return Err(Fault::Syntax),
        _ => return Err(Fault::Arity(command)),
    };
    let view = call.views.view(call.args[1]);
    let fields = elements(view.as_ref(), Kind::Zset)?;
    let member = call.args[2];
    let Some(place) = fields.rank(member) else {
        if with_score {
            call.reply.null_array()
        } else {
            call.reply.null()
        }
        return Ok(());
    };
    let place = if from_last { fields.len() - 1 - place } else { place };
    if with_score {
        call.reply.array(2);
    }
    call.reply.integer(place as i64);
    if with_score {
        show_score(call.reply, fields.score(member));
    }
    Ok(())
}

/// `ZRANDMEMBER key [count [WITHSCORES]]`.
pub fn zrandmember(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let Some(count) = call.args.get(2) else { return random_one(call) };
        let count = wanted(count)?;
        let with_scores = match &call.args[3..] {
            [] => false,
            [word] if is(word, "WITHSCORES") => true,
            _ => return Err(Fault::Syntax),
        };
        // Redis counts names and scores alike.
        if with_scores && count.unsigned_abs() > i64::MAX as u64 / 2 {
            return Err(Fault::OutOfRange);
        }
        let view = call.views.view(call.args[1]);
        let fields = elements(view.as_ref(), Kind::Zset)?;
        let places = drawn(&fields, count, false, call.random)?;
        let member = |place: usize| fields.at(place).expect("a place below the length");
        show(call.reply, places.len(), places.into_iter().map(member), with_scores);
        Ok(())
    });
}

fn random_one<'a>(call: &mut Call<'a, '_>) -> Result<(), Fault<'a>> {
    let view = call.views.view(call.args[1]);
    let fields = elements(view.as_ref(), Kind::Zset)?;
    match drawn(&fields, 1, false, call.random)?.first().and_then(|place| fields.at(*place)) {
        Some(member) => call.reply.bulk(&member.name),
        None => call.reply.null(),
    }
    Ok(())
}
