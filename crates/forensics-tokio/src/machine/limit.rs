//! How long a teardown may take, by the configuration and by the supervisor's stop timeout.

use std::time::Duration;

use forensics_core::cause::Cause;
use forensics_core::context::ShutdownContext;
use forensics_core::duration::Timespan;
use forensics_core::record::{self, DeadlineMoved};
use tokio::time::Instant;

use super::{LogEvent, Machine, Seconds, Stage, State, Turn};
use crate::config::safety_margin;
use crate::report::micros;

/// The smallest change of a deadline that is logged and recorded.
const NOTICEABLE: Duration = Duration::from_millis(50);

/// What systemd has reported about our unit.
#[derive(Debug, Clone)]
pub(crate) struct Unit {
    /// The timers of systemd that limit a stop: that of the unit first, then that of its user
    /// manager.
    pub(crate) timers: Vec<Timer>,
    /// Whether systemd accepts what this process sends with sd_notify.
    pub(crate) accepts_messages: bool,
    /// Whether systemd is stopping the unit. `None` if it was asked before the stop.
    pub(crate) is_stopping: Option<bool>,
}

/// How long systemd waits for the end of a stop.
#[derive(Debug, Clone)]
pub(crate) struct Timer {
    pub(crate) timeout: Timespan,
    /// Whose timeout it is, for the log.
    pub(crate) whose: String,
    /// When the timer was started. `None` if it does not run yet, or if that is not known.
    pub(crate) since: Option<Instant>,
    /// Whether SIGKILL follows at its end. Otherwise it limits `ExecStop=`.
    pub(crate) kills: bool,
}

impl Unit {
    /// The shortest of its stop timeouts, if one is known.
    pub(crate) fn shortest(&self) -> Option<Timespan> {
        let timeout = |timer: &Timer| timer.timeout.to_std().unwrap_or(Duration::MAX);
        self.timers.iter().min_by_key(|timer| timeout(timer)).map(|timer| timer.timeout)
    }
}

/// How long a teardown may take. All times count from the request.
#[derive(Debug, Clone)]
pub(super) struct Limit {
    /// When the teardown must have ended.
    pub(super) allowed: Duration,
    /// What sets this limit, for the log.
    pub(super) why: String,
    /// When the supervisor's time is over, if that is known.
    pub(super) supervisor: Option<Supervisor>,
}

/// When a supervisor's time is over, counted from the request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Supervisor {
    pub(super) over: Duration,
    /// When a teardown must have ended, so that the process can end by itself before that.
    pub(super) last_end: Duration,
    kills: bool,
}

impl Timer {
    /// When this timer is over for a stop that began at `began`, and a text for the log. If systemd
    /// was asked for more time, the timer lasts until `extended`.
    fn over(&self, began: Instant, extended: Duration) -> Option<(Supervisor, String)> {
        let timeout = self.timeout.to_std()?;
        let since = self.since.unwrap_or(began);
        let before = began.saturating_duration_since(since);
        let after = since.saturating_duration_since(began);
        let offset = match (before >= NOTICEABLE, after >= NOTICEABLE) {
            (true, _) => format!(", which began {} before the request,", Seconds(before)),
            (_, true) => format!(", which began {} after the request,", Seconds(after)),
            _ => String::new(),
        };
        let over = timeout.saturating_add(after).saturating_sub(before).max(extended);
        let margin = safety_margin(timeout);
        let supervisor =
            Supervisor { over, last_end: over.saturating_sub(margin), kills: self.kills };
        let (timeout, margin) = (Seconds(timeout), Seconds(margin));
        Some((supervisor, format!("{} of {timeout}{offset} less {margin}", self.whose)))
    }
}

/// How systemd's stop timeout may be extended: progress of the phases restarts it, up to a ceiling.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Extension {
    /// The unit's stop timeout.
    pub(crate) granted: Duration,
    /// The longest time that the whole teardown may take.
    pub(crate) ceiling: Duration,
}

impl Extension {
    /// The next extension, at `elapsed` after the request, if the teardown may take `allowed` so
    /// far. Returns how long the teardown may take then, and how long systemd must wait from now
    /// on. `None` if this is not longer than `allowed`.
    pub(crate) fn next(self, elapsed: Duration, allowed: Duration) -> Option<(Duration, Duration)> {
        let margin = safety_margin(self.granted);
        let next = (elapsed + self.granted).saturating_sub(margin).min(self.ceiling);
        (next > allowed).then(|| (next, (next + margin).saturating_sub(elapsed)))
    }
}

