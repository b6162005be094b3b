//! Why a run ended as it did, on which evidence, and what to change; the texts of the verdict.

use super::event::{ForcedBy, How, Signal, SignalKind, WedgedWhat};
use super::phase::{PhaseFinished, PhaseOutcome};
use super::seen::{SLACK_US, Seen};
use super::verdict::{MAX_SHOWN, Now, Outcome, Reason, Span, phase_name};
use crate::duration::Timespan;
use crate::escape::{Plain, cut};

/// How many phases a text names.
const MAX_PHASES: usize = 16;

pub(super) struct Finding {
    pub(super) reason: Reason,
    pub(super) evidence: String,
    pub(super) advice: Option<String>,
    /// When the run was likely killed, by the monotonic clock.
    pub(super) killed_us: Option<u64>,
}

impl Finding {
    fn new(reason: Reason, evidence: String, advice: Option<String>) -> Self {
        Self { reason, evidence, advice, killed_us: None }
    }
}

pub(super) fn find(outcome: Outcome, seen: &Seen<'_>, now: &Now) -> Finding {
    match outcome {
        Outcome::Clean => clean(seen),
        Outcome::TimedOut => timed_out(seen),
        Outcome::Forced => forced(seen),
        Outcome::Panicked => panicked(seen),
        Outcome::Running => Finding::new(
            Reason::Alive,
            "a living process holds the lock on its record".to_owned(),
            Some(format!("if it should have ended, look at process {}", seen.start.pid)),
        ),
        Outcome::Rebooted => rebooted(seen, now),
        Outcome::Vanished => vanished(seen, now),
        Outcome::KilledInPhase | Outcome::KilledBeforeTeardown => killed(seen, now),
    }
}

fn clean(seen: &Seen<'_>) -> Finding {
    let how = seen.stopped.map_or(How::Other, |stop| stop.how);
    let exit = exit(seen);
    let evidence = match (how, bad_phases(seen, &|_| true)) {
        (How::Abandoned, _) => return abandoned(seen),
        (How::Clean, None) => format!("it ended as planned{exit}"),
        (How::Failed, None) => format!("it ended by itself, but the service failed{exit}"),
        // Of a clean end these are cut short or skipped.
        (How::Clean | How::Failed, Some(bad)) => format!("it ended by itself, but {bad}{exit}"),
        _ => format!("it ended by itself, in a way that only a newer version knows{exit}"),
    };
    Finding::new(Reason::Recorded, evidence, None)
}

/// `, exit code 1`, where that is known.
fn exit(seen: &Seen<'_>) -> String {
    let code = seen.stopped.and_then(|stopped| stopped.exit_code);
    code.map(|code| format!(", exit code {code}")).unwrap_or_default()
}

fn abandoned(seen: &Seen<'_>) -> Finding {
    let (evidence, advice) = match (seen.asked, seen.teardown_began()) {
        (None, _) => (
            "its guard was dropped without a teardown, as nothing had asked for one: main returned \
             early",
            "see what it said last: an error at its start, most likely; a service that ends by itself \
             is to be given to run()"
                .to_owned(),
        ),
        (Some(_), false) => (
            "its guard was dropped after it had been asked to stop, and before a phase had begun",
            "wait for run()".to_owned(),
        ),
        (Some(_), true) => (
            "its guard was dropped in the midst of its teardown",
            format!("{}: wait for run(), and put no timeout of your own around it", still(seen)),
        ),
    };
    Finding::new(Reason::Recorded, evidence.to_owned(), Some(advice))
}

fn timed_out(seen: &Seen<'_>) -> Finding {
    let late = bad_phases(seen, &|phase| phase.outcome == PhaseOutcome::TimedOut);
    let deadline = seen.asked.and_then(|(_, signal)| signal.deadline_us);
    let (evidence, advice) = match (late, deadline) {
        (Some(late), _) => {
            (late, "raise the timeout, or find what the phase waited for".to_owned())
        }
        (None, Some(us)) => (
            format!("the teardown took longer than its deadline of {}", Span(us)),
            format!("{}: raise the deadline, or lower the phases' timeouts", still(seen)),
        ),
        (None, None) => (
            "the teardown took longer than it was given".to_owned(),
            format!("{}: find what it waited for", still(seen)),
        ),
    };
    Finding::new(Reason::Recorded, evidence, Some(advice))
}

