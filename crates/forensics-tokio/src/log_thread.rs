//! The log thread, which calls the `tracing` subscriber and the logger of the crate `log`.
//!
//! They may block, for example on a pipe that is not read any more, or on a journal that is
//! stuck. A teardown that called them would block as well. So all our events are queued, and the log
//! thread emits them in order. An important event also has a text. If the event is not emitted in
//! time, its text is written to file descriptor 2 directly.

use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use forensics_core::logfmt::Value;
use tracing::dispatcher::{self, Dispatch};

use crate::blocking::{WorkQueue, run_with_timeout_or_here};
use crate::lock::lock;
use crate::sinks::{EMIT_LIMIT, Origin, is_subscriber, with_subscriber, write_to_stderr};

/// See the module's documentation.
pub(crate) struct LogThread {
    /// The queue of the events. The thread that does its jobs is the log thread.
    pub(crate) queue: WorkQueue,
    /// The subscriber of the thread that installed the guard, or otherwise of the task that called
    /// `run`. It gets the events of threads that have no subscriber.
    fallback: OnceLock<Dispatch>,
    /// The guard. `None` in the test harness, whose events are not written to stderr.
    origin: Option<Origin>,
    /// The important events that are not emitted yet.
    pending: Mutex<Vec<Pending>>,
}

struct Pending {
    number: u64,
    since: Instant,
    text: String,
    /// Whether the text was written to file descriptor 2.
    is_written: bool,
}

impl LogThread {
    pub(crate) fn new() -> Self {
        let (queue, origin) = (WorkQueue::new("shutdown-log"), Origin::current());
        let log = Self { queue, fallback: OnceLock::new(), origin, pending: Mutex::default() };
        log.adopt_subscriber();
        log
    }

    /// Makes the current subscriber, if there is one, receive the events of threads that have none. Only
    /// the first call with a subscriber has an effect.
    pub(crate) fn adopt_subscriber(&self) {
        let here = dispatcher::get_default(Dispatch::clone);
        if is_subscriber(&here) {
            self.fallback.get_or_init(|| here);
        }
    }

    /// Queues `event`, and starts the log thread. The current subscriber gets the event.
    pub(crate) fn emit(&self, event: impl FnOnce() + Send + 'static) {
        self.push(None, event);
        self.queue.start();
    }

    /// Queues `event`. Never blocks. The caller must call [`WorkQueue::start`] afterwards. `text`
    /// is written to file descriptor 2 if the event is not emitted in time.
    pub(crate) fn push(&self, text: Option<String>, event: impl FnOnce() + Send + 'static) {
        let here = dispatcher::get_default(Dispatch::clone);
        let fallback = self.fallback.get().filter(|_| !is_subscriber(&here)).cloned();
        let dispatch = fallback.unwrap_or(here);
        let origin = self.origin.clone();
        let number =
            self.queue.push(move || with_subscriber(&dispatch, || Origin::scope(origin, event)));
        if let Some(text) = text {
            let since = Instant::now();
            lock(&self.pending).push(Pending { number, since, text, is_written: false });
        }
    }

    /// The texts of the important events that are not emitted yet.
    pub(crate) fn not_emitted(&self) -> Vec<String> {
        let pending = lock(&self.pending);
        let not_emitted = pending.iter().filter(|pending| !self.queue.has_done(pending.number));
        not_emitted.map(|pending| pending.text.clone()).collect()
    }

    /// Waits until all events are emitted, for at most `limit`. Then writes the texts of the
    /// important events that are still not emitted to file descriptor 2.
    pub(crate) fn finish(&self, limit: Duration) {
        self.queue.flush(limit);
        self.write_overdue(Duration::ZERO);
    }

    /// Writes the texts of the important events that were not emitted within `limit` to file
    /// descriptor 2. Blocks for at most [`EMIT_LIMIT`] for each of them.
    pub(crate) fn write_overdue(&self, limit: Duration) {
        let mut overdue = Vec::new();
        lock(&self.pending).retain_mut(|pending| {
            let is_emitted = self.queue.has_done(pending.number);
            let is_overdue = pending.since.elapsed() >= limit;
            if !is_emitted && is_overdue && !pending.is_written {
                pending.is_written = true;
                overdue.push(pending.text.clone());
            }
            !is_emitted
        });
        let service = self.origin.as_ref().and_then(Origin::name_to_show);
        let service = service.map(|name| format!(" service={}", Value(name))).unwrap_or_default();
        for text in overdue {
            let line = format!("shutdown: {text}{service}\n");
            // A write to a full pipe may block as well.
            run_with_timeout_or_here(EMIT_LIMIT, move || write_to_stderr(line.as_bytes()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn an_event_behind_one_that_blocks_is_overdue_and_still_emitted_later() {
        let log = LogThread::new();
        let (release, blocks) = mpsc::channel::<()>();
        log.emit(move || {
            let _ = blocks.recv();
        });
        let (sender, receiver) = mpsc::channel();
        log.push(Some("to fd 2".to_owned()), move || sender.send(()).unwrap());
        log.queue.start();
        assert_eq!(lock(&log.pending).len(), 1);
        log.finish(EMIT_LIMIT);
        assert_eq!(log.not_emitted(), ["to fd 2"]);
        assert!(lock(&log.pending)[0].is_written);
        assert!(receiver.try_recv().is_err());
        release.send(()).unwrap();
        receiver.recv().unwrap();
        log.finish(Duration::from_secs(60));
        assert!(log.not_emitted().is_empty());
    }

    #[test]
    fn what_was_emitted_in_time_is_not_written_again() {
        let log = LogThread::new();
        let (sender, receiver) = mpsc::channel();
        log.push(Some("to fd 2".to_owned()), move || sender.send(()).unwrap());
        log.queue.start();
        receiver.recv().unwrap();
        log.finish(Duration::from_secs(60));
        assert_eq!(lock(&log.pending).len(), 0);
    }

    #[test]
    fn events_reach_the_subscriber_of_the_caller_or_of_the_one_who_installed_the_guard() {
        use tracing_subscriber::layer::SubscriberExt;
        struct Count(mpsc::Sender<String>);
        impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Count {
            fn on_event(
                &self,
                event: &tracing::Event<'_>,
                _: tracing_subscriber::layer::Context<'_, S>,
            ) {
                self.0.send(event.metadata().target().to_owned()).unwrap();
            }
        }
        let (sender, receiver) = mpsc::channel();
        let subscriber = |sender| tracing_subscriber::registry().with(Count(sender));
        let log = tracing::subscriber::with_default(subscriber(sender), LogThread::new);
        let (here_sent, here_received) = mpsc::channel();
        tracing::subscriber::with_default(subscriber(here_sent), || {
            log.emit(|| tracing::info!(target: "here", "event"));
        });
        assert_eq!(here_received.recv().as_deref(), Ok("here"));
        log.emit(|| tracing::info!(target: "elsewhere", "event"));
        assert_eq!(receiver.recv().as_deref(), Ok("elsewhere"));
    }
}
