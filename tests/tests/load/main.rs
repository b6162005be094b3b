//! The gateway under full load, stopped many times in a row. It answers every request that it
//! received.
//!
//! wrk makes the load. In addition, our own clients know the result of each request.
//! docs/reliability.md says what is claimed here, and what cannot be guaranteed.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

mod activation;
mod last_look;
mod repeats;
mod stops;
mod wrk;
