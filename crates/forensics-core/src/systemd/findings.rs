//! What in a unit's settings bears on its teardown, beside the length of the stop timeout.
//!
//! One finding a setting, said in terms of what happens at a stop. What is said of `KillMode=`,
//! `SendSIGKILL=`, the watchdog and drop-ins was seen on systemd 252, with a service that logs its
//! signals; the rest is in systemd.service(5).
//! The stop timeout itself is judged by [`Alignment`](super::Alignment).
//!
//! There is none for `NotifyAccess=none` with `Type=notify` or `WatchdogSec=`: systemd makes that
//! `main` by itself (`service_add_extras()`).

use serde::{Deserialize, Serialize};

use super::show::UnitProperties;
use crate::duration::Timespan;
use crate::escape::Plain;

/// How much a [`Finding`] matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// As it should be, or worth knowing only.
    Ok,
    /// systemd does not say, so nothing can be judged.
    Unknown,
    /// Some teardowns will not go as they should.
    Warning,
    /// No teardown will.
    Error,
}

/// One thing found in a unit's settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// The setting, and what follows from it; one line, safe to show.
    pub what: String,
    /// What to do: a setting or a command, the latter without the `--user` that a user's manager
    /// wants. `None` where nothing needs doing, or it is not for us to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

/// Looks through a unit's settings. Of a unit that is not loaded only that is said, since the rest
/// of what systemd shows is then its defaults.
#[must_use]
pub fn findings(unit: &UnitProperties) -> Vec<Finding> {
    if let Some(finding) = load_state(unit) {
        return vec![finding];
    }
    [
        reload(unit),
        stop_timeout(unit),
        kill_mode(unit),
        sigkill(unit),
        watchdog(unit),
        notify(unit),
        transient(unit),
        late_drop_ins(unit),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn finding(severity: Severity, what: impl Into<String>, mend: Option<&str>) -> Finding {
    Finding { severity, what: what.into(), mend: mend.map(str::to_owned) }
}

fn load_state(unit: &UnitProperties) -> Option<Finding> {
    let Some(state) = unit.load_state.as_deref() else {
        let what = "systemd does not say whether the unit is loaded";
        return Some(finding(Severity::Unknown, what, None));
    };
    let mend = match state {
        "loaded" => return None,
        "not-found" => "check the name and the manager (--user or not)",
        "masked" => "systemctl unmask",
        _ => "systemd-analyze verify",
    };
    let what = format!("LoadState={}: the unit is not loaded", Plain(state));
    Some(finding(Severity::Error, what, Some(mend)))
}

fn reload(unit: &UnitProperties) -> Option<Finding> {
    let what = "the unit's files have changed, and systemd has not read them yet";
    let mend = Some("systemctl daemon-reload");
    unit.need_daemon_reload?.then(|| finding(Severity::Warning, what, mend))
}

fn stop_timeout(unit: &UnitProperties) -> Option<Finding> {
    match unit.timeout_stop {
        Some(Timespan::Finite(_)) => None,
        Some(Timespan::Infinite) => Some(finding(
            Severity::Warning,
            "TimeoutStopSec=infinity: a teardown that hangs is never killed, and its stop never ends",
            Some("a finite TimeoutStopSec="),
        )),
        None => {
            Some(finding(Severity::Unknown, "systemd does not say the unit's stop timeout", None))
        }
    }
}

fn kill_mode(unit: &UnitProperties) -> Option<Finding> {
    let found = match unit.kill_mode.as_deref() {
        Some("control-group") => finding(
            Severity::Ok,
            "KillMode=control-group: children get SIGTERM at the same time as the main process; \
             one that outlives it and ignores SIGTERM fails the unit",
            None,
        ),
        Some("mixed") => finding(
            Severity::Ok,
            "KillMode=mixed: children get no SIGTERM, but SIGKILL as soon as the main process has \
             exited",
            None,
        ),
        Some("process") => finding(
            Severity::Warning,
            "KillMode=process: children are left running after the stop",
            Some("KillMode=mixed"),
        ),
        Some("none") => finding(
            Severity::Error,
            "KillMode=none: a stop sends no signal, so no teardown runs, and all processes are \
             left running",
            Some("KillMode=mixed"),
        ),
        Some(other) => finding(Severity::Unknown, format!("KillMode={}", Plain(other)), None),
        None => finding(Severity::Unknown, "systemd does not say the unit's KillMode", None),
    };
    Some(found)
}

fn sigkill(unit: &UnitProperties) -> Option<Finding> {
    let what = "SendSIGKILL=no: a teardown that hangs is left running, and the unit fails after \
                twice the stop timeout";
    (!unit.send_sigkill?).then(|| finding(Severity::Warning, what, Some("SendSIGKILL=yes")))
}

fn watchdog(unit: &UnitProperties) -> Option<Finding> {
    let what = format!("WatchdogSec={}: not enforced during a stop", unit.watchdog?);
    Some(finding(Severity::Ok, what, None))
}

fn notify(unit: &UnitProperties) -> Option<Finding> {
    let what = "NotifyAccess=none: a teardown cannot ask for more time (EXTEND_TIMEOUT_USEC)";
    (unit.notify_access.as_deref()? == "none").then(|| finding(Severity::Ok, what, None))
}

fn transient(unit: &UnitProperties) -> Option<Finding> {
    let what = "a transient unit: a drop-in lasts as long as each run has the same name; \
                otherwise set TimeoutStopSec= where the unit is made";
    unit.transient?.then(|| finding(Severity::Ok, what, None))
}

/// Drop-ins apply in the order of their file names, whichever directory they lie in.
fn late_drop_ins(unit: &UnitProperties) -> Option<Finding> {
    let late: Vec<&str> = unit.late_drop_ins().collect();
    let what = format!(
        "read after the override.conf of `systemctl edit`, and wins over it: {}",
        Plain(&late.join(" "))
    );
    (!late.is_empty()).then(|| finding(Severity::Ok, what, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A unit as systemd 252 shows one, without anything to find but its `KillMode=`.
    const PLAIN: &str = "Type=notify\nNotifyAccess=main\nTimeoutStopUSec=1min 30s\nWatchdogUSec=0\n\
        KillMode=mixed\nSendSIGKILL=yes\nLoadState=loaded\nNeedDaemonReload=no\nTransient=no\n";

    #[test]
    fn each_setting_is_told_by_its_consequence() {
        use Severity::*;
        // A line in place of the plain unit's, what is found by it, and the mend.
        let cases = [
            ("KillMode=control-group", Ok, "KillMode=control-group: children get SIGTERM", None),
            ("KillMode=mixed", Ok, "KillMode=mixed: children get no SIGTERM", None),
            (
                "KillMode=process",
                Warning,
                "KillMode=process: children are left",
                Some("KillMode=mixed"),
            ),
            (
                "KillMode=none",
                Error,
                "KillMode=none: a stop sends no signal",
                Some("KillMode=mixed"),
            ),
            ("KillMode=a\u{1b}b", Unknown, r"KillMode=a\u{1b}b", None),
            ("KillMode=", Unknown, "systemd does not say the unit's KillMode", None),
            (
                "SendSIGKILL=no",
                Warning,
                "SendSIGKILL=no: a teardown that hangs",
                Some("SendSIGKILL=yes"),
            ),
            (
                "NeedDaemonReload=yes",
                Warning,
                "the unit's files have changed",
                Some("systemctl daemon-reload"),
            ),
            (
                "TimeoutStopUSec=infinity",
                Warning,
                "TimeoutStopSec=infinity: a teardown",
                Some("a finite TimeoutStopSec="),
            ),
            ("TimeoutStopUSec=soon", Unknown, "systemd does not say the unit's stop timeout", None),
            ("TimeoutStopUSec=", Unknown, "systemd does not say the unit's stop timeout", None),
            ("WatchdogUSec=3min", Ok, "WatchdogSec=3min: not enforced during a stop", None),
            ("NotifyAccess=none", Ok, "NotifyAccess=none: a teardown cannot ask", None),
            ("Transient=yes", Ok, "a transient unit: a drop-in lasts", None),
            (
                "DropInPaths=/z/a.conf /a/override.conf /a/timeout-stop.conf /a/zz.conf",
                Ok,
                "read after the override.conf of `systemctl edit`, and wins over it: \
                 /a/timeout-stop.conf /a/zz.conf",
                None,
            ),
        ];
        for (line, severity, what, mend) in cases {
            let unit = UnitProperties::parse(&format!("{line}\n{PLAIN}"));
            let found = findings(&unit);
            let hits: Vec<_> =
                found.iter().filter(|finding| finding.what.starts_with(what)).collect();
            let [hit] = hits[..] else { panic!("{line}: {found:?}") };
            assert_eq!((hit.severity, hit.mend.as_deref()), (severity, mend), "{line}");
            // Nothing is made up beside: the KillMode is always told, all else only where odd.
            assert_eq!(found.len(), if line.starts_with("KillMode") { 1 } else { 2 }, "{line}");
        }
    }

    #[test]
    fn of_a_unit_that_is_not_loaded_only_that_is_said() {
        for (state, severity, what) in [
            ("not-found", Severity::Error, "LoadState=not-found: the unit is not loaded"),
            ("masked", Severity::Error, "LoadState=masked: the unit is not loaded"),
            ("bad-setting", Severity::Error, "LoadState=bad-setting: the unit is not loaded"),
            ("", Severity::Unknown, "systemd does not say whether the unit is loaded"),
        ] {
            let unit = UnitProperties::parse(&format!("LoadState={state}\nKillMode=none\n{PLAIN}"));
            let found = findings(&unit);
            assert_eq!(found.len(), 1, "{state}");
            assert_eq!((found[0].severity, found[0].what.as_str()), (severity, what));
            assert_eq!(found[0].mend.is_some(), severity == Severity::Error, "{state}");
        }
        assert_eq!(findings(&UnitProperties::parse("")).len(), 1);
    }
}
