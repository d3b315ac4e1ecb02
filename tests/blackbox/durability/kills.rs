//! `kill -9` under load, again and again: every acknowledged write is there afterwards.
//!
//! `KVORUM_SOAK_KILLS` and `KVORUM_SOAK_MINUTES` (set by `scripts/soak.sh`) make it longer.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::cluster::{Cluster, Options};
use crate::support::load::{Judge, Work, Writer};
use crate::support::poll::until;

/// Longest time from a restart until every acknowledged write is seen through every node.
const HEALED_WITHIN: Duration = Duration::from_secs(20);

/// Longest time that a few pipelines may take.
const SERVED_WITHIN: Duration = Duration::from_secs(20);

fn number(variable: &str, default: usize) -> usize {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")),
        Err(_) => default,
    }
}

/// A loop of kills, and its figures.
struct Siege {
    cluster: Cluster,
    writers: Vec<Writer>,
    chance: u64,
    kills: usize,
    restarts: Vec<Duration>,
}

impl Siege {
    fn new(options: Options) -> Siege {
        let judge = match options.nodes {
            1 => Judge::Alone,
            _ if options.r + options.w > options.n => Judge::Quorum,
            _ => Judge::Eventual,
        };
        let writers = (0..4).map(|i| Writer::new(&format!("writer{i}"), judge)).collect();
        let chance = u64::from(std::process::id());
        let cluster = Cluster::with(options);
        Siege { cluster, writers, chance, kills: 0, restarts: vec![] }
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.chance = self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.chance >> 33) % below
    }

    fn nodes(&self) -> Vec<SocketAddr> {
        self.cluster.roster().into_iter().map(|(clients, _)| clients).collect()
    }

    /// Kills `victims` in the midst of work, lets the others go on for a while, restarts, checks.
    fn round(&mut self, victims: &[usize]) {
        let nodes = self.nodes();
        let work = Work::start(std::mem::take(&mut self.writers), &nodes);
        let goal = 20 + self.draw(200);
        await_batches(&work, goal);
        // Every other time while the log is being compacted. It may have refused: no matter.
        let is_compacting = self.draw(2) == 0;
        if is_compacting {
            victims.iter().for_each(|&node| {
                let _ = self.cluster.client(node).say("BGREWRITEAOF");
            });
        }
        // Anywhere within a pipeline, not always at the end of one.
        let pause = Duration::from_micros(self.draw(if is_compacting { 40_000 } else { 3_000 }));
        pass(pause);
        victims.iter().for_each(|&node| self.cluster.kill(node));
        self.kills += victims.len();
        if victims.len() < nodes.len() {
            await_batches(&work, work.batches() + 40);
        }
        self.restart(victims);
        if victims.len() < nodes.len() {
            await_batches(&work, work.batches() + 40);
        }
        self.writers = work.finish();
        self.check();
    }

    /// Starts `victims` again; every third time they are killed once more while they recover.
    fn restart(&mut self, victims: &[usize]) {
        if self.draw(3) == 0 {
            let pause = Duration::from_micros(self.draw(60_000));
            victims.iter().for_each(|&node| self.cluster.launch(node));
            pass(pause);
            victims.iter().for_each(|&node| self.cluster.kill(node));
            self.kills += victims.len();
        }
        let start = Instant::now();
        victims.iter().for_each(|&node| self.cluster.launch(node));
        victims.iter().for_each(|&node| self.cluster.await_node(node));
        self.restarts.push(start.elapsed());
    }

    /// Every key, through any node. A node alone must be right at once.
    fn check(&mut self) {
        let count = self.nodes().len();
        let within = if count == 1 { Duration::ZERO } else { HEALED_WITHIN };
        let mut writers = std::mem::take(&mut self.writers);
        let node = 1 + self.draw(count as u64) as usize;
        let mut client = self.cluster.client(node);
        for writer in &mut writers {
            until(&format!("node {node} holds all"), within, || {
                let wrong = writer.check(&mut client).inspect_err(|_| {
                    // Replies to the rest of a pipeline may be on their way.
                    client = self.cluster.client(node);
                })?;
                if wrong.is_empty() { Ok(()) } else { Err(self.complaint(&wrong)) }
            });
        }
        self.writers = writers;
    }

    /// Some of what is wrong, and what every node has to say about the first key of it.
    fn complaint(&self, wrong: &[String]) -> String {
        let mut text = format!("{} wrong:\n", wrong.len());
        wrong.iter().take(5).for_each(|line| text.push_str(&format!("{line}\n")));
        let key = wrong[0].split(' ').next().expect("a line begins with its key");
        for node in 1..=self.nodes().len() {
            let explained = self.cluster.client(node).call(&["KV.EXPLAIN", key]);
            let explained = explained.map_or_else(|why| why.to_string(), |reply| reply.text());
            text.push_str(&format!("node {node} of {key}: {}\n", explained.replace('\n', " ")));
        }
        text
    }

    /// The figures, in the words that `scripts/soak.sh` looks for.
    fn report(mut self, name: &str) {
        self.restarts.sort_unstable();
        let at =
            |share: usize| self.restarts[(self.restarts.len() - 1) * share / 100].as_secs_f64();
        let sum = |of: fn(&Writer) -> u64| self.writers.iter().map(of).sum::<u64>();
        println!(
            "soak: {name}: kills {}, writes acknowledged {}, refused {}, lost 0, restart seconds \
             median {:.2} p90 {:.2} longest {:.2}",
            self.kills,
            sum(|writer| writer.acknowledged),
            sum(|writer| writer.refused),
            at(50),
            at(90),
            at(100),
        );
    }
}

