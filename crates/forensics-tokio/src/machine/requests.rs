//! Tells which signals are separate requests, and which repeat the last one.

use std::time::Duration;

use tokio::time::Instant;

/// Two signals less than this apart count as one request. For example, a terminal signals the whole
/// process group, and a wrapper that is in the group forwards its signal as well.
pub(crate) const SAME_REQUEST: Duration = Duration::from_millis(200);

/// How many repeated signals are listed in the log, the record and the report. All others are only
/// counted, except the second and the third request, which are always listed.
const MAX_LISTED: u32 = 32;

/// Counts the signals of a stop.
#[derive(Debug, Clone, Default)]
pub(super) struct Requests {
    /// How many requests there were.
    pub(super) count: u32,
    /// When the last signal arrived.
    last: Option<Instant>,
    listed: u32,
    unlisted: u64,
    /// How many signals found no free slot in the OS handler since the guard was installed.
    pub(super) missed: u64,
}

impl Requests {
    /// Counts a signal. Returns its number among the requests, or `None` if it is the same request
    /// as the signal before it.
    pub(super) fn add(&mut self, at: Instant) -> Option<u32> {
        let repeated =
            self.last.is_some_and(|last| at.saturating_duration_since(last) < SAME_REQUEST);
        self.last = Some(at);
        if repeated {
            return None;
        }
        self.count = self.count.saturating_add(1);
        Some(self.count)
    }

    /// Whether to list a repeated signal. If not, it is only counted.
    pub(super) fn may_list(&mut self, ordinal: Option<u32>) -> bool {
        let lists = self.listed < MAX_LISTED || matches!(ordinal, Some(2 | 3));
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

    /// For how long from `now` on another signal counts as the same request as the last one.
    pub(super) fn same_for(&self, now: Instant) -> Duration {
        let since = self.last.map_or(SAME_REQUEST, |last| now.saturating_duration_since(last));
        SAME_REQUEST.saturating_sub(since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_within_200_ms_of_each_other_are_one_request() {
        let mut requests = Requests::default();
        let start = Instant::now();
        let cases = [
            (0, Some(1)),
            (1, None),
            (200, None),
            (399, None),
            (599, Some(2)),
            (600, None),
            (1000, Some(3)),
        ];
        for (ms, ordinal) in cases {
            assert_eq!(requests.add(start + Duration::from_millis(ms)), ordinal, "at {ms} ms");
        }
        for (ms, same_for) in [(1000, 200), (1150, 50), (1200, 0), (5000, 0)] {
            let same_for = Duration::from_millis(same_for);
            assert_eq!(requests.same_for(start + Duration::from_millis(ms)), same_for, "{ms} ms");
        }
        assert_eq!(Requests::default().same_for(start), Duration::ZERO);
    }

    #[test]
    fn the_second_and_third_request_are_listed_however_many_signals_came() {
        let mut requests = Requests::default();
        let listed = (0..100).filter(|_| requests.may_list(None)).count();
        assert_eq!((listed, requests.unlisted()), (32, 68));
        assert!(requests.may_list(Some(2)) && requests.may_list(Some(3)));
        assert!(!requests.may_list(Some(4)));
    }
}
