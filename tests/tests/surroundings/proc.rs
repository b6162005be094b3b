//! A `/proc` that is missing, is removed later, hides processes, or is masked as in a container.

use std::process::Command;

use forensics_tests::{example, root_can};

use crate::under::{Folder, IN_PIDS, Stopped, Under, unshare};

const WITHOUT: &str = r#"mount -t tmpfs none /proc; exec "$@""#;

/// The paths that docker masks and makes read-only by default (its `oci/defaults.go`).
const MASKED: &str = r#"
mount -t proc proc /proc
for file in interrupts kcore keys latency_stats sched_debug timer_list timer_stats; do
    [ ! -f /proc/$file ] || mount --bind /dev/null /proc/$file
done
for folder in /proc/acpi /proc/asound /proc/scsi /sys/firmware /sys/devices/virtual/powercap; do
    [ ! -d $folder ] || mount -t tmpfs -o ro none $folder
done
for path in bus fs irq sys sysrq-trigger; do
    [ -e /proc/$path ] || continue
    mount --bind /proc/$path /proc/$path
    mount -o remount,bind,ro /proc/$path
done
"#;

/// Whether this machine can run `script` on `true`.
fn can(options: &[&str], script: &str) -> bool {
    root_can(unshare(options, script).arg("true"))
}

/// Checks the stop of a service that never had a `/proc`: the kernel gives the pid and the uid of
/// the sender, and nothing else is known.
fn assert_blind(stopped: &Stopped, folder: &Folder) {
    let own = std::process::id().to_string();
    assert_eq!(stopped.field("cause"), Some("unknown"));
    assert_eq!(stopped.field("sender_name"), Some("?"));
    assert_eq!(stopped.field("sender_uid"), Some("0"));
    assert_eq!(stopped.field("parent_pid"), Some(own.as_str()));
    assert_eq!(stopped.field("parent_name"), Some("?"));
    assert_eq!(stopped.field("sender_hidden"), Some("yes"));
    stopped.assert_absent(&["sender_parent", "sender_cmdline", "loadavg_1m", "tracer_pid"]);
    assert_no_diagnostic(stopped, folder);
}

/// Checks that the diagnostic has failed and says so, because it needs `/proc`.
fn assert_no_diagnostic(stopped: &Stopped, folder: &Folder) {
    let warning = "Diagnostic failed: cannot start \"/proc/self/exe\": No such file or directory";
    assert!(stopped.warnings()[0].contains(warning), "{:?}", stopped.warnings());
    assert!(folder.diagnostic().contains("--- diagnostic incomplete: cannot start"));
    folder.assert_clean();
}

#[test]
fn without_a_proc_a_stop_has_its_sender_and_its_phases() {
    if !can(&[], WITHOUT) {
        return;
    }
    let folder = Folder::new();
    let mut command = unshare(&[], WITHOUT);
    let gateway = Under::start(command.arg(example("gateway")).args(folder.options_here()));
    assert_blind(&gateway.stop(1), &folder);
}