/// Lets a moment pass: not to wait for anything, but so that death comes at any moment.
fn pass(pause: Duration) {
    let start = Instant::now();
    while start.elapsed() < pause {
        thread::yield_now();
    }
}

fn await_batches(work: &Work, goal: u64) {
    until("batches are answered", SERVED_WITHIN, || match work.batches() {
        done if done >= goal => Ok(()),
        done => Err(format!("{done} of {goal}")),
    });
}

/// Kills until there were enough: `kills` in an ordinary run.
fn besiege(name: &str, kills: usize, options: Options, victims: impl Fn(u64) -> Vec<usize>) {
    let kills = number("KVORUM_SOAK_KILLS", kills);
    let end = Duration::from_secs(60 * number("KVORUM_SOAK_MINUTES", 10) as u64);
    let start = Instant::now();
    let mut siege = Siege::new(options);
    while siege.kills < kills && start.elapsed() < end {
        let drawn = siege.draw(1 << 20);
        siege.round(&victims(drawn));
    }
    siege.report(name);
}

#[test]
fn a_node_alone_that_syncs_every_second() {
    let options =
        Options::new(1, 1, 1, 1).args("--appendfsync everysec --lanes 3 --segment-size 1mb");
    besiege("one node, everysec", 8, options, |_| vec![1]);
}

#[test]
fn a_node_alone_that_syncs_always() {
    let options = Options::new(1, 1, 1, 1).args("--appendfsync always --segment-size 1mb");
    besiege("one node, always", 8, options, |_| vec![1]);
}

#[test]
fn a_node_alone_with_little_memory() {
    let args = "--appendfsync everysec --segment-size 1mb --maxmemory 3mb";
    let options = Options::new(1, 1, 1, 1).args(args);
    besiege("one node, everysec, maxmemory 3mb", 5, options, |_| vec![1]);
}

/// One of three nodes, or, one time in four, all three at once.
fn one_or_all(drawn: u64) -> Vec<usize> {
    match drawn % 4 {
        0 => vec![1, 2, 3],
        _ => vec![1 + (drawn as usize >> 4) % 3],
    }
}

#[test]
fn three_nodes_eventual() {
    let options = Options::new(3, 3, 1, 2).args("--appendfsync everysec --segment-size 1mb");
    besiege("three nodes, eventual, everysec", 6, options, one_or_all);
}

#[test]
fn three_nodes_quorum() {
    let options = Options::new(3, 3, 2, 2).args("--appendfsync everysec --segment-size 1mb");
    besiege("three nodes, quorum, everysec", 6, options, one_or_all);
}
