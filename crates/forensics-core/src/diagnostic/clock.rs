//! The instant of the look, on the three clocks its sections are read against.

use super::shown;
use crate::os;
use nix::time::{ClockId, clock_gettime};
use std::fmt::{self, Display};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(super) struct Clocks {
    /// Since 1970, UTC.
    pub(super) wall: Duration,
    /// Since boot, time asleep included: what `/proc/PID/stat` counts a start time in. Asked from
    /// the kernel and not from `/proc/uptime`, where lxcfs shows a container's own.
    pub(super) since_boot: Option<Duration>,
    /// Since boot, time asleep left out: near enough to what the kernel's log counts in.
    pub(super) monotonic: Duration,
}

impl Clocks {
    pub(super) fn now() -> Self {
        let monotonic = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
        Self {
            // A wall clock before 1970 shows as 1970.
            wall: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            since_boot: os::since_boot(),
            monotonic: monotonic.unwrap_or_default(),
        }
    }
}

impl Display for Clocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&rfc3339(self.wall))?;
        match self.since_boot {
            Some(since_boot) => write!(f, ", up {}", shown::elapsed(since_boot)),
            None => Ok(()),
        }
    }
}

/// UTC with microseconds, as RFC 3339 has it.
fn rfc3339(since_1970: Duration) -> String {
    let seconds = since_1970.as_secs();
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let micros = since_1970.subsec_micros();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar: Howard
/// Hinnant's `civil_from_days`. A year is taken to start in March, so that the leap day is its
/// last and the lengths of the months before it follow one rule.
fn civil(day: u64) -> (u64, u64, u64) {
    const DAYS_IN_400_YEARS: u64 = 146_097;
    const FROM_0000_03_01: u64 = 719_468;
    let day = day + FROM_0000_03_01;
    let (era, of_era) = (day / DAYS_IN_400_YEARS, day % DAYS_IN_400_YEARS);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day_of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_read_as_their_utc_date() {
        // By `date -u -d @N`.
        let cases = [
            (0, "1970-01-01T00:00:00"),
            (68_169_600, "1972-02-29T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (951_868_800, "2000-03-01T00:00:00"),
            (1_709_164_800, "2024-02-29T00:00:00"),
            (1_735_689_599, "2024-12-31T23:59:59"),
            (1_735_689_600, "2025-01-01T00:00:00"),
            (4_107_542_399, "2100-02-28T23:59:59"),
            (4_107_542_400, "2100-03-01T00:00:00"),
            (253_402_300_799, "9999-12-31T23:59:59"),
        ];
        for (seconds, date) in cases {
            let micros = Duration::new(seconds, 42_999);
            assert_eq!(rfc3339(micros), format!("{date}.000042Z"));
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let (mut year, mut month, mut day) = civil(0);
        for n in 1..=200_000 {
            let next = civil(n);
            let expected = match next {
                (y, 1, 1) => y == year + 1 && (month, day) == (12, 31),
                (y, m, 1) => y == year && m == month + 1 && day >= 28,
                (y, m, d) => y == year && m == month && d == day + 1,
            };
            assert!(expected, "{next:?} after {:?}", (year, month, day));
            (year, month, day) = next;
        }
    }

    #[test]
    fn a_clock_that_is_far_off_is_still_shown() {
        assert!(rfc3339(Duration::MAX).ends_with('Z'));
    }
}
