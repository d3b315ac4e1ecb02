//! Hashes: HSET, HGET and their kin.
//!
//! A write names the fields it touches and no others, so writes of different fields on two sides
//! both stay. A field that is written again is a new write even if it holds the same: so it wins
//! over a delete that has not seen it. HSET takes a field's time to live away, an increment leaves
//! it ([`hash_expiry`](super::hash_expiry)).

use crate::resp::reply::Protocol;
use crate::value::change::{Amount, Change, Edit};
use crate::value::element::Element;
use crate::value::fields::Fields;
use crate::value::number::{is_finite, parse_float};
use crate::value::view::Kind;

use super::chance::Chance;
use super::collection::{count, drawn, elements, firsts, has, remove_named, wanted};
use super::counter::{added, float};
use super::fault::{Fault, answer};
use super::number::{integer, is, plain_integer};
use super::spec::Call;

/// Writes pairs of fields and values; answers how many of the fields are new.
fn write<'a>(call: &mut Call<'a, '_>, command: &'static str) -> Result<usize, Fault<'a>> {
    let (key, pairs) = (call.args[1], &call.args[2..]);
    if !pairs.len().is_multiple_of(2) {
        return Err(Fault::Arity(command));
    }
    let view = call.views.view(key);
    let fields = elements(view.as_ref(), Kind::Hash)?;
    if let [field, value] = pairs {
        let created = usize::from(!fields.contains(field));
        call.changes.push((key, Change::edit_one(Kind::Hash, Edit::field(*field, *value))));
        return Ok(created);
    }
    let pairs = pairs.chunks_exact(2);
    let named = firsts(pairs.clone().map(|pair| pair[0]));
    let created = named.filter(|field| !fields.contains(field)).count();
    let edits = pairs.map(|pair| Edit::field(pair[0], pair[1]));
    call.changes.push((key, Change::edit(Kind::Hash, edits)));
    Ok(created)
}

/// `HSET key field value [field value …]`. Of a field named twice the last value stands.
pub fn hset(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let created = write(call, "hset")?;
        call.reply.integer(created as i64);
        Ok(())
    });
}

/// `HMSET key field value [field value …]`.
pub fn hmset(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        write(call, "hmset")?;
        call.reply.ok();
        Ok(())
    });
}

/// `HSETNX key field value`.
pub fn hsetnx(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let (key, field) = (call.args[1], call.args[2]);
        let view = call.views.view(key);
        let is_free = !elements(view.as_ref(), Kind::Hash)?.contains(field);
        if is_free {
            let edit = Edit::field(field, call.args[3]);
            call.changes.push((key, Change::edit(Kind::Hash, [edit])));
        }
        call.reply.integer(i64::from(is_free));
        Ok(())
    });
}

/// A field's value, or null.
fn value(call: &mut Call<'_, '_>, field: Option<Element<'_>>) {
    match field {
        Some(field) => call.reply.bulk(&field.value),
        None => call.reply.null(),
    }
}

/// `HGET key field`.
pub fn hget(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let view = call.views.view(call.args[1]);
        value(call, elements(view.as_ref(), Kind::Hash)?.get(call.args[2]));
        Ok(())
    });
}

/// `HMGET key field [field …]`.
pub fn hmget(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let view = call.views.view(call.args[1]);
        let fields = elements(view.as_ref(), Kind::Hash)?;
        call.reply.array(call.args.len() - 2);
        for name in &call.args[2..] {
            value(call, fields.get(name));
        }
        Ok(())
    });
}

/// `HSTRLEN key field`.
pub fn hstrlen(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let view = call.views.view(call.args[1]);
        let fields = elements(view.as_ref(), Kind::Hash)?;
        let len = fields.get(call.args[2]).map_or(0, |field| field.value.len());
        call.reply.integer(len as i64);
        Ok(())
    });
}

/// `HEXISTS key field`.
pub fn hexists(call: &mut Call<'_, '_>) {
    answer(call, |call| has(call, Kind::Hash));
}

/// `HLEN key`.
pub fn hlen(call: &mut Call<'_, '_>) {
    answer(call, |call| count(call, Kind::Hash));
}

/// `HDEL key field [field …]`.
pub fn hdel(call: &mut Call<'_, '_>) {
    answer(call, |call| remove_named(call, Kind::Hash));
}

