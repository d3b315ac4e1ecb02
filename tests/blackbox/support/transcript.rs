//! Sessions in plain text, replayed against whatever speaks RESP.
//!
//! ```text
//! @redis                      these answers are Redis's own: scripts/bless.sh proves it
//! ~ a comment
//! > SET "a key" v\x00         a command, quoted as in redis-cli
//! < +OK                       a line of its reply (children are indented by two)
//! >> PING\r\nPING             bytes as they are, CRLF added
//! < +PONG
//! @more                       one more reply, to what was already sent
//! < +PONG
//! > QUIT
//! < +OK
//! @more
//! < (closed)
//! ```
//!
//! | at the head | |
//! |---|---|
//! | `@redis`, `@redis-cluster` | blessed by a plain / by a cluster-enabled redis-server |
//! | `@session` | the connection has a memory: keep to one node |
//! | `@nodes 1` | only where so many nodes are |
//! | `@requirepass X` | nodes are started so |
//!
//! | in between | |
//! |---|---|
//! | `@node 2`, `@as bob` | talk to this node from here on; as this other connection |
//! | `@regex …` | instead of a `<` line: the whole line looks so |
//! | `@any` | whatever else the reply holds |
//! | `@sorted` | the reply's elements come in any order; shown sorted |
//! | `@silent` | no reply is awaited |
//! | `@keep token` | the reply's last string is what the word `{token}` says from here on |
//! | `@sleep 20` | milliseconds |
//! | `@scan MATCH a*` | a whole `SCAN` with these arguments: the distinct keys, sorted |

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use regex::Regex;

use super::client::{Client, Value, quoted};

/// Who vouches for the answers of a transcript.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Oracle {
    Nobody,
    Redis,
    RedisCluster,
}

/// Which node hears a command that names none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// Always this one (from 0).
    Stay(usize),
    /// Another one for every command.
    Roam,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Action {
    Command(Vec<Vec<u8>>),
    Raw(Vec<u8>),
    More,
    Scan(Vec<Vec<u8>>),
    Node(usize),
    As(String),
    Sleep(Duration),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Command(args) | Action::Scan(args) => {
                let words: Vec<String> = args.iter().map(|arg| quoted(arg)).collect();
                f.write_str(&words.join(" "))
            }
            Action::Raw(bytes) => f.write_str(&quoted(bytes)),
            other => write!(f, "{other:?}"),
        }
    }
}

#[derive(Debug)]
enum Expected {
    Line(String),
    Regex(Regex),
    Any,
}

#[derive(Debug)]
struct Step {
    /// From 1.
    line: usize,
    action: Action,
    expected: Vec<Expected>,
    is_sorted: bool,
    is_silent: bool,
    /// What the reply's last string is called afterwards.
    keeps: Option<String>,
}

/// A parsed file.
#[derive(Debug)]
pub(crate) struct Transcript {
    pub(crate) path: PathBuf,
    pub(crate) oracle: Oracle,
    pub(crate) keeps_session: bool,
    pub(crate) nodes: Option<usize>,
    pub(crate) password: Option<String>,
    steps: Vec<Step>,
}

/// Every transcript under `tests/scenarios`, in the order of their paths.
pub(crate) fn all() -> Vec<Transcript> {
    let mut paths = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios"), &mut paths);
    paths.sort();
    assert!(!paths.is_empty(), "there are transcripts");
    paths.iter().map(|path| Transcript::read(path)).collect()
}

fn collect(dir: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory of transcripts") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "txt") {
            paths.push(path);
        }
    }
}

impl Transcript {
    pub(crate) fn read(path: &Path) -> Transcript {
        let text = fs::read_to_string(path).expect("a transcript is UTF-8");
        Transcript::parse(path, &text)
            .unwrap_or_else(|(line, what)| panic!("{}:{line}: {what}", path.display()))
    }