fn forced(seen: &Seen<'_>) -> Finding {
    let exit = exit(seen);
    let deadline = seen.asked.and_then(|(_, signal)| signal.deadline_us);
    match seen.stopped.and_then(|stopped| stopped.forced_by) {
        Some(ForcedBy::Deadline) => {
            let deadline = deadline.map(|us| format!(" of {}", Span(us))).unwrap_or_default();
            let evidence =
                format!("the deadline{deadline} passed and the teardown had not ended{exit}");
            let advice = format!(
                "{}{}: find what blocks its thread, or lower {}",
                still(seen),
                wedged(seen),
                timeouts(seen)
            );
            return Finding::new(Reason::Recorded, evidence, Some(advice));
        }
        Some(ForcedBy::NoExit) => {
            let evidence = format!("its teardown had ended and the process did not{exit}");
            let advice = "a blocked thread holds up the runtime's end: see what each waited for, in \
                          the record's last line";
            return Finding::new(Reason::Recorded, evidence, Some(advice.to_owned()));
        }
        _ => {}
    }
    let evidence = match seen.asked_last.filter(|signal| signal.ordinal > 1) {
        Some(last) => {
            format!("stop number {}, {}, ended it at once{exit}", last.ordinal, signal_from(last))
        }
        None => format!("it was ended at once{exit}"),
    };
    let patience = match deadline {
        Some(us) => format!("give it its deadline of {} before a further signal", Span(us)),
        None => "wait for it before a further signal".to_owned(),
    };
    let advice =
        format!("{}{}: {patience}, or lower {}", still(seen), wedged(seen), timeouts(seen));
    Finding::new(Reason::Recorded, evidence, Some(advice))
}

fn panicked(seen: &Seen<'_>) -> Finding {
    let stopped = seen.stopped;
    let message = stopped.and_then(|stop| stop.panic.as_deref()).map(shown);
    let place = stopped.and_then(|stop| stop.location.as_deref()).map(shown);
    let evidence = match (&place, message) {
        (Some(place), Some(message)) => format!("panicked at {place}: {message}"),
        (Some(place), None) => format!("panicked at {place}"),
        (None, Some(message)) => format!("panicked: {message}"),
        (None, None) => "panicked; where is not recorded".to_owned(),
    };
    let advice = match place {
        Some(place) => format!("mend the panic at {place}"),
        None => "mend the panic".to_owned(),
    };
    Finding::new(Reason::Panic, evidence, Some(advice))
}

fn rebooted(seen: &Seen<'_>, now: &Now) -> Finding {
    let id = |id: &Option<String>| id.as_deref().map_or_else(|| "?".to_owned(), shown);
    let boots =
        format!("the boot id was {} and is {} now", id(&seen.start.boot_id), id(&now.boot_id));
    let (evidence, advice) = match seen.asked {
        Some((at_us, signal)) => (
            format!(
                "{boots}; {} had come {} before the last event",
                signal_from(signal),
                Span(seen.last_us.saturating_sub(at_us))
            ),
            format!(
                "{} when the machine went down: lower {}, or raise TimeoutStopSec= if the machine \
                 may wait that long",
                still(seen),
                timeouts(seen)
            ),
        ),
        None => (
            format!("{boots}; nothing had asked it to stop: power loss, a crash or a hard reset"),
            "look at the end of the log of the boot before: journalctl -b -1 -e".to_owned(),
        ),
    };
    Finding::new(Reason::Reboot, evidence, Some(advice))
}

fn vanished(seen: &Seen<'_>, now: &Now) -> Finding {
    if let Some(evidence) = out_of_memory(seen, now) {
        return Finding::new(Reason::OutOfMemory, evidence, Some(more_memory()));
    }
    let same_boot = seen.start.boot_id.is_some() && now.boot_id.is_some();
    let power = if same_boot { "" } else { ", or the machine went down" };
    let evidence = format!(
        "nothing asked it to stop and it did not say that it ended: SIGKILL, a crash or a call of \
         exit(){power}{}",
        memory(seen, now)
    );
    Finding::new(Reason::Unknown, evidence, Some(ask_the_supervisor(seen)))
}

