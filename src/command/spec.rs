//! The row of a command, and what its function is given.

use smallvec::SmallVec;

use crate::base::time::UnixMs;
use crate::resp::reply::Reply;
use crate::value::change::Change;
use crate::value::view::Views;

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
