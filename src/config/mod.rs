//! Flags, environment and file, made into checked settings.
//!
//! ```text
//!  flag ▷ KVORUM_* ▷ file ▷ default      the first that is there decides (source.rs)
//!        │
//!        ▼  row.rs names every setting once: help, environment and the docs follow it
//!  text ──▶ value.rs checks and types it ──▶ settings.rs: Settings
//! ```

pub mod row;
pub mod secret;
pub mod settings;
pub mod source;
pub mod value;
