//! What the keeper looks for while a stop is under way.

use std::fmt::Write;
use std::time::Duration;

use forensics_core::escape::Quoted;
use forensics_core::record::ForcedBy;
use forensics_core::threads::Thread;
use tokio::time::Instant;

use crate::budget::Seconds;
use crate::stop::Stop;

/// How long the runtime may leave the keeper's question unanswered.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// How long before the deadline the last words are said.
const LAST_WORDS_BEFORE: Duration = Duration::from_millis(500);

/// How long whoever is late is watched before the process is ended.
pub(crate) const PAST_DEADLINE: Duration = Duration::from_millis(500);

/// Why an end is forced then.
pub(crate) const NOT_ENDED: &str = "the deadline is over and the teardown has not ended";

/// How long a process that is about to end has at least.
const TO_END: Duration = Duration::from_secs(1);

/// How soon after a stop's beginning the threads' CPU time is counted from. Not at once: that is when
/// all who have to do with the signal want a processor.
const COUNT_CPU_AFTER: Duration = Duration::from_millis(100);

/// How many threads are named.
const MAX_THREADS: usize = 64;

/// How long before its deadline the last words of a teardown are said that may take so long.
pub(crate) fn last_words_before(allowed: Duration) -> Duration {
    LAST_WORDS_BEFORE.min(allowed / 10)
}

/// What has been seen of one stop so far.
#[derive(Debug, Default)]
pub(crate) struct Vigil {
    /// When the runtime was asked, if it has not answered since.
    asked: Option<Instant>,
    said_blocked: bool,
    said_last_words: bool,
    /// Since when it has been late.
    late: Option<Instant>,
    /// The threads soon after the stop began, for the CPU time of each.
    at_start: Option<Vec<Thread>>,
}

/// What the keeper has to do something about.
#[derive(Debug)]
pub(crate) enum Alarm {
    /// Somebody should know.
    Wedged {
        /// What does not move, with all that may explain it.
        detail: String,
        /// The phases that run past their time, and for how long; none where it is the runtime.
        phases: Vec<(String, Duration)>,
        /// For how long the runtime has not answered.
        waited: Duration,
    },
    /// The process has to go.
    PastDeadline {
        /// Which end did not come.
        by: ForcedBy,
        /// The same, with all that may explain it.
        detail: String,
    },
}

impl Vigil {
    /// Whether there is nothing to watch: no stop has begun, or it has ended and nobody has said
    /// that the process would.
    pub(crate) fn is_over(&self, stop: &Stop) -> bool {
        !stop.has_begun() || (stop.is_finished() && stop.exit_expected().is_none())
    }

    /// Looks at a stop that has begun.
    pub(crate) fn look(&mut self, stop: &Stop, now: Instant) -> Option<Alarm> {
        let deadline = stop.deadline()?;
        if self.at_start.is_none() && stop.since_begun() >= COUNT_CPU_AFTER {
            self.at_start = Some(Thread::all(MAX_THREADS));
        }
        if let Some(ended) = stop.exit_expected().or_else(|| stop.ended()) {
            let why = match stop.exit_expected() {
                Some(_) => {
                    "the process did not end after its teardown: the runtime's drop waits for a \
                     blocked thread"
                }
                None => "the teardown has ended, but not what is to be recorded of that",
            };
            let overdue = self.is_overdue(deadline.max(ended + TO_END), now);
            let alarm = || Alarm::PastDeadline {
                by: ForcedBy::NoExit,
                detail: self.describe(why, stop, now),
            };
            return overdue.then(alarm);
        }
        if self.is_overdue(deadline, now) {
            let detail = self.describe(NOT_ENDED, stop, now);
            return Some(Alarm::PastDeadline { by: ForcedBy::Deadline, detail });
        }
        if self.is_blocked(stop, now) {
            let why = format!("the runtime has not answered for {}", Seconds(ANSWER_WITHIN));
            let detail = self.describe(&why, stop, now);
            return Some(Alarm::Wedged { detail, phases: Vec::new(), waited: ANSWER_WITHIN });
        }
        let before = last_words_before(stop.allowed());
        // It can have been moved since.
        self.said_last_words &= now + before >= deadline;
        if !self.said_last_words && now + before >= deadline && now < deadline {
            self.said_last_words = true;
            let detail = self.describe("the deadline is near", stop, now);
            let phases = stop.running().into_iter();
            let phases = phases
                .map(|one| (one.named.name.clone(), now.saturating_duration_since(one.started)));
            return Some(Alarm::Wedged {
                detail,
                phases: phases.collect(),
                waited: Duration::ZERO,
            });
        }
        None
    }

