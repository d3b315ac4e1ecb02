//! Counters: INCR and its kin.
//!
//! The change is the increment, not the sum: concurrent increments on two sides both count. The
//! reply is the sum that the coordinator sees.

use crate::base::float::Wide;
use crate::value::change::{Amount, Change};

use super::fault::{Fault, answer};
use super::number::integer;
use super::spec::Call;

/// Counts `by` further.
fn count<'a>(call: &mut Call<'a, '_>, by: i64) -> Result<(), Fault<'a>> {
    let key = call.args[1];
    let number = match call.views.view(key) {
        Some(view) => integer(&view.string()?)?,
        None => 0,
    };
    let sum = number.checked_add(by).ok_or(Fault::Overflow)?;
    call.changes.push((key, Change::Increment(Amount::Int(by.into()))));
    call.reply.integer(sum);
    Ok(())
}

/// `INCR key`.
pub fn incr(call: &mut Call<'_, '_>) {
    answer(call, |call| count(call, 1));
}

/// `DECR key`.
pub fn decr(call: &mut Call<'_, '_>) {
    answer(call, |call| count(call, -1));
}

/// `INCRBY key increment`.
pub fn incrby(call: &mut Call<'_, '_>) {
    answer(call, |call| count(call, integer(call.args[2])?));
}

/// `DECRBY key decrement`.
pub fn decrby(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let by = integer(call.args[2])?;
        count(call, by.checked_neg().ok_or(Fault::DecrementOverflow)?)
    });
}

/// What is to be counted when `asked` is added to `number`, and the sum.
///
/// What is counted is the increment as it prints (17 decimals), so that the sum of increments
/// never shows a digit that no reply has shown.
pub(super) fn added<'a>(number: Wide, asked: Wide) -> Result<(Amount, Wide), Fault<'a>> {
    if !number.plus(asked).is_finite() {
        return Err(Fault::NotFinite);
    }
    let by = float(asked.text().as_bytes())?;
    Ok((Amount::Float(by.hi, by.lo), number.plus(by)))
}

/// `INCRBYFLOAT key increment`.
pub fn incrbyfloat(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let key = call.args[1];
        let number = match call.views.view(key) {
            Some(view) => float(&view.string()?)?,
            None => Wide::ZERO,
        };
        let (amount, sum) = added(number, float(call.args[2])?)?;
        call.reply.bulk(sum.text().as_bytes());
        call.changes.push((key, Change::Increment(amount)));
        Ok(())
    });
}

/// An argument or value that must be a number.
pub(super) fn float<'a>(text: &[u8]) -> Result<Wide, Fault<'a>> {
    Wide::parse(text).ok_or(Fault::NotFloat)
}
