//! The texts of the post-mortem: why a run ended as it did, the evidence for it, and what to
//! change.

use std::fmt::Display;

use super::post_mortem::{MAX_SHOWN, Span, phase_name};
use super::summary::{SLACK_US, Summary};
use super::verdict::Verdict;
use super::{
    ExitKind, ForcedBy, HostState, PhaseFinished, PhaseOutcome, PhaseStarted, ProcessState, Reason,
    RunOutcome, SignalEvent, SignalKind, StalledWhat,
};
use crate::basis::{Basis, Source};
use crate::duration::Timespan;
use crate::escape::{Escaped, truncate};

/// How many phases a text names.
const MAX_PHASES: usize = 16;

/// Evidence and advice. The advice can be empty.
type Texts = (String, String);

fn texts(evidence: impl Into<String>, advice: impl Into<String>) -> Texts {
    (evidence.into(), advice.into())
}

/// The verdict for an outcome, and the likely time of the kill on the monotonic clock.
pub(super) fn explain(
    outcome: RunOutcome,
    run: &Summary<'_>,
    host: &HostState,
) -> (Verdict, Option<u64>) {
    let timer = StopTimer::of(run);
    let verdict = match outcome {
        RunOutcome::Clean | RunOutcome::CutShort | RunOutcome::Failed | RunOutcome::Unknown => {
            recorded(Reason::Recorded, texts(ended(run), ""))
        }
        RunOutcome::TimedOut => recorded(Reason::Recorded, timed_out(run)),
        RunOutcome::Abandoned => recorded(Reason::Recorded, abandoned(run)),
        RunOutcome::Forced => recorded(Reason::Recorded, forced(run)),
        RunOutcome::Panicked => recorded(Reason::Panic, panicked(run)),
        RunOutcome::Running => {
            let evidence = if host.process == ProcessState::Alive {
                "its process lives: the same pid and start time"
            } else {
                "a living process holds the lock on its record"
            };
            let advice = format!("if it should have ended, look at process {}", run.start.pid);
            Verdict::new(Reason::Alive, Basis::observed(Source::Kernel), evidence, advice)
        }
        RunOutcome::MaybeAlive => {
            let basis = no_end().and("neither its process nor its lock can be seen from here");
            Verdict::new(Reason::Unknown, basis, not_visible(run), "")
        }
        RunOutcome::Rebooted => rebooted(run, host),
        RunOutcome::Vanished | RunOutcome::KilledInPhase | RunOutcome::KilledBeforeTeardown => {
            killed(run, host, timer.as_ref())
        }
    };
    let timer = timer.filter(|timer| timer.reason == verdict.reason());
    (verdict, timer.map(|timer| timer.over_us().max(run.last_us)))
}

/// A verdict that the run recorded itself.
fn recorded(reason: Reason, (evidence, advice): Texts) -> Verdict {
    Verdict::new(reason, Basis::observed(Source::Program), evidence, advice)
}

/// The basis of each verdict about a run that did not record its end.
fn no_end() -> Basis {
    Basis::inferred("its record has no end")
}

/// The same, and what had asked it to stop.
fn no_end_after(asked: Option<&SignalEvent>) -> Basis {
    no_end().and(match asked {
        Some(signal) => format!("{} had arrived", signal_from(signal)),
        None => "nothing in its record had asked it to stop".to_owned(),
    })
}

/// Why it is not known whether the run lives.
fn not_visible(run: &Summary<'_>) -> String {
    let host = run.start.host.as_deref().map(shown);
    let place = match &run.start.pod {
        Some(pod) => format!("pod {}", shown(pod)),
        None => format!("host or container {}", host.unwrap_or_else(|| "?".to_owned())),
    };
    format!(
        "its record has no end, and neither its process (pid {} in {place}) nor its lock can be \
         seen from here; it may still be alive",
        run.start.pid
    )
}

/// The evidence for a run that ended by itself.
fn ended(run: &Summary<'_>) -> String {
    let evidence = match (run.stopped.map(|stop| stop.how), bad_phases(run, |_| true)) {
        (Some(ExitKind::Other), _) => {
            "it ended by itself, in a way that this version does not know".to_owned()
        }
        (_, Some(bad)) => format!("it ended by itself, but {bad}"),
        (Some(ExitKind::Failed), None) => "it ended by itself, but the service failed".to_owned(),
        (_, None) => "it ended as planned".to_owned(),
    };
    evidence + &exit(run)
}

