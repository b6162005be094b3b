//! Asks the audit log who sent the signals of a run.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use forensics_core::escape::Escaped;
use forensics_core::record::{
    AUDIT_LOGS, AuditQuery, Run, SentSignal, audit_journal_arguments, senders_in,
    senders_in_journal,
};

use crate::program::output;

/// How long a recent event may take until it is in the log.
const LOG_DELAY: Duration = Duration::from_secs(1);

/// The senders of the signals of a run that its record does not name. `has_just_ended` says that the
/// log may not have that yet. Without `file`, the usual logs are searched, and then the journal.
pub(crate) fn senders(run: &Run, has_just_ended: bool, file: Option<&Path>) -> Vec<SentSignal> {
    let Some(query) = AuditQuery::of(&run.record, run.has_no_end()) else { return Vec::new() };
    let logs = file.map_or_else(|| AUDIT_LOGS.map(Path::new).to_vec(), |file| vec![file]);
    let is_recent = has_just_ended || query.is_recent();
    let began = Instant::now();
    loop {
        let found = senders_in(&query, &logs);
        if let (None, Some(file)) = (&found, file) {
            let file = Escaped(&file.display().to_string()).to_string();
            eprintln!("forensics: cannot read the audit log {file}");
        }
        let Some(found) = found else { break };
        if !found.is_empty() {
            return found;
        }
        if !is_recent || began.elapsed() > LOG_DELAY {
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    if file.is_some() {
        return Vec::new();
    }
    let said = output("journalctl", &audit_journal_arguments(&query));
    said.map(|said| senders_in_journal(&query, &said)).unwrap_or_default()
}
