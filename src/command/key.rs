//! Keys of any type: DEL, EXISTS, TYPE, RENAME, COPY and their kin.

use crate::value::change::{Change, Expire};
use crate::value::element::Element;
use crate::value::view::{Kind, View, WrongType};

use super::fault::{Fault, answer};
use super::hyperloglog::whole_string;
use super::number::{int, is};
use super::spec::Call;

/// One key of `DEL key [key …]` and `UNLINK key [key …]`: 1 if it was there.
pub fn del_part(call: &mut Call<'_, '_>) {
    let key = call.args[1];
    let there = call.views.view(key).is_some();
    if there {
        call.changes.push((key, Change::Delete));
    }
    call.reply.integer(i64::from(there));
}

/// One key of `EXISTS key [key …]` and `TOUCH key [key …]`: 1 if it is there.
pub fn exists_part(call: &mut Call<'_, '_>) {
    let there = call.views.view(call.args[1]).is_some();
    call.reply.integer(i64::from(there));
}

/// `TYPE key`.
pub fn type_of(call: &mut Call<'_, '_>) {
    let name = call.views.view(call.args[1]).map_or("none", |view| view.kind.name());
    call.reply.simple(name);
}

/// The change that makes another key hold what `view` shows of `key`, with its time to live. Of
/// concurrent values only the visible one goes along, but HyperLogLogs are one.
fn transplant<'a>(
    call: &Call<'_, '_>,
    key: &[u8],
    view: &View<'_>,
) -> Result<Change<'a>, WrongType> {
    if view.kind != Kind::String {
        let fields = view.fields(view.kind)?;
        let elements = fields.iter().map(Element::into_owned).collect();
        return Ok(Change::make(view.kind, view.expire_at, elements));
    }
    let value = whole_string(call.views, key, call.now, view)?.into_owned().into();
    let expire = view.expire_at.map_or(Expire::Clear, Expire::At);
    Ok(Change::Put { value, expire })
}

/// `RENAME key newkey`.
pub fn rename(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        move_key(call, false)?;
        call.reply.ok();
        Ok(())
    });
}

/// `RENAMENX key newkey`.
pub fn renamenx(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let moved = move_key(call, true)?;
        call.reply.integer(i64::from(moved));
        Ok(())
    });
}

/// Moves a key unless `only_if_free` forbids it; onto itself nothing moves.
fn move_key<'a>(call: &mut Call<'a, '_>, only_if_free: bool) -> Result<bool, Fault<'a>> {
    let (from, to) = (call.args[1], call.args[2]);
    let view = call.views.view(from).ok_or(Fault::NoSuchKey)?;
    if from == to || (only_if_free && call.views.view(to).is_some()) {
        return Ok(false);
    }
    call.changes.push((to, transplant(call, from, &view)?));
    call.changes.push((from, Change::Delete));
    Ok(true)
}

/// `COPY source destination [DB 0] [REPLACE]`.
pub fn copy(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let (from, to) = (call.args[1], call.args[2]);
        let replace = copy_replaces(&call.args[3..])?;
        if from == to {
            return Err(Fault::SameKey);
        }
        let source = call.views.view(from);
        let source = source.filter(|_| replace || call.views.view(to).is_none());
        if let Some(view) = &source {
            call.changes.push((to, transplant(call, from, view)?));
        }
        call.reply.integer(i64::from(source.is_some()));
        Ok(())
    });
}

/// The options of COPY: whether REPLACE is among them. There is one database.
fn copy_replaces<'a>(words: &[&'a [u8]]) -> Result<bool, Fault<'a>> {
    let mut replace = false;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if is(word, "REPLACE") {
            replace = true;
        } else if is(word, "DB") {
            let database = int(words.next().ok_or(Fault::Syntax)?)?;
            match database {
                0 => {}
                // Redis Cluster has one database too, of its sixteen.
                1..16 => return Err(Fault::OtherDatabase),
                _ => return Err(Fault::Database),
            }
        } else {
            return Err(Fault::Syntax);
        }
    }
    Ok(replace)
}
