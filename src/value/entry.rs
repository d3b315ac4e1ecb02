//! An entry: what a key holds, with its causality. The unit that is replicated.
//!
//! ```text
//! Entry ── context                         which writes are known (version vector and cloud)
//!       ├─ meta    { dot, kind, expire_at } …   concurrent ones side by side
//!       └─ fields  "" ── Register ── siblings   a string is one field with the empty name, a
//!                                              collection has one for each element
//! ```
//!
//! It is an observed-remove store (Shapiro et al., 2011; optimised as in Bieniusa et al., 2012):
//! everything alive is named by the dot of the write that made it, and a dot that the context
//! knows but that is not alive has been removed. So a tombstone is a context with nothing alive.
//!
//! Invariants: every dot alive here is in the context. Meta is sorted by dot, fields by name, and
//! no field is empty: equal entries are equal bytes. The join is pure and keeps concurrent
//! values; [`Entry::prune_losers`] drops losers afterwards and never inside.
//!
//! The winner (of meta, and of values) is the greatest dot. A key whose winning meta has expired
//! is invisible but still there; whoever writes as if it were absent removes the leftovers. A
//! value whose meta was removed by a concurrent write is a string without a time to live; a meta
//! without a value shows nothing.
//!
//! Bytes:
//! ```text
//! context │ meta count varint │ { dot │ kind u8, +128 if it expires │ [ expire_at varint ] } …
//!         │ field count varint │ { name, varint-prefixed │ register } …
//! ```

use std::borrow::Cow;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::base::hash::{Digest, HashSeed};
use crate::base::time::{Dot, Hlc, UnixMs};
use crate::base::wire::{Cursor, Put, WireError};
use crate::version::context::Context;

use super::digest::Terms;
use super::element::{Element, kind_of, tag};
use super::fields::Fields;
use super::plain::Plain;
use super::register::{Base, Dotted, Register, Sibling, Stored, decode_dot, encode_dot, join_dots};
use super::view::{Body, Kind, View};

/// The field of a string.
pub(super) const STRING: &[u8] = b"";

const KINDS: [Kind; 5] = [Kind::String, Kind::List, Kind::Hash, Kind::Set, Kind::Zset];

/// What a key is, apart from what it holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Meta {
    /// The write that made it.
    pub dot: Dot,
    /// The type.
    pub kind: Kind,
    /// When the key expires.
    pub expire_at: Option<UnixMs>,
}

impl Dotted for Meta {
    fn dot(&self) -> Dot {
        self.dot
    }
}

/// One named register.
#[derive(Clone, PartialEq, Debug)]
pub struct Field {
    /// Empty for a string.
    pub name: Bytes,
    /// Its concurrent values.
    pub register: Register,
}

/// What a key holds, with its causality. See the head of this file.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Entry {
    pub(super) context: Context,
    pub(super) meta: SmallVec<[Meta; 1]>,
    pub(super) fields: SmallVec<[Field; 1]>,
}

impl Entry {
    /// The entry of a key that was never written.
    pub fn new() -> Entry {
        Entry::default()
    }

    /// The full form of a plain entry.
    pub fn from_plain(plain: &Plain<'_>) -> Entry {
        let meta = Meta { dot: plain.dot, kind: Kind::String, expire_at: plain.expire_at };
        let base = Base::Stored(Stored::copy(&plain.value));
        Entry {
            context: Context::up_to(plain.dot, plain.n),
            meta: SmallVec::from_buf([meta]),
            fields: string_field(Sibling::new(plain.dot, base)),
        }
    }

