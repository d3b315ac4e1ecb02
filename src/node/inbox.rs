//! What peers say: changes to join, acknowledgements, requests to run, questions to answer.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::BytesMut;
use smallvec::{SmallVec, smallvec};
use tracing::{debug, error};

use crate::base::id::{Actor, Boot, NodeId, VnodeId};
use crate::command::flags::Flag;
use crate::command::spec::Run;
use crate::command::table::named_by;
use crate::coordinator::contract::Override;
use crate::coordinator::route::Reach;
use crate::membership::lives::Met;
use crate::peer::frame;
use crate::peer::inbox::{Inbox, Settling};
use crate::peer::message::{
    FWD_READONLY, FWD_RESP3, FwdStatus, Message, PUT_EXCHANGED, PUT_UNASKED, Verdict,
};
use crate::peer::outbox::Outbox;
use crate::peer::state::DownReason;
use crate::resp::reply::{Protocol, Reply};
use crate::resp::scanner::{Limits, Scanner};
use crate::storage::vnode_write::Merged;
use crate::value::record::{self, Record};

use super::batch::{Batch, Origin, PeerIndex};
use super::damage::Losses;
use super::execute::{
    FWD_ASKED_R, FWD_ASKED_W, FWD_PART, FWD_STAND_IN, FWD_VNODES, Outcome, Request, refuse,
};
use super::streams::Greeting;
use super::{Node, Reader};

/// The node's side of its links.
#[derive(Debug)]
pub(super) struct NodeInbox(pub(super) Arc<Node>);

/// Messages that are read before the first of them is handled, so that the memory they touch is
/// fetched together.
const LOOK_AHEAD: usize = 16;

/// The key that a message is about, if it is cheap to say.
fn key_of<'a>(message: &Message<'a>) -> Option<&'a [u8]> {
    match *message {
        Message::Rep { record, .. } => record::decode_key(record).ok(),
        Message::Fwd { request, .. } => {
            // `*3\r\n$3\r\nSET\r\n$5\r\nmykey\r\n…`: our own encoder wrote it.
            let mut lines = request.split(|&byte| byte == b'\n').skip(3);
            let length: usize =
                std::str::from_utf8(lines.next()?.get(1..)?).ok()?.trim_end().parse().ok()?;
            lines.next()?.get(..length)
        }
        _ => None,
    }
}

/// A forwarded request's fixed fields.
struct Forward<'a> {
    id: u64,
    flags: u8,
    r: u8,
    w: u8,
    request: &'a [u8],
}

impl Inbox for NodeInbox {
    /// This node's life, and the lives of others that it has met: a peer that does not know the one
    /// met of its own has forgotten it, and whatever else it knew. And up to where this node holds
    /// the peer's stream.
    fn greeting(&self, to: NodeId) -> Vec<u8> {
        self.0.greeting_to(self.0.routes.index(to)).encode()
    }

    fn link_up(
        &self,
        peer: NodeId,
        boot: Boot,
        greeting: &[u8],
        link: &Arc<Outbox>,
    ) -> Result<(), String> {
        let node = &self.0;
        let index = node.routes.index(peer).ok_or("not a member")?;
        let greeting = Greeting::decode(greeting).map_err(|error| error.to_string())?;
        let at = &node.peers[usize::from(index)];
        let _one = node.coming_up.lock();
        if let Some(met) = greeting.lives.of(node.id()) {
            node.remember(met).map_err(|error| error.to_string())?;
        }
        if at.told_start.load(Ordering::Acquire) != node.life.own().start {
            return Err("this node had lost a life that others remember; it comes again".to_owned());
        }
        *at.reader.lock() = Some(Reader {
            batch: node.batch(),
            scanner: Scanner::new(),
            reply: Reply::default(),
            told_ignoring: node.ignores_changes(),
            must_ack: false,
            greeted: Some((greeting.own, greeting.lives.clone())),
        });
        // A start is one process, and so is a boot; another one may have missed anything.
        let life = u64::from(greeting.own.start) << 16 | u64::from(boot.0);
        node.peer_linked(peer, index, life);
        node.begin_stream(index, &greeting, link);
        let _ = link.send(&Message::Status { body: &node.status() });
        node.metrics.connected_peers.add(1);
        debug!(%peer, boot = boot.0, "a peer is there");
        Ok(())
    }

