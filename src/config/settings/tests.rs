//! What the command line, the environment and the file make of settings.

use std::collections::BTreeMap;

use super::super::row::server_command;
use super::*;

/// Reads settings from flags and environment variables.
fn read(flags: &[&str], variables: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
    let line = std::iter::once("server").chain(flags.iter().copied());
    let matches = server_command().try_get_matches_from(line).unwrap();
    Settings::read(&Sources::gather(&matches, |name| variables.get(name).map(OsString::from))?)
}

fn refused(flags: &[&str], variables: &[(&str, &str)]) -> String {
    read(flags, variables).unwrap_err().to_string()
}

/// A folder with one file in it.
fn file(name: &str, text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    (folder, path.to_str().unwrap().to_owned())
}

#[test]
fn nothing_said_is_one_node_on_loopback() {
    let settings = read(&[], &[]).unwrap();
    assert_eq!((settings.node, settings.port, settings.peer_port), (NodeId(1), 6_379, 16_379));
    assert_eq!(settings.members.len(), 1);
    assert_eq!(settings.own_member().host, "127.0.0.1");
    assert_eq!(settings.own_member().peer_port, 16_379);
    assert_eq!(settings.contract, Contract::default());
    assert_eq!((settings.vnodes, settings.maxclients), (256, 10_000));
    assert_eq!(settings.request_timeout, Duration::from_secs(2));
    assert_eq!((settings.timeout, settings.tcp_keepalive), (None, Some(Duration::from_secs(300))));
    assert_eq!(settings.data_dir, PathBuf::from("kvorum-data/n1"));
    assert_eq!((settings.maxmemory, settings.fsync), (0, Fsync::Everysec));
    assert_eq!(settings.stream_backlog_size, 64 << 20);
    assert_eq!(settings.stream_backlog_age, Duration::from_secs(600));
    assert_eq!((settings.segment_size, settings.accept_damage), (64 << 20, false));
    assert_eq!(usize::from(settings.lanes), (settings.threads / 2).max(1));
    assert!(settings.remarks().is_empty());
}

#[test]
fn flag_before_environment_before_file() {
    let (_folder, path) = file("k.toml", "port = 1001\nmaxclients = 11\ntimeout = 12\n");
    let settings = read(
        &["--config", &path, "--port", "1003"],
        &[("KVORUM_PORT", "1002"), ("KVORUM_MAXCLIENTS", "22")],
    )
    .unwrap();
    assert_eq!(settings.port, 1_003);
    assert_eq!(settings.maxclients, 22);
    assert_eq!(settings.timeout, Some(Duration::from_secs(12)));
    let settings = read(&[], &[("KVORUM_CONFIG", &path)]).unwrap();
    assert_eq!(settings.port, 1_001);
}

#[test]
fn the_log_is_told_by_the_names_of_redis() {
    let flags = ["--maxmemory", "100MB", "--maxmemory-policy", "NOEVICTION", "--appendonly", "yes"];
    let settings = read(&flags, &[("KVORUM_LANES", "3")]).unwrap();
    assert_eq!((settings.maxmemory, settings.lanes), (100 << 20, 3));
    assert_eq!(read(&["--threads", "9"], &[]).unwrap().lanes, 4);
    assert_eq!(read(&["--threads", "1"], &[]).unwrap().lanes, 1);
    assert!(read(&["--accept-damage", "yes"], &[]).unwrap().remarks()[0].contains("accept-damage"));
}

#[test]
fn fsync_is_another_name_of_appendfsync() {
    let (_folder, path) = file("k.toml", "fsync = \"no\"\n");
    let fsync = |flags: &[&str], variables: &[(&str, &str)]| {
        read(&[&["--config", &path], flags].concat(), variables).unwrap().fsync
    };
    assert_eq!(fsync(&[], &[]), Fsync::No);
    assert_eq!(fsync(&[], &[("KVORUM_FSYNC", "ALWAYS")]), Fsync::Always);
    let both = [("KVORUM_FSYNC", "no"), ("KVORUM_APPENDFSYNC", "everysec")];
    assert_eq!(fsync(&[], &both), Fsync::Everysec);
    assert_eq!(fsync(&["--fsync", "always"], &both), Fsync::Always);
    assert_eq!(
        refused(&["--fsync", "x"], &[]),
        "appendfsync = \"x\" (flag --appendfsync): must be one of everysec, always, no"
    );
}

