//! The gateway under a wrapper that changes its environment.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use forensics_tests::{Ended, Program, forensics, until};
use forensics_tokio::core::process::ProcessSummary;
use tempfile::TempDir;

/// A gateway that listens.
pub(crate) struct Under {
    program: Program,
    /// Its pid in our namespace.
    pub(crate) pid: u32,
}

/// A gateway that was stopped.
pub(crate) struct Stopped {
    pub(crate) ended: Ended,
}

impl Under {
    /// Starts it by a command that ends with the gateway and its arguments. The process of the
    /// command must become the gateway, or have it as its first child.
    pub(crate) fn start(command: &mut Command) -> Self {
        let program = Program::start(command);
        program.wait_for_stdout("listening on ");
        let mut pid = program.pid();
        while name_of(pid) != "gateway" {
            pid = first_child(pid).unwrap_or_else(|| panic!("no gateway below {pid}"));
        }
        Self { program, pid }
    }

    /// Waits until it has a zombie child.
    pub(crate) fn wait_for_zombie(&self) {
        let zombie = |pid: i32| ProcessSummary::read_stat(pid).state == Some('Z');
        until("its child is a zombie", || {
            first_child(self.pid).is_some_and(|child| zombie(child as i32))
        });
    }

    /// Stops it by SIGTERM from `/bin/kill`, and checks that its teardown succeeded, with at most
    /// this many warnings.
    pub(crate) fn stop(self, warnings: usize) -> Stopped {
        self.stop_by(Command::new("/bin/kill"), warnings)
    }

    /// Stops it by another command, to which `-TERM` and its pid in our namespace are added.
    ///
    /// The command is waited for after the gateway, so that the sender exists, even if as a zombie.
    pub(crate) fn stop_by(self, mut kill: Command, warnings: usize) -> Stopped {
        let mut killer = kill.args(["-TERM", &self.pid.to_string()]).spawn().unwrap();
        let ended = self.program.wait();
        assert!(killer.wait().unwrap().success(), "{kill:?}");
        ended.assert_well(warnings);
        let stopped = Stopped { ended };
        // These fields are always present.
        assert_eq!(stopped.field("signal"), Some("SIGTERM"));
        assert_eq!(stopped.field("under_systemd"), Some("no"));
        stopped
    }
}

impl Stopped {
    /// The context line.
    pub(crate) fn line(&self) -> &str {
        self.ended.line("Shutdown context: ")
    }

    /// The first word of a field of the context line.
    pub(crate) fn field(&self, key: &str) -> Option<&str> {
        self.line().split(' ').find_map(|field| field.strip_prefix(key)?.strip_prefix('='))
    }

    /// Checks that the line has no such field.
    pub(crate) fn assert_absent(&self, keys: &[&str]) {
        for key in keys {
            assert_eq!(self.field(key), None, "{key} in {}", self.line());
        }
    }

    /// Its warnings.
    pub(crate) fn warnings(&self) -> Vec<&str> {
        self.ended.stderr.lines().filter(|line| line.contains(" WARN ")).collect()
    }
}

/// A folder for the gateway's files. Every user can write to it, as to `/tmp`.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        Self(dir)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Copies a program into it, where every user can start it.
    pub(crate) fn with(&self, program: &Path) -> PathBuf {
        let copy = self.path().join(program.file_name().unwrap());
        // By cp(1): a child that another test starts meanwhile would inherit our descriptor, and a
        // file that is open for writing cannot be run.
        let copied = Command::new("cp").args([program, &copy]).status().unwrap();
        assert!(copied.success());
        copy
    }

    /// The options for a record and a diagnostic in this folder, which the gateway finds at
    /// `seen_as`.
    pub(crate) fn options(&self, seen_as: &str) -> [String; 4] {
        let at = |file| format!("{seen_as}/{file}");
        ["--records".to_owned(), at("records"), "--diag-log".to_owned(), at("diag.log")]
    }

    /// The same options, if the gateway finds the folder at the same path as we do.
    pub(crate) fn options_here(&self) -> [String; 4] {
        self.options(self.path().to_str().unwrap())
    }

    /// The output of the diagnostic.
    pub(crate) fn diagnostic(&self) -> String {
        fs::read_to_string(self.path().join("diag.log")).unwrap()
    }

    /// Checks that the diagnostic is complete, and returns it.
    pub(crate) fn assert_diagnostic(&self) -> String {
        let diagnostic = self.diagnostic();
        assert!(diagnostic.contains("\n--- end of diagnostic"), "{diagnostic}");
        diagnostic
    }

    /// Checks that `forensics last` reports a clean run, also by its exit status.
    pub(crate) fn assert_clean(&self) {
        let mut last = Command::new(forensics());
        let last = Program::start(last.arg("last").arg(self.path().join("records"))).wait();
        assert!(last.stdout.contains("outcome=clean service=gateway"), "{last:?}");
        assert_eq!(last.code(), 0, "{last:?}");
    }
}

fn name_of(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

fn first_child(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// `unshare` with these options, then a shell's `script`, which ends in `exec "$@"` or the like.
pub(crate) fn unshare(options: &[&str], script: &str) -> Command {
    let mut unshare = Command::new("unshare");
    unshare.arg("--mount").args(options).args(["sh", "-e", "-c", script, "sh"]);
    // So that it is a container even if these tests run in a systemd service.
    unshare.env("container", "test").env_remove("INVOCATION_ID");
    unshare
}

/// The options of [`unshare`] for a pid namespace whose processes end with this test.
pub(crate) const IN_PIDS: &[&str] = &["--pid", "--fork", "--kill-child"];
