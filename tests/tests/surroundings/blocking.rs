//! Files of `/proc` and of cgroups that never answer, from some moment after the start until the
//! gateway has ended. This happens if the server of lxcfs, which serves them through FUSE, has
//! died.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use forensics_tests::{ANY_SIGNAL, Program, can, example, root_can};
use forensics_tokio::core::process::ProcessSummary;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::under::unshare;

/// A gateway in a separate mount namespace, and the process that makes files block there.
struct Blocked {
    gateway: Program,
    blocker: Program,
    dir: TempDir,
}

impl Blocked {
    /// Starts the gateway, and then makes `files` block. `PID` in a path is its pid, `PPID` its
    /// parent's. `None` if this machine cannot do that.
    fn start(files: &[&str], arguments: &[&str]) -> Option<Self> {
        if !root_can(&mut unshare(&[], "exec true")) || !can(Command::new("nsenter").arg("-V")) {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let mut command = unshare(&[], r#"exec "$@""#);
        command.arg(example("gateway")).arg("--records").arg(dir.path().join("records"));
        let gateway = Program::start(command.args(arguments).envs([ANY_SIGNAL]));
        gateway.wait_for_stdout("listening on ");
        let pid = gateway.pid();
        let ppid = ProcessSummary::read_stat(pid.cast_signed()).ppid.unwrap();
        let path =
            |file: &&str| file.replace("PPID", &ppid.to_string()).replace("PID", &pid.to_string());
        let paths: Vec<String> = files.iter().map(path).collect();
        for path in &paths {
            assert!(Path::new(path).exists(), "{path}");
        }
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/surroundings/hang.py");
        let mut nsenter = Command::new("nsenter");
        nsenter.arg(format!("--target={pid}")).args(["--mount", "python3", script]);
        nsenter.arg(paths.join(":")).args(["/bin/sh", "-c", "echo mounted; read -r _ || true"]);
        let blocker = Program::start(&mut nsenter);
        blocker.wait_for_stdout("mounted");
        Some(Self { gateway, blocker, dir })
    }

    /// Waits until the gateway has ended. Only then do the files answer again.
    fn wait(self) -> (forensics_tests::Ended, TempDir) {
        let ended = self.gateway.wait();
        drop(self.blocker);
        (ended, self.dir)
    }
}

/// The files of the gateway's memory cgroup, version 1 or 2.
fn memory_files() -> Vec<String> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut found = Vec::new();
    for line in groups.lines() {
        let [_, controllers, path] = line.splitn(3, ':').collect::<Vec<_>>()[..] else { continue };
        let (root, names) = match controllers {
            "memory" => ("/sys/fs/cgroup/memory", ["memory.usage_in_bytes", "memory.oom_control"]),
            "" => ("/sys/fs/cgroup", ["memory.current", "memory.events"]),
            _ => continue,
        };
        for name in names {
            let file = Path::new(root).join(path.trim_start_matches('/')).join(name);
            if file.exists() {
                found.push(file.to_str().unwrap().to_owned());
            }
        }
    }
    found
}

#[test]
fn the_stop_ends_well_whichever_files_do_not_answer() {
    let memory = memory_files();
    let mut all: Vec<&str> =
        vec!["/proc/loadavg", "/proc/PID/status", "/proc/PID/cgroup", "/proc/PPID/stat"];
    all.extend(memory.iter().map(String::as_str));
    // Each file alone, then all at once.
    let mut cases: Vec<Vec<&str>> = all.iter().map(|file| vec![*file]).collect();
    cases.push(all);
    for files in cases {
        let Some(blocked) = Blocked::start(&files, &[]) else { return };
        blocked.gateway.kill("-TERM");
        let (ended, dir) = blocked.wait();
        assert_eq!(ended.code(), 0, "{files:?}: {}", ended.stderr);
        assert_eq!(ended.stderr.matches("outcome=ok").count(), 6, "{}", ended.stderr);
        let context = ended.line("Shutdown context: signal=SIGTERM");
        assert!(context.contains(" sender_pid="), "{context}");
        let has_load = context.contains(" loadavg_1m=");
        assert_eq!(has_load, !files.contains(&"/proc/loadavg"), "{files:?}: {context}");
        let complete = ended.line("Shutdown complete");
        let total = complete.split_once("total_usec=").unwrap().1.split(' ').next().unwrap();
        assert!(total.parse::<u64>().unwrap() < 5_000_000, "{files:?}: {complete}");
        let record = forensics_tokio::core::record::runs(&dir.path().join("records")).unwrap();
        let record = fs::read_to_string(&record[0]).unwrap();
        assert!(record.contains(r#""event":"stopped""#), "{record}");
    }
}

#[test]
fn a_sender_whose_own_file_does_not_answer_is_reported_without_its_name() {
    // The signal handler itself reads this file.
    let Some(blocked) = Blocked::start(&["/proc/PPID/stat"], &[]) else { return };
    let pid = Pid::from_raw(blocked.gateway.pid().cast_signed());
    kill(pid, Signal::SIGTERM).unwrap();
    let (ended, _dir) = blocked.wait();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let context = ended.line("Shutdown context: signal=SIGTERM");
    let expected = format!(" sender_pid={} sender_name=? ", std::process::id());
    assert!(context.contains(&expected), "{context}");
}

#[test]
fn with_files_that_do_not_answer_a_third_signal_still_ends_the_process() {
    let files = ["/proc/loadavg", "/proc/PID/status", "/proc/PPID/stat"];
    let arguments = ["--wedge", "db_close", "--deadline", "55s"];
    let Some(blocked) = Blocked::start(&files, &arguments) else { return };
    blocked.gateway.kill("-TERM");
    blocked.gateway.wait_for_stderr("phase finished phase=adapters");
    // Within 200 ms it would be the same request. Those are real time.
    thread::sleep(Duration::from_millis(250));
    blocked.gateway.kill("-TERM");
    blocked.gateway.wait_for_stderr("another SIGTERM: ");
    thread::sleep(Duration::from_millis(250));
    blocked.gateway.kill("-TERM");
    let (ended, _dir) = blocked.wait();
    assert_eq!(ended.code(), 70, "{}", ended.stderr);
    ended.line("Shutdown forced: another SIGTERM");
}

#[test]
fn with_threads_that_cannot_be_read_the_deadline_still_ends_the_process() {
    // These files are read for each thread to describe a stall.
    let files = ["/proc/loadavg", "/proc/PID/task/PID/stat", "/proc/PID/task/PID/wchan"];
    let arguments = ["--block", "drain", "--deadline", "2s"];
    let Some(blocked) = Blocked::start(&files, &arguments) else { return };
    blocked.gateway.kill("-TERM");
    let (ended, _dir) = blocked.wait();
    // A multi-threaded runtime can still run the other phases.
    assert!([0, 70].contains(&ended.code()), "{}", ended.stderr);
    ended.line("Shutdown context: signal=SIGTERM");
}
