//! The example gateway in environments where something is missing, broken or blocks: `/proc`,
//! `/dev`, the file system, system calls, other programs, or the time to start.
//!
//! Each test stops a real process by a real signal and reads all its output. In each, every phase
//! runs, nothing panics, the exit status is correct, and a fact that cannot be obtained is left
//! out, with at most one warning. The table in docs/reliability.md says what each fault costs. The
//! tests of a faulty `systemctl` need a real systemd, and are in the test target `systemd`.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // Clippy allows it in `#[test]` functions, but not in their helpers.

mod blocking;
mod diagnostic;
mod markers;
mod proc;
mod roots;
mod sandbox;
mod timing;
mod under;
