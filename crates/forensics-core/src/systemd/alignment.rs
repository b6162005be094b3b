//! Whether systemd waits long enough: its stop timeout against our drain timeout plus headroom.
//!
//! systemd sends SIGKILL when `TimeoutStopSec=` is over, however far the teardown has come. A
//! service that may drain for longer than that can lose its last phases, most likely under load. So
//! this is calculated at the start, and the arithmetic is shown.

use std::fmt::{self, Display};
use std::time::Duration;

use super::cgroup::Manager;
use super::drop_in::DropIn;
use crate::duration::Timespan;
use crate::escape::Plain;

/// The default headroom: what is kept for the phases after the drain, and for systemd and the
/// machine being slow.
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
/// let alignment = Alignment::judge(gives, Duration::from_secs(60), DEFAULT_HEADROOM);
/// assert!(!alignment.is_aligned());
/// assert_eq!(
///     alignment.to_string(),
///     "systemd gives 45s, drain 1min + headroom 30s = 1min 30s is needed: 45s short"
/// );
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Alignment {
    /// What the supervisor gives.
    pub timeout_stop: Timespan,
    /// Which supervisor that is.
    pub supervisor: Supervisor,
    /// The pre-stop delay, before the drain; often zero.
    pub lead: Duration,
    /// How long the drain may take.
    pub drain: Duration,
    /// What is to be left after that.
    pub headroom: Duration,
    /// What is needed: their sum, at most [`Duration::MAX`].
    pub needed: Duration,
    /// The outcome.
    pub verdict: Verdict,
}

/// Who kills what has not ended in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Supervisor {
    /// systemd, by `TimeoutStopSec=`.
    Systemd,
    /// The kubelet, by `terminationGracePeriodSeconds`, or another supervisor whose grace period was
    /// configured.
    GracePeriod,
}

/// The outcome of [`Alignment::judge`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// systemd gives what is needed.
    Aligned {
        /// What it gives beyond that; infinite where it waits forever.
        spare: Timespan,
    },
    /// SIGKILL can come before the teardown has ended.
    Short {
        /// What is missing, more than zero.
        missing: Duration,
    },
}

impl Alignment {
    /// Compares what systemd gives with what is needed. An exact fit is aligned, and so is any
    /// need where systemd waits forever. Zero is taken as it is: systemd then kills at once.
    ///
    /// The spans are rounded up to microseconds, in which systemd counts. A sum that is too large
    /// stays at the largest.
    #[must_use]
    pub fn judge(timeout_stop: Timespan, drain: Duration, headroom: Duration) -> Self {
        Self::judge_all(Supervisor::Systemd, timeout_stop, Duration::ZERO, drain, headroom)
    }

    /// The same for either supervisor, with a pre-stop delay (`lead`), which comes before the drain.
    #[must_use]
    pub fn judge_all(
        supervisor: Supervisor,
        timeout_stop: Timespan,
        lead: Duration,
        drain: Duration,
        headroom: Duration,
    ) -> Self {
        let [lead, drain, headroom] = [lead, drain, headroom].map(micros_up);
        let needed = lead.saturating_add(drain).saturating_add(headroom);
        let verdict = match timeout_stop.to_std() {
            None => Verdict::Aligned { spare: Timespan::Infinite },
            Some(given) if given < needed => Verdict::Short { missing: needed - given },
            Some(given) => Verdict::Aligned { spare: (given - needed).into() },
        };
        Self { timeout_stop, supervisor, lead, drain, headroom, needed, verdict }
    }

    /// Whether the supervisor gives what is needed.
    #[must_use]
    pub fn is_aligned(&self) -> bool {
        matches!(self.verdict, Verdict::Aligned { .. })
    }

    /// The line of a pod's manifest that mends a [grace period](Supervisor::GracePeriod), such as
    /// `terminationGracePeriodSeconds: 65`.
    #[must_use]
    pub fn manifest_line(&self) -> String {
        let whole_seconds = self.needed.as_nanos().div_ceil(1_000_000_000);
        format!("terminationGracePeriodSeconds: {whole_seconds}")
    }

    /// One line for the log, with the unit, the arithmetic and the fix; `None` where aligned.
    ///
    /// Without the fix where there is no [`DropIn`] for such a unit.
    #[must_use]
    pub fn warning(&self, unit: &str, manager: Manager) -> Option<String> {
        let warning = || match DropIn::new(unit, manager, self.needed) {
            Some(drop_in) => {
                let (command, section) = (drop_in.edit_command(), drop_in.section());
                // A name that a drop-in was made for is valid, so it is safe to show.
                format!("{unit}: {self}; mend: `{command}` with {section} {}", drop_in.setting())
            }
            None => format!("{}: {self}", Plain(unit)),
        };
        (!self.is_aligned()).then(warning)
    }
}

