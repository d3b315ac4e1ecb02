//! Lists: pushing, popping, reading and changing elements.
//!
//! Redis's order of checks is kept, and it is not the same everywhere: LINDEX looks at the key
//! before it reads its index, LRANGE after.

use std::borrow::Cow;
use std::ops::Range;

use crate::value::change::{Change, Edit};
use crate::value::element::Element;
use crate::value::fields::Fields;
use crate::value::view::{Kind, View};

use super::fault::{Fault, answer};
use super::number::{integer, is};
use super::spec::Call;

/// An end of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    Left,
    Right,
}

impl End {
    /// `LEFT` or `RIGHT`.
    pub(super) fn parse<'a>(word: &[u8]) -> Result<End, Fault<'a>> {
        match word {
            _ if is(word, "LEFT") => Ok(End::Left),
            _ if is(word, "RIGHT") => Ok(End::Right),
            _ => Err(Fault::Syntax),
        }
    }

    /// A new element at this end.
    fn push(self, value: Cow<'_, [u8]>) -> Edit<'_> {
        match self {
            End::Left => Edit::PushLeft(value),
            End::Right => Edit::PushRight(value),
        }
    }

    /// The places of the `count` elements at this end of `len`.
    fn places(self, len: usize, count: usize) -> Range<usize> {
        let count = count.min(len);
        match self {
            End::Left => 0..count,
            End::Right => len - count..len,
        }
    }
}

/// The elements of a list; none of a key that is not there.
pub(super) fn elements<'v, 'b, 'a>(
    view: Option<&'v View<'b>>,
) -> Result<Option<Cow<'v, Fields<'b>>>, Fault<'a>> {
    Ok(view.map(|view| view.fields(Kind::List)).transpose()?)
}

/// How many elements a list has; none if the key is not there.
fn len_of<'a>(call: &Call<'a, '_>, key: &[u8]) -> Result<usize, Fault<'a>> {
    let view = call.views.view(key);
    Ok(elements(view.as_ref())?.map_or(0, |list| list.len()))
}

/// The change by which a list of `len` loses the elements of `places`.
fn without<'a>(len: usize, places: Range<usize>) -> Change<'a> {
    if places.len() == len {
        // A removal is of one size, however long the list is.
        return Change::Delete;
    }
    Change::edit_one(Kind::List, Edit::RemoveRange { place: places.start, count: places.len() })
}

/// The place of an index that counts from the end when negative; what lies outside has none.
fn place_of(index: i64, len: usize) -> Option<usize> {
    let place = if index < 0 { index.checked_add(len as i64)? } else { index };
    usize::try_from(place).ok().filter(|&place| place < len)
}

/// The places from `start` to `stop`, both included, as LRANGE and LTRIM read them.
fn span(start: i64, stop: i64, len: usize) -> Range<usize> {
    let len = len as i64;
    let from_end = |index: i64| if index < 0 { index.saturating_add(len) } else { index };
    let (start, stop) = (from_end(start).max(0), from_end(stop).min(len - 1));
    if start > stop { 0..0 } else { start as usize..stop as usize + 1 }
}

// LPUSH, RPUSH, LPUSHX, RPUSHX

fn push<'a>(call: &mut Call<'a, '_>, end: End, only_if_there: bool) -> Result<(), Fault<'a>> {
    let (key, values) = (call.args[1], &call.args[2..]);
    let len = len_of(call, key)?;
    if only_if_there && len == 0 {
        call.reply.integer(0);
        return Ok(());
    }
    let edit = |&value: &&'a [u8]| end.push(Cow::Borrowed(value));
    let change = match values {
        [value] => Change::edit_one(Kind::List, edit(value)),
        values => Change::edit(Kind::List, values.iter().map(edit)),
    };
    call.changes.push((key, change));
    call.reply.integer((len + values.len()) as i64);
    Ok(())
}

