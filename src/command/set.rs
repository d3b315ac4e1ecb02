//! Sets: SADD, SREM, SPOP and their kin. What is made of several sets: [`set_algebra`](super::set_algebra).
//!
//! Adding a member that is there already is a write all the same: so it stays if somebody removes
//! it who has not seen that write. Only where one node holds the key alone nobody could, and it is no
//! write at all.

use crate::value::change::{Change, Edit};
use crate::value::view::Kind;

use super::chance::Chance;
use super::collection::{count, drawn, elements, firsts, has, remove_named, wanted};
use super::fault::{Fault, answer};
use super::number::integer;
use super::spec::Call;

/// `SADD key member [member …]`.
pub fn sadd(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let key = call.args[1];
        let named = || firsts(call.args[2..].iter().copied());
        let view = call.views.view(key);
        let members = elements(view.as_ref(), Kind::Set)?;
        let added = named().filter(|member| !members.contains(member)).count();
        // Elsewhere a member that is there may be removed at the same time: to add wins.
        if added > 0 || !call.views.is_sole() {
            call.changes.push((key, Change::edit(Kind::Set, named().map(Edit::member))));
        }
        call.reply.integer(added as i64);
        Ok(())
    });
}

/// `SREM key member [member …]`.
pub fn srem(call: &mut Call<'_, '_>) {
    answer(call, |call| remove_named(call, Kind::Set));
}

/// `SCARD key`.
pub fn scard(call: &mut Call<'_, '_>) {
    answer(call, |call| count(call, Kind::Set));
}

/// `SISMEMBER key member`.
pub fn sismember(call: &mut Call<'_, '_>) {
    answer(call, |call| has(call, Kind::Set));
}

/// `SMISMEMBER key member [member …]`.
pub fn smismember(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let view = call.views.view(call.args[1]);
        let members = elements(view.as_ref(), Kind::Set)?;
        call.reply.array(call.args.len() - 2);
        for member in &call.args[2..] {
            call.reply.integer(i64::from(members.contains(member)));
        }
        Ok(())
    });
}

/// `SMEMBERS key`.
pub fn smembers(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let view = call.views.view(call.args[1]);
        let members = elements(view.as_ref(), Kind::Set)?;
        call.reply.set(members.len());
        members.iter().for_each(|member| call.reply.bulk(&member.name));
        Ok(())
    });
}

/// `SMOVE source destination member`: 1 if it was there.
pub fn smove(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let (from, to, member) = (call.args[1], call.args[2], call.args[3]);
        let Some(source) = call.views.view(from) else {
            call.reply.integer(0);
            return Ok(());
        };
        let is_there = source.fields(Kind::Set)?.contains(member);
        elements(call.views.view(to).as_ref(), Kind::Set)?;
        if is_there && from != to {
            call.changes.push((from, Change::edit(Kind::Set, [Edit::remove(member)])));
            call.changes.push((to, Change::edit(Kind::Set, [Edit::member(member)])));
        }
        call.reply.integer(i64::from(is_there));
        Ok(())
    });
}

/// `SPOP key [count]`.
pub fn spop(call: &mut Call<'_, '_>) {
    answer(call, |call| match call.args[2..] {
        [] => pop_one(call),
        [number] => pop_several(call, number),
        _ => Err(Fault::Syntax),
    });
}

fn pop_one<'a>(call: &mut Call<'a, '_>) -> Result<(), Fault<'a>> {
    let key = call.args[1];
    let view = call.views.view(key);
    let members = elements(view.as_ref(), Kind::Set)?;
    match members.at(Chance::new(call.random).place(members.len())) {
        Some(member) => {
            call.reply.bulk(&member.name);
            let edit = Edit::remove(member.name.into_owned());
            call.changes.push((key, Change::edit_one(Kind::Set, edit)));
        }
        None => call.reply.null(),
    }
    Ok(())
}

fn pop_several<'a>(call: &mut Call<'a, '_>, number: &[u8]) -> Result<(), Fault<'a>> {
    let number = integer(number).ok().filter(|&number| number >= 0).ok_or(Fault::NotPositive)?;
    let key = call.args[1];
    let view = call.views.view(key);
    let members = elements(view.as_ref(), Kind::Set)?;
    let places = drawn(&members, number, false, call.random)?;
    call.reply.set(places.len());
    // Who takes all deletes the key: that is one small change, however many there were.
    let takes_all = places.len() == members.len();
    let mut edits = Vec::with_capacity(if takes_all { 0 } else { places.len() });
    for member in places.into_iter().filter_map(|place| members.at(place)) {
        call.reply.bulk(&member.name);
        if !takes_all {
            edits.push(Edit::remove(member.name.into_owned()));
        }
    }
    if takes_all && !members.is_empty() {
        call.changes.push((key, Change::Delete));
    } else if !edits.is_empty() {
        call.changes.push((key, Change::edit(Kind::Set, edits)));
    }
    Ok(())
}

/// `SRANDMEMBER key [count]`.
pub fn srandmember(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let wanted = match call.args[2..] {
            [] => None,
            [number] => Some(wanted(number)?),
            _ => return Err(Fault::Syntax),
        };
        let view = call.views.view(call.args[1]);
        let members = elements(view.as_ref(), Kind::Set)?;
        let Some(wanted) = wanted else {
            match members.at(Chance::new(call.random).place(members.len())) {
                Some(member) => call.reply.bulk(&member.name),
                None => call.reply.null(),
            }
            return Ok(());
        };
        let places = drawn(&members, wanted, false, call.random)?;
        call.reply.array(places.len());
        for member in places.into_iter().filter_map(|place| members.at(place)) {
            call.reply.bulk(&member.name);
        }
        Ok(())
    });
}
