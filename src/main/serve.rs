//! One node, from its settings to its end.

use std::io::{self, IsTerminal, Read};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use kvorum::config::settings::{LogFormat, Settings};
use kvorum::node::{self, Node};
use kvorum::peer::stream::Bounds;
use kvorum::ring::topology::Topology;
use kvorum::server::{self, Server};
use kvorum::storage::disk::RealDisk;
use kvorum::storage::life::Life;
use kvorum::storage::log::{self, Layout, Log};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tracing_subscriber::EnvFilter;

/// Set to 1 for a node that shall also stop when its standard input ends: a child whose parent
/// was killed without a chance to say so.
pub(crate) const STOP_WITH_STDIN: &str = "KVORUM_STOP_WITH_STDIN";

/// `always` colours the log although it is not written to a terminal (but through a pipe to one).
pub(crate) const LOG_COLOR: &str = "KVORUM_LOG_COLOR";

/// Tasks that a thread runs before it asks the system for new events, as long as some are ready. Two
/// for each of sixty sessions, the first to run a command and the second to answer it.
const POLLS_BEFORE_EVENTS: u32 = 128;

/// Runs a node until it is told to stop.
pub(crate) fn run_server(settings: Settings) -> ExitCode {
    begin_log(&settings);
    for remark in settings.remarks() {
        tracing::warn!("{remark}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(settings.threads)
        .event_interval(POLLS_BEFORE_EVENTS)
        .thread_name("kvorum")
        .enable_all()
        .build();
    let outcome = runtime.and_then(|runtime| runtime.block_on(serve(&settings)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            tracing::error!("{} cannot serve: {why}", settings.node);
            ExitCode::FAILURE
        }
    }
}

fn begin_log(settings: &Settings) {
    let filter = EnvFilter::new(&settings.log);
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match settings.log_format {
        LogFormat::Text => log.with_ansi(colours()).init(),
        LogFormat::Json => log.json().init(),
    }
}

fn colours() -> bool {
    let asked = std::env::var_os(LOG_COLOR).is_some_and(|when| when == "always");
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    asked || std::io::stderr().is_terminal() && !refused
}

/// Starts the node, opens the door, and closes both when told to. The door is open while the log is
/// read: clients are told that the node is loading, and how far it is.
async fn serve(settings: &Settings) -> io::Result<()> {
    let topology = Topology::from_members(
        &settings.cluster,
        settings.members.clone(),
        settings.vnodes,
        settings.contract,
    )
    .map_err(io::Error::other)?;
    let clients = TcpListener::bind(SocketAddr::new(settings.bind, settings.port)).await?;
    let peers = TcpListener::bind(SocketAddr::new(settings.bind, settings.peer_port)).await?;
    let secret = settings.secret.as_ref().map_or("", |secret| secret.reveal());
    let (life, log) = open_folder(settings, secret)?;
    let options = node::Options {
        node: settings.node,
        topology,
        secret: secret.as_bytes().to_vec(),
        request_timeout_ms: u32::try_from(settings.request_timeout.as_millis()).unwrap_or(u32::MAX),
        accept_damage: settings.accept_damage,
        stream_backlog: Bounds {
            bytes_max: settings.stream_backlog_size,
            age_ms_max: settings.stream_backlog_age.as_millis() as u64,
        },
        segment_size: settings.segment_size,
        exchange_interval_ms: settings.exchange_interval.as_millis() as u64,
        exchange_rate: settings.exchange_rate,
        hints_max: settings.hints_max,
    };
    let node = Node::new(options, Some(log), life.clone());
    node.set_maxmemory(settings.maxmemory);
    let server = Server::new(node.clone(), door(settings));
    let (stop, stopping) = watch::channel(false);
    let serving = tokio::spawn(server.serve(clients, stopping));
    let told = told_to_stop()?;
    tokio::pin!(told);
    let why = tokio::select! {
        why = &mut told => why,
        started = start(&node, peers) => {
            started?;
            let contract = node.topology().contract();
            tracing::info!(
                "{} of cluster {} serves clients on {}:{} ({contract})",
                settings.node,
                settings.cluster,
                settings.bind,
                settings.port,
            );
            told.await
        }
    };
    tracing::info!("stops: {why}");
    stop.send_replace(true);
    let _ = serving.await;
    node.shutdown().await;
    tokio::task::spawn_blocking(move || match node.close() {
        Ok(true) => life.end_cleanly(),
        // Told to stop while it was loading: nothing was written, and nothing is known to be whole.
        Ok(false) => Ok(()),
        Err(why) => Err(io::Error::other(format!("the log was not closed: {why}"))),
    })
    .await
    .map_err(io::Error::other)?
}

/// Takes the data folder for this process, and opens the log in it.
fn open_folder(settings: &Settings, secret: &str) -> io::Result<(Arc<Life>, Arc<Log>)> {
    let cluster = format!("{}\n{}", settings.cluster, node::hash_seed(secret.as_bytes()).0);
    let wanted = Layout {
        vnodes: settings.vnodes,
        lanes: settings.lanes,
        cluster: xxhash_rust::xxh3::xxh3_64(cluster.as_bytes()),
    };
    let life = Arc::new(Life::begin(&settings.data_dir, wanted)?);
    let options = log::Options { segment_size: settings.segment_size, fsync: settings.fsync };
    let folder = settings.data_dir.join("log");
    let log = Log::open(Arc::new(RealDisk), folder, life.layout(), options)?;
    Ok((life, log))
}

/// Reads the log, and begins to talk to the peers.
async fn start(node: &Arc<Node>, peers: TcpListener) -> io::Result<()> {
    let loading = node.clone();
    let losses = tokio::task::spawn_blocking(move || loading.load());
    let losses = losses.await.map_err(io::Error::other)??;
    node.start(peers, &losses).await
}

fn door(settings: &Settings) -> server::Options {
    server::Options {
        port: settings.port,
        bind: settings.bind.to_string(),
        data_dir: settings.data_dir.display().to_string(),
        changeable: server::Changeable {
            requirepass: settings.requirepass.as_ref().map(|word| word.reveal().to_owned()),
            maxclients: settings.maxclients,
            timeout_s: settings.timeout.map_or(0, |timeout| timeout.as_secs()),
            tcp_keepalive_s: settings.tcp_keepalive.map_or(0, |every| every.as_secs()),
            proto_max_bulk_len: settings.proto_max_bulk_len,
            client_query_buffer_limit: settings.client_query_buffer_limit,
            client_output_buffer_limit: settings.client_output_buffer_limit.unwrap_or(0),
            maxmemory: settings.maxmemory,
            fsync: settings.fsync,
        },
    }
}

/// Waits for Ctrl-C, SIGTERM or, if asked for, the end of standard input. Says which it was.
fn told_to_stop() -> io::Result<impl Future<Output = &'static str>> {
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let parent_gone = stdin_ended();
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => "interrupted",
            _ = terminate.recv() => "told to terminate",
            Ok(()) = parent_gone => "the parent is gone",
        }
    })
}

/// Fires at the end of standard input; never if nobody asked for that.
fn stdin_ended() -> oneshot::Receiver<()> {
    let (ended, receiver) = oneshot::channel();
    if std::env::var_os(STOP_WITH_STDIN).is_some_and(|value| value == "1") {
        // A thread, because a blocked read of standard input cannot be cancelled: the process
        // ends with it.
        std::thread::spawn(move || {
            let mut byte = [0];
            while std::io::stdin().read(&mut byte).is_ok_and(|read| read > 0) {}
            ended.send(())
        });
    }
    receiver
}
