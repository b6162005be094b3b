//! Graceful shutdown for tokio services that says who stopped them and why.
//!
//! A guard in `main` handles the signals and names their sender. It runs the phases of the teardown under
//! one deadline, and writes a record that survives SIGKILL.
//!
//! ```no_run
//! use std::error::Error;
//! use std::time::Duration;
//! use forensics_tokio::{ShutdownGuard, ShutdownReport, diagnostic, logging};
//!
//! #[tokio::main]
//! async fn main() -> Result<ShutdownReport, Box<dyn Error>> {
//!     diagnostic::run_if_child(); // must be first: runs the diagnostic if this process was started for it
//!     logging::init(); // or your own tracing subscriber
//!     let guard = ShutdownGuard::builder("gateway")
//!         .drain_timeout(Duration::from_secs(30))
//!         .record_dir("/var/lib/gateway/shutdown")
//!         .diag_log("/var/log/gateway/shutdown-diag.log")
//!         .install()?; // from now on a signal requests a stop
//!
//!     guard.phase("drain", async |cx| cx.service_ended().await)
//!         .timeout(guard.drain_timeout());
//!     guard.phase("db_close", async |_| { /* pool.close().await */ })
//!         .reserve(Duration::from_secs(5)); // earlier phases cannot use this time
//!
//!     let stop = guard.token();
//!     let server = async move { stop.cancelled().await }; // your server, which ends with the token
//!     Ok(guard.run(server).await)
//! }
//! ```
//!
//! - [`ShutdownGuard`] is what `main` holds. Its [`Builder`] has the settings.
//! - [`PhaseContext`] is what a phase receives: the cause of the stop, its own deadline, and
//!   [`record`](PhaseContext::record) for values to log and record.
//! - [`ShutdownReport`] says how the stop went, and is the exit status of `main`.
//!
//! Other parts of the program use a [`ShutdownHandle`], to request a stop or to wait for one. Everything
//! is logged with the `tracing` target `shutdown`. The crate [`forensics_core`] has the parts that need
//! no runtime; it is re-exported as [`core`].
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `logging` (default) | the module `logging`: a subscriber for services that have none, to stderr or the journal |
//! | `axum` | the module `probes`: `/readyz` and `/livez` as an axum router |
//! | `serve` | the module `serve`: an accept loop for HTTP/1 and HTTP/2 that loses no request at a stop |
//! | `serve-http1` | the same without HTTP/2, and with fewer dependencies |
//! | `tonic` | [`connections`]: the count of connections for a tonic server |
//! | `metrics` | the module `metrics`: metrics of the previous run, through the `metrics` facade |
//! | `tower` | a layer for [`inflight`], which counts the HTTP requests of a tower service |
//! | `testing` | the module `testing`: for tests of your service's shutdown |

#![forbid(unsafe_code)]
// docs.rs shows which feature an item needs.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod blocking;
mod builder;
mod capture_context;
mod child;
mod config;
pub mod connections;
mod describe;
pub mod diagnostic;
mod events;
mod explain;
mod guard;
mod handle;
pub mod inflight;
mod listener;
mod lock;
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
mod previous_run;
#[cfg(feature = "axum")]
pub mod probes;
mod recorded;
mod recorder;
mod report;
#[cfg(feature = "serve-http1")]
pub mod serve;
mod shutdown;
mod shutdown_thread;
mod signal_check;
mod sinks;
mod spans;
mod status;
pub mod streams;
mod systemctl;
#[cfg(feature = "testing")]
pub mod testing;
mod unit;

pub use builder::Builder;
pub use builder::install_error::InstallError;
pub use config::Escalation;
pub use forensics_core as core;
pub use forensics_core::capture::Signal;
pub use forensics_core::cause::Cause;
pub use forensics_core::context::ShutdownContext;
pub use forensics_core::record::ExitKind;
pub use guard::ShutdownGuard;
pub use handle::{Reloading, ShutdownHandle};
pub use machine::WorstCase;
pub use outcome::{IntoBoxedError, IntoOutcome, Outcome, ServiceOutcome};
pub use phase::{Group, GroupPhase, Phase, PhaseId};
pub use phase_context::PhaseContext;
pub use report::{PhaseReport, RepeatedSignal, ShutdownReport};

/// Compiles the code of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
