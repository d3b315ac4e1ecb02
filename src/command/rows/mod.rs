//! Every command's row, chapter by chapter.
//!
//! To add a command: write its function, write its row here, and let the test of
//! docs/commands.md print the line that the page then lacks.

pub mod bitmap;
pub mod cluster;
pub mod connection;
pub mod hash;
pub mod hyperloglog;
pub mod key;
pub mod kvorum;
pub mod list;
pub mod server;
pub mod set;
pub mod string;
pub mod zset;

use super::docs::Arg;

/// `key`, found by the first key spec.
const KEY: Arg = Arg::key("key", 0);

/// `key [key ...]`.
const KEYS: Arg = KEY.multiple();

/// `value`.
const VALUE: Arg = Arg::string("value");

/// The arguments of HSCAN and its kin that they share: `cursor [MATCH pattern] [COUNT count]`.
const SCAN_OPTIONS: [Arg; 3] = [
    Arg::integer("cursor"),
    Arg::pattern("pattern").token("MATCH").optional(),
    Arg::integer("count").token("COUNT").optional(),
];

/// Costs that many rows share.
const CONSTANT: &str = "O(1)";
const PER_KEY: &str = "O(N) in the number of keys named";
const PER_NAMED: &str = "O(N) in the number of elements named";
const PER_ELEMENT: &str = "O(N) in the number of elements";
const SCAN_COST: &str = "O(N) in COUNT; all calls together O(N) in the number of elements";
const PER_LENGTH: &str = "O(N) in the length of the string";
const PER_COMMAND: &str = "O(N) in the number of commands";
const PER_CLIENT: &str = "O(N) in the number of this node's clients";
const PER_NODE: &str = "O(N) in the number of nodes";
const BY_SUBCOMMAND: &str = "As the subcommand's";
