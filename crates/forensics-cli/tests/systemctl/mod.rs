//! Replaces systemctl for one run of `forensics`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

/// `$0` is the replacement, and the arguments are the command to run.
const MOUNT: &str = r#"
for folder in /usr/bin /bin /usr/sbin /sbin; do
    [ ! -e $folder/systemctl ] || mount --bind "$0" $folder/systemctl || exit
done
exec "$@""#;

/// Runs `forensics` with this shell script in place of systemctl, or without systemctl.
///
/// `PATH` cannot do that, because the folders of the system come first. So the script is mounted over
/// systemctl in a mount namespace, which needs root or a user namespace.
pub(crate) fn with_systemctl(script: Option<&str>, arguments: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let (text, file) = (dir.path().join("text"), dir.path().join("systemctl"));
    fs::write(&text, format!("#!/bin/sh\n{}\n", script.unwrap_or_default())).unwrap();
    // By cp(1): a process that another test starts could inherit our descriptor, and then the file
    // cannot be run ("Text file busy").
    assert!(Command::new("cp").args([&text, &file]).status().unwrap().success());
    let mode = if script.is_some() { 0o755 } else { 0o644 };
    fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    let mut command = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "sh", "-c", MOUNT]).arg(&file);
    // On a machine without systemctl, `PATH` is enough.
    let path = format!("{}:/usr/bin:/bin:/usr/sbin:/sbin", dir.path().display());
    command.arg(env!("CARGO_BIN_EXE_forensics")).args(arguments).env("PATH", path);
    command.output().unwrap()
}
