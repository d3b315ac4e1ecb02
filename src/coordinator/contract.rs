//! How many replicas a request asks: the keyspace's contract, and what the request made of it.
//!
//! Invariant: in a keyspace whose R + W exceeds N, every read any client may make meets every
//! write any client may make. Sums of one request's own R and W are not enough for that: with
//! N=3, R=2, W=3, "R=1 with W=3" and "R=2 with W=2" are both above 3, yet the read of the one
//! misses the write of the other. So the contract's R is the floor of every read, and N−R+1 the
//! floor of every write:
//!
//! ```text
//!   replicas   ■ ■ ■ ■ ■          N = 5
//!   any write  ■ ■ ■              W' ≥ N − R + 1 = 3
//!   any read       ■ ■ ■          R' ≥ R = 3          they share one
//! ```
//!
//! The same N−R+1 is what a read must see holding its answer before it gives it (Attiya, Bar-Noy
//! and Dolev, 1995: a reader writes back), or the next read may miss it. With W=N and R=1 that is
//! every replica: cheap reads there are regular only while a write is under way.
//!
//! Dynamo §4.5 (R, W, N). Nothing here is a promise in an `eventual` keyspace, where any R and W
//! up to N will do.

use std::fmt;

use crate::base::limits::REPLICAS_MAX;

/// A keyspace's contract: `n` copies, `r` asked by a read, `w` holding an acknowledged write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quorum {
    /// Replicas of a key, 1 to [`REPLICAS_MAX`].
    pub n: u8,
    /// Replicas whose answers a read joins, 1 to `n`.
    pub r: u8,
    /// Replicas that hold an acknowledged write, 1 to `n`.
    pub w: u8,
}

/// What a connection or a request asks instead of the contract's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Override {
    /// R, if given.
    pub r: Option<u8>,
    /// W, if given.
    pub w: Option<u8>,
}

/// What a request really asks of the replicas that are there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Effective {
    /// Replicas there are: the contract's N, or fewer nodes.
    pub n: u8,
    /// Answers a read joins, the coordinator's own included.
    pub r: u8,
    /// Replicas that must hold a write, the coordinator included.
    pub w: u8,
    /// Replicas that must be seen to hold what a read answers, the coordinator included: 1 in an
    /// `eventual` keyspace.
    pub hold: u8,
    /// Whether the keyspace promises that no read is stale (its contract's R + W > N): contexts
    /// are compared too, and a write checks first.
    pub strict: bool,
}

/// Why a contract or an override is refused. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// N is 0 or more than a tally holds.
    Replicas,
    /// R is 0 or above N.
    Read {
        /// The contract's N.
        n: u8,
    },
    /// W is 0 or above N.
    Write {
        /// The contract's N.
        n: u8,
    },
    /// R is below the R of a `quorum` keyspace.
    ReadLevel {
        /// What was asked.
        r: u8,
        /// The least that is allowed.
        floor: u8,
    },
    /// W would not meet the reads of a `quorum` keyspace.
    WriteLevel {
        /// What was asked.
        w: u8,
        /// The least that is allowed.
        floor: u8,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Replicas => write!(f, "ERR N must be between 1 and {REPLICAS_MAX}"),
            Refusal::Read { n } => write!(f, "ERR R must be between 1 and N={n}"),
            Refusal::Write { n } => write!(f, "ERR W must be between 1 and N={n}"),
            Refusal::ReadLevel { r, floor } => write!(
                f,
                "ERR R={r} would allow stale reads in a quorum keyspace, R must be at least {floor}"
            ),
            Refusal::WriteLevel { w, floor } => write!(
                f,
                "ERR W={w} would allow stale reads in a quorum keyspace, W must be at least {floor}"
            ),
        }
    }
}

impl std::error::Error for Refusal {}

impl Override {
    /// This request's wishes, and where it has none, the connection's.
    #[must_use]
    pub fn or(self, connection: Override) -> Override {
        Override { r: self.r.or(connection.r), w: self.w.or(connection.w) }
    }
}

impl Quorum {
    /// The contract of a keyspace for which nobody said anything: available, two copies sure.
    pub const DEFAULT: Quorum = Quorum { n: 3, r: 1, w: 2 };

    /// A contract, if its numbers fit each other.
    pub fn new(n: u8, r: u8, w: u8) -> Result<Quorum, Refusal> {
        if n == 0 || usize::from(n) > REPLICAS_MAX {
            return Err(Refusal::Replicas);
        }
        in_range(Some(r), n, Refusal::Read { n })?;
        in_range(Some(w), n, Refusal::Write { n })?;
        Ok(Quorum { n, r, w })
    }

    /// Whether R + W exceeds N: level `quorum`.
    pub const fn strict(self) -> bool {
        self.r as u16 + self.w as u16 > self.n as u16
    }

    /// Whether a request may ask for this. What is refused does not depend on how many nodes
    /// there are, so a client that was served is served after the cluster grew.
    pub fn check(self, asked: Override) -> Result<(), Refusal> {
        in_range(asked.r, self.n, Refusal::Read { n: self.n })?;
        in_range(asked.w, self.n, Refusal::Write { n: self.n })?;
        if !self.strict() {
            return Ok(());
        }
        let (r_floor, w_floor) = (self.r, self.n - self.r + 1);
        match asked {
            Override { r: Some(r), .. } if r < r_floor => {
                Err(Refusal::ReadLevel { r, floor: r_floor })
            }
            Override { w: Some(w), .. } if w < w_floor => {
                Err(Refusal::WriteLevel { w, floor: w_floor })
            }
            _ => Ok(()),
        }
    }

