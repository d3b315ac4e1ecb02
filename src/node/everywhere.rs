//! Commands over every vnode of the cluster: DBSIZE, KEYS, SCAN, RANDOMKEY, FLUSHALL, FLUSHDB,
//! and those of [`super::repair`].
//!
//! A node answers for the vnodes it holds and asks peers for the others, so a client sees the
//! whole keyspace through any node. Deletes go through each vnode's coordinator.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::base::id::VnodeId;
use crate::base::wire::{Cursor as Bytes, Put};
use crate::command::glob;
use crate::command::scan::{Cursor, Scan};
use crate::command::spec::Merge;
use crate::coordinator::route::admit;
use crate::coordinator::stand_in::StandIns;
use crate::peer::message::FwdStatus;
use crate::resp::reply::Reply;
use crate::value::change::Change;
use crate::value::view::Views;

use super::Node;
use super::batch::{Batch, Origin, PeerIndex};
use super::execute::{Ask, DONE, FWD_VNODES, Outcome, Request, refuse};
use super::gather::{Gathering, Rule};
use super::replies::ReplyBytes;

/// Positions of a scan within a vnode: the upper 16 bits of a key's hash.
const POSITIONS: u32 = 1 << 16;

/// Blocks that one SCAN looks at, at the least, before it answers with what it has found. Tombstones
/// are no keys, but a look at each takes its time.
const SCAN_LOOKS_MIN: usize = 1 << 15;

/// The same for each key that the client asks for.
const SCAN_LOOKS_EACH: usize = 64;

/// Keys whose histories are brought into memory together before they are deleted.
const DELETES_AT_ONCE: usize = 256;

impl Node {
    pub(super) fn execute_everywhere(
        &self,
        batch: &mut Batch,
        request: &Request<'_>,
        out: &mut Reply,
        origin: impl FnOnce() -> Origin,
    ) -> Outcome {
        if request.spec.name == "scan" {
            return self.scan(batch, request, out, origin);
        }
        if matches!(request.spec.name, "kv.repair" | "kv.divergence") {
            return self.execute_repair(batch, request, out, origin);
        }
        if let Some(refused) = check(request, out) {
            return refused;
        }
        let mut parts: Vec<(PeerIndex, Vec<VnodeId>)> = Vec::new();
        for vnode in (0..self.routes.vnodes()).map(VnodeId) {
            let Some(peer) = self.serves(vnode, request.writes()) else {
                let text = "CLUSTERDOWN some vnodes have no reachable replica, nothing was done";
                return self.cluster_down(out, text);
            };
            match parts.iter_mut().find(|(at, _)| *at == peer) {
                Some((_, vnodes)) => vnodes.push(vnode),
                None => parts.push((peer, vec![vnode])),
            }
        }
        let me = self.routes.me();
        if let [(peer, vnodes)] = &parts[..]
            && *peer == me
        {
            return self.vnodes_here(batch, request, vnodes, out, origin);
        }
        let rule = match request.spec.name {
            "dbsize" => Rule::Merge(Merge::Sum),
            "keys" => Rule::Concat,
            "randomkey" => Rule::Any,
            _ => Rule::Merge(Merge::Ok),
        };
        let (protocol, writes) = (request.protocol, request.writes());
        let whole = Arc::new(Gathering::new(rule, protocol, writes, parts.len(), origin()));
        for (index, (peer, vnodes)) in parts.iter().enumerate() {
            let mut part = Reply::new(protocol);
            let origin = || Origin::Part { gathering: whole.clone(), index };
            let outcome = if *peer == me {
                self.vnodes_here(batch, request, vnodes, &mut part, origin)
            } else {
                self.ask_vnodes(batch, request, *peer, vnodes, origin)
            };
            if let Outcome::Replied(status) = outcome {
                batch.settle(origin(), status, ReplyBytes::from_slice(&part.bytes));
            }
        }
        Outcome::Pending
    }

