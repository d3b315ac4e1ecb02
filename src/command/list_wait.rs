//! Lists that are waited for: BLPOP, BRPOP, BLMOVE, BRPOPLPUSH, BLMPOP.
//!
//! The functions do what can be done at once, and answer a null if that is nothing: then the
//! node lets the request wait ([`super::blocking`]) and runs it again when one of its keys changes.

use super::blocking::timeout;
use super::fault::{Fault, answer};
use super::list::{End, Pops, carry, take_one};
use super::spec::Call;

fn pop<'a>(call: &mut Call<'a, '_>, end: End) -> Result<(), Fault<'a>> {
    let (last, keys) = call.args[1..].split_last().expect("arity");
    timeout(last, call.now)?;
    for &key in keys {
        if take_one(call, key, end)? {
            return Ok(());
        }
    }
    call.reply.null_array();
    Ok(())
}

/// `BLPOP key [key …] timeout`.
pub fn blpop(call: &mut Call<'_, '_>) {
    answer(call, |call| pop(call, End::Left));
}

/// `BRPOP key [key …] timeout`.
pub fn brpop(call: &mut Call<'_, '_>) {
    answer(call, |call| pop(call, End::Right));
}

/// `BLMOVE source destination LEFT|RIGHT LEFT|RIGHT timeout`.
pub fn blmove(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let (from, to) = (End::parse(call.args[3])?, End::parse(call.args[4])?);
        timeout(call.args[5], call.now)?;
        if !carry(call, from, to)? {
            call.reply.null();
        }
        Ok(())
    });
}

/// `BRPOPLPUSH source destination timeout`.
pub fn brpoplpush(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        timeout(call.args[3], call.now)?;
        if !carry(call, End::Right, End::Left)? {
            call.reply.null();
        }
        Ok(())
    });
}

/// `BLMPOP timeout numkeys key [key …] LEFT|RIGHT [COUNT count]`.
pub fn blmpop(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let pops = Pops::parse(&call.args[2..])?;
        timeout(call.args[1], call.now)?;
        if !pops.take(call)? {
            call.reply.null_array();
        }
        Ok(())
    });
}