fn abandoned(run: &Summary<'_>) -> Texts {
    let (when, advice) = if run.asked.is_none() {
        let advice = "see what it logged last, most likely an error at its start; pass a service that \
                      ends by itself to run()";
        (
            "without a teardown, because nothing had requested one: main returned early",
            advice.to_owned(),
        )
    } else if run.teardown_began() {
        let advice = "wait for run(), and put no timeout of your own around it";
        ("in the middle of its teardown", format!("{}: {advice}", state(run)))
    } else {
        let when = "after the request to stop, before a phase had begun";
        (when, "wait for run()".to_owned())
    };
    texts(format!("its guard was dropped {when}"), advice)
}

fn timed_out(run: &Summary<'_>) -> Texts {
    let late = |phase: &PhaseFinished| {
        matches!(phase.outcome, PhaseOutcome::TimedOut | PhaseOutcome::Skipped)
    };
    if let Some(late) = bad_phases(run, late) {
        return texts(late, "raise the timeout, or find what the phase waited for");
    }
    let advice = match deadline(run) {
        Some(_) => "raise the deadline, or lower the phases' timeouts",
        None => "find what it waited for",
    };
    let deadline = optional(" of ", deadline(run));
    let evidence = format!("the teardown took longer than its deadline{deadline}");
    texts(evidence, format!("{}: {advice}", state(run)))
}

fn forced(run: &Summary<'_>) -> Texts {
    let (exit, deadline) = (exit(run), deadline(run));
    let (evidence, what_to_do) = match run.stopped.and_then(|stopped| stopped.forced_by) {
        Some(ForcedBy::NoExit) => {
            let evidence = format!("its teardown ended but the process did not{exit}");
            let advice = "a blocked thread keeps the runtime from ending: see what each thread waited for \
                          in the record's last line";
            return texts(evidence, advice);
        }
        Some(ForcedBy::Deadline) => {
            let of = optional(" of ", deadline);
            let evidence = format!("the deadline{of} passed before the teardown ended");
            (evidence, "find what blocks its thread".to_owned())
        }
        _ => {
            let evidence = match run.asked_last.filter(|signal| signal.ordinal > 1) {
                Some(last) => {
                    let from = signal_from(last);
                    format!("stop request number {}, {from}, ended it at once", last.ordinal)
                }
                None => "it was ended at once".to_owned(),
            };
            let wait = match deadline {
                Some(deadline) => format!("wait for its deadline of {deadline}"),
                None => "wait for its end".to_owned(),
            };
            (evidence, format!("{wait} before you send another signal"))
        }
    };
    let (state, timeouts) = (state(run) + &stalled(run), timeouts(run));
    texts(evidence + &exit, format!("{state}: {what_to_do}, or lower {timeouts}"))
}

fn panicked(run: &Summary<'_>) -> Texts {
    let at = run.stopped.and_then(|stop| stop.location.as_deref()).map(shown);
    let message = run.stopped.and_then(|stop| stop.panic.as_deref()).map(shown);
    let (at, message) = (optional(" at ", at), optional(": ", message));
    texts(format!("panicked{at}{message}"), format!("fix the panic{at}"))
}

fn rebooted(run: &Summary<'_>, host: &HostState) -> Verdict {
    let [then, now] =
        [&run.start.boot_id, &host.boot_id].map(|id| shown(id.as_deref().unwrap_or("?")));
    let boots = format!("the boot id was {then} and is {now} now");
    let basis = no_end_after(run.asked.map(|(_, signal)| signal)).and(&boots);
    let Some((at_us, signal)) = run.asked else {
        let evidence = "nothing had asked it to stop: power loss, a crash or a hard reset";
        let advice = "look at the end of the log of the boot before: journalctl -b -1 -e";
        return Verdict::new(Reason::Reboot, basis, format!("{boots}; {evidence}"), advice);
    };
    let (signal, before) = (signal_from(signal), Span(run.last_us.saturating_sub(at_us)));
    let (state, timeouts) = (state(run), timeouts(run));
    let advice = format!(
        "{state} when the machine went down: lower {timeouts}, or raise TimeoutStopSec= if the \
         machine may wait that long"
    );
    let evidence = format!("{boots}; {signal} arrived {before} before the last event");
    Verdict::new(Reason::Reboot, basis, evidence, advice)
}

