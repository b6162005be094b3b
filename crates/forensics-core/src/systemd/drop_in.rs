//! The fix for a stop timeout that is too short: a drop-in file, and how to install it.
//!
//! [`DropIn`] only writes text; nothing is changed. All of it was tried on systemd 252: a drop-in
//! takes effect on `daemon-reload`, for the next stop of a running unit too. `systemctl
//! set-property` refuses this setting.

use std::fmt::{self, Display};
use std::time::Duration;

use super::cgroup::Manager;
use super::unit_name;

/// Amends one unit's stop timeout. `Display` prints the command and what to enter there.
///
/// It changes an instance, not its template: that is the unit that was looked at, and of two
/// drop-ins with the same name the instance's counts.
///
/// Drop-ins apply in the order of their file names, in whichever directory they are, and the last
/// to set the timeout wins. So one that sorts after ours must be changed itself;
/// [`lint`](super::lint()) names those after the `override.conf` of `systemctl edit`.
///
/// A transient unit takes a drop-in too, scopes included, and it wins over what the unit was made
/// with, this time and whenever one of the same name is made. Where each run has a new name
/// (`run-r….scope`), the setting must be given where the unit is made, as in
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
    /// The file has a name of its own, so that it overwrites no `override.conf`, and one that sorts
    /// after that, so that it wins.
    pub script: String,
}

impl DropIn {
    /// The drop-in that makes `manager` give `unit` the time `needed`, rounded up to whole
    /// seconds; `infinity` if that is more than systemd can count.
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
        // Otherwise systemctl takes the name for options.
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
    // At least one: 0 would mean infinite. And systemd's parse_time() refuses what would not fit.
    let seconds = needed.as_nanos().div_ceil(1_000_000_000).max(1);
    let fits = seconds < u128::from(u64::MAX / 1_000_000);
    if fits { format!("{seconds}s") } else { "infinity".to_owned() }
}

/// A valid unit name as one word of a shell. It holds no quote, and nothing but `\` that a shell
/// takes for its own.
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
            // What is written must be something systemd reads, and no less than what is needed.
            let read = crate::duration::parse_stop_timeout(expected).unwrap();
            assert!(read.to_std().is_none_or(|read| read >= needed), "{needed:?}");
        }
    }

    #[test]
    fn the_script_writes_a_file_of_its_own() {
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
