//! Checks the settings of a unit that affect its teardown, apart from the length of the stop
//! timeout.
//!
//! There is one finding per setting, which says what happens at a stop. The statements
//! about `KillMode=`, `SendSIGKILL=`, the watchdog and drop-ins were observed with systemd 252 and
//! a service that logs its signals. The others are documented in systemd.service(5). The stop
//! timeout itself is checked by [`Alignment`](super::Alignment).
//!
//! There is no finding for `NotifyAccess=none` with `Type=notify` or `WatchdogSec=`, because
//! systemd then changes it to `main` (`service_add_extras()`).
//!
//! The signals that a unit sends are checked by [`lint_signals`](super::lint_signals).

use serde::Serialize;

use super::show::UnitProperties;
use crate::duration::Timespan;
use crate::escape::Escaped;

/// How much a [`Finding`] matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// No problem; for information.
    Ok,
    /// systemd does not report it.
    Unknown,
    /// Some teardowns will not work as intended.
    Warning,
    /// No teardown will work.
    Error,
}

display_as_in_json!(Severity);

/// The result of checking one setting of a unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// The setting and its effect, on one line that is safe to show.
    pub what: String,
    /// The fix: a setting or a command. A command for a user manager also needs `--user`. `None` if
    /// nothing needs to be done, or if the administrator has to decide.
    #[serde(rename = "mend", skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// Makes a finding. An empty `fix` means none.
pub(super) fn finding(severity: Severity, what: impl Into<String>, fix: &str) -> Finding {
    Finding { severity, what: what.into(), fix: (!fix.is_empty()).then(|| fix.to_owned()) }
}

/// Checks the settings of a unit. If the unit is not loaded, that is the only finding, because
/// systemd then shows its defaults.
pub fn lint(unit: &UnitProperties) -> Vec<Finding> {
    let fix = match unit.load_state.as_deref() {
        Some("loaded") => return of_loaded(unit),
        Some("not-found") => "check the name and the manager (--user or not)",
        Some("masked") => "systemctl unmask",
        Some(_) => "systemd-analyze verify",
        None => {
            let what = "systemd does not report whether the unit is loaded";
            return vec![finding(Severity::Unknown, what, "")];
        }
    };
    let state = unit.load_state.as_deref().unwrap_or_default();
    let what = format!("LoadState={}: the unit is not loaded", Escaped(state));
    vec![finding(Severity::Error, what, fix)]
}