    /// The tiny form, if this entry has one: a set string whose context is its own dot.
    pub fn as_plain(&self) -> Option<Plain<'_>> {
        let ([mark], [], [meta]) = (self.context.vector(), self.context.cloud(), &self.meta[..])
        else {
            return None;
        };
        let [Field { name, register }] = &self.fields[..] else { return None };
        let [Sibling { dot, base: Base::Stored(stored), increments, expire_at: None }] =
            register.siblings()
        else {
            return None;
        };
        let own = mark.dot == *dot && meta.dot == *dot && meta.kind == Kind::String;
        (own && name.is_empty() && increments.is_empty()).then(|| Plain {
            dot: *dot,
            n: mark.n,
            expire_at: meta.expire_at,
            value: stored.as_packed(),
        })
    }

    /// Which writes on the key are known; as people read it, by its `Display`.
    pub const fn context(&self) -> &Context {
        &self.context
    }

    /// The concurrent metas, sorted by dot.
    pub fn meta(&self) -> &[Meta] {
        &self.meta
    }

    /// The named registers, sorted by name.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Whether anything is alive here. What lives may still be invisible (expired, or a meta
    /// without a value): then it is a leftover, for a delete to clear away.
    pub fn is_live(&self) -> bool {
        !self.meta.is_empty() || !self.fields.is_empty()
    }

    /// Whether only the memory of removed writes is left.
    pub fn is_tombstone(&self) -> bool {
        !self.is_live() && !self.context.is_empty()
    }

    /// The greatest timestamp of any known write; a coordinator's clock must rise above it.
    pub fn hlc_max(&self) -> Hlc {
        self.context.hlc_max()
    }

    /// Every dot that is alive, sorted.
    pub fn live_dots(&self) -> Vec<Dot> {
        let values = self.fields.iter().flat_map(|field| field.register.siblings());
        let mut dots: Vec<_> =
            self.meta.iter().map(|meta| meta.dot).chain(values.map(|value| value.dot)).collect();
        dots.sort_unstable();
        dots.dedup();
        dots
    }

    // ---- what is seen -------------------------------------------------------------------------

    /// What commands see at `now`; nothing of an absent, deleted or expired key. `seed` orders what
    /// has no order of its own.
    pub fn view_in(&self, now: UnixMs, seed: HashSeed) -> Option<View<'_>> {
        let (kind, expire_at) = self.visible(now)?;
        let body = match kind {
            Kind::String => self.register(STRING)?.body()?,
            kind => Body::Fields(Fields::listed(kind, seed, self.elements(kind, now).collect())),
        };
        Some(View { kind, expire_at, memory: self.memory(), body })
    }

    /// The same where the order of elements does not matter.
    pub fn view(&self, now: UnixMs) -> Option<View<'_>> {
        self.view_in(now, HashSeed(0))
    }

    /// The visible elements of a collection, by name.
    pub(super) fn elements(
        &self,
        kind: Kind,
        now: UnixMs,
    ) -> impl DoubleEndedIterator<Item = Element<'_>> {
        let fields = self.fields_of(kind).iter();
        fields.filter(move |field| field.register.is_visible(now)).map(move |field| {
            let text = || match field.register.body() {
                Some(Body::Stored(packed)) => packed.unpack().expect("a stored block unpacks"),
                Some(Body::Made(text)) => Cow::Owned(text),
                _ => Cow::Borrowed(&[][..]),
            };
            Element {
                name: Cow::Borrowed(&field.name[1..]),
                value: if kind == Kind::Zset { Cow::Borrowed(&[]) } else { text() },
                score: if kind == Kind::Zset { field.register.score() } else { 0.0 },
                expire_at: field.register.expire_at(),
            }
        })
    }

    /// The registers of a collection, sorted by name.
    pub(super) fn fields_of(&self, kind: Kind) -> &[Field] {
        let first = |tag: u8| {
            self.fields.partition_point(|field| field.name.first().is_none_or(|&t| t < tag))
        };
        if kind == Kind::String {
            return &self.fields[..first(1)];
        }
        &self.fields[first(tag(kind))..first(tag(kind) + 1)]
    }

    /// Every concurrent string with its dot, oldest first; regardless of any time to live.
    pub fn siblings(&self) -> impl Iterator<Item = (Dot, Body<'_>)> {
        let all = self.register(STRING).map_or(&[][..], Register::siblings);
        all.iter().map(|sibling| (sibling.dot, sibling.body()))
    }

    /// The concurrent strings that a client chooses among at `now`, oldest first: the last one is
    /// what GET answers. None of an absent, deleted or expired key; see [`Register::values`].
    pub fn values(&self, now: UnixMs) -> Vec<Body<'_>> {
        let register = self.register(STRING).filter(|_| self.visible(now).is_some());
        register.map_or_else(Vec::new, Register::values)
    }

    /// The types that concurrent writers gave the key, as seen at `now`; the visible one is last.
    pub fn kinds(&self, now: UnixMs) -> Vec<Kind> {
        let Some((visible, _)) = self.visible(now) else { return Vec::new() };
        let others = KINDS.into_iter().filter(|kind| *kind != visible);
        others.filter(|kind| !self.fields_of(*kind).is_empty()).chain([visible]).collect()
    }

    /// The elements of each collection that concurrent writers gave the key, as seen at `now`, of
    /// types in the order of [`Entry::kinds`]. Nothing of strings: see [`Entry::values`].
    pub fn collections(&self, now: UnixMs, seed: HashSeed) -> Vec<Fields<'_>> {
        let kinds = self.kinds(now).into_iter().filter(|kind| *kind != Kind::String);
        kinds.map(|kind| Fields::listed(kind, seed, self.elements(kind, now).collect())).collect()
    }

    /// Whether a client that has seen `context` and no more would remove a value.
    pub fn is_value_seen(&self, context: &Context) -> bool {
        let mut values = self.fields.iter().flat_map(|field| field.register.siblings());
        values.any(|value| value.is_seen(context))
    }

    /// Bytes in memory.
    pub fn memory(&self) -> usize {
        let context = size_of_val(self.context.vector()) + size_of_val(self.context.cloud());
        let fields = self.fields.iter().map(|field| field.name.len() + field.register.memory());
        size_of::<Entry>() + context + size_of_val(&self.meta[..]) + fields.sum::<usize>()
    }

    /// Type and expiry, if there is something to see at `now`: of the greatest meta that tells of
    /// something that is there. What no meta tells of does not end, and is of the type of the
    /// greatest write: its meta was removed by somebody who had not seen it.
    pub fn visible(&self, now: UnixMs) -> Option<(Kind, Option<UnixMs>)> {
        let told = self.meta.iter().rev().find(|meta| !self.fields_of(meta.kind).is_empty());
        let (kind, expire_at) = match told {
            Some(meta) => (meta.kind, meta.expire_at),
            None => {
                let last = self.fields.iter().max_by_key(|field| {
                    field.register.siblings().last().map(|sibling| sibling.dot)
                })?;
                (kind_of(&last.name)?, None)
            }
        };
        let is_shown = kind == Kind::String
            || self.fields_of(kind).iter().any(|field| field.register.is_visible(now));
        let expired = expire_at.is_some_and(|at| at <= now);
        (is_shown && !expired).then_some((kind, expire_at))
    }

    pub(super) fn register(&self, name: &[u8]) -> Option<&Register> {
        let at = self.fields.binary_search_by(|field| field.name[..].cmp(name)).ok()?;
        Some(&self.fields[at].register)
    }

    // ---- joining ------------------------------------------------------------------------------

    /// Joins another replica's state of the key. Pure: associative, commutative, idempotent.
    pub fn join(&mut self, other: &Entry) {
        let Entry { context, meta, fields } = self;
        join_dots(meta, context, &other.meta, &other.context, |_, _| {});
        let nothing = Register::default();
        for Field { name, register } in fields.iter_mut() {
            let theirs = other.register(name).unwrap_or(&nothing);
            register.join(context, theirs, &other.context);
        }
        for Field { name, register } in &other.fields {
            if let Err(at) = fields.binary_search_by(|field| field.name.cmp(name)) {
                let mut ours = Register::default();
                ours.join(context, register, &other.context);
                fields.insert(at, Field { name: name.clone(), register: ours });
            }
        }
        fields.retain(|field| !field.register.is_empty());
        context.join(&other.context);
    }

    /// Drops the losers among a collection's plain values. A local mutator, run after a join;
    /// strings keep their siblings until a write that has seen them.
    pub fn prune_losers(&mut self) {
        for field in self.fields.iter_mut().filter(|field| field.name[..] != *STRING) {
            field.register.prune_losers();
        }
    }

    // ---- comparing ----------------------------------------------------------------------------

    /// The digest of everything alive; [`Digest::NONE`] for a tombstone.
    pub fn digest(&self, seed: HashSeed, key_hash: u64) -> Digest {
        let terms = Terms { seed, key_hash };
        let mut sum = Digest::NONE;
        for meta in &self.meta {
            sum = sum.plus(terms.meta(meta.dot));
        }
        for Field { name, register } in &self.fields {
            for sibling in register.siblings() {
                sum = sum.plus(terms.value(name, sibling.dot));
                for inc in &sibling.increments {
                    sum = sum.plus(terms.increment(name, sibling.dot, inc.dot()));
                }
            }
        }
        sum
    }

    /// The digest of everything alive and of what is known to be removed.
    pub fn state_digest(&self, seed: HashSeed, key_hash: u64) -> Digest {
        let terms = Terms { seed, key_hash };
        let context = terms.context(self.context.vector(), self.context.cloud());
        self.digest(seed, key_hash).plus(context)
    }

    // ---- bytes --------------------------------------------------------------------------------

    /// Appends the entry's bytes.
    pub fn encode(&self, out: &mut impl Put) {
        self.context.encode(out);
        self.encode_store(out);
    }

    /// Appends what is alive.
    pub(super) fn encode_store(&self, out: &mut impl Put) {
        out.put_varint(self.meta.len() as u64);
        for meta in &self.meta {
            encode_dot(out, meta.dot);
            let kind = KINDS.iter().position(|kind| *kind == meta.kind).unwrap_or(0) as u8;
            out.put_u8(kind | u8::from(meta.expire_at.is_some()) << 7);
            if let Some(at) = meta.expire_at {
                out.put_varint(at.0);
            }
        }
        out.put_varint(self.fields.len() as u64);
        for field in &self.fields {
            out.put_bytes(&field.name);
            field.register.encode(out);
        }
    }

    /// Reads an entry from all of `bytes`. One that is not in canonical form is refused. LZ4
    /// blocks are not unpacked: see [`Entry::verify`].
    pub fn decode(bytes: &[u8]) -> Result<Entry, WireError> {
        let mut cursor = Cursor::new(bytes);
        let context = Context::decode(&mut cursor)?;
        let entry = Entry::decode_store(&mut cursor, context)?;
        cursor.end()?;
        Ok(entry)
    }

    /// Reads what is alive; all of it must be in `context`.
    pub(super) fn decode_store(
        cursor: &mut Cursor<'_>,
        context: Context,
    ) -> Result<Entry, WireError> {
        let mut entry = Entry { context, ..Entry::default() };
        for _ in 0..cursor.varint()? {
            let meta = decode_meta(cursor)?;
            if entry.meta.last().is_some_and(|last| last.dot >= meta.dot) {
                return Err(WireError::Malformed("order of metas"));
            }
            entry.meta.push(meta);
        }
        for _ in 0..cursor.varint()? {
            let name = cursor.bytes()?;
            if entry.fields.last().is_some_and(|last| last.name[..] >= *name) {
                return Err(WireError::Malformed("order of fields"));
            }
            if kind_of(name).is_none() {
                return Err(WireError::Malformed("name of a field"));
            }
            let register = Register::decode(cursor)?;
            entry.fields.push(Field { name: Bytes::copy_from_slice(name), register });
        }
        if entry.is_sound() { Ok(entry) } else { Err(WireError::Malformed("dot of nowhere")) }
    }

    /// Whether every dot that is alive is in the context.
    fn is_sound(&self) -> bool {
        let known = |dot: Dot| self.context.contains(dot);
        let mut values = self.fields.iter().flat_map(|field| field.register.siblings());
        self.meta.iter().all(|meta| known(meta.dot))
            && values.all(|value| {
                known(value.dot) && value.increments.iter().all(|inc| known(inc.dot()))
            })
    }

    /// Whether every LZ4 block unpacks to what it claims: for bytes that came from outside.
    pub fn verify(&self) -> bool {
        let mut values = self.fields.iter().flat_map(|field| field.register.siblings());
        values.all(|value| match &value.base {
            Base::Zero => true,
            Base::Stored(stored) => stored.as_packed().unpack().is_some(),
        })
    }
}

fn decode_meta(cursor: &mut Cursor<'_>) -> Result<Meta, WireError> {
    let dot = decode_dot(cursor)?;
    let tag = cursor.u8()?;
    let kind = *KINDS.get(usize::from(tag & 0x7F)).ok_or(WireError::Malformed("type"))?;
    let expire_at = if tag & 0x80 == 0 { None } else { Some(UnixMs(cursor.varint()?)) };
    Ok(Meta { dot, kind, expire_at })
}

fn string_field(sibling: Sibling) -> SmallVec<[Field; 1]> {
    SmallVec::from_buf([Field { name: Bytes::new(), register: Register::of(sibling) }])
}
