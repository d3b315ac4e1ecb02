//! Failures heal by themselves: splits, deaths, lost disks, and nobody types a command.
//!
//! ```text
//!  sides    both sides of a split go on, and merge when they meet
//!  returns  a node that was away gets what it missed: kept for it, found by comparison, or all
//!  seen     who is silent is suspected by the others, and trusted again
//! ```
//!
//! These are the short forms of the stories that `scripts/chaos.sh` tells at length, under load and
//! with packets dropped.

mod returns;
mod seen;
mod sides;
mod told;
