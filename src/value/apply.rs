//! Writing: how a change becomes part of an entry, and what of it travels.
//!
//! ```text
//! Put        removes all that is here, sets one value and meta under one dot   ─> Whole
//! Delete     removes all that is here                                          ─> Whole
//! Seen       removes what its client has seen; may set one value and meta      ─> Whole
//! Increment  adds to the winning base; on nothing visible, to a new zero base  ─> Fragment
//! Expire     replaces the meta                                                 ─> Fragment
//! Edit, Make change and make collections: see `edit`
//! ```
//!
//! Put and Delete are observed-remove: what the writer has not seen survives beside them.
//! Invariant: a new dot is above every dot the entry knows, and the author's count `n` rises by
//! one; a fragment tells all that is alive of every dot it names (see [`Fragment`]).

use smallvec::SmallVec;

use crate::base::limits::{SIBLINGS_MAX, VALUE_SIZE_MAX};
use crate::base::time::{Dot, Hlc, UnixMs};
use crate::version::context::Context;

use super::body::cell::register_of;
use super::body::leaf::New;
use super::change::{Amount, Change, Expire, Seen};
use super::entry::{Entry, Meta};
use super::fragment::Fragment;
use super::register::{Base, Register, Sibling, Stored};
use super::view::Kind;

/// What a change made of an entry, as it travels to the other replicas.
#[derive(Clone, PartialEq, Debug)]
#[expect(clippy::large_enum_variant, reason = "encoded at once, never kept: a box would cost more")]
pub enum Delta {
    /// The entry as it is now, whole.
    Whole,
    /// A part of it.
    Fragment(Fragment),
    /// The bytes of a fragment's short form.
    Short(SmallVec<[u8; 128]>),
}

#[cfg(test)]
impl Delta {
    /// The same, with a fragment's bytes read.
    pub(crate) fn decoded(self) -> Delta {
        match self {
            Delta::Short(bytes) => {
                let short = super::short::Short::decode(&bytes).expect("a short form");
                Delta::Fragment(short.into_fragment())
            }
            delta => delta,
        }
    }
}

/// Most single dots of a key on which a stand-in counts further. They stay with the key, and every
/// write copies them.
const SINGLE_DOTS_MAX: usize = 256;

/// Why a change was not applied. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ApplyError {
    /// The write has not seen the values that are there, and one more would be too many.
    TooManySiblings,
    /// A stand-in that has forgotten what it handed on has counted on the key too often since.
    TooManySingleDots,
    /// The same, and together they would be larger than one value may be.
    SiblingsTooLarge,
    /// No name is left between two elements of a list: too much was inserted there.
    TooManyInsertions,
}

impl std::fmt::Display for ApplyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ApplyError::TooManySiblings => {
                write!(
                    f,
                    "TOOMANYSIBLINGS the key has {SIBLINGS_MAX} concurrent values or more that the \
                     write has not seen, nothing was done"
                )
            }
            ApplyError::TooManySingleDots => f.write_str(
                "CLUSTERDOWN the key's replicas are away and a stand-in has counted on it too \
                 often, nothing was done",
            ),
            ApplyError::TooManyInsertions => f.write_str(
                "ERR too many elements were inserted at one place of the list, nothing was done",
            ),
            ApplyError::SiblingsTooLarge => f.write_str(
                "TOOMANYSIBLINGS the key's concurrent values would together be larger than a value \
                 may be, nothing was done",
            ),
        }
    }
}

impl std::error::Error for ApplyError {}

/// Who writes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Author {
    /// A replica of the key: it knows all that its own actor has written there.
    Replica,
    /// A stand-in, which may have handed on and forgotten what it wrote up to this timestamp.
    StandIn(Hlc),
}

impl Author {
    /// Whether the author of `dot` knows all that it added to `base`.
    pub(super) fn knows_sum(self, base: Dot, dot: Dot) -> bool {
        match self {
            Author::Replica => true,
            Author::StandIn(forgotten) => base.actor == dot.actor && base.hlc > forgotten,
        }
    }
}

impl Entry {
    /// Applies a change that a replica of the key coordinates; `dot` is the new write. Says what
    /// travels to the other replicas.
    ///
    /// # Panics
    /// If `dot` is not above every write known here: a coordinator's clock rises above
    /// [`Entry::hlc_max`] first.
    pub fn apply(
        &mut self,
        change: &Change<'_>,
        dot: Dot,
        now: UnixMs,
    ) -> Result<Delta, ApplyError> {
        self.write(change, dot, now, Author::Replica)
    }

