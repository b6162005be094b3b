//! The tasks of the phases, started and dropped as the machine's actions say.
//!
//! Each phase is a separate task. So a phase that panics stops no other phase. Neither does a phase
//! that blocks its thread, if the runtime has another thread. However the task ends, even if it is
//! dropped, [`Event::PhaseEnded`] is handled.

use std::collections::HashMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::task::Poll;

use forensics_core::context::ShutdownContext;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

use crate::events;
use crate::lock::lock;
use crate::machine::{Event, PhaseEnd, PhaseKey, StepId};
use crate::outcome::panic_message;
use crate::panics;
use crate::phase_context::{PhaseContext, PhaseFn, PhaseState};
use crate::recorded::{Recorded, Values};
use crate::shutdown::Shutdown;

/// The closures, tasks and spans of a guard's phases. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Phases(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    /// The phases that have not ended.
    phases: HashMap<StepId, Phase>,
    /// The span in which `run` was called.
    outer: Option<Span>,
    /// The name of the service and the context of the stop, for the span of the whole teardown.
    stop: Option<(String, Arc<ShutdownContext>)>,
    teardown: Arc<OnceLock<Span>>,
    spans: HashMap<StepId, Arc<OnceLock<Span>>>,
}

/// A phase that has not ended. The machine may drop it before another thread has started its task.
#[derive(Default)]
struct Phase {
    /// Its closure, until the task is started.
    work: Option<PhaseFn>,
    is_dropped: bool,
    state: Option<Arc<PhaseState>>,
    task: Option<AbortHandle>,
}

impl Phases {
    /// Keeps the closure of a registered phase.
    pub(crate) fn add(&self, id: StepId, work: PhaseFn) {
        self.lock().phases.insert(id, Phase { work: Some(work), ..Phase::default() });
    }

    /// Stores the current span as the one in which `run` was called.
    pub(crate) fn set_outer_span(&self) {
        let outer = Some(Span::current());
        self.lock().outer = outer;
    }

    /// Stores what the span of the whole teardown shows.
    pub(crate) fn set_stop(&self, service: &str, context: Arc<ShutdownContext>) {
        self.lock().stop = Some((service.to_owned(), context));
    }

    /// The span of a phase or group. The first call creates it and calls the subscriber, so only
    /// the log thread and the tasks of the phases may call this.
    pub(crate) fn span(&self, key: &PhaseKey) -> Span {
        let cell = self.lock().spans.entry(key.id).or_default().clone();
        let make = || {
            let parent = match &key.group {
                Some(group) => self.span(group),
                None => self.teardown_span(),
            };
            events::phase_span(&key.name, &parent)
        };
        cell.get_or_init(make).clone()
    }

    /// Removes and returns the span of a phase or group that has ended.
    pub(crate) fn take_span(&self, key: &PhaseKey) -> Span {
        let span = self.span(key);
        self.lock().spans.remove(&key.id);
        span
    }

    fn teardown_span(&self) -> Span {
        let inner = self.lock();
        let outer = inner.outer.clone().unwrap_or_else(Span::none);
        let Some((service, context)) = inner.stop.clone() else { return outer };
        let cell = inner.teardown.clone();
        drop(inner);
        let make = || {
            let span = events::teardown_span(&service, &context, &outer);
            // If it is disabled, the parent of the phases is the span in which `run` was called.
            if span.is_disabled() { outer } else { span }
        };
        cell.get_or_init(make).clone()
    }

    /// Closes the remaining spans, so that they are exported before the process ends.
    pub(crate) fn end_spans(&self) {
        let mut inner = self.lock();
        let spans = std::mem::take(&mut inner.spans);
        let rest = (std::mem::take(&mut inner.teardown), inner.outer.take(), spans);
        drop(inner);
        // Dropped after the lock is released, because this calls the subscriber.
        drop(rest);
    }

    /// Starts the task of a phase. Any thread may call this.
    pub(crate) fn start(
        &self,
        shutdown: &Arc<Shutdown>,
        key: PhaseKey,
        context: Arc<ShutdownContext>,
    ) {
        let id = key.id;
        let mut inner = self.lock();
        let Some(phase) = inner.phases.get_mut(&id) else { return };
        let Some(work) = phase.work.take() else { return };
        let (token, recorded) = (CancellationToken::new(), Recorded::default());
        let state = Arc::new(PhaseState { id, name: key.name.clone(), context, token, recorded });
        phase.state = Some(state.clone());
        if phase.is_dropped {
            state.token.cancel();
        }
        drop(inner);
        let context = PhaseContext { state, shutdown: shutdown.clone() };
        let ends = BringsEnd { context: context.clone(), end: PhaseEnd::Dropped };
        // Started without the lock, because a runtime that is shutting down drops the future at
        // once, and this takes the lock.
        let phases = self.clone();
        let task = shutdown.runtime.spawn(async move {
            let span = phases.span(&key);
            run(work, context, ends).instrument(span).await;
        });
        let mut inner = self.lock();
        let Some(phase) = inner.phases.get_mut(&id) else { return };
        phase.task = Some(task.abort_handle());
        let is_dropped = phase.is_dropped;
        drop(inner);
        if is_dropped {
            task.abort();
        }
    }

    /// Aborts the task of a phase, whose future is dropped when it next yields. Returns the values
    /// that the phase has recorded, or `None` if it has not started.
    pub(crate) fn drop_phase(&self, id: StepId) -> Option<Values> {
        let mut inner = self.lock();
        let phase = inner.phases.get_mut(&id)?;
        phase.is_dropped = true;
        let (state, task) = (phase.state.clone()?, phase.task.clone());
        drop(inner);
        state.token.cancel();
        if let Some(task) = task {
            task.abort();
        }
        Some(state.recorded.get())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.0)
    }
}

async fn run(work: PhaseFn, context: PhaseContext, mut ends: BringsEnd) {
    // The start of a phase must be written to the record before its work runs.
    context.shutdown.record.wait_until_written();
    ends.end = match catch_panic(async move { work(context).await }).await {
        Ok(None) => PhaseEnd::Ok,
        Ok(Some(error)) => PhaseEnd::Failed(error),
        Err(message) => PhaseEnd::Panicked(message),
    };
}

/// Handles [`Event::PhaseEnded`] when it is dropped. So the event is handled however the task ends.
struct BringsEnd {
    context: PhaseContext,
    end: PhaseEnd,
}

impl Drop for BringsEnd {
    fn drop(&mut self) {
        let PhaseContext { state, shutdown } = &self.context;
        shutdown.phases.lock().phases.remove(&state.id);
        let mut end = std::mem::replace(&mut self.end, PhaseEnd::Dropped);
        if matches!(end, PhaseEnd::Dropped) && std::thread::panicking() {
            // Panics of the phase's work are caught. This one comes from the code around it: the
            // subscriber.
            end = PhaseEnd::Panicked(panics::last().message);
        }
        shutdown.handle(Event::PhaseEnded(state.id, end, state.recorded.get()));
    }
}

/// The output of `future`, or the message of its panic.
///
/// Cancel safe. A future that has panicked is not polled again.
pub(crate) async fn catch_panic<F: Future>(future: F) -> Result<F::Output, String> {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Err(payload) => Poll::Ready(Err(panic_message(&*payload))),
    })
    .await
}
