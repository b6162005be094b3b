//! Why a guard could not be installed.

use std::fmt;

use forensics_core::capture::HandlerError;
use forensics_core::escape::{Escaped, error_chain};
use forensics_core::logfmt::Value;

/// Why a guard could not be installed.
///
/// Its `Debug` is the same as its `Display`. So an operator reads a sentence when `main` returns it.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum InstallError {
    /// `install` was called outside a tokio runtime.
    #[error("install() needs a tokio runtime: call it inside `#[tokio::main]` or `block_on`")]
    NoRuntime,
    /// The name of a marker cannot be the name of a field in the context line.
    #[error(
        "marker name `{}`: use lower-case letters, digits and `_`, such as `takeover`",
        Escaped(.0)
    )]
    MarkerName(String),
    /// An environment variable has an invalid value.
    #[error("environment variable {variable}={}: {reason}; allowed: {allowed}", Value(value))]
    Environment {
        /// The name of the variable.
        variable: &'static str,
        /// Its value. The error message shows it escaped.
        value: String,
        /// Why the value is invalid.
        reason: String,
        /// The values that are allowed.
        allowed: &'static str,
    },
    /// A signal cannot be handled, or no file descriptor is free.
    #[error(transparent)]
    Signals(#[from] HandlerError),
    /// tokio could not listen for the signals.
    #[error("tokio cannot listen for the signals: {0}")]
    Listen(std::io::Error),
    /// The shutdown thread could not be started.
    #[error("cannot start the shutdown thread: {0}")]
    ShutdownThread(std::io::Error),
}

impl fmt::Debug for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&error_chain(self))
    }
}
