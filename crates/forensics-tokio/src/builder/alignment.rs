//! Checks at the start whether the supervisor waits long enough for the teardown.
//!
//! systemd is asked with `systemctl show`, in the background and with a limit. If it does not answer,
//! the log says so. The answer also shows which signals systemd sends. The kubelet cannot be asked, so
//! the stop timeout of the builder is checked. Without either, the documented default of a platform is
//! checked, if the environment identifies one.

use std::sync::Arc;
use std::time::Duration;

use forensics_core::context::Platform;
use forensics_core::escape::Escaped;
use forensics_core::systemd::{CgroupUnit, Supervisor, UnitProperties, lint_signals};

use crate::config::Config;
use crate::machine::Event;
use crate::notify::Role;
use crate::shutdown::Shutdown;
use crate::{events, unit};

/// How long systemd may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Logs whether the configured stop timeout is long enough, and how to fix one that is not. A service
/// under systemd may have one too, because not every service can ask systemd.
pub(crate) fn check_configured(config: &Config, unit: Option<&CgroupUnit>) {
    let Some(timeout) = config.stop_timeout else { return };
    let alignment = config.alignment(Supervisor::GracePeriod, timeout.into());
    let service = Escaped(&config.service);
    if alignment.is_aligned() {
        return events::aligned(&format!("{service}: {alignment}"));
    }
    let of_systemd = unit.filter(|_| Role::of_environment() == Role::Main);
    let warning = of_systemd.and_then(|unit| alignment.warning(&unit.unit, unit.manager));
    let warning = warning.unwrap_or_else(|| {
        format!("{service}: {alignment}; fix: set `{}`", alignment.manifest_line())
    });
    events::misaligned(&format!("{warning}, and the same stop_timeout in the service"));
}

/// Logs a hint if the platform waits too briefly by default, unless a stop timeout is configured.
pub(crate) fn check_platform(config: &Config, platform: Option<&Platform>) {
    let Some(platform) = platform.filter(|_| config.stop_timeout.is_none()) else { return };
    let alignment = config.alignment(Supervisor::Platform, platform.stop_timeout.into());
    if alignment.is_aligned() {
        return;
    }
    let fix = match platform.setting {
        Some(setting) => format!("raise {setting}, and set the same stop_timeout in the service"),
        None => {
            "it cannot be changed: set this stop_timeout and a shorter drain timeout".to_owned()
        }
    };
    let Platform { name, variable, source, .. } = platform;
    events::platform_timeout_short(&format!(
        "{}: on {name} (inferred from {variable}) {alignment}; fix: {fix}; see {source}",
        Escaped(&config.service)
    ));
}

/// Asks systemd for the stop timeout of the unit, and for that of the user manager that runs it.
/// Passes them to the machine, and logs whether they are long enough.
pub(crate) async fn check(shutdown: Arc<Shutdown>, own: Option<CgroupUnit>) {
    let Some(own) = own.filter(CgroupUnit::has_stop_timeout) else { return };
    let log = &shutdown.log;
    if !unit::can_be_asked(&own) {
        return log.emit(|| events::alignment_unknown("another user's manager runs the unit"));
    }
    let answer = match unit::ask(&own, ANSWER_LIMIT).await {
        Ok(answer) => answer,
        Err(why) => return log.emit(move || events::alignment_unknown(&why)),
    };
    shutdown.notifier.set_role(answer.role());
    check_signals(&shutdown, &own, &answer.properties);
    if answer.properties.stop_timeout().is_none() {
        return log.emit(|| events::alignment_unknown("systemctl reports no TimeoutStopUSec"));
    }
    shutdown.handle(Event::UnitKnown(answer.known(&shutdown, false)));
    let mut checked: Vec<_> = [(&answer.unit, &answer.properties)]
        .into_iter()
        .chain(answer.outer.iter().map(|(unit, properties)| (unit, properties)))
        .filter_map(|(unit, properties)| {
            let granted = properties.stop_timeout()?;
            Some((unit, shutdown.config.alignment(Supervisor::Systemd, granted)))
        })
        .collect();
    // The shortest timeout counts. If two are equal, the unit's own comes first.
    checked.sort_by_key(|(_, alignment)| alignment.stop_timeout.to_std().unwrap_or(Duration::MAX));
    for (unit, alignment) in &checked {
        if let Some(warning) = alignment.warning(&unit.unit, unit.manager) {
            log.emit(move || events::misaligned(&warning));
        }
    }
    let first = checked.first().filter(|(_, alignment)| alignment.is_aligned());
    // A program that was started at a terminal can be in a scope, whose timeout means nothing here.
    if let Some((unit, alignment)) = first.filter(|(unit, _)| !unit.unit.ends_with(".scope")) {
        let summary = format!("{}: {alignment}", unit.unit);
        log.emit(move || events::aligned(&summary));
    }
    unit::watch_role(&shutdown, &own, ANSWER_LIMIT).await;
}

/// Logs which signals of the unit the guard does not expect. They are sent to the unit's main process, so
/// another process of the unit logs nothing.
fn check_signals(shutdown: &Shutdown, unit: &CgroupUnit, properties: &UnitProperties) {
    if properties.main_pid.is_some_and(|pid| pid != std::process::id()) {
        return;
    }
    for finding in lint_signals(properties, &shutdown.config.signals) {
        let unit = unit.unit.clone();
        shutdown.log.emit(move || events::unit_signal(&unit, &finding));
    }
}
