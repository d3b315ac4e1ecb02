//! Fields that expire: HEXPIRE and its kin, HTTL and its kin, HPERSIST (Redis 7.4's).
//!
//! A field's time to live is written with its value, so giving it one writes the field anew with
//! what it holds. It is gone from that very millisecond on, for everybody, and so is the hash when
//! it was the last.
//!
//! ```text
//! HEXPIRE key seconds [NX | XX | GT | LT] FIELDS 2 a b   ─►   -2 no such field · 0 the condition
//!                                                             forbids · 1 set · 2 deleted
//! HTTL    key                             FIELDS 2 a b   ─►   -2 no such field · -1 no time to live
//! ```

use std::borrow::Cow;
use std::collections::HashMap;

use crate::base::time::UnixMs;
use crate::value::change::{Change, Edit};
use crate::value::element::Element;
use crate::value::view::Kind;

use super::collection::elements;
use super::expiry::Unit;
use super::fault::{Fault, answer};
use super::number::{integer, is, plain_integer};
use super::spec::Call;

/// The last moment at which a field may expire, in milliseconds: Redis keeps 46 bits of it.
const MOMENT_MAX: i64 = 0x0000_FFFF_FFFF_FFFE >> 2;

const NO_FIELD: i64 = -2;
const NO_TIME: i64 = -1;
const NOT_MET: i64 = 0;
const DONE: i64 = 1;
const DELETED: i64 = 2;

/// When a field's time to live may be set, by the one that is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    Always,
    None,
    Some,
    Later,
    Earlier,
}

impl Condition {
    /// The condition that begins `words`, and the words behind it.
    fn lead<'c, 'a>(words: &'c [&'a [u8]]) -> (Condition, &'c [&'a [u8]]) {
        const WORDS: [(&str, Condition); 4] = [
            ("NX", Condition::None),
            ("XX", Condition::Some),
            ("GT", Condition::Later),
            ("LT", Condition::Earlier),
        ];
        let [first, rest @ ..] = words else { return (Condition::Always, words) };
        match WORDS.iter().find(|(word, _)| is(first, word)) {
            Some(&(_, condition)) => (condition, rest),
            None => (Condition::Always, words),
        }
    }

    /// No time to live counts as an endless one.
    fn allows(self, current: Option<UnixMs>, moment: UnixMs) -> bool {
        match self {
            Condition::Always => true,
            Condition::None => current.is_none(),
            Condition::Some => current.is_some(),
            Condition::Later => current.is_some_and(|at| moment > at),
            Condition::Earlier => current.is_none_or(|at| moment < at),
        }
    }
}

/// The fields of `FIELDS number field [field …]`; `miscount` is what a bad number is told.
fn named<'c, 'a>(words: &'c [&'a [u8]], miscount: Fault<'a>) -> Result<&'c [&'a [u8]], Fault<'a>> {
    let [word, number, fields @ ..] = words else { return Err(Fault::NoFields) };
    if !is(word, "FIELDS") {
        return Err(Fault::NoFields);
    }
    let number = plain_integer(number).filter(|&number| number > 0).ok_or(miscount)?;
    if usize::try_from(number) != Ok(fields.len()) {
        return Err(Fault::FieldsDiffer);
    }
    Ok(fields)
}

/// The moment that `amount` of `unit` means.
fn moment<'a>(
    amount: &[u8],
    unit: Unit,
    now: UnixMs,
    command: &'static str,
) -> Result<UnixMs, Fault<'a>> {
    let amount = integer(amount)?;
    if amount < 0 {
        return Err(Fault::NegativeTime);
    }
    let moment = unit.moment(amount, now).filter(|&moment| moment <= MOMENT_MAX);
    moment.map(|moment| UnixMs(moment as u64)).ok_or(Fault::ExpireTime(command))
}

/// A field as the words before have left it: none if they deleted it.
type Held<'f> = Option<Element<'f>>;

/// Goes through the named fields, each as those before have left it. `step` says what the field
/// is answered, and may change it: then it is written.
fn change_each<'a>(
    call: &mut Call<'a, '_>,
    names: &[&'a [u8]],
    step: impl Fn(&mut Held<'_>) -> i64,
) -> Result<(), Fault<'a>> {
    let key = call.args[1];
    let view = call.views.view(key);
    let fields = elements(view.as_ref(), Kind::Hash)?;
    let mut touched: HashMap<&[u8], Held<'_>> = HashMap::new();
    let mut edits = Vec::new();
    call.reply.array(names.len());
    for &name in names {
        let held = touched.entry(name).or_insert_with(|| fields.get(name));
        let said = if held.is_none() { NO_FIELD } else { step(held) };
        call.reply.integer(said);
        match held {
            Some(field) if said == DONE => edits.push(Edit::Set {
                name: name.into(),
                value: Cow::Owned(field.value.to_vec()),
                expire_at: field.expire_at,
            }),
            None if said == DELETED => edits.push(Edit::remove(name)),
            _ => {}
        }
    }
    if !edits.is_empty() {
        call.changes.push((key, Change::edit(Kind::Hash, edits)));
    }
    Ok(())
}