    /// The same on a stand-in that is no replica of the key, and that may have handed on and
    /// forgotten what it wrote up to `forgotten`.
    ///
    /// Counting there builds on nothing but what was begun since: a sum that lacks a forgotten part
    /// would take the place of the whole one, and a vector over forgotten dots would say that they
    /// were removed. So the dot stays single, and what travels says so. A Put needs none of this:
    /// it removes what its author wrote before, remembered or not.
    ///
    /// # Panics
    /// As [`Entry::apply`].
    pub fn apply_blind(
        &mut self,
        change: &Change<'_>,
        dot: Dot,
        now: UnixMs,
        forgotten: Hlc,
    ) -> Result<Delta, ApplyError> {
        let overwrites = matches!(change, Change::Put { .. });
        if !overwrites && self.context.cloud().len() >= SINGLE_DOTS_MAX {
            return Err(ApplyError::TooManySingleDots);
        }
        let author = if overwrites { Author::Replica } else { Author::StandIn(forgotten) };
        self.write(change, dot, now, author)
    }

    fn write(
        &mut self,
        change: &Change<'_>,
        dot: Dot,
        now: UnixMs,
        author: Author,
    ) -> Result<Delta, ApplyError> {
        Ok(match change {
            Change::Put { value, expire } => {
                let expire_at = self.expire_after(*expire, now);
                self.witness(dot, author);
                self.clear();
                self.set_string(value, expire_at, dot);
                Delta::Whole
            }
            Change::Delete => {
                self.witness(dot, author);
                self.clear();
                Delta::Whole
            }
            Change::Increment(amount) => self.increment(*amount, dot, now, author),
            Change::Expire(at) => match self.visible(now) {
                Some((kind, _)) => self.expire(Meta { dot, kind, expire_at: *at }, author),
                // Nothing to keep alive: whatever is left over goes.
                None => return self.write(&Change::Delete, dot, now, author),
            },
            Change::Seen(seen) => return self.write_seen(seen, dot, now, author),
            Change::Edit(edits) => return self.edit(edits, dot, now, author),
            Change::Make(made) => self.make(made, dot, author),
        })
    }

    /// Writes for a client that has seen a part of the history: removes what it saw.
    ///
    /// The context is learned, for this replica may not have heard of everything in it: what comes
    /// later must not come back beside the value that replaced it. That is true to what happened
    /// (all that the context knows was removed before, or is removed now), unless a counter stays
    /// because somebody added to it unseen; then nothing is learned.
    fn write_seen(
        &mut self,
        seen: &Seen<'_>,
        dot: Dot,
        now: UnixMs,
        author: Author,
    ) -> Result<Delta, ApplyError> {
        let Seen { context, put } = seen;
        if let Some((value, _)) = put {
            self.has_room_beside(context, value.len())?;
        }
        let expire_at = put.as_ref().and_then(|(_, expire)| self.expire_after(*expire, now));
        let mut any_kept = false;
        let mut unseen = |register: &mut Register| {
            register.retain(|sibling| !sibling.is_seen(context));
            let kept = register.siblings().iter().any(|value| context.contains(value.dot));
            any_kept = any_kept || kept;
        };
        unseen(&mut self.string);
        for body in &mut self.bodies {
            body.change_all(|_, cell| {
                let before = register_of(cell);
                let mut after = before.clone();
                unseen(&mut after);
                if after == before { New::Keep } else { New::Register(after) }
            });
        }
        self.drop_empty();
        if !any_kept {
            self.context.join(context);
        }
        self.meta.retain(|meta| !context.contains(meta.dot));
        self.witness(dot, author);
        match put {
            Some((value, _)) => self.set_string(value, expire_at, dot),
            // A meta alone tells nothing.
            None if self.holds_nothing() => self.meta.clear(),
            None => {}
        }
        Ok(Delta::Whole)
    }

    /// Whether a string of `len` bytes may stand beside what `seen` does not know.
    fn has_room_beside(&self, seen: &Context, len: usize) -> Result<(), ApplyError> {
        let kept = || self.string.siblings().iter().filter(|sibling| !sibling.is_seen(seen));
        if kept().count() >= SIBLINGS_MAX {
            return Err(ApplyError::TooManySiblings);
        }
        let size: usize = kept().map(Sibling::stored_len).sum();
        if size > 0 && size + len > VALUE_SIZE_MAX {
            return Err(ApplyError::SiblingsTooLarge);
        }
        Ok(())
    }

    /// When a string expires that is put now.
    fn expire_after(&self, expire: Expire, now: UnixMs) -> Option<UnixMs> {
        match expire {
            Expire::Clear => None,
            Expire::Keep => self.visible(now).and_then(|(_, expire_at)| expire_at),
            Expire::At(at) => Some(at),
        }
    }

    fn set_string(&mut self, value: &[u8], expire_at: Option<UnixMs>, dot: Dot) {
        self.set_meta(Meta { dot, kind: Kind::String, expire_at });
        self.string.push(Sibling::new(dot, Base::Stored(Stored::pack(value))));
    }

