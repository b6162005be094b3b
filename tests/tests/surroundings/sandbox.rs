//! System calls that a seccomp filter refuses, one at a time, as in a hardened unit or a container:
//! with `EPERM`, or with `ENOSYS`, as if the kernel did not have them.
//!
//! The table in docs/systemd-details.md says what systemd's own settings cost. The test target `systemd`
//! checks it.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;

use forensics_tests::{Program, can, example};
use nix::libc::{self, ENOSYS, EPERM, c_long};

use crate::under::{Folder, Under};

/// What is lost if a call is refused.
#[derive(Clone, Copy, PartialEq)]
enum Costs {
    Nothing,
    /// The diagnostic, with a warning.
    Diagnostic,
    /// A warning that the diagnostic could not be waited for.
    Waiting,
    /// A warning that old records are not removed.
    Pruning,
    /// The sender's name, because it is not known to which pid namespace `/proc` belongs.
    Names,
}

/// The calls of the gateway, its runtime and its libraries, and some that a newer version may use.
const CALLS: [(&str, c_long, Costs); 22] = [
    ("clone", libc::SYS_clone, Costs::Nothing),
    ("close_range", libc::SYS_close_range, Costs::Nothing),
    ("fdatasync", libc::SYS_fdatasync, Costs::Nothing),
    ("flock", libc::SYS_flock, Costs::Nothing),
    ("getdents64", libc::SYS_getdents64, Costs::Pruning),
    ("getrandom", libc::SYS_getrandom, Costs::Nothing),
    ("io_uring_setup", libc::SYS_io_uring_setup, Costs::Nothing),
    // Only used to find out whether a sender that /proc does not show is gone or hidden.
    ("kill", libc::SYS_kill, Costs::Nothing),
    // The diagnostic knows by such a file that the service has started it.
    ("memfd_create", libc::SYS_memfd_create, Costs::Diagnostic),
    ("openat2", libc::SYS_openat2, Costs::Nothing),
    ("pidfd_open", libc::SYS_pidfd_open, Costs::Nothing),
    ("prctl", libc::SYS_prctl, Costs::Nothing),
    ("prlimit64", libc::SYS_prlimit64, Costs::Nothing),
    ("readlink", READLINK, Costs::Names),
    ("sched_getaffinity", libc::SYS_sched_getaffinity, Costs::Nothing),
    ("sched_setattr", libc::SYS_sched_setattr, Costs::Nothing),
    ("setpgid", libc::SYS_setpgid, Costs::Diagnostic),
    ("sigaltstack", libc::SYS_sigaltstack, Costs::Nothing),
    ("statx", libc::SYS_statx, Costs::Nothing),
    ("timerfd_create", libc::SYS_timerfd_create, Costs::Nothing),
    ("wait4", libc::SYS_wait4, Costs::Waiting),
    ("waitid", libc::SYS_waitid, Costs::Nothing),
];

#[cfg(target_arch = "x86_64")]
const READLINK: c_long = libc::SYS_readlink;
#[cfg(not(target_arch = "x86_64"))]
const READLINK: c_long = libc::SYS_readlinkat;

/// Runs `program` under `refuse.py`.
fn refusing(call: c_long, errno: i32, program: PathBuf) -> Command {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/surroundings/refuse.py");
    let mut python = Command::new("python3");
    python.arg(script).args([errno.to_string(), call.to_string()]).arg(program);
    python
}

fn can_refuse() -> bool {
    can(&mut refusing(libc::SYS_flock, EPERM, "/bin/true".into()))
}

#[test]
fn a_refused_system_call_costs_only_its_purpose_and_no_phase() {
    if !can_refuse() {
        return;
    }
    for (name, call, costs) in CALLS {
        for errno in [EPERM, ENOSYS] {
            eprintln!("{name} refused with errno {errno}");
            let folder = Folder::new();
            let mut command = refusing(call, errno, example("gateway"));
            let gateway = Under::start(command.args(folder.options_here()));
            let free = matches!(costs, Costs::Nothing | Costs::Names);
            let stopped = gateway.stop(if free { 0 } else { 1 });
            let warned = match costs {
                Costs::Nothing | Costs::Names => "",
                Costs::Diagnostic => "Diagnostic failed: cannot start",
                Costs::Waiting => "Diagnostic failed: cannot wait for it",
                Costs::Pruning => "Old records are not removed: cannot list the folder",
            };
            assert!(stopped.warnings().concat().contains(warned), "{:?}", stopped.warnings());
            let sender = if costs == Costs::Names { "?" } else { "kill" };
            assert_eq!(stopped.field("sender_name"), Some(sender), "{}", stopped.line());
            folder.assert_clean();
            if costs != Costs::Diagnostic {
                folder.assert_diagnostic();
            }
        }
    }
}

/// systemd's `SystemCallFilter=~@resources` kills a process that calls sched_setattr(2).
#[test]
fn no_short_time_slice_is_requested_by_default_if_a_filter_of_systemd_might_kill() {
    if !can_refuse() {
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/surroundings/refuse.py");
    let killing = |low_latency: &str| {
        let mut python = Command::new("python3");
        python.args([script, "kill", &libc::SYS_sched_setattr.to_string()]).arg(example("gateway"));
        python.args(["--listen", "127.0.0.1:0"]);
        python.env("INVOCATION_ID", "0123456789abcdef0123456789abcdef");
        python.env("FORENSICS_LOW_LATENCY_CAPTURE", low_latency);
        Program::start(&mut python)
    };
    let gateway = killing("");
    gateway.wait_for_stdout("listening on ");
    let pid = gateway.pid().to_string();
    assert!(Command::new("/bin/kill").args(["-TERM", &pid]).status().unwrap().success());
    gateway.wait().assert_well(0);

    // The filter works: with the option enabled, the process is killed.
    let ended = killing("yes").wait();
    assert_eq!(ended.status.signal(), Some(libc::SIGSYS), "{ended:?}");
}

#[test]
fn without_the_system_calls_of_its_runtime_it_does_not_start_and_records_nothing() {
    if !can_refuse() {
        return;
    }
    let calls = [
        (libc::SYS_eventfd2, EPERM),
        (libc::SYS_eventfd2, ENOSYS),
        // With ENOSYS the C library uses clone(2) instead.
        (libc::SYS_clone3, EPERM),
        (libc::SYS_socketpair, EPERM),
    ];
    for (call, errno) in calls {
        let folder = Folder::new();
        let mut command = refusing(call, errno, example("gateway"));
        let ended = Program::start(command.args(folder.options_here())).wait();
        assert_ne!(ended.code(), 0, "{call}: {ended:?}");
        assert!(!ended.stdout.contains("listening on"), "{call}: {ended:?}");
        // tokio reports it, because the runtime is built before the guard is installed.
        let panicked = ended.stderr.matches("panicked at").count();
        let by_tokio = ["tokio-1.", "Failed building the Runtime"];
        let by_tokio = by_tokio.iter().any(|by_tokio| ended.stderr.contains(by_tokio));
        assert_eq!(panicked, usize::from(by_tokio), "{}", ended.stderr);
        assert!(!folder.path().join("records").exists());
    }
    let folder = Folder::new();
    let mut command = refusing(libc::SYS_clone3, ENOSYS, example("gateway"));
    Under::start(command.args(folder.options_here())).stop(0);
    folder.assert_clean();
}
