//! One exchange: two replicas compare what they hold of one vnode and send each other what differs.
//!
//! Invariant: when an exchange is done, each side has been sent every entry in which they differed
//! when it began (by the digest that its scope compares), as far as the other held one. A tombstone
//! is in no digest of what is alive, but it travels when the key lives on the other side, or the
//! removed value would come back. Entries are joined, so sending too much or twice is harmless, and
//! so is giving an exchange up half-way.
//!
//! ```text
//!   initiator                                   responder (keeps no state)
//!      │ Root { scope, root } ─────────────────────► │
//!      │ ◄──────────────────────────────────── Same  │   done
//!      │ ◄───────────────────────────────── Buckets  │
//!   ┌► │ Keys of buckets that differ, a piece ─────► │ compares them with its own
//!   │  │ ◄───────── (Put) its entries that differ    │
//!   │  │ ◄──────────────────── Differ { upto, … }    │
//!   │  │ entries that differ (Put) ────────────────► │
//!   └──┴ the next piece, behind `upto`               │
//!      │ Over ─────────────────────────────────────► │   done when none is left
//! ```
//!
//! **Large collections.** One that both hold is not sent by the responder: it says so (`Left`) before
//! it says what differs. The initiator compares it in parts behind everything else of the piece
//! ([`Effect::Compare`], see `parts`).
//!
//! Entries themselves travel as ordinary `Put` frames with their own flow control; the shell sends
//! a message behind the entries that it was told to send before. (Dynamo §4.7.)
//!
//! **Pieces.** A list has at most [`KEYS_MAX`] keys. The initiator's ends where it has so many, the
//! responder compares as far as both lists go and says how far that is. So both hold one list at a
//! time, however many keys a bucket has, and whichever side has more of them.
//!
//! **Whole scope.** A node that may have forgotten acknowledged writes may also have forgotten
//! *removals*, and no digest of what is alive shows that. If it then counted in a quorum together
//! with a replica that missed the removal, a read would return what was deleted. So a recovering
//! node compares digests of states: roots, buckets and keys are summed up over everything held,
//! with its history. (These trees are not kept; both sides work them out when they are asked for.)
//!
//! **Look scope.** Nothing is sent; timestamps travel with the keys and tell who is behind.
//!
//! **Two at once.** Both sides may begin with the same vnode; then everything would be sent twice.
//! The shell of one of them answers [`Body::Busy`], and the other side's exchange serves both: when
//! the responder hears `Over`, it has been sent everything that differed when it answered the root.
//!
//! Every message names the exchange that the initiator gave a number, so an answer to one that was
//! given up is not taken for an answer to the next.

use crate::base::time::Hlc;

use super::keys::{KEYS_MAX, Key, KeyList, Span};
use super::message::{Body, Lacks, Message, Scope};
use super::tree::Tree;

const _: () = assert!(KEYS_MAX <= 1 << 16, "a list fits a frame beside others");

/// What an exchange found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// Buckets that differed; 0 when the roots were the same.
    pub buckets: u16,
    /// Keys that differed; who lacks what is known only to a look.
    pub lacks: Lacks,
}

/// What an exchange asks of the shell, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Send this to the other side, behind everything sent before it.
    Send(Message),
    /// List what this side holds of a span, tombstones too: [`KEYS_MAX`] keys, or as far as it is.
    /// The initiator is told by [`Exchange::on_keys`].
    List {
        /// What is compared: which digests to list.
        scope: Scope,
        /// Where; the list begins there and may end earlier.
        span: Span,
    },
    /// Send whatever is held of the keys with these hashes, tombstones too. The initiator's shell
    /// tells when the last is sent ([`Exchange::on_entries_sent`]).
    SendEntries(Vec<u64>),
    /// Compare the entry with this hash in parts, and send each other what differs; or all, if one of
    /// the two is not large. Then tell ([`Exchange::on_entries_sent`]).
    Compare(u64),
    /// The exchange is through.
    Done(Outcome),
    /// It was given up. What had been sent is joined and stays.
    GivenUp,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Phase {
    AwaitsBuckets,
    /// Waits for this side's keys of the span.
    Listing(Span),
    /// Waits for word of the keys that it listed, which are the front of the span.
    Comparing(Span),
    /// Waits for entries to be sent; then goes on with the span.
    Sending(Option<Span>),
    Over,
}

