//! What a running phase, its supervisor and whoever looks at it from beside share.

mod recorded;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde_json::{Map, Value};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Span;

use self::recorded::Recorded;
use crate::blackbox::Place;
use crate::events;

/// A phase or a group as the log and the record know it.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) group: Option<Arc<str>>,
    pub(crate) span: Span,
}

impl Named {
    pub(crate) fn new(name: String, parent: &Span, group: Option<Arc<str>>) -> Self {
        let span = events::phase_span(&name, parent);
        Self { name, group, span }
    }

    pub(crate) fn place(&self) -> Place<'_> {
        Place { phase: &self.name, group: self.group.as_deref() }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct PhaseState {
    pub(crate) named: Named,
    /// When the stop was asked for, and when the phase started.
    pub(crate) began: Instant,
    pub(crate) started: Instant,
    /// When it will be dropped, as it stands now.
    end: Mutex<Instant>,
    /// Made when it is first asked for: most phases go without.
    token: OnceLock<CancellationToken>,
    pub(crate) recorded: Recorded,
}

impl PhaseState {
    /// Of a phase that starts now, and is to end by then.
    pub(crate) fn new(named: Named, began: Instant, started: Instant, end: Instant) -> Self {
        let (token, recorded) = (OnceLock::new(), Recorded::default());
        Self { named, began, started, end: Mutex::new(end), token, recorded }
    }

    /// The names and all that was recorded, of a phase that has ended.
    pub(crate) fn into_parts(self: Arc<Self>) -> (Named, Map<String, Value>) {
        match Arc::try_unwrap(self) {
            Ok(state) => (state.named, state.recorded.into_all()),
            // Somebody looks at it, or has kept its context.
            Err(state) => (state.named.clone(), state.recorded.all()),
        }
    }

    /// Cancelled when the phase is dropped.
    pub(crate) fn token(&self) -> &CancellationToken {
        self.token.get_or_init(CancellationToken::new)
    }

    pub(crate) fn end(&self) -> Instant {
        *self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_end(&self, end: Instant) {
        *self.end.lock().unwrap_or_else(PoisonError::into_inner) = end;
    }
}
