//! A record, perhaps damaged by a full disk or written by an attacker. It is read or refused, and
//! the post-mortem is one line without duplicate fields.

use forensics_core::duration::Timespan;
use forensics_core::logfmt;
use forensics_core::record::{
    Digest, Entry, Event, HostState, OomLog, Record, VERSION, post_mortem,
};
use serde_json::Value;

pub(crate) fn check(data: &[u8]) {
    data.split(|&b| b == b'\n').for_each(line);
    let Ok(record) = Record::parse(data) else { return };
    let lines = data.split(|&b| b == b'\n').filter(|line| !line.is_empty()).count();
    assert_eq!(record.entries.len() + record.corrupt + usize::from(record.torn), lines);
    assert!(record.entries.iter().any(|entry| matches!(entry.event, Event::RunStarted(_))));
    let digest = Digest::parse(data).expect("a record has a digest");
    assert_eq!((digest.read, digest.corrupt), (record.entries.len(), record.corrupt));
    for host in known() {
        examine(&digest, &host);
    }
}

/// A line that was read is written, and reads back unchanged.
fn line(line: &[u8]) {
    let Ok(entry) = Entry::parse(line) else { return };
    let timeout = match &entry.event {
        Event::RunStarted(start) => start.stop_timeout_us,
        Event::Signal(signal) => signal.stop_timeout_us,
        _ => None,
    };
    assert_ne!(timeout, Some(Timespan::Finite(u64::MAX)), "systemd's infinity as a number");
    let written = serde_json::to_value(&entry).expect("an entry has a JSON form");
    // serde_json does not promise a float's last digit.
    if has_float(&written) {
        return;
    }
    let text = serde_json::to_vec(&entry).expect("an entry has a JSON form");
    assert!(!text.contains(&b'\n'));
    let again = Entry::parse(&text).expect("what is written can be read");
    // An event with a known name, by a newer writer. Only its name is kept, which is enough for an
    // event without required fields.
    let may_fit = entry.v > VERSION && matches!(entry.event, Event::Unknown(_));
    assert!(again == entry || may_fit, "{again:?} is not {entry:?}");
}

fn has_float(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(values) => values.iter().any(has_float),
        Value::Object(fields) => fields.values().any(has_float),
        _ => false,
    }
}

/// What can be known about the host: nothing, that the process still runs, or everything.
fn known() -> [HostState; 3] {
    let (mut running, mut all) = (HostState::default(), HostState::default());
    running.locked = true;
    all.boot_id = Some("b".to_owned());
    all.mono_us = Some(60_000_000);
    all.oom_kill = Some(1);
    all.cgroup_inode = Some(1260);
    all.oom_log = OomLog::Killed("[    5.000042] Killed process 4100 (gateway)".to_owned());
    [HostState::default(), running, all]
}

fn examine(record: &Digest, host: &HostState) {
    let report = post_mortem(record, host);
    let line = report.to_string();
    assert!(!line.chars().any(char::is_control), "{line:?}");
    let read = logfmt::parse(&line).expect("a post-mortem's line has fields");
    let mut keys: Vec<&str> = read.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys[0], "outcome");
    keys.sort_unstable();
    assert!(keys.windows(2).all(|pair| pair[0] != pair[1]), "a duplicate field: {line}");
    for text in [Some(&report.evidence), report.advice.as_ref()].into_iter().flatten() {
        assert!(!text.is_empty() && !text.chars().any(char::is_control), "{text:?}");
    }
    for phase in &report.phases {
        assert!(phase.at_most_us.is_none_or(|most| most >= phase.at_least_us), "{phase:?}");
    }
    serde_json::to_string(&report).expect("a post-mortem has a JSON form");
}
