//! The context of a key: which writes on it a replica knows of.
//!
//! A version vector (Dynamo §4.4) plus a *cloud* of single dots (Almeida et al., "Delta state
//! replicated data types", 2018). The vector says "I know every write of this actor on this key
//! up to here"; the cloud says "and these single ones". A write that overtook an earlier one of
//! its author waits in the cloud, for the vector must never claim a write that has not arrived:
//! the claim would read as "seen and removed", and the write would be lost.
//!
//! ```text
//! vector    actor a  ●───●───●            every write of a up to here
//!           actor b  ●
//! cloud     actor a              ●        this one; what lies between is unknown
//! ```
//!
//! Invariant (canonical form, so that equal contexts are equal bytes): the vector is sorted by
//! actor, the cloud by dot, and no cloud dot lies under the vector. The cloud remembers nothing
//! about what came before its dots; only the join with a whole state absorbs them.
//!
//! Beside each timestamp stands `n`, the author's count of its writes on the key. It decides
//! nothing; it is there so that people read `D([n1,3],[n2,1])` rather than timestamps.
//!
//! Bytes:
//! ```text
//! vector count varint │ { actor u32 · hlc u64 · n varint } …
//! cloud  count varint │ { hlc u64 · actor u32 · n varint } …
//! ```

use std::fmt;

use smallvec::SmallVec;

use crate::base::id::Actor;
use crate::base::time::{Dot, Hlc};
use crate::base::wire::{Cursor, Put, WireError};

/// A dot and its author's count of writes on the key up to it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Mark {
    /// The write.
    pub dot: Dot,
    /// 1 for the author's first write on the key, 2 for its second, …; 0 where nobody told.
    pub n: u32,
}

/// How two histories stand to each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Relation {
    /// Both know the same writes.
    Equal,
    /// The first knows all that the second knows, and more.
    Descends,
    /// The second knows all that the first knows, and more.
    Precedes,
    /// Each knows a write that the other does not.
    Concurrent,
}

/// Which writes on a key are known. See the head of this file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Context {
    /// Per actor its last write up to which all are known; sorted by actor.
    vector: SmallVec<[Mark; 1]>,
    /// Single dots above the vector; sorted by dot.
    cloud: Vec<Mark>,
}

impl Context {
    /// The context that knows nothing.
    pub fn new() -> Context {
        Context::default()
    }

    /// Knows every write of `dot`'s actor up to `dot`.
    pub fn up_to(dot: Dot, n: u32) -> Context {
        Context { vector: SmallVec::from_buf([Mark { dot, n }]), cloud: Vec::new() }
    }

    /// Whether no write is known.
    pub fn is_empty(&self) -> bool {
        self.vector.is_empty() && self.cloud.is_empty()
    }

    /// The vector: per actor its last write up to which all are known, sorted by actor.
    pub fn vector(&self) -> &[Mark] {
        &self.vector
    }

    /// The single dots above the vector, sorted.
    pub fn cloud(&self) -> &[Mark] {
        &self.cloud
    }

    /// The timestamp up to which every write of `actor` is known; zero for none.
    pub fn held(&self, actor: Actor) -> Hlc {
        self.place(actor).map_or(Hlc::ZERO, |at| self.vector[at].dot.hlc)
    }

    /// The greatest count known of `actor`'s writes; zero for none.
    pub fn n(&self, actor: Actor) -> u32 {
        let waiting = self.cloud.iter().filter(|mark| mark.dot.actor == actor).map(|mark| mark.n);
        let held = self.place(actor).map_or(0, |at| self.vector[at].n);
        waiting.fold(held, u32::max)
    }

    /// Whether the write is known.
    pub fn contains(&self, dot: Dot) -> bool {
        dot.hlc <= self.held(dot.actor) || self.waiting(dot).is_ok()
    }

    /// The greatest timestamp of any known write; a coordinator's clock must rise above it.
    pub fn hlc_max(&self) -> Hlc {
        let held = self.vector.iter().map(|mark| mark.dot.hlc).max().unwrap_or(Hlc::ZERO);
        self.cloud.last().map_or(held, |mark| held.max(mark.dot.hlc))
    }

