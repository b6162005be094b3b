//! Asks the journal how the previous run ended, if its record does not say.
//!
//! The start reports the previous run at once, from its record. If systemd ran it and it recorded no
//! end, this asks journalctl(1) for the messages of the manager, in the background and with a time
//! limit. If they say more, a second line reports it, and the record of that run keeps it. A service
//! may read the journal only as root, or as a member of the group systemd-journal.

use std::time::Duration;

use forensics_core::record::{Run, Witness, append_witness, journal_arguments, parse_journal};

use tokio::process::Command;

use crate::blocking::off_runtime;
use crate::{events, systemctl};

/// How long journalctl may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Asks the journal about a run. Logs what it says, and adds it to the record of the run.
pub(crate) async fn ask_journal(mut run: Run) {
    let Some(arguments) = journal_arguments(&run.record.start) else { return };
    let configure = |command: &mut Command, _| {
        command.args(&arguments);
    };
    let Ok(said) = systemctl::run("journalctl", ANSWER_LIMIT, configure).await else { return };
    let Some(end) = parse_journal(&said, &run.record.start) else { return };
    let witness = Witness::from(&end);
    run.add(&witness);
    events::previous_explained(&run.post_mortem);
    // A disk may block. If the record cannot be written to, the log still has it.
    let _ = off_runtime(move || drop(append_witness(&run, &witness))).await;
}
