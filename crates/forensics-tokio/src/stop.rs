//! What asked us to stop, and what has been asked since.
//!
//! The one piece of state that the keeper (a plain thread), the listener (a task) and the teardown
//! share. It is written from any thread and waited for from tasks; no lock is held across a probe
//! or a log line.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use forensics_core::capture::{self, Captured};
use forensics_core::cause::Cause;
use forensics_core::clock;
use forensics_core::context::{Baseline, ShutdownContext, Trigger};
use forensics_core::duration::Timespan;
use forensics_core::marker::{self, Marker};
use forensics_core::process;
use forensics_core::record::{ForcedBy, How};
use forensics_core::sender::Sender;
use tokio::runtime::{Handle, RuntimeMetrics};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::account::State;
use crate::blackbox::BlackBox;
use crate::bounded::{self, bounded, bounded_or_here};
use crate::budget::Seconds;
use crate::config::{Config, Escalation, FlushHook, safety_margin};
use crate::events;
use crate::message::{Message, Standing};
use crate::notify::Notifier;
use crate::panics;
use crate::readiness::Readiness;
use crate::recorded::Recorded;
use crate::report::{LaterSignal, ShutdownReport};
use crate::termination::Termination;
use crate::voice::Voice;

/// Two signals closer together than this are one request delivered twice: a terminal signals the
/// whole process group, a wrapper forwards what it got, too.
pub(crate) const SAME_REQUEST: Duration = Duration::from_millis(200);

/// How long the keeper waits for an event to be written. Some microseconds where the disk is well.
const RECORD_LIMIT: Duration = Duration::from_millis(100);

/// How long a command line may take to be read; it can hang for as long as its process's memory
/// map is locked.
const CMDLINE_LIMIT: Duration = Duration::from_millis(20);

/// How long a marker may take to be read; it can hang for as long as the server of its file system
/// is away. Longer than a command line, as it tells more, and a busy machine can take its time to run
/// a thread.
const MARKER_LIMIT: Duration = Duration::from_millis(100);

/// How many of the later signals are listed, one by one, in the log, the record and the report;
/// the second and the third request always are. Whoever sends thousands gets a number.
const MAX_LISTED: usize = 32;

/// What tasks wait for.
#[derive(Debug, Default)]
pub(crate) struct StopState {
    /// Somebody asked, and the context is captured.
    pub(crate) begun: Option<Arc<Begun>>,
    /// The number of the words that log the context.
    words: u64,
    /// They have been said.
    said: bool,
    /// The same as `begun`, once that is so, the lead is over and the token is cancelled.
    pub(crate) announced: Option<Arc<Begun>>,
    /// Why the lead is over, once it is.
    lead_ended: Option<LeadEnd>,
    /// How long it lasted.
    led: Duration,
    /// A second signal came: only what has a reserve goes on.
    pub(crate) hurried: bool,
    /// How long the teardown may take instead, since systemd was asked for more.
    pub(crate) extended: Option<Duration>,
    /// Signals after the one that began the stop.
    pub(crate) later: Vec<LaterSignal>,
    /// How many more there were than are listed.
    unlisted: u64,
}

impl StopState {
    fn allowed(&self) -> Duration {
        let begun = self.begun.as_ref().map_or(Duration::ZERO, |begun| begun.allowed);
        self.extended.unwrap_or(begun)
    }

    /// Whether the next signal is listed.
    fn has_room(&self, ordinal: Option<u32>) -> bool {
        self.later.len() < MAX_LISTED || matches!(ordinal, Some(2 | 3))
    }

    /// Whether the service still goes on as before.
    fn is_leading(&self) -> bool {
        let leads = self.begun.as_ref().is_some_and(|begun| !begun.lead.is_zero());
        leads && self.announced.is_none() && self.lead_ended.is_none()
    }

