//! One exchange: two replicas compare their trees of one vnode and send each other what differs.
//!
//! Invariant: when an exchange is done, each side has been sent every entry that the other held in
//! the buckets that differed, tombstones too. (Tombstones are in no digest, so a bucket that
//! differs only by them is not found; but a removal must travel with the bucket in which the
//! removed entry still stands, or it would come back.) Entries are joined, so sending too much or
//! twice is harmless, and so is giving an exchange up half-way.
//!
//! ```text
//!   initiator                                responder (keeps no state)
//!      │ Root { scope, root } ─────────────────► │
//!      │ ◄───────────────────────────────── Same │   done
//!      │ ◄────────────────────────── Buckets(256)│
//!      │ Want(buckets that differ) ────────────► │
//!      │ entries of those buckets (Put) ───────► │
//!      │ ◄─────── (Put) entries of those buckets │
//!      │ ◄────────────────────────────────── End │   done when both are through
//! ```
//!
//! Entries themselves travel as ordinary `Put` frames with their own flow control; the shell sends
//! `End` behind the last of them on the same ordered stream. (Dynamo §4.7.)
//!
//! **Whole scope.** A node that may have forgotten acknowledged writes may also have forgotten
//! *removals*, and no digest shows that. If it then counted in a quorum together with a replica
//! that missed the removal, a read would return what was deleted. So a recovering node asks for
//! every bucket, whatever the roots say.
//!
//! Every message names the exchange that the initiator gave a number, so an answer to one that was
//! given up is not taken for an answer to the next.

use crate::base::hash::Digest;
use crate::base::wire::{Cursor, Put, WireError};

use super::tree::{BUCKETS, BucketSet, Tree};

/// How much is exchanged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// What differs.
    Differing,
    /// Everything the responder has, and what differs of ours.
    Whole,
}

/// What the two sides say. Layout, little-endian:
///
/// ```text
///   ┌──────┬─────────────┬──────────────────────────────────────────┐
///   │ kind │ exchange u32│ 1 Root    scope u8 (0, 1), root u128     │
///   │  u8  │             │ 2 Same                                   │
///   │      │             │ 3 Buckets 256 × u128                     │
///   │      │             │ 4 Want    4 × u64                        │
///   │      │             │ 5 End                                    │
///   └──────┴─────────────┴──────────────────────────────────────────┘
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// The initiator's number for this exchange.
    pub exchange: u32,
    /// What is said.
    pub body: Body,
}

/// The body of a [`Message`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// Initiator: this is my root.
    Root {
        /// How much is asked.
        scope: Scope,
        /// The root.
        root: Digest,
    },
    /// Responder: mine is the same.
    Same,
    /// Responder: mine differs (or everything is asked); these are my buckets.
    Buckets(Box<[Digest; BUCKETS]>),
    /// Initiator: send me the entries of these.
    Want(BucketSet),
    /// Responder: those were all.
    End,
}

const ROOT: u8 = 1;
const SAME: u8 = 2;
const BUCKET_LIST: u8 = 3;
const WANT: u8 = 4;
const END: u8 = 5;

impl Message {
    /// Appends the message's bytes.
    pub fn encode(&self, out: &mut impl Put) {
        let kind = match &self.body {
            Body::Root { .. } => ROOT,
            Body::Same => SAME,
            Body::Buckets(_) => BUCKET_LIST,
            Body::Want(_) => WANT,
            Body::End => END,
        };
        out.put_u8(kind);
        out.put_u32(self.exchange);
        match &self.body {
            Body::Root { scope, root } => {
                out.put_u8(u8::from(*scope == Scope::Whole));
                out.put_u128(root.0);
            }
            Body::Buckets(buckets) => buckets.iter().for_each(|digest| out.put_u128(digest.0)),
            Body::Want(set) => set.words().iter().for_each(|word| out.put_u64(*word)),
            Body::Same | Body::End => {}
        }
    }

    /// Reads a message; anything but exactly one is refused.
    pub fn decode(bytes: &[u8]) -> Result<Message, WireError> {
        let mut cursor = Cursor::new(bytes);
        let kind = cursor.u8()?;
        let exchange = cursor.u32()?;
        let body = match kind {
            ROOT => {
                let scope = match cursor.u8()? {
                    0 => Scope::Differing,
                    1 => Scope::Whole,
                    _ => return Err(WireError::Malformed("exchange scope")),
                };
                Body::Root { scope, root: Digest(cursor.u128()?) }
            }
            SAME => Body::Same,
            BUCKET_LIST => {
                let mut buckets = Box::new([Digest::NONE; BUCKETS]);
                for digest in buckets.iter_mut() {
                    *digest = Digest(cursor.u128()?);
                }
                Body::Buckets(buckets)
            }
            WANT => {
                let mut words = [0; 4];
                for word in &mut words {
                    *word = cursor.u64()?;
                }
                Body::Want(BucketSet::from_words(words))
            }
            END => Body::End,
            _ => return Err(WireError::Malformed("exchange message")),
        };
        cursor.end()?;
        Ok(Message { exchange, body })
    }
}

