//! Flags, environment and file, cut into each room's options.
