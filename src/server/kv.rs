//! Kvorum's own commands that a session runs: how many replicas a connection or one command asks,
//! where a key stands and why, and how two context tokens stand to each other.

use crate::command::fault::Fault;
use crate::command::number::{integer, is};
use crate::command::siblings::compare;
use crate::command::spec::Spec;
use crate::command::table::resolve;
use crate::coordinator::contract::Override;
use crate::node::execute::Request;
use crate::node::explain::{Explanation, Held};
use crate::resp::nested::{self, Nested};
use crate::resp::reply::Reply;

use super::Server;
use super::info::reach_name;
use super::session::Session;

/// Runs one of this file's commands.
pub(super) fn run(
    server: &Server,
    session: &mut Session,
    spec: &'static Spec,
    args: &[&[u8]],
    out: &mut Reply,
) {
    match spec.name {
        "kv.explain" => explain(server, session, spec, args, out),
        "kv.compare" => compare(server.node.keyspace().seed(), args, out),
        _ => quorum(server, session, args, out),
    }
}

/// What KV.QUORUM's arguments begin with: wishes. What follows them is a command, or nothing.
fn wishes<'a, 'b>(args: &'b [&'a [u8]]) -> Result<(Override, &'b [&'a [u8]]), Fault<'a>> {
    let mut asked = Override::default();
    let mut rest = args;
    loop {
        rest = match rest {
            [word, count, rest @ ..] if is(word, "r") => {
                asked.r = Some(replicas(count)?);
                rest
            }
            [word, count, rest @ ..] if is(word, "w") => {
                asked.w = Some(replicas(count)?);
                rest
            }
            [word] if is(word, "r") || is(word, "w") => return Err(Fault::Syntax),
            _ => return Ok((asked, rest)),
        };
    }
}

/// A number of replicas. What no byte holds is out of every contract's range, as 0 and 255 are.
fn replicas<'a>(count: &[u8]) -> Result<u8, Fault<'a>> {
    Ok(integer(count)?.clamp(0, i64::from(u8::MAX)) as u8)
}

/// KV.QUORUM, KV.QUORUM DEFAULT, KV.QUORUM [R r] [W w] and KV.QUORUM [R r] [W w] command …
fn quorum(server: &Server, session: &mut Session, args: &[&[u8]], out: &mut Reply) {
    match args {
        [_] => return tell_quorum(server, session.asked, out),
        [_, word] if is(word, "default") => {
            session.asked = Override::default();
            return out.ok();
        }
        _ => {}
    }
    let (asked, command) = match wishes(&args[1..]) {
        Ok(read) => read,
        Err(fault) => return out.error(fault.line()),
    };
    let merged = asked.or(session.asked);
    if let Err(refusal) = server.node.quorum().check(merged) {
        return out.error(refusal.to_string());
    }
    if command.is_empty() {
        session.asked = merged;
        return out.ok();
    }
    match resolve(command) {
        // Within itself it would mean nothing, and go as deep as the request is long.
        Ok(spec) if spec.name == "kv.quorum" => {
            out.error("ERR KV.QUORUM cannot stand before itself");
        }
        Ok(spec) => session.run(server, spec, command, None, merged, out),
        Err(refusal) => refusal.write(command, out),
    }
}

fn tell_quorum(server: &Server, asked: Override, out: &mut Reply) {
    let contract = server.node.topology().contract();
    out.map(6);
    let counts = [("n", contract.n()), ("r", contract.r()), ("w", contract.w())];
    for (name, count) in counts {
        out.bulk(name.as_bytes());
        out.integer(count as i64);
    }
    out.bulk(b"level");
    out.bulk(contract.level().name().as_bytes());
    for (name, count) in [("asked-r", asked.r), ("asked-w", asked.w)] {
        out.bulk(name.as_bytes());
        match count {
            Some(count) => out.integer(i64::from(count)),
            None => out.null(),
        }
    }
}

/// KV.EXPLAIN key. The last field names the replicas that hold the same as this one, and waits for
/// their word; where this node holds nothing of the key's vnode there is nothing to compare.
fn explain(
    server: &Server,
    session: &mut Session,
    spec: &'static Spec,
    args: &[&[u8]],
    out: &mut Reply,
) {
    let explanation = server.node.explain(args[1]);
    let mark = out.bytes.len();
    out.map(7);
    let mut told = place(&explanation);
    told.push(("asked", Nested::bulk(server.node.id().to_string())));
    let Some(held) = &explanation.held else {
        told.extend([("held", Nested::Null), ("confirmed", Nested::Null)]);
        return write_rows(told, out);
    };
    told.push(("held", what_is_held(held)));
    write_rows(told, out);
    out.bulk(b"confirmed");
    let request = Request {
        spec,
        args,
        slot: None,
        protocol: session.protocol,
        asked: session.asked,
        readonly: session.readonly,
    };
    let (batch, replies) = (&mut session.batch, &session.replies);
    let submitted = server.node.confirm(batch, &request, held, &out.bytes[mark..], replies);
    out.bytes.truncate(mark);
    session.submitted(submitted);
}

fn write_rows(rows: Vec<(&'static str, Nested)>, out: &mut Reply) {
    for (name, value) in rows {
        out.bulk(name.as_bytes());
        nested::encode(&value, out);
    }
}

fn text_or_null(text: Option<String>) -> Nested {
    text.map_or(Nested::Null, Nested::bulk)
}

fn place(explanation: &Explanation) -> Vec<(&'static str, Nested)> {
    let Explanation { slot, vnode, replicas, coordinator, held: _ } = explanation;
    let replicas = replicas.iter().map(|(node, reach)| {
        Nested::Map(vec![
            (Nested::bulk("node"), Nested::bulk(node.to_string())),
            (Nested::bulk("state"), Nested::bulk(reach_name(*reach))),
        ])
    });
    vec![
        ("slot", Nested::Integer(i64::from(*slot))),
        ("vnode", Nested::Integer(i64::from(vnode.0))),
        ("replicas", Nested::array(replicas)),
        ("coordinator", text_or_null(coordinator.map(|node| node.to_string()))),
    ]
}

fn what_is_held(held: &Held) -> Nested {
    let dot = held.dot.map(|dot| format!("{}@{:?}", dot.hlc.0, dot.actor));
    let rows = [
        ("dot", text_or_null(dot)),
        ("context", Nested::bulk(held.context.clone())),
        ("siblings", Nested::Integer(held.siblings as i64)),
        ("tier", Nested::bulk(held.tier)),
    ];
    Nested::Map(rows.map(|(name, value)| (Nested::bulk(name), value)).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<'a>(words: &[&'a [u8]]) -> Result<(Option<u8>, Option<u8>, usize), Fault<'a>> {
        wishes(words).map(|(asked, rest)| (asked.r, asked.w, rest.len()))
    }

    #[test]
    fn wishes_stand_before_the_command() {
        assert_eq!(read(&[b"R", b"2", b"w", b"1"]), Ok((Some(2), Some(1), 0)));
        assert_eq!(read(&[b"w", b"3", b"GET", b"r"]), Ok((None, Some(3), 2)));
        assert_eq!(read(&[b"GET", b"w", b"1"]), Ok((None, None, 3)));
        assert_eq!(read(&[b"r", b"-5", b"r", b"999"]), Ok((Some(255), None, 0)));
        assert_eq!(read(&[b"r"]), Err(Fault::Syntax));
        assert_eq!(read(&[b"r", b"GET", b"k"]), Err(Fault::NotInteger));
    }
}
