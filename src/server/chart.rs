//! The ring as cluster clients draw it: which slots, served by whom, at this moment.
//!
//! A client of Redis Cluster believes in masters and replicas. Here any node serves any key, so
//! the picture only tells it where a request need not be passed on: the "master" of a slot is
//! who coordinates it *now*, and when a coordinator is lost the next picture shows its successor.
//!
//! Invariant: every slot is in exactly one run, and runs are in the order of slots.

use std::fmt::Write;
use std::ops::Range;

use crate::base::id::{NodeId, VnodeId};
use crate::coordinator::route::Reach;
use crate::resp::nested::Nested;
use crate::ring::member::Member;
use crate::ring::slot::slots_of;
use crate::ring::topology::Topology;

/// Neighbouring slots that the same nodes hold and the same one coordinates.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Run {
    /// The slots.
    pub(super) slots: Range<u16>,
    /// Who holds them: who coordinates first, then the others in order of preference.
    pub(super) nodes: Vec<NodeId>,
    /// Whether anybody can coordinate; if not, the first node is who would.
    pub(super) served: bool,
}

/// See the head of this file.
pub(super) struct Chart<'a> {
    topology: &'a Topology,
    me: NodeId,
    /// What is believed of each member, in the order of members.
    reach: Vec<Reach>,
    runs: Vec<Run>,
}

