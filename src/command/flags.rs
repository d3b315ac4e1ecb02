//! The small words of a row: flags, ACL categories, and what is done to a key.
//!
//! Each is an enum in the order in which `COMMAND INFO` names its members, and a set of them is
//! one machine word, so rows stay constants.

/// A property of a command, as `COMMAND INFO` reports it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flag {
    /// It may change keys.
    Write,
    /// It reads keys and changes none.
    Readonly,
    /// It may make the keyspace grow, so it is refused when memory is full.
    Denyoom,
    /// It is for operators.
    Admin,
    /// It belongs to publish and subscribe.
    Pubsub,
    /// It may not run inside a script.
    Noscript,
    /// It may keep its client waiting.
    Blocking,
    /// It is allowed while the keyspace is being read from disk.
    Loading,
    /// It is allowed while the node's data may be out of date.
    Stale,
    /// It is kept out of the slow log.
    SkipSlowlog,
    /// It takes constant or logarithmic time.
    Fast,
    /// It needs no authentication.
    NoAuth,
    /// It may be replicated though it is no plain write.
    MayReplicate,
    /// Its key arguments may be absent.
    NoMandatoryKeys,
    /// It is not allowed while another keyspace is being read beside the present one.
    NoAsyncLoading,
    /// It may not stand in a transaction.
    NoMulti,
    /// Where its keys stand depends on other arguments.
    Movablekeys,
    /// It is allowed while a script holds the node.
    AllowBusy,
    /// It asks nothing of the key's past, so a stand-in that holds no replica may run it.
    /// Kvorum's own, and not reported by `COMMAND INFO`. See [`super::spec::Spec::is_blind`].
    Blind,
}

impl Flag {
    const REPORTED: [(Flag, &'static str); 18] = [
        (Flag::Write, "write"),
        (Flag::Readonly, "readonly"),
        (Flag::Denyoom, "denyoom"),
        (Flag::Admin, "admin"),
        (Flag::Pubsub, "pubsub"),
        (Flag::Noscript, "noscript"),
        (Flag::Blocking, "blocking"),
        (Flag::Loading, "loading"),
        (Flag::Stale, "stale"),
        (Flag::SkipSlowlog, "skip_slowlog"),
        (Flag::Fast, "fast"),
        (Flag::NoAuth, "no_auth"),
        (Flag::MayReplicate, "may_replicate"),
        (Flag::NoMandatoryKeys, "no_mandatory_keys"),
        (Flag::NoAsyncLoading, "no_async_loading"),
        (Flag::NoMulti, "no_multi"),
        (Flag::Movablekeys, "movablekeys"),
        (Flag::AllowBusy, "allow_busy"),
    ];
}

/// A set of [`Flag`]s.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flags(u32);

impl Flags {
    /// The set of `flags`.
    pub const fn of(flags: &[Flag]) -> Flags {
        let (mut bits, mut at) = (0, 0);
        while at < flags.len() {
            bits |= 1 << flags[at] as u32;
            at += 1;
        }
        Flags(bits)
    }

    /// Whether `flag` is in the set.
    pub const fn has(self, flag: Flag) -> bool {
        self.0 & (1 << flag as u32) != 0
    }

    /// The names that `COMMAND INFO` reports.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Flag::REPORTED.into_iter().filter(move |(flag, _)| self.has(*flag)).map(|(_, name)| name)
    }
}

/// An ACL category, by which operators allow and forbid commands in bulk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Category {
    /// Keys, whatever they hold.
    Keyspace,
    /// Reads keys.
    Read,
    /// Changes keys.
    Write,
    /// Sets.
    Set,
    /// Sorted sets.
    Sortedset,
    /// Lists.
    List,
    /// Hashes.
    Hash,
    /// Strings.
    String,
    /// Strings as rows of bits.
    Bitmap,
    /// Strings that estimate how many different things were seen.
    Hyperloglog,
    /// Publish and subscribe.
    Pubsub,
    /// For operators.
    Admin,
    /// Takes constant or logarithmic time.
    Fast,
    /// Is not fast.
    Slow,
    /// May keep its client waiting.
    Blocking,
    /// Can hurt the cluster or its clients.
    Dangerous,
    /// Concerns the connection itself.
    Connection,
    /// MULTI, EXEC and their kin.
    Transaction,
    /// Scripts.
    Scripting,
}

