//! BGSAVE, SAVE, LASTSAVE and BGREWRITEAOF: a snapshot of this node, and its log compacted.
//!
//! Nothing is forked and nothing is copied, so the two do not exclude each other and nothing needs
//! to be scheduled. SAVE waits on a thread of its own: no other client waits with it.

use std::path::PathBuf;
use std::sync::Arc;

use crate::command::fault::Fault;
use crate::command::number::is;
use crate::command::spec::Spec;
use crate::node::execute::Submitted;
use crate::node::replies::{Replies, ReplyBytes};
use crate::resp::reply::{Protocol, Reply};

use super::Server;
use super::session::Session;

/// The folder of the snapshot, within the node's own.
pub(super) const SNAPSHOT: &str = "snapshot";

const UNDER_WAY: &str = "ERR Background save already in progress";

/// Runs one of this file's commands.
pub(super) fn run(
    server: &Server,
    session: &mut Session,
    spec: &Spec,
    args: &[&[u8]],
    out: &mut Reply,
) {
    match spec.name {
        "bgsave" => begin(server, args, out),
        "save" => save(server, session, out),
        "lastsave" => out.integer((server.node.last_save().0 / 1_000) as i64),
        "bgrewriteaof" if server.node.begin_rewrite() => {
            out.simple("Background append only file rewriting started");
        }
        _ => out.error("ERR Background append only file rewriting already in progress"),
    }
}

fn folder(server: &Server) -> PathBuf {
    PathBuf::from(&server.options.data_dir).join(SNAPSHOT)
}

fn begin(server: &Server, args: &[&[u8]], out: &mut Reply) {
    match args {
        [_] => {}
        [_, word] if is(word, "schedule") => {}
        _ => return out.error(Fault::Syntax.line()),
    }
    match server.node.begin_save() {
        Some(saving) => {
            saving.run(folder(server), |_| ());
            out.simple("Background saving started");
        }
        None => out.error(UNDER_WAY),
    }
}

fn save(server: &Server, session: &mut Session, out: &mut Reply) {
    let Some(saving) = server.node.begin_save() else { return out.error(UNDER_WAY) };
    let promise = Promise::new(&session.replies);
    saving.run(folder(server), move |outcome| match outcome {
        Ok(()) => promise.keep(|reply| reply.ok()),
        Err(error) => promise.keep(|reply| reply.error(format!("ERR {error}"))),
    });
    session.submitted(Submitted::Pending);
}

/// A reply that comes later. If it is forgotten, because its maker panicked, the client hears that.
struct Promise {
    replies: Arc<Replies>,
    place: u64,
    kept: bool,
}

impl Promise {
    fn new(replies: &Arc<Replies>) -> Promise {
        Promise { place: replies.reserve(), replies: replies.clone(), kept: false }
    }

    fn keep(mut self, write: impl FnOnce(&mut Reply)) {
        self.kept = true;
        self.fill(write);
    }

    fn fill(&self, write: impl FnOnce(&mut Reply)) {
        let mut reply = Reply::new(Protocol::Resp2);
        write(&mut reply);
        if self.replies.fill(self.place, ReplyBytes::from_slice(&reply.bytes)) {
            self.replies.wake();
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if !self.kept {
            self.fill(|reply| reply.error("ERR no snapshot was made"));
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    fn drained(replies: &Replies) -> String {
        let mut out = BytesMut::new();
        assert_eq!(replies.drain(&mut out), 0);
        String::from_utf8(out.to_vec()).expect("UTF-8")
    }

    #[test]
    fn a_promise_is_kept_or_its_breach_is_told() {
        let replies = Arc::new(Replies::default());
        Promise::new(&replies).keep(|reply| reply.ok());
        assert_eq!(drained(&replies), "+OK\r\n");
        drop(Promise::new(&replies));
        assert_eq!(drained(&replies), "-ERR no snapshot was made\r\n");
    }
}