/// The initiator's side of one exchange.
#[derive(Clone, Debug)]
pub struct Exchange {
    number: u32,
    scope: Scope,
    phase: Phase,
    outcome: Outcome,
    /// What this side held of the keys being compared. What the other side sends of the rest is
    /// not sent back.
    list: Option<KeyList>,
    /// Large keys of the piece that the responder has not sent.
    left: Vec<u64>,
    /// Whether the responder waits for the end.
    is_awaited: bool,
}

impl Exchange {
    /// Begins an exchange. `number` tells it from earlier ones with the same peer; `tree` is ours,
    /// of what `scope` compares.
    pub fn start(number: u32, scope: Scope, tree: &Tree, out: &mut Vec<Effect>) -> Exchange {
        let (phase, outcome) = (Phase::AwaitsBuckets, Outcome::default());
        let exchange = Exchange {
            number,
            scope,
            phase,
            outcome,
            list: None,
            left: Vec::new(),
            is_awaited: false,
        };
        exchange.send(Body::Root { scope, root: tree.root() }, out);
        exchange
    }

    /// The responder said this; `tree` is ours as it is now, or was at the start. What does not fit
    /// is ignored.
    pub fn on_message(&mut self, message: &Message, tree: &Tree, out: &mut Vec<Effect>) {
        if message.exchange != self.number {
            return;
        }
        match (&self.phase, &message.body) {
            (Phase::AwaitsBuckets, Body::Same) => self.finish(out),
            (Phase::AwaitsBuckets, Body::Busy) => self.on_lost(out),
            (Phase::AwaitsBuckets, Body::Buckets(theirs)) => {
                self.is_awaited = true;
                let buckets = tree.differing(theirs);
                self.outcome.buckets = buckets.len();
                let first = Span::of(buckets);
                // None may be left: they became the same while the question was under way.
                self.go_on((!buckets.is_empty()).then_some(first), out);
            }
            (Phase::Comparing(_), Body::Left(hashes)) if self.scope != Scope::Look => {
                self.left.clone_from(hashes);
            }
            (Phase::Comparing(span), Body::Differ { upto, hashes })
                if self.is_within(*upto) && self.scope != Scope::Look =>
            {
                let rest = span.behind(*upto);
                self.outcome.lacks.keys += hashes.len() as u32;
                let mut held = self.list.take().map_or(Vec::new(), |list| list.among(hashes));
                held.retain(|hash| !self.left.contains(hash));
                self.left.retain(|hash| hashes.contains(hash));
                self.phase = Phase::Sending(rest);
                if held.is_empty() {
                    return self.on_entries_sent(out);
                }
                out.push(Effect::SendEntries(held));
            }
            (Phase::Comparing(span), Body::Looked { upto, lacks })
                if self.is_within(*upto) && self.scope == Scope::Look =>
            {
                let rest = span.behind(*upto);
                self.outcome.lacks.add(lacks);
                self.go_on(rest, out);
            }
            _ => {}
        }
    }

    /// The keys that [`Effect::List`] asked for.
    pub fn on_keys(&mut self, list: KeyList, out: &mut Vec<Effect>) {
        if let Phase::Listing(span) = self.phase.clone()
            && list.span().from == span.from
        {
            self.phase = Phase::Comparing(span);
            self.list = Some(list.clone());
            self.send(Body::Keys { scope: self.scope, list }, out);
        }
    }

    /// The entries that [`Effect::SendEntries`] asked for are sent, or the one of
    /// [`Effect::Compare`] is compared.
    pub fn on_entries_sent(&mut self, out: &mut Vec<Effect>) {
        if let Phase::Sending(rest) = self.phase.clone() {
            match self.left.pop() {
                Some(hash) => out.push(Effect::Compare(hash)),
                None => self.go_on(rest, out),
            }
        }
    }

