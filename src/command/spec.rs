//! The row of a command, and what its function is given.

use smallvec::SmallVec;

use crate::base::time::UnixMs;
use crate::resp::reply::Reply;
use crate::value::change::Change;
use crate::value::view::Views;

use super::docs::{Arg, Docs, Group};
use super::flags::{Categories, Category, Flag, Flags};
use super::keyspec::{KeyRange, KeySpec, Keyless, Places};
use super::number::is;

/// One run of a keyed command. The function reads views, writes exactly one reply, and names the
/// changes; it changes nothing itself.
pub struct Call<'a, 'r> {
    /// The request; `args[0]` is the command's name, and the arity has been checked.
    pub args: &'a [&'a [u8]],
    /// The moment of the call. Expiry is judged by it.
    pub now: UnixMs,
    /// A number drawn by chance for this call.
    pub random: u64,
    /// The keys.
    pub views: &'r dyn Views,
    /// Where the reply goes.
    pub reply: &'r mut Reply,
    /// What is to change: key and change. An error reply comes with no changes.
    pub changes: &'r mut SmallVec<[(&'a [u8], Change<'a>); 1]>,
}

/// A keyed command's function.
pub type Keyed = for<'a, 'r> fn(&mut Call<'a, 'r>);

/// How the parts of a command that crosses slots become one reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Merge {
    /// An array of the parts' replies, in the order of the keys (MGET).
    Array,
    /// The sum of the parts' integers (DEL, EXISTS, UNLINK, TOUCH).
    Sum,
    /// `+OK` when every part answered so (MSET).
    Ok,
}

/// Who runs a command.
#[derive(Clone, Copy, Debug)]
pub enum Run {
    /// The session that got it, by itself (PING, HELLO, CLIENT, COMMAND, INFO, CONFIG, CLUSTER, …).
    Session,
    /// Every vnode of the cluster, gathered by the node (DBSIZE, KEYS, SCAN, FLUSHALL, RANDOMKEY).
    Everywhere,
    /// The key's coordinator, whole: all keys lie in one slot, else `-CROSSSLOT`.
    Slot(Keyed),
    /// A part for each key, at that key's coordinator; parts are `[name, key]`, or
    /// `[name, key, value]` with `stride` 2. (An argument count that does not divide is an arity error.)
    Each {
        /// Arguments per part: 1 or 2.
        stride: usize,
        /// How replies are merged.
        merge: Merge,
        /// Runs one part.
        part: Keyed,
    },
}

/// A command's row. Rows are constants, written down in [`super::rows`].
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// The name in lower case; a subcommand's is `container|subcommand`.
    pub name: &'static str,
    /// How many arguments a request has, its name (and subcommand) included; negative: at least.
    pub arity: i32,
    /// Its properties.
    pub flags: Flags,
    /// Its ACL categories.
    pub categories: Categories,
    /// Where its keys stand: what `key_specs` say, together.
    pub keys: KeyRange,
    /// Where its keys stand and what happens to them.
    pub key_specs: &'static [KeySpec],
    /// Hints for cluster clients and proxies.
    pub tips: &'static [&'static str],
    /// Who runs it. A container with subcommands is never run, unless it also stands alone.
    pub run: Run,
    /// What people are told.
    pub docs: Docs,
    /// The rows of its subcommands.
    pub subcommands: &'static [Spec],
}

impl Spec {
    /// A row without flags, keys and documentation.
    pub const fn new(name: &'static str, arity: i32, run: Run) -> Spec {
        Spec {
            name,
            arity,
            flags: Flags::of(&[]),
            categories: Categories::implied(Flags::of(&[])),
            keys: KeyRange::of(&[]),
            key_specs: &[],
            tips: &[],
            run,
            docs: Docs {
                summary: "",
                since: "",
                group: Group::Generic,
                complexity: "",
                deprecated: None,
                args: &[],
            },
            subcommands: &[],
        }
    }

