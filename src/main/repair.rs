//! `kvorum repair`: has a cluster's replicas compared and mended, and shows how far that is.
//!
//! ```text
//!  KV.REPAIR [vnode] ──▶ :comparisons ──▶ KV.REPAIR STATUS … until nothing is pending     0
//!                                            └──▶ comparisons given up, or no answer      1
//! ```
//!
//! The work is the nodes'; whoever stops this command stops nothing.

use std::io::{self, IsTerminal, Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Arg, ArgMatches, Command, value_parser};
use kvorum::base::size::thousands;
use kvorum::resp::decode::decode;
use kvorum::resp::nested::Nested;
use kvorum::resp::reply::Protocol;

/// How long the node may take for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// How often progress is asked for.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Longest reply that is read.
const REPLY_SIZE_MAX: usize = 1 << 16;

/// Characters of the bar.
const BAR_WIDTH: usize = 32;

const AFTER: &str = "\
Every vnode's coordinator compares it with all other replicas, twice, and both sides get what they \
lack, deletes too. How fast is bounded by the nodes' --exchange-rate. The password of clients is \
taken from KVORUM_REQUIREPASS. Stopping this command does not stop the repair.";

/// `kvorum repair` as the command line knows it.
pub(crate) fn repair_command() -> Command {
    let host = Arg::new("host").long("host").value_name("HOST").default_value("127.0.0.1");
    let port = Arg::new("port").long("port").value_name("PORT").env("KVORUM_PORT");
    let vnode = Arg::new("vnode").long("vnode").value_name("NUMBER");
    Command::new("repair")
        .about("Compares and mends all replicas of a cluster, or of one vnode, and waits for it")
        .after_help(AFTER)
        .args([
            host.help("Where any node of the cluster listens"),
            port.help("The node's port for clients")
                .value_parser(value_parser!(u16).range(1..))
                .default_value("6379"),
            vnode.help("Only this vnode").value_parser(value_parser!(u16)),
        ])
}

