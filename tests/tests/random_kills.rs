//! SIGKILL at random instants of a real teardown. The record must name the phase that was running.
//! The output of the program, which is independent of the record, says which phase that was.

#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use forensics_tokio::core::record::{PostMortem, RunOutcome};

const KILLS: u64 = 200;

/// The shortest time of four phases of 5 ms each.
const TEARDOWN: Duration = Duration::from_millis(20);

/// The phases that the record may name. The program writes to the pipe and the record one after the
/// other, so between the two writes they differ by one step.
fn allowed(said: &str) -> Vec<String> {
    const PHASES: [&str; 4] = ["notify", "drain", "adapters", "db_close"];
    let after = |phase: Option<&str>| format!("after {}", phase.unwrap_or("nothing"));
    let next = |phase: &str| {
        let at = PHASES.iter().position(|one| *one == phase).unwrap();
        PHASES.get(at + 1).map(|next| (*next).to_owned())
    };
    match said.lines().last() {
        // No output yet: before the first phase, or in it.
        None => vec![after(None), "notify".to_owned()],
        Some("end") => vec!["ended".to_owned()],
        Some(line) if line.starts_with('+') => vec![line[1..].to_owned()],
        // The phase has printed its end. In the record it may be running or ended, or the next
        // phase may be running, which has not printed its start yet.
        Some(line) => {
            let phase = &line[1..];
            let mut allowed = vec![phase.to_owned(), after(Some(phase))];
            allowed.push(next(phase).unwrap_or_else(|| "ended".to_owned()));
            allowed
        }
    }
}

fn named(verdict: &PostMortem) -> String {
    match verdict.outcome {
        RunOutcome::KilledInPhase => match verdict.phases.first() {
            Some(open) => open.phase.clone(),
            None => format!("after {}", verdict.after_phase.as_deref().unwrap()),
        },
        RunOutcome::KilledBeforeTeardown | RunOutcome::Vanished => "after nothing".to_owned(),
        RunOutcome::Clean => "ended".to_owned(),
        other => panic!("{other}: {verdict}"),
    }
}

/// When the delay of a kill begins.
#[derive(Debug, Clone, Copy, PartialEq)]
enum From {
    Start,
    /// The first output, which is from the first phase.
    FirstWord,
}

/// Runs a teardown and kills it after `delay`. Returns its output and the post-mortem.
fn kill_after(delay: Duration, from: From, records: &Path) -> (String, Option<PostMortem>) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_killed"))
        .arg(records)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut said = String::new();
    if from == From::FirstWord {
        stdout.read_line(&mut said).unwrap();
    }
    let started = Instant::now();
    while started.elapsed() < delay {
        thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    stdout.read_to_string(&mut said).unwrap();
    let verdict = records.exists().then(|| PostMortem::of_last(records).unwrap()).flatten();
    (said, verdict)
}

/// A random number from 0 to 1. It differs between runs of the test.
fn random(nth: u64) -> f64 {
    static RUN: OnceLock<RandomState> = OnceLock::new();
    let bits = RUN.get_or_init(RandomState::new).hash_one(nth);
    bits as f64 / u64::MAX as f64
}

#[test]
fn the_phase_in_which_a_run_was_killed_is_named_each_time() {
    // The duration of a run without a kill, so that the kills are spread over it.
    let dir = tempfile::tempdir().unwrap();
    let started = Instant::now();
    let whole = Command::new(env!("CARGO_BIN_EXE_killed")).arg(dir.path().join("r")).output();
    assert!(whole.unwrap().status.success());
    let whole = started.elapsed();

    let mut in_phases = 0;
    for kill in 0..KILLS {
        let dir = tempfile::tempdir().unwrap();
        let records = dir.path().join("records");
        // Every other kill comes after the beginning of the teardown, however long the start takes.
        let (from, longest) = match kill % 2 {
            0 => (From::Start, whole),
            _ => (From::FirstWord, TEARDOWN),
        };
        let delay = longest.mul_f64(random(kill));
        let (said, verdict) = kill_after(delay, from, &records);
        let named = verdict.as_ref().map_or_else(|| "after nothing".to_owned(), named);
        let allowed = allowed(&said);
        assert!(
            allowed.contains(&named),
            "{delay:?} after {from:?} it had said {said:?}; record: {named}, of {allowed:?}"
        );
        in_phases += usize::from(said.starts_with('+') && !said.ends_with("end\n"));
    }
    eprintln!("{KILLS} kills within {whole:?}, {in_phases} of them inside the teardown");
    assert!(in_phases > 20, "too few of the kills fell into the teardown: {in_phases}");
}
