//! A cluster of real processes on this machine, and everything that may befall them.
//!
//! Whatever a test does, no process and no file outlives its [`Cluster`]. Nodes are numbered from
//! 1, as on the command line. A failing test prints the end of every node's log.
//!
//! `KVORUM_BIN` names another program to judge than the one cargo just built.

use std::fs::{self, File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::client::{Client, Value};
use super::links::Link;
use super::poll::until;

/// How long a node may take from its start to serving, on a machine that is busy with tests.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// How often ports are drawn anew because another process took one in between.
const STARTS_MAX: usize = 5;

/// Most nodes alive at once over all tests: they would starve each other's clocks.
const NODES_AT_ONCE_MAX: usize = 6;

/// What to start.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) nodes: usize,
    pub(crate) n: usize,
    pub(crate) r: usize,
    pub(crate) w: usize,
    pub(crate) password: Option<String>,
    /// Whether nodes see each other through relays that a test can cut.
    pub(crate) are_links_cuttable: bool,
    /// More arguments for every node.
    pub(crate) args: Vec<String>,
    /// Where the nodes' folders are made, if not among the cluster's own temporary files.
    pub(crate) folder: Option<PathBuf>,
    /// Whether permissions bind the nodes even if root runs the tests.
    pub(crate) is_bound_by_permissions: bool,
}

impl Options {
    pub(crate) fn new(nodes: usize, n: usize, r: usize, w: usize) -> Options {
        Options {
            nodes,
            n,
            r,
            w,
            password: None,
            are_links_cuttable: false,
            args: vec![],
            folder: None,
            is_bound_by_permissions: false,
        }
    }

    /// With more arguments, given as words.
    pub(crate) fn args(self, words: &str) -> Options {
        let args = words.split_ascii_whitespace().map(str::to_owned).collect();
        Options { args, ..self }
    }

    pub(crate) fn folder(self, folder: &Path) -> Options {
        Options { folder: Some(folder.to_owned()), ..self }
    }

    pub(crate) fn bound_by_permissions(self) -> Options {
        Options { is_bound_by_permissions: true, ..self }
    }

    pub(crate) fn password(self, password: &str) -> Options {
        Options { password: Some(password.to_owned()), ..self }
    }

    pub(crate) fn cuttable(self) -> Options {
        Options { are_links_cuttable: true, ..self }
    }
}

/// Running nodes.
#[derive(Debug)]
pub(crate) struct Cluster {
    options: Options,
    nodes: Vec<Node>,
    /// From node, to node (from 0), and the relay; empty unless links are cuttable.
    links: Vec<(usize, usize, Link)>,
    dir: TempDir,
    _places: Places,
}

#[derive(Debug)]
struct Node {
    port: u16,
    peer_port: u16,
    child: Option<Child>,
}

impl Cluster {
    /// Starts `nodes` nodes whose keys live on `n` of them, and waits until all serve and know each
    /// other.
    pub(crate) fn start(nodes: usize, n: usize, r: usize, w: usize) -> Cluster {
        Cluster::with(Options::new(nodes, n, r, w))
    }

    /// Starts what `options` say, and waits until all serve and know each other.
    pub(crate) fn with(options: Options) -> Cluster {
        let mut places = Some(Places::take(options.nodes));
        for attempt in 1.. {
            let mut cluster = Cluster::prepare(&options, places.take().expect("put back below"));
            (1..=options.nodes).for_each(|node| cluster.spawn(node));
            match cluster.await_ready() {
                Ok(()) => {
                    cluster.await_settled();
                    return cluster;
                }
                Err(what) if attempt < STARTS_MAX && what.contains("exited") => {
                    eprintln!("start {attempt}: {what}");
                    places = Some(std::mem::replace(&mut cluster._places, Places(0)));
                }
                Err(what) => panic!("the cluster did not become ready: {what}"),
            }
        }
        unreachable!("the loop only ends inside")
    }

