//! The tasks of the phases, started and dropped as the machine's actions say.
//!
//! Each phase is a separate task. So a phase that panics stops no other phase. Neither does a phase
//! that blocks its thread, if the runtime has another thread. However the task ends, even if it is
//! dropped, [`Event::PhaseEnded`] is handled.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use forensics_core::context::ShutdownContext;
use tracing::{Instrument, Span};

use crate::events;
use crate::lock::lock;
use crate::machine::{Event, PhaseEnd, PhaseKey, StepId};
use crate::outcome::outcome_of;
use crate::panics;
use crate::phase_context::{PhaseContext, PhaseFn, PhaseState};
use crate::recorded::Values;
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
    /// The spans of the phases and groups, and with the key `None` the span of the whole teardown.
    spans: HashMap<Option<StepId>, Arc<OnceLock<Span>>>,
}

/// A phase that has not ended. The machine may drop it before another thread has started its task.
#[derive(Default)]
struct Phase {
    /// Its closure, until the task is started.
    work: Option<PhaseFn>,
    state: Arc<PhaseState>,
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
        self.get_or_create_span(Some(key.id), || {
            let parent = match &key.group {
                Some(group) => self.span(group),
                None => self.teardown_span(),
            };
            events::phase_span(&key.name, &parent)
        })
    }

    /// Removes and returns the span of a phase or group that has ended.
    pub(crate) fn take_span(&self, key: &PhaseKey) -> Span {
        let span = self.span(key);
        self.lock().spans.remove(&Some(key.id));
        span
    }

    /// The span in which `run` was called.
    pub(crate) fn outer_span(&self) -> Span {
        self.lock().outer.clone().unwrap_or_else(Span::none)
    }

    fn teardown_span(&self) -> Span {
        let outer = self.outer_span();
        let inner = self.lock();
        let Some((service, context)) = inner.stop.clone() else { return outer };
        drop(inner);
        self.get_or_create_span(None, || {
            let span = events::teardown_span(&service, &context, &outer);
            // If it is disabled, the parent of the phases is the span in which `run` was called.
            if span.is_disabled() { outer } else { span }
        })
    }

    fn get_or_create_span(&self, id: Option<StepId>, create: impl FnOnce() -> Span) -> Span {
        // Created without the lock, because the subscriber may block.
        let cell = self.lock().spans.entry(id).or_default().clone();
        cell.get_or_init(create).clone()
    }

    /// Closes the remaining spans, so that they are exported before the process ends.
    pub(crate) fn end_spans(&self) {
        let mut inner = self.lock();
        let spans = (std::mem::take(&mut inner.spans), inner.outer.take());
        drop(inner);
        // Dropped after the lock is released, because this calls the subscriber.
        drop(spans);
    }

    /// Starts the task of a phase. Any thread may call this.
    pub(crate) fn start(
        &self,
        shutdown: &Arc<Shutdown>,
        key: PhaseKey,
        context: Arc<ShutdownContext>,
    ) {
        let (id, name) = (key.id, key.name.clone());
        let mut inner = self.lock();
        let Some(phase) = inner.phases.get_mut(&id) else { return };
        let (Some(work), state) = (phase.work.take(), phase.state.clone()) else { return };
        // The task is started without the lock, because a runtime that is shutting down drops the
        // future at once, and this takes the lock.
        drop(inner);
        let context = PhaseContext { id, name, context, state, shutdown: shutdown.clone() };
        let ends = BringsEnd { context, end: PhaseEnd::Dropped };
        shutdown.runtime.spawn(async move {
            let span = ends.context.shutdown.phases.span(&key);
            run(work, ends).instrument(span).await;
        });
    }

    /// Drops the future of a phase when it next yields. Returns the values that the phase has
    /// recorded, or `None` if it has ended.
    pub(crate) fn drop_phase(&self, id: StepId) -> Option<Values> {
        let state = self.lock().phases.get(&id)?.state.clone();
        state.dropped.notify_one();
        state.token.cancel();
        Some(state.recorded.get())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.0)
    }
}

async fn run(work: PhaseFn, mut ends: BringsEnd) {
    let (context, state) = (ends.context.clone(), ends.context.state.clone());
    // The start of a phase must be written to the record before its work runs.
    context.shutdown.record.wait_until_written();
    ends.end = tokio::select! {
        biased;
        () = state.dropped.notified() => PhaseEnd::Dropped,
        end = outcome_of(async move { work(context).await }) => end,
    };
}

/// Handles [`Event::PhaseEnded`] when it is dropped. So the event is handled however the task ends.
struct BringsEnd {
    context: PhaseContext,
    end: PhaseEnd,
}

impl Drop for BringsEnd {
    fn drop(&mut self) {
        let PhaseContext { id, state, shutdown, .. } = &self.context;
        shutdown.phases.lock().phases.remove(id);
        let mut end = std::mem::replace(&mut self.end, PhaseEnd::Dropped);
        if matches!(end, PhaseEnd::Dropped) && std::thread::panicking() {
            // Panics of the phase's work are caught. This one comes from the code around it: the
            // subscriber.
            end = PhaseEnd::Panicked(panics::last().message);
        }
        shutdown.handle(Event::PhaseEnded(*id, end, state.recorded.get()));
    }
}
