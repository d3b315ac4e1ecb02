//! Large collections that are compared in parts in the course of an exchange.
//!
//! The machine ([`crate::anti_entropy::parts`]) decides which ranges are compared and sent. Each look
//! at the entry takes the vnode's lock for one range. What a part claims to know is the context that
//! was read before the first range was summed up: see [`crate::value::part`].

use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::BytesMut;

use crate::anti_entropy::message::{Body, Message};
use crate::anti_entropy::parts::{Next, Parts, Piece, Word};
use crate::anti_entropy::tree::fold;
use crate::base::id::VnodeId;
use crate::base::limits::PART_RANGES_MAX;
use crate::base::wire::{Cursor, WireError};
use crate::peer::message::{Message as Frame, PUT_UNASKED};
use crate::value::part::Part;
use crate::value::record::encode_part;
use crate::value::view::Kind;
use crate::version::context::Context;

use super::Node;
use super::exchange::Walk;

/// Elements that are summed up under one lock; a leaf more or less.
const SUMMED_AT_ONCE: usize = 4096;

fn bytes_of(context: &Context) -> Vec<u8> {
    let mut bytes = Vec::new();
    context.encode(&mut bytes);
    bytes
}

fn context_of(bytes: &[u8]) -> Result<Context, WireError> {
    let mut cursor = Cursor::new(bytes);
    let context = Context::decode(&mut cursor)?;
    cursor.end()?;
    Ok(context)
}

impl Node {
    /// Begins to compare an entry of one of this side's exchanges in parts.
    pub(super) async fn compare_parts(
        self: &Arc<Node>,
        walk: &mut Walk,
        vnode: VnodeId,
        begun: Option<u32>,
        hash: u64,
    ) {
        let held = self.keyspace.read(vnode, super::now(), |keys| {
            let (_, entry) = keys.in_parts(hash)?;
            let (kind, len) = entry.only_large()?;
            Some((kind, len, bytes_of(entry.context())))
        });
        let next = match held {
            None => Next::All,
            Some((kind, len, known)) => {
                let (parts, next) = Parts::start(hash, Part::code_of(kind), known, len);
                let Some(active) = walk.active(begun) else { return };
                active.parts = Some(parts);
                next
            }
        };
        self.go_on_with_parts(walk, vnode, begun, hash, next).await;
    }

    async fn go_on_with_parts(
        self: &Arc<Node>,
        walk: &mut Walk,
        vnode: VnodeId,
        begun: Option<u32>,
        hash: u64,
        next: Next,
    ) {
        let Some(exchange) = begun else { return };
        let parts = walk.active(begun).and_then(|active| active.parts.clone());
        let kind = parts.as_ref().and_then(|parts| Part::kind_of(parts.kind));
        let word = match (next, parts, kind) {
            (Next::Nothing, ..) => return,
            (Next::Cut(ranges, per), Some(_), Some(kind)) => {
                let pieces = self.cut_parts(vnode, hash, kind, ranges, per).await;
                let parts = walk.active(begun).and_then(|active| active.parts.as_mut());
                parts.zip(pieces).and_then(|(parts, pieces)| parts.on_cut(pieces))
            }
            (Next::Exchange(ranges), Some(parts), Some(kind)) => {
                let (known, base) = (parts.known, parts.theirs.unwrap_or_default());
                match self.send_part(walk, vnode, hash, kind, &ranges, (&known, &base)).await {
                    Ok(true) => {
                        Some(Word::Wanted { kind: parts.kind, known: base, base: known, ranges })
                    }
                    Ok(false) => None,
                    Err(()) => return self.lose_exchange(walk, begun),
                }
            }
            _ => None,
        };
        let word = match word {
            Some(word) => word,
            None => {
                if !self.send_entries(walk, vnode, &[hash]).await {
                    return self.lose_exchange(walk, begun);
                }
                Word::AllWanted
            }
        };
        self.say(walk, vnode, &Message { exchange, body: Body::Part(hash, word) });
        walk.sent = self.exchanges.now();
    }

    /// Without what could not be sent the exchange would not be what it claims; it begins anew.
    fn lose_exchange(&self, walk: &mut Walk, begun: Option<u32>) {
        walk.abandon(begun);
    }

    /// The other side says this of a large entry.
    pub(super) async fn read_part(
        self: &Arc<Node>,
        walk: &mut Walk,
        vnode: VnodeId,
        exchange: u32,
        hash: u64,
        word: &Word,
    ) {
        if word.is_question() {
            if let Some(word) = self.answer_part(walk, vnode, hash, word).await {
                let message = Message { exchange, body: Body::Part(hash, word) };
                self.say(walk, vnode, &message);
                walk.sent = self.exchanges.now();
            }
            return;
        }
        let begun = Some(exchange);
        let Some(active) = walk.active(begun).filter(|active| active.vnode == vnode) else {
            return;
        };
        match word {
            Word::Differ { context, pieces } => {
                let parts = active.parts.as_mut().filter(|parts| parts.hash == hash);
                let Some(parts) = parts else { return };
                let next = parts.on_differ(context, pieces);
                self.go_on_with_parts(walk, vnode, begun, hash, next).await;
            }
            Word::AllSent if active.parts.is_some() => {
                if !self.send_entries(walk, vnode, &[hash]).await {
                    return self.lose_exchange(walk, begun);
                }
                self.parts_are_through(walk, vnode, begun);
            }
            Word::Sent | Word::AllSent => self.parts_are_through(walk, vnode, begun),
            _ => {}
        }
    }

