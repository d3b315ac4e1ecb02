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
use crate::value::view::{Kind, View, Views, WrongType};

use super::fault::{Fault, answer};
use super::hyperloglog_sketch::{Form, Mark, Registers, Sketch};
use super::spec::Call;

/// The sketches of one key, each as its string: the visible one last. None where the key is not.
struct Held(Vec<Vec<u8>>);

impl Held {
    /// What `key` holds; the visible value must be a sketch. What else concurrent writers left is
    /// passed over: PFADD overwrites it as SET would.
    fn at<'a>(views: &dyn Views, key: &[u8], now: UnixMs) -> Result<Held, Fault<'a>> {
        // First the type: a large collection is not taken apart to be refused.
        match views.view(key).map(|view| view.kind) {
            None => return Ok(Held(Vec::new())),
            Some(Kind::String) => {}
            Some(_) => return Err(Fault::WrongType),
        }
        // Of what is not in memory there is no history yet; the command runs again.
        let entry = views.history(key).unwrap_or_default();
        let mut strings: Vec<Vec<u8>> =
            entry.values(now).iter().map(|value| value.string().into_owned()).collect();
        let Some(visible) = strings.pop() else { return Ok(Held(strings)) };
        Sketch::parse(&visible)?;
        strings.retain(|string| Sketch::parse(string).is_ok());
        strings.push(visible);
        Ok(Held(strings))
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

/// The string that moves when `key` is copied: the one that `view` shows of it, or where that is a
/// sketch beside others, all of them together.
pub(super) fn whole_string<'v>(
    views: &dyn Views,
    key: &[u8],
    now: UnixMs,
    view: &'v View<'_>,
) -> Result<Cow<'v, [u8]>, WrongType> {
    let string = view.string()?;
    if Sketch::parse(&string).is_ok()
        && let Ok(held) = Held::at(views, key, now)
        && held.0.len() > 1
    {
        let mut registers = Registers::new();
        held.merge_into(&mut registers);
        return Ok(Cow::Owned(registers.encode(held.form())));
    }
    Ok(string)
}

/// `PFADD key [element …]`: 1 if the key is new or a register rose.
pub fn pfadd(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let key = call.args[1];
        let marks = || call.args[2..].iter().map(|element| Mark::of(element));
        let held = Held::at(call.views, key, call.now)?;
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
            let held = Held::at(call.views, key, call.now)?;
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
        let held = Held::at(call.views, target, call.now)?;
        let (mut registers, mut form) = (Registers::new(), held.form());
        held.merge_into(&mut registers);
        let before = held.only().map(|_| registers.clone());
        for key in &call.args[2..] {
            let source = Held::at(call.views, key, call.now)?;
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
