//! The tasks of the phases: started and dropped as the machine says.
//!
//! Each phase is a task of its own. So a phase that blocks its thread stops no other phase if the runtime
//! has another thread, and neither does a panic. However the task ends, it brings [`Event::PhaseEnded`],
//! also when it is dropped.

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

/// The phases of a guard, as far as they are code and tasks. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Phases(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    /// The phases that have not ended.
    phases: HashMap<StepId, Phase>,
    /// The span in which `run` was called.
    outer: Option<Span>,
    /// The service and the context of the stop, for the span of the whole teardown; and the span.
    stop: Option<(String, Arc<ShutdownContext>)>,
    teardown: Arc<OnceLock<Span>>,
    spans: HashMap<StepId, Arc<OnceLock<Span>>>,
}

/// A phase that has not ended. The machine may drop it before the thread that starts it has done so.
#[derive(Default)]
struct Phase {
    /// Its closure, until it starts.
    work: Option<PhaseFn>,
    is_dropped: bool,
    state: Option<Arc<PhaseState>>,
    task: Option<AbortHandle>,
}

impl Phases {
    /// Keeps the closure of a phase that is registered.
    pub(crate) fn add(&self, id: StepId, work: PhaseFn) {
        self.lock().phases.insert(id, Phase { work: Some(work), ..Phase::default() });
    }

    /// Notes the present span as the one in which `run` was called.
    pub(crate) fn set_outer_span(&self) {
        let outer = Some(Span::current());
        self.lock().outer = outer;
    }

    /// Notes what the span of the whole teardown shows.
    pub(crate) fn set_stop(&self, service: &str, context: Arc<ShutdownContext>) {
        self.lock().stop = Some((service.to_owned(), context));
    }

    /// The span of a phase or group, made when it is first asked for. Calls the subscriber: only the
    /// log thread and the tasks of phases may ask.
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

    /// Forgets the span of a phase or group that has ended.
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
            // If it is disabled, the phases are in the span in which `run` was called.
            if span.is_disabled() { outer } else { span }
        };
        cell.get_or_init(make).clone()
    }

    /// Closes the spans that are left, so that they are exported before the process ends.
    pub(crate) fn end_spans(&self) {
        let mut inner = self.lock();
        let spans = std::mem::take(&mut inner.spans);
        let rest = (std::mem::take(&mut inner.teardown), inner.outer.take(), spans);
        drop(inner);
        // Not under the lock: it calls the subscriber.
        drop(rest);
    }

    /// Starts a phase, from any thread.
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
        // Not under the lock: a runtime that shuts down drops the future at once.
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

    /// Aborts the task of a phase, which drops its future when it next yields. Returns what it has
    /// recorded, if it has started.
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
    // The start of a phase is on disk before its work runs.
    context.shutdown.record.wait_until_written();
    ends.end = match catch_panic(async move { work(context).await }).await {
        Ok(None) => PhaseEnd::Ok,
        Ok(Some(error)) => PhaseEnd::Failed(error),
        Err(message) => PhaseEnd::Panicked(message),
    };
}

/// Brings the end of a phase when it is dropped, however its task ends.
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
            // Not the phase's work, whose panic is caught, but what is around it: the subscriber.
            end = PhaseEnd::Panicked(panics::last().message);
        }
        shutdown.handle(Event::PhaseEnded(state.id, end, state.recorded.get()));
    }
}

/// The output of `future`, or the message of its panic.
///
/// Cancel safe. One that has panicked is not polled again.
pub(crate) async fn catch_panic<F: Future>(future: F) -> Result<F::Output, String> {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Err(payload) => Poll::Ready(Err(panic_message(&*payload))),
    })
    .await
}
