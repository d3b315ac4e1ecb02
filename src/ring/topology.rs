//! The topology document: who is in the cluster, and who holds what. One value.
//!
//! Every replica operation carries the epoch of its vnode; an older one is refused. Invariant of
//! every [`Topology`] there is, made here or read from bytes: members are in the order of their
//! ids and distinct, lists name members only and none twice, the number of vnodes is a legal
//! one, and no vnode's epoch is above the document's.
//!
//! Layout (little-endian, `v` = varint, `s` = varint length and UTF-8):
//!
//! ```text
//!  format u8 = 1 │ cluster s │ id u64 │ epoch u64 │ n u8 r u8 w u8
//!  members v     │ then each: node u16, name s, host s, client u16, peer u16, zone s, weight u32
//!  vnodes u16    │ then each: stage u8, epoch v, replicas v × node u16, pending v × node u16
//! ```

use std::fmt;
use std::ops::Range;

use crate::base::hash::HashSeed;
use crate::base::id::{NodeId, Slot, VnodeId};
use crate::base::limits::REPLICAS_MAX;
use crate::base::wire::{Cursor, Put, WireError};

use super::contract::Contract;
use super::member::Member;
use super::planner::{Assignment, plan};
use super::slot::{is_vnode_count, slots_of, vnode_of};
use super::walk::affinity;

/// Most members of a cluster; a claimed count above it is refused before anything is allocated.
pub const MEMBERS_MAX: usize = 1_024;

/// Longest name, host or zone, in bytes (a DNS name has at most 253).
pub const TEXT_SIZE_MAX: usize = 255;

/// The format written; reading knows this one only.
const FORMAT: u8 = 1;

/// The version of a topology document, or of one vnode's row in it. The first is 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Epoch(pub u64);

/// A cluster, for ever: nodes with another one do not talk to each other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ClusterId(pub u64);

/// Where a vnode is on its way from old replicas to new ones.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Stage {
    /// It stays where it is; nothing is pending.
    #[default]
    Stable,
    /// Writes go to old and new replicas, reads to the old.
    BothReadOld,
    /// Writes go to old and new replicas, reads to the new.
    BothReadNew,
}

/// One vnode's row.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Placement {
    /// Who holds it; the first coordinates.
    pub replicas: Vec<NodeId>,
    /// Who shall hold it; empty when stable.
    pub pending: Vec<NodeId>,
    /// How far the move is.
    pub stage: Stage,
    /// When this row last changed.
    pub epoch: Epoch,
}

/// The document.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Topology {
    cluster: String,
    id: ClusterId,
    epoch: Epoch,
    contract: Contract,
    members: Vec<Member>,
    table: Vec<Placement>,
}

/// Why there is no such topology. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TopologyError {
    /// Not a power of two from 1 to `VNODES_MAX`.
    Vnodes(u16),
    /// No member, more than [`MEMBERS_MAX`], or none of a weight above 0.
    Members(usize),
    /// Two members have this id.
    NodeTwice(NodeId),
    /// A member's name, host or zone, or the cluster's name, is longer than [`TEXT_SIZE_MAX`].
    TextTooLong(String),
}

impl fmt::Display for TopologyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TopologyError::Vnodes(count) => {
                write!(
                    f,
                    "{count} vnodes: must be a power of two, at most {}",
                    crate::base::limits::VNODES_MAX
                )
            }
            TopologyError::Members(count) => write!(
                f,
                "{count} members: must be from 1 to {MEMBERS_MAX}, one of them with a weight above 0"
            ),
            TopologyError::NodeTwice(node) => write!(f, "two members are called {node}"),
            TopologyError::TextTooLong(text) => {
                write!(f, "{text:?} is longer than {TEXT_SIZE_MAX} bytes")
            }
        }
    }
}

impl std::error::Error for TopologyError {}

/// A run of slots whose replicas are the same: a row of `CLUSTER SLOTS`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SlotRun<'a> {
    /// The slots.
    pub slots: Range<u16>,
    /// Who holds them; the first coordinates.
    pub replicas: &'a [NodeId],
}

