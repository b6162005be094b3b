//! The operator's settings: variables of the environment, which override the program's settings.
//!
//! They are read once, by [`install`](crate::Builder::install). An invalid value keeps the service
//! from starting, since it would not run as the operator wants. A variable that begins like a
//! setting and is not one is logged as a warning. `docs/configuration.md` has the same table for
//! readers, and a test compares the two.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use forensics_core::duration;

use super::install_error::InstallError;
use crate::config::{Config, Escalation};

/// What all of them begin with.
const PREFIX: &str = "FORENSICS_";

/// Set for the process of the diagnostic, whose children may inherit them.
const NOT_SETTINGS: [&str; 2] = ["FORENSICS_PID", "FORENSICS_CONTEXT"];

/// How many letters a name may be off and still be taken for a misspelt one.
const MISSPELT: usize = 4;

/// Puts a value into the configuration. An error says what is wrong with it and the fix.
type Set = fn(&mut Config, &OsStr) -> Result<(), String>;

/// Each setting's variable, in the order of `docs/configuration.md`.
const SETTINGS: &[(&str, Set)] = &[
    ("FORENSICS_DRAIN_TIMEOUT", |c, v| finite(v).map(|new| c.drain_timeout = new)),
    ("FORENSICS_DEADLINE", |c, v| finite(v).map(|new| c.deadline = Some(new))),
    ("FORENSICS_HEADROOM", |c, v| finite(v).map(|new| c.headroom = new)),
    ("FORENSICS_GRACE", |c, v| span(v).map(|new| c.set_grace(new))),
    ("FORENSICS_LEAD", |c, v| finite(v).map(|new| c.lead = new)),
    ("FORENSICS_SERVICE_GRACE", |c, v| span(v).map(|new| c.service_grace = Some(new))),
    ("FORENSICS_EXTEND", |c, v| span(v).map(|new| c.extend_ceiling = Some(new))),
    ("FORENSICS_RECORD_DIR", |c, v| path(v).map(|new| c.record_dir = Some(new))),
    ("FORENSICS_DURABLE", |c, v| yes_or_no(v).map(|new| c.durable = new)),
    ("FORENSICS_TERMINATION_MESSAGE", |c, v| path(v).map(|new| c.termination_message = Some(new))),
    ("FORENSICS_DIAG_LOG", |c, v| path(v).map(|new| c.diag_log = Some(new))),
    ("FORENSICS_ESCALATION", |c, v| escalation(v).map(|new| c.escalation = new)),
    ("FORENSICS_WATCHDOG", |c, v| yes_or_no(v).map(|new| c.watchdog = new)),
    ("FORENSICS_LOW_LATENCY_CAPTURE", |c, v| {
        yes_or_no(v).map(|new| c.low_latency_capture = Some(new))
    }),
    ("FORENSICS_SHOW_SECRETS", |c, v| yes_or_no(v).map(|new| c.show_secrets = new)),
];

