//! The context of a running phase.

use std::fmt;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use forensics_core::capture::Signal;
use forensics_core::cause::Cause;
use forensics_core::context::ShutdownContext;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::inflight::FIRST_NOTICE;
use crate::machine::{Event, StepId};
use crate::recorded::{Recorded, Write};
use crate::shutdown::Shutdown;

type PhaseFuture = Pin<Box<dyn Future<Output = Option<String>> + Send>>;

/// The closure of a phase. Its future returns the text of an error.
pub(crate) type PhaseFn = Box<dyn FnOnce(PhaseContext) -> PhaseFuture + Send>;

/// The context of a running phase: why the service stops, how much time the phase has left, and how
/// it reports its progress.
///
/// Clones are cheap, and belong to the same phase. Tasks that the phase spawns can keep one.
#[derive(Clone)]
pub struct PhaseContext {
    pub(crate) id: StepId,
    pub(crate) name: Arc<str>,
    pub(crate) context: Arc<ShutdownContext>,
    pub(crate) state: Arc<PhaseState>,
    pub(crate) shutdown: Arc<Shutdown>,
}

/// The state of a phase, for the phase and for [`Phases`](crate::phases::Phases).
#[derive(Default)]
pub(crate) struct PhaseState {
    /// Notified when the phase must be dropped.
    pub(crate) dropped: Notify,
    /// Cancelled when the phase is dropped.
    pub(crate) token: CancellationToken,
    /// A thread of the runtime is running the phase now: it is between two `await`s.
    pub(crate) is_polled: AtomicBool,
    pub(crate) recorded: Recorded,
}

impl PhaseContext {
    /// Returns the name of the phase.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns why the service stops.
    pub fn cause(&self) -> Cause {
        self.context.cause()
    }

    /// Returns the signal that requested the stop. `None` if the program requested it, or the service
    /// ended by itself.
    pub fn signal(&self) -> Option<Signal> {
        self.context.signal()
    }

    /// Returns the context of the stop: the sender, the cause with its evidence, markers and more.
    pub fn context(&self) -> &Arc<ShutdownContext> {
        &self.context
    }

    /// Returns when the phase will be dropped if it has not ended. This can change: an
    /// [escalation](crate::Builder::escalation) makes it earlier, and
    /// [more time from systemd](crate::Builder::extend_stop_timeout) makes it later.
    pub fn deadline(&self) -> Instant {
        // The machine no longer knows a phase that blocks its thread and was reported as ended.
        let end = self.shutdown.machine().phase_end(self.id);
        end.unwrap_or_else(|| self.shutdown.now())
    }

    /// Returns the time until the [`deadline`](Self::deadline); zero if it has passed.
    pub fn remaining(&self) -> Duration {
        self.deadline().saturating_duration_since(Instant::now())
    }

    /// Returns a token that is cancelled when the time of the phase is up or it is cut short. It is
    /// for tasks that the phase spawned, which are not dropped with it.
    pub fn token(&self) -> &CancellationToken {
        &self.state.token
    }

    /// Records a value under a name, for the log, the report and the record. It replaces an earlier
    /// value of that name.
    ///
    /// It is cheap, and can be called for each request that ends. The record's file is written at
    /// most four times a second, and when the phase ends.
    pub fn record(&self, key: impl Into<String>, value: impl Into<Value>) {
        match self.state.recorded.set(key.into(), value.into()) {
            Write::Now(values) => self.shutdown.handle(Event::PhaseProgressed(self.id, values)),
            Write::After(delay) => {
                let (id, state, shutdown) = (self.id, self.state.clone(), self.shutdown.clone());
                self.shutdown.runtime.spawn(async move {
                    tokio::time::sleep(delay).await;
                    shutdown.handle(Event::PhaseProgressed(id, state.recorded.take_scheduled()));
                });
            }
            Write::Scheduled => {}
        }
    }

    /// Records how much is done, as `progress=DONE/TOTAL`.
    pub fn progress(&self, done: u64, total: u64) {
        self.record("progress", format!("{done}/{total}"));
    }

    /// When the token of the guard was cancelled.
    pub(crate) fn token_cancelled_at(&self) -> Instant {
        self.shutdown.machine().token_cancelled_at().unwrap_or_else(|| self.shutdown.now())
    }

    /// Logs what the phase waits for.
    pub(crate) fn log_waiting(&self, what: &str) {
        self.shutdown.handle(Event::PhaseWaits(self.id, what.to_owned()));
    }

    /// Waits until the service's own future, which was passed to [`run`](crate::ShutdownGuard::run),
    /// has ended. For a server that ends when the token is cancelled, a phase that waits only for this is
    /// its drain.
    ///
    /// After a second it logs and records (`waited_for`) that it waits. Cancel safe.
    pub async fn service_ended(&self) {
        let mut ended = pin!(self.service_end());
        if timeout(FIRST_NOTICE, &mut ended).await.is_err() {
            let text = "the service, which has not ended";
            self.record("waited_for", text);
            self.log_waiting(text);
            ended.await;
        }
    }

    /// Like [`service_ended`](Self::service_ended), but logs and records nothing: the caller says what it
    /// waits for.
    pub(crate) async fn service_end(&self) {
        self.shutdown.handle(Event::PhaseAwaitsService(self.id));
        // There is no error, because the sender is in `self`.
        let mut running = self.shutdown.service_running.subscribe();
        let _ = running.wait_for(|running| !running).await;
    }
}

impl fmt::Debug for PhaseContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PhaseContext").field("name", &self.name).finish_non_exhaustive()
    }
}
