//! How much time each phase gets: pure arithmetic over one deadline.
//!
//! A phase gets the smaller of its own timeout and what remains until the deadline less the
//! reserves of the phases after it. So no phase can eat what a later one has reserved, and with
//! reserves that fit into the deadline every one of them is honoured, whatever happens before.

use std::fmt::{self, Display};
use std::time::Duration;

/// What the arithmetic needs to know of a phase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) name: String,
    /// The most it may take; `None` for as long as there is time.
    pub(crate) timeout: Option<Duration>,
    /// What earlier phases must leave to it.
    pub(crate) reserve: Duration,
}

/// What a phase gets when it starts with `remaining` left until the deadline, while the phases
/// after it have reserved `later` in all.
///
/// Its own reserve is its due even where the later ones ask for more than there is.
pub(crate) fn allowance(claim: &Claim, remaining: Duration, later: Duration) -> Duration {
    let due = claim.reserve.min(remaining);
    let open = remaining.saturating_sub(later).max(due);
    claim.timeout.map_or(open, |timeout| timeout.min(open))
}

/// The longest a teardown of these phases can take within `deadline`, with the sum that shows it.
pub(crate) fn worst_case(claims: &[Claim], deadline: Duration) -> WorstCase {
    let mut remaining = deadline;
    let mut parts = Vec::with_capacity(claims.len());
    let mut later: Duration = claims.iter().map(|claim| claim.reserve).sum();
    for claim in claims {
        later = later.saturating_sub(claim.reserve);
        let share = allowance(claim, remaining, later);
        remaining -= share;
        parts.push((claim.name.clone(), share));
    }
    let reserved = claims.iter().map(|claim| claim.reserve).sum();
    WorstCase { total: deadline - remaining, parts, deadline, reserved }
}

/// The longest that a teardown can take.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorstCase {
    /// The whole; never more than the deadline.
    pub total: Duration,
    /// Each phase's share, in order.
    pub parts: Vec<(String, Duration)>,
    /// The deadline it was reckoned with.
    pub deadline: Duration,
    /// All reserves together.
    pub reserved: Duration,
}

impl WorstCase {
    /// Whether all reserves together fit into the deadline. Where they do not, the last phases
    /// can come away with nothing.
    pub fn is_possible(&self) -> bool {
        self.reserved <= self.deadline
    }
}

/// `notify 5.00s + drain 30.00s + db_close 5.00s = 40.00s of 45.00s`
impl Display for WorstCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, share)) in self.parts.iter().enumerate() {
            let plus = if i == 0 { "" } else { " + " };
            write!(f, "{plus}{name} {:.2}s", share.as_secs_f64())?;
        }
        if !self.parts.is_empty() {
            f.write_str(" = ")?;
        }
        write!(f, "{:.2}s of {:.2}s", self.total.as_secs_f64(), self.deadline.as_secs_f64())?;
        if !self.is_possible() {
            write!(f, ", with {:.2}s reserved", self.reserved.as_secs_f64())?;
        }
        Ok(())
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
            // More is reserved than there is: first come, first served.
            (None, 5, 8, 5, 5),
            (None, 5, 3, 5, 3),
        ];
        for (timeout, reserve, remaining, later, expected) in cases {
            let [remaining, later, expected] =
                [remaining, later, expected].map(Duration::from_secs);
            assert_eq!(allowance(&claim(timeout, reserve), remaining, later), expected);
        }
    }

    #[test]
    fn the_worst_case_shows_its_sum() {
        let claims = [
            Claim { name: "notify".into(), ..claim(Some(5), 0) },
            Claim { name: "drain".into(), ..claim(Some(60), 0) },
            Claim { name: "db_close".into(), ..claim(None, 5) },
        ];
        let worst = worst_case(&claims, Duration::from_secs(45));
        let text = "notify 5.00s + drain 35.00s + db_close 5.00s = 45.00s of 45.00s";
        assert_eq!(worst.to_string(), text);
        assert!(worst.is_possible());

        let bounded = worst_case(&claims[..1], Duration::from_secs(45));
        assert_eq!(bounded.total, Duration::from_secs(5));
        assert_eq!(worst_case(&[], Duration::from_secs(45)).to_string(), "0.00s of 45.00s");

        let greedy = [claim(None, 30), claim(None, 30)];
        let worst = worst_case(&greedy, Duration::from_secs(45));
        assert!(!worst.is_possible());
        assert!(worst.to_string().ends_with("= 45.00s of 45.00s, with 60.00s reserved"));
    }
}
