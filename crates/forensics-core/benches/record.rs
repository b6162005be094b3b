//! The time to record an event, compared with write(2) of the same bytes to a file opened in the
//! same way.

#![forbid(unsafe_code)]

mod measure;

use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::Write;

use forensics_core::context::{ShutdownContext, StartupInfo};
use forensics_core::record::{
    Event, PhaseFinished, PhaseOutcome, Recorder, RunStarted, SignalEvent, SignalKind,
};
use measure::{clock, in_turns, median};

const TRIALS: usize = 5000;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let recorder = Recorder::create(dir.path(), RunStarted::new("gateway", std::process::id()))?;

    let mut finished = PhaseFinished::new("drain", PhaseOutcome::Ok, 1_100_234, 1_103_832);
    finished.values.insert("active_at_start".to_owned(), 7.into());
    finished.values.insert("active_now".to_owned(), 0.into());
    let context = ShutdownContext::snapshot(&StartupInfo::collect());
    let mut signal = SignalEvent::new(SignalKind::Signal, 1, "operator");
    signal.line = context.to_string();
    signal.context = serde_json::to_value(&context)?;

    measure::title("Record (`cargo bench -p forensics-core --bench record`)");
    for (name, event) in [
        ("an event recorded: a phase's end", Event::PhaseFinished(finished)),
        ("an event recorded: a signal with its context", Event::Signal(signal)),
    ] {
        recorder.record(&event)?;
        let text = fs::read(recorder.path())?;
        let line = text.split_inclusive(|&byte| byte == b'\n').next_back().ok_or("no line")?;
        let mut plain: File =
            OpenOptions::new().append(true).create(true).open(dir.path().join("plain"))?;
        let [ours, floor] = in_turns(
            TRIALS,
            [&mut || clock(|| recorder.record(&event)), &mut || clock(|| plain.write(line))],
        );
        let floor_is = format!("write(2) of its {} bytes", line.len());
        measure::report_ratio(name, median(&ours), &floor_is, median(&floor));
    }
    Ok(())
}