    fn prepare(options: &Options, places: Places) -> Cluster {
        let count = options.nodes;
        let pairs = if options.are_links_cuttable { count * (count - 1) } else { 0 };
        let ports = free_ports(2 * count + pairs);
        let nodes: Vec<Node> = (0..count)
            .map(|i| Node { port: ports[2 * i], peer_port: ports[2 * i + 1], child: None })
            .collect();
        let mut links = Vec::new();
        if options.are_links_cuttable {
            let mut free = ports[2 * count..].iter();
            for from in 0..count {
                for to in (0..count).filter(|&to| to != from) {
                    let port = *free.next().expect("a port for every pair");
                    let link = Link::open(local(port), local(nodes[to].peer_port));
                    links.push((from, to, link));
                }
            }
        }
        let dir = TempDir::with_prefix("kvorum-").expect("a directory for the nodes");
        Cluster { options: options.clone(), nodes, links, dir, _places: places }
    }

    /// The members as node `i` (from 0) is told them.
    fn members(&self, i: usize) -> String {
        let peer_port = |to: usize| {
            let link = self.links.iter().find(|link| (link.0, link.1) == (i, to));
            link.map_or(self.nodes[to].peer_port, |link| link.2.address.port())
        };
        let member = |(to, node): (usize, &Node)| {
            format!("{}=127.0.0.1:{}@{}", to + 1, node.port, peer_port(to))
        };
        self.nodes.iter().enumerate().map(member).collect::<Vec<_>>().join(",")
    }

    /// The members as everybody should see them.
    pub(crate) fn roster(&self) -> Vec<(SocketAddr, SocketAddr)> {
        self.nodes.iter().map(|node| (local(node.port), local(node.peer_port))).collect()
    }

    fn spawn(&mut self, node: usize) {
        let log = OpenOptions::new().create(true).append(true).open(self.log(node)).expect("a log");
        let errors = log.try_clone().expect("a second handle of the log");
        let mut command = self.command(node);
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        self.nodes[node - 1].child = Some(command.spawn().expect("the program starts"));
    }

    fn command(&self, node: usize) -> Command {
        let Options { n, r, w, .. } = self.options;
        let mut command = program();
        if self.options.is_bound_by_permissions && rustix::process::geteuid().is_root() {
            command = powerless(&command);
        }
        command.arg("server").arg("--node-id").arg(node.to_string());
        command.arg("--port").arg(self.nodes[node - 1].port.to_string());
        command.arg("--peer-port").arg(self.nodes[node - 1].peer_port.to_string());
        command.arg("--members").arg(self.members(node - 1));
        command.args(["--secret", SECRET]).arg("--data-dir").arg(self.data_dir(node));
        for (flag, number) in [("--n", n), ("--r", r), ("--w", w)] {
            command.arg(flag).arg(number.to_string());
        }
        if let Some(password) = &self.options.password {
            command.args(["--requirepass", password]);
        }
        command.args(&self.options.args);
        command
    }

    fn await_ready(&mut self) -> Result<(), String> {
        (1..=self.options.nodes).try_for_each(|node| self.ready(node, READY_WITHIN))
    }

    /// Waits until every node has heard all others, has compared itself with them and is kept what
    /// it may miss: what befalls a node before that tells nothing of a cluster that runs.
    fn await_settled(&self) {
        for node in 1..=self.options.nodes {
            until("the nodes know each other", READY_WITHIN, || {
                let mut client = self.client(node);
                let mut number = |section, field| {
                    let value = client.info(section, field).map_err(|error| error.to_string())?;
                    if value == "0" { Ok(()) } else { Err(format!("n{node}: {field}:{value}")) }
                };
                number("quorum", "vnodes_unsettled")?;
                number("peers", "streams_with_gap")?;
                let told = client.say("KV.STATUS").map_err(|error| error.to_string())?.lines();
                let words: Vec<&str> = told.iter().map(|line| line.trim()).collect();
                let heard = |two: &&[&str]| two[0] == "\"counting\"" && two[1] == ":1";
                match words.windows(2).filter(heard).count() {
                    count if count == self.options.nodes => Ok(()),
                    count => Err(format!("n{node} has heard {count}")),
                }
            });
        }
    }

