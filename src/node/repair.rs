//! `KV.REPAIR` compares and mends vnodes now; `KV.DIVERGENCE` tells how far replicas are apart.
//!
//! Both are for the whole cluster. Each vnode's part is done by its coordinator, which compares the
//! vnode with every other replica:
//!
//! ```text
//!  asked here ──► a part to each coordinator ──► exchanges with the other replicas
//!                     (its vnodes)                 repair: whole ones, in the background
//!  the whole  ◄── numbers, which add up     ◄──    divergence: looks, waited for
//! ```
//!
//! Invariant: a look is told of exactly once, by its end or by the end of its link, so that who
//! waits for a divergence is answered.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::anti_entropy::exchange::Outcome;
use crate::base::id::{NodeId, VnodeId};
use crate::base::time::{Hlc, UnixMs};
use crate::peer::message::FwdStatus;
use crate::resp::reply::{Protocol, Reply};

use super::Node;
use super::batch::{Batch, Origin, PeerIndex};
use super::execute::{DONE, Outcome as Fate, Request, refuse};
use super::gather::{Gathering, Rule};
use super::replies::ReplyBytes;

/// How long a part of a divergence may take. It walks every vnode of a node.
const LOOK_TIMEOUT_MS: u32 = 60_000;

/// What has become of what an operator asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Repair {
    /// Comparisons that are through.
    pub(super) done: u64,
    /// Comparisons that cannot be done because a link broke.
    pub(super) given_up: u64,
    /// The node's counters when it was asked.
    before: [u64; 5],
}

/// What KV.REPAIR and KV.DIVERGENCE are asked to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wish {
    Repair,
    Progress,
    Divergence,
}

/// A wish, and the one vnode that it is about, if not all.
fn wish(request: &Request<'_>, vnodes: u16) -> Result<(Wish, Option<VnodeId>), String> {
    let repairs = request.spec.name == "kv.repair";
    let wish = if repairs { Wish::Repair } else { Wish::Divergence };
    match request.args[1..] {
        [] => Ok((wish, None)),
        [word] if word.eq_ignore_ascii_case(b"all") => Ok((wish, None)),
        [word] if repairs && word.eq_ignore_ascii_case(b"status") => Ok((Wish::Progress, None)),
        [word] => {
            let number = std::str::from_utf8(word).ok().and_then(|text| text.parse().ok());
            let vnode = number.filter(|&vnode: &u16| vnode < vnodes).ok_or_else(|| {
                format!("ERR there is no such vnode, they are 0 to {}", vnodes - 1)
            })?;
            Ok((wish, Some(VnodeId(vnode))))
        }
        _ => Err("ERR syntax error".to_owned()),
    }
}

/// How the numbers of parts become one reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Columns {
    /// Comparisons begun.
    Begun,
    /// What [`PROGRESS`] names.
    Progress,
    /// Vnodes compared, vnodes that differ, keys that differ, the worst replica, its age in
    /// milliseconds; then every replica that could not be asked.
    Divergence,
}

/// What `KV.REPAIR STATUS` tells.
const PROGRESS: [&str; 8] = [
    "pending",
    "done",
    "given-up",
    "keys-differing",
    "keys-sent",
    "keys-received",
    "bytes-sent",
    "bytes-received",
];

impl Columns {
    const fn wanted(wish: Wish) -> Columns {
        match wish {
            Wish::Repair => Columns::Begun,
            Wish::Progress => Columns::Progress,
            Wish::Divergence => Columns::Divergence,
        }
    }