/// `LPUSH key element [element …]`.
pub fn lpush(call: &mut Call<'_, '_>) {
    answer(call, |call| push(call, End::Left, false));
}

/// `RPUSH key element [element …]`.
pub fn rpush(call: &mut Call<'_, '_>) {
    answer(call, |call| push(call, End::Right, false));
}

/// `LPUSHX key element [element …]`.
pub fn lpushx(call: &mut Call<'_, '_>) {
    answer(call, |call| push(call, End::Left, true));
}

/// `RPUSHX key element [element …]`.
pub fn rpushx(call: &mut Call<'_, '_>) {
    answer(call, |call| push(call, End::Right, true));
}

// LPOP, RPOP

/// Takes up to `count` elements from an end of the list at `key` and answers them as an array, the
/// outermost first; `false`, and nothing said, if there is no list.
pub(super) fn take<'a>(
    call: &mut Call<'a, '_>,
    key: &'a [u8],
    end: End,
    count: usize,
    before: impl FnOnce(&mut Call<'a, '_>),
) -> Result<bool, Fault<'a>> {
    let views = call.views;
    let view = views.view(key);
    let Some(list) = elements(view.as_ref())? else { return Ok(false) };
    before(call);
    let places = end.places(list.len(), count);
    call.reply.array(places.len());
    let taken = match end {
        End::Left => list.range(places.clone()),
        End::Right => list.range_back(places.clone()),
    };
    taken.for_each(|element| call.reply.bulk(&element.value));
    if !places.is_empty() {
        call.changes.push((key, without(list.len(), places)));
    }
    Ok(true)
}

/// The element at an end of a list, and the change that takes it.
fn outermost<'a>(list: &Fields<'_>, end: End) -> (Cow<'a, [u8]>, Range<usize>) {
    let places = end.places(list.len(), 1);
    let element = list.at(places.start).expect("a list that is there has an element");
    (Cow::Owned(element.value.into_owned()), places)
}

/// Takes one element from an end of the list at `key` and answers it beside the key; `false`, and
/// nothing said, if there is no list.
pub(super) fn take_one<'a>(
    call: &mut Call<'a, '_>,
    key: &'a [u8],
    end: End,
) -> Result<bool, Fault<'a>> {
    let view = call.views.view(key);
    let Some(list) = elements(view.as_ref())? else { return Ok(false) };
    let (value, places) = outermost(&list, end);
    call.reply.array(2);
    call.reply.bulk(key);
    call.reply.bulk(&value);
    call.changes.push((key, without(list.len(), places)));
    Ok(true)
}

fn pop<'a>(call: &mut Call<'a, '_>, end: End, name: &'static str) -> Result<(), Fault<'a>> {
    let key = call.args[1];
    match call.args[2..] {
        [] => {}
        [count] => {
            let count = integer(count).ok().and_then(|count| usize::try_from(count).ok());
            let count = count.ok_or(Fault::NotPositive)?;
            if !take(call, key, end, count, |_| ())? {
                call.reply.null_array();
            }
            return Ok(());
        }
        _ => return Err(Fault::Arity(name)),
    }
    let view = call.views.view(key);
    match elements(view.as_ref())? {
        Some(list) => {
            let places = end.places(list.len(), 1);
            list.each_value(places.clone(), |value| call.reply.bulk(value));
            call.changes.push((key, without(list.len(), places)));
        }
        None => call.reply.null(),
    }
    Ok(())
}

/// `LPOP key [count]`.
pub fn lpop(call: &mut Call<'_, '_>) {
    answer(call, |call| pop(call, End::Left, "lpop"));
}

/// `RPOP key [count]`.
pub fn rpop(call: &mut Call<'_, '_>) {
    answer(call, |call| pop(call, End::Right, "rpop"));
}

// LLEN, LRANGE, LINDEX

/// `LLEN key`.
pub fn llen(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let len = len_of(call, call.args[1])?;
        call.reply.integer(len as i64);
        Ok(())
    });
}