#[test]
fn a_proc_that_is_mounted_over_before_the_signal_still_answers() {
    if !can(&[], r#"exec "$@""#) {
        return;
    }
    let folder = Folder::new();
    let mut command = unshare(&[], r#"exec "$@""#);
    let gateway = Under::start(command.arg(example("gateway")).args(folder.options_here()));
    let mut nsenter = Command::new("nsenter");
    nsenter.args(["--target", &gateway.pid.to_string(), "--mount"]);
    let mounted = nsenter.args(["mount", "-t", "tmpfs", "none", "/proc"]).status().unwrap();
    assert!(mounted.success());
    let stopped = gateway.stop(1);
    // `/proc` was opened at the start, and the files that cannot block are read through that
    // descriptor.
    let own = std::process::id().to_string();
    assert_eq!(stopped.field("parent_pid"), Some(own.as_str()));
    assert_ne!(stopped.field("parent_name"), Some("?"));
    assert!(stopped.field("loadavg_1m").is_some());
    assert_no_diagnostic(&stopped, &folder);
}

#[test]
fn without_a_proc_process_1_of_a_container_knows_that_the_container_is_stopped() {
    if !can(IN_PIDS, WITHOUT) {
        return;
    }
    let gateway = Under::start(unshare(IN_PIDS, WITHOUT).arg(example("gateway")));
    let stopped = gateway.stop(0);
    assert_eq!(stopped.field("cause"), Some("container_stop"));
    assert_eq!(stopped.field("sender_pid"), Some("0"));
    stopped.assert_absent(&["parent_pid", "loadavg_1m"]);
}

#[test]
fn with_hidepid_a_sender_of_the_same_user_is_named() {
    // A user without other processes, because those of other tests would be shown, too.
    let uid = (1_000_000 + std::process::id()).to_string();
    let as_user = format!("setpriv --reuid {uid} --regid {uid} --clear-groups --");
    let script = format!("mount -t proc -o hidepid=2 proc /proc; exec {as_user} \"$@\"");
    if !can(&[], &script) {
        return;
    }
    let start = |folder: &Folder| {
        let program = folder.with(&example("gateway"));
        Under::start(unshare(&[], &script).arg(program).args(folder.options_here()))
    };
    let folder = Folder::new();
    let stopped = start(&folder).stop(0);
    assert_eq!(stopped.field("sender_name"), Some("?"));
    assert_eq!(stopped.field("sender_hidden"), Some("yes"));
    assert_eq!(stopped.field("sender_uid"), Some("0"));
    stopped.assert_absent(&["sender_parent", "sender_cmdline", "parent_cmdline"]);
    let diagnostic = folder.assert_diagnostic();
    assert!(diagnostic.contains("(2 of 2: with their ancestors"), "{diagnostic}");
    folder.assert_clean();

    let folder = Folder::new();
    let mut as_user = as_user.split(' ');
    let mut kill = Command::new(as_user.next().unwrap());
    kill.args(as_user).arg("/bin/kill");
    let stopped = start(&folder).stop_by(kill, 0);
    assert_eq!(stopped.field("sender_name"), Some("kill"));
    assert_eq!(stopped.field("sender_uid"), Some(uid.as_str()));
    stopped.assert_absent(&["sender_hidden", "sender_parent"]);
    folder.assert_clean();
}

#[test]
fn process_1_of_a_container_is_stopped_from_outside_and_its_zombies_are_shown() {
    // Also a signal before the guard is installed. The kernel does not deliver it to a process 1
    // without a handler.
    let script = format!("{MASKED} kill -TERM $$; exec \"$@\"");
    if !can(IN_PIDS, &script) {
        return;
    }
    let folder = Folder::new();
    let mut command = unshare(IN_PIDS, &script);
    let gateway = Under::start(command.arg(example("gateway")).args(folder.options_here()));
    // An orphan inside. Process 1 inherits it and does not wait for it.
    let mut orphan = Command::new("nsenter");
    orphan.args(["--target", &gateway.pid.to_string(), "--pid", "--mount"]);
    let left = orphan.args(["sh", "-c", "sleep 0 & exec true"]).status().unwrap();
    assert!(left.success());
    gateway.wait_for_zombie();
    let stopped = gateway.stop(0);
    assert_eq!(stopped.field("cause"), Some("container_stop"));
    assert_eq!(stopped.field("sender_pid"), Some("0"));
    assert!(stopped.field("loadavg_1m").is_some());
    // Its parent is outside.
    stopped.assert_absent(&["parent_pid", "sender_parent"]);
    let diagnostic = folder.assert_diagnostic();
    let is_zombie = |line: &str| line.contains(" Z ") && line.contains("(sleep) defunct");
    assert!(diagnostic.lines().any(is_zombie), "{diagnostic}");
    folder.assert_clean();
}

#[test]
fn in_a_container_with_an_init_nothing_is_missing() {
    let script = format!("{MASKED} \"$@\" & wait $!");
    if !can(IN_PIDS, &script) {
        return;
    }
    let folder = Folder::new();
    let mut command = unshare(IN_PIDS, &script);
    let gateway = Under::start(command.arg(example("gateway")).args(folder.options_here()));
    // One warning: the init is a shell, which does not forward signals.
    let stopped = gateway.stop(1);
    assert_eq!(stopped.field("cause"), Some("container_stop"));
    assert_eq!(stopped.field("parent_pid"), Some("1"));
    assert_eq!(stopped.field("parent_name"), Some("sh"));
    folder.assert_diagnostic();
    folder.assert_clean();
}
