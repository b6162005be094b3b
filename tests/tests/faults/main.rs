//! The example gateway on its worst day: a real signal while something that every process takes for
//! granted is not to be had. Each time all phases run, it ends as it should, and what is missing costs
//! one warning.
//!
//! The table in docs/reliability.md has a row for each.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // Clippy spares `#[test]` functions, and not what they share.

mod bursts;
mod clocks;
mod descriptors;
mod disks;
mod pauses;
mod scarcity;
mod scene;
mod streams;
