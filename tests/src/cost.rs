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

/// What they need to begin with.
#[derive(Debug)]
pub struct Subjects {
    startup: StartupInfo,
    captured: SignalInfo,
    recorder: Recorder,
    event: Event,
    _dir: tempfile::TempDir,
}

impl Subjects {
    /// Takes a signal from this process to itself, and begins a record.
    ///
    /// # Errors
    /// Where either cannot be had.
    pub fn prepare() -> Result<Self, Box<dyn Error>> {
        /// Handlers and what they took down are the whole process's: two tests at once would take each
        /// other's signal, and one would wait for ever.
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

    /// How many ancestors of the sender are looked at: each is a file to read.
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
/// Where it was not written.
pub fn event_recorded(subjects: &Subjects) -> Result<(), RecordError> {
    subjects.recorder.record(&subjects.event)
}

/// Reads a time span.
///
/// # Errors
/// None, as it is one.
pub fn timespan_read() -> Result<Timespan, ParseError> {
    parse(std::hint::black_box("1h 30min 5.5s"))
}