impl Topology {
    /// The first topology (epoch 1) of a cluster: a fresh plan of `vnodes` vnodes (a power of
    /// two) over `members`. Nodes that are given the same arguments, members in any order, make
    /// equal documents. The contract is capped by the members that hold anything.
    pub fn from_members(
        cluster: &str,
        mut members: Vec<Member>,
        vnodes: u16,
        contract: Contract,
    ) -> Result<Topology, TopologyError> {
        members.sort_by_key(|member| member.node);
        check(cluster, &members, vnodes)?;
        let holders = members.iter().filter(|member| member.weight > 0).count();
        let contract = contract.capped(holders);
        let epoch = Epoch(1);
        let Assignment { lists } = plan(&members, vnodes, contract.n(), None);
        let stable = |replicas| Placement { replicas, epoch, ..Placement::default() };
        Ok(Topology {
            cluster: cluster.to_owned(),
            id: ClusterId(HashSeed(0).key(cluster.as_bytes())),
            epoch,
            contract,
            members,
            table: lists.into_iter().map(stable).collect(),
        })
    }

    /// The cluster's name.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The cluster's id.
    pub fn id(&self) -> ClusterId {
        self.id
    }

    /// The document's version.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The default keyspace's N, R and W, as they can be kept by these members.
    pub fn contract(&self) -> Contract {
        self.contract
    }

    /// Everybody, in the order of ids.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The member that is `node`.
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        let place = self.members.binary_search_by_key(&node, |member| member.node).ok()?;
        Some(&self.members[place])
    }

    /// The number of vnodes.
    pub fn vnodes(&self) -> u16 {
        self.table.len() as u16
    }

    /// The vnode of `slot`.
    pub fn vnode_of(&self, slot: Slot) -> VnodeId {
        vnode_of(slot, self.vnodes())
    }

    /// The row of `vnode`, which is below [`Topology::vnodes`].
    pub fn placement(&self, vnode: VnodeId) -> &Placement {
        &self.table[vnode.index()]
    }

    /// Who holds `vnode`, which is below [`Topology::vnodes`]; the first coordinates.
    pub fn replicas(&self, vnode: VnodeId) -> &[NodeId] {
        &self.placement(vnode).replicas
    }

    /// Who stands in for replicas of `vnode` that are away, in order: every other member that holds
    /// anything at all. Each vnode has an order of its own, so that the load of a lost node falls
    /// on many; zones that have fewer of the vnode come first. (Dynamo §4.6.)
    pub fn fallbacks(&self, vnode: VnodeId) -> Vec<NodeId> {
        let replicas = self.replicas(vnode);
        let mut left: Vec<&Member> = self
            .members
            .iter()
            .filter(|one| one.weight > 0 && !replicas.contains(&one.node))
            .collect();
        left.sort_by_key(|member| (affinity(vnode, member.node), member.node));
        let held = replicas.iter().filter_map(|&node| self.member(node));
        let mut zones: Vec<&str> = held.map(|member| &*member.zone).collect();
        let mut order = Vec::with_capacity(left.len());
        while !left.is_empty() {
            let of_zone =
                |member: &Member| zones.iter().filter(|zone| **zone == member.zone).count();
            let places = 0..left.len();
            let next = places.min_by_key(|&place| of_zone(left[place])).unwrap_or(0);
            let member = left.remove(next);
            zones.push(&member.zone);
            order.push(member.node);
        }
        order
    }

    /// The vnodes that `node` holds a replica of.
    pub fn vnodes_of(&self, node: NodeId) -> impl Iterator<Item = VnodeId> + '_ {
        (0..self.vnodes()).map(VnodeId).filter(move |&vnode| self.replicas(vnode).contains(&node))
    }

    /// All slots in order, neighbours with the same replicas as one run: `CLUSTER SLOTS`.
    pub fn slot_runs(&self) -> Vec<SlotRun<'_>> {
        let mut runs: Vec<SlotRun<'_>> = Vec::new();
        for vnode in (0..self.vnodes()).map(VnodeId) {
            let (slots, replicas) = (slots_of(vnode, self.vnodes()), self.replicas(vnode));
            match runs.last_mut() {
                Some(run) if run.replicas == replicas => run.slots.end = slots.end,
                _ => runs.push(SlotRun { slots, replicas }),
            }
        }
        runs
    }

    /// The slots that `node` coordinates, neighbours joined: `CLUSTER SHARDS`, `CLUSTER NODES`.
    pub fn coordinated_slots(&self, node: NodeId) -> Vec<Range<u16>> {
        let mut ranges: Vec<Range<u16>> = Vec::new();
        for run in self.slot_runs() {
            match ranges.last_mut() {
                _ if run.replicas.first() != Some(&node) => {}
                Some(range) if range.end == run.slots.start => range.end = run.slots.end,
                _ => ranges.push(run.slots),
            }
        }
        ranges
    }

    /// The forty hexadecimal digits by which the Redis protocol names `node` (`CLUSTER MYID`).
    pub fn redis_id(&self, node: NodeId) -> String {
        let name = [&self.id.0.to_le_bytes()[..], &node.0.to_le_bytes()[..]].concat();
        let digits = blake3::hash(&name).to_hex();
        digits[..40].to_owned()
    }

    /// Appends the document; equal documents have equal bytes.
    pub fn encode(&self, out: &mut impl Put) {
        out.put_u8(FORMAT);
        out.put_bytes(self.cluster.as_bytes());
        out.put_u64(self.id.0);
        out.put_u64(self.epoch.0);
        for part in [self.contract.n(), self.contract.r(), self.contract.w()] {
            out.put_u8(part as u8);
        }
        out.put_varint(self.members.len() as u64);
        self.members.iter().for_each(|member| encode_member(member, out));
        out.put_u16(self.vnodes());
        self.table.iter().for_each(|row| encode_placement(row, out));
    }

    /// Reads a document and checks everything that this file promises of one.
    pub fn decode(cursor: &mut Cursor<'_>) -> Result<Topology, WireError> {
        if cursor.u8()? != FORMAT {
            return Err(WireError::Malformed("topology format"));
        }
        let cluster = text(cursor)?;
        let (id, epoch) = (ClusterId(cursor.u64()?), Epoch(cursor.u64()?));
        let (n, r, w) = (cursor.u8()?, cursor.u8()?, cursor.u8()?);
        let contract = Contract::new(n.into(), r.into(), w.into())
            .map_err(|_| WireError::Malformed("contract"))?;
        let count = cursor.varint()?;
        if count > MEMBERS_MAX as u64 {
            return Err(WireError::Malformed("member count"));
        }
        let members: Vec<Member> =
            (0..count).map(|_| decode_member(cursor)).collect::<Result<_, _>>()?;
        if !members.is_sorted_by(|a, b| a.node < b.node) {
            return Err(WireError::Malformed("order of members"));
        }
        let vnodes = cursor.u16()?;
        check(&cluster, &members, vnodes).map_err(|_| WireError::Malformed("topology"))?;
        let table = (0..vnodes)
            .map(|_| decode_placement(cursor, &members, epoch))
            .collect::<Result<_, _>>()?;
        Ok(Topology { cluster, id, epoch, contract, members, table })
    }
}