    /// What a second signal does: it ends the lead where that lasts, else it asks for haste.
    /// Returns whether it was the lead.
    fn hurry(&mut self) -> bool {
        let leading = self.is_leading();
        match leading {
            true => self.lead_ended = Some(LeadEnd::Haste),
            false => self.hurried |= self.begun.is_some(),
        }
        leading
    }
}

/// Why a lead is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeadEnd {
    /// It has lasted as long as it was to.
    Over,
    /// A second signal asked for haste.
    Haste,
    /// The service has ended.
    Service,
    /// The token was cancelled.
    Token,
}

/// A stop that has begun.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) context: ShutdownContext,
    /// When it was asked for, by [`Stop::now`].
    pub(crate) at: Instant,
    /// How long it may take from then on, as it was decided at that time.
    pub(crate) allowed: Duration,
    /// Why so long.
    pub(crate) why: String,
    /// How long the service goes on as before, at most.
    pub(crate) lead: Duration,
}

/// Where a stop is told of, besides the log.
pub(crate) struct Outlets {
    pub(crate) black_box: BlackBox,
    pub(crate) notifier: Notifier,
    pub(crate) termination: Termination,
}

/// A signal, as whoever caught it knows it.
#[derive(Debug)]
pub(crate) struct Caught {
    pub(crate) captured: Captured,
    pub(crate) sender: Option<Sender>,
}

impl Caught {
    /// Adds what a line shows of the sender.
    pub(crate) fn of(captured: Captured) -> Self {
        Self { sender: Sender::glimpse(&captured), captured }
    }
}

