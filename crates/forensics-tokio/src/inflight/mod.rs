//! What is in flight, counted, so that a drain knows what it waits for and shows how far it is.
//!
//! [`InFlight`] is the count. By hand it counts whatever a service has accepted and not finished:
//! a connection, a session, a job. With the feature `tower` its layers count the requests of a
//! [`tower`](https://docs.rs/tower) service.

#[cfg(feature = "tower")]
mod http;
#[cfg(feature = "tower")]
mod service;

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::watch;

use crate::phase_context::PhaseContext;

#[cfg(feature = "tower")]
pub use self::http::{CountedBody, CountedResponse, HttpInFlightLayer, HttpInFlightService};
#[cfg(feature = "tower")]
pub use self::service::{CountedFuture, InFlightLayer, InFlightService};

/// Counts what is in flight. Clones share one count.
///
/// ```
/// use forensics_tokio::ShutdownGuard;
/// use forensics_tokio::inflight::InFlight;
///
/// # fn phases(guard: &ShutdownGuard) {
/// let in_flight = InFlight::new();
/// guard.phase("drain", in_flight.drain());
///
/// // With the feature `tower`: Router::new().layer(in_flight.http_layer()). By hand:
/// let job = in_flight.begin();
/// // … whatever is to be waited for …
/// drop(job);
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct InFlight(Arc<watch::Sender<usize>>);

impl InFlight {
    /// With nothing in flight.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many are in flight.
    pub fn active(&self) -> usize {
        *self.0.borrow()
    }

    /// Counts one more, until the returned value is dropped.
    pub fn begin(&self) -> Counted {
        self.0.send_modify(|active| *active += 1);
        Counted(self.0.clone())
    }

    /// The work of a phase that waits until the service's own future has ended and nothing is in
    /// flight, and shows meanwhile how far it is: see [`drained`](Self::drained).
    ///
    /// It waits for the service, too, because a request that has been counted out need not be on the
    /// wire yet, and a connection that is kept open can bring another: a server that stops with the
    /// token returns once all that is over. For a service whose future does not end by then, call
    /// `drained` instead.
    pub fn drain(
        &self,
    ) -> impl FnOnce(PhaseContext) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + 'static
    {
        let in_flight = self.clone();
        |cx| Box::pin(async move { in_flight.settled(&cx, cx.service_ended()).await })
    }

    /// Waits until nothing is in flight, and records in the phase how many there were,
    /// `active_at_start`, and are, `active_now`. Each that ends counts as progress of the phase
    /// ([`extend_stop_timeout`](crate::Builder::extend_stop_timeout)).
    ///
    /// Wakes when the count changes, and does not poll. More may begin while it waits, and it then
    /// waits for those. Cancel safe.
    pub async fn drained(&self, cx: &PhaseContext) {
        self.settled(cx, std::future::ready(())).await;
    }

    /// Waits until nothing is in flight, and `ended` as well.
    async fn settled(&self, cx: &PhaseContext, ended: impl Future<Output = ()>) {
        let mut count = self.0.subscribe();
        cx.record("active_at_start", self.active());
        let mut ended = std::pin::pin!(ended);
        let mut is_ended = false;
        loop {
            let active = *count.borrow_and_update();
            cx.record("active_now", active);
            if active == 0 && is_ended {
                return;
            }
            tokio::select! {
                () = &mut ended, if !is_ended => is_ended = true,
                // An error cannot be: we hold the sender.
                _ = count.changed() => {}
            }
        }
    }
}

/// One that is in flight, until this is dropped.
#[derive(Debug)]
#[must_use = "it is counted out as soon as this is dropped"]
pub struct Counted(Arc<watch::Sender<usize>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|active| *active -= 1);
    }
}
