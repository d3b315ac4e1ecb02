//! A load generator for more data than memory: it knows what every key must hold, and checks it.
//!
//! ```text
//! storage_load fill  --port 7001 --keys 1000000 --size 1024 --texture half
//! storage_load read  --port 7001 --keys 1000000 --size 1024 --texture half --requests 500000
//!                    [--spread zipf|uniform|sweep] [--first RANK] [--ranks COUNT]
//! storage_load write --port 7001 --keys 1000000 --size 512 --rate 20000 --seconds 60
//!
//!   rank 0, 1, 2, …   popularity: rank 0 is read most
//!        │  a permutation, so that neighbours in popularity are strangers on disk
//!        ▼
//!   key  k:0000000000 …   its value follows from its number and the texture
//! ```
//!
//! `zipf` draws ranks as YCSB does (Gray et al., "Quickly generating billion-record synthetic
//! databases", SIGMOD 1994); `sweep` takes every rank once. `--first` and `--ranks` cut a piece
//! out of the ranks: the popular few, or those that nobody read for long. `write` overwrites keys
//! at a steady rate; a write that had to wait for the reply before it is late by that wait, which
//! counts. One thread drives all clients. Prints one line; times in ms, of one pipeline each.

use std::cell::RefCell;
use std::error::Error;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand, ValueEnum};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};

#[derive(Parser, Debug)]
struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Clone, Debug)]
enum What {
    /// Writes every key once
    Fill(Common),
    /// Reads, and checks every answer
    Read(Read),
    /// Overwrites keys drawn by chance, at a steady rate
    Write(Write),
}

#[derive(clap::Args, Clone, Debug)]
struct Common {
    #[arg(long)]
    port: u16,
    #[arg(long)]
    keys: u64,
    /// Bytes of a value
    #[arg(long, default_value_t = 1_024)]
    size: usize,
    #[arg(long, value_enum, default_value_t = Texture::Noise)]
    texture: Texture,
    #[arg(long, default_value_t = 8)]
    clients: usize,
    #[arg(long, default_value_t = 16)]
    pipeline: usize,
}

#[derive(clap::Args, Clone, Debug)]
struct Read {
    #[command(flatten)]
    common: Common,
    /// At most so many; a sweep ends after every rank was read
    #[arg(long, default_value_t = u64::MAX)]
    requests: u64,
    #[arg(long, value_enum, default_value_t = Spread::Zipf)]
    spread: Spread,
    /// The most popular rank that is read
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// How many ranks are read, from the first; without, all that follow
    #[arg(long)]
    ranks: Option<u64>,
}

#[derive(clap::Args, Clone, Debug)]
struct Write {
    #[command(flatten)]
    common: Common,
    /// Writes per second, over all clients
    #[arg(long)]
    rate: f64,
    #[arg(long)]
    seconds: f64,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Texture {
    /// Bytes that nothing compresses
    Noise,
    /// Half of that, and half of the same again and again
    Half,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Spread {
    Zipf,
    Uniform,
    Sweep,
}

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let what = Options::parse().what;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let start = Instant::now();
        let tally = match what {
            What::Fill(common) => fill(common).await?,
            What::Read(read) => read_keys(read).await?,
            What::Write(write) => overwrite(write).await?,
        };
        println!("{}", tally.line(start.elapsed()));
        if tally.wrong > 0 { Err("wrong answers".into()) } else { Ok(()) }
    })
}

/// Counts and times; a power of two has 64 buckets, so a quantile is right to 1.6 %.
struct Tally {
    requests: u64,
    wrong: u64,
    buckets: Vec<u64>,
    max: Duration,
}

const PARTS: u64 = 64;

impl Tally {
    fn new() -> Tally {
        Tally { requests: 0, wrong: 0, buckets: vec![0; 64 * PARTS as usize], max: Duration::ZERO }
    }