/// The reason for a run that was killed after it had been asked to stop.
fn killed(seen: &Seen<'_>, now: &Now) -> Finding {
    if let Some(evidence) = out_of_memory(seen, now) {
        return Finding::new(Reason::OutOfMemory, evidence, Some(more_memory()));
    }
    let timer = StopTimer::of(seen);
    if let Some(timer) = timer.as_ref().filter(|timer| timer.fits(seen, now)) {
        return timer.finding(seen);
    }
    let of_container = seen.asked.filter(|(_, signal)| signal.cause == "container_stop");
    if let Some((_, signal)) = of_container.filter(|_| timer.is_none()) {
        let evidence = format!(
            "{} came from the container's runtime, which sends SIGKILL once its grace period is \
             over; how long that is, is not recorded{}",
            signal_name(signal),
            memory(seen, now)
        );
        let advice = format!(
            "{}{}: raise the grace period (docker stop --time, terminationGracePeriodSeconds) or \
             lower {}",
            still(seen),
            wedged(seen),
            timeouts(seen)
        );
        return Finding::new(Reason::GracePeriod, evidence, Some(advice));
    }
    let why_not_timer = match (timer, seen.asked) {
        (Some(timer), _) => timer.why_not(seen, now),
        (None, Some((_, signal))) if seen.asked_by_systemd.is_none() => {
            format!("; {} was not systemd's", signal_from(signal))
        }
        (None, _) if seen.stop_timeout == Some(Timespan::Infinite) => {
            "; systemd's stop timeout is infinite".to_owned()
        }
        (None, _) => "; systemd's stop timeout is not known".to_owned(),
    };
    let evidence = format!("killed, by what is not recorded{why_not_timer}{}", memory(seen, now));
    let advice = format!("{}{}: {}", still(seen), wedged(seen), ask_the_supervisor(seen));
    Finding::new(Reason::Unknown, evidence, Some(advice))
}

/// A supervisor's patience, running since its signal.
struct StopTimer<'a> {
    signal: &'a Signal,
    began_us: u64,
    timeout_us: u64,
    /// What it is called, how it is set, and what a kill at its end is put down to.
    name: &'static str,
    setting: &'static str,
    reason: Reason,
}

impl<'a> StopTimer<'a> {
    /// systemd's, where it asked and its timeout is finite and known; else the grace period that
    /// the run was told of.
    fn of(seen: &Seen<'a>) -> Option<Self> {
        Self::of_systemd(seen).or_else(|| {
            let (began_us, signal) =
                seen.asked.filter(|(_, signal)| signal.kind == SignalKind::Signal)?;
            Some(Self {
                signal,
                began_us,
                timeout_us: seen.start.grace_us?,
                name: "the grace period",
                setting: "terminationGracePeriodSeconds",
                reason: Reason::GracePeriod,
            })
        })
    }

    fn of_systemd(seen: &Seen<'a>) -> Option<Self> {
        let (began_us, signal) = seen.asked_by_systemd?;
        let Timespan::Finite(timeout_us) = seen.stop_timeout? else { return None };
        Some(Self {
            signal,
            began_us,
            timeout_us,
            name: "systemd's stop timeout",
            setting: "TimeoutStopSec=",
            reason: Reason::StopTimeout,
        })
    }

    fn over_us(&self) -> u64 {
        self.began_us.saturating_add(self.timeout_us)
    }

    /// Whether the run may have lived up to its end, and did not live beyond it.
    fn fits(&self, seen: &Seen<'_>, now: &Now) -> bool {
        let not_beyond = seen.last_us <= self.over_us().saturating_add(SLACK_US);
        let up_to_it = |by_us: u64| by_us.saturating_add(SLACK_US) >= self.over_us();
        not_beyond && seen.dead_by_us(now).is_none_or(up_to_it)
    }