/// `HGETALL key`.
pub fn hgetall(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let view = call.views.view(call.args[1]);
        let fields = elements(view.as_ref(), Kind::Hash)?;
        call.reply.map(fields.len());
        for field in fields.iter() {
            call.reply.bulk(&field.name);
            call.reply.bulk(&field.value);
        }
        Ok(())
    });
}

/// `HKEYS key`.
pub fn hkeys(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let view = call.views.view(call.args[1]);
        let fields = elements(view.as_ref(), Kind::Hash)?;
        call.reply.array(fields.len());
        fields.iter().for_each(|field| call.reply.bulk(&field.name));
        Ok(())
    });
}

/// `HVALS key`.
pub fn hvals(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let view = call.views.view(call.args[1]);
        let fields = elements(view.as_ref(), Kind::Hash)?;
        call.reply.array(fields.len());
        fields.iter().for_each(|field| call.reply.bulk(&field.value));
        Ok(())
    });
}

/// Asks for an increment of the field `call.args[2]`.
fn add<'a>(call: &mut Call<'a, '_>, amount: Amount) {
    let edit = Edit::Add { name: call.args[2].into(), amount };
    call.changes.push((call.args[1], Change::edit(Kind::Hash, [edit])));
}

/// `HINCRBY key field increment`.
pub fn hincrby(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let by = integer(call.args[3])?;
        let view = call.views.view(call.args[1]);
        let fields = elements(view.as_ref(), Kind::Hash)?;
        let number = match fields.get(call.args[2]) {
            Some(field) => plain_integer(&field.value).ok_or(Fault::FieldNotInteger)?,
            None => 0,
        };
        let sum = number.checked_add(by).ok_or(Fault::Overflow)?;
        add(call, Amount::Int(by.into()));
        call.reply.integer(sum);
        Ok(())
    });
}

/// `HINCRBYFLOAT key field increment`.
pub fn hincrbyfloat(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let asked = float(call.args[3])?;
        if !is_finite(asked) {
            return Err(Fault::Endless);
        }
        let view = call.views.view(call.args[1]);
        let fields = elements(view.as_ref(), Kind::Hash)?;
        let number = match fields.get(call.args[2]) {
            Some(field) => parse_float(&field.value).ok_or(Fault::FieldNotFloat)?,
            None => Amount::Int(0),
        };
        let (amount, text) = added(number, asked)?;
        add(call, amount);
        call.reply.bulk(&text);
        Ok(())
    });
}

/// `HRANDFIELD key [count [WITHVALUES]]`.
pub fn hrandfield(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let options = match call.args[2..] {
            [] => None,
            [number] => Some((wanted(number)?, false)),
            [number, word] => {
                let wanted = wanted(number)?;
                if !is(word, "WITHVALUES") {
                    return Err(Fault::Syntax);
                }
                if wanted.unsigned_abs() > i64::MAX as u64 / 2 {
                    return Err(Fault::OutOfRange);
                }
                Some((wanted, true))
            }
            [number, ..] => return wanted(number).and(Err(Fault::Syntax)),
        };
        let view = call.views.view(call.args[1]);
        let fields = elements(view.as_ref(), Kind::Hash)?;
        match options {
            Some((wanted, with_values)) => several(call, &fields, wanted, with_values)?,
            None => match fields.at(Chance::new(call.random).place(fields.len())) {
                Some(field) => call.reply.bulk(&field.name),
                None => call.reply.null(),
            },
        }
        Ok(())
    });
}

/// Random fields: in RESP3 those with values come as pairs.
fn several<'a>(
    call: &mut Call<'a, '_>,
    fields: &Fields<'_>,
    wanted: i64,
    with_values: bool,
) -> Result<(), Fault<'a>> {
    let places = drawn(fields, wanted, with_values, call.random)?;
    let in_pairs = with_values && call.reply.protocol == Protocol::Resp3;
    let flat = if with_values && !in_pairs { 2 } else { 1 };
    call.reply.array(places.len() * flat);
    for field in places.into_iter().filter_map(|place| fields.at(place)) {
        if in_pairs {
            call.reply.array(2);
        }
        call.reply.bulk(&field.name);
        if with_values {
            call.reply.bulk(&field.value);
        }
    }
    Ok(())
}
