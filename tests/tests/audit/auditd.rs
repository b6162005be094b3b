//! An auditd with a log of its own, and the rule.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use forensics_tests::{forensics, until};
use forensics_tokio::core::record::{AuditQuery, Run, SentSignal, senders_in};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use tempfile::TempDir;

/// A running auditd. The rule is loaded until this is dropped.
pub(crate) struct Auditd {
    daemon: Option<Child>,
    dir: TempDir,
    /// Whether auditing was on before.
    was_enabled: bool,
    rules: Vec<String>,
    /// Other tests of this program, and other programs, wait until we are done.
    _lock: Flock<File>,
    _turn: MutexGuard<'static, ()>,
}

/// What auditctl prints.
pub(crate) fn auditctl(arguments: &[&str]) -> String {
    let output = Command::new("auditctl").args(arguments).output().unwrap();
    assert!(output.status.success(), "auditctl {arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn status(name: &str) -> u32 {
    let status = auditctl(&["-s"]);
    let mut lines = status.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(key, _)| *key == name).unwrap().1.parse().unwrap()
}

/// Whether this machine has an audit log that we may use. In CI, auditd must be installed.
pub(crate) fn can_audit() -> bool {
    use std::io::Write;
    if !geteuid().is_root() || !forensics_tests::can(Command::new("auditctl").arg("-v")) {
        return false;
    }
    let may = Command::new("auditctl").arg("-s").output().unwrap();
    // 2: the rules are locked until the next boot. A pid: another auditd runs.
    let text = String::from_utf8_lossy(&may.stdout);
    let free = may.status.success() && !text.contains("enabled 2") && text.contains("\npid 0\n");
    if !free {
        // Not eprintln, which libtest hides if the test passes.
        let _ = writeln!(std::io::stderr(), "SKIPPED: the kernel's audit log is not ours: {may:?}");
    }
    free
}

impl Auditd {
    /// Starts it, with the rule that `forensics audit` prints. `None` if this machine cannot.
    pub(crate) fn start() -> Option<Self> {
        Self::with("ENRICHED")
    }

    /// The same with another `log_format`.
    pub(crate) fn with(format: &str) -> Option<Self> {
        let mut auditd = Self::without_daemon()?;
        let dir = auditd.dir.path().display();
        let settings = format!(
            "local_events = yes\nwrite_logs = yes\nlog_file = {dir}/audit.log\nlog_format = {format}\n\
             flush = INCREMENTAL_ASYNC\nfreq = 50\nmax_log_file = 8\nnum_logs = 5\n\
             max_log_file_action = ROTATE\nname_format = NONE\nplugin_dir = {dir}/plugins\n\
             space_left = 2\nspace_left_action = IGNORE\nadmin_space_left = 1\n\
             admin_space_left_action = IGNORE\ndisk_full_action = IGNORE\ndisk_error_action = IGNORE\n"
        );
        fs::create_dir(auditd.dir.path().join("plugins")).unwrap();
        fs::write(auditd.dir.path().join("auditd.conf"), settings).unwrap();
        let mut daemon = Command::new("auditd");
        // With -f it would write to its standard output, and not to the log.
        daemon.args(["-n", "-s", "nochange", "-c"]).arg(auditd.dir.path());
        daemon.stdout(Stdio::null()).stderr(Stdio::null());
        auditd.daemon = Some(daemon.spawn().unwrap());
        let pid = auditd.daemon.as_ref().unwrap().id();
        until("auditd reads the kernel's messages", || status("pid") == pid);
        until("auditd has its log", || auditd.log().exists());
        Some(auditd)
    }

    /// Only the rule, and auditing turned on.
    pub(crate) fn without_daemon() -> Option<Self> {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        if !geteuid().is_root() {
            return None;
        }
        let lock = File::create("/run/shutdown-forensics-audit-test.lock").unwrap();
        let lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| errno).unwrap();
        if !can_audit() {
            return None;
        }
        let mut auditd = Self {
            daemon: None,
            dir: tempfile::tempdir().unwrap(),
            was_enabled: status("enabled") == 1,
            rules: Vec::new(),
            _lock: lock,
            _turn: turn,
        };
        let printed = Command::new(forensics()).arg("audit").output().unwrap().stdout;
        let printed = String::from_utf8(printed).unwrap();
        for rule in printed.lines().filter_map(|line| line.strip_prefix("  auditctl -a ")) {
            auditctl(&[&["-a"][..], &rule.split(' ').collect::<Vec<_>>()].concat());
            auditd.rules.push(rule.to_owned());
        }
        assert!(!auditd.rules.is_empty(), "{printed}");
        auditctl(&["-e", "1"]);
        Some(auditd)
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.dir.path().join("audit.log")
    }

    /// Makes auditd begin a new file.
    pub(crate) fn rotate(&self) {
        self.settle();
        let before = fs::read_dir(self.dir.path()).unwrap().count();
        let daemon = self.daemon.as_ref().unwrap().id().cast_signed();
        kill(Pid::from_raw(daemon), Signal::SIGUSR1).unwrap();
        until("the log is rotated", || fs::read_dir(self.dir.path()).unwrap().count() > before);
    }

    /// Waits until everything that has happened so far is in the log.
    pub(crate) fn settle(&self) {
        // The event of a process of which there is no other event.
        let mut last = Command::new("sh").args(["-c", "kill -0 $$"]).spawn().unwrap();
        let record = format!("): opid={} ", last.id());
        last.wait().unwrap();
        until("the event is in the log", || {
            let log = fs::read(self.log()).unwrap();
            String::from_utf8_lossy(&log).contains(&record)
        });
    }

    /// Who sent the signals of the run in the folder `records`, by the log.
    pub(crate) fn senders(&self, records: &Path) -> Vec<SentSignal> {
        self.settle();
        senders(&self.log(), records)
    }
}

/// The same, by the log at a path.
pub(crate) fn senders(log: &Path, records: &Path) -> Vec<SentSignal> {
    let path = forensics_tokio::core::record::runs(records).unwrap().pop().unwrap();
    let query = AuditQuery::of(&Run::read(&path).unwrap().record, true).unwrap();
    senders_in(&query, &[log]).unwrap()
}

impl Drop for Auditd {
    fn drop(&mut self) {
        for rule in &self.rules {
            let words: Vec<_> = rule.split(' ').collect();
            let _ = Command::new("auditctl").arg("-d").args(words).output();
        }
        if let Some(daemon) = &mut self.daemon {
            let _ = kill(Pid::from_raw(daemon.id().cast_signed()), Signal::SIGTERM);
            let _ = daemon.wait();
        }
        if !self.was_enabled {
            let _ = Command::new("auditctl").args(["-e", "0"]).output();
        }
    }
}
