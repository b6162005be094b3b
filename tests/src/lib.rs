//! Starts the programs of this workspace as a user would, and reads their output.
//!
//! This builds on the public harness [`forensics_tokio::testing::Process`]. It adds the paths of
//! our programs, the gateway's phases, and `/bin/kill` as a sender that exits at once.

#![forbid(unsafe_code)]

mod acknowledged;
pub mod client;
pub mod cost;
pub mod crowd;
pub mod ends;
pub mod page;
pub mod preload;
mod skip;
mod small;
mod until;

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use forensics_tokio::testing::{Process, Run};

pub use skip::{can, root_can};
pub use small::Small;
pub use until::{until, until_guarded, until_read, until_started};

/// Characters that could break a line, forge a field, control a terminal, or be invisible:
/// newlines, CSI, OSC 8 and 52, DCS, C1, NUL, DEL, bidirectional controls, characters without
/// width, tags, separators.
pub const HOSTILE: &str = "a\nb\r\tc \u{1b}[31m\u{1b}]8;;http://x\u{1b}\\\u{1b}]52;c;eA==\u{7}\u{90}q\u{9c}\
    \u{9b}2J\0\u{7f}\u{202e}\u{2066}\u{200e}\u{61c}\u{200b}\u{200d}\u{feff}\u{ad}\u{e0041}\u{2028}\u{2029}\
    \" cause=systemd outcome=ok x=\"";

/// Asserts that a text is safe to show: it does not control a terminal and hides nothing.
///
/// # Panics
/// If a character is not safe.
pub fn assert_tame(text: &str) {
    let wild = |c: char| c != '\n' && !forensics_tokio::core::escape::is_safe(c);
    if let Some(at) = text.find(wild) {
        let around: String = text[at..].chars().take(80).collect();
        panic!("at byte {at}: {around:?}");
    }
}

/// After this time a test fails. Even on a busy machine everything takes far less.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The examples of packages with many dependencies, as patterns for cargo.
const HEAVY_EXAMPLES: [&str; 7] = ["0*", "actix*", "apalis", "grpc", "otel", "sqlx", "streams"];

/// The path of the example `name`, built from the current sources.
///
/// # Panics
/// If it does not build.
pub fn example(name: &str) -> PathBuf {
    static HEAVY: OnceLock<()> = OnceLock::new();
    static LIGHT: OnceLock<()> = OnceLock::new();
    // An example is always built by the same command. Another selection of packages means other features,
    // and cargo would replace a program that another test may be about to start.
    if HEAVY_EXAMPLES.iter().any(|pattern| name.starts_with(pattern.trim_end_matches('*'))) {
        // As `cargo test --workspace` builds them: so they are built only once.
        let patterns = HEAVY_EXAMPLES.iter().flat_map(|pattern| ["--example", pattern]);
        HEAVY.get_or_init(|| {
            cargo_build(&["--workspace"].into_iter().chain(patterns).collect::<Vec<_>>());
        });
    } else {
        LIGHT.get_or_init(|| cargo_build(&["--package", "forensics-examples", "--examples"]));
    }
    target_dir().join("examples").join(name)
}

/// The path of the example gateway, built from the current sources and linked statically, so that
/// it runs in an empty root.
///
/// # Panics
/// If it does not build.
pub fn static_gateway() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let target = target_dir().parent().expect("a profile's folder lies in target/").to_owned();
        // The same sources, in a package without the dependencies of the other examples.
        let mut build = cargo(&["--package", "forensics-static"]);
        // With `--target` the flags do not apply to build scripts, and the output has a separate
        // folder.
        build.args(["--target", &triple, "--target-dir"]).arg(&target);
        build.env("RUSTFLAGS", "-C target-feature=+crt-static");
        // A stripped program is a fifth of the size.
        build.env("CARGO_PROFILE_DEV_DEBUG", "0");
        run(build);
        let profile = target_dir().file_name().expect("it is no root").to_owned();
        target.join(triple).join(profile).join("gateway")
    })
}

/// The path of the binary `forensics`, built from the current sources.
///
/// # Panics
/// If it does not build.
pub fn forensics() -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| cargo_build(&["--package", "forensics-cli"]));
    target_dir().join("forensics")
}

/// Copies a program that the test then runs.
///
/// cp(1) does it, because a process that another test starts could inherit a descriptor of ours for
/// the copy. As long as that is open for writing, the copy cannot be run ("Text file busy").
///
/// # Panics
/// If it cannot be copied.
pub fn copy_program(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    let copied = Command::new("cp").args([from.as_ref(), to.as_ref()]).status();
    assert!(copied.is_ok_and(|status| status.success()), "cannot copy {:?}", from.as_ref());
}

/// The folder of cargo's output in the profile of this test: the one above `deps/`.
fn target_dir() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let deps = test.parent().expect("a program lies in a folder");
    let dir =
        if deps.ends_with("deps") { deps.parent().expect("deps/ has a parent") } else { deps };
    dir.to_owned()
}

fn cargo_build(what: &[&str]) {
    run(cargo(what));
}

