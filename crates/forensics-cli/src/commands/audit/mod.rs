//! `forensics audit`

#[cfg(target_os = "linux")]
mod follow;
mod rule;
pub(crate) mod search;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use forensics_core::escape::{Escaped, MAX_TEXT_CHARS};

use self::rule::{Rule, rules};
use crate::format::text;
use crate::output::replace;
use crate::program::output;

/// The folder from which auditd loads its rules at its start (augenrules(8)).
const RULES: &str = "/etc/audit/rules.d";

/// Our file there.
const FILE: &str = "/etc/audit/rules.d/shutdown-forensics.rules";

const IN_EFFECT: u8 = 0;
const NOT_IN_EFFECT: u8 = 1;
const CANNOT_TELL: u8 = 3;

#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: 0 the rule is loaded and auditing is on, or --install or --remove has succeeded; 1 the rule
is not loaded or auditing is off; 2 something failed; 3 can't tell, because only root can ask.

Examples:
  forensics audit --install
  forensics audit --follow /var/log/shutdown-forensics/audit.log")]
pub(crate) struct Audit {
    /// Load the rule, and write it to /etc/audit/rules.d so that it is loaded at every boot; needs root
    #[arg(long, conflicts_with_all = ["remove", "follow"])]
    install: bool,
    /// Undo --install: unload this rule and remove its file; needs root
    #[arg(long, conflicts_with = "follow")]
    remove: bool,
    /// Append the events of the rule to FILE until a signal ends this program, for machines without
    /// auditd; needs root
    #[arg(long, value_name = "FILE")]
    follow: Option<PathBuf>,
}

impl Audit {
    pub(crate) fn run(&self, out: &mut dyn Write) -> io::Result<ExitCode> {
        if let Some(file) = &self.follow {
            return follow(file, out);
        }
        if self.install {
            install(out)?;
        } else if self.remove {
            remove(out)?;
        } else {
            return print(out);
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(target_os = "linux")]
fn follow(file: &Path, out: &mut dyn Write) -> io::Result<ExitCode> {
    warn_if_off();
    follow::follow(file, out)
}

#[cfg(not(target_os = "linux"))]
fn follow(_: &Path, _: &mut dyn Write) -> io::Result<ExitCode> {
    Err(io::Error::other("only Linux has the audit log"))
}

/// Calls auditctl(8).
fn auditctl(arguments: &[&str]) -> io::Result<String> {
    let arguments: Vec<_> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    output("auditctl", &arguments).map_err(|e| match e.to_string() {
        why if why.contains("not found") => io::Error::other(format!("{why}: install auditd")),
        _ => e,
    })
}

/// A number that `auditctl -s` prints.
fn status(name: &str) -> io::Result<u64> {
    let status = auditctl(&["-s"])?;
    let mut lines = status.lines().filter_map(|line| line.split_once(' '));
    let value =
        lines.find(|(key, _)| *key == name).and_then(|(_, value)| value.trim().parse().ok());
    value.ok_or_else(|| io::Error::other(format!("auditctl -s does not report `{name}`")))
}

fn warn_if_off() {
    if status("enabled").is_ok_and(|enabled| enabled == 0) {
        eprintln!("forensics: {OFF}");
    }
}

const OFF: &str = "auditing is off, so nothing is logged: start auditd, or call auditctl -e 1";

fn print(out: &mut dyn Write) -> io::Result<ExitCode> {
    let rules = rules();
    writeln!(out, "To load the rule until the next boot, as root:\n")?;
    for rule in &rules {
        writeln!(out, "  auditctl {rule}")?;
    }
    writeln!(out, "\nTo load it at every boot, {FILE}:\n")?;
    for rule in &rules {
        writeln!(out, "  {rule}")?;
    }
    writeln!(out, "\n`forensics audit --install` does both.\n")?;
    let list = match auditctl(&["-l"]) {
        Ok(list) => list,
        Err(why) => {
            let why = text(&why.to_string(), MAX_TEXT_CHARS);
            writeln!(out, "loaded: can't tell: {why}")?;
            return Ok(ExitCode::from(CANNOT_TELL));
        }
    };
    let loaded: Vec<_> = rules.iter().filter(|rule| rule.is_in(&list)).collect();
    let are_loaded = loaded.len() == rules.len();
    match loaded.as_slice() {
        [] => writeln!(out, "loaded: no")?,
        [one] if !are_loaded => writeln!(out, "loaded: only that for {}", one.arch)?,
        _ => writeln!(out, "loaded: yes")?,
    }
    let is_on = status("enabled")? > 0;
    writeln!(out, "auditing: {}", if is_on { "on" } else { OFF })?;
    match status("pid")? {
        0 => writeln!(
            out,
            "auditd: not running; journald can keep the events (Audit= of journald.conf), or \
             `forensics audit --follow FILE`"
        )?,
        pid => writeln!(out, "auditd: process {pid}")?,
    }
    let in_effect = are_loaded && is_on;
    Ok(ExitCode::from(if in_effect { IN_EFFECT } else { NOT_IN_EFFECT }))
}

fn file_content() -> String {
    let mut content = String::from(
        "# Written by `forensics audit --install`: who sends signals. `forensics audit --remove` removes it.\n",
    );
    for rule in rules() {
        content += &format!("{rule}\n");
    }
    content
}

fn install(out: &mut dyn Write) -> io::Result<()> {
    let list = auditctl(&["-l"])?;
    let mut added = Vec::new();
    let result = install_missing(&list, &mut added, out);
    if result.is_err() {
        for rule in &added {
            let _ = unload(rule);
        }
    }
    result
}

/// Loads the rules that are not loaded yet, and writes the file. `added` has those that were loaded.
fn install_missing(list: &str, added: &mut Vec<Rule>, out: &mut dyn Write) -> io::Result<()> {
    for rule in rules() {
        if rule.is_in(list) {
            writeln!(out, "already loaded: {rule}")?;
            continue;
        }
        auditctl(&rule.arguments("-a"))?;
        writeln!(out, "loaded: {rule}")?;
        added.push(rule);
    }
    if Path::new(RULES).is_dir() {
        replace(Path::new(FILE), |file| file.write_all(file_content().as_bytes()))
            .map_err(|e| io::Error::other(format!("cannot write {FILE}: {e}")))?;
        writeln!(out, "written: {FILE}")?;
    } else {
        writeln!(out, "not loaded again at the next boot: there is no {RULES}")?;
    }
    warn_if_off();
    Ok(())
}

fn unload(rule: &Rule) -> io::Result<String> {
    auditctl(&rule.arguments("-d"))
}

fn remove(out: &mut dyn Write) -> io::Result<()> {
    let list = auditctl(&["-l"])?;
    for rule in rules() {
        if rule.is_in(&list) {
            unload(&rule)?;
            writeln!(out, "unloaded: {rule}")?;
        } else {
            writeln!(out, "not loaded: {rule}")?;
        }
    }
    match fs::read_to_string(FILE) {
        Ok(content) if content == file_content() => {
            fs::remove_file(FILE)?;
            writeln!(out, "removed: {FILE}")?;
        }
        Ok(_) => eprintln!("forensics: {FILE} was changed since; it is left alone"),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(io::Error::other(format!("cannot read {}: {e}", Escaped(FILE)))),
    }
    Ok(())
}