/// What must hold of members (in the order of ids) and vnodes.
fn check(cluster: &str, members: &[Member], vnodes: u16) -> Result<(), TopologyError> {
    if !is_vnode_count(vnodes) {
        return Err(TopologyError::Vnodes(vnodes));
    }
    if members.len() > MEMBERS_MAX || !members.iter().any(|member| member.weight > 0) {
        return Err(TopologyError::Members(members.len()));
    }
    if let Some(two) = members.windows(2).find(|two| two[0].node == two[1].node) {
        return Err(TopologyError::NodeTwice(two[0].node));
    }
    let texts = members.iter().flat_map(|one| [&*one.name, &*one.host, &*one.zone]);
    match texts.chain([cluster]).find(|text| text.len() > TEXT_SIZE_MAX) {
        Some(text) => Err(TopologyError::TextTooLong(text.to_owned())),
        None => Ok(()),
    }
}

fn text(cursor: &mut Cursor<'_>) -> Result<String, WireError> {
    let bytes = cursor.bytes()?;
    if bytes.len() > TEXT_SIZE_MAX {
        return Err(WireError::Malformed("length of a text"));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| WireError::Malformed("text"))?;
    Ok(text.to_owned())
}

fn encode_member(member: &Member, out: &mut impl Put) {
    out.put_u16(member.node.0);
    out.put_bytes(member.name.as_bytes());
    out.put_bytes(member.host.as_bytes());
    out.put_u16(member.client_port);
    out.put_u16(member.peer_port);
    out.put_bytes(member.zone.as_bytes());
    out.put_u32(member.weight);
}

fn decode_member(cursor: &mut Cursor<'_>) -> Result<Member, WireError> {
    Ok(Member {
        node: NodeId(cursor.u16()?),
        name: text(cursor)?,
        host: text(cursor)?,
        client_port: cursor.u16()?,
        peer_port: cursor.u16()?,
        zone: text(cursor)?,
        weight: cursor.u32()?,
    })
}

