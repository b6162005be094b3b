//! `/proc/PID/stat`, with a name that the process chooses. The name cannot extend beyond its field.

use forensics_core::logfmt;
use forensics_core::process::ProcessSummary;

pub(crate) fn check(data: &[u8]) {
    let summary = ProcessSummary::from_stat(7, data);
    assert_eq!(summary.pid, 7, "the pid is the one asked for");
    let shown = summary.to_string();
    assert!(!shown.chars().any(char::is_control), "{shown:?}");
    let name = format!("{}(7)", summary.name.as_deref().unwrap_or("?"));
    assert_eq!(logfmt::parse(&format!("k={shown}")), Ok(vec![("k".to_owned(), name)]));
    let json = serde_json::to_string(&summary).expect("a summary has a JSON form");
    assert_eq!(serde_json::from_str::<ProcessSummary>(&json).ok(), Some(summary.clone()));

    let Some(name) = summary.name else { return };
    // The name is everything between the first `(` and the last `)`.
    let open = data.iter().position(|&byte| byte == b'(').expect("there is a name");
    let close = data.iter().rposition(|&byte| byte == b')').expect("there is a name");
    assert_eq!(name, String::from_utf8_lossy(&data[open + 1..close]));
    assert!(summary.ppid.is_some() && summary.state.is_some() && summary.start_time.is_some());
}