fn of_loaded(unit: &UnitProperties) -> Vec<Finding> {
    use Severity::{Error, Ok, Unknown, Warning};
    let mut found = Vec::new();
    let mut add = |severity, what: &str, fix| found.push(finding(severity, what, fix));
    if unit.need_daemon_reload == Some(true) {
        let what = "the unit's files have changed, and systemd has not read them yet";
        add(Warning, what, "systemctl daemon-reload");
    }
    match unit.timeout_stop {
        Some(Timespan::Finite(_)) => {}
        Some(Timespan::Infinite) => {
            let what = "TimeoutStopSec=infinity: a teardown that does not end is never killed, and \
                        its stop never ends";
            add(Warning, what, "a finite TimeoutStopSec=");
        }
        None => add(Unknown, "systemd does not report the unit's stop timeout", ""),
    }
    let kill_mode = unit.kill_mode.as_deref();
    let (severity, what, fix) = match kill_mode {
        Some("control-group") => {
            let what = "children get SIGTERM at the same time as the main process; a child \
                        that ignores SIGTERM and outlives it makes the unit fail";
            (Ok, what, "")
        }
        Some("mixed") => {
            (Ok, "children get no SIGTERM, but SIGKILL as soon as the main process has exited", "")
        }
        Some("process") => (Warning, "children are left running after the stop", "KillMode=mixed"),
        Some("none") => {
            let what = "a stop sends no signal, so no teardown runs, and all processes are left \
                        running";
            (Error, what, "KillMode=mixed")
        }
        Some(_) => (Unknown, "an unknown mode", ""),
        None => (Unknown, "systemd does not report the unit's KillMode", ""),
    };
    match kill_mode {
        Some(mode) => add(severity, &format!("KillMode={}: {what}", Escaped(mode)), fix),
        None => add(severity, what, fix),
    }
    if unit.send_sigkill == Some(false) {
        let what = "SendSIGKILL=no: a teardown that does not end is left running, and the unit \
                    fails after twice the stop timeout";
        add(Warning, what, "SendSIGKILL=yes");
    }
    if let Some(watchdog) = unit.watchdog {
        add(Ok, &format!("WatchdogSec={watchdog}: not enforced during a stop"), "");
    }
    if unit.notify_access.as_deref() == Some("none") {
        let what = "NotifyAccess=none: a teardown cannot ask for more time (EXTEND_TIMEOUT_USEC)";
        add(Ok, what, "");
    }
    if unit.transient == Some(true) {
        let what = "a transient unit: a drop-in lasts as long as each run has the same name; \
                    otherwise set TimeoutStopSec= when the unit is created";
        add(Ok, what, "");
    }
    // Drop-ins apply in the order of their file names, across all directories.
    let late: Vec<&str> = unit.late_drop_ins().collect();
    if !late.is_empty() {
        let what = "read after the override.conf of `systemctl edit`, and overrides it";
        add(Ok, &format!("{what}: {}", Escaped(&late.join(" "))), "");
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A unit as systemd 252 shows it, whose only finding is its `KillMode=`.
    const PLAIN: &str = "Type=notify\nNotifyAccess=main\nTimeoutStopUSec=1min 30s\nWatchdogUSec=0\n\
        KillMode=mixed\nSendSIGKILL=yes\nLoadState=loaded\nNeedDaemonReload=no\nTransient=no\n";

    #[test]
    fn each_setting_is_reported_with_its_effect() {
        use Severity::*;
        // A line that replaces one of the plain unit, the finding, and the fix.
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
            ("KillMode=", Unknown, "systemd does not report the unit's KillMode", None),
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
            (
                "TimeoutStopUSec=soon",
                Unknown,
                "systemd does not report the unit's stop timeout",
                None,
            ),
            ("TimeoutStopUSec=", Unknown, "systemd does not report the unit's stop timeout", None),
            ("WatchdogUSec=3min", Ok, "WatchdogSec=3min: not enforced during a stop", None),
            ("NotifyAccess=none", Ok, "NotifyAccess=none: a teardown cannot ask", None),
            ("Transient=yes", Ok, "a transient unit: a drop-in lasts", None),
            (
                "DropInPaths=/z/a.conf /a/override.conf /a/timeout-stop.conf /a/zz.conf",
                Ok,
                "read after the override.conf of `systemctl edit`, and overrides it: \
                 /a/timeout-stop.conf /a/zz.conf",
                None,
            ),
        ];
        for (line, severity, what, fix) in cases {
            let unit = UnitProperties::parse(&format!("{line}\n{PLAIN}"));
            let found = lint(&unit);
            let hits: Vec<_> =
                found.iter().filter(|finding| finding.what.starts_with(what)).collect();
            let [hit] = hits[..] else { panic!("{line}: {found:?}") };
            assert_eq!((hit.severity, hit.fix.as_deref()), (severity, fix), "{line}");
            // There is no other finding: `KillMode` is always reported, other settings only if they
            // are unusual.
            assert_eq!(found.len(), if line.starts_with("KillMode") { 1 } else { 2 }, "{line}");
        }
    }

    #[test]
    fn a_unit_that_is_not_loaded_has_only_this_finding() {
        for (state, severity, what) in [
            ("not-found", Severity::Error, "LoadState=not-found: the unit is not loaded"),
            ("masked", Severity::Error, "LoadState=masked: the unit is not loaded"),
            ("bad-setting", Severity::Error, "LoadState=bad-setting: the unit is not loaded"),
            ("", Severity::Unknown, "systemd does not report whether the unit is loaded"),
        ] {
            let unit = UnitProperties::parse(&format!("LoadState={state}\nKillMode=none\n{PLAIN}"));
            let found = lint(&unit);
            assert_eq!(found.len(), 1, "{state}");
            assert_eq!((found[0].severity, found[0].what.as_str()), (severity, what));
            assert_eq!(found[0].fix.is_some(), severity == Severity::Error, "{state}");
        }
        assert_eq!(lint(&UnitProperties::parse("")).len(), 1);
    }
}
