//! No thread or process can be started, or the memory is used up.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use forensics_tests::{ANY_SIGNAL, Gateway, Program, Small, example, root_can, until};
use forensics_tokio::core::record::{ExitKind, RunOutcome};

use crate::scene::Scene;

/// A user without other processes. RLIMIT_NPROC applies to this user, but not to root.
struct OtherUser {
    uid: u32,
    scene: Scene,
}

impl OtherUser {
    /// `None` if we cannot change the user.
    fn new() -> Option<Self> {
        if !root_can(Command::new("setpriv").args(["--reuid", "1", "true"])) {
            return None;
        }
        let scene = Scene::new();
        // Each of the tests that run concurrently has another folder, so the uid is unique.
        let uid = std::os::unix::fs::MetadataExt::ino(&fs::metadata(scene.dir.path()).unwrap());
        let uid = 1_000_000 + u32::try_from(uid % 1_000_000_000).unwrap();
        chown(scene.dir.path(), Some(uid), Some(uid)).unwrap();
        fs::set_permissions(scene.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Some(Self { uid, scene })
    }

    fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut setpriv = Command::new("setpriv");
        setpriv.arg(format!("--reuid={}", self.uid)).arg(format!("--regid={}", self.uid));
        setpriv.args(["--clear-groups", "--"]).arg(program.as_ref());
        setpriv
    }

    /// A copy of a program that this user can run.
    fn copy(&self, program: &Path) -> PathBuf {
        let copy = self.scene.dir.path().join("program");
        // By cp(1): a child that another test starts meanwhile would inherit our descriptor, and a
        // file that is open for writing cannot be run.
        assert!(Command::new("cp").args([program, copy.as_path()]).status().unwrap().success());
        copy
    }

    fn gateway(&self, arguments: &[&str]) -> Gateway {
        let mut gateway = self.command(self.copy(&example("gateway")));
        self.scene.with_arguments(&mut gateway, arguments);
        Program::gateway_by(gateway.envs([ANY_SIGNAL]))
    }

    /// Waits until the guard's threads of the start have ended. Then lowers the limit, so that the
    /// user can start no thread or process.
    fn take_threads(&self, program: &Program) {
        let pid = program.pid();
        let name = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("comm"));
        until("only the shutdown thread is left", || {
            let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
            // A thread that has ended meanwhile has no name.
            let names = threads.filter_map(|thread| name(thread.unwrap()).ok());
            let is_idle = |name: &String| name.trim() == "shutdown-thread";
            names.into_iter().all(|name| is_idle(&name) || !name.starts_with("shutdown-"))
        });
        let mut prlimit = self.command("prlimit");
        prlimit.arg(format!("--pid={pid}")).arg("--nproc=1:1");
        assert!(prlimit.status().unwrap().success());
    }
}

#[test]
fn if_no_thread_can_be_started_only_the_diagnostic_is_missing() {
    let Some(user) = OtherUser::new() else { return };
    let gateway = user.gateway(&[]);
    user.take_threads(&gateway.program);
    gateway.program.kill("-TERM");
    let ended = gateway.program.wait();
    ended.assert_well(1);
    assert!(ended.line("Diagnostic failed").contains("cannot start a thread"));
    assert!(ended.line("INFO shutdown: Shutdown context").contains("signal=SIGTERM"));
    // It ended in time, so nothing has waited for a thread.
    let (_, verdict) = user.scene.recorded();
    assert!(verdict.after_signal_us.unwrap() < 10_000_000, "{verdict}");
    user.scene.assert_recorded_well();
}

#[test]
fn if_no_thread_can_be_started_later_signals_and_the_forced_end_are_recorded() {
    let Some(user) = OtherUser::new() else { return };
    let gateway = user.gateway(&["--wedge", "db_close", "--deadline", "55s"]);
    user.take_threads(&gateway.program);
    gateway.program.kill("-TERM");
    gateway.program.wait_for_stderr("phase finished phase=adapters");
    // Within 200 ms it would be the same request. Those are real time.
    thread::sleep(Duration::from_millis(250));
    gateway.program.kill("-TERM");
    gateway.program.wait_for_stderr("another SIGTERM: the running phase is cut short");
    thread::sleep(Duration::from_millis(250));
    gateway.program.kill("-TERM");
    let ended = gateway.program.wait();
    assert_eq!(ended.code(), 70, "{}", ended.stderr);
    ended.line("Shutdown forced: another SIGTERM requested an immediate exit");
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    let (_, verdict) = user.scene.recorded();
    assert_eq!(verdict.how, Some(ExitKind::Forced), "{verdict}");
    assert!(verdict.evidence.contains("stop request number 3"), "{verdict}");
}

#[test]
fn if_no_thread_can_be_started_a_hook_that_hangs_does_not_keep_the_process_alive() {
    let Some(user) = OtherUser::new() else { return };
    let trouble = user.copy(Path::new(env!("CARGO_BIN_EXE_trouble")));
    let mut command = user.command(trouble);
    let program = Program::start(command.arg("stuck_flush").arg(user.scene.records()));
    program.wait_for_stdout("ready");
    user.take_threads(&program);
    program.kill("-TERM");
    program.wait_for_stderr("Teardown started");
    // As in the test above.
    thread::sleep(Duration::from_millis(250));
    program.kill("-TERM");
    let ended = program.wait();
    // By the kernel's timer, because no thread of the process can end it.
    assert_eq!(ended.status.signal(), Some(9), "{}", ended.stderr);
    ended.line("Shutdown forced: another SIGTERM requested an immediate exit");
    let (_, verdict) = user.scene.recorded();
    assert_eq!(verdict.outcome, RunOutcome::Forced, "{verdict}");
}

#[test]
fn at_the_limit_of_its_memory_it_ends_well() {
    // The gateway needs some 10 MiB, and its diagnostic the same.
    let Some(small) = Small::new(40 << 20) else {
        eprintln!("skipped: needs a new control group with a memory controller");
        return;
    };
    let scene = Scene::new();
    let moves_in = format!("echo $$ > '{}'; ", small.processes().display());
    let gateway =
        Program::gateway_by(&mut scene.by(&format!("{moves_in} exec \"$0\" \"$@\""), &[]));
    // On a disk, because the pages of a tmpfs cannot be reclaimed. The file is larger than the
    // limit, so every new page needs another one to be reclaimed.
    let filling =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fill-{}", std::process::id()));
    let fill = format!("{moves_in} exec dd if=/dev/zero of=\"$0\" bs=1M count=96 status=none");
    let filled = Command::new("sh").args(["-c", &fill]).arg(&filling).status();
    let _ = fs::remove_file(&filling);
    assert!(filled.unwrap().success());
    let (before, _) = small.events();
    assert!(before > 0, "the limit was not reached");
    gateway.program.kill("-TERM");
    let ended = gateway.program.wait();
    ended.assert_well(0);
    assert_eq!(small.events().1, 0, "no process was killed");
    scene.assert_recorded_well();
    assert!(fs::read_to_string(scene.log()).unwrap().contains("--- end of diagnostic"));
}
