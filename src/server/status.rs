//! KV.STATUS and INFO's lines a member: who is there, as the asked node sees it.
//!
//! Every node sees the others with its own ears, so two nodes may tell different things of a third;
//! that is what the command is for.

use crate::membership::heartbeat::Own;
use crate::node::members::{MemberStatus, state_name};
use crate::resp::nested::{self, Nested};
use crate::resp::reply::Reply;
use crate::ring::member::Member;

use super::Server;
use super::info::reach_name;

/// KV.STATUS: one map a member, in the order of their ids.
pub(super) fn run(server: &Server, out: &mut Reply) {
    let now = crate::node::now();
    let topology = server.node.topology();
    let rows = server.node.member_statuses().into_iter().filter_map(|status| {
        let member = topology.member(status.node)?;
        let since = |at: crate::base::time::UnixMs| now.0.saturating_sub(at.0);
        Some(row(member, &status, status.last_exchange.map(since)))
    });
    nested::encode(&Nested::array(rows), out);
}

fn integer(number: impl TryInto<i64>) -> Nested {
    Nested::Integer(number.try_into().unwrap_or(i64::MAX))
}

fn or_null<T: TryInto<i64>>(number: Option<T>) -> Nested {
    number.map_or(Nested::Null, integer)
}

fn truth(truth: bool) -> Nested {
    Nested::Integer(i64::from(truth))
}

fn row(member: &Member, status: &MemberStatus, exchanged_ms: Option<u64>) -> Nested {
    let own = status.own.as_ref();
    let of = |field: fn(&Own) -> u64| or_null(own.map(field));
    let suspected_by = status.suspected_by.iter().map(|node| Nested::bulk(node.to_string()));
    let rows = [
        ("node", Nested::bulk(status.node.to_string())),
        ("host", Nested::bulk(member.host.clone())),
        ("port", Nested::Integer(i64::from(member.client_port))),
        ("me", truth(status.is_me)),
        ("state", Nested::bulk(reach_name(status.reach))),
        ("gossip", Nested::bulk(state_name(status.state))),
        ("phi", Nested::bulk(format!("{:.2}", status.phi))),
        ("silence-ms", integer(status.silence_ms)),
        ("counting", own.map_or(Nested::Null, |own| truth(own.counting))),
        ("processor-percent", of(|own| own.processor_percent.into())),
        ("commands-per-second", of(|own| own.commands_per_s.into())),
        ("lag-changes", integer(status.lag_changes)),
        ("lag-ms", integer(status.lag_ms)),
        ("hints", integer(status.hints)),
        ("recovering-vnodes", of(|own| own.recovering.into())),
        ("last-exchange-ms", or_null(exchanged_ms)),
        ("clock-ms", or_null(status.clock_ms)),
        ("clock-off", truth(status.clock_off)),
        ("heard-elsewhere-ms", or_null(status.elsewhere_ms)),
        ("suspected-by", Nested::array(suspected_by)),
        ("epoch", of(|own| own.epoch)),
    ];
    Nested::Map(rows.map(|(name, value)| (Nested::bulk(name), value)).into())
}

/// INFO's line of one member: its name and its fields.
pub(super) fn line(status: &MemberStatus) -> (String, String) {
    let own = status.own.unwrap_or_default();
    let exchanged_s = status.last_exchange.map_or(-1, |at| {
        i64::try_from(crate::node::now().0.saturating_sub(at.0) / 1_000).unwrap_or(i64::MAX)
    });
    let text = format!(
        "state={},gossip={},phi={:.2},processor_percent={},commands_per_s={},lag={},lag_ms={},\
         hints_for={},recovering_vnodes={},last_exchange_s={exchanged_s},clock_ms={}",
        reach_name(status.reach),
        state_name(status.state),
        status.phi,
        own.processor_percent,
        own.commands_per_s,
        status.lag_changes,
        status.lag_ms,
        status.hints,
        own.recovering,
        status.clock_ms.unwrap_or(0),
    );
    (format!("member_{}", status.node), text)
}