    fn finding(&self, seen: &Seen<'_>) -> Finding {
        let (signal, timeout) = (signal_name(self.signal), Span(self.timeout_us));
        let evidence = format!(
            "{} began {} of {timeout}; the last event came {} after it, and no end",
            signal_from(self.signal),
            self.name,
            Span(seen.last_us.saturating_sub(self.began_us))
        );
        let facts = format!(
            "{} {timeout} after {signal} and {} is {timeout}{}",
            still(seen),
            self.name,
            wedged(seen)
        );
        let blocked = seen.wedged.is_some_and(|wedged| wedged.what == WedgedWhat::Runtime);
        let advice = match (blocked, seen.teardown_began()) {
            (true, _) => {
                format!("{facts}: move its blocking calls off the runtime (spawn_blocking)")
            }
            (false, false) => format!("{facts}: find what kept the runtime from the teardown"),
            (false, true) => format!("{facts}: raise {} or lower {}", self.setting, timeouts(seen)),
        };
        Finding {
            reason: self.reason,
            evidence,
            advice: Some(advice),
            killed_us: Some(self.over_us().max(seen.last_us)),
        }
    }

    fn why_not(&self, seen: &Seen<'_>, now: &Now) -> String {
        let (timeout, name) = (Span(self.timeout_us), self.name);
        match (seen.last_us.checked_sub(self.over_us()), seen.dead_by_us(now)) {
            (Some(beyond_us), _) => format!(
                "; not by {name} of {timeout}, unless that was extended: the last \
                 event came {} after its end",
                Span(beyond_us)
            ),
            (None, Some(by_us)) => format!(
                "; not by {name} of {timeout}: it was dead {} after {} at the latest",
                Span(by_us.saturating_sub(self.began_us)),
                signal_name(self.signal)
            ),
            (None, None) => String::new(),
        }
    }
}

/// The evidence that the kernel killed the run for want of memory.
fn out_of_memory(seen: &Seen<'_>, now: &Now) -> Option<String> {
    if let Some(line) = &now.oom_line {
        return Some(format!("the kernel log says: {}", shown(line)));
    }
    let inodes = (seen.start.cgroup_inode, now.cgroup_inode);
    if matches!(inodes, (Some(then), Some(now)) if then != now) {
        return None;
    }
    let (then, now) = (seen.start.oom_kill?, now.oom_kill?);
    (now > then).then(|| format!("its cgroup's oom_kill counter was {then} and is {now} now"))
}

/// What is left to be said of its memory where nothing proves that the kernel killed it for that. A
/// container's control group, and the counter in it, goes with the container.
fn memory(seen: &Seen<'_>, now: &Now) -> String {
    let mut hints = String::new();
    if let Some((_, signal)) = seen.asked {
        let counted = |name| signal.context["memory"][name].as_u64();
        if let (Some(used), Some(max)) = (counted("current"), counted("max"))
            && used / 9 >= max / 10
        {
            let [used, max] = [used, max].map(|bytes| bytes >> 20);
            hints +=
                &format!("; its memory was at {used} MiB of {max} MiB when it was asked to stop");
        }
        let killed = counted("oom_kill").zip(seen.start.oom_kill);
        if let Some(others) =
            killed.and_then(|(then, start)| then.checked_sub(start)).filter(|n| *n > 0)
        {
            hints += &format!(
                "; {others} others of its control group had been killed for want of memory"
            );
        }
    }
    let inodes = (seen.start.cgroup_inode, now.cgroup_inode);
    if seen.start.unit.is_none() && matches!(inodes, (Some(then), Some(now)) if then != now) {
        hints += "; whether for want of memory, its control group took along";
    }
    hints
}

fn more_memory() -> String {
    "raise MemoryMax= or the container's limit, or find what took the memory".to_owned()
}

fn ask_the_supervisor(seen: &Seen<'_>) -> String {
    match (&seen.start.unit, &seen.start.pod) {
        (Some(unit), _) => {
            format!("see what journalctl -u {} says for {} and after", shown(unit), seen.last)
        }
        (None, Some(pod)) => match pod.split_once('/') {
            Some((namespace, name)) => {
                let [namespace, name] = [namespace, name].map(shown);
                format!("see Last State in kubectl describe pod {name} -n {namespace}")
            }
            None => format!("see Last State in kubectl describe pod {}", shown(pod)),
        },
        (None, None) => format!("see what its supervisor logged for {} and after", seen.last),
    }
}

