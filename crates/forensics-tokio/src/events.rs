//! The log: every event of the target `shutdown` is in this file.
//!
//! A line of text shows each fact once, and so does JSON: see `in_message` in [`crate::sinks`]. In messages,
//! text of other processes and of the service is escaped. In string fields it is not, because every
//! subscriber that shows a field escapes it itself: `fmt` by `Debug`, JSON by its format, and the
//! journal by its binary form. Only a name that needs no quotes is recorded by its `Display`, so
//! that `fmt` shows it without quotes (see [`named`]).

use std::io;
use std::path::Path;
use std::time::Duration;

use forensics_core::capture::Signal;
use forensics_core::context::{ShutdownContext, Trigger};
use forensics_core::escape::Escaped;
use forensics_core::logfmt::Value;
use forensics_core::record::{ExitKind, Explained, Loss, PostMortem, values_line};
use forensics_core::signal_delivery::Obstacle;
use forensics_core::systemd::Finding;
use tracing::Span;
use tracing::field::display;

use crate::diagnostic::DiagError;
use crate::machine::{Effect, LogEvent, Offset, PhaseKey, Seconds};
use crate::outcome::Outcome;
use crate::report::micros;
use crate::report::{PhaseReport, RepeatedSignal, ShutdownReport};
use crate::sinks::{self, event, named};
use crate::spans::Spans;

