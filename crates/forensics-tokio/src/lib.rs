//! Graceful shutdown for tokio services that says who stopped them, why, and what each teardown
//! phase took.
//!
//! [`ShutdownGuard`] wraps a service's `main`: it listens for signals, names their sender while
//! that can still be done, cancels a token, runs the registered phases under one deadline, and
//! says all this on the `tracing` target `shutdown`.
//!
//! What can be known without a runtime is the crate [`forensics_core`], re-exported as [`core`].
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `logging` (default) | `logging`: a subscriber for services that have none, to stderr or the journal |
//! | `axum` | `probes`: `/readyz` and `/livez` as an axum router |
//! | `metrics` | `metrics`: at the next start, figures on the run that ended, through the `metrics` facade |
//! | `tower` | the layers of [`inflight`], which count a tower service's requests |
//! | `testing` | `testing`: tests of your own shutdown; for a dev-dependency |

#![forbid(unsafe_code)]
// On docs.rs what a feature adds says so.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod blocking;
mod builder;
mod capture_context;
mod child;
mod config;
mod describe;
pub mod diag;
mod events;
mod explain;
mod guard;
pub mod inflight;
mod listener;
mod log_thread;
#[cfg(feature = "logging")]
pub mod logging;
mod low_latency;
mod machine;
mod message;
#[cfg(feature = "metrics")]
pub mod metrics;
mod notify;
mod os;
mod outcome;
mod panics;
mod phase;
mod phase_context;
mod phases;
#[cfg(feature = "axum")]
pub mod probes;
mod readiness;
mod record_events;
mod recorded;
mod recorder;
mod report;
mod shutdown;
mod shutdown_thread;
mod status;
mod systemctl;
#[cfg(feature = "testing")]
pub mod testing;

pub use builder::Builder;
pub use builder::install_error::InstallError;
pub use config::Escalation;
pub use forensics_core as core;
pub use forensics_core::capture::Signal;
pub use guard::{Reloading, ShutdownGuard};
pub use outcome::{IntoOutcome, Outcome, ServiceOutcome};
pub use phase::{Group, GroupPhase, Phase};
pub use phase_context::PhaseContext;
pub use report::{LaterSignal, PhaseReport, ShutdownReport};

/// The readme's code, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
