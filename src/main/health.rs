//! `kvorum health`: whether a node answers clients, as an exit code. For health checks of
//! containers and service managers, where no other client may be installed.
//!
//! ```text
//!  connect ──▶ PING ──▶ "+PONG", or "-NOAUTH …": it answers            0
//!     └──────────┴────▶ refused, closed, silent, anything else         1
//! ```
//!
//! A node that demands a password is told none here, and its refusal is an answer too.
//! Invariant: a silent node is waited for once, in all.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Arg, ArgMatches, Command, value_parser};
use kvorum::resp::decode::decode;
use kvorum::resp::nested::Nested;
use kvorum::resp::reply::Protocol;

/// How long the node may take, from connecting to its answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Longest reply that is read: enough to say what came instead.
const REPLY_SIZE_MAX: usize = 256;

/// `kvorum health` as the command line knows it.
pub(crate) fn health_command() -> Command {
    let host = Arg::new("host").long("host").value_name("HOST").default_value("127.0.0.1");
    let port = Arg::new("port").long("port").value_name("PORT").env("KVORUM_PORT");
    Command::new("health")
        .about("Asks a node for a PONG: exit code 0 if it answers clients, 1 if not")
        .args([
            host.help("Where the node listens"),
            port.help("The node's port for clients")
                .value_parser(value_parser!(u16).range(1..))
                .default_value("6379"),
        ])
}

/// Asks the node once.
pub(crate) fn run_health(flags: &ArgMatches) -> ExitCode {
    let host: &String = flags.get_one("host").expect("it has a default");
    let port: u16 = *flags.get_one("port").expect("it has a default");
    match answer((host, port), ANSWER_MAX) {
        Ok(reply) if is_alive(&reply) => {
            // A closed standard output does not make the node ill.
            let _ = writeln!(io::stdout(), "{host}:{port} answers");
            ExitCode::SUCCESS
        }
        Ok(reply) => {
            eprintln!("kvorum: {host}:{port} answers PING with {reply:?}");
            ExitCode::FAILURE
        }
        Err(why) => {
            eprintln!("kvorum: {host}:{port} does not answer: {why}");
            ExitCode::FAILURE
        }
    }
}

fn is_alive(reply: &Nested) -> bool {
    match reply {
        Nested::Simple(text) => text == "PONG",
        Nested::Error(text) => text.starts_with(b"NOAUTH "),
        _ => false,
    }
}

/// What the node answers to PING.
fn answer(address: (&str, u16), patience: Duration) -> io::Result<Nested> {
    let deadline = Instant::now() + patience;
    let mut refused = io::Error::new(ErrorKind::NotFound, "the host has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, left(deadline)?) {
            Ok(stream) => return ping(stream, deadline),
            Err(why) => refused = why,
        }
    }
    Err(refused)
}

fn ping(mut stream: TcpStream, deadline: Instant) -> io::Result<Nested> {
    stream.set_write_timeout(Some(left(deadline)?))?;
    stream.write_all(b"*1\r\n$4\r\nPING\r\n")?;
    let mut reply = Vec::new();
    while reply.len() < REPLY_SIZE_MAX {
        stream.set_read_timeout(Some(left(deadline)?))?;
        let mut bytes = [0; REPLY_SIZE_MAX];
        let read = stream.read(&mut bytes)?;
        if read == 0 {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "the connection was closed"));
        }
        reply.extend_from_slice(&bytes[..read]);
        if let Some((reply, _)) = decode(&reply, Protocol::Resp2).map_err(io::Error::other)? {
            return Ok(reply);
        }
    }
    Err(io::Error::new(ErrorKind::InvalidData, "the answer does not end"))
}

/// The time until `deadline`; it is never nothing, which would mean "no limit" to a socket.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::net::TcpListener;
    use std::thread;

    /// What is learned of a node that answers in these pieces and then says no more.
    fn learned(pieces: &'static [&'static [u8]], closes: bool) -> io::Result<Nested> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let node = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 14];
            stream.read_exact(&mut request).unwrap();
            assert_eq!(request, *b"*1\r\n$4\r\nPING\r\n");
            for piece in pieces {
                // The asker may have heard enough.
                let _ = stream.write_all(piece);
            }
            (!closes).then_some(stream)
        });
        let learned = answer(("127.0.0.1", port), Duration::from_millis(500));
        node.join().unwrap();
        learned
    }

    #[test]
    fn a_node_that_answers_is_alive() {
        assert!(is_alive(&learned(&[b"+PONG\r\n"], false).unwrap()));
        assert!(is_alive(&learned(&[b"+PO", b"NG\r", b"\n"], false).unwrap()));
        let locked = learned(&[b"-NOAUTH Authentication required.\r\n"], true).unwrap();
        assert!(is_alive(&locked));
    }

    #[test]
    fn anything_else_is_not() {
        assert!(!is_alive(&learned(&[b"-ERR max number of clients reached\r\n"], true).unwrap()));
        assert!(learned(&[&[b'x'; 4096]], false).is_err(), "no reply at all");
        assert!(learned(&[b"+", &[b'x'; 4096]], false).is_err(), "a line without end");
        assert_eq!(learned(&[b"+PONG"], true).unwrap_err().kind(), ErrorKind::UnexpectedEof);
        assert!(learned(&[b"+PONG"], false).is_err(), "a node that stops in mid-line");
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        assert!(answer(("127.0.0.1", port), Duration::from_millis(500)).is_err());
    }

    #[test]
    fn the_command_line_is_sound() {
        health_command().debug_assert();
    }
}
