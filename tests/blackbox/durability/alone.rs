//! One node, ended in order and out of it; its snapshots; two processes on one folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use crate::support::client::{Client, Value};
use crate::support::cluster::{Cluster, Options};
use crate::support::filler::{noise, prose};
use crate::support::poll::until;

/// Longest wait for anything that a node does at once or in about a second.
const SOON: Duration = Duration::from_secs(20);

/// What a key holds, as far as clients see it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Seen {
    value: Value,
    /// Whether it will expire.
    is_lasting: bool,
}

/// Everything that the node holds.
fn everything(client: &mut Client) -> BTreeMap<Vec<u8>, Seen> {
    let Ok(Value::Array(keys)) = client.call(&["KEYS", "*"]) else { panic!("KEYS") };
    let mut seen = BTreeMap::new();
    for key in keys {
        let Value::Bulk(key) = key else { panic!("a key is a bulk: {key:?}") };
        let value = client.call(&[b"GET".as_slice(), &key]).expect("an answer");
        let ttl = client.call(&[b"PTTL".as_slice(), &key]).expect("an answer");
        let Value::Integer(ttl) = ttl else { panic!("PTTL: {ttl:?}") };
        seen.insert(key, Seen { value, is_lasting: ttl != -1 });
    }
    seen
}

/// Runs commands given as words, none of which may be refused.
fn run(client: &mut Client, commands: &[&str]) {
    for words in commands {
        let reply = client.say(words).expect("an answer");
        assert_eq!(reply.error_code(), None, "{words}: {reply:?}");
    }
}

