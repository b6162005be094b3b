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
use forensics_core::record::Explained;
use forensics_core::systemd::{
    CgroupUnit, Manager, StopFacts, explain_final_kill, explain_stop, related_arguments,
};
use tokio::time::sleep;

use crate::machine::Event;
use crate::shutdown::Shutdown;
use crate::unit::{self, Answer};
use crate::{events, systemctl};

/// How long systemd may take to answer. Questions that do not depend on each other are asked at the
/// same time.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// How long after an answer systemd is asked again if no signal has arrived. A `daemon-reload`
/// changes a stop timeout that is running, and systemd may have been too busy to answer.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// The same while `ExecStop=` runs. Its end changes the time of the SIGKILL.
const AGAIN_IN_COMMAND: Duration = Duration::from_millis(500);

/// How far the search for the reason of the stop is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Search {
    /// systemd has not been asked yet.
    First,
    /// systemd did not show that it stops us. It may begin to stop us later.
    Later,
    /// The reason is known, or systemd no longer shows it.
    Over,
}

/// Asks systemd why it stops us and by when, again and again until the teardown has ended.
///
/// After the first answer it notifies systemd that we are stopping. The order matters: after the
/// notification systemd shows the unit as stopping, and no longer shows the reason.
pub(crate) async fn explain(shutdown: Arc<Shutdown>, context: Arc<ShutdownContext>) {
    let unit = context.systemd.unit.clone().filter(unit::can_be_asked);
    if let Some(explained) = explain_final_kill(&context) {
        shutdown.handle(Event::StopExplained(Box::new(explained)));
        return;
    }
    let Some(unit) = unit else {
        shutdown.notifier.stopping();
        return;
    };
    let mut search = Search::First;
    loop {
        let (answer, explained) = ask(&shutdown, &context, &unit, search).await;
        // This starts systemd's stop timeout, if it is not running yet.
        let is_told = search == Search::First && shutdown.notifier.stopping();
        search = if is_told || explained || search == Search::Over {
            Search::Over
        } else {
            Search::Later
        };
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

/// Asks systemd once. Reports its reason for the stop if that is still searched for, and returns
/// whether there was one.
async fn ask(
    shutdown: &Arc<Shutdown>,
    context: &ShutdownContext,
    unit: &CgroupUnit,
    search: Search,
) -> (Option<Answer>, bool) {
    let jobs = async {
        match search {
            Search::First | Search::Later => systemctl::list_jobs(unit.manager, ANSWER_LIMIT).await,
            Search::Over => Ok(String::new()),
        }
    };
    let (answer, jobs) = match tokio::try_join!(unit::ask(unit, ANSWER_LIMIT), jobs) {
        Ok(answers) => answers,
        Err(e) => {
            // The cause does not rule out that systemd has sent the signal.
            let may_be_systemd =
                matches!(context.cause(), Cause::Systemd | Cause::Watchdog | Cause::Unknown);
            if search == Search::First && may_be_systemd {
                shutdown.log.emit(move || events::unexplained(&e));
            }
            return (None, false);
        }
    };
    // The deadline first: the reason may need further answers.
    let mut known = answer.known(shutdown, true);
    // A command that has just sent us a signal may be about to end, and may not wait for us.
    if search == Search::First
        && answer.waits_for_a_command()
        && let Some(own) = known.timers.first_mut()
    {
        own.since = None;
    }
    shutdown.notifier.set_role(answer.role());
    shutdown.handle(Event::UnitKnown(known));
    let explained = match search {
        Search::Over => None,
        Search::Later if answer.properties.stop_timer().is_none() => None,
        Search::First | Search::Later => reason(context, &answer, &jobs).await,
    };
    let is_explained = explained.is_some();
    if let Some(explained) = explained {
        shutdown.handle(Event::StopExplained(Box::new(explained)));
    }
    (Some(answer), is_explained)
}

/// The reason for the stop. Asks about other units and other managers if they may be the reason.
async fn reason(context: &ShutdownContext, answer: &Answer, jobs: &str) -> Option<Explained> {
    let Answer { unit, properties, .. } = answer;
    let related = async {
        let Some(arguments) = related_arguments(unit, properties, jobs) else {
            return (String::new(), false);
        };
        let (related, is_booting) = tokio::join!(
            systemctl::ask(&arguments, ANSWER_LIMIT),
            systemctl::is_booting(unit.manager, ANSWER_LIMIT)
        );
        (related.unwrap_or_default(), is_booting)
    };
    let system_jobs = async {
        match unit.manager {
            Manager::User { .. } => systemctl::list_jobs(Manager::System, ANSWER_LIMIT).await.ok(),
            _ => None,
        }
    };
    let ((related, is_booting), system_jobs) = tokio::join!(related, system_jobs);
    let facts = StopFacts {
        unit,
        properties,
        jobs,
        related: &related,
        system_jobs: system_jobs.as_deref(),
        manager_stops: answer.manager_stops(),
        is_booting,
    };
    explain_stop(context, &facts)
}
