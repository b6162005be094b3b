//! Hostile texts, names and files of other users. A text stays in its field in every output, no
//! output contains a secret, and no file is written where others could interfere.

#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use forensics_tests::{HOSTILE, Program, assert_tame, example, forensics, until};
use forensics_tokio::core::escape::MAX_CMDLINE_CHARS;
use forensics_tokio::core::logfmt;
use forensics_tokio::core::record::{Event, PhaseOutcome, PostMortem, Record, runs};
use tempfile::TempDir;

/// A program's folder: its records, its diagnostic log, and the service manager's socket.
struct Place {
    dir: TempDir,
    manager: UnixDatagram,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let manager = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        manager.set_nonblocking(true).unwrap();
        Self { dir, manager }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn outspoken(&self, log: &str, stop: &str, more: &[&str]) -> Program {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outspoken"));
        command.args([log, stop]).arg(self.path("records")).arg(self.path("diag.log")).args(more);
        command.env("NOTIFY_SOCKET", self.path("notify"));
        Program::start(&mut command)
    }

    fn gateway(&self) -> Program {
        let mut command = Command::new(example("gateway"));
        command.arg("--records").arg(self.path("records"));
        command.arg("--diag-log").arg(self.path("diag.log"));
        command.env("NOTIFY_SOCKET", self.path("notify"));
        let program = Program::start(&mut command);
        program.wait_for_stdout("listening on");
        program
    }

    fn record(&self) -> PathBuf {
        runs(&self.path("records")).unwrap().pop().unwrap()
    }

    /// The messages to the service manager.
    fn notified(&self) -> Vec<String> {
        let mut told = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        while let Ok(length) = self.manager.recv(&mut buffer) {
            told.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
        }
        told
    }

    /// All outputs of a run and of the command line about it, with their names. Each is checked: it
    /// is safe for a terminal, and it is one line or JSON if it should be.
    fn outputs(&self, stderr: &str) -> Vec<(&'static str, String)> {
        let record = self.record();
        let (dir, file) = (self.path("records"), record.to_str().unwrap());
        let dir = dir.to_str().unwrap();
        let mut outputs = vec![
            ("log", stderr.to_owned()),
            ("record", fs::read_to_string(&record).unwrap()),
            ("diagnostic", fs::read_to_string(self.path("diag.log")).unwrap()),
        ];
        let commands: [(&str, &[&str]); 9] = [
            ("last", &["last", dir]),
            ("last --json", &["last", dir, "--json"]),
            ("list", &["list", dir]),
            ("list --json", &["list", dir, "--json"]),
            ("list --stats", &["list", dir, "--stats"]),
            ("list --stats --json", &["list", dir, "--stats", "--json"]),
            ("show", &["show", file]),
            ("show --json", &["show", file, "--json"]),
            ("show --html", &["show", file, "--html", "-"]),
        ];
        for (name, arguments) in commands {
            let output = Command::new(forensics()).args(arguments).output().unwrap();
            assert_eq!(output.stderr, b"", "{name}");
            let said = String::from_utf8(output.stdout).unwrap();
            if name.ends_with("--json") {
                serde_json::from_str::<serde_json::Value>(&said).expect(name);
            }
            if matches!(name, "last" | "list") || name.ends_with("--json") {
                assert_eq!(said.matches('\n').count(), 1, "{name}: {said}");
            }
            outputs.push((name, said));
        }
        for (_, text) in &outputs {
            assert_tame(text);
        }
        for line in stderr.lines() {
            // The time comes first.
            assert!(line.starts_with("20") && line.contains("shutdown: "), "{line}");
        }
        outputs
    }
}

