//! One request: its row, its permission, and who runs it.

use tokio::time::Instant;

use crate::base::id::Slot;
use crate::base::limits::KEY_SIZE_MAX;
use crate::command::blocking::patience;
use crate::command::flags::Flag;
use crate::command::help;
use crate::command::introspect;
use crate::command::spec::{Run, Spec};
use crate::command::table::resolve;
use crate::coordinator::contract::Override;
use crate::node::execute::{Request, Submitted};
use crate::resp::reply::Reply;
use crate::ring::slot::slot_of;

use super::Server;
use super::session::{Arguments, Blocked, Session, Talk, WRITE_EARLY};
use super::{cluster, connection, info, kv, saving, settings};

impl Session {
    /// Runs one request. Its reply is in `out`, or in the connection's ring, now or later.
    /// `slot` is that of the first argument, if it is known.
    pub(super) fn dispatch(
        &mut self,
        server: &Server,
        args: &[&[u8]],
        slot: Option<Slot>,
        out: &mut Reply,
    ) {
        out.protocol = self.protocol;
        let mark = out.bytes.len();
        if self.talk == Talk::SkipNext {
            self.talk = Talk::Skip;
        }
        match resolve(args) {
            Ok(spec) => {
                self.last = spec.name;
                self.run(server, spec, args, slot, self.asked, out);
            }
            Err(refusal) => refusal.write(args, out),
        }
        if out.bytes.get(mark) == Some(&b'-') {
            server.node.metrics().total_error_replies.bump();
        }
        if self.is_hushed() {
            out.bytes.truncate(mark);
        }
        if self.talk == Talk::Skip {
            self.talk = Talk::On;
        }
        self.place(out, mark);
    }

