//! What can ask a service to stop.

use serde::{Deserialize, Serialize};

use crate::signal::Signal;

/// What asked us to stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Trigger {
    /// A POSIX signal.
    Signal {
        /// The signal.
        signal: Signal,
    },
    /// The program itself.
    Request {
        /// The reason it gave.
        reason: String,
    },
    /// The service's own future ended before anything asked it to.
    ServiceEnded {
        /// Its error, if it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
}
