//! The `tracing` spans of a teardown and of its phases.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use forensics_core::context::ShutdownContext;
use tracing::field::Empty;
use tracing::{Span, debug_span, info_span};

use crate::lock::lock;
use crate::machine::{PhaseKey, StepId};
use crate::sinks::{self, TARGET, named};

/// The spans of a guard. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Spans(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    /// The span in which `run` was called.
    outer: Option<Span>,
    /// The name of the service and the context of the stop, for the span of the whole teardown.
    stop: Option<(String, Arc<ShutdownContext>)>,
    /// The spans of the phases and groups, and with the key `None` the span of the whole teardown.
    spans: HashMap<Option<StepId>, Arc<OnceLock<Span>>>,
}

impl Spans {
    /// Stores the current span as the one in which `run` was called.
    pub(crate) fn set_outer(&self) {
        let outer = Some(Span::current());
        self.lock().outer = outer;
    }

    /// Stores what the span of the whole teardown shows.
    pub(crate) fn set_stop(&self, service: &str, context: Arc<ShutdownContext>) {
        self.lock().stop = Some((service.to_owned(), context));
    }

    /// The span of a phase or group. The first call creates it and calls the subscriber, so only
    /// the log thread and the tasks of the phases may call this.
    pub(crate) fn phase(&self, key: &PhaseKey) -> Span {
        self.get_or_create(Some(key.id), || {
            let parent = match &key.group {
                Some(group) => self.phase(group),
                None => self.teardown(),
            };
            phase_span(&key.name, &parent)
        })
    }

    /// Removes and returns the span of a phase or group that has ended.
    pub(crate) fn take(&self, key: &PhaseKey) -> Span {
        let span = self.phase(key);
        self.lock().spans.remove(&Some(key.id));
        span
    }

    /// The span in which `run` was called.
    pub(crate) fn outer(&self) -> Span {
        self.lock().outer.clone().unwrap_or_else(Span::none)
    }

    fn teardown(&self) -> Span {
        let outer = self.outer();
        let inner = self.lock();
        let Some((service, context)) = inner.stop.clone() else { return outer };
        drop(inner);
        self.get_or_create(None, || {
            let span = teardown_span(&service, &context, &outer);
            // If it is disabled, the parent of the phases is the span in which `run` was called.
            if span.is_disabled() { outer } else { span }
        })
    }

    fn get_or_create(&self, id: Option<StepId>, create: impl FnOnce() -> Span) -> Span {
        // Created without the lock, because the subscriber may block.
        let cell = self.lock().spans.entry(id).or_default().clone();
        cell.get_or_init(create).clone()
    }

    /// Closes the remaining spans, so that they are exported before the process ends.
    pub(crate) fn close_all(&self) {
        let mut inner = self.lock();
        let spans = (std::mem::take(&mut inner.spans), inner.outer.take());
        drop(inner);
        // Dropped after the lock is released, because this calls the subscriber.
        drop(spans);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.0)
    }
}

/// The span of a phase or of a group. The parent of a member's span is the span of its group. A phase
/// has no span if there is no subscriber, because tracing's feature `log` would log the span.
fn phase_span(name: &str, parent: &Span) -> Span {
    if !sinks::has_subscriber() {
        return Span::none();
    }
    info_span!(
        target: TARGET, parent: parent.id(), "phase", phase = named(name), outcome = Empty, error = Empty
    )
}

/// The span of a whole teardown, with the facts that began it. It is the parent of the phases'
/// spans, for traces. Its level is `DEBUG`, so that it does not appear in the lines of an ordinary
/// log.
fn teardown_span(service: &str, context: &ShutdownContext, parent: &Span) -> Span {
    if !sinks::has_subscriber() {
        return Span::none();
    }
    let who = context.sender.as_ref().map(|sender| &sender.process);
    debug_span!(
        target: TARGET, parent: parent.id(), "shutdown", service,
        cause = %context.cause(),
        signal = context.signal().map(display),
        sender_pid = who.map(|who| who.pid),
        sender_name = who.and_then(|who| who.name.as_deref()),
    )
}
