//! The events of the phases. The documentation of [`super::event`] also applies here.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::few::few_fields;
use crate::escape::{MAX_NAME_CHARS, MAX_TEXT_CHARS, truncate};
use crate::logfmt::{self, Key};

/// How many of the values that a phase recorded are shown on one line.
const MAX_SHOWN: usize = 64;

/// A phase began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PhaseStarted {
    /// The phase's name.
    pub phase: String,
    /// The group it runs in, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Its budget in microseconds; absent if it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_us: Option<u64>,
    /// How much of that time earlier phases had to leave for it, in microseconds; absent if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserve_us: Option<u64>,
    /// Microseconds since the first signal.
    pub offset_us: u64,
}

impl PhaseStarted {
    /// A phase without group and budget.
    pub fn new(phase: impl Into<String>, offset_us: u64) -> Self {
        Self { phase: phase.into(), group: None, timeout_us: None, reserve_us: None, offset_us }
    }
}

/// A phase reported its progress.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PhaseProgress {
    /// The phase's name.
    pub phase: String,
    /// The group it runs in, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The values that the phase recorded, by names of its choice.
    #[serde(default, deserialize_with = "few_fields")]
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

/// How a phase ended. Ordered from good to bad: a group ends like the worst of its members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PhaseOutcome {
    /// It returned without an error.
    Ok,
    /// It did not run, because a phase that it requires did not end well, no time was left, or the
    /// stop was escalated.
    Skipped,
    /// It was dropped because the stop was escalated, for example by a second Ctrl-C.
    CutShort,
    /// It was dropped when its time was up.
    TimedOut,
    /// It returned an error.
    Failed,
    /// It panicked.
    Panicked,
    /// A value of a newer version. The file has its name.
    #[serde(other)]
    Other,
}

display_as_in_json!(PhaseOutcome);

/// A phase ended, or was skipped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PhaseFinished {
    /// The phase's name.
    pub phase: String,
    /// The group it ran in, if any.
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
    /// Everything that the phase recorded.
    #[serde(default, skip_serializing_if = "Map::is_empty", deserialize_with = "few_fields")]
    pub values: Map<String, Value>,
}

impl PhaseFinished {
    /// The end of a phase without group, error and values.
    #[doc(hidden)]
    pub fn new(
        phase: impl Into<String>,
        outcome: PhaseOutcome,
        took_us: u64,
        offset_us: u64,
    ) -> Self {
        let (phase, values) = (phase.into(), Map::new());
        Self { phase, group: None, outcome, error: None, took_us, offset_us, values }
    }
}

/// The values of a phase as `key=value` fields on one line, which [`crate::logfmt::parse`] reads
/// back. Long values are cut. Only the first fields are shown, then how many more there are.
pub fn values_line(values: &Map<String, Value>) -> String {
    let mut shown: Vec<_> = values.iter().map(|(key, value)| value_field(key, value)).collect();
    if shown.len() > MAX_SHOWN {
        shown.splice(MAX_SHOWN.., [format!("…={}", values.len() - MAX_SHOWN)]);
    }
    shown.join(" ")
}

/// One of these fields: `active_now=3`.
pub fn value_field(key: &str, value: &Value) -> String {
    let key = truncate(key, MAX_NAME_CHARS);
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    format!("{}={}", Key(&key), logfmt::Value(&truncate(&text, MAX_TEXT_CHARS)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::escape::is_safe;
    use crate::logfmt;

    #[test]
    fn any_values_of_a_phase_are_one_line() {
        let value = json!({
            "n": 3, "evil=1 cause": "a b\n\u{1b}[31m", "list": ["x y", {"\u{202e}": null}],
        });
        let line = values_line(value.as_object().unwrap());
        assert!(line.chars().all(is_safe), "{line}");
        let read = logfmt::parse(&line).unwrap();
        let expected = [
            ("evil=1 cause", "a b\n\u{1b}[31m"),
            ("list", "[\"x y\",{\"\u{202e}\":null}]"),
            ("n", "3"),
        ];
        assert_eq!(read, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));

        let many: Map<_, _> =
            (0..1000).map(|n| (format!("{n:04}"), "x".repeat(9000).into())).collect();
        let read = logfmt::parse(&values_line(&many)).unwrap();
        assert_eq!(read.len(), 65);
        assert_eq!(read[64], ("…".to_owned(), "936".to_owned()));
        assert!(read[0].1.ends_with("x…") && read[0].1.chars().count() == MAX_TEXT_CHARS);
    }
}