    /// What a request asks of `replicas` present replicas (at least one: N is capped by the nodes
    /// there are, and R and W with it).
    pub fn effective(self, asked: Override, replicas: usize) -> Result<Effective, Refusal> {
        self.check(asked)?;
        let usual = self.usual(replicas);
        let n = usual.n;
        let of = |asked: Option<u8>, usual: u8| asked.map_or(usual, |asked| asked.min(n));
        Ok(Effective { r: of(asked.r, usual.r), w: of(asked.w, usual.w), ..usual })
    }

    /// What a request demands of so many replicas that asks for nothing of its own.
    #[inline]
    pub fn usual(self, replicas: usize) -> Effective {
        let n = usize::from(self.n).min(replicas).max(1) as u8;
        let strict = self.strict();
        let hold = if strict { n - self.r.min(n) + 1 } else { 1 };
        Effective { n, r: self.r.min(n), w: self.w.min(n), hold, strict }
    }
}

impl Effective {
    /// Replicas a write asks before it runs, the coordinator included: one, itself, unless strict.
    pub const fn precheck(self) -> u8 {
        if self.strict { self.r } else { 1 }
    }

    /// Replicas that a read cannot do without.
    pub fn read_needs(self) -> u8 {
        self.r.max(self.hold)
    }

    /// Replicas that a write cannot do without.
    pub fn write_needs(self) -> u8 {
        self.w.max(self.precheck())
    }
}

fn in_range(asked: Option<u8>, n: u8, refusal: Refusal) -> Result<(), Refusal> {
    match asked {
        Some(count) if count == 0 || count > n => Err(refusal),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contracts() -> impl Iterator<Item = Quorum> {
        (1..=5).flat_map(|n| {
            (1..=n).flat_map(move |r| (1..=n).map(move |w| Quorum::new(n, r, w).unwrap()))
        })
    }

    /// Every wish, and what it comes to with `nodes` nodes, of those that are granted.
    fn granted(quorum: Quorum, nodes: usize) -> Vec<Effective> {
        let wishes = || std::iter::once(None).chain((0..=quorum.n + 1).map(Some));
        wishes()
            .flat_map(|r| wishes().map(move |w| Override { r, w }))
            .filter_map(|asked| quorum.effective(asked, nodes).ok())
            .collect()
    }

    #[test]
    fn in_a_quorum_keyspace_every_read_meets_every_write_and_every_answer() {
        for quorum in contracts().filter(|q| q.strict()) {
            for nodes in 1..=6 {
                let all = granted(quorum, nodes);
                for read in &all {
                    for write in &all {
                        assert!(read.r + write.w > read.n, "{quorum:?} {nodes} {read:?} {write:?}");
                        // The answer of a read is held where every other read looks, and where
                        // every write looks first.
                        assert!(write.r + read.hold > read.n);
                        assert!(write.precheck() + read.w > read.n);
                    }
                    assert!(read.strict && read.read_needs() <= read.n);
                }
            }
        }
    }

    #[test]
    fn an_eventual_keyspace_allows_everything_up_to_n_and_stays_eventual() {
        for quorum in contracts().filter(|q| !q.strict()) {
            let all = granted(quorum, 9);
            let wishes = usize::from(quorum.n) + 1;
            assert_eq!(all.len(), wishes * wishes);
            assert!(all.iter().all(|e| !e.strict && e.hold == 1 && e.precheck() == 1));
        }
    }

    #[test]
    fn one_node_alone_just_works() {
        for quorum in contracts() {
            let alone = quorum.effective(Override::default(), 1).unwrap();
            assert_eq!((alone.n, alone.r, alone.w, alone.hold), (1, 1, 1, 1));
            assert_eq!((alone.read_needs(), alone.write_needs()), (1, 1));
        }
    }

    #[test]
    fn refusals_say_what_would_do() {
        let text = |quorum: Quorum, r, w| quorum.check(Override { r, w }).unwrap_err().to_string();
        let strict = Quorum::new(3, 2, 3).unwrap();
        assert_eq!(text(strict, Some(0), None), "ERR R must be between 1 and N=3");
        assert_eq!(text(Quorum::DEFAULT, None, Some(4)), "ERR W must be between 1 and N=3");
        assert!(text(strict, Some(1), None).starts_with("ERR R=1 would allow stale reads"));
        assert!(text(strict, None, Some(1)).ends_with("W must be at least 2"));
        assert_eq!(strict.check(Override { r: Some(3), w: Some(2) }), Ok(()));
        assert_eq!(Quorum::new(17, 1, 1), Err(Refusal::Replicas));
        assert_eq!(Quorum::new(0, 0, 0), Err(Refusal::Replicas));
        assert_eq!(Quorum::new(3, 4, 1), Err(Refusal::Read { n: 3 }));
    }

    #[test]
    fn a_request_goes_before_its_connection() {
        let connection = Override { r: Some(2), w: Some(3) };
        let request = Override { r: Some(1), w: None };
        assert_eq!(request.or(connection), Override { r: Some(1), w: Some(3) });
    }
}
