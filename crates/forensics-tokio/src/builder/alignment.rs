//! Whether the supervisor waits for as long as our teardown may take, asked at the start.
//!
//! systemd is asked by `systemctl show`, in the background and with a limit: a manager that does not
//! answer costs one line of the log. The kubelet cannot be asked, so its grace period is what the
//! builder was given. Without either there is no check.

use std::sync::Arc;
use std::time::Duration;

use forensics_core::escape::Escaped;
use forensics_core::systemd::{CgroupUnit, Supervisor};

use crate::config::Config;
use crate::machine::{Event, Unit};
use crate::shutdown::Shutdown;
use crate::{events, systemctl};

/// How long systemd may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Logs whether the configured grace period is long enough; a warning where it is not.
pub(crate) fn check_grace(config: &Config) {
    let Some(grace) = config.grace else { return };
    let alignment = config.alignment(Supervisor::GracePeriod, grace.into());
    let service = Escaped(&config.service);
    if alignment.is_aligned() {
        events::aligned(&format!("{service}: {alignment}"));
    } else {
        let line = alignment.manifest_line();
        events::misaligned(&format!(
            "{service}: {alignment}; fix: `{line}`, and the service to be told the same"
        ));
    }
}

/// Asks for our unit's stop timeout, brings it to the machine, and logs whether it is long enough.
pub(crate) async fn check(shutdown: Arc<Shutdown>, unit: Option<CgroupUnit>) {
    let Some(unit) = unit.filter(CgroupUnit::has_stop_timeout) else { return };
    let log = &shutdown.log;
    let properties = match systemctl::show(&unit, ANSWER_LIMIT).await {
        Ok(properties) => properties,
        Err(why) => return log.emit(move || events::alignment_unknown(&why)),
    };
    let Some(granted) = properties.stop_timeout() else {
        return log.emit(|| events::alignment_unknown("systemctl names no TimeoutStopUSec"));
    };
    let heeds_us = properties.takes_notifications_of(std::process::id());
    shutdown.handle(Event::UnitKnown(Unit { stop_timeout: granted, heeds_us }));
    let alignment = shutdown.config.alignment(Supervisor::Systemd, granted);
    if let Some(warning) = alignment.warning(&unit.unit, unit.manager) {
        log.emit(move || events::misaligned(&warning));
    } else if !unit.unit.ends_with(".scope") {
        // A program started at a terminal can be in a scope, for which this means nothing.
        log.emit(move || events::aligned(&format!("{}: {alignment}", unit.unit)));
    }
}
