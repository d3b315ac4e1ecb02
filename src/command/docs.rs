//! What a row tells people: summary, age, cost, and the tree of its arguments.
//!
//! `COMMAND DOCS`, the `HELP` subcommands and docs/commands.md are all drawn from here.

use std::fmt::Write;

/// The chapter of a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Group {
    /// Keys, whatever they hold.
    Generic,
    /// Strings and counters.
    String,
    /// Strings as rows of bits.
    Bitmap,
    /// Strings that estimate how many different things were seen.
    Hyperloglog,
    /// Hashes.
    Hash,
    /// Lists.
    List,
    /// Sets.
    Set,
    /// Sorted sets.
    SortedSet,
    /// The connection itself.
    Connection,
    /// The node.
    Server,
    /// The cluster, as Redis Cluster's clients see it.
    Cluster,
    /// Kvorum's own.
    Kvorum,
}

impl Group {
    /// The name, as `COMMAND DOCS` answers it.
    pub const fn name(self) -> &'static str {
        match self {
            Group::Generic => "generic",
            Group::String => "string",
            Group::Bitmap => "bitmap",
            Group::Hyperloglog => "hyperloglog",
            Group::Hash => "hash",
            Group::List => "list",
            Group::Set => "set",
            Group::SortedSet => "sorted-set",
            Group::Connection => "connection",
            Group::Server => "server",
            Group::Cluster => "cluster",
            Group::Kvorum => "kvorum",
        }
    }
}

/// A command's documentation.
#[derive(Clone, Copy, Debug)]
pub struct Docs {
    /// One sentence without a full stop.
    pub summary: &'static str,
    /// The Redis version that had it first (Kvorum's own: Kvorum's version).
    pub since: &'static str,
    /// Its chapter.
    pub group: Group,
    /// Its cost.
    pub complexity: &'static str,
    /// Since when it is deprecated, and what to use instead.
    pub deprecated: Option<(&'static str, &'static str)>,
    /// Its arguments, after the name.
    pub args: &'static [Arg],
}

/// What an argument is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ArgKind {
    /// Any bytes.
    String,
    /// A whole number.
    Integer,
    /// A number with a fraction.
    Double,
    /// A key.
    Key,
    /// A glob pattern.
    Pattern,
    /// A moment as Unix time.
    UnixTime,
    /// The token alone.
    PureToken,
    /// One of the arguments below it.
    Oneof,
    /// All of the arguments below it.
    Block,
}

impl ArgKind {
    /// The name, as `COMMAND DOCS` answers it.
    pub const fn name(self) -> &'static str {
        match self {
            ArgKind::String => "string",
            ArgKind::Integer => "integer",
            ArgKind::Double => "double",
            ArgKind::Key => "key",
            ArgKind::Pattern => "pattern",
            ArgKind::UnixTime => "unix-time",
            ArgKind::PureToken => "pure-token",
            ArgKind::Oneof => "oneof",
            ArgKind::Block => "block",
        }
    }
}

/// One argument of a command, or a group of them.
#[derive(Clone, Copy, Debug)]
pub struct Arg {
    /// Its name; what is shown for it unless it is a token, a choice or a block.
    pub name: &'static str,
    /// What it is.
    pub kind: ArgKind,
    /// Which of the row's key specs finds it, if it is a key.
    pub key_spec: Option<u8>,
    /// The word before it; empty for none.
    pub token: &'static str,
    /// The version that had it first, if it is younger than the command.
    pub since: &'static str,
    /// It may be left out.
    pub optional: bool,
    /// It may be repeated.
    pub multiple: bool,
    /// The arguments below a choice or a block.
    pub args: &'static [Arg],
}

impl Arg {
    const fn new(name: &'static str, kind: ArgKind) -> Arg {
        Arg {
            name,
            kind,
            key_spec: None,
            token: "",
            since: "",
            optional: false,
            multiple: false,
            args: &[],
        }
    }

    /// A key, found by the row's key spec number `key_spec`.
    pub const fn key(name: &'static str, key_spec: u8) -> Arg {
        Arg { key_spec: Some(key_spec), ..Arg::new(name, ArgKind::Key) }
    }

