//! What is made of several sets of one slot: SINTER, SUNION, SDIFF and their STORE forms.
//!
//! A stored result replaces whatever its key held, and has no time to live. Of nothing it is a
//! deletion.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::value::change::Change;
use crate::value::element::Element;
use crate::value::fields::Fields;
use crate::value::view::{Kind, View, WrongType};

use super::collection::{counted_keys, elements};
use super::fault::{Fault, answer};
use super::number::{integer, is};
use super::spec::Call;

/// Sets, as their keys were named.
type Sets<'v, 'a> = [Cow<'v, Fields<'a>>];

/// What is made of sets.
type Operation = for<'s> fn(&'s Sets<'_, '_>) -> Box<dyn Iterator<Item = Cow<'s, [u8]>> + 's>;

/// The sets that `views` show. Each of them must be one, even where one that is empty would tell
/// the result.
fn all<'v, 'a>(views: &'v [Option<View<'a>>]) -> Result<Vec<Cow<'v, Fields<'a>>>, WrongType> {
    views.iter().map(|view| elements(view.as_ref(), Kind::Set)).collect()
}

/// What is in all of them: walked through the smallest, asked of the others, the smaller first.
fn intersection<'s>(sets: &'s Sets<'_, '_>) -> Box<dyn Iterator<Item = Cow<'s, [u8]>> + 's> {
    let mut sets: Vec<&Fields<'_>> = sets.iter().map(|set| &**set).collect();
    sets.sort_by_key(|set| set.len());
    let Some((smallest, others)) = sets.split_first() else { return Box::new(std::iter::empty()) };
    let others = others.to_vec();
    let names = smallest.iter().map(|member| member.name);
    Box::new(names.filter(move |name| others.iter().all(|set| set.contains(name))))
}

/// What is in any of them, once.
fn union<'s>(sets: &'s Sets<'_, '_>) -> Box<dyn Iterator<Item = Cow<'s, [u8]>> + 's> {
    let mut met = HashSet::new();
    let names = sets.iter().flat_map(|set| set.iter().map(|member| member.name));
    Box::new(names.filter(move |name| met.insert(name.clone())))
}

/// What is in the first and in no other: the largest of them is asked first.
fn difference<'s>(sets: &'s Sets<'_, '_>) -> Box<dyn Iterator<Item = Cow<'s, [u8]>> + 's> {
    let Some((first, others)) = sets.split_first() else { return Box::new(std::iter::empty()) };
    let mut others: Vec<&Fields<'_>> = others.iter().map(|set| &**set).collect();
    others.sort_by_key(|set| std::cmp::Reverse(set.len()));
    let names = first.iter().map(|member| member.name);
    Box::new(names.filter(move |name| others.iter().all(|set| !set.contains(name))))
}

fn views_of<'r>(call: &Call<'_, 'r>, keys: &[&[u8]]) -> Vec<Option<View<'r>>> {
    keys.iter().map(|key| call.views.view(key)).collect()
}

fn show(call: &mut Call<'_, '_>, operation: Operation) {
    answer(call, |call| {
        let views = views_of(call, &call.args[1..]);
        let sets = all(&views)?;
        let members: Vec<Cow<'_, [u8]>> = operation(&sets).collect();
        call.reply.set(members.len());
        members.iter().for_each(|member| call.reply.bulk(member));
        Ok(())
    });
}

fn store(call: &mut Call<'_, '_>, operation: Operation) {
    answer(call, |call| {
        let target = call.args[1];
        let views = views_of(call, &call.args[2..]);
        let sets = all(&views)?;
        let members: Vec<Element<'_>> =
            operation(&sets).map(|name| Element::member(name.into_owned())).collect();
        call.reply.integer(members.len() as i64);
        if !members.is_empty() || call.views.view(target).is_some() {
            call.changes.push((target, Change::make(Kind::Set, None, members)));
        }
        Ok(())
    });
}

/// `SINTER key [key …]`.
pub fn sinter(call: &mut Call<'_, '_>) {
    show(call, intersection);
}

/// `SUNION key [key …]`.
pub fn sunion(call: &mut Call<'_, '_>) {
    show(call, union);
}

/// `SDIFF key [key …]`.
pub fn sdiff(call: &mut Call<'_, '_>) {
    show(call, difference);
}

/// `SINTERSTORE destination key [key …]`.
pub fn sinterstore(call: &mut Call<'_, '_>) {
    store(call, intersection);
}

/// `SUNIONSTORE destination key [key …]`.
pub fn sunionstore(call: &mut Call<'_, '_>) {
    store(call, union);
}

/// `SDIFFSTORE destination key [key …]`.
pub fn sdiffstore(call: &mut Call<'_, '_>) {
    store(call, difference);
}

/// The number behind LIMIT, of which the last one counts; 0 is none.
pub(super) fn limit<'a>(mut words: &[&'a [u8]]) -> Result<usize, Fault<'a>> {
    let mut limit = 0;
    while let [word, number, rest @ ..] = words
        && is(word, "LIMIT")
    {
        limit = integer(number).ok().filter(|&number| number >= 0).ok_or(Fault::Limit)?;
        words = rest;
    }
    if !words.is_empty() {
        return Err(Fault::Syntax);
    }
    Ok(usize::try_from(limit).unwrap_or(usize::MAX))
}

/// `SINTERCARD numkeys key [key …] [LIMIT limit]`.
pub fn sintercard(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let (keys, words) = counted_keys(&call.args[1..])?;
        let limit = limit(words)?;
        let views = views_of(call, keys);
        let sets = all(&views)?;
        let enough = if limit == 0 { usize::MAX } else { limit };
        call.reply.integer(intersection(&sets).take(enough).count() as i64);
        Ok(())
    });
}
