//! The fix for a stop timeout that is too short: a drop-in file, and how to install it.
//!
//! [`DropIn`] only makes text and changes nothing. This was tested with systemd 252: a drop-in
//! takes effect on `daemon-reload`, also for the next stop of a running unit. `systemctl
//! set-property` refuses this setting.

use std::fmt::{self, Display};
use std::time::Duration;

use super::cgroup::Manager;
use super::unit_name;

/// Changes the stop timeout of one unit. `Display` prints the command and the text to enter.
///
/// For an instance, it changes the instance and not its template, because the instance is the unit
/// that was checked. Of two drop-ins with the same name, the instance's one counts.
///
/// Drop-ins apply in the order of their file names, across all directories, and the last one that
/// sets the timeout counts. So a drop-in that sorts after ours must itself be changed;
/// [`lint`](super::lint()) names those after the `override.conf` of `systemctl edit`.
///
/// A drop-in also works for a transient unit, including a scope. It overrides the settings with
/// which the unit was created, now and whenever a unit of the same name is created. If each run has
/// a new name (`run-r….scope`), the setting must be given when the unit is created, as in
/// `systemd-run -p TimeoutStopSec=90s`.
///
/// ```
/// use forensics_core::systemd::{DropIn, Manager};
/// use std::time::Duration;
/// let fix = DropIn::new("gateway.service", Manager::System, Duration::from_secs(90));
/// assert_eq!(
///     fix.expect("a service's valid name").to_string(),
///     "systemctl edit gateway.service\n\n[Service]\nTimeoutStopSec=90s\n"
/// );
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropIn {
    /// The command that opens an editor for the drop-in and reloads systemd afterwards.
    pub edit_command: String,
    /// The section that the setting belongs to: `[Service]`, or `[Scope]`.
    pub section: &'static str,
    /// The setting: `TimeoutStopSec=90s`.
    pub setting: String,
    /// Shell commands that install the drop-in without an editor or a terminal, one per line.
    ///
    /// The file does not overwrite `override.conf`. Its name sorts after that one, so that it
    /// counts.
    pub script: String,
}

impl DropIn {
    /// The drop-in with which `manager` gives `unit` the time `needed`, rounded up to whole
    /// seconds, or `infinity` if that is more than systemd can represent.
    ///
    /// `None` if `unit` is not the full name of a service or a scope: no other type has
    /// `TimeoutStopSec=`.
    pub fn new(unit: &str, manager: Manager, needed: Duration) -> Option<Self> {
        let section = match unit.rsplit_once('.')?.1 {
            "service" => "[Service]",
            "scope" => "[Scope]",
            _ => return None,
        };
        if !unit_name::is_valid(unit) {
            return None;
        }
        let (root, user) = match manager {
            Manager::System => ("/etc/systemd/system", ""),
            Manager::User { .. } => ("~/.config/systemd/user", "--user "),
        };
        // Otherwise systemctl would read the name as options.
        let end_of_options = if unit.starts_with('-') { "-- " } else { "" };
        let edit_command = format!("systemctl {user}edit {end_of_options}{}", shell_word(unit));
        let setting = format!("TimeoutStopSec={}", seconds_up(needed));
        let directory = format!("{root}/{}", shell_word(&format!("{unit}.d")));
        let script = format!(
            "mkdir -p {directory}\n\
             printf '{section}\\n{setting}\\n' > {directory}/timeout-stop.conf\n\
             systemctl {user}daemon-reload\n"
        );
        Some(Self { edit_command, section, setting, script })
    }
}

impl Display for DropIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n\n{}\n{}", self.edit_command, self.section, self.setting)
    }
}

fn seconds_up(needed: Duration) -> String {
    // At least 1, because 0 would mean infinite. systemd's parse_time() refuses a value that is too
    // large.
    let seconds = needed.as_nanos().div_ceil(1_000_000_000).max(1);
    let fits = seconds < u128::from(u64::MAX / 1_000_000);
    if fits { format!("{seconds}s") } else { "infinity".to_owned() }
}

/// A valid unit name as one word of a shell. It contains no quote, and `\` is its only character
/// with a meaning in a shell.
fn shell_word(name: &str) -> String {
    if name.contains('\\') { format!("'{name}'") } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: Manager = Manager::User { uid: 7 };

    fn drop_in(unit: &str, manager: Manager) -> DropIn {
        DropIn::new(unit, manager, Duration::from_secs(90)).unwrap()
    }

    #[test]
    fn the_command_fits_the_unit_and_its_manager() {
        let cases = [
            ("gateway.service", Manager::System, "systemctl edit gateway.service"),
            ("gateway.service", USER, "systemctl --user edit gateway.service"),
            ("w@3.service", Manager::System, "systemctl edit w@3.service"),
            ("-dash.service", USER, "systemctl --user edit -- -dash.service"),
            (r"a\x2db.service", Manager::System, r"systemctl edit 'a\x2db.service'"),
        ];
        for (unit, manager, command) in cases {
            assert_eq!(drop_in(unit, manager).edit_command, command);
        }
    }

    #[test]
    fn only_services_and_scopes_by_full_name_can_be_fixed() {
        assert_eq!(drop_in("a.scope", USER).section, "[Scope]");
        for unit in ["a", "a.slice", "a.socket", "a@.service", "a b.service", "a';x.service", ""] {
            assert_eq!(DropIn::new(unit, USER, Duration::from_secs(1)), None, "{unit}");
        }
    }

    #[test]
    fn seconds_are_rounded_up_and_never_become_zero() {
        let cases = [
            (Duration::ZERO, "1s"),
            (Duration::from_nanos(1), "1s"),
            (Duration::from_millis(90_000), "90s"),
            (Duration::from_millis(90_001), "91s"),
            (Duration::from_secs(18_446_744_073_708), "18446744073708s"),
            (Duration::from_secs(18_446_744_073_709), "infinity"),
            (Duration::MAX, "infinity"),
        ];
        for (needed, expected) in cases {
            assert_eq!(seconds_up(needed), expected, "{needed:?}");
            // systemd must be able to read the value, and it must not be less than needed.
            let read = crate::duration::parse_stop_timeout(expected).unwrap();
            assert!(read.to_std().is_none_or(|read| read >= needed), "{needed:?}");
        }
    }

    #[test]
    fn the_script_writes_a_separate_file() {
        assert_eq!(
            drop_in("gateway.service", Manager::System).script,
            "mkdir -p /etc/systemd/system/gateway.service.d\n\
             printf '[Service]\\nTimeoutStopSec=90s\\n' > \
             /etc/systemd/system/gateway.service.d/timeout-stop.conf\n\
             systemctl daemon-reload\n"
        );
        assert_eq!(
            drop_in(r"a\x2db.scope", USER).script,
            "mkdir -p ~/.config/systemd/user/'a\\x2db.scope.d'\n\
             printf '[Scope]\\nTimeoutStopSec=90s\\n' > \
             ~/.config/systemd/user/'a\\x2db.scope.d'/timeout-stop.conf\n\
             systemctl --user daemon-reload\n"
        );
    }
}
