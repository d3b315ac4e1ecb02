//! Commands that the door answers by itself: connection.

use crate::command::spec::Spec;
use crate::resp::reply::Reply;

use super::Server;
use super::session::Session;

/// Runs one of this file's commands.
pub(super) fn run(
    server: &Server,
    session: &mut Session,
    spec: &Spec,
    args: &[&[u8]],
    out: &mut Reply,
) {
    let _ = (server, session, args);
    match spec.name {
        "ping" => out.simple("PONG"),
        _ => out.error(format!("ERR '{}' is not answered yet", spec.name)),
    }
}
