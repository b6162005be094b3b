//! Why a guard could not be installed.

use std::fmt;

use forensics_core::capture::HandlerError;
use forensics_core::escape::{Escaped, error_chain};
use forensics_core::logfmt::Value;

/// Why a guard could not be installed.
///
/// Its `Debug` is its `Display` and that of its sources: `main` shows it of an error that it returns,
/// and the operator should read a sentence.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum InstallError {
    /// There is no tokio runtime to listen on.
    #[error("install() needs a tokio runtime: call it inside `#[tokio::main]` or `block_on`")]
    NoRuntime,
    /// A marker's name cannot be the name of a field in the context line.
    #[error(
        "marker name `{}`: a name is made of lower-case letters, digits and `_`, such as `takeover`",
        Escaped(.0)
    )]
    MarkerName(String),
    /// A variable of the environment does not hold what it must.
    #[error("{variable}={} in the environment: {problem}", Value(value))]
    Environment {
        /// Which.
        variable: &'static str,
        /// What it holds.
        value: String,
        /// What is wrong with that, and the fix.
        problem: String,
    },
    /// A signal cannot be handled, or no descriptor is free.
    #[error(transparent)]
    Signals(#[from] HandlerError),
    /// tokio could not listen for the signals.
    #[error("tokio cannot listen for the signals: {0}")]
    Listen(std::io::Error),
    /// The shutdown thread could not be started.
    #[error("cannot start the shutdown thread: {0}")]
    Keeper(std::io::Error),
}

impl fmt::Debug for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&error_chain(self))
    }
}