/// The verdict on a run whose record has no end.
fn killed(run: &Summary<'_>, host: &HostState, timer: Option<&StopTimer<'_>>) -> Verdict {
    if let Some((basis, evidence)) = out_of_memory(run, host) {
        let advice = "raise MemoryMax= or the container's limit, or find what took the memory";
        return Verdict::new(Reason::OutOfMemory, basis, evidence, advice);
    }
    if let Some(timer) = timer.filter(|timer| timer.fits(run, host)) {
        return timer.verdict(run);
    }
    let basis = no_end_after(run.asked.map(|(_, signal)| signal));
    let (memory, state) = (memory(run, host), state(run) + &stalled(run));
    let why_not_timer = match (timer, run.asked.map(|(_, signal)| signal)) {
        (Some(timer), _) => timer.why_not(run, host),
        (None, Some(signal)) if signal.cause == "container_stop" => {
            let (name, timeouts) = (signal_name(signal), timeouts(run));
            let evidence = format!(
                "{name} came from the container's runtime, which sends SIGKILL when its grace \
                 period is over; the length of that period is not recorded{memory}"
            );
            let advice = format!(
                "{state}: raise the grace period (docker stop --time, \
                 terminationGracePeriodSeconds) or lower {timeouts}"
            );
            return Verdict::new(Reason::GracePeriod, basis, evidence, advice);
        }
        (None, None) if !run.teardown_began() => {
            if host.process == ProcessState::Own {
                let evidence = "it is this very process, by its pid and start time: it has executed \
                                a program since (exec), or has dropped its guard";
                return Verdict::new(Reason::Unknown, basis, evidence, "");
            }
            let same_boot = run.start.boot_id.is_some() && host.boot_id.is_some();
            let power = if same_boot { "" } else { ", or the machine went down" };
            let evidence = format!(
                "nothing asked it to stop, and its record has no end: SIGKILL, another \
                 signal that it does not handle, a crash or a call of exit(){power}{memory}"
            );
            return Verdict::new(Reason::Unknown, basis, evidence, ask_the_supervisor(run));
        }
        (None, Some(signal)) if run.asked_by_systemd.is_none() => {
            format!("; {} was not systemd's", signal_from(signal))
        }
        (None, _) if run.stop_timeout == Some(Timespan::Infinite) => {
            "; systemd's stop timeout is infinite".to_owned()
        }
        (None, _) => "; systemd's stop timeout is not known".to_owned(),
    };
    let evidence = format!("killed, but the record does not show by what{why_not_timer}{memory}");
    let advice = format!("{state}: {}", ask_the_supervisor(run));
    Verdict::new(Reason::Unknown, basis, evidence, advice)
}

/// How long a supervisor waits before SIGKILL, from its signal on.
struct StopTimer<'a> {
    signal: &'a SignalEvent,
    began_us: u64,
    timeout_us: u64,
    /// Its name, and the setting for it.
    name: &'static str,
    setting: &'static str,
    /// The reason for a kill at its end.
    reason: Reason,
}

impl<'a> StopTimer<'a> {
    /// systemd's stop timeout, if systemd sent a signal and the timeout is finite and known.
    /// Otherwise the grace period that was configured for the run.
    fn of(run: &Summary<'a>) -> Option<Self> {
        if let (Some((began_us, signal)), Some(Timespan::Finite(timeout_us))) =
            (run.asked_by_systemd, run.stop_timeout)
        {
            let (name, setting) = ("systemd's stop timeout", "TimeoutStopSec=");
            let reason = Reason::StopTimeout;
            return Some(Self { signal, began_us, timeout_us, name, setting, reason });
        }
        let (began_us, signal) = run.asked.filter(|(_, it)| it.kind == SignalKind::Signal)?;
        let timeout_us = run.start.grace_us?;
        let (name, setting) = ("the grace period", "terminationGracePeriodSeconds");
        Some(Self { signal, began_us, timeout_us, name, setting, reason: Reason::GracePeriod })
    }

    fn over_us(&self) -> u64 {
        self.began_us.saturating_add(self.timeout_us)
    }

    /// Whether the run can have lasted until the end of the timer, and not longer.
    fn fits(&self, run: &Summary<'_>, host: &HostState) -> bool {
        let not_longer = run.last_us <= self.over_us().saturating_add(SLACK_US);
        let until_then = |by_us: u64| by_us.saturating_add(SLACK_US) >= self.over_us();
        not_longer && run.dead_by_us(host).is_none_or(until_then)
    }

