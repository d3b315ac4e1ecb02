//! The rules that can be taken away, one at a time.
//!
//! A check that cannot fail proves nothing. Each of these must be found within a stated number of
//! seeds (see [`super::tests`]).

/// A rule that is taken away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mutant {
    /// All rules hold.
    None,
    /// A node that died goes on under its old name.
    SameActor,
    /// The vector rises over writes that have not arrived.
    NoPrev,
    /// The coordinator counts twice among the W.
    CountsTwice,
    /// A write of a strict keyspace runs without asking others first.
    NoPrecheck,
    /// A read of a strict keyspace answers whether or not others hold what it answers.
    NoWriteBack,
    /// Checks compare what lives, not what was removed.
    LiveOnly,
    /// A node that may have forgotten writes counts at once.
    RecoveringCounts,
    /// A node that may have forgotten writes asks only for what differs.
    NoWholeExchange,
    /// Removals do not travel in exchanges.
    NoTombstones,
    /// A node whose disk was replaced by an older one takes no new name, and counts.
    NoNewBoot,
    /// Which lives of others were met is forgotten with the process.
    MetInMemory,
    /// Starts are told apart by their numbers alone.
    NumbersForMarks,
    /// A node whose disk is empty counts before it has met anybody.
    UnmetCounts,
    /// That a node has not yet again what it lost is forgotten with the process.
    MendingForgotten,
    /// Nobody asks more replicas than usual after a link was lost.
    NotUnsettled,
    /// Replies and frames leave before the log holds what was done.
    AckBeforeLog,
    /// A forwarded request whose link broke is tried again.
    ForwardRetried,
    /// Where a stream has a gap, nothing is compared.
    NoExchange,
    /// A stream goes on one change too late.
    StreamSkips,
    /// What was handed on to one replica is forgotten.
    HintOneAck,
    /// A stand-in writes as a replica, although it forgets.
    HintVector,
    /// Every replica forgets removals by itself after a while.
    TimedCollection,
    /// A write that ran and was not confirmed in time says that nothing was done.
    UncertainDenied,
}

impl Mutant {
    /// The last of the list: so many rules there are.
    pub(super) const LAST: Mutant = Mutant::UncertainDenied;

    /// Whether this is the rule that is taken away.
    pub(super) fn is(self, rule: Mutant) -> bool {
        self == rule
    }
}
