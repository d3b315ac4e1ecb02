//! Changes of a body: one element put, replaced or removed, and what is summed of all by difference.

use crate::base::hash::Digest;
use crate::base::id::Actor;
use crate::base::time::{Dot, UnixMs};
use crate::value::element::{ListName, NameTooLong, between, first_step, place_name};
use crate::value::view::Kind;

use super::cell::{
    digest_of, digest_of_register, dots_of, expiry_of, is_alive, score_in, score_of,
};
use super::layout::LEAF_SIZE_MAX;
use super::leaf::{ACTORS_MAX, Cell, Item, Leaf, New, Sight};
use super::rows::Spot;
use super::{Body, Tally};

/// An element that is in a leaf, in the sums of its body.
struct Held {
    /// Where the next one begins.
    end: usize,
    digest: Digest,
    score: f64,
    expires: bool,
}

impl Body {
    /// Changes what the element of that name holds: `act` is given what is there.
    pub(in crate::value) fn update<'n>(
        &mut self,
        name: &[u8],
        act: impl FnOnce(Option<&Cell<'_>>) -> New<'n>,
    ) {
        let (spot, found) = self.find(name);
        let item = found.ok().map(|at| self.rows.run(spot).item(self.sight(), at));
        let held = item.as_ref().map(|item| self.held_in(name, item));
        let start = found.unwrap_or_else(|at| at);
        let new = match act(item.as_ref().map(|item| &item.cell)) {
            New::Keep => return,
            New::Gone if item.is_none() => return,
            New::Register(register) if register.is_empty() && item.is_none() => return,
            New::Register(register) if register.is_empty() => New::Gone,
            // What can be written shorter is.
            New::Register(register) => match register.as_single() {
                Some((dot, value, expire_at)) if self.knows(dot.actor) => {
                    let value = value.clone();
                    let new = New::Single { dot, value: value.as_packed(), expire_at };
                    return self.put(name, spot, start, held.as_ref(), &new);
                }
                _ => New::Register(register),
            },
            new => new,
        };
        self.put(name, spot, start, held.as_ref(), &new);
    }

    /// The name of a new element `dot` before a list's first one, or after its last one. There must be
    /// one.
    pub(in crate::value) fn name_beyond(
        &self,
        first: bool,
        dot: Dot,
    ) -> Result<ListName, NameTooLong> {
        let spot = if first { self.rows.first() } else { self.rows.last() };
        let (leaf, at) = (self.rows.run(spot), if first { 0 } else { self.last_offset() });
        if let Some(step) = leaf.step(at) {
            let step = if first { step.checked_sub(1) } else { step.checked_add(1) };
            if let Some(step) = step {
                return Ok(ListName::from_slice(&place_name(step, dot)));
            }
        }
        let end = leaf.item(self.sight(), at).name;
        let end = Some(end.bytes());
        if first { between(None, end, dot) } else { between(end, None, dot) }
    }

    /// Where the last element begins in the last leaf. There must be one.
    pub(super) fn last_offset(&self) -> usize {
        let leaf = self.rows.run(self.rows.last());
        self.offset(self.rows.last(), leaf.count as usize - 1)
    }

    /// Puts a new element before a list's first one, or after its last one.
    pub(in crate::value) fn push(&mut self, first: bool, name: &[u8], new: &New<'_>) {
        let mut spot = if first { self.rows.first() } else { self.rows.last() };
        let held = self.rows.run(spot).bytes.len();
        // A full leaf stays as it is: who pushes, pushes again.
        if self.is_large() && held + new.size() > LEAF_SIZE_MAX {
            let hlc = new.hlc().unwrap_or_default();
            let leaf = Leaf::roomy(hlc, first_step(name), LEAF_SIZE_MAX);
            self.room += leaf.bytes.capacity();
            spot = self.rows.extend(first, leaf);
        }
        let at = if first { 0 } else { self.rows.run(spot).bytes.len() };
        self.put(name, spot, at, None, new);
    }

    /// Takes a list's first element away, or its last one, and answers its name. There must be
    /// another.
    pub(in crate::value) fn pop(&mut self, first: bool, visit: impl FnMut(Dot)) -> ListName {
        let spot = if first { self.rows.first() } else { self.rows.last() };
        if !first && self.tail.is_empty() {
            // Who takes one from the right will take those before it.
            self.rows.run(spot).ends(self.kind, &mut self.tail);
        }
        let at = if first { 0 } else { self.last_offset() };
        let item = self.rows.run(spot).item(self.sight(), at);
        let name = ListName::from_slice(item.name.bytes());
        let held = self.held_in(&name, &item);
        dots_of(&item.cell, visit);
        self.put(&name, spot, at, Some(&held), &New::Gone);
        name
    }

    /// Whether an author has, or may be given, a place in the table.
    fn knows(&self, actor: Actor) -> bool {
        self.actors.contains(&actor) || self.actors.len() < ACTORS_MAX
    }

    /// What an element is in the sums.
    fn held_in(&self, name: &[u8], item: &Item<'_>) -> Held {
        Held {
            end: item.end,
            digest: self
                .tally
                .as_ref()
                .map_or(Digest::NONE, |tally| digest_of(tally.terms, self.kind, name, &item.cell)),
            score: self.ranks.as_ref().map_or(0.0, |_| score_of(&item.cell)),
            expires: expiry_of(&item.cell).is_some(),
        }
    }

