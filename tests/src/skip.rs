//! Skips tests that this machine cannot run, and says so. In CI they fail instead.

use std::io::Write;
use std::process::Command;

/// Whether `probe` succeeds. A test that needs it calls this first. If it fails, the test is
/// skipped, which is printed even if libtest captures the output. In CI the test fails, so that a
/// skip is noticed.
///
/// # Panics
/// If it fails, with `CI=true`.
pub fn can(probe: &mut Command) -> bool {
    let output = probe.output();
    if output.as_ref().is_ok_and(|output| output.status.success()) {
        return true;
    }
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{probe:?}: {output:?}");
    skipped(&format!("{probe:?} fails"));
    false
}

/// The same for things that only root can do. A user other than root skips the test, also in CI.
///
/// # Panics
/// As [`can`].
pub fn root_can(probe: &mut Command) -> bool {
    if !nix::unistd::geteuid().is_root() {
        skipped(&format!("{probe:?} needs root"));
        return false;
    }
    can(probe)
}

fn skipped(why: &str) {
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    // Not eprintln, because libtest hides its output if a test passes.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}
