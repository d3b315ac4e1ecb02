//! One node, from its settings to its end.

use std::io::{IsTerminal, Read};
use std::net::SocketAddr;
use std::process::ExitCode;

use kvorum::config::settings::{LogFormat, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tracing_subscriber::EnvFilter;

/// Set to 1 for a node that shall also stop when its standard input ends: a child whose parent
/// was killed without a chance to say so.
pub(crate) const STOP_WITH_STDIN: &str = "KVORUM_STOP_WITH_STDIN";

/// `always` colours the log although it is not written to a terminal (but through a pipe to one).
pub(crate) const LOG_COLOR: &str = "KVORUM_LOG_COLOR";

/// Runs a node until it is told to stop.
pub(crate) fn run_server(settings: Settings) -> ExitCode {
    begin_log(&settings);
    for remark in settings.remarks() {
        tracing::warn!("{remark}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(settings.threads)
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

/// Until the node's shell is wired in here, clients get `+PONG` for whatever they say.
async fn serve(settings: &Settings) -> std::io::Result<()> {
    let address = SocketAddr::new(settings.bind, settings.port);
    let clients = TcpListener::bind(address).await?;
    tracing::info!("{} of cluster {} serves {address}", settings.node, settings.cluster);
    let stop = told_to_stop();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            why = &mut stop => {
                tracing::info!("stops: {}", why?);
                return Ok(());
            }
            client = clients.accept() => {
                let (stream, _) = client?;
                tokio::spawn(answer(stream));
            }
        }
    }
}

async fn answer(mut stream: TcpStream) {
    let mut request = [0; 512];
    while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
        if stream.write_all(b"+PONG\r\n").await.is_err() {
            return;
        }
    }
}

/// Waits for Ctrl-C, SIGTERM or, if asked for, the end of standard input. Says which it was.
async fn told_to_stop() -> std::io::Result<&'static str> {
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let parent_gone = stdin_ended();
    tokio::select! {
        _ = interrupt.recv() => Ok("interrupted"),
        _ = terminate.recv() => Ok("told to terminate"),
        Ok(()) = parent_gone => Ok("the parent is gone"),
    }
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