    /// The row with these flags, and these categories beside those that the flags imply.
    #[must_use]
    pub const fn flags(mut self, flags: &[Flag], categories: &[Category]) -> Spec {
        self.flags = Flags::of(flags);
        self.categories = Categories::implied(self.flags).plus(Categories::of(categories));
        self
    }

    /// The row with these keys.
    #[must_use]
    pub const fn keys(mut self, key_specs: &'static [KeySpec]) -> Spec {
        self.key_specs = key_specs;
        self.keys = KeyRange::of(key_specs);
        self
    }

    /// The row with these hints.
    #[must_use]
    pub const fn tips(mut self, tips: &'static [&'static str]) -> Spec {
        self.tips = tips;
        self
    }

    /// The row with this documentation: chapter, first version, cost, one sentence.
    #[must_use]
    pub const fn docs(
        mut self,
        group: Group,
        since: &'static str,
        complexity: &'static str,
        summary: &'static str,
    ) -> Spec {
        self.docs.group = group;
        self.docs.since = since;
        self.docs.complexity = complexity;
        self.docs.summary = summary;
        self
    }

    /// The row, first seen in version `since`.
    #[must_use]
    pub const fn since(mut self, since: &'static str) -> Spec {
        self.docs.since = since;
        self
    }

    /// The row in this chapter.
    #[must_use]
    pub const fn group(mut self, group: Group) -> Spec {
        self.docs.group = group;
        self
    }

    /// The row with these arguments.
    #[must_use]
    pub const fn args(mut self, args: &'static [Arg]) -> Spec {
        self.docs.args = args;
        self
    }

    /// The row, deprecated since a version in favour of something else.
    #[must_use]
    pub const fn deprecated(mut self, since: &'static str, instead: &'static str) -> Spec {
        self.docs.deprecated = Some((since, instead));
        self
    }

    /// The row with these subcommands.
    #[must_use]
    pub const fn subcommands(mut self, rows: &'static [Spec]) -> Spec {
        self.subcommands = rows;
        self
    }

    /// The name without its container's: `get` of `config|get`.
    pub fn short_name(&self) -> &'static str {
        self.name.split_once('|').map_or(self.name, |(_, short)| short)
    }

    /// Whether a request of `count` arguments, its name included, has the right length.
    pub const fn accepts(&self, count: usize) -> bool {
        if self.arity < 0 {
            count >= self.arity.unsigned_abs() as usize
        } else {
            count == self.arity as usize
        }
    }

    /// Whether it writes to the key that is its first argument, and to no other.
    pub fn writes_one_key(&self) -> bool {
        let is_one = matches!(self.keys, KeyRange { first: 1, last: 1, number: 0, .. });
        is_one && self.key_specs.len() == 1 && self.flags.has(Flag::Write)
    }

    /// The places of the keys in a request that this row [`accepts`](Self::accepts).
    pub fn keys_of(&self, args: &[&[u8]]) -> Result<Places, Keyless> {
        let places = self.keys.places(args)?;
        Ok(match self.key_specs {
            [_, .., last] if self.flags.has(Flag::Movablekeys) => places.and_behind(last, args),
            _ => places,
        })
    }

    /// Whether this request asks nothing of the key's past, so that a stand-in holding none of
    /// the key's replicas may run it. Conditions look back: they take the permission away.
    pub fn is_blind(&self, args: &[&[u8]]) -> bool {
        let one_of = |arg: &&[u8], words: &[&str]| words.iter().any(|word| is(arg, word));
        let looks_back = match self.name {
            "set" | "kv.set" => {
                args.iter().skip(3).any(|arg| one_of(arg, &["NX", "XX", "GET", "KEEPTTL"]))
            }
            // Its options stand before the first score.
            "zadd" => {
                let conditions = ["NX", "XX", "GT", "LT"];
                let is_option =
                    |arg: &&&[u8]| one_of(arg, &conditions) || one_of(arg, &["CH", "INCR"]);
                let mut options = args.iter().skip(2).take_while(is_option);
                options.any(|arg| one_of(arg, &conditions))
            }
            _ => false,
        };
        self.flags.has(Flag::Blind) && !looks_back
    }
}
