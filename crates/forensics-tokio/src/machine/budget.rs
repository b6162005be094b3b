//! How much time each phase gets: pure arithmetic over one deadline.
//!
//! A phase gets the time that remains until the deadline, minus the reserves of the phases after
//! it, and never more than its timeout. So no phase can use the time that a later one has reserved.
//! If all reserves fit into the deadline, each phase gets its reserve, even if earlier phases time
//! out.

use std::fmt::{self, Display};
use std::time::Duration;

use forensics_core::logfmt::Value;
use tokio::time::Instant;

/// What a phase asks for: its timeout and its reserve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) name: String,
    /// The longest time that the phase may take. `None` means as long as there is time.
    pub(crate) timeout: Option<Duration>,
    /// The time that earlier phases must leave for this one.
    pub(crate) reserve: Duration,
}

/// The time of a phase that has started. After an escalation it may use only its reserve.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    pub(crate) started: Instant,
    timeout: Option<Duration>,
    pub(crate) reserve: Duration,
    /// The sum of the reserves of the phases after it.
    later: Duration,
}

impl Budget {
    /// The budget of a phase that starts at `started`.
    pub(crate) fn new(claim: &Claim, later: Duration, started: Instant) -> Self {
        let Claim { timeout, reserve, .. } = *claim;
        Self { started, timeout, reserve, later }
    }

    /// The budget of a member of this group. A member shares the time and the reserve of its group.
    pub(crate) fn of_member(self, timeout: Option<Duration>) -> Self {
        Self { timeout: self.timeout.into_iter().chain(timeout).min(), ..self }
    }

    /// The time that the phase may take with this deadline. It gets its own reserve even if the later
    /// phases reserve more than is left.
    pub(crate) fn all(&self, deadline: Instant) -> Duration {
        let remaining = deadline.saturating_duration_since(self.started);
        let open = remaining.saturating_sub(self.later).max(self.reserve.min(remaining));
        self.timeout.map_or(open, |timeout| timeout.min(open))
    }

    /// The time that the phase could take if the phases after it had no reserves.
    pub(crate) fn unreserved(&self, deadline: Instant) -> Duration {
        Self { later: Duration::ZERO, ..*self }.all(deadline)
    }
}

/// The longest time that a teardown can take.
/// [`ShutdownGuard::worst_case`](crate::ShutdownGuard::worst_case) returns it.
///
/// Its `Display` shows the sum, such as
/// `pre_stop_delay 5.00s + drain 30.00s + db_close (open, 5.00s reserved) = at most 50.00s`. `open`
/// means that the phase has no timeout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorstCase {
    pub(super) claims: Vec<Claim>,
    pub(super) deadline: Duration,
}

impl WorstCase {
    /// Returns the sum of the pre-stop delay and the timeouts of all phases, but never more than
    /// the deadline. If a phase has no timeout, it is the deadline.
    pub fn duration(&self) -> Duration {
        self.timeouts().map_or(self.deadline, |sum| sum.min(self.deadline))
    }

    /// Whether the deadline covers all reserves. If not, the last phases may get no time.
    pub(crate) fn is_possible(&self) -> bool {
        self.reserves() <= self.deadline
    }

    fn timeouts(&self) -> Option<Duration> {
        let mut timeouts = self.claims.iter().map(|claim| claim.timeout);
        timeouts.try_fold(Duration::ZERO, |sum, timeout| Some(sum.saturating_add(timeout?)))
    }

    fn reserves(&self) -> Duration {
        let reserves = self.claims.iter().map(|claim| claim.reserve);
        reserves.fold(Duration::ZERO, Duration::saturating_add)
    }
}

impl Display for WorstCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Claim { name, timeout, reserve }) in self.claims.iter().enumerate() {
            let plus = if i == 0 { "" } else { " + " };
            let name = Value(name);
            match (timeout, reserve.is_zero()) {
                (Some(timeout), _) => write!(f, "{plus}{name} {}", Seconds(*timeout))?,
                (None, true) => write!(f, "{plus}{name} (open)")?,
                (None, false) => write!(f, "{plus}{name} (open, {} reserved)", Seconds(*reserve))?,
            }
        }
        if self.claims.is_empty() {
            f.write_str("no phases")?;
        }
        let deadline = Seconds(self.deadline);
        match self.timeouts().filter(|&sum| sum > self.deadline) {
            Some(sum) => write!(f, " = {}, cut at the deadline of {deadline}", Seconds(sum))?,
            None => write!(f, " = at most {}", Seconds(self.duration()))?,
        }
        if !self.is_possible() {
            write!(f, ", though {} are reserved in all", Seconds(self.reserves()))?;
        }
        Ok(())
    }
}

