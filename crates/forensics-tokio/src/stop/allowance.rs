//! How long a teardown may take: what was configured, and what systemd and the operator grant.

use std::time::Duration;

use forensics_core::cause::Cause;
use forensics_core::context::ShutdownContext;
use forensics_core::duration::Timespan;
use tokio::time::Instant;

use super::Stop;
use crate::budget::Seconds;
use crate::config::safety_margin;

/// What systemd has said of our unit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unit {
    pub(crate) stop_timeout: Timespan,
    /// Whether it takes what this process tells it by sd_notify.
    pub(crate) heeds_us: bool,
}

impl Stop {
    /// How long a teardown may take that this context began, and why so.
    ///
    /// systemd's stop timeout counts where systemd may be the one who stops us, and where it hears
    /// of the teardown by `STOPPING=1`: a kill(1) by itself starts no timeout. A grace period that
    /// we were told of counts for every signal, as nothing tells for sure who would wait for it.
    pub(super) fn limit(&self, context: &ShutdownContext) -> (Duration, String) {
        let configured = self.config.deadline();
        let by_systemd = matches!(context.cause(), Cause::Systemd | Cause::Reboot | Cause::Unknown);
        let told =
            self.notifier.is_connected() && self.unit.get().is_some_and(|unit| unit.heeds_us);
        let by_unit = self.granted().filter(|_| by_systemd || told);
        let by_unit = by_unit.map(|(granted, _)| (granted, "the unit's stop timeout"));
        let by_grace = self.config.grace.filter(|_| context.signal().is_some());
        let by_grace = by_grace.map(|granted| (granted, "the grace period"));
        let shortest = by_unit.into_iter().chain(by_grace).min();
        if let Some((granted, whose)) = shortest {
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
        let asked = self.config.extend_ceiling?;
        let ceiling = highest(asked, self.config.deadline(), self.config.grace);
        let heeded = self.unit.get()?.heeds_us && self.notifier.is_connected();
        (heeded && ceiling > self.allowed()).then_some(ceiling)
    }

    /// Moves the deadline.
    pub(crate) fn extend(&self, allowed: Duration) {
        self.note(&mut |state| state.extended = Some(allowed));
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

    /// The same, and whether a second signal has asked for haste.
    pub(crate) fn terms(&self) -> (Duration, bool) {
        let state = self.state.borrow();
        (state.allowed(), state.hurried)
    }
}

/// How long a teardown may take at most whose time may be extended so far: no longer than the deadline,
/// nor than whoever stops us waits.
fn highest(asked: Duration, deadline: Duration, grace: Option<Duration>) -> Duration {
    let grace = grace.map_or(Duration::MAX, |grace| grace - safety_margin(grace));
    asked.min(deadline).min(grace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_extension_goes_past_the_deadline_or_the_grace_period() {
        let cases = [(30, 45, None, 30), (60, 45, None, 45), (60, 45, Some(90), 45)];
        for (asked, deadline, grace, expected) in cases {
            let [asked, deadline, expected] = [asked, deadline, expected].map(Duration::from_secs);
            let grace = grace.map(Duration::from_secs);
            assert_eq!(highest(asked, deadline, grace), expected);
        }
        let grace = Duration::from_secs(20);
        let at_most = highest(grace * 3, grace * 2, Some(grace));
        assert_eq!(at_most, grace - safety_margin(grace));
        assert!(at_most < grace);
    }
}
