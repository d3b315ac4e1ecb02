//! A load generator for writes that must reach more than one copy.
//!
//! `redis-benchmark` cannot follow its SETs by `WAIT 1 0`, which is what Redis offers where
//! Kvorum waits for W by itself; so both are loaded by this one, and the wait is a flag:
//!
//! ```text
//! wait_load --ports 7001[,7002…] --clients 50 --pipeline 16 --requests 200000 [--wait 1] [--cluster]
//!
//!   client: | SET SET … SET  [WAIT 1 0] |  --one write-->  server
//!           |  OK  OK …  OK  [:1]       |  <--all replies before the next batch
//! ```
//!
//! With `--cluster` each client holds a connection to every port and sends a batch's commands
//! to the owners that `CLUSTER SLOTS` names. One thread drives all clients: it must cost less than
//! the servers. Prints one line: requests per second, and the p50 and p99 of a batch in ms.

use std::collections::HashMap;
use std::error::Error;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Parser;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};

#[derive(Parser, Clone, Debug)]
struct Options {
    /// Where to connect; with --cluster the nodes' other ports are learnt
    #[arg(long, value_delimiter = ',', required = true)]
    ports: Vec<u16>,
    #[arg(long, default_value_t = 50)]
    clients: usize,
    #[arg(long, default_value_t = 1)]
    pipeline: usize,
    #[arg(long, default_value_t = 100_000)]
    requests: usize,
    /// Bytes of a value
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// Distinct keys
    #[arg(long, default_value_t = 100_000)]
    keyspace: u64,
    /// Replicas that `WAIT` asks for after each batch; none without
    #[arg(long)]
    wait: Option<u32>,
    /// Sends every command to its key's owner
    #[arg(long)]
    cluster: bool,
}

type Failure = Box<dyn Error + Send + Sync>;

/// Which of the connections owns a slot.
type Owners = Vec<u8>;

fn main() -> Result<(), Failure> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, run(options))
}

async fn run(mut options: Options) -> Result<(), Failure> {
    let owners = if options.cluster {
        tokio::time::timeout(Duration::from_secs(10), learn(&mut options)).await??
    } else {
        vec![0; 16_384]
    };
    let (options, owners) = (Rc::new(options), Rc::new(owners));
    let start = Instant::now();
    let mut clients = JoinSet::new();
    for id in 0..options.clients {
        clients.spawn_local(play(Rc::clone(&options), Rc::clone(&owners), id as u64));
    }
    let mut took = Vec::new();
    while let Some(batches) = clients.join_next().await {
        took.extend(batches??);
    }
    let seconds = start.elapsed().as_secs_f64();
    let requests = took.len() * options.pipeline;
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!("{:.0} rps p50 {:.3} p99 {:.3}", requests as f64 / seconds, at(0.5), at(0.99));
    Ok(())
}

/// Reads `CLUSTER SLOTS` from the first port: makes `ports` the masters', and answers who owns what.
async fn learn(options: &mut Options) -> Result<Owners, Failure> {
    let mut stream = TcpStream::connect(("127.0.0.1", options.ports[0])).await?;
    stream.write_all(b"*2\r\n$7\r\nCLUSTER\r\n$5\r\nSLOTS\r\n").await?;
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    let ranges = loop {
        let len = stream.read(&mut buffer).await?;
        if len == 0 {
            return Err("the connection ended within CLUSTER SLOTS".into());
        }
        bytes.extend_from_slice(&buffer[..len]);
        if let Some(ranges) = ranges(&bytes) {
            break ranges;
        }
    };
    let mut ports = Vec::new();
    let mut owners = vec![0; 16_384];
    for (from, to, port) in ranges {
        let at = ports.iter().position(|&known| known == port).unwrap_or_else(|| {
            ports.push(port);
            ports.len() - 1
        });
        owners[from..=to].fill(at as u8);
    }
    options.ports = ports;
    Ok(owners)
}