/// A duration as the log shows it: `1.25s`, `7.5ms`, `85us`.
pub(crate) struct Seconds(pub(crate) Duration);

impl Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = self.0.as_micros();
        match us {
            0 => f.write_str("0s"),
            1..1_000 => write!(f, "{us}us"),
            1_000..10_000 if us % 1_000 >= 50 && us % 1_000 < 950 => {
                write!(f, "{:.1}ms", us as f64 / 1e3)
            }
            1_000..999_500 => write!(f, "{}ms", (us + 500) / 1_000),
            _ => write!(f, "{}", Offset(self.0)),
        }
    }
}

/// The time since the signal, always in seconds: `0.01s`.
pub(crate) struct Offset(pub(crate) Duration);

impl Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2}s", self.0.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(timeout: Option<u64>, reserve: u64) -> Claim {
        let timeout = timeout.map(Duration::from_secs);
        Claim { name: "x".into(), timeout, reserve: Duration::from_secs(reserve) }
    }

    #[test]
    fn a_phase_gets_its_timeout_or_what_the_later_ones_leave() {
        // timeout, reserve, remaining, later, expected
        let cases = [
            (Some(30), 0, 45, 5, 30),
            (Some(30), 0, 20, 5, 15),
            (None, 0, 45, 5, 40),
            (None, 0, 4, 5, 0),
            (None, 5, 5, 0, 5),
            (Some(3), 5, 5, 0, 3),
            (None, 5, 4, 0, 4),
            // More is reserved than there is time. The earlier phase gets its reserve.
            (None, 5, 8, 5, 5),
            (None, 5, 3, 5, 3),
        ];
        for (timeout, reserve, remaining, later, expected) in cases {
            let [remaining, later, expected] =
                [remaining, later, expected].map(Duration::from_secs);
            let started = Instant::now();
            let budget = Budget::new(&claim(timeout, reserve), later, started);
            assert_eq!(budget.all(started + remaining), expected);
        }
    }

    #[test]
    fn a_short_duration_is_not_shown_as_zero() {
        let cases = [
            (0, "0s"),
            (1, "1us"),
            (999, "999us"),
            (1_000, "1ms"),
            (7_500, "7.5ms"),
            (7_970, "8ms"),
            (9_960, "10ms"),
            (12_499, "12ms"),
            (300_000, "300ms"),
            (999_499, "999ms"),
            (999_500, "1.00s"),
            (1_250_000, "1.25s"),
            (30_000_000, "30.00s"),
        ];
        for (us, shown) in cases {
            assert_eq!(Seconds(Duration::from_micros(us)).to_string(), shown);
        }
        assert_eq!(Offset(Duration::from_micros(7_500)).to_string(), "0.01s");
    }

    #[test]
    fn the_worst_case_shows_its_sum() {
        let named = |name: &str, claim| Claim { name: name.to_owned(), ..claim };
        let cases = [
            (
                vec![named("notify", claim(None, 0)), named("db_close", claim(None, 5))],
                "notify (open) + db_close (open, 5.00s reserved) = at most 45.00s",
                45,
            ),
            (vec![named("drain", claim(Some(30), 5))], "drain 30.00s = at most 30.00s", 30),
            (
                vec![named("drain", claim(Some(60), 0)), named("db_close", claim(Some(5), 5))],
                "drain 60.00s + db_close 5.00s = 65.00s, cut at the deadline of 45.00s",
                45,
            ),
            (
                vec![named("a", claim(None, 30)), named("b", claim(Some(20), 20))],
                "a (open, 30.00s reserved) + b 20.00s = at most 45.00s, \
                 though 50.00s are reserved in all",
                45,
            ),
            (vec![], "no phases = at most 0s", 0),
        ];
        for (claims, text, worst) in cases {
            let sum = WorstCase { claims, deadline: Duration::from_secs(45) };
            assert_eq!(sum.to_string(), text);
            assert_eq!(sum.duration(), Duration::from_secs(worst));
            assert_eq!(sum.is_possible(), !text.contains("though"));
        }
    }
}