/// A sender that runs until its input ends, so that it can be inspected.
fn hostile_sender(pid: u32, argv0: &OsStr, name: &[u8], arguments: &[&OsStr]) -> Child {
    let mut sender = Command::new(env!("CARGO_BIN_EXE_hostile_sender"));
    sender.arg0(argv0).arg(pid.to_string()).arg(OsStr::from_bytes(name)).args(arguments);
    sender.stdin(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_sender_whose_name_and_arguments_are_hostile_stays_in_its_fields_everywhere() {
    let names: [&[u8]; 5] = [
        b"\x1b[2J\x1b]0;x\x07\n",
        "\u{9b}31m\u{202e}\u{200b}".as_bytes(),
        b"x cause=systemd",
        b"\xff\xfe\") S 1 (",
        "\u{3164}\u{2800}\u{e0041}".as_bytes(),
    ];
    for name in names {
        let place = Place::new();
        let gateway = place.gateway();
        // An argument cannot contain a NUL, and has at most 128 KiB.
        let hostile = HOSTILE.replace('\0', "");
        let (argv0, long) = (OsStr::from_bytes(b"\x1b[2J\xff\n x=1"), hostile.repeat(1000));
        let arguments = [OsStr::new(&hostile), OsStr::new(&long), OsStr::new(&long)];
        let mut sender = hostile_sender(gateway.pid(), argv0, name, &arguments);
        gateway.wait_for_stderr("Shutdown context: ");

        // While the sender runs, because this inspects it.
        let pid = sender.id().to_string();
        for arguments in [
            &["context", "--pid", &pid][..],
            &["context", "--json", "--pid", &pid],
            &["diag", "--pid", &pid],
        ] {
            let output = Command::new(forensics()).args(arguments).output().unwrap();
            assert_eq!(output.stderr, b"");
            assert_tame(&String::from_utf8(output.stdout).unwrap());
        }
        let ended = gateway.wait();
        drop(sender.stdin.take());
        assert!(sender.wait().unwrap().success());
        ended.assert_well(0);

        let (_, line) = ended.line("Shutdown context: ").split_once("Shutdown context: ").unwrap();
        let fields = logfmt::parse(line).unwrap();
        let field = |key: &str| {
            let values: Vec<_> = fields.iter().filter(|(name, _)| name == key).collect();
            assert!(values.len() <= 1, "{line}");
            values.first().map(|(_, value)| value.as_str())
        };
        let shown = String::from_utf8_lossy(&name[..name.len().min(15)]);
        assert_eq!(field("sender_name"), Some(&*shown));
        assert_ne!(field("cause"), Some("systemd"), "{line}");
        place.outputs(&ended.stderr);
        let record = Record::read(&place.record()).unwrap();
        assert_eq!((record.corrupt, record.torn), (0, false));
        let sender = record.entries.iter().find_map(|entry| match &entry.event {
            Event::Signal(signal) => signal.sender_name.as_deref(),
            _ => None,
        });
        assert_eq!(sender, Some(&*shown));
        place.notified().iter().for_each(|told| assert_tame(told));
        // Reading it has a time limit, which a busy machine can exceed.
        let Some(cmdline) = field("sender_cmdline") else { continue };
        assert!(
            cmdline.starts_with("\u{1b}[2J\u{fffd}\n x=1 ") && cmdline.ends_with('…'),
            "{line}"
        );
        assert_eq!(cmdline.chars().count(), MAX_CMDLINE_CHARS);
    }
}

#[test]
fn what_a_service_says_about_itself_stays_in_its_field_in_every_output() {
    for log in ["concise", "plain"] {
        let place = Place::new();
        let ended = place.outspoken(log, "request", &[]).wait();
        assert_eq!(ended.code(), 1, "{}", ended.stderr);
        let outputs = place.outputs(&ended.stderr);

        let phases = |text: &str, key: &str| -> Vec<String> {
            let lines = text.lines().filter(|line| line.contains("phase finished"));
            let found = lines.filter_map(|line| Some(line.split_once(&format!(" {key}="))?.1));
            found.map(|rest| rest.split(' ').next().unwrap().to_owned()).collect()
        };
        // `outcome=ok` is also in the names of phases, but never as an unquoted field.
        assert_eq!(phases(&ended.stderr, "took").len(), 4, "{}", ended.stderr);
        for (name, text) in &outputs {
            let most = if name.starts_with("show --") { 4 << 20 } else { 1 << 20 };
            assert!(text.len() < most, "{name}: {} bytes", text.len());
        }

        let record = Record::read(&place.record()).unwrap();
        assert_eq!((record.corrupt, record.torn), (0, false));
        let finished = record.entries.iter().filter_map(|entry| match &entry.event {
            Event::PhaseFinished(finished) => Some(finished),
            _ => None,
        });
        let finished: Vec<_> = finished.collect();
        let outcomes: Vec<_> = finished.iter().map(|phase| phase.outcome).collect();
        let expected = [
            PhaseOutcome::Failed,
            PhaseOutcome::Panicked,
            PhaseOutcome::Panicked,
            PhaseOutcome::Skipped,
        ];
        assert_eq!(outcomes, expected);
        assert_eq!(finished[0].phase, format!("first {HOSTILE}"));
        assert_eq!(finished[0].values[HOSTILE], HOSTILE);
        assert!(finished[0].error.as_deref().unwrap().ends_with('…'));
        assert_eq!(PostMortem::of(&place.record()).unwrap().exit_code, Some(1));

        for told in place.notified() {
            assert_tame(&told);
            assert!(told.len() < 4096 + "STATUS=".len() && !told.contains('\n'), "{told}");
        }
    }
}

#[test]
fn the_last_words_of_a_stalled_service_are_safe_to_show_and_contain_no_secret() {
    let place = Place::new();
    let secrets = ["--password", "my hunter2", "postgres://ops:hunter2@db/x", "TOKEN=hunter2"];
    let program = place.outspoken("concise", "block", &secrets);
    program.wait_for_stdout("ready");
    // The service's own status. The guard's status replaces it later.
    let mut told = Vec::new();
    until("the status is sent", || {
        told.extend(place.notified());
        told.iter().any(|told| told.starts_with("STATUS=a\\nb"))
    });
    let arguments = secrets.map(OsStr::new);
    let mut sender = hostile_sender(program.pid(), OsStr::new("sender"), b"sender", &arguments);
    let ended = program.wait();
    drop(sender.stdin.take());
    sender.wait().unwrap();
    assert_eq!(ended.code(), 70, "{}", ended.stderr);
    for said in ["Shutdown stalled: ", "Shutdown forced: "] {
        let line = ended.line(said);
        assert!(line.contains(r#"phase "blocks a\nb"#), "{line}");
        assert_tame(line);
    }
    let mut outputs = vec![
        ("log", ended.stderr.clone()),
        ("record", fs::read_to_string(place.record()).unwrap()),
        ("diagnostic", fs::read_to_string(place.path("diag.log")).unwrap()),
        ("status", [told, place.notified()].concat().join("\n")),
    ];
    let record = place.record();
    for more in [&[][..], &["--json"], &["--html", "-"]] {
        let shown = Command::new(forensics()).arg("show").arg(&record).args(more).output().unwrap();
        outputs.push(("show", String::from_utf8(shown.stdout).unwrap()));
    }
    for (name, text) in outputs {
        assert!(!text.contains("hunter2"), "{name}: {text}");
        assert_tame(&text);
    }
    let record = Record::read(&record).unwrap();
    let cmdline = record.start.cmdline.unwrap();
    assert!(cmdline.ends_with("--password *** postgres://ops:***@db/x TOKEN=***"), "{cmdline}");
    assert!(record.entries.iter().any(|entry| matches!(entry.event, Event::Stalled(_))));
    assert!(ended.line("Shutdown context").contains("--password *** postgres://ops:***@db/x"));
}

#[test]
fn secrets_are_in_no_context_and_no_diagnostic_of_the_command_line() {
    let mut child = Command::new("sh")
        .args([
            "-c",
            "read -r _",
            "x",
            "--token",
            "my hunter2",
            "amqp://u:hunter2@h1,amqp://u:hunter2@h2",
        ])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id().to_string();
    for command in [&["context", "--json", "--pid", &pid][..], &["diag", "--pid", &pid]] {
        let output = Command::new(forensics()).args(command).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains("amqp://u:***@h1,amqp://u:***@h2"), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
    drop(child.stdin.take());
    child.wait().unwrap();
}

#[test]
fn a_child_of_ours_has_only_its_own_three_descriptors() {
    let place = Place::new();
    let program = place.outspoken("concise", "descriptors", &[]);
    program.wait_for_stdout("ready");
    program.kill("-TERM");
    program.wait();
    let log = fs::read_to_string(place.path("diag.log")).unwrap();
    // Descriptors that this test itself inherited are not the guard's. Neither is the folder that
    // ls reads.
    let listed =
        Command::new("ls").args(["-l", "/proc/self/fd"]).stdin(Stdio::null()).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let [ours, anybodys] = [descriptors(&log), descriptors(&listed)];
    let diag_log = place.path("diag.log").to_str().unwrap().to_owned();
    // Its input is an empty pipe, because there may be no /dev/null.
    assert!(ours[&0].starts_with("pipe:"), "{log}");
    assert_eq!([&ours[&1], &ours[&2]], [&diag_log, &diag_log], "{log}");
    let beyond = |all: &BTreeMap<u32, String>| all.keys().copied().skip(3).collect::<Vec<_>>();
    assert_eq!(beyond(&ours), beyond(&anybodys), "{log}\n{listed}");
}

/// The descriptors in the output of `ls -l /proc/self/fd`, and their targets.
fn descriptors(listed: &str) -> BTreeMap<u32, String> {
    let links = listed.lines().filter_map(|line| {
        let (before, target) = line.split_once(" -> ")?;
        Some((before.rsplit(' ').next()?.parse().ok()?, target.to_owned()))
    });
    links.collect()
}

/// A folder of another user. `None`, with a message, if we cannot change its owner.
fn his(place: &Place) -> Option<PathBuf> {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "must be run as root");
        eprintln!("skipped: only root can give a folder away");
        return None;
    }
    let folder = place.path("his");
    fs::create_dir(&folder).unwrap();
    chown(&folder, Some(65534), None).unwrap();
    Some(folder)
}

#[test]
fn where_others_could_interfere_there_is_a_warning_and_no_file_and_the_teardown_succeeds() {
    let place = Place::new();
    let Some(his) = his(&place) else { return };
    let open = place.path("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    let victim = place.path("victim");
    fs::write(&victim, "precious").unwrap();
    std::os::unix::fs::symlink(&victim, place.path("link")).unwrap();
    fs::hard_link(&victim, place.path("hard")).unwrap();
    nix::unistd::mkfifo(&place.path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let within = |folder: &Path| folder.join("x");
    let cases = [
        ("--records", his.clone(), "belongs to uid 65534, not to root; run `chown 0 "),
        ("--records", open.clone(), "(mode 0777) lets other users replace files; run `chmod go-w "),
        ("--records", place.path("link"), "cannot create the folder"),
        ("--diag-log", within(&his), "belongs to uid 65534, not to root; run `chown 0 "),
        (
            "--diag-log",
            within(&open),
            "(mode 0777) lets other users replace files; run `chmod go-w ",
        ),
        ("--diag-log", place.path("link"), "not a symbolic link"),
        ("--diag-log", place.path("hard"), "2 hard links"),
        ("--diag-log", place.path("fifo"), "is not a regular file; remove it"),
    ];
    for (option, path, why) in cases {
        let mut command = Command::new(example("gateway"));
        let gateway = Program::start(command.arg(option).arg(&path));
        gateway.wait_for_stdout("listening on");
        gateway.kill("-TERM");
        let ended = gateway.wait();
        ended.assert_well(1);
        let said = if option == "--records" {
            "Not all of this run is recorded"
        } else {
            "No diagnostic can be written"
        };
        let warning = ended.line(said);
        assert!(warning.contains(why) && warning.contains(" WARN "), "{warning}");
    }
    for folder in [&his, &open] {
        assert_eq!(fs::read_dir(folder).unwrap().count(), 0);
    }
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
}