    /// Who answers for a vnode: its coordinator for a write, for a read this node if it can.
    fn serves(&self, vnode: VnodeId, writes: bool) -> Option<PeerIndex> {
        let me = self.routes.me();
        let here = self.routes.holds(vnode, me) && self.routes.reach(me).counts();
        if here && !writes && !self.unsettled.contains(vnode) {
            return Some(me);
        }
        self.routes.standing(vnode).coordinator
    }

    pub(super) fn ask_vnodes(
        &self,
        batch: &mut Batch,
        request: &Request<'_>,
        peer: PeerIndex,
        vnodes: &[VnodeId],
        origin: impl FnOnce() -> Origin,
    ) -> Outcome {
        let mut list = Vec::new();
        vnodes.iter().for_each(|vnode| list.put_u16(vnode.0));
        let mut args: SmallVec<[&[u8]; 8]> = SmallVec::from_slice(request.args);
        args.push(&list);
        let request = Request { args: &args, ..*request };
        self.forward(batch, &request, peer, FWD_VNODES, origin)
    }

    /// Runs a peer's part: the vnodes are the last argument.
    pub(super) fn everywhere_part(
        &self,
        batch: &mut Batch,
        request: &Request<'_>,
        out: &mut Reply,
        origin: impl FnOnce() -> Origin,
    ) -> Outcome {
        let Some((list, args)) = request.args.split_last() else {
            return refuse(out, "ERR a peer forwarded no vnodes");
        };
        let mut cursor = Bytes::new(list);
        let mut vnodes = Vec::new();
        while let Ok(vnode) = cursor.u16() {
            vnodes.push(VnodeId(vnode));
        }
        let me = self.routes.me();
        let known =
            |vnode: &VnodeId| vnode.0 < self.routes.vnodes() && self.routes.holds(*vnode, me);
        if !vnodes.iter().all(known) || !self.routes.reach(me).counts() {
            return refuse(out, "TRYAGAIN the vnodes' owner is changing, nothing was done");
        }
        let request = Request { args, ..*request };
        if request.spec.name == "scan" {
            return match Scan::parse(args) {
                Ok(scan) => {
                    self.scan_here(batch, &scan, &vnodes, out);
                    DONE
                }
                Err(error) => refuse(out, error.to_string()),
            };
        }
        self.vnodes_here(batch, &request, &vnodes, out, origin)
    }

    fn vnodes_here(
        &self,
        batch: &mut Batch,
        request: &Request<'_>,
        vnodes: &[VnodeId],
        out: &mut Reply,
        origin: impl FnOnce() -> Origin,
    ) -> Outcome {
        match request.spec.name {
            "dbsize" => {
                let live: usize =
                    vnodes.iter().map(|&vnode| self.keyspace.counts(vnode).live).sum();
                out.integer(live as i64);
            }
            "keys" => self.keys(batch, request.args[1], vnodes, out),
            "randomkey" => self.random_key(batch, vnodes, out),
            "kv.repair" | "kv.divergence" => {
                return self.repair_part(batch, request, vnodes, out, origin);
            }
            _ => return self.flush_vnodes(batch, request, vnodes, out, origin),
        }
        DONE
    }

    fn keys(&self, batch: &Batch, pattern: &[u8], vnodes: &[VnodeId], out: &mut Reply) {
        let mut found = Reply::new(out.protocol);
        let mut count = 0;
        for &vnode in vnodes {
            self.keyspace.read(vnode, batch.now, |keys| {
                keys.scan(0..POSITIONS, |key, _| {
                    if glob::matches(pattern, key) {
                        found.bulk(key);
                        count += 1;
                    }
                });
            });
        }
        out.array(count);
        out.bytes.extend_from_slice(&found.bytes);
    }

