//! The files that the gateway writes, and their content after it has ended.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use forensics_tests::{Program, example, until_started};
use forensics_tokio::core::record::{Entry, Event, PostMortem, Record, runs};
use tempfile::TempDir;

/// A folder for the gateway's records and its diagnostics.
pub(crate) struct Scene {
    pub(crate) dir: TempDir,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn records(&self) -> PathBuf {
        self.dir.path().join("records")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.dir.path().join("diag.log")
    }

    /// A command that execs the gateway: `sh -c SCRIPT GATEWAY ARGUMENTS`. The script runs it as
    /// `"$0" "$@"`.
    pub(crate) fn by(&self, script: &str, arguments: &[&str]) -> Command {
        let mut sh = Command::new("sh");
        sh.args(["-c", script]).arg(example("gateway"));
        self.with_arguments(&mut sh, arguments);
        sh
    }

    /// The gateway itself.
    pub(crate) fn gateway(&self, arguments: &[&str]) -> Command {
        let mut gateway = Command::new(example("gateway"));
        self.with_arguments(&mut gateway, arguments);
        gateway
    }

    pub(crate) fn with_arguments(&self, command: &mut Command, arguments: &[&str]) {
        command.arg("--records").arg(self.records()).arg("--diag-log").arg(self.log());
        command.args(arguments);
    }

    /// The record of the newest run, and its post-mortem.
    pub(crate) fn recorded(&self) -> (Record, PostMortem) {
        recorded(&self.records())
    }

    /// Waits until this phase of the only run has started.
    pub(crate) fn until_started(&self, phase: &str) {
        until_started(&self.records(), phase);
    }

    /// Asserts that the newest record is complete, and that its teardown succeeded.
    pub(crate) fn assert_recorded_well(&self) {
        assert_recorded_well(&self.records());
    }
}

fn recorded(records: &Path) -> (Record, PostMortem) {
    let newest = runs(records).unwrap().pop().unwrap();
    (Record::read(&newest).unwrap(), PostMortem::of(&newest).unwrap())
}

/// As [`Scene::assert_recorded_well`], for the newest record in a folder.
pub(crate) fn assert_recorded_well(records: &Path) {
    let (record, verdict) = recorded(records);
    assert_eq!((record.corrupt, record.torn), (0, false));
    assert_eq!(finished(&record), ["notify ok", "drain ok", "adapters ok", "db_close ok"]);
    assert!(verdict.is_clean(), "{verdict}");
    assert_eq!(verdict.exit_code, Some(0));
}

/// The phases and their outcomes, in the order in which they ended, without the members of groups.
pub(crate) fn finished(record: &Record) -> Vec<String> {
    let finished = |entry: &Entry| match &entry.event {
        Event::PhaseFinished(phase) if phase.group.is_none() => {
            Some(format!("{} {}", phase.phase, phase.outcome))
        }
        _ => None,
    };
    record.entries.iter().filter_map(finished).collect()
}

/// Sends SIGTERM by /bin/kill.
pub(crate) fn terminate(pid: u32) {
    let killed = Command::new("/bin/kill").arg("-TERM").arg(pid.to_string()).status();
    assert!(killed.unwrap().success());
}

/// How many lines of the log contain `text`.
pub(crate) fn count(stderr: &str, text: &str) -> usize {
    stderr.lines().filter(|line| line.contains(text)).count()
}

/// The only child of the program.
pub(crate) fn only_child(program: &Program) -> u32 {
    let pid = program.pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.trim().parse().unwrap()
}
