//! The contract of a keyspace: N copies, R of them asked by a read, W of them told by a write.
//!
//! Dynamo §4.5: when R + W > N every read quorum meets every write quorum, so a read sees the
//! last completed write. The level follows from the numbers; only `linear` must be asked for.

use std::fmt;

use crate::base::limits::REPLICAS_MAX;

/// What a keyspace promises; see the table in the design.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Level {
    /// R + W ≤ N: every side of a split goes on; sides merge afterwards.
    Eventual,
    /// R + W > N: no stale read; a side without a quorum answers errors.
    Quorum,
    /// Asked for, never a matter of numbers: every command is linearizable, by consensus.
    Linear,
}

impl Level {
    /// Its name, as users see it.
    pub const fn name(self) -> &'static str {
        match self {
            Level::Eventual => "eventual",
            Level::Quorum => "quorum",
            Level::Linear => "linear",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// N, R and W. Always 1 ≤ R ≤ N, 1 ≤ W ≤ N and N ≤ [`REPLICAS_MAX`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Contract {
    n: u8,
    r: u8,
    w: u8,
}

/// Why three numbers are no contract. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ContractError {
    /// N is not from 1 to [`REPLICAS_MAX`].
    N(usize),
    /// R is not from 1 to N.
    R {
        /// The R asked for.
        r: usize,
        /// The N asked for.
        n: usize,
    },
    /// W is not from 1 to N.
    W {
        /// The W asked for.
        w: usize,
        /// The N asked for.
        n: usize,
    },
}

impl fmt::Display for ContractError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ContractError::N(n) => {
                write!(f, "n = {n}: the number of copies must be from 1 to {REPLICAS_MAX}")
            }
            ContractError::R { r: 0, .. } => {
                f.write_str("r = 0: a read must ask at least one copy")
            }
            ContractError::R { r, n } => {
                write!(
                    f,
                    "r = {r} is more than n = {n}: a read cannot ask more copies than there are"
                )
            }
            ContractError::W { w: 0, .. } => {
                f.write_str("w = 0: a write must reach at least one copy")
            }
            ContractError::W { w, n } => write!(
                f,
                "w = {w} is more than n = {n}: a write cannot reach more copies than there are"
            ),
        }
    }
}

impl std::error::Error for ContractError {}

impl Default for Contract {
    /// N = 3, R = 1, W = 2: a write survives the loss of a node, a read costs no round trip.
    fn default() -> Contract {
        Contract { n: 3, r: 1, w: 2 }
    }
}

impl Contract {
    /// The contract of `n` copies, reads from `r` and writes to `w` of them.
    pub const fn new(n: usize, r: usize, w: usize) -> Result<Contract, ContractError> {
        if n == 0 || n > REPLICAS_MAX {
            return Err(ContractError::N(n));
        }
        if r == 0 || r > n {
            return Err(ContractError::R { r, n });
        }
        if w == 0 || w > n {
            return Err(ContractError::W { w, n });
        }
        Ok(Contract { n: n as u8, r: r as u8, w: w as u8 })
    }

    /// Copies of a key.
    pub const fn n(self) -> usize {
        self.n as usize
    }

    /// Copies that a read asks, the coordinator's own among them.
    pub const fn r(self) -> usize {
        self.r as usize
    }

    /// Copies that a write reaches before it is acknowledged, the coordinator's own among them.
    pub const fn w(self) -> usize {
        self.w as usize
    }

    /// The level that follows from the numbers.
    pub const fn level(self) -> Level {
        if self.r + self.w > self.n { Level::Quorum } else { Level::Eventual }
    }

    /// The contract that can be kept with `nodes` nodes: N, R and W are at most their number.
    /// An `eventual` contract stays one where it can (first W, then R goes down), so that two
    /// nodes with the default go on when one of them is away; one node alone has only 1, 1, 1.
    #[must_use]
    pub fn capped(self, nodes: usize) -> Contract {
        let n = self.n.min(u8::try_from(nodes.max(1)).unwrap_or(u8::MAX));
        let (mut r, mut w) = (self.r.min(n), self.w.min(n));
        if self.level() == Level::Eventual {
            w = w.min(n.saturating_sub(r)).max(1);
            r = r.min(n.saturating_sub(w)).max(1);
        }
        Contract { n, r, w }
    }
}

impl fmt::Display for Contract {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "N={} R={} W={} ({})", self.n, self.r, self.w, self.level())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_contract_of_seven_copies() {
        for n in 0..=7usize {
            for r in 0..=8usize {
                for w in 0..=8usize {
                    let legal = n >= 1 && (1..=n).contains(&r) && (1..=n).contains(&w);
                    let Ok(contract) = Contract::new(n, r, w) else {
                        assert!(!legal);
                        continue;
                    };
                    assert!(legal);
                    assert_eq!(contract.level() == Level::Quorum, r + w > n);
                    check_caps(contract);
                }
            }
        }
    }

    fn check_caps(asked: Contract) {
        for nodes in 1..=8 {
            let kept = asked.capped(nodes);
            assert_eq!(kept.n(), asked.n().min(nodes));
            assert!(Contract::new(kept.n(), kept.r(), kept.w()).is_ok());
            assert!(kept.r() <= asked.r() && kept.w() <= asked.w());
            if kept.n() > 1 {
                assert_eq!(kept.level(), asked.level(), "{asked} with {nodes} nodes");
            }
            if nodes >= asked.n() {
                assert_eq!(kept, asked);
            }
        }
    }

    #[test]
    fn the_default_on_few_nodes() {
        let shown = |nodes| Contract::default().capped(nodes).to_string();
        assert_eq!(shown(1), "N=1 R=1 W=1 (quorum)");
        assert_eq!(shown(2), "N=2 R=1 W=1 (eventual)");
        assert_eq!(shown(3), "N=3 R=1 W=2 (eventual)");
    }

    #[test]
    fn errors_name_the_numbers() {
        let text = |n, r, w| Contract::new(n, r, w).unwrap_err().to_string();
        assert!(text(3, 1, 4).starts_with("w = 4 is more than n = 3"));
        assert!(text(3, 0, 1).starts_with("r = 0"));
        assert!(text(17, 1, 1).starts_with("n = 17"));
    }
}