    fn verdict(&self, run: &Summary<'_>) -> Verdict {
        let (timeout, name) = (Span(self.timeout_us), self.name);
        let (from, signal) = (signal_from(self.signal), signal_name(self.signal));
        let lived = Span(run.last_us.saturating_sub(self.began_us));
        let blocked = run.stalled.is_some_and(|stalled| stalled.what == StalledWhat::Runtime);
        let what_to_do = if blocked {
            "move its blocking calls off the runtime (spawn_blocking)".to_owned()
        } else if run.teardown_began() {
            format!("raise {} or lower {}", self.setting, timeouts(run))
        } else {
            "find what kept the runtime from starting the teardown".to_owned()
        };
        let evidence = format!(
            "{from} began {name} of {timeout}; the last event came {lived} after it, and the record has no end"
        );
        let late = format!("{} {timeout} after {signal} and {name} is {timeout}", state(run));
        let basis = no_end_after(Some(self.signal))
            .and(format!("{name} is {timeout}"))
            .and(format!("the last event came {lived} after the signal"));
        let advice = format!("{late}{}: {what_to_do}", stalled(run));
        Verdict::new(self.reason, basis, evidence, advice)
    }

    fn why_not(&self, run: &Summary<'_>, host: &HostState) -> String {
        let not_by = format!("; not by {} of {}", self.name, Span(self.timeout_us));
        if let Some(beyond_us) = run.last_us.checked_sub(self.over_us()) {
            let beyond = Span(beyond_us);
            let unless = "unless that was extended: the last event came";
            return format!("{not_by}, {unless} {beyond} after its end");
        }
        let Some(by_us) = run.dead_by_us(host) else { return String::new() };
        let (after, signal) = (Span(by_us.saturating_sub(self.began_us)), signal_name(self.signal));
        format!("{not_by}: it died {after} after {signal} at the latest")
    }
}

/// Whether the run's cgroup has been replaced by a new one with new counters.
fn cgroup_is_gone(run: &Summary<'_>, host: &HostState) -> bool {
    let inodes = run.start.cgroup_inode.zip(host.cgroup_inode);
    inodes.is_some_and(|(then, now)| then != now)
}

/// The basis and the evidence for an OOM kill of the run.
fn out_of_memory(run: &Summary<'_>, host: &HostState) -> Option<(Basis, String)> {
    if let Some(line) = &host.oom_line {
        let evidence = format!("the kernel log says: {}", shown(line));
        return Some((Basis::observed(Source::Kernel), evidence));
    }
    let (then, now) = (run.start.oom_kill?, host.oom_kill?);
    (now > then && !cgroup_is_gone(run, host)).then(|| {
        let evidence = format!("its cgroup's oom_kill counter was {then} and is {now} now");
        (no_end().and(&evidence), evidence)
    })
}

/// Other facts about its memory, if nothing proves that it was OOM-killed.
fn memory(run: &Summary<'_>, host: &HostState) -> String {
    let mut hints = String::new();
    let counted = |name: &str| run.asked.and_then(|(_, s)| s.context["memory"][name].as_u64());
    if let (Some(used), Some(max)) = (counted("current"), counted("max"))
        && used / 9 >= max / 10
    {
        let [used, max] = [used, max].map(|bytes| bytes >> 20);
        hints += &format!("; its memory was at {used} MiB of {max} MiB when it was asked to stop");
    }
    if let (Some(then), Some(start)) = (counted("oom_kill"), run.start.oom_kill)
        && then > start
    {
        let others = then - start;
        hints += &format!("; {others} other processes of its cgroup had been OOM-killed");
    }
    // A container's cgroup is removed with the container.
    if run.start.unit.is_none() && cgroup_is_gone(run, host) {
        hints += "; cannot tell whether it was OOM-killed: its cgroup is gone";
    }
    hints
}

fn ask_the_supervisor(run: &Summary<'_>) -> String {
    let what = match (&run.start.unit, &run.start.pod) {
        (Some(unit), _) => format!("journalctl -u {} says", shown(unit)),
        (None, None) => "its supervisor logged".to_owned(),
        (None, Some(pod)) => {
            let pod = match pod.split_once('/') {
                Some((namespace, name)) => format!("{} -n {}", shown(name), shown(namespace)),
                None => shown(pod),
            };
            return format!("see Last State in kubectl describe pod {pod}");
        }
    };
    format!("see what {what} for {} and after", run.last)
}