    fn link_down(&self, peer: NodeId, reason: &DownReason) {
        let node = &self.0;
        let Some(index) = node.routes.index(peer) else { return };
        debug!(%peer, %reason, "a peer is gone");
        node.metrics.connected_peers.sub(1);
        node.metrics.peer_links_lost.bump();
        node.end_stream(index);
        node.end_rounds(index);
        let goodbye = *reason == DownReason::Goodbye;
        node.steer(index, |peer, now| match goodbye {
            true => peer.on_goodbye(now),
            false => peer.on_link_lost(now),
        });
        if node.routes.reach(index) == Reach::Down {
            node.pass_by(index);
        }
        let mut batch = node.batch();
        node.begin(&mut batch);
        node.waits_lost(index);
        node.stream_lost(&mut batch, index);
        node.operations_lost(&mut batch, index);
        node.hints_lost(index);
        node.conclude_later(batch);
    }

    fn messages(&self, peer: NodeId, messages: &mut frame::Batch<'_>) -> Option<Settling> {
        let node = &self.0;
        let index = node.routes.index(peer)?;
        let mut seat = node.peers[usize::from(index)].reader.lock();
        let reader = seat.as_mut()?;
        if !node.meet(reader, index) {
            return None;
        }
        node.begin(&mut reader.batch);
        let mut ahead: SmallVec<[Message<'_>; LOOK_AHEAD]> = SmallVec::new();
        loop {
            ahead.clear();
            ahead.extend(messages.by_ref().take(LOOK_AHEAD));
            if ahead.is_empty() {
                break;
            }
            node.approach(ahead.iter().filter_map(key_of));
            for message in &ahead {
                node.message(reader, index, message);
                node.serve_ready(&mut reader.batch);
            }
        }
        let upto = messages.reps();
        node.metrics.deltas_received.add(messages.heard());
        let keeps = !node.ignores_changes();
        let must_ack = std::mem::take(&mut reader.must_ack) || messages.heard() > 0;
        if must_ack && (keeps || reader.told_ignoring) {
            reader.batch.to(index).send(&Message::RepAck { upto });
        }
        if node.is_held(&reader.batch) {
            if must_ack && keeps {
                node.stream_held(index, upto);
            }
            node.flush(&mut reader.batch);
            return None;
        }
        let mut reader = seat.take()?;
        let node = node.clone();
        Some(Box::pin(async move {
            // Those who wait for what is not held are told by their deadlines.
            match node.conclude(&mut reader.batch).await {
                Ok(()) if must_ack && keeps => node.stream_held(index, upto),
                Ok(()) => {}
                Err(_) => node.stream_not_held(index),
            }
            *node.peers[usize::from(index)].reader.lock() = Some(reader);
        }))
    }

    fn unreachable(&self, peer: NodeId, reason: &DownReason) {
        debug!(%peer, %reason, "cannot reach");
        if let Some(index) = self.0.routes.index(peer)
            && matches!(reason, DownReason::ConnectionRefused)
        {
            self.0.peers[usize::from(index)].met.store(true, Ordering::Release);
            self.0.peer_refused(peer);
        }
    }

    fn gossip(&self, peer: NodeId, body: &[u8]) {
        self.0.gossip_heard(peer, body);
    }

    fn refused(&self, peer: NodeId) {
        self.unreachable(peer, &DownReason::ConnectionRefused);
    }
}

impl Node {
    /// Whether this node counts in nothing, and whether it takes no more hints.
    fn status(&self) -> [u8; 2] {
        [u8::from(!self.counts()), u8::from(self.routes.is_full(self.routes.me()))]
    }

    /// Tells every peer whether this node counts.
    pub(super) fn tell_status(&self) {
        let body = self.status();
        for link in self.peers.iter().filter_map(super::Peer::outbox) {
            let _ = link.send(&Message::Status { body: &body });
        }
    }

    /// A peer has met this node in the life `met`. If this folder knows nothing of it, it was wiped or
    /// replaced by an older one: the node takes a life that nobody has seen, and counts in nothing
    /// until it has recovered. All links begin anew and are told.
    fn remember(&self, met: &Met) -> std::io::Result<()> {
        if !self.life.remind(met)? {
            return Ok(());
        }
        let boot = self.life.boot();
        error!(boot = boot.0, "a peer remembers a life that this folder does not: recovering");
        self.actor.store(Actor::new(self.options.node, boot).0, Ordering::Release);
        if let Some(links) = self.links.get() {
            links.set_boot(boot);
        }
        self.begin_recovery(&Losses::everything());
        for link in self.peers.iter().filter_map(super::Peer::outbox) {
            link.close(DownReason::Aborted);
        }
        Ok(())
    }