impl Display for Alignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gives = match self.supervisor {
            Supervisor::Systemd => "systemd gives",
            Supervisor::GracePeriod => "the grace period is",
        };
        write!(f, "{gives} {}, ", self.timeout_stop)?;
        if !self.lead.is_zero() {
            write!(f, "lead {} + ", Timespan::from(self.lead))?;
        }
        let [drain, headroom, needed] =
            [self.drain, self.headroom, self.needed].map(Timespan::from);
        write!(f, "drain {drain} + headroom {headroom} = {needed} is needed: ")?;
        match self.verdict {
            Verdict::Aligned { spare: Timespan::Infinite } => f.write_str("aligned"),
            Verdict::Aligned { spare } => write!(f, "aligned, {spare} to spare"),
            Verdict::Short { missing } => write!(f, "{} short", Timespan::from(missing)),
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
    fn a_grace_period_is_mended_by_a_whole_number_of_seconds() {
        let judge = |grace: u64, lead_ms| {
            let alignment = Alignment::judge_all(
                Supervisor::GracePeriod,
                Timespan::Finite(grace * SECOND),
                Duration::from_millis(lead_ms),
                Duration::from_secs(20),
                DEFAULT_HEADROOM,
            );
            (alignment.to_string(), alignment.manifest_line())
        };
        let cases = [
            (
                (30, 5_500),
                "the grace period is 30s, lead 5.500000s + drain 20s + headroom 30s = 55.500000s is needed: \
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
        for ((grace, lead_ms), text, mend) in cases {
            assert_eq!(judge(grace, lead_ms), (text.to_owned(), mend.to_owned()));
        }
    }

    #[test]
    fn a_timeout_is_aligned_from_an_exact_fit_on() {
        let s = Duration::from_secs;
        let (ns, us) = (Duration::from_nanos, Duration::from_micros);
        let aligned = |spare| Verdict::Aligned { spare: Timespan::Finite(spare) };
        let short = |missing| Verdict::Short { missing };
        let cases = [
            (Timespan::Finite(90 * SECOND), s(60), s(30), aligned(0)),
            (Timespan::Finite(100 * SECOND), s(60), s(30), aligned(10 * SECOND)),
            (Timespan::Finite(90 * SECOND - 1), s(60), s(30), short(us(1))),
            (Timespan::Finite(90 * SECOND), s(60) + ns(1), s(30), short(us(1))),
            (Timespan::Finite(90 * SECOND), s(60), s(30) + ns(1_001), short(us(2))),
            (Timespan::Finite(0), s(60), s(30), short(s(90))),
            (Timespan::Finite(0), s(0), s(0), aligned(0)),
            (Timespan::Infinite, s(60), s(30), Verdict::Aligned { spare: Timespan::Infinite }),
            (
                Timespan::Infinite,
                Duration::MAX,
                s(30),
                Verdict::Aligned { spare: Timespan::Infinite },
            ),
            (Timespan::Finite(0), Duration::MAX, s(30), short(Duration::MAX)),
            (Timespan::Finite(SECOND), s(1), Duration::MAX, short(Duration::MAX - s(1))),
        ];
        for (timeout_stop, drain, headroom, verdict) in cases {
            let alignment = Alignment::judge(timeout_stop, drain, headroom);
            assert_eq!(alignment.verdict, verdict, "{timeout_stop} for {drain:?} + {headroom:?}");
            assert_eq!(alignment.is_aligned(), matches!(verdict, Verdict::Aligned { .. }));
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
        for (timeout_stop, line) in cases {
            let alignment =
                Alignment::judge(timeout_stop, Duration::from_secs(60), DEFAULT_HEADROOM);
            assert_eq!(alignment.to_string(), line);
        }
    }

    #[test]
    fn the_warning_names_unit_arithmetic_and_mend_on_one_line() {
        let short = Alignment::judge(
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
                    "a.service: {arithmetic}; mend: `systemctl edit a.service` with [Service] TimeoutStopSec=90s"
                ),
            ),
            (
                "a.scope",
                Manager::User { uid: 7 },
                format!(
                    "a.scope: {arithmetic}; mend: `systemctl --user edit a.scope` with [Scope] TimeoutStopSec=90s"
                ),
            ),
            (
                r"a\x2db.service",
                Manager::System,
                format!(
                    r"a\x2db.service: {arithmetic}; mend: `systemctl edit 'a\x2db.service'` with [Service] TimeoutStopSec=90s"
                ),
            ),
            ("a\nb.service", Manager::System, format!(r"a\nb.service: {arithmetic}")),
        ];
        for (unit, manager, line) in cases {
            assert_eq!(short.warning(unit, manager), Some(line));
        }
        let aligned =
            Alignment::judge(Timespan::Infinite, Duration::from_secs(60), DEFAULT_HEADROOM);
        assert_eq!(aligned.warning("a.service", Manager::System), None);
    }

    proptest! {
        #[test]
        fn the_mend_makes_any_short_timeout_aligned(
            given in any::<u64>(), drain in any::<Duration>(), headroom in any::<Duration>()
        ) {
            let alignment = Alignment::judge(Timespan::from_micros(given), drain, headroom);
            if !alignment.is_aligned() {
                let mend = DropIn::new("a.service", Manager::System, alignment.needed).unwrap();
                let setting = mend.setting();
                let value = setting.strip_prefix("TimeoutStopSec=").unwrap();
                let mended = crate::duration::parse_stop_timeout(value).unwrap();
                prop_assert!(Alignment::judge(mended, drain, headroom).is_aligned());
            }
        }
    }
}