    /// Learns of one write and of nothing before it.
    pub fn insert(&mut self, dot: Dot, n: u32) {
        if dot.hlc <= self.held(dot.actor) {
            return;
        }
        match self.waiting(dot) {
            Ok(at) => self.cloud[at].n = self.cloud[at].n.max(n),
            Err(at) => self.cloud.insert(at, Mark { dot, n }),
        }
    }

    /// Learns of one write whose author's write before it on this key was `prev`
    /// ([`Hlc::ZERO`]: it is the first; `None`: nobody knows).
    ///
    /// The vector rises only if it already holds `prev`; otherwise the dot waits in the cloud.
    pub fn advance(&mut self, dot: Dot, n: u32, prev: Option<Hlc>) {
        if prev.is_some_and(|prev| prev <= self.held(dot.actor)) {
            self.raise(Mark { dot, n });
            self.drop_covered();
        } else {
            self.insert(dot, n);
        }
    }

    /// Learns all that `other` knows.
    pub fn join(&mut self, other: &Context) {
        for mark in &other.vector {
            self.raise(*mark);
        }
        for mark in &other.cloud {
            self.insert(mark.dot, mark.n);
        }
        self.drop_covered();
    }

    /// Whether everything that `other` knows is known here too.
    pub fn descends(&self, other: &Context) -> bool {
        other.vector.iter().all(|mark| mark.dot.hlc <= self.held(mark.dot.actor))
            && other.cloud.iter().all(|mark| self.contains(mark.dot))
    }

    /// How this history stands to `other`.
    pub fn relation(&self, other: &Context) -> Relation {
        match (self.descends(other), other.descends(self)) {
            (true, true) => Relation::Equal,
            (true, false) => Relation::Descends,
            (false, true) => Relation::Precedes,
            (false, false) => Relation::Concurrent,
        }
    }

    fn place(&self, actor: Actor) -> Result<usize, usize> {
        self.vector.binary_search_by_key(&actor, |mark| mark.dot.actor)
    }

    fn waiting(&self, dot: Dot) -> Result<usize, usize> {
        self.cloud.binary_search_by_key(&dot, |mark| mark.dot)
    }

    fn raise(&mut self, to: Mark) {
        match self.place(to.dot.actor) {
            // Compares the timestamp first, then the count: any fixed rule keeps the join lawful.
            Ok(at) => self.vector[at] = self.vector[at].max(to),
            Err(at) => self.vector.insert(at, to),
        }
    }

    fn drop_covered(&mut self) {
        let Context { vector, cloud } = self;
        cloud.retain(|mark| {
            let held = vector.binary_search_by_key(&mark.dot.actor, |held| held.dot.actor);
            held.map_or(true, |at| vector[at].dot.hlc < mark.dot.hlc)
        });
    }

    /// Appends the context's bytes.
    pub fn encode(&self, out: &mut impl Put) {
        out.put_varint(self.vector.len() as u64);
        for mark in &self.vector {
            out.put_u32(mark.dot.actor.0);
            out.put_u64(mark.dot.hlc.0);
            out.put_varint(u64::from(mark.n));
        }
        encode_cloud(out, self.cloud.iter(), self.cloud.len());
    }

    /// Reads a context. One that is not in canonical form is refused.
    pub fn decode(cursor: &mut Cursor<'_>) -> Result<Context, WireError> {
        let mut context = Context::new();
        // No room is made from the claimed count: a component takes 13 bytes of what is there.
        for _ in 0..cursor.varint()? {
            let actor = Actor(cursor.u32()?);
            let dot = Dot::new(Hlc(cursor.u64()?), actor);
            let n = decode_n(cursor)?;
            let rises = context.vector.last().is_none_or(|last| last.dot.actor < actor);
            if !rises || dot.hlc == Hlc::ZERO {
                return Err(WireError::Malformed("version vector"));
            }
            context.vector.push(Mark { dot, n });
        }
        for mark in decode_cloud(cursor)? {
            if mark.dot.hlc <= context.held(mark.dot.actor) {
                return Err(WireError::Malformed("cloud dot under the vector"));
            }
            context.cloud.push(mark);
        }
        Ok(context)
    }
}

