//! CLIENT: what a connection says of itself, and what it may see of and do to the others.

use crate::command::fault::Fault;
use crate::command::number::{is, plain_integer};
use crate::command::spec::Spec;
use crate::resp::reply::Reply;

use super::Server;
use super::clients::{Client, Told};
use super::session::{Session, Talk};

/// Why a name was not taken. Nothing was changed.
pub(super) const NAME_REFUSED: &str =
    "ERR Client names cannot contain spaces, newlines or special characters.";

/// Why a CLIENT command was refused: the error's line. Nothing was done.
type Refused = Vec<u8>;

/// Runs one of CLIENT's subcommands.
pub(super) fn run(
    server: &Server,
    session: &mut Session,
    spec: &Spec,
    args: &[&[u8]],
    out: &mut Reply,
) {
    session.show(spec.name);
    let done = match spec.short_name() {
        "id" => {
            out.integer(session.client.id as i64);
            Ok(())
        }
        "getname" => {
            match session.client.words.lock().name.as_str() {
                "" => out.null(),
                name => out.bulk(name.as_bytes()),
            }
            Ok(())
        }
        "info" => {
            out.verbatim(&(session.client.line(session.batch.now()) + "\n"));
            Ok(())
        }
        "setname" => set_name(session, args, out),
        "setinfo" => set_library(session, args, out),
        "list" => list(server, session, args, out),
        "kill" => kill(server, session, args, out),
        "reply" => reply(session, args, out),
        "no-evict" => switch(args, out, |on| session.client.words.lock().no_evict = on),
        "no-touch" => switch(args, out, |on| session.client.words.lock().no_touch = on),
        name => unreachable!("CLIENT {name} has a row and no words"),
    };
    if let Err(refused) = done {
        out.error(refused);
    }
}

fn syntax() -> Refused {
    Fault::Syntax.line()
}

/// Whether a text would not break the lines and fields of CLIENT LIST.
pub(super) fn is_plain(text: &[u8]) -> bool {
    text.iter().all(|byte| (b'!'..=b'~').contains(byte))
}

fn set_name(session: &Session, args: &[&[u8]], out: &mut Reply) -> Result<(), Refused> {
    if !is_plain(args[2]) {
        return Err(NAME_REFUSED.into());
    }
    session.client.words.lock().name = text(args[2]);
    out.ok();
    Ok(())
}

fn set_library(session: &Session, args: &[&[u8]], out: &mut Reply) -> Result<(), Refused> {
    let (attribute, value) = (args[2], args[3]);
    let mut words = session.client.words.lock();
    let place = match attribute {
        word if is(word, "lib-name") => &mut words.library,
        word if is(word, "lib-ver") => &mut words.library_version,
        _ => return Err([b"ERR Unrecognized option '", attribute, b"'"].concat()),
    };
    if !is_plain(value) {
        let why = b" cannot contain spaces, newlines or special characters.";
        return Err([b"ERR ", attribute, why].concat());
    }
    *place = text(value);
    out.ok();
    Ok(())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn switch(args: &[&[u8]], out: &mut Reply, set: impl FnOnce(bool)) -> Result<(), Refused> {
    match args[2] {
        word if is(word, "on") => set(true),
        word if is(word, "off") => set(false),
        _ => return Err(syntax()),
    }
    out.ok();
    Ok(())
}

/// What is not said now is not said later either: see [`Session::dispatch`].
fn reply(session: &mut Session, args: &[&[u8]], out: &mut Reply) -> Result<(), Refused> {
    match args[2] {
        word if is(word, "on") => {
            session.talk = Talk::On;
            out.ok();
        }
        word if is(word, "off") => session.talk = Talk::Off,
        word if is(word, "skip") => {
            if session.talk != Talk::Off {
                session.talk = Talk::SkipNext;
            }
        }
        _ => return Err(syntax()),
    }
    Ok(())
}

/// Whether there are clients of this type: all are `normal`, for nobody subscribes or replicates
/// at this door.
fn holds_clients(kind: &[u8]) -> Result<bool, Refused> {
    match kind.to_ascii_lowercase().as_slice() {
        b"normal" => Ok(true),
        b"master" | b"slave" | b"replica" | b"pubsub" => Ok(false),
        _ => Err([b"ERR Unknown client type '", kind, b"'"].concat()),
    }
}

fn list(
    server: &Server,
    session: &Session,
    args: &[&[u8]],
    out: &mut Reply,
) -> Result<(), Refused> {
    let mut clients = server.clients.all();
    match &args[2..] {
        [] => {}
        [word, kind] if is(word, "type") => {
            if !holds_clients(kind)? {
                clients.clear();
            }
        }
        [word, ids @ ..] if is(word, "id") && !ids.is_empty() => {
            let ids = ids
                .iter()
                .map(|id| plain_integer(id).ok_or_else(|| b"ERR Invalid client ID".to_vec()))
                .collect::<Result<Vec<i64>, Refused>>()?;
            let position = |id: u64| ids.iter().position(|&asked| asked as u64 == id);
            clients.retain(|client| position(client.id).is_some());
            clients.sort_by_key(|client| position(client.id));
        }
        _ => return Err(syntax()),
    }
    let mut text = String::new();
    for client in clients {
        text += &client.line(session.batch.now());
        text.push('\n');
    }
    out.verbatim(&text);
    Ok(())
}

/// Whom CLIENT KILL is after.
#[derive(Default)]
struct Wanted<'a> {
    id: Option<u64>,
    address: Option<&'a [u8]>,
    local: Option<&'a [u8]>,
    nobody: bool,
    with_me: bool,
}