    /// Writes the whole of these parts.
    pub(super) fn write<'a>(self, parts: impl Iterator<Item = &'a [u8]>, reply: &mut Reply) {
        let parts: Vec<Vec<i64>> = parts.map(numbers).collect();
        let at = |part: &Vec<i64>, column: usize| part.get(column).copied().unwrap_or(0);
        let sum = |column| parts.iter().map(|part| at(part, column)).sum::<i64>();
        match self {
            Columns::Begun => reply.integer(sum(0)),
            Columns::Progress => {
                reply.map(PROGRESS.len());
                for (column, name) in PROGRESS.iter().enumerate() {
                    reply.bulk(name.as_bytes());
                    reply.integer(sum(column));
                }
            }
            Columns::Divergence => {
                let worst = parts.iter().filter(|part| at(part, 3) > 0).max_by_key(|p| at(p, 4));
                let gone = parts.iter().flat_map(|part| part.iter().skip(5));
                let gone: BTreeSet<i64> = gone.copied().collect();
                reply.map(6);
                for (column, name) in
                    ["vnodes-compared", "vnodes-differing", "keys-differing"].iter().enumerate()
                {
                    reply.bulk(name.as_bytes());
                    reply.integer(sum(column));
                }
                reply.bulk(b"worst-replica");
                match worst {
                    Some(part) => reply.bulk(name_of(at(part, 3)).as_bytes()),
                    None => reply.null(),
                }
                reply.bulk(b"stale-ms");
                reply.integer(worst.map_or(0, |part| at(part, 4)));
                reply.bulk(b"unreachable");
                reply.array(gone.len());
                gone.iter().for_each(|node| reply.bulk(name_of(*node).as_bytes()));
            }
        }
    }
}

fn name_of(node: i64) -> String {
    NodeId(u16::try_from(node).unwrap_or(0)).to_string()
}

/// A part's numbers; our own encoder wrote them.
fn numbers(part: &[u8]) -> Vec<i64> {
    let lines = part.split(|&byte| byte == b'\n').skip(1);
    let digits = lines.filter_map(|line| std::str::from_utf8(line.strip_prefix(b":")?).ok());
    digits.filter_map(|text| text.trim_end().parse().ok()).collect()
}

fn part_of(numbers: &[i64]) -> ReplyBytes {
    let mut reply = Reply::new(Protocol::Resp2);
    reply.array(numbers.len());
    numbers.iter().for_each(|&number| reply.integer(number));
    ReplyBytes::from_slice(&reply.bytes)
}

/// One part of a divergence: the looks that it waits for, and what they have found.
#[derive(Debug)]
pub(super) struct Looking(Mutex<Found>);

#[derive(Debug, Default)]
struct Found {
    origin: Option<Origin>,
    left: usize,
    compared: BTreeSet<VnodeId>,
    differing: BTreeSet<VnodeId>,
    keys: u64,
    /// The oldest write that any replica lacks, and that replica.
    worst: Option<(Hlc, NodeId)>,
    unreachable: BTreeSet<NodeId>,
}

impl Found {
    fn note(&mut self, lacking: NodeId, oldest: Option<Hlc>) {
        if let Some(oldest) = oldest {
            let found = (oldest, lacking);
            self.worst = Some(self.worst.map_or(found, |worst| worst.min(found)));
        }
    }

    fn numbers(&self, now: UnixMs) -> Vec<i64> {
        let (node, stale) = self.worst.map_or((0, 0), |(oldest, node)| {
            (i64::from(node.0), now.0.saturating_sub(oldest.ms().0) as i64)
        });
        let (compared, differing) = (self.compared.len() as i64, self.differing.len() as i64);
        let mut numbers = vec![compared, differing, self.keys as i64, node, stale];
        numbers.extend(self.unreachable.iter().map(|node| i64::from(node.0)));
        numbers
    }
}

impl Node {
    /// How long a peer may take for a part of this request, in milliseconds.
    pub(super) fn patience_ms(&self, request: &Request<'_>) -> u32 {
        match request.spec.name {
            "kv.divergence" => self.options.request_timeout_ms.max(LOOK_TIMEOUT_MS),
            _ => self.options.request_timeout_ms,
        }
    }