    /// Parses `text`, or says which line is no line of a transcript, and why.
    fn parse(path: &Path, text: &str) -> Result<Transcript, (usize, String)> {
        let mut transcript = Transcript {
            path: path.to_owned(),
            oracle: Oracle::Nobody,
            keeps_session: false,
            nodes: None,
            password: None,
            steps: Vec::new(),
        };
        for (number, line) in (1..).zip(text.lines()) {
            transcript.line(number, line).map_err(|what| (number, what))?;
        }
        Ok(transcript)
    }

    fn line(&mut self, number: usize, line: &str) -> Result<(), String> {
        if line.is_empty() || line.starts_with('~') {
            return Ok(());
        }
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        if let Some(action) = action(word, rest)? {
            let (is_sorted, is_silent, keeps) = (false, false, None);
            let step = Step { line: number, action, expected: vec![], is_sorted, is_silent, keeps };
            self.steps.push(step);
            return Ok(());
        }
        let last = self.steps.last_mut();
        match (word, last) {
            ("@redis", None) => self.oracle = Oracle::Redis,
            ("@redis-cluster", None) => self.oracle = Oracle::RedisCluster,
            ("@session", None) => self.keeps_session = true,
            ("@nodes", None) => self.nodes = Some(number_of(rest)?),
            ("@requirepass", None) => self.password = Some(rest.to_owned()),
            ("@sorted", Some(step)) => step.is_sorted = true,
            ("@silent", Some(step)) => step.is_silent = true,
            ("@keep", Some(step)) => step.keeps = Some(format!("{{{rest}}}")),
            ("<", Some(step)) => step.expected.push(Expected::Line(rest.to_owned())),
            ("@any", Some(step)) => step.expected.push(Expected::Any),
            ("@regex", Some(step)) => {
                let regex = Regex::new(&format!("^(?:{rest})$")).map_err(|e| e.to_string())?;
                step.expected.push(Expected::Regex(regex));
            }
            _ => return Err(format!("out of place or unknown: {line}")),
        }
        Ok(())
    }

    /// Replays it from one node's view or another's, and answers what went otherwise, as text.
    pub(crate) fn replay(&self, nodes: &[SocketAddr], way: Way) -> Result<(), String> {
        let mut differences = String::new();
        for (step, actual) in self.steps.iter().zip(self.answers(nodes, way)) {
            if !step.is_met_by(&actual) {
                differences.push_str(&self.difference(step, &actual));
            }
        }
        if differences.is_empty() { Ok(()) } else { Err(differences) }
    }

    fn difference(&self, step: &Step, actual: &[String]) -> String {
        let mut out = format!("{}:{}: {}\n", self.path.display(), step.line, step.action);
        step.expected.iter().for_each(|line| out.push_str(&format!("  expected  {line:?}\n")));
        actual.iter().for_each(|line| out.push_str(&format!("  got       {line}\n")));
        out
    }

    /// Puts the answers of `nodes` into the file wherever it expects others.
    #[allow(dead_code, reason = "only the blessing writes")]
    pub(crate) fn rewrite(&self, nodes: &[SocketAddr], way: Way) -> io::Result<()> {
        let text = fs::read_to_string(&self.path)?;
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let answers: Vec<_> = self.answers(nodes, way).collect();
        for (step, actual) in self.steps.iter().zip(answers).rev() {
            if step.is_met_by(&actual) {
                continue;
            }
            let is_kept = |line: &str| line == "@sorted";
            let is_expectation = |line: &str| {
                ["< ", "@regex ", "@any", "@sorted"].iter().any(|p| line.starts_with(p))
            };
            let mut end = step.line;
            while lines.get(end).is_some_and(|line| is_expectation(line)) {
                end += 1;
            }
            let mut fresh: Vec<_> =
                lines[step.line..end].iter().filter(|line| is_kept(line)).cloned().collect();
            fresh.extend(actual.iter().map(|line| format!("< {line}")));
            lines.splice(step.line..end, fresh);
        }
        fs::write(&self.path, lines.join("\n") + "\n")
    }

