//! What asked us to stop, and what has been asked since.
//!
//! The one piece of state that the keeper (a plain thread), the listener (a task) and the teardown
//! share. It is written from any thread and waited for from tasks; no lock is held across a probe
//! or a log line.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use forensics_core::capture::Captured;
use forensics_core::clock;
use forensics_core::context::{Baseline, ShutdownContext, Trigger};
use forensics_core::process;
use forensics_core::sender::Sender;
use tokio::sync::watch;

use crate::bounded::bounded;
use crate::report::LaterSignal;

/// Two signals closer together than this are one request delivered twice: a terminal signals the
/// whole process group, a wrapper forwards what it got, too.
const SAME_REQUEST: Duration = Duration::from_millis(200);

/// How long a command line may take to be read; it can hang for as long as its process's memory
/// map is locked.
const CMDLINE_LIMIT: Duration = Duration::from_millis(20);

/// What tasks wait for.
#[derive(Debug, Default)]
pub(crate) struct StopState {
    /// Somebody asked, and the context is captured.
    pub(crate) begun: Option<Arc<Begun>>,
    /// The same, once it is logged and the token is cancelled.
    pub(crate) announced: Option<Arc<Begun>>,
    /// A second signal came: only what has a reserve goes on.
    pub(crate) hurried: bool,
    /// Signals after the one that began the stop.
    pub(crate) later: Vec<LaterSignal>,
}

/// A stop that has begun.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) context: ShutdownContext,
    /// When it was asked for.
    pub(crate) at: Instant,
}

pub(crate) struct Stop {
    baseline: Baseline,
    /// Set by the one who then captures the context.
    claimed: AtomicBool,
    count: Mutex<SignalCount>,
    state: watch::Sender<StopState>,
}

impl Stop {
    pub(crate) fn new(baseline: Baseline) -> Self {
        Self {
            baseline,
            claimed: AtomicBool::new(false),
            count: Mutex::default(),
            state: watch::Sender::default(),
        }
    }

    /// Begins the stop, unless it has begun: captures the context, and tells whoever waits.
    /// `false` where somebody else was first, whose capture may still be under way.
    ///
    /// From any thread. Takes some 100 µs, and 20 ms more where a command line hangs.
    pub(crate) fn begin(&self, trigger: Trigger, captured: Option<&Captured>) -> bool {
        if self.claimed.swap(true, Ordering::AcqRel) {
            return false;
        }
        let mut context = ShutdownContext::capture(&self.baseline, trigger, captured);
        if let Some(sender) = &mut context.sender {
            let parent =
                context.parent.as_ref().filter(|parent| parent.is_same_as(&sender.process));
            sender.process.cmdline = match parent {
                Some(parent) => parent.cmdline.clone(),
                None => sender_cmdline(sender),
            };
        }
        let now = Instant::now();
        let since = match captured {
            Some(_) => Duration::from_micros(clock::mono_us().saturating_sub(context.mono_us)),
            None => Duration::ZERO,
        };
        let at = now.checked_sub(since).unwrap_or(now);
        let begun = Arc::new(Begun { context, at });
        self.state.send_modify(|state| state.begun = Some(begun));
        true
    }

    /// Takes in a signal. Returns its place among the requests of this stop: `None` for one that
    /// came so close behind another that it is the same request.
    pub(crate) fn on_signal(&self, captured: &Captured) -> Option<u32> {
        let count = || self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let ordinal = count().add(Duration::from_nanos(captured.mono_ns));
        let trigger = Trigger::Signal { signal: captured.signal };
        if ordinal == Some(1) && self.begin(trigger, Some(captured)) {
            return ordinal;
        }
        let sender = Sender::identify(captured);
        self.state.send_modify(|state| {
            // Absent only while another thread is still capturing the context of a request.
            let began_us = state.begun.as_ref().map_or(u64::MAX, |begun| begun.context.mono_us);
            let offset = Duration::from_micros((captured.mono_ns / 1000).saturating_sub(began_us));
            state.later.push(LaterSignal { signal: captured.signal, sender, ordinal, offset });
            state.hurried |= ordinal >= Some(2);
        });
        ordinal
    }

    /// Lets everybody go on: the context is logged, the token cancelled.
    pub(crate) fn set_announced(&self) {
        self.state.send_modify(|state| state.announced.clone_from(&state.begun));
    }

    /// Waits until a stop has begun. Cancel safe.
    pub(crate) async fn begun(&self) -> Arc<Begun> {
        self.until(|state| state.begun.as_ref()).await
    }

    /// Waits until a stop is announced. Cancel safe.
    pub(crate) async fn announced(&self) -> Arc<Begun> {
        self.until(|state| state.announced.as_ref()).await
    }

    async fn until(&self, get: fn(&StopState) -> Option<&Arc<Begun>>) -> Arc<Begun> {
        let mut state = self.watch();
        loop {
            if let Some(begun) = get(&state.borrow_and_update()) {
                return begun.clone();
            }
            // An error cannot be: we hold the sender.
            let _ = state.changed().await;
        }
    }

    pub(crate) fn watch(&self) -> watch::Receiver<StopState> {
        self.state.subscribe()
    }
}

/// Counts requests to stop.
#[derive(Debug, Default)]
struct SignalCount {
    requests: u32,
    /// When the last signal came, on `CLOCK_MONOTONIC`.
    last: Option<Duration>,
}

impl SignalCount {
    fn add(&mut self, at: Duration) -> Option<u32> {
        let repeated = self.last.is_some_and(|last| at.saturating_sub(last) < SAME_REQUEST);
        self.last = Some(at);
        if repeated {
            return None;
        }
        self.requests = self.requests.saturating_add(1);
        Some(self.requests)
    }
}

/// The sender's command line, if it can be had at once and is surely the sender's.
fn sender_cmdline(sender: &Sender) -> Option<String> {
    // A zombie's is empty: that spares the thread in most cases.
    if !sender.is_still_there() || sender.process.state == Some('Z') {
        return None;
    }
    let pid = sender.process.pid;
    let cmdline = bounded(CMDLINE_LIMIT, move || process::cmdline(pid)).flatten();
    cmdline.filter(|_| sender.is_still_there())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_within_200_ms_of_each_other_are_one_request() {
        let mut count = SignalCount::default();
        let cases = [
            (0, Some(1)),
            (1, None),
            (200, None),
            (399, None),
            (599, Some(2)),
            (600, None),
            (1000, Some(3)),
        ];
        for (ms, ordinal) in cases {
            assert_eq!(count.add(Duration::from_millis(ms)), ordinal, "at {ms} ms");
        }
    }
}
