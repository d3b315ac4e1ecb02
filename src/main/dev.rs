//! `kvorum dev`: a cluster to try, as child processes of one command.
//!
//! ```text
//!  find ports ─▶ start children ─▶ every one answers PING ─▶ say what to try
//!                                                               │  a child ends: say so
//!  folder away ◀─ SIGTERM, 5 s, SIGKILL ◀─ Ctrl-C, SIGTERM, no child left
//! ```
//!
//! Invariant: when this process is gone, so are the children. If it is killed, their standard
//! input ends, and they stop by themselves.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use clap::{Arg, ArgMatches, Command, value_parser};
use kvorum::base::id::NodeId;
use kvorum::config::settings::Settings;
use kvorum::config::source::{ConfigError, Sources};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::ports::free_ports;
use super::refuse;
use super::serve::{LOG_COLOR, STOP_WITH_STDIN};

/// How long children may take to answer their first PING.
const READY_MAX: Duration = Duration::from_secs(30);

/// How long children may take to stop before they are killed.
const STOP_MAX: Duration = Duration::from_secs(5);

const AFTER: &str = "\
The nodes listen on 127.0.0.1, one after the other from --port up; ports that are taken are passed
by. All of them stop with Ctrl-C. Without --data-dir the data goes with them.

Example:

  kvorum dev --nodes 5 --n 3 --r 2 --w 2";

/// `kvorum dev` as the command line knows it.
pub(crate) fn dev_command() -> Command {
    let arg = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let nodes = arg("nodes", "COUNT", "How many nodes, up to 32")
        .value_parser(value_parser!(u16).range(1..=32))
        .default_value("3");
    let port = arg("port", "PORT", "The first port to try for clients")
        .value_parser(value_parser!(u16).range(1..))
        .default_value("6379");
    Command::new("dev")
        .about("Runs a cluster of several nodes on this machine, to try things")
        .args([
            nodes,
            port,
            arg("data-dir", "DIR", "Keeps the data here [default: a temporary folder]"),
            arg("n", "COUNT", "N: copies of a key [default: 3]"),
            arg("r", "COUNT", "R: copies that a read asks [default: 1]"),
            arg("w", "COUNT", "W: copies that a write must reach [default: 2]"),
            arg("log", "FILTER", "What the nodes log [default: info]"),
        ])
        .after_help(AFTER)
}

/// Runs a cluster until it is told to stop.
pub(crate) fn run_dev(flags: &ArgMatches) -> ExitCode {
    let (nodes, first) = (number(flags, "nodes"), number(flags, "port"));
    let ports = match free_ports(first, nodes.into()) {
        Ok(ports) => ports,
        Err(why) => return refuse("dev", &why),
    };
    if !ports.taken.is_empty() {
        say(&format!("taken, passed by: {}", list(&ports.taken)));
    }
    let folder = Folder::choose(flags.get_one::<String>("data-dir"));
    let cluster = match settings(flags, &ports.free, &folder.path) {
        Ok(cluster) => cluster,
        Err(why) => return refuse("dev", &why),
    };
    if let Err(why) = std::fs::create_dir_all(&folder.path) {
        return refuse("dev", &format!("{} cannot be made: {why}", folder.path.display()));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(run(&cluster))) {
        Ok(code) => code,
        Err(why) => {
            say(&format!("stopped: {why}"));
            ExitCode::FAILURE
        }
    }
}

fn number(flags: &ArgMatches, name: &str) -> u16 {
    *flags.get_one(name).expect("it has a default")
}

