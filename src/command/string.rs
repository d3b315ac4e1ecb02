//! Whole strings: GET, SET and their kin.
//!
//! Redis's order of checks is kept, because clients see which error comes first: options, then
//! the expiry's number, then the type, then the condition.

use std::borrow::Cow;

use crate::base::time::UnixMs;
use crate::value::change::{Change, Expire};
use crate::value::view::View;

use super::expiry::Unit;
use super::fault::{Fault, answer};
use super::number::is;
use super::spec::Call;

/// Which command's options are read: they share most words, and each refuses some.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Set,
    GetEx,
    KvSet,
}

/// The options of SET, GETEX and KV.SET.
#[derive(Clone, Copy, Default)]
pub(super) struct Options<'a> {
    nx: bool,
    xx: bool,
    get: bool,
    keep_ttl: bool,
    persist: bool,
    expire: Option<(Unit, &'a [u8])>,
    /// The token after CONTEXT.
    pub(super) context: Option<&'a [u8]>,
}

impl<'a> Options<'a> {
    pub(super) fn parse(words: &[&'a [u8]], family: Family) -> Result<Options<'a>, Fault<'a>> {
        let mut options = Options::default();
        let mut words = words.iter();
        while let Some(&word) = words.next() {
            if let Some(unit) = Unit::of_option(word) {
                let amount = words.next().ok_or(Fault::Syntax)?;
                options.take_expiry(unit, amount)?;
            } else if family == Family::KvSet && options.context.is_none() && is(word, "CONTEXT") {
                options.context = Some(words.next().ok_or(Fault::Syntax)?);
            } else {
                options.take_word(word, family)?;
            }
        }
        Ok(options)
    }

    /// The same unit may come again, and the last amount counts; two units may not.
    fn take_expiry(&mut self, unit: Unit, amount: &'a [u8]) -> Result<(), Fault<'a>> {
        if self.keep_ttl || self.persist || self.expire.is_some_and(|(other, _)| other != unit) {
            return Err(Fault::Syntax);
        }
        self.expire = Some((unit, amount));
        Ok(())
    }

    fn take_word(&mut self, word: &[u8], family: Family) -> Result<(), Fault<'a>> {
        let set = family != Family::GetEx;
        let flag = match word {
            _ if set && is(word, "NX") && !self.xx => &mut self.nx,
            _ if set && is(word, "XX") && !self.nx => &mut self.xx,
            _ if family == Family::Set && is(word, "GET") => &mut self.get,
            _ if set && is(word, "KEEPTTL") && self.expire.is_none() => &mut self.keep_ttl,
            _ if !set && is(word, "PERSIST") && self.expire.is_none() => &mut self.persist,
            _ => return Err(Fault::Syntax),
        };
        *flag = true;
        Ok(())
    }

    /// What becomes of the key's time to live, for `command`.
    pub(super) fn expire<'b>(
        &self,
        now: UnixMs,
        command: &'static str,
    ) -> Result<Expire, Fault<'b>> {
        Ok(match self.expire {
            Some((unit, amount)) => Expire::At(unit.positive_moment(amount, now, command)?),
            None if self.keep_ttl => Expire::Keep,
            None => Expire::Clear,
        })
    }

    /// Whether a condition asks if the key is there.
    pub(super) const fn has_condition(&self) -> bool {
        self.nx || self.xx
    }

    /// Whether the condition forbids to write a key that is, or is not, there.
    pub(super) const fn refuses(&self, is_there: bool) -> bool {
        if is_there { self.nx } else { self.xx }
    }
}

/// The change that makes a key hold one of the request's own strings.
fn put(value: &[u8], expire: Expire) -> Change<'_> {
    Change::Put { value: Cow::Borrowed(value), expire }
}

/// Answers the string of a view, or null; writes nothing when the type is wrong.
fn reply_string<'a>(call: &mut Call<'a, '_>, view: Option<&View<'_>>) -> Result<(), Fault<'a>> {
    match view {
        Some(view) => call.reply.bulk(&view.string()?),
        None => call.reply.null(),
    }
    Ok(())
}

/// `GET key`.
pub fn get(call: &mut Call<'_, '_>) {
    answer(call, |call| reply_string(call, call.views.view(call.args[1]).as_ref()));
}