    fn add(&mut self, took: Duration, requests: usize) {
        let nanos = (took.as_nanos() as u64).max(PARTS);
        let power = nanos.ilog2() - PARTS.ilog2();
        let bucket = u64::from(power) * PARTS + (nanos >> power) - PARTS;
        self.buckets[bucket as usize] += 1;
        self.requests += requests as u64;
        self.max = self.max.max(took);
    }

    /// In milliseconds.
    fn quantile(&self, share: f64) -> f64 {
        let total: u64 = self.buckets.iter().sum();
        let mut left = ((total as f64 * share).ceil() as u64).max(1);
        for (bucket, &count) in (0u64..).zip(&self.buckets) {
            if count >= left {
                let nanos = (bucket % PARTS + PARTS) << (bucket / PARTS);
                return nanos as f64 / 1e6;
            }
            left -= count;
        }
        0.0
    }

    fn line(&self, took: Duration) -> String {
        format!(
            "requests {} seconds {:.3} rps {:.0} wrong {} p50 {:.3} p99 {:.3} p999 {:.3} max {:.3}",
            self.requests,
            took.as_secs_f64(),
            self.requests as f64 / took.as_secs_f64(),
            self.wrong,
            self.quantile(0.5),
            self.quantile(0.99),
            self.quantile(0.999),
            self.max.as_secs_f64() * 1e3,
        )
    }
}

struct Chance(u64);