/// Refuses a key of another type, as the first thing.
fn look_at_type<'a>(call: &Call<'a, '_>) -> Result<(), Fault<'a>> {
    match call.views.view(call.args[1]) {
        Some(view) if view.kind != Kind::Hash => Err(Fault::WrongType),
        _ => Ok(()),
    }
}

fn expire(call: &mut Call<'_, '_>, unit: Unit, command: &'static str) {
    answer(call, |call| {
        look_at_type(call)?;
        let now = call.now;
        let moment = moment(call.args[2], unit, now, command)?;
        let (condition, words) = Condition::lead(&call.args[3..]);
        let names = named(words, Fault::FieldCount)?;
        change_each(call, names, |held| {
            let Some(field) = held else { return NO_FIELD };
            if !condition.allows(field.expire_at, moment) {
                return NOT_MET;
            }
            if moment <= now {
                *held = None;
                return DELETED;
            }
            field.expire_at = Some(moment);
            DONE
        })
    });
}

/// `HEXPIRE key seconds [NX | XX | GT | LT] FIELDS numfields field [field …]`.
pub fn hexpire(call: &mut Call<'_, '_>) {
    expire(call, Unit::Seconds, "hexpire");
}

/// `HPEXPIRE key milliseconds [NX | XX | GT | LT] FIELDS numfields field [field …]`.
pub fn hpexpire(call: &mut Call<'_, '_>) {
    expire(call, Unit::Milliseconds, "hpexpire");
}

/// `HEXPIREAT key unix-time-seconds [NX | XX | GT | LT] FIELDS numfields field [field …]`.
pub fn hexpireat(call: &mut Call<'_, '_>) {
    expire(call, Unit::SecondsAt, "hexpireat");
}

/// `HPEXPIREAT key unix-time-milliseconds [NX | XX | GT | LT] FIELDS numfields field [field …]`.
pub fn hpexpireat(call: &mut Call<'_, '_>) {
    expire(call, Unit::MillisecondsAt, "hpexpireat");
}

/// `HPERSIST key FIELDS numfields field [field …]`.
pub fn hpersist(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        look_at_type(call)?;
        let names = named(&call.args[2..], Fault::NumberOfFields)?;
        change_each(call, names, |held| {
            let expired = held.as_mut().and_then(|field| field.expire_at.take());
            if expired.is_some() { DONE } else { NO_TIME }
        })
    });
}

/// Answers when fields expire, in `unit`; seconds are rounded up, unlike those of a key.
fn report(call: &mut Call<'_, '_>, unit: Unit) {
    answer(call, |call| {
        look_at_type(call)?;
        let names = named(&call.args[2..], Fault::NumberOfFields)?;
        let view = call.views.view(call.args[1]);
        let fields = elements(view.as_ref(), Kind::Hash)?;
        let (base, divisor) = match unit {
            Unit::Seconds => (call.now.0, 1000),
            Unit::Milliseconds => (call.now.0, 1),
            Unit::SecondsAt => (0, 1000),
            Unit::MillisecondsAt => (0, 1),
        };
        call.reply.array(names.len());
        for name in names {
            call.reply.integer(match fields.get(name).map(|field| field.expire_at) {
                None => NO_FIELD,
                Some(None) => NO_TIME,
                Some(Some(at)) => at.0.saturating_sub(base).div_ceil(divisor) as i64,
            });
        }
        Ok(())
    });
}

/// `HTTL key FIELDS numfields field [field …]`: seconds left.
pub fn httl(call: &mut Call<'_, '_>) {
    report(call, Unit::Seconds);
}

/// `HPTTL key FIELDS numfields field [field …]`: milliseconds left.
pub fn hpttl(call: &mut Call<'_, '_>) {
    report(call, Unit::Milliseconds);
}

/// `HEXPIRETIME key FIELDS numfields field [field …]`: seconds since the epoch.
pub fn hexpiretime(call: &mut Call<'_, '_>) {
    report(call, Unit::SecondsAt);
}

/// `HPEXPIRETIME key FIELDS numfields field [field …]`: milliseconds since the epoch.
pub fn hpexpiretime(call: &mut Call<'_, '_>) {
    report(call, Unit::MillisecondsAt);
}
