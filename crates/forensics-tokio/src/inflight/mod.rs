//! Counts what is in flight, so that a drain knows what to wait for and can show its progress.
//!
//! [`InFlight`] is the count. A service can count anything that it has accepted and not finished:
//! a connection, a session, a job. With the feature `tower`, a layer counts the HTTP requests
//! of a [`tower`](https://docs.rs/tower) service.

#[cfg(feature = "tower")]
mod http_layer;

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::phase_context::PhaseContext;

#[cfg(feature = "tower")]
pub use self::http_layer::{HttpInFlightLayer, HttpInFlightService, TrackedBody};

/// How long a drain waits before it logs what it waits for.
pub(crate) const FIRST_NOTICE: Duration = Duration::from_secs(1);

/// Counts what is in flight. Clones share one count.
///
/// ```no_run
/// use std::error::Error;
/// use forensics_tokio::inflight::InFlight;
/// use forensics_tokio::{ShutdownGuard, ShutdownReport};
///
/// #[tokio::main]
/// async fn main() -> Result<ShutdownReport, Box<dyn Error>> {
///     let guard = ShutdownGuard::builder("worker").install()?;
///     let jobs = InFlight::new();
///     guard.phase("drain", jobs.drain_phase()).timeout(guard.drain_timeout());
///
///     let stop = guard.token();
///     let service = async move {
///         let job = jobs.track(); // in flight until it is dropped
///         tokio::spawn(async move {
///             // The work that the drain waits for.
///             drop(job);
///         });
///         stop.cancelled().await;
///     };
///     Ok(guard.run(service).await)
/// }
/// ```
///
/// With the feature `tower`, a layer counts HTTP requests: `Router::new().layer(requests.http_layer())`.
#[derive(Debug, Clone, Default)]
pub struct InFlight(Arc<watch::Sender<Counts>>);

/// What an [`InFlight`] counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) active: usize,
    /// How many of these are HTTP requests whose handler has returned an answer, which is being sent.
    pub(crate) answered: usize,
    /// How many HTTP requests have changed the protocol of their connection, ever.
    pub(crate) upgraded: usize,
}

impl InFlight {
    /// Returns a count of 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns how many are in flight.
    pub fn count(&self) -> usize {
        self.0.borrow().active
    }

    /// The counts, and their changes.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Counts> {
        self.0.subscribe()
    }

    /// Counts one more until the returned guard is dropped.
    pub fn track(&self) -> InFlightGuard {
        self.0.send_modify(|counts| counts.active += 1);
        InFlightGuard { counts: self.0.clone(), is_answered: false }
    }

    /// Returns the work of a phase that waits until the service's own future has ended and nothing is in
    /// flight. It records its progress as [`wait_idle`](Self::wait_idle) does.
    ///
    /// It waits for the service for two reasons: an answer may not have been sent yet although its
    /// request no longer counts, and a connection that is kept open can bring another request. A server
    /// that stops with the token returns when both are over. If the service's future does not end at a
    /// stop, call `wait_idle` instead.
    ///
    /// A connection that was upgraded, such as a WebSocket, is not counted. The phase records how many
    /// there were (`upgraded`). [`Connections`](crate::connections::Connections) counts them until they
    /// are closed.
    pub fn drain_phase(
        &self,
    ) -> impl FnOnce(PhaseContext) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + 'static
    {
        let in_flight = self.clone();
        |cx| Box::pin(async move { in_flight.wait(&cx, cx.service_end()).await })
    }

    /// Waits until nothing is in flight. Records in the phase how many there were at first
    /// (`active_at_start`) and how many there are (`active_now`). Each one that ends counts as progress
    /// of the phase ([`extend_stop_timeout`](crate::Builder::extend_stop_timeout)).
    ///
    /// It also waits for those that begin meanwhile. It does not poll: a change of the count wakes
    /// it. Cancel safe.
    pub async fn wait_idle(&self, cx: &PhaseContext) {
        self.wait(cx, std::future::ready(())).await;
    }

    /// Waits until `ended` is ready and nothing is in flight.
    async fn wait(&self, cx: &PhaseContext, ended: impl Future<Output = ()>) {
        let mut counts = self.subscribe();
        cx.record("active_at_start", self.count());
        let mut ended = pin!(ended);
        let mut is_ended = false;
        let mut notice = pin!(tokio::time::sleep(FIRST_NOTICE));
        let mut recorded = None;
        loop {
            let now = *counts.borrow_and_update();
            let Counts { active, upgraded, .. } = now;
            // What it waits for must stay the last value until there is a new one.
            if recorded.replace(now) != Some(now) {
                if upgraded > 0 {
                    cx.record("upgraded", upgraded);
                }
                cx.record("active_now", active);
            }
            if active == 0 && is_ended {
                return;
            }
            tokio::select! {
                () = &mut ended, if !is_ended => is_ended = true,
                // This does not fail, because `self` holds the sender.
                _ = counts.changed() => {}
                () = &mut notice, if active == 0 && !notice.is_elapsed() => {
                    let text = "the service, which has not ended; 0 requests are in flight, and \
                        connections are not counted";
                    cx.record("waited_for", text);
                    cx.log_waiting(text);
                }
            }
        }
    }
}

/// Counts as one in flight until it is dropped. [`InFlight::track`] returns it.
#[derive(Debug)]
#[must_use = "the count goes down again as soon as this is dropped"]
pub struct InFlightGuard {
    counts: Arc<watch::Sender<Counts>>,
    is_answered: bool,
}

#[cfg(feature = "tower")]
impl InFlightGuard {
    /// The handler of the HTTP request has returned an answer.
    pub(crate) fn set_answered(&mut self, upgrades: bool) {
        self.is_answered = true;
        self.counts.send_modify(|counts| {
            counts.answered += 1;
            counts.upgraded += usize::from(upgrades);
        });
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.counts.send_modify(|counts| {
            counts.active -= 1;
            counts.answered -= usize::from(self.is_answered);
        });
    }
}
