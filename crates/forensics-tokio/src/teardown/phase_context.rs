//! What a running phase is given.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::phase_state::PhaseState;
use crate::stop::Stop;

type PhaseFuture = Pin<Box<dyn Future<Output = Option<String>> + Send>>;

/// A phase's closure, giving a future whose output is the error's text.
pub(crate) type PhaseFn = Box<dyn FnOnce(PhaseContext) -> PhaseFuture + Send>;

/// What a running phase is given.
///
/// Cheap to clone; clones speak for the same phase, also from tasks that it spawns.
#[derive(Debug, Clone)]
pub struct PhaseContext {
    pub(crate) state: Arc<PhaseState>,
    pub(crate) stop: Arc<Stop>,
    pub(crate) service_running: Arc<watch::Receiver<bool>>,
}

impl PhaseContext {
    /// The phase's name.
    pub fn name(&self) -> &str {
        &self.state.named.name
    }

    /// When it will be dropped if it has not ended by then. It comes closer when a second signal
    /// asks for haste, and moves on where
    /// [more time is asked for](crate::Builder::extend_stop_timeout).
    pub fn deadline(&self) -> Instant {
        self.state.end()
    }

    /// How long that is from now; zero where it is over.
    pub fn remaining(&self) -> Duration {
        self.deadline().saturating_duration_since(Instant::now())
    }

    /// Cancelled when the phase has run out of its time or is cut short, for the tasks it spawned:
    /// those are not dropped with it.
    pub fn token(&self) -> &CancellationToken {
        self.state.token()
    }

    /// Notes a value under a name, for the log, the report and the record. A later one under the
    /// same name takes its place.
    ///
    /// Cheap enough for every request that ends: into the record's file it goes at most four times
    /// a second, and at the phase's end.
    pub fn record(&self, key: impl Into<String>, value: impl Into<Value>) {
        let set = self.state.recorded.set(key.into(), value.into());
        if set.is_news {
            self.stop.note_progress();
        }
        if let Some(all) = set.to_write {
            let offset = self.state.began.elapsed();
            self.stop.black_box.phase_progress(self.state.named.place(), all, offset);
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
        let mut running = watch::Receiver::clone(&self.service_running);
        let _ = running.wait_for(|running| !running).await;
    }
}
