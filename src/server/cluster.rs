//! CLUSTER, READONLY and READWRITE: what makes cluster clients of Redis feel at home.
//!
//! Nothing here changes anything but the connection: the topology is changed at the operator's
//! door. No node ever answers MOVED, for each passes on what another coordinates.

use std::time::Instant;

use crate::base::id::Slot;
use crate::base::limits::SLOTS;
use crate::command::fault::Fault;
use crate::command::number::integer;
use crate::command::spec::Spec;
use crate::peer::state::LinkState;
use crate::resp::nested;
use crate::resp::reply::Reply;
use crate::ring::slot::slot_of;

use super::Server;
use super::chart::Chart;
use super::session::Session;

/// Runs one of this file's commands.
pub(super) fn run(
    server: &Server,
    session: &mut Session,
    spec: &Spec,
    args: &[&[u8]],
    out: &mut Reply,
) {
    let node = &server.node;
    let topology = node.topology();
    let chart = || {
        Chart::new(
            topology,
            node.id(),
            |vnode| node.coordinator(vnode),
            |member| node.reach(member),
        )
    };
    match spec.name {
        "readonly" => set_readonly(session, true, out),
        "readwrite" => set_readonly(session, false, out),
        // Each node shows itself alone in its shard, so the two have one name.
        "cluster|myid" | "cluster|myshardid" => out.bulk(topology.redis_id(node.id()).as_bytes()),
        "cluster|keyslot" => out.integer(i64::from(slot_of(args[2]).0)),
        "cluster|info" => {
            let (sent, received) = messages(server);
            out.verbatim(&chart().summary_text(sent, received));
        }
        "cluster|nodes" => out.verbatim(&chart().nodes_text()),
        "cluster|slots" => nested::encode(&chart().slots(), out),
        "cluster|shards" => nested::encode(&chart().shards(), out),
        "cluster|links" => write_links(server, out),
        "cluster|replicas" | "cluster|slaves" => replicas(server, args[2], out),
        "cluster|countkeysinslot" => answer(count_keys(server, session, args, out), out),
        "cluster|getkeysinslot" => answer(list_keys(server, session, args, out), out),
        name => unreachable!("{name} has a row and no words"),
    }
}

fn answer(done: Result<(), Fault<'_>>, out: &mut Reply) {
    if let Err(fault) = done {
        out.error(fault.line());
    }
}

fn set_readonly(session: &mut Session, readonly: bool, out: &mut Reply) {
    session.readonly = readonly;
    session.client.words.lock().readonly = readonly;
    out.ok();
}

/// Messages sent to peers and received from them.
fn messages(server: &Server) -> (u64, u64) {
    let Some(links) = server.node.links() else { return (0, 0) };
    let counters = links.peers().filter_map(|peer| links.counters(peer));
    counters.fold((0, 0), |(sent, received), peer| {
        (sent + peer.frames_out.read(), received + peer.frames_in.read())
    })
}

/// One link a peer, which both ends use: Redis would call it one of two.
fn write_links(server: &Server, out: &mut Reply) {
    let Some(links) = server.node.links() else { return out.array(0) };
    let up: Vec<_> = links
        .peers()
        .filter_map(|peer| match links.state(peer)? {
            LinkState::Up { since, .. } => Some((peer, since, links.outbox(peer)?)),
            LinkState::Down { .. } => None,
        })
        .collect();
    out.array(up.len());
    for (peer, since, outbox) in up {
        let age_ms = Instant::now().saturating_duration_since(since).as_millis() as u64;
        let created = crate::node::now().0.saturating_sub(age_ms);
        let queued = outbox.queued_bytes() as i64;
        out.map(6);
        out.bulk(b"direction");
        out.bulk(b"to");
        out.bulk(b"node");
        out.bulk(server.node.topology().redis_id(peer).as_bytes());
        out.bulk(b"create-time");
        out.integer(created as i64);
        out.bulk(b"events");
        out.bulk(b"rw");
        out.bulk(b"send-buffer-allocated");
        out.integer(queued);
        out.bulk(b"send-buffer-used");
        out.integer(queued);
    }
}

/// Every member is shown as a master, so nobody has replicas of its own.
fn replicas(server: &Server, id: &[u8], out: &mut Reply) {
    let topology = server.node.topology();
    let mut ids = topology.members().iter().map(|member| topology.redis_id(member.node));
    if ids.any(|known| known.as_bytes().eq_ignore_ascii_case(id)) {
        out.array(0);
    } else {
        out.error([b"ERR Unknown node ", id].concat());
    }
}

fn slot(number: i64) -> Option<Slot> {
    u16::try_from(number).ok().filter(|&slot| slot < SLOTS).map(Slot)
}

/// Visits the visible keys of `slot` that this node holds.
fn keys_of(server: &Server, session: &Session, slot: Slot, mut visit: impl FnMut(&[u8])) {
    let vnode = server.node.topology().vnode_of(slot);
    server.node.keyspace().read(vnode, session.batch.now(), |keys| {
        keys.scan(0..1 << 16, |key, _| {
            if slot_of(key) == slot {
                visit(key);
            }
        });
    });
}

fn count_keys<'a>(
    server: &Server,
    session: &Session,
    args: &[&'a [u8]],
    out: &mut Reply,
) -> Result<(), Fault<'a>> {
    match slot(integer(args[2])?) {
        Some(slot) => {
            let mut count = 0;
            keys_of(server, session, slot, |_| count += 1);
            out.integer(count);
        }
        None => out.error("ERR Invalid slot"),
    }
    Ok(())
}

fn list_keys<'a>(
    server: &Server,
    session: &Session,
    args: &[&'a [u8]],
    out: &mut Reply,
) -> Result<(), Fault<'a>> {
    let (slot, most) = (slot(integer(args[2])?), usize::try_from(integer(args[3])?));
    let (Some(slot), Ok(most)) = (slot, most) else {
        out.error("ERR Invalid slot or number of keys");
        return Ok(());
    };
    let mut found: Vec<Vec<u8>> = Vec::new();
    keys_of(server, session, slot, |key| {
        if found.len() < most {
            found.push(key.to_vec());
        }
    });
    out.array(found.len());
    found.iter().for_each(|key| out.bulk(key));
    Ok(())
}
