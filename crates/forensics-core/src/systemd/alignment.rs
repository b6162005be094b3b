//! Whether systemd waits long enough: compares its stop timeout with our drain timeout plus
//! headroom.
//!
//! systemd sends SIGKILL when `TimeoutStopSec=` is over, even in the middle of the
//! teardown. A service that may drain for longer than that can lose its last phases, most likely
//! under load. So this is checked at the start, and the arithmetic is shown.

use std::fmt::{self, Display};
use std::time::Duration;

use super::cgroup::Manager;
use super::drop_in::DropIn;
use crate::duration::Timespan;
use crate::escape::Escaped;

/// The default headroom: the time for the phases after the drain, and for a slow machine.
pub const DEFAULT_HEADROOM: Duration = Duration::from_secs(30);

/// The comparison of one stop timeout with one drain timeout.
///
/// `Display` prints the arithmetic:
///
/// ```
/// use forensics_core::duration::Timespan;
/// use forensics_core::systemd::{Alignment, DEFAULT_HEADROOM};
/// use std::time::Duration;
/// let gives = Timespan::Finite(45_000_000);
/// let alignment = Alignment::check(gives, Duration::from_secs(60), DEFAULT_HEADROOM);
/// assert!(!alignment.is_aligned());
/// assert_eq!(
///     alignment.to_string(),
///     "systemd gives 45s, drain 1min + headroom 30s = 1min 30s is needed: 45s short"
/// );
/// ```
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Alignment {
    /// How long the supervisor waits before SIGKILL.
    pub stop_timeout: Timespan,
    #[doc(hidden)]
    pub supervisor: Supervisor,
    /// The pre-stop delay, before the drain; often zero.
    pub pre_stop_delay: Duration,
    /// How long the drain may take.
    pub drain: Duration,
    /// The time that must remain after the drain.
    pub headroom: Duration,
    /// The needed time: the sum of these, at most [`Duration::MAX`].
    pub needed: Duration,
    /// By how much the stop timeout is too short. Zero if it is long enough.
    pub missing: Duration,
}

/// Who sends SIGKILL to a process that has not ended in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Supervisor {
    /// systemd, by `TimeoutStopSec=`.
    Systemd,
    /// The kubelet, by `terminationGracePeriodSeconds`, or another supervisor whose grace period was
    /// configured.
    GracePeriod,
    /// A platform whose default is known, such as Heroku.
    Platform,
}

impl Alignment {
    /// Compares systemd's stop timeout with the needed time. An exact fit is aligned. An infinite
    /// stop timeout is always aligned. With a stop timeout of zero, systemd kills at once.
    ///
    /// The spans are rounded up to microseconds, the unit of systemd. A sum that is too large
    /// becomes the largest span.
    pub fn check(stop_timeout: Timespan, drain: Duration, headroom: Duration) -> Self {
        Self::check_all(Supervisor::Systemd, stop_timeout, Duration::ZERO, drain, headroom)
    }

    /// The same for either supervisor, with a pre-stop delay.
    #[doc(hidden)]
    pub fn check_all(
        supervisor: Supervisor,
        stop_timeout: Timespan,
        pre_stop_delay: Duration,
        drain: Duration,
        headroom: Duration,
    ) -> Self {
        let [pre_stop_delay, drain, headroom] = [pre_stop_delay, drain, headroom].map(micros_up);
        let needed = pre_stop_delay.saturating_add(drain).saturating_add(headroom);
        let missing = needed.saturating_sub(stop_timeout.to_std().unwrap_or(Duration::MAX));
        Self { stop_timeout, supervisor, pre_stop_delay, drain, headroom, needed, missing }
    }

    /// Returns whether the supervisor waits long enough.
    pub fn is_aligned(&self) -> bool {
        self.missing.is_zero()
    }

    /// The line of a pod's manifest that fixes a [grace period](Supervisor::GracePeriod), such as
    /// `terminationGracePeriodSeconds: 65`.
    #[doc(hidden)]
    pub fn manifest_line(&self) -> String {
        let whole_seconds = self.needed.as_nanos().div_ceil(1_000_000_000);
        format!("terminationGracePeriodSeconds: {whole_seconds}")
    }

