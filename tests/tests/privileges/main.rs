//! What a local user can do with a guarded program that has more rights: SECURITY.md says what is
//! promised.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

mod secure_execution;
mod termination;
