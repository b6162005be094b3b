//! The record exists when it is needed: it is written again if it was lost while the gateway ran, and
//! a start reports the run before it, also if others use the folder.
//!
//! Some of these tests need root, and `bindfs`.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // Clippy allows it in `#[test]` functions, but not in their helpers.

mod foreign;
mod lost;
mod memory;
mod owners;
mod shared;
