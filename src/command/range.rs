//! Pieces of strings: APPEND, STRLEN, GETRANGE, SETRANGE.

use std::borrow::Cow;

use crate::value::change::{Change, Expire};
use crate::value::view::View;

use super::fault::{Fault, answer};
use super::number::{grown_len, integer};
use super::spec::Call;

/// The string to be changed (none is an empty one), and what becomes of its time to live.
pub(super) fn base<'v, 'a>(
    view: Option<&'v View<'_>>,
) -> Result<(Cow<'v, [u8]>, Expire), Fault<'a>> {
    Ok(match view {
        Some(view) => (view.string()?, Expire::Keep),
        None => (Cow::Borrowed(&[]), Expire::Clear),
    })
}

/// The string's length, without unpacking it; nothing is as long as an empty string.
fn string_len<'a>(view: Option<&View<'_>>) -> Result<usize, Fault<'a>> {
    Ok(view.map_or(Ok(0), View::string_len)?)
}

/// `APPEND key value`.
pub fn append(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let (key, more) = (call.args[1], call.args[2]);
        let view = call.views.view(key);
        let len = grown_len(string_len(view.as_ref())?, more.len())?;
        let (string, expire) = base(view.as_ref())?;
        let value = if string.is_empty() {
            Cow::Borrowed(more)
        } else {
            let mut whole = Vec::with_capacity(len);
            whole.extend_from_slice(&string);
            whole.extend_from_slice(more);
            Cow::Owned(whole)
        };
        call.changes.push((key, Change::Put { value, expire }));
        call.reply.integer(len as i64);
        Ok(())
    });
}

/// `STRLEN key`.
pub fn strlen(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let view = call.views.view(call.args[1]);
        call.reply.integer(string_len(view.as_ref())? as i64);
        Ok(())
    });
}

/// The bytes from `start` to `end`, both included, counted from the end when negative. Redis's
/// two oddities are kept: what lies before the string is cut to its first byte, but a backward
/// range of two negative numbers is empty at once.
fn slice(string: &[u8], start: i64, end: i64) -> &[u8] {
    let len = string.len() as i64;
    if len == 0 || (start < 0 && end < 0 && start > end) {
        return &[];
    }
    let place = |index: i64| if index < 0 { index.saturating_add(len).max(0) } else { index };
    let (start, end) = (place(start), place(end).min(len - 1));
    if start > end { &[] } else { &string[start as usize..=end as usize] }
}

/// `GETRANGE key start end`, and `SUBSTR`, its old name.
pub fn getrange(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let (start, end) = (integer(call.args[2])?, integer(call.args[3])?);
        match call.views.view(call.args[1]) {
            Some(view) => call.reply.bulk(slice(&view.string()?, start, end)),
            None => call.reply.bulk(&[]),
        }
        Ok(())
    });
}

/// `SETRANGE key offset value`: zeros fill a gap; an empty value changes and makes nothing.
pub fn setrange(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let (key, piece) = (call.args[1], call.args[3]);
        let offset = usize::try_from(integer(call.args[2])?).map_err(|_| Fault::Offset)?;
        let view = call.views.view(key);
        if piece.is_empty() {
            call.reply.integer(string_len(view.as_ref())? as i64);
            return Ok(());
        }
        let (string, expire) = base(view.as_ref())?;
        let end = grown_len(offset, piece.len())?;
        let mut whole = Vec::with_capacity(end.max(string.len()));
        whole.extend_from_slice(&string);
        whole.resize(end.max(string.len()), 0);
        whole[offset..end].copy_from_slice(piece);
        call.reply.integer(whole.len() as i64);
        call.changes.push((key, Change::Put { value: Cow::Owned(whole), expire }));
        Ok(())
    });
}
