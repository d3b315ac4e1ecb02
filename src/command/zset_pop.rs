//! Taking the first or the last members of a sorted set: ZPOPMIN, ZPOPMAX, ZMPOP, and their kin
//! that wait.
//!
//! BZPOPMIN, BZPOPMAX and BZMPOP are the immediate form here: they answer null and ask for no change
//! when none of their keys has a member. Then the node lets them wait ([`super::blocking`]).

use std::ops::Range;

use crate::resp::reply::Protocol;
use crate::value::change::{Change, Edit};
use crate::value::element::Element;
use crate::value::fields::Fields;
use crate::value::view::{Kind, View};

use super::blocking::timeout;
use super::fault::{Fault, answer};
use super::number::{is, plain_integer};
use super::spec::Call;
use super::zset_range::removal;

/// Which end is taken from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Min,
    Max,
}

impl End {
    fn parse<'a>(word: &[u8]) -> Result<End, Fault<'a>> {
        match word {
            _ if is(word, "MIN") => Ok(End::Min),
            _ if is(word, "MAX") => Ok(End::Max),
            _ => Err(Fault::Syntax),
        }
    }

    /// The places of the members that are taken.
    fn places(self, fields: &Fields<'_>, count: usize) -> Range<usize> {
        let len = fields.len();
        let count = count.min(len);
        match self {
            End::Min => 0..count,
            End::Max => len - count..len,
        }
    }
}

/// How what was taken is told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Members and scores after each other.
    Flat,
    /// A pair for each member.
    Pairs,
}

/// Takes up to `count` members of what `view` shows, and tells them.
fn take<'a>(
    call: &mut Call<'a, '_>,
    key: &'a [u8],
    view: &View<'_>,
    (end, count): (End, usize),
    shape: Shape,
) -> Result<(), Fault<'a>> {
    let fields = view.fields(Kind::Zset)?;
    let places = end.places(&fields, count);
    call.reply.array(places.len() * if shape == Shape::Flat { 2 } else { 1 });
    let mut tell = |member: &Element<'_>| {
        if shape == Shape::Pairs {
            call.reply.array(2);
        }
        call.reply.bulk(&member.name);
        call.reply.double(member.score);
    };
    // Most take one of many.
    if places.len() == 1
        && fields.len() > 1
        && let Some(member) = fields.at(places.start)
    {
        tell(&member);
        let edit = Edit::remove(member.name.into_owned());
        call.changes.push((key, Change::edit_one(Kind::Zset, edit)));
        return Ok(());
    }
    let taken = match end {
        End::Min => fields.range(places.clone()),
        End::Max => fields.range_back(places.clone()),
    };
    taken.for_each(|member| tell(&member));
    call.changes.extend(removal(&fields, places).map(|change| (key, change)));
    Ok(())
}

/// The first of `keys` that is there; it must be a sorted set.
fn first_there<'a, 'r>(
    call: &Call<'a, 'r>,
    keys: &[&'a [u8]],
) -> Result<Option<(&'a [u8], View<'r>)>, Fault<'a>> {
    let mut views = keys.iter().filter_map(|key| Some((*key, call.views.view(key)?)));
    match views.next() {
        Some((_, view)) if view.kind != Kind::Zset => Err(Fault::WrongType),
        first => Ok(first),
    }
}

/// `ZPOPMIN key [count]`.
pub fn zpopmin(call: &mut Call<'_, '_>) {
    answer(call, |call| pop(call, End::Min));
}

/// `ZPOPMAX key [count]`.
pub fn zpopmax(call: &mut Call<'_, '_>) {
    answer(call, |call| pop(call, End::Max));
}