#[test]
fn errors_name_setting_value_and_origin() {
    let (_folder, path) = file("k.toml", "vnodes = 48\n");
    let text = refused(&["--config", &path], &[]);
    assert_eq!(
        text,
        format!("vnodes = \"48\" (file {path}): must be a power of two from 1 to 4096")
    );
    assert_eq!(
        refused(&["--port", "70000"], &[]),
        "port = \"70000\" (flag --port): must be a port from 1 to 65535"
    );
    assert_eq!(
        refused(&[], &[("KVORUM_PORT", "tcp://10.0.0.1:6379")]),
        "port = \"tcp://10.0.0.1:6379\" (environment variable KVORUM_PORT): \
         must be a port from 1 to 65535"
    );
    for (flags, why) in [
        (&["--w", "4"][..], "w = \"4\" (flag --w): w = 4 is more than n = 3"),
        (&["--n", "2", "--r", "3"], "r = \"3\" (flag --r): r = 3 is more than n = 2"),
        (&["--n", "0"], "n = \"0\" (flag --n): must be a whole number from 1 to 16"),
        (&["--r", "-1"], "r = \"-1\" (flag --r): must be a whole number from 1 to 16"),
        (
            &["--port", "60000"],
            "port = \"60000\" (flag --port): the peer port would be 60000 + 10000",
        ),
        (&["--port", "7", "--peer-port", "7"], "must differ"),
        (&["--bind", "localhost"], "must be an IP address"),
        (&["--threads", "0"], "must be a whole number from 1 to 1024"),
        (&["--proto-max-bulk-len", "1gb"], "from 1mb to 512mb"),
        (&["--maxmemory", "many"], "must be a size such as 64mb"),
        (&["--maxmemory-policy", "allkeys-lru"], "must be noeviction: Kvorum deletes no keys"),
        (&["--appendonly", "no"], "must be yes: the log is where the data is"),
        (&["--appendfsync", "often"], "must be one of everysec, always, no"),
        (&["--segment-size", "2gb"], "from 1mb to 1gb"),
        (&["--lanes", "65"], "must be a whole number from 1 to 64"),
        (&["--accept-damage", "perhaps"], "must be yes or no"),
        (&["--log-format", "xml"], "must be text or json"),
        (&["--log", "a=b=c"], "must be a log filter"),
        (&["--cluster", "a b"], "letters, digits"),
        (&["--node-id", "0"], "must be a whole number from 1 to 65535"),
        (&["--secret", ""], "secret = \"***\" (flag --secret): must not be empty"),
        (&["--secret", "x", "--secret-file", "y"], "cannot be given together"),
        (&["--secret-file", "/no/such/file"], "must be a readable file"),
        (&["--config", "/no/such/file"], "/no/such/file cannot be read"),
    ] {
        let text = refused(flags, &[]);
        assert!(text.contains(why), "{flags:?}: {text}");
    }
}

#[test]
fn files_with_members() {
    let (_folder, path) = file(
        "k.toml",
        r#"
            node-id = 2
            n = 2
            proto-max-bulk-len = "1mb"
            [[member]]
            id = 1
            host = "10.0.0.1"
            [[member]]
            id = 2
            host = "::1"
            port = 7000
            zone = "b"
            peer-port = 7001
            weight = 3
        "#,
    );
    let settings = read(&["--config", &path], &[]).unwrap();
    assert_eq!((settings.node, settings.port, settings.peer_port), (NodeId(2), 7_000, 7_001));
    assert_eq!(settings.announce_host, "::1");
    assert_eq!(settings.proto_max_bulk_len, 1 << 20);
    let texts: Vec<String> = settings.members.iter().map(member_text).collect();
    assert_eq!(
        texts,
        ["1=10.0.0.1:6379@16379;zone=default;weight=1", "2=[::1]:7000@7001;zone=b;weight=3",]
    );
}

#[test]
fn files_that_are_none() {
    for (text, why) in [
        ("port = ", "is not TOML"),
        ("colour = 1", "has a key \"colour\", which is no setting"),
        ("config = \"x\"", "has a key \"config\", which is no setting"),
        ("[[member]]\nname = 1", "has a key \"member.name\""),
        ("member = [1]", "has a key \"member.\""),
        ("port = [1]", "must be a port"),
    ] {
        let (_folder, path) = file("k.toml", text);
        let refused = refused(&["--config", &path], &[]);
        assert!(refused.contains(why), "{text}: {refused}");
    }
}

const THREE: &str = "1=127.0.0.1:6379,2=127.0.0.1:6380,3=10.0.0.3:6379";

