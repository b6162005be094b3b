//! What a Linux service can know about its own shutdown.
//!
//! Everything here is synchronous, knows no async runtime and spawns nothing; the crate
//! `forensics-tokio` puts it to work in a service, and the binary `forensics` on the command line.
//!
//! Nothing in this crate panics on what it finds in `/proc` or in a file: a fact that is not known
//! is absent, and text that other processes wrote is escaped before it is shown.

#[macro_use]
mod words;

pub mod capture;
pub mod cause;
pub mod context;
pub mod diagnostic;
pub mod duration;
pub mod marker;
pub mod process;
pub mod record;
pub mod systemd;

// For `forensics-tokio` and `forensics-cli`: they have the same version as this crate, and what is
// hidden may change with any version.
#[doc(hidden)]
pub mod cgroupfs;
#[doc(hidden)]
pub mod clock;
#[doc(hidden)]
pub mod escape;
#[doc(hidden)]
pub mod json;
#[doc(hidden)]
pub mod logfmt;
#[doc(hidden)]
pub mod secret;
#[doc(hidden)]
pub mod secure_fs;
#[doc(hidden)]
pub mod threads;

mod access;
mod os;
mod procfile;

/// The readme's code, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