    /// The peer speaks, so it has seen what this node knew of its life, and stays: it is met. `false`:
    /// that could not be noted, so nothing it says must be heard.
    fn meet(&self, reader: &mut Reader, peer: PeerIndex) -> bool {
        let Some((life, heard)) = &reader.greeted else { return true };
        let note = || self.life.meet(self.id(), self.routes.node(peer), *life, heard);
        // It may have to be written. The runtime's other tasks go on on another thread meanwhile.
        if let Err(why) = tokio::task::block_in_place(note) {
            error!(%why, "not noted that a peer was met: the link is closed");
            if let Some(link) = self.peers[usize::from(peer)].outbox() {
                link.close(DownReason::Aborted);
            }
            return false;
        }
        reader.greeted = None;
        true
    }

    fn message(&self, reader: &mut Reader, peer: PeerIndex, message: &Message<'_>) {
        let batch = &mut reader.batch;
        match *message {
            Message::Rep { vnode, record } => {
                self.join(batch, vnode, record);
            }
            Message::RepAck { upto } => self.acknowledged(batch, peer, upto),
            Message::Fwd { id, flags, r, w, request, .. } => {
                self.run_forwarded(reader, peer, &Forward { id, flags, r, w, request });
            }
            Message::FwdReply { id, status, reply } => {
                self.forward_answered(batch, id, status, reply);
            }
            Message::FwdEnd { id, ending } => self.forward_ended(batch, peer, id, ending),
            Message::Check { id, vnode, digest, key, .. } => {
                self.answer_check(batch, peer, id, vnode, digest, key);
            }
            Message::CheckReply { id, verdict } => self.check_answered(batch, peer, id, verdict),
            Message::Put { id, vnode, record } => {
                let joined = self.join(batch, vnode, record);
                if id & PUT_EXCHANGED != 0 {
                    self.entry_came(peer, record.len());
                }
                if id != PUT_UNASKED {
                    let ok = joined && self.routes.reach(self.routes.me()).counts();
                    batch.to(peer).send(&Message::PutAck { id, ok });
                }
            }
            Message::PutAck { id, ok } => self.put_answered(batch, peer, id, ok),
            Message::Tree { vnode, body, .. } => self.tree_message(peer, vnode, body),
            Message::Status { body } => {
                let counts = body.first() == Some(&0);
                self.routes.set_full(peer, body.get(1) == Some(&1));
                self.steer(peer, |peer, now| peer.on_status(counts, now));
                self.peers[usize::from(peer)].met.store(true, Ordering::Release);
                if counts {
                    self.peers[usize::from(peer)].exchange.wake();
                }
            }
            Message::Resume { after, gap } => self.stream_resumes(peer, after, gap),
            Message::CaughtUp { .. } => {
                reader.must_ack = true;
                self.stream_caught_up(peer);
            }
            Message::Settled { after } => self.stream_settled(peer, after),
            // The links keep these to themselves.
            Message::Ping { .. }
            | Message::Pong { .. }
            | Message::Gossip { .. }
            | Message::Goodbye => {}
        }
    }

    /// Joins a peer's record; whether this node holds it then. One that cannot be read is a bug or
    /// a broken memory at the other end: it is said and dropped, and the next exchange will show
    /// what is missing.
    fn join(&self, batch: &mut Batch, vnode: VnodeId, bytes: &[u8]) -> bool {
        if self.ignores_changes() {
            return false;
        }
        match record::decode(bytes) {
            Ok((key, record)) if record.verify() && vnode.0 < self.routes.vnodes() => {
                return self.merge(batch, vnode, key, &record, bytes);
            }
            Ok(_) => error!(vnode = vnode.0, "a peer sent a record that does not verify"),
            Err(reason) => error!(vnode = vnode.0, %reason, "a peer sent an unreadable record"),
        }
        false
    }

    /// Joins `record`, whose bytes are `bytes`, into what this node holds of `key`; `false` if what
    /// it changes is on disk and cannot be read.
    pub(super) fn merge(
        &self,
        batch: &mut Batch,
        vnode: VnodeId,
        key: &[u8],
        record: &Record<'_>,
        bytes: &[u8],
    ) -> bool {
        let merged = self.run_waiting(batch, vnode, |batch| {
            let merged =
                self.keyspace.write(vnode, batch.now, |keys| keys.merge(key, record, bytes));
            match merged {
                Merged::Done => Ok(()),
                Merged::Cold => Err(smallvec![key.to_vec()]),
            }
        });
        if self.waiting.any() {
            self.note_changed(batch, [key]);
        }
        if let Err(why) = &merged {
            error!(vnode = vnode.0, %why, "a change was not joined: what it changes is on disk");
        }
        self.note(batch, vnode);
        merged.is_ok()
    }

