//! One edit of a collection that is there: the common write, without detours.
//!
//! HSET of a field, SADD of a member, a push or a pop change one element of a collection on which
//! nobody works at the same time. They need neither a search for what expires or stands beside, nor
//! an entry made of what travels: that is written straight into its [short form](super::short).

use smallvec::SmallVec;

use crate::base::time::{Dot, UnixMs};
use crate::version::context::Mark;

use super::apply::Delta;
use super::body::cell::dots_of;
use super::body::leaf::New;
use super::change::{Edit, Edits};
use super::edit::Told;
use super::entry::Entry;
use super::packed::pack;
use super::short::Short;

impl Entry {
    /// Carries out `edits` on a replica if it is one simple edit of a collection that is there and
    /// that nothing stands beside. `None` if it is anything else: nothing was changed, see
    /// [`Entry::apply`].
    pub fn edit_single(&mut self, edits: &Edits<'_>, dot: Dot, now: UnixMs) -> Option<Delta> {
        let edit = edits.single()?;
        let kind = edits.kind;
        let (&meta, _) = self.only_shown(now).filter(|(meta, _)| meta.kind == kind)?;
        let body = &mut self.bodies[0];
        let mut named = SmallVec::<[Dot; 2]>::new();
        let mut scratch = Vec::new();
        let (name, new) = match edit {
            Edit::Set { name, value, expire_at } => {
                let value = pack(value, &mut scratch);
                let new = New::Single { dot, value, expire_at: *expire_at };
                body.update(name, |held| {
                    held.into_iter().for_each(|held| dots_of(held, |dot| named.push(dot)));
                    new.clone()
                });
                (SmallVec::from_slice(name), new)
            }
            // The last one takes the key with it.
            Edit::Remove { name } if body.len() > 1 => {
                body.update(name, |held| {
                    held.into_iter().for_each(|held| dots_of(held, |dot| named.push(dot)));
                    New::Gone
                });
                (SmallVec::from_slice(name), New::Gone)
            }
            Edit::PushLeft(value) | Edit::PushRight(value) => {
                let first = matches!(edit, Edit::PushLeft(_));
                let name = body.name_beyond(first, dot).ok()?;
                let new = New::Single { dot, value: pack(value, &mut scratch), expire_at: None };
                body.push(first, &name, &new);
                (name, new)
            }
            Edit::RemoveRange { place, count: 1 }
                if body.len() > 1 && (*place == 0 || *place == body.len() - 1) =>
            {
                let name = body.pop(*place == 0, |dot| named.push(dot));
                (name, New::Gone)
            }
            _ => return None,
        };
        let prev = self.context.held(dot.actor);
        let n = self.context.n(dot.actor).saturating_add(1);
        assert!(dot.hlc > self.context.hlc_max(), "a new dot is above every dot seen on the key");
        self.context.advance(dot, n, Some(prev));
        named.sort_unstable();
        named.dedup();
        if named.contains(&meta.dot) {
            // It tells all that is alive of what it names.
            let told = Told { first: dot, last: dot, n, named: named.to_vec() };
            let touched = vec![name.into_vec()];
            let fragment = self.fragment_of(kind, &told, Some(prev), touched, Vec::new());
            return Some(Delta::Fragment(fragment));
        }
        let value = match new {
            New::Single { value, expire_at, .. } => Some((value, expire_at)),
            _ => None,
        };
        let named = named.iter().map(|&dot| Mark { dot, n: self.n_at(dot) }).collect();
        Some(Delta::Short(Short { dot, n, prev, named, kind, name, value }.encoded()))
    }
}
