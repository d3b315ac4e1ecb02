//! An entry: what a key holds, with its causality. The unit that is replicated.
//!
//! ```text
//! Entry ── context                         which writes are known (version vector and cloud)
//!       ├─ meta    { dot, kind, expire_at } …   concurrent ones side by side
//!       ├─ string  Register ── siblings
//!       └─ bodies  hash, list, …  ── name → Register   one for each type that somebody gave the key
//! ```
//!
//! It is an observed-remove store (Shapiro et al., 2011; optimised as in Bieniusa et al., 2012):
//! everything alive is named by the dot of the write that made it, and a dot that the context
//! knows but that is not alive has been removed. So a tombstone is a context with nothing alive.
//!
//! Invariants: every dot alive here is in the context. Meta is sorted by dot, bodies by type, and
//! none is empty. The join is pure and keeps concurrent values; [`Entry::prune_losers`] drops losers
//! afterwards and never inside.
//!
//! The winner (of meta, and of values) is the greatest dot. A key whose winning meta has expired
//! is invisible but still there; whoever writes as if it were absent removes the leftovers. A
//! value whose meta was removed by a concurrent write is a string without a time to live; a meta
//! without a value shows nothing.
//!
//! Bytes:
//! ```text
//! context │ meta count varint │ { dot │ kind u8, +128 if it expires │ [ expire_at varint ] } …
//!         │ parts u8: bodies, +128 with a string │ [ register ] │ body …
//! ```

use smallvec::SmallVec;

use crate::base::hash::{Digest, HashSeed};
use crate::base::time::{Dot, Hlc, UnixMs};
use crate::base::wire::{Cursor, Put, WireError};
use crate::version::context::Context;

use super::body::Body;
use super::body::cell::{dots_of, register_of};
use super::body::leaf::{Cell, New};
use super::digest::Terms;
use super::element::tag;
use super::fields::Fields;
use super::fragment::Fragment;
use super::plain::Plain;
use super::register::{Base, Dotted, Register, Sibling, Stored, decode_dot, encode_dot, join_dots};
use super::view::{Body as Shown, Kind, View};

const KINDS: [Kind; 5] = [Kind::String, Kind::List, Kind::Hash, Kind::Set, Kind::Zset];

/// Of the count of bodies: there is a string, too.
const STRING: u8 = 128;

/// A collection beyond either of these is kept in memory as what it is, not as bytes.
const SMALL_SIZE_MAX: usize = 3_072;
const SMALL_LEN_MAX: usize = 128;

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
    /// What it is of.
    pub kind: Kind,
    /// Empty for a string.
    pub name: Vec<u8>,
    /// Its concurrent values.
    pub register: Register,
}

/// What a key holds, with its causality. See the head of this file.
#[derive(Clone, Debug)]
pub struct Entry {
    pub(super) context: Context,
    pub(super) meta: SmallVec<[Meta; 1]>,
    pub(super) string: Register,
    pub(super) bodies: SmallVec<[Body; 1]>,
    /// By which new bodies order what has no order of its own.
    seed: HashSeed,
}

impl Default for Entry {
    fn default() -> Entry {
        Entry {
            context: Context::new(),
            meta: SmallVec::new(),
            string: Register::default(),
            bodies: SmallVec::new(),
            seed: HashSeed(0),
        }
    }
}