/// Asks for the repair and waits until it is through.
pub(crate) fn run_repair(flags: &ArgMatches) -> ExitCode {
    let host: &String = flags.get_one("host").expect("it has a default");
    let port: u16 = *flags.get_one("port").expect("it has a default");
    let vnode: Option<u16> = flags.get_one("vnode").copied();
    match repair(host, port, vnode) {
        Ok(last) => {
            println!("{}", last.told());
            if last.given_up == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(why) => {
            eprintln!("kvorum: {host}:{port}: {why}");
            ExitCode::FAILURE
        }
    }
}

fn repair(host: &str, port: u16, vnode: Option<u16>) -> io::Result<Progress> {
    let mut node = Asked::connect(host, port)?;
    let which = vnode.map_or("ALL".to_owned(), |vnode| vnode.to_string());
    if node.ask(&["KV.REPAIR", &which])? == Nested::Integer(0) {
        let so_far = Progress::read(&node.ask(&["KV.REPAIR", "STATUS"])?)?;
        if so_far.pending == 0 {
            return Ok(Progress::default());
        }
    }
    let (started, terminal) = (Instant::now(), io::stderr().is_terminal());
    loop {
        let progress = Progress::read(&node.ask(&["KV.REPAIR", "STATUS"])?)?;
        if terminal {
            // A terminal that is gone does not end the repair.
            let _ = write!(io::stderr(), "\r{} ", progress.bar(started.elapsed()));
        }
        if progress.pending == 0 {
            if terminal {
                eprintln!();
            }
            return Ok(progress);
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// What `KV.REPAIR STATUS` tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Progress {
    pending: u64,
    done: u64,
    given_up: u64,
    keys_differing: u64,
    keys_sent: u64,
    bytes_sent: u64,
}

impl Progress {
    fn read(reply: &Nested) -> io::Result<Progress> {
        let Nested::Array(items) = reply else { return Err(unexpected(reply)) };
        let number = |name: &str| {
            let mut pairs = items.chunks_exact(2);
            let pair = pairs.find(|pair| pair[0] == Nested::bulk(name.to_owned()));
            match pair.map(|pair| &pair[1]) {
                Some(Nested::Integer(number)) => Ok((*number).max(0) as u64),
                _ => Err(unexpected(reply)),
            }
        };
        Ok(Progress {
            pending: number("pending")?,
            done: number("done")?,
            given_up: number("given-up")?,
            keys_differing: number("keys-differing")?,
            keys_sent: number("keys-sent")?,
            bytes_sent: number("bytes-sent")?,
        })
    }

    fn bar(&self, elapsed: Duration) -> String {
        let over = self.done + self.given_up;
        let total = (over + self.pending).max(1);
        let full = (over as usize * BAR_WIDTH) / total as usize;
        let left = match over {
            0 => "…".to_owned(),
            _ => format!("{} s left", elapsed.as_secs() * self.pending / over),
        };
        format!(
            "[{}{}] {over}/{total} comparisons, {} keys differ, {left}   ",
            "#".repeat(full),
            ".".repeat(BAR_WIDTH - full),
            thousands(self.keys_differing),
        )
    }

    fn told(&self) -> String {
        if self.done + self.given_up == 0 {
            return "nothing to compare: no vnode has another replica in reach".to_owned();
        }
        let mut told = format!(
            "{} comparisons done: {} keys differed, {} entries ({} bytes) sent",
            thousands(self.done),
            thousands(self.keys_differing),
            thousands(self.keys_sent),
            thousands(self.bytes_sent),
        );
        if self.given_up > 0 {
            told += &format!("; {} given up because a link broke", thousands(self.given_up));
        }
        told
    }
}

fn unexpected(reply: &Nested) -> io::Error {
    let text = match reply {
        Nested::Error(text) => String::from_utf8_lossy(text).into_owned(),
        _ => format!("an unexpected answer: {reply:?}"),
    };
    io::Error::other(text)
}

/// A connection on which one request at a time is asked.
struct Asked(TcpStream);

impl Asked {
    fn connect(host: &str, port: u16) -> io::Result<Asked> {
        let stream = TcpStream::connect((host, port))?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        stream.set_write_timeout(Some(ANSWER_MAX))?;
        let mut node = Asked(stream);
        if let Ok(password) = std::env::var("KVORUM_REQUIREPASS") {
            node.ask(&["AUTH", &password])?;
        }
        Ok(node)
    }

    /// The answer to a request; an error reply is an error.
    fn ask(&mut self, words: &[&str]) -> io::Result<Nested> {
        let mut request = format!("*{}\r\n", words.len());
        words.iter().for_each(|word| request += &format!("${}\r\n{word}\r\n", word.len()));
        self.0.write_all(request.as_bytes())?;
        let mut reply = Vec::new();
        while reply.len() < REPLY_SIZE_MAX {
            let mut bytes = [0; 4096];
            let read = self.0.read(&mut bytes)?;
            if read == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection closed"));
            }
            reply.extend_from_slice(&bytes[..read]);
            if let Some((reply, _)) = decode(&reply, Protocol::Resp2).map_err(io::Error::other)? {
                let refused = matches!(reply, Nested::Error(_));
                return if refused { Err(unexpected(&reply)) } else { Ok(reply) };
            }
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "the answer does not end"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_and_drawn() {
        let pairs = [
            ("pending", 3),
            ("done", 1),
            ("given-up", 0),
            ("keys-differing", 1_234),
            ("keys-sent", 9),
            ("keys-received", 8),
            ("bytes-sent", 7),
            ("bytes-received", 6),
        ];
        let items = pairs.map(|(name, number)| [Nested::bulk(name), Nested::Integer(number)]);
        let progress = Progress::read(&Nested::Array(items.concat())).unwrap();
        assert_eq!((progress.pending, progress.keys_sent, progress.bytes_sent), (3, 9, 7));
        let bar = progress.bar(Duration::from_secs(4));
        assert!(bar.starts_with("[########........................] 1/4 comparisons, 1,234 keys"));
        assert!(bar.contains("12 s left"), "{bar}");
        assert!(Progress::read(&Nested::error("ERR no")).is_err());
    }

    #[test]
    fn the_command_line_is_sound() {
        repair_command().debug_assert();
    }
}
