//! The load generator wrk. It sends as many requests as it can, and counts the failures.

use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Stdio};

use forensics_tests::Program;

/// The number of its connections, which are never idle.
pub(crate) const CONNECTIONS: usize = 32;

/// A running wrk.
pub(crate) struct Wrk(Program);

/// The counts of wrk.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    /// Requests that were answered.
    pub(crate) answered: u64,
    /// Connections that ended or were reset while it waited for an answer.
    pub(crate) unanswered: u64,
    /// Answers with a status other than 2xx and 3xx.
    pub(crate) not_ok: u64,
}

impl Counted {
    pub(crate) fn add(&mut self, other: &Counted) {
        self.answered += other.answered;
        self.unanswered += other.unanswered;
        self.not_ok += other.not_ok;
    }
}

/// Whether wrk is installed. If not, the test is skipped, or fails with `CI=true`.
pub(crate) fn is_there() -> bool {
    let found = Command::new("wrk").arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let missing = found.is_err_and(|e| e.kind() == ErrorKind::NotFound);
    if missing {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "must not be skipped: no wrk");
        eprintln!("skipped: no wrk (Debian package wrk)");
    }
    !missing
}

impl Wrk {
    /// Starts it for this address.
    pub(crate) fn start(address: &str) -> Self {
        let mix = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/load/mix.lua");
        let mut command = Command::new("wrk");
        command.args(["--threads", "1", "--connections", &CONNECTIONS.to_string()]);
        command.args(["--duration", "10m", "--script"]).arg(mix);
        Self(Program::start(command.arg(format!("http://{address}/"))))
    }

    /// Ends it, and returns what it counted.
    pub(crate) fn stop(self) -> Counted {
        self.0.kill("-INT");
        let said = self.0.wait().stdout.clone();
        let number = |text: &str| {
            let digits: String = text.trim().chars().take_while(char::is_ascii_digit).collect();
            digits.parse().unwrap_or_else(|e| panic!("`{text}`: {e} in:\n{said}"))
        };
        let after = |label: &str| said.split_once(label).map_or(0, |(_, rest)| number(rest));
        let (before, _) = said.split_once(" requests in ").unwrap_or_else(|| panic!("{said}"));
        Counted {
            answered: number(before.lines().last().unwrap_or_default()),
            unanswered: after(", read "),
            not_ok: after("Non-2xx or 3xx responses: "),
        }
    }
}