impl Machine {
    /// How long a teardown that began at `began` with this context may take. `signalled` is when its
    /// first signal arrived.
    ///
    /// systemd's stop timeouts count if systemd says that it is stopping the unit, no matter which
    /// process sent the signal. They also count if systemd receives `STOPPING=1`: `kill PID` does not
    /// start systemd's timer, but `STOPPING=1` does. As long as systemd has not answered, they count
    /// if systemd may be the sender. A configured stop timeout counts from the first signal on, because
    /// the sender does not show which supervisor waits.
    pub(super) fn limit(
        &self,
        context: &ShutdownContext,
        began: Instant,
        signalled: Option<Instant>,
    ) -> Limit {
        let by_systemd = matches!(context.cause(), Cause::Systemd | Cause::Reboot | Cause::Unknown);
        let counts =
            |unit: &&Unit| unit.is_stopping.unwrap_or(by_systemd) || self.notifies_systemd();
        let timers = self.unit.as_ref().filter(counts).map_or(&[][..], |unit| &unit.timers);
        let extended = self.stop.as_ref().map_or(Duration::ZERO, |stop| stop.extended);
        let by_unit = timers.iter().enumerate().filter_map(|(nth, timer)| {
            // Only the timer of the unit itself can be extended.
            timer.over(began, if nth == 0 { extended } else { Duration::ZERO })
        });
        let by_config = self.config.stop_timeout.zip(signalled).and_then(|(timeout, since)| {
            let whose = "the configured stop timeout".to_owned();
            let timeout = Timespan::from(timeout);
            Timer { timeout, whose, since: Some(since), kills: true }.over(began, Duration::ZERO)
        });
        let nearest = by_unit.chain(by_config).min_by_key(|(supervisor, _)| supervisor.last_end);
        let supervisor = nearest.as_ref().map(|(supervisor, _)| *supervisor);
        let configured = self.config.deadline();
        match nearest {
            Some((supervisor, text)) if supervisor.last_end < configured => {
                let allowed = supervisor.last_end;
                let why = format!("deadline {}: {text}", Seconds(allowed));
                Limit { allowed, why, supervisor: Some(supervisor) }
            }
            _ => {
                let why = format!("deadline {}", Seconds(configured));
                Limit { allowed: configured, why, supervisor }
            }
        }
    }

    /// Whether systemd receives what we send with sd_notify.
    fn notifies_systemd(&self) -> bool {
        self.notifies && self.unit.as_ref().is_some_and(|unit| unit.accepts_messages)
    }

    /// Handles an answer of systemd, and moves the deadline of a stop that has begun.
    pub(super) fn unit_known(&mut self, unit: Unit, turn: &mut Turn) {
        // The answer to the question of the start may come late.
        let answers_stop = |unit: &Unit| unit.is_stopping.is_some();
        if self.unit.as_ref().is_some_and(answers_stop) && !answers_stop(&unit) {
            return;
        }
        let before = self.unit.replace(unit).and_then(|unit| unit.shortest());
        let timeout_changed = before != self.unit.as_ref().and_then(Unit::shortest);
        self.limit_again(timeout_changed, "systemd's answer", turn);
    }

    /// A signal has arrived. If the program had requested the stop, a supervisor waits only now.
    pub(super) fn signalled(&mut self, at: Instant, turn: &mut Turn) {
        if let Some(stop) = &mut self.stop
            && stop.signalled.is_none()
        {
            stop.signalled = Some(at);
            self.limit_again(false, "the first signal", turn);
        }
    }

    /// Computes the limit of a stop that has begun again, and moves its deadline. `timeout_changed`: systemd's
    /// stop timeout has changed. `by` says what has moved the deadline, for the log.
    fn limit_again(&mut self, timeout_changed: bool, by: &'static str, turn: &mut Turn) {
        let Some(stop) = &self.stop else { return };
        let mut limit = self.limit(&stop.context, stop.began, stop.signalled);
        if let Some(Supervisor { kills: false, .. }) = limit.supervisor {
            // No SIGKILL follows yet, so nothing is gained by taking time from the reserves.
            let reserved = turn.since(stop.began).saturating_add(self.reserved());
            let least = reserved.min(stop.limit.allowed);
            if limit.allowed < least {
                limit.allowed = least;
                limit.why = format!("deadline {}: the reserved time", Seconds(least));
            }
        }
        let is_moved = limit.allowed.abs_diff(stop.limit.allowed) >= NOTICEABLE;
        let has_ended = self.is_closing() || self.is_over();
        if !has_ended && (timeout_changed || is_moved) {
            turn.record(record::Event::DeadlineMoved(DeadlineMoved {
                deadline_us: Some(micros(limit.allowed)),
                stop_timeout_us: self.unit.as_ref().and_then(Unit::shortest),
            }));
            turn.log(LogEvent::DeadlineMoved { by, deadline: limit.why.clone() });
        }
        self.set_limit(limit, turn);
    }

