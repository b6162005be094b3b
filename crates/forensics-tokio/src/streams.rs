//! Long streams: answers and connections that last until one side ends them, such as WebSockets,
//! server-sent events, long polls and streaming gRPC calls.
//!
//! The graceful shutdown of a server waits for them until the client leaves. [`Streams`] asks them to
//! end, waits, and cuts those that do not end in time.

use std::pin::Pin;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::inflight::{FIRST_NOTICE, InFlight};
use crate::phase_context::PhaseContext;

/// The long streams of a service. Clones share one count.
///
/// ```no_run
/// use std::error::Error;
/// use std::time::Duration;
/// use forensics_tokio::streams::Streams;
/// use forensics_tokio::{ShutdownGuard, ShutdownReport};
///
/// async fn send(message: &str) {
///     println!("{message}"); // to the client
/// }
///
/// #[tokio::main]
/// async fn main() -> Result<ShutdownReport, Box<dyn Error>> {
///     let guard = ShutdownGuard::builder("gateway").install()?;
///     let streams = Streams::new();
///     // Before the drain, which waits for the connections.
///     guard.phase("goodbye", streams.goodbye_phase(Duration::from_secs(5)));
///
///     // In a handler:
///     tokio::spawn(streams.run(async |goodbye| {
///         let mut ticks = tokio::time::interval(Duration::from_secs(1));
///         loop {
///             tokio::select! {
///                 _ = ticks.tick() => send("tick").await,
///                 () = goodbye.cancelled() => return send("goodbye").await,
///             }
///         }
///     }));
///
///     let stop = guard.token();
///     Ok(guard.run(async move { stop.cancelled().await }).await)
/// }
/// ```
///
/// [`InFlight`] only counts work, which ends by itself. A stream is asked to end. Unlike a task of a
/// `TaskTracker`, a stream that does not end is dropped.
#[derive(Debug, Clone, Default)]
pub struct Streams {
    running: InFlight,
    goodbye: CancellationToken,
    cut: CancellationToken,
}

impl Streams {
    /// Returns an empty set of streams.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns how many streams there are.
    pub fn count(&self) -> usize {
        self.running.count()
    }

    /// Runs a stream. The closure gets a token, which is cancelled when the stream should end.
    ///
    /// The stream counts from this call until the returned future has ended or is dropped, even if that
    /// future is never polled. It returns `None` if the stream was cut.
    pub fn run<S, F>(&self, stream: S) -> impl Future<Output = Option<F::Output>> + use<S, F>
    where
        S: FnOnce(CancellationToken) -> F,
        F: Future,
    {
        let (counted, cut) = (self.running.track(), self.cut.clone());
        let stream = stream(self.goodbye.clone());
        async move {
            let _counted = counted;
            cut.run_until_cancelled_owned(stream).await
        }
    }

    /// Asks all streams to end, and returns how many there are. A stream that begins later is asked
    /// at once.
    pub fn say_goodbye(&self) -> usize {
        self.goodbye.cancel();
        self.count()
    }

    /// Returns the work of a phase that asks all streams to end, waits, and cuts those that have not
    /// ended after `cut_after`.
    ///
    /// It records how many were asked (`streams_told`), how many there are (`streams_now`), and how many
    /// were cut (`streams_cut`), if any.
    pub fn goodbye_phase(
        &self,
        cut_after: Duration,
    ) -> impl FnOnce(PhaseContext) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + 'static
    {
        let streams = self.clone();
        move |cx| Box::pin(async move { streams.close(&cx, cut_after).await })
    }

    async fn close(&self, cx: &PhaseContext, cut_after: Duration) {
        let mut running = self.running.subscribe();
        cx.record("streams_told", self.say_goodbye());
        let all_ended = async {
            loop {
                let now = running.borrow_and_update().active;
                cx.record("streams_now", now);
                // There is no error, because `self` holds the sender.
                if now == 0 || running.changed().await.is_err() {
                    return;
                }
            }
        };
        let notice = async {
            tokio::time::sleep(FIRST_NOTICE).await;
            cx.log_waiting(&format!("{} long streams to end", self.count()));
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = all_ended => {}
            () = notice => {}
            () = tokio::time::sleep(cut_after) => {
                cx.record("streams_cut", self.count());
                self.cut.cancel();
            }
        }
    }
}
