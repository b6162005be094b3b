//! `forensics check`

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use forensics_core::capture::Signal;
use forensics_core::duration::Timespan;
use forensics_core::escape::{MAX_TEXT_CHARS, truncate};
use forensics_core::systemd::{
    Alignment, CgroupUnit, DEFAULT_SIGNALS, DropIn, Finding, Manager, Severity, UnitProperties,
    lint, lint_signals, list_signals, show_arguments,
};
use forensics_core::{json, secure_fs};
use serde_json::json;

use crate::format::text;
use crate::program::output;

/// Longest drop-in read, in bytes.
const MAX_DROP_IN: u64 = 256 << 10;

const ALIGNED: u8 = 0;
const NOT_ALIGNED: u8 = 1;
const CANNOT_TELL: u8 = 3;

#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: 0 aligned, 1 not aligned, 3 can't tell.

Example:
  forensics check gateway.service --drain 60s")]
pub(crate) struct Check {
    /// The unit, such as `gateway` or `gateway@1`; a name without a type is a `.service`
    #[arg(value_parser = instance)]
    unit: String,
    /// How long the service drains, such as `60s`
    #[arg(long, value_name = "T", value_parser = super::finite)]
    drain: Duration,
    /// How much of the stop timeout must remain after the drain
    #[arg(long, value_name = "T", value_parser = super::finite, default_value = "30s")]
    headroom: Duration,
    /// The signals that the service's guard handles [default: SIGTERM,SIGINT,SIGHUP,SIGQUIT]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    signals: Vec<Signal>,
    /// Ask the user's manager instead of the system's, and check the service of that manager as well
    #[arg(long)]
    user: bool,
    /// Print JSON, on one line
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(crate) fn run(&self, out: &mut dyn Write) -> io::Result<ExitCode> {
        let manager = if self.user {
            Manager::User { uid: nix::unistd::getuid().as_raw() }
        } else {
            Manager::System
        };
        let suffix = if self.unit.contains('.') { "" } else { ".service" };
        let unit = format!("{}{suffix}", self.unit);
        let properties = match output("systemctl", &show_arguments(manager, &unit)) {
            Ok(output) => UnitProperties::parse(&output),
            Err(why) => {
                eprintln!("forensics: can't tell: {}", text(&why.to_string(), MAX_TEXT_CHARS));
                return Ok(ExitCode::from(CANNOT_TELL));
            }
        };
        let own = Checked::new(self, CgroupUnit { unit, manager }, &properties);
        let mut findings = self.findings(&properties);
        // The stop timeout of the user manager's own service also limits its units.
        let outer = own.unit.manager_unit();
        let outer = outer.and_then(|unit| {
            match output("systemctl", &show_arguments(unit.manager, &unit.unit)) {
                Ok(output) => Some(Checked::new(self, unit, &UnitProperties::parse(&output))),
                Err(why) => {
                    let why = text(&why.to_string(), MAX_TEXT_CHARS);
                    let what =
                        format!("{} also limits a stop, but can't be checked: {why}", unit.unit);
                    findings.push(Finding { severity: Severity::Unknown, what, fix: None });
                    None
                }
            }
        });
        let all = [Some(&own), outer.as_ref()].into_iter().flatten();
        let code = match own.alignment {
            None => CANNOT_TELL,
            Some(_) if all.clone().any(|checked| checked.short().is_some()) => NOT_ALIGNED,
            Some(_) => ALIGNED,
        };
        if self.json {
            let mut answer = own.json();
            answer["aligned"] = json!(own.alignment.map(|_| code == ALIGNED));
            answer["findings"] = json!(findings);
            if let Some(outer) = &outer {
                answer["user_manager"] = outer.json();
            }
            writeln!(out, "{}", json::to_string(&answer)?)?;
        } else {
            for checked in all.clone() {
                let summary = checked.alignment.map(|alignment| alignment.to_string());
                let unknown = || "can't tell: systemd does not report a stop timeout".to_owned();
                let unit = to_copy(&checked.unit.unit);
                writeln!(out, "{unit}: {}", summary.unwrap_or_else(unknown))?;
            }
            for finding in &findings {
                writeln!(out, "{}: {}", finding.severity, finding.what)?;
                if let Some(fix) = &finding.fix {
                    writeln!(out, "  fix: {fix}")?;
                }
            }
            for checked in all {
                if let Some(drop_in) = checked.drop_in() {
                    print_fix(out, &drop_in, checked.overruling.clone())?;
                }
            }
        }
        Ok(ExitCode::from(code))
    }

