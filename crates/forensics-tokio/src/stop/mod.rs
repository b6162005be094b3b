//! What asked us to stop, and what has been asked since.
//!
//! The one piece of state that the keeper (a plain thread), the listener (a task) and the teardown
//! share. It is written from any thread and waited for from tasks; no lock is held across a probe
//! or a log line.

mod allowance;
mod beginning;
mod context;
mod ending;
mod running;
mod state;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use forensics_core::capture::{self, SignalInfo};
use forensics_core::clock;
use forensics_core::context::{ShutdownContext, StartupInfo, Trigger};
use tokio::runtime::{Handle, RuntimeMetrics};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use allowance::Unit;
use beginning::Begins;
pub(crate) use context::Caught;
pub(crate) use running::Noted;
#[cfg(feature = "testing")]
pub(crate) use state::SAME_REQUEST;
use state::SignalCount;
pub(crate) use state::StopState;

use crate::begun::{Begun, LeadEnd};
use crate::blackbox::BlackBox;
use crate::bounded::bounded_or_here;
use crate::config::{Config, Escalation, FlushHook};
use crate::events;
use crate::message::Message;
use crate::message::termination::Termination;
use crate::notify::Notifier;
use crate::phase_state::PhaseState;
use crate::readiness::Readiness;
use crate::report::LaterSignal;
use crate::voice::Voice;

/// How long the keeper waits for an event to be written. Some microseconds where the disk is well.
const RECORD_LIMIT: Duration = Duration::from_millis(100);

/// Where a stop is told of, besides the log.
pub(crate) struct Outlets {
    pub(crate) black_box: BlackBox,
    pub(crate) notifier: Notifier,
    pub(crate) termination: Termination,
    /// Says the context in the log.
    pub(crate) say_context: fn(&ShutdownContext),
}

/// See the module's documentation.
pub(crate) struct Stop {
    startup: Arc<StartupInfo>,
    config: Arc<Config>,
    pub(crate) black_box: BlackBox,
    pub(crate) voice: Voice,
    say_context: fn(&ShutdownContext),
    /// What the service waits for.
    pub(crate) token: CancellationToken,
    /// The runtime that the guard was installed in.
    runtime: Handle,
    pub(crate) notifier: Notifier,
    pub(crate) message: Message,
    pub(crate) readiness: Arc<Readiness>,
    /// What systemd has said of our unit.
    unit: OnceLock<Unit>,
    /// Set by the one who then captures the context.
    claimed: AtomicBool,
    /// What that one has captured, until somebody goes on with it.
    begins: Mutex<Option<Begins>>,
    count: Mutex<SignalCount>,
    /// How many of the later signals have been left to the voice, and the number of the last of these words.
    left_later: AtomicUsize,
    later_words: AtomicU64,
    /// Never to be borrowed twice at once: a writer that waits in between stops both.
    state: watch::Sender<StopState>,
    /// The keeper's questions to the runtime, numbered, and the last one answered.
    questions: watch::Sender<u64>,
    answered: AtomicU64,
    /// The phases that run, in the order in which they began, with a gap for each that has ended.
    running: Mutex<Vec<Option<Arc<PhaseState>>>>,
    /// Grows with everything that a phase gets done.
    progress: AtomicU64,
    phases_changed: Notify,
    recorded_begun: OnceLock<()>,
    /// How many signals had found no free slot before this stop could begin.
    dropped_before: u64,
    ended: OnceLock<Instant>,
    finished: AtomicBool,
    exit_expected: OnceLock<Instant>,
}

impl Stop {
    pub(crate) fn new(
        startup: StartupInfo,
        config: Arc<Config>,
        outlets: Outlets,
        runtime: Handle,
    ) -> Self {
        let Outlets { black_box, notifier, termination, say_context } = outlets;
        let message = Message::new(termination, config.service.clone());
        Self {
            startup: Arc::new(startup),
            config,
            black_box,
            voice: Voice::new(),
            say_context,
            token: CancellationToken::new(),
            runtime,
            notifier,
            message,
            readiness: Arc::default(),
            unit: OnceLock::new(),
            claimed: AtomicBool::new(false),
            begins: Mutex::default(),
            count: Mutex::default(),
            left_later: AtomicUsize::new(0),
            later_words: AtomicU64::new(0),
            state: watch::Sender::default(),
            questions: watch::Sender::new(0),
            answered: AtomicU64::new(0),
            running: Mutex::default(),
            progress: AtomicU64::new(0),
            phases_changed: Notify::new(),
            recorded_begun: OnceLock::new(),
            dropped_before: capture::dropped(),
            ended: OnceLock::new(),
            finished: AtomicBool::new(false),
            exit_expected: OnceLock::new(),
        }
    }