/// Defines a function for each event. The lines after its arguments have the level, and then what
/// [`event!`] expects: the name in `tracing`, the message, and the fields.
macro_rules! events {
    ($(
        $(#[$doc:meta])*
        $visibility:vis fn $function:ident($($argument:ident: $type:ty),*) => $level:ident $event:tt;
    )*) => {$(
        $(#[$doc])*
        $visibility fn $function($($argument: $type),*) {
            event!($level $event);
        }
    )*};
}

events! {
    /// systemd reported why it stops us.
    fn explained(why: &Explained, unit: Option<&str>) =>
        info("stop_explained", ["Shutdown explained by systemd: {}", why.detail], {
            cause = named(&why.cause),
            unit = unit,
            reason = named(&why.reason),
            units = (!why.units.is_empty()).then(|| why.units.join(" ")),
            basis = display(&why.basis),
        });

    /// systemd did not report why it stops us.
    pub(crate) fn unexplained(why: &str) =>
        info("stop_unexplained", ["Shutdown not explained by systemd: {}", Escaped(why)]);

    /// There were signals that have no log line. `more` is their number.
    pub(crate) fn unlisted_signals(more: u64) =>
        warn("more_signals", ["{more} more signals arrived"],
            short ["More signals arrived than are listed"], in_message { more = more });

    /// The record is missing or has gaps.
    pub(crate) fn not_recorded(why: &str) =>
        warn("not_recorded", ["Not all of this run is recorded: {}", Escaped(why)]);

    /// The old records could not be removed.
    pub(crate) fn records_not_removed(why: &str) =>
        warn("records_not_removed",
            ["Old records are not removed: {}; this run is recorded", Escaped(why)]);

    /// A record newer than the one that was reported as the previous run cannot be read.
    pub(crate) fn previous_unreadable(why: &str) =>
        warn("previous_unreadable", ["A newer record cannot be read, so the previous run may be another one: {}", Escaped(why)]);

    fn record_written_again(record: &str, why: Loss) =>
        info("record_restored", ["The record has been written again, \
            because {why} while the service ran"], { record = named(record) });

    fn shared_record_dir(dir: &str, others: &str) =>
        warn("record_dir_shared",
            ["The record folder is shared with {}: give each service and each replica its own folder",
                Escaped(others)],
            short ["The record folder is shared: give each service and each replica its own folder"],
            in_message { others = others },
            { dir = named(dir) });

    /// The termination message is missing, or the last one could not be written.
    pub(crate) fn no_termination_message(why: &str) =>
        warn("no_termination_message",
            ["Termination message missing or incomplete: {}", Escaped(why)]);

    /// The service manager's socket cannot be used.
    pub(crate) fn not_notified(why: &str) =>
        warn("not_notified", ["Service manager not notified: {}", Escaped(why)]);

    /// The unit has a watchdog, but the guard is not configured to feed it.
    pub(crate) fn watchdog_not_fed(every: Duration) =>
        info("watchdog_not_fed", ["WatchdogSec={every:?} is not fed by the guard: call \
            Builder::watchdog(true), or send WATCHDOG=1 from a check of your own"]);

    /// systemd is asked for more time.
    pub(crate) fn extending(granted: Duration, ceiling: Duration) =>
        info("stop_timeout_extended", ["Phases make progress: systemd is asked to restart its stop \
            timeout of {}, up to {} in all", Seconds(granted), Seconds(ceiling)]);

    /// There are `FORENSICS_` variables, and this program has rights that its caller lacks.
    pub(crate) fn environment_not_trusted() =>
        warn("environment_not_trusted", ["The FORENSICS_ variables are ignored: this program is \
            set-user-ID or set-group-ID, or its file has capabilities, so its caller may have fewer \
            rights; fix: set them in the program, or give the unit AmbientCapabilities="]);

    /// SIGHUP was ignored when the guard was installed.
    pub(crate) fn hangup_stays_ignored() =>
        info("hangup_ignored",
            ["SIGHUP stays ignored: it was ignored at the start, as by nohup(1)"]);

    /// One of the guard's signals may not reach it.
    pub(crate) fn signal_unheard(signal: Signal, why: &Obstacle) =>
        warn("signal_unheard", ["{signal} {why}"], short ["A signal of the guard {why}"],
            in_message { signal = display(signal) });

    /// Something else in this program also listens for SIGINT.
    pub(crate) fn signal_shared() =>
        warn("signal_shared", ["Something else in this program also listens for SIGINT through \
            tokio::signal, as actix-web does without disable_signals(), and as tokio::signal::ctrl_c() does: \
            if it stops the service, requests can be lost; fix: turn it off there, and stop the service by \
            the guard's token or in a phase"]);

    /// One of the guard's signals was blocked when the guard was installed.
    pub(crate) fn signal_unblocked(signal: Signal) =>
        info("signal_unblocked",
            ["{signal} was blocked in every thread that can be seen, as in a process that is started \
                with it blocked: unblocked in this thread"],
            short ["A signal was blocked in every thread that can be seen, as in a process that is \
                started with it blocked: unblocked in this thread"],
            in_message { signal = display(signal) });

    /// SIGPIPE has its default action.
    pub(crate) fn broken_pipes_kill() =>
        warn("broken_pipes_kill", ["SIGPIPE has its default action: a write to a pipe or socket \
            without a reader ends the process, and no teardown runs; fix: ignore SIGPIPE, as Rust does. \
            The guard ignores it from the beginning of a stop on"]);

    /// A shell is process 1 and our parent.
    pub(crate) fn shell_is_process_one(shell: &str) =>
        warn("shell_is_process_one", ["Process 1, our parent, is a shell ({}) without a handler for \
            SIGTERM: a SIGTERM to process 1, which is how a container is stopped, has no effect, and \
            SIGKILL follows; fix: start this program with `exec`", Escaped(shell)]);

    /// A signal that the unit sends does not do what it should. The fix contains settings to copy, so it
    /// is not escaped.
    pub(crate) fn unit_signal(unit: &str, found: &Finding) =>
        warn("unit_signal",
            ["{}; fix: {}", found.what, found.fix.as_deref().unwrap_or_default()],
            { unit = unit });

    /// The kernel refused a request of [`low_latency`](crate::low_latency) that the operator or the
    /// program had configured.
    pub(crate) fn no_low_latency_capture(error: &io::Error) =>
        info("no_low_latency_capture",
            ["The kernel refused the short time slice for low_latency_capture: {error}"]);

    /// A phase was registered wrongly.
    pub(crate) fn registration_error(what: &str) =>
        error("registration_error", ["{}", Escaped(what)]);

    fn diagnostic_finished(log: &str) =>
        info("diagnostic_finished", ["Diagnostic written"], { log = named(log) });

    fn diagnostic_elsewhere(log: &str, unit: &str) =>
        info("diagnostic_elsewhere",
            ["Diagnostic continues in its own unit"],
            { log = named(log), unit = unit });

    fn diagnostic_failed(log: &str, why: &str) =>
        warn("diagnostic_failed", ["Diagnostic failed: {}", Escaped(why)], { log = named(log) });

    /// The diagnostic failed, and the start has already warned that the log cannot be opened.
    fn diagnostic_failed_as_expected(log: &str, why: &str) =>
        info("diagnostic_failed", ["Diagnostic failed: {}", Escaped(why)], { log = named(log) });

    /// The diagnostic's log cannot be opened at the start.
    pub(crate) fn no_diagnostic_log(why: &str) =>
        warn("no_diagnostic_log", ["No diagnostic can be written: {}", Escaped(why)]);

    /// systemd's stop timeout is too short. The advice is our own text and contains a command to copy, so
    /// it is not escaped.
    pub(crate) fn misaligned(advice: &str) =>
        warn("stop_timeout_short", ["{advice}"]);

    /// The default stop timeout of the platform is too short. The advice is our own text.
    pub(crate) fn platform_timeout_short(advice: &str) =>
        warn("platform_timeout_short", ["{advice}"]);

    /// systemd's stop timeout is long enough.
    pub(crate) fn aligned(summary: &str) =>
        info("stop_timeout_aligned", ["{summary}"]);

    /// systemd's stop timeout is not known.
    pub(crate) fn alignment_unknown(why: &str) =>
        info("stop_timeout_unknown", ["Stop timeout not checked: {}", Escaped(why)]);

    fn impossible_reserves(sum: &str) =>
        error("impossible_reserves", ["Phases reserve more time than the deadline allows: {sum}"]);

    fn delay_started(delay: Duration) =>
        info("lead_started",
            ["Pre-stop delay of {}: not ready any more, still serving", Seconds(delay)]);

    fn delay_ended(lasted: Duration, why: &str) =>
        info("lead_ended", ["+{} Pre-stop delay over{why}", Offset(lasted)]);

    fn teardown_started(deadline: &str, sum: &str) =>
        info("teardown_started", ["Teardown started ({deadline}): {sum}"]);

    fn deadline_moved(by: &str, deadline: &str) =>
        info("deadline_moved", ["Deadline moved by {by} ({deadline})"]);

    fn phase_started(span: Span, phase: &str, offset: Duration, budget: Duration) =>
        debug("phase_started",
            ["+{} phase started", Offset(offset)], in span,
            { phase = named(phase), budget = display(Seconds(budget)) });

    fn phase_still_running(
        span: Span, phase: &str, offset: Duration, elapsed: Duration, budget: Duration,
        last: Option<String>
    ) =>
        warn("phase_still_running",
            ["+{} phase still running", Offset(offset)], in span,
            { phase = named(phase), elapsed = display(Seconds(elapsed)), budget = display(Seconds(budget)), last_recorded = last });

    fn phase_waits(span: Span, phase: &str, offset: Duration, what: &str) =>
        info("phase_waits",
            ["+{} phase waits", Offset(offset)], in span,
            { phase = named(phase), waits_for = what });

    fn service_dropped_after_drain(phase: &str) =>
        warn("service_dropped", ["The service's future did not end while \
            phase {} waited for it, and is dropped", Escaped(phase)]);

    fn service_dropped(waited: Duration) =>
        warn("service_dropped", ["The service's future did not end \
            after the last phase and is dropped: let it end when the guard's token is cancelled, and wait \
            for that in a phase (service_ended)"], { waited = display(Seconds(waited)) });

    fn diagnostic_left_behind() =>
        warn("diagnostic_left_behind",
            ["Diagnostic still running at the deadline: not waited for"]);

    fn stalled(detail: &str) =>
        warn("shutdown_hangs", ["Shutdown stalled: {detail}"]);

    fn forced(detail: &str, status: u8) =>
        error("shutdown_forced", ["Shutdown forced: {detail}"], { exit_status = status });

    fn service_failed(offset: Duration, outcome: &str, error: &str) =>
        error("service_failed", ["+{} The service has {outcome}", Offset(offset)],
            short ["+{} The service has ended with an error", Offset(offset)],
            in_message { outcome = outcome }, { error = error });

    fn abandoned(what: &str, phases: Option<String>) =>
        warn("abandoned", ["{what}"], { unfinished = phases });

    fn panicked(message: &str, location: Option<&str>, phases: Option<String>) =>
        error("panicked", ["A panic ends the run before its teardown has ended"],
            { panic = message, location = location, unfinished = phases });
}

/// The settings that the operator made through environment variables.
pub(crate) fn configured(settings: &[(&'static str, String)]) {
    let show = |(variable, value): &(_, String)| format!(" {variable}={}", Value(value));
    let settings: String = settings.iter().map(show).collect();
    event!(info("configured", ["Configured by the environment:{settings}"]));
}

/// An environment variable that looks like a setting but is not one.
pub(crate) fn not_a_setting(variable: &str, nearest: Option<&str>) {
    let meant = nearest.map(|nearest| format!("; did you mean {nearest}?")).unwrap_or_default();
    event!(warn(
        "not_a_setting",
        [
            "{} in the environment is not a setting of the guard and has no effect{meant}",
            Escaped(variable)
        ]
    ));
}

/// `Shutdown context: …`, the first line of a stop.
fn context(context: &ShutdownContext) {
    let sender = context.sender.as_ref();
    let who = sender.map(|sender| &sender.process);
    let parent = context.parent.as_ref();
    let pod = context.pod.as_ref().map(ToString::to_string);
    let markers =
        context.markers.iter().map(|marker| format!("{}={}", marker.name, marker.target.as_str()));
    let markers = (!context.markers.is_empty()).then(|| markers.collect::<Vec<_>>().join(" "));
    let (mut reason, mut error) = (None, None);
    match &context.trigger {
        Some(Trigger::Request { reason: text }) => reason = Some(text.as_str()),
        Some(Trigger::ServiceEnded { error: text }) => error = text.as_deref(),
        _ => {}
    }
    // The level is part of the metadata, which is static, so each level has its own event.
    macro_rules! context {
        ($level:ident) => {
            event!($level(
                "shutdown_context", ["Shutdown context: {context}"], short ["Shutdown context:"], in_message {
                    signal = context.signal().map(display),
                    cause = display(context.cause()),
                    reason = reason,
                    error = error,
                    evidence = context.evidence(),
                    under_systemd = context.under_systemd,
                    unit = context.systemd.unit.as_ref().map(|unit| unit.unit.as_str()),
                    sender_pid = who.map(|who| who.pid),
                    sender_name = who.map(|who| who.name.as_deref().unwrap_or("?")),
                    sender_uid = who.and_then(|who| who.uid),
                    sender_user = sender.and_then(|sender| sender.user.as_deref()),
                    sender_parent = sender.and_then(|sender| sender.parent()).map(display),
                    sender_cmdline = who.and_then(|who| who.cmdline.as_deref()),
                    parent_pid = parent.map(|parent| parent.pid),
                    parent_name = parent.and_then(|parent| parent.name.as_deref()),
                    parent_cmdline = parent.and_then(|parent| parent.cmdline.as_deref()),
                    // Rounded, because a subscriber gets an `f64`, in which 0.42 is 0.4199999869.
                    loadavg_1m = context.load.map(|[one, ..]| (f64::from(one) * 100.0).round() / 100.0),
                    sender_forwards = sender.and_then(|sender| sender.forwards.then_some(true)),
                    pod = pod.as_deref().map(named),
                    platform = context.platform.as_deref().map(named),
                    tracer_pid = context.process.tracer_pid,
                    markers = markers.as_deref(),
                }
            ))
        };
    }
    if error.is_some() { context!(error) } else { context!(info) }
}

/// A signal after the one that began the stop.
fn repeated(repeated: &RepeatedSignal, effect: Effect) {
    let who = repeated.sender.as_ref().map(|sender| &sender.process);
    let offset = Offset(repeated.received_after);
    event!(warn(
        "later_signal",
        ["+{offset} another {}: {}", repeated.signal, effect.text()],
        short ["+{offset} another signal: {}", effect.text()],
        in_message { signal = display(repeated.signal) },
        {
            cause = display(repeated.cause),
            sender_pid = who.map(|who| who.pid),
            sender_name = who.map(|who| who.name.as_deref().unwrap_or("?")),
            sender_uid = who.and_then(|who| who.uid),
        }
    ));
}

/// The teardown has ended.
pub(crate) fn complete(report: &ShutdownReport) {
    macro_rules! complete {
        ($level:ident) => {
            event!($level("shutdown_complete", ["+{} Shutdown complete", Offset(report.total)], {
                cause = display(report.cause()),
                reason = report.explained.as_ref().map(|why| named(&why.reason)),
                outcome = display(report.how),
                phases = report.phases.len(),
                timed_out = report.timed_out,
                total_usec = micros(report.total),
                exit_status = report.exit_status,
                exit_signal = report.exit_signal.map(display),
            }))
        };
    }
    match report.how {
        ExitKind::Clean => complete!(info),
        ExitKind::TimedOut | ExitKind::CutShort => complete!(warn),
        _ => complete!(error),
    }
}

impl Effect {
    fn text(self) -> &'static str {
        match self {
            Effect::SameRequest => "belongs to the same request",
            Effect::FirstSignal => "the stop has already begun",
            Effect::Nothing => "the teardown goes on as before",
            Effect::EndsDelay => "the pre-stop delay is over, and the teardown begins",
            Effect::CutsShort => {
                "the running phase is cut short, and only phases with a reserve run after it"
            }
            Effect::EndsProcess => "the process ends at once",
        }
    }
}

/// How the previous run ended, by its record.
pub(crate) fn previous(post_mortem: &PostMortem) {
    previous_run("Previous run", post_mortem);
}

/// The same, with what witnesses say.
pub(crate) fn previous_explained(post_mortem: &PostMortem) {
    previous_run("Previous run, with what others report", post_mortem);
}

fn previous_run(what: &str, post_mortem: &PostMortem) {
    let phase = post_mortem.phases.first().map(|open| open.phase.as_str());
    let sender = post_mortem.sender.as_ref();
    macro_rules! previous {
        ($level:ident) => {
            event!($level(
                "previous_run", ["{what}: {post_mortem}"], short ["{what}:"], in_message {
                    outcome = display(post_mortem.outcome),
                    phase = phase,
                    after_phase = post_mortem.after_phase.as_deref(),
                    previous_signal = post_mortem.signal.as_deref(),
                    previous_cause = post_mortem.cause.as_deref(),
                    previous_sender_pid = sender.map(|sender| sender.pid),
                    previous_sender_name = sender.and_then(|sender| sender.name.as_deref()),
                    previous_exit_code = post_mortem.exit_code,
                    previous_exit_signal = post_mortem.exit_signal.as_deref(),
                    reason = display(post_mortem.reason),
                    previous_pid = post_mortem.pid,
                    evidence = post_mortem.evidence.as_str(),
                    advice = post_mortem.advice.as_deref(),
                }
            ))
        };
    }
    if post_mortem.is_clean() { previous!(info) } else { previous!(warn) }
}

/// The record was lost while the service ran, and has been written again.
pub(crate) fn record_restored(record: &Path, why: Loss) {
    record_written_again(&record.to_string_lossy(), why);
}

/// Other services or replicas write to the record's folder, too.
pub(crate) fn record_dir_shared(dir: &Path, others: &[String]) {
    /// How many of them are named.
    const MAX_OTHERS: usize = 5;
    let mut named = others[..others.len().min(MAX_OTHERS)].join(", ");
    if let Some(more) = others.len().checked_sub(MAX_OTHERS).filter(|&more| more > 0) {
        named.push_str(&format!(" and {more} more"));
    }
    shared_record_dir(&dir.to_string_lossy(), &named);
}

/// The diagnostic is complete, continues in a transient unit, or failed.
/// `is_known`: the start has already warned that the log cannot be opened.
pub(crate) fn diagnostic_ended(
    log: &Path,
    ended: Result<Option<String>, DiagError>,
    is_known: bool,
) {
    let log = log.to_string_lossy();
    match ended {
        Ok(None) => diagnostic_finished(&log),
        Ok(Some(unit)) => diagnostic_elsewhere(&log, &unit),
        Err(e) if is_known => diagnostic_failed_as_expected(&log, &e.to_string()),
        Err(e) => diagnostic_failed(&log, &e.to_string()),
    }
}

/// Emits an event of the machine.
pub(crate) fn emit(event: LogEvent, spans: &Spans) {
    match event {
        LogEvent::Context(about) => context(&about),
        LogEvent::Repeated(signal, effect) => repeated(&signal, effect),
        LogEvent::ImpossibleReserves(sum) => impossible_reserves(&sum),
        LogEvent::DelayStarted(delay) => delay_started(delay),
        LogEvent::DelayEnded(lasted, why) => delay_ended(lasted, why),
        LogEvent::TeardownStarted { sum, deadline } => teardown_started(&deadline, &sum),
        LogEvent::DeadlineMoved { by, deadline } => deadline_moved(by, &deadline),
        LogEvent::StopExplained { why, unit } => explained(&why, unit.as_deref()),
        LogEvent::RegistrationError(what) => registration_error(&what),
        LogEvent::PhaseStarted { phase, offset, budget } => {
            phase_started(span_of_event(spans, &phase), &phase.name, offset, budget);
        }
        LogEvent::PhaseWaits { phase, offset, what } => {
            phase_waits(span_of_event(spans, &phase), &phase.name, offset, &what);
        }
        LogEvent::PhaseStillRunning { phase, offset, elapsed, budget, last_value } => {
            let span = span_of_event(spans, &phase);
            phase_still_running(span, &phase.name, offset, elapsed, budget, last_value);
        }
        LogEvent::PhaseFinished { phase, report } => {
            let span = spans.take(&phase);
            if sinks::shows_spans() {
                return phase_finished(span, &report);
            }
            span.record("outcome", display(report.outcome));
            if let Some(error) = &report.error {
                span.record("error", error);
            }
            phase_finished(spans.outer(), &report);
        }
        LogEvent::ServiceFailed { offset, outcome, error } => {
            service_failed(offset, outcome, &error);
        }
        LogEvent::Abandoned { what, phases } => abandoned(what, phases),
        LogEvent::Panicked { panic, phases } => {
            panicked(&panic.message, panic.location.as_deref(), phases);
        }
        LogEvent::ServiceDropped(waited, None) => service_dropped(waited),
        LogEvent::ServiceDropped(_, Some(by)) => service_dropped_after_drain(&by),
        LogEvent::DiagnosticLeftBehind => diagnostic_left_behind(),
        LogEvent::Stalled(detail) => stalled(&detail),
        LogEvent::Forced(detail, status) => forced(&detail, status),
    }
}

/// The span that contains the events about a phase.
fn span_of_event(spans: &Spans, phase: &PhaseKey) -> Span {
    if sinks::shows_spans() { spans.phase(phase) } else { spans.outer() }
}

fn phase_finished(span: Span, report: &PhaseReport) {
    let offset = report.started_after + report.duration;
    let recorded = (!report.values.is_empty()).then(|| values_line(&report.values));
    macro_rules! finished {
        ($level:ident) => {
            event!($level("phase_finished", ["+{} phase finished", Offset(offset)], in span, {
                phase = named(&report.name),
                outcome = display(report.outcome),
                took = display(Seconds(report.duration)),
                offset_usec = micros(offset),
                error = report.error.as_deref(),
                recorded = recorded.as_deref(),
            }))
        };
    }
    match report.outcome {
        Outcome::Ok => finished!(info),
        Outcome::Skipped | Outcome::CutShort | Outcome::TimedOut => finished!(warn),
        _ => finished!(error),
    }
}
