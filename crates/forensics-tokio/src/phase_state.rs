//! What a running phase, its supervisor and whoever looks at it from beside share.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::blackbox::Place;
use crate::recorded::Recorded;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct PhaseState {
    pub(crate) name: String,
    pub(crate) group: Option<Arc<str>>,
    /// When the stop was asked for, and when the phase started.
    pub(crate) began: Instant,
    pub(crate) started: Instant,
    /// When it will be dropped, as it stands now.
    pub(crate) end: Mutex<Instant>,
    pub(crate) token: CancellationToken,
    pub(crate) recorded: Recorded,
}

impl PhaseState {
    /// It as the record knows it.
    pub(crate) fn place(&self) -> Place<'_> {
        Place { phase: &self.name, group: self.group.as_deref() }
    }

    pub(crate) fn end(&self) -> Instant {
        *self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_end(&self, end: Instant) {
        *self.end.lock().unwrap_or_else(PoisonError::into_inner) = end;
    }
}