/// Where the teardown stood, as the beginning of a sentence.
fn still(seen: &Seen<'_>) -> String {
    let open = seen.open.iter().take(MAX_PHASES);
    let mut names: Vec<_> =
        open.map(|(_, open)| shown_phase(&open.phase, open.group.as_deref())).collect();
    names.extend(and_more(seen.open.len()));
    match (names.as_slice(), seen.between()) {
        ([], None) => {
            let lead = seen.asked.and_then(|(_, signal)| signal.lead_us);
            let lead = lead.map(|us| format!(" (a lead of {} came first)", Span(us)));
            format!("no phase had begun{}", lead.unwrap_or_default())
        }
        ([], Some(last)) => {
            format!("the teardown was between phases ({} was the last to end)", shown(&last))
        }
        ([one], _) => format!("phase {one} was still running"),
        (many, _) => format!("phases {} were still running", many.join(", ")),
    }
}

/// Whose timeouts could be lowered, as the end of a sentence.
fn timeouts(seen: &Seen<'_>) -> String {
    match seen.open.as_slice() {
        [(_, phase)] => match phase.timeout_us {
            Some(us) => format!("the phase's timeout ({})", Span(us)),
            None => "the phase's timeout, which it has none of".to_owned(),
        },
        _ => "the phases' timeouts".to_owned(),
    }
}

fn wedged(seen: &Seen<'_>) -> String {
    match seen.wedged {
        Some(wedged) => format!(
            " (the {} was wedged for {}: {})",
            wedged.what,
            Span(wedged.for_us),
            shown(&wedged.detail)
        ),
        None => String::new(),
    }
}

/// The phases that did not end well and that `pick` picks, as a sentence; none, where there are
/// none.
fn bad_phases(seen: &Seen<'_>, pick: &dyn Fn(&PhaseFinished) -> bool) -> Option<String> {
    let bad = seen.ended.iter().filter(|phase| phase.outcome != PhaseOutcome::Ok && pick(phase));
    let count = bad.clone().count();
    let mut told: Vec<_> = bad
        .take(MAX_PHASES)
        .map(|phase| {
            let name = shown_phase(&phase.phase, phase.group.as_deref());
            let how = match phase.outcome {
                PhaseOutcome::TimedOut => "timed out".to_owned(),
                PhaseOutcome::CutShort => "was cut short".to_owned(),
                PhaseOutcome::Skipped => "was skipped".to_owned(),
                PhaseOutcome::Other => "ended in an unknown way".to_owned(),
                outcome => outcome.to_string(),
            };
            let error = phase.error.as_deref().map(|text| format!(": {}", shown(text)));
            format!("phase {name} {how} after {}{}", Span(phase.took_us), error.unwrap_or_default())
        })
        .collect();
    told.extend(and_more(count));
    (!told.is_empty()).then(|| told.join("; "))
}

/// How many there are beyond those that are named.
fn and_more(all: usize) -> Option<String> {
    let more = all.checked_sub(MAX_PHASES).filter(|&more| more > 0)?;
    Some(format!("{more} more"))
}

/// `SIGTERM from systemd(1)`.
fn signal_from(signal: &Signal) -> String {
    let name = signal_name(signal);
    match (signal.sender_pid, signal.sender_name.as_deref()) {
        (Some(pid), Some(sender)) => format!("{name} from {}({pid})", shown(sender)),
        (Some(pid), None) => format!("{name} from process {pid}"),
        (None, _) => name,
    }
}

fn signal_name(signal: &Signal) -> String {
    match (&signal.signal, signal.kind) {
        (Some(name), SignalKind::Signal) => shown(name),
        (_, SignalKind::Request) => "the program's own request".to_owned(),
        (_, SignalKind::ServiceEnded) => "the service's own end".to_owned(),
        _ => "a signal".to_owned(),
    }
}

fn shown_phase(phase: &str, group: Option<&str>) -> String {
    shown(&phase_name(phase, group))
}

fn shown(text: &str) -> String {
    Plain(&cut(text, MAX_SHOWN)).to_string()
}