impl Chance {
    fn new(seed: u64) -> Chance {
        Chance(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// At least 0, below 1.
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The value of key `number` after `version` overwrites, at the end of `out`.
fn put_value(out: &mut Vec<u8>, number: u64, version: u64, common: &Common) {
    let end = out.len() + common.size;
    let noise_end = match common.texture {
        Texture::Noise => end,
        Texture::Half => end - common.size / 2,
    };
    let mut chance = Chance::new(number ^ version << 40);
    while out.len() < noise_end {
        out.extend_from_slice(&chance.next().to_le_bytes());
    }
    out.truncate(noise_end);
    out.extend(b"the same again; ".iter().cycle().take(end - noise_end));
}

fn key(number: u64) -> String {
    format!("k:{number:010}")
}

fn put_set(out: &mut Vec<u8>, number: u64, version: u64, common: &Common) {
    let head = format!("*3\r\n$3\r\nSET\r\n$12\r\n{}\r\n${}\r\n", key(number), common.size);
    out.extend_from_slice(head.as_bytes());
    put_value(out, number, version, common);
    out.extend_from_slice(b"\r\n");
}

/// Which key has which rank: multiplication by a number without a factor in common.
struct Shuffle {
    keys: u64,
    factor: u64,
}

impl Shuffle {
    fn new(keys: u64) -> Shuffle {
        let common = |mut a: u64, mut b: u64| {
            while b > 0 {
                (a, b) = (b, a % b);
            }
            a
        };
        let from = (keys as f64 * 0.618) as u64 | 1;
        let factor = (from..).find(|&factor| common(factor, keys) == 1).expect("a prime is near");
        Shuffle { keys, factor }
    }

    fn key(&self, rank: u64) -> u64 {
        (u128::from(rank) * u128::from(self.factor) % u128::from(self.keys)) as u64
    }
}

/// Draws ranks below `ranks` with a probability that falls as rank^-0.99.
struct Zipf {
    ranks: f64,
    zeta: f64,
    alpha: f64,
    eta: f64,
}

const THETA: f64 = 0.99;

impl Zipf {
    fn new(ranks: u64) -> Zipf {
        let zeta = |n: u64| (1..=n).map(|i| (i as f64).powf(-THETA)).sum::<f64>();
        let whole = zeta(ranks);
        let eta = (1.0 - (2.0 / ranks as f64).powf(1.0 - THETA)) / (1.0 - zeta(2) / whole);
        Zipf { ranks: ranks as f64, zeta: whole, alpha: 1.0 / (1.0 - THETA), eta }
    }

    fn draw(&self, chance: &mut Chance) -> u64 {
        let share = chance.share();
        let scaled = share * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < 1.0 + 0.5f64.powf(THETA) {
            return 1;
        }
        let rank = self.ranks * (self.eta * share - self.eta + 1.0).powf(self.alpha);
        (rank as u64).min(self.ranks as u64 - 1)
    }
}

/// A connection that reads replies of the two shapes that are due.
struct Link {
    stream: TcpStream,
    bytes: Vec<u8>,
    from: usize,
}

impl Link {
    async fn connect(port: u16) -> Result<Link, Failure> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        Ok(Link { stream, bytes: Vec::with_capacity(1 << 17), from: 0 })
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        Ok(self.stream.write_all(bytes).await?)
    }

    async fn more(&mut self) -> Result<(), Failure> {
        self.bytes.drain(..self.from);
        self.from = 0;
        if self.stream.read_buf(&mut self.bytes).await? == 0 {
            return Err("the server ended the connection".into());
        }
        Ok(())
    }

    /// The next line, without its end: where it lies.
    async fn line(&mut self) -> Result<(usize, usize), Failure> {
        loop {
            let rest = &self.bytes[self.from..];
            if let Some(len) = rest.windows(2).position(|two| two == b"\r\n") {
                let start = self.from;
                self.from += len + 2;
                return Ok((start, start + len));
            }
            self.more().await?;
        }
    }

    async fn ok(&mut self) -> Result<(), Failure> {
        let (start, end) = self.line().await?;
        match &self.bytes[start..end] {
            b"+OK" => Ok(()),
            other => Err(String::from_utf8_lossy(other).into_owned().into()),
        }
    }

    /// Whether the next reply is the bulk `expected`; an error reply ends the run.
    async fn is_bulk(&mut self, expected: &[u8]) -> Result<bool, Failure> {
        let (start, end) = self.line().await?;
        let head = &self.bytes[start..end];
        if head.first() != Some(&b'$') {
            return Err(String::from_utf8_lossy(head).into_owned().into());
        }
        let Some(len) = std::str::from_utf8(&head[1..])?.parse::<usize>().ok() else {
            return Ok(false);
        };
        while self.bytes.len() < self.from + len + 2 {
            self.more().await?;
        }
        let is_same = &self.bytes[self.from..self.from + len] == expected;
        self.from += len + 2;
        Ok(is_same)
    }
}

/// Runs `clients` of them, and answers the tally they share.
async fn crowd<F>(
    clients: usize,
    one: impl Fn(usize, Rc<RefCell<Tally>>) -> F,
) -> Result<Tally, Failure>
where
    F: Future<Output = Result<(), Failure>> + 'static,
{
    let tally = Rc::new(RefCell::new(Tally::new()));
    let mut all = JoinSet::new();
    for id in 0..clients {
        all.spawn_local(one(id, Rc::clone(&tally)));
    }
    while let Some(ended) = all.join_next().await {
        ended??;
    }
    drop(one);
    Rc::into_inner(tally).map(RefCell::into_inner).ok_or_else(|| "a client is left".into())
}

async fn fill(common: Common) -> Result<Tally, Failure> {
    let next = Rc::new(RefCell::new(0));
    let clients = common.clients;
    crowd(clients, |_, tally| {
        let (common, next) = (common.clone(), Rc::clone(&next));
        async move {
            let mut link = Link::connect(common.port).await?;
            let mut out = Vec::new();
            loop {
                let (first, end) = {
                    let mut next = next.borrow_mut();
                    let first = *next;
                    *next = common.keys.min(first + common.pipeline as u64);
                    (first, *next)
                };
                if first == end {
                    return Ok(());
                }
                out.clear();
                (first..end).for_each(|number| put_set(&mut out, number, 0, &common));
                let start = Instant::now();
                link.send(&out).await?;
                for _ in first..end {
                    link.ok().await?;
                }
                tally.borrow_mut().add(start.elapsed(), (end - first) as usize);
            }
        }
    })
    .await
}

/// Where the readers take the next rank from.
struct Ranks {
    read: Read,
    count: u64,
    zipf: Option<Zipf>,
    shuffle: Shuffle,
    taken: u64,
    chance: Chance,
}

impl Ranks {
    fn new(read: &Read) -> Ranks {
        let after = read.common.keys - read.first;
        let count = read.ranks.map_or(after, |ranks| ranks.min(after));
        Ranks {
            read: read.clone(),
            count,
            zipf: (read.spread == Spread::Zipf).then(|| Zipf::new(count)),
            shuffle: Shuffle::new(read.common.keys),
            taken: 0,
            chance: Chance::new(u64::from(std::process::id())),
        }
    }

    /// The next key to read.
    fn next(&mut self) -> Option<u64> {
        let most = match self.read.spread {
            Spread::Sweep => self.read.requests.min(self.count),
            _ => self.read.requests,
        };
        if self.taken == most {
            return None;
        }
        let rank = match (&self.zipf, self.read.spread) {
            (Some(zipf), _) => zipf.draw(&mut self.chance),
            (None, Spread::Sweep) => self.taken,
            (None, _) => self.chance.next() % self.count,
        };
        self.taken += 1;
        Some(self.shuffle.key(self.read.first + rank))
    }
}

async fn read_keys(read: Read) -> Result<Tally, Failure> {
    let ranks = Rc::new(RefCell::new(Ranks::new(&read)));
    let common = Rc::new(read.common);
    crowd(common.clients, |_, tally| {
        let (common, ranks) = (Rc::clone(&common), Rc::clone(&ranks));
        async move {
            let mut link = Link::connect(common.port).await?;
            let (mut out, mut expected) = (Vec::new(), Vec::new());
            loop {
                let numbers: Vec<u64> = {
                    let mut ranks = ranks.borrow_mut();
                    std::iter::from_fn(|| ranks.next()).take(common.pipeline).collect()
                };
                if numbers.is_empty() {
                    return Ok(());
                }
                out.clear();
                for &number in &numbers {
                    let get = format!("*2\r\n$3\r\nGET\r\n$12\r\n{}\r\n", key(number));
                    out.extend_from_slice(get.as_bytes());
                }
                let start = Instant::now();
                link.send(&out).await?;
                let mut wrong = 0;
                for &number in &numbers {
                    expected.clear();
                    put_value(&mut expected, number, 0, &common);
                    wrong += u64::from(!link.is_bulk(&expected).await?);
                }
                let mut tally = tally.borrow_mut();
                tally.add(start.elapsed(), numbers.len());
                tally.wrong += wrong;
            }
        }
    })
    .await
}

async fn overwrite(write: Write) -> Result<Tally, Failure> {
    let common = Rc::new(write.common);
    let clients = common.clients;
    let gap = Duration::from_secs_f64((clients * common.pipeline) as f64 / write.rate);
    let end = Instant::now() + Duration::from_secs_f64(write.seconds);
    crowd(clients, |id, tally| {
        let common = Rc::clone(&common);
        async move {
            let mut link = Link::connect(common.port).await?;
            let mut chance = Chance::new(id as u64);
            let mut out = Vec::new();
            let mut due = Instant::now() + gap.mul_f64(id as f64 / clients as f64);
            while due < end {
                // Late because the reply before it was slow: that counts. Late because a timer
                // is coarse: that does not.
                let start = if Instant::now() < due {
                    tokio::time::sleep_until(due.into()).await;
                    Instant::now()
                } else {
                    due
                };
                out.clear();
                for _ in 0..common.pipeline {
                    put_set(&mut out, chance.next() % common.keys, chance.next(), &common);
                }
                link.send(&out).await?;
                for _ in 0..common.pipeline {
                    link.ok().await?;
                }
                tally.borrow_mut().add(start.elapsed(), common.pipeline);
                due += gap;
            }
            Ok(())
        }
    })
    .await
}