/// `LRANGE key start stop`.
pub fn lrange(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let (start, stop) = (integer(call.args[2])?, integer(call.args[3])?);
        let view = call.views.view(call.args[1]);
        let Some(list) = elements(view.as_ref())? else {
            call.reply.array(0);
            return Ok(());
        };
        let places = span(start, stop, list.len());
        call.reply.array(places.len());
        list.each_value(places, |value| call.reply.bulk(value));
        Ok(())
    });
}

/// `LINDEX key index`.
pub fn lindex(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let view = call.views.view(call.args[1]);
        let Some(list) = elements(view.as_ref())? else {
            call.reply.null();
            return Ok(());
        };
        let place = place_of(integer(call.args[2])?, list.len());
        match place.and_then(|place| list.at(place)) {
            Some(element) => call.reply.bulk(&element.value),
            None => call.reply.null(),
        }
        Ok(())
    });
}

// LSET, LINSERT, LREM, LTRIM

/// `LSET key index element`.
pub fn lset(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let (key, value) = (call.args[1], call.args[3]);
        let view = call.views.view(key);
        let list = elements(view.as_ref())?.ok_or(Fault::NoSuchKey)?;
        let place = place_of(integer(call.args[2])?, list.len()).ok_or(Fault::Index)?;
        let edit = Edit::SetAt { place, value: Cow::Borrowed(value) };
        call.changes.push((key, Change::edit(Kind::List, [edit])));
        call.reply.ok();
        Ok(())
    });
}

/// `LINSERT key BEFORE|AFTER pivot element`: the first such pivot counts.
pub fn linsert(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let [_, key, side, pivot, value] = *call.args else { unreachable!("arity") };
        let after = match side {
            _ if is(side, "AFTER") => 1,
            _ if is(side, "BEFORE") => 0,
            _ => return Err(Fault::Syntax),
        };
        let view = call.views.view(key);
        let Some(list) = elements(view.as_ref())? else {
            call.reply.integer(0);
            return Ok(());
        };
        match list.iter().position(|element| *element.value == *pivot) {
            Some(at) => {
                let edit = Edit::Insert { place: at + after, value: Cow::Borrowed(value) };
                call.changes.push((key, Change::edit(Kind::List, [edit])));
                call.reply.integer(list.len() as i64 + 1);
            }
            None => call.reply.integer(-1),
        }
        Ok(())
    });
}

/// `LREM key count element`: the first `count` such elements, the last ones if it is negative, or
/// all of them if it is 0.
pub fn lrem(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let (key, value) = (call.args[1], call.args[3]);
        let count = symmetric(call.args[2])?;
        let most = if count == 0 { usize::MAX } else { count.unsigned_abs() as usize };
        let view = call.views.view(key);
        let Some(list) = elements(view.as_ref())? else {
            call.reply.integer(0);
            return Ok(());
        };
        let end = if count < 0 { End::Right } else { End::Left };
        let mut places: Vec<usize> = matching(&list, value, end, usize::MAX).take(most).collect();
        places.sort_unstable();
        call.reply.integer(places.len() as i64);
        if places.len() == list.len() {
            call.changes.push((key, Change::Delete));
        } else if !places.is_empty() {
            call.changes.push((key, Change::edit(Kind::List, removals(&places))));
        }
        Ok(())
    });
}

/// The edits that remove elements by their ascending places: from the last to the first, because
/// places are counted after each edit, and neighbours together.
fn removals<'a>(places: &[usize]) -> Vec<Edit<'a>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for &place in places {
        match runs.last_mut() {
            Some(run) if run.end == place => run.end += 1,
            _ => runs.push(place..place + 1),
        }
    }
    let remove = |run: Range<usize>| Edit::RemoveRange { place: run.start, count: run.len() };
    runs.into_iter().rev().map(remove).collect()
}

