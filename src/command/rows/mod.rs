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

/// Costs that many rows share.
const CONSTANT: &str = "O(1)";
const PER_KEY: &str = "O(N) in the number of keys named";
const PER_LENGTH: &str = "O(N) in the length of the string";
const PER_COMMAND: &str = "O(N) in the number of commands";
const PER_CLIENT: &str = "O(N) in the number of this node's clients";
const PER_NODE: &str = "O(N) in the number of nodes";
const BY_SUBCOMMAND: &str = "As the subcommand's";
