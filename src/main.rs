//! The command line: `kvorum server` runs a node, `kvorum dev` a whole cluster to try, `kvorum
//! health` asks whether a node answers, `kvorum status` who is there, `kvorum log` looks at the data
//! on disk, and `kvorum repair` has replicas compared and mended.

use std::process::ExitCode;

use clap::Command;
use kvorum::config::row::server_command;
use kvorum::config::settings::Settings;
use tikv_jemallocator::Jemalloc;

#[path = "main/asked.rs"]
mod asked;
#[path = "main/dev.rs"]
mod dev;
#[path = "main/health.rs"]
mod health;
#[path = "main/log.rs"]
mod log;
#[path = "main/ports.rs"]
mod ports;
#[path = "main/repair.rs"]
mod repair;
#[path = "main/serve.rs"]
mod serve;
#[path = "main/status.rs"]
mod status;

/// jemalloc gives memory back after a cluster shrank, which glibc's allocator does not.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Threads of the allocator's own return what is free after half a second, instead of whoever
/// happens to allocate next after ten.
///
/// jemalloc reads this symbol before `main`, as a C pointer to a C string. Exporting a name is
/// unsafe because two symbols of one name would be undefined behaviour; this name is the
/// documented one of jemalloc's builds for Rust, weak there and defined nowhere else. A reference
/// to an array is a plain pointer, and the text ends with NUL.
#[allow(unsafe_code)]
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static ALLOCATOR_SETTINGS: &[u8; 61] =
    b"background_thread:true,dirty_decay_ms:500,muzzy_decay_ms:500\0";

/// The exit code for a command line or settings that cannot be.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let matches = command().get_matches();
    match matches.subcommand() {
        Some(("server", flags)) => match Settings::from_command_line(flags) {
            Ok(settings) => serve::run_server(settings),
            Err(why) => refuse("server", &why),
        },
        Some(("dev", flags)) => dev::run_dev(flags),
        Some(("health", flags)) => health::run_health(flags),
        Some(("status", flags)) => status::run_status(flags),
        Some(("log", flags)) => log::run_log(flags),
        Some(("repair", flags)) => repair::run_repair(flags),
        _ => unreachable!("clap demands a subcommand and knows no other"),
    }
}

fn command() -> Command {
    Command::new("kvorum")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A leaderless key-value store that speaks the Redis protocol")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(server_command())
        .subcommand(dev::dev_command())
        .subcommand(health::health_command())
        .subcommand(status::status_command())
        .subcommand(log::log_command())
        .subcommand(repair::repair_command())
}

/// Says why nothing was started.
fn refuse(subcommand: &str, why: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("kvorum: {why}\nNothing was started. For all settings: kvorum {subcommand} --help");
    ExitCode::from(EXIT_USAGE)
}