    /// Now, on the one clock that everything about a stop is reckoned by: the runtime's. It is the
    /// real one, unless a test has paused it; then neither the deadline nor the keeper, who asks
    /// from outside the runtime, goes by another.
    pub(crate) fn now(&self) -> Instant {
        let _in = self.runtime.enter();
        Instant::now()
    }

    /// What the runtime counts.
    pub(crate) fn metrics(&self) -> RuntimeMetrics {
        self.runtime.metrics()
    }

    /// When the handler took this down, by [`now`](Self::now).
    pub(crate) fn time_of(&self, captured: &SignalInfo) -> Instant {
        let since = clock::mono_us().saturating_sub(captured.mono_ns / 1000);
        let now = self.now();
        now.checked_sub(Duration::from_micros(since)).unwrap_or(now)
    }

    /// Takes in a signal that came then. Returns whether it asks for an end at once. Where it begins the
    /// stop, [`go_on_recorded`](Self::go_on_recorded) is what follows. Once the teardown has ended it is
    /// nothing to us any more.
    ///
    /// Not a task's: it waits for the disk, though not for long.
    pub(crate) fn on_signal(self: &Arc<Self>, caught: &Caught, at: Instant) -> bool {
        if self.is_finished() {
            return false;
        }
        let ordinal = self.count().add(at);
        let signal = caught.captured.signal;
        if ordinal == Some(1) && self.begin_at(at, Trigger::Signal { signal }, Some(caught)) {
            return false;
        }
        let escalation = self.config.escalation;
        let is_listed = self.state.borrow().has_room(ordinal);
        if is_listed {
            let mut later = self.later(caught, ordinal, at);
            self.note(&mut |state| {
                let cuts = escalation == Escalation::CutThenExit && ordinal >= Some(2);
                later.ended_lead = cuts && state.hurry();
                state.later.push(later.clone());
            });
            // Else the context comes first. The runtime is not waited for: it may be blocked, or this the
            // last that is heard of the process.
            if self.has_begun() {
                self.leave_later_signals();
            }
            let (stop, requests) = (self.clone(), self.count().requests);
            bounded_or_here(RECORD_LIMIT, move || stop.black_box.later_signal(&later, requests));
        } else {
            // No news to anybody.
            self.state.send_if_modified(|state| {
                state.unlisted += 1;
                false
            });
        }
        match escalation {
            Escalation::CutThenExit => ordinal >= Some(3),
            Escalation::Exit => ordinal >= Some(2),
            Escalation::Ignore => false,
        }
    }

    /// For how long from now on a signal would still be the same request as the last one.
    pub(crate) fn same_request_for(&self) -> Duration {
        self.count().same_for(self.now())
    }

