//! Stop timeouts: how long a supervisor waits between its signal and SIGKILL.
//!
//! The end of a stop timeout is the reason for a kill only if the run was seen alive until shortly
//! before it. During a stop, a run records at least once a second that it is alive.

use super::no_end_after;
use super::supervisor::Supervisor;
use super::words::{signal_from, signal_name, stalled, state, what_to_do_about_timeouts};
use crate::duration::Timespan;
use crate::record::post_mortem::Span;
use crate::record::summary::{SLACK_US, Summary};
use crate::record::verdict::Verdict;
use crate::record::{HostState, Reason, SignalEvent, SignalKind};

/// How long before the end of a timeout the run must have been seen alive: the time between two
/// signs of life, and what writing one may take.
const CLOSE_US: u64 = 1_500_000;

/// How late a supervisor may send SIGKILL if only its default is known. A run that was alive after that
/// shows that the default was changed.
const LATE_US: u64 = 250_000;

/// How long a supervisor waits before SIGKILL, from its signal on.
pub(super) struct StopTimer<'a> {
    signal: &'a SignalEvent,
    began_us: u64,
    timeout_us: u64,
    /// Its name, and the setting for it.
    name: String,
    setting: String,
    /// The reason for a kill at its end.
    pub(super) reason: Reason,
    /// Whether the time is only the supervisor's default, which may have been changed.
    pub(super) is_default: bool,
}

impl<'a> StopTimer<'a> {
    /// systemd's stop timeout, if systemd sent a signal and the timeout is finite and known.
    /// Otherwise the time that was configured for the run, or that its container runtime reports,
    /// if a supervisor may have sent the signal.
    pub(super) fn of(run: &Summary<'a>) -> Option<Self> {
        if let (Some((began_us, signal)), Some(Timespan::Finite(timeout_us))) =
            (run.asked_by_systemd, run.stop_timeout)
        {
            let (name, setting) = ("systemd's stop timeout".into(), "TimeoutStopSec=".into());
            let reason = Reason::StopTimeout;
            let is_default = false;
            return Some(Self { signal, began_us, timeout_us, name, setting, reason, is_default });
        }
        let (began_us, signal) = run.asked.filter(|(_, it)| it.kind == SignalKind::Signal)?;
        // A signal of a person or of the program itself starts no supervisor's timer.
        const NO_SUPERVISOR: [&str; 5] =
            ["operator", "ctrl_c", "self_sent", "hangup", "parent_died"];
        if NO_SUPERVISOR.contains(&signal.cause.as_str()) {
            return None;
        }
        let supervisor = Supervisor::of(run);
        let reported = run.container_end.as_ref().and_then(|end| end.stop_timeout_us);
        let configured = run.start.grace_us.or(reported);
        let timeout_us = configured.or(supervisor.and_then(|it| it.default_us))?;
        let is_default = configured.is_none();
        let what = if is_default { "the default stop timeout" } else { "the stop timeout" };
        let name = match supervisor {
            Some(supervisor) => format!("{what} of {}", supervisor.name),
            None => what.to_owned(),
        };
        let setting = supervisor.map_or("the supervisor's stop timeout", |it| it.setting);
        let (setting, reason) = (setting.to_owned(), Reason::GracePeriod);
        Some(Self { signal, began_us, timeout_us, name, setting, reason, is_default })
    }

    pub(super) fn over_us(&self) -> u64 {
        self.began_us.saturating_add(self.timeout_us)
    }

    /// Whether the run was seen alive until shortly before the end of the timer, and can have died
    /// at its end.
    pub(super) fn fits(&self, run: &Summary<'_>, host: &HostState) -> bool {
        let (last_us, over_us) = (run.last_us, self.over_us());
        let late_us = if self.is_default { LATE_US } else { SLACK_US };
        let not_longer = last_us <= over_us.saturating_add(late_us);
        let lived = last_us.saturating_sub(self.began_us);
        // The timeout may be shorter than `CLOSE_US`. At least a quarter of it must have passed.
        let until_shortly_before =
            last_us.saturating_add(CLOSE_US) >= over_us && lived >= self.timeout_us / 4;
        let died_then = run.died_us.is_some_and(|died| died.abs_diff(over_us) <= SLACK_US);
        let can_be = |by_us: u64| by_us.saturating_add(SLACK_US) >= over_us;
        not_longer
            && (until_shortly_before || died_then)
            && run.dead_by_us(host).is_none_or(can_be)
            && run.died_us.is_none_or(|died_us| died_us.abs_diff(over_us) <= CLOSE_US)
    }

    /// Whether the run was dead before the end of the timer.
    pub(super) fn is_after_death(&self, run: &Summary<'_>, host: &HostState) -> bool {
        let by = run.died_us.or_else(|| run.dead_by_us(host));
        by.is_some_and(|by_us| by_us.saturating_add(SLACK_US) < self.over_us())
    }

    pub(super) fn verdict(&self, run: &Summary<'_>, host: &HostState) -> Verdict {
        let (timeout, name) = (Span(self.timeout_us), &self.name);
        let (from, signal) = (signal_from(self.signal), signal_name(self.signal));
        let range = range(run, host, self.began_us);
        let began = if self.is_default {
            format!("{name} is {timeout}, and {from} had asked it to stop")
        } else {
            format!("{from} began {name} of {timeout}")
        };
        let evidence =
            format!("{began}; it died {range} after {signal}, and the record has no end");
        let basis = no_end_after(Some(self.signal))
            .and(format!("{name} is {timeout}"))
            .and(format!("it died {range} after the signal"));
        let what_to_do = what_to_do_about_timeouts(run, &self.setting);
        let late = format!("{} when {name} of {timeout} was over", state(run));
        Verdict::new(self.reason, basis, evidence, format!("{late}{}: {what_to_do}", stalled(run)))
    }

    /// Why it is not the reason, as the continuation of a sentence.
    pub(super) fn why_not(&self, run: &Summary<'_>, host: &HostState) -> String {
        let (name, timeout) = (&self.name, Span(self.timeout_us));
        if let Some(beyond_us) = run.last_us.checked_sub(self.over_us()) {
            let beyond = Span(beyond_us);
            return format!(
                "; not by {name} of {timeout}, unless that was extended: the last event came \
                 {beyond} after its end"
            );
        }
        let died = range(run, host, self.began_us);
        let signal = signal_name(self.signal);
        if self.is_after_death(run, host) {
            return format!("; not by {name} of {timeout}: it died {died} after {signal}");
        }
        format!(
            "; {name} is {timeout}, but it was not seen alive until shortly before its end: it died \
             {died} after {signal}"
        )
    }
}

/// When the run died, counted from `from_us`, as a range: `between 0.5s and 3s`.
pub(super) fn range(run: &Summary<'_>, host: &HostState, from_us: u64) -> String {
    let after = |us: u64| Span(us.saturating_sub(from_us));
    match (run.died_us, run.dead_by_us(host)) {
        (Some(died_us), _) => after(died_us).to_string(),
        (None, Some(by_us)) => format!("between {} and {}", after(run.last_us), after(by_us)),
        (None, None) => format!("at least {}", after(run.last_us)),
    }
}
