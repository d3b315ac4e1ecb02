//! Where the text of a setting comes from: flag, environment, file, in that order.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use toml::{Table, Value};

use super::row::{ROWS, Row, row};

/// Who said it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The command line.
    Flag,
    /// The environment.
    Environment,
    /// The file named by `--config`.
    File(PathBuf),
    /// Nobody.
    Default,
}

/// Why there are no settings. Nothing was started, opened or written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ConfigError {
    /// A value that the setting cannot have.
    Setting {
        /// The setting.
        name: &'static str,
        /// Its value; `***` if it is a secret.
        value: String,
        /// Who said it.
        origin: Origin,
        /// What it may be.
        allowed: String,
    },
    /// `--members` is given, but does not tell which of them this node is.
    NodeUnknown {
        /// The address by which it was sought.
        address: String,
    },
    /// An environment variable that is not UTF-8.
    NotText(String),
    /// A file that could not be read, and why.
    Unreadable(PathBuf, String),
    /// A file that is not TOML, and why.
    NotToml(PathBuf, String),
    /// A key in the file that is no setting.
    UnknownKey(PathBuf, String),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Setting { name, value, origin, allowed } => {
                write!(f, "{name} = {value:?} ")?;
                match (origin, row(name)) {
                    (Origin::Flag, _) => write!(f, "(flag --{name})")?,
                    (Origin::Environment, Some(row)) => {
                        write!(f, "(environment variable {})", row.variable())?;
                    }
                    (Origin::File(path), _) => write!(f, "(file {})", path.display())?,
                    _ => f.write_str("(default)")?,
                }
                write!(f, ": {allowed}")
            }
            ConfigError::NodeUnknown { address } => write!(
                f,
                "node-id is not given, and no member is {address}: \
                 say which member this node is with --node-id"
            ),
            ConfigError::NotText(variable) => write!(f, "{variable} is not UTF-8"),
            ConfigError::Unreadable(path, why) => {
                write!(f, "{} cannot be read: {why}", path.display())
            }
            ConfigError::NotToml(path, why) => write!(f, "{} is not TOML: {why}", path.display()),
            ConfigError::UnknownKey(path, key) => {
                write!(f, "{} has a key {key:?}, which is no setting", path.display())
            }
        }
    }
}

impl std::error::Error for ConfigError {}

/// A setting that somebody gave.
#[derive(Clone, PartialEq, Eq)]
pub struct Given {
    /// The setting.
    pub row: &'static Row,
    /// The text as it was given.
    pub text: String,
    /// Who gave it.
    pub origin: Origin,
}

impl PartialEq for Row {
    fn eq(&self, other: &Row) -> bool {
        self.name == other.name
    }
}

impl Eq for Row {}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {:?} ({:?})", self.row.name, self.shown(), self.origin)
    }
}

impl Given {
    /// The text, unless it is a secret.
    fn shown(&self) -> &str {
        if self.row.secret { "***" } else { &self.text }
    }

    /// The error that this value is not `allowed`.
    pub fn refuse(&self, allowed: impl Into<String>) -> ConfigError {
        ConfigError::Setting {
            name: self.row.name,
            value: self.shown().to_owned(),
            origin: self.origin.clone(),
            allowed: allowed.into(),
        }
    }
}

/// Everything that was given: the strongest source of each setting has won.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sources {
    given: BTreeMap<&'static str, Given>,
}

impl Sources {
    /// What flags, environment and the file that they name say.
    pub fn gather(
        flags: &ArgMatches,
        variable: impl Fn(&str) -> Option<std::ffi::OsString>,
    ) -> Result<Sources, ConfigError> {
        let mut sources = Sources::default();
        for row in ROWS {
            if let Some(text) = flags.get_one::<String>(row.name) {
                sources.add(row, text.clone(), Origin::Flag);
                continue;
            }
            for name in row.variables() {
                if let Some(text) = variable(&name) {
                    let text = text.into_string().map_err(|_| ConfigError::NotText(name))?;
                    sources.add(row, text, Origin::Environment);
                }
            }
        }
        if let Some(config) = sources.get("config") {
            let path = PathBuf::from(config.text);
            let text = std::fs::read_to_string(&path)
                .map_err(|why| ConfigError::Unreadable(path.clone(), why.to_string()))?;
            sources.add_file(&path, &text)?;
        }
        Ok(sources)
    }

    /// Settings by name, as if they were flags.
    ///
    /// # Panics
    /// If a name is no setting's.
    pub fn of<'a>(pairs: impl IntoIterator<Item = (&'a str, String)>) -> Sources {
        let mut sources = Sources::default();
        for (name, text) in pairs {
            sources.add(row(name).expect("the name of a setting"), text, Origin::Flag);
        }
        sources
    }

    /// What was given for `name`.
    pub fn get(&self, name: &str) -> Option<Given> {
        self.given.get(name).cloned()
    }

    fn add(&mut self, row: &'static Row, text: String, origin: Origin) {
        self.given.entry(row.name).or_insert(Given { row, text, origin });
    }

    /// Adds what the file says and nobody stronger did.
    fn add_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let table: Table = text
            .parse()
            .map_err(|why: toml::de::Error| ConfigError::NotToml(path.into(), why.to_string()))?;
        for (key, value) in &table {
            let (name, text) = match (key.as_str(), value) {
                ("member", Value::Array(rows)) => ("members", member_list(path, rows)?),
                (name, value) => (name, scalar(value)),
            };
            match row(name).filter(|row| row.name != "config") {
                Some(row) => self.add(row, text, Origin::File(path.into())),
                None => return Err(ConfigError::UnknownKey(path.into(), key.clone())),
            }
        }
        Ok(())
    }
}

/// The text that a flag would have for the same value.
fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// `[[member]]` tables as the text of `--members`.
fn member_list(path: &Path, rows: &[Value]) -> Result<String, ConfigError> {
    let members: Result<Vec<String>, ConfigError> =
        rows.iter().map(|row| member_text(path, row)).collect();
    Ok(members?.join(","))
}

fn member_text(path: &Path, row: &Value) -> Result<String, ConfigError> {
    let unknown = |key: &str| ConfigError::UnknownKey(path.into(), format!("member.{key}"));
    let table = row.as_table().ok_or_else(|| unknown(""))?;
    let [mut id, mut host, mut port, mut options] = [const { String::new() }; 4];
    for (key, value) in table {
        let text = scalar(value);
        match key.as_str() {
            "id" => id = format!("{text}="),
            "host" if text.contains(':') => host = format!("[{text}]"),
            "host" => host = text,
            "port" => port = text,
            "peer-port" => options.insert_str(0, &format!("@{text}")),
            "zone" | "weight" => options.push_str(&format!(";{key}={text}")),
            _ => return Err(unknown(key)),
        }
    }
    let port = if port.is_empty() { "6379" } else { &port };
    Ok(format!("{id}{host}:{port}{options}"))
}
