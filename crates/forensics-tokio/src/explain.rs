//! Asks systemd at a stop why it stops us, and by when. That takes too long to do before the
//! context line.
//!
//! This is a separate task, so that no phase waits for it. systemd is asked whatever the cause is:
//! a signal by `ExecStop=/bin/kill $MAINPID`, or a request over HTTP by an `ExecStop=` script,
//! belongs to systemd's stop as well. The stop timeout may have been changed since the start, and
//! systemd may begin its own stop while ours is running. So systemd is asked again when another
//! signal arrives, and from time to time.

use std::sync::Arc;
use std::time::Duration;

use forensics_core::cause::Cause;
use forensics_core::context::ShutdownContext;
use forensics_core::systemd::{CgroupUnit, StopReason, stop_reason};
use tokio::time::sleep;

use crate::machine::Event;
use crate::shutdown::Shutdown;
use crate::unit::{self, Answer};
use crate::{events, systemctl};

/// How long systemd may take to answer. All questions are asked at the same time.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// How long after an answer systemd is asked again if no signal has arrived. A `daemon-reload`
/// changes a stop timeout that is running.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// The same while `ExecStop=` runs. Its end changes the time of the SIGKILL.
const AGAIN_IN_COMMAND: Duration = Duration::from_millis(500);

/// Asks systemd why it stops us and by when, again and again until the teardown has ended.
///
/// After the first answer it notifies systemd that we are stopping. The order matters: after the
/// notification systemd shows the unit as stopping, and no longer shows the reason.
pub(crate) async fn explain_stop(shutdown: Arc<Shutdown>, context: Arc<ShutdownContext>) {
    let unit = context.systemd.unit.clone().filter(CgroupUnit::has_stop_timeout);
    let Some(unit) = unit else {
        shutdown.notifier.stopping();
        return;
    };
    let mut is_first = true;
    let mut is_explained = false;
    loop {
        let answer = ask(&shutdown, &context, &unit, is_first, &mut is_explained).await;
        // This starts systemd's stop timeout, if it is not running yet.
        if std::mem::take(&mut is_first) && shutdown.notifier.stopping() {
            is_explained = true;
        }
        let in_command = answer.is_some_and(|answer| answer.waits_for_a_command());
        let again = if in_command { AGAIN_IN_COMMAND } else { AGAIN_AFTER };
        tokio::select! {
            () = shutdown.ask_again.notified() => {}
            () = sleep(again) => {}
            () = is_over(&shutdown) => return,
        }
    }
}

/// Waits until the teardown has ended.
async fn is_over(shutdown: &Shutdown) {
    let mut changed = shutdown.changed.subscribe();
    while !shutdown.machine().is_over() {
        // There is no error, because the sender is in `shutdown`.
        let _ = changed.changed().await;
    }
}

/// Asks systemd once. Logs its reason for the stop, unless `is_explained`.
async fn ask(
    shutdown: &Arc<Shutdown>,
    context: &ShutdownContext,
    unit: &CgroupUnit,
    is_first: bool,
    is_explained: &mut bool,
) -> Option<Answer> {
    let may_explain = !*is_explained;
    let jobs = async {
        match may_explain {
            true => systemctl::list_jobs(unit.manager, ANSWER_LIMIT).await,
            false => Ok(String::new()),
        }
    };
    // The cause does not rule out that systemd has sent the signal.
    let may_be_systemd =
        matches!(context.cause(), Cause::Systemd | Cause::Watchdog | Cause::Unknown);
    let log = &shutdown.log;
    let (answer, jobs) = match tokio::try_join!(unit::ask(unit, ANSWER_LIMIT), jobs) {
        Ok(answers) => answers,
        Err(e) => {
            if is_first && may_be_systemd {
                log.emit(move || events::unexplained(&e));
            }
            return None;
        }
    };
    let properties = &answer.properties;
    if may_explain
        && (is_first && may_be_systemd || properties.stop_timer().is_some())
        && let Some(reason) = stop_reason(&unit.unit, properties, &jobs)
    {
        *is_explained = true;
        let cause = match reason {
            StopReason::Reboot { .. } => Cause::Reboot,
            StopReason::Watchdog => Cause::Watchdog,
            // The unit is not being stopped, so the watchdog has sent nothing.
            StopReason::Kill | StopReason::Reload if context.cause() == Cause::Watchdog => {
                Cause::Systemd
            }
            // Then systemd does not say who sent the signal.
            StopReason::Kill | StopReason::Reload | StopReason::Unclear => context.cause(),
            _ => Cause::Systemd,
        };
        let unit = unit.unit.clone();
        log.emit(move || events::explained(cause, &unit, &reason));
    }
    let mut known = answer.known(shutdown, true);
    // A command that has just sent us a signal may be about to end, and may not wait for us.
    if is_first
        && answer.waits_for_a_command()
        && let Some(own) = known.timers.first_mut()
    {
        own.since = None;
    }
    shutdown.notifier.set_role(answer.role());
    shutdown.handle(Event::UnitKnown(known));
    Some(answer)
}
