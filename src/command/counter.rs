//! Counters: INCR and its kin.
//!
//! The change is the increment, not the sum: concurrent increments on two sides both count. The
//! reply is the sum that the coordinator sees.

use crate::value::change::{Amount, Change};
use crate::value::number::{add_amounts, amount_text, is_finite, parse_float};

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

/// What is to be counted when `asked` is added to `number`, and the sum as it is told.
///
/// What is counted is the way from the old number to the new one as they print: so what is shown
/// afterwards is what was replied, and a chain of increments shows Redis's own digits.
pub(super) fn added<'a>(number: Amount, asked: Amount) -> Result<(Amount, Vec<u8>), Fault<'a>> {
    let sum = add_amounts(number, asked);
    if !is_finite(sum) {
        return Err(Fault::NotFinite);
    }
    let text = amount_text(sum);
    let amount = add_amounts(float(&text)?, negated(number));
    Ok((amount, text))
}

const fn negated(amount: Amount) -> Amount {
    match amount {
        Amount::Int(number) => Amount::Int(-number),
        Amount::Float(hi, lo) => Amount::Float(-hi, -lo),
    }
}

/// `INCRBYFLOAT key increment`.
pub fn incrbyfloat(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let key = call.args[1];
        let number = match call.views.view(key) {
            Some(view) => float(&view.string()?)?,
            None => Amount::Int(0),
        };
        let (amount, text) = added(number, float(call.args[2])?)?;
        call.reply.bulk(&text);
        call.changes.push((key, Change::Increment(amount)));
        Ok(())
    });
}

/// An argument or value that must be a number.
pub(super) fn float<'a>(text: &[u8]) -> Result<Amount, Fault<'a>> {
    parse_float(text).ok_or(Fault::NotFloat)
}
