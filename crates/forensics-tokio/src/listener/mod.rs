//! The task that hears of a stop and makes it known: log, token, diagnostic.
//!
//! It runs from `install()` on, so that a signal during a slow start is not lost on the program
//! even before `run()`. Normally the keeper has captured the context by the time it wakes; its own
//! `tokio::signal` listeners see to it that a stop begins also where the keeper does not come.

mod followup;
mod lead;

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use forensics_core::context::Trigger;
use forensics_core::signal::Signal;
use tokio::signal::unix;
use tokio::time::timeout;

use crate::begun::Begun;
use crate::bounded::apart;
use crate::shared::Shared;
use crate::{keeper, task};

/// How long the keeper, which the same signal wakes, is waited for.
const KEEPER_COMES: Duration = Duration::from_millis(100);

/// How long another thread may take for the keeper's work. Longer, as that is one more that a busy machine
/// takes its time to run.
const TAKEN_IN: Duration = Duration::from_secs(1);

/// tokio's listeners for the guard's signals; none hears nothing, and needs no I/O driver.
#[derive(Default)]
pub(crate) struct Listeners(Vec<(Signal, unix::Signal)>);

impl Listeners {
    /// Registers with tokio, which must come after the capture is armed.
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
pub(crate) async fn listen(shared: Arc<Shared>, mut listeners: Listeners) {
    tokio::select! {
        biased;
        _ = shared.stop.begun() => {}
        signal = listeners.recv() => {
            shared.stop.voice.come();
            if timeout(KEEPER_COMES, shared.stop.begun()).await.is_err() {
                // Where that fails, too, a stop of which nothing is known is still one.
                let _ = timeout(TAKEN_IN, apart(keeper::take_in_its_place)).await;
                shared.stop.begin(Trigger::Signal { signal });
            }
        }
        // The user has it, and may use it to stop us.
        () = shared.token.cancelled() => {
            let reason = "the guard's token was cancelled".to_owned();
            shared.stop.begin(Trigger::Request { reason });
        }
    }
    // Whoever was first: its capture may still be under way.
    let begun = shared.stop.begun().await;
    shared.stop.record_begun();
    {
        let _let_go = LetGo(&shared);
        announce(&shared, &begun);
        tokio::select! {
            () = attend(&shared) => {}
            () = lead::pass(&shared, &begun) => {}
        }
    }
    attend(&shared).await;
}

/// Lets the teardown begin, whatever keeps the task from getting that far.
struct LetGo<'a>(&'a Shared);

impl Drop for LetGo<'_> {
    fn drop(&mut self) {
        self.0.token.cancel();
        self.0.stop.set_announced();
    }
}

/// Logs later signals and answers the keeper, for as long as it is polled. Never returns.
async fn attend(shared: &Shared) {
    let mut state = shared.stop.watch();
    loop {
        state.mark_unchanged();
        shared.stop.say_later_signals();
        tokio::select! {
            _ = state.changed() => {}
            () = shared.stop.answer() => {}
        }
    }
}

/// Logs the context and starts the diagnostic, before the token is cancelled: the first line about
/// a stop says who wants it, and a teardown of no time still waits for its diagnostic.
fn announce(shared: &Shared, begun: &Arc<Begun>) {
    shared.stop.assure_context(begun);
    // Tasks of their own: neither holds the token back.
    shared.start_diagnostic(&begun.context);
    let (begun, stop) = (begun.clone(), shared.stop.clone());
    task::spawn(async move {
        followup::ask(&begun.context, &stop.voice).await;
        // Not before: from here on systemd shows the unit as being stopped, whoever stops it.
        stop.notifier.stopping();
    });
}
