//! A root that contains only the gateway, as in an image `FROM scratch`: no shell, no `ps`, no
//! `systemctl`, no libraries, no `/etc`, no `/dev`.

use std::path::Path;

use forensics_tests::{root_can, static_gateway};

use crate::under::{Folder, IN_PIDS, Stopped, Under, unshare};

/// Creates an empty root on a tmpfs at `$root`, copies `$program` into it, and starts it.
const EMPTY: &str = r#"
mount -t tmpfs -o mode=755 none "$root"
cp "$program" "$root/gateway"
[ -z "$proc" ] || { mkdir "$root/proc"; mount -t proc proc "$root/proc"; }
[ -z "$data" ] || { mkdir "$root/data"; mount --bind "$data" "$root/data"; }
[ -z "$read_only" ] || mount -o remount,ro "$root"
exec chroot --userspec="$user" "$root" /gateway "$@"
"#;

/// What the root contains besides the program.
#[derive(Default)]
struct Root<'a> {
    proc: bool,
    data: Option<&'a Folder>,
    read_only: bool,
    /// The unprivileged user 65534 instead of root.
    unprivileged: bool,
}

impl Root<'_> {
    fn start(&self, options: &[String]) -> Under {
        let root = tempfile::tempdir().unwrap();
        let flag = |set: bool| if set { "yes" } else { "" };
        let mut command = unshare(IN_PIDS, EMPTY);
        command
            .env("root", root.path())
            .env("program", static_gateway())
            .env("proc", flag(self.proc))
            .env("data", self.data.map_or(Path::new(""), Folder::path))
            .env("read_only", flag(self.read_only))
            .env("user", if self.unprivileged { "65534:65534" } else { "0:0" })
            .args(options);
        // The mounts on it are only in the new namespace.
        Under::start(&mut command)
    }
}

fn can_mount() -> bool {
    root_can(unshare(IN_PIDS, "mount -t tmpfs none /mnt").arg("true"))
}

fn assert_stopped_from_outside(stopped: &Stopped) {
    assert_eq!(stopped.field("cause"), Some("container_stop"));
    assert_eq!(stopped.field("sender_pid"), Some("0"));
    assert_eq!(stopped.field("sender_name"), Some("?"));
    stopped.assert_absent(&["sender_parent", "parent_pid"]);
}

#[test]
fn in_a_root_with_only_itself_it_stops_as_it_should() {
    if !can_mount() {
        return;
    }
    for unprivileged in [false, true] {
        let stopped = Root { unprivileged, ..Root::default() }.start(&[]).stop(0);
        assert_stopped_from_outside(&stopped);
        stopped.assert_absent(&["loadavg_1m"]);
    }
    let stopped = Root { proc: true, read_only: true, ..Root::default() }.start(&[]).stop(0);
    assert_stopped_from_outside(&stopped);
    assert!(stopped.field("loadavg_1m").is_some());
}

#[test]
fn the_diagnostic_needs_no_shell_and_no_dev_null() {
    if !can_mount() {
        return;
    }
    for unprivileged in [false, true] {
        let folder = Folder::new();
        let root = Root { proc: true, data: Some(&folder), read_only: unprivileged, unprivileged };
        let stopped = root.start(&folder.options("/data")).stop(0);
        assert_stopped_from_outside(&stopped);
        let diagnostic = folder.assert_diagnostic();
        for section in ["--- process 1\n", "--- load\n", "--- subtree of 1 (2 processes)\n"] {
            assert!(diagnostic.contains(section), "no {section} in {diagnostic}");
        }
        folder.assert_clean();
    }
}

#[test]
fn without_a_proc_it_still_records() {
    if !can_mount() {
        return;
    }
    let folder = Folder::new();
    let root = Root { data: Some(&folder), read_only: true, ..Root::default() };
    let stopped = root.start(&folder.options("/data")).stop(1);
    assert_stopped_from_outside(&stopped);
    assert!(stopped.warnings()[0].contains("Diagnostic failed"), "{:?}", stopped.warnings());
    folder.assert_clean();
}

#[test]
fn each_file_that_a_read_only_root_refuses_is_reported_once() {
    if !can_mount() {
        return;
    }
    let folder = Folder::new();
    let root = Root { proc: true, read_only: true, ..Root::default() };
    let stopped = root.start(&folder.options("/data")).stop(2);
    assert_stopped_from_outside(&stopped);
    let warnings = stopped.warnings();
    for missing in [
        "No diagnostic can be written: cannot create the folder",
        "Not all of this run is recorded",
    ] {
        let said = warnings.iter().filter(|line| line.contains(missing));
        assert_eq!(said.count(), 1, "{warnings:?}");
    }
}