/// The variables that begin like a setting, in alphabetical order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Variables {
    /// The settings, with their values.
    pub(crate) settings: Vec<(&'static str, String)>,
    /// What is not a setting, with the setting that may be meant.
    pub(crate) unknown: Vec<(String, Option<&'static str>)>,
}

/// Puts the settings among these variables into `config`. A variable that is empty counts as unset.
///
/// # Errors
/// Where a value is invalid for its setting; `config` is then of no use.
pub(crate) fn apply(
    config: &mut Config,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Variables, InstallError> {
    let mut found = Variables::default();
    // Sorted, as the environment has no order.
    for (name, value) in variables.into_iter().collect::<BTreeMap<_, _>>() {
        let name = name.to_string_lossy();
        if !name.starts_with(PREFIX) || value.is_empty() || NOT_SETTINGS.contains(&&*name) {
            continue;
        }
        let text = value.to_string_lossy().into_owned();
        let Some(&(variable, set)) = SETTINGS.iter().find(|(variable, _)| *variable == name) else {
            found.unknown.push((name.to_string(), nearest(&name)));
            continue;
        };
        let invalid =
            |problem| InstallError::Environment { variable, value: text.clone(), problem };
        set(config, &value).map_err(invalid)?;
        found.settings.push((variable, text));
    }
    Ok(found)
}

fn span(value: &OsStr) -> Result<Duration, String> {
    let span = duration::parse(&value.to_string_lossy()).map_err(|e| e.to_string())?;
    Ok(span.to_std().unwrap_or(Duration::MAX))
}

fn finite(value: &OsStr) -> Result<Duration, String> {
    let no_limit = || "no limit is no time: write a time span such as `30s`".to_owned();
    Some(span(value)?).filter(|&span| span < Duration::MAX).ok_or_else(no_limit)
}

/// Whether a variable's value is a yes; no where it is not a truth value.
pub(crate) fn is_yes(value: &OsStr) -> bool {
    yes_or_no(value) == Ok(true)
}

/// As systemd's `parse_boolean()` (`src/basic/parse-util.c`).
fn yes_or_no(value: &OsStr) -> Result<bool, String> {
    match value.to_string_lossy().to_ascii_lowercase().as_str() {
        "1" | "yes" | "y" | "true" | "t" | "on" => Ok(true),
        "0" | "no" | "n" | "false" | "f" | "off" => Ok(false),
        _ => Err("neither yes nor no: write `yes` or `no`".to_owned()),
    }
}

/// Any value is a path.
fn path(value: &OsStr) -> Result<PathBuf, String> {
    Ok(PathBuf::from(value))
}

fn escalation(value: &OsStr) -> Result<Escalation, String> {
    match value.to_str() {
        Some("cut_then_exit") => Ok(Escalation::CutThenExit),
        Some("exit") => Ok(Escalation::Exit),
        Some("ignore") => Ok(Escalation::Ignore),
        _ => Err("write `cut_then_exit`, `exit` or `ignore`".to_owned()),
    }
}

/// The setting that a misspelt name may mean.
fn nearest(name: &str) -> Option<&'static str> {
    let distances = SETTINGS.iter().map(|&(known, _)| (distance(name, known), known));
    distances.min().filter(|&(distance, _)| distance <= MISSPELT).map(|(_, known)| known)
}

/// How many letters have to be put in, taken out or changed to make `b` of `a` (Levenshtein).
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

    /// What of the configuration a variable of that value changes, as `Debug` shows it.
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
            ("FORENSICS_GRACE", "55s", "grace: Some( 55s,"),
            ("FORENSICS_LEAD", "5s", "lead: 5s,"),
            ("FORENSICS_SERVICE_GRACE", "500ms", "service_grace: Some( 500ms,"),
            ("FORENSICS_EXTEND", "1h", "extend_ceiling: Some( 3600s,"),
            ("FORENSICS_RECORD_DIR", "/var/lib/x", "record_dir: Some( \"/var/lib/x\","),
            ("FORENSICS_DURABLE", "yes", "durable: true,"),
            ("FORENSICS_TERMINATION_MESSAGE", "/run/m", "termination_message: Some( \"/run/m\","),
            ("FORENSICS_DIAG_LOG", "/var/log/x", "diag_log: Some( \"/var/log/x\","),
            ("FORENSICS_ESCALATION", "exit", "escalation: Exit,"),
            ("FORENSICS_ESCALATION", "ignore", "escalation: Ignore,"),
            ("FORENSICS_WATCHDOG", "On", "watchdog: true,"),
            ("FORENSICS_LOW_LATENCY_CAPTURE", "1", "low_latency_capture: Some( true,"),
            ("FORENSICS_SHOW_SECRETS", "T", "show_secrets: true,"),
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
        for variable in ["FORENSICS_SERVICE_GRACE", "FORENSICS_EXTEND"] {
            assert!(change(variable, "infinity").contains("18446744073709551615"), "{variable}");
        }
    }

    #[test]
    fn the_operator_wins_and_can_also_say_no() {
        let mut config = Config { durable: true, watchdog: true, ..Config::new("test".to_owned()) };
        let variables = [("FORENSICS_DURABLE", "no"), ("FORENSICS_WATCHDOG", "")];
        let variables = variables.map(|(name, value)| (name.into(), value.into()));
        let found = apply(&mut config, variables).unwrap();
        assert!(!config.durable);
        assert!(config.watchdog, "an empty variable is an unset one");
        assert_eq!(found.settings, [("FORENSICS_DURABLE", "no".to_owned())]);
    }

    #[test]
    fn a_grace_period_without_limit_is_one_that_is_not_known() {
        let mut config = Config::new("test".to_owned());
        config.set_grace(Duration::from_secs(30));
        apply(&mut config, [("FORENSICS_GRACE".into(), "infinity".into())]).unwrap();
        assert_eq!(config.grace, None);
    }

    #[test]
    fn a_path_need_not_be_text() {
        let mut config = Config::new("test".to_owned());
        let path = OsStr::from_bytes(b"/srv/\xff");
        apply(&mut config, [("FORENSICS_RECORD_DIR".into(), path.into())]).unwrap();
        assert_eq!(config.record_dir.unwrap().as_os_str(), path);
    }

    #[test]
    fn an_invalid_value_is_named_with_its_variable_and_the_fix() {
        let cases = [
            (
                "FORENSICS_DEADLINE",
                "5mins",
                "FORENSICS_DEADLINE=5mins in the environment: `5mins`: \
              unknown unit `mins` at byte 1; write one of us, ms, s, min, h, d, w, month, y",
            ),
            (
                "FORENSICS_DRAIN_TIMEOUT",
                "infinity",
                "FORENSICS_DRAIN_TIMEOUT=infinity in the \
              environment: no limit is no time: write a time span such as `30s`",
            ),
            (
                "FORENSICS_DURABLE",
                "ja\n",
                "FORENSICS_DURABLE=\"ja\\n\" in the environment: neither \
              yes nor no: write `yes` or `no`",
            ),
            (
                "FORENSICS_ESCALATION",
                "Exit",
                "FORENSICS_ESCALATION=Exit in the environment: write \
              `cut_then_exit`, `exit` or `ignore`",
            ),
        ];
        for (variable, value, expected) in cases {
            let error = with(&[(variable, value)]).unwrap_err();
            assert_eq!(error.to_string(), expected);
            // As `main` shows it that returns it.
            assert_eq!(format!("{error:?}"), expected);
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