    /// Runs as many of these requests as ask the same command of the same key, if they are several and
    /// nothing stands against running them in one go. So many were run and answered.
    ///
    /// `slots` are those of their first arguments.
    pub(super) fn dispatch_row(
        &mut self,
        server: &Server,
        requests: &[(Arguments<'_>, usize)],
        slots: &[Slot],
        out: &mut Reply,
    ) -> usize {
        let [(args, _), others @ ..] = requests else { return 0 };
        let is_alike = |other: &Arguments<'_>, slot: Slot| {
            slot == slots[0] && other.len() > 1 && other[0] == args[0] && other[1] == args[1]
        };
        let others = others.iter().zip(&slots[1..]).map(|((other, _), &slot)| (other, slot));
        let mut alike = others.take_while(|(other, slot)| is_alike(other, *slot)).peekable();
        let is_open = self.is_admitted() && !server.node.is_loading();
        if alike.peek().is_none() || !is_open || self.pending > 0 || self.talk != Talk::On {
            return 0;
        }
        let Ok(spec) = resolve(args) else { return 0 };
        if !spec.writes_one_key() || args[1].len() > KEY_SIZE_MAX {
            return 0;
        }
        self.last = spec.name;
        out.protocol = self.protocol;
        let request = Request {
            spec,
            args,
            slot: Some(slots[0]),
            protocol: self.protocol,
            asked: self.asked,
            readonly: self.readonly,
        };
        let others = alike.map(|(args, _)| &args[..]);
        let others = others.take_while(|args| spec.accepts(args.len()));
        server.node.submit_row(&mut self.batch, &request, others, WRITE_EARLY, out)
    }

    /// Whether the client does not want this command's reply (`CLIENT REPLY`).
    fn is_hushed(&self) -> bool {
        matches!(self.talk, Talk::Off | Talk::Skip)
    }

    /// Runs a request whose row is known, with these wishes for R and W.
    pub(super) fn run(
        &mut self,
        server: &Server,
        spec: &'static Spec,
        args: &[&[u8]],
        slot: Option<Slot>,
        asked: Override,
        out: &mut Reply,
    ) {
        if !self.is_admitted() && !spec.flags.has(Flag::NoAuth) {
            return out.error("NOAUTH Authentication required.");
        }
        if server.node.is_loading() && !spec.flags.has(Flag::Loading) {
            return out.error("LOADING Redis is loading the dataset in memory");
        }
        if args.iter().any(|arg| arg.len() > KEY_SIZE_MAX)
            && let Ok(places) = spec.keys_of(args)
            && places.into_iter().any(|place| args[place].len() > KEY_SIZE_MAX)
        {
            return out.error(format!("ERR key is longer than {KEY_SIZE_MAX} bytes"));
        }
        if let Run::Session = spec.run {
            return self.run_here(server, spec, args, out);
        }
        let request =
            Request { spec, args, slot, protocol: self.protocol, asked, readonly: self.readonly };
        let submitted = server.node.submit(&mut self.batch, &request, out, &self.replies);
        if submitted == Submitted::Pending && self.keeps_order(server, asked) {
            self.note_order(spec, args);
        }
        if submitted == Submitted::Pending && spec.flags.has(Flag::Blocking) {
            // More than a clock can show is for ever.
            let patience = patience(spec, args);
            let until = patience.and_then(|patience| Instant::now().checked_add(patience));
            self.blocked = Some(Blocked { until });
        }
        self.submitted(submitted);
    }

    /// Takes note of a reply that comes later.
    pub(super) fn submitted(&mut self, submitted: Submitted) {
        if submitted == Submitted::Pending {
            self.pending += 1;
            if self.is_hushed() {
                self.replies.hush_last();
            }
        }
    }

    /// Commands that the connection answers by itself.
    fn run_here(&mut self, server: &Server, spec: &'static Spec, args: &[&[u8]], out: &mut Reply) {
        let family = spec.name.split('|').next().unwrap_or(spec.name);
        match family {
            _ if spec.short_name() == "help" && spec.name.contains('|') => {
                help_of(family, out);
            }
            "command" => introspect::run(spec, args, out),
            "cluster" | "readonly" | "readwrite" => {
                cluster::run(server, self, spec, args, out);
            }
            "info" | "time" => info::run(server, spec, args, out),
            "bgsave" | "save" | "lastsave" | "bgrewriteaof" => {
                saving::run(server, self, spec, args, out);
            }
            "config" => settings::run(server, self, spec, args, out),
            "kv.status" => super::status::run(server, out),
            "kv.quorum" | "kv.explain" | "kv.compare" => kv::run(server, self, spec, args, out),
            _ => connection::run(server, self, spec, args, out),
        }
    }

    /// Whether requests ask several replicas, so that two for one key may overtake each other.
    fn keeps_order(&self, server: &Server, asked: Override) -> bool {
        server.node.quorum().strict() || asked.r.is_some_and(|r| r > 1)
    }

    fn note_order(&mut self, spec: &Spec, args: &[&[u8]]) {
        if let Ok(places) = spec.keys_of(args) {
            self.ordered.extend(places.into_iter().map(|place| slot_of(args[place]).0));
        }
    }

    /// Whether an earlier request for one of these keys is still under way.
    pub(super) fn conflicts(&self, args: &[&[u8]]) -> bool {
        self.pending > 0 && !self.ordered.is_empty() && touches(self, args)
    }
}

fn touches(session: &Session, args: &[&[u8]]) -> bool {
    let Ok(spec) = resolve(args) else { return false };
    match spec.keys_of(args) {
        Ok(places) => {
            places.into_iter().any(|place| session.ordered.contains(&slot_of(args[place]).0))
        }
        // KV.QUORUM as a prefix, FLUSHALL and the like: after everything before.
        Err(_) => !matches!(spec.run, Run::Session) || spec.name == "kv.quorum",
    }
}

fn help_of(family: &str, out: &mut Reply) {
    if let Some(container) = crate::command::table::lookup(family.as_bytes()) {
        help::write(container, out);
    }
}
