//! One edit of a collection that is there: the common write, without detours.
//!
//! HSET of a field, SADD of a member, a push or a pop change one element of a collection on which
//! nobody works at the same time. What travels of it is written straight into its bytes; [`edit`]
//! (super::edit) would make an entry of it first. The bytes are the same:
//!
//! ```text
//! dot │ n varint │ 1, previous hlc u64 │ cloud of the dots that it replaced
//!     │ metas, mostly none │ parts 1, or 0 of a removal
//!     │ body of one element
//!     │ gone 0, or 1 with type and name
//! ```

use smallvec::SmallVec;

use crate::base::time::{Dot, UnixMs};
use crate::base::wire::Put;
use crate::version::context::{Mark, encode_cloud};

use super::body::cell::dots_of;
use super::body::leaf::{Cell, New};
use super::change::{Edit, Edits};
use super::element::{between, tag};
use super::entry::{Entry, encode_metas};
use super::packed::{Packed, pack};
use super::register::encode_dot;
use super::view::Kind;

/// Bytes of a fragment around its names and values, about.
const AROUND: usize = 80;

impl Entry {
    /// Carries out `edits` on a replica if it is one simple edit of a collection that is there and
    /// that nothing stands beside. `Some` of the fragment's bytes then; `None` if it is anything
    /// else: nothing was changed, see [`Entry::apply`].
    ///
    /// `sole`: whether no other node writes the key. Then nobody can remove at the same time what is
    /// there already, and a member that is added again, with the score that it has, needs no write;
    /// `Some` of nothing says so.
    pub fn edit_single(
        &mut self,
        edits: &Edits<'_>,
        dot: Dot,
        now: UnixMs,
        sole: bool,
    ) -> Option<Vec<u8>> {
        let edit = edits.single()?;
        let ([meta], [body], true) = (&self.meta[..], &mut self.bodies[..], self.string.is_empty())
        else {
            return None;
        };
        let kind = edits.kind;
        let is_shown = meta.kind == kind && meta.expire_at.is_none_or(|at| at > now);
        if !is_shown || body.kind() != kind || body.is_empty() || body.may_have_expired(now) {
            return None;
        }
        let meta = *meta;
        let mut named = SmallVec::<[Dot; 2]>::new();
        let mut scratch = Vec::new();
        let (name, new) = match edit {
            Edit::Set { name, value, expire_at } => {
                let value = pack(value, &mut scratch);
                let new = New::Single { dot, value, expire_at: *expire_at };
                let mut is_there = false;
                body.update(name, |held| {
                    is_there =
                        sole && kind != Kind::Hash && held.is_some_and(|held| says(held, &value));
                    if is_there {
                        return New::Keep;
                    }
                    held.into_iter().for_each(|held| dots_of(held, |dot| named.push(dot)));
                    new.clone()
                });
                if is_there {
                    return Some(Vec::new());
                }
                (std::borrow::Cow::Borrowed(&name[..]), new)
            }
            // The last one takes the key with it.
            Edit::Remove { name } if body.len() > 1 => {
                body.update(name, |held| {
                    held.into_iter().for_each(|held| dots_of(held, |dot| named.push(dot)));
                    New::Gone
                });
                (std::borrow::Cow::Borrowed(&name[..]), New::Gone)
            }
            Edit::PushLeft(value) | Edit::PushRight(value) => {
                let first = matches!(edit, Edit::PushLeft(_));
                let end = body.end_name(first);
                let end = Some(end.bytes());
                let (left, right) = if first { (None, end) } else { (end, None) };
                let name = between(left, right, dot).ok()?;
                let new = New::Single { dot, value: pack(value, &mut scratch), expire_at: None };
                body.push(first, &name, &new);
                (std::borrow::Cow::Owned(name), new)
            }
            Edit::RemoveRange { place, count: 1 }
                if body.len() > 1 && (*place == 0 || *place == body.len() - 1) =>
            {
                let name = body.pop(*place == 0, |dot| named.push(dot));
                (std::borrow::Cow::Owned(name), New::Gone)
            }
            _ => return None,
        };
        let prev = self.context.held(dot.actor);
        let n = self.context.n(dot.actor).saturating_add(1);
        assert!(dot.hlc > self.context.hlc_max(), "a new dot is above every dot seen on the key");
        self.context.advance(dot, n, Some(prev));
        named.sort_unstable();
        named.dedup();
        let marks: SmallVec<[Mark; 2]> =
            named.iter().map(|&dot| Mark { dot, n: self.n_at(dot) }).collect();

        let len = match &new {
            New::Single { value, .. } => value.bytes.len(),
            _ => 0,
        };
        let mut out = Vec::with_capacity(AROUND + 16 * marks.len() + name.len() + len);
        encode_dot(&mut out, dot);
        out.put_varint(u64::from(n));
        out.put_u8(1);
        out.put_u64(prev.0);
        encode_cloud(&mut out, marks.iter(), marks.len());
        // It tells all that is alive of what it names.
        let metas = if named.contains(&meta.dot) { &[meta][..] } else { &[] };
        encode_metas(&mut out, metas);
        match &new {
            New::Single { .. } => {
                out.put_u8(1);
                self.bodies[0].encode_one(&name, dot, &new, &mut out);
                out.put_varint(0);
            }
            _ => {
                out.put_u8(0);
                out.put_varint(1);
                out.put_u8(tag(kind));
                out.put_bytes(&name);
            }
        }
        Some(out)
    }
}

/// Whether an element holds this value and nothing else.
fn says(held: &Cell<'_>, wanted: &Packed<'_>) -> bool {
    matches!(held, Cell::Single { value, .. } if value == wanted)
}
