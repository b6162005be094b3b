//! The gateway as a unit of a real systemd, which `tests/systemd/boot` boots in separate
//! namespaces.
//!
//! If this machine cannot boot one (no root, no systemd, no cgroup2), these tests are skipped and
//! say so. With `CI=true` they fail.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

mod alignment;
mod attacks;
mod diagnostic;
mod ends;
mod hardening;
mod harness;
mod journal;
mod notify;
mod programs;
mod reasons;
mod restarts;
mod roles;
mod signals;
mod stop;
mod timeouts;
mod versions;