    /// Writes an element into a leaf, from `start` on, in the place of what is `held` there.
    fn put(&mut self, name: &[u8], spot: Spot, start: usize, held: Option<&Held>, new: &New<'_>) {
        if let New::Single { dot, .. } = new
            && !self.actors.contains(&dot.actor)
            && self.actors.len() < ACTORS_MAX
        {
            self.actors.push(dot.actor);
        }
        self.keep_tail(spot, start, new);
        let keeps_rank = self.keeps_rank(held, new);
        if let Some(held) = held {
            self.let_go(name, held, keeps_rank);
        }
        self.take_in(name, new, keeps_rank);
        let sight = Sight { kind: self.kind, actors: &self.actors };
        let end = held.map_or(start, |held| held.end);
        let (bytes, room) = (&mut self.held, &mut self.room);
        let was_empty = self.rows.len() == 0;
        let is_list = self.kind == Kind::List;
        self.rows.change(spot, |leaf| {
            if was_empty {
                // Told from the first dot and position, the others are short.
                leaf.hlc = new.hlc().map_or(leaf.hlc, |hlc| hlc.0);
                if is_list {
                    leaf.lower = first_step(name);
                }
            }
            let (before, had) = (leaf.bytes.len(), leaf.bytes.capacity());
            leaf.write(sight, start, end, name, new);
            *bytes = *bytes + leaf.bytes.len() - before;
            *room = *room + leaf.bytes.capacity() - had;
        });
        self.mend(spot, start);
    }

    /// What is known of the last leaf's offsets stays known if its last element is taken away.
    fn keep_tail(&mut self, spot: Spot, start: usize, new: &New<'_>) {
        let takes_last = matches!(new, New::Gone)
            && spot == self.rows.last()
            && self.tail.last().is_some_and(|&at| at as usize == start);
        if takes_last {
            self.tail.pop();
        } else {
            self.tail.clear();
        }
    }

    /// Whether a member of a sorted set is written anew with the score that it has.
    fn keeps_rank(&self, held: Option<&Held>, new: &New<'_>) -> bool {
        let (true, Some(held)) = (self.ranks.is_some(), held) else { return false };
        let score = match new {
            New::Keep | New::Gone => return false,
            New::Single { value, .. } => score_in(value),
            New::Register(register) => register.score(),
        };
        held.score.to_bits() == score.to_bits()
    }

    /// Takes an element that will be written over out of the sums.
    fn let_go(&mut self, name: &[u8], held: &Held, keeps_rank: bool) {
        if let Some(tally) = &mut self.tally {
            tally.sum = tally.sum.minus(held.digest);
        }
        if let Some(ranks) = self.ranks.as_mut().filter(|_| !keeps_rank) {
            ranks.remove(held.score, name);
        }
        self.expiring -= u32::from(held.expires);
    }

    /// Takes an element that will be written into the sums.
    fn take_in(&mut self, name: &[u8], new: &New<'_>, keeps_rank: bool) {
        let (digest, score, expire_at) = match new {
            New::Keep | New::Gone => return,
            New::Single { dot, value, expire_at } => {
                let digest = self.tally.as_ref().map(|t| t.terms.element(self.kind, name, *dot));
                (digest, self.ranks.as_ref().map(|_| score_in(value)), *expire_at)
            }
            New::Register(register) => {
                let siblings = register.siblings();
                let digest = |t: &Tally| digest_of_register(t.terms, self.kind, name, siblings);
                let score = self.ranks.as_ref().map(|_| register.score());
                (self.tally.as_deref().map(digest), score, register.expire_at())
            }
        };
        if let (Some(tally), Some(digest)) = (&mut self.tally, digest) {
            tally.sum = tally.sum.plus(digest);
        }
        if let (Some(ranks), Some(score), false) = (&mut self.ranks, score, keeps_rank) {
            ranks.insert(score, name);
        }
        if let Some(at) = expire_at {
            self.expiring += 1;
            self.next_expiry = self.next_expiry.min(at);
        }
    }

    /// Finds the next expiry anew, after what was due has been removed.
    pub(in crate::value) fn settle_expiry(&mut self) {
        let ends = self.items().filter_map(|item| expiry_of(&item.cell)).min();
        self.next_expiry = ends.unwrap_or(UnixMs(u64::MAX));
    }

    /// The names of what has expired by `now`.
    pub(in crate::value) fn expired(&self, now: UnixMs) -> Vec<Vec<u8>> {
        let due = self.items().filter(|item| !is_alive(&item.cell, now));
        due.map(|item| item.name.bytes().to_vec()).collect()
    }

    /// Keeps elements as `change` says, which is given each one's register.
    pub(in crate::value) fn change_all(
        &mut self,
        mut change: impl FnMut(&[u8], &Cell<'_>) -> New<'static>,
    ) {
        let mut changes = Vec::new();
        for item in self.items() {
            match change(item.name.bytes(), &item.cell) {
                New::Keep => {}
                new => changes.push((item.name.bytes().to_vec(), new)),
            }
        }
        for (name, new) in changes {
            self.update(&name, |_| new);
        }
    }
}
