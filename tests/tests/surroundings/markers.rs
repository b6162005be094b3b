//! All kinds of files at the path of a marker. The tests of its content are next to the parser, in
//! forensics-core.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use forensics_tests::{example, root_can};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::Value;

use crate::under::{Folder, IN_PIDS, Stopped, Under, unshare};

/// How to create the file; the value of the field, if any; and the problem in the record.
struct Case {
    name: &'static str,
    lay: fn(&Path),
    field: Option<&'static str>,
    problem: Option<&'static str>,
}

const NOT_REGULAR: Option<&str> = Some("not a regular file");

fn link(at: &Path, to: &str) {
    symlink(to, at).unwrap();
}

fn write(at: &Path, content: &[u8]) {
    fs::write(at, content).unwrap();
}

const CASES: [Case; 20] = [
    Case { name: "nothing", lay: |_| {}, field: None, problem: None },
    Case { name: "an empty file", lay: |at| write(at, b""), field: Some("yes"), problem: None },
    Case {
        name: "another's pid",
        lay: |at| write(at, br#"{"target_pid": 1.0e0}"#),
        field: Some("other"),
        problem: None,
    },
    Case {
        name: "a folder",
        lay: |at| fs::create_dir(at).unwrap(),
        field: Some("yes"),
        problem: NOT_REGULAR,
    },
    Case {
        name: "a pipe without a writer",
        lay: |at| nix::unistd::mkfifo(at, Mode::S_IRWXU).unwrap(),
        field: Some("yes"),
        problem: NOT_REGULAR,
    },
    Case {
        name: "a socket",
        lay: |at| drop(UnixListener::bind(at).unwrap()),
        field: Some("yes"),
        problem: NOT_REGULAR,
    },
    Case {
        name: "a link to a missing file",
        lay: |at| link(at, "nowhere"),
        field: None,
        problem: None,
    },
    Case {
        name: "a link to itself",
        lay: |at| link(at, at.to_str().unwrap()),
        field: Some("yes"),
        problem: Some("symbolic links"),
    },
    Case {
        name: "a link to a pipe",
        lay: |at| {
            let pipe = at.with_extension("pipe");
            nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
            link(at, pipe.to_str().unwrap());
        },
        field: Some("yes"),
        problem: NOT_REGULAR,
    },
    Case {
        name: "a link to a file",
        lay: |at| {
            let file = at.with_extension("file");
            write(&file, br#"{"target_pid": 1}"#);
            link(at, file.to_str().unwrap());
        },
        field: Some("other"),
        problem: None,
    },
    Case {
        name: "/dev/zero",
        lay: |at| link(at, "/dev/zero"),
        field: Some("yes"),
        problem: NOT_REGULAR,
    },
    Case {
        name: "/dev/full",
        lay: |at| link(at, "/dev/full"),
        field: Some("yes"),
        problem: NOT_REGULAR,
    },
    Case {
        name: "a terminal",
        lay: |at| link(at, "/dev/ptmx"),
        field: Some("yes"),
        problem: NOT_REGULAR,
    },
    Case {
        name: "a file of the kernel",
        lay: |at| link(at, "/proc/self/mem"),
        field: Some("yes"),
        problem: Some("a file of the kernel"),
    },
    Case {
        name: "a file with a hole of a gigabyte",
        lay: |at| File::create(at).unwrap().set_len(1 << 30).unwrap(),
        field: Some("yes"),
        problem: Some("larger than 64 KiB"),
    },
    Case {
        name: "half a file",
        lay: |at| write(at, br#"{"target_pid": 12"#),
        field: Some("yes"),
        problem: Some("not JSON: EOF"),
    },
    Case {
        name: "invalid UTF-8",
        lay: |at| write(at, b"{\"target_pid\": \"\xff\"}"),
        field: Some("yes"),
        problem: Some("not JSON: invalid unicode"),
    },
    Case {
        name: "60,000 levels",
        lay: |at| write(at, "[".repeat(60_000).as_bytes()),
        field: Some("yes"),
        problem: Some("not JSON: recursion limit"),
    },
    Case {
        name: "a number out of range",
        lay: |at| write(at, br#"{"target_pid": 1e999}"#),
        field: Some("yes"),
        problem: Some("not JSON: number out of range"),
    },
    Case {
        name: "a text that looks like two fields",
        lay: |at| write(at, b"yes cause=operator\n"),
        field: Some("yes"),
        problem: Some("not JSON: expected value"),
    },
];

const FILES: [(&str, &str); 2] =
    [("takeover", "takeover.json"), ("planned_stop", "planned-stop.json")];

/// The problem in the record for the marker of this name.
fn problem(folder: &Folder, marker: &str) -> Option<String> {
    let record = fs::read_dir(folder.path().join("records")).unwrap().next().unwrap().unwrap();
    let content = fs::read_to_string(record.path()).unwrap();
    let mut lines = content.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let signal = lines.find(|line| line["event"] == "signal").unwrap();
    let markers = signal["context"]["markers"].as_array()?;
    let ours = markers.iter().find(|one| one["name"] == marker)?;
    Some(ours["problem"].as_str()?.to_owned())
}

/// Checks both markers. They were created as these cases say.
fn assert_markers(stopped: &Stopped, folder: &Folder, cases: &[Case]) {
    for ((marker, _), case) in FILES.iter().zip(cases) {
        let field = stopped.field(&format!("{marker}_marker_present"));
        assert_eq!(field, case.field, "{}: {}", case.name, stopped.line());
        let problem = problem(folder, marker);
        assert_eq!(problem.is_some(), case.problem.is_some(), "{}: {problem:?}", case.name);
        assert!(problem.unwrap_or_default().contains(case.problem.unwrap_or("")), "{}", case.name);
    }
    folder.assert_clean();
}

#[test]
fn any_file_at_the_path_of_a_marker_costs_at_most_the_marker() {
    for cases in CASES.chunks(FILES.len()) {
        let folder = Folder::new();
        for ((_, file), case) in FILES.iter().zip(cases) {
            (case.lay)(&folder.path().join(file));
        }
        let mut command = Command::new(example("gateway"));
        command.args(folder.options_here()).arg("--markers").arg(folder.path());
        let stopped = Under::start(&mut command).stop(0);
        assert_markers(&stopped, &folder, cases);
    }
}

#[test]
fn a_marker_that_names_the_gateway_is_reported_as_self() {
    let folder = Folder::new();
    let mut command = Command::new(example("gateway"));
    let gateway = Under::start(command.arg("--markers").arg(folder.path()));
    let named = format!("{{\"target_pid\": {}}}", gateway.pid);
    write(&folder.path().join("takeover.json"), named.as_bytes());
    write(&folder.path().join("planned-stop.json"), format!("{named} ").as_bytes());
    let stopped = gateway.stop(0);
    for (marker, _) in FILES {
        assert_eq!(stopped.field(&format!("{marker}_marker_present")), Some("self"));
    }
}

#[test]
fn a_marker_that_cannot_be_read_is_present_but_names_no_process() {
    const AS_NOBODY: &str = "exec setpriv --reuid 65534 --regid 65534 --clear-groups -- \"$@\"";
    if !root_can(unshare(&[], AS_NOBODY).arg("true")) {
        return;
    }
    let folder = Folder::new();
    let secret = folder.path().join("takeover.json");
    write(&secret, br#"{"target_pid": 1}"#);
    fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    // A block device: an unused minor number of the loop driver, so that there is no device.
    let device = folder.path().join("planned-stop.json");
    mknod(&device, SFlag::S_IFBLK, Mode::S_IRWXU, makedev(7, 250)).unwrap();
    let mut command = unshare(&[], AS_NOBODY);
    let program = folder.with(&example("gateway"));
    command.arg(program).args(folder.options_here()).arg("--markers").arg(folder.path());
    let stopped = Under::start(&mut command).stop(0);
    let cases = [
        Case { name: "unreadable", lay: |_| {}, field: Some("yes"), problem: Some("Permission") },
        Case { name: "a block device", lay: |_| {}, field: Some("yes"), problem: NOT_REGULAR },
    ];
    assert_markers(&stopped, &folder, &cases);
}

#[test]
fn markers_on_a_file_system_without_its_server_do_not_block_the_stop() {
    const SCRIPT: &str = r#"exec python3 "$hang" "$markers" "$@""#;
    let folder = Folder::new();
    let markers = folder.path().join("markers");
    fs::create_dir(&markers).unwrap();
    let hang = || {
        let mut command = unshare(IN_PIDS, SCRIPT);
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/surroundings/hang.py");
        command.env("hang", script).env("markers", &markers);
        command
    };
    if !root_can(hang().arg("/bin/true")) {
        return;
    }
    let mut command = hang();
    command.arg(example("gateway")).args(folder.options_here()).arg("--markers").arg(&markers);
    let stopped = Under::start(&mut command).stop(0);
    stopped.assert_absent(&["takeover_marker_present", "planned_stop_marker_present"]);
    // The stop waits 100 ms for each marker.
    let complete = stopped.ended.line("Shutdown complete");
    let total = complete.split_once("total_usec=").unwrap().1.split(' ').next().unwrap();
    assert!(total.parse::<u64>().unwrap() >= 200_000, "{complete}");
    folder.assert_clean();
}
