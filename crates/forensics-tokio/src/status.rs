//! What the service manager is told during a teardown: which phases run, since when, and how far
//! they are; and, where the user allows it, that it wait longer for as long as they get on.
//!
//! Not on the way of any phase: it looks from beside, at what [`Stop`] knows.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use forensics_core::escape::Quoted;
use forensics_core::record::values_line;
use tokio::time::sleep;

use crate::budget::Seconds;
use crate::events;
use crate::notify::Notifier;
use crate::stop::Stop;

/// How often it looks, unless the unit's stop timeout asks for more.
const EVERY: Duration = Duration::from_secs(1);

/// Tells, until it is dropped; never returns.
pub(crate) async fn tell(notifier: Notifier, stop: Arc<Stop>) {
    if !notifier.is_connected() {
        return std::future::pending().await;
    }
    let extension = Extension::of(&stop);
    // A timeout of a second has to be extended in time, too.
    let every = extension.as_ref().map_or(EVERY, |extension| EVERY.min(extension.granted / 5));
    let mut seen = stop.progress();
    let mut said = false;
    loop {
        notifier.status(&describe(&stop));
        tokio::select! {
            () = stop.phases_changed() => {}
            () = sleep(every) => {}
        }
        let Some(extension) = &extension else { continue };
        let now = stop.progress();
        if now == seen {
            continue;
        }
        let Some((allowed, by)) = extension.next(stop.since_begun(), stop.allowed()) else {
            continue;
        };
        // Only what systemd has been asked for may be used.
        if notifier.extend(by).await {
            seen = now;
            stop.extend(allowed);
            if !std::mem::replace(&mut said, true) {
                let extension = *extension;
                let say = move || events::extending(extension.granted, extension.ceiling);
                stop.voice.say(say);
            }
        }
    }
}

/// How systemd's stop timeout may be moved: each sign of progress starts it anew, up to a ceiling.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Extension {
    /// The unit's stop timeout.
    granted: Duration,
    /// What of it is kept back.
    margin: Duration,
    /// The longest the whole teardown may be allowed.
    ceiling: Duration,
}

impl Extension {
    /// `None` where there is nothing to be moved, or nobody who may.
    fn of(stop: &Stop) -> Option<Self> {
        let (granted, margin) = stop.granted()?;
        let ceiling = stop.ceiling()?;
        Some(Self { granted, margin, ceiling })
    }

    /// After so long, with so much `allowed`: what shall be allowed, and what to ask systemd for
    /// from now on. `None` where that is no more than there is.
    fn next(self, elapsed: Duration, allowed: Duration) -> Option<(Duration, Duration)> {
        let anew = (elapsed + self.granted).saturating_sub(self.margin).min(self.ceiling);
        (anew > allowed).then(|| (anew, (anew + self.margin).saturating_sub(elapsed)))
    }
}

/// Such as `Stopping: phase drain 3.2s active_now=7`.
fn describe(stop: &Stop) -> String {
    let mut text = "Stopping".to_owned();
    for (n, running) in stop.running().iter().enumerate() {
        let between = if n == 0 { ": phase" } else { "; phase" };
        let ran = Seconds(running.started.elapsed());
        // Writing to a String does not fail.
        let _ = write!(text, "{between} {} {ran}", Quoted(&running.named.name));
        let recorded = values_line(&running.recorded.all());
        if !recorded.is_empty() {
            let _ = write!(text, " {recorded}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_starts_the_timeout_anew_up_to_the_ceiling() {
        let seconds = Duration::from_secs;
        let extension =
            Extension { granted: seconds(10), margin: seconds(1), ceiling: seconds(25) };
        // elapsed, allowed, expected
        let cases = [
            (0, 9, None),
            (3, 9, Some((12, 10))),
            (14, 12, Some((23, 10))),
            (20, 23, Some((25, 6))),
            (24, 25, None),
        ];
        for (elapsed, allowed, expected) in cases {
            let expected = expected.map(|(allowed, by)| (seconds(allowed), seconds(by)));
            assert_eq!(extension.next(seconds(elapsed), seconds(allowed)), expected);
        }
    }
}
