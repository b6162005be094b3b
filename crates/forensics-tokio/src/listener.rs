//! The guard's task in the runtime. It listens for signals through tokio. It also answers the
//! shutdown thread, which shows that the runtime makes progress.
//!
//! It runs from `install()` on. Normally the shutdown thread handles a signal first. If it has not
//! done so within a second after tokio has received the signal, this task handles the signal
//! instead.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use forensics_core::capture::Signal;
use forensics_core::context::Trigger;
use tokio::signal::unix;
use tokio::time::{Instant, sleep_until};

use crate::machine::Event;
use crate::shutdown::Shutdown;

/// How long the shutdown thread may take to handle a signal that tokio has received.
const FORWARD_AFTER: Duration = Duration::from_secs(1);

/// tokio's listeners for the guard's signals. If the guard has no signals, no I/O driver is needed.
#[derive(Default)]
pub(crate) struct Listeners(Vec<(Signal, unix::Signal)>);

impl Listeners {
    /// Registers with tokio. Our own handlers must be installed before.
    pub(crate) fn register(signals: &[Signal]) -> std::io::Result<Self> {
        let listen = |&signal: &Signal| {
            let kind = unix::SignalKind::from_raw(signal.as_raw());
            Ok((signal, unix::signal(kind)?))
        };
        signals.iter().map(listen).collect::<std::io::Result<_>>().map(Self)
    }

    /// The next signal. Cancel safe.
    async fn recv(&mut self) -> Signal {
        std::future::poll_fn(|cx| {
            let ready = self
                .0
                .iter_mut()
                .find_map(|(signal, stream)| stream.poll_recv(cx).is_ready().then_some(*signal));
            ready.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

/// Listens until the guard aborts it, after the teardown.
pub(crate) async fn listen(shutdown: Arc<Shutdown>, mut listeners: Listeners) {
    // A signal that tokio has received, and when this task handles it.
    let mut unhandled: Option<(Signal, Instant)> = None;
    let mut is_cancelled = false;
    loop {
        let due = unhandled.map_or_else(Instant::now, |(_, due)| due);
        tokio::select! {
            biased;
            () = shutdown.runtime_asked.notified() => shutdown.handle(Event::RuntimeAnswered),
            signal = listeners.recv() => {
                if shutdown.machine().is_running() {
                    unhandled.get_or_insert((signal, Instant::now() + FORWARD_AFTER));
                }
            }
            () = shutdown.token.cancelled(), if !is_cancelled => {
                is_cancelled = true;
                // The program also has the token, and may cancel it to request a stop.
                shutdown.request(Event::TokenCancelled);
            }
            () = sleep_until(due), if unhandled.is_some() => {
                if let Some((signal, _)) = unhandled.take() {
                    shutdown.request(Event::Requested(Trigger::Signal { signal }));
                }
            }
        }
    }
}
