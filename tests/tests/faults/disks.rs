//! The disk is full, read-only, or blocks.
//!
//! Each test uses a separate mount namespace, so that nothing remains mounted. These tests need
//! root.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use forensics_tests::{Ended, Gateway, Program, example, root_can};
use forensics_tokio::core::record::{PostMortem, Record, RunOutcome, runs};
use tempfile::TempDir;

use crate::scene::{assert_recorded_well, count};

/// The gateway with a separate file system for its records and its diagnostics.
struct Mounted {
    gateway: Gateway,
    /// Keeps that file system mounted after the gateway and its namespace have ended.
    root: File,
    dir: TempDir,
}

impl Mounted {
    /// Runs `script`, which mounts a file system at `$M`, and starts the gateway with its records
    /// and its log there. `None` if this machine cannot do that.
    fn start(script: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("mounted");
        fs::create_dir(&place).unwrap();
        let unshared = |then: &str| {
            let mut unshare = Command::new("unshare");
            unshare.args(["--mount", "sh", "-c", &format!("set -e; {script}; {then}")]);
            unshare.arg(example("gateway")).env("M", &place).env("IMAGE", dir.path().join("image"));
            unshare
        };
        if !root_can(&mut unshared("true")) {
            return None;
        }
        let run = r#"exec "$0" --records "$M/records" --diag-log "$M/diag.log""#;
        let gateway = Program::gateway_by(&mut unshared(run));
        let seen_by_it = PathBuf::from(format!("/proc/{}/root", gateway.program.pid()));
        let root = File::open(seen_by_it.join(place.strip_prefix("/").unwrap())).unwrap();
        Some(Self { gateway, root, dir })
    }

    /// A path on that file system.
    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.root.as_raw_fd())).join(name)
    }

    fn fill(&self) {
        fill(&self.path("fill"));
    }

    /// Remounts it with these options, in the gateway's namespace.
    fn remount(&self, options: &str) {
        let mut nsenter = Command::new("nsenter");
        nsenter.arg(format!("--target={}", self.gateway.program.pid())).arg("--mount");
        nsenter.args(["mount", "-o", &format!("remount,{options}")]);
        nsenter.arg(self.dir.path().join("mounted"));
        assert!(nsenter.status().unwrap().success());
    }

    /// Stops the gateway. Returns its output, and what keeps the file system mounted.
    fn stop(self) -> (Ended, Left) {
        self.gateway.program.kill("-TERM");
        (self.gateway.program.wait(), Left { root: self.root, _dir: self.dir })
    }
}

/// The rest of [`Mounted`] after the gateway has ended.
struct Left {
    root: File,
    _dir: TempDir,
}

impl Left {
    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.root.as_raw_fd())).join(name)
    }
}

/// Writes until the disk is full.
fn fill(path: &Path) {
    use std::io::Write;
    let mut file = File::options().append(true).create(true).open(path).unwrap();
    while file.write(&[0; 4096]).is_ok_and(|written| written > 0) {}
}

const TMPFS: &str = "mount -t tmpfs -o size=256k,mode=700 none \"$M\"";
/// A file system of the kernel that can be frozen, and made read-only while files are open.
const EXT4: &str = "truncate -s 4M \"$IMAGE\"; mkfs.ext4 -q \"$IMAGE\"; \
    mount -o loop \"$IMAGE\" \"$M\"; chmod 700 \"$M\"";
/// Leaves no room.
const FILL: &str = "dd if=/dev/zero of=\"$M/fill\" bs=4k status=none || true";

#[test]
fn a_disk_full_at_the_start_costs_the_record_and_the_diagnostic() {
    let Some(mounted) = Mounted::start(&format!("{TMPFS}; {FILL}")) else { return };
    let (ended, left) = mounted.stop();
    ended.assert_well(2);
    assert!(ended.line("Not all of this run is recorded").contains("No space left"));
    assert!(ended.line("Diagnostic failed").contains("No space left"));
    // An empty record would hide the record of the run before.
    assert_eq!(runs(&left.path("records")).unwrap(), Vec::<PathBuf>::new());
}

#[test]
fn a_disk_that_fills_up_before_the_signal_costs_the_diagnostic_and_not_the_record() {
    let Some(mounted) = Mounted::start(TMPFS) else { return };
    mounted.fill();
    let (ended, left) = mounted.stop();
    ended.assert_well(1);
    assert!(ended.line("Diagnostic failed").contains("No space left"));
    assert_recorded_well(&left.path("records"));
}