    /// Whether `end` has passed, and that has been watched for a while: who was stopped, as by
    /// SIGSTOP or in a frozen control group, has then had as long to end by itself as who was not.
    fn is_overdue(&mut self, end: Instant, now: Instant) -> bool {
        if now < end {
            self.late = None;
            return false;
        }
        let late = *self.late.get_or_insert(now);
        now.saturating_duration_since(late) >= PAST_DEADLINE
    }

    /// Asks the runtime for a sign of life, and says once of each time that none came.
    fn is_blocked(&mut self, stop: &Stop, now: Instant) -> bool {
        if stop.has_answered() {
            self.asked = None;
            self.said_blocked = false;
        }
        let asked = *self.asked.get_or_insert_with(|| {
            stop.ask();
            now
        });
        let blocked = now.saturating_duration_since(asked) >= ANSWER_WITHIN;
        blocked && !std::mem::replace(&mut self.said_blocked, blocked)
    }

    /// `why`, the context where nobody has logged it yet, the phases that run, what the runtime
    /// counts, and all threads: one line, safe to show.
    fn describe(&self, why: &str, stop: &Stop, now: Instant) -> String {
        let mut text = why.to_owned();
        // Writing to a String does not fail.
        if let Some(context) = stop.unsaid() {
            let _ = write!(text, "; Shutdown context: {context}");
        }
        for running in stop.running() {
            let ran = Seconds(now.saturating_duration_since(running.started));
            let _ = write!(text, "; phase {} has run for {ran}", Quoted(&running.named.name));
        }
        let metrics = stop.metrics();
        let _ = write!(
            text,
            "; runtime: {} workers, {} tasks, {} queued",
            metrics.num_workers(),
            metrics.num_alive_tasks(),
            metrics.global_queue_depth(),
        );
        let threads = Thread::all(MAX_THREADS);
        if threads.is_empty() {
            return text;
        }
        text.push_str("; threads:");
        for thread in threads {
            let _ = write!(text, " {thread}");
            if let Some(at_start) = &self.at_start {
                let then = at_start.iter().find(|one| one.tid == thread.tid);
                let before = then.map_or(0, |one| one.cpu_ticks);
                // A clock tick is 10 ms on every Linux that Rust runs on (USER_HZ).
                let cpu = Duration::from_millis(thread.cpu_ticks.saturating_sub(before) * 10);
                let _ = write!(text, " cpu={}", Seconds(cpu));
            }
            text.push(',');
        }
        text.pop();
        text
    }
}

#[cfg(test)]
mod tests {
    use forensics_core::context::Trigger;
    use tokio::time::advance;

    use super::*;
    use crate::ShutdownGuard;

    #[tokio::test(start_paused = true)]
    async fn a_process_has_a_second_to_end_however_late_its_teardown_has() {
        let step = Duration::from_millis(100);
        let guard = ShutdownGuard::builder("test").signals([]).deadline(step * 30);
        let guard = guard.install().unwrap();
        let stop = guard.stop();
        stop.begin(Trigger::Request { reason: "test".to_owned() });
        advance(step * 29).await;
        stop.expect_exit();
        let mut vigil = Vigil::default();
        let mut left = Duration::ZERO;
        let by = loop {
            match vigil.look(&stop, stop.now()) {
                Some(Alarm::PastDeadline { by, .. }) => break by,
                Some(Alarm::Wedged { detail, .. }) => panic!("{detail}"),
                None => advance(step).await,
            }
            left += step;
        };
        assert_eq!(by, ForcedBy::NoExit);
        // It is watched for a while before it is late.
        assert_eq!(left, TO_END + PAST_DEADLINE);
    }
}
