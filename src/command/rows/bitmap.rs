//! The rows of bitmaps.

use crate::command::spec::Spec;

/// The rows.
pub const ROWS: &[Spec] = &[];
