//! Checks at the start whether the supervisor waits long enough for the teardown.
//!
//! systemd is asked with `systemctl show`, in the background and with a limit. If it does not answer,
//! the log says so. The kubelet cannot be asked, so the stop timeout of the builder is checked. Without
//! either there is no check.

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

/// Logs whether the stop timeout of the builder is long enough, and how to fix one that is not.
pub(crate) fn check_configured(config: &Config) {
    let Some(timeout) = config.stop_timeout else { return };
    let alignment = config.alignment(Supervisor::GracePeriod, timeout.into());
    let service = Escaped(&config.service);
    if alignment.is_aligned() {
        events::aligned(&format!("{service}: {alignment}"));
    } else {
        let line = alignment.manifest_line();
        events::misaligned(&format!(
            "{service}: {alignment}; fix: set `{line}`, and the same stop_timeout in the service"
        ));
    }
}

/// Asks systemd for the stop timeout of the unit, passes it to the machine, and logs whether it is long enough.
pub(crate) async fn check(shutdown: Arc<Shutdown>, unit: Option<CgroupUnit>) {
    let Some(unit) = unit.filter(CgroupUnit::has_stop_timeout) else { return };
    let log = &shutdown.log;
    let properties = match systemctl::show(&unit, ANSWER_LIMIT).await {
        Ok(properties) => properties,
        Err(why) => return log.emit(move || events::alignment_unknown(&why)),
    };
    let Some(granted) = properties.stop_timeout() else {
        return log.emit(|| events::alignment_unknown("systemctl reports no TimeoutStopUSec"));
    };
    let heeds_us = properties.takes_notifications_of(std::process::id());
    shutdown.handle(Event::UnitKnown(Unit { stop_timeout: granted, heeds_us }));
    let alignment = shutdown.config.alignment(Supervisor::Systemd, granted);
    if let Some(warning) = alignment.warning(&unit.unit, unit.manager) {
        log.emit(move || events::misaligned(&warning));
    } else if !unit.unit.ends_with(".scope") {
        // A program that was started at a terminal can be in a scope, whose timeout means nothing here.
        log.emit(move || events::aligned(&format!("{}: {alignment}", unit.unit)));
    }
}
