//! Asks systemd about our unit: how long it waits for a stop, whether it is stopping the unit, and
//! whether we are its main process.

use std::sync::Arc;
use std::time::Duration;

use forensics_core::clock;
use forensics_core::process::ProcessSummary;
use forensics_core::systemd::{CgroupUnit, Manager, UnitProperties};
use nix::unistd::geteuid;
use tokio::time::{sleep, timeout};

use crate::blocking::off_runtime;
use crate::describe::READ_LIMIT;
use crate::machine::{Event, Timer, Unit};
use crate::notify::Role;
use crate::report::micros;
use crate::shutdown::Shutdown;
use crate::systemctl;

/// When a process that is not the main process first asks whether it has become the main process. The
/// pause before each later question is twice as long.
const FIRST_QUESTION: Duration = Duration::from_secs(1);

/// The longest pause between two of these questions.
const LONGEST_PAUSE: Duration = Duration::from_secs(64);

/// Whether systemd is asked about the unit: it has a stop timeout, and its manager is that of the system
/// or of our user. A process that root has started in the session of another user, as by sudo(8), can be
/// in a unit of that user's manager, which may answer anything.
pub(crate) fn can_be_asked(unit: &CgroupUnit) -> bool {
    let is_trusted = match unit.manager {
        Manager::User { uid } => uid == geteuid().as_raw(),
        _ => true,
    };
    unit.has_stop_timeout() && is_trusted
}

/// systemd's answer about our unit.
pub(crate) struct Answer {
    pub(crate) unit: CgroupUnit,
    pub(crate) properties: UnitProperties,
    /// The service of the user manager that runs the unit, and its properties.
    pub(crate) outer: Option<(CgroupUnit, UnitProperties)>,
    /// When the running command of `ExecStop=` was started, on `CLOCK_MONOTONIC`, if that is known.
    command_since_us: Option<u64>,
}

/// Asks systemd, and for a user unit also the system manager about the service of the user manager.
/// Without its answer the timeout of the unit alone counts. It cannot be asked by an unprivileged
/// process without a system bus.
///
/// # Errors
/// A text, if systemd does not answer within `limit`.
pub(crate) async fn ask(unit: &CgroupUnit, limit: Duration) -> Result<Answer, String> {
    let outer = unit.manager_unit();
    let ask_outer = async {
        let outer = outer?;
        let properties = systemctl::show(&outer, limit).await.ok()?;
        Some((outer, properties))
    };
    let (properties, outer) = tokio::join!(systemctl::show(unit, limit), ask_outer);
    let properties = properties?;
    let command_since_us = command_since_us(&properties).await;
    Ok(Answer { unit: unit.clone(), properties, outer, command_since_us })
}

/// When the running command of `ExecStop=` was started. Each command has the whole stop timeout, but
/// systemd does not report when the timer was started again for the second one.
async fn command_since_us(properties: &UnitProperties) -> Option<u64> {
    let pid = properties.control_pid.filter(|_| properties.stop_timer().is_some())?;
    let pid = i32::try_from(pid).ok()?;
    let age = off_runtime(move || ProcessSummary::read_stat(pid).age());
    let age = timeout(READ_LIMIT, age).await.ok()?.ok()??;
    clock::mono_us().checked_sub(micros(age))
}

/// Waits until this process has become the main process, for about two minutes. In a handover, systemd
/// learns which process is the new one (`MAINPID=`) some time after its start. If the process was ready
/// before, it reports that again, because systemd may have refused the first message.
pub(crate) async fn watch_role(shutdown: &Arc<Shutdown>, unit: &CgroupUnit, limit: Duration) {
    let mut wait = FIRST_QUESTION;
    while shutdown.notifier.role() == Some(Role::Other) && wait <= LONGEST_PAUSE {
        sleep(wait).await;
        wait *= 2;
        let Ok(answer) = ask(unit, limit).await else { return };
        shutdown.notifier.set_role(answer.role());
        shutdown.handle(Event::UnitKnown(answer.known(shutdown, false)));
        if answer.role() == Role::Main && *shutdown.ready.borrow() {
            shutdown.notifier.ready();
        }
    }
}

impl Answer {
    /// Whether systemd is stopping the unit, or the user manager that runs it.
    pub(crate) fn is_stopping(&self) -> bool {
        let outer = self.outer.iter().map(|(_, properties)| properties);
        outer.chain([&self.properties]).any(|properties| properties.stop_timer().is_some())
    }

    /// Whether the system manager is stopping the user manager that runs the unit.
    pub(crate) fn manager_stops(&self) -> bool {
        self.outer.as_ref().is_some_and(|(_, properties)| properties.stop_timer().is_some())
    }

    /// Whether systemd waits for the end of `ExecStop=`, which may wait for us.
    pub(crate) fn waits_for_a_command(&self) -> bool {
        self.properties.stop_timer().is_some_and(|timer| !timer.kills)
    }

    /// Whether this process is the main process of the unit.
    pub(crate) fn role(&self) -> Role {
        let pid = std::process::id();
        // With `PrivatePIDs=` systemd and the process have different pids for it.
        if pid == 1 && Role::of_environment() == Role::Main {
            return Role::Main;
        }
        if self.properties.main_pid == Some(pid) { Role::Main } else { Role::Other }
    }

    /// What the machine needs to know. `during_stop` says that a stop of this process has begun.
    pub(crate) fn known(&self, shutdown: &Shutdown, during_stop: bool) -> Unit {
        let outer = self.outer.iter().map(|(unit, properties)| {
            let whose = format!("the stop timeout of {}", unit.unit);
            timer(shutdown, properties, None, whose)
        });
        let whose = "the unit's stop timeout".to_owned();
        let own = timer(shutdown, &self.properties, self.command_since_us, whose);
        let access = self.properties.notify_access.as_deref();
        Unit {
            timers: own.into_iter().chain(outer.flatten()).collect(),
            accepts_messages: self.role() == Role::Main
                && matches!(access, Some("main" | "exec" | "all")),
            is_stopping: during_stop.then(|| self.is_stopping()),
        }
    }
}

/// `command_since_us`: when the running command of `ExecStop=` was started.
fn timer(
    shutdown: &Shutdown,
    properties: &UnitProperties,
    command_since_us: Option<u64>,
    whose: String,
) -> Option<Timer> {
    let running = properties.stop_timer();
    let since_us = running.and_then(|timer| timer.since_us.max(command_since_us));
    let since = since_us.and_then(|since| shutdown.instant_of(since));
    let timeout = running.map(|timer| timer.timeout).or_else(|| properties.stop_timeout())?;
    Some(Timer { timeout, whose, since, kills: running.is_none_or(|timer| timer.kills) })
}