    /// A key of a vnode drawn by its size, and within it by position.
    fn random_key(&self, batch: &mut Batch, vnodes: &[VnodeId], out: &mut Reply) {
        let sizes: Vec<usize> =
            vnodes.iter().map(|&vnode| self.keyspace.counts(vnode).live).collect();
        let total: usize = sizes.iter().sum();
        if total == 0 {
            return out.null();
        }
        let mut draw = batch.random.usize(..total);
        let first = sizes
            .iter()
            .position(|&size| {
                let here = draw < size;
                draw = draw.saturating_sub(size);
                here
            })
            .unwrap_or(0);
        for step in 0..vnodes.len() {
            let vnode = vnodes[(first + step) % vnodes.len()];
            let mut chosen: Option<Vec<u8>> = None;
            let mut seen = 0;
            self.keyspace.read(vnode, batch.now, |keys| {
                keys.scan(0..POSITIONS, |key, _| {
                    seen += 1;
                    if batch.random.usize(..seen) == 0 {
                        chosen = Some(key.to_vec());
                    }
                });
            });
            if let Some(key) = chosen {
                return out.bulk(&key);
            }
        }
        out.null();
    }

    /// Deletes every key of `vnodes`, which this node coordinates.
    fn flush_vnodes(
        &self,
        batch: &mut Batch,
        request: &Request<'_>,
        vnodes: &[VnodeId],
        out: &mut Reply,
        origin: impl FnOnce() -> Origin,
    ) -> Outcome {
        if let Some(refusal) = self.write_refusal(request.spec.flags, batch.now) {
            return refuse(out, refusal.to_string());
        }
        let replicas = vnodes.iter().map(|&vnode| self.routes.replicas(vnode).len()).max();
        let effective = match self.quorum.effective(request.asked, replicas.unwrap_or(1)) {
            Ok(effective) => effective,
            Err(refusal) => return refuse(out, refusal.to_string()),
        };
        for &vnode in vnodes {
            let counting = self.routes.standing(vnode).counting;
            if let Err(refusal) = admit(counting, effective.w) {
                return refuse(out, refusal.to_string());
            }
        }
        let mut waiting: Vec<(VnodeId, super::batch::Records)> = Vec::new();
        for &vnode in vnodes {
            self.flush_vnode(batch, vnode);
            if !batch.records.ends.is_empty() {
                waiting.push((vnode, std::mem::take(&mut batch.records)));
            }
        }
        if effective.w <= 1 || waiting.is_empty() {
            for (vnode, records) in waiting {
                batch.records = records;
                self.replicate(batch, vnode, &[], None);
            }
            out.ok();
            return DONE;
        }
        let rule = Rule::Merge(Merge::Ok);
        let ask = Ask { effective, stand_ins: StandIns::new() };
        let whole = Gathering::new(rule, request.protocol, true, waiting.len(), origin());
        let whole = Arc::new(whole);
        for (index, (vnode, records)) in waiting.into_iter().enumerate() {
            batch.records = records;
            let origin = Origin::Part { gathering: whole.clone(), index };
            let ok: ReplyBytes = SmallVec::from_slice(b"+OK\r\n");
            self.await_nodes(batch, vnode, &ask, origin, ok);
        }
        Outcome::Pending
    }

    fn flush_vnode(&self, batch: &mut Batch, vnode: VnodeId) {
        if self.keyspace.counts(vnode).cold > 0 {
            let keys = self.keyspace.read(vnode, batch.now, |keys| keys.live_keys());
            for keys in keys.chunks(DELETES_AT_ONCE) {
                self.warm_for_delete(batch, vnode, keys);
            }
        }
        let records = &mut batch.records;
        records.clear();
        let actor = self.actor();
        self.keyspace.write(vnode, batch.now, |vnode| {
            if vnode.is_sole() {
                return vnode.clear_sole();
            }
            for key in vnode.read().live_keys() {
                // A delete of a single key cannot gather siblings.
                if !vnode.lacks(&key, &Change::Delete)
                    && vnode.apply(&key, &Change::Delete, actor, &mut records.bytes).is_ok()
                {
                    records.mark();
                }
            }
        });
        self.note(batch, vnode);
    }

