//! The black box: what a run did, written as it happens, and how it died, judged afterwards.
//!
//! A service that is killed in its teardown leaves a log that just stops. Its record does not
//! stop with it: every event is with the kernel before the next thing happens, so that the next
//! start can say which phase it was in, for how long, and what to change. One JSON Lines file a
//! run, described field by field in `docs/records.md`.
//!
//! When to write, on which thread, and what to do when the disk is full is left to the caller,
//! as is how a record is shown.
//!
//! ```
//! use forensics_core::record::*;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let tmp = tempfile::tempdir()?;
//! # let dir = tmp.path().join("shutdown");
//! let run = Recorder::create(&dir, RunStarted::new("gateway", std::process::id()))?;
//! run.record(&Event::PhaseStarted(PhaseStarted::new("drain", 0)))?;
//! drop(run); // as a SIGKILL would
//!
//! // At the next start, before its own record is begun:
//! if let Some(path) = runs(&dir)?.last() {
//!     let verdict = verdict(&Record::read(path)?, &Now::look(path));
//!     assert_eq!(verdict.outcome, Outcome::KilledInPhase);
//!     assert_eq!(verdict.phases[0].phase, "drain");
//! }
//! prune(&dir, KEEP)?;
//! # Ok(())
//! # }
//! ```

mod entry;
mod event;
mod folder;
mod judge;
mod last;
mod phase;
mod reader;
mod reason;
mod seen;
mod shorten;
mod timespan_us;
mod verdict;
mod words;
mod writer;

pub use entry::{Entry, VERSION};
pub use event::{
    Diag, DiagState, Event, ForcedBy, How, RunStarted, Signal, SignalKind, Stopped, Unknown,
    Wedged, WedgedWhat,
};
pub use folder::{KEEP, is_running, prune, runs};
pub use judge::verdict;
pub use last::Run;
pub use phase::{
    PhaseFinished, PhaseOutcome, PhaseProgress, PhaseStarted, value_field, values_line,
};
pub use reader::{ContentError, MAX_RECORD, ReadError, Record};
pub use verdict::{Now, OpenPhase, Outcome, Reason, Sender, Verdict};
pub use writer::{RecordError, Recorder};

pub use crate::trusted::FolderError;
pub use shorten::MAX_LINE;