    /// One line for the log, with the unit, the arithmetic and the fix; `None` if aligned.
    ///
    /// The fix is left out if there is no [`DropIn`] for this type of unit.
    #[doc(hidden)]
    pub fn warning(&self, unit: &str, manager: Manager) -> Option<String> {
        let fix = DropIn::new(unit, manager, self.needed).map(|fix| {
            format!("; fix: `{}` with {} {}", fix.edit_command, fix.section, fix.setting)
        });
        let warning = || match fix {
            // A drop-in exists only for a valid name, which is safe to show.
            Some(fix) => format!("{unit}: {self}{fix}"),
            None => format!("{}: {self}", Escaped(unit)),
        };
        (!self.is_aligned()).then(warning)
    }
}

impl Display for Alignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gives = match self.supervisor {
            Supervisor::Systemd => "systemd gives",
            Supervisor::GracePeriod => "the grace period is",
            Supervisor::Platform => "the default stop timeout is",
        };
        write!(f, "{gives} {}, ", self.stop_timeout)?;
        if !self.pre_stop_delay.is_zero() {
            write!(f, "pre-stop delay {} + ", Timespan::from(self.pre_stop_delay))?;
        }
        let [drain, headroom, needed, missing] =
            [self.drain, self.headroom, self.needed, self.missing].map(Timespan::from);
        write!(f, "drain {drain} + headroom {headroom} = {needed} is needed: ")?;
        match self.stop_timeout.to_std() {
            _ if !self.is_aligned() => write!(f, "{missing} short"),
            None => f.write_str("aligned"),
            Some(given) => write!(f, "aligned, {} to spare", Timespan::from(given - self.needed)),
        }
    }
}

