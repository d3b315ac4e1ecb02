//! Replays the transcripts that claim Redis's answers against Redis itself.
//!
//! `scripts/bless.sh` starts the servers and runs this; nothing here is part of `cargo test`.
//! With `--write` as third argument, answers that differ are put into the files, for a person to
//! read and commit: that is how a transcript is written in the first place.

#[path = "../blackbox/support/client.rs"]
#[allow(dead_code, reason = "the black-box tests use more of it")]
mod client;
#[path = "../blackbox/support/transcript.rs"]
#[allow(dead_code, reason = "the black-box tests use more of it")]
mod transcript;

use std::net::SocketAddr;
use std::process::ExitCode;

use client::{Client, Value};
use transcript::{Oracle, Transcript, Way};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let addresses: Vec<SocketAddr> = args.iter().filter_map(|arg| arg.parse().ok()).collect();
    let &[plain, cluster] = addresses.as_slice() else {
        eprintln!("usage: bless PLAIN-ADDRESS CLUSTER-ADDRESS [--write]");
        return ExitCode::from(2);
    };
    let is_writing = args.iter().any(|arg| arg == "--write");
    let (mut count, mut differences) = (0, 0);
    for transcript in transcript::all() {
        let address = match transcript.oracle {
            Oracle::Nobody => continue,
            Oracle::Redis => plain,
            Oracle::RedisCluster => cluster,
        };
        count += 1;
        prepare(&transcript, address);
        if is_writing {
            transcript.rewrite(&[address], Way::Stay(0)).expect("the file can be written");
        } else if let Err(difference) = transcript.replay(&[address], Way::Stay(0)) {
            differences += 1;
            eprint!("{difference}");
        }
        undo(&transcript, address);
    }
    println!("bless: {count} transcripts against Redis, {differences} differ");
    if differences == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn prepare(transcript: &Transcript, address: SocketAddr) {
    say(address, None, &["FLUSHALL"]);
    if let Some(password) = &transcript.password {
        say(address, None, &["CONFIG", "SET", "requirepass", password]);
    }
}

fn undo(transcript: &Transcript, address: SocketAddr) {
    if let Some(password) = &transcript.password {
        say(address, Some(password), &["CONFIG", "SET", "requirepass", ""]);
    }
}

fn say(address: SocketAddr, password: Option<&str>, args: &[&str]) {
    let mut client = Client::connect(address).expect("Redis takes connections");
    if let Some(password) = password {
        assert_eq!(client.call(&["AUTH", password]).expect("an answer"), Value::ok());
    }
    assert_eq!(client.call(args).expect("an answer"), Value::ok(), "{args:?}");
}
