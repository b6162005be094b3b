//! Phrases that several texts use.

use std::fmt::Display;

use crate::escape::{Escaped, truncate};
use crate::record::post_mortem::{MAX_SHOWN, Span, phase_name};
use crate::record::summary::Summary;
use crate::record::{
    PhaseFinished, PhaseOutcome, PhaseStarted, SignalEvent, SignalKind, StalledWhat,
};

use super::{Texts, texts};

/// How many phases a text names.
const MAX_PHASES: usize = 16;

/// Whether systemd was stopping the run: it sent a signal, or showed a reason.
pub(super) fn is_stop_under_way(run: &Summary<'_>) -> bool {
    run.asked_by_systemd.is_some() || run.explained.is_some()
}

/// What to change about a run that used up the time of a stop. `setting` sets that time.
pub(super) fn what_to_do_about_timeouts(run: &Summary<'_>, setting: &str) -> String {
    let blocked = run.stalled.is_some_and(|stalled| stalled.what == StalledWhat::Runtime);
    if blocked {
        "move its blocking calls off the runtime (spawn_blocking)".to_owned()
    } else if run.teardown_began() {
        format!("raise {setting} or lower {}", timeouts(run))
    } else {
        "find what kept the teardown from starting".to_owned()
    }
}

/// How a signal ends a process, and what to do about it.
pub(super) fn ended_by_signal(signal: &str, run: &Summary<'_>) -> Texts {
    let ended = format!("it was ended by {}", shown(signal));
    let unhandled = format!("{ended}, which it does not handle");
    match signal {
        "SIGKILL" if run.sent(signal).is_some() => texts(ended, ""),
        "SIGKILL" => texts(ended, "`forensics audit` shows how to record who sends SIGKILL"),
        "SIGSEGV" | "SIGBUS" | "SIGFPE" | "SIGILL" | "SIGTRAP" => texts(
            format!("{ended}: it crashed, or another process sent the signal"),
            "find the fault in unsafe code or in a library that is not in Rust",
        ),
        "SIGABRT" => texts(
            format!("{ended}: it called abort(), or another process sent the signal"),
            "see what it logged last",
        ),
        "SIGSYS" => texts(
            format!(
                "{ended}: a seccomp filter forbids a system call that it made, or another \
                     process sent the signal"
            ),
            "allow the call in SystemCallFilter=, or in the container's seccomp profile",
        ),
        "SIGXCPU" => texts(
            format!(
                "{unhandled}: its limit of CPU time was used up, or another process sent the signal"
            ),
            "raise LimitCPU=, or the CPU limit that `ulimit -t` shows",
        ),
        "SIGXFSZ" => texts(
            format!(
                "{unhandled}: a file grew beyond its limit, or another process sent the signal"
            ),
            "raise LimitFSIZE=, or ignore SIGXFSZ",
        ),
        "SIGPIPE" => texts(
            format!(
                "{unhandled}: it wrote to a pipe or a socket without a reader, or another \
                     process sent the signal"
            ),
            "ignore SIGPIPE, as the standard library of Rust does before main",
        ),
        "SIGALRM" | "SIGVTALRM" | "SIGPROF" => texts(
            format!(
                "{unhandled}: a timer of the process ran out, or another process sent the signal"
            ),
            "handle the signal, or do not set the timer",
        ),
        _ => {
            let seen = run.asked.iter().any(|(_, asked)| asked.signal.as_deref() == Some(signal));
            if seen {
                return texts(ended, "");
            }
            // The guard handles them, if its signals are the default ones.
            if ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"].contains(&signal) {
                return texts(
                    format!("{ended}, which it did not handle at that time"),
                    format!("if the guard's signals leave out {}, add it", shown(signal)),
                );
            }
            texts(
                unhandled,
                format!("add {0} to the guard's signals, or do not send it", shown(signal)),
            )
        }
    }
}

/// The state of the teardown, as the start of a sentence.
pub(super) fn state(run: &Summary<'_>) -> String {
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

pub(super) fn stalled(run: &Summary<'_>) -> String {
    let Some(stalled) = run.stalled else { return String::new() };
    let (what, since, detail) = (stalled.what, Span(stalled.for_us), shown(&stalled.detail));
    format!(" (the {what} was stalled for {since}: {detail})")
}

/// The timeouts that could be lowered, as the end of a sentence.
pub(super) fn timeouts(run: &Summary<'_>) -> String {
    match run.open.as_slice() {
        [(_, PhaseStarted { timeout_us: Some(us), .. })] => {
            format!("the phase's timeout ({})", Span(*us))
        }
        _ => "the phases' timeouts".to_owned(),
    }
}

/// The phases that did not end well and that `pick` accepts, as a sentence. `None` if there are
/// none.
pub(super) fn bad_phases(run: &Summary<'_>, pick: fn(&PhaseFinished) -> bool) -> Option<String> {
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
pub(super) fn first_of(mut texts: Vec<String>, separator: &str, more: usize) -> String {
    let more = more + texts.len().saturating_sub(MAX_PHASES);
    if more > 0 {
        texts.truncate(MAX_PHASES);
        texts.push(format!("{more} more"));
    }
    texts.join(separator)
}

pub(super) fn exit(run: &Summary<'_>) -> String {
    let code = optional(", exit code ", run.stopped.and_then(|stopped| stopped.exit_code));
    let signal = run.stopped.and_then(|stopped| stopped.exit_signal.as_deref());
    code + &optional(", ended by ", signal.map(shown))
}

pub(super) fn deadline(run: &Summary<'_>) -> Option<Span> {
    run.deadline_us.map(Span)
}

/// The value with `prefix` before it, or an empty text.
pub(super) fn optional(prefix: &str, value: Option<impl Display>) -> String {
    value.map(|value| format!("{prefix}{value}")).unwrap_or_default()
}

/// `SIGTERM from systemd(1)`.
pub(super) fn signal_from(signal: &SignalEvent) -> String {
    let name = signal_name(signal);
    match (signal.sender_pid, signal.sender_name.as_deref()) {
        (Some(pid), Some(sender)) => format!("{name} from {}({pid})", shown(sender)),
        (Some(pid), None) => format!("{name} from process {pid}"),
        (None, _) => name,
    }
}

pub(super) fn signal_name(signal: &SignalEvent) -> String {
    match (signal.kind, &signal.signal) {
        (SignalKind::Signal, Some(name)) => shown(name),
        (SignalKind::Request, _) => "the program's own request".to_owned(),
        (SignalKind::ServiceEnded, _) => "the service's own end".to_owned(),
        _ => "a signal".to_owned(),
    }
}

pub(super) fn shown_phase(phase: &str, group: Option<&str>) -> String {
    shown(&phase_name(phase, group))
}

pub(super) fn shown(text: &str) -> String {
    Escaped(&truncate(text, MAX_SHOWN)).to_string()
}

/// Whether a name can be a word of a command that is shown. With another text, who wrote the record could
/// add an option or a second command.
pub(super) fn is_plain(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
}