fn micros_up(span: Duration) -> Duration {
    match span.subsec_nanos() % 1_000 {
        0 => span,
        over => span.saturating_add(Duration::from_nanos(u64::from(1_000 - over))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn a_grace_period_is_fixed_by_a_whole_number_of_seconds() {
        let check = |grace: u64, delay_ms| {
            let alignment = Alignment::check_all(
                Supervisor::GracePeriod,
                Timespan::Finite(grace * SECOND),
                Duration::from_millis(delay_ms),
                Duration::from_secs(20),
                DEFAULT_HEADROOM,
            );
            (alignment.to_string(), alignment.manifest_line())
        };
        let cases = [
            (
                (30, 5_500),
                "the grace period is 30s, pre-stop delay 5.500000s + drain 20s + headroom 30s = 55.500000s is needed: \
                 25.500000s short",
                "terminationGracePeriodSeconds: 56",
            ),
            (
                (60, 0),
                "the grace period is 1min, drain 20s + headroom 30s = 50s is needed: aligned, 10s to \
                 spare",
                "terminationGracePeriodSeconds: 50",
            ),
        ];
        for ((grace, delay_ms), text, fix) in cases {
            assert_eq!(check(grace, delay_ms), (text.to_owned(), fix.to_owned()));
        }
    }

    #[test]
    fn a_default_of_a_platform_is_called_that() {
        let timeout = Timespan::Finite(5 * SECOND);
        let none = Duration::ZERO;
        let drain = Duration::from_secs(20);
        let alignment = Alignment::check_all(Supervisor::Platform, timeout, none, drain, none);
        let text =
            "the default stop timeout is 5s, drain 20s + headroom 0 = 20s is needed: 15s short";
        assert_eq!(alignment.to_string(), text);
    }

    #[test]
    fn a_timeout_that_fits_exactly_or_is_longer_is_aligned() {
        let s = Duration::from_secs;
        let (ns, us) = (Duration::from_nanos, Duration::from_micros);
        let aligned = |spare| Ok(Timespan::Finite(spare));
        let short = Err;
        let cases = [
            (Timespan::Finite(90 * SECOND), s(60), s(30), aligned(0)),
            (Timespan::Finite(100 * SECOND), s(60), s(30), aligned(10 * SECOND)),
            (Timespan::Finite(90 * SECOND - 1), s(60), s(30), short(us(1))),
            (Timespan::Finite(90 * SECOND), s(60) + ns(1), s(30), short(us(1))),
            (Timespan::Finite(90 * SECOND), s(60), s(30) + ns(1_001), short(us(2))),
            (Timespan::Finite(0), s(60), s(30), short(s(90))),
            (Timespan::Finite(0), s(0), s(0), aligned(0)),
            (Timespan::Infinite, s(60), s(30), Ok(Timespan::Infinite)),
            (Timespan::Infinite, Duration::MAX, s(30), Ok(Timespan::Infinite)),
            (Timespan::Finite(0), Duration::MAX, s(30), short(Duration::MAX)),
            (Timespan::Finite(SECOND), s(1), Duration::MAX, short(Duration::MAX - s(1))),
        ];
        for (stop_timeout, drain, headroom, expected) in cases {
            let alignment = Alignment::check(stop_timeout, drain, headroom);
            let missing = expected.err().unwrap_or_default();
            assert_eq!(alignment.missing, missing, "{stop_timeout} for {drain:?} + {headroom:?}");
            assert_eq!(alignment.is_aligned(), expected.is_ok());
            if let Ok(spare @ Timespan::Finite(_)) = expected {
                assert!(alignment.to_string().ends_with(&format!(": aligned, {spare} to spare")));
            }
        }
    }

    #[test]
    fn the_arithmetic_is_shown_in_systemds_units() {
        let cases = [
            (
                Timespan::Finite(120 * SECOND),
                "systemd gives 2min, drain 1min + headroom 30s = 1min 30s is needed: aligned, 30s to spare",
            ),
            (
                Timespan::Infinite,
                "systemd gives infinity, drain 1min + headroom 30s = 1min 30s is needed: aligned",
            ),
            (
                Timespan::Finite(0),
                "systemd gives 0, drain 1min + headroom 30s = 1min 30s is needed: 1min 30s short",
            ),
        ];
        for (stop_timeout, line) in cases {
            let alignment =
                Alignment::check(stop_timeout, Duration::from_secs(60), DEFAULT_HEADROOM);
            assert_eq!(alignment.to_string(), line);
        }
    }

    #[test]
    fn the_warning_names_unit_arithmetic_and_fix_on_one_line() {
        let short = Alignment::check(
            Timespan::Finite(45 * SECOND),
            Duration::from_millis(59_500),
            DEFAULT_HEADROOM,
        );
        let arithmetic = "systemd gives 45s, drain 59.500000s + headroom 30s = 1min 29.500000s is needed: 44.500000s short";
        let cases = [
            (
                "a.service",
                Manager::System,
                format!(
                    "a.service: {arithmetic}; fix: `systemctl edit a.service` with [Service] TimeoutStopSec=90s"
                ),
            ),
            (
                "a.scope",
                Manager::User { uid: 7 },
                format!(
                    "a.scope: {arithmetic}; fix: `systemctl --user edit a.scope` with [Scope] TimeoutStopSec=90s"
                ),
            ),
            (
                r"a\x2db.service",
                Manager::System,
                format!(
                    r"a\x2db.service: {arithmetic}; fix: `systemctl edit 'a\x2db.service'` with [Service] TimeoutStopSec=90s"
                ),
            ),
            ("a\nb.service", Manager::System, format!(r"a\nb.service: {arithmetic}")),
        ];
        for (unit, manager, line) in cases {
            assert_eq!(short.warning(unit, manager), Some(line));
        }
        let aligned =
            Alignment::check(Timespan::Infinite, Duration::from_secs(60), DEFAULT_HEADROOM);
        assert_eq!(aligned.warning("a.service", Manager::System), None);
    }

    proptest! {
        #[test]
        fn the_fix_makes_any_short_timeout_aligned(
            given in any::<u64>(), drain in any::<Duration>(), headroom in any::<Duration>()
        ) {
            let alignment = Alignment::check(Timespan::from_micros(given), drain, headroom);
            if !alignment.is_aligned() {
                let fix = DropIn::new("a.service", Manager::System, alignment.needed).unwrap();
                let value = fix.setting.strip_prefix("TimeoutStopSec=").unwrap();
                let fixed = crate::duration::parse_stop_timeout(value).unwrap();
                prop_assert!(Alignment::check(fixed, drain, headroom).is_aligned());
            }
        }
    }
}
