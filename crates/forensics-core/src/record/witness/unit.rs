//! What systemd says about the end of a unit's main process.

use serde::{Deserialize, Serialize};

use super::super::Utc;
use crate::escape::{MAX_NAME_CHARS, truncate};

/// What systemd said about the end of a unit's main process: in the environment of `ExecStopPost=`
/// (systemd.exec(5)), or in the journal. The words are systemd's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitEnd {
    /// The result of the unit: `success timeout signal core-dump exit-code watchdog oom-kill` and
    /// others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_result: Option<String>,
    /// How the main process ended: `exited`, `killed` or `dumped`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<String>,
    /// Its exit status, or the name of the signal without `SIG`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_status: Option<String>,
    /// What systemd did to the unit, as far as the journal shows it, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<UnitAction>,
    /// The signal that `systemctl kill` sent to the main process, without `SIG`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_signal: Option<String>,
    /// When systemd noticed that the main process had ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Utc>,
}

/// What systemd did to a unit, by its journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnitAction {
    /// It stopped the unit for a job.
    StopJob,
    /// It stopped the unit, to start it again.
    RestartJob,
    /// The start took longer than `TimeoutStartSec=`.
    StartTimeout,
    /// The unit ran longer than `RuntimeMaxSec=`.
    RuntimeMax,
    /// The unit missed its watchdog.
    Watchdog,
    /// The stop took longer than `TimeoutStopSec=`.
    StopTimeout,
    /// The kernel OOM-killed a process of the unit.
    OomKill,
    /// systemd-oomd killed the unit.
    OomdKill,
    /// An action of a newer version.
    #[serde(other)]
    Other,
}

impl UnitEnd {
    /// Reads the environment of a command of `ExecStopPost=`. Returns the invocation id with it.
    /// `None` if these are not the variables of such a command.
    pub fn from_environment(
        variable: impl Fn(&str) -> Option<String>,
    ) -> Option<(String, UnitEnd)> {
        let variable = |name| variable(name).filter(|text| !text.is_empty());
        let word = |name| variable(name).map(|text| truncate(text, MAX_NAME_CHARS));
        let invocation = variable("INVOCATION_ID").filter(|id| is_id(id))?;
        let end = UnitEnd {
            service_result: Some(word("SERVICE_RESULT")?),
            exit_code: word("EXIT_CODE"),
            exit_status: word("EXIT_STATUS"),
            ..UnitEnd::default()
        };
        Some((invocation, end))
    }

    /// The signal that ended the main process, with `SIG`. `None` if it exited by itself, or if
    /// that is not known.
    pub fn signal(&self) -> Option<String> {
        let was_killed = matches!(self.exit_code.as_deref(), Some("killed" | "dumped"));
        self.exit_status.as_ref().filter(|_| was_killed).map(|name| format!("SIG{name}"))
    }

    /// The exit status of a main process that exited by itself.
    pub fn status(&self) -> Option<i32> {
        let exited = self.exit_code.as_deref() == Some("exited");
        self.exit_status.as_ref().filter(|_| exited)?.parse().ok()
    }

    /// Whether systemd says that it did this.
    pub fn did(&self, action: UnitAction) -> bool {
        self.actions.contains(&action)
    }

    /// Adds the facts that only `other` has.
    pub(in super::super) fn merge(&mut self, other: UnitEnd) {
        fn fill<T>(field: &mut Option<T>, from: Option<T>) {
            *field = field.take().or(from);
        }
        fill(&mut self.service_result, other.service_result);
        // Code and status belong together.
        if self.exit_code.is_none() {
            (self.exit_code, self.exit_status) = (other.exit_code, other.exit_status);
        }
        fill(&mut self.client_signal, other.client_signal);
        fill(&mut self.ended, other.ended);
        let new = other.actions.into_iter().filter(|action| !self.actions.contains(action));
        let new: Vec<_> = new.collect();
        self.actions.extend(new);
    }
}

/// Whether this is a 128-bit id in hexadecimal, as systemd writes it (sd-id128(3)).
pub(super) fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::super::super::Witness;
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef";

    fn read(variables: &[(&str, &str)]) -> Option<(String, UnitEnd)> {
        UnitEnd::from_environment(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_variables_of_exec_stop_post_are_read() {
        let (id, end) = read(&[
            ("INVOCATION_ID", ID),
            ("SERVICE_RESULT", "timeout"),
            ("EXIT_CODE", "killed"),
            ("EXIT_STATUS", "KILL"),
        ])
        .unwrap();
        assert_eq!((id.as_str(), end.signal().as_deref()), (ID, Some("SIGKILL")));
        assert_eq!(end.status(), None);
        let (_, exited) = read(&[
            ("INVOCATION_ID", ID),
            ("SERVICE_RESULT", "exit-code"),
            ("EXIT_CODE", "exited"),
            ("EXIT_STATUS", "3"),
        ])
        .unwrap();
        assert_eq!((exited.signal(), exited.status()), (None, Some(3)));
        // It reads back from the record.
        assert_eq!(Witness::from(&exited).unit_end(), Some(exited));
        // Without a result, or without an invocation id, it is not such a command.
        assert_eq!(read(&[("INVOCATION_ID", ID)]), None);
        assert_eq!(read(&[("INVOCATION_ID", "x"), ("SERVICE_RESULT", "success")]), None);
        assert_eq!(read(&[("SERVICE_RESULT", "success")]), None);
    }

    #[test]
    fn the_first_statement_stays_and_missing_facts_are_added() {
        let mut end = UnitEnd {
            service_result: Some("timeout".to_owned()),
            exit_code: Some("killed".to_owned()),
            exit_status: Some("KILL".to_owned()),
            ..UnitEnd::default()
        };
        end.merge(UnitEnd {
            exit_code: Some("exited".to_owned()),
            exit_status: Some("3".to_owned()),
            actions: vec![UnitAction::StopTimeout],
            ..UnitEnd::default()
        });
        assert_eq!(end.signal().as_deref(), Some("SIGKILL"));
        assert!(end.did(UnitAction::StopTimeout));
    }
}