fn encode_placement(row: &Placement, out: &mut impl Put) {
    out.put_u8(match row.stage {
        Stage::Stable => 0,
        Stage::BothReadOld => 1,
        Stage::BothReadNew => 2,
    });
    out.put_varint(row.epoch.0);
    for list in [&row.replicas, &row.pending] {
        out.put_varint(list.len() as u64);
        list.iter().for_each(|node| out.put_u16(node.0));
    }
}

fn decode_placement(
    cursor: &mut Cursor<'_>,
    members: &[Member],
    newest: Epoch,
) -> Result<Placement, WireError> {
    let stage = match cursor.u8()? {
        0 => Stage::Stable,
        1 => Stage::BothReadOld,
        2 => Stage::BothReadNew,
        _ => return Err(WireError::Malformed("stage")),
    };
    let epoch = Epoch(cursor.varint()?);
    let (replicas, pending) = (nodes(cursor, members)?, nodes(cursor, members)?);
    if epoch > newest || replicas.is_empty() || pending.is_empty() != (stage == Stage::Stable) {
        return Err(WireError::Malformed("placement"));
    }
    Ok(Placement { replicas, pending, stage, epoch })
}

/// A list of distinct members.
fn nodes(cursor: &mut Cursor<'_>, members: &[Member]) -> Result<Vec<NodeId>, WireError> {
    let count = cursor.varint()?;
    if count > REPLICAS_MAX as u64 {
        return Err(WireError::Malformed("replica count"));
    }
    let mut list = Vec::new();
    for _ in 0..count {
        let node = NodeId(cursor.u16()?);
        let known = members.binary_search_by_key(&node, |member| member.node).is_ok();
        if !known || list.contains(&node) {
            return Err(WireError::Malformed("replica list"));
        }
        list.push(node);
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn member(id: u16) -> Member {
        Member { zone: format!("z{}", id % 3), ..Member::new(NodeId(id), "10.0.0.1", 6_379) }
    }

    fn topology(members: u16, vnodes: u16) -> Topology {
        let members = (1..=members).map(member).collect();
        Topology::from_members("test", members, vnodes, Contract::default()).unwrap()
    }

    fn bytes_of(topology: &Topology) -> Vec<u8> {
        let mut out = Vec::new();
        topology.encode(&mut out);
        out
    }

    fn decode(bytes: &[u8]) -> Result<Topology, WireError> {
        let mut cursor = Cursor::new(bytes);
        let topology = Topology::decode(&mut cursor)?;
        cursor.end()?;
        Ok(topology)
    }

    /// A document in the middle of a move, with every field away from its default.
    fn moving() -> Topology {
        let mut topology = topology(4, 4);
        topology.epoch = Epoch(300);
        topology.table[1] = Placement {
            replicas: vec![NodeId(2), NodeId(1)],
            pending: vec![NodeId(3), NodeId(1)],
            stage: Stage::BothReadNew,
            epoch: Epoch(299),
        };
        topology.members[2].weight = 70_000;
        topology
    }

    #[test]
    fn one_document_is_frozen() {
        let members = vec![Member { peer_port: 16_379, ..Member::new(NodeId(7), "h", 6_379) }];
        let topology = Topology::from_members("c", members, 2, Contract::default()).unwrap();
        #[rustfmt::skip]
        let expected = [
            &[1, 1, b'c'][..], &topology.id.0.to_le_bytes(), &[1, 0, 0, 0, 0, 0, 0, 0], &[1, 1, 1],
            &[1, 7, 0, 2, b'n', b'7', 1, b'h', 0xEB, 0x18, 0xFB, 0x3F, 7], b"default", &[1, 0, 0, 0],
            &[2, 0], &[0, 1, 1, 7, 0, 0], &[0, 1, 1, 7, 0, 0],
        ].concat();
        assert_eq!(bytes_of(&topology), expected);
        assert_eq!(decode(&expected), Ok(topology));
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = bytes_of(&moving());
        assert_eq!(decode(&bytes), Ok(moving()));
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err(), "{length} of {}", bytes.len());
        }
    }

    #[test]
    fn every_flipped_bit_is_refused_or_another_document() {
        let bytes = bytes_of(&moving());
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(other) = decode(&flipped) {
                assert_ne!(other, moving());
                assert_eq!(bytes_of(&other), flipped, "one document, one encoding");
            }
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let contract = Contract::default();
        let refused =
            |members, vnodes| Topology::from_members("c", members, vnodes, contract).unwrap_err();
        assert_eq!(refused(vec![member(1)], 48), TopologyError::Vnodes(48));
        assert_eq!(refused(vec![member(1)], 8_192), TopologyError::Vnodes(8_192));
        assert_eq!(refused(Vec::new(), 8), TopologyError::Members(0));
        assert_eq!(refused(vec![Member { weight: 0, ..member(1) }], 8), TopologyError::Members(1));
        assert_eq!(refused(vec![member(3), member(3)], 8), TopologyError::NodeTwice(NodeId(3)));
        let long = "x".repeat(256);
        let member = Member { host: long.clone(), ..member(1) };
        assert_eq!(refused(vec![member], 8), TopologyError::TextTooLong(long));
    }

    #[test]
    fn the_order_of_arguments_is_nothing() {
        let backwards = (1..=5).rev().map(member).collect();
        let other = Topology::from_members("test", backwards, 64, Contract::default()).unwrap();
        assert_eq!(other, topology(5, 64));
    }

    #[test]
    fn lookups() {
        let topology = topology(5, 64);
        assert_eq!(topology.member(NodeId(3)), Some(&member(3)));
        assert_eq!(topology.member(NodeId(6)), None);
        assert_eq!(topology.vnode_of(Slot(16_383)), VnodeId(63));
        let runs = topology.slot_runs();
        assert_eq!(runs.first().unwrap().slots.start, 0);
        assert_eq!(runs.last().unwrap().slots.end, 16_384);
        for pair in runs.windows(2) {
            assert_eq!(pair[0].slots.end, pair[1].slots.start);
            assert_ne!(pair[0].replicas, pair[1].replicas);
        }
        for run in &runs {
            assert_eq!(topology.replicas(topology.vnode_of(Slot(run.slots.start))), run.replicas);
        }
        let coordinated = |node| topology.coordinated_slots(NodeId(node));
        let slots: usize = (1..=5).flat_map(coordinated).map(|range| range.len()).sum();
        assert_eq!(slots, 16_384);
        let held: usize = (1..=5).map(|node| topology.vnodes_of(NodeId(node)).count()).sum();
        assert_eq!(held, 64 * 3);
    }

    #[test]
    fn one_node_coordinates_one_range_and_names_differ() {
        let alone = topology(1, 256);
        assert_eq!(alone.coordinated_slots(NodeId(1)), vec![0..16_384]);
        assert_eq!(alone.contract().n(), 1);
        let ids = [alone.redis_id(NodeId(1)), alone.redis_id(NodeId(2))];
        assert!(ids[0] != ids[1] && ids.iter().all(|id| id.len() == 40));
    }

    #[test]
    fn stand_ins_are_all_others_spread_over_zones() {
        let zones = ["a", "a", "b", "b", "c", "c", "c"];
        let members = zones.iter().zip(1..).map(|(zone, id)| Member {
            zone: (*zone).to_owned(),
            weight: u32::from(id != 7),
            ..Member::new(NodeId(id), "localhost", 7_000 + id)
        });
        let contract = Contract::default();
        let topology = Topology::from_members("t", members.collect(), 64, contract).unwrap();
        let mut firsts = [0; 8];
        for vnode in (0..64).map(VnodeId) {
            let (replicas, fallbacks) = (topology.replicas(vnode), topology.fallbacks(vnode));
            let mut all = [replicas, &fallbacks].concat();
            all.sort_unstable();
            assert_eq!(all, (1..=6).map(NodeId).collect::<Vec<_>>(), "n7 holds nothing");
            let zone = |node: &NodeId| &topology.member(*node).unwrap().zone;
            let mut of_fallbacks: Vec<_> = fallbacks.iter().map(zone).collect();
            of_fallbacks.dedup();
            assert_eq!(of_fallbacks.len(), 3, "one of each zone, as of the replicas");
            firsts[usize::from(fallbacks[0].0)] += 1;
        }
        assert!(firsts[1..7].iter().all(|&count| count > 2), "{firsts:?}");
        assert!(
            topology.members().len() == 7 && self::topology(3, 8).fallbacks(VnodeId(0)).is_empty()
        );
    }

    proptest! {
        #[test]
        fn garbage_never_panics(mut bytes: Vec<u8>) {
            bytes.insert(0, FORMAT);
            let _ = decode(&bytes);
        }
    }
}
