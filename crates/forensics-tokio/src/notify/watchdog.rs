//! Feeds systemd's watchdog as long as the runtime answers.
//!
//! It is only a task. If no worker of the runtime is free to run it, `WATCHDOG=1` is not sent, and systemd
//! ends the service.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::lock::lock;
use crate::notify::Notifier;

/// How often systemd expects a message from this process (`sd_watchdog_enabled(3)`), if it expects any.
pub(crate) fn interval_of_environment() -> Option<Duration> {
    let variable = |name| std::env::var(name).ok();
    interval_for(variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"), std::process::id())
}

fn interval_for(usec: Option<String>, pid: Option<String>, ours: u32) -> Option<Duration> {
    // The variables were set for another process, whose environment we inherited.
    if pid.is_some_and(|pid| pid.parse() != Ok(ours)) {
        return None;
    }
    let usec: u64 = usec?.parse().ok()?;
    (usec > 0 && usec < u64::MAX).then(|| Duration::from_micros(usec))
}

/// When this process last sent `WATCHDOG=1`.
static FED: Mutex<Option<Instant>> = Mutex::new(None);

/// Whether a message may be overdue. If the guard does not send them, only the service knows.
pub(crate) fn may_be_overdue() -> bool {
    let fed = *lock(&FED);
    interval_of_environment().is_some_and(|every| fed.is_none_or(|fed| fed.elapsed() >= every))
}

/// Sends `WATCHDOG=1`, twice as often as systemd expects it. Never returns.
pub(crate) async fn feed(notifier: Notifier, every: Duration) {
    loop {
        notifier.feed_watchdog();
        *lock(&FED) = Some(Instant::now());
        // Not zero, which would never yield to the timer.
        sleep((every / 2).max(Duration::from_micros(1))).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_ours_only_if_the_pid_is() {
        let cases = [
            (Some("3000000"), Some("7"), Some(3)),
            (Some("3000000"), None, Some(3)),
            (Some("3000000"), Some("8"), None),
            (Some("3000000"), Some("x"), None),
            (Some("0"), Some("7"), None),
            (Some("3s"), Some("7"), None),
            (None, Some("7"), None),
        ];
        for (usec, pid, expected) in cases {
            let [usec, pid] = [usec, pid].map(|text| text.map(str::to_owned));
            assert_eq!(interval_for(usec, pid, 7), expected.map(Duration::from_secs));
        }
    }
}