    fn findings(&self, properties: &UnitProperties) -> Vec<Finding> {
        let is_assumed = self.signals.is_empty();
        let signals = if is_assumed { &DEFAULT_SIGNALS } else { self.signals.as_slice() };
        let mut found = lint(properties);
        found.extend(lint_signals(properties, signals));
        if is_assumed && properties.load_state.as_deref() == Some("loaded") {
            let signals = list_signals(signals);
            let what = format!("the guard's signals are assumed to be {signals}; see --signals");
            found.push(Finding { severity: Severity::Ok, what, fix: None });
        }
        found
    }
}

/// Accepts the name of a unit that can run, and not that of a template, for which systemd shows
/// nothing.
fn instance(name: &str) -> Result<String, String> {
    let prefix = name.rsplit_once('.').map_or(name, |(prefix, _)| prefix);
    if prefix.ends_with('@') {
        let example = to_copy(&format!("{prefix}1"));
        return Err(format!("it is a template: name one of its instances, such as `{example}`"));
    }
    Ok(name.to_owned())
}

/// A unit whose stop timeout limits a stop.
struct Checked {
    unit: CgroupUnit,
    /// `None` if systemd does not report a stop timeout.
    alignment: Option<Alignment>,
    /// The drop-in that overrides the one of `systemctl edit`.
    overruling: Option<String>,
}

impl Checked {
    fn new(check: &Check, unit: CgroupUnit, properties: &UnitProperties) -> Self {
        let granted = properties.stop_timeout();
        let alignment =
            granted.map(|granted| Alignment::check(granted, check.drain, check.headroom));
        Self { unit, alignment, overruling: overruling(properties) }
    }

    fn short(&self) -> Option<Alignment> {
        self.alignment.filter(|alignment| !alignment.is_aligned())
    }

    /// The fix, if the stop timeout is too short.
    fn drop_in(&self) -> Option<DropIn> {
        DropIn::new(&self.unit.unit, self.unit.manager, self.short()?.needed)
    }

    fn json(&self) -> serde_json::Value {
        let alignment = self.alignment;
        json!({
            "unit": self.unit.unit,
            "aligned": alignment.map(|alignment| alignment.is_aligned()),
            "timeout_stop_us": alignment.map(|alignment| alignment.stop_timeout),
            "needed_us": alignment.and_then(|it| Timespan::from(it.needed).as_micros()),
            "summary": alignment.map(|alignment| alignment.to_string()),
            "drop_in": self.drop_in().map(|drop_in| json!({
                "edit": drop_in.edit_command,
                "section": drop_in.section,
                "setting": drop_in.setting,
                "script": drop_in.script,
                "overruled_by": self.overruling,
            })),
        })
    }
}

fn print_fix(out: &mut dyn Write, drop_in: &DropIn, file: Option<String>) -> io::Result<()> {
    let (section, setting, script) = (drop_in.section, &drop_in.setting, &drop_in.script);
    match file {
        None => writeln!(out, "\nTo fix it:\n\n{drop_in}\nOr without an editor:\n\n{script}"),
        Some(file) => writeln!(
            out,
            "\nTo fix it, in {}, which overrides what `systemctl edit` would write:\n\n\
             {section}\n{setting}\n\nThen: systemctl daemon-reload",
            to_copy(&file),
        ),
    }
}

/// A name that the user can copy. Printable ASCII is not escaped, because names of units contain
/// backslashes.
fn to_copy(name: &str) -> String {
    if name.chars().all(|c| c.is_ascii_graphic() || c == ' ') {
        truncate(name, MAX_TEXT_CHARS)
    } else {
        text(name, MAX_TEXT_CHARS)
    }
}

/// The last of the drop-ins that systemd reads after `override.conf` and that set the timeout. The
/// fix has to be made there. A file that cannot be read is skipped.
fn overruling(properties: &UnitProperties) -> Option<String> {
    let sets_it = |text: Vec<u8>| {
        let text = String::from_utf8_lossy(&text);
        let mut names = text.lines().filter_map(|line| Some(line.split_once('=')?.0.trim()));
        names.any(|name| matches!(name, "TimeoutStopSec" | "TimeoutSec"))
    };
    let overrules = |path: &&str| secure_fs::read(Path::new(path), MAX_DROP_IN).is_ok_and(sets_it);
    properties.late_drop_ins().filter(overrules).last().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use forensics_core::systemd::DEFAULT_HEADROOM;

    use super::*;

    #[test]
    fn the_default_headroom_is_that_of_the_library() {
        assert_eq!(DEFAULT_HEADROOM, Duration::from_secs(30));
    }
}