fn await_gone(client: &mut Client, key: &str) {
    until(&format!("{key} expires"), SOON, || match client.call(&["GET", key]) {
        Ok(reply) if reply.is_nothing() => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn a_node_alone_forgets_nothing() {
    let mut cluster = Cluster::with(Options::new(1, 1, 1, 1).args("--segment-size 1mb"));
    let mut client = cluster.client(1);
    run(
        &mut client,
        &[
            "SET plain value",
            "SET twice one",
            "SET twice two",
            "SET deleted x",
            "DEL deleted",
            "SET back x",
            "DEL back",
            "SET back y",
            "SET lasting x PX 3600000",
            "SET kept x PX 3600000",
            "PERSIST kept",
            "SET late x",
            "PEXPIRE late 3600000",
            "SET short x PX 1",
            "INCR counter",
            "INCRBY counter 41",
            "DECR below",
            "SET number 10",
            "INCR number",
            "INCRBYFLOAT float 1.5",
            "APPEND appended ab",
            "APPEND appended cd",
            "SETRANGE ranged 3 xyz",
            "MSET a 1 b 2",
            "SET {m}moved x",
            "RENAME {m}moved {m}target",
            "SETEX soon 1 x",
            "GETDEL a",
        ],
    );
    let (big, dull) = (noise(1, 3 << 20), prose(2, 100_000));
    for (key, value) in [(b"big\r\n\0".as_slice(), big), (b"dull", dull), (b"empty", vec![])] {
        let reply = client.call(&[b"SET", key, &value]).expect("an answer");
        assert_eq!(reply, Value::ok());
    }
    await_gone(&mut client, "short");
    await_gone(&mut client, "soon");
    let before = everything(&mut client);
    assert_eq!(before.len(), 17, "{:?}", before.keys());
    for death in ["terminate", "kill", "terminate", "kill"] {
        if death == "kill" {
            cluster.kill(1);
        } else {
            assert!(cluster.terminate(1).success());
        }
        cluster.restart(1);
        let mut client = cluster.client(1);
        let after = everything(&mut client);
        for (key, seen) in &before {
            let key_text = String::from_utf8_lossy(key);
            assert!(after.get(key) == Some(seen), "{key_text} is not what it was after {death}");
        }
        assert_eq!(after.len(), before.len(), "after {death}: {:?}", after.keys());
        // What has expired is counted until it is collected.
        let count = Value::Integer(before.len() as i64);
        until("what has expired is collected", Duration::from_secs(10), || {
            let counted = client.say("DBSIZE").map_err(|why| why.to_string())?;
            if counted == count { Ok(()) } else { Err(format!("{counted:?} after {death}")) }
        });
    }
}

#[test]
fn what_expires_while_the_node_is_down_is_gone() {
    let mut cluster = Cluster::start(1, 1, 1, 1);
    run(&mut cluster.client(1), &["SET short x PX 300", "SET lasting x PX 3600000"]);
    cluster.kill(1);
    cluster.restart(1);
    let mut client = cluster.client(1);
    await_gone(&mut client, "short");
    assert_eq!(client.say("GET lasting").expect("an answer"), Value::bulk("x"));
    cluster.kill(1);
    cluster.restart(1);
    let mut client = cluster.client(1);
    assert_eq!(client.say("EXISTS short lasting").expect("an answer"), Value::Integer(1));
}

#[test]
fn a_flushed_node_stays_empty() {
    let mut cluster = Cluster::with(Options::new(1, 1, 1, 1).args("--segment-size 1mb"));
    let mut client = cluster.client(1);
    let sets = |of: &'static str| {
        (0..500).map(move |i| vec!["SET".into(), format!("{of}:{i}"), "x".repeat(i)])
    };
    client.pipeline(sets("old")).expect("answers");
    run(&mut client, &["INCR counter", "FLUSHALL", "SET new:0 x", "INCR counter"]);
    for _ in 0..2 {
        cluster.kill(1);
        cluster.restart(1);
        let after = everything(&mut cluster.client(1));
        assert_eq!(after.len(), 2, "{:?}", after.keys());
        assert_eq!(after[b"counter".as_slice()].value, Value::bulk("1"));
    }
    run(&mut cluster.client(1), &["FLUSHALL"]);
    assert!(cluster.terminate(1).success());
    cluster.restart(1);
    assert_eq!(cluster.client(1).say("DBSIZE").expect("an answer"), Value::Integer(0));
}

#[test]
fn the_log_shrinks_to_what_lives() {
    let mut cluster = Cluster::with(Options::new(1, 1, 1, 1).args("--segment-size 1mb"));
    let mut client = cluster.client(1);
    let set = |round: usize, i: usize| {
        vec![
            b"SET".to_vec(),
            format!("key:{i}").into_bytes(),
            noise((round * 1_000 + i) as u64, 1_000),
        ]
    };
    for round in 0..20 {
        client.pipeline((0..500).map(|i| set(round, i))).expect("answers");
    }
    run(&mut client, &["SET deleted x", "DEL deleted", "SET lasting x PX 3600000"]);
    let mut size = || client.info("persistence", "aof_current_size").expect("INFO").parse::<u64>();
    let before = size().expect("a number of bytes");
    assert!(before > 8 << 20, "ten megabytes were written, the log has {before} bytes");
    let reply = cluster.client(1).say("BGREWRITEAOF").expect("an answer");
    let started = "Background append only file rewriting started";
    assert_eq!(reply, Value::Simple(started.to_owned()));
    until("the log has shrunk", SOON, || match size().expect("a number of bytes") {
        after if after < 3 << 20 => Ok(()),
        after => Err(format!("from {before} to {after} bytes")),
    });
    cluster.kill(1);
    cluster.restart(1);
    let mut client = cluster.client(1);
    assert_eq!(client.say("DBSIZE").expect("an answer"), Value::Integer(501));
    let gets = (0..500).map(|i| vec!["GET".to_owned(), format!("key:{i}")]);
    for (i, reply) in client.pipeline(gets).expect("answers").iter().enumerate() {
        assert!(*reply == Value::bulk(noise(19_000 + i as u64, 1_000)), "key:{i}");
    }
}

/// Settings of the log may change from one start to the next.
#[test]
fn the_log_outlives_other_settings() {
    let mut cluster = Cluster::with(Options::new(1, 1, 1, 1).args("--threads 4"));
    for (start, args) in [
        "--threads 1 --segment-size 1mb",
        "--appendfsync always",
        "--appendfsync no --threads 8 --segment-size 4mb",
        "--maxmemory 64mb",
    ]
    .into_iter()
    .enumerate()
    {
        let key = |start: usize, i: usize| format!("key:{start}:{i}");
        let sets = (0..300).map(|i| vec!["SET".to_owned(), key(start, i), format!("value {i}")]);
        let replies = cluster.client(1).pipeline(sets).expect("answers");
        assert!(replies.iter().all(|reply| *reply == Value::ok()));
        cluster.kill(1);
        cluster.set_args(args);
        cluster.restart(1);
        for start in 0..=start {
            let gets = (0..300).map(|i| vec!["GET".to_owned(), key(start, i)]);
            let replies = cluster.client(1).pipeline(gets).expect("answers");
            for (i, reply) in replies.iter().enumerate() {
                assert_eq!(*reply, Value::bulk(format!("value {i}")), "{start} with {args}");
            }
        }
    }
}

#[test]
fn appendfsync_changes_while_it_runs() {
    let mut cluster = Cluster::with(Options::new(1, 1, 1, 1).args("--appendfsync no"));
    let mut client = cluster.client(1);
    for (i, fsync) in ["always", "everysec", "no", "always"].into_iter().enumerate() {
        run(&mut client, &[&format!("CONFIG SET appendfsync {fsync}"), &format!("SET key:{i} x")]);
        let text = client.say("CONFIG GET appendfsync").expect("an answer").text();
        assert!(text.contains(fsync), "{text}");
    }
    let wrong = client.say("CONFIG SET appendfsync sometimes").expect("an answer");
    assert_eq!(wrong.error_code(), Some("ERR"), "{wrong:?}");
    cluster.kill(1);
    cluster.restart(1);
    assert_eq!(cluster.client(1).say("DBSIZE").expect("an answer"), Value::Integer(4));
}

#[test]
fn who_comes_during_recovery_is_told_so() {
    const KEYS: usize = 100_000;
    let mut cluster = Cluster::with(Options::new(1, 1, 1, 1));
    let value = |i: usize| format!("{i}: {}", "v".repeat(100));
    let sets = (0..KEYS).map(|i| vec!["SET".to_owned(), format!("k:{i}"), value(i)]);
    cluster.client(1).pipeline(sets).expect("answers");
    cluster.kill(1);
    cluster.launch(1);
    let address = cluster.address(1);
    let (mut told, mut shown) = (0, 0);
    until("the last key is there", Duration::from_secs(60), || {
        let connected = Client::connect_within(address, Duration::from_secs(10));
        let mut client = connected.map_err(|why| why.to_string())?;
        let last = format!("k:{}", KEYS - 1);
        for _ in 0..1_000_000 {
            let set = client.call(&["SET", "during", "recovery"]).map_err(|why| why.to_string())?;
            let get = client.call(&["GET", &last]).map_err(|why| why.to_string())?;
            if get == Value::bulk(value(KEYS - 1)) {
                return Ok(());
            }
            let loading = "LOADING Redis is loading the dataset in memory";
            assert_eq!(get, Value::Error(loading.to_owned()));
            // It may be over between two commands, but never begin.
            assert!(set == get || set == Value::ok(), "{set:?}");
            told += 1;
            let loading = client.info("persistence", "loading").map_err(|why| why.to_string())?;
            shown += usize::from(loading == "1");
        }
        Err("it loads for ever".to_owned())
    });
    println!("told {told} times that it loads, shown {shown} times");
    assert!(told > 0 && shown > 0, "told {told} times that it loads, shown {shown} times");
    cluster.await_node(1);
    let mut client = cluster.client(1);
    let gets = (0..KEYS).step_by(101).map(|i| vec!["GET".to_owned(), format!("k:{i}")]);
    let replies = client.pipeline(gets).expect("answers");
    for (i, reply) in (0..KEYS).step_by(101).zip(replies) {
        assert_eq!(reply, Value::bulk(value(i)));
    }
    assert_eq!(client.info("persistence", "loading").expect("INFO"), "0");
}

/// Folders from which a node could start, at or below `folder`.
fn startable(folder: &Path, found: &mut Vec<PathBuf>) {
    if folder.join("log/lane-00").is_dir() {
        found.push(folder.to_owned());
    }
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "log") {
            startable(&path, found);
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let (from, to) = {
            let entry = entry.expect("an entry");
            (entry.path(), to.join(entry.file_name()))
        };
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).expect("a copy");
        }
    }
}