/// What an exchange asks of the shell, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Send this to the other side, behind everything sent before it.
    Send(Message),
    /// Send all entries of these buckets, tombstones too. The initiator's shell tells when the
    /// last one is sent ([`Exchange::on_entries_sent`]).
    SendEntriesOf(BucketSet),
    /// The exchange is through; this many buckets were asked for.
    Done {
        /// 0 when the roots were the same.
        buckets: u16,
    },
    /// It was given up. What had been sent is joined and stays.
    GivenUp,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    AwaitsBuckets,
    Shipping { wanted: u16, sent: bool, ended: bool },
    Over,
}

/// The initiator's side of one exchange.
#[derive(Clone, Debug)]
pub struct Exchange {
    number: u32,
    scope: Scope,
    phase: Phase,
}

impl Exchange {
    /// Begins an exchange. `number` tells it from earlier ones with the same peer.
    pub fn start(number: u32, scope: Scope, tree: &Tree, out: &mut Vec<Effect>) -> Exchange {
        let exchange = Exchange { number, scope, phase: Phase::AwaitsBuckets };
        exchange.send(Body::Root { scope, root: tree.root() }, out);
        exchange
    }

    /// The responder said this; `tree` is ours as it is now. What does not fit is ignored.
    pub fn on_message(&mut self, message: &Message, tree: &Tree, out: &mut Vec<Effect>) {
        if message.exchange != self.number {
            return;
        }
        match (self.phase, &message.body) {
            (Phase::AwaitsBuckets, Body::Same) if self.scope == Scope::Differing => {
                self.finish(Effect::Done { buckets: 0 }, out);
            }
            (Phase::AwaitsBuckets, Body::Buckets(theirs)) => self.compare(theirs, tree, out),
            (Phase::Shipping { wanted, sent, .. }, Body::End) => {
                self.ship(wanted, sent, true, out);
            }
            _ => {}
        }
    }

    /// The entries that [`Effect::SendEntriesOf`] asked for are sent.
    pub fn on_entries_sent(&mut self, out: &mut Vec<Effect>) {
        if let Phase::Shipping { wanted, ended, .. } = self.phase {
            self.ship(wanted, true, ended, out);
        }
    }

    /// The link broke.
    pub fn on_lost(&mut self, out: &mut Vec<Effect>) {
        if !self.is_over() {
            self.finish(Effect::GivenUp, out);
        }
    }

    /// Nothing has moved for too long.
    pub fn on_deadline(&mut self, out: &mut Vec<Effect>) {
        self.on_lost(out);
    }

    /// Whether it is through or given up. Later events change nothing.
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    fn compare(&mut self, theirs: &[Digest; BUCKETS], tree: &Tree, out: &mut Vec<Effect>) {
        let differing = tree.differing(theirs);
        let wanted = match self.scope {
            Scope::Differing => differing,
            Scope::Whole => BucketSet::ALL,
        };
        if wanted.is_empty() {
            // They became the same while the question was under way.
            return self.finish(Effect::Done { buckets: 0 }, out);
        }
        // The question first: their entries travel while ours do.
        self.send(Body::Want(wanted), out);
        if !differing.is_empty() {
            out.push(Effect::SendEntriesOf(differing));
        }
        self.ship(wanted.len(), differing.is_empty(), false, out);
    }

    fn ship(&mut self, wanted: u16, sent: bool, ended: bool, out: &mut Vec<Effect>) {
        self.phase = Phase::Shipping { wanted, sent, ended };
        if sent && ended {
            self.finish(Effect::Done { buckets: wanted }, out);
        }
    }

    fn send(&self, body: Body, out: &mut Vec<Effect>) {
        out.push(Effect::Send(Message { exchange: self.number, body }));
    }

    fn finish(&mut self, effect: Effect, out: &mut Vec<Effect>) {
        self.phase = Phase::Over;
        out.push(effect);
    }
}