/// Equal if they hold the same: by which seed it lies in memory does not matter.
impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.context == other.context
            && self.meta == other.meta
            && self.string == other.string
            && self.bodies == other.bodies
    }
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
            string: Register::of(Sibling::new(plain.dot, base)),
            ..Entry::default()
        }
    }

    /// The tiny form, if this entry has one: a set string whose context is its own dot.
    pub fn as_plain(&self) -> Option<Plain<'_>> {
        let ([mark], [], [meta]) = (self.context.vector(), self.context.cloud(), &self.meta[..])
        else {
            return None;
        };
        let (dot, stored, None) = self.string.as_single()? else { return None };
        let own = mark.dot == dot && meta.dot == dot && meta.kind == Kind::String;
        (own && self.bodies.is_empty()).then(|| Plain {
            dot,
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

    /// Every named register, the string's first. For tests and tools: it copies all there is.
    pub fn fields(&self) -> Vec<Field> {
        let mut all = Vec::new();
        if !self.string.is_empty() {
            let register = self.string.clone();
            all.push(Field { kind: Kind::String, name: Vec::new(), register });
        }
        for body in &self.bodies {
            let kind = body.kind();
            body.cells(|name, cell| {
                all.push(Field { kind, name: name.to_vec(), register: register_of(cell) });
            });
        }
        all.sort_by(|a, b| (tag(a.kind), &a.name).cmp(&(tag(b.kind), &b.name)));
        all
    }

    /// Whether nothing is held: no string and no element.
    pub(super) fn holds_nothing(&self) -> bool {
        self.string.is_empty() && self.bodies.is_empty()
    }

    /// Whether anything is alive here. What lives may still be invisible (expired, or a meta
    /// without a value): then it is a leftover, for a delete to clear away.
    pub fn is_live(&self) -> bool {
        !self.meta.is_empty() || !self.holds_nothing()
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
        let mut dots: Vec<Dot> = self.meta.iter().map(|meta| meta.dot).collect();
        dots.extend(self.string.siblings().iter().map(|value| value.dot));
        for body in &self.bodies {
            body.cells(|_, cell| dots_of(cell, |dot| dots.push(dot)));
        }
        dots.sort_unstable();
        dots.dedup();
        dots
    }

    // ---- what is seen -------------------------------------------------------------------------

    /// What commands see at `now`; nothing of an absent, deleted or expired key.
    pub fn view(&self, now: UnixMs) -> Option<View<'_>> {
        if let Some((meta, body)) = self.only_shown(now) {
            let (kind, expire_at) = (meta.kind, meta.expire_at);
            let body = Shown::Fields(Fields::held(body, now));
            return Some(View { kind, expire_at, memory: 0, body });
        }
        let (kind, expire_at) = self.visible(now)?;
        let body = match kind {
            Kind::String => self.string.body()?,
            kind => Shown::Fields(Fields::held(self.body(kind)?, now)),
        };
        Some(View { kind, expire_at, memory: 0, body })
    }

    /// The same of an entry that was made to be looked at.
    pub fn into_view(mut self, now: UnixMs) -> Option<View<'static>> {
        let (kind, expire_at) = self.visible(now)?;
        let memory = self.memory();
        let body = match kind {
            Kind::String => match self.string.body()? {
                Shown::Stored(packed) => {
                    Shown::Made(packed.unpack().expect("a stored block unpacks").into_owned())
                }
                Shown::Made(text) => Shown::Made(text),
                _ => unreachable!("a string shows a string"),
            },
            kind => {
                let at = self.bodies.iter().position(|body| body.kind() == kind)?;
                Shown::Fields(Fields::owned(self.bodies.remove(at), now))
            }
        };
        Some(View { kind, expire_at, memory, body })
    }

    /// The elements of a type.
    pub(super) fn body(&self, kind: Kind) -> Option<&Body> {
        self.bodies.iter().find(|body| body.kind() == kind)
    }

    /// The elements of a type, to be changed; there may be none yet.
    pub(super) fn body_mut(&mut self, kind: Kind) -> &mut Body {
        let at = self.bodies.iter().position(|body| tag(body.kind()) >= tag(kind));
        let at = at.unwrap_or(self.bodies.len());
        if self.bodies.get(at).is_none_or(|body| body.kind() != kind) {
            self.bodies.insert(at, Body::new(kind, self.seed));
        }
        &mut self.bodies[at]
    }

    /// Lets bodies go that hold nothing any more.
    pub(super) fn drop_empty(&mut self) {
        self.bodies.retain(|body| !body.is_empty());
    }

    /// Every concurrent string with its dot, oldest first; regardless of any time to live.
    pub fn siblings(&self) -> impl Iterator<Item = (Dot, Shown<'_>)> {
        self.string.siblings().iter().map(|sibling| (sibling.dot, sibling.body()))
    }

    /// The concurrent strings that a client chooses among at `now`, oldest first: the last one is
    /// what GET answers. None of an absent, deleted or expired key; see [`Register::values`].
    pub fn values(&self, now: UnixMs) -> Vec<Shown<'_>> {
        if self.visible(now).is_some() { self.string.values() } else { Vec::new() }
    }

    /// The types that concurrent writers gave the key, as seen at `now`; the visible one is last.
    pub fn kinds(&self, now: UnixMs) -> Vec<Kind> {
        let Some((visible, _)) = self.visible(now) else { return Vec::new() };
        let others = KINDS.into_iter().filter(|kind| *kind != visible);
        others.filter(|kind| self.holds(*kind)).chain([visible]).collect()
    }

    /// The elements of each collection that concurrent writers gave the key, as seen at `now`, of
    /// types in the order of [`Entry::kinds`]. Nothing of strings: see [`Entry::values`].
    pub fn collections(&self, now: UnixMs) -> Vec<Fields<'_>> {
        let bodies = self.kinds(now).into_iter().filter_map(|kind| self.body(kind));
        bodies.map(|body| Fields::held(body, now)).collect()
    }

    /// Whether a client that has seen `context` and no more would remove a value.
    pub fn is_value_seen(&self, context: &Context) -> bool {
        let seen = |register: &Register| register.siblings().iter().any(|v| v.is_seen(context));
        let mut found = seen(&self.string);
        for body in &self.bodies {
            body.cells(|_, cell| found = found || seen(&register_of(cell)));
        }
        found
    }

    /// Bytes in memory.
    pub fn memory(&self) -> usize {
        self.sizes().1
    }

    /// Whether it is kept in memory as what it is, for its bytes would be too many to be made anew by
    /// every change.
    pub fn is_large(&self) -> bool {
        let large = |body: &Body| body.size() > SMALL_SIZE_MAX || body.len() > SMALL_LEN_MAX;
        self.bodies.iter().any(large)
    }

    /// About how many bytes [`Entry::encode`] makes of a large entry; without making them.
    pub fn size(&self) -> usize {
        self.sizes().0
    }

    /// The digest of its elements with [`Entry::size`], and [`Entry::memory`].
    pub fn measure(&self, seed: HashSeed, key_hash: u64) -> ((Digest, usize), usize) {
        let (size, memory) = self.sizes();
        ((self.elements_digest(seed, key_hash), size), memory)
    }

    /// [`Entry::size`] and [`Entry::memory`]: they add up the same things.
    #[inline]
    fn sizes(&self) -> (usize, usize) {
        let (vector, cloud) = (self.context.vector(), self.context.cloud());
        let string = self.string.memory();
        let size = 18 * (vector.len() + cloud.len()) + 22 * self.meta.len() + string;
        let context = size_of_val(vector) + size_of_val(cloud);
        let memory = size_of::<Entry>() + context + size_of_val(&self.meta[..]) + string;
        self.bodies.iter().fold((size, memory), |(size, memory), body| {
            (size + body.size() + 32, memory + body.memory())
        })
    }

    /// Orders what has no order of its own by the cluster's seed, from now on.
    pub fn order_by(&mut self, seed: HashSeed) {
        self.seed = seed;
        self.bodies.iter_mut().for_each(|body| body.order_by(seed));
    }

    /// Keeps the digest from now on, so that [`Entry::digest`] with these costs nothing.
    pub fn keep_digest(&mut self, seed: HashSeed, key_hash: u64) {
        self.bodies.iter_mut().for_each(|body| body.keep_digest(Terms { seed, key_hash }));
    }

    /// Whether the digests of all bodies are kept.
    pub fn keeps_digest(&self) -> bool {
        self.bodies.iter().all(Body::keeps_digest)
    }

    /// Whether there is something of a type.
    fn holds(&self, kind: Kind) -> bool {
        match kind {
            Kind::String => !self.string.is_empty(),
            kind => self.body(kind).is_some(),
        }
    }

    /// The collection that is there, if nothing stands beside it and nothing of it has expired: so it
    /// is nearly always.
    pub(super) fn only_shown(&self, now: UnixMs) -> Option<(&Meta, &Body)> {
        let ([meta], [body], true) = (&self.meta[..], &self.bodies[..], self.string.is_empty())
        else {
            return None;
        };
        let is_shown = meta.kind == body.kind()
            && meta.expire_at.is_none_or(|at| at > now)
            && !body.is_empty()
            && !body.may_have_expired(now);
        is_shown.then_some((meta, body))
    }

    /// Type and expiry, if there is something to see at `now`: of the greatest meta that tells of
    /// something that is there. What no meta tells of does not end, and is of the type of the
    /// greatest write: its meta was removed by somebody who had not seen it.
    pub fn visible(&self, now: UnixMs) -> Option<(Kind, Option<UnixMs>)> {
        let told = self.meta.iter().rev().find(|meta| self.holds(meta.kind));
        let (kind, expire_at) = match told {
            Some(meta) => (meta.kind, meta.expire_at),
            None => (self.last_written()?, None),
        };
        let is_shown = match kind {
            Kind::String => true,
            kind => self.body(kind).is_some_and(|body| body.is_visible(now)),
        };
        let expired = expire_at.is_some_and(|at| at <= now);
        (is_shown && !expired).then_some((kind, expire_at))
    }

    /// The type of the greatest write that is alive.
    fn last_written(&self) -> Option<Kind> {
        let only = match &self.bodies[..] {
            [] => return (!self.string.is_empty()).then_some(Kind::String),
            [only] if self.string.is_empty() => Some(only.kind()),
            _ => None,
        };
        let last = || {
            let string = self.string.siblings().last().map(|value| (value.dot, Kind::String));
            let bodies = self.bodies.iter().filter_map(|body| {
                let mut last = None;
                body.cells(|_, cell| dots_of(cell, |dot| last = last.max(Some(dot))));
                last.map(|dot| (dot, body.kind()))
            });
            bodies.chain(string).max_by_key(|(dot, _)| *dot).map(|(_, kind)| kind)
        };
        only.or_else(last)
    }

    // ---- joining ------------------------------------------------------------------------------

    /// Joins another replica's state of the key. Pure: associative, commutative, idempotent.
    pub fn join(&mut self, other: &Entry) {
        let (our, their) = (self.context.clone(), &other.context);
        join_dots(&mut self.meta, &our, &other.meta, their, |_, _| {});
        self.string.join(&our, &other.string, their);
        if their.descends(&our) {
            // Whoever knows all that is here and holds none of it has removed it: a large collection
            // goes without a look at its elements.
            self.bodies.retain(|ours| other.holds(ours.kind()));
        }
        for ours in &mut self.bodies {
            let theirs = other.body(ours.kind());
            let table = theirs.and_then(Body::names_table);
            ours.change_all(|name, cell| {
                let theirs = match &table {
                    Some(table) => table.contains_key(name),
                    None => theirs.is_some_and(|body| body.cell(name).is_some()),
                };
                if theirs { New::Keep } else { joined(Some(cell), &our, None, their) }
            });
        }
        for theirs in &other.bodies {
            let ours = self.body_mut(theirs.kind());
            theirs.cells(|name, cell| {
                ours.update(name, |held| joined(held, &our, Some(cell), their));
            });
        }
        self.drop_empty();
        self.context.join(&other.context);
    }

    /// Joins a fragment. Fragments may come in any order, and twice.
    pub fn join_delta(&mut self, fragment: &Fragment) {
        let (our, part) = (self.context.clone(), fragment.part());
        let their = &part.context;
        join_dots(&mut self.meta, &our, &part.meta, their, |_, _| {});
        self.string.join(&our, &part.string, their);
        // It tells of elements by their names, gone ones too: no other need be looked at.
        for theirs in &part.bodies {
            let ours = self.body_mut(theirs.kind());
            theirs.cells(|name, cell| {
                ours.update(name, |held| joined(held, &our, Some(cell), their));
            });
        }
        for (kind, name) in fragment.gone() {
            if self.holds(*kind) {
                self.body_mut(*kind).update(name, |held| joined(held, &our, None, their));
            }
        }
        self.drop_empty();
        self.context.join(their);
        // The part knows its own dot as a single one; with `prev` held, the vector takes it in.
        self.context.advance(fragment.dot(), fragment.n(), fragment.prev());
    }

    /// Drops the losers among a collection's plain values. A local mutator, run after a join;
    /// strings keep their siblings until a write that has seen them.
    pub fn prune_losers(&mut self) {
        for body in &mut self.bodies {
            body.change_all(|_, cell| pruned(cell));
        }
    }

    /// The same of the elements that `told` has, after it was joined.
    pub(super) fn prune_told(&mut self, told: &Entry) {
        for theirs in &told.bodies {
            if self.holds(theirs.kind()) {
                let ours = self.body_mut(theirs.kind());
                theirs.cells(|name, _| {
                    ours.update(name, |held| held.map_or(New::Keep, pruned));
                });
            }
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
        for sibling in self.string.siblings() {
            sum = sum.plus(terms.value(sibling.dot));
            for inc in &sibling.increments {
                sum = sum.plus(terms.increment(sibling.dot, inc.dot()));
            }
        }
        sum.plus(self.elements_digest(seed, key_hash))
    }

    /// The part of [`Entry::digest`] that is the elements'.
    pub fn elements_digest(&self, seed: HashSeed, key_hash: u64) -> Digest {
        let terms = Terms { seed, key_hash };
        self.bodies.iter().fold(Digest::NONE, |sum, body| sum.plus(body.digest(terms)))
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
        let string = if self.string.is_empty() { 0 } else { STRING };
        out.put_u8(self.bodies.len() as u8 | string);
        if string > 0 {
            self.string.encode(out);
        }
        self.bodies.iter().for_each(|body| body.encode(out));
    }

    /// Reads an entry from all of `bytes`. One that is no entry is refused. What it says of itself is
    /// not looked into: see [`Entry::verify`].
    pub fn decode(bytes: &[u8]) -> Result<Entry, WireError> {
        let mut cursor = Cursor::new(bytes);
        let context = Context::decode(&mut cursor)?;
        let entry = Entry::decode_store(&mut cursor, context)?;
        cursor.end()?;
        Ok(entry)
    }

    /// Reads what is alive.
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
        let parts = cursor.u8()?;
        if parts & STRING > 0 {
            entry.string = Register::decode(cursor)?;
        }
        for _ in 0..parts & !STRING {
            let body = Body::decode(cursor, HashSeed(0))?;
            if entry.bodies.last().is_some_and(|last| tag(last.kind()) >= tag(body.kind())) {
                return Err(WireError::Malformed("order of types"));
            }
            entry.bodies.push(body);
        }
        Ok(entry)
    }

    /// Whether every dot that is alive is in the context, and every LZ4 block unpacks to what it
    /// claims: for bytes that came from outside.
    pub fn verify(&self) -> bool {
        let known = |dot: Dot| self.context.contains(dot);
        let all_known = |register: &Register| {
            register.siblings().iter().all(|value| {
                known(value.dot) && value.increments.iter().all(|inc| known(inc.dot()))
            })
        };
        let mut sound = self.meta.iter().all(|meta| known(meta.dot)) && all_known(&self.string);
        for body in &self.bodies {
            body.cells(|_, cell| {
                sound = sound
                    && match cell {
                        Cell::Single { dot, .. } => known(*dot),
                        cell => all_known(&register_of(cell)),
                    };
            });
            sound = sound && body.verify();
        }
        sound
            && self.string.siblings().iter().all(|value| match &value.base {
                Base::Zero => true,
                Base::Stored(stored) => stored.as_packed().unpack().is_some(),
            })
    }
}

