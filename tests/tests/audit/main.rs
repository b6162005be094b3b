//! The kernel's audit log, with a real auditd: who sent SIGKILL, and who sent a signal and was gone.
//!
//! Needs root and the Debian package auditd. The kernel has one audit log for all: each test loads its
//! rule, and takes away that rule only. On a kernel that does not let us use the log, the tests say so
//! and do nothing, also in CI.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

mod auditd;
mod calls;
mod command;
mod many;
mod namespaces;
mod senders;
mod subject;
