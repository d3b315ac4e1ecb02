//! What commands on collections share.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::base::limits::{DRAWS_MAX, VALUE_SIZE_MAX};
use crate::value::change::{Change, Edit};
use crate::value::element::Element;
use crate::value::fields::Fields;
use crate::value::view::{Kind, View, WrongType};

use super::chance::Chance;
use super::fault::Fault;
use super::number::{integer, plain_integer};
use super::spec::Call;

/// The elements of a key: none of a key that is not there.
pub(super) fn elements<'v, 'a>(
    view: Option<&'v View<'a>>,
    kind: Kind,
) -> Result<Cow<'v, Fields<'a>>, WrongType> {
    match view {
        Some(view) => view.fields(kind),
        None => Ok(Cow::Owned(Fields::none(kind))),
    }
}

/// Each of `names` when it comes for the first time.
pub(super) fn firsts<'a>(names: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a [u8]> {
    let is_single = names.size_hint().1 == Some(1);
    let mut met = HashSet::new();
    names.filter(move |name| is_single || met.insert(*name))
}

/// Removes the named elements that are there, and answers how many they were (HDEL, SREM, ZREM).
pub(super) fn remove_named<'a>(call: &mut Call<'a, '_>, kind: Kind) -> Result<(), Fault<'a>> {
    let key = call.args[1];
    let view = call.views.view(key);
    let fields = elements(view.as_ref(), kind)?;
    let named = firsts(call.args[2..].iter().copied());
    let gone: Vec<Edit<'a>> =
        named.filter(|name| fields.contains(name)).map(Edit::remove).collect();
    call.reply.integer(gone.len() as i64);
    if !gone.is_empty() {
        call.changes.push((key, Change::edit(kind, gone)));
    }
    Ok(())
}

/// Answers how many elements the key has (HLEN, SCARD, ZCARD).
pub(super) fn count<'a>(call: &mut Call<'a, '_>, kind: Kind) -> Result<(), Fault<'a>> {
    let view = call.views.view(call.args[1]);
    let len = elements(view.as_ref(), kind)?.len();
    call.reply.integer(len as i64);
    Ok(())
}

/// Answers whether the key has an element of that name (HEXISTS, SISMEMBER).
pub(super) fn has<'a>(call: &mut Call<'a, '_>, kind: Kind) -> Result<(), Fault<'a>> {
    let view = call.views.view(call.args[1]);
    let is_there = elements(view.as_ref(), kind)?.contains(call.args[2]);
    call.reply.integer(i64::from(is_there));
    Ok(())
}

/// How many random elements an argument asks for: below zero, any one may come more than once.
pub(super) fn wanted<'a>(text: &[u8]) -> Result<i64, Fault<'a>> {
    let wanted = integer(text)?;
    if wanted == i64::MIN { Err(Fault::NoOpposite) } else { Ok(wanted) }
}

/// The places of as many random elements of `fields`. What could make a reply of any size out of a
/// small collection is refused.
pub(super) fn drawn<'a>(
    fields: &Fields<'_>,
    wanted: i64,
    with_values: bool,
    random: u64,
) -> Result<Vec<usize>, Fault<'a>> {
    let mut chance = Chance::new(random);
    let number = usize::try_from(wanted.unsigned_abs()).unwrap_or(usize::MAX);
    if wanted >= 0 || fields.is_empty() {
        return Ok(chance.places(fields.len(), number));
    }
    if number > DRAWS_MAX {
        return Err(Fault::OutOfRange);
    }
    let places: Vec<usize> = (0..number).map(|_| chance.place(fields.len())).collect();
    let elements = places.iter().filter_map(|&place| fields.at(place));
    let shown = |element: Element<'_>| {
        element.name.len() + if with_values { element.value.len() } else { 0 }
    };
    let size: usize = elements.map(shown).sum();
    if size > VALUE_SIZE_MAX { Err(Fault::OutOfRange) } else { Ok(places) }
}

/// Arguments in a row.
type Words<'c, 'a> = &'c [&'a [u8]];

/// The keys behind the argument that counts them, and the words behind those (SINTERCARD).
pub(super) fn counted_keys<'c, 'a>(
    words: Words<'c, 'a>,
) -> Result<(Words<'c, 'a>, Words<'c, 'a>), Fault<'a>> {
    let [number, words @ ..] = words else { return Err(Fault::Syntax) };
    let number = plain_integer(number).filter(|&number| number > 0).ok_or(Fault::KeyCount)?;
    let number = usize::try_from(number).ok();
    number.and_then(|number| words.split_at_checked(number)).ok_or(Fault::TooFewKeys)
}
