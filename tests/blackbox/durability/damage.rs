//! Flipped bits in segment files: named by the tools and by the node, and never served.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::client::{Client, Value};
use crate::support::cluster::{Cluster, Options, tool};
use crate::support::filler::noise;
use crate::support::poll::until;

const KEYS: usize = 2_000;

/// The key whose record is damaged: far from the end of its segment.
const VICTIM: usize = 300;

const HEALED_WITHIN: Duration = Duration::from_secs(30);

fn key(i: usize) -> String {
    format!("key:{i}")
}

fn value(i: usize) -> Vec<u8> {
    noise(i as u64, 200)
}

fn write_all(client: &mut Client) {
    let set = |i: usize| vec![b"SET".to_vec(), key(i).into_bytes(), value(i)];
    for reply in client.pipeline((0..KEYS).map(set)).expect("answers") {
        assert_eq!(reply, Value::ok());
    }
}

fn read_all(client: &mut Client) -> Vec<Value> {
    client.pipeline((0..KEYS).map(|i| vec!["GET".to_owned(), key(i)])).expect("answers")
}

/// Segment files below `folder`.
fn segments(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(segments(&path));
        } else if path.extension().is_some_and(|extension| extension == "seg") {
            found.push(path);
        }
    }
    found
}

/// Flips a bit in the middle of the victim's value in its segment file, and answers which.
fn damage(folder: &Path) -> PathBuf {
    let needle = value(VICTIM);
    for path in segments(&folder.join("log")) {
        let mut bytes = fs::read(&path).expect("a segment can be read");
        let found = bytes.windows(needle.len()).position(|window| window == needle);
        if let Some(at) = found {
            bytes[at + needle.len() / 2] ^= 0x10;
            fs::write(&path, bytes).expect("a segment can be written");
            return path;
        }
    }
    panic!("the value of {} is in no segment", key(VICTIM));
}

/// The node's log says which segment is damaged.
fn assert_named(cluster: &Cluster, node: usize, path: &Path) {
    let name = path.file_name().expect("a name").to_string_lossy();
    let text = cluster.log_text(node);
    let line = text.lines().find(|line| line.contains("damaged"));
    let is_named = line.is_some_and(|line| line.contains(&*name));
    assert!(is_named, "the node does not name {name}: {line:?}");
}

fn verify(folder: &Path) -> (bool, String) {
    let (status, said) = tool(&["log", "verify"], folder);
    (status.success(), said)
}

/// Waits until the node answers anything but `-LOADING` to a read.
fn await_loaded(cluster: &Cluster, node: usize) -> Client {
    until("the node has loaded", HEALED_WITHIN, || {
        let connected = Client::connect_within(cluster.address(node), Duration::from_secs(10));
        let mut client = connected.map_err(|why| why.to_string())?;
        let reply = client.call(&["GET", &key(0)]).map_err(|why| why.to_string())?;
        if reply.error_code() == Some("LOADING") { Err("it loads".into()) } else { Ok(client) }
    })
}

#[test]
fn a_node_alone_names_the_damage_and_does_not_serve_it() {
    let mut cluster = Cluster::start(1, 1, 1, 1);
    write_all(&mut cluster.client(1));
    assert!(cluster.terminate(1).success());
    let folder = cluster.data_dir(1);
    let (is_sound, said) = verify(&folder);
    assert!(is_sound, "{said}");
    let path = damage(&folder);
    let (is_sound, said) = verify(&folder);
    assert!(!is_sound, "verify finds nothing wrong:\n{said}");
    let name = path.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(said.contains(&name), "it does not name {name}:\n{said}");

    cluster.launch(1);
    let mut client = await_loaded(&cluster, 1);
    let mut refused = 0;
    for (i, reply) in read_all(&mut client).into_iter().enumerate() {
        match reply.error_code() {
            Some(_) => refused += 1,
            None => assert!(reply == Value::bulk(value(i)), "{}: {reply:?}", key(i)),
        }
    }
    println!("{refused} of {KEYS} keys are not served");
    assert!((1..KEYS / 10).contains(&refused), "{refused} of {KEYS} keys are not served");
    assert_named(&cluster, 1, &path);
    drop(client);

    // Its owner may decide that what is left is better than nothing.
    assert!(cluster.terminate(1).success());
    cluster.set_args("--accept-damage yes");
    cluster.restart(1);
    for (i, reply) in read_all(&mut cluster.client(1)).into_iter().enumerate() {
        let is_lost = i == VICTIM && reply.is_nothing();
        assert!(is_lost || reply == Value::bulk(value(i)), "{}: {reply:?}", key(i));
    }
}

#[test]
fn a_damaged_member_never_answers_wrong_and_heals_from_the_others() {
    let mut cluster = Cluster::with(Options::new(3, 3, 1, 2));
    write_all(&mut cluster.client(1));
    // All three hold all before one is ended: its log has the victim.
    until("node 3 holds all", HEALED_WITHIN, || {
        match cluster.client(3).say("DBSIZE").expect("an answer") {
            Value::Integer(count) if count == KEYS as i64 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    assert!(cluster.terminate(3).success());
    let folder = cluster.data_dir(3);
    let path = damage(&folder);
    assert!(!verify(&folder).0, "verify finds nothing wrong");
    cluster.launch(3);
    let mut client = await_loaded(&cluster, 3);
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(500) {
        for (i, reply) in read_all(&mut client).into_iter().enumerate() {
            let is_right = reply == Value::bulk(value(i)) || reply.is_refusal();
            assert!(is_right, "{}: {reply:?}", key(i));
        }
    }
    drop(client);
    cluster.await_all();
    assert_named(&cluster, 3, &path);
    until("node 3 has got back what it lost", HEALED_WITHIN, || {
        match cluster.client(3).info("quorum", "vnodes_unsettled").expect("INFO").as_str() {
            "0" => Ok(()),
            count => Err(format!("vnodes_unsettled:{count}")),
        }
    });
    // Alone, it answers from what it holds itself.
    cluster.kill(1);
    cluster.kill(2);
    until("node 3 answers alone", HEALED_WITHIN, || {
        for (i, reply) in read_all(&mut cluster.client(3)).into_iter().enumerate() {
            if reply.is_refusal() {
                return Err(format!("{}: {reply:?}", key(i)));
            }
            assert!(reply == Value::bulk(value(i)), "{}: {reply:?}", key(i));
        }
        Ok(())
    });
}