    /// Any bytes.
    pub const fn string(name: &'static str) -> Arg {
        Arg::new(name, ArgKind::String)
    }

    /// A whole number.
    pub const fn integer(name: &'static str) -> Arg {
        Arg::new(name, ArgKind::Integer)
    }

    /// A number with a fraction.
    pub const fn double(name: &'static str) -> Arg {
        Arg::new(name, ArgKind::Double)
    }

    /// A glob pattern.
    pub const fn pattern(name: &'static str) -> Arg {
        Arg::new(name, ArgKind::Pattern)
    }

    /// A moment.
    pub const fn unix_time(name: &'static str) -> Arg {
        Arg::new(name, ArgKind::UnixTime)
    }

    /// A word that stands for itself.
    pub const fn word(name: &'static str, token: &'static str) -> Arg {
        Arg::new(name, ArgKind::PureToken).token(token)
    }

    /// One of `args`.
    pub const fn oneof(name: &'static str, args: &'static [Arg]) -> Arg {
        Arg { args, ..Arg::new(name, ArgKind::Oneof) }
    }

    /// All of `args`.
    pub const fn block(name: &'static str, args: &'static [Arg]) -> Arg {
        Arg { args, ..Arg::new(name, ArgKind::Block) }
    }

    /// The same after the word `token`.
    #[must_use]
    pub const fn token(mut self, token: &'static str) -> Arg {
        self.token = token;
        self
    }

    /// The same, first seen in version `since`.
    #[must_use]
    pub const fn since(mut self, since: &'static str) -> Arg {
        self.since = since;
        self
    }

    /// The same, which may be left out.
    #[must_use]
    pub const fn optional(mut self) -> Arg {
        self.optional = true;
        self
    }

    /// The same, which may be repeated.
    #[must_use]
    pub const fn multiple(mut self) -> Arg {
        self.multiple = true;
        self
    }

    /// Whether the argument is shown by its name.
    pub const fn is_displayed(&self) -> bool {
        !matches!(self.kind, ArgKind::Oneof | ArgKind::Block)
    }

    fn draw(&self, out: &mut String) {
        let once = self.drawn_once();
        let (open, close) = if self.optional { ("[", "]") } else { ("", "") };
        let again = if self.multiple { format!(" [{once} ...]") } else { String::new() };
        let token = match self.token {
            "" => "",
            _ if self.kind == ArgKind::PureToken => "",
            token => token,
        };
        let gap = if token.is_empty() { "" } else { " " };
        // Writing to a String cannot fail.
        let _ = write!(out, "{open}{token}{gap}{once}{again}{close}");
    }

    fn drawn_once(&self) -> String {
        match self.kind {
            ArgKind::PureToken => self.token.to_owned(),
            ArgKind::Block => drawn(self.args, " "),
            ArgKind::Oneof if self.optional && self.token.is_empty() => drawn(self.args, " | "),
            ArgKind::Oneof => format!("<{}>", drawn(self.args, " | ")),
            _ => self.name.to_owned(),
        }
    }
}

/// The syntax of `args` on one line: `key value [NX | XX] [GET]`.
pub fn syntax(args: &[Arg]) -> String {
    drawn(args, " ")
}

fn drawn(args: &[Arg], between: &str) -> String {
    let mut out = String::new();
    for (at, arg) in args.iter().enumerate() {
        if at > 0 {
            out.push_str(between);
        }
        arg.draw(&mut out);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_drawn_on_one_line() {
        const CHOICE: &[Arg] = &[Arg::word("nx", "NX"), Arg::integer("seconds").token("EX")];
        const PAIR: &[Arg] = &[Arg::key("key", 0), Arg::string("value")];
        assert_eq!(syntax(&[Arg::oneof("c", CHOICE).optional()]), "[NX | EX seconds]");
        assert_eq!(syntax(&[Arg::oneof("c", CHOICE).token("BY")]), "BY <NX | EX seconds>");
        assert_eq!(syntax(&[Arg::block("data", PAIR).multiple()]), "key value [key value ...]");
        assert_eq!(syntax(&[Arg::string("x").optional().multiple()]), "[x [x ...]]");
        assert_eq!(syntax(&[]), "");
    }
}
