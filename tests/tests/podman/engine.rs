//! podman with folders of its own, which changes no other container of this machine.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use forensics_tests::{
    Ended, Program, can, copy_program, forensics, outcomes, root_can, static_gateway, until_started,
};
use nix::sched::{CloneFlags, setns};
use serde_json::Value;
use tempfile::TempDir;

/// The image. It contains the gateway, which is the entry point, and a shell.
pub(crate) const IMAGE: &str = "localhost/gateway";

/// The gateway's option for its records, in the shared folder.
pub(crate) const RECORDS: &str = "--records=/var/lib/gateway/shutdown";

/// The template for the exit status of a container, and whether podman saw an OOM kill in it.
pub(crate) const STATE: &str = "{{.State.ExitCode}} {{.State.OOMKilled}}";

/// runc, because crun refuses machines that have both versions of control groups. No systemd is
/// needed. The locks are files, because the other kind is one shared memory for the whole machine.
/// The default limits are higher than some machines allow.
const CONTAINERS_CONF: &str = r#"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
init_path = "/usr/libexec/podman/catatonit"
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
"#;

/// A podman with its own storage and containers, and a folder that its containers share with us.
/// All of this is removed when it is dropped.
pub(crate) struct Engine {
    dir: TempDir,
}

impl Engine {
    /// Imports the image. `None` if this machine cannot run containers.
    pub(crate) fn new() -> Option<Self> {
        static RUNS: OnceLock<()> = OnceLock::new();
        let engine = Self { dir: tempfile::tempdir().unwrap() };
        fs::write(engine.path("containers.conf"), CONTAINERS_CONF).unwrap();
        let runs = RUNS.get().is_some();
        if !runs && !root_can(Command::new("podman").arg("--version")) {
            return None;
        }
        // Like the kubelet's `emptyDir`: the user of the container is often not root.
        fs::create_dir(engine.shared()).unwrap();
        fs::set_permissions(engine.shared(), fs::Permissions::from_mode(0o777)).unwrap();
        if !can(&mut engine.import()) {
            return None;
        }
        if !runs && !can(&mut engine.podman(&["run", "--rm", "--network=none", IMAGE, "--help"])) {
            return None;
        }
        let _ = RUNS.set(());
        Some(engine)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The folder that each container has as `/var/lib/gateway`.
    pub(crate) fn shared(&self) -> PathBuf {
        self.path("shared")
    }

    /// Makes the files of the image. Returns the command that imports them.
    fn import(&self) -> Command {
        let copy = |from: &Path, to: &str| {
            let to = self.path("image").join(to.trim_start_matches('/'));
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            copy_program(from, to);
        };
        copy(static_gateway(), "/bin/gateway");
        copy(Path::new("/bin/sh"), "/bin/sh");
        let libraries = said(Command::new("ldd").arg("/bin/sh"));
        for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
            copy(Path::new(library), library);
        }
        let (image, tar) = (self.path("image"), self.path("image.tar"));
        said(Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(&image).arg("."));
        let entry_point = r#"ENTRYPOINT ["/bin/gateway"]"#;
        self.podman(&["import", "--quiet", "--change", entry_point, tar.to_str().unwrap(), IMAGE])
    }

    /// A command of podman.
    pub(crate) fn podman(&self, arguments: &[&str]) -> Command {
        let mut podman = Command::new("podman");
        podman.env("CONTAINERS_CONF", self.path("containers.conf"));
        // conmon notes an OOM kill in a file there.
        podman.current_dir(self.dir.path());
        for (option, folder) in [("--root", "root"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
            podman.arg(option).arg(self.path(folder));
        }
        // The storage driver that mounts nothing.
        podman.args(["--storage-driver", "vfs"]).args(arguments);
        podman
    }

    /// Runs a command of podman, and returns what it prints.
    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        said(&mut self.podman(arguments))
    }

    /// Starts a container with these options of `podman run`, and waits until the gateway listens.
    #[track_caller]
    pub(crate) fn run(&self, options: &[&str], command: &[&str]) -> Container<'_> {
        let name = new_name();
        let mut podman = self.podman(&["run", "--name", &name, "--sig-proxy=false"]);
        let program =
            Program::start(podman.args(self.common()).args(options).arg(IMAGE).args(command));
        let line = program.wait_for_stdout("listening on http://");
        let (_, address) = line.split_once("http://").unwrap();
        Container { engine: self, name, address: address.to_owned(), program }
    }

    /// Starts a container in the background, and returns its name.
    #[track_caller]
    pub(crate) fn run_detached(&self, options: &[&str], command: &[&str]) -> String {
        let name = new_name();
        let mut podman = self.podman(&["run", "--detach", "--name", &name]);
        said(podman.args(self.common()).args(options).arg(IMAGE).args(command));
        name
    }

    fn common(&self) -> [String; 3] {
        let volume = format!("{}:/var/lib/gateway", self.shared().display());
        ["--network=none".to_owned(), "--volume".to_owned(), volume]
    }

    /// What a container has written to stdout and stderr, in this order.
    #[track_caller]
    pub(crate) fn log(&self, name: &str) -> String {
        let output = self.podman(&["logs", name]).output().unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{text}");
        text
    }

    /// A fact about a container, by a template such as `{{.State.ExitCode}}`.
    #[track_caller]
    pub(crate) fn inspect(&self, name: &str, template: &str) -> String {
        self.ok(&["inspect", "--type=container", "--format", template, name])
    }

    /// The verdict of `forensics last` on the newest run, as JSON.
    #[track_caller]
    pub(crate) fn verdict(&self) -> Value {
        let records = self.shared().join("shutdown");
        let last = Command::new(forensics()).args(["last", "--json"]).arg(records).output();
        let last = last.unwrap();
        serde_json::from_slice(&last.stdout).unwrap_or_else(|e| panic!("{e}: {last:?}"))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Containers that a failed test has left. Without them no process and no mount remains.
        for arguments in [["pod", "rm", "--force", "--all"], ["rm", "--force", "--all", "--time=0"]]
        {
            let _ = self.podman(&arguments).output();
        }
    }
}