impl Category {
    /// Every category with its name, in Redis's order.
    pub const ALL: [(Category, &'static str); 19] = [
        (Category::Keyspace, "keyspace"),
        (Category::Read, "read"),
        (Category::Write, "write"),
        (Category::Set, "set"),
        (Category::Sortedset, "sortedset"),
        (Category::List, "list"),
        (Category::Hash, "hash"),
        (Category::String, "string"),
        (Category::Bitmap, "bitmap"),
        (Category::Hyperloglog, "hyperloglog"),
        (Category::Pubsub, "pubsub"),
        (Category::Admin, "admin"),
        (Category::Fast, "fast"),
        (Category::Slow, "slow"),
        (Category::Blocking, "blocking"),
        (Category::Dangerous, "dangerous"),
        (Category::Connection, "connection"),
        (Category::Transaction, "transaction"),
        (Category::Scripting, "scripting"),
    ];

    /// The category called `name`, in any case.
    pub fn named(name: &[u8]) -> Option<Category> {
        let known = |(_, word): &&(Category, &str)| word.as_bytes().eq_ignore_ascii_case(name);
        Category::ALL.iter().find(known).map(|(category, _)| *category)
    }
}

/// A set of [`Category`]s.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Categories(u32);

impl Categories {
    /// The set of `categories`.
    pub const fn of(categories: &[Category]) -> Categories {
        let (mut bits, mut at) = (0, 0);
        while at < categories.len() {
            bits |= 1 << categories[at] as u32;
            at += 1;
        }
        Categories(bits)
    }

    /// The categories that follow from a command's flags; Redis derives them in the same way.
    pub const fn implied(flags: Flags) -> Categories {
        const RULES: [(Flag, Category); 7] = [
            (Flag::Write, Category::Write),
            (Flag::Readonly, Category::Read),
            (Flag::Admin, Category::Admin),
            (Flag::Admin, Category::Dangerous),
            (Flag::Pubsub, Category::Pubsub),
            (Flag::Fast, Category::Fast),
            (Flag::Blocking, Category::Blocking),
        ];
        let mut bits = if flags.has(Flag::Fast) { 0 } else { 1 << Category::Slow as u32 };
        let mut at = 0;
        while at < RULES.len() {
            if flags.has(RULES[at].0) {
                bits |= 1 << RULES[at].1 as u32;
            }
            at += 1;
        }
        Categories(bits)
    }

    /// Both sets.
    #[must_use]
    pub const fn plus(self, other: Categories) -> Categories {
        Categories(self.0 | other.0)
    }

    /// Whether `category` is in the set.
    pub const fn has(self, category: Category) -> bool {
        self.0 & (1 << category as u32) != 0
    }

    /// The names, in Redis's order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Category::ALL.into_iter().filter(move |(c, _)| self.has(*c)).map(|(_, name)| name)
    }
}

/// What a command does with a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Changes what is there and may let it show.
    Rw,
    /// Reads.
    Ro,
    /// Replaces, whatever was there.
    Ow,
    /// Removes.
    Rm,
    /// The reply shows what the key holds, or something made of it.
    Access,
    /// What the key holds changes.
    Update,
    /// Something is added, nothing is lost.
    Insert,
    /// Something the key holds is deleted.
    Delete,
    /// It depends on other arguments.
    VariableFlags,
}

/// A set of [`Access`]es.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Accesses(u16);

impl Accesses {
    const NAMES: [(Access, &'static str); 9] = [
        (Access::Rw, "RW"),
        (Access::Ro, "RO"),
        (Access::Ow, "OW"),
        (Access::Rm, "RM"),
        (Access::Access, "access"),
        (Access::Update, "update"),
        (Access::Insert, "insert"),
        (Access::Delete, "delete"),
        (Access::VariableFlags, "variable_flags"),
    ];

    /// The set of `accesses`.
    pub const fn of(accesses: &[Access]) -> Accesses {
        let (mut bits, mut at) = (0, 0);
        while at < accesses.len() {
            bits |= 1 << accesses[at] as u16;
            at += 1;
        }
        Accesses(bits)
    }

    /// Whether `access` is in the set.
    pub const fn has(self, access: Access) -> bool {
        self.0 & (1 << access as u16) != 0
    }

    /// The names, in Redis's order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Accesses::NAMES.into_iter().filter(move |(a, _)| self.has(*a)).map(|(_, name)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_in_the_order_of_redis() {
        let flags = Flags::of(&[Flag::Fast, Flag::Blind, Flag::Write, Flag::Denyoom]);
        assert_eq!(flags.names().collect::<Vec<_>>(), ["write", "denyoom", "fast"]);
        assert!(flags.has(Flag::Blind) && !flags.has(Flag::Readonly));
        let accesses = Accesses::of(&[Access::Update, Access::Ow]);
        assert_eq!(accesses.names().collect::<Vec<_>>(), ["OW", "update"]);
    }

    #[test]
    fn flags_imply_categories() {
        let implied = Categories::implied(Flags::of(&[Flag::Admin, Flag::Noscript]));
        assert_eq!(implied.names().collect::<Vec<_>>(), ["admin", "slow", "dangerous"]);
        let implied = Categories::implied(Flags::of(&[Flag::Readonly, Flag::Fast]));
        let all = implied.plus(Categories::of(&[Category::String]));
        assert_eq!(all.names().collect::<Vec<_>>(), ["read", "string", "fast"]);
    }

    #[test]
    fn categories_are_found_in_any_case() {
        assert_eq!(Category::named(b"SortedSet"), Some(Category::Sortedset));
        assert_eq!(Category::named(b"sorted"), None);
    }
}
