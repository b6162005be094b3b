//! Whether systemd will wait for as long as our teardown may take, asked at the start.
//!
//! `systemctl show`, off the hot path and bounded: a manager that does not answer costs one line
//! of the log. Outside systemd nothing is asked and nothing is said.

use std::sync::Arc;
use std::time::Duration;

use forensics_core::systemd::{Alignment, CgroupUnit};

use crate::shared::Shared;
use crate::stop::Unit;
use crate::{events, systemctl};

/// How long systemd may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Asks for our unit's stop timeout, notes it for the deadline, and says whether it is long enough.
pub(crate) async fn check(shared: Arc<Shared>, unit: Option<CgroupUnit>) {
    let Some(unit) = unit.filter(CgroupUnit::has_stop_timeout) else { return };
    let voice = &shared.stop.voice;
    let properties = match systemctl::show(&unit, ANSWER_LIMIT).await {
        Ok(properties) => properties,
        Err(why) => return voice.say(move || events::alignment_unknown(&why)),
    };
    let Some(granted) = properties.stop_timeout() else {
        let why = "systemctl names no TimeoutStopUSec";
        return voice.say(|| events::alignment_unknown(why));
    };
    let heeds_us = properties.takes_notifications_of(std::process::id());
    shared.stop.set_unit(Unit { stop_timeout: granted, heeds_us });
    let config = &shared.config;
    let alignment = Alignment::judge(granted, config.drain_timeout, config.headroom);
    match alignment.warning(&unit.unit, unit.manager) {
        Some(warning) => voice.say(move || events::misaligned(&warning)),
        // A program started at a terminal can be in a scope; it has nothing to hear of that.
        None if unit.unit.ends_with(".scope") => {}
        None => {
            let summary = format!("{}: {alignment}", unit.unit);
            voice.say(move || events::aligned(&summary));
        }
    }
}
