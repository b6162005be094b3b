//! The error for a folder or a file that is not used.

use std::io;
use std::path::Path;

/// Why a folder or a file is not used. `Display` names the path and the fix.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
pub struct AccessError {
    problem: String,
    source: Option<io::Error>,
}

impl AccessError {
    pub(crate) fn refused(problem: String) -> Self {
        Self { problem, source: None }
    }

    pub(crate) fn system(
        (action, fix): Attempt,
        path: &Path,
        source: impl Into<io::Error>,
    ) -> Self {
        let problem = format!("cannot {action} {}{fix}", path.display());
        Self { problem, source: Some(source.into()) }
    }
}

/// What was tried, and what to do if the system refused.
pub(crate) type Attempt = (&'static str, &'static str);
