//! The pieces of work whose cost is bounded: see `tests/cost.rs`.

use std::error::Error;
use std::sync::Mutex;

use forensics_tokio::core::capture::Signal;
use forensics_tokio::core::capture::{self, SignalInfo};
use forensics_tokio::core::context::{ShutdownContext, StartupInfo, Trigger};
use forensics_tokio::core::duration::{ParseError, Timespan, parse};
use forensics_tokio::core::record::{
    Event, PhaseFinished, PhaseOutcome, RecordError, Recorder, RunStarted,
};
use nix::sys::signal::{Signal as Nix, kill};
use nix::unistd::Pid;

/// The inputs of the pieces of work.
#[derive(Debug)]
pub struct Subjects {
    startup: StartupInfo,
    captured: SignalInfo,
    recorder: Recorder,
    event: Event,
    _dir: tempfile::TempDir,
}

impl Subjects {
    /// Captures a signal that this process sends itself, and creates a record.
    ///
    /// # Errors
    /// If the signal cannot be captured or the record cannot be created.
    pub fn prepare() -> Result<Self, Box<dyn Error>> {
        /// Handlers and captured signals belong to the whole process. Two tests at once would take
        /// each other's signals, and one would wait forever.
        static TURN: Mutex<()> = Mutex::new(());
        let startup = StartupInfo::collect();
        let turn = TURN.lock();
        let guard = capture::install(&[Signal::TERM])?;
        kill(Pid::this(), Nix::SIGTERM)?;
        let captured = loop {
            capture::wait(None);
            if let Some(captured) = capture::drain().pop() {
                break captured;
            }
        };
        drop((guard, turn));
        let dir = tempfile::tempdir()?;
        let recorder = Recorder::create(dir.path(), RunStarted::new("cost", std::process::id()))?;
        let mut finished = PhaseFinished::new("drain", PhaseOutcome::Ok, 1_100_234, 1_103_832);
        finished.values.insert("active_at_start".to_owned(), 7.into());
        let event = Event::PhaseFinished(finished);
        Ok(Self { startup, captured, recorder, event, _dir: dir })
    }

    /// How many ancestors of the sender are read. Each is one file.
    pub fn ancestors(&self) -> u64 {
        let context = context(self);
        context.sender.map_or(0, |sender| sender.ancestors.len() as u64)
    }
}

fn context(subjects: &Subjects) -> ShutdownContext {
    let trigger = Trigger::Signal { signal: Signal::TERM };
    ShutdownContext::capture(&subjects.startup, trigger, Some(&subjects.captured))
}

/// Captures the context of a signal and formats its line.
pub fn context_and_line(subjects: &Subjects) -> String {
    context(subjects).to_string()
}

/// Writes the end of a phase into a record.
///
/// # Errors
/// If it was not written.
pub fn event_recorded(subjects: &Subjects) -> Result<(), RecordError> {
    subjects.recorder.record(&subjects.event)
}

/// Parses a time span.
///
/// # Errors
/// Never, because the text is valid.
pub fn timespan_read() -> Result<Timespan, ParseError> {
    parse(std::hint::black_box("1h 30min 5.5s"))
}