/// Appends `count` cloud dots.
pub fn encode_cloud<'a>(out: &mut impl Put, marks: impl Iterator<Item = &'a Mark>, count: usize) {
    out.put_varint(count as u64);
    for mark in marks {
        out.put_u64(mark.dot.hlc.0);
        out.put_u32(mark.dot.actor.0);
        out.put_varint(u64::from(mark.n));
    }
}

/// Reads cloud dots; their order must rise.
pub fn decode_cloud(cursor: &mut Cursor<'_>) -> Result<Vec<Mark>, WireError> {
    let mut marks = Vec::<Mark>::new();
    for _ in 0..cursor.varint()? {
        let hlc = Hlc(cursor.u64()?);
        let dot = Dot::new(hlc, Actor(cursor.u32()?));
        let n = decode_n(cursor)?;
        if marks.last().is_some_and(|last| last.dot >= dot) || hlc == Hlc::ZERO {
            return Err(WireError::Malformed("cloud"));
        }
        marks.push(Mark { dot, n });
    }
    Ok(marks)
}

/// Reads a count of writes.
pub fn decode_n(cursor: &mut Cursor<'_>) -> Result<u32, WireError> {
    u32::try_from(cursor.varint()?).map_err(|_| WireError::Malformed("count of writes"))
}

