//! Why systemd stops us, which takes too long to find out before the context line.
//!
//! It is asked in a task of its own, so that no phase waits. The answer is one event, within a second
//! or not at all.

use std::sync::Arc;
use std::time::Duration;

use forensics_core::cause::Cause;
use forensics_core::context::ShutdownContext;
use forensics_core::systemd::{StopReason, stop_reason};

use crate::shutdown::Shutdown;
use crate::{events, systemctl};

/// How long each question may take; two are asked at once.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// Asks systemd why it stops us, if it may be the one that does, and then tells it that we stop: from
/// then on it shows the unit as being stopped, and no longer why.
pub(crate) async fn explain_stop(shutdown: Arc<Shutdown>, context: Arc<ShutdownContext>) {
    ask(&shutdown, &context).await;
    // systemd's stop timeout runs from here on, if it did not yet.
    shutdown.notifier.push("STOPPING=1");
}

async fn ask(shutdown: &Shutdown, context: &ShutdownContext) {
    let asked = matches!(context.cause(), Cause::Systemd | Cause::Watchdog | Cause::Unknown);
    let unit = context.systemd.unit.clone().filter(|unit| asked && unit.has_stop_timeout());
    let Some(unit) = unit else { return };
    let answers = tokio::try_join!(
        systemctl::show(&unit, ANSWER_LIMIT),
        systemctl::list_jobs(unit.manager, ANSWER_LIMIT),
    );
    let log = &shutdown.log;
    let (properties, jobs) = match answers {
        Ok(answers) => answers,
        Err(e) => return log.emit(move || events::unexplained(&e)),
    };
    if let Some(reason) = stop_reason(&unit.unit, &properties, &jobs) {
        let cause = match reason {
            StopReason::Reboot { .. } => Cause::Reboot,
            StopReason::Watchdog => Cause::Watchdog,
            _ => Cause::Systemd,
        };
        log.emit(move || events::stop_reason(cause, &unit.unit, &reason));
    }
}
