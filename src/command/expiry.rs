//! Time to live: EXPIRE and its kin, TTL and its kin, PERSIST, and how SET and GETEX read theirs.
//!
//! A key expires at an absolute moment in milliseconds. It is gone from that very millisecond on,
//! so a moment that is not after `now` deletes instead.

use crate::base::time::UnixMs;
use crate::value::change::Change;

use super::fault::{Fault, answer};
use super::number::{integer, is};
use super::spec::Call;

/// How a command's argument names a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Seconds from now (EX).
    Seconds,
    /// Milliseconds from now (PX).
    Milliseconds,
    /// Seconds since the epoch (EXAT).
    SecondsAt,
    /// Milliseconds since the epoch (PXAT).
    MillisecondsAt,
}

impl Unit {
    /// The unit that an option word of SET or GETEX stands for.
    pub fn of_option(word: &[u8]) -> Option<Unit> {
        const WORDS: [(&str, Unit); 4] = [
            ("EX", Unit::Seconds),
            ("PX", Unit::Milliseconds),
            ("EXAT", Unit::SecondsAt),
            ("PXAT", Unit::MillisecondsAt),
        ];
        WORDS.iter().find(|(name, _)| is(word, name)).map(|&(_, unit)| unit)
    }

    /// Whether the argument counts from now.
    const fn is_relative(self) -> bool {
        matches!(self, Unit::Seconds | Unit::Milliseconds)
    }

    /// The moment in milliseconds since the epoch, which may lie before it. `None` on overflow.
    pub(super) fn moment(self, amount: i64, now: UnixMs) -> Option<i64> {
        let factor = if matches!(self, Unit::Seconds | Unit::SecondsAt) { 1000 } else { 1 };
        let base = if self.is_relative() { now.0 as i64 } else { 0 };
        amount.checked_mul(factor)?.checked_add(base)
    }

    /// The moment that SET and its kin ask for: an amount above zero.
    pub fn positive_moment<'a>(
        self,
        amount: &[u8],
        now: UnixMs,
        command: &'static str,
    ) -> Result<UnixMs, Fault<'a>> {
        let amount = integer(amount)?;
        let moment = if amount > 0 { self.moment(amount, now) } else { None };
        moment.map(|ms| UnixMs(ms as u64)).ok_or(Fault::ExpireTime(command))
    }
}

/// When EXPIRE may act, by the time to live that is there.
#[derive(Clone, Copy, Default)]
struct Conditions {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
}

impl Conditions {
    fn parse<'a>(words: &[&'a [u8]]) -> Result<Conditions, Fault<'a>> {
        let mut found = Conditions::default();
        for &word in words {
            let flag = match word {
                _ if is(word, "NX") => &mut found.nx,
                _ if is(word, "XX") => &mut found.xx,
                _ if is(word, "GT") => &mut found.gt,
                _ if is(word, "LT") => &mut found.lt,
                _ => return Err(Fault::ExpireOption(word)),
            };
            *flag = true;
        }
        if found.nx && (found.xx || found.gt || found.lt) {
            return Err(Fault::ExpireNx);
        }
        if found.gt && found.lt {
            return Err(Fault::ExpireGtLt);
        }
        Ok(found)
    }

    /// No time to live counts as an endless one, except that GT never changes it.
    fn allow(self, current: Option<UnixMs>, moment: i64) -> bool {
        let after = current.is_some_and(|at| i128::from(moment) > i128::from(at.0));
        let before = current.is_none_or(|at| i128::from(moment) < i128::from(at.0));
        !(self.nx && current.is_some()
            || self.xx && current.is_none()
            || self.gt && !after
            || self.lt && !before)
    }
}

fn set_expiry(call: &mut Call<'_, '_>, unit: Unit, command: &'static str) {
    answer(call, |call| {
        let key = call.args[1];
        let conditions = Conditions::parse(&call.args[3..])?;
        let amount = integer(call.args[2])?;
        let moment = unit.moment(amount, call.now).ok_or(Fault::ExpireTime(command))?;
        let view = call.views.view(key);
        let Some(view) = view.filter(|view| conditions.allow(view.expire_at, moment)) else {
            call.reply.integer(0);
            return Ok(());
        };
        drop(view);
        call.changes.push((key, expire_change(moment, call.now)));
        call.reply.integer(1);
        Ok(())
    });
}

/// The change that makes a key expire at `moment` (milliseconds, perhaps before the epoch).
fn expire_change<'a>(moment: i64, now: UnixMs) -> Change<'a> {
    if moment <= now.0 as i64 {
        Change::Delete
    } else {
        Change::Expire(Some(UnixMs(moment as u64)))
    }
}

/// `EXPIRE key seconds [NX | XX | GT | LT]`.
pub fn expire(call: &mut Call<'_, '_>) {
    set_expiry(call, Unit::Seconds, "expire");
}

/// `PEXPIRE key milliseconds [NX | XX | GT | LT]`.
pub fn pexpire(call: &mut Call<'_, '_>) {
    set_expiry(call, Unit::Milliseconds, "pexpire");
}

/// `EXPIREAT key unix-time-seconds [NX | XX | GT | LT]`.
pub fn expireat(call: &mut Call<'_, '_>) {
    set_expiry(call, Unit::SecondsAt, "expireat");
}

/// `PEXPIREAT key unix-time-milliseconds [NX | XX | GT | LT]`.
pub fn pexpireat(call: &mut Call<'_, '_>) {
    set_expiry(call, Unit::MillisecondsAt, "pexpireat");
}

/// Answers -2 without a key, -1 without a time to live, else it in `unit`.
fn report_expiry(call: &mut Call<'_, '_>, unit: Unit) {
    let answer = match call.views.view(call.args[1]).map(|view| view.expire_at) {
        None => -2,
        Some(None) => -1,
        Some(Some(at)) => {
            let ms = if unit.is_relative() { at.0.saturating_sub(call.now.0) } else { at.0 };
            let seconds = matches!(unit, Unit::Seconds | Unit::SecondsAt);
            (if seconds { ms.saturating_add(500) / 1000 } else { ms }) as i64
        }
    };
    call.reply.integer(answer);
}

/// `TTL key`: seconds left, rounded to the nearest.
pub fn ttl(call: &mut Call<'_, '_>) {
    report_expiry(call, Unit::Seconds);
}

/// `PTTL key`: milliseconds left.
pub fn pttl(call: &mut Call<'_, '_>) {
    report_expiry(call, Unit::Milliseconds);
}

/// `EXPIRETIME key`: seconds since the epoch, rounded to the nearest.
pub fn expiretime(call: &mut Call<'_, '_>) {
    report_expiry(call, Unit::SecondsAt);
}

/// `PEXPIRETIME key`: milliseconds since the epoch.
pub fn pexpiretime(call: &mut Call<'_, '_>) {
    report_expiry(call, Unit::MillisecondsAt);
}

/// `PERSIST key`.
pub fn persist(call: &mut Call<'_, '_>) {
    let key = call.args[1];
    let expires = call.views.view(key).is_some_and(|view| view.expire_at.is_some());
    if expires {
        call.changes.push((key, Change::Expire(None)));
    }
    call.reply.integer(i64::from(expires));
}