    /// Appends the record of all that this node holds of `key`; `false` if it never heard of it.
    pub(super) fn record_of(
        &self,
        batch: &mut Batch,
        vnode: VnodeId,
        key: &[u8],
        out: &mut BytesMut,
    ) -> std::io::Result<bool> {
        let held = self.run_waiting(batch, vnode, |batch| {
            self.keyspace.read(vnode, batch.now, |keys| {
                let held = keys.record(key, out);
                let missed = keys.missing();
                if missed.is_empty() { Ok(held) } else { Err(missed) }
            })
        });
        self.note(batch, vnode);
        held
    }

    fn answer_check(
        &self,
        batch: &mut Batch,
        peer: PeerIndex,
        id: u64,
        vnode: VnodeId,
        digest: crate::base::hash::Digest,
        key: &[u8],
    ) {
        let mut held = BytesMut::new();
        let verdict = if !self.routes.reach(self.routes.me()).counts()
            || vnode.0 >= self.routes.vnodes()
        {
            Verdict::NotCounting
        } else {
            self.note(batch, vnode);
            let held_digest = self.keyspace.read(vnode, batch.now, |keys| keys.state_digest(key));
            // What changes between the two looks is no older than what was asked for.
            if held_digest == digest {
                Verdict::Same
            } else if self.record_of(batch, vnode, key, &mut held).is_ok() {
                Verdict::Differs(&held)
            } else {
                Verdict::NotCounting
            }
        };
        batch.to(peer).send(&Message::CheckReply { id, verdict });
    }

    fn run_forwarded(&self, reader: &mut Reader, peer: PeerIndex, forward: &Forward<'_>) {
        self.metrics.forwarded_here.bump();
        let Reader { batch, scanner, reply, .. } = reader;
        reply.bytes.clear();
        reply.protocol =
            if forward.flags & FWD_RESP3 != 0 { Protocol::Resp3 } else { Protocol::Resp2 };
        // The peer checked the request; what cannot be read now is a peer gone mad.
        let limits = Limits::default();
        let outcome = match scanner.scan(forward.request, &limits) {
            Ok(Some(_)) => {
                let mut args: SmallVec<[&[u8]; 8]> = SmallVec::new();
                scanner.arguments().fill(forward.request, &mut args);
                self.run_arguments(batch, peer, forward, &args, reply)
            }
            _ => {
                *scanner = Scanner::new();
                refuse(reply, "ERR a peer forwarded what cannot be read")
            }
        };
        if let Outcome::Replied(status) = outcome {
            let id = forward.id;
            batch.to(peer).send(&Message::FwdReply { id, status, reply: &reply.bytes });
        }
    }

    /// Runs what a peer forwarded. It is never passed on: that peer will ask again, or its client.
    fn run_arguments(
        &self,
        batch: &mut Batch,
        peer: PeerIndex,
        forward: &Forward<'_>,
        args: &[&[u8]],
        reply: &mut Reply,
    ) -> Outcome {
        // A part has fewer arguments than the row wants; its sender checked the whole.
        let spec = match named_by(args) {
            Ok(spec) => spec,
            Err(refusal) => {
                refusal.write(args, reply);
                return Outcome::Replied(FwdStatus::NotRun);
            }
        };
        let asked = Override {
            r: (forward.flags & FWD_ASKED_R != 0).then_some(forward.r),
            w: (forward.flags & FWD_ASKED_W != 0).then_some(forward.w),
        };
        let readonly = forward.flags & FWD_READONLY != 0;
        let request = Request { spec, args, slot: None, protocol: reply.protocol, asked, readonly };
        let origin = || Origin::Peer { peer, id: forward.id };
        if forward.flags & FWD_VNODES != 0 {
            return self.everywhere_part(batch, &request, reply, origin);
        }
        let run = match spec.run {
            Run::Slot(run) => run,
            Run::Each { part, .. } if forward.flags & FWD_PART != 0 => part,
            _ => return refuse(reply, "ERR a peer forwarded what it must run itself"),
        };
        let Some(&key) = request.args.get(request.first_key()) else {
            return refuse(reply, "ERR a peer forwarded a request without a key");
        };
        let vnode = self.vnode_of(key);
        let me = self.routes.me();
        let stands_in = forward.flags & FWD_STAND_IN != 0 && self.may_stand_in(&request);
        let may_run = self.routes.holds(vnode, me) || stands_in;
        if !may_run || !self.routes.reach(me).counts() {
            if spec.flags.has(Flag::Blocking) {
                return Outcome::Replied(FwdStatus::Unserved);
            }
            return refuse(reply, "TRYAGAIN the key's coordinator is changing, nothing was done");
        }
        self.coordinate(batch, &request, vnode, run, reply, origin)
    }
}