    /// systemd was asked for more time, so that the stop may take `allowed` in all.
    pub(super) fn extend(&mut self, allowed: Duration, turn: &mut Turn) {
        let margin = self.granted().map_or(Duration::ZERO, safety_margin);
        if let Some(stop) = &mut self.stop {
            stop.extended = allowed.saturating_add(margin);
        }
        let Some(stop) = &self.stop else { return };
        let limit = self.limit(&stop.context, stop.began, stop.signalled);
        self.set_limit(limit, turn);
    }

    /// Moves the deadline, and every time that was computed from it.
    fn set_limit(&mut self, limit: Limit, turn: &mut Turn) {
        let reserved = self.plan.reserved();
        let Some(stop) = &mut self.stop else { return };
        stop.limit = limit;
        stop.adjust(turn);
        let deadline = stop.deadline();
        match &mut self.state {
            State::PreStopDelay { until, .. } => {
                stop.delay = self.config.pre_stop_delay.min(stop.limit.allowed);
                *until = stop.began + stop.delay.min(stop.limit.allowed.saturating_sub(reserved));
            }
            State::TearingDown(Stage::Service { until, .. }) => *until = deadline.min(*until),
            State::TearingDown(stage @ Stage::Diagnostic { .. }) => {
                *stage = stop.await_diagnostic();
            }
            _ => {}
        }
    }

    /// What the phases that have not ended have reserved.
    fn reserved(&self) -> Duration {
        let running = self.stop.iter().flat_map(|stop| stop.running.values());
        let running = running.map(|phase| phase.due.reserve).max().unwrap_or_default();
        self.plan.reserved().saturating_add(running)
    }

    /// The unit's stop timeout, if it is known and finite.
    fn granted(&self) -> Option<Duration> {
        self.unit.as_ref()?.timers.first()?.timeout.to_std()
    }

    /// How the deadline may be extended by asking systemd for more time. `None` if this is not
    /// configured, if systemd would not accept it, or if there is nothing to gain.
    pub(crate) fn extension(&self) -> Option<Extension> {
        let granted = self.granted()?;
        let asked = self.config.extend_ceiling?;
        let ceiling = highest(asked, self.config.deadline(), self.config.stop_timeout);
        let stop = self.stop.as_ref().filter(|_| self.notifies_systemd())?;
        // A timer of the user manager is not extended.
        let others = self.unit.iter().flat_map(|unit| unit.timers.iter().skip(1));
        let others = others.filter_map(|timer| timer.over(stop.began, Duration::ZERO));
        let ceiling = others.map(|(other, _)| other.last_end).fold(ceiling, Duration::min);
        (ceiling > stop.limit.allowed).then_some(Extension { granted, ceiling })
    }
}

/// The longest time that a teardown may be extended to: `asked`, but no longer than the deadline,
/// and no longer than the supervisor waits.
fn highest(asked: Duration, deadline: Duration, stop_timeout: Option<Duration>) -> Duration {
    let stop_timeout = stop_timeout
        .map_or(Duration::MAX, |stop_timeout| stop_timeout - safety_margin(stop_timeout));
    asked.min(deadline).min(stop_timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_extension_goes_past_the_deadline_or_the_stop_timeout() {
        let cases = [(30, 45, None, 30), (60, 45, None, 45), (60, 45, Some(90), 45)];
        for (asked, deadline, stop_timeout, expected) in cases {
            let [asked, deadline, expected] = [asked, deadline, expected].map(Duration::from_secs);
            let stop_timeout = stop_timeout.map(Duration::from_secs);
            assert_eq!(highest(asked, deadline, stop_timeout), expected);
        }
        let stop_timeout = Duration::from_secs(20);
        let at_most = highest(stop_timeout * 3, stop_timeout * 2, Some(stop_timeout));
        assert_eq!(at_most, stop_timeout - safety_margin(stop_timeout));
        assert!(at_most < stop_timeout);
    }

    #[test]
    fn progress_starts_the_stop_timeout_again_up_to_the_ceiling() {
        let seconds = Duration::from_secs;
        let extension = Extension { granted: seconds(10), ceiling: seconds(25) };
        // elapsed, allowed, expected
        let cases = [
            (0, 9, None),
            (3, 9, Some((12, 10))),
            (14, 12, Some((23, 10))),
            (20, 23, Some((25, 6))),
            (24, 25, None),
        ];
        for (elapsed, allowed, expected) in cases {
            let expected = expected.map(|(allowed, by)| (seconds(allowed), seconds(by)));
            assert_eq!(extension.next(seconds(elapsed), seconds(allowed)), expected);
        }
    }
}
