//! What in a unit's settings affects its teardown, apart from the length of the stop timeout.
//!
//! One finding per setting, which says what happens at a stop. What is said of `KillMode=`,
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
    /// What to do: a setting or a command, without the `--user` that a command for a user's manager
    /// needs. `None` where nothing needs to be done, or the choice is the administrator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

impl Finding {
    fn new(severity: Severity, what: impl Into<String>) -> Self {
        Self { severity, what: what.into(), mend: None }
    }

    fn mend(self, mend: &str) -> Self {
        Self { mend: Some(mend.to_owned()), ..self }
    }
}

/// Looks through a unit's settings. Of a unit that is not loaded only that is said, since the rest
/// of what systemd shows is then its defaults.
#[must_use]
pub fn findings(unit: &UnitProperties) -> Vec<Finding> {
    let mend = match unit.load_state.as_deref() {
        Some("loaded") => return of_loaded(unit),
        Some("not-found") => "check the name and the manager (--user or not)",
        Some("masked") => "systemctl unmask",
        Some(_) => "systemd-analyze verify",
        None => {
            let what = "systemd does not say whether the unit is loaded";
            return vec![Finding::new(Severity::Unknown, what)];
        }
    };
    let state = unit.load_state.as_deref().unwrap_or_default();
    let what = format!("LoadState={}: the unit is not loaded", Plain(state));
    vec![Finding::new(Severity::Error, what).mend(mend)]
}

fn of_loaded(unit: &UnitProperties) -> Vec<Finding> {
    let ok = |what: &str| Finding::new(Severity::Ok, what);
    let unknown = |what: &str| Finding::new(Severity::Unknown, what);
    let warning = |what: &str| Finding::new(Severity::Warning, what);
    let mut found = Vec::new();
    if unit.need_daemon_reload == Some(true) {
        let changed = warning("the unit's files have changed, and systemd has not read them yet");
        found.push(changed.mend("systemctl daemon-reload"));
    }
    match unit.timeout_stop {
        Some(Timespan::Finite(_)) => {}
        Some(Timespan::Infinite) => {
            let endless = warning(
                "TimeoutStopSec=infinity: a teardown that does not end is never killed, and its \
                 stop never ends",
            );
            found.push(endless.mend("a finite TimeoutStopSec="));
        }
        None => found.push(unknown("systemd does not say the unit's stop timeout")),
    }
    found.push(match unit.kill_mode.as_deref() {
        Some("control-group") => ok("KillMode=control-group: children get SIGTERM at the same \
             time as the main process; one that outlives it and ignores SIGTERM fails the unit"),
        Some("mixed") => ok("KillMode=mixed: children get no SIGTERM, but SIGKILL as soon as the \
             main process has exited"),
        Some("process") => warning("KillMode=process: children are left running after the stop")
            .mend("KillMode=mixed"),
        Some("none") => {
            let what = "KillMode=none: a stop sends no signal, so no teardown runs, and all \
                        processes are left running";
            Finding::new(Severity::Error, what).mend("KillMode=mixed")
        }
        Some(other) => unknown(&format!("KillMode={}", Plain(other))),
        None => unknown("systemd does not say the unit's KillMode"),
    });
    if unit.send_sigkill == Some(false) {
        let what = "SendSIGKILL=no: a teardown that does not end is left running, and the unit \
                    fails after twice the stop timeout";
        found.push(warning(what).mend("SendSIGKILL=yes"));
    }
    if let Some(watchdog) = unit.watchdog {
        found.push(ok(&format!("WatchdogSec={watchdog}: not enforced during a stop")));
    }
    if unit.notify_access.as_deref() == Some("none") {
        let what = "NotifyAccess=none: a teardown cannot ask for more time (EXTEND_TIMEOUT_USEC)";
        found.push(ok(what));
    }
    if unit.transient == Some(true) {
        found.push(ok("a transient unit: a drop-in lasts as long as each run has the same name; \
             otherwise set TimeoutStopSec= where the unit is made"));
    }
    // Drop-ins apply in the order of their file names, in whichever directory they are.
    let late: Vec<&str> = unit.late_drop_ins().collect();
    if !late.is_empty() {
        let what = "read after the override.conf of `systemctl edit`, and wins over it";
        found.push(ok(&format!("{what}: {}", Plain(&late.join(" ")))));
    }
    found
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
                "SendSIGKILL=no: a teardown that does not end",
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
