//! The service's own future: polled until it ends, and its panic caught.
//!
//! [`polled`] is all of [`run`](crate::ShutdownGuard::run) that is compiled anew for each service. What
//! supervises the service is polled beside it, in the same task, and asks for its turns through a
//! [`Service`], which knows nothing of the future's type.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};

use crate::outcome::{IntoOutcome, ServiceOutcome, panic_message};

/// What the service's future is to have, once whoever supervises it has been polled.
#[derive(Clone, Copy, Default)]
enum Wanted {
    #[default]
    Nothing,
    Poll,
    Drop,
}

#[derive(Default)]
struct State {
    wanted: Wanted,
    /// Absent while it runs.
    ended: Option<ServiceOutcome>,
}

/// The service, for whoever supervises it; see the module's documentation. Clones are the same.
#[derive(Clone)]
pub(crate) struct Service {
    state: Arc<Mutex<State>>,
    running: watch::Sender<bool>,
}

impl Service {
    pub(crate) fn new() -> (Self, watch::Receiver<bool>) {
        let (running, is_running) = watch::channel(true);
        (Self { state: Arc::default(), running }, is_running)
    }

    /// Has it polled until it ends. Cancel safe.
    pub(crate) async fn end(&self) {
        self.ended_with(Wanted::Poll).await;
    }

    /// Has it polled beside `work`, until `work` is done.
    pub(crate) async fn alongside<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = self.end(), if self.ended().is_none() => {}
            }
        }
    }

    /// Has it polled until it ends, once at least, and dropped where it does not by `limit`: then it
    /// returns how long it waited.
    pub(crate) async fn end_within(&self, limit: Instant) -> Option<Duration> {
        let began = Instant::now();
        tokio::select! {
            biased;
            () = self.end() => {}
            () = yield_now() => {}
        }
        timeout_at(limit, self.end()).await.err()?;
        self.ended_with(Wanted::Drop).await;
        Some(began.elapsed())
    }

    /// How it ended.
    pub(crate) fn ended(&self) -> Option<ServiceOutcome> {
        self.lock().ended.clone()
    }

    /// What it failed or panicked with.
    pub(crate) fn error(&self) -> Option<String> {
        match self.ended() {
            Some(ServiceOutcome::Failed(error)) => Some(error),
            Some(ServiceOutcome::Panicked(message)) => Some(format!("panicked: {message}")),
            _ => None,
        }
    }

    /// Wants that of it until it has ended. Cancel safe.
    async fn ended_with(&self, wanted: Wanted) {
        poll_fn(|_| {
            let mut state = self.lock();
            if state.ended.is_some() {
                return Poll::Ready(());
            }
            state.wanted = wanted;
            Poll::Pending
        })
        .await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Polls `supervisor`, and after it `future` as far as that wants it, until `supervisor` is done.
pub(crate) async fn polled<S, T>(
    future: S,
    service: Service,
    mut supervisor: Pin<Box<dyn Future<Output = T> + Send + '_>>,
) -> T
where
    S: Future,
    S::Output: IntoOutcome,
{
    let mut future = Some(Box::pin(future));
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(done) = supervisor.as_mut().poll(cx) {
                return Poll::Ready(done);
            }
            let wanted = std::mem::take(&mut service.lock().wanted);
            let Some(running) = &mut future else { return Poll::Pending };
            let outcome = match wanted {
                Wanted::Nothing => return Poll::Pending,
                Wanted::Drop => ServiceOutcome::Dropped,
                Wanted::Poll => {
                    match catch_unwind(AssertUnwindSafe(|| running.as_mut().poll(cx))) {
                        Ok(Poll::Pending) => return Poll::Pending,
                        Ok(Poll::Ready(output)) => match output.into_error() {
                            None => ServiceOutcome::Ended,
                            Some(error) => ServiceOutcome::Failed(error),
                        },
                        Err(payload) => ServiceOutcome::Panicked(panic_message(&*payload)),
                    }
                }
            };
            // One that panicked is never polled again. Whoever supervises it looks again at once.
            let dropped = catch_unwind(AssertUnwindSafe(|| drop(future.take())));
            let outcome = match dropped {
                Ok(()) => outcome,
                Err(payload) => ServiceOutcome::Panicked(panic_message(&*payload)),
            };
            service.lock().ended = Some(outcome);
            service.running.send_replace(false);
        }
    })
    .await
}
