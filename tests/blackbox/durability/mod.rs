//! What was acknowledged is there: after any death, on a full disk, past memory, past damage.
//!
//! ```text
//!  alone    one node, ended in order and out of it; its snapshots; two processes on one folder
//!  kills    kill -9 under load, again and again (scripts/soak.sh does it hundreds of times)
//!  scarce   a full disk, a folder that may not be written
//!  cold     ten times more data than memory
//!  damage   flipped bits in segment files
//! ```

mod alone;
mod cold;
mod damage;
mod kills;
mod scarce;
