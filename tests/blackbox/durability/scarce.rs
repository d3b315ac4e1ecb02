//! A full disk, and a folder that may not be written: clear errors, no loss, recovery by itself.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::support::client::{Client, Value};
use crate::support::cluster::{Cluster, Options};
use crate::support::filler::noise;
use crate::support::poll::until;
use crate::support::volume::Volume;

/// Longest time until a node notices that it may write again.
const RECOVERED_WITHIN: Duration = Duration::from_secs(15);

const VALUE_SIZE: usize = 4 << 10;

fn key(i: usize) -> String {
    format!("key:{i}")
}

fn set(i: usize) -> Vec<Vec<u8>> {
    vec![b"SET".to_vec(), key(i).into_bytes(), noise(i as u64, VALUE_SIZE)]
}

/// Writes fresh keys from `next` on until writes are refused for good, and answers which were
/// acknowledged; every refusal must say `why`.
fn fill(client: &mut Client, next: &mut usize, mebibytes: usize, why: &str) -> Vec<usize> {
    let mut acknowledged = Vec::new();
    let mut refused = 0;
    let end = *next + (mebibytes << 20) / VALUE_SIZE;
    while refused < 64 {
        assert!(*next < end, "{mebibytes} MiB were written, and nothing was refused");
        let batch: Vec<usize> = (*next..*next + 16).collect();
        *next += batch.len();
        let replies = client.pipeline(batch.iter().map(|&i| set(i))).expect("answers");
        for (i, reply) in batch.into_iter().zip(replies) {
            if reply == Value::ok() {
                acknowledged.push(i);
                continue;
            }
            let text = format!("MISCONF Errors writing to the AOF file: {why}");
            assert_eq!(reply, Value::Error(text), "{}", key(i));
            refused += 1;
        }
    }
    acknowledged
}

/// Asserts that exactly the keys of `there` among all below `next` are there, with their values.
fn check(client: &mut Client, there: &[usize], next: usize) {
    let gets = there.iter().map(|&i| vec!["GET".to_owned(), key(i)]);
    for (&i, reply) in there.iter().zip(client.pipeline(gets).expect("answers")) {
        assert!(reply == Value::bulk(noise(i as u64, VALUE_SIZE)), "{}: {reply:?}", key(i));
    }
    let absent: Vec<usize> = (0..next).filter(|i| there.binary_search(i).is_err()).collect();
    let gets = absent.iter().map(|&i| vec!["GET".to_owned(), key(i)]);
    for (&i, reply) in absent.iter().zip(client.pipeline(gets).expect("answers")) {
        assert!(reply.is_nothing(), "{} was refused, and holds {reply:?}", key(i));
    }
}

/// No kind of write goes through, and every read does.
fn assert_only_read(client: &mut Client, there: usize) {
    let there = key(there);
    for args in [
        vec!["SET", &there, "x"],
        vec!["SET", "fresh", "x"],
        vec!["INCR", "counter"],
        vec!["DEL", &there],
        vec!["EXPIRE", &there, "1"],
        vec!["MSET", "{t}one", "1", "{t}two", "2"],
        vec!["FLUSHALL"],
    ] {
        let reply = client.call(&args).expect("an answer");
        assert_eq!(reply.error_code(), Some("MISCONF"), "{args:?}: {reply:?}");
    }
    let exists = client.call(&["EXISTS", &there]).expect("an answer");
    assert_eq!(exists, Value::Integer(1));
    for fresh in ["fresh", "counter", "{t}one"] {
        assert!(client.call(&["GET", fresh]).expect("an answer").is_nothing(), "{fresh}");
    }
    assert_eq!(client.info("persistence", "aof_last_write_status").expect("INFO"), "err");
}

/// Waits until a write goes through again, without anybody's help.
fn await_writable(client: &mut Client, next: &mut usize) -> usize {
    let i = *next;
    *next += 1;
    until("writes go through again", RECOVERED_WITHIN, || {
        match client.call(&set(i)).expect("an answer") {
            reply if reply == Value::ok() => Ok(i),
            reply => Err(format!("{reply:?}")),
        }
    })
}

#[test]
fn a_full_disk_refuses_writes_and_loses_nothing() {
    let volume = Volume::mount(40);
    volume.ballast("ballast", 12);
    volume.ballast("reserve", 8);
    let options = Options::new(1, 1, 1, 1).folder(&volume.path());
    let mut cluster = Cluster::with(options.args("--threads 2 --segment-size 1mb"));
    let mut client = cluster.client(1);
    let mut next = 0;
    let why = "No space left on device";
    let mut there = fill(&mut client, &mut next, 40, why);
    println!("{} values were written until the disk was full", there.len());
    assert!(there.len() > 1_000, "only {} values fit", there.len());
    assert_only_read(&mut client, there[0]);
    check(&mut client, &there, next);

    volume.drop_ballast("ballast");
    there.push(await_writable(&mut client, &mut next));
    assert_eq!(client.info("persistence", "aof_last_write_status").expect("INFO"), "ok");
    there.extend(fill(&mut client, &mut next, 40, why));
    check(&mut client, &there, next);

    cluster.kill(1);
    volume.drop_ballast("reserve");
    cluster.restart(1);
    let mut client = cluster.client(1);
    check(&mut client, &there, next);
    there.push(await_writable(&mut client, &mut next));
    assert!(cluster.terminate(1).success());
    cluster.restart(1);
    check(&mut cluster.client(1), &there, next);
}

/// The folders of a node's lanes.
fn lanes(cluster: &Cluster) -> Vec<PathBuf> {
    let lanes = fs::read_dir(cluster.data_dir(1).join("log")).expect("the node's log");
    let lanes = lanes.map(|entry| entry.expect("an entry").path());
    lanes.filter(|path| path.is_dir()).collect()
}

fn set_mode(folders: &[PathBuf], mode: u32) {
    for folder in folders {
        fs::set_permissions(folder, Permissions::from_mode(mode)).expect("our own folder");
    }
}

#[test]
fn a_folder_that_may_not_be_written_refuses_writes_and_loses_nothing() {
    let options = Options::new(1, 1, 1, 1).bound_by_permissions();
    let mut cluster = Cluster::with(options.args("--threads 2 --segment-size 1mb"));
    let mut client = cluster.client(1);
    let mut next = 0;
    let mut there = vec![await_writable(&mut client, &mut next)];
    let lanes = lanes(&cluster);
    assert!(!lanes.is_empty());
    set_mode(&lanes, 0o555);
    there.extend(fill(&mut client, &mut next, 40, "Permission denied"));
    assert_only_read(&mut client, there[0]);
    check(&mut client, &there, next);

    // It cannot begin a life there either, and says where.
    cluster.kill(1);
    let (status, said) = cluster.launch_in_vain(1);
    assert!(!status.success(), "{status}");
    let folder = cluster.data_dir(1).display().to_string();
    assert!(said.contains(&folder) && said.contains("Permission denied"), "{said}");

    set_mode(&lanes, 0o755);
    cluster.restart(1);
    let mut client = cluster.client(1);
    check(&mut client, &there, next);
    set_mode(&lanes, 0o555);
    there.extend(fill(&mut client, &mut next, 40, "Permission denied"));
    set_mode(&lanes, 0o755);
    there.push(await_writable(&mut client, &mut next));
    cluster.kill(1);
    cluster.restart(1);
    check(&mut cluster.client(1), &there, next);
}
