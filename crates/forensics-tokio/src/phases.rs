//! The tasks of the phases, started and dropped as the machine's actions say.
//!
//! Each phase is a separate task. So a phase that panics stops no other phase. Neither does a phase
//! that blocks its thread, if the runtime has another thread. However the task ends, even if it is
//! dropped, [`Event::PhaseEnded`] is handled.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};

use forensics_core::context::ShutdownContext;
use tracing::Instrument;

use crate::lock::lock;
use crate::machine::{Event, PhaseEnd, PhaseKey, StepId};
use crate::outcome::outcome_of;
use crate::panics;
use crate::phase_context::{PhaseContext, PhaseFn, PhaseState};
use crate::recorded::Values;
use crate::shutdown::Shutdown;

/// The closures and tasks of a guard's phases. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Phases(Arc<Mutex<HashMap<StepId, Phase>>>);

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
        self.lock().insert(id, Phase { work: Some(work), ..Phase::default() });
    }

    /// Starts the task of a phase. Any thread may call this.
    pub(crate) fn start(
        &self,
        shutdown: &Arc<Shutdown>,
        key: PhaseKey,
        context: Arc<ShutdownContext>,
    ) {
        let (id, name) = (key.id, key.name.clone());
        let mut phases = self.lock();
        let Some(phase) = phases.get_mut(&id) else { return };
        let (Some(work), state) = (phase.work.take(), phase.state.clone()) else { return };
        // The task is started without the lock, because a runtime that is shutting down drops the
        // future at once, and this takes the lock.
        drop(phases);
        let context = PhaseContext { id, name, context, state, shutdown: shutdown.clone() };
        let report = ReportEnd { context, end: PhaseEnd::Dropped };
        shutdown.runtime.spawn(async move {
            let span = report.context.shutdown.spans.phase(&key);
            run(work, report).instrument(span).await;
        });
    }

    /// Drops the future of a phase when it next yields. Returns the values that the phase has
    /// recorded, and whether a thread is running it. `None` if it has ended.
    pub(crate) fn drop_phase(&self, id: StepId) -> Option<(Values, bool)> {
        let state = self.lock().get(&id)?.state.clone();
        state.dropped.notify_one();
        state.token.cancel();
        Some((state.recorded.get(), state.is_polled.load(Ordering::Relaxed)))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StepId, Phase>> {
        lock(&self.0)
    }
}

async fn run(work: PhaseFn, mut report: ReportEnd) {
    let (context, state) = (report.context.clone(), report.context.state.clone());
    // The start of a phase must be written to the record before its work runs.
    context.shutdown.record.wait_until_written();
    let (shutdown, id) = (context.shutdown.clone(), context.id);
    let mut work = pin!(outcome_of(async move { work(context).await }));
    // A panic of the work is caught in `work`.
    let work = poll_fn(|cx| {
        state.is_polled.store(true, Ordering::Relaxed);
        let polled = work.as_mut().poll(cx);
        state.is_polled.store(false, Ordering::Relaxed);
        if state.token.is_cancelled() {
            shutdown.handle(Event::PhaseYielded(id));
        }
        polled
    });
    report.end = tokio::select! {
        biased;
        () = state.dropped.notified() => PhaseEnd::Dropped,
        end = work => end,
    };
}

/// Handles [`Event::PhaseEnded`] when it is dropped, and so however the task ends.
struct ReportEnd {
    context: PhaseContext,
    end: PhaseEnd,
}

impl Drop for ReportEnd {
    fn drop(&mut self) {
        let PhaseContext { id, state, shutdown, .. } = &self.context;
        shutdown.phases.lock().remove(id);
        let mut end = std::mem::replace(&mut self.end, PhaseEnd::Dropped);
        if matches!(end, PhaseEnd::Dropped) && std::thread::panicking() {
            // Panics of the phase's work are caught. This one comes from the code around it: the
            // subscriber.
            end = PhaseEnd::Panicked(panics::last().message);
        }
        shutdown.handle(Event::PhaseEnded(*id, end, state.recorded.get()));
    }
}
