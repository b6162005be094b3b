//! The termination message is written only to a file that no other user can have chosen.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

use forensics_tests::{Program, example, root_can};

const OTHER: u32 = 65534;
const THIRD: u32 = 4711;
const BEFORE: &str = "as before\n";

fn folder(path: &Path, owner: u32, mode: u32) {
    fs::create_dir(path).unwrap();
    set(path, owner, mode);
}

fn file(path: &Path, owner: u32, mode: u32) {
    fs::write(path, BEFORE).unwrap();
    set(path, owner, mode);
}

fn set(path: &Path, owner: u32, mode: u32) {
    chown(path, Some(owner), Some(owner)).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Starts and stops the gateway as this user. `mounted` is mounted at the path of the message.
fn run(user: u32, message: &Path, mounted: Option<&Path>) -> String {
    const SCRIPT: &str = r#"
        [ -z "$mounted" ] || mount --bind "$mounted" "$message" || exit
        exec setpriv --reuid="$user" --regid="$user" --clear-groups --inh-caps=-all "$@""#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", SCRIPT, "sh"]).arg(example("gateway"));
    command.args(["--listen", "127.0.0.1:0", "--termination-message"]).arg(message);
    command.env("mounted", mounted.unwrap_or(Path::new(""))).env("message", message);
    let program = Program::start(command.env("user", user.to_string()));
    program.wait_for_stdout("listening on");
    program.kill("-TERM");
    let ended = program.wait();
    ended.assert_well(1);
    ended.stderr.clone()
}

#[test]
fn only_a_file_that_no_other_user_can_have_chosen_is_written_to() {
    if !root_can(Command::new("unshare").args(["--mount", "setpriv", "--reuid=1", "true"])) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let at = |name: &str| dir.path().join(name);
    folder(&at("roots"), 0, 0o755);
    folder(&at("theirs"), OTHER, 0o755);
    folder(&at("open"), 0, 0o777);
    folder(&at("sticky"), 0, 0o1777);
    file(&at("roots/private"), 0, 0o644);
    file(&at("roots/kubelets"), 0, 0o666);
    file(&at("roots/theirs"), OTHER, 0o666);
    file(&at("theirs/roots"), 0, 0o666);
    file(&at("theirs/own"), OTHER, 0o644);
    file(&at("open/roots"), 0, 0o666);
    file(&at("open/mounted"), 0, 0o666);
    file(&at("sticky/roots"), 0, 0o644);
    file(&at("sticky/theirs"), OTHER, 0o666);
    file(&at("volume"), 0, 0o666);
    file(&at("volume-theirs"), OTHER, 0o666);
    symlink(at("roots"), at("theirs/link")).unwrap();
    std::os::unix::fs::lchown(at("theirs/link"), Some(OTHER), Some(OTHER)).unwrap();
    folder(&at("thirds"), THIRD, 0o700);
    file(&at("thirds/private"), THIRD, 0o600);
    symlink(at("thirds"), at("theirs/to_third")).unwrap();
    std::os::unix::fs::lchown(at("theirs/to_third"), Some(OTHER), Some(OTHER)).unwrap();
    symlink(at("roots"), at("link")).unwrap();
    symlink("private", at("roots/link")).unwrap();
    file(&at("roots/first"), 0, 0o644);
    fs::hard_link(at("roots/first"), at("roots/second")).unwrap();
    nix::unistd::mkfifo(&at("roots/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();

    // The user, the path, what is mounted there, and whether it is written to.
    let cases = [
        (0, "roots/private", None, true),
        (0, "roots/kubelets", None, true),
        (0, "link/kubelets", None, true),
        (0, "sticky/roots", None, true),
        (0, "open/mounted", Some("volume"), true),
        (0, "open/mounted", Some("volume-theirs"), false),
        (0, "open/roots", None, false),
        (0, "roots/theirs", None, false),
        (0, "sticky/theirs", None, false),
        (0, "theirs/own", None, false),
        (0, "theirs/roots", None, false),
        (0, "theirs/link/private", None, false),
        (0, "roots/link", None, false),
        (0, "roots/second", None, false),
        (0, "roots/fifo", None, false),
        (0, "roots/missing", None, false),
        (OTHER, "roots/kubelets", None, true),
        (OTHER, "open/mounted", Some("volume"), true),
        (OTHER, "theirs/own", None, true),
        (OTHER, "open/roots", None, false),
        (OTHER, "roots/private", None, false),
        (THIRD, "thirds/private", None, true),
        (THIRD, "link/kubelets", None, true),
        (THIRD, "theirs/to_third/private", None, false),
    ];
    for (user, path, mounted, is_written) in cases {
        let case = format!("{path} as {user}, mounted: {mounted:?}");
        let mounted = mounted.map(at);
        let target = mounted.clone().unwrap_or_else(|| at(path));
        let is_file = fs::metadata(&target).is_ok_and(|found| found.is_file());
        if is_file {
            fs::write(&target, BEFORE).unwrap();
        }
        let stderr = run(user, &at(path), mounted.as_deref());
        let is_refused = stderr.contains("Termination message missing or incomplete");
        assert_eq!(is_refused, !is_written, "{case}: {stderr}");
        if is_file {
            let content = fs::read_to_string(&target).unwrap();
            assert_eq!(content == BEFORE, !is_written, "{case}: {content}");
        }
        assert!(!at("roots/missing").exists());
    }
}
