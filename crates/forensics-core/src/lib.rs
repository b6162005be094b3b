//! What a Linux service can know about its own shutdown.
//!
//! Everything here is synchronous, knows no async runtime and spawns nothing; the crate
//! `forensics-tokio` puts it to work in a service, and the binary `forensics` on the command line.
//!
//! Nothing in this crate panics on what it finds in `/proc` or in a file: a fact that cannot be
//! had is absent, and text that other processes wrote is escaped before it is shown.

pub mod capture;
pub mod cause;
pub mod cgroupfs;
pub mod clock;
pub mod context;
pub mod diagnostic;
pub mod duration;
pub mod escape;
pub mod json;
pub mod marker;
mod os;
pub mod pod;
pub mod process;
mod procfile;
pub mod record;
pub mod secret;
pub mod secure_fs;
pub mod sender;
pub mod signal;
pub mod systemd;
pub mod threads;
mod trigger;

/// The readme's code, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