/// The state of the teardown, as the start of a sentence.
fn state(run: &Summary<'_>) -> String {
    let names = run.open.iter().map(|(_, open)| shown_phase(&open.phase, open.group.as_deref()));
    let names = first_of(names.collect(), ", ", run.more_open);
    match (run.open.len() + run.more_open, run.between()) {
        (0, Some(last)) => {
            format!("the teardown was between phases ({} was the last to end)", shown(&last))
        }
        (0, None) => match run.asked.and_then(|(_, signal)| signal.lead_us).map(Span) {
            Some(delay) => format!("no phase had begun (a pre-stop delay of {delay} came first)"),
            None => "no phase had begun".to_owned(),
        },
        (1, _) => format!("phase {names} was still running"),
        _ => format!("phases {names} were still running"),
    }
}

fn stalled(run: &Summary<'_>) -> String {
    let Some(stalled) = run.stalled else { return String::new() };
    let (what, since, detail) = (stalled.what, Span(stalled.for_us), shown(&stalled.detail));
    format!(" (the {what} was stalled for {since}: {detail})")
}

/// The timeouts that could be lowered, as the end of a sentence.
fn timeouts(run: &Summary<'_>) -> String {
    match run.open.as_slice() {
        [(_, PhaseStarted { timeout_us: Some(us), .. })] => {
            format!("the phase's timeout ({})", Span(*us))
        }
        _ => "the phases' timeouts".to_owned(),
    }
}

/// The phases that did not end well and that `pick` accepts, as a sentence. `None` if there are
/// none.
fn bad_phases(run: &Summary<'_>, pick: fn(&PhaseFinished) -> bool) -> Option<String> {
    let text = |phase: &PhaseFinished| {
        let how = match phase.outcome {
            PhaseOutcome::Ok => return None,
            PhaseOutcome::TimedOut => "timed out",
            PhaseOutcome::CutShort => "was cut short",
            PhaseOutcome::Skipped => "was skipped",
            PhaseOutcome::Other => "ended in an unknown way",
            outcome => &outcome.to_string(),
        };
        let (name, took) = (shown_phase(&phase.phase, phase.group.as_deref()), Span(phase.took_us));
        let error = optional(": ", phase.error.as_deref().map(shown));
        Some(format!("phase {name} {how} after {took}{error}"))
    };
    let bad: Vec<_> = run.not_ok.iter().filter(|phase| pick(phase)).filter_map(text).collect();
    (!bad.is_empty()).then(|| first_of(bad, "; ", run.more_not_ok))
}

/// The first texts of a list, and how many more there are. `more` of them are not in the list.
fn first_of(mut texts: Vec<String>, separator: &str, more: usize) -> String {
    let more = more + texts.len().saturating_sub(MAX_PHASES);
    if more > 0 {
        texts.truncate(MAX_PHASES);
        texts.push(format!("{more} more"));
    }
    texts.join(separator)
}

fn exit(run: &Summary<'_>) -> String {
    let code = optional(", exit code ", run.stopped.and_then(|stopped| stopped.exit_code));
    let signal = run.stopped.and_then(|stopped| stopped.exit_signal.as_deref());
    code + &optional(", ended by ", signal.map(shown))
}

fn deadline(run: &Summary<'_>) -> Option<Span> {
    run.deadline_us.map(Span)
}

/// The value with `prefix` before it, or an empty text.
fn optional(prefix: &str, value: Option<impl Display>) -> String {
    value.map(|value| format!("{prefix}{value}")).unwrap_or_default()
}

/// `SIGTERM from systemd(1)`.
fn signal_from(signal: &SignalEvent) -> String {
    let name = signal_name(signal);
    match (signal.sender_pid, signal.sender_name.as_deref()) {
        (Some(pid), Some(sender)) => format!("{name} from {}({pid})", shown(sender)),
        (Some(pid), None) => format!("{name} from process {pid}"),
        (None, _) => name,
    }
}

fn signal_name(signal: &SignalEvent) -> String {
    match (signal.kind, &signal.signal) {
        (SignalKind::Signal, Some(name)) => shown(name),
        (SignalKind::Request, _) => "the program's own request".to_owned(),
        (SignalKind::ServiceEnded, _) => "the service's own end".to_owned(),
        _ => "a signal".to_owned(),
    }
}

fn shown_phase(phase: &str, group: Option<&str>) -> String {
    shown(&phase_name(phase, group))
}

fn shown(text: &str) -> String {
    Escaped(&truncate(text, MAX_SHOWN)).to_string()
}