    /// Runs KV.REPAIR or KV.DIVERGENCE.
    pub(super) fn execute_repair(
        &self,
        batch: &mut Batch,
        request: &Request<'_>,
        out: &mut Reply,
        origin: impl FnOnce() -> Origin,
    ) -> Fate {
        let (wish, one) = match wish(request, self.routes.vnodes()) {
            Ok(wish) => wish,
            Err(why) => return refuse(out, why),
        };
        let mut parts: Vec<(PeerIndex, Vec<VnodeId>)> = Vec::new();
        let mut alone = Found::default();
        let all = (0..self.routes.vnodes()).map(VnodeId);
        for vnode in all.filter(|vnode| one.is_none_or(|one| one == *vnode)) {
            let Some(peer) = self.routes.standing(vnode).coordinator else {
                let replicas = self.routes.replicas(vnode).iter();
                alone.unreachable.extend(replicas.map(|&peer| self.routes.node(peer)));
                continue;
            };
            match parts.iter_mut().find(|(at, _)| *at == peer) {
                Some((_, vnodes)) => vnodes.push(vnode),
                None => parts.push((peer, vec![vnode])),
            }
        }
        let rule = Rule::Columns(Columns::wanted(wish));
        // One part more: of the vnodes that nobody coordinates.
        let whole = Gathering::new(rule, request.protocol, false, parts.len() + 1, origin());
        let whole = Arc::new(whole);
        let nobody = match wish {
            Wish::Divergence => part_of(&alone.numbers(batch.now)),
            _ => part_of(&[]),
        };
        let of = |index| Origin::Part { gathering: whole.clone(), index };
        batch.settle(of(parts.len()), FwdStatus::Ok, nobody);
        for (index, (peer, vnodes)) in parts.iter().enumerate() {
            let mut part = Reply::new(Protocol::Resp2);
            let fate = if *peer == self.routes.me() {
                self.repair_part(batch, request, vnodes, &mut part, || of(index))
            } else {
                self.ask_vnodes(batch, request, *peer, vnodes, || of(index))
            };
            if let Fate::Replied(status) = fate {
                batch.settle(of(index), status, ReplyBytes::from_slice(&part.bytes));
            }
        }
        Fate::Pending
    }

    /// The part of this node, which coordinates `vnodes`.
    pub(super) fn repair_part(
        &self,
        batch: &mut Batch,
        request: &Request<'_>,
        vnodes: &[VnodeId],
        out: &mut Reply,
        origin: impl FnOnce() -> Origin,
    ) -> Fate {
        let numbers = match wish(request, self.routes.vnodes()) {
            Ok((Wish::Repair, _)) => vec![self.ask_for_repair(vnodes) as i64],
            Ok((Wish::Progress, _)) => self.progress(),
            Ok((Wish::Divergence, _)) => match self.look_over(batch, vnodes, origin) {
                Some(numbers) => numbers,
                None => return Fate::Pending,
            },
            Err(why) => return refuse(out, why),
        };
        out.bytes.extend_from_slice(&part_of(&numbers));
        DONE
    }

    /// Begins to compare `vnodes` with all their replicas in reach. Returns how many comparisons
    /// that makes.
    fn ask_for_repair(&self, vnodes: &[VnodeId]) -> usize {
        let mut schedule = self.exchanges.schedule.lock();
        if schedule.asked_left() == 0 {
            *self.exchanges.repair.lock() =
                Repair { before: self.exchange_counts(), ..Repair::default() };
        }
        let mut asked = 0;
        for (vnode, peer) in self.pairs(vnodes).filter(|&(_, peer)| self.is_linked(peer)) {
            asked += schedule.ask(self.routes.node(peer), vnode);
        }
        drop(schedule);
        self.peers.iter().for_each(|peer| peer.exchange.wake());
        asked
    }

    fn progress(&self) -> Vec<i64> {
        let left = self.exchanges.schedule.lock().asked_left();
        let repair = *self.exchanges.repair.lock();
        let mut numbers = vec![left as i64, repair.done as i64, repair.given_up as i64];
        let counts = self.exchange_counts().into_iter().zip(repair.before);
        numbers.extend(counts.map(|(now, before)| now.saturating_sub(before) as i64));
        numbers
    }

    fn exchange_counts(&self) -> [u64; 5] {
        let metrics = &self.metrics;
        [
            &metrics.exchange_keys_differing,
            &metrics.exchange_entries_sent,
            &metrics.exchange_entries_received,
            &metrics.exchange_bytes_sent,
            &metrics.exchange_bytes_received,
        ]
        .map(|counter| counter.value())
    }