    fn scan(
        &self,
        batch: &mut Batch,
        request: &Request<'_>,
        out: &mut Reply,
        origin: impl FnOnce() -> Origin,
    ) -> Outcome {
        let scan = match Scan::parse(request.args) {
            Ok(scan) => scan,
            Err(error) => return refuse(out, error.to_string()),
        };
        let vnodes = self.routes.vnodes();
        if scan.cursor.vnode.0 >= vnodes || scan.cursor.position >= POSITIONS {
            return refuse(out, "ERR invalid cursor");
        }
        let me = self.routes.me();
        let rest = (scan.cursor.vnode.0..vnodes).map(VnodeId);
        let here: Vec<VnodeId> =
            rest.take_while(|&vnode| self.serves(vnode, false) == Some(me)).collect();
        if !here.is_empty() {
            self.scan_here(batch, &scan, &here, out);
            return DONE;
        }
        match self.serves(scan.cursor.vnode, false) {
            Some(peer) => {
                let vnodes = [scan.cursor.vnode];
                self.ask_vnodes(batch, request, peer, &vnodes, origin)
            }
            None => self.cluster_down(
                out,
                "CLUSTERDOWN a vnode has no reachable replica, nothing was done",
            ),
        }
    }

    /// Walks `vnodes`, which follow each other from the cursor's on, until COUNT keys were seen, or
    /// so many blocks that the client had better be answered, however few of them were keys.
    fn scan_here(&self, batch: &Batch, scan: &Scan<'_>, vnodes: &[VnodeId], out: &mut Reply) {
        let mut found = Reply::new(out.protocol);
        let (mut count, mut seen, mut looks) = (0, 0, 0);
        let looks_max = SCAN_LOOKS_MIN.max(scan.count.saturating_mul(SCAN_LOOKS_EACH));
        let mut at = scan.cursor;
        let end = vnodes.last().map_or(at.vnode.0, |last| last.0);
        while at.vnode.0 <= end && seen < scan.count && looks < looks_max {
            let counts = self.keyspace.counts(at.vnode);
            let missing = (scan.count - seen) as u64;
            let step = (missing * u64::from(POSITIONS)).div_ceil(counts.live.max(1) as u64);
            let upto = POSITIONS.min(at.position.saturating_add(step.min(1 << 16) as u32));
            // A table is looked through as a whole, whatever part of it is wanted.
            looks += counts.held;
            self.keyspace.read(at.vnode, batch.now, |keys| {
                keys.scan(at.position..upto, |key, view| {
                    seen += 1;
                    if scan.kind.admits(view.kind)
                        && scan.pattern.is_none_or(|pattern| glob::matches(pattern, key))
                    {
                        found.bulk(key);
                        count += 1;
                    }
                });
            });
            at = if upto == POSITIONS {
                Cursor { vnode: VnodeId(at.vnode.0 + 1), position: 0 }
            } else {
                Cursor { position: upto, ..at }
            };
        }
        let next = if at.vnode.0 >= self.routes.vnodes() { Cursor::START } else { at };
        out.array(2);
        out.bulk(next.pack().to_string().as_bytes());
        out.array(count);
        out.bytes.extend_from_slice(&found.bytes);
    }
}

/// FLUSHALL and FLUSHDB take SYNC or ASYNC, and nothing else.
fn check(request: &Request<'_>, out: &mut Reply) -> Option<Outcome> {
    let flushes = matches!(request.spec.name, "flushall" | "flushdb");
    let word =
        |arg: &&[u8]| arg.eq_ignore_ascii_case(b"sync") || arg.eq_ignore_ascii_case(b"async");
    let wrong = flushes && (request.args.len() > 2 || !request.args[1..].iter().all(word));
    wrong.then(|| {
        out.error("ERR syntax error");
        Outcome::Replied(FwdStatus::NotRun)
    })
}
