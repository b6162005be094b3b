//! The drain: waits for connections and requests, says what it waits for, and closes the connections
//! of silent clients.

use std::pin::{Pin, pin};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Connections, MAX_NAMED, list};
use crate::inflight::FIRST_NOTICE;
use crate::lock::lock;
use crate::phase_context::PhaseContext;

/// How often a drain checks the connections.
const CHECK_EVERY: Duration = Duration::from_millis(100);

impl Connections {
    /// Returns the work of a phase that waits until the service's own future has ended, no request is in
    /// flight, and no connection is open.
    ///
    /// It records the requests in flight (`active_at_start`, `active_now`), the open connections
    /// (`connections_at_start`, `connections_now`), what it waited for last (`waited_for`), and which
    /// connections were closed because their clients were silent (`closed`). It logs what it waits for
    /// after a second, and then at most once a second if that has changed.
    ///
    /// If the service's future does not end at a stop, call [`wait_closed`](Self::wait_closed) instead.
    pub fn drain_phase(
        &self,
    ) -> impl FnOnce(PhaseContext) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + 'static
    {
        let connections = self.clone();
        |cx| Box::pin(async move { connections.wait(&cx, cx.service_end()).await })
    }

    /// Waits until no request is in flight and no connection is open. Records and logs the same as
    /// [`drain_phase`](Self::drain_phase).
    ///
    /// Cancel safe.
    pub async fn wait_closed(&self, cx: &PhaseContext) {
        self.wait(cx, std::future::ready(())).await;
    }

    async fn wait(&self, cx: &PhaseContext, ended: impl Future<Output = ()>) {
        let shared = &self.shared;
        let (mut open, mut requests) = (shared.open.subscribe(), shared.requests.subscribe());
        let mut counts = [Recorded::new("active_now"), Recorded::new("connections_now")];
        let mut notice = Notice { due: Instant::now() + FIRST_NOTICE, logged: String::new() };
        let (mut waited_for, mut closed) = (Recorded::new("waited_for"), Recorded::new("closed"));
        self.begin_drain(cx.token_cancelled_at());
        cx.record("active_at_start", self.requests());
        cx.record("connections_at_start", self.open());
        let mut looks = interval(CHECK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Skips the first tick, which comes at once, before it is known whether there is anything to wait for.
        looks.reset();
        let (mut ended, mut is_ended) = (pin!(ended), false);
        loop {
            let (active, connections) =
                (requests.borrow_and_update().active, open.borrow_and_update().connections.len());
            counts[0].set(active, cx);
            counts[1].set(connections, cx);
            let is_done = active == 0 && connections == 0 && is_ended;
            if is_done {
                self.record_closed(&mut closed, cx);
                return;
            }
            tokio::select! {
                () = &mut ended, if !is_ended => is_ended = true,
                // These do not fail, because `self` holds the senders.
                _ = open.changed() => {}
                _ = requests.changed() => {}
                _ = looks.tick() => {
                    self.close_silent();
                    self.record_closed(&mut closed, cx);
                    let text = if is_ended || active > 0 || connections > 0 {
                        self.to_string()
                    } else {
                        format!("{self}, and the service, which has not ended")
                    };
                    notice.say(&text, cx);
                    waited_for.set(text, cx);
                }
            }
        }
    }

    /// From `at` on, clients must not be silent. Only the first call counts.
    pub(crate) fn begin_drain(&self, at: Instant) {
        let _ = self.shared.drain_began.set(at);
    }

    /// Closes the connections whose clients have been silent for the limit, counted from the beginning of
    /// the drain at the earliest.
    fn close_silent(&self) {
        let Some(&began) = self.shared.drain_began.get() else { return };
        let requests = self.counted_requests();
        for connection in self.shared.open.borrow().connections.values() {
            let since = connection.waits_for_client_since(began, requests);
            let is_silent = since.is_some_and(|since| since.elapsed() >= self.shared.silence_limit);
            if is_silent && !connection.cut.is_cancelled() {
                lock(&self.shared.closed).push(connection.describe(requests));
                connection.cut.cancel();
            }
        }
    }

    /// Records the connections that were closed, here or by the server.
    fn record_closed(&self, value: &mut Recorded<String>, cx: &PhaseContext) {
        let closed = lock(&self.shared.closed);
        if !closed.is_empty() {
            value.set(list(&closed[..closed.len().min(MAX_NAMED)], closed.len(), ""), cx);
        }
    }

    /// Closes the connections of silent clients, until the returned future is dropped.
    #[cfg(feature = "serve-http1")]
    pub(crate) async fn keep_closing_silent(&self) {
        self.begin_drain(Instant::now());
        let mut looks = interval(CHECK_EVERY);
        loop {
            looks.tick().await;
            self.close_silent();
        }
    }
}

/// A value that is recorded when it changes. Recording it counts as progress of the phase.
struct Recorded<T> {
    key: &'static str,
    last: Option<T>,
}

impl<T: Clone + PartialEq + Into<serde_json::Value>> Recorded<T> {
    fn new(key: &'static str) -> Self {
        Self { key, last: None }
    }

    fn set(&mut self, value: T, cx: &PhaseContext) {
        if self.last.as_ref() != Some(&value) {
            cx.record(self.key, value.clone());
            self.last = Some(value);
        }
    }
}

/// What the log says about the wait: the first time when it is due, then at most once a second.
struct Notice {
    due: Instant,
    logged: String,
}

impl Notice {
    fn say(&mut self, text: &str, cx: &PhaseContext) {
        if self.due <= Instant::now() && self.logged != text {
            cx.log_waiting(text);
            text.clone_into(&mut self.logged);
            self.due = Instant::now() + FIRST_NOTICE;
        }
    }
}
