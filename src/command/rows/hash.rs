//! The rows of hashes.

use crate::command::spec::Spec;

/// The rows.
pub const ROWS: &[Spec] = &[];
