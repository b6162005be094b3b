//! Why systemd stops a unit, from what systemd reports about the unit during the stop.
//!
//! For `systemctl stop`, `restart`, `kill` and a reboot, the service receives the same SIGTERM from
//! the manager. The unit's state, its job and the other jobs at that moment differ, as observed
//! with systemd 252 and 257. Who asked systemd for the job is not logged by default.

use serde::{Deserialize, Serialize};

use super::{UnitProperties, unit_name};
use crate::escape::{Escaped, MAX_NAME_CHARS, truncate};

/// Why systemd stops the unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StopReason {
    /// The unit is not being stopped: `systemctl kill`, or another sender than the manager.
    Kill,
    /// The unit is being reloaded: `systemctl reload`. With `Type=notify-reload`, systemd sends
    /// `ReloadSignal=`, SIGHUP by default.
    Reload,
    /// A stop job for this unit: `systemctl stop`.
    Stop,
    /// A restart job for this unit: `systemctl restart`, or one of a unit it is part of.
    Restart,
    /// A stop job together with jobs of other units: a dependency, a conflict, `systemctl isolate`.
    Dependency {
        /// At most five of the other units with a job.
        units: Vec<String>,
    },
    /// The machine or the user manager goes down.
    Reboot {
        /// The target it goes to, such as `reboot.target`.
        target: String,
    },
    /// The time of `RuntimeMaxSec=` is over.
    RuntimeMax,
    /// The unit missed its watchdog message.
    Watchdog,
    /// It is being stopped, but there is no job for it.
    Unclear,
}

/// How many other units are named.
const MAX_UNITS: usize = 5;

/// Targets that stop all units of the manager (systemd.special(7)), the most specific first.
const GOING_DOWN: &str = "reboot.target poweroff.target halt.target kexec.target \
    soft-reboot.target exit.target shutdown.target umount.target";

/// Why `unit` is being stopped, from its properties and the output of `systemctl list-jobs`
/// at that moment. `None` if its state is not known.
pub fn stop_reason(unit: &str, properties: &UnitProperties, jobs: &str) -> Option<StopReason> {
    let state = properties.active_state.as_deref()?;
    let sub_state = properties.sub_state.as_deref().unwrap_or_default();
    let jobs: Vec<(&str, &str)> = jobs.lines().filter_map(job).collect();
    if let Some(target) = GOING_DOWN.split(' ').find(|target| jobs.contains(&(target, "start"))) {
        return Some(StopReason::Reboot { target: target.to_owned() });
    }
    Some(match jobs.iter().find(|(name, _)| *name == unit).map(|(_, kind)| *kind) {
        _ if sub_state == "stop-watchdog" => StopReason::Watchdog,
        _ if state == "reloading" => StopReason::Reload,
        _ if state == "active" => StopReason::Kill,
        Some("restart" | "try-restart") => StopReason::Restart,
        Some("stop") => {
            // The start of another unit is unrelated to our stop, unless it conflicts with ours.
            // Such jobs come and go; for example, asking systemd can start the system bus.
            let conflicts = [&properties.conflicts, &properties.conflicted_by];
            let matters = |(name, kind): &&(&str, &str)| {
                let is_rival = || conflicts.into_iter().flatten().any(|rival| rival == name);
                *name != unit && (matches!(*kind, "stop" | "restart") || is_rival())
            };
            let others = jobs.iter().filter(matters).map(|(name, _)| (*name).to_owned());
            let units: Vec<String> = others.take(MAX_UNITS).collect();
            if units.is_empty() { StopReason::Stop } else { StopReason::Dependency { units } }
        }
        _ if properties.result.as_deref() == Some("timeout") => StopReason::RuntimeMax,
        _ => StopReason::Unclear,
    })
}

/// Unit and type in a line `JOB UNIT TYPE STATE`. `None` if `UNIT` is not a valid name, because it
/// is shown unescaped.
fn job(line: &str) -> Option<(&str, &str)> {
    let mut columns = line.split_whitespace();
    columns.next()?.parse::<u32>().ok()?;
    let unit = columns.next().filter(|unit| unit_name::is_valid(unit))?;
    Some((unit, columns.next()?))
}

