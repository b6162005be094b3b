//! Records of processes that really die.
//!
//! The processes run this test's own binary: each runs one of the ignored tests, which is a minimal
//! service.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests, too")]

use std::env;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use forensics_core::record::{
    Event, PhaseStarted, PostMortem, Record, RecordError, RecordFile, Recorder, RunOutcome,
    RunStarted, SignalEvent, SignalKind, prune, runs,
};

const DIR: &str = "FORENSICS_TEST_DIR";

/// Starts a process that runs the ignored test `life`, with its records in `dir`.
fn command(life: &str, dir: &Path) -> Command {
    let mut command = Command::new("sh");
    // With SIGXFSZ ignored, a write beyond the limit that some commands below set fails and does
    // not kill.
    command.args(["-c", "trap '' XFSZ; ulimit -f \"$1\"; shift; exec \"$@\"", "sh"]);
    command.arg(if life == "life_on_a_full_disk" { "8" } else { "unlimited" });
    command.arg(env::current_exe().unwrap()).args([life, "--exact", "--ignored", "--nocapture"]);
    command.env(DIR, dir);
    command
}

/// A service that is in its phase `drain` until it is killed.
struct Service {
    child: Child,
    record: PathBuf,
    /// Also inherited by the service's own child, which ends when this is closed.
    stdin: Option<ChildStdin>,
}

impl Service {
    fn start(dir: &Path) -> Self {
        let mut command = command("life_in_a_phase", dir);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let record = lines
            .map(|line| line.unwrap())
            .find_map(|line| Some(PathBuf::from(line.split_once("record=")?.1)))
            .unwrap();
        let stdin = child.stdin.take();
        Self { child, record, stdin }
    }

    /// Kills the service. The process that it started continues to run.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        assert!(self.stdin.is_some());
    }
}

#[test]
#[ignore = "run as a separate process by the tests below"]
fn life_in_a_phase() {
    let dir = env::var_os(DIR).unwrap();
    let run =
        Recorder::create(Path::new(&dir), RunStarted::new("svc", std::process::id())).unwrap();
    run.record(&Event::Signal(SignalEvent::new(SignalKind::Request, 1, "requested"))).unwrap();
    run.record(&Event::PhaseStarted(PhaseStarted::new("drain", 0))).unwrap();
    let mut diagnostic = Command::new("cat").stdout(Stdio::null()).spawn().unwrap();
    println!("record={}", run.path().display());
    diagnostic.wait().unwrap();
}

#[test]
#[ignore = "run as a separate process by the tests below"]
fn life_on_a_full_disk() {
    let dir = env::var_os(DIR).unwrap();
    let run =
        Recorder::create(Path::new(&dir), RunStarted::new("svc", std::process::id())).unwrap();
    let event = Event::PhaseStarted(PhaseStarted::new("x".repeat(100), 0));
    let errors: Vec<_> = (0..200).filter_map(|_| run.record(&event).err()).collect();
    // A part of the last line fits, then nothing.
    assert!(matches!(errors[0], RecordError::Short { .. }), "{}", errors[0]);
    assert!(
        errors[1..]
            .iter()
            .all(|error| matches!(error, RecordError::System { action: "write to", .. }))
    );
    assert!(errors.len() > 1);
}

#[test]
fn services_share_a_folder_and_a_kill_unlocks_the_record_even_if_a_child_lives() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("records");
    let (mut first, mut second) = (Service::start(&dir), Service::start(&dir));
    assert_eq!(runs(&dir).unwrap().len(), 2);
    let is_running =
        |service: &Service| RecordFile::open(&service.record).unwrap().host().unwrap().locked;
    assert!(is_running(&first) && is_running(&second));
    assert_eq!(prune(&dir, "svc", 0).unwrap(), 0);
    let judge = |service: &Service| {
        let run = PostMortem::of(&service.record).unwrap();
        (run.outcome, run.phases[0].phase.clone(), run.pid == service.child.id())
    };
    assert_eq!(judge(&first), (RunOutcome::Running, "drain".to_owned(), true));

    first.kill();
    assert_eq!(judge(&first), (RunOutcome::KilledInPhase, "drain".to_owned(), true));
    assert_eq!(judge(&second).0, RunOutcome::Running);
    assert_eq!(prune(&dir, "svc", 0).unwrap(), 1);
    assert_eq!(runs(&dir).unwrap(), [second.record.clone()]);
    second.kill();
    assert_eq!(prune(&dir, "svc", 0).unwrap(), 1);
}

#[test]
fn a_disk_that_fills_up_loses_only_the_lines_that_did_not_fit() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("records");
    let mut life = command("life_on_a_full_disk", &dir).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = String::new();
    life.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    assert!(life.wait().unwrap().success(), "{output}");
    let [path] = &runs(&dir).unwrap()[..] else { panic!("{output}") };
    let record = Record::read(path).unwrap();
    assert!(record.torn && record.corrupt == 0 && record.entries.len() > 10, "{record:?}");
    assert_eq!(PostMortem::of(path).unwrap().outcome, RunOutcome::KilledInPhase);
}