fn new_name() -> String {
    static MADE: AtomicU32 = AtomicU32::new(0);
    format!("gateway-{}", MADE.fetch_add(1, Ordering::Relaxed))
}

/// Runs a command, and returns what it prints.
#[track_caller]
fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A container whose gateway listens. `podman run` is attached to it.
pub(crate) struct Container<'e> {
    engine: &'e Engine,
    name: String,
    /// Where it listens, in its network namespace.
    pub(crate) address: String,
    /// `podman run`, which has the output and the exit status of the container.
    pub(crate) program: Program,
}

/// A container that has ended.
pub(crate) struct Stopped {
    /// The output, and the exit status that `podman run` returned.
    pub(crate) ended: Ended,
    /// The exit status and whether it was OOM-killed, as podman stores them: `0 false`.
    pub(crate) state: String,
    /// The verdict of `forensics last` on the newest run.
    pub(crate) verdict: Value,
}

impl Container<'_> {
    /// A command of podman about this container, such as `stop`.
    pub(crate) fn podman(&self, arguments: &[&str]) -> Command {
        self.engine.podman(&[arguments, &[&self.name]].concat())
    }

    /// Runs such a command, which must succeed.
    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str]) {
        said(&mut self.podman(arguments));
    }

    /// As [`Engine::inspect`].
    #[track_caller]
    pub(crate) fn inspect(&self, template: &str) -> String {
        self.engine.inspect(&self.name, template)
    }

    /// Runs a shell command in the container, and returns whether it succeeded.
    pub(crate) fn exec(&self, script: &str) -> bool {
        let exec = ["exec", &self.name, "/bin/sh", "-c", script];
        self.engine.podman(&exec).output().unwrap().status.success()
    }

    /// Waits until the newest record says that this phase has started.
    #[track_caller]
    pub(crate) fn until_started(&self, phase: &str) {
        until_started(&self.engine.shared().join("shutdown"), phase);
    }

    /// Does this on a thread in the container's network namespace. The threads that it starts are
    /// there, too.
    #[track_caller]
    pub(crate) fn in_network<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let pid = self.inspect("{{.State.Pid}}");
        let namespace = File::open(format!("/proc/{pid}/ns/net")).unwrap();
        let work = || {
            setns(&namespace, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        thread::scope(|scope| scope.spawn(work).join().unwrap())
    }

    /// Waits until the container has ended.
    #[track_caller]
    pub(crate) fn wait(self) -> Stopped {
        let ended = self.program.wait();
        let state = self.engine.inspect(&self.name, STATE);
        // With its copy of the image.
        self.engine.ok(&["rm", &self.name]);
        Stopped { ended, state, verdict: self.engine.verdict() }
    }
}

impl Stopped {
    /// The context line, or an empty text if no signal arrived.
    pub(crate) fn context(&self) -> &str {
        let found = self.ended.stderr.split_once("Shutdown context: ");
        found.and_then(|(_, rest)| rest.lines().next()).unwrap_or_default()
    }

    /// Asserts that every phase succeeded.
    #[track_caller]
    pub(crate) fn assert_phases_ok(&self) {
        assert_eq!(self.ended.phases(), outcomes(["ok"; 4]), "{}", self.ended.stderr);
    }

    /// Asserts the outcomes of the phases, the exit status, and the outcome in the record.
    #[track_caller]
    pub(crate) fn assert_ended(&self, phases: [&str; 4], code: i32, outcome: &str) {
        let stderr = &self.ended.stderr;
        assert_eq!(self.ended.phases(), outcomes(phases), "{stderr}");
        assert_eq!(self.ended.code(), code, "{stderr}");
        assert_eq!(self.state, format!("{code} false"), "{stderr}");
        assert_eq!(self.verdict["outcome"], outcome, "{}", self.verdict);
    }

    /// Asserts that every phase succeeded, and that the record is that of a clean run.
    #[track_caller]
    pub(crate) fn assert_well(&self) {
        self.assert_ended(["ok", "ok", "ok", "ok"], 0, "clean");
        assert_eq!(self.verdict["exit_code"], 0, "{}", self.verdict);
    }
}
