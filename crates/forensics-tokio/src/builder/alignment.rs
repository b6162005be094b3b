//! Whether the supervisor will wait for as long as our teardown may take, asked at the start.
//!
//! systemd by `systemctl show`, off the hot path and bounded: a manager that does not answer costs
//! one line of the log. The kubelet cannot be asked, so its grace period is as the builder was told.
//! Without either nothing is said.

use std::sync::Arc;
use std::time::Duration;

use forensics_core::escape::Plain;
use forensics_core::systemd::{Alignment, CgroupUnit, Supervisor};

use crate::config::Config;
use crate::machine::{Event, Unit};
use crate::shutdown::Shutdown;
use crate::{events, systemctl};

/// How long systemd may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Says whether the grace period that we were told of is long enough; one warning where it is not.
pub(crate) fn check_grace(config: &Config) {
    let Some(grace) = config.grace else { return };
    let Config { lead, drain_timeout, headroom, .. } = *config;
    let supervisor = Supervisor::GracePeriod;
    let alignment = Alignment::judge_all(supervisor, grace.into(), lead, drain_timeout, headroom);
    let service = Plain(&config.service);
    match alignment.is_aligned() {
        true => events::aligned(&format!("{service}: {alignment}")),
        false => events::misaligned(&format!(
            "{service}: {alignment}; mend: `{}`, and the service to be told the same",
            alignment.manifest_line()
        )),
    }
}

/// Asks for our unit's stop timeout, notes it for the deadline, and says whether it is long enough.
pub(crate) async fn check(shutdown: Arc<Shutdown>, unit: Option<CgroupUnit>) {
    let Some(unit) = unit.filter(CgroupUnit::has_stop_timeout) else { return };
    let log = &shutdown.log;
    let properties = match systemctl::show(&unit, ANSWER_LIMIT).await {
        Ok(properties) => properties,
        Err(why) => return log.emit(move || events::alignment_unknown(&why)),
    };
    let Some(granted) = properties.stop_timeout() else {
        let why = "systemctl names no TimeoutStopUSec";
        return log.emit(|| events::alignment_unknown(why));
    };
    let heeds_us = properties.takes_notifications_of(std::process::id());
    shutdown.handle(Event::UnitKnown(Unit { stop_timeout: granted, heeds_us }));
    let config = &shutdown.config;
    let Config { lead, drain_timeout, headroom, .. } = **config;
    let supervisor = Supervisor::Systemd;
    let alignment = Alignment::judge_all(supervisor, granted, lead, drain_timeout, headroom);
    match alignment.warning(&unit.unit, unit.manager) {
        Some(warning) => log.emit(move || events::misaligned(&warning)),
        // A program started at a terminal can be in a scope; it has nothing to hear of that.
        None if unit.unit.ends_with(".scope") => {}
        None => {
            let summary = format!("{}: {alignment}", unit.unit);
            log.emit(move || events::aligned(&summary));
        }
    }
}
