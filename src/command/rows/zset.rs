//! The rows of sorted sets.

use crate::command::spec::Spec;

/// The rows.
pub const ROWS: &[Spec] = &[];