impl<'a> Chart<'a> {
    /// The picture at node `me`, who believes this of coordinators and members.
    pub(super) fn new(
        topology: &'a Topology,
        me: NodeId,
        coordinator: impl Fn(VnodeId) -> Option<NodeId>,
        reach: impl Fn(NodeId) -> Reach,
    ) -> Chart<'a> {
        let mut runs: Vec<Run> = Vec::new();
        for vnode in (0..topology.vnodes()).map(VnodeId) {
            let (slots, replicas) = (slots_of(vnode, topology.vnodes()), topology.replicas(vnode));
            let first = coordinator(vnode).or_else(|| replicas.first().copied());
            let others = replicas.iter().copied().filter(|&node| Some(node) != first);
            let nodes: Vec<NodeId> = first.into_iter().chain(others).collect();
            let served = coordinator(vnode).is_some();
            match runs.last_mut() {
                Some(run) if run.nodes == nodes && run.served == served => {
                    run.slots.end = slots.end
                }
                _ => runs.push(Run { slots, nodes, served }),
            }
        }
        let reach = topology.members().iter().map(|member| reach(member.node)).collect();
        Chart { topology, me, reach, runs }
    }

    fn members(&self) -> impl Iterator<Item = (&Member, Reach)> {
        self.topology.members().iter().zip(self.reach.iter().copied())
    }

    fn member(&self, node: NodeId) -> (&Member, Reach) {
        self.members().find(|(member, _)| member.node == node).expect("replicas are members")
    }

    /// The slots that `node` coordinates, neighbours joined.
    fn slots_of(&self, node: NodeId) -> Vec<Range<u16>> {
        let mut ranges: Vec<Range<u16>> = Vec::new();
        for run in self.runs.iter().filter(|run| run.nodes.first() == Some(&node)) {
            match ranges.last_mut() {
                Some(range) if range.end == run.slots.start => range.end = run.slots.end,
                _ => ranges.push(run.slots.clone()),
            }
        }
        ranges
    }

    /// `CLUSTER NODES`: every member a master.
    pub(super) fn nodes_text(&self) -> String {
        let mut text = String::new();
        for (member, reach) in self.members() {
            let Member { node, host, client_port, peer_port, .. } = member;
            let (id, epoch) = (self.topology.redis_id(*node), self.topology.epoch().0);
            let myself = if *node == self.me { "myself," } else { "" };
            let (fail, link) = match reach {
                Reach::Down => (",fail", "disconnected"),
                Reach::Awaited => (",fail?", "disconnected"),
                Reach::Up | Reach::Recovering | Reach::Skewed => ("", "connected"),
            };
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "{id} {host}:{client_port}@{peer_port} {myself}master{fail} - 0 0 {epoch} {link}"
            );
            for Range { start, end } in self.slots_of(*node) {
                let _ = match end - start {
                    1 => write!(text, " {start}"),
                    _ => write!(text, " {start}-{}", end - 1),
                };
            }
            text.push('\n');
        }
        text
    }

    /// `CLUSTER INFO`, with how many messages went to peers and came from them.
    pub(super) fn summary_text(&self, sent: u64, received: u64) -> String {
        let served = |run: &&Run| run.served;
        let ok: u32 = self.runs.iter().filter(served).map(|run| run.slots.len() as u32).sum();
        let all: u32 = self.runs.iter().map(|run| run.slots.len() as u32).sum();
        let masters = self.members().filter(|(one, _)| !self.slots_of(one.node).is_empty()).count();
        let state = if ok == all { "ok" } else { "fail" };
        let epoch = self.topology.epoch().0;
        format!(
            "cluster_state:{state}\r\n\
             cluster_slots_assigned:{all}\r\n\
             cluster_slots_ok:{ok}\r\n\
             cluster_slots_pfail:0\r\n\
             cluster_slots_fail:{}\r\n\
             cluster_known_nodes:{}\r\n\
             cluster_size:{masters}\r\n\
             cluster_current_epoch:{epoch}\r\n\
             cluster_my_epoch:{epoch}\r\n\
             cluster_stats_messages_sent:{sent}\r\n\
             cluster_stats_messages_received:{received}\r\n\
             total_cluster_links_buffer_limit_exceeded:0\r\n",
            all - ok,
            self.topology.members().len(),
        )
    }

    /// `CLUSTER SLOTS`: of each run the coordinator, then the others that are reachable.
    pub(super) fn slots(&self) -> Nested {
        Nested::array(self.runs.iter().map(|run| {
            let reachable = |&(place, (_, reach)): &(usize, (&Member, Reach))| {
                place == 0 || reach != Reach::Down
            };
            let nodes = run.nodes.iter().map(|&node| self.member(node)).enumerate();
            let nodes = nodes.filter(reachable).map(|(_, (member, _))| self.address(member));
            Nested::Array(range(&run.slots).into_iter().chain(nodes).collect())
        }))
    }

    fn address(&self, member: &Member) -> Nested {
        Nested::array([
            Nested::bulk(member.host.clone()),
            Nested::Integer(i64::from(member.client_port)),
            Nested::bulk(self.topology.redis_id(member.node)),
            // Names of other kinds; the host above is the only one there is.
            Nested::Map(Vec::new()),
        ])
    }

    /// `CLUSTER SHARDS`: runs of the same nodes together, wherever they lie.
    pub(super) fn shards(&self) -> Nested {
        let mut shards: Vec<(&[NodeId], Vec<Nested>)> = Vec::new();
        for run in &self.runs {
            match shards.iter_mut().find(|(nodes, _)| *nodes == run.nodes) {
                Some((_, slots)) => slots.extend(range(&run.slots)),
                None => shards.push((&run.nodes, range(&run.slots).into())),
            }
        }
        Nested::array(shards.into_iter().map(|(nodes, slots)| {
            let role = |place| if place == 0 { "master" } else { "replica" };
            let nodes = nodes.iter().enumerate();
            let nodes = nodes.map(|(place, &node)| self.shard_node(node, role(place)));
            Nested::Map(vec![
                (Nested::bulk("slots"), Nested::Array(slots)),
                (Nested::bulk("nodes"), Nested::array(nodes)),
            ])
        }))
    }

    fn shard_node(&self, node: NodeId, role: &'static str) -> Nested {
        let (member, reach) = self.member(node);
        let health = match reach {
            Reach::Up | Reach::Skewed => "online",
            Reach::Recovering => "loading",
            Reach::Down | Reach::Awaited => "fail",
        };
        let rows = [
            ("id", Nested::bulk(self.topology.redis_id(node))),
            ("port", Nested::Integer(i64::from(member.client_port))),
            ("ip", Nested::bulk(member.host.clone())),
            ("endpoint", Nested::bulk(member.host.clone())),
            ("role", Nested::bulk(role)),
            ("replication-offset", Nested::Integer(0)),
            ("health", Nested::bulk(health)),
        ];
        Nested::Map(rows.map(|(name, value)| (Nested::bulk(name), value)).into())
    }
}

/// The first and the last slot.
fn range(slots: &Range<u16>) -> [Nested; 2] {
    [Nested::Integer(i64::from(slots.start)), Nested::Integer(i64::from(slots.end - 1))]
}

#[cfg(test)]
mod tests {
    use crate::resp::nested;
    use crate::resp::reply::Reply;

    use super::*;
    use crate::resp::reply::Protocol;
    use crate::ring::contract::Contract;

    const ME: NodeId = NodeId(1);

    fn topology(members: u16, vnodes: u16) -> Topology {
        let members = (1..=members)
            .map(|node| {
                let mut member = Member::new(NodeId(node), format!("10.0.0.{node}"), 6379);
                member.peer_port = 16379;
                member
            })
            .collect();
        Topology::from_members("test", members, vnodes, Contract::default()).expect("a topology")
    }

