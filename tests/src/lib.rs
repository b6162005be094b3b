//! Starts this workspace's own programs as a user would, and reads what they say.
//!
//! Nothing here sleeps: what is waited for is a line of output or the end of a process, each with
//! a generous limit, past which the test fails with all the output so far.

#![forbid(unsafe_code)]

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What others may write to leave their line, forge a field, drive a terminal, or not be seen: newlines,
/// CSI, OSC 8 and 52, DCS, C1, NUL, DEL, bidirectional controls, what has no width, tags, separators.
pub const HOSTILE: &str = "a\nb\r\tc \u{1b}[31m\u{1b}]8;;http://x\u{1b}\\\u{1b}]52;c;eA==\u{7}\u{90}q\u{9c}\
    \u{9b}2J\0\u{7f}\u{202e}\u{2066}\u{200e}\u{61c}\u{200b}\u{200d}\u{feff}\u{ad}\u{e0041}\u{2028}\u{2029}\
    \" cause=systemd outcome=ok x=\"";

/// Asserts that a text drives no terminal and hides nothing: each character of it can be shown.
///
/// # Panics
/// Where one cannot.
pub fn assert_tame(text: &str) {
    let wild = |c: char| c != '\n' && !forensics_tokio::core::escape::is_safe(c);
    if let Some(at) = text.find(wild) {
        let around = |c: usize| text.floor_char_boundary(c);
        panic!("{:?}", &text[around(at.saturating_sub(80))..around((at + 80).min(text.len()))]);
    }
}

/// Past this a test has failed: far more than anything takes on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The path of the example `name`, built from the present sources.
///
/// # Panics
/// Where it does not build.
pub fn example(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| cargo_build(&["--package", "forensics-examples", "--examples"]));
    target_dir().join("examples").join(name)
}

/// The path of the binary `forensics`, built from the present sources.
///
/// # Panics
/// Where it does not build.
pub fn forensics() -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| cargo_build(&["--package", "forensics-cli"]));
    target_dir().join("forensics")
}

/// Where cargo puts what it builds in the profile of this test: the folder above `deps/`.
fn target_dir() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let deps = test.parent().expect("a program lies in a folder");
    let dir =
        if deps.ends_with("deps") { deps.parent().expect("deps/ has a parent") } else { deps };
    dir.to_owned()
}

fn cargo_build(what: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ has a parent");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.current_dir(root).arg("build").args(what);
    if target_dir().ends_with("release") {
        build.arg("--release");
    }
    let built = build.output().expect("cargo runs");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
}

/// A running program whose output is read as it comes. Ended, if need be, when it is dropped.
#[derive(Debug)]
pub struct Program {
    child: Child,
    stdout: Arc<Output>,
    stderr: Arc<Output>,
}

/// What a program said, and how it ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// All it wrote to stdout.
    pub stdout: String,
    /// All it wrote to stderr.
    pub stderr: String,
}

impl Program {
    /// Starts it, with no input.
    ///
    /// # Panics
    /// Where it cannot be started.
    pub fn start(command: &mut Command) -> Self {
        Self::start_reading(command, Stdio::null())
    }

    /// Starts it, with this input.
    ///
    /// # Panics
    /// Where it cannot be started.
    pub fn start_reading(command: &mut Command, stdin: impl Into<Stdio>) -> Self {
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let stdout = Output::of(child.stdout.take());
        let stderr = Output::of(child.stderr.take());
        Self { child, stdout, stderr }
    }

