//! How long a teardown may take, by the configuration and by the supervisor's stop timeout.

use std::time::Duration;

use forensics_core::cause::Cause;
use forensics_core::context::ShutdownContext;
use forensics_core::duration::Timespan;

use super::{Machine, Seconds};
use crate::config::safety_margin;

/// What systemd has reported about our unit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unit {
    pub(crate) stop_timeout: Timespan,
    /// Whether systemd accepts what this process sends with sd_notify.
    pub(crate) heeds_us: bool,
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
    /// How long a teardown with this context may take, and a text that says where the limit comes
    /// from.
    ///
    /// systemd's stop timeout counts if systemd may be the sender. It also counts if systemd
    /// receives `STOPPING=1`: `kill PID` does not start systemd's timer, but `STOPPING=1` does. A
    /// configured stop timeout counts for every signal, because the sender does not show which
    /// supervisor waits.
    pub(super) fn limit(&self, context: &ShutdownContext) -> (Duration, String) {
        let configured = self.config.deadline();
        let by_systemd = matches!(context.cause(), Cause::Systemd | Cause::Reboot | Cause::Unknown);
        let told = self.notifies && self.unit.is_some_and(|unit| unit.heeds_us);
        let by_unit = self.granted().filter(|_| by_systemd || told);
        let by_unit = by_unit.map(|granted| (granted, "the unit's stop timeout"));
        let by_config = self.config.stop_timeout.filter(|_| context.signal().is_some());
        let by_config = by_config.map(|granted| (granted, "the configured stop timeout"));
        if let Some((granted, whose)) = by_unit.into_iter().chain(by_config).min() {
            let margin = safety_margin(granted);
            let allowed = granted - margin;
            if allowed < configured {
                let (granted, margin) = (Seconds(granted), Seconds(margin));
                let deadline = Seconds(allowed);
                let why = format!("deadline {deadline}: {whose} of {granted} less {margin}");
                return (allowed, why);
            }
        }
        (configured, format!("deadline {}", Seconds(configured)))
    }

    /// The unit's stop timeout, if it is known and finite.
    fn granted(&self) -> Option<Duration> {
        self.unit?.stop_timeout.to_std()
    }

    /// How the deadline may be extended by asking systemd for more time. `None` if this is not
    /// configured, if systemd would not accept it, or if there is nothing to gain.
    pub(crate) fn extension(&self) -> Option<Extension> {
        let granted = self.granted()?;
        let asked = self.config.extend_ceiling?;
        let ceiling = highest(asked, self.config.deadline(), self.config.stop_timeout);
        let heeded = self.unit?.heeds_us && self.notifies;
        let allowed = self.stop.as_ref()?.allowed;
        (heeded && ceiling > allowed).then_some(Extension { granted, ceiling })
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