    /// Waits until `node` answers `PING` and finds its cluster in order.
    fn ready(&mut self, node: usize, within: Duration) -> Result<(), String> {
        let start = Instant::now();
        loop {
            let child =
                self.nodes[node - 1].child.as_mut().expect("only a running node is awaited");
            if let Some(status) = child.try_wait().expect("a child can be asked") {
                return Err(format!("node {node} exited ({status}): {}", self.log_end(node)));
            }
            let answer = self.health(node);
            if answer.as_deref().is_ok_and(|text| text.contains("cluster_state:ok")) {
                return Ok(());
            }
            if start.elapsed() > within {
                return Err(format!("node {node}: {answer:?}; {}", self.log_end(node)));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn health(&self, node: usize) -> std::io::Result<String> {
        let mut client = Client::connect_within(self.address(node), Duration::from_secs(2))?;
        if let Some(password) = &self.options.password {
            client.call(&["AUTH", password])?;
        }
        let pong = client.say("PING")?;
        if pong != Value::Simple("PONG".to_owned()) {
            return Ok(format!("PING: {pong:?}"));
        }
        Ok(client.say("CLUSTER INFO")?.text())
    }

    /// Waits until every node that runs is ready again.
    pub(crate) fn await_all(&mut self) {
        for node in 1..=self.options.nodes {
            if self.nodes[node - 1].child.is_some() {
                self.ready(node, READY_WITHIN).expect("the node becomes ready");
            }
        }
    }

    /// Where clients of `node` dial.
    pub(crate) fn address(&self, node: usize) -> SocketAddr {
        local(self.nodes[node - 1].port)
    }

    /// Where peers of `node` dial.
    pub(crate) fn peer_address(&self, node: usize) -> SocketAddr {
        local(self.nodes[node - 1].peer_port)
    }

    /// A connection to `node`, which must be up.
    pub(crate) fn client(&self, node: usize) -> Client {
        let mut client = Client::connect(self.address(node)).expect("the node takes connections");
        if let Some(password) = &self.options.password {
            assert_eq!(client.call(&["AUTH", password]).expect("an answer"), Value::ok());
        }
        client
    }

    fn child(&mut self, node: usize) -> &mut Child {
        self.nodes[node - 1].child.as_mut().expect("the node was started and not yet ended")
    }

    fn signal(&mut self, node: usize, signal: Signal) {
        let pid = Pid::from_child(self.child(node));
        kill_process(pid, signal).expect("a child of ours can be signalled");
    }

    /// `kill -9`: the process is gone when this returns.
    pub(crate) fn kill(&mut self, node: usize) {
        let mut child = self.nodes[node - 1].child.take().expect("the node runs");
        child.kill().expect("a child of ours can be killed");
        child.wait().expect("a killed child ends");
    }

    /// Freezes the process: its sockets stay open and silent.
    pub(crate) fn stop(&mut self, node: usize) {
        self.signal(node, Signal::STOP);
    }

    /// Lets a frozen process go on.
    pub(crate) fn resume(&mut self, node: usize) {
        self.signal(node, Signal::CONT);
    }

    /// Asks the process to end, and waits for it.
    pub(crate) fn terminate(&mut self, node: usize) -> ExitStatus {
        self.signal(node, Signal::TERM);
        let mut child = self.nodes[node - 1].child.take().expect("the node runs");
        let start = Instant::now();
        loop {
            if let Some(status) = child.try_wait().expect("a child can be asked") {
                return status;
            }
            if start.elapsed() > READY_WITHIN {
                let _ = child.kill();
                panic!("node {node} did not end on SIGTERM; {}", self.log_end(node));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Starts a node again that ended, with its old directory and ports, and waits for it.
    pub(crate) fn restart(&mut self, node: usize) {
        self.launch(node);
        self.await_node(node);
    }

    /// Starts a node again that ended, and does not wait for it.
    pub(crate) fn launch(&mut self, node: usize) {
        assert!(self.nodes[node - 1].child.is_none(), "node {node} still runs");
        self.spawn(node);
    }

    /// Waits until a launched node is ready.
    pub(crate) fn await_node(&mut self, node: usize) {
        self.ready(node, READY_WITHIN)
            .unwrap_or_else(|what| panic!("node {node} did not come back: {what}"));
    }

    /// Starts a node again that ended, and waits until it has given up: its status, and what it
    /// said this time.
    pub(crate) fn launch_in_vain(&mut self, node: usize) -> (ExitStatus, String) {
        let said_before = fs::read(self.log(node)).map_or(0, |log| log.len());
        self.launch(node);
        let status = until("the node gives up", READY_WITHIN, || {
            let status = self.child(node).try_wait().expect("a child can be asked");
            status.ok_or_else(|| "it runs".to_owned())
        });
        self.nodes[node - 1].child = None;
        let log = fs::read(self.log(node)).unwrap_or_default();
        (status, String::from_utf8_lossy(&log[said_before..]).into_owned())
    }

    /// All that `node` has logged in all its lives.
    pub(crate) fn log_text(&self, node: usize) -> String {
        String::from_utf8_lossy(&fs::read(self.log(node)).unwrap_or_default()).into_owned()
    }

    /// Other arguments for every start from now on, given as words.
    pub(crate) fn set_args(&mut self, words: &str) {
        self.options = self.options.clone().args(words);
    }

    /// The command that would start `node` on its folder, but on other ports and in a cluster of
    /// its own.
    pub(crate) fn rival(&self, node: usize) -> Command {
        let ports = free_ports(2);
        let mut command = program();
        command.args(["server", "--node-id", "1", "--secret", SECRET]);
        command.arg("--port").arg(ports[0].to_string());
        command.arg("--peer-port").arg(ports[1].to_string());
        command.arg("--data-dir").arg(self.data_dir(node));
        command
    }

    /// Cuts every link between nodes of different sides; nodes that are named nowhere stay as
    /// they are.
    pub(crate) fn split(&self, one: &[usize], other: &[usize]) {
        assert!(!self.links.is_empty(), "start the cluster with cuttable links");
        for (from, to, link) in &self.links {
            let (from, to) = (from + 1, to + 1);
            let crosses = (one.contains(&from) && other.contains(&to))
                || (other.contains(&from) && one.contains(&to));
            if crosses {
                link.cut();
            }
        }
    }

    /// Mends every link.
    pub(crate) fn heal(&self) {
        self.links.iter().for_each(|link| link.2.heal());
    }

    /// Bytes of real memory that `node` holds now.
    pub(crate) fn rss_bytes(&mut self, node: usize) -> u64 {
        let path = format!("/proc/{}/status", self.child(node).id());
        let status = fs::read_to_string(path).expect("a running process has a status");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
        let kib = line.split_ascii_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok());
        kib.expect("VmRSS is a number of kB") << 10
    }

    /// Whether the process of `node` still runs.
    pub(crate) fn is_alive(&mut self, node: usize) -> bool {
        self.child(node).try_wait().expect("a child can be asked").is_none()
    }

    /// The folder of `node`.
    pub(crate) fn data_dir(&self, node: usize) -> PathBuf {
        let parent = self.options.folder.as_deref().unwrap_or(self.dir.path());
        parent.join(format!("node-{node}"))
    }

    fn log(&self, node: usize) -> PathBuf {
        self.dir.path().join(format!("node-{node}.log"))
    }

    fn log_end(&self, node: usize) -> String {
        let log = fs::read(self.log(node)).unwrap_or_default();
        let end = String::from_utf8_lossy(&log[log.len().saturating_sub(3_000)..]).into_owned();
        format!("the end of its log:\n{end}")
    }

    /// The program with other arguments than `server`, told of the port of `node`: its status, and
    /// all that it printed.
    pub(crate) fn tool(&self, node: usize, args: &[&str]) -> (ExitStatus, String) {
        let mut command = program();
        command.args(args).arg("--port").arg(self.nodes[node - 1].port.to_string());
        let output = command.output().expect("the program starts");
        let printed = [output.stdout, output.stderr].concat();
        (output.status, String::from_utf8_lossy(&printed).into_owned())
    }

    /// Runs a node of no cluster of ours beside these, for as long as the guard lives.
    pub(crate) fn stranger(&self, args: &[String]) -> Stranger {
        let log = File::create(self.dir.path().join("stranger.log")).expect("a log");
        let dir = self.dir.path().join("stranger");
        let mut command = program();
        command.arg("server").args(args).arg("--data-dir").arg(dir);
        command.stdin(Stdio::null()).stderr(log).stdout(Stdio::null());
        Stranger(command.spawn().expect("the program starts"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(mut child) = node.child.take() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        if thread::panicking() {
            for node in 1..=self.options.nodes {
                eprintln!("node {node}, {}", self.log_end(node));
            }
        }
    }
}

/// A process that belongs to no cluster; killed when dropped.
#[derive(Debug)]
pub(crate) struct Stranger(Child);

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the nodes of a test share.
pub(crate) const SECRET: &str = "a secret of the tests";

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// The program with other arguments than `server`: its status, and all that it printed.
pub(crate) fn tool(args: &[&str], folder: &Path) -> (ExitStatus, String) {
    output_of(program().args(args).arg(folder))
}

/// Runs a tool of the program that asks nodes: how it ended, and what it printed.
pub(crate) fn tool_at(args: &[&str]) -> (ExitStatus, String) {
    output_of(program().args(args))
}

fn output_of(command: &mut Command) -> (ExitStatus, String) {
    let output = command.output().expect("the program starts");
    let printed = [output.stdout, output.stderr].concat();
    (output.status, String::from_utf8_lossy(&printed).into_owned())
}

/// The same command without root's right to pass by permissions.
fn powerless(command: &Command) -> Command {
    let mut other = Command::new("setpriv");
    other.arg("--bounding-set=-dac_override,-dac_read_search").arg(command.get_program());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => other.env(name, value),
            None => other.env_remove(name),
        };
    }
    other
}

fn program() -> Command {
    let path =
        std::env::var_os("KVORUM_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_kvorum").into());
    let mut command = Command::new(path);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("KVORUM_") {
            command.env_remove(name);
        }
    }
    command
}

/// Ports that were free a moment ago. They lie below the range that the kernel hands out to
/// dialling sockets, or a restarted node might find its port taken by one.
pub(crate) fn free_ports(count: usize) -> Vec<u16> {
    static NEXT: Mutex<u32> = Mutex::new(0);
    let mut next = NEXT.lock().expect("nobody panics with it");
    if *next == 0 {
        *next = std::process::id().wrapping_mul(7_919);
    }
    let mut held = Vec::new();
    while held.len() < count {
        *next = next.wrapping_add(1);
        let port = 11_000 + (*next % 20_000) as u16;
        held.extend(TcpListener::bind(local(port)));
    }
    held.iter().map(|held| held.local_addr().expect("it is bound").port()).collect()
}

/// The right to run so many nodes now.
#[derive(Debug)]
struct Places(usize);

static TAKEN: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

impl Places {
    fn take(count: usize) -> Places {
        assert!(count <= NODES_AT_ONCE_MAX);
        let mut taken = TAKEN.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        while *taken + count > NODES_AT_ONCE_MAX {
            taken = TAKEN.1.wait(taken).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        *taken += count;
        Places(count)
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        *TAKEN.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) -= self.0;
        TAKEN.1.notify_all();
    }
}