/// `LTRIM key start stop`.
pub fn ltrim(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let key = call.args[1];
        let (start, stop) = (integer(call.args[2])?, integer(call.args[3])?);
        let view = call.views.view(key);
        let len = elements(view.as_ref())?.map_or(0, |list| list.len());
        let kept = span(start, stop, len);
        let behind = Edit::RemoveRange { place: kept.end, count: len - kept.end };
        let before = Edit::RemoveRange { place: 0, count: kept.start };
        let is_some = |edit: &Edit<'_>| !matches!(edit, Edit::RemoveRange { count: 0, .. });
        if len > 0 && kept.is_empty() {
            call.changes.push((key, Change::Delete));
        } else if kept.len() < len {
            let edits = [behind, before].into_iter().filter(is_some);
            call.changes.push((key, Change::edit(Kind::List, edits)));
        }
        call.reply.ok();
        Ok(())
    });
}

/// An argument that must be an integer which has an opposite.
fn symmetric<'a>(text: &[u8]) -> Result<i64, Fault<'a>> {
    match integer(text)? {
        i64::MIN => Err(Fault::NoOpposite),
        number => Ok(number),
    }
}

/// The places of those of the `most` elements at an end that hold `value`, from the outermost on.
fn matching<'l>(
    list: &'l Fields<'_>,
    value: &'l [u8],
    end: End,
    most: usize,
) -> impl Iterator<Item = usize> + 'l {
    let places = end.places(list.len(), most);
    let (start, stop) = (places.start, places.end);
    let (elements, back) = match end {
        End::Left => (list.range(places), false),
        End::Right => (list.range_back(places), true),
    };
    let place = move |nth: usize| if back { stop - 1 - nth } else { start + nth };
    let holds =
        move |(nth, element): (usize, Element<'l>)| (*element.value == *value).then(|| place(nth));
    elements.enumerate().filter_map(holds)
}

// LPOS

/// The options of LPOS.
struct Search {
    /// Which of the matches is the first that counts; from the end when negative.
    rank: i64,
    /// How many are answered, as an array; 0: all of them.
    count: Option<usize>,
    /// How many elements are looked at.
    most: usize,
}

impl Search {
    fn parse<'a>(words: &[&'a [u8]]) -> Result<Search, Fault<'a>> {
        let mut search = Search { rank: 1, count: None, most: usize::MAX };
        for option in words.chunks(2) {
            let [word, number] = *option else { return Err(Fault::Syntax) };
            let at_least_zero = |name| {
                let number = integer(number).ok().and_then(|number| usize::try_from(number).ok());
                number.ok_or(Fault::Negative(name))
            };
            match word {
                _ if is(word, "RANK") => {
                    search.rank = symmetric(number)?;
                    if search.rank == 0 {
                        return Err(Fault::RankZero);
                    }
                }
                _ if is(word, "COUNT") => {
                    search.count = Some(at_least_zero("COUNT")?);
                }
                _ if is(word, "MAXLEN") => {
                    search.most = match at_least_zero("MAXLEN")? {
                        0 => usize::MAX,
                        most => most,
                    };
                }
                _ => return Err(Fault::Syntax),
            }
        }
        Ok(search)
    }

    /// The places of the matches that are answered, in the order in which they are found.
    fn found(&self, list: &Fields<'_>, value: &[u8]) -> Vec<usize> {
        let end = if self.rank < 0 { End::Right } else { End::Left };
        let skipped = self.rank.unsigned_abs() as usize - 1;
        let most = match self.count {
            Some(0) => usize::MAX,
            count => count.unwrap_or(1),
        };
        matching(list, value, end, self.most).skip(skipped).take(most).collect()
    }
}