/// `cargo build`, in this test's profile.
fn cargo(what: &[&str]) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ has a parent");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.current_dir(root).arg("build").args(what);
    if target_dir().ends_with("release") {
        build.arg("--release");
    }
    build
}

fn run(mut build: Command) {
    let built = build.output().expect("cargo runs");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
}

/// A running program. It writes a record only if its arguments say so.
#[derive(Debug)]
pub struct Program(Process);

/// The output of a program, and how it ended.
#[derive(Debug)]
pub struct Ended(pub Run);

impl Deref for Ended {
    type Target = Run;

    fn deref(&self) -> &Run {
        &self.0
    }
}

impl Program {
    /// Starts it, with no input.
    ///
    /// # Panics
    /// If it cannot be started.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        Self::start_reading(command, Stdio::null())
    }

    /// Starts it, with this input.
    ///
    /// # Panics
    /// If it cannot be started.
    #[track_caller]
    pub fn start_reading(command: &mut Command, stdin: impl Into<Stdio>) -> Self {
        // An empty variable counts as unset, so the program's own setting is used.
        command.env("FORENSICS_RECORD_DIR", "");
        // A test may block one thread of the runtime, also on a machine with a single processor.
        command.env("TOKIO_WORKER_THREADS", "2");
        Self(Process::start_reading(command, stdin).limit(LIMIT))
    }

    /// Starts the gateway and waits until it listens.
    ///
    /// # Panics
    /// If it does not start to listen.
    #[track_caller]
    pub fn gateway(arguments: &[&str]) -> Gateway {
        Self::gateway_by(Command::new(example("gateway")).args(arguments))
    }

    /// Starts the gateway by a command that execs it, and waits until it listens.
    ///
    /// # Panics
    /// If it does not start to listen.
    #[track_caller]
    pub fn gateway_by(command: &mut Command) -> Gateway {
        let program = Self::start(command);
        let line = program.wait_for_stdout("listening on http://");
        let (_, address) = line.split_once("http://").expect("the line was waited for");
        Gateway { address: address.to_owned(), program }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// Sends it a signal, by the program `/bin/kill`, such as `-TERM`.
    ///
    /// # Panics
    /// If kill fails.
    #[track_caller]
    pub fn kill(&self, signal: &str) {
        kill(&self.0, signal);
    }

    /// As [`Process::wait_for_stdout`].
    ///
    /// # Panics
    /// If there is no such line within [`LIMIT`].
    #[track_caller]
    pub fn wait_for_stdout(&self, text: &str) -> String {
        self.0.wait_for_stdout(text)
    }

    /// As [`Process::wait_for_stderr`].
    ///
    /// # Panics
    /// If there is no such line within [`LIMIT`].
    #[track_caller]
    pub fn wait_for_stderr(&self, text: &str) -> String {
        self.0.wait_for_stderr(text)
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    /// If it does not end within [`LIMIT`].
    #[track_caller]
    pub fn wait(self) -> Ended {
        Ended(self.0.wait())
    }
}

/// The variable that lets every repeated signal speed up a stop. By default only those of a person
/// do, and a test is none.
pub const ANY_SIGNAL: (&str, &str) = ("FORENSICS_ESCALATION", "any_signal");

/// Sends a process a signal, by the program `/bin/kill`, such as `-TERM`.
///
/// # Panics
/// If kill fails.
#[track_caller]
pub fn kill(process: &Process, signal: &str) {
    let killed = Command::new("/bin/kill").arg(signal).arg(process.pid().to_string()).status();
    assert!(killed.expect("/bin/kill runs").success());
}

impl Ended {
    /// The gateway's phases and their outcomes, in the order in which they ended, without the
    /// members of groups.
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

    /// Asserts that the gateway's teardown succeeded: every phase ran, nothing panicked, it exited
    /// with 0, and there are at most `warnings` warnings.
    ///
    /// # Panics
    /// If it did not.
    pub fn assert_well(&self, warnings: usize) {
        let stderr = &self.stderr;
        assert_eq!(self.code(), 0, "{stderr}");
        assert_eq!(self.phases(), outcomes(["ok", "ok", "ok", "ok"]), "{stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
        let warned =
            stderr.lines().filter(|line| line.contains(" WARN ") || line.contains("ERROR"));
        assert!(warned.count() <= warnings, "more than {warnings} warnings in\n{stderr}");
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

/// The code in README.md, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// The code in docs/compare.md, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../docs/compare.md")]
struct Compare;

/// The code in docs/stacks/axum.md, compiled; the other pages of stacks have code of the examples.
#[cfg(doctest)]
#[doc = include_str!("../../docs/stacks/axum.md")]
struct Axum;

/// The code in docs/stacks/tcp.md that is not of an example, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../docs/stacks/tcp.md")]
struct Tcp;

/// The code in docs/guide.md, compiled; its files are built by `tests/guide.rs`.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guide.md")]
struct Guide;

/// The code in docs/phases.md, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../docs/phases.md")]
struct Phases;

/// The code in docs/logging.md, compiled. `tests/numbered.rs` checks the rest of the page.
#[cfg(doctest)]
#[doc = include_str!("../../docs/logging.md")]
struct Logging;