    fn count(&self) -> MutexGuard<'_, SignalCount> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn later(&self, caught: &Caught, ordinal: Option<u32>, at: Instant) -> LaterSignal {
        let (signal, sender) = (caught.captured.signal, context::sender(&self.startup, caught));
        let state = self.state.borrow();
        // Absent only while another thread is still capturing the context of a request.
        let began = state.begun.as_ref().map_or(at, |begun| begun.at);
        let offset = at.saturating_duration_since(began);
        LaterSignal { signal, sender, ordinal, offset, ended_lead: false }
    }

    /// Ends the lead or cuts the running phase short, as a second signal does. Without effect before
    /// a stop has begun.
    pub(crate) fn hurry(&self) {
        self.note(&mut |state| {
            state.hurry();
        });
    }

    /// Ends the lead, where that lasts.
    pub(crate) fn end_lead(&self, why: LeadEnd) {
        self.note(&mut |state| {
            if state.is_leading() {
                state.lead_ended = Some(why);
            }
        });
    }

    /// Waits until somebody ends the lead, and says why. Cancel safe.
    pub(crate) async fn lead_ended(&self) -> LeadEnd {
        self.until(|state| state.lead_ended).await
    }

    /// Lets everybody go on: the context is logged, the token cancelled.
    pub(crate) fn set_announced(&self) {
        self.note(&mut |state| state.announced.clone_from(&state.begun));
    }

    /// Notes how long the lead lasted.
    pub(crate) fn set_led(&self, led: Duration) {
        self.note(&mut |state| state.led = led);
    }

    /// How long the service went on as before; zero where it did not.
    pub(crate) fn led(&self) -> Duration {
        self.state.borrow().led
    }

    /// Waits until a stop has begun. Cancel safe.
    pub(crate) async fn begun(&self) -> Arc<Begun> {
        self.until(|state| state.begun.clone()).await
    }

    /// Waits until a stop is announced. Cancel safe.
    pub(crate) async fn announced(&self) -> Arc<Begun> {
        self.until(|state| state.announced.clone()).await
    }

    async fn until<T>(&self, get: fn(&StopState) -> Option<T>) -> T {
        let mut state = self.watch();
        loop {
            if let Some(found) = get(&state.borrow_and_update()) {
                return found;
            }
            // An error cannot be: we hold the sender.
            let _ = state.changed().await;
        }
    }

    /// The later signal in this place, from 0 on.
    pub(crate) fn later_signal(&self, place: usize) -> Option<LaterSignal> {
        self.state.borrow().later.get(place).cloned()
    }

    /// All of them that are listed.
    pub(crate) fn later_signals(&self) -> Vec<LaterSignal> {
        self.state.borrow().later.clone()
    }

    /// Leaves the later signals to the voice that nobody has left to it yet. Never blocks.
    fn leave_later_signals(&self) {
        // Whoever moves the count on leaves the one it counted.
        let next = |place: usize| self.later_signal(place).map(|_| place + 1);
        let order = (Ordering::AcqRel, Ordering::Acquire);
        while let Ok(place) = self.left_later.fetch_update(order.0, order.1, next) {
            if let Some(later) = self.later_signal(place) {
                let escalation = self.config.escalation;
                let words = self.voice.leave(move || events::later_signal(&later, escalation));
                self.later_words.fetch_max(words, Ordering::AcqRel);
            }
        }
    }

    /// Sees to it that they are logged.
    pub(crate) fn say_later_signals(&self) {
        self.leave_later_signals();
        if !self.voice.has_said(self.later_words.load(Ordering::Acquire)) {
            self.voice.speak_soon();
        }
    }

    /// How many more were seen.
    pub(crate) fn unlisted_signals(&self) -> u64 {
        let dropped = capture::dropped().saturating_sub(self.dropped_before);
        self.state.borrow().unlisted.saturating_add(dropped)
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.state.borrow().begun.is_some()
    }

    /// The context, while nobody has logged it.
    pub(crate) fn unsaid(&self) -> Option<String> {
        let state = self.state.borrow();
        let begun = state.begun.as_ref().filter(|_| !state.said)?;
        Some(begun.context.to_string())
    }

    /// The keeper asks the runtime for a sign of life.
    pub(crate) fn ask(&self) {
        self.questions.send_modify(|number| *number += 1);
    }

    /// Whether the last question has been answered.
    pub(crate) fn has_answered(&self) -> bool {
        *self.questions.borrow() == self.answered.load(Ordering::Acquire)
    }

    /// Answers the keeper's questions, for as long as it is polled. Never returns; cancel safe.
    pub(crate) async fn answer(&self) {
        let mut questions = self.questions.subscribe();
        loop {
            self.answered.store(*questions.borrow_and_update(), Ordering::Release);
            // An error cannot be: we hold the sender.
            let _ = questions.changed().await;
        }
    }

    pub(crate) fn flush_hooks(&self) -> Vec<FlushHook> {
        self.config.flush.0.clone()
    }

    /// Notes news, and wakes who waits for some. Compiled once for all of them.
    fn note(&self, news: &mut dyn FnMut(&mut StopState)) {
        self.state.send_modify(news);
    }

    pub(crate) fn watch(&self) -> watch::Receiver<StopState> {
        self.state.subscribe()
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stop").field("state", &*self.state.borrow()).finish_non_exhaustive()
    }
}
