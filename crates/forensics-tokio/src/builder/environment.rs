//! The settings of the operator: environment variables that override the settings of the program.
//!
//! [`install`](crate::Builder::install) reads them once. An invalid value is an error, because the
//! service would otherwise run with other settings than the operator intended. A variable that begins
//! with `FORENSICS_` and is not a setting is logged as a warning. `docs/configuration.md` has the same
//! table, and a test compares the two.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use forensics_core::duration;
use forensics_core::escape::error_chain;

use super::install_error::InstallError;
use crate::config::{Config, Escalation};

const PREFIX: &str = "FORENSICS_";

/// Set for the process of the diagnostic, whose children may inherit them.
const NOT_SETTINGS: [&str; 2] = ["FORENSICS_PID", "FORENSICS_CONTEXT"];

/// The largest distance at which a name counts as a misspelling of another one.
const MISSPELT: usize = 4;

/// Why a value is invalid, and which values are allowed.
type Invalid = (String, &'static str);

/// Puts a value into the configuration.
type Set = fn(&mut Config, &OsStr) -> Result<(), Invalid>;

/// The variable of each setting, in the order of `docs/configuration.md`.
const SETTINGS: &[(&str, Set)] = &[
    ("FORENSICS_DRAIN_TIMEOUT", |c, v| finite(v).map(|new| c.drain_timeout = new)),
    ("FORENSICS_DEADLINE", |c, v| finite(v).map(|new| c.deadline = Some(new))),
    ("FORENSICS_HEADROOM", |c, v| finite(v).map(|new| c.headroom = new)),
    ("FORENSICS_STOP_TIMEOUT", |c, v| span(v).map(|new| c.set_stop_timeout(new))),
    ("FORENSICS_PRE_STOP_DELAY", |c, v| finite(v).map(|new| c.pre_stop_delay = new)),
    ("FORENSICS_SERVICE_TIMEOUT", |c, v| span(v).map(|new| c.service_timeout = Some(new))),
    ("FORENSICS_EXTEND_STOP_TIMEOUT", |c, v| span(v).map(|new| c.extend_ceiling = Some(new))),
    ("FORENSICS_RECORD_DIR", |c, v| path(v).map(|new| c.record_dir = Some(new))),
    ("FORENSICS_FSYNC_RECORDS", |c, v| yes_or_no(v).map(|new| c.fsync_records = new)),
    ("FORENSICS_TERMINATION_MESSAGE", |c, v| path(v).map(|new| c.termination_message = Some(new))),
    ("FORENSICS_DIAG_LOG", |c, v| path(v).map(|new| c.diag_log = Some(new))),
    ("FORENSICS_ESCALATION", |c, v| escalation(v).map(|new| c.escalation = new)),
    ("FORENSICS_EXIT_BY_SIGNAL", |c, v| yes_or_no(v).map(|new| c.exit_by_signal = new)),
    ("FORENSICS_WATCHDOG", |c, v| yes_or_no(v).map(|new| c.watchdog = new)),
    ("FORENSICS_LOW_LATENCY_CAPTURE", |c, v| {
        yes_or_no(v).map(|new| c.low_latency_capture = Some(new))
    }),
    ("FORENSICS_SHOW_SECRETS", |c, v| yes_or_no(v).map(|new| c.show_secrets = new)),
    ("FORENSICS_STDERR_FALLBACK", |c, v| yes_or_no(v).map(|new| c.stderr_fallback = new)),
];

/// The variables that begin with `FORENSICS_`, in alphabetical order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Variables {
    /// The settings, with their values.
    pub(crate) settings: Vec<(&'static str, String)>,
    /// Other variables, with the setting that may be meant.
    pub(crate) unknown: Vec<(String, Option<&'static str>)>,
}

/// Whether the variable can be a setting.
pub(crate) fn is_ours(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(PREFIX.as_bytes())
}

/// Puts the settings among these variables into `config`. An empty variable counts as unset.
///
/// # Errors
/// If a value is invalid. `config` is then partly changed.
pub(crate) fn apply(
    config: &mut Config,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Variables, InstallError> {
    let mut found = Variables::default();
    // Sorted, as the environment has no order.
    for (name, value) in variables.into_iter().collect::<BTreeMap<_, _>>() {
        if !is_ours(&name) {
            continue;
        }
        let name = name.to_string_lossy();
        if value.is_empty() || NOT_SETTINGS.contains(&&*name) {
            continue;
        }
        let text = value.to_string_lossy().into_owned();
        let Some(&(variable, set)) = SETTINGS.iter().find(|(variable, _)| *variable == name) else {
            found.unknown.push((name.to_string(), nearest(&name)));
            continue;
        };
        if let Err((reason, allowed)) = set(config, &value) {
            return Err(InstallError::Environment { variable, value: text, reason, allowed });
        }
        found.settings.push((variable, text));
    }
    Ok(found)
}

fn span(value: &OsStr) -> Result<Duration, Invalid> {
    let allowed = "a time span such as `30s` or `1min 30s`, or `infinity`";
    let span = duration::parse(&value.to_string_lossy()).map_err(|e| (error_chain(&e), allowed))?;
    Ok(span.to_std().unwrap_or(Duration::MAX))
}

fn finite(value: &OsStr) -> Result<Duration, Invalid> {
    let allowed = "a time span such as `30s` or `1min 30s`";
    let span = span(value).map_err(|(reason, _)| (reason, allowed))?;
    let infinite = || ("it must be finite".to_owned(), allowed);
    Some(span).filter(|&span| span < Duration::MAX).ok_or_else(infinite)
}

/// As systemd's `parse_boolean()` (`src/basic/parse-util.c`).
fn yes_or_no(value: &OsStr) -> Result<bool, Invalid> {
    match value.to_string_lossy().to_ascii_lowercase().as_str() {
        "1" | "yes" | "y" | "true" | "t" | "on" => Ok(true),
        "0" | "no" | "n" | "false" | "f" | "off" => Ok(false),
        _ => Err(("not a boolean".to_owned(), "`yes`, `no`")),
    }
}

/// Any value is a path.
fn path(value: &OsStr) -> Result<PathBuf, Invalid> {
    Ok(PathBuf::from(value))
}

fn escalation(value: &OsStr) -> Result<Escalation, Invalid> {
    match value.to_str() {
        Some("person") => Ok(Escalation::Person),
        Some("any_signal") => Ok(Escalation::AnySignal),
        Some("exit") => Ok(Escalation::Exit),
        Some("never") => Ok(Escalation::Never),
        _ => {
            Err(("not an escalation policy".to_owned(), "`person`, `any_signal`, `exit`, `never`"))
        }
    }
}

/// The setting that a misspelt name may mean.
fn nearest(name: &str) -> Option<&'static str> {
    let distances = SETTINGS.iter().map(|&(known, _)| (distance(name, known), known));
    distances.min().filter(|&(distance, _)| distance <= MISSPELT).map(|(_, known)| known)
}

/// The Levenshtein distance: how many letters must be inserted, removed or changed to turn `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    fn with(variables: &[(&str, &str)]) -> Result<(Config, Variables), InstallError> {
        let mut config = Config::new("test".to_owned());
        let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
        apply(&mut config, variables).map(|found| (config, found))
    }

    /// The `Debug` output of the configuration that a variable with this value changes.
    fn change(variable: &str, value: &str) -> String {
        let shown = |config: &Config| format!("{config:#?}");
        let before = shown(&Config::new("test".to_owned()));
        let (config, found) = with(&[(variable, value)]).unwrap();
        assert_eq!(found.settings, [(known(variable), value.to_owned())]);
        let after = shown(&config);
        let new = after.lines().filter(|line| !before.lines().any(|old| old == *line));
        new.map(str::trim).collect::<Vec<_>>().join(" ")
    }

    fn known(variable: &str) -> &'static str {
        SETTINGS.iter().find(|(known, _)| *known == variable).unwrap().0
    }

    #[test]
    fn each_variable_changes_its_setting_and_nothing_else() {
        let cases = [
            ("FORENSICS_DRAIN_TIMEOUT", "1min 30s", "drain_timeout: 90s,"),
            ("FORENSICS_DRAIN_TIMEOUT", "90", "drain_timeout: 90s,"),
            ("FORENSICS_DEADLINE", "2min", "deadline: Some( 120s,"),
            ("FORENSICS_HEADROOM", "0", "headroom: 0ns,"),
            ("FORENSICS_STOP_TIMEOUT", "55s", "stop_timeout: Some( 55s,"),
            ("FORENSICS_PRE_STOP_DELAY", "5s", "pre_stop_delay: 5s,"),
            ("FORENSICS_SERVICE_TIMEOUT", "500ms", "service_timeout: Some( 500ms,"),
            ("FORENSICS_EXTEND_STOP_TIMEOUT", "1h", "extend_ceiling: Some( 3600s,"),
            ("FORENSICS_RECORD_DIR", "/var/lib/x", "record_dir: Some( \"/var/lib/x\","),
            ("FORENSICS_FSYNC_RECORDS", "yes", "fsync_records: true,"),
            ("FORENSICS_TERMINATION_MESSAGE", "/run/m", "termination_message: Some( \"/run/m\","),
            ("FORENSICS_DIAG_LOG", "/var/log/x", "diag_log: Some( \"/var/log/x\","),
            ("FORENSICS_ESCALATION", "exit", "escalation: Exit,"),
            ("FORENSICS_ESCALATION", "never", "escalation: Never,"),
            ("FORENSICS_ESCALATION", "any_signal", "escalation: AnySignal,"),
            ("FORENSICS_EXIT_BY_SIGNAL", "yes", "exit_by_signal: true,"),
            ("FORENSICS_WATCHDOG", "On", "watchdog: true,"),
            ("FORENSICS_LOW_LATENCY_CAPTURE", "1", "low_latency_capture: Some( true,"),
            ("FORENSICS_SHOW_SECRETS", "T", "show_secrets: true,"),
            ("FORENSICS_STDERR_FALLBACK", "off", "stderr_fallback: false,"),
        ];
        for (variable, value, expected) in cases {
            let changed = change(variable, value);
            assert!(changed.starts_with(expected), "{variable}={value}: {changed}");
            assert!(expected.len() + 4 > changed.len(), "and no more: {changed}");
        }
        for (known, _) in SETTINGS {
            assert!(cases.iter().any(|(variable, ..)| variable == known));
        }
        // No limit but the deadline.
        for variable in ["FORENSICS_SERVICE_TIMEOUT", "FORENSICS_EXTEND_STOP_TIMEOUT"] {
            assert!(change(variable, "infinity").contains("18446744073709551615"), "{variable}");
        }
    }

    #[test]
    fn the_operator_wins_and_can_also_say_no() {
        let mut config =
            Config { fsync_records: true, watchdog: true, ..Config::new("test".to_owned()) };
        let variables = [("FORENSICS_FSYNC_RECORDS", "no"), ("FORENSICS_WATCHDOG", "")];
        let variables = variables.map(|(name, value)| (name.into(), value.into()));
        let found = apply(&mut config, variables).unwrap();
        assert!(!config.fsync_records);
        assert!(config.watchdog, "an empty variable is an unset one");
        assert_eq!(found.settings, [("FORENSICS_FSYNC_RECORDS", "no".to_owned())]);
    }

    #[test]
    fn an_infinite_stop_timeout_is_unknown() {
        let mut config = Config::new("test".to_owned());
        config.set_stop_timeout(Duration::from_secs(30));
        apply(&mut config, [("FORENSICS_STOP_TIMEOUT".into(), "infinity".into())]).unwrap();
        assert_eq!(config.stop_timeout, None);
    }

    #[test]
    fn a_path_need_not_be_text() {
        let mut config = Config::new("test".to_owned());
        let path = OsStr::from_bytes(b"/srv/\xff");
        apply(&mut config, [("FORENSICS_RECORD_DIR".into(), path.into())]).unwrap();
        assert_eq!(config.record_dir.unwrap().as_os_str(), path);
    }

    #[test]
    fn an_invalid_value_is_named_with_its_variable_and_the_allowed_values() {
        let cases = [
            (
                "FORENSICS_DEADLINE",
                "5mins",
                "FORENSICS_DEADLINE=5mins: `5mins`: unknown unit `mins` at byte 1; write one of us, \
                 ms, s, min, h, d, w, month, y; allowed: a time span such as `30s` or `1min 30s`",
            ),
            (
                "FORENSICS_DRAIN_TIMEOUT",
                "infinity",
                "FORENSICS_DRAIN_TIMEOUT=infinity: it must be finite; allowed: a time span such as \
                 `30s` or `1min 30s`",
            ),
            (
                "FORENSICS_FSYNC_RECORDS",
                "ja\n",
                "FORENSICS_FSYNC_RECORDS=\"ja\\n\": not a boolean; allowed: `yes`, `no`",
            ),
            (
                "FORENSICS_ESCALATION",
                "Exit",
                "FORENSICS_ESCALATION=Exit: not an escalation policy; allowed: `person`, `any_signal`, \
                 `exit`, `never`",
            ),
        ];
        for (name, text, expected) in cases {
            let error = with(&[(name, text)]).unwrap_err();
            assert_eq!(error.to_string(), format!("environment variable {expected}"));
            // The form in which `main` shows it if it returns it.
            assert_eq!(format!("{error:?}"), error.to_string());
            assert!(matches!(error, InstallError::Environment { variable, value, .. }
                if variable == name && value == text));
        }
    }

    #[test]
    fn an_unknown_name_is_kept_with_the_nearest() {
        let (_, found) = with(&[
            ("FORENSICS_DEADLIN", "1s"),
            ("FORENSICS_DRAIN_TIME_OUT", "1s"),
            ("FORENSICS_SOMETHING_ELSE", "1"),
            ("FORENSICS_PID", "7"),
            ("FORENSICS_EMPTY", ""),
            ("HOME", "/root"),
        ])
        .unwrap();
        assert_eq!(found.settings, []);
        let expected = [
            ("FORENSICS_DEADLIN", Some("FORENSICS_DEADLINE")),
            ("FORENSICS_DRAIN_TIME_OUT", Some("FORENSICS_DRAIN_TIMEOUT")),
            ("FORENSICS_SOMETHING_ELSE", None),
        ];
        assert_eq!(found.unknown, expected.map(|(name, nearest)| (name.to_owned(), nearest)));
    }

    #[test]
    fn letters_are_counted() {
        let cases = [("", "", 0), ("abc", "", 3), ("kitten", "sitting", 3), ("ab", "ba", 2)];
        for (a, b, expected) in cases {
            assert_eq!((distance(a, b), distance(b, a)), (expected, expected), "{a} {b}");
        }
    }

    #[test]
    fn the_documentations_table_is_this_one() {
        let page = include_str!("../../docs/configuration.md");
        let cell = |line: &'static str| line.strip_prefix("| `FORENSICS_")?.split_once('`');
        let documented: Vec<_> =
            page.lines().filter_map(cell).map(|(name, _)| format!("FORENSICS_{name}")).collect();
        let known: Vec<_> = SETTINGS.iter().map(|&(variable, _)| variable).collect();
        assert_eq!(documented, known);
    }
}
