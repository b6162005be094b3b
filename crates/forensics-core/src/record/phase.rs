//! The schema of the phases' events; see [`super::event`] for what holds for all.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::words::words;

/// A phase began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PhaseStarted {
    /// The phase's name.
    pub phase: String,
    /// The group it runs in, where it runs in one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The budget it was given, in microseconds; absent where it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_us: Option<u64>,
    /// Microseconds since the first signal.
    pub offset_us: u64,
}

impl PhaseStarted {
    /// A phase without group and budget.
    pub fn new(phase: impl Into<String>, offset_us: u64) -> Self {
        Self { phase: phase.into(), group: None, timeout_us: None, offset_us }
    }
}

/// A phase told how far it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PhaseProgress {
    /// The phase's name.
    pub phase: String,
    /// The group it runs in, where it runs in one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// What the phase recorded: names and values of its own choice.
    #[serde(default)]
    pub values: Map<String, Value>,
    /// Microseconds since the first signal.
    pub offset_us: u64,
}

impl PhaseProgress {
    /// Progress of a phase without a group.
    pub fn new(phase: impl Into<String>, values: Map<String, Value>, offset_us: u64) -> Self {
        Self { phase: phase.into(), group: None, values, offset_us }
    }
}

words! {
    /// How a phase ended.
    PhaseOutcome {
        /// It returned, and well.
        Ok = "ok",
        /// It returned an error.
        Failed = "failed",
        /// It panicked.
        Panicked = "panicked",
        /// It ran past its budget and was dropped.
        TimedOut = "timed_out",
        /// A second signal ended it.
        CutShort = "cut_short",
        /// It never ran.
        Skipped = "skipped",
    }
}

/// A phase ended, or was skipped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PhaseFinished {
    /// The phase's name.
    pub phase: String,
    /// The group it ran in, where it ran in one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// How it ended.
    pub outcome: PhaseOutcome,
    /// The error's or panic's text, or why it was skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How long it ran, in microseconds.
    pub took_us: u64,
    /// Microseconds since the first signal.
    pub offset_us: u64,
    /// All that the phase recorded.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub values: Map<String, Value>,
}

impl PhaseFinished {
    /// The end of a phase without group, error and values.
    pub fn new(
        phase: impl Into<String>,
        outcome: PhaseOutcome,
        took_us: u64,
        offset_us: u64,
    ) -> Self {
        Self {
            phase: phase.into(),
            group: None,
            outcome,
            error: None,
            took_us,
            offset_us,
            values: Map::new(),
        }
    }
}
