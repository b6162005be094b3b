//! The guard's task in the runtime. It listens for signals through tokio. It also answers the
//! shutdown thread, which shows that the runtime makes progress.
//!
//! It runs from `install()` on. Normally the shutdown thread handles a signal first. If it has not
//! done so within a second after tokio has received the signal, this task handles the signal
//! instead.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use forensics_core::capture::{Signal, next_action};
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

/// The signal that other code listens for, such as actix-web or `ctrl_c()`. The guard registers it later
/// than its other signals. So it can tell whether other code has registered it before.
const LATE: Signal = Signal::INT;

impl Listeners {
    /// Registers with tokio, except for [`LATE`]. Our own handlers must be installed before.
    pub(crate) fn register(signals: &[Signal]) -> io::Result<Self> {
        let now = signals.iter().filter(|signal| **signal != LATE);
        now.map(listener).collect::<io::Result<_>>().map(Self)
    }

    /// Registers [`LATE`], if it is one of `signals`. Also returns whether something else in this program
    /// had registered it with tokio before.
    ///
    /// tokio registers an action for a signal when it gets the first listener. So only the first call in a
    /// process can tell. Without an I/O driver nothing listens through tokio.
    pub(crate) fn register_late(signals: &[Signal]) -> (Self, bool) {
        static IS_REGISTERED: Mutex<bool> = Mutex::new(false);
        let Some(late) = signals.iter().find(|signal| **signal == LATE) else {
            return Default::default();
        };
        let mut is_registered = IS_REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
        let before = if *is_registered { None } else { next_action(LATE) };
        let listeners = Self(listener(late).into_iter().collect());
        let is_shared = before.is_some_and(|before| next_action(LATE) == Some(before + 1));
        *is_registered |= !listeners.0.is_empty();
        (listeners, is_shared)
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

fn listener(signal: &Signal) -> io::Result<(Signal, unix::Signal)> {
    Ok((*signal, unix::signal(unix::SignalKind::from_raw(signal.as_raw()))?))
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