/// What an element holds after a join: `ours` of one who knew `our` context, `theirs` of one who
/// knew `their`.
pub(super) fn joined<'n>(
    ours: Option<&Cell<'_>>,
    our: &Context,
    theirs: Option<&Cell<'n>>,
    their: &Context,
) -> New<'n> {
    match (ours, theirs) {
        (None, None) => New::Keep,
        (Some(Cell::Single { dot, .. }), None) => {
            if their.contains(*dot) {
                New::Gone
            } else {
                New::Keep
            }
        }
        (None, Some(&Cell::Single { dot, value, expire_at })) => {
            if our.contains(dot) {
                New::Keep
            } else {
                New::Single { dot, value, expire_at }
            }
        }
        (Some(Cell::Single { dot: held, .. }), Some(Cell::Single { dot, .. })) if held == dot => {
            New::Keep
        }
        (ours, theirs) => {
            let mut register = ours.map_or_else(Register::default, register_of);
            let before = register.clone();
            let theirs = theirs.map_or_else(Register::default, register_of);
            register.join(our, &theirs, their);
            if register == before { New::Keep } else { New::Register(register) }
        }
    }
}

/// An element without its losers.
fn pruned(cell: &Cell<'_>) -> New<'static> {
    let Cell::Register(_) = cell else { return New::Keep };
    let register = register_of(cell);
    let mut winners = register.clone();
    winners.prune_losers();
    if winners == register { New::Keep } else { New::Register(winners) }
}

fn decode_meta(cursor: &mut Cursor<'_>) -> Result<Meta, WireError> {
    let dot = decode_dot(cursor)?;
    let tag = cursor.u8()?;
    let kind = *KINDS.get(usize::from(tag & 0x7F)).ok_or(WireError::Malformed("type"))?;
    let expire_at = if tag & 0x80 == 0 { None } else { Some(UnixMs(cursor.varint()?)) };
    Ok(Meta { dot, kind, expire_at })
}
