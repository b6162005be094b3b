//! The output of systemctl for a unit, with values from unit files. All texts about the unit are
//! lines that are safe to show.

use std::time::Duration;

use forensics_core::context::{ShutdownContext, StartupInfo, Trigger};
use forensics_core::duration::Timespan;
use forensics_core::systemd::{
    Alignment, CgroupUnit, Manager, StopFacts, UnitProperties, explain_stop, lint,
    related_arguments,
};

pub(crate) fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    // After a NUL, the output of `systemctl list-jobs`. After another one, that about other units.
    let (shown, rest) = text.split_once('\0').unwrap_or((&text, ""));
    let (jobs, related) = rest.split_once('\0').unwrap_or((rest, ""));
    let unit = UnitProperties::parse(shown);
    let json = serde_json::to_string(&unit).expect("properties have a JSON form");
    assert_eq!(serde_json::from_str::<UnitProperties>(&json).ok().as_ref(), Some(&unit));
    assert_eq!(UnitProperties::parse(&format!("\n\n{shown}")), unit, "empty lines in front");
    assert_ne!(unit.main_pid, Some(0));
    assert!(unit.watchdog.is_none_or(|w| w != Timespan::Finite(0) && w != Timespan::Infinite));
    assert!(unit.stop_timeout().is_none() || unit.load_state.as_deref() == Some("loaded"));
    assert!(unit.late_drop_ins().count() <= unit.drop_in_paths.len());
    let _ = unit.takes_notifications_of(4100);

    let id = unit.id.as_deref().unwrap_or("gateway.service");
    let own = CgroupUnit { unit: id.to_owned(), manager: Manager::System };
    let _ = related_arguments(&own, &unit, jobs);
    let trigger = Trigger::Request { reason: String::new() };
    let context = ShutdownContext::start(&StartupInfo::collect(), trigger, None);
    let facts = StopFacts {
        unit: &own,
        properties: &unit,
        jobs,
        related,
        system_jobs: None,
        manager_stops: false,
        is_booting: false,
    };
    let explained = explain_stop(&context, &facts);
    one_line(explained.into_iter().flat_map(|why| [why.detail, why.basis.sentence()]));
    for finding in lint(&unit) {
        assert!(!finding.what.is_empty());
        one_line([Some(finding.what), finding.fix].into_iter().flatten());
    }
    let Some(timeout) = unit.stop_timeout() else { return };
    for (drain, headroom) in [(0, 0), (60, 30), (u64::MAX, 30)] {
        let (drain, headroom) = (Duration::from_secs(drain), Duration::from_secs(headroom));
        let alignment = Alignment::check(timeout, drain, headroom);
        let warning = alignment.warning(id, Manager::System);
        assert_eq!(warning.is_none(), alignment.is_aligned());
        one_line(warning.into_iter().chain([alignment.to_string()]));
    }
}

fn one_line(texts: impl IntoIterator<Item = String>) {
    for text in texts {
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
}
