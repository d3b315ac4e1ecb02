//! What a connection answers about itself: PING, ECHO, SELECT, WAIT, QUIT, RESET, and the ways
//! to CLIENT, HELLO and AUTH.

use crate::command::fault::Fault;
use crate::command::number::{int, integer, plain_integer};
use crate::command::refusal;
use crate::command::spec::Spec;
use crate::coordinator::contract::Override;
use crate::resp::reply::{Protocol, Reply};

use super::Server;
use super::session::{Session, Talk};
use super::{client, greeting};

/// Runs one of this file's commands.
pub(super) fn run(
    server: &Server,
    session: &mut Session,
    spec: &Spec,
    args: &[&[u8]],
    out: &mut Reply,
) {
    let done = match spec.name {
        "ping" => ping(spec, args, out),
        "echo" => {
            out.bulk(args[1]);
            Ok(())
        }
        "quit" => {
            session.closing = true;
            out.ok();
            Ok(())
        }
        "reset" => {
            reset(session, out);
            Ok(())
        }
        "select" => select(args, out),
        "wait" => wait(server, session, args, out),
        "hello" => {
            greeting::hello(session, args, out);
            Ok(())
        }
        "auth" => {
            greeting::auth(session, args, out);
            Ok(())
        }
        _ => {
            client::run(server, session, spec, args, out);
            Ok(())
        }
    };
    if let Err(fault) = done {
        out.error(fault.line());
    }
}

fn ping<'a>(spec: &Spec, args: &[&'a [u8]], out: &mut Reply) -> Result<(), Fault<'a>> {
    match args {
        [_] => out.simple("PONG"),
        [_, message] => out.bulk(message),
        _ => refusal::arity(spec, out),
    }
    Ok(())
}

/// Makes the connection as it was when new; its number and what it said of its library stay.
fn reset(session: &mut Session, out: &mut Reply) {
    session.authenticated = session.changeable.requirepass.is_none();
    session.protocol = Protocol::Resp2;
    session.asked = Override::default();
    session.readonly = false;
    session.talk = Talk::On;
    let mut words = session.client.words.lock();
    words.name.clear();
    words.protocol = 2;
    words.readonly = false;
    words.no_evict = false;
    words.no_touch = false;
    out.simple("RESET");
}

/// There is one database; every other is refused as a Redis Cluster refuses it.
fn select<'a>(args: &[&'a [u8]], out: &mut Reply) -> Result<(), Fault<'a>> {
    match int(args[1])? {
        0 => out.ok(),
        _ => out.error("ERR SELECT is not allowed in cluster mode"),
    }
    Ok(())
}

/// Answers at once: a write of this connection that was acknowledged is held by W nodes, so W − 1
/// beside its coordinator, and one that was not has been answered with an error before this reply.
/// Waiting longer could only tell of copies that nobody promised.
fn wait<'a>(
    server: &Server,
    session: &Session,
    args: &[&'a [u8]],
    out: &mut Reply,
) -> Result<(), Fault<'a>> {
    integer(args[1])?;
    match plain_integer(args[2]) {
        None => out.error("ERR timeout is not an integer or out of range"),
        Some(..0) => out.error("ERR timeout is negative"),
        Some(_) => {
            let contract = server.node.topology().contract();
            let asked = session.asked.w.map_or(contract.w(), usize::from);
            out.integer(asked.min(contract.n()) as i64 - 1);
        }
    }
    Ok(())
}