#[test]
fn a_node_starts_from_a_snapshot() {
    let mut cluster = Cluster::with(Options::new(1, 1, 1, 1).args("--segment-size 1mb"));
    let mut client = cluster.client(1);
    let key = |i: usize| format!("key:{i}");
    let sets = |word: &'static str| {
        (0..3_000).map(move |i| vec!["SET".to_owned(), key(i), format!("{word} {i}")])
    };
    client.pipeline(sets("old")).expect("answers");
    run(&mut client, &["SET lasting x PX 3600000", "SET deleted x", "DEL deleted"]);
    // Writes a before b, always: a snapshot of one moment has b at a, or one behind.
    let is_over = Arc::new(AtomicBool::new(false));
    let (over, address) = (Arc::clone(&is_over), cluster.address(1));
    let pacer = thread::spawn(move || {
        let mut client = Client::connect(address).expect("a connection");
        let mut step = 0;
        while !over.load(Ordering::SeqCst) {
            step += 1;
            run(&mut client, &[&format!("SET first {step}"), &format!("SET second {step}")]);
        }
    });
    until("the pacer is at work", SOON, || match client.say("GET second") {
        Ok(Value::Bulk(_)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let saved_before = client.say("LASTSAVE").expect("an answer");
    assert!(matches!(saved_before, Value::Integer(_)), "{saved_before:?}");
    let reply = client.say("BGSAVE").expect("an answer");
    assert_eq!(reply, Value::Simple("Background saving started".to_owned()));
    until("the snapshot is made", SOON, || {
        let mut field = |name: &str| client.info("persistence", name).expect("INFO");
        let (runs, status) = (field("rdb_bgsave_in_progress"), field("rdb_last_bgsave_status"));
        let mut found = Vec::new();
        startable(&cluster.data_dir(1), &mut found);
        if runs == "0" && status == "ok" && found.len() == 2 {
            return Ok(());
        }
        Err(format!("in progress: {runs}, last: {status}, folders: {found:?}"))
    });
    client.pipeline(sets("new")).expect("answers");
    is_over.store(true, Ordering::SeqCst);
    pacer.join().expect("the pacer is answered");

    let mut found = Vec::new();
    startable(&cluster.data_dir(1), &mut found);
    found.retain(|folder| *folder != cluster.data_dir(1));
    let elsewhere = TempDir::with_prefix("kvorum-snapshot-").expect("a folder");
    copy(&found[0], &elsewhere.path().join("node-1"));
    drop(client);
    cluster.kill(1);
    drop(cluster);

    let options = Options::new(1, 1, 1, 1).folder(elsewhere.path());
    let other = Cluster::with(options);
    let mut client = other.client(1);
    let gets = (0..3_000).map(|i| vec!["GET".to_owned(), key(i)]);
    for (i, reply) in client.pipeline(gets).expect("answers").into_iter().enumerate() {
        assert_eq!(reply, Value::bulk(format!("old {i}")), "key {i} of the snapshot");
    }
    assert_eq!(client.say("EXISTS lasting deleted").expect("an answer"), Value::Integer(1));
    let mut step = |key: &str| match client.call(&["GET", key]).expect("an answer") {
        Value::Bulk(digits) => String::from_utf8_lossy(&digits).parse::<u64>().expect("a number"),
        other => panic!("{key}: {other:?}"),
    };
    let (first, second) = (step("first"), step("second"));
    assert!(first == second || first == second + 1, "of one moment: {first}, {second}");
    run(&mut client, &["SET key:0 onward"]);
}

#[test]
fn two_processes_do_not_share_a_folder() {
    let mut cluster = Cluster::start(1, 1, 1, 1);
    run(&mut cluster.client(1), &["SET key value"]);
    let mut rival = cluster.rival(1);
    let rival = rival.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut rival = rival.spawn().expect("the program starts");
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        until("the second process gives up", SOON, || {
            rival.try_wait().expect("a child can be asked").ok_or("it runs".to_owned())
        })
    }));
    let _ = rival.kill();
    let output = rival.wait_with_output().expect("it has ended");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(ended.is_ok(), "two processes run on one folder; the second said:\n{said}");
    assert!(!output.status.success(), "{}: {said}", output.status);
    let folder = cluster.data_dir(1).display().to_string();
    assert!(said.contains(&folder), "it does not name the folder:\n{said}");
    run(&mut cluster.client(1), &["SET key other"]);
    cluster.kill(1);
    cluster.restart(1);
    assert_eq!(cluster.client(1).say("GET key").expect("an answer"), Value::bulk("other"));
}