/// The responder's side: what to do about a message of an initiator. It keeps no state between
/// messages, so an initiator that vanishes leaves nothing behind. Messages that only a responder
/// sends are ignored; [`responds_to`] tells the shell which side a message is for.
pub fn respond(message: &Message, tree: &Tree, out: &mut Vec<Effect>) {
    let answer = |body| Effect::Send(Message { exchange: message.exchange, body });
    match message.body {
        Body::Root { scope: Scope::Differing, root } if root == tree.root() => {
            out.push(answer(Body::Same));
        }
        Body::Root { .. } => out.push(answer(Body::Buckets(Box::new(*tree.buckets())))),
        Body::Want(set) => {
            out.push(Effect::SendEntriesOf(set));
            out.push(answer(Body::End));
        }
        Body::Same | Body::Buckets(_) | Body::End => {}
    }
}

/// Whether `message` is for the responder's side.
pub const fn responds_to(message: &Message) -> bool {
    matches!(message.body, Body::Root { .. } | Body::Want(_))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, VecDeque};

    use proptest::prelude::*;

    use super::super::tree::bucket_of;
    use super::*;

    /// A grow-only model of a replica: key hash → (content, whether it is a tombstone). Greater
    /// content wins, tombstones at equal content.
    #[derive(Clone, Default, PartialEq, Debug)]
    struct Replica {
        entries: BTreeMap<u64, (u64, bool)>,
        tree: Tree,
    }

    fn digest(key: u64, (content, tombstone): (u64, bool)) -> Digest {
        let bytes = [key.to_le_bytes(), content.to_le_bytes()].concat();
        if tombstone { Digest::NONE } else { crate::base::hash::HashSeed(1).digest(&bytes) }
    }

    impl Replica {
        fn join(&mut self, key: u64, entry: (u64, bool)) {
            let old = self.entries.get(&key).copied();
            let new = old.map_or(entry, |old| old.max(entry));
            self.entries.insert(key, new);
            let old = old.map_or(Digest::NONE, |old| digest(key, old));
            self.tree.replace(key, old, digest(key, new));
        }

        fn of(&self, set: BucketSet) -> Vec<(u64, (u64, bool))> {
            let inside = |key: u64| set.contains(bucket_of(key));
            self.entries.iter().filter(|(key, _)| inside(**key)).map(|(k, e)| (*k, *e)).collect()
        }
    }

    enum Frame {
        Say(Vec<u8>),
        Put(u64, (u64, bool)),
    }

    /// Carries out one side's effects; whether the exchange ended.
    fn carry(effects: Vec<Effect>, side: &Replica, wire: &mut VecDeque<Frame>) -> Option<u16> {
        let mut done = None;
        for effect in effects {
            match effect {
                Effect::Send(message) => {
                    let mut bytes = Vec::new();
                    message.encode(&mut bytes);
                    wire.push_back(Frame::Say(bytes));
                }
                Effect::SendEntriesOf(set) => {
                    wire.extend(
                        side.of(set).into_iter().map(|(key, entry)| Frame::Put(key, entry)),
                    );
                }
                Effect::Done { buckets } => done = Some(buckets),
                Effect::GivenUp => panic!("nothing was lost"),
            }
        }
        done
    }

    /// Runs an exchange to its end; the number of buckets asked for.
    fn run(ours: &mut Replica, theirs: &mut Replica, scope: Scope) -> u16 {
        let (mut there, mut back) = (VecDeque::new(), VecDeque::new());
        let mut out = Vec::new();
        let mut exchange = Exchange::start(9, scope, &ours.tree, &mut out);
        let mut done = carry(out, ours, &mut there);
        loop {
            while let Some(frame) = there.pop_front() {
                let mut out = Vec::new();
                match frame {
                    Frame::Say(bytes) => {
                        let message = Message::decode(&bytes).unwrap();
                        assert!(responds_to(&message));
                        respond(&message, &theirs.tree, &mut out);
                    }
                    Frame::Put(key, entry) => theirs.join(key, entry),
                }
                carry(out, theirs, &mut back);
            }
            if let Some(buckets) = done {
                assert!(exchange.is_over() && back.is_empty());
                return buckets;
            }
            while let Some(frame) = back.pop_front() {
                let mut out = Vec::new();
                match frame {
                    Frame::Say(bytes) => {
                        let message = Message::decode(&bytes).unwrap();
                        assert!(!responds_to(&message));
                        exchange.on_message(&message, &ours.tree, &mut out);
                        if out.iter().any(|effect| matches!(effect, Effect::SendEntriesOf(_))) {
                            exchange.on_entries_sent(&mut out);
                        }
                    }
                    Frame::Put(key, entry) => ours.join(key, entry),
                }
                done = carry(out, ours, &mut there).or(done);
            }
        }
    }

    fn replica() -> impl Strategy<Value = Replica> {
        let key = (0u64..5, 0u64..3).prop_map(|(bucket, key)| bucket << 56 | key);
        let entry = (0u64..4, prop::bool::weighted(0.3));
        prop::collection::vec((key, entry), 0..12).prop_map(|all| {
            let mut replica = Replica::default();
            all.into_iter().for_each(|(key, entry)| replica.join(key, entry));
            replica
        })
    }

    proptest! {
        #[test]
        fn afterwards_both_hold_the_join(mut a in replica(), mut b in replica()) {
            let mut joined = a.clone();
            b.entries.iter().for_each(|(key, entry)| joined.join(*key, *entry));
            let differing = a.tree.differing(b.tree.buckets());
            let asked = run(&mut a, &mut b, Scope::Differing);
            prop_assert_eq!(asked, differing.len());
            prop_assert_eq!(a.tree.root(), b.tree.root());
            prop_assert_eq!(&a.tree, &joined.tree);
            // Where they differed, tombstones came along.
            prop_assert_eq!(a.of(differing), joined.of(differing));
            prop_assert_eq!(b.of(differing), joined.of(differing));
        }

        #[test]
        fn a_whole_exchange_brings_every_tombstone(mut a in replica(), mut b in replica()) {
            let mut joined = a.clone();
            b.entries.iter().for_each(|(key, entry)| joined.join(*key, *entry));
            prop_assert_eq!(run(&mut a, &mut b, Scope::Whole), 256);
            prop_assert_eq!(a, joined);
        }

        #[test]
        fn garbage_is_refused(bytes: Vec<u8>) {
            if let Ok(message) = Message::decode(&bytes) {
                let mut again = Vec::new();
                message.encode(&mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }

    fn every_body() -> Vec<Body> {
        let mut buckets = Box::new([Digest::NONE; BUCKETS]);
        buckets[255] = Digest(7);
        let mut set = BucketSet::NONE;
        set.insert(64);
        vec![
            Body::Root { scope: Scope::Whole, root: Digest(0x0102) },
            Body::Root { scope: Scope::Differing, root: Digest(u128::MAX) },
            Body::Same,
            Body::Buckets(buckets),
            Body::Want(set),
            Body::End,
        ]
    }

    #[test]
    fn what_is_encoded_is_decoded_and_no_part_of_it_is() {
        for body in every_body() {
            let message = Message { exchange: 0xDEAD_BEEF, body };
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            assert_eq!(Message::decode(&bytes), Ok(message));
            for cut in 0..bytes.len() {
                assert_eq!(Message::decode(&bytes[..cut]), Err(WireError::Truncated));
            }
            bytes.push(0);
            assert!(Message::decode(&bytes).is_err());
        }
    }

    #[test]
    fn the_bytes_are_frozen() {
        let mut bytes = Vec::new();
        let root = Body::Root { scope: Scope::Whole, root: Digest(0x0102) };
        Message { exchange: 3, body: root }.encode(&mut bytes);
        let mut frozen = vec![1, 3, 0, 0, 0, 1, 2, 1];
        frozen.resize(22, 0);
        assert_eq!(bytes, frozen);
        assert!(Message::decode(&[1, 3, 0, 0, 0, 2]).is_err());
        assert_eq!(
            Message::decode(&[6, 0, 0, 0, 0]),
            Err(WireError::Malformed("exchange message"))
        );
    }

    #[test]
    fn late_double_and_foreign_messages_change_nothing() {
        let tree = Tree::new();
        let mut out = Vec::new();
        let mut exchange = Exchange::start(2, Scope::Differing, &tree, &mut out);
        out.clear();
        let say = |number, body| Message { exchange: number, body };
        exchange.on_message(&say(1, Body::Same), &tree, &mut out);
        exchange.on_message(&say(2, Body::End), &tree, &mut out);
        exchange.on_message(&say(2, Body::Want(BucketSet::ALL)), &tree, &mut out);
        exchange.on_entries_sent(&mut out);
        assert!(out.is_empty() && !exchange.is_over());
        exchange.on_message(&say(2, Body::Same), &tree, &mut out);
        exchange.on_message(&say(2, Body::Same), &tree, &mut out);
        exchange.on_lost(&mut out);
        assert_eq!(out, [Effect::Done { buckets: 0 }]);
        respond(&say(2, Body::End), &tree, &mut out);
        assert_eq!(out.len(), 1);
    }

    #[test]
    fn a_broken_link_gives_it_up_once() {
        let mut out = Vec::new();
        let mut exchange = Exchange::start(2, Scope::Whole, &Tree::new(), &mut out);
        exchange.on_lost(&mut out);
        exchange.on_deadline(&mut out);
        assert_eq!(out.len(), 2);
        assert_eq!(out[1], Effect::GivenUp);
    }
}
