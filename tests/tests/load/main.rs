//! The gateway under full load, stopped many times in a row: what it has been sent it answers.
//!
//! wrk makes the load, and beside it clients of our own know of each request what became of it.
//! docs/reliability.md says what is claimed here, and what cannot be.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

mod activation;
mod last_look;
mod stops;
mod wrk;
