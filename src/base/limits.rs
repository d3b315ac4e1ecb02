//! Every limit of the house in one list, each with its why.

/// Longest key. Redis allows 512 MB; a key is copied into every hint, delta and tree walk here.
pub const KEY_SIZE_MAX: usize = 64 << 10;

/// Longest string value: Redis's `proto-max-bulk-len`.
pub const VALUE_SIZE_MAX: usize = 512 << 20;

/// Most arguments of one request: Redis's own bound.
pub const REQUEST_ARGUMENTS_MAX: usize = 1024 * 1024;

/// Longest inline request line: Redis's `PROTO_INLINE_MAX_SIZE`.
pub const INLINE_SIZE_MAX: usize = 64 << 10;

/// Most bytes that one connection's unfinished request may hold: Redis's `client-query-buffer-limit`.
pub const QUERY_BUFFER_MAX: usize = 1 << 30;

/// Longest frame between peers: one value, its key and its causal history fit.
pub const PEER_FRAME_SIZE_MAX: usize = 768 << 20;

/// Longest frame of a handshake: what is known of 64 members' lives fits.
pub const PEER_HELLO_SIZE_MAX: usize = 2 << 10;

/// Longest round of gossip: a digest of every member fits many times.
pub const GOSSIP_SIZE_MAX: usize = 16 << 10;

/// Most replicas of a key (N): a tally of them fits a machine word.
pub const REPLICAS_MAX: usize = 16;

/// Most siblings a string may gather before writes answer `-TOOMANYSIBLINGS`.
pub const SIBLINGS_MAX: usize = 32;

/// Longest context token, in characters: a history of tens of thousands of writers fits, and what
/// a stranger sends is not read further.
pub const TOKEN_SIZE_MAX: usize = 1 << 20;

/// How many elements a command may draw that draws the same ones again (HRANDFIELD and its kin with
/// a negative count): the reply to a small request about a small key must not fill the memory. All
/// together they may be as long as a value.
pub const DRAWS_MAX: usize = 1 << 20;

/// Most ranges of a large collection's elements that one message compares or tells.
pub const PART_RANGES_MAX: usize = 4096;

/// Redis Cluster's hash slots.
pub const SLOTS: u16 = 16_384;

/// Most vnodes: each is a whole run of slots, and four slots a vnode is fine enough.
pub const VNODES_MAX: u16 = 4_096;

const _: () = assert!(KEY_SIZE_MAX + VALUE_SIZE_MAX < PEER_FRAME_SIZE_MAX);
const _: () = assert!(VALUE_SIZE_MAX < QUERY_BUFFER_MAX);
const _: () = assert!(VNODES_MAX <= SLOTS);
