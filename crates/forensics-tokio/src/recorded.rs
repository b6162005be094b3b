//! The values that a phase records. They go into the report. While the phase runs, log lines and
//! systemd's status show them.

use std::sync::Mutex;
use std::time::Duration;

use forensics_core::escape::{MAX_NAME_CHARS, MAX_TEXT_CHARS, truncate};
use forensics_core::record::value_field;
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::lock::lock;

/// How often the values of a running phase are written to the record.
const WRITTEN_EVERY: Duration = Duration::from_millis(250);

/// What a phase has recorded so far.
#[derive(Debug, Default)]
pub(crate) struct Recorded(Mutex<Values>);

#[derive(Debug, Default)]
struct Values {
    all: Map<String, Value>,
    /// The value that was set last, as `key=value`.
    last: Option<String>,
    written: Option<Instant>,
}

impl Recorded {
    /// Sets a value. Returns all values if it is time to write them to the record again.
    pub(crate) fn set(&self, key: String, value: Value) -> Option<Map<String, Value>> {
        let key = truncate(key, MAX_NAME_CHARS);
        let value = match value {
            Value::String(text) => Value::String(truncate(text, MAX_TEXT_CHARS)),
            other => other,
        };
        let mut values = lock(&self.0);
        values.last = Some(value_field(&key, &value));
        values.all.insert(key, value);
        if values.written.is_some_and(|written| written.elapsed() < WRITTEN_EVERY) {
            return None;
        }
        values.written = Some(Instant::now());
        Some(values.all.clone())
    }

    /// All values.
    pub(crate) fn all(&self) -> Map<String, Value> {
        lock(&self.0).all.clone()
    }

    /// The value that was set last, as `key=value`.
    pub(crate) fn last(&self) -> Option<String> {
        lock(&self.0).last.clone()
    }
}