    /// The link broke.
    pub fn on_lost(&mut self, out: &mut Vec<Effect>) {
        if !self.is_over() {
            self.phase = Phase::Over;
            out.push(Effect::GivenUp);
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

    /// The number that tells it from others with the same peer.
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// What is compared.
    pub const fn scope(&self) -> Scope {
        self.scope
    }

    /// Whether the keys that were listed go as far as `upto`.
    fn is_within(&self, upto: u64) -> bool {
        let span = self.list.as_ref().map(KeyList::span);
        span.is_some_and(|span| (span.from..=span.upto).contains(&upto))
    }

    fn go_on(&mut self, rest: Option<Span>, out: &mut Vec<Effect>) {
        match rest {
            Some(span) => {
                self.phase = Phase::Listing(span);
                out.push(Effect::List { scope: self.scope, span });
            }
            None => self.finish(out),
        }
    }

    fn send(&self, body: Body, out: &mut Vec<Effect>) {
        out.push(Effect::Send(Message { exchange: self.number, body }));
    }

    fn finish(&mut self, out: &mut Vec<Effect>) {
        self.phase = Phase::Over;
        // Who answered the root by `Same` has nothing to wait for.
        if self.is_awaited && self.scope != Scope::Look {
            self.send(Body::Over, out);
        }
        out.push(Effect::Done(self.outcome));
    }
}

/// What the responder must gather before it can answer a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Needs {
    /// The tree of what the scope compares, for [`respond`].
    Tree(Scope),
    /// A list of the keys of the span, as in [`Effect::List`], for [`compare`].
    Keys(Scope, Span),
    /// Nothing: the initiator is through.
    Over,
    /// Nothing: the message is not for the responder.
    Nothing,
}

/// What the responder needs in order to answer `message`.
pub fn needs(message: &Message) -> Needs {
    match &message.body {
        Body::Root { scope, .. } => Needs::Tree(*scope),
        Body::Keys { scope, list } => Needs::Keys(*scope, *list.span()),
        Body::Over => Needs::Over,
        _ => Needs::Nothing,
    }
}

/// The responder's answer to a root. It keeps no state between messages, so an initiator that
/// vanishes leaves nothing behind. Messages that need no tree are ignored.
pub fn respond(message: &Message, tree: &Tree, out: &mut Vec<Effect>) {
    if let Body::Root { root, .. } = message.body {
        let body = if root == tree.root() { Body::Same } else { Body::Buckets(tree.sums()) };
        out.push(Effect::Send(Message { exchange: message.exchange, body }));
    }
}

/// The responder's answer to a list of keys; `ours` begins where that list does.
pub fn compare(message: &Message, ours: &KeyList, out: &mut Vec<Effect>) {
    let Body::Keys { scope, list } = &message.body else { return };
    debug_assert_eq!(ours.span().from, list.span().from, "both lists begin at one hash");
    let mut lacks = Lacks::default();
    let (mut hashes, mut held, mut left) = (Vec::new(), Vec::new(), Vec::new());
    let upto = list.differing(ours, |hash, initiator, responder| {
        let hlc = |key: Option<&Key>| key.map_or(Hlc::ZERO, |key| key.hlc);
        lacks.note(hlc(initiator), hlc(responder));
        hashes.push(hash);
        match initiator {
            Some(_) if ours.is_large(hash) => left.push(hash),
            _ => held.extend(responder.map(|_| hash)),
        }
    });
    let body = if *scope == Scope::Look {
        Body::Looked { upto, lacks }
    } else {
        if !held.is_empty() {
            out.push(Effect::SendEntries(held));
        }
        if !left.is_empty() {
            let body = Body::Left(left);
            out.push(Effect::Send(Message { exchange: message.exchange, body }));
        }
        Body::Differ { upto, hashes }
    };
    out.push(Effect::Send(Message { exchange: message.exchange, body }));
}

#[cfg(test)]
#[path = "exchange_tests.rs"]
mod tests;