/// A line of this command's own.
fn say(line: &str) {
    // A closed standard output must not keep the children from being stopped.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

fn list(ports: &[u16]) -> String {
    ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
}

/// Where the data goes.
struct Folder {
    path: PathBuf,
    temporary: bool,
}

impl Folder {
    fn choose(named: Option<&String>) -> Folder {
        match named {
            Some(named) => Folder { path: named.into(), temporary: false },
            None => {
                let name = format!("kvorum-dev-{}-{:08x}", std::process::id(), chance() as u32);
                Folder { path: std::env::temp_dir().join(name), temporary: true }
            }
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.temporary {
            // Nothing is left to tell about a folder that cannot be removed.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// 64 bits from the operating system's source of chance, through the keys it gives to std's maps.
fn chance() -> u64 {
    std::hash::RandomState::new().hash_one(std::process::id())
}

/// The settings of each node: they share members, contract and a secret drawn by chance.
fn settings(
    flags: &ArgMatches,
    ports: &[u16],
    folder: &Path,
) -> Result<Vec<Settings>, ConfigError> {
    let secret = format!("{:016x}{:016x}", chance(), chance());
    let members: Vec<String> =
        ports.iter().zip(1..).map(|(port, id)| format!("{id}=127.0.0.1:{port}")).collect();
    let one = |id: usize| {
        let mut pairs = vec![
            ("node-id", id.to_string()),
            ("members", members.join(",")),
            ("secret", secret.clone()),
            ("data-dir", folder.join(format!("n{id}")).display().to_string()),
            ("cluster", "dev".to_owned()),
        ];
        for name in ["n", "r", "w", "log"] {
            pairs.extend(flags.get_one::<String>(name).map(|text| (name, text.clone())));
        }
        Settings::read(&Sources::of(pairs))
    };
    (1..=ports.len()).map(one).collect()
}

/// A child that was started and has not been seen to end.
struct Running {
    pid: Option<Pid>,
    /// Its standard input: the child stops when it ends.
    _stdin: Option<ChildStdin>,
}

/// The children that still run, and where the ends of the others are told.
struct Cluster {
    running: BTreeMap<NodeId, Running>,
    ended: mpsc::UnboundedReceiver<(NodeId, std::io::Result<ExitStatus>)>,
}

async fn run(settings: &[Settings]) -> std::io::Result<ExitCode> {
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut cluster = Cluster::start(settings)?;
    let work = async {
        tokio::select! {
            () = all_ready(settings) => say(&welcome(settings)),
            () = cluster.all_ended() => return ExitCode::FAILURE,
        }
        cluster.all_ended().await;
        ExitCode::FAILURE
    };
    let code = tokio::select! {
        code = work => code,
        _ = interrupt.recv() => ExitCode::SUCCESS,
        _ = terminate.recv() => ExitCode::SUCCESS,
    };
    cluster.stop().await;
    Ok(code)
}

impl Cluster {
    fn start(settings: &[Settings]) -> std::io::Result<Cluster> {
        let (ends, ended) = mpsc::unbounded_channel();
        let mut cluster = Cluster { running: BTreeMap::new(), ended };
        let program = std::env::current_exe()?;
        for node in settings {
            let mut child = start(&program, node)?;
            let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
            let running = Running { pid, _stdin: child.stdin.take() };
            cluster.running.insert(node.node, running);
            let (node, ends) = (node.node, ends.clone());
            tokio::spawn(async move {
                let status = child.wait().await;
                // Nobody listens any more once this command itself ends.
                let _ = ends.send((node, status));
            });
        }
        Ok(cluster)
    }

    /// The next child that ends.
    async fn one_ended(&mut self) -> Option<(NodeId, std::io::Result<ExitStatus>)> {
        let (node, status) = self.ended.recv().await?;
        self.running.remove(&node);
        Some((node, status))
    }

    /// Reports children that end until none is left.
    async fn all_ended(&mut self) {
        while !self.running.is_empty() {
            let Some((node, status)) = self.one_ended().await else { return };
            let how = status.map_or_else(|why| why.to_string(), |status| status.to_string());
            let left = self.running.len();
            say(&format!("{node} has ended ({how}); {left} still run"));
        }
    }

    /// Tells all to stop, waits, and kills those that do not.
    async fn stop(&mut self) {
        for signal in [Signal::TERM, Signal::KILL] {
            if self.running.is_empty() {
                return;
            }
            for pid in self.running.values().filter_map(|child| child.pid) {
                // It may have ended a moment ago.
                let _ = kill_process(pid, signal);
            }
            let deadline = Instant::now() + STOP_MAX;
            while !self.running.is_empty() && timeout_at(deadline, self.one_ended()).await.is_ok() {
            }
        }
    }
}

fn start(program: &Path, settings: &Settings) -> std::io::Result<Child> {
    let coloured = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let mut command = tokio::process::Command::new(program);
    // What is set for this command must not mean something to the children.
    for row in kvorum::config::row::ROWS {
        command.env_remove(row.variable());
    }
    command
        .args(settings.server_arguments())
        .envs(settings.server_environment())
        .env(STOP_WITH_STDIN, "1")
        .env(LOG_COLOR, if coloured { "always" } else { "never" })
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn()?;
    let prefix = prefix(settings.node, coloured);
    if let Some(lines) = child.stdout.take() {
        tokio::spawn(pass_on(prefix.clone(), lines));
    }
    if let Some(lines) = child.stderr.take() {
        tokio::spawn(pass_on(prefix, lines));
    }
    Ok(child)
}

/// What a node's lines begin with, each node in a colour of its own.
fn prefix(node: NodeId, coloured: bool) -> String {
    const COLOURS: [u8; 6] = [36, 33, 35, 32, 34, 31];
    let colour = COLOURS[(usize::from(node.0) - 1) % COLOURS.len()];
    if coloured { format!("\x1b[{colour}m{node} |\x1b[0m ") } else { format!("{node} | ") }
}

/// Writes a node's lines to standard output until they end.
async fn pass_on(prefix: String, lines: impl AsyncRead + Unpin) {
    let mut lines = BufReader::new(lines);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
        let text = String::from_utf8_lossy(&line);
        say(&format!("{prefix}{}", text.trim_end()));
        line.clear();
    }
}

/// Until every node answers PING, or the longest wait is over.
async fn all_ready(settings: &[Settings]) {
    let deadline = Instant::now() + READY_MAX;
    for node in settings {
        while !answers(node.port).await {
            if Instant::now() > deadline {
                say(&format!("{} has not answered PING yet", node.node));
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn answers(port: u16) -> bool {
    let ping = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(b"PING\r\n").await?;
        let mut reply = [0; 7];
        stream.read_exact(&mut reply).await?;
        std::io::Result::Ok(reply == *b"+PONG\r\n")
    };
    matches!(timeout(Duration::from_secs(1), ping).await, Ok(Ok(true)))
}

/// What to try first.
fn welcome(settings: &[Settings]) -> String {
    let ports: Vec<u16> = settings.iter().map(|node| node.port).collect();
    let (first, last) = (ports[0], ports[ports.len() - 1]);
    let contract = settings[0].contract.capped(ports.len());
    let (nodes, ports, them) = match ports.len() {
        1 => ("One node is".to_owned(), format!("port {first}"), "it"),
        count => (format!("{count} nodes are"), format!("ports {}", list(&ports)), "them all"),
    };
    format!(
        "\n{nodes} ready on 127.0.0.1, {ports}: {contract}. Any node serves any key. Try:\n\n\
         \x20 redis-cli -p {first} set greeting hello\n\
         \x20 redis-cli -p {last} get greeting\n\
         \x20 redis-cli -p {first} cluster nodes\n\n\
         Ctrl-C stops {them}.\n"
    )
}