#[test]
fn a_disk_with_room_for_a_few_lines_gets_them_and_one_warning_reports_the_rest() {
    // One page: more than the first line needs, and less than is allocated in advance.
    let almost = format!("{TMPFS}; {FILL}; truncate -s -4k \"$M/fill\"");
    let Some(mounted) = Mounted::start(&almost) else { return };
    let (ended, left) = mounted.stop();
    ended.assert_well(2);
    assert_eq!(count(&ended.stderr, "Not all of this run is recorded"), 1, "{}", ended.stderr);
    let record = runs(&left.path("records")).unwrap().pop().unwrap();
    let record = Record::read(&record).unwrap();
    assert_eq!(record.start.service, "gateway");
}

#[test]
fn a_read_only_file_system_costs_the_record_and_the_diagnostic() {
    let Some(mounted) = Mounted::start(&format!("{TMPFS}; mount -o remount,ro \"$M\"")) else {
        return;
    };
    let (ended, _left) = mounted.stop();
    ended.assert_well(2);
    let said = ended.line("Not all of this run is recorded");
    assert!(said.contains("Read-only file system") && said.contains("name another"), "{said}");
    assert!(ended.line("No diagnostic can be written").contains("Read-only file system"));
}

#[test]
fn a_file_system_that_becomes_read_only_costs_the_rest_of_the_record() {
    // As the kernel does if a disk fails (`errors=remount-ro`): files that are open for writing
    // cannot be written to any more. mount(8) would refuse to do that.
    let Some(mounted) = Mounted::start(EXT4) else { return };
    mounted.remount("abort");
    let (ended, left) = mounted.stop();
    ended.assert_well(2);
    assert!(ended.line("Not all of this run is recorded").contains("Read-only file system"));
    assert!(ended.line("Diagnostic failed").contains("Read-only file system"));
    // The record only says that the run has begun.
    let verdict = PostMortem::of_last(&left.path("records")).unwrap().unwrap();
    assert_eq!(verdict.outcome, RunOutcome::Vanished, "{verdict}");
}

#[test]
fn a_log_that_becomes_read_only_costs_only_the_diagnostic() {
    let dir = tempfile::tempdir().unwrap();
    let script = format!("{EXT4}; mkdir \"$M/records\"; mount --bind '{}' \"$M/records\"", {
        dir.path().display()
    });
    let Some(mounted) = Mounted::start(&script) else { return };
    mounted.remount("abort");
    let (ended, _left) = mounted.stop();
    ended.assert_well(1);
    assert!(ended.line("Diagnostic failed").contains("Read-only file system"));
    assert_recorded_well(dir.path());
}

#[test]
fn a_log_that_is_not_a_regular_file_costs_only_the_diagnostic() {
    let dir = tempfile::tempdir().unwrap();
    let records = dir.path().join("records");
    let arguments = ["--records", records.to_str().unwrap(), "--diag-log", "/dev/full"];
    let gateway = Program::gateway(&arguments);
    gateway.program.kill("-TERM");
    let ended = gateway.program.wait();
    ended.assert_well(1);
    assert!(ended.line("Diagnostic failed").contains("not a regular file"));
    assert_recorded_well(&records);
}

/// A frozen file system. A write to it blocks until this is dropped.
struct Frozen(PathBuf);

impl Frozen {
    fn new(root: &File) -> Self {
        let frozen = Self(format!("/proc/{}/fd/{}", std::process::id(), root.as_raw_fd()).into());
        frozen.run("--freeze");
        frozen
    }

    fn run(&self, option: &str) {
        assert!(Command::new("fsfreeze").arg(option).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.run("--unfreeze");
    }
}

#[test]
fn a_disk_that_blocks_delays_the_first_phase_a_little_and_no_other() {
    let Some(mounted) = Mounted::start(EXT4) else { return };
    let frozen = Frozen::new(&mounted.root);
    mounted.gateway.program.kill("-TERM");
    let complete = mounted.gateway.program.wait_for_stderr("Shutdown complete");
    // A process cannot end while one of its threads writes to a frozen disk.
    drop(frozen);
    let ended = mounted.gateway.program.wait();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert_eq!(ended.stderr.matches("outcome=ok").count(), 6, "{}", ended.stderr);
    assert!(ended.line("Not all of this run is recorded").contains("disk"), "{}", ended.stderr);
    // One phase waits, and the end waits once more. The diagnostic, on that disk, is abandoned.
    let total = complete.split_once("total_usec=").unwrap().1.split(' ').next().unwrap();
    assert!(total.parse::<u64>().unwrap() < 10_000_000, "{complete}");
}