/// See the module's documentation.
pub(crate) struct Stop {
    baseline: Baseline,
    config: Arc<Config>,
    pub(crate) black_box: BlackBox,
    pub(crate) voice: Voice,
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
    count: Mutex<SignalCount>,
    /// Never to be borrowed twice at once: a writer that waits in between stops both.
    state: watch::Sender<StopState>,
    /// The keeper's questions to the runtime, numbered, and the last one answered.
    questions: watch::Sender<u64>,
    answered: AtomicU64,
    /// The phases that run, and since when; numbered in the order in which they began.
    running: Mutex<BTreeMap<u64, Running>>,
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
        baseline: Baseline,
        config: Arc<Config>,
        outlets: Outlets,
        runtime: Handle,
    ) -> Self {
        let Outlets { black_box, notifier, termination } = outlets;
        let message = Message::new(termination, config.service.clone());
        Self {
            baseline,
            config,
            black_box,
            voice: Voice::new(),
            token: CancellationToken::new(),
            runtime,
            notifier,
            message,
            readiness: Arc::default(),
            unit: OnceLock::new(),
            claimed: AtomicBool::new(false),
            count: Mutex::default(),
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

    /// Records what began the stop, once; whoever else comes waits until it is written, so that
    /// no phase is recorded before it.
    pub(crate) fn record_begun(&self) {
        let begun = self.state.borrow().begun.clone();
        if let Some(begun) = begun {
            self.recorded_begun.get_or_init(|| {
                let stop_timeout = self.unit.get().map(|unit| unit.stop_timeout);
                self.black_box.begun(&begun.context, begun.allowed, begun.lead, stop_timeout);
            });
        }
    }

    /// Makes ready, on the thread that calls [`on_signal`](Self::on_signal), what the first one needs.
    pub(crate) fn rehearse(&self) {
        ShutdownContext::rehearse(&self.baseline);
    }

    /// Begins the stop, unless it has begun: captures the context, and tells whoever waits.
    /// `false` where somebody else was first, whose capture may still be under way.
    ///
    /// From any thread. Takes some 100 µs, and 20 ms more where a command line hangs, 100 ms for each
    /// marker that does.
    pub(crate) fn begin(self: &Arc<Self>, trigger: Trigger) -> bool {
        self.begin_at(self.now(), trigger, None)
    }

    fn begin_at(self: &Arc<Self>, at: Instant, trigger: Trigger, caught: Option<&Caught>) -> bool {
        if self.claimed.swap(true, Ordering::AcqRel) {
            return false;
        }
        let was_ready = self.readiness.end();
        let captured = caught.map(|caught| &caught.captured);
        let sender = caught.and_then(|caught| caught.sender.clone());
        // Needs a thread, which is done the sooner the sooner it begins.
        let cmdline = sender.as_ref().and_then(|sender| self.read_cmdline(sender));
        let mut context = ShutdownContext::capture_from(&self.baseline, trigger, captured, sender);
        if let Some(sender) = &mut context.sender
            && sender.process.cmdline.is_none()
        {
            let parent =
                context.parent.as_ref().filter(|parent| parent.is_same_as(&sender.process));
            sender.process.cmdline = match parent {
                Some(parent) => parent.cmdline.clone(),
                None => cmdline.and_then(|cmdline| sender_cmdline(sender, &cmdline)),
            };
        }
        context.markers = markers(&self.config.markers);
        let (allowed, why) = self.limit(&context);
        let lead = match context.trigger {
            // It is gone already.
            Some(Trigger::ServiceEnded { .. }) => Duration::ZERO,
            // Nobody was told to send it anything.
            _ if !was_ready => Duration::ZERO,
            _ => self.config.lead.min(allowed),
        };
        // Before anybody hears of it: the first line of a stop says who wants it.
        let first = context.clone();
        let stop = self.clone();
        let words = self.voice.leave(move || stop.announce(&first, lead));
        self.voice.come();
        context.complete(&self.baseline);
        let begun = Arc::new(Begun { context, at, allowed, why, lead });
        self.state.send_modify(|state| (state.begun, state.words) = (Some(begun), words));
        // The keeper holds the deadline from here on.
        capture::wake();
        true
    }

    /// Says the context, and lets the service go on to its end at once where there is no lead: who
    /// says it need not wake the listener first, to have it do that.
    fn announce(&self, context: &ShutdownContext, lead: Duration) {
        events::context(context);
        if lead.is_zero() {
            self.token.cancel();
        }
        self.state.send_if_modified(|state| {
            state.said = true;
            false
        });
    }

    /// Waits until the context of a stop that has begun is said, as [`Voice::assure`] does.
    pub(crate) fn assure_context(&self, begun: &Begun) {
        let number = self.state.borrow().words;
        self.voice.assure(number, || format!("Shutdown context: {}", begun.context));
    }

    /// Begins to read the command line of a sender that is there and is not our parent, whose we know.
    fn read_cmdline(&self, sender: &Sender) -> Option<Receiver<Option<String>>> {
        let parent = self.baseline.parent.as_ref();
        let is_parent = parent.is_some_and(|parent| parent.is_same_as(&sender.process));
        // A zombie's is empty: that spares the thread in most cases.
        if is_parent || sender.process.state == Some('Z') || !sender.is_still_there() {
            return None;
        }
        let pid = sender.process.pid;
        bounded::start(move || process::cmdline(pid)).ok()
    }

    /// How long a teardown may take that this context began, and why so.
    ///
    /// systemd's stop timeout counts where systemd may be the one who stops us, and where it hears
    /// of the teardown by `STOPPING=1`: a kill(1) by itself starts no timeout. A grace period that
    /// we were told of counts for every signal, as nothing tells for sure who would wait for it.
    fn limit(&self, context: &ShutdownContext) -> (Duration, String) {
        let configured = self.config.deadline();
        let by_systemd = matches!(context.cause(), Cause::Systemd | Cause::Reboot | Cause::Unknown);
        let told =
            self.notifier.is_connected() && self.unit.get().is_some_and(|unit| unit.heeds_us);
        let by_unit = self.granted().filter(|_| by_systemd || told);
        let by_unit = by_unit.map(|(granted, _)| (granted, "the unit's stop timeout"));
        let by_grace = self.config.grace.filter(|_| context.signal().is_some());
        let by_grace = by_grace.map(|granted| (granted, "the grace period"));
        let shortest = [by_unit, by_grace].into_iter().flatten().min();
        if let Some((granted, whose)) = shortest {
            let margin = safety_margin(granted);
            let allowed = granted - margin;
            if allowed < configured {
                let [allowed_s, granted_s, margin_s] = [allowed, granted, margin].map(Seconds);
                let why = format!("deadline {allowed_s}: {whose} of {granted_s} less {margin_s}");
                return (allowed, why);
            }
        }
        (configured, format!("deadline {}", Seconds(configured)))
    }

    /// Notes what systemd has said of our unit; the first word counts.
    pub(crate) fn set_unit(&self, unit: Unit) {
        let _ = self.unit.set(unit);
    }

    /// The unit's stop timeout, where it is known and finite, and what of it is kept back.
    pub(crate) fn granted(&self) -> Option<(Duration, Duration)> {
        let granted = self.unit.get()?.stop_timeout.to_std()?;
        Some((granted, safety_margin(granted)))
    }

    /// How far the deadline may be moved by asking systemd for more time; `None` where the user
    /// does not want that, systemd would not heed us, or there is nothing to gain.
    pub(crate) fn ceiling(&self) -> Option<Duration> {
        let grace = self.config.grace.map_or(Duration::MAX, |grace| grace - safety_margin(grace));
        let ceiling = self.config.extend_ceiling?.min(self.config.deadline()).min(grace);
        let heeded = self.unit.get()?.heeds_us && self.notifier.is_connected();
        (heeded && ceiling > self.allowed()).then_some(ceiling)
    }

    /// Moves the deadline.
    pub(crate) fn extend(&self, allowed: Duration) {
        self.state.send_modify(|state| state.extended = Some(allowed));
    }

    /// When the handler took this down, by [`now`](Self::now).
    pub(crate) fn time_of(&self, captured: &Captured) -> Instant {
        let since = clock::mono_us().saturating_sub(captured.mono_ns / 1000);
        let now = self.now();
        now.checked_sub(Duration::from_micros(since)).unwrap_or(now)
    }

    /// Takes in a signal that came then. Returns whether it asks for an end at once.
    ///
    /// Not a task's: it waits for the disk, though not for long.
    pub(crate) fn on_signal(self: &Arc<Self>, caught: &Caught, at: Instant) -> bool {
        let count = || self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let ordinal = count().add(at);
        let signal = caught.captured.signal;
        if ordinal == Some(1) && self.begin_at(at, Trigger::Signal { signal }, Some(caught)) {
            if self.black_box.records() {
                let stop = self.clone();
                bounded_or_here(RECORD_LIMIT, move || stop.record_begun());
            }
            return false;
        }
        let escalation = self.config.escalation;
        let is_listed = self.state.borrow().has_room(ordinal);
        if is_listed {
            let mut later = self.later(caught, ordinal, at);
            self.state.send_modify(|state| {
                let cuts = escalation == Escalation::CutThenExit && ordinal >= Some(2);
                later.ended_lead = cuts && state.hurry();
                state.later.push(later.clone());
            });
            let (stop, requests) = (self.clone(), count().requests);
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

    fn later(&self, caught: &Caught, ordinal: Option<u32>, at: Instant) -> LaterSignal {
        let (signal, mut sender) = (caught.captured.signal, caught.sender.clone());
        if let Some(sender) = &mut sender {
            sender.complete();
        }
        let state = self.state.borrow();
        // Absent only while another thread is still capturing the context of a request.
        let began = state.begun.as_ref().map_or(at, |begun| begun.at);
        let offset = at.saturating_duration_since(began);
        LaterSignal { signal, sender, ordinal, offset, ended_lead: false }
    }

    /// Ends the lead or cuts the running phase short, as a second signal does. Without effect before
    /// a stop has begun.
    pub(crate) fn hurry(&self) {
        self.state.send_modify(|state| {
            state.hurry();
        });
    }

    /// Ends the lead, where that lasts.
    pub(crate) fn end_lead(&self, why: LeadEnd) {
        self.state.send_modify(|state| {
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
        self.state.send_modify(|state| state.announced.clone_from(&state.begun));
    }

    /// Notes how long the lead lasted.
    pub(crate) fn set_led(&self, led: Duration) {
        self.state.send_modify(|state| state.led = led);
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

    /// When a stop that has begun must have ended.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let state = self.state.borrow();
        let begun = state.begun.as_ref()?;
        begun.at.checked_add(state.allowed())
    }

    /// How long it may take in all, as it stands now; zero before it has begun.
    pub(crate) fn allowed(&self) -> Duration {
        self.state.borrow().allowed()
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

    /// Notes that a phase runs until the returned value is dropped.
    pub(crate) fn note_running(self: &Arc<Self>, phase: &str, recorded: Arc<Recorded>) -> Noted {
        let phase = Running { phase: phase.to_owned(), since: self.now(), recorded };
        let mut running = self.lock_running();
        let number = running.last_key_value().map_or(0, |(last, _)| last + 1);
        running.insert(number, phase);
        drop(running);
        self.note_phases_changed();
        Noted { stop: self.clone(), number }
    }

    /// The phases that run.
    pub(crate) fn running(&self) -> Vec<Running> {
        self.lock_running().values().cloned().collect()
    }

    /// Notes that a phase got something done.
    pub(crate) fn note_progress(&self) {
        self.progress.fetch_add(1, Ordering::Relaxed);
    }

    /// A number that has grown since it was last asked for if a phase got something done.
    pub(crate) fn progress(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    fn note_phases_changed(&self) {
        self.note_progress();
        self.message.note_change();
        self.phases_changed.notify_one();
    }

    /// Waits until a phase begins or ends; for one waiter. Cancel safe.
    pub(crate) async fn phases_changed(&self) {
        self.phases_changed.notified().await;
    }

    fn lock_running(&self) -> MutexGuard<'_, BTreeMap<u64, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records how the teardown ended.
    pub(crate) fn record_end(&self, report: &ShutdownReport) {
        let how = match () {
            () if report.is_failed() => How::Failed,
            () if report.timed_out => How::TimedOut,
            () => How::Clean,
        };
        self.black_box.stopped(how, report.exit_status, report.total, report.more_signals);
        let error = report.is_failed().then(|| report.failure());
        let (status, total, timed_out) = (report.exit_status, report.total, report.timed_out);
        let error = error.as_deref();
        let state = State::Ended { status, total, timed_out, error };
        self.message.close(|| self.standing(), state);
    }

    /// Records that it ends by force.
    pub(crate) fn record_forced(&self, by: ForcedBy, why: &str, status: u8) {
        let more = self.unlisted_signals();
        self.black_box.forced(by, why.to_owned(), status, self.since_begun(), more);
    }

    /// How it stands, for the termination message.
    pub(crate) fn standing(&self) -> Standing {
        let (running, now) = (self.running().into_iter(), self.now());
        let ran = |since| now.saturating_duration_since(since);
        Standing {
            begun: self.state.borrow().begun.clone(),
            running: running.map(|one| (one.phase, ran(one.since))).collect(),
            since: self.since_begun(),
            allowed: self.allowed(),
        }
    }

    /// Records that a panic ends the process.
    pub(crate) fn record_panic(&self, message: &str, location: Option<&str>) {
        self.message.close(|| self.standing(), State::Panicked { message, location });
        let location = location.map(str::to_owned);
        self.black_box.panicked(message.to_owned(), location, self.since_begun());
        self.message.finish();
    }

    /// The guard goes while its teardown has not ended: `main` returned early, or panics.
    pub(crate) fn abandoned(&self) {
        if self.finished.swap(true, Ordering::AcqRel) {
            return;
        }
        match std::thread::panicking() {
            true => {
                let (message, location) = panics::last();
                self.record_panic(&message, location.as_deref());
            }
            false => {
                let more = self.unlisted_signals();
                self.message.close(|| self.standing(), State::Abandoned);
                self.black_box.stopped(How::Clean, 0, self.since_begun(), more);
                self.message.finish();
            }
        }
    }

    /// Records that the phases in question, or the runtime where there are none, do not move.
    pub(crate) fn record_wedged(
        &self,
        phases: &[(String, Duration)],
        waited: Duration,
        detail: &str,
    ) {
        if phases.is_empty() {
            self.black_box.wedged(None, waited, detail);
        }
        for (phase, ran) in phases {
            self.black_box.wedged(Some(phase), *ran, detail);
        }
    }

    /// How long ago the stop began; zero where it has not.
    pub(crate) fn since_begun(&self) -> Duration {
        let began = self.state.borrow().begun.as_ref().map(|begun| begun.at);
        began.map_or(Duration::ZERO, |began| self.now().saturating_duration_since(began))
    }

    /// Takes it on to end this stop, and to record that: `false` where somebody else has. The
    /// teardown does at its end, the keeper where it waits no longer; only one end is told.
    pub(crate) fn claim_end(&self) -> bool {
        self.ended.set(self.now()).is_ok()
    }

    /// When somebody did.
    pub(crate) fn ended(&self) -> Option<Instant> {
        self.ended.get().copied()
    }

    /// The teardown has ended.
    pub(crate) fn set_finished(&self) {
        self.finished.store(true, Ordering::Release);
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Acquire)
    }

    /// The process is about to end, and the keeper sees to it that it does.
    pub(crate) fn expect_exit(&self) {
        self.exit_expected.get_or_init(|| self.now());
    }

    /// Since when the process is about to end.
    pub(crate) fn exit_expected(&self) -> Option<Instant> {
        self.exit_expected.get().copied()
    }

    pub(crate) fn flush_hooks(&self) -> Vec<FlushHook> {
        self.config.flush.0.clone()
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

/// What systemd has said of our unit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unit {
    pub(crate) stop_timeout: Timespan,
    /// Whether it takes what this process tells it by sd_notify.
    pub(crate) heeds_us: bool,
}

/// A phase that runs.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    pub(crate) phase: String,
    pub(crate) since: Instant,
    pub(crate) recorded: Arc<Recorded>,
}

/// See [`Stop::note_running`].
pub(crate) struct Noted {
    stop: Arc<Stop>,
    number: u64,
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.stop.lock_running().remove(&self.number);
        self.stop.note_phases_changed();
    }
}

/// Counts requests to stop.
#[derive(Debug, Default)]
struct SignalCount {
    requests: u32,
    /// When the last signal came.
    last: Option<Instant>,
}

impl SignalCount {
    fn add(&mut self, at: Instant) -> Option<u32> {
        let repeated =
            self.last.is_some_and(|last| at.saturating_duration_since(last) < SAME_REQUEST);
        self.last = Some(at);
        if repeated {
            return None;
        }
        self.requests = self.requests.saturating_add(1);
        Some(self.requests)
    }
}

/// The sender's command line, if it can be had at once and is surely the sender's.
fn sender_cmdline(sender: &Sender, read: &Receiver<Option<String>>) -> Option<String> {
    let cmdline = read.recv_timeout(CMDLINE_LIMIT).ok().flatten();
    cmdline.filter(|_| sender.is_still_there())
}

/// The markers that are there, and can be had at once.
fn markers(named: &[(String, PathBuf)]) -> Vec<Marker> {
    let us = std::process::id();
    let read = |(name, path): (String, PathBuf)| {
        bounded(MARKER_LIMIT, move || marker::read(&name, &path, us)).flatten()
    };
    named.iter().cloned().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_within_200_ms_of_each_other_are_one_request() {
        let mut count = SignalCount::default();
        let start = Instant::now();
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
            assert_eq!(count.add(start + Duration::from_millis(ms)), ordinal, "at {ms} ms");
        }
    }
}
