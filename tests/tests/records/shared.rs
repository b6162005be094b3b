//! Several services, replicas or machines use one folder, with and without locks that all can see.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use forensics_tests::{Ended, Gateway, Program, example, forensics, root_can, until};
use forensics_tokio::core::record::{
    ExitKind, Place, PostMortem, Recorder, RunOutcome, RunStarted, runs,
};
use tempfile::TempDir;

/// A folder for records.
struct Folder {
    dir: TempDir,
}

impl Folder {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn records(&self) -> PathBuf {
        self.dir.path().join("records")
    }

    /// The gateway, in a pod with this name. Empty: not in a pod.
    fn start_in(&self, pod: &str) -> Gateway {
        self.start_by(&mut Command::new(example("gateway")), pod)
    }

    fn start_by(&self, command: &mut Command, pod: &str) -> Gateway {
        command.arg("--records").arg(self.records());
        command.env("POD_NAME", pod).env("POD_NAMESPACE", "shop");
        Program::gateway_by(command)
    }

    /// What a start says, and the run then stops well.
    fn next_start_in(&self, pod: &str) -> Ended {
        stop(self.start_in(pod))
    }

    fn last(&self) -> String {
        let output = Command::new(forensics()).arg("last").arg(self.records()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    fn record_of(&self, pid: u32) -> Option<PathBuf> {
        let name = format!("-{pid}.jsonl");
        let records = runs(&self.records()).unwrap();
        records.into_iter().find(|path| path.to_str().unwrap().ends_with(&name))
    }
}

fn stop(gateway: Gateway) -> Ended {
    gateway.program.kill("-TERM");
    let ended = gateway.program.wait();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    ended
}

fn kill(gateway: Gateway) {
    gateway.program.kill("-KILL");
    gateway.program.wait();
}

fn previous(ended: &Ended) -> Option<&str> {
    ended.stderr.lines().find(|line| line.contains("Previous run"))
}

#[test]
fn the_previous_run_is_that_of_the_same_pod_and_a_shared_folder_is_one_warning() {
    let folder = Folder::new();
    let first = folder.start_in("gw-0");
    let second = folder.start_in("gw-1");
    let (first_pid, second_pid) = (first.program.pid(), second.program.pid());
    kill(second);
    stop(first);
    // gw-0 ended well, and gw-1 after it did not.
    let ended = folder.next_start_in("gw-0");
    let line = previous(&ended).unwrap();
    let expected = format!("outcome=clean service=gateway pid={first_pid} pod=shop/gw-0");
    assert!(line.contains(&expected), "{line}");
    let again = folder.start_in("gw-1");
    let ended = folder.next_start_in("gw-0");
    let warning = ended.line("The record folder is shared with");
    let other = format!("gateway[{}] in pod shop/gw-1", again.program.pid());
    assert!(warning.contains(" WARN ") && warning.contains(&other), "{warning}");
    ended.assert_well(1);
    let ended = stop(again);
    let line = previous(&ended).unwrap();
    let expected = format!("outcome=vanished service=gateway pid={second_pid} pod=shop/gw-1");
    assert!(line.contains(&expected), "{line}");
}

#[test]
fn a_new_pod_of_a_deployment_reports_the_last_run_of_another_pod_by_name() {
    let folder = Folder::new();
    let old = folder.start_in("web-5d9c-abcde");
    let pid = old.program.pid();
    kill(old);
    let ended = folder.next_start_in("web-7f4b-fghij");
    let line = previous(&ended).unwrap();
    let expected = format!("outcome=vanished service=gateway pid={pid} pod=shop/web-5d9c-abcde");
    assert!(line.contains(&expected), "{line}");
    // A pod that no longer exists does not share the folder.
    ended.assert_well(1);
}

/// The record of a run in this process, as another service writes it.
fn record_of_a_service(records: &Path, service: &str) -> Recorder {
    let mut start = RunStarted::new(service, std::process::id());
    start.set_place(Place::here());
    Recorder::create(records, start).unwrap()
}

#[test]
fn two_services_in_one_folder_have_their_own_previous_run_and_their_own_limit() {
    let folder = Folder::new();
    let first = folder.start_in("");
    let pid = first.program.pid();
    stop(first);
    for _ in 0..60 {
        drop(record_of_a_service(&folder.records(), "other"));
    }
    let ended = folder.next_start_in("");
    let line = previous(&ended).unwrap();
    assert!(line.contains(&format!("outcome=clean service=gateway pid={pid} ")), "{line}");
    ended.line("The record folder is shared with other[");
    // The records of the other service were neither counted nor removed.
    assert_eq!(runs(&folder.records()).unwrap().len(), 62);
}

#[test]
fn a_dead_process_is_not_running_even_if_a_child_of_it_holds_the_lock() {
    let folder = Folder::new();
    let gateway = folder.start_in("");
    let record = folder.record_of(gateway.program.pid()).unwrap();
    kill(gateway);
    let mut holds_it = Command::new("flock")
        .arg(&record)
        .args(["sh", "-c", "echo; read -r _"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    holds_it.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    assert_eq!(PostMortem::of(&record).unwrap().outcome, RunOutcome::Vanished);
    assert!(folder.last().starts_with("outcome=vanished"), "{}", folder.last());
    let ended = folder.next_start_in("");
    assert!(previous(&ended).unwrap().contains("outcome=vanished"), "{}", ended.stderr);
    ended.assert_well(1);
    end(holds_it);
}

fn end(mut child: Child) {
    drop(child.stdin.take());
    child.wait().unwrap();
}

/// Unmounts a folder when dropped.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_living_run_whose_lock_is_not_visible_is_running_and_is_not_removed() {
    if !root_can(Command::new("bindfs").arg("--version")) {
        return;
    }
    let folder = Folder::new();
    let views = ["one", "two"].map(|view| folder.dir.path().join(view));
    let real = folder.dir.path().join("real");
    fs::create_dir(&real).unwrap();
    let _mounted = views.clone().map(|view| {
        fs::create_dir(&view).unwrap();
        let mounted = Command::new("bindfs").arg(&real).arg(&view).status();
        assert!(mounted.unwrap().success());
        Mounted(view)
    });
    let start = |view: &Path| {
        let records = view.join("records");
        Program::gateway(&["--records", records.to_str().unwrap()])
    };
    let gateway = start(&views[0]);
    let pid = gateway.program.pid();
    let seen = |view: &Path| {
        let name = format!("-{pid}.jsonl");
        let mut records = runs(&view.join("records")).unwrap().into_iter();
        records.find(|path| path.to_str().unwrap().ends_with(&name)).unwrap()
    };
    let found = PostMortem::of(&seen(&views[1])).unwrap();
    assert_eq!(found.outcome, RunOutcome::Running, "{found}");
    // More runs than are kept.
    for n in 0..52 {
        let other = start(&views[1]);
        if n > 0 {
            kill(other);
            continue;
        }
        let ended = stop(other);
        assert_eq!(previous(&ended), None);
        ended.line("The record folder is shared with");
    }
    assert_eq!(PostMortem::of(&seen(&views[1])).unwrap().outcome, RunOutcome::Running);
    kill(gateway);
    until("the pid is gone", || {
        PostMortem::of(&seen(&views[1])).unwrap().outcome == RunOutcome::Vanished
    });
}

/// A command that runs the gateway on what looks like another machine with another boot.
fn on_another_machine(dir: &Path) -> Command {
    let boot_id = dir.join("boot_id");
    fs::write(&boot_id, "11111111-2222-3333-4444-555555555555\n").unwrap();
    let script = r#"mount --bind "$B" /proc/sys/kernel/random/boot_id
        hostname elsewhere; exec "$0" "$@""#;
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--uts", "sh", "-e", "-c", script]).env("B", boot_id);
    unshare
}

#[test]
fn a_run_of_another_machine_is_neither_called_dead_nor_removed() {
    let folder = Folder::new();
    if !root_can(on_another_machine(folder.dir.path()).arg("true")) {
        return;
    }
    let foreign =
        folder.start_by(on_another_machine(folder.dir.path()).arg(example("gateway")), "");
    let pid = foreign.program.pid();
    // It lives, and its lock is visible on this file system.
    assert!(folder.last().starts_with("outcome=running"), "{}", folder.last());
    kill(foreign);
    // Nothing shows that it has ended.
    let said = folder.last();
    let expected = format!("outcome=maybe_alive service=gateway pid={pid} host=elsewhere");
    assert!(said.starts_with(&expected) && said.contains("may still be alive"), "{said}");
    let ended = folder.next_start_in("");
    assert_eq!(previous(&ended), None);
    let warning = ended.line("The record folder is shared with");
    assert!(warning.contains(&format!("gateway[{pid}] on elsewhere")), "{warning}");
    for _ in 0..52 {
        kill(folder.start_in(""));
    }
    assert!(folder.record_of(pid).is_some());
    // Its own next start knows that it was the run before.
    let again = folder.start_by(on_another_machine(folder.dir.path()).arg(example("gateway")), "");
    let ended = stop(again);
    let line = previous(&ended).unwrap();
    assert!(line.contains(&format!("outcome=vanished service=gateway pid={pid} ")), "{line}");
}

#[test]
fn a_run_in_another_container_is_judged_by_its_lock() {
    let folder = Folder::new();
    let mut container = Command::new("unshare");
    container.args(["--pid", "--fork", "--mount-proc", "--uts", "--kill-child"]);
    container.args(["sh", "-c", r#"hostname 0123456789ab && exec "$@""#, "sh"]);
    if !root_can(Command::new("unshare").args(["--pid", "--fork", "--uts", "true"])) {
        return;
    }
    let contained = folder.start_by(container.arg(example("gateway")), "");
    assert!(folder.last().starts_with("outcome=running"), "{}", folder.last());
    // `--kill-child` ends the gateway.
    kill(contained);
    until("the lock is gone", || folder.last().starts_with("outcome=vanished"));
    // As after `docker compose up --force-recreate`, with a volume.
    let ended = folder.next_start_in("");
    let line = previous(&ended).unwrap();
    let expected = "outcome=vanished service=gateway pid=1 host=0123456789ab";
    assert!(line.contains(expected), "{line}");
    ended.assert_well(1);
}

#[test]
fn a_newer_record_that_cannot_be_read_is_one_warning() {
    let folder = Folder::new();
    let first = folder.start_in("");
    let pid = first.program.pid();
    stop(first);
    fs::write(folder.records().join("20990101T000000.000000Z-7.jsonl"), "").unwrap();
    let ended = folder.next_start_in("");
    assert!(previous(&ended).unwrap().contains(&format!("pid={pid} ")), "{}", ended.stderr);
    let warning = ended.line("A newer record cannot be read");
    assert!(warning.contains("-7.jsonl: it is empty"), "{warning}");
    ended.assert_well(1);
    let newest = folder.record_of(7).unwrap();
    assert!(PostMortem::of(&newest).is_err());
    let found = PostMortem::of_last(&folder.records()).unwrap().unwrap();
    assert_eq!(found.how, Some(ExitKind::Clean));
}