/// One key of `MGET key [key …]`: a key of another type reads as null.
pub fn mget_part(call: &mut Call<'_, '_>) {
    match call.views.view(call.args[1]).as_ref().map(View::string) {
        Some(Ok(string)) => call.reply.bulk(&string),
        _ => call.reply.null(),
    }
}

/// `SET key value [NX | XX] [GET] [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]`.
pub fn set(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let (key, value) = (call.args[1], call.args[2]);
        let options = Options::parse(&call.args[3..], Family::Set)?;
        let expire = options.expire(call.now, "set")?;
        if !(options.has_condition() || options.get) {
            // The hot path looks at nothing.
            call.reply.ok();
            call.changes.push((key, put(value, expire)));
            return Ok(());
        }
        let view = call.views.view(key);
        if options.get {
            reply_string(call, view.as_ref())?;
        }
        let refused = options.refuses(view.is_some());
        match (options.get, refused) {
            (true, _) => {}
            (false, true) => call.reply.null(),
            (false, false) => call.reply.ok(),
        }
        if !refused {
            call.changes.push((key, put(value, expire)));
        }
        Ok(())
    });
}

/// `SETNX key value`.
pub fn setnx(call: &mut Call<'_, '_>) {
    let (key, value) = (call.args[1], call.args[2]);
    let absent = call.views.view(key).is_none();
    if absent {
        call.changes.push((key, put(value, Expire::Clear)));
    }
    call.reply.integer(i64::from(absent));
}

/// `SETEX key seconds value`.
pub fn setex(call: &mut Call<'_, '_>) {
    set_for(call, Unit::Seconds, "setex");
}

/// `PSETEX key milliseconds value`.
pub fn psetex(call: &mut Call<'_, '_>) {
    set_for(call, Unit::Milliseconds, "psetex");
}

fn set_for(call: &mut Call<'_, '_>, unit: Unit, command: &'static str) {
    answer(call, |call| {
        let at = unit.positive_moment(call.args[2], call.now, command)?;
        call.changes.push((call.args[1], put(call.args[3], Expire::At(at))));
        call.reply.ok();
        Ok(())
    });
}

/// `GETSET key value`.
pub fn getset(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let (key, value) = (call.args[1], call.args[2]);
        reply_string(call, call.views.view(key).as_ref())?;
        call.changes.push((key, put(value, Expire::Clear)));
        Ok(())
    });
}

/// `GETDEL key`.
pub fn getdel(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let key = call.args[1];
        let view = call.views.view(key);
        reply_string(call, view.as_ref())?;
        if view.is_some() {
            call.changes.push((key, Change::Delete));
        }
        Ok(())
    });
}

/// `GETEX key [EX s | PX ms | EXAT s | PXAT ms | PERSIST]`.
pub fn getex(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let key = call.args[1];
        let options = Options::parse(&call.args[2..], Family::GetEx)?;
        let Some(view) = call.views.view(key) else {
            call.reply.null();
            return Ok(());
        };
        let string = view.string()?;
        let change = match options.expire {
            Some((unit, amount)) => {
                let at = unit.positive_moment(amount, call.now, "getex")?;
                Some(if at > call.now { Change::Expire(Some(at)) } else { Change::Delete })
            }
            None if options.persist && view.expire_at.is_some() => Some(Change::Expire(None)),
            None => None,
        };
        call.reply.bulk(&string);
        call.changes.extend(change.map(|change| (key, change)));
        Ok(())
    });
}

/// One pair of `MSET key value [key value …]`.
pub fn mset_part(call: &mut Call<'_, '_>) {
    call.changes.push((call.args[1], put(call.args[2], Expire::Clear)));
    call.reply.ok();
}

/// `MSETNX key value [key value …]`: all or, if one of them is there, none. Of a key named twice
/// the last value stands, so changes must be applied in their order.
pub fn msetnx(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let pairs = &call.args[1..];
        if !pairs.len().is_multiple_of(2) {
            return Err(Fault::Arity("msetnx"));
        }
        let free = pairs.chunks_exact(2).all(|pair| call.views.view(pair[0]).is_none());
        if free {
            call.changes
                .extend(pairs.chunks_exact(2).map(|pair| (pair[0], put(pair[1], Expire::Clear))));
        }
        call.reply.integer(i64::from(free));
        Ok(())
    });
}