impl std::fmt::Display for StopReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            StopReason::Dependency { units } => {
                let units = truncate(units.join(", "), MAX_UNITS * MAX_NAME_CHARS);
                return write!(f, "a stop job, with jobs of other units: {}", Escaped(&units));
            }
            StopReason::Reboot { target } => {
                return write!(f, "the system is going down to {target}");
            }
            StopReason::Kill => {
                "the unit is not being stopped: only a signal was sent, as by systemctl kill"
            }
            StopReason::Reload => {
                "the unit is not being stopped: it is reloaded, as by systemctl reload"
            }
            StopReason::Stop => "a stop job, as by systemctl stop",
            StopReason::Restart => "a restart job, as by systemctl restart",
            StopReason::RuntimeMax => "RuntimeMaxSec= ran out",
            StopReason::Watchdog => "the unit missed its watchdog message",
            StopReason::Unclear => "the unit is being stopped, but there is no job for it",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_recognized_by_what_systemd_reports_about_the_unit() {
        let stop = "  812 gateway.service stop running\n";
        let reload = "812 gateway.service reload running\n";
        let dependency = "812 gateway.service stop running\n815 db.service stop waiting\n";
        let start = "812 gateway.service stop running\n815 dbus.service start running\n";
        let conflict = "812 gateway.service stop running\n815 rival.service start waiting\n";
        let hostile = "812 gateway.service stop running\n815 \u{1b}[2J.service stop waiting\n";
        let down = "900 gateway.service stop running\n901 shutdown.target start waiting\n\
                    902 reboot.target start waiting\n";
        let unit = |name: &str| StopReason::Dependency { units: vec![name.to_owned()] };
        let reboot = || StopReason::Reboot { target: "reboot.target".to_owned() };
        let cases = [
            ("active", "running", "success", "", StopReason::Kill),
            ("active", "running", "success", "7 other.service stop running\n", StopReason::Kill),
            ("reloading", "reload-signal", "success", reload, StopReason::Reload),
            ("deactivating", "stop-sigterm", "success", stop, StopReason::Stop),
            (
                "deactivating",
                "stop-sigterm",
                "success",
                "812 gateway.service restart running",
                StopReason::Restart,
            ),
            ("deactivating", "stop-sigterm", "success", dependency, unit("db.service")),
            ("deactivating", "stop-sigterm", "success", start, StopReason::Stop),
            ("deactivating", "stop-sigterm", "success", conflict, unit("rival.service")),
            ("deactivating", "stop-sigterm", "success", hostile, StopReason::Stop),
            ("deactivating", "stop-sigterm", "success", down, reboot()),
            ("deactivating", "stop-sigterm", "timeout", "", StopReason::RuntimeMax),
            ("deactivating", "stop-watchdog", "watchdog", "", StopReason::Watchdog),
            ("deactivating", "stop-sigterm", "success", "No jobs running.\n", StopReason::Unclear),
        ];
        for (active, sub, result, jobs, expected) in cases {
            let show = format!(
                "ActiveState={active}\nSubState={sub}\nResult={result}\n\
                 Conflicts=shutdown.target rival.service\n"
            );
            let properties = UnitProperties::parse(&show);
            assert_eq!(stop_reason("gateway.service", &properties, jobs), Some(expected), "{jobs}");
        }
        assert_eq!(stop_reason("gateway.service", &UnitProperties::default(), stop), None);
        let evil = unit("\u{1b}[2J\u{9b}\u{202e}x.service");
        assert!(evil.to_string().ends_with(r"units: \u{1b}[2J\u{9b}\u{202e}x.service"), "{evil}");
    }

    #[test]
    fn each_reason_has_its_own_text_with_the_units_concerned() {
        let units = vec!["db.service".to_owned(), "cache.service".to_owned()];
        let cases = [
            (StopReason::Kill, "systemctl kill"),
            (StopReason::Reload, "systemctl reload"),
            (StopReason::Stop, "systemctl stop"),
            (StopReason::Restart, "systemctl restart"),
            (StopReason::Dependency { units }, "db.service, cache.service"),
            (StopReason::Reboot { target: "reboot.target".to_owned() }, "reboot.target"),
            (StopReason::RuntimeMax, "RuntimeMaxSec="),
            (StopReason::Watchdog, "watchdog"),
            (StopReason::Unclear, "no job"),
        ];
        for (why, part) in cases {
            assert!(why.to_string().contains(part), "{why}");
            let json = serde_json::to_value(&why).unwrap();
            assert_eq!(serde_json::from_value::<StopReason>(json).unwrap(), why);
        }
    }
}