    fn answers<'a>(
        &'a self,
        nodes: &'a [SocketAddr],
        way: Way,
    ) -> impl Iterator<Item = Vec<String>> + 'a {
        let mut talk = Talk::new(nodes, way);
        self.steps.iter().map(move |step| {
            talk.step(step).unwrap_or_else(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
                    vec!["(closed)".to_owned()]
                }
                _ => vec![format!("({error})")],
            })
        })
    }
}

impl Step {
    fn is_met_by(&self, actual: &[String]) -> bool {
        let mut rest = actual.iter();
        for expected in &self.expected {
            let is_met = match expected {
                Expected::Any => return true,
                Expected::Line(line) => rest.next() == Some(line),
                Expected::Regex(regex) => rest.next().is_some_and(|line| regex.is_match(line)),
            };
            if !is_met {
                return false;
            }
        }
        rest.next().is_none()
    }
}

/// Connections by name and node, and where we are.
struct Talk<'a> {
    nodes: &'a [SocketAddr],
    open: HashMap<(String, usize), Client>,
    name: String,
    node: usize,
    is_roaming: bool,
    /// Strings of earlier replies, by the words that stand for them.
    kept: HashMap<Vec<u8>, Vec<u8>>,
}

impl<'a> Talk<'a> {
    fn new(nodes: &'a [SocketAddr], way: Way) -> Talk<'a> {
        let (node, is_roaming) = match way {
            Way::Stay(node) => (node, false),
            Way::Roam => (0, true),
        };
        let (open, kept) = (HashMap::new(), HashMap::new());
        Talk { nodes, open, name: String::new(), node, is_roaming, kept }
    }

    fn client(&mut self) -> io::Result<&mut Client> {
        let at = (self.name.clone(), self.node);
        if !self.open.contains_key(&at) {
            self.open.insert(at.clone(), Client::connect(self.nodes[self.node])?);
        }
        Ok(self.open.get_mut(&at).expect("it was put there"))
    }

    fn step(&mut self, step: &Step) -> io::Result<Vec<String>> {
        if self.is_roaming && matches!(step.action, Action::Command(_)) {
            self.node = (self.node + 1) % self.nodes.len();
        }
        match &step.action {
            Action::Command(args) => {
                let said: Vec<_> =
                    args.iter().map(|arg| self.kept.get(arg).unwrap_or(arg).clone()).collect();
                self.client()?.send(&said)?;
            }
            Action::Raw(bytes) => self.client()?.send_raw(bytes)?,
            Action::More => {}
            Action::Scan(args) => return self.scan(args),
            Action::Node(node) => {
                (self.node, self.is_roaming) = ((node - 1) % self.nodes.len(), false);
                return Ok(vec![]);
            }
            Action::As(name) => {
                self.name.clone_from(name);
                return Ok(vec![]);
            }
            Action::Sleep(duration) => {
                thread::sleep(*duration);
                return Ok(vec![]);
            }
        }
        if step.is_silent {
            return Ok(vec![]);
        }
        let mut reply = self.client()?.receive()?;
        if let Some(word) = &step.keeps {
            let last = reply.last_string().unwrap_or_default().to_vec();
            self.kept.insert(word.clone().into_bytes(), last);
        }
        if step.is_sorted
            && let Value::Array(items) | Value::Set(items) = &mut reply
        {
            items.sort_by_key(Value::lines);
        }
        Ok(reply.lines())
    }

    fn scan(&mut self, args: &[Vec<u8>]) -> io::Result<Vec<String>> {
        let mut keys = BTreeSet::new();
        let mut cursor = b"0".to_vec();
        for _ in 0..100_000 {
            let mut command = vec![b"SCAN".to_vec(), cursor.clone()];
            command.extend_from_slice(args);
            let reply = self.client()?.call(&command)?;
            let Value::Array(pair) = &reply else { return Ok(reply.lines()) };
            let [Value::Bulk(next), Value::Array(found)] = pair.as_slice() else {
                return Ok(reply.lines());
            };
            keys.extend(found.iter().flat_map(Value::lines));
            if next == b"0" {
                return Ok(keys.into_iter().collect());
            }
            cursor.clone_from(next);
        }
        Ok(vec!["(the scan does not end)".to_owned()])
    }
}

fn action(word: &str, rest: &str) -> Result<Option<Action>, String> {
    Ok(Some(match word {
        ">" => Action::Command(words(rest)?),
        ">>" => {
            let mut bytes = unescaped(rest)?;
            bytes.extend_from_slice(b"\r\n");
            Action::Raw(bytes)
        }
        "@more" => Action::More,
        "@scan" => Action::Scan(words(rest)?),
        "@node" => Action::Node(number_of(rest)?),
        "@as" => Action::As(rest.to_owned()),
        "@sleep" => Action::Sleep(Duration::from_millis(number_of(rest)? as u64)),
        _ => return Ok(None),
    }))
}

fn number_of(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("no number: {text:?}"))
}

