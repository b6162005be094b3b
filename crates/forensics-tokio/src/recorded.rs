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
pub(crate) struct Recorded(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    values: Values,
    written: Option<Instant>,
    /// Whether a write of the values that were set since then is scheduled.
    is_scheduled: bool,
}

/// The values that a phase has recorded.
#[derive(Debug, Clone, Default)]
pub(crate) struct Values {
    pub(crate) all: Map<String, Value>,
    /// The value that was set last, as `key=value`.
    pub(crate) last: Option<String>,
}

/// When the values must be written to the record.
pub(crate) enum Write {
    Now(Values),
    /// After this time, by [`Recorded::take_scheduled`].
    After(Duration),
    /// A write is already scheduled.
    Scheduled,
}

impl Recorded {
    /// Sets a value.
    pub(crate) fn set(&self, key: String, value: Value) -> Write {
        let key = truncate(key, MAX_NAME_CHARS);
        let value = match value {
            Value::String(text) => Value::String(truncate(text, MAX_TEXT_CHARS)),
            other => other,
        };
        let mut state = lock(&self.0);
        state.values.last = Some(value_field(&key, &value));
        state.values.all.insert(key, value);
        if state.is_scheduled {
            return Write::Scheduled;
        }
        let since = state.written.map_or(WRITTEN_EVERY, |written| written.elapsed());
        if since < WRITTEN_EVERY {
            state.is_scheduled = true;
            return Write::After(WRITTEN_EVERY - since);
        }
        state.written = Some(Instant::now());
        Write::Now(state.values.clone())
    }

    /// All values, to write them.
    pub(crate) fn take_scheduled(&self) -> Values {
        let mut state = lock(&self.0);
        state.is_scheduled = false;
        state.written = Some(Instant::now());
        state.values.clone()
    }

    /// All values.
    pub(crate) fn get(&self) -> Values {
        lock(&self.0).values.clone()
    }
}
