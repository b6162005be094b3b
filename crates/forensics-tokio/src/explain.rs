//! Asks systemd why it stops us. That takes too long to do before the context line.
//!
//! This is a separate task, so that no phase waits for it. The answer is logged as one event. After
//! a second the task gives up.

use std::sync::Arc;
use std::time::Duration;

use forensics_core::cause::Cause;
use forensics_core::context::ShutdownContext;
use forensics_core::systemd::{StopReason, stop_reason};

use crate::shutdown::Shutdown;
use crate::{events, systemctl};

/// How long systemd may take to answer. Two questions are asked at the same time.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// Asks systemd why it stops us, unless the cause shows that systemd did not request the stop. Then
/// notifies systemd that we are stopping. The order matters: after the notification systemd shows
/// the unit as stopping, and no longer shows the reason.
pub(crate) async fn explain_stop(shutdown: Arc<Shutdown>, context: Arc<ShutdownContext>) {
    ask(&shutdown, &context).await;
    // This starts systemd's stop timeout, if it is not running yet.
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
            // Then systemd does not say who sent the signal.
            StopReason::Kill | StopReason::Reload | StopReason::Unclear => context.cause(),
            _ => Cause::Systemd,
        };
        log.emit(move || events::explained(cause, &unit.unit, &reason));
    }
}
