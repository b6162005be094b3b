//! What a stop can begin with.

use serde::{Deserialize, Serialize};

use crate::signal::Signal;

/// What asked us to stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Trigger {
    /// A POSIX signal.
    Signal {
        /// Which.
        signal: Signal,
    },
    /// The program itself.
    Request {
        /// Why, in its words.
        reason: String,
    },
    /// The service's own future ended.
    ServiceEnded {
        /// What it failed with, where it did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
}