    /// Looks at `vnodes` on all their replicas. What is found comes to `origin` later, or at once if
    /// there is nobody to ask.
    fn look_over(
        &self,
        batch: &Batch,
        vnodes: &[VnodeId],
        origin: impl FnOnce() -> Origin,
    ) -> Option<Vec<i64>> {
        let mut found = Found::default();
        let mut looks = Vec::new();
        // A vnode with one replica agrees with itself.
        let sole = |vnode: &&VnodeId| self.routes.replicas(**vnode).len() == 1;
        found.compared.extend(vnodes.iter().filter(sole));
        for (vnode, peer) in self.pairs(vnodes) {
            if self.is_linked(peer) {
                looks.push((vnode, peer));
            } else {
                found.unreachable.insert(self.routes.node(peer));
            }
        }
        if looks.is_empty() {
            return Some(found.numbers(batch.now));
        }
        (found.left, found.origin) = (looks.len(), Some(origin()));
        let looking = Arc::new(Looking(Mutex::new(found)));
        for (vnode, peer) in looks {
            self.peers[usize::from(peer)].exchange.look(vnode, looking.clone());
        }
        None
    }

    /// A look has ended: with what was found, or because its link broke.
    pub(super) fn looked(
        self: &Arc<Node>,
        looking: &Looking,
        peer: PeerIndex,
        vnode: VnodeId,
        outcome: Option<&Outcome>,
    ) {
        let peer = self.routes.node(peer);
        let mut found = looking.0.lock();
        found.left -= 1;
        match outcome {
            None => drop(found.unreachable.insert(peer)),
            Some(outcome) => {
                let lacks = &outcome.lacks;
                found.compared.insert(vnode);
                found.keys += u64::from(lacks.keys);
                if lacks.keys > 0 {
                    found.differing.insert(vnode);
                }
                found.note(self.id(), lacks.initiator);
                found.note(peer, lacks.responder);
            }
        }
        if found.left > 0 {
            return;
        }
        let Some(origin) = found.origin.take() else { return };
        let mut batch = self.batch();
        self.begin(&mut batch);
        let numbers = found.numbers(batch.now);
        drop(found);
        batch.settle(origin, FwdStatus::Ok, part_of(&numbers));
        self.conclude_later(batch);
    }

    fn pairs(&self, vnodes: &[VnodeId]) -> impl Iterator<Item = (VnodeId, PeerIndex)> {
        let me = self.routes.me();
        vnodes.iter().flat_map(move |&vnode| {
            let replicas = self.routes.replicas(vnode).iter();
            replicas.filter(move |&&peer| peer != me).map(move |&peer| (vnode, peer))
        })
    }

    fn is_linked(&self, peer: PeerIndex) -> bool {
        self.peers[usize::from(peer)].outbox().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(columns: Columns, parts: &[&[i64]]) -> String {
        let parts: Vec<ReplyBytes> = parts.iter().map(|part| part_of(part)).collect();
        let mut reply = Reply::new(Protocol::Resp2);
        columns.write(parts.iter().map(|part| &part[..]), &mut reply);
        String::from_utf8(reply.bytes.to_vec()).expect("text").replace("\r\n", " ")
    }

    #[test]
    fn numbers_of_parts_add_up() {
        assert_eq!(whole(Columns::Begun, &[&[], &[4], &[38]]), ":42 ");
        let progress = whole(Columns::Progress, &[&[1, 2], &[10, 20, 30]]);
        assert!(progress.starts_with("*16 $7 pending :11 $4 done :22 $8 given-up :30 "));
    }

    #[test]
    fn the_worst_replica_is_the_stalest_of_all_parts() {
        let parts: [&[i64]; 3] = [&[0, 0, 0, 0, 0, 7], &[5, 1, 9, 2, 30, 7, 4], &[6, 2, 3, 3, 80]];
        let told = whole(Columns::Divergence, &parts);
        assert!(told.contains("vnodes-compared :11 ") && told.contains("keys-differing :12 "));
        assert!(told.contains("worst-replica $2 n3 $8 stale-ms :80 "), "{told}");
        assert!(told.ends_with("unreachable *2 $2 n4 $2 n7 "), "{told}");
        let told = whole(Columns::Divergence, &[&[1, 0, 0, 0, 0]]);
        assert!(told.contains("worst-replica $-1 $8 stale-ms :0 "), "{told}");
    }
}