/// `LPOS key element [RANK rank] [COUNT num-matches] [MAXLEN len]`.
pub fn lpos(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let (key, value) = (call.args[1], call.args[2]);
        let search = Search::parse(&call.args[3..])?;
        let view = call.views.view(key);
        let found = match elements(view.as_ref())? {
            Some(list) => search.found(&list, value),
            None => Vec::new(),
        };
        match (search.count, found.first()) {
            (Some(_), _) => {
                call.reply.array(found.len());
                found.iter().for_each(|&place| call.reply.integer(place as i64));
            }
            (None, Some(&place)) => call.reply.integer(place as i64),
            (None, None) => call.reply.null(),
        }
        Ok(())
    });
}

// LMOVE, RPOPLPUSH, LMPOP

/// Moves an element from an end of one list to an end of another, or of the same; `false`, and
/// nothing said, if there is none.
pub(super) fn carry<'a>(call: &mut Call<'a, '_>, from: End, to: End) -> Result<bool, Fault<'a>> {
    let (source, target) = (call.args[1], call.args[2]);
    let view = call.views.view(source);
    let Some(list) = elements(view.as_ref())? else { return Ok(false) };
    if target != source {
        elements(call.views.view(target).as_ref())?;
    }
    let (value, places) = outermost(&list, from);
    call.reply.bulk(&value);
    if target == source {
        let removal = Edit::RemoveRange { place: places.start, count: 1 };
        call.changes.push((source, Change::edit(Kind::List, [removal, to.push(value)])));
    } else {
        call.changes.push((source, without(list.len(), places)));
        call.changes.push((target, Change::edit(Kind::List, [to.push(value)])));
    }
    Ok(true)
}

/// `LMOVE source destination LEFT|RIGHT LEFT|RIGHT`.
pub fn lmove(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let (from, to) = (End::parse(call.args[3])?, End::parse(call.args[4])?);
        if !carry(call, from, to)? {
            call.reply.null();
        }
        Ok(())
    });
}

/// `RPOPLPUSH source destination`.
pub fn rpoplpush(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        if !carry(call, End::Right, End::Left)? {
            call.reply.null();
        }
        Ok(())
    });
}

/// What LMPOP and BLMPOP say after their keys are counted.
pub(super) struct Pops<'a> {
    pub(super) keys: &'a [&'a [u8]],
    pub(super) end: End,
    pub(super) count: usize,
}

impl<'a> Pops<'a> {
    /// Reads `numkeys key [key …] LEFT|RIGHT [COUNT count]`.
    pub(super) fn parse(words: &'a [&'a [u8]]) -> Result<Pops<'a>, Fault<'a>> {
        let (numkeys, words) = words.split_first().ok_or(Fault::Syntax)?;
        let numkeys = above_zero(numkeys).ok_or(Fault::KeyCount)?;
        if numkeys >= words.len() {
            return Err(Fault::Syntax);
        }
        let (keys, words) = words.split_at(numkeys);
        let end = End::parse(words[0])?;
        let mut count = None;
        for option in words[1..].chunks(2) {
            match *option {
                [word, number] if count.is_none() && is(word, "COUNT") => {
                    count = Some(above_zero(number).ok_or(Fault::TakenCount)?);
                }
                _ => return Err(Fault::Syntax),
            }
        }
        Ok(Pops { keys, end, count: count.unwrap_or(1) })
    }

    /// Takes from the first list that is there and answers its key and the elements; `false`, and
    /// nothing said, if there is none.
    pub(super) fn take(&self, call: &mut Call<'a, '_>) -> Result<bool, Fault<'a>> {
        for &key in self.keys {
            let name = |call: &mut Call<'a, '_>| {
                call.reply.array(2);
                call.reply.bulk(key);
            };
            if take(call, key, self.end, self.count, name)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn above_zero(text: &[u8]) -> Option<usize> {
    integer(text).ok().and_then(|number| usize::try_from(number).ok()).filter(|&n| n > 0)
}

/// `LMPOP numkeys key [key …] LEFT|RIGHT [COUNT count]`.
pub fn lmpop(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        if !Pops::parse(&call.args[1..])?.take(call)? {
            call.reply.null_array();
        }
        Ok(())
    });
}
