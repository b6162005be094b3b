//! What a running phase is given.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::machine::{Event, StepId};
use crate::recorded::Recorded;
use crate::shutdown::Shutdown;

type PhaseFuture = Pin<Box<dyn Future<Output = Option<String>> + Send>>;

/// A phase's closure, giving a future whose output is the error's text.
pub(crate) type PhaseFn = Box<dyn FnOnce(PhaseContext) -> PhaseFuture + Send>;

/// What a running phase is given.
///
/// Cheap to clone; clones speak for the same phase, also from tasks that it spawns.
#[derive(Clone)]
pub struct PhaseContext {
    pub(crate) state: Arc<PhaseState>,
    pub(crate) shutdown: Arc<Shutdown>,
}

/// What a running phase shares with those who look at it.
pub(crate) struct PhaseState {
    pub(crate) id: StepId,
    name: Arc<str>,
    /// When the phase is dropped, as it stands now.
    end: Mutex<Instant>,
    /// Cancelled when the phase is dropped.
    pub(crate) token: CancellationToken,
    pub(crate) recorded: Recorded,
}

impl PhaseState {
    pub(crate) fn new(id: StepId, name: Arc<str>, end: Instant) -> Self {
        let (token, recorded) = (CancellationToken::new(), Recorded::default());
        Self { id, name, end: Mutex::new(end), token, recorded }
    }

    pub(crate) fn set_end(&self, end: Instant) {
        *self.end.lock().unwrap_or_else(PoisonError::into_inner) = end;
    }
}

impl PhaseContext {
    /// The phase's name.
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// When it will be dropped if it has not ended by then. It comes closer when a second signal
    /// asks for haste, and moves on where
    /// [more time is asked for](crate::Builder::extend_stop_timeout).
    pub fn deadline(&self) -> Instant {
        *self.state.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long that is from now; zero where it is over.
    pub fn remaining(&self) -> Duration {
        self.deadline().saturating_duration_since(Instant::now())
    }

    /// Cancelled when the phase has run out of its time or is cut short, for the tasks it spawned:
    /// those are not dropped with it.
    pub fn token(&self) -> &CancellationToken {
        &self.state.token
    }

    /// Notes a value under a name, for the log, the report and the record. A later one under the
    /// same name takes its place.
    ///
    /// Cheap enough for every request that ends: into the record's file it goes at most four times
    /// a second, and at the phase's end.
    pub fn record(&self, key: impl Into<String>, value: impl Into<Value>) {
        if let Some(values) = self.state.recorded.set(key.into(), value.into()) {
            let (phase, last_value) = (self.state.id, self.state.recorded.last());
            self.shutdown.handle(Event::PhaseProgressed { phase, values, last_value });
        }
    }

    /// Notes how far it has come: `done` of `total`, in whatever it counts.
    pub fn progress(&self, done: u64, total: u64) {
        self.record("progress", format!("{done}/{total}"));
    }

    /// Waits until the service's own future, the one given to
    /// [`run`](crate::ShutdownGuard::run), has ended. A server that stops by itself once the token
    /// is cancelled is drained by a phase that does nothing but wait for this.
    ///
    /// Cancel safe.
    pub async fn service_ended(&self) {
        // An error means that the guard is gone, and the future with it.
        let mut running = self.shutdown.service_running.subscribe();
        let _ = running.wait_for(|running| !running).await;
    }
}

impl fmt::Debug for PhaseContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PhaseContext").field("name", &self.state.name).finish_non_exhaustive()
    }
}
