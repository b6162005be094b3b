//! Asks the audit log who sent the signals of a run.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use forensics_core::record::{
    AUDIT_LOGS, AuditQuery, AuditSearch, Digest, SentSignal, audit_journal_arguments, search_logs,
};

use crate::program::output;

/// How long a recent event may take until it is in the log.
const PATIENCE: Duration = Duration::from_secs(1);

/// The senders of the signals of a run that its record does not name. `killed` says whether it may have
/// been killed, and `recently` whether the log may not have that yet. Without `file`, the usual logs are
/// searched, and then the journal.
pub(crate) fn senders(
    record: &Digest,
    killed: bool,
    recently: bool,
    file: Option<&Path>,
) -> Vec<SentSignal> {
    let Some(query) = AuditQuery::of(record, killed) else { return Vec::new() };
    let logs = file.map_or_else(|| AUDIT_LOGS.map(Path::new).to_vec(), |file| vec![file]);
    let began = Instant::now();
    loop {
        let mut is_readable = false;
        for &log in &logs {
            let mut search = AuditSearch::new(query.clone());
            is_readable |= search_logs(&mut search, log, query.since()).is_ok();
            let found = search.finish();
            if !found.is_empty() {
                return found;
            }
        }
        if !is_readable || !recently || began.elapsed() > PATIENCE {
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    if file.is_some() {
        return Vec::new();
    }
    let mut search = AuditSearch::new(query.clone());
    for line in output("journalctl", &audit_journal_arguments(&query)).unwrap_or_default().lines() {
        search.journal_line(line);
    }
    search.finish()
}