/// The ranges of a `CLUSTER SLOTS` reply with their first node's port; `None` while incomplete.
fn ranges(bytes: &[u8]) -> Option<Vec<(usize, usize, u16)>> {
    let mut lines = bytes.split(|&byte| byte == b'\n');
    let mut line = || {
        let line = lines.next()?.strip_suffix(b"\r")?;
        std::str::from_utf8(line).ok().map(str::to_owned)
    };
    let number = |line: String| line.get(1..)?.parse::<usize>().ok();
    let count = number(line()?)?;
    let mut ranges = Vec::new();
    for _ in 0..count {
        let parts = number(line()?)?;
        let (from, to) = (number(line()?)?, number(line()?)?);
        let mut first = None;
        for _ in 2..parts {
            let fields = number(line()?)?;
            // The address, null where a node does not know its own.
            if line()? != "$-1" {
                line()?;
            }
            let port = number(line()?)?;
            first = first.or(Some(port));
            // The id, and the map of other names, which both may be empty.
            for _ in 2..fields {
                let head = line()?;
                match head.as_bytes().first()? {
                    b'$' if head == "$-1" => {}
                    b'$' => drop(line()?),
                    b'*' => {
                        for _ in 0..number(head)? {
                            line()?;
                            line()?;
                        }
                    }
                    _ => {}
                }
            }
        }
        ranges.push((from, to, u16::try_from(first?).ok()?));
    }
    Some(ranges)
}

/// One client: batch after batch, until its share of the requests is done.
async fn play(options: Rc<Options>, owners: Rc<Owners>, id: u64) -> Result<Vec<Duration>, Failure> {
    let mut streams = Vec::new();
    for &port in &options.ports {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        streams.push(stream);
    }
    let value = "x".repeat(options.size);
    let mut chance = id.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut took = Vec::new();
    let mut out: HashMap<usize, (Vec<u8>, usize)> = HashMap::new();
    let mut buffer = vec![0; 1 << 16];
    for _ in 0..options.requests.div_ceil(options.clients * options.pipeline) {
        out.clear();
        for _ in 0..options.pipeline {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let key = format!("key:{:012}", (chance >> 33) % options.keyspace);
            let to = owners[usize::from(slot(key.as_bytes()))] as usize;
            let (bytes, replies) = out.entry(to).or_default();
            let (key_len, value_len) = (key.len(), value.len());
            let head = format!("*3\r\n$3\r\nSET\r\n${key_len}\r\n{key}\r\n${value_len}\r\n");
            bytes.extend_from_slice(head.as_bytes());
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
            *replies += 1;
        }
        if let Some(replicas) = options.wait {
            for (bytes, replies) in out.values_mut() {
                let wait = format!("*3\r\n$4\r\nWAIT\r\n$1\r\n{replicas}\r\n$1\r\n0\r\n");
                bytes.extend_from_slice(wait.as_bytes());
                *replies += 1;
            }
        }
        let start = Instant::now();
        for (&to, (bytes, _)) in &out {
            streams[to].write_all(bytes).await?;
        }
        for (&to, (_, replies)) in &out {
            read_replies(&mut streams[to], *replies, options.wait, &mut buffer).await?;
        }
        took.push(start.elapsed());
    }
    Ok(took)
}

/// Reads so many one-line replies; anything but `+OK` and a satisfied `WAIT` ends the run.
async fn read_replies(
    stream: &mut TcpStream,
    replies: usize,
    wait: Option<u32>,
    buffer: &mut [u8],
) -> Result<(), Failure> {
    let mut seen = 0;
    let mut rest: Vec<u8> = Vec::new();
    while seen < replies {
        let len = stream.read(buffer).await?;
        if len == 0 {
            return Err("the server ended the connection".into());
        }
        rest.extend_from_slice(&buffer[..len]);
        let mut from = 0;
        while let Some(end) = rest[from..].windows(2).position(|two| two == b"\r\n") {
            let line = &rest[from..from + end];
            let is_waited = line.strip_prefix(b":").is_some_and(|digits| {
                let count = std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok());
                count.is_some_and(|count: u32| Some(count) >= wait)
            });
            if line != b"+OK" && !is_waited {
                return Err(String::from_utf8_lossy(line).into_owned().into());
            }
            seen += 1;
            from += end + 2;
        }
        rest.drain(..from);
    }
    Ok(())
}

/// Redis's slot of a key without a tag: CRC16/XMODEM.
fn slot(key: &[u8]) -> u16 {
    let crc = key.iter().fold(0u16, |crc, &byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    });
    crc % 16_384
}