fn pop<'a>(call: &mut Call<'a, '_>, end: End) -> Result<(), Fault<'a>> {
    let count = match &call.args[2..] {
        [] => None,
        [count] => {
            let count = plain_integer(count).filter(|count| *count >= 0);
            Some(count.ok_or(Fault::NotPositive)?)
        }
        _ => return Err(Fault::Syntax),
    };
    let key = call.args[1];
    let Some(view) = call.views.view(key) else {
        call.reply.array(0);
        return Ok(());
    };
    let is_nested = count.is_some() && call.reply.protocol == Protocol::Resp3;
    let shape = if is_nested { Shape::Pairs } else { Shape::Flat };
    let count = count.map_or(1, |count| usize::try_from(count).unwrap_or(usize::MAX));
    take(call, key, &view, (end, count), shape)
}

/// What ZMPOP and BZMPOP are asked for.
struct Wish<'c, 'a> {
    keys: &'c [&'a [u8]],
    end: End,
    count: usize,
}

impl<'c, 'a> Wish<'c, 'a> {
    /// Reads the number of keys and what follows it.
    fn parse(words: &'c [&'a [u8]]) -> Result<Wish<'c, 'a>, Fault<'a>> {
        let (number, words) = words.split_first().ok_or(Fault::Syntax)?;
        let number = above_zero(number).ok_or(Fault::KeyCount)?;
        let (keys, words) = words.split_at_checked(number).ok_or(Fault::Syntax)?;
        let (end, words) = words.split_first().ok_or(Fault::Syntax)?;
        let end = End::parse(end)?;
        let count = match words {
            [] => 1,
            [word, count, rest @ ..] if is(word, "COUNT") => {
                let count = above_zero(count).ok_or(Fault::TakenCount)?;
                if rest.is_empty() { count } else { return Err(Fault::Syntax) }
            }
            _ => return Err(Fault::Syntax),
        };
        Ok(Wish { keys, end, count })
    }

    /// Takes from the first key that is there, if one is.
    fn take_first(&self, call: &mut Call<'a, '_>) -> Result<(), Fault<'a>> {
        match first_there(call, self.keys)? {
            None => call.reply.null_array(),
            Some((key, view)) => {
                call.reply.array(2);
                call.reply.bulk(key);
                take(call, key, &view, (self.end, self.count), Shape::Pairs)?;
            }
        }
        Ok(())
    }
}

/// A number that must be above zero.
fn above_zero(text: &[u8]) -> Option<usize> {
    let number = plain_integer(text).filter(|number| *number > 0)?;
    Some(usize::try_from(number).unwrap_or(usize::MAX))
}

/// `ZMPOP numkeys key [key …] MIN | MAX [COUNT count]`.
pub fn zmpop(call: &mut Call<'_, '_>) {
    answer(call, |call| Wish::parse(&call.args[1..])?.take_first(call));
}

/// `BZMPOP timeout numkeys key [key …] MIN | MAX [COUNT count]`: as far as it can be done at once.
pub fn bzmpop(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let wish = Wish::parse(&call.args[2..])?;
        timeout(call.args[1], call.now)?;
        wish.take_first(call)
    });
}

/// `BZPOPMIN key [key …] timeout`: as far as it can be done at once.
pub fn bzpopmin(call: &mut Call<'_, '_>) {
    answer(call, |call| pop_first(call, End::Min));
}

/// `BZPOPMAX key [key …] timeout`: as far as it can be done at once.
pub fn bzpopmax(call: &mut Call<'_, '_>) {
    answer(call, |call| pop_first(call, End::Max));
}

fn pop_first<'a>(call: &mut Call<'a, '_>, end: End) -> Result<(), Fault<'a>> {
    let (last, keys) = call.args[1..].split_last().ok_or(Fault::Syntax)?;
    timeout(last, call.now)?;
    let Some((key, view)) = first_there(call, keys)? else {
        call.reply.null_array();
        return Ok(());
    };
    let fields = view.fields(Kind::Zset)?;
    let places = end.places(&fields, 1);
    call.reply.array(3);
    call.reply.bulk(key);
    for member in fields.range(places.clone()) {
        call.reply.bulk(&member.name);
        call.reply.double(member.score);
    }
    call.changes.extend(removal(&fields, places).map(|change| (key, change)));
    Ok(())
}
