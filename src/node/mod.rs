//! The shell of one node: tasks, clock and wiring. It decides nothing.