/// `D([n1,3],[n2,1])` as in Dynamo's figure 3; single dots follow as `+[n1,5]`. A life of a node
/// is told (`n1.2`) only where two lives of one node meet; a count that nobody told reads `?`.
impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lives = |actor: Actor| {
            let all = self.vector.iter().chain(&self.cloud).map(|mark| mark.dot.actor);
            all.into_iter().any(|other| other != actor && other.node() == actor.node())
        };
        let pair = |f: &mut fmt::Formatter<'_>, mark: &Mark| {
            let actor = mark.dot.actor;
            if lives(actor) {
                write!(f, "[{actor:?},")?;
            } else {
                write!(f, "[{},", actor.node())?;
            }
            if mark.n > 0 { write!(f, "{}]", mark.n) } else { f.write_str("?]") }
        };
        f.write_str("D(")?;
        for (at, mark) in self.vector.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            pair(f, mark)?;
        }
        f.write_str(")")?;
        for mark in &self.cloud {
            f.write_str("+")?;
            pair(f, mark)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::base::id::{Boot, NodeId};
    use crate::version::laws::broken_law;

    fn dot(hlc: u64, actor: u32) -> Dot {
        Dot::new(Hlc(hlc), Actor(actor))
    }

    /// Any context, by any mix of single dots and rises. The count goes with the dot, as in life.
    fn contexts() -> impl Strategy<Value = Context> {
        vec((1u64..12, 0u32..3, prop::bool::ANY), 0..10).prop_map(|steps| {
            let mut context = Context::new();
            for (hlc, actor, rise) in steps {
                let prev = rise.then_some(Hlc::ZERO);
                context.advance(dot(hlc, actor), hlc as u32 * 7 % 5 + 1, prev);
            }
            context
        })
    }

    fn known(context: &Context) -> BTreeSet<Dot> {
        let all = (1..14).flat_map(|hlc| (0..3).map(move |actor| dot(hlc, actor)));
        all.filter(|dot| context.contains(*dot)).collect()
    }

    fn canonical(context: &Context) -> bool {
        context.vector.windows(2).all(|pair| pair[0].dot.actor < pair[1].dot.actor)
            && context.cloud.windows(2).all(|pair| pair[0].dot < pair[1].dot)
            && context.cloud.iter().all(|mark| context.held(mark.dot.actor) < mark.dot.hlc)
    }

    proptest! {
        #[test]
        fn join_is_lawful(a in contexts(), b in contexts(), c in contexts()) {
            prop_assert_eq!(broken_law((&a, &b, &c), Context::join), None);
        }

        #[test]
        fn join_is_the_union(mut a in contexts(), b in contexts()) {
            let union: BTreeSet<_> = known(&a).union(&known(&b)).copied().collect();
            a.join(&b);
            prop_assert_eq!(known(&a), union);
            prop_assert!(canonical(&a));
            prop_assert!(a.descends(&b));
        }

        #[test]
        fn relation_agrees_with_join(a in contexts(), b in contexts()) {
            let mut both = a.clone();
            both.join(&b);
            prop_assert_eq!(a.descends(&b), both.relation(&a) == Relation::Equal);
            let mirrored = match a.relation(&b) {
                Relation::Descends => Relation::Precedes,
                Relation::Precedes => Relation::Descends,
                same => same,
            };
            prop_assert_eq!(b.relation(&a), mirrored);
        }

        #[test]
        fn bytes_come_back(context in contexts()) {
            let mut out = Vec::new();
            context.encode(&mut out);
            let mut cursor = Cursor::new(&out);
            prop_assert_eq!(Context::decode(&mut cursor), Ok(context));
            prop_assert!(cursor.is_empty());
        }

        #[test]
        fn what_decodes_is_canonical(bytes in vec(0u8..4, 0..60)) {
            let mut cursor = Cursor::new(&bytes);
            if let Ok(context) = Context::decode(&mut cursor) {
                prop_assert!(canonical(&context));
                let mut again = Vec::new();
                context.encode(&mut again);
                prop_assert_eq!(&again[..], &bytes[..bytes.len() - cursor.rest().len()]);
            }
        }

        #[test]
        fn hlc_max_is_over_all(context in contexts()) {
            let max = known(&context).last().map_or(Hlc::ZERO, |dot| dot.hlc);
            prop_assert_eq!(context.hlc_max(), max);
        }
    }

    #[test]
    fn the_vector_rises_only_over_what_it_holds() {
        let mut context = Context::new();
        context.advance(dot(3, 1), 2, Some(Hlc(2)));
        assert_eq!(context.held(Actor(1)), Hlc::ZERO);
        assert!(context.contains(dot(3, 1)) && !context.contains(dot(2, 1)));
        context.advance(dot(2, 1), 1, Some(Hlc::ZERO));
        assert_eq!(context.held(Actor(1)), Hlc(2));
        assert_eq!(context.cloud().len(), 1);
        context.advance(dot(3, 1), 2, Some(Hlc(2)));
        assert_eq!((context.held(Actor(1)), context.cloud().len()), (Hlc(3), 0));
    }

    #[test]
    fn an_unknown_predecessor_waits_for_ever() {
        let mut context = Context::new();
        context.advance(dot(1, 1), 1, None);
        assert_eq!((context.vector().len(), context.cloud().len()), (0, 1));
    }

    #[test]
    fn people_read_figure_three() {
        let sx = Actor::new(NodeId(1), Boot(0));
        let sy = Actor::new(NodeId(2), Boot(4));
        let mut context = Context::up_to(Dot::new(Hlc(99), sx), 3);
        context.join(&Context::up_to(Dot::new(Hlc(50), sy), 1));
        assert_eq!(context.to_string(), "D([n1,3],[n2,1])");
        context.insert(Dot::new(Hlc(200), sy), 4);
        assert_eq!(context.to_string(), "D([n1,3],[n2,1])+[n2,4]");
        context.join(&Context::up_to(Dot::new(Hlc(70), Actor::new(NodeId(1), Boot(1))), 1));
        assert_eq!(context.to_string(), "D([n1.0,3],[n1.1,1],[n2,1])+[n2,4]");
        let mut untold = Context::new();
        untold.insert(Dot::new(Hlc(1), sx), 0);
        assert_eq!(untold.to_string(), "D()+[n1,?]");
        assert_eq!(Context::new().to_string(), "D()");
    }
}
