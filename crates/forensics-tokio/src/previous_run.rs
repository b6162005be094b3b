//! Asks witnesses how the previous run ended, if its record does not say.
//!
//! The start reports the previous run at once, from its record. If systemd ran it and it recorded no
//! end, this asks journalctl(1) for the messages of the manager, in the background and with a time
//! limit. The audit log is asked who sent a signal whose sender the record lacks. If they say more, a
//! second line reports it, and the record of that run keeps it. A service may read the journal only as
//! root, or as a member of the group systemd-journal, and the log of auditd usually as root only.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use forensics_core::record::{
    AUDIT_LOGS, AuditQuery, Run, SentSignal, Witness, append_witness, audit_journal_arguments,
    journal_arguments, parse_journal, senders_in, senders_in_journal,
};
use tokio::process::Command;

use crate::blocking::off_runtime;
use crate::shutdown::Shutdown;
use crate::{events, systemctl};

/// How long journalctl may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Whether a witness may say more about the end of a run, or about who stopped it.
pub(crate) fn has_questions(run: &Run) -> bool {
    run.may_be_in_journal() || AuditQuery::of(&run.record, run.has_no_end()).is_some()
}

/// Asks witnesses about a run. Logs what they say, and adds it to the record of the run.
pub(crate) async fn ask_witnesses(shutdown: Arc<Shutdown>, mut run: Run) {
    let mut witnesses = Vec::new();
    if run.may_be_in_journal() {
        witnesses.extend(ask_manager(&run).await);
    }
    witnesses.extend(ask_audit_log(&run).await.iter().map(Witness::from));
    if witnesses.is_empty() {
        return;
    }
    witnesses.iter().for_each(|witness| run.add(witness));
    let post_mortem = run.post_mortem.clone();
    shutdown.log.emit(move || events::previous_explained(&post_mortem));
    // A disk may block. If the record cannot be written to, the log still has it.
    let append = move || witnesses.iter().for_each(|witness| drop(append_witness(&run, witness)));
    let _ = off_runtime(append).await;
}

/// Asks the journal for the messages of the manager.
async fn ask_manager(run: &Run) -> Option<Witness> {
    let output = journalctl(&journal_arguments(&run.record.start)?).await?;
    Some(Witness::from(&parse_journal(&output, &run.record.start)?))
}

/// Asks auditd's log, and then the journal.
async fn ask_audit_log(run: &Run) -> Vec<SentSignal> {
    let Some(query) = AuditQuery::of(&run.record, run.has_no_end()) else { return Vec::new() };
    let asked = query.clone();
    let search = move || senders_in(&asked, &AUDIT_LOGS.map(Path::new)).unwrap_or_default();
    let found = off_runtime(search).await.unwrap_or_default();
    if !found.is_empty() {
        return found;
    }
    let output = journalctl(&audit_journal_arguments(&query)).await;
    output.map(|output| senders_in_journal(&query, &output)).unwrap_or_default()
}

async fn journalctl(arguments: &[String]) -> Option<String> {
    let configure = |command: &mut Command, _| {
        command.args(arguments);
    };
    systemctl::run("journalctl", ANSWER_LIMIT, configure).await.ok()
}
