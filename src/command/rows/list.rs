//! The rows of lists.

use crate::command::spec::Spec;

/// The rows.
pub const ROWS: &[Spec] = &[];