    /// Starts the gateway and waits until it listens.
    ///
    /// # Panics
    /// Where it does not come up.
    pub fn gateway(arguments: &[&str]) -> Gateway {
        let program = Self::start(Command::new(example("gateway")).args(arguments));
        let line = program.wait_for_stdout("listening on http://");
        let (_, address) = line.split_once("http://").expect("the line was waited for");
        Gateway { address: address.to_owned(), program }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal, by the program `/bin/kill`, such as `-TERM`.
    ///
    /// # Panics
    /// Where kill fails.
    pub fn kill(&self, signal: &str) {
        let killed = Command::new("/bin/kill").arg(signal).arg(self.pid().to_string()).status();
        assert!(killed.expect("/bin/kill runs").success());
    }

    /// Waits for a line on stdout that contains `text`, and returns it.
    ///
    /// # Panics
    /// Where it does not come within [`LIMIT`].
    pub fn wait_for_stdout(&self, text: &str) -> String {
        self.wait_for(&self.stdout, text)
    }

    /// Waits for a line on stderr that contains `text`, and returns it.
    ///
    /// # Panics
    /// Where it does not come within [`LIMIT`].
    pub fn wait_for_stderr(&self, text: &str) -> String {
        self.wait_for(&self.stderr, text)
    }

    fn wait_for(&self, output: &Output, text: &str) -> String {
        output.wait_for(text).unwrap_or_else(|| {
            panic!("no `{text}`\nstdout:\n{}\nstderr:\n{}", self.stdout.text(), self.stderr.text())
        })
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// Where it does not end within [`LIMIT`].
    pub fn wait(mut self) -> Ended {
        // Both ends of its output are closed when it ends, and no sooner.
        let closed = self.stdout.wait_closed() && self.stderr.wait_closed();
        assert!(closed, "it does not end; stderr so far:\n{}", self.stderr.text());
        let status = self.child.wait().expect("it is our child");
        Ended { status, stdout: self.stdout.text(), stderr: self.stderr.text() }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Our own child, not waited for yet: the pid is still its.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// The exit code.
    ///
    /// # Panics
    /// Where a signal ended it.
    pub fn code(&self) -> i32 {
        let signal = self.status.signal();
        self.status.code().unwrap_or_else(|| panic!("ended by signal {signal:?}\n{}", self.stderr))
    }

    /// The gateway's phases and their outcomes, in the order in which they ended; the members of a
    /// group left out.
    pub fn phases(&self) -> Vec<(String, String)> {
        let value = |line: &str, key: &str| {
            let rest = line.split_once(&format!(" {key}="))?.1;
            Some(rest.split_whitespace().next()?.to_owned())
        };
        let finished = self.stderr.lines().filter(|line| line.contains("phase finished"));
        let finished =
            finished.filter_map(|line| Some((value(line, "phase")?, value(line, "outcome")?)));
        finished.filter(|(phase, _)| !matches!(phase.as_str(), "telegram" | "slack")).collect()
    }

    /// Asserts that the gateway's teardown went well, whatever befell the process: every phase ran,
    /// nothing panicked, it exited with 0, and there are at most `warnings` warnings.
    ///
    /// # Panics
    /// Where it did not.
    pub fn assert_well(&self, warnings: usize) {
        let stderr = &self.stderr;
        assert_eq!(self.code(), 0, "{stderr}");
        assert_eq!(self.phases(), outcomes(["ok", "ok", "ok", "ok"]), "{stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
        let warned =
            stderr.lines().filter(|line| line.contains(" WARN ") || line.contains("ERROR"));
        assert!(warned.count() <= warnings, "more than {warnings} warnings in\n{stderr}");
    }

    /// The first line of stderr that contains `text`.
    ///
    /// # Panics
    /// Where there is none.
    pub fn line(&self, text: &str) -> &str {
        let line = self.stderr.lines().find(|line| line.contains(text));
        line.unwrap_or_else(|| panic!("no `{text}` in:\n{}", self.stderr))
    }
}

/// The gateway's phases, in their order, with these outcomes.
pub fn outcomes(outcomes: [&str; 4]) -> Vec<(String, String)> {
    let names = ["notify", "drain", "adapters", "db_close"];
    names.iter().zip(outcomes).map(|(name, outcome)| (name.to_string(), outcome.into())).collect()
}

/// The example gateway, listening.
#[derive(Debug)]
pub struct Gateway {
    /// Where it listens: `127.0.0.1:PORT`.
    pub address: String,
    /// The process.
    pub program: Program,
}

/// One stream of a program's output.
#[derive(Debug, Default)]
struct Output {
    so_far: Mutex<(String, bool)>,
    changed: Condvar,
}

impl Output {
    fn of(stream: Option<impl Read + Send + 'static>) -> Arc<Self> {
        let output = Arc::new(Self::default());
        let Some(stream) = stream else { return output };
        let reader = output.clone();
        thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while stream.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                let mut so_far = reader.lock();
                so_far.0.push_str(&String::from_utf8_lossy(&line));
                line.clear();
                reader.changed.notify_all();
            }
            reader.lock().1 = true;
            reader.changed.notify_all();
        });
        output
    }

    fn text(&self) -> String {
        self.lock().0.clone()
    }

    fn wait_for(&self, text: &str) -> Option<String> {
        let found = |all: &str| all.lines().find(|line| line.contains(text)).map(str::to_owned);
        self.wait_until(|(all, closed)| found(all).map(Some).or(closed.then_some(None)))?
    }

    fn wait_closed(&self) -> bool {
        self.wait_until(|(_, closed)| closed.then_some(())).is_some()
    }

    fn wait_until<T>(&self, mut done: impl FnMut(&(String, bool)) -> Option<T>) -> Option<T> {
        let end = Instant::now() + LIMIT;
        let mut so_far = self.lock();
        loop {
            if let Some(result) = done(&so_far) {
                return Some(result);
            }
            let left = end.checked_duration_since(Instant::now())?;
            let waited = self.changed.wait_timeout(so_far, left);
            so_far = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (String, bool)> {
        self.so_far.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The code in docs/compare.md, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../docs/compare.md")]
struct Compare;