    /// The picture when the nodes of `down` are down.
    fn chart<'a>(topology: &'a Topology, down: &'a [NodeId]) -> Chart<'a> {
        let reach = |node| if down.contains(&node) { Reach::Down } else { Reach::Up };
        let first =
            |vnode| topology.replicas(vnode).iter().copied().find(|&node| reach(node) == Reach::Up);
        Chart::new(topology, ME, first, reach)
    }

    fn written(protocol: Protocol, write: impl Fn(&mut Reply)) -> String {
        let mut out = Reply::new(protocol);
        write(&mut out);
        String::from_utf8(out.bytes.to_vec()).expect("UTF-8").replace("\r\n", " ")
    }

    #[test]
    fn one_node_alone_is_one_run() {
        let topology = topology(1, 256);
        let chart = chart(&topology, &[]);
        let id = topology.redis_id(ME);
        let line = format!("{id} 10.0.0.1:6379@16379 myself,master - 0 0 1 connected 0-16383\n");
        assert_eq!(chart.nodes_text(), line);
        let [two, three] = [Protocol::Resp2, Protocol::Resp3]
            .map(|p| written(p, |out| nested::encode(&chart.slots(), out)));
        let slots = format!("*1 *3 :0 :16383 *4 $8 10.0.0.1 :6379 $40 {id}");
        assert_eq!((two, three), (format!("{slots} *0 "), format!("{slots} %0 ")));
        let shards = written(Protocol::Resp3, |out| nested::encode(&chart.shards(), out));
        assert_eq!(
            shards,
            format!(
                "*1 %2 $5 slots *2 :0 :16383 $5 nodes *1 %7 $2 id $40 {id} $4 port :6379 \
                 $2 ip $8 10.0.0.1 $8 endpoint $8 10.0.0.1 $4 role $6 master \
                 $18 replication-offset :0 $6 health $6 online "
            )
        );
    }

    #[test]
    fn runs_cover_every_slot_and_follow_the_coordinator() {
        let topology = topology(5, 64);
        for down in [&[][..], &[NodeId(2)], &[NodeId(2), NodeId(4)]] {
            let chart = chart(&topology, down);
            let mut next = 0;
            for run in &chart.runs {
                assert_eq!(run.slots.start, next);
                next = run.slots.end;
                assert!(run.served && !down.contains(&run.nodes[0]));
                let mut replicas = topology.replicas(VnodeId(run.slots.start / 256)).to_vec();
                let mut nodes = run.nodes.clone();
                replicas.sort();
                nodes.sort();
                assert_eq!(replicas, nodes);
            }
            assert_eq!(next, 16_384);
            let shown: u32 = (1..=5)
                .flat_map(|node| chart.slots_of(NodeId(node)))
                .map(|range| range.len() as u32)
                .sum();
            assert_eq!(shown, 16_384);
        }
    }

    #[test]
    fn a_lost_node_owns_nothing_and_is_no_replica() {
        let topology = topology(3, 16);
        let lost = NodeId(3);
        let down = [lost];
        let chart = chart(&topology, &down);
        let nodes = chart.nodes_text();
        let line = nodes.lines().last().expect("three lines");
        assert!(line.ends_with("master,fail - 0 0 1 disconnected"), "{line}");
        let slots = written(Protocol::Resp2, |out| nested::encode(&chart.slots(), out));
        assert!(!slots.contains(&topology.redis_id(lost)), "{slots}");
        let shards = written(Protocol::Resp2, |out| nested::encode(&chart.shards(), out));
        assert!(shards.contains("$6 health $4 fail"), "{shards}");
        assert!(chart.summary_text(0, 0).starts_with("cluster_state:ok\r\n"));
    }

    #[test]
    fn slots_that_nobody_serves_fail_the_cluster() {
        let topology = topology(4, 16);
        let down = [NodeId(2), NodeId(3), NodeId(4)];
        let chart = chart(&topology, &down);
        let text = chart.summary_text(7, 8);
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim_start_matches(':').to_owned()
        };
        let number = |name| field(name).parse::<u32>().expect(name);
        assert_eq!(field("cluster_state"), "fail");
        assert_eq!(number("cluster_slots_ok") + number("cluster_slots_fail"), 16_384);
        assert!(number("cluster_slots_fail") > 0);
        assert_eq!(field("cluster_known_nodes"), "4");
        assert_eq!(field("cluster_stats_messages_received"), "8");
    }
}
