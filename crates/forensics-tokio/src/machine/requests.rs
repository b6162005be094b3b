//! Tells which signals are separate requests, and which of them escalate a stop.

use std::time::Duration;

use tokio::time::Instant;

/// A signal less than this after the first signal of a request belongs to the same request. For
/// example, a terminal signals the whole process group, and a wrapper that is in the group forwards
/// its signal as well.
pub(crate) const SAME_REQUEST: Duration = Duration::from_millis(200);

/// How many repeated signals are listed in the log, the record and the report. All others are only
/// counted, except those that escalate the stop, which are always listed.
const MAX_LISTED: u32 = 32;

/// Counts the signals of a stop.
#[derive(Debug, Clone, Default)]
pub(super) struct Requests {
    /// All requests.
    all: Count,
    /// The first request, and those later ones that the escalation policy counts.
    counted: Count,
    looked_up: u32,
    last_look_up: Option<Instant>,
    listed: u32,
    unlisted: u64,
    /// How many signals found no free slot in the OS handler since the guard was installed.
    pub(super) missed: u64,
}

/// Counts requests.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    count: u32,
    /// When the first signal of the last request arrived.
    since: Option<Instant>,
}

impl Count {
    /// Counts a signal. Returns its number among the requests, or `None` if it belongs to the last
    /// request.
    fn add(&mut self, at: Instant) -> Option<u32> {
        let repeats =
            self.since.is_some_and(|since| at.saturating_duration_since(since) < SAME_REQUEST);
        if repeats {
            return None;
        }
        self.since = Some(at);
        self.count = self.count.saturating_add(1);
        Some(self.count)
    }
}

impl Requests {
    /// Counts a signal. Returns its number among the requests, or `None` if it belongs to the last
    /// request.
    pub(super) fn add(&mut self, at: Instant) -> Option<u32> {
        let ordinal = self.all.add(at);
        if ordinal == Some(1) {
            self.counted = self.all;
        }
        ordinal
    }

    /// Counts a signal that the escalation policy counts. Returns its number among those requests,
    /// or `None` if it belongs to the last one.
    pub(super) fn escalate(&mut self, at: Instant) -> Option<u32> {
        self.counted.add(at)
    }

    /// How many requests there were.
    pub(super) fn count(&self) -> u32 {
        self.all.count
    }

    /// Whether to look up who sent this repeated signal. That takes time, so of very many signals
    /// only one in 200 ms is looked up. The others are only counted. The kernel's own signals, such
    /// as those of a key at the terminal, need no look-up.
    pub(super) fn may_look_up(&mut self, at: Instant, is_from_kernel: bool) -> bool {
        let is_rare =
            self.last_look_up.is_none_or(|last| at.saturating_duration_since(last) >= SAME_REQUEST);
        if self.looked_up >= MAX_LISTED && !is_rare && !is_from_kernel {
            self.unlisted += 1;
            return false;
        }
        self.looked_up = self.looked_up.saturating_add(1);
        self.last_look_up = Some(at);
        true
    }

    /// Whether to list a repeated signal. If not, it is only counted.
    pub(super) fn may_list(&mut self, escalates: bool) -> bool {
        let lists = self.listed < MAX_LISTED || escalates;
        if lists {
            self.listed += 1;
        } else {
            self.unlisted += 1;
        }
        lists
    }

    /// How many signals were only counted, or found no free slot in the OS handler.
    pub(super) fn unlisted(&self) -> u64 {
        self.unlisted.saturating_add(self.missed)
    }

    /// For how long from `now` on another signal belongs to the last request.
    pub(super) fn same_for(&self, now: Instant) -> Duration {
        let since =
            self.all.since.map_or(SAME_REQUEST, |since| now.saturating_duration_since(since));
        SAME_REQUEST.saturating_sub(since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_request_lasts_200_ms_from_its_first_signal_on() {
        let mut requests = Requests::default();
        let start = Instant::now();
        let cases = [
            (0, Some(1)),
            (1, None),
            (150, None),
            (199, None),
            (200, Some(2)),
            (399, None),
            (1000, Some(3)),
        ];
        for (at, ordinal) in cases {
            assert_eq!(requests.add(start + ms(at)), ordinal, "at {at} ms");
        }
        for (at, same_for) in [(1000, 200), (1150, 50), (1200, 0), (5000, 0)] {
            assert_eq!(requests.same_for(start + ms(at)), ms(same_for), "{at} ms");
        }
        assert_eq!(Requests::default().same_for(start), Duration::ZERO);
    }

    #[test]
    fn a_key_that_is_held_down_escalates_every_200_ms() {
        let mut requests = Requests::default();
        let start = Instant::now();
        assert_eq!(requests.add(start), Some(1));
        let repeats = (1..20).map(|n| n * 30);
        let escalates = repeats.filter(|&at| requests.escalate(start + ms(at)).is_some());
        assert_eq!(escalates.collect::<Vec<_>>(), [210, 420]);
    }

    #[test]
    fn signals_that_the_policy_does_not_count_hide_none_that_it_counts() {
        let mut requests = Requests::default();
        let start = Instant::now();
        for at in (0..1000).step_by(10) {
            requests.add(start + ms(at));
        }
        assert_eq!(requests.escalate(start + ms(1000)), Some(2));
        assert_eq!(requests.escalate(start + ms(1100)), None);
        assert_eq!(requests.escalate(start + ms(1200)), Some(3));
    }

    #[test]
    fn of_very_many_signals_some_are_looked_up_and_those_that_escalate_are_listed() {
        let mut requests = Requests::default();
        let start = Instant::now();
        let looked_up = (0..1000).filter(|&at| requests.may_look_up(start + ms(at), false));
        // The first 32, and then one in 200 ms.
        assert_eq!(looked_up.count(), 32 + 4);
        assert_eq!(requests.unlisted(), 1000 - 36);
        assert!(requests.may_look_up(start + ms(1000), true));
        assert!(!requests.may_look_up(start + ms(1001), false));

        let mut requests = Requests::default();
        let listed = (0..100).filter(|_| requests.may_list(false)).count();
        assert_eq!((listed, requests.unlisted()), (32, 68));
        assert!(requests.may_list(true) && !requests.may_list(false));
    }
}