impl<'a> Wanted<'a> {
    fn parse(filters: &[&'a [u8]]) -> Result<Wanted<'a>, Refused> {
        let mut wanted = Wanted::default();
        for filter in filters.chunks(2) {
            let [word, value] = *filter else { return Err(syntax()) };
            match word.to_ascii_lowercase().as_slice() {
                b"id" => match plain_integer(value) {
                    Some(id @ 1..) => wanted.id = Some(id as u64),
                    _ => return Err(b"ERR client-id should be greater than 0".to_vec()),
                },
                b"type" => wanted.nobody |= !holds_clients(value)?,
                b"addr" => wanted.address = Some(value),
                b"laddr" => wanted.local = Some(value),
                b"user" if value == b"default" => {}
                b"user" => return Err([b"ERR No such user '", value, b"'"].concat()),
                b"skipme" if is(value, "yes") => wanted.with_me = false,
                b"skipme" if is(value, "no") => wanted.with_me = true,
                _ => return Err(syntax()),
            }
        }
        Ok(wanted)
    }

    fn is(&self, client: &Client) -> bool {
        let stands_at = |address: std::net::SocketAddr, asked: Option<&[u8]>| {
            asked.is_none_or(|asked| address.to_string().as_bytes() == asked)
        };
        !self.nobody
            && self.id.is_none_or(|id| client.id == id)
            && stands_at(client.address, self.address)
            && stands_at(client.local, self.local)
    }
}

fn kill(
    server: &Server,
    session: &mut Session,
    args: &[&[u8]],
    out: &mut Reply,
) -> Result<(), Refused> {
    // The old form names one address, and may name one's own.
    let old = args.len() == 3;
    let wanted = if old {
        Wanted { address: Some(args[2]), with_me: true, ..Wanted::default() }
    } else {
        Wanted::parse(&args[2..])?
    };
    let mut killed = 0;
    for client in server.clients.all().iter().filter(|client| wanted.is(client)) {
        if client.id != session.client.id {
            client.tell(Told::Close);
        } else if wanted.with_me {
            session.closing = true;
        } else {
            continue;
        }
        killed += 1;
    }
    match (old, killed) {
        (true, 0) => return Err(b"ERR No such client".to_vec()),
        (true, _) => out.ok(),
        (false, _) => out.integer(killed),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::base::time::UnixMs;
    use crate::server::clients::Clients;

    fn parse<'a>(filters: &[&'a str]) -> Result<Wanted<'a>, String> {
        let filters: Vec<&[u8]> = filters.iter().map(|word| word.as_bytes()).collect();
        Wanted::parse(&filters).map_err(|text| String::from_utf8(text).expect("UTF-8"))
    }

    #[test]
    fn filters_are_joined_by_and() {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let client = Clients::default().enter(address(5000), address(6379), 3, UnixMs(0));
        for (filters, expected) in [
            (&["ID", "1"][..], true),
            (&["id", "2"], false),
            (&["addr", "127.0.0.1:5000", "laddr", "127.0.0.1:6379", "user", "default"], true),
            (&["addr", "127.0.0.1:5000", "id", "2"], false),
            (&["type", "normal", "skipme", "no"], true),
            (&["type", "pubsub"], false),
        ] {
            assert_eq!(parse(filters).map(|wanted| wanted.is(&client)), Ok(expected));
        }
    }

    #[test]
    fn filters_that_are_none() {
        for (filters, expected) in [
            (&["id", "0"][..], "ERR client-id should be greater than 0"),
            (&["id", "x"], "ERR client-id should be greater than 0"),
            (&["type", "foo"], "ERR Unknown client type 'foo'"),
            (&["user", "bob"], "ERR No such user 'bob'"),
            (&["skipme", "maybe"], "ERR syntax error"),
            (&["a", "b"], "ERR syntax error"),
            (&["id", "1", "addr"], "ERR syntax error"),
        ] {
            assert_eq!(parse(filters).err().as_deref(), Some(expected), "{filters:?}");
        }
    }

    #[test]
    fn names_do_not_break_the_list() {
        assert!(is_plain(b"") && is_plain(b"worker-1"));
        for name in [&b"a b"[..], b"a\nb", b"\x7f", "ä".as_bytes()] {
            assert!(!is_plain(name));
        }
    }
}
