//! HELLO and AUTH: which protocol, and who is speaking.
//!
//! There is one user, `default`, and its password is `requirepass`; without one anybody is let
//! in. Invariant: how long a refusal takes does not depend on how much of a guess was right.

use crate::command::number::{is, plain_integer};
use crate::resp::reply::{Protocol, Reply};

use super::client::{NAME_REFUSED, is_plain};
use super::session::Session;

/// The version that clients are told, since they choose by it what they may send. INFO tells
/// Kvorum's own.
pub(super) const REDIS_VERSION: &str = "7.2.0";

const WRONG_PASSWORD: &str = "WRONGPASS invalid username-password pair or user is disabled.";

const NO_PASSWORD: &str = "ERR AUTH <password> called without any password configured for the \
    default user. Are you sure your configuration is correct?";

const NOT_AUTHENTICATED: &str = "NOAUTH HELLO must be called with the client already \
    authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to \
    authenticate the client and select the RESP protocol version at the same time";

/// AUTH \[user\] password.
pub(super) fn auth(session: &mut Session, args: &[&[u8]], out: &mut Reply) {
    let (user, password) = match args {
        [_, password] if session.changeable.requirepass.is_some() => (&b"default"[..], password),
        [_, _] => return out.error(NO_PASSWORD),
        [_, user, password] => (*user, password),
        _ => return out.error("ERR syntax error"),
    };
    if admit(session, user, password) {
        out.ok();
    } else {
        out.error(WRONG_PASSWORD);
    }
}

/// Lets the connection in if this is who may come in.
fn admit(session: &mut Session, user: &[u8], password: &[u8]) -> bool {
    let known = match &session.changeable.requirepass {
        Some(expected) => is_password(expected.as_bytes(), password),
        None => true,
    };
    let admitted = known && user == b"default";
    session.authenticated |= admitted;
    admitted
}

/// Compares by keyed-hash digests, whose bytes tell a guesser nothing about the password's, and
/// those in constant time.
fn is_password(expected: &[u8], given: &[u8]) -> bool {
    blake3::hash(expected) == blake3::hash(given)
}

/// What HELLO's arguments ask.
#[derive(Default)]
struct Greeting<'a> {
    protocol: Option<Protocol>,
    login: Option<(&'a [u8], &'a [u8])>,
    name: Option<&'a [u8]>,
}

impl<'a> Greeting<'a> {
    fn parse(args: &[&'a [u8]]) -> Result<Greeting<'a>, Vec<u8>> {
        let mut greeting = Greeting::default();
        let [_, version, options @ ..] = args else { return Ok(greeting) };
        greeting.protocol = Some(match plain_integer(version) {
            Some(2) => Protocol::Resp2,
            Some(3) => Protocol::Resp3,
            Some(_) => return Err(b"NOPROTO unsupported protocol version".to_vec()),
            None => {
                return Err(b"ERR Protocol version is not an integer or out of range".to_vec());
            }
        });
        let mut rest = options;
        loop {
            rest = match rest {
                [] => return Ok(greeting),
                [word, user, password, rest @ ..] if is(word, "auth") => {
                    greeting.login = Some((user, password));
                    rest
                }
                [word, name, rest @ ..] if is(word, "setname") => {
                    if !is_plain(name) {
                        return Err(NAME_REFUSED.into());
                    }
                    greeting.name = Some(name);
                    rest
                }
                [word, ..] => {
                    return Err([b"ERR Syntax error in HELLO option '", *word, b"'"].concat());
                }
            };
        }
    }
}

/// HELLO [version [AUTH user password] [SETNAME name]]: all of it is done, or nothing.
pub(super) fn hello(session: &mut Session, args: &[&[u8]], out: &mut Reply) {
    let greeting = match Greeting::parse(args) {
        Ok(greeting) => greeting,
        Err(text) => return out.error(text),
    };
    if let Some((user, password)) = greeting.login
        && !admit(session, user, password)
    {
        return out.error(WRONG_PASSWORD);
    }
    if !session.is_admitted() {
        return out.error(NOT_AUTHENTICATED);
    }
    let mut words = session.client.words.lock();
    if let Some(name) = greeting.name {
        words.name = String::from_utf8_lossy(name).into_owned();
    }
    if let Some(protocol) = greeting.protocol {
        session.protocol = protocol;
    }
    let version = if session.protocol == Protocol::Resp3 { 3 } else { 2 };
    words.protocol = version;
    out.protocol = session.protocol;
    out.map(7);
    let text = |out: &mut Reply, name: &str, value: &str| {
        out.bulk(name.as_bytes());
        out.bulk(value.as_bytes());
    };
    text(out, "server", "redis");
    text(out, "version", REDIS_VERSION);
    out.bulk(b"proto");
    out.integer(i64::from(version));
    out.bulk(b"id");
    out.integer(session.client.id as i64);
    // Any node serves any key, but clients that ask for CLUSTER SLOTS only then save the hop.
    text(out, "mode", "cluster");
    text(out, "role", "master");
    out.bulk(b"modules");
    out.array(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(args: &[&str]) -> String {
        let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
        match Greeting::parse(&args) {
            Ok(_) => "granted".to_owned(),
            Err(text) => String::from_utf8(text).expect("UTF-8"),
        }
    }

    #[test]
    fn a_greeting_is_read_as_redis_reads_it() {
        for (args, expected) in [
            (&["hello"][..], "granted"),
            (&["hello", "3", "SetName", "a", "AUTH", "u", "p"], "granted"),
            (&["hello", "3", "auth", "setname", "auth"], "granted"),
            (&["hello", "4"], "NOPROTO unsupported protocol version"),
            (&["hello", "x"], "ERR Protocol version is not an integer or out of range"),
            (
                &["hello", "auth", "u", "p"],
                "ERR Protocol version is not an integer or out of range",
            ),
            (&["hello", "3", "auth", "u"], "ERR Syntax error in HELLO option 'auth'"),
            (&["hello", "2", "setname"], "ERR Syntax error in HELLO option 'setname'"),
            (
                &["hello", "2", "setname", "a b"],
                "ERR Client names cannot contain spaces, newlines or special characters.",
            ),
        ] {
            assert_eq!(refused(args), expected, "{args:?}");
        }
    }

    #[test]
    fn only_the_whole_password_is_the_password() {
        assert!(is_password(b"secret", b"secret"));
        for guess in [&b""[..], b"secre", b"secret ", b"Secret"] {
            assert!(!is_password(b"secret", guess));
        }
    }
}
