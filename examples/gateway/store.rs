//! A store that cannot be written to once it is closed.

use std::sync::{Mutex, PoisonError};

/// A stand-in for a database. It has rows until it is closed.
#[derive(Debug)]
pub(crate) struct Store(Mutex<Option<Vec<&'static str>>>);

/// The store is closed.
#[derive(Debug)]
pub(crate) struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the store is closed")
    }
}

impl std::error::Error for Closed {}

impl Default for Store {
    fn default() -> Self {
        Self(Mutex::new(Some(Vec::new())))
    }
}

impl Store {
    pub(crate) fn insert(&self, row: &'static str) -> Result<(), Closed> {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rows.as_mut().ok_or(Closed)?.push(row);
        Ok(())
    }

    /// Closes it, and returns how many rows it had.
    pub(crate) fn close(&self) -> Result<usize, Closed> {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rows.take().map(|rows| rows.len()).ok_or(Closed)
    }
}
