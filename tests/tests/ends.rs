//! How runs end without a witness, and what `forensics last` then says: the rows `record` of the
//! table in docs/who-killed-me.md. Each is made with the real gateway.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use forensics_tests::ends::{assert_all, ends};
use forensics_tests::preload::Preload;
use forensics_tests::{
    Program, Small, can, copy_program, example, forensics, root_can, until, until_started,
};
use forensics_tokio::core::record::runs;
use tempfile::TempDir;

/// A folder for the records of one case.
struct Scene {
    dir: TempDir,
}

impl Scene {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn records(&self) -> PathBuf {
        self.dir.path().join("records")
    }

    /// Adds the gateway and its options to a command.
    fn gateway<'a>(&self, command: &'a mut Command, options: &[&str]) -> &'a mut Command {
        command.arg(example("gateway")).args(["--listen", "127.0.0.1:0", "--records"]);
        command.arg(self.records()).args(options)
    }

    /// The pid of the gateway, from the name of its record.
    fn pid(&self) -> String {
        let newest = runs(&self.records()).unwrap().pop().unwrap();
        let stem = newest.file_stem().unwrap().to_str().unwrap();
        stem.rsplit_once('-').unwrap().1.to_owned()
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("/bin/kill").args([signal, &self.pid()]).status().unwrap().success());
    }

    fn until_gone(&self) {
        let proc = PathBuf::from(format!("/proc/{}", self.pid()));
        let is_gone = || {
            let stat = fs::read_to_string(proc.join("stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        };
        until("the gateway has ended", is_gone);
    }

    /// The line of `forensics last`.
    fn last(&self) -> String {
        let Output { stdout, stderr, .. } =
            Command::new(forensics()).arg("last").arg(self.records()).output().unwrap();
        format!("{}{}", String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
    }

    /// The same, if the run had been told of this stop timeout. A gateway that knew of it would end in
    /// time.
    fn last_with_stop_timeout(&self, seconds: u32) -> String {
        let record = runs(&self.records()).unwrap().pop().unwrap();
        let text = fs::read_to_string(&record).unwrap();
        let told = format!("\"grace_us\":{seconds}000000,\"drain_timeout_us\"");
        fs::write(&record, text.replacen("\"drain_timeout_us\"", &told, 1)).unwrap();
        self.last()
    }

    /// What is said after a kill by a supervisor of that name, which is a shell. `options` are
    /// those of the gateway.
    fn supervised(&self, name: &str, options: &[&str], lives: Duration) -> String {
        self.supervised_by(name, options, &[(lives, "KILL")])
    }

    /// The same with any signals after the SIGTERM, each with the time before it.
    fn supervised_by(&self, name: &str, options: &[&str], signals: &[(Duration, &str)]) -> String {
        let shell = self.dir.path().join(name);
        copy_program("/bin/bash", &shell);
        fs::set_permissions(&shell, fs::Permissions::from_mode(0o755)).unwrap();
        let script = "\"$@\" & while read -r signal; do kill -$signal $!; done; wait";
        let mut command = Command::new(shell);
        self.gateway(command.args(["-c", script, "bash"]), options);
        let (input, mut orders) = std::io::pipe().unwrap();
        let program = Program::start_reading(&mut command, input);
        program.wait_for_stdout("listening on ");
        writeln!(orders, "TERM").unwrap();
        until_started(&self.records(), "drain");
        for (lives, signal) in signals {
            // The time is what the case is about.
            thread::sleep(*lives);
            writeln!(orders, "{signal}").unwrap();
        }
        drop(orders);
        program.wait();
        self.last()
    }
}

const WEDGED: [&str; 4] = ["--wedge", "drain", "--drain-timeout", "60s"];
const SOON: Duration = Duration::from_millis(300);

fn wedged(grace: &'static str) -> Vec<&'static str> {
    [&WEDGED[..], &["--grace", grace, "--deadline", "60s"]].concat()
}

/// A program that ends the gateway in this way, and `None` if this machine cannot run it.
type Case = fn(&Scene) -> Option<String>;

const CASES: [(&str, Case); 18] = [
    ("a shell as process 1 that exited first", |scene| {
        if !root_can(Command::new("unshare").args(["--pid", "--fork", "true"])) {
            return None;
        }
        let script = "\"$@\" & read -r line";
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--mount-proc", "sh", "-c", script, "sh"]);
        let (input, orders) = std::io::pipe().unwrap();
        let program = Program::start_reading(scene.gateway(&mut command, &[]), input);
        program.wait_for_stdout("listening on ");
        drop(orders);
        program.wait();
        Some(scene.last())
    }),
    ("SIGKILL 0.5 s after SIGTERM, with a stop timeout of 5 s", |scene| {
        Some(scene.supervised("keeper", &wedged("5s"), SOON))
    }),
    ("SIGKILL at the end of a stop timeout of 3 s", |scene| {
        let said = scene.supervised("keeper", &WEDGED, Duration::from_millis(2900));
        assert!(said.contains("reason=unknown"), "{said}");
        Some(scene.last_with_stop_timeout(3))
    }),
    ("SIGSTOP, then SIGKILL at the end of a stop timeout of 5 s", |scene| {
        // The timeout of the phase is over before, but a process that is stopped does not record it.
        let options = ["--wedge", "drain", "--drain-timeout", "2s"];
        let signals = [(SOON, "STOP"), (Duration::from_millis(4700), "KILL")];
        scene.supervised_by("keeper", &options, &signals);
        Some(scene.last_with_stop_timeout(5))
    }),
    ("exit() during the teardown", |scene| {
        let file = scene.dir.path().join("exit");
        let wait = format!("while (access(\"{}\", F_OK)) usleep(20000); exit(3)", file.display());
        let preload = Preload::thread(&wait);
        let mut command = Command::new("env");
        command.arg(format!("LD_PRELOAD={}", preload.library().display()));
        let program = Program::start(scene.gateway(&mut command, &WEDGED));
        program.wait_for_stdout("listening on ");
        program.kill("-TERM");
        until_started(&scene.records(), "drain");
        fs::write(file, "").unwrap();
        assert_eq!(program.wait().code(), 3);
        Some(scene.last())
    }),
    ("SIGKILL by `timeout -k`", |scene| {
        let mut command = Command::new("timeout");
        let program = Program::start(scene.gateway(command.args(["-k", "2", "5"]), &WEDGED));
        program.wait();
        scene.until_gone();
        Some(scene.last())
    }),
    ("SIGKILL by `start-stop-daemon --retry`", |scene| {
        if !can(Command::new("start-stop-daemon").arg("--version")) {
            return None;
        }
        let mut command = Command::new("env");
        let program = Program::start(scene.gateway(&mut command, &WEDGED));
        program.wait_for_stdout("listening on ");
        let mut stop = Command::new("start-stop-daemon");
        stop.args(["--stop", "--pid", &scene.pid(), "--retry", "TERM/2/KILL/9"]);
        // It waits until the gateway's parent has asked how it ended, which is done below.
        let stop = thread::spawn(move || stop.output());
        program.wait();
        stop.join().unwrap().unwrap();
        Some(scene.last())
    }),
    ("SIGKILL by supervisord", |scene| {
        if !can(Command::new("supervisord").arg("--version")) {
            return None;
        }
        let home = scene.dir.path().to_str().unwrap();
        let configuration = format!(
            "[supervisord]\nnodaemon=true\nsilent=true\nlogfile=/dev/null\nlogfile_maxbytes=0\n\
             pidfile={home}/pid\nchildlogdir={home}\n[program:gateway]\ncommand={} --listen \
             127.0.0.1:0 --records {} {}\nstopwaitsecs=2\nautorestart=false\n\
             stdout_logfile=/dev/fd/1\nstdout_logfile_maxbytes=0\n",
            example("gateway").display(),
            scene.records().display(),
            WEDGED.join(" "),
        );
        fs::write(format!("{home}/conf"), configuration).unwrap();
        let mut command = Command::new("supervisord");
        let program = Program::start(command.args(["-c", &format!("{home}/conf")]));
        program.wait_for_stdout("listening on ");
        program.kill("-TERM");
        program.wait();
        Some(scene.last())
    }),
    ("SIGKILL after a SIGTERM by PM2", |scene| {
        Some(scene.supervised("PM2 v5.3.0: God", &WEDGED, SOON))
    }),
    ("SIGKILL after a SIGTERM by runit", |scene| Some(scene.supervised("runsv", &WEDGED, SOON))),
    ("SIGKILL after a SIGTERM by s6", |scene| {
        Some(scene.supervised("s6-supervise", &WEDGED, SOON))
    }),
    ("SIGKILL after a SIGTERM by the kubelet", |scene| {
        if !root_can(Command::new("unshare").args(["--pid", "--fork", "true"])) {
            return None;
        }
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--mount-proc", "--kill-child"]);
        command.envs([("POD_NAME", "web-0"), ("POD_NAMESPACE", "shop")]);
        let program = Program::start(scene.gateway(&mut command, &WEDGED));
        program.wait_for_stdout("listening on ");
        let below = format!("/proc/{0}/task/{0}/children", program.pid());
        let pid = fs::read_to_string(below).unwrap();
        let kill = |signal: &str| {
            let kill = Command::new("/bin/kill").args([signal, pid.trim()]).status();
            assert!(kill.unwrap().success());
        };
        kill("-TERM");
        until_started(&scene.records(), "drain");
        kill("-KILL");
        program.wait();
        let mut last = Command::new(forensics());
        last.envs([("POD_NAME", "web-0"), ("POD_NAMESPACE", "shop")]);
        let said = last.arg("last").arg(scene.records()).output().unwrap();
        Some(String::from_utf8(said.stdout).unwrap())
    }),
    ("exec of another program, with the same pid", |scene| {
        let exec = "sleep(2); execl(\"/bin/sleep\", \"sleep\", \"60\", (char *)0)";
        let preload = Preload::thread(exec);
        let mut command = Command::new("env");
        command.arg(format!("LD_PRELOAD={}", preload.library().display()));
        let program = Program::start(scene.gateway(&mut command, &[]));
        program.wait_for_stdout("listening on ");
        let exe = format!("/proc/{}/comm", scene.pid());
        until("it has executed sleep", || fs::read_to_string(&exe).unwrap().trim() == "sleep");
        let said = scene.last();
        program.kill("-KILL");
        program.wait();
        Some(said)
    }),
    ("a failed start", |scene| {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let mut command = Command::new(example("gateway"));
        command.args(["--listen", &address, "--records"]).arg(scene.records());
        assert_ne!(Program::start(&mut command).wait().code(), 0);
        Some(scene.last())
    }),
    ("a thread that stayed blocked", |scene| {
        let options = ["--block", "drain", "--drain-timeout", "1s", "--deadline", "3s"];
        let mut command = Command::new("env");
        let program = Program::start(scene.gateway(&mut command, &options));
        program.wait_for_stdout("listening on ");
        program.kill("-TERM");
        assert_eq!(program.wait().code(), 70);
        Some(scene.last())
    }),
    ("another boot of the same machine", |scene| other_boot(scene, &[])),
    ("another boot id in a pod", |scene| {
        other_boot(scene, &[("POD_NAME", "web-0"), ("POD_NAMESPACE", "shop")])
    }),
    ("an OOM kill of a child, then SIGKILL by hand", |scene| {
        if !root_can(Command::new("dd").args([
            "if=/dev/kmsg",
            "iflag=nonblock",
            "count=1",
            "bs=8k",
        ])) {
            return None;
        }
        let group = Small::new(64 << 20)?;
        let join = "echo $$ >\"$0\" && exec \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", join]).arg(group.processes());
        let program = Program::start(scene.gateway(&mut command, &[]));
        program.wait_for_stdout("listening on ");
        let hog = "x=0123456789abcdef; while :; do x=$x$x; done";
        let mut grow = Command::new("sh");
        grow.args(["-c", join]).arg(group.processes()).args(["sh", "-c", hog]);
        let grown = grow.status().unwrap();
        assert!(!grown.success());
        assert_eq!(group.events().1, 1, "the shell was OOM-killed");
        program.kill("-KILL");
        program.wait();
        Some(scene.last())
    }),
];

/// A run of another boot id, in a mount namespace, which was killed by hand.
fn other_boot(scene: &Scene, pod: &[(&str, &str)]) -> Option<String> {
    if !root_can(Command::new("unshare").args(["--mount", "true"]))
        || !can(Command::new("test").args(["-s", "/etc/machine-id"]))
    {
        return None;
    }
    let id = scene.dir.path().join("boot_id");
    fs::copy("/proc/sys/kernel/random/uuid", &id).unwrap();
    let mount = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", mount]).arg(id).envs(pod.iter().copied());
    let program = Program::start(scene.gateway(&mut command, &[]));
    program.wait_for_stdout("listening on ");
    scene.signal("-KILL");
    program.wait();
    let last = Command::new(forensics())
        .arg("last")
        .arg(scene.records())
        .envs(pod.iter().copied())
        .output();
    Some(String::from_utf8(last.unwrap().stdout).unwrap())
}

#[test]
fn each_end_without_a_witness_has_its_own_words() {
    let rows = ends(&["record"]);
    assert_all(&rows, &CASES.map(|(what, _)| what));
    // Most of the time is waiting.
    thread::scope(|scope| {
        for row in &rows {
            let (_, case) = CASES.into_iter().find(|(what, _)| *what == row.what).unwrap();
            scope.spawn(move || {
                let scene = Scene::new();
                if let Some(said) = case(&scene) {
                    row.assert_said(&said);
                }
            });
        }
    });
}