    /// Counts further on the winning base; on nothing visible, on a new zero base.
    fn increment(&mut self, amount: Amount, dot: Dot, now: UnixMs, author: Author) -> Delta {
        let prev = self.witness(dot, author);
        let visible = self.visible(now).is_some_and(|(kind, _)| kind == Kind::String);
        let winner = self.string.winner_mut().filter(|_| visible);
        let mut gone = Vec::new();
        let named = if let Some(winner) = winner {
            if author.knows_sum(winner.dot, dot) {
                winner.add(dot, amount);
                vec![winner.dot]
            } else {
                self.string.push(Sibling::counted(dot, amount));
                vec![]
            }
        } else {
            let removed = self.live_dots();
            gone = self.names();
            self.clear();
            self.set_meta(Meta { dot, kind: Kind::String, expire_at: None });
            self.string.push(Sibling::counted(dot, amount));
            removed
        };
        Delta::Fragment(self.fragment(dot, prev, named, gone))
    }

    /// Replaces every meta.
    fn expire(&mut self, meta: Meta, author: Author) -> Delta {
        let prev = self.witness(meta.dot, author);
        let replaced = self.meta.iter().map(|meta| meta.dot).collect();
        self.meta.clear();
        self.set_meta(meta);
        Delta::Fragment(self.fragment(meta.dot, prev, replaced, Vec::new()))
    }

    /// Learns of its own new write; says which was its author's write before it, if that is sure.
    fn witness(&mut self, dot: Dot, author: Author) -> Option<Hlc> {
        assert!(dot.hlc > self.context.hlc_max(), "a new dot is above every dot seen on the key");
        let prev = (author == Author::Replica).then(|| self.context.held(dot.actor));
        self.context.advance(dot, self.context.n(dot.actor).saturating_add(1), prev);
        prev
    }

    /// Removes everything that is alive.
    pub(super) fn clear(&mut self) {
        self.meta.clear();
        self.string = Register::default();
        self.bodies.clear();
    }

    /// The names of all elements, of every type.
    pub(super) fn names(&self) -> Vec<(Kind, Vec<u8>)> {
        let mut names = Vec::new();
        for body in &self.bodies {
            body.cells(|name, _| names.push((body.kind(), name.to_vec())));
        }
        names
    }

    pub(super) fn set_meta(&mut self, meta: Meta) {
        let at = self.meta.partition_point(|other| other.dot < meta.dot);
        self.meta.insert(at, meta);
    }

    /// The part of this entry that the write `dot` made, and all that is alive of the writes
    /// `named`, which it built on or removed: a string's, and a meta's. `gone` names the elements
    /// that it removed. See [`Fragment`].
    fn fragment(
        &self,
        dot: Dot,
        prev: Option<Hlc>,
        mut named: Vec<Dot>,
        gone: Vec<(Kind, Vec<u8>)>,
    ) -> Fragment {
        named.push(dot);
        let mut part = Entry::new();
        part.meta.extend(self.meta.iter().filter(|meta| named.contains(&meta.dot)).copied());
        part.string = self.told(
            &self.string,
            |dot| named.contains(&dot),
            |inc| inc == dot,
            &mut part.context,
        );
        for dot in named {
            part.context.insert(dot, self.n_at(dot));
        }
        Fragment::new(dot, prev, part, gone)
    }

    /// The values of a register of which a fragment tells; of what was added to them, what its own
    /// writes added, and what the one that began a zero base did. `context` learns of those.
    pub(super) fn told(
        &self,
        register: &Register,
        is_told: impl Fn(Dot) -> bool,
        is_own: impl Fn(Dot) -> bool,
        context: &mut Context,
    ) -> Register {
        let mut told = Register::default();
        for sibling in register.siblings().iter().filter(|sibling| is_told(sibling.dot)) {
            let mut sibling = sibling.clone();
            let (base, zero) = (sibling.dot, sibling.base == Base::Zero);
            sibling.increments.retain(|inc| is_own(inc.dot()) || (zero && inc.actor == base.actor));
            for inc in &sibling.increments {
                context.insert(inc.dot(), self.n_at(inc.dot()));
            }
            told.push(sibling);
        }
        told
    }

    /// The count that goes with `dot`; zero when it is no longer known.
    pub(super) fn n_at(&self, dot: Dot) -> u32 {
        let mut known = self.context.vector().iter().chain(self.context.cloud());
        known.find(|mark| mark.dot == dot).map_or(0, |mark| mark.n)
    }
}

/// What only tests do: collections' writes, and a fragment that tells less than it names.
#[cfg(test)]
impl Entry {
    /// A replica sets the field `name` of a hash, over all that it holds of it.
    pub(super) fn put_field(&mut self, name: &[u8], value: &[u8], dot: Dot) {
        self.witness(dot, Author::Replica);
        let register = Register::of(Sibling::new(dot, Base::Stored(Stored::pack(value))));
        self.body_mut(Kind::Hash).update(name, |_| New::Register(register));
    }

    /// A replica removes the field `name` of a hash.
    pub(super) fn remove_field(&mut self, name: &[u8], dot: Dot) {
        self.witness(dot, Author::Replica);
        self.body_mut(Kind::Hash).update(name, |_| New::Gone);
        self.drop_empty();
    }

    /// The same without its values.
    pub(super) fn without_values(&self) -> Entry {
        let mut bare = self.clone();
        bare.string = Register::default();
        bare.bodies.clear();
        bare
    }
}
