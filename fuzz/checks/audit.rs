//! A log of the audit system, in the forms of auditd and of the journal. What is found about a
//! sender is one line that is safe to show, and JSON.

use forensics_core::escape::is_safe;
use forensics_core::record::{AuditQuery, AuditSearch, Digest, is_signal_call};

/// A run with the pid 6805 that was asked to stop by a process that was gone, and then killed.
const RUN: &str = r#"{"v":1,"ts":"2026-11-28T15:01:37Z","mono_us":1,"event":"run_started","service":"gateway","pid":6805,"pid_namespace":4026531836,"exe":"/usr/bin/gateway","uid":0,"version":"0"}
{"v":1,"ts":"2026-11-28T15:02:37Z","mono_us":60000001,"event":"signal","kind":"signal","signal":"SIGTERM","ordinal":1,"sender_pid":6807,"sender_uid":0,"cause":"unknown","line":""}
"#;

pub(crate) fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    // In another pid namespace, the log must first show which process the run is.
    let contained = RUN.replace("4026531836", "1");
    let query = |record: &str| {
        let record = Digest::parse(record.as_bytes()).expect("a record");
        AuditQuery::of(&record, true).expect("a question")
    };
    for record in [RUN, &contained] {
        let mut search = AuditSearch::new(query(record));
        for line in text.lines() {
            search.line(line);
            search.journal_line(line);
            let _ = is_signal_call(line);
        }
        let found = search.finish();
        assert!(found.len() <= 2, "{found:?}");
        for sent in found {
            let line = sent.to_string();
            assert!(line.chars().all(is_safe), "{line:?}");
            serde_json::to_string(&sent).expect("it has a JSON form");
        }
    }
}