#[test]
fn a_node_finds_itself_among_the_members() {
    let node = |flags: &[&str]| {
        let settings = read(&[&["--members", THREE], flags].concat(), &[]).unwrap();
        (settings.node.0, settings.port, settings.announce_host)
    };
    assert_eq!(node(&[]), (1, 6_379, "127.0.0.1".to_owned()));
    assert_eq!(node(&["--port", "6380"]), (2, 6_380, "127.0.0.1".to_owned()));
    assert_eq!(node(&["--node-id", "2"]), (2, 6_380, "127.0.0.1".to_owned()));
    assert_eq!(node(&["--bind", "0.0.0.0", "--announce-host", "10.0.0.3"]).0, 3);
    let unknown = refused(&["--members", THREE, "--port", "9"], &[]);
    assert!(unknown.contains("no member is 127.0.0.1:9"), "{unknown}");
    let stranger = refused(&["--members", THREE, "--node-id", "9"], &[]);
    assert!(
        stranger.contains("node-id = \"9\" (flag --node-id): must be the id of one"),
        "{stranger}"
    );
}

#[test]
fn remarks_are_made_where_they_help() {
    let two = read(&["--members", "127.0.0.1:6379,127.0.0.1:6380", "--bind", "0.0.0.0"], &[]);
    let remarks = two.unwrap().remarks();
    assert!(remarks[0].contains("N=3 R=1 W=2 (eventual) is kept as N=2 R=1 W=1 (eventual)"));
    assert!(remarks[1].contains("no secret"));
    assert!(remarks[2].contains("0.0.0.0:6379"));
    let flags = ["--members", THREE, "--node-id", "2", "--port", "7000", "--secret", "x"];
    assert!(read(&flags, &[]).unwrap().remarks()[0].contains("listens on 7000 and 17000"));
}

#[test]
fn secrets_are_read_and_never_shown() {
    let (_folder, path) = file("secret", "hush hush\r\n");
    let settings = read(&["--secret-file", &path, "--requirepass", "tell nobody"], &[]).unwrap();
    assert_eq!(settings.secret, Some(Secret::new("hush hush")));
    let shown = format!("{settings:?} {:?}", settings.server_arguments());
    assert!(!shown.contains("hush") && !shown.contains("nobody"), "{shown}");
    assert!(shown.contains("***"));
}

#[test]
fn a_child_reads_the_same_settings() {
    #[rustfmt::skip]
    let flags = [
        "--members", "1=[::1]:7000@9000;zone=a;weight=2,5=h:6379", "--node-id", "1", "--bind", "::1",
        "--peer-port", "9001", "--announce-host", "me", "--data-dir", "/d", "--threads", "3",
        "--cluster", "c", "--secret", "s", "--vnodes", "64", "--n", "5", "--r", "3", "--w", "3",
        "--maxmemory", "100mb", "--appendfsync", "always", "--segment-size", "2mb", "--lanes", "7",
        "--accept-damage", "yes", "--request-timeout-ms", "9", "--exchange-interval", "4", "--exchange-rate", "2mb", "--hints-max", "9mb", "--requirepass", "p", "--maxclients", "8", "--timeout", "7",
        "--tcp-keepalive", "0", "--proto-max-bulk-len", "2mb", "--client-query-buffer-limit", "3mb",
        "--client-output-buffer-limit", "0", "--log", "debug", "--log-format", "json",
    ];
    let parent = read(&flags, &[]).unwrap();
    let arguments: Vec<String> =
        parent.server_arguments().into_iter().map(|one| one.into_string().unwrap()).collect();
    assert_eq!(arguments[0], "server");
    let flags: Vec<&str> = arguments[1..].iter().map(String::as_str).collect();
    let variables = parent.server_environment();
    let variables: Vec<(&str, &str)> =
        variables.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    assert_eq!(read(&flags, &variables), Ok(parent));
    // Every setting is among them, but for secrets and files that have been read.
    for row in ROWS {
        let absent = row.secret || ["config", "secret-file"].contains(&row.name);
        assert_eq!(!flags.contains(&&*format!("--{}", row.name)), absent, "{}", row.name);
    }
}

#[test]
fn the_page_describes_every_setting() {
    let page = include_str!("../../../docs/configuration.md");
    for row in ROWS {
        let line = format!("| `--{}` | `{}` | {} |", row.name, row.variable(), row.default);
        assert!(page.contains(&line), "docs/configuration.md lacks the line {line}");
    }
}

#[test]
fn the_help_is_whole() {
    let help = server_command().render_help().to_string();
    for row in ROWS {
        assert!(help.contains(&format!("--{} ", row.name)) && help.contains(row.group));
    }
    assert!(help.contains("Example"));
    server_command().debug_assert();
}
