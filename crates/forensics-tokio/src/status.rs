//! Notifies systemd during a teardown: which phases run, for how long, and what they recorded. If the
//! program allows it, systemd is also asked for more time while the phases make progress.
//!
//! It only reads the machine, and no phase waits for it.

use std::sync::Arc;
use std::time::Duration;

use forensics_core::logfmt::Value;
use forensics_core::record::values_line;
use tokio::time::timeout;

use crate::events;
use crate::machine::{Event, Seconds, Snapshot};
use crate::shutdown::Shutdown;

/// How often the machine is read. It is read more often if the unit's stop timeout is shorter than five
/// times this.
const EVERY: Duration = Duration::from_secs(1);

/// Runs until it is dropped; never returns.
pub(crate) async fn update(shutdown: Arc<Shutdown>) {
    if !shutdown.notifier.is_connected() {
        return std::future::pending().await;
    }
    let mut changes = shutdown.changed.subscribe();
    let mut seen = 0;
    let mut is_logged = false;
    loop {
        let (snapshot, extension) = {
            let machine = shutdown.machine();
            let is_tearing_down = machine.is_tearing_down();
            let snapshot = machine.snapshot(shutdown.now()).filter(|_| is_tearing_down);
            (snapshot, machine.extension())
        };
        let Some(snapshot) = snapshot else {
            // There is no error, because the sender is in `shutdown`.
            let _ = changes.changed().await;
            continue;
        };
        shutdown.notifier.status(&describe(&snapshot));
        // So that even a stop timeout of one second is extended in time.
        let every = extension.map_or(EVERY, |extension| EVERY.min(extension.granted / 5));
        if let Some(extension) = extension
            && snapshot.progress != seen
            && let Some((allowed, by)) = extension.next(snapshot.since, snapshot.allowed)
            // The deadline must not move if the message was not sent.
            && shutdown.notifier.extend(by).await
        {
            seen = snapshot.progress;
            shutdown.handle(Event::Extended(allowed));
            if !std::mem::replace(&mut is_logged, true) {
                let say = move || events::extending(extension.granted, extension.ceiling);
                shutdown.log.emit(say);
            }
        }
        let _ = timeout(every, changes.changed()).await;
    }
}

/// Such as `Stopping: phase drain 3.2s active_now=7`.
fn describe(snapshot: &Snapshot) -> String {
    let phases = snapshot.running.iter().map(|(name, ran, values)| {
        let text = format!("phase {} {} {}", Value(name), Seconds(*ran), values_line(values));
        text.trim_end().to_owned()
    });
    let phases: Vec<_> = phases.collect();
    if phases.is_empty() { "Stopping".into() } else { format!("Stopping: {}", phases.join("; ")) }
}
