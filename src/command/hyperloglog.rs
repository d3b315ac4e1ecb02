//! How many different things were there, about: PFADD, PFCOUNT, PFMERGE.
//!
//! Their values are strings in Redis's own representation (see [`Sketch`]), so GET and SET carry
//! them anywhere. Where concurrent writers left several of them at one key, none is lost: what is
//! counted is all of them together, and the next PFADD or PFMERGE that sees them writes one that
//! holds all.
//!
//! ```text
//! n1: PFADD k a ──┐
//!                 ├──► k holds two sketches ──► PFCOUNT k: 2      PFADD k c: one sketch of a, b, c
//! n2: PFADD k b ──┘
//! ```

use std::borrow::Cow;

use crate::base::time::UnixMs;
use crate::value::change::{Change, Expire};
use crate::value::entry::Entry;
use crate::value::view::{Kind, Views};

use super::fault::{Fault, answer};
use super::hyperloglog_sketch::{Form, Mark, Registers, Sketch, SketchError};
use super::spec::Call;

/// The sketches of one key, each as its string: the visible one last. None where the key is not.
struct Held(Vec<Vec<u8>>);

impl Held {
    /// What `entry` holds; the visible value must be a sketch. What else concurrent writers left is
    /// passed over: PFADD overwrites it as SET would.
    fn of<'a>(entry: &Entry, now: UnixMs) -> Result<Held, Fault<'a>> {
        match entry.visible(now) {
            None => return Ok(Held(Vec::new())),
            Some((Kind::String, _)) => {}
            Some(_) => return Err(Fault::WrongType),
        }
        let mut strings: Vec<Vec<u8>> =
            entry.values(now).iter().map(|value| value.string().into_owned()).collect();
        let visible = strings.pop().ok_or(SketchError::Other)?;
        Sketch::parse(&visible)?;
        strings.retain(|string| Sketch::parse(string).is_ok());
        strings.push(visible);
        Ok(Held(strings))
    }

    /// What `key` holds.
    fn at<'a>(call: &Call<'_, '_>, key: &[u8]) -> Result<Held, Fault<'a>> {
        Held::of(&call.views.history(key).unwrap_or_default(), call.now)
    }

    fn sketches(&self) -> impl Iterator<Item = Sketch<'_>> {
        self.0.iter().map(|string| Sketch::parse(string).expect("it was looked at"))
    }

    /// The only one, if there is just one.
    fn only(&self) -> Option<Sketch<'_>> {
        self.sketches().next().filter(|_| self.0.len() == 1)
    }

    /// Sparse if all of them are.
    fn form(&self) -> Form {
        let dense = self.sketches().any(|sketch| sketch.form() == Form::Dense);
        if dense { Form::Dense } else { Form::Sparse }
    }

    fn merge_into(&self, registers: &mut Registers) {
        self.sketches().for_each(|sketch| registers.merge(&sketch));
    }
}

/// The string of all sketches together where concurrent writers left several of them at `key`.
pub(super) fn united(views: &dyn Views, key: &[u8], now: UnixMs) -> Option<Vec<u8>> {
    let held = Held::of(&views.history(key)?, now).ok().filter(|held| held.0.len() > 1)?;
    let mut registers = Registers::new();
    held.merge_into(&mut registers);
    Some(registers.encode(held.form()))
}

/// `PFADD key [element …]`: 1 if the key is new or a register rose.
pub fn pfadd(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let key = call.args[1];
        let marks = || call.args[2..].iter().map(|element| Mark::of(element));
        let held = Held::at(call, key)?;
        let (raised, value) = match held.only() {
            Some(sketch) => {
                let value = sketch.marked(marks());
                (value.is_some(), value)
            }
            None => {
                let mut registers = Registers::new();
                held.merge_into(&mut registers);
                let raised = marks().fold(false, |raised, mark| registers.mark(mark) | raised);
                // Several become one even if the elements are in them.
                (raised || held.0.is_empty(), Some(registers.encode(held.form())))
            }
        };
        call.changes.extend(value.map(|value| (key, put(value))));
        call.reply.integer(i64::from(raised));
        Ok(())
    });
}

fn put<'a>(value: Vec<u8>) -> Change<'a> {
    Change::Put { value: Cow::Owned(value), expire: Expire::Keep }
}

/// `PFCOUNT key [key …]`: of all keys together. It writes nothing, so an estimate is never noted.
pub fn pfcount(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let keys = &call.args[1..];
        let mut registers = Registers::new();
        for key in keys {
            let held = Held::at(call, key)?;
            if let Some(noted) = held.only().and_then(|sketch| sketch.noted())
                && keys.len() == 1
            {
                call.reply.integer(noted as i64);
                return Ok(());
            }
            held.merge_into(&mut registers);
        }
        call.reply.integer(registers.estimate() as i64);
        Ok(())
    });
}

/// `PFMERGE destkey [sourcekey …]`: the destination holds all of them, and what it held. Nothing
/// changes where it does already.
pub fn pfmerge(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let target = call.args[1];
        let held = Held::at(call, target)?;
        let (mut registers, mut form) = (Registers::new(), held.form());
        held.merge_into(&mut registers);
        let before = held.only().map(|_| registers.clone());
        for key in &call.args[2..] {
            let source = Held::at(call, key)?;
            source.merge_into(&mut registers);
            if source.form() == Form::Dense {
                form = Form::Dense;
            }
        }
        if before.as_ref() != Some(&registers) {
            call.changes.push((target, put(registers.encode(form))));
        }
        call.reply.ok();
        Ok(())
    });
}
