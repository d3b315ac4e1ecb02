//! The rows of sets.

use crate::command::spec::Spec;

/// The rows.
pub const ROWS: &[Spec] = &[];
