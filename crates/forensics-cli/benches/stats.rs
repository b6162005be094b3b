//! `forensics list --stats` over many records, compared with jq(1) counting the same.

#![forbid(unsafe_code)]

mod measure;

use std::error::Error;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use forensics_core::context::{ShutdownContext, StartupInfo};
use forensics_core::record::{
    Event, ExitKind, PhaseFinished, PhaseOutcome, PhaseStarted, Recorder, RunStarted, SignalEvent,
    SignalKind, Stopped,
};
use measure::{clock, median};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The same figures without percentiles: the time of each phase, the causes and the ends.
const JQ: &str = r#"
reduce inputs as $e ({};
  if $e.event == "phase_finished" then .took[$e.phase][$e.took_us | tostring] += 1
  elif $e.event == "signal" then .causes[$e.cause] += 1
  elif $e.event == "stopped" then .ends[$e.how] += 1
  else . end)
| .took |= map_values(keys | map(tonumber) | sort | [.[length / 2 | floor], .[-1]])
"#;

fn main() -> Result<()> {
    measure::title("Over many records (`cargo bench -p forensics-cli --bench stats`)");
    let mut points = Vec::new();
    for (records, trials) in [(100, 20), (1_000, 10), (10_000, 5)] {
        let dir = tempfile::tempdir()?;
        write(dir.path(), records)?;
        stats(dir.path())?;
        jq(dir.path())?;
        let [ours, theirs] = measure::in_turns(
            trials,
            [&mut || clock(|| stats(dir.path())), &mut || clock(|| jq(dir.path()))],
        );
        let what = format!("`list --stats`, {records} records");
        if records < 10_000 {
            measure::report_ratio(&what, median(&ours), "jq", median(&theirs));
        } else {
            measure::ratio(&what, median(&ours), "jq", median(&theirs), 0.1);
        }
        points.push((records as f64, median(&ours)));
    }
    measure::report_growth("`list --stats`", "record", &points);
    Ok(())
}

/// Records of runs that were stopped by systemd, four phases each.
fn write(dir: &Path, records: u64) -> Result<()> {
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))?;
    let context = ShutdownContext::snapshot(&StartupInfo::collect());
    for n in 0..records {
        let run = Recorder::create(dir, RunStarted::new("gateway", std::process::id()))?;
        let mut signal = SignalEvent::new(SignalKind::Signal, 1, "systemd");
        signal.signal = Some("SIGTERM".to_owned());
        (signal.sender_pid, signal.sender_name) = (Some(1), Some("systemd".to_owned()));
        signal.line = context.to_string();
        signal.context = serde_json::to_value(&context)?;
        run.record(&Event::Signal(signal))?;
        for (place, phase) in (0..).zip(["notify", "drain", "adapters", "db_close"]) {
            run.record(&Event::PhaseStarted(PhaseStarted::new(phase, place * 1000)))?;
            let took = 1000 * (place + 1) + n;
            let ended = PhaseFinished::new(phase, PhaseOutcome::Ok, took, place * 1000 + took);
            run.record(&Event::PhaseFinished(ended))?;
        }
        run.record(&Event::Stopped(Stopped::new(ExitKind::Clean, 0, 10_000 + n)))?;
    }
    Ok(())
}

fn stats(dir: &Path) -> Result<()> {
    let mut list = Command::new(env!("CARGO_BIN_EXE_forensics"));
    list.arg("list").arg(dir).arg("--stats");
    succeed(&mut list)
}

/// Through xargs(1) and cat(1), because a command line cannot hold so many names.
fn jq(dir: &Path) -> Result<()> {
    let line = "find . -name '*.jsonl' -print0 | xargs -0 cat | jq -n \"$JQ\"";
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).env("JQ", JQ).current_dir(dir);
    succeed(&mut shell)
}

fn succeed(command: &mut Command) -> Result<()> {
    if command.stdout(Stdio::null()).status()?.success() {
        Ok(())
    } else {
        Err(format!("{command:?} failed").into())
    }
}
