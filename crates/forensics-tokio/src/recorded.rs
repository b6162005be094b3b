//! The values that a phase records: kept for the report, and read by others while the phase runs.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use forensics_core::escape::{MAX_NAME_CHARS, MAX_TEXT_CHARS, truncate};
use forensics_core::record::value_field;
use serde_json::{Map, Value};
use tokio::time::Instant;

/// How often the values of a running phase are written to the record.
const WRITTEN_EVERY: Duration = Duration::from_millis(250);

/// What a phase has recorded so far, also to be read while it runs.
#[derive(Debug, Default)]
pub(crate) struct Recorded(Mutex<Values>);

#[derive(Debug, Default)]
struct Values {
    all: Map<String, Value>,
    /// The one that was set last, as `key=value`.
    last: Option<String>,
    written: Option<Instant>,
}

impl Recorded {
    /// Sets a value. Returns all values when it is time to write them to the record.
    pub(crate) fn set(&self, key: String, value: Value) -> Option<Map<String, Value>> {
        let key = truncate(key, MAX_NAME_CHARS);
        let value = match value {
            Value::String(text) => Value::String(truncate(text, MAX_TEXT_CHARS)),
            other => other,
        };
        let mut values = self.lock();
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
        self.lock().all.clone()
    }

    /// The value that was set last, as `key=value`.
    pub(crate) fn last(&self) -> Option<String> {
        self.lock().last.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Values> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
