//! The example gateway receives a real signal while a resource that every process needs is missing.
//! Each time all phases run, the exit status is correct, and there is one warning for what is
//! missing.
//!
//! The table in docs/reliability.md has a row for each.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // Clippy allows it in `#[test]` functions, but not in their helpers.

mod bursts;
mod clocks;
mod descriptors;
mod disks;
mod pauses;
mod scarcity;
mod scene;
mod streams;
