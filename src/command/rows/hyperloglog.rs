//! The rows of HyperLogLogs.

use crate::command::spec::Spec;

/// The rows.
pub const ROWS: &[Spec] = &[];
