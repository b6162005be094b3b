//! What is known of a stop, and waited for: what began it, and what has been asked since.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::begun::{Begun, LeadEnd};
use crate::report::LaterSignal;

/// Two signals closer together than this are one request delivered twice: a terminal signals the
/// whole process group, a wrapper forwards what it got, too.
pub(crate) const SAME_REQUEST: Duration = Duration::from_millis(200);

/// How many of the later signals are listed, one by one, in the log, the record and the report;
/// the second and the third request always are. Whoever sends thousands gets a number.
const MAX_LISTED: usize = 32;

/// What tasks wait for.
#[derive(Debug, Default)]
pub(crate) struct StopState {
    /// Somebody asked, and the context is captured.
    pub(crate) begun: Option<Arc<Begun>>,
    /// The number of the words that log the context.
    pub(super) words: u64,
    /// They have been said.
    pub(super) said: bool,
    /// The same as `begun`, once that is so, the lead is over and the token is cancelled.
    pub(crate) announced: Option<Arc<Begun>>,
    /// Why the lead is over, once it is.
    pub(super) lead_ended: Option<LeadEnd>,
    /// How long it lasted.
    pub(super) led: Duration,
    /// A second signal came: only what has a reserve goes on.
    pub(crate) hurried: bool,
    /// How long the teardown may take instead, since systemd was asked for more.
    pub(crate) extended: Option<Duration>,
    /// Signals after the one that began the stop.
    pub(crate) later: Vec<LaterSignal>,
    /// How many more there were than are listed.
    pub(super) unlisted: u64,
}

impl StopState {
    pub(super) fn allowed(&self) -> Duration {
        let begun = self.begun.as_ref().map_or(Duration::ZERO, |begun| begun.allowed);
        self.extended.unwrap_or(begun)
    }

    /// Whether the next signal is listed.
    pub(super) fn has_room(&self, ordinal: Option<u32>) -> bool {
        self.later.len() < MAX_LISTED || matches!(ordinal, Some(2 | 3))
    }

    /// Whether the service still goes on as before.
    pub(super) fn is_leading(&self) -> bool {
        let leads = self.begun.as_ref().is_some_and(|begun| !begun.lead.is_zero());
        leads && self.announced.is_none() && self.lead_ended.is_none()
    }

    /// What a second signal does: it ends the lead where that lasts, else it asks for haste.
    /// Returns whether it was the lead.
    pub(super) fn hurry(&mut self) -> bool {
        let leading = self.is_leading();
        match leading {
            true => self.lead_ended = Some(LeadEnd::Haste),
            false => self.hurried |= self.begun.is_some(),
        }
        leading
    }
}

/// Counts requests to stop.
#[derive(Debug, Default)]
pub(super) struct SignalCount {
    pub(super) requests: u32,
    /// When the last signal came.
    last: Option<Instant>,
}

impl SignalCount {
    pub(super) fn add(&mut self, at: Instant) -> Option<u32> {
        let repeated =
            self.last.is_some_and(|last| at.saturating_duration_since(last) < SAME_REQUEST);
        self.last = Some(at);
        if repeated {
            return None;
        }
        self.requests = self.requests.saturating_add(1);
        Some(self.requests)
    }

    /// For how long from `now` on a signal would still be the same request as the last one.
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
        let mut count = SignalCount::default();
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
            assert_eq!(count.add(start + Duration::from_millis(ms)), ordinal, "at {ms} ms");
        }
        for (ms, same_for) in [(1000, 200), (1150, 50), (1200, 0), (5000, 0)] {
            let same_for = Duration::from_millis(same_for);
            assert_eq!(count.same_for(start + Duration::from_millis(ms)), same_for, "at {ms} ms");
        }
        assert_eq!(SignalCount::default().same_for(start), Duration::ZERO);
    }
}
