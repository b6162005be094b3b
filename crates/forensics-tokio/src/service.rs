//! The service's own future: polled until it ends, and its panic caught.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::outcome::{IntoOutcome, ServiceOutcome, panic_message};

/// The service's future while it runs, and how it ended once it has.
pub(crate) struct Service<S> {
    future: Option<Pin<Box<S>>>,
    /// Absent while it runs.
    pub(crate) ended: Option<ServiceOutcome>,
    running: watch::Sender<bool>,
}

impl<S> Service<S>
where
    S: Future,
    S::Output: IntoOutcome,
{
    pub(crate) fn new(future: S) -> (Self, watch::Receiver<bool>) {
        let (running, is_running) = watch::channel(true);
        (Self { future: Some(Box::pin(future)), ended: None, running }, is_running)
    }

    /// Polls it until it ends. Cancel safe.
    pub(crate) async fn end(&mut self) {
        std::future::poll_fn(|cx| {
            let Some(future) = &mut self.future else { return Poll::Ready(()) };
            // A future that panicked is dropped and never polled again.
            let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)));
            let outcome = match polled {
                Ok(Poll::Pending) => return Poll::Pending,
                Ok(Poll::Ready(output)) => match output.into_error() {
                    None => ServiceOutcome::Ended,
                    Some(error) => ServiceOutcome::Failed(error),
                },
                Err(payload) => ServiceOutcome::Panicked(panic_message(&*payload)),
            };
            self.finish(outcome);
            Poll::Ready(())
        })
        .await;
    }

    /// Polls it beside `work`, until `work` is done.
    pub(crate) async fn alongside<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = self.end(), if self.future.is_some() => {}
            }
        }
    }

    /// Polls it until it ends, and drops it where it does not by `limit`: then it returns how long
    /// it waited.
    pub(crate) async fn end_within(&mut self, limit: Instant) -> Option<Duration> {
        let began = Instant::now();
        timeout_at(limit, self.end()).await.err()?;
        self.finish(ServiceOutcome::Dropped);
        Some(began.elapsed())
    }

    /// What it failed or panicked with.
    pub(crate) fn error(&self) -> Option<String> {
        match &self.ended {
            Some(ServiceOutcome::Failed(error)) => Some(error.clone()),
            Some(ServiceOutcome::Panicked(message)) => Some(format!("panicked: {message}")),
            _ => None,
        }
    }

    fn finish(&mut self, outcome: ServiceOutcome) {
        let future = self.future.take();
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(future)));
        self.ended = Some(match dropped {
            Ok(()) => outcome,
            Err(payload) => ServiceOutcome::Panicked(panic_message(&*payload)),
        });
        self.running.send_replace(false);
    }
}
