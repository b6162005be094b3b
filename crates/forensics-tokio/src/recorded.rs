//! What a phase records: kept for the report, and read by others while the phase runs.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use forensics_core::escape::{MAX_NAME_CHARS, MAX_TEXT_CHARS, cut_to};
use forensics_core::record::value_field;
use serde_json::{Map, Value};
use tokio::time::Instant;

/// How often what a phase records is written down while it runs.
const WRITTEN_EVERY: Duration = Duration::from_millis(250);

/// What a phase has recorded so far, also to be read while it runs.
#[derive(Debug, Default)]
pub(crate) struct Recorded(Mutex<Values>);

#[derive(Debug, Default)]
struct Values {
    all: Map<String, Value>,
    last_key: Option<String>,
    written: Option<Instant>,
}

impl Recorded {
    /// Sets a value. Returns all values when it is time to write them down.
    pub(crate) fn set(&self, key: String, value: Value) -> Option<Map<String, Value>> {
        let key = cut_to(key, MAX_NAME_CHARS);
        let value = match value {
            Value::String(text) => Value::String(cut_to(text, MAX_TEXT_CHARS)),
            other => other,
        };
        let mut values = self.lock();
        values.last_key = Some(key.clone());
        values.all.insert(key, value);
        let now = Instant::now();
        let written = values.written.is_some_and(|written| now - written < WRITTEN_EVERY);
        if !written {
            values.written = Some(now);
        }
        (!written).then(|| values.all.clone())
    }

    /// All of it.
    pub(crate) fn all(&self) -> Map<String, Value> {
        self.lock().all.clone()
    }

    /// What came last, as `key=value`.
    pub(crate) fn last(&self) -> Option<String> {
        let values = self.lock();
        let key = values.last_key.as_ref()?;
        Some(value_field(key, values.all.get(key)?))
    }

    fn lock(&self) -> MutexGuard<'_, Values> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
