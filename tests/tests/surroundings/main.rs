//! The example gateway where something of its surroundings is missing, broken or hangs: `/proc`,
//! `/dev`, the file system, system calls, the programs beside it, or the time to start.
//!
//! Each test stops a real process by a real signal and reads all it said and wrote. What must hold
//! everywhere: every phase runs, nothing panics, the exit status is the right one, and what is not
//! to be had is absent, with one warning for it at most. What each costs is the table in
//! docs/reliability.md. That of a sick `systemctl` is in the test target `systemd`, as it takes a
//! real systemd.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // Clippy spares `#[test]` functions, and not what they share.

mod blocking;
mod diagnostic;
mod markers;
mod proc;
mod roots;
mod sandbox;
mod timing;
mod under;