    fn parts_are_through(self: &Arc<Node>, walk: &mut Walk, vnode: VnodeId, begun: Option<u32>) {
        let mut effects = Vec::new();
        if let Some(active) = walk.active(begun) {
            active.parts = None;
            active.exchange.on_entries_sent(&mut effects);
        }
        self.carry_out_exchange(walk, vnode, begun, effects);
    }

    /// What this side, which keeps no state, answers; `None`: nothing, and the other side begins anew
    /// some time.
    async fn answer_part(
        &self,
        walk: &mut Walk,
        vnode: VnodeId,
        hash: u64,
        word: &Word,
    ) -> Option<Word> {
        match word {
            Word::Sums { kind, pieces } => {
                let answer = match Part::kind_of(*kind) {
                    Some(kind) => self.compare_pieces(vnode, hash, kind, pieces).await,
                    None => None,
                };
                if answer.is_some() {
                    return answer;
                }
            }
            Word::Wanted { kind, known, base, ranges } => {
                if let Some(kind) = Part::kind_of(*kind)
                    && self.send_part(walk, vnode, hash, kind, ranges, (known, base)).await.ok()?
                {
                    return Some(Word::Sent);
                }
            }
            _ => {}
        }
        let sent = self.send_entries(walk, vnode, &[hash]).await;
        let answer = if matches!(word, Word::Sums { .. }) { Word::AllSent } else { Word::Sent };
        sent.then_some(answer)
    }

    /// Which of the other side's pieces differ here; `None` if the entry is not compared in parts.
    async fn compare_pieces(
        &self,
        vnode: VnodeId,
        hash: u64,
        kind: Kind,
        pieces: &[Piece],
    ) -> Option<Word> {
        // Before the first range is summed up.
        let context = self.keyspace.read(vnode, super::now(), |keys| {
            let (_, entry) = keys.in_parts(hash)?;
            (entry.only_large()?.0 == kind).then(|| bytes_of(entry.context()))
        })?;
        let (mut differ, mut summed) = (Vec::with_capacity(pieces.len()), 0);
        for piece in pieces {
            let ours = self.cut_parts(vnode, hash, kind, vec![piece.range.clone()], SUMMED_AT_ONCE);
            let (mut sum, mut count) = (0u64, 0);
            for ours in ours.await? {
                sum = sum.wrapping_add(ours.sum);
                count += ours.count;
            }
            differ.push(sum != piece.sum);
            summed += count;
            if summed >= SUMMED_AT_ONCE {
                summed = 0;
                tokio::task::yield_now().await;
            }
        }
        Some(Word::Differ { context, pieces: differ })
    }

    /// Cuts ranges into pieces of about `per` elements and sums them up, each under a lock of its own;
    /// `None` if they are too many, or the entry is not compared in parts any more.
    async fn cut_parts(
        &self,
        vnode: VnodeId,
        hash: u64,
        kind: Kind,
        ranges: Vec<RangeInclusive<u64>>,
        per: usize,
    ) -> Option<Vec<Piece>> {
        let seed = self.keyspace.seed();
        let (mut pieces, mut summed) = (Vec::new(), 0);
        for range in ranges {
            let mut from = Some(*range.start());
            while let Some(start) = from {
                let rest = start..=*range.end();
                let reach = self.keyspace.read(vnode, super::now(), |keys| {
                    let (_, entry) = keys.in_parts(hash)?;
                    Some(entry.reach((seed, hash), kind, &rest, per))
                })?;
                let end = reach.next.map_or(*rest.end(), |next| next - 1);
                from = reach.next;
                pieces.push(Piece { range: start..=end, sum: fold(reach.sum), count: reach.count });
                if pieces.len() > PART_RANGES_MAX {
                    return None;
                }
                summed += reach.count;
                if summed >= SUMMED_AT_ONCE {
                    summed = 0;
                    tokio::task::yield_now().await;
                }
            }
        }
        Some(pieces)
    }

    /// Sends what is held of some ranges; whether it could be told in parts.
    ///
    /// # Errors
    /// It could not be sent.
    async fn send_part(
        &self,
        walk: &Walk,
        vnode: VnodeId,
        hash: u64,
        kind: Kind,
        ranges: &[RangeInclusive<u64>],
        (known, base): (&[u8], &[u8]),
    ) -> Result<bool, ()> {
        let (Ok(known), Ok(base)) = (context_of(known), context_of(base)) else {
            return Ok(false);
        };
        let mut batch = self.batch();
        let record = self.keyspace.read(vnode, super::now(), |keys| {
            let (key, entry) = keys.in_parts(hash)?;
            let mut record = Vec::new();
            encode_part(&mut record, key, &entry.part(kind, ranges.to_vec(), &known, base));
            Some(record)
        });
        self.note(&mut batch, vnode);
        self.conclude(&mut batch).await.map_err(|_| ())?;
        let Some(record) = record else { return Ok(false) };
        let mut frame = BytesMut::new();
        Frame::Put { id: PUT_UNASKED, vnode, record: &record }.encode(&mut frame);
        self.metrics.exchange_entries_sent.add(1);
        self.metrics.exchange_bytes_sent.add(frame.len() as u64);
        self.exchanges.budget.lock().spend(frame.len());
        walk.link.append(&frame, 0).map_err(|_| ())?;
        Ok(true)
    }
}
