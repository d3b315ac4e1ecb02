//! Requests that no command takes, and what they are told: Redis 7.2's words exactly, since
//! clients look for them.

use crate::resp::reply::Reply;

use super::spec::Spec;

/// How many bytes of a name, and of all arguments together, are quoted.
const QUOTED_SIZE_MAX: usize = 128;

/// Why a request is refused before it is run. Nothing was done.
#[derive(Clone, Copy, Debug)]
pub enum Refusal {
    /// No command has that name.
    UnknownCommand,
    /// This container has no such subcommand.
    UnknownSubcommand(&'static Spec),
    /// This command takes another number of arguments.
    Arity(&'static Spec),
}

impl Refusal {
    /// Writes the error reply to the request `args`.
    pub fn write(self, args: &[&[u8]], reply: &mut Reply) {
        match self {
            Refusal::UnknownCommand => reply.error(unknown_command(args)),
            Refusal::UnknownSubcommand(container) => {
                let mut text = b"ERR unknown subcommand '".to_vec();
                text.extend_from_slice(quoted(args.get(1).copied().unwrap_or_default()));
                text.extend_from_slice(b"'. Try ");
                text.extend_from_slice(container.name.to_ascii_uppercase().as_bytes());
                text.extend_from_slice(b" HELP.");
                reply.error(text);
            }
            Refusal::Arity(spec) => arity(spec, reply),
        }
    }
}

/// Writes the error reply to a request of the wrong length. Commands that take pairs use it too.
pub fn arity(spec: &Spec, reply: &mut Reply) {
    reply.error(format!("ERR wrong number of arguments for '{}' command", spec.name));
}

fn unknown_command(args: &[&[u8]]) -> Vec<u8> {
    let mut text = b"ERR unknown command '".to_vec();
    text.extend_from_slice(quoted(args.first().copied().unwrap_or_default()));
    text.extend_from_slice(b"', with args beginning with: ");
    let start = text.len();
    for arg in args.iter().skip(1) {
        // The quotes and blanks count, but are written even where they cross the limit.
        let Some(room @ 1..) = QUOTED_SIZE_MAX.checked_sub(text.len() - start) else { break };
        let arg = quoted(arg);
        text.push(b'\'');
        text.extend_from_slice(&arg[..arg.len().min(room)]);
        text.extend_from_slice(b"' ");
    }
    text
}

/// The part of `arg` that an error shows: Redis prints it as a C string, up to a zero byte.
fn quoted(arg: &[u8]) -> &[u8] {
    let end = memchr::memchr(0, arg).unwrap_or(arg.len());
    &arg[..end.min(QUOTED_SIZE_MAX)]
}

#[cfg(test)]
mod tests {
    use crate::command::table;
    use crate::resp::reply::{Protocol, Reply};

    fn refused(args: &[&[u8]]) -> String {
        let mut reply = Reply::new(Protocol::Resp2);
        table::resolve(args).expect_err("no command").write(args, &mut reply);
        String::from_utf8_lossy(&reply.bytes).into_owned()
    }

    #[test]
    fn an_unknown_command_is_quoted_with_its_first_arguments() {
        let unknown = |rest: &str| format!("-ERR unknown command {rest}\r\n");
        assert_eq!(refused(&[b"foo"]), unknown("'foo', with args beginning with: "));
        let two = unknown("'foo', with args beginning with: 'a' 'b' ");
        assert_eq!(refused(&[b"foo", b"a", b"b"]), two);
        // As Redis 7 answered: a bar makes no subcommand, and the case stays.
        let bar = unknown("'CONFIG|GET', with args beginning with: 'a' ");
        assert_eq!(refused(&[b"CONFIG|GET", b"a"]), bar);
    }

    #[test]
    fn long_arguments_are_cut_as_redis_cuts_them() {
        let answer = |args: &[&[u8]]| {
            refused(args).split_once("with: ").map(|(_, rest)| rest.to_owned()).expect("arguments")
        };
        let (x, y) = ([b'x'; 200], [b'y'; 200]);
        assert_eq!(answer(&[b"foo", &x]), format!("'{}' \r\n", "x".repeat(128)));
        let both = format!("'{}' '{}' \r\n", "x".repeat(100), "y".repeat(25));
        assert_eq!(answer(&[b"foo", &x[..100], &y[..100]]), both);
        for (length, next) in [(124, "'y' "), (125, ""), (126, ""), (128, "")] {
            let expected = format!("'{}' {next}\r\n", "x".repeat(length));
            assert_eq!(answer(&[b"foo", &x[..length], b"y"]), expected);
        }
        let mut many = vec![&b"foo"[..]];
        many.resize(61, b"z");
        assert_eq!(answer(&many), format!("{}\r\n", "'z' ".repeat(32)));
        let long = refused(&[&[b'f'; 300], b"a"]);
        assert!(long.contains(&format!("'{}', with", "f".repeat(128))));
    }

    #[test]
    fn line_ends_and_zero_bytes_cannot_forge_a_reply() {
        let start = "-ERR unknown command 'fo  o', with args beginning with: ";
        let expected = format!("{start}'a  b' 'c' \r\n");
        assert_eq!(refused(&[b"fo\r\no", b"a\r\nb", b"c\0d"]), expected);
    }

    #[test]
    fn subcommands_and_lengths_have_their_own_words() {
        assert_eq!(
            refused(&[b"Config", b"Foo", b"a"]),
            "-ERR unknown subcommand 'Foo'. Try CONFIG HELP.\r\n"
        );
        assert_eq!(refused(&[b"GET"]), "-ERR wrong number of arguments for 'get' command\r\n");
        assert_eq!(
            refused(&[b"CONFIG", b"GET"]),
            "-ERR wrong number of arguments for 'config|get' command\r\n"
        );
        assert_eq!(
            refused(&[b"config"]),
            "-ERR wrong number of arguments for 'config' command\r\n"
        );
        assert_eq!(
            refused(&[b"mset", b"a", b"1", b"b"]),
            "-ERR wrong number of arguments for 'mset' command\r\n"
        );
    }
}
