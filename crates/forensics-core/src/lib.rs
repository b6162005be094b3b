//! What a Linux service can know about its own shutdown.
//!
//! Everything here is synchronous, independent of any async runtime, and starts no process or
//! thread. The crate `forensics-tokio` uses it in a service, and the program `forensics` on the
//! command line.
//!
//! Nothing in this crate panics on the content of `/proc` or of a file. A fact that is not known is
//! absent. Text from other processes is escaped before it is shown.

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

// For `forensics-tokio` and `forensics-cli`, which always have the same version as this crate. The
// hidden modules may change with any version.
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
pub mod program;
#[doc(hidden)]
pub mod secret;
#[doc(hidden)]
pub mod secure_fs;
#[doc(hidden)]
pub mod signal_delivery;
#[doc(hidden)]
pub mod threads;

mod access;
mod basis;
mod os;
mod procfile;

/// Compiles the code of the readme.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
