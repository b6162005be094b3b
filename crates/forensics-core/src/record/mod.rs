//! The record, one JSON Lines file per run, and the post-mortem that is made from it.
//!
//! The log of a service that is killed during its teardown just stops. Its record is complete up to
//! that moment, because each event is written before the next step begins. The next start reads it
//! and says in which phase the run was killed, after how long, and what to change.
//!
//! [`PostMortem::of_last`] reads how the last run ended. The format of the file is stable;
//! `docs/record-fields.md` describes every event and field. The types that write it are hidden, because
//! only `forensics-tokio` needs them.
//!
//! ```
//! use forensics_core::record::*;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let tmp = tempfile::tempdir()?;
//! # let dir = tmp.path().join("shutdown");
//! # let run = Recorder::create(&dir, RunStarted::new("gateway", std::process::id()))?;
//! # run.record(&Event::PhaseStarted(PhaseStarted::new("drain", 0)))?;
//! # drop(run); // as a SIGKILL would
//! if let Some(run) = PostMortem::of_last(&dir)? {
//!     assert_eq!(run.outcome, RunOutcome::KilledInPhase);
//!     assert_eq!(run.phases[0].phase, "drain");
//! }
//! # prune(&dir, "gateway", DEFAULT_RETENTION)?;
//! # Ok(())
//! # }
//! ```

mod append;
mod audit;
mod check;
mod digest;
mod entry;
mod event;
mod explain;
mod few;
mod folder;
mod identity;
mod lock;
mod phase;
mod post_mortem;
mod reader;
mod run;
mod shorten;
mod summary;
mod utc;
mod verdict;
mod witness;
mod writer;

pub use crate::access::AccessError;
pub use event::{ExitKind, ForcedBy};
pub use folder::runs;
pub use phase::{PhaseFinished, PhaseOutcome};
pub use post_mortem::{OpenPhase, PostMortem, Reason, RunOutcome, SignalSender};
pub use reader::{ReadError, Record};
pub use utc::Utc;

#[doc(hidden)]
pub use self::{
    append::{AppendError, append_witness},
    audit::{
        AUDIT_KEY, AUDIT_LOGS, AuditQuery, AuditSearch, SentSignal, audit_journal_arguments,
        is_signal_call, senders_in, senders_in_journal,
    },
    check::{HostState, OomLog, post_mortem},
    digest::Digest,
    entry::{Entry, VERSION},
    event::{
        DeadlineMoved, Diag, DiagState, Event, Explained, RunStarted, SignalEvent, SignalKind,
        Stalled, StalledWhat, Stopped, Unknown, Witness,
    },
    folder::{DEFAULT_RETENTION, ForeignRecords, prune},
    identity::{Place, ProcessState},
    phase::{PhaseProgress, PhaseStarted, value_field, values_line},
    post_mortem::phase_name,
    reader::{ContentError, MAX_RECORD, RecordFile},
    run::{Before, Run},
    shorten::MAX_LINE,
    utc::ParseUtcError,
    witness::{
        ContainerEnd, InspectError, UnitAction, UnitEnd, journal_arguments, parse_inspect,
        parse_journal,
    },
    writer::{Loss, RecordError, Recorder},
};
#[doc(hidden)]
pub use crate::basis::{Basis, Source};