/// Words with redis-cli's quotes: "…" with escapes, '…' as it is.
fn words(text: &str) -> Result<Vec<Vec<u8>>, String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (word, after) = match rest.as_bytes()[0] {
            quote @ (b'"' | b'\'') => {
                let end = closing(rest, quote).ok_or("an open quote")?;
                let inner = &rest[1..end];
                let word = if quote == b'"' { unescaped(inner)? } else { inner.into() };
                (word, &rest[end + 1..])
            }
            _ => {
                let end = rest.find(' ').unwrap_or(rest.len());
                (rest[..end].into(), &rest[end..])
            }
        };
        words.push(word);
        rest = after.trim_start();
    }
    Ok(words)
}

fn closing(text: &str, quote: u8) -> Option<usize> {
    let mut is_escaped = false;
    text.bytes().enumerate().skip(1).find_map(|(at, byte)| {
        let closes = byte == quote && !is_escaped;
        is_escaped = quote == b'"' && byte == b'\\' && !is_escaped;
        closes.then_some(at)
    })
}

fn unescaped(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match bytes.next().ok_or("a lone backslash")? {
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'x' => {
                let digits = [bytes.next().unwrap_or(b'?'), bytes.next().unwrap_or(b'?')];
                let digits = String::from_utf8_lossy(&digits).into_owned();
                out.push(u8::from_str_radix(&digits, 16).map_err(|_| format!("\\x{digits}"))?);
            }
            other => out.push(other),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Transcript, (usize, String)> {
        Transcript::parse(Path::new("x.txt"), text)
    }

    #[test]
    fn words_are_quoted_as_in_redis_cli() {
        let is = |text: &str, expected: &[&[u8]]| assert_eq!(words(text).unwrap(), expected);
        is(r#"SET a "b \"c\" \x00\r\n" 'x\n'"#, &[b"SET", b"a", b"b \"c\" \0\r\n", b"x\\n"]);
        is(r#"  a ""  "#, &[b"a", b""]);
        assert!(words("a \"b").is_err());
        assert!(words(r#""\xzz""#).is_err());
    }

    #[test]
    fn expectations_judge_lines() {
        let transcript = parse("@redis\n> A\n< *2\n@regex   :\\d+\n@any\n> B\n< +OK\n").unwrap();
        assert_eq!(transcript.oracle, Oracle::Redis);
        let [a, b] = transcript.steps.as_slice() else { panic!("two steps") };
        let lines = |text: &str| text.split('|').map(str::to_owned).collect::<Vec<_>>();
        assert!(a.is_met_by(&lines("*2|  :17|  +x")));
        assert!(!a.is_met_by(&lines("*2|  :x|  +x")));
        assert!(b.is_met_by(&lines("+OK")));
        assert!(!b.is_met_by(&lines("+OK|+OK")));
        assert!(!b.is_met_by(&[]));
    }

    #[test]
    fn a_wrong_line_is_named() {
        for (text, line) in [("> A\n@redis\n", 2), ("~ c\n< +OK\n", 2), ("@frob\n", 1)] {
            assert_eq!(parse(text).unwrap_err().0, line, "{text}");
        }
    }
}
