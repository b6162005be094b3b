//! Tests that this machine cannot run are skipped, and say so; in CI they fail.

use std::io::Write;
use std::process::Command;

/// Whether `probe` succeeds, which a test cannot do without. Where it does not the test is skipped,
/// and says so past libtest's capture; in CI it fails instead, lest nobody notice.
///
/// # Panics
/// With `CI=true`, where it fails.
pub fn can(probe: &mut Command) -> bool {
    let output = probe.output();
    if output.as_ref().is_ok_and(|output| output.status.success()) {
        return true;
    }
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{probe:?}: {output:?}");
    skipped(&format!("{probe:?} fails"));
    false
}

/// The same for what only root may do; not being root is never a failure.
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
    // Not eprintln, which libtest swallows where a test passes.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}
