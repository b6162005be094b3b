//! The gateway as a unit of a real systemd, booted by `tests/systemd/boot` in namespaces of its own.
//!
//! Where this machine cannot boot one (no root, no systemd, no cgroup2) these tests say so and pass,
//! except with `CI=true`, where that is a failure.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

mod alignment;
mod diagnostic;
mod hardening;
mod harness;
mod journal;
mod notify;
mod programs;
mod restarts;
mod stop;
